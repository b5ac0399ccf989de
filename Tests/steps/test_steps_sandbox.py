"""The steps that touch data and containers, on a droplet with the real market bot: done, killed in the middle, undone, undone again."""

import json
import os
import re
import threading
import time

import pytest
from steps_host import Droplet, Project, market_bot, wait_for

pytestmark = pytest.mark.sandbox

BACKUP = dict(
    SERVICE="postgres", CREATE="'postgres' 'redis'", DB_NAME="", DB_USER="", KEEP_LAST=7, KEEP_DAYS=7, VERSION=""
)  # fmt: skip
MIGRATE = dict(
    SERVICE="bot", UP="'alembic' 'upgrade' 'head'", REVISION="'alembic' 'current'",
    DOWN="'alembic' 'downgrade' ''\"$revision\"''", TOOL="alembic", POLICY="compatible", TIMEOUT=120, LOCK_TIMEOUT=5000,
    DB_SERVICE="postgres", DB_NAME="", DB_USER="", VERSION="v1.3.0", FROM="v1.1.0", TARGET="", ACCEPT_DATA_LOSS=0, HEAD="",
)  # fmt: skip
RECREATE = dict(SERVICES="'bot'", SIGNAL="", GRACE=25)
HEALTH = dict(
    SERVICE="bot", PROBE="http", URL="http://localhost:8000/health", COMMAND="", STATUS="200",
    EXPECT="status\tstring\thealthy\nlast_poll_age_s\tbelow\t30", WITHIN_MS=90000, STABLE_MS=1000, RESTARTS=0,
)  # fmt: skip
CHECKS = {"check.sh": (0o600, 'exec sh "$ORCH_BUNDLE/check.sh"\n')}


def good(result):
    assert result.returncode == 0, result.output
    return result


class Bot:
    """A project in which v1.1.0 is deployed as release 1."""

    def __init__(self, droplet):
        self.droplet = droplet
        self.project = Project(droplet)
        self.number = 1
        self.configs = {}
        self.project.release(1, self.config("v1.1.0"))

    def config(self, version, **changes):
        if changes:
            return market_bot(self.droplet, self.project, version, **changes)
        if version not in self.configs:
            self.configs[version] = market_bot(self.droplet, self.project, version)
        return self.configs[version]

    def deployment(self, version, **changes):
        """The number of a new deployment whose release runs that version."""
        self.number += 1
        self.project.release(self.number, self.config(version, **changes))
        return self.number

    def revision(self):
        return self.project.sql("select version_num from alembic_version")

    def marker(self, number, name):
        return self.droplet.run(f"test -e {self.project.state}/deployments/{number}/{name}", check=False).returncode == 0

    def gate(self, number, **changes):
        return self.project.apply(number, "08-health", "health", HEALTH | changes)

    def version(self):
        """What answers on /health right now."""
        [(id, name, state)] = self.project.containers()["bot"]
        assert state == "running"
        assert re.fullmatch(rf"{self.project.name}-bot-1", name)

        def answer():
            result = self.droplet.run(f"docker exec {id} python3 -m market_bot.healthcheck", check=False)
            return json.loads(result.text)["version"] if result.returncode == 0 else None

        return wait_for(answer, 60)

    def stateful(self):
        """Ids and start times of the services that no deployment of the bot may touch."""
        return {
            service: self.project.inspect(self.project.containers()[service][0][0], "{{.Id}} {{.State.StartedAt}}")
            for service in ("postgres", "redis")
        }


@pytest.fixture(scope="module")
def droplet():
    droplet = Droplet(os.environ.get("STEPS_DROPLET", "steps"))
    droplet.login()
    return droplet


@pytest.fixture(scope="module")
def bot(droplet):
    bot = Bot(droplet)
    project = bot.project
    try:
        good(project.apply(1, "05-backup", "backup", BACKUP))
        good(project.apply(1, "06-migrate", "migrate", MIGRATE | dict(VERSION="v1.1.0", FROM="")))
        good(project.apply(1, "07-recreate", "recreate", RECREATE))
        good(bot.gate(1))
        project.commit(1)
        good(project.apply(1, "09-commit", "commit"))  # the containers' restart policies
        yield bot
    finally:
        if "KEEP" not in os.environ:
            project.remove()


