# shellcheck shell=bash
# An ACME server on demand: pebble, Let's Encrypt's own for tests, which asks droplets by name over HTTP. Its state goes with it.

acme_command() {
  local action=${1:-}
  [ $# = 0 ] || shift
  case $action in
    up) acme_up ;;
    name) acme_name "$@" ;;
    down)
      engine_need
      docker rm -f orchestrate-acme >/dev/null 2>&1 || : # there is none
      ;;
    *) usage_error "acme up|name NAME DROPLET|down" ;;
  esac
}

acme_up() {
  sandbox_up --core
  with_lock machine acme_start
  acme_wait
  printf 'ACME_DIRECTORY=%q\nACME_CA=%q\nACME_ROOT=%q\n' "https://$ACME_ADDRESS:14000/dir" "$STATE/ca/ca.crt" "$STATE/acme/root.pem"
}

# acme_certificate: what pebble shows to ACME clients, by the sandbox's CA.
acme_certificate() {
  local ca=$STATE/ca
  [ -s "$ca/acme.crt" ] && return 0
  quietly "making the ACME server's key" openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=acme.test' \
    -keyout "$ca/acme.key" -out "$ca/acme.csr"
  printf 'subjectAltName=DNS:acme.test,IP:%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "$ACME_ADDRESS" >"$ca/acme.ext"
  quietly "signing the ACME server's certificate" openssl x509 -req -in "$ca/acme.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" \
    -CAcreateserial -days 3650 -extfile "$ca/acme.ext" -out "$ca/acme.crt.part"
  mv "$ca/acme.crt.part" "$ca/acme.crt"
}

acme_start() {
  acme_certificate
  mkdir -p "$STATE/acme/names"
  image_from orchestrate-sandbox/acme:latest "$ROOT/sandbox/acme"
  install -D -m 755 "$ROOT/sandbox/services/acme" "$STATE/services/acme"
  service_up acme orchestrate-sandbox/acme:latest --ip "$ACME_ADDRESS" --cap-add NET_ADMIN \
    -v "$STATE/ca:/certs:ro" -v "$STATE/acme/names:/names:ro" -v "$STATE/services/acme:/usr/local/bin/acme:ro" \
    -e "SCRIPT=$(tree_hash "$ROOT/sandbox/services/acme")" -- /usr/local/bin/acme
}

# acme_wait: until it answers; its root is another one with each start.
acme_wait() {
  local waited=0
  until curl -sf --max-time 2 --cacert "$STATE/ca/ca.crt" "https://$ACME_ADDRESS:15000/roots/0" >"$STATE/acme/root.new"; do
    waited=$((waited + 1))
    if [ "$waited" -gt 100 ]; then
      docker logs --tail 20 orchestrate-acme >&2
      fail "the ACME server did not start"
    fi
    sleep 0.1
  done
  write_file "$STATE/acme/root.pem" 644 <"$STATE/acme/root.new"
}

# acme_name NAME DROPLET: from now on pebble looks for NAME on that droplet, whose address may be another one after a restart.
acme_name() {
  local address
  [ $# = 2 ] || usage_error "acme name NAME DROPLET"
  droplet_need "$2"
  engine_need
  address=$(docker inspect --format "{{(index .NetworkSettings.Networks \"$NETWORK\").IPAddress}}" "$(droplet_container "$2")")
  mkdir -p "$STATE/acme/names"
  # Made elsewhere: dnsmasq reads every file that appears there, and remembers what a vanished one said.
  printf '%s %s\n' "$address" "$1" | write_file "$STATE/acme/$1.new" 644
  mv -f "$STATE/acme/$1.new" "$STATE/acme/names/$1"
}
