#!/bin/sh
# facts.sh PROJECT: what the client wants to know of this host, as key=value lines (docs/runner.md, "Facts"). Changes nothing.
# Docker's answer takes longest, so it is asked for first and read last.
set -eu
ORCH_BUNDLE=${0%/*}
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
project_paths "$1"

# One fork for a descriptor of a file that has no name any more.
answer=$ORCH_STATE/facts.$$
trap 'rm -f "$answer"*' EXIT
docker_asked=
if command -v docker >/dev/null; then
  timeout 10 docker version --format 'docker_client={{.Client.Version}}
docker_server={{with .Server}}{{.Version}}{{end}}' >"$answer.version" 2>"$answer.error" </dev/null &
  docker_asked=$!
  timeout 10 docker info --format 'docker_root={{.DockerRootDir}}' >"$answer.info" 2>/dev/null </dev/null &
  timeout 10 docker compose version --short >"$answer.compose" 2>/dev/null </dev/null &
fi

id >"$answer.id"
read -r identity <"$answer.id"
case $identity in uid=*) uid=${identity#uid=} ;; esac
user=${uid#*\(}
printf 'uid=%s\nuser=%s\n' "${uid%%\(*}" "${user%%\)*}"
printf 'groups=%s\n' "$(id -Gn)"
if sudo -n true 2>/dev/null; then echo sudo=1; else echo sudo=0; fi
first_line /proc/sys/kernel/random/boot_id
echo "boot_id=$REPLY"
clock
echo "uptime=$up"
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
if [ -d /run/systemd/system ]; then echo systemd=1; else echo systemd=0; fi

# KEY DIRECTORY
directory() { if [ -d "$2" ] && [ -w "$2" ]; then echo "$1=1"; else echo "$1=0"; fi; }
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

root=
if [ -n "$docker_asked" ]; then
  wait || : # each answer speaks for itself
  # Without a server the template may have printed nothing at all.
  client='' server='' compose=''
  while IFS='=' read -r name value; do
    case $name in docker_client) client=$value ;; docker_server) server=$value ;; esac
  done <"$answer.version"
  while IFS='=' read -r name value; do
    case $name in docker_root) root=$value ;; esac
  done <"$answer.info"
  first_line "$answer.compose"
  compose=${REPLY#v}
  first_line "$answer.error"
  printf 'docker_client=%s\ndocker_server=%s\ndocker_error=%s\ndocker_root=%s\ncompose=%s\n' \
    "$client" "$server" "$REPLY" "$root" "$compose"
else
  printf 'docker_client=\ndocker_server=\ndocker_error=docker is not installed\ndocker_root=\ncompose=\n'
fi

# DIRECTORY: the nearest one above it that exists and whose file system we may ask about.
existing() {
  REPLY=$1
  until [ -d "$REPLY" ] || [ "$REPLY" = / ]; do
    REPLY=${REPLY%/*}
    REPLY=${REPLY:-/}
  done
}
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
