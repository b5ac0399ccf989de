# shellcheck shell=bash disable=SC2153
# Droplets: a container each, whose root, /opt, /var/lib and Docker's data lie on one ext4 disk of its own.
# State per droplet: droplets/NAME/{config,port,disk.img,mnt/}; `config` is written last: without it the droplet is half made.

droplet_container() { printf 'orchestrate-droplet-%s\n' "$1"; }
droplet_mounted() { mountpoint -q "$STATE/droplets/$1/mnt"; }
droplet_exists() { [ -s "$STATE/droplets/$1/config" ]; }
droplet_running() { [ "$(docker inspect --format '{{.State.Running}}' "$(droplet_container "$1")" 2>/dev/null || :)" = true ]; }
droplet_need() { droplet_exists "$1" || fail "no droplet \"$1\"; make it with: script/sandbox droplet $1"; }

droplet_check_name() {
  [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,40}$ ]] || usage_error "a droplet's name is made of a-z, 0-9 and -: \"$1\""
}

droplet_mount() {
  local home=$STATE/droplets/$1
  droplet_mounted "$1" && return 0
  mkdir -p "$home/mnt"
  mount -t ext4 -o loop "$home/disk.img" "$home/mnt" || fail "can't mount the disk of $1"
}

# droplet_unmount NAME: waits for the last process of a killed droplet to let go of the disk.
droplet_unmount() {
  local waited=0 mnt=$STATE/droplets/$1/mnt
  while mountpoint -q "$mnt"; do
    umount "$mnt" 2>/dev/null && continue
    waited=$((waited + 1))
    [ "$waited" -lt 100 ] || { umount "$mnt"; return 1; }
    sleep 0.1
  done
}

