"""Round trips after authentication: reported, bounded, and verified from outside over a line that is made slow.

From outside they are (time over the slow line − time over the fast one) / round trip, each the time from sshd's `Accepted` (the droplet's clock is
the machine's) to the end of the command without what the host says its steps took, of the least disturbed of several runs. The line is slower than any real one, a second per round trip, so
that what a busy machine adds to a run, tenths of a second, stays below one trip."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from conftest import ROOT, assignments, sandbox

ROUND_TRIP = 1.0  # seconds


@pytest.fixture(scope="module")
def running(project):
    project.deploy("v1.0.0").expect(0)
    return project


@pytest.fixture(scope="module")
def line(running, tmp_path_factory):
    """The project over a proxy, and a function that sets the proxy's round trip in seconds."""
    port = running.environment["DROPLET_PORT"]
    proxy = subprocess.Popen(
        [ROOT / "sandbox/delay-proxy", "0", port, "--control", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    proxy_port = proxy.stdout.readline().split()[2]
    control = proxy.stdout.readline().split()[2]
    folder = tmp_path_factory.mktemp("line") / "project"
    shutil.copytree(running.folder, folder)
    known = Path(assignments(sandbox("droplet", running.droplet).stdout)["DROPLET_KNOWN_HOSTS"]).read_text().splitlines()
    own = [entry.replace(f":{port} ", f":{proxy_port} ", 1) for entry in known if entry.startswith(f"[127.0.0.1]:{port} ")]
    (folder / "known").write_text("\n".join(own) + "\n")
    inventory = folder / "inventories/prod.yml"
    lines = []
    for entry in inventory.read_text().splitlines():
        if entry.startswith("ssh:"):
            entry = entry.split("known_hosts:")[0] + f"known_hosts: {folder / 'known'} }}"
        lines.append(entry.replace(f"port: {port},", f"port: {proxy_port},"))
    inventory.write_text("\n".join(lines) + "\n")

    def delay(seconds: float):
        words = [ROOT / "sandbox/delay-proxy", "send", control, "delay", str(seconds * 1000 / 2)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    yield type(running)(folder, running.droplet, running.telegram, running.app, running.environment), delay
    proxy.terminate()
    proxy.wait()


def since_authentication(project, *arguments: str, status: int = 0):
    """Seconds from sshd's `Accepted` to the command's end, and its result."""
    began = time.time()
    result = project.run(*arguments).expect(status)
    ended = time.time()
    command = f"journalctl -u ssh -o json --output-fields=MESSAGE --since @{int(began)} | cat"
    entries = [json.loads(entry) for entry in sandbox("ssh", f"root@{project.droplet}", command).stdout.splitlines()]
    accepted = [
        int(entry["__REALTIME_TIMESTAMP"]) / 1e6 for entry in entries
        if entry["MESSAGE"].startswith("Accepted publickey for deploy") and int(entry["__REALTIME_TIMESTAMP"]) / 1e6 > began
    ]
    assert len(accepted) == 1 and accepted[0] < ended, entries
    return ended - accepted[0] - steps_took(result), result


def steps_took(result) -> float:
    """Seconds of the steps by the host's clock; 0 for commands without steps."""
    last = result.out.splitlines()[-1]
    if not last.startswith('{"event":"finished"'):
        return 0
    return sum(step["seconds"] for step in json.loads(last)["summary"]["steps"])


def from_outside(line, runs: int, *arguments: str, status: int = 0):
    """Round trips after authentication, and the results of all runs."""
    project, delay = line
    times, results = {0.0: [], ROUND_TRIP: []}, []
    for _ in range(runs):
        for seconds, found in times.items():
            delay(seconds)
            taken, result = since_authentication(project, *arguments, status=status)
            found.append(taken)
            results.append(result)
    fast, slow = (min(found) for found in times.values())
    # The news of the authentication itself travels half a round trip after `Accepted`.
    return (slow - fast) / ROUND_TRIP - 0.5, results


def reported(result) -> int:
    last = json.loads(result.out.splitlines()[-1])
    assert last["event"] == "finished"
    return last["summary"]["round_trips"]


# Today's numbers; more need a reason. The command (its channel came with the authentication; it asks what is true now), the lock, with the steps to describe; what Compose made of them,
# the images, and the rest of the steps (or the end, where there is nothing to do). A rollback sends all steps with the request for the lock.
DEPLOY = 5
ROLLBACK = 2
STATUS = 1
PLAN = 6


def test_deploy_reports_what_is_seen_from_outside(line):
    """An update to the version that runs: the same conversation as an update's up to the images, then the end instead of the rest of the steps."""
    seen, results = from_outside(line, 2, "deploy", "prod", "v1.0.0", "--json", "--timings")
    told, *others = {reported(result) for result in results}
    assert not others and steps_took(results[0]) > 0
    assert abs(seen - told) <= 1, (seen, told, [(result.seconds, steps_took(result)) for result in results])


def test_deploy_and_rollback_stay_within_their_bounds(running):
    plain = running.deploy("v1.1.0", "--timings", "--output", "plain").expect(0)
    shown = re.search(r"round trips +(\d+)", plain.out)
    assert shown and 2 < int(shown[1]) <= DEPLOY, plain.out
    rollback = running.run("rollback", "prod", "--yes", "--timings", "--json").expect(0)
    assert 2 <= reported(rollback) <= ROLLBACK


@pytest.mark.parametrize(("arguments", "status", "bound"), [(("status", "prod"), 0, STATUS), (("plan", "prod", "v1.1.0"), 2, PLAN)], ids=["status", "plan"])
def test_reading_commands_stay_within_their_bounds(line, arguments, status, bound):
    """They don't report round trips: their bounds hold from outside."""
    seen, results = from_outside(line, 2, *arguments, status=status)
    assert 0.5 < seen <= bound + 1, (seen, [result.seconds for result in results])
