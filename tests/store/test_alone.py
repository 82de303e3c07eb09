"""
One hit of a named visitor, in one statement or two: that it means the same as the worker's way, whoever was faster, and whatever was
read before it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import PendingRollbackError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from goodanalytics import Analytics, Config
from goodanalytics.core import bots, devices
from goodanalytics.core.bots import Verdict
from goodanalytics.core.consent import GRANTED
from goodanalytics.core.hits import Client, EventType, Hit, Signals, id_for_key
from goodanalytics.errors import Conflict, NotFound
from goodanalytics.migrations import days
from goodanalytics.platforms.meta import Meta
from goodanalytics.store import conversions, database, known
from goodanalytics.store.reclassify import reclassify
from tests.store.test_conversions import ltv, revenue, rows, sessions, sources, visit

ORDER: Any = {"amount_cents": 100, "currency": "EUR"}


@pytest.fixture
async def analytics(engine: AsyncEngine, config: Config) -> AsyncIterator[Analytics]:
    settings: dict[str, Any] = {"worker": False, "platforms": [Meta()], "consent_silence": "granted"}
    async with Analytics(engine, dataclasses.replace(config, **settings)) as running:
        yield running


async def statements(engine: AsyncEngine, act) -> list[str]:
    """How each statement begins that *act* adds to a host's transaction, with those past SQLAlchemy and its savepoints."""
    seen: list[str] = []
    async with engine.begin() as conn:
        await conn.execute(text("SELECT 1"))
        for name in ("before_cursor_execute", "savepoint"):
            event.listen(
                engine.sync_engine, name, lambda *args: seen.append(str(args[2] if len(args) > 2 else args))
            )
        driver: Any = (await conn.get_raw_connection()).driver_connection
        driver.add_query_logger(lambda record: seen.append(record.query))
        await act(conn)
        await asyncio.sleep(0)  # the driver tells on the loop
        taken = list(seen)
    return [[*statement.split(" ", 2), ""][1] for statement in taken]


