"""Runs inside the droplet, as root, with nothing but Python: prints what is true there as one JSON document. Decides nothing (observer.py does)."""

import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys

PROJECT, OUR_MARK = sys.argv[1], sys.argv[2]
OPT, STATE = f"/opt/{PROJECT}", f"/var/lib/orchestrate/{PROJECT}"
COMPOSE = "/usr/libexec/docker/cli-plugins/docker-compose"
CLIENTS = (
    "runner.sh", "attach.sh", "apply.sh", "undo.sh", "boot.sh", "check.sh", "peer-host-deploy.sh", "peer-host-rollback.sh",
    "pg_dump", "pg_restore", "docker-compose", "alembic")


def out(*words, timeout=20):
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        return done.stdout if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_is_free(path):
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def processes():
    """The product's and its children's: whoever runs one of our scripts, a client of Docker, or a dump. The observer's own carry its mark."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = [word.decode(errors="replace") for word in file.read().split(b"\0")[:-1]]
        except OSError:
            continue
        line = " ".join(words)
        names = {os.path.basename(word) for word in words}
        if OUR_MARK not in line and (names & set(CLIENTS) or words and os.path.basename(words[0]) == "docker"):
            found.append(line[:160])
    return found


def tree(top):
    """Every file below, with its mode; releases' own directories by name only."""
    files = []
    for base, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(base, name)
            try:
                info = os.lstat(path)
            except OSError:
                continue
            files.append([path, stat.S_IMODE(info.st_mode), stat.S_IFMT(info.st_mode) >> 12, info.st_size])
    return files


def holders(secrets):
    """Files that hold one of the secrets, with their modes."""
    found = []
    for top in (OPT, "/var/lib/orchestrate", "/tmp", "/dev/shm", "/run/user", "/home", "/root"):
        for path, mode, kind, size in tree(top):
            if kind == 8 and 0 < size < 4 << 20:
                try:
                    with open(path, "rb") as file:
                        data = file.read()
                except OSError:
                    continue
                if any(secret in data for secret in secrets):
                    found.append([path, mode])
    return found


def releases():
    found = {}
    for number in os.listdir(f"{OPT}/releases") if os.path.isdir(f"{OPT}/releases") else []:
        folder = f"{OPT}/releases/{number}"
        found[number] = {name: text(f"{folder}/{name}") for name in ("release.json", ".env", "schema", "effective.json", "images.yml")}
    return found


def mounted_files():
    """Content of each folder below files/: its name goes by its content, so that it never changes."""
    found = {}
    top = f"{OPT}/files"
    for name in os.listdir(top) if os.path.isdir(top) else []:
        found[name] = {os.path.relpath(path, f"{top}/{name}"): sha256(path) for path, _, kind, _ in tree(f"{top}/{name}") if kind == 8}
    return found


def backups():
    top = f"{OPT}/backups"
    return {name: sha256(f"{top}/{name}") if name.endswith(".dump") else text(f"{top}/{name}")
            for name in (os.listdir(top) if os.path.isdir(top) else [])}


def containers():
    ids = (out("docker", "ps", "-aq", "--no-trunc") or "").split()
    return json.loads(out("docker", "inspect", *ids) or "null") if ids else []


def running(everything, service):
    for one in everything or []:
        labels = one["Config"]["Labels"]
        if labels.get("com.docker.compose.service") == service and labels.get("com.docker.compose.oneoff") == "False" and one["State"]["Running"]:
            return one["Id"]
    return None


def sql(container, statement):
    return out("docker", "exec", "-e", f"PGAPPNAME={OUR_MARK}", container, "psql", "-U", "market", "-d", "market", "-Atc", statement)


