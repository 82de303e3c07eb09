"""
ACT: what must be done now and then so that everything else goes on.

Months of events ahead, the day of receipts, persons taken out of dispatches that are over, figures of links.

Every process does it; whoever comes second finds nothing to do. Partitions are made at start and then every few hours. Days of links
are counted in the background only, from a minute after the start on: years of them may be waiting.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from goodanalytics.config import Config
from goodanalytics.migrations import days, partitions
from goodanalytics.store import link_days, outbox
from goodanalytics.store.database import Database

EVERY = 6 * 60 * 60  # seconds
FIRST_COUNT = 60  # seconds after the start
COUNT_EVERY = 60 * 60  # seconds
MONTHS_AHEAD = 2


@dataclass(slots=True)
class Upkeep:
    """The loop, one per process."""

    config: Config
    database: Database
    _task: asyncio.Task[None] | None = field(default=None)

    async def once(self) -> list[str]:
        """
        Make this month of events and the next two, open the day of receipts, and drop receipts that are old enough.

        Returns:
            The names of the partitions that this call made.
        """
        schema, now = self.database.tables.schema, self.config.clock()
        async with self.database.begin() as conn:
            made = await partitions.ensure(conn, schema, now, ahead=MONTHS_AHEAD)
        # Apart, so that nobody who waits for the one lock waits for the other too.
        async with self.database.begin() as conn:
            turned = await days.turn(conn, schema, now, self.config.idempotency)
        async with self.database.begin() as conn:
            await outbox.tidy(conn, self.database.tables, now)
        return made if turned.opened is None else [*made, turned.opened]

    async def count(self) -> int:
        """Count the days of links that are over, and anew those that changed since; how many were counted first now."""
        return await link_days.roll_up(self.database, self.config.clock())

    def start(self) -> None:
        """Begin to repeat it in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="goodanalytics upkeep")

    async def stop(self) -> None:
        """Stop repeating it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        pause = waited = FIRST_COUNT
        while True:
            await asyncio.sleep(pause)
            try:
                if waited >= EVERY:
                    waited = 0
                    await self.once()
                await self.count()
            except Exception as error:  # noqa: BLE001  # upkeep tries again later, whatever went wrong
                self.config.report(error, "making and dropping partitions, or counting the days of links")
            pause = COUNT_EVERY
            waited += pause
