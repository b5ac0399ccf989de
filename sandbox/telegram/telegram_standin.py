#!/usr/bin/env python3
"""A stand-in for Telegram's Bot API (https://core.telegram.org/bots/api), for tests without a network.

It speaks the part that a long-polling bot uses, with Telegram's own semantics where they matter for a deploy:

- getUpdates: an update is forgotten once a call asks for a higher offset, and delivered again until then;
  a negative offset counts from the end; an empty answer comes after `timeout` seconds.
- Two pollers: the older call is ended with 409, as Telegram does.
- sendMessage, getMe, deleteWebhook, setMyCommands and so on answer as PTB expects.

Each bot (the number before the colon of its token) has a state of its own, so that several droplets share one stand-in.

The control API listens on another port, takes and gives JSON, and takes `?bot=ID` (default: 1000001):

    POST /inject   {"chat": 7, "text": "hello", "id": "m1"}   one message (id: default "m<update id>")
    POST /stream   {"per_second": 5, "count": 100}            a stream (count 0 or none: until /stream/stop)
    POST /stream/stop
    POST /reset                                               forget everything, stop the stream
    GET  /counts                                              see State.counts
    GET  /messages                                            every message with its times and answers
    GET  /answers?after=N                                     every sendMessage, from the Nth on
    GET  /wait?answered=N&timeout=S                           like /counts, once N messages are answered or S is over
    GET  /healthz

Times are seconds since the epoch, as floats, taken by this process's clock. Everything runs on one event loop: no state is
shared between threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import signal
import sys
import time
import urllib.parse
from dataclasses import dataclass, field

DEFAULT_BOT = "1000001"
MAX_BODY = 1 << 20
# How long a newer poll waits for the end of an older one whose client has just hung up: a client that cancels a poll and
# asks again at once is one poller, not two.
HANG_UP_GRACE = 0.05


@dataclass
class Message:
    """One injected message and what became of it."""

    id: str
    update_id: int
    message_id: int
    chat: int
    text: str
    injected_at: float
    delivered_at: list[float] = field(default_factory=list)
    confirmed_at: float | None = None
    answers: list[dict] = field(default_factory=list)

    def update(self) -> dict:
        entities = []
        if self.text.startswith("/"):
            entities = [{"type": "bot_command", "offset": 0, "length": len(self.text.split()[0])}]
        return {
            "update_id": self.update_id,
            "message": {
                "message_id": self.message_id,
                "date": int(self.injected_at),
                "chat": {"id": self.chat, "type": "private", "first_name": f"Chat {self.chat}"},
                "from": {"id": self.chat, "is_bot": False, "first_name": f"Chat {self.chat}", "language_code": "en"},
                "text": self.text,
                "entities": entities,
            },
        }

    def report(self) -> dict:
        return {
            "id": self.id,
            "update_id": self.update_id,
            "chat": self.chat,
            "text": self.text,
            "injected_at": self.injected_at,
            "delivered_at": self.delivered_at[0] if self.delivered_at else None,
            "deliveries": len(self.delivered_at),
            "confirmed_at": self.confirmed_at,
            "answered_at": self.answers[0]["at"] if self.answers else None,
            "answers": self.answers,
        }


class Poll:
    """One open getUpdates call."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.closed = asyncio.Event()
        self.terminated = False


