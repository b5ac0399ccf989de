# The health gate. Sourced after lib.sh and containers.sh. A gate is described by these variables (a step's params, or a file below
# releases/N/gates, where each gate is kept that a release has passed):
#   SERVICE  PROBE (http, exec, container)  URL  COMMAND (quoted words)  STATUS (empty: 2xx)  EXPECT (lines: path TAB operator
#   TAB value, written as json.awk writes them)
#   WITHIN_MS  STABLE_MS  RESTARTS
# shellcheck shell=sh

# gate RELEASE MODE: asks until the service has answered well for STABLE_MS, or WITHIN_MS are over. MODE `look`: the first good
# answer is enough. Returns 0 or 1, and sets first_ok_ms (epoch), answers, last_answer, container, failure (why not, one line; failure_public: the same
# without what the application said, which may be a secret; failure_unmet: field TAB expected, where an expectation wasn't met).
gate() {
  gate_mode=$2
  gate_images=$ORCH_OPT/releases/$1/images.yml
  first_ok_ms='' answers=0 last_answer='' failure='' failure_public='' failure_unmet='' container=''
  gate_look_ms=$STABLE_MS
  [ "$gate_mode" = gate ] || gate_look_ms=0
  gate_place || {
    gate_fail "there is no space to judge an answer of $SERVICE"
    return 1
  }
  clock
  # shellcheck disable=SC2154 # set by clock
  gate_deadline=$((up_ms + WITHIN_MS))
  gate_end=$((gate_deadline + gate_look_ms))
  gate_stopped='' gate_stopped_next=$((up_ms + 3000))
  gate_restarts=0 gate_ok_since='' gate_before='' gate_verdict='' gate_bad='' gate_bad_unmet='' gate_asker=sh gate_confirming='' gate_guessed='' gate_early=''
  gate_tab=$(printf '\t')
  while [ -z "$gate_verdict" ]; do
    gate_examine || break
    [ -z "$gate_verdict" ] || break
    gate_ask
  done
  rm -rf "$gate_tmp"
  [ "$gate_verdict" = healthy ]
}

# A directory of its own, with the expectations in it; in memory where the disk is full.
gate_place() {
  for gate_tmp in "${TMPDIR:-/tmp}" /dev/shm; do
    gate_tmp=$(mktemp -d "$gate_tmp/gate.XXXXXX" 2>/dev/null) || continue
    if printf '%s\n' "$EXPECT" 2>/dev/null >"$gate_tmp/expect"; then return 0; fi
    rm -rf "$gate_tmp"
  done
  return 1
}

# gate_fail TEXT [PUBLIC]: the verdict.
gate_fail() {
  gate_verdict=unhealthy
  failure=$1
  # shellcheck disable=SC2034 # for the health step
  failure_public=${2-$1}
}

gate_late() {
  clock
  if [ -n "$gate_ok_since" ]; then [ "$up_ms" -ge "$gate_end" ]; else [ "$up_ms" -ge "$gate_deadline" ]; fi
}

gate_seconds() { echo "$(($1 / 1000)).$(($1 % 1000 / 100)) s"; }

gate_inspect() {
  docker inspect -f '{{.Id}} {{.Image}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}} {{.State.OOMKilled}} {{.State.ExitCode}}' "$@" 2>/dev/null
}

