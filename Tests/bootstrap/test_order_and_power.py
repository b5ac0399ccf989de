"""The steps one after the other on one droplet, as a bootstrap runs them: Docker comes after the firewall. Then the power goes, and undo follows."""

import pytest
from conftest import sandbox
from test_firewall import FILES, answers
from test_user import accounts, install

pytestmark = pytest.mark.sandbox

STEPS = [
    ("user", {"NAME": "deploy", "SUDO": 1}),
    ("ssh-hardening", {"PORT": "", "ROOT_LOGIN": 1}),
    ("firewall", {"ALLOW": "80/tcp"}),
    ("file", {"FILE": "/etc/motd.d-orchestrate", "MODE": "0644"}),
]


def apply_all(host):
    done, number = [], next(host.numbers)
    for nn, (kind, params) in enumerate(STEPS, 1):
        done.append(host.apply(kind, params, {"content": "hello\n"} if kind == "file" else {}, number=number, nn=nn))
    return done


def disarm_all(host, steps):
    for step in steps:
        host.apply("disarm", {"STEP": step.directory.split("/")[-1]}, number=int(step.directory.split("/")[-2]), nn=9)


def state(host):
    return (accounts(host), host.sh(f"cat {FILES}; cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*; sshd -T; ls -A /etc | grep -v '.-$'"),
            host.sh("for t in iptables ip6tables; do $t -S | grep -v -e ufw -e '-N DOCKER-USER' | sort; done"))


@pytest.fixture(scope="module")
def host(droplet):
    install(droplet, "sudo", "ufw", "iptables")
    droplet.run("sync")  # a machine that was up for a while
    return droplet


def test_undone_after_a_power_loss(host):
    before = state(host)
    steps = apply_all(host)
    # The runner has fsynced the steps' directories before it started them; nothing else is helped.
    host.run(f"find {steps[0].directory}/.. -name '*.sh' -o -name params | xargs sync")
    host.disconnect()
    sandbox("power-loss", host.name)
    assert host.sh("ls /run/systemd/transient 2>/dev/null | grep -c orchestrate-revert || :") in ("", "0")
    for step in reversed(steps):
        step.undo()
    for was, now in zip(before, state(host)):
        assert now.splitlines() == was.splitlines()


def test_all_then_docker_and_nothing_to_change(host):
    disarm_all(host, apply_all(host))
    assert host.reaches("deploy", "sudo -n true")
    install(host, "docker.io", "docker-cli", "busybox-static")
    host.run("mkdir -p /etc/systemd/system/docker.service.d && printf '[Service]\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1\n' "
             ">/etc/systemd/system/docker.service.d/sandbox.conf && systemctl daemon-reload && systemctl restart docker")
    host.run("mkdir /tmp/box && cd /tmp/box && mkdir bin tmp etc && cp /bin/busybox bin && echo hello >index.html && ln -s busybox bin/httpd &&"
             "tar -c . | docker import - box >/dev/null && docker run -d --restart always -p 80:80 -p 8080:80 box httpd -f -p 80 -h / >/dev/null")
    host.until(lambda: answers(host.address, 80), "the allowed port", 20)
    assert answers(host.address, 8080) is None
    for kind, params in STEPS:
        assert host.plan(kind, params, {"content": "hello\n"} if kind == "file" else {}).changes == [], kind
    host.run("sync")  # Docker's and dpkg's; the steps' own were on disk before
    host.disconnect()
    sandbox("power-loss", host.name)
    host.until(lambda: answers(host.address, 80), "the allowed port", 40)
    assert answers(host.address, 8080) is None
    for kind, params in STEPS:
        assert host.plan(kind, params, {"content": "hello\n"} if kind == "file" else {}).changes == [], kind
