"""
`POST /t/event` on the shortest way: one plain beacon of a browser that we know.

    POST /event → what its request shows → core.raw.is_sound → log.append → 202

Nearly every beacon is one. It is not read here: its bytes are made durable, and the worker reads them. Whatever is out of the
ordinary (a list, a token, a new browser, a bot, a privacy signal, another site, a limit that is reached, a mistake) goes to
the `Tracker`, which has the words for it. So there is nothing here that a client could be told, but that it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol
from uuid import UUID

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core import bots
from goodanalytics.core.clients import HINTS, MAX_USER_AGENT
from goodanalytics.core.hits import MAX_BODY, text
from goodanalytics.core.places import from_headers
from goodanalytics.core.raw import Packed, is_sound, packed
from goodanalytics.log import HitLog
from goodanalytics.web.glance import KNOWN, Glance, Headers
from goodanalytics.web.limits import Gate

_HINT, *_HINTS = (name.encode() for name in HINTS)  # the first comes with every other


class Longer(Protocol):
    """The longer way; the `Tracker`."""

    async def at_length(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is out of the ordinary."""

    def not_safe(self, error: Exception) -> Response:
        """The words for a beacon that could not be made durable."""


class Beacons:
    """
    An ASGI app for one path.

    Args:
        log: Makes entries durable.
        gate: Counts them.
        longer: Takes every request that is not plain.
    """

    def __init__(self, config: Config, log: HitLog, gate: Gate, longer: Longer) -> None:
        self._clock, self._geo_headers = config.clock, config.geo_headers
        self._append = log.append
        self._lets_in = gate.lets_in
        self._longer = longer
        self._glance = Glance(config)
        self._browser, self._address = self._glance.browser, self._glance.address
        self._counts_itself = config.limiter is None
        self._asks_consent = config.consent is not None
        self._site: Callable[[bytes, bytes | None], UUID | None] = lru_cache(KNOWN)(
            lambda host, origin: (
                config.workspace_of(host.decode("latin-1"))
                if origin is None or _is_of(host, origin)
                else None
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        workspace_id = self._plain_in(scope, headers)
        if workspace_id is None:
            await self._longer.at_length(scope, receive, send)
            return
        message = await receive()
        body = await _whole(message, receive) if message.get("more_body") else message.get("body", b"")
        entry = self._entry(scope, headers, body, workspace_id)
        if entry is None:
            await self._longer.at_length(scope, _once_more(body, receive), send)
            return
        try:
            await self._append((entry,))
        except Exception as error:  # noqa: BLE001  # a beacon must never break a page; the host hears of it
            await self._longer.not_safe(error)(scope, receive, send)
            return
        # Made anew each time: middleware around us may write cookies into what it is handed.
        await send(
            {
                "type": "http.response.start",
                "status": 202,
                "headers": [(b"x-goodanalytics", b"accepted"), (b"content-length", b"0")],
            }
        )
        await send({"type": "http.response.body", "body": b""})

    def _plain_in(self, scope: Scope, headers: Headers) -> UUID | None:
        """The workspace of a request that, as far as its head goes, needs nothing but to be taken."""
        if (
            scope["method"] == "POST"
            and self._counts_itself
            and not self._asks_consent
            and self._glance.is_plain(scope, headers)
            and not _is_bot(headers.get(b"user-agent"))
        ):
            return self._site(headers.get(b"host", b""), headers.get(b"origin"))
        return None

    def _entry(self, scope: Scope, headers: Headers, body: bytes, workspace_id: UUID) -> Packed | None:
        """The beacon, if it is sound and from a browser that we know; and counted, if it may be taken."""
        if len(body) > MAX_BODY or not is_sound(body):
            return None
        browser = self._browser(headers.get(b"cookie", b""))
        if browser is None:
            return None
        client = scope["client"]
        address = client and self._address(client[0], headers.get(b"x-forwarded-for", b""))
        if not self._lets_in(address):
            return None
        anonymous_id, click_id, pixels = browser
        return packed(
            workspace_id,
            self._clock(),
            anonymous_id,
            body,
            click_id,
            address,
            _country(headers, self._geo_headers) if self._geo_headers else None,
            headers.get(b"user-agent"),
            headers.get(b"accept-language"),
            _hints(headers) if _HINT in headers else [],
            pixels,
        )


def _hints(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(_HINT, headers[_HINT]), *[(name, headers[name]) for name in _HINTS if name in headers]]


def _is_of(host: bytes, origin: bytes) -> bool:
    """Whether a page of *host* itself asks, so that no word about other sites is needed."""
    return origin in (b"https://" + host, b"http://" + host)


@lru_cache(maxsize=KNOWN)
def _is_bot(user_agent: bytes | None) -> bool:
    return bots.judge(None if user_agent is None else text(user_agent.decode("latin-1"), MAX_USER_AGENT)).bot


def _country(headers: Headers, names: Sequence[str]) -> str | None:
    given = {name: headers.get(name.encode(), b"").decode("latin-1") for name in names}
    place = from_headers(given, names)
    return None if place is None else place.country


async def body_of(receive: Receive) -> bytes:
    """The body of a request, up to one byte more than is read, so that it can be told that it is too long."""
    return await _whole(await receive(), receive)


async def _whole(message: Message, receive: Receive) -> bytes:
    """`body_of` a request of which *message* was received before."""
    body: bytes = message.get("body", b"")
    parts, size = [body[: MAX_BODY + 1]], len(body)
    while message.get("more_body"):
        message = await receive()
        part: bytes = message.get("body", b"")
        if size <= MAX_BODY:
            parts.append(part[: MAX_BODY + 1 - size])
        size += len(part)
    return b"".join(parts)


def _once_more(body: bytes, receive: Receive) -> Receive:
    """*receive* as it was before *body* was taken from it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
