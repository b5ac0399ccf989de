"""A small project that is sound, and a listener where its host would be."""

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("ORCHESTRATE", ROOT / ".build/debug/orchestrate"))

INVENTORY, PLAYBOOK, TEMPLATE = "inventories/prod.yml", "playbooks/deploy.yml", "env.template"
GOOD = {
    INVENTORY: """\
app: market-bot
hosts:
  bot-1: { address: 127.0.0.1, port: PORT, user: deploy, roles: [app, db] }
ssh: { known_hosts: known_hosts }
compose: compose.yml
env: { template: env.template }
services: { app: [bot], database: postgres }
""",
    PLAYBOOK: """\
steps:
  - preflight: { disk_free: 2GiB }
  - release: { files: [redis.conf] }
  - env: {}
  - pull: {}
  - recreate: { services: [bot] }
  - health: { service: bot, http: "http://localhost:8000/health", within: 60s }
  - commit: {}
""",
    TEMPLATE: """\
LOG_LEVEL=INFO
TOKEN=${TOKEN:?the token}
""",
    "compose.yml": "services: { bot: { image: bot }, postgres: { image: postgres } }\n",
    "redis.conf": "\n",
    "known_hosts": "",
}


@dataclass
class Bench:
    """A project folder, and a listener in the place of its host."""

    folder: Path
    listener: socket.socket

    def write(self, path: str, content: bytes):
        (self.folder / path).write_bytes(content)

    def run(self, *arguments: str, before: tuple[str, ...] = (), cwd: str = "."):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TOKEN": "t", "USER": "ada"}
        return subprocess.run(
            [*before, BINARY, *arguments], cwd=self.folder / cwd, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=30,
        )

    def was_called(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def bench(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = str(listener.getsockname()[1])
        for path, text in GOOD.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text.replace("PORT", port))
        yield Bench(tmp_path, listener)
