# The time zone, and a service that keeps the clock right.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
ZONE=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

zones=/usr/share/zoneinfo
if [ -n "$ZONE" ]; then
  case $ZONE in *[!A-Za-z0-9_+/-]* | /*) die "Not a time zone: $ZONE" ;; esac
  if [ "$ZONE" = Etc/UTC ] && [ ! -e /etc/localtime ]; then
    : # needs no file
  elif [ ! -d "$zones" ]; then
    checking || die "There are no time zones on this host: the package tzdata isn't installed."
  elif [ ! -f "$zones/$ZONE" ]; then
    die "There is no time zone $ZONE on this host (timedatectl list-timezones names them). Nothing was changed."
  fi
  # By the file that it comes to in the end: Etc/UTC and UTC are one. Without it a machine keeps UTC.
  found=$zones/Etc/UTC
  [ ! -e /etc/localtime ] || found=/etc/localtime
  if [ "$(readlink -m "$found")" != "$(readlink -m "$zones/$ZONE")" ]; then
    old=
    [ ! -L /etc/localtime ] || old=$(readlink /etc/localtime)
    {
      [ ! -e /etc/localtime ] || echo "- ${old:-a file}"
      echo "+ $zones/$ZONE"
    } >detail
    change update 'time zone' detail
    if ! checking; then
      # A file there, where it isn't a link, is kept for the undo.
      [ -n "$old" ] || [ ! -e /etc/localtime ] || [ -e before.localtime ] || write_atomically before.localtime cat /etc/localtime
      remember zone "${old:-none}"
      ln -sfn "$zones/$ZONE" /etc/.localtime.orchestrate-new
      mv -fT /etc/.localtime.orchestrate-new /etc/localtime
      sync /etc
      # It reads the zone at its start.
      systemctl try-restart cron.service 2>/dev/null || : # there is none
    fi
  fi
  # Some programs read the name. Where a distribution has given the file up it isn't made again.
  if [ -f /etc/timezone ]; then echo "$ZONE" | ensure_file /etc/timezone root:root 0644; fi
fi

find_container
if [ -n "$container" ]; then
  say "This machine is a container ($container): its clock is the machine's, and no time service can run here."
else
  unit=
  for name in chrony.service chronyd.service ntpsec.service ntp.service openntpd.service systemd-timesyncd.service; do
    unit_state "$name"
    case $loaded/$enabled in not-found/* | */masked* | */alias) ;; *) unit=$name && break ;; esac
  done
  # The one that everybody has, and somebody has switched off.
  if [ -z "$unit" ]; then
    unit_state systemd-timesyncd.service
    [ "$loaded" = not-found ] && ! checking && die "No time service is installed on this host (systemd-timesyncd or chrony): name one in a step packages."
    unit=systemd-timesyncd.service
  fi
  ensure_unit "$unit"
fi
tell_changes
