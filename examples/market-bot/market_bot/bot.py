"""Long polling and the answers.

The loop is our own instead of telegram.ext's: an update is confirmed to Telegram (by the next call's offset) only once it
has been dealt with, so that a bot that dies, or waits for its database, loses none. The row per update id keeps a
redelivered update from being answered twice.
"""

import asyncio
import logging
from collections.abc import Coroutine

from telegram import Bot, ReplyParameters, Update
from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from . import VERSION, prices
from .config import Settings
from .counters import UNAVAILABLE as REDIS_UNAVAILABLE
from .counters import Counters
from .health import Health
from .store import UNAVAILABLE as STORE_UNAVAILABLE
from .store import Store

log = logging.getLogger("market_bot")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
AT_ONCE = 4  # updates in hand; as many database connections, and one for /health


def answer_to(text: str) -> str:
    words = text.split()
    if words[:1] == ["/start"]:
        return f"Welcome to the market. This is version {VERSION}."
    if words[:1] == ["/price"]:
        name = " ".join(words[1:]).lower()
        return f"{name}: {prices.price(name) or 'not sold here'} ({VERSION})"
    return f"{text[:3800]} ({VERSION})"


class MarketBot:
    def __init__(self, settings: Settings, store: Store, counters: Counters, health: Health) -> None:
        self.settings = settings
        self.store = store
        self.counters = counters
        self.health = health
        self.stopping = asyncio.Event()
        self.offset = 0
        self.confirmed = 0
        self._open: asyncio.Task | None = None  # what SIGTERM may cut short
        self._answered: set[int] = set()  # sent, but not yet marked in the database
        self.bot = Bot(
            settings.token,
            base_url=f"{settings.api}/bot",
            request=HTTPXRequest(connection_pool_size=2, connect_timeout=3, read_timeout=5, write_timeout=5),
            get_updates_request=HTTPXRequest(connection_pool_size=1, connect_timeout=3, read_timeout=5),
        )

    def stop(self) -> None:
        """From a signal handler: end an open poll at once, let the update in hand be finished."""
        if not self.stopping.is_set() and self._open:
            self._open.cancel()
        self.stopping.set()

    async def _cut_short(self, work: Coroutine):
        """The work's result; asyncio.CancelledError if SIGTERM comes first."""
        self._open = asyncio.ensure_future(work)
        try:
            return await self._open
        finally:
            self._open = None

    async def run(self) -> None:
        try:
            await self._cut_short(prices.load())
        except asyncio.CancelledError:
            return
        pause = FIRST_PAUSE
        timeout = 0  # the first poll returns at once: it tells that Telegram answers
        while not self.stopping.is_set():
            try:
                updates = await self._cut_short(self._get_updates(timeout))
            except asyncio.CancelledError:
                break
            except InvalidToken:
                raise SystemExit("Telegram refuses the token") from None
            except Conflict as error:
                log.warning("conflict: %s", error)
                if "webhook" in str(error):
                    await self.bot.delete_webhook(drop_pending_updates=False)
                await self._rest(1.0)
                continue
            except TelegramError as error:
                log.warning("poll failed: %s", error)
                await self._rest(error.retry_after if isinstance(error, RetryAfter) else pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause, timeout = FIRST_PAUSE, self.settings.poll_timeout
            self.confirmed = self.offset
            self.health.polled()
            await self._deal_with_all(updates)
        await self._confirm()

    async def _get_updates(self, timeout: int, limit: int = 100) -> tuple[Update, ...]:
        return await self.bot.get_updates(
            offset=self.offset, limit=limit, timeout=timeout, read_timeout=5, allowed_updates=[Update.MESSAGE]
        )

    async def _confirm(self) -> None:
        """Tells Telegram what has been dealt with, so that the next version isn't given it again."""
        if self.confirmed == self.offset:
            return
        try:
            async with asyncio.timeout(2):
                await self._get_updates(0, limit=1)
        except (TelegramError, TimeoutError) as error:
            log.warning("the last offset was not confirmed: %s", error)

    async def _deal_with_all(self, updates: tuple[Update, ...]) -> None:
        """Chats beside each other, so that they share PostgreSQL's commits; the messages of one chat in their order."""
        chats: dict[int | None, list[Update]] = {}
        for update in updates:
            chats.setdefault(update.message.chat_id if update.message else None, []).append(update)
        done: set[int] = set()
        room = asyncio.Semaphore(AT_ONCE)

        async def deal_with_chat(chat: list[Update]) -> None:
            async with room:
                for update in chat:
                    # Stopping: only what is in hand is finished; the rest is the next version's.
                    if self.stopping.is_set() or not await self.deal_with(update):
                        return
                    done.add(update.update_id)

        await asyncio.gather(*(deal_with_chat(chat) for chat in chats.values()))
        for update in updates:
            if update.update_id not in done:
                return  # from here on Telegram delivers again; what is done behind it is known to the database
            self.offset = update.update_id + 1

    async def deal_with(self, update: Update) -> bool:
        """True once the update needs no more work; false if the bot is stopping and it must be delivered again."""
        message = update.message
        if message is None or message.text is None or message.from_user is None:
            return True
        pause = FIRST_PAUSE
        while True:
            try:
                await self._answer_once(update)
                return True
            except STORE_UNAVAILABLE as error:
                log.warning("update %d waits for PostgreSQL: %s", update.update_id, type(error).__name__)
            except RetryAfter as error:
                pause = float(error.retry_after)
            except (Forbidden, BadRequest) as error:
                log.warning("update %d can't be answered: %s", update.update_id, error)
                return True
            except TelegramError as error:
                log.warning("update %d: sending failed: %s", update.update_id, type(error).__name__)
            if self.stopping.is_set():
                return False
            await self._rest(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _answer_once(self, update: Update) -> None:
        message, number = update.message, update.update_id
        if number not in self._answered:
            if not await self.store.received(number, message.from_user):
                log.info("update %d was answered before", number)
                return
            await self.bot.send_message(
                message.chat_id,
                answer_to(message.text),
                reply_parameters=ReplyParameters(message.message_id, allow_sending_without_reply=True),
            )
            self._answered.add(number)
        await self.store.answered(number)
        self._answered.discard(number)
        log.info("answered", extra={"fields": {"update_id": number}})
        if self.health.redis == "ok":  # else each message would wait for its timeout
            try:
                await self.counters.answered(message.from_user.id)
            except REDIS_UNAVAILABLE as error:
                log.warning("not counted in Redis: %s", type(error).__name__)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            pass
