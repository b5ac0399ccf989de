"""release, seal's and pull's undo, commit and prune with a scripted docker, under dash and busybox."""
import json

import pytest
from conftest import Project, images_yml, quote, release_json

COMPOSE = "services:\n  bot: { image: x }\n"
PROJECT = {"compose.yml": COMPOSE, "playbook.yml": "steps: []\n", "project/redis.conf": "save 60\n", "project/nginx/conf.d/a b.conf": "server {}\n"}


def image(service, hexdigit):
    return {"reference": f"registry/{service}:v{hexdigit}", "digest": "sha256:" + hexdigit * 64, "id": "sha256:" + hexdigit * 63 + "0",
            "tag": f"orchestrate/shop/{service}:{hexdigit * 12}"}


def make_release(project, number, previous=0, committed=True, images=None, mounts=()):
    release = f"{project.opt}/releases/{number}"
    project.machine.write(f"{release}/release.json", release_json(number, previous))
    project.machine.write(f"{release}/images.yml", images_yml(**(images or {})))
    sources = [{"type": "bind", "source": f"{project.opt}/files/{m}/redis.conf"} for m in mounts]
    project.machine.write(f"{release}/effective.json", json.dumps({"services": {"bot": {"volumes": sources}}}))
    for m in mounts:
        project.machine.write(f"{project.opt}/files/{m}/redis.conf", "x")
    if committed:
        project.commit(number)
    else:
        project.machine.write(f"{project.state}/deployments/{number}/journal.jsonl",
                              '{"event":"opened","number":%d}\n{"event":"closed","outcome":"undone"}\n' % number)


def names(project, folder):
    return sorted(project.machine.sh(f"ls -A {quote(project.opt)}/{folder}").split())


