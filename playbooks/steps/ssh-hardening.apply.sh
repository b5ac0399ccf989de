# sshd: keys only, modern algorithms, the port that is wanted. Everything is tried on copies first; then the revert is armed; then it is done.
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/sshd.sh
. "$ORCH_BUNDLE/sshd.sh"
PORT='' ROOT_LOGIN=0 REVERT=180
# shellcheck source=/dev/null
. "$ORCH_STEP/params"
case $PORT in *[!0-9]* | 0*) die "Not a port: $PORT" ;; esac
[ "${PORT:-1}" -le 65535 ] || die "Not a port: $PORT"
main=$sshd_settings
folder=/etc/ssh/sshd_config.d
ours=00-orchestrate.conf # the first value wins, in the order of the names
copies=$ORCH_STEP/copies

# KIND NAME…: those that this OpenSSH knows, joined by commas.
known() {
  ssh -Q "$1" >"$ORCH_STEP/known"
  shift
  printf '%s\n' "$@" | grep -xFf "$ORCH_STEP/known" | paste -sd , # the wanted order
}

# "Keyword value" lines, as they stand in the file.
wanted_settings() {
  [ -z "$PORT" ] || echo "Port $PORT"
  if [ "$ROOT_LOGIN" = 0 ]; then echo 'PermitRootLogin no'; else echo 'PermitRootLogin prohibit-password'; fi
  echo 'PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
HostbasedAuthentication no
X11Forwarding no
LoginGraceTime 60
ClientAliveInterval 60
ClientAliveCountMax 3'
  # Not only the newest: what an older client knows besides is sound, too (encrypt-then-MAC comes first).
  echo "KexAlgorithms $(known kex mlkem768x25519-sha256 sntrup761x25519-sha512 sntrup761x25519-sha512@openssh.com \
    curve25519-sha256 curve25519-sha256@libssh.org diffie-hellman-group18-sha512 diffie-hellman-group16-sha512 \
    diffie-hellman-group-exchange-sha256)"
  echo "Ciphers $(known cipher chacha20-poly1305@openssh.com aes256-gcm@openssh.com aes128-gcm@openssh.com aes256-ctr aes192-ctr aes128-ctr)"
  echo "MACs $(known mac hmac-sha2-512-etm@openssh.com hmac-sha2-256-etm@openssh.com umac-128-etm@openssh.com hmac-sha2-512 hmac-sha2-256)"
}

# The same as sshd -T prints them: in small letters, and one value by its older name.
expected_settings() {
  awk '{ $1 = tolower($1); sub(/^prohibit-password$/, "without-password", $2); print $1, $2 }' "$ORCH_STEP/settings"
}

# Copies of the settings with ours among them; `tried` is the main file as sshd is to read it here, with the folder of the copies.
copy_settings() {
  rm -rf "$copies"
  mkdir -p "$copies/sshd_config.d"
  cp "$main" "$copies/sshd_config"
  for _file in "$folder"/*.conf; do
    [ ! -e "$_file" ] || cp "$_file" "$copies/sshd_config.d/${_file##*/}" || die "$_file can't be read."
  done
  if ! awk 'tolower($1) == "match" { exit 1 } tolower($1) == "include" && /sshd_config\.d\/\*\.conf/ { found = 1; exit } END { exit !found }' "$main"; then
    { echo 'Include /etc/ssh/sshd_config.d/*.conf' && cat "$main"; } >"$copies/sshd_config"
  fi
  {
    echo '# Written by orchestrate bootstrap. In sshd the first value wins: what stands here is not overruled by files with later names.'
    cat "$ORCH_STEP/settings"
  } >"$copies/sshd_config.d/$ours"
}

