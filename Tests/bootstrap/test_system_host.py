"""directories, sysctl, log-retention, updates, time and swap on a fresh droplet, which is a container: no swap and no clock of its own.

What a container can't have is tried with the programs that would tell so replaced, in /usr/local/sbin; the kernel's side of it is not.
"""

import json
import subprocess
import threading
import time

import pytest
from conftest import HOST, SHELLS
from system_cycle import Deployment, applied, content, mended, plan, settled

sandboxed = pytest.mark.sandbox


@pytest.fixture(scope="module")
def host(droplet):
    # Their timers are switched off in a droplet's image; no test wants a real run of theirs in between.
    droplet.sh("apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install busybox tzdata unattended-upgrades >/dev/null 2>&1")
    return droplet


@pytest.fixture
def tool(host):
    """A program that comes before the machine's own."""
    made = []

    def make(name, text):
        host.write(f"/usr/local/sbin/{name}", "#!/bin/sh\n" + text + "\n", 0o755)
        made.append(name)

    yield make
    host.sh("rm -f " + " ".join(f"/usr/local/sbin/{name}" for name in made))


@pytest.fixture
def virtual(tool):
    tool("systemd-detect-virt", "echo none; exit 1")


@sandboxed
class TestDirectories:
    PARAMS = {"USER": "shipper", "PROJECT": "shop"}

    def test_needs_the_user_but_a_plan_does_not(self, host):
        assert plan(host, "directories", self.PARAMS).subjects == [
            "create directory /var/lib/orchestrate", "create directory /var/lib/orchestrate/shop", "create directory /opt/shop"]
        step = host.apply("directories", self.PARAMS, check=False)
        assert step.status == 1 and "no user shipper" in step.output
        assert not host.exists("/opt/shop")

    def test_cycle(self, host):
        host.sh("id shipper >/dev/null 2>&1 || useradd -m shipper; useradd other || :")
        before = content(host, "/var/lib/orchestrate /opt")
        step = applied(host, "directories", self.PARAMS)
        assert host.sh("stat -c '%U:%G %a' /var/lib/orchestrate /var/lib/orchestrate/shop /opt/shop | sort -u") == "shipper:shipper 750"
        mended(host, "directories", self.PARAMS, None, "chmod 777 /opt/shop", ["update directory /opt/shop"])
        mended(host, "directories", self.PARAMS, None, "chown root:root /var/lib/orchestrate/shop", ["update directory /var/lib/orchestrate/shop"])
        mended(host, "directories", self.PARAMS, None, "rmdir /opt/shop", ["create directory /opt/shop"])
        inode = host.sh("touch /var/lib/orchestrate/lock; chown other: /var/lib/orchestrate/lock; stat -c %i /var/lib/orchestrate/lock")
        lock = mended(host, "directories", self.PARAMS, None, "true", ["update file /var/lib/orchestrate/lock"])
        assert host.sh("stat -c '%i %U' /var/lib/orchestrate/lock") == f"{inode} shipper", "who holds it must go on holding it"
        lock.undo()
        assert host.sh("stat -c %U /var/lib/orchestrate/lock") == "other"
        host.sh("rm /var/lib/orchestrate/lock")
        step.undo()
        step.undo()
        assert content(host, "/var/lib/orchestrate /opt") == before

    @pytest.mark.parametrize("project", ["", "../etc", "lock", "-x", "A"])
    def test_refuses_what_is_no_project(self, host, project):
        step = host.plan("directories", {"USER": "root", "PROJECT": project}, check=False)
        assert step.status == 1 and "project" in step.output


