# shellcheck shell=sh disable=SC2034 # what it sets is for those who source it
# Services, and what of a host isn't a file: what it was before, for the undo. Sourced behind system.sh by the steps of bootstrap.

# NAME TEXT: keeps what it was before the first change, on the disk before that change. The first word counts: an apply that is run again
# sees what the one before it has made.
remember() {
  [ ! -e "$ORCH_STEP/before.$1" ] || return 0
  printf '%s\n' "$2" >"$ORCH_STEP/.before"
  sync "$ORCH_STEP/.before"
  mv "$ORCH_STEP/.before" "$ORCH_STEP/before.$1"
  sync "$ORCH_STEP"
}

# NAME: the text in REPLY; fails where nothing was kept.
remembered() {
  [ -e "$ORCH_STEP/before.$1" ] || return 1
  REPLY=$(cat "$ORCH_STEP/before.$1")
}

# The name of the container that this machine is, in container; empty on a machine of its own.
find_container() {
  container=$(systemd-detect-virt -c 2>/dev/null) || container=
}

# UNIT: sets loaded (LoadState), enabled (UnitFileState) and active (ActiveState).
unit_state() {
  loaded='' enabled='' active=''
  while IFS='=' read -r _name _value; do
    case $_name in
      LoadState) loaded=$_value ;;
      UnitFileState) enabled=$_value ;;
      ActiveState) active=$_value ;;
    esac
  done <<STATE
$(systemctl show -p LoadState,UnitFileState,ActiveState "$1")
STATE
}

# UNIT: not masked, enabled at boot, and running now. Sets changed.
ensure_unit() {
  changed=0
  unit_state "$1"
  if [ "$loaded" = not-found ]; then
    checking || die "There is no unit $1 on this host: the package that brings it isn't installed."
    printf '+ enabled, running\n' >"$ORCH_STEP/detail"
    change create "service $1" "$ORCH_STEP/detail"
    changed=1
    return 0
  fi
  _was=
  case $enabled in masked* | disabled) _was=$enabled ;; esac
  case $active in active | activating | reloading) ;; *) _was="$_was${_was:+, }$active" ;; esac
  [ -n "$_was" ] || return 0
  changed=1
  printf '%s\n' "- $_was" '+ enabled, running' >"$ORCH_STEP/detail"
  change update "service $1" "$ORCH_STEP/detail"
  ! checking || return 0
  remember "unit-$1" "$enabled $active"
  case $enabled in
    masked*)
      systemctl -q unmask "$1"
      systemctl -q unmask --runtime "$1"
      # What the mask has hidden.
      unit_state "$1"
      remember "under-$1" "$enabled"
      ;;
  esac
  [ "$enabled" != disabled ] || systemctl -q enable "$1"
  systemctl reset-failed "$1" 2>/dev/null || : # it hasn't failed
  systemctl start "$1" || die "The service $1 doesn't start: $(unit_reason "$1")"
}

# UNIT: a restart that isn't refused because there were some just before.
restart_unit() {
  systemctl reset-failed "$1" 2>/dev/null || : # it hasn't failed
  systemctl restart "$1"
}

# UNIT: why it isn't well, as far as systemd and its journal know.
unit_reason() {
  _said=$(journalctl -q --no-pager -o cat -n 5 -u "$1" 2>/dev/null) || _said=
  printf '%s\n' "${_said:-see systemctl status $1.}"
}

# Undo: each unit that ensure_unit touched is enabled and running as before, the last first.
restore_units() {
  for _file in "$ORCH_STEP"/before.unit-*; do
    [ -e "$_file" ] || continue
    _unit=${_file##*/before.unit-}
    read -r _enabled _active <"$_file"
    case $_active in active | activating | reloading) ;; *) systemctl stop "$_unit" || say "The service $_unit could not be stopped." ;; esac
    case $_enabled in
      disabled) systemctl -q disable "$_unit" ;;
      masked*)
        ! remembered "under-$_unit" || [ "$REPLY" != disabled ] || systemctl -q disable "$_unit"
        case $_enabled in
          masked) systemctl -q mask "$_unit" ;;
          *) systemctl -q mask --runtime "$_unit" ;;
        esac
        ;;
    esac
  done
}
