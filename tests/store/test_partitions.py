"""Months of events are made ahead, and rows that came before their month move into it."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from goodanalytics.errors import SchemaError
from goodanalytics.migrations import partitions
from goodanalytics.store.tables import Tables

SCHEMA = "good_analytics"
FEBRUARY = datetime(2027, 2, 10, tzinfo=UTC)
"""The template's last month is January 2027."""


def event(number: int, at: datetime) -> dict[str, Any]:
    return {
        "workspace_id": UUID(int=0),
        "visitor_id": UUID(int=1),
        "occurred_at": at,
        "id": UUID(int=number),
        "received_at": at,
        "event_type": "pageview",
        "origin": "browser",
        "trusted": False,
        "source": "direct",
        "medium": "direct",
        "channel": "direct",
        "properties": {},
    }


async def homes(conn: AsyncConnection) -> dict[int, str]:
    """Which partition each event is in."""
    rows = await conn.execute(
        text(f"SELECT id, c.relname FROM {SCHEMA}.events AS e JOIN pg_class AS c ON c.oid = e.tableoid")
    )
    return {key.int: name for key, name in rows}


async def bounds(conn: AsyncConnection) -> dict[str, str]:
    rows = await conn.execute(
        text("""
            SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_class AS c
            JOIN pg_inherits AS i ON i.inhrelid = c.oid
            WHERE i.inhparent = to_regclass(:parent)
        """),
        {"parent": f"{SCHEMA}.events"},
    )
    return {name: bound for name, bound in rows}  # noqa: C416  # dict() of rows means nothing to mypy


async def test_new_schema_has_this_month_and_the_next_two(engine: AsyncEngine) -> None:
    """Migrated on 2026-11-01, the partitions of November to January are there, bounded in UTC."""
    async with engine.connect() as connection:
        await connection.execute(text("SET TIME ZONE 'UTC'"))
        found = await bounds(connection)

    assert found == {
        "events_default": "DEFAULT",
        "events_2026_11": "FOR VALUES FROM ('2026-11-01 00:00:00+00') TO ('2026-12-01 00:00:00+00')",
        "events_2026_12": "FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00')",
        "events_2027_01": "FOR VALUES FROM ('2027-01-01 00:00:00+00') TO ('2027-02-01 00:00:00+00')",
    }


def test_statements_cross_the_year() -> None:
    """Month arithmetic goes over the end of a year, from any day of the first month."""
    assert partitions.month_partitions("shop", date(2026, 12, 31), 2) == [
        (
            'CREATE TABLE IF NOT EXISTS "shop".events_2026_12 PARTITION OF "shop".events '
            "FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00')"
        ),
        (
            'CREATE TABLE IF NOT EXISTS "shop".events_2027_01 PARTITION OF "shop".events '
            "FOR VALUES FROM ('2027-01-01 00:00:00+00') TO ('2027-02-01 00:00:00+00')"
        ),
    ]


async def test_ensure_makes_what_is_missing_once(engine: AsyncEngine) -> None:
    """The first call makes the missing months and names them; the second finds nothing to do."""
    async with engine.begin() as connection:
        first = await partitions.ensure(connection, SCHEMA, datetime(2026, 12, 5, tzinfo=UTC))
    async with engine.begin() as connection:
        second = await partitions.ensure(connection, SCHEMA, datetime(2026, 12, 5, tzinfo=UTC))

    assert (first, second) == (["events_2027_02"], [])


async def test_month_is_that_of_utc(engine: AsyncEngine) -> None:
    """An hour before midnight in New York on 31 January it is February in UTC."""
    local = datetime(2027, 1, 31, 23, tzinfo=timezone(timedelta(hours=-5)))
    async with engine.begin() as connection:
        made = await partitions.ensure(connection, SCHEMA, local, ahead=0)

    assert made == ["events_2027_02"]


async def test_attached_partition_equals_a_migrated_one(engine: AsyncEngine) -> None:
    """A month made later has the bounds, indexes and constraints of a month made by the migration."""
    async with engine.begin() as connection:
        await partitions.ensure(connection, SCHEMA, FEBRUARY, ahead=0)

        async def shape(name: str) -> list[str]:
            rows = await connection.execute(
                text("""
                    SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass(:table)
                    UNION ALL
                    SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
                    WHERE conrelid = to_regclass(:table) AND contype <> 'n'
                    ORDER BY 1
                """),
                {"table": f"{SCHEMA}.{name}"},
            )
            return [line.replace(name, "MONTH") for line in rows.scalars()]

        late, migrated = await shape("events_2027_02"), await shape("events_2027_01")
        attached = (await bounds(connection))["events_2027_02"]

    assert late == migrated
    assert "FROM ('2027-02-01 00:00:00+00') TO ('2027-03-01 00:00:00+00')" in attached


