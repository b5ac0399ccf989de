# The undoing script of the user's own, in the step's directory.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# A script without one of its own has nothing to undo.
[ -f "$ORCH_STEP/undo-script" ] || exit 0
VERSION=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
export VERSION
cd "$ORCH_STEP"
case $(head -c 2 undo-script) in
'#!') exec ./undo-script ;;
*) exec sh ./undo-script ;;
esac
