# Fetches images side by side, finds what they resolved to, and gives each service's image a local tag that follows its content.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
# shellcheck source=playbooks/host/registry.sh
. "$ORCH_BUNDLE/registry.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/revision.sh
. "$ORCH_BUNDLE/revision.sh"
PULL_TIMEOUT=600 SERVER='' USERNAME='' KEPT='' DB_SERVICE='' DB_NAME='' DB_USER=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
at_once=4
silence=20 # seconds until a registry that says nothing at all counts as dead

pids=
credentials=
# shellcheck disable=SC2329 # by trap
leave() {
  # shellcheck disable=SC2086 # pids
  [ -z "$pids" ] || kill $pids 2>/dev/null || : # they may have ended
  [ -z "$credentials" ] || rm -rf "$credentials"
  rm -f password
}
trap leave EXIT
trap 'exit 143' TERM
trap 'exit 130' INT HUP

# What is to be fetched, by the new configuration: the images of all services but those that stay as they are.
eval "set -- $KEPT"
new_services >services
[ -s services ] || die 'Which images to pull is not known: no env step came before pull.'
while IFS='|' read -r service directory reference; do
  for kept in "$@"; do [ "$kept" != "$service" ] || continue 2; done
  case $reference in
    '') continue ;;
    *[[:space:]\\\|]*) die "Service $service: \"$reference\" is no image reference." ;;
  esac
  printf '%s|%s|%s\n' "$service" "$directory" "$reference"
done <services >images

# What the step behind this one asks the database takes a while: begun now, in the background (with the user's own Docker settings).
if [ -n "$DB_SERVICE" ]; then
  rm -f "$ORCH_DEPLOYMENT/revision"
  ask_revision ahead >/dev/null 2>&1 &
  if process_identity "$!"; then echo "$REPLY" >"$ORCH_DEPLOYMENT/asking"; fi
fi

# Log-in: the password comes from a file and goes to a file in memory, both gone at the end.
if [ -n "$SERVER" ]; then
  credentials=$(memory_directory)/orchestrate-$ORCH_PROJECT-$ORCH_N
  rm -rf "$credentials"
  mkdir -m 0700 "$credentials"
  export DOCKER_CONFIG="$credentials"
  [ -f password ] || die 'The password for the registry did not arrive.'
  registry_login "$SERVER" "$USERNAME" "$silence" <password
  rm -f password
fi

# One pull for each image, whichever services name it.
cut -d '|' -f 3 images | sort -u >references
total=$(wc -l <references)
number=0
while read -r reference; do
  number=$((number + 1))
  printf '%s\n' "$reference" >"$number.reference"
  rm -f "$number.out" "$number.status"
done <references

# NUMBER: in the background; its exit status lands in a file, since wait reports one of several only.
start_pull() {
  : >"$1.out"
  (
    _status=0
    docker pull "$(cat "$1.reference")" >"$1.out" 2>&1 &
    _child=$!
    trap 'kill "$_child" 2>/dev/null; exit 143' TERM
    wait "$_child" || _status=$?
    echo "$_status" 2>/dev/null >"$1.status.new" # not on a full disk, which is told below
    mv "$1.status.new" "$1.status"
  ) &
  pids="$pids $!"
  echo "$(uptime_ms) $!" >"$1.begin"
}

