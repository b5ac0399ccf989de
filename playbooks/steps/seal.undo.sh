# What seal wrote goes; files that another release mounts stay.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
if [ "$(current_number)" = "$ORCH_N" ]; then
  die "Release $ORCH_N is the current one: it stays."
fi
for name in release.json effective.json images.yml; do
  rm -f "$ORCH_RELEASE/$name" "$ORCH_RELEASE/$name".new.*
done
rm -rf "$ORCH_OPT"/files/*.new
[ -f created ] || exit 0
while read -r hash; do
  # The release's own effective.json is gone: whoever still names it is another release.
  if ! cat "$ORCH_OPT"/releases/[1-9]*/effective.json 2>/dev/null | grep -qF "/files/$hash"; then rm -rf "$ORCH_OPT/files/$hash"; fi
done <created
