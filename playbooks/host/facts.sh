#!/bin/sh
# facts.sh PROJECT: what the client wants to know of this host, as key=value lines (docs/runner.md, "Facts"). Changes nothing but the note `docker`.
# Docker's answer takes longest, so it is asked for first and read last.
set -eu
ORCH_BUNDLE=${0%/*}
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
project_paths "$1"

# What Docker's programs and its engine are, in REPLY, as long as nobody exchanges or restarts them: the programs' files, and the engine's process.
# Fails where that can't be told.
docker_key() {
  [ -z "${DOCKER_HOST-}${DOCKER_CONTEXT-}" ] && [ -s /var/run/docker.pid ] || return 1
  ! grep -qs '"currentContext"' "${DOCKER_CONFIG:-${HOME:-/}/.docker}/config.json" || return 1
  find_compose
  case $compose_program in /*) ;; *) return 1 ;; esac
  first_line /var/run/docker.pid
  REPLY="$REPLY $(stat -L -c '%n %i %s %Y' "$(command -v docker)" "$compose_program" /var/run/docker.pid 2>/dev/null | paste -s -d ' ' -)"
}

# What was noted of them: to ask means to start every plugin. Fails if it is of others, or the engine doesn't answer.
told_before() {
  [ -n "$answering" ] && [ -n "$key" ] || return 1
  first_line "$ORCH_STATE/docker"
  [ "$REPLY" = "$key" ] || return 1
  echo noted=1
  sed 1d "$ORCH_STATE/docker"
  wait "$answering"
}

# KEY CLIENT ROOT COMPOSE: for the next time, if it is still so. Without space there is no note.
note_docker() {
  [ -n "$1" ] && [ -n "$2" ] && [ -n "$3" ] && [ -n "$4" ] && docker_key && [ "$REPLY" = "$1" ] || return 0
  if printf '%s\ndocker_client=%s\ndocker_root=%s\ncompose=%s\n' "$@" 2>/dev/null >"$ORCH_STATE/docker.new.$$"; then
    mv "$ORCH_STATE/docker.new.$$" "$ORCH_STATE/docker"
  else
    rm -f "$ORCH_STATE/docker.new.$$"
  fi
}

# Lines key=value on stdout, and what the client program complains about. None of it goes through a file: a full disk has an answer too.
ask_docker() {
  command -v docker >/dev/null || return 0
  echo asked=1
  # Where there is a note only the engine is asked, whether it answers.
  answering=''
  if [ -s "$ORCH_STATE/docker" ] && [ -L "$ORCH_OPT/current" ]; then
    timeout 10 docker version --format 'docker_server={{.Server.Version}}' 2>/dev/null &
    answering=$!
  fi
  key=''
  ! docker_key || key=$REPLY
  echo "key=$key"
  ! told_before || return 0
  [ -z "$answering" ] || wait "$answering" || : # what it says is asked for again
  printf '\nagain=1\n'
  # One question for all of it: starting the client and its plugins is what takes time. Older than 23: see below.
  if timeout 10 docker info --format 'docker_client={{.ClientInfo.Version}}
docker_server={{.ServerVersion}}
docker_root={{.DockerRootDir}}
compose={{range .ClientInfo.Plugins}}{{if eq .Name "compose"}}{{.Version}}{{end}}{{end}}
docker_error={{range .ServerErrors}}{{.}} {{end}}'; then
    # A database's volume remembers its password. Once something is deployed, so does the release.
    [ -L "$ORCH_OPT/current" ] ||
      timeout 10 docker volume ls --filter "label=com.docker.compose.project=$ORCH_PROJECT" --format 'volume={{.Name}}' || : # its words say why
  else
    # Before Docker 23 the client didn't tell its version there, and after a fault of the engine nothing was printed.
    echo again=1
    timeout 10 docker version --format 'docker_client={{.Client.Version}}
docker_server={{with .Server}}{{.Version}}{{end}}' || : # the same
    timeout 10 docker info --format 'docker_root={{.DockerRootDir}}' 2>/dev/null || : # the same
    printf 'compose=%s\n' "$(timeout 10 docker compose version --short 2>/dev/null)"
  fi
}

# KEY DIRECTORY
directory() { if [ -d "$2" ] && [ -w "$2" ]; then echo "$1=1"; else echo "$1=0"; fi; }

# DIRECTORY: the nearest one above it that exists and whose file system we may ask about.
existing() {
  REPLY=$1
  until [ -d "$REPLY" ] || [ "$REPLY" = / ]; do
    REPLY=${REPLY%/*}
    REPLY=${REPLY:-/}
  done
}

# What the root control group allows, where the machine is itself a container: memory in bytes, CPUs in thousandths. Empty: no limit. cgroup v2,
# else v1; a real machine has no such file (v2) or "no limit" in it (v1). No fork.
control_group() {
  first_line "$1/memory.max"
  [ -n "$REPLY" ] || first_line "$1/memory/memory.limit_in_bytes"
  # v1 says 2^63 less a page where there is none.
  case $REPLY in *[!0-9]* | ???????????????????*) REPLY= ;; esac
  echo "memory_limit=$REPLY"
  first_line "$1/cpu.max" # quota and period, in microseconds
  if [ -z "$REPLY" ]; then
    first_line "$1/cpu/cpu.cfs_quota_us"
    _quota=$REPLY
    first_line "$1/cpu/cpu.cfs_period_us"
    REPLY="$_quota $REPLY"
  fi
  _quota=${REPLY%% *} _period=${REPLY##* }
  case $_quota$_period in
    '' | *[!0-9]*) echo cpu_limit= ;;
    *) if [ "$_period" -gt 0 ]; then echo "cpu_limit=$((_quota * 1000 / _period))"; else echo cpu_limit=; fi ;;
  esac
}

# The rest, while Docker thinks; its answers on 3.
tell() {
  # Takes as long as Docker; its answer comes among the others.
  { if sudo -n true 2>/dev/null; then echo sudo=1; else echo sudo=0; fi; } 3<&- &
  sudo=$!
  printf 'uid=%s\nuser=%s\ngroups=%s\n' "$(id -u)" "$(id -un)" "$(id -Gn)"
  echo "sudo_user=${SUDO_USER-}"
  first_line /proc/sys/kernel/random/boot_id
  echo "boot_id=$REPLY"
  clock
  echo "uptime=$up"
  # A container's own boot is its first process's start; where that can't be seen, the machine's.
  first_line /proc/1/stat 2>/dev/null
  # shellcheck disable=SC2086 # split: field 22 of proc(5) is the start time in ticks of a hundredth
  set -- ${REPLY##*) }
  echo "boot_age=$(((up_ms - ${20:-0} * 10) / 1000))"
  echo "epoch_ms=$(now_ms)"
  (
    PRETTY_NAME=
    # shellcheck source=/dev/null
    [ ! -r /etc/os-release ] || . /etc/os-release
    echo "os=$PRETTY_NAME"
  )
  first_line /proc/sys/kernel/osrelease
  echo "kernel=$REPLY"
  echo "cpus=$(nproc)"
  while read -r name size _; do
    case $name in
      MemTotal:) echo "memory_total=$((size * 1024))" ;;
      MemAvailable:)
        echo "memory_available=$((size * 1024))"
        break
        ;;
    esac
  done </proc/meminfo
  control_group "${ORCHESTRATE_CGROUP:-/sys/fs/cgroup}"
  if [ -d /run/systemd/system ]; then echo systemd=1; else echo systemd=0; fi

  directory state_dir "$ORCH_STATE"
  directory opt_dir "$ORCH_OPT"

  current=
  [ ! -L "$ORCH_OPT/current" ] || current=$(readlink "$ORCH_OPT/current")
  echo "current=${current##*/}"
  for name in sequence open identity; do
    first_line "$ORCH_STATE/$name"
    echo "$name=$REPLY"
  done
  if [ -e "$ORCH_STATE/runner.pid" ] && runner_alive; then echo locked=1; else echo locked=0; fi

  asked='' noted='' key='' client='' server='' root='' compose='' error='' words='' volumes=''
  while IFS= read -r line <&3; do
    value=${line#*=}
    case $line in
      asked=*) asked=1 ;;
      noted=*) noted=1 ;;
      key=*) key=$value ;;
      again=*) noted='' client='' server='' root='' compose='' error='' words='' ;;
      docker_client=*) client=$value ;;
      docker_server=*) server=$value ;;
      docker_root=*) root=$value ;;
      compose=*) compose=${value#v} ;;
      docker_error=*) error=${value% } ;;
      volume=*) volumes="$volumes${volumes:+ }$value" ;;
      *) words=${words:-$line} ;;
    esac
  done
  [ -n "$asked" ] || error='docker is not installed'
  error=${error:-$words}
  [ -z "$server" ] || error=
  printf 'docker_client=%s\ndocker_server=%s\ndocker_error=%s\ndocker_root=%s\ncompose=%s\nvolumes=%s\n' \
    "$client" "$server" "$error" "$root" "$compose" "$volumes"

  [ -n "$noted" ] || [ ! -d "$ORCH_STATE" ] || note_docker "$key" "$client" "$root" "$compose"

  existing "$ORCH_STATE"
  state=$REPLY
  existing "$ORCH_OPT"
  opt=$REPLY
  existing "${root:-/var/lib/docker}"
  docker=$REPLY
  set -- state "$ORCH_STATE" opt "$ORCH_OPT" docker "${root:-/var/lib/docker}"
  # A device's name may hold anything but a newline.
  df -B1 --output=avail,size,iavail,source "$state" "$opt" "$docker" | while read -r available size inodes device; do
    case $available in *[!0-9]*) continue ;; esac
    printf 'disk.%s.path=%s\n' "$1" "$2"
    printf "disk.$1.%s=%s\n" available "$available" size "$size" inodes "$inodes" device "$device"
    shift 2
  done
  wait "$sudo"
}

ask_docker </dev/null 2>&1 | tell 3<&0 </dev/null
