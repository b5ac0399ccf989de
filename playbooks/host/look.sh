# look.sh RELEASE DIRECTORY [gates]: one look at a release that is watched. DIRECTORY keeps what was true at the first one. Exit status 0: all is well; 1: a gate
# got no good answer in LOOK_MS; 2: a container has gone the way that no gate forgives; 3: Docker itself is away, or was started anew. What isn't well stands on
# stdout, a line without anything that the application said. `gates`: they are asked, too. Wants what check.sh wants.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/gate.sh
. "$ORCH_BUNDLE/gate.sh"
watched=$1 kept=$2 asks=${3-}
LOOK_MS=${LOOK_MS:-3000}
release=$ORCH_OPT/releases/$watched

away() {
  say "$1"
  exit 3
}

# Docker answers, and isn't on its way out: whoever stops it stops every container, and that is no fault of the release.
require_engine() {
  timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || away 'the Docker engine does not answer'
  [ -d /run/systemd/system ] || return 0
  case $(systemctl is-active docker.service 2>/dev/null) in deactivating | activating | reloading) away 'the Docker engine is being stopped or started' ;; esac
}

# Another process than before? Each start writes its file anew.
engine_mark() { stat -c '%i %Y' /run/docker.pid 2>/dev/null || :; }

# The services that the release's deployment has put there, and those whose gate it has passed; a line each.
watched_services() {
  for _file in "$release/recreate/"*; do
    [ ! -s "$_file" ] || eval "printf '%s\\n' $(cat "$_file")"
  done
  for _file in "$release/gates/"*; do
    # shellcheck disable=SC1090 # a gate's variables
    [ ! -f "$_file" ] || (. "$_file" && printf '%s\n' "$SERVICE")
  done
}

# ID…: a line of nine words for each.
inspect_containers() {
  timeout 20 docker inspect --type container -f '{{.Id}} {{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}} {{.State.OOMKilled}} {{.State.ExitCode}} x{{.HostConfig.RestartPolicy.Name}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' "$@" 2>/dev/null || : # what is gone is missing
}

if [ ! -s "$kept/baseline" ]; then
  require_engine
  engine_mark >"$kept/engine"
  services=$(watched_services | sort -u)
  containers=$(all_containers)
  # shellcheck disable=SC2046 # ids
  set -- $(printf '%s\n' "$containers" | while read -r id service _; do if has_word "$service" "$services"; then echo "$id"; fi; done)
  : >"$kept/baseline.new"
  [ $# = 0 ] || inspect_containers "$@" >"$kept/baseline.new"
  echo end >>"$kept/baseline.new"
  mv "$kept/baseline.new" "$kept/baseline"
  cp "$kept/baseline" "$kept/now"
else
  [ "$(engine_mark)" = "$(cat "$kept/engine")" ] || away 'the Docker engine was started anew'
  # shellcheck disable=SC2046 # ids
  set -- $(awk 'NF > 1 { print $1 }' "$kept/baseline")
  : >"$kept/now"
  [ $# = 0 ] || inspect_containers "$@" >"$kept/now"
fi
# A health check that failed at the first look already isn't judged: the gates have let it pass.
fault=$(awk '
  NF < 2 { next }
  FILENAME == ARGV[1] { order[++n] = $1; service[$1] = $2; started[$1] = $4; count[$1] = $5; health[$1] = $9; next }
  { seen[$1] = 1; now[$1] = $3; at[$1] = $4; restarts[$1] = $5; oom[$1] = $6; code[$1] = $7; policy[$1] = $8; well[$1] = $9 }
  END {
    for (i = 1; i <= n; i++) {
      id = order[i]; fault = ""
      if (!(id in seen)) fault = "its container is gone"
      else if (oom[id] == "true" && (now[id] != "running" || at[id] != started[id])) fault = "it was killed because its memory ran out"
      else if (restarts[id] != count[id] || now[id] == "restarting") fault = "it crashed and was restarted by Docker"
      else if (now[id] == "exited" || now[id] == "dead") {
        # A job may end.
        if (code[id] != 0 || policy[id] ~ /^x(always|unless-stopped)/) fault = "it ended with exit status " code[id]
      }
      else if (at[id] != started[id]) fault = "it was restarted"
      # Docker calls whatever is paused unhealthy.
      else if (well[id] == "unhealthy" && health[id] != "unhealthy" && now[id] == "running") fault = "its own health check calls it unhealthy"
      if (fault != "") { print service[id] ": " fault; exit }
    }
  }' "$kept/baseline" "$kept/now")
if [ -n "$fault" ]; then
  require_engine
  [ "$(engine_mark)" = "$(cat "$kept/engine")" ] || away 'the Docker engine was started anew'
  say "$fault"
  exit 2
fi

[ "$asks" = gates ] || exit 0
for gates_file in "$release/gates/"*; do
  [ -f "$gates_file" ] || continue
  # shellcheck disable=SC2031 # each gate's own
  fault=$(
    # shellcheck disable=SC1090 # a gate's variables
    . "$gates_file"
    if [ "$WITHIN_MS" -gt "$LOOK_MS" ]; then WITHIN_MS=$LOOK_MS; fi
    gate "$watched" look >/dev/null || say "$failure_public"
  ) || fault='a gate could not be asked'
  if [ -n "$fault" ]; then
    require_engine
    say "$fault"
    exit 1
  fi
done
