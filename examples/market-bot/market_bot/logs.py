"""JSON lines on stdout, without personal data: update ids and counts, never chat ids, names or texts."""

import json
import logging
import sys
from datetime import UTC, datetime


class JSONLines(logging.Formatter):
    def __init__(self, secrets: list[str]) -> None:
        super().__init__()
        self.secrets = [secret for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        document.update(getattr(record, "fields", {}))
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        line = json.dumps(document, default=str)
        for secret in self.secrets:
            line = line.replace(secret, "***")
        return line


def set_up(level: str, secrets: list[str]) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JSONLines(secrets))
    # Libraries log requests: httpx the URL with the token in it, telegram whole messages. Not at any level of ours.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("market_bot").setLevel(level)