# Does sshd take them? Its complaint, with the names of the files themselves, into `complaint`.
try_settings() {
  sed "s|^\([[:space:]]*[Ii][Nn][Cc][Ll][Uu][Dd][Ee][[:space:]]\{1,\}\)\(/etc/ssh/\)\{0,1\}sshd_config\.d/|\1$copies/sshd_config.d/|" \
    "$copies/sshd_config" >"$copies/tried"
  _status=0
  sshd -t -f "$copies/tried" 2>"$ORCH_STEP/complaint.raw" || _status=$?
  sed "s|$copies/tried|$main|g; s|$copies/sshd_config\.d|$folder|g" "$ORCH_STEP/complaint.raw" >"$ORCH_STEP/complaint"
  return $_status
}

# Settings whose value isn't the wanted one, as "keyword wanted". A port counts where it is listened on: there may be several.
lost_settings() {
  sshd -T -f "$copies/tried" 2>/dev/null >"$ORCH_STEP/effective"
  expected_settings | while read -r _keyword _value; do
    if [ "$_keyword" = port ]; then
      [ "$(configured_ports "$copies/tried")" = "$_value" ] || echo "port $_value"
    elif grep -q "^$_keyword " "$ORCH_STEP/effective"; then # one that it doesn't know can't be wrong
      grep -qxF "$_keyword $_value" "$ORCH_STEP/effective" || echo "$_keyword $_value"
    fi
  done
}

# FILE UPTO KEYWORD: makes comments of that keyword's lines outside of Match; UPTO 1: only in front of where our file is read.
comment_out() {
  awk -v word="$3" -v upto="$2" '
    { line = tolower($0); sub(/^[ \t]+/, "", line); split(line, at, /[ \t=]+/) }
    at[1] == "match" || (upto && at[1] == "include" && line ~ /sshd_config\.d\//) { off = 1 }
    !off && (at[1] == word || (word == "kbdinteractiveauthentication" && at[1] == "challengeresponseauthentication")) {
      print "# orchestrate bootstrap: " $0
      next
    }
    { print }' "$1" >"$1.new"
  mv "$1.new" "$1"
}

# Somebody else's settings that stand before ours, and win, become comments. Ports add up: there every other line counts.
overrule() {
  while read -r _keyword _; do
    _upto=1
    [ "$_keyword" != port ] || _upto=0
    comment_out "$copies/sshd_config" $_upto "$_keyword"
    for _file in "$copies"/sshd_config.d/*.conf; do
      if [ "${_file##*/}" = $ours ]; then
        [ "$_keyword" = port ] || break
      else
        comment_out "$_file" 0 "$_keyword"
      fi
    done
  done
}

explain_lost() {
  while read -r _keyword _value; do
    _is=$(sed -n "s/^$_keyword //p" "$ORCH_STEP/effective" | paste -sd ' ')
    [ "$_keyword" != port ] || _is=$(sed -n 's/^listenaddress //p' "$ORCH_STEP/effective" | paste -sd ' ')
    say "$_keyword stays $_is instead of $_value" >&2
  done <"$ORCH_STEP/lost"
}

ensure_settings() {
  ensure_file "$main" "$(stat -L -c %U:%G "$main")" "$(stat -L -c %a "$main")" <"$copies/sshd_config"
  for _copy in "$copies"/sshd_config.d/*.conf; do
    _real=$folder/${_copy##*/}
    if [ "${_copy##*/}" = $ours ]; then
      ensure_directory "$folder" root:root 0755
      ensure_file "$_real" root:root 0644 <"$_copy"
    elif ! cmp -s "$_copy" "$_real"; then
      ensure_file "$_real" "$(stat -L -c %U:%G "$_real")" "$(stat -L -c %a "$_real")" <"$_copy"
    fi
  done
}

# At boot, too. Enabled is either of the two units.
ensure_enabled() {
  ssh_service
  service=$REPLY
  ! systemctl is-enabled --quiet ssh.socket 2>/dev/null && ! systemctl is-enabled --quiet "$service.service" || return 0
  echo "~ $(systemctl is-enabled "$service.service" 2>/dev/null || :) -> enabled" >"$ORCH_STEP/enabling" # its status only repeats the word
  change update "service $service" "$ORCH_STEP/enabling"
  checking && return 0
  [ -e "$ORCH_STEP/was-enabled" ] || systemctl is-enabled "$service.service" 2>/dev/null | write_atomically "$ORCH_STEP/was-enabled"
  systemctl --quiet unmask "$service.service"
  # Not `enable`: it makes the alias sshd.service, and systemd 257 loses sight of a service that gets another name while it runs.
  systemctl --quiet add-wants multi-user.target "$service.service"
}

