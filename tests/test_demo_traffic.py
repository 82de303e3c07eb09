"""The demo's traffic: the same every time, plausible, and true to its figures also in the database."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import func, select

from goodanalytics.analytics import Analytics
from goodanalytics.config import DEFAULT_WORKSPACE, Config
from goodanalytics.core import devices, sources
from goodanalytics.core.bots import judge
from goodanalytics.core.hits import Client, EventType, Hit
from goodanalytics.core.link_conditions import Rule
from goodanalytics.core.link_matching import Asked
from goodanalytics.core.links import Link
from goodanalytics.core.routing import Go, route
from goodanalytics.core.sessions import ACTS
from goodanalytics.demo.browsing import Device, way_of
from goodanalytics.demo.crowd import (
    ARRIVALS,
    COUNTRIES,
    CRAWLERS,
    LINKS,
    MACHINES,
    RULED,
    SPLIT,
    Arrival,
    Crawler,
    Machine,
)
from goodanalytics.demo.figures import Day, Figures, Visit, count
from goodanalytics.demo.history import NEWEST, conditions, load
from goodanalytics.demo.trade import CATEGORIES, PARTNER, PRODUCTS, account_id, title_of
from goodanalytics.demo.traffic import Traffic, generate
from goodanalytics.errors import Conflict, InvalidInput
from goodanalytics.store.reports import metrics
from goodanalytics.store.reports.query import Query

UNTIL = datetime(2026, 11, 1, 12, tzinfo=UTC)
LINK_IDS = {key: UUID(int=number) for number, key in enumerate(LINKS, start=1)}
HOST = "127.0.0.1:8000"
SEED = 652
"""In ten days of 80 people: a second device, dollars, a claimed sale, both sides of the split, and refunds, one of the partner's."""


def made(**changes: Any) -> Traffic:
    """A history of 60 days and 400 people, but for *changes*."""
    choice: dict[str, Any] = {
        "seed": 7, "until": UNTIL, "days": 60, "visitors": 400, "workspace_id": DEFAULT_WORKSPACE, "links": LINK_IDS,
        "shop_host": HOST,
    }  # fmt: skip
    return generate(**{**choice, **changes})


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return made()


def of_people(traffic: Traffic) -> list[Hit]:
    return [hit for hit in traffic.hits if hit.client.bot is None]


# The hits ------------------------------------------------------------------------------------------------------------


def test_same_arguments_make_the_same_history(traffic: Traffic) -> None:
    """Nothing but the arguments decides, so a run that was broken off can be repeated."""
    again = made()

    assert again == traffic


def test_another_seed_makes_another_history(traffic: Traffic) -> None:
    """The seed matters."""
    other = made(seed=8)

    assert {hit.id for hit in other.hits}.isdisjoint(hit.id for hit in traffic.hits)


def test_more_visitors_leave_the_first_ones_as_they_were(traffic: Traffic) -> None:
    """Each person is drawn by a generator of their own."""
    pages = {hit.id for hit in of_people(traffic) if hit.event_type is EventType.PAGEVIEW}

    assert pages < {hit.id for hit in made(visitors=410).hits}


def test_ids_are_unique_and_in_the_order_of_time(traffic: Traffic) -> None:
    """A log that sorts by id hands the history out as it happened."""
    ids = [hit.id for hit in traffic.hits]
    times = [hit.occurred_at for hit in traffic.hits]

    assert (ids, times) == (sorted(set(ids)), sorted(times))


