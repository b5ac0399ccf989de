"""Messages, offsets, lock, lease, abort, detach, client-side steps."""

import json
import os
import random
import re
import signal
import stat
import subprocess
import time

import pytest
from conftest import HOST, IDS, Client, deployment, eventually, step, tar

COMMIT = step("09-commit", SIDE="commit", KIND="commit-test")
GATE = 'while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.05; done'


def go(host):
    (host.opt / "go").write_text("")


def test_every_byte_once_over_cuts(host, client):
    """Connections that end anywhere: what was received in all is the log, byte for byte."""
    text = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; printf 'é half '; sleep 0.1; done"
    client.open()
    number = client.n
    client.send(deployment(step("02-chatty", text, "")))
    received, dice = b"", random.Random(host.shell)
    for _ in range(8):
        time.sleep(dice.uniform(0, 0.15))
        client.cut()
        received += client.log
        client = host.connect()
        tag, state = client.ask(f"follow {number} {len(received)}")
        assert tag == "following" and state in ("live", "ended")
    client.wait_for(lambda: b'"event":"closed"' in received + client.log and (received + client.log).endswith(b"}\n"), "end")
    received += client.log
    assert received == (host.state / "deployments" / str(number) / "log").read_bytes()
    lines = received.decode().split("\n")
    assert [line for line in lines if "line" in line and "\1" not in line] == ["line 1"] + [f"é half line {i}" for i in range(2, 11)]


def test_two_opens_at_once(host):
    clients = [host.connect() for _ in range(3)]
    for client in clients:
        body = json.dumps({"environment": "test", "app": "app", "who": str(id(client))}).encode()
        client.say(f"open n{id(client)} 60 0 {len(body)}", body)
    for client in clients:
        client.wait_for(lambda: client.replies, "answer")
    tags = sorted(client.replies[0][0] for client in clients)
    assert tags == ["granted", "locked", "locked"]
    [winner] = [client for client in clients if client.replies[0][0] == "granted"]
    for client in clients:
        if client is not winner:
            holder = json.loads(client.replies[0][1])
            assert holder == {} or (holder["who"] == str(id(winner)) and holder["number"] == 1 and holder["opened"] > 0)


def test_refusal_names_the_holder_within_a_second(host, client):
    client.open(who="the first")
    second = host.connect()
    begun = time.monotonic()
    tag, body = second.open(who="the second")
    assert (tag, json.loads(body)["who"]) == ("locked", "the first")
    assert time.monotonic() - begun < 1.5
    assert host.history() == [] if (host.state / "history.jsonl").exists() else True


def test_waiting_for_the_lock(host, client):
    client.open()
    client.send(deployment(step("02-gate", GATE, "")))
    second = host.connect()
    body = b'{"environment":"test","app":"app"}'
    second.nonce = "waiter"
    second.say(f"open waiter 60 20 {len(body)}", body)
    second.wait_for(lambda: second.waits[-2:] == ["", ""] and any(second.waits), "the holder, and two signs of life")
    assert [json.loads(text)["number"] for text in filter(None, second.waits)] == [1]  # the holder is told once
    go(host)
    client.closed()
    second.wait_for(lambda: second.replies, "grant")
    assert second.replies[0] == ("granted", "2 1")


def queue(host, nonce="waiter"):
    """A second client in the queue for the lock, and the id of its runner."""
    waiter = host.connect()
    body = b'{"environment":"test","app":"app"}'
    waiter.say(f"open {nonce} 60 600 {len(body)}", body)
    waiter.wait_for(lambda: any(waiter.waits), "whom it waits for")  # before that, once a second, a mere sign of life
    return waiter


def test_who_waits_gets_the_lock_in_turn(host, client):
    """Whoever asks first, also when somebody in between has gone, or asks without waiting when it gets free."""
    client.open(who="the first")
    client.send(deployment(step("02-gate", GATE, "")))
    waiters = [queue(host, f"waiter-{number}") for number in (2, 3, 4, 5)]
    for number, waiter in enumerate(waiters):
        told = json.loads(next(filter(None, waiter.waits)))
        assert (told["who"], told["place"]) == ("the first", number + 1)
    waiters[1].cut()
    waiters[3].wait_for(lambda: any('"place":3' in text for text in waiters[3].waits), "one is before it no more")
    impatient = host.connect()
    assert impatient.open()[0] == "locked"
    go(host)
    client.closed()
    del waiters[1]
    for number, waiter in enumerate(waiters):
        waiter.wait_for(lambda: waiter.replies, "grant")
        assert waiter.replies[0][0] == "granted" and waiter.replies[0][1].split()[0] == str(number + 2)
        assert sum(bool(other.replies) for other in waiters) == number + 1
        assert impatient.open()[0] == "locked"
        waiter.number = number + 2
        waiter.ask(f"abort {waiter.number} 0")
        waiter.closed()
    eventually(lambda: not list((host.state / "queue").iterdir()), "nobody's ticket is left")


