"""ssh-hardening on a fresh droplet: settings, drift, and the drills in which it would lock the operator out."""

import pytest
from test_user import install

pytestmark = pytest.mark.sandbox
OURS = "/etc/ssh/sshd_config.d/00-orchestrate.conf"
PARAMS = {"PORT": "", "ROOT_LOGIN": 1, "REVERT": 120}


@pytest.fixture(scope="module")
def host(droplet):
    install(droplet, "sudo", "ufw")
    droplet.apply("user", {"NAME": "deploy", "SUDO": 1})
    droplet.run("systemctl stop 'orchestrate-revert-*.timer'")
    return droplet


def settings(host):
    return host.sh("cd /etc/ssh && stat -c '%n %a %U %i' sshd_config sshd_config.d/* | cut -d' ' -f1-3; cat sshd_config sshd_config.d/*")


def disarm(host, step):
    return host.apply("disarm", {"STEP": "01-ssh-hardening"}, number=int(step.directory.split("/")[-2]), nn=2)


def effective(host, keyword):
    return host.sh(f"sshd -T | sed -n 's/^{keyword} //p'")


def test_planned_made_again_undone(host):
    before = settings(host)
    planned = host.plan("ssh-hardening", {**PARAMS, "ROOT_LOGIN": 0})
    assert planned.subjects == [f"create file {OURS}", "run service ssh"]
    assert settings(host) == before
    step = host.apply("ssh-hardening", {**PARAMS, "ROOT_LOGIN": 0})
    assert step.changes == planned.changes
    assert host.reaches("deploy", "sudo -n true") and not host.reaches("root")
    disarm(host, step)
    assert effective(host, "passwordauthentication") == "no" and effective(host, "permitrootlogin") == "no"
    assert "sha1" not in effective(host, "macs") + effective(host, "kexalgorithms")
    assert host.plan("ssh-hardening", {**PARAMS, "ROOT_LOGIN": 0}).changes == []
    again = host.apply("ssh-hardening", {**PARAMS, "ROOT_LOGIN": 0})
    assert again.changes == [] and host.sh("systemctl list-timers --all --no-legend 'orchestrate-revert-*' | wc -l") == "0"
    again.undo()
    step.undo()
    step.undo()
    assert settings(host) == before and host.reaches("root")


def test_each_drift_is_named_and_mended(host):
    disarm(host, host.apply("ssh-hardening", PARAMS))
    drifts = {
        "our file": (f"sed -i 's/^PasswordAuthentication no/PasswordAuthentication yes/' {OURS}", [f"update file {OURS}", "run service ssh"],
                     "- PasswordAuthentication yes"),
        "our file gone": (f"rm {OURS}", [f"create file {OURS}", "run service ssh"], "+ PasswordAuthentication no"),
        "a file that is read before ours": (
            "printf 'passwordauthentication=yes\\nMatch User ada\\n  PasswordAuthentication yes\\n' >/etc/ssh/sshd_config.d/00-a.conf",
            ["update file /etc/ssh/sshd_config.d/00-a.conf", "run service ssh"], "+ # orchestrate bootstrap: passwordauthentication=yes"),
        "a line in front of the include": ("sed -i '1i X11Forwarding yes' /etc/ssh/sshd_config", ["update file /etc/ssh/sshd_config", "run service ssh"],
                                           "- X11Forwarding yes"),
        "no include": ("sed -i '/^Include/d' /etc/ssh/sshd_config", ["update file /etc/ssh/sshd_config", "run service ssh"],
                       "+ Include /etc/ssh/sshd_config.d/*.conf"),
        "not at boot": ("systemctl --quiet disable ssh.service", ["update service ssh", "run service ssh"], "~ disabled -> enabled"),
        "widened": (f"chmod 666 {OURS}", [f"update file {OURS}", "run service ssh"], "~ mode 666 -> 644"),
    }
    for name, (command, subjects, line) in drifts.items():
        host.run(command)
        seen = settings(host)
        planned = host.plan("ssh-hardening", PARAMS)
        assert planned.subjects == subjects, name
        assert line in [line for change in planned.changes for line in change["detail"]], name
        step = host.apply("ssh-hardening", PARAMS)
        assert step.changes == planned.changes
        assert host.reaches("deploy") and host.plan("ssh-hardening", PARAMS).changes == [], name
        assert effective(host, "passwordauthentication") == "no" and effective(host, "x11forwarding") == "no"
        step.undo()
        assert settings(host) == seen and host.plan("ssh-hardening", PARAMS).subjects == subjects, name
        disarm(host, host.apply("ssh-hardening", PARAMS))
    host.run("rm -f /etc/ssh/sshd_config.d/00-a.conf")
    # Later files lose anyway: they are nobody's business.
    host.run("echo 'PasswordAuthentication yes' >/etc/ssh/sshd_config.d/50-cloud-init.conf")
    assert host.plan("ssh-hardening", PARAMS).changes == []
    host.run("rm /etc/ssh/sshd_config.d/50-cloud-init.conf")


