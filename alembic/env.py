"""
What a host's Alembic environment looks like beside goodanalytics; also the one that this repository's tests run.

    GOODANALYTICS_DATABASE_URL=postgresql+asyncpg://user@host/name alembic upgrade head
    alembic -x url=postgresql+asyncpg://user@host/name upgrade head
    alembic upgrade head --sql
"""

from __future__ import annotations

import asyncio
import os

from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alembic import context
from goodanalytics import migrations

# A host gives its own models here.
target_metadata = MetaData()


def offline() -> None:
    """Print the SQL."""
    context.configure(dialect_name="postgresql", target_metadata=target_metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


async def online() -> None:
    """Run it."""
    url = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get(
        "GOODANALYTICS_DATABASE_URL"
    )
    if not url:
        raise SystemExit(
            "No database. Set GOODANALYTICS_DATABASE_URL, or: alembic -x url=postgresql+asyncpg://… …"
        )
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)


def run(connection: Connection) -> None:
    """Run the revisions on *connection*, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        include_object=migrations.include_object(),
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    offline()
else:
    asyncio.run(online())
