# Journald's settings as they were.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"

had=
if grep -qsxF /etc/systemd/journald.conf.d/zz-orchestrate.conf saved/*/path; then had=1; fi
restore_files
[ -z "$had" ] || systemctl restart systemd-journald.service