def test_ids_are_version_7_and_hold_the_time(traffic: Traffic) -> None:
    """An id has the layout of RFC 9562, section 5.7, with the hit's own millisecond."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    told = {
        (hit.id.version, hit.id.variant, epoch + timedelta(milliseconds=hit.id.int >> 80))
        for hit in traffic.hits
    }

    assert told == {(7, "specified in RFC 4122", hit.occurred_at) for hit in traffic.hits}


@pytest.mark.parametrize("days", [1, 10])
def test_nothing_happens_outside_of_the_history(days: int) -> None:
    """Every hit lies in the days before the end."""
    times = [hit.occurred_at for hit in made(days=days, visitors=120).hits]

    assert UNTIL - timedelta(days=days) <= min(times) <= max(times) < UNTIL


def test_hits_survive_the_log(traffic: Traffic) -> None:
    """Each hit is what the log's own encoding makes of it."""
    decoder = msgspec.msgpack.Decoder(Hit)
    read = tuple(decoder.decode(msgspec.msgpack.encode(hit)) for hit in traffic.hits)

    assert read == traffic.hits


def test_only_the_shop_server_is_trusted(traffic: Traffic) -> None:
    """What a browser or a link says is a claim."""
    said = {(hit.origin, hit.trusted) for hit in traffic.hits}

    assert said == {("server", True), ("browser", False), ("link", False)}


def test_only_the_shop_server_names_people(traffic: Traffic) -> None:
    """External ids and addresses come with an identify of the shop, and nowhere else."""
    naming = {
        (hit.event_type, hit.origin) for hit in traffic.hits if hit.signals.external_id or hit.signals.email
    }

    assert naming == {(EventType.IDENTIFY, "server")}


def test_addresses_are_kept_for_documentation(traffic: Traffic) -> None:
    """Nobody's real network is in the history (RFC 5737), nor anybody's mail (RFC 2606)."""
    networks = {hit.client.ip.rpartition(".")[0] for hit in traffic.hits if hit.client.ip}
    mail = {hit.signals.email.rpartition("@")[2] for hit in traffic.hits if hit.signals.email}

    assert (networks, mail) == ({"192.0.2", "198.51.100", "203.0.113"}, {"example.com", "example.org"})


OUTSIDE_VISITS = (EventType.LINK_CLICK, EventType.REFUND)


def by_browser(traffic: Traffic) -> Iterator[list[Hit]]:
    browsers: defaultdict[str | None, list[Hit]] = defaultdict(list)
    for hit in of_people(traffic):
        if hit.signals.anonymous_id is not None and hit.event_type not in OUTSIDE_VISITS:
            browsers[hit.signals.anonymous_id].append(hit)
    yield from browsers.values()


def test_visits_are_clearly_apart(traffic: Traffic) -> None:
    """No two hits of a browser are between 20 and 60 minutes apart, so nobody can argue about where a visit ends."""
    gaps = [
        b.occurred_at - a.occurred_at for hits in by_browser(traffic) for a, b in itertools.pairwise(hits)
    ]

    assert [gap for gap in gaps if timedelta(minutes=20) <= gap <= timedelta(minutes=60)] == []


def test_a_click_is_followed_by_its_landing(traffic: Traffic) -> None:
    """The page that a short link leads to comes within five seconds, brings the click's id, and is the browser's first."""
    clicks = {hit.id: hit for hit in of_people(traffic) if hit.event_type is EventType.LINK_CLICK}
    firsts = [hits[0] for hits in by_browser(traffic) if hits[0].signals.click_id is not None]
    waits = [landing.occurred_at - clicks[landing.signals.click_id].occurred_at for landing in firsts]  # type: ignore[index]  # not None above

    assert len(firsts) > 20
    assert all(timedelta(0) < wait < timedelta(seconds=5) for wait in waits)


def test_a_landing_has_its_links_source(traffic: Traffic) -> None:
    """A click and the page after it come from the same place, whichever of them is asked."""
    clicks = {hit.id: hit for hit in of_people(traffic) if hit.event_type is EventType.LINK_CLICK}
    told = {
        (
            sources.Source.from_json(clicks[hits[0].signals.click_id].source),
            sources.classify(hits[0].url, None),
        )
        for hits in by_browser(traffic)
        if hits[0].signals.click_id is not None
    }

    assert len(told) == len(LINKS)
    assert all(of_click == of_landing for of_click, of_landing in told)


