"""`secrets rotate` with the market bot: under load, with a gate that fails, with a client that dies, with a vault, and gone back across. The tests build on
each other, in this order."""

import json
import re
import signal
import subprocess
import time

import pytest

from conftest import BINARY, ROOT, Result, sandbox
from test_crashes import settled, wait_for_step
from test_deploy import outside
from test_secrets import Tracer, execs

pytestmark = pytest.mark.machine

APP = "market-bot"
LEASE = 8
# Everything that was ever the database's password.
PASSWORDS: list[str] = []


@pytest.fixture(scope="module")
def running(project):
    playbook = project.folder / "playbooks/deploy.yml"
    text = playbook.read_text().replace("within: 60s", "within: 20s").replace("stable: 5s", "stable: 2s")
    assert "within: 20s" in text and "stable: 2s" in text
    playbook.write_text(text)
    project.deploy("v1.0.0").expect(0)
    project.deploy("v1.1.0").expect(0)
    remember(project)
    return project


def env(project, name: str) -> str:
    text = project.host(f"cat /opt/{APP}/current/.env")
    return next(line for line in text.splitlines() if line.startswith(name + "=")).split("=", 1)[1].strip("'\"")


def remember(project) -> str:
    password = env(project, "DB_PASSWORD")
    if password not in PASSWORDS:
        PASSWORDS.append(password)
    return password


