# The current release runs again, as it did before the drain.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/gate.sh
. "$ORCH_BUNDLE/gate.sh"
# shellcheck source=playbooks/host/switch.sh
. "$ORCH_BUNDLE/switch.sh"
SERVICES=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
eval "set -- $SERVICES"
if [ ! -f "$ORCH_STEP/before" ]; then
  say 'nothing had been drained'
  exit 0
fi
if [ -n "$ORCH_PREVIOUS" ]; then
  while read -r id _ policy; do
    # A container that is gone comes back with the policy of its release.
    docker update --restart="$policy" "$id" >/dev/null || docker_gone "$id"
  done <"$ORCH_STEP/before"
  start_release "$ORCH_PREVIOUS" "$@"
  await_release "$ORCH_PREVIOUS"
fi
rm -f "$ORCH_DEPLOYMENT/drained"