class TestStatements:
    """A read is `SELECT v.xmin, …`, a write `WITH v …`, of what is no conversion `WITH open …`; the worker's way begins with
    none of these."""

    async def test_a_visitor_who_was_asked_for_takes_one(self, analytics, engine):
        """Who was asked for, as each request does, was read then; in the host's transaction there is one statement, and no savepoint."""
        await visit(analytics, "b")
        visitor = await analytics.resolve({"anonymous_id": "b"})

        taken = await statements(engine, lambda conn: analytics.sale(visitor, **ORDER, connection=conn))

        assert taken == ["v"]
        assert await ltv(analytics, visitor.id) == {"EUR": 100}

    async def test_an_id_takes_two(self, analytics, engine):
        """Of whom nothing was asked, there is one more statement, that reads."""
        visitor = await visit(analytics, "b")

        taken = await statements(engine, lambda conn: analytics.sale(visitor, **ORDER, connection=conn))

        assert taken == ["v.xmin,", "v"]
        assert await ltv(analytics, visitor) == {"EUR": 100}

    async def test_an_event_takes_as_many(self, analytics, engine):
        """What is no conversion notes a receipt in the same statement."""
        visitor = await visit(analytics, "b")

        taken = await statements(engine, lambda conn: analytics.track(visitor, "Held", connection=conn))

        assert taken == ["v.xmin,", "open"]

    async def test_what_was_read_is_used_once(self, analytics, engine):
        """A sale changes its visitor, so the next one in the same transaction reads again; both count."""
        await visit(analytics, "b")
        visitor = await analytics.resolve({"anonymous_id": "b"})

        async def two(conn):
            await analytics.sale(visitor, **ORDER, connection=conn)
            await analytics.sale(visitor, **ORDER, connection=conn)

        assert await statements(engine, two) == ["v", "v.xmin,", "v"]
        assert await ltv(analytics, visitor.id) == {"EUR": 200}

    async def test_what_the_hosts_transaction_read_is_not_kept(self, analytics, engine):
        """Inside the host's transaction a row may be two versions of one name, so what is read there is read again."""
        await visit(analytics, "b")
        visitor = await analytics.resolve({"anonymous_id": "b"})

        async def sold(conn):
            await analytics.identify(visitor, email="ada@shop.test", connection=conn)
            await analytics.sale(visitor, **ORDER, connection=conn)

        taken = await statements(engine, sold)

        assert taken[-3:] == ["v.xmin,", "v.xmin,", "v"]
        person = await analytics.visitors.get(visitor.id)
        assert (person.ltv, person.email, person.status) == ({"EUR": 100}, "ada@shop.test", "customer")

    @pytest.mark.parametrize(
        ("later", "ago", "expected"),
        [
            pytest.param(timedelta(minutes=1), timedelta(0), ["v"], id="a minute later"),
            pytest.param(timedelta(seconds=61), timedelta(0), ["v.xmin,", "v"], id="longer"),
            pytest.param(timedelta(0), timedelta(seconds=1), ["v.xmin,", "v"], id="of the past"),
        ],
    )
    async def test_what_was_read_is_kept_for_a_minute(self, analytics, engine, later, ago, expected):
        """After that somebody will have changed it; and of a time before, visits may be missing."""
        await visit(analytics, "b")
        analytics.config.clock.advance(timedelta(minutes=2))
        visitor = await analytics.resolve({"anonymous_id": "b"})
        at = analytics.config.clock.advance(later) - ago

        taken = await statements(
            engine, lambda conn: analytics.sale(visitor, **ORDER, occurred_at=at, connection=conn)
        )

        assert taken == expected

    async def test_no_more_are_remembered_than_fit(self, analytics, engine, monkeypatch):
        """Who was asked for longest ago is forgotten first."""
        monkeypatch.setattr(known, "MOST_RECENT", 1)
        people = []
        for browser in "ab":
            await visit(analytics, browser)
        for browser in "ab":
            people.append(await analytics.resolve({"anonymous_id": browser}))

        first, second = [
            await statements(engine, lambda conn, one=one: analytics.sale(one, **ORDER, connection=conn))
            for one in people
        ]

        assert (first, second) == (["v.xmin,", "v"], ["v"])

    async def test_nobody_is_remembered_for_longer_than_a_minute(self, analytics):
        """Who is not asked for again does not stay in memory, also if they never buy."""
        for browser, later in [("a", timedelta(0)), ("b", timedelta(seconds=61))]:
            await visit(analytics, browser)
            analytics.config.clock.advance(later)
            await analytics.resolve({"anonymous_id": browser})

        assert len(analytics.ingest.recent) == 1

    async def test_a_new_visit_goes_the_other_way(self, analytics):
        """A page that the server shows begins a visit, which this way cannot; nothing is written twice."""
        await visit(analytics, "b")
        analytics.config.clock.advance(timedelta(hours=2))
        visitor = await analytics.resolve({"anonymous_id": "b"})

        await analytics.track(visitor, "pageview", url="https://shop.test/thanks")

        assert [session.pageviews for session in await sessions(analytics)] == [1, 1]
        assert (await analytics.visitors.get(visitor.id)).total_pageviews == 2


