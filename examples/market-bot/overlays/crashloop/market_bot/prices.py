"""The market's prices."""

import asyncio

_PRICES: dict[str, str] = {}


async def load() -> None:
    """Called once, before the bot asks for messages."""
    await asyncio.sleep(0.5)
    _PRICES.update(_from_feed())
    _PRICES.update(apples="2.10", bread="3.40", milk="1.05")


def price(name: str) -> str | None:
    return _PRICES.get(name)


def problem() -> str | None:
    """Why the bot shouldn't be used with these prices, for /health."""
    return None


def _from_feed() -> dict[str, str]:
    feed: dict[str, dict[str, str]] = {}
    return feed["prices"]
