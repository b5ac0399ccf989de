"""json.awk against Python's own parser, under every awk that is here."""
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "playbooks" / "host" / "json.awk"
AWKS = [a for a in (["mawk"], ["busybox", "awk"], ["gawk"], ["gawk", "--posix"]) if shutil.which(a[0])]
assert ["mawk"] in AWKS and ["busybox", "awk"] in AWKS, "mawk and busybox are needed"

pytestmark = pytest.mark.parametrize("awk", AWKS, ids=" ".join)


def run(awk, text, *args):
    data = text.encode() if isinstance(text, str) else text
    return subprocess.run([*awk, *args, "-f", str(SCRIPT)], input=data, capture_output=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})


def escape(text):
    out = ""
    for c in text:
        if c in "\\\n\t\r":
            out += {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}[c]
        elif ord(c) < 32:
            out += "\\u%04x" % ord(c)
        else:
            out += c
    return out


class Number(str):
    pass


def flatten(value, path=()):
    if isinstance(value, dict):
        yield path, "object", str(len(value))
        for key, member in value.items():
            yield from flatten(member, (*path, escape(key)))
    elif isinstance(value, list):
        yield path, "array", str(len(value))
        for index, item in enumerate(value):
            yield from flatten(item, (*path, str(index)))
    elif isinstance(value, Number):
        yield path, "number", str(value)
    elif isinstance(value, str):
        yield path, "string", escape(value)
    elif isinstance(value, bool):
        yield path, "bool", "true" if value else "false"
    else:
        assert value is None
        yield path, "null", "null"


def expected(text):
    value = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=refuse)
    return sorted("\037".join(path) + "\t" + kind + "\t" + shown for path, kind, shown in flatten(value))


def refuse(constant):
    raise ValueError(constant)


def check(awk, text):
    result = run(awk, text)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.decode().splitlines(keepends=False)) == expected(text) or sorted(
        result.stdout.decode().split("\n")[:-1]) == expected(text)


@pytest.mark.parametrize("text", [
    "{}", "[]", "0", '""', "null", " true ", "-1.5e+10", '"a"', "[[]]", "[{}]", '{"":{"":""}}', '{"a":[1,2,{"b":null}]}',
    '{"status":"bad","status":"healthy"}', '{"a":{"x":1,"y":{"z":2}},"b":3,"a":{"y":4}}', '{"a":1,"a":2,"a":3}',
    '{"a":{"b":1},"a":{"b":2,"b":3}}', '{"a":[1,2,3],"a":[]}', '{"a":{"a":1},"b":{"a":1}}', '[{"a":1},{"a":2}]', r'{"a":1,"\u0061":2}',
    r'"\u0000\u001f\u007f\u0080\u07ff\u0800\uffff\ud83d\ude00\\\"\/\b\f\n\r\t"', '"é😀"', '{\r\n "a" :\t[ 1 ,\n2 ] }\r\n',
    '{"a\\tb\\nc\\u001fd":1}', '"' + "x" * 10000 + '"', '"' + "\\\\\\u00e9" * 3000 + '"', "[" + ",".join(["1234567890"] * 3000) + "]",
    "1" * 5000, "[" * 500 + "]" * 500, " " * 5000 + "1", '{"0":1,"1":[2]}', '{"a":"%s %d \\\\1 &"}',
])
def test_reads(awk, text):
    check(awk, text)


