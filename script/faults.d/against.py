"""The same faults against what people use instead: the careful bash script of `script/bench deploy` (script/faults --against bash), and what is known of
Kamal beside it.

A seed means the same fault, and the same instant where the script has one. The observer is the same; of its invariants those are left out that only the
product's own files can break, and secrets and backups, of which a script may leave some anywhere: that is in its favour."""

import contextlib
import json
import os
import re
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import observer
import runs
from droplets import PASSWORD, ROOT, SETTINGS, assignments, sandbox
from rig import APP, NEW, OLD, Broken, Client, Rig

STEPS = {"deploy": ["lock", "preflight", "release", "env", "pull", "backup", "migrate", "recreate", "health", "commit"],
         "rollback": ["lock", "preflight", "recreate", "health", "commit"]}
SECONDS = {"deploy": 5.5, "rollback": 3.5}  # undisturbed
QUIET = 60  # seconds beyond the lease in which the host must come to rest
# Left out: current, releases, journals, units, temporary, secrets, backups, leftovers.
INVARIANTS = (
    observer.containers, observer.images, observer.configuration, observer.environment, observer.password, observer.mounts, observer.schema, observer.poller,
    observer.health, observer.rows, observer.messages, observer.restarts, observer.lock, observer.processes)
# What the observer wants of a release, put together from the script's own files: the effective configuration, and the images by service.
RELEASE = """
app=$1
cd /opt/$app
release=$(readlink current)
compose() { docker compose -p "$app" --project-directory /opt/$app/shared -f "$release/compose.yml" --env-file "$release/.env" config "$@"; }
compose --format json
printf '\\0'
compose --hash '*'
printf '\\0'
for image in $(compose --images); do
  docker image inspect -f "$image {{.Id}}" "$image"
done
"""


def case(seed: int, faults: list, lease: int) -> runs.Case:
    """What the seed means for the product, with the first of its faults alone, and a deploy where the script has no such operation."""
    one = runs.case(seed, faults, lease)
    operation = one.operation if one.operation in STEPS else "deploy"
    instant = one.instant
    if not instant.event:
        instant = replace(instant, seconds=instant.seconds * SECONDS[operation] / runs.SECONDS[one.operation])
    return replace(one, operation=operation, faults=one.faults[:1], instant=instant)


def printed(event: str, operation: str) -> str:
    """The step whose time the script has printed when it is where the product has that event."""
    steps = STEPS[operation]
    word, _, step = event.partition(" ")
    if word in ("undoing", "undone"):  # of a version that doesn't work: there the gate is where it shows
        return "recreate"
    if word in ("committing", "committed") or step in ("commit", "prune"):
        return "health"
    if not step:
        return "lock"
    if step in ("migrate-probe", "seal"):  # a part of the script's next step
        return "pull"
    if step not in steps:
        return "preflight"
    return step if word == "ended" else steps[steps.index(step) - 1]


