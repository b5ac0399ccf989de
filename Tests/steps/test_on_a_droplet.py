"""preflight, release, env, pull and seal against a real Docker and a real registry: apply, apply cut short, undo twice, undo of nothing."""
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import SANDBOX, Droplet, Project, images_yml, quote, release_json

pytestmark = pytest.mark.sandbox
NAME = os.environ.get("ORCHESTRATE_STEPS_DROPLET", "steps")
CANARY = "canary-9f3b-password"

COMPOSE = """\
services:
  bot:
    image: registry.test:5000/steps/app:${VERSION:?}
    env_file: .env
    command: ["sleep", "600"]
    volumes: ["./redis.conf:/etc/redis.conf:ro", "./nginx:/etc/nginx:ro"]
    stop_grace_period: 1s
  cache:
    image: registry.test:5000/steps/cache:v1
    command: ["sleep", "600"]
    environment: { PASSWORD: "${CACHE_PASSWORD}" }
    stop_grace_period: 1s
"""


def outer(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, **options).stdout.decode()


@pytest.fixture(scope="session")
def registry():
    """Small images in the sandbox's registry: steps/app v1 to v3 and steps/cache v1."""
    outer(SANDBOX, "up", "--core")
    lines = outer(SANDBOX, "env").splitlines()
    settings = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    environment = {**os.environ, "DOCKER_HOST": settings["DOCKER_HOST"], "DOCKER_CONFIG": settings["SANDBOX_STATE"] + "/registry/client"}
    shell = "set -e; d=$(mktemp -d); mkdir -p $d/bin; cp /bin/busybox $d/bin/; for l in $(ldd /bin/busybox | grep -o '/[^ ]*'); do mkdir -p $d$(dirname $l); cp -L $l $d$l; done; " \
        "ln -s busybox $d/bin/sleep; ln -s busybox $d/bin/sh; for v in $1; do echo $v >$d/version; head -c 300000 /dev/urandom >$d/$v; " \
        "tar -C $d -c . | docker import -c 'CMD [\"/bin/sleep\",\"600\"]' -c 'ENV PATH=/bin' - $2:$v >/dev/null; docker push -q $2:$v; done; rm -rf $d"
    for versions, name in (("v1 v2 v3", "app"), ("v1", "cache")):
        outer("sh", "-c", shell, "sh", versions, f"{settings['REGISTRY_PUSH']}/steps/{name}", env=environment)
    settings["password"] = open(settings["REGISTRY_PASSWORD_FILE"]).read().strip()
    settings["environment"] = environment
    return settings


@pytest.fixture(scope="session")
def droplet(registry):
    return Droplet(NAME)


@pytest.fixture
def project(droplet):
    clean = "docker ps -aq --filter label=com.docker.compose.project=shop | xargs -r docker rm -f >/dev/null; " \
        "docker images -q | sort -u | xargs -r docker rmi -f >/dev/null 2>&1; docker network prune -f >/dev/null; rm -rf /home/deploy/steps"
    droplet.run(clean)
    yield Project(droplet)
    droplet.run(clean)


