#!/bin/sh
# Logs in to a registry and forgets it again. Input: a line with the server, a line with the user, the password. Fails with the reason.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
# shellcheck source=playbooks/host/registry.sh
. "$ORCH_BUNDLE/registry.sh"
DOCKER_CONFIG=$(memory_directory)/orchestrate-doctor-$$
export DOCKER_CONFIG
trap 'rm -rf "$DOCKER_CONFIG"' EXIT
trap 'exit 143' TERM HUP INT
mkdir -m 0700 "$DOCKER_CONFIG"
read -r server
read -r username
registry_login "$server" "$username" 20
printf 'the log-in as %s works\n' "$username"
