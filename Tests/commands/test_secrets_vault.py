"""The vault through the binary: against Debian's age, PyPI's pyrage and an independent reading of SOPS' format (sops_file.py), in both
directions; and what `edit` and `set` leave behind: nothing."""

import difflib
import json
import os
import pty
import random
import re
import secrets
import select
import signal
import string
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
import yaml

import sops_file
from conftest import BINARY

VAULT = "inventories/prod.secrets.yml"
CANARY = "canary-5d1f0c9be2"
INVENTORY = """\
app: market-bot
hosts:
  bot-1: { address: 127.0.0.1, port: 9, user: deploy, roles: [app, db] }
ssh: { known_hosts: known_hosts }
compose: compose.yml
env: { template: env.template }
services: { app: [bot], database: postgres }
"""
FILES = {
    "inventories/prod.yml": INVENTORY,
    "compose.yml": "services: { bot: { image: bot }, postgres: { image: postgres } }\n",
    "env.template": "LOG_LEVEL=INFO\nTOKEN=${TOKEN:?the token}\n",
    "known_hosts": "",
}


@dataclass
class Bench:
    """A project folder, a home with a key, and what runs the tool there."""

    folder: Path
    home: Path
    recipient: str = ""

    @property
    def key_file(self) -> Path:
        return self.home / ".config/orchestrate/keys.txt"

    @property
    def identity(self):
        return pyrage.x25519.Identity.from_str(secret_of(self.key_file))

    @property
    def vault(self) -> Path:
        return self.folder / VAULT

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.home / "tmp"), **more}

    def run(self, *arguments: str, status: int = 0, input: str | bytes = b"", **more: str):
        result = subprocess.run(
            [BINARY, *arguments], cwd=self.folder, env=self.environment(**more), capture_output=True, timeout=60,
            input=input.encode() if isinstance(input, str) else input)
        assert result.returncode == status, (arguments, result.returncode, result.stdout, result.stderr)
        return result

    def get(self, key: str, **more: str) -> str:
        return json.loads(self.run("secrets", "get", "prod", key, "--json", **more).stdout)["value"]

    def set(self, key: str, value: str):
        self.run("secrets", "set", "prod", key, "--exact", input=value)

    def load(self, identity=None):
        return sops_file.load(self.vault.read_text(), identity or self.identity)

    def editor(self, script: str) -> str:
        path = self.home / f"editor-{abs(hash(script))}"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return str(path)


def secret_of(path: Path) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-1"))


@pytest.fixture
def bench(tmp_path):
    folder, home = tmp_path / "project", tmp_path / "home"
    (folder / "inventories").mkdir(parents=True)
    (home / "tmp").mkdir(parents=True)
    for path, text in FILES.items():
        (folder / path).write_text(text)
    bench = Bench(folder, home)
    bench.recipient = bench.run("secrets", "keygen").stdout.decode().strip()
    return bench


def age(*arguments, input: bytes = b"") -> bytes:
    return subprocess.run(["age", *map(str, arguments)], input=input, capture_output=True, check=True, timeout=30).stdout


def ssh_key(folder: Path) -> tuple[Path, str]:
    path = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada@laptop", "-f", path], check=True)
    return path, path.with_suffix(".pub").read_text().strip()


def changed(before: str, after: str) -> list[str]:
    """The lines that a diff would show."""
    return [
        line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line.startswith(("+ ", "- "))
    ]


TREE = {
    "TELEGRAM_TOKEN": "123456:ABC-def", "DB_PASSWORD": "p w'\"#: \\ü🔑", "retries": 3, "big": -(2**62), "ratio": 0.25, "whole": 4.0, "tiny": 1e-7,
    "huge": 1e21, "debug": False, "on": True, "empty": "", "nothing": None, "pem": "-----BEGIN-----\nabc\n-----END-----\n",
    "blank lines": "\n\na\n  b \n\n", "group": {"a": "1", "inner": {"b": ["x", 2, {"c": "w"}]}}, "list": ["p", "p", True],
    "host_unencrypted": "db.example.com", "port_unencrypted": 5432, "x": "ENC[AES256_GCM,data:no]", "none": [], "void": {},
}


def flat(tree, path=()):
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from flat(value, (*path, name))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from flat(value, (*path, str(index)))
    else:
        yield ".".join(path), tree


def text_of(value) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else sops_file.shown(value)


# Keys


