"""Entry point: `python3 -m market_bot`. SIGTERM and SIGINT drain."""

# First of all: PID 1 has no default action for SIGTERM, so that a stop during the imports below (half a second) would
# otherwise be lost and Docker would wait for its whole grace period.
import os
import signal

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

import asyncio
import logging
import sys

from . import VERSION
from .bot import MarketBot
from .config import Settings
from .counters import Counters
from .health import Health
from .logs import set_up
from .store import Store

log = logging.getLogger("market_bot")


async def serve(settings: Settings) -> None:
    store, counters = Store.connect(settings.database_url), Counters(settings.redis_url)
    health = Health(settings.poll_age_limit)
    bot = MarketBot(settings, store, counters, health)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, bot.stop)
    server = await health.serve(settings.health_port)
    watch = asyncio.create_task(health.watch(store, counters))
    work = asyncio.create_task(bot.run())
    stop = asyncio.create_task(bot.stopping.wait())
    log.info("version %s started", VERSION)
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        log.info("draining")
        _, late = await asyncio.wait({work}, timeout=settings.drain_timeout)
        if late:
            # It isn't confirmed to Telegram: the next start gets it again.
            log.warning("the update in hand was not finished in %.0f s", settings.drain_timeout)
            work.cancel()
    watch.cancel()
    server.close()
    if not work.cancelled():
        await work  # raises what ended it
    log.info("stopped")


def main() -> None:
    settings = Settings.from_environment()
    set_up(settings.log_level, [settings.token])
    try:
        asyncio.run(serve(settings))
    except Exception:
        log.exception("ended by an error")
        sys.exit(1)
    sys.stdout.flush()
    # Nothing is left to clean up: the kernel closes the sockets, and taking the interpreter apart costs a tenth of a second
    # of every deploy's gap.
    os._exit(0)


if __name__ == "__main__":
    main()
