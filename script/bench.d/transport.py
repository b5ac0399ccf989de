#!/usr/bin/env python3
"""One command over ssh, by orchestrate and by its peers, interleaved.

An sshd of our own on this machine, reached directly and over a line of 50 ms. Key exchange, cipher and MAC are the same for everyone who can be told
(`ssh, as delivered` isn't). Each run is a process of its own; a run counts only if the command has left its mark on each host exactly once, and a peer
that fails is shown as failed. `ssh`: a cold connection and one command. `fleet`: the command on each of many hosts. Who begins changes from round to
round. Memory is the peak of the process tree's PSS, in a run that isn't timed.
"""
import argparse
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from hosts import CIPHER, KEX, MAC, Hosts  # noqa: E402
from page import write_section  # noqa: E402
from peers import Peers, install  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
QUIET = 1.0  # load average (1 min) per processor above which the figures are no result
# (against, line in ms, at most so many times): None is any line.
BOUNDS = {
    "ssh": [("ssh", 0, 0.8), ("ssh", 50, 0.95), ("C floor", 50, 1.15)],
    "fleet": [("xargs -P50 ssh", None, 0.8), ("asyncssh", None, 0.95), ("ansible -m command", None, 0.1), ("C floor", None, 1.25)],
}
MEMORY_BOUND = ("asyncssh", 0.7)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def load():
    return float(Path("/proc/loadavg").read_text().split()[0])


class Failed(Exception):
    """A run that didn't do its work."""


def children(process):
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += children(child)
    return found


def memory_of_tree(process, stop, peak):
    """Keeps the highest sum of PSS in MB."""
    while not stop.is_set():
        total = 0
        for pid in children(process):
            with contextlib.suppress(OSError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        peak[0] = max(peak[0], total / 1024)
        time.sleep(0.01)


def run(peers, hosts, name, some, limit, memory=False):
    """One run: its seconds, or its peak in MB."""
    nonce = secrets.token_hex(8)
    hosts.forget()
    command = [str(word) for word in peers.commands(some, nonce)[name]]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=peers.environment, cwd=hosts.home)
        peak, stop = [0.0], threading.Event()
        if memory:
            watcher = threading.Thread(target=memory_of_tree, args=(process.pid, stop, peak))
            watcher.start()
        deadline = threading.Timer(limit, process.kill)  # wait(limit) would look every 50 ms
        deadline.start()
        status = process.wait()
        seconds = time.perf_counter() - began
        deadline.cancel()
        if memory:
            stop.set()
            watcher.join()
        wanted = {hosts.addresses[hosts.names.index(host)] for host in some}
        reached = hosts.reached(nonce)
        if status != 0 or reached != wanted:
            output.seek(0)
            said = output.read().decode(errors="replace")[-600:]
            raise Failed(f"exit status {status}, {len(reached & wanted)} of {len(wanted)} hosts reached: {said}")
    return peak[0] if memory else seconds


def measure(options, hosts, peers):
    some = hosts.names[: options.hosts]
    names = [name for name in peers.commands(some, "none") if not options.only or name in options.only]
    results = {name: {"delays": {}, "memory": None, "failure": None} for name in names}
    loads = []
    for delay in options.delays:
        hosts.use(delay)
        for name in names:  # a warm-up that doesn't count; memory on the way
            with failures(results, name):
                results[name]["memory"] = max(results[name]["memory"] or 0, run(peers, hosts, name, some, options.limit, memory=True))
    for number in range(options.rounds):
        for delay in options.delays:
            hosts.use(delay)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                if results[name]["failure"]:
                    continue
                with failures(results, name):
                    results[name]["delays"].setdefault(delay, []).append(run(peers, hosts, name, some, options.limit))
                loads.append(load())
        say(f"round {number + 1} of {options.rounds}, load {load():.2f}")
    return results, loads


@contextlib.contextmanager
def failures(results, name):
    try:
        yield
    except Failed as error:
        results[name]["failure"] = str(error)
        say(f"{name} FAILED: {error}")


def median(result, delay):
    return statistics.median(result["delays"][delay]) if result["delays"].get(delay) else None