def test_first_deployment_is_undone_but_for_its_volumes(droplet):
    bot = Bot(droplet)
    project = bot.project
    try:
        good(project.apply(1, "05-backup", "backup", BACKUP))
        assert project.facts(1, "05-backup")["backup"] is None
        good(project.apply(1, "06-migrate", "migrate", MIGRATE))
        good(project.apply(1, "07-recreate", "recreate", RECREATE, files=CHECKS))
        facts = project.facts(1, "06-migrate")
        assert (facts["before"], facts["after"]) == ("", "0002")
        for _ in range(2):
            for step, kind in (("07-recreate", "recreate"), ("06-migrate", "migrate"), ("05-backup", "backup")):
                good(project.undo(1, step, kind))
        assert project.containers() == {}
        label = f"label=com.docker.compose.project={project.name}"
        assert droplet.run(f"docker network ls -q --filter {label}").text == ""
        assert len(droplet.run(f"docker volume ls -q --filter {label}").text.split()) == 2
        # Deployed again, what the volume holds is saved first.
        project.release(2, bot.config("v1.1.0"))
        good(project.apply(2, "05-backup", "backup", BACKUP))
        assert project.facts(2, "05-backup")["backup"]["bytes"] > 1000
    finally:
        project.remove()


def test_update_touches_only_the_bot(bot):
    project = bot.project
    before = bot.stateful()
    [(old, _, _)] = project.containers()["bot"]
    number = bot.deployment("v1.0.0")
    good(project.apply(number, "05-backup", "backup", BACKUP | dict(VERSION="v1.1.0")))
    backup = project.facts(number, "05-backup")["backup"]
    good(project.apply(number, "07-recreate", "recreate", RECREATE))
    good(bot.gate(number))
    assert bot.stateful() == before
    assert bot.version() == "v1.0.0"
    [(new, _, _)] = project.containers()["bot"]
    assert new != old
    facts = project.facts(number, "07-recreate") | project.facts(number, "08-health")
    assert facts["containers"] == {"bot": new}
    assert facts["stopped_at_ms"] < facts["started_at_ms"] < facts["first_ok_ms"]
    assert facts["gap_ms"] == facts["first_ok_ms"] - facts["stopped_at_ms"]

    # Not committed: it wouldn't come back by itself, and its policy is kept for the commit.
    assert project.inspect(new, "{{.HostConfig.RestartPolicy.Name}}") == "no"
    policies = project.droplet.run(f"cat {project.state}/deployments/{number}/restart-policies").text
    assert policies == f"{new} unless-stopped\n"

    # The restore point: what its receipt says, readable by its owner only.
    folder = f"{project.opt}/backups"
    receipt = json.loads(project.droplet.run(f"cat {folder}/{backup['file'][:-5]}.json").text)
    assert receipt["verified"] is True and receipt["deployment"] == number and receipt["revision"] == "0002"
    assert {"table": "public.alembic_version", "rows": 1, "exact": True} in receipt["tables"]
    out = project.droplet.run(f"sha256sum {folder}/{backup['file']}; stat -c '%a %s' {folder}/{backup['file']}").text.split()
    assert out[0] == receipt["sha256"] == backup["sha256"]
    assert out[2:] == ["600", str(receipt["size"])]

    for _ in range(2):
        good(project.undo(number, "07-recreate", "recreate"))
        good(project.undo(number, "05-backup", "backup"))
    assert bot.version() == "v1.1.0"
    assert bot.stateful() == before
    assert project.facts(number, "07-recreate")["undone_healthy_ms"] > facts["first_ok_ms"]
    [(id, _, _)] = project.containers()["bot"]
    assert project.inspect(id, "{{.HostConfig.RestartPolicy.Name}}") == "unless-stopped"
    # A finished restore point stays.
    assert project.droplet.run(f"ls {folder}/{backup['file']}").returncode == 0


