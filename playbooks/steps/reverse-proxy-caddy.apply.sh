# Caddy before the application, for the step reverse-proxy: TLS by Caddy's own ACME or a given certificate, redirect, maintenance page (docs/bootstrap.md).
# shellcheck shell=sh
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
[ "$RATE" = 0 ] || die "The distribution's Caddy knows no rate limit: leave rate_limit out, or take nginx. Nothing was changed."

main=/etc/caddy/Caddyfile
sites=/etc/caddy/orchestrate
settings=$proxy_settings/$DOMAIN

# ---- Caddy's files

# The package's own Caddyfile serves a welcome page on port 80: it gives way, unless somebody has changed it.
main_conf() {
  # shellcheck disable=SC2016 # dpkg's
  _sum=$(dpkg-query -W -f '${Conffiles}\n' caddy 2>/dev/null | sed -n "s,^ $main ,,p")
  if [ -e "$main" ] && ! echo "${_sum%% *}  $main" | md5sum -c --status 2>/dev/null && ! grep -q '^# Written by orchestrate' "$main"; then
    sed '/^# BEGIN orchestrate/,/^# END orchestrate/d' "$main"
    printf '%s\n' '# BEGIN orchestrate' "import $sites/*.caddy" '# END orchestrate'
  else
    printf '%s\n' '# Written by orchestrate bootstrap (step reverse-proxy).' "import $sites/*.caddy"
  fi
}

hsts_header() { [ "$HSTS" = 0 ] || echo "$1Strict-Transport-Security \"max-age=$HSTS\""; }

