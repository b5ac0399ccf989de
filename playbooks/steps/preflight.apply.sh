# Looks, and changes nothing: leftovers of interrupted deployments, what runs now and how well (the baseline), what lies here.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/releases.sh
. "$ORCH_BUNDLE/releases.sh"
DISK_FREE=0 MEMORY_FREE=0
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

command -v docker >/dev/null || die "Docker isn't installed on this host."
# Before we start anything that needs some.
_available=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)

# How well the running release answers, asked by its own gates while the deployment prepares: an undo is judged against it. Whoever changes
# something first waits for it (await_baseline). A plan (number 0) has nothing to undo. Half a look is none: without a baseline an undo has to
# leave everything healthy. In a process group of its own, which ends whole; what the application answered lies where nobody else reads it.
if [ "$ORCH_N" != 0 ]; then
  (
    TMPDIR=$ORCH_STEP timeout -k 5 60 sh "$ORCH_BUNDLE/check.sh" 5000 >"$ORCH_DEPLOYMENT/looks" && rc=0 || rc=$?
    rm -rf "$ORCH_STEP"/gate.??????
    case $rc in
    0) : >"$ORCH_DEPLOYMENT/baseline" ;; # without one, after a power loss, an undo has to leave everything healthy as well
    1) unwell_names "$ORCH_DEPLOYMENT/looks" | write_atomically "$ORCH_DEPLOYMENT/baseline" ;; # not all is well; its lines tell
    esac
  ) >/dev/null 2>&1 &
  echo "$!" >"$ORCH_DEPLOYMENT/looking"
fi

docker ps -a --no-trunc --format '{{.ID}} {{.State}} {{.Label "com.docker.compose.project"}}' >found &
listing=$!

