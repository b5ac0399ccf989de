# shellcheck shell=bash
# shellcheck disable=SC2034 # the names are read by the other parts
# Names, addresses and small tools that every part of the sandbox uses.

# One network for everything; fixed addresses, so that a droplet's resolv.conf outlives restarts.
NETWORK=orchestrate-sandbox
SUBNET=10.83.0.0/24
DYNAMIC_RANGE=10.83.0.128/25
GATEWAY=10.83.0.1
DNS_ADDRESS=10.83.0.2
REGISTRY_ADDRESS=10.83.0.3
TELEGRAM_ADDRESS=10.83.0.4
ACME_ADDRESS=10.83.0.5
PACKAGES_ADDRESS=10.83.0.6
REGISTRY_NAME=registry.test:5000
LABEL=orchestrate.sandbox

say() { printf 'sandbox: %s\n' "$*" >&2; }

fail() {
  printf 'sandbox: error: %s\n' "$*" >&2
  exit 1
}

usage_error() {
  printf 'sandbox: %s (script/sandbox --help)\n' "$*" >&2
  exit 64
}

# with_lock NAME COMMAND...: one at a time over all clones and users of this machine. A lock that this process holds is
# not taken twice. Children inherit the descriptor only while COMMAND runs; daemons close it (see engine_start).
declare -A HELD=()
with_lock() {
  local name=$1 descriptor status=0
  shift
  if [ -n "${HELD[$name]:-}" ]; then
    "$@"
    return
  fi
  mkdir -p "$STATE/locks"
  exec {descriptor}>"$STATE/locks/$name"
  if ! flock -n "$descriptor"; then
    say "waiting for another sandbox command ($name)"
    flock "$descriptor"
  fi
  HELD[$name]=$descriptor
  "$@"
  status=$?
  unset "HELD[$name]"
  exec {descriptor}>&-
  return "$status"
}

# write_file FILE MODE: stdin to FILE by rename, so that a reader never sees half of it.
write_file() {
  local file=$1 mode=$2 temporary
  temporary=$(mktemp "$file.XXXXXX")
  cat >"$temporary"
  chmod "$mode" "$temporary"
  mv -f "$temporary" "$file"
}

# free_port FIRST: the first port from FIRST on that nobody listens on and no droplet or service has recorded.
free_port() {
  local port=$1 taken
  mkdir -p "$STATE/droplets"
  taken=" $({
    find "$STATE" -maxdepth 1 -name '*.port' -exec cat {} +
    find "$STATE/droplets" -maxdepth 2 -name port -exec cat {} +
  } | tr '\n' ' ') "
  while [[ $taken == *" $port "* ]] || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    port=$((port + 1))
  done
  printf '%s\n' "$port"
}

# recorded_port NAME FIRST: the port of a service, the same for as long as the state lives.
recorded_port() {
  [ -s "$STATE/$1.port" ] || free_port "$2" | write_file "$STATE/$1.port" 644
  cat "$STATE/$1.port"
}

# need_packages PACKAGE...: installs what is missing; silent and quick when all is there.
need_packages() {
  local missing=() package installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
  for package in "$@"; do
    grep -qxF "$package" <<<"$installed" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  apt_quietly update
  apt_quietly install --yes --no-install-recommends "${missing[@]}"
}

apt_quietly() {
  local log
  log=$(mktemp)
  if ! DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "apt-get $1 failed"
  fi
  rm -f "$log"
}

# quietly WHAT COMMAND...: the command's output is shown only if it fails.
quietly() {
  local what=$1 log status=0
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  if [ "$status" != 0 ]; then
    tail -n 60 "$log" >&2
    rm -f "$log"
    fail "$what failed (status $status)"
  fi
  rm -f "$log"
}

# tree_hash PATH...: twelve hex digits that change with any file's name or content below the paths.
tree_hash() {
  find "$@" -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sed "s|$ROOT/||" \
    | sha256sum | cut -c1-12
}
