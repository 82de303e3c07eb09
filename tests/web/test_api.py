"""The REST room, as a client sees it: over ASGI, on real PostgreSQL, with the real ingest."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount

from goodanalytics.config import Config, Principal
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.errors import Busy, DatabaseUnavailable, Forbidden
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.web.api import room as api

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ELSEWHERE = UUID(int=7)
SECRET = {"Authorization": "Bearer secret"}
PUBLISHABLE = {
    "Authorization": "Bearer publishable",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
}
PRINCIPALS = {
    "secret": Principal(),
    "publishable": Principal(key_type="publishable"),
    "elsewhere": Principal(workspace_id=ELSEWHERE),
}


@dataclasses.dataclass
class Site:
    """The room with all that a test wants of it."""

    config: Config
    database: Database
    ingest: Ingest
    client: httpx.AsyncClient

    async def visit(self, anonymous_id: str = "browser-1", **values: Any) -> UUID:
        """A visitor that a pageview made; its id."""
        signals = values.pop("signals", Signals(anonymous_id=anonymous_id))
        hit = Hit(
            **{
                "id": uuid4(),
                "workspace_id": self.config.workspace,
                "received_at": self.config.clock(),
                "occurred_at": self.config.clock(),
                "event_type": EventType.PAGEVIEW,
                "origin": "browser",
                "url": "https://shop.example/",
                "signals": signals,
                **values,
            }
        )
        (outcome,) = await self.ingest.now([hit])
        assert outcome.visitor_id is not None
        return outcome.visitor_id

    async def send(self, *, headers: dict[str, str] = SECRET, **body: Any) -> httpx.Response:
        return await self.client.post("/events", json=body, headers=headers)

    async def get(self, path: str, headers: dict[str, str] = SECRET, **query: Any) -> httpx.Response:
        return await self.client.get(path, headers=headers, params=query)

    async def events(self) -> list[Any]:
        async with self.database.connect() as conn:
            rows = await conn.execute(
                text(f"SELECT * FROM {self.database.tables.events} ORDER BY received_at, id")
            )
            return list(rows)


def site_of(config: Config, database: Database) -> Site:
    ingest = Ingest(config, database, Hooks(config.report), None)
    room = api.app(config, database, ingest)
    transport = httpx.ASGITransport(room, root_path="/ga/api")
    return Site(
        config,
        database,
        ingest,
        httpx.AsyncClient(transport=transport, base_url="http://shop.example/ga/api"),
    )


@pytest.fixture
async def site(config: Config, database: Database) -> AsyncIterator[Site]:
    """The room whose host knows three tokens."""
    site = site_of(dataclasses.replace(config, authenticate=lambda token, _: PRINCIPALS.get(token)), database)
    async with site.client:
        yield site


@pytest.fixture
def offline(config: Config) -> Callable[..., httpx.AsyncClient]:
    """A client of a room with the given settings, whose database nothing may reach."""

    def build(**settings: Any) -> httpx.AsyncClient:
        from goodanalytics.store.tables import build as tables_of

        database = Database.open("postgresql://nobody@127.0.0.1:1/none", tables_of("good_analytics"))
        return site_of(dataclasses.replace(config, **settings), database).client

    return build


# Who calls -----------------------------------------------------------------------------------------------------------


async def test_unconfigured_says_what_to_set(offline):
    """Without `authenticate` nobody gets in, and the answer names the setting."""
    response = await offline().get("/visitors", headers=SECRET)

    assert response.status_code == 503
    assert response.json()["code"] == "authentication_not_configured"
    assert "Config(authenticate=" in response.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        pytest.param({"Authorization": "Bearer abc"}, ("abc", "bearer"), id="bearer"),
        pytest.param({"Authorization": "bEARER abc"}, ("abc", "bearer"), id="scheme in any case"),
        pytest.param({"X-Api-Key": "abc"}, ("abc", "api_key"), id="api key"),
        pytest.param(
            {"Authorization": "Bearer abc", "X-Api-Key": "other"}, ("abc", "bearer"), id="bearer wins"
        ),
        pytest.param(
            {"Authorization": "Basic dTpw", "X-Api-Key": "abc"}, ("abc", "api_key"), id="another scheme"
        ),
        pytest.param({"Authorization": "Bearer"}, None, id="no token"),
        pytest.param({"Authorization": "Bearer    ", "X-Api-Key": "abc"}, None, id="a blank token"),
        pytest.param({"X-Api-Key": " "}, None, id="a blank key"),
        pytest.param({"Authorization": "Bearer " + "a" * 5_000}, None, id="an endless token"),
        pytest.param({}, None, id="nothing"),
    ],
)
async def test_which_credential_is_asked(offline, headers, asked):
    """One credential is handed to the host with its kind; without one the host is not asked at all."""
    seen: list[tuple[str, str]] = []

    async def authenticate(token: str, kind: str) -> None:
        seen.append((token, kind))

    response = await offline(authenticate=authenticate).get("/visitors", headers=headers)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert seen == ([asked] if asked else [])


async def test_two_authorization_headers_are_refused(offline):
    """Two parties that read one header each must not see two callers."""
    client = offline(authenticate=lambda *_: Principal())

    response = await client.get(
        "/visitors", headers=[("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    )

    assert response.status_code == 401


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda: True, id="not a principal"),
        pytest.param(lambda: {"workspace_id": "x"}, id="a dict"),
        pytest.param(lambda: Principal(workspace_id="x"), id="a workspace that is no UUID"),
        pytest.param(lambda: Principal(key_type="root"), id="an unknown kind of key"),
        pytest.param(lambda: 1 / 0, id="a failure"),
    ],
)
async def test_broken_callback(offline, errors, answer):
    """A host's function that fails is the host's to repair: reported to it, and told to nobody else."""
    client = offline(authenticate=lambda *_: answer())

    response = await client.get("/visitors", headers={"X-Api-Key": "hunter2"})

    assert response.status_code == 500
    assert response.json()["detail"] == "Something failed here. It is logged under this request's id."
    assert len(errors) == 1


async def test_callback_may_forbid(offline, errors):
    """`Forbidden` from the host's function is its answer, not its failure."""

    def authenticate(*_: str) -> None:
        raise Forbidden("This key is suspended.")

    response = await offline(authenticate=authenticate).get("/visitors", headers=SECRET)

    assert (response.status_code, response.json()["detail"]) == (403, "This key is suspended.")
    assert errors == []


