"""Partners from the click to the ledger, on a real PostgreSQL: whose a sale is, what refunds take back, and who is who."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, select, text

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.links import Link
from goodanalytics.core.partners import Partner
from goodanalytics.core.referral import Conversion, News, ReferralRules
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.store import commissions
from goodanalytics.store.reclassify import reclassify

TEN_PERCENT = {"kind": "percent", "value": 1000}


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    settings = dataclasses.replace(config, worker=False, link_domains=["go.test"])
    async with Analytics(database_url, settings) as running:
        yield running


def hit(analytics: Analytics, browser: str, url: str = "https://shop.test/", **facts: Any) -> Hit:
    """A pageview of a browser, a second after whatever came before, unless *facts* say otherwise."""
    now = analytics.config.clock.advance(timedelta(seconds=1))  # type: ignore[attr-defined]
    given = {name: facts.pop(name) for name in list(facts) if name in Signals.__struct_fields__}
    defaults = {
        "id": analytics.config.new_id(),
        "workspace_id": analytics.config.workspace,
        "received_at": now,
        "occurred_at": now,
        "event_type": EventType.PAGEVIEW,
        "origin": "browser",
        "url": url,
    }
    return Hit(**(defaults | facts), signals=Signals(**({"anonymous_id": browser} | given)))


async def seen(analytics: Analytics, browser: str, url: str = "https://shop.test/", **facts: Any) -> UUID:
    """A browser looks at a page; the person that it is."""
    (outcome,) = await analytics.ingest.now([hit(analytics, browser, url, **facts)])
    assert outcome.visitor_id is not None
    return outcome.visitor_id


async def clicked(analytics: Analytics, browser: str, link: Link, **facts: Any) -> tuple[UUID, UUID]:
    """A browser clicks on a link: the person that it is, and the click."""
    click_id = analytics.config.new_id()
    person = await seen(
        analytics, browser, link.url, id=click_id, click_id=click_id, event_type=EventType.LINK_CLICK,
        origin="link", link_id=link.id, **facts,
    )  # fmt: skip
    return person, click_id


async def sold(analytics: Analytics, visitor: UUID, cents: int, currency: str = "EUR", **facts: Any) -> UUID:
    """The visitor buys a second later; the sale's event."""
    analytics.config.clock.advance(timedelta(seconds=1))  # type: ignore[attr-defined]
    outcome = await analytics.sale(visitor, amount_cents=cents, currency=currency, **facts)
    return outcome.event_id


async def refunded(
    analytics: Analytics, sale: UUID, visitor: UUID, cents: int, refund: UUID | None = None
) -> UUID:
    """A part of a sale is given back: what the engine tells when its refund is recorded."""
    now = analytics.config.clock.advance(timedelta(seconds=1))  # type: ignore[attr-defined]
    refund = refund or analytics.config.new_id()
    one = Conversion(analytics.config.workspace, refund, "refund", visitor, now, cents, "EUR", sale)
    async with analytics.database.begin() as conn:
        await commissions.record(
            conn, analytics.database.tables, News(conversions=[one]), analytics.config.referral, now
        )
    return refund


async def ledger(analytics: Analytics, **names: Partner) -> list[tuple[Any, ...]]:
    """All entries as (partner, amount, currency, status, reason), in the order of the conversions and refunds."""
    t = analytics.database.tables
    called = {partner.id: name for name, partner in names.items()}
    async with analytics.database.connect() as conn:
        c = t.commissions.c
        rows = await conn.execute(select(t.commissions).order_by(c.occurred_at, c.partner_id, c.id))
        return [
            (called[row.partner_id], row.amount_cents, row.currency, row.status, row.reason) for row in rows
        ]


async def partner(analytics: Analytics, code: str = "ada", **fields: Any) -> Partner:
    return await analytics.partners.create(
        **{"code": code, "name": code.title(), "commission": TEN_PERCENT} | fields
    )


# Whose a sale is -----------------------------------------------------------------------------------------------------


