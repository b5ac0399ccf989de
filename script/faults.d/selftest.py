"""Is the observer able to see what it is there for? Plants each violation on a droplet, by hand, and takes it away again: it must be named, and nothing must before and after."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import observer
from faults import FAULTS
from rig import APP, NEW, OLD, Rig
from runs import Campaign, Case, Instant, case, truth

OPT, STATE = f"/opt/{APP}", f"/var/lib/orchestrate/{APP}"
# Names that the plants use: the current release, and the containers' ids.
HEAD = f"""set -eu
opt={OPT} state={STATE}
release=$(readlink -f $opt/current)
number=${{release##*/}}
conf=$(echo $opt/files/*/redis.conf)
id() {{ docker ps -aq --filter label=com.docker.compose.project={APP} --filter label=com.docker.compose.service="$1"; }}
sql() {{ docker exec "$(id postgres)" psql -U market -d market -qAtc "$1"; }}
well() {{ until docker exec "$(id bot)" python3 -m market_bot.healthcheck | grep -q '"healthy"'; do sleep 0.2; done; }}
"""


@dataclass
class Plant:
    """What is done, what undoes it, and the invariants of which at least one must name it (others may, too, where one thing makes several untrue)."""

    invariant: str
    text: str
    script: str
    undo: str


def copy(file: str, change: str) -> tuple[str, str]:
    """A file changed in place, and put back with its times and mode."""
    return f"cp -a {file} /root/planted; {change}", f"cp -a /root/planted {file}; rm /root/planted"


PLANTS = [
    Plant("current", "names nothing", "mv $opt/current /root/current", "mv /root/current $opt/current"),
    Plant("current", "names", "ln -sfn releases/999 $opt/current", "ln -sfn releases/$(sed -n 's/.*\"event\":\"committed\".*\"release\":\\([0-9]*\\).*/\\1/p' $state/deployments/*/journal.jsonl | sort -n | tail -n 1) $opt/current"),
    Plant("current", "the newest", "older=$(ls $opt/releases | sort -n | head -n 1); echo $number >/root/number; ln -sfn releases/$older $opt/current", "ln -sfn releases/$(cat /root/number) $opt/current"),
    Plant("releases", "999", "cp -a $release $opt/releases/999", "rm -r $opt/releases/999"),
    Plant("releases", "is left", "mkdir $opt/releases/999.new", "rmdir $opt/releases/999.new"),
    Plant("containers", "is left", f"docker run -d --name planted --label com.docker.compose.project={APP} --label com.docker.compose.oneoff=True --label com.docker.compose.service=bot $(docker inspect -f '{{{{.Image}}}}' $(id redis)) sleep 600", "docker rm -fv planted"),
    Plant("containers", "half a name", "docker rename $(id bot) 0123456789ab_market-bot-bot-1", "docker rename $(id bot) market-bot-bot-1"),
    Plant("containers", "bot is exited", "docker stop $(id bot)", "docker start $(id bot); well"),
    Plant("containers", "restart policy", "docker update --restart=no $(id bot)", "docker update --restart=unless-stopped $(id bot)"),
    Plant("images", "bot runs image", *copy("$release/release.json", "sed -i '/\"bot\" : {/,/}/s/\"id\" : \"sha256:..../\"id\" : \"sha256:0000/' $release/release.json")),
    Plant("configuration", "bot runs with another", *copy("$release/effective.json", "sed -i 's/\"pids_limit\":64/\"pids_limit\":65/' $release/effective.json")),
    Plant("environment", ".env: LOG_LEVEL", *copy("$release/.env", "sed -i 's/^LOG_LEVEL=.*/LOG_LEVEL=DEBUG/' $release/.env")),
    Plant("environment", "the container's LOG_LEVEL", *copy("$release/effective.json", "sed -i 's/\"LOG_LEVEL\":\"INFO\"/\"LOG_LEVEL\":\"DEBUG\"/' $release/effective.json")),
    Plant("mounts", "has changed", *copy("$conf", "echo '# planted' >>$conf")),
    Plant("mounts", "redis mounts", *copy("$release/effective.json", "sed -i 's,/opt/market-bot/files/[0-9a-f]*,/opt/market-bot/files/0,' $release/effective.json")),
    Plant("schema", "doesn't run on", "sql 'select version_num from alembic_version' >/root/revision; sql \"update alembic_version set version_num = '0009'\"", "sql \"update alembic_version set version_num = '$(cat /root/revision)'\""),
    Plant("schema", "by the history", "sql 'select version_num from alembic_version' >/root/revision; sql \"update alembic_version set version_num = case version_num when '0001' then '0002' else '0001' end\"", "sql \"update alembic_version set version_num = '$(cat /root/revision)'\""),
    Plant("password", "doesn't let in", "sql \"alter role market password 'planted'\"", "sql \"alter role market password '$(sed -n 's/^DB_PASSWORD=//p' $release/.env)'\""),
    Plant("password", "generated.env", *copy("$state/generated.env", "sed -i 's/^DB_PASSWORD=.*/DB_PASSWORD=planted/' $state/generated.env")),
    Plant("poller", "2 containers", "docker run -d --name planted --restart always -e TELEGRAM_TOKEN=1:x -e DATABASE_URL=postgresql://u:p@127.0.0.1/d -e REDIS_URL=redis://127.0.0.1 -e TELEGRAM_API=http://127.0.0.1:9 $(docker inspect -f '{{.Image}}' $(id bot)) python3 -m market_bot",
          "docker rm -fv planted"),
    Plant("health", "doesn't answer", "docker pause $(id bot)", "docker unpause $(id bot); well"),
    Plant("rows", "missing", "sql \"delete from faults_rows where seq = (select max(seq) from faults_rows)\"", "sql \"insert into faults_rows select $(cat /root/highest)\""),
    Plant("rows", "twice", "sql 'insert into faults_rows select max(seq) from faults_rows'", "sql \"delete from faults_rows where ctid in (select max(ctid) from faults_rows group by seq having count(*) > 1)\""),
    Plant("messages", "aren't in the database", "sql 'create table planted as select * from messages; delete from messages'", "sql 'insert into messages select * from planted; drop table planted'"),
    Plant("restarts", "redis was restarted", "docker restart $(id redis)", "well"),
    Plant("lock", "project", "setsid flock $state/lock sleep 600 >/dev/null 2>&1 & echo $! >/root/planted; sleep 0.3", "kill -- -$(cat /root/planted); sleep 0.2"),
    Plant("lock", "runner.pid", "echo 1 >$state/runner.pid", "rm $state/runner.pid"),
    Plant("processes", "runner.sh", "cp /bin/sleep /root/runner.sh; setsid /root/runner.sh 600 >/dev/null 2>&1 & echo $! >/root/planted; sleep 0.3", "kill $(cat /root/planted); rm /root/runner.sh"),
    Plant("processes", "session left", "setsid docker exec -e PGAPPNAME=orch-999 $(id postgres) psql -U market -d market -c 'select pg_sleep(600)' >/dev/null 2>&1 & sleep 1", "sql \"select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'orch-999'\"; sleep 0.5"),
    Plant("processes", "pg_dump", "cp /bin/sleep /root/pg_dump; setsid /root/pg_dump 600 >/dev/null 2>&1 & echo $! >/root/planted; sleep 0.3", "kill $(cat /root/planted); rm /root/pg_dump"),
    Plant("units", "unit", f"systemd-run --quiet --unit=orchestrate-{APP}-planted sleep 600", f"systemctl stop orchestrate-{APP}-planted"),
    Plant("units", "timer", f"systemd-run --quiet --on-active=1h --unit=orchestrate-{APP}-planted true", f"systemctl stop orchestrate-{APP}-planted.timer"),
    Plant("temporary", ".new", "touch $opt/backups/planted.dump.new", "rm $opt/backups/planted.dump.new"),
    Plant("temporary", "queue", "mkdir -p $state/queue; touch $state/queue/100.1", "rm $state/queue/100.1"),
    Plant("temporary", "reserve", "touch $opt/.reserve", "rm $opt/.reserve"),
    Plant("temporary", "password", "touch $state/deployments/$number/04-password; mkdir $state/deployments/$number/99-planted; touch $state/deployments/$number/99-planted/password", "rm -r $state/deployments/$number/99-planted $state/deployments/$number/04-password"),
    Plant("journals", "twice", *copy("$state/history.jsonl", "tail -n 1 /root/planted >>$state/history.jsonl")),
    Plant("journals", "is open", *copy("$state/deployments/$number/journal.jsonl", "sed -i '$d' $state/deployments/$number/journal.jsonl")),
    Plant("journals", "isn't JSON", *copy("$state/deployments/$number/journal.jsonl", "echo '{\"event\":' >>$state/deployments/$number/journal.jsonl")),
    Plant("journals", "middle of a line", *copy("$state/deployments/$number/journal.jsonl", "truncate -s -1 $state/deployments/$number/journal.jsonl")),
    Plant("journals", "the journal says", *copy("$state/history.jsonl", "sed -i '$s/\"outcome\":\"committed\"/\"outcome\":\"undone\"/' $state/history.jsonl")),
    Plant("journals", "sequence", *copy("$state/sequence", "echo 1 >$state/sequence")),
    Plant("secrets", "mode 644", "chmod 644 $release/.env", "chmod 600 $release/.env"),
    Plant("secrets", "holds a secret", "cp $release/.env /tmp/planted; chmod 600 /tmp/planted", "rm /tmp/planted"),
    Plant("backups", "don't agree", "set -- $opt/backups/*.dump; cp -a $1 /root/planted; echo $1 >/root/name; echo planted >>$1", "cp -a /root/planted $(cat /root/name); rm /root/planted"),
    Plant("backups", "no restore point", "echo '{}' >$opt/backups/planted.json", "rm $opt/backups/planted.json"),
    Plant("leftovers", "belongs to no release", f"docker tag $(docker inspect -f '{{{{.Image}}}}' $(id redis)) orchestrate/{APP}/bot:planted", f"docker rmi orchestrate/{APP}/bot:planted"),
    Plant("leftovers", "volumes", "docker volume create planted", "docker volume rm planted"),
]
# The client's word needs no droplet: (exit status, outcome, healthy, text) that must be found untrue.
LIES = [(0, "undone", True, ""), (0, "unchanged", None, ""), (0, None, None, ""), (3, "committed", None, ""), (3, "unchanged", None, ""), (3, "undone", False, ""), (1, "undone", True, ""),
        (1, "committed", None, ""), (4, "undone", True, ""), (7, "committed", None, "orchestrate attach prod"), (7, "committed", None, ""), (None, "committed", None, ""),
        (-9, "committed", None, ""), (5, None, None, ""), (2, None, None, "")]


def main(options) -> int:
    failures = []
    began = time.time()

    def check(name, holds, seen):
        print(f"{'ok  ' if holds else 'FAIL'} {name}", flush=True)
        if not holds:
            failures.append(name)
            for violation in seen:
                print(f"     {': '.join(violation)}")

    lying(check)
    options.binary = options.binary.resolve()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rig = Rig(f"{options.prefix}-1", Path(folder), options.binary, options.lease)
        try:
            rig.prepare()
            if rig.version() == OLD:
                rig.operate("deploy")
            assert rig.version() == NEW
            planted(rig, check)
        finally:
            rig.close()
    named = {plant.invariant for plant in PLANTS}
    check("each invariant has a plant", not (missing := [one.__name__ for one in observer.INVARIANTS if one.__name__ not in named]), [(name, "") for name in missing])
    print(f"{len(PLANTS) + len(LIES)} plants, {len(failures)} not named, in {time.time() - began:.0f} s")
    return 1 if failures else 0


def lying(check):
    nothing = Case(0, "deploy", [], Instant("", 0), 0)
    for status, outcome, healthy, text in LIES:
        deployment = {"outcome": outcome, "healthy": healthy} if outcome else None
        check(f"the client's word: exit status {status} for {outcome or 'nothing'}{'' if healthy is None else f', healthy {healthy}'}", truth(status, deployment, nothing, text), [])
    killed = Case(0, "deploy", [fault for fault in FAULTS if fault.name == "SIGKILL"], Instant("", 0), 0)
    in_time = {"safe_after": 9.0, "parts": {"last_start": 2.9, "last_end": 6.0, "until_undo": 6.1, "undo": 2.5}}
    check("time to safety: nothing is named in time", not list(Campaign.slow(killed, in_time)), [])
    for name, more in (("time to safety", {"last_end": 0.5, "until_undo": 9.0}), ("lease", {"last_start": 5.5})):
        seen = list(Campaign.slow(killed, {**in_time, "parts": {**in_time["parts"], **more}}))
        check(f"{name}: {more}", [one for one, _ in seen] == [name], seen)
    seen = list(Campaign.slow(killed, {**in_time, "safe_after": 20.0}))
    check("time to safety: after the undo", [one for one, _ in seen] == ["time to safety"], seen)
    check("a seed means the same again, and another something else",
          case(7, FAULTS, 3) == case(7, FAULTS, 3) and len({str(case(seed, FAULTS, 3)) for seed in range(100)}) == 100, [])


def planted(rig, check):
    telegram = rig.project.telegram
    telegram.reset()
    telegram.stream(4)
    rig.writer.begin()
    time.sleep(3)
    telegram.stop()
    rig.writer.end()
    telegram.wait_answered(telegram.counts()["sent"], 20)
    rig.sql("select 1")
    rig.root("cat >/root/highest", stdin=rig.sql("select max(seq) from faults_rows"))
    before = observer.look(rig.droplet)
    expected = observer.Expected(before, acknowledged=set(rig.writer.acknowledged), confirmed=[message["update_id"] for message in telegram.messages() if message["confirmed_at"]])
    check("nothing is planted: nothing is named", not (seen := observer.judge(before, expected)) and expected.acknowledged and expected.confirmed, seen)
    check("messages: unanswered", ("messages", "1 of 2 messages were never answered") in observer.judge(before, observer.Expected(before, counts={"unanswered": 1, "sent": 2})), [])
    check("messages: answered twice", any("answered twice" in text for _, text in observer.judge(before, observer.Expected(before, counts={"answered_twice": 1, "sent": 2}))), [])
    check("poller: a conflict", any("polled at once" in text for _, text in observer.judge(before, observer.Expected(before, counts={"conflicts": 1}))), [])
    for plant in PLANTS:
        rig.root(HEAD + plant.script)
        seen = observer.judge(observer.look(rig.droplet), expected)
        check(f"{plant.invariant}: {plant.text}", any(name == plant.invariant and plant.text in text for name, text in seen) or plant.text == "names nothing" and ("current", "current names None") in seen, seen)
        rig.root(HEAD.replace("release=$(readlink -f $opt/current)", "release=$(readlink -f $opt/current || :)") + plant.undo)
        if plant.invariant == "restarts":  # can't be undone
            before = observer.look(rig.droplet)
            expected.before = before
        if left := observer.judge(observer.look(rig.droplet), expected):
            check(f"{plant.invariant}: {plant.text}: taken away again", False, left)
            time.sleep(2)
