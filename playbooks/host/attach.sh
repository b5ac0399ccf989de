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
# shellcheck source=playbooks/host/launching.sh
. "$ORCH_BUNDLE/launching.sh"
# shellcheck source=playbooks/host/receiving.sh
. "$ORCH_BUNDLE/receiving.sh"
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
    if ! tail -n 100 "$ORCH_STATE/deployments/$1/log" | grep -qF -e "$_last" && ! runner_alive; then
      # Nor has it fsynced, perhaps, what somebody is told of now.
      sync -d "$ORCH_STATE/deployments/$1/journal.jsonl" && printf '\n\001%s\n' "$_last" >>"$ORCH_STATE/deployments/$1/log" || : # a full disk
    fi
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

# ---- questions to the host

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