def test_a_key_is_private_and_never_overwritten(bench):
    assert bench.key_file.stat().st_mode & 0o777 == 0o600
    assert bench.key_file.parent.stat().st_mode & 0o777 == 0o700
    before = bench.key_file.read_bytes()
    bench.run("secrets", "keygen", status=1)
    assert bench.key_file.read_bytes() == before
    public = subprocess.run(["age-keygen", "-y", bench.key_file], capture_output=True, check=True, text=True).stdout
    assert public.strip() == bench.recipient == str(bench.identity.to_public())
    other = json.loads(bench.run("secrets", "keygen", "--file", "ci.key", "--json").stdout)
    assert other["recipient"] != bench.recipient and (bench.folder / "ci.key").stat().st_mode & 0o777 == 0o600


def test_where_keys_are_looked_for(bench):
    bench.set("A", "x")
    key = secret_of(bench.key_file)
    moved = bench.home / "elsewhere.txt"
    bench.key_file.rename(moved)
    bench.run("secrets", "get", "prod", "A", status=78)
    sops = bench.home / ".config/sops/age"
    for variables in [
        {"ORCHESTRATE_VAULT_KEY": key}, {"SOPS_AGE_KEY": f"# c\n{key}\n"}, {"SOPS_AGE_KEY_FILE": str(moved)},
    ]:
        assert bench.get("A", **variables) == "x"
    sops.mkdir(parents=True)
    (sops / "keys.txt").write_text(key)
    assert bench.get("A") == "x"
    bench.run("secrets", "get", "prod", "A", status=78, SOPS_AGE_KEY_FILE="/nowhere")
    result = bench.run("secrets", "get", "prod", "A", status=78, ORCHESTRATE_VAULT_KEY=CANARY)
    assert CANARY.encode() not in result.stdout + result.stderr and b"ORCHESTRATE_VAULT_KEY" in result.stderr


# Ours, read by others


def test_others_read_what_we_write(bench):
    # Lists are made in the editor.
    expected = {
        name.replace("_unencrypted", ""): value
        for name, value in flat(TREE) if isinstance(value, str) and value and not any(part.isdigit() for part in name.split("."))
    }
    for name, value in expected.items():
        bench.set(name, value)
    bench.run("secrets", "set", "prod", "hosts.0", input="x", status=64)
    tree, _ = bench.load()
    assert dict(flat(tree)) == expected
    assert {name: bench.get(name) for name in expected} == expected
    # Nothing of a value stands in the file.
    text = bench.vault.read_text()
    for value in expected.values():
        assert len(value) < 5 or value not in text


def test_others_read_what_was_edited(bench):
    text = "# first " + CANARY + "\n" + yaml.dump(TREE, sort_keys=False, allow_unicode=True, width=1 << 20)
    (bench.home / "text.yml").write_text(text)
    bench.run("secrets", "edit", "prod", EDITOR=f"cp {bench.home}/text.yml")
    tree, comments = bench.load()
    assert tree == TREE and comments == [" first " + CANARY]
    assert CANARY not in bench.vault.read_text()
    for name, value in flat(TREE):
        if value is not None:
            assert bench.get(name) == text_of(value), name


def test_age_opens_our_data_key(bench, tmp_path):
    bench.set("A", "x")
    path, public = ssh_key(tmp_path)
    bench.run("secrets", "recipients", "add", "prod", public)
    metadata = yaml.safe_load(bench.vault.read_text())["sops"]
    assert [entry["recipient"] for entry in metadata["age"]] == [bench.recipient, public]
    keys = [
        age("-d", "-i", identity, input=entry["enc"].encode())
        for entry, identity in zip(metadata["age"], [bench.key_file, path])
    ]
    assert keys[0] == keys[1] and len(keys[0]) == 32
    # pyrage with the SSH key, too.
    assert bench.load(pyrage.ssh.Identity.from_buffer(path.read_bytes()))[0] == {"A": "x"}
    bench.key_file.unlink()
    assert bench.get("A", SOPS_AGE_SSH_PRIVATE_KEY_FILE=str(path)) == "x"
    assert bench.get("A", ORCHESTRATE_VAULT_KEY=path.read_text().replace("\n", "\\n")) == "x"
    (bench.home / ".ssh").mkdir()
    path.rename(bench.home / ".ssh/id_ed25519")
    assert bench.get("A") == "x"


# Theirs, read by us


