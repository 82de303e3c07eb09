"""
One question about many people, checked when it is made; and the one `where` that every report compiles it to.

Two grains: an *event* is in the period by `occurred_at`, a *visit* (a session) by `started_at`; the end is outside.

* Visit dimensions (source, medium, channel, campaign, referrer, entry_path, exit_path, country, device_type, browser, os)
  are facts of the visit. An event has those of its visit; an event outside of any visit (a sale that the host's server
  reports later) has its own, and no entry and exit.
* Event dimensions (path, host, region, city, event_type, event_name, link, currency) are facts of the single event. No
  visit metric is grouped by them: a visit has many paths and would count under each. That question is refused.
* As a *filter* an event dimension is clear, and allowed: a visit counts when one of its events matches all event filters
  at once (its events from a day before the period to a day after are looked at).
* Conversion rates take no event dimension at all: buyers buy on another page than the one that won them.
* Time dimensions cut the period at hours, days, weeks (from Monday) and months of the query's time zone. The cuts are
  made here, by zoneinfo, and PostgreSQL only sorts into them; so an hour that the clocks skip or repeat is right.

A value that is not set is `None`, in rows and in filters. `is_not` and `contains_not` keep rows whose value is not set.
`contains` looks at neither case nor wildcards: `%` and `_` stand for themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_never, get_args
from uuid import UUID

from sqlalchemy import DateTime, and_, case, exists, false, func, literal, or_, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause

from goodanalytics.errors import InvalidInput
from goodanalytics.store.reports.periods import Interval, cut, zone
from goodanalytics.store.tables import Tables

Grain = Literal["event", "visit"]
Operator = Literal["is", "is_not", "contains", "contains_not"]
Direction = Literal["asc", "desc"]

EVENT_METRICS = (
    "visitors",
    "pageviews",
    "events",
    "clicks",
    "unique_clicks",
    "leads",
    "sales",
    "revenue_cents",
    "conversion_rate",
)
VISIT_METRICS = ("visits", "bounce_rate", "visit_duration", "views_per_visit")
METRICS = EVENT_METRICS + VISIT_METRICS
"""What can be counted; `metrics` defines each."""

INTERVALS: Mapping[str, Interval] = {
    "time:hour": "hour",
    "time:day": "day",
    "time:week": "week",
    "time:month": "month",
}
TIME_DIMENSIONS = tuple(INTERVALS)
OWN_VISIT_DIMENSIONS = ("entry_path", "exit_path")
SHARED_DIMENSIONS = ("source", "medium", "channel", "campaign", "country", "device_type", "browser", "os")
VISIT_DIMENSIONS = (*SHARED_DIMENSIONS, "referrer", *OWN_VISIT_DIMENSIONS)
EVENT_DIMENSIONS = ("path", "host", "region", "city", "event_type", "event_name", "link", "currency")
FILTERS = VISIT_DIMENSIONS + EVENT_DIMENSIONS
DIMENSIONS = TIME_DIMENSIONS + FILTERS
"""What can be grouped by."""

MAX_LIMIT = 10_000  # rows
MAX_VALUES = 100  # of one filter
MAX_VALUE = 2_083  # characters, the longest URL that is kept
MARGIN = timedelta(days=1)
"""How far outside of the period the events of a visit are looked for."""


@dataclass(frozen=True, slots=True)
class Filter:
    """
    A condition on one dimension.

    Attributes:
        dimension: One of `FILTERS`.
        op: `is` and `contains` hold when any of *values* fits; `is_not` and `contains_not` when none does.
        values: 1 to 100; `None` stands for "not set", with `is` and `is_not` only.

    Raises:
        InvalidInput: One of them is none of these.
    """

    dimension: str
    op: Operator
    values: tuple[str | None, ...]

    def __post_init__(self) -> None:
        _check_names("filter", [self.dimension], FILTERS)
        _check_names("filter operator", [self.op], get_args(Operator))
        object.__setattr__(self, "values", tuple(self.values))
        if not 1 <= len(self.values) <= MAX_VALUES:
            raise InvalidInput(
                f"The filter on {self.dimension} has {len(self.values)} values; give 1 to {MAX_VALUES}",
                where="filters",
            )
        for value in self.values:
            if value is None and self.op in ("is", "is_not"):
                continue
            if not isinstance(value, str) or len(value) > MAX_VALUE or "\0" in value:
                raise InvalidInput(
                    f"The filter on {self.dimension} has the value {value!r:.80}; `{self.op}` takes texts of up to "
                    f"{MAX_VALUE} characters without NUL",
                    where="filters",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    A question.

    Attributes:
        period: From (inside) and to (outside), both aware; kept in UTC.
        metrics: One or more of `METRICS`.
        dimensions: Of `DIMENSIONS`, at most one of them a time.
        timezone: IANA name; decides where hours, days, weeks and months are cut.
        filters: All must hold.
        order_by: Metrics or dimensions with `asc` or `desc`. Ties, and what is not named, go by the dimensions; without any
            order, by time if that is a dimension, else by the first metric, the largest first.
        limit: 1 to 10,000 rows. A single time dimension without an order gives every bucket, however many.
        include_bots: Count what bots did, too.
        include_totals: Also answer the question without its dimensions.

    Raises:
        InvalidInput: A name is unknown, or the question has no right answer. The message says what to ask instead.
    """

    period: tuple[datetime, datetime]
    metrics: tuple[str, ...]
    dimensions: tuple[str, ...] = ()
    timezone: str = "UTC"
    filters: tuple[Filter, ...] = ()
    order_by: tuple[tuple[str, Direction], ...] = ()
    limit: int = 100
    include_bots: bool = False
    include_totals: bool = False

    def __post_init__(self) -> None:
        for name in ("metrics", "dimensions", "filters", "order_by"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_names("metric", self.metrics, METRICS)
        _check_names("dimension", self.dimensions, DIMENSIONS)
        _check_names("order", [name for name, _ in self.order_by], (*self.metrics, *self.dimensions))
        _check_names("order direction", [way for _, way in self.order_by], get_args(Direction), repeats=True)
        if not self.metrics:
            raise InvalidInput(f"metrics is empty. Ask for some of: {', '.join(METRICS)}", where="metrics")
        if not 1 <= self.limit <= MAX_LIMIT:
            raise InvalidInput(f"limit is {self.limit}; use 1 to {MAX_LIMIT:,}", where="limit")
        zone(self.timezone)
        object.__setattr__(self, "period", _utc_period(self.period))
        self._check_sense()

    def _check_sense(self) -> None:
        """Refuse what could only be answered by a wrong number."""
        if sum(name in TIME_DIMENSIONS for name in self.dimensions) > 1:
            raise InvalidInput("dimensions holds two times; use one of them", where="dimensions")
        by_event = [name for name in self.dimensions if name in EVENT_DIMENSIONS]
        of_visits = [name for name in self.metrics if name in VISIT_METRICS]
        if by_event and of_visits:
            raise InvalidInput(
                f"{', '.join(of_visits)} cannot be grouped by {', '.join(by_event)}: a visit has many of them and would count "
                f"under each. Group by {', '.join(VISIT_DIMENSIONS)}, or filter by {by_event[0]}",
                where="dimensions",
            )
        by_event += [f.dimension for f in self.filters if f.dimension in EVENT_DIMENSIONS]
        if by_event and "conversion_rate" in self.metrics:
            raise InvalidInput(
                f"conversion_rate cannot be told by {', '.join(by_event)}: people buy on another page or event than the one "
                f"that won them. Group and filter by {', '.join(VISIT_DIMENSIONS)}",
                where="metrics",
            )
        if any(name == "revenue_cents" for name, _ in self.order_by) and "currency" not in self.dimensions:
            raise InvalidInput(
                "revenue_cents is an amount per currency and has no order. Add the dimension currency",
                where="order_by",
            )

    @property
    def interval(self) -> str | None:
        """The time dimension, if there is one."""
        return next((name for name in self.dimensions if name in TIME_DIMENSIONS), None)

    @property
    def event_filters(self) -> tuple[Filter, ...]:
        """Those that a single event matches or not."""
        return tuple(f for f in self.filters if f.dimension in EVENT_DIMENSIONS)


def buckets(query: Query) -> tuple[datetime, ...]:
    """
    The beginnings of *query*'s hours, days, weeks or months, in its time zone; empty without a time dimension.

    Raises:
        InvalidInput: They are more than 5,000.
    """
    if query.interval is None:
        return ()
    return cut(*query.period, INTERVALS[query.interval], zone(query.timezone))


@dataclass(frozen=True, slots=True)
class Rows:
    """The tables of one statement under the names that it gives them."""

    events: FromClause
    sessions: FromClause
    visitors: FromClause
    links: FromClause

    @classmethod
    def of(cls, t: Tables) -> Rows:
        """Fresh names for *t*."""
        return cls(t.events.alias("e"), t.sessions.alias("s"), t.visitors.alias("v"), t.links.alias("l"))


def dimension(name: str, query: Query, r: Rows, grain: Grain) -> ColumnElement[Any]:
    """The value of dimension *name* for a row of *grain*; of a time, the number of its bucket, from 1."""
    if name in TIME_DIMENSIONS:
        at = r.events.c.occurred_at if grain == "event" else r.sessions.c.started_at
        cuts = [begin.astimezone(UTC) for begin in buckets(query)]
        return func.width_bucket(at, literal(cuts, ARRAY(DateTime(timezone=True))))
    if name == "link":
        return r.links.c.domain + "/" + r.links.c.key
    if name in EVENT_DIMENSIONS:
        return r.events.c[name]
    if name in OWN_VISIT_DIMENSIONS:
        return r.sessions.c[name]
    of_visit, of_event = (
        table.c.acquisition["referrer_host"].astext if name == "referrer" else table.c[name]
        for table in (r.sessions, r.events)
    )
    return of_visit if grain == "visit" else case((r.sessions.c.id.is_(None), of_event), else_=of_visit)


def joined(query: Query, r: Rows, grain: Grain, *, people: bool = False) -> FromClause:
    """The rows of *grain* with the tables that *query*'s dimensions and filters need, and the visitors for *people*."""
    named = {*query.dimensions, *(f.dimension for f in query.filters)}
    if grain == "visit":
        return r.sessions
    found: FromClause = r.events
    if named.intersection(VISIT_DIMENSIONS):
        found = found.outerjoin(r.sessions, _linked(r.events, "session_id", r.sessions))
    if "link" in named:
        found = found.outerjoin(r.links, _linked(r.events, "link_id", r.links))
    if people:
        found = found.outerjoin(r.visitors, _linked(r.events, "visitor_id", r.visitors))
    return found


def where(query: Query, r: Rows, workspace_id: UUID, grain: Grain) -> ColumnElement[bool]:
    """The rows of *grain* that *query* is about: workspace, period, people or bots, and filters."""
    start, end = query.period
    if grain == "event":
        rows, at = r.events, r.events.c.occurred_at
    else:
        rows, at = r.sessions, r.sessions.c.started_at
    conditions: list[ColumnElement[bool]] = [rows.c.workspace_id == workspace_id, at >= start, at < end]
    if not query.include_bots:
        conditions.append(rows.c.bot.is_(None))
    of_event = [_matches(f, query, r, grain) for f in query.event_filters]
    of_visit = [_matches(f, query, r, grain) for f in query.filters if f not in query.event_filters]
    if of_event and grain == "visit":
        of_event = [_has_event(query, r, of_event)]
    return and_(*conditions, *of_visit, *of_event)


def _has_event(query: Query, r: Rows, conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
    """Whether the visit has an event that meets all *conditions*."""
    e, s, (start, end) = r.events, r.sessions, query.period
    found: FromClause = e
    if any(f.dimension == "link" for f in query.event_filters):
        found = e.outerjoin(r.links, _linked(e, "link_id", r.links))
    return (
        exists()
        .select_from(found)
        .where(
            e.c.workspace_id == s.c.workspace_id,
            e.c.visitor_id == s.c.visitor_id,
            e.c.session_id == s.c.id,
            e.c.occurred_at >= start - MARGIN,
            e.c.occurred_at < end + MARGIN,
            true() if query.include_bots else e.c.bot.is_(None),
            *conditions,
        )
        .correlate(s)
    )


def _matches(f: Filter, query: Query, r: Rows, grain: Grain) -> ColumnElement[bool]:
    value = dimension(f.dimension, query, r, grain)
    words = [word for word in f.values if word is not None]
    found: ColumnElement[bool]
    match f.op:
        case "is" | "is_not":
            found = or_(value.in_(words), value.is_(None) if None in f.values else false())
        case "contains" | "contains_not":
            found = or_(*(value.icontains(word, autoescape=True) for word in words))
        case _:
            assert_never(f.op)
    known = func.coalesce(found, literal(value=False))
    return known if f.op in ("is", "contains") else ~known


def _linked(rows: FromClause, column: str, other: FromClause) -> ColumnElement[bool]:
    return and_(rows.c.workspace_id == other.c.workspace_id, rows.c[column] == other.c.id)


def _utc_period(period: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    start, end = period
    if start.tzinfo is None or end.tzinfo is None:
        raise InvalidInput(
            f"The period {start} to {end} has no time zone. Give aware datetimes", where="period"
        )
    try:
        start, end = start.astimezone(UTC), end.astimezone(UTC)
        _ = start - 32 * MARGIN, end + 32 * MARGIN  # room for the month around each
    except OverflowError:
        raise InvalidInput(f"The period {start} to {end} leaves the calendar", where="period") from None
    if start >= end:
        raise InvalidInput(f"The period ends at {end}, not after it starts at {start}", where="period")
    return start, end


def _check_names(kind: str, names: Iterable[str], known: Collection[str], *, repeats: bool = False) -> None:
    where_of = {"metric": "metrics", "dimension": "dimensions"}.get(kind, kind.partition(" ")[0])
    where_of = {"filter": "filters", "order": "order_by"}.get(where_of, where_of)
    seen: set[str] = set()
    for name in names:
        if name not in known:
            raise InvalidInput(f"{name!r:.80} is no {kind}. Known ones: {', '.join(known)}", where=where_of)
        if name in seen and not repeats:
            raise InvalidInput(f"The {kind} {name!r} is given twice; once is enough", where=where_of)
        seen.add(name)


__all__ = [
    "DIMENSIONS",
    "FILTERS",
    "METRICS",
    "Filter",
    "Query",
    "Rows",
    "buckets",
    "dimension",
    "joined",
    "where",
]
