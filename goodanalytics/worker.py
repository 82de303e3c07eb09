"""
ACT: the loop that brings hits from the log to the engine.

    log.claim → ingest.process → commit → hooks, all in one transaction a batch
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from goodanalytics.core.hits import Hit
from goodanalytics.core.plan import Outcome
from goodanalytics.errors import Busy, DatabaseUnavailable
from goodanalytics.ingest import Ingest
from goodanalytics.log.postgres import Entry, PostgresLog
from goodanalytics.store import health
from goodanalytics.store.database import blames_rows, savepoint

GROWTH = 4
"""How many times the configured batch size a batch may grow to under a backlog."""

LINGER = 0.05
"""Seconds that the worker waits after a batch of a few. A lag that nobody sees, for a tenth of the work at moderate rates."""

LONG_LINGER = 0.2
"""Seconds that it waits after a batch that is neither of a few nor full, so that the next one is worth its statements."""

A_FEW = 20
"""Hits. What a batch costs whatever its size is as much as what some thirty hits cost."""

STOP_SECONDS = 10
"""How long a stop waits for the batch at hand."""

LONGEST = timedelta(minutes=5)
"""
After which a batch is broken off and begun anew. A PostgreSQL that vanished without a word (its machine, a partition, a failover)
would else be waited for until somebody restarts the worker.
"""

DRAIN_PAUSE = 0.01
"""Seconds between two looks at a log whose last hits another worker has in hand."""

COLLECTOR_RESTS = 1.0
"""Seconds that the cycle collector rests at most for one batch."""


class Worker:
    """
    The loop that takes hits out of the log and processes them.

    It is woken by appends in its own process and looks by itself every `worker_interval`. Several workers, in one process
    or many, share the load; a visitor's hits stay in order because a shard is claimed by one worker at a time.
    """

    def __init__(self, ingest: Ingest, log: PostgresLog) -> None:
        self._ingest = ingest
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._size = ingest.config.batch_size

    def start(self) -> None:
        """Begin to work in the running event loop."""
        self._is_stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="goodanalytics worker")

    async def stop(self) -> None:
        """
        Stop after the batch that is being processed; what is in the log stays there.

        A batch that takes longer than `STOP_SECONDS` is broken off, and is in the log again.
        """
        if self._task is not None:
            self._is_stopping = True
            self._log.wake()
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def drain(self) -> int:
        """
        Process everything that is in the log now, and return how many hits that were.

        What another worker has in hand is waited for.
        """
        total = 0
        while True:
            taken = await self.work()
            total += taken
            if not taken:
                if not (await health.backlog(self._ingest.database, self._now)).waiting:
                    return total
                await asyncio.sleep(DRAIN_PAUSE)

    async def work(self) -> int:
        """
        Take one batch out of the log and process it, in one transaction. Returns its size; 0 when nothing was free.

        While batches come full, the next one is larger, up to `GROWTH` times the configured size: the statements of a batch
        cost nearly the same whatever its size.

        Raises:
            DatabaseUnavailable: Nobody answers, or not within `LONGEST`. The batch is in the log again.
        """
        smallest = self._ingest.config.batch_size
        try:
            async with asyncio.timeout(LONGEST.total_seconds()) as limit:
                entries, done = await self._batch()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DatabaseUnavailable(
                f"A batch was not through within {LONGEST} and was broken off. Does PostgreSQL hang, or does somebody hold a lock? "
                "`pg_stat_activity` shows who waits for what"
            ) from error
        is_full = len(entries) == self._size
        self._size = min(2 * self._size, GROWTH * smallest) if is_full else smallest
        self._ingest.hooks.notify([hit for hit, _ in done], [outcome for _, outcome in done])
        return len(entries)

    async def _batch(self) -> tuple[list[Entry], list[tuple[Hit, Outcome]]]:
        """What was taken out of the log, and what became of it."""
        with _collector_resting():
            async with self._ingest.database.begin() as conn:
                entries = await self._log.claim(conn, self._size)
                return entries, await self._settle(conn, entries)

    async def _settle(self, conn: Any, entries: Sequence[Entry]) -> list[tuple[Hit, Outcome]]:
        """Process *entries*; where that fails, halve them until the hit that is to blame stands alone, and set it aside."""
        if not entries:
            return []
        if any(entry.hit is None for entry in entries):
            await self._log.set_aside(
                conn, [e for e in entries if e.hit is None], "cannot be read", self._now
            )
            entries = [entry for entry in entries if entry.hit is not None]
        hits = [entry.hit for entry in entries if entry.hit is not None]
        try:
            async with savepoint(conn) as inner:
                return list(zip(hits, await self._ingest.process(inner, hits), strict=True))
        except Busy:
            raise
        except Exception as error:
            if not blames_rows(error):
                raise
            if len(entries) == 1:
                self._ingest.config.report(error, f"processing hit {hits[0].id}, which is now set aside")
                await self._log.set_aside(conn, entries, f"{type(error).__name__}: {error}", self._now)
                return []
            middle = len(entries) // 2
            return await self._settle(conn, entries[:middle]) + await self._settle(conn, entries[middle:])

    @property
    def _now(self) -> Any:
        return self._ingest.config.clock()

    async def _run(self) -> None:
        config = self._ingest.config
        pause = config.worker_interval
        while not self._is_stopping:
            try:
                taken = await self.work()
                pause = config.worker_interval
                if taken >= config.batch_size:
                    continue
                if taken:
                    linger = LINGER if taken <= A_FEW else LONG_LINGER
                    await asyncio.sleep(min(linger, pause.total_seconds()))
                    continue
            except DatabaseUnavailable as error:
                config.report(error, "looking into the log")
                pause = min(pause * 2, timedelta(seconds=30))
            except Exception as error:  # noqa: BLE001  # the worker outlives whatever one batch meets
                config.report(error, "processing the log")
                pause = min(pause * 2, timedelta(seconds=30))
            if not self._is_stopping:
                await self._log.wait(pause)


@contextmanager
def _collector_resting() -> Iterator[None]:
    """
    Keep Python's cycle collector away from a batch.

    A batch is some forty objects a hit, which live until it is over and hold no cycles. The collector would look at all of them
    several times, take them for long-lived, and at every third batch search the whole process. A collector that the host has
    switched off stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    timer = asyncio.get_running_loop().call_later(COLLECTOR_RESTS, gc.enable)
    try:
        yield
    finally:
        timer.cancel()
        gc.enable()