def check_reading(bench, tree):
    listed = json.loads(bench.run("secrets", "list", "prod", "--json").stdout)
    assert [key["name"] for key in listed["keys"]] == [name for name, _ in flat(tree)]
    for name, value in flat(tree):
        if value is not None:
            assert bench.get(name) == text_of(value), name


def test_we_read_what_others_write(bench):
    recipient = pyrage.x25519.Recipient.from_str(bench.recipient)
    for rules in [
        {}, {"mac_only_encrypted": True}, {"encrypted_regex": "^(TELEGRAM|DB_)"}, {"nonce_length": 12},
        {"time": "2026-11-20T10:00:00+02:00"},
    ]:
        bench.vault.write_text(sops_file.dump(TREE, [(bench.recipient, recipient)], comments=[" hello"], **rules))
        check_reading(bench, TREE)
    before = bench.vault.read_text()
    bench.set("DB_PASSWORD", CANARY)
    after = bench.vault.read_text()
    assert bench.load()[0] == {**TREE, "DB_PASSWORD": CANARY} and bench.load()[1] == [" hello"]
    assert {line.split(":")[0].strip(" +-") for line in changed(before, after)} == {"DB_PASSWORD", "lastmodified", "mac"}


def test_we_read_data_keys_wrapped_by_age(bench, tmp_path):
    path, public = ssh_key(tmp_path)

    def wrap(recipient: str, key: bytes) -> str:
        return age("-a", "-r", recipient, input=key).decode()

    for recipient, variables in [(bench.recipient, {}), (public, {"SOPS_AGE_SSH_PRIVATE_KEY_FILE": str(path)})]:
        bench.vault.write_text(sops_file.dump(TREE, [(recipient, None)], wrap=wrap))
        assert bench.get("DB_PASSWORD", **variables) == TREE["DB_PASSWORD"]


def random_tree(chooser: random.Random, depth: int = 0):
    def text():
        alphabet = chooser.choice([string.ascii_letters + string.digits, string.printable, "äß日🔑\x00\x1b\u2028\n: #'\""])
        return "".join(chooser.choice(alphabet) for _ in range(chooser.randrange(1, 60)))

    def value(depth):
        kind = chooser.randrange(10)
        if kind == 0 and depth < 3:
            return random_tree(chooser, depth + 1)
        if kind == 1 and depth < 3:
            return [value(depth + 1) for _ in range(chooser.randrange(0, 4))]
        return chooser.choice([text, text, lambda: chooser.randrange(-(2**63), 2**63), lambda: chooser.random() < 0.5,
                               lambda: chooser.uniform(-1e6, 1e6), lambda: float(chooser.randrange(9)), lambda: None, lambda: ""])()

    return {f"{chooser.choice(['KEY', 'my key', 'é', 'on', 'a.b'])}{index}": value(depth) for index in range(chooser.randrange(1, 8))}


def test_random_files_of_others(bench):
    recipient = pyrage.x25519.Recipient.from_str(bench.recipient)
    chooser = random.Random(20261121)
    for _ in range(20):
        tree = random_tree(chooser)
        bench.vault.write_text(sops_file.dump(tree, [(bench.recipient, recipient)]))
        # Through the editor and back: what it shows is the tree, and changing nothing of it keeps every ciphertext.
        before = bench.vault.read_text()
        bench.run("secrets", "edit", "prod", EDITOR=bench.editor(f'cp "$1" {bench.home}/shown.yml; echo "ADDED: 1" >> "$1"\n'))
        assert yaml.safe_load((bench.home / "shown.yml").read_text()) == tree
        # Types, too: 4 == 4.0 in Python.
        assert repr(bench.load()[0]) == repr({**tree, "ADDED": 1})
        lines = set(bench.vault.read_text().splitlines())
        for line in before.splitlines():
            if re.match(r"\s*(- |[^:]+: )?ENC\[", line) and " mac: " not in line:
                assert line in lines


# Changes


