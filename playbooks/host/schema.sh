# The database's schema: what revision it is at, and how it gets back. Sourced after lib.sh and containers.sh, with a migrate step's params.
# shellcheck shell=sh

# one_off RELEASE COMMAND…: runs a command in a container of its own, of that release's image. Its container bears the deployment's number, its
# database sessions too: whoever has to clean up finds both.
one_off() {
  one_off_release=$ORCH_OPT/releases/$1
  shift
  one_off_count=$((${one_off_count:-0} + 1))
  # What it prints may hold secrets: it stands in the deployment's log, private to its user, and not in the system's journal as well.
  one_off_quiet=$ORCH_STEP/no-logging.json
  printf '{"services":{%s:{"logging":{"driver":"none"}}}}\n' "$(json_string "$SERVICE")" >"$one_off_quiet"
  set -- run --rm -T --no-deps --label "orchestrate.project=$ORCH_PROJECT" --label "orchestrate.deployment=$ORCH_N" \
    --name "$ORCH_PROJECT-migrate-$ORCH_N-$$-$one_off_count" -e "PGOPTIONS=-c lock_timeout=$LOCK_TIMEOUT" -e "PGAPPNAME=orch-$ORCH_N" "$SERVICE" "$@"
  # What the configuration takes from the release's .env (secrets by `environment:`) it finds in the project directory.
  if [ -n "$holding" ]; then
    compose --project-directory "$one_off_release" -f - -f "$one_off_quiet" "$@"
  else
    compose --project-directory "$one_off_release" -f "$one_off_release/effective.json" -f "$one_off_quiet" "$@" </dev/null
  fi
}

# hold_one_off RELEASE COMMAND…: Compose starts, which takes a while, and waits for its configuration, which the next one_off_within gives it: it has to be of
# the same words. Whatever is started in the background meanwhile must close 5. For the script itself, which drops it (drop_held) at its end.
held='' holding=''
hold_one_off() {
  rm -f "$ORCH_STEP/held"
  mkfifo "$ORCH_STEP/held"
  # Both ends are open before anybody waits for one. One who can also read would keep the pipe alive for itself.
  # shellcheck disable=SC2094 # a FIFO
  exec 5<>"$ORCH_STEP/held" 6<"$ORCH_STEP/held"
  exec 5>"$ORCH_STEP/held"
  (
    exec 5>&- <&6 6<&-
    # shellcheck disable=SC2034 # for compose
    holding=1 compose_exec=exec
    one_off "$@"
  ) &
  held=$!
  exec 6<&-
}

# Nobody has to see what Compose says to no configuration at all.
drop_held() { [ -z "$held" ] || kill -KILL "$held" 2>/dev/null || :; } # it may have ended by itself

# one_off_within SECONDS RELEASE COMMAND…: the same; its container is removed when time is over (status 124).
one_off_within() {
  one_off_seconds=$1
  shift
  rm -f "$ORCH_STEP/late"
  if [ -n "$held" ]; then
    # In the background: time runs already. Where Compose has died it ends by SIGPIPE.
    cat "$ORCH_OPT/releases/$1/effective.json" >&5 5>&- &
    exec 5>&-
  fi
  later "$one_off_seconds" too_late
  if [ -n "$held" ]; then
    wait "$held" && one_off_rc=0 || one_off_rc=$?
    held=''
    rm -f "$ORCH_STEP/held"
  else
    one_off "$@" && one_off_rc=0 || one_off_rc=$?
  fi
  call_off
  [ ! -f "$ORCH_STEP/late" ] || return 124
  return "$one_off_rc"
}

too_late() {
  : >"$ORCH_STEP/late"
  remove_one_offs
}

# later SECONDS COMMAND…: does that then, in the background, unless call_off comes first. One at a time. Not for a script that traps TERM: what has been
# forked from one, and hasn't begun yet, takes a signal for its parent's and loses it.
later() {
  (
    others=${!-}
    trap '[ "${!-}" = "$others" ] || kill -KILL "$!"; exit 0' TERM # whenever it comes, no nap goes on
    sleep "$1" &
    shift
    wait "$!"
    trap 'exit 0' TERM
    "$@"
  ) 4>&- &
  later_pid=$!
}

call_off() {
  kill "$later_pid" 2>/dev/null || : # it may have done its work
  wait "$later_pid" || :             # its status says nothing
}

# find_database: sets database; starts a database that doesn't run, as after a reboot. Fails if there is none. Asked once by the script itself,
# its subshells needn't.
database=''
find_database() {
  [ -z "$database" ] || return 0
  [ -n "$DB_SERVICE" ] || return 1
  database=$(running_container "$DB_SERVICE")
  if [ -z "$database" ]; then
    database=$(service_containers "$DB_SERVICE" | sed -n 1p)
    [ -n "$database" ] || return 1
    docker start "$database" >/dev/null
  fi
}

# database_container: the same, and waits until it accepts connections; sets DB_NAME and DB_USER.
database_container() {
  find_database || return 1
  [ -n "$pg_tool" ] || pg_ready "$database" 120
}