@sandboxed
class TestSysctl:
    FILE = "/etc/sysctl.d/60-orchestrate.conf"
    VALUES = {"values": "# both of the network's own namespace\nnet.ipv4.tcp_keepalive_time = 611\nnet/ipv4/ip_local_port_range=20000   50000\n"}
    FILES = ["create file /etc/sysctl.d/60-orchestrate.conf"]

    def live(self, host):
        return host.sh("cat /proc/sys/net/ipv4/tcp_keepalive_time /proc/sys/net/ipv4/ip_local_port_range").replace("\t", " ")

    def test_cycle(self, host):
        before = content(host, "/etc/sysctl.d"), self.live(host)
        step = applied(host, "sysctl", {}, self.VALUES)
        assert step.subjects == [*self.FILES, "update kernel setting net/ipv4/tcp_keepalive_time", "update kernel setting net/ipv4/ip_local_port_range"]
        assert step.changes[1]["detail"] == ["- 7200", "+ 611"]
        assert self.live(host) == "611\n20000 50000"
        mended(host, "sysctl", {}, self.VALUES, "echo 5 >/proc/sys/net/ipv4/tcp_keepalive_time", ["update kernel setting net/ipv4/tcp_keepalive_time"])
        mended(host, "sysctl", {}, self.VALUES, f"echo x=1 >>{self.FILE}", [f"update file {self.FILE}"])
        mended(host, "sysctl", {}, self.VALUES, f"chmod 666 {self.FILE}", [f"update file {self.FILE}"])
        step.undo()
        step.undo()
        assert (content(host, "/etc/sysctl.d"), self.live(host)) == before

    def test_in_a_container_the_machines_settings_stay(self, host):
        before = host.sh("cat /proc/sys/vm/swappiness")
        values = {"values": f"vm.swappiness={int(before) + 1}\n"}
        step = host.apply("sysctl", {}, values)
        assert "container (docker)" in step.output and "only written" in step.output
        assert step.subjects == self.FILES and host.sh("cat /proc/sys/vm/swappiness") == before
        settled(host, "sysctl", {}, values)
        step.undo()

    def test_what_the_kernel_does_not_know_or_refuses(self, host, virtual):
        step = host.apply("sysctl", {}, {"values": "net.ipv4.no_such_thing=1\n"}, check=False)
        assert step.status == 1 and "no setting net.ipv4.no_such_thing" in step.output and not host.exists(self.FILE)
        step = host.apply("sysctl", {}, {"values": "net.ipv4.tcp_keepalive_time=many\n"}, check=False)
        assert step.status == 1 and "refuses net/ipv4/tcp_keepalive_time" in step.output
        step.undo()
        assert not host.exists(self.FILE)

    @pytest.mark.parametrize("line", ["net.ipv4.tcp_keepalive_time", "=1", "../x=1", "a..b=1", "net.x="])
    def test_malformed_values_are_named(self, host, line):
        step = host.plan("sysctl", {}, {"values": "# head\n" + line + "\n"}, check=False)
        assert step.status == 1 and "Line 2" in step.output

    def test_a_later_file_that_wins_at_boot_is_told(self, host):
        host.write("/etc/sysctl.d/99-x.conf", "-net/ipv4/tcp_keepalive_time = 700\n")
        assert "99-x.conf sets net.ipv4.tcp_keepalive_time = 700" in host.plan("sysctl", {}, self.VALUES).output
        host.sh("rm /etc/sysctl.d/99-x.conf")


@sandboxed
class TestLogRetention:
    PARAMS = {"DAYS": 14, "SIZE": "1G"}
    FILE = "/etc/systemd/journald.conf.d/zz-orchestrate.conf"
    RESTART = "run restart of systemd-journald"

    def test_cycle(self, host):
        before = content(host, "/etc/systemd")
        started = host.sh("systemctl show -p ExecMainStartTimestampMonotonic systemd-journald")
        step = applied(host, "log-retention", self.PARAMS)
        assert step.subjects == [f"create file {self.FILE}", self.RESTART]
        assert host.sh("systemctl show -p ExecMainStartTimestampMonotonic systemd-journald") != started
        # The droplet's own drop-in, sandbox.conf, asks for 128M and is read first.
        assert "SystemMaxUse=1G" in host.sh("systemd-analyze cat-config systemd/journald.conf | grep SystemMaxUse= | tail -n 1")
        host.sh("logger -t retention canary-line; journalctl --sync; journalctl -q -t retention | grep canary-line")
        mended(host, "log-retention", self.PARAMS, None, f"sed -i s/14day/1day/ {self.FILE}", [f"update file {self.FILE}", self.RESTART])
        mended(host, "log-retention", self.PARAMS, None, f"rm {self.FILE}", [f"create file {self.FILE}", self.RESTART])
        other = mended(host, "log-retention", {"DAYS": 7, "SIZE": "500M"}, None, "true", [f"update file {self.FILE}", self.RESTART])
        other.undo()
        settled(host, "log-retention", self.PARAMS)
        step.undo()
        step.undo()
        assert content(host, "/etc/systemd") == before
        host.sh("logger -t retention canary-after; journalctl --sync; journalctl -q -t retention | grep canary-after")

    def test_a_file_that_wins_is_named(self, host):
        step = host.apply("log-retention", self.PARAMS)
        winner = "/etc/systemd/journald.conf.d/zzz.conf"
        host.write(winner, "[Journal]\nSystemMaxUse = 1M\n")
        planned = plan(host, "log-retention", self.PARAMS)
        assert planned.changes == [{"action": "update", "subject": "settings of journald", "detail": [f"~ wins: SystemMaxUse=1M in {winner}"]}]
        failed = host.apply("log-retention", self.PARAMS, check=False)
        assert failed.status == 1 and winner in failed.output
        host.sh(f"rm {winner}")
        settled(host, "log-retention", self.PARAMS)
        step.undo()

    @pytest.mark.parametrize("params", [{"DAYS": "0", "SIZE": "1G"}, {"DAYS": "7d", "SIZE": "1G"}, {"DAYS": 7, "SIZE": "big"}, {"DAYS": 7, "SIZE": ""}])
    def test_refuses_what_journald_would_ignore(self, host, params):
        assert host.plan("log-retention", params, check=False).status == 1


