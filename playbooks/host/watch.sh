# shellcheck shell=sh disable=SC2015,SC2016,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# The watch over a release that has been committed: its runner stays, with the lock, looks (look.sh), and on a breach goes back by the steps that were shipped
# before the commit (deployments/N/watch). The file `watching` names N for as long as that isn't settled: whoever finds it without a watch takes it up. Sourced by
# runner.sh.

watch_failures=3 # looks in a row in which a gate gets no good answer

# OUTCOME: before the journal is closed, so that no crash loses the watch. Sets watch_seconds, empty: there is none.
mark_watch() {
  watch_seconds=
  [ "$1" = committed ] && [ -e watch/params ] || return 0
  current_release
  [ "$REPLY" = "$N" ] || return 0
  load_watch
  { echo "$N" >"$ORCH_STATE/watching" && sync "$ORCH_STATE/watching" "$ORCH_STATE"; } || watch_seconds=
}

load_watch() {
  WATCH=0 VERSION=''
  # shellcheck source=/dev/null
  . ./watch/params
  watch_seconds=$WATCH
}

# What was shipped may hold secrets. The marker goes last.
forget_watch() {
  rm -rf "$ORCH_STATE/deployments/$1/watch" || rm -rf "$ORCH_STATE/deployments/$1/watch" || : # whatever a look that nobody stopped has written meanwhile
  rm -f "$ORCH_STATE/watching"
}

# EVENT MEMBERS: the watch goes on without a line that there is no room for.
note() { record "$1" "$2" || tell; }

# Begins the watch over the deployment that is loaded, and doesn't return. The lock above the projects is given back: bootstrap needn't wait for us.
watch() {
  load_watch
  recovery=false
  rm -f inbox
  mkfifo inbox || exit 1
  start_ticker
  looker=
  away=0
  exec 8>&-
  fallocate -l 16M "$ORCH_STATE/reserve" && fallocate -l 16M "$ORCH_OPT/.reserve" || : # for the way back
  watch_afresh
  while read -r message _argument <&3; do
    case $message in
      superseded)
        next_number
        end_watch superseded "\"by\":$_number"
        ;;
      aborted) end_watch aborted ;;
      # Whoever brings the containers back after a restart of Docker needs the lock, and gets it.
      yield) let_go 'the release is being started again' ;;
      looked) [ -z "$looker" ] || looked ;;
    esac
    # Another release has ended the watch meanwhile.
    [ "$away" = 0 ] || is_still_ours || leave_watch
    clock
    if [ "$up_ms" -ge "$watch_until" ]; then
      # Docker was stopped for good, say.
      [ "$away" = 0 ] || end_watch 'gave-up'
      # What is in doubt is settled first.
      [ "$bad" != 0 ] || end_watch over
    fi
    [ "$message" != tick ] || start_look
  done
}

watch_afresh() {
  clock
  watch_until=$((up_ms + watch_seconds * 1000))
  bad=0
  looks=0
  rm -f watch/baseline
  printf '{"who":"the watch over deployment %s","command":"watch","version":%s,"since":"%s","number":%s,"watching":%s,"seconds":%s,"until":%s,"until_up":%s}\n' \
    "$N" "$(json_string "$VERSION")" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$N" "$N" "$watch_seconds" "$((_epoch + watch_until))" "$watch_until" >"$ORCH_STATE/holder" || :
  note watching "\"release\":$N,\"seconds\":$watch_seconds"
  start_look
}

# One at a time, in the background: whoever asks us for the lock isn't kept waiting by a gate. Gates are asked every third time, and always while one is in doubt.
start_look() {
  if [ -n "$looker" ]; then
    # One that was killed says nothing; one that has just ended has said it, perhaps behind this tick.
    if process_identity "$looker"; then unheard=0; else unheard=$((unheard + 1)); fi
    [ "$unheard" -ge 3 ] || return 0
    stop_look
  fi
  unheard=0
  _gates=
  [ $((looks % 3)) != 0 ] && [ "$bad" = 0 ] || _gates=gates
  looks=$((looks + 1))
  (
    exec 3>&- 9>&-
    timeout -k 2 60 sh "$ORCH_BUNDLE/look.sh" "$N" watch $_gates >watch/look 2>/dev/null </dev/null 4>&- &
    echo $! >watch/looking
    _status=0
    wait $! || _status=$?
    echo "$_status${_gates:+ gates}" >watch/looked
    echo looked >&4
  ) &
  looker=$!
}

