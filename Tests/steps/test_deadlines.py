"""What a step starts has an end, and how well the running release was is known before the first change; with a scripted docker."""
import os
import subprocess
import time

import pytest
from conftest import Project, quote


def docker(local, text):
    """A docker of the test's own; Compose is asked through it, whatever this machine has installed."""
    (local.base_path / "tools" / "docker").write_text("#!/bin/sh\n" + text)
    local.write(f"{local.base}/.docker/config.json", '{"cliPluginsExtraDirs":[]}')


@pytest.fixture
def project(local, tmp_path):
    local.base_path = tmp_path
    return Project(local)


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid):
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_a_check_that_hangs_in_an_image_without_a_shell_has_an_end(local, project):
    docker(local, """case $1 in
ps) echo abc ;;
inspect) echo 'abc sha256:1 running 2026-01-01T00:00:00Z 0 false 0' ;;
exec) case " $* " in *" sh -c "*) exit 127 ;; esac; echo $$ >"$HOME/asker"; exec sleep 300 ;;
esac
""")
    local.write(f"{project.opt}/releases/1/gates/health", "SERVICE=bot PROBE=exec URL='' COMMAND=\"'hangs'\" STATUS='' EXPECT='' WITHIN_MS=90000 STABLE_MS=1000 RESTARTS=0\n")
    project.commit(1)
    began = time.monotonic()
    shell = " ".join(local.shell)
    result = local.run(f"ORCH_BUNDLE={quote(project.bundle)} ORCH_PROJECT=shop ORCH_STATE={quote(project.state)} ORCH_OPT={quote(project.opt)} "
                       f"timeout 30 {shell} {quote(project.bundle)}/check.sh 1500", check=False)
    assert result.returncode == 1
    assert time.monotonic() - began < 10
    assert b'"healthy":false' in result.stdout and b"bot doesn't answer (waited 1.5 s)" in result.stdout
    assert gone(local.read(f"{local.base}/asker").strip())


def test_a_look_that_hangs_is_ended_whole_and_nothing_is_known(local, project):
    docker(local, "exit 0\n")
    tool = local.base_path / "tools" / "timeout"
    tool.write_text('#!/bin/sh\n[ "$1 $2 $3" = "-k 5 60" ] || exec /usr/bin/timeout "$@"\nshift 3\nexec /usr/bin/timeout -k 1 1 "$@"\n')
    tool.chmod(0o755)
    local.write(f"{project.bundle}/check.sh", 'echo "{\\"gate\\":\\"a\\",\\"service\\":\\"bot\\",\\"healthy\\":false,}"\nd=$(mktemp -d "$TMPDIR/gate.XXXXXX")\n'
                'echo secret >"$d/out"\nsleep 300 &\necho $! >"$HOME/child"\nsleep 300\n')
    deployment = project.deployment(2)
    preflight = deployment.step("preflight")
    preflight.apply()
    code, output = deployment.step("run", files={"script": "echo it ran\n"}, number=2).apply()
    assert "could not be found out in time" in output and output.endswith("it ran\n")
    assert not local.exists(f"{deployment.directory}/baseline")
    assert "secret" not in local.sh(f"cat {quote(preflight.directory)}/gate.*/* 2>/dev/null || :")
    assert gone(local.read(f"{local.base}/child").strip())


@pytest.mark.parametrize("healthy, code", [("true", 0), ("false", 1)])
def test_what_was_unwell_is_kept_and_told_once(local, project, healthy, code):
    docker(local, "exit 0\n")
    line = f'{{"gate":"a","service":"bot","healthy":{healthy},"at_ms":null}}'
    local.write(f"{project.bundle}/check.sh", f"echo '{line}'\nexit {code}\n")
    deployment = project.deployment(2)
    deployment.step("preflight").apply()
    told = [deployment.step("run", files={"script": "echo it ran\n"}, number=number).apply()[1] for number in (2, 3)]
    assert local.read(f"{deployment.directory}/baseline") == ('{"gate":"a","service":"bot"\n' if code else "")
    assert told == [f"What runs is not healthy; an undo would bring it back as it is:\n{line}\nit ran\n" if code else "it ran\n", "it ran\n"]


def test_waiting_for_the_look_has_an_end(local, project):
    looking = subprocess.Popen(["sleep", "300"])
    try:
        directory = project.deployment(2).directory
        local.write(f"{directory}/looking", f"{looking.pid}\n")
        output = local.sh(f"set -eu; ORCH_DEPLOYMENT={quote(directory)}; . {quote(project.bundle)}/lib.sh; . {quote(project.bundle)}/switch.sh; "
                          "baseline_seconds=1; await_baseline; await_baseline")
        assert output.count("could not be found out in time") == 1
        assert looking.wait(5) != 0
    finally:
        looking.kill()


