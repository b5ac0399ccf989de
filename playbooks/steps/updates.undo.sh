# The settings and timers of the updates as they were.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"

had=
if grep -qs '^/etc/systemd/system/' saved/*/path; then had=1; fi
restore_files
[ -z "$had" ] || systemctl daemon-reload
restore_units
