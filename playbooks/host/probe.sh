# Asks again and again inside a container, and prints an answer a line: "<status> <body in one line>". Ends with its stdin.
# Arguments: http SECONDS URL PYTHON NODE, or exec SECONDS COMMAND…  (PYTHON and NODE: the texts of probe.py and probe.js)
# "!none" instead of an answer: there is nothing in here that could ask.
# shellcheck shell=sh
kind=$1
interval=$2
shift 2
set -f
if [ "$kind" = http ] && ! command -v curl >/dev/null 2>&1; then
  # These two watch their stdin themselves.
  if command -v python3 >/dev/null 2>&1; then exec python3 -c "$2" "$interval" "$1"; fi
  if command -v node >/dev/null 2>&1; then exec node -e "$3" "$interval" "$1"; fi
fi
exec 3<&0 </dev/null
(
  read -r _ <&3
  kill $$
) 2>/dev/null &
exec 3<&-

# A line per answer: line ends become blanks.
answer() {
  answer_status=$1
  IFS='
'
  # shellcheck disable=SC2086 # split at line ends, on purpose
  set -- $2
  IFS=' '
  printf '%s %s\n' "$answer_status" "$*" || exit 0
  sleep "$interval" 2>/dev/null || sleep 1
}

if [ "$kind" = exec ]; then
  while :; do
    body=$("$@" 2>&1) && status=0 || status=$?
    answer "$status" "$body"
  done
fi

url=$1
if command -v curl >/dev/null 2>&1; then
  while :; do
    body=$(curl -sS -k -m 5 -w '
%{http_code}' "$url" 2>&1)
    answer "${body##*
}" "${body%
*}"
  done
elif command -v wget >/dev/null 2>&1; then
  more=
  case $(wget --version 2>/dev/null) in *GNU*) more='--content-on-error --no-check-certificate -t 1' ;; esac
  IFS=' '
  while :; do
    # shellcheck disable=SC2086 # options, split at blanks
    all=$(wget -q -S -T 5 -O - $more "$url" 2>&1) && status=200 || status=000
    # The headers come first, indented by two blanks; BusyBox tells the status of a refusal in a sentence, and no body.
    body='' head=1
    IFS='
'
    for line in $all; do
      case $head$line in
      '1  HTTP/'*) status=${line#*HTTP/* } status=${status%% *} ;;
      '1  '*) ;;
      *'server returned error: HTTP/'*) status=${line#*HTTP/* } status=${status%% *} body=$line ;;
      *) head=0 body="$body$line " ;;
      esac
    done
    answer "$status" "$body"
    IFS=' '
  done
else
  echo '!none'
fi
