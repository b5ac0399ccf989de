"""The sandbox, a project folder, Telegram's stand-in and the real binary, as a user has them: for the acceptance suites and for script/faults."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("ORCHESTRATE", ROOT / ".build/debug/orchestrate"))


def sandbox(*arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "script/sandbox", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check, timeout=timeout,
    )


def assignments(text: str) -> dict[str, str]:
    pairs = (line.removeprefix("export ").split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value for name, value in pairs}


SETTINGS = assignments(sandbox("env").stdout)
PASSWORD = Path(SETTINGS["REGISTRY_PASSWORD_FILE"]).read_text().strip()


def keep_journals(droplet: str):
    """Each journal of the droplet once, for the replay through the engine's transition function (script/test)."""
    folder = os.environ.get("ORCHESTRATE_JOURNALS")
    if not folder:
        return
    command = "for file in /var/lib/orchestrate*/*/deployments/*/journal.jsonl; do [ ! -e $file ] || { cat $file; printf '\\0'; }; done"
    with contextlib.suppress(subprocess.TimeoutExpired):  # a droplet that a test has left without power, say
        for text in sandbox("ssh", f"root@{droplet}", command, check=False, timeout=60).stdout.split("\0"):
            if text:
                name = hashlib.sha256(text.encode()).hexdigest()[:16]
                (Path(folder) / f"{name}.jsonl").write_text(text)


class Telegram:
    """The control side of the stand-in, for one bot."""

    def __init__(self, bot: int):
        self.bot = bot
        self.token = f"{bot}:canary-telegram-token-{bot}"

    def _call(self, method: str, path: str, body: dict | None = None):
        url = f"{SETTINGS['TELEGRAM_CONTROL']}{path}{'&' if '?' in path else '?'}bot={self.bot}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.loads(answer.read() or b"null")

    def inject(self, text: str, **more):
        return self._call("POST", "/inject", {"chat": 7, "text": text, **more})

    def stream(self, per_second: float, count: int = 0):
        return self._call("POST", "/stream", {"per_second": per_second, "count": count})

    def stop(self):
        return self._call("POST", "/stream/stop", {})

    def counts(self) -> dict:
        return self._call("GET", "/counts")

    def messages(self) -> list[dict]:
        return self._call("GET", "/messages")

    def answers(self, after: int = 0) -> list[dict]:
        return self._call("GET", f"/answers?after={after}")

    def wait_answered(self, number: int, timeout: float = 60) -> dict:
        return self._call("GET", f"/wait?answered={number}&timeout={timeout}")

    def reset(self):
        return self._call("POST", "/reset", {})


