# The local tags that this deployment made and that no release uses. Layers stay: the next attempt finds them.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
for directory in "/run/user/$(id -u)" /dev/shm; do
  rm -rf "$directory/orchestrate-$ORCH_PROJECT-$ORCH_N"
done
rm -f password
[ -f tags ] || exit 0
while read -r tag; do
  used=
  for images in "$ORCH_OPT"/releases/[1-9]*/images.yml; do
    if [ "$images" != "$ORCH_RELEASE/images.yml" ] && grep -qsF "\"$tag\"" "$images"; then used=1; fi
  done
  [ -z "$used" ] || continue
  docker image inspect "$tag" >/dev/null 2>&1 || continue
  docker rmi --no-prune "$tag" >/dev/null || say "The tag $tag could not be removed: prune will try again."
done <tags
