"""
What a request shows of its visitor: cookies, address, machine, and whether they may be followed at all.

The address is the socket's, unless the socket is a trusted proxy: then `X-Forwarded-For` is read from the right, past every
trusted proxy, to the first address that no proxy of ours vouches for. What stands further left may be anybody's invention.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Any, Generic, TypeVar
from uuid import UUID

from starlette.types import Scope

from goodanalytics.config import Config, type_of_network
from goodanalytics.core import bots
from goodanalytics.core import consent as consents
from goodanalytics.core.bounds import MAX_ID, text, uuid_or_none
from goodanalytics.core.browsers import parted
from goodanalytics.core.clients import client_of
from goodanalytics.core.consent import Consent
from goodanalytics.core.hits import Client, Signals
from goodanalytics.core.identity import stands_for_nobody
from goodanalytics.core.urls import parameters
from goodanalytics.ingest import is_excluded

SCOPE_KEY = "goodanalytics"
"""Where the middleware leaves the `Visit` for `analytics.visitor(request)`."""

_NOT_IN_A_WORD = re.compile(r"[^ !-:<-~]")
"""What a value between semicolons cannot hold."""


T = TypeVar("T")


class _lazy(Generic[T]):  # noqa: N801  # a decorator
    """`functools.cached_property` without its lock, which costs more than most of what it guards here."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._name = read.__name__
        self.__doc__ = read.__doc__

    def __get__(self, visit: Any, _owner: object = None) -> T:
        value = visit.__dict__[self._name] = self._read(visit)
        return value


class Visit:
    """
    One request, as far as it tells of its visitor. Each part is read when it is first asked for: most pages ask for few.

    Attributes:
        was_resolved: Whether the host asked who it is, so that the cookie is worth setting.
        was_reset: Whether the user signed out, so that the browser starts anew.
    """

    was_resolved = was_reset = False

    def __init__(self, scope: Scope, config: Config) -> None:
        self.config = config
        # As the server gave it: a host's own middleware may write the scope anew before we are asked. Not the scope itself:
        # it holds us, and a ring of the two would wait for the garbage collector with all that a request is.
        self._headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._client: tuple[str, int] | None = scope.get("client")
        self._scheme: str = scope.get("scheme", "http")
        self._query: bytes = scope.get("query_string", b"")
        self._is_excluded = bool(config.exclude) and _is_excluded(scope, config)
        self._said = None if config.consent is None else config.consent_of(scope)

    @_lazy
    def headers(self) -> Mapping[str, str]:
        """By lower-cased name."""
        return headers_of(self._headers)

    @_lazy
    def cookies(self) -> Mapping[str, str]:
        """By name."""
        return cookies_of(self.headers)

    @_lazy
    def host(self) -> str:
        """The host that was asked, in lower case, with its port if it was named."""
        return self.headers.get("host", "").lower()

    @_lazy
    def is_secure(self) -> bool:
        """Whether the browser came by https."""
        scheme = self.headers.get("x-forwarded-proto", "") if _is_trusted(self._peer, self.config) else ""
        return (scheme or self._scheme).split(",", 1)[0].strip() in ("https", "wss")

    @_lazy
    def client(self) -> Client:
        """The visitor's machine."""
        return client_of(self.address, self.headers, self.config.geo_headers)

    @_lazy
    def consent(self) -> Consent | None:
        """What the visitor allows ad platforms, as far as the request says."""
        return consents.of_request(self.headers, self._said)

    @_lazy
    def landed_with(self) -> UUID | None:
        """The click of `?ga_id=`."""
        return _landed_with(self._query) if b"ga_id=" in self._query else None

    @_lazy
    def click_id(self) -> UUID | None:
        """From `?ga_id=`, else from the cookie."""
        return self.landed_with or uuid_or_none(self.cookies.get(self.config.cookies.click))

    @_lazy
    def anonymous_id(self) -> str:
        """From the cookie; a new one when the browser has none."""
        return self._known or self.config.new_token()

    @_lazy
    def is_new(self) -> bool:
        """Whether *anonymous_id* was made for this request."""
        return self._known is None

    @_lazy
    def refusal(self) -> str | None:
        """Why this visitor is not followed, or `None`."""
        return (
            _refusal(self.headers, self.config)
            or ("excluded" if self._is_excluded else None)
            or _owner(self.cookies, self.address, self.config)
        )

    @property
    def workspace_id(self) -> UUID:
        """The workspace of the host that was asked."""
        return self.config.workspace_of(self.host)

    @property
    def accepted(self) -> str:
        """What `X-GoodAnalytics` says of a hit of this visit that was taken; a bot learns that it is known for one."""
        bot = self.client.bot
        return "accepted" if bot is None else f"accepted; bot={_NOT_IN_A_WORD.sub('', bot)}"

    @property
    def signals(self) -> Signals:
        """Who it may be."""
        return Signals(anonymous_id=self.anonymous_id, click_id=self.click_id)

    def renew(self) -> None:
        """Take the browser for one that nobody knows any more: the answer sets a new cookie and drops its click's."""
        self.anonymous_id, self.is_new, self.cookie_day = self.config.new_token(), True, ""
        self.click_id = self.landed_with = None
        self.was_resolved = self.was_reset = True

    @_lazy
    def cookie_day(self) -> str:
        """The day of the cookie by which the browser is known, as `core.browsers.parted` gives it; empty when there is none."""
        return "" if self._known is None else parted(self.cookies.get(self.config.cookies.anonymous, ""))[1]

    @_lazy
    def _known(self) -> str | None:
        said, _ = parted(self.cookies.get(self.config.cookies.anonymous, ""))
        return usable(said) if len(said) <= MAX_ID else None  # what is remembered of strangers shall be short

    @_lazy
    def _peer(self) -> str | None:
        return peer_of(self._client[0]) if self._client else None

    @_lazy
    def address(self) -> str | None:
        """The visitor's address; see the module's rule on proxies."""
        return address_behind(self._peer, self.headers.get("x-forwarded-for", ""), self.config)


