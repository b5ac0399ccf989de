# shellcheck shell=bash
# The network and what answers on it: DNS for the .test names, the registry, the stand-in for Telegram's Bot API.

network_up() {
  local stale
  docker network inspect "$NETWORK" >/dev/null 2>&1 && return 0
  # A bridge that a killed engine left behind has our addresses (or those of the tests' own networks), and their packets would go there.
  for stale in $(ip -o address show | awk -v gateway="$GATEWAY/" '
    $2 ~ /^br-/ && (index($4, gateway) == 1 || $4 ~ /^(10\.84\.|fd00:)/) { print $2 }' | sort -u); do
    [ -n "$(ip -o link show master "$stale")" ] || ip link delete "$stale"
  done
  docker network create --subnet "$SUBNET" --gateway "$GATEWAY" --ip-range "$DYNAMIC_RANGE" --label "$LABEL=network" \
    "$NETWORK" >/dev/null
}

# service_up NAME IMAGE ARGUMENTS... : runs the container NAME unless it runs from the same image with the same arguments.
service_up() {
  local name=orchestrate-$1 image=$2 want have
  shift 2
  if [ -z "${REPLACE:-}" ] && [ "$(docker inspect --format '{{.State.Running}}' "$name" 2>/dev/null || :)" = true ]; then return 0; fi
  want=$(printf '%s\n' "$(docker image inspect --format '{{.Id}}' "$image")" "$@" | sha256sum | cut -c1-16)
  have=$(docker inspect --format "{{index .Config.Labels \"$LABEL.arguments\"}} {{.State.Running}}" "$name" 2>/dev/null || :)
  [ "$have" != "$want true" ] || return 0
  docker rm -f "$name" >/dev/null 2>&1 || : # there is none
  local options=() command=()
  while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then shift; command=("$@"); break; fi
    options+=("$1")
    shift
  done
  docker run -d --name "$name" --label "$LABEL=service" --label "$LABEL.arguments=$want" --network "$NETWORK" \
    --restart unless-stopped --log-opt max-size=2m "${options[@]}" "$image" "${command[@]}" >/dev/null
}

upstream_dns() { sed -n 's/^nameserver  *\([0-9.]*\)$/\1/p' /etc/resolv.conf | grep -v '^127\.' | sed -n 1p; }

dns_up() {
  local upstream arguments=(--no-daemon --no-resolv --no-hosts "--address=/registry.test/$REGISTRY_ADDRESS"
    "--address=/telegram.test/$TELEGRAM_ADDRESS" "--address=/packages.test/$PACKAGES_ADDRESS")
  upstream=$(upstream_dns)
  [ -z "$upstream" ] || arguments+=("--server=$upstream")
  service_up dns orchestrate-sandbox/services:latest --ip "$DNS_ADDRESS" --cap-add NET_ADMIN -- \
    dnsmasq --user=root "${arguments[@]}"
}

# ca_up: a CA of the sandbox and the registry's certificate by it.
ca_up() {
  local ca=$STATE/ca
  [ -s "$ca/registry.crt" ] && return 0
  mkdir -p "$ca"
  chmod 700 "$ca"
  quietly "making the CA" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj '/CN=orchestrate sandbox CA' -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -keyout "$ca/ca.key" -out "$ca/ca.crt"
  quietly "making the registry's key" openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -subj '/CN=registry.test' -keyout "$ca/registry.key" -out "$ca/registry.csr"
  printf 'subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1,IP:%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' \
    "$REGISTRY_ADDRESS" >"$ca/registry.ext"
  quietly "signing the registry's certificate" openssl x509 -req -in "$ca/registry.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" \
    -CAcreateserial -days 3650 -extfile "$ca/registry.ext" -out "$ca/registry.crt.part"
  mv "$ca/registry.crt.part" "$ca/registry.crt"
}

registry_up() {
  local dir=$STATE/registry port
  ca_up
  mkdir -p "$dir/data" "$dir/auth"
  chmod 700 "$dir"
  [ -s "$dir/password" ] || openssl rand -hex 16 | write_file "$dir/password" 600
  if [ ! -s "$dir/auth/htpasswd" ]; then
    htpasswd -niB deploy <"$dir/password" | sed '/^$/d' | write_file "$dir/auth/htpasswd" 644
  fi
  install -D -m 755 "$ROOT/sandbox/delay-proxy" "$STATE/services/delay-proxy"
  install -D -m 755 "$ROOT/sandbox/services/registry" "$STATE/services/registry"
  port=$(recorded_port registry 5000)
  recorded_port registry-control 5002 >/dev/null
  service_up registry orchestrate-sandbox/services:latest --ip "$REGISTRY_ADDRESS" \
    -p "127.0.0.1:$port:5000" -p "127.0.0.1:$(cat "$STATE/registry-control.port"):5002" \
    -v "$STATE/ca:/certs:ro" -v "$dir/auth:/auth:ro" -v "$dir/data:/data" \
    -v "$STATE/services/delay-proxy:/usr/local/bin/delay-proxy:ro" -v "$STATE/services/registry:/usr/local/bin/registry:ro" \
    -e "SCRIPTS=$(tree_hash "$ROOT/sandbox/delay-proxy" "$ROOT/sandbox/services")" -- /usr/local/bin/registry
  registry_wait
}

registry_wait() {
  local waited=0
  until docker exec orchestrate-registry python3 -c '
import socket
socket.create_connection(("127.0.0.1", 5001), 1)
socket.create_connection(("127.0.0.1", 5002), 1)' 2>/dev/null; do
    waited=$((waited + 1))
    if [ "$waited" -gt 100 ]; then
      docker logs --tail 20 orchestrate-registry >&2
      fail "the registry did not start"
    fi
    sleep 0.1
  done
}

# registry_tell COMMAND...: a line to the proxy before the registry.
registry_tell() { "$ROOT/sandbox/delay-proxy" send "$(cat "$STATE/registry-control.port")" "$@" >/dev/null; }

# Every fault starts from a well registry, so that none of them depends on the one before.
registry_fault() {
  local action=${1:-}
  engine_need
  case $action in
    start | stop | blackhole | cut | slow) ;;
    *) usage_error "registry stop|start|slow [MS]|blackhole|cut" ;;
  esac
  registry_up
  registry_tell delay 0
  registry_tell resume
  case $action in
    start) ;;
    stop) registry_tell refuse ;;
    slow) registry_tell delay "${2:-500}" ;;
    *) registry_tell "$action" ;;
  esac
}

