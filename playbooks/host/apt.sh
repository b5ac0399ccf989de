# shellcheck shell=sh
# apt, beside others who use it. Sourced behind system.sh by the steps that install packages.

# apt-get, with patience for whoever else is at it.
apt() {
  DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a APT_LISTCHANGES_FRONTEND=none \
    apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# The lists have a lock of their own, for which apt doesn't wait. A mirror may be gone for a moment, too.
update_lists() {
  _tries=0
  while :; do
    # Without it a mirror that doesn't answer is a warning, and the lists are yesterday's.
    if apt -o APT::Update::Error-Mode=any update >"$ORCH_STEP/update.log" 2>&1; then return 0; fi
    _tries=$((_tries + 1))
    if grep -q 'Could not get lock\|Unable to lock' "$ORCH_STEP/update.log"; then
      [ $_tries != 1 ] || say 'Somebody else updates the package lists: waiting.'
      [ $_tries -lt 150 ] || break
      sleep 2
    else
      [ $_tries -lt 3 ] || break
      sleep 3
    fi
  done
  cat "$ORCH_STEP/update.log" >&2
  say 'The package lists could not be updated (above). What is known already may do.'
}

# NAME…: installs them, without what they would only recommend. What the mirror took is told apart: that isn't the machine's doing.
install_packages() {
  clock
  # shellcheck disable=SC2154 # set by clock
  _began=$up_ms
  update_lists
  apt --yes --no-install-recommends --download-only install "$@" >"$ORCH_STEP/download.log" 2>&1 || {
    cat "$ORCH_STEP/download.log" >&2
    die "$* could not be installed (above)."
  }
  clock
  fact "${downloads:+second_}download_ms" $((up_ms - _began))
  downloads=1
  apt --yes --no-install-recommends install "$@" || die "$* could not be installed (above)."
}
downloads=

# ---- Docker's repository

repository_list=/etc/apt/sources.list.d/orchestrate-docker.list
repository_key=/etc/apt/keyrings/orchestrate-docker.gpg

scratch_gpg() { gpg --batch --no-options --no-autostart --trust-model always --homedir "$ORCH_STEP/gnupg" "$@" 2>>"$ORCH_STEP/gpg.err"; }

# FILE FINGERPRINT: that key into repository.gpg, and nothing else of what the file holds: apt reads armor less strictly than gpg does. Fails if it isn't there.
take_key() {
  rm -rf "$ORCH_STEP/gnupg"
  mkdir -m 700 "$ORCH_STEP/gnupg"
  scratch_gpg --import "$1" >/dev/null || : # others among them may be broken: what comes out is looked at
  scratch_gpg --export "$2" >"$ORCH_STEP/repository.gpg" || return 1
  # The fingerprint may be that of a subkey, of somebody else's key.
  scratch_gpg --show-keys --with-colons "$ORCH_STEP/repository.gpg" |
    awk -F: -v want="$2" '$1 == "pub" { keys++; primary = 1 } $1 == "fpr" && primary { found = $10; primary = 0 }
      END { exit !(keys == 1 && found == want) }'
}

# FINGERPRINT: is what lies there that key, byte for byte? Sets repository.gpg.
has_key() { [ -s "$repository_key" ] && take_key "$repository_key" "$1" && cmp -s "$repository_key" "$ORCH_STEP/repository.gpg"; }

# URL: a list of somebody else's that has it already, in REPLY. apt refuses one repository with two keys.
others_list() {
  REPLY=
  for _list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    if [ ! -e "$_list" ] || [ "$_list" = "$repository_list" ]; then continue; fi
    grep -v '^[[:space:]]*#' "$_list" | grep -qF "$1" || continue
    REPLY=$_list
    return 0
  done
  return 1
}

# URL FINGERPRINT: Docker's repository in apt's sources (sources.list(5)), believed by that key alone. URL/gpg is asked only where the key isn't here yet.
ensure_repository() {
  if others_list "$1"; then
    say "$1 is a source of apt's already ($REPLY): that is left alone."
    return 0
  fi
  # shellcheck source=/dev/null
  _suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  if ! have gpg && [ -s "$repository_key" ]; then
    : # a plan, which installs nothing
  elif have gpg && has_key "$2"; then
    ensure_file "$repository_key" root:root 0644 <"$ORCH_STEP/repository.gpg"
  elif checking; then
    echo "+ the key $2, from $1/gpg" >"$ORCH_STEP/key.detail"
    if [ -e "$repository_key" ]; then _action=update; else _action=create; fi
    change "$_action" "file $repository_key" "$ORCH_STEP/key.detail"
  else
    curl -fsSL --max-time 60 --retry 2 -o "$ORCH_STEP/fetched.key" "$1/gpg" ||
      die "The key of $1 could not be fetched (above). Nothing was installed from there."
    take_key "$ORCH_STEP/fetched.key" "$2" ||
      die "What $1/gpg gives is not the key $2. Nothing was installed from there. If Docker has changed its key, name it: docker: { repository_key: ... }."
    ensure_directory "${repository_key%/*}" root:root 0755
    ensure_file "$repository_key" root:root 0644 <"$ORCH_STEP/repository.gpg"
  fi
  echo "deb [arch=$(dpkg --print-architecture) signed-by=$repository_key] $1 $_suite stable" |
    ensure_file "$repository_list" root:root 0644
  # One list that apt can't read takes all of them away.
  # shellcheck disable=SC2154 # ensure_file's
  checking || [ "$changed" = 0 ] || apt-get indextargets >/dev/null || die "apt can't read its sources with $repository_list among them (above)."
}