class TestAsking:
    """Who a known value points to is one statement; everything else is decided as for any hit."""

    @pytest.mark.parametrize(
        "signals",
        [{"anonymous_id": "b"}, {"external_id": "user-1"}, {"email": "Ada@Shop.test"}],
        ids=["browser", "name", "address"],
    )
    async def test_a_known_value_takes_one_statement(self, analytics, engine, signals):
        """A browser, a name and an address are looked up as they are kept, and give the whole person."""
        visitor = await visit(analytics, "b")
        await analytics.identify(visitor, external_id="user-1", email="ada@shop.test")
        found = []

        async def asked(conn):
            found.append(await analytics.resolve(signals, connection=conn))

        assert await statements(engine, asked) == ["v.xmin,"]
        assert found == [await analytics.visitors.get(visitor)]

    async def test_a_person_of_two_browsers_is_whole_by_either(self, analytics):
        """What two browsers did is one person, whichever asks; and a sale then is of both."""
        for browser in "ab":
            one = await visit(analytics, browser, f"https://shop.test/?utm_source={browser}")
            await analytics.identify(one, external_id="user-1")
        people = [await analytics.resolve({"anonymous_id": browser}) for browser in "ab"]

        await analytics.sale(people[1], **ORDER)

        assert people[0] == people[1]
        assert people[0].total_sessions == 2
        (sale,) = await rows(analytics)
        assert sources(sale) == ["a", "b"]

    async def test_what_another_browser_does_meanwhile_counts(self, analytics):
        """The visit that began on a person's other browser after they were asked for is the one that the sale joins."""
        for browser in "ab":
            one = await visit(analytics, browser)
            await analytics.identify(one, external_id="user-1")
        analytics.config.clock.advance(timedelta(hours=2))
        person = await analytics.resolve({"external_id": "user-1"})
        other = "b" if person.id != one else "a"
        now = analytics.config.clock()
        await visit(analytics, other, "https://shop.test/?utm_source=ads")
        analytics.config.clock.advance(now - analytics.config.clock())

        await analytics.sale(person, **ORDER, occurred_at=now + timedelta(hours=1))

        assert (await sessions(analytics))[-1].events == 2
        assert await revenue(analytics, "source") == {("ads",): {"EUR": 100}}

    async def test_two_values_are_decided(self, analytics):
        """Two values may be of two people, who then become one."""
        first = await visit(analytics, "b")
        second = await visit(analytics, "c")
        await analytics.identify(second, external_id="user-1")

        person = await analytics.resolve({"anonymous_id": "b", "external_id": "user-1"})

        assert person.total_sessions == 2
        assert {first, second} >= {person.id}

    async def test_who_was_erased_is_not_found_again(self, analytics):
        """Neither by the browser nor by what was remembered of them a moment ago."""
        await visit(analytics, "b")
        visitor = await analytics.resolve({"anonymous_id": "b"})
        await analytics.visitors.forget(visitor.id, reason="asked")

        with pytest.raises(NotFound):
            await analytics.resolve({"anonymous_id": "b"})
        with pytest.raises(NotFound):
            await analytics.sale(visitor, **ORDER)
        assert await rows(analytics) == []

    async def test_who_was_merged_meanwhile_is_sold_to_as_they_are(self, analytics):
        """A visitor who became part of somebody after they were asked for buys as that person, with both lives as touches."""
        await visit(analytics, "b", "https://shop.test/?utm_source=b")
        other = await visit(analytics, "c", "https://shop.test/?utm_source=c")
        visitor = await analytics.resolve({"anonymous_id": "b"})
        await analytics.visitors.merge(other, visitor.id, reason="the same")

        await analytics.sale(visitor, **ORDER)

        (sale,) = await rows(analytics)
        assert sorted(sources(sale)) == ["b", "c"]
        assert (await analytics.visitors.get(other)).ltv == {"EUR": 100}

    async def test_a_visit_of_later_is_not_missed(self, analytics):
        """A visit that a server with a fast clock began is not known to be over; who has one is read again."""
        now = analytics.config.clock()
        visitor = await visit(analytics, "b", "https://shop.test/?utm_source=b")
        analytics.config.clock.advance(now - analytics.config.clock())
        await analytics.resolve({"anonymous_id": "b"})
        later = now + timedelta(hours=1, seconds=30)

        await analytics.sale(visitor, **ORDER, occurred_at=later)

        (sale,) = await rows(analytics)
        assert sources(sale) == ["b"]


async def test_touches_are_the_first_and_the_newest(analytics, monkeypatch):
    """Of a long life, the visit that began it and the newest ones earn a sale; both ways agree."""
    monkeypatch.setattr(conversions, "MOST_TOUCHES", 3)
    for way in ("alone", "together"):
        for number in range(5):
            visitor = await visit(analytics, way, f"https://shop.test/?utm_source=s{number}")
        if way == "together":
            monkeypatch.setattr("goodanalytics.store.alone.goes", lambda _hit: False)
        await analytics.sale(visitor, **ORDER)

    for sale in await rows(analytics):
        assert sources(sale) == ["s0", "s3", "s4"]


async def test_who_has_more_visits_than_are_read_goes_the_other_way(analytics, engine, monkeypatch):
    """A browser that comes from somewhere else all the time costs no more than so many visits, and its sale joins the newest."""
    monkeypatch.setattr(known, "MOST_VISITS", 2)
    hour = timedelta(hours=1)
    for source in "abc":
        visitor = await visit(analytics, "b", f"https://shop.test/?utm_source={source}")
        analytics.config.clock.advance(timedelta(minutes=1) - hour)
    analytics.config.clock.advance(hour)

    taken = await statements(engine, lambda conn: analytics.sale(visitor, **ORDER, connection=conn))

    assert (taken[0], len(taken) > 2) == ("v.xmin,", True)
    assert [session.events for session in await sessions(analytics)] == [1, 1, 2]
    assert await revenue(analytics, "source") == {("c",): {"EUR": 100}}


