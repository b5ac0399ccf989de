# A new connection has been seen to get in: the revert of STEP isn't wanted any more.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
STEP=
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
checking || (
  ORCH_STEP=$ORCH_DEPLOYMENT/$STEP
  if [ -z "$STEP" ] || [ ! -d "$ORCH_STEP" ]; then
    die "There is no step $STEP to disarm."
  fi
  revert_unit
  if have systemctl; then
    systemctl stop "$REPLY.timer" 2>/dev/null || : # it wasn't armed, or has gone off
    case $(systemctl show -p ActiveState --value "$REPLY.service" 2>/dev/null) in
      activating | active | deactivating) die "Too late: the host is undoing $STEP at this moment, since nobody got in in time." ;;
    esac
  fi
  [ ! -e "$ORCH_STEP/reverted" ] || die "Too late: the host has undone $STEP by itself, since nobody got in in time."
)
tell_changes
