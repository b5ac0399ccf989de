# Where the schema is, by Alembic's own table. Sourced after lib.sh and containers.sh by pull, which asks while the registry answers, and by
# migrate-probe, which wants to know. DB_SERVICE, DB_NAME and DB_USER are theirs.
# shellcheck shell=sh

# ask_revision [ahead]: the revisions, a line each, become the deployment's file `revision`; empty where there is no table, or nothing that runs
# (ahead: then there is no file, since it may run again by the time when that counts).
# shellcheck disable=SC2120 # pull's word
ask_revision() {
  revision_of=$(running_container "$DB_SERVICE" </dev/null)
  pg_answer=''
  if [ -n "$revision_of" ]; then
    # shellcheck disable=SC2154 # set by containers.sh
    pg_query "$revision_of" 60 <<SQL || return 1
$revisions_sql
SQL
  elif [ "${1-}" = ahead ]; then
    return 1
  fi
  printf '%s' "$pg_answer" >"$ORCH_DEPLOYMENT/revision.new"
  mv "$ORCH_DEPLOYMENT/revision.new" "$ORCH_DEPLOYMENT/revision"
}

# await_revision: what was asked ahead, if it was; else asks. Fails, and has said why, if the database can't tell.
await_revision() {
  first_line "$ORCH_DEPLOYMENT/asking"
  rm -f "$ORCH_DEPLOYMENT/asking"
  asked_by=$REPLY
  while [ ! -e "$ORCH_DEPLOYMENT/revision" ] && process_alive "$asked_by"; do sleep 0.02; done
  # shellcheck disable=SC2119 # none of ours
  [ -e "$ORCH_DEPLOYMENT/revision" ] || ask_revision
}