def bounds(what, results, delays):
    """Each bound of the issue with what was measured."""
    ours, rows = results.get("orchestrate"), []
    if not ours or ours["failure"]:
        return rows
    for against, at, allowed in BOUNDS[what]:
        for delay in delays:
            other = results.get(against)
            if at not in (None, delay) or not other or other["failure"]:
                continue
            ratio = median(ours, delay) / median(other, delay)
            rows.append({"against": against, "delay_ms": delay, "ratio": ratio, "allowed": allowed, "holds": ratio <= allowed})
    other = results.get(MEMORY_BOUND[0])
    if what == "fleet" and other and not other["failure"]:
        ratio = ours["memory"] / other["memory"]
        rows.append({"against": f"{MEMORY_BOUND[0]}, memory", "delay_ms": None, "ratio": ratio, "allowed": MEMORY_BOUND[1], "holds": ratio <= MEMORY_BOUND[1]})
    return rows


def lines_of(document):
    delays, reference = document["delays"], document["reference"]
    heads = "".join(f"{f'{delay} ms: s (min-max)':>26} {'× ssh':>6}" for delay in delays)
    yield f"{'':24}{heads} {'MB':>6}"
    for name, result in document["results"].items():
        if result["failure"]:
            yield f"{name:24}  FAILED: {result['failure'].splitlines()[0][:100]}"
            continue
        cells = ""
        for delay in delays:
            values = result["delays"][delay]
            ratio = statistics.median(values) / median(document["results"][reference], delay) if median(document["results"][reference], delay) else 0
            cells += f"{f'{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})':>26} {ratio:6.2f}"
        yield f"{name:24}{cells} {result['memory']:6.1f}"
    for row in document["bounds"]:
        place = "" if row["delay_ms"] is None else f" at {row['delay_ms']} ms"
        yield f"{row['ratio']:.3f} × {row['against']}{place}, allowed ≤ {row['allowed']}: {'holds' if row['holds'] else 'MISSED'}"
    yield (f"median (min-max) of {document['rounds']} interleaved rounds; load {document['load']['median']:.2f} in the median, {document['load']['max']:.2f} at most, "
           f"on {document['processors']} processors")
    if document["loaded"]:
        yield "THE MACHINE WAS LOADED: these figures are no result"


def main():
    parser = argparse.ArgumentParser(prog="script/bench ssh|fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(BOUNDS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--delays", type=lambda text: [int(part) for part in text.split(",")], default=[0, 50], metavar="MS,MS", help="round trips in milliseconds (0,50)")
    parser.add_argument("--hosts", type=int, metavar="N", help="of a fleet (50)")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,NAME", help="these contenders alone")
    parser.add_argument("--limit", type=float, default=120, metavar="S", help="seconds after which a run has failed (120)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bound is missed or the machine was loaded")
    parser.add_argument("--write", action="store_true", help="writes the section of docs/performance.md; refused on a loaded machine")
    options = parser.parse_args()
    options.hosts = 1 if options.what == "ssh" else options.hosts or 50
    binary = Path(os.environ.get("ORCHESTRATE", ROOT / ".build/release/orchestrate")).resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"bench: there is no {binary}; build it: swift build -c release --product orchestrate")
    programs = install()
    before = load()
    if before > QUIET * os.cpu_count():
        say(f"the load average is {before:.2f}: what follows is no result")
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrate-bench.")))
        hosts = Hosts(home, options.hosts, stack)
        peers = Peers(hosts, binary, programs)
        results, loads = measure(options, hosts, peers)
        versions = peers.versions()
    reference = next((name for name in ("ssh", "xargs -P50 ssh") if name in results), "orchestrate")
    document = {
        "what": options.what, "date": time.strftime("%Y-%m-%d", time.gmtime()), "hosts": options.hosts, "delays": options.delays,
        "version": subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        "versions": versions, "algorithms": f"{KEX}, {CIPHER}, {MAC}", "rounds": options.rounds, "processors": os.cpu_count(),
        "load": {"before": before, "median": statistics.median(loads or [before]), "max": max(loads or [before])},
        # Fifty connections at once are the load: what was there before counts.
        "loaded": before > QUIET * os.cpu_count(), "reference": reference, "results": results,
        "bounds": bounds(options.what, results, options.delays),
    }
    print("\n".join(lines_of(document)))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.write:
        if document["loaded"]:
            sys.exit("bench: the machine was loaded: docs/performance.md stays as it is")
        text = "\n".join(lines_of(document))
        write_section("docs/performance.md", options.what, (
            f"`script/bench {options.what} --write`, {document['date']}, {document['version']}; {document['algorithms']}; {', '.join(versions)}.\n\n```\n{text}\n```"))
    if options.check and (document["loaded"] or not all(row["holds"] for row in document["bounds"])):
        sys.exit(1)


if __name__ == "__main__":
    main()
