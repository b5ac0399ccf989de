# generated.env stays: what was generated may be in use the next time.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
rm -f "$ORCH_RELEASE/.env" "$ORCH_RELEASE"/.env.new.* "$ORCH_STATE"/generated.env.new.* "$ORCH_STATE/generated.env.first"
rm -f config.json config.new config.err env generated generated.new generated.bad
