# Is what runs well? One look at each gate that the current release has passed; a JSON object per gate on stdout. Exit status 0: all
# healthy (or nothing has ever been deployed), 1: not. Wants ORCH_BUNDLE, ORCH_PROJECT, ORCH_STATE and ORCH_OPT; argument: how many
# milliseconds an answer may take to come (default 10000).
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/gate.sh
. "$ORCH_BUNDLE/gate.sh"

current=$(readlink "$ORCH_OPT/current") || exit 0 # nothing is deployed
release_gates "${current##*/}" "${1:-10000}" && exit 0 || rc=$?
# No gate on record (each was asked from the client): at least all of its services have to run.
[ "$rc" = 2 ] || exit 1
for service in $(services_of "$ORCH_OPT/${current#"$ORCH_OPT"/}/effective.json"); do
  if [ -z "$(running_container "$service")" ]; then
    printf '{"service":%s,"healthy":false,"at_ms":null,"answer":"","reason":"it does not run"}\n' "$(json_string "$service")"
    rc=1
  fi
done
[ "$rc" = 2 ]