def test_nothing_changed_recreates_nothing(bot):
    [(old, _, _)] = bot.project.containers()["bot"]
    number = bot.deployment("v1.1.0")
    good(bot.project.apply(number, "07-recreate", "recreate", RECREATE))
    assert [id for id, _, _ in bot.project.containers()["bot"]] == [old]
    assert not bot.marker(number, "started-new")
    good(bot.project.undo(number, "07-recreate", "recreate"))
    assert [id for id, _, _ in bot.project.containers()["bot"]] == [old]


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.7, 1.0, 1.4, 1.9, 2.5])
def test_recreate_killed_at_any_moment_is_undone(bot, seconds):
    before = bot.stateful()
    number = bot.deployment("v1.0.0")
    project = bot.project
    project.apply(number, "07-recreate", "recreate", RECREATE, kill_after=seconds)
    for _ in range(2):
        good(project.undo(number, "07-recreate", "recreate"))
    assert bot.version() == "v1.1.0"
    assert bot.stateful() == before
    ran = project.droplet.run(f"cat {project.state}/deployments/{number}/07-recreate/ran", check=False).text.strip()
    if ran:
        assert bot.marker(number, "started-new") == (ran == "1")


def test_half_named_leftovers_are_removed(bot):
    """Compose killed between the old container's removal and the new one's rename."""
    project = bot.project
    [(old, _, _)] = project.containers()["bot"]
    number = bot.deployment("v1.0.0")
    project.prepare(number, "07-recreate", RECREATE)
    state = f"{project.state}/deployments/{number}"
    project.droplet.run(
        f"echo '{old} bot running' >{state}/07-recreate/before; : >{state}/started-new;"
        f"cd {project.opt}/releases/{number} && docker compose -p {project.name} -f effective.json up --no-start --no-deps --pull never bot 2>&1"
    )
    [(new, _, _)] = project.containers()["bot"]
    project.droplet.run(f"docker rename {new} 0123456789ab_{project.name}-bot-1")
    good(project.undo(number, "07-recreate", "recreate"))
    assert bot.version() == "v1.1.0"
    assert not bot.marker(number, "started-new")


def test_a_version_that_never_gets_healthy(bot):
    project = bot.project
    number = bot.deployment("v1.2.0-badhealth")
    good(project.apply(number, "07-recreate", "recreate", RECREATE))
    result = bot.gate(number, WITHIN_MS=8000)
    assert result.returncode == 1
    assert result.output.startswith("bot answered with status 503, not 200")
    assert 'last answer: 503 {"status": "unhealthy"' in result.output
    assert "last entry of its health log: " in result.output
    assert "last lines of bot:\n{" in result.output
    failure = project.facts(number, "08-health")["failure"]
    assert failure["reason"].startswith("bot answered with status 503") and set(failure) == {"service", "reason", "status"}
    # What the application answered stands in the log, and in no fact: those stay in the history.
    strange = bot.gate(number, STATUS="503", EXPECT="status\tstring\tstrange", WITHIN_MS=1000)
    assert "status is unhealthy, not strange" in strange.output and '"version"' in strange.output
    failure = project.facts(number, "08-health")["failure"]
    assert failure == {
        "service": "bot", "reason": "bot: status, expected: strange (waited 1.0 s)", "status": 503, "field": "status", "expected": "strange"}
    good(project.undo(number, "07-recreate", "recreate"))
    assert bot.version() == "v1.1.0"
    check = project.droplet.run(f"{project.environment(number)} sh {project.bundle}/check.sh")
    assert json.loads(check.text)["healthy"] is True
    # A look asks whatever bears the name that Compose gives; under another one it is found by its labels.
    project.droplet.run(f"docker rename {project.name}-bot-1 {project.name}-elsewhere")
    check = project.droplet.run(f"{project.environment(number)} sh {project.bundle}/check.sh")
    project.droplet.run(f"docker rename {project.name}-elsewhere {project.name}-bot-1")
    assert json.loads(check.text)["healthy"] is True


def test_a_crash_loop_is_seen_at_the_first_crash(bot):
    project = bot.project
    number = bot.deployment("v1.5.0-crashloop")
    good(project.apply(number, "07-recreate", "recreate", RECREATE))
    began = time.monotonic()
    result = bot.gate(number)
    assert result.returncode == 1
    assert time.monotonic() - began < 45  # not WITHIN_MS; a loaded machine starts Python in seconds
    assert result.output.startswith("bot ended with exit status 1")
    assert "KeyError" in result.output
    result = bot.gate(number, RESTARTS=1)
    assert result.returncode == 1
    assert "starting it again (1 of 1)" in result.output
    assert "bot ended with exit status 1, after 1 restarts" in result.output
    good(project.undo(number, "07-recreate", "recreate"))
    assert bot.version() == "v1.1.0"