def test_inner_pages_come_from_nowhere_new(traffic: Traffic) -> None:
    """The shop's own pages, and the payment page that customers come back from, are no source."""
    pages = [
        hits for browser in by_browser(traffic) for hits in browser if hits.event_type is EventType.PAGEVIEW
    ]
    inner = [
        hit
        for hit in pages
        if hit.referrer and (hit.referrer.startswith(f"http://{HOST}/") or "stripe" in hit.referrer)
    ]

    assert {"https://checkout.stripe.com/"} < {hit.referrer for hit in inner}
    assert {sources.classify(hit.url, hit.referrer).is_direct for hit in inner} == {True}


# The tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrival", ARRIVALS, ids=lambda a: f"{a.platform}-{a.medium}")
def test_an_arrival_is_what_it_says(arrival: Arrival) -> None:
    """Platform and medium that an arrival is meant to have are what its address and referrer are read as."""
    link = LINKS.get(arrival.link or "")
    query = arrival.query.format(token="abc")
    if link is not None:
        query = f"utm_source={link.utm_source}&utm_medium={link.utm_medium}&utm_campaign={link.utm_campaign}"
    source = sources.classify(f"http://{HOST}/?{query}", arrival.referrer)

    assert (source.platform, source.medium) == (arrival.platform, arrival.medium)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.user_agent[13:40])
def test_a_machine_is_what_it_says(machine: Machine) -> None:
    """Nobody's browser is taken for a bot, and phones are phones."""
    kinds = {"phone": "smartphone", "tablet": "tablet", "desktop": "desktop"}
    device = devices.parse(machine.user_agent, None, machine.touch_points)

    assert (judge(machine.user_agent).bot, device.type) == (False, kinds[machine.kind])


@pytest.mark.parametrize("crawler", CRAWLERS, ids=lambda c: c.user_agent[:24])
def test_a_crawler_is_known_as_one(crawler: Crawler) -> None:
    """Each crawler's user agent gives it away."""
    assert judge(crawler.user_agent).bot


# The figures ---------------------------------------------------------------------------------------------------------


def test_days_add_up(traffic: Traffic) -> None:
    """Pageviews and visits of all days are the totals."""
    figures = traffic.figures
    summed = sum(d.visits for d in figures.days.values()), sum(d.pageviews for d in figures.days.values())

    assert summed == (figures.visits, figures.pageviews)


def test_every_day_has_its_figures(traffic: Traffic) -> None:
    """The days are those from the first to the last without a gap: 61 dates for 60 days from noon to noon."""
    days = list(traffic.figures.days)

    assert days == [date(2026, 9, 2) + timedelta(days=n) for n in range(61)]


def test_parts_add_up(traffic: Traffic) -> None:
    """By path, by source and by type, it is the same history."""
    figures = traffic.figures
    parts = (
        sum(figures.pageviews_by_path.values()),
        sum(figures.visits_by_source.values()),
        sum(figures.events_by_type.values()),
        sum(figures.clicks_by_link.values()),
    )

    assert parts == (
        figures.pageviews,
        figures.visits,
        len(traffic.hits) - figures.bot_hits,
        figures.events_by_type[EventType.LINK_CLICK],
    )


def test_figures_are_those_of_the_hits(traffic: Traffic) -> None:
    """Counted again, from the hits alone and in another way, it is the same."""
    hits = of_people(traffic)
    sales = [hit for hit in hits if hit.event_type is EventType.SALE and hit.trusted]
    refunds = [hit for hit in hits if hit.event_type is EventType.REFUND]
    revenue: Counter[str | None] = Counter()
    for hit in sales:
        revenue[hit.currency] += hit.amount_cents or 0
    for hit in refunds:
        revenue[hit.currency] -= hit.amount_cents or 0
    browsers = list(by_browser(traffic))
    begun = sum(
        1 + sum(b.occurred_at - a.occurred_at > timedelta(minutes=30) for a, b in itertools.pairwise(browser))
        for browser in browsers
    )
    figures = traffic.figures

    assert (figures.devices, figures.visits, figures.sales, figures.refunds, figures.revenue_cents) == (
        len(browsers),
        begun,
        len(sales),
        len(refunds),
        revenue,
    )


