# The roles have the passwords again that they had. Whoever started the older containers before us has done it already.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/containers.sh
. "$ORCH_BUNDLE/containers.sh"
# shellcheck source=playbooks/host/roles.sh
. "$ORCH_BUNDLE/roles.sh"
restore_roles || die "The database's roles could not be given back the passwords that they had (above): the app may be refused."