class Release:
    """A deployment's preparing steps, as the client would send them."""

    def __init__(self, project, registry, number, version="v1", env="TOKEN=tok-1\nCACHE_PASSWORD='p$w'\n", compose=COMPOSE, password=None):
        self.project, self.version, self.number = project, version, number
        deployment = self.deployment = project.deployment(number)
        self.preflight = deployment.step("preflight", {"DISK_FREE": 1 << 20, "MEMORY_FREE": 1 << 20}, number=1)
        self.release = deployment.step("release", {"COPY_OF": "", "COMPOSE_DIR": ""}, {
            "compose.yml": compose, "playbook.yml": "", "project/redis.conf": "save 60\n", "project/nginx/conf.d/x.conf": "x\n"}, number=2)
        names = [line.split("=")[0] for line in env.splitlines()]
        self.env = deployment.step("env", {"COMPOSE_DIR": ""}, {
            "env": env, "generated": "CACHE_PASSWORD='p$w'\n", "version.env": f"VERSION={version}\n",
            "check.json": json.dumps({"x-orchestrate-env": {name: "${%s}" % name for name in names}})}, number=3)
        self.pull = deployment.step("pull", {"SERVER": "registry.test:5000", "USERNAME": registry["REGISTRY_USER"], "PULL_TIMEOUT": 60, "KEPT": ""}, {
            "password": registry["password"] if password is None else password}, number=4)
        self.steps = [self.preflight, self.release, self.env, self.pull]

    def config(self):
        return json.loads(self.project.machine.read(f"{self.env.directory}/config.json"))

    def seal(self):
        """What the client makes of config.json, in short: tags for images, one mounted file."""
        config = self.config()
        del config["x-orchestrate-env"]
        images = {key.removeprefix("image."): value for key, value in self.pull.facts.items()}
        for name, service in config["services"].items():
            service["image"] = images[name]["tag"]
        shas = {"redis.conf": "1" * 64, "nginx": "2" * 64}
        for volume in config["services"]["bot"]["volumes"]:
            path = volume["source"].split("/project/")[1]
            volume["source"] = f"{self.project.opt}/files/{shas[path]}" + ("/redis.conf" if path == "redis.conf" else "")
        return self.deployment.step("seal", {}, {
            "effective.json": json.dumps(config), "images.yml": images_yml(**images), "release.json": release_json(self.number),
            "mounts": "".join(f"{sha}\t{path}\n" for path, sha in shas.items())}, number=5)


def local_tags(machine):
    return sorted(machine.sh("docker images --format '{{.Repository}}:{{.Tag}}' 'orchestrate/*/*'").split())


def memory_files(machine):
    return machine.sh("ls -d /run/user/*/orchestrate-* /dev/shm/orchestrate-* 2>/dev/null || :").split()


def test_prepare_then_undo_backwards_leaves_nothing(project, registry):
    machine = project.machine
    before = project.tree()
    release = Release(project, registry, 1)
    for step in release.steps:
        step.apply()
    seal = release.seal()
    seal.apply()
    seal.apply()  # again after a crash

    facts = release.pull.facts
    assert set(facts) == {"image.bot", "image.cache"}
    bot = facts["image.bot"]
    assert bot["reference"] == "registry.test:5000/steps/app:v1" and bot["tag"] == f"orchestrate/shop/bot:{bot['digest'][7:19]}"
    assert machine.sh(f"docker image inspect -f '{{{{.Id}}}}' {bot['tag']}").strip() == bot["id"]
    config = release.config()
    assert config["services"]["bot"]["environment"] == {"TOKEN": "tok-1", "CACHE_PASSWORD": "p$$w"}
    assert config["x-orchestrate-env"] == {"TOKEN": "tok-1", "CACHE_PASSWORD": "p$$w"}
    assert machine.read(f"{project.state}/generated.env") == "CACHE_PASSWORD='p$w'\n"
    modes = machine.sh(f"stat -c '%a %n' {project.opt}/releases/1/.env {project.opt}/releases/1/effective.json {project.opt}/releases/1/release.json "
                       f"{release.env.directory}/config.json {project.state}/generated.env")
    assert {line.split()[0] for line in modes.splitlines()} == {"600"}
    # A container of another user reads what it mounts.
    machine.run(f"cd {project.opt}/releases/1 && docker compose -p shop --project-directory . -f effective.json up -d --no-deps --no-build --pull never bot 2>&1")
    assert machine.sh("docker exec -u 12345 shop-bot-1 /bin/busybox cat /etc/redis.conf /etc/nginx/conf.d/x.conf") == "save 60\nx\n"
    machine.run("docker rm -f shop-bot-1; docker network rm shop_default")

    for _ in range(2):
        for step in (seal, *reversed(release.steps[1:])):
            step.undo()
    machine.run(f"rmdir {project.opt}/files")
    assert project.tree() == before
    assert local_tags(machine) == []
    assert machine.read(f"{project.state}/generated.env") == "CACHE_PASSWORD='p$w'\n"


