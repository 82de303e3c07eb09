"""Many at once on the same people: one visitor each, exact sums, and no exception that a caller would see."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from goodanalytics import Analytics

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PERSONS = 10
TASKS = 200


@pytest.fixture
async def engine(database_url):
    """A host's engine with fewer connections than there are tasks."""
    engine = create_async_engine(database_url, pool_size=20, max_overflow=0)
    yield engine
    await engine.dispose()


@pytest.fixture
async def analytics(engine, config):
    async with Analytics(engine, config) as running:
        yield running


async def ask(analytics, question: str) -> list[tuple]:
    async with analytics.database.connect() as conn:
        await conn.execute(text("SET LOCAL search_path TO good_analytics"))
        return [tuple(row) for row in await conn.execute(text(question))]


async def hops(analytics) -> list[tuple]:
    """Rows that lead to their person by more than one step, which nothing that reads would follow."""
    return await ask(
        analytics,
        "SELECT v.id, v.canonical_id, c.canonical_id FROM visitors v JOIN visitors c ON c.id = v.canonical_id "
        "WHERE c.canonical_id <> c.id",
    )


async def test_two_hundred_tasks_on_ten_people_end_in_ten_people_with_exact_revenue(analytics):
    """Browsers, e-mails and external ids of the same people, said in any order by tasks that all run at once."""

    async def shop(number: int) -> None:
        person, turn = number % PERSONS, number // PERSONS
        visitor = await analytics.resolve({"anonymous_id": f"browser {person}/{turn % 4}"})
        said = {"external_id": f"person {person}", "email": f"person{person}@example.com"}
        if turn % 3 < 2:
            del said["external_id" if turn % 3 else "email"]
        known = await analytics.identify(visitor, **said)
        order = {"amount_cents": 100 + turn, "currency": "EUR", "key": f"order {number}"}
        await asyncio.gather(*(analytics.sale(known, **order) for _ in range(2)))

    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(shop(number))

    people = [await analytics.visitors.by_external_id(f"person {n}") for n in range(PERSONS)]
    assert [p.ltv for p in people] == [{"EUR": sum(100 + turn for turn in range(TASKS // PERSONS))}] * PERSONS
    browsers = [
        {(await analytics.resolve({"anonymous_id": f"browser {n}/{b}"})).id for b in range(4)}
        for n in range(PERSONS)
    ]
    assert browsers == [{p.id} for p in people]
    assert await ask(analytics, "SELECT count(DISTINCT canonical_id) FROM visitors") == [(PERSONS,)]
    assert await ask(analytics, "SELECT count(*) FROM events WHERE event_type = 'sale'") == [(TASKS,)]
    assert await hops(analytics) == []


async def somebody_waits(analytics) -> bool:
    """Whether a connection of this database waits for a lock."""
    question = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return (await ask(analytics, question))[0][0]


@pytest.fixture
def merging(analytics, engine, clock, wait_until):
    """Merge Ann's laptop into her phone, which is older, and let *other* start while that is not yet committed."""

    async def merge(other):
        phone = await analytics.identify(email="ann@example.com")
        clock.advance(timedelta(minutes=1))
        laptop = await analytics.identify(external_id="ann")
        async with engine.connect() as conn, conn.begin():
            await analytics.identify(laptop, email="ann@example.com", connection=conn)
            waiting = asyncio.ensure_future(other(phone, laptop))
            await wait_until(lambda: somebody_waits(analytics), "the other one waits for the merge")
        return phone, laptop, await waiting

    return merge


@pytest.mark.parametrize("buyer", ["phone", "laptop"])
async def test_a_sale_that_waits_for_its_visitors_merge_goes_to_the_merged_person(buyer, analytics, merging):
    """A row that is given to another person while we wait for it is still our visitor's; its revenue is not lost."""
    phone, _, outcome = await merging(
        lambda phone, laptop: analytics.sale(
            {"phone": phone, "laptop": laptop}[buyer], amount_cents=900, currency="EUR"
        )
    )

    ann = await analytics.visitors.by_external_id("ann")
    assert (ann.id, ann.ltv) == (phone.id, {"EUR": 900})
    assert outcome.visitor_id == ann.id
    assert await ask(analytics, "SELECT count(DISTINCT canonical_id) FROM visitors") == [(1,)]


async def test_an_external_id_that_waits_for_a_merge_sees_the_one_that_the_merge_brought(analytics, merging):
    """Two external ids are never joined, also when the first one came while we waited for the row."""
    phone, _, bob = await merging(lambda phone, _: analytics.identify(phone, external_id="bob"))

    ann = await analytics.visitors.by_external_id("ann")
    assert (ann.id, ann.external_id) == (phone.id, "ann")
    assert bob.id != ann.id
    assert bob.external_id == "bob"


async def test_a_merge_that_waits_for_a_merge_takes_along_what_the_first_one_brought(
    analytics, clock, merging
):
    """Every row leads to its person in one step, however merges follow upon each other."""
    oldest = await analytics.identify(phone="+43 1 234567")
    clock.advance(timedelta(minutes=1))
    _, laptop, merged = await merging(lambda phone, _: analytics.identify(phone, phone="+43 1 234567"))

    assert merged.id == oldest.id
    assert (await analytics.visitors.get(laptop)).id == oldest.id
    assert await hops(analytics) == []


def beacon(client: httpx.AsyncClient, visitor: int):
    return client.post(
        "/ga/t/event",
        json={"event_id": str(uuid4()), "url": "https://shop.example/"},
        headers={"cookie": f"_ga_anon=browser-{visitor}"},
    )


async def test_forty_visitors_whose_first_beacons_race_over_two_apps_are_forty(durable, launch, wait_until):
    """Fifty first beacons each, half to either app, two processes an app: forty visitors and forty sessions."""
    url, books = durable
    apps = await asyncio.gather(*(launch(url, workers=2) for _ in range(2)))

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=apps[number % 2].address,
                    timeout=60,
                    headers={"user-agent": BROWSER},
                    verify=False,
                )
            )
            for number in range(50)
        ]
        answers = [
            answer.status_code
            for visitor in range(40)
            for answer in await asyncio.gather(*(beacon(client, visitor) for client in clients))
        ]

    await wait_until(books.is_settled, "the log is empty")
    assert set(answers) == {202}
    assert await books.counts() == {"visitors": 40, "sessions": 40, "events": 2_000, "rejected_hits": 0}
    assert await books.totals() == {"events": 2_000, "sessions": 2_000, "visitors": 2_000}
