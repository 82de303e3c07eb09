"""Limits that processes count together, on a real Redis."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from goodanalytics.contrib.redis import RedisLimiter
from goodanalytics.core.limits import Allowed, Exceeded, Limit
from tests.conftest import needs

SLOW = Limit("beacons", 0.001, 5)
"""So slow that no token comes back while a test runs."""


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = needs("redis-server", shutil.which("redis-server"), "apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert server.poll() is None
            asyncio.run(asyncio.sleep(0.05))
    client.close()
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(10)


@pytest.fixture
async def limiters(redis_url: str) -> AsyncIterator[list[RedisLimiter]]:
    """Two, as two processes would have them, in a room of this test's own."""
    prefix = uuid.uuid4().hex
    made = [RedisLimiter(redis_url, prefix) for _ in range(2)]
    yield made
    for limiter in made:
        await limiter.close()


async def test_two_processes_let_in_as_many_as_one(limiters: list[RedisLimiter]) -> None:
    """A hundred requests at once, spread over both: five are let in, and the others are told how long to wait."""
    answers = await asyncio.gather(*(limiters[n % 2].take(SLOW, "203.0.113.7") for n in range(100)))
    allowed = [a for a in answers if isinstance(a, Allowed)]
    refused = [a for a in answers if isinstance(a, Exceeded)]

    assert sorted(a.remaining for a in allowed) == [0, 1, 2, 3, 4]
    assert len(refused) == 95
    assert all(990 < a.retry_in <= 1_000 for a in refused)


async def test_others_have_buckets_of_their_own(limiters: list[RedisLimiter]) -> None:
    """Another client and another limit are not touched by one that came too often."""
    await limiters[0].take(SLOW, "203.0.113.7", cost=5)

    assert isinstance(await limiters[1].take(SLOW, "203.0.113.7"), Exceeded)
    assert isinstance(await limiters[1].take(SLOW, "203.0.113.8"), Allowed)
    assert isinstance(await limiters[1].take(Limit("redirects", 0.001, 5), "203.0.113.7"), Allowed)


async def test_tokens_come_back(limiters: list[RedisLimiter]) -> None:
    """Who was refused is let in again when its time has come."""
    quick = Limit("beacons", 200.0, 1)
    await limiters[0].take(quick, "203.0.113.7")
    async with asyncio.timeout(10):
        while isinstance(await limiters[1].take(quick, "203.0.113.7"), Exceeded):
            await asyncio.sleep(0.001)


async def test_a_redis_that_is_away_is_said_so() -> None:
    """The limiter raises, and the gate lets everybody in (tests/web/test_limits.py)."""
    limiter = RedisLimiter("redis://127.0.0.1:9/0")
    with pytest.raises(redis.RedisError):
        await limiter.take(SLOW, "203.0.113.7")
    await limiter.close()


def test_without_the_package_the_error_says_what_to_install() -> None:
    """The message names the extra."""
    code = "import sys; sys.modules['redis'] = None; import goodanalytics.contrib.redis"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "pip install 'goodanalytics[redis]'" in done.stderr
