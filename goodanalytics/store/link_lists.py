"""
What a list of many links needs besides the links: their order, also by clicks, and the words by which they can be chosen.

Clicks are counted as in `link_figures`: closed days out of the roll-up, open and marked ones from events. Which days are closed is
read first; one that is closed meanwhile is still read from events, so no click counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, get_args
from uuid import UUID

from sqlalchemy import BigInteger, Uuid, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.links import Link
from goodanalytics.errors import InvalidInput
from goodanalytics.store.database import as_json, run
from goodanalytics.store.link_days import CLICK, split_days
from goodanalytics.store.link_figures import LONGEST, checked_period
from goodanalytics.store.link_reading import Column, Wanted, conditions, list_links
from goodanalytics.store.pages import Page, check_limit, cursor, read_text_cursor
from goodanalytics.store.tables import Tables

MOST_WORDS: Final = 200
"""How many folders, tags and domains are told."""

DAY: Final = timedelta(days=1)

Sort = Literal[Column, "-clicks", "clicks"]
"""What a list is sorted by, downwards with a minus."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the links in use are called and sorted by, each in order of the alphabet."""

    folders: Sequence[str]
    tags: Sequence[str]
    domains: Sequence[str]


async def in_order(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    wanted: Wanted,
    *,
    sort: Sort,
    now: datetime,
    period: tuple[datetime, datetime] | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Link]:
    """
    A page of links.

    Args:
        period: Whose clicks are counted; the ten years until now when left out.

    Raises:
        InvalidInput: *limit* is not 1 to 200, *sort* is unknown, *period* is not usable or clicks are not asked for, or *after*
            is no cursor of this list.
    """
    if sort not in get_args(Sort):
        raise InvalidInput(f"sort is {sort!r:.80}; use {', '.join(get_args(Sort))}", where="sort")
    match sort:
        case "-clicks" | "clicks":
            counted = checked_period(period or (now - LONGEST, now))
            return await by_clicks(
                conn, t, workspace_id, wanted,
                period=counted, is_down=sort == "-clicks", limit=limit, after=after,
            )  # fmt: skip
        case _ if period is not None:
            raise InvalidInput(
                f"A period is given, and links are sorted by {sort}. It says which clicks count: sort by -clicks, or leave it out",
                where="sort",
            )
        case _:
            return await list_links(conn, t, workspace_id, wanted, sort=sort, limit=limit, after=after)


