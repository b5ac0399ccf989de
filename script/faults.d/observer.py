"""What must be true on a host that is quiet. Judges what probe.py has seen there; knows the product by docs/runner.md alone, and shares no code with it."""

import hashlib
import json
import re
from dataclasses import dataclass, field

from pathlib import Path

MARK = "faults-observer"  # what the observer's own processes and sessions are told apart by
PROBE = (Path(__file__).parent / "probe.py").read_text()
SERVICES = {"bot", "postgres", "redis"}
# Revisions of the schema that each version runs on: migrations only add (examples/market-bot/playbooks/deploy.yml).
ACCEPTS = {"v1.0.0": {"0001", "0002", "0003", "0004"}, "v1.1.0": {"0002", "0003", "0004"}}
# … and where a deployment of it may have left the schema.
LEAVES = {"v1.0.0": {"0001"}, "v1.1.0": {"0002"}, "v1.5.0-crashloop": {"0002", "0003", "0004"}}
# Files that live only as long as a deployment, a backup, a message or a write does.
TEMPORARY = re.compile(
    r"\.new(\.\d+)?$|\.partial|/attach\.\d+|/plan/\d+|/\.reserve$|/market-bot/(reserve|open|holder|runner\.pid|queue/.+)$|/deployments/\d+/(inbox|waiting)$"
    r"|/\.current\.new$|/releases/\.|/[0-9][0-9]-[^/]*/(password|wake)$|\.old$")


@dataclass
class Expected:
    """What the campaign knows from outside."""

    before: dict  # what the probe saw before the operation
    restarted: frozenset = frozenset()  # services that the fault itself may have restarted
    acknowledged: set = field(default_factory=set)  # sequence numbers of rows that the database has confirmed
    confirmed: list = field(default_factory=list)  # update ids of messages that the bot has told Telegram it has dealt with
    counts: dict = field(default_factory=dict)  # of Telegram's stand-in; empty: not looked at
    answered_twice: bool = False  # the bot was killed: it may have answered just before it could write that down
    container_ids: bool = True


