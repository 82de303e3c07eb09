"""
Who is told of what happens in the demo shop: an ad network and a bookkeeper, both played by the shop itself.

1. Nothing leaves the machine: what they are told goes to paths of the demo's own port, through the same outbox, sealed
   credentials, signatures and retries as to anybody else.
2. Each refuses every seventh request, in turns by throttling (429) and by being busy (503), so that one sees what becomes of
   that. Otherwise they answer at once, to whoever knows the token or signs with the secret.
3. They remember the last `REMEMBERED` requests until the demo stops, and no person: of each only what it was and the answer.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as WebResponse
from starlette.routing import Route

from goodanalytics.platforms import (
    Conversion,
    Kind,
    Outcome,
    Request,
    Response,
    Version,
    body_of,
    by_status,
    unfit,
)
from goodanalytics.platforms.normalize import email, hashed
from goodanalytics.platforms.webhook import verified

if TYPE_CHECKING:
    from goodanalytics.analytics import Analytics

ADS: Final = "example_ads"
ADS_PATH: Final = "/example-ads/v1/conversions"
BOOKS_PATH: Final = "/example-books/hook"
TOKEN: Final = "api_token"  # noqa: S105  # the name of a credential, not one
TOKEN_HEADER: Final = "x-api-token"  # noqa: S105  # as above

REFUSES: Final = 7
"""Each refuses one request of so many."""

THROTTLES_FOR: Final = 5  # seconds
REMEMBERED: Final = 30
MAX_BODY: Final = 64 * 1024  # bytes

_EVENTS: Final[Mapping[Kind, str]] = MappingProxyType(
    {"lead": "SignUp", "sale": "Purchase", "refund": "Return"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleAds:
    """
    The ad network's dialect: one conversion in a request, the e-mail address only as its hash.

    Attributes:
        url: Where it listens.
        is_test: Whether what it is told counts for nothing there.
    """

    url: str
    is_test: bool = False
    name: str = ADS
    version: Version = field(default_factory=lambda: Version("v1"))
    max_batch: int = 1
    max_age: timedelta = timedelta(days=7)
    events: Mapping[Kind, str] = field(default_factory=lambda: _EVENTS)
    secrets: frozenset[str] = frozenset({TOKEN})

    def in_test(self, code: str) -> ExampleAds:  # noqa: ARG002  # it needs no code, as some real ones do
        """The same in its test mode."""
        return replace(self, is_test=True)

    def skip(self, conversion: Conversion, now: datetime) -> str | None:
        """What is too old, or was denied."""
        return unfit(self, conversion, now)

    def build(self, batch: Sequence[Conversion], secrets: Mapping[str, str], now: datetime) -> Request:  # noqa: ARG002  # a platform may want to know when
        """The request for the one conversion of the batch."""
        (told,) = batch
        body = {
            "id": told.event_id,
            "what": self.events[told.kind],
            "at": told.occurred_at,
            "value": told.amount_cents,
            "currency": told.currency,
            "order": told.order_key,
            "person": hashed(told.person.email, email),
            "test": self.is_test,
        }
        headers = {"content-type": "application/json", TOKEN_HEADER: secrets[TOKEN]}
        return Request(url=self.url, headers=headers, body=msgspec.json.encode(body))

    def read(self, batch: Sequence[Conversion], response: Response) -> list[Outcome]:
        """What the status says, and under which number it was received."""
        answer = body_of(response) or {}
        verdict = by_status(response, message=str(answer.get("says", "")))
        return verdict.on_all(batch, external_ref=answer.get("number"))


@dataclass(frozen=True, slots=True)
class Told:
    """A request that a neighbour had: what it was about, how it was answered, and in which words."""

    at: datetime
    what: str
    status: int
    says: str


class _Event(msgspec.Struct):
    """What is read of a request to the ad network."""

    id: str
    what: str
    value: int | None = None
    currency: str | None = None
    test: bool = False


class _Notice(msgspec.Struct):
    """What is read of a request to the bookkeeper."""

    type: str
    data: dict[str, Any] = {}


class _Desk:
    """Where one neighbour takes requests; it counts them, refuses some and remembers the last ones."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.told: deque[Told] = deque(maxlen=REMEMBERED)
        self._clock = clock
        self._taken = 0

    def take(self, what: str) -> tuple[int, str]:
        """The answer to a request that is in order: its status, and what to say."""
        self._taken += 1
        turn, rest = divmod(self._taken, REFUSES)
        if rest:
            return self.answer(what, 200, "Thank you.")
        if turn % 2:
            return self.answer(what, 429, "That is too much at once.")
        return self.answer(what, 503, "Everybody is at tea.")

    def answer(self, what: str, status: int, says: str) -> tuple[int, str]:
        """Remember an answer, and give it."""
        self.told.appendleft(Told(self._clock(), what, status, says))
        return status, says

    @property
    def number(self) -> str:
        """Under which the last request was taken."""
        return f"EX-{self._taken:06}"