class ScriptClient(Client):
    """The bash script, with its ssh: one process group."""

    without_terminal = {"process_group": 0}

    def signal(self, number: int):
        """A SIGTERM is meant for the script alone; whatever else comes hits its ssh as well, as from a terminal or with the machine."""
        if number == signal.SIGTERM:
            return self.signal_alone(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        status = super().wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:  # its ssh may outlive it
                os.killpg(self.process.pid, 0)
                time.sleep(0.05)
        self.signal(signal.SIGKILL)
        return status


class ScriptRig(Rig):
    def version(self) -> str:
        with contextlib.suppress(OSError):
            opt = self.disk / f"opt/{APP}"
            written = assignments((opt / os.readlink(opt / "current") / ".env").read_text())
            return written["VERSION"]
        return ""

    def client(self, *arguments: str, terminal: bool = False) -> ScriptClient:
        script, *rest = arguments
        project = SimpleNamespace(folder=self.project.folder, env=self.project.env, binary=ROOT / "script/bench.d" / script)
        return ScriptClient(project, *rest, terminal=terminal, TMPDIR=str(self.project.folder))

    def arguments(self, operation: str, version: str = "") -> list[str]:
        folder = self.project.folder
        line = ["--project", str(folder), "--host", "127.0.0.1", "--port", self.line.port, "--key", SETTINGS["SANDBOX_KEY"],
                "--known-hosts", str(folder / "known_hosts"), "--stable", "1"]
        if operation == "rollback":
            return ["peer-rollback.sh", *line, version or OLD]
        password = folder / "registry-password"
        password.write_text(PASSWORD + "\n")
        return ["peer-deploy.sh", *line, "--registry", SETTINGS["REGISTRY"], "--registry-user", SETTINGS["REGISTRY_USER"],
                "--registry-password-file", str(password), "--set", f"TELEGRAM_TOKEN={self.project.telegram.token}",
                "--set", f"TELEGRAM_API={SETTINGS['TELEGRAM_API']}", version or NEW]

    def operate(self, operation: str, version: str = "") -> None:
        client = self.client(*self.arguments(operation, version))
        status = client.wait(240)
        if status != 0:
            raise Broken(f"the script's {operation} {version}: exit status {status}\n{(client.text['stdout'] + client.text['stderr'])[-3000:]}")


def look(rig) -> dict:
    """What the observer wants to see, with a release as the script has it."""
    seen = observer.look(rig.droplet)
    number = (seen["current"] or "").rpartition("/")[2]
    if number in seen["releases"]:
        effective, hashes, ids = rig.root(RELEASE, APP).split("\0")
        by_image = dict(line.split() for line in ids.splitlines())
        images = {service: {"id": by_image.get(one["image"])} for service, one in json.loads(effective)["services"].items()}
        document = {"number": int(number), "version": rig.version(), "images": images, "env": {}}
        seen["releases"][number] |= {"release.json": json.dumps(document), "effective.json": effective}
        seen["hashes"] = dict(line.split() for line in hashes.splitlines())
    return seen


def wait_for(instant: runs.Instant, operation: str, client) -> bool:
    """False: the client ended first."""
    step = printed(instant.event, operation) if instant.event else ""
    while client.alive():
        if step and f"peer: {step} " in client.text["stdout"]:
            time.sleep(instant.seconds)
            return client.alive()
        if not step and time.time() - client.began >= instant.seconds:
            return True
        time.sleep(0.004)
    return False


def truth(status, version: str, operation: str, fault) -> str:
    """What is wrong with what the client said; empty: nothing. A death by a signal says nothing, nor does ssh's of one; and 255 doesn't where nothing could
    be known."""
    if status is None:
        return "the client hangs"
    if status < 0 or status > 128 and (fault.interrupts or fault.client_dies or fault.may_not_know):
        return ""
    wanted = NEW if operation == "deploy" else OLD
    if status == 0 and version != wanted:
        return f"exit status 0, and current is {version}"
    return f"exit status {status}, and current is {version}, the new one" if status != 0 and version == wanted else ""


class Against(runs.Campaign):
    invariants = INVARIANTS

    def look(self, rig):
        return look(rig)

    def expected(self, case, before):
        expected = runs.expected_after(case, before)
        if case.operation == "deploy":  # its migration only adds: it may stay
            expected.before = {**before, "revision": [*before["revision"], *observer.LEAVES[NEW]]}
        return expected

    def new_rig(self, droplet, folder):
        folder.mkdir()
        rig = ScriptRig(droplet, folder, Path(), self.options.lease)
        rig.prepare()
        return rig

    def quiet(self, rig) -> bool:
        """Waits until nothing of the script's runs on the host any more."""
        limit = time.time() + rig.lease + QUIET
        while time.time() < limit:
            seen = observer.look(rig.droplet)
            if not [*observer.processes(seen, None), *observer.lock(seen, None)]:
                return True
            time.sleep(0.3)
        return False

    def run(self, rig, case) -> dict:
        fault = case.faults[0]
        before = self.begin(rig, case)
        client = rig.client(*rig.arguments(case.operation), terminal=fault.terminal)
        late = not wait_for(case.instant, case.operation, client)
        if late and client.wait(1) != 0:
            raise Broken(f"the script failed by itself: {(client.text['stdout'] + client.text['stderr'])[-3000:]}")
        broken = time.time()
        at = (re.findall(r"peer: (\S+) ", client.text["stdout"]) or ["the start"])[-1]
        fault.inject(rig, client, Random(case.seed * 7919))
        status = client.wait(rig.lease + 170)
        fault.mend(rig)
        violations = [] if self.quiet(rig) else [("quiet", f"something of it still runs {rig.lease + QUIET} s after the client's end")]
        safe_after = round(time.time() - broken, 2)
        seen, found = self.settle(rig, case, before)
        violations += found
        if problem := truth(status, rig.version(), case.operation, fault):
            violations.append(("the client's word", problem))
        result = {"seed": case.seed, "operation": case.operation, "faults": [fault.name], "family": fault.family, "instant": str(case.instant),
                  "at": f"after {at}", "late": late, "status": status, "outcome": f"current {rig.version()}", "safe_after": safe_after,
                  "violations": violations}
        if violations:
            self.keep(rig, result, client, seen)
        violations += self.next(rig, result)
        return result

    def keep(self, rig, result, client, seen):
        folder = self.evidence(result, client, seen)
        (folder / "host.txt").write_text(rig.root(
            f"ps -eo pid,ppid,etimes,args; docker ps -a --no-trunc; ls -la /opt/{APP} /opt/{APP}/releases/* /opt/{APP}/backups /tmp; "
            f"tail -n 5 /opt/{APP}/releases/*/migrate.log"))


# ---- the table

# A violation in a reader's words; several of the observer's names can be one thing.
WORDS = {
    "next operation": "the next deploy fails",
    **dict.fromkeys(("quiet", "lock", "processes"), "the host doesn't come to rest"),
    **dict.fromkeys(("images", "configuration", "environment", "health", "password", "mounts"), "what runs isn't what `current` names"),
    "containers": "a container is missing, left over or half replaced", "poller": "not exactly one polls", "schema": "the schema doesn't fit",
    "rows": "rows are lost", "messages": "messages are lost or answered twice", "restarts": "the database was restarted",
    "the client's word": "the exit status is untrue",
}
# Kamal 2.12.0, as measured against a real sshd on loopback, with a stand-in for Docker that answers at once.
SIGNALLED = "while it is locked: its lock is left; the remote command runs on; old and new both keep running"
KAMAL = {**dict.fromkeys(("SIGINT", "SIGTERM", "SIGHUP"), SIGNALLED),
         "black hole, for good": "during the cutover: silent for 480 s, then exit 1, its lock is left"}


def told(results: list) -> str:
    """Violations over runs, and which, the commonest first."""
    if not results:
        return "not run"
    bad = [result for result in results if result["violations"]]
    kinds: Counter = Counter()
    for result in bad:
        kinds.update({truth_of(name, text) for name, text in result["violations"]})
    return f"{len(bad)}/{len(results)}" + "".join(f"; {words} ({count})" for words, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def truth_of(name: str, text: str) -> str:
    return "the client hangs" if text == "the client hangs" else WORDS.get(name, name)


def counted(document: dict) -> dict[tuple, list]:
    """By fault, the runs with that one alone which came in time."""
    groups: dict[tuple, list] = {}
    for result in document["results"]:
        if not result["late"] and len(result["faults"]) == 1:
            groups.setdefault((result["family"], result["faults"][0]), []).append(result)
    return groups


def comparable(document: dict) -> dict:
    """Of a campaign of ours, what the script can do as well."""
    return document | {"results": [result for result in document["results"] if result["operation"] in STEPS]}


def table(document: dict, faults: list, ours: dict | None) -> str:
    """Markdown. Without a campaign of ours there is no column for it."""
    campaigns = [counted(comparable(ours)), counted(document)] if ours else [counted(document)]

    def row(*cells):
        return f"| {' | '.join(cells)} |"

    def total(results):
        return f"{sum(bool(result['violations']) for result in results)}/{len(results)}"

    head = ["family", "fault", *(["orchestrate"] if ours else []), "bash script", "Kamal 2.12.0"]
    rows = [row(*head), "|" + "---|" * len(head)]
    keys = [(fault.family, fault.name) for fault in faults]
    for key in keys:
        rows.append(row(*key, *(told(groups.get(key, [])) for groups in campaigns), KAMAL.get(key[1], "")))
    rows.append(row("all", "", *(total([result for key in keys for result in groups.get(key, [])]) for groups in campaigns), ""))
    return "\n".join(rows)


def section(document: dict, faults: list, ours: dict | None) -> str:
    late = sum(result["late"] for result in document["results"])
    text = (f"The last such campaign, made with `{document['command']}`: runs with a violation/runs, then which; {len(document['results']) - late} runs"
            + (f" ({late} more whose operation had ended before the fault)" if late else "") + ".")
    if ours:
        text += f" orchestrate: the deploys and rollbacks with one of these faults in `{ours['command']}`, judged by all invariants and limits of time."
    return f"{text}\n\n{table(document, faults, ours)}"