def test_set_get_unset_list(bench):
    bench.run("secrets", "set", "prod", "A", input="one\n")
    assert bench.run("secrets", "get", "prod", "A").stdout == b"one\n"
    assert bench.get("A") == "one"
    bench.run("secrets", "set", "prod", "B", "--exact", input="two\n")
    assert bench.get("B") == "two\n"
    bench.run("secrets", "set", "prod", "group.c", input="three")
    listed = bench.run("secrets", "list", "prod", HOME="/nonexistent").stdout.decode()
    assert all(name in listed for name in ["A ", "B ", "group.c", bench.recipient]) and "one" not in listed
    assert bench.vault.stat().st_mode & 0o777 == 0o644
    before = bench.vault.read_bytes(), bench.vault.stat().st_mtime_ns
    result = bench.run("secrets", "set", "prod", "A", input="one\n")
    assert b"already" in result.stderr
    assert before == (bench.vault.read_bytes(), bench.vault.stat().st_mtime_ns)
    bench.run("secrets", "unset", "prod", "A")
    assert bench.load()[0] == {"B": "two\n", "group": {"c": "three"}}
    bench.run("secrets", "get", "prod", "A", status=1)
    bench.run("secrets", "unset", "prod", "A", status=1)
    for status, key, value in [(64, "C", ""), (64, "group", "x"), (64, "sops", "x"), (64, "C", b"\xff\xfe")]:
        bench.run("secrets", "set", "prod", key, status=status, input=value)
    # A value as an argument is refused, not taken.
    bench.run("secrets", "set", "prod", "C", CANARY, status=64)
    bench.run("secrets", "get", "nowhere", "A", status=78)


def test_a_change_is_a_small_difference(bench):
    for index in range(20):
        bench.set(f"KEY_{index}", f"value {index}")
    before = bench.vault.read_text()
    bench.set("KEY_7", "other")
    names = [line.split(":")[0].strip(" +-") for line in changed(before, bench.vault.read_text())]
    # In the same second the time is the same.
    assert sorted(name for name in names if name != "lastmodified") == ["KEY_7"] * 2 + ["mac"] * 2


def test_changes_at_the_same_time_are_all_kept(bench):
    bench.set("A", "x")
    running = [
        subprocess.Popen([BINARY, "secrets", "set", "prod", f"K{n}"], cwd=bench.folder, env=bench.environment(), stdin=subprocess.PIPE)
        for n in range(8)
    ]
    for number, process in enumerate(running):
        process.stdin.write(str(number).encode())
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0] * 8
    assert bench.load()[0] == {"A": "x", **{f"K{n}": str(n) for n in range(8)}}


def test_recipients(bench):
    bench.set("A", "x")
    other = bench.home / "other.key"
    added = bench.run("secrets", "keygen", "--file", str(other)).stdout.decode().strip()
    identity = pyrage.x25519.Identity.from_str(secret_of(other))
    before = bench.vault.read_text()
    bench.run("secrets", "recipients", "add", "prod", added)
    assert not [line for line in changed(before, bench.vault.read_text()) if "A: ENC" in line]
    assert bench.load(identity)[0] == bench.load()[0] == {"A": "x"}
    between = bench.vault.read_text()
    bench.run("secrets", "recipients", "add", "prod", added)
    assert bench.vault.read_text() == between
    bench.run("secrets", "rekey", "prod")
    assert "A: ENC" in bench.vault.read_text() and not set(between.splitlines()) & {
        line for line in bench.vault.read_text().splitlines() if "ENC[" in line}
    assert bench.load(identity)[0] == bench.load()[0] == {"A": "x"}
    key = sops_file.data_key(yaml.safe_load(bench.vault.read_text())["sops"], identity)
    bench.run("secrets", "recipients", "rm", "prod", added)
    metadata = yaml.safe_load(bench.vault.read_text())["sops"]
    assert [entry["recipient"] for entry in metadata["age"]] == [bench.recipient]
    assert sops_file.data_key(metadata, bench.identity) != key
    assert bench.load()[0] == {"A": "x"}
    result = bench.run("secrets", "get", "prod", "A", status=78, HOME="/nonexistent", SOPS_AGE_KEY_FILE=str(other))
    assert bench.recipient.encode() in result.stderr and added.encode() in result.stderr
    before = bench.vault.read_bytes()
    bench.run("secrets", "recipients", "rm", "prod", bench.recipient, status=1)
    for wrong in ["age1xyz", "ssh-rsa AAAA", secret_of(other)]:
        result = bench.run("secrets", "recipients", "add", "prod", wrong, status=64)
        assert secret_of(other).encode() not in result.stderr
    assert bench.vault.read_bytes() == before


# Merging


def git(bench, *arguments, status: int = 0) -> str:
    result = subprocess.run(
        ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false", *arguments], cwd=bench.folder,
        env=bench.environment(GIT_CONFIG_NOSYSTEM="1"), capture_output=True, text=True, timeout=60)
    assert result.returncode == status, (arguments, result.stdout, result.stderr)
    return result.stdout + result.stderr


