"""Leads, sales and refunds through the front door, on a real PostgreSQL: what they add to, what they take back, who earned them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from goodanalytics import Analytics, Config
from goodanalytics.core.consent import DENIED, GRANTED
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.platforms import Conversion, Notice
from goodanalytics.platforms.meta import Meta
from goodanalytics.sealing import Place
from goodanalytics.store.reports.query import Query

RATES = {"USD": Decimal("0.9"), "JPY": Decimal("0.0061")}
MACHINE = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


@pytest.fixture
async def analytics(engine: AsyncEngine, config: Config) -> AsyncIterator[Analytics]:
    settings = {
        "reporting_currency": "EUR",
        "exchange_rate": lambda code, _at: RATES.get(code),
        "keep_ip": "full",
        "worker": False,
        "platforms": [Meta()],
        "consent_silence": "granted",
    }
    async with Analytics(engine, dataclasses.replace(config, **settings)) as running:
        yield running


async def listen(analytics: Analytics, workspace: UUID | None = None) -> None:
    """Switch Meta on, and a webhook that wants to hear of everything."""
    here = {"workspace_id": workspace}
    await analytics.platforms.store_credentials("meta", {"access_token": "a-secret", "pixel_id": "1"}, **here)
    await analytics.platforms.enable("meta", **here)
    await analytics.webhooks.create("https://receiver.example/hooks", events=["*"], **here)


async def queued(analytics: Analytics) -> dict[str, list]:
    """What the outbox holds for Meta and for the webhook: what is told, or why nothing is and nothing of it is kept."""
    table, found = analytics.database.tables.dispatches, {"meta": [], "webhook": []}
    async with analytics.database.connect() as conn:
        held = (await conn.execute(select(table).order_by(table.c.occurred_at))).all()
    for row in held:
        name = row.target.partition(":")[0]
        if row.sealed is None:
            found[name].append((row.state, row.reason))
            continue
        plain = analytics.config.sealer.unseal(
            row.sealed, Place("dispatch", row.workspace_id, row.target, str(row.id))
        )
        found[name].append(msgspec.json.decode(plain, type=Conversion if name == "meta" else Notice))
    return found


async def visit(
    analytics: Analytics, browser: str, url: str = "https://shop.test/", connection=None, **facts
) -> UUID:
    """A browser looks at a page, an hour after whatever came before; the person that it is."""
    now = analytics.config.clock.advance(timedelta(hours=1))
    hit = Hit(
        id=analytics.config.new_id(),
        workspace_id=analytics.config.workspace,
        received_at=now,
        occurred_at=now,
        event_type=EventType.PAGEVIEW,
        origin="browser",
        url=url,
        signals=Signals(anonymous_id=browser),
        **facts,
    )
    (outcome,) = await analytics.ingest.now([hit], connection)
    return outcome.visitor_id


async def rows(analytics: Analytics, name: str = "conversions") -> list:
    """A table in the order of time."""
    table = getattr(analytics.database.tables, name)
    async with analytics.database.connect() as conn:
        return (await conn.execute(select(table).order_by(table.c.occurred_at, table.c.workspace_id))).all()


async def revenue(analytics: Analytics, *dimensions: str) -> dict:
    """Of all times, by *dimensions*."""
    now = analytics.config.clock()
    query = Query(
        period=(now - timedelta(days=99), now + timedelta(days=1)),
        metrics=("revenue_cents",),
        dimensions=dimensions,
    )
    return {row[:-1]: row[-1] for row in (await analytics.reports.query(query)).rows}


async def ltv(analytics: Analytics, visitor: UUID) -> dict[str, int]:
    return (await analytics.visitors.get(visitor)).ltv


def sources(conversion) -> list[str]:
    """Where the touches of a conversion came from."""
    return [touch["source"].get("platform", "direct") for touch in conversion.touches]


async def test_a_page_may_know_the_id_before_the_sale_is_told(analytics):
    """What a pixel is given is what platforms hear from us; a lead of the same key is another event."""
    await listen(analytics)
    visitor = await visit(analytics, "b", "https://shop.test/?fbclid=F1", client=Client(user_agent=MACHINE))
    known = [analytics.event_id(kind, "o-1") for kind in ("lead", "sale")]
    told = [
        await analytics.lead(visitor, key="o-1"),
        await analytics.sale(visitor, amount_cents=1, currency="EUR", key="o-1"),
    ]

    assert known == [outcome.event_id for outcome in told]
    assert {c.event_id for c in (await queued(analytics))["meta"]} == {str(one) for one in known}
    with pytest.raises(InvalidInput, match="key"):
        analytics.event_id("sale", " ")


class TestRefund:
    async def test_a_refund_takes_back_from_where_its_sale_stood(self, analytics):
        """Weeks later, and after other visits, the revenue of the sale's own source, page and visit is what goes down."""
        visitor = await visit(analytics, "b", "https://shop.test/?utm_source=ads&utm_medium=cpc")
        await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="o-1")
        await visit(analytics, "b", "https://shop.test/?utm_source=news&utm_medium=email")
        await analytics.sale(visitor, amount_cents=1000, currency="EUR", key="o-2")
        analytics.config.clock.advance(timedelta(days=20))

        await analytics.refund("o-1")

        assert await revenue(analytics, "source") == {("ads",): {"EUR": 0}, ("news",): {"EUR": 1000}}
        assert await revenue(analytics, "entry_path", "event_type") == {
            ("/", "sale"): {"EUR": 5900},
            ("/", "refund"): {"EUR": -4900},
        }
        assert await ltv(analytics, visitor) == {"EUR": 1000}

    async def test_a_refund_was_placed_where_its_order_was(self, analytics):
        """A platform that wants a browser with what a website sold wants none with what is given back of a call's order."""
        visitor = await analytics.resolve({"email": "ada@shop.test"})
        await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="o-1", place="phone")
        await analytics.refund("o-1", 900)

        assert [c.place for c in await rows(analytics)] == ["phone", "phone"]

    async def test_a_refund_changes_no_visit_and_no_status(self, analytics):
        """It is not something that the person did: visits stay as they were, and who bought once is a customer."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="o-1")
        before = [(s.events, s.last_event_at) for s in await sessions(analytics)]

        await analytics.refund("o-1", reason="chargeback")

        assert [(s.events, s.last_event_at) for s in await sessions(analytics)] == before
        assert (await analytics.visitors.get(visitor)).status == "customer"
        assert [(c.kind, c.reason) for c in await rows(analytics)] == [
            ("sale", None),
            ("refund", "chargeback"),
        ]

    async def test_parts_add_up_to_the_whole_and_no_further(self, analytics):
        """Parts come out of what is left; the reporting currency ends at nothing, too."""
        visitor = await visit(analytics, "b")
        sale = await analytics.sale(visitor, amount_cents=10_001, currency="USD", key="o-1")
        await analytics.refund("o-1", 3_333)
        await analytics.refund(sale, 3_333)
        with pytest.raises(
            Conflict, match="3336 USD are more than the 3335 that are left of the sale's 10001"
        ):
            await analytics.refund("o-1", 3_336)

        await analytics.refund(sale.event_id)

        parts = [(c.amount_cents, c.before_cents, c.reporting_cents) for c in await rows(analytics)]
        assert parts[0] == (10_001, None, 9_001)
        assert sorted(parts[1:]) == [(3_333, 0, 3_000), (3_333, 3_333, 2_999), (3_335, 6_666, 3_002)]
        assert await ltv(analytics, visitor) == {"USD": 0}

    async def test_asking_again_is_one_refund(self, analytics):
        """A key is one refund; without one, all that is left is one. Another body under a key is a conflict."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="o-1")
        one = [await analytics.refund("o-1", 300, key="r-1") for _ in range(3)]
        rest = [await analytics.refund("o-1") for _ in range(3)]

        assert [o.status for o in one] == [o.status for o in rest] == ["recorded", "repeated", "repeated"]
        assert await ltv(analytics, visitor) == {"EUR": 0}
        with pytest.raises(Conflict, match="'r-1'"):
            await analytics.refund("o-1", 301, key="r-1")

    async def test_what_was_refused_may_come_again_right(self, analytics):
        """A refused refund leaves nothing behind, also in a transaction of the host's that goes on and commits."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="o-1")
        async with analytics.database.engine.begin() as conn:
            with pytest.raises(Conflict):
                await analytics.refund("o-1", 1_001, key="r-1", connection=conn)

        assert (await analytics.refund("o-1", 1_000, key="r-1")).status == "recorded"

    async def test_what_is_refused_twice_in_one_batch_is_refused_twice(self, analytics):
        """The first one left nothing that the second could repeat."""
        visitor, now = await visit(analytics, "b"), analytics.config.clock()
        sale = await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="o-1")
        too_much = Hit(
            id=UUID(int=1), workspace_id=analytics.config.workspace, received_at=now, occurred_at=now,
            event_type=EventType.REFUND, origin="server", trusted=True, amount_cents=1_001, sale_id=sale.event_id,
            reason="refund", signals=Signals(visitor_id=visitor),
        )  # fmt: skip

        outcomes = await analytics.ingest.now([too_much, too_much, too_much])

        assert [outcome.status for outcome in outcomes] == ["refused"] * 3
        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert len(await rows(analytics)) == 1

    @pytest.mark.parametrize(
        ("asked", "error", "said"),
        [
            pytest.param({"sale": "o-2"}, NotFound, "no sale of the key 'o-2'", id="unknown sale"),
            pytest.param({"sale": UUID(int=5)}, NotFound, "no sale 0000", id="unknown event"),
            pytest.param({"sale": "o-1", "currency": "USD"}, InvalidInput, "was in EUR", id="other currency"),
            pytest.param({"sale": "o-1", "amount_cents": 0}, InvalidInput, "positive", id="nothing"),
            pytest.param({"sale": "o-1", "amount_cents": -5}, InvalidInput, "positive", id="negative"),
            pytest.param({"sale": "o-1", "reason": "theft"}, InvalidInput, "chargeback", id="unknown reason"),
            pytest.param({"sale": "l-1"}, NotFound, "no sale of the key", id="a lead"),
        ],
    )
    async def test_a_wrong_refund_is_told(self, analytics, asked, error, said):
        """What cannot be given back says why."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="o-1")
        await analytics.lead(visitor, key="l-1")

        with pytest.raises(error, match=said):
            await analytics.refund(**asked)

    async def test_of_two_at_once_only_what_is_left_is_given(self, analytics):
        """Refunds of one sale wait for each other."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="o-1")

        found = await asyncio.gather(
            *(analytics.refund("o-1", 400, key=f"r-{n}") for n in range(6)), return_exceptions=True
        )

        assert sorted(type(one).__name__ for one in found) == ["Conflict"] * 4 + ["Outcome"] * 2
        assert await ltv(analytics, visitor) == {"EUR": 200}

    async def test_another_workspaces_sale_is_unknown(self, analytics):
        """A sale is looked for in its own workspace only."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="o-1")

        with pytest.raises(NotFound):
            await analytics.refund("o-1", workspace_id=UUID(int=9))

    @pytest.mark.parametrize("browser", ["b", None], ids=["of a visitor", "of nobody known"])
    async def test_a_refund_may_be_in_the_batch_of_its_sale(self, analytics, browser):
        """One batch, as a worker takes it when it is behind, leaves every row that one hit after the other leaves."""
        said = Signals(anonymous_id=browser)
        now, config = analytics.config.clock.advance(timedelta(hours=1)), analytics.config
        hits = [
            Hit(
                id=config.new_id(), workspace_id=UUID(int=21), received_at=now, occurred_at=now + timedelta(minutes=n),
                event_type=EventType(kind), origin="server", trusted=True, signals=said, place="store" if kind == "sale" else "website", amount_cents=cents, currency="USD",
                url="https://shop.test/?utm_source=ads&fbclid=F1",
            )
            for n, (kind, cents) in enumerate(
                [("pageview", None), ("sale", 1_001), ("refund", 333), ("refund", 700), ("refund", None), ("refund", 1)]
            )
        ]  # fmt: skip
        hits[2:] = [msgspec.structs.replace(one, sale_id=hits[1].id, reason="refund") for one in hits[2:]]
        left = []
        for workspace, size in ((UUID(int=21), 6), (UUID(int=22), 1)):
            await listen(analytics, workspace)
            outcomes: list = []
            for start in range(0, 6, size):
                batch = [
                    msgspec.structs.replace(h, workspace_id=workspace) for h in hits[start : start + size]
                ]
                if start > 1 and browser is None:
                    # Whoever asks later learns from the sale whose it is.
                    whose = Signals(visitor_id=outcomes[1].visitor_id)
                    batch = [msgspec.structs.replace(one, signals=whose) for one in batch]
                outcomes += await analytics.ingest.now(batch)
            left.append((outcomes, await left_in(analytics, workspace, outcomes[1].visitor_id)))

        assert left[0] == left[1]
        outcomes, (person, conversions, _, _) = left[0]
        assert [o.status for o in outcomes] == ["recorded"] * 3 + ["refused", "recorded", "refused"]
        parts = [(c["amount_cents"], c["reporting_cents"]) for c in conversions]
        assert (parts, person.ltv) == ([(1_001, 901), (333, 300), (668, 601)], {"USD": 0})


