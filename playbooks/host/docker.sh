# shellcheck shell=sh disable=SC2034,SC2154 # what it sets is for those who source it, and what they set
# Docker's daemon and its configuration. Sourced behind units.sh and hostlock.sh by the steps docker.apply.sh and docker.undo.sh.

daemon_json=/etc/docker/daemon.json

# Members that dockerd takes over at a SIGHUP (dockerd's documentation, "Configuration reload behavior"); any other needs a restart.
reloadable='["debug","labels","live-restore","max-concurrent-downloads","max-concurrent-uploads","max-download-attempts","default-runtime",
  "runtimes","authorization-plugins","insecure-registries","registry-mirrors","shutdown-timeout","features"]'

# What a running daemon tells of itself, so that it needs no guessing from the file's changes.
told='["live-restore","log-driver","default-address-pools"]'

# What the running daemon says of itself, in information: an object, in daemon.json's spelling. Asked only of a running one: its socket would
# start it.
daemon_information() {
  docker info --format '{"live-restore":{{json .LiveRestoreEnabled}},"log-driver":{{json .LoggingDriver}},"default-address-pools":{{json .DefaultAddressPools}},"swarm":{{json .Swarm.LocalNodeState}}}' \
    2>info.err || die "Docker doesn't answer: $(cat info.err). See systemctl status docker."
}

# FILE: dockerd's own judgement of a configuration, together with the options of its command line: an option that stands in both is an error.
# Docker before 23.0 has none to give.
validate_daemon() {
  have dockerd || return 0
  dockerd --help 2>/dev/null | grep -q -e '--validate' || {
    say 'This dockerd cannot check a configuration before it uses it.'
    return 0
  }
  _pid=$(systemctl show -p MainPID --value docker.service)
  if [ "${_pid:-0}" != 0 ] && [ -r "/proc/$_pid/cmdline" ]; then
    # shellcheck disable=SC2016 # the inner shell's
    tr '\n' ' ' <"/proc/$_pid/cmdline" | xargs -0 sh -c 'shift; file=$0; exec dockerd --validate "$@" --config-file "$file"' "$1" >validate 2>&1
  else
    dockerd --validate --config-file "$1" >validate 2>&1
  fi
}

# SECONDS: keeps deployments away while Docker restarts. Fails where one runs.
lock_for_docker() {
  first_line "$ORCH_DEPLOYMENT/holder.json"
  _now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  lock_host "$1" "${REPLY:-{\"who\":\"orchestrate bootstrap\",\"reason\":\"Docker is restarted\",\"since\":\"$_now\"\}}" || return 1
  trap unlock_host EXIT
}

# FILE: has the running daemon take daemon.json over, which says the same, and waits until its live-restore is that. A SIGHUP is answered
# later, and a member that is missing in the file stays as it was.
reload_docker() {
  systemctl reload docker.service || return 1
  _wanted=$(jq -r '.["live-restore"]' "$1")
  [ "$_wanted" != null ] || return 0
  clock
  _deadline=$((up_ms + 20000))
  until docker info --format '{{.LiveRestoreEnabled}}' 2>/dev/null | grep -qx "$_wanted"; do
    clock
    [ "$up_ms" -lt "$_deadline" ] || return 1
    sleep 0.2
  done
}
