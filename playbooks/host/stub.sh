# shellcheck shell=sh
# The text of the exec command line: sh -c "<this>" orchestrate BUNDLE PROJECT ASKED; both names of [a-z0-9-], ASKED lines for attach.sh.
set -eu
umask 077
bundle=$1 project=$2 asked=$3
state=${ORCHESTRATE_STATE:-/var/lib/orchestrate}
opt=${ORCHESTRATE_OPT:-/opt}
fail() {
  printf "error %s\n%s" "${#1}" "$1" >&2
  exit 1
}
# shellcheck disable=SC2174 # the parents are the system's
own() {
  [ -e "$1" ] || mkdir -p -m 0750 "$1" 2>/dev/null ||
    sudo -n install -d -m 0750 -o "$(id -un)" -g "$(id -gn)" "$1" 2>/dev/null </dev/null ||
    fail "No right to make $1: as root: install -d -m 0750 -o $(id -un) $1"
  # What somebody else made is his until root says otherwise: a change of the deploying user, say.
  [ -w "$1" ] || fail "$1 belongs to $(stat -c %U "$1"), and $(id -un) can't write to it: as root: chown -R $(id -un): $1"
}
own "$state"
own "$state/$project"
own "$opt/$project"
home=$state/bundle/$bundle
if [ -d "$home" ]; then
  echo H >&2
  touch "$home" 2>/dev/null || : # in use: not to be pruned
else
  new=$state/bundle/.new.$$
  full() {
    rm -rf "$new" "$new.tar"
    fail "No room for our scripts in $state/bundle: the disk is full, or can't be written to."
  }
  rm -rf "$new"
  own "$state/bundle"
  mkdir "$new" 2>/dev/null || full
  echo N >&2
  read -r _ size # "bundle SIZE"
  head -c "$size" 2>/dev/null >"$new.tar" || full
  case $(sha256sum <"$new.tar") in "$bundle"*) ;; *) rm -rf "$new"*; fail "The bundle arrived damaged." ;; esac
  # shellcheck disable=SC2015 # either
  tar -x -C "$new" --no-same-owner -f "$new.tar" 2>/dev/null && find "$new" -exec sync {} + || full
  mv -T "$new" "$home" 2>/dev/null || [ -d "$home" ]
  sync "$state/bundle"
  rm -rf "$new" "$new.tar"
fi
LC_ALL=C
export LC_ALL
exec sh "$home/attach.sh" "$project" "$asked"
