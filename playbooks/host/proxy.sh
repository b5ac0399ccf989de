# shellcheck shell=sh disable=SC2034 # what it sets is for those who source it
# What the step reverse-proxy and its undo share, for nginx and Caddy. Sourced after system.sh and units.sh; DOMAIN, ALIASES and so on are the step's.

proxy_home=/var/lib/orchestrate-proxy # readable by all: which sites there are, the flags, and where ACME's challenges lie
proxy_settings=/etc/orchestrate/proxy
letsencrypt=/etc/letsencrypt
hook=$letsencrypt/renewal-hooks/deploy/orchestrate
renewal_settings=/etc/systemd/system/certbot.service.d/orchestrate.conf

# PATH TARGET [FOR-NOW]: a symbolic link to TARGET. FOR-NOW: where it leads until lead_to says otherwise. Sets changed. One that another site's step
# has led to `temporary` beside it counts as right while FOR-NOW is needed.
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
      _leads=$(cat "$ORCH_STEP/found")
      if [ "$_leads" = "$_target" ] || { [ "$_now" != "$_target" ] && [ "$_leads" = "${_file%/*}/temporary" ]; }; then
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

# DIRECTORY: does a certificate lie there, and its key, as a server needs them?
has_pair() {
  _public=$(openssl x509 -in "$1/fullchain.pem" -noout -pubkey 2>/dev/null) || return 1
  [ "$_public" = "$(openssl pkey -in "$1/privkey.pem" -passin pass: -pubout 2>/dev/null)" ]
}

# Can certbot go on with what it has of DOMAIN? Its description is written at the very end of a first one: without it, or with an empty one, the
# files are what a killed certbot has left, and it would call the next one DOMAIN-0001.
has_lineage() {
  for _part in cert chain fullchain privkey; do
    grep -qs "^$_part = " "$letsencrypt/renewal/$DOMAIN.conf" || return 1
    [ -L "$letsencrypt/live/$DOMAIN/$_part.pem" ] || return 1
    [ -e "$letsencrypt/live/$DOMAIN/$_part.pem" ] || return 1
  done
  has_pair "$letsencrypt/live/$DOMAIN"
}

# PART (renewal, live, archive): where certbot keeps it of DOMAIN, in lineage_part.
find_lineage_part() {
  lineage_part=$letsencrypt/$1/$DOMAIN
  [ "$1" != renewal ] || lineage_part=$lineage_part.conf
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

# What goes into the server's files is made of these alone.
check_parameters() {
  for name in $DOMAIN $ALIASES; do
    case $name in *[!a-z0-9.-]* | -* | .* | *..*) die "Not a domain: $name" ;; esac
  done
  case $UPSTREAM in '' | *[!A-Za-z0-9.:\[\]-]*) die "Not an address: $UPSTREAM" ;; esac
  for number in "$RATE" "$BURST" "$HSTS" "$BODY" "$TIMEOUT"; do
    case $number in '' | *[!0-9]*) die "Not a number: \"$number\"" ;; esac
  done
  case $DOMAIN/$PROJECT/$CERTIFICATE in ?*/?*/acme | ?*/?*/given) ;; *) die "The step needs DOMAIN, PROJECT and CERTIFICATE (acme or given)." ;; esac
  checking || [ -z "$USER" ] || id "$USER" >/dev/null 2>&1 || die "There is no user $USER on this host: a step user has to come before. Nothing was changed."
}

# PROGRAM: somebody else on the web's ports would keep the server from starting.
check_ports() {
  have ss || return 0
  _found=$(ss -Hltnp | awk -v server="\"$1\"" '$4 ~ /:(80|443)$/ && $0 !~ server { print $4, $6; exit }')
  [ -z "$_found" ] || die "Something else listens on a port of the web already: $_found. Nothing was changed."
}

