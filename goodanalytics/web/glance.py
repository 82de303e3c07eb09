"""
What a request shows at a glance: enough for nearly every one, at a fraction of what reading it with care costs.

`Glance` looks at raw header bytes and remembers what it found for the same bytes. It says yes only where `Visit` would say
the same; whatever is out of the ordinary is left to that. Tests hold the two against each other (`tests/web/test_beacons.py`,
`tests/web/test_middleware.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from goodanalytics.config import Config
from goodanalytics.core.raw import PIXELS
from goodanalytics.web.reading import address_behind, peer_of, usable

KNOWN: Final = 8192
"""Of how many browsers, hosts and addresses what we found is remembered. To find it again takes microseconds."""

_PREFETCH: Final = frozenset((b"sec-purpose", b"purpose", b"x-purpose", b"x-moz"))
_CONSENT: Final = frozenset((b"sec-gpc",))
"""Is kept with a hit also where it does not keep the hit away."""

_PRIVACY: Final = frozenset((b"sec-gpc", b"dnt"))

Headers = dict[bytes, bytes]
"""A request's headers by lower-cased name; the last one of those that are repeated."""

Browser = tuple[str, bytes | None, dict[bytes, bytes]]
"""What a browser's cookies say: its id, its click, and the pixels' marks."""


class Glance:
    """
    How to look at requests under one configuration.

    Attributes:
        browser: Of a cookie header, the `Browser` if it is one that we know and follow.
        address: The visitor's address, of the socket's and of `X-Forwarded-For`.
    """

    def __init__(self, config: Config) -> None:
        # A host's own rules want to see the request as it is.
        self._is_open = not (config.exclude or config.exclude_ips)
        self._unusual = _PREFETCH | (_PRIVACY if config.respect_privacy_signals else _CONSENT)
        names = config.cookies
        self._anonymous, self._click, self._ignore = (
            name.encode() for name in (names.anonymous, names.click, names.ignore)
        )
        wanted = b"|".join(map(re.escape, (self._anonymous, self._click, self._ignore, *PIXELS)))
        # Bytes that stand between quotes are not plain.
        self._cookies = re.compile(rb"(?:^|; ?)(" + wanted + rb")=([^;\" ]*)(?![^;])").findall
        self.browser: Callable[[bytes], Browser | None] = lru_cache(KNOWN)(self._read_cookies)
        self.address: Callable[[str, bytes], str | None] = lru_cache(KNOWN)(
            lambda peer, forwarded: address_behind(peer_of(peer), forwarded.decode("latin-1"), config)
        )

    def is_plain(self, scope: Any, headers: Headers) -> bool:
        """Whether nothing in the head of the request calls for more than a glance."""
        return (
            self._is_open
            and not scope["query_string"]
            and len(headers) == len(scope["headers"])  # repeated ones are to be joined
            and self._unusual.isdisjoint(headers)
        )

    def _read_cookies(self, header: bytes) -> Browser | None:
        cookies = dict(self._cookies(header))
        anonymous_id = usable(cookies.pop(self._anonymous, b"").decode("latin-1"))
        if anonymous_id is None or self._ignore in cookies:
            return None
        return anonymous_id, cookies.pop(self._click, None), cookies
