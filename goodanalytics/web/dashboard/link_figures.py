"""The figures of a link's page: `store.link_figures`' own, put into tiles, a chart and panels. Nothing is counted here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from goodanalytics.store.link_figures import LinkStats, Share, Totals
from goodanalytics.web.dashboard import charts, words
from goodanalytics.web.dashboard.asked import Asked
from goodanalytics.web.dashboard.charts import Series
from goodanalytics.web.dashboard.figures import Graph, Panel, Row, Tile, Top, in_full, on_axis, value_in_words

_COLUMNS: Final = {"clicks": "Clicks", "unique_clicks": "People"}

PANELS: Final[Mapping[str, tuple[str, str]]] = {
    "sources": ("Sources", "source"),
    "campaigns": ("Campaigns", "campaign"),
    "referrers": ("Pages that it was clicked on", "referrer"),
    "countries": ("Countries", "country"),
    "devices": ("Devices", "device_type"),
    "browsers": ("Browsers", "browser"),
    "systems": ("Systems", "os"),
    "languages": ("Languages", "language"),
    "rules": ("Rules that decided", "rule"),
}
"""What of a link's figures is shown in a panel: its title, and the dimension that says how a value reads."""


def tiles(now: LinkStats, before: Totals) -> list[Tile]:
    """
    The period's figures.

    Args:
        before: Those of the period before. People of two periods cannot be told from people by day, so they stand alone.
    """
    return [
        _counted("Clicks", now.total_clicks, before.clicks),
        Tile("People", (words.count(now.unique_clicks),), "", None),
        Tile("QR scans", (words.count(now.qr_scans),), "", None),
        _counted("Leads", now.total_leads, before.leads),
        _counted("Sales", now.total_sales, before.sales),
        Tile(
            "Revenue",
            tuple(words.amounts(now.revenue)) or ("–",),
            " · ".join(words.amounts(before.revenue)) or "–",
            None,
        ),
    ]


def graph(asked: Asked, found: LinkStats) -> Graph:
    """Clicks and people over time; leads and sales beside them in the table."""
    rows = [(asked.local(one.at), one) for one in found.clicks_over_time]
    series = (
        Series("Clicks", tuple(one.clicks for _, one in rows)),
        Series("People", tuple(one.unique_clicks for _, one in rows)),
    )
    return Graph(
        chart=charts.draw([on_axis(asked, at) for at, _ in rows], series),
        names=("Clicks", "People", "Leads", "Sales"),
        rows=tuple(
            (in_full(asked, at), (one.clicks, one.unique_clicks, one.leads, one.sales)) for at, one in rows
        ),
        interval=asked.interval,
    )


def panels(found: LinkStats) -> list[Top]:
    """Where the clicks came from; a list without a single known value is left out."""
    told = {name: getattr(found, name) for name in PANELS}
    return [
        _top(*PANELS[name], shares)
        for name, shares in told.items()
        if any(share.value is not None for share in shares)
    ]


def _top(title: str, dimension: str, shares: list[Share]) -> Top:
    most = max(share.clicks for share in shares)
    return Top(
        Panel(title, (dimension,), _COLUMNS),
        tuple(
            Row(
                name=value_in_words(dimension, share.value),
                others=(),
                figures=(words.count(share.clicks), words.count(share.unique_clicks)),
                filter=None,
                share=charts.share(share.clicks, most),
            )
            for share in shares
        ),
    )


def _counted(name: str, now: int, before: int) -> Tile:
    return Tile(name, (words.count(now),), words.count(before), words.change(now, before))


__all__ = ["PANELS", "graph", "panels", "tiles"]