async def test_rows_move_from_the_default_partition(engine: AsyncEngine, tables: Tables) -> None:
    """Rows that came before their month move into it to the microsecond; the others stay."""
    end = datetime(2027, 3, 1, tzinfo=UTC)
    async with engine.begin() as connection:
        await connection.execute(
            insert(tables.events),
            [
                event(1, datetime(2027, 2, 1, tzinfo=UTC)),
                event(2, end - timedelta(microseconds=1)),
                event(3, end),
                event(4, datetime(2019, 1, 1, tzinfo=UTC)),
            ],
        )
        before = await homes(connection)
    async with engine.begin() as connection:
        made = await partitions.ensure(connection, SCHEMA, FEBRUARY, ahead=0)
        after = await homes(connection)

    assert made == ["events_2027_02"]
    assert set(before.values()) == {"events_default"}
    assert after == {1: "events_2027_02", 2: "events_2027_02", 3: "events_default", 4: "events_default"}


async def test_racing_processes_make_each_month_once(engine: AsyncEngine) -> None:
    """Of several that see a month missing one makes it and none fails."""

    async def ensured() -> list[str]:
        async with engine.begin() as connection:
            return await partitions.ensure(connection, SCHEMA, FEBRUARY)

    made = await asyncio.gather(*(ensured() for _ in range(4)))

    assert sorted(made) == [[], [], [], ["events_2027_02", "events_2027_03", "events_2027_04"]]


async def test_writers_go_on_while_their_month_is_made(engine: AsyncEngine, tables: Tables) -> None:
    """No write into a month fails because that month's partition is made at the same time; no row is lost."""
    numbers = iter(range(1, 10_000))
    written: list[int] = []
    made = asyncio.Event()

    async def write() -> None:
        while not made.is_set():
            number = next(numbers)
            async with engine.begin() as connection:
                await connection.execute(insert(tables.events), [event(number, FEBRUARY)])
            written.append(number)

    async def make() -> None:
        async with asyncio.timeout(30):
            while len(written) < 20:
                await asyncio.sleep(0)
        async with engine.begin() as connection:
            await partitions.ensure(connection, SCHEMA, FEBRUARY, ahead=0)
        made.set()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(write())
        tasks.create_task(make())

    async with engine.connect() as connection:
        assert await homes(connection) == dict.fromkeys(written, "events_2027_02")


async def test_readers_do_not_hold_up_a_future_month(engine: AsyncEngine) -> None:
    """A long report on a month keeps nobody from making a month ahead."""
    async with engine.connect() as report, engine.begin() as connection:
        await report.execute(
            text(
                f"SELECT count(*) FROM {SCHEMA}.events WHERE occurred_at BETWEEN '2026-11-02' AND '2026-11-03'"
            )
        )
        made = await partitions.ensure(connection, SCHEMA, datetime(2026, 12, 1, tzinfo=UTC))

    assert made == ["events_2027_02"]


async def test_ensure_gives_up_behind_a_long_lock(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind somebody's long lock it fails soon, so that writers do not queue up behind it."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "50ms")
    async with engine.begin() as holder:
        await holder.execute(text(f"LOCK TABLE {SCHEMA}.events IN ACCESS SHARE MODE"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            async with engine.begin() as connection:
                await partitions.ensure(connection, SCHEMA, FEBRUARY)


async def test_callers_lock_timeout_is_given_back(engine: AsyncEngine) -> None:
    """The caller's transaction goes on with its own lock timeout."""
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL lock_timeout = '77s'"))
        await partitions.ensure(connection, SCHEMA, FEBRUARY)
        after = (await connection.execute(text("SELECT current_setting('lock_timeout')"))).scalar_one()

    assert after == "77s"


async def test_table_with_a_months_name_is_refused(engine: AsyncEngine) -> None:
    """A detached month is neither used nor overwritten: its name and the cure are told."""
    async with engine.begin() as connection:
        await connection.execute(
            text(f"ALTER TABLE {SCHEMA}.events DETACH PARTITION {SCHEMA}.events_2027_01")
        )
        with pytest.raises(SchemaError, match=r"events_2027_01 exists but is no partition"):
            await partitions.ensure(connection, SCHEMA, datetime(2027, 1, 1, tzinfo=UTC))