class TestRelease:
    def test_lays_the_release_down(self, local):
        project = Project(local)
        step = project.deployment(1).step("release", {"COPY_OF": "", "COMPOSE_DIR": "deploy/prod"}, {**PROJECT, "project/deploy/prod/x": "y"})
        step.apply()
        release = step.deployment.release
        assert local.read(f"{release}/compose.yml") == COMPOSE
        assert local.read(f"{release}/project/nginx/conf.d/a b.conf") == "server {}\n"
        assert local.sh(f"stat -c %a {quote(release)} {quote(release)}/project/redis.conf {quote(release)}/compose.yml").split() == ["750", "644", "600"]
        local.write(f"{release}/.env", "A=1\n")
        assert local.read(f"{release}/project/deploy/prod/.env") == "A=1\n"
        assert names(project, "releases") == ["1"]

    def test_again_and_undone_from_anywhere(self, local):
        project = Project(local)
        make_release(project, 1)
        before = project.tree()
        step = project.deployment(2).step("release", {"COPY_OF": "", "COMPOSE_DIR": ""}, PROJECT)
        step.undo()
        assert project.tree() == before
        for command in ["true", f"mkdir -p {quote(step.deployment.release)}.new/project", f"mkdir -p {quote(step.deployment.release)}"]:
            local.run(command)
            step.undo()
            step.undo()
            assert project.tree() == before
        step.apply()
        step.apply()
        assert project.tree() != before
        step.undo()
        step.undo()
        assert project.tree() == before

    def test_a_cut_short_apply_is_made_whole(self, local):
        project = Project(local)
        step = project.deployment(1).step("release", {"COPY_OF": "", "COMPOSE_DIR": ""}, PROJECT)
        local.write(f"{step.deployment.release}.new/half", "x")
        step.apply()
        assert not local.exists(f"{step.deployment.release}/half") and not local.exists(f"{step.deployment.release}.new")

    def test_undo_never_takes_the_current_release(self, local):
        project = Project(local)
        step = project.deployment(1).step("release", {"COPY_OF": "", "COMPOSE_DIR": ""}, PROJECT)
        step.apply()
        project.commit(1)
        status, output = step.undo(check=False)
        assert status == 1 and "current" in output
        assert local.exists(f"{step.deployment.release}/compose.yml")

    def test_undo_removes_a_password_that_pull_never_used(self, local):
        project = Project(local)
        deployment = project.deployment(1)
        deployment.step("pull", {}, {"password": "canary"}, number=4)
        deployment.step("release").undo()
        assert not local.exists(f"{deployment.directory}/04-pull/password")

    def test_rollback_copies(self, local):
        project = Project(local)
        one = image("bot", "1")
        local.images.write_text(f"{one['tag']} {one['id']}\n")
        make_release(project, 1, images={"bot": one})
        local.write(f"{project.opt}/releases/1/.env", "A=old\n")
        make_release(project, 2, previous=1)
        step = project.deployment(3).step("release", {"COPY_OF": "1", "COMPOSE_DIR": ""}, {"release.json": release_json(3, 0, copyOf=1)})
        step.apply()
        assert local.read(f"{step.deployment.release}/.env") == "A=old\n"
        assert json.loads(local.read(f"{step.deployment.release}/release.json"))["copyOf"] == 1
        assert json.loads(local.read(f"{project.opt}/releases/1/release.json"))["number"] == 1

    def test_rollback_with_values_that_were_rotated_since(self, local):
        """Its env file is written anew; values in files lie there already, or are made, and go with the undo."""
        project = Project(local)
        one = image("bot", "1")
        local.images.write_text(f"{one['tag']} {one['id']}\n")
        make_release(project, 1, images={"bot": one})
        local.write(f"{project.opt}/releases/1/.env", "A=old\n")
        local.write(f"{project.opt}/releases/1/.secrets", "K=old\nL=old\n")
        make_release(project, 2, previous=1)
        local.write(f"{project.opt}/secrets/K.2", "present", 0o444)
        local.run(f"chmod 700 {quote(project.opt)}/secrets")
        before = project.tree()
        files = {"release.json": release_json(3, 0, copyOf=1), "env": "A=new\n", "secrets": "K=present\nL=new\n", "files/K.2": "other", "files/L.3": "new"}
        step = project.deployment(3).step("release", {"COPY_OF": "1", "COMPOSE_DIR": ""}, files)
        step.apply()
        step.apply()
        release = step.deployment.release
        assert local.read(f"{release}/.env") == "A=new\n" and local.read(f"{release}/.secrets") == "K=present\nL=new\n"
        assert local.read(f"{project.opt}/secrets/K.2") == "present" and local.read(f"{project.opt}/secrets/L.3") == "new"
        assert local.sh(f"stat -c %a {quote(release)}/.env {quote(release)}/.secrets {quote(project.opt)}/secrets/L.3").split() == ["600", "600", "444"]
        assert local.read(f"{project.opt}/releases/1/.env") == "A=old\n"
        step.undo()
        step.undo()
        assert project.tree() == before
        # What it goes back to had values in files, and the present ones aren't: none is left.
        step = project.deployment(4).step("release", {"COPY_OF": "1", "COMPOSE_DIR": ""}, {"release.json": release_json(4), "env": "A=new\n"})
        step.apply()
        assert not local.exists(f"{step.deployment.release}/.secrets")

    def test_rollback_to_pruned_images_says_so_before_anything(self, local):
        project = Project(local)
        make_release(project, 1, images={"bot": image("bot", "1")})
        make_release(project, 2, previous=1)
        before = project.tree()
        step = project.deployment(3).step("release", {"COPY_OF": "1", "COMPOSE_DIR": ""}, {"release.json": release_json(3, 0)})
        status, output = step.apply(check=False)
        assert status == 1 and "orchestrate/shop/bot:111111111111" in output and "pruned" in output
        step.undo()
        assert project.tree() == before

    def test_rollback_to_a_release_that_is_gone(self, local):
        project = Project(local)
        make_release(project, 2)
        status, output = project.deployment(3).step("release", {"COPY_OF": "1", "COMPOSE_DIR": ""}).apply(check=False)
        assert status == 1 and "not on the host" in output


