"""
Rate limits at the edge: who is asking, whether they may go on, and the 429 that tells them when.

Rules of this file
1. The visitor's address is the one that `web.reading` found behind the trusted proxies. Where it says nothing about who is
   asking (a unix socket, a private network: see `core.limits`), there is no limit.
2. Bots that say what they are have a bucket of their own beside the people of the same address. A browser that is refused a
   short link is sent there again when the wait is over (`Refresh`): its person notices a second's delay.
3. A REST key is known here by a digest. It is asked for after the host has recognised it, so strangers use up nobody's calls.
4. A limiter that fails lets everybody in, and the host is told.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy: "beacons";q=1000;w=10` for a bucket of
1,000 that fills in ten seconds, and `RateLimit: "beacons";r=0;t=1` for what is left in it and the seconds to wait.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import assert_never

import msgspec
from starlette.responses import Response

from goodanalytics.config import Config
from goodanalytics.core.limits import (
    MAX_BUCKETS,
    Allowed,
    Buckets,
    Decision,
    Exceeded,
    Kind,
    Limit,
    network_of,
)
from goodanalytics.web.glance import KNOWN
from goodanalytics.web.reading import Visit


class InProcess:
    """The `Limiter` that a process has of its own. Several processes let in as many times as much."""

    def __init__(self, clock: Callable[[], datetime], most: int = MAX_BUCKETS) -> None:
        self._clock = clock
        self._buckets = Buckets(most)

    async def take(self, limit: Limit, who: str, cost: int = 1) -> Decision:
        """See `Limiter.take`."""
        return self.take_now(limit, who, cost)

    def take_now(self, limit: Limit, who: str, cost: int = 1) -> Decision:
        """`take` for who cannot wait."""
        return self._buckets.take(limit, who, self._clock().timestamp(), cost)


class Gate:
    """One limit with the limiter that counts for it."""

    def __init__(self, config: Config, kind: Kind) -> None:
        rates = config.rate_limits
        self._config = config
        counts_private = rates is not None and rates.private
        self._network: Callable[[str], str | None] = lru_cache(KNOWN)(
            lambda address: network_of(address, private=counts_private)
        )
        self._own = InProcess(config.clock)
        self._limiter = config.limiter or self._own
        self.limit = None if rates is None else rates.limit(kind)

    async def refuse(self, visit: Visit) -> Response | None:
        """The 429 that this request gets, or `None`: it may go on."""
        decision = await self._take(self._who(visit), 1)
        if not isinstance(decision, Exceeded) or self.limit is None:
            return None
        return refusal(self.limit, decision, wants_page="text/html" in visit.headers.get("accept", ""))

    def lets_in(self, address: str | None) -> bool:
        """
        Count a request from *address* at once, if it may go on; for a `limiter` of the host's own, see `refuse`.

        One that may not is not counted: `refuse` has the words for it.
        """
        if self.limit is None or address is None:
            return True
        who = self._network(address)
        return who is None or isinstance(self._own.take_now(self.limit, who), Allowed)

    async def charge(self, visit: Visit, more: int) -> None:
        """Note that a request which was let in weighs *more* than one."""
        if more > 0:
            await self._take(self._who(visit), more)

    async def take_key(self, token: str) -> Decision | None:
        """Count a call with the REST key *token*; `None` when calls are not limited."""
        return await self._take(hashlib.sha256(token.encode()).hexdigest()[:32], 1)

    def _who(self, visit: Visit) -> str | None:
        if self.limit is None or visit.client.ip is None:
            return None
        network = self._network(visit.client.ip)
        return network if network is None or visit.client.bot is None else f"{network} bot"

    async def _take(self, who: str | None, cost: int) -> Decision | None:
        if self.limit is None or who is None:
            return None
        try:
            return await self._limiter.take(self.limit, who, cost)
        except Exception as error:  # noqa: BLE001  # rule 4; a host's limiter may raise anything
            self._config.report(error, f"counting {self.limit.name}")
            return None


def fields(limit: Limit, decision: Decision) -> Mapping[str, str]:
    """The header fields that tell a client of *decision*."""
    match decision:
        case Allowed():
            left, seconds = decision.remaining, math.ceil(decision.full_in)
        case Exceeded():
            left, seconds = 0, wait_of(decision)
        case _:
            assert_never(decision)
    told = {
        "RateLimit-Policy": f'"{limit.name}";q={limit.burst};w={limit.window}',
        "RateLimit": f'"{limit.name}";r={left};t={seconds}',
    }
    return told | {"Retry-After": str(seconds)} if isinstance(decision, Exceeded) else told


def wait_of(decision: Exceeded) -> int:
    """Whole seconds after which the client is let in."""
    return max(1, math.ceil(decision.retry_in))


def advice(limit: Limit, decision: Exceeded) -> str:
    """What a client reads that came too often."""
    return (
        f"Too many {limit.name} from here: at most {limit.burst} at once, and {limit.per_second:g} more each second. "
        f"Try again in {wait_of(decision)} s"
    )


def refusal(limit: Limit, decision: Exceeded, *, wants_page: bool) -> Response:
    """
    The 429 of the tracker and of short links.

    Args:
        wants_page: Whether a browser is to show the answer: it gets a sentence, and comes again by itself.
    """
    headers = {
        **fields(limit, decision),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-GoodAnalytics": "refused; reason=rate limit",
    }
    if wants_page:
        wait = wait_of(decision)
        headers["Refresh"] = str(wait)
        return Response(
            f"Many people are here at once. This page goes on in {wait} s.\n", 429, headers, "text/plain"
        )
    problem = {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": advice(limit, decision),
        "code": "rate_limited",
    }
    return Response(msgspec.json.encode(problem), 429, headers, "application/problem+json")
