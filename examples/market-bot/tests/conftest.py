"""What the tests run against: the Telegram stand-in, PostgreSQL and Redis of this machine, and the bot as a process."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[1]
STAND_IN = EXAMPLE.parents[1] / "sandbox/telegram/telegram_standin.py"
TOKEN = "1000001:test-token"


def request(url: str, document: object = None, method: str | None = None, timeout: float = 10) -> tuple[int, object]:
    body = None if document is None else json.dumps(document).encode()
    call = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def eventually(check, within: float = 10.0):
    """The first true value of check(); the test fails if there is none in time."""
    deadline = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within} s: {check}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Telegram:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, STAND_IN, "--port", "0", "--control-port", "0"], stdout=subprocess.PIPE, text=True
        )
        ports = json.loads(self.process.stdout.readline())
        self.api = f"http://127.0.0.1:{ports['api']}"
        self.url = f"http://127.0.0.1:{ports['control']}"

    def post(self, path: str, **values) -> dict:
        status, document = request(self.url + path, values)
        assert status == 200, document
        return document

    def get(self, path: str):
        status, document = request(self.url + path, timeout=60)
        assert status == 200, document
        return document

    def call(self, method: str, token: str = TOKEN, **values) -> tuple[int, dict]:
        return request(f"{self.api}/bot{token}/{method}", values, timeout=60)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(5) == 0


@pytest.fixture(scope="session")
def telegram_process():
    telegram = Telegram()
    yield telegram
    telegram.stop()


@pytest.fixture
def telegram(telegram_process):
    telegram_process.post("/reset")
    return telegram_process


class Postgres:
    """A cluster of its own; PostgreSQL refuses to run as root, so root runs it as postgres."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        self.binaries = binaries
        self.port = free_port()
        self.data = directory / "data"
        self.prefix = []
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(directory, account.pw_uid, account.pw_gid)
            self.prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        self.run("initdb", "-D", str(self.data), "-U", "market", "--auth=trust", "--no-sync", "-E", "UTF8")
        self.url = f"postgresql://market@127.0.0.1:{self.port}/market"
        self.start()
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "market", "market")

    def run(self, tool: str, *arguments: str) -> str:
        command = [*self.prefix, str(self.binaries / tool), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k ''"
        command = [*self.prefix, str(self.binaries / "pg_ctl"), "start", "-w", "-D", str(self.data), "-o", options]
        # pg_ctl's child keeps the outputs open: they must not be pipes that somebody reads to their end.
        subprocess.run([*command, "-l", str(self.data / "log")], cwd="/", check=True, stdout=subprocess.DEVNULL)

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "stop", "-w", "-D", str(self.data), "-m", mode)

    def query(self, statement: str) -> str:
        return self.run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "market", "-XAtc", statement, "market").strip()


def postgres_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres_process(tmp_path_factory):
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine (apt: postgresql)")
    directory = Path("/tmp") / f"market-bot-postgres-{os.getpid()}"
    directory.mkdir(mode=0o700)
    postgres = Postgres(directory, binaries)
    yield postgres
    postgres.stop()
    shutil.rmtree(directory)


@pytest.fixture
def postgres(postgres_process):
    postgres_process.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return postgres_process


class Redis:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)],
            stdout=subprocess.DEVNULL,
        )
        eventually(lambda: self.command("PING") == b"+PONG")

    def command(self, *words: str) -> bytes | None:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
                connection.sendall((" ".join(words) + "\r\n").encode())
                return connection.recv(65536).strip()
        except OSError:
            return None

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(5)


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory):
    if not shutil.which("redis-server"):
        pytest.skip("no Redis on this machine (apt: redis-server)")
    redis = Redis(tmp_path_factory.mktemp("redis"))
    yield redis
    redis.stop()


@pytest.fixture
def redis(redis_process):
    redis_process.command("CONFIG", "SET", "maxmemory", "0")
    redis_process.command("FLUSHALL")
    return redis_process


class Bot:
    """One version of the bot as its image would run it."""

    def __init__(self, tree: Path, version: str, environment: dict[str, str]) -> None:
        self.tree = tree
        self.port = free_port()
        self.environment = os.environ | environment | {"MARKET_BOT_VERSION": version, "HEALTH_PORT": str(self.port)}
        self.process: subprocess.Popen | None = None
        self.log = tree / "log"

    def alembic(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "alembic", *arguments]
        return subprocess.run(command, cwd=self.tree, env=self.environment, capture_output=True, text=True, check=False)

    def start(self) -> "Bot":
        with self.log.open("a") as log:
            command = [sys.executable, "-m", "market_bot"]
            self.process = subprocess.Popen(command, cwd=self.tree, env=self.environment, stdout=log, stderr=log)
        return self

    def health(self) -> tuple[int, dict]:
        try:
            return request(f"http://127.0.0.1:{self.port}/health", timeout=2)
        except OSError:
            return 0, {"status": "down"}

    def wait_for(self, status: str, within: float = 10) -> dict:
        return eventually(lambda: (found := self.health()[1])["status"] == status and found, within)

    def stop(self, number: int = signal.SIGTERM, within: float = 5) -> float:
        """Seconds until it was gone."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(within)
        return time.monotonic() - began


@pytest.fixture
def bot(telegram, postgres, redis, tmp_path):
    """bot("v1.1.0"): a bot that isn't started yet."""
    made = []

    def make(version: str, **environment: str) -> Bot:
        tree = tmp_path / f"{version}-{len(made)}"
        subprocess.run([EXAMPLE.parent / "assemble", EXAMPLE.name, version, tree], check=True)
        given = {"TELEGRAM_TOKEN": TOKEN, "TELEGRAM_API": telegram.api, "DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        made.append(Bot(tree, version, given | environment))
        return made[-1]

    yield make
    for one in made:
        if one.process and one.process.poll() is None:
            one.process.kill()
            one.process.wait()
