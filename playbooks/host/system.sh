# shellcheck shell=sh disable=SC2034,SC2030,SC2031 # what it sets is for those who source it; a rehearsal keeps its own
# What the steps of a bootstrap share: changes to the machine itself that are looked at first, told exactly, and put back by undo.
# Sourced after lib.sh, as root. docs/bootstrap.md explains. Descriptors 6 and 7 are used here; 8 and 9 are the runner's locks.
# Nothing here follows a symbolic link that lies where somebody else than root may write, nor opens a path that such a person could swap.

changes_file=$ORCH_STEP/changes
changed=0
rehearsing=

# Is this a plan (or a rehearsal): look and tell, change nothing?
checking() { [ "$ORCH_N" = 0 ] || [ -n "$rehearsing" ]; }

have() { command -v "$1" >/dev/null 2>&1; }

# COMMAND…: would it change anything? It runs as in a plan, and what it tells is forgotten.
would_change() {
  (
    rehearsing=1
    changes_file=$ORCH_STEP/rehearsed
    rm -f "$changes_file"
    "$@"
  ) || die "${ORCH_STEP##*/}: looking at what is there failed."
  [ -s "$ORCH_STEP/rehearsed" ]
}

# ---- telling

# Lines on stdin, made fit for a log and for JSON: no control characters, valid UTF-8, at most 240 bytes each, at most 40 of them.
tidy_lines() {
  LC_ALL=C awk '
    NR <= 40 { gsub(/[\001-\010\013-\037\177]/, "?"); print (length($0) > 240) ? substr($0, 1, 240) "..." : $0 }
    END { if (NR > 40) print "~ ... and " NR - 40 " more lines" }' |
    if have iconv; then iconv -c -f UTF-8 -t UTF-8 2>/dev/null || :; else cat; fi # its complaint about what it left out
}

# ACTION SUBJECT [FILE]: a change. ACTION create|update|delete|run; FILE: lines of detail that begin with "+ ", "- ", "~ " or two blanks.
change() {
  : >"$ORCH_STEP/detail.tidy"
  [ -z "${3-}" ] || tidy_lines <"$3" >"$ORCH_STEP/detail.tidy"
  {
    printf '{"action":"%s","subject":' "$1"
    json_string "$2"
    printf ',"detail":['
    LC_ALL=C sed -e 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g; s/.*/"&"/' "$ORCH_STEP/detail.tidy" | paste -sd , | tr -d '\n'
    printf ']}\n'
  } >>"$changes_file"
  checking || {
    say "$1 $2"
    sed 's/^/    /' "$ORCH_STEP/detail.tidy"
  }
  rm -f "$ORCH_STEP/detail.tidy"
}

# The last line of every apply: all changes as one fact.
tell_changes() {
  [ -e "$changes_file" ] || : >"$changes_file"
  fact changes "[$(paste -sd , "$changes_file")]"
}

# ---- looking

# May nobody but root write to the working directory? (Where the tests run as somebody, nobody but he.)
only_ours() {
  # shellcheck disable=SC2046 # three words
  set -- $(stat -c '%u %g %a' .)
  [ "$1" = 0 ] || [ "$1" = "$(id -u)" ] || return 1
  case $3 in *[2367]) return 1 ;; *[2367]?) [ "$2" = 0 ] || return 1 ;; esac
}

# PATH: goes into the directory that holds it and sets _name; fails if that isn't there. In a subshell. From here on the path can't be swapped:
# the working directory is held by its inode.
enter() {
  case $1 in /*[![:cntrl:]]) ;; *) die "Not an absolute path: $1" ;; esac
  case $1/ in *//* | */./* | */../* | *[[:cntrl:]]*) die "Not a plain path: $1" ;; esac
  cd -P / || return 1
  _name=${1#/}
  while :; do
    case $_name in */*) ;; *) return 0 ;; esac
    _part=${_name%%/*}
    _name=${_name#*/}
    if [ -L "./$_part" ]; then
      only_ours || die "${PWD%/}/$_part is a symbolic link where somebody else than root may write: it isn't followed."
      [ -d "./$_part" ] && cd -P "./$_part" || return 1
    elif [ -d "./$_part" ]; then
      _expected=${PWD%/}/$_part
      cd -P "./$_part" || return 1
      [ "$PWD" = "$_expected" ] || die "$_expected was swapped for something else while we looked."
    elif [ -e "./$_part" ]; then
      die "${PWD%/}/$_part is not a directory."
    else
      return 1
    fi
  done
}

