#!/bin/sh
# Prints a JSON object per container of the project, a line each: what Docker itself says of it.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"

ids=$(docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$ORCH_PROJECT" --filter label=com.docker.compose.oneoff=False)
[ -n "$ids" ] || exit 0
# shellcheck disable=SC2086 # container ids: hexadecimal words
docker inspect --format '{"service":{{json (index .Config.Labels "com.docker.compose.service")}},"id":{{json .Id}},"name":{{json .Name}},"state":{{json .State}},"restarts":{{.RestartCount}},"image":{{json .Config.Image}},"image_id":{{json .Image}}}' $ids
