# Gives database roles the passwords of the new release. What they had comes first onto the disk: the undo gives it back byte for byte.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/roles.sh
. "$ORCH_BUNDLE/roles.sh"
# shellcheck source=playbooks/host/switch.sh
. "$ORCH_BUNDLE/switch.sh"
DB_SERVICE=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
await_baseline
database=$(running_container "$DB_SERVICE")
[ -n "$database" ] || die "The database ($DB_SERVICE) does not run: its roles can't be changed."
[ -f verifiers ] || write_atomically "$ORCH_STEP/verifiers" role_verifiers "$database" roles
set_verifiers "$database" roles
while read -r _ role; do say "the database role $role has a new password"; done <roles