@pytest.mark.parametrize(
    "probe, healthy, text",
    [
        (dict(PROBE="exec", COMMAND="'python3' '-m' 'market_bot.healthcheck'"), True, "healthy"),
        (dict(PROBE="exec", COMMAND="'sh' '-c' 'echo it is bad; exit 3'"), False, "its check ended with exit status 3"),
        (dict(PROBE="exec", COMMAND="'no-such-program'"), False, "last answer: 127"),
        (dict(PROBE="container"), True, "healthy"),
        (dict(PROBE="container", SERVICE="redis"), True, "healthy"),
        (dict(URL="http://localhost:1/"), False, "doesn't answer"),
        (dict(PROBE="http", SERVICE="redis", URL="http://localhost:1/"), False, "has neither curl, wget, python3 nor node"),
        (dict(EXPECT="version\tstring\tv9"), False, "version is v1.1.0, not v9"),
        (dict(SERVICE="nobody"), False, "nobody has no container"),
    ],
)
def test_probes(bot, probe, healthy, text):
    number = bot.deployment("v1.1.0")
    settings = dict(WITHIN_MS=6000, STABLE_MS=500, EXPECT="", STATUS="")
    if healthy:
        settings["WITHIN_MS"] = 30000
    result = bot.gate(number, **(settings | probe))
    assert (result.returncode == 0) == healthy, result.output
    assert text in result.output


def test_the_one_who_asks_ends_with_the_gate(bot):
    number = bot.deployment("v1.1.0")
    [(id, _, _)] = bot.project.containers()["bot"]

    def asked():
        return "http.client" in bot.droplet.run(f"docker top {id} -o pid,args").text

    gate = threading.Thread(target=bot.gate, args=(number,), kwargs=dict(STATUS="299", WITHIN_MS=10000))
    gate.start()
    wait_for(asked, 20)
    gate.join()
    wait_for(lambda: not asked(), 10)


# ---- schema


def failed_migration(bot, policy, *, drain=True, **changes):
    """v1.3.0-badmigration: the first of its two revisions stays, the second fails. Drained and backed up before."""
    project = bot.project
    number = bot.deployment("v1.3.0-badmigration")
    assert bot.revision() == "0002"
    if drain:
        good(project.apply(number, "04-drain", "drain", RECREATE))
    good(project.apply(number, "05-backup", "backup", BACKUP | dict(VERSION="v1.1.0")))
    result = project.apply(number, "06-migrate", "migrate", MIGRATE | dict(POLICY=policy) | changes)
    assert result.returncode == 1, result.output
    facts = project.facts(number, "06-migrate")
    assert facts["before"] == "0002"
    assert facts["schema"] == "at 0003, between v1.1.0 (0002) and v1.3.0"
    assert bot.revision() == "0003"
    return number


def undo_migration(bot, number, *, drain=True):
    for _ in range(2):
        good(bot.project.undo(number, "06-migrate", "migrate"))
        if drain:
            good(bot.project.undo(number, "05-backup", "backup"))
            good(bot.project.undo(number, "04-drain", "drain"))
    assert "one-off" not in bot.project.containers()


def test_failed_migration_down(bot):
    before = bot.stateful()
    number = failed_migration(bot, "down")
    assert [state for _, _, state in bot.project.containers()["bot"]] == ["exited"]
    undo_migration(bot, number)
    assert bot.revision() == "0002"
    assert bot.project.facts(number, "06-migrate")["schema"] == "back at 0002"
    assert bot.version() == "v1.1.0"
    assert bot.stateful() == before
    [(id, _, _)] = bot.project.containers()["bot"]
    assert bot.project.inspect(id, "{{.HostConfig.RestartPolicy.Name}}") == "unless-stopped"


