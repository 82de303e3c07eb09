"""The tracker's endpoints: whatever is sent, the answer says what became of it and the batch is never poisoned."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select
from starlette.types import Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.core import tokens
from goodanalytics.core.browsers import id_in
from goodanalytics.core.hits import id_for_key
from goodanalytics.errors import InvalidInput
from tests.conftest import FrozenClock

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
OLD_KEY = "an-old-secret-key-" + "0" * 32
TENANT = UUID("0190a000-0000-7000-8000-0000000000aa")


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>Shop</title>"})


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """Running without its worker, in a workspace of this test's own."""
    own = dataclasses.replace(
        config,
        worker=False,
        rate_limits=None,  # two thousand bodies come from one address within one frozen second
        workspace=uuid.uuid4(),
        workspaces={"tenant.example": TENANT},
        previous_secret_keys=[OLD_KEY],
        own_hosts=["*.shop.example"],
        exclude=["/admin", "/app/*/edit"],
    )
    async with Analytics(shared_database_url, own) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(analytics.wrap(page), client=("203.0.113.7", 1234))
    async with httpx.AsyncClient(
        transport=transport, base_url="https://shop.example", headers={"user-agent": BROWSER}
    ) as browser:
        yield browser


async def send(client: httpx.AsyncClient, body: object, **request: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post("/ga/t/event", content=content, **request)


async def rows(analytics: Analytics, name: str, workspace: UUID | None = None) -> Sequence[Mapping[str, Any]]:
    """The rows of this test's workspace, oldest id first."""
    await analytics.drain()
    table = getattr(analytics.database.tables, name)
    wanted = table.c.workspace_id == (workspace or analytics.config.workspace)
    async with analytics.database.connect() as conn:
        return [dict(row._mapping) for row in await conn.execute(select(table).where(wanted))]


async def total(analytics: Analytics, name: str) -> int:
    table = getattr(analytics.database.tables, name)
    async with analytics.database.connect() as conn:
        return int((await conn.execute(select(func.count()).select_from(table))).scalar_one())


# Good data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["text/plain;charset=UTF-8", "application/json", "application/x-www-form-urlencoded", None],
)
async def test_a_beacon_is_taken_under_any_content_type(
    analytics: Analytics, client: httpx.AsyncClient, content_type: str | None
) -> None:
    """`sendBeacon` says text/plain and fetch says JSON; the body is what counts."""
    answer = await send(
        client,
        {"url": "https://shop.example/a"},
        headers={"content-type": content_type} if content_type else {},
    )

    assert (answer.status_code, answer.headers["x-goodanalytics"], answer.content) == (202, "accepted", b"")
    assert answer.headers["cache-control"] == "no-store"
    (event,) = await rows(analytics, "events")
    assert (event["path"], event["trusted"], event["origin"]) == ("/a", False, "browser")


