# Caddy's files and service as they were. Its package stays, and so do certificates that it fetched: authorities count them.
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
# A step that has changed nothing leaves Caddy alone.
if have caddy && { [ -e before.proxy ] || [ -e saved ]; }; then
  unit_state caddy.service
  if [ "$active" = active ]; then
    systemctl reload caddy.service || say "Caddy does not take its old configuration over: $(unit_reason caddy.service)"
  fi
fi
rm -rf "$ORCH_STEP/caddy"
