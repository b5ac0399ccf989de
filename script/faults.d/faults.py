"""What can break, by family: how it is done to a rig, and what it excuses."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from droplets import SETTINGS, sandbox
from rig import APP, NEW, OLD, Client, Rig

EVERYTHING = frozenset({"bot", "postgres", "redis"})
# The droplet's processes whose command line has one of these words, by id; never the observer's own.
KILL = """
import os, signal, sys
mark, wanted, name = sys.argv[1], sys.argv[2:], None
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline", "rb").read().decode(errors="replace").split("\\0")
    except OSError:
        continue
    if int(pid) == os.getpid() or any(mark in word for word in words):
        continue
    if any(os.path.basename(word) in wanted or word.split(":")[0] in wanted for word in words[:4]):
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


@dataclass(frozen=True)
class Fault:
    """`inject` returns once it is done, or begun; `mend` takes away what would last. The rest is what may be true afterwards because of it."""

    family: str
    name: str
    inject: Callable[[Rig, Client, Random], None]
    mend: Callable[[Rig], None] = lambda rig: None
    ready: Callable[[Rig], None] = lambda rig: None  # before the operation begins
    client_dies: bool = False
    may_not_know: bool = False  # exit status 7 is true
    restarted: frozenset = frozenset()
    answered_twice: bool = False
    machine: bool = False  # the whole droplet: up to 60 s until it is well
    interrupts: bool = False  # asks the client to stop
    silences: bool = False  # no sign of life reaches the host from here on
    terminal: bool = False  # the client has one
    pairs: bool = True  # may come together with another one
    slow: bool = False  # more than a minute: not in the smoke
    others: bool = False  # opens a deployment of its own


def clear(rig: Rig):
    rig.line.clear()


# ---- the client

def send(*numbers: int, pause: float = 0.0):
    def inject(rig, client, rng):
        for number in numbers:
            client.signal(number)
            time.sleep(pause)
    return inject


def stopped(suspended: bool):
    def inject(rig, client, rng):
        client.signal(signal.SIGSTOP)
        if suspended:
            rig.line.send("blackhole")
        time.sleep(rig.lease + rng.uniform(1, 4))
        if suspended:
            rig.line.send("cut")
            rig.line.send("resume")
        client.signal(signal.SIGCONT)
    return inject


CLIENT = [
    Fault("client", "SIGINT", send(signal.SIGINT), interrupts=True),
    Fault("client", "SIGINT twice", send(signal.SIGINT, signal.SIGINT, pause=0.3), may_not_know=True),
    Fault("client", "SIGTERM", send(signal.SIGTERM), interrupts=True),
    Fault("client", "SIGHUP", send(signal.SIGHUP), interrupts=True),
    Fault("client", "SIGKILL", send(signal.SIGKILL), client_dies=True, silences=True),
    Fault("client", "CI cancels: INT, 7.5 s, TERM, 2.5 s, KILL", lambda rig, client, rng: cancelled(client), may_not_know=True, client_dies=True, pairs=False),
    Fault("client", "stopped beyond the lease", stopped(False), pairs=False),
    Fault("client", "suspended with its line", stopped(True), clear, pairs=False),
    Fault("client", "stdout closed", lambda rig, client, rng: client.close_stdout()),
    Fault("client", "terminal closed", lambda rig, client, rng: client.close_stdout(), interrupts=True, terminal=True, pairs=False),
]


def cancelled(client: Client):
    """As GitHub's runner does: two signals to the process that it has started, then an end to all that is left of it."""
    for send_signal, number, seconds in ((client.signal_alone, signal.SIGINT, 7.5), (client.signal_alone, signal.SIGTERM, 2.5), (client.signal, signal.SIGKILL, 0)):
        send_signal(number)
        deadline = time.monotonic() + seconds
        while client.alive() and time.monotonic() < deadline:
            time.sleep(0.05)


# ---- the line

def line(command: str, seconds: float = 0.0):
    """A command for the proxy; taken back after so many seconds (0: by mend)."""
    def inject(rig, client, rng):
        rig.line.send(command)
        if seconds:
            time.sleep(seconds)
            rig.line.clear()
    return inject


