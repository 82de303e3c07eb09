"""
What each metric counts, and `run`, which answers a `Query`. All figures are exact.

Rows from bots never count (unless asked for), nor do leads and sales that a browser merely claims (`trusted` is false).

* visitors: people (distinct canonical ids) with an event of a kind that opens visits (`core.sessions.OPENS`): not a click on
  a short link, a ping or a refund alone. A person counts once in each row they touch; rows do not add up.
* visits: sessions that started in the period. bounce_rate: percent of them that are bounces. visit_duration: their mean in
  seconds. views_per_visit: their mean number of pageviews.
* pageviews, events (of any kind), clicks (on short links), unique_clicks (people who clicked). A click on a key that no link has
  (an orphan) is an event and no click, as in the figures of links; `events` of the event type link_click count both.
* leads, sales: trusted ones, also those that were given back later. revenue_cents: trusted sales less trusted refunds, each
  on its own day, in minor units; with the dimension currency a number, without it a mapping from currency to number.
  Currencies are never added. What is unattributed counts as direct.
* conversion_rate: percent of the visitors with a trusted sale.

Means and percentages are rounded to 2 decimals. Of nothing they are 0.0: look at the count beside them.
Sums of events go by the event's time, visits by their start; so a visit over midnight counts on its first day only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Numeric,
    Select,
    Text,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from goodanalytics.core.hits import EventType
from goodanalytics.core.sessions import OPENS
from goodanalytics.store.reports.periods import Interval
from goodanalytics.store.reports.query import (
    METRICS,
    TIME_DIMENSIONS,
    VISIT_DIMENSIONS,
    Grain,
    Query,
    Rows,
    buckets,
    dimension,
    joined,
    where,
)
from goodanalytics.store.tables import Tables

REALTIME = timedelta(minutes=5)
"""How long after their last event somebody counts as being here; the same five minutes as Plausible and GoatCounter."""


@dataclass(frozen=True, slots=True)
class Result:
    """
    The answer.

    Attributes:
        columns: The dimensions, then the metrics, as asked for.
        rows: A time is the aware beginning of its bucket, another dimension a text or `None`; see the module for metrics.
        totals: The metrics over everything, when `include_totals` asked or there are no dimensions.
        meta: `from`: the tables that were read, `events`, `sessions` or `events+sessions`; `exact`: always true here;
            `timezone`; `notes`: how figures are to be read, in sentences.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    totals: dict[str, Any] | None
    meta: dict[str, Any]

    def records(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Metric:
    """
    How a metric is counted.

    Attributes:
        kind: SQL type of the value.
        among: The rows that it looks at; others are not even read.
        value: The aggregate over rows of which all metrics' *among* may be part.
    """

    kind: sa.types.TypeEngine[Any]
    among: Callable[[Rows], ColumnElement[bool]]
    value: Callable[[Rows], ColumnElement[Any]]


def _of_types(*types: EventType) -> Callable[[Rows], ColumnElement[bool]]:
    return lambda r: r.events.c.event_type.in_(sorted(types))


def _trusted(*types: EventType) -> Callable[[Rows], ColumnElement[bool]]:
    return lambda r: r.events.c.trusted & r.events.c.event_type.in_(sorted(types))


def _money(r: Rows) -> ColumnElement[bool]:
    known = r.events.c.amount_cents.is_not(None) & r.events.c.currency.is_not(None)
    return known & _trusted(EventType.SALE, EventType.REFUND)(r)


def _signed_cents(r: Rows) -> ColumnElement[int]:
    """A refund takes away, however its amount was written."""
    amount = func.abs(r.events.c.amount_cents)
    return sa.case(
        (r.events.c.event_type == EventType.REFUND, -amount),
        else_=r.events.c.amount_cents,
    )


def _count(among: Callable[[Rows], ColumnElement[bool]]) -> Metric:
    return Metric(Integer(), among, lambda r: func.count().filter(among(r)))


def _people(r: Rows, among: Callable[[Rows], ColumnElement[bool]]) -> ColumnElement[int]:
    person = func.coalesce(r.visitors.c.canonical_id, r.events.c.visitor_id)
    return func.count(person.distinct()).filter(among(r))


def _all(_: Rows) -> ColumnElement[bool]:
    return true()


def _percent(part: ColumnElement[Any], whole: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.round(sa.cast(100, Numeric) * part / func.nullif(whole, 0), 2)


_opens = _of_types(*OPENS)


def _clicks(r: Rows) -> ColumnElement[bool]:
    return _of_types(EventType.LINK_CLICK)(r) & r.events.c.link_id.is_not(None)


_sales = _trusted(EventType.SALE)

OF_EVENTS: Mapping[str, Metric] = {
    "visitors": Metric(Integer(), _opens, lambda r: _people(r, _opens)),
    "pageviews": _count(_of_types(EventType.PAGEVIEW)),
    "events": _count(_all),
    "clicks": _count(_clicks),
    "unique_clicks": Metric(Integer(), _clicks, lambda r: _people(r, _clicks)),
    "leads": _count(_trusted(EventType.LEAD)),
    "sales": _count(_sales),
    "revenue_cents": Metric(BigInteger(), _money, lambda r: func.sum(_signed_cents(r)).filter(_money(r))),
    "conversion_rate": Metric(Float(), _opens, lambda r: _percent(_people(r, _sales), _people(r, _opens))),
}
"""The metrics of the event grain."""

OF_VISITS: Mapping[str, Metric] = {
    "visits": _count(_all),
    "bounce_rate": Metric(
        Float(), _all, lambda r: _percent(func.count().filter(r.sessions.c.is_bounce), func.count())
    ),
    "visit_duration": Metric(
        Float(), _all, lambda r: func.round(func.avg(r.sessions.c.duration_ms) / 1000, 2)
    ),
    "views_per_visit": Metric(Float(), _all, lambda r: func.round(func.avg(r.sessions.c.pageviews), 2)),
}
"""The metrics of the visit grain."""

_OF_PEOPLE = {"visitors", "unique_clicks", "conversion_rate"}


async def run(conn: AsyncConnection, t: Tables, workspace_id: UUID, query: Query) -> Result:
    """
    Answer *query* about one workspace, in one statement (and one more for the totals, if they are asked for).

    A query whose only dimension is a time, and which asks for no order, gets every bucket of its period, oldest first;
    empty ones hold zeros. Any other query gets the rows that there are, up to its limit.

    Raises:
        InvalidInput: The period has more than 5,000 buckets.
    """
    cuts = buckets(query)
    found = await conn.execute(_statement(query, t, workspace_id))
    rows = [_read(row, query, cuts) for row in found]
    if _is_series(query):
        rows = _filled(rows, query, cuts)
    columns = (*query.dimensions, *query.metrics)
    whole = None
    if not query.dimensions:
        whole = dict(zip(columns, rows[0], strict=True))
    elif query.include_totals:
        whole = await totals(conn, t, workspace_id, query)
    return Result(columns, tuple(rows), whole, _meta(query))


async def totals(conn: AsyncConnection, t: Tables, workspace_id: UUID, query: Query) -> dict[str, Any]:
    """*query*'s metrics over everything, whatever its dimensions."""
    whole = await run(conn, t, workspace_id, replace(query, dimensions=(), order_by=(), include_totals=False))
    return whole.records()[0]


async def timeseries(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, query: Query, interval: Interval
) -> Result:
    """*query*'s metrics for each *interval* of its period, without a gap."""
    return await run(conn, t, workspace_id, replace(query, dimensions=(f"time:{interval}",), order_by=()))


async def top(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, query: Query, name: str, limit: int = 10
) -> Result:
    """The *limit* values of dimension *name* that have the most of *query*'s first metric."""
    return await run(conn, t, workspace_id, replace(query, dimensions=(name,), order_by=(), limit=limit))


async def realtime(conn: AsyncConnection, t: Tables, workspace_id: UUID, now: datetime) -> dict[str, int]:
    """How many `visitors` did something in the five minutes up to and with *now*."""
    tick = timedelta(microseconds=1)
    query = Query(period=(now - REALTIME + tick, now + tick), metrics=("visitors",))
    return await totals(conn, t, workspace_id, query)


def _statement(query: Query, t: Tables, workspace_id: UUID) -> Select[Any]:
    """
    One row for each group, out of up to three branches that are each grouped by themselves and then laid side by side.

    A union grouped again, not a full join, because values that are not set must meet, too.
    """
    r = Rows.of(t)
    plain = [name for name in query.metrics if not _is_mapping(name, query)]
    branches = []
    if of_events := {name: OF_EVENTS[name] for name in plain if name in OF_EVENTS}:
        branches.append(_branch(query, r, workspace_id, "event", of_events))
    if of_visits := {name: OF_VISITS[name] for name in plain if name in OF_VISITS}:
        branches.append(_branch(query, r, workspace_id, "visit", of_visits))
    if len(plain) < len(query.metrics):
        branches.append(_revenue(query, r, workspace_id))
    grouped = sa.union_all(*branches).subquery("grouped")
    keys = [grouped.c[key] for key in _keys(query)]
    per_code = func.jsonb_object_agg(grouped.c.code, grouped.c.cents, type_=JSONB).filter(
        grouped.c.code.is_not(None)
    )
    values = [
        (func.coalesce(func.max(grouped.c[name]), 0) if name in plain else per_code).label(name)
        for name in query.metrics
    ]
    statement = select(*keys, *values).group_by(*keys).order_by(*_order(query, keys))
    return statement if _is_series(query) else statement.limit(query.limit)


def _branch(
    query: Query, r: Rows, workspace_id: UUID, grain: Grain, metrics: Mapping[str, Metric]
) -> Select[Any]:
    """The metrics of one grain; those of other branches are null."""
    values = {name: sa.cast(metric.value(r), metric.kind) for name, metric in metrics.items()}
    people = not _OF_PEOPLE.isdisjoint(metrics)
    return (
        select(*_labelled(query, r, grain), *_outputs(query, values))
        .select_from(joined(query, r, grain, people=people))
        .where(where(query, r, workspace_id, grain), or_(*(metric.among(r) for metric in metrics.values())))
        .group_by(*map(literal_column, _keys(query)))
    )


def _revenue(query: Query, r: Rows, workspace_id: UUID) -> Select[Any]:
    """Revenue with a row for each currency of a group."""
    values = {"code": r.events.c.currency, "cents": sa.cast(func.sum(_signed_cents(r)), BigInteger)}
    return (
        select(*_labelled(query, r, "event"), *_outputs(query, values))
        .select_from(joined(query, r, "event"))
        .where(where(query, r, workspace_id, "event"), _money(r))
        .group_by(*map(literal_column, [*_keys(query), "code"]))
    )


def _outputs(query: Query, values: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """All branches' columns in one order: *values*, and nulls of the right type for the others."""
    kinds = {
        name: {**OF_EVENTS, **OF_VISITS}[name].kind for name in query.metrics if not _is_mapping(name, query)
    }
    kinds |= {"code": Text(), "cents": BigInteger()}
    return [values.get(name, sa.cast(sa.null(), kind)).label(name) for name, kind in kinds.items()]


def _labelled(query: Query, r: Rows, grain: Grain) -> list[ColumnElement[Any]]:
    return [
        dimension(name, query, r, grain).label(key)
        for name, key in zip(query.dimensions, _keys(query), strict=True)
    ]


def _keys(query: Query) -> list[str]:
    """Names for the dimensions that no table has as a column: GROUP BY would prefer the column."""
    return [f"d{number}" for number in range(len(query.dimensions))]


def _is_mapping(name: str, query: Query) -> bool:
    return name == "revenue_cents" and "currency" not in query.dimensions


def _is_series(query: Query) -> bool:
    return query.dimensions == (query.interval,) and not query.order_by


def _order(query: Query, keys: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """What was asked for, then all dimensions: rows never tie."""
    ordered = query.order_by
    if not ordered and query.interval is not None:
        ordered = ((query.interval, "asc"),)
    elif not ordered:
        ordered = tuple((name, "desc") for name in query.metrics if not _is_mapping(name, query))[:1]
    # "C": the same order on every machine, whatever its locale.
    by_name = {
        name: key if name in TIME_DIMENSIONS else key.collate("C")
        for name, key in zip(query.dimensions, keys, strict=True)
    }
    named = [(by_name.get(name, literal_column(name)), way) for name, way in ordered]
    named += [(key, "asc") for key in by_name.values()]
    return [(column.asc() if way == "asc" else column.desc()).nulls_last() for column, way in named]


def _read(row: Sequence[Any], query: Query, cuts: Sequence[datetime]) -> tuple[Any, ...]:
    """A row as `Result.rows` holds it."""
    names = (*query.dimensions, *query.metrics)
    return tuple(
        cuts[value - 1] if name in TIME_DIMENSIONS else {} if value is None and name in METRICS else value
        for name, value in zip(names, row, strict=True)
    )


def _filled(rows: Sequence[tuple[Any, ...]], query: Query, cuts: Sequence[datetime]) -> list[tuple[Any, ...]]:
    """A row for every bucket, oldest first."""
    found = {row[0].astimezone(UTC): row for row in rows}
    return [found.get(begin.astimezone(UTC), (begin, *_zeros(query))) for begin in cuts]


def _zeros(query: Query) -> list[Any]:
    kinds = {name: metric.kind for name, metric in {**OF_EVENTS, **OF_VISITS}.items()}
    return [
        {} if _is_mapping(name, query) else 0.0 if isinstance(kinds[name], Float) else 0
        for name in query.metrics
    ]


def _meta(query: Query) -> dict[str, Any]:
    visits = [name for name in query.metrics if name in OF_VISITS]
    tables = ["events"] * any(name in OF_EVENTS for name in query.metrics) + ["sessions"] * bool(visits)
    notes = []
    if visits and query.event_filters:
        named = ", ".join(dict.fromkeys(f.dimension for f in query.event_filters))
        notes.append(f"{', '.join(visits)}: of the visits with an event that matches the filters on {named}")
    if not set(VISIT_DIMENSIONS).isdisjoint(query.dimensions) and tables[0] == "events":
        notes.append("Events count under the source, entry and device of their visit")
    asked_about = {*query.dimensions, *(f.dimension for f in query.filters)}
    if "link" in asked_about and not {"clicks", "unique_clicks"}.issuperset(query.metrics):
        notes.append("link: of events that carry a short link themselves, as clicks do")
    return {"from": "+".join(tables), "exact": True, "timezone": query.timezone, "notes": notes}


__all__ = ["OF_EVENTS", "OF_VISITS", "Metric", "Result", "realtime", "run", "timeseries", "top", "totals"]
