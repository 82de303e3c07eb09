"""
What it costs to know who 500 hits are, and to merge: ratios measured in one run.

    python -m benchmarks.identity [--quick] [--url postgresql+asyncpg://…]

1. Resolving: 500 hits of 500 known visitors → 500 visitors, decided. That is all of `Ingest` but receipts and what follows from
   knowing them (their visits, counters, events): evidence is read out of the hits, looked up, the persons are locked with all
   their rows, what is new is looked for among the erased and in the ledger, and `People` decides each hit, in a transaction of
   its own. Held against one indexed `= ANY` look-up of the 500 keys, in a transaction of its own through the same door, among
   N identities. Reach: at most 3.
   Each round takes other visitors (so most pages come from the system's cache), and one row asks for the same 500 again and again.
2. `visitors.merge` of a visitor with many events against one with ten. Reach: no more, but for noise.

Rounds alternate, and the median of their ratios counts. Without `--url` an embedded PostgreSQL is started in a temporary
directory. A given database is migrated and filled: do not name one that holds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any
from uuid import UUID

from benchmarks.measures import Row, Subject
from benchmarks.report import reach
from benchmarks.rig import Rig
from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.store.database import run

WORKSPACE = UUID(int=0)
BATCH = 500  # hits
WARM_UP = 5  # rounds
FULL = (5_000_000, 100_000, 15)
"""Identities, events of the visitor with many, rounds."""
QUICK = (20_000, 2_000, 7)
FILLED = 40_000
"""Identities that are filled in a second, at the least."""
NOISE = 1.15
"""What two merges of the same size differ by."""
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


async def fill(analytics: Analytics, identities: int) -> None:
    """As many visitors as identities, a cookie each. Keys are made when the rows are there, which takes a third of the time."""
    t = analytics.database.tables
    async with analytics.database.begin() as conn:
        keys = [await _without_keys(conn, table) for table in (t.visitors, t.identities)]
        await run(
            conn,
            f"INSERT INTO {t.visitors} (workspace_id, id, canonical_id, status, traits, first_seen_at, last_seen_at, geo, device, "
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
        await run(conn, "SET LOCAL maintenance_work_mem = '512MB'")
        for statement in (statement for made in keys for statement in made):
            await run(conn, statement)
    async with analytics.database.engine.connect() as opened:
        conn = await opened.execution_options(isolation_level="AUTOCOMMIT")
        for table in (t.visitors, t.identities, t.events):
            await run(conn, f"VACUUM ANALYZE {table}")


async def _without_keys(conn: Any, table: Any) -> list[str]:
    """Drop the keys and indexes of *table*; the statements that make them again."""
    keys = await run(
        conn,
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = CAST(:t AS regclass) AND contype = 'p'",
        t=str(table),
    )
    again = []
    for name, words in keys.all():
        await run(conn, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        again.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {words}")
    indexes = await run(
        conn,
        "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = CAST(:t AS regclass)",
        t=str(table),
    )
    for name, words in indexes.all():
        await run(conn, f"DROP INDEX {name}")
        again.append(words)
    return again


async def events(analytics: Analytics, visitor: UUID, number: int) -> None:
    """Give *visitor* so many events, a second apart, all of visits that one link began."""
    t = analytics.database.tables
    async with analytics.database.begin() as conn:
        await run(
            conn,
            f"INSERT INTO {t.events} (workspace_id, visitor_id, occurred_at, id, received_at, event_type, origin, trusted, source, "
            "medium, channel, link_id, properties) SELECT :w, :v, CAST(:at AS timestamptz) + n * interval '1 second', "
            "md5(:salt || n::text)::uuid, :at, 'pageview', 'browser', false, 'news', 'email', 'email', :link, '{}' "
            "FROM generate_series(1, :n) AS n",
            w=WORKSPACE, v=visitor, at=START, n=number, salt=str(visitor), link=UUID(int=5),
        )  # fmt: skip


async def timed(act: Awaitable[None]) -> float:
    """Seconds that *act* takes."""
    began = perf_counter()
    await act
    return perf_counter() - began


def a_hit(analytics: Analytics, browser: str) -> Hit:
    """A page that a browser looks at."""
    config = analytics.config
    return Hit(
        id=config.new_id(), workspace_id=WORKSPACE, received_at=START, occurred_at=START, event_type=EventType.PAGEVIEW,
        origin="browser", url="https://shop.example/", signals=Signals(anonymous_id=browser),
    )  # fmt: skip


async def resolution(analytics: Analytics, identities: int, rounds: int, *, again: bool) -> list[float]:
    """Resolving over one look-up, in each round; *again*: the same visitors in every round."""
    t, chance = analytics.database.tables, Random(4)
    same = [f"cookie-{chance.randint(1, identities)}" for _ in range(BATCH)]

    def cookies() -> list[str]:
        return same if again else [f"cookie-{chance.randint(1, identities)}" for _ in range(BATCH)]

    async def look_up(values: list[str]) -> None:
        async with analytics.database.begin() as conn:
            found = await run(
                conn,
                f"SELECT value, visitor_id FROM {t.identities} WHERE workspace_id = :w AND kind = 'anonymous_id' "
                "AND value = ANY(CAST(:values AS text[]))",
                w=WORKSPACE, values=values,
            )  # fmt: skip
            found.all()

    async def resolve(hits: list[Hit]) -> None:
        async with analytics.database.begin() as conn:
            _, taken = await analytics.ingest.resolve(conn, hits)
            assert all(one is not None for one in taken)

    ratios = []
    for number in range(-WARM_UP, rounds):
        hits = [a_hit(analytics, browser) for browser in cookies()]
        if number % 2:
            resolving, looking = await timed(resolve(hits)), await timed(look_up(cookies()))
        else:
            looking, resolving = await timed(look_up(cookies())), await timed(resolve(hits))
        if number >= 0:
            ratios.append(resolving / looking)
    return ratios


async def merging(analytics: Analytics, many: int, rounds: int) -> list[float]:
    """A merge of somebody with *many* events over one of somebody with ten, in each round."""
    t = analytics.database.tables
    pairs: dict[int, list[list[UUID]]] = {10: [], many: []}
    for number, made in pairs.items():
        for turn in range(rounds + WARM_UP):
            made.append([UUID(int=(number << 32) + 2 * turn + side) for side in (0, 1)])
            for visitor in made[-1]:
                async with analytics.database.begin() as conn:
                    await run(
                        conn,
                        f"INSERT INTO {t.visitors} SELECT (json_populate_record(v, json_build_object('id', CAST(:i AS uuid), "
                        f"'canonical_id', CAST(:i AS uuid)))).* FROM {t.visitors} v WHERE v.workspace_id = :w LIMIT 1",
                        w=WORKSPACE, i=visitor,
                    )  # fmt: skip
            await events(analytics, made[-1][1], number)  # the loser's: of equal age, the higher id
    ratios = []
    for turn in range(rounds + WARM_UP):
        seconds = {}
        for number in sorted(pairs, reverse=bool(turn % 2)):
            seconds[number] = await timed(_merge(analytics, pairs[number][turn]))
        if turn >= WARM_UP:
            ratios.append(seconds[many] / seconds[10])
    return ratios


async def _merge(analytics: Analytics, pair: list[UUID]) -> None:
    await analytics.visitors.merge(*pair, reason="benchmark")


async def measure(url: str, *, identities: int, many: int, rounds: int) -> list[Row]:
    """Fill, and measure."""
    config = Config(secret_key="benchmark" * 5, worker=False, auto_migrate=True)  # signs nothing
    async with Analytics(url, config) as analytics:
        await fill(analytics, identities)
        rows = []
        for again in (False, True):
            ratios = await resolution(analytics, identities, rounds * 3, again=again)
            whom = "the same 500 hits again and again" if again else "500 hits of 500 known visitors"
            rows.append(
                Row(f"resolving {whom} among {identities:,} identities", "one look-up of 500 keys", ratios, 3)
            )
        ratios = await merging(analytics, many, rounds)
        rows.append(Row(f"merging a visitor with {many:,} events", "one with 10", ratios, NOISE))
        return rows


def alone(rig: Rig, seconds: float) -> list[Row]:
    """As many identities as the time allows; half of it is for measuring."""
    rig.execute("postgres", "CREATE DATABASE identity")
    identities = max(QUICK[0], min(FULL[0], round(seconds / 2 * FILLED)))
    _, many, rounds = FULL if identities == FULL[0] else QUICK
    try:
        url = rig.postgres.url("identity")
        return rig.loop.run(measure(url, identities=identities, many=many, rounds=rounds))
    finally:
        rig.execute("postgres", "DROP DATABASE identity WITH (FORCE)")


SUBJECT = Subject("identity", lambda _rig: None, alone=alone)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a thousandth of the size")
    parser.add_argument("--url", help="an empty database to fill; an embedded one when left out")
    asked = parser.parse_args()
    identities, many, rounds = QUICK if asked.quick else FULL
    size = {"identities": identities, "many": many, "rounds": rounds}
    if asked.url:
        sys.stdout.write(reach(asyncio.run(measure(asked.url, **size))) + "\n")
        return
    from goodanalytics.embedded import EmbeddedPostgres  # noqa: PLC0415  # an extra

    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-bench-"))
    parent.chmod(0o711)
    try:
        with EmbeddedPostgres(parent / "data", fsync=False) as server:
            sys.stdout.write(reach(asyncio.run(measure(server.url(), **size))) + "\n")
    finally:
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
