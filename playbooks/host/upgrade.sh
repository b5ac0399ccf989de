#!/bin/sh
# COMMAND…: runs it while no deployment runs, and no deployment begins meanwhile: around the daily security upgrades, which restart services,
# Docker's too. Called by apt-daily-upgrade.service (the step `updates` installs it). Waits as long as it takes: the kernel frees the lock with
# its holder.
set -eu
# shellcheck source=playbooks/host/hostlock.sh
. "${0%/*}/hostlock.sh"
holder="{\"who\":\"unattended-upgrades\",\"reason\":\"security updates of the host\",\"command\":\"apt\",\"since\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}"
if ! lock_host 0 "$holder"; then
  holders=$(host_holders | tr '\n' ';')
  echo "Waiting for a deployment: ${holders%;}"
  lock_host forever "$holder"
fi
# systemd ends only its main process (KillMode=process), which is this one: the upgrade goes on, and so must the lock.
trap : TERM INT HUP
trap unlock_host EXIT
status=0
# Without the lock's descriptor: what a package leaves in the background would hold up deployments for good.
"$@" 5<&- || status=$?
exit "$status"
