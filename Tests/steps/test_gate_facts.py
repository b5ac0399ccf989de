"""What a gate that failed tells of it, under dash and busybox: the history's line has to stay readable."""
import pytest
from conftest import Project

GATE = """
gate() { return 1; }
gate_report() { report='not healthy'; }
failure_unmet='' failure_public='bot ended' last_answer='%s'
"""


@pytest.mark.parametrize("answer, status", [("503 down", 503), ("000 Connection refused", None), ("0 ok", 0), ("", None), ("killed", None)])
def test_the_status_is_a_number_or_missing(local, answer, status):
    project = Project(local)
    local.write(f"{project.bundle}/gate.sh", GATE % answer)
    step = project.deployment(1).step("health", {"SERVICE": "bot"})
    result, output = step.apply(check=False)
    assert result == 1 and "not healthy" in output
    assert step.facts["failure"] == {"service": "bot", "reason": "bot ended", **({} if status is None else {"status": status})}
