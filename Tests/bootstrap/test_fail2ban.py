"""fail2ban on a fresh droplet: who guesses is kept out, over the port where sshd listens; the firewall's step finds no fault in it, nor the other way round.

Each client of a droplet appears from the network's gateway. The one that guesses here lives in a network namespace of the droplet's own.
"""

import pytest
from conftest import SHELLS
from system_cycle import applied, content, mended, plan, settled

pytestmark = pytest.mark.sandbox
PARAMS = {"RETRIES": 3, "FIND": 600, "BAN": 600, "IGNORE": "10.83.0.1 2001:db8::/32"}
FILE = "/etc/fail2ban/jail.d/zz-orchestrate.local"
FIREWALL = {"ALLOW": "80/tcp 443/tcp", "REVERT": 120}


GUEST = "10.99.0.2"


def guess(host):
    """Somebody who isn't known, from an address of its own: one attempt. What ssh said."""
    host.sh("ip netns list | grep -q guest || { ip netns add guest; ip link add outside type veth peer name inside netns guest; ip addr add 10.99.0.1/24 dev outside;"
            f"ip link set outside up; ip -n guest addr add {GUEST}/24 dev inside; ip -n guest link set inside up; }}")
    return host.run("ip netns exec guest ssh -o StrictHostKeyChecking=no -o BatchMode=yes -o ConnectTimeout=3 nobody-knows@10.99.0.1 true", check=False).output


def banned(host):
    return host.sh("fail2ban-client get sshd banip").split()


def settings(host):
    """Of the server that runs; nothing while it is on its way."""
    return host.sh("for s in maxretry findtime bantime; do fail2ban-client get sshd $s 2>/dev/null; done", check=False).split()


@pytest.fixture(scope="module")
def host(droplet):
    droplet.sh("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install busybox ufw >/dev/null 2>&1")
    return droplet


def test_planned_on_made_again_undone(host):
    planned = plan(host, "fail2ban", PARAMS)
    assert f"create file {FILE}" in planned.subjects and "create package fail2ban" in planned.subjects
    step = host.apply("fail2ban", PARAMS)
    # The directory comes with the package.
    assert [subject for subject in step.subjects if "directory" not in subject] == planned.subjects
    assert settings(host) == ["3", "600", "600"]
    settled(host, "fail2ban", PARAMS)
    step.undo()
    step.undo()
    assert not host.exists(FILE)
    assert host.sh("systemctl is-active fail2ban; systemctl is-enabled fail2ban", check=False).split() == ["inactive", "disabled"]
    assert host.sh("dpkg --verify fail2ban | grep ' /etc/' || :") == "", "its package's files are as they came"
    before = content(host, "/etc/fail2ban /etc/ufw /etc/systemd")
    again = host.apply("fail2ban", PARAMS)
    assert again.subjects == [f"create file {FILE}", "update service fail2ban.service"]
    again.undo()
    assert content(host, "/etc/fail2ban /etc/ufw /etc/systemd") == before
    host.apply("fail2ban", PARAMS)


def test_a_step_that_changes_nothing_restarts_nothing_when_it_is_undone(host):
    host.apply("fail2ban", PARAMS)
    process = host.sh("systemctl show -p MainPID --value fail2ban")
    step = host.apply("fail2ban", PARAMS)
    assert step.changes == []
    step.undo()
    assert host.sh("systemctl show -p MainPID --value fail2ban") == process


@pytest.mark.parametrize("drift, subjects", [
    (f"sed -i s/600/60/ {FILE}", [f"update file {FILE}", "run restart of fail2ban"]),
    (f"rm {FILE}", [f"create file {FILE}", "run restart of fail2ban"]),
    (f"chmod 666 {FILE}", [f"update file {FILE}", "run restart of fail2ban"]),
    ("systemctl -q stop fail2ban", ["update service fail2ban.service"]),
    ("systemctl -q mask --now fail2ban", ["update service fail2ban.service"]),
    ("fail2ban-client set sshd bantime 1 >/dev/null", ["run restart of fail2ban"]),
    ("fail2ban-client set sshd delaction iptables-multiport >/dev/null", ["run restart of fail2ban"]),
    ("fail2ban-client stop sshd >/dev/null", ["run restart of fail2ban"]),
])
def test_drift_is_named_and_mended(host, drift, subjects):
    host.apply("fail2ban", PARAMS)
    mended(host, "fail2ban", PARAMS, None, drift, subjects)
    assert settings(host) == ["3", "600", "600"]


