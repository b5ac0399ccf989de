"""The two that are compared, each on a droplet of its own: orchestrate, and the careful bash script with the bare Compose beside it."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def sandbox(*arguments, check=True):
    run = subprocess.run([ROOT / "script/sandbox", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and run.returncode:
        sys.exit(f"bench: script/sandbox {' '.join(arguments)} failed\n{run.stdout}{run.stderr}")
    return run.stdout


def assignments(text):
    return dict(line.removeprefix("export ").split("=", 1) for line in text.splitlines() if "=" in line)


class Failed(Exception):
    """A run that didn't end where it should."""


class Telegram:
    """The control side of the sandbox's Telegram, for one bot."""

    def __init__(self, control, bot):
        self.control, self.bot, self.token = control, bot, f"{bot}:bench-token"

    def call(self, path, body=None):
        url = f"{self.control}{path}{'&' if '?' in path else '?'}bot={self.bot}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers={"content-type": "application/json"}), timeout=90) as answer:
            return json.loads(answer.read() or b"null")

    @contextlib.contextmanager
    def stream(self, per_second):
        """Messages for as long as the block lasts, and a while before and after it."""
        self.call("/reset", {})
        self.call("/stream", {"per_second": per_second, "count": 0})
        try:
            time.sleep(1)
            yield
        finally:
            self.call("/stream/stop", {})

    def wait_for(self, version, limit=30):
        """Until the newest answer comes from that version."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            answers = self.call("/answers?after=0")
            if answers and version in answers[-1]["text"]:
                time.sleep(0.5)
                return
            time.sleep(0.1)
        raise Failed(f"the bot doesn't answer as {version}")

    def gap(self):
        """The longest silence in seconds; every message must have been answered, once."""
        sent = self.call("/counts")["sent"]
        counts = self.call(f"/wait?answered={sent}&timeout=30")
        if counts["unanswered"] or counts["answered_twice"]:
            raise Failed(f"{counts['unanswered']} messages lost, {counts['answered_twice']} answered twice")
        return counts["longest_silence_s"]


class Line:
    """The way to a droplet's sshd: direct, or through a proxy that delays each byte."""

    def __init__(self, droplet, known_hosts, stack):
        self.name = droplet
        self.settings = assignments(sandbox("droplet", droplet))
        port = self.settings["DROPLET_PORT"]
        proxy = subprocess.Popen(
            [ROOT / "sandbox/delay-proxy", "0", port, "--control", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        stack.callback(proxy.wait)
        stack.callback(proxy.terminate)
        self.proxy_port = proxy.stdout.readline().split()[2]
        self.control = proxy.stdout.readline().split()[2]
        # The same keys under the proxy's port.
        lines = Path(self.settings["DROPLET_KNOWN_HOSTS"]).read_text().splitlines()
        own = [line for line in lines if line.startswith(f"[127.0.0.1]:{port} ")]
        proxied = [line.replace(f":{port} ", f":{self.proxy_port} ", 1) for line in own]
        with open(known_hosts, "a", encoding="ascii") as file:
            file.write("\n".join([*own, *proxied]) + "\n")
        self.known_hosts = known_hosts
        self.port = port

    def delay(self, round_trip_ms):
        """Zero is the direct line."""
        self.port = self.proxy_port if round_trip_ms else self.settings["DROPLET_PORT"]
        subprocess.run(
            [ROOT / "sandbox/delay-proxy", "send", self.control, "delay", str(round_trip_ms / 2)],
            check=True, stdout=subprocess.DEVNULL)

    def host(self, command):
        return sandbox("ssh", f"deploy@{self.name}", command).strip()


def timed(command, environment, folder, is_commit, limit=300):
    """Runs it; seconds until the line that tells of the commit arrived, seconds in all, lines."""
    began = time.monotonic()
    committed, lines = None, []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(word) for word in command], env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, text=True)
        deadline = threading.Timer(limit, process.kill)
        deadline.start()
        for line in process.stdout:
            if committed is None and is_commit(line):
                committed = time.monotonic() - began
            lines.append(line.rstrip("\n"))
        status = process.wait()
        deadline.cancel()
        whole = time.monotonic() - began
        errors.seek(0)
        if status or committed is None:
            raise Failed(f"exit status {status} after {whole:.1f} s\n" + "\n".join(lines[-20:]) + errors.read()[-2000:])
    return committed, whole, lines


