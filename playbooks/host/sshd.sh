# shellcheck shell=sh
# What ssh-hardening and firewall ask of sshd. Sourced after system.sh.

sshd_settings=/etc/ssh/sshd_config

# Sets REPLY to the name of sshd's service.
ssh_service() {
  REPLY=ssh
  [ "$(systemctl show -p LoadState --value ssh.service)" = loaded ] || REPLY=sshd
}

# Does systemd hold the listening socket (Ubuntu since 22.10)?
ssh_by_socket() { systemctl is-active --quiet ssh.socket; }

# FILE: the ports of these settings, a line each; nothing if sshd doesn't understand them.
configured_ports() {
  make_run_directory
  sshd -T -f "$1" 2>/dev/null | awk '$1 == "listenaddress" { n = split($2, at, ":"); print at[n] }' | sort -nu
}

# The ports on which sshd can be reached now. Not those that its sessions forward.
listening_ports() {
  if ssh_by_socket; then
    systemctl show -p Listen --value ssh.socket | sed -n 's/.*[:[:space:]=]\([0-9][0-9]*\) (Stream).*/\1/p; s/^\([0-9][0-9]*\) (Stream).*/\1/p'
  else
    ssh_service
    _pid=$(systemctl show -p MainPID --value "$REPLY.service")
    [ "${_pid:-0}" = 0 ] || ss -Hltnp | awk -v pid="pid=$_pid," 'index($0, pid) { n = split($4, at, ":"); print at[n] }'
  fi | sort -nu
}

# sshd takes over the settings that lie in its files; sessions stay. One that isn't running is started.
reload_sshd() {
  ssh_service
  if ssh_by_socket || [ -e "$ORCH_STEP/by-socket" ]; then
    # The next connection starts a new one. A reload would let sshd look for a port of its own, and a socket can't be restarted beside it.
    _ports=$(configured_ports "$sshd_settings")
    systemctl stop "$REPLY.service" 2>/dev/null # it warns of the socket
    if [ "$(listening_ports)" != "$_ports" ] || ! ssh_by_socket; then
      systemctl daemon-reload # a generator reads the ports from sshd's settings
      systemctl reset-failed ssh.socket 2>/dev/null || : # it has not failed
      systemctl restart ssh.socket
    fi
  elif systemctl is-active --quiet "$REPLY.service"; then
    systemctl reload "$REPLY.service"
  else
    systemctl reset-failed "$REPLY.service" 2>/dev/null || : # it has not failed
    systemctl start "$REPLY.service"
  fi
}

# Waits until sshd listens where its settings say, 10 s at most.
await_sshd() {
  _tries=0
  _ports=$(configured_ports "$sshd_settings")
  [ -n "$_ports" ] || return 1
  until [ "$(listening_ports)" = "$_ports" ]; do
    _tries=$((_tries + 1))
    [ $_tries -lt 50 ] || return 1
    sleep 0.2
  done
}

# sshd -t and -T want this directory, which is there only while the service runs.
make_run_directory() { [ -d /run/sshd ] || mkdir -m 0755 /run/sshd; }

prepare_sshd() {
  have sshd || die 'There is no OpenSSH server here.'
  make_run_directory
}