async def test_a_click_on_a_partners_link_earns_with_the_sale(analytics):
    """Ten percent of 49.95 EUR are 5.00, half a cent going to the partner; another visitor's sale earns nothing."""
    ada = await partner(analytics)
    link = await analytics.links.create(url="https://shop.test/", partner_id=ada.id)
    buyer, _ = await clicked(analytics, "a", link)
    await sold(analytics, buyer, 4995)
    await sold(analytics, await seen(analytics, "b"), 4995)

    assert await ledger(analytics, ada=ada) == [("ada", 500, "EUR", "pending", None)]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.test/?via=ADA", ["ada"]),
        ("https://shop.test/p?x=1&ref=ada#top", ["ada"]),
        ("https://shop.test/?ref=ada&via=bob", ["bob"]),
        ("https://shop.test/?via=producthunt&ref=ada", ["ada"]),
        ("https://shop.test/#/p?via=bob", ["bob"]),
        ("https://shop.test/?via=nobody", []),
        ("https://shop.test/?via=ada%00%27--", []),
        ("https://shop.test/?via=", []),
    ],
)
async def test_a_code_in_the_address_of_a_page_is_a_referral(analytics, url, expected):
    """`via` before `ref`, in any case, the first that is a partner's."""
    names = {code: await partner(analytics, code) for code in ("ada", "bob")}
    await sold(analytics, await seen(analytics, "a", url), 1000)

    assert [row[0] for row in await ledger(analytics, **names)] == expected


async def test_a_stranger_who_lands_with_a_handed_on_click_came_by_its_partner(analytics):
    """Only the page that the visit begins with counts: another partner's code in the same visit is later."""
    ada, bob = await partner(analytics), await partner(analytics, "bob")
    link = await analytics.links.create(url="https://shop.test/", partner_id=ada.id)
    _, click_id = await clicked(analytics, "a", link)
    await seen(analytics, "a", click_id=click_id)
    stranger = await seen(analytics, "stranger", click_id=click_id)
    found = await analytics.partners.referred(stranger)
    await seen(analytics, "stranger", "https://shop.test/?via=bob", click_id=click_id)
    await seen(analytics, "stranger", "https://shop.test/more", click_id=click_id)
    after = await analytics.partners.referred(stranger)

    assert (found.last.partner_id, found.last.way, found.last.link_id) == (ada.id, "landing", link.id)
    assert (after.first.partner_id, after.last.partner_id, after.last.way) == (ada.id, bob.id, "code")


@pytest.mark.parametrize(
    ("rules", "days", "expected"),
    [
        (ReferralRules(), (10, 5), ["bob"]),
        (ReferralRules(credit="first"), (10, 5), ["ada"]),
        (ReferralRules(credit="first", window=timedelta(days=7)), (10, 5), ["bob"]),
        (ReferralRules(window=timedelta(days=4)), (10, 5), []),
        (ReferralRules(window=timedelta(days=4)), (29, 5), ["ada"]),
        (ReferralRules(window=timedelta(days=4)), (31, 5), []),
    ],
    ids=["last", "first", "first within the window", "too late", "own window", "own window is over"],
)
async def test_the_rules_say_whose_it_is(analytics, rules, days, expected):
    """Ada's link was clicked first, Bob's later; the third case on, Ada has 30 days of her own where it says so."""
    object.__setattr__(analytics.config, "referral", rules)
    terms = TEN_PERCENT | {"window_days": 30 if days[0] > 10 else None}
    names = {"ada": await partner(analytics, commission=terms), "bob": await partner(analytics, "bob")}
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    analytics.config.clock.advance(timedelta(days=days[0] - days[1]))
    await seen(analytics, "a", "https://shop.test/?via=bob")
    analytics.config.clock.advance(timedelta(days=days[1]))
    await sold(analytics, buyer, 1000)

    assert [row[0] for row in await ledger(analytics, **names)] == expected


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"kind": "percent", "value": 1250}, [(125, "EUR"), (1, "USD")]),
        ({"kind": "percent", "value": 1250, "currency": "USD"}, [(1, "USD")]),
        ({"kind": "fixed", "value": 700, "currency": "GBP"}, [(700, "GBP"), (700, "GBP")]),
        ({"kind": "fixed", "value": 900, "currency": "EUR", "on": "lead"}, [(900, "EUR")]),
        ({"kind": "percent", "value": 1000, "on": "lead"}, []),
        ({"kind": "percent", "value": 0}, []),
    ],
    ids=["percent", "one currency", "fixed", "lead", "percent of nothing", "none"],
)
async def test_terms(analytics, terms, expected):
    """Of a lead, a sale of 10.00 EUR and one of 0.04 USD: half a cent goes to the partner, and nothing is converted."""
    ada = await partner(analytics, commission=terms)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    await analytics.lead(buyer)
    await sold(analytics, buyer, 1000)
    await sold(analytics, buyer, 4, "USD")

    assert [(cents, currency) for _, cents, currency, *_ in await ledger(analytics, ada=ada)] == expected


