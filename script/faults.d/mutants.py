"""Would the campaign notice? The runner's scripts on a droplet are changed so that one rule of docs/reliability.md is broken; a fault must bring a violation to light."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from droplets import sandbox
from faults import FAULTS
from rig import OLD, Broken, Rig
from runs import Campaign, Case, Instant

# FILE OLD NEW: in each bundle that lies there, exactly once.
CHANGE = """
import glob, sys
file, old, new = sys.argv[1:]
[path] = glob.glob("/var/lib/orchestrate/bundle/[0-9a-f]*/" + file)
text = open(path).read()
assert text.count(old) == 1, (path, old, text.count(old))
open(path, "w").write(text.replace(old, new))
"""


@dataclass
class Mutant:
    """What is broken, where, and the run that shows it; `named`: the invariants of which one has to say so."""

    rule: str
    changes: list[tuple[str, str, str]]
    operation: str
    fault: str
    event: str
    named: set[str]
    seconds: float = 0.0
    tries: int = 2


MUTANTS = [
    Mutant("what began is undone", [("undoing.sh", 'exec timeout -k 10 "$UNDO_TIMEOUT" sh ./undo.sh', "exit 0 #")],
           "deploy", "step killed", "started health", {"containers", "images", "releases"}),
    Mutant("without a client no step begins once the lease is over", [("runner.sh", "[ $((up_ms - _since)) -gt $((lease * 1000)) ]", "false")],
           "deploy", "SIGKILL", "started pull", {"lease"}),
    Mutant("`current` is renamed behind the gate, never before", [("steps/recreate.apply.sh", "# Nobody has to wait for the rest.", 'ln -sfn "releases/$ORCH_N" "$ORCH_OPT/current"')],
           "deploy", "SIGTERM", "started health", {"current", "containers", "releases", "journals"}),
    Mutant("the journal is on the disk before its effect", [("journal.sh", '[ "${3-}" = late ] || sync -d journal.jsonl || return 1', ":")],
           "deploy", "power loss", "ended recreate", {"containers", "images", "journals", "releases", "leftovers", "current"}, tries=4),
    Mutant("the lock is held until the undo is over", [("undoing.sh", "undo_all() {\n", "undo_all() {\n  exec 9>&-\n")],
           "failing", "second client", "undoing", {"journals", "containers", "releases", "the client's word", "history", "current", "images", "next operation"}, tries=4),
    Mutant("no secret outlives the deployment", [("closing.sh", '[ "$1" = stuck ] || forget_secrets', ":")],
           "deploy", "RST", "started health", {"secrets"}),
    Mutant("nothing is left of a deployment that has ended", [("closing.sh", "free_reserve\n", ":\n"), ("undoing.sh", "  free_reserve\n", "")],
           "deploy", "SIGINT", "started backup", {"temporary"}),
]


def main(options) -> int:
    missed = []
    options.binary = options.binary.resolve()
    campaign = Campaign(options, [], lambda: None)
    began = time.time()
    for mutant in MUTANTS:
        named: set[str] = set()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            options.keep = f"{folder}/evidence"
            sandbox("rm", f"{options.prefix}-mutant", check=False)
            rig = Rig(f"{options.prefix}-mutant", Path(folder), options.binary, options.lease)
            try:
                rig.prepare()
                if (mutant.operation == "deploy") != (rig.version() == OLD):
                    rig.operate("deploy")
                for change in mutant.changes:
                    rig.root('exec python3 - "$@"', *change, stdin=CHANGE)
                for seed in range(mutant.tries):
                    if named & mutant.named:
                        break
                    case = Case(seed, mutant.operation, [fault for fault in FAULTS if fault.name == mutant.fault], Instant(mutant.event, mutant.seconds), 0, options.lease)
                    try:
                        result = campaign.attempt(rig, case)
                    except Broken:  # what the try before has left
                        break
                    named |= {name for name, _ in result["violations"]}
                    campaign.line(result)
            finally:
                rig.close()
                sandbox("rm", f"{options.prefix}-mutant", check=False)
        caught = named & mutant.named
        if not caught:
            missed.append(mutant.rule)
        print(f"{'ok  ' if caught else 'FAIL'} {mutant.rule}: {', '.join(sorted(caught)) or 'not noticed'}", flush=True)
    print(f"{len(MUTANTS)} mutants, {len(missed)} not noticed, in {time.time() - began:.0f} s")
    return 1 if missed else 0
