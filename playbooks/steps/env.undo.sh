# What was generated stays in generated.env: it may be in use the next time. What a rotation replaced there comes back.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
[ ! -f generated.before ] || write_atomically "$ORCH_STATE/generated.env" <generated.before
remove_secret_files
rm -f "$ORCH_RELEASE/.env" "$ORCH_RELEASE"/.env.new.* "$ORCH_RELEASE/.secrets" "$ORCH_RELEASE"/.secrets.new.* "$ORCH_STATE"/generated.env.new.* "$ORCH_STATE/generated.env.first"
rm -rf files
rm -f config.json config.new config.err env secrets generated generated.new generated.bad rotated