def test_failed_migration_restore(bot):
    project = bot.project
    project.sql("alter database market set work_mem = '5MB'; create table kept as select 7 as n")
    number = failed_migration(bot, "restore")
    project.sql("create table late (n int)")
    undo_migration(bot, number)
    assert bot.revision() == "0002"
    assert project.sql("select to_regclass('late') is null and (select n = 7 from kept)") == "t"
    assert project.sql("show work_mem") == "5MB"
    assert project.sql("select pg_get_userbyid(datdba) from pg_database where datname = 'market'") == "market"
    assert project.sql("select to_regclass('late') is not null", database=f"market_undone_{number}") == "t"
    project.sql("drop table kept")
    assert bot.version() == "v1.1.0"


@pytest.mark.parametrize("seconds", [0.8, 1.2, 1.6, 2.0, 2.6])
def test_restore_killed_at_any_moment(bot, seconds):
    project = bot.project
    number = failed_migration(bot, "restore")
    project.script(number, "06-migrate", "migrate.undo.sh", kill_after=seconds)
    undo_migration(bot, number)
    assert bot.revision() == "0002"
    assert bot.version() == "v1.1.0"
    names = project.sql("select string_agg(datname, ' ') from pg_database where datname like 'market%\\_" + str(number) + "'")
    assert names == f"market_undone_{number}"


def test_a_new_version_that_ran_is_not_restored_over(bot):
    project = bot.project
    number = failed_migration(bot, "restore")
    project.droplet.run(f": >{project.state}/deployments/{number}/started-new")
    for _ in range(2):
        result = project.undo(number, "06-migrate", "migrate")
        assert result.returncode == 1
        assert "Nothing was dropped" in result.output
    assert bot.revision() == "0003"
    # Data loss accepted: done.
    project.prepare(number, "06-migrate", MIGRATE | dict(POLICY="restore", ACCEPT_DATA_LOSS=1))
    undo_migration(bot, number)
    assert bot.revision() == "0002"


def test_a_way_down_that_drops_data_is_not_gone_by_itself(bot):
    project = bot.project
    number = failed_migration(bot, "down")
    project.droplet.run(f": >{project.state}/deployments/{number}/started-new")
    result = project.undo(number, "06-migrate", "migrate")
    assert result.returncode == 1
    assert "would drop data" in result.output
    assert bot.revision() == "0003"
    project.prepare(number, "06-migrate", MIGRATE | dict(POLICY="down", ACCEPT_DATA_LOSS=1))
    undo_migration(bot, number)
    assert bot.revision() == "0002"


def test_a_migration_that_hangs_is_ended(bot):
    project = bot.project
    number = bot.deployment("v1.1.0")
    # A session of its own that would hold a lock for an hour.
    code = "import os,psycopg;c=psycopg.connect(os.environ['DATABASE_URL'].replace('postgresql+psycopg','postgresql'));c.execute('select pg_sleep(3600)')"
    began = time.monotonic()
    result = project.apply(
        number, "06-migrate", "migrate", MIGRATE | dict(UP=f"'python3' '-c' \"{code}\"", TIMEOUT=8, TOOL="alembic")
    )
    assert result.returncode == 1
    assert "didn't end within 8 s" in result.output
    assert time.monotonic() - began < 60
    assert "one-off" not in project.containers()
    assert project.sql("select count(*) from pg_stat_activity where application_name like 'orch-%'") == "0"
    undo_migration(bot, number, drain=False)
    assert bot.revision() == "0002"


def test_a_migration_killed_with_the_runner_leaves_nothing_behind(bot):
    project = bot.project
    number = bot.deployment("v1.1.0")
    project.apply(number, "06-migrate", "migrate", MIGRATE | dict(UP="'sleep' '3600'"), kill_after=6)
    wait_for(lambda: "one-off" in project.containers(), 10)
    good(project.undo(number, "06-migrate", "migrate"))
    assert "one-off" not in project.containers()


def test_the_backup_right_before_has_seen_the_revision(bot):
    """What a step between the two may have migrated is asked again."""
    project = bot.project
    number = bot.deployment("v1.1.0")
    for backup, before in (("05-backup", "0001"), ("04-backup", "0002")):
        project.droplet.run(f"rm -rf {project.state}/deployments/{number}/0[456]-*")
        project.droplet.upload(f"{project.state}/deployments/{number}/{backup}", {"seen-revision": (0o600, "0001\n")})
        good(project.apply(number, "06-migrate", "migrate", MIGRATE | dict(UP="'true'")))
        assert project.facts(number, "06-migrate")["before"] == before


