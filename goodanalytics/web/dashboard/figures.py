"""
The figures of the overview, the sources page and the pages page: which questions are asked, and what is made of the answers.

Every figure is `store.reports.metrics`' own; nothing is counted here. The statements of a page run one after the other on
one connection, so that a page costs the host's pool no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from goodanalytics.store.database import Database
from goodanalytics.store.reports import metrics
from goodanalytics.store.reports.query import Filter, Query
from goodanalytics.web.dashboard import charts, words
from goodanalytics.web.dashboard.asked import FILTERED, Asked
from goodanalytics.web.dashboard.charts import Chart, Series

TOP = 8
"""Rows of a panel."""

MOST = 100
"""Rows of a page of its own."""

_TILES = (
    "visitors",
    "visits",
    "pageviews",
    "bounce_rate",
    "visit_duration",
    "leads",
    "sales",
    "revenue_cents",
)


@dataclass(frozen=True, slots=True)
class Tile:
    """
    One figure of the period.

    Attributes:
        values: One text, or one for each currency.
        before: The same figure of the period before.
        change: `None` when there is nothing to compare with, as for several currencies.
    """

    name: str
    values: tuple[str, ...]
    before: str
    change: words.Change | None


@dataclass(frozen=True, slots=True)
class Graph:
    """
    The chart over time.

    Attributes:
        rows: For each place on the axis: its long label and the values of the series in their order.
    """

    chart: Chart
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    interval: str


@dataclass(frozen=True, slots=True)
class Panel:
    """
    What the top values of some dimensions are asked with.

    Attributes:
        dimensions: The first one is the row's name and what a click filters by; the others are said beside it.
        metrics: Name → heading; the first one decides the order and the length of the bar.
        page: Path of the page that shows more.
        only: A condition of this panel alone.
    """

    title: str
    dimensions: tuple[str, ...]
    metrics: Mapping[str, str]
    page: str | None = None
    only: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """
    One value of a panel.

    Attributes:
        others: The values of the panel's other dimensions.
        filter: The query string that shows only this one; `None` where nothing can be filtered.
        share: Length of the bar in percent.
    """

    name: str
    others: tuple[str, ...]
    figures: tuple[str, ...]
    filter: str | None
    share: float

    @property
    def said(self) -> str:
        """The other dimensions in one line, each word once."""
        return " · ".join(word for word in dict.fromkeys(self.others) if word != self.name)


@dataclass(frozen=True, slots=True)
class Top:
    """An answered panel."""

    panel: Panel
    rows: tuple[Row, ...]


_VISITORS = {"visitors": "Visitors"}
_VIEWS = Filter("event_type", "is", ("pageview",))
"""Other events have no page, or are no view of it."""

PANELS: tuple[Panel, ...] = (
    Panel("Sources", ("source", "medium"), _VISITORS, "/sources"),
    Panel("Channels", ("channel",), _VISITORS),
    Panel("Campaigns", ("campaign",), _VISITORS, only=(Filter("campaign", "is_not", (None,)),)),
    Panel("Pages", ("path",), {"visitors": "Visitors", "pageviews": "Views"}, "/pages", only=(_VIEWS,)),
    Panel("Entry pages", ("entry_path",), {"visits": "Visits", "bounce_rate": "Bounce"}, "/pages"),
    Panel(
        "Short links",
        ("link",),
        {"clicks": "Clicks", "unique_clicks": "People"},
        "/links",
        only=(Filter("link", "is_not", (None,)),),
    ),
    Panel("Countries", ("country",), _VISITORS),
    Panel("Devices", ("device_type",), _VISITORS),
    Panel("Browsers", ("browser",), _VISITORS),
    Panel("Systems", ("os",), _VISITORS),
    Panel("Referrers", ("referrer",), _VISITORS, only=(Filter("referrer", "is_not", (None,)),)),
    Panel(
        "Events",
        ("event_name",),
        {"events": "Times", "visitors": "Visitors"},
        only=(Filter("event_type", "is", ("custom",)),),
    ),
)

SOURCES = Panel(
    "Sources",
    ("source", "medium", "channel"),
    {
        "visitors": "Visitors",
        "visits": "Visits",
        "pageviews": "Pageviews",
        "bounce_rate": "Bounce rate",
        "visit_duration": "Visit duration",
        "leads": "Leads",
        "sales": "Sales",
        "revenue_cents": "Revenue",
    },
)
PAGES = Panel("Pages", ("path",), {"visitors": "Visitors", "pageviews": "Pageviews"}, only=(_VIEWS,))
ENTRIES = Panel(
    "Entry pages",
    ("entry_path",),
    {
        "visits": "Visits",
        "visitors": "Visitors",
        "bounce_rate": "Bounce rate",
        "visit_duration": "Visit duration",
        "views_per_visit": "Views per visit",
    },
)
EXITS = Panel("Exit pages", ("exit_path",), {"visits": "Visits"})


@dataclass(frozen=True, slots=True)
class Figures:
    """The reports of one workspace, asked over one open connection."""

    conn: Any
    database: Database
    workspace_id: UUID
    asked: Asked

    async def tiles(self) -> list[Tile]:
        """The period's figures beside those of the period before."""
        now = await self._totals(self.asked.period)
        before = await self._totals(self.asked.before)
        return [_tile(name, now[name], before[name]) for name in _TILES]

    async def graph(self) -> Graph:
        """Visitors and pageviews over time."""
        query = self._query(("visitors", "pageviews"))
        found = await metrics.timeseries(
            self.conn, self.database.tables, self.workspace_id, query, self.asked.interval
        )
        series = (
            Series("Visitors", tuple(row[1] for row in found.rows)),
            Series("Pageviews", tuple(row[2] for row in found.rows)),
        )
        times = [self.asked.local(row[0]) for row in found.rows]
        return Graph(
            chart=charts.draw([on_axis(self.asked, at) for at in times], series),
            names=tuple(one.name for one in series),
            rows=tuple(
                (in_full(self.asked, at), (row[1], row[2])) for at, row in zip(times, found.rows, strict=True)
            ),
            interval=self.asked.interval,
        )

    async def top(self, panel: Panel, limit: int = TOP) -> Top:
        """The values of *panel* that have the most of its first metric."""
        query = replace(
            self._query(tuple(panel.metrics)),
            dimensions=panel.dimensions,
            filters=(*self.asked.filters, *panel.only),
            limit=limit,
        )
        found = await metrics.run(self.conn, self.database.tables, self.workspace_id, query)
        records = found.records()
        first = next(iter(panel.metrics))
        most = max((record[first] for record in records), default=0)
        return Top(panel, tuple(self._row(panel, record, most) for record in records if record[first]))

    async def here_now(self) -> int:
        """How many people did something in the last five minutes."""
        found = await metrics.realtime(self.conn, self.database.tables, self.workspace_id, self.asked.now)
        return found["visitors"]

    async def _totals(self, period: tuple[datetime, datetime]) -> dict[str, Any]:
        query = replace(self._query(_TILES), period=period)
        return await metrics.totals(self.conn, self.database.tables, self.workspace_id, query)

    def _query(self, names: tuple[str, ...]) -> Query:
        return Query(
            period=self.asked.period,
            metrics=names,
            timezone=self.asked.timezone,
            filters=self.asked.filters,
        )

    def _row(self, panel: Panel, record: Mapping[str, Any], most: int) -> Row:
        first, *others = panel.dimensions
        value = record[first]
        return Row(
            name=value_in_words(first, value),
            others=tuple(value_in_words(name, record[name]) for name in others),
            figures=tuple(" · ".join(in_words(name, record[name])) for name in panel.metrics),
            filter=self.asked.filtered(first, value) if first in FILTERED else None,
            share=charts.share(record[next(iter(panel.metrics))], most),
        )


