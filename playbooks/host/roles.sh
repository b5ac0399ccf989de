# Passwords of database roles. Sourced after lib.sh and containers.sh. A password itself never gets here: what the database is given, and what it had,
# are SCRAM verifiers (pg_authid), and even those are kept out of its log.
# shellcheck shell=sh

# Whatever else of the server would keep a statement's text; as far as it has such a setting. Nothing secret, so that it may be an argument.
role_quiet="do \$\$ begin perform set_config(name, case vartype when 'bool' then 'off' when 'real' then '0' else '-1' end, false) from pg_settings where name in ('log_transaction_sample_rate', 'log_min_duration_sample', 'pg_stat_statements.track_utility', 'debug_print_parse', 'debug_print_rewritten', 'debug_print_plan'); end \$\$"

# role_sql CONTAINER ROLE: runs stdin as the one whom the container was made with, over the server's own socket and without a password: the one that
# the container knows may be an old one. :"role" is the role.
role_sql() {
  # shellcheck disable=SC2016 # expanded inside the container
  docker exec -i "$1" sh -c '
unset PGPASSWORD PGPASSFILE PGHOST PGHOSTADDR PGSERVICE PGSERVICEFILE PGSSLMODE PGGSSENCMODE PGREQUIREAUTH PGCHANNELBINDING PGTARGETSESSIONATTRS
PGAPPNAME=$1
PGOPTIONS="-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
export PGAPPNAME PGOPTIONS
exec psql -X -q -A -t -w -v ON_ERROR_STOP=1 -v role="$2" -U "${POSTGRES_USER:-postgres}" -d postgres -c "$3" -f -' \
    sh "orch-$ORCH_N" "$2" "$role_quiet"
}

# end_role_sessions CONTAINER: a psql of this deployment's role step that was killed may live on in the container: what it has under way is ended, and waited
# for, before the role gets another password.
end_role_sessions() {
  role_tries=0
  while :; do
    role_left=$(echo "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid() and application_name = current_setting('application_name');" |
      role_sql "$1" '') || return 1
    [ "$role_left" != 0 ] || return 0
    role_tries=$((role_tries + 1))
    [ "$role_tries" -le 50 ] || return 1
    sleep 0.2
  done
}

# role_verifiers CONTAINER FILE: what the database keeps of the password of each role in FILE (lines "<anything> <role>"), as lines "<verifier> <role>";
# `-` where it has none.
role_verifiers() {
  while read -r _ role_name; do
    role_line=$(echo "select coalesce(rolpassword, '-') from pg_authid where rolname = :'role';" | role_sql "$1" "$role_name") || return 1
    [ -n "$role_line" ] || {
      printf 'The database has no role %s.\n' "$role_name" >&2
      return 1
    }
    printf '%s %s\n' "$role_line" "$role_name"
  done <"$2"
}

# set_verifiers CONTAINER FILE: gives each role what FILE has for it, in the form of role_verifiers.
set_verifiers() {
  while read -r role_verifier role_name; do
    case $role_verifier in
      -) role_password=null ;;
      # It becomes part of a statement.
      *[!A-Za-z0-9+/=:\$-]*)
        printf 'The verifier of the role %s has a character that none has.\n' "$role_name" >&2
        return 1
        ;;
      *) role_password="'$role_verifier'" ;;
    esac
    printf 'alter role :"role" password %s;\n' "$role_password" | role_sql "$1" "$role_name" || return 1
  done <"$2"
}

# restore_roles: what the role step of this deployment has changed becomes what it was. A database that doesn't run is started. The step's own undo does
# it, and before it whoever starts containers of the release before, which would be refused.
restore_roles() {
  for role_before in "$ORCH_DEPLOYMENT"/[0-9][0-9]-role/verifiers; do
    role_step=${role_before%/verifiers}
    if [ ! -f "$role_before" ] || [ -f "$role_step/restored" ]; then continue; fi
    # shellcheck source=/dev/null
    role_service=$(DB_SERVICE='' && . "$role_step/params" && printf '%s' "$DB_SERVICE") || return 1
    role_container=$(running_container "$role_service") || return 1
    if [ -z "$role_container" ]; then
      role_container=$(service_containers "$role_service" | sed -n 1p)
      [ -n "$role_container" ] || return 1
      docker start "$role_container" >/dev/null || return 1
    fi
    # shellcheck disable=SC2034 # for pg_ready, which would look them up
    DB_NAME=postgres DB_USER=postgres
    pg_ready "$role_container" 60 || return 1
    end_role_sessions "$role_container" || return 1
    set_verifiers "$role_container" "$role_before" || return 1
    : | write_atomically "$role_step/restored" || return 1
    say "the database's roles have the passwords again that they had"
  done
}