def test_what_pull_fetches_stands_in_the_configuration(project, registry):
    release = Release(project, registry, 1, compose=COMPOSE.replace("  bot:\n", "  bot:\n    working_dir: /srv\n"))

    def pull(number, kept):
        return release.deployment.step("pull", {"SERVER": "registry.test:5000", "USERNAME": registry["REGISTRY_USER"], "PULL_TIMEOUT": 60, "KEPT": kept},
                                       {"password": registry["password"]}, number=number)

    status, output = release.pull.apply(check=False)
    assert status == 1 and "no env step came before pull" in output
    for step in release.steps[:3]:
        step.apply()
    only = pull(6, "'cache' 'gone'")
    only.apply()
    assert set(only.facts) == {"image.bot"} and only.facts["image.bot"]["directory"] == "/srv"
    config = f"{release.env.directory}/config.json"
    project.machine.write(config, project.machine.read(config).replace("steps/app:v1", "steps/app:v 1"))
    status, output = pull(7, "").apply(check=False)
    assert status == 1 and 'Service bot: "registry.test:5000/steps/app:v 1" is no image reference' in output


def test_undo_without_an_apply(project, registry):
    before = project.tree()
    release = Release(project, registry, 1)
    for step in (release.deployment.step("seal", number=5), *reversed(release.steps[1:])):
        step.undo()
    assert project.tree() == before


@pytest.mark.parametrize("kind", ["release", "env", "pull", "seal"])
def test_undo_after_a_killed_apply(project, registry, kind):
    """Killed after ever longer times, until it gets through."""
    release = Release(project, registry, 1)
    order = ["preflight", "release", "env", "pull"]
    for name in order:
        if name == kind:
            break
        release.steps[order.index(name)].apply()
    step = release.seal() if kind == "seal" else release.steps[order.index(kind)]
    machine = project.machine
    before = project.tree(), local_tags(machine)
    delay, killed = 0.005, 0
    while delay < 20:
        if kind == "pull":
            machine.write(f"{step.directory}/password", registry["password"])
        if kind == "env":  # its payload went with the undo
            step = Release(project, registry, 1).env
        status, output = step.apply(prelude=f"timeout -s KILL {delay:.3f}", check=False)
        step.undo()
        step.undo()
        machine.run(f"rmdir {project.opt}/files 2>/dev/null || :")
        assert (project.tree(), local_tags(machine)) == before
        assert memory_files(machine) == [] and not machine.exists(f"{step.directory}/password")
        if status == 0:
            break
        killed += 1
        delay *= 1.7
    assert status == 0 and killed >= 2


def test_password_leaves_no_trace(project, registry):
    machine = project.machine
    release = Release(project, registry, 1, password=CANARY)
    for step in release.steps[:3]:
        step.apply()
    status, output = release.pull.apply(check=False)
    assert status == 1 and "wrong name or password" in output and CANARY not in output
    assert machine.run(f"grep -rl {CANARY} {project.state} /home/deploy /dev/shm /run/user 2>/dev/null", check=False).stdout.decode().split() == []
    assert memory_files(machine) == []


def test_password_is_in_no_argv_and_gone_at_the_end(project, registry):
    machine = project.machine
    release = Release(project, registry, 1)
    for step in release.steps[:3]:
        step.apply()
    with ThreadPoolExecutor() as pool:
        # The watcher reads the password from a file: its own argv must not hold it.
        machine.write("/home/deploy/steps/needle", registry["password"])
        watch = "for i in $(seq 150); do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -qFf /home/deploy/steps/needle && echo SEEN; sleep 0.02; done; :"
        seen = pool.submit(machine.sh, watch)
        release.pull.apply()
    assert "SEEN" not in seen.result()
    machine.run("rm -f /home/deploy/steps/needle")
    machine.write("/dev/shm/needle", registry["password"])
    found = machine.run(f"grep -rlFf /dev/shm/needle {project.state} /home/deploy /run/user 2>/dev/null; rm /dev/shm/needle", check=False)
    assert found.stdout.decode() == ""
    assert memory_files(machine) == []


def test_a_missing_tag(project, registry):
    release = Release(project, registry, 1, version="v99")
    for step in release.steps[:3]:
        step.apply()
    status, output = release.pull.apply(check=False)
    assert status == 1 and "no registry.test:5000/steps/app:v99" in output


