"""What becomes of the schema: by each policy when a migration fails, and when a rollback leaves a release. The tests build on each other, in
this order: each begins on v1.1.0 with the schema at 0002, until `compatible` leaves 0003 behind."""

import contextlib
import json
import re
import time

import pytest

from test_crashes import wait_for_step
from test_refusals import edited


def with_policy(project, policy: str):
    """The project with another `rollback:`."""
    return edited(project, "playbooks/deploy.yml", lambda text: text.replace("rollback: compatible", f"rollback: {policy}"))


@contextlib.contextmanager
def messages(project):
    """Five messages a second; afterwards each was answered once, by one poller, and is in the database."""
    project.telegram.stream(5)
    time.sleep(1)
    try:
        yield
        time.sleep(1)
    finally:
        project.telegram.stop()
    sent = project.telegram.counts()["sent"]
    counts = project.telegram.wait_answered(sent, 60)
    assert counts["answered"] == sent, counts
    assert counts["answered_twice"] == 0 and counts["conflicts"] == 0, counts
    kept = set(project.sql("select update_id from messages where answered_at is not null").split())
    lost = {str(message["update_id"]) for message in project.telegram.messages()} - kept
    assert not lost, f"{len(lost)} of {sent} messages were answered and are not in the database"


@pytest.fixture(scope="module")
def running(project):
    project.deploy("v1.1.0").expect(0)
    return project


def unchanged(project, current: str):
    assert project.host("readlink /opt/market-bot/current") == current
    assert project.current() == "v1.1.0"
    project.assert_answers("v1.1.0")
    assert project.status()["state"] == "healthy"
    project.assert_nothing_left()


def failed_migration(project, policy: str) -> str:
    current = project.host("readlink /opt/market-bot/current")
    with messages(project):
        result = with_policy(project, policy).deploy("v1.3.0-badmigration").expect(3)
    unchanged(project, current)
    assert "muted_until" in result.text  # PostgreSQL's own words
    return result.err


def test_failed_migration_under_down_goes_back(running):
    problem = failed_migration(running, "down")
    assert running.revision() == "0002"
    assert running.sql("select to_regclass('reminders')") == ""
    assert "back at 0002" in problem, problem


def test_failed_migration_under_restore_is_the_restore_point(running):
    problem = failed_migration(running, "restore")
    assert running.revision() == "0002"
    assert running.sql("select to_regclass('reminders')") == ""
    assert "back at 0002, from the restore point" in problem, problem


def test_rollback_under_down_wants_its_flag_and_brings_the_schema_back(running):
    project = with_policy(running, "down")
    project.deploy("v1.4.0").expect(0)
    assert project.revision() == "0004"
    before, bot = project.snapshot(), project.identity("bot")
    refused = project.run("rollback").expect(1)
    assert "lose data" in refused.err and "--accept-data-loss" in refused.err
    assert (project.snapshot(), project.identity("bot"), project.revision()) == (before, bot, "0004")
    with messages(project):
        accepted = project.run("rollback", "--accept-data-loss").expect(0)
    assert "back at 0002" in accepted.text
    assert (project.current(), project.revision()) == ("v1.1.0", "0002")
    project.assert_answers("v1.1.0")
    project.assert_nothing_left()


def test_failed_migration_under_compatible_stays(running):
    problem = failed_migration(running, "compatible")
    assert running.revision() == "0003"
    assert running.sql("select to_regclass('reminders')") == "reminders"
    assert "stays at 0003 (before: 0002)" in problem, problem


def test_a_version_that_polls_nothing_is_seen_by_the_gate(running):
    current = running.host("readlink /opt/market-bot/current")
    hurried = edited(running, "playbooks/deploy.yml", lambda text: text.replace("within: 60s", "within: 12s"))
    result = hurried.deploy("v1.7.0-deaf").expect(3)
    assert "last_poll_age_s" in result.err
    unchanged(running, current)


def test_a_slow_start_is_waited_for(running):
    result = running.deploy("v1.6.0-slowstart").expect(0)
    assert result.seconds > 30
    assert running.current() == "v1.6.0-slowstart"
    running.assert_answers("v1.6.0-slowstart")


