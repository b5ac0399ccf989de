"""A host that starts anew, and a Docker that stops, dies and comes back: the running release answers again, without a client. The tests build on each
other, in this order. The bot depends on the database here: with whom a service was brought up is then part of its config hash."""

import json
import re
import shlex
import time

import pytest

from conftest import sandbox
from test_crashes import LEASE, settled, wait_for_step

APP, RECOVERY = "orchestrate@market-bot.service", "orchestrate-recover@market-bot.service"
SERVICES = ("bot", "postgres", "redis")
WITHIN = 60
pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def running(project):
    compose = project.folder / "compose.prod.yml"
    text = compose.read_text()
    assert text.count("    networks: [egress, database, cache]\n") == 1
    compose.write_text(text.replace("    networks: [egress, database, cache]\n", "    depends_on: [postgres, redis]\n    networks: [egress, database, cache]\n"))
    project.deploy("v1.0.0").expect(0)
    return project


def shown(project, unit: str, *properties: str) -> dict[str, str]:
    deadline = time.monotonic() + 10
    while not (text := project.host(f"systemctl show {unit} -p {','.join(properties)}", check=False)):
        assert time.monotonic() < deadline, "systemd doesn't answer"  # as at the very beginning of a boot
        time.sleep(0.2)
    return dict(line.split("=", 1) for line in text.splitlines())


def runs(project) -> str:
    """Changes whenever the unit runs anew."""
    return shown(project, APP, "InvocationID")["InvocationID"]


def eventually(condition, what: str, seconds: float = WITHIN):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def journal(project) -> str:
    return project.host(f"sudo journalctl -b --no-pager -o short-precise -u {APP} -u {RECOVERY}")


def comes_back(project, version: str, before: str = "") -> float:
    """The version answers and all is healthy, by the host's own doing; the unit has run, after Docker had started and any recovery had ended. Seconds
    until the answer."""
    began = time.monotonic()
    project.assert_answers(version, timeout=WITHIN)
    took = time.monotonic() - began
    eventually(lambda: runs(project) not in ("", before) and shown(project, APP, "ActiveState")["ActiveState"] == "inactive", f"the unit's run\n{journal(project)}")
    app = shown(project, APP, "Result", "ExecMainStatus", "NRestarts", "ExecMainStartTimestampMonotonic")
    assert (app["Result"], app["ExecMainStatus"]) == ("success", "0"), journal(project)
    docker = shown(project, "docker.service", "ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"]
    assert int(docker) <= int(app["ExecMainStartTimestampMonotonic"])
    eventually(lambda: project.status()["state"] == "healthy", "healthy")
    assert project.current() == version
    project.assert_nothing_left()
    return took


def containers(project) -> dict[str, str]:
    return {service: project.container(service) for service in SERVICES}


def test_a_deploy_installs_and_enables_the_units(running):
    assert running.host(f"systemctl is-enabled {APP} {RECOVERY}").split() == ["enabled"] * 2
    assert running.host(f"ls /etc/systemd/system/docker.service.wants/{APP} /etc/systemd/system/multi-user.target.wants/{APP}")
    assert shown(running, APP, "User", "Type", "Restart", "LoadState") == {"User": "deploy", "Type": "oneshot", "Restart": "on-failure", "LoadState": "loaded"}
    assert running.host(f"sudo systemd-analyze verify --man=no /etc/systemd/system/orchestrate@.service 2>&1 | grep -i orchestrate || true") == ""


def test_started_by_hand_it_touches_nothing(running):
    before = {service: running.identity(service) for service in SERVICES}
    running.host(f"sudo systemctl start {APP}")
    assert "Release 1 runs." in journal(running)
    assert {service: running.identity(service) for service in SERVICES} == before


def test_what_was_removed_is_made_as_the_deploy_makes_it(running):
    label = "docker inspect -f '{{index .Config.Labels \"com.docker.compose.config-hash\"}}' "
    hashes = {service: running.host(label + running.container(service)) for service in SERVICES}
    running.host("docker rm -f " + " ".join(containers(running).values()))
    running.host(f"sudo systemctl start {APP}")
    assert {service: running.host(label + running.container(service)) for service in SERVICES} == hashes
    running.assert_answers("v1.0.0")
    before = containers(running)
    running.deploy("v1.0.0").expect(0)
    assert containers(running) == before


@pytest.mark.parametrize("fault", ["reboot", "power-loss"])
def test_the_machine_starts_anew(running, fault, capsys):
    before = containers(running)
    sandbox(fault, running.droplet)
    took = comes_back(running, "v1.0.0")
    assert containers(running) == before
    running.run("plan", "prod", "v1.0.0").expect(0)
    with capsys.disabled():  # the figure is part of the run's output, also when it passes
        print(f"\nafter {fault}, from the first log-in to the bot's answer: {took:.1f} s")


