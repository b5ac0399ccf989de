"""boot.sh, which orchestrate@PROJECT.service runs: what it brings up, in which form, and when it leaves everything as it is. Docker is scripted."""

import fcntl
import json
import os
import subprocess
import tempfile

import pytest
from conftest import IDS, ROOT, SHELLS, Host, deployment, eventually, step

# Knows the containers of $HOME/containers ("id service state policy"), and keeps what it is asked to do in $HOME/calls.
DOCKER = r"""
cd "$HOME"
for last; do :; done
all=$*
case "$*" in
  version*) [ ! -e down ] ;;
  ps\ -aq*) s=${all#*compose.service=}; awk -v s="${s%% *}" '$2 == s { print $1 }' containers ;;
  ps*) awk '{ print $1, $2, $3 }' containers ;;
  inspect*Health*) echo 'running healthy' ;;
  inspect*State*) awk -v id="$last" '$1 == id { print $3, $4; f = 1 } END { exit !f }' containers ;;
  inspect*) awk -v id="$last" '$1 == id { print $4; f = 1 } END { exit !f }' containers ;;
  update*) echo "$*" >>calls ;;
  *) echo "no docker $*" >&2; exit 64 ;;
esac
"""
COMPOSE = r"""
cd "$HOME"
all=$*
case "$*" in
  *config\ --services) cat services ;;
  *\ up\ *)
    echo "up ${all##* up }" >>calls
    [ ! -e broken ] || { echo 'the image is gone' >&2; exit 1; }
    for s in ${all##*--pull never }; do
      if grep -q " $s " containers; then sed -i "s/^\([^ ]*\) $s [a-z]* /\1 $s running /" containers; else echo "new-$s $s running always" >>containers; fi
    done ;;
  *) echo "no compose $*" >&2; exit 64 ;;
esac
"""
UP = "up -d --no-recreate --no-deps --no-build --pull never"


class World:
    """A host with a release, whose Docker says what the test wants."""

    def __init__(self, host):
        self.host = host
        self.home = host.directory / "home"
        plugins = self.home / ".docker/cli-plugins"
        plugins.mkdir(parents=True)
        host.tool("docker", DOCKER)
        (plugins / "docker-compose").write_text("#!/bin/dash\n" + COMPOSE)
        (plugins / "docker-compose").chmod(0o755)
        self.services("bot", "postgres", "redis")
        self.containers("1 bot running always", "2 postgres running always", "3 redis running always")
        host.environment["HOME"] = str(self.home)
        for where in (self.home, *self.home.rglob("*")):
            if IDS:
                os.chown(where, IDS["user"], IDS["group"])

    def _put(self, name, lines):
        (self.home / name).write_text("".join(line + "\n" for line in lines))
        if IDS:
            os.chown(self.home / name, IDS["user"], IDS["group"])

    def services(self, *names):
        self._put("services", names)

    def containers(self, *lines):
        self._put("containers", lines)

    def put(self, path, text=""):
        path = self.host.opt / "current" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def calls(self):
        path = self.home / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def start(self):
        return self.host.start(f"{self.host.state}/bundle/boot.sh", self.host.project)

    def boot(self, status=0):
        process = self.start()
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, (out + err).decode()
        assert not (self.host.state / "holder").exists()
        assert self.host.lock_is_free()
        return (out + err).decode()


@pytest.fixture(params=SHELLS)
def world(request):
    host = Host(request.param, tempfile.mkdtemp(prefix="boot-"))
    made = World(host)
    assert host.connect().run(deployment())["outcome"] == "committed"
    made.put("effective.json", "{}\n")
    made.put("recreate/recreate", "'bot'\n")
    yield made
    host.close()


def test_what_runs_is_left_alone(world):
    assert "Release 1 runs." in world.boot()
    assert world.calls() == []


def test_what_stands_still_is_started_database_first(world):
    world.containers("1 bot exited unless-stopped", "2 postgres running always", "3 redis exited unless-stopped")
    assert "started redis bot" in world.boot()
    assert world.calls() == [f"{UP} postgres redis", f"{UP} bot"]


def test_what_is_gone_is_made_in_the_form_of_the_deploy(world):
    """Together with whom it was brought up: that is part of its config hash."""
    world.services("bot", "worker", "postgres", "redis")
    world.put("recreate/recreate", "'bot' 'worker'\n")
    assert "started worker" in world.boot()
    assert world.calls() == [f"{UP} bot worker"]


def test_what_only_migrates_is_never_started(world):
    world.services("bot", "postgres", "redis", "migrator")
    world.put("migrate", "SERVICE='migrator'\nPOLICY='compatible'\n")
    world.boot()
    assert world.calls() == []


def test_a_release_without_groups_on_record(world):
    """Of an older version of this tool: the migrating service is the app's own where a gate asks it."""
    (world.host.opt / "current/recreate/recreate").unlink()
    world.containers("2 postgres running always", "3 redis running always")
    world.put("migrate", "SERVICE='bot'\n")
    world.put("gates/health", "SERVICE='bot'\n")
    world.boot()
    assert world.calls() == [f"{UP} bot postgres redis"]


def test_a_service_that_left_the_release_is_not_started(world):
    world.services("postgres", "redis")
    world.containers("1 bot exited always", "2 postgres running always", "3 redis running always")
    world.boot()
    assert world.calls() == []


