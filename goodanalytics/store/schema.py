"""
Our schema in the database: bring it up, ask for its version, refuse to work on a wrong one.

Rules
1. The running app only looks (`check`); it changes the schema when it is told to (`migrate`, or `Config.auto_migrate`).
2. Alembic's `Operations` are used by themselves, without Alembic's environment: that one is global to the process, and
   two upgrades at once, or one inside a host's own migration, break each other.
3. Alembic is imported where it is used: it takes longer to import than all the rest of goodanalytics.
"""

from __future__ import annotations

from datetime import datetime
from io import StringIO

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from goodanalytics import migrations
from goodanalytics.errors import SchemaError
from goodanalytics.store.database import Database, run
from goodanalytics.store.tables import SCHEMA_VERSION


async def migrate(engine: AsyncEngine, schema: str, *, now: datetime, to: int | None = None) -> int:
    """
    Bring *schema* up to version *to* (the newest, when not given) in one transaction.

    Processes that do this at once wait for each other. A schema that is at *to* or beyond stays as it is.

    Returns:
        The version that is there afterwards.

    Raises:
        SchemaError: The schema holds tables of somebody else, or *to* is unknown.
    """
    wanted = migrations.LATEST if to is None else to

    def upgraded(connection: Connection) -> int:
        from alembic.migration import MigrationContext  # noqa: PLC0415  # rule 3
        from alembic.operations import Operations  # noqa: PLC0415

        since = migrations.version(connection, schema) or 0
        if since >= wanted:
            return since
        op = Operations(MigrationContext.configure(connection))
        migrations.upgrade(op, since, wanted, schema=schema, now=now)
        return wanted

    # A host's engine may commit by itself or work on snapshots; under the one a failed migration stays half done, under
    # the other a process that waited does not see what it waited for.
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        await run(connection, migrations.WAIT_FOR_OTHERS)
        return await connection.run_sync(upgraded)


async def version(conn: AsyncConnection, schema: str) -> int | None:
    """
    The version that *schema* holds; `None` when nothing of ours is there.

    Raises:
        SchemaError: Tables with our names are there and are not ours, or some of ours are gone.
    """
    return await conn.run_sync(migrations.version, schema)


async def check(database: Database) -> None:
    """
    Make sure that the tables are the ones that this release reads and writes.

    Raises:
        SchemaError: They are missing, too old, too new or somebody else's; the message says what to do.
        DatabaseUnavailable: Nothing answers.
    """
    schema = database.tables.schema
    async with database.connect() as connection:
        found = await version(connection, schema)
    if found is None:
        raise SchemaError(
            f"The schema {schema!r} has no tables of goodanalytics yet. Run `goodanalytics migrate` "
            "(or `await analytics.migrate()`, or migrations.upgrade(op, since=0) in an Alembic revision)"
        )
    if found < SCHEMA_VERSION:
        raise SchemaError(
            f"The schema {schema!r} is at version {found} and this release needs {SCHEMA_VERSION}. Run `goodanalytics "
            f"migrate` (or migrations.upgrade(op, since={found}, to={SCHEMA_VERSION}) in an Alembic revision)"
        )
    if found > SCHEMA_VERSION:
        raise SchemaError(
            f"The schema {schema!r} is at version {found}, made by a newer release; this one knows up to "
            f"{SCHEMA_VERSION}. Upgrade goodanalytics: pip install -U goodanalytics"
        )


def offline_sql(schema: str, *, now: datetime) -> str:
    """The whole migration of an empty database as one SQL script in one transaction, for a DBA to read and run."""
    from alembic.migration import MigrationContext  # noqa: PLC0415  # rule 3
    from alembic.operations import Operations  # noqa: PLC0415

    script = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": script, "transactional_ddl": True}
    )
    with context.begin_transaction():
        migrations.upgrade(Operations(context), schema=schema, now=now)
    return script.getvalue()
