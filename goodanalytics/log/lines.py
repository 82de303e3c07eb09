"""
The log's own connections: taken out of the pool when hits come, kept while they keep coming.

To check a connection out of the pool costs as much as the COPY of a batch (and a round trip more where the pool looks
first). So a connection stays checked out until nothing was written for `IDLE` seconds; at most as many as flushes run at a time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.store.database import Database, unavailable_named

IDLE: Final = 1.0
"""Seconds after which a connection that nobody used goes back to the pool."""


SMALL_POOL: Final = 4
"""Connections of a pool out of which none is kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connection with the driver's own one inside, an `asyncpg.Connection`."""

    connection: AsyncConnection
    driver: Any


class Lines:
    """The connections that the flushes of one log take in turn."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._free: list[Line] = []
        self._watch: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._was_used = False
        size = getattr(database.engine.pool, "size", None)  # a pool that keeps none has no size
        self._keeps = size is None or size() >= SMALL_POOL

    async def take(self) -> Line:
        """
        A line that is open, as far as anybody knows; give it back, or `drop` it.

        Raises:
            DatabaseUnavailable: None can be had.
        """
        self._was_used = True
        while self._free:
            line = self._free.pop()
            if not line.driver.is_closed():
                return line
            await self.drop(line)
        with unavailable_named(self._database.engine):
            connection = await self._database.engine.connect()
        try:
            driver = await self._driver(connection)
        except BaseException:
            await connection.close()
            raise
        return Line(connection, driver)

    async def _driver(self, connection: AsyncConnection) -> Any:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        while driver.is_closed():
            # After a restart of the server that is every connection of the pool, unless the pool looks first.
            await connection.invalidate()
            driver = (await connection.get_raw_connection()).driver_connection
        return driver

    async def give(self, line: Line) -> None:
        """*line* is as it was when it was taken."""
        if not self._keeps:
            await line.connection.close()
            return
        self._free.append(line)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._give_back_when_idle())

    async def drop(self, line: Line) -> None:
        """Never hand *line* out again: what state it is in is unknown."""
        with suppress(Exception):
            await line.connection.invalidate()
        with suppress(Exception):
            await line.connection.close()

    async def close(self) -> None:
        """Give back to the pool what nobody uses."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._returning is not None:
            await asyncio.wait([self._returning])
        await self._give_back()

    async def _give_back_when_idle(self) -> None:
        while self._was_used:
            self._was_used = False
            await asyncio.sleep(IDLE)
        # From here on nobody may break it off: a connection on its way to the pool would be lost.
        self._returning, self._watch = self._watch, None
        await self._give_back()

    async def _give_back(self) -> None:
        while self._free:
            await self._free.pop().connection.close()
