# The release's env file, and what Compose makes of the user's file with it: config.json here.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
COMPOSE_DIR='' COMPOSE_FILE=compose.yml
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

# Generated values are kept for good before their first use: a volume remembers its password. A plan (number 0) uses them for nothing.
if [ -f generated ] && [ "$ORCH_N" != 0 ]; then
  keep=$ORCH_STATE/generated.env
  [ -f "$keep" ] || : >"$keep.first"
  old=$keep
  [ -f "$keep" ] || old=$keep.first
  # A name that is there already keeps its value; another value for it means that the client read an older file.
  awk '
    { name = substr($0, 1, index($0, "=") - 1) }
    FILENAME == ARGV[1] { if (name != "") known[name] = $0; print; next }
    name == "" { next }
    !(name in known) { print; next }
    known[name] != $0 { print name > "/dev/stderr"; bad = 1 }
    END { exit bad }
  ' "$old" generated >generated.new 2>generated.bad || {
    rm -f generated.new "$keep.first"
    die "Another deployment generated $(tr '\n' ' ' <generated.bad)since this one began. Run it again."
  }
  write_atomically "$keep" <generated.new
  rm -f generated.new generated.bad "$keep.first"
fi

# A rotation: the same values, new ones for some names. What was is kept for the undo.
if [ -f rotated ] && [ -f "$ORCH_STATE/generated.env" ] && [ "$ORCH_N" != 0 ]; then
  [ -f generated.before ] || write_atomically "$ORCH_STEP/generated.before" cat "$ORCH_STATE/generated.env"
  # shellcheck disable=SC2016 # awk's
  write_atomically "$ORCH_STATE/generated.env" awk '
    { name = substr($0, 1, index($0, "=") - 1) }
    FILENAME == ARGV[1] { if (name != "") new[name] = $0; next }
    name in new { print new[name]; next }
    { print }
  ' rotated generated.before
fi

if [ "$ORCH_N" != 0 ]; then make_secret_files; fi

set -- --project-directory "$ORCH_RELEASE/project${COMPOSE_DIR:+/$COMPOSE_DIR}"
if [ -f env ]; then
  write_atomically "$ORCH_RELEASE/.env" <./env
  set -- "$@" --env-file "$ORCH_RELEASE/.env"
fi
rm -f "$ORCH_RELEASE/.secrets" # of the release that this one is a copy of
[ ! -f secrets ] || write_atomically "$ORCH_RELEASE/.secrets" <./secrets
set -- "$@" --env-file "$ORCH_STEP/version.env" -f "$ORCH_RELEASE/compose.yml" -f "$ORCH_STEP/check.json"
if ! compose "$@" config --format json >config.new 2>config.err; then
  rm -f config.new
  # Compose names files by their path on the host, which tells a user nothing.
  sed -e "s,$ORCH_RELEASE/,,g" config.err >&2
  die "Compose cannot read $COMPOSE_FILE with this env (above). Nothing was changed."
fi
if [ -s config.err ]; then sed -e "s,$ORCH_RELEASE/,,g" config.err; fi # warnings: unset variables, obsolete keys
mv config.new config.json
fact release_directory "$(json_string "$ORCH_RELEASE")"