# A firewall that is up already must let the new port in, else nobody can prove it. The step firewall makes its rules exact.
ensure_open() {
  [ -n "$PORT" ] && grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf && have ufw || return 0
  ! grep -q "^### tuple ### allow \(tcp\|any\) $PORT 0\.0\.0\.0/0 any 0\.0\.0\.0/0 in" /etc/ufw/user.rules || return 0
  echo "+ allow $PORT/tcp" >"$ORCH_STEP/opening"
  change update firewall "$ORCH_STEP/opening"
  checking && return 0
  keep_old /etc/ufw/user.rules
  keep_old /etc/ufw/user6.rules
  : >"$ORCH_STEP/opened"
  sync "$ORCH_STEP/opened" "$ORCH_STEP"
  ufw allow "$PORT/tcp" >"$ORCH_STEP/ufw.log" 2>&1 || {
    cat "$ORCH_STEP/ufw.log" >&2
    die "ufw can't open port $PORT (above)."
  }
}

converge() {
  ensure_enabled
  ensure_open
  ensure_settings
  # shellcheck disable=SC2031 # a rehearsal's own
  if [ -s "$changes_file" ] || [ "$(listening_ports)" != "$(configured_ports "$copies/tried")" ]; then
    echo '~ reload' >"$ORCH_STEP/reload"
    change run "service $service" "$ORCH_STEP/reload"
  fi
}

prepare_sshd
# Faults of others come to light before anything of ours is there.
sshd -t 2>"$ORCH_STEP/complaint" || {
  cat "$ORCH_STEP/complaint" >&2
  die "sshd's settings have a fault (above) which is not of our making: it would not come up again. Mend it first. Nothing was changed."
}
wanted_settings >"$ORCH_STEP/settings"
copy_settings
try_settings || {
  cat "$ORCH_STEP/complaint" >&2
  die "sshd does not take these settings (above). Nothing was changed."
}
lost_settings >"$ORCH_STEP/lost"
if [ -s "$ORCH_STEP/lost" ]; then
  overrule <"$ORCH_STEP/lost"
  try_settings || {
    cat "$ORCH_STEP/complaint" >&2
    die "sshd does not take its settings without what stands in our way (above). Nothing was changed."
  }
  lost_settings >"$ORCH_STEP/lost"
  [ ! -s "$ORCH_STEP/lost" ] || {
    explain_lost
    die "Other settings of sshd overrule ours (above): a file that is included elsewhere, or a ListenAddress with a port. Nothing was changed."
  }
fi
listening_ports >"$ORCH_STEP/listening"
if [ -n "$PORT" ] && ! grep -qx "$PORT" "$ORCH_STEP/listening" && [ -n "$(ss -Hltn "sport = :$PORT")" ]; then
  die "Port $PORT is taken by another program: sshd would not come up. Nothing was changed."
fi
if ssh_by_socket && [ "$(configured_ports "$copies/tried")" != "$(cat "$ORCH_STEP/listening")" ] &&
  [ ! -e /usr/lib/systemd/system-generators/sshd-socket-generator ]; then
  die "systemd listens for SSH (ssh.socket), and doesn't take the port from sshd's settings here: change ListenStream, or use ssh.service. Nothing was changed."
fi

if checking; then
  converge
elif would_change converge; then
  arm_revert "$REVERT"
  converge
  sshd -t || die "sshd does not take the settings now that they are in place (above)."
  ! ssh_by_socket || : >"$ORCH_STEP/by-socket"
  : >"$ORCH_STEP/reloading"
  sync "$ORCH_STEP/reloading" "$ORCH_STEP"
  reload_sshd
  await_sshd || die "sshd does not listen on $(configured_ports "$main" | paste -sd ' ') after the reload."
fi
tell_changes
