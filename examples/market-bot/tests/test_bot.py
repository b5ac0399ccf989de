"""The bot as a process, against the stand-in, PostgreSQL and Redis."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import TOKEN, eventually

for package in ("telegram", "sqlalchemy", "alembic", "psycopg", "redis"):
    pytest.importorskip(package, reason="the bot's requirements.txt is not installed")


def migrated(bot, version, **environment):
    made = bot(version, **environment)
    done = made.alembic("upgrade", "head")
    assert done.returncode == 0, done.stderr
    return made


def test_start_stores_the_user_and_answers_with_the_version(bot, telegram, postgres):
    migrated(bot, "v1.0.0").start().wait_for("healthy")
    telegram.post("/inject", chat=42, text="/start")
    telegram.post("/inject", chat=42, text="hello there")
    telegram.get("/wait?answered=2&timeout=5")
    answers = [answer["text"] for answer in telegram.get("/answers")]
    assert answers == ["Welcome to the market. This is version v1.0.0.", "hello there (v1.0.0)"]
    assert postgres.query("SELECT id FROM users") == "42"
    eventually(lambda: postgres.query("SELECT count(*) FROM messages WHERE answered_at IS NOT NULL") == "2")


def test_health_has_what_a_gate_asks_for(bot):
    one = migrated(bot, "v1.1.0").start()
    document = one.wait_for("healthy")
    assert document["version"] == "v1.1.0"
    assert document["schema_revision"] == "0002"
    assert (document["postgres"], document["redis"]) == ("ok", "ok")
    assert 0 <= document["last_poll_age_s"] < 5
    assert document["uptime_s"] > 0


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_ends_it_at_once_also_in_a_long_poll(bot, telegram, busy):
    one = migrated(bot, "v1.0.0", POLL_TIMEOUT="30").start()
    one.wait_for("healthy")
    eventually(lambda: telegram.get("/counts")["polling"])
    if busy:
        telegram.post("/stream", per_second=200)
        telegram.get("/wait?answered=5&timeout=5")
    seconds = one.stop()
    telegram.post("/stream/stop")
    assert seconds < (5 if busy else 2)  # a poll stays open for 30
    assert one.process.returncode == 0
    # What was answered is confirmed: the next version is given only the rest.
    messages = telegram.get("/messages")
    assert all(message["confirmed_at"] for message in messages if message["answered_at"])


def test_sigterm_while_it_is_still_importing(bot):
    """PID 1 has no default action: only a handler of its own ends it, and that must be there before the long imports."""
    one = migrated(bot, "v1.0.0").start()

    def handled() -> bool:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{one.process.pid}/status").read_text())[1]
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    eventually(handled)
    one.stop()
    assert one.process.returncode == 0
    assert "started" not in one.log.read_text()


def test_a_change_of_version_under_load_loses_nothing_and_answers_nothing_twice(bot, telegram):
    old = migrated(bot, "v1.0.0").start()
    old.wait_for("healthy")
    telegram.post("/stream", per_second=50, count=100)
    telegram.get("/wait?answered=20&timeout=5")
    new = migrated(bot, "v1.1.0")
    old.stop()
    new.start().wait_for("healthy")
    counts = telegram.get("/wait?answered=100&timeout=10")
    expected = {"sent": 100, "answered": 100, "answered_twice": 0, "unanswered": 0, "conflicts": 0}
    assert {name: counts[name] for name in expected} == expected


def test_sigkill_loses_nothing(bot, telegram):
    one = migrated(bot, "v1.0.0").start()
    one.wait_for("healthy")
    telegram.post("/stream", per_second=50, count=60)
    telegram.get("/wait?answered=10&timeout=5")
    one.stop(signal.SIGKILL)
    one.start()
    counts = telegram.get("/wait?answered=60&timeout=10")
    assert (counts["unanswered"], counts["strays"]) == (0, 0)


def test_postgres_killed_under_load_is_survived(bot, telegram, postgres):
    one = migrated(bot, "v1.0.0").start()
    one.wait_for("healthy")
    telegram.post("/stream", per_second=20, count=60)
    telegram.get("/wait?answered=10&timeout=5")
    postgres.stop("immediate")
    try:
        document = one.wait_for("degraded")
        assert document["postgres"] != "ok"
        began = time.monotonic()
        assert one.health()[0] == 200
        assert time.monotonic() - began < 0.1
        eventually(lambda: telegram.get("/counts")["unanswered"] > 5)
    finally:
        postgres.start()
    counts = telegram.get("/wait?answered=60&timeout=15")
    assert (counts["unanswered"], counts["answered_twice"]) == (0, 0)
    one.wait_for("healthy")


def test_stopping_while_postgres_is_away_leaves_the_messages_to_the_next(bot, telegram, postgres):
    one = migrated(bot, "v1.0.0").start()
    one.wait_for("healthy")
    postgres.stop("immediate")
    try:
        telegram.post("/inject", text="patience")
        eventually(lambda: telegram.get("/counts")["delivered"] == 1)
        assert one.stop() < 10
    finally:
        postgres.start()
    one.start()
    assert telegram.get("/wait?answered=1&timeout=10")["answered"] == 1


def test_redis_at_maxmemory_is_survived(bot, telegram, redis):
    one = migrated(bot, "v1.0.0").start()
    one.wait_for("healthy")
    redis.command("CONFIG", "SET", "maxmemory", "1")
    document = one.wait_for("degraded")
    assert "OutOfMemory" in document["redis"]
    telegram.post("/inject")
    assert telegram.get("/wait?answered=1&timeout=3")["delay_max_s"] < 1
    redis.command("CONFIG", "SET", "maxmemory", "0")
    one.wait_for("healthy")


def test_logs_are_json_without_token_or_personal_data(bot, telegram):
    one = migrated(bot, "v1.0.0", LOG_LEVEL="DEBUG").start()
    one.wait_for("healthy")
    telegram.post("/inject", chat=987654321, text="a private matter")
    telegram.get("/wait?answered=1&timeout=5")
    one.stop()
    lines = one.log.read_text().splitlines()
    assert any(json.loads(line)["message"] == "answered" for line in lines)
    for secret in (TOKEN, "987654321", "private matter"):
        assert not [line for line in lines if secret in line]


def test_migrations_go_up_and_down(bot, postgres):
    one = migrated(bot, "v1.4.0")
    for revision in ("0003", "0002", "0001"):
        assert one.alembic("downgrade", "-1").returncode == 0
        assert one.alembic("current").stdout.split()[:1] == [revision]
    assert one.alembic("downgrade", "base").returncode == 0
    assert postgres.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'") == "0"
    assert one.alembic("upgrade", "head").returncode == 0


def test_the_bad_migration_leaves_its_first_revision(bot):
    migrated(bot, "v1.1.0")
    bad = bot("v1.3.0-badmigration")
    done = bad.alembic("upgrade", "head")
    assert done.returncode != 0
    assert "muted_until" in done.stderr
    assert bad.alembic("current").stdout.split() == ["0003"]
    # The good version goes on from there; and the bad one can take back what it left.
    migrated(bot, "v1.4.0")
    assert bot("v1.4.0").alembic("downgrade", "0003").returncode == 0
    assert bad.alembic("downgrade", "0002").returncode == 0
    assert bad.alembic("current").stdout.split() == ["0002"]


def test_the_old_version_runs_on_the_newer_schema(bot, telegram):
    migrated(bot, "v1.4.0")
    bot("v1.0.0").start().wait_for("healthy")
    telegram.post("/inject")
    assert telegram.get("/wait?answered=1&timeout=5")["answered"] == 1


def test_the_bad_versions_are_bad_in_their_own_way(bot):
    unhealthy = migrated(bot, "v1.2.0-badhealth").start()
    assert unhealthy.wait_for("unhealthy")["reasons"] == ["prices: the table is empty"]
    assert unhealthy.health()[0] == 503
    unhealthy.stop()

    crashing = migrated(bot, "v1.5.0-crashloop").start()
    assert crashing.process.wait(10) == 1

    slow = bot("v1.6.0-slowstart").start()
    assert slow.wait_for("starting")["last_poll_age_s"] is None
    assert slow.stop() < 2

    deaf = bot("v1.7.0-deaf").start()
    assert deaf.wait_for("healthy")["last_poll_age_s"] is None
    assert deaf.stop() < 2


def test_a_missing_setting_is_named(bot):
    one = bot("v1.0.0", REDIS_URL="").start()
    assert one.process.wait(5) == 1
    assert "REDIS_URL" in one.log.read_text()
