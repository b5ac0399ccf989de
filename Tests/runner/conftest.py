"""The protocol suite's client: it speaks to playbooks/host over pipes, as the real one does over SSH (docs/runner.md)."""

import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = ROOT / "playbooks" / "host"
SHELLS = {"dash": "/usr/bin/dash", "busybox": "/bin/busybox"}
PATIENCE = 30  # seconds until a test gives up; nothing takes that long
IDS = dict(user=65534, group=65534, extra_groups=[]) if os.geteuid() == 0 else {}


def tar(files):
    """{path: (mode, bytes)} as a tar, the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, (mode, content) in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.mode, info.size = mode, len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def step(directory, apply="", undo=None, *, meta="", files=(), params="", **settings):
    """The files of a step directory. A line of `trace` in the project's directory tells what ran."""
    values = dict(KIND="test", NAME=directory[3:], TIMEOUT=20, SIDE="host", CHANGES=0, UNDO=int(undo is not None), AFTER=0)
    values.update(settings)
    head = 'set -eu\n. "$ORCH_BUNDLE/lib.sh"\n. "$ORCH_STEP/params"\n'
    trace = 'echo "%s ${ORCH_STEP##*/} $ORCH_N" >>"$ORCH_OPT/trace"\n'
    content = {
        "meta": "".join(f"{key}='{value}'\n" for key, value in values.items()) + meta,
        "params": params,
    }
    if values["SIDE"] == "host":
        content["apply.sh"] = head + trace % "apply" + apply + "\n"
    if undo is not None:
        content["undo.sh"] = head + trace % "undo" + undo + "\n"
    content.update(files)
    return {f"{directory}/{name}": (0o600, text.encode()) for name, text in content.items()}


def bundle(scripts=HOST):
    """The scripts as a tar, and its name."""
    files = {path.name: (0o600, path.read_bytes()) for path in scripts.iterdir() if path.name != "stub.sh"}
    files |= {f"queries/{path.name}": (0o600, path.read_bytes()) for path in (HOST.parent / "queries").iterdir()}
    files["steps/linked.apply.sh"] = (0o600, b'set -eu\necho linked >>"$ORCH_OPT/trace"\n')
    files["steps/linked.undo.sh"] = (0o600, b'set -eu\necho unlinked >>"$ORCH_OPT/trace"\n')
    content = tar(files)
    return content, hashlib.sha256(content).hexdigest()[:16]


RELEASE = 'mkdir -p "$ORCH_RELEASE"; echo "$ORCH_N" >"$ORCH_RELEASE/number"'
NO_RELEASE = 'rm -rf "$ORCH_RELEASE"'


def deployment(*more):
    """release, a change, commit, something after it; and what the test wants to add or to replace."""
    steps = {
        **step("01-release", RELEASE, NO_RELEASE),
        **step("02-change", 'echo "$ORCH_N" >"$ORCH_OPT/state"', 'echo "$ORCH_PREVIOUS" >"$ORCH_OPT/state"', CHANGES=1),
        **step("03-commit", SIDE="commit", KIND="commit-test"),
        **step("04-after", "", AFTER=1),
    }
    for other in more:
        numbers = {path[:2] for path in other}
        steps = {path: file for path, file in steps.items() if path[:2] not in numbers}
        steps.update(other)
    return steps


