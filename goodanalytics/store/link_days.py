"""
What became of links, by day (UTC): read from the roll-up where that is exact, and from events where it is not.

Rules of this file
1. A day of a workspace is counted once it is over for `CLOSED_AFTER`, and then stands in `link_days_closed`: a link without a row
   had nothing on it.
2. Whoever changes what a day counts afterwards (a late event, a merge, a bot's verdict, an erasure) leaves a mark in the same
   transaction (`touch`, `touch_people`). Marks are only added, under ids of their own: nobody waits for anybody, whatever the
   isolation level. A marked day is read from events until it is counted anew.
3. To count anew is to take the marks away and to count in the statement after: it sees what they were left for. One process
   does it at a time.
4. `CLOSED_AFTER` covers transactions and clocks that lag behind: an event that is written on its own day leaves no mark.

Leads and sales of a link are the events that carry it, as in the reports: those of visits that one of its clicks began. Bots do
not count, nor does what a browser merely claims (`trusted` is false).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Date, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.store.database import Database, as_json, run
from goodanalytics.store.tables import Tables
from goodanalytics.store.workspaces import next_workspace

CLOSED_AFTER: Final = timedelta(hours=6)
DAYS_AT_ONCE: Final = 31
MARKS_AT_ONCE: Final = 5_000
DAY: Final = timedelta(days=1)

CLICK: Final = "e.event_type = 'link_click' AND e.bot IS NULL"
PREVIEW: Final = "(e.bot LIKE 'preview:%' OR e.bot IN ('prefetch', 'HEAD request'))"
"""What looks for a person who may click later: cards of messengers, prefetches and HEAD requests."""

PERSON: Final = "coalesce(v.canonical_id, e.visitor_id)"
LEAD: Final = "e.event_type = 'lead' AND e.trusted AND e.bot IS NULL"
SALE: Final = "e.event_type = 'sale' AND e.trusted AND e.bot IS NULL"
MONEY: Final = "e.event_type IN ('sale', 'refund') AND e.trusted AND e.bot IS NULL AND e.cents IS NOT NULL AND e.currency IS NOT NULL"
CENTS: Final = "CASE e.event_type WHEN 'refund' THEN -abs(e.amount_cents) ELSE e.amount_cents END"
"""A refund takes away, however its amount was written."""

_COUNTS: Final[Mapping[str, str]] = {
    "clicks": f"count(*) FILTER (WHERE {CLICK})",
    "unique_clicks": f"count(DISTINCT e.person) FILTER (WHERE {CLICK})",
    "qr_scans": f"count(*) FILTER (WHERE {CLICK} AND e.is_scan)",
    "bots": f"count(*) FILTER (WHERE e.event_type = 'link_click' AND e.bot IS NOT NULL AND NOT {PREVIEW})",
    "previews": f"count(*) FILTER (WHERE e.event_type = 'link_click' AND e.bot IS NOT NULL AND {PREVIEW})",
    "leads": f"count(*) FILTER (WHERE {LEAD})",
    "sales": f"count(*) FILTER (WHERE {SALE})",
}
COUNTS: Final = tuple(_COUNTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDay:
    """
    One day of one link.

    Attributes:
        clicks: Of people; `qr_scans` are those among them that came from a QR code.
        unique_clicks: People who clicked.
        bots: Clicks of machines, without `previews`.
        revenue: Sales less refunds, in minor units by currency.
    """

    link_id: UUID
    day: date
    clicks: int = 0
    unique_clicks: int = 0
    qr_scans: int = 0
    bots: int = 0
    previews: int = 0
    leads: int = 0
    sales: int = 0
    revenue: Mapping[str, int] = field(default_factory=dict)


# Reading -------------------------------------------------------------------------------------------------------------


async def by_day(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    ids: Collection[UUID],
    since: datetime,
    until: datetime,
) -> list[LinkDay]:
    """
    The days from *since* to just before *until* on which something happened to one of the links, in order.

    The first and the last day may be a part of one. Both times are aware.
    """
    whole, parts = split_days(since.astimezone(UTC), until.astimezone(UTC))
    found: list[LinkDay] = []
    open_ = [_span(link_id, *part) for link_id in ids for part in parts]
    if whole:
        rows = await conn.execute(
            text(_covered(t)).columns(day=Date, revenue=JSONB),
            {"workspace_id": workspace_id, "ids": list(ids), "first": whole[0], "last": whole[-1]},
        )
        for row in rows:
            if row.is_exact:
                counts = {name: getattr(row, name) for name in COUNTS}
                found.append(LinkDay(link_id=row.link_id, day=row.day, revenue=row.revenue, **counts))
            else:
                open_.append(_span(row.link_id, row.day, _start(row.day), _start(row.day) + DAY))
    if open_:
        found += await _count(conn, t, workspace_id, open_)
    return sorted(found, key=lambda one: (one.day, one.link_id))


def split_days(since: datetime, until: datetime) -> tuple[list[date], list[tuple[date, datetime, datetime]]]:
    """The whole days of a period in UTC, and what is left at its ends."""
    whole, parts = [], []
    day = since.date()
    while _start(day) < until:
        start, end = _start(day), _start(day) + DAY
        if since <= start and end <= until:
            whole.append(day)
        else:
            parts.append((day, max(since, start), min(until, end)))
        day += DAY
    return whole, parts


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _span(link_id: UUID, day: date, since: datetime, until: datetime) -> dict[str, Any]:
    return {"link_id": link_id, "day": day, "since": since, "until": until}


def _covered(t: Tables) -> str:
    """Every day that the roll-up holds, and every day that it does not know. One statement: one moment."""
    counts = ", ".join(f"d.{name}" for name in COUNTS)
    return (
        "WITH asked AS (SELECT link_id, CAST(day AS date) AS day FROM unnest(CAST(:ids AS uuid[])) AS k (link_id), "
        "generate_series(CAST(:first AS date), CAST(:last AS date), INTERVAL '1 day') AS g (day)), "
        f"touched AS (SELECT DISTINCT link_id, day FROM {t.link_days_touched} WHERE workspace_id = :workspace_id "
        "AND link_id = ANY(CAST(:ids AS uuid[])) AND day BETWEEN :first AND :last) "
        f"SELECT a.link_id, a.day, m.day IS NULL AND (d.day IS NOT NULL OR c.day IS NOT NULL) AS is_exact, {counts}, d.revenue "
        f"FROM asked a LEFT JOIN {t.link_days} d "
        "ON d.workspace_id = :workspace_id AND d.link_id = a.link_id AND d.day = a.day "
        f"LEFT JOIN {t.link_days_closed} c ON c.workspace_id = :workspace_id AND c.day = a.day "
        "LEFT JOIN touched m ON m.link_id = a.link_id AND m.day = a.day "
        "WHERE d.day IS NOT NULL OR c.day IS NULL OR m.day IS NOT NULL"
    )


async def _count(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, spans: Sequence[Mapping[str, Any]]
) -> list[LinkDay]:
    """What events say of *spans*: parts of days of links."""
    rows = await conn.execute(
        text(_counting(t, spans=True)).columns(day=Date, revenue=JSONB),
        {"workspace_id": workspace_id, **_bounds(spans)},
    )
    return [LinkDay(**row._mapping) for row in rows]


def _bounds(spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "spans": as_json(spans),
        "since": min(span["since"] for span in spans),
        "until": max(span["until"] for span in spans),
    }


def _counting(t: Tables, *, spans: bool) -> str:
    """Rows of `LinkDay` from events: of the parts of days in `spans`, or of all links from `since` to `until`."""
    if spans:
        day, chosen = "k.day", (
            "json_to_recordset(CAST(:spans AS json)) AS k (link_id uuid, day date, since timestamptz, until timestamptz) "
            f"JOIN {t.events} e ON e.link_id = k.link_id AND e.occurred_at >= k.since AND e.occurred_at < k.until"
        )  # fmt: skip
    else:
        day, chosen = "CAST(e.occurred_at AT TIME ZONE 'UTC' AS date)", f"{t.events} e"
    counts = ", ".join(f"{value} AS {name}" for name, value in _COUNTS.items())
    return (
        f"WITH e AS MATERIALIZED (SELECT e.link_id, {day} AS day, e.event_type, e.bot, e.trusted, e.currency, "
        f"{CENTS} AS cents, {PERSON} AS person, e.properties ->> 'qr' = 'true' AS is_scan FROM {chosen} "
        f"LEFT JOIN {t.visitors} v ON v.workspace_id = e.workspace_id AND v.id = e.visitor_id "
        "WHERE e.workspace_id = :workspace_id AND e.link_id IS NOT NULL AND e.occurred_at >= :since "
        "AND e.occurred_at < :until AND e.event_type IN ('link_click', 'lead', 'sale', 'refund')), "
        "money AS (SELECT link_id, day, jsonb_object_agg(currency, cents) AS revenue FROM "
        f"(SELECT link_id, day, currency, CAST(sum(cents) AS bigint) AS cents FROM e WHERE {MONEY} GROUP BY 1, 2, 3) AS m "
        "GROUP BY 1, 2) "
        f"SELECT link_id, day, {', '.join(COUNTS)}, coalesce(revenue, '{{}}') AS revenue "
        f"FROM (SELECT link_id, day, {counts} FROM e GROUP BY 1, 2) AS c LEFT JOIN money USING (link_id, day)"
    )


# Marks ---------------------------------------------------------------------------------------------------------------


async def touch(conn: AsyncConnection, t: Tables, events: Iterable[Mapping[str, Any]], now: datetime) -> None:
    """Mark the days, before today, of links that *events*, rows of the table, are added to. Most batches have none."""
    today = now.astimezone(UTC).date()
    days = {
        (event["workspace_id"], event["link_id"], event["occurred_at"].astimezone(UTC).date())
        for event in events
        if event["link_id"] is not None and event["occurred_at"].astimezone(UTC).date() < today
    }
    if days:
        rows = [{"workspace_id": w, "link_id": link_id, "day": day} for w, link_id, day in sorted(days)]
        await run(
            conn,
            f"INSERT INTO {t.link_days_touched} (workspace_id, link_id, day, mark) "
            "SELECT workspace_id, link_id, day, gen_random_uuid() FROM json_to_recordset(CAST(:rows AS json)) "
            "AS r (workspace_id uuid, link_id uuid, day date)",
            rows=as_json(rows),
        )


async def touch_people(conn: AsyncConnection, t: Tables, rows: Collection[tuple[UUID, UUID]]) -> None:
    """
    Mark the days of links on which one of these rows of visitors did something.

    The index is gone through from day to day and not from event to event: somebody may have done a hundred thousand things, and
    a merge must not cost more for that.

    Args:
        rows: Workspace and id of each.
    """
    if not rows:
        return
    workspaces, ids = zip(*sorted(rows), strict=True)
    day = "CAST(e.occurred_at AT TIME ZONE 'UTC' AS date) AS day"
    next_of = (
        f"(SELECT e.link_id, {day} FROM {t.events} e WHERE e.workspace_id = {{k}}.workspace_id "
        "AND e.visitor_id = {k}.visitor_id AND e.link_id IS NOT NULL {after} ORDER BY e.link_id, e.occurred_at LIMIT 1)"
    )
    morrow = "CAST(f.day + 1 AS timestamp) AT TIME ZONE 'UTC'"
    await run(
        conn,
        "WITH RECURSIVE found AS (SELECT k.workspace_id, k.visitor_id, d.link_id, d.day "
        "FROM unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, visitor_id), "
        f"LATERAL {next_of.format(k='k', after='')} AS d "
        "UNION ALL SELECT f.workspace_id, f.visitor_id, d.link_id, d.day FROM found f, "
        f"LATERAL {next_of.format(k='f', after=f'AND (e.link_id, e.occurred_at) >= (f.link_id, {morrow})')} AS d) "
        f"INSERT INTO {t.link_days_touched} (workspace_id, link_id, day, mark) "
        "SELECT workspace_id, link_id, day, gen_random_uuid() "
        "FROM (SELECT DISTINCT workspace_id, link_id, day FROM found) AS touched",
        workspaces=list(workspaces),
        ids=list(ids),
    )


# Counting ------------------------------------------------------------------------------------------------------------


async def roll_up(database: Database, now: datetime) -> int:
    """
    Count every day that is closed and not counted yet, and anew what was marked; how many days of workspaces were counted.

    In transactions of up to `DAYS_AT_ONCE` days. Does nothing while another process does it.
    """
    counted = 0
    through = (now.astimezone(UTC) - CLOSED_AFTER).date() - DAY
    workspace_id: UUID | None = None
    while (workspace_id := await next_workspace(database, database.tables.links, workspace_id)) is not None:
        while True:
            async with database.begin() as conn:
                if not await _is_alone(conn, database.tables):
                    return counted
                found = await roll(conn, database.tables, workspace_id, through, now)
            if found is None:
                break
            counted += found
    return counted


async def _is_alone(conn: AsyncConnection, t: Tables) -> bool:
    found = await run(
        conn,
        "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))",
        name=f"{t.schema} link days",
    )
    return bool(found.scalar_one())


async def roll(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, through: date, now: datetime
) -> int | None:
    """
    Count some of a workspace's days up to *through*: marked ones first, then the next ones.

    Nobody else may do so at the same time.

    Returns:
        How many days were counted for the first time; `None` when nothing is left to do.
    """
    if await _repair(conn, t, workspace_id, through):
        return 0
    first = await _first_open(conn, t, workspace_id)
    if first is None or first > through:
        return None
    last = min(through, first + (DAYS_AT_ONCE - 1) * DAY)
    values = {"workspace_id": workspace_id, "first": first, "last": last}
    # Marks of these days may be there since before they were closed. What they are for is counted below.
    await run(
        conn,
        f"DELETE FROM {t.link_days_touched} WHERE workspace_id = :workspace_id AND day BETWEEN :first AND :last",
        **values,
    )
    await _write(
        conn, t, _counting(t, spans=False), workspace_id, since=_start(first), until=_start(last) + DAY
    )
    await run(
        conn,
        f"INSERT INTO {t.link_days_closed} (workspace_id, day, closed_at) SELECT :workspace_id, CAST(day AS date), :now "
        "FROM generate_series(CAST(:first AS date), CAST(:last AS date), INTERVAL '1 day') AS day",
        **values,
        now=now,
    )
    return (last - first).days + 1


async def _repair(conn: AsyncConnection, t: Tables, workspace_id: UUID, through: date) -> bool:
    """Count marked days anew; whether there were any."""
    taken = await run(
        conn,
        f"DELETE FROM {t.link_days_touched} WHERE (workspace_id, link_id, day, mark) IN (SELECT workspace_id, link_id, day, mark "
        f"FROM {t.link_days_touched} WHERE workspace_id = :workspace_id AND day <= :through "
        "ORDER BY link_id, day LIMIT :most) RETURNING link_id, day",
        workspace_id=workspace_id,
        through=through,
        most=MARKS_AT_ONCE,
    )
    pairs = {(row.link_id, row.day) for row in taken}
    if not pairs:
        return False
    spans = [_span(link_id, day, _start(day), _start(day) + DAY) for link_id, day in sorted(pairs)]
    await run(
        conn,
        f"DELETE FROM {t.link_days} d USING json_to_recordset(CAST(:spans AS json)) AS k (link_id uuid, day date) "
        "WHERE d.workspace_id = :workspace_id AND d.link_id = k.link_id AND d.day = k.day",
        workspace_id=workspace_id,
        spans=as_json(spans),
    )
    await _write(conn, t, _counting(t, spans=True), workspace_id, **_bounds(spans))
    return True


async def _first_open(conn: AsyncConnection, t: Tables, workspace_id: UUID) -> date | None:
    """The day after the last one that is counted; at the beginning, the day of the first link."""
    found = await run(
        conn,
        f"SELECT coalesce((SELECT max(day) + 1 FROM {t.link_days_closed} WHERE workspace_id = :workspace_id), "
        f"(SELECT CAST(min(created_at) AT TIME ZONE 'UTC' AS date) FROM {t.links} WHERE workspace_id = :workspace_id))",
        workspace_id=workspace_id,
    )
    first: date | None = found.scalar_one()
    return first


async def _write(conn: AsyncConnection, t: Tables, counting: str, workspace_id: UUID, **values: Any) -> None:
    names = ", ".join(("link_id", "day", *COUNTS, "revenue"))
    sets = ", ".join(f"{name} = excluded.{name}" for name in (*COUNTS, "revenue"))
    await run(
        conn,
        f"INSERT INTO {t.link_days} (workspace_id, {names}) SELECT CAST(:workspace_id AS uuid), {names} FROM ({counting}) AS found "
        f"ON CONFLICT (workspace_id, link_id, day) DO UPDATE SET {sets}",
        workspace_id=workspace_id,
        **values,
    )


__all__ = [
    "CLOSED_AFTER", "COUNTS", "LinkDay", "by_day", "roll", "roll_up", "split_days", "touch", "touch_people",
]  # fmt: skip