class TestUndo:
    def test_pull_removes_only_tags_of_its_own(self, local):
        project = Project(local)
        one, two = image("bot", "1"), image("bot", "2")
        local.images.write_text(f"{one['tag']} {one['id']}\n{two['tag']} {two['id']}\nregistry/bot:v2 {two['id']}\n")
        make_release(project, 1, images={"bot": one})
        step = project.deployment(2).step("pull", {}, {"tags": f"{two['tag']}\n{one['tag']}\n", "password": "canary"})
        step.undo()
        assert local.images.read_text() == f"{one['tag']} {one['id']}\nregistry/bot:v2 {two['id']}\n"
        step.undo()
        assert not local.exists(f"{step.directory}/password")

    def test_pull_without_an_apply(self, local):
        project = Project(local)
        project.deployment(2).step("pull").undo()

    def test_seal_leaves_files_that_another_release_mounts(self, local):
        project = Project(local)
        mine, shared = "a" * 64, "b" * 64
        make_release(project, 1, mounts=[shared])
        before = project.tree()
        make_release(project, 2, committed=False, mounts=[mine, shared])
        local.run(f"mkdir -p {quote(project.opt)}/files/{'c' * 64}.new")
        step = project.deployment(2).step("seal", {}, {"created": f"{mine}\n{shared}\n"})
        step.undo()
        step.undo()
        local.run(f"rmdir {quote(project.opt)}/releases/2")
        assert project.tree() == before

    def test_env_without_an_apply(self, local):
        project = Project(local)
        project.deployment(2).step("env").undo()


class TestCommit:
    def test_raises_the_policies_and_ignores_what_is_gone(self, local):
        project = Project(local)
        deployment = project.deployment(1)
        local.write(f"{deployment.directory}/restart-policies", "abc unless-stopped\ngone always\ndef on-failure:3\n")
        step = deployment.step("commit", {"IDENTITY": "prod shop"})
        step.apply()
        step.apply()
        calls = local.read(f"{local.base}/calls").splitlines()
        assert calls[:3] == ["update --restart=unless-stopped abc", "update --restart=always gone", "update --restart=on-failure:3 def"]
        assert local.read(f"{project.state}/identity") == "prod shop\n"

    def test_without_policies(self, local):
        Project(local).deployment(1).step("commit", {"IDENTITY": "prod shop"}).apply()


