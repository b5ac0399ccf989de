"""Values in files (`@file`): the market bot whose database gets its password by POSTGRES_PASSWORD_FILE, and whose bot mounts it, too. In this order."""

import json

import pytest

from test_crashes import wait_for_step

APP = "market-bot"
pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def running(project):
    template = project.folder / "env.template"
    template.write_text(template.read_text().replace("DB_PASSWORD=${generate:32}", "# @file\nDB_PASSWORD=${generate:32}"))
    overlay = project.folder / "env.prod"
    overlay.write_text("LOG_LEVEL=DEBUG\n")
    inventory = project.folder / "inventories/prod.yml"
    inventory.write_text(inventory.read_text().replace("template: env.template", "template: [env.template, env.prod]"))
    compose = project.folder / "compose.prod.yml"
    text = compose.read_text()
    text = text.replace("POSTGRES_PASSWORD: ${DB_PASSWORD:?}", "POSTGRES_PASSWORD_FILE: /run/secrets/db_password\n    secrets: [db_password]")
    text = text.replace("      LOG_LEVEL: ${LOG_LEVEL:-INFO}\n", "      LOG_LEVEL: ${LOG_LEVEL:-INFO}\n    secrets: [db_password]\n")
    text += '\nsecrets:\n  db_password: { file: "${DB_PASSWORD_FILE}" }\n'
    assert text.count("secrets: [db_password]") == 2
    compose.write_text(text)
    playbook = project.folder / "playbooks/deploy.yml"
    playbook.write_text(playbook.read_text().replace("stable: 5s", "stable: 1s"))
    project.deploy("v1.0.0").expect(0)
    return project


def path(project) -> str:
    text = project.host(f"cat /opt/{APP}/current/.env")
    assert "\nDB_PASSWORD=" not in text
    return next(line for line in text.splitlines() if line.startswith("DB_PASSWORD_FILE=")).split("=", 1)[1]


def seen(project, service: str) -> str:
    """What the container's own user reads."""
    return project.host(f"docker exec {project.container(service)} cat /run/secrets/db_password")


def test_containers_read_it_and_nobody_else(running):
    password = running.host(f"cat {path(running)}")
    assert len(password) == 32 and seen(running, "bot") == seen(running, "postgres") == password
    assert running.host(f"docker inspect -f '{{{{.HostConfig.ReadonlyRootfs}}}} {{{{.Config.User}}}}' {running.container('bot')}").startswith("true")
    assert running.host(f"stat -c '%a %U' /opt/{APP}/secrets {path(running)}").splitlines() == ["700 deploy", "444 deploy"]
    running.host("id nobody >/dev/null && ! runuser -u nobody -- cat " + path(running), user="root")
    assert running.host(f"cat /opt/{APP}/current/.secrets") == f"DB_PASSWORD={password}"
    # The overlay: a name of the template with another value.
    assert "LOG_LEVEL=DEBUG" in running.host(f"docker inspect -f '{{{{json .Config.Env}}}}' {running.container('bot')}")
    # Where it lies says nothing about what it is.
    inspected = running.host(f"docker inspect {running.container('postgres')}")
    assert password not in inspected and path(running) in inspected


def test_an_unchanged_value_keeps_its_file(running):
    before, identities = path(running), (running.identity("bot"), running.identity("postgres"))
    assert "nothing to do" in running.deploy("v1.0.0").expect(0).text
    assert (running.identity("bot"), running.identity("postgres")) == identities
    running.deploy("v1.1.0").expect(0)
    assert path(running) == before and running.identity("postgres") == identities[1]
    assert running.host(f"ls /opt/{APP}/secrets").split() == [before.rsplit("/", 1)[1]]


def test_env_names_it(running):
    document = json.loads(running.run("env", "prod", "--json").expect(0).out)
    entry = next(entry for entry in document["entries"] if entry["name"] == "DB_PASSWORD")
    assert entry["secret"] and entry["origin"] == "host" and entry["difference"] == "same" and "value" not in entry
    assert not [entry for entry in document["entries"] if entry["name"] == "DB_PASSWORD_FILE"]


