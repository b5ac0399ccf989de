"""The step docker on a fresh droplet: from no Docker at all to drift, merging, refusals, restarts beside deployments and containers, and undo."""

import json
import time

import pytest
from conftest import SHELLS
from system_cycle import Deployment, applied, content, mended, plan, settled

pytestmark = pytest.mark.sandbox

FILE = "/etc/docker/daemon.json"
WANTED = {
    "live-restore": True,
    "log-driver": "journald",
    "default-address-pools": [{"base": "10.201.0.0/16", "size": 24}],
}
PARAMS = {"USER": "shipper"}
FILES = {"daemon.json": json.dumps(WANTED, indent=2) + "\n"}
UPDATE, RESTART, RELOAD = f"update file {FILE}", "run restart of docker", "run reload of docker"


@pytest.fixture(scope="module")
def bare(droplet):
    # Docker 26 refuses to publish ports where IPv6 is half there, as in a container.
    droplet.write("/etc/systemd/system/docker.service.d/sandbox.conf", "[Service]\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1\n")
    droplet.sh("useradd -m shipper; rm -f /etc/docker/daemon.json; systemctl daemon-reload")
    return droplet


class TestFromNothing:
    def test_plan_apply_and_nothing_left_to_do(self, bare):
        planned = plan(bare, "docker", PARAMS, FILES)
        assert planned.subjects == [
            *(f"create package {name}" for name in ("jq", "docker.io", "iptables", "docker-cli", "docker-compose")), f"create file {FILE}", "update user shipper"]
        detail = next(change["detail"] for change in planned.changes if change["subject"] == f"file {FILE}")
        assert '+   "live-restore": true,' in detail
        # The user may be planned as well.
        assert plan(bare, "docker", {"USER": "later"}, FILES).subjects[-1] == "update user later"
        step = bare.apply("docker", PARAMS, FILES)
        assert step.changes == planned.changes
        # No restart: its first start found the file.
        assert bare.sh("systemctl show -p NRestarts --value docker; docker info --format '{{.LiveRestoreEnabled}} {{.LoggingDriver}}'") == "0\ntrue journald"
        assert bare.sh("ip -4 -o addr show docker0").find("10.201.") > 0
        bare.sh("docker compose version && su shipper -c 'docker ps'")
        settled(bare, "docker", PARAMS, FILES)

    def test_undo_of_the_first_one(self, bare):
        step = bare.apply("docker", {"USER": "shipper"}, {"daemon.json": json.dumps({**WANTED, "live-restore": False})})
        assert step.subjects == [UPDATE, RELOAD]
        step.undo()
        settled(bare, "docker", PARAMS, FILES)


@pytest.fixture(scope="module")
def docker(bare):
    """Docker as TestFromNothing has left it, an image, and room for restarts."""
    bare.apply("docker", PARAMS, FILES)
    bare.sh("""apt-get -qq -y --no-install-recommends install busybox >/dev/null 2>&1
d=$(mktemp -d); mkdir -p $d/bin; cp /bin/busybox $d/bin/; ln -s busybox $d/bin/sleep; ln -s busybox $d/bin/sh
for l in $(ldd /bin/busybox | grep -o '/[^ ]*'); do mkdir -p $d$(dirname $l); cp -L $l $d$l; done
tar -C $d -c . | docker import -c 'CMD ["/bin/sleep","6000"]' -c 'ENV PATH=/bin' - still >/dev/null; rm -rf $d""")
    return bare


@pytest.fixture
def own(docker):
    """daemon.json as the step wants it, before and after."""
    docker.apply("docker", PARAMS, FILES)
    yield docker
    docker.sh("rm -rf /var/lib/orchestrate; systemctl reset-failed docker || :")
    docker.write(FILE, FILES["daemon.json"])
    docker.apply("docker", PARAMS, FILES)


def write(host, value):
    """daemon.json, and Docker lives by it."""
    host.write(FILE, value if isinstance(value, str) else json.dumps(value))
    host.sh("systemctl reset-failed docker; systemctl restart docker")


def info(host):
    return host.sh("docker info --format '{{.LiveRestoreEnabled}} {{.LoggingDriver}} {{json .DefaultAddressPools}}'")


