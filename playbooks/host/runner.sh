#!/bin/sh
# shellcheck disable=SC2016 # awk's fields
# shellcheck disable=SC2015 # `A && B || C`: C is an exit, a return or a default throughout, and B can't fail where it matters
# The runner: one process per deployment, outside of any session. docs/runner.md is its format, docs/reliability.md its promise.
#   runner.sh open PROJECT NONCE LEASE WAIT     closes what is open, then opens a deployment and runs it; or, where the request says so, abandons one
#   runner.sh recover PROJECT NONCE WAIT        closes what is open, nothing else; but it goes on with a watch whose process is gone
# It holds the lock on descriptor 9 (8: the one above the projects), inherited by its steps; its inbox is on 3.
# It may be killed at any line: whoever comes next reads the journal and closes the deployment.
set -eu
ORCH_BUNDLE=${0%/*}
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/journal.sh
. "$ORCH_BUNDLE/journal.sh"
# shellcheck source=playbooks/host/queue.sh
. "$ORCH_BUNDLE/queue.sh"
# shellcheck source=playbooks/host/opening.sh
. "$ORCH_BUNDLE/opening.sh"
# shellcheck source=playbooks/host/undoing.sh
. "$ORCH_BUNDLE/undoing.sh"
# shellcheck source=playbooks/host/closing.sh
. "$ORCH_BUNDLE/closing.sh"
# shellcheck source=playbooks/host/recovery.sh
. "$ORCH_BUNDLE/recovery.sh"
# shellcheck source=playbooks/host/watch.sh
. "$ORCH_BUNDLE/watch.sh"
# shellcheck source=playbooks/host/boot-units.sh
. "$ORCH_BUNDLE/boot-units.sh"
mode=$1
project_paths "$2"
start=$ORCH_STATE/start/$3
opener=$3
lease=0
wait=$4
[ "$mode" = recover ] || { lease=$4 wait=$5; }
mkdir -p "$start"
exec </dev/null >>"$start/output" 2>&1
cd "$ORCH_STATE"

own_bundle=$ORCH_BUNDLE
ticker=
step=
wrapper=
queue=
ticket=
started=
last=00
idle=0
committed=0
changed=0
journalled=1
torn=
recovery=false
cause=
abandoned_by=
# The deployment whose release was watched, and is gone back from; the line that says why.
watched=
breached=
asked_watch=

# ---- answers to whoever started us

# Is whoever asked for this start gone, and has had no answer? Nobody in particular asks at boot.
client_gone() {
  [ -e "$start/attach" ] && [ ! -e "$start/verdict" ] || return 1
  first_line "$start/attach"
  ! process_alive "$REPLY"
}

# attach may start us before it has our request, and writes a line once it is there. Its pipe ends with it, or with its interest in us; whoever opens
# it after that would wait for ever.
await_request() {
  while [ ! -s "$start/request" ]; do
    [ -p "$start/go" ] && ! client_gone || exit 75
    timeout 2 head -n 1 "$start/go" >/dev/null || :
  done
}

# FILE: the opener's JSON in request, on one line. No fork.
read_request() {
  request=
  while IFS= read -r _line || [ -n "$_line" ]; do request=$request$_line; done <"$1"
}

# TEXT: what became of the start; wakes attach.
verdict() {
  printf '%s\n' "$1" >"$start/verdict.new"
  mv "$start/verdict.new" "$start/verdict"
  wake "$start/wake" verdict
}

# FIFO LINE: opened for reading too, since that never blocks; without a reader the line is lost, and nobody misses it.
wake() {
  [ ! -p "$1" ] || printf '%s\n' "$2" 1<>"$1"
}

# HOLDER-FILE: somebody else has the lock.
refuse() {
  first_line "$1"
  verdict "locked ${REPLY:-{\}}"
  exit 75
}

# CODE TEXT: nothing was opened. A watch that can't go back yet is taken up again.
fail_start() {
  [ -z "$watched" ] || {
    say "$2" >>"$ORCH_STATE/deployments/$watched/log"
    exit 1
  }
  verdict "error $1 $2"
  exit 75
}

# ---- steps

# Takes over the directories that attach has put here, in order.
accept_steps() {
  _names=
  for _directory in [0-9][0-9]-*/; do
    _directory=${_directory%/}
    [ -d "$_directory" ] && [ "${_directory%%-*}" -gt "$last" ] || continue
    last=${_directory%%-*}
    queue="$queue $_directory"
    _names="$_names,\"$_directory\""
  done
  [ -z "$_names" ] || record accepted "\"steps\":[${_names#,}]"
}