PROBE = dict(TOOL="alembic", SERVICE="bot", DB_SERVICE="postgres", DB_NAME="", DB_USER="")


def configured(bot, number, version):
    """As env leaves it: without a pull the probe finds the image by this."""
    bot.project.droplet.upload(f"{bot.project.state}/deployments/{number}/01-env", {"config.json": (0o600, json.dumps(bot.config(version)))})


def test_nothing_pending_needs_no_container(bot):
    project = bot.project
    number = bot.deployment("v1.1.0")
    configured(bot, number, "v1.1.0")
    good(project.apply(number, "03-migrate-probe", "migrate-probe", PROBE))
    facts = project.facts(number, "03-migrate-probe")
    assert facts == {"revision": "0002", "head": "0002", "pending": []}
    good(project.apply(number, "06-migrate", "migrate", MIGRATE | dict(UP="'false'", HEAD=facts["head"])))
    assert project.facts(number, "06-migrate")["schema"] == "at 0002, nothing pending"


def test_pending_migrations_are_told(bot):
    project = bot.project
    number = bot.deployment("v1.3.0-badmigration")
    image = bot.config("v1.3.0-badmigration")["services"]["bot"]["image"]
    # As pull leaves it: by this the probe finds the image.
    id = project.droplet.run(f"docker image inspect -f '{{{{.Id}}}}' {image}").text.strip()
    line = '"image.bot":' + json.dumps({"reference": "x", "digest": "d", "id": id, "tag": image}) + "\n"
    project.droplet.upload(f"{project.state}/deployments/{number}/02-pull", {"facts": (0o600, line)})
    good(project.apply(number, "03-migrate-probe", "migrate-probe", PROBE))
    facts = project.facts(number, "03-migrate-probe")
    assert facts["revision"] == "0002"
    assert [line.split()[0] for line in facts["pending"]] == ["0003", "0004"]
    assert facts["head"] == "0004"


def test_a_revision_of_something_newer_is_told(bot):
    project = bot.project
    number = bot.deployment("v1.0.0")
    configured(bot, number, "v1.0.0")
    good(project.apply(number, "03-migrate-probe", "migrate-probe", PROBE))
    assert project.facts(number, "03-migrate-probe") == {"revision": "0002", "unknown_revision": "0002", "head": "0001", "pending": []}


def test_files_that_did_not_come_whole_are_not_believed(bot):
    """A chain that ends too soon would be one without pending migrations: then Alembic itself is asked."""
    project = bot.project
    number = bot.deployment("v1.1.0")
    configured(bot, number, "v1.1.0")
    # A docker client that dies between two files.
    shim = f"""#!/bin/sh
echo "$1" >>{project.base}/asked
case "$1 $2" in
"cp "*/versions)
  /usr/bin/docker "$@" | tar -xf - -C {project.base} && rm {project.base}/versions/0002*.py && tar -cf - -C {project.base} versions
  rm -rf {project.base}/versions
  exit 1
  ;;
esac
exec /usr/bin/docker "$@"
"""
    project.droplet.upload(f"{project.base}/shim", {"docker": (0o755, shim)})
    project.prepare(number, "03-migrate-probe", PROBE)
    good(project.droplet.run(
        f"cd {project.state}/deployments/{number}/03-migrate-probe && {project.environment(number, '03-migrate-probe')} "
        f"PATH={project.base}/shim:/usr/bin:/bin sh {project.bundle}/steps/migrate-probe.apply.sh", check=False))
    assert project.facts(number, "03-migrate-probe") == {"revision": "0002", "head": "0002", "pending": []}
    assert project.droplet.run(f"cat {project.base}/asked").text.split().count("run") == 1
    project.droplet.run(f"rm {project.base}/asked")


# ---- backup


