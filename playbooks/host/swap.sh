# shellcheck shell=sh disable=SC2034 # what it sets is for those who source it
# The swap file. Sourced by the steps swap.apply.sh and swap.undo.sh.

swapfile=/swapfile
swap_comment='# The swap file of orchestrate bootstrap (step swap).'
swap_line="$swapfile none swap sw 0 0"

swap_active() { swapon --show=NAME --noheadings --raw | grep -qxF "$swapfile"; }

# BYTES: a swap file of that size, in use only once it is whole.
make_swapfile() {
  _new=/.swapfile.orchestrate-new
  rm -f "$_new"
  : >"$_new"
  # On btrfs a swap file must not be copied on write.
  [ "$(stat -f -c %T "$_new")" != btrfs ] || chattr +C "$_new"
  fallocate -l "$1" "$_new" 2>/dev/null || dd if=/dev/zero of="$_new" bs=1M count=$(($1 / 1048576)) status=none || {
    rm -f "$_new"
    die "The swap file of $(($1 / 1048576)) MiB can't be written."
  }
  chmod 600 "$_new"
  mkswap "$_new" >/dev/null
  sync "$_new"
  mv -f "$_new" "$swapfile"
  sync /
  swapon "$swapfile" && return 0
  # Some file systems refuse a file with blocks that were never written.
  dd if=/dev/zero of="$swapfile" bs=1M count=$(($1 / 1048576)) conv=notrunc,fsync status=none
  mkswap "$swapfile" >/dev/null
  swapon "$swapfile"
}

# Gives the file up; fails, and nothing has changed, where memory has no room for what lies in it.
remove_swapfile() {
  if swap_active; then swapoff "$swapfile" || return 1; fi
  rm -f "$swapfile" /.swapfile.orchestrate-new
  sync /
}
