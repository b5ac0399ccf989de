"""The sandbox itself: a droplet is what it says, a crash is not a power loss, and the faults are the faults they claim to be."""

import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROXY = ROOT / "sandbox/delay-proxy"
NAME = "sandbox-selftest"


def sandbox(*arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "script/sandbox", *arguments], input=stdin, capture_output=True, text=True, check=check, timeout=300
    )


def on_droplet(command: str, user: str = "deploy", check: bool = True) -> str:
    return sandbox("ssh", f"{user}@{NAME}", command, check=check).stdout.strip()


@pytest.fixture(scope="module")
def droplet():
    settings = sandbox("droplet", NAME, "--disk", "4G", "--memory", "1g").stdout
    yield dict(line.split("=", 1) for line in settings.splitlines())
    sandbox("rm", NAME)


def test_droplet_is_ready(droplet):
    assert on_droplet("systemctl is-system-running; systemctl --failed --no-legend") == "running"
    assert on_droplet("docker version --format '{{.Server.Version}}'").startswith("26.1")
    assert on_droplet("docker compose version --short").startswith("2.26")
    assert on_droplet("sudo -n id -u") == "0"
    assert on_droplet("id -nG", user="limited").split() == ["limited", "docker"]
    assert sandbox("ssh", f"limited@{NAME}", "sudo -n true", check=False).returncode == 1


def test_remote_status_is_passed_on(droplet):
    assert sandbox("ssh", NAME, "exit 7", check=False).returncode == 7


def test_second_call_is_instant_and_says_the_same(droplet):
    began = time.monotonic()
    again = sandbox("droplet", NAME)
    assert time.monotonic() - began < 3
    assert dict(line.split("=", 1) for line in again.stdout.splitlines()) == droplet


def test_opt_and_docker_share_the_disk(droplet):
    sizes = on_droplet("df --output=size /opt /var/lib/docker | tail -n +2").split()
    assert sizes[0] == sizes[1]
    assert 3 * 2**20 < int(sizes[0]) < 4 * 2**20  # KiB


def boot_id() -> str:
    return on_droplet("cat /proc/sys/kernel/random/boot_id")


@pytest.mark.parametrize("restart", ["reboot", "crash", "power-loss"])
def test_restart_keeps_synced_files_and_port_and_changes_the_boot_id(droplet, restart):
    before = boot_id()
    on_droplet(f"echo kept | sudo tee /opt/synced-{restart} >/dev/null; sync")
    sandbox(restart, NAME)
    assert boot_id() != before
    assert on_droplet(f"cat /opt/synced-{restart}") == "kept"
    assert dict(line.split("=", 1) for line in sandbox("droplet", NAME).stdout.splitlines()) == droplet


def test_crash_keeps_what_was_not_synced_and_power_loss_does_not(droplet):
    on_droplet("sync; echo written | sudo tee /opt/unsynced >/dev/null")
    sandbox("crash", NAME)
    assert on_droplet("cat /opt/unsynced") == "written"
    on_droplet("sync; echo written | sudo tee /opt/lost >/dev/null; test -s /opt/lost")
    sandbox("power-loss", NAME)
    assert on_droplet("cat /opt/unsynced") == "written"
    assert on_droplet("cat /opt/lost", check=False) == ""


def test_fill_leaves_what_it_was_told_and_no_visible_file(droplet):
    before = on_droplet("ls -A / /opt /var/lib")
    try:
        sandbox("fill", NAME)
        assert on_droplet("df --output=avail /opt | tail -n 1") == "0"
        full = sandbox("ssh", NAME, "head -c 100000 /dev/zero >~/big", check=False)
        assert full.returncode == 1 and "No space left on device" in full.stderr
        sandbox("fill", NAME, "50000000")
        assert 45_000_000 < int(on_droplet("df --output=avail -B1 /opt | tail -n 1")) <= 50_000_000
        assert on_droplet("ls -A / /opt /var/lib") == before
    finally:
        sandbox("unfill", NAME)
    on_droplet("head -c 100000 /dev/zero >~/big && rm ~/big")


def pull() -> tuple[int, str, float]:
    began = time.monotonic()
    done = sandbox("ssh", NAME, "timeout 4 docker manifest inspect registry.test:5000/library/redis:8 2>&1", check=False)
    return done.returncode, done.stdout, time.monotonic() - began