# The other half of the stand-in (its server and Dockerfile) lies in sandbox/telegram.
telegram_up() {
  local context=$ROOT/sandbox/telegram
  [ -e "$context/Dockerfile" ] || return 0
  image_from orchestrate-sandbox/telegram:latest "$context"
  service_up telegram orchestrate-sandbox/telegram:latest --ip "$TELEGRAM_ADDRESS" \
    -p "127.0.0.1:$(recorded_port telegram 8081):8081" -p "127.0.0.1:$(recorded_port telegram-control 8082):8082"
}

packages_up() {
  images_packages
  service_up packages orchestrate-sandbox/packages:latest --ip "$PACKAGES_ADDRESS"
}

# What a playbook needs to install from it.
packages_command() {
  engine_need
  with_lock images packages_up
  printf 'PACKAGES=http://packages.test\nPACKAGES_KEY=%s\n' "$(docker exec orchestrate-packages cat fingerprint)"
}

sandbox_up() {
  local core=''
  case ${1:-} in
    --core) core=1 ;;
    '') ;;
    *) usage_error "up: no option \"$1\"" ;;
  esac
  with_lock machine sandbox_core
  [ -z "$core" ] || return 0
  with_lock machine telegram_up
  images_build
}

sandbox_core() {
  need_packages debootstrap e2fsprogs mount openssh-client openssl apache2-utils python3-minimal ca-certificates
  engine_up
  ssh_keys
  network_up
  images_core
  dns_up
  registry_up
}

