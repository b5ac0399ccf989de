# Is what runs well? One look at each gate that the current release has passed; a JSON object per gate on stdout. Exit status 0: all
# healthy (or nothing is deployed, nor was before: ORCH_PREVIOUS), 1: not. Wants ORCH_BUNDLE, ORCH_PROJECT, ORCH_STATE and ORCH_OPT; argument: how many
# milliseconds an answer may take to come (default 10000).
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/gate.sh
. "$ORCH_BUNDLE/gate.sh"

# SERVICE or nothing, WHY
unwell() { printf '{"service":%s,"healthy":false,"at_ms":null,"answer":"","reason":%s}\n' "${1:-null}" "$(json_string "$2")"; }

if ! current=$(readlink "$ORCH_OPT/current"); then
  [ -n "${ORCH_PREVIOUS-}" ] || exit 0
  unwell '' "nothing is deployed any more, release $ORCH_PREVIOUS was"
  exit 1
fi
if [ ! -d "$ORCH_OPT/current/" ]; then
  unwell '' "release ${current##*/}, which $ORCH_OPT/current names, is not there"
  exit 1
fi
release_gates "${current##*/}" "${1:-10000}" && exit 0 || rc=$?
# No gate on record (each was asked from the client): at least all of its services have to run.
[ "$rc" = 2 ] || exit 1
services=$(services_of "$ORCH_OPT/current/effective.json")
for service in $services; do
  if [ -z "$(running_container "$service")" ]; then
    unwell "$(json_string "$service")" 'it does not run'
    rc=1
  fi
done
[ "$rc" = 2 ]
