# Docker's engine with Compose v2, the wanted members in its daemon.json, and USER in the group docker.
# shellcheck shell=sh disable=SC2015,SC2031 # `A && B || C`: C is an exit or an install, and B is a test; a rehearsal keeps its own
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/apt.sh
. "$ORCH_BUNDLE/apt.sh"
# shellcheck source=playbooks/host/units.sh
. "$ORCH_BUNDLE/units.sh"
# shellcheck source=playbooks/host/hostlock.sh
. "$ORCH_BUNDLE/hostlock.sh"
# shellcheck source=playbooks/host/docker.sh
. "$ORCH_BUNDLE/docker.sh"
USER='' REPOSITORY='' REPOSITORY_KEY=''
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

checking || [ -z "$USER" ] || id "$USER" >/dev/null 2>&1 || die "There is no user $USER on this host: a step user has to come before. Nothing was changed."

# ---- packages

# Does apt get Docker's own packages from somewhere? (What is only installed doesn't count.)
own_repository() { have apt-cache && [ -n "$(apt-cache madison docker-compose-plugin 2>/dev/null)" ]; }

has_compose() {
  for _directory in /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker; do
    [ ! -x "$_directory/cli-plugins/docker-compose" ] || return 0
  done
  return 1
}

# SYSTEM: Debian 11 and 12 have no Compose v2 of their own. A repository that an earlier run wrote, or that somebody removed, is wanted too.
wants_repository() {
  case $1 in 'debian 11' | 'debian 12') ;; *) return 1 ;; esac
  [ ! -e "$repository_list" ] && own_repository && return 1
  ! has_compose || [ -e "$repository_list" ] ||
    dpkg-query -W -f '${db:Status-Status}' docker-compose-plugin 2>/dev/null | grep -qx installed
}

# Sets missing to the packages that this host still needs, and repository to where they come from, if not from the distribution.
find_missing() {
  missing='' repository=$REPOSITORY
  # shellcheck source=/dev/null
  system=$(. /etc/os-release && echo "$ID ${VERSION_ID-}")
  if [ -z "$repository" ] && wants_repository "$system"; then repository=https://download.docker.com/linux/${system% *}; fi
  have jq || missing=jq
  [ -z "$repository" ] || others_list "$repository" || {
    have gpg || missing="$missing gpg"
    have curl || missing="$missing curl"
  }
  if ! have dockerd || ! have docker || ! has_compose; then find_missing_docker; fi
  missing=${missing# }
}

find_missing_docker() {
  if ! have dockerd || ! have docker; then
    # Without the parser a kernel with AppArmor starts no container.
    if [ -d /sys/kernel/security/apparmor ] && ! have apparmor_parser; then missing="$missing apparmor"; fi
    if [ -n "$repository" ] || own_repository; then
      missing="$missing docker-ce docker-ce-cli containerd.io"
    else
      missing="$missing docker.io iptables"
      case $system in 'debian 11' | 'debian 12' | ubuntu*) ;; *) missing="$missing docker-cli" ;; esac
    fi
  fi
  has_compose || if [ -n "$repository" ] || own_repository; then
    missing="$missing docker-compose-plugin"
  else
    case $system in ubuntu*) missing="$missing docker-compose-v2" ;; *) missing="$missing docker-compose" ;; esac
  fi
}

# The tools that the rest needs, of those that are missing, before Docker comes.
install_tools() {
  tools='' rest=''
  for package in $missing; do
    case $package in jq | gpg | curl) tools="$tools $package" ;; *) rest="$rest $package" ;; esac
  done
  [ -n "$tools" ] || return 0
  # shellcheck disable=SC2086 # names of packages
  install_packages $tools
  missing=${rest# }
}

find_missing
for package in $missing; do change create "package $package"; done
if [ -n "$repository" ]; then
  checking || install_tools
  # Docker's key (its documentation, "Install using the apt repository"), unless the playbook names another.
  ensure_repository "$repository" "${REPOSITORY_KEY:-9DC858229FC7DD38854AE2D88D81803C0EBFCD88}"
fi

# ---- what daemon.json becomes

if ! checking && ! have jq && { have dockerd || [ -s "$daemon_json" ]; }; then
  # Before Docker comes, and starts with what lies there.
  install_tools
