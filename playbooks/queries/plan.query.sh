#!/bin/sh
# Runs preparing steps without a lock and away from everything that is live, so that `plan` can tell what a deploy would do.
# stdin: a tar of step directories (docs/runner.md, "Steps") and a file `nonce`; the steps run in the order of their names until the
# first failure. Prints the log. An empty stdin ends the plan: the steps are undone, backwards.
# The step directories stay below plan/<parent's pid> until the conversation ends.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"

ORCH_DEPLOYMENT=$ORCH_STATE/plan/$PPID
ORCH_RELEASE=$ORCH_DEPLOYMENT/release
ORCH_N=0
ORCH_PREVIOUS=$(readlink "$ORCH_OPT/current" 2>/dev/null) || : # nothing is deployed
ORCH_PREVIOUS=${ORCH_PREVIOUS##*/}
export ORCH_DEPLOYMENT ORCH_RELEASE ORCH_N ORCH_PREVIOUS
mkdir -p "$ORCH_DEPLOYMENT"
: >"$ORCH_DEPLOYMENT/log"
cat >"$ORCH_DEPLOYMENT/input"

# DIRECTORY SCRIPT: one script of a step, as the runner would run it.
run_script() (
  KIND='' TIMEOUT=60 SIDE=host
  # shellcheck source=/dev/null
  . "$1/meta"
  ORCH_STEP=$1
  export ORCH_STEP
  cd "$1"
  if [ ! -e "$2.sh" ]; then
    from=$ORCH_BUNDLE/steps/$KIND.$2.sh
    # Not every step has an undo, and the client's steps have nothing to run here.
    [ -e "$from" ] || { [ "$2" = apply ] && [ "$SIDE" = host ]; } || exit 0
    ln "$from" "$2.sh" 2>/dev/null || cp "$from" "$2.sh" || die "${1##*/}: the script of $KIND can't be put in its place."
  fi
  exec timeout -k 10 "$TIMEOUT" sh "./$2.sh" </dev/null >>"$ORCH_DEPLOYMENT/log" 2>&1
)

if [ ! -s "$ORCH_DEPLOYMENT/input" ]; then
  # A deployment that runs may have begun to use what the plan fetched: then it stays, for prune.
  ! runner_alive || exit 0
  for directory in $(find "$ORCH_DEPLOYMENT" -maxdepth 1 -name '[0-9][0-9]-*' | sort -r); do
    run_script "$directory" undo || : # what can't be undone is left to prune
  done
  exit 0
fi

tar -x -C "$ORCH_DEPLOYMENT" --no-same-owner --no-same-permissions -f "$ORCH_DEPLOYMENT/input"
read -r nonce <"$ORCH_DEPLOYMENT/nonce"
clock
printf '%s %s\n' "$nonce" "$(($(now_ms) - up_ms))" >"$ORCH_DEPLOYMENT/key"
status=0
for directory in "$ORCH_DEPLOYMENT"/[0-9][0-9]-*; do
  [ ! -e "$directory/planned" ] || continue
  : >"$directory/planned"
  run_script "$directory" apply || {
    status=$?
    break
  }
done
cat "$ORCH_DEPLOYMENT/log"
exit "$status"
