# shellcheck shell=sh disable=SC2034 # what it sets is for those who source it
# What attach, the runner and the steps' scripts share. Sourced; expects `set -eu`.
# POSIX sh has no local variables: names used inside functions begin with an underscore.

umask 077

# A journal's line that closes its deployment. Half a line, torn by a crash, doesn't: it was never written.
closed_line='^{"event":"closed",.*}$'

# Sets up ("1669.34", seconds since the start of the machine) and up_ms. No fork.
clock() {
  read -r up _ </proc/uptime
  # 1…- 1000: hundredths with a leading zero would be read as octal.
  up_ms=$((${up%.*} * 1000 + 1${up#*.} * 10 - 1000))
}

uptime_ms() {
  clock
  echo "$up_ms"
}

now_ms() { date +%s%3N; }

# TEXT: prints it as a JSON string. Other control characters than tab and newline become a question mark.
json_string() {
  case $1 in
    *[\\\"[:cntrl:]]*)
      # The dot keeps a newline at the end.
      _json=$(printf '%s.' "$1" | sed -e ':a' -e '$!{' -e 'N' -e 'ba' -e '}' \
        -e 's/\\/\\\\/g; s/"/\\"/g; s/\n/\\n/g; s/\t/\\t/g; s/[[:cntrl:]]/?/g')
      printf '"%s"' "${_json%.}"
      ;;
    *) printf '"%s"' "$1" ;;
  esac
}

# FILE [COMMAND…]: what the command prints, else stdin, becomes FILE: temporary name, fsync, rename, fsync of the directory. On a full
# disk, and when the command fails, the old FILE stays. At the end of a pipe nobody would hear of a producer that died half-way.
write_atomically() {
  _file=$1
  shift
  [ $# -gt 0 ] || set -- cat
  if "$@" >"$_file.new.$$" && sync "$_file.new.$$" && mv -f "$_file.new.$$" "$_file"; then
    case $_file in */*) sync "${_file%/*}" ;; *) sync . ;; esac
  else
    rm -f "$_file.new.$$"
    return 1
  fi
}

# Names on stdin, each ended by a NUL: fsyncs them all, many at once, which a file system answers with one write of its journal.
sync_all() { xargs -0 -r -n 4 -P 8 sync; }

# FILE…, each written as FILE.new.$$: makes them FILE, as write_atomically does, but all in one go.
publish() {
  for _file; do
    shift
    set -- "$@" "$_file.new.$$"
  done
  sync "$@" || return 1
  for _file; do
    shift
    mv -f "$_file" "${_file%.new.*}" || return 1
    set -- "$@" "${_file%/*}"
  done
  sync "$@"
}

# PATH: is nothing left on its file system? What a program had to say of that may be lost, with the file that its words went to.
disk_full() { [ "$(df -P -k "$1" | awk 'END { print $(NF - 2) }')" -lt 64 ]; }

say() { printf '%s\n' "$1"; }

die() {
  printf '%s\n' "$1" >&2
  exit 1
}

# NAME MEMBERS: sets line to an event. _key is the opener's nonce, _epoch the wall clock at uptime 0 (file key).
event_line() {
  clock
  line="{\"event\":\"$1\",\"k\":\"$_key\",\"t\":$((_epoch + up_ms)),\"up\":$up,$2}"
}

# KEY JSON: a fact of this step, for the client, later steps and the history.
fact() {
  read -r _key _epoch <"$ORCH_DEPLOYMENT/key"
  event_line fact "\"step\":\"${ORCH_STEP##*/}\",\"key\":\"$1\",\"value\":$2"
  printf '"%s":%s\n' "$1" "$2" >>"$ORCH_STEP/facts" || {
    rm -f "$ORCH_STEP/facts" # rather none than half a line
    die "The disk is full: cannot keep the fact $1."
  }
  printf '\n\001%s\n' "$line" >>"$ORCH_DEPLOYMENT/log"
}

# Docker Compose for this project, with nothing of our environment but what the client program needs. Started by itself, which it is made
# for: `docker compose` starts it twice, first to ask what it is. A subshell that has set compose_exec=exec becomes Compose.
compose() {
  [ -n "${compose_program-}" ] || find_compose
  # shellcheck disable=SC2086 # a path without blanks, or two words
  ${compose_exec-} env -i PATH="$PATH" HOME="${HOME:-/}" LC_ALL=C ${DOCKER_HOST+DOCKER_HOST="$DOCKER_HOST"} \
    ${DOCKER_CONFIG+DOCKER_CONFIG="$DOCKER_CONFIG"} $compose_program --ansi never --progress plain -p "$ORCH_PROJECT" "$@"
}

# Where the docker client looks for its plugins, in its order; left to itself where it was told of other places.
find_compose() {
  compose_program='docker compose'
  _config=${DOCKER_CONFIG:-${HOME:-/}/.docker}
  ! grep -qs cliPluginsExtraDirs "$_config/config.json" || return 0
  for _directory in "$_config" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker; do
    if [ -x "$_directory/cli-plugins/docker-compose" ]; then
      case $_directory in *[!A-Za-z0-9/._-]*) ;; *) compose_program=$_directory/cli-plugins/docker-compose ;; esac
      return 0
    fi
  done
}

# "service|working directory|image reference" of each service of the configuration that env has left, in json.awk's spelling; ordered by name.
new_services() {
  cat "$ORCH_DEPLOYMENT"/[0-9]*/config.json | LC_ALL=C awk -f "$ORCH_BUNDLE/json.awk" | LC_ALL=C awk -F '\t' '
    split($1, at, "\037") == 3 && at[1] == "services" {
      if (at[3] == "image") image[at[2]] = $3
      else if (at[3] == "working_dir") directory[at[2]] = $3
      names[at[2]] = 1
    }
    END { for (name in names) print name "|" directory[name] "|" image[name] }' | sort
}

# FILE: which gates and services aren't well, of the lines that check.sh printed; a name a line, ordered as they were asked.
unwell_names() { sed -n 's/^\({.*\),"healthy":false,.*/\1/p' "$1"; }

# For attach and the runner: where project P lives.
project_paths() {
  # The last three are names of our own beside the projects' directories.
  case $1 in '' | *[!a-z0-9-]* | -* | bundle | lock | holder) die "Not a project name: $1" ;; esac
  ORCH_PROJECT=$1
  base=${ORCHESTRATE_STATE:-/var/lib/orchestrate}
  ORCH_STATE=$base/$1
  ORCH_OPT=${ORCHESTRATE_OPT:-/opt}/$1
}

