# nginx before the application: TLS by ACME (certbot, which renews) or a given certificate, redirect, rate limit, maintenance page (docs/bootstrap.md).
# shellcheck shell=sh disable=SC2015 # `A && B || C`: C is an exit, and B is a test
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/apt.sh
. "$ORCH_BUNDLE/apt.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/proxy.sh
. "$ORCH_BUNDLE/proxy.sh"
DOMAIN='' ALIASES='' SITES='' UPSTREAM='' CERTIFICATE=acme EMAIL='' ACME_SERVER='' RATE=0 BURST=0 HSTS=0 BODY=1048576 TIMEOUT=60 USER='' PROJECT=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

check_parameters

site=/etc/nginx/conf.d/orchestrate-$DOMAIN.conf
shared=/etc/nginx/conf.d/orchestrate.conf
tls=$proxy_settings/$DOMAIN/tls
lineage=$letsencrypt/live/$DOMAIN
renewal=$letsencrypt/renewal/$DOMAIN.conf
wanted_tls=$lineage
[ "$CERTIFICATE" = acme ] || wanted_tls=$proxy_settings/$DOMAIN/given

# ---- nginx's files

has_ipv6() { [ -e /proc/net/if_inet6 ]; }

# PORT [WORDS]: listening, for each family.
listen() {
  echo "    listen $1${2:+ $2};"
  ! has_ipv6 || echo "    listen [::]:$1${2:+ $2};"
}

# WORDS: TLS as Mozilla's "intermediate" has it (version 5.7): TLS 1.2 with forward secrecy, and 1.3.
listen_tls() {
  if [ "$nginx_version" -ge 1025001 ]; then
    listen 443 "ssl${1:+ $1}"
    echo '    http2 on;'
  else
    listen 443 "ssl http2${1:+ $1}"
  fi
  echo '    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
    ssl_prefer_server_ciphers off;
    ssl_session_timeout 1d;
    ssl_session_cache shared:orchestrate:10m;
    ssl_session_tickets off;'
}

challenges() {
  echo "    location ^~ /.well-known/acme-challenge/ {
        root $proxy_home/acme;
        default_type text/plain;
    }"
}

# Is the size of the table of names left to nginx (64 bytes a slot, too little for a name of 50)? It may be said only once.
names_are_free() {
  for _file in /etc/nginx/nginx.conf /etc/nginx/conf.d/*.conf /etc/nginx/sites-enabled/*; do
    [ "$_file" != "$shared" ] || continue
    ! grep -qsE '^[[:space:]]*server_names_hash_bucket_size[[:space:]]' "$_file" || return 1
  done
}

# What all sites share, and who asks for none of them. Somebody else's default server stays the default.
shared_conf() {
  # shellcheck disable=SC2016 # nginx's variables
  echo '# Written by orchestrate bootstrap (step reverse-proxy).
map $http_upgrade $orchestrate_connection { default upgrade; "" ""; }
# Headers that the application sends by itself stay as they are.
map $upstream_http_x_content_type_options $orchestrate_content_type { default ""; "" nosniff; }
map $upstream_http_referrer_policy $orchestrate_referrer { default ""; "" strict-origin-when-cross-origin; }'
  # A name has up to 253 bytes.
  ! names_are_free || echo 'server_names_hash_bucket_size 512;'
  if ! has_other_default 80; then
    echo 'server {'
    listen 80 default_server
    echo '    server_name _;
    server_tokens off;'
    challenges
    echo '    location / { return 404; }
}'
  fi
  # Older ones can refuse nobody before they have shown a certificate.
  [ "$nginx_version" -ge 1019004 ] && ! has_other_default 443 || return 0
  echo 'server {'
  listen_tls default_server
  echo '    server_name _;
    ssl_reject_handshake on;
}'
}

# PORT: does a file of somebody else's say which server is the default there? Without a number, `listen` means 80.
has_other_default() {
  _packaged=$(packaged_default)
  for _file in /etc/nginx/conf.d/*.conf /etc/nginx/sites-enabled/*; do
    [ "$_file" != "$shared" ] && [ "$_file" != "$_packaged" ] || continue
    ! sed 's/#.*//' "$_file" 2>/dev/null | tr ';{}' '\n' | awk -v port="$1" '
      $1 == "listen" && $2 !~ /^unix:/ && /[[:space:]]default_server/ {
        found = 80
        if ($2 ~ /^[0-9]+$/) found = $2
        # An IPv6 address ends with a bracket.
        else if ($2 ~ /[^:]:[0-9]+$/) { found = $2; sub(/.*:/, "", found) }
        if (found + 0 == port + 0) any = 1
      }
      END { exit !any }' || return 0
  done
  return 1
}

