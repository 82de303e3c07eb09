"""
ACT: what goes out over HTTP, and the only module that sends it: to the ad platforms, and to the addresses that somebody typed.

1. `Outbound.to_platform` and `.to_receiver` answer with a `Response`, or with the `Verdict` that nothing came back. They raise
   nothing but cancellation, and no verdict holds an address or a word of anybody's error.
2. Requests go to a transport of httpx and not to its client: so there are no redirects, no cookies, no proxy from the
   environment and no log line with an address in it. A host behind a proxy sets `Config(transport=httpx.AsyncHTTPTransport(proxy=…))`.
3. Each request has limits for connecting, for silence, for everything together (a byte at a time is not silence) and for the
   body, of which the rest is not read. Nothing is decompressed, so a body is as large as it came.
4. A receiver's host is resolved once, by us; every address found must be public, and the connection goes to one of those
   (`core.addresses`). Name and certificate stay those of the host, so a name that moves to 127.0.0.1 between the question and
   the connection gets nothing. Only https, on port 443 or above 1023. `networks` are exceptions that the host's settings name.
5. httpcore writes the headers of responses into its debug log, and a redirect quotes the address that it was sent; those loggers
   are quiet while they work for us.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from socket import SOCK_STREAM
from typing import Final, Self, TypeAlias

import httpx

from goodanalytics.core.addresses import Address, Network, is_public, is_within
from goodanalytics.errors import InvalidInput
from goodanalytics.platforms import Request, Response, Verdict
from goodanalytics.version import __version__

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""`resolve(host, port)`: the addresses of a host, best first. Raises `OSError` when there are none."""

Send: TypeAlias = Callable[[httpx.Request], Awaitable[httpx.Response]]
"""One request to whoever its address names; the answer's body is still to be read."""

MOST_ADDRESSES: Final = 3
"""How many addresses of one receiver are tried before it counts as out of reach."""

