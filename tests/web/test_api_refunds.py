"""`POST /events` for money: refunds, sales of nobody known, what an order says; on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from goodanalytics import Analytics
from goodanalytics.config import Config, Principal
from goodanalytics.errors import Conflict
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.web.api import room as api

SECRET = {"authorization": "Bearer secret"}
PAGE = {"authorization": "Bearer page"}


@pytest.fixture
async def python(engine: AsyncEngine, config: Config) -> AsyncIterator[Analytics]:
    """The same shop, that tells in Python."""
    async with Analytics(engine, dataclasses.replace(config, worker=False)) as running:
        yield running


@pytest.fixture
async def client(config: Config, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with a secret and a publishable key."""
    principals = {"secret": Principal(name="shop"), "page": Principal(name="page", key_type="publishable")}
    settings = dataclasses.replace(config, authenticate=lambda token, _: principals.get(token))
    room = api.app(settings, database, Ingest(settings, database, Hooks(settings.report), None))
    transport = httpx.ASGITransport(room, root_path="/ga/api")
    async with httpx.AsyncClient(
        transport=transport, base_url="http://shop.example/ga/api", headers=SECRET
    ) as caller:
        yield caller


async def conversions(database: Database) -> list:
    table = database.tables.conversions
    async with database.connect() as conn:
        return (await conn.execute(select(table).order_by(table.c.kind.desc(), table.c.amount_cents))).all()


def sale(key: str = "o-1", **facts) -> dict:
    defaults = {
        "event_type": "sale",
        "person_email": "ada@shop.test",
        "amount_cents": 4_900,
        "currency": "EUR",
    }
    return defaults | {"idempotency_key": key} | facts


def refund(**facts) -> dict:
    return {"event_type": "refund", "sale_key": "o-1"} | facts


@pytest.mark.parametrize("first", ["REST", "Python"])
async def test_an_order_that_two_tell_of_is_one_sale(client, database, python, first):
    """
    One key is one sale and one refund over REST and Python, whatever else each says of it.

    Another amount or currency is another sale, and told.
    """

    async def over_rest(**facts) -> tuple[str, object]:
        answer = await client.post("/events", json=sale(properties={"hook": "stripe"}) | facts)
        return {201: "recorded", 200: "repeated", 409: "conflict"}[answer.status_code], answer.json().get(
            "event_id"
        )

    async def in_python(**facts) -> tuple[str, object]:
        said = {"amount_cents": 4_900, "currency": "EUR", "url": "https://shop.test/thanks"} | facts
        try:
            outcome = await python.sale(email="ada@shop.test", key="o-1", **said)
        except Conflict:
            return "conflict", None
        return outcome.status, str(outcome.event_id)

    tellers = [over_rest, in_python] if first == "REST" else [in_python, over_rest]
    told = [await tell() for tell in (*tellers, *tellers)]
    wrong = [
        await tell(**facts) for tell in tellers for facts in ({"amount_cents": 4_901}, {"currency": "USD"})
    ]
    back = await client.post("/events", json=refund(amount_cents=900, idempotency_key="r-1"))
    again = await python.refund("o-1", 900, key="r-1")

    assert [status for status, _ in told] == ["recorded", "repeated", "repeated", "repeated"]
    assert len({event_id for _, event_id in told}) == 1
    assert [status for status, _ in wrong] == ["conflict"] * 4
    assert (back.json()["event_id"], again.status) == (str(again.event_id), "repeated")
    with pytest.raises(Conflict):
        await python.refund("o-1", 901, key="r-1")
    assert [(c.kind, c.amount_cents) for c in await conversions(database)] == [
        ("sale", 4_900),
        ("refund", 900),
    ]


async def test_a_lead_and_a_sale_may_have_one_key(client, database):
    """A key names its own kind of conversion."""
    answers = [await client.post("/events", json=body) for body in (sale(), sale(event_type="lead"))]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [(c.kind, c.key) for c in await conversions(database)] == [("sale", "o-1"), ("lead", "o-1")]


async def test_a_sale_is_given_back_in_parts(client, database):
    """A part, the same part again, too much, and the rest: 201, 200, 409, 201."""
    sold = await client.post("/events", json=sale())
    part = refund(amount_cents=900, idempotency_key="r-1", reason="chargeback")
    answers = [
        await client.post("/events", json=body)
        for body in (
            part,
            part,
            refund(amount_cents=4_001),
            refund(sale_key=None, sale_id=sold.json()["event_id"]),
        )
    ]

    assert [sold.status_code, *(a.status_code for a in answers)] == [201, 201, 200, 409, 201]
    assert answers[2].json()["code"] == "refund_refused"
    assert "4000 that are left" in answers[2].json()["detail"]
    assert [(c.kind, c.amount_cents, c.reason) for c in await conversions(database)] == [
        ("sale", 4_900, None),
        ("refund", 900, "chargeback"),
        ("refund", 4_000, "refund"),
    ]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        pytest.param(SECRET, refund(sale_key="o-2"), 404, id="unknown sale"),
        pytest.param(SECRET, refund(currency="USD", amount_cents=1), 422, id="another currency"),
        pytest.param(SECRET, refund(sale_id="01a19732-0480-731d-9bf5-ad564dc019ad"), 422, id="two sales"),
        pytest.param(PAGE, refund(), 403, id="a page's word"),
        pytest.param(PAGE, sale("o-3"), 403, id="a page's sale to somebody by address"),
    ],
)
async def test_what_cannot_be(client, headers, body, status):
    """Each is refused by its own status."""
    await client.post("/events", json=sale())

    assert (await client.post("/events", json=body, headers=headers)).status_code == status


async def test_a_batch_may_hold_a_sale_and_its_refunds(client, database):
    """In whatever order they stand, and one that is too much does not sink its neighbours."""
    events = [refund(amount_cents=4_000), sale(), refund(amount_cents=1_000), refund(amount_cents=900)]

    answer = await client.post("/events/batch", json={"events": events})

    assert answer.status_code == 207
    assert [r["status"] for r in answer.json()["results"]] == ["ok", "ok", "error", "ok"]
    assert [c.amount_cents for c in await conversions(database)] == [4_900, 900, 4_000]


async def test_what_an_order_says_is_kept(client, database):
    """Its lines, where it was placed, and what the person allowed."""
    order = {
        "contents": [{"id": "sku-1", "quantity": 2, "price_cents": 2_450}],
        "place": "phone",
        "consent": {"ad_user_data": "granted"},
    }

    await client.post("/events", json=sale(**order))

    (kept,) = await conversions(database)
    assert {name: getattr(kept, name) for name in order} == order
