# ufw: nothing comes in but SSH where it listens and what is allowed; containers' published ports obey the same rules (docs/bootstrap.md).
# shellcheck shell=sh
set -eu
# shellcheck source=playbooks/host/lib.sh
. "$ORCH_BUNDLE/lib.sh"
# shellcheck source=playbooks/host/system.sh
. "$ORCH_BUNDLE/system.sh"
# shellcheck source=playbooks/host/sshd.sh
. "$ORCH_BUNDLE/sshd.sh"
# shellcheck source=playbooks/host/ufw.sh
. "$ORCH_BUNDLE/ufw.sh"
ALLOW='' REVERT=180
# shellcheck source=/dev/null
. "$ORCH_STEP/params"

# The ports of SSH, first; then the others. "PORT/PROTOCOL" a line, each once.
wanted_words() {
  sed 's,$,/tcp,' "$ORCH_STEP/ssh-ports"
  for _word in $ALLOW; do echo "$_word"; done
}

# ufw's own spelling of a rule in its files ("### tuple ### …"): NET is 0.0.0.0/0 or ::/0.
wanted_tuples() {
  while IFS=/ read -r _port _protocol; do echo "allow $_protocol $_port $1 any $1 in"; done <"$ORCH_STEP/words"
}

# FILE: the rules in it, without their comments' text.
present_tuples() {
  [ ! -e "$1" ] || sed -n 's/^### tuple ### //p' "$1" | sed 's/ comment=.*//'
}

# The rules for containers: what DOCKER-USER is to hold, as iptables-save spells it. Docker asks it before its own rules and leaves it alone.
docker_rules() {
  echo '-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DOCKER-USER -i docker0 -j RETURN
-A DOCKER-USER -i br-+ -j RETURN'
  for _word in $ALLOW; do
    _port=${_word%/*}
    # The port of the host, not the container's; and only what was published.
    echo "-A DOCKER-USER -p ${_word#*/} -m conntrack --ctstate DNAT --ctorigdstport $_port --ctdir ORIGINAL -j RETURN"
  done
  echo '-A DOCKER-USER -m conntrack --ctstate DNAT -j DROP
-A DOCKER-USER -o docker0 -j DROP
-A DOCKER-USER -o br-+ -j DROP'
}

# Docker before 27 leaves IPv6 alone: nobody else would let containers of a network talk to each other, and reach out, where ufw drops what is
# forwarded. Other networks' containers, and whoever comes from outside, stay out.
docker_rules_6() {
  echo '-A ufw6-after-forward -m physdev --physdev-is-bridged -j ACCEPT
-A ufw6-after-forward -i docker0 -o br-+ -j DROP
-A ufw6-after-forward -i br-+ -o docker0 -j DROP
-A ufw6-after-forward -i br-+ -o br-+ -j DROP
-A ufw6-after-forward -i docker0 -j ACCEPT
-A ufw6-after-forward -i br-+ -j ACCEPT'
}

# FILE [COMMAND]: it with our block at its end, instead of an older one; COMMAND: prints more rules.
with_block() {
  sed '/^# BEGIN orchestrate/,/^# END orchestrate/d' "$1"
  echo '# BEGIN orchestrate: the published ports of containers obey the firewall
*filter
:DOCKER-USER - [0:0]'
  docker_rules
  ${2-:}
  echo 'COMMIT
# END orchestrate'
}

# The defaults file, with our policies.
with_policies() {
  sed -e 's/^DEFAULT_INPUT_POLICY=.*/DEFAULT_INPUT_POLICY="DROP"/' -e 's/^DEFAULT_OUTPUT_POLICY=.*/DEFAULT_OUTPUT_POLICY="ACCEPT"/' "$1" |
    if has_ipv6; then sed 's/^IPV6=.*/IPV6=yes/'; else cat; fi
}