# Whole: what is left of it would go on writing here. It says who it is right after its start; `timeout` makes itself a process group, and then its child.
stop_look() {
  [ -n "$looker" ] || return 0
  while [ ! -s watch/looking ] && process_identity "$looker"; do sleep 0.02; done
  first_line watch/looking
  if [ -n "$REPLY" ]; then
    for _target in "$REPLY" "-$REPLY"; do kill -KILL "$_target" 2>/dev/null || :; done # gone already
  fi
  wait "$looker" 2>/dev/null || : # only reaps it
  looker=
  rm -f watch/looking watch/looked
}

looked() {
  wait "$looker" || : # only reaps it
  looker=
  first_line watch/looked
  _status=$REPLY
  first_line watch/look
  _seen=${REPLY:-the look came to no end}
  rm -f watch/looked watch/looking
  case $_status in
    [012] | [012]\ *)
      if [ "$away" = 1 ]; then
        # Docker is there: whoever starts the release's containers has half a minute for it.
        clock
        [ -n "$grace_until" ] || grace_until=$((up_ms + 30000))
        [ "${_status%% *}" != 0 ] && [ "$up_ms" -lt "$grace_until" ] || take_again
        rm -f watch/baseline
        return
      fi
      ;;
  esac
  case $_status in
    '0 gates') bad=0 ;;
    0) ;;
    1\ *)
      bad=$((bad + 1))
      say "watch: $_seen ($bad of $watch_failures)" >>log || :
      [ "$bad" -lt $watch_failures ] || breach "$_seen, $watch_failures times in a row"
      ;;
    2*) breach "$_seen" ;;
    *) let_go "$_seen" ;;
  esac
}

# WHY: what the release is can't be told now. Until it can, the lock is free for whoever brings it back; then the watch begins afresh.
let_go() {
  [ "$away" = 0 ] || return 0
  say "watch: $1; it begins afresh when that is over" >>log || :
  away=1
  grace_until=
  clock
  watch_until=$((up_ms + 600000))
  stop_look
  process_identity $$
  echo "$REPLY" >watch/away || : # a full disk
  rm -f watch/baseline "$ORCH_STATE/holder"
  flock -u 9
}

# The lock again, if nobody has it.
take_again() {
  flock -n 9 || return 0
  leave_if_settled
  process_identity $$
  echo "$REPLY" >"$ORCH_STATE/runner.pid"
  rm -f watch/away
  away=0
  watch_afresh
}

# Whoever had the lock in between may have settled the watch. Or have died at that, or have left something open: then we are a recovery, and no watch.
leave_if_settled() {
  is_still_ours || leave_watch
  last_of_watch
  case $REPLY in
    '' | watching) [ -e "$ORCH_STATE/open" ] || return 0 ;;
  esac
  stop_ticker
  rm -f inbox watch/away
  exec 3>&- 4>&-
  exec sh "$own_bundle/runner.sh" recover "$ORCH_PROJECT" "watch-$N" 60
}

is_still_ours() {
  first_line "$ORCH_STATE/watching"
  [ "$REPLY" = "$N" ]
}

# It is settled, and not by us.
leave_watch() {
  stop_look
  stop_ticker
  rm -f inbox
  exit 0
}

# What the journal of the deployment that is loaded says last of its watch, in REPLY; empty: nothing. Its process may have been killed before the fsync of a
# line that we build upon.
last_of_watch() {
  sync -d journal.jsonl
  REPLY=$(sed -n 's/^{"event":"\(watching\|breached\|watched\)",.*}$/\1/p' journal.jsonl | tail -n 1)
}

# REASON [MEMBERS]: the end of a watch that found nothing, and of this process.
end_watch() {
  stop_look
  stop_ticker
  if [ "$away" = 1 ]; then
    flock 9
    leave_if_settled
  fi
  note watched "\"reason\":\"$1\"${2:+,$2}"
  free_reserve
  forget_watch "$N"
  rm -f inbox "$ORCH_STATE/holder" "$ORCH_STATE/runner.pid"
  exit 0
}

# WHY: decided, and on the disk; nothing turns it back.
breach() {
  stop_look
  stop_ticker
  next_number
  event_line breached "\"text\":$(json_string "$1"),\"rollback\":$_number"
  breached=$line
  { mend_journal && printf '%s\n' "$line" >>journal.jsonl && sync -d journal.jsonl; } || torn=1
  go_back
}

