# Puts the new release's containers in the place of the running ones: only of services whose configuration or image changed.
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
[ $# -gt 0 ] || die 'No service to recreate: name services.app in the inventory, or services in the step.'
config=$ORCH_RELEASE/effective.json
[ -f "$config" ] || die "Release $ORCH_N has no effective.json: the release step hasn't run."

children=''
# shellcheck disable=SC2329 # by the trap
stop_children() { for child in $children; do kill "$child" 2>/dev/null || :; done; } # most have ended
trap stop_children EXIT
trap 'exit 143' TERM INT HUP

# What Docker tells from now on; read below, on 6, which ends with the one who tells, however soon that is.
mkfifo "$ORCH_STEP/events"
# shellcheck disable=SC2094 # a FIFO
exec 5<>"$ORCH_STEP/events" 6<"$ORCH_STEP/events"
since=$(date +%s.%N)
docker events --since "$since" --filter "label=com.docker.compose.project=$ORCH_PROJECT" --filter type=container \
  --filter event=create --filter event=die --filter event=rename --filter event=start \
  --format '{{.Action}} {{.ID}} {{.TimeNano}} {{index .Actor.Attributes "com.docker.compose.service"}} {{index .Actor.Attributes "com.docker.compose.oneoff"}}' \
  >&5 5>&- 6<&- &
events=$!
exec 5>&-
children="$children $events"

containers=$(all_containers)
before=$(printf '%s\n' "$containers" | of_services "$@")
old=$(printf '%s\n' "$before" | awk '{ print $1 }')
# Before anything stops: the logs of what goes, up to their end.
while read -r id service _; do
  [ -n "$id" ] || continue
  save_logs "$service" "$id" -f 6<&- &
  children="$children $!"
done <<EOT
$before
EOT

await_baseline

printf '%s' "${before:+$before
}" >"$ORCH_STEP/before.new.$$"
printf '%s\n' "$containers" | awk '$3 == "running" { print $1 }' >"$ORCH_STEP/running.new.$$" # for an undo after Docker's death; a lost machine's boot starts them
# From here on the new version may have written: undoing the schema isn't harmless any more.
: >"$ORCH_DEPLOYMENT/started-new.new.$$"
publish "$ORCH_STEP/running" "$ORCH_STEP/before" "$ORCH_DEPLOYMENT/started-new"

# While Compose stops the old containers, the new ones, which it has made before, lose their restart policy: those of a
# release that isn't committed don't come back by themselves. What it was is kept for the commit. Compose's last act is to give
# a new container the old one's name; it is started then, before Compose itself has ended.
: >"$ORCH_STEP/policies"
: >"$ORCH_STEP/died"
: >"$ORCH_STEP/started"
tame() {
  policy=$(docker inspect -f '{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}' "$1")
  policy=${policy%:0}
  [ "${policy%%:*}" = no ] || docker update --restart=no "$1" >/dev/null
  printf '%s %s\n' "$1" "$policy" >>"$ORCH_STEP/policies"
}
begun=$(date +%s%N)
while read -r action id nano service one_off; do
  # What came before isn't our doing: what runs may fall over again and again.
  if [ "$one_off" != False ] || [ "$nano" -lt "$begun" ]; then continue; fi
  case $action in
  create) tame "$id" ;;
  rename) ! grep -q "^$id " "$ORCH_STEP/policies" || docker start "$id" >/dev/null || : ;; # tried again below, where it counts
  die) printf '%s %s %s\n' "$id" "$service" "${nano%??????}" >>"$ORCH_STEP/died" ;;
  start) printf '%s %s\n' "$id" "${nano%??????}" >>"$ORCH_STEP/started" ;;
  esac
done <&6 &
watcher=$!
exec 6<&-

if [ -n "$SIGNAL" ]; then
  # shellcheck disable=SC2086 # ids
  running=$(awk '$3 == "running" { print $1 }' "$ORCH_STEP/before")
  # shellcheck disable=SC2086 # ids
  [ -z "$running" ] || docker stop --signal "$SIGNAL" --time "$GRACE" $running >/dev/null
fi
compose -f "$config" up --no-start --no-deps --no-build --pull never --timeout "$GRACE" "$@" </dev/null
kill -KILL "$events" 2>/dev/null || : # its end ends the watcher, which first does what has been announced
wait "$watcher"

containers=$(all_containers)
containers=$(printf '%s\n' "$containers" | of_services "$@")
for id in $(printf '%s\n' "$containers" | awk '$3 == "created" { print $1 }'); do
  grep -q "^$id " "$ORCH_STEP/policies" || tame "$id"
done
start=$(printf '%s\n' "$containers" | awk '$3 != "running" { print $1 }')
if [ -n "$start" ]; then
  # shellcheck disable=SC2086 # ids
  docker start $start >/dev/null
fi

# Nobody has to wait for the rest.
# Which services came up together: the unit that starts the release at boot brings them up so, too.
mkdir -p "$ORCH_RELEASE/recreate"
step=${ORCH_STEP##*/}
together=$ORCH_RELEASE/recreate/${step#*-}
printf '%s\n' "$SERVICES" >"$together.new.$$"
{
  [ ! -f "$ORCH_DEPLOYMENT/restart-policies" ] || cat "$ORCH_DEPLOYMENT/restart-policies"
  cat "$ORCH_STEP/policies"
} >"$ORCH_DEPLOYMENT/restart-policies.new.$$"
{
  [ ! -f "$ORCH_DEPLOYMENT/stopped" ] || cat "$ORCH_DEPLOYMENT/stopped"
  awk 'FILENAME == ARGV[1] { old[$1] = 1; next } $1 in old { print $2, $3 }' "$ORCH_STEP/before" "$ORCH_STEP/died"
} >"$ORCH_DEPLOYMENT/stopped.new.$$"
publish "$together" "$ORCH_DEPLOYMENT/restart-policies" "$ORCH_DEPLOYMENT/stopped"

new='' unchanged='' json='' started_ms=''
while read -r id service _; do
  case "
$old
" in *"
$id
"*)
    unchanged="$unchanged $service"
    continue
    ;;
  esac
  new="$new $service"
  started=$(awk -v id="$id" '$1 == id { ms = $2 } END { print ms }' "$ORCH_STEP/started")
  [ -n "$started" ] || started=$(to_ms "$(docker inspect -f '{{.State.StartedAt}}' "$id")") # the events had ended by then
  if [ -z "$started_ms" ] || [ "$started" -gt "$started_ms" ]; then started_ms=$started; fi
  json="$json${json:+,}$(json_string "$service"):$(json_string "$id")"
done <<EOT
$containers
EOT
if [ -z "$new" ]; then
  rm -f "$ORCH_DEPLOYMENT/started-new"
  sync "$ORCH_DEPLOYMENT"
  say "nothing to recreate:$unchanged as before"
else
  say "recreated:$new${unchanged:+; as before:$unchanged}"
fi
stopped_ms=$(awk 'NR == 1 || $2 < ms { ms = $2 } END { print ms }' "$ORCH_DEPLOYMENT/stopped")
[ -z "$stopped_ms" ] || fact stopped_at_ms "$stopped_ms"
[ -z "$started_ms" ] || fact started_at_ms "$started_ms"
fact containers "{$json}"

# The old containers' logs end with them.
children=''
wait
