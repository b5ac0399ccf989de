"""What is got ready beside something else, and waits on a FIFO; what the gate asks before its last answer; with a scripted docker."""
import time

import pytest
from conftest import Project, quote
from test_deadlines import docker, gone

# As Compose: without a configuration it complains.
COMPOSE = """
ps) [ ! -e "$HOME/nothing-runs" ] || exit 0; echo abc ;;
compose)
  echo $$ >"$HOME/compose"
  echo "$*" >"$HOME/words"
  [ ! -e "$HOME/dies" ] || exit 3
  cat >"$HOME/configuration"
  [ -s "$HOME/configuration" ] || { echo 'empty compose file' >&2; exit 15; }
  echo migrated
  exit "$(cat "$HOME/status" 2>/dev/null || echo 0)" ;;
exec) if grep -q pg_stat_activity; then echo 0; else printf 'found\\n0002\\n'; fi ;;
"""


@pytest.fixture
def project(local, tmp_path):
    local.base_path = tmp_path
    return Project(local)


def script(local, cases):
    docker(local, f"case $1 in\n{cases.strip()}\nesac\n")


def migrate(local, project, configuration):
    """A migrate step behind a backup that has seen the schema's revision."""
    script(local, COMPOSE)
    deployment = project.deployment(2)
    local.write(f"{deployment.release}/effective.json", configuration)
    deployment.step("backup", files={"seen-revision": "0001\n"}, number=1)
    return deployment.step("migrate", dict(SERVICE="bot", UP="'alembic' 'upgrade' 'head'", TOOL="alembic", HEAD="0002", DB_SERVICE="postgres"), number=2)


@pytest.mark.parametrize("status", [0, 4])
def test_a_held_compose_gets_its_configuration_whole_and_tells_its_status(local, project, status):
    configuration = '{"services":{"bot":{"image":"' + "x" * 200_000 + '"}}}\n'  # more than a pipe holds
    step = migrate(local, project, configuration)
    local.write(f"{local.base}/status", f"{status}\n")
    code, output = step.run("apply", check=False)
    assert (code, "migrated" in output) == (1 if status else 0, True), output
    assert local.read(f"{local.base}/configuration") == configuration
    words = local.read(f"{local.base}/words")
    assert f"--project-directory {project.opt}/releases/2 -f - -f {step.directory}/no-logging.json run --rm" in words
    assert step.facts["after"] == "0002" and not local.exists(f"{step.directory}/held")
    if status:
        assert f"exit status {status}" in output


def test_a_held_compose_that_dies_is_a_failed_migration(local, project):
    step = migrate(local, project, "x" * 200_000)
    local.write(f"{local.base}/dies", "")
    began = time.monotonic()
    code, output = step.run("apply", check=False)
    assert code == 1 and "exit status 3" in output and time.monotonic() - began < 10, output


def test_a_held_compose_that_isnt_needed_says_nothing_and_is_gone(local, project):
    step = migrate(local, project, "{}\n")
    local.write(f"{local.base}/nothing-runs", "")
    code, output = step.run("apply", check=False)
    assert code == 1 and "doesn't run. Nothing was changed." in output and "empty" not in output, output
    if local.exists(f"{local.base}/compose"):
        assert gone(local.read(f"{local.base}/compose").strip())


def test_what_is_called_off_at_once_leaves_nobody_who_sleeps(local, project):
    """Whenever it hits the one who waits: before it listens, while it starts its nap, or in it."""
    script = f"""set -eu; ORCH_BUNDLE={quote(project.bundle)}; ORCH_PROJECT=shop; ORCH_STEP=$PWD
. "$ORCH_BUNDLE/lib.sh"; . "$ORCH_BUNDLE/containers.sh"; . "$ORCH_BUNDLE/schema.sh"
exec 4>question
i=0
while [ "$i" -lt 400 ]; do
  i=$((i + 1)) j=0
  later 4711 echo late
  while [ "$j" -lt $((i * 2)) ]; do j=$((j + 1)); done
  call_off
done 2>&1"""
    began = time.monotonic()
    output = local.sh(f"cd {quote(local.base)}; {script}").replace("Terminated\n", "") # busybox tells of each
    assert output.strip() == ""
    assert time.monotonic() - began < 60
    assert local.sh("ps ax -o args | grep -c '^[s]leep 4711' || :").strip() == "0"


@pytest.mark.parametrize("seconds, words", [(1, "124 removed"), (60, "7 ")], ids=["too late", "in time"])
def test_a_limit_is_kept_also_where_nothing_else_runs_beside(local, project, seconds, words):
    """The first that such a script starts in the background."""
    script = f"""set -eu; ORCH_BUNDLE={quote(project.bundle)}; ORCH_PROJECT=shop; ORCH_STEP=$PWD; ORCH_OPT=$PWD; SERVICE=bot
. "$ORCH_BUNDLE/lib.sh"; . "$ORCH_BUNDLE/containers.sh"; . "$ORCH_BUNDLE/schema.sh"
one_off() {{ sleep {2 if seconds == 1 else 0}; return 7; }}
remove_one_offs() {{ echo >removed; }}
rm -f removed
one_off_within {seconds} 1 up 2>errors && rc=0 || rc=$?
cat errors
echo "$rc $([ ! -e removed ] || echo removed)" """
    assert local.sh(f"cd {quote(local.base)}; {script}").replace("Terminated\n", "").strip() == words.strip()


