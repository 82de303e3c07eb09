"""
Real processes that are really killed, a PostgreSQL that keeps its promises (fsync on), and a crowd that remembers.

A `Crowd` sends beacons with event ids of its own and notes which were answered 202; between two of them it follows a short link
and notes the click's id out of the address that it is sent to. Afterwards `compare` asks the database: an acknowledged id must be
exactly one event, any other id that was sent at most one.

The listening socket of an `App` belongs to the test, so it outlives the app: clients that come while no process is there
wait in the kernel's queue instead of being refused, and no port has to be found twice.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from goodanalytics import Analytics, Config
from goodanalytics.embedded import EmbeddedPostgres
from goodanalytics.store import schema

HERE = Path(__file__).parent
SECRET = "for-tests-only-" + "0" * 32
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
PATIENCE = 60.0  # seconds; a bound for conditions that come true at once or not at all

SPRING = "/l/spring"
"""A short link that every database of `migrated` has."""

_numbers = itertools.count(1)


async def until(
    condition: Callable[[], object | Awaitable[object]], what: str, seconds: float = PATIENCE
) -> None:
    """Look again and again until *condition* holds."""
    deadline = time.monotonic() + seconds
    while True:
        met = condition()
        if isinstance(met, Awaitable):
            met = await met
        if met:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


class Books:
    """What the database holds, asked over a connection of the test's own for each question."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        conn = await asyncpg.connect(self.dsn)
        try:
            yield conn
        finally:
            await conn.close()

    async def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.connection() as conn:
            await conn.execute("SET search_path TO good_analytics")
            return [tuple(row) for row in await conn.fetch(question, *values)]

    async def one(self, question: str, *values: Any) -> Any:
        ((answer,),) = await self.ask(question, *values)
        return answer

    async def is_settled(self) -> bool:
        """Whether the log is empty: a row that a worker has taken stays visible to us until that worker commits."""
        return bool(await self.one("SELECT NOT EXISTS (SELECT FROM hits)"))

    async def counts(self) -> dict[str, int]:
        tables = ("visitors", "sessions", "events", "rejected_hits")
        return {name: await self.one(f"SELECT count(*) FROM {name}") for name in tables}

    async def times(self, kind: str) -> dict[UUID, int]:
        """How many rows each event of that *kind* has."""
        return dict(await self.ask("SELECT id, count(*) FROM events WHERE event_type = $1 GROUP BY id", kind))

    async def totals(self) -> dict[str, int]:
        """Every place where pageviews are counted."""
        return {
            "events": await self.one("SELECT count(*) FROM events WHERE event_type = 'pageview'"),
            "sessions": int(await self.one("SELECT coalesce(sum(pageviews), 0) FROM sessions")),
            "visitors": int(await self.one("SELECT coalesce(sum(total_pageviews), 0) FROM visitors")),
        }


@dataclass
class Process:
    """A child of the test, known by its pid."""

    child: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def is_running(self) -> bool:
        return self.child.poll() is None

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: no handler runs, no buffer is flushed, nothing is told to anybody."""
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        """SIGTERM, as a deployment would; returns the exit status."""
        self.child.terminate()
        return self.child.wait(PATIENCE)


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start a Python process with our settings in its environment; whatever still runs at the end is killed, by pid."""
    with ExitStack() as running:

        def start(*arguments: str, pass_fds: Sequence[int] = (), **settings: str) -> Process:
            output = tmp_path / f"process-{next(_numbers)}.log"
            ours = {
                name: value for name, value in os.environ.items() if not name.startswith("GOODANALYTICS_")
            }
            with output.open("wb") as log:
                child = subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=pass_fds,
                    cwd=HERE.parent.parent,
                    env={
                        **ours,
                        "GOODANALYTICS_SECRET_KEY": SECRET,
                        "GOODANALYTICS_SPOOL_PATH": "off",
                        "PYTHONPATH": str(HERE.parent.parent),  # this checkout, whichever one is installed
                        **settings,
                    },
                )
            process = Process(child, output)
            running.callback(process.kill)
            return process

        yield start


