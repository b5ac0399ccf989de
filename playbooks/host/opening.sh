# shellcheck shell=sh disable=SC2015,SC2016,SC2034,SC2154,SC2164 # as in runner.sh, which sets -e; and what the parts share with each other
# The lock, and a new deployment's directory. Sourced by runner.sh.

# How long one look at a lock may take, in REPLY: what is left of our patience, and a second at most. Once a second it is asked whether anybody still waits for
# us: a queue of the departed would hold up who comes after them.
seconds_left() {
  REPLY=$((_patience - up_ms < 1000 ? _patience - up_ms + 1000 : 2000)) # 1000 more, for the leading zeros
  REPLY=$((REPLY / 1000 - 1)).${REPLY#?}
}

# HOLDER-FILE: the lock above the projects, on 8, within our patience.
lock_host() {
  ! flock -s -n 8 || return 0
  [ "$wait" = 0 ] || wake "$start/wake" "queued 1 $1"
  while clock && [ $((_patience - up_ms)) -gt 0 ]; do
    seconds_left
    ! flock -s -w "$REPLY" 8 || return 0
    ! client_gone || exit 75
  done
  refuse "$1"
}

take_lock() {
  clock
  _patience=$((up_ms + wait * 1000))
  [ "$wait" -gt 0 ] || _patience=$((up_ms + 500)) # the one before us may be on its last line
  # Whoever closes an interrupted deployment is soon done, and nobody's rival.
  if grep -qs '"recovering":true' holder && [ "$wait" -lt 120 ]; then
    _patience=$((up_ms + 120000))
    wake "$start/wake" recovering
  fi
  exec 8>>"$base/lock" 9>>lock
  lock_host "$base/holder"
  lock_in_turn "$ORCH_STATE/holder"
  process_identity $$
  echo "$REPLY" >runner.pid
  wake "$start/wake" running
}

# MEMBER: its string in the opener's JSON, in REPLY.
request_member() {
  case $request in
    *"\"$1\":\""*)
      REPLY=${request##*"\"$1\":\""}
      REPLY=${REPLY%%\"*}
      ;;
    *) REPLY= ;;
  esac
}

# A project belongs to one environment of one application.
check_identity() {
  request_member environment
  _identity=$REPLY
  request_member app
  _identity="$_identity $REPLY"
  if [ -s identity ]; then
    first_line identity
    [ "$REPLY" = "$_identity" ] || fail_start identity \
      "The project $ORCH_PROJECT on this host belongs to \"$REPLY\" (environment, application), not to \"$_identity\"."
  else
    echo "$_identity" | write_atomically identity
  fi
}

# 16 MiB each that the undo gives back first, so that a full disk can't keep it from working.
allocate_reserve() {
  # At once: each takes some time.
  fallocate -l 16M "$ORCH_STATE/reserve" &
  _first=$!
  fallocate -l 16M "$ORCH_OPT/.reserve" &
  _second=$!
  set --
  wait "$_first" || set -- "$ORCH_STATE/reserve"
  wait "$_second" || set -- "$@" "$ORCH_OPT/.reserve"
  for _reserve; do write_reserve "$_reserve"; done
  keep_spare
}

# FILE: on a file system that can't allocate.
write_reserve() {
  dd if=/dev/zero of="$1" bs=1M count=16 2>/dev/null || {
    free_reserve
    fail_start space "Less than 16 MiB are left for ${1%/*}: nothing was changed. orchestrate prune frees some."
  }
}

# 4 MiB (2 where there aren't 4; none: the next one tries again) that stay between the deployments: on a full disk attach gives them back to whoever comes to free space, which needs some too.
keep_spare() {
  [ ! -e "$ORCH_STATE/spare" ] || return 0
  for _size in 4M 2M; do
    ! fallocate -l "$_size" "$ORCH_STATE/spare" || return 0
    rm -f "$ORCH_STATE/spare" # what of it there was room for
  done
}

# Fails the start where `current` names a release that isn't there: nothing could be undone to it. Sets REPLY to its number.
check_current() {
  current_release
  [ -z "$REPLY" ] || [ -d "$ORCH_OPT/releases/$REPLY" ] || fail_start current \
    "$ORCH_OPT/current names release $REPLY, which is not there. Point it at one that is (ls $ORCH_OPT/releases; ln -sfn releases/NUMBER $ORCH_OPT/current), or remove it: then the next deploy is a first one."
}

free_reserve() { rm -f "$ORCH_STATE/reserve" "$ORCH_OPT/.reserve"; }

# Sets _number: higher than every one that was ever used.
next_number() {
  first_line "$ORCH_STATE/sequence"
  _number=$((${REPLY:-0} + 1))
  for _directory in "$ORCH_STATE"/deployments/[1-9]*; do
    [ ! -d "$_directory" ] || [ "${_directory##*/}" -lt "$_number" ] || _number=$((${_directory##*/} + 1))
  done
}

# DIRECTORY: the steps that were shipped for the way back, into here. Their release gets the number and the time that it has now.
take_shipped() {
  cp -a "$1"/[0-9][0-9]-* . || return 1
  for _file in [0-9][0-9]-*/release.json; do
    [ -e "$_file" ] || continue
    sed -e "s/^\(  \"number\" *: *\)[0-9]*/\1$_number/" -e "s/^\(  \"created\" *: *\"\)[^\"]*/\1$(date -u +%Y-%m-%dT%H:%M:%SZ)/" "$_file" >release.new && mv release.new "$_file" || return 1
  done
  printf '' >sealed && printf '' >detached && find . \( -type d -o -type f \) -print0 | sync_all
}

# [DIRECTORY]: the directory appears at once, with its first event in it, and with what was shipped in DIRECTORY.
new_deployment() {
  next_number
  [ ! -e deployments/.new ] || rm -rf deployments/.new
  mkdir deployments/.new
  clock
  _epoch=$(($(now_ms) - up_ms))
  _key=$opener
  (
    cd deployments/.new
    echo "$previous" >previous
    echo "${own_bundle##*/}" >bundle
    echo "$_key $_epoch" >key
    printf '%s\n' "${request%\}}$comma\"number\":$_number,\"opened\":$((_epoch + up_ms))}" >holder.json
    mkfifo inbox
    : >log
    [ -z "${1-}" ] || take_shipped "../../$1" || exit 1
    record opened "\"number\":$_number,\"previous\":${previous:-null}" late
    echo "$_number" >../../sequence.new
    # The marker is on the disk before what it marks: the recovery at boot goes by it.
    echo "$_number" >../../open
    printf '%s\0' journal.jsonl previous bundle key holder.json . ../../sequence.new ../../open ../.. | sync_all
  ) || {
    rm -f open
    free_reserve
    fail_start space "The new deployment's journal cannot be written: nothing was changed. orchestrate prune frees some space."
  }
  mv -T deployments/.new "deployments/$_number"
  mv sequence.new sequence
  cp "deployments/$_number/holder.json" holder
  sync . deployments
  heard_at=$up_ms # or opened
  load "$_number"
}

# A child writes a line each second. It holds only the writing end: once the runner is gone, the next line ends it.
start_ticker() {
  exec 3<>inbox
  exec 4>inbox
  (
    exec 3>&- 8>&- 9>&-
    while sleep 1; do echo tick >&4 || exit 0; done
  ) &
  ticker=$!
}

stop_ticker() {
  [ -z "$ticker" ] || kill "$ticker" 2>/dev/null || : # gone already
  ticker=
}