@pytest.mark.parametrize("way", ["attach-killed", "channel-closed"])
def test_whose_client_is_gone_leaves_the_queue(host, client, way):
    client.open()
    waiter = queue(host)
    assert host.runners("waiter")
    if way == "attach-killed":
        waiter.cut()
    else:
        # sshd closes its ends of the pipes; attach finds out when it writes.
        for stream in (waiter.process.stdin, waiter.process.stdout, waiter.process.stderr):
            stream.close()
    eventually(lambda: not host.runners("waiter"), "the runner that nobody waits for has left", 5)
    # Nobody stands between us and the lock: no deployment of the departed.
    client.send(deployment())
    client.closed()
    third = host.connect()
    assert third.open() == ("granted", "2")


def test_the_recovery_at_boot_leaves_the_queue_when_somebody_else_has_closed_it(host, client):
    """The unit came to nothing, or failed after a minute, while the next deployment ran."""
    client.open()
    client.send(deployment(step("02-gate", GATE, "")))
    waiter = queue(host)
    boot = host.start(f"{host.state}/bundle/runner.sh", "recover", "app", "boot", "60")
    eventually(lambda: len(list((host.state / "queue").iterdir())) == 2, "it waits")
    go(host)
    client.closed()
    waiter.wait_for(lambda: waiter.replies, "grant")
    assert boot.wait(20) == 0
    assert not host.lock_is_free()
    waiter.number = 2
    assert waiter.ask("beat 2") == ("beat", "live")
    waiter.ask("abort 2 0")
    waiter.closed()


def test_a_runner_is_started_ahead_of_its_request(host):
    client = Client(host, asked="prepare ahead 60 0\nget /opt/app/current/.env\nget /var/lib/orchestrate/app/sequence\nfacts")
    client.wait_for(lambda: len(client.replies) == 4, "four replies")
    assert [tag for tag, _ in client.replies] == ["ok", "none", "none", "facts"]
    assert "boot_id=" in client.replies[3][1]
    eventually(lambda: host.runners("ahead"), "it is there")
    # It stands in nobody's way.
    other = host.connect()
    assert other.open() == ("granted", "1")
    other.send(deployment())
    other.closed()
    pids = host.runners("ahead")
    assert client.open(nonce="ahead") == ("granted", "2")
    assert client.previous == "1"
    assert host.runner_pid() in pids
    client.send(deployment())
    assert client.closed()["outcome"] == "committed"


@pytest.mark.parametrize("number, previous, is_taken", [(1, 0, True), (2, 0, False), (1, 3, False)])
def test_steps_that_come_with_the_request(host, client, number, previous, is_taken):
    request = b'{"environment":"test","app":"app"}'
    steps = tar(deployment())
    tag, body = client.ask(f"open ahead 60 0 {len(request)} {len(steps)} {number} {previous}", request + steps)
    assert (tag, body) == ("granted", "1 0" + " taken" * is_taken)
    eventually(lambda: not list(host.state.glob("attach.*")), "nothing of them is left")
    client.nonce, client.n = "ahead", 1
    if not is_taken:
        assert [path.name for path in (host.state / "deployments/1").glob("0*")] == []
        client.send(deployment(), seal=False)
    # Without another word from the client. Steps that are there when the deployment is told of found no reader of the inbox yet.
    accepted = client.await_event("accepted")["up"]
    assert accepted - client.await_event("opened")["up"] < 0.9 or not is_taken
    assert client.ask("seal 1") == ("ok", "")
    assert client.closed()["outcome"] == "committed"


def test_faulty_steps_that_come_with_the_request_are_told_when_they_are_sent_again(host, client):
    request = b'{"environment":"test","app":"app"}'
    steps = tar({"01-x/meta": (0o600, b"KIND=nowhere\n")})
    assert client.ask(f"open ahead 60 0 {len(request)} {len(steps)} 1 0", request + steps) == ("granted", "1 0")
    assert client.ask(f"steps 1 {len(steps)}", steps) == ("refused", "01-x: there is no apply.sh for nowhere.")


