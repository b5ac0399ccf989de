# The project's containers and the database inside one of them. Sourced by step scripts, after lib.sh.
# shellcheck shell=sh

# service_containers SERVICE: ids of its containers in any state, one-off ones excluded. By label, never by name: a
# Compose that was killed leaves a container with a name of its own.
service_containers() {
  docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$ORCH_PROJECT" \
    --filter "label=com.docker.compose.service=$1" --filter label=com.docker.compose.oneoff=False
}

# running_container SERVICE: id of its running container, or nothing.
running_container() {
  docker ps -q --no-trunc --filter "label=com.docker.compose.project=$ORCH_PROJECT" \
    --filter "label=com.docker.compose.service=$1" --filter label=com.docker.compose.oneoff=False \
    --filter status=running | sed -n 1p
}

# all_containers: "<id> <service> <state>" of the project, a line each, one-off containers excluded.
all_containers() {
  docker ps -a --no-trunc --filter "label=com.docker.compose.project=$ORCH_PROJECT" \
    --filter label=com.docker.compose.oneoff=False --format '{{.ID}} {{.Label "com.docker.compose.service"}} {{.State}}'
}

# stopped_meanwhile: where Docker was started anew since this deployment was opened, the services, in REPLY, whose container has ended since, though it is to
# run always: after a SIGKILL of dockerd nobody starts them but the unit that waits for our lock.
stopped_meanwhile() {
  REPLY=
  # shellcheck disable=SC3013 # dash and busybox have -nt
  [ -e "$ORCH_DEPLOYMENT/holder.json" ] && [ /run/docker.pid -nt "$ORCH_DEPLOYMENT/holder.json" ] || return 0
  stopped_after=$(sed -n '1s/^.*"t":\([0-9]*\)[0-9]\{3\},.*$/\1/p' "$ORCH_DEPLOYMENT/journal.jsonl")
  stopped_after=$(date -u -d "@$stopped_after" +%Y-%m-%dT%H:%M:%S)
  REPLY=$(timeout 20 docker ps -aq --filter "label=com.docker.compose.project=$ORCH_PROJECT" --filter label=com.docker.compose.oneoff=False --filter status=exited |
    xargs -r timeout 20 docker inspect -f '{{index .Config.Labels "com.docker.compose.service"}} {{.HostConfig.RestartPolicy.Name}} {{.State.FinishedAt}}' 2>/dev/null |
    awk -v after="$stopped_after" '($2 == "always" || $2 == "unless-stopped") && $3 "" > after "" { names = names (names == "" ? "" : ", ") $1 } END { print names }')
}

# services_of FILE: the names of the services of an effective.json, a line each.
services_of() { compose -f "$1" config --services </dev/null; }

# has_word WORD LINES: whether WORD is one of the lines.
has_word() {
  case "
$2
" in
  *"
$1
"*) return 0 ;;
  esac
  return 1
}

# remove_one_offs: containers that a step of this deployment, or of an earlier one, started beside the services.
remove_one_offs() {
  docker ps -a --no-trunc --filter "label=orchestrate.project=$ORCH_PROJECT" \
    --format '{{.ID}} {{.Label "orchestrate.deployment"}}' | while read -r one_off_id one_off_n; do
    case $one_off_n in '' | *[!0-9]*) continue ;; esac
    if [ "$one_off_n" -le "$ORCH_N" ]; then
      say "removing the one-off container $(printf %.12s "$one_off_id") of deployment $one_off_n"
      docker rm -f "$one_off_id" >/dev/null || docker_gone "$one_off_id"
    fi
  done
}

# docker_gone ID: true if there is no such container (any more).
docker_gone() { ! docker inspect "$1" >/dev/null 2>&1; }

# remove_networks: those of the project, once no container of the project is left.
remove_networks() {
  [ -z "$(docker ps -aq --filter "label=com.docker.compose.project=$ORCH_PROJECT")" ] || return 0
  for network in $(docker network ls -q --filter "label=com.docker.compose.project=$ORCH_PROJECT"); do
    docker network rm "$network" >/dev/null || say "the network $network couldn't be removed"
  done
}

# save_logs SERVICE CONTAINER [-f]: what a container has written, kept beyond its removal. -f follows to its end.
# Nothing for journald (the journal keeps it) and none.
save_logs() {
  case $(docker inspect -f '{{.HostConfig.LogConfig.Type}}' "$2" 2>/dev/null) in
  journald | none | '') return 0 ;;
  esac
  logs_dir=$ORCH_STATE/logs/$1
  mkdir -p "$logs_dir"
  logs_file=$logs_dir/$(date -u +%Y%m%dT%H%M%SZ)-d$ORCH_N.log
  # Two containers of one service within a second.
  while [ -e "$logs_file" ]; do logs_file=${logs_file%.log}+.log; done
  if [ "${3:-}" = -f ]; then
    timeout --foreground 900 docker logs -f --timestamps --tail 200000 "$2" >"$logs_file" 2>&1
  else
    timeout --foreground 60 docker logs --timestamps --tail 200000 "$2" >"$logs_file" 2>&1
  fi
}