def test_a_rotation_gives_the_bot_another_file(running):
    before, database, old = path(running), running.identity("postgres"), seen(running, "bot")
    result = running.run("secrets", "rotate", "prod", "DB_PASSWORD", "--yes").expect(0)
    new = seen(running, "bot")
    assert new != old and old not in result.text and new not in result.text
    assert running.identity("postgres") == database and seen(running, "postgres") == old
    assert path(running) != before and running.host(f"cat {path(running)}") == new
    running.assert_answers("v1.1.0")
    # Both are needed, also after a deploy that prunes.
    running.deploy("v1.1.0").expect(0)
    running.deploy("v1.4.0").expect(0)
    assert sorted(running.host(f"ls -d /opt/{APP}/secrets/*").split()) == sorted([before, path(running)])
    running.host("systemctl restart docker", user="root")
    running.host(f"until docker exec $(docker ps -q --filter name=postgres) pg_isready -q -h 127.0.0.1; do sleep 0.5; done")
    running.assert_answers("v1.4.0")


def test_a_second_rotation_reaches_the_bot_too(running):
    """By now the bot's file has a name of its own, beside the one that the database keeps."""
    before, database, old = seen(running, "bot"), running.identity("postgres"), seen(running, "postgres")
    assert before != old
    running.run("secrets", "rotate", "prod", "DB_PASSWORD", "--yes").expect(0)
    new = seen(running, "bot")
    assert new not in (before, old) and running.host(f"cat {path(running)}") == new
    assert running.identity("postgres") == database and seen(running, "postgres") == old
    running.assert_answers("v1.4.0")
    assert "nothing to do" in running.deploy("v1.4.0").expect(0).text


def test_a_failed_rotation_leaves_no_file(running):
    before = running.host(f"ls /opt/{APP}/secrets")
    client = running.start("secrets", "rotate", "prod", "DB_PASSWORD", "--yes")
    wait_for_step(running, "recreate", client)
    client.terminate()
    out, err = client.communicate(timeout=120)
    assert client.returncode == 3, out + err
    assert running.host(f"ls /opt/{APP}/secrets") == before
    running.assert_answers("v1.4.0")


def test_what_is_in_files_is_masked(running):
    password = seen(running, "bot")
    running.host(f"docker exec {running.container('bot')} sh -c 'cat /run/secrets/db_password >/proc/1/fd/1; echo >/proc/1/fd/1'")
    assert password in running.host(f"docker logs --tail 50 {running.container('bot')} 2>&1")
    text = running.run("logs", "prod", "bot").expect(0).text
    assert text and password not in text


def test_going_back_keeps_the_present_file(running):
    """What was rotated since v1.0.0 ran was given up; the role takes the present one alone."""
    now, place, old = seen(running, "bot"), path(running), seen(running, "postgres")
    result = running.run("rollback", "prod", "v1.0.0", "--yes").expect(0)
    assert "DB_PASSWORD was rotated since v1.0.0 ran" in result.text and now not in result.text
    assert seen(running, "bot") == now != old and path(running) == place and seen(running, "postgres") == old
    assert running.host(f"cat /opt/{APP}/current/.secrets") == f"DB_PASSWORD={now}"
    running.assert_answers("v1.0.0")


def test_a_secret_of_the_env_file_reaches_the_migration_and_the_bot(running):
    """Compose takes it from the release's own .env, also where it was started ahead."""
    compose = running.folder / "compose.prod.yml"
    text = compose.read_text()
    # Compose writes such a secret into the container, whose root file system can't be read-only then.
    changed = text.replace("market-bot:${VERSION:?}\n", "market-bot:${VERSION:?}\n    read_only: false\n")
    changed = changed.replace("LOG_LEVEL:-INFO}\n    secrets: [db_password]", "LOG_LEVEL:-INFO}\n    secrets: [db_password, token]")
    changed += "  token: { environment: TELEGRAM_TOKEN }\n"
    assert changed.count("token]") == changed.count("read_only: false") == 1
    compose.write_text(changed)
    running.deploy("v1.4.0").expect(0)
    token = running.host(f"docker exec {running.container('bot')} sh -c 'cat /run/secrets/token; echo; echo $TELEGRAM_TOKEN'").split()
    assert len(token) == 2 and token[0] == token[1]
    compose.write_text(text)
    running.run("rollback", "prod", "--yes").expect(0)
    running.assert_answers("v1.0.0")
