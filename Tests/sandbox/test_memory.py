"""Memory is planned: on droplets of 512 MiB, 1 GiB and 4 GiB the market bot with planned limits and settings starts and stays below 80 % at rest;
what promises more than 80 % of the machine is refused. Each size is a droplet of its own; the tests of one build on each other."""

import json
import os
import re
import subprocess
import time

import pytest

from conftest import ROOT, SETTINGS, make_project, sandbox
from test_refusals import edited

SIZES = {"512m": 512, "1g": 1024, "4g": 4096}
MIB = 1 << 20

# Name in the env file, name in the plan.
PLANNED = {
    "BOT_MEMORY": "app", "DB_MEMORY": "database", "DB_SHARED_BUFFERS": "shared_buffers", "DB_EFFECTIVE_CACHE_SIZE": "effective_cache_size",
    "DB_WORK_MEM": "work_mem", "DB_MAINTENANCE_WORK_MEM": "maintenance_work_mem", "DB_MAX_CONNECTIONS": "max_connections",
    "REDIS_MEMORY": "cache", "REDIS_MAXMEMORY": "maxmemory",
}
# These depend on the CPUs of whatever machine this runs on.
BY_CPU = {"DB_WORK_MEM", "DB_MAX_CONNECTIONS"}


def plan_memory(project):
    """The example as its owner would write it with planned values."""
    compose = project.folder / "compose.prod.yml"
    text = compose.read_text()
    for old, new in {
        "mem_limit: 192m": "mem_limit: ${BOT_MEMORY:?}", "mem_limit: 384m": "mem_limit: ${DB_MEMORY:?}",
        "mem_limit: 128m": "mem_limit: ${REDIS_MEMORY:?}",
        "shared_buffers=96MB": "shared_buffers=${DB_SHARED_BUFFERS:?}", "effective_cache_size=192MB": "effective_cache_size=${DB_EFFECTIVE_CACHE_SIZE:?}",
        "- work_mem=4MB": "- work_mem=${DB_WORK_MEM:?}", "maintenance_work_mem=48MB": "maintenance_work_mem=${DB_MAINTENANCE_WORK_MEM:?}",
        "max_connections=30": "max_connections=${DB_MAX_CONNECTIONS:?}",
        "requirepass $$REDISCLI_AUTH\n": "requirepass $$REDISCLI_AUTH\n        maxmemory ${REDIS_MAXMEMORY:?}\n",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    compose.write_text(text)
    template = project.folder / "env.template"
    lines = [f"{name}=${{memory:{value}}}" for name, value in PLANNED.items() if name != "BOT_MEMORY"]
    template.write_text(template.read_text() + "\n".join(["BOT_MEMORY=${BOT_MEMORY:-${memory:app}}", *lines]) + "\n")


def documented(mebibytes: int) -> dict[str, str]:
    """The row of docs/memory.md, by the plan's names."""
    lines = [line for line in (ROOT / "docs/memory.md").read_text().splitlines() if line.startswith("| ")]
    head = next(line for line in lines if line.startswith("| machine, CPUs"))
    row = next(line for line in lines if line.startswith(f"| {mebibytes} MiB,"))
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in (head, row)]
    return dict(list(zip(*cells))[1:])


@pytest.fixture(scope="module", params=["512m", *(pytest.param(size, marks=pytest.mark.machine) for size in ("1g", "4g"))])
def planned(request, tmp_path_factory):
    droplet = f"t-memory-{request.param}"
    sandbox("rm", droplet, check=False)
    sandbox("droplet", droplet, "--memory", request.param)
    project = make_project(tmp_path_factory.mktemp("project"), droplet)
    plan_memory(project)
    result = project.deploy("v1.0.0").expect(0)
    yield project, SIZES[request.param], result.text
    sandbox("rm", droplet, check=False)


def resize(project, memory: str):
    subprocess.run(
        ["docker", "update", "--memory", memory, "--memory-swap", "-1", f"orchestrate-droplet-{project.droplet}"], check=True,
        capture_output=True, env={**os.environ, "DOCKER_HOST": SETTINGS["DOCKER_HOST"]})


def values(project) -> dict[str, str]:
    document = json.loads(project.run("env", "prod", "--json").expect(0).out)
    return {entry["name"]: entry["value"] for entry in document["entries"] if not entry["secret"]}