@dataclass
class Result:
    """What a command ended with, as a user sees it."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    def expect(self, status: int) -> "Result":
        assert self.status == status, f"exit status {self.status}, expected {status}\n{self.text[-6000:]}"
        return self


@dataclass
class Project:
    """A project folder with one environment, `prod`, on one droplet."""

    folder: Path
    droplet: str
    telegram: Telegram | None = None
    app: str = "market-bot"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "deploy"

    def env(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "HOME": str(self.folder / "home"), "USER": "ada", **self.environment, **more}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [BINARY, *arguments], cwd=self.folder, env=self.env(**more), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def run(self, *arguments: str, timeout: float = 240, **more: str) -> Result:
        began = time.monotonic()
        process = self.start(*arguments, **more)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"orchestrate {' '.join(arguments)} took over {timeout} s\n{(out + err)[-6000:]}") from None
        return Result(process.returncode, out, err, time.monotonic() - began)

    def deploy(self, version: str, *arguments: str, **more) -> Result:
        return self.run("deploy", "prod", version, *arguments, **more)

    def status(self) -> dict:
        return json.loads(self.run("status", "prod", "--json").expect(0).out)["hosts"][0]

    def history(self) -> list[dict]:
        return json.loads(self.run("history", "prod", "--json").expect(0).out)["hosts"][0]["deployments"]

    def host(self, command: str, check: bool = True, user: str = "") -> str:
        return sandbox("ssh", f"{user or self.user}@{self.droplet}", command, check=check).stdout.strip()

    # ---- what is true on the host, seen without the tool

    def current(self) -> str:
        """Version that `current` names; empty: none."""
        text = self.host(f"cat /opt/{self.app}/current/release.json 2>/dev/null || echo '{{}}'")
        return json.loads(text).get("version", "")

    def container(self, service: str) -> str:
        return self.host(
            f"docker ps -q --no-trunc --filter label=com.docker.compose.project={self.app} "
            f"--filter label=com.docker.compose.service={service}"
        )

    def identity(self, service: str) -> str:
        """Changes whenever a container is recreated or restarted."""
        return self.host(f"docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {self.container(service)}")

    def sql(self, query: str) -> str:
        service, database = {"notes": ("db", "notes")}.get(self.app, ("postgres", "market"))
        return self.host(f'docker exec {self.container(service)} psql -U {database} -d {database} -Atc "{query}"')

    def revision(self) -> str:
        """The schema's revision, from the market bot's database itself."""
        return self.sql("select version_num from alembic_version")

    def assert_answers(self, version: str, timeout: float = 60):
        """Whoever answers at Telegram is that version."""
        number = self.telegram.inject("which one?")["update_id"]
        deadline = time.monotonic() + timeout
        while True:
            message = next(message for message in self.telegram.messages() if message["update_id"] == number)
            if message["answers"]:
                break
            assert time.monotonic() < deadline, f"no answer within {timeout} s"
            time.sleep(0.1)
        assert f"({version})" in message["answers"][0]["text"]

    def snapshot(self) -> str:
        """Everything that a failed deployment must leave as it was: files with their hashes, containers and when they started, images' local
        tags, volumes."""
        return self.host(
            f"sudo find /opt/{self.app} -xdev \\( -type f -exec sha256sum {{}} + \\) -o \\( -type l -printf '%p -> %l\\n' \\) | sort -k 2;"
            "docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.State}} {{.Image}}' | sort;"
            "docker ps -aq --no-trunc | sort | xargs -r docker inspect -f '{{.Id}} started {{.State.StartedAt}} restarts {{.RestartCount}}';"
            "docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}' --filter reference='orchestrate/*/*' | sort; docker volume ls -q | sort"
        )

    def assert_nothing_left(self):
        """After a deployment has ended: no lock, no runner, no one-off container, no half-renamed container, no open deployment."""
        state = f"/var/lib/orchestrate/{self.app}"
        assert self.host(f"flock -n {state}/lock echo free || echo held") == "free"
        assert self.host(f"ls {state}/open {state}/holder 2>/dev/null || true") == ""
        names = self.host("docker ps -a --format '{{.Names}}'").split()
        assert not [name for name in names if "migrate" in name or name[:12].strip("0123456789abcdef") == ""], names


_bots = iter(range(2_000_001, 3_000_000))


def make_project(tmp: Path, droplet: str, example: str = "market-bot", bot: int = 0, **inventory: str) -> Project:
    folder = tmp / f"project-{droplet}"
    keep = shutil.ignore_patterns("overlays", "tests", "migrations", "market_bot", "__pycache__", "Dockerfile")
    shutil.copytree(ROOT / "examples" / example, folder, ignore=keep)
    # The watch has a suite of its own (test_watch.py); every other deploy would take two minutes longer.
    playbook = folder / "playbooks/deploy.yml"
    playbook.write_text(playbook.read_text().replace("watch: 2m\n", ""))
    if not (folder / "inventories/prod.yml").exists():
        next((folder / "inventories").iterdir()).rename(folder / "inventories/prod.yml")
    (folder / "home").mkdir()
    address = assignments(sandbox("droplet", droplet).stdout)
    telegram = Telegram(bot or next(_bots) + os.getpid() % 10000 * 10)
    telegram.reset()
    services = {
        "market-bot": "services: { app: [bot], database: postgres, cache: redis }",
    }.get(example)
    text = (folder / "inventories/prod.yml").read_text()
    kept = [line for line in text.splitlines() if line.startswith(("services:", "compose:", "env:", "vars:", "app:", "project:"))]
    if services and not any(line.startswith("services:") for line in kept):
        kept.append(services)
    lines = [
        *kept,
        "hosts:",
        f"  {droplet}: {{ address: 127.0.0.1, port: {address['DROPLET_PORT']}, user: {inventory.get('user', 'deploy')}, roles: [app, db, web] }}",
        f"ssh: {{ identity: {address['DROPLET_KEY']}, known_hosts: {address['DROPLET_KNOWN_HOSTS']} }}",
        'registry: { server: "registry.test:5000", username: deploy, password: REGISTRY_PASSWORD }',
    ]
    (folder / "inventories/prod.yml").write_text("\n".join(lines) + "\n")
    app = next(line.split(":", 1)[1].split("#")[0].strip() for line in kept if line.startswith("app:"))
    environment = {
        "TELEGRAM_TOKEN": telegram.token, "TELEGRAM_API": SETTINGS["TELEGRAM_API"], "REGISTRY_PASSWORD": PASSWORD,
        "DROPLET_PORT": address["DROPLET_PORT"],
    }
    return Project(folder, droplet, telegram, app, environment, inventory.get("user", "deploy"))


def engine(*arguments: str, check: bool = True) -> str:
    environment = {**os.environ, "DOCKER_HOST": SETTINGS["DOCKER_HOST"]}
    done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()