def test_a_dump_that_is_cut_short_is_a_failure(bot):
    project = bot.project
    number = bot.deployment("v1.1.0")
    # A docker client that loses the end of what pg_dump writes.
    shim = '#!/bin/sh\ncase " $* " in *" pg_dump -Fc "*) /usr/bin/docker "$@" | head -c 1500 ;; *) exec /usr/bin/docker "$@" ;; esac\n'
    project.droplet.upload(f"{project.base}/shim", {"docker": (0o755, shim)})
    project.prepare(number, "05-backup", BACKUP)
    command = (
        f"cd {project.state}/deployments/{number}/05-backup && {project.environment(number, '05-backup')} "
        f"PATH={project.base}/shim:/usr/bin:/bin sh {project.bundle}/steps/backup.apply.sh"
    )
    result = project.droplet.run(command, check=False)
    assert result.returncode == 1
    assert "can't be read back" in result.output
    good(project.undo(number, "05-backup", "backup"))
    # Without an older backup the folder goes, too.
    assert f"d{number}." not in project.droplet.run(f"ls -a {project.opt}/backups", check=False).text


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.5])
def test_backup_killed_at_any_moment(bot, seconds):
    project = bot.project
    number = bot.deployment("v1.1.0")
    project.apply(number, "05-backup", "backup", BACKUP, kill_after=seconds)
    for _ in range(2):
        good(project.undo(number, "05-backup", "backup"))
    names = project.droplet.run(f"ls -a {project.opt}/backups").text.split()
    assert not [name for name in names if "partial" in name]
    dumps = [name for name in names if name.endswith(f"-d{number}.dump")]
    assert all(name[:-5] + ".json" in names for name in dumps)


def test_a_locked_table_fails_the_backup_and_is_told(bot):
    project = bot.project
    number = bot.deployment("v1.1.0")
    [(database, _, _)] = project.containers()["postgres"]
    lock = "begin; lock table alembic_version in access exclusive mode; select pg_sleep(60)"
    project.droplet.run(f"docker exec -d {database} env PGAPPNAME=locker psql -U market -d market -c {lock!r}")
    try:
        wait_for(lambda: project.sql("select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted") != "0")
        result = project.apply(number, "05-backup", "backup", BACKUP)
        assert result.returncode == 1
        assert "lock timeout" in result.output and "LOCK TABLE" in result.output and "alembic_version" in result.output
        assert "doesn't answer" not in result.output
        assert project.droplet.run("pgrep -fc 'docker exec .*pg_[d]ump'", check=False).text.strip() == "0"
    finally:
        project.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'locker'")
    good(project.undo(number, "05-backup", "backup"))


def test_retention_keeps_what_a_release_needs(bot):
    project = bot.project
    folder = f"{project.opt}/backups"
    project.droplet.run(f"rm -f {folder}/*")
    for old in (1, 9001, 9002, 9003):  # only release 1 is still here
        name = f"2020010{old % 10}T000000Z-v0-d{old}"
        project.droplet.run(f"""cd {folder}; echo x >{name}.dump; echo '{{"verified":true}}' >{name}.json; touch -d '30 days ago' {name}.dump""")
    project.droplet.run(f"""cd {folder}; echo x >20200101T000000Z-v0-d9009.dump; echo '{{"verified":false}}' >20200101T000000Z-v0-d9009.json""")
    number = bot.deployment("v1.1.0")
    good(project.apply(number, "05-backup", "backup", BACKUP | dict(KEEP_LAST=2, KEEP_DAYS=7)))
    left = sorted(re.findall(r"-d(\d+)\.dump", project.droplet.run(f"ls {folder}").text), key=int)
    assert left == ["1", str(number), "9003", "9009"]


# ---- the rest


def test_a_rollback_goes_down_by_the_policy_of_the_release_that_is_left(bot):
    project = bot.project
    number = bot.deployment("v1.4.0")
    good(project.apply(number, "06-migrate", "migrate", MIGRATE | dict(POLICY="down", VERSION="v1.4.0")))
    assert bot.revision() != "0002"
    up = bot.revision()
    project.previous = str(number)
    try:
        back = bot.deployment("v1.1.0")
        refused = project.apply(back, "06-migrate", "migrate", MIGRATE | dict(TARGET="1", POLICY="down"))
        assert refused.returncode == 1 and "--accept-data-loss" in refused.output and bot.revision() == up
        good(project.apply(back, "06-migrate", "migrate", MIGRATE | dict(TARGET="1", POLICY="down", ACCEPT_DATA_LOSS="1")))
        assert bot.revision() == "0002"
        # The rollback fails at its gate: up again. And then for good.
        for _ in range(2):
            good(project.undo(back, "06-migrate", "migrate"))
        assert bot.revision() == up
        back = bot.deployment("v1.1.0")
        good(project.apply(back, "05-schema-probe", "schema-probe", MIGRATE | dict(TARGET="1", POLICY="down")))
        assert project.facts(back, "05-schema-probe") == dict(schema_here=up, schema_there="0002", schema_stays=False)
        good(project.apply(back, "06-migrate", "migrate", MIGRATE | dict(TARGET="1", POLICY="down", ACCEPT_DATA_LOSS="1")))
        assert bot.revision() == "0002"
        # Nothing to bring back any more: no flag is asked for.
        good(project.apply(back, "05-schema-probe", "schema-probe", MIGRATE | dict(TARGET="1", POLICY="down")))
        assert project.facts(back, "05-schema-probe")["schema_stays"] is True
        good(project.apply(back, "06-migrate", "migrate", MIGRATE | dict(TARGET="1", POLICY="down")))
        assert project.facts(back, "06-migrate")["schema"] == "unchanged, at 0002"
    finally:
        project.previous = "1"


