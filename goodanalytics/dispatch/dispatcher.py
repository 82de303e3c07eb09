"""
ACT: the outbox, delivered. Rows are taken, sent in as few requests as a platform allows, and settled one by one.

    outbox_leases.due → claim → Targets.opened → begin → Requests.tell → core.delivery → settle

1. A row goes out under its own event id on every try, so a worker that is killed between sending and settling makes its
   successor send again what the platform recognises.
2. Several targets are served at once, and several requests of one; `SENDERS` together to platforms and as many to
   receivers, with `DOORS` connections to the database, so that the host keeps its pool.
3. A target that fails does not hold up another one, and no failure of one ends the loop.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

from goodanalytics.config import Config
from goodanalytics.dispatch.requests import Requests
from goodanalytics.dispatch.rounds import SENDERS, Desk, Round
from goodanalytics.dispatch.targets import Targets
from goodanalytics.errors import Conflict, NotFound
from goodanalytics.hooks import Hooks
from goodanalytics.outbound import Outbound
from goodanalytics.platforms import Notice, Platform, Verdict, sunset_notice
from goodanalytics.platforms.shown import invented
from goodanalytics.store import outbox_leases as leases
from goodanalytics.store.database import Database
from goodanalytics.store.outbox_leases import DueTarget

DOORS: Final = 2
"""Connections to the database at the same time."""

STOP_SECONDS: Final = 10
"""How long a stop waits for the requests at hand."""

LONGEST_PAUSE: Final = timedelta(seconds=30)

logger = logging.getLogger("goodanalytics")


class Dispatcher:
    """The loop that delivers, one per process; any number of processes share the work."""

    def __init__(self, config: Config, database: Database, hooks: Hooks) -> None:
        self._config = config
        self._database = database
        self._outbound = Outbound(
            transport=config.transport,
            networks=tuple(network for network in config.webhook_networks if not isinstance(network, str)),
        )
        self._desk = Desk(
            config, database, Targets(config, database, self._outbound), Requests(config),
            asyncio.Semaphore(SENDERS), asyncio.Semaphore(SENDERS), asyncio.Semaphore(DOORS), hooks,
        )  # fmt: skip
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._serving: dict[tuple[UUID, str], asyncio.Task[None]] = {}
        self._is_stopping = False

    def start(self) -> None:
        """Begin to deliver in the running event loop; say which API versions end soon."""
        for platform in self._config.platforms:
            if notice := sunset_notice(platform, self._config.clock().date()):
                logger.warning("goodanalytics: %s", notice)
        self._is_stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="goodanalytics dispatcher")

    async def stop(self) -> None:
        """
        Stop after the requests that are under way, at most `STOP_SECONDS` later.

        What was broken off is free for others when its lease has run out, and then sent under the same ids.
        """
        if self._task is not None:
            self._is_stopping = True
            self.wake()
            tasks = [self._task, *self._serving.values()]
            self._task = None
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._outbound.aclose()

    def wake(self) -> None:
        """Look now instead of at the next interval."""
        self._awake.set()

    async def deliver_due(self) -> int:
        """
        Deliver what is due now, and return when that is done.

        Returns:
            How many rows were settled: delivered, put off, or given up.

        Raises:
            DatabaseUnavailable: Nobody answers.
        """
        async with asyncio.TaskGroup() as group:
            serving = [group.create_task(self._serve(target)) for target in await self._due()]
        return sum(task.result() for task in serving)

    async def rehearse(self, workspace_id: UUID, platform: Platform) -> Verdict:
        """
        Send an invented sale to *platform*, which is in its test mode, and what it said.

        Raises:
            Conflict: Credentials are missing.
        """
        to = await self._desk.targets.platform(workspace_id, platform)
        if to.obstacle is not None:
            raise Conflict(f"Nothing is sent to {platform.name}: its credentials are {to.obstacle}")
        sale = invented(self._config.new_id(), self._config.clock())
        return (await self._desk.requests.tell(to, [sale]))[sale.dispatch_id]

    async def ring(self, workspace_id: UUID, webhook_id: UUID) -> Verdict:
        """
        Send a notice of nothing to a receiver, and what it said.

        Raises:
            NotFound: There is no such webhook.
            Conflict: Its secret cannot be opened.
        """
        to = await self._desk.targets.receiver(workspace_id, webhook_id)
        if to is None:
            raise NotFound(f"There is no webhook {webhook_id} in this workspace")
        if to.obstacle is not None:
            raise Conflict(f"Nothing is sent to webhook {webhook_id}: its secret is {to.obstacle}")
        new_id = self._config.new_id()
        notice = Notice(
            dispatch_id=new_id, id=str(new_id), type="webhook.test", occurred_at=self._config.clock(), data={}
        )
        return (await self._desk.requests.tell(to, [notice]))[new_id]

    async def _run(self) -> None:
        pause = interval = self._config.worker_interval
        while not self._is_stopping:
            self._awake.clear()
            try:
                for target in await self._due():
                    self._serve_beside(target)
                pause = interval
            except Exception as error:  # noqa: BLE001  # the loop outlives whatever one look meets
                self._config.report(error, "looking into the outbox")
                pause = min(pause * 2, LONGEST_PAUSE)
            if not self._is_stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), pause.total_seconds())

    def _serve_beside(self, target: DueTarget) -> None:
        """Serve *target* while the loop goes on, unless it is being served: one that is slow holds up nobody else."""
        key = (target.workspace_id, target.target)
        if key in self._serving:
            return

        async def serve() -> None:
            try:
                if await self._serve(target):
                    self.wake()  # there may be more by now
            finally:
                del self._serving[key]

        self._serving[key] = asyncio.get_running_loop().create_task(
            serve(), name=f"goodanalytics to {target.target}"
        )

    async def _due(self) -> list[DueTarget]:
        known = [platform.name for platform in self._config.platforms]
        async with self._desk.doors, self._database.connect() as conn:
            return await leases.due(conn, self._database.tables, self._config.clock(), known)

    async def _serve(self, due: DueTarget) -> int:
        try:
            to = await self._desk.targets.correspondent(due)
            return 0 if to is None else await Round(self._desk, due, to).serve()
        except Exception as error:  # noqa: BLE001  # one target's trouble is not the others'
            self._config.report(error, f"delivering to {due.target}")
        return 0