# NUMBER: a line about how far it is, when that has changed.
progress() {
  _line=$(awk '
    / Pulling fs layer| Already exists/ { all++ }
    / Pull complete| Already exists/ { done++ }
    / Download complete/ { down++ }
    END { if (all) printf "%d of %d layers, %d downloaded", done, all, down }' "$1.out")
  [ -n "$_line" ] || return 0
  if [ "$_line" != "$(cat "$1.shown" 2>/dev/null)" ]; then
    printf '%s\n' "$_line" >"$1.shown"
    say "$(cat "$1.reference"): $_line"
  fi
}

no_space() { die "The disk is full: $1 does not fit. orchestrate prune removes old releases and images."; }

# NUMBER STATUS: its end.
ended() {
  _reference=$(cat "$1.reference")
  if [ "$2" -eq 0 ]; then
    say "$_reference: $(sed -n 's/^Status: //p' "$1.out")"
    return 0
  fi
  grep -vE ' (Pulling fs layer|Waiting|Verifying Checksum|Download complete|Pull complete|Already exists)$' "$1.out" | tail -n 5 >&2 || : # nothing else
  if grep -qi 'no space left' "$1.out" || disk_full .; then no_space "$_reference"; fi
  if [ "$2" -gt 128 ]; then die "The pull of $_reference was killed (signal $(($2 - 128)))."; fi
  if grep -qiE 'manifest unknown|not found' "$1.out"; then
    die "The registry has no $_reference: was that version built and pushed?"
  fi
  if grep -qiE 'unauthorized|denied|no basic auth' "$1.out"; then
    die "The registry does not give out $_reference: log-in missing or wrong (\`registry:\` in the inventory)."
  fi
  if grep -qiE 'connection refused|no route to host|no such host|i/o timeout|deadline exceeded|Client.Timeout|TLS handshake' "$1.out"; then
    die "The registry of $_reference cannot be reached from the host."
  fi
  die "The pull of $_reference failed (above)."
}

began=$(uptime_ms)
deadline=$((began + PULL_TIMEOUT * 1000))
begun=0
running=
told=$began
while :; do
  still=
  for number in $running; do
    if [ -f "$number.status" ]; then
      ended "$number" "$(cat "$number.status")"
    else
      read -r since pid <"$number.begin"
      # The subshell writes the status whatever happens to its pull; without one it was killed itself.
      if ! kill -0 "$pid" 2>/dev/null && [ ! -f "$number.status" ]; then
        if disk_full .; then no_space "$(cat "$number.reference")"; fi
        die "The pull of $(cat "$number.reference") was killed."
      fi
      if [ ! -s "$number.out" ] && [ $(($(uptime_ms) - since)) -gt $((silence * 1000)) ]; then
        die "The registry of $(cat "$number.reference") does not answer within $silence s."
      fi
      still="$still $number"
    fi
  done
  running=$still
  # shellcheck disable=SC2086 # numbers
  set -- $running
  while [ $# -lt "$at_once" ] && [ "$begun" -lt "$total" ]; do
    begun=$((begun + 1))
    start_pull "$begun"
    running="$running $begun"
    set -- "$@" "$begun"
  done
  [ $# -gt 0 ] || break
  now=$(uptime_ms)
  [ "$now" -lt "$deadline" ] || die "The images were not here within $PULL_TIMEOUT s (\`timeout\` of pull): $(for n in $running; do cat "$n.reference"; done | tr '\n' ' ')"
  if [ $((now - told)) -ge 2000 ]; then
    told=$now
    for number in $running; do progress "$number"; done
  fi
  # An image that lies here already is asked about in tenths of a second; a fetch takes its time.
  if [ $((now - began)) -lt 1000 ]; then sleep 0.02; else sleep 0.1; fi
done
pids=

# What each resolved to: the digest that the registry gave now (several may be on the host from before), and in one question the id, the names and
# the directory that its commands run in.
: >resolved
if [ -s references ]; then
  # shellcheck disable=SC2046 # references are words
  docker image inspect --format '{{.Id}}|{{range .RepoTags}}{{.}} {{end}}|{{json .Config.WorkingDir}}' $(cat references) >resolved ||
    die 'An image was pulled, but is not there any more (above).'
fi
while IFS='|' read -r service directory reference; do
  number=$(grep -nxF -e "$reference" references | cut -d : -f 1)
  digest=$(sed -n 's/^Digest: \(sha256:[0-9a-f]\{64\}\)$/\1/p' "$number.out")
  IFS='|' read -r id names own <<EOT
$(sed -n "${number}p" resolved)
EOT
  [ -n "$digest" ] || digest=$id
  [ -z "$directory" ] || own=$(json_string "$directory")
  hex=${digest#sha256:}
  tag=orchestrate/$ORCH_PROJECT/$(printf '%s' "$service" | tr '[:upper:]' '[:lower:]'):$(printf '%.12s' "$hex")
  case " $names" in
    *" $tag "*) ;;
    *)
      # On disk before it is made: undo removes what stands here.
      printf '%s\n' "$tag" >>tags
      sync tags
      docker tag "$id" "$tag"
      ;;
  esac
  fact "image.$service" "{\"reference\":$(json_string "$reference"),\"digest\":\"$digest\",\"id\":\"$id\",\"tag\":\"$tag\",\"directory\":$own}"
done <images
rm -f ./*.reference ./*.out ./*.status ./*.begin ./*.shown references resolved services images