@pytest.mark.parametrize(
    "operation", [o for o in api.OPERATIONS if o.access == "secret"], ids=lambda o: o.name
)
async def test_publishable_key_reads_nothing(offline, operation):
    """Whoever reads a page's source holds its key, so that key opens nothing but the way in."""
    path = operation.path.replace("{visitor_id}", str(uuid4())).replace("{external_id:path}", "x")

    response = await offline(authenticate=lambda *_: Principal(key_type="publishable")).request(
        operation.method, path, headers=PUBLISHABLE, json={}
    )

    assert response.status_code == 403


# Refusals ------------------------------------------------------------------------------------------------------------


async def test_problem_has_all_members(site):
    """A refusal is an RFC 9457 problem with our code, the wrong value's place and the request's id."""
    response = await site.get("/visitors", limit="0")

    body = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-Id"] == body.pop("request_id")
    assert response.headers["Cache-Control"] == "no-store"
    assert body == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "limit: Expected `int` >= 1",
        "code": "invalid_input",
        "errors": [{"loc": "limit", "msg": "Expected `int` >= 1", "code": "invalid_input"}],
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nothing", 404, None),
        ("GET", "/visitors/", 404, None),
        ("GET", "/events", 405, "POST"),
        ("DELETE", "/visitors", 405, "GET, HEAD"),
        ("PUT", f"/visitors/{UUID(int=1)}/identify", 405, "POST"),
        ("POST", "/openapi.json", 405, "GET, HEAD"),
    ],
)
async def test_router_refuses_as_a_problem(offline, method, path, status, allow):
    """An unknown path or method is a problem too, and 405 names what is allowed."""
    response = await offline().request(method, path)

    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.headers.get("Allow") == allow


async def test_lost_database_tells_nothing(offline, errors):
    """A database that is away is a 503 to try again; its address is for the operator only."""
    response = await offline(authenticate=lambda *_: Principal()).get("/visitors", headers=SECRET)

    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response.headers["Retry-After"] == "5"
    assert "127.0.0.1" not in response.text
    assert [type(error) for error in errors] == [DatabaseUnavailable]


@dataclasses.dataclass
class Failing:
    """An engine that fails in one way; the ingest itself is tested elsewhere."""

    error: Exception

    async def now(self, *_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "reported"),
    [
        pytest.param(Busy(retry_after=3), 503, 0, id="busy"),
        pytest.param(ZeroDivisionError("password=hunter2"), 500, 1, id="a bug"),
    ],
)
async def test_failures_of_the_engine(site, errors, error, status, reported):
    """What goes wrong inside reaches neither the host app nor the caller; a bug reaches the operator."""
    await site.visit()
    site.client._transport = httpx.ASGITransport(api.app(site.config, site.database, Failing(error)))
    site.client.base_url = "http://shop.example"

    response = await site.send(event_type="lead", anonymous_id="browser-1")

    assert response.status_code == status
    assert "hunter2" not in response.text
    assert response.headers.get("Retry-After") == ("3" if status == 503 else None)
    assert len(errors) == reported


