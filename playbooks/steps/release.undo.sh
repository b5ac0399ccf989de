# The release's directory goes, unless it is what runs.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
# A password that pull never came to use (its own undo runs only if it was started).
rm -f "$ORCH_DEPLOYMENT"/[0-9][0-9]-*/password
rm -rf "$ORCH_RELEASE.new"
if [ "$(current_number)" = "$ORCH_N" ]; then
  die "Release $ORCH_N is the current one: it stays."
fi
remove_secret_files
rm -rf "$ORCH_RELEASE" files
rm -f env secrets
