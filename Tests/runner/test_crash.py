"""kill -9 of the runner at every command that it runs, and after every fsync, in deployments that succeed and that fail; also while it recovers.

Whoever comes next finds the old state whole or the new one whole. The hook is on the PATH: the scripts know nothing of it.
"""

import os
import random
import shutil
import stat
import subprocess

import pytest
from conftest import IDS, Host, deployment, eventually, step

TOOLS = "cat cp date dd fallocate find flock grep ln mkdir mkfifo mv readlink rm sed sort sync tail timeout tr xargs".split()
HOOK = r"""
real=/usr/bin/${0##*/}
[ -e "$ORCHESTRATE_OPT/kill-at" ] || exec "$real" "$@"
read -r number when only <"$ORCHESTRATE_OPT/kill-at"
runner=
pid=$PPID
while :; do
  case $(/usr/bin/tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") in *runner.sh*) runner=$pid ;; *) break ;; esac
  pid=$(/usr/bin/sed 's/.*) . \([0-9]*\) .*/\1/' "/proc/$pid/stat")
done
case ${runner:+$only} in ${0##*/} | any) ;; *) exec "$real" "$@" ;; esac
echo "$$" >>"$ORCHESTRATE_OPT/count"
[ "$(/usr/bin/sed -n "/^$$\$/=" "$ORCHESTRATE_OPT/count")" = "$number" ] || exec "$real" "$@"
[ "$when" = before ] || "$real" "$@"
echo "$0 $*" >"$ORCHESTRATE_OPT/killed"
kill -KILL "$runner"
exit 137
"""
FAILING = deployment(
    step("03-fails", "exit 1", "", CHANGES=1), step("04-commit", SIDE="commit", KIND="commit-test"))
SUCCEEDING = deployment()


@pytest.fixture
def rig(host):
    return make_rig(host)


def make_rig(host):
    """Deployment 1 is committed; that state is kept, to begin with again and again."""
    assert host.connect().run(deployment())["outcome"] == "committed"
    host.await_free_lock()
    eventually(lambda: not (host.state / "runner.pid").exists(), "the runner's end")
    for tool in TOOLS:
        assert os.path.exists(f"/usr/bin/{tool}"), tool
        host.tool(tool, HOOK)
    return Rig(host)


class Rig:
    def __init__(self, host):
        self.host = host
        self.saved = host.directory / "saved"
        for client in host.clients:
            client.close()
        for name in ("state", "opt"):
            self.copy(host.directory / name, self.saved / name)

    def copy(self, source, target):
        def removed():
            shutil.rmtree(target, ignore_errors=True)
            return not target.exists()
        eventually(removed, "the end of a runner that still writes its verdict there")
        shutil.copytree(source, target, symlinks=True, ignore=lambda folder, names: [
            name for name in names if stat.S_ISFIFO(os.lstat(os.path.join(folder, name)).st_mode)])
        if IDS:
            for folder, _, names in os.walk(target):
                for name in [".", *names]:
                    os.chown(os.path.join(folder, name), IDS["user"], IDS["group"], follow_symlinks=False)

    def restart(self):
        for name in ("state", "opt"):
            self.copy(self.saved / name, self.host.directory / name)

    def marker(self, name):
        return self.host.opt_base / name

    def arm(self, number, when, only):
        for name in ("count", "killed"):
            self.marker(name).unlink(missing_ok=True)
        self.marker("kill-at").write_text(f"{number} {when} {only}\n")
        os.chmod(self.marker("kill-at"), 0o644)

    def disarm(self):
        self.marker("kill-at").unlink()
        return self.marker("killed").exists()

    def killed_deployment(self, steps):
        """Opens, sends and follows, until the runner is killed or the deployment closed. True: killed."""
        client = self.host.connect()
        client.say("open victim 60 0 34", b'{"environment":"test","app":"app"}')
        sent = False

        def over():
            nonlocal sent
            if client.replies and not sent:
                assert client.replies[0][0] == "granted", client.replies
                client.n, sent = 2, True
                client.send(steps)
            # In close() only rm and find come after the event.
            return self.marker("killed").exists() or (bool(client.events("closed")) and not (self.host.state / "runner.pid").exists())
        eventually(over, "the end of the runner")
        self.host.await_free_lock()
        client.cut()
        return self.disarm()

    def check(self, steps, what):
        """The next one closes what is open, finds one whole state, and can work."""
        host = self.host
        client = host.connect()
        assert client.open()[0] == "granted", (what, client.replies, host.describe())
        state = (host.opt / "state").read_text().strip()
        assert host.current() == f"releases/{state}", what
        assert state == "1" or steps is SUCCEEDING, what
        kept = {path.name for path in (host.opt / "releases").iterdir()}
        assert kept == ({"1"} if state == "1" else {"1", "2"}), what
        numbers = sorted(int(path.name) for path in (host.state / "deployments").iterdir())
        assert numbers == list(range(1, client.n + 1)), what
        outcomes = {1: "committed", **({2: "committed" if state == "2" else "undone"} if client.n == 3 else {})}
        for number in numbers[:-1]:
            events = host.journal(number)
            assert events[-1]["event"] == "closed", what
            began = {event["step"] for event in events if event["event"] == "started"}
            wanted = "unchanged" if outcomes[number] == "undone" and "02-change" not in began else outcomes[number]
            assert events[-1]["outcome"] == wanted, what
            assert [line["outcome"] for line in host.history() if line["number"] == number] == [wanted], what
        if state == "2":
            assert [line for line in host.trace() if line == "apply 04-after 2"], what  # what is left after the commit is done
        client.send(deployment())
        assert client.closed()["outcome"] == "committed", what
        assert host.current() == f"releases/{client.n}", what
        client.close()
        host.keep_journals()