class State:
    """What the stand-in knows of one bot."""

    def __init__(self, bot: str) -> None:
        self.bot = bot
        self.stream_task: asyncio.Task | None = None
        self.poll: Poll | None = None
        self.clear()

    def clear(self) -> None:
        self.stop_stream()
        self.messages: dict[int, Message] = {}  # by update id
        self.by_message_id: dict[int, Message] = {}
        self.by_id: dict[str, Message] = {}
        self.pending: list[Message] = []
        self.answers: list[dict] = []
        self.strays = 0
        self.conflicts: list[float] = []
        self.polls = 0
        self.last_poll_at: float | None = None
        self.first_poll_at: float | None = None
        self.answered = asyncio.Condition()
        self.streamed = 0
        # Ids go on after a reset and after a restart of the stand-in: Telegram never gives an update id twice, and a bot
        # that keeps them in its database relies on that.
        start = max(int(time.time() * 1000) & 0x7FFF_FFFF_FFFF, getattr(self, "_next", 0))
        self._next = start

    # -- injecting

    def inject(self, chat: int, text: str, id: str | None = None) -> Message:
        self._next += 1
        number = self._next
        message = Message(
            id=id or f"m{number}",
            update_id=number,
            message_id=number & 0x7FFF_FFFF,
            chat=chat,
            text=text,
            injected_at=time.time(),
        )
        if message.id in self.by_id:
            raise BadRequest(f"the id {message.id} was used already")
        self.messages[message.update_id] = message
        self.by_message_id[message.message_id] = message
        self.by_id[message.id] = message
        self.pending.append(message)
        if self.poll:
            self.poll.wake.set()
        return message

    def start_stream(self, per_second: float, count: int, chat: int, text: str) -> None:
        if not 0 < per_second <= 1000:
            raise BadRequest("per_second must be above 0 and at most 1000")
        self.stop_stream()
        self.streamed = 0
        self.stream_task = asyncio.get_running_loop().create_task(self._stream(per_second, count, chat, text))

    async def _stream(self, per_second: float, count: int, chat: int, text: str) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in itertools.count():
            if count and number >= count:
                return
            # Against the start, so that a late wake-up doesn't thin the stream out.
            await asyncio.sleep(max(0.0, start + number / per_second - loop.time()))
            self.inject(chat + number % 10, f"{text} {number}")
            self.streamed += 1

    def stop_stream(self) -> None:
        if self.stream_task:
            self.stream_task.cancel()
        self.stream_task = None

    @property
    def streaming(self) -> bool:
        return self.stream_task is not None and not self.stream_task.done()

    # -- the bot's side

    def confirm(self, offset: int) -> None:
        now = time.time()
        if offset < 0:
            kept = self.pending[offset:]
        else:
            kept = [message for message in self.pending if message.update_id >= offset]
        for message in self.pending[: len(self.pending) - len(kept)]:
            message.confirmed_at = now
        self.pending = kept

    async def get_updates(self, poll: Poll, offset: int, limit: int, timeout: float) -> list[dict] | None:
        """Updates for one call; None if a newer call ended it."""
        older, self.poll = self.poll, poll
        if older is not None and not older.closed.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(older.closed.wait(), HANG_UP_GRACE)
            if not older.closed.is_set():
                self.conflicts.append(time.time())
                older.terminated = True
                older.wake.set()
        self.polls += 1
        if offset:
            self.confirm(offset)
        deadline = time.monotonic() + timeout
        while not self.pending and not poll.terminated:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            poll.wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(poll.wake.wait(), left)
        if poll.terminated:
            return None
        now = time.time()
        self.last_poll_at = now
        self.first_poll_at = self.first_poll_at or now
        batch = self.pending[:limit]
        for message in batch:
            message.delivered_at.append(now)
        return [message.update() for message in batch]

    async def send_message(self, chat: int, text: str, reply_to: int | None) -> dict:
        now = time.time()
        message = self.by_message_id.get(reply_to) if reply_to is not None else None
        if message is None:
            # No reply reference: the answer must name the message's id.
            message = next((self.by_id[word] for word in re.findall(r"[\w.-]+", text) if word in self.by_id), None)
        answer = {"at": now, "chat": chat, "text": text, "id": message.id if message else None}
        self.answers.append(answer)
        if message is None:
            self.strays += 1
        else:
            message.answers.append({"at": now, "text": text})
        async with self.answered:
            self.answered.notify_all()
        self._next += 1
        return {
            "message_id": self._next & 0x7FFF_FFFF,
            "date": int(now),
            "chat": {"id": chat, "type": "private", "first_name": f"Chat {chat}"},
            "from": me(self.bot),
            "text": text,
        }

    # -- what is asked from outside

    def counts(self) -> dict:
        messages = self.messages.values()
        answered = [m for m in messages if m.answers]
        delays = sorted(m.answers[0]["at"] - m.injected_at for m in answered)
        times = [answer["at"] for answer in self.answers]
        return {
            "bot": self.bot,
            "sent": len(self.messages),
            "delivered": sum(1 for m in messages if m.delivered_at),
            "redelivered": sum(1 for m in messages if len(m.delivered_at) > 1),
            "answered": len(answered),
            "answered_twice": sum(1 for m in answered if len(m.answers) > 1),
            "unanswered": len(self.messages) - len(answered),
            "strays": self.strays,
            "conflicts": len(self.conflicts),
            "conflicts_at": self.conflicts,
            "pending": len(self.pending),
            "polls": self.polls,
            "polling": self.poll is not None and not self.poll.closed.is_set(),
            "first_poll_at": self.first_poll_at,
            "last_poll_at": self.last_poll_at,
            "streaming": self.streaming,
            "delay_median_s": delays[len(delays) // 2] if delays else None,
            "delay_max_s": delays[-1] if delays else None,
            "longest_silence_s": max((b - a for a, b in itertools.pairwise(times)), default=None),
            "now": time.time(),
        }

    async def wait(self, answered: int, timeout: float) -> dict:
        def reached() -> bool:
            return sum(1 for m in self.messages.values() if m.answers) >= answered

        async with self.answered:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.answered.wait_for(reached), timeout)
        return self.counts()