async def test_host_handlers_stay_out(config, database):
    """A host that answers all 404s its own way does not answer ours."""

    async def host_answer(*_: Any) -> None:
        raise AssertionError("the host was asked")

    inner = api.app(config, database, Ingest(config, database, Hooks(config.report), None))
    host = Starlette(
        routes=[Mount("/ga/api", inner)], exception_handlers={404: host_answer, 405: host_answer}
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(host), base_url="http://shop.example"
    ) as client:
        answers = [await client.get("/ga/api/nothing"), await client.get("/ga/api/events")]

    assert [answer.status_code for answer in answers] == [404, 405]


@pytest.mark.parametrize(
    ("headers", "content", "status", "place"),
    [
        pytest.param({"Content-Type": "text/plain"}, b"{}", 415, "Content-Type", id="text"),
        pytest.param({}, b"{}", 415, "Content-Type", id="no type"),
        pytest.param(
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            b"{}",
            415,
            "Content-Encoding",
            id="gzip",
        ),
        pytest.param({"Content-Type": "application/json"}, b" " * 65_537, 413, None, id="too large"),
        pytest.param({"Content-Type": "application/json"}, b"{", 400, None, id="cut off"),
        pytest.param({"Content-Type": "application/json"}, b"", 400, None, id="empty"),
        pytest.param(
            {"Content-Type": "application/json"}, b'{"event_type":"lead","url":"\xff"}', 400, None, id="latin"
        ),
        pytest.param({"Content-Type": "application/json"}, b"[" * 60_000, 422, None, id="deep"),
        pytest.param({"Content-Type": "application/json; charset=utf-8"}, b"[]", 422, None, id="a list"),
    ],
)
async def test_unreadable_bodies(offline, headers, content, status, place):
    """A body is refused before it is understood: by its type, its size, its syntax."""
    client = offline(authenticate=lambda *_: Principal())

    response = await client.post("/events", headers=SECRET | headers, content=content)

    assert response.status_code == status
    assert [error["loc"] for error in response.json()["errors"]] == ([place] if place else [])


