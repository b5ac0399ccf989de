#!/bin/sh
# shellcheck disable=SC2015 # as in runner.sh
# attach.sh PROJECT [ASKED]: one per client connection. Messages come as lines of ASKED, then in on stdin, replies go out on stderr, the deployment's log on stdout
# (docs/runner.md, "The channel"). It decides nothing: it puts files where the runner finds them, and wakes it.
# `read` takes stdin byte by byte and `head -c` never more than asked for, so that both can share it.
set -eu
ORCH_BUNDLE=${0%/*}
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
# shellcheck source=playbooks/host/boot-units.sh
. "$ORCH_BUNDLE/boot-units.sh"
project_paths "$1"
export ORCH_BUNDLE ORCH_PROJECT ORCH_STATE ORCH_OPT
# Replies alone may go to the client's stderr: what tools complain about is seen by their status.
exec 5>&2 2>/dev/null
follower=
previous=
prepared=
why=
scratch=$ORCH_STATE/attach.$$
mkdir -p "$ORCH_STATE/start" "$ORCH_STATE/deployments"
# What one of our number had here before a power loss is back: its removal wasn't on the disk.
if [ -e "$scratch" ] || [ -e "$ORCH_STATE/plan/$$" ]; then rm -rf "$scratch" "$ORCH_STATE/plan/$$"; fi
trap 'stop_following; discard_prepared; rm -rf "$scratch" "$scratch".* "$ORCH_STATE/plan/$$"' EXIT
trap 'exit 0' HUP INT TERM PIPE

# TAG [BODY]
reply() { printf '%s %s\n%s' "$1" "$((${#2} + 0))" "$2" >&5; }

# BYTES FILE: from stdin, all of them, also when the disk is full.
take() {
  [ "$1" -gt 0 ] || {
    printf '' >"$2" # not `:`, whose redirection would end the shell where it fails
    return
  }
  head -c "$1" | { cat >"$2" || {
    cat >/dev/null
    return 1
  }; } && [ "$(stat -c %s "$2")" = "$1" ]
}

# BYTES: a message's body that nobody wants.
skip() { [ "$1" = 0 ] || head -c "$1" >/dev/null; }

is_open() {
  case $1 in '' | *[!0-9]*) return 1 ;; esac
  deployment=$ORCH_STATE/deployments/$1
  first_line "$ORCH_STATE/open"
  [ "$REPLY" = "$1" ]
}

# N: refuses, unless it is the open deployment.
must_be_open() {
  is_open "$1" || {
    reply refused "Deployment $1 is not open."
    return 1
  }
}

# LINE: into the inbox. Opened for reading too, since that never blocks; without a runner the line is lost with it.
wake() { [ ! -p "$deployment/inbox" ] || printf '%s\n' "$1" 1<>"$deployment/inbox"; }

# PID, or nothing: ends a child of ours, and reaps it. By KILL: a TERM that comes while the child is still between fork and exec is taken by
# the handler that it has inherited from us, and lost, and we would wait for ever.
end_child() { [ -z "$1" ] || { kill -KILL "$1" && wait "$1"; } 2>/dev/null || :; } # gone already, or ended by the signal

# ---- following

# N OFFSET: from now on its log on stdout. tail ends with us. It waits for inotify, but on file systems that it takes for remote
# ones (overlayfs) it polls: 100 times a second, so that nobody waits for the second that is its default.
follow() {
  stop_following
  tail -c "+$(($2 + 1))" -f -s 0.01 --pid=$$ "$ORCH_STATE/deployments/$1/log" </dev/null 5>&- &
  follower=$!
}

stop_following() {
  end_child "$follower"
  follower=
}

# N: is its release being watched, or would it be if its runner hadn't died?
is_watched() {
  first_line "$ORCH_STATE/watching"
  [ -n "$REPLY" ] && [ "$REPLY" = "$1" ]
}

# N: does its journal say so?
has_closed() { grep -q "$closed_line" "$ORCH_STATE/deployments/$1/journal.jsonl"; }

# The state of deployment N, in REPLY.
deployment_state() {
  if is_open "$1"; then
    if runner_alive; then REPLY=live; else REPLY=dead; fi
  elif has_closed "$1"; then
    # A runner that was killed between its last two lines has told the journal, but not the log.
    _last=$(grep '^{"event":"\(closed\|watched\|breached\)",.*}$' "$ORCH_STATE/deployments/$1/journal.jsonl" | tail -n 1)
    tail -n 100 "$ORCH_STATE/deployments/$1/log" | grep -qF -e "$_last" || runner_alive ||
      printf '\n\001%s\n' "$_last" >>"$ORCH_STATE/deployments/$1/log" || : # a full disk
    if ! is_watched "$1"; then
      REPLY=ended # only here: the others set it too
    elif runner_alive; then
      REPLY=watching
    else
      REPLY=dead
    fi
  else
    REPLY=dead
  fi
}

# ---- starting a runner

# MODE NONCE NUMBERS…: a runner that outlives this session: its own unit where we may ask systemd, else a session of its own.
launch() {
  _mode=$1
  _nonce=$2
  shift 2
  # Where the units are of this bundle, sudo has worked before, and isn't asked for its own sake.
  if [ -d /run/systemd/system ] && { units_installed || as_root true 2>/dev/null; }; then
    install_units
    ! start_runner_unit "orchestrate-$ORCH_PROJECT-$_nonce" "$_mode" "$ORCH_PROJECT" "$_nonce" "$@" </dev/null >"$start/launch" 2>&1 || return 0
    ! as_root true 2>/dev/null || return 1
  fi
  setsid sh "$ORCH_BUNDLE/runner.sh" "$_mode" "$ORCH_PROJECT" "$_nonce" "$@" </dev/null >"$start/launch" 2>&1 3>&- 5>&- &
}

units_installed() {
  first_line "$ORCH_STATE/unit"
  [ "$REPLY" = "${ORCH_BUNDLE##*/}" ]
}

