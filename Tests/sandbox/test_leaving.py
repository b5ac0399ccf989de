"""A person at a terminal, and signals: abort or detach, leaving at once, waiting for the lock, a lost connection. By the real binary on a pty."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from conftest import BINARY
from test_crashes import LEASE, consistent, settled, wait_for_step

CTRL_C = b"\x03"
CTRL_S, CTRL_Q = b"\x13", b"\x11"  # stop and start (termios(3), IXON)
QUESTION = "Abort or detach?"
BEFORE = "v1.4.0"
SLOW = "v1.6.0-slowstart"  # half a minute in its health gate: time for a person


@pytest.fixture(scope="module")
def deployed(project):
    project.deploy(BEFORE).expect(0)
    return project


@pytest.fixture
def running(deployed):
    if deployed.current() != BEFORE:
        deployed.run("rollback", "prod", "--yes").expect(0)
    assert deployed.current() == BEFORE
    return deployed


class Person:
    """The binary on a terminal of its own, and the bytes that both sides send."""

    def __init__(self, project, *arguments):
        self.seen, self.at = "", 0
        self.process, self.master = None, None
        pid, self.master = pty.fork()
        if pid == 0:
            os.chdir(project.folder)
            os.execve(BINARY, [str(BINARY), *arguments], {**project.env(), "TERM": "xterm"})
        self.pid, self.status = pid, None

    def _read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, text, timeout=90):
        """Waits for this text in what comes from now on."""
        deadline = time.monotonic() + timeout
        while text not in self.seen[self.at:]:
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s:\n{self.seen[-3000:]}"
            assert self._read(1) or self.poll() is None, f"ended ({self.status}) without {text!r}:\n{self.seen[-3000:]}"
        self.at = self.seen.index(text, self.at) + len(text)

    def text(self, start=0):
        """What was seen from there on, without colours and cursor moves."""
        return re.sub(r"\x1b(\[[0-9;]*[A-Za-z]|[78])", "", self.seen[start:])

    def send(self, data):
        os.write(self.master, data)

    def poll(self):
        # A terminal that nobody reads gets full, and the client would wait for it until its lease is over.
        with contextlib.suppress(OSError):  # it was closed
            while self.status is None and self._read(0):
                pass
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def communicate(self):
        return self.seen, ""

    def end(self, timeout=90):
        """Its exit status."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            self._read(0.1)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"no end within {timeout} s:\n{self.seen[-3000:]}")
        while self._read(0):
            pass
        os.close(self.master)
        return self.status


def asked_during(project, step, target, *more):
    """A person has pressed Ctrl-C while this step runs, and reads the question."""
    person = Person(project, "deploy", "prod", target, "--yes", *more)
    wait_for_step(project, step, person)
    person.send(CTRL_C)
    person.wait_for(QUESTION)
    return person


def test_abort_is_chosen(running):
    person = asked_during(running, "health", SLOW)
    question = person.text(person.seen.rindex("Interrupted;"))
    assert re.search(r"abort\s+.*the host undoes: " + re.escape(BEFORE) + " stays", question), question
    assert "detach  the host goes on without this client: orchestrate attach prod" in question
    person.send(b"abx\x7f\r")  # raw bytes: a mistake taken back, and Return
    assert person.end() == 3, person.seen[-3000:]
    assert "interrupted by Ctrl-C" in person.seen
    assert running.current() == BEFORE
    consistent(running, BEFORE)


def test_the_deployment_goes_on_under_the_question(running):
    """Nobody answers: the step that was running ends, is shown, and so is the outcome."""
    person = asked_during(running, "backup", SLOW)
    assert person.end() == 0, person.seen[-3000:]
    assert "committed: release" in person.text(person.at)
    assert running.current() == SLOW
    consistent(running, SLOW)