def test_drain_killed_is_undone(bot):
    number = bot.deployment("v1.1.0")
    bot.project.apply(number, "04-drain", "drain", RECREATE, kill_after=0.5)
    for _ in range(2):
        good(bot.project.undo(number, "04-drain", "drain"))
    assert bot.version() == "v1.1.0"


def test_logs_of_a_replaced_container_are_kept(bot):
    project = bot.project
    logging = {"logging": {"driver": "json-file"}}
    number = bot.deployment("v1.1.0", bot=logging)
    good(project.apply(number, "07-recreate", "recreate", RECREATE))
    good(bot.gate(number))
    good(project.undo(number, "07-recreate", "recreate"))
    assert bot.version() == "v1.1.0"
    names = project.droplet.run(f"cd {project.state}/logs/bot && stat -c '%a %n' *").text.split()
    assert names[0] == "600" and re.fullmatch(rf"\d{{8}}T\d{{6}}Z-d{number}\.log", names[1])
    assert "version v1.1.0 started" in project.droplet.run(f"cat {project.state}/logs/bot/*").text


def test_a_signal_other_than_the_images_own(bot):
    number = bot.deployment("v1.0.0")
    good(bot.project.apply(number, "07-recreate", "recreate", RECREATE | dict(SIGNAL="SIGINT")))
    assert bot.version() == "v1.0.0"
    good(bot.project.undo(number, "07-recreate", "recreate"))
    assert bot.version() == "v1.1.0"


@pytest.mark.parametrize("text", ["#!/bin/bash\n[[ $VERSION == v2 ]] && echo $ORCH_PROJECT >out; exit 4\n", 'echo "$ORCH_PROJECT" >out; exit 4\n'])
def test_run_is_the_users_own_script(bot, text):
    project = bot.project
    number = bot.deployment("v1.1.0")
    files = {"script": (0o700, text), "undo-script": (0o700, "rm out\n")}
    result = project.apply(number, "09-run", "run", {"VERSION": "v2"}, files=files)
    assert result.returncode == 4
    folder = f"{project.state}/deployments/{number}/09-run"
    assert project.droplet.run(f"cat {folder}/out").text == f"{project.name}\n"
    good(project.undo(number, "09-run", "run"))
    assert project.droplet.run(f"ls {folder}/out", check=False).returncode != 0


def test_failed_migration_compatible(bot):
    """The last one: the schema stays where it is."""
    number = failed_migration(bot, "compatible", drain=False)
    good(bot.project.undo(number, "05-backup", "backup"))
    undo_migration(bot, number, drain=False)
    assert bot.revision() == "0003"
    assert bot.project.facts(number, "06-migrate")["schema"] == "stays at 0003 (before: 0002); v1.1.0 runs on it"
    assert bot.version() == "v1.1.0"
    # A rollback afterwards tells where the schema is, not where the running release had left it.
    back = bot.deployment("v1.1.0")
    good(bot.project.apply(back, "06-migrate", "migrate", MIGRATE | dict(TARGET="1")))
    assert bot.project.facts(back, "06-migrate")["schema"] == "stays at 0003, which the older version runs on"
    assert bot.droplet.run(f"cat {bot.project.opt}/releases/{back}/schema").text == "0003\n"
