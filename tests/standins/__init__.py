"""
Stand-ins for the ad platforms and for a webhook's receiver: real HTTP servers on loopback that speak the documented formats.

    meta = Meta()
    with serving(meta), Elsewhere(meta) as transport:
        analytics = Analytics(url, Config(platforms=[platforms.Meta()], transport=transport, …))

Each one checks every request strictly, whatever it then answers. `faults` says what was wrong with a request, so that a test
ends with `assert meta.faults == []`; `accepted` counts how often each event id came in a request that was taken, and the keys of
it are what the platform counts. `next(…)` says how the next requests are answered; then it is honest again.

A stand-in checks `Host`, so requests keep the platform's own address and `Elsewhere` carries them to the stand-in. Where a
dialect's `address` names the stand-in instead, as in a worker of another process, that check is left out. For a stand-in in a
process of its own, where a test's GIL would be in the way: `python -m tests.standins meta --wait 0.02` prints `ready PORT`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_address
from typing import Any, ClassVar, Literal, TypeAlias, assert_never
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
import uvicorn

from goodanalytics.platforms import Response
from tests.platforms.standins import NOW, SHA256, json_response

PAGE = b"<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>"


# How a request is answered


@dataclass(frozen=True)
class Honest:
    """As documented, after *wait* seconds."""

    wait: float = 0.0


@dataclass(frozen=True)
class Instead:
    """With *response*, and nothing of the request is kept."""

    response: Response


@dataclass(frozen=True)
class Silent:
    """Never. *keeps*: the events are taken all the same, and nobody is told."""

    keeps: bool = False


@dataclass(frozen=True)
class Drip:
    """As documented, but a byte of the body at a time, *pause* seconds apart."""

    pause: float = 0.01


@dataclass(frozen=True)
class Cut:
    """The connection breaks before the answer or in the middle of it. *keeps* as with `Silent`."""

    where: Literal["before", "amid"] = "before"
    keeps: bool = False


@dataclass(frozen=True)
class Endless:
    """With a 200 whose body has no end. Nothing of the request is kept."""


Way: TypeAlias = Honest | Instead | Silent | Drip | Cut | Endless


def says(status: int, body: object, **headers: str) -> Instead:
    """JSON; `retry_after="7"` becomes the header."""
    answer = json_response(body, status)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Instead(msgspec.structs.replace(answer, headers=answer.headers | named))


def page(status: int = 502, **headers: str) -> Instead:
    """What a proxy says in between: HTML."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Instead(Response(status=status, headers={"content-type": "text/html"} | named, body=PAGE))


# What a request is checked for