def lets_in(container, password):
    """Over the network, where PostgreSQL asks for the password; it is in no argument."""
    inside = "read -r PGPASSWORD; export PGPASSWORD; exec psql -X -w -U market -h $(hostname -i | cut -d ' ' -f 1) -d market -Atc 'select 1'"
    words = ["docker", "exec", "-i", "-e", f"PGAPPNAME={OUR_MARK}", container, "sh", "-c", inside]
    try:
        return subprocess.run(words, input=password + "\n", capture_output=True, text=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main():
    everything = containers()
    database, bot = running(everything, "postgres"), running(everything, "bot")
    current = os.readlink(f"{OPT}/current") if os.path.islink(f"{OPT}/current") else None
    hashes = out(COMPOSE, "-p", PROJECT, "-f", f"{OPT}/current/effective.json", "config", "--hash", "*") if current else None
    numbers = os.listdir(f"{STATE}/deployments") if os.path.isdir(f"{STATE}/deployments") else []
    secrets = {line.split("=", 1)[1].encode() for line in (text(f"{STATE}/generated.env") or "").splitlines() if "=" in line}
    secrets |= {line.split("=", 1)[1].encode() for line in (text(f"{OPT}/current/.env") or "").splitlines() if line.startswith("TELEGRAM_TOKEN=")}
    health = out("docker", "exec", bot, "python3", "-m", "market_bot.healthcheck") if bot else None
    revision = rows = messages = sessions = None
    if database:
        answer = sql(database, "select 'V ' || version_num from alembic_version union all select 'R ' || seq || ' ' || count(*) from faults_rows group by seq"
                     " union all select 'M ' || update_id || ' ' || (answered_at is not null) from messages where received_at > now() - interval '20 minutes'"
                     " union all select 'S ' || application_name || ' ' || coalesce(state, '') from pg_stat_activity where application_name like 'orch-%'")
        if answer is not None:
            split = [line.split(" ") for line in answer.splitlines()]
            revision = [line[1] for line in split if line[0] == "V"]
            rows = {line[1]: int(line[2]) for line in split if line[0] == "R"}
            messages = {line[1]: line[2] == "true" for line in split if line[0] == "M"}
            sessions = [" ".join(line[1:]) for line in split if line[0] == "S"]
    written = dict(line.split("=", 1) for line in (text(f"{OPT}/current/.env") or "").splitlines() if "=" in line)
    units = out("systemctl", "list-units", "--all", "--plain", "--no-legend", "orchestrate*") or ""
    json.dump({
        "current": current,
        "releases": releases(),
        "files": mounted_files(),
        "backups": backups(),
        "tree": tree(OPT) + tree("/var/lib/orchestrate"),
        "memory": [path for top in ("/dev/shm", "/run/user") for path, _, kind, _ in tree(top) if kind == 8 and "orch" in path],
        "secrets": holders(secrets),
        "containers": everything,
        "hashes": dict(line.split() for line in hashes.splitlines()) if hashes is not None else None,
        "tags": (out("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=orchestrate/{PROJECT}/*") or "").split(),
        "volumes": (out("docker", "volume", "ls", "-q") or "").split(),
        "networks": (out("docker", "network", "ls", "--format", "{{.Name}}") or "").split(),
        "health": health,
        "lets_in": lets_in(database, written.get("DB_PASSWORD", "")) if database else None,
        "generated": text(f"{STATE}/generated.env"),
        "revision": revision,
        "rows": rows,
        "messages": messages,
        "sessions": sessions,
        "locks": {name: lock_is_free(path) for name, path in (("project", f"{STATE}/lock"), ("above", "/var/lib/orchestrate/lock"), ("the bash script's", f"{OPT}/lock"))},
        "processes": processes(),
        "units": [line.split()[0] for line in units.splitlines() if line.split()[0].startswith(f"orchestrate-{PROJECT}-")
                  or line.split()[2] in ("active", "activating", "deactivating", "failed") and not line.startswith("orchestrate-sandbox")],
        "timers": [line.split()[-1] for line in (out("systemctl", "list-timers", "--all", "--plain", "--no-legend", "orchestrate*") or "").splitlines()],
        "journals": {number: text(f"{STATE}/deployments/{number}/journal.jsonl") for number in numbers},
        "history": text(f"{STATE}/history.jsonl"),
        "sequence": text(f"{STATE}/sequence"),
        "state": {name: text(f"{STATE}/{name}") for name in ("open", "holder", "runner.pid")},
    }, sys.stdout)


main()