# STEP: starts it. Its end comes as a line in the inbox.
start_step() {
  load_meta "$1"
  journalled=1
  record started "\"step\":\"$1\"" || {
    # Behind the commit nothing fails the deployment; what frees space comes there.
    [ $committed = 1 ] || undo step-failed 'The journal cannot be written: the disk is full.'
    journalled=0
  }
  step=$1
  started="$1 $started"
  began=$up_ms
  [ "$CHANGES" = 0 ] || changed=1
  wrapper=
  case $SIDE in
    client)
      echo "$1" >waiting
      event_line waiting "\"step\":\"$1\""
      tell
      ;;
    commit)
      if commit; then
        run_apply "$1"
      else
        step_ended 1
      fi
      ;;
    *) run_apply "$1" ;;
  esac
}

# STEP: runs apply.sh in the background, in a process group of its own (timeout makes it), without our inbox.
run_apply() {
  if [ ! -e "$1/apply.sh" ]; then
    step_ended 0
    return
  fi
  (
    exec 3>&- 4>&-
    cd "$1"
    ORCH_STEP=$ORCH_DEPLOYMENT/$1
    export ORCH_STEP
    timeout -k 10 "$TIMEOUT" sh ./apply.sh >>../log 2>&1 </dev/null &
    echo $! >pid
    _status=0
    wait $! || _status=$?
    echo "$_status" >status
    wake ../inbox "ended $1"
  ) &
  wrapper=$!
}

# [STATUS]: the running step has ended; without a status its file `status` holds it.
step_ended() {
  _status=${1-}
  if [ -z "$_status" ]; then
    first_line "$step/status"
    _status=${REPLY:-255}
    [ -z "$wrapper" ] || wait "$wrapper" || : # only reaps it
  fi
  clock
  _taken=$((up_ms - began))
  _signal=
  _timeout=false
  [ "$_status" -le 128 ] || [ "$_status" -ge 192 ] || _signal=$(kill -l $((_status - 128))) || _signal=$((_status - 128))
  case $_status in 124 | 137) [ $_taken -lt $((TIMEOUT * 1000)) ] || _timeout=true ;; esac
  _hundredths=$((_taken / 10 % 100 + 100))
  _ended=$step
  step=
  [ -n "$wrapper" ] || rm -f waiting
  [ -z "$_signal" ] && _quoted=null || _quoted="\"$_signal\""
  # Without the line the step counts as begun, which leads to the same undo.
  [ $journalled = 0 ] ||
    record ended "\"step\":\"$_ended\",\"status\":$_status,\"signal\":$_quoted,\"timeout\":$_timeout,\"seconds\":$((_taken / 1000)).${_hundredths#1}" late || :
  [ "$_status" = 0 ] || [ $committed = 1 ] || {
    _text="The step ${_ended#*-} failed with status $_status."
    [ -z "$_signal" ] || _text="The step ${_ended#*-} was killed by SIG$_signal."
    [ $_timeout = false ] || _text="The step ${_ended#*-} took longer than $TIMEOUT s."
    undo step-failed "$_text"
  }
}