def test_steps_whose_scripts_find_no_space_are_refused(host, client):
    """A step without a script would count as done."""
    client.open()
    host.tool("tar", '/usr/bin/tar "$@" && mkdir "$3.scripts"')  # nothing can be written where their names are kept
    body = tar({"01-linked/meta": (0o600, b"KIND=linked\n")})
    tag, why = client.ask(f"steps 1 {len(body)}", body)
    assert tag == "refused" and why.endswith("01-linked: no space is left for its scripts."), why
    assert not (host.state / "deployments/1/01-linked").exists()


def test_a_runner_of_whom_nothing_is_asked_ends_with_the_conversation(host):
    client = Client(host, asked="prepare ahead 60 0")
    eventually(lambda: host.runners("ahead"), "it is there")
    client.cut()
    eventually(lambda: not host.runners("ahead"), "it has gone", 5)
    other = host.connect()
    assert other.open() == ("granted", "1")


def test_another_start_than_the_one_that_was_prepared(host):
    client = Client(host, asked="prepare ahead 60 0")
    client.wait_for(lambda: client.replies, "ok")
    assert client.open() == ("granted", "1")
    eventually(lambda: not host.runners("ahead"), "it has gone", 5)
    client.send(deployment())
    assert client.closed()["outcome"] == "committed"


def test_a_child_that_is_killed_at_once_is_not_waited_for(host):
    """A TERM between fork and exec is taken by the inherited handler and lost: attach stood still for hours where the verdict was fast."""
    end_child = re.search(r"^end_child\(\).*", (HOST / "attach.sh").read_text(), re.M).group()
    script = f"""{end_child}
        trap 'exit 0' HUP INT TERM PIPE
        for i in 1 2 3 4 5 6 7 8 9 10; do (while sleep 60; do :; done) & end_child $!; done"""
    process = host.start("-c", script)
    assert process.wait(20) == 0


@pytest.mark.parametrize("what", ["hangs", "fails"])
def test_a_launch_that_hangs_or_fails_is_an_error(host, client, what):
    host.tool("setsid", "exec sleep 3600" if what == "hangs" else "echo no such luck >&2; exit 1")
    host.tool("sleep", '[ "$1" = 1 ] || exec /bin/sleep "$@"; exec /bin/sleep 0.05')  # time passes faster
    tag, text = client.open()
    assert tag == "error" and text.startswith("runner The runner did not start"), text
    assert what == "hangs" or "no such luck" in text
    host.tool("setsid", 'exec /usr/bin/setsid "$@"')
    assert client.open()[0] == "granted"


def test_a_runner_that_comes_too_late_opens_nothing(host, client):
    host.tool("setsid", f"while [ ! -e {host.directory}/go ]; do /bin/sleep 0.05; done; exec /usr/bin/setsid \"$@\"")
    host.tool("sleep", '[ "$1" = 1 ] || exec /bin/sleep "$@"; exec /bin/sleep 0.05')
    assert client.open(nonce="late")[0] == "error"
    (host.directory / "go").touch()
    eventually(lambda: (host.state / "start/late/output").exists() and not host.runners("late"), "the late runner has gone")
    assert not (host.state / "open").exists() and not (host.state / "deployments/1").exists()
    assert client.open() == ("granted", "1")


def test_the_state_of_a_deployment_can_be_asked_for(host, client):
    assert client.ask("state 1") == ("none", "")
    client.open()
    assert client.ask("state 1") == ("state", "live")
    os.kill(host.runner_pid(), signal.SIGKILL)
    eventually(lambda: client.ask("state 1") == ("state", "dead"), "dead runner")
    # Whoever opens next closes it first, and is told.
    second = host.connect()
    assert second.open() == ("granted", "2") and second.recovered == ["1 unchanged"]
    assert client.ask("state 1") == ("state", "ended")


def test_bootstrap_holds_the_upper_lock(host, client):
    (host.base / "lock").touch()
    os.chmod(host.base / "lock", 0o666)
    (host.base / "holder").write_text('{"who":"bootstrap"}\n')
    with open(host.base / "lock") as held:
        subprocess.run(["flock", "-x", str(held.fileno())], pass_fds=[held.fileno()], check=True)
        assert client.open() == ("locked", '{"who":"bootstrap"}')
    assert client.open(nonce="again")[0] == "granted"


def test_messages_for_another_number_are_refused(host, client):
    assert client.ask("abort 1 3", b"why")[0] == "refused"
    client.open()
    body = tar(deployment())
    for number in ("2", "0", "x", "../1"):
        assert client.ask(f"steps {number} {len(body)}", body)[0] == "refused"
        assert client.ask(f"seal {number}")[0] == "refused"
        assert client.ask(f"result {number} 01 0 2", b"{}")[0] == "refused"
        assert client.ask(f"abort {number} 3", b"why")[0] == "refused"
        assert client.ask(f"detach {number}")[0] == "refused"
        assert client.ask(f"beat {number}") == ("beat", "dead")
    client.send(deployment())
    assert client.closed()["outcome"] == "committed"
    assert client.ask("seal 1") == ("ok", "")
    assert client.ask(f"steps 1 {len(body)}", body)[0] == "refused"