class Neighbours:
    """
    Both of them, as the shop serves them.

    Args:
        token: What the ad network wants to see.
        secret_at: The file that keeps the bookkeeper's signing secret; `introduce` writes it.
    """

    def __init__(self, token: str, secret_at: Path, clock: Callable[[], datetime]) -> None:
        self._token = token
        self._secret_at = secret_at
        self._clock = clock
        self._ads, self._books = _Desk(clock), _Desk(clock)
        self.routes = [
            Route(ADS_PATH, self.advertise, methods=["POST"]),
            Route(BOOKS_PATH, self.book, methods=["POST"]),
        ]

    @property
    def told(self) -> Mapping[str, Sequence[Told]]:
        """What each heard, by its name, the newest first."""
        return {"Example Ads": tuple(self._ads.told), "Example Books": tuple(self._books.told)}

    async def advertise(self, request: WebRequest) -> WebResponse:
        """What the ad network answers."""
        body = await _body_of(request)
        given = request.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return _said(self._ads.answer("a stranger", 401, "I do not know this token."))
        try:
            event = msgspec.json.decode(body, type=_Event)
        except msgspec.DecodeError:
            return _said(self._ads.answer("nonsense", 400, "I cannot read this."))
        what = _in_words(event.what, event.value, event.currency)
        if event.test:
            return _said(self._ads.answer(f"{what}, as a test", 200, "It would have worked."))
        return _said(self._ads.take(what), self._ads.number)

    async def book(self, request: WebRequest) -> WebResponse:
        """What the bookkeeper answers."""
        body = await _body_of(request)
        secret = self._secret_at.read_text() if self._secret_at.exists() else None
        if secret is None or not verified(dict(request.headers), body, secret, self._clock()):
            return _said(self._books.answer("a stranger", 401, "This is not signed with our secret."))
        try:
            notice = msgspec.json.decode(body, type=_Notice)
        except msgspec.DecodeError:
            return _said(self._books.answer("nonsense", 400, "I cannot read this."))
        what = _in_words(notice.type, notice.data.get("amount_cents"), notice.data.get("currency"))
        return _said(self._books.take(what))

    async def introduce(self, analytics: Analytics, origin: str) -> None:
        """
        Have *analytics* tell both of them, if it does not yet. What somebody switched off on the dashboard stays off.

        Args:
            origin: Where they are reached, such as `http://127.0.0.1:8000`.
        """
        (ads,) = [one for one in await analytics.platforms.list() if one.name == ADS]
        if not ads.credentials:
            await analytics.platforms.enable(ADS, actor="demo")
            await analytics.platforms.store_credential(ADS, TOKEN, self._token, actor="demo")
        hook = f"{origin}{BOOKS_PATH}"
        known = [one for one in await analytics.webhooks.list() if one.url.endswith(BOOKS_PATH)]
        if not known:
            self._keep((await analytics.webhooks.create(hook, actor="demo")).secret)
            return
        if known[0].url != hook:
            await analytics.webhooks.update(known[0], url=hook, actor="demo")
        if not self._secret_at.exists():
            self._keep((await analytics.webhooks.rotate_secret(known[0], actor="demo")).secret)

    def _keep(self, secret: str) -> None:
        self._secret_at.touch(mode=0o600)
        self._secret_at.write_text(secret)


async def _body_of(request: WebRequest) -> bytes:
    """The body, cut where it is too long for anything that we send; then it is no JSON."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body[:MAX_BODY])


def _in_words(what: str, cents: object, currency: object) -> str:
    """
    What a request is about, in a few words; whoever sent it may have written anything.

    >>> _in_words("Purchase", 4_900, "EUR")
    'Purchase, 49.00 EUR'
    """
    if not isinstance(cents, int) or not isinstance(currency, str):
        return what[:40]
    return f"{what[:40]}, {cents / 100:,.2f} {currency[:3]}"


def _said(answer: tuple[int, str], number: str | None = None) -> WebResponse:
    status, says = answer
    headers = {"Retry-After": str(THROTTLES_FOR)} if status == HTTPStatus.TOO_MANY_REQUESTS else None
    body = {"says": says} | ({"number": number} if number is not None and status == HTTPStatus.OK else {})
    return JSONResponse(body, status, headers)


__all__ = ["ADS", "ADS_PATH", "BOOKS_PATH", "REFUSES", "ExampleAds", "Neighbours", "Told"]
