"""Droplets, projects and the real binary for the acceptance suites. Every project has a bot number of its own at Telegram's stand-in."""

import contextlib
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.register_assert_rewrite("droplets")

from droplets import BINARY, PASSWORD, ROOT, SETTINGS, Result, assignments, engine, keep_journals, make_project, sandbox  # noqa: E402, F401


def pytest_configure(config):
    config.addinivalue_line("markers", "machine: boots, power losses, prepared machines: the part `machine` of script/test, only by name")


def fresh_machine(droplet: str, tmp: Path, debian: str = "13"):
    """A machine with root's key and nothing else, and a project with a bootstrap playbook of its own for it; removed in the end."""
    sandbox("rm", droplet, check=False)
    sandbox("droplet", droplet, "--fresh", "--debian", debian, timeout=600)
    project = make_project(tmp, droplet)
    # Global kernel parameters of a sandbox droplet are those of the machine that it runs on: only the network's are its own.
    text = (ROOT / "playbooks/builtin/bootstrap.yml").read_text().replace('vm.overcommit_memory: "1", ', "")
    if debian == "12":  # Docker's own repository isn't reached from here
        packages = assignments(sandbox("packages", timeout=600).stdout)
        text = text.replace("docker: {}", f"docker: {{ repository: \"{packages['PACKAGES']}\", repository_key: {packages['PACKAGES_KEY']} }}")
    (project.folder / "playbooks/bootstrap.yml").write_text(text)
    yield project
    keep_journals(droplet)
    sandbox("rm", droplet, check=False)


# ---- who stands outside

SCANNED = (22, 80, 443, 2375, 5432, 6379, 8000, 8080)


@contextlib.contextmanager
def outside_network(droplet: str):
    """A network with IPv6 between this machine and the droplet, which the sandbox's own hasn't; gives the droplet's address."""
    name, container = f"orchestrate-v6-{droplet}", f"orchestrate-droplet-{droplet}"
    engine("network", "rm", name, check=False)
    number = zlib.crc32(droplet.encode()) & 0xFFFF
    # Not out of the ranges that the droplet's own Docker takes.
    engine("network", "create", "--label", "orchestrate.sandbox=network", "--subnet", f"10.84.{number & 0xFF}.0/24", "--ipv6", "--subnet", f"fd00:{number:x}::/64", name)
    try:
        engine("network", "connect", name, container)
        yield engine("inspect", "-f", f'{{{{(index .NetworkSettings.Networks "{name}").GlobalIPv6Address}}}}', container)
    finally:
        engine("network", "disconnect", "-f", name, container, check=False)
        engine("network", "rm", name, check=False)


def open_ports(address: str) -> set[int]:
    """Of those that are looked at, the ones where a connection is taken up."""

    def answers(port: int) -> bool:
        try:
            with socket.create_connection((address, port), 3):
                return True
        except OSError:
            return False

    with ThreadPoolExecutor(len(SCANNED)) as pool:
        return {port for port, answer in zip(SCANNED, pool.map(answers, SCANNED)) if answer}


@pytest.fixture(scope="module")
def project(request, tmp_path_factory):
    """A project on a droplet of the module's own; nothing is deployed yet."""
    droplet = "t-" + request.module.__name__.rsplit(".", 1)[-1].removeprefix("test_").replace("_", "-")
    sandbox("rm", droplet, check=False)
    sandbox("droplet", droplet)
    yield make_project(tmp_path_factory.mktemp("project"), droplet)
    keep_journals(droplet)
    sandbox("rm", droplet, check=False)
