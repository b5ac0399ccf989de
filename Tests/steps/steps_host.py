"""Runs step scripts on a sandbox droplet as the runner does: a bundle, a deployment's directory, parameters as assignments."""

import hashlib
import io
import json
import os
import pathlib
import secrets
import shlex
import subprocess
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANDBOX = ROOT / "script" / "sandbox"
HOST = ROOT / "playbooks" / "host"
STEPS = ROOT / "playbooks" / "steps"


def sandbox_environment():
    text = subprocess.run([SANDBOX, "env"], check=True, capture_output=True, text=True).stdout
    pairs = (line.removeprefix("export ").split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: shlex.split(value)[0] if value else "" for key, value in pairs}


class Droplet:
    def __init__(self, name):
        self.sandbox = sandbox_environment()
        text = subprocess.run([SANDBOX, "droplet", name], check=True, capture_output=True, text=True).stdout
        values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        control = os.path.join(tempfile.mkdtemp(), "c")
        self.ssh = [
            "ssh", "-F", "none", "-p", values["DROPLET_PORT"], "-i", values["DROPLET_KEY"],
            "-o", f"UserKnownHostsFile={values['DROPLET_KNOWN_HOSTS']}", "-o", "StrictHostKeyChecking=yes",
            "-o", "ControlMaster=auto", "-o", f"ControlPath={control}", "-o", "ControlPersist=60",
            f"{values['DROPLET_USER']}@{values['DROPLET_ADDRESS']}",
        ]  # fmt: skip

    def run(self, command, *, input=None, check=True, timeout=180):
        data = input.encode() if isinstance(input, str) else input
        result = subprocess.run(
            [*self.ssh, command],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=timeout,
        )
        result.text = result.stdout.decode(errors="replace")
        result.output = result.text + result.stderr.decode(errors="replace")
        if check:
            assert result.returncode == 0, f"{command}\n{result.output}"
        return result

    def upload(self, directory, files):
        """files: {path: (mode, text)}"""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, (mode, text) in files.items():
                content = text if isinstance(text, bytes) else text.encode()
                info = tarfile.TarInfo(path)
                info.mode, info.size = mode, len(content)
                archive.addfile(info, io.BytesIO(content))
        self.run(f"mkdir -p {directory} && tar -xf - -C {directory}", input=out.getvalue())

    def login(self):
        """So that the droplet's Docker may pull from the sandbox's registry."""
        password = pathlib.Path(self.sandbox["REGISTRY_PASSWORD_FILE"]).read_text()
        self.run(f"docker login -u {self.sandbox['REGISTRY_USER']} --password-stdin {self.sandbox['REGISTRY']}", input=password)