class TestDrift:
    @pytest.mark.parametrize("drift, subjects", [
        (f"chmod 666 {FILE}", [UPDATE]),
        (f"chown shipper: {FILE}", [UPDATE]),
        (f"sed -i s/journald/local/ {FILE}", [UPDATE]),
        (f"sed -i s/journald/local/ {FILE}; systemctl restart docker", [UPDATE, RESTART]),
        (f"sed -i 's/: true/: false/' {FILE}", [UPDATE]),
        (f"sed -i 's/: true/: false/' {FILE}; systemctl reload docker; sleep 1", [UPDATE, RELOAD]),
        (f"rm {FILE}", [f"create file {FILE}"]),
        ("systemctl -q disable docker.service", ["update service docker.service"]),
        ("systemctl -q stop docker.socket docker.service", ["update service docker.service"]),
        ("systemctl -q stop docker.socket docker.service; systemctl -q mask docker.service", ["update service docker.service"]),
        ("gpasswd -d shipper docker", ["update user shipper"]),
    ])  # fmt: skip
    def test_is_named_and_mended(self, own, drift, subjects):
        own.sh("systemctl reset-failed docker")
        mended(own, "docker", PARAMS, FILES, drift, subjects)
        assert info(own) == 'true journald [{"Base":"10.201.0.0/16","Size":24}]'

    def test_a_daemon_that_lives_by_something_else_than_its_file(self, own):
        own.sh(f"cp {FILE} /run/kept; echo '{{}}' >{FILE}; systemctl restart docker; cat /run/kept >{FILE}")
        assert settled_after(own) == [RESTART]

    def test_a_plan_does_not_start_a_stopped_docker(self, own):
        own.sh("systemctl -q stop docker.service")  # its socket listens on
        plan(own, "docker", PARAMS, FILES)
        assert own.sh("systemctl is-active docker.service", check=False) == "inactive"


def settled_after(host):
    step = host.apply("docker", PARAMS, FILES)
    settled(host, "docker", PARAMS, FILES)
    return step.subjects


class TestMerge:
    def test_members_of_others_stay(self, own):
        theirs = {"registry-mirrors": ["https://mirror.test"], "log-driver": "json-file", "log-opts": {"max-size": "1m"}, "builder": {"gc": {"enabled": True}},
                  "max-concurrent-downloads": 5}
        write(own, theirs)
        before = content(own, "/etc/docker"), info(own)
        planned = plan(own, "docker", PARAMS, FILES)
        assert planned.subjects == [UPDATE, RESTART]
        step = own.apply("docker", PARAMS, FILES)
        merged = json.loads(own.read(FILE))
        # Options of another log driver would be errors in this one.
        assert merged == {key: value for key, value in theirs.items() if key != "log-opts"} | WANTED
        assert list(merged)[:2] == ["registry-mirrors", "log-driver"], "in their order"
        assert "  for default-address-pools live-restore log-driver log-opts" in step.changes[1]["detail"]
        settled(own, "docker", PARAMS, FILES)
        step.undo()
        assert (content(own, "/etc/docker"), info(own)) == before
        step.undo()
        assert (content(own, "/etc/docker"), info(own)) == before

    def test_options_of_the_same_driver_stay(self, own):
        write(own, {"log-driver": "journald", "log-opts": {"tag": "x"}})
        own.apply("docker", PARAMS, FILES)
        assert json.loads(own.read(FILE))["log-opts"] == {"tag": "x"}

    def test_the_same_in_another_layout_is_left_alone(self, own):
        own.write(FILE, json.dumps({"debug": False, **WANTED}, indent=8))
        settled(own, "docker", PARAMS, FILES)
        own.write(FILE, "")
        assert plan(own, "docker", PARAMS, FILES).subjects == [UPDATE]

    def test_a_file_kept_from_others_is_neither_opened_nor_shown(self, own):
        write(own, {**WANTED, "proxies": {"http-proxy": "http://me:canary-secret@proxy.test:1"}, "live-restore": False})
        own.sh(f"chmod 600 {FILE}")
        step = own.apply("docker", PARAMS, FILES)
        assert "canary" not in step.output + str(step.facts) and own.sh(f"stat -c %a {FILE}") == "600"
        assert step.changes[0]["detail"] == ["~ the content differs"]


