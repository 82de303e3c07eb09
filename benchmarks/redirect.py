"""
The short link: ours with its click durable, beside redirects that remember nothing. Bounds from issue 5.

PostgreSQL is not stopped for the others' sake: the database of one variant lets nobody in for a slice, which its server cannot
tell from an outage. That slice starts when the first clicks went into the spool, and the round ends when they have left it.

10,000 links evenly are links in use: each is asked for once before the slice, so that it begins with all of them in memory,
where whatever is clicked now and then stays. What a link costs that is not there yet is told by the rows about cold keys.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.apps import spool_of
from benchmarks.measures import Rounds, Row, Steady, Subject, ratios
from benchmarks.rig import SCHEMA, Load, Rig, Sample

LINKS = 10_000
ALL_LINKS = 1_000_000
STEP = 100_000
DRAIN_SECONDS = 60


def make_links(first: int, last: int) -> str:
    """A statement that makes links whose keys are numbers."""
    return f"""
        INSERT INTO {SCHEMA}.links (workspace_id, id, domain, key, url, link_type, utm_source, rules, variants, redirect_status,
               forward_path, forward_query, cloaked, indexed, tags, metadata, created_at, updated_at)
        SELECT '{"0" * 8}-{"0" * 4}-{"0" * 4}-{"0" * 4}-{"0" * 12}', gen_random_uuid(), 'shop.example', n::text,
               'https://shop.example/seeds/' || n, 'short', 'letter', '[]', '[]', 302, false, true, false, false,
               ARRAY[]::text[], '{{}}', now(), now()
        FROM generate_series({first}, {last}) AS n
    """


MAKE_LINKS = make_links(1, LINKS)
MAKE_ALL_LINKS = tuple(make_links(n + 1, n + STEP) for n in range(0, ALL_LINKS, STEP))
ANALYZE = f"ANALYZE {SCHEMA}.links"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
HOT = Load("link", "/l/", 64)
MANY = Load("link", "/l/", 64, links=LINKS)
WARM_ONE = Load("link", "/l/", 1)
COLD_ONE = Load("link", "/l/", 1, links=ALL_LINKS)
COLD = Load("link", "/l/", 64, links=ALL_LINKS)


@dataclass(frozen=True, slots=True)
class InUse:
    """As `Steady`, when each of the load's links was asked for a moment ago."""

    name: str
    variant: str
    load: Load
    against: str

    def take(self, rig: Rig, _earlier: Rounds) -> Sample:
        rig.servers[self.variant].await_ready()
        rig.loop.run(_ask_for_all(rig.servers[self.variant].port, self.load))
        return rig.drive(self.variant, self.load)


async def _ask_for_all(port: int, load: Load) -> None:
    """Ask for each link once, by as many connections as the load has."""
    paths = iter([f"{load.path}{number}" for number in range(1, load.links + 1)])
    async with asyncio.TaskGroup() as group:
        for _ in range(load.connections):
            group.create_task(_ask_for(port, paths))


async def _ask_for(port: int, paths: Iterator[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: {BROWSER}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 302 "):
            raise RuntimeError(f"{path} was answered with {head[:80]!r}")
    writer.close()
    await writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Outage:
    """As `Steady`, while the variant's database lets nobody in."""

    name: str
    variant: str
    load: Load
    against: str

    def take(self, rig: Rig, _earlier: Rounds) -> Sample:
        self._open(rig, allowed=False)
        try:
            rig.drive(self.variant, self.load, 1)  # the first ones find out
            if not self._spooled():
                raise RuntimeError(
                    f"{self.name}: nothing lies in {spool_of(os.getpid())}; is the database away?"
                )
            return rig.drive(self.variant, self.load)
        finally:
            self._open(rig, allowed=True)
            deadline = time.monotonic() + DRAIN_SECONDS
            while self._spooled():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name}: the spool is not empty after {DRAIN_SECONDS} s")
                time.sleep(0.05)

    def _open(self, rig: Rig, *, allowed: bool) -> None:
        rig.execute("postgres", f"ALTER DATABASE {self.variant} ALLOW_CONNECTIONS {allowed}")
        if not allowed:
            rig.execute(
                "postgres",
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.variant}'",
            )

    def _spooled(self) -> bool:
        return any(spool_of(os.getpid()).rglob("hits-*.sqlite"))


def start(rig: Rig) -> None:
    rig.start("bare_redirect", "benchmarks.apps:bare_redirect")
    rig.start("starlette_redirect", "benchmarks.apps:starlette_redirect")
    rig.start("redirect", "benchmarks.apps:wrapped", ours=True, prepare=(MAKE_LINKS, ANALYZE))
    rig.start("spooling", "benchmarks.apps:spooling", ours=True, prepare=(MAKE_LINKS, ANALYZE))
    rig.start("million", "benchmarks.apps:wrapped", ours=True, prepare=(*MAKE_ALL_LINKS, ANALYZE))


def between(rig: Rig) -> None:
    """Empty the logs that nobody reads."""
    for variant in ("redirect", "million"):
        rig.execute(variant, f"TRUNCATE {SCHEMA}.hits")


def rows(rounds: Rounds, unit: str) -> list[Row]:
    hot, many = "redirect, 1 link@64", "redirect, 10,000 links@64"
    bare, starlette = "bare redirect@64", "starlette redirect@64"
    return [
        Row("redirect with the click durable, requests/s", "bare Starlette redirect",
            ratios(rounds, hot, starlette, "rate"), 0.6, at_least=True),
        Row(f"redirect with the click durable, server {unit}", "bare Starlette redirect",
            ratios(rounds, hot, starlette, "server")),
        Row("redirect with the click durable, requests/s", "bare ASGI redirect", ratios(rounds, hot, bare, "rate")),
        Row("redirect, 10,000 links in use evenly, requests/s", "1 hot link",
            ratios(rounds, many, hot, "rate"), 0.9, upper=1.1),
        Row("redirect with PostgreSQL away (spool), requests/s", "with it there",
            ratios(rounds, "redirect, away@64", "redirect, there@64", "rate"), 0.8, at_least=True),
        Row("redirect of a cold key among 1,000,000 links, p50", "of a warm key",
            ratios(rounds, "redirect, cold@1", "redirect, warm@1", "p50"), 4.0),
        Row("redirect of cold keys among 1,000,000 links at 64 connections, requests/s", "of a warm key",
            ratios(rounds, "redirect, cold@64", "redirect, warm@64", "rate")),
    ]  # fmt: skip


SUBJECT = Subject(
    "redirect",
    start,
    (
        Steady("bare redirect@64", "bare_redirect", HOT, "bare redirect@64"),
        Steady("starlette redirect@64", "starlette_redirect", HOT, "bare redirect@64"),
        Steady("redirect, 1 link@64", "redirect", HOT, "bare redirect@64"),
        InUse("redirect, 10,000 links@64", "redirect", MANY, "bare redirect@64"),
        Steady("redirect, there@64", "spooling", HOT, "bare redirect@64"),
        Outage("redirect, away@64", "spooling", HOT, "redirect, there@64"),
        Steady("redirect, warm@1", "million", WARM_ONE, "redirect, warm@1"),
        Steady("redirect, cold@1", "million", COLD_ONE, "redirect, warm@1"),
        Steady("redirect, warm@64", "million", HOT, "bare redirect@64"),
        Steady("redirect, cold@64", "million", COLD, "bare redirect@64"),
    ),
    rows,
    between,
)