@pytest.mark.parametrize("fault", ["REJECT --reject-with tcp-reset", "DROP"], ids=["refused", "black hole"])
def test_a_dead_registry_fails_soon(project, registry, fault):
    """The fault is the droplet's own: others use the registry."""
    release = Release(project, registry, 1)
    for step in release.steps[:3]:
        step.apply()
    before = project.tree()
    try:
        project.machine.run(f"sudo iptables -I OUTPUT -p tcp --dport 5000 -j {fault}")
        begin = time.monotonic()
        status, output = release.pull.apply(check=False)
        seconds = time.monotonic() - begin
        # Without log-in, too: the pull itself notices.
        begin = time.monotonic()
        anonymous = release.deployment.step("pull", {"SERVER": "", "USERNAME": "", "PULL_TIMEOUT": 60, "KEPT": "'cache'"}, number=6)
        status2, output2 = anonymous.apply(check=False)
        seconds2 = time.monotonic() - begin
    finally:
        project.machine.run(f"sudo iptables -D OUTPUT -p tcp --dport 5000 -j {fault}")
    assert (status, status2) == (1, 1) and seconds < 30 and seconds2 < 30, (seconds, output, seconds2, output2)
    assert "registry.test:5000" in output and "registry" in output2
    assert project.tree() == before


def test_a_moved_tag_is_seen_and_an_unmoved_one_not_downloaded(project, registry):
    machine = project.machine
    first = Release(project, registry, 1, version="v3")
    for step in first.steps:
        step.apply()
    second = Release(project, registry, 2, version="v3")
    for step in second.steps[:3]:
        step.apply()
    output = second.pull.apply()[1]
    assert output.count("Image is up to date") == 2
    assert second.pull.facts == first.pull.facts and not machine.exists(f"{second.pull.directory}/tags")
    push = registry["REGISTRY_PUSH"]
    environment = registry["environment"]
    original = outer("docker", "image", "inspect", "-f", "{{.Id}}", f"{push}/steps/app:v3", env=environment).strip()
    try:
        outer("docker", "tag", f"{push}/steps/app:v2", f"{push}/steps/app:v3", env=environment)
        outer("docker", "push", "-q", f"{push}/steps/app:v3", env=environment)
        third = Release(project, registry, 3, version="v3")
        for step in third.steps:
            step.apply()
        assert third.pull.facts["image.bot"]["digest"] != first.pull.facts["image.bot"]["digest"]
        assert local_tags(machine) == sorted({r.pull.facts[k]["tag"] for r in (first, third) for k in ("image.bot", "image.cache")})
    finally:
        outer("docker", "tag", original, f"{push}/steps/app:v3", env=environment)
        outer("docker", "push", "-q", f"{push}/steps/app:v3", env=environment)


def test_a_killed_pull_is_a_failure(project, registry):
    machine = project.machine
    release = Release(project, registry, 1)
    for step in release.steps[:3]:
        step.apply()
    machine.run("mkdir -p /home/deploy/steps/tools")
    machine.write("/home/deploy/steps/tools/docker", "#!/bin/sh\nif [ \"$1\" = pull ]; then kill -KILL $$; fi\nexec /usr/bin/docker \"$@\"\n", 0o755)
    status, output = release.pull.apply(prelude="PATH=/home/deploy/steps/tools:$PATH", check=False)
    assert status == 1 and "killed (signal 9)" in output
    assert local_tags(machine) == []


@pytest.mark.parametrize("compose, env, expected", [
    (COMPOSE.replace("${CACHE_PASSWORD}", "${NOBODY:?set it}"), "TOKEN=1\n", "NOBODY"),
    (COMPOSE.replace("command:", "comand:", 1), "TOKEN=1\n", "comand"),
    ("services: [", "TOKEN=1\n", "compose.yml"),
])
def test_compose_faults_are_readable(project, registry, compose, env, expected):
    release = Release(project, registry, 1, compose=compose, env=env)
    release.release.apply()
    status, output = release.env.apply(check=False)
    assert status == 1 and expected in output and "Nothing was changed" in output and project.opt not in output
    assert not project.machine.exists(f"{release.env.directory}/config.json")


def test_the_callers_environment_does_not_leak_in(project, registry):
    release = Release(project, registry, 1)
    release.release.apply()
    release.env.apply(prelude="VERSION=evil TOKEN=evil COMPOSE_PROJECT_NAME=evil")
    config = release.config()
    assert config["services"]["bot"]["image"].endswith(":v1") and config["x-orchestrate-env"]["TOKEN"] == "tok-1" and config["name"] == "shop"