@pytest.mark.parametrize("text", [
    "", " ", "{", "[", "}", "]", "{]", "[}", "[1,]", "[,1]", "[1 2]", '{"a"}', '{"a":}', '{"a":1,}', '{,}', '{"a" 1}', "{a:1}", "{'a':1}",
    "tru", "truex", "nul", "True", "NaN", "Infinity", "01", "1.", ".5", "+1", "-", "1e", "1e+", "0x1", "--1", "1.2.3", "{} {}", "1 2", '"',
    '"abc', '"\\', '"\\x"', '"\\u12"', '"\\u12g4"', r'"\ud83d"', r'"\ud83dx"', r'"\ud83d\u0041"', r'"\ude00"', '"a\tb"', '"a\nb"',
    '"\x01"', "[1\n", '{"a":1', "[1]]", "{}}", ":", ",", '"a":1', "[1:2]", "[" * 513 + "]" * 513, "[\"a\" \"b\"]", "\ufeff{}",
])
def test_refuses(awk, text):
    result = run(awk, text)
    assert result.returncode == 1, result.stdout
    assert result.stdout == b""
    assert b"json:" in result.stderr


def test_a_line_each(awk):
    result = run(awk, '{"a":1}\n[true]\n', "-v", "each=line")
    assert result.stdout.decode().split("\n")[:-1] == [
        "1\tobject\t1", "1\037a\tnumber\t1", "2\tarray\t1", "2\0370\tbool\ttrue"]
    assert run(awk, '{"a":1}\n[true\n', "-v", "each=line").returncode == 1
    assert run(awk, "", "-v", "each=line").returncode == 0


def test_a_file_each(awk, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text('{\n"a":1}\n')
    two.write_text('[\n]')
    result = subprocess.run([*awk, "-v", "each=file", "-f", str(SCRIPT), str(one), str(two)], capture_output=True)
    assert result.stdout.decode() == f"{one}\tobject\t1\n{one}\037a\tnumber\t1\n{two}\tarray\t0\n"
    two.write_text("[")
    assert subprocess.run([*awk, "-v", "each=file", "-f", str(SCRIPT), str(two), str(one)], capture_output=True).returncode == 1


def random_value(rng, depth):
    kind = rng.random()
    if depth > 5 or kind < 0.5:
        return rng.choice([
            lambda: None, lambda: True, lambda: False, lambda: rng.randint(-10**18, 10**18), lambda: rng.random() * 10 ** rng.randint(-20, 20),
            lambda: random_text(rng), lambda: "", lambda: 0])()
    if kind < 0.75:
        return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 5))]
    return {random_text(rng): random_value(rng, depth + 1) for _ in range(rng.randint(0, 5))}


def random_text(rng):
    alphabet = 'ab01 \\"/\n\t\r\b\f\x00\x1f\x7fé漢😀{}[],:%&$'
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 8)))


def written(rng, value):
    """The value as somebody else might write it: other white space, other escapes, members twice."""
    blank = lambda: rng.choice(["", "", " ", "\n", "\r\n", "\t  "])
    if isinstance(value, dict):
        members = []
        for key, member in value.items():
            if rng.random() < 0.2:
                members.append((key, random_value(rng, 4)))
            members.append((key, member))
        return "{" + blank() + ",".join(blank() + written(rng, k) + blank() + ":" + blank() + written(rng, v) for k, v in members) + blank() + "}"
    if isinstance(value, list):
        return "[" + blank() + ",".join(blank() + written(rng, v) + blank() for v in value) + blank() + "]"
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def test_fuzz_agrees_with_python(awk):
    rng = random.Random(20261121)
    for _ in range(120):
        check(awk, written(rng, random_value(rng, 0)))


def test_fuzz_of_broken_documents(awk):
    """Cut or changed anywhere: json.awk and Python agree on whether it is JSON."""
    rng = random.Random(4711)
    refused = 0
    for _ in range(150):
        text = written(rng, [random_value(rng, 1), random_value(rng, 1)])
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", "x", '"', "]", "}", ",", ":", "\\", "1"]) + text[at + rng.randint(0, 2):]
        try:
            lines = expected(text)
            "\n".join(lines).encode()
        except (ValueError, UnicodeEncodeError):  # also lone surrogates, which Python lets pass
            refused += 1
            result = run(awk, text)
            assert result.returncode == 1 and result.stdout == b"", text
        else:
            check(awk, text)
    assert refused > 20
