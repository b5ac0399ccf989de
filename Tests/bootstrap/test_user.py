"""packages and user on a fresh droplet."""

import subprocess
import threading
import time

import pytest

pytestmark = pytest.mark.sandbox


def install(host, *names):
    return host.apply("packages", {"INSTALL": " ".join(f"'{name}'" for name in names)}, timeout=600)


class TestPackages:
    def test_missing_ones_are_planned_and_installed_once(self, droplet):
        planned = droplet.plan("packages", {"INSTALL": "'jq' 'bash' 'ufw'"})
        assert planned.subjects == ["create package jq", "create package ufw"]
        assert not droplet.exists("/usr/bin/jq")
        assert install(droplet, "jq", "bash", "ufw").subjects == planned.subjects
        began = time.monotonic()
        assert install(droplet, "jq", "bash", "ufw").changes == []
        assert time.monotonic() - began < 2
        assert droplet.plan("packages", {"INSTALL": "'jq' 'bash' 'ufw'"}).changes == []
        droplet.run("apt-get -qq remove --yes jq")
        assert droplet.plan("packages", {"INSTALL": "'jq' 'bash'"}).subjects == ["create package jq"]

    def test_waits_for_both_locks_of_apt(self, droplet):
        # What unattended-upgrades does on a droplet's first minutes.
        hold = ("python3 -c 'import fcntl, time; files = [open(p, \"w\") for p in (\"/var/lib/dpkg/lock-frontend\", \"/var/lib/apt/lists/lock\")];"
                " [fcntl.lockf(f, fcntl.LOCK_EX) for f in files]; print(\"held\", flush=True); time.sleep(6)'")
        other = subprocess.Popen(droplet.ssh() + [hold], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert other.stdout.readline() == b"held\n"
        step = install(droplet, "jq")
        other.wait()
        assert "waiting" in step.output and step.subjects == ["create package jq"]

    def test_an_interrupted_installation_is_finished(self, droplet):
        droplet.run("dpkg --remove jq >/dev/null; cd /tmp && apt-get -qq download jq && dpkg --unpack jq_*.deb >/dev/null")
        step = install(droplet, "jq")
        assert "interrupted" in step.output
        assert droplet.sh("echo '[1]' | jq '.[0]'") == "1"

    def test_what_there_is_not_is_named(self, droplet):
        step = droplet.apply("packages", {"INSTALL": "'no-such-package-here'"}, check=False)
        assert step.status == 1 and "no-such-package-here" in step.output
        assert droplet.apply("packages", {"INSTALL": "'jq; reboot'"}, check=False).status == 1

    def test_waits_for_cloud_init(self, droplet):
        # There is none in the sandbox: a stand-in that takes its time and ends with errors that it recovered from.
        droplet.write("/usr/local/bin/cloud-init", "#!/bin/sh\nsleep 2; echo 'status: done'; exit 2\n", 0o755)
        try:
            began = time.monotonic()
            step = install(droplet, "jq")
            assert time.monotonic() - began > 2 and "status 2" in step.output
            droplet.run("mkdir -p /run/cloud-init; : >/run/cloud-init/result.json")
            assert "cloud-init" not in install(droplet, "jq").output
        finally:
            droplet.run("rm -rf /usr/local/bin/cloud-init /run/cloud-init")


KEYS = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"]


def accounts(host):
    return host.sh(f"cat {' '.join(KEYS)}; ls -A /etc/sudoers.d /home; ls /var/lib/orchestrate-host/bootstrap | grep keys || :")


class TestUser:
    params = {"NAME": "deploy", "SUDO": 1, "REVERT": 120}

    def test_planned_made_and_again(self, droplet):
        install(droplet, "sudo")
        before = accounts(droplet)
        planned = droplet.plan("user", self.params)
        assert planned.subjects == [
            "create user deploy", "create file /etc/sudoers.d/90-orchestrate-deploy", "create directory /home/deploy/.ssh",
            "create file /home/deploy/.ssh/authorized_keys"]
        assert accounts(droplet) == before
        assert not droplet.reaches("deploy")
        step = droplet.apply("user", self.params)
        assert step.changes == planned.changes
        assert droplet.sh("systemctl list-timers --all --no-legend 'orchestrate-revert-*' | wc -l") == "1"
        assert droplet.reaches("deploy", "sudo -n true"), droplet.said
        disarm = droplet.apply("disarm", {"STEP": "01-user"}, number=int(step.directory.split("/")[-2]), nn=2)
        assert disarm.changes == []
        assert droplet.sh("systemctl list-timers --all --no-legend 'orchestrate-revert-*' | wc -l") == "0"
        assert droplet.plan("user", self.params).changes == []
        again = droplet.apply("user", self.params)
        assert again.changes == [] and "undone by the host" not in again.output
        again.undo()
        assert droplet.reaches("deploy", "sudo -n true")
        step.undo()
        step.undo()
        # The time stamps of passwords aside, which the tools of shadow write.
        assert accounts(droplet) == before
        assert not droplet.reaches("deploy")

    @pytest.mark.parametrize("seconds", [0.05, 0.15, 0.3, 0.5, 0.8])
    def test_killed_and_undone(self, droplet, seconds):
        before = accounts(droplet)
        step = droplet.apply("user", self.params, check=False, kill_after=seconds)
        step.undo()
        assert accounts(droplet) == before

    def test_each_drift_is_named_and_mended(self, droplet):
        droplet.apply("user", self.params).host
        key = droplet.sh("cat /root/.ssh/authorized_keys")
        drifts = {
            "a key added": ("echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHDFhfU4rUsfKmJ5em5qNGuBJcongrgYNwiHIFAzeX1 mallory' "
                            ">>~deploy/.ssh/authorized_keys", ["update file /home/deploy/.ssh/authorized_keys"]),
            "keys readable": ("chmod 666 ~deploy/.ssh/authorized_keys", ["update file /home/deploy/.ssh/authorized_keys"]),
            "home writable": ("chmod 777 ~deploy", ["update directory /home/deploy"]),
            "a second key file": ("cp /root/.ssh/authorized_keys ~deploy/.ssh/authorized_keys2", ["delete file /home/deploy/.ssh/authorized_keys2"]),
            "shell": ("usermod -s /usr/sbin/nologin deploy", ["update user deploy"]),
            "password": ("echo deploy:secret1 | chpasswd", ["update user deploy"]),
            "expired": ("chage -E 2020-01-01 deploy", ["update user deploy"]),
            "sudoers": ("echo >/etc/sudoers.d/90-orchestrate-deploy", ["update file /etc/sudoers.d/90-orchestrate-deploy"]),
        }
        for name, (command, subjects) in drifts.items():
            droplet.run(command)
            seen = droplet.sh("getent shadow deploy; getent passwd deploy")
            assert droplet.plan("user", self.params).subjects == subjects, name
            step = droplet.apply("user", self.params)
            assert step.subjects == subjects and droplet.plan("user", self.params).changes == [], name
            assert droplet.reaches("deploy", "sudo -n true"), name
            step.undo()
            assert droplet.sh("getent shadow deploy; getent passwd deploy") == seen
            assert droplet.plan("user", self.params).subjects == subjects, name
            droplet.apply("user", self.params)
        assert droplet.sh("cat ~deploy/.ssh/authorized_keys") == key

    def test_keys_of_the_inventory(self, droplet):
        droplet.apply("user", self.params)
        own = droplet.sh("cat /root/.ssh/authorized_keys")
        step = droplet.apply("user", self.params, {"keys": f"# two\n{own}\n"})
        assert droplet.sh("cat ~deploy/.ssh/authorized_keys").startswith("# two")
        assert droplet.plan("user", self.params, {"keys": f"# two\n{own}\n"}).changes == []
        step.undo()
        for bad in ("", "# none\n", "ssh-ed25519 AAAA broken\n", f"{own}\nnonsense\n"):
            refused = droplet.apply("user", self.params, {"keys": bad}, check=False)
            assert refused.status == 1 and "key" in refused.output and refused.facts == {}
        assert droplet.sh("cat ~deploy/.ssh/authorized_keys") == own

    def test_a_key_that_does_not_work_is_reverted_by_the_host(self, droplet):
        """The runner and the client are gone: nobody undoes, nobody disarms."""
        droplet.apply("user", self.params)
        wrong = droplet.sh("ssh-keygen -q -t ed25519 -N '' -f /tmp/wrong </dev/null; cat /tmp/wrong.pub")
        step = droplet.apply("user", {**self.params, "REVERT": 4}, {"keys": wrong + "\n"})
        assert not droplet.reaches("deploy")
        droplet.until(lambda: droplet.reaches("deploy", "sudo -n true"), "the old key opens again", 30)
        droplet.until(lambda: droplet.exists(f"{step.directory}/saved/restored-000"), "the undo's end", 10)
        late = droplet.apply("disarm", {"STEP": "01-user"}, number=int(step.directory.split("/")[-2]), nn=2, check=False)
        assert late.status == 1 and "Too late" in late.output
        step.undo()
        assert droplet.plan("user", self.params).changes == []

    def test_a_link_in_the_home_leads_nowhere(self, droplet):
        droplet.apply("user", self.params)
        droplet.run("mkdir /etc/precious; mv ~deploy/.ssh ~deploy/.ssh.old; ln -s /etc/precious ~deploy/.ssh")
        try:
            step = droplet.apply("user", self.params, check=False)
            assert step.status == 1 and "symbolic link" in step.output
            step.undo()
            assert droplet.sh("ls -A /etc/precious; stat -c '%U %a' /etc/precious") == "root 755"
        finally:
            droplet.run("rm ~deploy/.ssh; mv ~deploy/.ssh.old ~deploy/.ssh; rmdir /etc/precious")
        assert droplet.plan("user", self.params).changes == []

    def test_without_sudo(self, droplet):
        step = droplet.apply("user", {**self.params, "SUDO": 0})
        assert step.subjects == ["delete file /etc/sudoers.d/90-orchestrate-deploy"]
        assert not droplet.reaches("deploy", "sudo -n true")
        step.undo()
        assert droplet.reaches("deploy", "sudo -n true")
