# The distribution's packages: what is missing is installed, what is there stays as it is. Nothing is undone: other things may use them by then.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/apt.sh
. "$ORCH_BUNDLE/apt.sh"
INSTALL=
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

# NAME…: those that aren't installed whole, a line each.
missing() {
  [ $# -gt 0 ] || return 0
  # It complains about every name that it doesn't know.
  # shellcheck disable=SC2016 # dpkg's
  dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null >"$ORCH_STEP/known" || :
  {
    sed 's/^/= /' "$ORCH_STEP/known"
    printf '%s\n' "$@"
  } | awk '$1 == "=" { if ($3 == "installed") there[$2] = 1; next } !($1 in there)'
}

eval "set -- $INSTALL"
for name in "$@"; do
  case $name in '' | -* | *[!a-z0-9.+-]*) die "Not the name of a package: $name" ;; esac
done
have dpkg-query || die 'There is no dpkg here: only Debian and Ubuntu are prepared.'

# On a new machine cloud-init may still be installing things, and changing sshd's settings.
if ! checking && have cloud-init && [ ! -e /run/cloud-init/result.json ]; then
  say 'Waiting for cloud-init.'
  _status=0
  timeout 900 cloud-init status --wait >"$ORCH_STEP/cloud-init.log" 2>&1 || _status=$?
  # 2: it has ended, with errors that it recovered from. What it failed at isn't ours to judge; what we need, we look at ourselves.
  [ $_status = 0 ] || say "cloud-init has ended with status $_status: $(tail -n 1 "$ORCH_STEP/cloud-init.log")"
fi

missing "$@" >"$ORCH_STEP/missing"
if ! checking && [ -s "$ORCH_STEP/missing" ]; then
  # After a power loss in the middle of an installation.
  if [ -n "$(dpkg --audit 2>/dev/null)" ]; then
    say 'An installation was interrupted: it is finished first.'
    DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a ||
      say 'That did not go through; apt may mend it.'
  fi
fi
while read -r name; do change create "package $name"; done <"$ORCH_STEP/missing"
if ! checking && [ -s "$ORCH_STEP/missing" ]; then
  # shellcheck disable=SC2046 # names without blanks
  install_packages $(cat "$ORCH_STEP/missing")
  missing "$@" >"$ORCH_STEP/missing"
  [ ! -s "$ORCH_STEP/missing" ] || die "Still missing after the installation: $(tr '\n' ' ' <"$ORCH_STEP/missing")"
fi
tell_changes
