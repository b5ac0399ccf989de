# shellcheck shell=sh disable=SC2154 # what runner.sh and opening.sh know
# Who waits for the project's lock comes to it in turn. A ticket is a file that its runner holds locked, so that the kernel knows who has gone; its name
# begins with when it was drawn. Sourced by runner.sh.

nobody_waits() {
  for _ticket in queue/*; do
    [ ! -e "$_ticket" ] || return 1
  done
}

draw_ticket() {
  mkdir -p queue
  while :; do
    clock # no clock that somebody may set
    ticket=$(printf '%015d.%d' "$up_ms" $$)
    exec 7>"queue/$ticket"
    # Before it was locked somebody may have taken it for that of a departed.
    # shellcheck disable=SC3013 # dash and busybox have -ef
    if flock -n 7 && [ "queue/$ticket" -ef /proc/self/fd/7 ]; then return 0; fi
  done
}

leave_queue() {
  [ -z "$ticket" ] || rm -f "queue/$ticket"
  exec 7>&-
}

# What is open, and what is to be watched, in REPLY.
read_marks() {
  first_line open
  _mark=$REPLY
  first_line watching
  REPLY=$_mark/$REPLY
}

# At boot, where nobody in particular asks: somebody else came first, and has closed what we are here for.
closed_for_us() {
  [ "$mode" = recover ] && [ ! -e "$start/attach" ] || return 1
  read_marks
  [ "$REPLY" != "$marked" ]
}

# Our place in REPLY, 1 for the first. What the departed have left is taken away.
find_place() {
  REPLY=1
  for _ticket in queue/*; do
    [ "$_ticket" != "queue/$ticket" ] || return 0
    if [ ! -e "$_ticket" ] || flock -n "$_ticket" rm -f "$_ticket"; then continue; fi
    REPLY=$((REPLY + 1))
  done
}

# Takes the lock on 9 within our patience, after all who came before us. HOLDER-FILE
lock_in_turn() {
  if nobody_waits && flock -n 9; then return 0; fi
  draw_ticket
  _place=
  while clock && [ $((_patience - up_ms)) -gt 0 ]; do
    ask_watch
    find_place
    if [ "$REPLY" != "$_place" ] && [ "$wait" != 0 ]; then wake "$start/wake" "queued $REPLY $1"; fi
    _place=$REPLY
    seconds_left
    if [ "$_place" != 1 ]; then
      sleep "$REPLY"
    elif flock -w "$REPLY" 9; then
      leave_queue
      return 0
    fi
    if client_gone; then
      leave_queue
      exit 75
    fi
    if closed_for_us; then
      leave_queue
      verdict recovered
      exit 0
    fi
  done
  leave_queue
  refuse "$1"
}