def lets_in(project, password: str) -> bool:
    """Over the network, where PostgreSQL asks for it; the password is in no argument."""
    inside = "read -r PGPASSWORD; export PGPASSWORD; psql -X -w -U market -h $(hostname -i | cut -d ' ' -f 1) -d market -Atc 'select 1'"
    command = f"docker exec -i {project.container('postgres')} sh -c {inside!r}"
    words = [ROOT / "script/sandbox", "ssh", f"deploy@{project.droplet}", command]
    result = subprocess.run(words, input=password + "\n", capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 or "password authentication failed" in result.stderr, result
    return result.returncode == 0


def agrees(project):
    """The database takes what the current release has, and nothing else that it ever took; the bot answers."""
    now = env(project, "DB_PASSWORD")
    assert f":{now}@" in env(project, "DATABASE_URL")
    assert lets_in(project, now)
    assert not [other for other in PASSWORDS if other != now and lets_in(project, other)]
    project.assert_answers(project.current())
    project.assert_nothing_left()
    remember(project)


def command(project, *arguments: str, value: str = "") -> Result:
    """A command with something on its stdin."""
    began = time.monotonic()
    result = subprocess.run(
        [BINARY, *arguments], cwd=project.folder, env=project.env(), input=value, capture_output=True, text=True, timeout=240)
    return Result(result.returncode, result.stdout, result.stderr, time.monotonic() - began)


def rotate(project, *arguments: str) -> Result:
    return project.run("secrets", "rotate", "prod", "DB_PASSWORD", "--yes", *arguments).expect(0)


def rotate_to(project, value: str) -> Result:
    return command(project, "secrets", "rotate", "prod", "DB_PASSWORD", "--yes", "--stdin", value=value + "\n")


def test_under_load_nothing_is_lost(running, capsys):
    old, database, cache = PASSWORDS[0], running.identity("postgres"), running.identity("redis")
    running.telegram.reset()
    running.telegram.stream(5)
    time.sleep(3)
    events = [json.loads(line) for line in rotate(running, "--json").out.splitlines() if line.startswith("{")]
    time.sleep(2)
    running.telegram.stop()
    sent = running.telegram.counts()["sent"]
    counts = running.telegram.wait_answered(sent, 60)
    assert counts["answered"] == sent and sent > 20 and counts["answered_twice"] == 0, counts
    facts = {event["key"]: event["value"] for event in events if event["event"] == "fact"}
    gap = (facts["stopped_at_ms"] / 1000, facts["first_ok_ms"] / 1000)
    waited = [outside(message, gap) for message in running.telegram.messages()]
    with capsys.disabled():  # the figure is part of the run's output, also when it passes
        print(f"\n{sent} messages; gap {gap[1] - gap[0]:.2f} s; outside of it the slowest answer took {max(waited):.2f} s")
    assert max(waited) < 2, sorted(waited)[-5:]
    assert (running.identity("postgres"), running.identity("redis")) == (database, cache)
    new = remember(running)
    assert new != old and len(new) == 32
    assert running.host(f"grep -c '^DB_PASSWORD={new}$' /var/lib/orchestrate/{APP}/generated.env") == "1"
    agrees(running)
    plan = next(event["plan"] for event in events if event["event"] == "planned")
    assert "database role market" in json.dumps(plan)
    assert running.status()["state"] == "healthy" and running.current() == "v1.1.0"


def test_the_same_version_again_is_nothing_to_do(running):
    before = running.identity("bot"), running.identity("postgres")
    running.deploy("v1.1.0").expect(0)
    assert (running.identity("bot"), running.identity("postgres")) == before


def test_a_gate_that_fails_undoes_it(running):
    """The database takes such a password; in the bot's URL it breaks off."""
    before, bad, verifier = running.snapshot(), "canary/new@pass#word", running.sql("select rolpassword from pg_authid where rolname = 'market'")
    result = rotate_to(running, bad).expect(3)
    PASSWORDS.append(bad)
    assert bad not in result.text
    assert running.sql("select rolpassword from pg_authid where rolname = 'market'") == verifier
    assert re.sub(r"(?m)^.*(bot|backups|[0-9a-f]{64} started).*$", "", running.snapshot()) == re.sub(
        r"(?m)^.*(bot|backups|[0-9a-f]{64} started).*$", "", before)
    agrees(running)


@pytest.mark.parametrize("step", ["env", "role-probe", "role", "recreate", "health"])
def test_client_killed(running, step):
    before, database = env(running, "DB_PASSWORD"), running.identity("postgres")
    client = running.start("secrets", "rotate", "prod", "DB_PASSWORD", "--yes", "--lease", f"{LEASE}s")
    wait_for_step(running, step, client)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    assert settled(running, LEASE + 75) == "v1.1.0"
    assert running.identity("postgres") == database
    print(step, "old" if env(running, "DB_PASSWORD") == before else "new")
    agrees(running)


def test_runner_killed_after_the_role_was_changed(running):
    before = env(running, "DB_PASSWORD")
    client = running.start("secrets", "rotate", "prod", "DB_PASSWORD", "--yes")
    wait_for_step(running, "recreate", client)
    running.host(f"kill -KILL $(cut -d ' ' -f 2 /var/lib/orchestrate/{APP}/runner.pid)")
    out, err = client.communicate(timeout=120)
    assert client.returncode == 3, out + err
    settled(running, 60)
    assert env(running, "DB_PASSWORD") == before
    agrees(running)


def test_power_is_lost_after_the_role_was_changed(running):
    """Recovery at boot gives the role back what it had, before the app's own unit starts the bot."""
    before = env(running, "DB_PASSWORD")
    client = running.start("secrets", "rotate", "prod", "DB_PASSWORD", "--yes", "--lease", f"{LEASE}s")
    wait_for_step(running, "recreate", client)
    client.kill()  # first: a client that comes back recovers, too
    client.communicate()
    sandbox("power-loss", running.droplet)
    settled(running, 120)
    assert env(running, "DB_PASSWORD") == before
    agrees(running)


def test_going_back_across_rotations(running):
    """v1.0.0 had the first password, which was given up: it runs with the present one, and the role stays as it is."""
    now, verifier = env(running, "DB_PASSWORD"), running.sql("select rolpassword from pg_authid where rolname = 'market'")
    assert now != PASSWORDS[0]
    result = running.run("rollback", "prod", "--yes").expect(0)
    assert "DB_PASSWORD was rotated since v1.0.0 ran" in result.text and "database role" not in result.text
    assert running.current() == "v1.0.0" and env(running, "DB_PASSWORD") == now
    assert running.sql("select rolpassword from pg_authid where rolname = 'market'") == verifier
    agrees(running)
    rotate(running)
    assert running.current() == "v1.0.0"
    agrees(running)
    running.deploy("v1.1.0").expect(0)
    agrees(running)


def test_a_rollback_that_is_undone(running):
    """A rollback that fails leaves role and bot with the present password."""
    running.deploy("v1.4.0").expect(0)
    rotate(running)
    agrees(running)
    now = env(running, "DB_PASSWORD")
    client = running.start("rollback", "prod", "--yes")
    wait_for_step(running, "recreate", client)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=120)
    assert client.returncode == 3 and running.current() == "v1.4.0" and env(running, "DB_PASSWORD") == now
    agrees(running)


