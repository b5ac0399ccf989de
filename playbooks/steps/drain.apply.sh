# Stops the app's services before the backup, so that no write is lost when the schema is brought back by it.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/switch.sh
. "$ORCH_BUNDLE/switch.sh"
SERVICES='' SIGNAL='' GRACE=30
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
eval "set -- $SERVICES"
await_baseline

# The old release's own policies, for the undo: a stopped container mustn't come back by itself before the schema is settled.
containers=$(all_containers)
printf '%s\n' "$containers" | of_services "$@" | awk '$3 == "running" { print $1, $2 }' >running
while read -r id service; do
  policy=$(docker inspect -f '{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}' "$id")
  printf '%s %s %s\n' "$id" "$service" "${policy%:0}"
done <running >policies
write_atomically "$ORCH_STEP/before" <policies
: | write_atomically "$ORCH_DEPLOYMENT/drained"
ids=$(awk '{ print $1 }' "$ORCH_STEP/before")
if [ -z "$ids" ]; then
  say 'nothing runs that could be drained'
  exit 0
fi
# shellcheck disable=SC2086 # ids
docker update --restart=no $ids >/dev/null
# shellcheck disable=SC2086 # ids
docker stop ${SIGNAL:+--signal "$SIGNAL"} --time "$GRACE" $ids >/dev/null
while read -r id service policy; do
  finished=$(docker inspect -f '{{.State.FinishedAt}}' "$id")
  printf '%s %s\n' "$service" "$(to_ms "$finished")"
done <"$ORCH_STEP/before" >stopped
write_atomically "$ORCH_DEPLOYMENT/stopped" <stopped
fact stopped_at_ms "$(awk 'NR == 1 || $2 < ms { ms = $2 } END { print ms }' "$ORCH_DEPLOYMENT/stopped")"
