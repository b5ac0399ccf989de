# shellcheck shell=sh
# Kernel settings. Sourced by the steps sysctl.apply.sh and sysctl.undo.sh.

# KEY: its file in REPLY. As in sysctl.d(5): whichever of . and / comes first separates, and the other one is part of a name.
sysctl_path() {
  case ${1#"${1%%[./]*}"} in
    .*) REPLY=/proc/sys/$(printf '%s' "$1" | tr './' '/.') ;;
    *) REPLY=/proc/sys/$1 ;;
  esac
}

# PATH: its value in REPLY, its columns divided by one blank each; fails if the kernel has no such setting, or doesn't tell.
sysctl_value() {
  [ -e "$1" ] && _value=$(cat "$1" 2>/dev/null) || return 1
  REPLY=$(printf '%s' "$_value" | tr -s ' \t\n' ' ')
}