# PATH [gone]: prints "absent" (with `gone` also where its directory is missing), or "<file|link|directory> OWNER:GROUP UID:GID MODE"; a file's content (a link's target) into $ORCH_STEP/found.
look() (
  enter "$1" || {
    checking || [ "${2-}" = gone ] || die "The directory of $1 is missing."
    echo absent
    exit 0
  }
  if [ -L "./$_name" ]; then
    readlink -n "./$_name" >"$ORCH_STEP/found"
    _kind='link'
  elif [ -d "./$_name" ]; then
    _kind='directory'
  elif [ -f "./$_name" ]; then
    # It may have become a link since.
    dd if="./$_name" iflag=nofollow,nonblock bs=65536 status=none >"$ORCH_STEP/found" || die "$1 can't be read."
    _kind='file'
  elif [ -e "./$_name" ]; then
    die "$1 is neither a file nor a directory."
  else
    echo absent
    exit 0
  fi
  stat -c "$_kind %U:%G %u:%g %a" "./$_name"
)

# OWNER:GROUP: is it what `set -- KIND NAMES IDS MODE` says, by names or by numbers?
same_owner() { [ "$1" = "$2" ] || [ "$1" = "$3" ]; }

# MODE: without leading zeros, as stat prints it.
plain_mode() {
  REPLY=$1
  while case $REPLY in 0?*) ;; *) false ;; esac; do REPLY=${REPLY#0}; done
}

# OLD NEW: the difference, as lines of detail.
differences() {
  LC_ALL=C diff -U 1 "$1" "$2" | LC_ALL=C sed -n \
    -e '1,2d' -e '/^\\/d' -e 's/^@@ -[0-9,]* +\([0-9]*\).*/~ line \1/p' -e 's/^[-+ ]/& /p'
}

# SECRET: what `found` and `wanted` differ in.
tell_content() {
  if cmp -s "$ORCH_STEP/found" "$ORCH_STEP/wanted"; then
    return 0
  elif [ "$1" = secret ]; then
    echo '~ the content differs'
  else
    differences "$ORCH_STEP/found" "$ORCH_STEP/wanted" >"$ORCH_STEP/difference"
    # Where one of both is empty, the place says nothing.
    if [ ! -s "$ORCH_STEP/found" ] || [ ! -s "$ORCH_STEP/wanted" ]; then sed -i '/^~ line /d' "$ORCH_STEP/difference"; fi
    [ -s "$ORCH_STEP/difference" ] || echo '~ the content differs (not a text)' >"$ORCH_STEP/difference"
    cat "$ORCH_STEP/difference"
    rm -f "$ORCH_STEP/difference"
  fi
}

# ---- changing

# What an interrupted change leaves beside PATH's last part. Neither sudo, sshd, apt, systemd nor cron reads such a name.
new_name() { REPLY=./.$1.orchestrate-new; }

# PATH OWNER MODE SOURCE: SOURCE's content becomes PATH: temporary name, fsync, rename, fsync of the directory.
put_file() (
  enter "$1" || die "The directory of $1 is missing."
  new_name "$_name"
  _new=$REPLY
  rm -f "$_new"
  # Made, never opened: whoever owns the directory may put a link of that name here. And from then on it is spoken of by its descriptor.
  set -C
  exec 7>"$_new"
  set +C
  if cat "$4" >&7 && chown "$2" /proc/self/fd/7 && chmod "$3" /proc/self/fd/7 && sync /proc/self/fd/7 && mv -fT "$_new" "./$_name"; then
    sync .
  else
    rm -f "$_new"
    die "$1 can't be written."
  fi
)

# PATH TARGET-FILE: a symbolic link, put in place at once.
put_link() (
  enter "$1" || die "The directory of $1 is missing."
  new_name "$_name"
  rm -f "$REPLY" && ln -s "$(cat "$2")" "$REPLY" && mv -fT "$REPLY" "./$_name" && sync .
)

# PATH: removes a file or link, or an empty directory.
remove_path() (
  enter "$1" || exit 0
  new_name "$_name"
  rm -f "$REPLY"
  if [ -d "./$_name" ] && [ ! -L "./$_name" ]; then
    rmdir "./$_name" 2>/dev/null || say "$1 stays: something else lies in it."
  else
    rm -f "./$_name" || exit 1
  fi
  sync .
)

# PATH OWNER MODE: of a directory that is there.
set_directory() (
  enter "$1/x" || exit 1
  chown "$2" . && chmod "$3" . && sync .
)

