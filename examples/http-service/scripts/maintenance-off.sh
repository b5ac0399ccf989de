#!/bin/sh
# Also the undo of maintenance-on.sh: right after any part of it, and after none.
set -eu
rm -f "$ORCH_OPT/maintenance"
echo "maintenance page off"
