"""No secret is seen anywhere: every execve of both sides traced, journals, logs, histories, files with their modes, and every view of the client at its
most talkative, also while a migration and a script of the user's print the secrets plainly, in base64, and cut over two writes.

The module's fixture does the deployments under strace; the tests look at what they left."""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import BINARY, PASSWORD, ROOT, SETTINGS, Result

APP = "market-bot"
VAULT = {
    "ORCHESTRATE_VAULT_KEY": "canary-vault-key-9d1c70e4", "SOPS_AGE_KEY": "AGE-SECRET-KEY-1CANARY5B7F2E",
    "SOPS_AGE_KEY_FILE": "/canary/age/key-file-31f0",
}

# Builtins only where a value is an argument: what this script itself does must not look like a leak of ours.
LEAK = """#!/bin/sh
set -eu
for name in TELEGRAM_TOKEN DB_PASSWORD; do
  value=$(sed -n "s/^$name=//p" "$ORCH_RELEASE/.env" | tr -d "\\"'")
  [ -n "$value" ] || exit 9
  echo "plain $value"
  printf 'base64 '; printf '%s' "$value" | base64 -w 0; echo
  printf 'base64 line '; echo "$value" | base64 -w 0; echo
  for prefix in x xy; do printf 'base64 within '; printf '%s%s/' $prefix "$value" | base64 -w 0; echo; done
  rest=${value#????????????????}
  printf 'cut %s' "${value%"$rest"}"
  sleep 1
  echo "$rest leak-end-$name"
done
"""
MIGRATION = (
    'echo "migration plain $TELEGRAM_TOKEN $DATABASE_URL"; printf %s "$TELEGRAM_TOKEN" | base64 -w 0; echo; '
    'rest=$(printf %s "$TELEGRAM_TOKEN" | cut -c 17-); printf "cut %s" "$(printf %s "$TELEGRAM_TOKEN" | cut -c -16)"; sleep 1; '
    'echo "$rest migration-leak-end"; alembic upgrade head'
)


def forms(secret: str) -> list[bytes]:
    """The value, and what a Base64 text at each alignment has of it alone."""
    value, found = secret.encode(), [secret.encode()]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            first, last = (8 * offset + 5) // 6, 8 * (offset + len(value)) // 6
            found.append(encode(b"\0" * offset + value)[first:last])
    return found


def halves(secret: str) -> list[bytes]:
    """What two writes would leave of a value that is cut after its sixteenth character."""
    return [secret[:16].encode(), secret[16:].encode()]


@dataclass
class Story:
    """What happened, and what can be seen of it."""

    project: object
    secrets: dict[str, str] = field(default_factory=dict)
    views: dict[str, Result] = field(default_factory=dict)
    client_trace: str = ""
    host_trace: str = ""

    def leaks(self, text: bytes | str, cut: bool = False) -> list[str]:
        data = text.encode() if isinstance(text, str) else text
        found = []
        for name, secret in self.secrets.items():
            wanted = forms(secret) + (halves(secret) if cut else [])
            for form in wanted:
                at = data.find(form)
                if at >= 0:
                    start = max(0, at - 80)
                    found.append(f"{name}: …{data[start:at].decode(errors='replace')}[{name}]…")
        return found

    def root(self, command: str) -> bytes:
        words = [ROOT / "script/sandbox", "ssh", f"root@{self.project.droplet}", command]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60).stdout


def strace(output, *more: str) -> list[str]:
    """Every execve with all of its arguments and its environment; nothing is cut short."""
    return ["strace", "-f", "-q", "-v", "-s", "1000000", "-e", "trace=execve,execveat", "-e", "signal=none", "-o", str(output), *more]


def execs(trace: str) -> list[tuple[int, str, str]]:
    """Process, arguments and environment of each call."""
    found = []
    for line in trace.splitlines():
        match = re.match(r'(\d+) +execve(?:at)?\((?:[^"]*)"(?:[^"\\]|\\.)*", \[', line)
        if match is None:
            # The end of a call that another line began, and ends of processes.
            assert "execve" not in line or "resumed>" in line, line[:400]
            continue
        # An argument may hold brackets; the environment is the last list.
        arguments, separator, environment = line[match.end():].partition('"], [')
        assert separator or "[]" in line or '"], 0x' in line, line[:400]
        found.append((int(match[1]), arguments, environment))
    return found


class Tracer:
    """strace on the processes of a droplet that bear one of the names, and on all that they start, seen from outside."""

    def __init__(self, project, output, *names: str):
        engine = {**os.environ, "DOCKER_HOST": SETTINGS["DOCKER_HOST"]}
        words = ["docker", "top", f"orchestrate-droplet-{project.droplet}", "-eo", "pid,comm"]
        top = subprocess.run(words, env=engine, capture_output=True, text=True, check=True).stdout
        pids = [line.split()[0] for line in top.splitlines()[1:] if line.split()[1].startswith(names)]
        assert all(any(line.split()[1] == name for line in top.splitlines()) for name in names), top
        self.output = output
        # Each call of theirs waits for it: it goes first.
        words = ["nice", "-n", "-19", *strace(output, *(word for pid in pids for word in ("-p", pid)))]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        tracer = f"TracerPid:\t{self.process.pid}\n"
        while not all(tracer in status_of(pid, tracer) for pid in pids):
            assert self.process.poll() is None and time.monotonic() < deadline, pids
            time.sleep(0.05)

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)
        return self.output.read_text()