def settings(project) -> dict[str, str]:
    """What PostgreSQL says its settings are."""
    names = [key for name, key in PLANNED.items() if name.startswith("DB_") and name != "DB_MEMORY"]
    return dict(zip(names, project.sql("select " + ", ".join(f"current_setting('{name}')" for name in names)).split("|")))


def limits(project) -> dict[str, int]:
    """MiB that Docker lets each container have."""
    text = project.host(
        "docker ps -q | xargs docker inspect -f '{{index .Config.Labels \"com.docker.compose.service\"}} {{.HostConfig.Memory}}'")
    return {line.split()[0]: int(line.split()[1]) // MIB for line in text.splitlines()}


def used(project) -> dict[str, float]:
    """Percent of its limit that each container uses, without page cache that can go, as `docker stats` counts."""
    text = project.host("docker stats --no-stream --format '{{.Name}} {{.MemPerc}}'")
    return {line.split()[0].split("-")[-2]: float(line.split()[1].rstrip("%")) for line in text.splitlines()}


def machine_used(project) -> float:
    """Percent of the machine's memory in use, the system and Docker included."""
    text = project.host(
        "cd /sys/fs/cgroup; if [ -e memory.max ]; then cat memory.max memory.current; grep ^inactive_file memory.stat; "
        "else cd memory; cat memory.limit_in_bytes memory.usage_in_bytes; grep ^total_inactive_file memory.stat; fi")
    limit, usage, inactive = (int(line.split()[-1]) for line in text.splitlines())
    return 100 * (usage - inactive) / limit


def test_planned_settings_are_what_runs(planned):
    project, size, deployed = planned
    project.assert_answers("v1.0.0")
    row = documented(size)
    found = values(project)
    for name, key in PLANNED.items():
        if name not in BY_CPU:
            assert found[name] == row[key], name
    assert limits(project) == {"bot": int(row["app"][:-1]), "postgres": int(row["database"][:-1]), "redis": int(row["cache"][:-1])}
    by_name = {key: name for name, key in PLANNED.items()}
    assert settings(project) == {key: found[by_name[key]] for key in settings(project)}
    redis = project.host(f"docker exec {project.container('redis')} redis-cli config get maxmemory").split()
    assert int(redis[1]) == int(row["maxmemory"][:-2]) * MIB
    promised = sum(limits(project).values())
    line = re.search(r"memory: (\d+) of (\d+) MiB \((\d+) %\) promised to containers: (.*)", deployed)
    assert (int(line[1]), int(line[2])) == (promised, size) and int(line[3]) <= 80
    assert line[4].startswith(f"bot {row['app'][:-1]}, postgres {row['database'][:-1]}, redis ")


def test_at_rest_it_stays_below_80_percent(planned):
    project, size, _ = planned
    for _ in range(20):
        project.telegram.inject("work a little")
    project.telegram.wait_answered(project.telegram.counts()["sent"], 60)
    time.sleep(5)
    shares, whole = used(project), machine_used(project)
    print(f"{size} MiB: of their limits {shares}, of the machine {whole:.0f} %")
    assert set(shares) == {"bot", "postgres", "redis"}
    assert all(share <= 80 for share in shares.values()), shares
    assert whole <= 80
    killed = project.host("docker ps -aq | xargs docker inspect -f '{{.State.OOMKilled}} {{.RestartCount}}' | sort -u")
    assert killed == "false 0"


def test_the_same_version_again_is_nothing(planned):
    project, _, _ = planned
    before = project.snapshot()
    assert "nothing to do" in project.deploy("v1.0.0").expect(0).text
    assert project.snapshot() == before


def test_too_many_services_are_refused_with_the_figure(planned):
    project, size, _ = planned
    if size != 512:
        pytest.skip("the others have room")
    before = project.snapshot()
    crowd = edited(project, "inventories/prod.yml", lambda text: text.replace("app: [bot]", "app: [bot, one, two, three]"))
    for command in ("plan", "deploy"):
        result = crowd.run(command, "prod", "v1.1.0").expect(78)
        assert "512 MiB of memory are too little" in result.err and "at least 576 MiB are needed" in result.err
        assert re.search(r"env\.template:\d+:\d+", result.err)
    assert project.snapshot() == before


def test_what_init_writes_is_planned_beside_others(planned, tmp_path):
    """A second project, as `init` writes it, with images that the registry has: read by Compose, counted with the first, and refused."""
    project, size, _ = planned
    if size != 512:
        pytest.skip("once is enough")
    shop = type(project)(tmp_path, project.droplet, None, "shop", project.environment)
    (tmp_path / "home").mkdir()
    shop.run("init", "--app", "shop").expect(0)
    compose = tmp_path / "compose.prod.yml"
    text = compose.read_text().replace("registry.example.com/shop", "registry.test:5000/market-bot")
    compose.write_text(text.replace("image: postgres:17", "image: registry.test:5000/library/postgres:17"))
    lines = (project.folder / "inventories/prod.yml").read_text().splitlines()
    kept = [line for line in lines if line.startswith(("hosts:", "  ", "ssh:", "registry:", "compose:", "env:"))]
    services = "services: { app: [app], database: postgres }"
    (tmp_path / "inventories/prod.yml").write_text("\n".join(["app: shop", services, *kept]) + "\n")
    plan = shop.run("plan", "prod", "v1.0.0").expect(1)
    assert "memory: 636 of 512 MiB (125 %) promised to containers: app 180, postgres 136, other projects 320" in plan.out
    assert "promised 636 of the machine's 512 MiB (of other projects here: 320 MiB), 125 %" in plan.out
    assert "1 problem forbids it" in plan.out


def test_over_commitment_is_refused_unless_told(planned):
    project, size, _ = planned
    if size != 1024:
        pytest.skip("once is enough")
    before = project.snapshot()
    greedy = edited(project, "compose.prod.yml", lambda text: text.replace("${BOT_MEMORY:?}", "700m"))
    problem = "the containers are promised 1104 of the machine's 1024 MiB, 108 %, and 80 % are allowed; most of it goes to bot, 700 MiB"
    plan = greedy.run("plan", "prod", "v1.0.0").expect(1)
    assert problem in plan.out and "memory_commit: 108%" in plan.out
    deployed = greedy.deploy("v1.0.0").expect(1)
    assert problem in deployed.err and "nothing was changed" in deployed.err
    assert project.snapshot() == before
    # By its own variable, from the environment, it is the same.
    assert problem in project.run("plan", "prod", "v1.0.0", BOT_MEMORY="700m").expect(1).out
    playbook = greedy.folder / "playbooks/deploy.yml"
    playbook.write_text(playbook.read_text().replace("preflight: { ", "preflight: { memory_commit: 108%, "))
    document = json.loads(greedy.run("plan", "prod", "v1.0.0", "--json").expect(2).out)
    assert document["problems"] == []
    memory = document["memory"]
    assert (memory["machine"], memory["promised"], memory["percent"], memory["allowed"]) == (1024 * MIB, 1104 * MIB, 108, 108)
    assert memory["services"][0] == {"service": "bot", "limit": 700 * MIB, "containers": 1}
    greedy.deploy("v1.0.0").expect(0)
    assert limits(project)["bot"] == 700
    free = edited(project, "compose.prod.yml", lambda text: text.replace("    mem_limit: ${BOT_MEMORY:?}\n", ""))
    assert "bot may take all of the machine's memory" in free.run("plan", "prod", "v1.0.0").expect(2).out


def test_values_follow_the_machine(planned):
    project, size, _ = planned
    if size != 4096:
        pytest.skip("once is enough")
    database = project.identity("postgres")
    resize(project, "2g")
    small = documented(2048)
    plan = project.run("plan", "prod", "v1.1.0").expect(1)
    assert "service postgres goes on with 1228 MiB of memory, the compose file has 612 MiB of memory: that waits for a deploy with --include postgres" in plan.out
    assert "apply its new limit with --include postgres" in plan.out
    assert f"bot {small['app'][:-1]}" in plan.out
    included = ("--include", "postgres", "--include", "redis")
    project.deploy("v1.1.0", *included).expect(0)
    assert limits(project) == {"bot": 816, "postgres": 612, "redis": 204}
    assert settings(project)["shared_buffers"] == small["shared_buffers"] and project.identity("postgres") != database
    project.assert_answers("v1.1.0")
    # And up again: the bot would grow at once, the database when it is told to.
    resize(project, "4g")
    plan = project.run("plan", "prod", "v1.1.0").expect(2)
    assert "postgres goes on with 612 MiB of memory, the compose file has 1228 MiB of memory: that waits" in plan.out
    assert "promised to containers: bot 1636, postgres 612, redis 204" in plan.out
