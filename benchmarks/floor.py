"""
The least that a durable beacon can cost: its raw bytes by COPY in a group commit, and nothing understood.

Not ours and not for use: no workspace, no bots, no limits, no word about what is wrong. It shows how much of the distance
between the bare app and our beacon is durability itself, so that the rest is known to be our own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

FLUSHES = 2
FLUSH_ROWS = 64
TABLE = "CREATE TABLE raw (id uuid NOT NULL, body bytea NOT NULL, PRIMARY KEY (id))"

WANTED = frozenset((b"host", b"user-agent", b"accept-language", b"cookie", b"origin", b"x-forwarded-for"))
START = {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]}
END = {"type": "http.response.body"}


class Checked(msgspec.Struct):
    """Reads enough of a body to know that it is one."""

    event_id: UUID
    url: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder(Checked).decode


class Floor:
    """An ASGI app."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[tuple[UUID, bytes], asyncio.Future[None]]] = deque()
        self._flushes: set[asyncio.Task[None]] = set()
        self._idle: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        checked = _decode(body)
        headers = [pair for pair in scope["headers"] if pair[0] in WANTED]
        row = (checked.event_id, _encode((time.time(), scope["client"][0], headers, body)))
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        if self._idle:
            task = asyncio.get_running_loop().create_task(self._flush(self._idle.pop()))
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        await done
        await send(START)
        await send(END)

    async def _flush(self, conn: Any) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(FLUSH_ROWS, len(self._waiting)))]
            await conn.copy_records_to_table("raw", records=[row for row, _ in batch])
            for _, done in batch:
                done.set_result(None)
        self._idle.append(conn)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        connections = [await asyncpg.connect(os.environ["BENCH_DATABASE"]) for _ in range(FLUSHES)]
        self._idle += connections
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for connection in connections:
            await connection.close()
        await send({"type": "lifespan.shutdown.complete"})


app = Floor()
