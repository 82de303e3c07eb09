"""
The schema's history, as functions of Alembic's `op`.

A host that has Alembic writes five lines into a revision of its own:

    from alembic import op
    from goodanalytics import migrations

    def upgrade() -> None:
        migrations.upgrade(op, since=0, to=1)

    def downgrade() -> None:
        migrations.downgrade(op, since=1, to=0)

Any other host runs `goodanalytics migrate`, which calls the same functions (`store/schema.py`).

Rules
1. *since* is written down, never guessed, so that a revision means the same in every database; what is really there is
   compared with it and a difference is refused.
2. A table that we did not make is never altered or dropped.
3. Only `op.execute` changes anything, so that `alembic upgrade --sql` can print it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from goodanalytics.errors import ConfigError, SchemaError
from goodanalytics.migrations import partitions, v01
from goodanalytics.migrations.op import Op

LATEST = 1
"""The newest version that this release can make."""

MONTHS = 3
"""How many months of partitions a new schema begins with, when the caller says what time it is."""

WAIT_FOR_OTHERS = "SELECT pg_advisory_xact_lock(hashtextextended('goodanalytics migrations', 0))"
"""Holds back every other migration of this database until the transaction ends."""

_VERSIONS = {1: v01}

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def upgrade(
    op: Op,
    since: int = 0,
    to: int = LATEST,
    *,
    schema: str = "good_analytics",
    now: datetime | None = None,
) -> None:
    """
    Bring *schema* from version *since* to version *to*.

    Args:
        op: Alembic's operations; offline mode is fine.
        since: The version that is there; 0 for none.
        to: The version that shall be there.
        schema: A lower-case PostgreSQL name.
        now: Aware. Given, a new schema begins with the partitions of this month and the next two, and the version's row
            carries it. Not given, as from a host's revision, the running app makes the partitions ahead.

    Raises:
        ConfigError: *schema* is not such a name.
        SchemaError: There is no such step, the schema is not at *since*, or it holds tables of somebody else.
    """
    _check_step(since, to, upwards=True)
    _begin(op, schema, since)
    for number in range(since + 1, to + 1):
        _VERSIONS[number].up(op, schema)
        applied_at = "now()" if now is None else f"'{now.astimezone(UTC):%Y-%m-%d %H:%M:%S+00}'"
        op.execute(
            f'INSERT INTO "{schema}".schema_version (version, applied_at) VALUES ({number}, {applied_at})'
        )
    if since == 0 and now is not None:
        for statement in partitions.month_partitions(schema, now.astimezone(UTC).date(), MONTHS):
            op.execute(statement)


def downgrade(op: Op, since: int = LATEST, to: int = 0, *, schema: str = "good_analytics") -> None:
    """
    Take *schema* from version *since* back to version *to*; 0 drops every table of ours **with all that was recorded**.

    Raises:
        ConfigError: *schema* is not a lower-case PostgreSQL name.
        SchemaError: There is no such step, the schema is not at *since*, or it holds tables of somebody else.
    """
    _check_step(since, to, upwards=False)
    _begin(op, schema, since)
    for number in range(since, to, -1):
        if number > 1:
            op.execute(f'DELETE FROM "{schema}".schema_version WHERE version = {number}')
        _VERSIONS[number].down(op, schema)


def version(connection: Connection, schema: str) -> int | None:
    """
    The version that *schema* holds; `None` when nothing of ours is there.

    Raises:
        SchemaError: Tables or types with our names are there and are not ours, or some of ours are gone.
    """
    there = set(
        connection.execute(
            text("""
                SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = :schema AND c.relname = ANY (CAST(:tables AS text[]))
                UNION SELECT y.typname FROM pg_type AS y JOIN pg_namespace AS n ON n.oid = y.typnamespace
                WHERE n.nspname = :schema AND y.typname = ANY (CAST(:domains AS text[]))
            """),
            {"schema": schema, "tables": list(v01.TABLES), "domains": list(v01.DOMAINS)},
        ).scalars()
    )
    if not there:
        return None
    if not _is_ours(connection, schema):
        raise SchemaError(
            f"The schema {schema!r} already holds {', '.join(sorted(there))}, which goodanalytics did not make. "
            "Give goodanalytics a schema of its own: Config(schema='another_name')"
        )
    found: int | None = connection.execute(
        text(f'SELECT max(version) FROM "{schema}".schema_version')
    ).scalar_one()
    if found is None:
        raise SchemaError(
            f"{schema}.schema_version is empty, so nobody knows what the tables beside it are. "
            "Restore its row from a backup, or drop the schema to begin anew"
        )
    lost = [name for name in v01.TABLES if name not in there]
    # A newer release may have dropped one of these on purpose; then "too new" is what its reader needs to hear.
    if lost and found <= LATEST:
        raise SchemaError(
            f"The schema {schema!r} says version {found} but lacks {', '.join(lost)}. Restore from a backup; or, when "
            "these tables were never made by goodanalytics, choose another name: Config(schema='another_name')"
        )
    return found


def include_object(schema: str = "good_analytics") -> Callable[[Any, str | None, str, bool, Any], bool]:
    """
    For the host's `env.py`: keeps the host's autogenerate away from our tables.

    >>> ours = include_object("good_analytics")
    >>> # context.configure(..., include_schemas=True, include_object=ours)
    """

    def is_of_the_host(item: Any, name: str | None, kind: str, reflected: bool, _compare_to: Any) -> bool:  # noqa: ARG001  # Alembic's own signature
        table = item if kind == "table" else getattr(item, "table", None)
        if table is None:
            return True
        # Alembic gives no schema to tables of the default one.
        if (table.schema or "public") != schema:
            return True
        return table.name not in v01.TABLES and partitions.PARTITION.fullmatch(table.name) is None

    return is_of_the_host


def _check_step(since: int, to: int, *, upwards: bool) -> None:
    low, high = (since, to) if upwards else (to, since)
    if not 0 <= low < high <= LATEST:
        raise SchemaError(
            f"There is no step from version {since} to version {to}: this release knows the versions 0 (nothing) to "
            f"{LATEST}. Correct since= and to= in the revision, or install the release that it was written for"
        )


def _begin(op: Op, schema: str, since: int) -> None:
    """Wait for other migrations of this database, then compare what is there with what the caller says."""
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigError(
            f"schema is {schema!r}; it must be a lower-case PostgreSQL name such as 'good_analytics'"
        )
    # Before CREATE SCHEMA: two of those at once make one of them fail, IF NOT EXISTS or not.
    op.execute(WAIT_FOR_OTHERS)
    connection = op.get_context().connection
    if op.get_context().as_sql or connection is None:
        return
    found = version(connection, schema) or 0
    if found != since:
        raise SchemaError(
            f"The schema {schema!r} is at version {found}, and this step starts from version {since}. "
            + (
                "Somebody migrated it already: mark the revision as done with `alembic stamp`"
                if found > since
                else "Run the earlier steps first"
            )
        )


def _is_ours(connection: Connection, schema: str) -> bool:
    columns = connection.execute(
        text("""
            SELECT a.attname, format_type(a.atttypid, a.atttypmod)
            FROM pg_attribute AS a
            JOIN pg_class AS c ON c.oid = a.attrelid
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = :schema AND c.relname = 'schema_version' AND c.relkind = 'r'
              AND a.attnum > 0 AND NOT a.attisdropped
        """),
        {"schema": schema},
    )
    return {(name, kind) for name, kind in columns} == {
        ("version", "integer"),
        ("applied_at", "timestamp with time zone"),
    }


__all__ = ["LATEST", "downgrade", "include_object", "upgrade", "version"]
