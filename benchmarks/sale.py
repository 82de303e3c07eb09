"""
What `sale()` adds to the host's own transaction: ratios measured in one run.

    python -m benchmarks.sale [--quick] [--url postgresql+asyncpg://…]

The host's transaction is an ORM session's: BEGIN, an order that is flushed, COMMIT. Before it, and not counted, its request asks who the
visitor is. Variants of it take turns, order by order, on one connection, so that the machine's drift hits all alike:

1. the order alone;
2. the order and two more of its kind, objects of eight columns with a key and two indexes, each flushed by itself;
3. the order and two such rows by SQLAlchemy's `insert()`;
4. the order and two inserts as simple as they get: `text()` with two parameters, a key and one index;
5. the order and `sale(…, connection=session)`, with a key, of that visitor, who is on a visit;
6. the same of a visitor of whom only the id is known.

Reach: what (5) and (6) add is at most what (2) adds; (3) and (4) are told beside it. Commits are not waited for
(`synchronous_commit=off`), which would hide the difference behind the disk.

Without `--url` an embedded PostgreSQL is started in a temporary directory. A given database is migrated and filled: do not name one
that holds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text, event, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks.measures import Row, Subject
from benchmarks.rig import Rig
from goodanalytics import Analytics, Config, Visitor
from goodanalytics.core.hits import Client, EventType, Hit, Signals

REACH = 2  # statements
ORDERED, FLUSHED, SIMPLE = (
    "an INSERT of an order",
    "an ORM session's flush of an order",
    "a simple indexed INSERT",
)
ASKED, NAMED = "`sale()` of who was asked for", "`sale()` of an id"
LONG = 20  # seconds that a full run takes, and some more
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
HOST = MetaData()
ORDERS = Table(
    "orders", HOST,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("customer_id", BigInteger, nullable=False, index=True),
    Column("number", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Column("lines", JSONB, nullable=False),
)  # fmt: skip
NOTES = Table(
    "notes", HOST,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("customer", BigInteger, nullable=False, index=True),
    Column("amount_cents", BigInteger, nullable=False),
)  # fmt: skip
ORDER = insert(ORDERS)


class Objects(DeclarativeBase):
    """The host's objects."""


class Written(Objects):
    """An order as an object."""

    __table__ = ORDERS


NOTE = text("INSERT INTO notes (id, customer, amount_cents) VALUES (:id, :customer, 4900)")


def order(number: int) -> dict[str, Any]:
    """What a shop writes down."""
    return {
        "id": number,
        "customer_id": number % 999,
        "number": f"R-2026-{number}",
        "status": "paid",
        "amount_cents": 4900,
        "currency": "EUR",
        "placed_at": datetime.now(UTC),
        "lines": [{"sku": "A-1", "quantity": 1, "price_cents": 4900}],
    }


BROWSERS = 200  # that are asked for, and as many of whom nobody asks


async def visitors(analytics: Analytics, number: int) -> list[UUID]:
    """So many visitors, each with three visits, the last of which is going on."""
    now = analytics.config.clock()
    found = []
    for start in range(0, number, 100):
        for days in (9, 2, 0):
            hits = [
                Hit(
                    id=analytics.config.new_id(),
                    workspace_id=analytics.config.workspace,
                    received_at=now - timedelta(days=days),
                    occurred_at=now - timedelta(days=days),
                    event_type=EventType.PAGEVIEW,
                    origin="browser",
                    url=f"https://shop.test/?utm_source=campaign{days}&utm_medium=cpc",
                    signals=Signals(anonymous_id=f"browser-{start + n}"),
                    client=Client(user_agent=BROWSER),
                )
                for n in range(min(100, number - start))
            ]
            outcomes = await analytics.ingest.now(hits)
        found += [outcome.visitor_id for outcome in outcomes]
    return found


@dataclass(frozen=True)
class Found:
    """
    What `sale()` adds.

    Attributes:
        ratios: As multiples of one statement, in each tenth of the rounds, by who is sold to and the kind of statement.
        statements: That each takes.
        middle: Seconds of a transaction.
    """

    ratios: dict[tuple[str, str], list[float]]
    statements: dict[str, int]
    middle: dict[str, float]


