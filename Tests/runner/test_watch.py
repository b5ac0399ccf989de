"""The watch over a committed release: its end, a breach and the way back, who it makes way for, and a runner that dies at each of its events.

Docker is a script that says what a test has written down for it."""

import json
import os
import signal
import subprocess

import pytest
from conftest import IDS, NO_RELEASE, RELEASE, deployment, eventually, step
from test_durability import Disk

DOCKER = r"""
at=$ORCHESTRATE_OPT/docker
[ ! -e "$at/away" ] || exit 1
case $1 in
  ps) [ ! -e "$at/ps" ] || cat "$at/ps" ;;
  inspect) cat "$at/inspect" ;;
  version) echo 26.1.5 ;;
esac
"""
# Kills the runner behind the fsync of the event that `kill-on` names.
SYNC = r"""
/usr/bin/sync "$@" || exit
[ -e "$ORCHESTRATE_OPT/kill-on" ] || exit 0
read -r number word <"$ORCHESTRATE_OPT/kill-on"
[ "${PWD##*/}" = "$number" ] && tail -n 1 journal.jsonl 2>/dev/null | grep -q "^{\"event\":\"$word\"" || exit 0
rm "$ORCHESTRATE_OPT/kill-on"
read -r _ pid _ <"$ORCHESTRATE_STATE/app/runner.pid"
kill -KILL "$pid"
sleep 5 # whatever we are in ends with its runner, as its unit would end it
"""
RUNNING = "c1 bot running 2026-11-22T10:00:00Z 0 false 0 xunless-stopped none\n"
CRASHED = "c1 bot running 2026-11-22T10:00:05Z 1 false 0 xunless-stopped none\n"
EXITED = "c1 bot exited 2026-11-22T10:00:00Z 0 false 3 xunless-stopped none\n"
BOT = 'mkdir -p "$ORCH_RELEASE/recreate"; echo "\'bot\'" >"$ORCH_RELEASE/recreate/recreate"\n'
WATCHING = {"command": "deploy", "version": "v2"}


def shipped(*more, seconds=60):
    """The way back, as the client ships it."""
    steps = deployment(
        step("01-release", RELEASE + '; grep -q "\\"number\\" : $ORCH_N," release.json; cp secret.txt "$ORCH_OPT/used-secret"', NO_RELEASE,
             SECRETS="secret.txt", files=[("secret.txt", "hush"), ("release.json", '{\n  "number" : 3,\n  "created" : "x"\n}\n')]), *more)
    files = {f"watch/{path}": file for path, file in steps.items() if not path.startswith("04-")}
    request = {"environment": "test", "app": "app", "who": "the watch over #2", "command": "rollback", "version": "v1", "k": "thewayback"}
    files["watch/request"] = (0o600, json.dumps(request, separators=(",", ":")).encode())
    files["watch/params"] = (0o600, f"WATCH='{seconds}'\nVERSION='v2'\n".encode())
    return files


class Docker:
    def __init__(self, host):
        self.host, self.at = host, host.opt_base / "docker"
        self.at.mkdir()
        host.tool("docker", DOCKER)
        self.says(RUNNING)
        (self.at / "ps").write_text("c1 bot running\n")
        self.open_to_all()

    def says(self, text):
        (self.at / "new").write_text(text)
        (self.at / "new").rename(self.at / "inspect")
        self.open_to_all()

    def open_to_all(self):
        for path in [self.at, *self.at.iterdir()]:
            path.chmod(0o755)


@pytest.fixture
def docker(host):
    return Docker(host)


@pytest.fixture
def first(host, docker):
    return running(host)


def running(host):
    """Release 1 runs."""
    assert host.connect().run(deployment())["outcome"] == "committed"
    host.await_free_lock()
    eventually(lambda: not (host.state / "runner.pid").exists(), "the runner's end")
    return host


def watched(host, *more, seconds=60, **options):
    """Release 2 is committed, and watched."""
    client = host.connect()
    assert client.open(**{**WATCHING, **options})[0] == "granted"
    client.send({**deployment(step("01-release", RELEASE + "\n" + BOT, NO_RELEASE)), **shipped(*more, seconds=seconds)})
    assert client.closed()["outcome"] == "committed"
    return client


def names(host, number):
    """The journal's events from its end on."""
    events = [event["event"] for event in host.journal(number)]
    return events[events.index("closed"):]