NETWORK = [
    Fault("network", "RST", line("cut")),
    Fault("network", "FIN", line("fin")),
    Fault("network", "black hole, 1.5 s", line("blackhole", 1.5), clear),
    Fault("network", "black hole, 12 s", line("blackhole", 12), clear, pairs=False),
    Fault("network", "black hole, for good", line("blackhole"), clear, may_not_know=True, silences=True, pairs=False, slow=True),
    Fault("network", "black hole towards the host, 8 s", line("blackhole up", 8), clear, pairs=False),
    Fault("network", "black hole towards the client, 8 s", line("blackhole down", 8), clear, pairs=False),
    Fault("network", "refused, 6 s", line("refuse", 6), clear, pairs=False),
    Fault("network", "400 ms each way", line("delay 400"), clear),
    Fault("network", "10 kB/s", line("rate 10000"), clear),
]


# ---- the host

def kill(*names: str):
    def inject(rig, client, rng):
        rig.root('exec python3 - "$0" "$@"', *names, stdin=KILL)
    return inject


def kill_runner(rig, client, rng):
    rig.root(f"kill -KILL $(cut -d ' ' -f 2 /var/lib/orchestrate/{APP}/runner.pid)", check=False)  # between two of them there is none


def docker(command: str):
    def inject(rig, client, rng):
        rig.root(f"systemctl reset-failed docker containerd; {command}", timeout=120)
    return inject


def machine(command: str):
    def inject(rig, client, rng):
        sandbox(command, rig.droplet)
    return inject


def full(inodes: bool = False):
    def inject(rig, client, rng):
        sandbox("fill", rig.droplet, str(rng.choice([0, 0, 65536, 1 << 20])))
        time.sleep(rng.uniform(2, 8))
        sandbox("unfill", rig.droplet)
    return inject


def inodes_short(rig):
    sandbox("fill", rig.droplet, "--inodes", "24000")  # that many take seconds: the rest is quick, at the instant


def inodes_gone(rig, client, rng):
    sandbox("fill", rig.droplet, "--inodes")
    time.sleep(rng.uniform(2, 8))
    sandbox("unfill", rig.droplet)


def read_only(rig, client, rng):
    """Its disk fails, and somebody turns the machine off and on."""
    sandbox("read-only", rig.droplet)
    time.sleep(rng.uniform(1, 8))
    sandbox("power-loss", rig.droplet)


def second(rig, client, rng):
    other = Client(rig.project, "deploy", "prod", NEW if rng.random() < 0.5 else OLD, "--lease", f"{rig.lease}s", USER="grace")
    rig.second = (other, other.wait(120))


def other_host_key(rig, client, rng):
    """Somebody else answers when the client comes back."""
    rig.root("""cd /etc/ssh; mkdir -p /root/keys; cp -pn ssh_host_* /root/keys/; for kind in ed25519 ecdsa rsa; do rm -f ssh_host_${kind}_key*
        ssh-keygen -q -t $kind -N '' -f ssh_host_${kind}_key; done; systemctl reset-failed ssh; systemctl restart ssh""")
    rig.line.send("cut")


def own_host_key(rig):
    rig.root("[ ! -d /root/keys ] || { cp -p /root/keys/* /etc/ssh/; rm -r /root/keys; systemctl reset-failed ssh; systemctl restart ssh; }")


def abort(rig, client, rng):
    """By another person, from another machine; there may be nothing to abort."""
    Client(rig.project, "lock", "prod", "--abort", "--reason", "a fault", USER="grace").wait(90)


HOST = [
    Fault("host", "runner killed", kill_runner),
    Fault("host", "step killed", kill("apply.sh")),
    Fault("host", "compose and docker clients killed", kill("docker", "docker-compose")),
    Fault("host", "runner, steps and clients killed", kill("runner.sh", "apply.sh", "undo.sh", "docker", "docker-compose", "timeout")),
    Fault("host", "sshd and its sessions killed", kill("sshd", "sshd-session", "attach.sh")),
    Fault("host", "dockerd restarted", docker("systemctl restart docker"), restarted=EVERYTHING, answered_twice=True, machine=True, pairs=False),
    Fault("host", "dockerd killed", docker("systemctl kill -s KILL docker"), restarted=EVERYTHING, answered_twice=True, machine=True, pairs=False),
    Fault("host", "containerd killed", docker("systemctl kill -s KILL --kill-whom=main containerd"), restarted=EVERYTHING, answered_twice=True, machine=True, pairs=False),
    Fault("host", "reboot", machine("reboot"), restarted=EVERYTHING, answered_twice=True, machine=True, may_not_know=True, pairs=False),
    Fault("host", "crash of the machine", machine("crash"), restarted=EVERYTHING, answered_twice=True, machine=True, may_not_know=True, pairs=False),
    Fault("host", "power loss", machine("power-loss"), restarted=EVERYTHING, answered_twice=True, machine=True, may_not_know=True, pairs=False),
    Fault("host", "disk full", full(), lambda rig: sandbox("unfill", rig.droplet), answered_twice=True, pairs=False),
    Fault("host", "inodes exhausted", inodes_gone, lambda rig: sandbox("unfill", rig.droplet), inodes_short, answered_twice=True, pairs=False),
    Fault("host", "file system read-only, then off and on", read_only, restarted=EVERYTHING, answered_twice=True, machine=True, may_not_know=True, pairs=False),
    Fault("host", "second client", second, others=True, pairs=False),
    Fault("host", "lock --abort by another", abort, pairs=False),
    Fault("host", "another host key on the way back", other_host_key, own_host_key, may_not_know=True, pairs=False),
]