# Opens the deployment that leads back, by what was shipped, and carries it out.
go_back() {
  watched=$N
  [ -n "$breached" ] || breached=$(grep '^{"event":"breached",.*}$' journal.jsonl | tail -n 1)
  cd "$ORCH_STATE"
  exec 8>>"$base/lock"
  flock -s -n 8 || {
    say 'Waiting for the end of whoever has the lock above the projects.' >>"deployments/$watched/log"
    flock -s 8
  }
  rm -f spare "deployments/$watched/inbox" # a full disk
  read_request "deployments/$watched/watch/request"
  _why=$(printf '%s\n' "$breached" | sed -n 's/^.*"text":\("\([^"\\]\|\\.\)*"\),.*$/\1/p')
  request="${request%\}},\"reason\":${_why:-null}}"
  comma=,
  request_member k
  opener=$REPLY
  previous=$watched
  own_bundle=$ORCH_BUNDLE # what was shipped was made for it
  ORCH_ACCEPT_DATA_LOSS=0
  lease=0 step='' wrapper='' queue='' started='' last=00 idle=0 committed=0 changed=0 journalled=1 torn='' recovery=false cause=''
  new_deployment "deployments/$watched/watch"
  start_ticker
  # Now that there is something to follow.
  printf '\n\001%s\n' "$breached" >>"../$watched/log" || :
  run_deployment
}

# N: has its watch only let go of the lock, so that it comes back? Sets _away to its process.
watch_is_away() {
  first_line "deployments/$1/watch/away"
  _away=$REPLY
  [ -n "$_away" ] && process_alive "$_away"
}

# Nobody watches any more: goes on with it (and doesn't return), or clears it away. Nothing is open, but what is stuck.
take_up_watch() {
  first_line watching
  _watching=$REPLY
  [ -e "deployments/$_watching/watch/params" ] || {
    rm -f watching
    return 0
  }
  if watch_is_away "$_watching"; then
    echo "$_away" >runner.pid
    exit 0
  fi
  rm -f "deployments/$_watching/watch/away"
  _stuck=$(open_numbers)
  load "$_watching"
  clock
  _epoch=$(($(now_ms) - up_ms))
  echo "$_key $_epoch" | write_atomically key || : # a full disk: the old clock will do
  cut_torn journal.jsonl
  first_line "$ORCH_STATE/sequence"
  _newest=$REPLY
  last_of_watch
  _last=$REPLY
  current_release
  # What is stuck is a person's: nothing is opened above it.
  if [ "$REPLY" = "$N" ] && [ -z "$_stuck" ]; then
    case $_last in
      '' | watching) watch ;;
      breached)
        [ "$_newest" != "$N" ] || go_back
        # A way back that broke off isn't one that failed; but one that takes the host along isn't tried for ever.
        [ $((_newest - N)) -ge 3 ] || ! grep -q '^{"event":"closed",.*"recovery":true}$' "../$_newest/journal.jsonl" || watch
        ;;
    esac
  fi
  case $_last in '' | watching) note watched "\"reason\":\"superseded\",\"by\":$_newest" ;; esac
  forget_watch "$N"
  cd "$ORCH_STATE"
}

# What a new release finds of a watch whose process is gone.
supersede_watch() {
  next_number
  _by=$_number
  first_line watching
  _gone=$REPLY
  [ -n "$_gone" ] || return 0
  if [ -e "deployments/$_gone/watch/params" ]; then
    load "$_gone"
    cut_torn journal.jsonl
    last_of_watch
    case $REPLY in '' | watching) note watched "\"reason\":\"superseded\",\"by\":$_by" ;; esac
    asked_watch=$N
  fi
  forget_watch "$_gone"
  cd "$ORCH_STATE"
}

# A watch makes way for another release. What leaves the release alone waits for its end instead, and is told of it.
ask_watch() {
  first_line holder
  case $REPLY in *'"watching":'[1-9]*) ;; *) return 0 ;; esac
  _watched=${REPLY##*'"watching":'}
  _watched=${_watched%%[!0-9]*}
  if [ "$supersedes" = 1 ]; then
    wake "deployments/$_watched/inbox" superseded
    asked_watch=$_watched
    _enough=$((up_ms + 10000))
  elif [ "$mode" = open ]; then
    _enough=${REPLY##*'"until_up":'}
    _enough=$((${_enough%%[!0-9]*} + 10000))
    [ "$wait" != 0 ] || wait=1 # it is told whom it waits for
  else
    return 0
  fi
  if [ "$_patience" -lt "$_enough" ]; then
    _patience=$_enough
    wake "$start/wake" patient
  fi
}

# At boot the release is started first (the app's unit, which waits for this recovery): its watch is a unit of its own behind that.
watch_later() {
  unit_names "$base"
  ORCH_BUNDLE=$(cd "$own_bundle" && pwd -P)
  clock
  unit_options="--no-block -p After=$app_unit@$ORCH_PROJECT.service"
  start_runner_unit "orchestrate-$ORCH_PROJECT-watch-$up_ms" recover "$ORCH_PROJECT" "watch-$up_ms" 60
}
