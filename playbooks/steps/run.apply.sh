# A script of the user's own, in the step's directory.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/switch.sh
. "$ORCH_BUNDLE/switch.sh"
VERSION=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
export VERSION
await_baseline
cd "$ORCH_STEP"
case $(head -c 2 script) in
'#!') exec ./script ;;
*) exec sh ./script ;;
esac
