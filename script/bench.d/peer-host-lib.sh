# shellcheck shell=bash
# The host's half of the peer scripts. Sourced by peer-host-deploy.sh and peer-host-rollback.sh, which set `app` and `root`.

: "${app:?}" "${root:?}"
step_name='' step_began=0 all_began=${EPOCHREALTIME/./}

# step NAME: ends the step before, prints its time, begins the next.
step() {
  local now=${EPOCHREALTIME/./}
  if [ -n "$step_name" ]; then
    printf 'peer: %-10s %6d.%03d s\n' "$step_name" $(((now - step_began) / 1000000)) $(((now - step_began) / 1000 % 1000))
  fi
  step_name=$1
  step_began=$now
}

finish() {
  step ''
  local now=${EPOCHREALTIME/./}
  printf 'peer: %-10s %6d.%03d s\n' total $(((now - all_began) / 1000000)) $(((now - all_began) / 1000 % 1000))
}

die() {
  printf 'peer: %s: %s\n' "${step_name:-start}" "$*" >&2
  exit 1
}

# Nobody may be there any more to read what is printed: what is begun is taken back also then.
trap '' PIPE
# By the EXIT trap, from where something changes: the release in `previous`, if there is one, comes back.
restore_previous() {
  local status=$?
  [ "$status" != 0 ] || return 0
  if [ -n "$previous" ]; then
    printf 'peer: back to %s\n' "$(basename "$previous")" >&2 || :
    compose "$previous" up -d --no-deps --no-build --pull never bot
  fi
  exit "$status"
}

take_lock() {
  exec 9>>"$root/lock"
  flock -n 9 || { printf 'peer: another deploy holds the lock\n' >&2; exit 75; }
}

# compose RELEASE ARGUMENT...: with that release's file and env, in a clean environment, always under one project name.
compose() {
  local release=$1
  shift
  env -i PATH="$PATH" HOME="$HOME" DOCKER_CONFIG="${DOCKER_CONFIG:-$HOME/.docker}" \
    docker compose -p "$app" --project-directory "$root/shared" -f "$release/compose.yml" --env-file "$release/.env" \
    --ansi never --progress quiet "$@" </dev/null
}

# container SERVICE: its id, found by label.
container() {
  docker ps -q --no-trunc --filter "label=com.docker.compose.project=$app" --filter "label=com.docker.compose.service=$1" \
    --filter label=com.docker.compose.oneoff=False
}

# The probe runs inside the container, by the Python that is there.
probe='
import json, sys, urllib.request
try:
    with urllib.request.urlopen("http://localhost:8000/health", timeout=2) as answer:
        health = json.load(answer)
except Exception as error:
    sys.exit(f"no answer: {error}")
age = health.get("last_poll_age_s")
if health.get("status") != "healthy" or not isinstance(age, (int, float)) or age >= 30:
    sys.exit(json.dumps(health))
'

# gate WITHIN STABLE: healthy within so many seconds, then for so many, without a restart in between.
gate() {
  local within=$1 stable=$2 id began state first='' healthy_since=0 answer=''
  began=${EPOCHREALTIME/./}
  id=$(container bot)
  [ -n "$id" ] || die "there is no container of the bot"
  while :; do
    state=$(docker inspect --format '{{.State.Running}} {{.RestartCount}} {{.State.StartedAt}} {{.State.OOMKilled}}' "$id")
    first=${first:-$state}
    case $state in
      "true "*" false") ;;
      *) show_logs "$id"; die "the bot is not running: $state" ;;
    esac
    [ "$state" = "$first" ] || { show_logs "$id"; die "the bot was restarted: $first, then $state"; }
    if answer=$(docker exec "$id" python3 -c "$probe" 2>&1); then
      [ "$healthy_since" != 0 ] || healthy_since=${EPOCHREALTIME/./}
      if [ $((${EPOCHREALTIME/./} - healthy_since)) -ge $((stable * 1000000)) ]; then return 0; fi
    else
      [ "$healthy_since" = 0 ] || { show_logs "$id"; die "the bot did not stay healthy: $answer"; }
    fi
    if [ $((${EPOCHREALTIME/./} - began)) -ge $((within * 1000000)) ] && [ "$healthy_since" = 0 ]; then
      show_logs "$id"
      die "not healthy within $within s: $answer"
    fi
    sleep 0.2
  done
}

show_logs() { docker logs --tail 50 "$1" >&2; }

# switch_to RELEASE: the symlink, atomically and durably.
switch_to() {
  ln -sfn "releases/$(basename "$1")" "$root/current.new"
  mv -T "$root/current.new" "$root/current"
  sync "$root"
}