def test_no_sale_gives_back_more_than_it_brought() -> None:
    """Refunds come after their sale, in its currency; some are whole, some a part, some the whole in two."""
    hits = of_people(made(visitors=1_500))
    sales = {hit.id: hit for hit in hits if hit.event_type is EventType.SALE and hit.trusted}
    given: defaultdict[UUID, list[Hit]] = defaultdict(list)
    for hit in hits:
        if hit.event_type is EventType.REFUND and hit.sale_id is not None:
            given[hit.sale_id].append(hit)
    days = [hit.occurred_at - sales[sale].occurred_at for sale, back in given.items() for hit in back]
    parts = Counter(
        (len(back), sum(hit.amount_cents or 0 for hit in back) == sales[sale].amount_cents)
        for sale, back in given.items()
    )

    assert {hit.currency == sales[sale].currency for sale, back in given.items() for hit in back} == {True}
    assert min(days) >= timedelta(days=1)
    assert set(parts) == {(1, True), (1, False), (2, True)}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.user_agent[13:40])
def test_people_go_where_the_links_rules_lead(machine: Machine) -> None:
    """The history sends everybody where the product's own routing would, by the rules that the link is given."""
    forked = LINKS[RULED]
    link = Link(
        workspace_id=DEFAULT_WORKSPACE, id=UUID(int=1), domain="x.example", key=RULED, url=f"https://x.example{forked.path}",
        rules=[Rule(url=f"https://x.example{f.path}", when=conditions(f), name=f.name) for f in forked.forks],
        created_at=UNTIL, updated_at=UNTIL,
    )  # fmt: skip
    device = devices.parse(machine.user_agent, None, machine.touch_points)
    led, went = [], []
    for country in COUNTRIES:
        asked = Asked(click_id=UUID(int=2), device=device, country=country.code)
        decision = route(link, None, asked, UNTIL)
        assert isinstance(decision, Go)
        led.append((decision.url.partition("?")[0], decision.rule))
        client = Client(user_agent=machine.user_agent, country=country.code)
        way = way_of(RULED, Device("browser", client, machine.kind), Random(1))
        went.append((f"https://x.example{way.path}", way.rule))

    assert went == led


def test_what_must_not_count_does_not(traffic: Traffic) -> None:
    """Sales that only browsers claim are in the history and not in the revenue."""
    claimed = [hit for hit in of_people(traffic) if hit.event_type is EventType.SALE and not hit.trusted]

    assert len(claimed) >= 3
    assert traffic.figures.sales == traffic.figures.events_by_type[EventType.SALE] - len(claimed)


def a_visit(*event_types: EventType, person: int = 1, at: datetime = UNTIL) -> Visit:
    hits = tuple(
        Hit(
            id=UUID(int=number), workspace_id=DEFAULT_WORKSPACE, received_at=at, occurred_at=at + timedelta(minutes=number),
            event_type=event_type, origin="browser",
        )
        for number, event_type in enumerate(event_types)
    )  # fmt: skip
    return Visit(
        person, f"browser {person}", ARRIVALS[0], ("/",) * event_types.count(EventType.PAGEVIEW), hits
    )