def test_a_stopped_bot_answers_after_a_reboot(running):
    before = containers(running)
    running.host(f"docker stop {before['bot']}")
    sandbox("reboot", running.droplet)
    comes_back(running, "v1.0.0")
    assert containers(running) == before
    assert "started bot" in journal(running)


def test_nothing_but_recovery_closes_what_is_open(running):
    """Open, with no runner: not ours to start anything. The next command closes it."""
    client = running.start("deploy", "prod", "v1.1.0")
    wait_for_step(running, "backup", client)
    running.host("sudo systemctl stop 'orchestrate-market-bot-*'")
    client.kill()
    client.communicate()
    bot = running.container("bot")
    running.host(f"docker stop {bot}")
    running.host(f"sudo systemctl start {APP}", check=False)
    assert "is not closed" in journal(running)
    assert running.host(f"docker inspect -f '{{{{.State.Status}}}}' {bot}") == "exited"
    running.deploy("v1.0.0", "--skip", "migrate").expect(0)  # the schema may be the newer one's by now
    running.assert_answers("v1.0.0")


@pytest.mark.parametrize("step", ["pull", "backup", "migrate", "recreate", "health"])
def test_power_loss_in_mid_deployment(running, step):
    before = running.current()
    target = {"v1.0.0": "v1.1.0", "v1.1.0": "v1.4.0"}[before]
    client = running.start("deploy", "prod", target, "--lease", f"{LEASE}s")
    wait_for_step(running, step, client)
    client.kill()  # first: a client that comes back recovers, too
    client.communicate()
    sandbox("power-loss", running.droplet)
    began = time.monotonic()
    assert settled(running, WITHIN) == before
    comes_back(running, before)
    assert time.monotonic() - began < WITHIN
    recovery = shown(running, RECOVERY, "ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic", "Result")
    app = shown(running, APP, "ExecMainStartTimestampMonotonic")
    assert recovery["Result"] == "success" and recovery["ExecMainExitTimestampMonotonic"] != "0"
    assert int(recovery["ExecMainExitTimestampMonotonic"]) <= int(app["ExecMainStartTimestampMonotonic"])
    last = json.loads(running.host("tail -n 1 /var/lib/orchestrate/market-bot/history.jsonl"))
    # Unchanged, where it hadn't come further than the backup.
    assert last["outcome"] in {"pull": ("unchanged",), "backup": ("unchanged", "undone")}.get(step, ("undone",)), last


def test_the_recovery_itself_is_killed(running):
    before = running.current()
    command = running.host(f"systemctl cat {RECOVERY} | sed -n 's/^ExecStart=//p'").replace("%i", "market-bot")
    drop_in = f"/etc/systemd/system/{RECOVERY}.d/killed.conf"
    # The first one of each boot dies at once.
    text = f"[Service]\nExecStart=\nExecStart=/bin/sh -c 'test -e /tmp/killed || {{ touch /tmp/killed; kill -KILL $$$$; }}; exec {command}'\n"
    running.host(f"sudo mkdir -p {drop_in.rpartition('/')[0]} && printf %s {shlex.quote(text)} | sudo tee {drop_in} && sudo systemctl daemon-reload && sync")
    try:
        client = running.start("deploy", "prod", {"v1.0.0": "v1.1.0", "v1.1.0": "v1.4.0"}[before], "--lease", f"{LEASE}s")
        wait_for_step(running, "recreate", client)
        client.kill()  # first: a client that comes back recovers, too
        client.communicate()
        sandbox("crash", running.droplet)
        assert settled(running, WITHIN) == before
        running.assert_answers(before, timeout=WITHIN)
        assert int(shown(running, RECOVERY, "NRestarts")["NRestarts"]) == 1
    finally:
        running.host(f"sudo rm -r {drop_in.rpartition('/')[0]} && sudo systemctl daemon-reload")
    comes_back(running, before)


def docker_pid(project) -> str:
    return shown(project, "docker.service", "MainPID")["MainPID"]


def settle_docker(project):
    """systemd counts its starts, ours too."""
    project.host("sudo systemctl reset-failed docker.service docker.socket")


@pytest.mark.parametrize("time_of", range(3))
def test_dockerd_is_killed(running, time_of):
    settle_docker(running)
    before, ids, pid = runs(running), containers(running), docker_pid(running)
    running.host(f"sudo kill -KILL {pid}")
    eventually(lambda: docker_pid(running) not in ("0", pid), "systemd starts Docker again")
    comes_back(running, "v1.0.0", before)
    assert containers(running) == ids
    assert "started" in journal(running)


