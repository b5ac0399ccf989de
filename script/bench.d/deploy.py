#!/usr/bin/env python3
"""Updates and rollbacks of examples/market-bot by orchestrate, and by the careful bash script beside this file, interleaved.

One droplet each. A round, at each line delay: v1.0.0 to v1.1.0 and back, by both, and a bare `docker compose up -d` of the same
change on the peer's droplet; who begins changes from round to round. Messages arrive throughout, and the bot's gap is the
longest silence between two answers: the same measure for all three, taken outside of them. A run that doesn't end where it should counts as failed, never
as fast. Before each update the database goes back to the older schema, so that each migrates. A warm-up that doesn't count brings the images to the
hosts: a pull then asks the registry and fetches nothing.
"""
import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "v1.0.0", "v1.1.0"
BOTS = {"ours": 7100001, "peer": 7100002}  # tokens' numbers; the suites' and the demo's bots have others
ALLOWED = {"update": 1.05, "rollback": 1.0}  # times the peer's median
ALLOWED_GAP = 0.3  # s more than a bare `docker compose up -d`
QUIET = 1.0  # load average (1 min) per processor above which the figures are no result


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def load():
    return float(Path("/proc/loadavg").read_text().split()[0])


def sandbox(*arguments, check=True):
    run = subprocess.run([ROOT / "script/sandbox", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and run.returncode:
        sys.exit(f"bench: script/sandbox {' '.join(arguments)} failed\n{run.stdout}{run.stderr}")
    return run.stdout


def assignments(text):
    return dict(line.removeprefix("export ").split("=", 1) for line in text.splitlines() if "=" in line)


class Failed(Exception):
    """A run that didn't end where it should."""


class Telegram:
    """The control side of the sandbox's Telegram, for one bot."""

    def __init__(self, control, bot):
        self.control, self.bot, self.token = control, bot, f"{bot}:bench-token"

    def call(self, path, body=None):
        url = f"{self.control}{path}{'&' if '?' in path else '?'}bot={self.bot}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers={"content-type": "application/json"}), timeout=90) as answer:
            return json.loads(answer.read() or b"null")

    @contextlib.contextmanager
    def stream(self, per_second):
        """Messages for as long as the block lasts, and a while before and after it."""
        self.call("/reset", {})
        self.call("/stream", {"per_second": per_second, "count": 0})
        try:
            time.sleep(1)
            yield
        finally:
            self.call("/stream/stop", {})

    def wait_for(self, version, limit=30):
        """Until the newest answer comes from that version."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            answers = self.call("/answers?after=0")
            if answers and version in answers[-1]["text"]:
                time.sleep(0.5)
                return
            time.sleep(0.1)
        raise Failed(f"the bot doesn't answer as {version}")

    def gap(self):
        """The longest silence in seconds; every message must have been answered, once."""
        sent = self.call("/counts")["sent"]
        counts = self.call(f"/wait?answered={sent}&timeout=30")
        if counts["unanswered"] or counts["answered_twice"]:
            raise Failed(f"{counts['unanswered']} messages lost, {counts['answered_twice']} answered twice")
        return counts["longest_silence_s"]


class Line:
    """The way to a droplet's sshd: direct, or through a proxy that delays each byte."""

    def __init__(self, droplet, known_hosts, stack):
        self.name = droplet
        self.settings = assignments(sandbox("droplet", droplet))
        port = self.settings["DROPLET_PORT"]
        proxy = subprocess.Popen(
            [ROOT / "sandbox/delay-proxy", "0", port, "--control", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        stack.callback(proxy.wait)
        stack.callback(proxy.terminate)
        self.proxy_port = proxy.stdout.readline().split()[2]
        self.control = proxy.stdout.readline().split()[2]
        # The same keys under the proxy's port.
        lines = Path(self.settings["DROPLET_KNOWN_HOSTS"]).read_text().splitlines()
        own = [line for line in lines if line.startswith(f"[127.0.0.1]:{port} ")]
        proxied = [line.replace(f":{port} ", f":{self.proxy_port} ", 1) for line in own]
        with open(known_hosts, "a", encoding="ascii") as file:
            file.write("\n".join([*own, *proxied]) + "\n")
        self.known_hosts = known_hosts
        self.port = port

    def delay(self, round_trip_ms):
        """Zero is the direct line."""
        self.port = self.proxy_port if round_trip_ms else self.settings["DROPLET_PORT"]
        subprocess.run(
            [ROOT / "sandbox/delay-proxy", "send", self.control, "delay", str(round_trip_ms / 2)],
            check=True, stdout=subprocess.DEVNULL)

    def host(self, command):
        return sandbox("ssh", f"deploy@{self.name}", command).strip()


def timed(command, environment, folder, is_commit, limit=300):
    """Runs it; seconds until the line that tells of the commit arrived, seconds in all, lines."""
    began = time.monotonic()
    committed, lines = None, []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(word) for word in command], env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, text=True)
        deadline = threading.Timer(limit, process.kill)
        deadline.start()
        for line in process.stdout:
            if committed is None and is_commit(line):
                committed = time.monotonic() - began
            lines.append(line.rstrip("\n"))
        status = process.wait()
        deadline.cancel()
        whole = time.monotonic() - began
        errors.seek(0)
        if status or committed is None:
            raise Failed(f"exit status {status} after {whole:.1f} s\n" + "\n".join(lines[-20:]) + errors.read()[-2000:])
    return committed, whole, lines


class Contender:
    def __init__(self, line, telegram, settings, folder):
        self.line, self.telegram, self.settings, self.folder = line, telegram, settings, folder

    def run(self, version, rate, action):
        """A sample: what `action` measured, and the gap seen by users."""
        with self.telegram.stream(rate):
            sample = action(version)
            self.telegram.wait_for(version)
        return {**sample, "gap": self.telegram.gap()}

    def older_schema(self):
        self.line.host(
            'docker exec "$(docker ps -q --filter label=com.docker.compose.service=postgres)" psql -XqU market -d market '
            "-v ON_ERROR_STOP=1 -c \"ALTER TABLE users DROP COLUMN IF EXISTS language; UPDATE alembic_version SET version_num = '0001'\"")


class Ours(Contender):
    def __init__(self, binary, *arguments):
        super().__init__(*arguments)
        self.binary = binary
        example = ROOT / "examples/market-bot"
        for name in ("compose.prod.yml", "env.template"):
            shutil.copy(example / name, self.folder)
        for name in ("playbooks", "redis"):
            shutil.copytree(example / name, self.folder / name)
        (self.folder / "inventories").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "USER": "bench",
            "TELEGRAM_TOKEN": self.telegram.token, "TELEGRAM_API": self.settings["TELEGRAM_API"],
            "REGISTRY_PASSWORD": Path(self.settings["REGISTRY_PASSWORD_FILE"]).read_text().strip(),
        }

    def _run(self, *arguments):
        line = self.line
        (self.folder / "inventories/prod.yml").write_text(f"""\
app: market-bot
default: true
hosts:
  {line.name}: {{ address: 127.0.0.1, port: {line.port}, user: deploy, roles: [app, db] }}
ssh: {{ identity: {line.settings['DROPLET_KEY']}, known_hosts: {line.known_hosts} }}
compose: compose.prod.yml
env: {{ template: env.template, from: [flags, environment, vault, host, generated] }}
registry: {{ server: "{self.settings['REGISTRY']}", username: {self.settings['REGISTRY_USER']}, password: REGISTRY_PASSWORD }}
services: {{ app: [bot], database: postgres, cache: redis }}
""")
        committed, whole, lines = timed(
            [self.binary, *arguments, "--yes", "--json"], self.environment, self.folder,
            lambda text: json.loads(text)["event"] == "committed")
        summary = json.loads(lines[-1])["summary"]
        steps = {step["step"]: step["seconds"] for step in summary["steps"] if step.get("state") == "done"}
        return {
            "seconds": committed, "whole": whole, "steps": steps, "round_trips": summary.get("round_trips"),
            "own_gap": summary.get("downtime_ms", 0) / 1000,
        }

    def deploy(self, version):
        return self._run("deploy", "prod", version)

    def rollback(self, version):
        return self._run("rollback", "prod", version)


class Peer(Contender):
    def _run(self, script, *arguments):
        line = self.line
        committed, whole, lines = timed(
            [ROOT / "script/bench.d" / script, "--project", ROOT / "examples/market-bot", "--host", "127.0.0.1", "--port", line.port,
             "--key", line.settings["DROPLET_KEY"], "--known-hosts", line.known_hosts, *arguments],
            dict(os.environ), self.folder, lambda text: text.startswith("peer: total"))
        steps = {}
        for text in lines:
            words = text.split()
            if len(words) == 4 and words[0] == "peer:" and words[3] == "s" and words[1] != "total":
                steps[words[1]] = float(words[2])
        return {"seconds": committed, "whole": whole, "steps": steps}

    def deploy(self, version):
        settings = self.settings
        return self._run(
            "peer-deploy.sh", "--registry", settings["REGISTRY"], "--registry-user", settings["REGISTRY_USER"],
            "--registry-password-file", settings["REGISTRY_PASSWORD_FILE"], "--set", f"TELEGRAM_TOKEN={self.telegram.token}",
            "--set", f"TELEGRAM_API={settings['TELEGRAM_API']}", version)

    def rollback(self, version):
        return self._run("peer-rollback.sh", version)

    def bare(self, version):
        """What a user without any tool types on the host; the gap is what counts."""
        began = time.monotonic()
        self.line.host(
            f"cd \"$(dirname \"$(grep -lx VERSION={version} /opt/market-bot/releases/*/.env | sort -V | tail -n 1)\")\" && "
            "docker compose -p market-bot --project-directory /opt/market-bot/shared -f compose.yml --env-file .env "
            "--progress quiet up -d")
        return {"seconds": time.monotonic() - began}


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


class Results:
    def __init__(self):
        self.samples, self.failures = [], []

    def take(self, who, what, delay, contender, version, rate, action):
        """One sample, kept with the load at its end, or one failure."""
        try:
            sample = contender.run(version, rate, action)
        except Failed as error:
            self.failures.append({"who": who, "what": what, "delay_ms": delay, "message": str(error)})
            say(f"{who} {what} at {delay} ms FAILED: {error}")
            raise
        self.samples.append({"who": who, "what": what, "delay_ms": delay, "load": load(), **sample})
        say(f"{who} {what} at {delay} ms: {sample['seconds']:.2f} s, gap {sample['gap']:.2f} s, load {load():.2f}")

    def of(self, who, what, delay, measure="seconds"):
        rows = [s for s in self.samples if (s["who"], s["what"], s["delay_ms"]) == (who, what, delay)]
        return [row[measure] for row in rows if row.get(measure) is not None]

    def steps(self, who, what, delay):
        rows = self.of(who, what, delay, "steps")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: statistics.median([row[name] for row in rows if name in row]) for name in names}


