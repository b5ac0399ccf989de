# shellcheck shell=sh disable=SC2034 # what it sets is for those who source it
# What the step reverse-proxy and its undo share: names, links, nginx. Sourced after system.sh and units.sh.

proxy_home=/var/lib/orchestrate-proxy # readable by all: which sites there are, the flags, and where ACME's challenges lie
proxy_settings=/etc/orchestrate/proxy
letsencrypt=/etc/letsencrypt
hook=$letsencrypt/renewal-hooks/deploy/orchestrate
renewal_settings=/etc/systemd/system/certbot.service.d/orchestrate.conf

# PATH TARGET [FOR-NOW]: a symbolic link to TARGET. FOR-NOW: where it leads until lead_to says otherwise. Sets changed.
ensure_link() {
  changed=0
  _file=$1 _target=$2 _now=${3:-$2}
  rm -f "$ORCH_STEP/found"
  _state=$(look "$_file") || exit 1
  # shellcheck disable=SC2086 # words
  set -- $_state
  case $1 in
    absent) _action=create ;;
    link)
      if [ "$(cat "$ORCH_STEP/found")" = "$_target" ]; then
        # Right, but it leads nowhere yet: for nginx it has to lead somewhere.
        [ "$_now" = "$_target" ] || checking || {
          save_old "$_file" "$@"
          lead_to "$_file" "$_now"
        }
        return 0
      fi
      _action=update
      ;;
    *) die "$_file is in the way of a symbolic link." ;;
  esac
  changed=1
  {
    [ "$1" = absent ] || echo "- leads to $(cat "$ORCH_STEP/found")"
    echo "+ leads to $_target"
  } >"$ORCH_STEP/detail"
  checking || save_old "$_file" "$@"
  change "$_action" "link $_file" "$ORCH_STEP/detail"
  checking || lead_to "$_file" "$_now"
  rm -f "$ORCH_STEP/found" "$ORCH_STEP/detail"
}

# PATH TARGET
lead_to() {
  printf '%s' "$2" >"$ORCH_STEP/target"
  put_link "$1" "$ORCH_STEP/target" || die "$1 can't be written."
}

# Sets nginx_version to a number, 1026003 for 1.26.3: of what is installed, else of what apt would install.
find_nginx_version() {
  if have nginx; then
    _version=$(nginx -v 2>&1 | sed -n 's,.*nginx/\([0-9.]*\).*,\1,p')
  else
    _version=$(apt-cache policy nginx 2>/dev/null | sed -n 's/^  Candidate: \([0-9][0-9.]*\).*/\1/p')
  fi
  nginx_version=$(echo "${_version:-1.26.0}" | awk -F. '{ print $1 * 1000000 + $2 * 1000 + $3 }')
}

# FILE: begins and ends, in seconds since 1970, of the first certificate in it.
certificate_times() {
  _dates=$(openssl x509 -in "$1" -noout -startdate -enddate)
  begins=$(date -d "$(printf '%s\n' "$_dates" | sed -n 's/^notBefore=//p')" +%s)
  ends=$(date -d "$(printf '%s\n' "$_dates" | sed -n 's/^notAfter=//p')" +%s)
}

# SITE: the fingerprint of what visitors are given; nothing if nobody answers.
served_fingerprint() {
  timeout 5 openssl s_client -connect 127.0.0.1:443 -servername "$1" </dev/null 2>/dev/null |
    openssl x509 -noout -fingerprint -sha256 2>/dev/null || : # nobody answers
}

# nginx takes over what lies in its files; connections stay. It says nothing of a port that somebody else has: see await_certificate.
reload_nginx() {
  nginx -t -q >"$ORCH_STEP/nginx.log" 2>&1 || return 1
  systemctl reload nginx.service >>"$ORCH_STEP/nginx.log" 2>&1
}

# SITE FILE [TRIES]: until visitors are given the certificate in FILE, 10 s at most.
await_certificate() {
  _wanted=$(openssl x509 -in "$2" -noout -fingerprint -sha256)
  _tries=0
  until [ "$(served_fingerprint "$1")" = "$_wanted" ]; do
    _tries=$((_tries + 1))
    [ $_tries -lt "${3:-50}" ] || return 1
    sleep 0.2
  done
}
