"""Deployments back to back on one droplet, and what grows with them: v1.0.0 to v1.1.0, with its migration and a backup, and back, over and over.

At the start, and after every so many deployments, the host is measured. Exit status 1: something grew between the last third's beginning and its end by more
than what the playbook keeps allows, or a deployment failed."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/sandbox"))

# What is measured, in the droplet: a word, a number. $1: the project.
MEASURE = """
used() { df -B1 --output=used /var/lib/orchestrate | tail -n 1; }
inodes() { df --output=iused /var/lib/orchestrate | tail -n 1; }
size() { du -sB1 "$1" 2>/dev/null | cut -f 1; }
echo disk $(used)
echo inodes $(inodes)
echo state $(size /var/lib/orchestrate)
echo releases $(size /opt/$1)
echo deployments $(ls /var/lib/orchestrate/$1/deployments | wc -l)
echo journals $(cat /var/lib/orchestrate/$1/deployments/*/journal.jsonl | wc -c)
echo history $(wc -c </var/lib/orchestrate/$1/history.jsonl)
echo images $(docker images -q | sort -u | wc -l)
echo containers $(docker ps -aq | wc -l)
echo journald $(size /var/log/journal)
echo dockerd $(awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$(cat /run/docker.pid)/status")
echo processes $(ls -d /proc/[0-9]* | wc -l)
"""
# By how much a measure may be greater at the end than it was after two thirds: a share of it, and something in any case. The history has a line per deployment for ever.
BOUNDS = {
    "disk": (0.02, 32 << 20), "inodes": (0.02, 500), "state": (0.05, 1 << 20), "releases": (0.05, 4 << 20), "deployments": (0, 2), "journals": (0.1, 1 << 16),
    "images": (0, 1), "containers": (0, 0), "dockerd": (0.25, 32 << 20), "processes": (0.1, 10), "seconds": (0.25, 2),
}
BARS = " ▁▂▃▄▅▆▇█"


def plot(values):
    low, high = min(values), max(values)
    return "".join(BARS[1 + round((value - low) / (high - low) * 7)] if high > low else BARS[1] for value in values)


def grown(samples):
    """What broke its bound, a line each."""
    late = [sample for sample in samples if sample["after"] >= samples[-1]["after"] * 2 / 3]
    for name, (share, anyway) in BOUNDS.items():
        first, last = late[0][name], late[-1][name]
        if last > first * (1 + share) + anyway:
            yield f"{name}: {first} after {late[0]['after']} deployments, {last} after {late[-1]['after']}"


def table(samples):
    lines = [f"{'':12} {'first':>14} {'after a third':>14} {'after two':>14} {'last':>14}"]
    marks = [samples[round(part * (len(samples) - 1) / 3)] for part in range(4)]
    for name in [*BOUNDS, "history", "journald"]:
        lines.append(f"{name:12} " + " ".join(f"{mark[name]:>14,}" for mark in marks) + "  " + plot([sample[name] for sample in samples]))
    return "\n".join(lines)


def measure(rig, after, seconds):
    from rig import APP

    sample = {"after": after, "seconds": round(seconds, 2)}
    for line in rig.root(MEASURE, APP).splitlines():
        name, _, value = line.partition(" ")
        sample[name] = int(value or 0)
    return sample


def main():
    parser = argparse.ArgumentParser(prog="script/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=300, metavar="N")
    parser.add_argument("--every", type=int, default=10, metavar="N", help="measures after so many (10)")
    parser.add_argument("--binary", type=Path, default=Path(os.environ.get("ORCHESTRATE", ROOT / ".build/release/orchestrate")), metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="gets all samples")
    options = parser.parse_args()

    from droplets import sandbox  # asks for the sandbox's settings, which --help doesn't need
    from rig import Rig

    sandbox("rm", "soak", check=False)
    with tempfile.TemporaryDirectory(prefix="orchestrate-soak.") as folder:
        rig = Rig("soak", Path(folder) / "project", options.binary.resolve(), 60)
        try:
            rig.prepare()
            samples = [measure(rig, 0, 0)]
            taken = []
            for number in range(1, options.deployments + 1):
                began = time.monotonic()
                if number % 2:
                    rig.older_schema()
                    rig.operate("deploy")
                else:
                    rig.operate("rollback")
                taken.append(time.monotonic() - began)
                if number % options.every == 0 or number == options.deployments:
                    samples.append(measure(rig, number, sum(taken) / len(taken)))
                    taken = []
                    print(f"soak: {number} of {options.deployments}: {samples[-1]['seconds']} s each, {samples[-1]['disk'] >> 20} MiB, {samples[-1]['images']} images", flush=True)
        finally:
            rig.close()
    samples[0]["seconds"] = samples[1]["seconds"]
    if options.json:
        options.json.write_text(json.dumps(samples, indent=1))
    print(table(samples))
    faults = list(grown(samples))
    print("\n".join(faults) or "nothing grows but the history")
    sandbox("rm", "soak")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
