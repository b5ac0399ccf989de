#!/bin/sh
# Runs preparing steps without a lock and away from everything that is live, so that `plan` can tell what a deploy would do.
# stdin: a tar of step directories (docs/runner.md, "Steps") and a file `nonce`; the steps run in the order of their names until the first failure.
# Prints the log; the step directories stay below plan/<parent's pid> until the conversation ends.
set -eu
. "$ORCH_BUNDLE/lib.sh"

ORCH_DEPLOYMENT=$ORCH_STATE/plan/$PPID
ORCH_RELEASE=$ORCH_DEPLOYMENT/release
ORCH_N=0
ORCH_PREVIOUS=$(readlink "$ORCH_OPT/current" 2>/dev/null | sed 's,.*/,,') || ORCH_PREVIOUS=
export ORCH_DEPLOYMENT ORCH_RELEASE ORCH_N ORCH_PREVIOUS
mkdir -p "$ORCH_DEPLOYMENT"
: >"$ORCH_DEPLOYMENT/log"
before=$(ls "$ORCH_DEPLOYMENT")
tar -xf - -C "$ORCH_DEPLOYMENT" --no-same-owner
read -r nonce <"$ORCH_DEPLOYMENT/nonce"
clock
printf '%s %s\n' "$nonce" "$(($(now_ms) - up_ms))" >"$ORCH_DEPLOYMENT/key"

status=0
for dir in "$ORCH_DEPLOYMENT"/[0-9][0-9]-*; do
	case " $(echo "$before" | tr '\n' ' ') " in *" ${dir##*/} "*) continue ;; esac
	(
		. "$dir/meta"
		ORCH_STEP=$dir
		export ORCH_STEP
		[ -f "$dir/apply.sh" ] || ln "$ORCH_BUNDLE/steps/$KIND.apply.sh" "$dir/apply.sh"
		cd "$dir"
		timeout -k 10 "$TIMEOUT" sh ./apply.sh </dev/null >>"$ORCH_DEPLOYMENT/log" 2>&1
	) || { status=$?; break; }
done
cat "$ORCH_DEPLOYMENT/log"
exit "$status"