def test_a_tool_that_answers_on_stderr_is_heard(local, project):
    script = f"""set -eu; ORCH_BUNDLE={quote(project.bundle)}; ORCH_PROJECT=shop; ORCH_STEP=$PWD; ORCH_OPT=$PWD; SERVICE=web; TOOL=migrate; DB_SERVICE=''; REVISION=version
. "$ORCH_BUNDLE/lib.sh"; . "$ORCH_BUNDLE/containers.sh"; . "$ORCH_BUNDLE/schema.sh"
one_off() {{ sleep 0.3; echo 20261122 >&2; }}
read_revision 1"""
    assert local.sh(f"cd {quote(local.base)}; {script}").strip() == "20261122"


def test_a_restart_behind_the_early_question_is_noticed(local, project):
    """The one who asked ends with its container, and Docker is late in saying so; the next one's first answer comes from another start of it."""
    script(local, """
ps) echo abc ;;
inspect) echo "abc sha256:1 running $(cat "$HOME/started") 0 false 0" ;;
exec)
  if mkdir "$HOME/first" 2>/dev/null; then
    for _ in 1 2 3 4 5 6 7 8 9; do echo '0 fine'; sleep 0.1; done
  else
    echo 2026-01-01T00:00:09Z >"$HOME/started"
    while echo '0 fine'; do sleep 0.1; done
  fi ;;
""")
    local.write(f"{local.base}/started", "2026-01-01T00:00:00Z\n")
    step = project.deployment(2).step(
        "health", dict(SERVICE="bot", PROBE="exec", URL="", COMMAND="'true'", STATUS="", EXPECT="", WITHIN_MS="5000", STABLE_MS="1000", RESTARTS="0"))
    code, output = step.run("apply", check=False)
    assert code == 1 and "was restarted while it was watched" in output, output


@pytest.mark.parametrize("first", ["echo", "exit 1", "sleep 1"], ids=["answers nothing", "fails", "is late"])
def test_an_early_question_in_vain_is_put_again(local, project, first):
    """The second inspect is the early one."""
    script(local, f"""
ps) echo abc ;;
inspect)
  echo >>"$HOME/inspects"
  [ "$(wc -l <"$HOME/inspects")" != 2 ] || {{ {first}; exit; }}
  echo "abc sha256:1 running 2026-01-01T00:00:00Z 0 false 0" ;;
exec) while echo '0 fine'; do sleep 0.1; done ;;
""")
    step = project.deployment(2).step(
        "health", dict(SERVICE="bot", PROBE="exec", URL="", COMMAND="'true'", STATUS="", EXPECT="", WITHIN_MS="5000", STABLE_MS="1000", RESTARTS="0"))
    code, output = step.run("apply", check=False)
    assert code == 0 and "bot is healthy" in output, output


def test_containers_are_put_in_place_without_dockers_events(local, project):
    """Who tells of them can end at once, and what it told of before isn't this deployment's."""
    script(local, """
events) echo 'die abc 1000000000 bot False' ;;
ps) [ ! -e "$HOME/up" ] && echo 'abc bot running' || echo "def bot $(cat "$HOME/status")" ;;
compose) echo created >"$HOME/status"; : >"$HOME/up" ;;
start) echo "$2" >>"$HOME/starts"; echo running >"$HOME/status" ;;
update) echo "$*" >>"$HOME/updates" ;;
inspect) case $3 in *RestartPolicy*) echo always:0 ;; *) echo 2026-01-01T00:00:00Z ;; esac ;;
""")
    deployment = project.deployment(2)
    local.write(f"{deployment.release}/effective.json", "{}")
    step = deployment.step("recreate", dict(SERVICES="'bot'"))
    code, output = step.run("apply", check=False)
    assert code == 0 and "recreated: bot" in output, output
    assert local.read(f"{local.base}/starts") == "def\n"
    assert local.read(f"{local.base}/updates") == "update --restart=no def\n"
    assert local.read(f"{deployment.directory}/restart-policies") == "def always\n"
    assert local.read(f"{deployment.directory}/stopped") == ""


def test_what_cannot_be_synced_is_not_published(local, project):
    (local.base_path / "tools" / "sync").write_text("#!/bin/sh\nexit 1\n")
    (local.base_path / "tools" / "sync").chmod(0o755)
    code = local.sh(f"cd {quote(local.base)}; . {quote(project.bundle)}/lib.sh; set -eu; for f in a b c; do echo old >$f; echo new >$f.new.$$; done; "
                    'publish "$PWD/a" "$PWD/b" "$PWD/c" && echo done || echo failed; cat a b c')
    assert code.split() == ["failed", "old", "old", "old"]
