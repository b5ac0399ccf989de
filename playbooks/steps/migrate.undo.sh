# Undoes a migration by the release's policy: leave the schema (compatible), the way down, or the restore point.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/schema.sh
. "$ORCH_BUNDLE/schema.sh"
SERVICE='' UP='' REVISION='' DOWN='' TOOL='' POLICY=compatible TIMEOUT=600 LOCK_TIMEOUT=5000 DB_SERVICE='' DB_NAME='' DB_USER='' FROM=''
TARGET='' ACCEPT_DATA_LOSS=0
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

remove_one_offs
if [ ! -f "$ORCH_STEP/began" ]; then
  say 'the schema had not been touched'
  exit 0
fi
if database_container; then
  end_sessions "$database" || die "Sessions of this deployment are still open in $DB_SERVICE."
fi
before=$(cat "$ORCH_STEP/before")

if [ -n "$TARGET" ]; then
  # A rollback that went down: up again, with the image that is kept.
  # shellcheck source=/dev/null
  . "$ORCH_OPT/releases/$ORCH_PREVIOUS/migrate"
  case $POLICY in
  down)
    if [ "$(read_revision "$ORCH_PREVIOUS")" != "$before" ]; then
      eval "set -- $ORCH_PREVIOUS $UP"
      one_off_within "$TIMEOUT" "$@" || die "The schema couldn't be brought up to $(or_base "$before") again."
    fi
    tell_schema "at $(or_base "$before") again"
    ;;
  restore)
    # What the rollback had replaced is still there, under its other name.
    undone=$(printf %.40s "$DB_NAME")_undone_$ORCH_N
    beside=$(beside_database)
    databases=$(echo 'select datname from pg_database;' | sql "$database" "$beside")
    if has_word "$undone" "$databases"; then
      sql "$database" "$beside" -v db="$DB_NAME" -v old="$undone" -v spare="$(printf %.40s "$DB_NAME")_restored_$ORCH_N" <<'SQL'
alter database :"db" with allow_connections false;
select count(pg_terminate_backend(pid)) from pg_stat_activity where datname in (:'db', :'old') and pid <> pg_backend_pid();
select pg_sleep(0.2);
begin;
alter database :"db" rename to :"spare";
alter database :"old" rename to :"db";
commit;
SQL
    fi
    tell_schema "at $(or_base "$before") again"
    ;;
  esac
  exit 0
fi

if [ "$POLICY" = compatible ] && [ -f "$ORCH_STEP/after" ]; then
  now=$(cat "$ORCH_STEP/after") # it stays there, whatever it is
else
  now=$(read_revision "$ORCH_N") || now=unknown
fi
# What the new version has written is lost by going back: the host doesn't decide that by itself.
careful=0
case $ACCEPT_DATA_LOSS${ORCH_ACCEPT_DATA_LOSS:-0} in
00) [ ! -f "$ORCH_DEPLOYMENT/started-new" ] || careful=1 ;;
esac
case $POLICY in
compatible)
  if [ "$now" = unknown ]; then
    tell_schema "as the migration left it (before: $(or_base "$before")); the database doesn't run"
  elif [ "$now" = "$before" ]; then
    tell_schema "at $(or_base "$now"), as before"
  else
    tell_schema "stays at $(or_base "$now") (before: $(or_base "$before")); ${FROM:-the older version} runs on it"
  fi
  ;;
down)
  [ "$now" != unknown ] || die "The schema's revision can't be read."
  if [ "$now" != "$before" ]; then
    [ -n "$DOWN" ] || die "The release has no down command; the schema is at $(or_base "$now")."
    if [ "$careful" = 1 ] && down_drops "$ORCH_N" "$now" "$before"; then
      die "The new version has run, and the way down from $(or_base "$now") to $(or_base "$before") would drop data: a person must decide. Nothing was dropped."
    fi
    run_down "$ORCH_N" "$before" || die "The way down from $(or_base "$now") to $(or_base "$before") failed."
    now=$(read_revision "$ORCH_N")
    [ "$now" = "$before" ] || die "After the way down the schema is at $(or_base "$now"), not at $(or_base "$before")."
  fi
  tell_schema "back at $(or_base "$now")"
  ;;
restore)
  [ "$careful" = 0 ] ||
    die 'The new version has run: its writes would be lost by the restore point. A person must decide. Nothing was dropped.'
  dump=$(cat "$ORCH_DEPLOYMENT/backup" 2>/dev/null) || dump=''
  if [ -z "$dump" ]; then
    [ "$now" = "$before" ] || die "There is no restore point; the schema is at $(or_base "$now")."
    tell_schema "at $(or_base "$now"), as before"
    exit 0
  fi
  [ -n "$database" ] || die "The database's service, $DB_SERVICE, doesn't run."
  restore_point "$dump" || die "The restore point ${dump##*/} couldn't be restored; the schema is at $(or_base "$now")."
  now=$(read_revision "$ORCH_N")
  tell_schema "back at $(or_base "$now"), from the restore point"
  ;;
esac
