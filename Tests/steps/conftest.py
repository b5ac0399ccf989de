"""The step scripts as they are, in a deployment made by hand: on this machine with a scripted docker, or on a droplet (marker `sandbox`)."""
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = ROOT / "script" / "sandbox"
SHELLS = [["dash"], ["busybox", "sh"]]


def pytest_configure(config):
    config.addinivalue_line("markers", "sandbox: needs a droplet (script/sandbox); brings one up itself")


def quote(value):
    return "'" + str(value).replace("'", "'\\''") + "'"


class Machine:
    """Where the scripts run. Paths are the machine's."""

    def __init__(self, base, shell=("sh",)):
        self.base = base
        self.shell = list(shell)
        self.path_prefix = ""

    def run(self, command, input=None, check=True):
        raise NotImplementedError

    def sh(self, command, **options):
        return self.run(command, **options).stdout.decode()

    def write(self, path, content, mode=0o600):
        data = content if isinstance(content, bytes) else content.encode()
        self.run(f"mkdir -p {quote(os.path.dirname(path))} && cat >{quote(path)} && chmod {mode:o} {quote(path)}", input=data)

    def read(self, path):
        return self.sh(f"cat {quote(path)}")

    def exists(self, path):
        return self.run(f"test -e {quote(path)} || test -L {quote(path)}", check=False).returncode == 0


