"""
A short link on the shortest way: one plain click of a person on a plain link.

Nearly every click is one. Of its request only what decides where it leads is looked at: whether it is a person's, and whether
it may be followed. What else it says is made durable as it came (`core.raw.RawClick`), and the worker reads it. Whatever is
out of the ordinary (a query, a bot, a prefetch, a privacy signal, a link with rules, a hook that waits, a limit that is
reached) is left to `Redirect`. A test holds both ways against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec
from starlette.types import Scope

from goodanalytics.config import Config
from goodanalytics.core import bots
from goodanalytics.core.bounds import text
from goodanalytics.core.clients import HINTS, MAX_USER_AGENT
from goodanalytics.core.raw import Machine, RawClick, packed_part
from goodanalytics.web import path_below
from goodanalytics.web.cookies import Keeper, cookies_for
from goodanalytics.web.glance import Glance, Headers
from goodanalytics.web.limits import Gate
from goodanalytics.web.links.answers import Header
from goodanalytics.web.links.plain_links import PlainLink
from goodanalytics.web.reading import SCOPE_KEY, Visit, address_behind, peer_of

MAX_BYTES: Final = 1_024
"""Of a referrer, of the proxies' list of addresses, and of all that a browser says of itself. More is rare, and would fill memory."""

REMEMBERED: Final = 8_192
"""Of how many machines and addresses what we found is remembered."""

_HINTS: Final = tuple(name.encode() for name in HINTS)
_SCHEMES: Final = (None, b"https", b"http")
"""What a proxy says that it was asked by, when it says it plainly."""


class Asker(msgspec.Struct, frozen=True, gc=False):
    """
    A request that would be a plain click on a plain link.

    Attributes:
        host, key: Of the address that it asks for; *key* may be anything.
        machine: A `core.raw.Machine`, packed.
    """

    now: datetime
    host: str
    key: str
    machine: msgspec.Raw
    anonymous_id: str
    kept: list[Header]
    referrer: bytes | None
    address: str | None
    country: str | None


class PlainClicks:
    """
    Knows plain clicks.

    Args:
        gate: Counts them.
        is_waited_for: Whether a hook wants to see a click before it is answered.
    """

    def __init__(self, config: Config, gate: Gate, is_waited_for: Callable[[str], bool]) -> None:
        self._config = config
        self._clock, self._new_id = config.clock, config.new_id
        self._is_ours = config.limiter is None and config.consent is None
        self._is_waited_for = is_waited_for
        self._lets_in = gate.lets_in
        self._glance = Glance(config)
        self._keeper = Keeper(config)
        self._is_secure: Callable[[str, str | None, bytes], bool] = lru_cache(REMEMBERED)(self._read_scheme)
        self._address: Callable[[str, bytes], str | None] = lru_cache(REMEMBERED)(
            lambda peer, forwarded: address_behind(peer_of(peer), forwarded.decode("latin-1"), config)
        )

    def read(self, scope: Scope) -> Asker | None:
        """Who asks; `None` for a request that is to be read with care. One that is not was counted."""
        headers: Headers = dict(scope["headers"])
        if (
            scope["method"] != "GET"
            or not self._is_ours
            or SCOPE_KEY in scope
            or not self._glance.is_plain(scope, headers)
            or self._is_waited_for("link_click")
        ):
            return None
        referrer = headers.get(b"referer")
        forwarded, proto = headers.get(b"x-forwarded-for", b""), headers.get(b"x-forwarded-proto")
        if (
            len(forwarded) > MAX_BYTES
            or proto not in _SCHEMES
            or (referrer is not None and len(referrer) > MAX_BYTES)
        ):
            return None
        machine = _machine_of(headers)
        peer, scheme = scope["client"] and scope["client"][0], scope["scheme"]
        is_secure = scheme == "https" if proto is None else self._is_secure(scheme, peer, proto)
        browser = self._browser(headers, is_secure=is_secure)
        if machine is None or browser is None:
            return None
        address = peer and self._address(peer, forwarded)
        if not self._lets_in(address):
            return None
        anonymous_id, kept = browser
        return Asker(
            self._clock(),
            headers.get(b"host", b"").decode("latin-1").lower(),
            path_below(scope)[1:],
            machine,
            anonymous_id,
            kept,
            referrer,
            address,
            self._glance.country(headers),
        )

    def click(self, asker: Asker, link: PlainLink) -> tuple[RawClick, list[Header]] | None:
        """What is to be logged, and the headers of the answer when it was; `None` when the link is over."""
        if link.until is not None and asker.now >= link.until:
            return None
        click_id = self._new_id()
        raw = RawClick(
            link.workspace_id,
            asker.now,
            asker.anonymous_id,
            click_id,
            link.said,
            asker.machine,
            asker.referrer,
            asker.address,
            asker.country,
        )
        # The same text as `str` gives, in a quarter of its time.
        location = f"{link.before}{msgspec.to_builtins(click_id)}{link.behind}".encode("ascii")
        return raw, [(b"location", location), *link.headers, *asker.kept]

    def _browser(self, headers: Headers, *, is_secure: bool) -> tuple[str, list[Header]] | None:
        """Whose click it is, and the headers that keep them known; `None` for one who may not be followed."""
        kept = self._glance.kept(headers)
        if kept is not None:
            own, day = kept
            if self._keeper.is_of_today(day):
                return own.decode(), []
            return own.decode(), [(b"set-cookie", self._keeper.cookie(own, is_secure=is_secure))]
        scheme, cookies = "https" if is_secure else "http", headers.get(b"cookie", b"")
        visit = Visit({"scheme": scheme, "headers": [(b"cookie", cookies)]}, self._config)
        if visit.refusal is not None:
            return None
        return visit.anonymous_id, [(b"set-cookie", one.encode("latin-1")) for one in cookies_for(visit)]

    def _read_scheme(self, scheme: str, peer: str | None, proto: bytes) -> bool:
        client = None if peer is None else (peer, 0)
        headers = [(b"x-forwarded-proto", proto)]
        return Visit({"scheme": scheme, "client": client, "headers": headers}, self._config).is_secure


class _TooMuchError(Exception):
    """A browser says more of itself than is kept as it is. Not an answer of `_person`, which remembers what it was asked."""


def _machine_of(headers: Headers) -> msgspec.Raw | None:
    """The machine behind a request, packed; `None` when it is a bot's, or says too much."""
    hints = tuple(map(headers.get, _HINTS)) if _HINTS[0] in headers else ()
    try:
        return _person(headers.get(b"user-agent"), headers.get(b"accept-language"), hints)
    except _TooMuchError:
        return None


@lru_cache(maxsize=REMEMBERED)
def _person(
    user_agent: bytes | None, languages: bytes | None, hints: tuple[bytes | None, ...]
) -> msgspec.Raw | None:
    if sum(len(value) for value in (user_agent, languages, *hints) if value is not None) > MAX_BYTES:
        raise _TooMuchError
    agent = None if user_agent is None else text(user_agent.decode("latin-1"), MAX_USER_AGENT)
    return None if bots.judge(agent).bot else packed_part(Machine(user_agent, languages, list(hints)))