def test_detach_is_chosen(running):
    person = asked_during(running, "health", SLOW)
    person.send(b"d\r")
    assert person.end(20) == 7, person.seen[-3000:]
    assert "orchestrate attach prod" in person.seen[person.at:]
    running.run("attach", "prod").expect(0)
    assert running.current() == SLOW
    consistent(running, SLOW)


def test_a_second_time_leaves_at_once(running):
    person = asked_during(running, "health", SLOW, "--lease", f"{LEASE}s")
    person.send(CTRL_C)
    assert person.end(10) == 7, person.seen[-3000:]
    assert "orchestrate attach prod" in person.seen[person.at:]
    running.run("attach", "prod").expect(3)
    assert settled(running, 60) == BEFORE
    consistent(running, BEFORE)


def test_sigterm_twice_leaves_with_the_command(running):
    client = running.start("deploy", "prod", SLOW, "--lease", f"{LEASE}s")
    wait_for_step(running, "health", client)
    # Two signals that come close together would be one: the first is seen by what the host was asked.
    client.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    state = "/var/lib/orchestrate/market-bot"
    while not running.host(f"ls {state}/deployments/$(cat {state}/open)/abort 2>/dev/null || true"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.send_signal(signal.SIGTERM)
    out, err = client.communicate(timeout=10)
    assert client.returncode == 7, (out + err)[-3000:]
    assert "orchestrate attach prod" in err
    assert settled(running, 60) == BEFORE
    consistent(running, BEFORE)


def test_a_terminal_that_is_closed_is_an_interruption(running):
    person = Person(running, "deploy", "prod", SLOW, "--yes")
    wait_for_step(running, "health", person)
    os.close(person.master)  # the kernel sends SIGHUP; what is written from now on fails
    deadline = time.monotonic() + 90
    while person.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert person.status == 3
    assert running.history()[0]["outcome"] == "undone"
    consistent(running, BEFORE)


def test_a_terminal_that_is_stopped_holds_up_nothing(running):
    """Ctrl-S for longer than the lease: the client's signs of life don't wait for its screen."""
    person = Person(running, "deploy", "prod", SLOW, "--yes", "--lease", f"{LEASE}s")
    wait_for_step(running, "health", person)
    person.send(CTRL_S)
    while person._read(0.5):  # what was on its way
        pass
    start = len(person.seen)
    assert settled(running, 120) == SLOW
    assert len(person.seen) == start, "the terminal wasn't stopped"
    person.send(CTRL_Q)
    assert person.end() == 0, person.seen[-3000:]
    assert "committed: release" in person.text(start)
    consistent(running, SLOW)


def test_who_leaves_what_has_ended_gets_its_status(running):
    """Nobody reads the pipe; the outcome is known, and a signal has nothing left to undo."""
    state = "/var/lib/orchestrate/market-bot"
    number = int(running.host(f"cat {state}/sequence")) + 1
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    client = subprocess.Popen(
        [BINARY, "deploy", "prod", BEFORE, "--yes", "--json"], cwd=running.folder, env=running.env(), stdin=subprocess.DEVNULL, stdout=writer,
        stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        running.host(f"""timeout 60 sh -c 'until grep -qs "\"closed\"" {state}/deployments/{number}/journal.jsonl; do sleep 0.1; done'""")
        assert client.poll() is None, "all of it was read"
        for _ in range(2):  # the first may come before the client knows
            client.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(10)
                break
        assert client.returncode == 0
    finally:
        client.kill()
        os.close(reader)


def queued(project):
    """A deployment that holds the lock, and a second that waits for it; the second's events."""
    first = project.start("deploy", "prod", SLOW)
    wait_for_step(project, "health", first)
    second = project.start("deploy", "prod", SLOW, "--lock-wait", "10m", "--json")
    events = []
    for line in second.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "waiting_for_lock":
            return first, second, events
    raise AssertionError((events, second.communicate()))


def test_a_cancelled_ci_job_says_how_it_ends(running):
    """GitHub's cancel (actions/runner: SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL) comes in the gate, which takes longer than that."""
    client = running.start("deploy", "prod", SLOW, "--lease", f"{LEASE}s", CI="true", GITHUB_ACTIONS="true")
    wait_for_step(running, "health", client)
    for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5), (signal.SIGKILL, 5)):
        client.send_signal(number)
        try:
            client.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            continue
    out, err = client.communicate()
    assert client.returncode == 7, (client.returncode, (out + err)[-3000:])
    assert f"the step health runs to its end, then the host undoes: {BEFORE} stays" in out + err
    assert "left at once" in out + err and "orchestrate attach prod" in out + err
    assert settled(running, 60) == BEFORE
    consistent(running, BEFORE)
    running.run("attach", "prod").expect(3)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_who_waits_for_the_lock_is_told_and_leaves_no_runner_behind(running, how):
    first, second, events = queued(running)
    names = [event["event"] for event in events]
    assert names[:4] == ["starting", "connecting", "connected", "waiting_for_lock"]
    assert (events[-1]["holder"]["who"].split("@")[0], events[-1]["holder"]["version"]) == ("ada", SLOW)
    assert events[-1]["holder"]["since"] and events[-1]["limit"] == 600
    second.send_signal(how)
    second.communicate(timeout=20)
    assert second.returncode == (1 if how == signal.SIGINT else -how)
    deadline = time.monotonic() + 10
    # Runners by their nonces: each has children of the same command line.
    while len(running.host("pgrep -af '[r]unner.sh open market-bot' | awk '{ print $6 }' | sort -u").split()) != 1:
        assert time.monotonic() < deadline, "the runner of the departed still waits for the lock"
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=90)
    assert running.history()[0]["outcome"] == "undone"
    running.assert_nothing_left()