async def test_claims_of_browsers_and_bots_earn_nothing(analytics):
    """Only what the host vouches for is a conversion."""
    ada = await partner(analytics)
    await seen(analytics, "a", "https://shop.test/?via=ada")
    await seen(analytics, "a", event_type=EventType.SALE, amount_cents=1000, currency="EUR")

    assert await ledger(analytics, ada=ada) == []


async def test_working_it_out_again_adds_nothing(analytics):
    """A sale that is told twice, and everything looked at again: the ledger is the same."""
    ada = await partner(analytics)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    for _ in range(2):
        await sold(analytics, buyer, 1000, key="order-1")
    before = await ledger(analytics, ada=ada)
    async with analytics.database.begin() as conn:
        await commissions.resettle(
            conn, analytics.database.tables, analytics.config.workspace, [buyer], analytics.config.referral,
            analytics.config.clock(),
        )  # fmt: skip

    assert await ledger(analytics, ada=ada) == before == [("ada", 100, "EUR", "pending", None)]


async def test_a_referral_that_comes_late_still_counts(analytics):
    """The sale is told at once, the click waited in the log. One that came after the sale does not count."""
    ada, bob = await partner(analytics), await partner(analytics, "bob")
    buyer = await seen(analytics, "a")
    early = analytics.config.clock.now
    await sold(analytics, buyer, 1000)
    await seen(analytics, "a", "https://shop.test/?via=bob")
    nothing = await ledger(analytics, ada=ada, bob=bob)
    await seen(analytics, "a", "https://shop.test/?via=ada", occurred_at=early)

    assert nothing == []
    assert await ledger(analytics, ada=ada, bob=bob) == [("ada", 100, "EUR", "pending", None)]


async def test_terms_that_change_hold_for_what_comes(analytics):
    """What is in the ledger keeps its amount, also when it is looked at again, and when the partner is closed."""
    ada = await partner(analytics)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    await sold(analytics, buyer, 1000)
    await analytics.partners.update(ada, commission={"kind": "percent", "value": 5000, "window_days": 1})
    await sold(analytics, buyer, 1000)
    await analytics.partners.close(ada)
    await sold(analytics, buyer, 1000)
    other = await seen(analytics, "b")
    await analytics.visitors.merge(buyer, other, reason="same")

    assert await ledger(analytics, ada=ada) == [
        ("ada", 100, "EUR", "pending", None), ("ada", 500, "EUR", "pending", None)
    ]  # fmt: skip


# Who earns nothing ---------------------------------------------------------------------------------------------------


async def _by_email(analytics: Analytics, buyer: UUID, _: Partner) -> None:
    await analytics.identify(buyer, email="Ada@Partner.test")


async def _by_former_email(analytics: Analytics, buyer: UUID, _: Partner) -> None:
    await analytics.identify(buyer, email="Ada@Partner.test")
    await analytics.identify(buyer, email="ada@elsewhere.test")


async def _by_external_id(analytics: Analytics, buyer: UUID, _: Partner) -> None:
    await analytics.identify(buyer, external_id="u-1")


async def _by_visitor(analytics: Analytics, buyer: UUID, ada: Partner) -> None:
    await analytics.partners.update(ada, visitor_id=buyer)


async def _by_merge(analytics: Analytics, buyer: UUID, _: Partner) -> None:
    phone = await seen(analytics, "partner's phone")
    await analytics.identify(phone, email="ada@partner.test")
    await analytics.visitors.merge(buyer, phone, reason="same")


async def _by_name(analytics: Analytics, buyer: UUID, ada: Partner) -> None:
    await analytics.identify(buyer, email="someone@else.test")
    await analytics.partners.update(ada, email="someone@else.test")


WAYS = [_by_email, _by_former_email, _by_external_id, _by_visitor, _by_merge, _by_name]