# The welcome page that the package brings, if nobody has changed it: prints the link to it.
packaged_default() {
  _link=/etc/nginx/sites-enabled/default
  [ "$(readlink "$_link" 2>/dev/null)" = /etc/nginx/sites-available/default ] || return 0
  # shellcheck disable=SC2016 # dpkg's
  _sum=$(dpkg-query -W -f '${Conffiles}\n' nginx-common nginx 2>/dev/null | sed -n 's,^ /etc/nginx/sites-available/default ,,p')
  ! echo "${_sum%% *}  $_link" | md5sum -c --status 2>/dev/null || echo "$_link"
}

hsts_header() { [ "$HSTS" = 0 ] || echo "        add_header Strict-Transport-Security \"max-age=$HSTS\" always;"; }

site_conf() {
  echo '# Written by orchestrate bootstrap (step reverse-proxy).'
  # shellcheck disable=SC2016 # nginx's variables
  [ "$RATE" = 0 ] || echo 'limit_req_zone $binary_remote_addr zone=orchestrate-'"$DOMAIN:10m rate=${RATE}r/s;"
  echo "upstream orchestrate-$DOMAIN { server $UPSTREAM; }
server {"
  listen 80
  echo "    server_name $DOMAIN${ALIASES:+ $ALIASES};
    server_tokens off;"
  challenges
  # shellcheck disable=SC2016 # nginx's variables
  echo '    location / { return 301 https://$host$request_uri; }
}
server {'
  listen_tls ''
  echo "    server_name $DOMAIN${ALIASES:+ $ALIASES};
    server_tokens off;
    ssl_certificate $tls/fullchain.pem;
    ssl_certificate_key $tls/privkey.pem;
    client_max_body_size $BODY;
    error_page 502 503 =503 /.orchestrate/maintenance.html;
    error_page 504 /.orchestrate/maintenance.html;
    location / {
        if (-f $proxy_home/flags/$DOMAIN/maintenance) { return 503; }"
  [ "$RATE" = 0 ] || echo "        limit_req zone=orchestrate-$DOMAIN burst=$BURST nodelay;
        limit_req_status 429;"
  # shellcheck disable=SC2016 # nginx's variables
  echo "        proxy_pass http://orchestrate-$DOMAIN;
        proxy_http_version 1.1;
        proxy_read_timeout ${TIMEOUT}s;
        proxy_send_timeout ${TIMEOUT}s;"'
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Port $server_port;
        proxy_set_header Forwarded "";
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $orchestrate_connection;
        add_header X-Content-Type-Options $orchestrate_content_type always;
        add_header Referrer-Policy $orchestrate_referrer always;'
  [ "$HSTS" = 0 ] || echo '        proxy_hide_header Strict-Transport-Security;'
  hsts_header
  echo "    }
    location = /.orchestrate/maintenance.html {
        internal;
        alias $proxy_settings/$DOMAIN/maintenance.html;
        add_header Retry-After 30 always;
        add_header Cache-Control no-store always;"
  hsts_header
  echo '    }
}'
}

# Sites of ours whose certificate is gone (a host that was restored without /etc/letsencrypt): one of them keeps nginx from starting.
dead_sites() {
  for _file in /etc/nginx/conf.d/orchestrate-*.conf; do
    _name=${_file##*/orchestrate-}
    _name=${_name%.conf}
    if [ "$_name" != "$DOMAIN" ] && [ -L "$proxy_settings/$_name/tls" ] && ! has_pair "$proxy_settings/$_name/tls"; then echo "$_name"; fi
  done
}

# They get one for now, until their own step settles theirs: of two such sites each would be in the other's way.
lend_certificates() {
  _dead=$(dead_sites)
  [ -n "$_dead" ] || return 0
  remember lent "$_dead"
  for _name in $_dead; do
    say "The certificate of $_name is gone: it gets a temporary one, until its own step has run."
    keep_old "$proxy_settings/$_name/tls"
    self_signed "$proxy_settings/$_name/temporary" "$_name"
    lead_to "$proxy_settings/$_name/tls" "$proxy_settings/$_name/temporary"
  done
}

# The wanted configuration as nginx would read it: somebody else's files are linked, ours are new, and certificates that are missing are thrown away.
prove() {
  _copy=$ORCH_STEP/nginx
  rm -rf "$_copy"
  mkdir -p "$_copy/conf.d" "$_copy/sites-enabled" "$_copy/tls"
  _packaged=$(packaged_default)
  for _file in /etc/nginx/* /etc/nginx/conf.d/* /etc/nginx/sites-enabled/*; do
    case $_file in
      */nginx.conf | */nginx/conf.d | */nginx/sites-enabled | *'/*' | "$shared" | "$site" | "$_packaged") continue ;;
    esac
    ! former_sites | sed 's,.*,/etc/nginx/conf.d/orchestrate-&.conf,' | grep -qxF "$_file" || continue
    ln -s "$_file" "$_copy${_file#/etc/nginx}"
  done
  for _name in $(dead_sites); do
    _file=$_copy/conf.d/orchestrate-$_name.conf
    [ -L "$_file" ] || continue
    rm -f "$_file"
    sed "s,$proxy_settings/$_name/tls/,$_copy/tls/,g" "/etc/nginx/conf.d/${_file##*/}" >"$_file"
  done
  self_signed "$_copy/tls"
  shared_conf >"$_copy/conf.d/${shared##*/}"
  site_conf | sed "s,$tls/,$_copy/tls/,g" >"$_copy/conf.d/${site##*/}"
  sed -e "s,/etc/nginx/conf.d/,$_copy/conf.d/,g" -e "s,/etc/nginx/sites-enabled/,$_copy/sites-enabled/,g" /etc/nginx/nginx.conf >"$_copy/nginx.conf"
  if ! nginx -T -q -c "$_copy/nginx.conf" >"$_copy/read" 2>"$ORCH_STEP/nginx.log"; then
    rm -f "$_copy/read"
    sed -i "s,$_copy/,/etc/nginx/,g" "$ORCH_STEP/nginx.log"
    cat "$ORCH_STEP/nginx.log" >&2
    die "nginx would refuse its configuration: $(grep -F '[emerg]' "$ORCH_STEP/nginx.log" | head -n 1 | sed 's/^nginx: \[emerg\] //'). Nothing was changed."
  fi
  grep -qF "# configuration file $_copy/conf.d/${site##*/}:" "$_copy/read" || {
    rm -rf "$_copy"
    die '/etc/nginx/nginx.conf does not include /etc/nginx/conf.d/*.conf: what is written there would not count. Nothing was changed.'
  }
  rm -rf "$_copy"
}

# ---- certificates

# Why the certificate has to be fetched, as detail; nothing where it is as it should be.
certificate_faults() {
  for _name in $DOMAIN $ALIASES; do echo "$_name"; done | sort -u >"$ORCH_STEP/names"
  if ! has_lineage; then
    sed 's/^/+ /' "$ORCH_STEP/names"
    echo "  from $ACME_SERVER"
    return 0
  fi
  openssl x509 -in "$lineage/fullchain.pem" -noout -ext subjectAltName 2>/dev/null | tr ',' '\n' | sed -n 's/^ *DNS://p' | sort -u >"$ORCH_STEP/named"
  comm -13 "$ORCH_STEP/named" "$ORCH_STEP/names" | sed 's/^/+ /'
  comm -23 "$ORCH_STEP/named" "$ORCH_STEP/names" | sed 's/^/- /'
  _server=$(sed -n 's/^server = //p' "$renewal")
  [ "$_server" = "$ACME_SERVER" ] || echo "~ from $_server -> $ACME_SERVER"
  _by=$(sed -n 's/^authenticator = //p' "$renewal")
  [ "$_by" = webroot ] || echo "~ renewed by $_by -> webroot"
  # certbot renews with a third of the time left, or 30 days.
  certificate_times "$lineage/fullchain.pem"
  _left=$((ends - $(date +%s)))
  [ $((_left * 10)) -ge $((ends - begins)) ] || echo "~ ends $(date -u -d "@$ends" +%Y-%m-%dT%H:%M:%SZ): its renewal has not worked"
}

# What a killed certbot, or a person, left would be in the way of a new one. The undo puts it back: nginx may live by it. Where nothing lay, it
# removes what certbot has begun.
move_remains() {
  for _part in renewal live archive; do
    find_lineage_part "$_part"
    if ! remembered "moved-$_part"; then
      _aside=absent
      if [ -e "$lineage_part" ] || [ -L "$lineage_part" ]; then _aside=$lineage_part.before-$(date -u +%Y%m%dT%H%M%S); fi
      remember "moved-$_part" "$_aside"
      REPLY=$_aside
    fi
    if [ "$REPLY" = absent ] || [ -e "$REPLY" ] || [ -L "$REPLY" ]; then
      # An attempt of this very step's, that was killed.
      rm -rf "$lineage_part"
    elif [ -e "$lineage_part" ] || [ -L "$lineage_part" ]; then
      say "$lineage_part is no part of a certificate that certbot could go on with: it is moved to $REPLY."
      mv -T "$lineage_part" "$REPLY"
    fi
  done
}

# Those that certbot has kept, a number a line.
certificate_versions() { find "$letsencrypt/archive/$DOMAIN" -name 'fullchain*.pem' | sed -n 's/.*fullchain\([0-9]*\)\.pem$/\1/p' | sort -n; }

# create|update
fetch_certificate() {
  _force=
  [ "$1" != update ] || _force=--force-renewal
  set -- certonly --non-interactive --agree-tos --no-eff-email --webroot --webroot-path "$proxy_home/acme" --cert-name "$DOMAIN" \
    --server "$ACME_SERVER" --key-type ecdsa --renew-with-new-domains
  [ -z "$_force" ] || set -- "$@" "$_force"
  for _name in $DOMAIN $ALIASES; do set -- "$@" -d "$_name"; done
  if [ -n "$EMAIL" ]; then set -- "$@" --email "$EMAIL"; else set -- "$@" --register-unsafely-without-email; fi
  _bundle=/etc/ssl/certs/ca-certificates.crt
  if [ -e acme-ca.pem ]; then
    _bundle=$ORCH_STEP/bundle.pem
    cat /etc/ssl/certs/ca-certificates.crt acme-ca.pem >"$_bundle"
  fi
  _tries=0
  until REQUESTS_CA_BUNDLE=$_bundle timeout 300 certbot "$@" >certbot.log 2>&1 </dev/null; do
    # Its timer may be at it.
    if grep -q 'Another instance of Certbot' certbot.log && [ $_tries -lt 60 ]; then
      _tries=$((_tries + 1))
      sleep 2
      continue
    fi
    cat certbot.log >&2
    _why=$(sed -n 's/^ *Detail: //p' certbot.log | head -n 1)
    [ -n "$_why" ] || _why=$(grep -v -e '^Saving debug log' -e '^Ask for help' -e '^Requesting a' -e '^$' certbot.log | tail -n 1)
    if [ -n "$had_certificate" ]; then _state="the certificate of $DOMAIN stays the one that it is"; else _state="$DOMAIN has no certificate yet"; fi
    die "$ACME_SERVER gave no certificate (above): ${_why:-certbot ended without a word}. Its server asks for http://$DOMAIN/.well-known/acme-challenge/: does that name \
lead to this host, and is port 80 open? What this run has changed is put back; $_state."
  done
  has_lineage || {
    cat certbot.log >&2
    die "certbot ended well (above), but $lineage holds no certificate that it could renew. What this run has changed is put back."
  }
  rm -f "$ORCH_STEP/bundle.pem"
}

# ---- packages

find_missing() {
  missing=
  have nginx || missing=nginx
  have openssl || missing="$missing openssl"
  [ "$CERTIFICATE" = given ] || have certbot || missing="$missing certbot"
  missing=${missing# }
}

nginx_state=
if have nginx; then
  unit_state nginx.service
  nginx_state=$active
fi
[ "$nginx_state" = active ] || check_ports nginx
refuse_keys
if [ "$CERTIFICATE" = acme ] && have certbot; then
  unit_state certbot.timer
  [ "$loaded" != not-found ] || die "The certbot of this host ($(command -v certbot)) is not the distribution's: there is no certbot.timer, which would renew. \
Remove it (snap remove certbot, or pip uninstall certbot): this step installs the package. Nothing was changed."
fi
[ "$CERTIFICATE" = acme ] || ! have openssl || check_given
find_missing
for package in $missing; do change create "package $package"; done
if [ -n "$missing" ] && ! checking; then
  # Its package starts it, and enables it.
  have nginx || remember unit-nginx.service 'disabled inactive'
  case " $missing " in *' certbot '*) remember unit-certbot.timer 'disabled inactive' ;; esac
  fresh=1
  ! have nginx || fresh=
  # shellcheck disable=SC2086 # names of packages
  install_packages $missing
  find_missing
  [ -z "$missing" ] || die "Still missing after the installation: $missing"
  [ "$CERTIFICATE" = acme ] || check_given
  default=$(packaged_default)
  if [ -n "$fresh" ] && [ -n "$default" ]; then
    keep_old "$default"
    remove_path "$default"
  fi
fi
find_nginx_version

# ---- the changes

converge() {
  touched=
  forget_given
  site_directories
  maintenance_page >"$ORCH_STEP/page"
  ensure_file "$proxy_settings/$DOMAIN/maintenance.html" root:root 0644 <"$ORCH_STEP/page"
  if [ "$CERTIFICATE" = given ]; then
    ensure_directory "$proxy_settings/$DOMAIN/given" root:root 0755
    ensure_file "$proxy_settings/$DOMAIN/given/fullchain.pem" root:root 0644 <certificate.pem
    note
    ensure_file "$proxy_settings/$DOMAIN/given/privkey.pem" root:root 0600 secret <key.pem
    note
  fi
  converge_renewal
  _default=$(packaged_default)
  if [ -n "$_default" ]; then
    ensure_absent "$_default"
    note
  fi
  shared_conf >"$ORCH_STEP/conf"
  ensure_file "$shared" root:root 0644 <"$ORCH_STEP/conf"
  note
  for _name in $(former_sites); do
    ensure_absent "/etc/nginx/conf.d/orchestrate-$_name.conf"
    note
    ensure_absent "$letsencrypt/renewal/$_name.conf"
    ensure_absent "$proxy_settings/$_name/acme-ca.pem"
    ensure_absent "$proxy_home/sites/$_name"
  done
  converge_authorities
  if has_pair "$wanted_tls"; then
    ensure_link "$tls" "$wanted_tls"
  else
    checking || self_signed "$ORCH_STEP/temporary"
    ensure_link "$tls" "$wanted_tls" "$ORCH_STEP/temporary"
  fi
  note
  site_conf >"$ORCH_STEP/conf"
  ensure_file "$site" root:root 0644 <"$ORCH_STEP/conf"
  note
  echo "$PROJECT $CERTIFICATE" >"$ORCH_STEP/conf"
  ensure_file "$proxy_home/sites/$DOMAIN" root:root 0644 <"$ORCH_STEP/conf"
  rm -f "$ORCH_STEP/conf" "$ORCH_STEP/page"
}

# What certbot's timer finds: the proxy takes a new certificate over, and the site's own authority.
converge_renewal() {
  if [ "$CERTIFICATE" = acme ] && [ -e acme-ca.pem ]; then
    ensure_file "$proxy_settings/$DOMAIN/acme-ca.pem" root:root 0644 <acme-ca.pem
  else
    ensure_absent "$proxy_settings/$DOMAIN/acme-ca.pem"
  fi
  [ "$CERTIFICATE" = acme ] || return 0
  # certbot's own: its package may bring them, or its first run. One that is there keeps its mode.
  for _directory in "$letsencrypt" "${hook%/*/*}" "${hook%/*}"; do
    checking || [ -d "$_directory" ] || install -d -m 0755 "$_directory"
  done
  ensure_file "$hook" root:root 0755 <<'HOOK'
#!/bin/sh
# Written by orchestrate bootstrap (step reverse-proxy): certbot runs it after each renewal.
set -eu
nginx -t -q
systemctl reload nginx.service
HOOK
}

# Has any site that stays an authority of its own?
has_authorities() {
  if [ "$CERTIFICATE" = acme ] && [ -e acme-ca.pem ]; then return 0; fi
  for _file in "$proxy_settings"/*/acme-ca.pem; do
    [ -e "$_file" ] || continue
    _site=${_file%/acme-ca.pem}
    _site=${_site##*/}
    # In a plan, what goes is still there.
    [ "$_site" != "$DOMAIN" ] || continue
    ! former_sites | grep -qxF "$_site" || continue
    return 0
  done
  return 1
}

# certbot's service is one for all certificates of the host: it trusts the authorities that sites have, beside the system's, while there are any.
converge_authorities() {
  if has_authorities; then
    ensure_directory "${renewal_settings%/*}" root:root 0755
    ensure_file "$renewal_settings" root:root 0644 <<CONF
# Written by orchestrate bootstrap (step reverse-proxy): certificate authorities of one's own, beside the system's.
[Service]
RuntimeDirectory=orchestrate-acme
ExecStartPre=/bin/sh -c 'cat /etc/ssl/certs/ca-certificates.crt >/run/orchestrate-acme/ca.pem && if test -d $proxy_settings; then find $proxy_settings -name acme-ca.pem -exec cat {} + >>/run/orchestrate-acme/ca.pem; fi'
Environment=REQUESTS_CA_BUNDLE=/run/orchestrate-acme/ca.pem
CONF
  else
    ensure_absent "$renewal_settings"
  fi
  if [ "$changed" = 1 ] && ! checking; then systemctl daemon-reload; fi
}

had_certificate=
[ ! -e "$tls/fullchain.pem" ] || had_certificate=1
# After a kill between the files and the reload, the files are right and nginx knows nothing of them.
again=
if ! checking && remembered proxy; then again=1; fi
if have nginx && have openssl && would_change converge; then
  # A service that is down may be down because of a file of somebody else's.
  prove
  checking || remember proxy changed
fi
if ! checking; then
  # Where its own has come, what another site's step has lent it is over.
  [ -e saved ] || [ "$(readlink "$tls")" = "${tls%/*}/temporary" ] || rm -rf "${tls%/*}/temporary"
  lend_certificates
fi
converge
if ! checking || have nginx; then ensure_unit nginx.service; fi
reload=$touched$again
# Right after a reload of somebody else's an old worker may still answer.
if [ -z "$reload" ] && [ "$nginx_state" = active ] && have openssl && has_pair "$wanted_tls" && ! await_certificate "$DOMAIN" "$wanted_tls/fullchain.pem" 5; then
  reload=1
  echo "~ $DOMAIN is given another certificate than the one that lies in $tls" >detail
fi
if [ -n "$reload" ] && [ "$nginx_state" = active ]; then
  if [ -e detail ]; then change run 'reload of nginx' detail; else change run 'reload of nginx'; fi
fi
rm -f detail
serve() {
  reload_nginx || {
    cat "$ORCH_STEP/nginx.log" >&2
    die 'nginx does not take its configuration over (above).'
  }
  await_certificate "$DOMAIN" "$tls/fullchain.pem" ||
    die "nginx has not taken its configuration over: $(tail -n 2 /var/log/nginx/error.log 2>/dev/null). See journalctl -u nginx."
}
if [ -n "$reload" ] && ! checking; then serve; fi

if [ "$CERTIFICATE" = acme ]; then
  if have openssl; then certificate_faults >"$ORCH_STEP/faults"; else
    for name in $DOMAIN $ALIASES; do echo "+ $name"; done | sort -u >"$ORCH_STEP/faults"
    echo "  from $ACME_SERVER" >>"$ORCH_STEP/faults"
  fi
  if [ -s "$ORCH_STEP/faults" ]; then
    if have openssl && has_lineage; then action=update; else action=create; fi
    change $action "certificate of $DOMAIN" "$ORCH_STEP/faults"
    checking || {
      if [ $action = update ]; then
        # Which certificate counts is said by these links, and their description; the files behind them stay.
        for part in cert chain fullchain privkey; do keep_old "$lineage/$part.pem"; done
        keep_old "$renewal"
        remember versions "$(certificate_versions | tail -n 1)"
      fi
      remember proxy changed
      [ $action = update ] || move_remains
      fetch_certificate $action
      lead_to "$tls" "$wanted_tls"
      serve
    }
  fi
  if ! checking || have certbot; then ensure_unit certbot.timer; fi
fi
if ! checking && [ -e "$ORCH_STEP/temporary" ]; then rm -rf "$ORCH_STEP/temporary"; fi
tell_changes
