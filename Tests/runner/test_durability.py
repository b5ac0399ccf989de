"""What is on the disk when something happens that builds upon it: `sync` keeps a copy of each file and directory as it was when it was asked for, by inode, and
the steps look there. A power loss leaves no more than that."""

import json
import os

import pytest
from conftest import HOST, IDS, deployment, eventually, step

HOOK = r"""
disk=${ORCHESTRATE_OPT%/*}/disk
for path; do
  case $path in -*) continue ;; esac
  # About to be synced; nobody may have been told.
  if [ "$path" = journal.jsonl ] && [ -e "$disk/full" ]; then exit 1; fi
  if [ "$path" = journal.jsonl ] && [ -e "$disk/kill-at" ] && tail -n 1 journal.jsonl | grep -q "^{\"event\":\"$(cat "$disk/kill-at")\""; then
    rm "$disk/kill-at"; kill -KILL $PPID; exit 137
  fi
  if [ "$path" = journal.jsonl ] && grep -q '"event":"closed"' journal.jsonl; then
    ! grep -q '"event":"closed"' log || echo "closed was told" >>"$disk/missing"
  fi
  # The directory is there by now, and its marker was on the disk before.
  if [ "$path" = deployments ] && ! grep -qs ' open$' "$disk/$(stat -c %i .)"; then echo "the marker" >>"$disk/missing"; fi
  if [ -e "$disk/kill-at-rename" ] && [ "$path" = "$ORCHESTRATE_OPT/app" ] && [ "$(readlink "$path/current")" = "$(cat "$disk/kill-at-rename")" ]; then
    rm "$disk/kill-at-rename"; kill -KILL $PPID; exit 137
  fi
done
/usr/bin/sync "$@" || exit
for path; do
  case $path in -*) continue ;; esac
  if [ -d "$path" ]; then ls -l "$path"; else cat "$path"; fi >"$disk/.$$" && mv "$disk/.$$" "$disk/$(stat -c %i "$path")"
done
"""
LOOK = r"""
disk=${ORCHESTRATE_OPT%/*}/disk
on_disk() { cat "$disk/$(stat -c %i "$1")" 2>/dev/null; }
# FILE PATTERN: is there a line of it on the disk?
wanted() { on_disk "$1" | grep -q -e "$2" || echo "${ORCH_STEP##*/}: $2 in $1" >>"$disk/missing"; }
"""
BEFORE_AN_EFFECT = LOOK + r"""
name=${ORCH_STEP##*/}
wanted "$ORCH_DEPLOYMENT/journal.jsonl" "\"event\":\"started\".*\"$name\""
on_disk "$ORCH_STEP/undo.sh" | cmp -s - "$ORCH_STEP/undo.sh" || echo "undo.sh of $name" >>"$disk/missing"
wanted "$ORCH_STEP" ' undo.sh$'
wanted "$ORCH_DEPLOYMENT" " $name\$"
wanted "$ORCH_STATE/deployments" " $ORCH_N\$"
wanted "$ORCH_STATE" ' open$'
wanted "$ORCH_STATE/sequence" "^$ORCH_N\$"
"""
BEHIND_THE_COMMIT = LOOK + r"""
wanted "$ORCH_DEPLOYMENT/journal.jsonl" '"event":"committed"'
wanted "$ORCH_OPT" "current -> releases/$ORCH_N\$"
wanted "$ORCH_OPT/releases" " $ORCH_N\$"
"""
HEAD = '. "$ORCH_BUNDLE/lib.sh"\n'


def watched():
    change = BEFORE_AN_EFFECT + 'echo "$ORCH_N" >"$ORCH_OPT/state"'
    return deployment(
        step("02-change", change, 'echo "$ORCH_PREVIOUS" >"$ORCH_OPT/state"', CHANGES=1),
        step("03-commit", SIDE="commit", KIND="commit-test", files=[("apply.sh", HEAD + BEHIND_THE_COMMIT)]))


@pytest.fixture
def disk(host):
    assert os.path.exists("/usr/bin/sync")
    return Disk(host)


class Disk:
    def __init__(self, host):
        self.host, self.path = host, host.directory / "disk"
        self.path.mkdir()
        if IDS:
            os.chown(self.path, IDS["user"], IDS["group"])
        host.tool("sync", HOOK)

    def text(self, path):
        kept = self.path / str(os.stat(path).st_ino)
        return kept.read_text() if kept.exists() else ""

    def missing(self):
        path = self.path / "missing"
        return path.read_text() if path.exists() else ""

    def set(self, name, text=""):
        (self.path / name).write_text(text)
        if IDS:
            os.chown(self.path / name, IDS["user"], IDS["group"])


def test_nothing_happens_before_its_line_is_on_the_disk(disk):
    host = disk.host
    for number in (1, 2):
        assert host.connect().run(watched())["outcome"] == "committed"
        host.await_free_lock()
        assert disk.missing() == ""
        assert '"event":"closed"' in disk.text(host.state / f"deployments/{number}/journal.jsonl")
        assert f'"number":{number},' in disk.text(host.state / "history.jsonl")
        assert " history.jsonl\n" in disk.text(host.state)
    assert "current -> releases/2" in disk.text(host.opt)