class Contender:
    def __init__(self, line, telegram, settings, folder):
        self.line, self.telegram, self.settings, self.folder = line, telegram, settings, folder

    def run(self, version, rate, action):
        """A sample: what `action` measured, and the gap seen by users."""
        with self.telegram.stream(rate):
            sample = action(version)
            self.telegram.wait_for(version)
        return {**sample, "gap": self.telegram.gap()}

    def older_schema(self):
        self.line.host(
            'docker exec "$(docker ps -q --filter label=com.docker.compose.service=postgres)" psql -XqU market -d market '
            "-v ON_ERROR_STOP=1 -c \"ALTER TABLE users DROP COLUMN IF EXISTS language; UPDATE alembic_version SET version_num = '0001'\"")


class Ours(Contender):
    def __init__(self, binary, *arguments):
        super().__init__(*arguments)
        self.binary = binary
        example = ROOT / "examples/market-bot"
        for name in ("compose.prod.yml", "env.template"):
            shutil.copy(example / name, self.folder)
        for name in ("playbooks", "redis"):
            shutil.copytree(example / name, self.folder / name)
        playbook = self.folder / "playbooks/deploy.yml"
        playbook.write_text(playbook.read_text().replace("watch: 2m\n", ""))  # what is measured ends at the commit
        (self.folder / "inventories").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "USER": "bench",
            "TELEGRAM_TOKEN": self.telegram.token, "TELEGRAM_API": self.settings["TELEGRAM_API"],
            "REGISTRY_PASSWORD": Path(self.settings["REGISTRY_PASSWORD_FILE"]).read_text().strip(),
        }

    def _run(self, *arguments):
        line = self.line
        (self.folder / "inventories/prod.yml").write_text(f"""\
app: market-bot
default: true
hosts:
  {line.name}: {{ address: 127.0.0.1, port: {line.port}, user: deploy, roles: [app, db] }}
ssh: {{ identity: {line.settings['DROPLET_KEY']}, known_hosts: {line.known_hosts} }}
compose: compose.prod.yml
env: {{ template: env.template, from: [flags, environment, vault, host, generated] }}
registry: {{ server: "{self.settings['REGISTRY']}", username: {self.settings['REGISTRY_USER']}, password: REGISTRY_PASSWORD }}
services: {{ app: [bot], database: postgres, cache: redis }}
""")
        committed, whole, lines = timed(
            [self.binary, *arguments, "--yes", "--json"], self.environment, self.folder,
            lambda text: json.loads(text)["event"] == "committed")
        summary = json.loads(lines[-1])["summary"]
        steps = {step["step"]: step["seconds"] for step in summary["steps"] if step.get("state") == "done"}
        return {
            "seconds": committed, "whole": whole, "steps": steps, "round_trips": summary.get("round_trips"),
            "own_gap": summary.get("downtime_ms", 0) / 1000,
        }

    def deploy(self, version):
        return self._run("deploy", "prod", version)

    def rollback(self, version):
        return self._run("rollback", "prod", version)


class Peer(Contender):
    def _run(self, script, *arguments):
        line = self.line
        committed, whole, lines = timed(
            [ROOT / "script/bench.d" / script, "--project", ROOT / "examples/market-bot", "--host", "127.0.0.1", "--port", line.port,
             "--key", line.settings["DROPLET_KEY"], "--known-hosts", line.known_hosts, *arguments],
            dict(os.environ), self.folder, lambda text: text.startswith("peer: total"))
        steps = {}
        for text in lines:
            words = text.split()
            if len(words) == 4 and words[0] == "peer:" and words[3] == "s" and words[1] != "total":
                steps[words[1]] = float(words[2])
        return {"seconds": committed, "whole": whole, "steps": steps}

    def deploy(self, version):
        settings = self.settings
        return self._run(
            "peer-deploy.sh", "--registry", settings["REGISTRY"], "--registry-user", settings["REGISTRY_USER"],
            "--registry-password-file", settings["REGISTRY_PASSWORD_FILE"], "--set", f"TELEGRAM_TOKEN={self.telegram.token}",
            "--set", f"TELEGRAM_API={settings['TELEGRAM_API']}", version)

    def rollback(self, version):
        return self._run("peer-rollback.sh", version)

    def bare(self, version):
        """What a user without any tool types on the host; the gap is what counts."""
        began = time.monotonic()
        self.line.host(
            f"cd \"$(dirname \"$(grep -lx VERSION={version} /opt/market-bot/releases/*/.env | sort -V | tail -n 1)\")\" && "
            "docker compose -p market-bot --project-directory /opt/market-bot/shared -f compose.yml --env-file .env "
            "--progress quiet up -d")
        return {"seconds": time.monotonic() - began}