@pytest.mark.parametrize("steps, why", [
    ({"1-bad/meta": (0o600, b"KIND=x\n")}, "no name"),
    ({"01-bad/apply.sh": (0o600, b"")}, "meta"),
    (step("01-bad", KIND="unheard", SIDE="client", UNDO=1), "undo.sh"),
    (step("01-bad", TIMEOUT="soon"), "TIMEOUT"),
    (step("01-bad", SIDE="moon"), "SIDE"),
])
def test_bad_steps_are_refused(host, client, steps, why):
    client.open()
    body = tar(steps)
    tag, text = client.ask(f"steps 1 {len(body)}", body)
    assert tag == "refused" and why in text
    assert client.ask("steps 1 5", b"trash")[0] == "refused"
    client.send(deployment())
    assert client.closed()["outcome"] == "committed"


def test_steps_in_batches_and_sent_twice(host, client):
    client.open()
    first = step("01-release", 'mkdir -p "$ORCH_RELEASE"', "")
    client.send(first, seal=False)
    client.await_event("waiting", step=None)
    client.send(first, seal=False)
    client.send({**first, **step("02-commit", SIDE="commit")}, seal=False)
    client.send({}, seal=True)
    assert client.closed()["outcome"] == "committed"
    assert host.trace() == ["apply 01-release 1"]
    assert [e["steps"] for e in host.journal(1) if e["event"] == "accepted"] == [["01-release"], ["02-commit"]]


def test_client_side_step(host, client):
    client.open()
    client.send(deployment(step("02-ask", SIDE="client"), step("04-ask", SIDE="client", AFTER=1)))
    client.await_event("waiting", step="02-ask")
    assert client.ask("result 1 01 0 0")[0] == "refused"
    assert client.ask("detach 1") == ("refused", "A step that only the client can do is still ahead.")
    assert client.ask("result 1 02 0 16", b'"status":"fine"\n') == ("ok", "")
    client.await_event("waiting", step="04-ask")
    assert client.ask("result 1 02 0 0")[0] == "refused"
    assert client.ask("result 1 04 1 0") == ("ok", "")
    assert client.closed()["outcome"] == "committed"
    assert host.history()[0]["facts"]["ask"] == {"status": "fine"}


def test_client_side_step_fails_or_never_answers(host, client):
    client.open()
    client.send(deployment(step("03-ask", SIDE="client"), COMMIT))
    client.await_event("waiting", step="03-ask")
    assert client.ask("result 1 03 9 0") == ("ok", "")
    assert client.closed()["outcome"] == "undone"
    host.await_free_lock()
    second = host.connect()
    second.open()
    second.send(deployment(step("03-ask", SIDE="client", TIMEOUT=1), COMMIT))
    assert second.closed()["outcome"] == "undone"
    assert second.await_event("ended", step="03-ask")["timeout"] is True


def test_abort_in_mid_step(host, client):
    client.open()
    client.send(deployment(step("03-gate", GATE, ""), COMMIT))
    client.await_event("started", step="03-gate")
    assert client.ask("abort 1 9", b'say "why"') == ("ok", "")
    assert not client.events("undoing")
    go(host)
    assert client.closed()["outcome"] == "undone"
    assert client.await_event("ended", step="03-gate")["status"] == 0  # never killed
    undoing = client.await_event("undoing")
    assert (undoing["reason"], undoing["text"].strip()) == ("aborted", 'say "why"')
    assert host.history()[0]["cause"] == "aborted"


def test_abort_while_waiting_and_after_the_commit(host, client):
    client.open()
    client.send(deployment(), seal=False)
    client.await_event("committed")
    assert client.ask("abort 1 1", b"x") == ("refused", "Deployment 1 is committed.")
    assert client.ask("seal 1") == ("ok", "")
    assert client.closed()["outcome"] == "committed"
    host.await_free_lock()
    second = host.connect()
    second.open()
    second.send({**step("01-change", "", "", CHANGES=1)}, seal=False)
    second.await_event("ended", step="01-change")
    assert second.ask("abort 2 1", b"x") == ("ok", "")
    assert second.closed()["outcome"] == "undone"


