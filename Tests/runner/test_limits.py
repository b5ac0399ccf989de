"""A full disk, and secrets that must not be seen."""

import contextlib
import os
import re
import subprocess
import time

import pytest
from conftest import IDS, deployment, eventually, step, tar

COMMIT = step("09-commit", SIDE="commit", KIND="commit-test")


@pytest.fixture
def small(host):
    """State and /opt on a file system of 48 MiB (the two reserves take 32 of it)."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=48m,uid={IDS['user']},gid={IDS['group']}", "none", host.directory], check=True)
    for name in ("state", "opt", "bin"):
        (host.directory / name).mkdir()
        os.chown(host.directory / name, IDS["user"], IDS["group"])
    from conftest import SHELLS
    (host.bin / "sh").symlink_to(SHELLS[host.shell])
    host.tool("sudo", "exit 1")
    host.tool("docker", "")
    yield host
    for client in host.clients:
        client.close()
    for process in host.processes():
        with contextlib.suppress(ProcessLookupError):  # it may end by itself meanwhile
            os.kill(process, 9)
    host.keep_journals()
    subprocess.run(["umount", "-l", host.directory], check=True)


FILL = 'dd if=/dev/zero of="$ORCH_OPT/full" bs=64k 2>/dev/null || :; printf x >>"$ORCH_OPT/full" || :; '


def test_a_step_fills_the_disk(small):
    """The undo has the reserve: it writes, the journal is whole, the old release is current, and the next deploy works."""
    assert small.connect().run(deployment())["outcome"] == "committed"
    small.await_free_lock()
    client = small.connect()
    client.open()
    client.send(deployment(
        step("02-change", FILL + "exit 1", 'rm -f "$ORCH_OPT/full"; dd if=/dev/zero bs=1M count=8 >"$ORCH_OPT/proof" 2>/dev/null',
             CHANGES=1)))
    assert client.closed()["outcome"] == "undone", (client.log.decode(), small.describe())
    assert (small.opt / "proof").stat().st_size == 8 << 20
    assert small.current() == "releases/1"
    assert [e["event"] for e in small.journal(2)][-1] == "closed"
    assert [(e["number"], e["outcome"]) for e in small.history()] == [(1, "committed"), (2, "undone")]
    (small.opt / "proof").unlink()
    small.await_free_lock()
    assert small.connect().run(deployment())["outcome"] == "committed"


def test_the_disk_is_full_when_the_next_step_starts(small):
    """No line in the journal, no step; and the log and the facts can't be written either."""
    client = small.connect()
    client.open()
    client.send(deployment(step("02-change", FILL, 'rm -f "$ORCH_OPT/full"', CHANGES=1), step("03-next", "echo text; fact a 1", ""), COMMIT))
    assert client.closed()["outcome"] == "undone"
    assert small.current() is None and not (small.opt / "full").exists()
    events = small.journal(1)  # whole lines only
    assert events[-1]["event"] == "closed"
    assert [e["outcome"] for e in small.history()] == ["undone"]


def test_full_before_the_start(small):
    client = small.connect()
    client.ask("facts")
    subprocess.run(["dd", "if=/dev/zero", f"of={small.directory}/full", "bs=64k"], stderr=subprocess.DEVNULL)
    tag, text = client.open()
    assert tag == "error", text
    (small.directory / "full").unlink()
    assert client.open(nonce="again")[0] == "granted"
    assert client.n == 1
    assert not (small.state / "deployments/.new").exists()


def fill(host):
    """Not one byte is left."""
    for size in ("64k", "1"):
        subprocess.run(["dd", "if=/dev/zero", f"of={host.opt}/full", f"bs={size}", "oflag=append", "conv=notrunc"], stderr=subprocess.DEVNULL)
    assert os.statvfs(host.directory).f_bavail == 0


GATE = r"""SERVICE='bot' PROBE='exec' URL='' COMMAND="'true'" STATUS='' EXPECT='' WITHIN_MS='2000' STABLE_MS='0' RESTARTS='0'"""


