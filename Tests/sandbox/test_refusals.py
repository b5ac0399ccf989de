"""Everything that must fail early, say why, and leave the host as it was: compared file by file and container by container."""

import contextlib
import json
import random
import re
import shlex
import shutil
import subprocess
import time

import pytest

from conftest import sandbox


@pytest.fixture(scope="module")
def running(project):
    project.deploy("v1.0.0").expect(0)
    return project


def unchanged(project, before, restarted: str = ""):
    """`restarted`: a pattern for the ids of containers that had to be stopped and were started again."""
    differ = set(project.snapshot().splitlines()) ^ set(before.splitlines())
    differ = sorted(line for line in differ if not restarted or not re.match(f"{restarted} started ", line))
    assert not differ, "\n".join(differ)
    assert project.status()["state"] == "healthy"
    project.assert_nothing_left()


def edited(project, name: str, change):
    """The project with one file changed; a copy, so that the original stays."""
    folder = project.folder.with_name(f"{project.folder.name}-edited")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project.folder, folder)
    path = folder / name
    path.write_text(change(path.read_text()))
    copy = type(project)(folder, project.droplet, project.telegram, project.app, project.environment)
    return copy


def test_missing_tag(running):
    before = running.snapshot()
    result = running.deploy("v9.9.9").expect(1)
    assert "v9.9.9" in result.err and "nothing was changed" in result.err
    unchanged(running, before)


def test_wrong_registry_password(running):
    before = running.snapshot()
    result = running.deploy("v1.1.0", REGISTRY_PASSWORD="not-the-password").expect(1)
    assert "not-the-password" not in result.text
    unchanged(running, before)


def test_dead_registry(running):
    before = running.snapshot()
    sandbox("registry", "stop")
    try:
        result = running.deploy("v1.1.0", timeout=60).expect(1)
    finally:
        sandbox("registry", "start")
    assert "registry" in result.err
    unchanged(running, before)


def test_silent_registry_fails_within_a_bound(running):
    before = running.snapshot()
    sandbox("registry", "blackhole")
    try:
        began = time.monotonic()
        running.deploy("v1.1.0", timeout=120).expect(1)
        assert time.monotonic() - began < 75
    finally:
        sandbox("registry", "start")
    unchanged(running, before)


def test_missing_values_are_all_named(running):
    before = running.snapshot()
    more = edited(running, "env.template", lambda text: text + "NEEDED_ONE=${NEEDED_ONE:?the first}\nNEEDED_TWO=${NEEDED_TWO:?the second}\n")
    result = more.deploy("v1.1.0").expect(78)
    assert "NEEDED_ONE" in result.err and "NEEDED_TWO" in result.err
    unchanged(running, before)


def test_wrong_user(running):
    before = running.snapshot()
    other = edited(running, "inventories/prod.yml", lambda text: text.replace("user: deploy", "user: nobody"))
    other.deploy("v1.1.0").expect(6)
    unchanged(running, before)


def test_unknown_and_changed_host_key(running, tmp_path):
    before = running.snapshot()
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    unknown = edited(running, "inventories/prod.yml", lambda text: re.sub(r"known_hosts: [^ ]+", f"known_hosts: {empty}", text))
    result = unknown.deploy("v1.1.0").expect(6)
    assert "SHA256:" in result.err
    port = running.environment["DROPLET_PORT"]
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    words = (tmp_path / "other.pub").read_text().split()
    empty.write_text(f"[127.0.0.1]:{port} {words[0]} {words[1]}\n")
    result = unknown.deploy("v1.1.0").expect(6)
    assert "SHA256:" in result.err and f"{empty}:1" in result.err
    unchanged(running, before)


def test_unreachable_host(running):
    other = edited(running, "inventories/prod.yml", lambda text: re.sub(r"port: \d+", "port: 1", text))
    other.deploy("v1.1.0", timeout=60).expect(6)


