"""The plain course of a deployment, and how it fails."""

from conftest import NO_RELEASE, RELEASE, deployment, step


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
    assert not (host.state / "open").exists() and not (host.state / "reserve").exists()
    second = host.connect()
    assert second.had_bundle
    assert second.run(deployment())["outcome"] == "committed"
    assert host.history()[1]["previous"] == 1


def test_a_failing_step_is_undone_backwards(host, client):
    steps = deployment(step("03-fails", "exit 7", "", CHANGES=1), step("04-commit", SIDE="commit", KIND="commit-test"))
    assert client.run(steps)["outcome"] == "undone"
    assert host.trace() == [
        "apply 01-release 1", "apply 02-change 1", "apply 03-fails 1", "undo 03-fails 1", "undo 02-change 1", "undo 01-release 1"]
    assert client.await_event("ended", step="03-fails")["status"] == 7
    assert host.current() is None
