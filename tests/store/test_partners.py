"""Partners from the click to the ledger, on a real PostgreSQL: whose a sale is, what refunds take back, and who is who."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.partners import Partner
from goodanalytics.core.referral import Conversion, News
from goodanalytics.store import commissions

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


async def clicked(analytics: Analytics, browser: str, link: Any, **facts: Any) -> UUID:
    """A browser clicks on a link."""
    click_id = analytics.config.new_id()
    return await seen(
        analytics, browser, link.url, id=click_id, click_id=click_id, event_type=EventType.LINK_CLICK,
        origin="link", link_id=link.id, **facts,
    )  # fmt: skip


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
    buyer = await clicked(analytics, "a", link)
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
    click = hit(
        analytics, "a", link.url, event_type=EventType.LINK_CLICK, origin="link", link_id=link.id
    )
    click = Hit(**{n: getattr(click, n) for n in Hit.__struct_fields__} | {"signals": Signals("a" and None, anonymous_id="a", click_id=click.id)})
    await analytics.ingest.now([click])
    await seen(analytics, "a", click_id=click.id)
    stranger = await seen(analytics, "stranger", click_id=click.id)
    first = (await analytics.partners.referred(stranger)).last
    await seen(analytics, "stranger", "https://shop.test/?via=bob", click_id=click.id)
    await seen(analytics, "stranger", "https://shop.test/more", click_id=click.id)
    after = await analytics.partners.referred(stranger)

    assert first is not None and (first.partner_id, first.way) == (ada.id, "landing")
    assert (after.first.partner_id, after.last.partner_id, after.last.way) == (ada.id, bob.id, "code")