def test_somebody_elses_broken_file_is_refused_before_anything_happens(host):
    disarm(host, host.apply("ssh-hardening", PARAMS))
    host.run("echo 'Nonsense yes' >/etc/ssh/sshd_config.d/50-broken.conf")
    before = settings(host)
    try:
        assert host.plan("ssh-hardening", {**PARAMS, "PORT": 2222}, check=False).status == 1
        step = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222}, check=False)
        assert step.status == 1 and "50-broken.conf" in step.output and "Nothing was changed" in step.output
        assert host.sh("systemctl list-timers --all --no-legend 'orchestrate-revert-*' | wc -l") == "0"
        step.undo()
        assert settings(host) == before and host.reaches("deploy")
    finally:
        host.run("rm /etc/ssh/sshd_config.d/50-broken.conf")


def test_a_listen_address_with_a_port_is_named(host):
    host.run("echo 'ListenAddress 0.0.0.0:22' >/etc/ssh/sshd_config.d/20-here.conf")
    try:
        step = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222}, check=False)
        assert step.status == 1 and "0.0.0.0:22" in step.output
        step.undo()
    finally:
        host.run("rm /etc/ssh/sshd_config.d/20-here.conf")


def test_a_port_that_somebody_has_is_refused(host):
    host.run("nohup nc -lk 2222 >/dev/null 2>&1 </dev/null & echo $! >/tmp/nc.pid; sleep 0.3")
    step = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222}, check=False)
    host.run("kill $(cat /tmp/nc.pid)")
    assert step.status == 1 and "2222 is taken" in step.output
    step.undo()


def test_another_port_and_back(host):
    disarm(host, host.apply("ssh-hardening", PARAMS))
    host.run("echo 'Port 22' >/etc/ssh/sshd_config.d/10-port.conf")
    params = {**PARAMS, "PORT": 2222}
    step = host.apply("ssh-hardening", params)
    assert "update file /etc/ssh/sshd_config.d/10-port.conf" in step.subjects
    assert host.reaches("deploy", port=2222, address=host.address), host.said
    assert not host.reaches("deploy")
    assert host.plan("ssh-hardening", params).changes == []
    step.undo()
    assert host.reaches("deploy") and not host.reaches("deploy", port=2222, address=host.address)
    host.run("rm /etc/ssh/sshd_config.d/10-port.conf")


def test_a_firewall_that_is_up_lets_the_new_port_in(host):
    host.run("ufw allow 22/tcp >/dev/null && ufw --force enable")
    try:
        rules = host.sh("cat /etc/ufw/user.rules /etc/ufw/user6.rules")
        params = {**PARAMS, "PORT": 2222}
        step = host.apply("ssh-hardening", params)
        assert "update firewall" in step.subjects
        assert host.reaches("deploy", port=2222, address=host.address)
        assert host.plan("ssh-hardening", params).changes == []
        step.undo()
        assert host.sh("cat /etc/ufw/user.rules /etc/ufw/user6.rules") == rules
        assert "2222" not in host.sh("iptables -S; ip6tables -S") and host.reaches("deploy")
    finally:
        host.inside("ufw --force reset")


def test_wrong_port_and_everybody_dead_the_host_comes_back_by_itself(host):
    disarm(host, host.apply("ssh-hardening", PARAMS))
    before = settings(host)
    step = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222, "REVERT": 5})
    assert not host.reaches("deploy")
    host.until(lambda: host.reaches("deploy", "sudo -n true"), "the old port answers", 30)
    host.until(lambda: settings(host) == before, "the settings are the old ones", 10)
    assert "undone by the host" in host.sh(f"cat {step.directory}/../log")
    step.undo()
    assert settings(host) == before and host.reaches("deploy")