def test_lease_before_the_commit(host, client):
    client.open(lease=3)
    client.send(deployment(step("03-long", "sleep 5", ""), COMMIT))
    assert client.closed()["outcome"] == "undone"
    assert client.await_event("ended", step="03-long")["status"] == 0  # never killed
    assert client.await_event("undoing")["reason"] == "lease"


def test_what_only_the_client_can_do_ends_with_the_client(host, client):
    client.open(lease=3)
    client.send(deployment(step("03-ask", SIDE="client", TIMEOUT=60), COMMIT))
    began = time.monotonic()
    assert client.closed()["outcome"] == "undone"
    assert client.await_event("undoing")["reason"] == "lease"
    assert time.monotonic() - began < 20


def test_beats_keep_the_lease(host, client):
    client.open(lease=3)
    client.send(deployment(step("02-long", "sleep 5", "")))
    while not client.events("closed"):
        assert client.ask("beat 1")[1] in ("live", "dead")
        time.sleep(0.2)
    assert client.closed()["outcome"] == "committed"
    assert client.ask("beat 1") == ("beat", "dead")


def test_a_beat_of_another_boot_is_void(host, client):
    client.open(lease=3)
    (host.state / "heartbeat").write_text("00000000-0000-0000-0000-000000000000 99999999.00\n")
    client.send({**step("01-change", "", "", CHANGES=1)}, seal=False)
    assert client.closed()["outcome"] == "undone"


def test_a_late_beat_for_another_deployment_is_void(host, client):
    """It was on its way when that one closed, and is written behind the opening of ours."""
    client.run(deployment())
    client = host.connect()
    client.open(lease=3)
    boot = open("/proc/sys/kernel/random/boot_id").read().strip()
    (host.state / "heartbeat").write_text(f"{boot} 99999999.00 1\n")
    client.send({**step("01-change", "", "", CHANGES=1)}, seal=False)
    assert client.closed()["outcome"] == "undone"


def test_a_late_beat_for_another_deployment_hides_none_of_ours(host):
    """Ours came at 90 s; whoever writes over it says nothing about us, least of all that we were never heard of."""
    lease_over = re.search(r"^lease_over\(\) \{.*?^\}", (HOST / "runner.sh").read_text(), re.M | re.S).group()
    folder = host.state / "clock/deployments/2"
    script = f"""set -eu; mkdir -p '{folder}'; cd '{folder}'; {lease_over}
        clock() {{ :; }}
        first_line() {{ REPLY=boot; }}
        told() {{ up_ms=$1; if lease_over; then echo over; else echo alive; fi; }}
        N=2 lease=5 heard_at=80000
        told 84000; told 86000
        echo 'boot 90.00 2' >../../heartbeat; told 94000
        echo 'boot 99.00 1' >../../heartbeat; told 94900; told 95100
        echo 'other 99.00 2' >../../heartbeat; told 95100
        echo 'boot 95.00' >../../heartbeat; told 99000"""
    process = host.start("-c", script)
    assert process.communicate(timeout=20)[0].decode().split() == ["alive", "over", "alive", "alive", "over", "over", "alive"]


def test_lease_after_the_commit(host, client):
    client.open(lease=3)
    client.send(deployment(step("04-long", "sleep 5", AFTER=1), step("05-later", "", AFTER=1)), seal=False)
    client.cut()
    host.await_free_lock()
    eventually(lambda: (host.state / "history.jsonl").exists(), "receipt")
    assert host.history()[0]["outcome"] == "committed"
    assert host.trace()[-1] == "apply 05-later 1"


def test_detached_needs_no_lease(host, client):
    client.open(lease=3)
    client.send(deployment(step("02-long", "sleep 5", "")), seal=False)
    assert client.ask("detach 1")[0] == "refused"
    assert client.ask("seal 1") == ("ok", "")
    assert client.ask("detach 1") == ("ok", "")
    client.cut()
    eventually(lambda: (host.state / "history.jsonl").exists(), "receipt")
    assert host.history()[0]["outcome"] == "committed"


def test_identity(host, client):
    client.run(deployment())
    host.await_free_lock()
    tag, text = client.open(nonce="foreign", environment="staging")
    assert tag == "error" and text.startswith("identity ") and '"test app"' in text
    assert client.open(nonce="own")[0] == "granted"
    assert client.n == 2


def test_a_nonce_is_used_once(host, client):
    client.open(nonce="once")
    assert client.ask("open once 60 0 2", b"{}")[0] == "error"
    assert client.ask("open ../x 60 0 2", b"{}")[0] == "error"


