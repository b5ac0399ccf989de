"""The shipped runner, wrong in one point each: the suite must notice. A check that can't fail proves nothing.

Each has its counterpart in the model (Tests/EngineTests/Model), whose explorer finds the promise that it breaks.
"""

import json
import os
import pathlib
import re
import shutil
import tempfile

import conftest
import pytest
import test_conversation
import test_crash
import test_deployment
import test_durability
import test_watch
from conftest import HOST, ROOT, Host


def with_disk(test):
    return lambda host: test(test_durability.Disk(host))


def with_client(test):
    return lambda host: test(host, host.connect())


def with_torn(outcome):
    return lambda host: test_crash.test_a_torn_closed_line_closes_nothing(host, host.connect(), outcome)


def with_watch(test, *arguments, docker=True):
    """Release 1 runs."""

    def check(host):
        faked = test_watch.Docker(host)
        test(test_watch.running(host), *([faked] if docker else []), *arguments)

    return check


def killed(tool, number, when, steps):
    """Killed at that command, as test_crash does it at each."""

    def check(host):
        rig = test_crash.make_rig(host)
        rig.arm(number, when, tool)
        assert rig.killed_deployment(steps), "it wasn't killed"
        rig.check(steps, f"{tool} {number}")

    return check


# The model's name: the script, what stands there, what stands there instead, and the test that notices.
MUTANTS = {
    "startedIsNotSynced": (
        "journal.sh", 'sync -d journal.jsonl || return 1\n  tell', ":\n  tell",
        with_disk(test_durability.test_nothing_happens_before_its_line_is_on_the_disk)),
    "scriptsAreNotSynced": (
        "receiving.sh", "-print0 | sync_all ||", "-print0 >/dev/null ||",
        with_disk(test_durability.test_nothing_happens_before_its_line_is_on_the_disk)),
    "failedStepsAreIgnored": (
        "runner.sh", '[ "$_status" = 0 ] || [ $committed = 1 ] || {\n    _text', "true || {\n    _text",
        with_client(test_deployment.test_a_failing_step_is_undone_backwards)),
    "lockIsReleasedBeforeTheUndo": (
        "undoing.sh", "undo_all() {\n", "undo_all() {\n  exec 9>&-\n",
        with_client(test_durability.test_nobody_gets_the_lock_during_an_undo)),
    "stepsDoNotInheritTheLock": (
        "runner.sh", "    exec 3>&- 4>&-\n    cd \"$1\"\n", "    exec 3>&- 4>&- 9>&-\n    cd \"$1\"\n",
        with_client(test_crash.test_a_step_holds_the_lock_beyond_its_runner)),
    "nextOpensOverWhatIsOpen": (
        "runner.sh", "for _open in $(open_numbers); do", "for _open in; do",
        with_client(test_crash.test_a_step_holds_the_lock_beyond_its_runner)),
    "numbersFollowCurrent": (
        "opening.sh", '  first_line "$ORCH_STATE/sequence"\n', "  current_release\n",
        with_client(test_conversation.test_numbers_are_never_used_again)),
    "anyMessageIsTaken": (
        "attach.sh", '  [ "$REPLY" = "$1" ]\n}', '  [ -n "$REPLY" ] && deployment=$ORCH_STATE/deployments/$REPLY\n}',
        with_client(test_conversation.test_messages_for_another_number_are_refused)),
    "recoveryContinues": (
        "runner.sh", '[ ! -e "$start/verdict" ] || mode=recover', 'rm -f "$start/verdict"',
        with_client(test_crash.test_a_second_start_never_continues)),
    "undoIsTurnedBack": (
        "recovery.sh", 'if [ "$REPLY" = "$N" ]; then', 'if grep -q \'"event":"undoing"\' journal.jsonl; then',
        with_client(test_durability.test_a_runner_that_is_killed_in_its_undo_goes_on_undoing)),
    "undoRunsForwards": (
        "undoing.sh", "  for _step in $started; do\n    case $_undone", "  for _step in $(printf '%s\\n' $started | sort); do\n    case $_undone",
        with_client(test_deployment.test_a_failing_step_is_undone_backwards)),
    "recoveryBelievesTheJournal": (
        "recovery.sh", 'if [ "$REPLY" = "$N" ]; then', 'if grep -q \'"event":"committed"\' journal.jsonl; then',
        with_disk(test_durability.test_who_rolls_forward_syncs_the_rename)),
    "renameIsNotSynced": (
        "runner.sh", '  sync "$ORCH_OPT"\n', "",
        with_disk(test_durability.test_nothing_happens_before_its_line_is_on_the_disk)),
    "rollForwardDoesNotSync": (
        "recovery.sh", '  sync "$ORCH_OPT"\n', "", with_disk(test_durability.test_who_rolls_forward_syncs_the_rename)),
    "readClosedIsNotSynced": (
        "runner.sh", '|| sync -d "deployments/$REPLY/journal.jsonl"', "|| :",
        with_disk(test_durability.test_who_believes_a_closed_line_syncs_it)),
    "fullDiskUndoesAfterTheCommit": (
        "runner.sh", "[ $committed = 1 ] || undo step-failed 'The journal", "undo step-failed 'The journal",
        with_disk(test_durability.test_a_journal_that_cannot_be_written_behind_the_commit_undoes_nothing)),
    "abortIsHeardAfterTheCommit": (
        "attach.sh", '"$(readlink "$ORCH_OPT/current")" = "releases/$1"', "no = yes",
        with_client(test_conversation.test_abort_while_waiting_and_after_the_commit)),
    "closedBeforeHistory": (
        "closing.sh", "  first_line holder.json\n", "  printf '%s\\n' \"$_closed\" >>journal.jsonl\n  first_line holder.json\n",
        killed("xargs", 3, "before", test_crash.SUCCEEDING)),
    "toldBeforeSynced": (
        "closing.sh", "  sync -d journal.jsonl\n", "  line=$_closed\n  tell\n  sync -d journal.jsonl\n",
        with_disk(test_durability.test_nothing_happens_before_its_line_is_on_the_disk)),
    "tornLineIsBelieved": ("journal.sh", '/^{"event":"closed",.*}$/', '/^{"event":"closed",/', with_torn("stuck")),
    "tornLineIsWrittenOn": (
        "journal.sh", "cut_torn() {\n", "cut_torn() {\n  return 0\n", with_client(test_crash.test_torn_last_line)),
    "directoryBeforeMarker": (
        "opening.sh", "../../open ../.. | sync_all", "| sync_all",
        with_disk(test_durability.test_nothing_happens_before_its_line_is_on_the_disk)),
    "takenUpWithoutAMarker": (
        "recovery.sh", '{ echo "$N" >"$ORCH_STATE/open" && sync "$ORCH_STATE/open" "$ORCH_STATE"; }', "true",
        with_disk(test_durability.test_what_was_stuck_has_its_marker_while_it_is_tried_again)),
    "recoveryDropsWhatIsLeft": (
        "recovery.sh", "  for _step in [0-9][0-9]-*/; do\n    _step", "  for _step in; do\n    _step",
        with_disk(test_durability.test_who_rolls_forward_syncs_the_rename)),
    "failedUndoIsPassedOver": (
        "undoing.sh", '  return "$_status"\n', "  return 0\n", with_client(test_deployment.test_stuck_and_tried_again_by_the_next)),
    "watchIsMarkedBehindTheEnd": (
        "watch.sh", ' && sync "$ORCH_STATE/watching" "$ORCH_STATE"; }', "; }",
        with_watch(test_watch.test_the_mark_of_a_watch_is_on_the_disk_before_the_end, docker=False)),
    "recoveryForgetsTheWatch": (
        "runner.sh", '$recovered"\n    take_up_watch\n', '$recovered"\n', with_watch(test_watch.test_a_dead_watch_is_taken_up_afresh)),
    "breachIsNotSynced": (
        "watch.sh", "\"$line\" >>journal.jsonl && sync -d journal.jsonl; }", "\"$line\" >>journal.jsonl; }",
        with_watch(test_watch.test_the_reason_of_a_way_back_is_on_the_disk_before_it)),
    "breachIsForgotten": (
        "watch.sh", '[ "$_newest" != "$N" ] || go_back', ":", with_watch(test_watch.test_killed_at_each_event, 2, "breached")),
    "returnsWithoutTheLock": (
        "watch.sh", "  flock -n 9 || return 0\n", "", with_watch(test_watch.test_docker_may_go_and_come_back)),
    "returnsToAnother": (
        "watch.sh", "    '' | watching) [", "    *) [",
        with_watch(test_watch.test_who_ends_a_watch_that_has_let_go_and_dies_at_it)),
    "watchesWhatIsNotCurrent": (
        "watch.sh", '  if [ "$REPLY" = "$N" ] && [ -z', "  if [ -z",
        with_watch(test_watch.test_killed_at_each_event, 3, "committed")),
    "brokenOffIsBelieved": (
        "watch.sh", "[ $((_newest - N)) -ge 3 ] ||", "true ||", with_watch(test_watch.test_killed_at_each_event, 3, "started")),
    "opensAboveWhatIsStuck": (
        "watch.sh", ' && [ -z "$_stuck" ]', "", with_watch(test_watch.test_nothing_is_opened_above_a_way_back_that_is_stuck)),
    "supersededBehindTheBreach": (
        "watch.sh", """    case $REPLY in '' | watching) note watched""", """    case $REPLY in *) note watched""",
        with_watch(test_watch.test_who_believes_a_line_of_the_watch_syncs_it, "breached", test_watch.by_a_new_release)),
    "readWatchIsNotSynced": (
        "watch.sh", "  sync -d journal.jsonl\n  REPLY=$(sed", "  REPLY=$(sed",
        with_watch(test_watch.test_who_believes_a_line_of_the_watch_syncs_it, "watched", test_watch.by_a_recovery)),
    "toldWatchIsNotSynced": (
        "attach.sh", 'sync -d "$ORCH_STATE/deployments/$1/journal.jsonl"', ":",
        with_watch(test_watch.test_who_believes_a_line_of_the_watch_syncs_it, "watched", test_watch.by_who_asks)),
}