async def test_large_body_is_not_read_to_its_end(config, database):
    """A body without a length is cut off at the limit, not collected first."""
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b" " * 60_000, "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    settings = dataclasses.replace(config, authenticate=lambda *_: Principal())
    room = api.app(settings, database, Ingest(settings, database, Hooks(settings.report), None))
    headers = [(b"x-api-key", b"k"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/events",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
    }
    await room(scope, receive, send)

    assert (sent[0]["status"], taken) == (413, 2)


# Events --------------------------------------------------------------------------------------------------------------


async def test_event_is_recorded(site):
    """An event of a known visitor is written whole, vouched for by the secret key."""
    visitor_id = await site.visit()

    response = await site.send(
        event_type="sale",
        visitor_id=str(visitor_id),
        event_name="Order",
        url="https://shop.example/thanks?utm_source=mail",
        amount_cents=4900,
        currency="eur",
        properties={"plan": "yearly", "seats": 3, "gift": False},
        context={"ip": "203.0.113.7", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"},
        connector_signals={"_fbp": "fb.1.2.3", "gclid": "abc"},
        person_email="Ada@Example.com",
        person_name="Ada",
    )

    assert response.status_code == 201
    event = next(row for row in await site.events() if row.event_type == "sale")
    assert UUID(response.json()["event_id"]) == event.id
    assert (event.visitor_id, event.origin, event.trusted) == (visitor_id, "server", True)
    assert (event.amount_cents, event.currency, event.event_name) == (4900, "EUR", "Order")
    assert event.properties == {"plan": "yearly", "seats": 3, "gift": False}
    assert (str(event.ip), event.browser) == ("203.0.113.0/24", "Firefox")
    person = (await site.get(f"/visitors/{visitor_id}")).json()
    assert (person["person_email"], person["person_name"], person["ltv"]) == (
        "ada@example.com",
        "Ada",
        {"EUR": 4900},
    )


@pytest.mark.parametrize(
    "pointer",
    [
        pytest.param({"visitor_id": "{id}"}, id="visitor_id"),
        pytest.param({"person_external_id": "user-42"}, id="person_external_id"),
        pytest.param({"ga_id": str(UUID(int=99))}, id="ga_id"),
        pytest.param({"anonymous_id": "browser-1"}, id="anonymous_id"),
        pytest.param(
            {"ga_id": str(UUID(int=98)), "anonymous_id": "browser-1"}, id="the second of two weak ones"
        ),
    ],
)
async def test_pointers(site, pointer):
    """Each way to name a visitor finds the same one."""
    signals = Signals(anonymous_id="browser-1", external_id="user-42", click_id=UUID(int=99))
    visitor_id = await site.visit(signals=signals, trusted=True)
    body = {name: value.replace("{id}", str(visitor_id)) for name, value in pointer.items()}

    response = await site.send(event_type="custom", event_name="Export", **body)

    assert response.status_code == 201
    assert {row.visitor_id for row in await site.events()} == {visitor_id}


@pytest.mark.parametrize(
    "pointer",
    [
        pytest.param({"visitor_id": str(UUID(int=5))}, id="visitor_id"),
        pytest.param(
            {"person_external_id": "user-1", "anonymous_id": "browser-1"}, id="no fall back to a weaker one"
        ),
        pytest.param({"ga_id": str(UUID(int=5))}, id="ga_id"),
        pytest.param({"anonymous_id": "browser-2"}, id="anonymous_id"),
    ],
)
async def test_unknown_visitor_is_not_made(site, pointer):
    """A look-up that finds nobody is a 404 and leaves no trace."""
    await site.visit()

    response = await site.send(event_type="custom", **pointer)

    assert response.status_code == 404
    assert len((await site.get("/visitors")).json()["data"]) == 1
    assert len(await site.events()) == 1


async def test_other_workspace_is_unknown(site):
    """A visitor of another workspace cannot be told from one that does not exist."""
    visitor_id = await site.visit()

    body = {"event_type": "custom", "visitor_id": str(visitor_id)}
    written = await site.send(headers={"X-Api-Key": "elsewhere"}, **body)
    read = await site.get(f"/visitors/{visitor_id}", {"X-Api-Key": "elsewhere"})

    assert (written.status_code, read.status_code) == (404, 404)


async def test_external_id_stays_with_its_person(site):
    """An event for one visitor does not name it after another: the first pointer alone decides."""
    first = await site.visit(
        "browser-1", signals=Signals(anonymous_id="browser-1", external_id="ada"), trusted=True
    )
    second = await site.visit("browser-2")

    await site.send(event_type="custom", visitor_id=str(second), person_external_id="ada")

    assert {v["id"] for v in (await site.get("/visitors")).json()["data"]} == {str(first), str(second)}


WRONG = [
    pytest.param({}, "event_type", id="no type"),
    pytest.param({"event_type": "refund", "anonymous_id": "a"}, "sale_key", id="refund of nothing"),
    pytest.param({"event_type": "lead", "sale_key": "o-1", "anonymous_id": "a"}, "sale_key", id="no refund"),
    pytest.param(
        {"event_type": "refund", "sale_key": "o-1", "amount_cents": -5}, "amount_cents", id="negative refund"
    ),
    pytest.param({"event_type": "lead"}, None, id="nobody"),
    pytest.param({"event_type": "lead", "anonymous_id": "a", "amount": 1}, "amount", id="unknown name"),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "context": {"ua": ""}}, "context.ua", id="unknown inside"
    ),
    pytest.param({"event_type": "lead", "anonymous_id": "\u0000 "}, "anonymous_id", id="blank pointer"),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a" * 129}, "anonymous_id", id="a name that would be cut"
    ),
    pytest.param({"event_type": "lead", "visitor_id": "42"}, "visitor_id", id="no UUID"),
    pytest.param({"event_type": "sale", "anonymous_id": "a"}, "amount_cents", id="sale without amount"),
    pytest.param(
        {"event_type": "sale", "anonymous_id": "a", "amount_cents": 1}, "currency", id="no currency"
    ),
    pytest.param(
        {"event_type": "sale", "anonymous_id": "a", "amount_cents": -1, "currency": "EUR"},
        "amount_cents",
        id="negative",
    ),
    pytest.param({"event_type": "lead", "anonymous_id": "a", "currency": "Euro"}, "currency", id="currency"),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "properties": {str(n): n for n in range(51)}},
        "properties",
        id="51",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "properties": {"big": 2**63}},
        "properties.big",
        id="beyond bigint",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "properties": {"a": []}}, "properties[...]", id="nested"
    ),
    pytest.param(
        {"event_type": "engagement", "anonymous_id": "a", "scroll_depth": 101}, "scroll_depth", id="scroll"
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "context": {"ip": "1.2.3"}}, "context.ip", id="ip"
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "context": {"ip": "fe80::1%lo"}}, "context.ip", id="zone"
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "timestamp": "2026-11-01T12:00:00"},
        "timestamp",
        id="naive",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "timestamp": "2026-11-01T12:05:01Z"},
        "timestamp",
        id="future",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "timestamp": "2021-10-01T00:00:00Z"},
        "timestamp",
        id="past",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "timestamp": "0001-01-01T00:00:00+14:00"},
        "timestamp",
        id="1",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "idempotency_key": ""}, "idempotency_key", id="empty key"
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "idempotency_key": "a\u0000"},
        "idempotency_key",
        id="NUL key",
    ),
    pytest.param(
        {"event_type": "lead", "anonymous_id": "a", "connector_signals": {"fbp": "a b"}},
        "connector_signals.fbp",
        id="fbp",
    ),
]


@pytest.mark.parametrize(("body", "place"), WRONG)
async def test_wrong_values(offline, body, place):
    """A wrong value is refused with its place, before the database is asked for anything."""
    response = await offline(authenticate=lambda *_: Principal()).post("/events", headers=SECRET, json=body)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == ([place] if place else [])


