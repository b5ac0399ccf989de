# Journald keeps DAYS days, in at most SIZE (as in journald.conf: 2G), and containers' lines are not dropped among them.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
DAYS='' SIZE=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

case $DAYS in '' | *[!0-9]* | 0*) die "DAYS is a number of days from 1 on, not \"$DAYS\"." ;; esac
case ${SIZE%[KMGT]} in '' | *[!0-9]* | 0*) die "SIZE is a number with K, M, G or T behind it, not \"$SIZE\"." ;; esac
directory=/etc/systemd/journald.conf.d
# The last one wins, and drop-ins are read in the order of their names.
file=$directory/zz-orchestrate.conf

# MaxRetentionSec removes whole files, by the time of their first line: without a bound on what a file spans, young lines would go with old ones.
# All of Docker's containers count as one service, whose lines journald drops beyond 10,000 in 30 s.
cat >content <<CONF
# Written by orchestrate bootstrap (step log-retention).
[Journal]
Storage=persistent
SystemMaxUse=$SIZE
MaxRetentionSec=${DAYS}day
MaxFileSec=1day
RateLimitIntervalSec=30s
RateLimitBurst=100000
CONF
ensure_directory "$directory" root:root 0755
ensure_file "$file" root:root 0644 <content
if [ $changed = 1 ]; then
  change run 'restart of systemd-journald'
  checking || restart_unit systemd-journald.service || die "journald doesn't start again: see systemctl status systemd-journald."
fi

# What counts in the end, drop-ins of others included.
if ! checking || [ $changed = 0 ]; then
  systemd-analyze cat-config systemd/journald.conf 2>/dev/null | LC_ALL=C awk '
    FNR == NR { at = index($0, "="); if (at > 0 && $0 !~ /^#/) wanted[substr($0, 1, at - 1)] = substr($0, at + 1); next }
    /^# \// { file = substr($0, 3) }
    /^[ \t]*([#;\[].*)?$/ { next }
    { sub(/[ \t]*=[ \t]*/, "="); at = index($0, "="); key = substr($0, 1, at - 1); if (key in wanted) { last[key] = substr($0, at + 1); where[key] = file } }
    END { for (key in wanted) if (last[key] != wanted[key]) print key "=" last[key] " in " where[key] }' content - >overridden
  if [ -s overridden ]; then
    sed 's/^/~ wins: /' overridden >detail
    change update 'settings of journald' detail
    checking || die "Another file of journald's settings wins over $file: $(tr '\n' ' ' <overridden). Remove that line, and run this again."
  fi
fi
tell_changes
