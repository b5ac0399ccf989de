# shellcheck shell=sh
# What several steps know about releases. Sourced after lib.sh.

# Number of the current release, or nothing.
current_number() { readlink "$ORCH_OPT/current" 2>/dev/null | sed 's,.*/,,'; }

# NUMBER: did it pass its gate? Its deployment's journal says so; without one (pruned) the history.
release_committed() {
  if [ -f "$ORCH_STATE/deployments/$1/journal.jsonl" ]; then
    grep -q '^{"event":"committed"' "$ORCH_STATE/deployments/$1/journal.jsonl"
  else
    grep -s "\"number\":$1," "$ORCH_STATE/history.jsonl" | grep -q '"outcome":"committed"'
  fi
}

# NUMBER: the release that was active when it was deployed; 0: none. release.json has a member a line (Release.json), quotes in texts escaped.
release_previous() { sed -n 's/^  "previous" *: *\([0-9][0-9]*\),*$/\1/p' "$ORCH_OPT/releases/$1/release.json"; }

# The releases that lie here as JSON objects, separated by commas: number, previous, committed, version. All in one go: they may be many.
release_rows() {
  for _file in "$ORCH_OPT"/releases/[1-9]*/release.json; do
    [ -f "$_file" ] || continue
    _number=${_file%/release.json} _number=${_number##*/}
    _journal=$ORCH_STATE/deployments/$_number/journal.jsonl
    if [ -f "$_journal" ]; then _committed=journal; elif release_committed "$_number"; then _committed=true; else _committed=false; fi
    set -- "$@" "committed=$_committed" "number=$_number" "$_file"
    [ $_committed != journal ] || set -- "$@" "$_journal"
  done
  [ $# = 0 ] || awk '
    FILENAME ~ /release\.json$/ && FNR == 1 { release[++n] = number; previous[n] = 0; version[n] = "\"\""; yes[n] = committed == "true" }
    FILENAME !~ /release\.json$/ { if (/^\{"event":"committed"/) yes[n] = 1; next }
    /^  "previous" *: *[0-9]+,*$/ { gsub(/[^0-9]/, ""); previous[n] = $0 }
    /^  "version" *: *".*",*$/ { sub(/^  "version" *: */, ""); sub(/,*$/, ""); version[n] = $0 }
    END {
      for (i = 1; i <= n; i++)
        printf "%s{\"number\":%s,\"previous\":%s,\"committed\":%s,\"version\":%s}", (i > 1 ? "," : ""), release[i], previous[i], (yes[i] ? "true" : "false"), version[i]
    }' "$@"
}

# KEY FILE…: the values of it (reference, digest, id, tag) in images.yml files; those that are missing count as empty.
image_values() {
  _name=$1
  shift
  cat "$@" 2>/dev/null | sed -n "s/^    $_name: \"\\(.*\\)\"\$/\\1/p" | sort -u
}

# make_secret_files: the values that containers get as files, from ./files of the step. They may read them, whoever they run as: a bind mount leads to the
# file itself, past the directory, which is closed to everybody else. A file is never written again: a value that changes has a name of its own. What was
# made stands in ./made.
make_secret_files() {
  [ -d files ] || return 0
  secrets_directory=$ORCH_OPT/secrets
  [ -d "$secrets_directory" ] || mkdir -m 0700 "$secrets_directory"
  for secret_file in files/*; do
    secret_name=${secret_file#files/}
    [ ! -f "$secrets_directory/$secret_name" ] || continue
    printf '%s\n' "$secret_name" >>made
    sync made
    (umask 0333 && write_atomically "$secrets_directory/$secret_name" <"$secret_file")
  done
}

# remove_secret_files: those that ./made lists.
remove_secret_files() {
  [ -f made ] || return 0
  while read -r secret_name; do
    [ -z "$secret_name" ] || rm -f "$ORCH_OPT/secrets/$secret_name" "$ORCH_OPT/secrets/$secret_name".new.*
  done <made
}

# A directory that never reaches a disk.
memory_directory() {
  for _directory in "/run/user/$(id -u)" /dev/shm; do
    if [ -d "$_directory" ] && [ -w "$_directory" ] && [ "$(stat -f -c %T "$_directory")" = tmpfs ]; then
      printf '%s\n' "$_directory"
      return 0
    fi
  done
  die 'Neither /run/user nor /dev/shm is a file system in memory: there is no safe place for the registry password.'
}
