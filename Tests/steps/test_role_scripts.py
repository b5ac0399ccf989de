"""role, role-probe and what env does with values in files and with a rotation, under dash and busybox, with a docker and a psql of this test's own."""
import pytest
from conftest import SHELLS, Local, Project, quote

OLD = "SCRAM-SHA-256$4096:b2xkc2FsdG9sZHNhbHQ=$b2xk+/0=:c2VydmVy="
NEW = "SCRAM-SHA-256$4096:bmV3c2FsdG5ld3NhbHQ=$bmV3+/0=:c2VydmVy="

# `exec` runs the very script that the container would run. $HOME/stopped: the database doesn't run until it is started.
DOCKER = r"""#!/bin/sh
set -eu
printf '%s\n' "$*" >>"$HOME/calls"
case $1 in
  ps)
    case "$*" in *status=running*) [ ! -e "$HOME/stopped" ] || exit 0 ;; esac
    [ -e "$HOME/no-container" ] || echo c0ffee
    ;;
  start) rm -f "$HOME/stopped" ;;
  exec)
    shift
    [ "$1" != -i ] || shift
    shift
    export POSTGRES_USER=owner POSTGRES_PASSWORD=canary-of-the-container
    exec "$@"
    ;;
  compose | --ansi) cat "$HOME/config.json" ;;
  *) echo "the stand-in knows no docker $*" >&2; exit 64 ;;
esac
"""

# Roles lie in $HOME/roles, a line each: name, tab, verifier (- for none).
PSQL = r"""#!/bin/sh
set -eu
printf '%s|%s|%s\n' "$*" "${PGOPTIONS-}" "${PGPASSWORD-none}" >>"$HOME/psql-calls"
[ ! -e "$HOME/refuses" ] || { echo 'psql: error: fe_sendauth: no password supplied' >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in -v) shift; case $1 in role=*) role=${1#role=} ;; esac ;; esac
  shift
done
read -r statement
tab=$(printf '\t')
case $statement in
  *pg_terminate_backend*)
    left=$(cat "$HOME/sessions" 2>/dev/null || echo 0)
    printf '%s\n' "$left"
    if [ "$left" != 0 ]; then echo $((left - 1)) >"$HOME/sessions"; fi
    ;;
  select*) while IFS=$tab read -r name verifier; do [ "$name" != "$role" ] || printf '%s\n' "$verifier"; done <"$HOME/roles" ;;
  'alter role :"role" password '*)
    [ ! -e "$HOME/alter-fails" ] || exit 3
    password=${statement#*password }
    password=${password%;}
    case $password in null) password=- ;; *) password=${password#\'} password=${password%\'} ;; esac
    while IFS=$tab read -r name verifier; do
      [ "$name" != "$role" ] || verifier=$password
      printf '%s\t%s\n' "$name" "$verifier"
    done <"$HOME/roles" >"$HOME/roles.new"
    mv "$HOME/roles.new" "$HOME/roles"
    ;;
  *) echo "unknown: $statement" >&2; exit 3 ;;
esac
"""


@pytest.fixture(params=SHELLS, ids=" ".join)
def project(request, tmp_path):
    machine = Local(str(tmp_path), request.param)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"docker": DOCKER, "psql": PSQL, "pg_isready": "#!/bin/sh\n", "pg_dump": "#!/bin/sh\necho 17\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    machine.path_prefix = f"{tools}:"
    (tmp_path / "config.json").write_text('{"services":{}}\n')
    roles(machine, market=OLD)
    return Project(machine)


def roles(machine, **verifiers):
    machine.write(f"{machine.base}/roles", "".join(f"{name.replace('_', ' ')}\t{verifier}\n" for name, verifier in verifiers.items()))


def role_step(project, text=f"{NEW} market\n", kind="role"):
    return project.deployment(2).step(kind, {"DB_SERVICE": "postgres"}, {"roles": text})


def now(project):
    return project.machine.read(f"{project.machine.base}/roles")