@sandboxed
class TestUpdates:
    TIMERS = ["update service apt-daily.timer", "update service apt-daily-upgrade.timer"]

    def effective(self, host):
        return host.sh("apt-config dump | grep -E '^(APT::Periodic|Unattended-Upgrade::(Origins|Allowed|Automatic))'")

    def test_plan_without_the_package_tells_what_it_would_write(self, host):
        host.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge unattended-upgrades >/dev/null 2>&1 || :")
        subjects = plan(host, "updates").subjects
        assert "create file /etc/apt/apt.conf.d/zz-orchestrate" in subjects and subjects[-2:] == self.TIMERS
        step = host.apply("updates", check=False)
        assert step.status == 1 and "unattended-upgrades" in step.output
        assert not host.exists("/etc/apt/apt.conf.d/zz-orchestrate")

    def test_cycle(self, host):
        host.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install unattended-upgrades >/dev/null 2>&1")
        places = "/etc/apt /etc/systemd /usr/local"
        # A timer that was disabled and enabled again in between has its link spelled anew.
        before = content(host, places).replace("/usr/lib/systemd/", "/lib/systemd/")
        step = applied(host, "updates")
        settings = self.effective(host)
        assert 'Automatic-Reboot "false"' in settings and 'Unattended-Upgrade "1"' in settings
        assert [line for line in settings.splitlines() if "Pattern::" in line] == [
            'Unattended-Upgrade::Origins-Pattern:: "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";',
            'Unattended-Upgrade::Origins-Pattern:: "origin=Debian,codename=${distro_codename},label=Debian-Security";']
        assert "upgrade.sh /usr/lib/apt/apt.systemd.daily install" in host.sh("systemctl show -p ExecStart apt-daily-upgrade.service")
        assert host.sh("systemctl is-active apt-daily-upgrade.timer") == "active"
        assert "trixie-security" in host.sh("unattended-upgrade --dry-run -d 2>&1 | grep 'Allowed origins'", check=False)
        mended(host, "updates", None, None, "systemctl -q mask --now apt-daily-upgrade.timer", ["update service apt-daily-upgrade.timer"])
        mended(host, "updates", None, None, "systemctl -q disable --now apt-daily.timer", ["update service apt-daily.timer"])
        mended(host, "updates", None, None, "echo 'Unattended-Upgrade::Automatic-Reboot \"true\";' >>/etc/apt/apt.conf.d/zz-orchestrate",
               ["update file /etc/apt/apt.conf.d/zz-orchestrate"])
        mended(host, "updates", None, None, "chmod 777 /usr/local/lib/orchestrate/upgrade.sh", ["update file /usr/local/lib/orchestrate/upgrade.sh"])
        mended(host, "updates", None, None, "rm -r /etc/systemd/system/apt-daily-upgrade.service.d && systemctl daemon-reload",
               ["create directory /etc/systemd/system/apt-daily-upgrade.service.d", "create file /etc/systemd/system/apt-daily-upgrade.service.d/orchestrate.conf"])
        assert "upgrade.sh" in host.sh("systemctl show -p ExecStart apt-daily-upgrade.service")
        step.undo()
        step.undo()
        assert content(host, places).replace("/usr/lib/systemd/", "/lib/systemd/") == before
        assert "upgrade.sh" not in host.sh("systemctl show -p ExecStart apt-daily-upgrade.service")
        assert host.sh("systemctl is-enabled apt-daily.timer", check=False) == "masked"

    def test_a_setting_that_wins_is_named(self, host):
        step = host.apply("updates")
        host.write("/etc/apt/apt.conf.d/zzz", 'Unattended-Upgrade::Automatic-Reboot "true";\nUnattended-Upgrade::Origins-Pattern { "origin=Debian"; };\n')
        [change] = plan(host, "updates").changes
        assert change["subject"] == "settings of apt"
        assert change["detail"] == ['~ wins: Unattended-Upgrade::Automatic-Reboot "true";', '~ wins: Unattended-Upgrade::Origins-Pattern:: "origin=Debian";']
        failed = host.apply("updates", check=False)
        assert failed.status == 1 and "wins over" in failed.output
        host.sh("rm /etc/apt/apt.conf.d/zzz")
        settled(host, "updates")
        step.undo()


