#!/bin/sh
# Prints a JSON object per container of the project, a line each: what Docker itself says of it; and for one that was restarted, what it said last.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"

ids=$(docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$ORCH_PROJECT" --filter label=com.docker.compose.oneoff=False)
[ -n "$ids" ] || exit 0
# shellcheck disable=SC2086 # container ids: hexadecimal words
docker inspect --format '{"service":{{json (index .Config.Labels "com.docker.compose.service")}},"id":{{json .Id}},"name":{{json .Name}},"state":{{json .State}},"restarts":{{.RestartCount}},"image":{{json .Config.Image}},"image_id":{{json .Image}}}' $ids |
  while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in *'"restarts":'[1-9]*) ;; *) continue ;; esac
    id=${line#*'"id":"'}
    id=${id%%'"'*}
    # Cut between words: the client masks secrets by their whole text.
    last=$(docker logs --tail 20 "$id" 2>&1 | awk 'NF { line = $0 }
      END { if (length(line) > 300) { line = substr(line, 1, 300); sub(/[^ ]*$/, "", line) } print line }')
    printf '{"id":"%s","last_line":' "$id"
    json_string "$last"
    printf '}\n'
  done
