"""Other shapes than the market bot's on a host with sudo: an HTTP service with its own playbook, a user without sudo, and the
services below a bot dying. The three parts have a droplet each."""

import json
import signal
import threading
import time

import pytest

from conftest import make_project, sandbox
from test_crashes import LEASE, settled, wait_for_step
from test_refusals import edited


def part(name: str, tmp_path_factory, *prepare: str, **more):
    droplet = f"t-projects-{name}"
    sandbox("rm", droplet, check=False)
    sandbox("droplet", droplet, *prepare)
    yield make_project(tmp_path_factory.mktemp(name), droplet, **more)
    sandbox("rm", droplet, check=False)


# ---- an HTTP service and PostgreSQL: plain SQL migrations, `down`, run steps


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    yield from part("notes", tmp_path_factory, example="http-service")


def ask(project, path: str, body: str = "") -> tuple[str, object]:
    """Version that answers on the host's loopback, and its answer."""
    data = f"--data '{body}'" if body else ""
    text = project.host(f"curl -sS -m 5 -D /dev/stderr {data} http://127.0.0.1:8080{path} 2>&1")
    head, _, document = text.replace("\r", "").partition("\n\n")
    version = next(line.split(":", 1)[1].strip() for line in head.splitlines() if line.lower().startswith("x-version:"))
    return version, json.loads(document)


def test_http_service_first_deploy(notes):
    notes.deploy("v1.0.0").expect(0)
    assert notes.current() == "v1.0.0"
    assert ask(notes, "/notes", "first note") == ("v1.0.0", {"id": 1})
    assert notes.sql("select max(version) from schema_migrations") == "1"
    assert notes.host("ls /opt/notes/maintenance 2>/dev/null || true") == ""
    notes.assert_nothing_left()


def test_http_service_update(notes):
    database = notes.identity("db")
    result = notes.deploy("v2.0.0").expect(0)
    assert "maintenance page on" in result.text and "maintenance page off" in result.text
    assert ask(notes, "/notes") == ("v2.0.0", [{"id": 1, "body": "first note"}])
    assert notes.sql("select max(version) from schema_migrations") == "2"
    assert notes.identity("db") == database
    assert notes.status()["state"] == "healthy"
    notes.assert_nothing_left()


def test_http_service_rollback(notes):
    ask(notes, "/notes", "written by the newer version")
    assert "lose data" in notes.run("rollback").expect(1).err
    notes.run("rollback", "--accept-data-loss").expect(0)
    assert notes.current() == "v1.0.0"
    assert ask(notes, "/notes")[0] == "v1.0.0"
    assert notes.sql("select max(version) from schema_migrations") == "1"
    assert notes.sql("select count(*) from notes") == "2"
    notes.assert_nothing_left()


def test_a_run_step_is_undone(notes):
    before = notes.identity("web")
    wrong = edited(notes, "playbooks/deploy.yml", lambda text: text.replace("[/app/schema, up]", "[/app/schema, sideways]"))
    result = wrong.deploy("v2.0.0").expect(3)
    assert "maintenance page on" in result.text and "maintenance page off" in result.text
    assert notes.host("ls /opt/notes/maintenance 2>/dev/null || true") == ""
    assert notes.current() == "v1.0.0"
    assert ask(notes, "/notes")[0] == "v1.0.0"
    assert notes.identity("web").split()[0] == before.split()[0]
    assert notes.sql("select max(version) from schema_migrations") == "1"
    notes.assert_nothing_left()


def test_an_undo_that_would_lose_data_waits_for_a_person(notes):
    wrong = edited(notes, "playbooks/deploy.yml", lambda text: text.replace("status: up", "status: never").replace("within: 30s", "within: 6s"))
    result = wrong.deploy("v2.0.0").expect(4)
    assert "a person must decide" in result.err and "--accept-data-loss" in result.err
    assert notes.sql("select max(version) from schema_migrations") == "2"
    again = notes.deploy("v1.0.0").expect(4)
    assert "could not be undone" in again.err and "--accept-data-loss" in again.err
    notes.deploy("v1.0.0", "--accept-data-loss").expect(0)
    assert notes.sql("select max(version) from schema_migrations") == "1"
    assert notes.current() == "v1.0.0"
    assert ask(notes, "/notes")[0] == "v1.0.0"
    notes.assert_nothing_left()