class Local(Machine):
    def run(self, command, input=None, check=True):
        environment = {"PATH": self.path_prefix + "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.base)}
        result = subprocess.run([*self.shell, "-c", command], input=input if input is not None else b"", capture_output=True, env=environment)
        if check and result.returncode:
            raise AssertionError(f"{command}\n{result.stdout.decode()}{result.stderr.decode()}")
        return result


class Droplet(Machine):
    def __init__(self, name):
        super().__init__("/home/deploy/steps")
        self.name = name
        subprocess.run([SANDBOX, "droplet", name], check=True, capture_output=True)
        lines = subprocess.run([SANDBOX, "droplet", name], check=True, capture_output=True).stdout.decode().splitlines()
        facts = dict(line.split("=", 1) for line in lines if "=" in line)
        self.ssh = ["ssh", "-p", facts["DROPLET_PORT"], "-i", facts["DROPLET_KEY"], "-o", f"UserKnownHostsFile={facts['DROPLET_KNOWN_HOSTS']}",
                    "-o", "ControlMaster=auto", "-o", f"ControlPath=/tmp/orchestrate-steps-{os.getpid()}-%C", "-o", "ControlPersist=60", "-o", "LogLevel=ERROR",
                    f"{facts['DROPLET_USER']}@{facts['DROPLET_ADDRESS']}"]

    def run(self, command, input=None, check=True):
        result = subprocess.run([*self.ssh, command], input=input if input is not None else b"", capture_output=True)
        if check and result.returncode:
            raise AssertionError(f"{command}\n{result.stdout.decode()}{result.stderr.decode()}")
        return result


class Project:
    """/opt/P and /var/lib/orchestrate/P on a machine, with the bundle."""

    def __init__(self, machine, name="shop"):
        self.machine = machine
        self.name = name
        self.opt = f"{machine.base}/opt/{name}"
        self.state = f"{machine.base}/state/{name}"
        self.bundle = f"{machine.base}/bundle"
        machine.run(f"mkdir -p {quote(self.opt)}/releases {quote(self.state)}/deployments {quote(self.bundle)}")
        for path in sorted((ROOT / "playbooks/host").glob("*.sh")) + sorted((ROOT / "playbooks/host").glob("*.awk")):
            machine.write(f"{self.bundle}/{path.name}", path.read_bytes())

    def deployment(self, number):
        return Deployment(self, number)

    @property
    def current(self):
        return self.machine.sh(f"readlink {quote(self.opt)}/current || :").strip().split("/")[-1]

    def commit(self, number):
        self.machine.run(f"ln -sfn releases/{number} {quote(self.opt)}/current")
        self.machine.write(f"{self.state}/deployments/{number}/journal.jsonl",
                           '{"event":"opened","number":%d}\n{"event":"committed","release":%d}\n{"event":"closed","outcome":"committed"}\n' % (number, number))

    def tree(self):
        """Everything below /opt/P, with modes and contents."""
        return self.machine.sh(
            f"cd {quote(self.opt)} && find . -printf '%M %P %l\\n' | sort && find . -type f -exec sha256sum {{}} + | sort")


class Deployment:
    def __init__(self, project, number):
        self.project = project
        self.machine = project.machine
        self.number = number
        self.directory = f"{project.state}/deployments/{number}"
        self.release = f"{project.opt}/releases/{number}"
        self.machine.write(f"{self.directory}/key", "k 0\n")
        self.machine.write(f"{self.directory}/log", "")

    def step(self, kind, params=None, files=None, number=1):
        return Step(self, f"{number:02d}-{kind}", kind, params or {}, files or {})


class Step:
    def __init__(self, deployment, name, kind, params, files):
        self.deployment = deployment
        self.machine = deployment.machine
        self.directory = f"{deployment.directory}/{name}"
        self.machine.write(f"{self.directory}/params", "".join(f"{k}={quote(v)}\n" for k, v in params.items()))
        for path, content in files.items():
            self.machine.write(f"{self.directory}/{path}", content, 0o644 if path.startswith("project/") else 0o600)
        for which in ("apply", "undo"):
            script = ROOT / "playbooks" / "steps" / f"{kind}.{which}.sh"
            if script.exists():
                self.machine.write(f"{self.directory}/{which}.sh", script.read_bytes())

    def run(self, which, prelude="", check=True):
        deployment, project = self.deployment, self.deployment.project
        environment = {
            "ORCH_BUNDLE": project.bundle, "ORCH_PROJECT": project.name, "ORCH_N": deployment.number, "ORCH_STATE": project.state,
            "ORCH_OPT": project.opt, "ORCH_DEPLOYMENT": deployment.directory, "ORCH_STEP": self.directory, "ORCH_PREVIOUS": project.current,
            "ORCH_RELEASE": deployment.release,
        }
        assignments = " ".join(f"{k}={quote(v)}" for k, v in environment.items())
        shell = " ".join(map(shlex.quote, self.machine.shell))
        result = self.machine.run(f"umask 077; cd {quote(self.directory)} && {prelude} env {assignments} {shell} {which}.sh </dev/null", check=False)
        output = result.stdout.decode() + result.stderr.decode()
        if check:
            assert result.returncode == 0, output
        return result.returncode, output

    def apply(self, **options):
        return self.run("apply", **options)

    def undo(self, **options):
        return self.run("undo", **options)

    @property
    def facts(self):
        lines = self.machine.sh(f"cat {quote(self.directory)}/facts 2>/dev/null || :")
        return json.loads("{" + ",".join(lines.splitlines()) + "}")


def release_json(number, previous=0, **members):
    document = {"number": number, "version": f"v{number}", "previous": previous, "copyOf": 0, "playbook": 'x "previous" : 99,\n  "previous" : 98,', **members}
    return json.dumps(document, indent=2, sort_keys=True, separators=(",", " : ")) + "\n"


def images_yml(**images):
    text = "services:\n" if images else "services: {}\n"
    for service, image in images.items():
        text += f'  "{service}":\n' + "".join(f'    {key}: "{image[key]}"\n' for key in ("reference", "digest", "id", "tag"))
    return text


@pytest.fixture(params=SHELLS, ids=" ".join)
def local(request, tmp_path):
    """This machine, with a docker that only knows what a test tells it (file `images`: a name and an id per line)."""
    machine = Local(str(tmp_path), request.param)
    tools = tmp_path / "tools"
    tools.mkdir()
    docker = tools / "docker"
    docker.write_text((Path(__file__).parent / "docker-stand-in").read_text())
    docker.chmod(0o755)
    machine.path_prefix = f"{tools}:"
    machine.images = tmp_path / "images"
    machine.images.write_text("")
    return machine
