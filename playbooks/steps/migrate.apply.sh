# Brings the schema to the new version by the application's own tool, in a container of the new image. In a rollback: by the policy of the
# release that is left.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/schema.sh
. "$ORCH_BUNDLE/schema.sh"
# shellcheck source=playbooks/host/switch.sh
. "$ORCH_BUNDLE/switch.sh"
SERVICE='' UP='' REVISION='' DOWN='' TOOL='' POLICY=compatible TIMEOUT=600 LOCK_TIMEOUT=5000 DB_SERVICE='' DB_NAME='' DB_USER='' VERSION='' FROM=''
TARGET='' ACCEPT_DATA_LOSS=0 HEAD=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

# ---- a rollback

if [ -n "$TARGET" ]; then
  left=$ORCH_OPT/releases/$ORCH_PREVIOUS
  if [ ! -f "$left/migrate" ]; then
    say 'the running release has no migrations'
    exit 0
  fi
  accept=$ACCEPT_DATA_LOSS
  # shellcheck source=/dev/null
  . "$left/migrate"
  # A database that doesn't run is started to be asked.
  if [ "$POLICY" != compatible ] || ! schema_on_record; then await_baseline; fi
  if ! rollback_revisions; then
    [ "$POLICY" = compatible ] || die "The schema's revision can't be read. Nothing was changed."
    here=$(cat "$left/schema" 2>/dev/null) || here=''
    there=$here
    say "the database does not tell the schema's revision; the last one on record is taken for it"
  fi
  if schema_stays; then
    printf '%s\n' "$here" | write_atomically "$ORCH_RELEASE/schema"
    tell_schema "unchanged${here:+, at $here}"
    exit 0
  fi
  printf '%s\n' "$here" | write_atomically "$ORCH_STEP/before"
  [ "$POLICY" = compatible ] || [ "$accept" = 1 ] ||
    die "Bringing the schema from $(or_base "$here") back to $(or_base "$there") can lose data (policy $POLICY): --accept-data-loss does it. Nothing was changed."
  case $POLICY in
  compatible)
    printf '%s\n' "$here" | write_atomically "$ORCH_RELEASE/schema"
    tell_schema "stays at $(or_base "$here"), which the older version runs on"
    ;;
  down)
    [ -n "$DOWN" ] || die 'The running release has no down command. Nothing was changed.'
    : | write_atomically "$ORCH_STEP/began"
    run_down "$ORCH_PREVIOUS" "$there" || die "The way down from $(or_base "$here") to $(or_base "$there") failed."
    now=$(read_revision "$ORCH_PREVIOUS")
    [ "$now" = "$there" ] || die "After the way down the schema is at $(or_base "$now"), not at $(or_base "$there")."
    printf '%s\n' "$now" | write_atomically "$ORCH_RELEASE/schema"
    tell_schema "back at $(or_base "$now")"
    ;;
  restore)
    dump=''
    for file in "$ORCH_OPT/backups/"*"-d$ORCH_PREVIOUS.dump"; do [ ! -f "$file" ] || dump=$file; done
    [ -n "$dump" ] || die "There is no restore point of deployment $ORCH_PREVIOUS. Nothing was changed."
    database_container || die "The database's service, $DB_SERVICE, doesn't run."
    : | write_atomically "$ORCH_STEP/began"
    restore_point "$dump" || die "The restore point ${dump##*/} couldn't be restored."
    now=$(read_revision "$ORCH_PREVIOUS")
    [ "$now" = "$there" ] || die "The restore point is at $(or_base "$now"), the older version needs $(or_base "$there")."
    printf '%s\n' "$now" | write_atomically "$ORCH_RELEASE/schema"
    tell_schema "back at $(or_base "$now"), from the restore point"
    ;;
  esac
  exit 0
fi

# ---- a deployment

[ -n "$UP" ] || exit 0
# What the backup has seen holds if it was the step right before this one.
number=${ORCH_STEP##*/}
number=1${number%%-*}
before=''
[ "$TOOL" != alembic ] || before=$(cat "$ORCH_DEPLOYMENT/$(printf '%02d' $((number - 101)))"-*/seen-revision 2>/dev/null) || before=''
eval "set -- $ORCH_N $UP"
if [ -n "$before" ] && [ "$before" != "$HEAD" ]; then
  trap drop_held EXIT
  hold_one_off "$@"
fi
# A rollback from this release runs by these.
sed '/^\(TARGET\|ACCEPT_DATA_LOSS\|HEAD\)=/d' "$ORCH_STEP/params" | write_atomically "$ORCH_RELEASE/migrate"
await_baseline # a database that doesn't run is started
find_database || [ -z "$DB_SERVICE" ] || die "The database's service, $DB_SERVICE, doesn't run. Nothing was changed."
[ -n "$before" ] || before=$(read_revision "$ORCH_N") || die "The schema's revision can't be read. Nothing was changed."
printf '%s\n' "$before" | write_atomically "$ORCH_STEP/before"
fact before "$(json_string "$before")"
if [ -n "$HEAD" ] && [ "$before" = "$HEAD" ]; then
  printf '%s\n' "$before" | write_atomically "$ORCH_RELEASE/schema"
  fact after "$(json_string "$before")"
  tell_schema "at $before, nothing pending"
  exit 0
fi

: | write_atomically "$ORCH_STEP/began"
prepare_question "$TIMEOUT"
one_off_within "$TIMEOUT" "$@" && rc=0 || rc=$?
if [ "$rc" != 0 ]; then
  remove_one_offs
  if database_container; then end_sessions "$database" || say 'sessions of the migration are still open'; fi
fi
put_question
after=$(read_revision "$ORCH_N") || after=unknown
fact after "$(json_string "$after")"
printf '%s\n' "$after" | write_atomically "$ORCH_STEP/after"
if [ "$rc" != 0 ]; then
  if [ "$after" = "$before" ]; then
    tell_schema "at $(or_base "$after"), as before"
  else
    tell_schema "at $(or_base "$after"), between ${FROM:-nothing} ($(or_base "$before")) and $VERSION"
  fi
  [ "$rc" != 124 ] || die "The migration didn't end within $TIMEOUT s."
  die "The migration failed with exit status $rc."
fi
printf '%s\n' "$after" | write_atomically "$ORCH_RELEASE/schema"
if [ "$after" = "$before" ]; then tell_schema "at $(or_base "$after"), nothing was pending"; else tell_schema "from $(or_base "$before") to $after"; fi