def report(results, delays):
    """The comparison as a value: measures with their spread, the ratio, what is allowed, and whether it holds."""
    rows = []
    for delay in delays:
        for what in ("update", "rollback"):
            ours, peer = results.of("ours", what, delay), results.of("peer", what, delay)
            if ours and peer:
                ratio = statistics.median(ours) / statistics.median(peer)
                rows.append({
                    "measure": f"{what} up to the commit", "delay_ms": delay, "ours": spread(ours), "other": spread(peer), "against": "bash script",
                    "ratio": ratio, "allowed": f"≤ {ALLOWED[what]} ×", "holds": ratio <= ALLOWED[what]})
        ours, bare = results.of("ours", "update", delay, "gap"), results.of("bare", "update", delay, "gap")
        if ours and bare:
            more = statistics.median(ours) - statistics.median(bare)
            rows.append({
                "measure": "the bot's gap in an update", "delay_ms": delay, "ours": spread(ours), "other": spread(bare),
                "against": "bare compose up -d", "ratio": statistics.median(ours) / statistics.median(bare),
                "allowed": f"+ ≤ {ALLOWED_GAP} s", "holds": more <= ALLOWED_GAP})
    return rows


def lines_of(document):
    """The report as text."""
    cell = "{median:.2f} ({min:.2f}-{max:.2f})".format
    yield f"{'':28} {'ms':>3}  {'orchestrate, s':>20}  {'other, s':>20}  {'ratio':>5}  {'allowed':>9}"
    for row in document["rows"]:
        yield (f"{row['measure']:28} {row['delay_ms']:3}  {cell(**row['ours']):>20}  {cell(**row['other']):>20}  {row['ratio']:5.2f}  "
               f"{row['allowed']:>9}  {'holds' if row['holds'] else 'MISSED'}  against {row['against']}")
    for entry in document["steps"]:
        names = ", ".join(f"{name} {seconds:.2f}" for name, seconds in entry["seconds"].items())
        yield f"{entry['who']} {entry['what']}, {entry['delay_ms']} ms, medians in s: {names}"
    for delay, trips in document["round_trips"].items():
        yield f"round trips after authentication, update at {delay} ms: {trips}"
    runs, load_seen = document["rounds"], document["load"]
    yield (f"median (min-max) of {runs} rounds, interleaved; load average {load_seen['before']:.2f} before, "
           f"{load_seen['median']:.2f} in the median, {load_seen['max']:.2f} at most, on {document['processors']} processors")
    if document["loaded"]:
        yield "THE MACHINE WAS LOADED: these figures are no result"
    for failure in document["failures"]:
        yield f"FAILED: {failure['who']} {failure['what']} at {failure['delay_ms']} ms: {failure['message'].splitlines()[0]}"


