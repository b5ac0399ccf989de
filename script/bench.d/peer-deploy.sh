#!/bin/bash
# The careful bash deploy that orchestrate is measured against: the same steps over one ssh connection, no agent, no undo
# log. It locks, makes a release folder, pulls, makes and verifies a backup, migrates, recreates the bot, waits for the
# same health with the same stability window, and switches the symlink. Prints each step's time.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=script/bench.d/peer-lib.sh
. "$here/peer-lib.sh"
peer_options "$@"
if [ -z "$version" ] || [ -z "$project" ] || [ -z "$host" ] || [ -z "$key" ] || [ -z "$known_hosts" ]; then peer_usage; fi

umask 077
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/files"
cp "$project/compose.prod.yml" "$stage/compose.yml"
cp "$project/env.template" "$stage/env.template"
cp -R "$project/redis" "$stage/files/"
cp "$here/peer-host-lib.sh" "$here/peer-host-deploy.sh" "$stage/"
printf '%s\n' "${settings[@]}" >"$stage/settings"
if [ -n "$registry" ]; then
  cp "$registry_password_file" "$stage/registry-password"
fi
peer_run "$stage" peer-host-deploy.sh "$app" "$version" "$within" "$stable" "$registry" "$registry_user"
