# Writes down what the release is. Files that containers mount get names that follow their content: an unchanged file restarts nothing.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
# Read by Compose while the rest is written.
compose --project-directory "$ORCH_RELEASE" -f "$ORCH_STEP/effective.json" config -q 2>config.err &
reading=$!
tab=$(printf '\t')
files=$ORCH_OPT/files
mkdir -p "$files"
while IFS=$tab read -r hash path; do
  [ ! -d "$files/$hash" ] || continue
  source=$ORCH_RELEASE/project/$path
  if [ ! -e "$source" ]; then
    # Of a service that was taken over from the running release: its files must lie here already.
    die "The file $path ($hash) is neither in the release nor on the host."
  fi
  # On disk before it is made: undo removes what stands here.
  printf '%s\n' "$hash" >>created
  sync created
  rm -rf "$files/$hash.new"
  # Containers run as users of their own: they may look in, whatever our umask.
  mkdir -m 0755 "$files/$hash.new"
  if [ -d "$source" ]; then cp -a "$source/." "$files/$hash.new/"; else cp -a "$source" "$files/$hash.new/"; fi
  chmod -R u=rwX,go=rX "$files/$hash.new"
  find "$files/$hash.new" -exec sync {} +
  mv -T "$files/$hash.new" "$files/$hash"
  sync "$files"
done <mounts
for name in images.yml effective.json release.json; do
  cat "$name" >"$ORCH_RELEASE/$name.new.$$" || {
    ! disk_full "$ORCH_OPT" || die "The disk is full: release $ORCH_N does not fit. orchestrate prune removes old releases and images."
    exit 1
  }
done
publish "$ORCH_RELEASE/images.yml" "$ORCH_RELEASE/effective.json" "$ORCH_RELEASE/release.json"
if ! wait "$reading"; then
  cat config.err >&2
  die 'Compose cannot read the configuration that was made for this release (above). Nothing was changed.'
fi
rm -f config.err
