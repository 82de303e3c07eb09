"""
What a request shows of its visitor: cookies, address, machine, and whether they may be followed at all.

The address is the socket's, unless the socket is a trusted proxy: then `X-Forwarded-For` is read from the right, past every
trusted proxy, to the first address that no proxy of ours vouches for. What stands further left may be anybody's invention.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from uuid import UUID

from starlette.types import Scope

from goodanalytics.config import Config, type_of_network
from goodanalytics.core import bots
from goodanalytics.core.clients import client_of
from goodanalytics.core.hits import MAX_ID, Client, Signals, text, uuid_or_none
from goodanalytics.core.identity import stands_for_nobody
from goodanalytics.core.urls import parameters
from goodanalytics.ingest import is_excluded

SCOPE_KEY = "goodanalytics"
"""Where the middleware leaves the `Visit` for `analytics.visitor(request)`."""

_NOT_IN_A_WORD = re.compile(r"[^ !-:<-~]")
"""What a value between semicolons cannot hold."""


@dataclass(slots=True)
class Visit:
    """
    One request, as far as it tells of its visitor.

    Attributes:
        anonymous_id: From the cookie; a new one when the browser has none.
        is_new: Whether *anonymous_id* was made for this request.
        click_id: From `?ga_id=`, else from the cookie.
        refusal: Why this visitor is not followed, or `None`.
        was_resolved: Whether the host asked who it is, so that the cookie is worth setting.
        was_reset: Whether the user signed out, so that the browser starts anew.
    """

    config: Config
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    host: str
    is_secure: bool
    client: Client
    anonymous_id: str
    is_new: bool
    click_id: UUID | None
    landed_with: UUID | None
    refusal: str | None
    was_resolved: bool = field(default=False)
    was_reset: bool = field(default=False)

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


def visit_of(scope: Scope, config: Config) -> Visit:
    """Read *scope*, or take what the middleware has read already."""
    found = scope.get(SCOPE_KEY)
    return found if isinstance(found, Visit) else read_visit(scope, config)


def renew(scope: Scope, config: Config) -> Visit:
    """The visit of *scope* on a browser that nobody knows any more: its answer sets a new cookie and drops its click's."""
    visit = visit_of(scope, config)
    visit.anonymous_id, visit.is_new = config.new_token(), True
    visit.click_id = visit.landed_with = None
    visit.was_resolved = visit.was_reset = True
    return visit


def read_visit(scope: Scope, config: Config) -> Visit:
    """Read everything that we use of a request. Never raises for anything that a client can send."""
    headers = headers_of(scope)
    cookies = cookies_of(headers)
    is_proxied = _is_trusted(_peer(scope), config)
    address = _address(scope, headers, config)
    known = usable(cookies.get(config.cookies.anonymous))
    landed_with = _landed_with(scope)
    scheme = headers.get("x-forwarded-proto", "") if is_proxied else ""
    return Visit(
        config=config,
        headers=headers,
        cookies=cookies,
        host=headers.get("host", "").lower(),
        is_secure=(scheme or scope.get("scheme", "http")).split(",")[0].strip() in ("https", "wss"),
        client=client_of(address, headers, config.geo_headers),
        anonymous_id=known or config.new_token(),
        is_new=known is None,
        click_id=landed_with or uuid_or_none(cookies.get(config.cookies.click)),
        landed_with=landed_with,
        refusal=_refusal(scope, headers, config) or _owner(cookies, address, config),
    )


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-cased name; repeated ones joined by commas (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
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


def client_address(scope: Scope, config: Config) -> str | None:
    """The visitor's address; see the module's rule on proxies."""
    return _address(scope, headers_of(scope), config)


def _address(scope: Scope, headers: Mapping[str, str], config: Config) -> str | None:
    return address_behind(_peer(scope), headers.get("x-forwarded-for", ""), config)


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


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return peer_of(client[0]) if client else None


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


def _refusal(scope: Scope, headers: Mapping[str, str], config: Config) -> str | None:
    if config.respect_privacy_signals and (headers.get("sec-gpc") == "1" or headers.get("dnt") == "1"):
        return "privacy signal"
    if bots.is_prefetch(headers):
        return "prefetch"
    try:
        return "excluded" if is_excluded(config, scope) else None
    except Exception as error:  # noqa: BLE001  # a host's rule may raise anything
        config.report(error, "asking whether a request is excluded")
        return "excluded"


def _owner(cookies: Mapping[str, str], address: str | None, config: Config) -> str | None:
    """Why a visit is one of the site's own people's, who would only count themselves."""
    if cookies.get(config.cookies.ignore) == "1":
        return "own visit"
    return "excluded address" if _is_within(address, config.exclude_ips) else None


def _landed_with(scope: Scope) -> UUID | None:
    query: bytes = scope.get("query_string", b"")
    if b"ga_id=" not in query:
        return None
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
