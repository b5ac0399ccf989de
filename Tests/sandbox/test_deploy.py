"""The main job: first deploy, update under load, automatic rollback, rollback by hand. The tests build on each other, in this order."""

import json
import time

import pytest


def test_plan_of_a_first_deploy(project):
    before = project.snapshot()
    result = project.run("plan", "prod", "v1.0.0").expect(2)
    assert "service bot" in result.out
    assert project.telegram.token not in result.text
    assert project.snapshot() == before


def test_first_deploy(project):
    result = project.deploy("v1.0.0").expect(0)
    assert project.current() == "v1.0.0"
    project.telegram.inject("/start")
    assert project.telegram.wait_answered(1)["answered"] == 1
    assert "v1.0.0" in project.telegram.answers()[0]["text"]
    assert project.sql("select count(*) from users") == "1"
    assert project.telegram.token not in result.text
    project.assert_nothing_left()


def test_the_same_version_again_is_nothing_to_do(project):
    before = project.identity("bot")
    project.deploy("v1.0.0").expect(0)
    assert project.identity("bot") == before


def test_update_under_load_loses_nothing(project):
    project.telegram.reset()
    database, cache = project.identity("postgres"), project.identity("redis")
    project.telegram.stream(5)
    time.sleep(2)
    summary = json.loads(project.deploy("v1.1.0", "--json").expect(0).out.splitlines()[-1])
    time.sleep(2)
    project.telegram.stop()
    sent = project.telegram.counts()["sent"]
    counts = project.telegram.wait_answered(sent, 60)
    assert counts["answered"] == sent and sent > 10, counts
    assert counts["answered_twice"] == 0 and counts["conflicts"] == 0, counts
    assert (project.identity("postgres"), project.identity("redis")) == (database, cache)
    assert project.current() == "v1.1.0"
    assert "downtime_ms" in json.dumps(summary)


# In the order of the schema that each leaves behind: the policy is `compatible`.
BAD = [
    ("v1.3.0-badmigration", "migrate"),
    ("v1.2.0-badhealth", "the table is empty"),
    ("v1.5.0-crashloop", "bot"),
]


@pytest.mark.parametrize(("version", "why"), BAD, ids=[version for version, _ in BAD])
def test_a_bad_version_rolls_back_by_itself(project, version, why):
    before = project.current()
    result = project.deploy(version).expect(3)
    assert why in result.text
    assert project.current() == before
    project.telegram.reset()
    project.telegram.inject("are you there?")
    assert project.telegram.wait_answered(1)["answered"] == 1
    assert before in project.telegram.answers()[0]["text"]
    status = project.status()
    assert status["state"] == "healthy", status
    assert project.history()[0]["outcome"] == "undone"
    project.assert_nothing_left()


def test_a_good_version_after_the_bad_ones(project):
    project.deploy("v1.4.0").expect(0)
    assert project.current() == "v1.4.0"


def test_rollback_goes_back_and_then_one_further(project):
    project.run("rollback").expect(0)
    assert project.current() == "v1.1.0"
    project.telegram.reset()
    project.telegram.inject("who are you?")
    project.telegram.wait_answered(1)
    assert "v1.1.0" in project.telegram.answers()[0]["text"]
    project.run("rollback", "prod", "--yes").expect(0)
    assert project.current() == "v1.0.0"
    nothing = project.run("rollback", "prod", "--yes").expect(1)
    assert "no older release" in nothing.text
    assert project.current() == "v1.0.0"


def test_commands_of_every_day(project):
    assert project.status()["version"] == "v1.0.0"
    assert "v1.2.0-badhealth" in project.run("history", "prod").expect(0).out
    assert "free" in project.run("lock", "prod").expect(0).out
    assert project.run("exec", "prod", "bot", "--", "python3", "-c", "print(6 * 7)").expect(0).out.strip() == "42"
    project.run("exec", "prod", "bot", "--", "python3", "-c", "raise SystemExit(9)").expect(9)
    assert "started" in project.run("logs", "prod", "bot").expect(0).out
    project.run("health", "prod").expect(0)
    project.run("doctor", "prod").expect(0)
    project.run("backup", "prod").expect(0)
    backups = json.loads(project.run("backups", "prod", "--json").expect(0).out)["backups"]
    assert backups and all(backup["verified"] for backup in backups)
    env = project.run("env", "prod").expect(0).out
    assert "DB_PASSWORD" in env and project.telegram.token not in env
    project.run("prune", "prod").expect(0)
    assert "bot" in project.run("inventory", "prod").expect(0).out
    project.run("attach", "prod").expect(0)
