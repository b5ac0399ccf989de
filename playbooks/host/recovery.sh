# shellcheck shell=sh disable=SC2015,SC2016,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# Deployments whose runner is gone: closed by whoever has the lock next. Sourced by runner.sh.

# NUMBER: takes up a deployment whose runner is gone. On a full disk everything here wants the reserve that it has left.
take_up() {
  free_reserve
  printf '{"who":"the host itself","command":"closing the interrupted deployment %s","number":%s,"recovering":true}\n' "$1" "$1" >holder || : # even without it
  load "$1"
  wake "$start/wake" "recovering $N"
  # The machine may have started anew since.
  clock
  _epoch=$(($(now_ms) - up_ms))
  echo "$_key $_epoch" | write_atomically key || : # a full disk: the old clock will do
  recovery=true
  cut_torn journal.jsonl
}

# NUMBER: closes what is_stuck as it is, because a person has settled it by hand and says so. Never in a condition: it needs set -e.
abandon() {
  take_up "$1"
  cause=$(sed -n 's/^{"event":"undoing",.*"reason":"\([a-z-]*\)".*/\1/p' journal.jsonl | head -n 1)
  abandoned_by=$request
  record abandoned "\"by\":$request"
  outcome=abandoned
  close_taken_up null
  abandoned_by=
}

# HEALTHY: the end of a deployment that was taken up.
close_taken_up() {
  close "$outcome" "$1"
  recovery=false
  cause=
  recovered="${recovered:+$recovered
}$N $outcome"
}

# NUMBER: closes a deployment whose runner is gone. `current` decides which way.
recover() {
  take_up "$1"
  # What was stuck has no marker any more: a restart of the machine in the middle would leave it to nobody.
  first_line "$ORCH_STATE/open"
  [ "$REPLY" = "$N" ] || { echo "$N" >"$ORCH_STATE/open" && sync "$ORCH_STATE/open" "$ORCH_STATE"; } || : # a full disk
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
  close_taken_up "$healthy"
}

# The commit had happened: what had been accepted and hasn't ended is done (again), and nothing of it can fail the deployment.
roll_forward() {
  committed=1
  # Its runner may have been killed between the rename and its fsync: nobody is to be told of a commit that a power loss could take back.
  sync "$ORCH_OPT"
  grep -q '^{"event":"committed"' journal.jsonl || record committed "\"release\":$N" || :
  _ended=" $(journal_steps ended | tr '\n' ' ')"
  for _step in [0-9][0-9]-*/; do
    _step=${_step%/}
    case $_ended in *" $_step "*) continue ;; esac
    grep -q "^{\"event\":\"accepted\".*\"$_step\"" journal.jsonl || continue
    load_meta "$_step"
    [ "$SIDE" != client ] && [ -e "$_step/apply.sh" ] || continue
    journalled=1
    record started "\"step\":\"$_step\"" || journalled=0
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