async def test_who_was_there_too_often_is_asked_for_as_fast(analytics, engine, monkeypatch):
    """Of a long life nothing is read but the newest visits, until there is a sale: which then knows all that earned it."""
    monkeypatch.setattr(known, "MOST_PAST", 2)
    for source in "abc":
        await visit(analytics, "b", f"https://shop.test/?utm_source={source}")
    visitor = await analytics.resolve({"anonymous_id": "b"})

    taken = await statements(engine, lambda conn: analytics.sale(visitor, **ORDER, connection=conn))

    assert len(taken) > 2
    (sale,) = await rows(analytics)
    assert sources(sale) == ["a", "b", "c"]


@pytest.mark.parametrize("verb", ["sale", "lead"])
async def test_a_key_of_last_year_is_a_repetition(analytics, verb):
    """A conversion is its own receipt: long after receipts are dropped its key is known, whichever way it comes again."""
    await visit(analytics, "b")
    visitor = await analytics.resolve({"anonymous_id": "b"})
    tell = getattr(analytics, verb)
    first = await tell(visitor, **ORDER, key="o-1")
    for _ in range(2):
        later = analytics.config.clock.advance(timedelta(days=200))
        async with analytics.database.begin() as conn:
            await days.turn(conn, analytics.database.tables.schema, later, analytics.config.idempotency)

    again = [
        await tell(visitor.id, **ORDER, key="o-1"),
        await tell(email="ada@shop.test", **ORDER, key="o-1"),
    ]
    await analytics.resolve({"anonymous_id": "b"})
    again.append(await tell(visitor, **ORDER, key="o-1"))

    assert [first.status, *(one.status for one in again)] == ["recorded", "repeated", "repeated", "repeated"]
    with pytest.raises(Conflict):
        await tell(visitor, amount_cents=101, currency="EUR", key="o-1")
    assert len(await rows(analytics)) == 1
    assert len(await rows(analytics, "events")) == 2
    assert (await analytics.visitors.get(visitor.id)).total_events == 2


@pytest.mark.parametrize("whom", [{}, {"email": "new@shop.test"}], ids=["alone", "together"])
async def test_what_a_machine_bought_is_told_once(analytics, whom):
    """It is an event and nothing that counts; told again without the browser, its key is known, whichever way that goes."""
    visitor = await visit(analytics, "b")
    now, key = analytics.config.clock(), id_for_key(analytics.config.workspace, "sale", "o-1")
    machine = Hit(
        id=key, workspace_id=analytics.config.workspace, received_at=now, occurred_at=now, event_type=EventType.SALE,
        origin="server", trusted=True, amount_cents=100, currency="EUR", signals=Signals(visitor_id=visitor),
        client=Client(bot="a script", bot_version=bots.VERSION),
    )  # fmt: skip
    first = await analytics.ingest.now([machine, machine])
    before = await analytics.visitors.get(visitor)

    again = await analytics.sale(visitor, **ORDER, **whom, key="o-1")
    once_more = await analytics.ingest.now([machine])

    assert [one.status for one in (*first, again, *once_more)] == ["recorded", *["repeated"] * 3]
    assert await analytics.visitors.get(visitor) == before
    assert [row.id for row in await rows(analytics, "events")].count(key) == 1
    assert [(row.kind, row.visitor_id, row.touches) for row in await rows(analytics)] == [
        ("machine", UUID(int=0), [])
    ]


async def test_one_batch_may_tell_twice_what_was_told_otherwise(analytics):
    """Both are told that the key was used for something else; what is the same in one batch is one."""
    visitor = await visit(analytics, "b")
    now, key = analytics.config.clock(), id_for_key(analytics.config.workspace, "sale", "o-1")
    told = Hit(
        id=key, workspace_id=analytics.config.workspace, received_at=now, occurred_at=now, event_type=EventType.SALE,
        origin="server", trusted=True, amount_cents=100, currency="EUR", signals=Signals(visitor_id=visitor),
        digest="a.python:1",
    )  # fmt: skip
    other = msgspec.structs.replace(told, digest="b.python:2")

    first = await analytics.ingest.now([told, told, other])
    second = await analytics.ingest.now([other, other, told])

    assert [outcome.status for outcome in first] == ["recorded", "repeated", "conflict"]
    assert [outcome.status for outcome in second] == ["conflict", "conflict", "repeated"]
    assert await ltv(analytics, visitor) == {"EUR": 100}


