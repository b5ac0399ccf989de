# The units that act on the host without a client: orchestrate-recover@P closes an open deployment at boot, orchestrate@P then starts the current
# release. Sourced after lib.sh, by attach.sh and by the step systemd-unit.
# shellcheck shell=sh disable=SC2034 # what it sets is for those who source it

# COMMAND…: as root; by sudo, without a password, where we aren't.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# UNIT ARGUMENTS…: the runner of our bundle, with these, as a unit of its own: it outlives whoever starts it. unit_options: more words for systemd-run.
start_runner_unit() {
  _unit=$1
  shift
  # shellcheck disable=SC2086 # words
  as_root systemd-run --collect --quiet --unit="$_unit" ${unit_options-} --uid="$(id -un)" --gid="$(id -gn)" \
    -p Type=exec -p KillMode=control-group -p OOMPolicy=continue -p Restart=on-failure -p RestartSec=1 \
    -p RestartPreventExitStatus=75 -p TimeoutStopSec=5s -p IgnoreSIGPIPE=no -p UMask=0077 --setenv=LC_ALL=C \
    ${DOCKER_HOST+--setenv=DOCKER_HOST="$DOCKER_HOST"} \
    ${ORCHESTRATE_STATE+--setenv=ORCHESTRATE_STATE="$ORCHESTRATE_STATE"} \
    ${ORCHESTRATE_OPT+--setenv=ORCHESTRATE_OPT="$ORCHESTRATE_OPT"} \
    "$(command -v sh)" "$ORCH_BUNDLE/runner.sh" "$@"
}

# STATE: sets recover_unit and app_unit, the names of their templates without `@.service`, for the base directory STATE. Each base directory has templates
# of its own, since they say whose it is. app_unit is empty where no application lives.
unit_names() {
  app_unit='' recover_unit=orchestrate-host-recover
  case $1 in
    */orchestrate-host) return 0 ;; # bootstrap's own
    /var/lib/orchestrate) app_unit=orchestrate ;;
    *) app_unit=orchestrate-at-$(printf '%s' "${1#/}" | tr -c 'A-Za-z0-9' -) ;;
  esac
  recover_unit=$app_unit-recover
}

# FILE USER STATE OPT: the template recover.service or app.service of our bundle, for these.
render_unit() {
  unit_names "$3"
  sed -e "s|@USER@|$2|g; s|@STATE@|$3|g; s|@OPT@|$4|g; s|orchestrate-recover@|$recover_unit@|g" "$ORCH_BUNDLE/$1.service"
}
