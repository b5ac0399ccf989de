"""system.sh in a temporary directory of this machine: what it tells, what it changes, what undo puts back, and what it doesn't follow."""

import os
import shlex

import pytest
from conftest import SHELLS  # noqa: F401

REAL = "/usr/bin:/bin:/usr/sbin:/sbin"


def owner(group=False):
    import grp
    import pwd

    return f"{pwd.getpwuid(os.getuid()).pw_name}:{grp.getgrgid(os.getgid()).gr_name}"


def tree(root):
    """Everything below it: kind, mode, content."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            state = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else open(path, "rb").read() if os.path.isfile(path) else None
            found[os.path.relpath(path, root)] = (oct(state.st_mode), state.st_uid, state.st_gid, content)
    return found


@pytest.fixture
def etc(tmp_path):
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    return directory


def steps(local, script, number=None, check=True, prelude=""):
    """A step of these lines."""
    head = '. "$ORCH_BUNDLE/lib.sh"\n. "$ORCH_BUNDLE/system.sh"\nset -eu\n'
    files = {"apply.sh": head + script + "\ntell_changes\n", "undo.sh": head + "restore_files\n"}
    if number == 0:
        return local.plan("made", {}, files, check=check)
    return local.apply("made", {}, files, check=check, prelude=prelude)


class TestFile:
    def test_is_planned_made_and_then_as_it_should_be(self, local, etc):
        path, params = etc / "x.conf", {"FILE": etc / "x.conf", "OWNER": "root", "GROUP": "root", "MODE": "0640", "SECRET": 0}
        content = {"content": 'a "quoted" \\ line\n\ttab\n'}
        before = tree(etc)
        planned = local.plan("file", params, content)
        assert planned.changes == [{"action": "create", "subject": f"file {path}", "detail": ['+ a "quoted" \\ line', "+ \ttab"]}]
        assert tree(etc) == before
        step = local.apply("file", params, content)
        assert step.changes == planned.changes
        assert path.read_text() == content["content"] and oct(path.stat().st_mode)[-4:] == "0640"
        assert f"create file {path}" in step.output and "+ a" in step.output
        assert local.plan("file", params, content).changes == []
        again = local.apply("file", params, content)
        assert again.changes == [] and "file" not in again.output
        again.undo()
        assert path.exists(), "a step that changed nothing undoes nothing"
        step.undo()
        step.undo()
        assert tree(etc) == before

    def test_each_drift_is_named_and_mended(self, local, etc):
        path, params = etc / "x.conf", {"FILE": etc / "x.conf", "OWNER": "root", "GROUP": "root", "MODE": "644", "SECRET": 0}
        content = {"content": "one\ntwo\nthree\n"}
        local.apply("file", params, content)
        drifts = {
            "content": (lambda: path.write_text("one\n2\nthree\n"), ["~ line 1", "  one", "- 2", "+ two", "  three"]),
            "mode": (lambda: path.chmod(0o666), ["~ mode 666 -> 644"]),
            "owner": (lambda: os.chown(path, 1, 0), ["~ owner daemon:root -> root:root"]),
            "link": (lambda: (path.unlink(), path.symlink_to("/etc/hostname")), ["~ a symbolic link to /etc/hostname -> a file"]),
        }
        for drift, detail in drifts.values():
            drift()
            seen = tree(etc)
            assert local.plan("file", params, content).changes == [{"action": "update", "subject": f"file {path}", "detail": detail}]
            step = local.apply("file", params, content)
            assert local.plan("file", params, content).changes == []
            step.undo()
            assert tree(etc) == seen
            local.apply("file", params, content)

    def test_a_secret_is_never_told(self, local, etc):
        params = {"FILE": etc / "key", "MODE": "600", "SECRET": 1}
        for content in ("canary-1\n", "canary-2\n"):
            planned, step = local.plan("file", params, {"content": content}), local.apply("file", params, {"content": content})
            assert "canary" not in str(planned.facts) + str(step.facts) + step.output + planned.output
        assert step.changes[0]["detail"] == ["~ the content differs"]

    def test_long_and_strange_content_is_cut_and_tidied(self, local, etc):
        text = "\x01{\"event\":\"closed\"}\x1b[2J\n" + "y" * 5000 + "\n" + "é\n" * 100
        step = local.apply("file", {"FILE": etc / "x"}, {"content": text.encode() + b"\xff\xfe\n"})
        detail = step.changes[0]["detail"]
        assert len(detail) == 41 and detail[-1] == "~ ... and 63 more lines" and "\x01" not in step.output
        assert max(map(len, detail)) <= 243
        assert (etc / "x").read_bytes().endswith(b"\xff\xfe\n")
        binary = local.apply("file", {"FILE": etc / "b"}, {"content": b"\0\1\2"})
        assert binary.changes[0]["detail"] == ["~ the content differs (not a text)"]
        assert local.plan("file", {"FILE": etc / "b"}, {"content": b"\0\1\2"}).changes == []

    def test_needs_its_directory_but_a_plan_goes_on_without(self, local, etc):
        params = {"FILE": etc / "not/there/x"}
        assert local.plan("file", params, {"content": "x\n"}).subjects == [f"create file {etc}/not/there/x"]
        step = local.apply("file", params, {"content": "x\n"}, check=False)
        assert step.status == 1 and "directory" in step.output
        step.undo()


class TestSymlinks:
    """A link in a directory of somebody else's must not lead us anywhere."""

    def test_in_a_directory_of_roots_it_is_followed_for_directories_only(self, local, etc):
        (etc / "real").mkdir(mode=0o755)
        (etc / "link").symlink_to("real")
        local.apply("file", {"FILE": etc / "link/x"}, {"content": "x\n"})
        assert (etc / "real/x").read_text() == "x\n" and (etc / "link").is_symlink()

    @pytest.mark.parametrize("mode, uid", [(0o777, 0), (0o1777, 0), (0o775, 0), (0o755, 1)])
    def test_elsewhere_it_is_refused(self, local, etc, mode, uid):
        (etc / "theirs").mkdir()
        (etc / "secret").mkdir()
        (etc / "theirs/link").symlink_to(etc / "secret")
        os.chown(etc / "theirs", uid, 1)
        (etc / "theirs").chmod(mode)
        for kind in ("ensure_file", "ensure_directory", "ensure_absent"):
            more = "" if kind == "ensure_absent" else f"{owner()} 700"
            for number in (0, None):
                step = steps(local, f"echo x | {kind} {etc}/theirs/link/x {more}", number, check=False)
                assert step.status == 1 and "symbolic link" in step.output
        assert list((etc / "secret").iterdir()) == []

    def test_a_file_that_is_a_link_is_replaced_not_followed(self, local, etc):
        (etc / "theirs").mkdir()
        os.chown(etc / "theirs", 1, 1)
        (etc / "shadow").write_text("canary\n")
        (etc / "theirs/keys").symlink_to(etc / "shadow")
        # The name that we use in between, put there by its owner.
        (etc / "theirs/.keys.orchestrate-new").symlink_to(etc / "shadow")
        before = tree(etc / "theirs")["keys"]
        step = local.apply("file", {"FILE": etc / "theirs/keys", "OWNER": "daemon", "GROUP": "daemon", "MODE": "600"}, {"content": "k\n"})
        assert "canary" not in step.output + str(step.facts)
        assert (etc / "shadow").read_text() == "canary\n" and (etc / "shadow").stat().st_uid == 0
        assert (etc / "theirs/keys").stat().st_uid == 1
        step.undo()
        assert tree(etc / "theirs") == {"keys": before}

    def test_a_path_that_climbs_is_refused(self, local, etc):
        for path in (f"{etc}/../x", "x", f"{etc}//x", f"{etc}/./x", f"{etc}/a\nb"):
            assert steps(local, f"echo x | ensure_file {shlex.quote(path)} {owner()} 600", check=False).status == 1


