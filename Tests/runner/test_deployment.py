"""The plain course of a deployment, the ways in which a step fails, and the undo."""

import contextlib
import json
import os
import signal

import pytest
from conftest import HOST, NO_RELEASE, RELEASE, deployment, eventually, step

COMMIT = step("09-commit", SIDE="commit", KIND="commit-test")


def gone(pid):
    """No such process, or one that only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")")[-1].split()[0] in "ZX"
    except OSError:
        return True


def test_commits(host, client):
    assert not client.had_bundle
    closed = client.run(deployment(), reason='a "quoted" \\ reason')
    assert closed["outcome"] == "committed"
    assert [e["event"] for e in host.journal(1)] == [
        "opened", "accepted", "started", "ended", "started", "ended", "started", "committing", "committed", "ended",
        "started", "ended", "closed"]
    assert all(e["k"] == client.nonce for e in host.journal(1) + client.events())
    assert host.current() == "releases/1"
    [line] = host.history()
    assert line["outcome"] == "committed" and line["number"] == 1 and line["previous"] is None
    assert line["reason"] == 'a "quoted" \\ reason' and line["cause"] == ""
    host.await_free_lock()
    eventually(lambda: not (host.state / "runner.pid").exists(), "the runner's end")
    left = {path.name for path in host.state.iterdir()}
    assert left <= {"lock", "spare", "sequence", "history.jsonl", "identity", "deployments", "start", "bundle", "heartbeat", "queue"}, left
    assert {path.name for path in host.opt.iterdir()} == {"current", "releases", "state", "trace"}
    second = host.connect()
    assert second.had_bundle
    assert second.run(deployment())["outcome"] == "committed"
    assert host.history()[1]["previous"] == 1
    assert host.current() == "releases/2"


def test_the_log_holds_the_output_and_a_copy_of_each_event(host, client):
    client.run(deployment(step("02-change", "echo one; printf 'no newline'; say three >&2; printf '\\001forged\\n'", "")))
    text = (host.state / "deployments" / "1" / "log").read_bytes()
    assert client.log == text
    assert b"one\nno newlinethree\n" in text
    told = [e for e in client.events() if e["event"] not in ("waiting", "fact")] if b"\1forged" not in text else [
        json.loads(line[1:]) for line in text.split(b"\n") if line.startswith(b"\1{")]
    assert [e for e in told if e["event"] not in ("waiting", "fact")] == host.journal(1)


@pytest.mark.parametrize("text", ["plain", "two\nlines", "ends\n", "ends\n\n", "\n", 'tab\t"\\n'])
def test_json_string(host, text):
    process = host.start("-c", '. "$1"; json_string "$2"', "-", str(HOST / "lib.sh"), text)
    out, _ = process.communicate(timeout=20)
    assert json.loads(out) == text


def test_facts_reach_client_and_history(host, client):
    client.run(deployment(step("02-change", """
        fact size 12
        fact name "$(json_string 'tab	quote" back\\ line
