"""The level with sudo and systemd, on a sandbox droplet over OpenSSH. Runs where ORCHESTRATE_SANDBOX is set (script/test sets it)."""

import os
import shlex
import subprocess

import pytest
from conftest import ROOT, Client, bundle, deployment, eventually, step

pytestmark = pytest.mark.skipif("ORCHESTRATE_SANDBOX" not in os.environ, reason="ORCHESTRATE_SANDBOX is not set")


@pytest.fixture(autouse=True, scope="module")
def alone():
    """One droplet, which one of the tests crashes: test_droplet.py is run in a process of its own, -n 0."""
    assert "PYTEST_XDIST_WORKER" not in os.environ, "run with -n 0"


class Droplet:
    """Stands in for conftest's Host: a project of its own on a real host."""

    def __init__(self, project, user=None):
        self.project = project
        self.tools = f"/tmp/{project}-tools"  # found before the host's own
        described = subprocess.run(
            [ROOT / "script" / "sandbox", "droplet", "runner"], check=True, capture_output=True, text=True).stdout
        values = dict(line.split("=", 1) for line in described.splitlines() if line.startswith("DROPLET_"))
        self.ssh = [
            "ssh", "-F", "none", "-o", f"UserKnownHostsFile={values['DROPLET_KNOWN_HOSTS']}", "-o", "IdentitiesOnly=yes", "-i",
            values["DROPLET_KEY"], "-p", values["DROPLET_PORT"], f"{user or values['DROPLET_USER']}@{values['DROPLET_ADDRESS']}"]
        self.bundle, self.bundle_name = bundle()
        self.clients = []

    def start(self, *arguments):
        command = f"PATH={self.tools}:$PATH exec sh " + " ".join(shlex.quote(argument) for argument in arguments)
        return subprocess.Popen([*self.ssh, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)

    def connect(self):
        client = Client(self)
        self.clients.append(client)
        return client

    def run(self, command, check=True):
        return subprocess.run([*self.ssh, command], check=check, capture_output=True, text=True).stdout.strip()

    def tool(self, name, text):
        self.run(f"mkdir -p {self.tools}; printf '#!/bin/sh\\n%s\\n' {shlex.quote(text)} >{self.tools}/{name}; chmod +x {self.tools}/{name}")

    def describe(self):
        return self.run(f"cd /var/lib/orchestrate/{self.project} && tail -n 50 start/*/* deployments/*/journal.jsonl; ls -la", check=False)

    def close(self):
        for client in self.clients:
            client.close()
        p = self.project
        self.run(f"sudo systemctl disable --now orchestrate-recover@{p} orchestrate@{p}; sudo systemctl stop 'orchestrate-{p}-*'; "
                 f"sudo rm -rf /opt/{p} /var/lib/orchestrate/{p} {self.tools}", check=False)


@pytest.fixture
def droplet(request):
    host = Droplet("t" + request.node.name.replace("_", "-")[5:30].strip("-"))
    host.close()  # what a run has left that was killed
    yield host
    host.close()


CHANGE = step("01-change", 'echo new >"$ORCH_OPT/state"', 'rm -f "$ORCH_OPT/state"', CHANGES=1)
GATE = step("02-gate", 'while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.1; done', "")


def test_commits_and_leaves_no_unit(droplet):
    client = droplet.connect()
    assert client.run(deployment())["outcome"] == "committed"
    unit = f"orchestrate-{droplet.project}-{client.nonce}"
    eventually(lambda: droplet.run(f"systemctl show -p LoadState --value {unit}") == "not-found", "the unit's end")
    assert droplet.run(f"stat -c '%U %a' /opt/{droplet.project} /var/lib/orchestrate/{droplet.project}").split("\n") == ["deploy 750"] * 2


def test_unit_properties(droplet):
    client = droplet.connect()
    client.open()
    shown = droplet.run(
        f"systemctl show orchestrate-{droplet.project}-{client.nonce} -p Type,KillMode,OOMPolicy,Restart,RestartUSec,"
        "RestartPreventExitStatus,TimeoutStopUSec,IgnoreSIGPIPE,User,UMask,ActiveState,CollectMode")
    assert dict(line.split("=", 1) for line in shown.splitlines()) == {
        "Type": "exec", "KillMode": "control-group", "OOMPolicy": "continue", "Restart": "on-failure", "RestartUSec": "1s",
        "RestartPreventExitStatus": "75", "TimeoutStopUSec": "5s", "IgnoreSIGPIPE": "no", "User": "deploy", "UMask": "0077",
        "ActiveState": "active", "CollectMode": "inactive-or-failed"}


def test_killed_runner_comes_back_and_undoes(droplet):
    client = droplet.connect()
    client.open()
    client.send({**CHANGE, **GATE})
    client.await_event("started", step="02-gate")
    pid = droplet.run(f"cut -d' ' -f2 /var/lib/orchestrate/{droplet.project}/runner.pid")
    droplet.run(f"kill -KILL {pid}")
    closed = client.closed()
    assert (closed["outcome"], closed["recovery"]) == ("undone", True)
    assert "state" not in droplet.run(f"ls /opt/{droplet.project}").split()
    eventually(lambda: client.open(nonce=os.urandom(4).hex())[0] == "granted", "the next start")


def test_what_docker_says_of_itself_is_noted_while_it_lives(droplet):
    """To ask starts every plugin. Which programs and which engine process said it stands above it; the engine is asked each time."""
    client = droplet.connect()
    first = facts(client)
    note = f"/var/lib/orchestrate/{droplet.project}/docker"
    assert first["docker_server"] and first["compose"] and first["docker_root"]
    droplet.run(f"sed -i 's/^compose=.*/compose=9.9.9/' {note}")
    assert facts(client) == {**first, "volumes": ""}  # nothing is deployed yet: it is asked for everything
    droplet.run(f"sudo mkdir -p /opt/{droplet.project}; sudo chown deploy /opt/{droplet.project}; ln -sfn releases/1 /opt/{droplet.project}/current")
    droplet.run(f"sed -i 's/^compose=.*/compose=9.9.9/' {note}")
    assert facts(client) == {**first, "compose": "9.9.9"}
    droplet.run("sudo systemctl restart docker")
    assert facts(client) == first
    droplet.run("sudo systemctl stop docker.socket docker")
    try:
        gone = facts(client)
    finally:
        droplet.run("sudo systemctl start docker")
    assert gone["docker_server"] == "" and gone["docker_error"]


def facts(client):
    told = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    return {key: told[key] for key in ("docker_client", "docker_server", "docker_error", "docker_root", "compose", "volumes")}


def test_survives_the_session(droplet):
    client = droplet.connect()
    client.open()
    client.send({**step("01-release", 'mkdir -p "$ORCH_RELEASE"', ""), **GATE, **step("03-commit", SIDE="commit", KIND="none")})
    client.await_event("started", step="02-gate")
    client.cut()
    droplet.run("sudo systemctl restart ssh")
    droplet.run(f"touch /opt/{droplet.project}/go")
    eventually(lambda: droplet.run(f"readlink /opt/{droplet.project}/current", check=False) == "releases/1", "the commit")


@pytest.mark.parametrize("what", ["sudo", "systemd-run"])
def test_a_launch_that_hangs_is_an_error(droplet, what):
    """Nothing that hangs between us and the runner keeps the client waiting; what gets through later opens nothing."""
    droplet.connect().close()  # its directories are there
    go = f"{droplet.tools}/go"
    hang = f'while [ ! -e {go} ]; do /bin/sleep 0.05; done; exec /usr/bin/sudo "$@"'
    droplet.tool("sudo", f'case "$*" in *{what if what == "systemd-run" else ""}*) {hang} ;; esac; exec /usr/bin/sudo "$@"')
    droplet.tool("sleep", '[ "$1" = 1 ] || exec /bin/sleep "$@"; exec /bin/sleep 0.05')  # time passes faster
    client = droplet.connect()
    tag, text = client.open(nonce="late")
    assert tag == "error" and "It was not started within 30 s" in text, text
    droplet.run(f"touch {go}")
    late = f"/var/lib/orchestrate/{droplet.project}/start/late/output"
    ended = f"[ -e {late} ] && systemctl is-active orchestrate-{droplet.project}-late || :"
    eventually(lambda: droplet.run(ended) == "inactive", "the late runner's end")
    assert client.open()[:2] == ("granted", "1")


def test_background_child_goes_with_the_unit(droplet):
    client = droplet.connect()
    client.run(deployment(step("02-leaves", 'setsid sleep 300 9>&- >/dev/null 2>&1 & echo $! >"$ORCH_OPT/child"', "")))
    eventually(lambda: droplet.run(f"ps -p $(cat /opt/{droplet.project}/child) -o pid=", check=False) == "", "the child's end")


def test_reboot_recovers(droplet):
    client = droplet.connect()
    client.open()
    client.send({**CHANGE, **GATE})
    client.await_event("started", step="02-gate")
    client.cut()
    subprocess.run([ROOT / "script" / "sandbox", "crash", "runner"], check=True, capture_output=True)
    history = f"/var/lib/orchestrate/{droplet.project}/history.jsonl"
    eventually(lambda: '"outcome":"undone"' in droplet.run(f"cat {history}", check=False), "recovery at boot")
    assert "state" not in droplet.run(f"ls /opt/{droplet.project}").split()
