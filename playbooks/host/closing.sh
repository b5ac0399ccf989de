# shellcheck shell=sh disable=SC2015,SC2016,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# The end of a deployment: history, journal, tidying. Sourced by runner.sh.

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
  [ -e "$_history" ] || { # with its name
    write_atomically "$_history" printf '%s\n' "$1"
    return
  }
  cut_torn "$_history" || return 1
  if grep -q "\"number\":$N,\"opened\":" "$_history"; then
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

# Files that nobody writes on any more: write_atomically names them by its process. Whoever asks about a deployment may be writing one of its own.
forget_half_written() {
  for _file in "$ORCH_STATE"/*.new.[0-9]* "$ORCH_OPT"/*/*.new.[0-9]* "$ORCH_RELEASE"/*/*.new.[0-9]* ./*.new.[0-9]* ./*/*.new.[0-9]*; do
    [ ! -f "$_file" ] || process_identity "${_file##*.}" || rm -f "$_file"
  done
}

# OUTCOME HEALTHY: history, journal, tidying, and only then is anybody told. `before`: unhealthy, as it was before the deployment.
close() {
  stop_ticker
  free_reserve
  _health=$2
  [ "$2" != before ] || _health='false,"unhealthy_before":true'
  mark_watch "$1"
  if [ -z "$watch_seconds" ] && [ -e watch ]; then rm -rf watch; fi # what was shipped may hold secrets
  event_line closed "\"outcome\":\"$1\",\"healthy\":$_health${watch_seconds:+,\"watch\":$watch_seconds},\"recovery\":$recovery"
  _closed=$line
  [ "$1" = stuck ] || forget_secrets
  forget_half_written
  first_line holder.json
  write_history "${REPLY%\}},\"previous\":${ORCH_PREVIOUS:-null},\"closed\":$((_epoch + up_ms)),\"outcome\":\"$1\",\"healthy\":$_health,\"cause\":\"$cause\"${abandoned_by:+,\"abandoned\":$abandoned_by},\"facts\":{$(facts_object)}}" ||
    exit 1 # without its receipt it stays open, for whoever comes next
  mend_journal
  printf '%s\n' "$_closed" >>journal.jsonl
  sync -d journal.jsonl
  [ -z "$watched" ] || forget_watch "$watched"
  kill_leftovers
  # `open` is the last: if a power loss brings any of them back, it does so too, and the recovery at boot removes them again.
  rm -f waiting inbox "$ORCH_STATE/holder"
  rm -f "$ORCH_STATE/open"
  line=$_closed
  tell
  cd "$ORCH_STATE"
  # What only the conversation about a start needed, after a day.
  find start -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {} +
}

# OUTCOME HEALTHY: the end of a live deployment, and of this process; but a release that is to be watched keeps it.
leave() {
  close "$1" "$2"
  keep_spare
  [ ! -e watching ] || take_up_watch
  rm -f runner.pid
  exit 0
}
