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

# What lies there now is half of a certificate that was not given: what lay there before comes back. A whole one stays.
if [ -n "${DOMAIN:?}" ] && ! has_lineage; then
  for part in renewal live archive; do
    remembered "moved-$part" || continue
    find_lineage_part "$part"
    if [ "$REPLY" = absent ]; then
      rm -rf "$lineage_part"
    elif [ -e "$REPLY" ] || [ -L "$REPLY" ]; then
      rm -rf "$lineage_part"
      mv -T "$REPLY" "$lineage_part"
    fi
  done
fi
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
if remembered lent; then
  for name in $REPLY; do rm -rf "${proxy_settings:?}/$name/temporary"; done
fi
restore_units
# A step that has changed nothing leaves nginx alone.
if have nginx && { remembered proxy || [ -e saved ]; }; then
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