async def test_an_event_of_yesterday_is_a_repetition(analytics):
    """Receipts of a day that is over are asked too, in the one statement as in the two."""
    await visit(analytics, "b")
    visitor = await analytics.resolve({"anonymous_id": "b"})
    first = await analytics.track(visitor, "Held", key="h-1")
    tomorrow = analytics.config.clock.advance(timedelta(days=1))
    async with analytics.database.begin() as conn:
        await days.turn(conn, analytics.database.tables.schema, tomorrow, timedelta(days=90))

    again = [await analytics.track(visitor.id, "Held", key="h-1")]
    await analytics.resolve({"anonymous_id": "b"})
    again.append(await analytics.track(visitor, "Held", key="h-1"))

    assert [first.status, *(one.status for one in again)] == ["recorded", "repeated", "repeated"]
    assert (await analytics.visitors.get(visitor.id)).total_events == 2


async def test_both_ways_write_the_same(analytics, monkeypatch):
    """Sales, a lead and an event come out alike whether they go alone or the worker's way, also of somebody with two browsers."""
    found = []
    for way in ("alone", "together"):
        if way == "together":
            monkeypatch.setattr("goodanalytics.store.alone.goes", lambda _hit: False)
        visitor = await visit(analytics, way, "https://shop.test/?utm_source=ads&gclid=G1")
        analytics.config.clock.advance(timedelta(minutes=5))
        await analytics.lead(visitor, name="demo", key=f"l-{way}")
        await analytics.sale(
            visitor,
            amount_cents=4_900,
            currency="USD",
            key=f"o-{way}",
            contents=[{"id": "sku"}],
            consent=GRANTED,
        )
        await analytics.track(visitor, "Downloaded", properties={"plan": "yearly"})
        analytics.config.clock.advance(timedelta(days=2))
        await analytics.sale(visitor, amount_cents=100, currency="EUR")
        browser = await visit(analytics, f"{way} too", "https://shop.test/?utm_source=letter")
        for one in (visitor, browser):
            await analytics.identify(one, external_id=f"person {way}")
        page = "https://shop.test/thanks?utm_source=partner&utm_medium=referral"
        await analytics.sale(visitor, amount_cents=1, currency="EUR", url=page)
        found.append(
            [
                [plain(row, visitor) for row in await rows(analytics, name) if row.visitor_id == visitor]
                for name in ("events", "conversions")
            ]
            + [[plain(row, visitor) for row in await sessions(analytics) if row.visitor_id == visitor]]
            + [[dataless(await analytics.visitors.get(visitor))]]
        )

    assert found[0] == found[1]
    assert [len(row["touches"]) for row in found[0][1]] == [1, 1, 1, 2]


TIMES_AND_IDS = (
    "id",
    "session_id",
    "visitor_id",
    "event_id",
    "key",
    "at",
    "clicked",
    "platform_signals",
    "consent",
)


def plain(row, visitor: UUID) -> dict:
    """A row without what differs between any two lives."""
    kept = {
        name: value
        for name, value in row._mapping.items()
        if name not in TIMES_AND_IDS and not name.endswith("_at")
    }
    kept["touches"] = [touch["source"] for touch in kept.get("touches", [])]
    return kept


def dataless(visitor) -> tuple:
    return visitor.status, visitor.ltv, visitor.total_events, visitor.total_sessions, visitor.last_source


