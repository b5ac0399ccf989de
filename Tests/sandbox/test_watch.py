"""The watch behind the commit, through the real binary: its end, a breach with and without a client, whoever it makes way for, and a host that starts anew in the middle.

The tests build on each other, in this order."""

import json
import signal
import time

import pytest

from conftest import sandbox

STATE = "/var/lib/orchestrate/market-bot"
ON_THE_SCHEMA = ("--skip", "migrate")  # v1.1.0 doesn't know the one that v1.4.0 has left, and runs on it


@pytest.fixture(scope="module")
def bot(project):
    watch(project, "60s")
    first = project.deploy("v1.0.0").expect(0)
    assert "no watch behind the commit: nothing ran before" in first.text
    project.assert_nothing_left()
    return project


def watch(project, duration: str):
    playbook = project.folder / "playbooks/deploy.yml"
    lines = [line for line in playbook.read_text().splitlines() if not line.startswith("watch:")]
    playbook.write_text("\n".join([*([f"watch: {duration}"] if duration else []), *lines]) + "\n")


def eventually(condition, what: str, seconds: float = 90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def journal(project, number: int) -> list[dict]:
    return [json.loads(line) for line in project.host(f"cat {STATE}/deployments/{number}/journal.jsonl").splitlines()]


def behind_the_end(project, number: int) -> list[str]:
    names = [event["event"] for event in journal(project, number)]
    return names[names.index("closed"):] if "closed" in names else []


def newest(project) -> int:
    return int(project.host(f"cat {STATE}/sequence"))


def await_watch(project, number: int, times: int = 1):
    """The watch has had its first look."""
    eventually(lambda: behind_the_end(project, number).count("watching") == times, f"the watch over {number}")
    eventually(lambda: project.host(f"ls {STATE}/deployments/{number}/watch/baseline 2>/dev/null || true"), "its first look")


def is_over(project) -> bool:
    return project.host(f"[ -e {STATE}/watching ] || [ -e {STATE}/open ] || ! flock -n {STATE}/lock true || echo over", check=False) == "over"


def kill_bot(project):
    """Its process, not its container: `docker kill` would be somebody's wish."""
    project.host(f"sudo kill -KILL $(docker inspect -f '{{{{.State.Pid}}}}' {project.container('bot')})")


def test_watched_to_the_end(bot):
    watch(bot, "10s")
    done = bot.deploy("v1.1.0").expect(0)
    assert "watching for 10" in done.out and "watched to the end: all is well" in done.out
    assert behind_the_end(bot, 2) == ["closed", "watching", "watched"]
    bot.assert_nothing_left()
    assert bot.host(f"ls -d {STATE}/deployments/2/watch {STATE}/reserve 2>/dev/null || true") == ""


def test_a_breach_while_it_is_followed(bot):
    """Also what the others see meanwhile: status, lock, attach."""
    watch(bot, "2m")
    client = bot.start("deploy", "prod", "v1.4.0")
    eventually(lambda: newest(bot) == 3, "the deployment")
    await_watch(bot, 3)
    assert bot.current() == "v1.4.0"
    status = bot.status()
    assert status["version"] == "v1.4.0" and status["lock"]["watching"] == 3 and status["lock"]["until"]
    assert "watching" in bot.run("status", "prod").expect(0).out
    assert "the watch over deployment 3" in bot.run("lock", "prod").expect(0).out
    follower = bot.start("attach", "prod")
    kill_bot(bot)
    out, err = client.communicate(timeout=120)
    assert client.returncode == 3, out + err
    assert "v1.4.0 was not well in its watch: bot: it crashed and was restarted by Docker" in err
    assert "v1.1.0 is current again and healthy" in err and "undone; v1.1.0 runs and is healthy" in out
    out, err = follower.communicate(timeout=60)
    assert follower.returncode == 3 and "was not well in its watch" in err, out + err
    bot.assert_answers("v1.1.0")
    bot.assert_nothing_left()
    last = bot.history()[0]
    assert (last["number"], last["command"], last["outcome"], last["from"], last["to"]) == (4, "rollback", "committed", "v1.4.0", "v1.1.0")
    assert last["who"] == "the watch over #3" and last["reason"] == "bot: it crashed and was restarted by Docker"
    assert json.loads(bot.host("cat /opt/market-bot/current/release.json"))["number"] == 4
    assert bot.host(f"ls -d {STATE}/deployments/*/watch 2>/dev/null || true") == ""


def test_a_breach_after_the_client_was_killed(bot):
    """A bot that answers nothing is noticed by its gate. Here nobody follows, and the host goes back all the same."""
    client = bot.start("deploy", "prod", "v1.4.0")
    eventually(lambda: newest(bot) == 5, "the deployment")
    await_watch(bot, 5)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    bot.host(f"docker pause {bot.container('bot')}")
    eventually(lambda: is_over(bot), "the way back", 120)
    bot.assert_answers("v1.1.0")
    assert behind_the_end(bot, 5) == ["closed", "watching", "breached"]
    assert bot.history()[0]["reason"].endswith(", 3 times in a row")
    attached = bot.run("attach", "prod")
    assert attached.status == 0 and "v1.1.0" in attached.text
    bot.assert_nothing_left()


def test_a_way_back_that_fails_too(bot):
    """The older version is no better off without its database: what was deployed stays, and that is said."""
    client = bot.start("deploy", "prod", "v1.4.0")
    eventually(lambda: newest(bot) == 7, "the deployment")
    await_watch(bot, 7)
    bot.host(f"docker stop {bot.container('postgres')}")
    out, err = client.communicate(timeout=240)
    assert client.returncode == 4, out + err
    assert "failed too: v1.4.0 is still current" in err
    assert bot.current() == "v1.4.0" and bot.history()[0]["outcome"] in ("undone", "unchanged")
    bot.host("docker start $(docker ps -aq --filter label=com.docker.compose.service=postgres)")
    bot.assert_answers("v1.4.0")
    bot.assert_nothing_left()


def test_whoever_follows_may_leave(bot):
    """There is nothing to abort any more."""
    client = bot.start("deploy", "prod", "v1.1.0", *ON_THE_SCHEMA)
    eventually(lambda: newest(bot) == 9, "the deployment")
    await_watch(bot, 9)
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=20)
    assert client.returncode == 7 and "left: the host goes on watching" in err, out + err
    assert bot.status()["lock"]["watching"] == 9 and bot.current() == "v1.1.0"


