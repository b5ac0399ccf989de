# shellcheck shell=sh disable=SC2015,SC2016,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# The undo log backwards, and the health afterwards. Sourced by runner.sh.

# Until the engine answers; 120 s in all for one undo, then the undo scripts say what is wrong.
wait_for_docker() {
  command -v docker >/dev/null || return 0
  until timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; do
    clock
    [ "$up_ms" -lt "$docker_deadline" ] || return 0
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
  { printf '%s\n' "$line" >>journal.jsonl && sync -d journal.jsonl; } || torn=1 # goes on without it
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
  [ "$changed" = 0 ] || outcome=undone
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
    _status=0
    (
      exec 3>&- 4>&-
      ORCH_STEP=$ORCH_DEPLOYMENT/${_check%/*}
      export ORCH_STEP
      cd "${_check%/*}"
      exec timeout -k 10 60 sh ./check.sh >looks 2>>../log </dev/null
    ) || _status=$?
    # 1: it has looked at everything, and something is unwell. Any other end, as after its 60 s, says nothing of what it didn't come to.
    case $_status in
      0) healthy=true ;;
      1) ! unwell_as_before "${_check%/*}/looks" || healthy=before ;;
    esac
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
