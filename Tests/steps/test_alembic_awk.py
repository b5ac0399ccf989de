"""alembic.awk: the history that migration files tell by themselves, or a refusal to guess, under every awk that is here."""
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "playbooks" / "host" / "alembic.awk"
AWKS = [a for a in (["mawk"], ["busybox", "awk"], ["gawk"], ["gawk", "--posix"]) if shutil.which(a[0])]
assert ["mawk"] in AWKS and ["busybox", "awk"] in AWKS, "mawk and busybox are needed"

pytestmark = pytest.mark.parametrize("awk", AWKS, ids=" ".join)
# As `alembic revision` writes it since 1.12.
GENERATED = '''"""{title}

Revision ID: {name}
Revises: {before}
Create Date: 2026-01-31 10:11:12.131415

"""
from typing import Sequence, Union

from alembic import op
import sqlalchemy as sa


# revision identifiers, used by Alembic.
revision: str = {name!r}
down_revision: Union[str, None] = {before!r}
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    """Upgrade schema."""
    revision = "not this one"
'''


def history(awk, folder, *texts):
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"{9 - number}.py"  # their names' order says nothing
        path.write_bytes(text.encode())
        paths.append(path)
    return subprocess.run([*awk, "-f", SCRIPT, *sorted(paths)], capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})


def generated(name, before, title="a title"):
    return GENERATED.format(name=name, before=before, title=title)


def test_as_alembic_writes_them(awk, tmp_path):
    run = history(awk, tmp_path, generated("b2", "a1", "second, and more"), generated("c3", "b2"), generated("a1", None, "first"))
    assert (run.returncode, run.stdout) == (0, "b2 -> c3 (head), a title\na1 -> b2, second, and more\n<base> -> a1, first\n")


@pytest.mark.parametrize("text, title", [
    ("revision='x'\ndown_revision=None\n", ""),
    ('revision = "x"  # a comment\r\ndown_revision = None\r\n', ""),
    ('#!/usr/bin/python3\n\n\'\'\'one line\'\'\'\nrevision = "x"\ndown_revision = None\n', "one line"),
    ('r"""\n\n  below\n  and more\n"""\nrevision = "x"\ndown_revision = None\n', "below"),
    ('import os\n"""no docstring"""\nrevision = "x"\ndown_revision = None\n', ""),
], ids=["bare", "crlf", "quotes", "indented", "no-docstring"])  # fmt: skip
def test_forms(awk, tmp_path, text, title):
    run = history(awk, tmp_path, text)
    assert (run.returncode, run.stdout) == (0, f"<base> -> x (head), {title}\n")


@pytest.mark.parametrize("texts", [
    [""],
    [generated("a", None), generated("b", "a"), generated("c", "a")],
    [generated("a", None), generated("b", None)],
    [generated("b", "a")],
    [generated("a", "b"), generated("b", "a")],
    [generated("a", None), generated("a", None)],
    [generated("a", None), generated("m", ("a", "b"))],
    [generated("a", None).replace("depends_on: Union[str, Sequence[str], None] = None", "depends_on = 'x'")],
    [generated("a", None).replace("branch_labels: Union[str, Sequence[str], None] = None", "branch_labels = ('x',)")],
    [generated("a", None) + "revision = name_of(__file__)\n"],
    ["revision = name_of(__file__)\ndown_revision = None\n"],
    ["revision = 'a' + 'b'\ndown_revision = None\n"],
    ["revision = 'a'\n"],
    ["x = 1\n"],
], ids=["empty", "two-heads", "two-bases", "no-base", "circle", "twice", "merge", "depends", "label", "again", "computed", "sum", "no-down", "other"])  # fmt: skip
def test_what_is_not_plain_is_left_to_alembic(awk, tmp_path, texts):
    run = history(awk, tmp_path, *texts)
    assert (run.returncode, run.stdout) == (1, "")