def test_questions_are_answered_on_a_full_disk(small):
    """What `status`, `doctor`, `lock` and `attach` ask; a gate's scratch files go to memory."""
    assert small.connect().run(deployment())["outcome"] == "committed"
    small.await_free_lock()
    small.tool("docker", """
        case "$*" in
          info*) printf 'docker_client=26.1.5\\ndocker_server=26.1.4\\ndocker_root=/srv\\ncompose=v2.26.1\\ndocker_error=\\n' ;;
          ps*) echo abc ;;
          "exec -i "*) echo 0 fine; sleep 1 ;;
          inspect*State.Status*) echo abc image running 2026-11-21T00:00:00Z 0 false 0 ;;
          inspect*) echo '{"service":"bot","state":{}}' ;;
        esac""")
    (small.opt / "releases/1/gates").mkdir()
    (small.opt / "releases/1/effective.json").write_text("{}")
    (small.opt / "releases/1/gates/health").write_text(GATE + "\n")
    small.environment["TMPDIR"] = str(small.directory)
    fill(small)
    client = small.connect()
    assert client.had_bundle
    facts = dict(line.split("=", 1) for line in client.ask("facts")[1].splitlines())
    assert (facts["docker_server"], facts["docker_error"], facts["compose"], facts["current"]) == ("26.1.4", "", "2.26.1", "1")
    assert facts["disk.state.available"] == "0"
    assert client.ask("query status 0") == ("output", '{"service":"bot","state":{}}\n')
    tag, text = client.ask("query health 0")
    assert tag == "output" and '"healthy":true' in text and "fine" in text
    assert client.ask("query backups 0") == ("output", "")
    assert client.ask("query backups 3", b"abc") == ("output", "")
    assert client.ask("state 1") == ("state", "ended")
    assert client.ask("follow 1 0") == ("following", "ended")
    assert client.closed()["outcome"] == "committed"


def test_prune_can_free_a_full_disk(small):
    assert small.connect().run(deployment())["outcome"] == "committed"
    small.await_free_lock()
    assert (small.state / "spare").stat().st_size == 4 << 20
    fill(small)
    client = small.connect()
    tag, text = client.open(command="deploy")
    assert tag == "error" and text.startswith("space ") and "orchestrate prune" in text, text
    assert client.open(command="prune")[0] == "granted", small.describe()
    client.send(step("01-prune", 'rm "$ORCH_OPT/full"; fact removed 1'))
    assert client.closed()["outcome"] == "unchanged"
    small.await_free_lock()
    eventually(lambda: not (small.state / "runner.pid").exists(), "the runner's end")
    assert [(e["number"], e["facts"]) for e in small.history()][1:] == [(2, {"prune": {"removed": 1}})]
    assert (small.state / "spare").stat().st_size == 4 << 20
    assert small.connect().run(deployment())["outcome"] == "committed"


def test_a_launch_that_still_writes_costs_no_answer(small):
    """Its directory can't be removed just then: `rm` finds it not empty."""
    small.connect().run(deployment())
    small.await_free_lock()
    small.tool("rm", 'case "$*" in *"/start/"*) exit 1 ;; esac\nexec /bin/rm "$@"')
    fill(small)
    tag, text = small.connect().open(command="deploy")
    assert tag == "error" and text.startswith("space "), (tag, text)


@pytest.mark.parametrize("spare", [True, False])
def test_what_is_open_can_be_closed_on_a_full_disk(small, spare):
    client = small.connect()
    client.open()
    client.send({**step("01-change", "", 'rm -f "$ORCH_OPT/full"', CHANGES=1)}, seal=False)
    client.await_event("ended", step="01-change")
    os.kill(small.runner_pid(), 9)
    small.await_free_lock()
    if not spare:
        (small.state / "spare").unlink()
    fill(small)
    assert small.connect().recover() == ("recovered", "1 undone")


def test_recovery_on_a_full_disk(small):
    """The reserve is given back before anything is written: the torn line is cut, the key replaced, and the undo tells its facts."""
    client = small.connect()
    client.open()
    client.send({**step("01-change", "", 'printf "%070000d\\n" 1 >"$ORCH_OPT/proof"; fact proof 1', CHANGES=1)}, seal=False)
    client.await_event("ended", step="01-change")
    os.kill(small.runner_pid(), 9)
    small.await_free_lock()
    client.cut()
    directory = small.state / "deployments/1"
    with open(directory / "journal.jsonl", "a") as journal:
        journal.write('{"event":"ended","k":"x","t":1,"up":2.00,"step":"01-ch')
    os.link(directory / "key", directory / "key.was")
    nonce = (directory / "key").read_text().split()[0]
    for size in ("64k", "1"):  # the last page too
        subprocess.run(["dd", "if=/dev/zero", f"of={small.directory}/full", f"bs={size}", "oflag=append", "conv=notrunc"], stderr=subprocess.DEVNULL)
    assert os.statvfs(small.directory).f_bavail == 0
    runner = small.base / "bundle" / small.bundle_name / "runner.sh"
    subprocess.run([small.path("sh"), str(runner), "recover", "app", "boot", "0"], env=small.environment, check=True, **IDS)
    assert not (small.state / "reserve").exists() and not (small.opt / ".reserve").exists()
    events = small.journal(1)  # whole lines only
    assert (events[-1]["event"], events[-1]["outcome"], events[-1]["recovery"]) == ("closed", "undone", True)
    assert (small.opt / "proof").stat().st_size == 70_001
    assert [(line["outcome"], line["facts"]) for line in small.history()] == [("undone", {"change": {"proof": 1}})]
    # Never emptied in place, where a full disk would leave nothing for the undo's facts.
    assert (directory / "key").read_text().split()[0] == nonce
    assert not os.path.samefile(directory / "key", directory / "key.was")


