# Removes what no kept release needs. Never fails the deployment: it is committed, and the next prune tries again.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
RELEASES=5 IMAGES=1 LOGS_SECONDS=604800
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
warn() { say "warning: $1"; }

current=$(current_number)
if [ -z "$current" ] || [ ! -f "$ORCH_OPT/releases/$current/release.json" ]; then
  warn 'There is no current release: nothing is removed.'
  exit 0
fi

# Kept: the current one, the one that a rollback goes to, and the newest that passed their gate (the same rule as PruneStep.swift).
kept=" $current "
count=1
previous=$(release_previous "$current")
if [ "${previous:-0}" -gt 0 ] && [ "$previous" != "$current" ]; then
  kept="$kept$previous "
  count=2
fi
numbers=$(for directory in "$ORCH_OPT"/releases/[1-9]*/; do
  directory=${directory%/}
  case ${directory##*/} in *[!0-9]*) ;; *) echo "${directory##*/}" ;; esac
done | sort -rn)
for number in $numbers; do
  case $kept in *" $number "*) continue ;; esac
  [ "$count" -lt "$RELEASES" ] || break
  if release_committed "$number"; then
    kept="$kept$number "
    count=$((count + 1))
  fi
done

# Deployments that are open (this one is) or stuck need all of theirs.
busy=" $ORCH_N "
for directory in "$ORCH_STATE"/deployments/[1-9]*/; do
  number=${directory%/} number=${number##*/}
  # The last word counts: what was stuck once may have been undone, or abandoned, since.
  case $(grep -s "$closed_line" "$directory/journal.jsonl" | tail -n 1) in
    '' | *'"outcome":"stuck"'*) busy="$busy$number " ;;
  esac
done

removed=0
: >references
for number in $numbers; do
  case "$kept$busy" in *" $number "*) continue ;; esac
  say "release $number"
  sed -n -e 's/^    reference: "\(.*\)"$/\1/p' -e 's/^    id: "\(.*\)"$/\1/p' "$ORCH_OPT/releases/$number/images.yml" 2>/dev/null |
    paste -d ' ' - - >>references
  # Under another name first: a release is there wholly or not at all.
  if mv -T "$ORCH_OPT/releases/$number" "$ORCH_OPT/releases/.$number.old" && rm -rf "$ORCH_OPT/releases/.$number.old"; then
    removed=$((removed + 1))
  else
    warn "Release $number could not be removed."
  fi
done
rm -rf "$ORCH_OPT"/releases/.*.old || warn 'An old release could not be removed.'

# readable FILE...: what can't be read may name all that is to be kept.
readable() {
  for file; do
    if ! [ -r "$file" ]; then
      warn "$file can not be read: what the releases mount stays."
      return 1
    fi
  done
}

# Files that no release mounts any more. Nothing of this is written down: what a full disk cuts short would name too little.
if readable "$ORCH_OPT"/releases/[1-9]*/effective.json; then
  mounted=$(cat "$ORCH_OPT"/releases/[1-9]*/effective.json | tr '"' '\n' | sed -n 's,^.*/files/\([0-9a-f]\{64\}\).*$,\1,p')
  for directory in "$ORCH_OPT"/files/*/; do
    hash=${directory%/} hash=${hash##*/}
    [ -d "$directory" ] || continue
    printf '%s\n' "$mounted" | grep -qxF -e "$hash" || rm -rf "$directory" || warn "The files $hash could not be removed."
  done
fi

# Values in files that no release has any more: neither its env file names them, nor what it runs.
if [ -d "$ORCH_OPT/secrets" ] && readable "$ORCH_OPT"/releases/[1-9]*/.env "$ORCH_OPT"/releases/[1-9]*/effective.json; then
  mounted=$(cat "$ORCH_OPT"/releases/[1-9]*/.env "$ORCH_OPT"/releases/[1-9]*/effective.json | tr "\"'= " '\n' | sed -n "\\,^$ORCH_OPT/secrets/,p")
  for file in "$ORCH_OPT"/secrets/*; do
    [ -f "$file" ] || continue
    printf '%s\n' "$mounted" | grep -qxF -e "$file" || rm -f "$file" || warn "The file ${file##*/} could not be removed."
  done
fi

# Records of deployments older than the oldest release that is kept.
oldest=$(printf '%s\n' "$kept" | tr ' ' '\n' | grep . | sort -n | head -n 1)
for directory in "$ORCH_STATE"/deployments/[1-9]*/; do
  [ -d "$directory" ] || continue
  number=${directory%/} number=${number##*/}
  case $busy in *" $number "*) continue ;; esac
  [ "$number" -ge "$oldest" ] || rm -rf "$directory" || warn "The records of deployment $number could not be removed."
done

# Logs of replaced containers.
if [ -d "$ORCH_STATE/logs" ]; then
  find "$ORCH_STATE/logs" -type f -mmin "+$((LOGS_SECONDS / 60))" -exec rm -f {} + || warn 'Old container logs could not be removed.'
fi

# Images by what was recorded of them: our local tags that no release names, and the references of the releases that went.
if [ "$IMAGES" = 1 ]; then
  image_values tag "$ORCH_OPT"/releases/[1-9]*/images.yml >needed
  image_values id "$ORCH_OPT"/releases/[1-9]*/images.yml >needed.ids
  docker images --filter "reference=orchestrate/$ORCH_PROJECT/*" --format '{{.Repository}}:{{.Tag}}' >tagged ||
    warn 'The images could not be listed.'
  while read -r tag; do
    if grep -qxF -e "$tag" needed; then continue; fi
    say "image $tag"
    docker rmi "$tag" >/dev/null 2>rmi.err || warn "$(cat rmi.err)"
  done <tagged
  sort -u references >references.once
  while read -r reference id; do
    if grep -qxF -e "$id" needed.ids; then continue; fi
    # Only while it still names what was recorded: a tag that has moved is somebody's newer image.
    [ "$(docker image inspect --format '{{.Id}}' "$reference" 2>/dev/null)" = "$id" ] || continue
    say "image $reference"
    docker rmi "$reference" >/dev/null 2>rmi.err || warn "$(cat rmi.err)"
  done <references.once
fi

# Bundles, a day old at least, that no deployment of any project names, nor its recovery at boot; and what was never wholly sent.
bundles=${ORCH_STATE%/*}/bundle
readable=1
for project in "${ORCH_STATE%/*}"/*/; do
  # One of another user may name any of them.
  if [ ! -r "$project" ] || [ ! -x "$project" ]; then readable=0; fi
done
if [ "$readable" = 1 ] && [ -d "$bundles" ] && cat "${ORCH_STATE%/*}"/*/deployments/[1-9]*/bundle >bundles.kept; then
  for link in "${ORCH_STATE%/*}"/*/bundle; do
    [ ! -L "$link" ] || readlink "$link" | sed 's,.*/,,' >>bundles.kept
  done
  printf '%s\n' "${ORCH_BUNDLE##*/}" >>bundles.kept
  find "$bundles" -mindepth 1 -maxdepth 1 -mmin +1440 >bundles.old
  while read -r bundle; do
    if grep -qxF -e "${bundle##*/}" bundles.kept; then continue; fi
    rm -rf "$bundle" || warn "The bundle ${bundle##*/} could not be removed."
  done <bundles.old
fi
rm -f bundles.kept bundles.old mounted needed needed.ids tagged references references.once rmi.err
fact releases_removed "$removed"
