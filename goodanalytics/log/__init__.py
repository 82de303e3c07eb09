"""
The log: where a hit is made durable before anybody is told that it was taken.

Two verbs: `append(hits)` returns when they are safe; `claim(n)` hands out the oldest in a transaction that either processes
them or leaves them where they were. `SafeLog` is the log that everybody writes to: the primary one, and a spool on this
machine's disk for the time in which that cannot be reached.

1. When the primary cannot take hits, they go into the spool, and those after them straight away: nobody waits for a
   time-out twice. Hits that the primary refuses for what they are, and `Busy`, are the caller's to hear.
2. While the spool holds anything, new hits queue behind it. It is drained in the background: one look at the primary each
   `PROBE` seconds, with the oldest hits; when that succeeds, all others at once. For the last few, new hits wait a moment,
   then go to the primary again.
3. So hits that one process took one after the other reach the primary in that order, also across a restart. Between
   processes there is no order.
4. A hit leaves the spool after the primary has it. What breaks in between makes it come twice, under the same id, which
   processing counts once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, Protocol

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from goodanalytics.core.raw import Entry, encoded
from goodanalytics.errors import Busy
from goodanalytics.log.spool import Spool
from goodanalytics.store.database import is_lost

PROBE = 1.0  # seconds between two looks at a primary that is down
ADOPT = 5.0  # seconds between two looks for files that nobody holds any more
DRAIN_HITS = 500  # in one append to the primary
MOST_FIRED = 1_000  # calls of `fire` that are on their way

Durability = Literal["now", "log", "fire"]
"""When a verb returns: when it is recorded, when it is safe, or at once."""

logger = logging.getLogger("goodanalytics")


class HitLog(Protocol):
    """Whatever makes hits durable."""

    async def append(self, hits: Sequence[Entry]) -> None:
        """Return when *hits*, read or raw, are durable."""

    def begin(self, hits: Sequence[Entry]) -> Awaitable[None]:
        """`append` without a coroutine around it where none is needed. What it raises, or its end, goes to `rescue`."""

    async def rescue(self, hits: Sequence[Entry], error: Exception) -> None:
        """Return when *hits*, whose `begin` ended with *error*, are durable after all; else raise it."""

    def fire(self, hits: Sequence[Entry]) -> None:
        """Take *hits* and return at once. Raises `Busy` when too many are on their way."""


class Primary(Protocol):
    """Where hits shall be."""

    async def append(self, hits: Sequence[Entry]) -> None:
        """Return when *hits*, read or raw, are durable."""

    def queue(self, hits: Sequence[Entry]) -> asyncio.Future[None]:
        """`append` without a coroutine around it: done when *hits* are durable. Raises `Busy` at once."""

    @property
    def waiting(self) -> tuple[int, int]:
        """How many hits are not durable yet, and about how many bytes they are."""

    async def append_encoded(self, bodies: Sequence[bytes]) -> None:
        """Return when hits that were encoded (`core.raw`) before are durable; one that cannot be read is kept as well."""

    async def stop(self) -> None:
        """Finish what is under way."""


class SafeLog:
    """
    The primary log with a spool behind it; without a spool, the primary alone.

    Attributes:
        primary: Where hits shall be.
        spool: Where they are meanwhile; `None` for a host that wants none.
        is_down: Whether the primary failed when it was last asked.
    """

    def __init__(
        self, primary: Primary, spool: Spool | None, report: Callable[[BaseException, str], None]
    ) -> None:
        self.primary = primary
        self.spool = spool
        self.is_down = False
        self._is_diverted = False
        self._report = report
        self._gate = asyncio.Event()
        self._gate.set()
        self._fell = asyncio.Event()
        self._draining = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._fired: set[asyncio.Task[None]] = set()

    async def append(self, hits: Sequence[Entry]) -> None:
        """
        Return when *hits*, read or raw, are durable, in the primary or in the spool.

        Raises:
            Busy: They are not: too much is waiting, or the spool has no room.
            DatabaseUnavailable: The primary does not answer, and there is no spool.
        """
        if self.spool is None:
            await self.primary.append(hits)
            return
        if not self._gate.is_set():
            await self._gate.wait()
        if not self._is_diverted:
            try:
                await self.primary.queue(hits)
            except Exception as error:  # noqa: BLE001  # what is not for the spool is raised again
                await self.rescue(hits, error)
            else:
                self.is_down = False
            return
        if hits:
            await self.spool.append([encoded(hit) for hit in hits])

    def begin(self, hits: Sequence[Entry]) -> Awaitable[None]:
        """
        `append` for at least one hit, for who answers thousands of requests a second.

        Raises:
            Busy: Too much is waiting. Like what the awaitable raises, it goes to `rescue`.
        """
        if self._is_diverted or not self._gate.is_set():
            return self.append(hits)
        return self.primary.queue(hits)

    async def rescue(self, hits: Sequence[Entry], error: Exception) -> None:
        """
        Return when *hits*, whose `begin` ended with *error*, lie in the spool.

        Raises:
            Exception: *error*, where the spool is no help; or `Busy`: it has no room.
        """
        if self.spool is None or not cannot_take(error):
            raise error
        self._divert(error)
        await self.spool.append([encoded(hit) for hit in hits])

    def fire(self, hits: Sequence[Entry]) -> None:
        """
        Take *hits* and return at once, for who would rather lose a few than wait: they are safe a moment later.

        Raises:
            Busy: Too many are on their way.
        """
        if len(self._fired) >= MOST_FIRED:
            raise Busy
        task = asyncio.get_running_loop().create_task(self._append_fired(hits))
        self._fired.add(task)
        task.add_done_callback(self._fired.discard)

    async def _append_fired(self, hits: Sequence[Entry]) -> None:
        try:
            await self.append(hits)
        except Exception as error:  # noqa: BLE001  # nobody waits for the answer but the host's log
            self._report(error, f"making {len(hits)} hits safe that nobody waited for; they are lost")

    @property
    def waiting(self) -> int:
        """Hits in this process's memory that are not safe yet; their senders wait for the answer."""
        return self.primary.waiting[0]

    async def start(self) -> None:
        """Take over what earlier processes left, and begin to look after the spool."""
        if self.spool is None:
            return
        if (obstacle := self.spool.obstacle()) is not None:
            logger.warning(
                "Hits cannot be kept while the database is away: %s. Give Config(spool_path=…) a directory on a local "
                "disk, or 'off'",
                obstacle,
            )
        await self._adopt(self.spool)
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(
                self._look_after(self.spool), name="goodanalytics spool"
            )

    async def stop(self) -> None:
        """Finish what is under way; what lies in the spool stays there for the next start."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self._land()
        await self.primary.stop()
        if self.spool is not None:
            await self.spool.close()

    async def settle(self) -> None:
        """
        Return when every hit that was taken is in the primary.

        Raises:
            DatabaseUnavailable: The spool has hits and the primary does not answer.
        """
        await self._land()
        await self.primary.stop()
        if self.spool is not None and self._is_diverted:
            await self._drain(self.spool)

    async def _land(self) -> None:
        """Return when nothing that was fired is on its way."""
        while self._fired:
            await asyncio.gather(*self._fired)

    def _divert(self, error: Exception) -> None:
        if not self.is_down and self.spool is not None:
            self._report(error, f"writing to the log; hits go to {self.spool.directory} until it answers")
        self.is_down = self._is_diverted = True
        self._fell.set()

    async def _look_after(self, spool: Spool) -> None:
        while True:
            try:
                await self._adopt(spool)
                if self._is_diverted:
                    await self._drain(spool)
            except Exception as error:  # noqa: BLE001  # the next look may find it better
                if cannot_take(error):
                    self._divert(error)
                elif not isinstance(error, Busy):
                    self._report(error, f"draining the spool in {spool.directory}")
            self._fell.clear()
            if self._is_diverted:
                await asyncio.sleep(PROBE)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._fell.wait(), ADOPT)

    async def _adopt(self, spool: Spool) -> None:
        await spool.adopt()
        if spool.pending:
            self._is_diverted = True

    async def _drain(self, spool: Spool) -> None:
        """Hand everything over, oldest first, and let new hits go to the primary again."""
        async with self._draining:
            count = 0
            try:
                while not spool.is_idle:
                    batch = await spool.oldest(DRAIN_HITS)
                    if batch is None:
                        await spool.settle()
                        continue
                    await self.primary.append_encoded(batch.bodies)
                    self.is_down = False
                    await spool.forget(batch)
                    count += len(batch.bodies)
                    if spool.pending < DRAIN_HITS:
                        self._gate.clear()  # rule 2; not before the primary has answered
                self._is_diverted = False
            finally:
                self._gate.set()
            await spool.tidy()
            logger.info("The log answers; %d hits were brought to it from %s", count, spool.directory)


def cannot_take(error: Exception) -> bool:
    """Whether *error* is about the primary and its way, so that another place may take the same hits."""
    return is_lost(error) or isinstance(error, SQLAlchemyError | asyncpg.PostgresError)
