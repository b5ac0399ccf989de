# The release's own directory, made under a temporary name and renamed, so that it is there wholly or not at all.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
COPY_OF='' COMPOSE_DIR=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

new=$ORCH_RELEASE.new
rm -rf "$new"
if [ -d "$ORCH_RELEASE" ]; then
  say "release $ORCH_N is there already"
  exit 0
fi
mkdir -p "${ORCH_RELEASE%/*}"
mkdir -m 0750 "$new"

if [ -n "$COPY_OF" ]; then
  old=$ORCH_OPT/releases/$COPY_OF
  [ -f "$old/effective.json" ] || die "Release $COPY_OF is not on the host any more: nothing to go back to."
  # Every image that it needs, before anything stops. Docker is asked while the files are copied.
  images=$old/images.yml
  if [ -f images.yml ]; then images=images.yml; fi
  image_values tag "$images" >needed
  # shellcheck disable=SC2046 # tags: repository and digits
  docker image inspect --format '{{.Id}}' $(cat needed) >/dev/null 2>&1 &
  asked=$!
  cp -a "$old/." "$new/"
  set --
  for name in effective.json images.yml release.json; do [ ! -f "$name" ] || set -- "$@" "$name"; done
  [ $# = 0 ] || cp "$@" "$new/"
  # A rollback across a rotation: the older release's env with the present values.
  if [ -f env ]; then
    make_secret_files
    cp env "$new/.env"
    rm -f "$new/.secrets"
    if [ -f secrets ]; then cp secrets "$new/.secrets"; fi
  fi
else
  cp compose.yml playbook.yml "$new/"
  mkdir -m 0755 "$new/project"
  if [ -d project ]; then cp -a project/. "$new/project/"; fi
  # A relative `env_file: .env` is found beside the compose file.
  mkdir -p "$new/project/$COMPOSE_DIR"
  up=..
  rest=$COMPOSE_DIR
  while [ -n "$rest" ]; do
    up=../$up
    case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
  done
  link=$new/project/${COMPOSE_DIR:+$COMPOSE_DIR/}.env
  if [ ! -e "$link" ]; then ln -s "$up/.env" "$link"; fi
fi
find "$new" \( -type f -o -type d \) -print0 | sync_all # each file's own data: a whole-disk sync waits for everybody's
if [ -n "$COPY_OF" ] && ! wait "$asked"; then
  missing=
  while read -r tag; do
    docker image inspect "$tag" >/dev/null 2>&1 || missing="$missing $tag"
  done <needed
  [ -z "$missing" ] ||
    die "Images of release $COPY_OF were pruned:$missing. Deploy that version again instead (orchestrate deploy ENV VERSION)."
fi
mv -T "$new" "$ORCH_RELEASE"
sync "${ORCH_RELEASE%/*}"