def is_over(host):
    return not (host.state / "watching").exists() and host.lock_is_free() and not (host.state / "runner.pid").exists()


def state(host):
    return (host.opt / "state").read_text().strip()


def test_it_ends_well(first):
    client = watched(first, seconds=2)
    assert client.closed()["watch"] == 2
    assert client.await_event("watching")["seconds"] == 2
    holder = json.loads((first.state / "holder").read_text())
    assert holder["watching"] == 2 and holder["version"] == "v2" and holder["number"] == 2 and not first.lock_is_free()
    assert client.ask("state 2") == ("state", "watching")
    assert client.await_event("watched")["reason"] == "over"
    eventually(lambda: is_over(first), "the end of the watch")
    assert names(first, 2) == ["closed", "watching", "watched"]
    assert not (first.state / "deployments/2/watch").exists() and not (first.state / "reserve").exists()
    assert not (first.state / "holder").exists() and first.current() == "releases/2"
    assert [line["number"] for line in first.history()] == [1, 2]
    assert client.ask("state 2") == ("state", "ended")


def test_without_one_nothing_is_new(first):
    client = first.connect()
    client.run(deployment(), **WATCHING)
    first.await_free_lock()
    assert "watch" not in client.closed() and names(first, 2) == ["closed"] and not (first.state / "watching").exists()


def test_a_deployment_that_fails_keeps_nothing_of_it(first):
    client = first.connect()
    client.open(**WATCHING)
    client.send({**deployment(step("03-fails", "exit 1", "", CHANGES=1)), **shipped()})
    assert client.closed()["outcome"] == "undone" and "watch" not in client.closed()
    assert not (first.state / "deployments/2/watch").exists() and not (first.state / "watching").exists()


@pytest.mark.parametrize("now, why", [(CRASHED, "bot: it crashed and was restarted by Docker"), (EXITED, "bot: it ended with exit status 3")])
def test_a_breach_leads_back(first, docker, now, why):
    client = watched(first)
    client.await_event("watching")
    client.close()  # nobody has to be there
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    docker.says(now)
    eventually(lambda: is_over(first), "the way back")
    breached = next(event for event in first.journal(2) if event["event"] == "breached")
    assert breached["text"] == why and breached["rollback"] == 3 and names(first, 2) == ["closed", "watching", "breached"]
    assert first.current() == "releases/3" and state(first) == "3"
    line = first.history()[-1]
    assert (line["number"], line["command"], line["who"], line["outcome"], line["previous"]) == (3, "rollback", "the watch over #2", "committed", 2)
    assert line["reason"] == why and line["version"] == "v1"
    for path in ("deployments/2/watch", "deployments/3/01-release/secret.txt", "reserve", "holder"):
        assert not (first.state / path).exists(), path
    assert (first.opt / "used-secret").read_text() == "hush"
    # Whoever follows comes from one log to the other.
    follower = first.connect()
    assert follower.ask("follow 2 0") == ("following", "ended")
    assert follower.await_event("breached")["rollback"] == 3
    assert follower.ask("follow 3 0") == ("following", "ended")
    assert follower.await_event("opened", number=3)["k"] == "thewayback"
    assert first.connect().run(deployment())["outcome"] == "committed"


def test_a_gate_that_fails_three_times(first, docker):
    gate = "SERVICE='bot'\nPROBE='exec'\nURL=''\nCOMMAND=\"'true'\"\nSTATUS=''\nEXPECT=''\nWITHIN_MS='200'\nSTABLE_MS='0'\nRESTARTS='0'\n"
    first.tool("docker", DOCKER.replace("  version)", """  exec) cat >/dev/null & while echo "$(cat "$at/answer")"; do sleep 0.1; done ;;
  version)""").replace('inspect) cat "$at/inspect"', 'inspect) case $3 in *.Image*) echo "c1 i running 2026-11-22T10:00:00Z 0 false 0" ;; *) cat "$at/inspect" ;; esac'))
    (docker.at / "answer").write_text("0 fine\n")
    docker.open_to_all()
    client = first.connect()
    client.open(**WATCHING)
    client.send({**deployment(step("01-release", RELEASE + "\n" + BOT + 'mkdir "$ORCH_RELEASE/gates"; cp gate "$ORCH_RELEASE/gates/health"', NO_RELEASE, files=[("gate", gate)])),
                 **shipped()})
    client.await_event("watching")
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    (docker.at / "answer").write_text("1 the secret is out\n")
    assert client.await_event("breached")["text"] == "bot: its check ended with exit status 1 (waited 0.2 s), 3 times in a row"
    assert b"(1 of 3)" in client.log and b"(2 of 3)" in client.log and b"the secret is out" not in client.log
    eventually(lambda: is_over(first), "the way back")
    assert first.current() == "releases/3"


