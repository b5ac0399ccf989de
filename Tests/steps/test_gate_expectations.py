"""What a gate expects of a JSON answer, judged by json.awk: nested, escaped, duplicate members, wrong types."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = ROOT / "playbooks" / "host"
SEP = "\x1f"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"]}

SCRIPT = """
set -eu
. "$ORCH_BUNDLE/lib.sh"
. "$ORCH_BUNDLE/gate.sh"
gate_tmp=$1
gate_expect
"""


@pytest.fixture(params=SHELLS)
def shell(request):
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"no {request.param}")
    return SHELLS[request.param]


def judge(shell, tmp_path, document, *expectations):
    (tmp_path / "expect").write_text("".join(f"{line}\n" for line in expectations))
    return subprocess.run(
        [*shell, "-c", SCRIPT, "gate", tmp_path],
        input=document,
        capture_output=True,
        text=True,
        env={"ORCH_BUNDLE": str(HOST), "PATH": "/usr/bin:/bin"},
        timeout=20,
    )


GOOD = [
    ('{"status":"healthy"}', "status\tstring\thealthy"),
    ('{"status":"bad","status":"healthy"}', "status\tstring\thealthy"),
    ('{"a":{"b":[1,{"c":"x"}]}}', f"a{SEP}b{SEP}1{SEP}c\tstring\tx"),
    ('{"a.b":1}', "a.b\tnumber\t1"),
    (r'{"quote":"a\"b\\c\td\u00e9"}', "quote\tstring\ta\"b\\\\c\\tdé"),
    ('{"age":29.5}', "age\tbelow\t30"),
    ('{"age":3e1}', "age\tat_most\t30"),
    ('{"n":-1}', "n\tabove\t-1.5"),
    ('{"n":2}', "n\tat_least\t2"),
    ('{"ok":true}', "ok\tbool\ttrue"),
    ('{"last":null}', "last\tnull\tnull"),
    ('{"state":"up"}', "state\tnot\tdown"),
    ('{"code":200}', "code\tnumber\t200"),
]

BAD = [
    ('{"status":"healthy","status":"bad"}', "status\tstring\thealthy", "status is bad, not healthy"),
    ('{"status":{"is":"healthy"}}', "status\tstring\thealthy", "status is an object"),
    ('{"x":"status\\":\\"healthy"}', "status\tstring\thealthy", "status is missing"),
    ('{"age":30}', "age\tbelow\t30", "age is 30, not below 30"),
    ('{"age":null}', "age\tbelow\t30", "age is null, not a number"),
    ('{"age":"5"}', "age\tbelow\t30", "age is 5, not a number"),
    ('{"v":"1.0"}', "v\tstring\t1", "v is 1.0, not 1"),
    ('{"n":1}', "n\tat_least\t2", "n is 1, less than 2"),
    ('{"n":3}', "n\tat_most\t2", "n is 3, more than 2"),
    ('{"n":1}', "n\tabove\t1", "n is 1, not above 1"),
    ('{"ok":false}', "ok\tbool\ttrue", "ok is false, not true"),
    ('{"ok":"true"}', "ok\tbool\ttrue", "ok is true, not true"),
    ('{"state":"down"}', "state\tnot\tdown", "state is down"),
    ('{"last":0}', "last\tnull\tnull", "last is 0, not null"),
    ('{"a":{"b":1}}', f"a{SEP}b\tnumber\t2", "a.b is 1, not 2"),
    ("<html>healthy</html>", "status\tstring\thealthy", ""),
    ("", "status\tstring\thealthy", ""),
]


@pytest.mark.parametrize("document, expectation", GOOD)
def test_met(shell, tmp_path, document, expectation):
    result = judge(shell, tmp_path, document, expectation)
    assert (result.returncode, result.stdout) == (0, ""), result


@pytest.mark.parametrize("document, expectation, reason", BAD)
def test_not_met(shell, tmp_path, document, expectation, reason):
    result = judge(shell, tmp_path, document, expectation)
    assert result.returncode != 0
    assert reason in result.stdout
    unmet = (tmp_path / "unmet").read_text()
    path, operator, want = expectation.split("\t")
    if reason:
        field, expected = unmet.rstrip("\n").split("\t")
        assert field == path.replace(SEP, ".")
        assert expected == ("" if operator in ("string", "number", "bool", "null") else operator.replace("_", " ") + " ") + want
    else:
        assert unmet == ""


def test_every_expectation_counts(shell, tmp_path):
    document = '{"status":"healthy","age":40}'
    result = judge(shell, tmp_path, document, "status\tstring\thealthy", "age\tbelow\t30")
    assert result.returncode != 0
    assert result.stdout == "age is 40, not below 30\n"