@pytest.mark.parametrize("tie", WAYS, ids=lambda tie: tie.__name__)
@pytest.mark.parametrize("is_known_before", [True, False], ids=["before", "after"])
async def test_partners_earn_nothing_with_what_they_buy(analytics, tie, is_known_before):
    """Whenever and however it becomes known that buyer and partner are one: the entry is void, and says why."""
    ada = await partner(analytics, email="ADA@partner.test", external_id="u-1")
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    if is_known_before:
        await tie(analytics, buyer, ada)
    await sold(analytics, buyer, 1000)
    if not is_known_before:
        before = await ledger(analytics, ada=ada)
        await tie(analytics, buyer, ada)
        assert before == [("ada", 100, "EUR", "pending", None)]

    assert await ledger(analytics, ada=ada) == [("ada", 100, "EUR", "void", "self_referral")]


async def test_what_a_paused_partner_would_earn_waits_for_approval(analytics):
    """It is void until somebody approves it; that holds, whatever is looked at again; what came before stays pending."""
    ada = await partner(analytics)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    await sold(analytics, buyer, 1000)
    await analytics.partners.pause(ada)
    sale = await sold(analytics, buyer, 2000)
    other = await seen(analytics, "b", "https://shop.test/?via=ada")
    await sold(analytics, other, 3000)
    await analytics.partners.update(ada, status="active")
    await analytics.visitors.merge(buyer, other, reason="same")
    waiting = await analytics.partners.commissions(ada, status="void")
    await refunded(analytics, sale, buyer, 1000)
    entry = await analytics.partners.review(waiting.items[1], "approved", reason="checked", actor="eve")

    assert [one.reason for one in waiting.items] == ["partner_paused", "partner_paused"]
    assert (entry.status, entry.reviewed_by) == ("approved", "eve")
    assert await ledger(analytics, ada=ada) == [
        ("ada", 100, "EUR", "pending", None),
        ("ada", 200, "EUR", "approved", "checked"),
        ("ada", 300, "EUR", "void", "partner_paused"),
        ("ada", -100, "EUR", "approved", "checked"),
    ]


async def test_a_closed_partner_refers_nobody(analytics):
    """What he referred before falls to whoever else did, and his code says nothing any more."""
    ada, bob = await partner(analytics), await partner(analytics, "bob")
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    await seen(analytics, "a", "https://shop.test/?via=bob")
    await analytics.partners.close(bob)
    await seen(analytics, "a", "https://shop.test/?via=bob")
    await sold(analytics, buyer, 1000)

    assert await ledger(analytics, ada=ada, bob=bob) == [("ada", 100, "EUR", "pending", None)]


async def test_workspaces_know_nothing_of_each_other(analytics):
    """The same code elsewhere is another partner, and elsewhere is nobody's here."""
    elsewhere = UUID(int=9)
    ada = await partner(analytics, workspace_id=elsewhere)
    await sold(analytics, await seen(analytics, "a", "https://shop.test/?via=ada"), 1000)

    assert await ledger(analytics, ada=ada) == []
    assert await analytics.partners.by_code("ada") is None
    assert await analytics.partners.get(ada) is None
    with pytest.raises(NotFound):
        await analytics.partners.update(ada, name="mine")


# Refunds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([999], [-100]),
        ([333, 333, 333], [-33, -34, -33]),
        ([1, 998], [0, -100]),
        ([600, 600], [-60, -40]),
        ([2000], [-100]),
    ],
    ids=["whole", "thirds", "a cent first", "more than the sale", "far more"],
)
async def test_refunds_take_back_their_part_and_never_more(analytics, parts, expected):
    """Of 1.00 on a sale of 9.99; told twice, a refund takes its part once."""
    ada = await partner(analytics)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    sale = await sold(analytics, buyer, 999)
    for cents in parts:
        refund = await refunded(analytics, sale, buyer, cents)
        await refunded(analytics, sale, buyer, cents, refund)

    assert [row[1] for row in await ledger(analytics, ada=ada)] == [100, *expected]


async def test_a_fixed_commission_is_taken_back_in_proportion(analytics):
    """Half of a sale in dollars takes half of the commission, in the commission's own currency."""
    ada = await partner(analytics, commission={"kind": "fixed", "value": 501, "currency": "GBP"})
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    sale = await sold(analytics, buyer, 1000, "USD")
    await refunded(analytics, sale, buyer, 500)
    found = await analytics.partners.stats(ada)

    assert [row[1:3] for row in await ledger(analytics, ada=ada)] == [(501, "GBP"), (-251, "GBP")]
    assert found.revenue == {"USD": 500}


