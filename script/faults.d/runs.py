"""Runs: what a seed means, breaking an operation at its instant, waiting until the host is quiet, and judging what is left."""

import json
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

import observer
from droplets import sandbox
from rig import OLD, Broken, Rig

# Events of a journal at which a fault may come, as "event step".
DEPLOY = ["opened", "accepted", *(f"{event} {step}" for step in (
    "preflight", "release", "env", "pull", "migrate-probe", "seal", "backup", "migrate", "recreate", "health", "commit") for event in ("started", "ended")),
    "committing", "committed", "started prune"]
ROLLBACK = ["opened", "accepted", *(f"{event} {step}" for step in ("preflight", "release", "migrate", "recreate", "health", "commit") for event in ("started", "ended")),
            "committing", "committed"]
ROTATE = ["opened", "accepted", *(f"{event} {step}" for step in ("preflight", "release", "env", "recreate", "health", "commit") for event in ("started", "ended")),
          "committing", "committed"]
# A version that doesn't work: the faults meet the undo, too.
FAILING = ["started migrate", "started recreate", "started health", "ended health", "undoing", *(f"undone {step}" for step in (
    "recreate", "migrate", "backup", "seal", "pull", "env", "release"))]
EVENTS = {"deploy": DEPLOY, "rollback": ROLLBACK, "rotate": ROTATE, "failing": FAILING}
SECONDS = {"deploy": 9.0, "rollback": 5.5, "rotate": 6.0, "failing": 11.0}  # from the client's start to its end, undisturbed


@dataclass
class Instant:
    event: str  # empty: by the clock
    seconds: float  # after the event, or after the client's start

    def __str__(self):
        return f"{self.event} + {self.seconds * 1000:.0f} ms" if self.event else f"{self.seconds:.2f} s"


@dataclass
class Case:
    """What a seed means."""

    seed: int
    operation: str
    faults: list
    instant: Instant
    pause: float  # between two faults
    lease: int = 3

    @property
    def name(self):
        return " + ".join(fault.name for fault in self.faults)


def case(seed: int, faults: list, lease: int) -> Case:
    rng = Random(seed)
    operation = rng.choice(["deploy", "deploy", "deploy", "rollback", "rollback", "rotate", "failing"])
    chosen = [faults[seed % len(faults)]]
    if rng.random() < 0.5:
        instant = Instant(rng.choice(EVENTS[operation]), rng.choice([0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.5)]))
    else:
        instant = Instant("", rng.uniform(0.1, SECONDS[operation] - 0.5))
    pause = rng.uniform(0, 10)
    second = rng.choice([fault for fault in faults if fault.pairs] or chosen)
    if chosen[0].pairs and second.pairs and rng.random() < 0.25:
        chosen.append(second)
        pause *= rng.choice([0.1, 0.3, 1])
    return Case(seed, operation, chosen, instant, pause, lease)


def wait_for(instant: Instant, rig, client, sequence: int) -> bool:
    """False: the client ended first."""
    while True:
        if instant.event:
            word, _, step = instant.event.partition(" ")
            for number in rig.numbers(sequence)[:1]:
                for event in rig.events(number):
                    if event["event"] == word and (not step or event.get("step", "").partition("-")[2] == step):
                        time.sleep(instant.seconds)
                        return True
        elif time.time() - client.began >= instant.seconds:
            return True
        if not client.alive():
            return False
        time.sleep(0.004)