def status_of(pid: str, otherwise: str) -> str:
    """What the kernel says of it; of one that has ended meanwhile nothing is left to see."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return otherwise


@pytest.fixture(scope="module")
def story(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    story = Story(project)
    key = folder / "canary-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "canary", "-f", key], check=True)
    public = (folder / "canary-key.pub").read_text().strip()
    project.host(f"echo '{public}' >>.ssh/authorized_keys")

    (project.folder / "scripts").mkdir()
    script = project.folder / "scripts/leak.sh"
    script.write_text(LEAK)
    playbook = project.folder / "playbooks/deploy.yml"
    text = playbook.read_text()
    text = text.replace("up: [alembic, upgrade, head]", f"up: [sh, -c, '{MIGRATION}']")
    text = text.replace("  - commit: {}", "  - run: { name: leak, script: scripts/leak.sh }\n  - commit: {}")
    text = text.replace("stable: 5s", "stable: 1s")
    playbook.write_text(text)
    assert "migration-leak-end" in text and "leak.sh" in text and "stable: 1s" in text

    # An ssh of the user's own on the PATH is asked for its configuration, so that the client has a child.
    (folder / "programs").mkdir()
    (folder / "programs/ssh").symlink_to(shutil.which("ssh"))
    path = f"{folder}/programs:{os.environ['PATH']}"

    tracers = [Tracer(project, folder / "host-1", "systemd", "sshd")]
    traced = 0

    def client(name: str, *arguments: str, status: int = 0, **more: str):
        nonlocal traced
        traced += 1
        output = folder / f"client-{traced}"
        began = time.monotonic()
        words = strace(output, "--seccomp-bpf", str(BINARY), *arguments)
        process = subprocess.run(
            words, cwd=project.folder, env=project.env(PATH=path, **more), stdin=subprocess.DEVNULL, capture_output=True, timeout=150)
        out, err = process.stdout.decode(), process.stderr.decode()
        story.views[name] = Result(process.returncode, out, err, time.monotonic() - began).expect(status)
        story.client_trace += output.read_text()

    try:
        client("first deploy, JSON", "deploy", "prod", "v1.0.0", "-v", "--json", "--timings")

        # From now on also what the engine starts: slow, and a first deployment pulls and makes a database.
        tracers.append(Tracer(project, folder / "host-2", "dockerd", "containerd", "containerd-shim"))

        # The second one with the key in a variable, and no other.
        inventory = project.folder / "inventories/prod.yml"
        text = inventory.read_text()
        inventory.write_text(re.sub(r"identity: [^,]+, ", "", text))
        assert inventory.read_text() != text
        variables = {**VAULT, "ORCHESTRATE_SSH_KEY": key.read_text()}
        client("update, plain", "deploy", "prod", "v1.1.0", "-v", "--output", "plain", **variables)
        # One that fails with the secrets on its lips, so that the message quotes it.
        script.write_text(LEAK + "exit 1\n")
        client("undone, human", "deploy", "prod", "v1.4.0", "-v", "--output", "human", status=3, **variables)
        for command in (
            ("plan", "prod", "v1.4.0"), ("status", "prod"), ("history", "prod"), ("logs", "prod", "bot"), ("env", "prod"), ("attach", "prod"),
            ("doctor", "prod"),
        ):
            for kind in ("plain", "json") if command[0] in ("plan", "logs", "attach") else ("plain",):
                expected = 2 if command[0] == "plan" else 3 if command[0] == "attach" else 0
                client(f"{command[0]}, {kind}", *command, "-v", "--output", kind, status=expected, **variables)
        read_values(story, project, key.read_text())
    finally:
        story.host_trace = "".join(tracer.end() for tracer in tracers)
    return story


def read_values(story: Story, project, key: str):
    generated = dict(line.split("=", 1) for line in project.host("cat /var/lib/orchestrate/market-bot/generated.env").splitlines() if "=" in line)
    values = {name: value.strip("'\"") for name, value in generated.items()}
    story.secrets = {
        "TELEGRAM_TOKEN": project.telegram.token, "REGISTRY_PASSWORD": PASSWORD,
        "DB_PASSWORD": values["DB_PASSWORD"], "REDIS_PASSWORD": values["REDIS_PASSWORD"], **VAULT,
    }
    # Of the key the lines that hold its private half.
    for number, line in enumerate(key.splitlines()[3:-1]):
        story.secrets[f"ORCHESTRATE_SSH_KEY line {number + 4}"] = line
    assert all(len(secret) >= 12 for secret in story.secrets.values()), story.secrets.keys()


def test_the_traces_see_everything(story):
    """What is known to have run is there: else the other tests would prove nothing."""
    client, host = execs(story.client_trace), execs(story.host_trace)
    assert any('"-G"' in arguments for _, arguments, _ in client)
    for known in ('"login", "--username"', "runner.sh", '"--progress", "plain"', "systemd-run", "pg_dump", "alembic upgrade head", '"runc"'):
        assert any(known in arguments for _, arguments, _ in host), known
    # Strings that were cut end in dots outside of the quotes.
    assert '"...' not in story.host_trace and '"...' not in story.client_trace


def test_no_secret_in_argv(story):
    for side, trace in (("client", story.client_trace), ("host", story.host_trace)):
        found = [f"{side}: {leak}" for _, arguments, _ in execs(trace) for leak in story.leaks(arguments)]
        assert not found, found


def test_no_secret_in_environments_on_the_host(story):
    """Containers have theirs by the user's own compose file; nobody else has any."""
    calls = execs(story.host_trace)
    inside = re.compile(r'"HOSTNAME=[0-9a-f]{12}"')
    assert any(story.leaks(environment) for _, _, environment in calls if inside.search(environment))
    found = [
        f"{arguments[:200]}: {leak}" for _, arguments, environment in calls if not inside.search(environment) for leak in story.leaks(environment)
    ]
    assert not found, found