fi
old=$ORCH_STEP/daemon.old
if [ -s "$daemon_json" ]; then cat "$daemon_json" >"$old"; else : >"$old"; fi
if have jq; then
  jq -e -s 'length == 1 and (.[0] | type) == "object"' daemon.json >/dev/null 2>&1 ||
    die 'The wanted daemon.json of this step is not a JSON object. Nothing was changed.'
  if ! jq -e -s 'length == 0 or (length == 1 and (.[0] | type) == "object")' "$old" >/dev/null 2>broken; then
    die "$daemon_json is not a JSON object$(sed '1s/^[^:]*: */: /; q' broken). Nothing was written. Mend it, or move it away, and run this again."
  fi
  # With another driver the old one's options would be errors. The first line: what the change needs, what it would need without the members
  # that the daemon tells by itself, and which members change.
  # shellcheck disable=SC2016 # jq's variables
  jq -n -r --slurpfile old "$old" --slurpfile new daemon.json --argjson reloadable "$reloadable" --argjson told "$told" '
    def needs: if . == [] then "none" elif . - $reloadable == [] then "reload" else "restart" end;
    ($old[0] // {}) as $was | $new[0] as $wanted
    | ($was["log-driver"] // "json-file") as $driver
    | ((if ($wanted["log-driver"] // $driver) != $driver then $was | del(.["log-opts"]) else $was end) * $wanted) as $merged
    | ([($was + $merged) | keys[]] | map(select(. as $key | $was[$key] != $merged[$key]))) as $changed
    | "\($changed | needs) \($changed - $told | needs) \($changed | join(" "))", $merged' >daemon.merged
  read -r needs untold members <daemon.merged
  sed 1d daemon.merged >daemon.new
  # As it is, in its own layout, where it says the same.
  [ "$needs" != none ] || [ ! -s "$old" ] || cat "$old" >daemon.new
else
  # A plan, or no Docker yet and no file of its own.
  cat daemon.json >daemon.new
  needs=restart untold=restart members=
fi

# Is it what the running daemon lives by? Somebody may have edited the file without a word to Docker.
state=
if have dockerd; then
  unit_state docker.service
  state=$active
fi
if [ "$state" = active ] && have jq; then
  information=$(daemon_information)
  # shellcheck disable=SC2016 # jq's variables
  live=$(printf '%s' "$information" | jq -r --slurpfile merged daemon.new '. as $live | $merged[0]
    | if .["live-restore"] == true and $live.swarm == "active" then "swarm"
      elif (has("log-driver") and .["log-driver"] != $live["log-driver"]) or (has("default-address-pools") and
        (.["default-address-pools"] | map([.base, .size])) != ($live["default-address-pools"] // [] | map([.Base, .Size]))) then "restart"
      elif has("live-restore") and .["live-restore"] != $live["live-restore"] then "reload"
      else "none" end')
  case $live/$untold in
    swarm/*) die 'This Docker is part of a swarm, which live-restore excludes: dockerd would not start. Nothing was changed. Leave the swarm, or give the step docker live_restore: false.' ;;
    restart/* | */restart) needs=restart ;;
    reload/* | */reload) needs=reload ;;
    *) needs=none ;;
  esac
fi
if [ -n "$members" ] || [ ! -s "$old" ]; then
  validate_daemon "$ORCH_STEP/daemon.new" || die "dockerd refuses the new $daemon_json: $(tail -n 3 validate). Nothing was written."
fi

# ---- changes

# Only its restart, and only of a Docker that was here before: containers of a deployment would be cut off from it.
restart=0
case $needs in restart) [ "$state" != active ] || restart=1 ;; esac
if ! checking && [ $restart = 1 ]; then
  lock_for_docker 0 || {
    holders=$(host_holders | tr '\n' ';')
    die "Docker must be restarted for its new configuration, which isn't done while a deployment runs: ${holders%;}. \
Nothing was changed. Run this again when it is over."
  }
fi

# Where it is kept from others it may hold a proxy's password: neither opened nor shown.
mode=0644 secret=
if [ -e "$daemon_json" ]; then
  case $(stat -c %a "$daemon_json") in
    *[4567]0) mode=0640 secret=secret ;;
    *0) mode=0600 secret=secret ;;
  esac
fi
if ! checking && [ "$needs" != none ]; then remember docker "$needs ${state:-none}"; fi
ensure_directory /etc/docker root:root 0755
if have jq || [ ! -s "$old" ]; then
  ensure_file "$daemon_json" root:root "$mode" $secret <daemon.new
else
  {
    echo '~ merged with what lies there, once jq is installed:'
    sed 's/^/+ /' daemon.new
  } >detail
  change update "file $daemon_json" detail
fi
if [ -n "$missing" ] && ! checking; then
  # After its configuration: its first start finds that. Its words are sure to be package names.
  # shellcheck disable=SC2086
  install_packages $missing
  have dockerd && have docker && has_compose || die "The packages $missing are installed, and yet dockerd, docker or Compose v2 is missing."
  validate_daemon "$daemon_json" || die "dockerd refuses $daemon_json: $(tail -n 3 validate)."
fi
# Its package starts it.
if ! checking || have dockerd; then ensure_unit docker.service; fi

case $needs in
  restart) if [ $restart = 1 ]; then
    printf '  %s\n' "for ${members:-what $daemon_json says already}" >detail
    change run 'restart of docker' detail
    if ! checking; then
      # Else containers stop with the restart, and some never come back.
      if jq -e '.["live-restore"] == true' daemon.new >/dev/null && ! printf '%s' "$information" | jq -e '.["live-restore"]' >/dev/null; then
        reload_docker daemon.new || die "Docker didn't take live-restore over: its restart would stop the containers. See journalctl -u docker."
      fi
      restart_unit docker.service || die "Docker doesn't start with its new configuration: $(unit_reason docker.service)"
      unlock_host
      trap - EXIT
    fi
  fi ;;
  reload) if [ "$state" = active ]; then
    printf '  %s\n' "for ${members:-what $daemon_json says already}" >detail
    change run 'reload of docker' detail
    checking || reload_docker daemon.new || die "Docker doesn't take its new configuration over: $(unit_reason docker.service)"
  fi ;;
esac

if [ -n "$USER" ]; then
  groups=$(id -nG "$USER" 2>/dev/null) || groups=
  case " $groups " in
    *' docker '*) ;;
    *)
      printf '+ member of the group docker (which can do whatever root can)\n' >detail
      change update "user $USER" detail
      if ! checking; then
        remember group "$USER"
        usermod -aG docker "$USER"
      fi
      ;;
  esac
fi

# One that fell over its old configuration comes back by itself, with the new one.
if ! checking && [ -s "$changes_file" ]; then
  clock
  deadline=$((up_ms + 60000))
  until docker version --format 'Docker {{.Server.Version}} answers.' 2>/dev/null; do
    clock
    [ "$up_ms" -lt "$deadline" ] || die "Docker doesn't answer: $(unit_reason docker.service)"
    sleep 1
  done
fi
tell_changes