def truth(status, deployment, case, client_text) -> str:
    """What is wrong with what the client said; empty: nothing."""
    faults = case.faults
    if status is None:
        return "the client hangs"
    if status < 0:
        # A signal that comes before the client has begun to listen for it ends it, as any program.
        early = deployment is None and any(fault.interrupts for fault in faults) and status in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)
        return "" if early or any(fault.client_dies for fault in faults) else f"the client died of signal {-status}"
    if status == 7:
        if "orchestrate attach prod" not in client_text:
            return "exit status 7 without the command to attach"
        # A second Ctrl-C or SIGTERM leaves at once.
        signals = sum(fault.interrupts for fault in faults)
        if not any(fault.may_not_know for fault in faults) and signals < 2:
            return "exit status 7, though the client could have known"
        return ""
    if deployment is None:
        return "" if status in (1, 6) or status == 5 and any(fault.others for fault in faults) else f"exit status {status}, and no deployment was opened"
    outcome = deployment["outcome"]
    wanted = {"committed": 0, "unchanged": 1, "stuck": 4}.get(outcome)
    if outcome == "undone":
        wanted = 4 if deployment["healthy"] is False and not deployment.get("unhealthy_before") else 3
    return "" if status == wanted else f"exit status {status}, the deployment ended {outcome} (healthy: {deployment['healthy']})"


def of_client(history: list, user: str):
    mine = [line for line in history if line["who"].startswith(f"{user}@")]
    return mine[-1] if mine else None


def expected_after(case: Case, before: dict):
    return observer.Expected(
        before, frozenset().union(*(fault.restarted for fault in case.faults)), answered_twice=any(fault.answered_twice for fault in case.faults))


class Safety:
    """Looks, beside the fault and the client, for the first moment in which nothing is open and what runs is what `current` names."""

    # What a client that still lives, or whoever asks about it, may have there.
    NOT_YET = ("processes", "temporary", "units")

    def __init__(self, rig, case: Case, sequence: int, before: dict):
        self.rig, self.sequence, self.expected = rig, sequence, expected_after(case, before)
        self.limit = time.time() + rig.lease + 200
        self.inherited = observer.judge(before, observer.Expected(before))
        self.at = None
        self.opened = bool(rig.numbers(sequence))
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        first = True
        while time.time() < self.limit:
            if not self.rig.closed(self.sequence) or not self.rig.numbers(self.sequence) and not self.ended.is_set():
                time.sleep(0.02)
                continue
            began = time.time()
            history = self.rig.history(self.sequence)
            try:
                found = observer.judge(observer.look(self.rig.droplet), self.expected)
                wrong = [violation for violation in found if violation[0] not in self.NOT_YET and violation not in self.inherited]
            except (OSError, ValueError, subprocess.TimeoutExpired):
                wrong = ["observer"]
            if not wrong:
                self.at = history[-1]["closed"] / 1000 if first and history else began
                return
            first = False
            time.sleep(0.2)

    def end(self) -> float:
        """When that was; much later than it should be if it never came."""
        self.ended.set()
        self.thread.join()
        return self.at or self.limit


