"""What else people use for a command on a host, or on fifty: how each is installed, and how it is asked."""
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from hosts import CIPHER, KEX, MAC

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / ".build/bench"


def install():
    """The peers of PyPI in an environment of their own, once; the C floor. Returns the folder of their programs."""
    wanted = hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()
    stamp, bin_folder = BUILD / "requirements.sha256", BUILD / "venv/bin"
    BUILD.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(BUILD / "venv", ignore_errors=True)
        run([sys.executable, "-m", "venv", BUILD / "venv"])
        run([bin_folder / "python", "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"])
        stamp.write_text(wanted)
    if os.geteuid() == 0 and not Path("/usr/share/doc/ruby-ed25519").exists():
        run(["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "install", "--yes", "--no-install-recommends",
             "ruby-sshkit", "ruby-ed25519", "ruby-bcrypt-pbkdf"])
    floor = BUILD / "floor"
    if not floor.exists() or floor.stat().st_mtime < (HERE / "floor.c").stat().st_mtime:
        run(["cc", "-O2", "-Wall", "-o", floor, HERE / "floor.c", "-lssh2"])
    return bin_folder


def run(command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {shlex.join(str(word) for word in command)} failed\n{done.stdout}{done.stderr}")
    return done.stdout


class Peers:
    """Each contender's command line for the mark on some of the hosts."""

    def __init__(self, hosts, binary, programs):
        self.hosts, self.binary, self.programs = hosts, binary, programs
        home = hosts.home
        (home / "ansible.cfg").write_text(
            f"[defaults]\nforks = 50\nhost_key_checking = True\ninterpreter_python = /usr/bin/python3\nlocal_tmp = {home}/ansible\n"
            f"[ssh_connection]\nssh_args = -F {home}/ssh_config -o ControlMaster=auto -o ControlPersist=2s -o ControlPath={home}/cm-%C\n"
            "pipelining = True\n")
        (home / "fabric.yml").write_text("timeouts: { connect: 30 }\n")
        self.environment = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(home), "ANSIBLE_CONFIG": str(home / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1", "LANG": "C.UTF-8", "USER": "root",
            **{name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}}

    def _script(self, name, hosts, nonce):
        python = "ruby" if name.endswith(".rb") else self.programs / "python"
        names = [self.hosts.addresses[self.hosts.names.index(host)] for host in hosts]
        return [python, HERE / name, self.hosts.home, self.hosts.at, f"{KEX} {CIPHER} {MAC}", f"{self.hosts.mark} {nonce}", *names]

    def commands(self, hosts, nonce):
        """{contender: argv} for one host or several."""
        home, mark = self.hosts.home, [str(self.hosts.mark), nonce]
        text = shlex.join(mark)
        addresses = [self.hosts.addresses[self.hosts.names.index(host)] for host in hosts]
        inventory = ",".join(hosts) + ","
        found = {"orchestrate": [self.binary, "ssh", "bench", hosts[0], "--project", home / "project", "--", *mark]}
        if len(hosts) > 1:
            found["orchestrate"] = [self.binary, "ssh", "bench", "--all-hosts", "--project", home / "project", "--", *mark]
        found["C floor"] = [BUILD / "floor", self.hosts.key, "root", self.hosts.at, text, *addresses]
        for name, configuration in (("ssh", "ssh_config"), ("ssh, as delivered", "ssh_config.default")):
            if len(hosts) == 1:
                found[name] = ["ssh", "-F", home / configuration, hosts[0], text]
            else:
                found[f"xargs -P50 {name}"] = [
                    "sh", "-c", 'c=$1 t=$2; shift 2; printf "%s\\n" "$@" | xargs -P50 -I% ssh -F "$c" % "$t"', "sh", home / configuration, text, *hosts]
        found["asyncssh"] = self._script("peer_asyncssh.py", hosts, nonce)
        found["parallel-ssh"] = self._script("peer_pssh.py", hosts, nonce)
        found["fabric"] = self._script("peer_fabric.py", hosts, nonce)
        if shutil.which("ruby"):
            found["sshkit"] = self._script("peer_sshkit.rb", hosts, nonce)
        (home / "pyinfra_hosts.py").write_text(
            "hosts = " + repr([(host, {"ssh_hostname": address, "ssh_port": self.hosts.at, "ssh_user": "root", "ssh_key": str(self.hosts.key),
                                       "ssh_known_hosts_file": str(home / "known_hosts"), "ssh_strict_host_key_checking": "yes"})
                               for host, address in zip(hosts, addresses, strict=True)]) + "\n")
        found["pyinfra"] = [self.programs / "pyinfra", "-y", home / "pyinfra_hosts.py", "exec", "--", *mark]
        for module in ("raw", "command"):
            found[f"ansible -m {module}"] = [self.programs / "ansible", "-i", inventory, "all", "-m", module, "-a", text]
        return found

    def versions(self):
        """What is compared, by name and version."""
        listed = dict(line.split("==") for line in run([self.programs / "python", "-m", "pip", "freeze"]).splitlines() if "==" in line)
        names = [line.split("==")[0] for line in (HERE / "requirements.txt").read_text().splitlines() if "==" in line]
        ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip()
        ruby = subprocess.run(["dpkg-query", "-W", "-f", "sshkit ${Version}", "ruby-sshkit"], capture_output=True, text=True).stdout
        return [ssh, *(f"{name} {listed.get(name, '?')}" for name in names), *([ruby] if ruby else [])]