async def test_timestamp_is_when_it_happened(site):
    """A past event lies at its own time; a clock that is a little ahead means now."""
    await site.visit()

    await site.send(
        event_type="custom",
        event_name="past",
        anonymous_id="browser-1",
        timestamp="2026-10-31T23:30:00+02:00",
    )
    await site.send(
        event_type="custom", event_name="ahead", anonymous_id="browser-1", timestamp="2026-11-01T12:04:00Z"
    )

    found = {row.event_name: row.occurred_at for row in await site.events() if row.event_type == "custom"}
    assert found == {"past": datetime(2026, 10, 31, 21, 30, tzinfo=UTC), "ahead": NOW}


async def test_callers_address_is_not_the_visitors(site):
    """A server's own address and user agent say nothing about its visitor."""
    await site.visit()

    await site.send(event_type="custom", anonymous_id="browser-1")

    (event,) = [row for row in await site.events() if row.event_type == "custom"]
    assert (event.ip, event.user_agent, event.bot) == (None, None, None)


async def test_bot_in_context_is_marked(site):
    """A pageview that a server relays for a crawler is kept as a crawler's."""
    await site.visit()

    context = {"user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}
    await site.send(
        event_type="pageview", url="https://shop.example/x", anonymous_id="browser-1", context=context
    )

    assert {row.path: row.bot for row in await site.events()} == {"/": None, "/x": "crawler: Googlebot"}


async def test_publishable_key_only_claims(site):
    """What a page says with its key is kept as a browser's claim and earns nothing."""
    visitor_id = await site.visit()

    response = await site.send(
        headers=PUBLISHABLE, event_type="sale", anonymous_id="browser-1", amount_cents=100, currency="EUR"
    )

    assert response.status_code == 201
    (event,) = [row for row in await site.events() if row.event_type == "sale"]
    assert (event.origin, event.trusted) == ("browser", False)
    assert (await site.get(f"/visitors/{visitor_id}")).json()["ltv"] == {}


@pytest.mark.parametrize(
    "more",
    [
        {"timestamp": "2026-11-01T11:00:00Z"},
        {"context": {"ip": "203.0.113.7"}},
        {"person_external_id": "user-42"},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_publishable_key_may_not_say(offline, more):
    """A page's key neither chooses time and place nor tries out external ids."""
    client = offline(authenticate=lambda *_: Principal(key_type="publishable"))

    response = await client.post(
        "/events", headers=PUBLISHABLE, json={"event_type": "custom", "anonymous_id": "a", **more}
    )

    assert response.status_code == 403
    assert next(iter(more)) in response.json()["detail"]


async def test_publishable_key_merges_nobody(site):
    """A page that names one person's id and another's browser does not make one person of them."""
    first, second = await site.visit("browser-1"), await site.visit("browser-2")

    await site.send(headers=PUBLISHABLE, event_type="custom", visitor_id=str(first), anonymous_id="browser-2")

    assert {v["id"] for v in (await site.get("/visitors")).json()["data"]} == {str(first), str(second)}


async def test_publishable_key_shows_its_browser(site):
    """Behind a publishable key the caller is the visitor, seen as the tracker sees it."""
    await site.visit()

    await site.send(headers=PUBLISHABLE, event_type="custom", anonymous_id="browser-1")

    (event,) = [row for row in await site.events() if row.event_type == "custom"]
    assert (str(event.ip), event.browser) == ("127.0.0.0/24", "Firefox")


async def test_privacy_signal_is_heard(site):
    """A browser that asks not to be followed is not followed by this way in either."""
    await site.visit()

    response = await site.send(
        headers=PUBLISHABLE | {"Sec-GPC": "1"}, event_type="custom", anonymous_id="browser-1"
    )

    assert (response.status_code, response.json()["code"]) == (403, "not_followed")
    assert len(await site.events()) == 1


async def test_click_is_kept_on_the_event(site):
    """An event that a server ties to a click carries that click."""
    click = UUID(int=99)
    await site.visit(
        id=click, event_type=EventType.LINK_CLICK, origin="link", signals=Signals(click_id=click)
    )

    await site.send(event_type="lead", ga_id=str(click))

    assert {row.event_type: row.click_id for row in await site.events()} == {
        "link_click": click,
        "lead": click,
    }


async def test_publishable_key_takes_no_landing(site):
    """The click of a short link still meets the browser that lands with it, whatever a page said in between."""
    click = UUID(int=99)
    clicked = await site.visit(
        id=click, event_type=EventType.LINK_CLICK, origin="link", signals=Signals(click_id=click)
    )

    await site.send(headers=PUBLISHABLE, event_type="custom", ga_id=str(click))
    landed = await site.visit(signals=Signals(anonymous_id="browser-1", click_id=click))

    assert landed == clicked


# Keys ----------------------------------------------------------------------------------------------------------------


async def test_repeated_key_is_done_once(site):
    """The same key and body again is answered with the first event, however the JSON is written."""
    await site.visit()
    first = await site.send(
        event_type="lead", anonymous_id="browser-1", idempotency_key="k", properties={"a": 1, "b": 2}
    )
    again = await site.client.post(
        "/events",
        headers=SECRET | {"Content-Type": "application/json", "Idempotency-Key": '"k"'},
        content=b'{"properties": {"b": 2,  "a": 1}, "anonymous_id": "browser-1", "event_type": "lead"}',
    )

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert [row.key for row in await site.events() if row.event_type == "lead"] == ["k"]


async def test_key_with_another_body_is_a_conflict(site):
    """A used key with another body is a mistake that must not pass for a repetition."""
    await site.visit()
    await site.send(event_type="lead", anonymous_id="browser-1", idempotency_key="k")
    await site.send(event_type="custom", anonymous_id="browser-1", idempotency_key="k")

    responses = [
        await site.send(event_type="lead", anonymous_id="browser-1", idempotency_key="k", event_name="Demo"),
        await site.send(event_type="share", anonymous_id="browser-1", idempotency_key="k"),
    ]

    assert [(r.status_code, r.json()["code"]) for r in responses] == [(409, "idempotency_key_reused")] * 2


async def test_two_different_keys_are_refused(site):
    """Header and body must agree on the key."""
    response = await site.send(
        headers=SECRET | {"Idempotency-Key": "a"},
        event_type="lead",
        anonymous_id="browser-1",
        idempotency_key="b",
    )

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, "idempotency_key")


async def test_page_cannot_occupy_a_servers_key(site):
    """An order number that a page used first is still free for the server."""
    await site.visit()
    await site.send(
        headers=PUBLISHABLE, event_type="lead", anonymous_id="browser-1", idempotency_key="order-1"
    )

    response = await site.send(event_type="lead", anonymous_id="browser-1", idempotency_key="order-1")

    assert response.status_code == 201


# Batches -------------------------------------------------------------------------------------------------------------


async def test_batch_of_sound_events(site):
    """A batch whose items are all right is a 201."""
    await site.visit()
    item = {"event_type": "custom", "anonymous_id": "browser-1"}

    response = await site.client.post("/events/batch", headers=SECRET, json={"events": [item] * 100})

    assert response.status_code == 201
    assert [result["index"] for result in response.json()["results"]] == list(range(100))
    assert {result["status"] for result in response.json()["results"]} == {"ok"}


async def test_bad_items_do_not_sink_their_neighbours(site):
    """Each item gets its own answer in its own place, and the sound ones are written."""
    await site.visit()
    sound = {"event_type": "custom", "anonymous_id": "browser-1", "idempotency_key": "k"}
    await site.send(**sound)
    items = [
        {"event_type": "lead", "anonymous_id": "browser-1"},
        sound,
        {"event_type": "lead", "anonymous_id": "nobody"},
        "text",
        {"event_type": "sale", "anonymous_id": "browser-1"},
        {**sound, "event_name": "another body"},
        {"event_type": "custom", "anonymous_id": "browser-1", "title": "x" * 70_000},
    ]

    response = await site.client.post("/events/batch", headers=SECRET, json={"events": items})

    assert response.status_code == 207
    results = response.json()["results"]
    assert [(r["index"], r["status"]) for r in results] == [
        (0, "ok"), (1, "repeated"), (2, "error"), (3, "error"), (4, "error"), (5, "error"), (6, "error"),
    ]  # fmt: skip
    assert [r["error"]["status"] for r in results[2:]] == [404, 422, 422, 409, 422]
    assert results[4]["error"]["errors"][0]["loc"] == "amount_cents"
    assert sorted(row.event_type for row in await site.events()) == ["custom", "lead", "pageview"]


@pytest.mark.parametrize("count", [0, 101])
async def test_batch_bounds(offline, count):
    """A batch holds 1 to 100 events."""
    client = offline(authenticate=lambda *_: Principal())

    response = await client.post("/events/batch", headers=SECRET, json={"events": [{}] * count})

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, "events")


async def test_batch_has_no_key_of_its_own(offline):
    """One key for many events would be a key for none of them."""
    client = offline(authenticate=lambda *_: Principal())

    response = await client.post(
        "/events/batch", headers=SECRET | {"Idempotency-Key": "k"}, json={"events": [{"event_type": "lead"}]}
    )

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, "Idempotency-Key")


