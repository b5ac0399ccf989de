#!/bin/sh
# shellcheck disable=SC2016 # awk's fields
# shellcheck disable=SC2015 # `A && B || C`: C is an exit, a return or a default throughout, and B can't fail where it matters
# The runner: one process per deployment, outside of any session. docs/runner.md is its format, docs/reliability.md its promise.
#   runner.sh open PROJECT NONCE LEASE WAIT     closes what is open, then opens a deployment and runs it; or, where the request says so, abandons one
#   runner.sh recover PROJECT NONCE WAIT        closes what is open, nothing else
# It holds the lock on descriptor 9 (8: the one above the projects), inherited by its steps; its inbox is on 3.
# It may be killed at any line: whoever comes next reads the journal and closes the deployment.
set -eu
ORCH_BUNDLE=${0%/*}
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
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
started=
last=00
idle=0
committed=0
changed=0
recovery=false
cause=
abandoned_by=

# ---- answers to whoever started us

# Is whoever asked for this start gone, and has had no answer? Nobody in particular asks at boot.
client_gone() {
  [ -e "$start/attach" ] && [ ! -e "$start/verdict" ] || return 1
  first_line "$start/attach"
  ! process_alive "$REPLY"
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

# CODE TEXT: nothing was opened.
fail_start() {
  verdict "error $1 $2"
  exit 75
}

# ---- journal and log

# EVENT MEMBERS [late]: into the journal, fsynced (`late`: by the next event's fsync), and only then told.
record() {
  event_line "$1" "$2"
  printf '%s\n' "$line" >>journal.jsonl || return 1
  [ "${3-}" = late ] || sync -d journal.jsonl || return 1
  tell
}

# A full disk must not stop an undo: the log goes without the line.
tell() { printf '\n\001%s\n' "$line" >>log || :; }

# FILE: cuts the end of it after a crash or a full disk: a last line without its newline, or not whole, was never written.
cut_torn() {
  [ -s "$1" ] || return 0
  _last=$(tail -n 1 "$1" && echo .) # the dot keeps the newline
  case $_last in
    "{"*"}
.") ;;
    *)
      write_atomically "$1" sed '$d' "$1"
      cut_torn "$1"
      ;;
  esac
}

# EVENT: the steps of its lines in the journal, in order.
journal_steps() { sed -n "s/^{\"event\":\"$1\",.*\"step\":\"\\([^\"]*\\)\".*/\\1/p" journal.jsonl; }

# Numbers of the deployments that nobody closed, or whose undo got stuck; newest first.
open_numbers() {
  for _journal in deployments/[1-9]*/journal.jsonl; do
    [ ! -e "$_journal" ] || echo "$_journal"
  done | xargs -r awk '
    FNR == 1 { files[++n] = FILENAME; state[n] = "open" }
    /^{"event":"closed",/ { state[n] = /"outcome":"stuck"/ ? "stuck" : "closed" }
    END { for (i = 1; i <= n; i++) if (state[i] != "closed") { split(files[i], part, "/"); print part[2] } }
  ' | sort -rn
}

# NUMBER: makes it the deployment that this process works on.
load() {
  N=$1
  ORCH_N=$1
  ORCH_DEPLOYMENT=$ORCH_STATE/deployments/$1
  ORCH_RELEASE=$ORCH_OPT/releases/$1
  first_line "$ORCH_DEPLOYMENT/previous"
  ORCH_PREVIOUS=$REPLY
  first_line "$ORCH_DEPLOYMENT/bundle"
  ORCH_BUNDLE=$base/bundle/$REPLY
  [ -d "$ORCH_BUNDLE" ] || ORCH_BUNDLE=$own_bundle
  first_line "$ORCH_DEPLOYMENT/key"
  _key=${REPLY%% *}
  _epoch=${REPLY#* }
  export ORCH_BUNDLE ORCH_PROJECT ORCH_N ORCH_STATE ORCH_OPT ORCH_DEPLOYMENT ORCH_PREVIOUS ORCH_RELEASE
  cd "$ORCH_DEPLOYMENT"
}

# Number of the release that `current` names, or empty.
current_release() {
  REPLY=
  [ ! -L "$ORCH_OPT/current" ] || REPLY=$(readlink "$ORCH_OPT/current")
  REPLY=${REPLY##*/}
}

# STEP: its meta, over the defaults.
load_meta() {
  KIND='' NAME='' TIMEOUT=60 UNDO_TIMEOUT='' SIDE=host CHANGES=0 UNDO=0 AFTER=0 SECRETS=''
  # shellcheck source=/dev/null
  . "./$1/meta"
  : "$KIND $NAME $UNDO $AFTER" # for the client and for attach
}

# ---- opening

# DESCRIPTOR HOLDER-FILE [-s]: its lock, within our patience. Once a second it is asked whether anybody still waits for us: a queue of the
# departed would hold up who comes after them.
lock() {
  ! flock ${3:+"$3"} -n "$1" || return 0
  [ "$wait" = 0 ] || wake "$start/wake" "queued $2"
  while clock && [ $((_patience - up_ms)) -gt 0 ]; do
    _rest=$((_patience - up_ms < 1000 ? _patience - up_ms + 1000 : 2000)) # 1000 more, for the leading zeros
    ! flock ${3:+"$3"} -w "$((_rest / 1000 - 1)).${_rest#?}" "$1" || return 0
    ! client_gone || exit 75
  done
  refuse "$2"
}

take_lock() {
  clock
  _patience=$((up_ms + wait * 1000))
  [ "$wait" -gt 0 ] || _patience=$((up_ms + 500)) # the one before us may be on its last line
  # Whoever closes an interrupted deployment is soon done, and nobody's rival.
  if grep -qs '"recovering":true' holder && [ "$wait" -lt 120 ]; then
    _patience=$((up_ms + 120000))
    wake "$start/wake" recovering
  fi
  exec 8>>"$base/lock" 9>>lock
  lock 8 "$base/holder" -s
  lock 9 "$ORCH_STATE/holder"
  process_identity $$
  echo "$REPLY" >runner.pid
  wake "$start/wake" running
}

# MEMBER: its string in the opener's JSON, in REPLY.
request_member() {
  case $request in
    *"\"$1\":\""*)
      REPLY=${request##*"\"$1\":\""}
      REPLY=${REPLY%%\"*}
      ;;
    *) REPLY= ;;
  esac
}

# A project belongs to one environment of one application.
check_identity() {
  request_member environment
  _identity=$REPLY
  request_member app
  _identity="$_identity $REPLY"
  if [ -s identity ]; then
    first_line identity
    [ "$REPLY" = "$_identity" ] || fail_start identity \
      "The project $ORCH_PROJECT on this host belongs to \"$REPLY\" (environment, application), not to \"$_identity\"."
  else
    echo "$_identity" | write_atomically identity
  fi
}

# 16 MiB each that the undo gives back first, so that a full disk can't keep it from working.
allocate_reserve() {
  for _reserve in "$ORCH_STATE/reserve" "$ORCH_OPT/.reserve"; do
    fallocate -l 16M "$_reserve" || dd if=/dev/zero of="$_reserve" bs=1M count=16 2>/dev/null || {
      free_reserve
      fail_start space "Less than 16 MiB are left for ${_reserve%/*}: nothing was changed."
    }
  done
}

free_reserve() { rm -f "$ORCH_STATE/reserve" "$ORCH_OPT/.reserve"; }

# The directory appears at once, with its first event in it.
new_deployment() {
  first_line sequence
  _number=$((${REPLY:-0} + 1))
  for _directory in deployments/[1-9]*; do
    [ ! -d "$_directory" ] || [ "${_directory#*/}" -lt "$_number" ] || _number=$((${_directory#*/} + 1))
  done
  rm -rf deployments/.new
  mkdir -p deployments/.new
  current_release
  _previous=$REPLY
  clock
  _epoch=$(($(now_ms) - up_ms))
  _key=$opener
  (
    cd deployments/.new
    echo "$_previous" >previous
    echo "${own_bundle##*/}" >bundle
    echo "$_key $_epoch" >key
    printf '%s\n' "${request%\}}$comma\"number\":$_number,\"opened\":$((_epoch + up_ms))}" >holder.json
    mkfifo inbox
    : >log
    record opened "\"number\":$_number,\"previous\":${_previous:-null}" late
    echo "$_number" >../../sequence.new
    printf '%s\0' journal.jsonl previous bundle key holder.json . ../../sequence.new | sync_all
  ) || fail_start space "The new deployment's journal cannot be written: nothing was changed."
  mv -T deployments/.new "deployments/$_number"
  mv sequence.new sequence
  echo "$_number" >open
  cp "deployments/$_number/holder.json" holder
  sync . deployments
  opened_at=$up_ms
  load "$_number"
}

# A child writes a line each second. It holds only the writing end: once the runner is gone, the next line ends it.
start_ticker() {
  exec 3<>inbox
  exec 4>inbox
  (
    exec 3>&- 8>&- 9>&-
    while sleep 1; do echo tick >&4 || exit 0; done
  ) &
  ticker=$!
}

stop_ticker() {
  [ -z "$ticker" ] || kill "$ticker" 2>/dev/null || : # gone already
  ticker=
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
  record started "\"step\":\"$1\"" || undo step-failed "The journal cannot be written: the disk is full."
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
  record ended "\"step\":\"$_ended\",\"status\":$_status,\"signal\":$_quoted,\"timeout\":$_timeout,\"seconds\":$((_taken / 1000)).${_hundredths#1}" late || :
  [ "$_status" = 0 ] || [ $committed = 1 ] || {
    _text="The step ${_ended#*-} failed with status $_status."
    [ -z "$_signal" ] || _text="The step ${_ended#*-} was killed by SIG$_signal."
    [ $_timeout = false ] || _text="The step ${_ended#*-} took longer than $TIMEOUT s."
    undo step-failed "$_text"
  }
}

# Once a second, for the running step: a wrapper that died took its status with it.
check_step() {
  clock
  if [ -z "$wrapper" ]; then
    [ $((up_ms - began)) -lt $((TIMEOUT * 1000)) ] || step_ended 124
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

# Whether the client has been silent for longer than the lease.
lease_over() {
  [ ! -e detached ] || return 1
  clock
  _since=$opened_at
  first_line ../../heartbeat
  _beat=${REPLY#* }
  case $_beat in
    [0-9]*.[0-9][0-9])
      first_line /proc/sys/kernel/random/boot_id
      read -r _boot _beat <../../heartbeat
      _beat=$((${_beat%.*} * 1000 + 1${_beat#*.} * 10 - 1000))
      [ "$_boot" != "$REPLY" ] || [ $_beat -lt $_since ] || _since=$_beat
      ;;
  esac
  [ $((up_ms - _since)) -gt $((lease * 1000)) ]
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

# ---- undo

# Until the engine answers; 120 s in all for one undo, then the undo scripts say what is wrong.
wait_for_docker() {
  command -v docker >/dev/null || return 0
  until timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; do
    clock
    [ $up_ms -lt $docker_deadline ] || return 0
    say 'Waiting for the Docker engine.' >>log || : # a full disk
    sleep 1
  done
}

# One-off containers outlive whoever started them: those of this deployment and of older ones go first.
remove_containers() {
  command -v docker >/dev/null || return 0
  list_containers || {
    wait_for_docker
    list_containers || return 0
  }
  while read -r _id _number; do
    case $_number in '' | *[!0-9]*) continue ;; esac
    [ "$_number" -gt "$N" ] || timeout 60 docker rm -f "$_id" >>log 2>&1 </dev/null || : # gone by itself
  done <containers
  rm -f containers
}

list_containers() {
  timeout 20 docker ps -a --filter "label=orchestrate.project=$ORCH_PROJECT" --filter label=orchestrate.deployment \
    --format '{{.ID}} {{.Label "orchestrate.deployment"}}' >containers 2>/dev/null </dev/null
}

# STEP: its undo.sh, three times at most.
undo_step() {
  load_meta "$1"
  [ -n "$UNDO_TIMEOUT" ] || UNDO_TIMEOUT=$((TIMEOUT > 120 ? TIMEOUT : 120))
  _attempts=0
  while :; do
    _attempts=$((_attempts + 1))
    _status=0
    (
      exec 3>&- 4>&-
      cd "$1"
      ORCH_STEP=$ORCH_DEPLOYMENT/$1
      export ORCH_STEP
      exec timeout -k 10 "$UNDO_TIMEOUT" sh ./undo.sh >>../log 2>&1 </dev/null
    ) || _status=$?
    [ "$_status" != 0 ] && [ $_attempts -lt 3 ] || break
    wait_for_docker
    sleep 1
  done
  record undone "\"step\":\"$1\",\"status\":$_status,\"attempts\":$_attempts" || : # a full disk: undone again later, which is harmless
  return "$_status"
}

# Runs the undo log backwards: every step that has started, and wasn't undone before a crash. Sets outcome and healthy.
undo_all() {
  free_reserve
  cut_torn journal.jsonl
  event_line undoing "\"reason\":\"$1\",\"text\":$(json_string "$2")"
  { printf '%s\n' "$line" >>journal.jsonl && sync -d journal.jsonl; } || : # goes on without it
  tell
  cause=$1
  docker_deadline=$((up_ms + 120000))
  kill_leftovers # of a step that was killed; they would write on beside the undo
  # Preflight only looks. Without Docker nothing comes behind it, and nobody should wait for Docker because of it.
  for _step in $started; do
    load_meta "$_step"
    [ "$KIND" != preflight ] || continue
    remove_containers
    break
  done
  _undone=" $(sed -n 's/^{"event":"undone",.*"step":"\([^"]*\)","status":0,.*/\1/p' journal.jsonl | tr '\n' ' ')"
  outcome=unchanged
  healthy=null
  [ $changed = 0 ] || outcome=undone
  for _step in $started; do
    case $_undone in *" $_step "*) continue ;; esac
    [ ! -e "$_step/undo.sh" ] || undo_step "$_step" || {
      outcome=stuck
      return 0
    }
  done
  [ $outcome = unchanged ] || check_health
}

# Is what runs after the undo well? Asked by the check.sh that a step has brought. What isn't may have been so before.
check_health() {
  for _check in [0-9][0-9]-*/check.sh; do
    [ -e "$_check" ] || continue
    healthy=false
    if (
      exec 3>&- 4>&-
      ORCH_STEP=$ORCH_DEPLOYMENT/${_check%/*}
      export ORCH_STEP
      cd "${_check%/*}"
      exec timeout -k 10 60 sh ./check.sh >looks 2>>../log </dev/null
    ); then healthy=true; elif unwell_as_before "${_check%/*}/looks"; then healthy=before; fi
    cat "${_check%/*}/looks" >>log || : # a full disk
  done
}

# FILE: whether whatever is unwell in it (lines of check.sh) was so before the deployment: preflight keeps those names in `baseline`.
unwell_as_before() {
  [ -s baseline ] && unwell_names "$1" >unwell && [ -s unwell ] || return 1
  ! grep -qvxFf baseline unwell
}

# REASON TEXT: the end of a deployment that must not be.
undo() {
  stop_ticker
  undo_all "$1" "$2"
  leave $outcome $healthy
}

# ---- closing

# {"<step name>":{facts}}, the last of each key.
facts_object() {
  for _facts in [0-9][0-9]-*/facts; do
    [ ! -s "$_facts" ] || echo "$_facts"
  done | xargs -r awk '
    FNR == 1 { step = FILENAME; sub(/^[0-9]+-/, "", step); sub(/\/facts$/, "", step); steps[++n] = step }
    /^"[^"]*":./ {
      end = index(substr($0, 2), "\""); key = substr($0, 1, end + 1)
      if (!((n, key) in value)) keys[n, ++count[n]] = key
      value[n, key] = $0
    }
    END {
      for (i = 1; i <= n; i++) {
        printf "%s\"%s\":{", (i > 1 ? "," : ""), steps[i]
        for (j = 1; j <= count[i]; j++) printf "%s%s", (j > 1 ? "," : ""), value[i, keys[i, j]]
        printf "}"
      }
    }'
}

# LINE: the history with it in the place of the line that N had.
replace_receipt() {
  grep -v "\"number\":$N,\"opened\":" "$_history" || [ $? = 1 ] || return 1
  printf '%s\n' "$1"
}

# LINE: the receipt of deployment N. One line per number: one that was stuck is replaced.
write_history() {
  _history=$ORCH_STATE/history.jsonl
  [ ! -e "$_history" ] || cut_torn "$_history"
  if [ -e "$_history" ] && grep -q "\"number\":$N,\"opened\":" "$_history"; then
    write_atomically "$_history" replace_receipt "$1"
  else
    printf '%s\n' "$1" >>"$_history" && sync "$_history"
  fi
}

# Whatever a step left in the background shares our lock. One who only waits for it has opened the file too, but its descriptor has no lock.
kill_leftovers() {
  for _link in $(exec find /proc/[0-9]*/fd -maxdepth 1 -lname "$ORCH_STATE/lock" 2>/dev/null 9>&-); do
    _pid=${_link#/proc/}
    _pid=${_pid%%/*}
    [ "$_pid" != $$ ] && grep -qs FLOCK "/proc/$_pid/fdinfo/${_link##*/}" || continue
    kill -KILL "$_pid" 2>/dev/null || : # gone in between
  done
}

# Files of the steps that held secrets for them: no undo wants them any more. Before the journal is closed, since nobody comes back afterwards.
forget_secrets() {
  set --
  for _step in [0-9][0-9]-*/; do
    [ -e "$_step/meta" ] || continue
    load_meta "${_step%/}"
    for _file in $SECRETS; do set -- "$@" "$_step$_file"; done
  done
  [ $# = 0 ] || rm -f -- "$@"
}

# OUTCOME HEALTHY: history, journal, tidying, and only then is anybody told. `before`: unhealthy, as it was before the deployment.
close() {
  stop_ticker
  free_reserve
  _health=$2
  [ "$2" != before ] || _health='false,"unhealthy_before":true'
  event_line closed "\"outcome\":\"$1\",\"healthy\":$_health,\"recovery\":$recovery"
  _closed=$line
  [ "$1" = stuck ] || forget_secrets
  first_line holder.json
  write_history "${REPLY%\}},\"previous\":${ORCH_PREVIOUS:-null},\"closed\":$((_epoch + up_ms)),\"outcome\":\"$1\",\"healthy\":$_health,\"cause\":\"$cause\"${abandoned_by:+,\"abandoned\":$abandoned_by},\"facts\":{$(facts_object)}}"
  printf '%s\n' "$_closed" >>journal.jsonl
  sync -d journal.jsonl
  kill_leftovers
  rm -f "$ORCH_STATE/open" "$ORCH_STATE/holder" waiting inbox
  line=$_closed
  tell
  cd "$ORCH_STATE"
  # What only the conversation about a start needed, after a day.
  find start -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {} +
}

# OUTCOME HEALTHY: the end of a live deployment, and of this process.
leave() {
  close "$1" "$2"
  rm -f runner.pid
  exit 0
}

# ---- recovery

# NUMBER: takes up a deployment whose runner is gone.
take_up() {
  load "$1"
  wake "$start/wake" "recovering $N"
  # The machine may have started anew since.
  clock
  _epoch=$(($(now_ms) - up_ms))
  echo "$_key $_epoch" >key || : # a full disk: the old clock will do
  recovery=true
  cut_torn journal.jsonl
}

# NUMBER: closes what nobody could undo as it is, because a person has settled it by hand and says so. Fails if it isn't stuck.
abandon() {
  take_up "$1"
  case $(grep '^{"event":"closed",' journal.jsonl | tail -n 1) in *'"outcome":"stuck"'*) ;; *) return 1 ;; esac
  cause=$(sed -n 's/^{"event":"undoing",.*"reason":"\([a-z-]*\)".*/\1/p' journal.jsonl | head -n 1)
  abandoned_by=$request
  record abandoned "\"by\":$request" || return 1
  outcome=abandoned
  close_taken_up null
  abandoned_by=
}

# HEALTHY: the end of a deployment that was taken up.
close_taken_up() {
  close $outcome "$1"
  recovery=false
  cause=
  recovered="${recovered:+$recovered
}$N $outcome"
}

# NUMBER: closes a deployment whose runner is gone. `current` decides which way.
recover() {
  take_up "$1"
  started=$(journal_steps started | sed -n '1!G;h;$p')
  changed=0
  for _step in $started; do
    load_meta "$_step"
    [ "$CHANGES" = 0 ] || changed=1
  done
  cause=recovery
  current_release
  if [ "$REPLY" = "$N" ]; then
    roll_forward
    outcome=committed
    healthy=null
  else
    undo_all recovery 'The runner of this deployment was gone before its end.'
  fi
  close_taken_up $healthy
}

# The commit had happened: what had been accepted and hasn't ended is done (again), and nothing of it can fail the deployment.
roll_forward() {
  committed=1
  grep -q '^{"event":"committed"' journal.jsonl || record committed "\"release\":$N" || :
  _ended=" $(journal_steps ended | tr '\n' ' ')"
  for _step in [0-9][0-9]-*/; do
    _step=${_step%/}
    case $_ended in *" $_step "*) continue ;; esac
    grep -q "^{\"event\":\"accepted\".*\"$_step\"" journal.jsonl || continue
    load_meta "$_step"
    [ "$SIDE" != client ] && [ -e "$_step/apply.sh" ] || continue
    record started "\"step\":\"$_step\"" || :
    began=$up_ms
    step=$_step
    wrapper=
    _status=0
    (
      cd "$_step"
      ORCH_STEP=$ORCH_DEPLOYMENT/$_step
      export ORCH_STEP
      exec timeout -k 10 "$TIMEOUT" sh ./apply.sh >>../log 2>&1 </dev/null
    ) || _status=$?
    step_ended "$_status"
  done
  committed=0
}

# ---- main

mkdir -p deployments "$ORCH_OPT/releases"
take_lock
request=
[ ! -e "$start/request" ] || request=$(tr -d '\n' <"$start/request")
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
for _open in $(open_numbers); do
  printf '{"who":"the host itself","command":"closing the interrupted deployment %s","number":%s,"recovering":true}\n' "$_open" "$_open" >holder
  [ "$_open" != "$abandoned" ] || ! abandon "$_open" || continue
  recover "$_open"
  [ $outcome != stuck ] || [ "$mode" = recover ] || {
    rm -f runner.pid
    fail_start stuck "Deployment $_open could not be undone: see its log. A person must look."
  }
done
rm -f open holder
# Nobody is left who would use the deployment.
! client_gone || {
  rm -f runner.pid
  exit 75
}
[ -z "$abandoned" ] || grep -qs '^{"event":"closed",.*"outcome":"abandoned"' "deployments/$abandoned/journal.jsonl" || {
  rm -f runner.pid
  fail_start abandon "Deployment $abandoned is not stuck: there is nothing to abandon.${recovered:+ What was open is closed now: $recovered.}"
}
# Started again by systemd: the deployment that was granted is closed by now, and never continued. Or so late that attach has given it up.
[ "$mode" = open ] && [ -z "$abandoned" ] && [ ! -e "$start/verdict" ] || {
  rm -f runner.pid
  verdict "recovered
$recovered"
  exit 0
}

comma=,
[ "$request" != '{}' ] || comma=
check_identity
allocate_reserve
started=
changed=0
new_deployment
start_ticker
ln -sfn "../bundle/${own_bundle##*/}" "$ORCH_STATE/bundle"
verdict "granted $N"
advance
while read -r message _argument <&3; do
  case $message in
    ended) [ "$_argument" != "$step" ] || step_ended ;;
    steps) accept_steps ;;
    tick) [ -z "$step" ] || check_step ;;
  esac
  advance
done
