"""
`POST /t/event` on the shortest way: one plain beacon of a browser that we know.

    POST /event → what its request shows → core.raw.is_sound → packed → log.begin → 202

Nearly every beacon is one. It is not read here: its bytes are made durable, and the worker reads them. Whatever is out of the
ordinary (a list, a token, a new browser, a bot, a privacy signal, another site, a limit that is reached, a mistake) goes to
the `Tracker`, which has the words for it. So there is nothing here that a client could be told, but that it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core import bots
from goodanalytics.core.bounds import MAX_BODY, text
from goodanalytics.core.clients import HINTS, MAX_USER_AGENT
from goodanalytics.core.raw import Entry, RawBeacon, is_sound, packed
from goodanalytics.log import HitLog
from goodanalytics.web.glance import KNOWN, LONG, Glance
from goodanalytics.web.limits import Gate

_HINTS = tuple(name.encode() for name in HINTS)

_WORKSPACE, _ANONYMOUS, _BODY, _IP = map(
    RawBeacon.__struct_fields__.index, ("workspace_id", "anonymous_id", "body", "ip")
)


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
        self._clock = config.clock
        self._log = log
        self._lets_in = gate.lets_in
        self._longer = longer
        self._glance = Glance(config)
        self._is_simple = config.limiter is None and config.consent is None
        # The workspace of a page that asks its own host, in a browser that is no bot.
        self._judged: Callable[[bytes, bytes, bytes], UUID | None] = lambda host, origin, user_agent: (
            config.workspace_of(host.decode("latin-1"))
            if _is_of(host, origin) and not _is_bot(user_agent)
            else None
        )
        self._remembered = lru_cache(KNOWN)(self._judged)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        raw = self._raw(scope)
        if raw is None:
            await self._longer.at_length(scope, receive, send)
            return
        message = await receive()
        body = await _whole(message, receive) if message.get("more_body") else message.get("body", b"")
        if len(body) > MAX_BODY or not is_sound(body) or not self._lets_in(raw[_IP]):
            await self._longer.at_length(scope, _once_more(body, receive), send)
            return
        raw[_BODY] = body
        entries = (packed(raw, raw[_WORKSPACE], raw[_ANONYMOUS]),)
        del raw, message, body  # what waits for the log shall be small
        try:
            await self._log.begin(entries)
        except Exception as error:  # noqa: BLE001  # a beacon must never break a page; the host hears of it
            if (answer := await self._not_begun(entries, error)) is not None:
                await answer(scope, receive, send)
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

    async def _not_begun(self, entries: Sequence[Entry], error: Exception) -> Response | None:
        """The words for who cannot be helped any more."""
        try:
            await self._log.rescue(entries, error)
        except Exception as reason:  # noqa: BLE001  # a beacon must never break a page; the host hears of it
            return self._longer.not_safe(reason)
        return None

    def _raw(self, scope: Scope) -> list[Any] | None:
        """
        The members of a `RawBeacon` but for its body.

        `None` unless the head of the request needs nothing but to be taken, and comes from a browser that we know.
        """
        headers = dict(scope["headers"])
        if scope["method"] != "POST" or not self._is_simple or not self._glance.is_plain(scope, headers):
            return None
        get = headers.get
        host, origin, user_agent = get(b"host", b""), get(b"origin", b""), get(b"user-agent", b"")
        is_short = len(host) + len(origin) + len(user_agent) <= LONG
        workspace_id = (self._remembered if is_short else self._judged)(host, origin, user_agent)
        browser = None if workspace_id is None else self._glance.browser(headers)
        if browser is None:
            return None
        anonymous_id, click_id, pixels = browser
        client = scope["client"]
        return [
            workspace_id,
            self._clock(),
            anonymous_id,
            b"",
            click_id,
            client and self._glance.address(client[0], headers),
            self._glance.country(headers),
            user_agent,
            get(b"accept-language"),
            [*map(get, _HINTS)] if _HINTS[0] in headers else [],
            pixels,
        ]


def _is_of(host: bytes, origin: bytes) -> bool:
    """Whether a page of *host* itself asks, so that no word about other sites is needed."""
    return origin in (b"https://" + host, b"http://" + host, b"")


def _is_bot(user_agent: bytes) -> bool:
    return bots.judge(text(user_agent.decode("latin-1"), MAX_USER_AGENT)).bot


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
