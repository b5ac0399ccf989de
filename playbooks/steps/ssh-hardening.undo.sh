# Puts sshd's settings back; sessions stay. What was never reloaded needs no reload now.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/sshd.sh
. "$ORCH_BUNDLE/sshd.sh"
disarm_revert
restore_files
if [ -e "$ORCH_STEP/opened" ]; then ufw reload; fi
first_line "$ORCH_STEP/was-enabled"
case $REPLY in
  disabled | masked)
    was=$REPLY
    ssh_service
    systemctl --quiet disable "$REPLY.service"
    [ "$was" = disabled ] || systemctl --quiet mask "$REPLY.service"
    ;;
esac
if [ -e "$ORCH_STEP/reloading" ]; then
  prepare_sshd
  sshd -t || die "sshd's settings have a fault (above), though ours are gone again: it goes on with those that it had read."
  reload_sshd
  await_sshd || die 'sshd does not listen where its settings say.'
fi
