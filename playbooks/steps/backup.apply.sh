# A restore point: dumped by the container's own tools, read back whole, hashed, and only then given its name and its receipt.
# On a first deployment the database and the cache are created here.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/switch.sh
. "$ORCH_BUNDLE/switch.sh"
SERVICE='' CREATE='' DB_NAME='' DB_USER='' KEEP_LAST=7 KEEP_DAYS=7 VERSION=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
config=$ORCH_RELEASE/effective.json
backups=$ORCH_OPT/backups
partial=$backups/.d$ORCH_N.partial

# ---- the services that keep data

eval "set -- $CREATE"
containers=$(all_containers)
# state SERVICE: running, or another state, or nothing; running_id SERVICE: its container.
state() { printf '%s\n' "$containers" | awk -v service="$1" '$2 == service && (found == "" || $3 == "running") { found = $3 } END { print found }'; }
running_id() { printf '%s\n' "$containers" | awk -v service="$1" '$2 == service && $3 == "running" { print $1; exit }'; }
missing=''
for service in "$@"; do
  case $(state "$service") in
  running) continue ;;
  '') ;;
  *)
    [ -z "$ORCH_PREVIOUS" ] ||
      die "$service has a container, but it doesn't run: start it, or look at its logs (docker logs), before a deployment. Nothing was changed."
    ;;
  esac
  missing="$missing $service"
done
if [ -n "$missing" ]; then
  [ -f "$config" ] || die "Not there, and there is no release that could create it:$missing"
  await_baseline
  # Only what has no container yet is the undo's to remove.
  for service in $missing; do [ -n "$(state "$service")" ] || echo "$service"; done | write_atomically "$ORCH_STEP/created"
  say "creating:$missing"
  # shellcheck disable=SC2086 # names of services
  compose -f "$config" up -d --no-deps --no-build --pull never $missing </dev/null
  containers=$(all_containers)
  for service in $missing; do
    [ "$service" != "$SERVICE" ] || continue
    # Its own health check, where it has one; the cache is asked by nobody else before the app starts.
    id=$(running_id "$service")
    waited=0
    while [ -n "$id" ]; do
      case $(docker inspect -f '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$id") in
      'running ' | 'running healthy') break ;;
      'running '*) ;;
      *) id='' ;;
      esac
      waited=$((waited + 1))
      [ "$waited" -le 600 ] || id=''
      [ -z "$id" ] || sleep 0.2
    done
    [ -n "$id" ] || die "$service doesn't get healthy: $(docker logs --tail 20 "$(service_containers "$service" | sed -n 1p)" 2>&1)"
  done
fi

[ -n "$SERVICE" ] || {
  say 'there is no database to back up'
  exit 0
}
database=$(running_id "$SERVICE")
[ -n "$database" ] || die "The database's service, $SERVICE, doesn't run. Nothing was changed."

# ---- the dump, and beside it what there is to save

mkdir -p "$backups"
clock
# shellcheck disable=SC2154 # set by clock
began=$up_ms
# dump [COMPRESSION]: without one, the best that pg_dump's version has. For a subshell, which becomes the docker client: ending it ends that one.
dump() {
  # shellcheck disable=SC2016 # expanded inside the container
  exec docker exec "$database" sh -c "$pg_session"'
if [ -z "$4" ]; then
  version=$(pg_dump --version)
  version=${version#"${version%%[0-9]*}"}
  case ${version%%[!0-9]*} in ? | 1[0-5]) set -- "$1" "$2" "$3" 1 ;; *) set -- "$1" "$2" "$3" zstd:1 ;; esac
fi
exec pg_dump -Fc -Z "$4" --lock-wait-timeout=10000' sh "orch-$ORCH_N" "$DB_NAME" "$DB_USER" 120 "${1-}" >"$partial" 2>"$partial.errors" </dev/null
}
dump &
dumping=$!

# A line each, told apart by its first letter. Small tables are counted, of the others the statistics tell. A lock is waited for
# a little longer than pg_dump does, which names the table.
pg_query "$database" 120 <<'SQL' && rc=0 || rc=$?
set lock_timeout = '12s';
select 'S ' || current_setting('server_version');
select 'B ' || pg_database_size(current_database());
select 'select ''R '' || version_num from public.alembic_version' where to_regclass('public.alembic_version') is not null
\gexec
select format(case when pg_table_size(c.oid) < 16 * 1024 * 1024
    then 'select ''T '' || json_build_object(''table'', %1$L, ''rows'', count(*), ''exact'', true) from %2$I.%3$I'
    else 'select ''T '' || json_build_object(''table'', %1$L, ''rows'', %4$s, ''exact'', false)' end,
  n.nspname || '.' || c.relname, n.nspname, c.relname, greatest(c.reltuples, 0)::bigint)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1
\gexec
SQL
if [ "$rc" != 0 ]; then
  kill -KILL "$dumping" 2>/dev/null || : # it may have failed as well
  wait "$dumping" 2>/dev/null || : # its words tell
  [ ! -s "$partial.errors" ] || die "The database in $SERVICE can't be read: $(cat "$partial.errors")"
  [ "$rc" != 124 ] || die "PostgreSQL in $SERVICE doesn't answer within 120 s: $(docker logs --tail 20 "$database" 2>&1)"
  die "The database in $SERVICE can't be read (above)."
