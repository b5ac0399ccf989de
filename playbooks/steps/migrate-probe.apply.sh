# What the new image's migrations would do: the schema's revision and those that are pending. Changes nothing and needs no secret: the
# database's own container tells where it is, the image (without a network) what it brings.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
TOOL='' SERVICE='' REFERENCE='' DIRECTORY='' DB_SERVICE='' DB_NAME='' DB_USER=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

[ "$TOOL" = alembic ] || exit 0
here=''
database=''
[ -z "$DB_SERVICE" ] || database=$(running_container "$DB_SERVICE")
if [ -n "$database" ]; then
  pg_names "$database"
  here=$(sql "$database" "$DB_NAME" <<'SQL'
select 'select version_num from public.alembic_version order by 1' where to_regclass('public.alembic_version') is not null
\gexec
SQL
  ) || die "The schema's revision can't be read from $DB_SERVICE."
  here=$(printf '%s\n' "$here" | paste -s -d ' ' -)
fi
fact revision "$(json_string "$here")"
# What pull has just found under the reference, in its facts.
image=$(cat "$ORCH_DEPLOYMENT"/[0-9]*/facts 2>/dev/null | awk -v key="\"image.$SERVICE\":" 'index($0, key) == 1 { print substr($0, length(key) + 1) }' |
  sed -n '$p' | LC_ALL=C awk -f "$ORCH_BUNDLE/json.awk" | awk -F '\t' '$1 == "id" { print $3 }')
[ -n "$image" ] || image=$REFERENCE
# shellcheck disable=SC2086 # -w and its value, or nothing
history=$(timeout --foreground 120 docker run --rm --log-driver none --network none --label "orchestrate.project=$ORCH_PROJECT" --label "orchestrate.deployment=$ORCH_N" \
  --read-only --tmpfs /tmp ${DIRECTORY:+-w "$DIRECTORY"} "$image" alembic history </dev/null) || {
  say 'the image does not tell its migrations without a database: what is pending is unknown'
  exit 0
}
# Newest first: "0001 -> 0002 (head), what it does". Those above the one where the schema is are pending.
pending=$(printf '%s\n' "$history" | awk -v here="$here" '
  $2 != "->" { next }
  { id = $3; sub(/,$/, "", id) }
  id == here { found = 1; exit }
  { line = $0; sub(/^[^>]*-> /, "", line); sub(/ \((effective )?head\)/, "", line); sub(/ \(mergepoint\)/, "", line); sub(/, /, " ", line); print line }')
head=$(printf '%s\n' "$history" | awk '$2 == "->" && /\(head\)/ { sub(/,$/, "", $3); print $3 }' | paste -s -d ' ' -)
fact head "$(json_string "$head")"
list=$(printf '%s\n' "$pending" | awk 'NF' | sed '1!G;h;$!d' | while IFS= read -r line; do
  json_string "$line"
  echo
done | paste -s -d , -)
fact pending "[$list]"