@pytest.mark.parametrize("how", ["sudo systemctl restart docker", "sudo systemctl stop docker.socket docker && sudo systemctl start docker"])
def test_docker_is_restarted(running, how):
    settle_docker(running)
    before, ids = runs(running), containers(running)
    running.host(how)
    comes_back(running, "v1.0.0", before)
    assert containers(running) == ids


def test_a_docker_that_was_stopped_stays_so(running):
    settle_docker(running)
    running.host("sudo systemctl stop docker.socket docker")
    time.sleep(5)
    assert running.host("systemctl is-active docker.service docker.socket || true").split() == ["inactive"] * 2
    before = runs(running)
    running.host("sudo systemctl start docker")
    comes_back(running, "v1.0.0", before)


APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends"


@pytest.mark.parametrize("how", [f"{APT} install --reinstall docker.io", f"{APT} remove docker.io && {APT} install docker.io"], ids=["over it", "removed and installed"])
def test_the_docker_package_is_installed_again(running, how):
    settle_docker(running)
    before, ids, pid = runs(running), containers(running), docker_pid(running)
    running.host(f"sudo sh -c '(apt-get -qq update && {how}) </dev/null >/tmp/apt.log 2>&1' || {{ cat /tmp/apt.log; exit 1; }}")
    if docker_pid(running) == pid:  # Debian's package leaves a Docker that runs alone; Docker's own restarts it
        running.host("sudo systemctl restart docker")
    comes_back(running, "v1.0.0", before)
    assert containers(running) == ids


@pytest.mark.parametrize("service", SERVICES)
def test_a_main_process_is_killed(running, service):
    container, identity = running.container(service), running.identity(service)
    began = time.monotonic()
    running.host(f"kill -KILL $(docker inspect -f '{{{{.State.Pid}}}}' {container})", user="root")
    eventually(lambda: running.identity(service) != identity, "Docker starts it again", 30)
    eventually(lambda: running.status()["state"] == "healthy", "healthy", 30 - (time.monotonic() - began))
    running.assert_answers("v1.0.0", 30 - (time.monotonic() - began))
    assert running.container(service) == container


def test_a_crash_loop_is_told_with_its_reason(running):
    """Between its crashes the bot runs, and looks well."""
    for _ in range(4):
        identity = running.identity("bot")
        running.host(f"kill -KILL $(docker inspect -f '{{{{.State.Pid}}}}' {running.container('bot')})", user="root")
        eventually(lambda: running.identity("bot") != identity and running.identity("bot"), "Docker starts it again", 30)
        eventually(lambda: running.host(f"docker inspect -f '{{{{.State.Running}}}}' {running.container('bot')}") == "true", "it runs", 30)
    seen = running.status()
    assert seen["state"] != "healthy" and re.search(r"bot was restarted \d+ times, last \d+ s ago: .", seen["reason"]), seen
    eventually(lambda: running.status()["state"] == "healthy", "a minute of peace", 90)


def test_dockerd_is_killed_in_mid_deployment(running):
    """The unit waits for the runner; what the undo doesn't touch is its to start."""
    settle_docker(running)
    before, pid = runs(running), docker_pid(running)
    client = running.start("deploy", "prod", "v1.1.0")
    wait_for_step(running, "health", client)
    running.host(f"sudo kill -KILL {pid}")
    out, err = client.communicate(timeout=240)
    assert client.returncode in (0, 3, 4), (out + err)[-4000:]
    comes_back(running, running.current(), before)


def test_a_deployment_is_waited_for(running):
    version = "v1.4.0"
    client = running.start("deploy", "prod", version)
    wait_for_step(running, "backup", client)
    running.host(f"sudo systemctl start --no-block {APP}")
    eventually(lambda: shown(running, APP, "ActiveState")["ActiveState"] == "activating", "the unit's start", 10)
    out, err = client.communicate(timeout=240)
    assert client.returncode == 0, (out + err)[-4000:]
    comes_back(running, version)
    assert "Waiting for the end" in journal(running)


def test_a_release_that_cannot_be_started_does_not_hold_up_the_host(running):
    """The unit tries again and again; the host is up all the same, and a deploy gets the lock."""
    bot = running.container("bot")
    tag = running.host(f"docker inspect -f '{{{{.Config.Image}}}}' {bot}")
    running.host(f"docker tag {tag} kept:1; docker rm -f {bot}; docker rmi {tag}")
    sandbox("reboot", running.droplet)
    eventually(lambda: shown(running, APP, "NRestarts")["NRestarts"] not in ("", "0"), "another attempt")
    assert "could not be started" in journal(running)
    assert running.host("systemctl is-active multi-user.target") == "active"
    running.host(f"docker tag kept:1 {tag}")
    comes_back(running, "v1.4.0")


