"""
How fast the outbox is delivered: ratios measured in one run.

    python -m benchmarks.dispatch [--quick] [--url postgresql+asyncpg://…]

A stand-in for Meta, in a process of its own, answers after 20 ms. In each round, interleaved:

1. `one by one`: conversions are built, sent and read in a loop, one request for each, over one kept connection. Nothing is
   read from or written to a database, so that is as fast as one request for each event can be.
2. `outbox`: 1,000 dispatches that lie in PostgreSQL are claimed, unsealed, sent and settled by `deliver_due`.
   Reach: at least 20 times the rate of the first.
3. `singly`: the same with a platform that takes one conversion in a request, as a webhook does; no reach.

Without `--url` an embedded PostgreSQL is started in a temporary directory. A given database is migrated and filled: do not name one
that holds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import msgspec

from benchmarks.measures import Row, Subject
from benchmarks.rig import Rig
from goodanalytics import Analytics, Config
from goodanalytics.core.consent import GRANTED
from goodanalytics.dispatch.plan import DispatchPlan
from goodanalytics.outbound import Outbound
from goodanalytics.platforms import Conversion, Meta, Response
from goodanalytics.platforms.conversion import Person

LATENCY = 0.020  # seconds
DISPATCHES = 1_000
REACH = 20.0
LONG = 60  # seconds that a full run takes, and some more
SECRETS = {"access_token": "a-token", "pixel_id": "1"}


async def stand_in(_scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Meta, as far as a speed test needs it."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await asyncio.sleep(LATENCY)
    answer = msgspec.json.encode({"events_received": body.count(b'"event_id"')})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@contextmanager
def serving() -> Iterator[str]:
    """The stand-in's address."""
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.dispatch", "--stand-in"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"http://127.0.0.1:{child.stdout.readline().split()[1]}"
    finally:
        child.kill()
        child.wait()


def serve() -> None:
    """The stand-in's process."""
    import socket  # noqa: PLC0415  # for the stand-in's process only

    import uvicorn  # noqa: PLC0415

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"ready {listener.getsockname()[1]}", flush=True)
    settings = uvicorn.Config(stand_in, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(settings).run(sockets=[listener])


def conversions(number: int, first: int, now: datetime) -> list[Conversion]:
    """Sales with what Meta needs."""
    return [
        Conversion(
            dispatch_id=UUID(int=first + n), event_id=str(UUID(int=first + n)), kind="sale", occurred_at=now,
            amount_cents=4900, currency="EUR", place="system", person=Person(email=f"p{n}@shop.example"),
            consent=GRANTED, order_key=str(n),
        )
        for n in range(number)
    ]  # fmt: skip


async def one_by_one(dialect: Meta, number: int) -> float:
    """Conversions a second."""
    now = datetime.now(UTC)
    async with Outbound() as outbound:
        began = perf_counter()
        for sale in conversions(number, 1, now):
            answer = await outbound.to_platform(dialect.build([sale], SECRETS, now))
            assert isinstance(answer, Response)
            assert dialect.read([sale], answer)[0].status == "delivered"
        return number / (perf_counter() - began)


async def outbox(analytics: Analytics, first: int, number: int) -> float:
    """Dispatches a second, from the first look to the last note."""
    now = analytics.config.clock()
    told = [(analytics.config.workspace, sale) for sale in conversions(number, first, now)]
    async with analytics.database.begin() as conn:
        await DispatchPlan(analytics.config, analytics.database.tables).add(conn, told, now)
    began = perf_counter()
    settled = await analytics.dispatcher.deliver_due()
    taken = perf_counter() - began
    # One whose connection broke is settled again when it is sent again.
    assert settled >= number, f"{settled} of {number} were settled"
    counts = (await analytics.platforms.list())[0].dispatches
    assert set(counts) == {"delivered"}, counts
    return number / taken


async def measure(url: str, address: str, *, quick: bool) -> dict[str, list[float]]:
    """Fill, measure, print; the ratios by what was measured."""
    rounds, alone = (2, 50) if quick else (7, 200)
    settings = {"secret_key": "benchmark" * 5, "worker": False, "spool_path": "off"}  # signs nothing
    many, single = Meta(address=address), Meta(address=address, max_batch=1)
    rates: dict[str, list[float]] = {"one by one": [], "outbox": [], "singly": []}
    async with (
        Analytics(url, Config(platforms=[many], auto_migrate=True, **settings)) as batched,
        Analytics(url, Config(platforms=[single], **settings)) as singly,
    ):
        await batched.platforms.store_credentials("meta", SECRETS)
        await batched.platforms.enable("meta")
        first = 1
        for number in range(-1, rounds):  # the first one warms up
            found = {
                "one by one": await one_by_one(many, alone),
                "outbox": await outbox(batched, first, DISPATCHES),
                "singly": await outbox(singly, first + DISPATCHES, alone),
            }
            first += 2 * DISPATCHES
            if number >= 0:
                for name, rate in found.items():
                    rates[name].append(rate)
    ratios = {
        name: [rate / base for rate, base in zip(rates[name], rates["one by one"], strict=True)]
        for name in ("outbox", "singly")
    }
    for name, found in ratios.items():
        told = f"reach {REACH:.0f}" if name == "outbox" else "no reach"
        print(
            f"{name}: {statistics.median(found):.1f} x one by one ({min(found):.1f} to {max(found):.1f}; {told})"
        )
    print(f"one by one: {statistics.median(rates['one by one']):.0f} a second at {LATENCY * 1_000:.0f} ms")
    return ratios


def embedded(address: str, *, quick: bool) -> dict[str, list[float]]:
    """Measure on a PostgreSQL of its own."""
    from goodanalytics.embedded import EmbeddedPostgres  # noqa: PLC0415

    parent = Path(tempfile.mkdtemp(prefix="goodanalytics-bench-"))
    parent.chmod(0o711)
    try:
        with EmbeddedPostgres(parent / "data", fsync=False) as server:
            return asyncio.run(measure(server.url(), address, quick=quick))
    finally:
        shutil.rmtree(parent)


def alone(_rig: Rig, seconds: float) -> list[Row]:
    """Its share of `python -m benchmarks`."""
    with serving() as address:
        ratios = embedded(address, quick=seconds < LONG)
    return [
        Row(
            "delivering 1,000 dispatches",
            "one request for each event",
            ratios["outbox"],
            REACH,
            at_least=True,
        ),
    ]


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--url", help="an empty database to fill; an embedded one when left out")
    parser.add_argument("--stand-in", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stand_in:
        serve()
        return
    with serving() as address:
        if asked.url:
            asyncio.run(measure(asked.url, address, quick=asked.quick))
        else:
            embedded(address, quick=asked.quick)


SUBJECT = Subject("dispatch", lambda _rig: None, alone=alone)

if __name__ == "__main__":
    main()
