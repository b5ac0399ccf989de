#!/usr/bin/env python3
"""Breaks deployments, rollbacks and rotations at instants chosen by seed, and checks what is left (script/faults).

A run takes the market bot in a known state (v1.0.0 or v1.1.0, healthy, under messages, rows written one after the other), begins an operation through the
real binary, injects a fault, sometimes two within ten seconds, waits until the host is quiet, and has the observer look. The next operation must then work. A seed
decides fault, operation and instant: `--seed S --runs 1` repeats a run. Seeds that follow one another go through all the faults.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Tests/sandbox"), str(ROOT / "script/lib")]
from page import write_section  # noqa: E402

SEED = 1000  # of the first run, if none is given


def spread(values):
    values = sorted(values)
    return statistics.median(values), values[min(len(values) - 1, int(len(values) * 0.99))], values[-1]


def table(document: dict) -> str:
    """Markdown: by fault, runs and seconds to safety; of those that were undone also the median of what these consist of."""
    rows = ["| family | fault | runs | violations | median s | p99 s | max s | until the undo, s | the undo, s |", "|---|---|---|---|---|---|---|---|---|"]
    counted = [result for result in document["results"] if not result["late"]]
    groups: dict[tuple, list] = {}
    for result in counted:
        groups.setdefault((result["family"], result["faults"][0] if len(result["faults"]) == 1 else "two within ten seconds"), []).append(result)

    def row(family, name, results):
        times = [f"{value:.1f}" for value in spread([result["safe_after"] for result in results] or [0])]
        undone = [result["parts"] for result in results if "undo" in result.get("parts", {})]
        for part in ("until_undo", "undo"):
            times.append(f"{statistics.median([parts[part] for parts in undone]):.1f}" if undone else "")
        rows.append(f"| {family} | {name} | {len(results)} | {sum(bool(result['violations']) for result in results)} | {' | '.join(times)} |")

    for (family, name), results in sorted(groups.items(), key=lambda item: (item[0][1] == "two within ten seconds", item[0])):
        row(family, name, results)
    row("all", "", counted)
    return "\n".join(rows)


def section(document: dict) -> str:
    late = sum(result["late"] for result in document["results"])
    return (f"The last whole campaign, made with `{document['command']}`; {document['lease']} s of lease, "
            f"{len(document['results']) - late} runs" + (f" ({late} more whose operation had ended before the fault)" if late else "") + ".\n"
            "Seconds from the fault (the second of two) until the host was consistent and its lock free: the lease, the running step and the undo's own steps are part of it, and where\n"
            "the deployment goes on, whatever it had still to do.\n\n" + table(document))


def main():
    parser = argparse.ArgumentParser(prog="script/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, metavar="N")
    parser.add_argument("--seed", type=int, default=SEED, metavar="S", help=f"of the first run ({SEED})")
    parser.add_argument("--faults", default="", metavar="LIST", help="families, or names, of faults; separated by commas")
    parser.add_argument("--operation", choices=["deploy", "rollback", "rotate", "failing"], help="only this one, whatever the seed says")
    parser.add_argument("--lease", type=int, default=3, metavar="SECONDS")
    parser.add_argument("--droplets", type=int, metavar="N", help="that run beside each other (2; with --smoke: 3)")
    parser.add_argument("--prefix", metavar="NAME", help="of the droplets' names (faults; with --against: against)")
    parser.add_argument("--binary", type=Path, default=Path(os.environ.get("ORCHESTRATE", ROOT / ".build/debug/orchestrate")), metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="gets the results")
    parser.add_argument("--keep", metavar="DIR", help="gets what belongs to a violation")
    parser.add_argument("--table", action="store_true", help="prints the table, also of --from")
    parser.add_argument("--write", action="store_true", help="puts the table into docs/reliability.md")
    parser.add_argument("--from", dest="source", type=Path, action="append", metavar="FILE", help="takes the results of this file instead of running; several are put together")
    parser.add_argument("--smoke", action="store_true", help="a run of each fault but the slow ones: for script/test")
    parser.add_argument("--self-test", action="store_true", help="plants each violation on a droplet: the observer must name it")
    parser.add_argument("--mutants", action="store_true", help="breaks the runner's rules one by one: the campaign must notice")
    parser.add_argument("--against", choices=["bash"], help="breaks the careful bash script of script/bench deploy instead, by the client's and the network's faults")
    parser.add_argument("--ours", type=Path, metavar="FILE", help="with --against: results of the normal campaign, for a column beside the script's")
    parser.add_argument("--list", action="store_true", help="prints the faults")
    options = parser.parse_args()
    options.droplets = options.droplets or (3 if options.smoke else 2)
    options.prefix = options.prefix or ("against" if options.against else "faults")
    if options.against and (options.smoke or options.self_test or options.mutants):
        parser.error("--against goes with none of --smoke, --self-test, --mutants")
    if options.against and options.operation not in (None, "deploy", "rollback"):
        parser.error("the script that --against breaks can deploy and roll back")
    if options.against and not options.faults:
        options.faults = "client,network"

    from faults import FAULTS  # asks for the sandbox's settings, which --help doesn't need

    wanted = [word.strip() for word in options.faults.split(",") if word.strip()]
    faults = [fault for fault in FAULTS if not wanted or fault.family in wanted or fault.name in wanted]
    if unknown := [word for word in wanted if not any(word in (fault.family, fault.name) for fault in FAULTS)]:
        parser.error(f"no fault is called {', '.join(unknown)}; --list names them")
    if options.against and any(fault.family not in ("client", "network") for fault in faults):
        parser.error("--against takes faults of the families client and network")
    if options.smoke:  # each fault once that is done within a minute
        faults = [fault for fault in faults if not fault.slow]
        options.runs = len(faults)
    if options.list:
        for fault in faults:
            print(f"{fault.family:8} {fault.name}")
        return 0
    if options.self_test:
        import selftest

        return selftest.main(options)
    if options.mutants:
        import mutants

        return mutants.main(options)
    if options.source:
        documents = [json.loads(path.read_text()) for path in options.source]
        document = {**documents[0], "command": " && ".join(dict.fromkeys(one["command"] for one in documents)),
                    "results": [result for one in documents for result in one["results"]]}
    else:
        document = run(options, faults)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    show(options, faults, document)
    counted = [result for result in document["results"] if not result["late"]]
    bad = [result for result in document["results"] if result["violations"]]
    print(f"{len(counted)} runs, {len(document['results']) - len(counted)} late, {len(bad)} with violations"
          + (f"; seeds {', '.join(str(result['seed']) for result in bad)}" if bad else "")
          + (f"\nthe campaign broke off: {document['failed']}" if document.get("failed") else ""))
    return 1 if bad or document.get("failed") or not counted else 0


def show(options, faults, document):
    if options.against:
        import against

        ours = json.loads(options.ours.read_text()) if options.ours else None
        name, made, whole = "against", against.table, against.section
        arguments = (document, faults, ours)
    else:
        name, made, whole, arguments = "faults", table, section, (document,)
    if options.table:
        print(made(*arguments))
    if options.write:
        write_section("docs/reliability.md", name, whole(*arguments))


def run(options, faults) -> dict:
    if options.against:
        from against import Against as Campaign
        from against import case
    else:
        from runs import Campaign, case
    if not options.against and not os.access(options.binary, os.X_OK):
        sys.exit(f"faults: {options.binary} isn't there: swift build --product orchestrate, or --binary PATH")

    options.binary = options.binary.resolve()
    seeds = [case(seed, faults, options.lease) for seed in range(options.seed, options.seed + options.runs)]
    if options.operation:
        seeds = [replace(one, operation=options.operation) for one in seeds]
    words = ["--smoke"] if options.smoke else [
        *([f"--against {options.against}"] if options.against else []), f"--runs {options.runs}", f"--seed {options.seed}",
        *([f"--faults {shlex.quote(options.faults)}"] if options.faults else []), *([f"--operation {options.operation}"] if options.operation else [])]
    began = time.time()

    def document() -> dict:
        return {"command": "script/faults " + " ".join(words), "lease": options.lease, "seconds": round(time.time() - began),
                "results": sorted(campaign.results, key=lambda result: result["seed"]), "failed": campaign.failed}

    def keep():  # after each run: what there is outlives whatever ends the campaign
        if options.json:
            options.json.write_text(json.dumps(document(), indent=1) + "\n")

    campaign = Campaign(options, seeds, keep)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        threads = []
        for number in range(1, min(options.droplets, options.runs) + 1):
            inside = Path(folder) / str(number)
            inside.mkdir()
            threads.append(threading.Thread(target=campaign.work, args=(f"{options.prefix}-{number}", inside)))
            threads[-1].start()
        for thread in threads:
            while thread.is_alive():
                try:
                    thread.join()
                except KeyboardInterrupt:
                    campaign.failed = "interrupted"
                    print("faults: the runs that have begun are ended", file=sys.stderr, flush=True)
    return document()


if __name__ == "__main__":
    sys.exit(main())