async def test_a_refund_of_a_reviewed_or_void_commission_follows_it(analytics):
    """What is taken back from what does not count does not count either."""
    ada = await partner(analytics, email="ada@partner.test")
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    await analytics.identify(buyer, email="ada@partner.test")
    sale = await sold(analytics, buyer, 1000)
    await refunded(analytics, sale, buyer, 400)
    page = await analytics.partners.commissions(ada, kind="reversed")
    void = await ledger(analytics, ada=ada)
    await analytics.partners.review(page.items[0], "approved")
    await refunded(analytics, sale, buyer, 600)

    assert [row[3:] for row in void] == [("void", "self_referral")] * 2
    assert [row[1:4:2] for row in await ledger(analytics, ada=ada)] == [
        (100, "approved"), (-40, "approved"), (-60, "approved")
    ]  # fmt: skip


# Who is who ----------------------------------------------------------------------------------------------------------


async def test_a_merge_lets_the_phones_referral_earn_and_an_unmerge_takes_it_back(analytics):
    """The laptop bought, the phone came by a partner later than by another one: exact there and back, with refunds."""
    ada, bob = await partner(analytics), await partner(analytics, "bob")
    laptop = await seen(analytics, "laptop", "https://shop.test/?via=ada")
    phone = await seen(analytics, "phone", "https://shop.test/?via=bob")
    sale = await sold(analytics, laptop, 1000)
    await refunded(analytics, sale, laptop, 500)
    before = await ledger(analytics, ada=ada, bob=bob)
    await analytics.visitors.merge(laptop, phone, reason="same")
    merged = await ledger(analytics, ada=ada, bob=bob)
    referred = await analytics.partners.referred(phone)
    await refunded(analytics, sale, laptop, 100)
    why = await analytics.visitors.why(laptop)
    await analytics.visitors.unmerge(why.merges[0]["id"], reason="not the same")
    after = await ledger(analytics, ada=ada, bob=bob)

    assert before == [("ada", 100, "EUR", "pending", None), ("ada", -50, "EUR", "pending", None)]
    assert sorted(row for row in merged if row[3] != "void") == [
        ("bob", -50, "EUR", "pending", None), ("bob", 100, "EUR", "pending", None)
    ]  # fmt: skip
    assert (referred.first.partner_id, referred.last.partner_id) == (ada.id, bob.id)
    assert [row for row in after if row[3] != "void"] == [*before, ("ada", -10, "EUR", "pending", None)]
    assert (await analytics.partners.referred(laptop)).last.partner_id == ada.id
    assert (await analytics.partners.referred(phone)).first.partner_id == bob.id


async def test_evidence_that_ties_two_browsers_moves_the_sale_too(analytics):
    """A merge by the worker, with the same names, does what a merge by the host does."""
    ada = await partner(analytics)
    laptop = await seen(analytics, "laptop")
    await seen(analytics, "phone", "https://shop.test/?via=ada")
    await sold(analytics, laptop, 1000)
    await analytics.identify(laptop, external_id="c-1")
    nothing = await ledger(analytics, ada=ada)
    said = {"event_type": EventType.IDENTIFY, "origin": "server", "trusted": True, "url": None}
    await seen(analytics, "phone", external_id="c-1", **said)

    assert nothing == []
    assert await ledger(analytics, ada=ada) == [("ada", 100, "EUR", "pending", None)]


