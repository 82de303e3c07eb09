"""
The log as a PostgreSQL table.

Append: requests that arrive together share one COPY; see `group_commit`.

Claim: a claim deletes rows in the transaction that processes them, so a worker that dies leaves them untouched, and nothing
depends on the order in which appends commit: there is no cursor that could pass over a late one. A shard is held by one
worker at a time through an advisory lock of that transaction, which keeps one browser's hits in order.

Lease: nothing tells PostgreSQL that a worker's machine is gone or that its process hangs. So a worker that says nothing for
`LEASE` while it has a batch is cut off, and its hits are free for the others.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core import raw
from goodanalytics.core.hits import Hit
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.log.group_commit import Body, GroupCommit
from goodanalytics.log.lines import Lines
from goodanalytics.store.database import Database, is_lost, run, unavailable_named

SHARDS = 16

LEASE = timedelta(minutes=1)
"""How long a worker may think about a batch between two statements, before PostgreSQL gives the batch to others."""

_RAW = (raw.RawBeacon, raw.RawClick)

# PostgreSQL's documentation, COPY, "Binary Format": a signature, flags and no extension; before each row the number of its
# columns, before each value its length; in the end -1.
_BEGIN: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_ROW: Final = [struct.pack(">hihi", 3, 2, shard, 16) for shard in range(SHARDS)]
_LENGTH: Final = struct.Struct(">i").pack
_END: Final = b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Entry:
    """A hit as it lies in the log; *hit* is `None` when its bytes cannot be read."""

    id: UUID
    body: bytes
    hit: Hit | None


class EntryIds:
    """Ids of version 7 that rise strictly within this process, so that hits keep the order in which they came."""

    def __init__(self, clock: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self._clock = clock
        self._node = (0x2 << 62 | new_id().int & ((1 << 62) - 1)).to_bytes(8)
        self._last = 0

    def take(self, count: int) -> list[bytes]:
        """The next *count* ids, in order, each of 16 bytes."""
        milliseconds = int(self._clock().timestamp() * 1_000) & ((1 << 48) - 1)
        # Time and the twelve bits behind it are one rising number (RFC 9562, section 6.2, method 1).
        first = max(milliseconds << 12, self._last + 1)
        self._last = first + count - 1
        return [
            ((n >> 12) << 16 | 0x7000 | n & 0xFFF).to_bytes(8) + self._node
            for n in range(first, first + count)
        ]


def shard_of(entry: raw.Entry) -> int:
    """The shard of a hit, read or raw: the same for all hits of one browser, or of one person where the host speaks."""
    if isinstance(entry, raw.Packed):
        return entry.browser % SHARDS
    key: object
    if isinstance(entry, _RAW):
        key = entry.anonymous_id
    else:
        signals = entry.signals
        key = (
            signals.anonymous_id or signals.visitor_id or signals.external_id or signals.click_id or entry.id
        )
    return raw.key_of(entry.workspace_id, key) % SHARDS


def shard_of_encoded(body: bytes) -> int:
    """The shard of an entry that was encoded before; of one that cannot be read, the first."""
    hit = raw.decoded(body)
    return 0 if hit is None else shard_of(hit)


def copied(hits: Sequence[Body], ids: Iterable[bytes]) -> bytearray:
    """*hits* as the rows of one binary COPY into the columns `shard`, `id` and `body`."""
    parts = [_BEGIN]
    for hit, entry_id in zip(hits, ids, strict=True):
        if isinstance(hit, bytes):
            shard, body = shard_of_encoded(hit), hit
        else:
            shard, body = shard_of(hit), raw.encoded(hit)
        parts += (_ROW[shard], entry_id, _LENGTH(len(body)), body)
    parts.append(_END)
    return bytearray().join(parts)


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
        self._lines = Lines(database)
        self._table = database.tables.hits
        self._rejected = database.tables.rejected_hits
        self._lock_space = zlib.crc32(f"goodanalytics log {database.tables.schema}".encode()) - 2**31
        self._ids = EntryIds(clock, new_id)
        self._wake = asyncio.Event()
        self._commit = GroupCommit(self._write, self._wake.set, patience)

    async def append(self, hits: Sequence[raw.Entry]) -> None:
        """
        Return when *hits*, read or raw, are durable.

        Raises:
            Busy: Too much is waiting already.
            DatabaseUnavailable: The database does not answer.
        """
        if hits:
            await self._commit.add(hits)

    def queue(self, hits: Sequence[raw.Entry]) -> asyncio.Future[None]:
        """`append` for at least one hit, without a coroutine around it. Raises `Busy` at once."""
        return self._commit.add(hits)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many hits are not durable yet, and about how many bytes they are."""
        return self._commit.waiting

    async def append_encoded(self, bodies: Sequence[bytes]) -> None:
        """
        Return when hits that were encoded before are durable, as `append` does.

        One that cannot be read goes into the log too: there the worker sets it aside and says so.
        """
        await self._commit.add(bodies)

    async def _write(self, hits: Sequence[Body]) -> None:
        """
        Write *hits* and commit.

        A connection that is lost on the way is replaced once. Whether a COPY that broke off was committed cannot be known,
        so a hit may stand in the log again after a worker took it; processing knows a hit by its id and counts it once.
        """
        rows = copied(hits, self._ids.take(len(hits)))
        try:
            await self._copy_once(rows)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if not is_lost(error):
                raise
            with unavailable_named(self._database.engine):
                await self._copy_again(rows)

    async def _copy_again(self, rows: bytearray) -> None:
        """Write *rows* unless they are there: then the COPY whose answer was lost did commit."""
        with suppress(asyncpg.UniqueViolationError):
            await self._copy_once(rows)

    async def _copy_once(self, rows: bytearray) -> None:
        line = await self._lines.take()
        try:
            # Rows that are made here need no statement that asks for the columns' types: one round trip less with a pooler.
            await line.driver.copy_to_table(
                self._table.name,
                schema_name=self._table.schema,
                columns=("shard", "id", "body"),
                format="binary",
                source=rows,
            )
        except BaseException:
            await self._lines.drop(line)
            raise
        await self._lines.give(line)

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
        return [
            Entry(row.id, row.body, raw.decoded(row.body)) for row in sorted(taken, key=lambda row: row.id)
        ]

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
                "SELECT shard, set_config('idle_in_transaction_session_timeout', :lease, true) "
                "FROM unnest(CAST(:shards AS int[])) AS w (shard) WHERE pg_try_advisory_xact_lock(:space, shard)",
                lease=f"{LEASE // timedelta(milliseconds=1)}ms",
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
        """Wait for what is under way."""
        await self._commit.settle()
        await self._lines.close()
