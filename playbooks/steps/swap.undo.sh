# The line in /etc/fstab and the swap file as they were.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/swap.sh
. "$ORCH_BUNDLE/swap.sh"

restore_files
remembered swap || exit 0
# shellcheck disable=SC2086 # words
set -- $REPLY
if [ "$1" = absent ]; then
  remove_swapfile || say "Memory has no room for what lies in $swapfile: it stays in use until the next boot, without a line in /etc/fstab."
else
  if [ ! -f "$swapfile" ] || [ "$(stat -c %s "$swapfile")" != "$1" ]; then
    remove_swapfile && make_swapfile "$1"
  fi
  chmod "$2" "$swapfile"
  if [ "$3" = unused ] && swap_active; then swapoff "$swapfile"; fi
fi
systemctl daemon-reload