def look(droplet: str) -> dict:
    """Everything that is true on the droplet now."""
    import subprocess

    from droplets import SETTINGS

    done = subprocess.run(
        ["docker", "-H", SETTINGS["DOCKER_HOST"], "exec", "-i", f"orchestrate-droplet-{droplet}", "python3", "-", "market-bot", MARK],
        input=PROBE, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise OSError(f"the droplet can't be looked at: {done.stderr[-400:]}")
    return json.loads(done.stdout)


def lines(text: str | None) -> list[dict]:
    return [json.loads(line) for line in (text or "").splitlines()]


def by_service(seen: dict) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for one in seen["containers"] or []:
        labels = one["Config"]["Labels"]
        if labels.get("com.docker.compose.project") == "market-bot" and labels.get("com.docker.compose.oneoff") == "False":
            found.setdefault(labels["com.docker.compose.service"], []).append(one)
    return found


def history_of(seen: dict) -> dict[int, dict]:
    return {line["number"]: line for line in lines(seen["history"])}


# Each gives what is wrong, a text each. Named as the campaign names a violation.

def current(seen, expected):
    name = seen["current"]
    if name is None or not re.fullmatch(r"releases/[1-9][0-9]*", name):
        yield f"current names {name}"
        return
    number = name.split("/")[1]
    if number not in seen["releases"]:
        yield f"current names release {number}, which isn't there"
        return
    document = json.loads(seen["releases"][number]["release.json"] or "{}")
    if str(document.get("number")) != number:
        yield f"release {number} calls itself {document.get('number')}"
    committed = [line["number"] for line in lines(seen["history"]) if line["outcome"] == "committed"]
    if not committed or str(max(committed)) != number:
        yield f"current names release {number}, the newest that was committed is {max(committed, default=None)}"


def releases(seen, expected):
    history = history_of(seen)
    for number in seen["releases"]:
        if not number.isdigit():
            yield f"releases/{number} is left"
        elif history.get(int(number), {}).get("outcome") != "committed":
            yield f"release {number} is there, its deployment: {history.get(int(number), {}).get('outcome', 'unknown')}"


def release_now(seen) -> tuple[dict, dict] | None:
    """release.json and effective.json of what current names."""
    texts = seen["releases"].get((seen["current"] or "").rpartition("/")[2])
    return (json.loads(texts["release.json"]), json.loads(texts["effective.json"])) if texts and texts["release.json"] and texts["effective.json"] else None


def containers(seen, expected):
    now = release_now(seen)
    if now is None or seen["containers"] is None:
        yield "Docker doesn't answer" if now else "there is no release to compare with"
        return
    release, effective = now
    there = by_service(seen)
    ours = [one for of_service in there.values() for one in of_service]
    for one in seen["containers"]:
        if one not in ours:
            yield f"container {one['Name']} ({one['State']['Status']}) is left"
        elif re.match(r"/[0-9a-f]{12}_", one["Name"]):
            yield f"container {one['Name']} has half a name"
    for service in set(effective["services"]) - set(there):
        yield f"{service} has no container"
    for service, of_service in there.items():
        if service not in effective["services"]:
            yield f"{service} isn't in the release"
            continue
        if len(of_service) > 1:
            yield f"{service} has {len(of_service)} containers"
        for one in of_service:
            if not one["State"]["Running"] or one["State"]["Paused"] or one["State"]["Restarting"]:
                yield f"{service} is {one['State']['Status']}"
            if one["HostConfig"]["RestartPolicy"]["Name"] != effective["services"][service].get("restart"):
                yield f"{service} has the restart policy {one['HostConfig']['RestartPolicy']['Name']}"


def images(seen, expected):
    now = release_now(seen)
    if now is None:
        return
    for service, of_service in by_service(seen).items():
        wanted = now[0]["images"].get(service, {}).get("id")
        for one in of_service:
            if one["Image"] != wanted:
                yield f"{service} runs image {one['Image'][:19]}, the release has {str(wanted)[:19]}"


def configuration(seen, expected):
    if seen["hashes"] is None:
        yield "Compose can't read the current release"
        return
    for service, of_service in by_service(seen).items():
        for one in of_service:
            if one["Config"]["Labels"].get("com.docker.compose.config-hash") != seen["hashes"].get(service):
                yield f"{service} runs with another Compose configuration than the release's"


def environment(seen, expected):
    now = release_now(seen)
    if now is None:
        return
    release, effective = now
    number = seen["current"].rpartition("/")[2]
    written = dict(line.split("=", 1) for line in (seen["releases"][number][".env"] or "").splitlines() if "=" in line and not line.startswith("#"))
    for name, wanted in release["env"].items():
        value = written.get(name, "")
        if value[:1] == value[-1:] and value[:1] in "'\"":
            value = value[1:-1]
        if hashlib.sha256(value.encode()).hexdigest() != wanted:
            yield f".env: {name} isn't the value that the release was made with"
    for service, of_service in by_service(seen).items():
        wanted = effective["services"].get(service, {}).get("environment") or {}
        for one in of_service:
            has = dict(pair.split("=", 1) for pair in one["Config"]["Env"] if "=" in pair)
            for name, value in wanted.items():
                if has.get(name) != value:
                    yield f"{service}: the container's {name} isn't the release's"


def password(seen, expected):
    if not seen["lets_in"]:
        yield "PostgreSQL doesn't let in who has the release's password"
    written = (seen["releases"].get((seen["current"] or "").rpartition("/")[2]) or {}).get(".env") or ""
    for line in (seen["generated"] or "").splitlines():
        if line and line not in written.splitlines():
            yield f"generated.env has another {line.partition('=')[0]} than the release"


def mounts(seen, expected):
    now = release_now(seen)
    if now is None:
        return
    for service, of_service in by_service(seen).items():
        wanted = {volume["source"] for volume in now[1]["services"].get(service, {}).get("volumes") or [] if volume["type"] == "bind"}
        for one in of_service:
            has = {mount["Source"] for mount in one["Mounts"] if mount["Type"] == "bind"}
            if has != wanted:
                yield f"{service} mounts {sorted(has)}, the release says {sorted(wanted)}"
    for name, content in expected.before["files"].items():
        if seen["files"].get(name, content) != content:
            yield f"files/{name[:12]} has changed"
    for wanted in now[0].get("files", {}).values():
        if wanted not in seen["files"]:
            yield f"files/{wanted[:12]}, which the release mounts, isn't there"


def schema(seen, expected):
    now = release_now(seen)
    if seen["revision"] is None or len(seen["revision"]) != 1:
        yield f"the schema's revision: {seen['revision']}"
        return
    [revision] = seen["revision"]
    if now and revision not in ACCEPTS.get(now[0]["version"], set()):
        yield f"{now[0]['version']} doesn't run on the schema's revision {revision}"
    # What the deployments since then say about it. One that was undone leaves what its migration has added, under the policy `compatible`.
    possible = set(expected.before["revision"] or ())
    known = {line["number"] for line in lines(expected.before["history"])}
    for line in lines(seen["history"]):
        told = line["facts"].get("migrate", {}).get("after")
        if line["number"] not in known and line["command"] == "deploy":
            if line["outcome"] == "committed":
                possible = {told}
            elif '"started"' in (journal := seen["journals"].get(str(line["number"]), "")) and "-migrate\"" in journal:
                possible |= LEAVES[line["version"]]
    if revision not in possible:
        yield f"the schema is at {revision}; by the history it should be at {' or '.join(sorted(map(str, possible)))}"


def poller(seen, expected):
    running = [one for one in seen["containers"] or [] if one["Config"]["Cmd"] == ["python3", "-m", "market_bot"] and one["State"]["Running"]]
    if len(running) != 1:
        yield f"{len(running)} containers poll Telegram"
    if expected.counts.get("conflicts"):
        yield f"two polled at once, {expected.counts['conflicts']} times"


def health(seen, expected):
    now = release_now(seen)
    if seen["health"] is None:
        yield "the bot doesn't answer on /health, or says that it isn't well"
    elif now and json.loads(seen["health"])["version"] != now[0]["version"]:
        yield f"/health answers as {json.loads(seen['health'])['version']}, current is {now[0]['version']}"
    elif json.loads(seen["health"])["status"] != "healthy":
        yield f"/health says {json.loads(seen['health'])['reasons']}"


def rows(seen, expected):
    if seen["rows"] is None:
        yield "the database can't be read"
        return
    if lost := sorted(number for number in expected.acknowledged if str(number) not in seen["rows"]):
        yield f"{len(lost)} acknowledged rows are missing, the first: {lost[0]}"
    if twice := [number for number, count in seen["rows"].items() if count > 1]:
        yield f"{len(twice)} rows are there twice, one of them {twice[0]}"


def messages(seen, expected):
    if seen["messages"] is None:
        yield "the database can't be read"
        return
    if lost := [number for number in expected.confirmed if not seen["messages"].get(str(number))]:
        yield f"{len(lost)} messages that the bot confirmed aren't in the database as answered, one of them {lost[0]}"
    if expected.counts.get("unanswered"):
        yield f"{expected.counts['unanswered']} of {expected.counts['sent']} messages were never answered"
    if expected.counts.get("answered_twice") and not expected.answered_twice:
        yield f"{expected.counts['answered_twice']} messages were answered twice"


def restarts(seen, expected):
    for service in ("postgres", "redis"):
        if service in expected.restarted:
            continue
        was, now = ({(one["Id"], one["State"]["StartedAt"]) for one in by_service(look).get(service, [])} for look in (expected.before, seen))
        if was != now:
            yield f"{service} was restarted"
    for service in ("postgres", "redis"):
        was, now = ({one["Id"] for one in by_service(look).get(service, [])} for look in (expected.before, seen))
        if was != now:
            yield f"{service} was recreated"


def lock(seen, expected):
    for name, free in seen["locks"].items():
        if not free:
            yield f"the lock ({name}) is held"
    for name, content in seen["state"].items():
        if content is not None:
            yield f"the file {name} is left: {content[:80]}"


def processes(seen, expected):
    for line in seen["processes"]:
        yield f"still runs: {line}"
    for session in seen["sessions"] or []:
        yield f"session left in PostgreSQL: {session}"


def units(seen, expected):
    for name in seen["units"]:
        yield f"unit {name} is left"
    for name in seen["timers"]:
        yield f"timer of {name} is armed"


def temporary(seen, expected):
    for path, _, kind, _ in seen["tree"]:
        if TEMPORARY.search(path):
            yield f"left: {path}"
    for path in seen["memory"]:
        yield f"left in memory: {path}"


def journals(seen, expected):
    history = {}
    try:
        for line in lines(seen["history"]):
            if line["number"] in history:
                yield f"history.jsonl has deployment {line['number']} twice"
            history[line["number"]] = line
    except (ValueError, KeyError) as error:
        yield f"history.jsonl: {error}"
    for number, text in seen["journals"].items():
        if not number.isdigit():
            yield f"deployments/{number} is left"
            continue
        try:
            events = lines(text)
        except ValueError as error:
            yield f"journal {number} isn't JSON lines: {error}"
            continue
        if not events or not text.endswith("\n"):
            yield f"journal {number} ends in the middle of a line" if events else f"journal {number} is empty"
        elif events[-1]["event"] != "closed":
            yield f"deployment {number} is open: its journal ends with {events[-1]['event']}"
        elif (told := history.get(int(number), {}).get("outcome")) != events[-1]["outcome"]:
            yield f"deployment {number}: the journal says {events[-1]['outcome']}, the history {told}"
        elif sum(event["event"] == "closed" for event in events) > 1:
            yield f"deployment {number} was closed more than once"
    if (highest := max([*history, *(int(number) for number in seen["journals"] if number.isdigit())], default=0)) != int(seen["sequence"] or 0):
        yield f"sequence says {seen['sequence']}, the highest number is {highest}"


def secrets(seen, expected):
    for path, mode in seen["secrets"]:
        if path.startswith("/tmp/runc-process"):  # Docker's own, while it starts a process in a container
            continue
        if mode & 0o077:
            yield f"{path} holds a secret and has the mode {mode:o}"
        if "/deployments/" in path or path.startswith(("/tmp/", "/dev/shm/", "/run/", "/home/", "/root/")):
            yield f"{path} holds a secret"
    for path, mode, kind, _ in seen["tree"]:
        if kind == 8 and mode & 0o077 and re.search(r"/\.env$|/generated\.env$|\.dump$|journal\.jsonl$|history\.jsonl$", path):
            yield f"{path} has the mode {mode:o}"


def backups(seen, expected):
    for name, content in seen["backups"].items():
        if name.endswith(".dump"):
            receipt = json.loads(seen["backups"].get(name.removesuffix(".dump") + ".json") or "{}")
            if receipt.get("sha256") != content:
                yield f"the restore point {name} and its receipt don't agree"
        elif name.endswith(".json"):
            if name.removesuffix(".json") + ".dump" not in seen["backups"]:
                yield f"the receipt {name} has no restore point"
        else:
            yield f"backups/{name} is left"


def leftovers(seen, expected):
    named = {image["tag"] for texts in seen["releases"].values() for image in json.loads(texts["release.json"] or "{}").get("images", {}).values()}
    for tag in set(seen["tags"]) - named:
        yield f"the image {tag} belongs to no release"
    for tag in named - set(seen["tags"]):
        yield f"the image {tag} of a release isn't there"
    for what in ("volumes", "networks"):
        if set(seen[what]) != set(expected.before[what]):
            yield f"{what} were {expected.before[what]}, are {seen[what]}"


INVARIANTS = (current, releases, containers, images, configuration, environment, password, mounts, schema, poller, health, rows, messages, restarts, lock,
              processes, units, temporary, journals, secrets, backups, leftovers)


def judge(seen: dict, expected: Expected, invariants=INVARIANTS) -> list[tuple[str, str]]:
    """Every violation, as the invariant's name and what is wrong."""
    found = []
    for invariant in invariants:
        try:
            found += [(invariant.__name__, text) for text in invariant(seen, expected)]
        except (ValueError, KeyError, TypeError) as error:  # what can't be read is wrong too
            found.append((invariant.__name__, f"can't be judged: {type(error).__name__}: {error}"))
    return found
