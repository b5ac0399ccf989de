"""Settings, all from the environment (see env.template)."""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    token: str = field(repr=False)
    api: str
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    log_level: str = "INFO"
    health_port: int = 8000
    # Seconds that Telegram holds an empty getUpdates open.
    poll_timeout: int = 10
    # A bot that hasn't heard from Telegram for so many seconds is unhealthy.
    poll_age_limit: float = 60.0
    # Seconds that SIGTERM waits for the update in hand.
    drain_timeout: float = 20.0

    @staticmethod
    def from_environment() -> "Settings":
        environment = os.environ
        missing = [name for name in ("TELEGRAM_TOKEN", "DATABASE_URL", "REDIS_URL") if not environment.get(name)]
        if missing:
            raise SystemExit(f"missing in the environment: {', '.join(missing)}")
        return Settings(
            token=environment["TELEGRAM_TOKEN"],
            api=environment.get("TELEGRAM_API", "https://api.telegram.org").rstrip("/"),
            database_url=async_url(environment["DATABASE_URL"]),
            redis_url=environment["REDIS_URL"],
            log_level=environment.get("LOG_LEVEL", "INFO"),
            health_port=int(environment.get("HEALTH_PORT", "8000")),
            poll_timeout=int(environment.get("POLL_TIMEOUT", "10")),
        )


def async_url(url: str) -> str:
    """The usual postgresql:// form, with the driver that SQLAlchemy is to use."""
    return "postgresql+psycopg://" + url.partition("://")[2]
