"""One droplet with the market bot on it, a line to it that can be broken, a writer, and a client that is watched."""

import contextlib
import fcntl
import json
import os
import pty
import select
import socket
import subprocess
import termios
import threading
import time
import zlib
from pathlib import Path

import observer
from droplets import ROOT, SETTINGS, Project, assignments, make_project, sandbox

APP = "market-bot"
OLD, NEW = "v1.0.0", "v1.1.0"
BAD = "v1.5.0-crashloop"  # migrates, starts, and falls over
DATABASE_READY = "until pg_isready -q -h 127.0.0.1 -U market -d market; do sleep 0.1; done"


class Line:
    """The way from the client to the droplet's sshd: sandbox/delay-proxy."""

    def __init__(self, port: str):
        self.process = subprocess.Popen(
            [ROOT / "sandbox/delay-proxy", "0", port, "--control", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.port = self.process.stdout.readline().split()[2]
        self.control = int(self.process.stdout.readline().split()[2])

    def send(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.control), timeout=10) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = connection.makefile().readline().strip()
        if not answer.startswith("ok"):
            raise OSError(f"delay-proxy: {command}: {answer}")
        return answer

    def clear(self):
        for command in ("resume", "delay 0", "rate 0"):
            self.send(command)

    def close(self):
        self.process.terminate()
        self.process.wait()


class Writer:
    """Writes rows with a sequence, one at a time, and keeps which of them the database has confirmed. Not the product's way in: `docker exec`."""

    def __init__(self, droplet: str):
        self.droplet = droplet
        self.acknowledged: set[int] = set()
        self.next = 1
        self.stopping = threading.Event()
        self.thread = None
        self.psql = None

    def begin(self):
        self.acknowledged = set()
        self.next = int(time.time() * 1000)  # never a number of another run
        self.stopping.clear()
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def _connect(self):
        self._disconnect()
        inner = (f'exec docker exec -i -e PGAPPNAME={observer.MARK}-writer -e PGCONNECT_TIMEOUT=3 "$(docker ps -q '
                 f'--filter label=com.docker.compose.project={APP} --filter label=com.docker.compose.service=postgres)" '
                 f'psql -U market -d market -qAt # {observer.MARK}')
        self.psql = subprocess.Popen(
            ["docker", "-H", SETTINGS["DOCKER_HOST"], "exec", "-i", f"orchestrate-droplet-{self.droplet}", "sh", "-c", inner],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _disconnect(self):
        if self.psql is not None:
            self.psql.kill()
            self.psql.communicate()
            self.psql = None

    def _write(self):
        while not self.stopping.is_set():
            try:
                if self.psql is None:
                    self._connect()
                number = self.next
                self.next += 1
                self.psql.stdin.write(b"insert into faults_rows values (%d) returning seq;\n" % number)
                self.psql.stdin.flush()
                ready, _, _ = select.select([self.psql.stdout], [], [], 3)
                answer = self.psql.stdout.readline() if ready else b""
                if answer.strip() == b"%d" % number:
                    self.acknowledged.add(number)
                    self.stopping.wait(0.05)
                    continue
            except OSError:
                pass
            # What became of the row isn't known: its number isn't used again.
            self._disconnect()
            self.stopping.wait(0.3)

    def end(self):
        self.stopping.set()
        if self.thread:
            self.thread.join(timeout=10)
            self.thread = None
        self._disconnect()


class Client:
    """The real binary, and what it prints: to pipes, or to a terminal of its own."""

    without_terminal: dict = {}  # for Popen

    def __init__(self, project: Project, *arguments: str, terminal: bool = False, **environment: str):
        self.began = time.time()
        self.text = {"stdout": "", "stderr": ""}
        self.closing = threading.Event()
        words = {"cwd": project.folder, "env": project.env(**environment)}
        if terminal:
            master, slave = pty.openpty()
            self.process = subprocess.Popen(
                [project.binary, *arguments], **words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
            os.close(slave)
            pipes = {"stdout": master}
        else:
            self.process = subprocess.Popen(
                [project.binary, *arguments], **words, **self.without_terminal, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            pipes = {"stdout": os.dup(self.process.stdout.fileno()), "stderr": os.dup(self.process.stderr.fileno())}
            self.process.stdout.close()
            self.process.stderr.close()
        self.threads = [threading.Thread(target=self._read, args=(name, pipe), daemon=True) for name, pipe in pipes.items()]
        for thread in self.threads:
            thread.start()

    def _read(self, name: str, pipe: int):
        while not (name == "stdout" and self.closing.is_set()):
            if select.select([pipe], [], [], 0.05)[0]:
                try:
                    data = os.read(pipe, 65536)
                except OSError:  # EIO: nobody has the terminal open any more
                    break
                if not data:
                    break
                self.text[name] += data.decode(errors="replace")
        os.close(pipe)

    def close_stdout(self):
        """Nobody reads any more. At a terminal: it is closed, and the kernel sends SIGHUP."""
        self.closing.set()
        self.threads[0].join()

    def alive(self) -> bool:
        return self.process.poll() is None

    def signal_alone(self, number: int):
        """To the process that was started, whatever that has started itself."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    signal = signal_alone

    def wait(self, timeout: float) -> int | None:
        """Its exit status; None: it hangs (and is ended)."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        for thread in self.threads:
            thread.join(5)
        return self.process.returncode


class Rig:
    """A droplet that the campaign has to itself."""

    def __init__(self, droplet: str, folder: Path, binary: Path, lease: int):
        self.droplet, self.binary, self.lease = droplet, binary, lease
        settings = assignments(sandbox("droplet", droplet).stdout)
        self.port = settings["DROPLET_PORT"]
        self.line = Line(self.port)
        # A droplet that is there already has releases with its bot's token: always the same.
        self.project = make_project(folder, droplet, bot=3_000_000 + zlib.crc32(droplet.encode()) % 900_000)
        self.project.binary = binary
        self._use_line(settings)
        playbook = self.project.folder / "playbooks/deploy.yml"
        # A shorter stability makes the runs quicker.
        playbook.write_text(playbook.read_text().replace("stable: 5s", "stable: 1s"))
        self.disk = Path(SETTINGS["SANDBOX_STATE"]) / f"droplets/{droplet}/mnt/upper"
        self.state = self.disk / f"var/lib/orchestrate/{APP}"
        self.writer = Writer(droplet)

    def _use_line(self, settings):
        """The client knows the droplet by the proxy's port, under the same keys."""
        inventory = self.project.folder / "inventories/prod.yml"
        known_hosts = self.project.folder / "known_hosts"
        own = [line for line in Path(settings["DROPLET_KNOWN_HOSTS"]).read_text().splitlines() if line.startswith(f"[127.0.0.1]:{self.port} ")]
        known_hosts.write_text("\n".join(line.replace(f":{self.port} ", f":{self.line.port} ", 1) for line in own) + "\n")
        text = inventory.read_text().replace(f"port: {self.port}", f"port: {self.line.port}")
        inventory.write_text(text.replace(settings["DROPLET_KNOWN_HOSTS"], str(known_hosts)))

    def close(self):
        self.writer.end()
        self.project.telegram.stop()
        self.line.close()

    # ---- inside, not by the product's way

    def root(self, script: str, *arguments: str, check: bool = True, timeout: float = 60, stdin: str = "") -> str:
        """A shell command as root in the droplet."""
        done = subprocess.run(
            ["docker", "-H", SETTINGS["DOCKER_HOST"], "exec", "-i", f"orchestrate-droplet-{self.droplet}", "sh", "-c", script, observer.MARK, *arguments],
            input=stdin, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise OSError(f"{script}: {done.returncode}: {done.stderr[-500:]}")
        return done.stdout.strip()

    def sql(self, statement: str, check: bool = True) -> str:
        return self.root(
            f'docker exec -i -e PGAPPNAME={observer.MARK} "$(docker ps -q --filter label=com.docker.compose.project={APP} '
            '--filter label=com.docker.compose.service=postgres)" psql -U market -d market -qAt', stdin=statement, check=check)

    # ---- the journal, read from the droplet's disk: no round trip, no process

    def read(self, name: str) -> str:
        try:
            return (self.state / name).read_text()
        except OSError:
            return ""

    def sequence(self) -> int:
        return int(self.read("sequence").strip() or 0)

    def numbers(self, after: int) -> list[int]:
        try:
            return sorted(int(name) for name in os.listdir(self.state / "deployments") if name.isdigit() and int(name) > after)
        except OSError:
            return []

    def events(self, number: int) -> list[dict]:
        found = []
        for line in self.read(f"deployments/{number}/journal.jsonl").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def history(self, after: int) -> list[dict]:
        return [line for line in map(json.loads, self.read("history.jsonl").splitlines()) if line["number"] > after]

    def closed(self, after: int) -> bool:
        """Nothing is open, by what is written."""
        return not self.read("runner.pid") and not self.read("open") and all(
            (self.events(number) or [{"event": ""}])[-1]["event"] == "closed" for number in self.numbers(after))

    def version(self) -> str:
        try:
            link = os.readlink(self.disk / f"opt/{APP}/current")
            return json.loads((self.disk / f"opt/{APP}/{link}/release.json").read_text())["version"]
        except (OSError, ValueError):
            return ""

    # ---- states

    def prepare(self):
        """v1.0.0 runs, and a table for the writer is there."""
        if not self.version():
            self.operate("deploy", OLD)
        self.root(f"{DATABASE_READY.replace('pg_isready', 'docker exec ' + self.container('postgres') + ' pg_isready')}", timeout=60)
        self.sql("create table if not exists faults_rows (seq bigint)")

    def container(self, service: str) -> str:
        return self.root(f"docker ps -q --filter label=com.docker.compose.project={APP} --filter label=com.docker.compose.service={service}")

    def older_schema(self):
        """So that the next deployment migrates, as a real one does."""
        self.sql("begin; alter table users drop column if exists language; update alembic_version set version_num = '0001'; commit")

    def known_schema(self):
        """Takes back what BAD has added: v1.1.0, deployed again, doesn't know those revisions, and its plan refuses."""
        self.sql("begin; drop table if exists reminders; alter table users drop column if exists quiet_until; "
                 "update alembic_version set version_num = '0002' where version_num > '0002'; commit")

    def client(self, *arguments: str, terminal: bool = False) -> Client:
        return Client(self.project, *arguments, terminal=terminal, **({"TERM": "xterm"} if terminal else {}))

    def arguments(self, operation: str) -> list[str]:
        if operation == "deploy":
            return ["deploy", "prod", NEW, "--yes", "--lease", f"{self.lease}s"]
        if operation == "failing":
            return ["deploy", "prod", BAD, "--yes", "--lease", f"{self.lease}s"]
        if operation == "rotate":
            return ["secrets", "rotate", "prod", "DB_PASSWORD", "--yes", "--lease", f"{self.lease}s"]
        return ["rollback", "prod", OLD, "--yes", "--lease", f"{self.lease}s"]

    def operate(self, operation: str, version: str = "") -> None:
        """Undisturbed; it must work."""
        words = ["deploy", "prod", version, "--lease", "60s"] if version else self.arguments(operation)[:-1] + ["60s"]
        client = Client(self.project, *words)
        status = client.wait(240)
        if status != 0:
            raise Broken(f"orchestrate {' '.join(words)}: exit status {status}\n{(client.text['stdout'] + client.text['stderr'])[-3000:]}")

    def ask(self, *words: str) -> tuple[int | None, str, str]:
        client = Client(self.project, *words)
        return client.wait(60), client.text["stdout"], client.text["stderr"]


class Broken(Exception):
    """An operation without a fault didn't work."""