def test_a_way_back_that_fails_is_undone(first, docker):
    client = watched(first, step("02-change", 'echo "$ORCH_N" >"$ORCH_OPT/state"; exit 1', 'echo "$ORCH_PREVIOUS" >"$ORCH_OPT/state"', CHANGES=1))
    client.await_event("watching")
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    docker.says(EXITED)
    eventually(lambda: is_over(first), "the way back and its undo")
    assert first.current() == "releases/2" and state(first) == "2"
    assert first.history()[-1]["outcome"] == "undone" and first.history()[-1]["cause"] == "step-failed"
    assert names(first, 2) == ["closed", "watching", "breached"] and not (first.state / "deployments/2/watch").exists()


def test_a_new_release_ends_it(first):
    client = watched(first)
    client.await_event("watching")
    other = first.connect()
    assert other.open(command="deploy", version="v3")[0] == "granted"
    assert other.n == 3 and other.recovered == ["2 watch"] and other.previous == "2"
    assert client.await_event("watched") | {"reason": "superseded", "by": 3} == client.await_event("watched")
    assert not (first.state / "watching").exists() and not (first.state / "deployments/2/watch").exists()
    assert json.loads((first.state / "holder").read_text())["version"] == "v3" and first.runner_pid()
    other.send(deployment())
    assert other.closed()["outcome"] == "committed"


def test_whoever_waits_comes_in_when_it_begins(first):
    """It has waited for the deployment; the watch makes way."""
    client = first.connect()
    client.open(**WATCHING)
    other = first.connect()
    other.say("open other 60 60 46", b'{"environment":"test","app":"app","command":"x"}'[:46].replace(b'"x"}', b'"x"}'))
    other.wait_for(lambda: any("place" in wait for wait in other.waits), "a place in the queue")
    client.send({**deployment(step("01-release", RELEASE + "\n" + BOT, NO_RELEASE)), **shipped(seconds=2)})
    client.await_event("watched", reason="over")  # what leaves the release alone waits for its end
    other.wait_for(lambda: other.replies, "grant")
    assert other.replies[0][0] == "granted"


def test_what_leaves_the_release_alone_waits_and_is_told(first):
    client = watched(first, seconds=3)
    client.await_event("watching")
    other = first.connect()
    assert other.open(command="backup")[0] == "granted"  # though it has no time to wait
    assert client.await_event("watched")["reason"] == "over" and other.recovered == []
    assert json.loads(next(wait for wait in other.waits if wait))["watching"] == 2


def test_it_is_ended_by_hand(first):
    client = watched(first)
    client.await_event("watching")
    assert client.ask("abort 2 4", b"why?") == ("ok", "")
    assert client.await_event("watched")["reason"] == "aborted"
    eventually(lambda: is_over(first), "the end of the watch")
    assert client.ask("abort 2 4", b"why?")[0] == "refused"
    assert first.current() == "releases/2"


def test_docker_may_go_and_come_back(first, docker):
    """What its restart does to the containers is no breach; whoever starts them again gets the lock."""
    client = watched(first)
    client.await_event("watching")
    (docker.at / "away").touch()
    docker.says(EXITED)
    eventually(first.lock_is_free, "the lock, for whoever brings the release back")
    assert client.ask("state 2") == ("state", "watching")
    docker.says(CRASHED)
    (docker.at / "away").unlink()
    client.wait_for(lambda: len(client.events("watching")) == 2, "a watch afresh")
    assert not first.lock_is_free()
    docker.says(EXITED)
    assert client.await_event("breached")
    eventually(lambda: is_over(first), "the way back")
    assert names(first, 2) == ["closed", "watching", "watching", "breached"]


