"""Malformed inventories, playbooks and env templates through the binary: each is told with file, line, column, the line itself and help, exit
status 78, before anything is connected to. What each fault is called in detail is held by Tests/InventoryTests/Malformed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import BINARY, GOOD, INVENTORY, PLAYBOOK, TEMPLATE


def test_the_sound_project_gets_as_far_as_its_host(bench):
    """What the cases below change is all that keeps them from connecting."""
    bench.listener.settimeout(20)
    with subprocess.Popen(
        [BINARY, "plan", "prod", "v1.1.0"], cwd=bench.folder, env={"HOME": str(bench.folder), "TOKEN": "t"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:
        bench.listener.accept()[0].close()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 6, err.decode()


def swap(path: str, old: str, new: str) -> bytes:
    assert old in GOOD[path]
    return GOOD[path].replace(old, new).replace("PORT", "22").encode()


def inventory(old: str, new: str) -> bytes:
    return swap(INVENTORY, old, new)


def playbook(old: str, new: str) -> bytes:
    return swap(PLAYBOOK, old, new)


def template(text: str) -> bytes:
    return (GOOD[TEMPLATE] + text).encode()


WHOLE_INVENTORY = GOOD[INVENTORY].replace("PORT", "22").encode()

# name, file, content, place, a word of the message or its help
CASES = [
    ("inventory-unknown-key", INVENTORY, inventory("services:", "servises:"), "7:1", "services"),
    ("inventory-missing-key", INVENTORY, inventory("app: market-bot\n", ""), "1:1", "app"),
    ("inventory-wrong-type", INVENTORY, inventory("port: PORT", "port: ssh"), "3:38", "port"),
    ("inventory-port-too-big", INVENTORY, inventory("port: PORT", "port: 70000"), "3:38", "65535"),
    ("inventory-duplicate-key", INVENTORY, inventory("compose:", "app: other\ncompose:"), "5:1", "app"),
    ("inventory-duplicate-key-in-flow", INVENTORY, inventory("user: deploy", "user: deploy, user: root"), "3:56", "user"),
    ("inventory-tab", INVENTORY, inventory("  bot-1:", "\tbot-1:"), "3:1", "tab"),
    ("inventory-no-space-after-colon", INVENTORY, inventory("app: market-bot", "app:market-bot"), "2:6", "`:`"),
    ("inventory-unclosed-brace", INVENTORY, inventory("roles: [app, db] }", "roles: [app, db]"), "4:1", "}"),
    ("inventory-unclosed-quote", INVENTORY, inventory("compose: compose.yml", 'compose: "compose.yml'), "5:10", ""),
    ("inventory-crlf", INVENTORY, inventory("user: deploy", "usr: deploy").replace(b"\n", b"\r\n"), "3:42", "user"),
    ("inventory-lone-returns", INVENTORY, inventory("user: deploy", "usr: deploy").replace(b"\n", b"\r"), "3:42", "user"),
    ("inventory-byte-order-mark", INVENTORY, b"\xef\xbb\xbf" + inventory("app:", "ap:"), "1:1", "app"),
    ("inventory-utf16", INVENTORY, WHOLE_INVENTORY.decode().encode("utf-16"), "1:1", "UTF-8"),
    ("inventory-invalid-utf8", INVENTORY, inventory("deploy", "depl?y").replace(b"?", b"\xff"), "3:52", "UTF-8"),
    ("inventory-overlong-utf8", INVENTORY, inventory("deploy", "depl?y").replace(b"?", b"\xc0\xaf"), "3:52", "UTF-8"),
    ("inventory-nul", INVENTORY, inventory("deploy", "depl?y").replace(b"?", b"\0"), "3:52", "U+0000"),
    ("inventory-escape", INVENTORY, inventory("deploy", "depl?y").replace(b"?", b"\x1b[2J"), "3:52", "U+001B"),
    ("inventory-only-nul", INVENTORY, b"\0" * 4096, "1:1", "U+0000"),
    ("inventory-empty", INVENTORY, b"", "1:1", "app"),
    ("inventory-only-a-comment", INVENTORY, b"# nothing\n", "1:1", "app"),
    ("inventory-a-list", INVENTORY, b"- app: market-bot\n", "1:1", ""),
    ("inventory-a-number", INVENTORY, b"42\n", "1:1", ""),
    ("inventory-two-documents", INVENTORY, WHOLE_INVENTORY + b"---\n" + WHOLE_INVENTORY, "8:1", "document"),
    ("inventory-deep-flow", INVENTORY, inventory("market-bot", "[" * 20_000), "1:", "nested"),
    ("inventory-deep-block", INVENTORY, inventory("market-bot", "".join(f"\n{' ' * n}a:" for n in range(1, 500))), "66:66", "nested"),
    ("inventory-deep-and-closed", INVENTORY, inventory("market-bot", "{a: " * 5000 + "1" + "}" * 5000), "1:", "nested"),
    (
        "inventory-alias-bomb", INVENTORY,
        b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(f"{name}: &{name} [{', '.join(['*' + chr(ord(name) - 1)] * 9)}]\n".encode() for name in "bcdefghij"), "3:", "alias",
    ),
    ("inventory-alias-of-itself", INVENTORY, inventory("market-bot", "&a [*a]"), "1:", ""),
    ("inventory-alias-of-nothing", INVENTORY, inventory("market-bot", "*nobody"), "1:6", "nobody"),
    ("inventory-merge-key", INVENTORY, inventory("{ address", "{ <<: { address: x }, address"), "3:12", "<<"),
    ("inventory-tag", INVENTORY, inventory("market-bot", "!!python/object/apply:os.system [id]"), "1:6", ""),
    ("inventory-key-that-is-a-list", INVENTORY, inventory("compose:", "? [a, b]\n: c\ncompose:"), "5:3", ""),
    ("inventory-outside-of-the-project", INVENTORY, inventory("compose: compose.yml", "compose: ../../etc/passwd"), "5:10", ""),
    ("inventory-too-big", INVENTORY, WHOLE_INVENTORY + b"# " + b"x" * (1 << 20), "1:1", "limit"),
    ("inventory-long-line", INVENTORY, inventory("market-bot", "x" * 200_000), "1:6", "app"),
    ("inventory-name-for-a-shell", INVENTORY, inventory("market-bot", '"$(reboot)"'), "1:6", "app"),
    ("inventory-address-for-ssh", INVENTORY, inventory("127.0.0.1", "-oProxyCommand=reboot"), "3:21", "address"),
    ("playbook-unknown-step", PLAYBOOK, playbook("- recreate:", "- recraete:"), "6:5", "recreate"),
    ("playbook-unknown-key", PLAYBOOK, playbook("within: 60s", "wihtin: 60s"), "7:67", "within"),
    ("playbook-duration", PLAYBOOK, playbook("within: 60s", "within: sixty"), "7:75", "5m"),
    ("playbook-duration-overflow", PLAYBOOK, playbook("within: 60s", "within: 99999999999999999999h"), "7:75", ""),
    ("playbook-size", PLAYBOOK, playbook("2GiB", "two"), "2:29", "2GiB"),
    ("playbook-size-overflow", PLAYBOOK, playbook("2GiB", "99999999999GiB"), "2:29", ""),
    ("playbook-undefined-name", PLAYBOOK, playbook("localhost", "${domain}"), "7:", "domain"),
    ("playbook-no-commit", PLAYBOOK, playbook("  - commit: {}\n", ""), "2:3", "commit"),
    ("playbook-file-that-is-missing", PLAYBOOK, playbook("redis.conf", "radis.conf"), "3:", "radis.conf"),
    ("playbook-empty", PLAYBOOK, b"", "1:1", "steps"),
    ("playbook-a-word", PLAYBOOK, b"steps\n", "1:1", "steps"),
    ("playbook-steps-is-a-word", PLAYBOOK, b"steps: all of them\n", "1:8", ""),
    ("playbook-tab", PLAYBOOK, playbook("  - env: {}", "\t- env: {}"), "4:1", "tab"),
    ("playbook-crlf", PLAYBOOK, playbook("within: 60s", "within: sixty").replace(b"\n", b"\r\n"), "7:75", "5m"),
    ("playbook-nul", PLAYBOOK, playbook("- env: {}", "- env: {?}").replace(b"?", b"\0"), "4:11", "U+0000"),
    ("playbook-invalid-utf8", PLAYBOOK, playbook("- env: {}", "- env: {?}").replace(b"?", b"\xed\xa0\x80"), "4:11", "UTF-8"),
    ("playbook-deep", PLAYBOOK, playbook("[bot]", "[" * 20_000), "6:", "nested"),
    ("playbook-duplicate-key", PLAYBOOK, playbook("steps:", "steps: []\nsteps:"), "2:1", "steps"),
    ("template-unclosed", TEMPLATE, template("BROKEN=${\n"), "3:8", "$$"),
    ("template-unclosed-at-the-end", TEMPLATE, template("BROKEN=${TOKEN:-"), "3:8", "}"),
    ("template-no-name", TEMPLATE, template("=value\n"), "3:1", ""),
    ("template-no-equals", TEMPLATE, template("just some text\n"), "3:1", "="),
    ("template-bad-name", TEMPLATE, template("2FAST=1\n"), "3:1", ""),
    ("template-twice", TEMPLATE, template("LOG_LEVEL=DEBUG\n"), "3:1", "LOG_LEVEL"),
    ("template-cycle", TEMPLATE, template("A=${B}\nB=${A}\n"), "3:", "A"),
    ("template-unclosed-quote", TEMPLATE, template('QUOTED="to the end\nAND=on\n'), "3:8", ""),
    ("template-generate", TEMPLATE, template("P=${generate:lots}\n"), "3:", ""),
    ("template-generate-overflow", TEMPLATE, template("P=${generate:99999999999999999999}\n"), "3:", ""),
    ("template-deep", TEMPLATE, template("D=" + "${A:-" * 20_000 + "\n"), "3:", "inside one another"),
    ("template-unknown-mark", TEMPLATE, template("# @secert\nP=${P:?p}\n"), "3:", "secret"),
    ("template-nul", TEMPLATE, template("N=a\0b\n"), "3:4", "U+0000"),
    ("template-invalid-utf8", TEMPLATE, template("N=a~b\n").replace(b"~", b"\x80"), "3:4", "UTF-8"),
    ("template-crlf", TEMPLATE, template("BROKEN=${A\n").replace(b"\n", b"\r\n"), "3:8", "}"),
]


def told(result, path: str, place: str) -> str:
    """What the binary said; that it said it as it should. A place without a column stands for the line."""
    out, err = result.stdout.decode(errors="strict"), result.stderr.decode(errors="strict")
    assert result.returncode == 78, f"{result.returncode}\n{out}{err}"[-4000:]
    assert out == "", out
    places = re.findall(rf"^{re.escape(path)}:(\d+:\d+): error: \S", err, re.MULTILINE)
    assert any(found == place or place.endswith(":") and found.startswith(place) for found in places), err[-4000:]
    assert "help:" in err or "expected" in err, err[-4000:]
    assert len(err) < 6000, "more than a screen can hold"
    assert "\x1b" not in err and "\0" not in err
    return err


@pytest.mark.parametrize(("path", "content", "place", "word"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_is_told_before_anything_is_connected_to(bench, path, content, place, word):
    bench.write(path, content)
    commands = [("plan", "prod", "v1.1.0"), ("deploy", "prod", "v1.1.0")]
    if path == INVENTORY:
        commands.append(("inventory", "prod"))
    for command in commands:
        assert word in told(bench.run(*command), path, place)
    assert not bench.was_called()


def a_folder(path: Path):
    path.mkdir()


def a_broken_link(path: Path):
    path.symlink_to("nowhere.yml")


def a_pipe(path: Path):
    os.mkfifo(path)


def unreadable(path: Path):
    path.write_text("app: market-bot\n")
    path.chmod(0)


# root reads everything, unless it has given that up.
WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


@pytest.mark.parametrize("make", [a_folder, a_broken_link, a_pipe, unreadable])
@pytest.mark.parametrize("path", [INVENTORY, PLAYBOOK, TEMPLATE])
def test_what_is_no_readable_file_is_told(bench, path, make):
    """A playbook that can't be read is never taken for none: the built-in one would run instead."""
    (bench.folder / path).unlink()
    make(bench.folder / path)
    result = bench.run("deploy", "prod", "v1.1.0", before=WITHOUT_PRIVILEGES)
    if path == TEMPLATE and make in (a_folder, a_broken_link):
        assert path in told(result, INVENTORY, "6:18")
    else:
        told(result, path, "1:1")
    assert not bench.was_called()


def test_the_line_is_shown_wherever_one_stands(bench):
    bench.write(PLAYBOOK, playbook("within: 60s", "within: sixty"))
    (bench.folder / "files").mkdir()
    (bench.folder / "playbooks/playbooks").mkdir()
    bench.write("playbooks/" + PLAYBOOK, b"# another file\n" * 9)
    for arguments, cwd in [((), "."), ((), "files"), ((), "playbooks"), (("--project", ".."), "files")]:
        err = told(bench.run("plan", "prod", "v1.1.0", *arguments, cwd=cwd), PLAYBOOK, "7:75")
        assert "within: sixty }\n" in err, err


def test_a_long_line_is_shown_around_the_place(bench):
    bench.write(INVENTORY, inventory("market-bot", "{ " + ", ".join(["a: b"] * 2000) + " }"))
    err = told(bench.run("plan", "prod", "v1.1.0"), INVENTORY, "1:")
    assert max(map(len, err.splitlines())) < 300


def test_there_are_enough():
    for path in (INVENTORY, PLAYBOOK, TEMPLATE):
        assert len({case[2] for case in CASES if case[1] == path}) >= 15
