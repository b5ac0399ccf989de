# shellcheck shell=sh disable=SC2015,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# What clients send into an open deployment: steps, and results of their own. Sourced by attach.sh.

# STEP: checks the directory that has arrived, and adds its scripts to those that it wants of the bundle. Says what is wrong.
complete_step() (
  case ${1##*/} in
    [0-9][0-9]-*[!a-z0-9_-]* | [!0-9]* | ?[!0-9]* | ??[!-]* | ???) die "${1##*/} is no name of a step." ;;
  esac
  cd "$1"
  KIND='' TIMEOUT=60 SIDE=host UNDO=0
  # shellcheck source=/dev/null
  . ./meta
  case $KIND in '' | *[!a-z0-9-]*) die "${1##*/}: no KIND." ;; esac
  case $TIMEOUT in '' | *[!0-9]* | 0*) die "${1##*/}: TIMEOUT must be seconds." ;; esac
  case $SIDE in host | client | commit) ;; *) die "${1##*/}: no SIDE is called $SIDE." ;; esac
  for _script in apply undo; do
    if [ -e "$_script.sh" ]; then
      :
    elif [ -e "$ORCH_BUNDLE/steps/$KIND.$_script.sh" ]; then
      printf '%s\0%s\0' "$ORCH_BUNDLE/steps/$KIND.$_script.sh" "$1/$_script.sh" >>"$scratch.scripts" ||
        die "${1##*/}: no space is left for its scripts." # a step without one would count as done
    else
      case $_script.$SIDE.$UNDO in
        apply.host.*) die "${1##*/}: there is no apply.sh for $KIND." ;;
        undo.*.[!0]*) die "${1##*/}: there is no undo.sh for $KIND." ;;
      esac
    fi
  done
  [ -e params ] || : >params
)

# Hard links, some at a time, or copies where the bundle is somebody else's, or on another file system.
link_scripts() {
  # shellcheck disable=SC2016 # for the inner shell
  [ ! -s "$scratch.scripts" ] || xargs -0 -n 2 -P 4 ln <"$scratch.scripts" 2>/dev/null ||
    xargs -0 -n 2 sh -c '[ -e "$1" ] || cp "$0" "$1"' <"$scratch.scripts"
}

# BYTES: a tar of step directories. Unpacked in $scratch; what is wrong with it in why.
unpack_steps() {
  forget_steps
  if take "$1" "$scratch.tar" && mkdir "$scratch" && why=$(tar -x -C "$scratch" --no-same-owner --no-same-permissions -f "$scratch.tar" 2>&1); then
    why=
  else
    why="The steps could not be unpacked: ${why:-no space}"
  fi
}

forget_steps() {
  rm -rf "$scratch" "$scratch".*
  why=
}

# What was unpacked, made whole and on the disk; what is wrong with it in why.
complete_steps() {
  # In `watch` lie the steps of the way back from a release that is to be watched.
  for _new in "$scratch"/* "$scratch"/watch/*/; do
    _new=${_new%/}
    [ -e "$_new" ] && [ "$_new" != "$scratch/watch" ] || continue # an empty tar, or one without
    why=$(complete_step "$_new" 2>&1) || return 0
  done
  link_scripts || {
    why='The scripts of the steps could not be written.'
    return 0
  }
  # A script with a second link is the bundle's, and was synced with it.
  find "$scratch" \( -type d -o -links 1 \) -print0 | sync_all || why='The steps could not be written.'
}

# In order, each by one rename. Nothing new: the directory is empty.
place_steps() {
  rmdir "$scratch" || mv "$scratch"/* "$deployment/"
  sync "$deployment"
  wake steps
}

# N BYTES: a tar of step directories. Those that are here already (sent again after a lost reply) stay as they are.
receive_steps() {
  unpack_steps "$2"
  if [ -n "$why" ]; then
    :
  elif ! must_be_open "$1"; then
    forget_steps
    return 0
  elif [ -e "$deployment/sealed" ]; then
    why='The deployment is sealed.'
  else
    for _new in "$scratch"/* "$scratch"/watch/*/; do
      _new=${_new%/}
      [ ! -d "$deployment/${_new#"$scratch/"}" ] || rm -rf "$_new"
    done
    complete_steps
  fi
  if [ -z "$why" ]; then
    place_steps
    reply ok ''
  else
    reply refused "$why"
  fi
  forget_steps
}

# N NN STATUS BYTES: what became of a client-side step.
receive_result() {
  take "$4" "$scratch" || : # facts are missing then; the status counts
  must_be_open "$1" || return 0
  first_line "$deployment/waiting"
  case $REPLY in
    "$2"-*)
      _step=$REPLY
      if mv "$scratch" "$deployment/$_step/facts" && echo "$3" | write_atomically "$deployment/$_step/status"; then
        wake "ended $_step"
        reply ok ''
      else
        reply refused 'There is no space to write it down.'
      fi
      ;;
    *) reply refused "No step $2 waits for a result." ;;
  esac
}

# A client-side step that has not ended?
client_step_ahead() {
  for _meta in "$deployment"/[0-9][0-9]-*/meta; do
    [ -e "$_meta" ] && [ ! -e "${_meta%/*}/status" ] || continue
    ! grep -q "^SIDE='\{0,1\}client" "$_meta" || return 0
  done
  return 1
}