@pytest.fixture
def broken(request, monkeypatch):
    """A host whose scripts are wrong in one point."""
    monkeypatch.setattr(conftest, "PATIENCE", 4)  # what hangs is noticed, too
    directory = tempfile.mkdtemp(prefix="mutant-")
    os.chmod(directory, 0o755)
    scripts = pathlib.Path(directory) / "scripts"
    shutil.copytree(HOST, scripts)
    name, old, new, _ = MUTANTS[request.param]
    text = (scripts / name).read_text()
    assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
    (scripts / name).write_text(text.replace(old, new))
    host = Host("dash", directory, scripts)
    host.forged = True
    yield host
    host.close()


@pytest.mark.parametrize("broken", MUTANTS, indirect=True)
def test_a_wrong_runner_is_noticed(request, broken):
    check = MUTANTS[request.node.callspec.params["broken"]][3]
    with pytest.raises((AssertionError, pytest.fail.Exception, json.JSONDecodeError)) as noticed:
        check(broken)
    print(str(noticed.value)[:500])


def test_each_has_its_counterpart_in_the_model():
    source = (ROOT / "Tests/EngineTests/Model/ProtocolModel.swift").read_text()
    names = re.findall(r"\w+", source.split("enum Mutant", 1)[1].split("///", 1)[0])
    assert set(MUTANTS) <= set(names)