def me(bot: str) -> dict:
    return {
        "id": int(bot),
        "is_bot": True,
        "first_name": "Market",
        "username": "market_test_bot",
        "can_join_groups": False,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
    }


# -- HTTP/1.1, as much of it as httpx, curl and urllib use


class BadRequest(Exception):
    pass


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def parameters(self) -> dict[str, str]:
        """Query and body (JSON, form or multipart text parts) in one; the body wins."""
        values = dict(self.query)
        kind = self.headers.get("content-type", "")
        if not self.body:
            return values
        if kind.startswith("application/json"):
            decoded = json.loads(self.body)
            if not isinstance(decoded, dict):
                raise BadRequest("an object was expected")
            values.update(decoded)
        elif kind.startswith("multipart/form-data"):
            boundary = re.search(r'boundary="?([^";]+)', kind)
            if not boundary:
                raise BadRequest("multipart without a boundary")
            for part in self.body.split(b"--" + boundary[1].encode())[1:-1]:
                head, _, value = part.partition(b"\r\n\r\n")
                name = re.search(rb'name="([^"]*)"', head)
                if name:
                    values[name[1].decode()] = value.removesuffix(b"\r\n").decode()
        else:
            values.update(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))
        return values


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.ahead = b""  # what was read while watching for the client to hang up

    async def request(self) -> Request | None:
        head = self.ahead + await self.reader.readuntil(b"\r\n\r\n")
        self.ahead = b""
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= MAX_BODY:
            raise BadRequest("body too large")
        body = await self.reader.readexactly(length)
        url = urllib.parse.urlsplit(target)
        return Request(method, url.path, dict(urllib.parse.parse_qsl(url.query)), headers, body)

    async def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        head = (
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Returns when the client has closed; keeps what it sends ahead."""
        while not self.ahead:
            data = await self.reader.read(1)
            if not data:
                return
            self.ahead = data
        await asyncio.Event().wait()  # a second request is on its way: the client lives


class StandIn:
    def __init__(self) -> None:
        self.states: dict[str, State] = {}

    def state(self, bot: str) -> State:
        if not bot.isdecimal():
            raise BadRequest("a bot is named by the number before the colon of its token")
        if bot not in self.states:
            self.states[bot] = State(bot)
        return self.states[bot]

    async def serve(self, handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        try:
            while True:
                request = await connection.request()
                try:
                    status, document = await handler(connection, request)
                except (BadRequest, ValueError, KeyError, TypeError) as error:
                    status = 400
                    document = {"ok": False, "error_code": 400, "description": f"Bad Request: {error}"}
                await connection.answer(status, document)
                if request.headers.get("connection", "").lower() == "close":
                    return
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, BadRequest, ValueError):
            return  # the client has gone, or doesn't speak HTTP
        finally:
            writer.close()

    # -- the Bot API

    async def bot_api(self, connection: Connection, request: Request) -> tuple[int, dict]:
        match = re.fullmatch(r"/bot(\d+):[\w-]+/(\w+)", request.path)
        if not match:
            return 404, {"ok": False, "error_code": 404, "description": "Not Found"}
        bot, method = match[1], match[2].lower()
        state, values = self.state(bot), request.parameters()
        if method == "getupdates":
            return await self.get_updates(connection, state, values)
        if method == "sendmessage":
            reply = values.get("reply_parameters")
            if isinstance(reply, str):
                reply = json.loads(reply)
            reply_to = (reply or {}).get("message_id") or values.get("reply_to_message_id")
            text = str(values["text"])
            if not text or len(text) > 4096:
                raise BadRequest("message text is empty or too long")
            result = await state.send_message(int(values["chat_id"]), text, int(reply_to) if reply_to else None)
        elif method == "getme":
            result = me(bot)
        elif method == "getwebhookinfo":
            result = {"url": "", "has_custom_certificate": False, "pending_update_count": len(state.pending)}
        elif method == "deletewebhook":
            if str(values.get("drop_pending_updates", "")).lower() == "true":
                state.confirm(state._next + 1)
            result = True
        elif method in {"setmycommands", "deletemycommands", "logout", "close", "sendchataction"}:
            result = True
        else:
            return 404, {"ok": False, "error_code": 404, "description": f"Not Found: method {match[2]} isn't part of the stand-in"}
        return 200, {"ok": True, "result": result}

    async def get_updates(self, connection: Connection, state: State, values: dict) -> tuple[int, dict]:
        offset = int(values.get("offset") or 0)
        limit = min(max(int(values.get("limit") or 100), 1), 100)
        timeout = min(max(float(values.get("timeout") or 0), 0.0), 50.0)
        poll = Poll()
        call = asyncio.ensure_future(state.get_updates(poll, offset, limit, timeout))
        watch = asyncio.ensure_future(connection.hung_up())
        try:
            await asyncio.wait({call, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():  # nothing is delivered to a client that has gone
                raise ConnectionResetError
            updates = await call
        finally:
            poll.closed.set()
            for task in (call, watch):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        if updates is None:
            return 409, {
                "ok": False,
                "error_code": 409,
                "description": "Conflict: terminated by other getUpdates request; "
                "make sure that only one bot instance is running",
            }
        return 200, {"ok": True, "result": updates}

    # -- the control API

    async def control(self, _: Connection, request: Request) -> tuple[int, object]:
        values = request.parameters()
        state = self.state(str(values.get("bot", DEFAULT_BOT)))
        match request.method, request.path:
            case "POST", "/inject":
                id = values.get("id")
                message = state.inject(int(values.get("chat", 1)), str(values.get("text", "hello")), str(id) if id else None)
                return 200, message.report()
            case "POST", "/stream":
                state.start_stream(
                    float(values["per_second"]), int(values.get("count") or 0), int(values.get("chat", 100)), str(values.get("text", "tick"))
                )
                return 200, {"streaming": True}
            case "POST", "/stream/stop":
                state.stop_stream()
                return 200, {"streaming": False, "streamed": state.streamed}
            case "POST", "/reset":
                state.clear()
                return 200, state.counts()
            case "GET", "/counts":
                return 200, state.counts()
            case "GET", "/wait":
                return 200, await state.wait(int(values["answered"]), float(values.get("timeout", 30)))
            case "GET", "/messages":
                return 200, [message.report() for message in state.messages.values()]
            case "GET", "/answers":
                return 200, state.answers[int(values.get("after", 0)) :]
            case "GET", "/healthz":
                return 200, {"ok": True, "bots": sorted(self.states)}
        return 404, {"ok": False, "description": f"no {request.method} {request.path}; see the head of telegram_standin.py"}


async def run(address: str, port: int, control_port: int, announce=None) -> None:
    stand_in = StandIn()
    api = await asyncio.start_server(lambda r, w: stand_in.serve(stand_in.bot_api, r, w), address, port)
    control = await asyncio.start_server(lambda r, w: stand_in.serve(stand_in.control, r, w), address, control_port)
    ports = [server.sockets[0].getsockname()[1] for server in (api, control)]
    (announce or (lambda ports: print(json.dumps({"api": ports[0], "control": ports[1]}), flush=True)))(ports)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="A stand-in for Telegram's Bot API.")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081, help="the Bot API (0: any free port)")
    parser.add_argument("--control-port", type=int, default=8082, help="the control API (0: any free port)")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.address, arguments.port, arguments.control_port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