def test_lock_abort_tells_what_becomes_of_it(running):
    client = running.start("deploy", "prod", SLOW)
    wait_for_step(running, "health", client)
    shown = json.loads(running.run("lock", "prod", "--json").expect(0).out)["hosts"][0]
    assert shown["locked"] and shown["heartbeat_age"] < 30
    result = running.run("lock", "prod", "--abort", "--reason", "grace says so", "--timings").expect(0)
    assert re.search(r"deployment \d+ is asked to undo; the step health has run for \d+ s", result.err), result.text
    assert re.search(r"connected in .* round trips, .* in all", result.err), result.text
    out, err = client.communicate(timeout=90)
    assert client.returncode == 3 and "grace says so" in err
    running.assert_nothing_left()


def test_timings_of_status_and_plan(running):
    status = json.loads(running.run("status", "prod", "--timings", "--json").expect(0).out)["timings"]
    assert 1 <= status["round_trips"] <= 2 and 0 < status["connect"]["total"] <= status["seconds"]
    plan = json.loads(running.run("plan", "prod", SLOW, "--timings", "--json").expect(2).out)["timings"]
    assert status["round_trips"] < plan["round_trips"] <= 15
    assert "round trips" in running.run("plan", "prod", SLOW, "--no-pull", "--timings").expect(2).err
    assert "timings" not in json.loads(running.run("status", "prod", "--json").expect(0).out)


def test_who_only_watches_may_leave(running):
    client = running.start("deploy", "prod", SLOW)
    wait_for_step(running, "health", client)
    watcher = running.start("attach", "prod")
    seen = ""
    while "deployment #" not in seen:
        line = watcher.stdout.readline()
        assert line, (seen, watcher.communicate())
        seen += line
    watcher.send_signal(signal.SIGINT)
    out, err = watcher.communicate(timeout=10)
    assert watcher.returncode == 7 and "the deployment goes on, on the host: orchestrate attach prod" in err, (out, err)
    out, err = client.communicate(timeout=120)
    assert client.returncode == 0, (out + err)[-3000:]
    consistent(running, SLOW)