# Once a second, for the running step: a wrapper that died took its status with it. What only the client can do ends with the client.
check_step() {
  clock
  if [ -z "$wrapper" ]; then
    if [ $((up_ms - began)) -ge $((TIMEOUT * 1000)) ]; then
      step_ended 124
    elif [ $committed = 0 ] && lease_over; then
      undo lease "No sign of the client for more than $lease s."
    fi
  elif ! process_identity "$wrapper"; then
    if [ -s "$step/status" ]; then
      step_ended
    else
      _status=0
      wait "$wrapper" || _status=$?
      first_line "$step/pid"
      # what it watched over has a process group of its own
      [ -z "$REPLY" ] || kill -KILL "-$REPLY" 2>/dev/null || : # it may be gone as well
      [ "$_status" != 0 ] || _status=255
      step_ended "$_status"
    fi
  fi
}

# The commit point is the rename of `current`. Only after the last fsync is anybody told.
commit() {
  [ -d "$ORCH_RELEASE" ] || {
    say "There is no release $N to commit." >>log
    return 1
  }
  record committing "\"release\":$N" || return 1
  ln -sfn "releases/$N" "$ORCH_OPT/.current.new" || return 1
  sync "$ORCH_OPT/releases" "$ORCH_OPT" || return 1
  mv -fT "$ORCH_OPT/.current.new" "$ORCH_OPT/current" || return 1
  committed=1
  # From here on nothing can fail it: current decides, and recovery writes what is missing.
  sync "$ORCH_OPT"
  record committed "\"release\":$N" || tell
}

# Whether the client has been silent for longer than the lease. A beat says for which deployment it is: a late one for another may be written behind our
# opening, and over a beat of ours. An older client doesn't say.
lease_over() {
  [ ! -e detached ] || return 1
  clock
  _boot='' _beat='' _of=''
  [ ! -r ../../heartbeat ] || read -r _boot _beat _of <../../heartbeat || :
  case ${_of:-$N}.$_beat in
    "$N".[0-9]*.[0-9][0-9])
      first_line /proc/sys/kernel/random/boot_id
      _beat=$((${_beat%.*} * 1000 + 1${_beat#*.} * 10 - 1000))
      [ "$_boot" != "$REPLY" ] || [ $_beat -lt $heard_at ] || heard_at=$_beat
      ;;
  esac
  [ $((up_ms - heard_at)) -gt $((lease * 1000)) ]
}

# Whenever no step runs: what comes next.
advance() {
  while [ -z "$step" ]; do
    if [ $committed = 0 ]; then
      if [ -e abort ]; then
        first_line abort
        undo aborted "$REPLY"
      elif lease_over; then
        undo lease "No sign of the client for more than $lease s."
      fi
    fi
    queue=${queue# }
    if [ -n "$queue" ]; then
      idle=0
      _next=${queue%% *}
      queue=${queue#"$_next"}
      start_step "$_next"
    elif [ -e sealed ]; then
      # The line that announces the last steps may still be in the inbox, behind a tick.
      accept_steps
      [ -n "$queue" ] || finish
    elif [ $committed = 1 ] && lease_over; then
      finish
    else
      [ $idle = 1 ] || {
        event_line waiting '"step":null'
        tell
      }
      idle=1
      return 0
    fi
  done
}

# All steps are done. Without a commit among them, changes stay (a playbook that is no deploy), and what was only staged goes.
finish() {
  if [ $committed = 1 ] || [ $changed = 1 ]; then
    leave committed null
  fi
  undo no-commit 'There was nothing to commit.'
}

# From the first step to the end of the deployment, and of this process. The ticker was started before anybody was told of the deployment: a line into an inbox
# that nobody has open is lost.
run_deployment() {
  advance
  while read -r message _argument <&3; do
    case $message in
      ended) [ "$_argument" != "$step" ] || step_ended ;;
      steps) accept_steps ;;
      tick) if [ -n "$step" ]; then check_step; else accept_steps; fi ;;
    esac
    advance
  done
}

# ---- main

mkdir -p deployments "$ORCH_OPT/releases"
# Started again by systemd: the deployment that was granted is closed by now, and never continued.
[ ! -e "$start/verdict" ] || mode=recover
[ "$mode" = recover ] || await_request
request=
[ ! -e "$start/request" ] || read_request "$start/request"
# Whether it is for another release: a watch makes way for that.
supersedes=0
[ "$mode" = recover ] || case $request in
  *'"command":"deploy"'* | *'"command":"rollback"'* | *'"command":"rotate"'* | *'"command":"restore"'*) supersedes=1 ;;
  *'"command":"'*) ;;
  *) supersedes=1 ;;