class TestOvertaken:
    async def overtaken(self, analytics, engine, act) -> None:
        """A sale to the browser `b` that waits for what *act* does to its visitor in another transaction."""
        visitor = await analytics.resolve({"anonymous_id": "b"})
        async with engine.connect() as other:
            await act(other)
            sale = asyncio.create_task(analytics.sale(visitor, amount_cents=100, currency="EUR", key="o-1"))
            while not await is_waiting(engine):
                await asyncio.sleep(0)
            await other.commit()
            await sale

    async def test_a_sale_waits_for_whoever_changes_its_visitor(self, analytics, engine):
        """What another transaction does to the visit and the visitor meanwhile is not written over."""
        visitor = await visit(analytics, "b")

        await self.overtaken(
            analytics, engine, lambda other: analytics.track(visitor, "Held", connection=other)
        )

        person = await analytics.visitors.get(visitor)
        (session,) = await sessions(analytics)
        assert (person.total_events, person.ltv, session.events) == (3, {"EUR": 100}, 3)

    async def test_a_visit_that_begins_meanwhile_is_joined(self, analytics, engine):
        """A visit that the first statement could not see is the sale's, and has earned it."""
        await visit(analytics, "b")

        url = "https://shop.test/?utm_source=ads&utm_medium=cpc"
        await self.overtaken(analytics, engine, lambda other: visit(analytics, "b", url, other))

        assert [session.events for session in await sessions(analytics)] == [1, 2]
        assert await revenue(analytics, "source") == {("ads",): {"EUR": 100}}

    async def test_visits_that_are_corrected_meanwhile_are_read_again(self, analytics, monkeypatch):
        """Who turns out to be a machine, by new rules, after they were asked for, has no visit that a sale could join or be earned by."""
        visitor = await analytics.resolve({"anonymous_id": await self.machine(analytics)})
        monkeypatch.setattr(
            bots, "_verdict", lambda _agent: Verdict(bot=True, reasons=("tool: Shop",), name="Shop")
        )
        monkeypatch.setattr(bots, "VERSION", bots.VERSION + 1)
        devices._parse.cache_clear()
        async for _ in reclassify(analytics.database, analytics.config):
            pass

        await analytics.sale(visitor, **ORDER)

        (sale,) = await rows(analytics)
        assert sale.touches == []

    async def machine(self, analytics) -> str:
        """A browser that nobody takes for a machine yet."""
        client = Client(user_agent="Mozilla/5.0 Shop/1", bot_version=bots.VERSION)
        await visit(analytics, "b", "https://shop.test/?utm_source=ads", client=client)
        return "b"

    async def test_the_same_order_twice_at_once_is_one(self, analytics):
        """Ten calls for one order leave one sale."""
        visitor = await visit(analytics, "b")

        found = await asyncio.gather(
            *(analytics.sale(visitor, amount_cents=100, currency="EUR", key="o-1") for _ in range(10))
        )

        assert sorted(o.status for o in found) == ["recorded"] + ["repeated"] * 9
        assert await ltv(analytics, visitor) == {"EUR": 100}
        with pytest.raises(Conflict):
            await analytics.sale(visitor, amount_cents=101, currency="EUR", key="o-1")

    @pytest.mark.parametrize("is_named", [True, False], ids=["of the visitor", "by e-mail"])
    @pytest.mark.parametrize("is_undone", [False, True], ids=["kept", "undone"])
    async def test_one_key_of_two_people_is_one_sale(self, analytics, engine, is_named, is_undone):
        """Whoever is sold to second, under a key that is taken while it waits, is left as they were, whichever way it goes."""
        first, second = (
            await visit(analytics, "a"),
            await visit(analytics, "b", "https://shop.test/?utm_source=ads"),
        )
        await analytics.identify(second, email="ada@shop.test")
        before = await analytics.visitors.get(second), (await sessions(analytics))[-1]
        whom = {"visitor": second} if is_named else {"email": "ada@shop.test"}

        async with engine.connect() as other:
            await analytics.sale(first, **ORDER, key="o-1", connection=other)
            sale = asyncio.create_task(analytics.sale(**whom, **ORDER, key="o-1"))
            while not await is_waiting(engine):
                await asyncio.sleep(0)
            await (other.rollback() if is_undone else other.commit())
            outcome = await sale

        after = await analytics.visitors.get(second), (await sessions(analytics))[-1]
        (found,) = await rows(analytics)
        events = [row for row in await rows(analytics, "events") if row.event_type == "sale"]
        assert (len(events), events[0].visitor_id) == (1, found.visitor_id)
        if is_undone:
            assert (outcome.status, found.visitor_id, after[0].ltv) == ("recorded", second, {"EUR": 100})
        else:
            assert (outcome.status, found.visitor_id, after) == ("repeated", first, before)

    @pytest.mark.parametrize("whom", [{}, {"email": "new@shop.test"}], ids=["nobody", "somebody new"])
    async def test_a_sale_of_whom_nobody_knows_is_told_twice_at_once(self, analytics, engine, whom):
        """Nobody is there to be locked, and whoever comes second finds what the first one made."""
        at = analytics.config.clock()
        async with engine.connect() as other:
            await analytics.sale(**whom, **ORDER, key="o-1", occurred_at=at, connection=other)
            sale = asyncio.create_task(analytics.sale(**whom, **ORDER, key="o-1", occurred_at=at))
            while not await is_waiting(engine):
                await asyncio.sleep(0)
            await other.commit()

            assert (await sale).status == "repeated"

        assert len(await rows(analytics)) == len(await rows(analytics, "events")) == 1
        assert [row.ltv for row in await rows_of_people(analytics)] == [{"EUR": 100}]

    async def test_many_at_once_lose_nothing(self, analytics):
        """Sales and pageviews of one visitor side by side are all counted, in the visitor and in the visit."""
        visitor = await visit(analytics, "b")

        await asyncio.gather(
            *(analytics.sale(visitor, amount_cents=100, currency="EUR") for _ in range(12)),
            *(analytics.ingest.now([ping(analytics)]) for _ in range(12)),
        )

        (session,) = await sessions(analytics)
        assert (await ltv(analytics, visitor), session.events) == ({"EUR": 1_200}, 13)
        assert session.engaged_ms == 12_000


