# After the commit point: the new containers come back by themselves from now on. Recovery runs it again, so it does what is left.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
IDENTITY=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
failed=
if [ -f "$ORCH_DEPLOYMENT/restart-policies" ]; then
  while read -r container policy; do
    [ -n "$policy" ] || continue
    error=$(docker update --restart="$policy" "$container" 2>&1 >/dev/null) && continue
    case $error in
      *[Nn]o\ such\ container*) ;; # replaced since: whoever replaced it gave it its policy
      *) failed="$failed $error" ;;
    esac
  done <"$ORCH_DEPLOYMENT/restart-policies"
fi
# Whose project this is, so that another environment isn't deployed over it.
if [ -n "$IDENTITY" ] && [ "$(cat "$ORCH_STATE/identity" 2>/dev/null)" != "$IDENTITY" ]; then
  printf '%s\n' "$IDENTITY" | write_atomically "$ORCH_STATE/identity"
fi
[ -z "$failed" ] || die "A restart policy could not be set:$failed"
