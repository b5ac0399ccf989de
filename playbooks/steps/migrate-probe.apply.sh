# What the new image's migrations would do: the schema's revision and those that are pending. Changes nothing and needs no secret: the
# database's own container tells where it is, the image (without a network) what it brings.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/revision.sh
. "$ORCH_BUNDLE/revision.sh"
TOOL='' SERVICE='' DB_SERVICE='' DB_NAME='' DB_USER=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

[ "$TOOL" = alembic ] || exit 0

# Where the schema is, asked (if pull hasn't) while the image is looked at.
asking=''
if [ -n "$DB_SERVICE" ]; then
  await_revision </dev/null &
  asking=$!
fi

# What pull has just found, in its facts; of a service that it left as it is, what the configuration says.
found=$(cat "$ORCH_DEPLOYMENT"/[0-9]*/facts 2>/dev/null | awk -v key="\"image.$SERVICE\":" 'index($0, key) == 1 { line = substr($0, length(key) + 1) } END { print line }')
[ -z "$found" ] || found=$(printf '%s\n' "$found" | LC_ALL=C awk -f "$ORCH_BUNDLE/json.awk")
# MEMBER
of_image() { printf '%s\n' "$found" | awk -F '\t' -v member="$1" '$1 == member { print $3 }'; }
image=$(of_image id)
folder=$(of_image directory)
if [ -z "$image" ]; then
  IFS='|' read -r _ folder image <<EOT
$(new_services | grep "^$SERVICE|")
EOT
fi

# The arguments that one-off containers have in common; a network they have none.
one_off() {
  one_off_verb=$1
  shift
  timeout --foreground 120 docker "$one_off_verb" --log-driver none --network none --label "orchestrate.project=$ORCH_PROJECT" \
    --label "orchestrate.deployment=$ORCH_N" --read-only --tmpfs /tmp ${folder:+-w "$folder"} "$@" </dev/null
}

# PATH: of the image, into this directory. To its end first: tar takes one that is cut between two members for whole.
from_image() {
  timeout --foreground 60 docker cp "$container:$1" - >image.tar 2>/dev/null && tar -xf image.tar --no-same-owner --no-same-permissions
}

# The files say it in a fraction of the time that a container takes to run Alembic; fails where they aren't plain, or elsewhere.
history_of_files() {
  folder=${folder:-$(docker inspect -f '{{.Config.WorkingDir}}' "$container")}
  folder=${folder:-/}
  rm -rf alembic.ini versions
  from_image "$folder/alembic.ini" && [ -f alembic.ini ] && [ ! -L alembic.ini ] || return 1
  location=$(awk '
    /^[ \t]*\[/ { section = $0; gsub(/[][ \t\r]/, "", section); next }
    section != "alembic" { next }
    /^(version_locations|recursive_version_locations|sourceless)[ \t]*[=:]/ { bad = 1 }
    /^script_location[ \t]*[=:]/ { sub(/^[^=:]*[=:][ \t]*/, ""); sub(/[ \t\r]+$/, ""); place = $0 }
    END { if (bad || place == "") exit 1; print place }' alembic.ini) || return 1
  case $location in '%(here)s/'*) location=${location#'%(here)s/'} ;; esac
  case $location in *%* | *:*) return 1 ;; /*) ;; *) location=$folder/$location ;; esac
  from_image "$location/versions" && [ -d versions ] && [ ! -L versions ] || return 1
  set --
  for file in versions/*.py; do
    case $file in */__init__.py | */.*) continue ;; esac
    [ -f "$file" ] && [ ! -L "$file" ] || return 1
    set -- "$@" "$file"
  done
  [ $# -gt 0 ] || return 1
  LC_ALL=C awk -f "$ORCH_BUNDLE/alembic.awk" "$@"
}
history='' removing=''
if container=$(one_off create "$image" true); then
  history=$(history_of_files) || history=''
  docker rm -f "$container" >/dev/null &
  removing=$!
  rm -rf versions alembic.ini image.tar
fi

[ -z "$asking" ] || wait "$asking" || die "The schema's revision can't be read from $DB_SERVICE."
here=''
[ ! -s "$ORCH_DEPLOYMENT/revision" ] || here=$(paste -s -d ' ' "$ORCH_DEPLOYMENT/revision")
rm -f "$ORCH_DEPLOYMENT/revision"
fact revision "$(json_string "$here")"
[ -z "$removing" ] || wait "$removing" || : # by its label it is found again
[ -n "$history" ] || history=$(one_off run --rm "$image" alembic history) || {
  say 'the image does not tell its migrations without a database: what is pending is unknown'
  exit 0
}
# Newest first: "0001 -> 0002 (head), what it does", "0002, 0003 -> 0004 (mergepoint), …". Those above the one where the schema is are pending.
told=$(printf '%s\n' "$history" | awk -v here="$here" '
  { for (i = 2; i < NF && $i != "->"; i++);
    if (i >= NF) next
    id = $(i + 1)
    sub(/,$/, "", id)
    if (/\(head\)/) heads = heads (heads == "" ? "" : " ") id
    if (id == here) found = 1
    if (found) next
    line = substr($0, index($0, " -> ") + 4)
    gsub(/ \((effective head|head|mergepoint|branchpoint)\)/, "", line)
    sub(/, /, " ", line)
    pending[++count] = line }
  END {
    print heads
    print found + 0
    for (i = count; i; i--) print pending[i] }')
{
  IFS= read -r heads
  read -r is_known
  list=''
  while IFS= read -r line; do list="$list${list:+,}$(json_string "$line")"; done
} <<EOT
$told
EOT
fact head "$(json_string "$heads")"
# A revision that the image doesn't know comes from something newer: nothing can be told from here. (Two at once are two branches.)
case $is_known$here in
  1* | 0 | *' '*) ;;
  *)
    fact unknown_revision "$(json_string "$here")"
    list=''
    ;;
esac
fact pending "[$list]"