# Looks at the container until it runs; starts it again where the gate forgives that. A verdict if it can't get healthy any more.
gate_examine() {
  while :; do
    gate_state=''
    if [ -z "$gate_before" ]; then
      gate_first_look
    elif [ -n "$gate_confirming" ]; then
      if [ -z "$gate_early" ] || ! wait "$gate_early" || ! read -r gate_state <"$gate_early_file"; then
        gate_state=$(gate_inspect "$gate_id") || gate_state=''
      fi
      gate_early=''
    fi
    # shellcheck disable=SC2046 # one id, or none
    [ -n "$gate_state" ] || gate_state=$(gate_inspect $(service_containers "$SERVICE") | sed -n 1p)
    if [ -z "$gate_state" ]; then
      gate_fail "$SERVICE has no container"
      return 1
    fi
    # shellcheck disable=SC2086 # the seven words of the format above
    set -- $gate_state
    container=$1 gate_id=$1 gate_image=$2 gate_status=$3 gate_started=$4 gate_count=$5 gate_oom=$6 gate_exit=$7
    if [ -z "$gate_before" ]; then
      gate_before=$gate_id
      gate_first_started=$gate_started gate_first_count=$gate_count
      gate_check_image || return 1
    elif [ "$gate_id" != "$gate_before" ]; then
      gate_fail "the container of $SERVICE was replaced by another one while it was watched"
      return 1
    fi
    [ "$gate_oom" != true ] || [ "$gate_status" = running ] || {
      gate_fail "$SERVICE was killed because its memory ran out"
      return 1
    }
    gate_crashes=$((gate_count - gate_first_count + gate_restarts))
    if [ "$gate_count" != "$gate_first_count" ] && [ "$gate_crashes" -gt "$RESTARTS" ]; then
      gate_fail "$SERVICE crashed and was restarted by Docker $((gate_count - gate_first_count)) times"
      return 1
    fi
    case $gate_status in
    running)
      if [ "$gate_started" != "$gate_first_started" ]; then
        if [ "$gate_crashes" = 0 ]; then
          gate_fail "$SERVICE was restarted while it was watched"
          return 1
        fi
        gate_first_started=$gate_started gate_ok_since='' gate_early=''
      fi
      return 0
      ;;
    exited | dead)
      gate_ok_since='' gate_early=''
      if [ "$gate_crashes" -ge "$RESTARTS" ]; then
        gate_fail "$SERVICE ended with exit status $gate_exit"
        [ "$gate_restarts" = 0 ] || failure="$failure, after $gate_restarts restarts"
        return 1
      fi
      gate_restarts=$((gate_restarts + 1))
      say "$SERVICE ended with exit status $gate_exit; starting it again ($gate_restarts of $RESTARTS)"
      docker start "$gate_id" >/dev/null || {
        gate_fail "$SERVICE ended with exit status $gate_exit and can't be started again"
        return 1
      }
      continue
      ;;
    esac
    if gate_late; then
      gate_fail "$SERVICE is $gate_status after $(gate_seconds "$WITHIN_MS")"
      return 1
    fi
    sleep 0.2
  done
}

# The container that recreate has just made, as its fact says: asked by its id it answers without a search. A look asks whatever bears the name that Compose
# gives, and only where there is none, or it doesn't answer, what is the matter.
gate_first_look() {
  if [ "$gate_mode" = look ]; then
    if [ -z "$gate_guessed" ] && [ "$PROBE" != container ] && ! grep -qs '"container_name"' "${gate_images%/*}/effective.json"; then
      gate_state="$ORCH_PROJECT-$SERVICE-1 - running - 0 false 0"
    fi
    gate_guessed=1
    return
  fi
  case $SERVICE in *.*) return 0 ;; esac # a pattern, below
  gate_made=$(cat "$ORCH_DEPLOYMENT"/[0-9]*/facts 2>/dev/null | sed -n "s/^\"containers\":{.*\"$SERVICE\":\"\([0-9a-f]*\)\".*/\1/p" | tail -n 1)
  [ -z "$gate_made" ] || gate_state=$(gate_inspect "$gate_made") || gate_state=''
}

