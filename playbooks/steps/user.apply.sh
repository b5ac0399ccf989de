# The user who deploys: an account without a password, its keys, sudo without a password.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
NAME='' SUDO=1 FROM='' REVERT=180
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
case $NAME in '' | [!a-z_]* | *[!a-z0-9_.-]*) die "Not a name for a user: $NAME" ;; esac
drop_in=/etc/sudoers.d/90-orchestrate-$(printf '%s' "$NAME" | tr . _) # sudo passes over names with a dot
remembered=$ORCH_STATE/keys.$NAME

# Sets there, home and group of the account, or what they will be.
look_up() {
  there=0 home=/home/$NAME group=$NAME
  _entry=$(getent passwd "$NAME") || return 0
  there=1
  home=$(printf '%s\n' "$_entry" | cut -d: -f6)
  group=$(id -gn "$NAME")
}

# What is wrong with an account that is there, as lines of detail. Root's is nobody's to change.
account_faults() {
  [ "$NAME" != root ] || return 0
  _shell=${_entry##*:}
  [ "$_shell" = /bin/bash ] || echo "~ shell $_shell -> /bin/bash"
  # No hash begins with these.
  case $(getent shadow "$NAME" | cut -d: -f2) in '*'* | '!'*) ;; *) echo '~ password -> none' ;; esac
  [ -z "$(getent shadow "$NAME" | cut -d: -f8)" ] || echo '~ expires -> never'
}

# Before its first change, for undo. A hash, if there was one, stays in this directory, which is root's alone.
account_before() {
  if [ "$there" = 1 ]; then
    printf 'there\n%s\n' "$_entry"
    getent shadow "$NAME"
  else
    _group=made _home=made
    ! getent group "$NAME" >/dev/null || _group=there
    [ ! -e "$home" ] || _home=there
    echo "absent $_group $_home"
  fi
}

ensure_account() {
  look_up
  if [ $there = 0 ]; then
    printf '+ %s\n' "home $home" 'shell /bin/bash' 'no password' >"$ORCH_STEP/faults"
    change create "user $NAME" "$ORCH_STEP/faults"
    checking && return 0
    write_atomically "$ORCH_STEP/account" account_before
    sync "$ORCH_STEP"
    if getent group "$NAME" >/dev/null; then set -- --gid "$NAME"; else set -- --user-group; fi
    # An asterisk: no password fits. With an exclamation mark, sshd without PAM would let nobody in at all.
    useradd "$@" --create-home --home-dir "$home" --shell /bin/bash --password '*' "$NAME"
    look_up
    return 0
  fi
  account_faults >"$ORCH_STEP/faults"
  if [ -s "$ORCH_STEP/faults" ]; then
    change update "user $NAME" "$ORCH_STEP/faults"
    checking && return 0
    write_atomically "$ORCH_STEP/account" account_before
    sync "$ORCH_STEP"
    usermod --shell /bin/bash --expiredate '' "$NAME"
    ! grep -q '^~ password' "$ORCH_STEP/faults" || usermod --password '*' "$NAME"
  fi
}

ensure_sudo() {
  [ "$NAME" != root ] || return 0
  if [ "$SUDO" = 0 ]; then
    ensure_absent "$drop_in"
    return 0
  fi
  printf '%s\n' '# Written by orchestrate bootstrap.' "$NAME ALL=(ALL:ALL) NOPASSWD: ALL" >"$ORCH_STEP/sudoers"
  if have visudo; then
    visudo -cqf "$ORCH_STEP/sudoers" || die "sudo doesn't take $drop_in (above)."
  elif ! checking; then
    die "There is no sudo here: the step packages should have installed it."
  fi
  ensure_file "$drop_in" root:root 0440 <"$ORCH_STEP/sudoers"
  # A fault in any of its files makes sudo refuse everybody.
  checking || [ $changed = 0 ] || visudo -cq || die "sudo's settings have a fault (above)."
}

# FILE WHERE: each of its lines must be a key that OpenSSH reads; one at least.
check_keys() {
  _keys=0
  while IFS= read -r _line || [ -n "$_line" ]; do
    case $_line in '' | '#'*) continue ;; esac
    printf '%s\n' "$_line" >"$ORCH_STEP/key"
    ssh-keygen -l -f "$ORCH_STEP/key" >/dev/null 2>&1 || die "Not a key, in $2: $(printf '%.40s' "$_line")..."
    _keys=1
  done <"$1"
  rm -f "$ORCH_STEP/key"
  [ $_keys = 1 ] || die "There is no key for $NAME in $2: nobody could get in."
}

# The keys that NAME is to have, into wanted.keys: the given ones, else those with which the first bootstrap got in.
choose_keys() {
  if [ -f "$ORCH_STEP/keys" ]; then
    cp "$ORCH_STEP/keys" "$ORCH_STEP/wanted.keys"
    check_keys "$ORCH_STEP/wanted.keys" 'the inventory'
  elif [ -s "$remembered" ]; then
    cp "$remembered" "$ORCH_STEP/wanted.keys"
  else
    _from=${FROM:-${SUDO_USER:-root}}
    _file=$(getent passwd "$_from" | cut -d: -f6)/.ssh/authorized_keys
    look "$_file" gone >/dev/null
    # Cloud images let root in only to be told another user's name.
    grep -v '^[^#]*command="' "$ORCH_STEP/found" >"$ORCH_STEP/wanted.keys" 2>/dev/null || : # check_keys finds none then
    check_keys "$ORCH_STEP/wanted.keys" "$_file: name the keys in the inventory"
    checking || {
      : >"$ORCH_STEP/remembered"
      sync "$ORCH_STEP/remembered" "$ORCH_STEP"
      write_atomically "$remembered" <"$ORCH_STEP/wanted.keys"
    }
  fi
}

# sshd passes over keys that somebody else could have written.
ensure_home() {
  [ "$there" = 1 ] || return 0
  _mode=750
  [ ! -d "$home" ] || _mode=$(stat -c %a "$home") # 0 in front, below: octal
  ensure_directory "$home" "$NAME:$group" "$(printf '%o' $((0$_mode & 07755)))"
}

ensure_keys() {
  ensure_home
  ensure_directory "$home/.ssh" "$NAME:$group" 0700
  ensure_file "$home/.ssh/authorized_keys" "$NAME:$group" 0600 <"$ORCH_STEP/wanted.keys"
  # Debian's sshd reads this one, too.
  ensure_absent "$home/.ssh/authorized_keys2"
}

converge() {
  ensure_account
  ensure_sudo
  ensure_keys
}

choose_keys
if checking; then
  converge
elif would_change converge; then
  arm_revert "$REVERT"
  converge
fi
rm -f "$ORCH_STEP/wanted.keys" "$ORCH_STEP/sudoers" "$ORCH_STEP/faults" "$ORCH_STEP/found"
tell_changes
