# Security updates by themselves: never a reboot, and never beside a deployment.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"

have unattended-upgrade || checking || die "There is no unattended-upgrades on this host: a step packages has to install it."
# shellcheck source=/dev/null
system=$(. /etc/os-release && echo "$ID")
case $system in
  debian)
    # shellcheck disable=SC2016 # for unattended-upgrades
    origins='  "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";
  "origin=Debian,codename=${distro_codename},label=Debian-Security";'
    ;;
  ubuntu)
    # shellcheck disable=SC2016 # for unattended-upgrades
    origins='  "origin=Ubuntu,archive=${distro_codename}-security";
  "origin=UbuntuESMApps,archive=${distro_codename}-apps-security";
  "origin=UbuntuESM,archive=${distro_codename}-infra-security";'
    ;;
  *) die "Which updates of $system are for security isn't known here: Debian and Ubuntu are." ;;
esac

programs=/usr/local/lib/orchestrate
drop_in=/etc/systemd/system/apt-daily-upgrade.service.d
ensure_directory "$programs" root:root 0755
ensure_file "$programs/hostlock.sh" root:root 0644 <"$ORCH_BUNDLE/hostlock.sh"
ensure_file "$programs/upgrade.sh" root:root 0755 <"$ORCH_BUNDLE/upgrade.sh"

# The last one wins, and apt reads them in the order of their names.
file=/etc/apt/apt.conf.d/zz-orchestrate
ensure_file "$file" root:root 0644 <<CONF
// Written by orchestrate bootstrap (step updates): security updates only, and no reboot.
APT::Periodic::Enable "1";
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
#clear Unattended-Upgrade::Allowed-Origins;
#clear Unattended-Upgrade::Origins-Pattern;
Unattended-Upgrade::Origins-Pattern {
$origins
};
Unattended-Upgrade::Automatic-Reboot "false";
CONF
ours=$changed

ensure_directory "$drop_in" root:root 0755
ensure_file "$drop_in/orchestrate.conf" root:root 0644 <<CONF
# Written by orchestrate bootstrap (step updates): no upgrade beside a deployment, no deployment beside an upgrade.
[Service]
ExecStart=
ExecStart=/bin/sh $programs/upgrade.sh /usr/lib/apt/apt.systemd.daily install
CONF
if [ $changed = 1 ] && ! checking; then systemctl daemon-reload; fi

# What counts in the end, other files included.
if ! checking || [ $ours = 0 ]; then
  apt-config dump >settings
  : >detail
  for wanted in 'APT::Periodic::Enable "1";' 'APT::Periodic::Update-Package-Lists "1";' 'APT::Periodic::Unattended-Upgrade "1";' \
    'Unattended-Upgrade::Automatic-Reboot "false";'; do
    grep -qxF "$wanted" settings || { grep "^${wanted%% *} " settings || echo "${wanted%% *} isn't set"; } | sed 's/^/~ wins: /' >>detail
  done
  grep '^Unattended-Upgrade::\(Origins-Pattern\|Allowed-Origins\):: ' settings | grep -vF -e '-security' -e 'label=Debian-Security' | sed 's/^/~ wins: /' >>detail || : # none
  if [ -s detail ]; then
    change update 'settings of apt' detail
    checking || die "Another file in /etc/apt wins over $file (grep -r Unattended-Upgrade /etc/apt). Remove its line, and run this again."
  fi
fi

for unit in apt-daily.timer apt-daily-upgrade.timer; do ensure_unit "$unit"; done
[ ! -e /run/reboot-required ] || say 'This host waits for a reboot to finish an update (/run/reboot-required). It is not done by itself.'
tell_changes