# Keys that were given and that no site uses any more. First of all changes: the client knows by its place which of the kept files is secret.
forget_given() {
  _names=$(former_sites)
  [ "$CERTIFICATE" = given ] || _names="$_names $DOMAIN"
  for _name in $_names; do ensure_absent "$proxy_settings/$_name/given/privkey.pem" secret; done
}

# What every site has beside its server.
site_directories() {
  for _directory in /etc/orchestrate "$proxy_settings" "$proxy_settings/$DOMAIN" "$proxy_home" "$proxy_home/sites" "$proxy_home/flags" "$proxy_home/acme"; do
    ensure_directory "$_directory" root:root 0755
  done
  # Whoever deploys may switch maintenance on.
  ensure_directory "$proxy_home/flags/$DOMAIN" "${USER:-root}:${USER:-root}" 0755
}

maintenance_page() {
  if [ -e maintenance.html ]; then
    cat maintenance.html
  else
    echo '<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Back soon</title>
<style>body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto 0; padding: 0 1rem; color: #333; }</style>
</head>
<body>
<h1>Back soon</h1>
<p>This service is being worked on. Please try again in a minute.</p>
</body>
</html>'
  fi
}

# The project's sites that no step names any more.
former_sites() {
  for _file in "$proxy_home"/sites/*; do
    [ -e "$_file" ] || continue
    _name=${_file##*/}
    case " $SITES $DOMAIN " in *" $_name "*) continue ;; esac
    first_line "$_file"
    [ "${REPLY%% *}" != "$PROJECT" ] || echo "$_name"
  done
}

# DIRECTORY [SITE]: a certificate for a week that nobody trusts. queries/certificates.query.sh knows it by its name.
self_signed() {
  mkdir -p "$1"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7 -subj '/CN=orchestrate temporary' -addext "subjectAltName=DNS:${2:-$DOMAIN}" \
    -keyout "$1/privkey.pem" -out "$1/fullchain.pem" 2>"$ORCH_STEP/openssl.log" || {
    cat "$ORCH_STEP/openssl.log" >&2
    die 'openssl makes no certificate (above).'
  }
}

# These lie where everybody may read them, and a plan shows their lines: looked at before anything else, also where there is no openssl yet.
refuse_keys() {
  for _file in certificate.pem acme-ca.pem; do
    ! grep -qs 'PRIVATE KEY-----' "$_file" ||
      die "A private key lies in the file of $DOMAIN's certificates ($_file), which everybody may read on the host: give the key by itself. Nothing was changed."
  done
}

# The given one is looked at before anything is changed.
check_given() {
  openssl x509 -in certificate.pem -noout 2>/dev/null || die "The given certificate of $DOMAIN is not in PEM form (-----BEGIN CERTIFICATE-----). Nothing was changed."
  openssl pkey -in key.pem -passin pass: -noout 2>/dev/null ||
    die "The key for the certificate of $DOMAIN can't be read: a private key in PEM form, without a passphrase, is expected. Nothing was changed."
  [ "$(openssl x509 -in certificate.pem -noout -pubkey)" = "$(openssl pkey -in key.pem -passin pass: -pubout)" ] ||
    die "The key does not belong to the given certificate of $DOMAIN. The site's own certificate comes first in the file, its issuers' behind it. Nothing was changed."
  for _name in $DOMAIN $ALIASES; do
    openssl x509 -in certificate.pem -noout -checkhost "$_name" | grep -q 'does match' ||
      die "The given certificate is not for $_name: $(openssl x509 -in certificate.pem -noout -ext subjectAltName 2>/dev/null | sed -n '2s/^ *//p'). Nothing was changed."
  done
  openssl x509 -in certificate.pem -noout -checkend 0 >/dev/null ||
    die "The given certificate of $DOMAIN has expired: $(openssl x509 -in certificate.pem -noout -enddate | sed 's/.*=//'). Nothing was changed."
}

# After an ensure_: it was something that the server reads.
note() { if [ "$changed" = 1 ]; then touched=1; fi; }
