"""Three ways to the same numbers: what the generator planned, what plain SQL counts, what the dashboard shows."""

from __future__ import annotations

import dataclasses
import html
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from goodanalytics import Analytics, Config
from goodanalytics.config import Principal
from goodanalytics.demo.crowd import LINKS, RULED, SPLIT
from goodanalytics.demo.figures import Figures, Shown
from goodanalytics.demo.history import load
from goodanalytics.demo.trade import PARTNER

UNTIL = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAYS = 30
HOST = "127.0.0.1:8000"
TAG = re.compile(r"<[^>]*>")


async def page(scope, receive, send):
    raise AssertionError("the dashboard is not the host's")


@pytest.fixture(scope="module")
async def told(shared_database_url: str) -> tuple[Analytics, Figures]:
    """A month of the demo's shop, and what is true of it."""
    config = Config(
        secret_key="x" * 40, worker=False, clock=lambda: UNTIL, dashboard_auth=lambda _: True,
        authenticate=lambda _token, _kind: Principal(),
    )  # fmt: skip
    analytics = Analytics(shared_database_url, config)
    async with analytics:
        yield analytics, await load(analytics, seed=9, days=DAYS, visitors=300, until=UNTIL)


@pytest.fixture(scope="module")
async def shown(told) -> str:
    """The overview of the whole history, as the browser gets it."""
    analytics, _ = told
    first = (UNTIL - timedelta(days=DAYS)).date()
    transport = httpx.ASGITransport(analytics.wrap(page))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as browser:
        answer = await browser.get(f"/ga/dashboard/?from={first}&to={UNTIL.date()}")
    assert answer.status_code == 200
    return answer.text


def words(markup: str) -> str:
    return " ".join(html.unescape(TAG.sub(" ", markup)).split())


def tile(shown: str, name: str) -> list[str]:
    found = re.search(rf"<dt>{name}</dt>\s*<dd>(.*?)</dd>", shown, re.DOTALL)
    assert found, f"there is no tile {name}"
    return [words(value) for value in re.findall(r'<span class="big">(.*?)</span>', found[1], re.DOTALL)]


def panel(shown: str, title: str) -> dict[str, list[str]]:
    """The rows of one panel: name → figures."""
    for table in re.findall(r"<table>(.*?)</table>", shown, re.DOTALL):
        caption = re.search(r"<caption>(.*?)</caption>", table, re.DOTALL)
        if caption and words(caption[1]).rstrip(" ›") == title:
            found = {}
            for row in re.findall(r"<tbody>(.*)</tbody>", table, re.DOTALL)[0].split("</tr>"):
                name = re.search(r'<span class="name">(.*?)</span>', row, re.DOTALL)
                if name:
                    found[words(name[1])] = [
                        words(f) for f in re.findall(r'<td class="figure">(.*?)</td>', row, re.DOTALL)
                    ]
            return found
    raise AssertionError(f"there is no panel {title}")


async def test_tiles_show_the_true_totals(told, shown):
    """Visitors, visits, pageviews, leads, sales and revenue are those that the generator planned."""
    _, true = told

    assert {name: tile(shown, name) for name in ("Visitors", "Visits", "Pageviews", "Leads", "Sales")} == {
        "Visitors": [f"{true.visitors:,}"],
        "Visits": [f"{true.visits:,}"],
        "Pageviews": [f"{true.pageviews:,}"],
        "Leads": [f"{true.leads:,}"],
        "Sales": [f"{true.sales:,}"],
    }
    assert sorted(tile(shown, "Revenue")) == sorted(
        f"{cents / 100:,.2f} {currency}" for currency, cents in true.revenue_cents.items() if cents
    )
    assert tile(shown, "Bounce rate") == [f"{round(100 * true.bounces / true.visits, 1):g}%"]


async def test_the_chart_shows_the_true_days(told, shown):
    """Each day's visitors and pageviews are the planned ones."""
    _, true = told
    body = re.search(r"as-table.*?<tbody>(.*?)</tbody>", shown, re.DOTALL)[1]
    days = [
        tuple(
            int(words(f).replace(",", ""))
            for f in re.findall(r'<td class="figure">(.*?)</td>', row, re.DOTALL)
        )
        for row in body.split("</tr>")
        if "<td" in row
    ]

    assert days == [(day.visitors, day.pageviews) for _, day in sorted(true.days.items())]


async def test_panels_show_true_pages_and_links(told, shown):
    """The most seen pages and the clicks of each short link are the planned ones."""
    _, true = told
    pages = {name: int(figures[-1].replace(",", "")) for name, figures in panel(shown, "Pages").items()}
    links = {
        name.rpartition("/")[2]: int(figures[0]) for name, figures in panel(shown, "Short links").items()
    }

    assert pages == {path: true.pageviews_by_path[path] for path in pages}
    assert len(pages) == 8
    assert links == dict(true.clicks_by_link)