# PATH WHAT: enough room there, asked again on the host since the client's facts may be old.
need_space() {
  _at=$1
  while [ ! -d "$_at" ]; do _at=${_at%/*} _at=${_at:-/}; done
  _free=$(df -P -k "$_at" | awk 'END { print $(NF - 2) }')
  if [ $((_free / 1024)) -lt $((DISK_FREE / 1048576)) ]; then
    die "Only $((_free / 1024)) MiB are free at $_at ($2), $((DISK_FREE / 1048576)) MiB are needed. Free some; orchestrate prune removes old releases and images."
  fi
}
need_space "$ORCH_OPT" releases
need_space "$ORCH_STATE" 'state of deployments'
if [ $((_available / 1024)) -lt $((MEMORY_FREE / 1048576)) ]; then
  die "Only $((_available / 1024)) MiB of memory are available, $((MEMORY_FREE / 1048576)) MiB are needed."
fi

# One object per container of the project, stopped ones and one-off ones included.
template='{"id":{{json .ID}},"name":{{json .Name}},"service":{{json (index .Config.Labels "com.docker.compose.service")}},'\
'"oneoff":{{json (index .Config.Labels "com.docker.compose.oneoff")}},"replaces":{{json (index .Config.Labels "com.docker.compose.replace")}},'\
'"project":{{json (index .Config.Labels "orchestrate.project")}},"deployment":{{json (index .Config.Labels "orchestrate.deployment")}},"image":{{json .Image}},"status":{{json .State.Status}},'\
'"health":{{if .State.Health}}{{json .State.Health.Status}}{{else}}"none"{{end}},"restarts":{{.RestartCount}},'\
'"started_at":{{json .State.StartedAt}},"exit_code":{{.State.ExitCode}},"oom_killed":{{json .State.OOMKilled}}}'
wait "$listing" ||
  die 'Docker does not answer (above): is its service up (systemctl status docker), and is this user in the group docker?'
ids=$(awk -v project="$ORCH_PROJECT" '$3 == project { print $1 }' found)
others=$(awk -v project="$ORCH_PROJECT" '$3 != project && $2 == "running" { print $1 }' found)
: >containers
if [ -n "$ids" ]; then
  # A container may go between the two commands: the others count.
  # shellcheck disable=SC2086 # ids are hexadecimal
  docker inspect --type container --format "$template" $ids >containers 2>inspect.err ||
    grep -qi 'no such' inspect.err || die "docker inspect failed: $(cat inspect.err)"
fi

# What is promised to others on this machine counts against its memory, too; one that goes between the two commands doesn't.
if [ -n "$others" ]; then
  # shellcheck disable=SC2086 # ids are hexadecimal
  fact others_memory "$(docker inspect --type container --format '{{.HostConfig.Memory}}' $others 2>/dev/null | awk '{ sum += $1 } END { printf "%.0f\n", sum }')"
fi

# Splits them: what runs for the services, and what an interrupted deployment left behind.
LC_ALL=C awk -v each=line -f "$ORCH_BUNDLE/json.awk" containers >flat
LC_ALL=C awk -F '\t' -v number="$ORCH_N" '
  # Compose killed in the middle of a recreate leaves <12 hexadecimal digits>_<name>. The label "replaces" alone says nothing: whoever has
  # once replaced another container keeps it.
  function half_named(name) { return index(name, "_") == 14 && substr(name, 2, 12) !~ /[^0-9a-f]/ }
  { split($1, path, "\037"); value[path[1], path[2]] = $3; if (path[1] > lines) lines = path[1] + 0 }
  END {
    for (i = 1; i <= lines; i++) {
      of = value[i, "deployment"]
      left = (value[i, "replaces"] != "" && half_named(value[i, "name"])) || (of != "" && of + 0 != number + 0 && value[i, "oneoff"] == "True")
      # A one-off container of somebody else (a user at the shell) is none of ours.
      if (left) print "left", i
      else if (value[i, "oneoff"] != "True") {
        print "service", i
        if (value[i, "project"] == "") print "foreign", i
        if (value[i, "status"] == "restarting" || value[i, "health"] == "unhealthy") bad++
        if (value[i, "status"] == "running" && value[i, "health"] != "unhealthy") good++
      }
    }
    print "verdict", (good + bad == 0 ? "null" : bad ? "false" : "true")
  }' flat >parts

# KIND: the JSON array of the containers of that kind.
array() {
  awk -v kind="$1" 'NR == FNR { if ($1 == kind) wanted[$2] = 1; next } FNR in wanted { text = text (n++ ? "," : "") $0 } END { print "[" text "]" }' \
    parts containers
}
# What an earlier first deployment of ours left bears our label.
if [ -z "$ORCH_PREVIOUS" ] && grep -q '^foreign' parts; then
  names=$(awk -F '\t' 'NR == FNR { split($0, w, " "); if (w[1] == "foreign") wanted[w[2]] = 1; next }
    { split($1, path, "\037"); if (path[1] in wanted && path[2] == "name") printf "%s%s", (n++ ? ", " : ""), substr($3, 2) }' parts flat)
  die "Containers of a Compose project $ORCH_PROJECT are here already, which no release of ours made: $names. A first deployment would replace them, \
and couldn't bring them back. Remove them (docker compose -p $ORCH_PROJECT down, which keeps the volumes), or give this environment a \`project:\` of its own in its \
inventory."
fi
leftovers=$(array left)
fact leftovers "$leftovers"
fact baseline "$(array service)"
fact healthy "$(awk '$1 == "verdict" { print $2 }' parts)"
if [ "$leftovers" != '[]' ]; then
  say 'An interrupted deployment left containers behind; this one removes or replaces them:'
  awk -F '\t' 'NR == FNR { split($0, w, " "); if (w[1] == "left") wanted[w[2]] = 1; next }
    { split($1, path, "\037"); if (path[1] in wanted && path[2] == "name") print "  " substr($3, 2) }' parts flat
fi
rm -f flat found parts inspect.err

# Which releases lie here, which of them passed their gate, and how large the last backup was.
fact releases "[$(release_rows)]"
last=
for file in "$ORCH_OPT"/backups/*.dump; do
  if [ -f "$file" ]; then last=$file; fi # their names begin with their time
done
if [ -n "$last" ]; then fact last_backup_bytes "$(stat -c %s "$last")"; fi
