"""
Where a short link leads.

1. The destination is the link's own address with parameters *appended*: what stands there keeps its order and its bytes, so
   that a signed address stays valid. A parameter that the address has already is not added again.
2. Added, in this order: the link's UTM parameters, the request's own query (bounded, without ours and without click ids
   of ad platforms that belong to the click itself), and exactly one `ga_id`, the click's id.
3. Nothing in a request can choose the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote_plus, unquote_plus, urlsplit
from uuid import UUID

import msgspec

from goodanalytics.core import urls
from goodanalytics.core.hits import MAX_URL, text
from goodanalytics.errors import InvalidInput

KEY = re.compile(r"[A-Za-z0-9_-]{1,255}")
ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Letters and digits of a random key, without those that look alike: l and 1, I, O and 0."""

KEY_LENGTH = 7  # 57^7 is two million million

NOT_PASSED = frozenset({"ga_id", "via", "ref", "qr", "s"})
"""Parameters that mean something to us and nothing to the destination."""

MAX_PASSED = 10
MAX_PASSED_NAME = 64  # characters
MAX_PASSED_VALUE = 512  # characters

UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")

LinkType = Literal["short", "referral", "campaign"]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A short link, as its row."""

    workspace_id: UUID
    id: UUID
    domain: str
    key: str
    url: str
    link_type: LinkType = "short"
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_content: str | None = None
    utm_term: str | None = None
    expires_at: datetime | None = None
    external_id: str | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    archived_at: datetime | None = None
    created_at: datetime
    updated_at: datetime

    def is_expired(self, now: datetime) -> bool:
        """Whether the link's time is over; at the very moment it is."""
        return self.expires_at is not None and now >= self.expires_at

    @property
    def utm(self) -> list[tuple[str, str]]:
        """The link's own UTM parameters."""
        return [(name, value) for name in UTM if (value := getattr(self, name))]


def checked_key(key: str) -> str:
    """
    *key* as it may be stored.

    Raises:
        InvalidInput: It has other characters than letters, digits, `-` and `_`, or more than 255 of them.
    """
    if not KEY.fullmatch(key):
        raise InvalidInput(f"key is {key[:80]!r}; use 1 to 255 letters, digits, '-' and '_'", where="key")
    return key


def checked_url(url: str, where: str = "url") -> str:
    """
    *url* as a destination.

    Raises:
        InvalidInput: It is not an absolute http or https address.
    """
    address = text(url, MAX_URL + 1) or ""
    try:
        parts = urlsplit(address)
        is_web = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and urls.parts(address).host is not None
        )
    except ValueError:
        is_web = False
    if not is_web or len(address) > MAX_URL or any(c.isspace() for c in address) or "\\" in address:
        raise InvalidInput(
            f"{where} is {address[:80]!r}; it must be an absolute http or https address of at most {MAX_URL} characters, "
            "such as https://example.com/page",
            where=where,
        )
    return address


def destination(link: Link, query: str, click_id: UUID) -> str:
    """
    The address that a click on *link* leads to.

    Args:
        query: Of the request, as it came.
        click_id: Becomes `ga_id`.
    """
    address, hash_mark, fragment = link.url.partition("#")
    base, _, own = address.partition("?")
    kept = [part for part in own.split("&") if part and _name(part) != "ga_id"]
    present = {_name(part) for part in kept}
    passed = [(name, value) for name, value in _passed(query) if name not in present]
    overruled = {name for name, _ in passed}
    added = [(name, value) for name, value in link.utm if name not in overruled]
    replaced = {name for name, _ in added}
    kept = [part for part in kept if _name(part) not in replaced]
    added += [*passed, ("ga_id", str(click_id))]
    parts = kept + [f"{quote_plus(name)}={quote_plus(value)}" for name, value in added]
    return f"{base}?{'&'.join(parts)}{hash_mark}{fragment}"


def _passed(query: str) -> Iterable[tuple[str, str]]:
    """What of the request's query goes on to the destination: bounded, first value of each name."""
    seen: set[str] = set()
    for part in query.split("&", 200)[:200]:
        name, _, value = part.partition("=")
        name, value = unquote_plus(name), unquote_plus(value)
        usable = (
            name
            and len(name) <= MAX_PASSED_NAME
            and len(value) <= MAX_PASSED_VALUE
            and (name + value).isprintable()
        )
        if not usable or name in NOT_PASSED or name in seen:
            continue
        seen.add(name)
        yield name, value
        if len(seen) == MAX_PASSED:
            return


def _name(part: str) -> str:
    return unquote_plus(part.partition("=")[0])