@pytest.mark.parametrize(
    ("event_types", "expected"),
    [
        pytest.param((EventType.PAGEVIEW,), True, id="one page"),
        pytest.param((EventType.PAGEVIEW, EventType.ENGAGEMENT), True, id="one page, looked at"),
        pytest.param((EventType.LINK_CLICK, EventType.PAGEVIEW), True, id="one page through a link"),
        pytest.param((EventType.PAGEVIEW, EventType.PAGEVIEW), False, id="two pages"),
        *(pytest.param((EventType.PAGEVIEW, act), False, id=f"one page and {act}") for act in sorted(ACTS)),
    ],
)
def test_a_bounce_is_one_page_and_no_act(event_types: tuple[EventType, ...], expected: bool) -> None:
    """A visit bounces when nothing but its landing page was asked for."""
    assert a_visit(*event_types).is_bounce is expected


def test_a_visit_over_midnight_shows_its_person_on_both_days() -> None:
    """The visit belongs to the day on which it began, the person to both."""
    visit = a_visit(EventType.PAGEVIEW, EventType.PAGEVIEW, at=datetime(2026, 10, 30, 23, 59, 30, tzinfo=UTC))
    days = count([visit], [], [], [], since=date(2026, 10, 30), to=date(2026, 10, 31)).days

    assert days == {date(2026, 10, 30): Day(1, 1, 1), date(2026, 10, 31): Day(1, 0, 1)}


def test_the_history_is_plausible() -> None:
    """At its full size it looks like a small shop: busy evenings, some who come back, few who buy."""
    traffic = made(visitors=1_500)
    figures = traffic.figures
    hours = Counter(hit.occurred_at.hour for hit in of_people(traffic))
    shares = {
        "hits": len(traffic.hits),
        "visits of a person": figures.visits / figures.visitors,
        "pages of a visit": figures.pageviews / figures.visits,
        "bounces": figures.bounces / figures.visits,
        "sales of visits": figures.sales / figures.visits,
        "second devices": figures.devices / figures.visitors - 1,
        "dollars": figures.revenue_cents["USD"] / figures.revenue_cents["EUR"],
        "evening to night": hours[19] / hours[3],
    }
    likely = {
        "hits": (15_000, 22_000),
        "visits of a person": (1.5, 2.5),
        "pages of a visit": (3, 5),
        "bounces": (0.25, 0.5),
        "sales of visits": (0.02, 0.1),
        "second devices": (0.01, 0.1),
        "dollars": (0.05, 0.4),
        "evening to night": (3, 40),
    }

    assert {
        name: share for name, share in shares.items() if not likely[name][0] < share < likely[name][1]
    } == {}


def test_every_way_and_page_is_used(traffic: Traffic) -> None:
    """Each arrival, each country and each page of the shop is in the history."""
    pages = {"/", "/cart", "/sign-up", "/welcome", "/checkout", "/thank-you"}
    pages |= {f"/category/{slug}" for slug in CATEGORIES} | {product.path for product in PRODUCTS.values()}
    figures = traffic.figures
    countries = {hit.client.country for hit in traffic.hits} - {None}

    assert (set(figures.visits_by_source), set(figures.pageviews_by_path), countries) == (
        {(arrival.platform, arrival.medium) for arrival in ARRIVALS},
        pages,
        {country.code for country in COUNTRIES},
    )
    assert all(title_of(path) for path in pages)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"days": 0}, "days"),
        ({"days": 4_000}, "days"),
        ({"visitors": 0}, "visitors"),
        ({"until": UNTIL.replace(tzinfo=None)}, "until"),
        ({"links": {}}, "links"),
    ],
)
def test_a_senseless_argument_is_refused(changes: dict[str, Any], where: str) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidInput) as caught:
        made(**changes)

    assert caught.value.where == where


def test_an_account_is_its_address_however_written() -> None:
    """Blanks and capitals make no second customer."""
    assert account_id(" Ada@Example.com ") == account_id("ada@example.com") != account_id("ada@example.org")


# In the database -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def analytics(database_url: str, config: Config) -> Any:
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as analytics:
        yield analytics