def test_latest_is_refused(running):
    before = running.snapshot()
    other = edited(running, "compose.prod.yml", lambda text: re.sub(r"market-bot:\$\{VERSION[^}]*\}", "market-bot:latest", text))
    result = other.deploy("v1.1.0").expect(1)
    assert "latest" in result.err
    unchanged(running, before)


def test_database_down(running):
    before = running.host("readlink /opt/market-bot/current")
    container = running.container("postgres")
    running.host(f"docker update --restart=no {container} && docker stop {container}")
    try:
        result = running.deploy("v1.1.0")
        assert result.status in (1, 3, 4), result.text
        assert "postgres" in result.err
        assert running.host("readlink /opt/market-bot/current") == before
    finally:
        running.host(f"docker start {container} && docker update --restart=unless-stopped {container}")


@pytest.mark.parametrize("leave", [0, 3 << 20])
def test_full_disk(running, leave):
    deadline = time.monotonic() + 60
    while running.status()["state"] != "healthy" and time.monotonic() < deadline:
        time.sleep(0.5)
    before = running.snapshot()
    if leave == 0:
        # Not even our own scripts fit.
        running.host("rm -rf /var/lib/orchestrate/bundle/*")
    sandbox("fill", running.droplet, str(leave))
    try:
        result = running.deploy("v1.1.0", timeout=120).expect(1)
        assert re.search("disk is full|Less than 16 MiB are left", result.err), result.err
    finally:
        sandbox("unfill", running.droplet)
    unchanged(running, before)


# Stands in the place of the droplet's docker, and fills the disk but for LEAVE bytes when it is called with WORDS.
FILLING_DOCKER = """\
#!/bin/sh
case " $* " in
*" WORDS "*)
  if mkdir /tmp/filled 2>/dev/null; then
    left=$(($(df --output=avail -B1 /var/tmp | tail -n 1) - LEAVE))
    until fallocate -l "$left" /var/tmp/filler 2>/dev/null; do left=$((left - 65536)); done
    [ LEAVE != 0 ] || dd if=/dev/zero of=/var/tmp/filler bs=4096 oflag=append conv=notrunc 2>/dev/null || :
    sync -f /var/tmp
  fi
  ;;
esac
exec /usr/bin/docker.real "$@"
"""


@contextlib.contextmanager
def broken(project, take: str, bring: str):
    """While it is open root has run `take` on the droplet; `bring` comes afterwards."""
    project.host(take, user="root")
    try:
        yield
    finally:
        project.host(bring, user="root")


@contextlib.contextmanager
def disk_full_at(project, words: str, leave: int = 0):
    """While it is open the droplet's disk gets full at the first docker command with these words."""
    script = FILLING_DOCKER.replace("WORDS", words).replace("LEAVE", str(leave))
    take = f"cd /usr/bin && rm -rf /tmp/filled && mv docker docker.real && printf %s {shlex.quote(script)} >docker && chmod 755 docker"
    with broken(project, take, "mv /usr/bin/docker.real /usr/bin/docker && rm -rf /tmp/filled /var/tmp/filler"):
        yield
        assert project.host("test -d /tmp/filled && echo filled", check=False) == "filled", f"docker was never called with {words}"


def as_it_is(project):
    return project


def with_draining(project):
    """The app is stopped before the backup."""
    return edited(project, "playbooks/deploy.yml", lambda text: text.replace("rollback: compatible", "rollback: down"))


def with_little_room(project):
    """Preflight asks for little room, and the release is not small."""
    project = edited(project, "playbooks/deploy.yml", lambda text: text.replace("disk_free: 1GiB", "disk_free: 1MiB"))
    (project.folder / "redis/large").write_bytes(random.randbytes(16 << 20))
    return project


FULL = [
    ("release", "inspect --type container", 8 << 20, with_little_room, 1),  # preflight's, the step before it
    ("pull", "pull", 0, as_it_is, 1),
    ("backup", "pg_dump -Fc", 0, as_it_is, 1),
    ("backup", "pg_dump -Fc", 0, with_draining, 3),
]


