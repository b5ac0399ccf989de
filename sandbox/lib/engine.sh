# shellcheck shell=bash
# The outer engine: the one that runs already, else one of our own with its data, socket and pid file in the state.

engine_answers() { DOCKER_HOST=$1 timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# engine_find: sets DOCKER_HOST to a living engine: the recorded one, the caller's, or the machine's.
engine_find() {
  local candidate
  command -v docker >/dev/null || return 1
  for candidate in "$(cat "$STATE/engine" 2>/dev/null || :)" "${DOCKER_HOST:-}" unix:///var/run/docker.sock; do
    case $candidate in
      '') continue ;;
      unix://*) [ -S "${candidate#unix://}" ] || continue ;;
    esac
    if engine_answers "$candidate"; then
      export DOCKER_HOST=$candidate
      [ "$(cat "$STATE/engine" 2>/dev/null || :)" = "$candidate" ] || write_file "$STATE/engine" 644 <<<"$candidate"
      return 0
    fi
  done
  return 1
}

engine_need() { engine_find || fail "no engine runs; start it with: script/sandbox up"; }

# engine_own_pid: the pid of our own dockerd, nothing if it is gone or the pid now belongs to somebody else.
engine_own_pid() {
  local pid
  pid=$(cat "$STATE/dockerd.pid" 2>/dev/null || :)
  [ -n "$pid" ] && process_is "$pid" "--data-root $STATE/docker " || return 1
  printf '%s\n' "$pid"
}

# A zombie has no command line: a machine whose first process doesn't reap keeps them for ever, and their pids with them.
process_is() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF -- "$2"; }

engine_start() {
  local pid waited=0 containerd=$STATE/exec/containerd/containerd.pid
  need_packages docker.io iptables iproute2 procps
  if pid=$(engine_own_pid); then
    say "our dockerd ($pid) does not answer: ending it"
    engine_stop
  fi
  rm -f "$STATE/dockerd.pid" "$STATE/docker.sock"
  # A pid in containerd's pid file that isn't it any more makes dockerd wait for a containerd that isn't there.
  if [ -s "$containerd" ] && ! process_is "$(cat "$containerd")" "$STATE/exec/"; then
    rm -f "$containerd"
  fi
  if [ ! -e "$STATE/machine-before" ]; then
    {
      printf 'ip_forward=%s\n' "$(cat /proc/sys/net/ipv4/ip_forward)"
      if [ -e /sys/class/net/docker0 ]; then printf 'docker0=1\n'; else printf 'docker0=0\n'; fi
      printf 'forward_policy=%s\n' "$(iptables -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p')"
    } | write_file "$STATE/machine-before" 644
  fi
  droplet_mount_all # before the engine: it starts containers that it finds
  say "starting an engine of our own (log: $STATE/dockerd.log)"
  (
    for descriptor in "${HELD[@]}"; do exec {descriptor}>&-; done
    exec setsid dockerd --data-root "$STATE/docker" --exec-root "$STATE/exec" -H "unix://$STATE/docker.sock" \
      --pidfile "$STATE/dockerd.pid" --log-level warn </dev/null >>"$STATE/dockerd.log" 2>&1
  ) &
  until engine_answers "unix://$STATE/docker.sock"; do
    waited=$((waited + 1))
    if [ "$waited" -gt 300 ]; then
      tail -n 20 "$STATE/dockerd.log" >&2
      fail "dockerd did not start within a minute"
    fi
    sleep 0.2
  done
  write_file "$STATE/engine" 644 <<<"unix://$STATE/docker.sock"
  export DOCKER_HOST=unix://$STATE/docker.sock
}

engine_up() { engine_find || engine_start; }

# engine_stop: ends our own dockerd and its containerd, by pid.
engine_stop() {
  local pid containerd waited=0
  containerd=$(cat "$STATE/exec/containerd/containerd.pid" 2>/dev/null || printf '')
  if pid=$(engine_own_pid); then
    kill -TERM "$pid"
    while process_is "$pid" dockerd && [ "$waited" -lt 150 ]; do
      waited=$((waited + 1))
      sleep 0.1
    done
    if process_is "$pid" dockerd; then kill -KILL "$pid"; fi
  fi
  # It outlives a dockerd that was killed.
  if [ -n "$containerd" ] && process_is "$containerd" "$STATE/exec/"; then
    kill -KILL "$containerd"
  fi
  rm -f "$STATE/dockerd.pid" "$STATE/docker.sock"
}

# engine_restore_machine: takes back what dockerd left on the machine's network, if it wasn't there before us.
engine_restore_machine() {
  local ip_forward=1 docker0=1 forward_policy='' table line
  [ -e "$STATE/machine-before" ] || return 0
  # shellcheck source=/dev/null
  . "$STATE/machine-before"
  [ "$docker0" = 0 ] || return 0
  [ ! -e /sys/class/net/docker0 ] || ip link delete docker0
  for table in filter nat; do
    # References first, then the chains themselves.
    iptables -t "$table" -S | grep -E -- '-j DOCKER' | sed 's/^-A/-D/' | while read -r line; do
      # shellcheck disable=SC2086 # a rule is a list of words
      eval "iptables -t $table $line"
    done
    iptables -t "$table" -S | sed -n 's/^-N \(DOCKER.*\)/\1/p' | while read -r line; do iptables -t "$table" -F "$line"; done
    iptables -t "$table" -S | sed -n 's/^-N \(DOCKER.*\)/\1/p' | while read -r line; do iptables -t "$table" -X "$line"; done
    iptables -t "$table" -S | grep -E 'docker0' | sed 's/^-A/-D/' | while read -r line; do eval "iptables -t $table $line"; done
  done
  [ -z "$forward_policy" ] || iptables -P FORWARD "$forward_policy"
  [ "$ip_forward" = 1 ] || printf '%s\n' "$ip_forward" >/proc/sys/net/ipv4/ip_forward
}