def test_registry_wants_a_password_and_its_faults_differ(droplet):
    """Others share the registry: each fault lasts as long as one request."""
    state = Path(subprocess.check_output([ROOT / "script/sandbox", "env"], text=True).split("SANDBOX_STATE=")[1].split()[0])
    password = (state / "registry/password").read_text()
    assert pull()[0] == 1
    sandbox("ssh", NAME, "docker login --username deploy --password-stdin registry.test:5000", stdin=password)
    assert pull()[0] == 0
    try:
        sandbox("registry", "stop")
        status, text, seconds = pull()
        assert status == 1 and "connection refused" in text and seconds < 3
        sandbox("registry", "blackhole")
        status, _, seconds = pull()
        assert status == 124 and seconds >= 4
        sandbox("registry", "slow", "200")
        status, _, seconds = pull()
        assert seconds > 0.8
    finally:
        sandbox("registry", "start")
    assert pull()[0] == 0


def test_names_resolve_in_nested_containers(droplet):
    answer = on_droplet(
        "docker run --rm registry.test:5000/library/python:3.13 python -c "
        "'import socket; print(socket.gethostbyname(\"telegram.test\"), socket.gethostbyname(\"registry.test\"))'"
    )
    assert answer == "10.83.0.4 10.83.0.3"


class Proxy:
    """An echo server with the proxy before it."""

    def __init__(self, *options: str):
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        port = str(self.server.getsockname()[1])
        self.process = subprocess.Popen([PROXY, "0", port, "--control", "0", *options], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[2])
        self.control = self.process.stdout.readline().split()[2]

    def _accept(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection):
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass  # reset on purpose

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def tell(self, *command: str) -> str:
        return subprocess.run([PROXY, "send", self.control, *command], capture_output=True, text=True, check=True).stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tell("quit")
        assert self.process.wait(5) == 0
        self.server.close()


def test_proxy_delays_each_way():
    with Proxy("--delay", "50") as proxy, proxy.connect() as line:
        began = time.monotonic()
        line.sendall(b"x")
        assert line.recv(1) == b"x"
        assert 0.1 <= time.monotonic() - began < 0.3


def test_proxy_blackhole_holds_and_loses_nothing():
    with Proxy() as proxy, proxy.connect() as line:
        line.sendall(b"a")
        assert line.recv(1) == b"a"
        proxy.tell("blackhole")
        line.sendall(b"b")
        line.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.recv(1)
        with proxy.connect() as late:
            late.sendall(b"c")
            proxy.tell("resume")
            line.settimeout(5)
            assert line.recv(1) == b"b"
            assert late.recv(1) == b"c"


def test_proxy_cut_resets_and_refuse_refuses():
    with Proxy() as proxy:
        with proxy.connect() as line:
            line.sendall(b"a")
            assert line.recv(1) == b"a"
            proxy.tell("cut")
            with pytest.raises(ConnectionResetError):
                line.recv(1)
        proxy.tell("refuse")
        with pytest.raises(ConnectionRefusedError):
            proxy.connect()
        proxy.tell("resume")
        with proxy.connect() as line:
            line.sendall(b"z" * 1_000_000)
            line.shutdown(socket.SHUT_WR)
            received = b""
            while data := line.recv(65536):
                received += data
            assert len(received) == 1_000_000


@pytest.mark.parametrize("way", ["up", "down"])
def test_proxy_holds_one_direction_only(way):
    with Proxy() as proxy, proxy.connect() as line:
        proxy.tell("blackhole", way)
        line.sendall(b"a")
        line.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.recv(1)
        # The other direction goes on: what is held on its way back has reached the server.
        assert f"up={0 if way == 'up' else 1} " in proxy.tell("stats")
        proxy.tell("resume")
        line.settimeout(5)
        assert line.recv(1) == b"a"


def test_proxy_ends_in_order_and_limits_the_rate():
    with Proxy() as proxy:
        with proxy.connect() as line:
            line.sendall(b"a")
            assert line.recv(1) == b"a"
            proxy.tell("fin")
            assert line.recv(1) == b""
        proxy.tell("rate", "20000")
        with proxy.connect() as line:
            began = time.monotonic()
            line.sendall(b"z" * 10_000)
            received = 0
            while received < 10_000:
                received += len(line.recv(65536))
            assert 0.4 < time.monotonic() - began < 2