# shellcheck disable=SC2154 # set by containers.sh
revision_sql="select 'found' where to_regclass('public.alembic_version') is not null;
select 'empty' where not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema');
$revisions_sql"

# prepare_question SECONDS: one about the revision, got ready beside something that takes at most so long, and put by put_question: most of what it
# costs is to get into the container. Nobody is connected until then. Nothing where not Alembic's table is what is asked. Both for the script itself.
question='' pg_answered=''
prepare_question() {
  if [ "$TOOL" != alembic ] || [ -z "$database" ]; then return 0; fi
  rm -f "$ORCH_STEP/question"
  mkfifo "$ORCH_STEP/question"
  exec 4<>"$ORCH_STEP/question" # before whoever reads: what is written stays for it
  # shellcheck disable=SC2016,SC2154 # expanded inside the container; set by containers.sh
  timeout --foreground $(($1 + 60)) docker exec -i -e 'PGOPTIONS=-c lock_timeout=10s -c statement_timeout=20s' "$database" sh -c "$pg_login$pg_target"'read -r go || exit 1
exec timeout 30 psql -X -q -A -t -v ON_ERROR_STOP=1' sh "orch-$ORCH_N" "$DB_NAME" "$DB_USER" \
    <"$ORCH_STEP/question" >"$ORCH_STEP/answer" 2>/dev/null 4>&- 5>&- &
  question=$!
}

# put_question: what it is answered stands in pg_answer for the next read_revision, which asks for itself where it was in vain (the container hangs).
put_question() {
  [ -n "$question" ] || return 0
  printf 'go\n%s\n\\q\n' "$revision_sql" >&4
  exec 4>&-
  later 40 kill "$question"
  if wait "$question" && pg_answer=$(cat "$ORCH_STEP/answer"); then pg_answered=1; fi
  call_off
  question=''
  rm -f "$ORCH_STEP/question" "$ORCH_STEP/answer"
}

# read_revision RELEASE: prints the schema's revision, empty at base. Alembic's own table answers in a tenth of the time that a container of
# the application takes, and a database without a table is at base; where it isn't found among others, and for every other tool, the step's own command is asked.
read_revision() {
  if [ "$TOOL" = alembic ] && [ -n "$DB_SERVICE" ]; then
    find_database || return 1
    [ -n "$pg_answered" ] || pg_query "$database" 120 <<SQL || return 1
$revision_sql
SQL
    # shellcheck disable=SC2154 # set by pg_query
    case $pg_answer in
    found*)
      printf '%s\n' "$pg_answer" | sed 1d | paste -s -d ' ' -
      return 0
      ;;
    # Nothing has been migrated yet; but before anything is brought back, it may as well be another database that the application uses.
    empty) [ -n "$TARGET" ] || return 0 ;;
    esac
  fi
  [ -n "$REVISION" ] || return 0
  eval "set -- $1 $REVISION"
  if [ "$TOOL" = migrate ]; then # golang-migrate answers on stderr
    revision_text=$(one_off_within 120 "$@" 2>&1) || revision_text=''
  else
    revision_text=$(one_off_within 120 "$@") || return 1
  fi
  printf '%s\n' "$revision_text" | awk 'NF { print $1; exit }'
}

# rollback_revisions: sets here to the revision that the schema is at, as the database itself has it (a failed deployment may have left it beyond what
# the running release has on record), and there to that of release TARGET, or to the same if none is on record. Fails if the database can't tell.
rollback_revisions() {
  if [ "$POLICY" = compatible ] && schema_on_record; then
    here=$(cat "$ORCH_OPT/releases/$ORCH_PREVIOUS/schema")
  else
    here=$(read_revision "$ORCH_PREVIOUS") || return 1
  fi
  there=$(cat "$ORCH_OPT/releases/$TARGET/schema" 2>/dev/null) || there=$here
}

