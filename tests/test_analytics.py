"""The whole engine through its front door: Python verbs, beacons and clicks, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import msgspec
import pytest
from sqlalchemy import delete, func, insert, select

from goodanalytics import Analytics, Config
from goodanalytics.errors import Conflict, InvalidInput, NotFound

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>Shop</title>"})


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(analytics.wrap(page), client=("203.0.113.7", 1234))
    async with httpx.AsyncClient(
        transport=transport,
        base_url="https://shop.example",
        headers={"user-agent": BROWSER, "accept": "text/html"},
    ) as browser:
        yield browser


async def count(analytics: Analytics, name: str, *where) -> int:
    table = getattr(analytics.database.tables, name)
    async with analytics.database.connect() as conn:
        return (await conn.execute(select(func.count()).select_from(table).where(*where))).scalar_one()


async def rows(analytics: Analytics, name: str):
    table = getattr(analytics.database.tables, name)
    async with analytics.database.connect() as conn:
        return [row._mapping for row in await conn.execute(select(table))]


def beacon(**fields) -> bytes:
    return msgspec.json.encode({"event_id": str(uuid.uuid4()), "url": "https://shop.example/", **fields})


async def test_three_pages_are_one_visitor_one_session_three_pageviews(analytics, client, clock):
    """A document sets the cookie, and every beacon after it belongs to the same visitor and visit."""
    await client.get("/")
    for path in ("/", "/products", "/products/lamp"):
        answer = await client.post("/ga/t/event", content=beacon(url=f"https://shop.example{path}"))
        assert answer.status_code == 202
        assert answer.headers["x-goodanalytics"] == "accepted"
        clock.advance(timedelta(minutes=1))
    await analytics.drain()

    assert [await count(analytics, n) for n in ("visitors", "sessions", "events")] == [1, 1, 3]
    (session,) = await rows(analytics, "sessions")
    assert (session["entry_path"], session["exit_path"], session["pageviews"]) == ("/", "/products/lamp", 3)


async def test_fifty_first_beacons_at_once_make_one_visitor_and_one_session(analytics, client):
    """Beacons that race for a new visitor find the one that the first of them made."""
    client.cookies.set("_ga_anon", "one-browser")
    answers = await asyncio.gather(*(client.post("/ga/t/event", content=beacon()) for _ in range(50)))
    await asyncio.gather(*(analytics.worker.drain() for _ in range(4)))

    assert {a.status_code for a in answers} == {202}
    assert [await count(analytics, n) for n in ("visitors", "sessions", "events")] == [1, 1, 50]


async def test_fifty_first_hits_processed_in_fifty_transactions_make_one_visitor(analytics):
    """The race is decided by the database, not by the batch: fifty transactions at once agree on one visitor."""
    visitors = await asyncio.gather(*(analytics.resolve({"anonymous_id": "one-browser"}) for _ in range(50)))

    assert len({v.id for v in visitors}) == 1
    assert await count(analytics, "visitors") == 1


async def test_a_beacon_that_is_sent_ten_times_is_one_event(analytics, client):
    """The event_id is the idempotency key, within a batch and across batches."""
    body = beacon()
    for _ in range(5):
        await client.post("/ga/t/event", content=body)
    await analytics.drain()
    for _ in range(5):
        await client.post("/ga/t/event", content=body)
    await analytics.drain()

    assert await count(analytics, "events") == 1


async def test_a_click_its_landing_the_sign_up_and_the_sale_are_one_person(analytics, client, clock):
    """The purpose of it all: from the link's click on another host to the sale, on one record."""
    link = await analytics.links.create(
        domain="go.example",
        key="spring",
        url="https://shop.example/lamps",
        utm_source="newsletter",
        utm_medium="email",
        utm_campaign="Spring",
    )
    answer = await client.get("https://go.example/l/spring", headers={"host": "go.example"})
    assert answer.status_code == 302
    landing = httpx.URL(answer.headers["location"])
    ga_id = landing.params["ga_id"]
    client.cookies.clear()
    clock.advance(timedelta(seconds=3))
    await client.get(str(landing))
    await client.post("/ga/t/event", content=beacon(url=str(landing.copy_remove_param("ga_id")), ga_id=ga_id))
    clock.advance(timedelta(minutes=2))
    await analytics.drain()
    visitor = await analytics.resolve({"anonymous_id": client.cookies["_ga_anon"]})
    visitor = await analytics.identify(visitor, external_id="u1", email="Ann@Example.com", name="Ann")
    await analytics.lead(visitor, name="Sign-up")
    await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="order-1")

    assert await count(analytics, "visitors") == 1
    person = await analytics.visitors.by_external_id("u1")
    assert (person.status, person.email, person.ltv) == ("customer", "ann@example.com", {"EUR": 4900})
    assert person.first_source["platform"] == person.last_source["platform"] == "newsletter"
    assert str(person.first_click_id) == ga_id
    timeline = await analytics.visitors.timeline(person, newest_first=False)
    assert [entry.event_type for entry in timeline.items] == [
        "link_click",
        "pageview",
        "identify",
        "lead",
        "sale",
    ]
    assert {entry.source for entry in timeline.items} == {"newsletter"}
    assert len({entry.session_id for entry in timeline.items[1:]}) == 1
    assert {row["link_id"] for row in await rows(analytics, "events")} == {link.id}


