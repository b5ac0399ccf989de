# fail2ban: addresses that fail to log in over SSH again and again are kept out for a while. Its chain lies before ufw's, which know nothing of it.
# shellcheck shell=sh disable=SC2031 # a rehearsal keeps its own
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/apt.sh
. "$ORCH_BUNDLE/apt.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/sshd.sh
. "$ORCH_BUNDLE/sshd.sh"
RETRIES=5 FIND=600 BAN=3600 IGNORE=
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

for number in "$RETRIES" "$FIND" "$BAN"; do
  case $number in '' | *[!0-9]*) die "Not a number: \"$number\"" ;; esac
done
case $IGNORE in *[!0-9a-fA-F.:/\ ]*) die "Not addresses: $IGNORE" ;; esac
# Of all files the last one read.
file=/etc/fail2ban/jail.d/zz-orchestrate.local

# Where sshd is configured to listen, and where it does now.
ssh_ports() {
  prepare_sshd
  { configured_ports "$sshd_settings"; listening_ports; } | sort -nu | paste -sd , -
}

# Its units are called ssh on Debian, and since OpenSSH 9.8 a process of its own speaks to each client.
jail() {
  cat <<CONF
# Written by orchestrate bootstrap (step fail2ban).
[sshd]
enabled = true
backend = systemd
journalmatch = _SYSTEMD_UNIT=ssh.service + _SYSTEMD_UNIT=sshd.service + _COMM=sshd + _COMM=sshd-session
port = $ports
maxretry = $RETRIES
findtime = $FIND
bantime = $BAN
ignoreip = 127.0.0.0/8 ::1${IGNORE:+ $IGNORE}
banaction = iptables-multiport
CONF
}

has_journal() { python3 -c 'import systemd.journal' 2>/dev/null; }

find_missing() {
  missing=
  have fail2ban-server || missing=fail2ban
  have iptables || missing="$missing iptables"
  has_journal || missing="$missing python3-systemd"
  missing=${missing# }
}

# The wanted jail among copies of what lies there, read by fail2ban itself.
prove() {
  _copy=$ORCH_STEP/copy
  rm -rf "$_copy"
  mkdir -p "$_copy/jail.d"
  for _file in /etc/fail2ban/* /etc/fail2ban/jail.d/*; do
    case $_file in */fail2ban/jail.d | *'/*' | "$file") continue ;; esac
    ln -s "$_file" "$_copy${_file#/etc/fail2ban}"
  done
  cp "$ORCH_STEP/jail" "$_copy/jail.d/${file##*/}"
  fail2ban-client -c "$_copy" -t >"$ORCH_STEP/test.log" 2>&1 || {
    sed "s,$_copy/,/etc/fail2ban/,g" "$ORCH_STEP/test.log" >&2
    die "fail2ban would refuse its configuration (above): $(grep -i error "$ORCH_STEP/test.log" | head -n 1 | sed "s,$_copy/,/etc/fail2ban/,g"). Nothing was changed."
  }
  rm -rf "$_copy"
}

# What the running jail lives by; nothing where there is none.
live() {
  printf 'get sshd %s\n' maxretry findtime bantime actions | fail2ban-client -i 2>/dev/null |
    sed -n 's/^\(fail2ban> *\)*\([0-9][0-9]*\|iptables-[a-z]*\|nftables[a-z-]*\|ufw\)$/\2/p' | paste -sd ' ' -
}

ports=$(ssh_ports)
[ -n "$ports" ] || die 'Nobody can tell on which port sshd listens. Nothing was changed.'
state=
if have fail2ban-server; then
  unit_state fail2ban.service
  state=$active
fi
find_missing
for package in $missing; do change create "package $package"; done
fresh=
if [ -n "$missing" ] && ! checking; then
  have fail2ban-server || {
    fresh=1
    remember unit-fail2ban.service 'disabled inactive'
  }
  # shellcheck disable=SC2086 # names of packages
  install_packages $missing
  find_missing
  [ -z "$missing" ] || die "Still missing after the installation: $missing"
fi

jail >"$ORCH_STEP/jail"
wanted="$RETRIES $FIND $BAN iptables-multiport"
converge() { ensure_file "$file" root:root 0644 <"$ORCH_STEP/jail"; }

again=
if ! checking && remembered jail; then again=1; fi
touched=
if have fail2ban-client && would_change converge; then
  prove
  touched=1
  checking || remember jail changed
fi
converge
if [ -n "$fresh" ]; then
  # Its own settings want a log file that Debian 12 doesn't have any more, and it falls over them: the restart below is its first start.
  systemctl -q enable fail2ban.service
elif ! checking || have fail2ban-server; then
  ensure_unit fail2ban.service
fi
restart=$touched$again
if [ "$state" = active ]; then
  if [ -z "$restart" ]; then
    found=$(live)
    if [ "$found" != "$wanted" ]; then
      restart=1
      echo "~ lives by ${found:-no jail for sshd} -> $wanted" >detail
    fi
  fi
  if [ -n "$restart" ]; then
    if [ -e detail ]; then change run 'restart of fail2ban' detail; else change run 'restart of fail2ban'; fi
  fi
  rm -f detail
fi
if ! checking && [ -n "$restart" ]; then
  # A reload with another action leaves the jail without any (1.1.0). Those who are kept out stay so: it remembers them.
  restart_unit fail2ban.service || die "fail2ban doesn't start: $(unit_reason fail2ban.service)"
fi
if ! checking && [ -s "$changes_file" ]; then
  # It answers a while after its start.
  tries=0
  until found=$(live) && [ "$found" = "$wanted" ]; do
    tries=$((tries + 1))
    [ $tries -lt 30 ] || die "fail2ban does not live by $file: its jail for sshd says \"$found\" instead of \"$wanted\" (retries, seconds, seconds of the ban, how). \
Does another file in /etc/fail2ban/jail.d win? See journalctl -u fail2ban."
    sleep 0.5
  done
fi
tell_changes
