"""Runs the migrations against DATABASE_URL. libpq reads PGOPTIONS, so that the caller can set a lock_timeout."""

import os

from alembic import context
from sqlalchemy import create_engine, pool

url = "postgresql+psycopg://" + os.environ["DATABASE_URL"].partition("://")[2]
engine = create_engine(url, poolclass=pool.NullPool, connect_args={"connect_timeout": 10})
with engine.connect() as connection:
    # Each revision in a transaction of its own: if the second of two fails, the first one stays.
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