@dataclass(frozen=True)
class Call:
    """A request as it came."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def url(self) -> str:
        return f"https://{self.host}{self.path}"


class Refused(Exception):
    """A request that the platform does not take; *response* is how it says so."""

    def __init__(self, why: str, response: Response) -> None:
        super().__init__(why)
        self.response = response


@dataclass(frozen=True)
class Taken:
    """A request that the platform takes, with the ids of the events in it."""

    response: Response
    ids: Sequence[str] = ()
    keep: Callable[[], None] = lambda: None


class StandIn:
    """One platform. A subclass says which hosts it is and judges."""

    hosts: ClassVar[tuple[str, ...]]
    """The first one is asked by every path that is not in `others`."""
    others: ClassVar[Mapping[str, str]] = {}

    def __init__(self, clock: Callable[[], datetime] = lambda: NOW) -> None:
        self.clock = clock
        self.calls: list[Call] = []
        self.faults: list[str] = []
        self.accepted: Counter[str] = Counter()
        self.usual: Way = Honest()
        self.address = ""
        self._script: deque[tuple[str, Way]] = deque()

    def next(self, *ways: Way, path: str = "") -> None:
        """The next requests whose path holds *path* are answered so, in this order."""
        self._script.extend((path, way) for way in ways)

    def judge(self, call: Call) -> Taken:
        """
        What the platform answers by its documents. It keeps nothing: whether it does is for the `Way` to say.

        Raises:
            Refused: The request is wrong.
        """
        raise NotImplementedError

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        call = await _call(scope, receive)
        if call.host.startswith("127.0.0.1:"):
            call = replace(call, host=self.others.get(call.path, self.hosts[0]))
        self.calls.append(call)
        try:
            taken = self.judge(call)
        except Refused as refusal:
            self.faults.append(f"{call.method} {call.path}: {refusal}")
            taken = Taken(refusal.response)
        match self._way(call):
            case Honest(wait):
                await asyncio.sleep(wait)
                self._keep(taken)
                await _say(send, taken.response)
            case Instead(response):
                await _say(send, response)
            case Silent(keeps):
                self._keep(taken if keeps else None)
                while (await receive())["type"] != "http.disconnect":
                    pass
            case Drip(pause):
                self._keep(taken)
                await _drip(receive, send, taken.response, pause)
            case Cut(where, keeps):
                self._keep(taken if keeps else None)
                if where == "amid":
                    await _say(send, taken.response, half=True)
                # ASGI has no word for this; uvicorn's `send` belongs to what holds the connection.
                send.__self__.transport.abort()
            case Endless():
                await _flood(receive, send)
            case never:
                assert_never(never)

    def _way(self, call: Call) -> Way:
        for index, (path, way) in enumerate(self._script):
            if path in call.path:
                del self._script[index]
                return way
        return self.usual

    def _keep(self, taken: Taken | None) -> None:
        if taken is not None:
            self.accepted.update(taken.ids)
            taken.keep()


async def _call(scope: Any, receive: Any) -> Call:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True, strict_parsing=False))
    path = scope["raw_path"].decode()
    return Call(scope["method"], headers.get("host", ""), path, query, headers, body)


async def _say(send: Any, response: Response, *, half: bool = False) -> None:
    await _begin(send, response)
    body = response.body[: len(response.body) // 2] if half else response.body
    await send({"type": "http.response.body", "body": body, "more_body": half})


async def _drip(receive: Any, send: Any, response: Response, pause: float) -> None:
    await _begin(send, response)
    for byte in response.body:
        with suppress(TimeoutError):
            await asyncio.wait_for(receive(), pause)
            return  # whoever asked has left
        await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
    await send({"type": "http.response.body"})


async def _flood(receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    left = asyncio.ensure_future(receive())
    while not left.done():
        await send({"type": "http.response.body", "body": b"a" * 16_384, "more_body": True})
        await asyncio.sleep(0)


async def _begin(send: Any, response: Response) -> None:
    headers = {"content-length": str(len(response.body))} | response.headers
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})


Refuse: TypeAlias = Callable[[str], Refused]
"""Makes the platform's own refusal out of what is wrong."""