def test_keys_are_in_no_childs_environment(story):
    """The first call is strace's, which makes the client itself."""
    names = ["ORCHESTRATE_SSH_KEY", *VAULT]
    calls = execs(story.client_trace)
    clients = [call for call in calls if call[1].startswith(f'"{BINARY}"')]
    children = [call for call in calls if not call[1].startswith(f'"{BINARY}"')]
    assert children and any('"ORCHESTRATE_SSH_KEY=' in environment for _, _, environment in clients)
    for _, arguments, environment in children:
        assert not [name for name in names if f'"{name}=' in environment], arguments
        found = [leak for leak in story.leaks(environment) if leak.startswith(tuple(names))]
        assert not found, (arguments, found)


def test_no_view_shows_a_secret(story):
    """Nor a part of one that arrived in two pieces."""
    for name, view in story.views.items():
        found = story.leaks(view.text, cut=True)
        assert not found, (name, found)
    for name in ("first deploy, JSON", "update, plain", "undone, human"):
        assert "leak-end-DB_PASSWORD" in story.views[name].text, f"{name} doesn't show what the script printed"
    assert "migration-leak-end" in story.views["first deploy, JSON"].text
    assert "********" in story.views["attach, plain"].text


def test_no_secret_in_journals_and_logs(story):
    state = f"/var/lib/orchestrate/{APP}"
    sources = {
        "the droplet's journal": "journalctl --no-pager --all --output=export",
        "docker logs": "for id in $(docker ps -aq); do docker logs $id 2>&1; done",
        "systemctl show": "systemctl show '*' --all; systemctl show-environment",
        "history.jsonl": f"cat {state}/history.jsonl",
        "journals of the deployments": f"cat {state}/deployments/*/journal.jsonl",
        "arguments and unit files": "ps -eww -o args; cat /etc/systemd/system/* 2>/dev/null || true",
        "/var/log": "find /var/log -type f ! -path '*/journal/*' -exec cat {} +",
    }
    for name, command in sources.items():
        text = story.root(command)
        assert len(text) > 100 or name == "/var/log", (name, text)
        found = story.leaks(text)
        assert not found, (name, found)


# Where a value has to be: the release's env file and what Compose made of it; the values made on the host; and what a step printed. A deployment that
# has ended, well or not, keeps no copy.
EXPECTED = re.compile(
    rf"opt/{APP}/releases/\d+/(\.env|effective\.json)|var/lib/orchestrate/{APP}/generated\.env|"
    rf"var/lib/orchestrate/{APP}/deployments/\d+/log"
)


def test_files_that_hold_a_secret_are_expected_and_private(story):
    tar = story.root("tar -C / -c --one-file-system opt var/lib/orchestrate home root etc tmp run/user dev/shm var/tmp 2>/dev/null || [ $? -eq 1 ]")
    holding, wrong = set(), []
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if not member.isfile():
                continue
            found = story.leaks(archive.extractfile(member).read())
            if not found:
                continue
            names = {leak.split(":", 1)[0] for leak in found}
            holding.add(member.name)
            if not EXPECTED.fullmatch(member.name) or member.mode & 0o077 or not names <= {"TELEGRAM_TOKEN", "DB_PASSWORD", "REDIS_PASSWORD"}:
                wrong.append(f"{member.name} {member.mode:o} {member.uname} {sorted(names)}")
    assert not wrong, "\n".join(wrong)
    assert f"var/lib/orchestrate/{APP}/generated.env" in holding and len(holding) > 4, holding


def test_nothing_is_left_on_the_client(story):
    for path in story.project.folder.rglob("*"):
        if path.is_file():
            found = story.leaks(path.read_bytes())
            assert not found, (path, found)