class TestRefusals:
    """Nothing is written, and Docker goes on."""

    def refused(self, host, files=FILES, params=PARAMS):
        before = content(host, "/etc/docker"), info(host), host.sh("systemctl show -p MainPID docker")
        said = []
        for which in (host.plan, host.apply):
            step = which("docker", params, files, check=False)
            assert step.status == 1
            said.append(step.output)
            assert (content(host, "/etc/docker"), info(host), host.sh("systemctl show -p MainPID docker")) == before
        step.undo()
        assert (content(host, "/etc/docker"), info(host), host.sh("systemctl show -p MainPID docker")) == before
        return said[-1]

    @pytest.mark.parametrize("text, why", [
        ('{"debug": true,}', "not a JSON object"), ('{"debug": tr', "not a JSON object"), ("[]", "not a JSON object"), ("{} {}", "not a JSON object"), ("null", "not a JSON object"),
        ('{"no-such-member": 1}', "no-such-member"),
        ('{"hosts": ["tcp://127.0.0.1:1"]}', "hosts"),
        ('{"max-concurrent-downloads": "many"}', "dockerd refuses"),
    ])  # fmt: skip
    def test_a_file_that_nobody_can_merge_or_use(self, own, text, why):
        own.write(FILE, text)
        said = self.refused(own)
        assert why in said and FILE in said and "Nothing was written" in said

    def test_a_wanted_one_that_is_none(self, own):
        assert "wanted daemon.json" in self.refused(own, {"daemon.json": "[]"})

    def test_a_user_who_is_not_there(self, own):
        step = own.apply("docker", {"USER": "nobody-here"}, FILES, check=False)
        assert step.status == 1 and "no user nobody-here" in step.output

    def test_a_swarm(self, own):
        without = {"daemon.json": json.dumps({**WANTED, "live-restore": False})}
        own.apply("docker", PARAMS, without)
        own.sh("docker swarm init --advertise-addr 127.0.0.1")
        try:
            assert "swarm" in self.refused(own)
            settled(own, "docker", PARAMS, without)
        finally:
            own.sh("docker swarm leave --force")

    def test_what_docker_does_not_start_with_is_undone(self, own):
        """dockerd --validate doesn't look at a log driver's options."""
        step = own.apply("docker", PARAMS, {"daemon.json": json.dumps({**WANTED, "log-opts": {"no-such-option": "1"}})}, check=False)
        assert step.status == 1 and "no-such-option" in step.output
        step.undo()
        assert info(own) == 'true journald [{"Base":"10.201.0.0/16","Size":24}]'
        settled(own, "docker", PARAMS, FILES)


class TestDeployments:
    OTHER = {"daemon.json": json.dumps({**WANTED, "log-driver": "local"})}

    @pytest.fixture
    def deploying(self, own):
        own.sh("install -d -o shipper -g shipper -m 750 /var/lib/orchestrate")
        deployment = Deployment(own)
        yield own
        deployment.end()

    def test_a_restart_is_refused_and_says_for_whom(self, deploying):
        before = content(deploying, "/etc/docker"), deploying.sh("systemctl show -p MainPID docker")
        step = deploying.apply("docker", PARAMS, self.OTHER, check=False)
        assert step.status == 1 and "shop: ada@laptop, deploy v1.2" in step.output and "Nothing was changed" in step.output
        step.undo()
        assert (content(deploying, "/etc/docker"), deploying.sh("systemctl show -p MainPID docker")) == before
        assert plan(deploying, "docker", PARAMS, self.OTHER).subjects == [UPDATE, RESTART]

    def test_a_reload_needs_no_lock(self, deploying):
        step = deploying.apply("docker", PARAMS, {"daemon.json": json.dumps({**WANTED, "max-concurrent-downloads": 4})})
        assert step.subjects == [UPDATE, RELOAD]

    def test_a_deployment_that_comes_during_the_restart_is_told(self, own):
        own.sh("install -d -o shipper -g shipper -m 750 /var/lib/orchestrate; cp /usr/bin/systemctl /run/systemctl")
        own.write("/usr/local/sbin/systemctl", "#!/bin/sh\n[ \"$1 $2\" != 'restart docker.service' ] || { cat /var/lib/orchestrate/holder >/run/told; "
                  "su shipper -c 'exec 8>>/var/lib/orchestrate/lock; flock -s -n 8 || echo locked' >>/run/told; }\nexec /usr/bin/systemctl \"$@\"\n", 0o755)
        try:
            own.apply("docker", PARAMS, self.OTHER)
        finally:
            own.sh("rm /usr/local/sbin/systemctl")
        told = own.read("/run/told")
        assert "orchestrate bootstrap" in told and told.endswith("locked\n")
        own.sh("su shipper -c 'exec 8>>/var/lib/orchestrate/lock; flock -s -n 8'; ! ls /var/lib/orchestrate/holder")


