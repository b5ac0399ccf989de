#!/bin/sh
# boot.sh PROJECT: makes the current release run, as its deployment left it. What orchestrate@PROJECT.service runs at boot and whenever Docker has
# (re)started; docs/reliability.md tells why Docker alone doesn't do it. Holds the project's lock while it works; changes nothing while a deployment is open.
# Exit status 1: not everything runs, and trying again may help; 78: it won't.
set -eu
ORCH_BUNDLE=$(cd "${0%/*}" && pwd -P) # a deployment may point the link elsewhere meanwhile
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/journal.sh
. "$ORCH_BUNDLE/journal.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
project_paths "$1"
cd "$ORCH_STATE"

wait_for_engine() {
  clock
  # shellcheck disable=SC2154 # set by clock
  engine_until=$((up_ms + 120000))
  until timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; do
    clock
    [ "$up_ms" -lt "$engine_until" ] || die 'The Docker engine does not answer.'
    sleep 0.5
  done
}

# A watch lets go of the lock, and begins afresh when we are done: what it looks at doesn't run yet.
ask_watch_to_yield() {
  first_line watching
  _inbox=deployments/${REPLY:-0}/inbox
  [ ! -p "$_inbox" ] || echo yield 1<>"$_inbox"
}

# As the runner takes it. A deployment that runs is waited for: what it doesn't touch may need us afterwards.
take_lock() {
  exec 8>>"$base/lock" 9>>lock
  if ! flock -s -n 8 || ! flock -n 9; then
    say 'Waiting for the end of whoever has the lock.'
    ask_watch_to_yield
    flock -s 8
    flock 9
  fi
  trap 'rm -f "$ORCH_STATE/holder"' EXIT
  trap 'exit 143' TERM INT HUP
  # With `recovering` whoever wants the lock waits for us a while, without being told to.
  printf '{"who":"the host itself","command":"starting the current release","since":"%s","recovering":true}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >holder ||
    : # a full disk: they are told less
}

# Sets groups: the services that were brought up together by one step each, a line of quoted words each. Together, since what of a service's dependencies
# is up with it is part of its config hash.
find_groups() {
  groups=
  for group_file in "$release/recreate/"*; do
    [ -s "$group_file" ] || continue
    groups="$groups$(cat "$group_file")
"
  done
}

# Sets others: the services that are in no group: database and cache, and what was started once with --include. A service that only migrates has no container.
find_others() {
  grouped=$(eval "printf '%s\\n' $(printf '%s' "$groups" | tr '\n' ' ')")
  one_off=
  if [ -f "$release/migrate" ]; then
    # shellcheck source=/dev/null
    one_off=$(SERVICE='' && . "$release/migrate" && printf '%s' "$SERVICE")
    # Of releases that don't have their groups on record: what has a health gate runs.
    if grep -qsxF "SERVICE='$one_off'" "$release/gates/"*; then one_off=; fi
  fi
  others=
  for service in $services; do
    if has_word "$service" "$grouped"; then continue; fi
    if [ "$service" = "$one_off" ] && [ -z "$(states_of "$service")" ]; then continue; fi
    others="$others $service"
  done
}

# SERVICE: the states of its containers, a line each.
states_of() { printf '%s\n' "$containers" | awk -v service="$1" '$2 == service { print $3 }'; }

# SERVICE…: those that have no container, or one that stands still, in REPLY. What is `restarting` is Docker's, what is `paused` somebody's.
standing_still() {
  REPLY=
  for service in "$@"; do
    states=$(states_of "$service")
    if [ -z "$states" ] || has_word exited "$states" || has_word created "$states" || has_word dead "$states"; then REPLY="$REPLY $service"; fi
  done
}

# SERVICE…: what other services may need. Until the health check of each that has one has spoken, at most 30 s.
await_health() {
  clock
  health_until=$((up_ms + 30000))
  while [ "$up_ms" -lt "$health_until" ]; do
    starting=
    for service in "$@"; do
      for id in $(service_containers "$service"); do
        case $(docker inspect -f '{{if .State.Health}}{{.State.Status}} {{.State.Health.Status}}{{end}}' "$id") in 'running starting') starting=1 ;; esac
      done
    done
    [ -n "$starting" ] || return 0
    sleep 0.3
    clock
  done
}

# SERVICE…: in the form of recreate and switch.sh. Nothing that exists is replaced: which configuration a container outside services.app has is not ours to judge.
bring_up() {
  # A service that has left the release, or was never in it, isn't Compose's to start.
  for service in "$@"; do
    shift
    if has_word "$service" "$services"; then set -- "$@" "$service"; fi
  done
  standing_still "$@"
  [ -n "$REPLY" ] || return 0
  still=$REPLY
  [ -z "$before" ] || eval "await_health $before"
  compose -f "$release/effective.json" up -d --no-recreate --no-deps --no-build --pull never "$@" </dev/null || return 1
  started="$started$still"
}

# Never in need of set -e, which its caller's condition takes from it.
bring_up_all() {
  containers=$(all_containers) || return 1
  find_others
  before=
  # shellcheck disable=SC2086 # names of services
  bring_up $others || return 1
  before=$others
  while read -r group; do
    [ -n "$group" ] || continue
    eval "bring_up $group" </dev/null || return 1
    before="$before $group"
  done <<EOT
$groups
EOT
}

# The commit couldn't raise the restart policy of a container, for the lack of Docker, say.
raise_policies() {
  [ -f "deployments/$number/restart-policies" ] || return 0
  while read -r container policy; do
    case $policy in '' | no) continue ;; esac
    kept=$(docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' "$container" 2>/dev/null) || continue # replaced since
    [ "$kept" != no ] || docker update --restart="$policy" "$container" >/dev/null
  done <"deployments/$number/restart-policies"
}

wait_for_engine
take_lock
open=$(open_numbers)
if [ -n "$open" ]; then
  say "Deployment $(printf '%s' "$open" | tr '\n' ' ') is not closed: what runs, and what doesn't, is left as it is. The next deploy or rollback closes it, or says what a person must do."
  # What is stuck waits for a person; anything else for the recovery, which was killed, say, and comes again.
  for number in $open; do is_stuck "$number" || exit 1; done
  exit 0
fi
current_release
number=$REPLY
[ -n "$number" ] || {
  say 'Nothing is deployed.'
  exit 0
}
release=$ORCH_OPT/releases/$number
[ -f "$release/effective.json" ] || {
  say "$ORCH_OPT/current names release $number, which is not there, or has no effective.json."
  exit 78
}

find_compose
# shellcheck disable=SC2034 # for compose: whoever waits for the lock isn't kept for ever, and we come again
compose_program="timeout -k 5 60 $compose_program"
services=$(services_of "$release/effective.json")
find_groups
started=
attempts=1
until bring_up_all; do
  [ $attempts -lt 3 ] || die "Release $number could not be started (above)."
  attempts=$((attempts + 1))
  sleep 1
  wait_for_engine
done
raise_policies

# Docker may have died again meanwhile.
containers=$(all_containers)
failed=
# shellcheck disable=SC2086 # names of services
standing_still $services
for service in $REPLY; do
  for id in $(service_containers "$service"); do
    case $(docker inspect -f '{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}' "$id") in
      running\ * | restarting\ *) ;;
      *\ always | *\ unless-stopped) failed="$failed $service" ;;
    esac
  done
done
[ -z "$failed" ] || die "Release $number: not running:$failed"
if [ -n "$started" ]; then say "Release $number: started$started."; else say "Release $number runs."; fi
