"""Local hosts for the transport's benches: one sshd of our own, reached at as many addresses as hosts are wanted, at once or over a slow line."""
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEX = "curve25519-sha256"
CIPHER = "aes128-ctr"  # the fastest that libssh2 1.10 has
MAC = "hmac-sha2-256"
PINNED = {"KexAlgorithms": KEX, "Ciphers": CIPHER, "MACs": MAC, "HostKeyAlgorithms": "ssh-ed25519", "Compression": "no"}

# Says who was reached, where it can be counted: the address by which the client came, whether by way of the slow line or not.
MARK = """#!/bin/sh
case $SSH_CONNECTION in "127.0.0.1 "*) set -- "$1" $SSH_CONNECTION; host=$4 ;; *) host=${SSH_CONNECTION%% *} ;; esac
echo "$1" >>"${0%/*}/marks/$host"
echo "$1"
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path], check=True)


class Hosts:
    """`count` hosts h1, h2, … at 127.1.0.1, 127.1.0.2, …, which are all this machine. `home` has the keys and configurations."""

    def __init__(self, home, count, stack):
        self.home, self.count = home, count
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin:" + os.environ["PATH"])
        if sshd is None:
            sys.exit("bench: there is no sshd: script/setup installs it")
        for name in ("id", "host"):
            keygen(home / name)
        (home / "empty").mkdir()
        shutil.copy(home / "id.pub", home / "authorized_keys")
        self.key = home / "id"
        self.port = free_port()
        Path("/run/sshd").mkdir(exist_ok=True)
        pinned = "\n".join(f"{name} {value}" for name, value in PINNED.items() if name not in ("Compression", "KexAlgorithms"))
        (home / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 0.0.0.0\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized_keys\nPidFile none\n"
            f"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 1000\nMaxSessions 200\nPrintMotd no\n"
            # A home without start-up files: what a user's .bashrc does isn't what is measured.
            f"Subsystem sftp internal-sftp\nCompression no\nSetEnv HOME={home}/empty\n{pinned}\n")
        self.sshd = subprocess.Popen(
            [sshd, "-D", "-e", "-f", home / "sshd_config"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(home / "sshd.log", "wb"))  # noqa: SIM115 the server's
        stack.callback(self.sshd.wait)
        stack.callback(self.sshd.terminate)
        proxy = subprocess.Popen(
            [ROOT / "sandbox/delay-proxy", "0.0.0.0:0", str(self.port), "--keep-address", "--control", "0"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True)
        stack.callback(proxy.wait)
        stack.callback(proxy.terminate)
        self.slow_port = int(proxy.stdout.readline().split()[2])
        self.control = proxy.stdout.readline().split()[2]
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.addresses = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]
        host_key = " ".join((home / "host.pub").read_text().split()[:2])
        (home / "known_hosts").write_text(
            "".join(f"[{address}]:{port} {host_key}\n" for address in self.addresses for port in (self.port, self.slow_port)))
        self.mark = home / "mark"
        self.mark.write_text(MARK)
        self.mark.chmod(0o755)
        self.use(0)
        self.await_sshd()

    def await_sshd(self):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"bench: sshd doesn't come up: {(self.home / 'sshd.log').read_text()}")

    def use(self, round_trip_ms):
        """What is written from here on leads over a line of this length; zero is the direct one."""
        self.delay = round_trip_ms
        self.at = self.slow_port if round_trip_ms else self.port
        subprocess.run(
            [ROOT / "sandbox/delay-proxy", "send", self.control, "delay", str(round_trip_ms / 2)], check=True, stdout=subprocess.DEVNULL)
        common = (f"IdentityFile {self.key}\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {self.home}/known_hosts\n"
                  f"GlobalKnownHostsFile none\nStrictHostKeyChecking yes\nUser root\nPort {self.at}\nBatchMode yes\nLogLevel ERROR\n"
                  "ControlPath none\nUpdateHostKeys no\n")
        hosts = "".join(f"Host {name}\nHostName {address}\n" for name, address in zip(self.names, self.addresses, strict=True))
        pins = "".join(f"{name} {value}\n" for name, value in PINNED.items())
        (self.home / "ssh_config").write_text(f"{hosts}Host *\n{common}{pins}")
        # As it is delivered, but for the server's cipher: OpenSSH's own order of key exchanges.
        (self.home / "ssh_config.default").write_text(f"{hosts}Host *\n{common}")
        project = self.home / "project"
        (project / "inventories").mkdir(parents=True, exist_ok=True)
        (project / "compose.yml").write_text("services: { app: { image: app } }\n")
        lines = "".join(f"  {name}: {{ address: {address}, port: {self.at}, user: root, roles: [app] }}\n"
                        for name, address in zip(self.names, self.addresses, strict=True))
        (project / "inventories/bench.yml").write_text(
            f"app: bench\nhosts:\n{lines}ssh: {{ identity: {self.key}, known_hosts: {self.home}/known_hosts }}\n"
            "compose: compose.yml\nservices: { app: [app] }\n")

    def reached(self, nonce):
        """The addresses at which the command has run, once each, with this word."""
        found = set()
        for file in (self.home / "marks").iterdir():
            if file.read_text().split().count(nonce) == 1:
                found.add(file.name)
        return found

    def forget(self):
        shutil.rmtree(self.home / "marks", ignore_errors=True)
        (self.home / "marks").mkdir()
