"""
A platform that does what a test says, and an app that tells it.

`Bell` is a dialect of its own, so that each rule of the dispatcher can be seen apart from any real platform's. `Exchange` is
the HTTP transport behind it: it hears requests as lists of order keys, and answers as it was told to, or "delivered".
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import text

from goodanalytics import Analytics
from goodanalytics.core.consent import Consent
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.platforms import (
    Conversion,
    Kind,
    Outcome,
    Request,
    Response,
    Token,
    Verdict,
    Version,
    body_of,
    unfit,
    unreadable,
)

V1 = Version("v1")
ALL: Mapping[Kind, str] = {"lead": "Lead", "sale": "Purchase", "refund": "Refund"}


@dataclass(frozen=True, kw_only=True)
class Bell:
    """Takes order keys; a body that says nothing of one means that it was delivered."""

    name: str = "bell"
    version: Version = V1
    max_batch: int = 4
    max_age: timedelta = timedelta(days=7)
    events: Mapping[Kind, str] = field(default_factory=lambda: ALL)
    secrets: frozenset[str] = frozenset({"token"})
    test_code: str | None = None

    def in_test(self, code: str) -> Bell:
        return dataclasses.replace(self, test_code=code)

    def lane(self, conversion: Conversion) -> str:
        return conversion.kind

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        return unfit(self, conversion, now)

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:  # noqa: ARG002
        if any(conversion.properties.get("unspeakable") for conversion in batch):
            raise KeyError("a word that bell does not know: ada@shop.example")
        rings = [
            {"key": c.order_key, "id": c.event_id, "kind": c.kind, "consent": c.consent.ad_user_data}
            for c in batch
        ]
        body = {"rings": rings, "secrets": dict(secrets), "test": self.test_code}
        return Request(url="https://bell.example/ring", headers={}, body=msgspec.json.encode(body))

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        body = body_of(response)
        if body is None:
            return unreadable(response).on_all(batch)
        said = {}
        for conversion in batch:
            found = body["said"].get(conversion.order_key, body["said"].get("*", {"status": "delivered"}))
            said[conversion.dispatch_id] = msgspec.convert(found, Verdict)
        return [said[c.dispatch_id].on(c, body.get("reference")) for c in batch]


@dataclass(frozen=True, kw_only=True)
class SlowBell(Bell):
    """Accepts first, and says later what became of it."""

    confirm_after: timedelta = timedelta(minutes=30)

    def build_poll(self, external_ref: str, secrets: Mapping[str, str], now: datetime) -> Request:  # noqa: ARG002 - the protocol's
        return Request(method="GET", url=f"https://bell.example/asked/{external_ref}", headers={}, body=b"")

    def read_poll(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        if body_of(response) is None:
            return Verdict(status="accepted", code="no_answer").on_all(batch)
        return self.read(batch, response)


@dataclass(frozen=True, kw_only=True)
class ShyBell(Bell):
    """Rings only for people whose address it knows."""

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        if conversion.person.email is None:
            return "missing_signals: email"
        return super().skip(conversion, now)


@dataclass(frozen=True, kw_only=True)
class TokenBell(Bell):
    """Needs a token that lives for an hour, made from a longer-lived one."""

    secrets: frozenset[str] = frozenset({"refresh_token", "access_token"})

    def build_token_request(self, secrets: Mapping[str, str], now: datetime) -> Request:  # noqa: ARG002 - the protocol's
        return Request(url="https://bell.example/token", headers={}, body=b"{}")

    def read_token(self, response: Response, now: datetime) -> Token | Verdict:
        body = body_of(response) or {}
        if "token" not in body:
            return Verdict(status="credential", code="invalid_grant")
        return Token(value=body["token"], expires_at=now + timedelta(hours=1))


Answer = httpx.Response | Callable[[], Awaitable[httpx.Response | None]] | Exception


class Exchange(httpx.AsyncBaseTransport):
    """
    What bell hears and says.

    Attributes:
        heard: Order keys of each request, sorted.
        bodies: The requests themselves.
        ids: Event ids under which each key was heard.
        asked: References that were asked after.
        tokens: How many were given out.
    """

    def __init__(self) -> None:
        self.heard: list[list[str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.ids: dict[str, set[str]] = {}
        self.asked: list[str] = []
        self.tokens = 0
        self._next: deque[Answer] = deque()
        self._always: Answer | None = None

    def then(self, *answers: Answer) -> None:
        """How the next requests are answered, one after the other."""
        self._next.extend(answers)

    def always(self, answer: Answer | None) -> None:
        """How every other request is answered."""
        self._always = answer

    @property
    def keys(self) -> list[str]:
        """Everything that was heard."""
        return [key for request in self.heard for key in request]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        if request.url.path == "/token":
            self.tokens += 1
            return _fresh(httpx.Response(200, json={"token": f"token-{self.tokens}"}))
        if request.url.path.startswith("/asked/"):
            self.asked.append(request.url.path.removeprefix("/asked/"))
        else:
            body = json.loads(request.content)
            self.bodies.append(body)
            self.heard.append(sorted(ring["key"] for ring in body["rings"]))
            for ring in body["rings"]:
                self.ids.setdefault(ring["key"], set()).add(ring["id"])
        answer = self._next.popleft() if self._next else self._always
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = await answer()
        return _fresh(answer or told())


def _fresh(answer: httpx.Response) -> httpx.Response:
    """The same answer, not read yet, as it comes from a connection."""
    return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))


def told(status: int = 200, *, reference: str | None = None, **said: Any) -> httpx.Response:
    """`told(A1={"status": "permanent"})`; `everybody=` is about all."""
    if "everybody" in said:
        said["*"] = said.pop("everybody")
    return httpx.Response(status, json={"said": said, "reference": reference})


class House:
    """An app with bell, and a visitor who buys."""

    def __init__(self, analytics: Analytics, exchange: Exchange, clock: Any) -> None:
        self.analytics = analytics
        self.exchange = exchange
        self.clock = clock
        self.visitor: Any = None

    async def open(self) -> None:
        self.visitor = await self.analytics.resolve({"anonymous_id": "a-cookie"})
        for platform in self.analytics.config.platforms:
            await self.analytics.platforms.store_credentials(
                platform.name, dict.fromkeys(platform.secrets - {"access_token"}, "a-secret-of-bell")
            )
            await self.analytics.platforms.enable(platform.name)

    async def sell(self, *keys: str, **facts: Any) -> None:
        for key in keys:
            await self.analytics.sale(
                self.visitor, **({"amount_cents": 4900, "currency": "EUR", "key": key} | facts)
            )

    async def look(self, browser: str, consent: Consent | None = None, ago: timedelta = timedelta(0)) -> None:
        """A page view, which may carry an answer about ads."""
        now = self.clock()
        hit = Hit(
            id=self.analytics.config.new_id(),
            workspace_id=self.analytics.config.workspace,
            received_at=now,
            occurred_at=now - ago,
            event_type=EventType.PAGEVIEW,
            origin="browser",
            url="https://shop.example/",
            signals=Signals(anonymous_id=browser),
            consent=consent,
        )
        await self.analytics.ingest.now([hit])

    async def deliver(self) -> int:
        return await self.analytics.dispatcher.deliver_due()

    async def after(self, **time: float) -> int:
        self.clock.advance(timedelta(**time))
        return await self.deliver()

    async def ask(self, question: str, **values: Any) -> list[tuple[Any, ...]]:
        async with self.analytics.database.connect() as conn:
            await conn.execute(text("SET search_path TO good_analytics"))
            return [tuple(row) for row in await conn.execute(text(question), values)]

    async def states(self) -> dict[str, str]:
        """The state of each dispatch by its order key, with the reason where there is one."""
        rows = await self.ask(
            "SELECT coalesce(c.key, c.kind), d.state, d.reason FROM dispatches d "
            "JOIN conversions c USING (workspace_id, event_id) WHERE d.target NOT LIKE 'webhook%'"
        )
        return {key: state if reason is None else f"{state}: {reason}" for key, state, reason in rows}

    async def dispatch(self, key: str) -> Any:
        ((found,),) = await self.ask(
            "SELECT d.id FROM dispatches d JOIN conversions c USING (workspace_id, event_id) WHERE c.key = :key",
            key=key,
        )
        return await self.analytics.platforms.dispatch(found)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
async def opened(database_url, config, clock, exchange) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    """`await opened(SlowBell(), consent_silence="denied")`."""
    running: list[Analytics] = []

    async def start(*platforms: Any, **settings: Any) -> House:
        base = {"worker": False, "consent_silence": "granted", "transport": exchange, "jitter": lambda: 0.0}
        chosen = dataclasses.replace(config, **(base | {"platforms": platforms or [Bell()]} | settings))
        analytics = Analytics(database_url, chosen)
        await analytics.start()
        running.append(analytics)
        house = House(analytics, exchange, clock)
        await house.open()
        return house

    yield start
    for analytics in running:
        await analytics.stop()


@pytest.fixture
async def house(opened) -> House:
    """With bell, which takes four in a request."""
    return await opened()


@pytest.fixture
def bells() -> dict[str, Any]:
    """Dialects by name, since a test module cannot import from here."""
    return {"bell": Bell, "shy": ShyBell, "slow": SlowBell, "token": TokenBell}


@pytest.fixture
def say() -> Callable[..., httpx.Response]:
    """`say(A1={"status": "permanent"}, everybody=…)` is an answer of bell's."""
    return told


@pytest.fixture
def until_cancelled() -> Callable[[], Awaitable[None]]:
    """An answer that never comes."""

    async def wait() -> None:
        await asyncio.Event().wait()

    return wait
