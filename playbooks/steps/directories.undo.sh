# Directories that the step made go if nothing lies in them; the others get back their owner and mode.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"

if remembered lock && [ -f /var/lib/orchestrate/lock ]; then chown -h "$REPLY" /var/lib/orchestrate/lock; fi
restore_files