# The units of this project (boot-units.sh). Once per bundle and project; a deployment must not fail for the lack of them.
install_units() {
  ! units_installed || return 0
  unit_names "$base"
  render_unit recover "$(id -un)" "$base" "${ORCH_OPT%/*}" >"$start/$recover_unit@.service"
  [ -z "$app_unit" ] || render_unit app "$(id -un)" "$base" "${ORCH_OPT%/*}" >"$start/$app_unit@.service"
  if as_root install -m 0644 "$start/"*.service /etc/systemd/system/ && as_root systemctl daemon-reload; then
    for _unit in "$recover_unit" $app_unit; do
      as_root systemctl --quiet enable "$_unit@$ORCH_PROJECT.service" || : # masked: root wants it so
    done
    echo "${ORCH_BUNDLE##*/}" >"$ORCH_STATE/unit"
  fi >"$start/install" 2>&1
}

# A sign of life in between, and the proof that somebody still listens: the lock's holder and our place where they are others than before, else nothing.
tell_waiting() {
  REPLY=
  if [ -n "$_holder" ]; then
    first_line "$_holder"
    case $REPLY in
      *:*) REPLY="${REPLY%\}},\"place\":$_place}" ;;
      *) REPLY="{\"place\":$_place}" ;;
    esac
  fi
  if [ "$REPLY" = "$_told" ]; then REPLY=; else _told=$REPLY; fi
  reply waiting "$REPLY" || exit 0 # the client is gone: its runner leaves the queue
}

