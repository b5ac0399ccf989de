# The time zone and the time service as they were.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"

if remembered zone; then
  if [ -e before.localtime ]; then
    write_atomically /etc/localtime cat before.localtime
    chmod 644 /etc/localtime
  elif [ "$REPLY" = none ]; then
    rm -f /etc/localtime
  else
    ln -sfn "$REPLY" /etc/.localtime.orchestrate-new
    mv -fT /etc/.localtime.orchestrate-new /etc/localtime
  fi
  sync /etc
  systemctl try-restart cron.service 2>/dev/null || : # there is none
fi
restore_files
restore_units