@sandboxed
class TestUpgradesAndDeployments:
    """The daily upgrade and a deployment wait for each other."""

    UPGRADE = "/bin/sh /usr/local/lib/orchestrate/upgrade.sh"

    @pytest.fixture
    def step(self, host):
        host.sh("id shipper >/dev/null 2>&1 || useradd -m shipper; install -d -o shipper -g shipper -m 750 /var/lib/orchestrate")
        step = host.apply("updates")
        yield step
        step.undo()
        host.sh("rm -rf /var/lib/orchestrate")

    def test_an_upgrade_waits_for_a_deployment_and_says_for_whom(self, host, step):
        deployment = Deployment(host)
        host.sh(f"nohup {self.UPGRADE} touch /run/upgraded >/run/upgrade.log 2>&1 &")
        host.until(lambda: "Waiting for a deployment: shop: ada@laptop, deploy v1.2" in host.read("/run/upgrade.log"), "it says so")
        assert not host.exists("/run/upgraded")
        deployment.end()
        host.until(lambda: host.exists("/run/upgraded"), "it goes on", 10)
        host.sh("rm -f /run/upgraded")

    def test_a_deployment_is_told_who_upgrades(self, host, step):
        host.sh(f"nohup {self.UPGRADE} sh -c 'until [ -e /run/go ]; do sleep 0.1; done' >/run/upgrade.log 2>&1 &")
        host.until(lambda: host.exists("/var/lib/orchestrate/holder"), "the holder")
        # The runner has no more rights than this user.
        assert host.sh("su shipper -c 'cat /var/lib/orchestrate/holder'").startswith('{"who":"unattended-upgrades"')
        assert host.run("su shipper -c 'exec 8>>/var/lib/orchestrate/lock; flock -s -n 8'", check=False).status == 1
        host.sh("touch /run/go")
        host.until(lambda: not host.exists("/var/lib/orchestrate/holder"), "it goes")
        host.sh("su shipper -c 'exec 8>>/var/lib/orchestrate/lock; flock -s -n 8'; rm /run/go")

    def test_systemctl_stop_does_not_free_the_lock_under_a_running_upgrade(self, host, step):
        """As systemd ends the service: only its main process gets SIGTERM."""
        pid = host.sh(f"nohup {self.UPGRADE} sh -c 'until [ -e /run/go ]; do sleep 0.1; done' >/run/upgrade.log 2>&1 & echo $!")
        host.until(lambda: host.exists("/var/lib/orchestrate/holder"), "the holder")
        host.sh(f"kill -TERM {pid}; sleep 0.5")
        assert host.run("flock -s -n /var/lib/orchestrate/lock true", check=False).status == 1
        host.sh("touch /run/go")
        host.until(lambda: host.run("flock -s -n /var/lib/orchestrate/lock true", check=False).status == 0, "it ends")
        host.sh("rm /run/go")

    def test_what_an_upgrade_leaves_behind_does_not_hold_the_lock(self, host, step):
        host.sh(f"{self.UPGRADE} sh -c 'sleep 30 >/dev/null 2>&1 & echo $! >/run/left'")
        host.sh("kill -0 $(cat /run/left) && flock -x -n /var/lib/orchestrate/lock true && kill $(cat /run/left)")

    def test_its_status_is_the_upgrades_own_and_without_deployments_it_just_runs(self, host, step):
        assert host.run(f"{self.UPGRADE} sh -c 'exit 3'", check=False).status == 3
        host.sh("rm -rf /var/lib/orchestrate")
        assert host.run(f"{self.UPGRADE} true", check=False).status == 0
        assert not host.exists("/var/lib/orchestrate")