def write_page(document):
    text = "\n".join(lines_of(document))
    (ROOT / "docs/performance.md").write_text(
        "# Performance\n\nWritten by `script/bench deploy --write`, which says what is measured and how (script/bench.d/deploy.py).\n"
        f"{document['date']}, {document['version']}.\n\n```\n{text}\n```\n")


def measure(options, binary, settings, stack):
    results = Results()
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrate-bench.")))
    known_hosts = home / "known_hosts"
    contenders = {}
    for who in ("ours", "peer"):
        droplet = f"bench-{who}"
        say(f"a droplet {droplet}")
        sandbox("rm", droplet)
        if not options.keep:
            stack.callback(sandbox, "rm", droplet, check=False)
        sandbox("droplet", droplet)
        (home / who).mkdir()
        telegram = Telegram(settings["TELEGRAM_CONTROL"], BOTS[who])
        arguments = (Line(droplet, known_hosts, stack), telegram, settings, home / who)
        contenders[who] = Ours(binary, *arguments) if who == "ours" else Peer(*arguments)
    ours, peer = contenders["ours"], contenders["peer"]
    with contextlib.suppress(Failed):  # it is among the failures; nothing after it would be comparable
        rounds(options, results, ours, peer)
    return results


def rounds(options, results, ours, peer):
    results.take("ours", "first", 0, ours, OLD, options.rate, ours.deploy)
    results.take("peer", "first", 0, peer, OLD, options.rate, peer.deploy)
    # Both hosts have the image of the newer version before anything counts.
    results.take("ours", "warm-up", 0, ours, NEW, options.rate, ours.deploy)
    results.take("peer", "warm-up", 0, peer, NEW, options.rate, peer.deploy)
    results.take("ours", "warm-up", 0, ours, OLD, options.rate, ours.rollback)
    results.take("peer", "warm-up", 0, peer, OLD, options.rate, peer.rollback)

    def both_ways(who, contender, delay):
        contender.older_schema()
        results.take(who, "update", delay, contender, NEW, options.rate, contender.deploy)
        results.take(who, "rollback", delay, contender, OLD, options.rate, contender.rollback)

    def bare(delay):
        results.take("bare", "update", delay, peer, NEW, options.rate, peer.bare)
        results.take("bare", "rollback", delay, peer, OLD, options.rate, peer.bare)

    for number in range(options.rounds):
        for delay in options.delays:
            ours.line.delay(delay)
            peer.line.delay(delay)
            turns = [
                lambda: both_ways("ours", ours, delay),  # noqa: B023 called within the same turn
                lambda: both_ways("peer", peer, delay),  # noqa: B023
                lambda: bare(delay),  # noqa: B023
            ]
            say(f"round {number + 1} of {options.rounds} at {delay} ms")
            for turn in turns[number % 3:] + turns[:number % 3]:
                turn()