class TestDirectories:
    def test_made_mended_and_undone(self, local, etc):
        (etc / "old").mkdir(mode=0o755)
        before = tree(etc)
        script = f"ensure_directory {etc}/new daemon:daemon 0750\nensure_directory {etc}/new/sub root:root 700\nensure_directory {etc}/old 1:1 711"
        planned = steps(local, script, 0)
        assert tree(etc) == before
        assert planned.subjects == [f"create directory {etc}/new", f"create directory {etc}/new/sub", f"update directory {etc}/old"]
        assert planned.changes[2]["detail"] == ["~ owner root:root -> 1:1", "~ mode 755 -> 711"]
        step = steps(local, script)
        assert step.changes == planned.changes
        assert tree(etc)["new"][:3] == ("0o40750", 1, 1)
        assert steps(local, script).changes == []
        step.undo()
        assert tree(etc) == before

    def test_what_somebody_put_into_a_new_one_stays(self, local, etc):
        step = steps(local, f"ensure_directory {etc}/new root:root 700")
        (etc / "new/data").write_text("x")
        assert "stays" in step.undo().output
        assert (etc / "new/data").exists()


class TestAbsent:
    def test_goes_and_comes_back(self, local, etc):
        (etc / "x").write_text("x\n")
        (etc / "l").symlink_to("x")
        before = tree(etc)
        script = f"ensure_absent {etc}/x\nensure_absent {etc}/l\nensure_absent {etc}/none\nensure_absent {etc}/no/where"
        assert steps(local, script, 0).subjects == [f"delete file {etc}/x", f"delete file {etc}/l"]
        step = steps(local, script)
        assert tree(etc) == {}
        assert step.changes[0]["detail"] == ["- x"]
        assert steps(local, script).changes == []
        step.undo()
        assert tree(etc) == before


def test_would_change_looks_without_a_trace(local, etc):
    script = f"""
wanted() {{ echo x | ensure_file {etc}/x root:root 644; }}
if would_change wanted; then say 'it would'; else say 'it would not'; fi
[ ! -e {etc}/x ]
wanted
if would_change wanted; then say 'it would again'; fi"""
    step = steps(local, script)
    assert "it would\n" in step.output and "again" not in step.output
    assert step.subjects == [f"create file {etc}/x"]


