#!/bin/sh
# Prints the receipt of each backup, a line each: the JSON that the backup step wrote beside the dump.
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"

for receipt in "$ORCH_OPT"/backups/*.json; do
  [ -f "$receipt" ] || continue
  tr -d '\n' <"$receipt"
  echo
done
