"""PostgreSQL: users and messages."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from telegram import User as TelegramUser

from .models import Message, User, user_values

# What means "the database isn't there now": worth another try, never a reason to lose a message.
UNAVAILABLE = (SQLAlchemyError, OSError, TimeoutError)


@dataclass(frozen=True)
class Store:
    engine: object

    @staticmethod
    def connect(url: str) -> "Store":
        """Opens no connection yet."""
        return Store(
            create_async_engine(
                url,
                pool_size=5,
                max_overflow=0,
                pool_timeout=3,
                # A connection that died with the server is replaced before it is used.
                pool_pre_ping=True,
                connect_args={
                    "connect_timeout": 2,
                    "tcp_user_timeout": 5000,
                    "application_name": "market-bot",
                    "options": "-c statement_timeout=5s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s",
                },
            )
        )

    async def received(self, update_id: int, user: TelegramUser) -> bool:
        """Writes the user and the message; false if this update was answered before."""
        values = user_values(user)
        known = insert(User).values(values)
        changed = {name: known.excluded[name] for name in values if name != "id"}
        async with asyncio.timeout(8), self.engine.begin() as connection:
            await connection.execute(known.on_conflict_do_update(index_elements=[User.id], set_=changed))
            new = insert(Message).values(update_id=update_id, user_id=user.id).on_conflict_do_nothing()
            if (await connection.execute(new)).rowcount == 1:
                return True
            answered = select(Message.answered_at).where(Message.update_id == update_id)
            return (await connection.execute(answered)).scalar_one() is None

    async def answered(self, update_id: int) -> None:
        async with asyncio.timeout(8), self.engine.begin() as connection:
            await connection.execute(
                update(Message).where(Message.update_id == update_id).values(answered_at=func.now())
            )

    async def revision(self) -> str | None:
        """The schema's revision; proves that the database answers."""
        async with asyncio.timeout(3), self.engine.connect() as connection:
            rows = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all()
        return ",".join(sorted(rows)) or None

    async def close(self) -> None:
        await self.engine.dispose()
