"""
How often one client may come: a token bucket, as values.

The rules of this file:

* A bucket is one number: the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371, which is a
  token bucket counted backwards). A client that was never seen, or not for long, has a full one and costs no memory.
* One token lets a request in, however heavy it proves to be; what it costs beyond that is owed, up to `HEAVIEST`, and the
  next request waits for it.
* A clock that is set back shuts nobody out for longer than an empty bucket takes to fill.
* Memory is bounded: beyond `MAX_BUCKETS` the client that was seen longest ago is forgotten, which gives it a full bucket. To
  forget is to let in: a limit is there against abuse, and must not become one.
* A client is an address: IPv4 whole, IPv6 by its /64, which is what one household or machine gets (RFC 6177). Declared bots
  and people behind one address have buckets of their own, so that a neighbour's crawler does not use up what people have.

An address of a private network is a proxy that nobody declared, an office's own machines or a test on this machine: behind it
may be every visitor of the site, so it is not limited unless `RateLimits(private=True)` says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, Literal, Protocol

from goodanalytics.errors import ConfigError

Kind = Literal["beacons", "redirects", "api"]
"""What is counted: the tracker's requests, short links, and REST calls."""

HEAVIEST: Final = 100  # tokens
"""The most that one request costs: a beacon's body holds a hundred items."""

MAX_BUCKETS: Final = 50_000
"""Clients that are remembered at a time; about 10 MB when all of them are."""

_PRIVATE: Final = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8", "::1/128",  # this machine
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",  # RFC 1918, RFC 4193
        "169.254.0.0/16", "fe80::/10",  # RFC 3927, RFC 4291
        "100.64.0.0/10",  # RFC 6598: between a carrier's or a cloud's own machines
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """
    How often one client may come.

    The rates are meant to stop a runaway loop and a simple flood, and nobody else. A lecture hall of 500 that scans one QR code
    in ten seconds is 50 redirects a second, and as many pages. Others allow 100 requests a minute and address (original-api.md),
    4 a second and address (GoatCounter), 1,000 events a second and device (Amplitude); Dub's REST takes 60 to 3,000 a minute
    and key. Sources: web-analytics.md, section 1b; links-and-attribution.md, section 1b;
    https://developers.amplitude.com/docs/batch-event-upload-api

    Attributes:
        beacons: Beacons, clicks and pixels a second for one client address; each item of a list counts. `None` is off.
        redirects: Short links a second for one client address, also those that do not exist. `None` is off.
        api: REST calls a second for one key. `None` is off.
        burst: How many may come at once from a client that was quiet; at least 1.
        private: Whether addresses of private networks are limited too. Then declare your `trusted_proxies`: an undeclared
            proxy is one client.

    Raises:
        ConfigError: A rate is not positive, or *burst* is below 1.
    """

    beacons: float | None = 100
    redirects: float | None = 100
    api: float | None = 100
    burst: int = 1_000
    private: bool = False

    def __post_init__(self) -> None:
        for name in ("beacons", "redirects", "api"):
            rate = getattr(self, name)
            if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
                raise ConfigError(
                    f"rate_limits.{name} is {rate!r}; write a number of requests a second such as 100, or None for no limit"
                )
        if not isinstance(self.burst, int) or self.burst < 1:
            raise ConfigError(f"rate_limits.burst is {self.burst!r}; write a whole number from 1 on")

    def limit(self, kind: Kind) -> Limit | None:
        """The limit on *kind*; `None` when there is none."""
        rate = getattr(self, kind)
        return None if rate is None else Limit(kind, rate, self.burst)


@dataclass(frozen=True, slots=True)
class Limit:
    """
    One limit.

    Attributes:
        name: What it is called in headers.
        per_second: Tokens that come back each second.
        burst: Tokens of a full bucket.
    """

    name: str
    per_second: float
    burst: int

    @property
    def window(self) -> int:
        """Seconds in which an empty bucket becomes full, rounded up."""
        return math.ceil(self.burst / self.per_second)


@dataclass(frozen=True, slots=True)
class Allowed:
    """
    The client may go on.

    Attributes:
        remaining: Requests that it could make at once after this one.
        full_in: Seconds until its bucket is full.
    """

    remaining: int
    full_in: float


@dataclass(frozen=True, slots=True)
class Exceeded:
    """
    The client has to wait.

    Attributes:
        retry_in: Seconds until a request is let in; more than 0.
    """

    retry_in: float


Decision = Allowed | Exceeded


class Limiter(Protocol):
    """
    Whatever counts requests. Pass your own as `Config(limiter=…)` where several processes shall share their counts.

    One that raises lets the request in, and the host hears of it: a store that is down must not take the site with it.
    """

    async def take(self, limit: Limit, who: str, cost: int = 1) -> Decision:
        """
        Count a request of *who* under *limit*.

        Args:
            who: A network, or the digest of a key; never the key itself.
            cost: 1 to `HEAVIEST`. A request for which one token is there is let in, and the rest is owed.
        """
        ...


def take(limit: Limit, full_at: float | None, now: float, cost: int = 1) -> tuple[float, Decision]:
    """
    Take *cost* tokens out of a bucket if one is there.

    Args:
        full_at: When the bucket will be full, as this function answered before; `None` for a client that is new.
        now: Seconds on the same clock.

    Returns:
        When the bucket will be full, and whether the client may go on.

    >>> full_at, decision = take(Limit("beacons", 2.0, 1), None, 100.0)
    >>> full_at, decision
    (100.5, Allowed(remaining=0, full_in=0.5))
    >>> take(Limit("beacons", 2.0, 1), full_at, 100.0)
    (100.5, Exceeded(retry_in=0.5))
    """
    # A clock that was set back would have left the bucket full in a far future.
    latest = now + (limit.burst + HEAVIEST) / limit.per_second
    full_at = now if full_at is None else min(max(full_at, now), latest)
    tokens = limit.burst - (full_at - now) * limit.per_second
    # A whole token may have become 0.999… on its way through seconds since 1970, which have seven decimals.
    if tokens < 1 - _ROUNDING:
        return full_at, Exceeded((1 - tokens) / limit.per_second)
    full_at += min(cost, HEAVIEST) / limit.per_second
    left = limit.burst - (full_at - now) * limit.per_second
    return full_at, Allowed(max(0, math.floor(left + _ROUNDING)), full_at - now)


_ROUNDING: Final = 1e-4


class Buckets:
    """The buckets of all clients, at most *most* of them."""

    def __init__(self, most: int = MAX_BUCKETS) -> None:
        self._most = most
        self._full_at: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, limit: Limit, who: str, now: float, cost: int = 1) -> Decision:
        """Take *cost* tokens out of the bucket that *who* has under *limit*; see `take`."""
        key = (limit.name, who)
        # Out and in again: the order of the dictionary is the order in which clients were seen.
        full_at, decision = take(limit, self._full_at.pop(key, None), now, cost)
        self._full_at[key] = full_at
        if len(self._full_at) > self._most:
            del self._full_at[next(iter(self._full_at))]
        return decision


@lru_cache(maxsize=8192)
def network_of(address: str, *, private: bool = False) -> str | None:
    """
    What counts as one client at *address*; `None` when nobody can be told apart there.

    >>> network_of("2001:db8:1:2:3::4"), network_of("203.0.113.7"), network_of("10.0.0.1")
    ('2001:db8:1:2::/64', '203.0.113.7', None)
    """
    try:
        found = ip_address(address)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    if not private and any(found in network for network in _PRIVATE):
        return None
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(found)