def visit_of(scope: Scope, config: Config) -> Visit:
    """The visit of *scope*; the one that the middleware has begun to read, if it did."""
    found = scope.get(SCOPE_KEY)
    return found if isinstance(found, Visit) else Visit(scope, config)


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The request's headers by lower-cased name; repeated ones joined by commas (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in found:
            found[name] += ("; " if name == "cookie" else ", ") + value
        else:
            found[name] = value
    return found


def cookies_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The request's cookies; what cannot be read is passed over, the rest is kept."""
    found: dict[str, str] = {}
    for part in headers.get("cookie", "").split(";"):
        name, equals, value = part.strip().partition("=")
        if not equals or name in found:
            continue
        if value.startswith('"'):
            jar: SimpleCookie = SimpleCookie()
            with suppress(CookieError):
                jar.load(f"{name}={value}")
            value = jar[name].value if name in jar else value  # without its quotes
        found[name] = value
    return found


def address_behind(peer: str | None, forwarded: str, config: Config) -> str | None:
    """The visitor's address: *peer*, or where that is a trusted proxy, what *forwarded* says. See the module's rule."""
    address = peer
    if not _is_trusted(address, config):
        return address
    for hop in reversed(forwarded.split(",")):
        found = peer_of(hop)
        if found is None:
            return address
        address = found
        if not _is_trusted(address, config):
            break
    return address


@lru_cache(maxsize=8192)
def peer_of(value: str) -> str | None:
    """*value* as an address, without port, brackets and zone; `None` when it is none."""
    value = value.strip().strip('"')
    if value.startswith("["):
        value = value[1:].partition("]")[0]
    elif value.count(":") == 1:
        value = value.partition(":")[0]
    try:
        address = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return None
    # A server that listens on both families shows an IPv4 peer as ::ffff:a.b.c.d, which no IPv4 network contains.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _is_trusted(address: str | None, config: Config) -> bool:
    return _is_within(address, config.trusted_proxies)


def _is_within(address: str | None, networks: Sequence[str | type_of_network]) -> bool:
    if address is None or not networks:
        return False
    found = ipaddress.ip_address(address)
    return any(isinstance(network, type_of_network) and found in network for network in networks)


def _refusal(headers: Mapping[str, str], config: Config) -> str | None:
    if config.respect_privacy_signals and (headers.get("sec-gpc") == "1" or headers.get("dnt") == "1"):
        return "privacy signal"
    return "prefetch" if bots.is_prefetch(headers) else None


def _is_excluded(scope: Scope, config: Config) -> bool:
    try:
        return is_excluded(config, scope)
    except Exception as error:  # noqa: BLE001  # a host's rule may raise anything
        config.report(error, "asking whether a request is excluded")
        return True


def _owner(cookies: Mapping[str, str], address: str | None, config: Config) -> str | None:
    """Why a visit is one of the site's own people's, who would only count themselves."""
    if cookies.get(config.cookies.ignore) == "1":
        return "own visit"
    return "excluded address" if _is_within(address, config.exclude_ips) else None


def _landed_with(query: bytes) -> UUID | None:
    values = dict(reversed(parameters("http://x/?" + query.decode("latin-1"))))
    return uuid_or_none(values.get("ga_id"))


@lru_cache(maxsize=8192)
def usable(anonymous_id: str | None) -> str | None:
    """*anonymous_id*, if a browser may be known by it."""
    return (
        anonymous_id
        if anonymous_id
        and anonymous_id.isascii()
        and len(anonymous_id) <= MAX_ID
        and text(anonymous_id) == anonymous_id
        and not stands_for_nobody(anonymous_id)
        else None
    )