async def measure(url: str, *, quick: bool) -> Found:
    """Fill and measure."""
    rounds = 300 if quick else 2_000
    engine = create_async_engine(url, connect_args={"server_settings": {"synchronous_commit": "off"}})
    async with Analytics(
        engine, Config(secret_key="benchmark" * 5, worker=False, auto_migrate=True)
    ) as analytics:
        async with engine.begin() as conn:
            await conn.run_sync(HOST.create_all)
        people = await visitors(analytics, 2 * BROWSERS)

        async def alone(session: AsyncSession, number: int) -> None: ...

        async def two_flushes(session: AsyncSession, number: int) -> None:
            for side in (1, 2):
                session.add(Written(**order(100 * number + 50 + side)))
                await session.flush()

        async def two_orders(session: AsyncSession, number: int) -> None:
            for side in (1, 2):
                await session.execute(ORDER, order(100 * number + 60 + side))

        async def two_notes(session: AsyncSession, number: int) -> None:
            for side in (0, 1):
                await session.execute(NOTE, {"id": 2 * number + side, "customer": number % 999})

        async def sold(session: AsyncSession, who: Visitor | UUID, key: str) -> None:
            await analytics.sale(who, amount_cents=4900, currency="EUR", key=key, connection=session)

        async def asked(session: AsyncSession, number: int) -> None:
            await sold(session, visitor, f"order-{number}")

        async def named(session: AsyncSession, number: int) -> None:
            await sold(session, people[BROWSERS + number % BROWSERS], f"order-{number}-again")

        variants: dict[str, Callable[[AsyncSession, int], Awaitable[None]]] = {
            "alone": alone,
            FLUSHED: two_flushes,
            ORDERED: two_orders,
            SIMPLE: two_notes,
            ASKED: asked,
            NAMED: named,
        }
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        async with AsyncSession(engine, expire_on_commit=False) as session:
            gc.disable()
            for number in range(rounds):
                for place, (name, act) in enumerate(variants.items()):
                    browser = f"browser-{number % BROWSERS}"
                    visitor = await analytics.resolve({"anonymous_id": browser})
                    began = perf_counter()
                    async with session.begin():
                        session.add(Written(**order(100 * number + place)))
                        await session.flush()
                        await act(session, number)
                    session.expunge_all()
                    seconds[name].append(perf_counter() - began)
            gc.enable()
            visitor = await analytics.resolve({"anonymous_id": "browser-0"})
            statements = {
                name: await statements_of(session, lambda act=variants[name]: act(session, rounds + 1))
                for name in (ASKED, NAMED)
            }
        size = rounds // 10
        tenths = [
            {name: statistics.median(taken[begin : begin + size]) for name, taken in seconds.items()}
            for begin in range(size, rounds, size)  # the first warms up
        ]
        ratios = {
            (who, kind): [2 * (one[who] - one["alone"]) / (one[kind] - one["alone"]) for one in tenths]
            for who in (ASKED, NAMED)
            for kind in (FLUSHED, ORDERED, SIMPLE)
        }
        middle = {name: statistics.median(one[name] for one in tenths) for name in variants}
    await engine.dispose()
    return Found(ratios, statements, middle)


async def statements_of(session: AsyncSession, act: Callable[[], Awaitable[None]]) -> int:
    """How many statements *act* takes in a transaction that has begun, those past SQLAlchemy too."""
    said: list[str] = []

    def note(record: Any) -> None:
        said.append(record.query)

    async with session.begin():
        conn = await session.connection()
        await conn.execute(text("SELECT 1"))
        driver: Any = (await conn.get_raw_connection()).driver_connection
        driver.add_query_logger(note)
        event.listen(conn.sync_engine, "before_cursor_execute", lambda *args: said.append(args[2]))
        await act()
        await asyncio.sleep(0)  # it tells on the loop
        driver.remove_query_logger(note)
    return len(said)


def embedded(*, quick: bool) -> Found:
    """`measure` on a PostgreSQL of its own."""
    from goodanalytics.embedded import EmbeddedPostgres  # noqa: PLC0415  # an extra

    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-bench-"))
    parent.chmod(0o711)
    try:
        with EmbeddedPostgres(parent / "data", fsync=False) as server:
            return asyncio.run(measure(server.url(), quick=quick))
    finally:
        shutil.rmtree(parent)


def alone(_rig: Rig, seconds: float) -> list[Row]:
    """The line of `make bench`."""
    found = embedded(quick=seconds < LONG)
    return [
        Row(f"{who} ({_counted(found.statements[who])})", kind, ratios, REACH if kind == FLUSHED else None)
        for (who, kind), ratios in found.ratios.items()
    ]


def _counted(statements: int) -> str:
    return f"{statements} statement" if statements == 1 else f"{statements} statements"


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--url", help="an empty database to fill; an embedded one when left out")
    asked = parser.parse_args()
    quick = asked.quick
    found = asyncio.run(measure(asked.url, quick=quick)) if asked.url else embedded(quick=quick)
    times = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in found.middle.items())
    sys.stdout.write(f"{times}\n")
    for (who, kind), ratios in found.ratios.items():
        reach = f" (reach {REACH})" if kind == FLUSHED else ""
        sys.stdout.write(
            f"{who}, {_counted(found.statements[who])}: {statistics.median(ratios):.2f} x {kind}{reach}\n"
        )


SUBJECT = Subject("sale", lambda _rig: None, alone=alone)


if __name__ == "__main__":
    main()
