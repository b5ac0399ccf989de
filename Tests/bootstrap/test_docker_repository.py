"""The step docker on Debian 12, which has no Compose v2: Docker's repository, believed by its key alone. The sandbox's has its layout and its packages' names."""

import json

import pytest
from conftest import Droplet, Host, assignments, sandbox
from system_cycle import settled

pytestmark = pytest.mark.sandbox

LIST, KEY = "/etc/apt/sources.list.d/orchestrate-docker.list", "/etc/apt/keyrings/orchestrate-docker.gpg"
FILES = {"daemon.json": json.dumps({"live-restore": True, "log-driver": "journald"})}
DOCKERS_KEY = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"


@pytest.fixture(scope="module")
def host():
    name = "b-docker-repository"
    sandbox("rm", name, check=False)
    machine = Droplet(name, "--debian", "12")
    machine.sh("useradd -m shipper; apt-get -qq update; apt-get -qq -y --no-install-recommends install busybox-static >/dev/null 2>&1")
    yield Host(machine)
    machine.disconnect()
    sandbox("rm", name, check=False)


@pytest.fixture(scope="module")
def params():
    packages = assignments(sandbox("packages", timeout=600).stdout)
    return {"USER": "shipper", "REPOSITORY": packages["PACKAGES"], "REPOSITORY_KEY": packages["PACKAGES_KEY"]}


def test_without_settings_it_is_dockers_own(host):
    planned = host.plan("docker", {"USER": "shipper"}, FILES)
    detail = {change["subject"]: change["detail"] for change in planned.changes}
    assert detail[f"file {KEY}"] == [f"+ the key {DOCKERS_KEY}, from https://download.docker.com/linux/debian/gpg"]
    line = f"deb [arch=amd64 signed-by={KEY}] https://download.docker.com/linux/debian bookworm stable"
    assert detail[f"file {LIST}"] == [f"+ {line}"]
    assert [subject for subject in planned.subjects if "package" in subject] == [
        f"create package {name}" for name in ("jq", "gpg", "docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin")]
    assert not host.exists(LIST) and not host.exists(KEY)


def test_another_key_is_not_believed(host, params):
    """As if somebody stood between: the key that comes isn't the one that was named."""
    step = host.apply("docker", {**params, "REPOSITORY_KEY": DOCKERS_KEY}, FILES, check=False)
    assert step.status != 0 and f"is not the key {DOCKERS_KEY}." in step.output, step.output
    assert not host.exists(LIST) and not host.exists(KEY)
    assert host.sh("dpkg -l | grep -c '^ii  docker' || true") == "0"
    step.undo()


def test_a_server_that_is_not_there(host, params):
    step = host.apply("docker", {**params, "REPOSITORY": "http://packages.test:9"}, FILES, check=False)
    assert step.status != 0 and "The key of http://packages.test:9 could not be fetched" in step.output, step.output
    assert not host.exists(LIST)
    step.undo()


def test_installed_and_then_as_it_should_be(host, params):
    planned = host.plan("docker", params, FILES)
    step = host.apply("docker", params, FILES)
    # The tools are there since the tests before.
    assert set(step.subjects) <= set(planned.subjects), (step.subjects, planned.subjects)
    assert {f"create file {KEY}", f"create file {LIST}", "create package docker-compose-plugin"} <= set(step.subjects)
    host.sh("docker compose version && su shipper -c 'docker ps' && docker info --format '{{.LoggingDriver}}' | grep -x journald")
    settled(host, "docker", params, FILES)


EVIL = "gpg --list-keys evil >/dev/null 2>&1 || gpg --batch --pinentry-mode loopback --passphrase '' --quick-generate-key evil ed25519 sign never"
DRIFT = {
    "another server": (f"sed -i 's|packages.test|packages.evil|' {LIST}", [f"update file {LIST}"]),
    "the list gone": (f"rm {LIST}", [f"create file {LIST}"]),
    "another key": (f"{EVIL}; gpg --export evil >{KEY}", [f"update file {KEY}"]),
    "another key behind it": (f"{EVIL}; gpg --export evil >>{KEY}", [f"update file {KEY}"]),
    "the key readable by root alone": (f"chmod 600 {KEY}", [f"update file {KEY}"]),
}


@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_named_and_mended(host, params, what):
    command, subjects = DRIFT[what]
    if EVIL in command:
        host.sh("apt-get -qq -y --no-install-recommends install gpg-agent >/dev/null")
    host.sh(command)
    assert host.plan("docker", params, FILES).subjects == subjects
    step = host.apply("docker", params, FILES)
    assert step.subjects == subjects
    settled(host, "docker", params, FILES)
    host.sh("apt-get update 2>&1 | grep -q packages.test")


def test_a_second_key_under_another_name_is_left_out(host, params):
    """apt takes every armored block of a file, gpg only those that it knows: what is installed is what gpg has understood."""
    host.sh(f"{EVIL}; mkdir -p /tmp/served; curl -fsS -o /tmp/served/gpg {params['REPOSITORY']}/gpg;"
            "gpg --armor --export evil | sed 's/PGP PUBLIC KEY BLOCK/X/' >>/tmp/served/gpg; setsid busybox httpd -p 127.0.0.1:8099 -h /tmp/served")
    host.sh(f"rm {KEY}")
    step = host.apply("docker", {**params, "REPOSITORY": "http://127.0.0.1:8099"}, FILES)
    assert step.subjects == [f"create file {KEY}", f"update file {LIST}"]
    fingerprints = host.sh(f"gpg --show-keys --with-colons {KEY} | awk -F: '$1 == \"fpr\" {{ print $10 }}'").split()
    assert fingerprints == [params["REPOSITORY_KEY"]] and "BEGIN" not in host.sh(f"strings {KEY} 2>/dev/null || tr -cd '[:print:]' <{KEY}")
    step.undo()
    host.apply("docker", params, FILES)


def test_a_list_of_somebody_elses_is_left_alone(host, params):
    """One repository with two keys, and apt reads no list at all."""
    other = "/etc/apt/sources.list.d/docker.list"
    host.sh(f"sed 's|{KEY}|/etc/apt/keyrings/docker.gpg|' {LIST} >{other}; cp {KEY} /etc/apt/keyrings/docker.gpg; rm {LIST} {KEY}")
    assert host.apply("docker", params, FILES).changes == []
    assert not host.exists(LIST)
    host.sh("apt-get indextargets >/dev/null")
    host.sh(f"rm {other} /etc/apt/keyrings/docker.gpg")
    host.apply("docker", params, FILES)


def test_a_list_that_somebody_removed_is_missed_without_settings_too(host, params):
    host.sh(f"rm {LIST}; apt-get -qq update")
    assert f"create file {LIST}" in host.plan("docker", {"USER": "shipper"}, FILES).subjects
    host.apply("docker", params, FILES)


def test_undone(host, params):
    host.sh(f"rm {LIST} {KEY}")
    step = host.apply("docker", params, FILES)
    assert step.subjects == [f"create file {KEY}", f"create file {LIST}"]
    step.undo()
    step.undo()
    assert not host.exists(LIST) and not host.exists(KEY)
    assert host.sh("systemctl is-active docker") == "active"
