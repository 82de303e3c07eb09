"""
`Analytics`: the composition root. It puts the rooms together and holds no rule of its own.

    analytics = Analytics("postgresql+asyncpg://…", Config(secret_key=SECRET))
    app = analytics.wrap(app)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp

from goodanalytics import environment
from goodanalytics.config import Config
from goodanalytics.dispatch.dispatcher import Dispatcher
from goodanalytics.facade import visitors as facade
from goodanalytics.facade import webhooks as facade_webhooks
from goodanalytics.facade.links import Links
from goodanalytics.facade.partners import Partners
from goodanalytics.facade.platforms import Platforms
from goodanalytics.geo import GeoReader
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.log import SafeLog
from goodanalytics.log.postgres import PostgresLog
from goodanalytics.log.spool import spool_of
from goodanalytics.store import schema
from goodanalytics.store.database import Database
from goodanalytics.store.start import PATIENCE, Start
from goodanalytics.store.tables import build
from goodanalytics.upkeep import Upkeep
from goodanalytics.verbs_conversions import ConversionVerbs
from goodanalytics.web.api import room as api
from goodanalytics.web.dashboard import room as dashboard
from goodanalytics.web.health import Health
from goodanalytics.web.house import House
from goodanalytics.web.links.host_routes import HostRoutes
from goodanalytics.web.links.qr import Codes
from goodanalytics.web.links.redirect import Redirect
from goodanalytics.web.middleware import Middleware
from goodanalytics.web.tracker import Tracker
from goodanalytics.worker import Worker

HostApp = Callable[..., Awaitable[None]]
"""Any ASGI app. Frameworks type their scope and messages each in a way of its own."""


class Analytics(ConversionVerbs):
    """
    Analytics, short links and attribution inside the host's app and PostgreSQL.

    Args:
        engine_or_url: The host's own `AsyncEngine` (postgresql+asyncpg), or a URL for one of our own.
        config: Everything that can be set.

    Raises:
        ConfigError: The URL is none, or not PostgreSQL's.

    Attributes:
        visitors, links, partners, reports: What is known, to be read and managed.
        platforms: Ad platforms: switched on and off, and what they were told.
        webhooks: Receivers of yours: added, changed, tried out.
        hooks: What the host wants to be told: `hooks.on("sale")`.
        log: Where hits are made durable.
        tracker, redirect, qr, api, dashboard, health: ASGI apps, for hosts that mount them one by one; `wrap` does it for all.
    """

    def __init__(self, engine_or_url: AsyncEngine | URL | str, config: Config) -> None:
        self.config = config
        self.database = Database.open(engine_or_url, build(config.schema))
        self.hooks = Hooks(config.report)
        spool = spool_of(config, self.database)
        patience = None if spool is None else config.spool_after
        primary = PostgresLog(self.database, config.clock, config.new_id, patience)
        self.log = SafeLog(primary, spool, config.report)
        geo = None if config.geo_path is None else GeoReader(config.geo_path)
        self.ingest = Ingest(config, self.database, self.hooks, geo)
        self.worker = Worker(self.ingest, primary)
        self.dispatcher = Dispatcher(config, self.database, self.hooks)
        self.platforms = Platforms(config, self.database, self.dispatcher)
        self.upkeep = Upkeep(config, self.database)
        self._host_routes = HostRoutes()
        self.visitors = facade.Visitors(config, self.database)
        self.links = Links(config, self.database, self._host_routes.paths)
        self.partners = Partners(config, self.database)
        self.reports = facade.Reports(config, self.database)
        self.webhooks = facade_webhooks.Webhooks(config, self.database, self.dispatcher)
        redirect = Redirect(config, self.database, self.log, self.hooks, geo, lambda: self.log.is_down)
        self._links = redirect
        codes = Codes(config, redirect.catalogue)
        self.qr: ASGIApp = codes
        self.redirect: ASGIApp = codes.before(redirect)
        tracker = Tracker(config, self.log, redirect)
        self.tracker: ASGIApp = tracker
        self._doors = {f"{config.mount}/t/event": tracker.event}
        self.api: ASGIApp = api.app(
            config,
            self.database,
            self.ingest,
            links=self.links,
            platforms=self.platforms,
            webhooks=self.webhooks,
        )
        self.dashboard: ASGIApp = dashboard.app(
            config, self.database, links=self.links, platforms=self.platforms, webhooks=self.webhooks
        )
        self.health: ASGIApp = Health(config, self.database, self.log)
        self._starting = asyncio.Lock()
        self._start = Start(self._begin, config.report)
        self._is_running = False
        self._works = config.worker

    @classmethod
    def from_env(cls, prefix: str = "GOODANALYTICS_", **overrides: Any) -> Self:
        """
        Read everything from the environment; the database from `{prefix}DATABASE_URL`.

        Raises:
            ConfigError: A variable is missing, wrong or unknown.
        """
        return cls(environment.database_url(prefix), Config.from_env(prefix, **overrides))

    # Life ------------------------------------------------------------------------------------------------------------

    async def start(self, *, worker: bool | None = None) -> None:
        """
        Check the schema and begin to work. A second start does nothing.

        With a spool, an app also starts while the database does not answer; the rest follows when it does.

        Args:
            worker: Whether to process the log and deliver here; as `Config.worker` says when left out.

        Raises:
            DatabaseUnavailable: Nobody answers and there is no spool, or the database turns us away.
            SchemaError: The tables are missing, of another version, or somebody else's.
        """
        async with self._starting:
            if self._is_running:
                return
            self._works = self.config.worker if worker is None else worker
            try:
                await self.log.start()
                if self.log.spool is None:
                    await self._begin()
                else:  # a migration may take its time
                    await self._start.now_or_later(None if self.config.auto_migrate else PATIENCE)
            except BaseException:
                await self.log.stop()
                raise
            self._is_running = True

    async def _begin(self) -> None:
        if self.config.auto_migrate:
            await self.migrate()
        await schema.check(self.database)
        await self.upkeep.once()
        self.upkeep.start()
        self._links.start()
        if self._works:
            self.worker.start()
            self.dispatcher.start()

    async def stop(self) -> None:
        """Finish what is under way. Hits that lie in the log or its spool stay there for the next start."""
        async with self._starting:
            if self._is_running:
                self._is_running = False
                await self._start.stop()
                await self._links.stop()
                await self.upkeep.stop()
                await self.worker.stop()
            await self.dispatcher.stop()
            await self.log.stop()
            await self.hooks.settle()
            await self.database.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """For hosts that hand a lifespan to their framework: `Starlette(lifespan=analytics.lifespan)`."""
        async with self:
            yield

    async def migrate(self) -> None:
        """Bring the schema up to this version."""
        await schema.migrate(self.database.engine, self.config.schema, now=self.config.clock())

    async def drain(self) -> int:
        """Process everything that is in the log now; returns how many hits that were."""
        await self.log.settle()
        drained = await self.worker.drain()
        await self.hooks.settle()
        return drained

    # ASGI ------------------------------------------------------------------------------------------------------------

    def wrap(self, app: HostApp) -> ASGIApp:
        """*app* with everything: middleware, our paths, and our life tied to its own."""
        self._host_routes.add(app)
        return House(app, self.config, self.rooms, self.start, self.stop, self._doors)

    def middleware(self, app: HostApp) -> ASGIApp:
        """*app* with the middleware alone. The host mounts the rooms and runs `lifespan`."""
        return Middleware(app, self.config)

    @property
    def rooms(self) -> Mapping[str, ASGIApp]:
        """Our ASGI apps by the path that they live at."""
        mount = self.config.mount
        return {
            f"{mount}/api": self.api,
            f"{mount}/dashboard": self.dashboard,
            f"{mount}/healthz": self.health,
            f"{mount}/readyz": self.health,
            f"{mount}/metrics": self.health,
            mount: self.tracker,
            self.config.link_path: self.redirect,
        }

    @property
    def is_running(self) -> bool:
        """Whether `start` was called and `stop` was not."""
        return self._is_running