# Where the authority's certificate and the given one lie.
site_conf() {
  echo '# Written by orchestrate bootstrap (step reverse-proxy).'
  _names=$DOMAIN
  for _name in $ALIASES; do _names="$_names, $_name"; done
  echo "$_names {"
  if [ "$CERTIFICATE" = given ]; then
    echo "	tls $settings/given/fullchain.pem $settings/given/privkey.pem"
  else
    echo "	tls {
		issuer acme {
			dir $ACME_SERVER"
    [ -z "$EMAIL" ] || echo "			email $EMAIL"
    [ ! -e acme-ca.pem ] || echo "			trusted_roots $settings/acme-ca.pem"
    echo '			disable_tlsalpn_challenge
		}
	}'
  fi
  echo "	request_body {
		max_size $BODY
	}
	header {
		?X-Content-Type-Options nosniff
		?Referrer-Policy strict-origin-when-cross-origin"
  hsts_header '		'
  echo "		-Server
		defer
	}
	@maintenance file {
		root $proxy_home/flags/$DOMAIN
		try_files /maintenance
	}
	handle @maintenance {
		error maintenance 503
	}
	handle {
		reverse_proxy $UPSTREAM {
			header_up X-Real-IP {remote_host}
			header_up X-Forwarded-Port 443
			header_up -Forwarded
			transport http {
				response_header_timeout ${TIMEOUT}s
			}
		}
	}
	handle_errors {
		@down expression \`{err.status_code} in [502, 503, 504]\`
		handle @down {
			root * $settings
			rewrite * /maintenance.html
			header Retry-After 30
			header Cache-Control no-store"
  hsts_header '			header '
  echo '			method GET
			file_server {
				status 503
			}
		}
		handle {
			respond "{err.status_code} {err.status_text}"
		}
	}
}'
}

# The wanted configuration as Caddy would read it: somebody else's files are linked, ours are new.
prove() {
  _copy=$ORCH_STEP/caddy
  rm -rf "$_copy"
  mkdir -p "$_copy/orchestrate" "$_copy/given" "$_copy/home"
  for _file in /etc/caddy/* "$sites"/*.caddy; do
    case $_file in "$main" | "$sites" | "$sites/$DOMAIN.caddy" | *'/*'*) continue ;; esac
    ! former_sites | sed "s,.*,$sites/&.caddy," | grep -qxF "$_file" || continue
    ln -s "$_file" "$_copy${_file#/etc/caddy}"
  done
  [ ! -e acme-ca.pem ] || cp acme-ca.pem "$_copy/acme-ca.pem"
  if [ "$CERTIFICATE" = given ]; then
    cp certificate.pem "$_copy/given/fullchain.pem"
    cp key.pem "$_copy/given/privkey.pem"
  fi
  site_conf | sed "s,$settings/,$_copy/,g" >"$_copy/orchestrate/$DOMAIN.caddy"
  main_conf | sed "s,$sites/,$_copy/orchestrate/,g" >"$_copy/Caddyfile"
  if ! HOME=$_copy/home XDG_DATA_HOME=$_copy/home XDG_CONFIG_HOME=$_copy/home caddy validate --config "$_copy/Caddyfile" --adapter caddyfile >"$ORCH_STEP/caddy.log" 2>&1 </dev/null; then
    _why=$(grep -v '^{' "$ORCH_STEP/caddy.log" | tail -n 1 | sed "s,$_copy/,/etc/caddy/,g")
    rm -rf "$_copy"
    die "Caddy would refuse its configuration: ${_why:-see $ORCH_STEP/caddy.log}. Nothing was changed."
  fi
  rm -rf "$_copy"
}

# Are visitors given a certificate for all names, in force, and the given one where there is one?
served() {
  timeout 5 openssl s_client -connect 127.0.0.1:443 -servername "$DOMAIN" </dev/null 2>/dev/null | openssl x509 >"$ORCH_STEP/served.pem" 2>/dev/null || return 1
  openssl x509 -in "$ORCH_STEP/served.pem" -noout -checkend 0 >/dev/null || return 1
  openssl x509 -in "$ORCH_STEP/served.pem" -noout -checkhost "$DOMAIN" | grep -q 'does match' || return 1
  [ "$CERTIFICATE" = acme ] || [ "$(openssl x509 -in "$ORCH_STEP/served.pem" -noout -fingerprint -sha256)" = "$(openssl x509 -in certificate.pem -noout -fingerprint -sha256)" ] || return 1
  # Each name has a certificate of its own.
  for _name in $ALIASES; do
    timeout 5 openssl s_client -connect 127.0.0.1:443 -servername "$_name" </dev/null 2>/dev/null | openssl x509 -noout -checkhost "$_name" 2>/dev/null | grep -q 'does match' || return 1
  done
}

find_missing() {
  missing=
  have caddy || missing=caddy
  have openssl || missing="$missing openssl"
  missing=${missing# }
}

state=
if have caddy; then
  unit_state caddy.service
  state=$active
fi
[ "$state" = active ] || check_ports caddy
refuse_keys
[ "$CERTIFICATE" = acme ] || ! have openssl || check_given
find_missing
for package in $missing; do change create "package $package"; done
if [ -n "$missing" ] && ! checking; then
  have caddy || remember unit-caddy.service 'disabled inactive'
  # shellcheck disable=SC2086 # names of packages
  install_packages $missing
  find_missing
  [ -z "$missing" ] || die "Still missing after the installation: $missing"
  [ "$CERTIFICATE" = acme ] || check_given
  # What the package brought is no change of ours to tell, but one to undo.
  keep_old "$main"
  main_conf >"$ORCH_STEP/conf"
  put_file "$main" root:root 0644 "$ORCH_STEP/conf"
fi

converge() {
  touched=
  forget_given
  site_directories
  maintenance_page >"$ORCH_STEP/page"
  ensure_file "$settings/maintenance.html" root:root 0644 <"$ORCH_STEP/page"
  if [ "$CERTIFICATE" = given ]; then
    ensure_directory "$settings/given" root:root 0755
    ensure_file "$settings/given/fullchain.pem" root:root 0644 <certificate.pem
    note
    ensure_file "$settings/given/privkey.pem" root:caddy 0640 secret <key.pem
    note
  elif [ -e acme-ca.pem ]; then
    ensure_file "$settings/acme-ca.pem" root:root 0644 <acme-ca.pem
    note
  fi
  for _name in $(former_sites); do
    ensure_absent "$sites/$_name.caddy"
    note
    ensure_absent "$proxy_home/sites/$_name"
  done
  # Its package brings the folder above, and the file: told where it is there already.
  [ ! -d /etc/caddy ] || {
    main_conf >"$ORCH_STEP/conf"
    ensure_file "$main" root:root 0644 <"$ORCH_STEP/conf"
    note
  }
  ensure_directory "$sites" root:root 0755
  site_conf >"$ORCH_STEP/conf"
  ensure_file "$sites/$DOMAIN.caddy" root:root 0644 <"$ORCH_STEP/conf"
  note
  echo "$PROJECT $CERTIFICATE" >"$ORCH_STEP/conf"
  ensure_file "$proxy_home/sites/$DOMAIN" root:root 0644 <"$ORCH_STEP/conf"
  rm -f "$ORCH_STEP/conf" "$ORCH_STEP/page"
}

again=
if ! checking && remembered proxy; then again=1; fi
if have caddy && have openssl && would_change converge; then
  prove
  checking || remember proxy changed
fi
converge
if ! checking || have caddy; then ensure_unit caddy.service; fi
reload=$touched$again
if [ -n "$reload" ] && [ "$state" = active ]; then change run 'reload of caddy'; fi
if [ -n "$reload" ] && ! checking; then
  systemctl reload caddy.service >"$ORCH_STEP/caddy.log" 2>&1 || {
    cat "$ORCH_STEP/caddy.log" >&2
    die "Caddy does not take its configuration over: $(unit_reason caddy.service)"
  }
fi

if [ "$state" != active ] || [ -n "$reload" ] || ! served; then
  if ! checking; then
    # Caddy fetches it by itself, and tries again and again.
    clock
    deadline=$((up_ms + 120000))
    until served; do
      clock
      [ "$up_ms" -lt "$deadline" ] ||
        die "$DOMAIN has no certificate after 120 s: $(journalctl -q --no-pager -o cat -n 200 -u caddy 2>/dev/null | grep '"level":"error"' | sed -n 's/.*"error":"\([^"]*\)".*/\1/p' | tail -n 1). \
Does that name lead to this host, and is port 80 open? What this run has changed is put back; a certificate that Caddy had before, it has still."
      sleep 0.5
    done
  elif [ "$state" = active ] && [ -z "$reload" ]; then
    echo "~ $DOMAIN has no certificate in force" >detail
    change run "wait for caddy's certificate" detail
    rm -f detail
  fi
fi
tell_changes
