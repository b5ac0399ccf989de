# Journald's settings as they were.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"

had=
if grep -qsxF /etc/systemd/journald.conf.d/zz-orchestrate.conf saved/*/path; then had=1; fi
restore_files
[ -z "$had" ] || restart_unit systemd-journald.service