class Campaign:
    invariants = observer.INVARIANTS

    def __init__(self, options, seeds, done):
        self.options, self.seeds, self.results = options, list(seeds), []
        self.all, self.done = len(self.seeds), done
        self.mutex = threading.Lock()
        self.failed = None

    def say(self, text):
        with self.mutex:
            print(text, flush=True)

    # ---- one run

    def look(self, rig) -> dict:
        return observer.look(rig.droplet)

    def expected(self, case, before) -> observer.Expected:
        return expected_after(case, before)

    def begin(self, rig, case) -> dict:
        """All that goes on beside the operation is under way; gives what was true before it."""
        telegram = rig.project.telegram
        for fault in case.faults:
            fault.mend(rig)
        rig.line.clear()
        for fault in case.faults:
            fault.ready(rig)
        rig.second = None
        telegram.reset()
        telegram.stream(4)
        rig.writer.begin()
        return self.look(rig)

    def run(self, rig, case: Case) -> dict:
        rng = Random(case.seed * 7919)
        before = self.begin(rig, case)
        sequence = rig.sequence()
        client = rig.client(*rig.arguments(case.operation), terminal=any(fault.terminal for fault in case.faults))
        result = {"seed": case.seed, "operation": case.operation, "faults": [fault.name for fault in case.faults], "family": case.faults[0].family,
                  "instant": str(case.instant), "violations": []}
        violations = result["violations"]
        result["late"] = not (wait_for(case.instant, rig, client, sequence) and client.alive())
        broken = time.time()
        result["at"] = self.where(rig, sequence)
        safety = None
        for number, fault in enumerate(case.faults):
            if number:
                time.sleep(case.pause)
                broken = time.time()
            if fault is case.faults[-1]:
                safety = Safety(rig, case, sequence, before)
            fault.inject(rig, client, rng)
        status = client.wait(rig.lease + 170)
        for fault in case.faults:
            fault.mend(rig)
        result["status"] = status
        well = safety.end()
        seen, found = self.settle(rig, case, before)
        history = rig.history(sequence)
        deployment = of_client(history, "ada")
        result["outcome"] = deployment["outcome"] if deployment else "nothing opened"
        machine = any(fault.machine for fault in case.faults)
        result["safe_after"] = round(max(0.0, well - broken), 2)
        result["parts"] = self.parts(rig, sequence, broken)
        violations += found
        if problem := truth(status, deployment, case, client.text["stdout"] + client.text["stderr"]):
            violations.append(("the client's word", problem))
        if rig.second:
            other, status = rig.second
            mine = of_client(history, "grace")
            # That version was current already, perhaps only when the deployment had been opened.
            had_nothing_to_do = status == 0 and rig.version() in other.process.args and (
                mine is None or mine["outcome"] == "unchanged" and "nothing to do" in other.text["stdout"])
            if problem := "" if had_nothing_to_do else truth(status, mine, case, ""):
                violations.append(("the client's word", f"the second client: {problem}"))
        violations += self.told(rig, history, machine)
        violations += self.slow(case, result)
        result["duration"] = round(time.time() - client.began, 1)
        if violations:
            self.keep(rig, result, client, seen)
        violations += self.next(rig, result)
        return result

    @staticmethod
    def where(rig, sequence) -> str:
        """The last event before the fault, by the journal."""
        for number in rig.numbers(sequence)[:1]:
            for event in reversed(rig.events(number)):
                return " ".join(filter(None, (event["event"], event.get("step", ""))))
        return "nothing opened yet"

    @staticmethod
    def parts(rig, sequence, broken) -> dict:
        """Seconds from the fault on: when the last step before the commit or the undo began and ended, when the undo began; and how long that took."""
        for number in rig.numbers(sequence)[:1]:
            events = rig.events(number)
            turn = next((event for event in events if event["event"] in ("undoing", "committing")), None)
            if not turn or events[-1]["event"] != "closed":
                break
            before = events[:events.index(turn)]
            times = {name: max((event["t"] / 1000 - broken for event in before if event["event"] == name), default=0.0) for name in ("started", "ended")}
            parts = {"last_start": times["started"], "last_end": times["ended"]}
            if turn["event"] == "undoing":
                parts |= {"until_undo": turn["t"] / 1000 - broken, "undo": (events[-1]["t"] - turn["t"]) / 1000}
            return {name: round(seconds, 2) for name, seconds in parts.items()}
        return {}

    @staticmethod
    def slow(case, result):
        """What took longer than it may: the lease and the running step, the undo's own steps, and 5 s; a machine that starts anew, a minute. Nor may
        a step begin once the host should have missed the client. Where Docker alone died the deployment goes on for a while, and what Docker has left
        down is started behind it."""
        parts = result["parts"]
        undo = parts.get("undo", 0)
        if any(fault.machine for fault in case.faults):
            steps = 0 if any(fault.may_not_know for fault in case.faults) else min(30, max(parts.get("last_end", 0), parts.get("until_undo", 0)))
            if result["safe_after"] > steps + undo + 60:
                yield "time to safety", f"{result['safe_after']} s after the fault"
        elif case.faults[-1].family in ("client", "network") and "until_undo" in parts:
            if parts["until_undo"] - max(parts["last_end"], case.lease) > 5 or result["safe_after"] > parts["until_undo"] + undo + 5:
                yield "time to safety", f"{result['safe_after']} s after the fault; the lease is {case.lease} s, {parts}"
        if case.faults[-1].silences and parts.get("last_start", 0) > case.lease + 2:
            yield "lease", f"a step was begun {parts['last_start']} s after the client's last sign of life"

    def settle(self, rig, case, before):
        """Once the host is quiet: what was seen, and what is wrong with it."""
        expected = self.expected(case, before)
        inherited = observer.judge(before, observer.Expected(before), self.invariants)
        patience = time.time() + (60 if any(fault.machine for fault in case.faults) else 8)
        while True:
            try:
                seen = self.look(rig)
                found = [violation for violation in observer.judge(seen, expected, self.invariants) if violation not in inherited]
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                seen, found = {}, [("observer", str(error))]
            if not found or time.time() > patience:
                break
            time.sleep(0.3)
        # What came in meanwhile: no more is written, and all that was sent has been answered.
        telegram = rig.project.telegram
        telegram.stop()
        rig.writer.end()
        expected.acknowledged = set(rig.writer.acknowledged)
        sent = telegram.counts()["sent"]
        expected.counts = telegram.wait_answered(sent, 40)
        expected.confirmed = [message["update_id"] for message in telegram.messages() if message["confirmed_at"]]
        if any(fault.machine for fault in case.faults):
            expected.counts["conflicts"] = 0  # the connection of a poller that died outlives it
        if seen:
            try:
                seen = self.look(rig)
                # What an earlier run has left is that run's.
                found = [violation for violation in observer.judge(seen, expected, self.invariants) if violation not in inherited]
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                found = [("observer", str(error))]
        if not expected.acknowledged:
            found.append(("observer", "the writer wrote nothing"))
        return seen, found

    def told(self, rig, history, machine) -> list:
        """`status` and `attach` say what happened."""
        found = []
        last = rig.history(0)[-1]
        status, out, err = rig.ask("status", "prod", "--json")
        try:
            host = json.loads(out)["hosts"][0]
            if status != 0 or host["version"] != rig.version() or host["last_deployment"]["number"] != last["number"] or host["last_deployment"]["outcome"] != last["outcome"]:
                found.append(("status", f"says {host.get('version')}, #{host['last_deployment']['number']} {host['last_deployment']['outcome']}; it is {rig.version()}, #{last['number']} {last['outcome']}"))
            if host["state"] != "healthy" and not machine:
                found.append(("status", f"says {host['state']}"))
        except (ValueError, KeyError, IndexError):
            found.append(("status", f"exit status {status}: {(out + err)[-300:]}"))
        status, out, err = rig.ask("attach", "prod")
        wanted = {"committed": 0, "unchanged": 1, "undone": 3, "stuck": 4}.get(last["outcome"])
        if last["outcome"] == "undone" and last["healthy"] is False and not last.get("unhealthy_before"):
            wanted = 4
        if status != wanted or f"#{last['number']}" not in out + err:
            found.append(("attach", f"exit status {status} for #{last['number']}, which ended {last['outcome']}: {(out + err)[-300:]}"))
        return found

    def next(self, rig, result) -> list:
        """The next operation works, without anybody's doing."""
        operation = "deploy" if rig.version() == OLD else "rollback"
        try:
            rig.operate(operation)
        except Broken as error:
            result["next"] = str(error)
            return [("next operation", f"the next {operation} doesn't work: {str(error)[:200]}")]
        return []

    def evidence(self, result, client, seen) -> Path:
        """What a person needs to see what went wrong."""
        folder = Path(self.options.keep or tempfile.mkdtemp(prefix="orchestrate-faults-")) / f"seed-{result['seed']}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "client.txt").write_text(f"exit status {result['status']}\n---- stdout\n{client.text['stdout']}\n---- stderr\n{client.text['stderr']}\n")
        (folder / "seen.json").write_text(json.dumps(seen, indent=1))
        (folder / "result.json").write_text(json.dumps(result, indent=1))
        result["evidence"] = str(folder)
        return folder

    def keep(self, rig, result, client, seen):
        folder = self.evidence(result, client, seen)
        number = rig.sequence()
        for name in ("journal.jsonl", "log"):
            (folder / f"{number}-{name}").write_text(rig.read(f"deployments/{number}/{name}"))
        units = "systemctl list-units --all --no-pager 'orchestrate*'; journalctl -q --no-pager -o short-precise -u 'orchestrate*' | tail -n 300"
        (folder / "units.txt").write_text(rig.root(units))

    # ---- all of them

    def take(self, rig):
        """The next seed, one whose operation fits what runs, if there is one."""
        fitting = ("deploy", "rotate") if rig.version() == OLD else ("rollback", "failing", "rotate")
        with self.mutex:
            if not self.seeds or self.failed:
                return None
            chosen = next((one for one in self.seeds if one.operation in fitting), self.seeds[0])
            self.seeds.remove(chosen)
            return chosen

    def work(self, droplet: str, folder: Path):
        """One droplet's share. What the harness itself can't do breaks the campaign off: it is no pass."""
        rig = None
        try:
            rig = self.new_rig(droplet, folder / "0")
            while one := self.take(rig):
                result = self.attempt(rig, one)
                with self.mutex:
                    self.results.append({**result, "droplet": droplet})
                    self.done()
                self.line(result)
                if any(name in ("next operation", "observer", "harness") for name, _ in result["violations"]):
                    # Nothing can be built on this droplet any more.
                    rig.close()
                    sandbox("rm", droplet)
                    rig = self.new_rig(droplet, folder / str(one.seed))
        except Exception as error:  # noqa: BLE001: whatever it was
            with self.mutex:
                self.failed = f"{droplet}: {error if isinstance(error, Broken) else traceback.format_exc()}"
        finally:
            if rig:
                rig.close()

    def new_rig(self, droplet: str, folder: Path) -> Rig:
        folder.mkdir()
        rig = Rig(droplet, folder, self.options.binary, self.options.lease)
        rig.prepare()
        return rig

    def attempt(self, rig: Rig, one: Case) -> dict:
        try:
            rig.known_schema()
            if one.operation in ("deploy", "rollback", "failing") and (one.operation == "deploy") != (rig.version() == OLD):
                rig.operate("rollback" if one.operation == "deploy" else "deploy")
            if one.operation == "deploy":
                rig.older_schema()
            return self.run(rig, one)
        except Broken:
            raise
        except Exception:  # noqa: BLE001
            return {"seed": one.seed, "operation": one.operation, "faults": [fault.name for fault in one.faults], "family": one.faults[0].family,
                    "instant": str(one.instant), "at": "", "late": False, "status": None, "outcome": "not judged", "safe_after": 0.0,
                    "violations": [("harness", traceback.format_exc())]}

    def line(self, result):
        state = "late" if result["late"] else "ok" if not result["violations"] else "VIOLATION"
        self.say(f"{len(self.results):3}/{self.all} {state:9} seed {result['seed']}  {result['operation']:8}  {' + '.join(result['faults'])}  at {result['instant']} ({result['at']})  "
                 f"{result['outcome']}, exit {result['status']}, safe after {result['safe_after']:.1f} s"
                 + (f" (until the undo {parts['until_undo']:.1f}, the undo {parts['undo']:.1f})" if "undo" in (parts := result.get("parts", {})) else ""))
        for name, text in result["violations"]:
            self.say(f"          {name}: {text}")
        if "evidence" in result:
            self.say(f"          evidence: {result['evidence']}")