two é')"
        fact size 13""", "")))
    facts = {e["key"]: e["value"] for e in client.events("fact")}
    assert facts == {"size": 13, "name": 'tab\tquote" back\\ line\ntwo é'}
    assert host.history()[0]["facts"]["change"] == facts


def test_params_and_scripts_of_the_bundle(host, client):
    steps = {path: file for path, file in step("02-linked", KIND="linked", UNDO=1).items() if not path.endswith("apply.sh")}
    assert client.run(deployment(steps))["outcome"] == "committed"
    assert "linked" in host.trace()
    inode = (host.base / "bundle" / host.bundle_name / "steps" / "linked.undo.sh").stat().st_ino
    assert (host.state / "deployments/1/02-linked/undo.sh").stat().st_ino == inode


def test_a_step_gets_what_the_page_says(host, client):
    client.run(deployment(step("02-env", """
        env >"$ORCH_OPT/env"; pwd >>"$ORCH_OPT/env"; umask >>"$ORCH_OPT/env"
        echo "stdin $(readlink /proc/$$/fd/0)" >>"$ORCH_OPT/env"
        readlink /proc/$$/fd/* >"$ORCH_OPT/files" || :
        echo "$WORD" >>"$ORCH_OPT/env"
        """, params="WORD='it'\\''s $HOME'\n")))
    lines = (host.opt / "env").read_text().splitlines()
    deployment_directory = host.state / "deployments" / "1"
    for line in (
            f"ORCH_BUNDLE={host.base}/bundle/{host.bundle_name}", "ORCH_PROJECT=app", "ORCH_N=1", f"ORCH_STATE={host.state}",
            f"ORCH_OPT={host.opt}", f"ORCH_DEPLOYMENT={deployment_directory}", f"ORCH_STEP={deployment_directory}/02-env",
            "ORCH_PREVIOUS=", f"ORCH_RELEASE={host.opt}/releases/1", f"{deployment_directory}/02-env", "0077",
            "stdin /dev/null", "it's $HOME"):
        assert line in lines
    files = (host.opt / "files").read_text().splitlines()
    assert f"{host.state}/lock" in files and f"{host.base}/lock" in files
    assert not [name for name in files if name.endswith("inbox")]


def test_a_failing_step_is_undone_backwards(host, client):
    steps = deployment(step("03-fails", "exit 7", "", CHANGES=1), step("04-never", "", ""), COMMIT)
    assert client.run(steps)["outcome"] == "undone"
    assert host.trace() == [
        "apply 01-release 1", "apply 02-change 1", "apply 03-fails 1", "undo 03-fails 1", "undo 02-change 1", "undo 01-release 1"]
    assert client.await_event("ended", step="03-fails")["status"] == 7
    undoing = client.await_event("undoing")
    assert undoing["reason"] == "step-failed" and "fails" in undoing["text"]
    assert [(e["step"], e["status"], e["attempts"]) for e in client.events("undone")] == [
        ("03-fails", 0, 1), ("02-change", 0, 1), ("01-release", 0, 1)]
    assert host.current() is None
    assert host.history()[0]["cause"] == "step-failed"


def test_failure_before_any_change(host, client):
    assert client.run(deployment(step("02-fails", "exit 1", "")))["outcome"] == "unchanged"
    assert not (host.opt / "releases" / "1").exists()


def test_failure_after_the_commit_changes_nothing(host, client):
    assert client.run(deployment(step("04-after", "exit 1", AFTER=1), step("05-later", "", AFTER=1)))["outcome"] == "committed"
    assert client.await_event("ended", step="04-after")["status"] == 1
    assert host.trace()[-1] == "apply 05-later 1"


def test_killed_by_a_signal(host, client):
    assert client.run(deployment(step("03-dies", "kill -KILL $$", ""), COMMIT))["outcome"] == "undone"
    ended = client.await_event("ended", step="03-dies")
    assert (ended["signal"], ended["timeout"]) == ("KILL", False)
    assert ended["status"] == 137


@pytest.mark.parametrize("stubborn", [False, True])
def test_deadline(host, client, stubborn):
    if stubborn:  # ignores TERM: a wrapper's own patience is 10 s, so the test shortens it
        host.tool("timeout", '[ "$1" != -k ] || { shift 2; set -- -k 0.2 "$@"; }; exec /usr/bin/timeout "$@"')
    text = ("trap '' TERM; " if stubborn else "") + "while :; do sleep 1; done"
    assert client.run(deployment(step("03-slow", text, "", TIMEOUT=1), COMMIT))["outcome"] == "undone"
    ended = client.await_event("ended", step="03-slow")
    assert ended["timeout"] is True and 1 <= ended["seconds"] < 5
    assert ended["status"] == (137 if stubborn else 124)


def test_a_dead_wrapper_is_a_failure(host, client):
    """Whoever kills the step's wrapper takes its status away: found by the next tick, and what it watched over is killed too."""
    client.open()
    client.send(deployment(step("03-long", 'echo $PPID >"$ORCH_OPT/timeout"; exec sleep 60', ""), COMMIT))
    eventually(lambda: (host.opt / "timeout").exists() and (host.opt / "timeout").read_text(), "the step")
    timeout = int((host.opt / "timeout").read_text())
    with open(f"/proc/{timeout}/stat") as stat:
        wrapper = int(stat.read().rsplit(")")[-1].split()[1])
    os.kill(wrapper, signal.SIGKILL)
    assert client.closed()["outcome"] == "undone"
    assert client.await_event("ended", step="03-long")["signal"] == "KILL"
    eventually(lambda: gone(timeout), "the end of what it watched over", 2)


def test_an_undo_begins_alone(host, client):
    """What a step started in a process group of its own is gone before the undo, not only at the end."""
    client.open()
    client.send(deployment(step(
        "02-forks", 'timeout 60 sleep 60 & echo $! >"$ORCH_OPT/child"; exit 1',
        'n=0; while [ -e "/proc/$(cat "$ORCH_OPT/child")/exe" ] && [ $n -lt 40 ]; do n=$((n + 1)); sleep 0.05; done\n'
        '[ $n -lt 40 ] || touch "$ORCH_OPT/alive"; rm "$ORCH_OPT/child"', CHANGES=1)))
    assert client.closed()["outcome"] == "undone"
    assert not (host.opt / "child").exists() and not (host.opt / "alive").exists()


def test_background_child_is_ended_with_the_deployment(host, client):
    client.run(deployment(step("02-leaves", 'setsid sleep 300 >/dev/null 2>&1 & echo $! >"$ORCH_OPT/child"', "")))
    host.await_free_lock()
    eventually(lambda: gone((host.opt / "child").read_text().strip()), "the child's end")


def test_undo_that_fails_twice(host, client):
    undo = 'echo x >>"$ORCH_OPT/tries"; [ $(wc -l <"$ORCH_OPT/tries") -ge 3 ]'
    assert client.run(deployment(step("02-change", "exit 1", undo, CHANGES=1)))["outcome"] == "undone"
    assert client.await_event("undone", step="02-change")["attempts"] == 3


def test_stuck_and_tried_again_by_the_next(host, client):
    undo = '[ -e "$ORCH_OPT/mended" ]'
    assert client.run(deployment(step("02-change", "exit 1", undo, CHANGES=1)))["outcome"] == "stuck"
    assert host.trace()[-1] == "undo 02-change 1"  # the release's undo is not reached
    assert host.history()[0]["outcome"] == "stuck"
    host.await_free_lock()
    tag, text = client.open()
    assert tag == "error" and text.startswith("stuck Deployment 1 ")
    assert [e["outcome"] for e in host.history()] == ["stuck"]
    (host.opt / "mended").write_text("")
    assert host.connect().run(deployment())["outcome"] == "committed"
    assert [(e["number"], e["outcome"]) for e in host.history()] == [(1, "undone"), (2, "committed")]
    assert "undo 01-release 1" in host.trace()


def test_a_person_may_abandon_what_is_stuck(host, client):
    steps = deployment(
        step("01-release", RELEASE, NO_RELEASE, **KEEPS_SECRETS), step("02-change", "exit 1", "exit 1", CHANGES=1))
    assert client.run(steps, reason="first")["outcome"] == "stuck"
    host.await_free_lock()
    trace = host.trace()
    reason = 'settled by hand: "abandon":7, \\ and more'
    assert client.open(who="grace", reason=reason, abandon=1) == ("recovered", "1 abandoned")
    host.await_free_lock()
    assert host.trace() == trace  # nothing was tried again
    assert (host.opt / "releases/1").exists() and holding(host) == []
    assert [e["event"] for e in host.journal(1)][-3:] == ["closed", "abandoned", "closed"]
    [line] = host.history()
    assert (line["outcome"], line["cause"], line["healthy"], line["reason"]) == ("abandoned", "step-failed", None, "first")
    assert (line["abandoned"]["who"], line["abandoned"]["reason"]) == ("grace", reason)
    left = {path.name for path in host.state.iterdir()}
    assert not left & {"open", "holder", "runner.pid", "reserve"}, left
    # Asked again after a lost reply, and then the next deployment, which leaves it alone.
    assert client.open(abandon=1)[0] == "recovered"
    host.await_free_lock()
    assert host.connect().run(deployment())["outcome"] == "committed"
    assert [(e["number"], e["outcome"]) for e in host.history()] == [(1, "abandoned"), (2, "committed")]


@pytest.mark.parametrize("tool, when", [("grep", "-v"), ("sed", "$d")], ids=["history", "torn-journal"])
def test_an_abandon_that_cannot_be_kept_can_be_said_again(host, client, tool, when):
    """The receipt can't be replaced, or the journal's torn end not cut: nothing is closed, and nobody hears that it was."""
    assert client.run(deployment(step("02-change", "exit 1", "exit 1", CHANGES=1)))["outcome"] == "stuck"
    host.await_free_lock()
    if tool == "sed":
        with open(host.state / "deployments/1/journal.jsonl", "a") as journal:
            journal.write('{"event":"aban')
    history = (host.state / "history.jsonl").read_text()
    failing = f"""case $1 in '{when}') echo x >>"$ORCHESTRATE_OPT/failed"; exit 137 ;; esac\n"""
    host.tool(tool, failing + f'exec /usr/bin/{tool} "$@"')
    assert client.open(abandon=1)[0] == "error"
    host.await_free_lock()
    assert (host.opt_base / "failed").read_text() == "x\n"  # not again and again
    assert (host.state / "history.jsonl").read_text() == history
    assert '"outcome":"abandoned"' not in (host.state / "deployments/1/journal.jsonl").read_text()
    assert host.connect().open()[0] == "error"  # still open
    host.await_free_lock()
    (host.bin / tool).unlink()
    assert host.connect().open(abandon=1) == ("recovered", "1 abandoned")
    assert [line["outcome"] for line in host.history()] == ["abandoned"]
    assert host.journal(1)[-1]["outcome"] == "abandoned"


def test_only_what_is_stuck_can_be_abandoned(host, client):
    assert client.run(deployment())["outcome"] == "committed"
    host.await_free_lock()
    for number in (1, 2):
        tag, text = client.open(abandon=number)
        assert (tag, text) == ("error", f"abandon Deployment {number} is not stuck: there is nothing to abandon.")
        host.await_free_lock()
    # One that was only interrupted is undone, as by anybody else.
    assert client.open()[0] == "granted"
    client.send({**step("01-change", "sleep 60", "", CHANGES=1)})
    client.await_event("started", step="01-change")  # the first deployment's stand in this log, too
    def killed():
        for process in host.processes():
            with contextlib.suppress(ProcessLookupError):  # gone in between
                os.kill(process, signal.SIGKILL)
        return host.lock_is_free()
    eventually(killed, "free lock")
    tag, text = host.connect().open(abandon=2)
    assert tag == "error" and text.startswith("abandon ") and text.endswith("closed now: 2 undone.")
    assert [(e["number"], e["outcome"]) for e in host.history()] == [(1, "committed"), (2, "undone")]
    tag, text = host.connect().open(abandon=2, environment="other")
    assert tag == "error" and text.startswith("identity ")


def test_a_person_may_let_the_undo_lose_data(host, client):
    undo = '[ "$ORCH_ACCEPT_DATA_LOSS" = 1 ]'
    assert client.run(deployment(step("02-change", "exit 1", undo, CHANGES=1)))["outcome"] == "stuck"
    host.await_free_lock()
    assert client.open(reason='"accept_data_loss":true')[0] == "error"
    host.await_free_lock()
    assert host.connect().run(deployment(), accept_data_loss=True)["outcome"] == "committed"
    assert [(e["number"], e["outcome"]) for e in host.history()] == [(1, "undone"), (2, "committed")]


@pytest.mark.parametrize("check, healthy", [("exit 0", True), ("exit 1", False), (None, None)])
def test_health_after_the_undo(host, client, check, healthy):
    files = {} if check is None else {"check.sh": check}
    closed = client.run(deployment(step("02-change", "exit 1", "", CHANGES=1, files=files)))
    assert (closed["outcome"], closed["healthy"]) == ("undone", healthy)


CANARY = "canary-6f1b-secret"
KEEPS_SECRETS = dict(SECRETS="env made", files={"env": f"TOKEN={CANARY}\n", "other": "kept\n"})


def holding(host):
    """Files of the state directory that hold the canary."""
    return sorted(str(path.relative_to(host.state)) for path in host.state.rglob("*") if path.is_file() and CANARY in path.read_text())


@pytest.mark.parametrize("ending, outcome", [("", "committed"), ("exit 1", "undone")])
def test_what_a_dead_writer_left_half_written_goes(host, client, ending, outcome):
    """write_atomically, killed: by a crash, with its step, or in the background of one."""
    places = '"$ORCH_STATE/generated.env" "$ORCH_OPT/backups/one.json" "$ORCH_DEPLOYMENT/baseline" ./made'
    half = f"mkdir -p \"$ORCH_OPT/backups\"; gone=$(sh -c 'echo $$'); for place in {places}; do echo half >\"$place.new.$gone\"; done; echo mine >\"$ORCH_STATE/other.new.1\""
    assert client.run(deployment(step("01-release", RELEASE + "; " + half, NO_RELEASE), step("02-change", ending, "", CHANGES=1)))["outcome"] == outcome
    host.await_free_lock()
    left = sorted(path.name for top in (host.state, host.opt) for path in top.rglob("*.new.*"))
    assert left == ["other.new.1"]  # its writer lives


@pytest.mark.parametrize("ending, outcome", [("", "committed"), ("exit 1", "undone")])
def test_no_secret_of_a_step_outlives_the_deployment(host, client, ending, outcome):
    steps = deployment(
        step("01-release", RELEASE + "; grep -q TOKEN= env; cp env made; cp env made.new.$(sh -c 'echo $$')", NO_RELEASE, **KEEPS_SECRETS),
        step("02-change", ending, "", CHANGES=1))
    assert client.run(steps)["outcome"] == outcome
    host.await_free_lock()
    assert holding(host) == []
    assert (host.state / "deployments/1/01-release/other").read_text() == "kept\n"


def test_an_undo_that_is_tried_again_still_has_its_secrets(host, client):
    undo = '[ -e "$ORCH_OPT/mended" ] && grep -q canary env'
    steps = deployment(step("01-release", RELEASE, undo, **KEEPS_SECRETS), step("02-change", "exit 1", "", CHANGES=1))
    assert client.run(steps)["outcome"] == "stuck"
    assert holding(host) == ["deployments/1/01-release/env"]
    host.await_free_lock()
    (host.opt / "mended").write_text("")
    assert host.connect().run(deployment())["outcome"] == "committed"
    assert host.history()[0]["outcome"] == "undone"
    assert holding(host) == []


UNWELL = '{"gate":"health","service":"bot","healthy":false,"at_ms":null,"answer":"{\\"healthy\\":true}","reason":"503"}'
OTHER = UNWELL.replace("bot", "web")


@pytest.mark.parametrize("before, after, same", [
    (UNWELL, UNWELL, True), (UNWELL + "\n" + OTHER, OTHER.replace("503", "500"), True), (UNWELL, UNWELL + "\n" + OTHER, None),
    (UNWELL.replace("false", "true", 1), UNWELL, None), (None, UNWELL, None), (UNWELL, "", None)])
def test_health_after_the_undo_is_judged_against_the_baseline(host, client, before, after, same):
    look = "" if before is None else f"""cat >looks <<'EOT'\n{before}\nEOT\nunwell_names looks >"$ORCH_DEPLOYMENT/baseline"\n"""
    check = f"cat <<'EOT'\n{after}\nEOT\nexit 1\n"
    steps = deployment(step("01-look", look), step("02-change", "exit 1", "", CHANGES=1, files={"check.sh": check}))
    closed = client.run(steps)
    assert (closed["outcome"], closed["healthy"], closed.get("unhealthy_before")) == ("undone", False, same)
    assert host.history()[0].get("unhealthy_before") is same
    assert after.encode() in client.log


@pytest.mark.parametrize("end, same", [("exit 1", True), ("exit 2", None), ("exit 124", None), ("kill -KILL $$", None)])
def test_a_look_that_did_not_come_to_its_end_excuses_nothing(host, client, end, same):
    """Killed at its 60 s, for instance: what it hadn't come to may be unwell because of us."""
    look = f"""cat >looks <<'EOT'\n{UNWELL}\nEOT\nunwell_names looks >"$ORCH_DEPLOYMENT/baseline"\n"""
    check = f"cat <<'EOT'\n{UNWELL}\nEOT\n{end}\n"
    closed = client.run(deployment(step("01-look", look), step("02-change", "exit 1", "", CHANGES=1, files={"check.sh": check})))
    assert (closed["outcome"], closed["healthy"], closed.get("unhealthy_before")) == ("undone", False, same)


def test_without_a_commit(host, client):
    """A playbook that is no deploy keeps what it did; what was only staged goes."""
    assert client.run({**step("01-backup", 'echo done >"$ORCH_OPT/state"', "", CHANGES=1)})["outcome"] == "committed"
    assert host.current() is None and host.trace() == ["apply 01-backup 1"]
    second = host.connect()
    assert second.run({**step("01-release", RELEASE, NO_RELEASE)})["outcome"] == "unchanged"
    assert second.await_event("undoing")["reason"] == "no-commit"
    assert not (host.opt / "releases" / "2").exists()


def test_a_commit_without_a_release_fails(host, client):
    assert client.run({**step("01-change", "", "", CHANGES=1), **step("02-commit", SIDE="commit")})["outcome"] == "undone"
    assert host.current() is None


def test_one_off_containers_are_removed_before_the_undo(host, client):
    host.tool("docker", """
        echo "$*" >>"$ORCHESTRATE_OPT/docker"
        case $1 in ps) printf 'aaa 1\\nbbb 2\\nccc 3\\nddd <no value>\\n' ;; esac""")
    client.run(deployment())
    second = host.connect()
    second.run(deployment(step("02-fails", "exit 1", "")))
    calls = (host.opt_base / "docker").read_text().splitlines()
    assert [c for c in calls if c.startswith("rm")] == ["rm -f aaa", "rm -f bbb"]


def test_undo_waits_for_docker(host, client):
    host.tool("docker", """
        case $1 in version | ps) echo x >>"$ORCHESTRATE_OPT/asked"; [ $(wc -l <"$ORCHESTRATE_OPT/asked") -ge 4 ] ;; esac""")
    assert client.run(deployment(step("02-fails", "exit 1", "")))["outcome"] == "unchanged"
    assert b"Waiting for the Docker engine" in client.log