def test_an_apply_that_hangs_is_ended_by_the_revert(host):
    head = 'set -eu\n. "$ORCH_BUNDLE/lib.sh"\n. "$ORCH_BUNDLE/system.sh"\n'
    host.run("echo old >/etc/hangs; rm -f /etc/went-on")
    step = host.apply("made", {}, {
        "apply.sh": head + "arm_revert 2\necho new | ensure_file /etc/hangs root:root 600\nsleep 6\necho x | ensure_file /etc/went-on root:root 600\n",
        "undo.sh": head + "disarm_revert\nrestore_files\n"}, check=False)
    assert step.status != 0
    host.until(lambda: host.read("/etc/hangs") == "old\n", "the old content", 10)
    host.run("sleep 6")
    assert not host.exists("/etc/went-on")
    step.undo()
    assert host.sh("stat -c %a /etc/hangs; systemctl list-units --all --no-legend 'orchestrate-revert-01-made*'") == "644"


def test_sshd_that_died_is_started_by_undo(host):
    step = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222})
    host.run("systemctl kill -s KILL ssh.service; systemctl stop ssh.service", check=False)
    host.inside(f"cd {step.directory} && {host.environment(1, step.directory)} sh ./undo.sh")
    assert host.reaches("deploy")


GENERATOR = "/usr/lib/systemd/system-generators/sshd-socket-generator"


@pytest.fixture
def by_socket(host):
    """systemd listens, as on Ubuntu since 22.10."""
    host.inside("rm -f /etc/ssh/sshd_config.d/00-orchestrate.conf; systemctl -q disable --now ssh.service; systemctl -q enable --now ssh.socket")
    yield host
    host.inside(f"rm -f {GENERATOR}; systemctl daemon-reload; systemctl -q disable --now ssh.socket; systemctl -q add-wants multi-user.target ssh.service; "
                "systemctl restart ssh.service")


def test_a_socket_of_systemds(by_socket):
    host = by_socket
    assert host.reaches("deploy")
    step = host.apply("ssh-hardening", PARAMS)
    assert step.subjects == [f"create file {OURS}", "run service ssh"], "it is started at boot: by its socket"
    assert host.reaches("deploy") and host.plan("ssh-hardening", PARAMS).changes == []
    disarm(host, step)
    # Debian's socket has its port in the unit.
    other = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222}, check=False)
    assert other.status == 1 and "ssh.socket" in other.output and "Nothing was changed" in other.output
    other.undo()
    step.undo()
    assert host.reaches("deploy") and host.sh("systemctl is-active ssh.socket") == "active"


def test_a_socket_whose_port_follows_the_settings(by_socket):
    host = by_socket
    # What Ubuntu's generator does; there is no Ubuntu in the sandbox.
    host.inside(f"cat >{GENERATOR} <<'END'\n#!/bin/sh\nmkdir -p $1/ssh.socket.d\n"
                "port=$(sed -n 's/^Port //p' /etc/ssh/sshd_config.d/00-orchestrate.conf 2>/dev/null)\n"
                f"printf '[Socket]\\nListenStream=\\nListenStream=%s\\n' ${{port:-22}} >$1/ssh.socket.d/addresses.conf\nEND\nchmod 755 {GENERATOR}; systemctl daemon-reload")
    step = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222})
    assert host.reaches("deploy", port=2222, address=host.address), host.said
    assert not host.reaches("deploy")
    assert host.plan("ssh-hardening", {**PARAMS, "PORT": 2222}).changes == []
    step.undo()
    assert host.reaches("deploy") and not host.reaches("deploy", port=2222, address=host.address)
    dead = host.apply("ssh-hardening", {**PARAMS, "PORT": 2222, "REVERT": 4})
    assert not host.reaches("deploy")
    host.until(lambda: host.reaches("deploy", "sudo -n true"), "the old port answers", 30)
    host.until(lambda: not host.exists(OURS), "the settings are the old ones", 10)
    dead.undo()
