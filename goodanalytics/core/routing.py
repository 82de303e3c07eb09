"""
Where somebody who asks for a link is led.

In this order, the first that applies:

1. a path behind the key that the link does not forward, or that would climb out: there is no such link;
2. before its first moment: not yet; from its last one on: over;
3. a password that was not given is asked for, also of whoever only wants to see where the link leads;
4. the inspection page (`+`);
5. the card, for the preview bots of social networks, if the link has one of its own;
6. the first rule whose conditions hold; the address for iOS or Android; the visitor's variant; the link's address.

Whether uses are left (`max_clicks`) takes the database, so whoever serves the link asks that, and answers `Route.ended`.

A visitor stays on their variant as long as it exists: each variant draws a number from its name, the link and the visitor,
divided by its weight, and the lowest wins (weighted rendezvous hashing: Schindelhauer and Schomaker, "Weighted Distributed
Hash Tables", 2005). When a weight changes, only visitors to or from that variant move, which cumulative shares of [0,1) do
not achieve: there every border behind the changed one moves.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from goodanalytics.core.destinations import Target, forwarded_path, target
from goodanalytics.core.link_matching import Asked, Need, Test, VisitorFacts, needs_of, tests_of
from goodanalytics.core.links import Domain, Link

PREVIEW = "social-preview"
"""`bots.Verdict.category` of those who fetch a page for its card."""


class Go(msgspec.Struct, frozen=True, gc=False):
    """
    Redirect.

    Attributes:
        url: Complete, as the `Location` header carries it.
        status: 301, 302, 307 or 308.
        rule: Name of the rule that decided, or its place (`#2`); `None` when none did.
        variant: Name of the variant that the visitor is on.
    """

    url: str
    status: int
    rule: str | None = None
    variant: str | None = None


class Cloak(msgspec.Struct, frozen=True, gc=False):
    """Show *url* in a frame. Attributes as of `Go`."""

    url: str
    rule: str | None = None
    variant: str | None = None


class AskPassword(msgspec.Struct, frozen=True, gc=False):
    """Show the form that asks for the password."""


class Preview(msgspec.Struct, frozen=True, gc=False):
    """Show the link's card. *url* is where the link leads, without a click."""

    url: str


class Inspect(msgspec.Struct, frozen=True, gc=False):
    """Show where the link leads, and do not go there. *url* is its own address, without a click."""

    url: str


class NotYet(msgspec.Struct, frozen=True, gc=False):
    """The link starts at *starts_at*."""

    starts_at: datetime


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The link is over; *url* is where that leads, or `None`."""

    url: str | None


class NoSuchPath(msgspec.Struct, frozen=True, gc=False):
    """There is no such link: it forwards no path, or this one would climb out of the destination."""


Decision = Go | Cloak | AskPassword | Preview | Inspect | NotYet | Ended | NoSuchPath


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the addresses that a link may lead to."""

    target: Target
    tests: tuple[Test, ...] = ()
    rule: str | None = None
    variant: str | None = None
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """
    A link made ready: what does not depend on who asks is worked out. Keep it as long as the link is kept.

    Attributes:
        needs: The facts of `Asked` that this link's decision reads; the others need not be found out.
        ended: The answer of a link that is over, also when its uses are.
    """

    link: Link
    needs: frozenset[Need]
    ended: Ended
    _own: _Way
    _rules: tuple[_Way, ...]
    _ios: _Way | None
    _android: _Way | None
    _variants: tuple[_Way, ...]

    @property
    def everybodys(self) -> Target | None:
        """The address that every person is redirected to while the link is open; `None` when it depends on who asks."""
        if self._rules or self._ios or self._android or self._variants or self.link.cloaked:
            return None
        return self._own.target

    def decide(self, asked: Asked, now: datetime) -> Decision:
        """What becomes of one request; see the module for the order."""
        link = self.link
        path = forwarded_path(asked.path_rest) if asked.path_rest else ""
        if path is None or (path and not link.forward_path):
            return NoSuchPath()
        if link.starts_at is not None and now < link.starts_at:
            return NotYet(link.starts_at)
        if link.expires_at is not None and now >= link.expires_at:
            return self.ended
        if link.password_hash is not None and not asked.unlocked:
            return AskPassword()
        if asked.inspect:
            return Inspect(self._own.target.bare)
        if asked.bot_kind == PREVIEW and (link.og_title or link.og_description or link.og_image):
            return Preview(self._own.target.bare)
        way = self._way(asked, now)
        url = way.target.address(asked.click_id, asked.query if link.forward_query else "", path)
        if link.cloaked and way.target.is_web:
            return Cloak(url, way.rule, way.variant)
        return Go(url, link.redirect_status, way.rule, way.variant)

    def _way(self, asked: Asked, now: datetime) -> _Way:
        for way in self._rules:
            if all(test(asked, now) for test in way.tests):
                return way
        if asked.device is not None:
            if self._ios is not None and asked.device.os in _IOS:
                return self._ios
            if self._android is not None and asked.device.os == "Android":
                return self._android
        if self._variants:
            return self._drawn(asked.stable_id or str(asked.click_id))
        return self._own

    def _drawn(self, visitor: str) -> _Way:
        key = self.link.id.bytes
        return min(self._variants, key=lambda way: _draw(key, visitor, way.variant or "") / way.weight)


_IOS = frozenset({"iOS", "iPadOS"})


def prepare(link: Link, domain: Domain | None = None) -> Route:
    """*link* made ready; *domain* is its host's, where it has a row."""
    utm = link.utm

    def way(url: str | None, **facts: Any) -> _Way | None:
        return None if url is None else _Way(target(url, utm), **facts)

    rules = tuple(
        _Way(target(rule.url, utm), tests, rule=rule.name or f"#{number}")
        for number, (rule, tests) in enumerate(zip(link.rules, tests_of(link.rules), strict=True), 1)
    )
    needs = needs_of(link.rules)
    ended = link.expired_url or (None if domain is None else domain.expired_url)
    return Route(
        link=link,
        needs=needs | {"device"} if link.ios_url or link.android_url else needs,
        ended=Ended(None if ended is None else target(ended).bare),
        _own=_Way(target(link.url, utm)),
        _rules=rules,
        _ios=way(link.ios_url),
        _android=way(link.android_url),
        _variants=tuple(_Way(target(v.url, utm), variant=v.name, weight=v.weight) for v in link.variants),
    )


def route(link: Link, domain: Domain | None, asked: Asked, now: datetime) -> Decision:
    """What becomes of one request; whoever serves a link more than once keeps what `prepare` makes of it."""
    return prepare(link, domain).decide(asked, now)


def _draw(link: bytes, visitor: str, variant: str) -> float:
    """
    A number from 0 on, exponentially distributed, always the same one for the same words.

    The smallest of such numbers, each divided by its weight, is each one's with the probability of its share.
    """
    said = f"{variant}\n{visitor}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(said, digest_size=8, key=link).digest()
    # 52 bits and a half are exact in a float, and neither 0 nor 1.
    return -math.log(((int.from_bytes(digest) >> 12) + 0.5) / 2**52)


__all__ = [
    "PREVIEW", "AskPassword", "Asked", "Cloak", "Decision", "Ended", "Go", "Inspect", "Need", "NoSuchPath", "NotYet", "Preview",
    "Route", "VisitorFacts", "prepare", "route",
]  # fmt: skip
