"""What a deployment must not take for its own: containers that it didn't make, a restore point of another database; with a scripted docker."""
import hashlib
import json

import pytest
from conftest import Project, quote


@pytest.fixture
def project(local, tmp_path):
    local.tools = tmp_path / "tools"
    return Project(local)


def container(name, **labels):
    """A line of preflight's template."""
    return json.dumps({
        "id": name, "name": f"/{name}", "service": "bot", "oneoff": labels.get("oneoff", "False"), "replaces": "", "project": labels.get("project", ""),
        "deployment": "", "image": "sha256:1", "status": "running", "health": "none", "restarts": 0, "started_at": "", "exit_code": 0,
        "oom_killed": False})


@pytest.mark.parametrize("found, current, refused", [
    ([container("shop-db-1"), container("shop-web-1"), container("ours", project="shop")], False, True),
    ([container("ours", project="shop"), container("person", oneoff="True")], False, False),
    ([container("shop-web-1")], True, False),
])
def test_a_first_deployment_over_containers_of_somebody_else(local, project, found, current, refused):
    """It would replace them, and its undo would leave nothing; those of our own earlier attempt bear our label."""
    (local.tools / "lines").write_text("".join(line + "\n" for line in found))
    (local.tools / "docker").write_text(f"""#!/bin/sh
case "$1 $*" in
  "ps "*) echo abc running shop ;;
  inspect*orchestrate.project*) cat {quote(local.tools / "lines")} ;;
esac
""")
    if current:
        local.write(f"{project.opt}/releases/1/effective.json", "{}")
        project.commit(1)
    status, output = project.deployment(2).step("preflight").apply(check=False)
    assert (status != 0) == refused, output
    if refused:
        assert "shop-db-1, shop-web-1." in output and "docker compose -p shop down" in output and "`project:`" in output, output


def restore(local, project, name, receipt):
    """restore_point of backup x.dump with this receipt, into this database: status, output, and which databases were connected to."""
    (local.tools / "docker").write_text("""#!/bin/sh
while [ $# -gt 1 ]; do
  if [ "$1" = -d ]; then echo "$2" >>"$HOME/connected"; fi
  shift
done
cat >/dev/null
echo t
""")
    dump = f"{project.opt}/backups/x.dump"
    local.write(dump, "dump")
    sha256 = hashlib.sha256(b"dump").hexdigest()
    local.write(f"{project.opt}/backups/x.json", f'{{"file":"x.dump","database":{json.dumps(receipt)},"service":"postgres","size":4,"sha256":"{sha256}","revision":""}}\n')
    result = local.run(f"""set -eu; ORCH_BUNDLE={quote(project.bundle)}; for f in lib containers schema; do . "$ORCH_BUNDLE/$f.sh"; done
        ORCH_N=5 DB_NAME={quote(name)} DB_USER=market database=abc; restore_point {quote(dump)}""", check=False)
    connected = local.read(f"{local.base}/connected").split() if local.exists(f"{local.base}/connected") else []
    return result.returncode, (result.stdout + result.stderr).decode(), connected


def test_a_restore_point_of_another_database_is_refused(local, project):
    status, output, connected = restore(local, project, "app", "market")
    assert status == 1 and "is not one of the database app" in output and "Nothing was changed" in output
    assert connected == []


@pytest.mark.parametrize("name, beside", [("market", "postgres"), ("postgres", "template1"), ('a "b', "postgres")])
def test_nobody_renames_the_database_that_he_is_connected_to(local, project, name, beside):
    status, output, connected = restore(local, project, name, name)
    assert status == 0, output
    assert connected == f"{beside} {beside} {name}_restore_5 {name}_restore_5 {beside}".split() if " " not in name else connected.count(beside) == 3
