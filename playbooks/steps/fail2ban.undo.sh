# fail2ban's settings and service as they were. Its package stays.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"

restore_files
restore_units
# A step that has changed nothing leaves it alone: a restart forgets who is about to be kept out.
if have fail2ban-client && { remembered jail || [ -e saved ]; }; then
  unit_state fail2ban.service
  if [ "$active" = active ]; then restart_unit fail2ban.service || say "fail2ban doesn't start: $(unit_reason fail2ban.service)"; fi
fi
rm -rf "$ORCH_STEP/copy"