# Does the container run the image that the release names? images.yml has its tag and what that was when it was pulled.
gate_check_image() {
  [ "$gate_mode" = gate ] && [ -f "$gate_images" ] || return 0
  # shellcheck disable=SC2016 # awk's
  gate_wanted=$(awk -v service="  \"$SERVICE\":" '
    /^  "/ { mine = $0 == service }
    mine && $1 == "id:" { id = $2 }
    mine && $1 == "tag:" { tag = $2 }
    END { gsub("\"", "", id); gsub("\"", "", tag); if (id != "") print id, tag }' "$gate_images")
  [ -n "$gate_wanted" ] || return 0
  gate_wanted_id=${gate_wanted%% *} gate_wanted=${gate_wanted#* }
  [ "$gate_wanted_id" != "$gate_image" ] || return 0
  # A store that was exchanged since names the same image otherwise.
  gate_wanted_id=$(docker image inspect -f '{{.Id}}' "$gate_wanted" 2>/dev/null) || gate_wanted_id=none
  [ "$gate_wanted_id" = "$gate_image" ] || {
    gate_fail "$SERVICE runs the image $gate_image, the release names $gate_wanted ($gate_wanted_id)"
    return 1
  }
}

# Asks until there is a verdict, or the one who asks has died (with the container, or because time is over).
gate_ask() {
  gate_early='' # it was about what another one has asked
  gate_words
  clock
  gate_left=$(((gate_end - up_ms) / 1000 + 1))
  if [ "$gate_kind" = running ]; then
    gate_running
    return
  fi
  rm -f "$gate_tmp/in" "$gate_tmp/out"
  mkfifo "$gate_tmp/in" "$gate_tmp/out"
  # shellcheck disable=SC2119
  gate_start <"$gate_tmp/in" >"$gate_tmp/out" 2>"$gate_tmp/errors" &
  gate_helper=$!
  exec 7>"$gate_tmp/in" 6<"$gate_tmp/out"
  while [ -z "$gate_verdict" ] && IFS= read -r gate_line <&6; do gate_judge; done
  # The end of its stdin ends the one who asks; the client is ended here, in case that it hangs.
  exec 7>&- 6<&-
  kill "$gate_helper" 2>/dev/null || : # it has ended by itself
  { wait "$gate_helper" && gate_rc=0 || gate_rc=$?; } 2>/dev/null # the shell tells that it was terminated
  [ -z "$gate_verdict" ] || return 0
  if gate_late; then
    gate_timeout
  elif [ "$gate_started" = - ]; then
    gate_before='' # the look has guessed
  elif [ "$gate_rc" = 126 ] || [ "$gate_rc" = 127 ]; then
    gate_next_asker
  else
    sleep 0.1 # the container is going down, or Docker is
  fi
}

# What is run inside the container: gate_kind http, exec (with the words in gate_command) or running (there is nothing to ask).
gate_words() {
  gate_kind=$PROBE gate_command=$COMMAND
  [ "$PROBE" = container ] || return 0
  gate_kind=running
  gate_test=$(docker inspect -f '{{if .Config.Healthcheck}}{{join .Config.Healthcheck.Test "\x1e"}}{{end}}' "$gate_id")
  case $gate_test in
  CMD-SHELL*) gate_kind=exec gate_command="sh -c $(gate_quote "${gate_test#CMD-SHELL?}")" ;;
  CMD*)
    gate_kind=exec gate_command=
    gate_ifs=$IFS IFS=$(printf '\036')
    set -f
    # shellcheck disable=SC2086 # split at the separator, on purpose
    set -- ${gate_test#CMD?}
    set +f
    IFS=$gate_ifs
    for gate_word in "$@"; do gate_command="$gate_command $(gate_quote "$gate_word")"; done
    ;;
  esac
}

gate_quote() {
  case $1 in
  *\'*) printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")" ;;
  *) printf "'%s'" "$1" ;;
  esac
}

# The one who asks: first by the container's shell, which finds curl, python3, node or wget; without a shell python3 or node itself.
# shellcheck disable=SC2120 # takes nothing: its own parameters are the check's words
gate_start() {
  if [ "$gate_kind" = exec ]; then
    eval "set -- $gate_command"
    if [ "$gate_asker" = sh ]; then
      exec timeout --foreground "$gate_left" docker exec -i "$gate_id" sh -c "$(cat "$ORCH_BUNDLE/probe.sh")" probe exec 0.3 "$@"
    fi
    # Each by itself: a check that hangs would be waited for.
    while
      clock
      [ "$up_ms" -lt "$gate_end" ] || exit 0
      gate_output=$(timeout --foreground -k 2 "$(((gate_end - up_ms) / 1000 + 1))" docker exec "$gate_id" "$@" 2>&1) && gate_rc=0 || gate_rc=$?
    do
      # The time is over, not the check's: there is no answer.
      case $gate_rc in 124 | 137) clock; [ "$up_ms" -lt "$gate_end" ] || exit 0 ;; esac
      printf '%s %s\n' "$gate_rc" "$(printf '%s' "$gate_output" | tr '\n' ' ')"
      sleep 0.3
    done
  fi
  case $gate_asker in
  sh)
    exec timeout --foreground "$gate_left" docker exec -i "$gate_id" sh -c "$(cat "$ORCH_BUNDLE/probe.sh")" probe http 0.2 "$URL" \
      "$(cat "$ORCH_BUNDLE/probe.py")" "$(cat "$ORCH_BUNDLE/probe.js")"
    ;;
  python3) exec timeout --foreground "$gate_left" docker exec -i "$gate_id" python3 -c "$(cat "$ORCH_BUNDLE/probe.py")" 0.2 "$URL" ;;
  node) exec timeout --foreground "$gate_left" docker exec -i "$gate_id" node -e "$(cat "$ORCH_BUNDLE/probe.js")" 0.2 "$URL" ;;
  esac
}

gate_next_asker() {
  case $gate_kind.$gate_asker in
  exec.sh) gate_asker=direct ;;
  http.sh) gate_asker=python3 ;;
  http.python3) gate_asker=node ;;
  *) gate_fail "nothing inside the container of $SERVICE can ask $URL: it has neither curl, wget, python3 nor node; use exec: in the health step" ;;
  esac
}

