#!/bin/sh
# Prints the folder in which `plan` works (plan.query.sh); attach.sh removes it at the end of the conversation.
set -eu
printf '%s\n' "$ORCH_STATE/plan/$PPID"