async def left_in(analytics: Analytics, workspace: UUID, visitor: UUID) -> tuple:
    """The person, and all rows of a workspace but for what differs between any two of them."""
    own = {"workspace_id", "sealed", "target", "id"}
    tables = [
        sorted(
            (
                {name: value for name, value in row._mapping.items() if name not in own}
                for row in await rows(analytics, table)
                if row.workspace_id == workspace
            ),
            key=lambda row: (row["occurred_at"], str(row)),
        )
        for table in ("conversions", "events", "dispatches")
    ]
    person = await analytics.visitors.get(visitor, workspace_id=workspace)
    return msgspec.structs.replace(person, workspace_id=UUID(int=0)), *tables


class TestTransaction:
    @pytest.mark.parametrize("verb", ["sale", "lead", "refund"])
    async def test_it_vanishes_with_the_order(self, analytics, engine, verb):
        """Rolling the host's transaction back leaves no trace in any table, through a session as through a connection."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=1_000, currency="EUR", key="before")
        before = await everything(analytics)

        async def act(connection):
            if verb == "refund":
                await analytics.refund("before", connection=connection)
            elif verb == "lead":
                await analytics.lead(visitor, key="l-1", connection=connection)
            else:
                await analytics.sale(
                    visitor, amount_cents=9, currency="EUR", key="o-1", connection=connection
                )
                await analytics.refund("o-1", 4, connection=connection)

        async with engine.connect() as conn:
            await act(conn)
            await conn.rollback()
        async with AsyncSession(engine) as session:
            await act(session)
            await session.rollback()

        assert await everything(analytics) == before


async def sessions(analytics: Analytics) -> list:
    t = analytics.database.tables.sessions
    async with analytics.database.connect() as conn:
        return (await conn.execute(select(t).order_by(t.c.started_at))).all()


async def everything(analytics: Analytics) -> dict[str, list]:
    """All rows of all tables."""
    found = {}
    async with analytics.database.connect() as conn:
        for table in analytics.database.tables:
            count = await conn.execute(
                text(f"SELECT md5(coalesce(string_agg(CAST(x AS text), '' ORDER BY x), '')) FROM {table} x")
            )
            found[table.name] = count.scalar_one()
    return found


class TestUnattributed:
    async def test_it_counts_and_is_adopted_with_its_touches(self, analytics):
        """An order by telephone is revenue at once; when its caller turns out to be a visitor, their visits have earned it."""
        browser = await visit(analytics, "b", "https://shop.test/?utm_source=ads&utm_medium=cpc&gclid=G1")
        clock = analytics.config.clock
        clock.advance(timedelta(hours=2))
        await analytics.sale(None, amount_cents=4_900, currency="EUR", key="o-1", email="ada@shop.test")
        (sale,) = await rows(analytics)
        assert (sale.touches, sale.adopted_at, await revenue(analytics)) == ([], None, {(): {"EUR": 4_900}})

        clock.advance(timedelta(days=1))
        person = await analytics.identify(browser, email="ada@shop.test")

        (sale,) = await rows(analytics)
        assert sources(sale) == ["google_ads"]
        assert (sale.adopted_at, person.ltv, await revenue(analytics)) == (
            clock(),
            {"EUR": 4_900},
            {(): {"EUR": 4_900}},
        )

    async def test_platforms_hear_of_it_when_it_is_adopted_and_webhooks_at_once(self, analytics):
        """A platform is told of whoever bought, the webhook of the order; neither hears of it twice."""
        await listen(analytics)
        browser = await visit(
            analytics, "b", "https://shop.test/?fbclid=F1", client=Client(user_agent=MACHINE)
        )
        await analytics.sale(None, amount_cents=4_900, currency="EUR", key="o-1", email="ada@shop.test")
        before = await queued(analytics)
        assert (before["meta"], [n.type for n in before["webhook"]]) == ([], ["sale.created"])

        await analytics.identify(browser, email="ada@shop.test")

        after = await queued(analytics)
        assert after["webhook"] == before["webhook"]
        assert [(c.order_key, c.amount_cents, c.person.email) for c in after["meta"]] == [
            ("o-1", 4_900, "ada@shop.test")
        ]
        assert after["meta"][0].signals.clicks["fbclid"].value == "F1"

    async def test_nobody_is_made_of_two_orders(self, analytics):
        """Orders without any name are each somebody else's, and can be told to be somebody's later."""
        first, second = [
            await analytics.sale(amount_cents=100, currency="EUR", key=key, place="store")
            for key in ("o-1", "o-2")
        ]

        assert first.visitor_id != second.visitor_id
        assert (await analytics.identify(first.visitor_id, email="ada@shop.test")).ltv == {"EUR": 100}

    async def test_a_known_address_is_no_stranger(self, analytics):
        """A sale without a visitor, by an address that is a visitor's, is theirs and earned by their visits."""
        visitor = await visit(analytics, "b", "https://shop.test/?utm_source=news&utm_medium=email")
        await analytics.identify(visitor, external_id="ada")

        outcome = await analytics.sale(None, amount_cents=100, currency="EUR", external_id="ada")

        assert outcome.visitor_id == visitor
        assert sources((await rows(analytics))[0]) == ["news"]

    async def test_an_undone_adoption_never_was(self, analytics):
        """When the merge is taken back, sale and refund are unattributed again and the visitor has bought nothing."""
        browser = await visit(analytics, "b", "https://shop.test/?utm_source=ads&utm_medium=cpc")
        await analytics.sale(None, amount_cents=4_900, currency="EUR", key="o-1", email="ada@shop.test")
        await analytics.refund("o-1", 900)
        await analytics.identify(browser, email="ada@shop.test")
        assert [sources(c) for c in await rows(analytics)] == [["ads"], ["ads"]]
        (merge,) = (await analytics.visitors.why(browser)).merges

        one, other = await analytics.visitors.unmerge(merge["id"], reason="a mistake")

        assert [(c.touches, c.adopted_at) for c in await rows(analytics)] == [([], None), ([], None)]
        assert sorted([one.ltv, other.ltv], key=len) == [{}, {"EUR": 4_000}]

    async def test_what_came_after_a_sale_has_not_earned_it(self, analytics):
        """Neither a late report of a sale nor one that is adopted nor a refund has the touches of visits after the sale."""
        sold_at = analytics.config.clock()
        await analytics.sale(None, amount_cents=900, currency="EUR", key="o-1", email="ada@shop.test")
        browser = await visit(analytics, "b", "https://shop.test/?utm_source=ads&utm_medium=cpc")
        await analytics.sale(browser, amount_cents=100, currency="EUR", occurred_at=sold_at)
        await visit(analytics, "b", "https://shop.test/")
        await analytics.refund("o-1")

        await analytics.identify(browser, email="ada@shop.test")

        assert [(c.kind, c.touches) for c in await rows(analytics)] == [
            ("sale", []),
            ("sale", []),
            ("refund", []),
        ]

    async def test_the_hosts_own_merge_adopts_as_well(self, analytics):
        """Who is joined by hand has earned it too."""
        browser = await visit(analytics, "b", "https://shop.test/?utm_source=ads&utm_medium=cpc")
        buyer = await analytics.sale(None, amount_cents=4_900, currency="EUR", email="ada@shop.test")

        await analytics.visitors.merge(browser, buyer.visitor_id, reason="the same")

        assert sources((await rows(analytics))[0]) == ["ads"]

    async def test_a_merge_taken_back_takes_its_touches_along(self, analytics):
        """A sale keeps the touches of the browsers that are still the buyer's."""
        phone = await visit(analytics, "phone", "https://shop.test/?utm_source=social&utm_medium=social")
        laptop = await visit(analytics, "laptop", "https://shop.test/?utm_source=ads&utm_medium=cpc")
        await analytics.visitors.merge(phone, laptop, reason="the same")
        analytics.config.clock.advance(timedelta(days=1))
        await analytics.sale(laptop, amount_cents=100, currency="EUR", key="o-1")
        await analytics.refund("o-1")
        assert [sources(c) for c in await rows(analytics)] == [["social", "ads"]] * 2
        (merge,) = (await analytics.visitors.why(phone)).merges

        await analytics.visitors.unmerge(merge["id"], reason="a mistake")

        assert [sources(c) for c in await rows(analytics)] == [["ads"]] * 2
        assert [await ltv(analytics, v) for v in (phone, laptop)] == [{}, {"EUR": 0}]

    async def test_a_refund_follows_its_sale_out_of_a_shared_visit(self, analytics):
        """A sale that joined the visit of another browser leaves it when the merge is undone, and its refund leaves with it."""
        laptop = await visit(analytics, "laptop", "https://shop.test/?utm_source=old&utm_medium=email")
        phone = await visit(analytics, "phone", "https://shop.test/?utm_source=social&utm_medium=social")
        await analytics.visitors.merge(phone, laptop, reason="the same")
        await analytics.sale(laptop, amount_cents=100, currency="EUR", key="o-1")
        await analytics.refund("o-1", 60)
        assert await revenue(analytics, "source") == {("social",): {"EUR": 40}}
        (merge,) = (await analytics.visitors.why(phone)).merges

        await analytics.visitors.unmerge(merge["id"], reason="a mistake")

        assert await revenue(analytics, "source") == {("direct",): {"EUR": 40}}


