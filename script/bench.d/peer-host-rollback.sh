#!/bin/bash
# The host's half of peer-rollback.sh; runs in the folder that was sent.
set -euo pipefail

app=$1 version=$2 within=$3 stable=$4
root=/opt/$app
# shellcheck source=script/bench.d/peer-host-lib.sh
. ./peer-host-lib.sh

step lock
take_lock
step preflight
current=$root/releases/$(basename "$(readlink "$root/current")")
if [ -n "$version" ]; then
  release=$(grep -lx "VERSION=$version" "$root"/releases/*/.env | sort -V | tail -n 1)
  release=${release%/.env}
else
  before=$(cat "$current/previous")
  release=${before:+$root/releases/$before}
fi
if [ -z "$release" ] || [ ! -d "$release" ]; then die "there is no older release"; fi
[ "$release" != "$current" ] || die "that release runs already"
compose "$release" config --images | sort -u | while read -r image; do
  docker image inspect "$image" >/dev/null || die "$image is no longer on the host"
done

step recreate
# shellcheck disable=SC2034 # for restore_previous
previous=$current
trap restore_previous EXIT
compose "$release" up -d --no-deps --no-build --pull never bot
step health
gate "$within" "$stable"
step commit
switch_to "$release"
trap - EXIT
finish