# SECONDS: waits for the runner's verdict, in REPLY. The launch may take 30 s, the lock SECONDS, and the recovery as long as it likes; an
# alarm each second finds out whether the runner is still there. Reads the FIFO on 6, which ends with the alarm.
await_verdict() {
  (
    exec 3>&- 5>&- 6>&- 7>&- >/dev/null </dev/null
    while sleep 1; do echo alarm >&4 || exit 0; done
  ) 4>"$start/wake" &
  _alarm=$!
  _left=30
  _fault="It was not started within 30 s: the host, sudo or systemd doesn't answer."
  _missed=0
  _holder=
  _place=
  _told=
  while [ ! -e "$start/verdict" ]; do
    if ! read -r _word _rest <&6; then
      _fault='The host can start no processes.'
      break
    fi
    case $_word in
      launched)
        if [ "$_rest" != 0 ]; then
          _fault=
          break
        fi
        [ $_left -lt 0 ] || _left=$(($1 + 5))
        _fault=
        ;;
      queued)
        _place=${_rest%% *} _holder=${_rest#* }
        tell_waiting
        ;;
      patient) _left=-1 ;; # the runner itself knows when to give up
      running | recovering)
        _left=-1
        _holder=
        ;;
      alarm)
        exec 3>&- # the alarm has opened the FIFO by now
        _left=$((_left - 1))
        if runner_alive; then _missed=0; else _missed=$((_missed + 1)); fi
        # Three times: systemd may be about to start it again.
        [ $_left != 0 ] && { [ $_left -gt 0 ] || [ $_missed -lt 3 ]; } || break
        tell_waiting
        ;;
    esac
  done
  end_child "$_alarm"
  if [ ! -e "$start/verdict" ]; then
    # From here on a runner that comes too late finds that nobody waits for it.
    printf 'error runner The runner did not start: %s %s\n' "$_fault" \
      "$(tail -qn 3 "$start/launch" "$start/output" | tr '\n' ' ')" >"$start/verdict.ours" && ln "$start/verdict.ours" "$start/verdict" || :
  fi
  REPLY=$(cat "$start/verdict") && [ -n "$REPLY" ] || REPLY='error runner The runner did not start, and there is no space to say why.'
}

# MODE NONCE NUMBERS…: starts a runner, which waits for its request. In the background: what hangs in sudo or systemd must not keep us from saying so.
begin_launch() {
  exec 3<>"$start/wake" 7<>"$start/go"
  exec 6<"$start/wake"
  if process_identity $$; then echo "$REPLY" >"$start/attach" || :; fi # a full disk: nobody in particular asks
  (
    exec 5>&- 6>&- 7>&-
    _status=0
    launch "$@" || _status=$?
    echo "launched $_status" >&3
  ) </dev/null >/dev/null 3<>"$start/wake" &
}

# REQUEST WAIT [NUMBER PREVIOUS]: has the runner begin, and answers with what became of it. Steps that came along are made whole meanwhile.
ask_runner() {
  if ! printf '%s' "$1" >"$start/request"; then
    rm -rf "$start" || : # it ends with its pipe; its launch may be writing there just now
    exec 3>&- 6>&- 7>&-
    no_space
    return 0
  fi
  echo >&7
  if [ -z "$why" ] && [ -d "$scratch" ]; then complete_steps; fi
  await_verdict "$2"
  exec 3>&- 6>&- 7>&-
  _verdict=$REPLY
  case $_verdict in
    granted*)
      _verdict=${_verdict#granted }
      _granted=${_verdict%%
*}
      if [ -z "$why" ] && [ -d "$scratch" ] && [ "$_granted" = "${3-}" ]; then
        deployment=$ORCH_STATE/deployments/${_granted% *}
        place_steps
        _verdict="$_granted taken${_verdict#"$_granted"}"
      fi
      reply granted "$_verdict"
      follow "${_verdict%%[!0-9]*}" 0
      ;;
    locked*) reply locked "${_verdict#locked }" ;;
    recovered*) reply recovered "${_verdict#recovered
}" ;;
    *) reply error "${_verdict#error }" ;;
  esac
}

# NONCE: its directory; false, and a reply, if it was used before, or there is no space for it.
new_start() {
  if is_new_start "$1"; then
    ! make_start || return 0
    no_space
  else
    reply error "start This start ($1) was made before."
  fi
  return 1
}

is_new_start() {
  case $1 in '' | *[!A-Za-z0-9-]* | -*) return 1 ;; esac
  start=$ORCH_STATE/start/$1
  [ ! -e "$start" ]
}

make_start() {
  ! mkdir "$start" || ! mkfifo "$start/wake" "$start/go" || return 0
  rm -rf "$start"
  return 1
}

no_space() { reply error "space The disk is full: no space is left for $ORCH_STATE. Nothing was changed; orchestrate prune frees some."; }

# What frees space, or closes what is open, needs some itself: the runner makes the spare again at its end, and its first act for a deployment that
# another one has left is to give back this reserve.
give_back() {
  rm -f "$ORCH_STATE/spare"
  runner_alive || rm -f "$ORCH_STATE/reserve"
}

