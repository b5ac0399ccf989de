# shellcheck shell=sh
# The lock above all projects' locks, taken by somebody who isn't a deployment: exclusively, as long as the descriptor 5 is open. Runners
# hold it shared. Stands alone: it is also installed on the host, for upgrade.sh.

host_base=/var/lib/orchestrate

# PROGRAM…: runs it as whoever owns the host's directory. What lies there must stay his: the runner has no more rights than he.
as_owner() {
  setpriv --reuid="$(stat -c %u "$host_base")" --regid="$(stat -c %g "$host_base")" --clear-groups "$@"
}

# SECONDS JSON: takes it, with that patience (`forever` for none). JSON, one line, tells a deployment that comes now who has it. Fails if it
# is held by somebody else. Where nobody has deployed yet there is nothing to wait for.
lock_host() {
  [ -d "$host_base" ] || return 0
  # shellcheck disable=SC2016 # the inner shell's
  [ -e "$host_base/lock" ] || as_owner sh -c 'umask 077; : >>"$1"' sh "$host_base/lock"
  if [ -L "$host_base/lock" ] || [ ! -f "$host_base/lock" ]; then
    echo "$host_base/lock is not a file: remove it." >&2
    return 1
  fi
  exec 5<"$host_base/lock"
  if [ "$1" = forever ]; then
    flock -x 5
  else
    flock -x -w "$1" 5 || {
      exec 5<&-
      return 1
    }
  fi
  # Only a text: without it the lock holds as well.
  # shellcheck disable=SC2016 # the inner shell's
  printf '%s\n' "$2" | as_owner sh -c 'umask 077; rm -f "$1.new"; cat >"$1.new" && mv -f "$1.new" "$1"' sh "$host_base/holder" 5<&- ||
    echo "Nobody will be told who has $host_base/lock: $host_base/holder can't be written." >&2
}

unlock_host() {
  [ ! -d "$host_base" ] || rm -f "$host_base/holder"
  exec 5<&-
}

# MEMBER: its text in the JSON object _json, in REPLY.
json_member() {
  case $_json in
    *"\"$1\":\""*)
      REPLY=${_json#*"\"$1\":\""}
      REPLY=${REPLY%%\"*}
      ;;
    *) REPLY= ;;
  esac
}

# FILE: what a holder's JSON says, as a sentence.
holder_sentence() {
  read -r _json <"$1" || : # a line without its newline counts
  json_member who
  _sentence=${REPLY:-somebody}
  json_member command
  _sentence="$_sentence${REPLY:+, $REPLY}"
  json_member version
  _sentence="$_sentence${REPLY:+ $REPLY}"
  json_member reason
  _sentence="$_sentence${REPLY:+ ($REPLY)}"
  json_member since
  printf '%s\n' "$_sentence${REPLY:+, since $REPLY}"
}

# Who holds the host's lock: a line each, "PROJECT: ada@laptop, deploy v1.2, since …".
host_holders() {
  for _project in "$host_base"/*/; do
    _project=${_project%/}
    if [ ! -s "$_project/holder" ] || [ ! -f "$_project/lock" ]; then continue; fi
    # A runner holds its project's lock exclusively; a holder without one is what a killed runner left.
    ! flock -s -n "$_project/lock" true 2>/dev/null || continue
    printf '%s: %s\n' "${_project##*/}" "$(holder_sentence "$_project/holder")"
  done
  [ ! -s "$host_base/holder" ] || holder_sentence "$host_base/holder"
}
