"""
What became of a link: how often it was clicked, by whom and from where, and what that led to.

* clicks: of people; bots and previews (cards of messengers, prefetches, HEAD requests) are told beside them and never among them.
* unique_clicks: people who clicked, each once in the whole period. A person is whoever is one *now*: visitors that were merged
  count once, also for clicks from before.
* deduplicated_clicks: a person's clicks within `unique_window` count once. Windows follow each other from midnight UTC of
  1970-01-01, so that the figure does not depend on the period that is asked for, and days can be added up.
* leads, sales, revenue: trusted ones that carry the link, as in the reports (`reports.query`, dimension link): those of visits
  that one of its clicks began, until the visit ends. What a server reports later, outside of any visit, carries no link.
  Revenue is sales less refunds, in minor units by currency; currencies are never added.
* rules: by the clicks that they decided. variants: see `link_outcomes`.

Everything goes by the event's own time. Days that are closed come out of the roll-up (`link_days`), to the same figures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.links import Link
from goodanalytics.errors import InvalidInput
from goodanalytics.store import link_days
from goodanalytics.store.database import run
from goodanalytics.store.link_days import CLICK, LEAD, PERSON, SALE
from goodanalytics.store.link_outcomes import OF_LINK, Outcome, from_events, outcomes
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor
from goodanalytics.store.reports.periods import Interval, cut, zone
from goodanalytics.store.tables import Tables

TOP: Final = 10
"""How many sources, countries, … are told."""

DAY: Final = timedelta(days=1)
LONGEST: Final = timedelta(days=3_660)

_PARTS: Final[Mapping[str, str]] = {
    "sources": "e.source",
    "media": "e.medium",
    "campaigns": "e.campaign",
    "referrers": "e.acquisition ->> 'referrer_host'",
    "countries": "e.country",
    "devices": "e.device_type",
    "browsers": "e.browser",
    "systems": "e.os",
    "languages": "e.language",
    "rules": "e.properties ->> 'rule'",
}


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The clicks of one source, country, …; `value` is null where it is not known."""

    value: str | None
    clicks: int
    unique_clicks: int


class Bucket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happened from *at* to the next bucket. People count in each bucket in which they clicked."""

    at: datetime
    clicks: int = 0
    unique_clicks: int = 0
    leads: int = 0
    sales: int = 0


class LinkStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The figures of one link over a period.

    Attributes:
        since, until: The period; its end is outside.
        total_revenue_cents: The amount where there is one currency at the most; null where there are several.
        clicks_over_time: Every bucket of the period, without a gap.
    """

    since: datetime
    until: datetime
    total_clicks: int
    unique_clicks: int
    deduplicated_clicks: int
    unique_window_seconds: int
    qr_scans: int
    bots: int
    previews: int
    total_leads: int
    total_sales: int
    total_revenue_cents: int | None
    revenue: dict[str, int]
    clicks_over_time: list[Bucket]
    sources: list[Share]
    media: list[Share]
    campaigns: list[Share]
    referrers: list[Share]
    countries: list[Share]
    devices: list[Share]
    browsers: list[Share]
    systems: list[Share]
    languages: list[Share]
    rules: list[Share]
    variants: list[Outcome]


