"""
Partitions of `receipts`: one is open, the others are closed; they are named by the day that opened them.

A hit's id must be unique over all days, and no unique index spans partitions. So the day of a receipt is not read from its
hit: it is the day that was *open* when the receipt was written, and everybody writes into the same one.

Rules
1. Open is the newest day in the catalogue (`OPEN_DAY`), `receipts_default` before the first. A writer reads that and the
   closed days with one snapshot: in the open day the primary key decides, in the closed ones a look-up.
2. That is exact because a day is opened behind a lock of `receipts` that waits for every writer. Whoever sees the new day
   sees all that was written into those before it; whoever wrote first has committed.
3. A statement waits for that lock before it takes its snapshot, but a transaction in REPEATABLE READ has one already and may
   still believe in yesterday. So a closed day has a check that no row passes, and that transaction fails. Only
   `receipts_default` has none: with every day gone, it is still a place to write.
4. Midnight has no meaning here. When a day is opened late, its receipts are in the day before, and nothing else happens.
5. A day is dropped whole, when the one after it was opened so long ago that each of its receipts has been kept long enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.errors import SchemaError
from goodanalytics.migrations import partitions

LOCK_TIMEOUT = "2s"
"""How long writers of receipts may have to stand behind `turn`. A vacuum in its way gives up after one second."""

CLOSED = "receipts_closed"
"""The check that no row passes."""

OPEN_DAY = (
    "SELECT coalesce((SELECT to_date(right(c.relname, 10), 'YYYY_MM_DD') FROM pg_catalog.pg_class c "
    # By name, from the last one backwards: one entry or two of an index are read, however many partitions a database has.
    "WHERE c.relname > 'receipts_' AND c.relname < 'receipts_:' AND c.relname ~ '^receipts_[0-9]{{4}}(_[0-9]{{2}}){{2}}$' "
    "AND c.relispartition AND c.relnamespace = CAST('\"{schema}\"' AS regnamespace) ORDER BY c.relname DESC LIMIT 1), "
    "CAST('-infinity' AS date)) AS day"
)
"""The day that receipts go into, as SQL without parameters for `format(schema=…)`."""

_NAME = re.compile(r"receipts_(\d{4})_(\d{2})_(\d{2})")


@dataclass(frozen=True, slots=True)
class Turned:
    """
    What `turn` did.

    Attributes:
        opened: The partition that receipts go into from now on; `None` when the old one stays.
        dropped: Partitions whose receipts have been kept long enough, oldest first.
    """

    opened: str | None = None
    dropped: tuple[str, ...] = ()


async def turn(conn: AsyncConnection, schema: str, now: datetime, keep: timedelta) -> Turned:
    """
    Open the day of *now* (in UTC) unless it or a later one is open, and drop the days that are older than *keep*.

    Runs in the transaction of *conn*. Several processes may do this at once: the first does it, the others find it done.
    When somebody holds `receipts` for longer than `LOCK_TIMEOUT` (a backup, a host's long transaction), nothing is done, and
    nothing is wrong: the next call does it.

    Raises:
        SchemaError: A table has the name of the day without being its partition.
    """
    # Before anything of `receipts` is touched: two that hold it for reading could not both come to lock it.
    await partitions.wait_for_others(conn, schema)
    turned = await _due(conn, schema, now, keep)
    if turned == Turned():
        return turned
    try:
        async with conn.begin_nested():
            await _turn(conn, schema, turned)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == "55P03":  # lock_not_available
            return Turned()
        raise
    return turned


async def listed(conn: AsyncConnection, schema: str) -> list[date]:
    """The days that there are, oldest first; the last one is open."""
    names = await conn.execute(
        text("""
            SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass(:parent)
        """),
        {"parent": f'"{schema}".receipts'},
    )
    matches = [_NAME.fullmatch(name) for name in names.scalars()]
    return sorted(date(*map(int, match.groups())) for match in matches if match is not None)


async def has_early_receipts(conn: AsyncConnection, schema: str) -> bool:
    """Whether any receipt was written before the first day was opened, and is still there."""
    found = await conn.execute(text(f'SELECT EXISTS (SELECT FROM "{schema}".receipts_default)'))
    return bool(found.scalar_one())


async def _due(conn: AsyncConnection, schema: str, now: datetime, keep: timedelta) -> Turned:
    now = now.astimezone(UTC)
    there = await listed(conn, schema)
    opened = _name(now.date()) if not there or there[-1] < now.date() else None
    names, following = [_name(day) for day in there], there[1:]
    if await has_early_receipts(conn, schema):
        names, following = ["receipts_default", *names], there
    dropped = [
        name
        for name, after in zip(names, following, strict=False)
        # The last receipt of a day was written before the day after it was opened: at the latest when that one ended.
        if datetime.combine(after, time(), UTC) + timedelta(days=1) + keep <= now
    ]
    return Turned(opened, tuple(dropped))


async def _turn(conn: AsyncConnection, schema: str, turned: Turned) -> None:
    before = await partitions.set_lock_timeout(conn, LOCK_TIMEOUT)
    statements = [f'LOCK TABLE ONLY "{schema}".receipts IN ACCESS EXCLUSIVE MODE']
    if turned.opened is not None:
        await _refuse_stranger(conn, schema, turned.opened)
        day = date.fromisoformat(turned.opened.removeprefix("receipts_").replace("_", "-"))
        # NOT VALID: the rows that are there stay, and the planner does not conclude that there are none.
        statements += [
            f'ALTER TABLE "{schema}".{_name(last)} ADD CONSTRAINT {CLOSED} CHECK (false) NOT VALID'
            for last in (await listed(conn, schema))[-1:]
        ]
        statements.append(
            f'CREATE TABLE "{schema}".{turned.opened} PARTITION OF "{schema}".receipts '
            f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )
    statements += [
        f'{"TRUNCATE" if name == "receipts_default" else "DROP TABLE"} "{schema}".{name}'
        for name in turned.dropped
    ]
    for statement in statements:
        await conn.execute(text(statement))
    await partitions.set_lock_timeout(conn, before)


async def _refuse_stranger(conn: AsyncConnection, schema: str, name: str) -> None:
    found = await conn.execute(text("SELECT to_regclass(:name)"), {"name": f'"{schema}".{name}'})
    if found.scalar_one() is not None:
        raise SchemaError(
            f"{schema}.{name} exists but is no partition of {schema}.receipts, so that day cannot be opened and receipts go "
            "into the day before. Rename that table, or attach it again"
        )


def _name(day: date) -> str:
    return f"receipts_{day:%Y_%m_%d}"
