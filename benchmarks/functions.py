"""
What each function costs on the way of a beacon and of a page: `python -m benchmarks.functions`.

No network: the ASGI apps are called directly with what uvicorn would hand them. First whole calls; then one call is watched,
and every function of ours in it is called again, alone, many times, with the arguments that it had. So a line holds what
lies under it, too, and nothing is distorted by a profiler. CPU time, the best of nine; in microseconds and in multiples of
the bare app's call, which is the same protocol with nothing done. `--database` adds the way to PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import uvloop
from msgspec.structs import replace as replace_fields
from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks import apps
from benchmarks.watching import Called, Waits, alone, opcodes, watched
from goodanalytics import Analytics, Config
from goodanalytics.core.hits import Hit, Signals
from goodanalytics.embedded import EmbeddedPostgres
from goodanalytics.log import postgres as log
from goodanalytics.web import rooted, tracker
from goodanalytics.web.middleware import Middleware

BEST_OF = 9
TRIAL_SECONDS = 0.008

BODY = (
    b'{"event_id":"00000007-438d-4ddd-8002-000000000002","event_type":"pageview",'
    b'"url":"https://shop.example/tools/spades?utm_source=newsletter&utm_medium=email&utm_campaign=autumn",'
    b'"title":"Spades","referrer":"https://www.google.com/","screen":"1920x1080","language":"de-DE",'
    b'"timezone":"Europe/Berlin","touch_points":0,"properties":{"theme":"dark","column":3}}'
)
HEADERS = [
    (b"host", b"shop.example"),
    (b"sec-ch-ua", b'"Chromium";v="141", "Not?A_Brand";v="8"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Windows"'),
    (
        b"user-agent",
        b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    ),
    (b"accept-language", b"de-DE,de;q=0.9,en;q=0.8"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"cookie", b"theme=dark; _ga_anon=bench-visitor-00003183"),
]
OF_A_BEACON = [
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
    (b"origin", b"https://shop.example"),
    (b"referer", b"https://shop.example/"),
    (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-dest", b"empty"),
    (b"sec-fetch-site", b"same-origin"),
    (b"content-length", str(len(BODY)).encode()),
]
OF_A_PAGE = [
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"referer", b"https://www.google.com/"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
]


def scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """What uvicorn hands to an app."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 50000), "scheme": "http", "root_path": "",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": HEADERS + headers, "state": {},
    }  # fmt: skip


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def send(_message: Any) -> None:
    pass


class NoLog:
    """A log that forgets at once."""

    async def append(self, _hits: Any) -> None:
        pass


class NoCopyLog(log.PostgresLog):
    """The log as it is, but for the COPY itself."""

    async def _copy(self, _rows: Any) -> None:
        await asyncio.sleep(0)


class NoDatabase:
    """Enough for a log that never writes."""

    class tables:  # noqa: N801  # stands for an attribute
        class hits:  # noqa: N801
            name, schema = "hits", "x"

        class rejected_hits:  # noqa: N801
            pass

        schema = "x"


class Bench:
    """Measures and tells."""

    def __init__(self) -> None:
        self._unit = 0.0

    def line(self, name: str, seconds: float, *, is_unit: bool = False) -> None:
        if is_unit:
            self._unit = seconds
        print(f"{name:66} {seconds * 1e6:9.2f} µs {seconds / self._unit:8.2f} ×", flush=True)

    def call(self, name: str, function: Callable[[], Any]) -> None:
        """A function."""
        function()
        calls = 1
        while (took := self._calls(function, calls)) < TRIAL_SECONDS / 4:
            calls *= 4
        calls = max(1, round(calls * TRIAL_SECONDS / took))
        self.line(name, min(self._calls(function, calls) for _ in range(BEST_OF)) / calls)

    @staticmethod
    def _calls(function: Callable[[], Any], calls: int) -> float:
        began = time.process_time()
        for _ in range(calls):
            function()
        return time.process_time() - began

    async def await_(
        self, name: str, function: Callable[[], Awaitable[Any]], *, at_once: int = 1, is_unit: bool = False
    ) -> None:
        """A coroutine function, *at_once* at a time as that many connections would. Waiting is not counted."""

        async def calls(count: int) -> float:
            began = time.process_time()
            for _ in range(count):
                if at_once == 1:
                    await function()
                else:
                    await asyncio.gather(*(function() for _ in range(at_once)))
            return time.process_time() - began

        count = 1
        while (took := await calls(count)) < TRIAL_SECONDS / 2 and count < 100_000:
            count *= 4
        count = max(1, round(count * TRIAL_SECONDS / max(took, 1e-6)))
        best = min([await calls(count) for _ in range(BEST_OF)])
        self.line(name, best / count / at_once, is_unit=is_unit)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.functions", description=__doc__)
    parser.add_argument("--database", action="store_true", help="and the way to PostgreSQL")
    options = parser.parse_args()
    bench = Bench()
    await _whole(bench)
    await _steps(bench)
    if options.database:
        await _with_database(bench)