def test_whoever_starts_the_release_again_is_let_in(first):
    client = watched(first)
    client.await_event("watching")
    inbox = first.state / "deployments/2/inbox"
    with open(os.open(inbox, os.O_RDWR), "w") as fifo:
        fifo.write("yield\n")
    client.wait_for(lambda: len(client.events("watching")) == 2, "a watch afresh")


def test_a_new_release_while_it_has_let_go(first, docker):
    client = watched(first)
    client.await_event("watching")
    (docker.at / "away").touch()
    eventually(first.lock_is_free, "the lock")
    other = first.connect()
    assert other.open(command="deploy")[0] == "granted" and other.recovered == ["2 watch"]
    assert client.await_event("watched")["by"] == 3
    (docker.at / "away").unlink()
    other.send(deployment())
    assert other.closed()["outcome"] == "committed"
    first.await_free_lock()
    eventually(lambda: not first.runners(), "the end of both")
    assert first.current() == "releases/3"


def test_a_look_that_is_killed_is_no_end_of_looking(first, docker):
    client = watched(first)
    client.await_event("watching")
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    first.tool("timeout", f"""case "$*" in *look.sh*) [ -e "$ORCHESTRATE_OPT/killed" ] || {{ touch "$ORCHESTRATE_OPT/killed"; kill -KILL $PPID; exit; }} ;; esac
exec /usr/bin/timeout "$@\"""")
    os.chmod(first.opt_base, 0o777)
    eventually((first.opt_base / "killed").exists, "the death of a look")
    docker.says(EXITED)
    assert client.await_event("breached")["text"] == "bot: it ended with exit status 3"


def kill(host):
    pid = host.runner_pid()
    os.kill(pid, signal.SIGKILL)
    host.await_free_lock()


def test_a_dead_watch_is_taken_up_afresh(first, docker):
    client = watched(first)
    client.await_event("watching")
    kill(first)
    assert client.ask("state 2") == ("state", "dead")
    assert client.recover()[0] == "recovered"
    client.wait_for(lambda: len(client.events("watching")) == 2, "a watch afresh")
    docker.says(EXITED)
    client.await_event("breached")
    eventually(lambda: is_over(first), "the way back")
    assert first.current() == "releases/3"


@pytest.mark.parametrize("command, reason", [("deploy", "superseded"), ("backup", None)])
def test_a_dead_watch_and_who_comes_next(first, command, reason):
    client = watched(first)
    client.await_event("watching")
    kill(first)
    other = first.connect()
    assert other.open(command=command)[0] == "granted" and other.recovered == (["2 watch"] if reason else [])
    other.send(deployment() if reason else step("01-look", "true"))
    other.closed()
    if reason:
        assert names(first, 2) == ["closed", "watching", "watched"] and not (first.state / "watching").exists()
        assert not (first.state / "deployments/2/watch").exists()  # what was shipped may hold secrets
    else:
        eventually(lambda: names(first, 2) == ["closed", "watching", "watching"], "a watch afresh, behind the backup")


@pytest.mark.parametrize("number, event", [
    (2, "committed"), (2, "closed"), (2, "watching"), (2, "breached"), (3, "accepted"), (3, "started"), (3, "ended"), (3, "committing"),
    (3, "committed"), (3, "closed"),
])
def test_killed_at_each_event(first, docker, number, event):
    """Whoever has the lock next goes on: the breach leads back all the same, or what had begun is closed."""
    first.tool("sync", SYNC)
    (first.opt_base / "kill-on").write_text(f"{number} {event}\n")
    if IDS:
        os.chown(first.opt_base, IDS["user"], IDS["group"])
    client = first.connect()
    client.open(**WATCHING)
    client.send({**deployment(step("01-release", RELEASE + "\n" + BOT, NO_RELEASE)), **shipped()})
    if number == 3 or event == "breached":
        eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
        docker.says(EXITED)
    eventually(lambda: not (first.opt_base / "kill-on").exists(), "the death of the runner")
    first.await_free_lock()
    docker.says(RUNNING)
    assert first.connect().recover()[0] == "recovered"
    if (first.state / "watching").exists() and not (first.state / "deployments/4").exists():
        eventually(lambda: is_over(first) or (first.state / "deployments/2/watch/baseline").exists(), "a watch again")
        docker.says(EXITED)
    eventually(lambda: is_over(first), "the end")
    current = int(first.current().removeprefix("releases/"))
    assert current > 2 and state(first) == str(current), (first.describe())
    if (number, event) in ((3, "committed"), (3, "closed")):
        assert current == 3 and names(first, 2)[-1] == "breached"  # what has gone back isn't watched over any more
    assert not (first.state / "deployments/2/watch").exists()
    assert first.connect().run(deployment())["outcome"] == "committed"