class TestForget:
    async def test_nothing_of_it_is_left(self, analytics):
        """Who is forgotten takes sales, refunds and what earned them along; their ids stay, so that no key counts again."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=100, currency="EUR", key="o-1", email="ada@shop.test")
        await analytics.refund("o-1")

        sold = {row.event_id for row in await rows(analytics)}

        await analytics.visitors.forget(visitor, reason="asked")

        emptied = await rows(analytics)
        assert {row.event_id for row in emptied} == sold
        for row in emptied:
            said = {
                name: value
                for name, value in row._mapping.items()
                if name not in ("workspace_id", "event_id")
            }
            assert said == dict.fromkeys(said) | {
                "kind": "forgotten", "visitor_id": UUID(int=0), "occurred_at": analytics.config.clock(),
                "touches": [], "contents": [], "place": "",
            }  # fmt: skip
        other = await visit(analytics, "c")
        again = [
            await analytics.sale(whom, amount_cents=100, currency="EUR", key="o-1") for whom in (other, None)
        ]
        assert [outcome.status for outcome in again] == ["repeated", "repeated"]
        assert await ltv(analytics, other) == {}
        with pytest.raises(NotFound):
            await analytics.refund("o-1", key="again")
        with pytest.raises(NotFound):
            await analytics.refund("o-1")

    async def test_nothing_is_left_of_what_a_machine_bought_for_them(self, analytics):
        """Its row is of nobody and is found by the event; what a machine bought for somebody else stays as it was."""
        now = analytics.config.clock()
        for number, browser in enumerate("bc", start=1):
            machine = Hit(
                id=UUID(int=number), workspace_id=analytics.config.workspace, received_at=now, occurred_at=now,
                event_type=EventType.SALE, origin="server", trusted=True, amount_cents=100, currency="EUR", digest="a.python:1",
                signals=Signals(visitor_id=await visit(analytics, browser)), client=Client(bot="a script", bot_version=1),
            )  # fmt: skip
            (outcome,) = await analytics.ingest.now([machine])
        analytics.config.clock.advance(timedelta(hours=1))

        await analytics.visitors.forget(outcome.visitor_id, reason="asked")

        left = {row.event_id.int: (row.kind, row.digest, row.occurred_at) for row in await rows(analytics)}
        assert left == {1: ("machine", "a.python:1", now), 2: ("forgotten", None, analytics.config.clock())}
        assert [one.status for one in await analytics.ingest.now([machine])] == ["repeated"]


class TestMoney:
    @pytest.mark.parametrize(
        ("cents", "currency", "kept"),
        [
            pytest.param(4_900, "EUR", (4_900, "EUR"), id="the reporting currency"),
            pytest.param(4_900, "USD", (4_410, "EUR"), id="another"),
            pytest.param(4_900, "JPY", (2_989, "EUR"), id="one without decimals"),
            pytest.param(4_900, "CHF", (None, None), id="no rate"),
        ],
    )
    async def test_the_reporting_currency_is_kept_beside_the_charged_one(
        self, analytics, cents, currency, kept
    ):
        """What was charged stands as charged; the rate is that of the sale, and none means none."""
        visitor = await visit(analytics, "b")
        await analytics.sale(visitor, amount_cents=cents, currency=currency)
        (sale,) = await rows(analytics)

        assert (sale.amount_cents, sale.currency) == (cents, currency)
        assert (sale.reporting_cents, sale.reporting_currency) == kept

    async def test_a_failing_rate_loses_no_sale(self, analytics, errors, monkeypatch):
        """What the host's function raises is reported, and the sale is recorded without a rate."""
        monkeypatch.setitem(RATES, "USD", Decimal("NaN"))
        visitor = await visit(analytics, "b")

        await analytics.sale(visitor, amount_cents=100, currency="USD")

        assert [(c.amount_cents, c.reporting_cents) for c in await rows(analytics)] == [(100, None)]
        assert len(errors) == 1

    async def test_the_report_adds_one_currency_and_tells_what_is_left_out(self, analytics):
        """Sales less refunds at the rates of the sales, in one currency; what had no rate is told, not guessed."""
        visitor = await visit(analytics, "b")
        for key, cents, currency in (
            ("a", 1_000, "USD"),
            ("b", 500, "EUR"),
            ("c", 700, "CHF"),
            ("d", 100, "CHF"),
        ):
            await analytics.sale(visitor, amount_cents=cents, currency=currency, key=key)
        await analytics.refund("a", 400)
        await analytics.refund("c")
        now = analytics.config.clock()

        found = await analytics.reports.reporting_revenue((now - timedelta(days=1), now + timedelta(days=1)))

        assert found.rows == (("EUR", 540 + 500),)
        assert (found.meta["left_out"], found.meta["exact"]) == ({"CHF": 3}, False)