def test_a_rollback_with_nothing_to_lose_asks_for_nothing(running):
    """The policy `down` drains, backs up, and wants its flag; not where the schema is where the older version wants it."""
    project = with_policy(running, "down")
    project.deploy("v1.4.0").expect(0)
    assert project.revision() == "0004"
    result = project.run("rollback", "--json").expect(0)
    assert "unchanged, at 0004" in result.text
    started = [event["step"] for event in map(json.loads, result.out.splitlines()) if event.get("event") == "step_started"]
    assert started == ["preflight", "release", "migrate-probe", "migrate", "recreate", "health", "commit"], result.out
    assert (project.current(), project.revision()) == ("v1.6.0-slowstart", "0004")
    project.assert_nothing_left()


def test_what_was_unhealthy_before_is_rolled_back_and_not_a_failed_undo(running):
    redis = f"docker exec {running.container('redis')}"
    fill = "for i = 1, 66 do redis.call('set', 'fill:' .. i, string.rep('x', 1048576)) end"
    running.host(f'{redis} redis-cli eval "{fill}" 0')
    try:
        assert running.status()["state"] == "degraded"
        hurried = edited(running, "playbooks/deploy.yml", lambda text: text.replace("within: 60s", "within: 12s"))
        result = hurried.deploy("v1.7.0-deaf").expect(3)
        assert "isn't healthy: as before this deployment" in result.err, result.err
        assert running.current() == "v1.6.0-slowstart"
        last = json.loads(running.host("tail -n 1 /var/lib/orchestrate/market-bot/history.jsonl"))
        assert (last["outcome"], last["healthy"], last["unhealthy_before"]) == ("undone", False, True)
        assert "answer" not in last["facts"]["health"]["failure"], last
    finally:
        running.host(f"{redis} sh -c 'redis-cli --scan --pattern fill:* | xargs redis-cli del'")
    running.assert_answers("v1.6.0-slowstart", timeout=90)
    running.assert_nothing_left()


def test_a_database_that_died_with_docker_during_the_gate_is_named_and_not_waited_for(running):
    """Whoever starts it again waits for the lock. What stands still after a SIGKILL of dockerd is chance (script/faults does that)."""
    client = running.start("deploy", "prod", "v1.7.0-deaf")
    wait_for_step(running, "health", client)
    running.host("docker stop $(docker ps -q --filter label=com.docker.compose.service=postgres); touch /run/docker.pid", user="root")
    try:
        out, err = client.communicate(timeout=120)
        assert client.returncode == 3 and "postgres has stopped meanwhile" in err, out + err
        waited = re.search(r"health failed after ([0-9.]+)s", err)
        assert waited and float(waited[1]) < 30, err  # of the minute that it has
    finally:
        running.host("docker start $(docker ps -aq --filter label=com.docker.compose.project=market-bot)")
    running.assert_answers("v1.6.0-slowstart", timeout=90)
    running.assert_nothing_left()


def test_rollback_to_images_that_are_gone_says_so_before_anything_stops(running):
    before = {service: running.identity(service) for service in ("bot", "postgres", "redis")}
    images = running.host("docker images --format '{{.Repository}}:{{.Tag}}' --filter reference='orchestrate/*/*'").split()
    old = running.host("sed -n 's/.*tag: \"\\(.*\\)\"/\\1/p' /opt/market-bot/releases/$(sed -n 's/.*\"previous\" *: *\\([0-9]*\\).*/\\1/p' "
                       "/opt/market-bot/current/release.json)/images.yml").split()
    tag = next(tag for tag in old if "bot" in tag.rsplit("/", 1)[-1])
    assert tag in images
    running.host(f"docker rmi {tag}")
    assert "was rolled back to" in running.run("rollback").expect(64).err  # minutes ago, by a test above
    result = running.run("rollback", "prod", "--yes").expect(1)
    assert tag in result.err and "nothing was changed" in result.err
    assert {service: running.identity(service) for service in before} == before
    assert running.current() == "v1.6.0-slowstart"
    running.assert_nothing_left()