# One answer, in gate_line.
gate_judge() {
  if [ "$gate_line" = '!none' ]; then
    gate_asker=node
    gate_next_asker
    return
  fi
  answers=$((answers + 1))
  last_answer=$gate_line
  gate_reason=''
  gate_code=${gate_line%% *}
  if [ "$gate_kind" = exec ]; then
    [ "$gate_code" = 0 ] || gate_reason="$SERVICE: its check ended with exit status $gate_code"
  elif [ -n "$STATUS" ]; then
    [ "$gate_code" = "$STATUS" ] || gate_reason="$SERVICE answered with status $gate_code, not $STATUS"
  else
    case $gate_code in 2??) ;; *) gate_reason="$SERVICE answered with status $gate_code" ;; esac
  fi
  [ "$gate_code" != 000 ] || gate_reason="$SERVICE doesn't answer"
  gate_public=$gate_reason gate_unmet=''
  if [ -z "$gate_reason" ] && [ -n "$EXPECT" ] && ! gate_reason=$(printf '%s' "${gate_line#* }" | gate_expect); then
    gate_reason="$SERVICE: ${gate_reason:-its answer is not JSON}"
    first_line "$gate_tmp/unmet"
    gate_unmet=$REPLY gate_public=$gate_reason
    [ -z "$REPLY" ] || gate_public="$SERVICE: ${REPLY%%"$gate_tab"*}, expected: ${REPLY#*"$gate_tab"}"
  fi
  clock
  if [ -n "$gate_reason" ]; then
    gate_bad=$gate_reason gate_bad_public=$gate_public gate_bad_unmet=$gate_unmet
    if [ -n "$gate_ok_since" ]; then
      say "$gate_reason, after it had answered well for $(gate_seconds $((up_ms - gate_ok_since)))"
      [ "$up_ms" -lt "$gate_deadline" ] || gate_timeout
      gate_ok_since='' gate_early=''
    fi
    if gate_late; then gate_timeout; else gate_look_around; fi
    return 0
  fi
  if [ -z "$first_ok_ms" ]; then first_ok_ms=$(now_ms); fi
  [ -n "$gate_ok_since" ] || gate_ok_since=$up_ms
  # The clock's hundredths, at both ends.
  gate_rest=$((gate_look_ms - 20 - (up_ms - gate_ok_since)))
  if [ "$gate_rest" -gt 0 ]; then
    gate_confirm_early
    return 0
  fi
  if [ "$gate_mode" = gate ]; then gate_confirm; else gate_verdict=healthy; fi
}

# What it can't be well without has ended: nobody starts that before we are done. Seen twice, since Docker may just be starting it again.
gate_look_around() {
  [ "$gate_mode" = gate ] && [ "$up_ms" -ge "$gate_stopped_next" ] || return 0
  gate_stopped_next=$((up_ms + 3000))
  stopped_meanwhile
  if [ -n "$REPLY" ] && [ "$REPLY" = "$gate_stopped" ]; then
    gate_stopped="$gate_stopped has stopped meanwhile"
    # shellcheck disable=SC2034 # for the health step
    failure_unmet=$gate_bad_unmet
    gate_fail "$gate_bad; $gate_stopped" "$gate_bad_public; $gate_stopped"
  fi
  gate_stopped=$REPLY
}

# As long as one process inside the container asks, and its answers come, it is the same container, and not restarted: what confirms the last of them may be
# asked before it.
gate_confirm_early() {
  [ "$gate_mode" = gate ] && [ "$gate_rest" -le 250 ] && [ -z "$gate_early" ] && [ "$gate_asker" != direct ] || return 0
  gate_early_file=$gate_tmp/early.$answers
  gate_inspect "$gate_id" >"$gate_early_file" 6<&- 7>&- &
  gate_early=$!
}

# It has answered well for long enough: is it still the same container, without a restart or an OOM kill?
gate_confirm() {
  gate_was=$gate_started gate_confirming=1
  gate_examine || return 0
  gate_confirming=''
  if [ "$gate_started" = "$gate_was" ] && [ -z "$gate_verdict" ]; then gate_verdict=healthy; fi
}

gate_timeout() {
  [ -n "$gate_bad" ] || gate_bad="$SERVICE doesn't answer" gate_bad_public="$SERVICE doesn't answer"
  # shellcheck disable=SC2034 # for the health step
  failure_unmet=$gate_bad_unmet
  gate_waited="(waited $(gate_seconds "$WITHIN_MS"))"
  gate_fail "$gate_bad $gate_waited" "$gate_bad_public $gate_waited"
}