class TestRole:
    def test_changed_and_given_back_byte_for_byte(self, project):
        step = role_step(project)
        step.undo()
        assert now(project) == f"market\t{OLD}\n"
        step.apply()
        assert now(project) == f"market\t{NEW}\n"
        step.apply()  # again, as after a crash: what was is not forgotten
        assert project.machine.read(f"{step.directory}/verifiers") == f"{OLD} market\n"
        assert project.machine.sh(f"stat -c %a {quote(step.directory)}/verifiers").strip() == "600"
        step.undo()
        assert now(project) == f"market\t{OLD}\n"
        step.undo()
        assert now(project) == f"market\t{OLD}\n"

    def test_verifiers_are_in_no_argument_and_in_no_log(self, project):
        role_step(project).apply()
        for name in ("calls", "psql-calls"):
            assert "SCRAM" not in project.machine.read(f"{project.machine.base}/{name}")
        calls = project.machine.read(f"{project.machine.base}/psql-calls").splitlines()
        assert len(calls) == 2
        for call in calls:
            assert "log_statement=none" in call and "log_min_error_statement=panic" in call
            assert "pg_stat_statements.track_utility" in call and "log_transaction_sample_rate" in call
            # The container's own may be an older one: nothing depends on it.
            assert call.endswith("|none") and " -w " in f" {call} " and "canary" not in call

    def test_a_role_without_a_password_and_names_with_blanks(self, project):
        roles(project.machine, market="-", my_role=OLD)
        before = now(project)
        step = role_step(project, f"{NEW} market\n{NEW} my role\n")
        step.apply()
        assert now(project) == f"market\t{NEW}\nmy role\t{NEW}\n"
        step.undo()
        assert now(project) == before

    def test_half_of_it_is_undone(self, project):
        roles(project.machine, market=OLD, other=OLD)
        step = role_step(project, f"{NEW} market\nno'good other\n")
        status, output = step.apply(check=False)
        assert status == 1 and "other" in output and NEW in now(project)
        step.undo()
        assert now(project) == f"market\t{OLD}\nother\t{OLD}\n"

    def test_a_missing_role_and_a_database_that_asks_for_a_password(self, project):
        for kind in ("role-probe", "role"):
            step = role_step(project, f"{NEW} nobody\n", kind)
            status, output = step.apply(check=False)
            assert status == 1 and "no role nobody" in output
            if kind == "role":
                step.undo()
        project.machine.write(f"{project.machine.base}/refuses", "")
        status, output = role_step(project, "- market\n", "role-probe").apply(check=False)
        assert status == 1 and "pg_hba.conf" in output and "Nothing was changed" in output
        assert now(project) == f"market\t{OLD}\n"

    def test_the_probe_changes_nothing(self, project):
        step = role_step(project, "- market\n", "role-probe")
        status, output = step.apply()
        assert OLD not in output and now(project) == f"market\t{OLD}\n"

    def test_the_undo_starts_a_database_that_has_stopped(self, project):
        step = role_step(project)
        step.apply()
        project.machine.write(f"{project.machine.base}/stopped", "")
        step.undo()
        assert now(project) == f"market\t{OLD}\n"
        assert "start c0ffee" in project.machine.read(f"{project.machine.base}/calls")

    def test_the_undo_ends_what_was_left_under_way_first(self, project):
        """A psql in the container outlives the step: what it would still commit comes before what the undo writes."""
        machine = project.machine
        step = role_step(project)
        step.apply()
        machine.write(f"{machine.base}/sessions", "2\n")
        machine.write(f"{machine.base}/psql-calls", "")
        step.undo()
        assert now(project) == f"market\t{OLD}\n" and machine.read(f"{machine.base}/sessions") == "0\n"
        assert len(machine.read(f"{machine.base}/psql-calls").splitlines()) == 4

    def test_where_the_container_points_its_own_clients_means_nothing(self, project):
        machine = project.machine
        machine.write(f"{machine.base}/tools/docker", DOCKER.replace("export POSTGRES_USER", "export PGHOST=elsewhere PGSERVICE=other POSTGRES_USER"))
        machine.write(f"{machine.base}/tools/psql", PSQL.replace("${PGPASSWORD-none}", "${PGPASSWORD-none}${PGHOST-}${PGSERVICE-}"))
        machine.run(f"chmod 755 {quote(machine.base)}/tools/*")
        role_step(project).apply()
        assert [call.rsplit("|", 1)[1] for call in machine.read(f"{machine.base}/psql-calls").splitlines()] == ["none", "none"]

    def test_an_undo_that_cannot_fails_and_works_later(self, project):
        step = role_step(project)
        step.apply()
        for name in ("alter-fails", "no-container"):
            project.machine.write(f"{project.machine.base}/{name}", "")
            project.machine.write(f"{project.machine.base}/stopped", "")
            status, output = step.undo(check=False)
            assert status == 1 and "could not be given back" in output
            project.machine.run(f"rm {quote(project.machine.base)}/{name}")
        step.undo()
        assert now(project) == f"market\t{OLD}\n"


FILES = {"env": "A=1\nKEY_FILE=/opt/shop/secrets/KEY.12ab\n", "secrets": "KEY=canary\n", "files/KEY.12ab": "canary", "version.env": "VERSION=v1\n",
         "check.json": "{}"}


def env_step(project, number=2, files=None):
    deployment = project.deployment(number)
    project.machine.run(f"mkdir -p {quote(deployment.release)}")
    return deployment.step("env", {"COMPOSE_DIR": "", "COMPOSE_FILE": "compose.yml"}, files if files is not None else FILES)