def test_a_new_release_behind_a_backup_finds_a_dead_watch(first):
    client = watched(first)
    client.await_event("watching")
    kill(first)
    other = first.connect()
    other.open(command="backup")
    other.send(step("01-look", "true"))
    other.closed()
    client.wait_for(lambda: len(client.events("watching")) == 2, "a watch afresh, behind the backup")
    kill(first)
    third = first.connect()
    assert third.open(command="deploy")[0] == "granted" and (third.n, third.recovered) == (4, ["2 watch"])
    assert names(first, 2) == ["closed", "watching", "watching", "watched"] and not (first.state / "deployments/2/watch").exists()


def test_a_command_that_leaves_the_release_alone_while_it_has_let_go(first, docker):
    """There is one watch, and it stays the one that is talked to."""
    client = watched(first)
    client.await_event("watching")
    pid = first.runner_pid()
    (docker.at / "away").touch()
    eventually(first.lock_is_free, "the lock")
    other = first.connect()
    assert other.open(command="backup")[0] == "granted"
    other.send(step("01-look", "true", CHANGES=1))
    other.closed()
    eventually(lambda: (first.state / "runner.pid").exists() and first.runner_pid() == pid, "the end of the backup's runner")
    assert client.ask("state 2") == ("state", "watching")
    (docker.at / "away").unlink()
    client.wait_for(lambda: len(client.events("watching")) == 2, "a watch afresh")
    assert first.runner_pid() == pid and client.ask("abort 2 4", b"why?") == ("ok", "")
    assert client.await_event("watched")["reason"] == "aborted"
    eventually(lambda: is_over(first), "the end of the watch")


def test_something_is_open_when_it_comes_back(first, docker):
    client = watched(first)
    client.await_event("watching")
    (docker.at / "away").touch()
    eventually(first.lock_is_free, "the lock")
    other = first.connect()
    assert other.open(command="backup")[0] == "granted"
    other.send(step("01-look", "sleep 30", CHANGES=1), seal=False)
    other.await_event("started")
    os.kill(first.runner_pid(), signal.SIGKILL)
    (docker.at / "away").unlink()
    client.wait_for(lambda: len(client.events("watching")) == 2, "a watch afresh")
    assert first.journal(3)[-1]["event"] == "closed" and not (first.state / "open").exists()


def test_nothing_is_opened_above_a_way_back_that_is_stuck(first, docker):
    client = watched(first, step("02-change", 'read -r _ pid _ <"$ORCH_STATE/runner.pid"; kill -KILL "$pid"; sleep 2', "exit 1", CHANGES=1))
    client.await_event("watching")
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    docker.says(EXITED)
    client.await_event("breached")
    eventually((first.state / "deployments/3").exists, "the way back")
    first.await_free_lock()
    assert client.recover() == ("recovered", "3 stuck")
    eventually(lambda: is_over(first), "the end")
    assert names(first, 2)[-1] == "breached" and not (first.state / "deployments/4").exists()


def test_the_reason_of_a_way_back_is_on_the_disk_before_it(first, docker):
    disk = Disk(first)
    client = watched(first)
    client.await_event("watching")
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    disk.set("kill-at", "accepted")
    docker.says(EXITED)
    eventually(lambda: not (disk.path / "kill-at").exists(), "the kill")
    assert (first.state / "deployments/3").exists()
    assert '"event":"breached"' in disk.text(first.state / "deployments/2/journal.jsonl")


def test_the_mark_of_a_watch_is_on_the_disk_before_the_end(first):
    disk = Disk(first)
    disk.set("kill-at", "closed")
    client = first.connect()
    client.open(**WATCHING)
    client.send({**deployment(step("01-release", RELEASE + "\n" + BOT, NO_RELEASE)), **shipped()})
    eventually(lambda: not (disk.path / "kill-at").exists(), "the kill")
    assert disk.text(first.state / "watching") == "2\n" and " watching\n" in disk.text(first.state)