# PATH KIND NAMES IDS MODE: keeps the old state, content in `found`, before the first change of that path.
save_old() {
  for _entry in "$ORCH_STEP"/saved/[0-9]*; do
    [ ! -e "$_entry/path" ] || [ "$(cat "$_entry/path")" != "$1" ] || return 0
  done
  mkdir -p "$ORCH_STEP/saved"
  set -- "$@" - - -
  _count=1000
  while [ -e "$ORCH_STEP/saved/${_count#1}" ] || [ -e "$ORCH_STEP/saved/restored-${_count#1}" ]; do _count=$((_count + 1)); done
  _entry=$ORCH_STEP/saved/.new
  rm -rf "$_entry"
  mkdir "$_entry"
  printf '%s\n' "$1" >"$_entry/path"
  printf '%s %s %s\n' "$2" "$4" "$5" >"$_entry/state"
  case $2 in file | link) cp "$ORCH_STEP/found" "$_entry/content" ;; *) : >"$_entry/content" ;; esac
  sync "$_entry/path" "$_entry/state" "$_entry/content" "$_entry"
  mv -T "$_entry" "$ORCH_STEP/saved/${_count#1}"
  sync "$ORCH_STEP/saved" "$ORCH_STEP"
}

# PATH: keeps what is there now, before a program of somebody else's changes it; restore_files puts it back.
keep_old() {
  checking && return 0
  rm -f "$ORCH_STEP/found"
  _state=$(look "$1" gone) || exit 1
  # shellcheck disable=SC2086 # words
  save_old "$1" $_state
  rm -f "$ORCH_STEP/found"
}

# PATH OWNER:GROUP MODE [secret]: a file of the content on stdin. Sets changed.
ensure_file() {
  cat >"$ORCH_STEP/wanted"
  changed=0
  plain_mode "$3"
  _file=$1 _owner=$2 _mode=$REPLY _secret=${4-}
  rm -f "$ORCH_STEP/found"
  _state=$(look "$_file") || exit 1
  # shellcheck disable=SC2086 # words
  set -- $_state
  _action=update
  case $1 in
    absent)
      _action=create
      : >"$ORCH_STEP/found"
      if [ "$_secret" = secret ]; then :; else tell_content "$_secret"; fi
      ;;
    file)
      tell_content "$_secret"
      same_owner "$_owner" "$2" "$3" || echo "~ owner $2 -> $_owner"
      [ "$_mode" = "$4" ] || echo "~ mode $4 -> $_mode"
      ;;
    link) echo "~ a symbolic link to $(cat "$ORCH_STEP/found") -> a file" ;;
    *) die "$_file is a directory, and should be a file." ;;
  esac >"$ORCH_STEP/detail"
  if [ -s "$ORCH_STEP/detail" ] || [ $_action = create ]; then
    changed=1
    checking || save_old "$_file" "$@"
    change $_action "file $_file" "$ORCH_STEP/detail"
    checking || put_file "$_file" "$_owner" "$_mode" "$ORCH_STEP/wanted"
  fi
  rm -f "$ORCH_STEP/wanted" "$ORCH_STEP/found" "$ORCH_STEP/detail"
}

# PATH OWNER:GROUP MODE: a directory; its own one must be there. A link to one, put up by root, is fine.
ensure_directory() {
  changed=0
  plain_mode "$3"
  _file=$1 _owner=$2 _mode=$REPLY
  : >"$ORCH_STEP/detail"
  if _state=$(enter "$_file/x" && stat -c 'directory %U:%G %u:%g %a' .); then
    # shellcheck disable=SC2086 # words
    set -- $_state
    same_owner "$_owner" "$2" "$3" || echo "~ owner $2 -> $_owner" >>"$ORCH_STEP/detail"
    [ "$_mode" = "$4" ] || echo "~ mode $4 -> $_mode" >>"$ORCH_STEP/detail"
    _action=update
    [ -s "$ORCH_STEP/detail" ] || _action=
  else
    rm -f "$ORCH_STEP/found"
    _state=$(look "$_file") || exit 1
    [ "$_state" = absent ] || die "$_file is in the way of a directory."
    set -- absent
    _action=create
  fi
  if [ -n "$_action" ]; then
    changed=1
    checking || save_old "$_file" "$@"
    change $_action "directory $_file" "$ORCH_STEP/detail"
    checking || {
      # The umask keeps others out until it has its owner.
      [ $_action = update ] || (enter "$_file" && mkdir "./$_name" && sync .) || die "$_file can't be made."
      set_directory "$_file" "$_owner" "$_mode" || die "$_file can't be given to $_owner."
    }
  fi
  rm -f "$ORCH_STEP/detail"
}

# PATH [secret]: no file, no link there.
ensure_absent() {
  changed=0
  _file=$1 _secret=${2-}
  rm -f "$ORCH_STEP/found"
  _state=$(look "$_file" gone) || exit 1
  # shellcheck disable=SC2086 # words
  set -- $_state
  case $1 in
    absent) ;;
    directory) die "$_file is a directory, and should not be there." ;;
    *)
      changed=1
      : >"$ORCH_STEP/wanted"
      if [ "$1" = link ]; then
        echo "- a symbolic link to $(cat "$ORCH_STEP/found")"
      else
        tell_content "$_secret"
      fi >"$ORCH_STEP/detail"
      checking || save_old "$_file" "$@"
      change delete "file $_file" "$ORCH_STEP/detail"
      checking || remove_path "$_file"
      ;;
  esac
  rm -f "$ORCH_STEP/wanted" "$ORCH_STEP/found" "$ORCH_STEP/detail"
}

