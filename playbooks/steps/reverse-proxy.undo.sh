# The proxy's files and services as they were. Packages stay, and so do certificates that were fetched: authorities count them.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/proxy.sh
. "$ORCH_BUNDLE/proxy.sh"
DOMAIN=
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

# Moved aside for a certificate that was not given: what lies there now is half of that one.
for part in live archive; do
  if remembered "moved-$part" && [ -e "$REPLY" ] && [ ! -e "$letsencrypt/renewal/${DOMAIN:?}.conf" ]; then
    rm -rf "${letsencrypt:?}/$part/$DOMAIN"
    mv -T "$REPLY" "$letsencrypt/$part/$DOMAIN"
  fi
done
# certbot goes over to the newest one that it has kept, whatever its links say.
if remembered versions && [ -n "$REPLY" ]; then
  find "$letsencrypt/archive/${DOMAIN:?}" -name '*.pem' | while read -r file; do
    number=$(expr "$file" : '.*[a-z]\([0-9]*\)\.pem$')
    [ "${number:-0}" -le "$REPLY" ] || rm -f "$file"
  done
fi
units=
if grep -qsxF "$renewal_settings" saved/*/path; then units=1; fi
restore_files
[ -z "$units" ] || systemctl daemon-reload
restore_units
if have nginx; then
  unit_state nginx.service
  if [ "$active" != active ]; then
    :
  elif ! reload_nginx; then
    cat "$ORCH_STEP/nginx.log" >&2
    say 'nginx does not take its old configuration over (above): it goes on with what it has.'
  elif [ -e "$proxy_settings/$DOMAIN/tls/fullchain.pem" ] && [ -e "/etc/nginx/conf.d/orchestrate-$DOMAIN.conf" ]; then
    await_certificate "$DOMAIN" "$proxy_settings/$DOMAIN/tls/fullchain.pem" || say "nginx does not show the old certificate of $DOMAIN yet."
  fi
fi
rm -rf "$ORCH_STEP/temporary" "$ORCH_STEP/nginx"