def test_numbers_are_never_used_again(host, client):
    client.run(deployment())
    host.await_free_lock()
    (host.state / "sequence").write_text("41\n")
    assert client.open()[1] == "42"


def test_get(host, client):
    client.run(deployment())
    content = os.urandom(100_000).hex().encode() + b"\nend without newline"
    (host.opt / "releases/1/a file").write_bytes(content)
    assert client.ask("get /opt/app/releases/1/a file") == ("file", content.decode())
    assert client.ask("get /opt/app/current/number") == ("file", "1\n")
    assert client.ask("get /var/lib/orchestrate/app/sequence") == ("file", "1\n")
    # The release before the current one, as its description names it.
    assert client.ask("get /opt/app/previous/number") == ("none", "")
    (host.opt / "releases/1/release.json").write_text('{\n  "number" : 1,\n  "previous" : 7,\n  "version" : "v1"\n}\n')
    (host.opt / "releases/7").mkdir()
    (host.opt / "releases/7/number").write_text("7\n")
    assert client.ask("get /opt/app/previous/number") == ("file", "7\n")
    for path in ("/opt/app/nothing", "/etc/passwd", "/opt/app/../../etc/passwd", "/opt/app", ""):
        assert client.ask(f"get {path}") == ("none", "")


def test_a_current_release_that_is_gone(host, client):
    """Nothing could be undone to it: refused before anything is opened, and `health` says so."""
    assert client.run(deployment())["outcome"] == "committed"
    host.await_free_lock()
    (host.opt / "releases/1").rename(host.opt / "releases/1.away")
    tag, text = client.open(nonce="again")
    assert tag == "error" and text.startswith("current ") and f"ln -sfn releases/NUMBER {host.opt}/current" in text
    host.await_free_lock()
    assert not (host.state / "deployments/2").exists() and not (host.state / "reserve").exists()
    tag, text = client.ask("query health 0")
    assert tag == "failed" and "release 1" in text and json.loads(text)["healthy"] is False
    (host.opt / "releases/1.away").rename(host.opt / "releases/1")
    assert client.open(nonce="mended") == ("granted", "2")


def test_health_is_never_good_of_nothing(host, client):
    tag, text = client.ask("query health 0")
    assert tag == "failed" and json.loads(text)["reason"] == "nothing is deployed"
    release = host.opt / "releases/1"
    release.mkdir(parents=True)
    (release / "effective.json").write_text("{}")
    (host.opt / "current").symlink_to("releases/1")
    tag, text = client.ask("query health 0")
    assert tag == "output" and json.loads(text)["healthy"] is True
    host.tool("docker", 'case "$*" in *"config --services") echo bot ;; esac')
    tag, text = client.ask("query health 0")
    assert tag == "failed" and (json.loads(text)["service"], json.loads(text)["reason"]) == ("bot", "it does not run")
    host.tool("docker", "exit 1")
    assert client.ask("query health 0")[0] == "failed"


def test_nothing_is_deployed_after_an_undo(host, client):
    """Of a first deployment that is as it was; where something ran before, it isn't."""
    client.ask("facts")
    for previous, healthy in (("", True), ("1", False)):
        process = host.start("-c", 'ORCH_BUNDLE=$1 ORCH_PROJECT=app ORCH_OPT=$2 ORCH_STATE=$3 ORCH_PREVIOUS=$4; export ORCH_BUNDLE ORCH_PROJECT '
                             'ORCH_OPT ORCH_STATE ORCH_PREVIOUS; exec sh "$1/check.sh"', "-", str(host.base / "bundle" / host.bundle_name),
                             str(host.opt), str(host.state), previous)
        assert (process.wait(20) == 0) == healthy


def test_a_step_name_with_an_underscore(host, client):
    assert client.run(deployment(step("02-warm_up", "", "")))["outcome"] == "committed"


def test_follow(host, client):
    assert client.ask("follow 1 0") == ("none", "")
    client.run(deployment())
    log = (host.state / "deployments/1/log").read_bytes()
    late = host.connect()
    eventually(lambda: late.ask("follow 1 5") == ("following", "ended"), "the end")
    late.wait_for(lambda: late.log.endswith(log[-20:]), "log")


