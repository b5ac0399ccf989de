# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
if [ -s "$ORCH_STEP/old-links" ]; then
  while read -r what link; do
    case $what in
      add) rm -f "$link" ;;
      mask) ln -sfn /dev/null "$link" ;;
    esac
  done <"$ORCH_STEP/old-links"
fi
restore_files
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
