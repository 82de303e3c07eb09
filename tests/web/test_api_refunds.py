"""`POST /events` for money: refunds, sales of nobody known, what an order says; on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import select

from goodanalytics.config import Config, Principal
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.web.api import room as api

SECRET = {"authorization": "Bearer secret"}
PAGE = {"authorization": "Bearer page"}


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