def test_who_rolls_forward_syncs_the_rename(disk):
    """Killed between the rename and its fsync: what is told of as committed must not be taken back by a power loss."""
    host = disk.host
    assert host.connect().run(deployment())["outcome"] == "committed"
    host.await_free_lock()
    disk.set("kill-at-rename", "releases/2")
    client = host.connect()
    client.open()
    client.send(deployment())
    eventually(lambda: not (disk.path / "kill-at-rename").exists(), "the kill")
    host.await_free_lock()
    assert host.current() == "releases/2" and "releases/2" not in disk.text(host.opt)
    assert host.connect().recover() == ("recovered", "2 committed")
    assert "current -> releases/2" in disk.text(host.opt)
    assert "apply 04-after 2" in host.trace()


def test_who_believes_a_closed_line_syncs_it(disk):
    """Killed between the line and its fsync: lost behind a later commit, it would open a committed deployment again, to be undone."""
    host = disk.host
    disk.set("kill-at", "closed")
    client = host.connect()
    client.open()
    client.send(deployment())
    eventually(lambda: not (disk.path / "kill-at").exists(), "the kill")
    host.await_free_lock()
    journal = host.state / "deployments/1/journal.jsonl"
    assert '"event":"closed"' in journal.read_text() and '"event":"closed"' not in disk.text(journal)
    second = host.connect()
    assert second.open()[0] == "granted" and second.n == 2
    assert '"event":"closed"' in disk.text(journal)


def test_what_was_stuck_has_its_marker_while_it_is_tried_again(disk):
    """The recovery at boot goes by it: else a restart of the machine in the middle would leave it half undone."""
    host = disk.host
    undo = '[ -e "$ORCH_OPT/mended" ] || exit 1; while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.05; done'
    assert host.connect().run(deployment(step("02-change", "exit 1", undo, CHANGES=1)))["outcome"] == "stuck"
    host.await_free_lock()
    assert not (host.state / "open").exists()
    (host.opt / "mended").write_text("")
    client = host.connect()
    client.say("recover again")
    eventually(lambda: len([line for line in host.trace() if line == "undo 02-change 1"]) == 4, "the next attempt")
    assert (host.state / "open").exists() and (host.state / "open").read_text() == "1\n"
    assert " open\n" in disk.text(host.state)
    (host.opt / "go").write_text("")
    client.wait_for(lambda: client.replies, "recovery")
    assert client.replies == [("recovered", "1 undone")]
    assert not (host.state / "open").exists()


def test_nobody_gets_the_lock_during_an_undo(host, client):
    undo = 'while [ ! -e "$ORCH_OPT/go" ]; do sleep 0.05; done'
    client.open()
    client.send(deployment(step("02-change", "exit 1", undo, CHANGES=1)))
    eventually(lambda: "undo 02-change 1" in host.trace(), "the undo")
    assert host.connect().open()[0] == "locked"
    (host.opt / "go").write_text("")
    assert client.closed()["outcome"] == "undone"


def test_a_runner_that_is_killed_in_its_undo_goes_on_undoing(host, client):
    undo = 'if mkdir "$ORCH_OPT/once"; then kill -KILL "$(sed "s/[^ ]* \\([0-9]*\\).*/\\1/" "$ORCH_STATE/runner.pid")"; fi'
    client.open()
    client.send(deployment(step("02-change", "exit 1", undo, CHANGES=1)))
    eventually(lambda: (host.opt / "once").exists(), "the kill")
    host.await_free_lock()
    assert host.connect().recover() == ("recovered", "1 undone")
    assert [event["event"] for event in host.journal(1)].count("undoing") == 2
    assert host.current() is None and host.history()[0]["outcome"] == "undone"


def test_a_journal_that_cannot_be_written_behind_the_commit_undoes_nothing(disk):
    """A disk that is full then, say: the steps behind the commit free it, and can't fail the deployment."""
    host = disk.host
    assert host.connect().run(deployment())["outcome"] == "committed"
    host.await_free_lock()
    full = 'touch "${ORCHESTRATE_OPT%/*}/disk/full"'
    commit = step("03-commit", SIDE="commit", KIND="commit-test", files=[("apply.sh", HEAD + full)])
    after = step("04-after", 'rm "${ORCHESTRATE_OPT%/*}/disk/full"', AFTER=1)
    assert host.connect().run(deployment(commit, after))["outcome"] == "committed"
    assert host.current() == "releases/2"
    assert host.trace()[-2:] == ["apply 02-change 2", "apply 04-after 2"]
    assert host.journal(2)[-1]["outcome"] == host.history()[-1]["outcome"] == "committed"


def test_half_a_line_that_a_full_disk_has_left_is_cut_before_the_next(host):
    """Glued to it, the next line would be lost, and in its place a line that nobody can read."""
    host.state.mkdir()
    (host.state / "journal.jsonl").write_text('{"event":"opened","number":1}\n{"event":"ended","st')
    if IDS:
        for path in (host.state, host.state / "journal.jsonl"):
            os.chown(path, IDS["user"], IDS["group"])
    script = f'set -eu; cd "{host.state}"; . "{HOST}/lib.sh"; . "{HOST}/journal.sh"; torn=1 _key=k _epoch=0; record committed \'"release":1\''
    process = host.start("-c", script)
    assert process.wait(10) == 0, process.stderr.read()
    assert [json.loads(line)["event"] for line in (host.state / "journal.jsonl").read_text().splitlines()] == ["opened", "committed"]