def test_what_is_stuck_is_settled_by_hand_and_abandoned(notes):
    wrong = edited(notes, "playbooks/deploy.yml", lambda text: text.replace("status: up", "status: never").replace("within: 30s", "within: 6s"))
    assert "rollback prod --abandon --reason" in wrong.deploy("v2.0.0").expect(4).err
    for arguments in (["--yes"], ["--reason", " "], ["--reason", "x", "v1.0.0"], ["--reason", "x", "--accept-data-loss"], ["--reason", "nobody asked"]):
        assert "--abandon" in notes.run("rollback", "prod", "--abandon", *arguments).expect(64).err
    assert notes.history()[0]["outcome"] == "stuck"
    reason = 'the "new" table stays'
    done = notes.run("rollback", "prod", "--abandon", "--yes", "--reason", reason).expect(0)
    assert "abandoned" in done.out and reason in done.out and "orchestrate deploy prod VERSION" in done.err
    last = notes.history()[0]
    assert (last["outcome"], last["reason"]) == ("abandoned", reason)
    assert notes.sql("select max(version) from schema_migrations") == "2"
    assert notes.current() == "v1.0.0"
    assert "no deployment is stuck" in notes.run("rollback", "prod", "--abandon", "--yes", "--reason", reason).expect(1).err
    notes.run("attach", "prod").expect(4)
    # The next one doesn't try the undo again, and brings the host to a version.
    notes.deploy("v2.0.0").expect(0)
    assert ask(notes, "/notes")[0] == "v2.0.0"
    assert [entry["outcome"] for entry in notes.history()[:2]] == ["committed", "abandoned"]
    notes.assert_nothing_left()


# ---- a user in the group docker, without sudo


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    yield from part("limited", tmp_path_factory, "--prepare", "market-bot", "limited", user="limited")


def test_without_sudo_first_deploy_and_update(limited):
    doctor = limited.run("doctor", "prod").expect(0)
    assert "no sudo" in doctor.out and "nothing is recovered at boot" in doctor.out
    plan = limited.run("plan", "prod", "v1.0.0").expect(2)
    assert "limited has no sudo" in plan.text
    limited.deploy("v1.0.0").expect(0)
    limited.assert_answers("v1.0.0")
    limited.deploy("v1.1.0").expect(0)
    limited.assert_answers("v1.1.0")
    limited.assert_nothing_left()


def test_without_sudo_the_client_is_killed(limited):
    client = limited.start("deploy", "prod", "v1.4.0", "--lease", f"{LEASE}s")
    wait_for_step(limited, "recreate", client)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    version = settled(limited, LEASE + 75)
    assert version in ("v1.1.0", "v1.4.0")
    limited.assert_answers(version)
    limited.assert_nothing_left()
    limited.deploy("v1.4.0").expect(0)
    limited.assert_answers("v1.4.0")


# ---- PostgreSQL and Redis in trouble, under load


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    for project in part("faults", tmp_path_factory):
        project.deploy("v1.1.0").expect(0)
        project.telegram.stream(5)
        yield project
        project.telegram.stop()


def until(project, *states: str, within: float) -> dict:
    deadline = time.monotonic() + within
    while True:
        status = project.status()
        if status["state"] in states:
            return status
        assert time.monotonic() < deadline, status


def all_answered(project):
    project.telegram.stop()
    sent = project.telegram.counts()["sent"]
    counts = project.telegram.wait_answered(sent, 60)
    assert counts["answered"] == sent and counts["answered_twice"] == 0 and counts["conflicts"] == 0, counts
    project.telegram.stream(5)


def test_postgres_killed_under_load(loaded):
    bot = loaded.identity("bot")
    container = loaded.container("postgres")
    restarts = int(loaded.host(f"docker inspect -f '{{{{.RestartCount}}}}' {container}"))
    stop = threading.Event()

    def kill():
        """Each time that Docker has started it again: its pauses grow, until somebody looks in one."""
        while not stop.is_set():
            loaded.host(f"sudo kill -KILL $(docker inspect -f '{{{{.State.Pid}}}}' {container})", check=False)
            stop.wait(0.3)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        status = until(loaded, "degraded", "unhealthy", within=30)
    finally:
        stop.set()
        killer.join()
    assert "postgres" in status["reason"].lower(), status["reason"]
    # Docker's pause (up to a minute), and then the minute in which status still tells of the restarts.
    until(loaded, "healthy", within=150)
    assert int(loaded.host(f"docker inspect -f '{{{{.RestartCount}}}}' {container}")) > restarts
    assert loaded.identity("bot") == bot
    all_answered(loaded)


def test_redis_full_under_load(loaded):
    bot = loaded.identity("bot")
    redis = f"docker exec {loaded.container('redis')}"
    # A script is asked for memory once, at its start: it ends over the limit, so that nothing small fits either.
    fill = "for i = 1, 66 do redis.call('set', 'fill:' .. i, string.rep('x', 1048576)) end"
    loaded.host(f'{redis} redis-cli eval "{fill}" 0')
    status = until(loaded, "degraded", "unhealthy", within=15)
    assert "redis" in status["reason"].lower() and "maxmemory" in status["reason"], status["reason"]
    loaded.assert_answers("v1.1.0", timeout=5)
    loaded.host(f"{redis} sh -c 'redis-cli --scan --pattern fill:* | xargs redis-cli del'")
    until(loaded, "healthy", within=30)
    assert loaded.identity("bot") == bot
    all_answered(loaded)