# What the kernel holds, against what the files say: lines of detail.
live_faults() {
  for _tables in $(tables); do
    _net=${_tables%tables}
    _chain=ufw${_net#ip} # ufw, ufw6
    $_tables -w 5 -S INPUT >"$ORCH_STEP/live" || {
      echo "~ $_tables can't be asked -> it can"
      continue
    }
    grep -qx -e '-P INPUT DROP' "$ORCH_STEP/live" || echo "~ $_tables: INPUT lets in what no rule names -> it drops that"
    grep -q -e "-j $_chain-before-input" "$ORCH_STEP/live" || echo "~ $_tables: INPUT does not ask ufw -> it does"
    ! docker_unasked "$_tables" || echo "~ $_tables: FORWARD does not ask DOCKER-USER -> it does"
    $_tables -w 5 -S "$_chain-user-input" 2>/dev/null | sed 1d | sort >"$ORCH_STEP/live" # they only accept: any order is good
    while IFS=/ read -r _port _protocol; do
      case $_port in
        *:*) echo "-A $_chain-user-input -p $_protocol -m multiport --dports $_port -j ACCEPT" ;;
        *) echo "-A $_chain-user-input -p $_protocol -m $_protocol --dport $_port -j ACCEPT" ;;
      esac
    done <"$ORCH_STEP/words" | sort >"$ORCH_STEP/expected"
    compare_live "$_tables"
    # Docker puts a last rule of its own behind ours, which changes nothing; fail2ban may put its chains in front.
    $_tables -w 5 -S DOCKER-USER 2>/dev/null | sed -e 1d -e '/^-A DOCKER-USER -j RETURN$/d' -e '/ -j f2b-[^ ]*$/d' >"$ORCH_STEP/live"
    docker_rules >"$ORCH_STEP/expected"
    compare_live "$_tables"
    if [ "$_chain" = ufw6 ]; then
      $_tables -w 5 -S ufw6-after-forward 2>/dev/null | sed 1d >"$ORCH_STEP/live"
      docker_rules_6 >"$ORCH_STEP/expected"
      compare_live "$_tables"
    fi
  done
}

# TABLES: does Docker rule there, without a question to DOCKER-USER?
docker_unasked() { $1 -w 5 -S DOCKER >/dev/null 2>&1 && ! $1 -w 5 -S FORWARD | grep -q -e '-j DOCKER-USER'; }

# TABLES: `live` against `expected`.
compare_live() {
  differences "$ORCH_STEP/live" "$ORCH_STEP/expected" | sed -n "s/^\([-+]\) -A /\1 $1: /p"
}

# The rules that somebody added are taken out by ufw's own words for them.
remove_extras() {
  ufw show added | sed -n 's/^ufw //p' >"$ORCH_STEP/added"
  # A comment is the last part, and quoted.
  sed "s/ comment '.*//" "$ORCH_STEP/added" | while read -r _rule; do
    ! sed 's/^/allow /' "$ORCH_STEP/words" | grep -qxF "$_rule" || continue
    set -f
    # shellcheck disable=SC2086 # ufw's words
    set -- $_rule
    set +f
    if [ "$1" = route ]; then
      shift
      set -- route delete "$@"
    else
      set -- delete "$@"
    fi
    run_ufw --force "$@"
  done
}

# ARGUMENTS: ufw, quiet unless it fails.
run_ufw() {
  ufw "$@" >"$ORCH_STEP/ufw.log" 2>&1 </dev/null || {
    cat "$ORCH_STEP/ufw.log" >&2
    die "ufw $* failed (above)."
  }
}

# Everything that differs in ufw's rules, as detail; its files are written by ufw itself.
rule_faults() {
  for _file in user.rules user6.rules; do
    _net=0.0.0.0/0
    [ $_file = user.rules ] || _net=::/0
    [ $_file = user.rules ] || has_ipv6 || continue
    present_tuples "/etc/ufw/$_file" | sort -u >"$ORCH_STEP/present"
    wanted_tuples $_net | sort -u >"$ORCH_STEP/wanted.tuples"
    comm -13 "$ORCH_STEP/present" "$ORCH_STEP/wanted.tuples" | sed 's/^/+ /'
    comm -23 "$ORCH_STEP/present" "$ORCH_STEP/wanted.tuples" | sed 's/^/- /'
  done | sed -e 's/ any \(0\.0\.0\.0\|::\)\/0 in$/ in/' # the source: anybody
}