CONFIG = Config(secret_key=apps.SECRET)


def _beacon_scope() -> dict[str, Any]:
    return scope("POST", "/ga/t/event", OF_A_BEACON)


def _wrapped(some_log: Any) -> Any:
    analytics = Analytics("postgresql+asyncpg://nobody@127.0.0.1:1/none", replace(CONFIG, worker=False))
    analytics.tracker = tracker.Tracker(CONFIG, some_log, None)  # type: ignore[arg-type]
    house = analytics.wrap(Starlette(routes=[Route("/page", apps.page_of_2_kb)]))
    house._is_started = True  # type: ignore[attr-defined]  # noqa: SLF001  # no lifespan is spoken here
    return house


async def _whole(bench: Bench) -> None:
    print("\nWhole calls")
    await bench.await_("bare ASGI POST 204", lambda: apps.bare(_beacon_scope(), receive, send), is_unit=True)
    plain = Starlette(routes=[Route("/ga/t/event", apps.taken, methods=["POST"])])
    await bench.await_("Starlette POST 204", lambda: plain(_beacon_scope(), receive, send))
    beacon = _wrapped(NoLog())
    await bench.await_(
        "beacon, log stubbed: House → Tracker → 202", lambda: beacon(_beacon_scope(), receive, send)
    )
    alone = tracker.Tracker(CONFIG, NoLog(), None)  # type: ignore[arg-type]
    await bench.await_("  Tracker.__call__", lambda: alone(_below(), receive, send))
    no_copy = _wrapped(NoCopyLog(NoDatabase(), CONFIG.clock, CONFIG.new_id))  # type: ignore[arg-type]
    await bench.await_(
        "beacon, COPY stubbed, 64 at a time", lambda: no_copy(_beacon_scope(), receive, send), at_once=64
    )
    await bench.await_(
        "beacon, log stubbed, 64 at a time", lambda: beacon(_beacon_scope(), receive, send), at_once=64
    )
    page = Starlette(routes=[Route("/page", apps.page_of_2_kb)])
    inside = Middleware(page, CONFIG)
    await bench.await_("page of 2 kB", lambda: page(scope("GET", "/page", OF_A_PAGE), receive, send))
    await bench.await_(
        "page behind Middleware", lambda: inside(scope("GET", "/page", OF_A_PAGE), receive, send)
    )
    house = _wrapped(NoLog())
    await bench.await_("page behind wrap()", lambda: house(scope("GET", "/page", OF_A_PAGE), receive, send))


def _below() -> dict[str, Any]:
    return rooted(_beacon_scope(), "/ga") or {}


async def _steps(bench: Bench) -> None:
    beacon = _wrapped(NoLog())
    ways: list[tuple[str, Any, Callable[[], dict[str, Any]]]] = [
        ("a beacon, log stubbed", beacon, _beacon_scope),
        ("a page", beacon, lambda: scope("GET", "/page", OF_A_PAGE)),
    ]
    for title, app, asked in ways:
        for _ in range(200):  # caches are warm in a server
            await app(asked(), receive, send)

        async def run(app: Any = app, asked: Any = asked) -> None:
            await app(asked(), receive, send)

        counted = await opcodes(run)
        print(f"\nOn the way of {title}: {counted.total():,} opcodes")
        for called in await watched(run):
            _tell(bench, called, counted)
    no_copy = NoCopyLog(NoDatabase(), CONFIG.clock, CONFIG.new_id)  # type: ignore[arg-type]
    hit = await _a_hit()
    print("\nOn the way of a hit into the log, COPY stubbed")
    for called in await watched(lambda: no_copy.append([hit])):
        _tell(bench, called, Counter())
    no_copy = NoCopyLog(NoDatabase(), CONFIG.clock, CONFIG.new_id)  # type: ignore[arg-type]
    await bench.await_("append, 64 at a time", lambda: no_copy.append([hit]), at_once=64)
    await bench.await_("append, one at a time", lambda: no_copy.append([hit]))


