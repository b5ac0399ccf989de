#!/bin/sh
# One look at each gate of the current release: a JSON object per gate (host/check.sh); fails if one isn't healthy.
set -eu
exec sh "$ORCH_BUNDLE/check.sh" 5000
