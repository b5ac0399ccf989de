"""From a rented machine with root's key to a running service: bootstrap, deploy, drift, and nobody locked out. The tests build on each other."""

import json
import signal
import time

import pytest

from conftest import fresh_machine, outside_network, open_ports, sandbox

ROUND_TRIPS = 5
FROM_BARE = 90  # s from root's key to the bot's first answer, but for what the mirror takes
RISKY = ["user", "ssh-hardening", "firewall"]


@pytest.fixture(scope="module", params=["13", pytest.param("12", marks=pytest.mark.machine)], ids="debian-{}".format)
def machine(request, tmp_path_factory):
    """A machine with root's key and nothing else, and a project for it."""
    yield from fresh_machine(f"t-bootstrap-{request.param}", tmp_path_factory.mktemp("project"), debian=request.param)


def bootstrap(machine, *arguments, **more):
    return machine.run("bootstrap", "prod", *arguments, timeout=600, **more)


def changes(result) -> dict:
    """Subjects of the plan that was shown, by step."""
    plan = next(json.loads(line)["plan"] for line in result.out.splitlines() if line.startswith('{"event":"planned"'))
    return {step["step"]: [change["subject"] for change in step["changes"]] for step in plan["steps"] if step["changes"]}


def test_a_plan_shows_all_and_changes_nothing(machine):
    seen = "getent passwd; ls -la /etc/ssh/sshd_config.d /etc/sudoers.d /opt; dpkg -l | wc -l; systemctl list-timers --all --no-legend | wc -l"
    before = machine.host(seen, user="root")
    result = bootstrap(machine, "--plan", "--json").expect(2)
    found = changes(result)
    assert {"packages", "user", "directories", "ssh-hardening", "firewall", "docker"} <= set(found), found
    assert machine.host(seen, user="root") == before


def test_a_fresh_machine_is_prepared_and_deployed_to(machine):
    result = bootstrap(machine, "--yes", "--json").expect(0)
    summary = json.loads(result.out.splitlines()[-1])["summary"]
    print(f"bootstrap {result.seconds:.1f} s:", ", ".join(f"{step['step']} {step['seconds']:.1f}" for step in summary["steps"]))
    for step in RISKY:
        assert {f"{step}-reach", f"{step}-disarm"} <= {row["step"] for row in summary["steps"]}
    assert machine.host("systemctl list-units --all --no-legend 'orchestrate-revert-*'") == ""
    # What the mirror takes is its own affair; the images come from a registry on this machine.
    downloads = sum(
        fact["value"] for fact in map(json.loads, result.out.splitlines())
        if fact["event"] == "fact" and fact["key"].endswith("download_ms")) / 1000
    deployed = machine.deploy("v1.0.0", "--yes").expect(0)
    machine.assert_answers("v1.0.0")
    print(f"deploy {deployed.seconds:.1f} s; downloads of packages {downloads:.1f} s")
    assert result.seconds - downloads + deployed.seconds <= FROM_BARE


def test_a_second_time_changes_nothing(machine):
    result = bootstrap(machine, "--yes", "--json").expect(0)
    summary = json.loads(result.out.splitlines()[-1])["summary"]
    assert changes(result) == {}
    assert summary["round_trips"] <= ROUND_TRIPS
    print(f"second bootstrap {result.seconds:.2f} s, {summary['round_trips']} round trips")
    assert "nothing to do" in bootstrap(machine, "--yes", "--output", "plain").expect(0).text
    bootstrap(machine, "--plan").expect(0)


def test_the_doors_are_shut(machine):
    """Root and passwords don't get in; the deploying user does, and becomes root."""
    assert sandbox("ssh", f"root@{machine.droplet}", "true", check=False).returncode != 0
    effective = machine.host("sudo -n sshd -T").splitlines()
    assert {"passwordauthentication no", "permitrootlogin no"} <= set(effective), effective
    assert machine.host("sudo -n ufw status verbose").startswith("Status: active")


# What somebody does by hand, and a word of what the plan says of it.
DRIFT = {
    "sshd's settings": ("sed -i 's/^PasswordAuthentication .*/PasswordAuthentication yes/' /etc/ssh/sshd_config.d/00-orchestrate.conf", "ssh-hardening"),
    "a rule removed": ("ufw --force delete allow 443/tcp", "firewall"),
    "a rule added": ("ufw allow 5432/tcp", "firewall"),
    "the firewall off": ("ufw --force disable", "firewall"),
    "a key added": ("echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd5kqz0t4V2w8o9o8y1gq0l8e0cS7cV9s2m3n4b5v6c mallory' >>/home/deploy/.ssh/authorized_keys", "user"),
    "permissions widened": ("chmod 755 /opt/market-bot", "directories"),
    "the sudoers file readable": ("chmod 444 /etc/sudoers.d/*orchestrate*", "user"),
    "daemon.json": ("jq '.[\"live-restore\"] = false' /etc/docker/daemon.json >/tmp/d && cp /tmp/d /etc/docker/daemon.json", "docker"),
    "the journal's bounds": ("rm -f /etc/systemd/journald.conf.d/*orchestrate*", "log-retention"),
    "a kernel parameter": ("sysctl -qw net.core.somaxconn=128", "sysctl"),
    "the unit masked": ("systemctl mask orchestrate@market-bot.service 2>/dev/null || { rm -f /etc/systemd/system/orchestrate@.service; systemctl daemon-reload; }", "systemd-unit"),
}


