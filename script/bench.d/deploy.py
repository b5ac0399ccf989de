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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from contenders import ROOT, Failed, Line, Ours, Peer, Telegram, assignments, sandbox  # noqa: E402
from page import write_section  # noqa: E402

OLD, NEW = "v1.0.0", "v1.1.0"
BOTS = {"ours": 7100001, "peer": 7100002}  # tokens' numbers; the suites' and the demo's bots have others
ALLOWED = {"update": 1.05, "rollback": 1.0}  # times the peer's median
ALLOWED_GAP = 0.3  # s more than a bare `docker compose up -d`
QUIET = 1.0  # load average (1 min) per processor above which the figures are no result


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def load():
    return float(Path("/proc/loadavg").read_text().split()[0])


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
        yield (f"{row['measure']:28} {row['delay_ms']:3}  {cell(**row['ours']):>20}  {cell(**row['other']):>20}  {row['ratio']:5.3f}  "
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
    write_section("docs/performance.md", "deploy", f"`script/bench deploy --write`, {document['date']}, {document['version']}.\n\n```\n{text}\n```")


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
            for delay in options.delays for what in ("update", "rollback") for who in ("ours", "peer")
            if results.of(who, what, delay)],
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