@pytest.mark.parametrize("steps", [SUCCEEDING, FAILING], ids=["succeeding", "failing"])
@pytest.mark.parametrize("when, only", [("before", "any"), ("after", "sync")], ids=["each-command", "each-fsync"])
def test_killed_at_each(rig, steps, when, only):
    if only == "any" and rig.host.shell != "dash":
        only = "mv"  # the commands are the same: the other shell is killed at the fsyncs and renames
    # Up to the grant both deployments run the same commands: the failing one need not be killed there again.
    number, points = 24 if steps is FAILING and only == "any" else 0, []
    while True:
        number += 1
        rig.restart()
        rig.arm(number, when, only)
        killed = rig.killed_deployment(steps)
        what = rig.marker("killed").read_text() if killed else "not killed"
        rig.check(steps, f"{number}: {what}")
        if not killed:
            break
        points.append(what)
    print(len(points), "points")
    assert len(points) >= {"any": 20, "sync": 10, "mv": 3}[only], points


def test_killed_while_recovering(rig):
    dice = random.Random(rig.host.shell)
    recoveries = 0
    for _ in range(12):
        steps = dice.choice([SUCCEEDING, FAILING])
        rig.restart()
        first, second = dice.randint(20, 50), dice.randint(4, 30)
        rig.arm(first, "before", "any")
        rig.killed_deployment(steps)
        rig.arm(second, "before", "any")
        client = rig.host.connect()
        client.say("recover again")
        eventually(lambda: client.replies or rig.marker("killed").exists(), "recovery or its death")
        recoveries += rig.disarm()
        client.cut()
        rig.host.await_free_lock()
        rig.check(steps, f"{first}, then {second}: {rig.marker('killed').read_text() if rig.marker('killed').exists() else ''}")
    assert recoveries >= 3


def test_torn_last_line(host, client):
    client.open()
    client.send({**step("01-change", 'echo x >"$ORCH_OPT/state"', 'rm -f "$ORCH_OPT/state"', CHANGES=1)}, seal=False)
    client.await_event("ended", step="01-change")
    os.kill(host.runner_pid(), 9)
    host.await_free_lock()
    with open(host.state / "deployments/1/journal.jsonl", "a") as journal:
        journal.write('{"event":"ended","k":"x","t":1,"up":2.00,"step":"01-ch')
    assert client.ask("beat 1") == ("beat", "dead")
    assert client.recover() == ("recovered", "1 undone")
    events = host.journal(1)  # parses
    assert events[-1]["recovery"] is True and "01-ch" not in [e.get("step") for e in events]
    assert not (host.opt / "state").exists()
    assert client.recover()[0] == "recovered"
    assert len(host.history()) == 1
    client.closed()  # told to whoever still follows