@sandboxed
class TestTime:
    def test_cycle_of_the_zone_and_no_clock_in_a_container(self, host):
        host.sh("ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime; rm -f /etc/timezone")
        settled(host, "time", {"ZONE": "UTC"})  # another name of the same
        host.sh("rm /etc/localtime; mv /usr/share/zoneinfo /usr/share/zoneinfo.kept")
        settled(host, "time", {"ZONE": "Etc/UTC"})  # what a machine keeps without a file
        refused = host.apply("time", {"ZONE": "Europe/Berlin"}, check=False)
        assert refused.status == 1 and "tzdata" in refused.output
        assert plan(host, "time", {"ZONE": "Europe/Berlin"}).subjects == ["update time zone"]
        host.sh("mv /usr/share/zoneinfo.kept /usr/share/zoneinfo; ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime")
        params = {"ZONE": "Europe/Berlin"}
        step = applied(host, "time", params)
        assert step.changes == [{"action": "update", "subject": "time zone", "detail": ["- /usr/share/zoneinfo/Etc/UTC", "+ /usr/share/zoneinfo/Europe/Berlin"]}]
        assert "container (docker)" in step.output
        assert host.sh("date +%Z") in ("CET", "CEST")
        mended(host, "time", params, None, "ln -sfn /usr/share/zoneinfo/Asia/Tokyo /etc/localtime", ["update time zone"])
        mended(host, "time", params, None, "rm /etc/localtime", ["update time zone"])
        mended(host, "time", params, None, "echo Asia/Tokyo >/etc/timezone", ["update file /etc/timezone"])
        host.sh("rm /etc/timezone")
        file = mended(host, "time", params, None, "rm /etc/localtime; cp /usr/share/zoneinfo/Asia/Tokyo /etc/localtime", ["update time zone"])
        file.undo()
        assert host.sh("date +%Z; stat -c %F /etc/localtime") == "JST\nregular file"
        step.undo()
        step.undo()
        assert host.sh("readlink /etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"

    @pytest.mark.parametrize("zone", ["Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "Europe"])
    def test_refuses_what_is_no_zone(self, host, zone):
        assert host.plan("time", {"ZONE": zone}, check=False).status == 1

    def test_a_time_service_is_kept_running(self, host, virtual):
        step = host.apply("time", {"ZONE": ""}, check=False)
        unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
        host.write("/etc/systemd/system/chrony.service", unit)
        host.sh("systemctl daemon-reload")
        step = applied(host, "time", {"ZONE": ""})
        assert step.changes == [{"action": "update", "subject": "service chrony.service", "detail": ["- disabled, inactive", "+ enabled, running"]}]
        assert host.sh("systemctl is-enabled chrony; systemctl is-active chrony") == "enabled\nactive"
        mended(host, "time", {"ZONE": ""}, None, "systemctl -q stop chrony", ["update service chrony.service"])
        mended(host, "time", {"ZONE": ""}, None, "systemctl -q disable chrony", ["update service chrony.service"])
        step.undo()
        assert host.sh("systemctl is-enabled chrony; systemctl is-active chrony", check=False) == "disabled\ninactive"
        host.sh("rm /etc/systemd/system/chrony.service; systemctl daemon-reload")


# swapon and swapoff that only keep a list.
SWAPS = {
    "swapon": """case $1 in
--show=NAME,SIZE) while read -r name size; do [ "$name" = /other ] && echo "$name $size" || echo "$name $(($(stat -c %s "$name") - 4096))"; done </run/swaps ;;
--show=NAME) cut -d' ' -f1 /run/swaps ;;
*) blkid -p "$1" | grep -q 'TYPE="swap"' && [ "$(stat -c %a "$1")" = 600 ] && echo "$1" >>/run/swaps ;;
esac""",
    "swapoff": 'grep -vxF "$1" /run/swaps >/run/swaps.new; mv /run/swaps.new /run/swaps',
}


@sandboxed
class TestSwap:
    def test_a_container_has_none_and_that_is_said(self, host):
        step = applied(host, "swap", {"SIZE": 64})
        assert step.changes == [] and "container (docker)" in step.output
        assert not host.exists("/swapfile")

    @pytest.fixture
    def swaps(self, host, tool, virtual):
        """The kernel here gives a container no swap."""
        host.sh(": >/run/swaps; touch /etc/fstab")
        for name, text in SWAPS.items():
            tool(name, text)
        yield
        host.sh("rm -f /swapfile /run/swaps; : >/etc/fstab")

    def test_cycle(self, host, swaps):
        host.write("/etc/fstab", "# mine\n/dev/vda1 / ext4 defaults 0 1\n")
        before = host.read("/etc/fstab")
        step = applied(host, "swap", {"SIZE": 8})
        assert step.subjects == ["create swap file", "update file /etc/fstab"]
        assert host.sh("stat -c '%s %a %U' /swapfile; cat /run/swaps; tail -n 1 /etc/fstab") == "8388608 600 root\n/swapfile\n/swapfile none swap sw 0 0"
        mended(host, "swap", {"SIZE": 8}, None, "chmod 644 /swapfile", ["update swap file"])
        mended(host, "swap", {"SIZE": 8}, None, "swapoff /swapfile", ["update swap file"])
        mended(host, "swap", {"SIZE": 8}, None, "sed -i '/swap/d' /etc/fstab", ["update file /etc/fstab"])
        mended(host, "swap", {"SIZE": 8}, None, "swapoff /swapfile; rm /swapfile", ["create swap file"])
        larger = mended(host, "swap", {"SIZE": 12}, None, "true", ["update swap file"])
        larger.undo()
        settled(host, "swap", {"SIZE": 8})
        none = mended(host, "swap", {"SIZE": 0}, None, "true", ["delete swap file", "update file /etc/fstab"])
        assert not host.exists("/swapfile") and host.read("/etc/fstab") == before
        none.undo()
        settled(host, "swap", {"SIZE": 8})
        step.undo()
        step.undo()
        assert not host.exists("/swapfile") and host.read("/etc/fstab") == before and host.sh("cat /run/swaps") == ""

    def test_other_swap_is_enough(self, host, swaps):
        host.sh("echo '/other 8388608' >/run/swaps")
        assert "already" in settled(host, "swap", {"SIZE": 8}).output

    def test_somebody_elses_file_stays(self, host, swaps):
        host.sh("fallocate -l 1M /swapfile")
        assert "stays" in settled(host, "swap", {"SIZE": 0}).output
        assert host.exists("/swapfile")

    def test_a_disk_without_room_is_refused_before_anything(self, host, swaps):
        for number in (host.plan, host.apply):
            step = number("swap", {"SIZE": 999999}, check=False)
            assert step.status == 1 and "less than 1 GiB" in step.output
        assert not host.exists("/swapfile") and host.read("/etc/fstab") == ""


PROGRAMS = ("mv", "sync", "chown", "mkdir", "rm", "ln", "cp", "dd", "systemctl", "mkswap", "fallocate")


@sandboxed
@pytest.mark.parametrize("kind, params, files", [
    ("directories", {"USER": "root", "PROJECT": "shop"}, None),
    ("sysctl", {}, TestSysctl.VALUES),
    ("log-retention", TestLogRetention.PARAMS, None),
    ("time", {"ZONE": "Asia/Tokyo"}, None),
    ("updates", None, None),
    ("swap", {"SIZE": 2}, None),
])  # fmt: skip
def test_killed_at_a_program_and_undone(host, tool, virtual, kind, params, files):
    """SIGKILL for the whole group at the nth program that changes something; the undo is killed too, elsewhere, and run again."""

    def arm(at):
        host.sh(f"echo 0 >/run/counter; echo {at} >/run/at")

    def state():
        live = "cat /proc/sys/net/ipv4/tcp_keepalive_time /proc/sys/net/ipv4/ip_local_port_range /run/swaps; ls -l /swapfile 2>&1 | cut -c1-30"
        units = "systemctl show -p Id,UnitFileState,ActiveState apt-daily.timer apt-daily-upgrade.timer systemd-journald chrony"
        return content(host, "/etc /opt /usr/local/lib /var/lib/orchestrate"), host.sh(f"{live}; {units}")

    unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    host.write("/etc/systemd/system/chrony.service", unit)
    host.sh("systemctl daemon-reload; : >/run/swaps; touch /etc/fstab; echo UTC >/etc/timezone; ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime")
    for name, text in SWAPS.items():
        tool(name, text)
    before = state()
    for name in PROGRAMS:
        tool(name, f"""PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ -e /run/at ]; then
  read -r n </run/counter; n=$((n + 1)); echo $n >/run/counter
  if [ $n = "$(cat /run/at)" ]; then kill -KILL -$(ps -o pgid= -p $$ | tr -d ' '); fi
fi
exec {name} "$@" """)
    at = undo_at = 0
    while True:
        at += 3
        arm(at)
        step = host.apply(kind, params, files, check=False, prelude="setsid -w")
        killed = int(host.read("/run/counter")) == at
        undo_at = undo_at % 23 + 5
        arm(undo_at)
        host.script(step.directory, "undo", check=False, prelude="setsid -w")
        host.sh("/usr/bin/rm /run/at")  # by its path: it is none of the counted ones
        step.undo()
        assert state() == before, f"killed at {at}, its undo at {undo_at}"
        if not killed:
            assert step.status == 0, step.output
            break
    print(f"{kind}: killed at {at // 3 - 1} places")
    assert at > 3
    host.sh("rm /etc/systemd/system/chrony.service /etc/timezone; systemctl daemon-reload")


@sandboxed
def test_under_busybox_sh(host):
    """The scripts again, by the other shell."""
    shell, host.shell = host.shell, SHELLS[1]
    try:
        for kind, params, files in (("sysctl", {}, TestSysctl.VALUES), ("log-retention", TestLogRetention.PARAMS, None), ("time", {"ZONE": "Asia/Tokyo"}, None),
                                    ("directories", {"USER": "root", "PROJECT": "other"}, None), ("updates", None, None), ("swap", {"SIZE": 1}, None)):
            before = content(host, "/etc /opt /usr/local")
            step = applied(host, kind, params, files)
            step.undo()
            assert content(host, "/etc /opt /usr/local") == before, kind
    finally:
        host.shell = shell


# ---- without a droplet


@pytest.fixture(params=SHELLS, ids=" ".join)
def lock(request, tmp_path):
    """hostlock.sh over a directory of its own."""

    def run(text):
        head = f'. {HOST}/hostlock.sh\nset -eu\nhost_base={tmp_path}/base\n'
        done = subprocess.run([*request.param, "-c", head + text], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.returncode, (done.stdout + done.stderr).strip()

    run.base = tmp_path / "base"
    return run


class TestHostLock:
    def test_nothing_to_wait_for_where_nobody_has_deployed(self, lock):
        assert lock("lock_host 0 '{}'; unlock_host; echo well") == (0, "well")
        assert not lock.base.exists()

    def test_is_taken_told_and_given_back(self, lock):
        lock.base.mkdir()
        status, said = lock("""lock_host 0 '{"who":"me"}'; cat $host_base/holder; flock -s -n $host_base/lock true || echo held
unlock_host; flock -x -n $host_base/lock true && ls $host_base""")
        assert (status, said.split()) == (0, ['{"who":"me"}', "held", "lock"])

    def test_is_refused_while_somebody_deploys_and_waits_if_told_to(self, lock):
        lock.base.mkdir()
        (lock.base / "lock").touch()
        holder = subprocess.Popen(["flock", "-s", lock.base / "lock", "sh", "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
        assert lock("lock_host 0 '{}' || echo refused") == (0, "refused")
        assert not (lock.base / "holder").exists()
        threading.Timer(0.5, lambda: holder.communicate(b"\n")).start()
        began = time.monotonic()
        assert lock("lock_host forever '{}' && echo got") == (0, "got") and time.monotonic() - began > 0.3

    def test_names_live_holders_only(self, lock):
        for name in ("live", "dead", "none"):
            (lock.base / name).mkdir(parents=True)
            (lock.base / name / "lock").touch()
        for name in ("live", "dead"):
            text = {"who": f"ada@{name}", "from": "192.0.2.1", "reason": "fix it", "since": "2026-11-21T20:00:00Z", "command": "deploy", "version": "v1"}
            (lock.base / name / "holder").write_text(json.dumps(text, separators=(",", ":")) + "\n")
        holder = subprocess.Popen(["flock", lock.base / "live" / "lock", "sh", "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
        assert lock("host_holders") == (0, "live: ada@live, deploy v1 (fix it), since 2026-11-21T20:00:00Z")
        holder.communicate(b"\n")

    def test_a_link_in_its_place_is_not_opened(self, lock, tmp_path):
        lock.base.mkdir()
        (lock.base / "lock").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_text("x")
        status, said = lock("lock_host 0 '{}' || echo refused")
        assert status == 0 and "is not a file" in said and "refused" in said