droplet_mount_all() {
  local config name
  for config in "$STATE"/droplets/*/config; do
    [ -e "$config" ] || continue
    name=$(basename "$(dirname "$config")")
    droplet_mount "$name"
  done
}

droplet_ssh_options() {
  printf '%s\n' -i "$STATE/ssh/id_ed25519" -o "UserKnownHostsFile=$STATE/ssh/known_hosts" -o GlobalKnownHostsFile=/dev/null \
    -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o PasswordAuthentication=no -o LogLevel=ERROR -F /dev/null \
    -p "$(cat "$STATE/droplets/$1/port")"
}

droplet_user() {
  local kind=docker
  # shellcheck source=/dev/null
  kind=$(. "$STATE/droplets/$1/config" && printf '%s' "$kind")
  if [ "$kind" = fresh ]; then printf 'root\n'; else printf 'deploy\n'; fi
}

droplet_run_ssh() {
  local name=${1#*@} user options
  case $1 in *@*) user=${1%%@*} ;; *) user=$(droplet_user "$name") ;; esac
  shift
  mapfile -t options < <(droplet_ssh_options "$name")
  # shellcheck disable=SC2029 # as with ssh itself
  ssh "${options[@]}" "$user@127.0.0.1" "$@"
}

droplet_ssh() {
  [ $# -gt 0 ] || usage_error "ssh needs a droplet's name"
  droplet_need "${1#*@}"
  droplet_run_ssh "$@" || exit # the remote status is ours
}

ssh_keys() {
  [ -s "$STATE/ssh/id_ed25519" ] && [ -s "$STATE/ssh/id_ed25519.pub" ] && return 0
  mkdir -p "$STATE/ssh"
  chmod 700 "$STATE/ssh"
  rm -f "$STATE/ssh/id_ed25519" "$STATE/ssh/id_ed25519.pub"
  ssh-keygen -q -t ed25519 -N '' -C orchestrate-sandbox -f "$STATE/ssh/id_ed25519"
  touch "$STATE/ssh/known_hosts"
}

# droplet_known_hosts NAME: its keys' lines in known_hosts, instead of older ones for the same port.
droplet_known_hosts() {
  local port key pattern
  port=$(cat "$STATE/droplets/$1/port")
  pattern="[127.0.0.1]:$port "
  {
    grep -vF "$pattern" "$STATE/ssh/known_hosts" || : # no other droplet yet
    if [ "${2:-}" != remove ]; then
      for key in "$STATE/droplets/$1/mnt/upper/etc/ssh"/ssh_host_*_key.pub; do
        printf '%s%s\n' "$pattern" "$(cut -d' ' -f1,2 "$key")"
      done
    fi
  } | write_file "$STATE/ssh/known_hosts" 644
}

# droplet_seed NAME KIND: the files that a provider would put on a new disk.
droplet_seed() {
  local name=$1 kind=$2 upper=$STATE/droplets/$1/mnt/upper type user id
  mkdir -p "$upper/etc/ssh" "$upper/etc/docker/certs.d/$REGISTRY_NAME" "$upper/root" "$upper/home"
  for type in ed25519 ecdsa rsa; do
    ssh-keygen -q -t "$type" -N '' -C "root@$name" -f "$upper/etc/ssh/ssh_host_${type}_key"
  done
  cp "$STATE/ca/ca.crt" "$upper/etc/docker/certs.d/$REGISTRY_NAME/ca.crt"
  chmod 700 "$upper/root"
  for user in root:0 deploy:1000 limited:1001; do
    id=${user#*:}
    user=${user%:*}
    local home=$upper/home/$user
    if [ "$user" = root ]; then home=$upper/root; elif [ "$kind" = fresh ]; then continue; fi
    install -d -m 700 -o "$id" -g "$id" "$home" "$home/.ssh"
    install -m 600 -o "$id" -g "$id" "$STATE/ssh/id_ed25519.pub" "$home/.ssh/authorized_keys"
  done
  printf 'NAME=%s\nDNS=%s\n' "$name" "$DNS_ADDRESS" >"$STATE/droplets/$name/mnt/droplet"
}

# droplet_reserve NAME: directory and port, under the machine-wide lock, so that no two droplets get the same port.
droplet_reserve() {
  mkdir -p "$STATE/droplets/$1"
  free_port 22001 | write_file "$STATE/droplets/$1/port" 644
}

droplet_create() {
  local name=$1 kind=$2 memory=$3 disk=$4 home=$STATE/droplets/$1 image=orchestrate-sandbox/droplet:latest
  droplet_discard "$name" # what a half-made one left
  with_lock machine droplet_reserve "$name"
  [ "$kind" != fresh ] || image=orchestrate-sandbox/droplet-fresh:${5/#13/latest}
  truncate -s "$disk" "$home/disk.img"
  quietly mkfs.ext4 mkfs.ext4 -F -q -m 0 -N 131072 -E lazy_itable_init=1,lazy_journal_init=1 "$home/disk.img"
  droplet_mount "$name"
  droplet_seed "$name" "$kind"
  docker create --name "$(droplet_container "$name")" --hostname "$name" --label "$LABEL=droplet" --network "$NETWORK" \
    --cap-add ALL --cap-drop SYS_RESOURCE --cap-drop SYS_MODULE --cap-drop SYS_TIME \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device-cgroup-rule 'a *:* rwm' --cgroupns=private --tmpfs /run --tmpfs /tmp \
    --memory "$memory" --restart on-failure --log-opt max-size=2m --stop-signal SIGRTMIN+3 --stop-timeout 30 \
    -p "127.0.0.1:$(cat "$home/port"):22" -v "$home/mnt:/.disk" \
    -e container=docker \
    -e SYSTEMD_PROC_CMDLINE='SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0' \
    -t "$image" >/dev/null
  with_lock known-hosts droplet_known_hosts "$name"
  printf 'kind=%s\nmemory=%s\ndisk=%s\ndebian=%s\n' "$kind" "$memory" "$disk" "$5" | write_file "$home/config" 644
}

# droplet_discard NAME: container, mount and files, whatever of them there is.
droplet_discard() {
  local name=$1 home=$STATE/droplets/$1
  docker rm -f "$(droplet_container "$name")" >/dev/null 2>&1 || : # there is none
  [ -d "$home" ] || return 0
  droplet_unmount "$name" || fail "the disk of $name is still in use"
  if [ -s "$home/port" ] && [ -e "$STATE/ssh/known_hosts" ]; then
    with_lock known-hosts droplet_known_hosts "$name" remove
  fi
  rm -rf "$home"
}

# droplet_boot NAME: starts it and waits until sshd lets us in and, where there is one, Docker answers.
droplet_boot() {
  local name=$1 started=$SECONDS
  droplet_mount "$name"
  droplet_running "$name" || docker start "$(droplet_container "$name")" >/dev/null
  droplet_wait "$name" "$started"
}

droplet_wait() {
  local name=$1 started=$2 probe=true
  [ "$(droplet_user "$name")" = root ] || probe='until docker version >/dev/null 2>&1; do sleep 0.1; done'
  until droplet_probe "$name" "$probe"; do
    if [ $((SECONDS - started)) -gt 90 ]; then
      docker logs --tail 30 "$(droplet_container "$name")" >&2
      fail "droplet $name did not come up within 90 s"
    fi
    sleep 0.1
  done
}

droplet_probe() {
  local options user
  mapfile -t options < <(droplet_ssh_options "$1")
  # A fresh one that has been bootstrapped since lets root in no more.
  for user in "$(droplet_user "$1")" deploy; do
    ! timeout 60 ssh "${options[@]}" -o ConnectTimeout=5 -o BatchMode=yes "$user@127.0.0.1" "$2" >/dev/null 2>&1 || return 0
  done
  return 1
}

droplet_command() {
  local name='' kind=docker memory=2g disk=12G debian=13 project='' user='' began
  while [ $# -gt 0 ]; do
    case $1 in
      --fresh) kind=fresh ;;
      --memory) memory=${2:?--memory needs a size}; shift ;;
      --disk) disk=${2:?--disk needs a size}; shift ;;
      --debian)
        debian=${2:?--debian needs 12 or 13}
        case $debian in 12 | 13) ;; *) usage_error "droplet: --debian is 12 or 13" ;; esac
        shift
        ;;
      --prepare) project=${2:?--prepare needs a project}; user=${3:?--prepare needs a user}; shift 2 ;;
      -*) usage_error "droplet: no option \"$1\"" ;;
      *) [ -z "$name" ] || usage_error "droplet: one name"; name=$1 ;;
    esac
    shift
  done
  [ -n "$name" ] || usage_error "droplet: needs a name"
  [ "$debian" = 13 ] || [ "$kind" = fresh ] || usage_error "droplet: --debian goes with --fresh"
  droplet_check_name "$name"
  began=$(date +%s%N)
  if engine_find && droplet_exists "$name" && droplet_running "$name"; then
    with_lock "droplet-$name" true # another call may be booting it
  else
    sandbox_up --core
    [ "$debian" = 13 ] || with_lock images images_debian12
    with_lock "droplet-$name" droplet_ensure "$name" "$kind" "$memory" "$disk" "$debian"
    say "droplet $name is up after $((($(date +%s%N) - began) / 1000000)) ms"
  fi
  if [ "$kind" = fresh ] && [ "$(droplet_user "$name")" != root ]; then
    fail "droplet $name exists and is not fresh; remove it first: script/sandbox rm $name"
  fi
  [ -z "$project" ] || droplet_prepare "$name" "$project" "$user"
  droplet_print "$name"
}

droplet_ensure() {
  if ! droplet_exists "$1" || ! docker inspect "$(droplet_container "$1")" >/dev/null 2>&1; then
    droplet_create "$@"
  fi
  droplet_boot "$1"
}

# droplet_prepare NAME PROJECT USER: what bootstrap would make for a user who can't.
droplet_prepare() {
  docker exec -i "$(droplet_container "$1")" sh -eu -s "$2" "$3" <<'END'
install -d -m 755 /var/lib/orchestrate
install -d -m 750 -o "$2" -g "$2" "/opt/$1" "/var/lib/orchestrate/$1"
# The bundle and the lock above the projects' locks belong to whoever deploys.
chown "$2:$2" /var/lib/orchestrate
END
}

droplet_print() {
  local name=$1 user
  user=$(droplet_user "$name")
  printf '%s=%q\n' DROPLET_NAME "$name" DROPLET_ADDRESS 127.0.0.1 DROPLET_PORT "$(cat "$STATE/droplets/$name/port")" \
    DROPLET_USER "$user" DROPLET_KEY "$STATE/ssh/id_ed25519" DROPLET_KNOWN_HOSTS "$STATE/ssh/known_hosts"
}

droplet_reboot() {
  droplet_each_locked reboot "$@"
}
droplet_reboot_locked() {
  droplet_running "$1" && docker stop "$(droplet_container "$1")" >/dev/null
  droplet_boot "$1"
}

droplet_crash() { droplet_each_locked crash "$@"; }
droplet_crash_locked() {
  droplet_kill "$1"
  droplet_boot "$1"
}

# droplet_kill NAME: SIGKILL for the first process: the kernel ends everything in its pid namespace with it.
droplet_kill() {
  droplet_running "$1" || return 0
  docker kill --signal KILL "$(droplet_container "$1")" >/dev/null
  docker wait "$(droplet_container "$1")" >/dev/null
}

droplet_power_loss() { droplet_each_locked power_loss "$@"; }
droplet_power_loss_locked() {
  local mnt=$STATE/droplets/$1/mnt
  droplet_mounted "$1" || fail "the disk of $1 is not mounted"
  # Its first process may die of the dead disk before we kill it: the engine must not start it again on that disk.
  docker update --restart no "$(droplet_container "$1")" >/dev/null
  # EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH: from here on nothing more reaches the disk, not even the journal.
  python3 -c '
import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(directory, 0x8004587D, struct.pack("I", 2))
' "$mnt"
  droplet_kill "$1"
  droplet_unmount "$1" || fail "the disk of $1 is still in use"
  docker update --restart on-failure "$(droplet_container "$1")" >/dev/null
  droplet_boot "$1"
}

droplet_each_locked() {
  local action=$1 name=${2:-}
  [ -n "$name" ] || usage_error "${action/_/-} needs a droplet's name"
  droplet_need "$name"
  engine_need
  with_lock "droplet-$name" "droplet_${action}_locked" "$name"
}

# The file lies beside the droplet's root, not in it: the droplet sees a full disk and no new file.
droplet_fill() {
  local name=${1:-} leave=${2:-0} mnt available
  [ -n "$name" ] || usage_error "fill needs a droplet's name"
  droplet_need "$name"
  mnt=$STATE/droplets/$name/mnt
  if [ "$leave" = --inodes ]; then
    droplet_fill_inodes "$mnt" "${3:-0}"
    return
  fi
  rm -f "$mnt/filler"
  sync -f "$mnt"
  available=$(df --output=avail -B1 "$mnt" | tail -n 1)
  while [ "$((available - leave))" -gt 0 ] && ! fallocate -l "$((available - leave))" "$mnt/filler" 2>/dev/null; do
    available=$((available - 65536))
  done
  # The extents' own blocks count too: what is left below the last step goes block by block.
  while [ "$leave" = 0 ] && dd if=/dev/zero of="$mnt/filler" bs=4096 count=64 oflag=append conv=notrunc status=none 2>/dev/null; do :; done
  sync -f "$mnt"
  df --output=avail -B1 "$mnt" | tail -n 1
}

# droplet_fill_inodes DIRECTORY LEAVE: empty files until the file system has places for LEAVE more.
droplet_fill_inodes() {
  mkdir -p "$1/fillers"
  python3 -c '
import errno, os, sys
number, leave = 0, int(sys.argv[2])
while number % 512 or os.statvfs(sys.argv[1]).f_favail > leave + 512 or not leave:
    try:
        os.mknod(f"{sys.argv[1]}/fillers/{os.getpid()}-{number}")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        break
    number += 1
' "$1" "$2"
  df --output=iavail "$1" | tail -n 1
}

droplet_unfill() {
  [ $# = 1 ] || usage_error "unfill needs a droplet's name"
  droplet_need "$1"
  rm -rf "$STATE/droplets/$1/mnt/filler" "$STATE/droplets/$1/mnt/fillers"
}

# droplet_read_only NAME: what Linux does with a file system whose disk has failed under it (ext4(5), errors=remount-ro).
droplet_read_only() {
  [ $# = 1 ] || usage_error "read-only needs a droplet's name"
  droplet_need "$1"
  local mnt=$STATE/droplets/$1/mnt device
  device=$(findmnt -n -o SOURCE "$mnt") || fail "the disk of $1 is not mounted"
  mount -o remount,errors=remount-ro "$mnt"
  echo 'as ordered' >"/sys/fs/ext4/${device##*/}/trigger_fs_error"
}

droplet_remove_command() {
  local name
  [ $# -gt 0 ] || usage_error "rm needs a droplet's name"
  engine_find || engine_start
  for name in "$@"; do
    droplet_check_name "$name"
    with_lock "droplet-$name" droplet_discard "$name"
  done
}

droplet_list() {
  local config name state
  engine_find || :
  for config in "$STATE"/droplets/*/config; do
    [ -e "$config" ] || continue
    name=$(basename "$(dirname "$config")")
    state=stopped
    if droplet_running "$name"; then state=running; fi
    printf '%s\t%s\t127.0.0.1:%s\n' "$name" "$state" "$(cat "$(dirname "$config")/port")"
  done
}