async def test_batch_may_be_a_mebibyte(offline):
    """A batch may be larger than one event, and not larger than its limit."""
    client = offline(authenticate=lambda *_: Principal())
    headers = SECRET | {"Content-Type": "application/json"}

    within = await client.post("/events/batch", headers=headers, content=b" " * 1024 * 1024)
    beyond = await client.post("/events/batch", headers=headers, content=b" " * (1024 * 1024 + 1))

    assert (within.status_code, beyond.status_code) == (400, 413)


# Visitors ------------------------------------------------------------------------------------------------------------


async def test_list_goes_on_by_cursor(site, clock):
    """The pages of a list hold each visitor once, the one seen last first."""
    ids = []
    for n in range(5):
        ids.append(str(await site.visit(f"browser-{n}")))
        clock.advance(timedelta(minutes=1))

    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        body = (await site.get("/visitors", **query)).json()
        seen += [visitor["id"] for visitor in body["data"]]
        assert body["page"]["has_more"] is (body["page"]["next_cursor"] is not None)
        if not body["page"]["has_more"]:
            break
        query["cursor"] = body["page"]["next_cursor"]

    assert seen == ids[::-1]


async def test_search_and_status(site):
    """A list can be narrowed by what is written about a person and by how far along they are."""
    await site.visit("browser-1")
    ada = await site.visit(
        "browser-2", signals=Signals(anonymous_id="b", name="Ada", external_id="ada"), trusted=True
    )

    by_name = (await site.get("/visitors", search="ADA")).json()["data"]
    by_status = (await site.get("/visitors", status="identified")).json()["data"]
    hostile = await site.get("/visitors", search="%\x00'; DROP TABLE visitors")

    assert [v["id"] for v in by_name] == [v["id"] for v in by_status] == [str(ada)]
    assert (hostile.status_code, hostile.json()["data"]) == (200, [])


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=%00", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("status=merged", "status"),
        ("offset=20", "offset"),
    ],
)
async def test_wrong_queries(site, query, place):
    """A query parameter that is unknown or out of its bounds is refused, not ignored."""
    response = await site.client.get(f"/visitors?{query}", headers=SECRET)

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, place)


