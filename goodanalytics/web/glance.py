"""
What a request shows at a glance: enough for nearly every one, at a fraction of what reading it with care costs.

`Glance` looks at raw header bytes. It says yes only where `Visit` would say the same; whatever is out of the ordinary is left
to that. Tests hold the two against each other (`tests/web/test_beacons.py`, `tests/web/test_middleware.py`). What few
requests differ in is remembered; what each browser has of its own is read again, because to fetch it out of a table of
thousands takes as long (the table is not in the processor's cache), and strangers could fill the table with long headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from goodanalytics.config import Config
from goodanalytics.core.bounds import MAX_ID
from goodanalytics.core.browsers import DAY, parted
from goodanalytics.core.places import from_headers
from goodanalytics.core.raw import PIXELS
from goodanalytics.web.reading import address_behind, peer_of, usable

KNOWN: Final = 8192
"""Of how many hosts, programs and addresses what we found is remembered. To find it again takes microseconds."""

LONG: Final = 512
"""Bytes of a header beyond which nothing about it is remembered; a longest user agent that is kept whole has as many."""

_PREFETCH: Final = frozenset((b"sec-purpose", b"purpose", b"x-purpose", b"x-moz"))
_CONSENT: Final = frozenset((b"sec-gpc",))
"""Is kept with a hit also where it does not keep the hit away."""

_PRIVACY: Final = frozenset((b"sec-gpc", b"dnt"))

Headers = dict[bytes, bytes]
"""A request's headers by lower-cased name; the last one of those that are repeated."""

Browser = tuple[str, bytes | None, dict[bytes, bytes]]
"""What a browser's cookies say: its id, its click, and the pixels' marks."""

Kept = tuple[bytes, bytes]
"""A browser's id, and the day of its cookie as `core.browsers.parted` gives it."""

_OWN: Final = rb"(?![0-]+(?:[.;]|\Z))([A-Za-z0-9_-]{20,128})(" + DAY.encode() + rb")?(?=;|\Z)"
"""An id like those that we make, longer than any placeholder and not all zeros, so that `usable` has nothing against it; and its day."""

# What stands between semicolons, without quotes and blanks.
_value = re.compile(rb"[!#-:<-~]*").fullmatch
_unquoted = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


class Glance:
    """How to look at requests under one configuration."""

    def __init__(self, config: Config) -> None:
        # A host's own rules want to see the request as it is.
        self._is_open = not (config.exclude or config.exclude_ips)
        self._unusual = _PREFETCH | (_PRIVACY if config.respect_privacy_signals else _CONSENT)
        names = config.cookies
        self._anonymous, self._click, self._ignore = (
            name.encode() for name in (names.anonymous, names.click, names.ignore)
        )
        others = (self._click, self._ignore, *PIXELS)
        self._wanted = frozenset((self._anonymous, *others))
        self._name = self._anonymous + b"="
        self._own = re.compile(re.escape(self._name) + _OWN).search
        self._other = re.compile(b"(?:" + b"|".join(map(re.escape, others)) + b")=").search
        self._geo_headers = config.geo_headers
        self._has_proxies = bool(config.trusted_proxies)
        self._behind: Callable[[str, bytes], str | None] = lambda peer, forwarded: address_behind(
            peer_of(peer), forwarded.decode("latin-1"), config
        )
        self._remembered = lru_cache(KNOWN)(self._behind)

    def address(self, peer: str, headers: Headers) -> str | None:
        """The visitor's address; *peer* is the socket's."""
        forwarded = headers.get(b"x-forwarded-for", b"") if self._has_proxies else b""
        return (self._remembered if len(forwarded) <= LONG else self._behind)(peer, forwarded)

    def country(self, headers: Headers) -> str | None:
        """The visitor's country, where a trusted CDN says it."""
        if not self._geo_headers:
            return None
        given = {name: headers.get(name.encode(), b"").decode("latin-1") for name in self._geo_headers}
        place = from_headers(given, self._geo_headers)
        return None if place is None else place.country

    def is_plain(self, scope: Any, headers: Headers) -> bool:
        """Whether nothing in the head of the request calls for more than a glance."""
        return not scope["query_string"] and self.is_usual(scope, headers)

    def is_usual(self, scope: Any, headers: Headers) -> bool:
        """`is_plain` whatever stands in the query."""
        return (
            self._is_open
            and len(headers) == len(scope["headers"])  # repeated ones are to be joined
            and headers.keys().isdisjoint(self._unusual)
        )

    def browser(self, headers: Headers) -> Browser | None:
        """The browser, if it is one that we know and follow."""
        header = headers.get(b"cookie", b"")
        own = self.single(header)
        if own is not None and self._other(header) is None:
            return own[0].decode(), None, {}
        found = self._one_by_one(header)
        return found and found[0]

    def kept(self, headers: Headers) -> Kept | None:
        """What the cookie of a browser that we know and follow says, where it may be set again without quotes."""
        header = headers.get(b"cookie", b"")
        own = self.single(header)
        if own is not None and self._ignore not in header:
            return own
        found = self._one_by_one(header)
        if found is None:
            return None
        (anonymous_id, _, _), day = found
        return (anonymous_id.encode(), day.encode()) if _unquoted(anonymous_id) else None

    def single(self, cookies: bytes) -> Kept | None:
        """What the one cookie that names the browser says, if we made it; found without looking at each of the host's."""
        found = self._own(cookies)
        if found is None or cookies.count(self._name) != 1:
            return None
        start = found.start()
        own, day = found.groups(b"")
        return (own, day) if start == 0 or cookies[start - 2 : start] == b"; " else None

    def _one_by_one(self, header: bytes) -> tuple[Browser, str] | None:
        """The browser and the day of its cookie."""
        cookies: dict[bytes, bytes] = {}
        for part in header.split(b";"):
            name, equals, value = part.strip().partition(b"=")
            if name in self._wanted and equals:
                if name in cookies or not _value(value):
                    return None
                cookies[name] = value
        said, day = parted(cookies.pop(self._anonymous, b"").decode())
        anonymous_id = usable(said) if len(said) <= MAX_ID else None
        if anonymous_id is None or self._ignore in cookies:
            return None
        return (anonymous_id, cookies.pop(self._click, None), cookies), day