fi
facts=$pg_answer
server=$(printf '%s\n' "$facts" | sed -n 's/^S //p')
bytes=$(printf '%s\n' "$facts" | sed -n 's/^B //p')
revision=$(printf '%s\n' "$facts" | sed -n 's/^R //p' | paste -s -d ' ' -)
# A migrate that comes next needn't ask again; on a full disk it does.
[ -z "$revision" ] || printf '%s\n' "$revision" 2>/dev/null >"$ORCH_STEP/seen-revision" || rm -f "$ORCH_STEP/seen-revision"
rows=$(printf '%s\n' "$facts" | sed -n 's/^T //p' | paste -s -d , -)
if [ -z "$revision" ] && [ -n "$ORCH_PREVIOUS" ]; then
  revision=$(cat "$ORCH_OPT/releases/$ORCH_PREVIOUS/schema" 2>/dev/null) || revision=''
fi
if [ -z "$rows" ]; then
  wait "$dumping" || : # nothing is lost
  rm -f "$partial" "$partial.errors"
  rmdir "$backups" 2>/dev/null || : # others are there
  say "the database $DB_NAME is empty: nothing to back up"
  fact backup null
  exit 0
fi

# ---- read back, hash

dump_failed() {
  if disk_full "$backups"; then
    die "The disk is full: the backup of $DB_NAME does not fit into $backups. orchestrate prune removes old releases and images."
  fi
  die "pg_dump failed: $(cat "$partial.errors")"
}

# Reads back what lies on the disk, once there is a line on 4: until then it gets into the container, while the dump goes on. Ends with us.
rm -f "$ORCH_STEP/whole"
mkfifo "$ORCH_STEP/whole" || dump_failed
exec 4<>"$ORCH_STEP/whole"
{
  exec 4>&-
  read -r _ && cat "$partial"
} <"$ORCH_STEP/whole" | docker exec -i "$database" pg_restore -f /dev/null 2>"$partial.unread" 4>&- &
reading=$!

compression=zstd:1
[ "${pg_tool%%[!0-9]*}" -ge 16 ] || compression=1
if ! wait "$dumping"; then
  # A pg_dump that was built without zstd says so before its first byte.
  if [ "$compression" != zstd:1 ] || [ -s "$partial" ]; then dump_failed; fi
  compression=gzip:1
  (dump "$compression") || dump_failed
fi
[ -s "$partial" ] || die 'pg_dump wrote nothing.'
sync "$partial" &
syncing=$!
sha256sum "$partial" >"$partial.sum" &
summing=$!
echo >&4
exec 4>&-
wait "$reading" || die "The dump can't be read back: $(cat "$partial.unread")"
wait "$summing" || die "The dump can't be read from the disk."
wait "$syncing" || die "The dump couldn't be written to the disk."
read -r sum _ <"$partial.sum"
size=$(stat -c %s "$partial")
clock
seconds=$(((up_ms - began) / 1000)).$(((up_ms - began) % 1000 / 100))

version=$(printf '%s' "${VERSION:-none}" | tr -c 'A-Za-z0-9._-' '-')
name=$(date -u +%Y%m%dT%H%M%SZ)-$version-d$ORCH_N.dump
mv "$partial" "$backups/$name"
sync "$backups"
printf '{"file":%s,"database":%s,"service":%s,"size":%s,"sha256":"%s","revision":%s,"tables":[%s],"deployment":%s,"version":%s,"verified":true,"server":%s,"tool":%s,"compression":"%s","databaseSize":%s,"seconds":%s}\n' \
  "$(json_string "$name")" "$(json_string "$DB_NAME")" "$(json_string "$SERVICE")" "$size" "$sum" "$(json_string "$revision")" "$rows" \
  "$ORCH_N" "$(json_string "$VERSION")" "$(json_string "$server")" "$(json_string "$pg_tool")" "$compression" "$bytes" "$seconds" |
  write_atomically "$backups/${name%.dump}.json"
rm -f "$partial.sum" "$partial.errors" "$partial.unread" "$ORCH_STEP/whole"
printf '%s\n' "$backups/$name" | write_atomically "$ORCH_DEPLOYMENT/backup"
fact backup "{\"file\":$(json_string "$name"),\"bytes\":$size,\"sha256\":\"$sum\",\"seconds\":$seconds,\"databaseSize\":$bytes}"
say "restore point $name: $size bytes of a database of $bytes, read back, in $seconds s"

# ---- retention: the last KEEP_LAST that were verified and all of the last KEEP_DAYS days, and those of releases that are still here

place=0
receipts=''
for receipt in "$backups/"*.json; do receipts="${receipt##*/} $receipts"; done # the newest first
for receipt in $receipts; do
  grep -q '"verified":true' "$backups/$receipt" || continue
  kept=${receipt%.json}.dump
  [ -f "$backups/$kept" ] || continue
  place=$((place + 1))
  [ "$place" -gt "$KEEP_LAST" ] || continue
  [ -n "$(find "$backups/$kept" -mtime "+$((KEEP_DAYS > 0 ? KEEP_DAYS - 1 : 0))")" ] || [ "$KEEP_DAYS" = 0 ] || continue
  number=${kept%.dump}
  number=${number##*-d}
  [ ! -d "$ORCH_OPT/releases/$number" ] || continue
  say "removing the old backup $kept"
  rm -f "$backups/$kept" "$backups/$receipt" || say "the old backup $kept couldn't be removed"
done