def test_messages_on_a_full_disk_keep_the_conversation(small):
    client = small.connect()
    client.open()
    blocker = small.directory / "full"
    subprocess.run(["dd", "if=/dev/zero", f"of={blocker}", "bs=64k"], stderr=subprocess.DEVNULL)
    body = tar({"01-big/meta": (0o600, b"KIND=x\n" + b"#" * 300_000)})
    assert client.ask(f"steps 1 {len(body)}", body)[0] == "refused"
    assert client.ask("get /var/lib/orchestrate/app/sequence") == ("file", "1\n")
    blocker.unlink()
    client.send(deployment())
    assert client.closed()["outcome"] == "committed"


def test_beats_and_an_abort_get_through_on_a_full_disk(small):
    client = small.connect()
    client.open()
    client.send(deployment(step("02-change", 'while [ ! -e "$ORCH_DEPLOYMENT/abort" ]; do sleep 0.1; done', "", CHANGES=1)), seal=False)
    client.await_event("started", step="02-change")
    assert client.ask("beat 1") == ("beat", "live")
    before = (small.state / "heartbeat").read_text()
    blocker = small.directory / "full"
    subprocess.run(["dd", "if=/dev/zero", f"of={blocker}", "bs=4k"], stderr=subprocess.DEVNULL)
    time.sleep(0.05)
    assert client.ask("beat 1") == ("beat", "live")
    assert (small.state / "heartbeat").read_text() > before
    assert client.ask("seal 1") == ("ok", "")
    assert client.ask("abort 1 3", b"why") == ("ok", "")
    blocker.unlink()
    assert client.closed()["outcome"] == "undone"


def test_no_secret_in_any_argument(host, client):
    """Each external command that attach, runner, library and steps call, seen from the PATH."""
    canary = "c4n4ry-s3cr3t"
    tools = "awk cat cp date dd df fallocate find flock grep head id ln mkdir mkfifo mv nproc readlink rm sed setsid sh sha256sum sleep sort stat sync"
    tools += " tail tar timeout tr xargs env"
    record = 'printf "%s\\n" "$0 $*" >>"$ORCHESTRATE_OPT/arguments"\n'
    client.ask("facts")
    shell = os.readlink(host.bin / "sh")
    for tool in tools.split():
        real = shell if tool == "sh" else f"/usr/bin/{tool}"
        applet = "sh " if tool == "sh" and shell.endswith("busybox") else ""
        assert os.path.exists(real), real
        host.tool(tool, record + f'exec {real} {applet}"$@"')
    (host.opt_base / "arguments").touch()
    os.chmod(host.opt_base / "arguments", 0o666)
    client.open(reason=canary)
    client.send(deployment(
        step("02-secret", f'fact shown "$(json_string "$TOKEN")"; echo "$TOKEN" | write_atomically "$ORCH_OPT/token"; say "$TOKEN"\n'
             "false", 'echo "$TOKEN"', params=f"TOKEN='{canary}'\n", CHANGES=1),
        step("03-ask", SIDE="client")))
    assert client.closed()["outcome"] == "undone"
    arguments = (host.opt_base / "arguments").read_text()
    assert len(arguments.splitlines()) > 40 and canary not in arguments
    assert canary in (host.opt / "token").read_text()
    assert canary not in (host.state / "deployments/1/journal.jsonl").read_text()


def test_everything_is_private(host, client):
    client.run(deployment())
    eventually(host.lock_is_free, "free lock")
    for folder, _, names in os.walk(host.state):
        for name in [".", *names]:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                assert os.stat(path).st_mode & 0o027 == 0, path


def test_scripts_are_posix():
    """No word of the scripts is bash's; shellcheck says the same in script/test."""
    from conftest import HOST
    for path in HOST.glob("*.sh"):
        text = path.read_text()
        assert not re.search(r"^\s*local |(?<![:\[])\[\[ |<<<|\bfunction ", text, re.M), path