@pytest.mark.parametrize("seed", range(4))
async def test_the_ledger_is_what_the_history_says(analytics, seed):
    """Random arrivals, sales, refunds, merges and unmerges: what counts is what plain Python makes of the end of it."""
    chance = random.Random(seed)
    partners = [await partner(analytics, code) for code in ("ada", "bob", "eve")]
    rows = [await seen(analytics, f"browser {n}") for n in range(5)]
    arrivals: list[tuple[datetime, int, int]] = []
    sales: list[tuple[datetime, int, int, UUID]] = []
    refunds: dict[UUID, list[int]] = {}
    merges: dict[UUID, tuple[int, int]] = {}
    for _ in range(60):
        n, other = chance.sample(range(5), 2)
        match chance.choice(["arrive", "arrive", "late", "sell", "sell", "refund", "merge", "unmerge"]):
            case "arrive" | "late" as how:
                of = chance.randrange(3)
                late = timedelta(hours=chance.randrange(48) if how == "late" else 0)
                at = analytics.config.clock.advance(timedelta(hours=1)) - late
                await seen(
                    analytics, f"browser {n}", f"https://shop.test/?via={partners[of].code}", occurred_at=at
                )
                arrivals.append((at, n, of))
            case "sell":
                cents = chance.randrange(1, 5000)
                sale = await sold(analytics, rows[n], cents)
                sales.append((analytics.config.clock.now, n, cents, sale))
            case "refund" if sales:
                _, n, cents, sale = chance.choice(sales)
                back = chance.randrange(cents + 1)
                # Of a sale that nobody has earned with yet, only the ledger of conversions knows what was given back.
                if sum(refunds.get(sale, [])) + back <= cents and await entries_of(analytics, sale):
                    await refunded(analytics, sale, rows[n], back)
                    refunds.setdefault(sale, []).append(back)
            case "merge" if find(merges, n) != find(merges, other):
                await analytics.visitors.merge(rows[n], rows[other], reason="chance")
                why = await analytics.visitors.why(rows[n])
                (made,) = {
                    UUID(str(one["id"])) for one in why.merges if one["undone_at"] is None
                } - merges.keys()
                merges[made] = (n, other)
            case "unmerge" if merges:
                undone = chance.choice(list(merges))
                await analytics.visitors.unmerge(undone, reason="chance")
                del merges[undone]
    expected: dict[tuple[UUID, UUID], int] = {}
    for at, n, cents, sale in sales:
        came = [one for one in arrivals if find(merges, one[1]) == find(merges, n) and one[0] <= at]
        earned = (cents * 1000 + 5000) // 10_000
        if came and earned:
            back = sum(refunds.get(sale, []))
            taken = (2 * earned * back + cents) // (2 * cents)
            expected[sale, partners[max(came)[2]].id] = earned - taken
    t = analytics.database.tables
    async with analytics.database.connect() as conn:
        c = t.commissions.c
        found = await conn.execute(
            select(c.sale_event_id, c.partner_id, func.sum(c.amount_cents))
            .where(c.status != "void")
            .group_by(c.sale_event_id, c.partner_id)
        )
        counted = {(row[0], row[1]): int(row[2]) for row in found}

    assert counted == expected
    assert len(sales) > 5


async def entries_of(analytics: Analytics, sale: UUID) -> int:
    c = analytics.database.tables.commissions.c
    async with analytics.database.connect() as conn:
        found = await conn.execute(select(func.count(c.id)).where(c.sale_event_id == sale))
        return int(found.scalar_one())


def find(merges: dict[UUID, tuple[int, int]], row: int) -> frozenset[int]:
    """Everybody whom the merges that hold tie to *row*."""
    found = {row}
    for _ in merges:
        found |= {n for pair in merges.values() if not found.isdisjoint(pair) for n in pair}
    return frozenset(found)


async def test_a_verdict_that_is_corrected_takes_the_referral_away(analytics, monkeypatch):
    """What turns out to be a bot's brought nobody; the entry is void and the figures forget it."""
    ada = await partner(analytics)
    crawler = Client(user_agent="Mozilla/5.0 (compatible; NewBot/1.0; +https://bot.test)", bot_version=1)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada", client=crawler)
    await sold(analytics, buyer, 1000)
    async for _ in reclassify(analytics.database, analytics.config):
        pass

    assert await ledger(analytics, ada=ada) == [("ada", 100, "EUR", "void", "not_referred")]
    assert (await analytics.partners.stats(ada)).visitors == 0


async def test_forgetting_keeps_amounts_and_no_trace(analytics):
    """The ledger says what is owed, and not with whom it was earned; the partner's own link to the visitor goes too."""
    ada = await partner(analytics)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    sale = await sold(analytics, buyer, 1000)
    await analytics.partners.update(await partner(analytics, "bob"), visitor_id=buyer)
    before = await ledger(analytics, ada=ada)
    await analytics.visitors.forget(buyer, reason="asked")
    await refunded(analytics, sale, buyer, 500)
    t = analytics.database.tables
    async with analytics.database.connect() as conn:
        traces = [
            (await conn.execute(select(func.count()).where(table.c.visitor_id == buyer))).scalar_one()
            for table in (t.commissions, t.referrals, t.partners)
        ]

    assert await ledger(analytics, ada=ada) == [*before, ("ada", -50, "EUR", "pending", None)]
    assert traces == [0, 0, 0]


