# shellcheck shell=sh disable=SC2015,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# How a client's wish for a runner becomes one: it is launched, asked, and its verdict awaited. Sourced by attach.sh.

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