sandbox_env() {
  engine_need
  printf 'export %s=%q\n' DOCKER_HOST "$DOCKER_HOST" \
    REGISTRY "$REGISTRY_NAME" \
    REGISTRY_PUSH "127.0.0.1:$(cat "$STATE/registry.port")" \
    REGISTRY_USER deploy \
    REGISTRY_PASSWORD_FILE "$STATE/registry/password" \
    REGISTRY_CA "$STATE/ca/ca.crt" \
    SANDBOX_STATE "$STATE" \
    SANDBOX_KEY "$STATE/ssh/id_ed25519" \
    SANDBOX_KNOWN_HOSTS "$STATE/ssh/known_hosts" \
    TELEGRAM_API http://telegram.test:8081 \
    TELEGRAM_CONTROL "http://127.0.0.1:$(recorded_port telegram-control 8082)"
}

sandbox_inventory() {
  local name='' app=market-bot
  while [ $# -gt 0 ]; do
    case $1 in
      --app) app=${2:?--app needs a name}; shift ;;
      -*) usage_error "inventory: no option \"$1\"" ;;
      *) name=$1 ;;
    esac
    shift
  done
  [ -n "$name" ] || usage_error "inventory needs a droplet's name"
  droplet_need "$name"
  cat <<END
app: $app
hosts:
  $name: { address: 127.0.0.1, port: $(cat "$STATE/droplets/$name/port"), user: $(droplet_user "$name"), roles: [app, db] }
ssh:
  identity: $STATE/ssh/id_ed25519
  known_hosts: $STATE/ssh/known_hosts
END
}

sandbox_down() {
  local keep='' ids name
  case ${1:-} in
    --keep-cache) keep=1 ;;
    '') ;;
    *) usage_error "down: no option \"$1\"" ;;
  esac
  with_lock machine sandbox_down_locked "$keep"
  [ -z "$keep" ] || return 0
  # The folder itself may be a mount of its own.
  find "$STATE" -mindepth 1 -delete
  mountpoint -q "$STATE" || rmdir "$STATE"
}

sandbox_down_locked() {
  local keep=$1 home ids
  if engine_find; then
    ids=$(docker ps -aq --filter "label=$LABEL")
    # shellcheck disable=SC2086 # a list of ids
    [ -z "$ids" ] || docker rm -f $ids >/dev/null
  fi
  for home in "$STATE"/droplets/*/; do
    [ -d "$home" ] || continue
    droplet_unmount "$(basename "$home")" || fail "the disk of $(basename "$home") is still in use"
  done
  rm -rf "$STATE/droplets"
  if engine_find; then
    # shellcheck disable=SC2046 # a list of ids
    docker network rm $(docker network ls -q --filter "label=$LABEL") >/dev/null 2>&1 || : # there is none
    if [ -z "$keep" ] && [ "$DOCKER_HOST" != "unix://$STATE/docker.sock" ]; then
      ids=$(docker images -q --filter "label=$LABEL"; docker images -q orchestrate-sandbox/debian)
      # shellcheck disable=SC2086 # a list of ids
      [ -z "$ids" ] || docker rmi -f $ids >/dev/null
    fi
  fi
  engine_stop
  engine_restore_machine
  state_unmount
  rm -rf "$STATE/exec" "$STATE/engine" "$STATE/machine-before" "$STATE/services" "$STATE/dockerd.log" "$STATE"/*.port
  [ -n "$keep" ] || rm -rf "$STATE/docker" "$STATE/cache" "$STATE/registry" "$STATE/ca" "$STATE/ssh"
}

# state_unmount: whatever is still mounted below the state, deepest first; nothing may be deleted through a mount.
state_unmount() {
  local target
  awk -v state="$STATE/" 'index($2, state) == 1 { print $2 }' /proc/mounts | sort -r | while read -r target; do
    umount "$target"
  done
}
