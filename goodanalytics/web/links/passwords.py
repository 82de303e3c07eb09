"""
The password of a link: the form's body, the tries, and the cookie of those who know it.

Rules of this file
1. A password comes in the body of a POST, never in an address, and is neither kept nor logged.
2. Each client has `TRIES` for a link, also where no other limit counts: there is no address behind which a whole office may
   guess. The digest takes memory and time on purpose, so at most `AT_ONCE` are worked out at a time, in threads.
3. Whoever gave it gets a signed cookie for this link and this password: it holds for `LIFE`, and no longer than the password.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Receive

from goodanalytics.config import Config
from goodanalytics.core import tokens
from goodanalytics.core.limits import Exceeded, Limit, network_of
from goodanalytics.core.links import Link, opens
from goodanalytics.web.cookies import cookie
from goodanalytics.web.limits import InProcess, wait_of
from goodanalytics.web.reading import Visit

TRIES: Final = Limit("passwords", 0.1, 10)
"""Ten at once, then one every ten seconds."""

LIFE: Final = timedelta(hours=1)
AT_ONCE: Final = 2
MAX_BODY: Final = 4_096  # bytes
MAX_FIELDS: Final = 10
FIELD: Final = "password"


class Tried(Enum):
    """What became of a try."""

    OPEN = auto()
    WRONG = auto()


class Passwords:
    """Who may pass."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._limiter = config.limiter or InProcess(config.clock)
        self._room = asyncio.Semaphore(AT_ONCE)

    def is_known(self, visit: Visit, link: Link, now: datetime) -> bool:
        """Whether this browser gave the link's password lately."""
        token = visit.cookies.get(_cookie_name(link))
        if token is None:
            return False
        keys = [self._config.secret_key, *self._config.previous_secret_keys]
        return tokens.verify(keys, "unlock", token, now) == _claims(link)

    async def try_(self, visit: Visit, link: Link, receive: Receive) -> Tried | int:
        """What became of the password in a request's body; or the seconds to wait, when there were too many tries."""
        address = visit.client.ip
        network = None if address is None else network_of(address, private=True)
        who = f"{link.id} {network or 'nobody'}"
        try:
            decision = await self._limiter.take(TRIES, who)
        except Exception as error:  # noqa: BLE001  # a host's limiter may raise anything
            self._config.report(error, "counting passwords")
            return 30  # a door that nobody watches stays shut
        if isinstance(decision, Exceeded):
            return wait_of(decision)
        given = await _given(receive)
        if given is None or link.password_hash is None:
            return Tried.WRONG
        async with self._room:
            is_right = await asyncio.to_thread(opens, given, link.password_hash)
        return Tried.OPEN if is_right else Tried.WRONG

    def cookie(self, visit: Visit, link: Link, now: datetime) -> str:
        """The `Set-Cookie` value of a browser that gave the password."""
        token = tokens.sign(self._config.secret_key, "unlock", _claims(link), now, LIFE)
        return cookie(visit, _cookie_name(link), token, http_only=True, max_age=LIFE)


def _cookie_name(link: Link) -> str:
    return f"_ga_open_{link.id.hex}"


def _claims(link: Link) -> Mapping[str, str]:
    # Another password is another digest, which shows nothing of the one that is kept.
    kept = (link.password_hash or "").encode()
    return {"link": str(link.id), "of": hashlib.sha256(kept).hexdigest()[:16]}


async def _given(receive: Receive) -> str | None:
    """The password in a form's body; `None` when there is none, or the body is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body", False):
            break
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    return dict(fields).get(FIELD)
