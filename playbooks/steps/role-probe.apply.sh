# Before the plan of a rotation, or of a rollback that changes roles: can the roles be changed, without a password of the database's own? Changes nothing.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/roles.sh
. "$ORCH_BUNDLE/roles.sh"
DB_SERVICE=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
database=$(running_container "$DB_SERVICE")
[ -n "$database" ] || die "The database ($DB_SERVICE) does not run: nothing was changed."
role_verifiers "$database" roles >/dev/null ||
  die "The passwords of the database's roles can't be changed (above). It has to let its own superuser (POSTGRES_USER) in over its own socket without a password, as the image does by itself (pg_hba.conf: local all all trust). Nothing was changed."
