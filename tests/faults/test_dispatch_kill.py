"""SIGKILL of workers that deliver the outbox, a hundred times: the platform counts each conversion exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from goodanalytics import Analytics, Config
from goodanalytics.platforms import Meta
from tests.faults.dispatchers import clock_of
from tests.standins import Cut, Honest, Silent, page, serving
from tests.standins.meta import SECRETS, THROTTLED
from tests.standins.meta import Meta as MetaStandIn

KILLS = 100
WORKERS = 3
SPEED = 400.0  # a lease of five minutes is over in three quarters of a second
SEED = 11
SECRET = "for-tests-only-" + "0" * 32


class Nursery:
    """Workers by their process ids."""

    def __init__(self, url: str, address: str, epoch: float, errors: Path) -> None:
        settings = {"GOODANALYTICS_DATABASE_URL": url, "GOODANALYTICS_SECRET_KEY": SECRET}
        known = {key: value for key, value in os.environ.items() if not key.startswith("GOODANALYTICS_")}
        self._errors = errors.open("w")
        self._child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("dispatchers.py")), address, str(epoch), str(SPEED)],
            env=known | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self.workers: list[int] = []

    async def spawn(self) -> None:
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        self.workers.append(int(await asyncio.to_thread(self._child.stdout.readline)))

    def kill(self, index: int) -> None:
        """SIGKILL: no handler runs, no answer is noted."""
        os.kill(self.workers.pop(index), signal.SIGKILL)

    def close(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            pipe.close()
        self._child.kill()
        self._child.wait()
        self._errors.close()


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)


async def test_a_hundred_killed_workers_tell_each_conversion_exactly_once(
    durable, wait_until, tmp_path, chance
):
    """
    Three workers share an outbox that is being filled, and one of them is killed again and again: before, within and after
    a request. The platform throttles, breaks off, falls silent and answers with pages in between. In the end it has
    counted every sale, each under one id, and the outbox knows it.
    """
    url, books = durable
    epoch = time.time()
    clock = clock_of(epoch, SPEED)
    meta = MetaStandIn(clock)
    meta.usual = Honest(0.01)
    with serving(meta):
        config = Config(
            secret_key=SECRET, platforms=[Meta(address=meta.address)], consent_silence="granted", clock=clock,
            worker=False, spool_path="off",
        )  # fmt: skip
        async with Analytics(url, config) as analytics:
            await analytics.platforms.store_credentials("meta", SECRETS)
            await analytics.platforms.enable("meta")
            visitor = await analytics.identify(email="ada@shop.example")
            nursery = Nursery(url, meta.address, epoch, tmp_path / "workers.log")
            try:
                sold = await _kill_while_selling(analytics, visitor, meta, nursery, chance)

                async def is_done() -> bool:
                    return bool(
                        await books.one(
                            "SELECT NOT EXISTS (SELECT FROM dispatches WHERE state <> 'delivered')"
                        )
                    )

                await wait_until(is_done, "everything is delivered")
            finally:
                nursery.close()

    assert {event.removeprefix("Purchase ") for event in meta.accepted} == sold
    assert len(sold) >= 2 * KILLS
    # The kills did hit between the platform's answer and its note: some were told again, under the id that it knew.
    assert max(meta.accepted.values()) > 1
    # What a worker that dies has written half of is no request.
    assert [fault for fault in meta.faults if "content-length is not" not in fault] == []
    assert await books.ask("SELECT state, count(*) FROM dispatches GROUP BY state") == [
        ("delivered", len(sold))
    ]


async def _kill_while_selling(analytics, visitor, meta, nursery, chance) -> set[str]:
    sold: set[str] = set()
    killed = 0

    async def sell() -> None:
        while killed < KILLS:
            outcome = await analytics.sale(
                visitor, amount_cents=100, currency="EUR", key=f"A-{len(sold)}", place="system"
            )
            sold.add(str(outcome.event_id))
            if len(sold) > len(meta.accepted) + 60:
                await asyncio.sleep(0.01)

    selling = asyncio.create_task(sell())
    for _ in range(WORKERS):
        await nursery.spawn()
    while killed < KILLS:
        if killed % 5 == 0:
            trouble = [Cut(keeps=True), Cut("amid", keeps=True), page(502), THROTTLED]
            # One that is never answered keeps its worker for the length of a timeout, unless that is killed first.
            meta.next(chance.choice(trouble + [Silent(keeps=True)] * (killed < KILLS // 2)))
        await _something_happens(meta, chance)
        nursery.kill(chance.randrange(WORKERS))
        killed += 1
        await nursery.spawn()
    await selling
    return sold


async def _something_happens(meta, chance) -> None:
    """Some moment: a request is there, or was just answered, or neither for a while."""
    calls, deadline = len(meta.calls) + chance.randrange(3), time.monotonic() + 2
    while len(meta.calls) < calls and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
    await asyncio.sleep(chance.uniform(0, 0.03))