def test_query(host, client):
    client.ask("facts")  # the bundle has arrived
    queries = host.base / "bundle" / host.bundle_name / "queries"
    (queries / "echo.query.sh").write_text('mkdir -p "$ORCH_STATE/plan/$PPID"; cat; echo " $ORCH_PROJECT"\n')
    (queries / "fails.query.sh").write_text("echo oh >&2; exit 3\n")
    for path in (queries, *queries.iterdir()):
        os.chmod(path, stat.S_IMODE(path.stat().st_mode) | 0o555)
    for body in (b"a\n$b\n", b"a\n$b"):
        assert client.ask(f"query echo {len(body)}", body) == ("output", "a\n$b\n app\n")
    eventually(lambda: not list(host.state.glob("attach.*")), "nothing of them is left")  # it may be a password
    assert client.ask("query ../echo 3", b"abc")[0] == "failed"
    assert client.ask("query fails 0") == ("failed", "oh\n")
    assert client.ask("query unknown 0")[0] == "failed"
    assert list((host.state / "plan").iterdir())
    client.close()
    assert not list((host.state / "plan").iterdir())


def test_facts(host, client):
    tag, text = client.ask("facts")
    assert tag == "facts"
    facts = dict(line.split("=", 1) for line in text.splitlines())
    for key in ("user", "uid", "groups", "sudo", "boot_id", "uptime", "boot_age", "epoch_ms", "os", "kernel", "cpus", "memory_total",
                "memory_available", "memory_limit", "cpu_limit", "docker_client", "docker_server", "docker_error", "docker_root", "compose", "systemd", "state_dir",
                "opt_dir", "current", "sequence", "open", "locked", "identity"):
        assert key in facts, key
    for place in ("state", "opt", "docker"):
        for key in ("path", "available", "size", "inodes", "device"):
            assert facts[f"disk.{place}.{key}"]
    assert (facts["sudo"], facts["state_dir"], facts["opt_dir"], facts["current"], facts["locked"]) == ("0", "1", "1", "", "0")
    client.open()
    facts = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    assert (facts["open"], facts["sequence"], facts["locked"], facts["identity"]) == ("1", "1", "1", "test app")