_LOGGERS: Final = ("connection", "http11", "http2", "proxy", "socks")
_quiet: ContextVar[bool] = ContextVar("goodanalytics_outbound_quiet", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    How long an answer may take, and how large it may be.

    Attributes:
        connect: Seconds for a connection, TLS included.
        silence: Seconds without a byte, either way.
        total: Seconds from the first thing that is done to the last byte of the answer.
        body: Bytes that are read of an answer.
        connections: At the same time, to all together.
    """

    connect: float = 5.0
    silence: float = 15.0
    total: float = 30.0
    body: int = 1_048_576
    connections: int = 20


PLATFORMS: Final = Limits()
# Nothing is done with a receiver's body; it is read so that the receiver can finish.
RECEIVERS: Final = Limits(silence=10.0, total=15.0, body=65_536)


class AddressRefused(Exception):
    """
    Nothing is sent to this address. `str()` says why and not which it is.

    Attributes:
        code: A word: `scheme, userinfo, port, unresolved, not_public`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def resolved(host: str, port: int) -> Sequence[str]:
    """What the operating system says of *host*, in its order, each address once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Pinned:
    """
    Sends to addresses that were looked at. Rule 4.

    Args:
        inner: Gets the request with the address in place of the host. It must not keep connections: it would know them by the
            address alone, and two receivers may share one.
        resolve: Who is asked for addresses.
        networks: Addresses that need not be public; http is allowed there too.
    """

    def __init__(
        self, inner: httpx.AsyncBaseTransport, resolve: Resolve = resolved, networks: Sequence[Network] = ()
    ) -> None:
        self._inner = inner
        self._resolve = resolve
        self._networks = tuple(networks)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """
        Send *request*.

        Raises:
            AddressRefused: Its address is none that a receiver may have.
            httpx.TransportError: It could not be sent, or nothing came back.
        """
        check_shape(request.url)
        host = request.url.host
        addresses = await self._checked(request.url)
        failed: httpx.TransportError | None = None
        for address in addresses[:MOST_ADDRESSES]:
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error  # nothing was sent yet, so another address may have it
        raise failed or AddressRefused("unresolved", "The receiver's host has no address")

    async def _checked(self, url: httpx.URL) -> list[Address]:
        try:
            answer = await self._resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
            found = [ip_address(text) for text in answer]
        except (OSError, ValueError, UnicodeError):
            raise AddressRefused("unresolved", "The receiver's host has no address") from None
        for address in found:
            opted = is_within(address, self._networks)
            if not opted and not is_public(address):
                raise AddressRefused("not_public", "The receiver's host has an address that is not public")
            if not opted and url.scheme != "https":
                raise AddressRefused("scheme", "The receiver's address is not https")
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def check_shape(url: httpx.URL) -> None:
    """
    What can be said of an address without asking anybody.

    Raises:
        AddressRefused: It is not http or https, holds a password, or names a port of some other service.
    """
    if url.scheme not in {"http", "https"} or not url.host:
        raise AddressRefused("scheme", "The receiver's address is not https")
    if url.userinfo:
        raise AddressRefused("userinfo", "The receiver's address holds a user or a password")
    if url.port is not None and url.port not in {80, 443} and not 1024 <= url.port <= 65_535:
        raise AddressRefused("port", f"The receiver's address has port {url.port}; use 443 or one above 1023")


def checked_address(text: str, *, insecure: bool = False) -> str:
    """
    A receiver's address as it is kept; whom it leads to is looked at whenever something is sent.

    Args:
        text: As it was typed.
        insecure: Whether plain http may be right, because the host's settings name networks of their own.

    Raises:
        InvalidInput: It is none. The message does not repeat it, because some addresses are secrets.
    """
    where = {"where": "url"}
    if not isinstance(text, str) or len(text) > 2_000 or not text.isprintable() or text != text.strip():
        raise InvalidInput("url is not an address; give one such as https://example.com/hooks", **where)
    try:
        url = httpx.URL(text)
        check_shape(url)
    except httpx.InvalidURL:
        raise InvalidInput(
            "url is not an address; give one such as https://example.com/hooks", **where
        ) from None
    except AddressRefused as refusal:
        raise InvalidInput(f"{refusal}. Give one such as https://example.com/hooks", **where) from None
    if url.fragment:
        raise InvalidInput(
            "url has a fragment (#…), which is never sent. Give one such as https://example.com/hooks",
            **where,
        )
    if url.scheme != "https" and not insecure:
        raise InvalidInput(
            "url is not https. For a receiver inside your own network, name that network in webhook_networks",
            **where,
        )
    return str(url)


class Outbound:
    """
    Two ways out: to the platforms, whose addresses are ours, and to receivers, whose addresses somebody typed.

    Args:
        transport: In place of the way to the platforms; whoever made it closes it.
        networks: Addresses of receivers that need not be public. Name none but your own.
        resolve: Who is asked for receivers' addresses.
        verify: Whose certificates count; the usual authorities when left out.
        to_platforms: Limits.
        to_receivers: Limits.
    """

    def __init__(
        self,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        networks: Sequence[Network] = (),
        resolve: Resolve = resolved,
        verify: ssl.SSLContext | None = None,
        to_platforms: Limits = PLATFORMS,
        to_receivers: Limits = RECEIVERS,
    ) -> None:
        self._verify = verify
        self._given = transport
        self._networks = tuple(networks)
        self._resolve = resolve
        self._to_platforms = to_platforms
        self._to_receivers = to_receivers
        self._platforms: httpx.AsyncBaseTransport | None = transport
        self._receivers: Pinned | None = None

    async def to_platform(self, request: Request) -> Response | Verdict:
        """The platform's answer; or why there is none."""
        if self._platforms is None:
            self._platforms = self._transport(self._to_platforms, keep=True)
        return await _exchanged(self._platforms.handle_async_request, request, self._to_platforms)

    async def to_receiver(self, request: Request) -> Response | Verdict:
        """The receiver's answer; or why there is none, `code` saying `address_…` where nothing may be sent there."""
        if self._receivers is None:
            inner = self._transport(self._to_receivers, keep=False)
            self._receivers = Pinned(inner, self._resolve, self._networks)
        return await _exchanged(self._receivers.send, request, self._to_receivers)

    async def aclose(self) -> None:
        """Close what we opened. The next request opens it again."""
        opened = (self._platforms if self._given is None else None, self._receivers)
        self._platforms, self._receivers = self._given, None
        for transport in opened:
            if transport is not None:
                await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _transport(self, limits: Limits, *, keep: bool) -> httpx.AsyncHTTPTransport:
        # Made when it is needed: reading the authorities' certificates takes 20 ms, and most hosts have no receivers.
        return httpx.AsyncHTTPTransport(
            verify=True if self._verify is None else self._verify,
            limits=httpx.Limits(
                max_connections=limits.connections, max_keepalive_connections=None if keep else 0
            ),
        )


async def _exchanged(send: Send, request: Request, limits: Limits) -> Response | Verdict:
    try:
        with _quietly():
            async with asyncio.timeout(limits.total):
                return await _exchange(send, _asked(request, limits), limits.body)
    except AddressRefused as refusal:
        return Verdict(status="retry", code=f"address_{refusal.code}", message=str(refusal))
    except (TimeoutError, httpx.TimeoutException) as error:
        connecting = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        told = "No connection in time" if connecting else "No whole answer in time"
        return Verdict(status="retry", code="connect_timeout" if connecting else "timeout", message=told)
    except (httpx.LocalProtocolError, UnicodeEncodeError):
        # Nothing was sent. What a header has of anybody's is a credential, and the error would quote it.
        told = "A credential has a line break or a letter outside ASCII, so it fits no header; store it again"
        return Verdict(status="credential", code="unusable_credential", message=told)
    except httpx.ConnectError as error:
        if _is_of_tls(error):
            return Verdict(status="retry", code="tls", message="No TLS connection, or a wrong certificate")
        return Verdict(status="retry", code="unreachable", message="No connection")
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError):
        return Verdict(status="retry", code="cut", message="The connection broke before the answer was whole")


async def _exchange(send: Send, asked: httpx.Request, most: int) -> Response:
    answer = await send(asked)
    try:
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > most:
                break
    finally:
        await answer.aclose()
    return Response(status=answer.status_code, headers=dict(answer.headers.items()), body=bytes(body[:most]))


def _asked(request: Request, limits: Limits) -> httpx.Request:
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"goodanalytics/{__version__}",
    }
    waits = httpx.Timeout(limits.silence, connect=limits.connect, pool=limits.total)
    return httpx.Request(
        request.method,
        request.url,
        headers=headers | request.headers,
        content=request.body,
        extensions={"timeout": waits.as_dict()},
    )


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _quietly() -> Iterator[None]:
    for name in _LOGGERS:
        logging.getLogger(f"httpcore.{name}").addFilter(_is_told)  # adding it again does nothing
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def _is_told(_record: logging.LogRecord) -> bool:
    return not _quiet.get()


__all__ = [
    "PLATFORMS",
    "RECEIVERS",
    "AddressRefused",
    "Limits",
    "Outbound",
    "Pinned",
    "Resolve",
    "check_shape",
    "checked_address",
    "resolved",
]
