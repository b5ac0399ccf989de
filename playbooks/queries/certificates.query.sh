#!/bin/sh
# Prints "DOMAIN KIND BEGINS ENDS" for each site that the project has behind the host's proxy: the certificate that visitors are given, its times in
# seconds since 1970. Nothing answers: "DOMAIN KIND - -". KIND: acme or given. All are asked at once.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"

# DOMAIN KIND
ask() {
  _dates=$(timeout 5 openssl s_client -connect 127.0.0.1:443 -servername "$1" </dev/null 2>/dev/null | openssl x509 -noout -startdate -enddate 2>/dev/null) || _dates=
  case $_dates in
    *notAfter=*)
      _begins=${_dates#*notBefore=}
      printf '%s %s %s\n' "$1" "$2" "$(printf '%s\n' "${_begins%%
*}" "${_dates#*notAfter=}" | date -f - +%s | paste -sd ' ' -)"
      ;;
    *) echo "$1 $2 - -" ;;
  esac
}

for file in /var/lib/orchestrate-proxy/sites/*; do
  first_line "$file"
  [ "${REPLY%% *}" != "$ORCH_PROJECT" ] || ask "${file##*/}" "${REPLY#* }" &
done
wait
