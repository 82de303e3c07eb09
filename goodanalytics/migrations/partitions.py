"""
One partition of `events` per month, named `events_2026_11`, bounded in UTC.

Rules
1. A month is made before its first event. `ensure` runs often and makes the current month and the next ones.
2. When a month is late, nothing is lost: its rows are in `events_default`, and `ensure` moves them.
3. Bounds carry `+00`: without it PostgreSQL reads them in the session's time zone, and months would overlap.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.errors import SchemaError

LOCK_TIMEOUT = "5s"
"""How long `ensure` stands in front of a table's queue of locks before it gives up until the next time."""

PARTITION = re.compile(r"events_(default|\d{4}_\d{2})|receipts_(default|\d{4}_\d{2}_\d{2})")
"""Names that partitions of `events` and of `receipts` (`days.py`) have."""


def month_partitions(schema: str, first: date, months: int) -> list[str]:
    """
    The statements that make *months* partitions, beginning with the month of *first*.

    For a schema whose default partition holds none of their rows; else see `ensure`.
    """
    statements = []
    for month in _months(first, months):
        lower, upper = _bounds(month)
        statements.append(
            f'CREATE TABLE IF NOT EXISTS "{schema}".{_name(month)} PARTITION OF "{schema}".events '
            f"FOR VALUES FROM ('{lower}') TO ('{upper}')"
        )
    return statements


async def ensure(conn: AsyncConnection, schema: str, now: datetime, ahead: int = 2) -> list[str]:
    """
    Make the partitions of the month of *now* and of *ahead* further months, where they are missing.

    Runs in the transaction of *conn*. Several processes may do this at once: the first makes them, the others wait and
    find them made.

    Returns:
        The names of the partitions that this call made.

    Raises:
        SchemaError: A table has the name of a month without being its partition.
        sqlalchemy.exc.DBAPIError: Somebody kept `events` locked for longer than `LOCK_TIMEOUT`. Nothing is lost; the
            next call tries again.
    """
    wanted = _months(now.astimezone(UTC).date(), ahead + 1)
    if not await _missing(conn, schema, wanted):
        return []
    await wait_for_others(conn, schema)
    missing = await _missing(conn, schema, wanted)
    if not missing:
        return []
    before = await set_lock_timeout(conn, LOCK_TIMEOUT)
    for month in missing:
        await _make(conn, schema, month, begun=month <= now.astimezone(UTC).date())
    await set_lock_timeout(conn, before)
    return [_name(month) for month in missing]


async def wait_for_others(conn: AsyncConnection, schema: str) -> None:
    """Hold back everybody else who wants to make or drop partitions of *schema*, until the transaction ends."""
    await conn.execute(
        text(
            "SELECT pg_advisory_xact_lock(hashtextextended('goodanalytics partitions ' || CAST(:schema AS text), 0))"
        ),
        {"schema": schema},
    )


async def set_lock_timeout(conn: AsyncConnection, value: str) -> str:
    """Wait for locks no longer than *value* (`2s`) until the transaction ends. Returns what was set before."""
    before: str = (await conn.execute(text("SELECT current_setting('lock_timeout')"))).scalar_one()
    await conn.execute(text("SELECT set_config('lock_timeout', :value, true)"), {"value": value})
    return before


async def _make(conn: AsyncConnection, schema: str, month: date, *, begun: bool) -> None:
    """
    Make one month's table beside `events`, move its rows there, then attach it.

    CREATE TABLE … PARTITION OF would be refused when the default partition holds a row of the month, and it locks
    `events` against readers. ATTACH does not: readers and writers of other months go on. Two details:

    * Both locks are taken first, in the order in which everybody takes them (parent, then partition), so that no row
      slips into the default partition between the move and ATTACH, whose check would then fail.
    * A writer that chose the default partition before us and finds the month attached afterwards fails with "violates
      partition constraint", and it may be the host's own transaction. Writers only do that in a month that has begun, so
      that one is made behind an exclusive lock: they wait for a moment and then choose the right partition.
    """
    lower, upper = _bounds(month)
    name = f'"{schema}".{_name(month)}'
    rows = f"occurred_at >= '{lower}' AND occurred_at < '{upper}'"
    parent_lock = "ACCESS EXCLUSIVE" if begun else "SHARE UPDATE EXCLUSIVE"
    for statement in (
        f'LOCK TABLE ONLY "{schema}".events IN {parent_lock} MODE',
        f'LOCK TABLE "{schema}".events_default IN ACCESS EXCLUSIVE MODE',
        f'CREATE TABLE {name} (LIKE "{schema}".events INCLUDING ALL)',
        f'INSERT INTO {name} SELECT * FROM "{schema}".events_default WHERE {rows}',
        f'DELETE FROM "{schema}".events_default WHERE {rows}',
        f"ALTER TABLE \"{schema}\".events ATTACH PARTITION {name} FOR VALUES FROM ('{lower}') TO ('{upper}')",
    ):
        await conn.execute(text(statement))


async def _missing(conn: AsyncConnection, schema: str, months: list[date]) -> list[date]:
    found = await conn.execute(
        text("""
            SELECT c.relname, coalesce(parent.relname = 'events', false)
            FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
            LEFT JOIN pg_class AS parent ON parent.oid = i.inhparent AND parent.relnamespace = n.oid
            WHERE n.nspname = :schema AND c.relname = ANY (CAST(:names AS text[]))
        """),
        {"schema": schema, "names": [_name(month) for month in months]},
    )
    there = set()
    for name, is_partition in found:
        if not is_partition:
            raise SchemaError(
                f"{schema}.{name} exists but is no partition of {schema}.events, so that month's events go to "
                f"events_default. Rename that table, or attach it again"
            )
        there.add(name)
    return [month for month in months if _name(month) not in there]


def _months(first: date, count: int) -> list[date]:
    start = first.year * 12 + first.month - 1
    return [date(month // 12, month % 12 + 1, 1) for month in range(start, start + count)]


def _bounds(month: date) -> tuple[str, str]:
    lower, upper = _months(month, 2)
    return f"{lower} 00:00:00+00", f"{upper} 00:00:00+00"


def _name(month: date) -> str:
    return f"events_{month:%Y_%m}"