class TestSignals:
    async def told(self, analytics, **sale):
        """What Meta is told of a sale to the browser `b`, or why it is not."""
        await listen(analytics)
        visitor = await analytics.resolve({"anonymous_id": "b"})
        await analytics.sale(visitor, amount_cents=100, currency="EUR", **sale)
        (found,) = (await queued(analytics))["meta"]
        return found

    async def test_the_click_is_remembered_with_its_time(self, analytics):
        """Days after the click, and after other visits, click ids and cookies have the time at which they were first seen."""
        client = Client(ip="203.0.113.9", user_agent=MACHINE)
        await visit(
            analytics,
            "b",
            "https://shop.test/?fbclid=F1&email=x",
            client=client,
            platform_signals={"fbp": "fb.1.2.3"},
        )
        clicked = analytics.config.clock()
        await visit(
            analytics, "b", "https://shop.test/again", client=Client(ip="203.0.113.10", user_agent="other")
        )
        await visit(analytics, "b", "https://shop.test/?fbclid=F1", client=client)
        analytics.config.clock.advance(timedelta(days=3))

        told = await self.told(analytics)

        assert (told.signals.clicks["fbclid"].value, told.signals.clicks["fbclid"].at) == ("F1", clicked)
        assert (told.signals.fbp, told.signals.ip, told.signals.user_agent) == (
            "fb.1.2.3",
            "203.0.113.9",
            MACHINE,
        )
        assert told.url == "https://shop.test/"

    async def test_who_says_no_leaves_nothing(self, analytics):
        """What was kept goes with the first no, nothing is kept after it, and the sale is not told."""
        client = Client(user_agent=MACHINE)
        visitor = await visit(analytics, "b", "https://shop.test/?gclid=G1", client=client, consent=GRANTED)
        assert {"gclid", "browser"} == (await analytics.visitors.get(visitor)).platform_signals.keys()
        await visit(analytics, "b", "https://shop.test/?gclid=G2", client=client, consent=DENIED)
        await visit(analytics, "b", "https://shop.test/?gclid=G3", client=client)

        assert (await analytics.visitors.get(visitor)).platform_signals == {}
        assert await self.told(analytics) == ("skipped", "consent_denied")

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            pytest.param({}, GRANTED, id="the last of any browser"),
            pytest.param({"consent": {"ad_user_data": "denied"}}, None, id="the sale's own"),
        ],
    )
    async def test_the_newest_answer_of_any_browser_counts(self, analytics, said, expected):
        """A person's answer is the last one that they gave, wherever; the sale's own goes before it."""
        client = Client(user_agent=MACHINE)
        phone = await visit(analytics, "phone", client=client, consent=GRANTED)
        browser = await visit(analytics, "b", client=client, consent=DENIED)
        await analytics.visitors.merge(phone, browser, reason="the same")
        await visit(analytics, "phone", client=client, consent=GRANTED)

        told = await self.told(analytics, email="ada@shop.test", **said)

        assert told == ("skipped", "consent_denied") if expected is None else told.consent == expected

    @pytest.mark.parametrize("signal", ["0", "1"], ids=["silent", "Sec-GPC"])
    async def test_the_request_that_paid_is_told(self, analytics, signal):
        """With the request, its browser, cookies and consent are the sale's; `Sec-GPC` says no."""
        await visit(analytics, "b", client=Client(user_agent="old"))
        headers = {"host": "shop.test", "user-agent": MACHINE, "cookie": "_fbp=fb.1.5.6", "sec-gpc": signal}
        scope = {
            "type": "http", "path": "/pay", "client": ("203.0.113.7", 1), "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }  # fmt: skip
        object.__setattr__(analytics.config, "respect_privacy_signals", False)
        object.__setattr__(analytics.config, "consent", lambda _scope: GRANTED)

        told = await self.told(analytics, request=scope, email="ada@shop.test")

        if signal == "1":
            assert told == ("skipped", "consent_denied")
        else:
            assert (told.consent, told.signals.user_agent, told.signals.fbp) == (GRANTED, MACHINE, "fb.1.5.6")