@pytest.mark.parametrize(("step", "words", "leave", "prepare", "status"), FULL, ids=["release", "pull", "backup", "backup-drained"])
def test_disk_gets_full_at(running, step, words, leave, prepare, status):
    project = prepare(running)
    before, bot = running.snapshot(), running.container("bot")
    with disk_full_at(running, words, leave):
        result = project.deploy("v1.1.0", "--json", timeout=120).expect(status)
        problem = json.loads(result.out.splitlines()[-1])["summary"]["problem"]
        assert problem["step"] == step, problem
        assert re.search("disk is full|[Nn]o space left", problem["cause"]), problem
        assert ("nothing was changed" if status == 1 else "v1.0.0 is current again and healthy") in problem["state"], problem
        running.assert_nothing_left()
        running.assert_answers("v1.0.0")
    unchanged(running, before, restarted="" if status == 1 else bot)


# Without: what takes it away, what brings it back, what is said of it, which containers start again.
DOCKER = {
    "engine": ("systemctl stop docker.socket docker.service", "systemctl start docker.socket docker.service", "Cannot connect to the Docker", ".*"),
    "client": ("mv /usr/bin/docker /usr/bin/docker.away", "mv /usr/bin/docker.away /usr/bin/docker", "installed", ""),
}


@pytest.mark.parametrize(("take", "bring", "why", "restarted"), DOCKER.values(), ids=DOCKER)
def test_without_docker_nothing_begins(running, take, bring, why, restarted):
    before, number = running.snapshot(), running.history()[0]["number"]
    with broken(running, take, bring):
        for command in (("deploy", "prod", "v1.1.0"), ("plan", "prod", "v1.1.0"), ("backup", "prod")):
            result = running.run(*command, timeout=60).expect(1)
            assert why in result.err and "nothing was changed" in result.err, result.err
            assert "orchestrate doctor prod" in result.err and result.seconds < 15, result.err
        assert why in running.run("doctor", "prod").expect(1).text
        status = running.status()
        assert status["state"] == "unhealthy" and "Docker" in status["reason"], status
        assert running.host("ls /var/lib/orchestrate/market-bot/open 2>/dev/null || true") == ""
    deadline = time.monotonic() + 60
    while running.status()["state"] != "healthy" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert running.history()[0]["number"] == number, "a deployment was opened"
    running.assert_answers("v1.0.0")
    unchanged(running, before, restarted)


def test_two_at_once(running):
    first = running.start("deploy", "prod", "v1.6.0-slowstart")
    deadline = time.monotonic() + 60
    while running.host("cat /var/lib/orchestrate/market-bot/holder 2>/dev/null || true") == "":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = running.deploy("v1.1.0").expect(5)
    assert "ada@" in second.err and "since" in second.err
    assert second.seconds < 10
    out, err = first.communicate(timeout=180)
    assert first.returncode == 0, (out + err)[-4000:]
    assert running.current() == "v1.6.0-slowstart"


MALFORMED = [
    ("inventories/prod.yml", lambda text: text.replace("services:", "servises:"), "services"),
    ("inventories/prod.yml", lambda text: text + "hosts: {}\n", "hosts"),
    ("playbooks/deploy.yml", lambda text: text.replace("- recreate:", "- recraete:"), "recreate"),
    ("playbooks/deploy.yml", lambda text: text.replace("within: 60s", "within: sixty"), "within"),
    ("env.template", lambda text: text + "BROKEN=${\n", "BROKEN"),
]


@pytest.mark.parametrize(("name", "change", "hint"), MALFORMED, ids=[f"{m[0]}-{i}" for i, m in enumerate(MALFORMED)])
def test_malformed_files(running, name, change, hint):
    result = edited(running, name, change).deploy("v1.1.0").expect(78)
    assert re.search(rf"{re.escape(name)}:\d+:\d+: error:", result.err), result.err
    assert hint in result.err
