# Puts ufw's files back, then the kernel's rules: reloaded where ufw was on before, else taken out.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/ufw.sh
. "$ORCH_BUNDLE/ufw.sh"
disarm_revert
restore_files
first_line "$ORCH_STEP/was"
case $REPLY in
  on)
    reload_ufw
    restore_docker_user
    ;;
  off)
    ufw disable >"$ORCH_STEP/ufw.log" 2>&1 </dev/null || {
      cat "$ORCH_STEP/ufw.log" >&2
      die 'ufw disable failed (above).'
    }
    restore_docker_user
    restore_policies
    ;;
esac
first_line "$ORCH_STEP/was-enabled"
case $REPLY in
  disabled) systemctl --quiet disable ufw.service ;;
  masked)
    systemctl --quiet disable ufw.service
    systemctl --quiet mask ufw.service
    ;;
esac