async def test_a_good_item_beside_bad_ones_is_kept(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """`[good, bad, good, bad token]` keeps the good ones and says what is wrong with the others, each in its place."""
    answer = await send(
        client,
        [{"title": "a"}, {"title": 5}, {"title": "b"}, {"event_type": "identify", "token": "x"}],
    )

    assert answer.status_code == 202
    assert answer.headers["x-goodanalytics"] == "accepted; refused=2"
    assert answer.json()["accepted"] == 2
    assert [(r["index"], r["where"]) for r in answer.json()["refused"]] == [(1, "title"), (3, "token")]
    assert {event["title"] for event in await rows(analytics, "events")} == {"a", "b"}


async def test_the_server_says_who_where_and_when(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """Address, browser and time are what the server saw."""
    await send(client, {})
    (event,) = await rows(analytics, "events")

    assert (str(event["ip"]), event["user_agent"], event["occurred_at"]) == (
        "203.0.113.0/24",
        BROWSER,
        clock.now,
    )


async def test_the_host_chooses_the_workspace(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """A body cannot choose its tenant: the host that was asked does."""
    refused = await send(client, {"workspace_id": str(TENANT)})
    taken = await send(client, {"title": "theirs"}, headers={"host": "tenant.example:8443"})

    assert (refused.status_code, taken.status_code) == (400, 202)
    assert [event["title"] for event in await rows(analytics, "events", TENANT)] == ["theirs"]
    assert await rows(analytics, "events") == []


# Bad data ------------------------------------------------------------------------------------------------------------

BAD = [
    pytest.param(b"", "empty", id="empty"),
    pytest.param(b"hello", "JSON", id="not JSON"),
    pytest.param(b"a=1&b=2", "JSON", id="a form"),
    pytest.param(b'{"url": 5}', "`int`", id="wrong type"),
    pytest.param(b'"text"', "`str`", id="a text"),
    pytest.param(b"[]", "empty", id="no items"),
    pytest.param(b'{"title": "' + b"x" * 65_536 + b'"}', "65536", id="more than 64 KiB"),
    pytest.param(b"[" * 60_000, "nested too deeply", id="deep nesting"),
    pytest.param(b'{"properties": {"a": {"b": {}}}}', "dict values", id="nested properties"),
    pytest.param('{"title": "é"}'.encode("latin-1"), "not UTF-8", id="wrong charset"),
    pytest.param('{"title": "é"}'.encode("utf-16"), "JSON", id="UTF-16"),
    pytest.param(b'{"title": "a\x00b"}', "JSON", id="a bare NUL"),
    pytest.param(b'{"engaged_ms": 1e999}', "out of range", id="absurd number"),
    pytest.param(
        b'{"amount_cents": 99999999999999999999, "currency": "EUR"}', "minor units", id="absurd amount"
    ),
    pytest.param(b'{"scroll_depth": 9999}', "outside 0 to 100", id="absurd depth"),
    pytest.param(b'{"surprise": 1}', "unknown field `surprise`", id="unknown field"),
    pytest.param(b'{"event_type": "explosion"}', "explosion", id="unknown type"),
    pytest.param(b'{"event_type": "refund"}', "cannot come from a browser", id="the host's word"),
    pytest.param(b'{"event_type": "sale"}', "amount", id="a sale without amount"),
    pytest.param(
        b'{"event_type": "custom", "token": "x"}', "takes no token", id="a token where none belongs"
    ),
]


@pytest.mark.parametrize(("body", "reason"), BAD)
async def test_bad_data_is_refused_with_its_reason(
    client: httpx.AsyncClient, body: bytes, reason: str
) -> None:
    """400 with a problem document that says which item, where in it and why; never a 5xx."""
    answer = await send(client, body)

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (400, "Bad data")
    assert [error["index"] for error in problem["errors"]] == [0]
    assert reason in problem["errors"][0]["reason"]
    assert reason in problem["detail"]


CLEANED = [
    pytest.param({"title": "a\x00b"}, "title", "ab", id="NUL"),
    pytest.param(b'{"title": "sale \\ud83d"}', "title", "sale", id="half a surrogate pair"),
    pytest.param({"title": "a\x1b[2Jb"}, "title", "a[2Jb", id="control characters"),
    pytest.param({"title": "x" * 5_000}, "title", "x" * 255, id="long"),
    pytest.param({"url": "javascript:alert(1)"}, "url", None, id="javascript address"),
    pytest.param(
        {"url": "https://bob:pw@shop.example/?token=t&a=1"}, "url", "https://shop.example/?a=1", id="secrets"
    ),
    pytest.param({"url": "https://[::1"}, "host", None, id="broken host"),
    pytest.param({"url": "https://shop.example\\@evil.example/"}, "host", "shop.example", id="backslash"),
    pytest.param({"url": "//////"}, "path", "/", id="slashes"),
    pytest.param({"url": "https://shop.example/" + "ü" * 4_000}, "host", "shop.example", id="long address"),
    pytest.param({"referrer": "https://" + "a." * 500 + "test/"}, "source", "direct", id="long referrer"),
    pytest.param({"properties": {"a\x00": "b\x00"}}, "properties", {"a": "b"}, id="properties"),
    pytest.param({"screen": "\x00", "language": "\x00", "timezone": "x" * 500}, "screen", None, id="client"),
]


@pytest.mark.parametrize(("body", "column", "expected"), CLEANED)
async def test_hostile_data_is_cleaned_and_stored(
    analytics: Analytics, client: httpx.AsyncClient, body: object, column: str, expected: object
) -> None:
    """What can be cleaned is taken and reaches the table."""
    assert (await send(client, body)).status_code == 202
    (event,) = await rows(analytics, "events")

    assert event[column] == expected


def hostile_bodies(chance: random.Random, count: int) -> list[bytes]:
    """Bodies that are nearly right: every field with good, odd and impossible values, scratched here and there."""
    texts = [
        "", " ", "x", "a\x00b", "\ud800", "\udfff\ud800", "\u202e", "\x1b", "x" * 3_000, "ü" * 1_500, "👩‍💻" * 200, "null", "undefined",
        "0", "-1", "{{x}}", "https://shop.example/", "https://shop.example/?utm_source=a&gclid=b#/x?email=c@d.e", "javascript:x",
        "https://[::1", "http://:99999999/", "https://xn--a.test/", "https://ａ.test/%00?%ff=%zz", "//", "\\\\x\\y", "data:,x", "ann@x.test",
        str(uuid.UUID(int=0)), str(uuid.UUID(int=chance.getrandbits(128), version=4)), "android-app://x/y", "EUR", "€€€", "1280x720",
        "'; DROP TABLE events; --", '{"a":1}', "<script>alert(1)</script>", "%", "\\u0000", "a\nb", "\ufeff", "9" * 400, "Infinity",
    ]  # fmt: skip
    numbers: list[Any] = [
        0,
        1,
        -1,
        2**31,
        2**53,
        2**63 - 1,
        2**63,
        -(2**63),
        10**40,
        10**300,
        0.5,
        -0.0,
        1e308,
        1e-320,
        5e15,
    ]
    others: list[Any] = [
        None,
        True,
        False,
        [],
        {},
        [[[]]],
        {"a": {}},
        {"": 1},
        {"a\x00": "\x00"},
        {"k" * 100: "v" * 2_000},
    ]
    types = [
        "pageview",
        "custom",
        "engagement",
        "lead",
        "sale",
        "share",
        "session_start",
        "identify",
        "link_click",
        "refund",
        "x",
    ]
    fields = [
        "event_id", "event_name", "url", "referrer", "title", "currency", "ga_id", "anonymous_id", "fingerprint", "_fbp", "_fbc",
        "_ttp", "_ga_ref", "screen", "language", "timezone", "key", "token", "external_id", "email", "name",
    ]  # fmt: skip

    def item() -> dict[str, Any]:
        made: dict[str, Any] = {name: chance.choice(texts) for name in fields if chance.random() < 0.2}
        made |= {
            name: chance.choice(numbers)
            for name in ("amount_cents", "engaged_ms", "scroll_depth", "touch_points")
            if chance.random() < 0.15
        }
        for name in ("properties", "traits"):
            if chance.random() < 0.3:
                made[name] = {chance.choice(texts): chance.choice(texts + numbers + others) for _ in range(3)}
        if chance.random() < 0.7:
            made["event_type"] = chance.choice(types)
        if chance.random() < 0.3:
            made |= {"amount_cents": 100, "currency": "EUR"}
        if chance.random() < 0.1:
            made[chance.choice([*fields, "nope"])] = chance.choice(numbers + others)
        if chance.random() < 0.8:
            for name in ("event_id", "token"):
                made.pop(name, None)
        return made

    found: list[bytes] = []
    for _ in range(count):
        value: Any = [item() for _ in range(chance.randint(1, 4))] if chance.random() < 0.4 else item()
        body = bytearray(json.dumps(value, ensure_ascii=chance.random() < 0.7).encode(errors="surrogatepass"))
        if chance.random() < 0.15:
            place = chance.randrange(len(body))
            body[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        found.append(bytes(body))
    return found


async def test_two_thousand_hostile_bodies_poison_nothing(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """Every answer is 202 or 400; whatever was accepted is processed, and no hit has to be set aside."""
    before = await total(analytics, "rejected_hits")
    statuses: dict[int, int] = {}
    accepted = 0
    for body in hostile_bodies(random.Random(20261101), 2_000):
        answer = await send(client, body)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        if answer.status_code == 202:
            accepted += answer.json()["accepted"] if answer.content else 1
    await analytics.drain()

    assert set(statuses) == {202, 400}
    assert min(statuses.values()) > 200, "the bodies are neither all good nor all bad"
    assert await total(analytics, "rejected_hits") == before
    assert await total(analytics, "hits") == 0
    assert len(await rows(analytics, "events")) > 200


async def test_hostile_headers_poison_nothing(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Headers and cookies with odd bytes are read or passed over, and what was taken can be stored."""
    before = await total(analytics, "rejected_hits")
    for odd in (
        b"\x80\xff",
        b"\xed\xa0\x80",
        b'"',
        b"a;b=c",
        b"x" * 5_000,
        b"\xe2\x80\xae",
        b"undefined",
        b",",
        b"[::1",
    ):
        for name in (
            "user-agent",
            "accept-language",
            "cookie",
            "referer",
            "origin",
            "sec-ch-ua",
            "x-forwarded-for",
        ):
            value = b"_ga_anon=" + odd + b"; _ga_good=" + odd + b"; _fbp=" + odd if name == "cookie" else odd
            answer = await send(client, {}, headers={name: value})

            assert answer.status_code == 202
    assert len(await rows(analytics, "events")) == 63
    assert await total(analytics, "rejected_hits") == before


# Who it is -----------------------------------------------------------------------------------------------------------


async def test_the_browsers_own_cookie_beats_the_body(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """A page cannot speak for another browser once the browser has its own cookie."""
    client.cookies.set("_ga_anon", "mine")
    await send(client, {"anonymous_id": "yours"})

    assert [(i["kind"], i["value"]) for i in await rows(analytics, "identities")] == [
        ("anonymous_id", "mine")
    ]


async def test_a_first_beacon_sets_the_cookie_that_its_hit_has(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """A browser that never loaded a document of ours is known from its first beacon on."""
    answer = await send(client, {})
    again = await send(client, {})

    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "set-cookie" not in again.headers
    assert [i["value"] for i in await rows(analytics, "identities")] == [id_in(answer.cookies["_ga_anon"])]


async def test_a_page_with_its_own_id_gets_no_cookie(client: httpx.AsyncClient) -> None:
    """Where the body says which browser it is, nothing is set."""
    assert "set-cookie" not in (await send(client, {"anonymous_id": "spa"})).headers


@pytest.mark.parametrize("junk", ["undefined", "null", "0", "00000000-0000-0000-0000-000000000000"])
async def test_a_placeholder_for_a_browser_is_none(
    analytics: Analytics, client: httpx.AsyncClient, junk: str
) -> None:
    """`anonymous_id: "undefined"` makes neither one visitor of all browsers nor one of each hit."""
    for _ in range(3):
        assert (await send(client, {"anonymous_id": junk})).status_code == 202

    assert len(await rows(analytics, "visitors")) == 1
    client.cookies.clear()
    client.cookies.set("_ga_anon", junk)
    await send(client, {})
    assert len(await rows(analytics, "visitors")) == 2


# Tokens --------------------------------------------------------------------------------------------------------------


async def test_an_identity_token_names_the_visitor(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """What the host signed is true; what the page adds to it is not believed."""
    token = analytics.identity_token(external_id="u1", email="Ann@Example.com")
    answer = await send(
        client,
        {
            "event_type": "identify",
            "token": token,
            "external_id": "boss",
            "name": "Boss",
            "traits": {"admin": True},
        },
    )
    (visitor,) = await rows(analytics, "visitors")

    assert answer.status_code == 202
    assert (visitor["external_id"], visitor["email"], visitor["name"], visitor["traits"]) == (
        "u1", "ann@example.com", None, {},
    )  # fmt: skip
    assert visitor["status"] == "identified"


async def test_an_identify_without_a_token_names_nobody(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """A page's claim is an event, and no identity."""
    await send(client, {"event_type": "identify", "external_id": "boss", "email": "boss@example.com"})
    (visitor,) = await rows(analytics, "visitors")

    assert (visitor["external_id"], visitor["email"], visitor["status"]) == (None, None, "anonymous")
    assert {i["kind"] for i in await rows(analytics, "identities")} == {"anonymous_id"}


def tampered(token: str) -> str:
    payload, _, signature = token.partition(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) | {
        "external_id": "boss"
    }
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode() + "." + signature


async def test_tokens_that_are_not_believed(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """Expired, tampered, foreign, for another use or another workspace: each is a 400 that says so."""
    good = analytics.identity_token(external_id="u1")
    foreign = tokens.sign(
        "f" * 40,
        "identity",
        {"external_id": "u1", "workspace_id": str(analytics.config.workspace)},
        clock(),
        timedelta(hours=1),
    )
    bad = {
        "tampered": (tampered(good), "not one that this site signed"),
        "foreign": (foreign, "not one that this site signed"),
        "other use": (analytics.conversion_token(), "not one that this site signed for identity"),
        "other workspace": (
            analytics.identity_token(external_id="u1", workspace_id=TENANT),
            "another workspace",
        ),
        "garbage": ("x" * 3_000, "token"),
    }
    for token, reason in bad.values():
        answer = await send(client, {"event_type": "identify", "token": token})
        assert (answer.status_code, answer.json()["errors"][0]["where"]) == (400, "token")
        assert reason in answer.json()["detail"]
    clock.advance(timedelta(hours=1))
    expired = await send(client, {"event_type": "identify", "token": good})

    assert (expired.status_code, "expired" in expired.json()["detail"]) == (400, True)
    assert await rows(analytics, "events") == []


async def test_a_token_of_a_former_key_is_believed(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """Changing the secret loses nobody whose page was rendered before."""
    claims = {"external_id": "u1", "workspace_id": str(analytics.config.workspace)}
    token = tokens.sign(OLD_KEY, "identity", claims, clock(), timedelta(hours=1))

    assert (await send(client, {"event_type": "identify", "token": token})).status_code == 202


async def test_a_sale_that_a_page_claims_is_kept_and_earns_nothing(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """The claim is there for whoever asks, untrusted and outside the visitor's value."""
    await send(client, {"event_type": "sale", "amount_cents": 99_900, "currency": "EUR"})
    (event,), (visitor,) = await rows(analytics, "events"), await rows(analytics, "visitors")

    assert (event["trusted"], event["amount_cents"]) == (False, 99_900)
    assert (visitor["ltv"], visitor["status"]) == ({}, "anonymous")


async def test_a_signed_sale_earns_what_was_signed(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Amount, currency and key must be those of the token, in any case of the currency."""
    token = analytics.conversion_token(amount_cents=4900, currency="eur", key="order-1")
    sale = {"event_type": "sale", "amount_cents": 4900, "currency": "EUR", "key": "order-1", "token": token}
    for change in ({"amount_cents": 4901}, {"currency": "USD"}, {"key": "order-2"}, {"key": None}):
        assert (await send(client, sale | change)).status_code == 400

    assert (await send(client, sale)).status_code == 202
    (visitor,) = await rows(analytics, "visitors")
    assert (visitor["ltv"], visitor["status"]) == ({"EUR": 4900}, "customer")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"amount_cents": -1, "currency": "EUR"}, id="negative"),
        pytest.param({"amount_cents": 4900}, id="no currency"),
        pytest.param({"amount_cents": 4900, "currency": "euro"}, id="no such currency"),
        pytest.param({"key": " order-1"}, id="outer blank"),
    ],
)
def test_what_no_sale_can_say_is_not_signed(analytics: Analytics, values: dict[str, Any]) -> None:
    """The host hears of it where it makes the token, and not by sales that are missing."""
    with pytest.raises(InvalidInput):
        analytics.conversion_token(**values)


async def test_a_signed_sale_counts_once(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """Sent again under another event_id, and told by the host as well, one order is one sale."""
    token = analytics.conversion_token(amount_cents=4900, currency="EUR", key="order-1")
    for _ in range(3):
        await send(client, {
            "event_id": str(uuid.uuid4()), "event_type": "sale", "amount_cents": 4900, "currency": "EUR", "key": "order-1", "token": token,
        })  # fmt: skip
    await analytics.drain()
    visitor = await analytics.resolve({"anonymous_id": client.cookies["_ga_anon"]})
    outcome = await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="order-1")

    assert (outcome.status, outcome.event_id) == ("repeated", analytics.event_id("sale", "order-1"))
    assert (await analytics.visitors.get(visitor)).ltv == {"EUR": 4900}  # type: ignore[union-attr]


@pytest.mark.parametrize("by", ["key", "event_id"])
async def test_a_claim_does_not_use_up_the_hosts_order(
    analytics: Analytics, client: httpx.AsyncClient, by: str
) -> None:
    """Whoever guesses an order's key before it is placed cannot make the real sale a repetition."""
    order = id_for_key(analytics.config.workspace, "sale", "order-7")
    claim = {"key": "order-7"} if by == "key" else {"event_id": str(order)}
    await send(client, {"event_type": "sale", "amount_cents": 1, "currency": "EUR", **claim})
    await client.get("/ga/t/pixel.gif", params={"event_id": str(order)})
    await analytics.drain()
    visitor = await analytics.resolve({"anonymous_id": "customer"})
    outcome = await analytics.sale(visitor, amount_cents=4900, currency="EUR", key="order-7")

    assert outcome.status == "recorded"


async def test_a_host_may_trust_its_pages(shared_database_url: str, config: Config) -> None:
    """With `trust_browser_conversions` a claimed lead or sale counts."""
    own = dataclasses.replace(config, worker=False, workspace=uuid.uuid4(), trust_browser_conversions=True)
    async with Analytics(shared_database_url, own) as analytics:
        transport = httpx.ASGITransport(analytics.wrap(page))
        async with httpx.AsyncClient(
            transport=transport, base_url="https://shop.example", headers={"user-agent": BROWSER}
        ) as client:
            await send(
                client, {"event_type": "sale", "amount_cents": 5, "currency": "EUR", "email": "a@x.test"}
            )
        (visitor,) = await rows(analytics, "visitors")

        assert (visitor["ltv"], visitor["email"]) == ({"EUR": 5}, None)


# Who is not followed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"sec-gpc": "1"}, "privacy signal"),
        ({"dnt": "1"}, "privacy signal"),
        ({"sec-purpose": "prefetch;prerender"}, "prefetch"),
    ],
)
async def test_who_is_not_followed_leaves_nothing(
    analytics: Analytics, client: httpx.AsyncClient, headers: dict[str, str], reason: str
) -> None:
    """A refused beacon is answered kindly, says why it was dropped, and sets and stores nothing."""
    pixel = await client.get("/ga/t/pixel.gif", headers=headers)
    event = await send(client, {}, headers=headers)
    bad = await send(client, b"nonsense", headers=headers)

    assert [a.status_code for a in (pixel, event, bad)] == [200, 202, 202]
    assert {a.headers["x-goodanalytics"] for a in (pixel, event, bad)} == {f"dropped; reason={reason}"}
    assert not any("set-cookie" in a.headers for a in (pixel, event, bad))
    assert await rows(analytics, "events") == []


@pytest.mark.parametrize(
    ("url", "is_kept"),
    [
        ("https://shop.example/admin", False),
        ("https://shop.example/admin/users?x=1#y", False),
        ("https://shop.example/%61dmin/users", False),
        ("https://shop.example/app/7/edit", False),
        ("https://shop.example/administrator", True),
        ("https://shop.example/?next=/admin", True),
        (None, True),
    ],
)
async def test_beacons_of_excluded_pages_are_dropped(
    analytics: Analytics, client: httpx.AsyncClient, url: str | None, is_kept: bool
) -> None:
    """`exclude` speaks of pages: their beacons are dropped although they come to another path."""
    answer = await send(client, {"url": url})
    pixel = await client.get("/ga/t/pixel.gif", params={"url": url} if url else {})

    expected = "accepted" if is_kept else "dropped; reason=excluded"
    assert [a.headers["x-goodanalytics"] for a in (answer, pixel)] == [expected, expected]
    assert len(await rows(analytics, "events")) == 2 * is_kept


async def test_only_the_excluded_items_of_a_list_are_dropped(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """The other pages of a batch are kept."""
    await send(client, [{"url": "https://shop.example/admin"}, {"url": "https://shop.example/b"}])

    assert [event["path"] for event in await rows(analytics, "events")] == ["/b"]


# Other hosts, methods, the script and the pixel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        ("https://app.shop.example", True),
        ("https://evil.example", False),
        ("https://shop.example.evil.example", False),
        ("https://evilshop.example", False),
        ("null", False),
        ("garbage\x7f", False),
        ("https://shop.example", False),
    ],
)
async def test_only_our_own_hosts_may_read_an_answer(
    client: httpx.AsyncClient, origin: str, is_ours: bool
) -> None:
    """CORS names the origin of an own host, with credentials, and never a star; the page's own host needs none."""
    preflight = await client.request(
        "OPTIONS", "/ga/t/event", headers={"origin": origin, "access-control-request-method": "POST"}
    )
    for answer in (
        preflight,
        await send(client, {}, headers={"origin": origin}),
        await send(client, b"x", headers={"origin": origin}),
    ):
        assert answer.headers.get("access-control-allow-origin") == (origin if is_ours else None)
        assert answer.headers.get("access-control-allow-credentials") == ("true" if is_ours else None)
    assert preflight.status_code == 204


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/ga/t/event", "POST, OPTIONS"),
        ("PUT", "/ga/t/event", "POST, OPTIONS"),
        ("GET", "/ga/t/click", "POST, OPTIONS"),
        ("POST", "/ga/t/pixel.gif", "GET, OPTIONS"),
        ("POST", "/ga/js/good-analytics.js", "GET, HEAD"),
    ],
)
async def test_other_methods_are_told_which_to_use(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    """405 with Allow."""
    answer = await client.request(method, path)

    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    "path", ["/ga/t", "/ga/t/", "/ga/t/nothing", "/ga/t/event/x", "/ga/js/other.js", "/ga/"]
)
async def test_other_paths_are_not_found(client: httpx.AsyncClient, path: str) -> None:
    """404 that names the paths that exist."""
    answer = await client.post(path)

    assert (answer.status_code, "/t/event" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize("name", ["good-analytics.js", "good-analytics.v1.js"])
async def test_the_script_is_fetched_once(client: httpx.AsyncClient, name: str) -> None:
    """It comes with an ETag, is cached by everybody, and is not sent to whoever has it."""
    answer = await client.get(f"/ga/js/{name}")
    again = await client.get(f"/ga/js/{name}", headers={"if-none-match": f'W/"x", {answer.headers["etag"]}'})
    changed = await client.get(f"/ga/js/{name}", headers={"if-none-match": '"other"'})
    head = await client.head(f"/ga/js/{name}")

    assert (answer.status_code, again.status_code, changed.status_code, head.status_code) == (
        200,
        304,
        200,
        200,
    )
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"].startswith("public, max-age=")
    assert (again.content, head.content) == (b"", b"")
    assert "set-cookie" not in answer.headers


async def test_a_pixel_is_a_pageview_of_the_page_that_shows_it(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """Without JavaScript the referring address is the page; the image is a GIF that nobody may keep."""
    answer = await client.get("/ga/t/pixel.gif", headers={"referer": "https://shop.example/a?b=1"})
    (event,) = await rows(analytics, "events")

    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/gif", "no-store")
    assert answer.content[:6] == b"GIF89a"
    assert (event["event_type"], event["path"], event["referrer"]) == ("pageview", "/a", None)


@pytest.mark.parametrize(
    "query", [b"\xff\xfe", b"%ff%00", b"url=%00%ff", b"event_id=x", b"event_id=00000000-0000-0000-0000-000000000000", b"=&=&&", b"url=" + b"x" * 9_000]
)  # fmt: skip
async def test_a_pixel_takes_any_query(analytics: Analytics, query: bytes) -> None:
    """A broken query costs its own values and nothing else."""
    wrapped = analytics.wrap(page)

    async def raw(scope: Scope, receive: Receive, send: Send) -> None:
        await wrapped({**scope, "query_string": query}, receive, send)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(raw), base_url="https://shop.example"
    ) as client:
        answer = await client.get("/ga/t/pixel.gif", headers={"user-agent": BROWSER})

    assert (answer.status_code, answer.headers["x-goodanalytics"]) == (200, "accepted")
    assert len(await rows(analytics, "events")) == 1


async def test_a_pixel_with_one_event_id_is_one_event(
    analytics: Analytics, client: httpx.AsyncClient
) -> None:
    """An image that is loaded again is the same pageview."""
    for _ in range(2):
        await client.get("/ga/t/pixel.gif", params={"event_id": str(UUID(int=99))})

    assert len(await rows(analytics, "events")) == 1


# Clicks that a page reports ------------------------------------------------------------------------------------------


async def test_a_page_reports_a_click_once(analytics: Analytics, client: httpx.AsyncClient) -> None:
    """The answer has the click's id; the same report sent again is the same click."""
    link = await analytics.links.create(domain="shop.example", key="ann", url="https://shop.example/")
    report = {
        "event_id": str(uuid.uuid4()),
        "key": "ann",
        "url": "https://shop.example/?via=ann",
        "referrer": None,
    }
    answers = [await client.post("/ga/t/click", json=report) for _ in range(2)]
    (event,) = await rows(analytics, "events")

    assert [a.status_code for a in answers] == [200, 200]
    assert {a.json()["ga_id"] for a in answers} == {str(event["click_id"])}
    assert (event["event_type"], event["link_id"]) == ("link_click", link.id)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"key": "nobody"}', 404),
        (b'{"key": "a/b"}', 404),
        (b'{"key": "\\u0000"}', 404),
        (b'{"key": 5}', 400),
        (b"{}", 400),
        (b"", 400),
        (b"[" * 50_000, 400),
        (b"\xff", 400),
        (b'{"key": "a", "event_id": "x"}', 400),
        (b'{"key": "a", "nope": 1}', 400),
        (b'{"key": "' + b"x" * 70_000 + b'"}', 400),
    ],
)
async def test_bad_click_reports(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    """An unknown key is 404, an unreadable body 400, each with a problem document."""
    answer = await client.post("/ga/t/click", content=body)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_click_on_an_expired_link_is_gone(
    analytics: Analytics, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """410 from the link's last moment on."""
    await analytics.links.create(
        domain="shop.example", key="old", url="https://shop.example/", expires_at=clock() + timedelta(days=1)
    )
    clock.advance(timedelta(days=1))

    assert (await client.post("/ga/t/click", json={"key": "old"})).status_code == 410


# When the log cannot take it -----------------------------------------------------------------------------------------


async def test_without_a_database_the_answer_is_come_again(
    config: Config, errors: list[BaseException]
) -> None:
    """503 with Retry-After for what is good, 400 for what never will be; the host's pages go on."""
    analytics = Analytics("postgresql+asyncpg://nobody@127.0.0.1:9/none", config)
    transport = httpx.ASGITransport(analytics.wrap(page))
    async with httpx.AsyncClient(
        transport=transport, base_url="https://shop.example", headers={"user-agent": BROWSER}
    ) as client:
        good, pixel = await send(client, {}), await client.get("/ga/t/pixel.gif")
        bad, host = await send(client, b"nonsense"), await client.get("/")
    await analytics.stop()

    assert [a.status_code for a in (good, pixel, bad, host)] == [503, 503, 400, 200]
    assert int(good.headers["retry-after"]) > 0
    assert "same event_id" in good.json()["detail"]
    assert errors
    assert all("127.0.0.1:9" in str(error) for error in errors)


async def test_when_too_much_waits_the_answer_is_come_again(
    analytics: Analytics, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy is 503 with the second after which it makes sense."""
    monkeypatch.setattr("goodanalytics.log.group_commit.WAITING_ROWS", 0)
    answer = await send(client, {})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
