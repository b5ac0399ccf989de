# Brings the containers back that ran before; with none before, removes the new ones (never a volume). Right after any part of the
# apply: what Compose left half done is found by its labels.
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
# shellcheck source=playbooks/host/roles.sh
. "$ORCH_BUNDLE/roles.sh"
SERVICES=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
eval "set -- $SERVICES"
if [ ! -f "$ORCH_STEP/before" ]; then
  say 'nothing had been recreated'
  exit 0
fi

all_containers >"$ORCH_STEP/all"
of_services "$@" <"$ORCH_STEP/all" >"$ORCH_STEP/now"
new=$(awk 'FILENAME == ARGV[1] { old[$1] = 1; next } !($1 in old) { print $1 }' "$ORCH_STEP/before" "$ORCH_STEP/now")

# Did any new container ever run? Settled once, before the first of them goes: the schema's undo depends on it.
if [ ! -f "$ORCH_STEP/ran" ]; then
  ran=0
  for id in $new; do
    case $(docker inspect -f '{{.State.StartedAt}}' "$id") in 0001-*) ;; *) ran=1 ;; esac
  done
  echo "$ran" | write_atomically "$ORCH_STEP/ran"
fi
if [ "$(cat "$ORCH_STEP/ran")" = 0 ]; then
  rm -f "$ORCH_DEPLOYMENT/started-new"
  sync "$ORCH_DEPLOYMENT"
fi

remove_new() {
  for id in "$@"; do
    service=$(awk -v id="$id" '$1 == id { print $2 }' "$ORCH_STEP/now")
    save_logs "$service" "$id" || : # the removal matters more than the log
    docker rm -f "$id" >/dev/null || docker_gone "$id"
  done
}

if [ -z "$ORCH_PREVIOUS" ]; then
  # shellcheck disable=SC2086 # ids
  remove_new $new
  remove_networks
  say 'the new containers are removed; nothing ran before'
  exit 0
fi
if [ -f "$ORCH_DEPLOYMENT/drained" ]; then
  # shellcheck disable=SC2086 # ids
  remove_new $new
  say 'the new containers are removed; the old ones start once the schema is back'
  exit 0
fi

# Where the old container is still there, the new one only stands beside it. Where it isn't, Compose replaces the new one, so that
# whatever it still answers it answers until then; but not one with a half-finished name.
for id in $new; do
  service=$(awk -v id="$id" '$1 == id { print $2 }' "$ORCH_STEP/now")
  name=$(docker inspect -f '{{.Name}}' "$id")
  kept=$(awk -v service="$service" 'FILENAME == ARGV[1] { old[$1] = 1; next } $2 == service && $1 in old' "$ORCH_STEP/before" "$ORCH_STEP/now")
  case $name in
  */[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]_*) half=1 ;;
  *) half=0 ;;
  esac
  if [ -n "$kept" ] || [ "$half" = 1 ]; then
    remove_new "$id"
  else
    save_logs "$service" "$id" || : # bringing the old version back matters more than the log
  fi
done
# A Docker that was killed meanwhile has stopped more than we have, for good: what the app needs runs again before it.
if [ -s "$ORCH_STEP/running" ]; then
  stopped=$(awk 'FILENAME == ARGV[1] { ran[$1] = 1; next } FILENAME == ARGV[2] { ours[$1] = 1; next }
    ($1 in ran) && !($1 in ours) && $3 == "exited" { print $1 }' "$ORCH_STEP/running" "$ORCH_STEP/now" "$ORCH_STEP/all")
  # shellcheck disable=SC2086 # ids
  [ -z "$stopped" ] || docker start $stopped >/dev/null || : # the app is brought back all the same; what it lacks, its gate tells
fi
restore_roles || say "The database's roles can't be given back what they had yet."
start_release "$ORCH_PREVIOUS" "$@"
await_release "$ORCH_PREVIOUS"
