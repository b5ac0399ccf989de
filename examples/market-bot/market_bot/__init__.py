"""A small Telegram bot: answers messages, keeps its users in PostgreSQL and counts in Redis."""

import os

VERSION = os.environ.get("MARKET_BOT_VERSION", "development")
