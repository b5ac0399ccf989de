"""`ssh --all-hosts` through the real binary and a real sshd, which is reached at an address per host."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from conftest import BINARY, ROOT

sys.path.insert(0, str(ROOT / "script/bench.d"))
from hosts import Hosts, free_port  # noqa: E402


class Fleet:
    def __init__(self, home, stack):
        self.hosts = Hosts(home, 5, stack)
        self.inventory = home / "project/inventories/bench.yml"
        self.sound = self.inventory.read_text()
        self.mark = str(self.hosts.mark)

    def start(self, *words):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.hosts.home)}
        return subprocess.Popen(
            [BINARY, "ssh", "bench", "--project", self.hosts.home / "project", *words], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words, limit=60):
        process = self.start(*words)
        out, err = process.communicate(timeout=limit)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Fleet(tmp_path_factory.mktemp("fleet"), stack)


@pytest.fixture
def fleet(running):
    running.inventory.write_text(running.sound)
    running.hosts.forget()
    return running


def lose(fleet, name):
    """That host is at a port where nobody listens."""
    fleet.inventory.write_text("".join(
        line.replace(f"port: {fleet.hosts.at}", f"port: {free_port()}") if line.strip().startswith(f"{name}:") else line
        for line in fleet.sound.splitlines(keepends=True)))


def test_the_command_runs_once_on_each_and_its_lines_bear_the_hosts_name(fleet):
    status, out, err = fleet.run("--all-hosts", "--", f"{fleet.mark} word; echo two")
    assert (status, len(fleet.hosts.reached("word"))) == (0, 5), err
    assert sorted(out.splitlines()) == sorted(f"h{n} | {text}" for n in range(1, 6) for text in ("word", "two"))
    assert err.startswith("5 of 5 hosts done in ")


def test_a_host_that_is_gone_is_named_and_the_others_are_done(fleet):
    lose(fleet, "h3")
    status, out, err = fleet.run("--all-hosts", "--", fleet.mark, "word")
    assert status == 255 and len(fleet.hosts.reached("word")) == 4
    assert "h3: " in err and "refused" in err and err.rstrip().splitlines()[-1].startswith("4 of 5 hosts done"), err


def test_a_command_that_fails_on_some_is_1_and_each_is_named_in_order(fleet):
    status, out, err = fleet.run("--all-hosts", "--", 'case $SSH_CONNECTION in *" 127.1.0.4 "*|*" 127.1.0.2 "*) exit 3 ;; esac')
    assert (status, out) == (1, "")
    assert err.splitlines()[:2] == ["h2: exit status 3", "h4: exit status 3"] and "3 of 5 hosts done" in err


def test_what_isnt_reached_in_time_isnt_begun(fleet):
    fleet.hosts.use(500)
    try:
        status, out, err = fleet.run("--all-hosts", "--timeout", "2s", "--", fleet.mark, "word")
    finally:
        fleet.hosts.use(0)
    assert status == 255 and err.count("the command wasn't begun") == 5 and not fleet.hosts.reached("word"), err


def test_a_connection_and_a_command_cost_six_round_trips(fleet):
    """Counted from outside, by what a longer line adds: 300 ms a round trip. TCP's own is the proxy's, and takes no time."""
    def seconds(round_trip):
        fleet.hosts.use(round_trip)
        found = []
        for _ in range(3):
            began = time.monotonic()
            status, out, err = fleet.run("h1", "--", fleet.mark, "word")
            found.append(time.monotonic() - began)
            assert (status, out) == (0, "word\n"), err
        return min(found)

    try:
        trips = (seconds(300) - seconds(0)) / 0.3
    finally:
        fleet.hosts.use(0)
    assert 4.5 < trips < 5.6, trips


def test_fail_fast_begins_on_no_further_host(fleet):
    lose(fleet, "h2")
    status, out, err = fleet.run("--all-hosts", "--parallel", "1", "--fail-fast", "--", fleet.mark, "word")
    assert status == 255 and out == "h1 | word\n" and "not begun: h3, h4, h5" in err, err


def test_a_host_that_takes_too_long_is_given_up_and_holds_up_nobody(fleet):
    began = time.monotonic()
    status, out, err = fleet.run(
        "--all-hosts", "--timeout", "2s", "--", f'case $SSH_CONNECTION in *" 127.1.0.5 "*) sleep 30 ;; esac; {fleet.mark} word')
    assert status == 255 and len(fleet.hosts.reached("word")) == 4 and "h5: the command hasn't ended in time" in err, err
    assert time.monotonic() - began < 20


def test_for_a_program(fleet):
    lose(fleet, "h1")
    status, out, err = fleet.run("--all-hosts", "--json", "--", "echo out; echo err >&2; exit 4")
    events = [json.loads(line) for line in out.splitlines()]
    assert status == 255 and err == "" and events[-1]["event"] == "finished" and events[-1]["failed"] == ["h1", "h2", "h3", "h4", "h5"]
    ended = {event["host"]: event for event in events if event["event"] == "host_ended"}
    assert ended["h2"]["status"] == 4 and ended["h1"]["problem"]["code"] == "unreachable"
    assert sorted((e["stream"], e["text"]) for e in events if e["event"] == "output" and e["host"] == "h2") == [("stderr", "err"), ("stdout", "out")]


def test_a_role_and_what_is_refused(fleet):
    fleet.inventory.write_text(fleet.sound.replace("roles: [app]", "roles: [app, db]", 2))
    status, out, err = fleet.run("--role", "db", "--", fleet.mark, "word")
    assert status == 0 and sorted(out.splitlines()) == ["h1 | word", "h2 | word"], err
    status, out, err = fleet.run("--role", "dp", "--", "true")
    assert status == 255 and "did you mean db?" in err
    for words in (["--all-hosts"], ["h1", "--all-hosts", "--", "true"], ["--fail-fast", "--", "true"], ["--all-hosts", "--parallel", "0", "--", "true"]):
        status, out, err = fleet.run(*words)
        assert status == 255 and "Error:" in err, (words, err)
    assert not fleet.hosts.reached("true")


def test_nothing_of_a_wide_output_is_lost_or_mixed(fleet):
    status, out, err = fleet.run("--all-hosts", "--", "seq 1 20000")
    assert status == 0, err
    for name in fleet.hosts.names:
        lines = [line.removeprefix(f"{name} | ") for line in out.splitlines() if line.startswith(f"{name} | ")]
        assert lines == [str(n) for n in range(1, 20001)]