def main():
    parser = argparse.ArgumentParser(prog="script/bench deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delays", type=lambda text: [int(part) for part in text.split(",")], default=[0, 50], metavar="MS,MS",
                        help="round trips in milliseconds (0,50)")
    parser.add_argument("--rate", type=float, default=20, help="messages a second (20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples and the comparison")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed or the machine was loaded")
    parser.add_argument("--write", action="store_true", help="writes docs/performance.md; refused on a loaded machine")
    parser.add_argument("--keep", action="store_true", help="leaves the droplets bench-ours and bench-peer")
    options = parser.parse_args()
    binary = Path(os.environ.get("ORCHESTRATE", ROOT / ".build/release/orchestrate")).resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"bench: there is no {binary}; build it: swift build -c release --product orchestrate")
    before = load()
    if before > QUIET * os.cpu_count():
        say(f"the load average is {before:.2f}: what follows is no result")
    with contextlib.ExitStack() as stack:
        say("script/sandbox up")
        sandbox("up")
        settings = assignments(sandbox("env"))
        os.environ["DOCKER_HOST"] = settings["DOCKER_HOST"]
        results = measure(options, binary, settings, stack)
    loads = [sample["load"] for sample in results.samples] or [before]
    document = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "version": subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "binary": "release" if "release" in binary.parts else "not the release build",
        "rounds": options.rounds, "processors": os.cpu_count(),
        "load": {"before": before, "median": statistics.median(loads), "max": max(loads)},
        "loaded": before > QUIET * os.cpu_count() or statistics.median(loads) > QUIET * os.cpu_count(),
        "rows": report(results, options.delays),
        "steps": [
            {"who": who, "what": what, "delay_ms": delay, "seconds": results.steps(who, what, delay)}
            for delay in options.delays for what in ("update", "rollback") for who in ("ours", "peer")],
        "round_trips": {delay: statistics.median(trips) for delay in options.delays
                        if (trips := results.of("ours", "update", delay, "round_trips"))},
        "failures": results.failures, "samples": results.samples,
    }
    print("\n".join(lines_of(document)))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.write:
        if document["loaded"] or document["failures"]:
            sys.exit("bench: the machine was loaded, or a run failed: docs/performance.md stays as it is")
        write_page(document)
    if results.failures:
        sys.exit(1)
    if options.check and (document["loaded"] or not all(row["holds"] for row in document["rows"])):
        sys.exit(1)


if __name__ == "__main__":
    main()
