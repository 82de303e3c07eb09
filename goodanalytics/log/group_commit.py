"""
The group commit: callers who come together share one write, and each is told when it is safe.

1. A flush starts at once when none is running, so a lone caller never waits; while it runs, the next batch gathers. A second
   one writes beside it while `SECOND` callers wait; that keeps a closed loop of clients from falling into step with the
   database, and never cuts what gathers into small writes. A batch has at most `FLUSH_ROWS` hits, or one caller's.
2. What waits in memory is bounded by `WAITING_ROWS` and `WAITING_BYTES`; beyond it a caller is refused with `Busy`.
3. Who brings many hits at once does not crowd out who brings one: callers with more than `FEW` have a queue of their own, of
   which every other batch begins with one, and half of the room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, cast

from goodanalytics.core.raw import Entry, Packed, RawBeacon, RawClick
from goodanalytics.errors import Busy, DatabaseUnavailable

FLUSHES: Final = 2
FLUSH_ROWS: Final = 64
SECOND: Final = 24
FEW: Final = 8
WAITING_ROWS = 20_000
WAITING_BYTES = 32 * 1024 * 1024

ENVELOPE: Final = 512
"""Bytes that a raw beacon or click has beside what came, more or less; a hit that was read has twice as many in all."""

Body = Entry | bytes
"""A hit, read or raw; or one that was encoded before."""


_Caller = tuple[Sequence[Body], int, asyncio.Future[None]]
"""Somebody's hits, how many bytes they are, and where it waits for them. A plain tuple: one is made for each request."""


class GroupCommit:
    """
    Brings the hits of many callers into few writes. One per log; use it from one event loop.

    Args:
        write: Returns when the hits are durable.
        written: Told after each write.
        patience: How long a write may take; without end when left out.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Body]], Awaitable[None]],
        written: Callable[[], None],
        patience: timedelta | None,
    ) -> None:
        self.patience = None if patience is None else patience.total_seconds()
        self._write = write
        self._written = written
        self._few: deque[_Caller] = deque()
        self._many: deque[_Caller] = deque()
        self._is_turn_of_many = True
        self._rows = 0
        self._bytes = 0
        self._flushes: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> tuple[int, int]:
        """How many hits are not durable yet, and about how many bytes they are."""
        return self._rows, self._bytes

    def add(self, hits: Sequence[Body]) -> asyncio.Future[None]:
        """
        Done when *hits* are durable.

        Raises:
            Busy: Too much is waiting already.
        """
        count = len(hits)
        size = _size(hits[0]) if count == 1 else sum(map(_size, hits))
        share = 1 if count <= FEW else 2
        if self._rows + count > WAITING_ROWS // share or self._bytes + size > WAITING_BYTES // share:
            raise Busy
        if not self._flushes:
            self._loop = asyncio.get_running_loop()  # asks the kernel, each time, which process this is
        done = self._loop.create_future()
        (self._few if share == 1 else self._many).append((hits, size, done))
        self._rows += count
        self._bytes += size
        if not self._flushes or (len(self._flushes) < FLUSHES and self._is_crowded):
            task = self._loop.create_task(self._flush())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        return done

    async def settle(self) -> None:
        """Return when nothing is under way."""
        while self._flushes or self._given_up:
            await asyncio.gather(*self._flushes, *self._given_up, return_exceptions=True)

    @property
    def _is_crowded(self) -> bool:
        """Whether so many wait that a second flush is worth its cost."""
        return len(self._few) + len(self._many) >= SECOND

    def _batch(self) -> list[_Caller]:
        """Who goes next; at least one."""
        batch: list[_Caller] = []
        if self._many and (self._is_turn_of_many or not self._few):
            batch.append(self._many.popleft())
        self._is_turn_of_many = not self._is_turn_of_many
        count = len(batch[0][0]) if batch else 0
        for queue in (self._few, self._many):
            while queue and count + len(queue[0][0]) <= FLUSH_ROWS:
                batch.append(queue.popleft())
                count += len(batch[-1][0])
        return batch

    async def _flush(self) -> None:
        """Write batches until nobody waits, or few do and another flush will come to them."""
        loop, flush = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
        while (self._few or self._many) and (len(self._flushes) == 1 or self._is_crowded):
            batch = self._batch()
            deadline = None
            if self.patience is not None:
                deadline = loop.call_later(self.patience, self._give_up, flush, batch)
            try:
                await self._write([hit for hits, _, _ in batch for hit in hits])
            except DatabaseUnavailable as error:
                # Whoever waits behind would hear the same, only later: one time-out for each batch.
                self._answer([*batch, *self._rest()], error)
            except Exception as error:  # noqa: BLE001  # whatever it is, those who wait are told
                self._answer(batch, error)
            except BaseException:
                # Whoever waits behind may have been left to this flush by another one.
                self._answer([*batch, *self._rest()], ConnectionError("the log was stopped"))
                raise
            else:
                self._answer(batch, None)
                self._written()
            finally:
                if deadline is not None:
                    deadline.cancel()
        # Not left to the callback: until that runs, a caller would count this flush as one that still writes.
        self._flushes.discard(flush)

    def _rest(self) -> list[_Caller]:
        """Everybody who waits, and waits no longer."""
        rest = [*self._few, *self._many]
        self._few.clear()
        self._many.clear()
        return rest

    def _give_up(self, flush: asyncio.Task[None], batch: list[_Caller]) -> None:
        """Tell everybody that nobody answers, without waiting until the connection is closed as well."""
        self._answer([*batch, *self._rest()], DatabaseUnavailable(f"No answer within {self.patience} s"))
        batch.clear()  # they were told
        self._flushes.discard(flush)
        self._given_up.add(flush)
        flush.add_done_callback(self._given_up.discard)
        flush.cancel()

    def _answer(self, told: Sequence[_Caller], error: Exception | None) -> None:
        """Tell those who wait what became of their hits; a caller may be gone."""
        for hits, size, done in told:
            self._rows -= len(hits)
            self._bytes -= size
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
                done.exception()  # marks it as seen


def _size(hit: Body) -> int:
    """About how many bytes *hit* takes; to encode it twice would cost more than the precision is worth."""
    if isinstance(hit, Packed | RawBeacon):
        return ENVELOPE + len(hit.body)
    if isinstance(hit, RawClick):
        return ENVELOPE + len(bytes(hit.link)) + len(bytes(hit.machine)) + len(hit.referrer or b"")
    return len(hit) if isinstance(hit, bytes) else 2 * ENVELOPE