# ---- undo

# ENTRY: puts back what it keeps.
restore_entry() {
  read -r _restored <"$1/path"
  read -r _kind _ids _mode <"$1/state"
  case $_kind in
    absent) remove_path "$_restored" ;;
    file) put_file "$_restored" "$_ids" "$_mode" "$1/content" ;;
    link) put_link "$_restored" "$1/content" ;;
    directory) set_directory "$_restored" "$_ids" "$_mode" ;;
  esac
}

# Puts back, last first, what this step has saved. What is back is not put back again.
restore_files() {
  _failed=
  rm -rf "$ORCH_STEP/saved/.new"
  for _entry in $(cd "$ORCH_STEP" && find saved -mindepth 1 -maxdepth 1 -name '[0-9]*' 2>/dev/null | sort -r); do
    if restore_entry "$ORCH_STEP/$_entry"; then
      mv -T "$ORCH_STEP/$_entry" "$ORCH_STEP/saved/restored-${_entry##*/}"
      sync "$ORCH_STEP/saved"
    else
      say "$(cat "$ORCH_STEP/$_entry/path") could not be put back." >&2
      _failed=1
    fi
  done
  [ -z "$_failed" ]
}

# ---- the revert: an undo by the host itself, if nobody says in time that the operator still gets in

revert_unit() { REPLY=orchestrate-revert-${ORCH_STEP##*/}; }

# SECONDS: from now on this step is undone after that time, whatever becomes of runner and client.
arm_revert() {
  checking && return 0
  have systemd-run || die "There is no systemd-run here: a change that could lock you out can't be secured. Nothing was changed."
  revert_unit
  systemctl stop "$REPLY.timer" 2>/dev/null || : # of an earlier deployment
  systemctl reset-failed "$REPLY.timer" "$REPLY.service" 2>/dev/null || : # there is none
  rm -f "$ORCH_STEP/reverted"
  # shellcheck disable=SC2016 # for the unit's shell
  systemd-run --quiet --collect --unit="$REPLY" --description="Undo of ${ORCH_STEP##*/}, unless the operator is seen to get in" \
    --on-active="$1" --timer-property=AccuracySec=200ms --working-directory="$ORCH_STEP" --property=Type=oneshot \
    --setenv=PATH="$PATH" --setenv=LC_ALL=C --setenv=ORCH_REVERT=1 --setenv=ORCH_BUNDLE="$ORCH_BUNDLE" --setenv=ORCH_PROJECT="$ORCH_PROJECT" \
    --setenv=ORCH_N="$ORCH_N" --setenv=ORCH_STATE="$ORCH_STATE" --setenv=ORCH_OPT="$ORCH_OPT" \
    --setenv=ORCH_DEPLOYMENT="$ORCH_DEPLOYMENT" --setenv=ORCH_STEP="$ORCH_STEP" --setenv=ORCH_PREVIOUS="${ORCH_PREVIOUS-}" \
    /bin/sh -c 'n=0; until /bin/sh ./undo.sh; do n=$((n + 1)); [ $n -lt 5 ] || exit 1; sleep 3; done' ||
    die "The revert can't be armed (above). Nothing was changed."
  say "In $1 s this step is undone by the host itself, unless a new connection has been seen to get in."
}

# The first line of an undo.sh of a step that arms: there is one undo at a time from here on.
disarm_revert() {
  revert_unit
  if [ -n "${ORCH_REVERT-}" ]; then
    : >"$ORCH_STEP/reverted"
    printf '%s\n' "${ORCH_STEP##*/} is undone by the host: nobody has disarmed it in time." >>"$ORCH_DEPLOYMENT/log" || : # a full disk
    # An apply that hangs must not go on beside it: `pid` leads a process group of its own.
    first_line "$ORCH_STEP/pid"
    case $REPLY in
      '' | *[!0-9]*) ;;
      *) ! grep -qsxzF "ORCH_STEP=$ORCH_STEP" "/proc/$REPLY/environ" || kill -KILL "-$REPLY" 2>/dev/null || : ;; # gone in between
    esac
  elif have systemctl; then
    systemctl stop "$REPLY.timer" 2>/dev/null || : # it was never armed, or it has gone off
  fi
  exec 6>"$ORCH_STEP/undo.lock"
  flock -w 100 6 || die "The revert of ${ORCH_STEP##*/} is at work and doesn't come to its end."
}