def _tell(bench: Bench, called: Called, counted: Counter[Any]) -> None:
    times = f"  {called.times} times" if called.times > 1 else ""
    own = f"  {counted[called.function.__code__]} opcodes" if counted else ""
    name = "  " * called.depth + called.function.__qualname__ + times + own
    again = alone(called)
    if again is None or called.function.__qualname__.startswith("NoCopyLog"):
        print(name)
        return
    try:
        bench.call(name, again)
    except Waits:
        print(f"{name:66}     waits")
    except Exception as error:  # noqa: BLE001  # told in the table; the other lines matter
        print(f"{name:66}     cannot be called again: {error!r}")


async def _a_hit() -> Hit:
    """What the tracker hands to the log."""
    found: list[Hit] = []

    class Remembering(NoLog):
        async def append(self, hits: Any) -> None:
            found.extend(hits)

    await _wrapped(Remembering())(_beacon_scope(), receive, send)
    return found[0]


@contextmanager
def _postgres() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="goodanalytics-bench-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o711)
        with EmbeddedPostgres(Path(parent) / "data") as postgres:
            yield postgres


async def _with_database(bench: Bench) -> None:
    """What the way to PostgreSQL costs this process; waiting is not counted."""
    print("\nThe way to PostgreSQL (CPU time of this process alone)")
    with _postgres() as postgres:
        analytics = Analytics(postgres.url(), replace(CONFIG, worker=False))
        await analytics.migrate()
        engine = analytics.database.engine
        try:
            hit = await _a_hit()
            new = log.EntryIds(CONFIG.clock, CONFIG.new_id)

            def rows(count: int) -> list[tuple[int, UUID, bytes]]:
                return [(log.shard_of(hit), new(), msgspec.msgpack.encode(hit)) for _ in range(count)]

            async def checked_out() -> None:
                async with engine.connect() as conn:
                    await conn.get_raw_connection()

            await bench.await_("engine.connect() and back (pre-ping, reset)", checked_out)
            async with engine.connect() as conn:
                raw: Any = (await conn.get_raw_connection()).driver_connection
                columns = ("shard", "id", "body")

                async def copied(count: int) -> None:
                    await raw.copy_records_to_table(
                        "hits", schema_name="good_analytics", columns=columns, records=rows(count)
                    )

                await bench.await_("raw COPY of 1 row", lambda: copied(1))
                await bench.await_("raw COPY of 64 rows", lambda: copied(64))
                await bench.await_("raw SELECT 1", lambda: raw.fetchval("SELECT 1"))
            own = analytics.log
            await bench.await_("append of 1 hit, alone", lambda: own.append([hit]))
            await bench.await_("append of 1 hit, 64 at a time", lambda: own.append([hit]), at_once=64)
            await _batches(bench, analytics, hit)
        finally:
            await analytics.stop()


async def _batches(bench: Bench, analytics: Analytics, hit: Hit) -> None:
    """What the worker does with a batch, by hit: 4,000 visitors that come again."""
    fresh = count()

    def batch(size: int) -> list[Hit]:
        return [
            replace_fields(
                hit,
                id=CONFIG.new_id(),
                received_at=(now := CONFIG.clock()),
                occurred_at=now,
                signals=Signals(anonymous_id=f"bench-visitor-{next(fresh) % 4_000:08d}"),
            )
            for _ in range(size)
        ]

    for _ in range(10):
        await analytics.ingest.now(batch(400))
    for size in (1, 10, 100, 500):
        used = []
        for _ in range(BEST_OF):
            hits = batch(size)
            began = time.process_time()
            await analytics.ingest.now(hits)
            used.append((time.process_time() - began) / size)
        bench.line(f"ingest of {size} hits, each", min(used))
    hits = batch(100)
    counted = await opcodes(lambda: analytics.ingest.now(hits))
    print(f"{counted.total() / 100:,.0f} opcodes for each hit of 100; most of them in")
    for code, number in counted.most_common(25):
        print(f"  {number / 100:7.0f}  {code.co_filename.rpartition('/')[2]}:{code.co_qualname}")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