def test_branches_merge_by_value(bench):
    (bench.folder / ".gitattributes").write_text("*.secrets.yml merge=orchestrate\n")
    for name in ["A", "B", "C", "D"]:
        bench.set(name, f"old {name}")
    git(bench, "init", "-q", "-b", "main")
    git(bench, "config", "merge.orchestrate.driver", f"{BINARY} secrets merge %O %A %B")
    git(bench, "add", ".")
    git(bench, "commit", "-q", "-m", "base")
    git(bench, "checkout", "-q", "-b", "theirs")
    other = bench.run("secrets", "keygen", "--file", str(bench.home / "other.key")).stdout.decode().strip()
    bench.set("A", "their A")
    bench.set("E.deep", "their E")
    bench.run("secrets", "unset", "prod", "D")
    bench.run("secrets", "recipients", "add", "prod", other)
    git(bench, "commit", "-q", "-a", "-m", "theirs")
    git(bench, "checkout", "-q", "main")
    bench.set("B", "our B")
    bench.set("F", "our F")
    git(bench, "commit", "-q", "-a", "-m", "ours")
    before = bench.vault.read_text()
    git(bench, "merge", "-q", "--no-edit", "theirs")
    expected = {"A": "their A", "B": "our B", "C": "old C", "F": "our F", "E": {"deep": "their E"}}
    assert bench.load()[0] == expected
    assert bench.load(pyrage.x25519.Identity.from_str(secret_of(bench.home / "other.key")))[0] == expected
    kept = [line for line in before.splitlines() if line.startswith(("B:", "C:", "F:"))]
    assert all(line in bench.vault.read_text() for line in kept)

    git(bench, "checkout", "-q", "theirs")
    bench.set("C", "their C")
    bench.set("A", "their new A")
    git(bench, "commit", "-q", "-a", "-m", "theirs again")
    git(bench, "checkout", "-q", "main")
    bench.set("C", "our C")
    git(bench, "commit", "-q", "-a", "-m", "ours again")
    told = git(bench, "merge", "--no-edit", "theirs", status=1)
    assert "both sides changed C " in told and "their C" not in told and "CONFLICT" in told
    assert bench.load()[0] == {**expected, "C": "our C", "A": "their new A"}


# Broken files