@pytest.mark.parametrize("state", ["restarting", "paused"])
def test_what_is_dockers_or_somebodys(world, state):
    world.containers(f"1 bot {state} always", "2 postgres running always", "3 redis running always")
    world.boot()
    assert world.calls() == []


def test_a_failure_is_tried_again_and_told(world):
    world.containers("1 bot exited always", "2 postgres running always", "3 redis running always")
    (world.home / "broken").touch()
    assert "the image is gone" in world.boot(1)
    assert world.calls() == [f"{UP} bot"] * 3


def test_a_restart_policy_that_the_commit_could_not_raise(world):
    world.containers("1 bot running no", "2 postgres running always", "3 redis running no")
    (world.host.state / "deployments/1/restart-policies").write_text("1 unless-stopped\n3 no\ngone always\n")
    world.boot()
    assert world.calls() == ["update --restart=unless-stopped 1"]


def test_nothing_deployed_and_a_damaged_release(world):
    (world.host.opt / "current/effective.json").unlink()
    assert "effective.json" in world.boot(78)
    (world.host.opt / "current").unlink()
    assert "Nothing is deployed" in world.boot()
    assert world.calls() == []


def test_what_is_open_is_left_as_it_is(world):
    """Its new containers, and the old ones that it stopped, are its undo's."""
    client = world.host.connect()
    client.open()
    client.send({**step("01-change", "", "", CHANGES=1), **step("02-gate", 'while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.05; done', "")})
    client.await_event("started", step="02-gate")
    os.kill(world.host.runner_pid(), 9)
    (world.host.opt / "go").touch()
    eventually(world.host.lock_is_free, "the lock")
    world.containers("1 bot exited always", "2 postgres running always", "3 redis running always")
    assert "Deployment 2 is not closed" in world.boot(1)  # tried again later: its recovery may be, too
    assert world.calls() == []
    assert world.host.connect().recover()[0] == "recovered"
    assert "started bot" in world.boot()


def test_what_is_stuck_waits_for_a_person(world):
    client = world.host.connect()
    client.open()
    client.send({**step("01-change", "false", "false", CHANGES=1)}, seal=True)
    assert client.await_event("closed")["outcome"] == "stuck"
    eventually(world.host.lock_is_free, "the lock")
    assert "Deployment 2 is not closed" in world.boot()


def test_a_deployment_that_runs_is_waited_for(world):
    client = world.host.connect()
    client.open()
    client.send({**step("01-gate", 'while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.05; done', "")})
    client.await_event("started", step="01-gate")
    world.containers("1 bot exited always", "2 postgres running always", "3 redis running always")
    process = world.start()
    line = process.stdout.readline()
    assert b"Waiting" in line
    assert world.calls() == []
    (world.host.opt / "go").touch()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and b"started bot" in out, out + err
    assert world.calls() == [f"{UP} bot"]


def test_a_bootstrap_or_an_upgrade_is_waited_for(world):
    """Whoever changes the host itself, Docker for one, holds the lock above the projects' own."""
    world.containers("1 bot exited always", "2 postgres running always", "3 redis running always")
    with open(world.host.base / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = world.start()
        assert b"Waiting" in process.stdout.readline()
        assert world.calls() == []
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and b"started bot" in out, out + err


def test_a_deploy_waits_for_the_start_without_being_told_to(world):
    world.containers("1 bot exited always", "2 postgres running always", "3 redis running always")
    compose = world.home / ".docker/cli-plugins/docker-compose"
    compose.write_text(compose.read_text().replace("echo \"up ", "sleep 1.5; echo \"up "))
    process = world.start()
    eventually(lambda: (world.host.state / "holder").exists(), "the holder")
    assert json.loads((world.host.state / "holder").read_text())["who"] == "the host itself"
    assert world.host.connect().open(wait=0)[0] == "granted"
    assert process.wait(10) == 0


def test_it_waits_for_docker(world):
    (world.home / "down").touch()
    process = world.start()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    (world.home / "down").unlink()
    assert process.wait(10) == 0


@pytest.mark.parametrize("base, names", [
    ("/var/lib/orchestrate", "orchestrate orchestrate-recover"),
    ("/var/lib/orchestrate-host", " orchestrate-host-recover"),
    ("/srv/ssh", "orchestrate-at-srv-ssh orchestrate-at-srv-ssh-recover"),
])
def test_units_are_named_by_their_base_directory(base, names):
    script = f'. {ROOT}/playbooks/host/boot-units.sh; unit_names {base}; echo "$app_unit $recover_unit"'
    for shell in SHELLS.values():
        done = subprocess.run([shell, *(["sh"] if shell.endswith("busybox") else []), "-euc", script], capture_output=True, text=True, check=True)
        assert done.stdout == names + "\n"


def test_units_say_whose_they_are():
    script = f'ORCH_BUNDLE={ROOT}/playbooks/host; . {ROOT}/playbooks/host/boot-units.sh; render_unit app ada /srv/state /srv/opt'
    text = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout
    for line in ("User=ada", "ConditionPathExists=/srv/opt/%i/current", "ExecStart=/bin/sh /srv/state/%i/bundle/boot.sh %i",
                 "Environment=LC_ALL=C ORCHESTRATE_STATE=/srv/state ORCHESTRATE_OPT=/srv/opt",
                 "After=docker.service orchestrate-at-srv-state-recover@%i.service"):
        assert line in text.splitlines()
