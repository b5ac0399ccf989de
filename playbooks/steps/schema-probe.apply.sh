# Before the plan of a rollback: where the schema is, and where the older release wants it. Changes nothing.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/schema.sh
. "$ORCH_BUNDLE/schema.sh"
# shellcheck disable=SC2034 # for schema.sh
SERVICE='' REVISION='' TOOL='' POLICY='' LOCK_TIMEOUT=5000 DB_SERVICE='' DB_NAME='' DB_USER='' TARGET=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

rollback_revisions || die "The schema's revision can't be read, so that nobody can tell what going back would lose. Nothing was changed."
fact schema_here "$(json_string "$here")"
fact schema_there "$(json_string "$there")"
if schema_stays; then fact schema_stays true; else fact schema_stays false; fi