def checked(
    call: Call,
    refuse: Refuse,
    *,
    path: str,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> None:
    """The parts that are alike everywhere. *path* is a pattern; *headers* are exact."""
    if call.method != method or not re.fullmatch(path, call.path):
        raise refuse(f"{call.method} {call.path} is not {method} {path}")
    if method == "POST" and call.headers.get("content-type") != content_type:
        raise refuse(f"content-type is {call.headers.get('content-type')!r}")
    if method == "POST" and call.headers.get("content-length") != str(len(call.body)):
        raise refuse("content-length is not the length of the body")
    if "cookie" in call.headers:
        raise refuse("a cookie was sent")
    for name, value in (headers or {}).items():
        if call.headers.get(name) != value:
            raise refuse(f"the header {name} is missing or wrong")


def decoded(body: bytes, kind: type[Any], refuse: Refuse) -> Any:
    """The body, if it has the documented members and no others."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise refuse(f"the body: {error}") from None


def in_bounds(refuse: Refuse, what: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise refuse(f"{count} {what}; between 1 and {most}")


def all_hashed(refuse: Refuse, digests: Sequence[str | None]) -> None:
    for digest in digests:
        if digest is not None and not SHA256.fullmatch(digest):
            raise refuse("not a SHA-256 in lower-case hexadecimal")


def once_each(refuse: Refuse, ids: Sequence[str]) -> None:
    if repeated := [event_id for event_id, times in Counter(ids).items() if times > 1]:
        raise refuse(f"{repeated} stand more than once in one request")


def a_currency(refuse: Refuse, currency: str | None) -> None:
    if currency is not None and not re.fullmatch(r"[A-Z]{3}", currency):
        raise refuse(f"{currency!r} is no currency of ISO 4217")


def an_ip(refuse: Refuse, text: str | None) -> None:
    try:
        ip_address(text or "0.0.0.0")
    except ValueError:
        raise refuse("not an IP address") from None


def within(refuse: Refuse, moment: float, now: datetime, days: float, ahead: float = 0.0) -> None:
    """*moment* is in seconds since 1970; *ahead* in seconds."""
    age = now.timestamp() - moment
    if age > days * 86_400:
        raise refuse(f"the event is {age / 86_400:.1f} days old")
    if age < -ahead:
        raise refuse("the event is in the future")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A body with a member that is not on the page is refused."""


# Servers


class Stage:
    """One server for many stand-ins, together or in turn: starting a server takes longer than most of what it is for."""

    def __init__(self) -> None:
        self.address = ""
        self._playing: Sequence[StandIn] = ()

    def enter(self, *stand_ins: StandIn) -> None:
        """From now on requests are for these, by their hosts; for the last one where the host is none of theirs."""
        for stand_in in stand_ins:
            stand_in.address = self.address
        self._playing = stand_ins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode()
        asked = [stand_in for stand_in in self._playing if host in stand_in.hosts]
        await (asked or self._playing)[-1](scope, receive, send)


@dataclass
class _Running:
    server: uvicorn.Server
    thread: threading.Thread
    listener: socket.socket = field(repr=False)


@contextmanager
def serving(*apps: Any, **settings: Any) -> Iterator[list[str]]:
    """Each app behind a uvicorn of its own in a thread; their addresses, which a `StandIn` and a `Stage` also get."""
    running: list[_Running] = []
    try:
        addresses = []
        for app in apps:
            listener = socket.create_server(("127.0.0.1", 0))
            options = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none"} | settings
            config = uvicorn.Config(app, timeout_graceful_shutdown=1, server_header=False, **options)
            # Else tests that look through the log would find what the stand-in was asked.
            logging.getLogger("uvicorn.access").disabled = True
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            running.append(_Running(server, thread, listener))
            scheme = "https" if config.is_ssl else "http"
            addresses.append(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
            if isinstance(app, StandIn | Stage):
                app.address = addresses[-1]
        for each in running:
            while not each.server.started:
                assert each.thread.is_alive(), "the stand-in did not start"
                time.sleep(0.005)
        yield addresses
    finally:
        for each in running:
            each.server.should_exit = each.server.force_exit = True
        for each in running:
            each.thread.join(timeout=10)
            each.listener.close()


class Elsewhere(httpx.AsyncBaseTransport):
    """
    Carries requests for the platforms' hosts to stand-ins that are being served; all other hosts are out of reach.

    The request stays as it is, with its `Host`.
    """

    def __init__(self, *stand_ins: StandIn) -> None:
        self._addresses = {host: stand_in.address for stand_in in stand_ins for host in stand_in.hosts}
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        address = self._addresses.get(request.url.host)
        if address is None:
            raise httpx.ConnectError(f"No stand-in is {request.url.host}", request=request)
        there = urlsplit(address)
        url = request.url.copy_with(scheme=there.scheme, host=there.hostname, port=there.port)
        moved = httpx.Request(
            request.method,
            url,
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(moved)

    async def aclose(self) -> None:
        await self._inner.aclose()
