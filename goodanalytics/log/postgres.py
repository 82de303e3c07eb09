"""
The log as a PostgreSQL table.

Append: requests that arrive together share one COPY (a group commit). A flush starts at once when none is running, so a
lone request never waits; while flushes run, the next batch gathers. At most `FLUSHES` run at a time and each holds at most
`FLUSH_ROWS` hits, which keeps a closed loop of clients from falling into step with the database. What waits in memory is
bounded by `WAITING_ROWS` and `WAITING_BYTES`; beyond it an append is refused with `Busy`.

Claim: a claim deletes rows in the transaction that processes them, so a worker that dies leaves them untouched, and nothing
depends on the order in which appends commit: there is no cursor that could pass over a late one. A shard is held by one
worker at a time through an advisory lock of that transaction, which keeps one browser's hits in order.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.hits import Hit
from goodanalytics.errors import Busy, DatabaseUnavailable
from goodanalytics.store.database import Database, is_lost, run, unavailable_named

SHARDS = 16
FLUSHES = 2
FLUSH_ROWS = 64
WAITING_ROWS = 20_000
WAITING_BYTES = 32 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Hit)


@dataclass(frozen=True, slots=True)
class Entry:
    """A hit as it lies in the log; *hit* is `None` when its bytes cannot be read."""

    id: UUID
    body: bytes
    hit: Hit | None


@dataclass(slots=True)
class _Append:
    """One caller's hits, and where it waits for them."""

    rows: list[tuple[int, UUID, bytes]]
    size: int
    since: float  # of the loop's clock
    done: asyncio.Future[None]