class TestPrune:
    def run(self, project, number, **params):
        return project.deployment(number).step("prune", {"RELEASES": 3, "IMAGES": 1, "LOGS_SECONDS": 604800, **params}).apply()[1]

    def test_keeps_the_newest_that_passed_and_the_way_back(self, local):
        project = Project(local)
        for number in (1, 2, 3, 4, 5):
            make_release(project, number, previous=number - 1)
        make_release(project, 6, previous=5, committed=False)
        make_release(project, 7, previous=1)  # a rollback's `previous` is far back
        self.run(project, 7, RELEASES=3)
        assert names(project, "releases") == ["1", "5", "7"]

    def test_keeps_current_and_previous_whatever_the_number(self, local):
        project = Project(local)
        for number in (1, 2, 3):
            make_release(project, number, previous=number - 1)
        self.run(project, 3, RELEASES=1)
        assert names(project, "releases") == ["2", "3"]

    def test_an_open_or_stuck_deployment_keeps_its_release(self, local):
        project = Project(local)
        make_release(project, 1, committed=False)
        local.write(f"{project.state}/deployments/1/journal.jsonl", '{"event":"opened","number":1}\n{"event":"closed","outcome":"stuck"}\n')
        make_release(project, 2, committed=False)
        local.write(f"{project.state}/deployments/2/journal.jsonl", '{"event":"opened","number":2}\n')
        make_release(project, 3)
        self.run(project, 4, RELEASES=1)
        assert names(project, "releases") == ["1", "2", "3"]
        stuck = local.read(f"{project.state}/deployments/1/journal.jsonl")
        local.write(f"{project.state}/deployments/1/journal.jsonl", stuck + '{"event":"closed","outcome":"abandoned"}\n')
        self.run(project, 4, RELEASES=1)
        assert names(project, "releases") == ["2", "3"]

    def test_without_a_current_release_nothing_goes(self, local):
        project = Project(local)
        make_release(project, 1, committed=False)
        assert "nothing is removed" in self.run(project, 2)
        assert names(project, "releases") == ["1"]

    def test_files_images_records_and_logs(self, local):
        project = Project(local)
        one, two, three, shared = image("bot", "1"), image("bot", "2"), image("bot", "3"), image("postgres", "9")
        moved = {**one, "reference": "registry/bot:moved"}
        local.images.write_text("".join(f"{i['tag']} {i['id']}\n{i['reference']} {i['id']}\n" for i in (one, two, three, shared)) +
                                f"registry/bot:moved sha256:other\norchestrate/shop/left:aaaaaaaaaaaa sha256:left\n")
        make_release(project, 1, images={"bot": one, "worker": moved, "postgres": shared}, mounts=["a" * 64, "c" * 64])
        make_release(project, 2, previous=1, images={"bot": two, "postgres": shared}, mounts=["b" * 64, "c" * 64])
        make_release(project, 3, previous=2, images={"bot": three, "postgres": shared}, mounts=["c" * 64])
        for age, name in (("10 days ago", "old"), ("1 hour ago", "new")):
            local.write(f"{project.state}/logs/bot/{name}.log", "x")
            local.run(f"touch -d {quote(age)} {quote(project.state)}/logs/bot/{name}.log")
        self.run(project, 3, RELEASES=2)
        assert names(project, "releases") == ["2", "3"]
        assert names(project, "files") == ["b" * 64, "c" * 64]
        assert sorted(line.split()[0] for line in local.images.read_text().splitlines()) == sorted(
            [*(i[k] for i in (two, three, shared) for k in ("tag", "reference")), "registry/bot:moved"])
        assert sorted(local.sh(f"ls {quote(project.state)}/deployments").split()) == ["2", "3"]
        assert local.sh(f"ls {quote(project.state)}/logs/bot").split() == ["new.log"]
        before = project.tree()
        self.run(project, 3, RELEASES=2)
        assert project.tree() == before

    def test_bundles_that_nobody_refers_to(self, local):
        project = Project(local)
        make_release(project, 1)
        other = f"{local.base}/state/other"
        bundles = f"{local.base}/state/bundle"
        local.write(f"{project.state}/deployments/1/bundle", "a1\n")
        local.write(f"{other}/deployments/7/bundle", "b2\n")
        local.run(f"ln -s ../bundle/c3 {quote(other)}/bundle")
        for name in ("a1", "b2", "c3", "d4", "e5", ".new.123"):
            local.write(f"{bundles}/{name}/lib.sh", "x")
        local.write(f"{bundles}/.new.123.tar", "half")
        local.run(f"cd {quote(bundles)} && touch -d '2 days ago' a1 b2 c3 d4 .new.123 .new.123.tar")
        self.run(project, 1)
        assert local.sh(f"ls -A {quote(bundles)}").split() == ["a1", "b2", "c3", "e5"]

    def test_bundles_stay_where_a_project_cannot_be_read(self, local):
        project = Project(local)
        make_release(project, 1)
        bundles = f"{local.base}/state/bundle"
        local.write(f"{bundles}/d4/lib.sh", "x")
        local.run(f"touch -d '2 days ago' {quote(bundles)}/d4; mkdir -p {quote(local.base)}/state/other/deployments/7/bundle")
        self.run(project, 1)
        assert local.exists(f"{bundles}/d4")

    def test_a_docker_that_fails_is_a_warning(self, local):
        project = Project(local)
        make_release(project, 1)
        local.run(f"printf '#!/bin/sh\\necho broken >&2\\nexit 1\\n' >{quote(local.path_prefix[:-1])}/docker")
        assert "warning" in self.run(project, 1)