async def test_a_forwarded_landing_address_carries_its_source_and_not_its_person(analytics, client, clock):
    """The second browser that presents a click becomes a new visitor with the same source."""
    await analytics.links.create(
        domain="go.example", key="a", url="https://shop.example/", utm_source="partner"
    )
    answer = await client.get("https://go.example/l/a")
    ga_id = httpx.URL(answer.headers["location"]).params["ga_id"]
    for browser in ("first", "second"):
        client.cookies.clear()
        client.cookies.set("_ga_anon", browser)
        await client.post("/ga/t/event", content=beacon(ga_id=ga_id))
        await analytics.drain()
    first = await analytics.resolve({"anonymous_id": "first"})
    second = await analytics.resolve({"anonymous_id": "second"})

    assert first.id != second.id
    assert first.first_source["platform"] == second.first_source["platform"] == "partner"


async def test_a_landing_that_is_processed_before_its_click_learns_its_source_from_it(
    analytics, client, clock
):
    """Click and landing lie in different shards; whichever a worker takes first, the visit is the link's."""
    link = await analytics.links.create(
        domain="go.example", key="late", url="https://shop.example/", utm_source="poster", utm_medium="print"
    )
    answer = await client.get("https://go.example/l/late")
    ga_id = httpx.URL(answer.headers["location"]).params["ga_id"]
    t = analytics.database.tables.hits
    async with analytics.database.begin() as conn:
        click = (await conn.execute(delete(t).returning(t))).one()
    client.cookies.clear()
    client.cookies.set("_ga_anon", "browser")
    clock.advance(timedelta(seconds=2))
    await client.post("/ga/t/event", content=beacon(ga_id=ga_id))
    await analytics.drain()
    clock.advance(timedelta(seconds=2))
    await analytics.lead((await analytics.visitors.list()).items[0])
    async with analytics.database.begin() as conn:
        await conn.execute(insert(t), dict(click._mapping))
    await analytics.drain()

    (session,) = await rows(analytics, "sessions")
    written = {row["event_type"]: row for row in await rows(analytics, "events")}
    assert written.keys() == {"link_click", "pageview", "lead"}
    assert {(row["source"], row["medium"], row["campaign"], row["link_id"]) for row in written.values()} == {
        ("poster", "print", None, link.id)
    }
    assert (await analytics.links.stats(link)).total_leads == 1
    assert (session["source"], session["medium"], session["link_id"]) == ("poster", "print", link.id)
    (person,) = (await analytics.visitors.list()).items
    assert person.first_source["platform"] == person.last_source["platform"] == "poster"


async def test_a_sale_vanishes_with_the_hosts_transaction(analytics, engine):
    """Given the host's connection, nothing is written that the host rolls back, and no hook runs."""
    called = []
    analytics.hooks.on("sale")(called.append)
    visitor = await analytics.resolve({"anonymous_id": "a"})
    async with engine.connect() as conn:
        await conn.begin()
        await analytics.sale(visitor, amount_cents=1, currency="EUR", connection=conn)
        await conn.rollback()
    assert await count(analytics, "events") == 0
    async with engine.begin() as conn:
        await analytics.sale(visitor, amount_cents=1, currency="EUR", connection=conn)
        nested = await conn.begin_nested()
        await analytics.sale(visitor, amount_cents=2, currency="EUR", connection=conn)
        await nested.rollback()
        assert called == []
    await analytics.hooks.settle()

    assert await count(analytics, "events") == 1
    assert len(called) == 1