CHANGES = {
    "run": ({}, {"script": 'docker changes\n'}),
    "migrate": (dict(SERVICE="bot", UP="'up'"), {}),
    "migrate-database": (dict(SERVICE="bot", UP="'up'", DB_SERVICE="postgres"), {}),
    "backup": (dict(SERVICE="", CREATE="'redis'"), {}),
    "drain": (dict(SERVICES="'bot'"), {}),
    "recreate": (dict(SERVICES="'bot'"), {}),
}


@pytest.mark.parametrize("case", CHANGES)
def test_nothing_changes_before_the_look_has_ended(local, project, case):
    docker(local, f"""case " $* " in
*" ps "*) echo 'abc postgres running' ; exit ;;
*" changes "* | *" run "* | *" up "* | *" start "* | *" update "* | *" stop "*) ;;
*) exit 0 ;;
esac
if [ -e {quote(project.state)}/deployments/2/baseline ]; then echo late; else echo early; fi >>"$HOME/changes"
exit 1
""")
    kind = case.split("-")[0]
    params, files = CHANGES[case]
    deployment = project.deployment(2)
    local.write(f"{deployment.release}/effective.json", "{}")
    step = deployment.step(kind, params, files)
    baseline = f"{deployment.directory}/baseline"
    looking = subprocess.Popen(["sh", "-c", f"sleep 1.5; : >{quote(baseline)}"])
    local.write(f"{deployment.directory}/looking", f"{looking.pid}\n")
    began = time.monotonic()
    output = step.run("apply", check=False)[1]
    looking.wait()
    assert time.monotonic() - began > 1, output
    if local.exists(f"{local.base}/changes"):
        assert "early" not in local.read(f"{local.base}/changes"), output
    elif case in ("run", "migrate", "backup"):
        raise AssertionError(f"nothing was changed: {output}")


def test_a_server_that_never_accepts_is_not_waited_for_for_ever(local, project):
    tool = local.base_path / "tools" / "pg_isready"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    docker(local, '[ "$1" = exec ] || exit 0\nwhile [ "$1" != sh ]; do shift; done\nshift\nexec sh "$@"\n')
    # Only what runs inside the container ends it here.
    (local.base_path / "tools" / "timeout").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    (local.base_path / "tools" / "timeout").chmod(0o755)
    prelude = f"set -u; ORCH_N=1 DB_NAME= DB_USER=; . {quote(project.bundle)}/lib.sh; . {quote(project.bundle)}/containers.sh; "
    for call, status in (("pg_query id 1", 124), ("pg_ready id 1", 1)):
        result = subprocess.run([*local.shell, "-c", prelude + call], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                                env={"PATH": local.path_prefix + os.environ["PATH"], "HOME": local.base})
        assert result.returncode == status, result


def test_a_dump_whose_count_failed_is_ended_and_its_words_are_told(local, project):
    docker(local, """case "$*" in
ps*) echo 'abc postgres running' ;;
exec*'pg_dump -Fc'*) echo $$ >"$HOME/dumping"; echo 'pg_dump: error: LOCK TABLE public.prices' >&2; exec sleep 300 ;;
exec*psql*) until [ -s "$HOME/dumping" ]; do sleep 0.1; done; sleep 0.3; cat >"$HOME/sql"; exit 3 ;;
esac
""")
    code, output = project.deployment(2).step("backup", dict(SERVICE="postgres", CREATE="'postgres'")).run("apply", check=False)
    assert code == 1
    assert "can't be read: pg_dump: error: LOCK TABLE public.prices" in output
    assert gone(local.read(f"{local.base}/dumping").strip())
    assert local.read(f"{local.base}/sql").startswith("set lock_timeout = ")


@pytest.mark.parametrize("version, compression", [("18beta1", "zstd:1"), ("17.2 (Debian 17.2-1)", "zstd:1"), ("15.9", "1")])
def test_the_dump_is_compressed_as_its_tool_can(local, project, version, compression):
    docker(local, """case "$*" in
ps*) echo 'abc postgres running' ;;
exec*'pg_dump -Fc'*) echo dump ;;
exec*psql*) cat >/dev/null; printf 'market\\nmarket\\npg_dump (PostgreSQL) VERSION\\nS 1\\nB 100\\nT {"table":"a","rows":1,"exact":true}\\n' ;;
exec*pg_restore*) cat >/dev/null ;;
esac
""".replace("VERSION", version))
    code, output = project.deployment(2).step("backup", dict(SERVICE="postgres", CREATE="'postgres'")).run("apply", check=False)
    assert code == 0, output
    assert f'"compression":"{compression}"' in local.sh(f"cat {quote(project.opt)}/backups/*.json")
