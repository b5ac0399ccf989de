# A file of the user's own, rendered by the client: content, owner, mode.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
FILE='' OWNER=root GROUP=root MODE=0644 SECRET=0
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
secret=
[ "$SECRET" = 0 ] || secret=secret
ensure_file "$FILE" "$OWNER:$GROUP" "$MODE" $secret <content
tell_changes