esac
read_marks
marked=$REPLY
take_lock
# Whoever opens with it lets the undo of what is still open go back over what the new version has written.
ORCH_ACCEPT_DATA_LOSS=0
case $request in *'"accept_data_loss":true'*) ORCH_ACCEPT_DATA_LOSS=1 ;; esac
export ORCH_ACCEPT_DATA_LOSS
# A deployment that isn't to be tried again.
abandoned=
case $request in
  *'"abandon":'[1-9]*)
    abandoned=${request##*'"abandon":'}
    abandoned=${abandoned%%[!0-9]*}
    check_identity
    ;;
esac
recovered=
# A runner that was killed may have written `closed` and not have fsynced it: what we build upon must not get lost any more.
first_line open
[ ! -e "deployments/$REPLY/journal.jsonl" ] || sync -d "deployments/$REPLY/journal.jsonl"
for _open in $(open_numbers); do
  if [ "$_open" = "$abandoned" ] && is_stuck "$_open"; then
    abandon "$_open"
    continue
  fi
  recover "$_open"
  [ $outcome != stuck ] || [ "$mode" = recover ] || {
    rm -f runner.pid
    fail_start stuck "Deployment $_open could not be undone: see its log. A person must look."
  }
done
set -- holder open
for _left in deployments/*/inbox deployments/*/waiting; do
  [ -e "$_left" ] || continue
  _left_of=${_left#deployments/}
  watch_is_away "${_left_of%/*}" || set -- "$@" "$_left"
done
rm -f "$@"
# Nobody is left who would use the deployment.
! client_gone || {
  rm -f runner.pid
  exit 75
}
[ -z "$abandoned" ] || grep -qs '^{"event":"closed",.*"outcome":"abandoned".*}$' "deployments/$abandoned/journal.jsonl" || {
  rm -f runner.pid
  fail_start abandon "Deployment $abandoned is not stuck: there is nothing to abandon.${recovered:+ What was open is closed now: $recovered.}"
}
# So late that attach has given it up.
[ "$mode" = open ] && [ -z "$abandoned" ] && [ ! -e "$start/verdict" ] || {
  keep_spare
  if [ -e watching ] && [ "$start" = "$ORCH_STATE/start/boot" ]; then
    watch_later || :
  elif [ -e watching ]; then
    verdict "recovered
$recovered"
    take_up_watch
  fi
  rm -f runner.pid
  verdict "recovered
$recovered"
  exit 0
}

comma=,
[ "$request" != '{}' ] || comma=
check_identity
check_current
previous=$REPLY
# What frees space finds none.
case $request in *'"command":"prune"'*) ;; *) allocate_reserve ;; esac
started=
changed=0
[ $supersedes = 0 ] || supersede_watch
new_deployment
start_ticker
# shellcheck disable=SC3013 # dash and busybox have -ef
[ "$ORCH_STATE/bundle" -ef "$own_bundle" ] || ln -sfn "../bundle/${own_bundle##*/}" "$ORCH_STATE/bundle"
verdict "granted $N ${ORCH_PREVIOUS:-0}${recovered:+
$recovered}${asked_watch:+
$asked_watch watch}"
run_deployment