@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_named_and_mended(machine, what):
    command, step = DRIFT[what]
    machine.host(f"sudo -n sh -c {json.dumps(command)}")
    planned = bootstrap(machine, "--plan", "--json").expect(2)
    assert set(changes(planned)) == {step}, changes(planned)
    bootstrap(machine, "--yes").expect(0)
    bootstrap(machine, "--plan").expect(0)
    machine.assert_answers("v1.0.0")


@pytest.mark.parametrize("step", ["ssh-hardening", "firewall"])
def test_a_client_that_dies_before_the_proof_locks_nobody_out(machine, step):
    """Killed while the step runs: the host undoes by itself, and somebody else gets in as before."""
    command, _ = DRIFT["sshd's settings" if step == "ssh-hardening" else "a rule added"]
    machine.host(f"sudo -n sh -c {json.dumps(command)}")
    process = machine.start("bootstrap", "prod", "--yes", "--json", "--lease", "5s")
    for line in process.stdout:
        if '"step_started"' in line and f'"step":"{step}"' in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    deadline = time.monotonic() + 60
    # sshd may just be taking its old settings over.
    while machine.host("sudo -n ls /var/lib/orchestrate-host/bootstrap/open 2>/dev/null || echo closed", check=False) != "closed":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    history = machine.host("sudo -n tail -n 1 /var/lib/orchestrate-host/bootstrap/history.jsonl")
    assert json.loads(history)["outcome"] == "undone", history
    assert changes(bootstrap(machine, "--plan", "--json").expect(2)).keys() == {step}
    bootstrap(machine, "--yes").expect(0)


def test_a_port_that_nobody_reaches_is_given_up(machine):
    """sshd would listen where no way leads: the proof fails, and all is as before."""
    playbook = machine.folder / "playbooks/bootstrap.yml"
    good = playbook.read_text()
    playbook.write_text(good.replace("- ssh-hardening: {}", "- ssh-hardening: { port: 2222, revert: 30s }"))
    try:
        result = bootstrap(machine, "--yes", "--output", "plain").expect(3)
        assert "doesn't get in any more" in result.text and "as it was before" in result.text
    finally:
        playbook.write_text(good)
    bootstrap(machine, "--plan").expect(0)
    machine.assert_answers("v1.0.0")


def test_a_secret_file_leaves_no_copy(machine):
    """Neither the new content nor the old one stays in the deployments' folders, nor is it shown."""
    playbook, source = machine.folder / "playbooks/bootstrap.yml", machine.folder / "token"
    good = playbook.read_text()
    playbook.write_text(good + '  - file: { source: token, path: /etc/token, mode: "0600", secret: true }\n')
    try:
        for text in ("canary-first\n", "canary-second\n"):
            source.write_text(text)
            for result in (bootstrap(machine, "--plan").expect(2), bootstrap(machine, "--yes").expect(0)):
                assert "canary" not in result.text
            assert machine.host("sudo -n cat /etc/token") == text.strip()
        assert machine.host("sudo -n grep -rl canary- /var/lib/orchestrate-host || true") == ""
    finally:
        playbook.write_text(good)


def test_published_ports_obey_the_firewall(machine):
    """A container on 0.0.0.0:8080 and [::]:8080 is reached from the host itself, and from nowhere else; also after Docker's restart and a reboot."""
    image = machine.host("docker inspect -f '{{.Image}}' $(docker ps -q --filter label=com.docker.compose.service=bot)")

    def assert_shut(six):
        four = machine.host("ip -4 -o addr show | awk '$2 ~ /^eth/ { print $4; exit }'").split("/")[0]
        for address in (four, f"[{six}]"):
            deadline = time.monotonic() + 30
            while machine.host(f"curl -g -s -o /dev/null -m 3 -w '%{{http_code}}' http://{address}:8080/ || true") != "200":
                assert time.monotonic() < deadline, f"it isn't published on {address}"
                time.sleep(0.5)
        for address in (four, six):
            assert open_ports(address) == {22}, address

    with outside_network(machine.droplet) as six:
        machine.host(f"docker run -d --name open --restart unless-stopped -p 8080:8080 --entrypoint python3 {image} -m http.server 8080")
        assert_shut(six)
        machine.host("sudo -n systemctl restart docker")
        assert_shut(six)
        sandbox("reboot", machine.droplet)
        assert_shut(six)
    machine.host("docker rm -f open")
    machine.assert_answers("v1.0.0", timeout=90)
    bootstrap(machine, "--plan").expect(0)