# ---- what is elsewhere. The registry is the whole sandbox's: for one droplet it is gone by a rule of that droplet's.

def registry(target: str, match: str = ""):
    rule = f"OUTPUT -p tcp --dport 5000 {match} -j {target}"
    return (lambda rig, client, rng: rig.root(f"iptables -I {rule}")), (lambda rig: rig.root(f"while iptables -D {rule} 2>/dev/null; do :; done"))


# Stands before the registry, with its certificate, and has nothing but errors.
ERRORS = """
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"errors":[{"code":"UNKNOWN","message":"a fault"}]}'
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_POST = do_GET
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/run/faults/crt", "/run/faults/key")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 5443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
REDIRECT = "OUTPUT -p tcp --dport 5000 -j REDIRECT --to-ports 5443"


def errors_ready(rig):
    rig.root("mkdir -p -m 700 /run/faults")
    for name in ("crt", "key"):
        rig.root(f"umask 077; cat >/run/faults/{name}", stdin=(Path(SETTINGS["SANDBOX_STATE"]) / f"ca/registry.{name}").read_text())
    rig.root("cat >/run/faults/server.py; systemd-run --quiet --collect --unit=faults-registry python3 /run/faults/server.py", stdin=ERRORS)


def errors_gone(rig):
    rig.root(f"while iptables -t nat -D {REDIRECT} 2>/dev/null; do :; done; systemctl stop faults-registry 2>/dev/null || :; rm -rf /run/faults")


def database_refuses(rig, client, rng):
    rig.sql("alter database market allow_connections false")
    time.sleep(rng.uniform(2, 8))
    database_accepts(rig)


def database_accepts(rig):
    rig.root(f'docker exec "$(docker ps -q --filter label=com.docker.compose.project={APP} --filter label=com.docker.compose.service=postgres)" '
             'psql -U market -d postgres -qc "alter database market allow_connections true"')


def locked_table(rig, client, rng):
    rig.sql(f"begin; lock table users in access exclusive mode; select pg_sleep({rng.uniform(1, 9):.1f}); commit", check=False)


def backend_killed(rig, client, rng):
    for _ in range(40):
        if rig.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'orch-%'", check=False):
            break


def database_silent(rig, client, rng):
    rig.root(f"kill -STOP $(docker inspect -f '{{{{.State.Pid}}}}' {rig.container('postgres')})")
    time.sleep(rng.uniform(1, 6))
    database_speaks(rig)


def database_speaks(rig):
    rig.root(f"kill -CONT $(docker inspect -f '{{{{.State.Pid}}}}' {rig.container('postgres')})")


REMOTE = [
    Fault("remote", "registry refuses", *registry("REJECT --reject-with tcp-reset")),
    Fault("remote", "registry silent", *registry("DROP")),
    Fault("remote", "registry loses two packets of three", *registry("DROP", "-m statistic --mode random --probability 0.66")),
    Fault("remote", "registry answers 500", lambda rig, client, rng: rig.root(f"iptables -t nat -I {REDIRECT}"), errors_gone, errors_ready, pairs=False),
    Fault("remote", "database refuses connections", database_refuses, database_accepts, pairs=False),
    Fault("remote", "table locked", locked_table),
    Fault("remote", "backends killed", backend_killed),
    Fault("remote", "database takes no connection", database_silent, database_speaks, pairs=False),
]

FAULTS = [*CLIENT, *NETWORK, *HOST, *REMOTE]
