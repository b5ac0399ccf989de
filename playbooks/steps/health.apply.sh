# The health gate of this deployment.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/gate.sh
. "$ORCH_BUNDLE/gate.sh"

# What a gate needs, in a form that `.` reads back.
keep_gate() {
  for name in SERVICE PROBE URL COMMAND STATUS EXPECT WITHIN_MS STABLE_MS RESTARTS; do
    value=
    eval "value=\$$name"
    printf '%s=%s\n' "$name" "$(gate_quote "$value")"
  done
}

# shellcheck source=/dev/null
. "$ORCH_STEP/params"
if ! gate "$ORCH_N" gate; then
  fact verdict_ms "$(now_ms)"
  gate_report
  # A fact stays in the history for good: what was asked, never what the application said, which may be a secret. That stands in the log.
  members=
  case ${last_answer%% *} in '' | *[!0-9]* | 0?*) ;; *) members=",\"status\":${last_answer%% *}" ;; esac
  [ -z "$failure_unmet" ] ||
    members="$members,\"field\":$(json_string "${failure_unmet%%"$gate_tab"*}"),\"expected\":$(json_string "${failure_unmet#*"$gate_tab"}")"
  fact failure "{\"service\":$(json_string "$SERVICE"),\"reason\":$(json_string "$failure_public")$members}"
  die "$report"
fi
# A release keeps the gates that it has passed: by them it is judged from now on.
mkdir -p "$ORCH_RELEASE/gates"
step=${ORCH_STEP##*/}
keep_gate | write_atomically "$ORCH_RELEASE/gates/${step#*-}" &
keeping=$!
say "$SERVICE is healthy: $last_answer"
fact first_ok_ms "$first_ok_ms"
fact answers "$answers"
# How long nobody answered: from the end of the old container to the first good answer of the new one.
stopped=''
if [ -f "$ORCH_DEPLOYMENT/stopped" ]; then
  stopped=$(awk -v service="$SERVICE" '$1 == service { ms = $2 } END { print ms }' "$ORCH_DEPLOYMENT/stopped")
fi
[ -z "$stopped" ] || fact gap_ms $((first_ok_ms - stopped))
wait "$keeping"
