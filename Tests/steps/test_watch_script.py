"""What a look at a watched release calls a breach (host/look.sh), with a scripted docker."""

import pytest
from conftest import Project, quote
from test_deadlines import docker

GATE = "SERVICE='bot'\nPROBE='exec'\nURL=''\nCOMMAND=\"'check'\"\nSTATUS=''\nEXPECT=''\nWITHIN_MS='60000'\nSTABLE_MS='5000'\nRESTARTS='0'\n"
WELL = "c1 bot running 2026-01-01T00:00:00Z 0 false 0 xunless-stopped healthy"


class Look:
    def __init__(self, local, tmp_path):
        local.base_path = tmp_path
        self.local, self.project = local, Project(local)
        self.kept = f"{local.base}/kept"
        local.run(f"mkdir -p {quote(self.kept)}")
        docker(local, """[ ! -e "$HOME/away" ] || exit 1
case $1 in
ps) echo 'c1 bot running'; echo 'c2 worker running'; echo 'c9 postgres running' ;;
inspect) case $3 in *.Image*) echo 'c1 i running 2026-01-01T00:00:00Z 0 false 0' ;; *) cat "$HOME/inspect"; echo "$*" >>"$HOME/asked" ;; esac ;;
version) echo 26.1.5 ;;
exec) cat >/dev/null & while cat "$HOME/answer"; do sleep 0.05; done ;;
esac
""")
        local.write(f"{self.project.opt}/releases/3/recreate/recreate", "'bot' 'worker'\n")

    def __call__(self, *lines, asks=""):
        """Its exit status, and what it says."""
        self.local.write(f"{self.local.base}/inspect", "".join(line + "\n" for line in lines))
        shell = " ".join(self.local.shell)
        result = self.local.run(
            f"LOOK_MS=300 ORCH_BUNDLE={quote(self.project.bundle)} ORCH_PROJECT=shop ORCH_STATE={quote(self.project.state)} ORCH_OPT={quote(self.project.opt)} "
            f"{shell} {quote(self.project.bundle)}/look.sh 3 {quote(self.kept)} {asks}", check=False)
        return result.returncode, result.stdout.decode().strip()


@pytest.fixture
def look(local, tmp_path):
    return Look(local, tmp_path)


def test_it_looks_at_what_the_deployment_put_there(look):
    assert look(WELL) == (0, "")
    assert look(WELL) == (0, "")
    asked = look.local.read(f"{look.local.base}/asked").splitlines()
    assert asked[0].endswith(" c1 c2") and asked[1].endswith(" c1"), asked


@pytest.mark.parametrize("now, why", [
    ("c1 bot running 2026-01-01T00:00:09Z 1 false 0 xunless-stopped healthy", "it crashed and was restarted by Docker"),
    ("c1 bot restarting 2026-01-01T00:00:00Z 0 false 1 xunless-stopped none", "it crashed and was restarted by Docker"),
    ("c1 bot running 2026-01-01T00:00:09Z 0 false 0 xunless-stopped healthy", "it was restarted"),
    ("c1 bot running 2026-01-01T00:00:09Z 1 true 0 xunless-stopped healthy", "it was killed because its memory ran out"),
    ("c1 bot exited 2026-01-01T00:00:00Z 0 true 137 xno none", "it was killed because its memory ran out"),
    ("c1 bot exited 2026-01-01T00:00:00Z 0 false 3 xno none", "it ended with exit status 3"),
    ("c1 bot exited 2026-01-01T00:00:00Z 0 false 0 xunless-stopped none", "it ended with exit status 0"),
    ("c1 bot dead 2026-01-01T00:00:00Z 0 false 0 xalways none", "it ended with exit status 0"),
    ("c1 bot running 2026-01-01T00:00:00Z 0 false 0 xunless-stopped unhealthy", "its own health check calls it unhealthy"),
    ("c2 worker running 2026-01-01T00:00:00Z 0 false 0 xalways none", "its container is gone"),
])
def test_what_is_a_breach_at_once(look, now, why):
    assert look(WELL) == (0, "")
    assert look(now) == (2, f"bot: {why}")
    assert look(WELL) == (0, "")


@pytest.mark.parametrize("before, now", [
    (WELL, "c1 bot paused 2026-01-01T00:00:00Z 0 false 0 xunless-stopped unhealthy"),  # the gates tell
    (WELL, "c1 bot exited 2026-01-01T00:00:00Z 0 false 0 xno none"),  # a job that has ended
    (WELL, "c1 bot exited 2026-01-01T00:00:00Z 0 false 0 xon-failure none"),
    (WELL, "c1 bot running 2026-01-01T00:00:00Z 0 true 0 xunless-stopped healthy"),  # a child of it
    ("c1 bot running 2026-01-01T00:00:00Z 4 false 0 xalways none", "c1 bot running 2026-01-01T00:00:00Z 4 false 0 xalways none"),  # it fell over before its gate
    ("c1 bot running 2026-01-01T00:00:00Z 0 false 0 xalways unhealthy", "c1 bot running 2026-01-01T00:00:00Z 0 false 0 xalways unhealthy"),  # the gates let it pass
])
def test_what_is_none(look, before, now):
    assert look(before) == (0, "")
    assert look(now) == (0, "")


def test_what_had_crashed_before_the_first_look(look):
    assert look("c1 bot exited 2026-01-01T00:00:00Z 0 false 1 xno none") == (2, "bot: it ended with exit status 1")


def test_docker_away_is_no_breach(look):
    assert look(WELL) == (0, "")
    look.local.write(f"{look.local.base}/away", "")
    assert look() == (3, "the Docker engine does not answer")


def test_another_engine_is_no_breach(look):
    """Each start of Docker writes its pid file anew."""
    assert look(WELL) == (0, "")
    look.local.write(f"{look.kept}/engine", "another one\n")
    assert look("c1 bot exited 2026-01-01T00:00:00Z 0 false 137 xunless-stopped none") == (3, "the Docker engine was started anew")


def test_gates_are_asked_where_it_is_time(look):
    look.local.write(f"{look.project.opt}/releases/3/gates/health", GATE)
    look.local.write(f"{look.local.base}/answer", "1 the secret is out\n")
    assert look(WELL) == (0, "")
    assert look(WELL, asks="gates") == (1, "bot: its check ended with exit status 1 (waited 0.3 s)")
    look.local.write(f"{look.local.base}/answer", "0 fine\n")
    assert look(WELL, asks="gates") == (0, "")


def test_one_good_answer_is_enough_for_a_gate(look):
    """A single bad one isn't a failed look."""
    look.local.write(f"{look.project.opt}/releases/3/gates/health", GATE)
    look.local.write(f"{look.local.base}/answer", "1 busy\n1 busy\n0 fine\n")
    assert look(WELL, asks="gates") == (0, "")
