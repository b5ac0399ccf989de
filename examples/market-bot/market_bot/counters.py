"""Redis: counters and last-seen marks. The bot works without them."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

UNAVAILABLE = (RedisError, OSError, TimeoutError)
WEEK = 7 * 86400


class Counters:
    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(
            url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0), health_check_interval=0
        )

    async def answered(self, user_id: int) -> None:
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.incr("messages:answered")
            pipeline.set(f"seen:{user_id}", 1, ex=WEEK)
            await pipeline.execute()

    async def check(self) -> None:
        """Raises if Redis can't be written to, as when it is full."""
        await self.redis.set("health:probe", 1, ex=60)

    async def close(self) -> None:
        await self.redis.aclose()