converge() {
  ensure_file /etc/default/ufw root:root 0644 <"$ORCH_STEP/policies"
  _files=$changed
  ensure_file /etc/ufw/after.rules root:root 0640 <"$ORCH_STEP/after"
  _files=$((_files + changed))
  ensure_file /etc/ufw/after6.rules root:root 0640 <"$ORCH_STEP/after6"
  _files=$((_files + changed))
  rule_faults >"$ORCH_STEP/faults"
  _told=none
  if [ -s "$ORCH_STEP/faults" ]; then
    # ufw brings these into the kernel by itself: there they aren't faults of their own.
    ! checking || _told=-user-input
    change update 'firewall rules' "$ORCH_STEP/faults"
    checking || {
      while read -r _word; do run_ufw allow "$_word"; done <"$ORCH_STEP/words"
      remove_extras
      rule_faults >"$ORCH_STEP/faults"
      [ ! -s "$ORCH_STEP/faults" ] || {
        cat "$ORCH_STEP/faults" >&2
        die 'These rules of ufw can not be brought about (above).'
      }
    }
  fi
  if ! systemctl is-enabled --quiet ufw.service; then
    echo '~ not started at boot -> started' >"$ORCH_STEP/boot"
    change update 'service ufw' "$ORCH_STEP/boot"
    checking || {
      [ -e "$ORCH_STEP/was-enabled" ] || systemctl is-enabled ufw.service 2>/dev/null | write_atomically "$ORCH_STEP/was-enabled"
      systemctl --quiet unmask ufw.service
      systemctl --quiet enable ufw.service
    }
  fi
  if ! ufw_enabled; then
    printf '%s\n' '~ off -> on' '  what comes in is dropped, but for:' >"$ORCH_STEP/on"
    sed 's/^/+ /' "$ORCH_STEP/words" >>"$ORCH_STEP/on"
    change update firewall "$ORCH_STEP/on"
    checking || run_ufw --force enable
  else
    live_faults | sed "/: ufw6\{0,1\}$_told /d" >"$ORCH_STEP/faults"
    if [ $_files != 0 ] || [ -s "$ORCH_STEP/faults" ]; then
      change run 'firewall reload' "$ORCH_STEP/faults"
      checking || {
        reload_ufw
        for _tables in $(tables); do ! docker_unasked "$_tables" || $_tables -w 5 -I FORWARD -j DOCKER-USER; done
      }
    fi
  fi
  checking && return 0
  live_faults >"$ORCH_STEP/faults"
  [ ! -s "$ORCH_STEP/faults" ] || {
    cat "$ORCH_STEP/faults" >&2
    die 'The kernel does not hold the rules that ufw was told (above).'
  }
}

for word in $ALLOW; do
  port=${word%/*}
  case $word in */tcp | */udp) ;; *) die "Not a port to allow: $word (80/tcp, 6000:6010/udp)" ;; esac
  case ${port%%:*}${port#*:} in '' | *[!0-9]*) die "Not a port to allow: $word (80/tcp, 6000:6010/udp)" ;; esac
done

# What its settings say, and where it listens: after a change of port without a reload these differ.
{
  prepare_sshd
  configured_ports "$sshd_settings"
  listening_ports
  # shellcheck disable=SC2086 # four words
  set -- ${SSH_CONNECTION-}
  [ $# -lt 4 ] || echo "$4"
} | sort -nu >"$ORCH_STEP/ssh-ports"
[ -s "$ORCH_STEP/ssh-ports" ] || die "Nobody can tell on which port sshd listens: a firewall might lock you out. Nothing was changed."
wanted_words | awk '!seen[$0]++' >"$ORCH_STEP/words"

if ! have ufw; then
  checking || die 'There is no ufw here: the step packages should have installed it.'
  printf '%s\n' '~ off -> on' '  what comes in is dropped, but for:' >"$ORCH_STEP/on"
  sed 's/^/+ /' "$ORCH_STEP/words" >>"$ORCH_STEP/on"
  echo '+ the published ports of containers obey the same rules' >>"$ORCH_STEP/on"
  change create firewall "$ORCH_STEP/on"
  tell_changes
  exit 0
fi
with_policies /etc/default/ufw >"$ORCH_STEP/policies"
with_block /etc/ufw/after.rules >"$ORCH_STEP/after"
with_block /etc/ufw/after6.rules docker_rules_6 >"$ORCH_STEP/after6"

if checking; then
  converge
elif would_change converge; then
  arm_revert "$REVERT"
  for file in user.rules user6.rules ufw.conf; do keep_old "/etc/ufw/$file"; done
  keep_live
  converge
fi
tell_changes