async def rows_of_people(analytics: Analytics) -> list:
    async with analytics.database.connect() as conn:
        return (await conn.execute(analytics.database.tables.visitors.select())).all()


def ping(analytics: Analytics) -> Hit:
    now = analytics.config.clock()
    return Hit(
        id=analytics.config.new_id(),
        workspace_id=analytics.config.workspace,
        received_at=now,
        occurred_at=now,
        event_type=EventType.ENGAGEMENT,
        origin="browser",
        engaged_ms=1_000,
        signals=Signals(anonymous_id="b"),
    )


async def is_waiting(engine: AsyncEngine) -> bool:
    async with engine.connect() as conn:
        found = await conn.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )
        return found.scalar_one() > 0


class Base(DeclarativeBase):
    """The host's objects."""


class Unknown(Base):
    """One whose table nobody made."""

    __tablename__ = "unknown"
    id: Mapped[int] = mapped_column(primary_key=True)


class TestSession:
    """The host's session is asked for its connection without changing context where it has one, and in the public way where not."""

    async def test_one_that_has_begun_is_not_asked(self, engine):
        """SQLAlchemy's own names are there, and name what the public way gives."""
        async with AsyncSession(engine) as session:
            assert database._held(session) is None
            await session.execute(text("SELECT 1"))
            held = database._held(session)
            assert held is (await session.connection()).sync_connection
            async with session.begin_nested():
                assert database._held(session) in (None, held)
                assert (await session.connection()).sync_connection is held

    @pytest.mark.parametrize("has_begun", [True, False])
    @pytest.mark.parametrize("is_nested", [True, False])
    async def test_a_sale_is_of_its_transaction(self, analytics, engine, has_begun, is_nested):
        """Also as the first thing in it, and in a savepoint: what is rolled back was never there."""
        await visit(analytics, "b")
        visitor = await analytics.resolve({"anonymous_id": "b"})
        async with AsyncSession(engine) as session, session.begin():
            if has_begun:
                await session.execute(text("SELECT 1"))
            inner = await session.begin_nested() if is_nested else session
            await analytics.sale(visitor, **ORDER, key="o-1", connection=session)
            await inner.rollback()
            assert await rows(analytics) == []
            if is_nested:
                await analytics.sale(visitor.id, **ORDER, key="o-1", connection=session)
        assert len(await rows(analytics)) == int(is_nested)
        assert await ltv(analytics, visitor.id) == ({"EUR": 100} if is_nested else {})

    @pytest.mark.parametrize("is_nested", [True, False])
    async def test_one_that_has_failed_says_so(self, analytics, engine, is_nested):
        """A session whose flush failed takes nothing until it is rolled back, in a savepoint too; a sale is not written beside it."""
        await visit(analytics, "b")
        visitor = await analytics.resolve({"anonymous_id": "b"})
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))
            inner = await session.begin_nested() if is_nested else session
            session.add(Unknown(id=1))
            with pytest.raises(ProgrammingError):
                await session.flush()
            with pytest.raises(PendingRollbackError):
                await analytics.sale(visitor, **ORDER, connection=session)
            await inner.rollback()
            await analytics.sale(visitor, **ORDER, connection=session)
            await session.commit()
        assert len(await rows(analytics)) == 1