def test_generated_values_are_never_replaced(project, registry):
    machine = project.machine
    machine.write(f"{project.state}/generated.env", "OTHER=1\nCACHE_PASSWORD='first'\n")
    release = Release(project, registry, 1)
    release.release.apply()
    status, output = release.env.apply(check=False)
    assert status == 1 and "CACHE_PASSWORD" in output and "first" not in output and "p$w" not in output
    assert machine.read(f"{project.state}/generated.env") == "OTHER=1\nCACHE_PASSWORD='first'\n"
    machine.write(f"{project.state}/generated.env", "OTHER=1\n")
    Release(project, registry, 1).env.apply()
    assert machine.read(f"{project.state}/generated.env") == "OTHER=1\nCACHE_PASSWORD='p$w'\n"


def test_preflight_sees_baseline_and_leftovers(project, registry):
    machine = project.machine
    one = Release(project, registry, 1)
    for step in one.steps:
        step.apply()
    assert one.preflight.facts["baseline"] == [] and one.preflight.facts["healthy"] is None and one.preflight.facts["leftovers"] == []
    one.seal().apply()
    project.commit(1)
    machine.run(f"cd {project.opt}/releases/1 && docker compose -p shop --project-directory . -f effective.json up -d --no-build --pull never 2>&1")
    # A container that has once replaced another one keeps Compose's label, and is no leftover.
    machine.run(
        f"cd {project.opt}/releases/1 && docker compose -p shop --project-directory . -f effective.json up -d --no-deps --no-build --pull never "
        "--force-recreate bot 2>&1")
    tag = one.pull.facts["image.bot"]["tag"]
    machine.run(f"docker run -d --name orch-1-migrate --label com.docker.compose.project=shop --label com.docker.compose.oneoff=True --label orchestrate.deployment=1 {tag}")
    machine.run(f"docker create --name 0123456789ab_shop-bot-1 --label com.docker.compose.project=shop --label com.docker.compose.service=bot --label com.docker.compose.replace=shop-bot-1 {tag}")
    machine.write(f"{project.opt}/backups/20261121T0300Z-v1-d1.dump", "x" * 77)
    preflight = Release(project, registry, 2).preflight
    output = preflight.apply()[1]
    facts = preflight.facts
    assert {c["service"]: (c["status"], c["health"], c["restarts"]) for c in facts["baseline"]} == {
        "bot": ("running", "none", 0), "cache": ("running", "none", 0)}
    assert facts["healthy"] is True
    assert sorted(c["name"] for c in facts["leftovers"]) == ["/0123456789ab_shop-bot-1", "/orch-1-migrate"]
    assert "orch-1-migrate" in output
    assert facts["releases"] == [{"number": 1, "previous": 0, "committed": True, "version": "v1"}]
    assert facts["last_backup_bytes"] == 77


def test_preflight_refuses_a_full_disk(project, registry):
    step = project.deployment(1).step("preflight", {"DISK_FREE": 1 << 50, "MEMORY_FREE": 0})
    status, output = step.apply(check=False)
    assert status == 1 and "MiB are free" in output
    status, output = project.deployment(1).step("preflight", {"DISK_FREE": 0, "MEMORY_FREE": 1 << 50}).apply(check=False)
    assert status == 1 and "of memory" in output


def test_prune_with_a_real_docker(project, registry):
    machine = project.machine
    for number, version in ((1, "v1"), (2, "v2"), (3, "v3")):
        release = Release(project, registry, number, version=version)
        for step in release.steps:
            step.apply()
        release.seal().apply()
        machine.write(f"{project.opt}/releases/{number}/release.json", release_json(number, number - 1))
        project.commit(number)
    assert len(local_tags(machine)) == 4
    release.deployment.step("prune", {"RELEASES": 2, "IMAGES": 1, "LOGS_SECONDS": 60}, number=9).apply()
    assert len(local_tags(machine)) == 3
    assert sorted(machine.sh("docker images --format '{{.Repository}}:{{.Tag}}' 'registry.test:5000/*/*'").split()) == [
        "registry.test:5000/steps/app:v2", "registry.test:5000/steps/app:v3", "registry.test:5000/steps/cache:v1"]
    machine.run(f"cd {project.opt}/releases/2 && docker compose -p shop --project-directory . -f effective.json config -q")