@dataclass
class App:
    """The app of `app.py` in one or more processes that share a listening socket."""

    spawn: Spawn
    url: str
    workers: int
    settings: dict[str, str]
    listening: socket.socket
    processes: list[Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    async def start(self) -> App:
        """Return when every process answers."""
        self.processes = [
            self.spawn(
                str(HERE / "app.py"),
                str(self.listening.fileno()),
                pass_fds=[self.listening.fileno()],
                GOODANALYTICS_DATABASE_URL=self.url,
                **self.settings,
            )
            for _ in range(self.workers)
        ]
        await until(self._is_whole, "every process of the app answers")
        return self

    async def _is_whole(self) -> bool:
        for process in self.processes:
            assert process.is_running, process.said()
        answered = await asyncio.gather(*(self._who() for _ in range(3 * self.workers)))
        return {p.pid for p in self.processes} <= set(answered)

    async def _who(self) -> int:
        async with httpx.AsyncClient(base_url=self.address, timeout=PATIENCE) as client:
            return int((await client.get("/")).text)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def stop(self) -> list[int]:
        return [process.stop() for process in self.processes]

    def said(self) -> str:
        return "\n".join(process.said() for process in self.processes)


Launch = Callable[..., Awaitable[App]]


@pytest.fixture
def launch(spawn: Spawn) -> Iterator[Launch]:
    """`await launch(url, workers=1, GOODANALYTICS_…="…")` is a running app."""
    with ExitStack() as open_sockets:

        async def start(url: str, *, workers: int = 1, **settings: str) -> App:
            listening = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
            return await App(spawn, url, workers, settings, listening).start()

        yield start


@dataclass
class Crowd:
    """
    Browsers that send pageviews, one request after the other each, and remember what they were told.

    A request carries one, two or nine beacons, and before every third one the browser follows *link*. When it is not
    acknowledged it is sent again with the same event ids until it is, except for every third failure of the first hundred or so:
    that browser goes away. The first try of every seventh request hangs up before the answer comes, so that what is stored
    already is sent once more.

    Attributes:
        sent: Every event id that left a browser.
        acknowledged: Those of them that were answered 202.
        answers: How often each status came; `broken` counts connections that broke without an answer, `hung up` those
            that the browser did not wait for.
        impatient: Answers of 503 that did not say when to come back.
        clicked: The click of every redirect that was answered 302.
        safe_clicks: Those of them of which the answer said that they were accepted.
        redirects: How often each status came of the link; `broken` as above, and then the browser asks again.
    """

    addresses: Sequence[str]
    browsers: int
    link: str | None = None
    title: str = "Lamps"
    sent: set[UUID] = field(default_factory=set)
    acknowledged: set[UUID] = field(default_factory=set)
    given_up: set[UUID] = field(default_factory=set)
    answers: Counter[int | str] = field(default_factory=Counter)
    impatient: int = 0
    clicked: set[UUID] = field(default_factory=set)
    safe_clicks: set[UUID] = field(default_factory=set)
    redirects: Counter[int | str] = field(default_factory=Counter)
    _requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _failures: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, beacons: int) -> None:
        """Send that many pageviews, and return when each is acknowledged or given up."""
        todo = iter(range(beacons))
        async with AsyncExitStack() as open_clients, asyncio.TaskGroup() as group:
            for browser in range(self.browsers):
                # One each: a shared pool of connections costs the test more than all the rest. No TLS, so no certificates.
                client = httpx.AsyncClient(timeout=PATIENCE, headers={"user-agent": BROWSER}, verify=False)
                await open_clients.enter_async_context(client)
                group.create_task(self._browse(client, f"browser-{browser}", todo))

    async def _browse(self, client: httpx.AsyncClient, name: str, todo: Iterator[int]) -> None:
        while beacons := [uuid4() for _ in itertools.islice(todo, (1, 2, 9)[len(self.sent) % 3])]:
            self.sent.update(beacons)
            address = self.addresses[len(self.sent) % len(self.addresses)]
            request = next(self._requests)
            if self.link is not None and request % 3 == 0:
                await self._follow(client, f"{address}{self.link}", name)
            if request % 7 == 0:
                await self._are_taken(client, address, name, beacons, httpx.Timeout(PATIENCE, read=0.001))
            while not await self._are_taken(client, address, name, beacons):
                if len(self.given_up) < 50 and next(self._failures) % 3 == 0:
                    self.given_up.update(beacons)
                    break
                await asyncio.sleep(0.02)

    async def _follow(self, client: httpx.AsyncClient, address: str, name: str) -> None:
        """Return when the short link at *address* was answered, whatever the answer."""
        while True:
            try:
                answer = await client.get(address, headers={"cookie": f"_ga_anon={name}"})
            except httpx.TransportError:
                self.redirects["broken"] += 1
                await asyncio.sleep(0.02)
                continue
            self.redirects[answer.status_code] += 1
            if answer.status_code == 302:
                click = UUID(httpx.URL(answer.headers["location"]).params["ga_id"])
                self.clicked.add(click)
                if answer.headers.get("x-goodanalytics") == "accepted":
                    self.safe_clicks.add(click)
            return

    async def _are_taken(
        self,
        client: httpx.AsyncClient,
        address: str,
        name: str,
        beacons: Sequence[UUID],
        timeout: httpx.Timeout | float = PATIENCE,
    ) -> bool:
        page = {"url": "https://shop.example/", "title": self.title}
        items = [{"event_id": str(beacon), **page} for beacon in beacons]
        try:
            answer = await client.post(
                f"{address}/ga/t/event",
                json=items if len(items) > 1 else items[0],
                headers={"cookie": f"_ga_anon={name}"},
                timeout=timeout,
            )
        except httpx.ReadTimeout:
            self.answers["hung up"] += 1
            return False
        except httpx.TransportError:
            self.answers["broken"] += 1
            return False
        self.answers[answer.status_code] += 1
        if answer.status_code == 503 and not answer.headers.get("retry-after", "").isdigit():
            self.impatient += 1
        if answer.status_code == 202:
            self.acknowledged.update(beacons)
        return answer.status_code == 202

    async def has_acknowledged(self, beacons: int) -> None:
        """Return when that many beacons were answered 202."""
        await until(lambda: len(self.acknowledged) >= beacons, f"{beacons} beacons are acknowledged")

    async def compare(self, books: Books) -> dict[str, Any]:
        """What the database makes of it, once the log is empty. See `EXACT`."""
        await until(books.is_settled, "the log is empty")
        pages, clicks = await books.times("pageview"), await books.times("link_click")
        counted = set((await books.totals()).values())
        # Of a redirect whose connection broke nobody knows the click's id.
        unknown = clicks.keys() - self.clicked
        return {
            "lost": (self.acknowledged - pages.keys()) | (self.safe_clicks - clicks.keys()),
            "doubled": {event_id for event_id, n in (pages | clicks).items() if n > 1},
            "invented": pages.keys() - self.sent,
            "clicks of nobody": max(0, len(unknown) - self.redirects["broken"]),
            "set aside": (await books.counts())["rejected_hits"],
            "counted elsewhere": counted - {len(pages)},
        }


