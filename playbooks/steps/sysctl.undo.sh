# The file and the kernel's values as they were.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"

restore_files
for file in before.sysctl.*; do
  [ -e "$file" ] || continue
  path=/proc/sys/$(printf '%s' "${file#before.sysctl.}" | tr : /)
  dd if="$file" of="$path" bs=4096 conv=notrunc status=none || say "${path#/proc/sys/} could not be set back to $(cat "$file")."
done