def test_who_guesses_is_kept_out_and_the_firewall_has_no_fault(host):
    firewall = host.apply("firewall", FIREWALL)
    host.apply("disarm", {"STEP": "01-firewall"}, number=int(firewall.directory.split("/")[-2]), nn=2)
    host.apply("fail2ban", PARAMS)
    host.until(lambda: guess(host) and GUEST in banned(host), "the address that guessed is banned", 60)
    assert "refused" in guess(host) or "timed out" in guess(host)
    assert host.reaches("root"), "nobody else is"
    # Its chain in INPUT is no drift, and what reloads the firewall leaves it where it is.
    assert host.plan("firewall", FIREWALL).changes == []
    host.run("ufw reload")
    assert host.plan("firewall", FIREWALL).changes == []
    assert "Permission denied" not in guess(host)
    host.sh("ufw --force delete allow 443/tcp")
    mend = host.apply("firewall", FIREWALL)
    host.apply("disarm", {"STEP": "01-firewall"}, number=int(mend.directory.split("/")[-2]), nn=2)
    assert "Permission denied" not in guess(host)
    settled(host, "fail2ban", PARAMS)
    host.sh(f"fail2ban-client set sshd unbanip {GUEST}")
    assert "Permission denied" in guess(host)


def test_the_ports_are_those_of_sshd(host):
    host.write("/etc/ssh/sshd_config.d/10-port.conf", "Port 22\nPort 2222\n")
    host.sh("systemctl reload ssh")
    host.until(lambda: "2222" in host.sh("ss -Hltn"), "it listens", 10)
    step = host.apply("fail2ban", PARAMS)
    assert f"update file {FILE}" in step.subjects
    assert "port = 22,2222" in host.read(FILE)
    settled(host, "fail2ban", PARAMS)
    host.sh("rm /etc/ssh/sshd_config.d/10-port.conf; systemctl reload ssh")
    host.until(lambda: "2222" not in host.sh("ss -Hltn"), "it doesn't any more", 10)
    host.apply("fail2ban", PARAMS)
    assert "port = 22\n" in host.read(FILE)


def test_what_fail2ban_would_refuse_is_refused_before(host):
    host.apply("fail2ban", PARAMS)
    host.write("/etc/fail2ban/jail.d/other.local", "[other]\nenabled = true\nfilter = no-such-filter\n")
    before = content(host, "/etc/fail2ban")
    for attempt in (host.plan, host.apply):
        step = attempt("fail2ban", {**PARAMS, "RETRIES": 4}, check=False)
        assert step.status == 1 and "Nothing was changed" in step.output and "no-such-filter" in step.output
    assert content(host, "/etc/fail2ban") == before and settings(host) == ["3", "600", "600"]
    host.sh("rm /etc/fail2ban/jail.d/other.local")
    settled(host, "fail2ban", PARAMS)


def test_another_file_that_wins_is_named(host):
    host.apply("fail2ban", PARAMS)
    host.write("/etc/fail2ban/jail.d/zzz.local", "[sshd]\nmaxretry = 99\n")
    host.sh("fail2ban-client reload")
    assert plan(host, "fail2ban", PARAMS).subjects == ["run restart of fail2ban"]
    failed = host.apply("fail2ban", PARAMS, check=False)
    assert failed.status == 1 and "Does another file" in failed.output
    host.sh("rm /etc/fail2ban/jail.d/zzz.local; fail2ban-client reload")
    settled(host, "fail2ban", PARAMS)


@pytest.mark.parametrize("params", [{"RETRIES": "many"}, {"IGNORE": "$(id)"}, {"BAN": ""}])
def test_refuses_what_is_none(host, params):
    assert host.plan("fail2ban", {**PARAMS, **params}, check=False).status == 1


def test_after_a_reboot_under_busybox_and_undone_after_a_kill(host):
    host.apply("fail2ban", PARAMS)
    host.reboot()
    host.until(lambda: host.run("fail2ban-client ping", check=False).status == 0, "it answers after a boot")
    shell, host.shell = host.shell, SHELLS[1]
    try:
        settled(host, "fail2ban", PARAMS)
        before = content(host, "/etc/fail2ban")
        killed = host.apply("fail2ban", {**PARAMS, "RETRIES": 7}, check=False, kill_after=0.7, prelude="setsid -w")
        killed.undo()
        assert content(host, "/etc/fail2ban") == before
        host.until(lambda: settings(host) == ["3", "600", "600"], "it lives by the old ones", 20)
        settled(host, "fail2ban", PARAMS)
    finally:
        host.shell = shell
    applied(host, "fail2ban", {**PARAMS, "IGNORE": "10.83.0.1"})
