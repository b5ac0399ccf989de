# Putting containers of one release in the place of another's. Sourced after lib.sh, containers.sh and gate.sh (for await_baseline alone: after lib.sh).
# shellcheck shell=sh

# of_services SERVICE…: the lines of all_containers (stdin) that are about them.
of_services() {
  awk 'BEGIN { for (i = 1; i < ARGC; i++) wanted[ARGV[i]] = 1; ARGC = 1 } $2 in wanted' "$@"
}

# to_ms TIME…: RFC 3339 times as milliseconds since 1970, a line each.
to_ms() { for time in "$@"; do date -d "$time" +%s%3N; done; }

# start_release RELEASE SERVICE…: makes these services run as that release has them, whatever is there now; those that the release
# doesn't have are removed. Containers that already run as they should aren't touched.
start_release() {
  release_config=$ORCH_OPT/releases/$1/effective.json
  shift
  release_services=$(services_of "$release_config")
  count=$#
  while [ "$count" -gt 0 ]; do
    if has_word "$1" "$release_services"; then
      set -- "$@" "$1"
    else
      remove_containers_of "$1"
    fi
    shift
    count=$((count - 1))
  done
  [ $# -gt 0 ] || return 0
  compose -f "$release_config" up -d --no-deps --no-build --pull never --timeout 10 "$@" </dev/null
}

remove_containers_of() {
  for id in $(service_containers "$1"); do
    save_logs "$1" "$id" || : # the removal matters more than the log
    docker rm -f "$id" >/dev/null || docker_gone "$id"
  done
}

# await_baseline: before anything changes, how well the running release was must be known. Preflight has begun to ask; it takes 5 s for each gate
# at most, and 65 s in all. Whoever changes something calls it: the first one waits, for the others it costs nothing.
baseline_seconds=70
await_baseline() {
  [ -s "$ORCH_DEPLOYMENT/looking" ] || return 0
  read -r looking <"$ORCH_DEPLOYMENT/looking"
  clock
  # shellcheck disable=SC2154 # set by clock
  looking_until=$((up_ms + baseline_seconds * 1000))
  while [ ! -e "$ORCH_DEPLOYMENT/baseline" ] && kill -0 "$looking" 2>/dev/null; do
    clock
    if [ "$up_ms" -ge "$looking_until" ]; then
      kill -KILL "$looking" 2>/dev/null || : # what it found from now on would be the deployment's own doing
      break
    fi
    sleep 0.01
  done
  if [ ! -e "$ORCH_DEPLOYMENT/baseline" ]; then
    say 'How well the running release is could not be found out in time; an undo counts as healthy only if all of it is.'
    cat "$ORCH_DEPLOYMENT/looks" 2>/dev/null || : # there may be none
  fi
  if [ -s "$ORCH_DEPLOYMENT/baseline" ] && [ -e "$ORCH_DEPLOYMENT/looks" ]; then
    say 'What runs is not healthy; an undo would bring it back as it is:'
    cat "$ORCH_DEPLOYMENT/looks"
  fi
  rm -f "$ORCH_DEPLOYMENT/looks" "$ORCH_DEPLOYMENT/looking"
}

# await_release RELEASE: waits until the services of the release answer as their gates want it, at most 60 s (10 s where they didn't before
# the deployment either); a fact says when. Never a failure: whether the host is well is judged afterwards, by check.sh.
await_release() {
  patience=60000
  if [ -s "$ORCH_DEPLOYMENT/baseline" ]; then patience=10000; fi
  if grep -q '^"healthy":false$' "$ORCH_DEPLOYMENT"/[0-9]*-*/facts 2>/dev/null; then patience=10000; fi # preflight's fact
  looks=$(release_gates "$1" "$patience") && rc=0 || rc=$?
  [ -z "$looks" ] || say "$looks"
  if [ "$rc" = 0 ]; then fact undone_healthy_ms "$(now_ms)"; fi
  if [ "$rc" = 1 ]; then say "release $1 runs again, but it isn't healthy"; fi
}
