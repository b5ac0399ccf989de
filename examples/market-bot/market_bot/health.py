"""/health: a few lines of HTTP on the container's loopback, answered from what the checks saw last, so that it answers in
milliseconds also while PostgreSQL doesn't."""

import asyncio
import contextlib
import json
import logging
import time
from datetime import UTC, datetime

from . import VERSION
from .counters import UNAVAILABLE as REDIS_UNAVAILABLE
from .counters import Counters
from .judge import judge
from .store import UNAVAILABLE as STORE_UNAVAILABLE
from .store import Store

log = logging.getLogger("market_bot.health")
CHECK_EVERY = 1.0


def _why(error: BaseException) -> str:
    """One short line, without addresses or statements."""
    text = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__


class Health:
    def __init__(self, poll_age_limit: float) -> None:
        self.poll_age_limit = poll_age_limit
        self.began = time.monotonic()
        self.started = False  # true once the bot has begun to ask for messages
        self.last_poll: float | None = None
        self.postgres = self.redis = "not checked yet"
        self.schema_revision: str | None = None
        self._status: str | None = None
        self._since = datetime.now(UTC)

    def polled(self) -> None:
        self.started = True
        self.last_poll = time.monotonic()

    def document(self) -> dict:
        now = time.monotonic()
        age = None if self.last_poll is None else now - self.last_poll
        status, reasons = judge(self.started, age, self.poll_age_limit, self.postgres, self.redis)
        if status != self._status:
            self._status, self._since = status, datetime.now(UTC)
            log.info("status %s", status, extra={"fields": {"status": status, "reasons": reasons}})
        return {
            "status": status,
            "reasons": reasons,
            "since": self._since.isoformat(timespec="milliseconds"),
            "version": VERSION,
            "uptime_s": round(now - self.began, 3),
            "last_poll_age_s": None if age is None else round(age, 3),
            "postgres": self.postgres,
            "redis": self.redis,
            "schema_revision": self.schema_revision,
        }

    async def watch(self, store: Store, counters: Counters) -> None:
        """Looks at PostgreSQL and Redis once a second, both at once, until cancelled."""
        while True:
            await asyncio.gather(self._check_postgres(store), self._check_redis(counters))
            self.document()  # notices a change of status also when nobody asks
            await asyncio.sleep(CHECK_EVERY)

    async def _check_postgres(self, store: Store) -> None:
        try:
            self.schema_revision = await store.revision()
            self.postgres = "ok"
        except STORE_UNAVAILABLE as error:
            self.postgres = _why(error)

    async def _check_redis(self, counters: Counters) -> None:
        try:
            await counters.check()
            self.redis = "ok"
        except REDIS_UNAVAILABLE as error:
            self.redis = _why(error)

    async def serve(self, port: int, address: str = "127.0.0.1") -> asyncio.Server:
        return await asyncio.start_server(self._answer, address, port)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(5):
                request = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                if request[1:2] == [b"/health"]:
                    document = self.document()
                    status = b"200 OK" if document["status"] in ("healthy", "degraded") else b"503 Service Unavailable"
                else:
                    document, status = {"error": "only /health is here"}, b"404 Not Found"
                body = json.dumps(document).encode()
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                    % (status, len(body), body)
                )
                await writer.drain()
        writer.close()