# FILE: the first line of it in REPLY, or empty. No fork.
first_line() {
  REPLY=
  if [ -r "$1" ]; then read -r REPLY <"$1" || :; fi # a line without its newline counts
}

# Is the process of runner.pid ("<boot id> <pid> <start time in ticks>") alive? No fork.
runner_alive() {
  first_line "$ORCH_STATE/runner.pid"
  process_alive "$REPLY"
}

process_alive() {
  _identity=$1
  first_line /proc/sys/kernel/random/boot_id
  _boot=${_identity%% *}
  [ -n "$_boot" ] && [ "$REPLY" = "$_boot" ] || return 1
  _pid=${_identity#* }
  _pid=${_pid%% *}
  process_identity "$_pid" && [ "$REPLY" = "$_identity" ]
}

# PID: sets REPLY to "<boot id> <pid> <start time in ticks>", which never names another process; fails if there is none.
process_identity() {
  first_line "/proc/$1/stat" 2>/dev/null
  [ -n "$REPLY" ] || return 1
  _stat=${REPLY##*) } # the command's name, in parentheses, may hold anything
  case $_stat in [ZX]*) return 1 ;; esac
  first_line /proc/sys/kernel/random/boot_id
  _pid=$1
  # shellcheck disable=SC2086 # split: fields 3 and on of proc(5); the start time is number 22
  set -- $_stat
  shift 19
  REPLY="$REPLY $_pid $1"
}