class TestKilled:
    """A SIGKILL at every single program that apply, or undo, starts: undo comes back to what was."""

    PROGRAMS = ("mv", "sync", "chown", "chmod", "mkdir", "rm", "ln", "cat", "cp", "dd", "stat", "rmdir")

    def arm(self, local, counter, at):
        counter.write_text("0\n")
        for name in self.PROGRAMS:
            local.tool(name, f"""PATH={REAL}
read -r n <{counter}
n=$((n + 1))
echo $n >{counter}
if [ $n = {at} ]; then kill -KILL -$(ps -o pgid= -p $$ | tr -d ' ') ; fi
exec {name} "$@" """)

    def disarm(self, local):
        for name in self.PROGRAMS:
            (local.tools / name).unlink()

    def test_anywhere(self, local, etc, tmp_path):
        (etc / "a").write_text("old\n")
        (etc / "a").chmod(0o640)
        (etc / "link").symlink_to("a")
        (etc / "gone").write_text("gone\n")
        before = tree(etc)
        script = (f"echo new | ensure_file {etc}/a daemon:daemon 600\nensure_directory {etc}/d root:root 755\n"
                  f"echo x | ensure_file {etc}/d/x root:root 644\necho l | ensure_file {etc}/link root:root 644\nensure_absent {etc}/gone")
        counter = tmp_path / "counter"
        at, undo_at = 0, 0
        while True:
            at += 3
            self.arm(local, counter, at)
            step = steps(local, script, check=False, prelude="setsid -w")
            killed = int(counter.read_text()) == at
            # Undo itself is killed as well, each time at another place.
            undo_at = undo_at % 60 + 7
            self.arm(local, counter, undo_at)
            local.script(step.directory, "undo", check=False, prelude="setsid -w")
            self.disarm(local)
            step.undo()
            assert tree(etc) == before, f"killed at {at}, undo at {undo_at}"
            if not killed:
                assert step.status == 0
                break
        assert at > 60


class TestRevert:
    SCRIPT = """
arm_revert 60
echo new | ensure_file {etc}/x root:root 600"""

    @pytest.fixture
    def systemd(self, local, tmp_path):
        """systemd-run that keeps what it was told, systemctl that says what a file says."""
        (tmp_path / "state").write_text("inactive\n")
        local.tool("systemd-run", f'printf "%s\\n" "$@" >{tmp_path}/armed')
        local.tool("systemctl", f'echo "$*" >>{tmp_path}/asked; [ "$1" != show ] || cat {tmp_path}/state')
        return tmp_path

    def undo(self, local, step):
        local.write(f"{step.directory}/undo.sh", '. "$ORCH_BUNDLE/lib.sh"\n. "$ORCH_BUNDLE/system.sh"\nset -eu\ndisarm_revert\nrestore_files\n')

    def fire(self, local, systemd, step):
        """As systemd would: the armed command in its directory, with nothing but its environment."""
        lines = (systemd / "armed").read_text().splitlines()
        environment = [line.removeprefix("--setenv=") for line in lines if line.startswith("--setenv=")]
        command = lines[lines.index("/bin/sh"):]
        local.run(f"cd {step.directory} && env -i {shlex.join(environment)} {shlex.join(command)}")

    def test_is_the_steps_own_undo_with_its_environment(self, local, etc, systemd):
        step = steps(local, self.SCRIPT.format(etc=etc))
        self.undo(local, step)
        armed = (systemd / "armed").read_text()
        assert "--on-active=60\n" in armed and "--unit=orchestrate-revert-01-made\n" in armed
        assert (etc / "x").exists()
        self.fire(local, systemd, step)
        assert tree(etc) == {}
        assert "undone by the host" in local.read(f"{step.directory}/../log")
        number = int(step.directory.split("/")[-2])
        late = local.apply("disarm", {"STEP": "01-made"}, number=number, nn=2, check=False)
        assert late.status == 1 and "Too late" in late.output
        step.undo()

    def test_disarmed_in_time(self, local, etc, systemd):
        step = steps(local, self.SCRIPT.format(etc=etc))
        number = int(step.directory.split("/")[-2])
        assert local.apply("disarm", {"STEP": "01-made"}, number=number, nn=2).changes == []
        assert "stop orchestrate-revert-01-made.timer" in (systemd / "asked").read_text()
        (systemd / "state").write_text("activating\n")
        late = local.apply("disarm", {"STEP": "01-made"}, number=number, nn=3, check=False)
        assert late.status == 1 and "at this moment" in late.output
        assert local.apply("disarm", {"STEP": "07-other"}, number=number, nn=4, check=False).status == 1
        assert local.plan("disarm", {"STEP": "01-made"}).changes == []

    def test_one_that_cannot_be_armed_changes_nothing(self, local, etc, systemd):
        local.tool("systemd-run", "echo 'no bus' >&2; exit 1")
        step = steps(local, self.SCRIPT.format(etc=etc), check=False)
        assert step.status == 1 and "can't be armed" in step.output and tree(etc) == {}

    def test_a_plan_arms_nothing(self, local, etc, systemd):
        steps(local, self.SCRIPT.format(etc=etc), 0)
        assert not (systemd / "armed").exists()
