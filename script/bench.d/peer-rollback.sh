#!/bin/bash
# The careful bash rollback: the release before, with its own compose file and env, the same health gate, the symlink. Takes
# peer-deploy.sh's options; without a VERSION it goes back by one release.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=script/bench.d/peer-lib.sh
. "$here/peer-lib.sh"
peer_options "$@"
if [ -z "$host" ] || [ -z "$key" ] || [ -z "$known_hosts" ]; then peer_usage; fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp "$here/peer-host-lib.sh" "$here/peer-host-rollback.sh" "$stage/"
peer_run "$stage" peer-host-rollback.sh "$app" "$version" "$within" "$stable"