class Project:
    """A project on the droplet: releases and deployments by hand, steps by their scripts."""

    def __init__(self, droplet, name=None):
        self.droplet = droplet
        self.name = name or "steps-" + secrets.token_hex(3)
        self.base = f"/home/deploy/{self.name}"
        self.bundle = f"{self.base}/bundle"
        self.state = f"{self.base}/state/{self.name}"
        self.opt = f"{self.base}/opt/{self.name}"
        self.previous = ""
        files = {path.name: (0o600, path.read_bytes()) for path in HOST.iterdir()}
        files |= {f"steps/{path.name}": (0o600, path.read_bytes()) for path in STEPS.iterdir()}
        droplet.upload(self.bundle, files)
        droplet.run(f"umask 077; mkdir -p {self.state}/deployments {self.opt}/releases {self.opt}/backups")

    def release(self, number, config):
        self.droplet.upload(f"{self.opt}/releases/{number}", {"effective.json": (0o600, json.dumps(config))})

    def commit(self, number):
        self.droplet.run(f"ln -sfn releases/{number} {self.opt}/current")
        self.previous = str(number)

    def environment(self, number, directory=""):
        deployment = f"{self.state}/deployments/{number}"
        values = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "HOME": "/home/deploy", "ORCH_BUNDLE": self.bundle,
            "ORCH_PROJECT": self.name, "ORCH_N": number, "ORCH_STATE": self.state, "ORCH_OPT": self.opt,
            "ORCH_DEPLOYMENT": deployment, "ORCH_STEP": f"{deployment}/{directory}", "ORCH_PREVIOUS": self.previous,
            "ORCH_RELEASE": f"{self.opt}/releases/{number}",
        }  # fmt: skip
        return "env -i " + " ".join(shlex.quote(f"{key}={value}") for key, value in values.items())

    def prepare(self, number, directory, params, files=None):
        deployment = f"{self.state}/deployments/{number}"
        text = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in params.items())
        content = {"params": (0o600, text)} | (files or {})
        self.droplet.upload(f"{deployment}/{directory}", content)
        self.droplet.run(f"cd {deployment}; [ -f key ] || echo 'nonce 0' >key; touch log")

    def script(self, number, directory, script, *, kill_after=None, shell="sh", timeout=180):
        """Runs steps/SCRIPT in the step's directory. kill_after: seconds until its process group gets SIGKILL."""
        limit = f"timeout -s KILL {kill_after} " if kill_after is not None else ""
        command = (
            f"cd {self.state}/deployments/{number}/{directory} && umask 077 && "
            f"{self.environment(number, directory)} {limit}{shell} {self.bundle}/steps/{script}"
        )
        return self.droplet.run(command, check=False, timeout=timeout)

    def apply(self, number, directory, kind, params=None, *, files=None, **more):
        self.prepare(number, directory, params or {}, files)
        return self.script(number, directory, f"{kind}.apply.sh", **more)

    def undo(self, number, directory, kind, **more):
        return self.script(number, directory, f"{kind}.undo.sh", **more)

    def facts(self, number, directory):
        text = self.droplet.run(f"cat {self.state}/deployments/{number}/{directory}/facts", check=False).text
        facts = {}
        for line in text.splitlines():
            facts |= json.loads("{" + line + "}")
        return facts

    def containers(self):
        """{service: [(id, name, state)]}, one-off containers under "one-off"."""
        out = self.droplet.run(
            f"docker ps -a --no-trunc --filter label=com.docker.compose.project={self.name} --format "
            "'{{.ID}} {{.Names}} {{.State}} {{.Label \"com.docker.compose.service\"}} {{.Label \"com.docker.compose.oneoff\"}}'"
        ).text
        found = {}
        for line in out.splitlines():
            id, name, state, service, one_off = line.split(" ")
            found.setdefault("one-off" if one_off == "True" else service, []).append((id, name, state))
        return found

    def inspect(self, id, template):
        return self.droplet.run(f"docker inspect -f {shlex.quote(template)} {id}").text.strip()

    def sql(self, text, database="market"):
        [(id, _, _)] = self.containers()["postgres"]
        return self.droplet.run(f"docker exec -i {id} psql -X -qAt -v ON_ERROR_STOP=1 -U market -d {database}", input=text).text.strip()

    def remove(self):
        label = f"label=com.docker.compose.project={self.name}"
        self.droplet.run(
            f"docker ps -aq --filter {label} | xargs -r docker rm -f -v; docker volume ls -q --filter {label} | xargs -r docker volume rm -f;"
            f"docker network ls -q --filter {label} | xargs -r docker network rm; sudo rm -rf {self.base}; rm -rf {self.base}",
            check=False,
        )


def market_bot(droplet, project, version, **changes):
    """The example's effective configuration for a version: images pulled, and named by local tags."""
    registry = droplet.sandbox["REGISTRY"]
    source = f"{project.base}/source"
    example = ROOT / "examples" / "market-bot"
    files = {"compose.prod.yml": (0o644, (example / "compose.prod.yml").read_text())}
    files |= {f"redis/{path.name}": (0o644, path.read_text()) for path in (example / "redis").iterdir()}
    droplet.upload(source, files)
    droplet.run(f"chmod 755 /home/deploy {project.base} {source} {source}/redis")
    values = {
        "REGISTRY": registry, "VERSION": version, "TELEGRAM_TOKEN": f"{int(hashlib.sha256(project.name.encode()).hexdigest()[:7], 16)}:steps",
        "TELEGRAM_API": droplet.sandbox["TELEGRAM_API"], "DB_PASSWORD": "secret1", "REDIS_PASSWORD": "secret2",
        "DATABASE_URL": "postgresql://market:secret1@postgres:5432/market", "REDIS_URL": "redis://:secret2@redis:6379/0",
    }  # fmt: skip
    assignments = " ".join(f"{key}={shlex.quote(value)}" for key, value in values.items())
    out = droplet.run(f"cd {source} && env {assignments} docker compose -p {project.name} -f compose.prod.yml config --format json").text
    config = json.loads(out)
    for service in config["services"].values():
        service["image"] = pull(droplet, service["image"])
    for service, more in changes.items():
        config["services"][service] |= more
    return config


def pull(droplet, image):
    """The image's local tag, named after its content."""
    found = droplet.run(f"docker image inspect -f '{{{{.Id}}}}' {image}", check=False)
    if found.returncode != 0:
        droplet.run(f"docker pull -q {image}", timeout=300)
        found = droplet.run(f"docker image inspect -f '{{{{.Id}}}}' {image}")
    tag = f"orchestrate/steps/{image.split('/')[-1].split(':')[0]}:{found.text.strip()[7:19]}"
    droplet.run(f"docker tag {image} {tag}")
    return tag


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")