class Client:
    """One connection: the stub, then attach."""

    def __init__(self, host, asked=""):
        self.host = host
        self.replies, self.log, self.change = [], b"", threading.Condition()
        self.waits = []  # bodies of `waiting`, which come before a reply
        self.n = None
        self.process = host.start("-c", (HOST / "stub.sh").read_text(), "orchestrate", host.bundle_name, host.project, asked)
        self.threads = [threading.Thread(target=reader, daemon=True) for reader in (self._read_replies, self._read_log)]
        line = self._line()
        if line == b"N\n":
            self.process.stdin.write(b"bundle %d\n" % len(host.bundle) + host.bundle)
        elif line != b"H\n":
            size = int(line.split()[1])
            raise RuntimeError(self._exactly(size).decode())
        self.had_bundle = line == b"H\n"
        for thread in self.threads:
            thread.start()

    def _line(self):
        line = b""
        while not line.endswith(b"\n"):
            byte = self.process.stderr.read(1)
            if not byte:
                raise EOFError(line)
            line += byte
        return line

    def _exactly(self, size):
        body = b""
        while len(body) < size:
            body += self.process.stderr.read(size - len(body)) or self._fail(body)
        return body

    @staticmethod
    def _fail(body):
        raise EOFError(body)

    def _read_replies(self):
        try:
            while True:
                line = self._line()
                try:
                    tag, size = line.decode().split()
                    reply = (tag, self._exactly(int(size)).decode())
                except ValueError:
                    reply = ("garbage", line.decode())
                with self.change:
                    if reply[0] == "waiting":
                        self.waits.append(reply[1])
                    else:
                        self.replies.append(reply)
                    self.change.notify_all()
        except (EOFError, ValueError, OSError):
            with self.change:
                self.replies.append(("eof", ""))
                self.change.notify_all()

    def _read_log(self):
        while data := self.process.stdout.read(65536):
            with self.change:
                self.log += data
                self.change.notify_all()

    def wait_for(self, condition, what):
        with self.change:
            if not self.change.wait_for(condition, PATIENCE):
                pytest.fail(f"no {what}; replies {self.replies}; log {self.log.decode(errors='replace')}\n{self.host.describe()}")

    def say(self, line, body=b""):
        self.process.stdin.write(line.encode() + b"\n" + body)

    def ask(self, line, body=b""):
        """Sends a message; its reply as (tag, body)."""
        count = len(self.replies)
        self.say(line, body)
        self.wait_for(lambda: len(self.replies) > count, f"reply to {line}")
        return self.replies[count]

    def open(self, lease=60, wait=0, nonce=None, **request):
        self.nonce = nonce or secrets.token_hex(8)
        body = json.dumps({"environment": "test", "app": "app", "who": "tester", **request}, separators=(",", ":")).encode()
        tag, text = self.ask(f"open {self.nonce} {lease} {wait} {len(body)}", body)
        if tag == "granted":
            text, *self.recovered = text.split("\n")  # what had been left open, and how it was closed
            text, self.previous = text.split()
            self.n = int(text)
        return tag, text

    def recover(self):
        return self.ask(f"recover {secrets.token_hex(8)}")

    def send(self, steps, seal=True):
        body = tar(steps)
        assert self.ask(f"steps {self.n} {len(body)}", body) == ("ok", "")
        if seal:
            assert self.ask(f"seal {self.n}") == ("ok", "")

    def events(self, name=None):
        found = [json.loads(line[1:]) for line in self.log.split(b"\n") if line.startswith(b"\1") and line.endswith(b"}")]
        return [event for event in found if name in (None, event["event"])]

    def await_event(self, name, **members):
        def there():
            return [e for e in self.events(name) if all(e.get(key) == value for key, value in members.items())]
        self.wait_for(there, f"event {name} {members}")
        return there()[0]

    def closed(self):
        return self.await_event("closed")

    def run(self, steps, **options):
        assert self.open(**options)[0] == "granted", self.replies
        self.send(steps)
        return self.closed()

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
            except OSError:
                pass
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cut(self):
        """The connection is gone in the middle of whatever it was doing."""
        self.process.kill()
        self.process.wait()