# NONCE LEASE WAIT BYTES [STEPS NUMBER PREVIOUS]: the steps are for a deployment of that number upon that release, and for no other.
open_deployment() {
  _request=$(head -c "$4" && echo .) # the dot keeps a newline
  [ ${#_request} = $(($4 + 1)) ] || {
    reply error 'start The request did not arrive whole.'
    return 0
  }
  [ -z "${5-}" ] || unpack_steps "$5"
  case $_request in *'"command":"prune"'*) give_back ;; esac
  if [ "$1" != "$prepared" ]; then
    discard_prepared
    new_start "$1" || {
      forget_steps
      return 0
    }
    begin_launch open "$1" "$2" "$3"
  fi
  prepared=
  ask_runner "${_request%.}" "$3" "${6-} ${7-}"
  forget_steps
}

# NONCE LEASE WAIT: an `open` with these words will follow. To start its runner takes a while: it waits for the request, as long as we are there.
prepare_runner() {
  if [ -z "$prepared" ] && is_new_start "$1" && make_start; then
    begin_launch open "$1" "$2" "$3"
    prepared=$1
  fi
  reply ok ''
}

# One that hasn't come as far as its pipe finds none.
discard_prepared() {
  [ -z "$prepared" ] || rm -rf "$ORCH_STATE/start/$prepared" || : # its launch may be writing there just now
  prepared=
}

# ---- messages for a deployment

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

# NAME BYTES: a question to the host, whose script reads the body. It is our child (exec): its plan/$PPID goes with us. Neither the answer nor the body
# goes through a file, so that a full disk can be asked about, and a password lies nowhere; newlines at their ends are one. A plan's tar does.
query() {
  _body=
  case $1.$2 in
    *.0) ;;
    plan.*) take "$2" "$scratch" || : ;; # the script finds half of it
    *) _body=$(head -c "$2") ;;
  esac
  _tag=failed
  _output=
  _script=$ORCH_BUNDLE/queries/$1.query.sh
  case $1.$2 in
    .* | *[!a-z0-9-]*.*) ;;
    *.0) ! _output=$(exec sh "$_script" </dev/null 2>&1) || _tag=output ;;
    plan.*) ! _output=$(exec sh "$_script" <"$scratch" 2>&1) || _tag=output ;;
    *) ! _output=$(
      exec sh "$_script" 2>&1 <<EOT
$_body
EOT
    ) || _tag=output ;;
  esac
  _body=
  [ -z "$_output" ] || _output="$_output
"
  reply $_tag "$_output"
  case $1 in plan) rm -f "$scratch" ;; esac
}

# PATH: below the project's two directories. /opt/P/previous/: the release that was active when the current one was deployed.
get_file() {
  _path=$1
  case $_path in
    */../* | */..) _path= ;;
    "/opt/$ORCH_PROJECT/previous/"*)
      # Several of its files are asked for in a row.
      [ -n "$previous" ] || previous=$(release_previous "$(current_number)" 2>/dev/null) || : # nothing runs, or nothing did before
      _path=$ORCH_OPT/releases/${previous:-0}/${_path#"/opt/$ORCH_PROJECT/previous/"}
      ;;
    "/opt/$ORCH_PROJECT/"*) _path=$ORCH_OPT/${_path#"/opt/$ORCH_PROJECT/"} ;;
    "/var/lib/orchestrate/$ORCH_PROJECT/"*) _path=$ORCH_STATE/${_path#"/var/lib/orchestrate/$ORCH_PROJECT/"} ;;
    "$ORCH_OPT/"* | "$ORCH_STATE/"*) ;;
    *) _path= ;;
  esac
  if [ -f "$_path" ] && [ -r "$_path" ]; then
    # One descriptor for size and text: a file that is replaced or removed in between would leave the reply short, and the client waiting.
    {
      _size=$(stat -L -c %s /proc/self/fd/6) && printf 'file %s\n' "$_size" >&5 && head -c "$_size" <&6 >&5 || exit 1
    } 6<"$_path" || reply none ''
  else
    reply none ''
  fi
}

# LINES of facts.sh
reply_facts() {
  reply facts "$1
"
}

