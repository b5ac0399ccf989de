"""The client, the runner and the machine die in the middle: the host ends wholly on one release, the lock is free, the next deploy works."""

import signal
import time

import pytest

from conftest import sandbox

LEASE = 8


def another(before: str) -> str:
    """A version to go to. Never one that is older than the schema: its alembic wouldn't know the revision."""
    return {"v1.0.0": "v1.1.0", "v1.1.0": "v1.4.0", "v1.4.0": "v1.6.0-slowstart"}.get(before, "v1.4.0")


@pytest.fixture(scope="module")
def running(project):
    project.deploy("v1.0.0").expect(0)
    return project


def wait_for_step(project, step: str, client):
    """Until the journal of the open deployment says that the step has started."""
    state = "/var/lib/orchestrate/market-bot"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        journal = project.host(f"cat {state}/deployments/$(cat {state}/open)/journal.jsonl 2>/dev/null || true", check=False)
        if any('"started"' in line and f'-{step}"' in line for line in journal.splitlines()):
            return
        assert client.poll() is None, client.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{step} never started:\n{journal}\n{client.text() if hasattr(client, 'text') else ''}")


def settled(project, within: float) -> str:
    """Waits until nothing is open any more; the version that is current then."""
    state = "/var/lib/orchestrate/market-bot"
    deadline = time.monotonic() + within
    while project.host(f"cat {state}/open 2>/dev/null || echo nothing", check=False) != "nothing":  # a host that doesn't answer isn't settled
        assert time.monotonic() < deadline, project.host(f"tail -n 20 {state}/deployments/*/journal.jsonl")
        time.sleep(0.3)
    return project.current()


def consistent(project, version: str):
    """The bot that answers is the one that `current` names."""
    project.telegram.reset()
    project.telegram.inject("which one?")
    assert project.telegram.wait_answered(1, 30)["answered"] == 1
    assert version in project.telegram.answers()[0]["text"]
    project.assert_nothing_left()


@pytest.mark.parametrize("step", ["pull", "backup", "migrate", "recreate", "health"])
def test_client_killed(running, step):
    before = running.current()
    target = another(before)
    client = running.start("deploy", "prod", target, "--lease", f"{LEASE}s")
    wait_for_step(running, step, client)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    version = settled(running, LEASE + 75)
    assert version in (before, target)
    consistent(running, version)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["INT", "TERM", "HUP"])
def test_interrupted_is_undone_and_told(running, kind):
    before = running.current()
    target = another(before)
    client = running.start("deploy", "prod", target)
    wait_for_step(running, "health", client)
    client.send_signal(kind)
    out, err = client.communicate(timeout=90)
    assert client.returncode == 3, (out + err)[-4000:]
    assert running.current() == before
    consistent(running, before)


def test_runner_killed(running):
    before = running.current()
    target = another(before)
    client = running.start("deploy", "prod", target)
    wait_for_step(running, "migrate", client)
    running.host("kill -KILL $(cut -d ' ' -f 2 /var/lib/orchestrate/market-bot/runner.pid)")
    out, err = client.communicate(timeout=120)
    assert client.returncode in (1, 3), (out + err)[-4000:]
    assert settled(running, 60) == before
    consistent(running, before)


@pytest.mark.parametrize("fault", ["reboot", "crash", "power-loss"])
def test_machine_dies_in_mid_deployment(running, fault):
    before = running.current()
    target = another(before)
    client = running.start("deploy", "prod", target, "--lease", f"{LEASE}s")
    wait_for_step(running, "recreate", client)
    sandbox(fault, running.droplet)
    client.kill()
    client.communicate()
    # Recovery at boot may still be at work: it is waited for.
    running.deploy(target).expect(0)
    assert running.current() == target
    consistent(running, target)


def test_next_deploy_just_works(running):
    running.deploy("v1.4.0").expect(0)
    assert running.status()["state"] == "healthy"