# schema_on_record: whether the running release knows where the schema is: no deployment since has begun to migrate. Where nothing depends on it
# that is enough, and the service is back a question sooner.
schema_on_record() {
  [ -f "$ORCH_OPT/releases/$ORCH_PREVIOUS/schema" ] || return 1
  for _began in "$ORCH_STATE"/deployments/[1-9]*/[0-9]*/began; do
    _number=${_began#"$ORCH_STATE/deployments/"}
    [ ! -e "$_began" ] || [ "${_number%%/*}" -le "$ORCH_PREVIOUS" ] || return 1
  done
}

# schema_stays: whether a rollback has nothing to bring back. Where nothing names a revision nobody can tell: then only a compatible schema stays.
schema_stays() { [ "$here" = "$there" ] && { [ "$POLICY" = compatible ] || [ -n "$here$REVISION" ]; }; }

# run_down RELEASE TO: the down command of that release's image.
run_down() {
  # shellcheck disable=SC2034 # what the quoted words of DOWN refer to
  revision=$2
  if [ -z "$revision" ] && [ "$TOOL" = alembic ]; then revision=base; fi
  eval "set -- $1 $DOWN"
  one_off_within "$TIMEOUT" "$@"
}

# down_drops RELEASE FROM TO: whether the way down would drop data, as far as can be told: alembic writes the SQL without running it.
down_drops() {
  [ "$TOOL" = alembic ] || return 0
  # shellcheck disable=SC2034 # as above
  revision=$2:${3:-base}
  eval "set -- $1 $DOWN --sql"
  down_sql=$(one_off_within 120 "$@") || return 0
  printf '%s\n' "$down_sql" | grep -i -v 'alembic_version' | grep -E -i -q '\b(drop|truncate|delete)\b'
}

# beside_database: one to be connected to while DB_NAME changes its name.
beside_database() { if [ "$DB_NAME" = postgres ]; then echo template1; else echo postgres; fi; }

# restore_point DUMP: the database becomes what the dump holds; the one that it replaces stays, under a name of its own. Right again after a
# crash at any point: which databases there are tells how far it had come.
restore_point() {
  receipt=${1%.dump}.json
  wanted=$(sed -n 's/.*"sha256":"\([0-9a-f]*\)".*/\1/p' "$receipt") || return 1
  restored=$(printf %.40s "$DB_NAME")_restore_$ORCH_N
  undone=$(printf %.40s "$DB_NAME")_undone_$ORCH_N
  grep -qF "\"database\":$(json_string "$DB_NAME")," "$receipt" ||
    die "The restore point ${1##*/} is not one of the database $DB_NAME (see its receipt, ${receipt##*/}). Nothing was changed."
  beside=$(beside_database)
  databases=$(echo 'select datname from pg_database;' | sql "$database" "$beside") || return 1
  if has_word "$undone" "$databases"; then
    say "$DB_NAME is back already; what it had become is kept as $undone"
    return 0
  fi
  say "restoring $DB_NAME from ${1##*/}"
  sum=$(sha256sum "$1") || return 1
  [ "${sum%% *}" = "$wanted" ] || die "The restore point ${1##*/} isn't what was written (SHA-256 ${sum%% *}, receipt $wanted). Nothing was changed."
  superuser=$(sql "$database" "$beside" -v db="$DB_NAME" -v new="$restored" <<'SQL'
drop database if exists :"new";
select pg_get_userbyid(datdba) as owner, pg_encoding_to_char(encoding) as encoding, datcollate as collation, datctype as ctype
from pg_database where datname = :'db'
\gset
create database :"new" owner :"owner" template template0 encoding :'encoding' lc_collate :'collation' lc_ctype :'ctype';
select format(case when name in ('search_path', 'session_preload_libraries', 'local_preload_libraries', 'temp_tablespaces')
    then 'alter database %I set %I to %s' else 'alter database %I set %I to %L' end, :'new', name, value)
from (select split_part(entry, '=', 1) as name, substr(entry, strpos(entry, '=') + 1) as value
  from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase, unnest(setconfig) entry
  where datname = :'db' and setrole = 0) settings
\gexec
select format('revoke all on database %I from public', :'new') from pg_database where datname = :'db' and datacl is not null
\gexec
select format('grant %s on database %I to %s', privilege_type, :'new',
  case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end)
from pg_database, aclexplode(datacl) where datname = :'db'
\gexec
select rolsuper from pg_roles where rolname = current_user;
SQL
  ) || return 1
  owners=--no-owner
  [ "$superuser" != t ] || owners='' # the roles are there: it is the same server
  # shellcheck disable=SC2086 # one option, or none
  pg_stdin "$database" pg_restore --exit-on-error $owners -U "$DB_USER" -d "$restored" <"$1" || return 1
  echo 'analyze;' | sql "$database" "$restored" || return 1
  # Nobody may be connected while the names change; it takes a few milliseconds.
  if ! sql "$database" "$beside" -v db="$DB_NAME" -v new="$restored" -v old="$undone" <<'SQL'; then
alter database :"db" with allow_connections false;
select set_config('orchestrate.database', :'db', false);
do $$ begin
  for i in 1..100 loop
    perform pg_terminate_backend(pid) from pg_stat_activity where datname = current_setting('orchestrate.database');
    perform pg_sleep(0.05);
    perform pg_stat_clear_snapshot();
    exit when not exists (select from pg_stat_activity where datname = current_setting('orchestrate.database'));
  end loop;
end $$;
begin;
alter database :"db" rename to :"old";
alter database :"new" rename to :"db";
commit;
alter database :"old" with allow_connections true;
SQL
    echo 'alter database :"db" with allow_connections true;' | sql "$database" "$beside" -v db="$DB_NAME" || return 1
    return 1
  fi
  say "$DB_NAME is restored; what it had become is kept as $undone"
}

# tell_schema REVISION: a fact about the state that the schema is in, in words.
tell_schema() {
  fact schema "$(json_string "$1")"
  say "schema: $1"
}

or_base() { printf '%s' "${1:-base}"; }
