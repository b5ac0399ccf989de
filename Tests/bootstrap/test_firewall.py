"""firewall on a fresh droplet with Docker: what answers to somebody outside, over IPv4 and IPv6, before and after everything that reloads rules."""

import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import assignments, sandbox
from test_user import install

pytestmark = pytest.mark.sandbox
PARAMS = {"ALLOW": "80/tcp 443/tcp", "REVERT": 120}
FILES = "/etc/default/ufw /etc/ufw/ufw.conf /etc/ufw/user.rules /etc/ufw/user6.rules /etc/ufw/after.rules /etc/ufw/after6.rules"
NETWORK = f"orchestrate-v6-{os.getpid()}"
SCANNED = (22, 80, 443, 8080, 8081, 8082, 8083)


def engine(*arguments, check=True):
    environment = {**os.environ, "DOCKER_HOST": assignments(sandbox("env").stdout)["DOCKER_HOST"]}
    return subprocess.run(["docker", *arguments], env=environment, check=check, capture_output=True, text=True).stdout.strip()


def answers(address, port):
    """What somebody outside reads there; None if nothing answers."""
    try:
        with socket.create_connection((address, port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(200)
    except OSError:
        return None


def open_ports(address):
    with ThreadPoolExecutor(len(SCANNED)) as pool:
        return {port for port, answer in zip(SCANNED, pool.map(lambda port: answers(address, port), SCANNED)) if answer}


def rules(host):
    """The kernel's rules but for Docker's and ufw's empty chains."""
    return host.sh("for t in iptables ip6tables; do $t -S | grep -v -e ufw -e DOCKER-ISOLATION -e '-A DOCKER -d' | sort; done")


def disarm(host, step):
    return host.apply("disarm", {"STEP": "01-firewall"}, number=int(step.directory.split("/")[-2]), nn=2)


def start_containers(host):
    """web (80 and 8080 published to it), and echo: 8083; all on addresses of every kind."""
    host.run("docker rm -f web echo peer >/dev/null 2>&1; docker network inspect six >/dev/null 2>&1 || docker network create --ipv6 --subnet fd00:77::/64 six >/dev/null",
             check=False)
    host.run("docker run -d --restart always --name web --network six -p 80:80 -p 8080:80 box httpd -f -p 80 -h / >/dev/null &&"
             "docker run -d --restart always --name echo -p 8083:7 box nc -ll -p 7 -e cat >/dev/null")


@pytest.fixture(scope="module")
def host(droplet):
    install(droplet, "ufw", "docker.io", "docker-cli", "iptables", "busybox-static")
    droplet.run("mkdir -p /etc/systemd/system/docker.service.d && printf '[Service]\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1\n' "
                ">/etc/systemd/system/docker.service.d/sandbox.conf && systemctl daemon-reload && systemctl restart docker")
    droplet.run("mkdir /tmp/box && cd /tmp/box && mkdir bin tmp etc && cp /bin/busybox bin && echo hello >index.html &&"
                "for a in sh httpd nc wget cat nslookup ping; do ln -s busybox bin/$a; done && tar -c . | docker import - box >/dev/null")
    engine("network", "create", "--label", "orchestrate.sandbox=network", "--subnet", "10.84.254.0/24", "--ipv6", "--subnet", "fd00:5a::/64", NETWORK)
    engine("network", "connect", NETWORK, f"orchestrate-droplet-{droplet.name}")
    # On the host itself: 8082 is nobody's business outside.
    droplet.write("/etc/systemd/system/own.service", "[Service]\nExecStart=/bin/busybox httpd -f -p 8082 -h /tmp\n[Install]\nWantedBy=multi-user.target\n")
    droplet.run("systemctl daemon-reload; systemctl enable --now -q own.service")
    start_containers(droplet)
    yield droplet
    engine("network", "disconnect", "-f", NETWORK, f"orchestrate-droplet-{droplet.name}", check=False)
    engine("network", "rm", NETWORK, check=False)


@pytest.fixture(scope="module")
def six(host):
    """The droplet's address of the sixth version."""
    return host.sh("ip -6 -o addr show scope global | awk '/fd00:5a/ { print $4 }' | cut -d/ -f1")


def assert_containers_work(host):
    """They reach out, resolve names, and talk to each other."""
    dns = host.sh("sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1")
    web = host.sh("docker inspect -f '{{.NetworkSettings.Networks.six.IPAddress}} {{.NetworkSettings.Networks.six.GlobalIPv6Address}}' web").split()
    host.run(f"docker run --rm box nslookup registry.test {dns}")
    for address in (web[0], f"[{web[1]}]"):
        host.run(f"docker run --rm --network six box sh -c 'wget -q -T 5 -O- http://{address}/index.html | grep hello'")
    # From the host to a container, by its address and by the published port.
    host.run(f"/bin/busybox wget -q -T 5 -O- http://{web[0]}/index.html; /bin/busybox wget -q -T 5 -O- http://127.0.0.1:8080/index.html")


def test_the_hole_is_there_before(host, six):
    for address in (host.address, six):
        host.until(lambda: open_ports(address) == {22, 80, 8080, 8082, 8083}, f"everything answers on {address}", 20)


def test_planned_on_made_again_undone(host, six):
    before = host.sh(f"cat {FILES}"), rules(host)
    planned = host.plan("firewall", PARAMS)
    assert planned.subjects == ["update file /etc/ufw/after.rules", "update file /etc/ufw/after6.rules", "update firewall rules", "update firewall"]
    assert (host.sh(f"cat {FILES}"), rules(host)) == before
    with socket.create_connection((host.address, 8083), 5) as established:
        established.sendall(b"one")
        assert established.recv(9) == b"one"
        step = host.apply("firewall", PARAMS)
        assert step.changes == planned.changes
        established.settimeout(5)
        established.sendall(b"two")
        assert established.recv(9) == b"two", "a connection that stands goes on"
    assert host.reaches("root"), host.said
    disarm(host, step)
    assert open_ports(host.address) == {22, 80} and open_ports(six) == {22, 80}
    assert_containers_work(host)
    assert host.plan("firewall", PARAMS).changes == []
    assert host.apply("firewall", PARAMS).changes == []
    step.undo()
    step.undo()
    assert host.sh(f"cat {FILES}") == before[0]
    assert rules(host) == before[1]
    assert {80, 8080, 8082} <= open_ports(host.address)
    assert_containers_work(host)


@pytest.fixture
def up(host):
    disarm(host, host.apply("firewall", PARAMS))
    return host


def test_only_what_is_allowed_answers_after_everything_that_reloads(up, six):
    def holds():
        up.until(lambda: 80 in open_ports(up.address), "the published port", 40)
        assert open_ports(up.address) == {22, 80} and open_ports(six) == {22, 80}
        assert_containers_work(up)
        assert up.plan("firewall", PARAMS).changes == []

    holds()
    up.run("ufw reload")
    holds()
    up.run("systemctl reset-failed docker; systemctl restart docker")
    holds()
    up.run("systemctl restart ufw")
    holds()
    up.run("docker rm -f web echo >/dev/null")
    start_containers(up)
    holds()
    up.reboot()
    holds()


def test_a_container_is_not_reached_past_its_published_ports(up):
    """Somebody in the same network who routes to the containers' own addresses."""
    inside = up.sh("docker inspect -f '{{.NetworkSettings.Networks.six.IPAddress}}' web")
    subprocess.run(["ip", "route", "add", f"{inside}/32", "via", up.address], check=True)
    try:
        assert answers(inside, 80) is None
    finally:
        subprocess.run(["ip", "route", "del", f"{inside}/32", "via", up.address], check=True)


def test_each_drift_is_named_and_mended(up, six):
    drifts = {
        "a rule added": ("ufw allow 8082/tcp", "- allow tcp 8082 0.0.0.0/0 in"),
        "a rule from one address": ("ufw insert 1 allow from 10.1.2.3 to any port 8082 proto tcp", "- allow tcp 8082 0.0.0.0/0 any 10.1.2.3 in"),
        "a forwarding rule": ("ufw route allow proto tcp to 10.1.2.4 port 99", "- route:allow tcp 99 10.1.2.4 in"),
        "a rule removed": ("ufw delete allow 443/tcp", "+ allow tcp 443 0.0.0.0/0 in"),
        "a rule denied": ("ufw deny 80/tcp", "- deny tcp 80 0.0.0.0/0 in"),
        "off": ("ufw disable", "~ off -> on"),
        "policy": ("ufw default allow incoming", '- DEFAULT_INPUT_POLICY="ACCEPT"'),
        "the containers' rules flushed": ("iptables -F DOCKER-USER", "+ iptables: DOCKER-USER -o docker0 -j DROP"),
        "the containers' rules edited": ("sed -i '/ctorigdstport 443/d' /etc/ufw/after.rules", None),
        "a rule in the kernel only": ("iptables -I DOCKER-USER -j ACCEPT", "- iptables: DOCKER-USER -j ACCEPT"),
        "not at boot": ("systemctl --quiet disable ufw", "~ not started at boot -> started"),
        "input open": ("iptables -P INPUT ACCEPT", "~ iptables: INPUT lets in what no rule names -> it drops that"),
    }
    for name, (command, line) in drifts.items():
        up.run(command)
        seen = up.sh(f"cat {FILES}"), rules(up)
        planned = up.plan("firewall", PARAMS)
        told = [line for change in planned.changes for line in change["detail"]]
        assert planned.changes and (line is None or line in told), f"{name}: {planned.changes}"
        assert (up.sh(f"cat {FILES}"), rules(up)) == seen
        step = up.apply("firewall", PARAMS)
        assert step.changes == planned.changes, name
        assert up.plan("firewall", PARAMS).changes == [], name
        assert open_ports(up.address) == {22, 80} and open_ports(six) == {22, 80}, name
        step.undo()
        # ufw numbers and orders as it likes; what the files say is what they said.
        assert up.sh(f"cat {FILES}") == seen[0], name
        disarm(up, up.apply("firewall", PARAMS))
    assert_containers_work(up)


def test_another_set_of_ports(up, six):
    step = up.apply("firewall", {"ALLOW": "8080/tcp 5000:5010/udp", "REVERT": 120})
    assert open_ports(up.address) == {22, 8080} and open_ports(six) == {22, 8080}
    assert up.plan("firewall", {"ALLOW": "8080/tcp 5000:5010/udp"}).changes == []
    step.undo()
    assert up.plan("firewall", PARAMS).changes == []


def test_nobody_disarms_and_the_host_opens_again(host):
    host.run("ufw disable; iptables -F DOCKER-USER; ip6tables -F DOCKER-USER", check=False)
    before = host.sh(f"cat {FILES}"), rules(host)
    step = host.apply("firewall", {**PARAMS, "REVERT": 4})
    assert 8080 not in open_ports(host.address)
    host.until(lambda: 8080 in open_ports(host.address), "the old state", 30)
    host.until(lambda: (host.sh(f"cat {FILES}"), rules(host)) == before, "everything is as it was", 20)
    step.undo()
    assert (host.sh(f"cat {FILES}"), rules(host)) == before


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.3, 2.0, 3.0])
def test_killed_and_undone(host, seconds):
    host.run("ufw disable; iptables -F DOCKER-USER; ip6tables -F DOCKER-USER", check=False)
    before = host.sh(f"cat {FILES}"), rules(host)
    step = host.apply("firewall", PARAMS, check=False, kill_after=seconds)
    assert host.reaches("root")
    step.undo()
    assert (host.sh(f"cat {FILES}"), rules(host)) == before


def test_what_is_no_port_is_refused(host):
    for allow in ("80", "http", "80/icmp", "x/tcp", "1:/tcp;/tcp"):
        step = host.apply("firewall", {"ALLOW": allow}, check=False)
        assert step.status == 1 and "Not a port to allow" in step.output