async def test_plain_sql_counts_the_same(told):
    """Counted by hand from the tables, without any of our reports."""
    analytics, true = told
    schema = analytics.config.schema
    async with analytics.database.connect() as conn:
        counted = (
            await conn.execute(
                text(f"""
                SELECT
                  (SELECT count(DISTINCT v.canonical_id) FROM {schema}.events e JOIN {schema}.visitors v
                     ON v.workspace_id = e.workspace_id AND v.id = e.visitor_id
                   WHERE e.bot IS NULL AND e.event_type NOT IN ('link_click', 'engagement', 'refund')) AS visitors,
                  (SELECT count(*) FROM {schema}.sessions WHERE bot IS NULL) AS visits,
                  (SELECT count(*) FROM {schema}.sessions WHERE bot IS NULL AND is_bounce) AS bounces,
                  (SELECT count(*) FROM {schema}.events WHERE bot IS NULL AND event_type = 'pageview') AS pageviews,
                  (SELECT count(*) FROM {schema}.events WHERE trusted AND event_type = 'lead') AS leads,
                  (SELECT count(*) FROM {schema}.events WHERE trusted AND event_type = 'sale') AS sales,
                  (SELECT count(*) FROM {schema}.events WHERE trusted AND event_type = 'refund') AS refunds,
                  (SELECT count(*) FROM {schema}.events WHERE bot IS NOT NULL) AS bot_hits,
                  (SELECT sum(total_pageviews) FROM {schema}.visitors) AS counted_pageviews,
                  (SELECT sum(total_sessions) FROM {schema}.visitors) AS counted_sessions
                """)
            )
        ).one()
        sources = (
            await conn.execute(
                text(
                    f"SELECT source, medium, count(*) FROM {schema}.sessions WHERE bot IS NULL GROUP BY 1, 2"
                )
            )
        ).all()
        money = (
            await conn.execute(
                text(
                    f"SELECT currency, sum(CASE event_type WHEN 'sale' THEN amount_cents ELSE -amount_cents END), "
                    "coalesce(sum(amount_cents) FILTER (WHERE event_type = 'refund'), 0) AS back "
                    f"FROM {schema}.events WHERE trusted AND event_type IN ('sale', 'refund') GROUP BY 1"
                )
            )
        ).all()
        lifetime = (
            await conn.execute(
                text(
                    f"SELECT key, sum(value::bigint) FROM {schema}.visitors, jsonb_each_text(ltv) GROUP BY 1"
                )
            )
        ).all()

    names = ("visitors", "visits", "bounces", "pageviews", "leads", "sales", "refunds", "bot_hits")
    assert {name: getattr(counted, name) for name in names} == {name: getattr(true, name) for name in names}
    assert (counted.counted_pageviews, counted.counted_sessions - 0) == (true.pageviews, true.visits)
    assert {(row.source, row.medium): row.count for row in sources} == dict(true.visits_by_source)
    assert {currency: int(cents) for currency, cents, _ in money} == dict(true.revenue_cents)
    assert {currency: int(back) for currency, _, back in money if back} == dict(true.refunded_cents)
    assert {currency: int(cents) for currency, cents in lifetime} == dict(true.revenue_cents)


async def test_the_partner_has_the_true_earnings(told):
    """REST says of the partner whom they sent and what that earned, less what was given back, as it was planned."""
    analytics, true = told
    partner = await analytics.partners.by_code(PARTNER.code.upper())
    transport = httpx.ASGITransport(analytics.wrap(page))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        answer = await client.get(
            f"/ga/api/partners/{partner.id}/stats", headers={"authorization": "Bearer any"}
        )
    stats = answer.json()

    assert {name: stats[name] for name in ("clicks", "visitors", "leads", "sales", "revenue")} == {
        "clicks": 0,
        "visitors": true.partner.visitors,
        "leads": 0,
        "sales": true.partner.sales,
        "revenue": dict(true.partner.revenue_cents),
    }
    assert {
        e["currency"]: (e["earned_cents"], e["reversed_cents"], e["net_cents"]) for e in stats["earnings"]
    } == {
        currency: (cents, back := true.partner.reversed_cents.get(currency, 0), cents - back)
        for currency, cents in true.partner.earned_cents.items()
    }


async def test_plain_sql_counts_the_same_commissions(told):
    """The ledger adds up to the planned amounts, entry by entry."""
    analytics, true = told
    async with analytics.database.connect() as conn:
        rows = await conn.execute(
            text(
                "SELECT kind, currency, sum(abs(amount_cents)) FROM "
                f"{analytics.config.schema}.commissions WHERE status = 'pending' GROUP BY 1, 2"
            )
        )
    found = {(kind, currency): int(cents) for kind, currency, cents in rows}

    assert found == {("earned", currency): cents for currency, cents in true.partner.earned_cents.items()} | {
        ("reversed", currency): cents for currency, cents in true.partner.reversed_cents.items()
    }


async def test_the_split_shows_the_true_sides(told):
    """Of each side of the split: its clicks, people, leads, sales and money; and that nobody is shown besides."""
    analytics, true = told
    link = await analytics.links.find(HOST, SPLIT)
    stats = await analytics.links.stats(link)
    experiment = await analytics.links.experiment(link)
    shown = {
        one.variant: Shown(
            clicks=one.clicks,
            visitors=one.visitors,
            leads=one.leads,
            sales=one.sales,
            revenue_cents=one.revenue,
        )
        for one in stats.variants
    }

    assert shown == true.split
    assert [(one.name, one.visitors) for one in experiment.outcomes] == [
        (side.name, true.split[side.name].visitors) for side in LINKS[SPLIT].sides
    ]
    assert experiment.former == {}


async def test_the_rules_show_the_true_clicks(told):
    """How many clicks each rule of the other link decided; no rule took some."""
    analytics, true = told
    stats = await analytics.links.stats(await analytics.links.find(HOST, RULED))

    assert {share.value: share.clicks for share in stats.rules} == dict(true.clicks_by_rule)
    assert stats.total_clicks == true.clicks_by_link[RULED] > sum(true.clicks_by_rule.values())


def test_the_truth_is_not_trivial(told):
    """A history without bots, second devices or unbelieved sales would prove little."""
    _, true = told

    assert true.devices > true.visitors
    assert true.bot_hits > 0
    assert len(true.revenue_cents) > 1
    assert dataclasses.asdict(true)["sales"] > 10
    assert true.partner.visitors > true.partner.sales > 1
    assert sum(true.partner.reversed_cents.values()) > 0
    assert [side.sales > 0 for side in true.split.values()] == [True, True]
    assert len(true.clicks_by_rule) == 2