async def figures_by_sql(analytics: Analytics) -> dict[str, Any]:
    """What the reports say, in the words of `Figures`."""
    period = (UNTIL - timedelta(days=10), UNTIL)
    async with analytics.database.connect() as connection:

        async def ask(*names: str, by: tuple[str, ...] = ()) -> list[dict[str, Any]]:
            query = Query(period=period, metrics=names, dimensions=by, limit=1_000)
            return (
                await metrics.run(connection, analytics.database.tables, DEFAULT_WORKSPACE, query)
            ).records()

        (whole,) = await ask(
            "visitors", "visits", "pageviews", "leads", "sales", "revenue_cents", "bounce_rate"
        )
        by_source = await ask("visits", by=("source", "medium"))
        by_path = await ask("pageviews", by=("path",))
        by_type = await ask("events", by=("event_type",))
        by_link = await ask("clicks", by=("link",))
        by_day = await ask("visitors", "visits", "pageviews", by=("time:day",))
    return {
        **whole,
        "visits_by_source": {(row["source"], row["medium"]): row["visits"] for row in by_source},
        "pageviews_by_path": {row["path"]: row["pageviews"] for row in by_path if row["pageviews"]},
        "events_by_type": {EventType(row["event_type"]): row["events"] for row in by_type},
        "clicks_by_link": {row["link"].rpartition("/")[2]: row["clicks"] for row in by_link if row["clicks"]},
        "days": {
            row["time:day"].date(): Day(row["visitors"], row["visits"], row["pageviews"]) for row in by_day
        },
    }


def in_words_of_reports(figures: Figures) -> dict[str, Any]:
    names = (
        "visitors", "visits", "pageviews", "leads", "sales", "revenue_cents", "visits_by_source", "pageviews_by_path",
        "events_by_type", "clicks_by_link", "days",
    )  # fmt: skip
    told = {name: getattr(figures, name) for name in names}
    return told | {"bounce_rate": round(100 * figures.bounces / figures.visits, 2)}


async def test_true_figures_equal_sql(analytics: Analytics) -> None:
    """The reports say of the history exactly what its plan says."""
    figures = await load(analytics, seed=SEED, days=10, visitors=80, until=UNTIL)

    assert await figures_by_sql(analytics) == in_words_of_reports(figures)


async def test_devices_of_one_person_are_joined(analytics: Analytics) -> None:
    """Every browser is a row of its own, every person one canonical id; clicks that never landed make the rest."""
    figures = await load(analytics, seed=SEED, days=10, visitors=80, until=UNTIL)
    v = analytics.database.tables.visitors
    async with analytics.database.connect() as connection:
        rows = (
            await connection.execute(
                select(v.c.id, v.c.canonical_id).where(v.c.bot.is_(None), v.c.total_pageviews > 0)
            )
        ).all()

    assert (len(rows), len({row.canonical_id for row in rows})) == (figures.devices, figures.visitors)
    assert figures.devices > figures.visitors


async def test_loading_again_changes_nothing(analytics: Analytics) -> None:
    """A second run, later and with another wish, finds the first one's history and leaves it alone."""
    first = await load(analytics, seed=SEED, days=10, visitors=20, until=UNTIL)
    before = await figures_by_sql(analytics)
    steps: list[tuple[int, int]] = []
    later = UNTIL + timedelta(days=3)
    second = await load(
        analytics,
        seed=4,
        days=5,
        visitors=30,
        until=later,
        progress=lambda done, total: steps.append((done, total)),
    )

    assert (second, await figures_by_sql(analytics)) == (first, before)
    assert [done == total for done, total in steps] == [True]