# No check to ask: it has to run without a restart for STABLE_MS.
gate_running() {
  gate_ok_since=$up_ms
  if [ -z "$first_ok_ms" ]; then first_ok_ms=$(now_ms); fi
  answers=$((answers + 1)) last_answer=running
  while :; do
    clock
    if [ $((up_ms - gate_ok_since)) -ge "$gate_look_ms" ]; then
      gate_confirm
      return
    fi
    sleep 0.2
    [ "$(docker inspect -f '{{.State.Status}} {{.State.StartedAt}}' "$gate_id" 2>/dev/null)" = "running $gate_started" ] || return 0
  done
}

# stdin: a JSON document. Says which expectation isn't met, and fails; what was expected, without what was found, stands in gate_tmp/unmet.
gate_expect() {
  : >"$gate_tmp/unmet"
  LC_ALL=C awk -f "$ORCH_BUNDLE/json.awk" >"$gate_tmp/flat" || return 1
  awk -F '\t' -v unmet="$gate_tmp/unmet" '
    FNR == NR { type[$1] = $2; value[$1] = $3; next }
    $1 == "" { next }
    {
      path = $1; op = $2; want = $3; fault = ""; name = path; gsub("\037", ".", name)
      there = path in value; t = type[path]; v = value[path]; shown = name " is " v
      if (t == "object" || t == "array") shown = name " is an " t
      if (!there) fault = name " is missing"
      else if (op == "string") { if (t != "string" || (v "") != (want "")) fault = shown ", not " want }
      else if (op == "bool") { if (t != "bool" || v != want) fault = shown ", not " want }
      else if (op == "null") { if (t != "null") fault = shown ", not null" }
      else if (op == "not") { if ((v "") == (want "")) fault = shown }
      else if (t != "number") fault = shown ", not a number"
      else {
        v += 0; bound = want + 0
        if (op == "number" && v != bound) fault = shown ", not " want
        if (op == "below" && !(v < bound)) fault = shown ", not below " want
        if (op == "above" && !(v > bound)) fault = shown ", not above " want
        if (op == "at_least" && !(v >= bound)) fault = shown ", less than " want
        if (op == "at_most" && !(v <= bound)) fault = shown ", more than " want
      }
      if (fault != "") {
        words = op ~ /^(string|number|bool|null)$/ ? "" : op " "; sub("_", " ", words)
        print fault
        print name "\t" words want >unmet
        exit 1
      }
    }' "$gate_tmp/flat" "$gate_tmp/expect"
}

# The failed gate, told with all that a person needs: last answer, last entry of the health log, last lines of the container.
gate_report() {
  report=$failure
  [ -z "$last_answer" ] || report="$report
last answer: $(printf '%.2048s' "$last_answer")"
  [ -n "$container" ] || return 0
  report_health=$(docker inspect -f '{{if .State.Health}}{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{"\x1e"}}{{end}}{{end}}' \
    "$container" 2>/dev/null | awk 'BEGIN { RS = "\036" } /[^\n]/ { last = $0 } END { printf "%.2048s", last }') || report_health=
  [ -z "$report_health" ] || report="$report
last entry of its health log: $report_health"
  report_logs=$(docker logs --tail 50 "$container" 2>&1) || report_logs=
  [ -z "$report_logs" ] || report="$report
last lines of $SERVICE:
$report_logs"
}

# release_gates RELEASE LOOK_MS: one look at each gate that the release has passed (kept in its directory), at most LOOK_MS long each;
# a JSON object per gate on stdout. Returns 0: all healthy; 1: not; 2: no gate is known.
release_gates() {
  gates_rc=2
  for gates_file in "$ORCH_OPT/releases/$1/gates/"*; do
    [ -f "$gates_file" ] || continue
    [ "$gates_rc" = 1 ] || gates_rc=0
    (
      # shellcheck disable=SC1090 # a gate's variables
      . "$gates_file"
      if [ "$WITHIN_MS" -gt "$2" ]; then WITHIN_MS=$2; fi
      healthy=true
      gate "$1" look >/dev/null || healthy=false
      printf '{"gate":%s,"service":%s,"healthy":%s,"at_ms":%s,"answer":%s,"reason":%s}\n' "$(json_string "${gates_file##*/}")" \
        "$(json_string "$SERVICE")" "$healthy" "${first_ok_ms:-null}" "$(json_string "$(printf '%.2048s' "$last_answer")")" "$(json_string "$failure")"
      [ "$healthy" = true ]
    ) || gates_rc=1
  done
  return "$gates_rc"
}
