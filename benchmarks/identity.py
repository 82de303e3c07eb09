"""
What it costs to know who 500 hits are, and to merge: ratios measured in one run.

    python -m benchmarks.identity [--quick] [--url postgresql+asyncpg://…]

1. Batch resolution: everything that a batch of 500 hits of 500 known visitors reads before it is decided (`ledger.load`) against one
   indexed `= ANY` look-up of the same 500 keys, among N identities. Reach: at most 3.
2. `visitors.merge` of a visitor with many events against one with ten. Reach: no more, but for noise.

Without `--url` an embedded PostgreSQL is started in a temporary directory. A given database is migrated and filled: do not name one
that holds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from uuid import UUID

from goodanalytics import Analytics, Config
from goodanalytics.core.identity import Identifier, Kind
from goodanalytics.store import ledger
from goodanalytics.store.database import run
from goodanalytics.store.told import Evidence

WORKSPACE = UUID(int=0)
BATCH = 500  # hits
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


async def fill(analytics: Analytics, identities: int) -> None:
    """As many visitors as identities, a cookie each."""
    t = analytics.database.tables
    async with analytics.database.begin() as conn:
        await run(
            conn,
            f"INSERT INTO {t.visitors} (workspace_id, id, canonical_id, status, traits, first_seen_at, last_seen_at, geo, device, "  # the schema's own name
            "platform_signals, total_sessions, total_pageviews, total_events, ltv) "
            "SELECT :w, i, i, 'anonymous', '{}', :at, :at, '{}', '{}', '{}', 1, 1, 1, '{}' "
            "FROM (SELECT md5(n::text)::uuid AS i FROM generate_series(1, :n) AS n) AS v",
            w=WORKSPACE, at=START, n=identities,
        )  # fmt: skip
        await run(
            conn,
            f"INSERT INTO {t.identities} (workspace_id, kind, value, visitor_id, first_seen_at) "
            "SELECT :w, 'anonymous_id', 'cookie-' || n, md5(n::text)::uuid, :at FROM generate_series(1, :n) AS n",
            w=WORKSPACE, at=START, n=identities,
        )  # fmt: skip
    async with analytics.database.engine.connect() as opened:
        conn = await opened.execution_options(isolation_level="AUTOCOMMIT")
        for table in (t.visitors, t.identities, t.events):
            await run(conn, f"VACUUM ANALYZE {table}")


async def events(analytics: Analytics, visitor: UUID, number: int) -> None:
    """Give *visitor* so many events."""
    t = analytics.database.tables
    async with analytics.database.begin() as conn:
        await run(
            conn,
            f"INSERT INTO {t.events} (workspace_id, visitor_id, occurred_at, id, received_at, event_type, origin, trusted, source, "
            "medium, channel, properties) SELECT :w, :v, CAST(:at AS timestamptz) + n * interval '1 second', "
            "md5(:salt || n::text)::uuid, :at, 'pageview', 'browser', false, 'direct', 'direct', 'direct', '{}' "
            "FROM generate_series(1, :n) AS n",
            w=WORKSPACE, v=visitor, at=START, n=number, salt=str(visitor),
        )  # fmt: skip


async def median(rounds: int, act: Callable[[int], Awaitable[None]]) -> float:
    """Seconds of the middle round; two rounds before it warm up."""
    for number in (-1, -2):
        await act(number)
    seconds = []
    for number in range(rounds):
        began = perf_counter()
        await act(number)
        seconds.append(perf_counter() - began)
    return statistics.median(seconds)


async def resolution(analytics: Analytics, identities: int, rounds: int) -> float:
    """Batch resolution over one look-up of the same keys."""
    t = analytics.database.tables

    def cookies(number: int) -> list[str]:
        first = (number % 97) * BATCH * 7
        return [f"cookie-{1 + (first + 31 * n) % identities}" for n in range(BATCH)]

    async def look_up(number: int) -> None:
        async with analytics.database.begin() as conn:
            found = await run(
                conn,
                f"SELECT value, visitor_id FROM {t.identities} WHERE workspace_id = :w AND kind = 'anonymous_id' "
                "AND value = ANY(CAST(:values AS text[]))",
                w=WORKSPACE, values=cookies(number),
            )  # fmt: skip
            found.all()

    async def resolve(number: int) -> None:
        evidence = [
            Evidence(WORKSPACE, (Identifier(Kind.ANONYMOUS_ID, value),), None) for value in cookies(number)
        ]
        async with analytics.database.begin() as conn:
            await ledger.load(
                conn, t, evidence, (START, START), timedelta(minutes=30), analytics.config.graveyard
            )

    return await median(rounds, resolve) / await median(rounds, look_up)


async def merging(analytics: Analytics, many: int, rounds: int) -> float:
    """A merge of somebody with *many* events over one of somebody with ten."""
    seconds = {}
    for number in (10, many):

        async def merge(turn: int, number: int = number) -> None:
            ids = [UUID(int=(number << 32) + 2 * (turn + 3) + side) for side in (0, 1)]
            await analytics.visitors.merge(*ids, reason="benchmark")

        for turn in range(-2, rounds):
            for side in (0, 1):
                visitor = UUID(int=(number << 32) + 2 * (turn + 3) + side)
                t = analytics.database.tables
                async with analytics.database.begin() as conn:
                    await run(
                        conn,
                        f"INSERT INTO {t.visitors} SELECT (json_populate_record(v, json_build_object('id', CAST(:i AS uuid), "
                        f"'canonical_id', CAST(:i AS uuid)))).* FROM {t.visitors} v WHERE v.workspace_id = :w LIMIT 1",
                        w=WORKSPACE, i=visitor,
                    )  # fmt: skip
            await events(analytics, visitor, number)
        seconds[number] = await median(rounds, merge)
    return seconds[many] / seconds[10]


async def measure(url: str, *, quick: bool) -> None:
    """Fill, measure, print."""
    identities, many, rounds = (20_000, 2_000, 7) if quick else (5_000_000, 100_000, 15)
    config = Config(secret_key="benchmark" * 5, worker=False, auto_migrate=True)  # signs nothing
    async with Analytics(url, config) as analytics:
        await fill(analytics, identities)
        ratio = await resolution(analytics, identities, rounds * 3)
        sys.stdout.write(
            f"resolving {BATCH} hits among {identities:,} identities: {ratio:.1f} x one look-up (reach 3)\n"
        )
        ratio = await merging(analytics, many, rounds)
        sys.stdout.write(f"merging a visitor with {many:,} events: {ratio:.2f} x one with 10 (reach 1)\n")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a thousandth of the size")
    parser.add_argument("--url", help="an empty database to fill; an embedded one when left out")
    asked = parser.parse_args()
    if asked.url:
        asyncio.run(measure(asked.url, quick=asked.quick))
        return
    from goodanalytics.embedded import EmbeddedPostgres  # noqa: PLC0415  # an extra

    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-bench-"))
    parent.chmod(0o711)
    try:
        with EmbeddedPostgres(parent / "data", fsync=False) as server:
            asyncio.run(measure(server.url(), quick=asked.quick))
    finally:
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
