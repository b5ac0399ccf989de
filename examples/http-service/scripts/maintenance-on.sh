#!/bin/sh
# A flag file that the reverse proxy on the host looks for: while it is there, writers are asked to come back later.
# `run` steps get the project's directory on the host in ORCH_OPT.
set -eu
: >"$ORCH_OPT/maintenance"
echo "maintenance page on"
