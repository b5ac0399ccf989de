"""Nobody is locked out of a machine that is prepared: whatever is wrong, and wherever the client dies, root's key gets in again, to the old settings."""

import json
import re
import signal
import time

import pytest

from conftest import ROOT, engine, fresh_machine, sandbox

pytestmark = pytest.mark.machine
STEPS = re.findall(r"^  - ([a-z-]+):", (ROOT / "playbooks/builtin/bootstrap.yml").read_text(), re.MULTILINE)
# Behind each of the risky ones comes the proof. After the last one the host needs nobody any more.
KILLED_AFTER = [name for step in STEPS for name in ([step, f"{step}-reach"] if step in ("user", "ssh-hardening", "firewall") else [step])][:-1]
STATE = "/var/lib/orchestrate-host/bootstrap"
# What decides who gets in and what answers, and what else the steps write.
SETTINGS = (
    "sshd -T | sort; cat /root/.ssh/authorized_keys; getent passwd deploy; ls -d /home/deploy /opt/market-bot /etc/sudoers.d/*orch* 2>&1;"
    "ufw status verbose 2>&1; iptables -S | grep -v -i docker; ls /etc/ssh/sshd_config.d /etc/sysctl.d /etc/apt/apt.conf.d;"
    "cat /etc/docker/daemon.json 2>&1; ls /etc/systemd/system/orchestrate* /etc/systemd/journald.conf.d; sysctl -n net.core.somaxconn;"
    "systemctl list-units --all --no-legend 'orchestrate-revert-*'"
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    yield from fresh_machine("t-lockout", tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def installed(machine):
    """All packages are there, and nothing of the settings: what an undone bootstrap leaves."""
    process = machine.start("bootstrap", "prod", "--yes", "--json", "--lease", "5s")
    assert killed_after(process, KILLED_AFTER[-1])
    closed(machine)
    return machine


@pytest.fixture
def playbook(machine):
    """Gives the playbook another text for one test."""
    path = machine.folder / "playbooks/bootstrap.yml"
    good = path.read_text()

    def change(old, new):
        assert old in good
        path.write_text(good.replace(old, new))

    yield change
    path.write_text(good)


def inside(machine, command):
    """Without SSH, which counts who fails to get in, and then doesn't listen to him for a while."""
    return engine("exec", f"orchestrate-droplet-{machine.droplet}", "sh", "-c", command, check=False)


def settings(machine):
    """They are as they say, and root's key gets in."""
    assert sandbox("ssh", f"root@{machine.droplet}", "true", check=False, timeout=30).returncode == 0, "locked out"
    return inside(machine, SETTINGS)


def killed_after(process, step):
    """SIGKILL as soon as the client has heard that this step has ended; whether it did."""
    for line in process.stdout:
        if '"step_ended"' in line and f'"step":"{step}"' in line:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    process.wait()
    return False


def closed(machine, seconds=180):
    """Until the host has ended the deployment by itself; root's key gets in. Seconds that it took."""
    began = time.monotonic()
    while inside(machine, f"ls {STATE}/open 2>/dev/null || echo closed") != "closed":
        assert time.monotonic() < began + seconds, "the host didn't come back"
        time.sleep(0.5)
    return time.monotonic() - began


def outcome(machine):
    return json.loads(inside(machine, f"tail -n 1 {STATE}/history.jsonl"))["outcome"]


@pytest.mark.parametrize("step", KILLED_AFTER)
def test_a_client_killed_after_each_step(installed, step, capsys):
    before = settings(installed)
    process = installed.start("bootstrap", "prod", "--yes", "--json", "--lease", "5s")
    assert killed_after(process, step), process.stderr.read()
    took = closed(installed)
    with capsys.disabled():  # the figure is part of the run's output, also when it passes
        print(f"\n[killed after {step}: closed in {took:.1f} s]", end=" ")
    assert outcome(installed) == "undone"
    assert settings(installed) == before


WRONG = {
    "a port that nobody reaches": ("- ssh-hardening: {}", "- ssh-hardening: { port: 2222 }"),
    "a key that nobody has": ("- user: {}", '- user: { keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd5kqz0t4V2w8o9o8y1gq0l8e0cS7cV9s2m3n4b5v6c mallory"] }'),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_playbook(installed, playbook, what):
    before = settings(installed)
    playbook(*WRONG[what])
    result = installed.run("bootstrap", "prod", "--yes", "--output", "plain", timeout=400).expect(3)
    assert "doesn't get in any more" in result.text and "as it was before" in result.text, result.text
    assert settings(installed) == before


def test_a_firewall_that_drops_ssh(installed):
    """Somebody's own rule, which the step leaves alone, comes before ours."""
    rule = "-A ufw-before-input -p tcp --dport 22 -m conntrack --ctstate NEW -j DROP"
    installed.host(f"sed -i 's/^COMMIT/{rule}\\nCOMMIT/' /etc/ufw/before.rules", user="root")
    try:
        before = settings(installed)
        result = installed.run("bootstrap", "prod", "--yes", "--output", "plain", timeout=400).expect(3)
        assert "doesn't get in any more" in result.text and "as it was before" in result.text, result.text
        assert settings(installed) == before
    finally:
        installed.host("sed -i '/--dport 22 -m conntrack --ctstate NEW -j DROP/d' /etc/ufw/before.rules", user="root")


def test_a_broken_sshd_config(installed):
    """sshd runs on; with this file it would not come up again."""
    installed.host("echo 'PermitRootLogin perhaps' >/etc/ssh/sshd_config.d/90-broken.conf", user="root")
    try:
        before = settings(installed)
        result = installed.run("bootstrap", "prod", "--yes", "--output", "plain", timeout=400)
        assert result.status in (1, 3), result.text
        assert "90-broken.conf" in result.text, result.text
        assert settings(installed) == before
    finally:
        installed.host("rm /etc/ssh/sshd_config.d/90-broken.conf", user="root")


def test_a_runner_that_hangs_and_the_real_three_minutes(installed, playbook):
    """sshd listens elsewhere, the client is killed before the proof, and the runner hangs: the host waits its 180 s, then listens where it did."""
    before = settings(installed)
    playbook("- ssh-hardening: {}", "- ssh-hardening: { port: 2222 }")
    process = installed.start("bootstrap", "prod", "--yes", "--json")
    assert killed_after(process, "ssh-hardening"), process.stderr.read()
    # Not killed: systemd would start it again, and it would undo at once.
    inside(installed, "systemctl kill -s STOP 'orchestrate-bootstrap-*'")
    began = time.monotonic()
    assert sandbox("ssh", f"root@{installed.droplet}", "true", check=False, timeout=30).returncode != 0, "sshd listens there still"
    while sandbox("ssh", f"root@{installed.droplet}", "true", check=False, timeout=30).returncode != 0:
        assert time.monotonic() < began + 200, "the host didn't come back"
        time.sleep(1)
    took = time.monotonic() - began
    print(f"back after {took:.0f} s")
    assert took > 120, "that wasn't the timer"
    inside(installed, "systemctl kill -s KILL 'orchestrate-bootstrap-*'")
    closed(installed)
    assert outcome(installed) == "undone" and settings(installed) == before
    playbook("- ssh-hardening: {}", "- ssh-hardening: {}")
    installed.run("bootstrap", "prod", "--yes", timeout=400).expect(0)
    installed.run("bootstrap", "prod", "--plan").expect(0)
    assert "permitrootlogin no" not in before and installed.host("sudo -n sshd -T | grep -i ^permitrootlogin") == "permitrootlogin no"