@pytest.mark.parametrize("outcome", ["stuck", "undone"])
def test_a_torn_closed_line_closes_nothing(host, client, outcome):
    """Half of it is as good as none: what is stuck isn't forgotten, and nobody is told that it has ended."""
    steps = deployment(step("02-change", "exit 1", "[ -e \"$ORCH_OPT/mended\" ]" if outcome == "stuck" else "", CHANGES=1))
    assert client.run(steps)["outcome"] == outcome
    host.await_free_lock()
    journal, log = host.state / "deployments/1/journal.jsonl", host.state / "deployments/1/log"
    for path in (journal, log):
        text = path.read_text()
        path.write_text(text[:text.rindex('"outcome"') + 5])
        assert '"event":"closed"' in path.read_text().splitlines()[-1]
    told = log.read_bytes()
    second = host.connect()
    assert second.ask("state 1") == ("state", "dead")
    assert second.ask("follow 1 0") == ("following", "dead")
    assert second.ask("seal 1")[0] == "refused"
    assert log.read_bytes() == told
    if outcome == "stuck":
        tag, text = second.open()
        assert tag == "error" and text.startswith("stuck Deployment 1 ")
        host.await_free_lock()
        (host.opt / "mended").write_text("")
    assert host.connect().recover() == ("recovered", "1 undone")
    assert host.journal(1)[-1]["outcome"] == "undone"
    assert [line["outcome"] for line in host.history()] == ["undone"]


def test_a_history_that_cannot_be_read_stays(host, client):
    """Killed between the history's line and the journal's; then the tool that reads the history dies as well."""
    client.run(deployment())
    host.await_free_lock()
    history = (host.state / "history.jsonl").read_text()
    journal = host.state / "deployments/1/journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert '"closed"' in lines[-1]
    journal.write_text("".join(lines[:-1]))
    host.tool("grep", 'case $1 in -v) exit 137 ;; esac\nexec /usr/bin/grep "$@"')
    assert host.connect().recover()[0] == "error"
    host.await_free_lock()
    assert (host.state / "history.jsonl").read_text() == history
    (host.bin / "grep").unlink()
    assert host.connect().recover() == ("recovered", "1 committed")
    assert [line["outcome"] for line in host.history()] == ["committed"]


def test_a_closed_that_was_not_told(host, client):
    """Killed between the journal's last line and the log's: whoever follows gets it all the same, once."""
    client.run(deployment())
    host.await_free_lock()
    log = host.state / "deployments/1/log"
    text = log.read_bytes()
    log.write_bytes(text[:text.rindex(b"\n\1")])
    eventually(lambda: not (host.state / "runner.pid").exists(), "the runner's end")
    assert host.connect().ask("state 1") == ("state", "ended")  # at once
    log.write_bytes(text[:-10])
    assert host.connect().ask("state 1") == ("state", "ended")
    assert log.read_bytes() == text[:-10] + text[text.rindex(b"\n\1"):]
    log.write_bytes(text[:text.rindex(b"\n\1")])
    for _ in range(2):
        late = host.connect()
        eventually(lambda: late.ask("follow 1 0") == ("following", "ended"), "the end")
        late.closed()
    assert log.read_bytes() == text


def test_what_a_power_loss_brings_back_goes_again(host, client):
    """The removals at the end of a deployment aren't fsynced: all of them may be undone."""
    client.run(deployment())
    host.await_free_lock()
    eventually(lambda: not (host.state / "runner.pid").exists(), "the runner's end")
    os.mkfifo(host.state / "deployments/1/inbox")
    for name in ("open", "deployments/1/waiting", "holder"):
        (host.state / name).write_text("1\n")
    assert host.connect().recover()[0] == "recovered"
    assert not [name for name in ("open", "holder", "deployments/1/waiting", "deployments/1/inbox") if (host.state / name).exists()]


def test_a_step_holds_the_lock_beyond_its_runner(host, client):
    client.open()
    client.send(deployment(step("02-gate", 'while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.05; done', "", CHANGES=1)))
    eventually(lambda: "apply 02-gate 1" in host.trace(), "the step")
    os.kill(host.runner_pid(), 9)
    second = host.connect()
    assert second.open()[0] == "locked"
    (host.opt / "go").write_text("")
    host.await_free_lock()
    assert second.open()[0] == "granted"
    assert client.closed()["outcome"] == "undone"


def test_a_second_start_never_continues(host, client):
    """As systemd does after a crash: the same command again."""
    client.open()
    client.send({**step("01-change", "", "", CHANGES=1)}, seal=False)
    client.await_event("ended", step="01-change")
    os.kill(host.runner_pid(), 9)
    host.await_free_lock()
    runner = host.base / "bundle" / host.bundle_name / "runner.sh"
    subprocess.run([host.path("sh"), str(runner), "open", "app", client.nonce, "60", "0"], env=host.environment, check=True, **IDS)
    assert client.closed()["outcome"] == "undone"
    assert (host.state / "sequence").read_text() == "1\n"