@pytest.mark.parametrize("tail", ["", "/timeline", "/attribution", "/why"])
@pytest.mark.parametrize("visitor_id", [str(UUID(int=5)), "42", "%00", "by-external-id"])
async def test_unknown_visitor(site, visitor_id, tail):
    """An id that nobody has, or that cannot be one, is a 404."""
    response = await site.get(f"/visitors/{visitor_id}{tail}")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("external_id", ["user-42", "a/b/c", "ünïcode", "timeline"])
async def test_external_id_in_path(site, external_id):
    """A host's own id is found whatever it is made of."""
    visitor_id = await site.visit(signals=Signals(anonymous_id="a", external_id=external_id), trusted=True)

    response = await site.get(f"/visitors/by-external-id/{external_id}")

    assert (response.status_code, response.json().get("id")) == (200, str(visitor_id))


async def test_unknown_external_id(site):
    """An external id that nobody has, or nobody can have, is a 404."""
    answers = [await site.get(f"/visitors/by-external-id/{name}") for name in ("ada", "a%00", "a" * 200)]

    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_merged_id_answers_with_the_person(site, clock):
    """Every id of a person answers with the whole person, under the canonical id."""
    first = await site.visit(
        "browser-1", signals=Signals(anonymous_id="one", external_id="ada"), trusted=True
    )
    clock.advance(timedelta(hours=2))
    second = await site.visit("browser-2")

    merged = await site.client.post(
        f"/visitors/{second}/identify", headers=SECRET, json={"external_id": "ada"}
    )
    person = await site.get(f"/visitors/{second}")
    timeline = await site.get(f"/visitors/{second}/timeline")
    why = await site.get(f"/visitors/{second}/why")

    assert (merged.status_code, merged.json()["id"]) == (200, str(first))
    assert person.json() == merged.json()
    assert {entry["visitor_id"] for entry in timeline.json()["data"]} == {str(first), str(second)}
    assert {member["id"] for member in why.json()["members"]} == {str(first), str(second)}
    assert [merge["loser_id"] for merge in why.json()["merges"]] == [str(second)]


async def test_timeline_goes_on_by_cursor(site, clock):
    """A timeline is read in pages, the newest entry first."""
    visitor_id = await site.visit()
    for n in range(4):
        clock.advance(timedelta(minutes=1))
        await site.send(event_type="custom", event_name=str(n), visitor_id=str(visitor_id))

    first = (await site.get(f"/visitors/{visitor_id}/timeline", limit=3)).json()
    rest = (await site.get(f"/visitors/{visitor_id}/timeline", cursor=first["page"]["next_cursor"])).json()

    assert [entry["event_name"] for entry in first["data"] + rest["data"]] == ["3", "2", "1", "0", None]
    assert rest["page"] == {"next_cursor": None, "has_more": False}


async def test_attribution(site):
    """What brought a person is told with the touches in their order."""
    visitor_id = await site.visit(url="https://shop.example/?utm_source=mail&utm_medium=email")

    body = (await site.get(f"/visitors/{visitor_id}/attribution")).json()

    assert [touch["source"]["platform"] for touch in body["attribution_path"]] == ["mail"]
    assert body["first_source"] == body["last_source"] == body["attribution_path"][0]["source"]


