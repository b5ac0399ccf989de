"""What the command line itself refuses, and the streams that it is started with."""

import shutil
import socket
import subprocess

import pytest

from conftest import BINARY, PLAYBOOK, TEMPLATE, GOOD


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (("deploi", "prod", "v1"), 64, ("no command `deploi`", "did you mean `deploy`?")),
    (("quite-another",), 64, ("no command `quite-another`", "orchestrate --help")),
    (("deploy", "prod", "v1", "--lease", "2s"), 64, ("--lease", "at least 3s")),
    (("history", "prod", "--number=-1"), 64, ("--number -1",)),
    (("logs", "prod", "--tail=-1"), 64, ("--tail -1",)),
    (("secrets", "set", "prod", "TOKEN=hunter2-hunter2"), 64, ("TOKEN=…", "never an argument")),
    (("exec", "prod", "bot"), 255, ("<command>",)),
    (("exec", "elsewhere", "bot", "--", "true"), 255, ("no environment `elsewhere`",)),
    (("exec", "prod", "bot", "--host", "nosuch", "--", "true"), 255, ("nosuch",)),
    (("ssh", "prod", "nosuch"), 255, ("nosuch",)),
    (("ssh", "prod", "--wrong"), 255, ("--wrong",)),
])
def test_is_refused_at_once(bench, arguments, status, words):
    result = bench.run(*arguments)
    err = result.stderr.decode()
    assert result.returncode == status, err
    assert all(word in err for word in words), err
    assert result.stdout == b"" and not bench.was_called() and "hunter2" not in err


def test_a_path_that_no_archive_holds_is_named(bench):
    folder = bench.folder / ("a" * 120)
    folder.mkdir()
    (folder / ("b" * 120)).write_text("")
    bench.write(PLAYBOOK, GOOD[PLAYBOOK].replace("redis.conf", folder.name + "/").encode())
    result = bench.run("deploy", "prod", "v1")
    assert result.returncode == 78 and b"too long" in result.stderr, result.stderr


def test_a_bad_way_to_the_host_is_named(bench):
    text = (bench.folder / "inventories/prod.yml").read_text()
    bench.write("inventories/prod.yml", text.replace("known_hosts: known_hosts", "known_hosts: known_hosts, proxy_jump: 'gate:x'").encode())
    result = bench.run("status", "prod")
    assert result.returncode == 78 and b"gate:x" in result.stderr, result.stderr
    assert not bench.was_called()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stay_out_of_the_way(bench, closed):
    """Else the first descriptors that are opened would be our own, and text would be written into them."""
    bench.write(TEMPLATE, b"A=${\n")
    command = f'"$0" plan prod v1 {closed}'
    done = subprocess.run(
        ["sh", "-c", command, BINARY], cwd=bench.folder, env={"HOME": str(bench.folder), "PATH": "/usr/bin:/bin"}, timeout=30, check=False,
        stdin=subprocess.DEVNULL, capture_output=True,
    )
    assert done.returncode == 78
    assert bool(done.stderr) == ("2>&-" not in closed)


def test_a_jump_hosts_own_jump_is_taken(bench):
    """As ssh does: the first connection goes to `outer`. What stands behind it is never asked directly (port 1 of another loopback address)."""
    port = bench.listener.getsockname()[1]
    (bench.folder / "config").write_text(f"""\
Host 127.0.0.1
  ProxyJump gate
Host gate
  HostName 127.0.0.2
  Port 1
  ProxyJump outer
Host outer
  HostName 127.0.0.3
  Port {port}
""")
    (bench.folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {bench.folder}/config "$@"\n')
    (bench.folder / "ssh").chmod(0o755)
    with socket.create_server(("127.0.0.3", port)) as outer, subprocess.Popen(
        [BINARY, "status", "prod"], cwd=bench.folder, env={"HOME": str(bench.folder), "PATH": f"{bench.folder}:/usr/bin:/bin"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:
        outer.settimeout(20)
        outer.accept()[0].close()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 6, err.decode()
    assert not bench.was_called()