def test_a_new_deploy_takes_its_place(bot):
    other = bot.deploy("v1.4.0", "--no-follow").expect(0)
    assert "the watch over #9 has ended" in other.text and other.seconds < 60
    assert "the host watches v1.4.0 for 2 min" in other.text
    assert behind_the_end(bot, 9) == ["closed", "watching", "watched"] and journal(bot, 9)[-1]["reason"] == "superseded"


def test_what_leaves_the_release_alone_waits_or_it_is_ended_by_hand(bot):
    await_watch(bot, 10)
    backup = bot.start("backup", "prod")
    time.sleep(3)
    assert backup.poll() is None
    ended = bot.run("lock", "prod", "--abort").expect(0)
    assert "the watch has ended; v1.4.0 stays" in ended.text
    out, err = backup.communicate(timeout=90)
    assert backup.returncode == 0 and "the watch over deployment 10" in out + err, out + err
    assert journal(bot, 10)[-1]["reason"] == "aborted" and bot.current() == "v1.4.0"
    bot.assert_nothing_left()


def test_docker_is_restarted_in_the_middle(bot):
    """What that does to the containers is not the release's fault."""
    watch(bot, "30s")
    bot.deploy("v1.1.0", "--no-follow", *ON_THE_SCHEMA).expect(0)
    number = newest(bot)
    await_watch(bot, number)
    bot.host("sudo systemctl restart docker")
    await_watch(bot, number, times=2)
    eventually(lambda: is_over(bot), "the end of the watch", 120)
    assert journal(bot, number)[-1] | {"event": "watched", "reason": "over"} == journal(bot, number)[-1], journal(bot, number)
    assert bot.current() == "v1.1.0"
    bot.assert_answers("v1.1.0")


@pytest.mark.machine
@pytest.mark.parametrize("fault", ["reboot", "power-loss"])
def test_the_host_starts_anew_in_the_middle(bot, fault):
    """The watch begins afresh, and still goes back."""
    watch(bot, "5m")
    before = bot.current()
    bot.deploy("v1.4.0", "--no-follow").expect(0)
    number = newest(bot)
    await_watch(bot, number)
    sandbox(fault, bot.droplet)
    await_watch(bot, number, times=2)
    bot.assert_answers("v1.4.0")
    kill_bot(bot)
    eventually(lambda: is_over(bot), "the way back", 120)
    bot.assert_answers(before)
    assert bot.current() == before and bot.history()[0]["who"] == f"the watch over #{number}"
    bot.assert_nothing_left()
