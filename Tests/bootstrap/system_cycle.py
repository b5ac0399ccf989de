"""What every kind of step has to show: a plan without a trace, the same changes by apply, nothing the second time, drift named and mended, undo."""

import json
import shlex

PLACES = "/etc /usr/local /opt /root /home /var/lib/orchestrate /var/lib/apt /var/lib/dpkg /var/lib/docker/engine-id /var/lib/systemd"


def trace(host, places=PLACES):
    """Everything that a plan must leave alone."""
    return host.sh(f"find {places} -printf '%p %y %m %u:%g %s %T@ %l\\n' 2>/dev/null | grep -v '^/var/lib/systemd/[^ ]* d' | sort")


def content(host, places):
    """What an undo must bring back: kinds, modes, owners, contents."""
    return host.sh(f"find {places} -printf '%p %y %m %u:%g %l\\n' 2>/dev/null | sort; find {places} -type f -exec sha256sum {{}} + 2>/dev/null | sort")


def plan(host, kind, params=None, files=None, **options):
    before = trace(host)
    planned = host.plan(kind, params, files, **options)
    assert trace(host) == before, f"the plan of {kind} has left a trace"
    return planned


def settled(host, kind, params=None, files=None):
    assert plan(host, kind, params, files).changes == []
    again = host.apply(kind, params, files)
    assert again.changes == [], again.output
    return again


def applied(host, kind, params=None, files=None):
    """Plan, apply, both again."""
    planned = plan(host, kind, params, files)
    step = host.apply(kind, params, files)
    assert step.changes == planned.changes
    settled(host, kind, params, files)
    return step


def mended(host, kind, params, files, drift, subjects):
    """drift: a command; subjects: the changes that name it, all of them."""
    host.sh(drift)
    assert plan(host, kind, params, files).subjects == subjects, drift
    step = host.apply(kind, params, files)
    assert step.subjects == subjects, drift
    settled(host, kind, params, files)
    return step


class Deployment:
    """Whoever holds the host's lock shared, as a runner does."""

    def __init__(self, host, seconds=60):
        self.host = host
        holder = json.dumps({"who": "ada@laptop", "command": "deploy", "version": "v1.2", "since": "2026-11-21T20:00:00Z"}, separators=(",", ":"))
        host.sh(f"mkdir -p /var/lib/orchestrate/shop; echo {shlex.quote(holder)} >/var/lib/orchestrate/shop/holder; touch /var/lib/orchestrate/lock")
        locks = "flock -s /var/lib/orchestrate/lock flock /var/lib/orchestrate/shop/lock"
        host.sh(f"nohup setsid sh -c 'echo $$ >/run/deployment; exec {locks} sleep {seconds}' >/dev/null 2>&1 &")
        host.until(lambda: host.run("flock -n -x /var/lib/orchestrate/lock true", check=False).status, "the lock is held")

    def end(self):
        self.host.sh("kill -- -$(cat /run/deployment); rm -rf /var/lib/orchestrate/shop")
