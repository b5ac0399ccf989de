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

# ---- Docker's repository

repository_list=/etc/apt/sources.list.d/orchestrate-docker.list
repository_key=/etc/apt/keyrings/orchestrate-docker.asc

# FILE FINGERPRINT: is this one key, with that fingerprint?
is_key() {
  mkdir -p "$ORCH_STEP/gnupg"
  chmod 700 "$ORCH_STEP/gnupg"
  gpg --batch --no-options --no-autostart --homedir "$ORCH_STEP/gnupg" --show-keys --with-colons "$1" 2>"$ORCH_STEP/gpg.err" |
    awk -F: -v want="$2" '$1 == "pub" { keys++; primary = 1 } $1 == "fpr" && primary { found = $10; primary = 0 }
      END { exit !(keys == 1 && found == want) }'
}

# URL FINGERPRINT: Docker's repository in apt's sources (sources.list(5)), believed by that key alone. URL/gpg is asked only where the key isn't here yet.
ensure_repository() {
  # shellcheck source=/dev/null
  _suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  if [ -s "$repository_key" ] && { ! have gpg || is_key "$repository_key" "$2"; }; then
    cat "$repository_key" >"$ORCH_STEP/repository.key"
    ensure_file "$repository_key" root:root 0644 <"$ORCH_STEP/repository.key"
  elif checking; then
    echo "+ the key $2, from $1/gpg" >"$ORCH_STEP/key.detail"
    if [ -e "$repository_key" ]; then _action=update; else _action=create; fi
    change "$_action" "file $repository_key" "$ORCH_STEP/key.detail"
  else
    curl -fsSL --max-time 60 --retry 2 -o "$ORCH_STEP/repository.key" "$1/gpg" ||
      die "The key of $1 could not be fetched (above). Nothing was installed from there."
    is_key "$ORCH_STEP/repository.key" "$2" ||
      die "What $1/gpg gives is not the key $2 alone. Nothing was installed from there. If Docker has changed its key, name it: docker: { repository_key: ... }."
    ensure_directory "${repository_key%/*}" root:root 0755
    ensure_file "$repository_key" root:root 0644 <"$ORCH_STEP/repository.key"
  fi
  echo "deb [arch=$(dpkg --print-architecture) signed-by=$repository_key] $1 $_suite stable" |
    ensure_file "$repository_list" root:root 0644
}