class EntryIds:
    """Ids of version 7 that rise strictly within this process, so that hits keep the order in which they came."""

    def __init__(self, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self._clock = clock
        self._node = new_id().int & ((1 << 62) - 1)
        self._last = 0

    def __call__(self) -> UUID:
        """The next id."""
        milliseconds = int(self._clock().timestamp() * 1_000) & ((1 << 48) - 1)
        # Time and the twelve bits behind it are one rising number (RFC 9562, section 6.2, method 1).
        self._last = max(milliseconds << 12, self._last + 1)
        return UUID(
            int=(self._last >> 12) << 80 | 0x7 << 76 | (self._last & 0xFFF) << 64 | 0x2 << 62 | self._node
        )


def shard_of(hit: Hit) -> int:
    """The shard of *hit*: the same for all hits of one browser, or of one person where the host speaks."""
    signals = hit.signals
    key = signals.anonymous_id or signals.visitor_id or signals.external_id or signals.click_id or hit.id
    return zlib.crc32(f"{hit.workspace_id}{key}".encode()) % SHARDS


class PostgresLog:
    """
    The log in the table `hits` of our schema. One per process; use it from one event loop.

    Args:
        patience: How long an append waits for an answer; without end when left out.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
        patience: timedelta | None = None,
    ) -> None:
        self._database = database
        self._patience = None if patience is None else patience.total_seconds()
        self._table = database.tables.hits
        self._rejected = database.tables.rejected_hits
        self._lock_space = zlib.crc32(f"goodanalytics log {database.tables.schema}".encode()) - 2**31
        self._ids = EntryIds(clock, new_id)
        self._waiting: deque[_Append] = deque()
        self._rows = 0
        self._bytes = 0
        self._flushes: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    async def append(self, hits: Sequence[Hit]) -> None:
        """
        Return when *hits* are durable.

        Raises:
            Busy: Too much is waiting already.
            DatabaseUnavailable: The database does not answer.
        """
        if hits:
            await self._queue([(shard_of(hit), self._ids(), _encode(hit)) for hit in hits])

    async def append_encoded(self, bodies: Sequence[bytes]) -> None:
        """
        Return when hits that were encoded before are durable, as `append` does.

        One that cannot be read goes into the log too: there the worker sets it aside and says so.
        """
        read = [(_read(body), body) for body in bodies]
        await self._queue([(0 if hit is None else shard_of(hit), self._ids(), body) for hit, body in read])

    def _queue(self, rows: list[tuple[int, UUID, bytes]]) -> asyncio.Future[None]:
        """Done when *rows* are durable."""
        size = sum(len(body) for _, _, body in rows)
        if self._rows + len(rows) > WAITING_ROWS or self._bytes + size > WAITING_BYTES:
            raise Busy
        loop = asyncio.get_running_loop()
        mine = _Append(rows, size, loop.time(), loop.create_future())
        self._waiting.append(mine)
        self._rows += len(rows)
        self._bytes += size
        if len(self._flushes) < FLUSHES:
            self._start_flush()
        return mine.done

    def _start_flush(self) -> None:
        task = asyncio.get_running_loop().create_task(self._flush())
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush(self) -> None:
        """Write batches until nobody waits."""
        loop, flush = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
        while self._waiting:
            batch = [self._waiting.popleft()]
            count = len(batch[0].rows)
            while self._waiting and count + len(self._waiting[0].rows) <= FLUSH_ROWS:
                batch.append(self._waiting.popleft())
                count += len(batch[-1].rows)
            rows = [row for waiting in batch for row in waiting.rows]
            deadline = None
            if self._patience is not None:
                deadline = loop.call_at(batch[0].since + self._patience, self._give_up, flush, batch)
            try:
                await self._copy(rows)
            except DatabaseUnavailable as error:
                # Whoever waits behind would hear the same, only later: one time-out for each batch.
                self._answer([*batch, *self._waiting], error)
                self._waiting.clear()
            except Exception as error:  # noqa: BLE001  # whatever it is, those who wait are told
                self._answer(batch, error)
            except BaseException:
                self._answer(batch, ConnectionError("the log was stopped"))
                raise
            else:
                self._answer(batch, None)
                self._wake.set()
            finally:
                if deadline is not None:
                    deadline.cancel()
        # Not left to the callback: until that runs, an append would count this flush as one that still writes.
        self._flushes.discard(flush)

    def _give_up(self, flush: asyncio.Task[None], batch: list[_Append]) -> None:
        """Tell everybody that nobody answers, without waiting until the connection is closed as well."""
        self._answer([*batch, *self._waiting], DatabaseUnavailable(f"No answer within {self._patience} s"))
        batch.clear()  # they were told
        self._waiting.clear()
        self._flushes.discard(flush)
        self._given_up.add(flush)
        flush.add_done_callback(self._given_up.discard)
        flush.cancel()

    def _answer(self, told: Sequence[_Append], error: Exception | None) -> None:
        """Tell those who wait what became of their hits; a caller may be gone."""
        for waiting in told:
            self._rows -= len(waiting.rows)
            self._bytes -= waiting.size
            if waiting.done.done():
                continue
            if error is None:
                waiting.done.set_result(None)
            else:
                waiting.done.set_exception(error)
                waiting.done.exception()  # marks it as seen

    async def _copy(self, rows: list[tuple[int, UUID, bytes]]) -> None:
        """
        Write *rows* and commit.

        A connection that is lost on the way is replaced once. Whether a COPY that broke off was committed cannot be known,
        so a hit may stand in the log again after a worker took it; processing knows a hit by its id and counts it once.
        """
        try:
            await self._copy_once(rows)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if not is_lost(error):
                raise
            with unavailable_named(self._database.engine):
                await self._copy_again(rows)

    async def _copy_again(self, rows: list[tuple[int, UUID, bytes]]) -> None:
        """Write *rows* unless they are there: then the COPY whose answer was lost did commit."""
        with suppress(asyncpg.UniqueViolationError):
            await self._copy_once(rows)

    async def _copy_once(self, rows: list[tuple[int, UUID, bytes]]) -> None:
        async with self._database.connect() as conn:
            raw: Any = (await conn.get_raw_connection()).driver_connection
            while raw.is_closed():
                # After a restart of the server that is every connection of the pool, unless the pool looks first.
                await conn.invalidate()
                raw = (await conn.get_raw_connection()).driver_connection
            try:
                await raw.copy_records_to_table(
                    self._table.name,
                    schema_name=self._table.schema,
                    columns=("shard", "id", "body"),
                    records=rows,
                )
            except BaseException:
                # The state of a connection whose COPY broke off is unknown: never hand it out again.
                with suppress(Exception):
                    await conn.invalidate()
                raise

    async def claim(self, conn: AsyncConnection, most: int) -> list[Entry]:
        """
        Take up to *most* of the oldest hits out of the log, in the transaction of *conn*.

        Only out of shards that no other worker holds; they are ours until the transaction ends. No more shards than the batch
        needs, those with the oldest hits first, so that under a backlog other workers find shards of their own.
        """
        shards = await self._hold(conn, most)
        if not shards:
            return []
        taken = await run(
            conn,
            f"WITH oldest AS MATERIALIZED (SELECT shard, id FROM {self._table} WHERE shard = ANY(CAST(:shards AS smallint[])) "
            "ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED) "
            f"DELETE FROM {self._table} h USING oldest o WHERE h.shard = o.shard AND h.id = o.id RETURNING h.id, h.body",
            shards=shards,
            most=most,
        )
        return [Entry(row.id, row.body, _read(row.body)) for row in sorted(taken, key=lambda row: row.id)]

    async def _hold(self, conn: AsyncConnection, most: int) -> list[int]:
        """Lock enough free shards for *most* hits; all that have any, when there are fewer."""
        busy = await run(
            conn,
            f"SELECT s.shard, w.hits FROM generate_series(0, {SHARDS - 1}) AS s (shard), "
            f"LATERAL (SELECT count(*) AS hits, (array_agg(id))[1] AS oldest FROM (SELECT id FROM {self._table} h "
            "WHERE h.shard = s.shard ORDER BY id LIMIT :most) AS first) AS w WHERE w.hits > 0 ORDER BY w.oldest",
            most=most,
        )
        left = [(row.shard, row.hits) for row in busy]
        held: list[int] = []
        missing = most
        while left and missing > 0:
            wanted: dict[int, int] = {}
            while left and sum(wanted.values()) < missing:
                shard, hits = left.pop(0)
                wanted[shard] = hits
            free = await run(
                conn,
                "SELECT shard FROM unnest(CAST(:shards AS int[])) AS w (shard) WHERE pg_try_advisory_xact_lock(:space, shard)",
                space=self._lock_space,
                shards=list(wanted),
            )
            got = [row.shard for row in free]
            held += got
            missing -= sum(wanted[shard] for shard in got)
        return held

    async def set_aside(
        self, conn: AsyncConnection, entries: Sequence[Entry], error: str, now: datetime
    ) -> None:
        """Keep *entries*, which cannot be processed, with the reason, for `goodanalytics replay`."""
        for entry in entries:
            await run(
                conn,
                f"INSERT INTO {self._rejected} (id, body, error, rejected_at) VALUES (:id, :body, :error, :now) "
                "ON CONFLICT (id) DO NOTHING",
                id=entry.id,
                body=entry.body,
                error=error.replace("\x00", "")[:2_000],
                now=now,
            )

    def wake(self) -> None:
        """Let whoever waits in `wait` go on."""
        self._wake.set()

    async def wait(self, most: timedelta) -> None:
        """Return when something was appended in this process, or after *most*."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), most.total_seconds())
        self._wake.clear()

    async def stop(self) -> None:
        """Wait for the flushes that are under way."""
        while self._flushes or self._given_up:
            await asyncio.gather(*self._flushes, *self._given_up, return_exceptions=True)


def _read(body: bytes) -> Hit | None:
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Text that is no UTF-8 raises a ValueError, and not one of msgspec's.
        return None