async def test_a_key_is_one_sale_and_another_amount_under_it_is_a_conflict(analytics):
    """Repeating a call is safe; using a key for something else is an error that says so."""
    visitor = await analytics.resolve({"anonymous_id": "a"})
    first = await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="order-1")
    again = await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="order-1")

    assert (first.status, again.status, first.event_id) == ("recorded", "repeated", again.event_id)
    with pytest.raises(Conflict, match="order-1"):
        await analytics.sale(visitor, amount_cents=100, currency="EUR", key="order-1")
    assert (await analytics.visitors.get(visitor)).ltv == {"EUR": 4900}


async def test_two_external_ids_stay_two_people(analytics):
    """Who signs in as somebody else on the same browser is somebody else."""
    browser = await analytics.resolve({"anonymous_id": "shared"})
    ann = await analytics.identify(browser, external_id="ann")
    bob = await analytics.identify(browser, external_id="bob")

    assert ann.id != bob.id
    assert await count(analytics, "merges") == 0
    assert await count(analytics, "conflicts") == 1


async def test_a_second_device_joins_the_person_who_signs_in_on_it(analytics, clock):
    """One external id on two browsers is one person, the older row gives the id, and both ids lead to it."""
    phone = await analytics.resolve({"anonymous_id": "phone"})
    clock.advance(timedelta(seconds=1))
    laptop = await analytics.resolve({"anonymous_id": "laptop"})
    await analytics.identify(phone, external_id="ann")
    person = await analytics.identify(laptop, external_id="ann")

    assert person.id == phone.id
    assert (await analytics.visitors.get(laptop.id)).id == phone.id
    assert (await analytics.resolve({"anonymous_id": "laptop"})).id == phone.id
    (merge,) = await rows(analytics, "merges")
    assert (merge["loser_id"], merge["winner_id"]) == (laptop.id, phone.id)


async def test_one_hostile_hit_among_many_costs_only_itself(analytics, monkeypatch):
    """A hit that PostgreSQL refuses is set aside with its reason, and its neighbours are processed."""
    from goodanalytics.core.hits import EventType, Hit, Signals

    now = analytics.config.clock()
    hits = [
        Hit(
            id=uuid.uuid4(),
            workspace_id=analytics.config.workspace,
            received_at=now,
            occurred_at=now,
            event_type=EventType.PAGEVIEW,
            origin="browser",
            title="bad\x00" if i == 217 else "good",
            signals=Signals(anonymous_id=f"a{i}"),
        )
        for i in range(500)
    ]
    await analytics.log.append(hits)
    await analytics.drain()

    assert await count(analytics, "events") == 499
    (aside,) = await rows(analytics, "rejected_hits")
    assert "unicode" in aside["error"].lower() or "null" in aside["error"].lower()
    assert await count(analytics, "hits") == 0


async def test_wrong_values_are_named(analytics):
    """What the host gets wrong is an error that names the value and the cure, and nothing is written."""
    visitor = await analytics.resolve({"anonymous_id": "a"})

    with pytest.raises(InvalidInput, match="currency"):
        await analytics.sale(visitor, amount_cents=100, currency="euros")
    with pytest.raises(InvalidInput, match="names nobody"):
        await analytics.identify(visitor, external_id="undefined")
    with pytest.raises(NotFound, match="no visitor"):
        await analytics.lead(uuid.uuid4())
    with pytest.raises(InvalidInput, match="anonymous_id"):
        await analytics.resolve({})
    with pytest.raises(InvalidInput, match="anonymous_id"):
        await analytics.resolve({"anonymous_id": "\x00"})
    assert (await analytics.resolve({"external_id": "nul\x00" + "x" * 500})).external_id == "nul" + "x" * 125
    assert await count(analytics, "events") == 0