class TestContainers:
    """What runs goes on, through every restart, and also where live-restore comes only now, and goes with the undo."""

    def test_apply_and_undo(self, own):
        write(own, {"log-driver": "local"})
        own.sh("docker rm -f s1 >/dev/null 2>&1; docker run -d --name s1 --restart unless-stopped still")
        state = "docker inspect -f '{{.State.StartedAt}} {{.RestartCount}} {{.State.Running}} {{.State.Pid}}' s1"
        before, live = own.sh(state), info(own)
        step = own.apply("docker", PARAMS, FILES)
        assert step.subjects == [UPDATE, RESTART]
        assert own.sh(state) == before
        step.undo()
        assert own.sh(state) == before and info(own) == live and json.loads(own.read(FILE)) == {"log-driver": "local"}
        own.sh("docker rm -f s1")

    def test_a_killed_dockerd(self, own):
        own.sh("docker run -d --name s2 --restart unless-stopped still")
        before = own.sh("docker inspect -f '{{.State.StartedAt}} {{.State.Running}}' s2")
        own.sh("systemctl kill -s KILL docker; sleep 1")
        own.until(lambda: own.run("docker info", check=False).status == 0, "Docker is back")
        assert own.sh("docker inspect -f '{{.State.StartedAt}} {{.State.Running}}' s2") == before
        own.sh("docker rm -f s2")

    def test_logs_stay_readable_over_a_recreate(self, own):
        """Why journald: what an earlier container of the name has said is still there."""
        for text in ("hello-1", "hello-2"):
            own.sh(f"docker rm -f s3 >/dev/null 2>&1; docker run --name s3 still sh -c 'echo {text}'")
        own.sh("journalctl --sync")
        own.until(lambda: {"hello-1", "hello-2"} <= set(own.sh("journalctl -q -o cat CONTAINER_NAME=s3").split()), "both lines", 10)
        assert own.sh("docker logs s3") == "hello-2"
        own.sh("docker rm -f s3")


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.4, 0.6, 0.8, 1.1, 1.5, 2.2])
def test_killed_anywhere_and_undone(own, seconds):
    old = {"log-driver": "local", "debug": False}
    write(own, old)
    own.sh("gpasswd -d shipper docker")
    before = content(own, "/etc/docker"), info(own)
    step = own.apply("docker", PARAMS, FILES, check=False, prelude=f"setsid -w timeout -s KILL {seconds}")
    print(step.status, step.output)
    step.undo(prelude=f"setsid -w timeout -s KILL {2.4 - seconds:.1f}", check=False)
    step.undo()
    own.until(lambda: own.run("docker info", check=False).status == 0, "Docker answers")
    assert (content(own, "/etc/docker"), info(own)) == before
    assert "docker" not in own.sh("id -nG shipper").split()
    settled_after(own)


def test_a_daemon_that_falls_over_its_file_comes_back_with_the_wanted_one(own):
    own.write(FILE, json.dumps({"log-driver": "no-such-driver"}))
    own.sh("systemctl restart docker", check=False)
    settled_after(own)
    assert info(own) == 'true journald [{"Base":"10.201.0.0/16","Size":24}]'


def test_under_busybox_sh(own):
    shell, own.shell = own.shell, SHELLS[1]
    try:
        write(own, {"log-driver": "local", "debug": False})
        step = applied(own, "docker", PARAMS, FILES)
        step.undo()
        assert json.loads(own.read(FILE)) == {"log-driver": "local", "debug": False}
    finally:
        own.shell = shell


def test_a_look_takes_no_time(own):
    began = time.monotonic()
    settled(own, "docker", PARAMS, FILES)
    print(f"two plans' and one apply's worth of looking: {time.monotonic() - began:.2f} s")