# Answers the line that is in message and rest.
answer() {
  # shellcheck disable=SC2086 # words, checked where they are used
  case $message in
    get) get_file "$rest" ;;
    *)
      previous= # whatever comes now may make it another one
      set -f
      set -- $rest
      set +f
      case $message in
        facts)
          _facts=$(sh "$ORCH_BUNDLE/facts.sh" "$ORCH_PROJECT") || : # as far as they go
          reply_facts "$_facts"
          ;;
        prepare) prepare_runner "$@" ;;
        open) open_deployment "$@" ;;
        recover)
          # Asked again after a lost reply, or because the recovery died too.
          case $1 in *[!A-Za-z0-9-]*) ;; *) rm -rf "$ORCH_STATE/start/$1" ;; esac
          discard_prepared
          give_back
          ! new_start "$1" || {
            begin_launch recover "$1" 5
            ask_runner '{}' 5
          }
          ;;
        follow)
          if [ -e "$ORCH_STATE/deployments/$1/log" ]; then
            deployment_state "$1"
            reply following "$REPLY"
            follow "$1" "$2"
          else
            reply none ''
          fi
          ;;
        state)
          if [ -e "$ORCH_STATE/deployments/$1/journal.jsonl" ]; then
            deployment_state "$1"
            reply state "$REPLY"
          else
            reply none ''
          fi
          ;;
        query) query "$@" ;;
        steps) receive_steps "$@" ;;
        seal)
          if is_open "$1"; then
            if printf '' >"$deployment/sealed" && sync "$deployment"; then
              wake sealed
              reply ok ''
            else
              reply refused 'There is no space to write it down.'
            fi
          elif [ -n "$1" ] && has_closed "$1"; then
            reply ok '' # it failed before this arrived: the log tells
          else
            reply refused "Deployment $1 is not open."
          fi
          ;;
        result) receive_result "$@" ;;
        beat)
          if is_open "$1" && runner_alive; then
            clock
            first_line /proc/sys/kernel/random/boot_id
            # On a full disk the old one is written over in place: no client is called dead for that.
            if printf '%s %s %s\n' "$REPLY" "$up" "$1" >"$ORCH_STATE/heartbeat.$$" && mv "$ORCH_STATE/heartbeat.$$" "$ORCH_STATE/heartbeat"; then
              :
            else
              rm -f "$ORCH_STATE/heartbeat.$$"
              printf '%s %s %s\n' "$REPLY" "$up" "$1" 1<>"$ORCH_STATE/heartbeat" || : # there was none yet: the lease counts from the start
            fi
            reply beat live
          else
            reply beat dead
          fi
          ;;
        abort)
          take "$2" "$scratch" || printf '' >"$scratch" || :
          if is_watched "$1" && runner_alive; then
            deployment=$ORCH_STATE/deployments/$1
            wake aborted
            reply ok ''
          elif must_be_open "$1"; then
            if [ "$(readlink "$ORCH_OPT/current")" = "releases/$1" ]; then
              reply refused "Deployment $1 is committed."
            else
              # On a full disk without the reason: an empty file takes no block.
              if tr '\n' ' ' <"$scratch" | write_atomically "$deployment/abort" || printf '' >"$deployment/abort"; then
                wake abort
                reply ok ''
              else
                reply refused 'There is no space to write it down.'
              fi
            fi
          fi
          rm -f "$scratch"
          ;;
        detach)
          ! must_be_open "$1" || if [ ! -e "$deployment/sealed" ]; then
            reply refused 'The deployment waits for more steps.'
          elif client_step_ahead; then
            reply refused 'A step that only the client can do is still ahead.'
          elif printf '' >"$deployment/detached" && sync "$deployment"; then
            reply ok ''
          else
            reply refused 'There is no space to write it down.'
          fi
          ;;
        *) reply error "message $message" ;;
      esac
      ;;
  esac
}

# What came with the command line, a message a line.
asked=${2-}
while [ -n "$asked" ]; do
  case $asked in
    facts | get\ *"
facts")
      # Docker's answer takes longest: the files that are asked for before it are read meanwhile.
      sh "$ORCH_BUNDLE/facts.sh" "$ORCH_PROJECT" | {
        while read -r message rest && [ "$message" = get ]; do answer; done <<EOT
$asked
EOT
        reply_facts "$(cat)"
      }
      break
      ;;
  esac
  read -r message rest <<EOT
$asked
EOT
  answer
  case $asked in *"
"*) asked=${asked#*"
"} ;; *) asked= ;; esac
done
while read -r message rest; do answer; done
