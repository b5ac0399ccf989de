# The directories of a project: /var/lib/orchestrate and /opt/PROJECT, of whoever deploys.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
USER='' PROJECT=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

case $PROJECT in '' | *[!a-z0-9-]* | -* | bundle | lock | holder) die "Not a project name: $PROJECT" ;; esac
checking || id "$USER" >/dev/null 2>&1 || die "There is no user $USER on this host: a step user has to come before."

ensure_directory /opt root:root 0755
for directory in /var/lib/orchestrate "/var/lib/orchestrate/$PROJECT" "/opt/$PROJECT"; do
  ensure_directory "$directory" "$USER:$USER" 0750
done

# The lock above the projects, in the hands of an earlier user: the new one's runner couldn't open it. The same file, for whoever holds it.
lock=/var/lib/orchestrate/lock
if [ -f "$lock" ] && [ ! -L "$lock" ]; then
  owner=$(stat -c %U:%G "$lock")
  if [ "$owner" != "$USER:$USER" ]; then
    echo "~ owner $owner -> $USER:$USER" >detail
    change update "file $lock" detail
    if ! checking; then
      remember lock "$owner"
      chown -h "$USER:$USER" "$lock"
    fi
  fi
fi
tell_changes