def on_axis(asked: Asked, at: datetime) -> str:
    """What stands below the chart at *at*, a time in the page's zone."""
    match asked.interval:
        case "hour":
            return f"{at:%H:%M}"
        case "day":
            return words.day_in_short(at)
        case "month":
            return words.month(at)
        case _:
            assert_never(asked.interval)


def in_full(asked: Asked, at: datetime) -> str:
    """*at*, a time in the page's zone, as the chart's table says it."""
    match asked.interval:
        case "hour":
            return f"{words.day(at)}, {at:%H:%M}"
        case "day":
            return words.day(at)
        case "month":
            return words.month(at)
        case _:
            assert_never(asked.interval)


def in_words(metric: str, value: Any) -> list[str]:
    """A metric's value as texts: one, or one for each currency."""
    match metric:
        case "bounce_rate" | "conversion_rate":
            return [words.percent(value)]
        case "visit_duration":
            return [words.duration(value)]
        case "views_per_visit":
            return [f"{value:.1f}"]
        case "revenue_cents":
            return words.amounts(value) or ["–"]
        case _:
            return [words.count(value)]


def value_in_words(dimension: str, value: str | None) -> str:
    """A dimension's value as people know it."""
    if value is None:
        return words.NOT_SET
    match dimension:
        case "country":
            return words.country(value)
        case "channel":
            return words.channel(value)
        case "device_type":
            return words.DEVICES.get(value, value)
        case _:
            return value


_HEADINGS = {
    "visitors": "Visitors",
    "visits": "Visits",
    "pageviews": "Pageviews",
    "bounce_rate": "Bounce rate",
    "visit_duration": "Visit duration",
    "leads": "Leads",
    "sales": "Sales",
    "revenue_cents": "Revenue",
}


def _tile(metric: str, now: Any, before: Any) -> Tile:
    return Tile(
        name=_HEADINGS[metric],
        values=tuple(in_words(metric, now)),
        before=" · ".join(in_words(metric, before)),
        change=_change(metric, now, before),
    )


def _change(metric: str, now: Any, before: Any) -> words.Change | None:
    if metric == "revenue_cents":
        # A percentage of several currencies together would be a sum of what must not be added.
        one: Sequence[str] = sorted({*now, *before})
        return words.change(now.get(one[0], 0), before.get(one[0], 0)) if len(one) == 1 else None
    return words.change(now, before, less_is_better=metric == "bounce_rate")


__all__ = [
    "ENTRIES",
    "EXITS",
    "MOST",
    "PAGES",
    "PANELS",
    "SOURCES",
    "Figures",
    "Graph",
    "Panel",
    "Row",
    "Tile",
    "Top",
    "in_full",
    "on_axis",
]
