"""
Redis: rate limits that several processes and machines count together.

    Config(limiter=RedisLimiter("redis://127.0.0.1/0"))

The buckets are those of `core.limits.take`, worked out within Redis by its own clock, so that neither a race nor a machine
whose clock is wrong lets anybody in twice. A bucket that is full again vanishes by itself.
"""

from __future__ import annotations

from typing import Any, Final

from goodanalytics.core.limits import HEAVIEST, Allowed, Decision, Exceeded, Limit

try:
    from redis import asyncio as redis
except ImportError as error:
    raise ImportError(
        "goodanalytics.contrib.redis needs redis, which is not installed. Try: pip install 'goodanalytics[redis]'"
    ) from error

PATIENCE: Final = 0.25
"""Seconds that Redis may take to answer or to be reached; beyond it the request is let in (`Limiter`)."""

# Seconds since 1970 have six decimals here: a whole token may have become 0.999… on its way.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local rate, burst, cost, heaviest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
full = math.min(math.max(full, now), now + (burst + heaviest) / rate)
local tokens = burst - (full - now) * rate
if tokens < 1 - 1e-4 then return {0, tostring((1 - tokens) / rate)} end
full = full + math.min(cost, heaviest) / rate
redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000) + 1)
return {math.max(0, math.floor(burst - (full - now) * rate + 1e-4)), tostring(full - now), 1}
"""


class RedisLimiter:
    """
    A `Limiter` whose counts are in Redis.

    Args:
        url: `redis://…`, `rediss://…` or `unix://…`.
        prefix: What the names of our keys begin with.
    """

    def __init__(self, url: str, prefix: str = "goodanalytics") -> None:
        self._redis: Any = redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        self._take: Any = self._redis.register_script(_TAKE)
        self._prefix = prefix

    async def take(self, limit: Limit, who: str, cost: int = 1) -> Decision:
        """
        Count a request; see `Limiter.take`.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        found = await self._take(
            keys=[f"{self._prefix}:{limit.name}:{who}"], args=[limit.per_second, limit.burst, cost, HEAVIEST]
        )
        seconds = float(found[1])
        return Allowed(int(found[0]), seconds) if len(found) == 3 else Exceeded(seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


__all__ = ["RedisLimiter"]