class Host:
    """A state directory and an /opt of its own, a PATH whose `sh` is the shell under test."""

    project = "app"

    def __init__(self, shell, directory, scripts=HOST):
        self.directory = pathlib.Path(directory)
        self.shell = shell
        self.base, self.opt_base, self.bin = (self.directory / name for name in ("state", "opt", "bin"))
        for path in (self.base, self.opt_base, self.bin):
            path.mkdir()
        self.state, self.opt = self.base / self.project, self.opt_base / self.project
        (self.bin / "sh").symlink_to(SHELLS[shell])
        self.tool("sudo", "exit 1")  # the level without sudo, whatever the machine has
        self.tool("docker", "")
        if IDS:
            for path in (self.directory, self.base, self.opt_base, self.bin):
                os.chown(path, IDS["user"], IDS["group"])
        self.environment = dict(
            PATH=f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/nonexistent", ORCHESTRATE_STATE=str(self.base),
            ORCHESTRATE_OPT=str(self.opt_base))
        self.bundle, self.bundle_name = bundle(scripts)
        self.clients = []
        self.forged = False  # a test has written journals of its own

    def start(self, *arguments):
        """The shell under test with these arguments, over pipes."""
        return subprocess.Popen(
            [self.path("sh"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment, cwd="/", bufsize=0, **IDS)

    def path(self, tool):
        return str(self.bin / tool)

    def tool(self, name, text):
        """Puts a script on the PATH before the machine's own."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text("#!/bin/dash\n" + text + "\n")
        path.chmod(0o755)

    def connect(self):
        client = Client(self)
        self.clients.append(client)
        return client

    def journal(self, number):
        text = (self.state / "deployments" / str(number) / "journal.jsonl").read_text()
        assert text.endswith("\n")
        return [json.loads(line) for line in text.splitlines()]

    def history(self):
        return [json.loads(line) for line in (self.state / "history.jsonl").read_text().splitlines()]

    def trace(self):
        path = self.opt / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def current(self):
        path = self.opt / "current"
        return os.readlink(path) if path.is_symlink() else None

    def runner_pid(self):
        return int((self.state / "runner.pid").read_text().split()[1])

    def lock_is_free(self):
        return subprocess.run(["flock", "-n", str(self.state / "lock"), "true"]).returncode == 0

    def await_free_lock(self):
        eventually(self.lock_is_free, "free lock")

    def describe(self):
        return subprocess.run(
            ["sh", "-c", "cd \"$1\" && ls -la . deployments/*; tail -n 50 start/*/output start/*/verdict start/*/launch deployments/*/journal.jsonl",
             "-", str(self.state)],
            capture_output=True, text=True).stdout if self.state.exists() else "(no state)"

    def processes(self):
        """Ids of the processes that have anything to do with this host."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes()
                if str(self.directory).encode() in environ and (entry / "stat").read_text().rsplit(")")[-1].split()[0] != "Z":
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def runners(self, nonce=""):
        """Those of them that are runners, of the start with this nonce."""
        found = []
        for pid in self.processes():
            try:
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if "runner.sh" in line and (not nonce or f"\0{nonce}\0" in line):
                found.append(pid)
        return found

    def keep_journals(self):
        """Each journal once, for the replay through the engine's transition function (script/test)."""
        folder = os.environ.get("ORCHESTRATE_JOURNALS")
        for path in self.state.glob("deployments/[1-9]*/journal.jsonl") if folder and not self.forged else []:
            text = path.read_bytes()
            (pathlib.Path(folder) / f"{hashlib.sha256(text).hexdigest()[:16]}.jsonl").write_bytes(text)

    def close(self):
        for client in self.clients:
            client.close()
        for process in self.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.keep_journals()
        shutil.rmtree(self.directory, ignore_errors=True)


def eventually(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def masked(text):
    return re.sub(r"[0-9]+", "#", text)


@pytest.fixture(params=sorted(SHELLS))
def shell(request):
    if not os.path.exists(SHELLS[request.param]):
        pytest.fail(f"{SHELLS[request.param]} is not installed")
    return request.param


@pytest.fixture
def host(shell):
    directory = tempfile.mkdtemp(prefix="runner-")
    os.chmod(directory, 0o755)
    host = Host(shell, directory)
    yield host
    host.close()


@pytest.fixture
def client(host):
    return host.connect()
