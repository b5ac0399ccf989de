# Puts the files back, then the account as it was; one that this step made goes, with its home.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
NAME=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
disarm_revert
restore_files
[ ! -e "$ORCH_STEP/remembered" ] || rm -f "$ORCH_STATE/keys.$NAME" "$ORCH_STATE/keys.$NAME".new.*
first_line "$ORCH_STEP/account"
before=$REPLY
case $before in
  there)
    { read -r _ && IFS=: read -r _ _ _ _ _ _ shell && IFS=: read -r _ hash changed_on _ _ _ _ expires _; } <"$ORCH_STEP/account"
    usermod --shell "$shell" --expiredate "$expires" "$NAME"
    # By its standard input: arguments are everybody's to read.
    printf '%s:%s\n' "$NAME" "$hash" | chpasswd -e
    [ -z "$changed_on" ] || chage --lastday "$changed_on" "$NAME"
    ;;
  absent*)
    # A home that was there before stays, whosever it was.
    remove=
    case $before in *' made') remove=--remove ;; esac
    if getent passwd "$NAME" >/dev/null; then
      # Whoever came in to prove the way.
      ! have loginctl || loginctl terminate-user "$NAME" 2>/dev/null || : # nobody is in
      for _process in /proc/[0-9]*; do
        [ "$(stat -c %U "$_process" 2>/dev/null)" != "$NAME" ] || kill -KILL "${_process#/proc/}" 2>/dev/null || : # gone by itself
      done
      # Forced: somebody may come in again at any moment, until the account is gone.
      userdel --force $remove "$NAME" >"$ORCH_STEP/userdel.log" 2>&1 || ! getent passwd "$NAME" >/dev/null || {
        cat "$ORCH_STEP/userdel.log" >&2
        die "The account $NAME can't be removed."
      }
    fi
    # Of a useradd, or a userdel, that was killed.
    case $before in 'absent made'*) ! getent group "$NAME" >/dev/null || groupdel "$NAME" ;; esac
    [ -z "$remove" ] || rm -rf "/home/${NAME:?}"
    ;;
esac