class Click(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One click.

    Attributes:
        id: Its `ga_id`.
        visitor_id: Who the person is now.
        bot: Why it does not count; null for a person's.
    """

    id: UUID
    at: datetime
    visitor_id: UUID
    source: str
    medium: str
    campaign: str | None
    referrer: str | None
    country: str | None
    region: str | None
    city: str | None
    device_type: str | None
    browser: str | None
    os: str | None
    language: str | None
    is_qr_scan: bool
    rule: str | None
    variant: str | None
    bot: str | None


class Totals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a list tells of each link. People count once for each day on which they clicked."""

    clicks: int = 0
    daily_unique_clicks: int = 0
    leads: int = 0
    sales: int = 0
    revenue: dict[str, int] = {}


async def stats(
    conn: AsyncConnection,
    t: Tables,
    link: Link,
    *,
    period: tuple[datetime, datetime] | None,
    now: datetime,
    interval: Interval = "day",
    timezone: str = "UTC",
    unique_window: timedelta = DAY,
) -> LinkStats:
    """
    The figures of *link*.

    Args:
        period: From (inside) and to (outside), aware; from its first click or its making until now when left out.
        interval, timezone: How *clicks_over_time* is cut.

    Raises:
        InvalidInput: The period ends before it begins, is longer than ten years or has more than 5,000 buckets; the window
            is not from a minute to a year.
    """
    since, until = await _period(conn, t, link, period, now)
    if not timedelta(minutes=1) <= unique_window <= timedelta(days=366):
        raise InvalidInput(
            f"unique_window is {unique_window}; it must be from a minute to a year", where="unique_window"
        )
    cuts = cut(since, until, interval, zone(timezone))
    days = await link_days.by_day(conn, t, link.workspace_id, [link.id], since, until)
    values = {"workspace_id": link.workspace_id, "link_id": link.id, "since": since, "until": until}
    sums = {name: sum(getattr(day, name) for day in days) for name in link_days.COUNTS}
    unique, windowed = await _unique(conn, t, values, unique_window)
    by_currency = _added(day.revenue for day in days)
    (only,) = [*by_currency.values(), 0][:1]
    return LinkStats(
        since=since,
        until=until,
        total_clicks=sums["clicks"],
        unique_clicks=unique,
        deduplicated_clicks=sums["unique_clicks"] if unique_window == DAY else windowed,
        unique_window_seconds=int(unique_window.total_seconds()),
        qr_scans=sums["qr_scans"],
        bots=sums["bots"],
        previews=sums["previews"],
        total_leads=sums["leads"],
        total_sales=sums["sales"],
        total_revenue_cents=only if len(by_currency) <= 1 else None,
        revenue=by_currency,
        clicks_over_time=(
            _by_day(cuts, days)
            if (interval, timezone) == ("day", "UTC")
            else await _over_time(conn, t, values, cuts)
        ),
        variants=await outcomes(conn, t, values),
        **await _parts(conn, t, values),
    )


async def totals(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    ids: Collection[UUID],
    since: datetime,
    until: datetime,
) -> dict[UUID, Totals]:
    """The figures of many links that are told beside their names, by their ids."""
    days = defaultdict(list)
    for day in await link_days.by_day(conn, t, workspace_id, ids, since, until):
        days[day.link_id].append(day)
    return {
        link_id: Totals(
            clicks=sum(day.clicks for day in days[link_id]),
            daily_unique_clicks=sum(day.unique_clicks for day in days[link_id]),
            leads=sum(day.leads for day in days[link_id]),
            sales=sum(day.sales for day in days[link_id]),
            revenue=_added(day.revenue for day in days[link_id]),
        )
        for link_id in ids
    }


async def clicks(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    link_id: UUID,
    *,
    limit: int = 50,
    after: str | None = None,
    include_bots: bool = False,
) -> Page[Click]:
    """
    A page of a link's clicks, the newest first.

    Raises:
        InvalidInput: *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    listing = f"clicks {link_id}"
    at, last_id = (None, None) if after is None else read_cursor(after, listing)
    further = "" if after is None else "AND (e.occurred_at, e.id) < (:at, CAST(:last_id AS uuid)) "
    rows = await run(
        conn,
        f"SELECT e.id, e.occurred_at AS at, {PERSON} AS visitor_id, e.source, e.medium, e.campaign, e.referrer, e.country, "
        "e.region, e.city, e.device_type, e.browser, e.os, e.language, "
        "coalesce(e.properties ->> 'qr' = 'true', false) AS is_qr_scan, e.properties ->> 'rule' AS rule, "
        f"e.properties ->> 'variant' AS variant, e.bot {from_events(t)} "
        "WHERE e.workspace_id = :workspace_id AND e.link_id = :link_id AND e.event_type = 'link_click' "
        f"{'' if include_bots else 'AND e.bot IS NULL '}{further}ORDER BY e.occurred_at DESC, e.id DESC LIMIT :most",
        workspace_id=workspace_id,
        link_id=link_id,
        most=limit + 1,
        **({} if after is None else {"at": at, "last_id": last_id}),
    )
    found = [Click(**row._mapping) for row in rows]
    items = tuple(found[:limit])
    goes_on = len(found) > limit
    return Page(items, cursor(listing, items[-1].at, items[-1].id) if goes_on else None)


# Parts ---------------------------------------------------------------------------------------------------------------


async def _period(
    conn: AsyncConnection, t: Tables, link: Link, period: tuple[datetime, datetime] | None, now: datetime
) -> tuple[datetime, datetime]:
    if period is None:
        found = await run(
            conn,
            f"SELECT min(occurred_at) AS first FROM {t.events} WHERE workspace_id = :workspace_id AND link_id = :link_id",
            workspace_id=link.workspace_id,
            link_id=link.id,
        )
        until = now + timedelta(microseconds=1)
        since = min(found.scalar_one() or link.created_at, link.created_at, now)
        return max(since, until - LONGEST), until
    return checked_period(period)


def checked_period(period: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    """
    *period* in UTC.

    Raises:
        InvalidInput: It has no time zone, ends before it begins, or is longer than ten years.
    """
    since, until = period
    if since.tzinfo is None or until.tzinfo is None:
        raise InvalidInput(
            f"The period {since} to {until} has no time zone. Give aware datetimes", where="period"
        )
    if not timedelta(0) < until - since <= LONGEST:
        raise InvalidInput(
            f"The period {since} to {until} must end after it begins, and not be longer than ten years",
            where="period",
        )
    return since.astimezone(UTC), until.astimezone(UTC)


async def _unique(
    conn: AsyncConnection, t: Tables, values: Mapping[str, Any], window: timedelta
) -> tuple[int, int]:
    found = await run(
        conn,
        "SELECT count(DISTINCT person) AS people, count(DISTINCT (person, part)) AS windows FROM ("
        f"SELECT {PERSON} AS person, floor(extract(epoch FROM e.occurred_at) / CAST(:seconds AS numeric)) AS part "
        f"{from_events(t)} {OF_LINK} AND {CLICK}) AS clicks",
        **values,
        seconds=int(window.total_seconds()),
    )
    row = found.one()
    return row.people, row.windows


async def _parts(conn: AsyncConnection, t: Tables, values: Mapping[str, Any]) -> dict[str, list[Share]]:
    """The clicks of each source, country, …, the most first; one statement for all of them."""
    columns = ", ".join(f"{value} AS {name}" for name, value in _PARTS.items())
    sets = ", ".join(f"({name})" for name in _PARTS)
    # GROUPING has a bit for each column, the first the highest, which is 0 for the one that a row is grouped by.
    which = ", ".join(f"GROUPING({name}) AS of_{name}" for name in _PARTS)
    rows = await run(
        conn,
        f"WITH clicks AS MATERIALIZED (SELECT {PERSON} AS person, {columns} {from_events(t)} {OF_LINK} AND {CLICK}), "
        f"counted AS (SELECT {', '.join(_PARTS)}, {which}, count(*) AS clicks, count(DISTINCT person) AS people FROM clicks "
        f"GROUP BY GROUPING SETS ({sets})), "
        f"ranked AS (SELECT *, coalesce({', '.join(_PARTS)}) AS value, row_number() OVER (PARTITION BY "
        f'{", ".join(f"of_{name}" for name in _PARTS)} ORDER BY clicks DESC, coalesce({", ".join(_PARTS)}) COLLATE "C") AS place '
        "FROM counted) SELECT * FROM ranked WHERE place <= :most ORDER BY place",
        **values,
        most=TOP,
    )
    found: dict[str, list[Share]] = {name: [] for name in _PARTS}
    for row in rows:
        name = next(part for part in _PARTS if not row._mapping[f"of_{part}"])
        found[name].append(Share(row.value, row.clicks, row.people))
    return {**found, "rules": [share for share in found["rules"] if share.value is not None]}


async def _over_time(
    conn: AsyncConnection, t: Tables, values: Mapping[str, Any], cuts: Sequence[datetime]
) -> list[Bucket]:
    rows = await run(
        conn,
        "SELECT width_bucket(e.occurred_at, CAST(:cuts AS timestamptz[])) AS number, "
        f"count(*) FILTER (WHERE {CLICK}) AS clicks, count(DISTINCT {PERSON}) FILTER (WHERE {CLICK}) AS unique_clicks, "
        f"count(*) FILTER (WHERE {LEAD}) AS leads, count(*) FILTER (WHERE {SALE}) AS sales {from_events(t)} {OF_LINK} GROUP BY 1",
        **values,
        cuts=[at.astimezone(UTC) for at in cuts],
    )
    found = {row.number: row for row in rows}
    return [
        Bucket(at, row.clicks, row.unique_clicks, row.leads, row.sales)
        if (row := found.get(n))
        else Bucket(at)
        for n, at in enumerate(cuts, 1)
    ]


def _by_day(cuts: Sequence[datetime], days: Sequence[link_days.LinkDay]) -> list[Bucket]:
    found = {day.day: day for day in days}
    return [
        Bucket(at, day.clicks, day.unique_clicks, day.leads, day.sales)
        if (day := found.get(at.date()))
        else Bucket(at)
        for at in cuts
    ]


def _added(each: Any) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for by_currency in each:
        sums.update(by_currency)
    return dict(sorted(sums.items()))


__all__ = [
    "LONGEST", "TOP", "Bucket", "Click", "LinkStats", "Share", "Totals", "checked_period", "clicks", "stats", "totals",
]  # fmt: skip