# pg_stdin CONTAINER COMMAND…: a PostgreSQL tool inside the database's container; its sessions bear the deployment's name. The
# password, where one is asked for, comes from the container's own environment and stays in there.
pg_stdin() { pg_container=$1; shift; docker exec -i "$pg_container" sh -c "$pg_preamble" sh "orch-$ORCH_N" "$@"; }
# shellcheck disable=SC2016 # expanded inside the container
pg_login='
if [ -z "${PGPASSWORD:-}" ]; then
  if [ -n "${POSTGRES_PASSWORD:-}" ]; then PGPASSWORD=$POSTGRES_PASSWORD
  elif [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
  fi
fi
PGAPPNAME=$1
export PGPASSWORD PGAPPNAME
shift
'
# Until the server accepts connections by TCP (during its first initialisation one answers on the socket that goes away again), at most $3 seconds:
# whoever started this may be gone, and ending the docker client ends nothing in here.
# shellcheck disable=SC2016 # the same
pg_await='
read -r up _ </proc/uptime
end=$((${up%.*} + $3))
until pg_isready -q -h 127.0.0.1 -p "${PGPORT:-5432}"; do
  read -r up _ </proc/uptime
  [ "${up%.*}" -lt "$end" ] || exit 124
  sleep 0.2 || sleep 1
done </dev/null
'
# shellcheck disable=SC2016 # the same
pg_preamble=$pg_login'exec "$@"'
# Its database and user: $1 and $2, where they are empty those that the container was made with.
# shellcheck disable=SC2016 # the same
pg_target='
PGUSER=${2:-${POSTGRES_USER:-postgres}}
PGDATABASE=${1:-${POSTGRES_DB:-$PGUSER}}
export PGUSER PGDATABASE
'
# As soon as the server accepts connections, at most $3 seconds from now (else status 124).
pg_session=$pg_login$pg_await$pg_target

# For psql: the revisions in Alembic's table, a line each; nothing where there is no such table.
# shellcheck disable=SC2034 # for those who source it
revisions_sql="select 'select version_num from public.alembic_version order by 1' where to_regclass('public.alembic_version') is not null
\\gexec"

# pg_query CONTAINER SECONDS: runs stdin (SQL) as soon as the server accepts connections, all in one go, since each `docker exec` costs more than
# the query. Sets pg_answer, pg_tool (pg_dump's version), and DB_NAME and DB_USER, where they are empty. Status 124: not done in time.
pg_query() {
  # shellcheck disable=SC2016 # the same
  pg_answer=$(timeout --foreground "$2" docker exec -i "$1" sh -c "$pg_session"'
printf "%s\n%s\n%s\n" "$PGDATABASE" "$PGUSER" "$(pg_dump --version)"
exec psql -X -q -A -t -v ON_ERROR_STOP=1' sh "orch-$ORCH_N" "$DB_NAME" "$DB_USER" "$2") || return
  pg_answer=$pg_answer$pg_newline # which the substitution took
  DB_NAME=${pg_answer%%"$pg_newline"*}
  pg_answer=${pg_answer#*"$pg_newline"}
  DB_USER=${pg_answer%%"$pg_newline"*}
  pg_answer=${pg_answer#*"$pg_newline"}
  pg_tool=${pg_answer%%"$pg_newline"*}
  pg_tool=${pg_tool#"${pg_tool%%[0-9]*}"}
  pg_answer=${pg_answer#*"$pg_newline"}
  pg_answer=${pg_answer%"$pg_newline"}
}
pg_newline='
'
pg_answer='' pg_tool=''

# pg_names CONTAINER: sets DB_NAME and DB_USER, where they are empty, from what the container was made with.
pg_names() {
  if [ -n "$DB_NAME" ] && [ -n "$DB_USER" ]; then return 0; fi
  # shellcheck disable=SC2016 # expanded inside the container
  pg_env=$(docker exec "$1" sh -c 'u=${POSTGRES_USER:-postgres}; printf "%s\n%s\n" "${POSTGRES_DB:-$u}" "$u"')
  DB_NAME=${DB_NAME:-$(printf '%s\n' "$pg_env" | sed -n 1p)}
  DB_USER=${DB_USER:-$(printf '%s\n' "$pg_env" | sed -n 2p)}
}

# pg_ready CONTAINER SECONDS: waits until the server accepts connections by TCP (during its first initialisation one answers on the socket
# that goes away again), and sets DB_NAME, DB_USER where they are empty, and pg_tool (pg_dump's version).
pg_ready() {
  # shellcheck disable=SC2016 # expanded inside the container
  pg_env=$(timeout --foreground "$2" docker exec "$1" sh -c "$pg_await"'
u=${POSTGRES_USER:-postgres}
printf "%s\n%s\n" "${POSTGRES_DB:-$u}" "$u"
pg_dump --version' sh '' '' "$2") || return 1
  DB_NAME=${DB_NAME:-$(printf '%s\n' "$pg_env" | sed -n 1p)}
  DB_USER=${DB_USER:-$(printf '%s\n' "$pg_env" | sed -n 2p)}
  # shellcheck disable=SC2034 # for the backup
  pg_tool=$(printf '%s\n' "$pg_env" | sed -n '3s/^[^0-9]*//p')
}

# sql CONTAINER DB_NAME [psql options]: runs stdin, answers unadorned, stops at the first fault.
sql() {
  sql_container=$1 sql_database=$2
  shift 2
  pg_stdin "$sql_container" psql -X -q -A -t -v ON_ERROR_STOP=1 -U "$DB_USER" -d "$sql_database" "$@"
}

# end_sessions CONTAINER: sessions of this deployment's and earlier ones' steps are ended, and waited for until they are gone.
end_sessions() {
  sessions=0
  while :; do
    left=$(sql "$1" postgres -v n="$ORCH_N" <<'SQL'
select count(pg_terminate_backend(pid)) from pg_stat_activity
where pid <> pg_backend_pid() and application_name ~ '^orch-[0-9]{1,9}$'
  and substr(application_name, 6)::int <= :n;
SQL
    ) || return 1
    [ "$left" != 0 ] || return 0
    sessions=$((sessions + 1))
    [ "$sessions" -le 50 ] || return 1
    sleep 0.2
  done
}
