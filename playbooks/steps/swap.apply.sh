# Swap: /swapfile of SIZE MiB, in use now and at boot; 0: none of ours.
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
SIZE=0
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

case $SIZE in '' | *[!0-9]* | 0?*) die "SIZE is a number of MiB, not \"$SIZE\"." ;; esac
find_container
if [ -n "$container" ]; then
  [ "$SIZE" = 0 ] || say "This machine is a container ($container): swap is its machine's affair, and can't be made here. Nothing is changed."
  tell_changes
  exit 0
fi

size=$((SIZE * 1048576))
others=$(swapon --show=NAME,SIZE --bytes --noheadings --raw | awk -v ours="$swapfile" '$1 != ours { sum += $2 } END { printf "%d", sum }')
was=absent
if [ -L "$swapfile" ] || { [ -e "$swapfile" ] && [ ! -f "$swapfile" ]; }; then
  die "$swapfile is no plain file. Nothing was changed."
elif [ -f "$swapfile" ]; then
  was=$(stat -c '%s %a' "$swapfile")
  if swap_active; then was="$was active"; else was="$was unused"; fi
fi
# shellcheck disable=SC2086 # words
set -- $was
ours=0
if grep -qsxF "$swap_comment" /etc/fstab; then ours=1; fi

# What /etc/fstab becomes, with the line or without.
fstab() {
  if [ "$SIZE" != 0 ]; then
    cat /etc/fstab
    grep -qsE "^${swapfile}[[:blank:]]+[^[:blank:]]+[[:blank:]]+swap" /etc/fstab || printf '%s\n' "$swap_comment" "$swap_line"
  else
    grep -vxF -e "$swap_comment" -e "$swap_line" /etc/fstab || [ $? = 1 ] # 1: nothing else stood there
  fi
}

if [ "$SIZE" = 0 ]; then
  if [ $ours = 1 ]; then
    if [ "$was" != absent ]; then
      echo "- $(($1 / 1048576)) MiB" >detail
      change delete 'swap file' detail
    fi
  elif [ "$was" != absent ]; then
    say "$swapfile is somebody else's (no line of ours in /etc/fstab): it stays."
    tell_changes
    exit 0
  fi
elif [ "$was" = absent ] && [ "$others" -ge $((size * 9 / 10)) ]; then
  say "This machine has $((others / 1048576)) MiB of swap already: no swap file is made."
  tell_changes
  exit 0
elif [ "$was" != "$size 600 active" ]; then
  if [ "$was" = absent ] || [ "$1" != "$size" ]; then
    free=$(df -P -B1 / | awk 'END { print $(NF - 2) }')
    [ "$was" = absent ] || free=$((free + $1))
    [ "$free" -ge $((size + 1073741824)) ] ||
      die "A swap file of $SIZE MiB would leave less than 1 GiB on /: $((free / 1048576)) MiB are free. Nothing was changed."
  fi
  {
    [ "$was" = absent ] || echo "- $(($1 / 1048576)) MiB, mode $2, $3"
    echo "+ $SIZE MiB, mode 600, active"
  } >detail
  action=update
  [ "$was" != absent ] || action=create
  change $action 'swap file' detail
fi

# Its line for the boot: behind the file when it comes, before it when it goes.
write_fstab() {
  [ -e /etc/fstab ] || [ "$SIZE" != 0 ] || return 0
  fstab 2>/dev/null >fstab.new || [ ! -e /etc/fstab ]
  mode=$(stat -c %a /etc/fstab 2>/dev/null) || mode=644
  ensure_file /etc/fstab root:root "$mode" <fstab.new
  if [ $changed = 1 ] && ! checking; then systemctl daemon-reload; fi
}

checking || remember swap "$was"
[ "$SIZE" != 0 ] || write_fstab
if ! checking && [ "$SIZE" = 0 ]; then
  if [ $ours = 1 ]; then remove_swapfile || die "Memory has no room for what lies in $swapfile: it stays in use until the next boot."; fi
elif ! checking; then
  if [ "$was" = absent ] || [ "$1" != "$size" ]; then
    [ "$was" = absent ] || remove_swapfile || die "Memory has no room for what lies in $swapfile: it keeps its size."
    make_swapfile "$size" || die "The kernel refuses $swapfile as swap (above)."
  else
    chmod 600 "$swapfile"
    swap_active || swapon "$swapfile" || {
      mkswap "$swapfile" >/dev/null
      swapon "$swapfile"
    }
  fi
fi
[ "$SIZE" = 0 ] || write_fstab
tell_changes