async def by_clicks(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    wanted: Wanted,
    *,
    period: tuple[datetime, datetime],
    is_down: bool = True,
    limit: int = 50,
    after: str | None = None,
) -> Page[Link]:
    """
    A page of links, those with the most clicks of people in the period first; the newer first where they are equal.

    While people click, a link may move from one page to another.

    Args:
        is_down: Otherwise it is the other way round.

    Raises:
        InvalidInput: *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    listing = f"links {'-' if is_down else ''}clicks"
    counts, values = await _counts(conn, t, workspace_id, period)
    counted = text(counts).columns(link_id=Uuid, clicks=BigInteger).subquery("counted")
    clicks = func.coalesce(counted.c.clicks, 0)
    c = t.links.c
    query = (
        select(t.links, clicks.label("sorted_by"))
        .outerjoin(counted, counted.c.link_id == c.id)
        .where(c.workspace_id == workspace_id, *conditions(t, wanted))
    )
    if after is not None:
        number, last_id = read_text_cursor(after, listing)
        place, last = tuple_(clicks, c.id), (_number(number, 10**17 if is_down else -1), last_id)
        query = query.where(place < last if is_down else place > last)
    order = (clicks.desc(), c.id.desc()) if is_down else (clicks.asc(), c.id.asc())
    rows = list(await conn.execute(query.order_by(*order).limit(limit + 1), values))
    items = tuple(
        Link.from_row({name: value for name, value in row._mapping.items() if name != "sorted_by"})
        for row in rows[:limit]
    )
    goes_on = len(rows) > limit
    return Page(items, cursor(listing, str(rows[limit - 1].sorted_by), items[-1].id) if goes_on else None)


async def words(conn: AsyncConnection, t: Tables, workspace_id: UUID) -> Words:
    """The folders, tags and domains of the links in use."""
    in_use = f"FROM {t.links} WHERE workspace_id = :workspace_id AND archived_at IS NULL"
    found = await run(
        conn,
        f"SELECT * FROM (SELECT DISTINCT 'folder' AS kind, folder AS word {in_use} AND folder IS NOT NULL "
        f"ORDER BY word LIMIT :most) AS f UNION ALL SELECT * FROM (SELECT DISTINCT 'tag', unnest(tags) AS word {in_use} "
        f"ORDER BY word LIMIT :most) AS t UNION ALL SELECT * FROM (SELECT DISTINCT 'domain', domain AS word {in_use} "
        "ORDER BY word LIMIT :most) AS d",
        workspace_id=workspace_id,
        most=MOST_WORDS,
    )
    rows = [(row.kind, row.word) for row in found]
    return Words(*([word for kind, word in rows if kind == wanted] for wanted in ("folder", "tag", "domain")))


async def uses(conn: AsyncConnection, t: Tables, workspace_id: UUID, link_id: UUID) -> int:
    """How many uses of a link with `max_clicks` are taken."""
    found = await run(
        conn,
        f"SELECT coalesce(max(number), 0) FROM {t.link_uses} WHERE workspace_id = :workspace_id AND link_id = :link_id",
        workspace_id=workspace_id,
        link_id=link_id,
    )
    taken: int = found.scalar_one()
    return taken


async def _counts(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, period: tuple[datetime, datetime]
) -> tuple[str, dict[str, Any]]:
    """The clicks of each link as SQL, and its values."""
    since, until = (moment.astimezone(UTC) for moment in period)
    whole, parts = split_days(since, until)
    closed = await _closed(conn, t, workspace_id, whole)
    spans = _joined(
        [
            *((begin, end) for _, begin, end in parts),
            *((_start(day), _start(day) + DAY) for day in whole if day not in closed),
        ]
    )
    of_closed = "workspace_id = :workspace_id AND day = ANY(CAST(:closed AS date[]))"
    clicks = f"count(*) AS clicks FROM {t.events} e"
    counted = f"e.workspace_id = :workspace_id AND e.link_id IS NOT NULL AND {CLICK}"
    sql = (
        f"WITH touched AS (SELECT DISTINCT link_id, day FROM {t.link_days_touched} WHERE {of_closed}) "
        "SELECT link_id, CAST(sum(clicks) AS bigint) AS clicks FROM ("
        f"SELECT link_id, sum(clicks) AS clicks FROM {t.link_days} "
        f"WHERE {of_closed} AND (link_id, day) NOT IN (SELECT link_id, day FROM touched) GROUP BY 1 "
        f"UNION ALL SELECT e.link_id, {clicks} JOIN touched k ON k.link_id = e.link_id "
        "AND e.occurred_at >= CAST(k.day AS timestamp) AT TIME ZONE 'UTC' "
        f"AND e.occurred_at < CAST(k.day + 1 AS timestamp) AT TIME ZONE 'UTC' WHERE {counted} GROUP BY 1 "
        f"UNION ALL SELECT e.link_id, {clicks} JOIN json_to_recordset(CAST(:spans AS json)) "
        "AS k (since timestamptz, until timestamptz) ON e.occurred_at >= k.since AND e.occurred_at < k.until "
        f"WHERE {counted} AND e.occurred_at >= :since AND e.occurred_at < :until GROUP BY 1) AS parts GROUP BY 1"
    )
    return sql, {
        "workspace_id": workspace_id,
        "closed": sorted(closed),
        "spans": as_json([{"since": begin, "until": end} for begin, end in spans]),
        "since": min((begin for begin, _ in spans), default=until),
        "until": until,
    }


async def _closed(conn: AsyncConnection, t: Tables, workspace_id: UUID, days: Sequence[date]) -> set[date]:
    """Those of *days* that the roll-up holds."""
    if not days:
        return set()
    found = await run(
        conn,
        f"SELECT day FROM {t.link_days_closed} WHERE workspace_id = :workspace_id AND day BETWEEN :first AND :last",
        workspace_id=workspace_id,
        first=days[0],
        last=days[-1],
    )
    return {row.day for row in found}


def _joined(spans: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """*spans* of time, those that follow each other as one."""
    found: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _number(written: str, first: int) -> int:
    # A cursor comes back from a browser: what is no number of ours begins the list anew.
    return int(written) if written.isascii() and written.isdigit() and len(written) < 18 else first


__all__ = ["MOST_WORDS", "Sort", "Words", "by_clicks", "in_order", "uses", "words"]