def test_broken_files_are_named_and_left(bench):
    bench.set("A", "erstens")
    bench.set("B", "zweitens")
    good = bench.vault.read_text()
    a, b = (line[3:] for line in good.splitlines()[:2])
    for name, text, expected in [
        ("exchanged", good.replace(a, "@").replace(b, a).replace("@", b), [f"{VAULT}:1:4", "`A`", "`B`"]),
        ("renamed", good.replace("A: ", "C: "), [f"{VAULT}:1:4", "`C`"]),
        ("in the clear", good.replace(b, "zweitens"), [f"{VAULT}:2:4", "`B`", "isn't encrypted"]),
        ("line removed", "\n".join(good.splitlines()[1:]) + "\n", ["MAC"]),
        ("cut off", good[: len(good) // 2], [VAULT]),
        ("cut in the MAC", good[: good.index("    mac:") + 60], [VAULT]),
        ("doubled", good.splitlines()[0] + "\n" + good, [f"{VAULT}:2:1", "`A`"]),
        ("a merge", "<<<<<<< HEAD\n" + good, [f"{VAULT}:1:1", "merge"]),
        ("not encrypted", "A: x\n", ["sops"]),
        ("the key", good.replace("            YWdl", "            YWdm"), ["data key", bench.recipient]),
        ("empty", "", ["sops"]),
    ]:
        bench.vault.write_text(text)
        for arguments, more in [
            (("get", "prod", "B"), {}), (("set", "prod", "B"), {}), (("edit", "prod"), {"EDITOR": "false"}),
            (("rekey", "prod"), {}),
        ]:
            result = bench.run("secrets", *arguments, status=78, input="third", **more)
            told = result.stderr.decode()
            assert all(part in told for part in expected), (name, told)
            assert "erstens" not in told and ("zweitens" not in told or name == "in the clear"), name
        assert bench.vault.read_text() == text, name


# Editing


def test_an_edit_without_a_change_writes_nothing(bench):
    bench.set("A", "x")
    before = bench.vault.read_bytes(), bench.vault.stat().st_mtime_ns, bench.vault.stat().st_ino
    for editor in ["true", "touch", bench.editor('cat "$1" > "$1.new" && mv "$1.new" "$1"\n')]:
        assert b"nothing was written" in bench.run("secrets", "edit", "prod", EDITOR=editor).stderr
        assert before == (bench.vault.read_bytes(), bench.vault.stat().st_mtime_ns, bench.vault.stat().st_ino)
    bench.run("secrets", "edit", "prod", status=1, EDITOR="false")
    bench.run("secrets", "edit", "prod", status=1, EDITOR="/no/such/editor")
    bench.run("secrets", "edit", "prod", status=64)  # no terminal, no editor
    # VISUAL comes first.
    bench.run("secrets", "edit", "prod", EDITOR="false", VISUAL="true")


def test_faults_of_an_edit_have_their_place(bench):
    bench.set("A", "x")
    before = bench.vault.read_bytes()
    for text, place in [("B: yes\n", "2:4"), ("A: y\n", "2:1"), ("B: [1\n", "3:"), (f"B: {CANARY}\n  {CANARY}\n", "2:4")]:
        (bench.home / "more").write_text(text)
        result = bench.run("secrets", "edit", "prod", status=78, EDITOR=bench.editor(f'cat {bench.home}/more >> "$1"\n'))
        assert f"prod.secrets.yml (edited):{place}" in result.stderr.decode(), result.stderr
        assert CANARY.encode() not in result.stderr
        assert bench.vault.read_bytes() == before


def test_no_fault_shows_a_line_of_a_vault_or_a_key(bench):
    """Elsewhere an error has the line that it is about."""
    bench.set("A", "x")
    metadata = bench.vault.read_text().split("sops:", 1)[1]
    for text in [f"TOKEN: {CANARY}\nsops:{metadata}", f"TOKEN: {CANARY}\n", f"TOKEN: [{CANARY}\n"]:
        bench.vault.write_text(text)
        for command in [("secrets", "get", "prod", "TOKEN"), ("secrets", "edit", "prod"), ("secrets", "list", "prod"), ("deploy", "prod", "v1")]:
            result = subprocess.run(
                [BINARY, *command], cwd=bench.folder, env=bench.environment(EDITOR="true", GITHUB_ACTIONS="true"), capture_output=True, timeout=60,
                check=False)
            assert CANARY.encode() not in result.stdout + result.stderr, (command, result.stderr)
    torn = secret_of(bench.key_file)[:-1]
    (bench.folder / "ci.key").write_text(f"# mine\n{torn}\n")
    result = bench.run("secrets", "get", "prod", "A", status=78, SOPS_AGE_KEY_FILE="ci.key")
    assert b"ci.key" in result.stderr and torn[:24].encode() not in result.stderr


def test_vim_keeps_no_copies_elsewhere(bench):
    """By the name behind the name, as `vi` is vim on most machines."""
    bench.set("A", "x")
    for name in ["vim.basic", "other"]:
        path = Path(bench.editor(f'printf "%s\\n" "$@" > {bench.home}/arguments\n'))
        target = bench.home / name
        target.write_text(path.read_text())
        target.chmod(0o755)
        link = bench.home / f"vi-{name}"
        link.symlink_to(target)
        bench.run("secrets", "edit", "prod", EDITOR=f"{link} -X")
        arguments = (bench.home / "arguments").read_text().splitlines()
        assert arguments[:-1] == (["-X", "-n", "-i", "NONE"] if name == "vim.basic" else ["-X"])


def test_text_of_another_encoding_is_refused(bench):
    bench.set("A", "x")
    before = bench.vault.read_bytes()
    result = bench.run("secrets", "edit", "prod", status=1, EDITOR=bench.editor('printf \'A: "p\\344ss"\\n\' > "$1"\n'))
    assert b"UTF-8" in result.stderr and bench.vault.read_bytes() == before


def test_somebody_elses_change_meanwhile_is_kept(bench):
    bench.set("A", "x")
    editor = bench.editor(f'echo y | {BINARY} secrets set prod B && echo "C: z" >> "$1"\n')
    result = bench.run("secrets", "edit", "prod", status=1, EDITOR=editor)
    assert b"meanwhile" in result.stderr and bench.load()[0] == {"A": "x", "B": "y"}


PLACES = [Path("/dev/shm"), Path("/tmp")]


def copies(canary: str) -> list[Path]:
    """Files with the text, wherever one might be left. Other tests' folders come and go meanwhile."""
    found = []
    for place in PLACES:
        for folder in (name for name in os.listdir(place) if name.startswith("orchestrate-")):
            # os.walk passes over what has gone.
            for parent, _, names in os.walk(place / folder):
                for path in (Path(parent) / name for name in names):
                    try:
                        if path.is_file() and canary.encode() in path.read_bytes():
                            found.append(path)
                    except OSError:
                        continue
    return found


def wait_for(condition, seconds: float = 15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("who", ["process", "group"])
def test_a_killed_edit_leaves_no_text(bench, number, who):
    canary = f"{CANARY}-{secrets.token_hex(8)}"  # others may run this test at the same time
    bench.set("A", canary)
    before = bench.vault.read_bytes()
    seen = bench.home / "seen"
    # What editors leave beside a file, too.
    editor = bench.editor(
        f'cp "$1" "$1~"; cp "$1" "$(dirname "$1")/.swap"; stat -c %a "$1" "$(dirname "$1")" > {seen}.modes; '
        f'grep -c {canary} "$1" >> {seen}.modes; echo "$1" > {seen}.new; mv {seen}.new {seen}; sleep 60\n')
    process = subprocess.Popen(
        [BINARY, "secrets", "edit", "prod"], cwd=bench.folder, env=bench.environment(EDITOR=editor), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(seen.exists)
        folder = Path(seen.read_text().strip()).parent
        assert folder.parent == Path("/dev/shm") and len(list(folder.iterdir())) == 3
        assert Path(f"{seen}.modes").read_text().split() == ["600", "700", "1"], folder
        assert len(copies(canary)) == 3
        if who == "group":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        status = process.wait(15)
        assert status == (-9 if number == signal.SIGKILL else 1), process.stdout.read()
        wait_for(lambda: not folder.exists())
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert bench.vault.read_bytes() == before
    assert copies(canary) == []


def test_an_edit_that_ends_leaves_no_text(bench):
    bench.set("A", CANARY)
    for editor, status in [("true", 0), ("false", 1), (bench.editor('echo "B: yes" >> "$1"\n'), 78), (bench.editor('rm "$1"\n'), 1)]:
        seen = bench.home / "seen"
        wrapper = bench.home / "wrapper"
        wrapper.write_text(f'#!/bin/sh\ndirname "$1" > {seen}\nexec {editor} "$1"\n')
        wrapper.chmod(0o755)
        bench.run("secrets", "edit", "prod", status=status, EDITOR=str(wrapper))
        assert not Path(seen.read_text().strip()).exists()


def test_an_editor_that_uses_ctrl_c_goes_on(bench):
    bench.set("A", "x")
    seen = bench.home / "seen"
    editor = bench.editor(
        f"trap 'touch {seen}.int' INT; touch {seen}; while [ ! -e {seen}.int ]; do sleep 0.05; done; echo 'B: w' >> \"$1\"\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.folder)
        os.execve(BINARY, [str(BINARY), "secrets", "edit", "prod"], bench.environment(TERM="dumb", EDITOR=editor))
    wait_for(seen.exists)
    os.write(terminal, b"\x03")
    assert drained(terminal, pid) == 0 and bench.load()[0] == {"A": "x", "B": "w"}


def heard(terminal: int, pid: int, text: bytes | None, seconds: float = 30) -> bytes:
    """What is said on the terminal up to a text, or up to the end; a process that says nothing more is ended, and the test fails."""
    said, deadline = b"", time.monotonic() + seconds
    while text is None or text not in said:
        if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"nothing more is said: {said!r}")
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            chunk = b""  # the terminal is closed with its last process
        if not chunk:
            break
        said += chunk
    return said


def drained(terminal: int, pid: int) -> int:
    """Reads what is still said, and waits for the end."""
    heard(terminal, pid, None)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_person_may_edit_again(bench):
    bench.set("A", "x")
    count = bench.home / "count"
    editor = bench.editor(
        f'echo x >> {count}; if [ $(wc -l < {count}) = 1 ]; then echo "B: [" >> "$1"; else sed -i "s/B: .*/B: w/" "$1"; fi\n')
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.folder)
        os.execve(BINARY, [str(BINARY), "secrets", "edit", "prod"], bench.environment(TERM="dumb", EDITOR=editor))
    said = heard(terminal, pid, b"Edit again")
    assert b"(edited):3:" in said
    os.write(terminal, b"\n")
    assert drained(terminal, pid) == 0 and bench.load()[0] == {"A": "x", "B": "w"}


# At a terminal, and in the list of processes


def test_a_value_is_asked_for_without_echo(bench):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bench.folder)
        os.execve(BINARY, [str(BINARY), "secrets", "set", "prod", "A"], bench.environment(TERM="dumb"))
    said = heard(terminal, pid, b"not shown")
    os.write(terminal, CANARY.encode() + b"\n")
    said += heard(terminal, pid, None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    assert CANARY.encode() not in said and bench.get("A") == CANARY


def test_no_secret_in_any_argv_or_childs_environment(bench, tmp_path):
    key = secret_of(bench.key_file)
    trace = tmp_path / "trace"
    editor = bench.editor('env > /dev/null; echo "B: ' + CANARY + '2" >> "$1"\n')
    for arguments, more in [
        (("secrets", "set", "prod", "A"), {}), (("secrets", "get", "prod", "A"), {}),
        (("secrets", "edit", "prod"), {"EDITOR": editor}), (("secrets", "rekey", "prod"), {}),
    ]:
        result = subprocess.run(
            ["strace", "-f", "-v", "-e", "trace=execve", "-s", "65536", "-o", trace, BINARY, *arguments], cwd=bench.folder,
            env=bench.environment(ORCHESTRATE_VAULT_KEY=key, **more), input=CANARY.encode(), capture_output=True, timeout=120)
        assert result.returncode == 0, result.stderr
        lines = trace.read_text().splitlines()
        ours = [line for line in lines if "execve(" in line]
        assert ours
        # The first is the tool itself, which was given its key in the environment.
        assert all(CANARY not in line for line in ours) and all(key not in line for line in ours[1:])
    assert bench.get("B") == CANARY + "2"


def test_doctor_says_whether_it_opens(bench):
    def check(**more):
        checks = json.loads(bench.run("doctor", "prod", "--json", status=1, **more).stdout)["checks"]
        return [(check["state"], check["message"]) for check in checks if check["name"] == "vault"]

    assert check() == []
    bench.set("A", "x")
    assert check() == [("passed", f"{VAULT} opens; values: 1, recipients: 1")]
    assert check(HOME="/nonexistent")[0][0] == "failed"
    bench.vault.write_text(bench.vault.read_text().replace("A: ", "B: "))
    assert check()[0][0] == "failed" and "`B`" in check()[0][1]


def test_help_has_examples(bench):
    for words in [[], ["keygen"], ["edit"], ["get"], ["set"], ["unset"], ["list"], ["rekey"], ["recipients"],
                  ["recipients", "add"], ["recipients", "rm"], ["merge"]]:
        told = bench.run("secrets", *words, "--help").stdout.decode()
        assert "Examples:" in told and "orchestrate secrets" in told


# The env file's source


def test_a_deploy_needs_its_vault(bench):
    """Before anything is connected to: port 9 of the inventory answers nobody, which is status 6."""
    bench.run("plan", "prod", "v1.0.0", status=6)  # no vault, none named
    bench.set("TOKEN", CANARY)
    bench.run("plan", "prod", "v1.0.0", status=6)
    for command in [("plan", "prod", "v1.0.0"), ("deploy", "prod", "v1.0.0", "--yes"), ("env", "prod")]:
        result = bench.run(*command, status=78, HOME="/nonexistent")
        assert bench.recipient.encode() in result.stderr
    # A rollback needs no key.
    bench.run("rollback", "prod", "--yes", status=6, HOME="/nonexistent")
    good = bench.vault.read_text()
    bench.vault.write_text(good.replace("TOKEN: ", "TAKEN: "))
    assert b"`TAKEN`" in bench.run("plan", "prod", "v1.0.0", status=78).stderr
    bench.vault.rename(bench.folder / "inventories/other.secrets.yml")
    inventory = bench.folder / "inventories/prod.yml"
    inventory.write_text(INVENTORY + "secrets: prod.secrets.yml\n")
    assert b"prod.secrets.yml" in bench.run("plan", "prod", "v1.0.0", status=78).stderr
    inventory.write_text(INVENTORY + "secrets: other.secrets.yml\n")
    (bench.folder / "inventories/other.secrets.yml").write_text(good)
    bench.run("plan", "prod", "v1.0.0", status=6)
    assert bench.get("TOKEN") == CANARY
    # Without the source the vault isn't asked.
    inventory.write_text(INVENTORY.replace("env.template }", "env.template, from: [environment] }") + "secrets: none.secrets.yml\n")
    bench.run("plan", "prod", "v1.0.0", status=6)