def by_a_new_release(host, _):
    assert host.connect().open(command="deploy")[0] == "granted"


def by_a_recovery(host, _):
    assert host.connect().recover()[0] == "recovered"


def by_who_asks(_, client):
    client.ask("state 2")


@pytest.mark.parametrize("event", ["watched", "breached"])
@pytest.mark.parametrize("found", [by_a_new_release, by_a_recovery, by_who_asks])
def test_who_believes_a_line_of_the_watch_syncs_it(first, docker, event, found):
    """Killed between the line and its fsync: lost with the power, a watch that is settled would begin afresh, or a way back come from nowhere."""
    disk = Disk(first)
    disk.set("kill-at", event)
    client = watched(first, seconds=2 if event == "watched" else 60)
    if event == "breached":
        docker.says(EXITED)
    eventually(lambda: not (disk.path / "kill-at").exists(), "the kill")
    first.await_free_lock()
    journal = first.state / "deployments/2/journal.jsonl"
    line = f'"event":"{event}"'
    assert line in journal.read_text() and line not in disk.text(journal)
    found(first, client)
    if found is by_a_recovery:  # answered before it goes on with the watch
        eventually(lambda: line in disk.text(journal), "the fsync")
    assert line in disk.text(journal)
    if (event, found) == ("breached", by_a_new_release):
        assert names(first, 2) == ["closed", "watching", "breached"]  # it doesn't end what has ended


def test_who_ends_a_watch_that_has_let_go_and_dies_at_it(first, docker):
    client = watched(first)
    client.await_event("watching")
    (docker.at / "away").touch()
    eventually(first.lock_is_free, "the lock")
    first.tool("sync", SYNC)
    (first.opt_base / "kill-on").write_text("2 watched\n")
    if IDS:
        os.chown(first.opt_base, IDS["user"], IDS["group"])
    request = b'{"environment":"test","app":"app","command":"deploy"}'
    first.connect().say(f"open other 60 0 {len(request)}", request)
    eventually(lambda: not (first.opt_base / "kill-on").exists(), "its death")
    (docker.at / "away").unlink()
    eventually(lambda: not first.runners() and not (first.state / "watching").exists(), "the end of both")
    assert names(first, 2) == ["closed", "watching", "watched"] and not (first.state / "deployments/2/watch").exists()


def test_a_runner_that_is_started_again_ends_no_watch(first):
    """As systemd does after a crash, when another one has closed what it had open and gone on: it has nothing to open."""
    dead = first.connect()
    dead.open(**WATCHING)
    os.kill(first.runner_pid(), signal.SIGKILL)
    first.await_free_lock()
    client = first.connect()
    assert client.open(**WATCHING)[0] == "granted" and client.n == 3
    client.send({**deployment(step("01-release", RELEASE + "\n" + BOT, NO_RELEASE)), **shipped()})
    client.await_event("watching")
    runner = first.base / "bundle" / first.bundle_name / "runner.sh"
    again = [first.path("sh"), str(runner), "open", "app", dead.nonce, "60", "3"]
    assert subprocess.run(again, env=first.environment, **IDS).returncode == 75
    assert names(first, 3) == ["closed", "watching"] and not first.lock_is_free()


def test_killed_again_and_again(first, docker):
    """A way back that takes the host along isn't tried for ever."""
    client = watched(first, step("02-change", 'read -r _ pid _ <"$ORCH_STATE/runner.pid"; kill -KILL "$pid"; sleep 2', 'echo "$ORCH_PREVIOUS" >"$ORCH_OPT/state"', CHANGES=1))
    client.await_event("watching")
    eventually((first.state / "deployments/2/watch/baseline").exists, "the first look")
    for number in (3, 4, 5):
        docker.says(EXITED)
        eventually((first.state / f"deployments/{number}").exists, f"deployment {number}")
        eventually(lambda: "02-change" in str(first.journal(number)[-1]), "its step")
        first.await_free_lock()
        docker.says(RUNNING)
        assert first.connect().recover()[0] == "recovered"
        if number < 5:
            eventually((first.state / "deployments/2/watch/baseline").exists, "the first look of a watch afresh")
    eventually(lambda: is_over(first), "the end of it")
    assert first.current() == "releases/2" and state(first) == "2" and not (first.state / "deployments/6").exists()
