"""The figures of one link, counted by hand on small histories, and equal to what the reports say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from goodanalytics.core.links import Link
from goodanalytics.errors import InvalidInput
from goodanalytics.store import link_figures
from goodanalytics.store.link_days import roll_up
from goodanalytics.store.link_figures import Bucket, LinkStats, Share
from goodanalytics.store.link_outcomes import Outcome
from goodanalytics.store.link_reading import get_link
from goodanalytics.store.reports import metrics
from goodanalytics.store.reports.query import Filter, Query
from tests.store.conftest import WORKSPACE, Seed, at

LINK = UUID(int=100)
PERIOD = (at("2026-11-01"), at("2026-11-08"))
NOW = at("2026-11-10 12:00")


@pytest.fixture
async def link(seed: Seed) -> Link:
    """The link whose figures are asked for, beside another one."""
    await seed.link(100, "spring", created_at=at("2026-11-01 08:00"))
    await seed.link(101, "other")
    for number in range(1, 8):
        await seed.visitor(number, of=1 if number == 2 else number)
    async with seed.database.connect() as conn:
        found = await get_link(conn, seed.database.tables, WORKSPACE, LINK)
    assert found is not None
    return found


async def stats(seed: Seed, link: Link, **asked: Any) -> LinkStats:
    async with seed.database.connect() as conn:
        return await link_figures.stats(
            conn, seed.database.tables, link, **{"period": PERIOD, "now": NOW, **asked}
        )


async def click(seed: Seed, visitor: int, occurred: str, **columns: Any) -> UUID:
    return await seed.event(visitor, occurred, "link_click", link=100, **columns)


async def test_a_person_counts_once_and_a_window_counts_once(seed, link):
    """Visitors 1 and 2 are one person; windows follow each other from midnight, whatever the period."""
    for visitor, occurred in [
        (1, "2026-11-02 10:00"), (2, "2026-11-02 10:30"), (1, "2026-11-02 23:59"), (1, "2026-11-03 00:01"),
        (3, "2026-11-03 10:00"),
    ]:  # fmt: skip
        await click(seed, visitor, occurred)
    found = [await stats(seed, link, unique_window=timedelta(hours=h)) for h in (24, 1, 24 * 7)]

    assert [(one.total_clicks, one.unique_clicks) for one in found] == [(5, 2)] * 3
    assert [one.deduplicated_clicks for one in found] == [3, 4, 2]
    assert [one.unique_window_seconds for one in found] == [86_400, 3_600, 604_800]


async def test_the_default_window_is_the_same_out_of_the_roll_up(seed, link):
    """Days add up to what one statement counts."""
    for n in range(40):
        await click(seed, 1 + n % 5, f"2026-11-0{1 + n % 6} {n % 24:02}:00")
    before = await stats(seed, link)
    await roll_up(seed.database, NOW)
    after = await stats(seed, link)
    async with seed.database.connect() as conn:
        windows = (await link_figures.stats(
            conn, seed.database.tables, link, period=PERIOD, now=NOW, unique_window=timedelta(seconds=86_400)
        )).deduplicated_clicks  # fmt: skip

    assert after == before
    assert windows == after.deduplicated_clicks == sum(b.unique_clicks for b in after.clicks_over_time)


async def test_machines_stand_beside_the_clicks(seed, link):
    """Bots, previews and prefetches are told, and are in no other figure."""
    await click(seed, 1, "2026-11-02", country="DE")
    await click(seed, 3, "2026-11-02", country="DE", properties={"qr": True})
    for visitor, bot in enumerate(["crawler: Googlebot", "preview: Slackbot", "prefetch", "HEAD request"], 4):
        await click(seed, visitor, "2026-11-02", bot=bot, country="FR")
    found = await stats(seed, link)

    assert (found.total_clicks, found.unique_clicks, found.qr_scans, found.bots, found.previews) == (
        2,
        2,
        1,
        1,
        3,
    )
    assert found.countries == [Share("DE", 2, 2)]


async def test_leads_sales_and_revenue_are_those_that_carry_the_link(seed, link):
    """Trusted ones, less refunds, each currency for itself; others' sales are not the link's."""
    await click(seed, 1, "2026-11-02")
    for kind, columns in [
        ("lead", {}), ("lead", {"trusted": False}), ("sale", {"amount_cents": 4900, "currency": "EUR"}),
        ("sale", {"amount_cents": 1000, "currency": "USD"}), ("sale", {"amount_cents": 7, "currency": "EUR", "trusted": False}),
        ("refund", {"amount_cents": 900, "currency": "EUR"}), ("sale", {"amount_cents": 5, "currency": "EUR", "bot": "x: y"}),
    ]:  # fmt: skip
        await seed.event(1, "2026-11-02 11:00", kind, link=100, **columns)
    await seed.event(1, "2026-11-02 11:00", "sale", amount_cents=1, currency="EUR")
    await seed.event(1, "2026-11-02 11:00", "sale", link=101, amount_cents=1, currency="EUR")
    found = await stats(seed, link)

    assert (found.total_leads, found.total_sales, found.revenue) == (1, 2, {"EUR": 4000, "USD": 1000})
    assert found.total_revenue_cents is None
    assert (await stats(seed, link, period=(at("2026-11-03"), at("2026-11-04")))).total_revenue_cents == 0


async def test_the_reports_say_the_same(seed, link):
    """The dimension link of the reports and the figures of the link are one thing."""
    for n in range(30):
        kind = ("link_click", "link_click", "lead", "sale", "refund")[n % 5]
        await seed.event(
            1 + n % 7, f"2026-11-0{1 + n % 7} 10:00", kind, link=100, trusted=n % 4 != 0, amount_cents=n * 10,
            currency="EUR" if n % 3 else "USD", bot="crawler: x" if n % 11 == 0 else None,
        )  # fmt: skip
    names = ("clicks", "unique_clicks", "leads", "sales", "revenue_cents")
    query = Query(period=PERIOD, metrics=names, filters=(Filter("link", "is", ("acme.test/spring",)),))
    async with seed.database.connect() as conn:
        told = (await metrics.run(conn, seed.database.tables, WORKSPACE, query)).records()[0]
    found = await stats(seed, link)

    assert told == {
        "clicks": found.total_clicks, "unique_clicks": found.unique_clicks, "leads": found.total_leads,
        "sales": found.total_sales, "revenue_cents": found.revenue,
    }  # fmt: skip


async def test_clicks_are_told_by_where_they_came_from(seed, link):
    """The most first, then by name; what is not known is null; at most ten of each."""
    for n in range(12):
        await click(seed, 3, "2026-11-02", source=f"s{n:02}", country=None, device_type="desktop")
    for visitor in (1, 2, 4):
        await click(
            seed, visitor, "2026-11-03", source="s11", medium="email", campaign="c", country="DE", device_type="mobile",
            browser="Safari", os="iOS", language="de", acquisition={"referrer_host": "news.example"},
            properties={"rule": "German"},
        )  # fmt: skip
    found = await stats(seed, link)

    assert found.sources == [Share("s11", 4, 3), *(Share(f"s{n:02}", 1, 1) for n in range(9))]
    assert found.countries == [Share(None, 12, 1), Share("DE", 3, 2)]
    assert found.devices == [Share("desktop", 12, 1), Share("mobile", 3, 2)]
    assert found.rules == [Share("German", 3, 2)]
    assert [getattr(found, name)[1] for name in ("campaigns", "referrers", "browsers", "systems", "languages")] == [
        Share(value, 3, 2) for value in ("c", "news.example", "Safari", "iOS", "de")
    ]  # fmt: skip
    assert found.media == [Share("direct", 12, 1), Share("email", 3, 2)]


@pytest.mark.parametrize("is_counted", [False, True], ids=["from events", "from the roll-up"])
async def test_time_is_cut_without_a_gap(seed, link, is_counted):
    """Every day of the period, in UTC or in another zone, where a click lies on another day."""
    await click(seed, 1, "2026-11-02 23:30")
    await seed.event(1, "2026-11-02 23:40", "sale", link=100)
    if is_counted:
        await roll_up(seed.database, NOW)
    utc = await stats(seed, link, period=(at("2026-11-02"), at("2026-11-05")))
    berlin = await stats(seed, link, period=(at("2026-11-02"), at("2026-11-05")), timezone="Europe/Berlin")
    hours = await stats(seed, link, period=(at("2026-11-02 22:00"), at("2026-11-03 01:00")), interval="hour")

    assert utc.clicks_over_time == [
        Bucket(at("2026-11-02"), 1, 1, 0, 1), Bucket(at("2026-11-03")), Bucket(at("2026-11-04")),
    ]  # fmt: skip
    assert [(b.at.isoformat()[:10], b.clicks) for b in berlin.clicks_over_time] == [
        ("2026-11-02", 0), ("2026-11-03", 1), ("2026-11-04", 0), ("2026-11-05", 0),
    ]  # fmt: skip
    assert [b.clicks for b in hours.clicks_over_time] == [0, 1, 0]


async def test_without_a_period_everything_until_now_counts(seed, link):
    """From the first click, also one from before the link was made; a link without clicks begins when it was made."""
    bare = await stats(seed, link, period=None)
    await click(seed, 1, "2026-10-15 10:00")
    await click(seed, 1, "2026-11-10 12:00")
    await click(seed, 1, "2026-11-10 12:01")
    found = await stats(seed, link, period=None)

    assert (bare.since, bare.total_clicks) == (link.created_at, 0)
    assert (found.since, found.total_clicks) == (at("2026-10-15 10:00"), 2)


async def test_everybody_belongs_to_the_variant_that_they_saw_first(seed, link):
    """What a person buys counts for it, also after a click that led elsewhere; the squares are of people, not of sales."""
    for visitor, occurred, variant in [
        (1, "2026-11-02 10:00", "A"), (2, "2026-11-02 11:00", "B"), (3, "2026-11-02 10:00", "B"), (4, "2026-11-02", "A"),
        (5, "2026-11-02 10:00", None),
    ]:  # fmt: skip
        await click(seed, visitor, occurred, properties={} if variant is None else {"variant": variant})
    for visitor, cents in [(2, 300), (1, 100), (3, 50)]:
        await seed.event(visitor, "2026-11-03", "sale", link=100, amount_cents=cents, currency="EUR")
    await seed.event(4, "2026-11-03", "lead", link=100)
    found = await stats(seed, link)

    assert found.variants == [
        Outcome("A", 2, 2, 1, 2, 1, {"EUR": 400}, {"EUR": 160_000}),
        Outcome("B", 2, 1, 0, 1, 1, {"EUR": 50}, {"EUR": 2_500}),
        Outcome(None, 1, 1, 0, 0, 0, {}, {}),
    ]


async def test_a_link_without_a_split_tells_of_none(seed, link):
    """Clicks that no variant decided are not one."""
    await click(seed, 1, "2026-11-02")

    assert (await stats(seed, link)).variants == []


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"period": (at("2026-11-02"), at("2026-11-02"))}, id="no time at all"),
        pytest.param({"period": (at("2016-11-02"), at("2026-11-12"))}, id="more than ten years"),
        pytest.param({"period": (NOW.replace(tzinfo=None), NOW)}, id="a time without a zone"),
        pytest.param({"timezone": "Mars/Olympus"}, id="an unknown zone"),
        pytest.param({"unique_window": timedelta(seconds=1)}, id="a window of a second"),
        pytest.param(
            {"period": (at("2025-11-02"), at("2026-11-02")), "interval": "hour"}, id="a year of hours"
        ),
    ],
)
async def test_what_cannot_be_answered_is_refused(seed, link, asked):
    """With an error, not with a wrong figure."""
    with pytest.raises(InvalidInput):
        await stats(seed, link, **asked)


async def test_clicks_come_page_by_page(seed, link):
    """The newest first, each once, under the person that they are now; machines only where they are asked for."""
    ids = [
        await click(seed, 2, f"2026-11-02 10:0{n // 2}", referrer=f"https://news.example/{n}")
        for n in range(5)
    ]
    bot = await click(seed, 3, "2026-11-02 11:00", bot="crawler: x")
    found, cursor, t = [], None, seed.database.tables
    async with seed.database.connect() as conn:
        while True:
            page = await link_figures.clicks(conn, t, WORKSPACE, LINK, limit=2, after=cursor)
            found += page.items
            if (cursor := page.next_cursor) is None:
                break
        everything = await link_figures.clicks(conn, t, WORKSPACE, LINK, include_bots=True)
        with pytest.raises(InvalidInput):
            await link_figures.clicks(conn, t, WORKSPACE, UUID(int=101), after=page.next_cursor or "nonsense")

    assert [one.id for one in found] == ids[::-1]
    assert {one.visitor_id for one in found} == {UUID(int=1)}
    assert found[0].referrer == "https://news.example/4"
    assert everything.items[0].id == bot
    assert "ip" not in msgspec.to_builtins(found[0])


async def test_a_lists_totals_are_those_of_each_link(seed, link):
    """One call for all of them; a link without anything has zeros."""
    await click(seed, 1, "2026-11-02")
    await click(seed, 2, "2026-11-03")
    await seed.event(1, "2026-11-03", "sale", link=101, amount_cents=5, currency="EUR")
    async with seed.database.connect() as conn:
        found = await link_figures.totals(
            conn, seed.database.tables, WORKSPACE, [LINK, UUID(int=101), UUID(int=102)], *PERIOD
        )

    assert found == {
        LINK: link_figures.Totals(2, 2),
        UUID(int=101): link_figures.Totals(sales=1, revenue={"EUR": 5}),
        UUID(int=102): link_figures.Totals(),
    }
