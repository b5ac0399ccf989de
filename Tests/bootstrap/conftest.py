"""The steps of a bootstrap as they are: on a fresh droplet (marker `sandbox`), or system.sh in a temporary directory of this machine.

    def test_x(droplet):                     # a Host: root's key and nothing else; one per module
        planned = droplet.plan("file", {...}, {"content": "..."})
        planned.changes                      # [{"action", "subject", "detail"}]
        step = droplet.apply("file", {...}, {"content": "..."})
        step.facts, step.changes, step.output
        step.undo()
"""

import io
import itertools
import json
import os
import shlex
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = ROOT / "script" / "sandbox"
HOST = ROOT / "playbooks" / "host"
STEPS = ROOT / "playbooks" / "steps"
SHELLS = [["dash"], ["busybox", "sh"]]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pytest_configure(config):
    config.addinivalue_line("markers", "sandbox: needs a droplet (script/sandbox); brings one up itself")


def sandbox(*arguments, check=True, timeout=400):
    return subprocess.run([SANDBOX, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check, timeout=timeout)


def assignments(text):
    pairs = (line.removeprefix("export ").split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: shlex.split(value)[0] if value else "" for name, value in pairs}


class Result:
    def __init__(self, status, output):
        self.status, self.output = status, output

    def expect(self, status=0):
        assert self.status == status, f"exit status {self.status}, expected {status}\n{self.output[-6000:]}"
        return self


class Machine:
    """Where the scripts run; paths are the machine's."""

    def run(self, command, input=None, check=True, timeout=600) -> Result:
        raise NotImplementedError

    def sh(self, command, **options):
        return self.run(command, **options).output.strip()

    def write(self, path, content, mode=0o644):
        data = content if isinstance(content, bytes) else content.encode()
        self.run(f"mkdir -p {shlex.quote(os.path.dirname(path))} && cat >{shlex.quote(path)} && chmod {mode:o} {shlex.quote(path)}", input=data)

    def read(self, path):
        return self.run(f"cat {shlex.quote(path)}").output

    def exists(self, path):
        return self.run(f"test -e {shlex.quote(path)} || test -L {shlex.quote(path)}", check=False).status == 0


class Local(Machine):
    def __init__(self, base):
        self.base = str(base)
        self.tools = Path(base) / "tools"
        self.tools.mkdir()

    def run(self, command, input=None, check=True, timeout=600):
        done = subprocess.run(["dash", "-c", command], input=input or b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                              env={"PATH": f"{self.tools}:{PATH}", "LC_ALL": "C"})
        result = Result(done.returncode, done.stdout.decode(errors="replace"))
        return result.expect() if check else result

    def tool(self, name, text):
        """A program that comes before the machine's own."""
        path = self.tools / name
        path.write_text("#!/bin/dash\n" + text + "\n")
        path.chmod(0o755)


class Droplet(Machine):
    """A fresh droplet, over one connection as root; `reaches` makes new ones."""

    base = "/var/lib/orchestrate-host"

    def __init__(self, name, *options):
        self.name = name
        values = assignments(sandbox("droplet", name, "--fresh", *options).stdout)
        self.port, self.key, self.known_hosts = values["DROPLET_PORT"], values["DROPLET_KEY"], values["DROPLET_KNOWN_HOSTS"]
        self.control = os.path.join(tempfile.mkdtemp(), "c")

    def ssh(self, user="root", port=None, address="127.0.0.1", options=()):
        return ["ssh", "-F", "none", "-p", str(port or self.port), "-i", self.key, "-o", f"UserKnownHostsFile={self.known_hosts}",
                "-o", f"HostKeyAlias=[127.0.0.1]:{self.port}", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
                "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *options, f"{user}@{address}"]

    def run(self, command, input=None, check=True, timeout=600):
        shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.control}", "-o", "ControlPersist=300"]
        done = subprocess.run([*self.ssh(options=shared), command], input=input or b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        result = Result(done.returncode, done.stdout.decode(errors="replace"))
        return result.expect() if check else result

    def reaches(self, user, command="true", **where):
        """Does a new connection get in?"""
        done = subprocess.run([*self.ssh(user, **where), command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        self.said = done.stdout.decode(errors="replace")
        return done.returncode == 0

    @property
    def address(self):
        return self.sh("ip -4 -o addr show dev eth0 | awk '{ print $4 }' | cut -d/ -f1")

    def inside(self, command, check=True):
        """A command in the droplet without SSH: for what has locked everybody out."""
        engine = assignments(sandbox("env").stdout)
        done = subprocess.run(["docker", "exec", "-i", f"orchestrate-droplet-{self.name}", "sh", "-c", command],
                              env={**os.environ, "DOCKER_HOST": engine["DOCKER_HOST"]}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        result = Result(done.returncode, done.stdout + done.stderr)
        return result.expect() if check else result

    def disconnect(self):
        subprocess.run([*self.ssh(options=["-o", f"ControlPath={self.control}", "-O", "exit"])], capture_output=True)

    def reboot(self):
        self.disconnect()
        sandbox("reboot", self.name)

    def until(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.5)


class Step(Result):
    def __init__(self, host, directory, status, output):
        super().__init__(status, output)
        self.host, self.directory = host, directory

    @property
    def facts(self):
        lines = self.host.machine.run(f"cat {shlex.quote(self.directory)}/facts", check=False)
        return json.loads("{" + ",".join(lines.output.splitlines()) + "}") if lines.status == 0 else {}

    @property
    def changes(self):
        return self.facts["changes"]

    @property
    def subjects(self):
        return [f"{change['action']} {change['subject']}" for change in self.changes]

    def undo(self, **options):
        return self.host.script(self.directory, "undo", **options)


class Host:
    """The machine with the bundle on it, and deployments made by hand as the runner makes them. Everything of the machine is there too."""

    def __init__(self, machine, shell=("sh",)):
        self.machine, self.shell = machine, list(shell)
        self.bundle = f"{machine.base}/bundle/test"
        self.state = f"{machine.base}/bootstrap"
        self.opt = f"{machine.base}/opt/bootstrap"
        self.numbers = itertools.count(1)
        files = {path.name: path.read_bytes() for path in HOST.iterdir()}
        files |= {f"steps/{path.name}": path.read_bytes() for path in STEPS.iterdir()}
        machine.run(f"umask 077; mkdir -p {self.state}/deployments {self.opt}")
        self.upload(self.bundle, files)

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def upload(self, directory, files, then=":", check=True, timeout=600):
        """files: {path: content}; then: a command that runs in the directory."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, content in files.items():
                content = content if isinstance(content, bytes) else content.encode()
                info = tarfile.TarInfo(path)
                info.mode, info.size = 0o600, len(content)
                archive.addfile(info, io.BytesIO(content))
        directory = shlex.quote(directory)
        return self.machine.run(f"umask 077; mkdir -p {directory} && tar -xf - -C {directory} && cd {directory} && {then}",
                                input=out.getvalue(), check=check, timeout=timeout)

    def environment(self, number, directory):
        values = {
            "PATH": PATH, "LC_ALL": "C", "ORCH_BUNDLE": self.bundle, "ORCH_PROJECT": "bootstrap", "ORCH_N": number, "ORCH_STATE": self.state,
            "ORCH_OPT": self.opt, "ORCH_DEPLOYMENT": os.path.dirname(directory), "ORCH_STEP": directory, "ORCH_PREVIOUS": "",
        }
        if isinstance(self.machine, Local):
            values["PATH"] = f"{self.machine.tools}:{PATH}"
        return "env -i " + " ".join(shlex.quote(f"{key}={value}") for key, value in values.items())

    def _apply(self, number, deployment, kind, params, files, check, prelude="", timeout=600, nn=1, kill_after=None):
        directory = f"{self.state}/{deployment}/{nn:02d}-{kind}"
        content = {"params": "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in (params or {}).items()), **(files or {})}
        for which in ("apply", "undo"):
            script = STEPS / f"{kind}.{which}.sh"
            if script.exists():
                content[f"{which}.sh"] = script.read_bytes()
        prepare = "[ -e ../key ] || echo 'k 0' >../key; touch ../log"
        done = self.upload(directory, content, f"{{ {prepare}; {self.command(number, directory, 'apply', prelude, kill_after)}; }}", check=False, timeout=timeout)
        step = Step(self, directory, done.status, done.output)
        return step.expect() if check else step

    def command(self, number, directory, which, prelude="", kill_after=None):
        """As the runner starts it: apply leads a process group of its own, `pid`. kill_after: seconds until that group gets SIGKILL."""
        shell = " ".join(map(shlex.quote, self.shell))
        limit = f"-s KILL {kill_after}" if kill_after else "-k 10 600"
        script = f"{shell} ./{which}.sh </dev/null"
        if which == "apply":
            return f"{prelude} {self.environment(number, directory)} timeout {limit} {script} & echo $! >pid; wait $!"
        return f"{prelude} {self.environment(number, directory)} {script}"

    def plan(self, kind, params=None, files=None, check=True, **options):
        return self._apply(0, f"plan/{next(self.numbers)}", kind, params, files, check, **options)

    def apply(self, kind, params=None, files=None, check=True, number=None, **options):
        """A deployment of its own, unless a number says which; nn: the step's number in it."""
        number = number or next(self.numbers)
        return self._apply(number, f"deployments/{number}", kind, params, files, check, **options)

    def script(self, directory, which, check=True, prelude="", timeout=600):
        """undo.sh, or what else lies there, of a step."""
        number = os.path.basename(os.path.dirname(directory))
        done = self.machine.run(f"umask 077; cd {shlex.quote(directory)} && {self.command(number, directory, which, prelude)}", check=False, timeout=timeout)
        return done.expect() if check else done


@pytest.fixture(params=SHELLS, ids=" ".join)
def local(request, tmp_path):
    """A temporary directory of this machine, under dash and busybox sh."""
    return Host(Local(tmp_path), request.param)


@pytest.fixture(scope="module")
def droplet(request):
    """A fresh droplet of the module's own; BOOTSTRAP_DEBIAN=12: of the older Debian."""
    debian = os.environ.get("BOOTSTRAP_DEBIAN", "13")
    name = "b-" + request.module.__name__.rsplit(".", 1)[-1].removeprefix("test_").replace("_", "-") + ("" if debian == "13" else f"-{debian}")
    sandbox("rm", name, check=False)
    machine = Droplet(name, "--debian", debian)
    yield Host(machine)
    machine.disconnect()
    sandbox("rm", name, check=False)