async def test_identify(site):
    """What a host says about a person is kept and shown."""
    visitor_id = await site.visit()

    response = await site.client.post(
        f"/visitors/{visitor_id}/identify",
        headers=SECRET,
        json={
            "external_id": "ada",
            "email": "ada@example.com",
            "name": "Ada",
            "traits": {"plan": "pro", "n": None},
        },
    )

    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["person_external_id"], body["person_name"]) == ("identified", "ada", "Ada")
    assert (body["person_email"], body["traits"]) == ("ada@example.com", {"plan": "pro", "n": None})


async def test_identify_with_a_key_is_done_once(site):
    """The same key again changes nothing; for another visitor it is a conflict."""
    first, second = await site.visit("browser-1"), await site.visit("browser-2")
    headers = SECRET | {"Idempotency-Key": "k"}

    answers = [
        await site.client.post(f"/visitors/{visitor_id}/identify", headers=headers, json={"name": "Ada"})
        for visitor_id in (first, first, second)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotent-Replayed"] == "true"


async def test_identify_does_not_rename(site):
    """A visitor that is one person is not made another: that would make a new visitor of the call."""
    visitor_id = await site.visit(signals=Signals(anonymous_id="a", external_id="ada"), trusted=True)

    response = await site.client.post(
        f"/visitors/{visitor_id}/identify", headers=SECRET, json={"external_id": "bob"}
    )

    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert len((await site.get("/visitors")).json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, None),
        ({"external_id": ""}, "external_id"),
        ({"name": "\u0000"}, "name"),
        ({"traits": {"a": [1]}}, "traits[...]"),
        ({"person_email": "a@b.c"}, "person_email"),
    ],
)
async def test_wrong_identities(offline, body, place):
    """An identity that says nothing, or says it in a wrong way, is refused."""
    client = offline(authenticate=lambda *_: Principal())

    response = await client.post(f"/visitors/{UUID(int=1)}/identify", headers=SECRET, json=body)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == ([place] if place else [])


async def test_head(site):
    """What can be got can be asked for by its head, and no cache keeps it."""
    await site.visit()

    response = await site.client.head("/visitors", headers=SECRET)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


async def test_answers_have_the_shapes_that_are_documented(site):
    """Every answer that the reference describes is what comes back, with no member more or less."""
    visitor_id = await site.visit(url="https://shop.example/?utm_source=mail")
    await site.client.post(
        f"/visitors/{visitor_id}/identify", headers=SECRET, json={"external_id": "user-42"}
    )
    link = await site.client.post(
        "/links", headers=SECRET, json={"url": "https://shop.example/", "domain": "go.example"}
    )
    terms = {"code": "bob", "name": "Bob", "commission": {"value": 1000}}
    partner_id = (await site.client.post("/partners", headers=SECRET, json=terms)).json()["id"]
    buyer = await site.visit("browser-3", url="https://shop.example/?via=bob")
    sale = {"event_type": "sale", "visitor_id": str(buyer), "amount_cents": 4900, "currency": "EUR"}
    await site.client.post("/events", headers=SECRET, json=sale)
    (earned,) = (await site.get(f"/partners/{partner_id}/commissions")).json()["data"]
    values = {
        "visitor_id": str(visitor_id),
        "external_id": "user-42",
        "link_id": link.json()["id"],
        "host": "go.example",
        "partner_id": partner_id,
        "commission_id": earned["id"],
    }
    other = await site.visit("browser-2")

    async def ids_of(name: str) -> dict[str, str]:
        """The ids that stand in an example for whatever the caller has."""
        if name != "unmergeVisitors":
            return {"other_id": str(other)} if name == "mergeVisitors" else {}
        why = (await site.get(f"/visitors/{visitor_id}/why")).json()
        return {"merge_id": why["merges"][0]["id"]}

    # Those of platforms and webhooks: test_api_platforms.
    here = [o for o in api.OPERATIONS if not o.path.startswith(("/platforms", "/dispatches", "/webhooks"))]
    exported = b""
    for operation in sorted(here, key=lambda one: one.method == "DELETE"):
        path = operation.path.replace(":path", "").format(**values)
        body: Any = {
            "json": operation.example and {**operation.example, **await ids_of(operation.name)},
            "headers": SECRET,
        }
        if operation.file:
            body = {
                "content": exported,
                "headers": {**SECRET, "content-type": operation.file[0]},
                "params": {"from": "goodanalytics"},
            }
        response = await site.client.request(operation.method, path, **body)
        answer = operation.answers[response.status_code]
        documented = answer.body
        if answer.file:
            exported = response.content
            assert response.headers["content-type"].partition(";")[0] in answer.file
            continue
        if documented is None:
            assert response.content == b""
            continue
        assert (
            msgspec.to_builtins(msgspec.convert(response.json(), documented)).keys() == response.json().keys()
        )