# The figures, and the price ------------------------------------------------------------------------------------------


async def test_figures_are_of_people_and_by_currency(analytics):
    """Two browsers of one person count once; void amounts stand apart; currencies are never added."""
    ada = await partner(analytics, email="ada@partner.test")
    link = await analytics.links.create(url="https://shop.test/", partner_id=ada.id)
    one, _ = await clicked(analytics, "a", link)
    two, _ = await clicked(analytics, "b", link)
    await analytics.visitors.merge(one, two, reason="same")
    own = await seen(analytics, "c", "https://shop.test/?via=ada")
    await analytics.identify(own, email="ada@partner.test")
    sale = await sold(analytics, one, 1000)
    await sold(analytics, two, 3000, "USD")
    await sold(analytics, own, 7000)
    half = analytics.config.clock.now + timedelta(microseconds=1)
    await refunded(analytics, sale, one, 250)
    whole = await analytics.partners.stats(ada)
    early = await analytics.partners.stats(ada, period=(None, half))

    assert (whole.clicks, whole.visitors, whole.leads, whole.sales) == (2, 2, 0, 2)
    assert (whole.revenue, early.revenue) == ({"EUR": 750, "USD": 3000}, {"EUR": 1000, "USD": 3000})
    assert [tuple(getattr(e, n) for n in e.__struct_fields__) for e in whole.earnings] == [
        ("EUR", 100, 25, 75, 75, 0, 700), ("USD", 300, 0, 300, 300, 0, 0)
    ]  # fmt: skip


async def test_many_partners_are_asked_for_at_once(analytics):
    """Each has the figures that they have alone, at three statements for all; who sent nobody or is elsewhere has zeros."""
    ada, bob, eve = [await partner(analytics, code) for code in ("ada", "bob", "eve")]
    sale = await sold(analytics, await seen(analytics, "a", "https://shop.test/?via=ada"), 1000)
    buyer = await seen(analytics, "b", "https://shop.test/?via=bob")
    await sold(analytics, buyer, 700, "USD")
    await sold(analytics, buyer, 5000)
    await refunded(analytics, sale, buyer, 250)
    elsewhere = await analytics.partners.create(code="zoe", name="Zoe", workspace_id=UUID(int=9))
    statements: list[str] = []

    def note(_conn, _cursor, statement, *_):
        statements.append(statement)

    engine = analytics.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    found = await analytics.partners.totals([ada, bob.id, str(eve.id), elsewhere])
    event.remove(engine, "before_cursor_execute", note)
    nothing = await analytics.partners.stats(elsewhere, workspace_id=UUID(int=9))

    assert sum("partner_id = ANY" in one for one in statements) == len(statements) == 3
    assert found == {
        **{one.id: await analytics.partners.stats(one) for one in (ada, bob, eve)},
        elsewhere.id: nothing,
    }
    assert [(found[one.id].visitors, found[one.id].sales) for one in (ada, bob, eve)] == [
        (1, 1),
        (1, 2),
        (0, 0),
    ]
    assert found[bob.id].revenue == {"EUR": 5000, "USD": 700}
    assert await analytics.partners.totals([]) == {}


async def test_a_batch_costs_the_same_whatever_its_size(analytics):
    """Nothing for batches that tell partners nothing, one statement where there are no partners, else up to seven."""
    statements: list[str] = []

    @event.listens_for(analytics.database.engine.sync_engine, "before_cursor_execute")
    def note(_conn, _cursor, statement, *_):
        if "partners" in statement or "commissions" in statement or "referrals" in statement:
            statements.append(statement)

    async def cost(*hits: Hit) -> int:
        statements.clear()
        await analytics.ingest.now(hits)
        return len(statements)

    def sale(browser: str) -> Hit:
        facts = {"event_type": EventType.SALE, "origin": "server", "trusted": True, "url": None}
        return hit(analytics, browser, amount_cents=1000, currency="EUR", **facts)

    plain = await cost(hit(analytics, "x"), hit(analytics, "y", "https://shop.test/?utm_source=z"))
    nobody = await cost(hit(analytics, "a", "https://shop.test/?ref=ada"), sale("a"))
    await partner(analytics)
    one = await cost(hit(analytics, "b", "https://shop.test/?ref=ada"), sale("b"))
    many = await cost(
        *(hit(analytics, f"m{n}", "https://shop.test/?via=ada") for n in range(30)),
        *(sale(f"m{n}") for n in range(30)),
    )

    assert (plain, nobody, one) == (0, 1, many)
    assert many == 5


