# daemon.json, the group and the service as they were. Packages stay: what they brought harms nobody, and others may use it by now.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/hostlock.sh
. "$ORCH_BUNDLE/hostlock.sh"
# shellcheck source=playbooks/host/docker.sh
. "$ORCH_BUNDLE/docker.sh"

if remembered group; then
  case " $(id -nG "$REPLY" 2>/dev/null) " in *' docker '*) gpasswd -d "$REPLY" docker >/dev/null ;; esac
fi

# Only while the old file isn't back yet. A Docker that was stopped before is stopped again.
needs=none was=
if remembered docker && have dockerd && grep -qsxF "$daemon_json" saved/[0-9]*/path; then
  needs=${REPLY% *} was=${REPLY#* }
  unit_state docker.service
  case $was/$active in
    active/active) ;;
    active/* | none/active) needs=restart ;;
    *) needs=none ;;
  esac
fi
if [ "$needs" = restart ] && ! lock_for_docker 60; then
  say "A deployment runs: Docker is not restarted. $daemon_json is as it was, and counts from its next start on (systemctl restart docker)."
  needs=none
fi

# MEMBERS: jq's, over the old configuration: what Docker is given for a while.
give_docker() { jq -s "(.[0] // {}) | $1" daemon.old | write_atomically "$daemon_json"; }

if [ "$needs" = restart ]; then
  # Containers outlive the restart: live-restore stays on until it is over, whatever the old configuration says.
  give_docker '.["live-restore"] = true'
  [ "$active" != active ] || reload_docker "$daemon_json" || say 'Docker does not take live-restore: its restart stops the containers.'
  restart_unit docker.service || say "Docker doesn't start: $(unit_reason docker.service)"
fi
if [ "$needs" != none ]; then
  # A member that is missing in the file would stay what it is in the daemon.
  give_docker '.["live-restore"] |= (. // false)'
  reload_docker "$daemon_json" || say "Docker does not take $daemon_json over: it counts from its next start on."
fi
restore_files
restore_units
