"""
Where a short link leads.

1. The destination is the link's own address with parameters *appended*: what stands there keeps its order and its bytes, so
   that a signed address stays valid. A parameter that the address has already is not added again, but a UTM parameter of
   the link replaces it.
2. Added, in this order: the link's UTM parameters, the request's own query (which overrules the link's; bounded, without
   ours and without click ids of ad platforms, which belong to the click itself), and exactly one `ga_id`, the click's id.
   What would make the address longer than `MAX_DESTINATION` is left out.
3. Nothing in a request can choose the host. The address is ASCII without blanks, as a header carries it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, quote_plus, unquote_plus, urlsplit
from uuid import UUID

import msgspec

from goodanalytics.core import urls
from goodanalytics.core.campaigns import CLICK_IDS
from goodanalytics.core.hits import MAX_URL, text
from goodanalytics.errors import InvalidInput

KEY = re.compile(r"[A-Za-z0-9_-]{1,255}")
ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Letters and digits of a random key, without those that look alike: l and 1, I, O and 0."""

KEY_LENGTH = 7  # 57^7 is two million million

NOT_PASSED = frozenset({"ga_id", "via", "ref", "qr", "s", *CLICK_IDS})
"""Parameters that mean something to us and nothing to the destination; compared as `urls.parameters` reads names."""

MAX_PASSED = 10
MAX_PASSED_NAME = 64  # characters
MAX_PASSED_VALUE = 512  # characters
MAX_DESTINATION = 8_000  # bytes; nginx and Apache read header lines of 8 KiB, the header's name among them

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
    if not is_web or len(address.encode()) > MAX_URL or any(c.isspace() for c in address) or "\\" in address:
        raise InvalidInput(
            f"{where} is {address[:80]!r}; it must be an absolute http or https address of at most {MAX_URL} bytes, "
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
    utm = dict(link.utm)
    kept = [part for part in own.split("&") if own and not _names(part) & ({"ga_id"} | utm.keys())]
    present = {unquote_plus(part.partition("=")[0]) for part in kept}
    passed = {name: value for name, value in _passed(query) if name not in present}
    bridge = f"ga_id={click_id}"
    room = MAX_DESTINATION - len(ascii_form(f"{base}?{'&'.join([*kept, bridge])}{hash_mark}{fragment}"))
    added: list[str] = []
    for name, value in ({name: value for name, value in utm.items() if name not in passed} | passed).items():
        part = f"{quote_plus(name)}={quote_plus(value)}"
        if len(part) < room:
            room -= len(part) + 1
            added.append(part)
    return ascii_form(f"{base}?{'&'.join([*kept, *added, bridge])}{hash_mark}{fragment}")


def ascii_form(address: str) -> str:
    """*address* as a header may carry it: whatever is not printable ASCII percent-encoded (RFC 9110, section 10.2.2)."""
    return "".join(c if "!" <= c <= "~" else quote(c, safe="", errors="replace") for c in address)


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
        if not usable or name in seen or _names(part) & NOT_PASSED:
            continue
        seen.add(name)
        yield name, value
        if len(seen) == MAX_PASSED:
            return


def _names(part: str) -> set[str]:
    """The names that *part* of a query has for whoever lands with it: other case and `name[]` are the same."""
    return {name for name, _ in urls.parameters(f"?{part}")}