EXACT: dict[str, Any] = {
    "lost": set(),
    "doubled": set(),
    "invented": set(),
    "clicks of nobody": 0,
    "set aside": 0,
    "counted elsewhere": set(),
}


@pytest.fixture
def exact() -> dict[str, Any]:
    """What `Crowd.compare` says when nothing was lost, doubled or invented, and every counter agrees."""
    return EXACT


@pytest.fixture
def crowd() -> Callable[..., Crowd]:
    """`crowd(address, …, browsers=24, link=SPRING)`."""

    def gather(*addresses: str, browsers: int = 24, **more: str | None) -> Crowd:
        return Crowd(addresses, browsers, **({"link": SPRING} | more))

    return gather


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[None]]:
    """`await wait_until(condition, "what it waits for")`."""
    return until


def _a_server() -> Iterator[EmbeddedPostgres]:
    # Not below pytest's own directory: that one is closed to the unprivileged user that the server runs as under root.
    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-faults-"))
    parent.chmod(0o711)
    try:
        with EmbeddedPostgres(parent / "data") as server:
            yield server
    finally:
        shutil.rmtree(parent)


@pytest.fixture(scope="session")
def durable_server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL with fsync for all tests of this folder that leave it alive."""
    yield from _a_server()


@pytest.fixture
def mortal_server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the test's own, to be killed."""
    yield from _a_server()


Migrated = Callable[[EmbeddedPostgres], Awaitable[tuple[str, Books]]]


@pytest.fixture
def migrated() -> Migrated:
    """`await migrated(server)` is the URL of a new database with our schema and the link `SPRING`, and its books."""

    async def make(server: EmbeddedPostgres) -> tuple[str, Books]:
        name = f"faults_{next(_numbers)}"
        await asyncio.to_thread(server.create_database, name)
        engine = create_async_engine(server.url(name), poolclass=NullPool)
        await schema.migrate(engine, "good_analytics", now=datetime.now(UTC))
        analytics = Analytics(engine, Config(secret_key=SECRET, spool_path="off"))  # never started
        await analytics.links.create(
            domain="127.0.0.1", key=SPRING.rpartition("/")[2], url="https://shop.example/"
        )
        await engine.dispose()
        return server.url(name), Books(server.dsn(name))

    return make


@pytest.fixture
async def durable(durable_server: EmbeddedPostgres, migrated: Migrated) -> tuple[str, Books]:
    """URL and books of a database of this test's own on `durable_server`."""
    return await migrated(durable_server)
