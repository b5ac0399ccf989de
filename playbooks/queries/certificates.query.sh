#!/bin/sh
# Prints "DOMAIN KIND BEGINS ENDS SHOWN" for each site that the project has behind the host's proxy: the certificate that visitors are given, its times
# in seconds since 1970. Nothing answers: "DOMAIN KIND - - -". KIND: acme or given. SHOWN: own, temporary (the one that the step reverse-proxy makes
# itself, which nobody trusts), other (it isn't for DOMAIN). All are asked at once.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"

# DOMAIN KIND
ask() {
  _told=$(timeout 5 openssl s_client -connect 127.0.0.1:443 -servername "$1" </dev/null 2>/dev/null |
    openssl x509 -noout -startdate -enddate -subject -checkhost "$1" 2>/dev/null) || : # some versions end with 1 for another name's
  case $_told in
    *notAfter=*) ;;
    *)
      echo "$1 $2 - - -"
      return 0
      ;;
  esac
  case $_told in
    *CN=orchestrate\ temporary* | *CN\ =\ orchestrate\ temporary*) _shown=temporary ;;
    *'does match certificate'*) _shown=own ;;
    *) _shown=other ;;
  esac
  printf '%s %s %s %s\n' "$1" "$2" "$(printf '%s\n' "$_told" | sed -n 's/^not[A-Z][a-z]*=//p' | date -f - +%s | paste -sd ' ' -)" "$_shown"
}

for file in /var/lib/orchestrate-proxy/sites/*; do
  first_line "$file"
  [ "${REPLY%% *}" != "$ORCH_PROJECT" ] || ask "${file##*/}" "${REPLY#* }" &
done
wait
