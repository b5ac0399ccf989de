# shellcheck shell=sh
# What the step firewall and its undo share. Sourced after system.sh.

has_ipv6() { [ -e /proc/net/if_inet6 ]; }

# The programs that hold the kernel's rules, one for each family.
tables() {
  echo iptables
  ! has_ipv6 || echo ip6tables
}

ufw_enabled() { grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf && iptables -w 5 -S ufw-user-input >/dev/null 2>&1; }

# The rules of Docker stay; connections stay.
reload_ufw() {
  ufw reload >"$ORCH_STEP/ufw.log" 2>&1 </dev/null || {
    cat "$ORCH_STEP/ufw.log" >&2
    die 'ufw reload failed (above).'
  }
}

# What the kernel held before the first change: the policies, and DOCKER-USER (no file, if there was none).
keep_live() {
  [ ! -e "$ORCH_STEP/was" ] || return 0
  for _tables in $(tables); do
    for _chain in INPUT FORWARD OUTPUT; do $_tables -w 5 -S $_chain | sed -n 's/^-P //p'; done >"$ORCH_STEP/policies.$_tables"
    $_tables -w 5 -S DOCKER-USER >"$ORCH_STEP/docker-user.$_tables" 2>/dev/null || rm -f "$ORCH_STEP/docker-user.$_tables"
  done
  if ufw_enabled; then echo on; else echo off; fi | write_atomically "$ORCH_STEP/was"
  sync "$ORCH_STEP"
}

# DOCKER-USER as it was. Docker's own rules jump to it: it can be emptied, not removed.
restore_docker_user() {
  for _tables in $(tables); do
    $_tables -w 5 -S DOCKER-USER >/dev/null 2>&1 || continue
    {
      echo '*filter'
      echo ':DOCKER-USER - [0:0]'
      [ ! -e "$ORCH_STEP/docker-user.$_tables" ] || sed 1d "$ORCH_STEP/docker-user.$_tables"
      echo COMMIT
    } | "$_tables-restore" -w 5 --noflush
    [ -e "$ORCH_STEP/docker-user.$_tables" ] || $_tables -w 5 -X DOCKER-USER 2>/dev/null || : # Docker uses it by now
  done
}

restore_policies() {
  for _tables in $(tables); do
    [ -e "$ORCH_STEP/policies.$_tables" ] || continue
    while read -r _chain _policy; do $_tables -w 5 -P "$_chain" "$_policy"; done <"$ORCH_STEP/policies.$_tables"
  done
}