@pytest.mark.parametrize(("files", "memory", "cpus"), [
    ({"memory.max": "1073741824", "cpu.max": "150000 100000"}, "1073741824", "1500"),
    ({"memory.max": "max", "cpu.max": "max 100000"}, "", ""),
    ({"memory/memory.limit_in_bytes": "536870912", "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "536870912", "500"),
    ({"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "", ""),
    ({}, "", ""),
], ids=["v2", "v2-none", "v1", "v1-none", "absent"])
def test_facts_about_the_control_group(host, files, memory, cpus):
    for name, text in files.items():
        path = host.directory / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    host.environment["ORCHESTRATE_CGROUP"] = str(host.directory / "cgroup")
    client = Client(host)
    facts = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    assert (facts["memory_limit"], facts["cpu_limit"]) == (memory, cpus)


NEW_DOCKER = """
    case "$*" in
      info*) printf 'docker_client=26.1.5\\ndocker_server=26.1.4\\ndocker_root=/srv/docker\\ncompose=v2.26.1\\ndocker_error=\\n' ;;
      "volume ls --filter label=com.docker.compose.project=app "*) printf 'volume=app_data\\nvolume=app_cache\\n' ;;
      *) exit 9 ;;
    esac"""
OLD_DOCKER = """
    case "$*" in
      info*ClientInfo.Version*) echo "can't evaluate field Version" >&2; exit 64 ;;
      info*) echo docker_root=/srv/docker ;;
      version*) printf 'docker_client=26.1.5\\ndocker_server=26.1.4\\n' ;;
      compose*) echo 2.26.1 ;;
    esac"""


@pytest.mark.parametrize("docker", [NEW_DOCKER, OLD_DOCKER], ids=["new", "old"])
def test_facts_about_docker(host, client, docker):
    host.tool("docker", docker)
    facts = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    assert [facts[k] for k in ("docker_client", "docker_server", "docker_error", "docker_root", "compose")] == [
        "26.1.5", "26.1.4", "", "/srv/docker", "2.26.1"]
    # A first deployment must know of volumes that an earlier one has left; later ones needn't ask.
    assert facts["volumes"] == ("app_data app_cache" if docker is NEW_DOCKER else "")
    (host.opt / "current").symlink_to("releases/1")
    facts = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    assert (facts["volumes"], facts["current"]) == ("", "1")
    host.tool("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    facts = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    assert (facts["docker_server"], facts["docker_error"]) == ("", "Cannot connect to the Docker daemon")


def test_what_is_asked_with_the_command(host):
    for had_bundle in (False, True):
        client = Client(host, asked="facts\nquery scratch 0\nget /nowhere")
        assert client.had_bundle == had_bundle
        client.say("beat 1")
        client.wait_for(lambda: len(client.replies) == 4, "four answers")
        assert [tag for tag, _ in client.replies] == ["facts", "output", "none", "beat"]
        client.close()


def test_a_damaged_bundle_is_refused(host):
    host.bundle = host.bundle[:1000] + b"x" + host.bundle[1001:]
    client = host.connect()
    client.wait_for(lambda: client.replies, "answer")
    assert client.replies[0] == ("error", "The bundle arrived damaged.")
    assert not list((host.base / "bundle").iterdir())


def test_no_right_to_the_directories(host):
    os.chmod(host.base, 0o500)
    if os.geteuid() == 0:
        os.chown(host.base, 0, 0)
    with pytest.raises(RuntimeError, match="can't write to it: as root: chown -R"):
        Client(host)
    os.chmod(host.base, 0o755)
    os.chmod(host.opt_base, 0o500)
    if os.geteuid() == 0:
        os.chown(host.base, IDS["user"], IDS["group"])
        os.chown(host.opt_base, 0, 0)
    with pytest.raises(RuntimeError, match="No right to make .*install -d"):
        Client(host)


@pytest.mark.parametrize("which", ["state", "opt"])
def test_directories_of_somebody_else(host, which):
    """First deployed as root, then as another user: told whose they are, and no word of a full disk."""
    directory = getattr(host, which)
    directory.mkdir(mode=0o500)
    owner = "root" if os.geteuid() == 0 else ""
    with pytest.raises(RuntimeError, match=f"{directory} belongs to {owner}.* can't write to it: as root: chown -R .*: {directory}"):
        Client(host)


def test_the_stub_is_short():
    assert len((HOST / "stub.sh").read_bytes()) < 2048


def test_attach_leaves_nothing_behind(host, client):
    client.run(deployment())
    host.await_free_lock()
    client.close()
    eventually(lambda: not host.processes(), f"the last process: {host.processes()}", 5)
    eventually(lambda: not list(host.state.glob("attach.*")), "nothing of them is left")


def test_a_killed_attach_takes_its_tail_with_it(host, client):
    client.open()
    client.cut()
    eventually(lambda: len(host.processes()) <= 3, "tail's end", 5)  # the runner, its ticker and a sleep


def test_sealed_before_the_steps_were_noticed(host, client):
    """The files count, whatever the order in which the inbox's lines are read."""
    client.open()
    os.kill(host.runner_pid(), 19)  # stopped: everything arrives before it looks
    client.send(deployment())
    with os.fdopen(os.open(host.state / "deployments/1/inbox", os.O_RDWR), "r+b", 0) as inbox:
        lines = os.read(inbox.fileno(), 65536).splitlines()
        os.write(inbox.fileno(), b"tick\n" + b"".join(line + b"\n" for line in lines))
    os.kill(host.runner_pid(), 18)
    assert client.closed()["outcome"] == "committed"


def plan(client, steps):
    body = tar({"nonce": (0o600, b"n\n"), **steps})
    return client.ask(f"query plan {len(body)}", body)


@pytest.mark.parametrize("links", [True, False])
def test_a_plan_runs_the_scripts_of_the_bundle(host, client, links):
    if not links:  # another file system, or a kernel that forbids it
        host.tool("ln", "exit 1")
    assert plan(client, step("01-url", KIND="url", SIDE="client"))[0] == "output"
    steps = {path: file for path, file in step("02-linked", KIND="linked").items() if not path.endswith("apply.sh")}
    assert plan(client, steps)[0] == "output"
    assert host.trace() == ["linked"]
    assert client.ask("query plan 0")[0] == "output"
    assert host.trace() == ["linked", "unlinked"]


def test_a_plan_without_its_script_fails(host, client):
    steps = {path: file for path, file in step("01-nowhere", KIND="nowhere").items() if not path.endswith("apply.sh")}
    tag, text = plan(client, steps)
    assert tag == "failed" and "nowhere" in text


def test_what_a_power_loss_brings_back_of_a_plan_is_not_taken_for_ours(host):
    """Its removal wasn't on the disk, and after a boot processes get the same numbers again."""
    host.connect().close()
    stub = 'mkdir -p "$ORCHESTRATE_STATE/app/plan/$$/01-env" "$ORCHESTRATE_STATE/app/attach.$$/01-env"; ' + (HOST / "stub.sh").read_text()
    process = host.start("-c", stub, "orchestrate", host.bundle_name, host.project, "facts")
    assert process.stderr.read(2) == b"H\n"
    assert process.stderr.readline().startswith(b"facts ")
    assert not (host.state / "plan" / str(process.pid)).exists() and not (host.state / f"attach.{process.pid}").exists()
    process.stdin.close()
    process.wait(10)