async def test_loading_goes_on_where_it_was_broken_off(
    analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies after the first chunk is completed by the next, and nothing counts twice."""
    monkeypatch.setattr("goodanalytics.demo.history.CHUNK", 100)

    def die(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await load(analytics, seed=SEED, days=10, visitors=20, until=UNTIL, progress=die)
    figures = await load(analytics, seed=SEED, days=10, visitors=20, until=UNTIL + timedelta(hours=1))

    assert await figures_by_sql(analytics) == in_words_of_reports(figures)


async def test_the_newest_is_told_after_everything_else(analytics: Analytics) -> None:
    """Who is asked just before the newest hits sees all older ones and no newer one; on a second run, everything."""
    e, latest = analytics.database.tables.events, list[datetime]()

    async def look() -> None:
        async with analytics.database.connect() as connection:
            latest.append(await connection.scalar(select(func.max(e.c.occurred_at))))

    wanted: dict[str, Any] = {"seed": SEED, "days": 10, "visitors": 20, "until": UNTIL}
    await load(analytics, **wanted, before_newest=look)
    await load(analytics, **wanted, before_newest=look)
    times = [hit.occurred_at for hit in made(**wanted).hits]

    assert latest == [max(at for at in times if at < UNTIL - NEWEST), max(times)]


async def test_links_and_partner_are_as_old_as_the_history(analytics: Analytics) -> None:
    """What a split tells begins with the history, so it shows all of it, also when a demo on another port turned the link."""
    await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL)
    await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL, shop_host="127.0.0.1:9000")
    link = await analytics.links.find("127.0.0.1:9000", SPLIT)
    partner = await analytics.partners.by_code(PARTNER.code)
    assert link is not None
    assert partner is not None
    experiment = await analytics.links.experiment(link)

    assert [link.created_at, partner.created_at, experiment.changed_at] == [UNTIL - timedelta(days=10)] * 3


async def test_progress_goes_from_nothing_to_all(analytics: Analytics) -> None:
    """The first call says nothing is done, the last that everything is."""
    steps: list[tuple[int, int]] = []
    await load(
        analytics,
        seed=3,
        days=10,
        visitors=20,
        until=UNTIL,
        progress=lambda done, total: steps.append((done, total)),
    )
    total = steps[0][1]

    assert (steps[0], steps[-1], steps) == ((0, total), (total, total), sorted(steps))


async def test_a_demo_on_another_port_turns_its_links(analytics: Analytics) -> None:
    """The history stays, and the short links lead to where the shop is now."""
    await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL)
    await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL, shop_host="127.0.0.1:9000")
    t = analytics.database.tables
    async with analytics.database.connect() as connection:
        urls = set((await connection.scalars(select(t.links.c.url))).all())

    assert urls == {f"http://127.0.0.1:9000{link.path}" for link in LINKS.values()}
    async with analytics.database.connect() as connection:
        ways = (await connection.execute(select(t.links.c.rules, t.links.c.variants))).all()
    led = {way["url"] for rules, variants in ways for way in [*rules, *variants]}
    assert {url.startswith("http://127.0.0.1:9000/") for url in led} == {True}
    assert len(led) == 4


async def test_a_strangers_partner_is_left_alone(analytics: Analytics) -> None:
    """A partner who happens to have the demo's code stops the demo before anything is written."""
    await analytics.partners.create(code=PARTNER.code.upper(), name="A real one")

    with pytest.raises(Conflict, match="the demo did not make it"):
        await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL)


async def test_another_editions_history_is_left_alone(
    analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older generator began is not mixed with what this one makes; the error says how to start anew."""
    await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL)
    monkeypatch.setattr("goodanalytics.demo.history.EDITION", 1_000)

    with pytest.raises(Conflict, match="--fresh"):
        await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL)


async def test_a_strangers_link_is_left_alone(analytics: Analytics) -> None:
    """A link that happens to have the demo's name stops the demo before anything is written."""
    key = next(iter(LINKS))
    await analytics.links.create(domain=HOST, key=key, url="https://example.com/")

    with pytest.raises(Conflict, match="the demo did not make it"):
        await load(analytics, seed=SEED, days=10, visitors=5, until=UNTIL)
