"""
The outermost ASGI object: our rooms by path, the host behind the middleware, and our life tied to the server's.

No framework runs the lifespan of a mounted app, so this one owns it: start ours, forward the host's; a host without one
(Django raises) is answered for. Where no lifespan comes at all (httpx.ASGITransport, a server with lifespan off), we start
on the first request, once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.web import path_below, rooted
from goodanalytics.web.middleware import Middleware

Call = Callable[[], Awaitable[None]]


class House:
    """
    `House(app, config, rooms, start, stop)` is an ASGI app.

    Args:
        rooms: Our apps by the path that they live below.
        doors: Apps for one path each, where nothing needs to be worked out on the way there.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        rooms: Mapping[str, ASGIApp],
        start: Call,
        stop: Call,
        doors: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._host = app
        self._guest = Middleware(app, config)
        self._config = config
        self._rooms = dict(sorted(rooms.items(), key=lambda room: -len(room[0])))
        self._doors = dict(doors or {})
        self._link_domains = frozenset(config.link_domains)
        # Where the host alone decides nothing, and no framework stands around us, the path says all.
        self._plain_doors = {} if self._link_domains else self._doors
        self._heads: dict[str, list[tuple[str, ASGIApp]]] = defaultdict(list)
        for prefix, room in self._rooms.items():
            self._heads[_head(prefix)].append((prefix, room))
        self._ours = (*self._rooms, *self._doors)
        self._start = start
        self._stop = stop
        self._is_started = False
        self._starting = asyncio.Lock()
        self._failed_at: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request to the room that it is for."""
        if scope["type"] == "http":
            if not self._is_started:
                await self._start_late()
            if scope["path"] in self._plain_doors and not scope.get("root_path"):
                await self._plain_doors[scope["path"]](scope, receive, send)
                return
            room = self._room(scope)
            if room is not None:
                await room[0](room[1], receive, send)
                return
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        await self._host(scope, receive, self._guest.sending(scope, send))

    def _room(self, scope: Scope) -> tuple[ASGIApp, Scope] | None:
        """Our app for this request, with the scope as that sees it; `None` for the host's own."""
        if self._link_domains and self._is_link_domain(scope):
            return self._rooms[self._config.link_path], scope
        below = path_below(scope) if scope.get("root_path") else scope["path"]
        if not below.startswith(self._ours):
            return None
        if below == scope["path"] and below in self._doors:
            return self._doors[below], scope
        for prefix, room in self._heads.get(_head(below), ()):
            if (inside := rooted(scope, prefix)) is not None:
                return room, inside
        return None

    def _is_link_domain(self, scope: Scope) -> bool:
        host = next(
            (value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"), ""
        )
        return not {host, host.partition(":")[0]}.isdisjoint(self._link_domains)

    async def _start_late(self) -> None:
        """Start because no lifespan did. A failure is reported, and tried again with the next request after a while."""
        clock = asyncio.get_running_loop().time
        async with self._starting:
            if self._is_started or (self._failed_at is not None and clock() - self._failed_at < RETRY_START):
                return
            try:
                await self._start()
            except Exception as error:  # noqa: BLE001  # the host's page matters more than its statistics
                self._failed_at = clock()
                self._config.report(error, "starting")
            else:
                self._is_started = True
                self._failed_at = None

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start ours, then the host's; stop the host's, then ours."""
        host = _HostLife(self._host, scope)
        await receive()
        try:
            await self._start()
            self._is_started = True
            await host.start()
        except Exception as error:
            if self._is_started:
                self._is_started = False
                await self._stop()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await host.stop()
        finally:
            self._is_started = False
            await self._stop()
        await send({"type": "lifespan.shutdown.complete"})


RETRY_START = 5.0  # seconds between two late starts


def _head(path: str) -> str:
    """The first step of *path*, which tells nearly every request that it is for the host."""
    return path[1:].partition("/")[0]


class _HostLife:
    """The host's own lifespan, spoken to as a server would."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._to_host: asyncio.Queue[Message] = asyncio.Queue()
        self._from_host: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Let the host start; one that knows no lifespan is left alone. Its own failure to start is raised."""
        self._task = asyncio.get_running_loop().create_task(self._speak())
        await self._to_host.put({"type": "lifespan.startup"})
        answer = await self._answer()
        if answer is None:
            self._task = None
        elif answer["type"] == "lifespan.startup.failed":
            raise RuntimeError(answer.get("message") or "the app failed to start")

    async def stop(self) -> None:
        """Let the host stop."""
        if self._task is None:
            return
        await self._to_host.put({"type": "lifespan.shutdown"})
        await self._answer()
        await asyncio.wait([self._task], timeout=10)

    async def _speak(self) -> None:
        await self._app(self._scope, self._to_host.get, self._from_host.put)

    async def _answer(self) -> Message | None:
        """The host's next word; `None` when it ended or raised without one, as a host without lifespan does."""
        if self._task is None:
            return None
        word = asyncio.ensure_future(self._from_host.get())
        await asyncio.wait([word, self._task], return_when=asyncio.FIRST_COMPLETED)
        if word.done():
            return word.result()
        word.cancel()
        if self._task.done() and not self._task.cancelled():
            self._task.exception()  # marks it as seen; a host without lifespan may raise anything
        return None
