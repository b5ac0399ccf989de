# Ends a dump that still runs and removes what it has left; a finished restore point stays. Services that the apply created go, never
# their volumes.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
SERVICE='' DB_NAME='' DB_USER=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

database=''
[ -z "$SERVICE" ] || database=$(running_container "$SERVICE")
if [ -n "$database" ]; then
  pg_names "$database"
  if ! end_sessions "$database"; then
    # One that doesn't accept connections has no sessions: it is still starting, or going down.
    ! docker exec "$database" pg_isready -q || die "Sessions of this deployment are still open in $SERVICE."
  fi
fi
rm -f "$ORCH_OPT/backups/.d$ORCH_N.partial"*
for dump in "$ORCH_OPT/backups/"*"-d$ORCH_N.dump"; do
  [ -f "$dump" ] || continue
  # Without its receipt it was cut off between the two.
  [ -f "${dump%.dump}.json" ] || rm -f "$dump"
done
rmdir "$ORCH_OPT/backups" 2>/dev/null || : # there are some, or never were any
if [ -s "$ORCH_STEP/created" ]; then
  while read -r service; do
    if [ "$service" = "$SERVICE" ] && [ -n "$database" ]; then
      # Its volume stays: a first initialisation that is cut off would leave it half made, for good.
      pg_ready "$database" 60 || say "$SERVICE has not finished its first start; its volume may be half made"
      docker stop -t 30 "$database" >/dev/null || docker_gone "$database"
    fi
    for id in $(service_containers "$service"); do
      docker rm -f "$id" >/dev/null || docker_gone "$id"
    done
    say "$service is removed again; its volumes stay"
  done <"$ORCH_STEP/created"
  remove_networks
fi
