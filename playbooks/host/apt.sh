# shellcheck shell=sh
# apt, beside others who use it. Sourced behind system.sh by the steps that install packages.

# apt-get, with patience for whoever else is at it.
apt() {
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a APT_LISTCHANGES_FRONTEND=none \
    apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# The lists have a lock of their own, for which apt doesn't wait. A mirror may be gone for a moment, too.
update_lists() {
  _tries=0
  while :; do
    # Without it a mirror that doesn't answer is a warning, and the lists are yesterday's.
    if apt -o APT::Update::Error-Mode=any update >"$ORCH_STEP/update.log" 2>&1; then return 0; fi
    _tries=$((_tries + 1))
    if grep -q 'Could not get lock\|Unable to lock' "$ORCH_STEP/update.log"; then
      [ $_tries != 1 ] || say 'Somebody else updates the package lists: waiting.'
      [ $_tries -lt 150 ] || break
      sleep 2
    else
      [ $_tries -lt 3 ] || break
      sleep 3
    fi
  done
  cat "$ORCH_STEP/update.log" >&2
  say 'The package lists could not be updated (above). What is known already may do.'
}
