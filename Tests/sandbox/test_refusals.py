"""Everything that must fail early, say why, and leave the host as it was: compared file by file and container by container."""

import re
import shutil
import subprocess
import time

import pytest

from conftest import sandbox


@pytest.fixture(scope="module")
def running(project):
    project.deploy("v1.0.0").expect(0)
    return project


def unchanged(project, before):
    after = project.snapshot()
    assert after == before, "\n".join(sorted(set(after.splitlines()) ^ set(before.splitlines())))
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


def test_full_disk(running):
    deadline = time.monotonic() + 60
    while running.status()["state"] != "healthy" and time.monotonic() < deadline:
        time.sleep(0.5)
    before = running.snapshot()
    sandbox("fill", running.droplet, str(3 << 20))
    try:
        result = running.deploy("v1.1.0", timeout=120).expect(1)
        assert re.search("disk|free|space|MiB", result.err)
    finally:
        sandbox("unfill", running.droplet)
    unchanged(running, before)


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