def test_the_vault_is_written_after_the_commit(running):
    running.run("secrets", "keygen").expect(0)
    now, vault = remember(running), running.folder / "inventories/prod.secrets.yml"
    command(running, "secrets", "set", "prod", "DB_PASSWORD", value=now).expect(0)
    older = vault.read_bytes()
    rotate_to(running, "canary/in@the#vault").expect(3)
    PASSWORDS.append("canary/in@the#vault")
    assert vault.read_bytes() == older
    result = rotate(running)
    assert "is set in inventories/prod.secrets.yml" in result.err
    new = remember(running)
    assert running.run("secrets", "get", "prod", "DB_PASSWORD").expect(0).out.strip() == new != now
    agrees(running)

    # A colleague's checkout from before: the deploy is refused, and says why.
    newer, before = vault.read_bytes(), running.snapshot()
    vault.write_bytes(older)
    assert "git pull" in running.run("plan", "prod", "v1.1.0").expect(1).text
    refused = running.deploy("v1.1.0").expect(1)
    assert "git pull" in refused.text and running.snapshot() == before
    # A password that somebody chose.
    command(running, "secrets", "set", "prod", "DB_PASSWORD", value="chosen-by-hand").expect(0)
    assert "secrets rotate prod DB_PASSWORD changes both" in running.deploy("v1.4.0").expect(1).text
    agrees(running)
    result = rotate(running)
    assert "that the vault has already" in result.text and env(running, "DB_PASSWORD") == "chosen-by-hand"
    agrees(running)
    # And back to one that nobody knows.
    rotate(running)
    agrees(running)
    running.deploy("v1.4.0").expect(0)
    for password in PASSWORDS:
        assert password.encode() not in older + newer + vault.read_bytes()


def test_another_secret_of_two_services(running):
    """Redis has its password from its environment: it is recreated with the bot, and the database isn't."""
    database, cache = running.identity("postgres"), running.identity("redis")
    old = env(running, "REDIS_PASSWORD")
    running.run("secrets", "rotate", "prod", "REDIS_PASSWORD", "--yes").expect(0)
    assert env(running, "REDIS_PASSWORD") != old
    assert running.identity("postgres") == database and running.identity("redis") != cache
    agrees(running)


def test_no_password_is_anywhere_else(running, tmp_path):
    """Even where the server logs every statement."""
    running.sql("alter system set log_statement = 'all'")
    running.sql("alter system set log_transaction_sample_rate = 1")
    running.sql("alter system set log_min_duration_sample = 0")
    running.sql("alter system set log_statement_sample_rate = 1")
    running.sql("alter system set debug_print_parse = on")
    running.sql("select pg_reload_conf()")
    tracer = Tracer(running, tmp_path / "host", "systemd", "sshd")
    try:
        rotate(running)
    finally:
        trace = tracer.end()
    agrees(running)
    running.sql("select 4711 as marker")
    assert len(PASSWORDS) > 8
    calls = execs(trace)
    assert any("role.apply.sh" in arguments or "apply.sh" in arguments for _, arguments, _ in calls)
    found = [arguments[:200] for _, arguments, _ in calls for password in PASSWORDS if password in arguments]
    assert not found, found
    log = running.host("journalctl --no-pager --all CONTAINER_TAG=market-bot/market-bot-postgres-1", user="root")
    assert "4711 as marker" in log
    state = f"/var/lib/orchestrate/{APP}"
    sources = {
        "PostgreSQL's log": log,
        "the journal": running.host("journalctl --no-pager --all --output=export | cat -v", user="root"),
        "journals and history": running.host(f"cat {state}/history.jsonl {state}/deployments/*/journal.jsonl {state}/deployments/*/log"),
        "arguments": running.host("ps -eww -o args", user="root"),
        "release.json": running.host(f"cat /opt/{APP}/releases/*/release.json"),
    }
    for name, text in sources.items():
        assert not [password for password in PASSWORDS if password in text], name
    assert "alter role" not in log.lower() and "SCRAM-SHA-256$" not in log
    assert "SCRAM-SHA-256$" not in trace
    # A deployment that has ended keeps neither a verifier nor an env file of its own.
    left = running.host(f"find {state}/deployments -name before -path '*-role/*' -o -name roles -path '*-role/*' -o -name env -type f -o -name 'generated.before'")
    assert left == ""