class TestEnv:
    def test_values_in_files(self, project):
        machine, secrets = project.machine, f"{project.opt}/secrets"
        env_step(project).undo()
        step = env_step(project)
        step.apply()
        assert machine.read(f"{secrets}/KEY.12ab") == "canary"
        modes = machine.sh(f"cd {quote(secrets)}; stat -c %a . KEY.12ab {quote(step.deployment.release)}/.secrets {quote(step.deployment.release)}/.env")
        assert modes.split() == ["700", "444", "600", "600"]
        assert machine.read(f"{step.deployment.release}/.secrets") == "KEY=canary\n"
        step.apply()
        # Another release has the same value, in the same file: its undo leaves it.
        other = env_step(project, 3)
        other.apply()
        other.undo()
        assert machine.read(f"{secrets}/KEY.12ab") == "canary"
        assert not machine.exists(f"{other.deployment.release}/.secrets") and not machine.exists(f"{other.directory}/files")
        step.undo()
        assert machine.sh(f"ls -A {quote(secrets)}") == ""

    def test_undone_after_half_of_it(self, project):
        step = env_step(project)
        step.apply()
        project.machine.run(f"cd {quote(project.opt)}/secrets; mv KEY.12ab KEY.12ab.new.77")
        step.undo()
        assert project.machine.sh(f"ls -A {quote(project.opt)}/secrets") == ""

    def test_a_copy_of_a_release_with_values_in_files(self, project):
        step = env_step(project, files={"env": "A=1\n", "version.env": "VERSION=v1\n", "check.json": "{}"})
        project.machine.write(f"{step.deployment.release}/.secrets", "KEY=older\n")
        step.apply()
        assert not project.machine.exists(f"{step.deployment.release}/.secrets")

    def test_a_plan_makes_no_file(self, project):
        step = env_step(project, 0, {**FILES, "rotated": "A=2\n"})
        project.machine.write(f"{project.state}/generated.env", "A=1\n")
        step.apply()
        assert not project.machine.exists(f"{project.opt}/secrets")
        assert project.machine.read(f"{project.state}/generated.env") == "A=1\n"

    def test_a_rotation_of_what_was_generated(self, project):
        generated = f"{project.state}/generated.env"
        project.machine.write(generated, "FIRST='a b'\nKEY=old\nKEY_2=x\n")
        step = env_step(project, files={**FILES, "rotated": "KEY='new $1'\nUNKNOWN=1\n"})
        step.apply()
        step.apply()
        assert project.machine.read(generated) == "FIRST='a b'\nKEY='new $1'\nKEY_2=x\n"
        step.undo()
        step.undo()
        assert project.machine.read(generated) == "FIRST='a b'\nKEY=old\nKEY_2=x\n"

    def test_prune_keeps_what_a_release_needs(self, project):
        secrets = f"{project.opt}/secrets"
        for name in ("ENV.1", "RUNS.2", "GONE.3"):
            project.machine.write(f"{secrets}/{name}", "x", 0o444)
        project.machine.write(f"{project.opt}/releases/1/.env", f"A='b c'\nENV_FILE={secrets}/ENV.1\n")
        project.machine.write(f"{project.opt}/releases/1/effective.json", '{"secrets":{"a":{"file":"%s/RUNS.2"}}}' % secrets)
        project.machine.write(f"{project.opt}/releases/1/release.json", '{\n  "previous" : 0,\n}\n')
        project.commit(1)
        project.deployment(2).step("prune", {"RELEASES": "2", "IMAGES": "0", "LOGS_SECONDS": "60"}).apply()
        assert project.machine.sh(f"ls {quote(secrets)}").split() == ["ENV.1", "RUNS.2"]

    def test_prune_keeps_everything_where_a_release_cannot_be_read(self, project):
        project.machine.write(f"{project.opt}/secrets/MAYBE.1", "x", 0o444)
        project.machine.write(f"{project.opt}/files/{'a' * 64}/f", "x")
        project.machine.write(f"{project.opt}/releases/1/.env", "A=b\n")
        project.machine.write(f"{project.opt}/releases/1/release.json", '{\n  "previous" : 0,\n}\n')
        project.commit(1)
        prune = project.deployment(2).step("prune", {"RELEASES": "2", "IMAGES": "0", "LOGS_SECONDS": "60"})
        assert "effective.json can not be read" in prune.apply()[1]
        assert project.machine.sh(f"ls {quote(project.opt)}/secrets {quote(project.opt)}/files | grep .").count("MAYBE.1") == 1
        assert "a" * 64 in project.machine.sh(f"ls {quote(project.opt)}/files")