# The partners themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"code": "a b"}, "code"), ({"code": "ä"}, "code"), ({"code": "x" * 65}, "code"), ({"name": " "}, "name"),
        ({"email": "nobody"}, "email"), ({"external_id": "undefined"}, "external_id"), ({"visitor_id": "7"}, "visitor_id"),
        ({"status": "gone"}, "status"), ({"commission": {"value": 10_001}}, "commission.value"),
        ({"commission": {"kind": "fixed", "value": 5}}, "commission"), ({"commission": {"rate": 5}}, "commission"),
        ({"commission": {"kind": "fixed", "value": -5, "currency": "EUR"}}, "commission"),
        ({"commission": {"window_days": 0}}, "commission.window_days"), ({"metadata": [1]}, "metadata"), ({"rate": 1}, "rate"),
    ],
)  # fmt: skip
async def test_a_value_that_is_not_usable_is_named(analytics, fields, where):
    """Each error says which field it is."""
    with pytest.raises(InvalidInput) as caught:
        await partner(analytics, **{"code": "ada"} | fields)

    assert caught.value.where == where


async def test_codes_and_external_ids_are_each_somebodys(analytics):
    """In any case, also of those who are closed; an update is refused like a new one and changes nothing."""
    ada = await partner(analytics, "Ada", external_id="u-1")
    await analytics.partners.close(ada)
    bob = await partner(analytics, "bob", external_id="u-2")
    for attempt in (
        partner(analytics, "ADA"), partner(analytics, "eve", external_id="u-1"),
        analytics.partners.update(bob, code="aDa"), analytics.partners.update(bob, external_id="u-1"),
    ):  # fmt: skip
        with pytest.raises(Conflict):
            await attempt

    assert await analytics.partners.get(bob) == bob
    assert (await analytics.partners.by_code("ADA")).code == "Ada"


async def test_lists_are_walked_by_key_and_searched(analytics):
    """Each once, the newest first; a part of a name, code, address or id finds them."""
    made = [await partner(analytics, f"code{n}", email=f"p{n}@x.test" if n % 2 else None) for n in range(5)]
    first = await analytics.partners.list(limit=3)
    rest = await analytics.partners.list(limit=3, cursor=first.next_cursor)
    found = await analytics.partners.list(search="P3@X")

    assert {one.id for one in (*first.items, *rest.items)} == {one.id for one in made}
    assert (len(first.items), len(rest.items), rest.next_cursor) == (3, 2, None)
    assert [one.code for one in found.items] == ["code3"]
    with pytest.raises(InvalidInput):
        await analytics.partners.commissions(made[0], cursor=first.next_cursor)


async def test_a_review_waits_for_a_refund_and_takes_it_along(analytics):
    """What was added while it waited is reviewed with the rest: no part of a commission is left behind."""
    ada = await partner(analytics)
    buyer = await seen(analytics, "a", "https://shop.test/?via=ada")
    sale = await sold(analytics, buyer, 1000)
    (entry,) = (await analytics.partners.commissions(ada)).items
    now = analytics.config.clock.advance(timedelta(seconds=1))
    refund = Conversion(
        analytics.config.workspace, UUID(int=77), "refund", buyer, now, 500, "EUR", sale_event_id=sale
    )
    async with analytics.database.begin() as conn:
        await commissions.record(
            conn, analytics.database.tables, News(conversions=[refund]), analytics.config.referral, now
        )
        review = asyncio.create_task(analytics.partners.review(entry, "approved"))
        while not await is_waited_for(analytics):
            await asyncio.sleep(0.01)
    await review

    assert [row[1:4:2] for row in await ledger(analytics, ada=ada)] == [(100, "approved"), (-50, "approved")]


async def is_waited_for(analytics: Analytics) -> bool:
    """Whether somebody waits for a lock in this database."""
    asked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    async with analytics.database.connect() as conn:
        return bool((await conn.execute(text(asked))).scalar_one())
