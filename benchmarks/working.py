"""
What the worker costs for each event, without a server: ratios of CPU time measured in one run.

    python -m benchmarks.working [--rounds 7] [--batch 500] [--samples FILE]

Raw beacons of 4,000 visitors lie in the log and are worked off in batches of a given size. In each round, interleaved and every
other round backwards:

1. batches as the worker takes them under load;
2. the same while Python's cycle collector goes on, as it did before `worker._collector_resting`;
3. batches of a quarter and of a tenth of the size: what a batch costs whatever its size.

PostgreSQL's time is that of its backends. `--samples` writes where the Python time of (1) goes, as `benchmarks.sampled` does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import msgspec
import uvloop

from benchmarks.sampled import Sampler
from goodanalytics import Analytics, Config
from goodanalytics.core.raw import RawBeacon
from goodanalytics.embedded import EmbeddedPostgres

VISITORS = 4_000
EVENTS = 4_000  # in a slice of a round
BROWSERS = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
)
PAGES = (
    ("/", "Everything for the garden", "https://www.google.com/"),
    ("/tools/spades?utm_source=newsletter&utm_medium=email&utm_campaign=autumn", "Spades", ""),
    ("/tools/spades/no-4", "Spade no. 4", "https://shop.example/tools/spades"),
    ("/guides/when-to-prune-roses", "When to prune roses", "https://t.co/abcdef"),
    ("/guides/compost?gclid=EAIaIQobChMI0_demo", "Compost", "https://www.google.com/"),
)
Cost = tuple[float, float]
"""Seconds of CPU time an event: of this process, and of PostgreSQL's backends."""


def beacons(config: Config, chance: random.Random) -> Iterator[RawBeacon]:
    """What browsers send, without an end."""
    while True:
        visitor, (path, title, referrer) = chance.randrange(VISITORS), chance.choice(PAGES)
        body = msgspec.json.encode(
            {
                "event_id": str(UUID(int=chance.getrandbits(128), version=4)),
                "event_type": "pageview",
                "url": f"https://shop.example{path}",
                "title": title,
                "referrer": referrer,
                "screen": "1920x1080",
                "language": "de-DE",
                "timezone": "Europe/Berlin",
                "properties": {"theme": "dark", "column": 3},
            }
        )
        yield RawBeacon(
            config.workspace, config.clock(), f"bench-visitor-{visitor:08d}", body,
            ip=f"203.{1 + visitor % 16}.{visitor // 16}.7", user_agent=BROWSERS[visitor % len(BROWSERS)],
            languages=b"de-DE,de;q=0.9,en;q=0.8",
        )  # fmt: skip


class Bench:
    """One database with a worker that is told what to do."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics
        self._beacons = beacons(analytics.config, random.Random(7))

    async def fill(self, count: int) -> None:
        """Put *count* beacons into the log."""
        for _ in range(0, count, 500):
            await self._analytics.log.append([next(self._beacons) for _ in range(500)])

    async def slice(self, batch: int, *, resting: bool = True) -> Cost:
        """Work `EVENTS` off in batches of *batch*."""
        await self.fill(EVENTS)
        worker = self._analytics.worker
        resting_or_not = (
            nullcontext() if resting else mock.patch("goodanalytics.worker._collector_resting", nullcontext)
        )
        before, began, done = await self._postgres(), time.process_time(), 0
        with resting_or_not:
            while done < EVENTS:
                worker._size = batch  # noqa: SLF001  # not to grow with the backlog
                done += await worker.work()
        took = time.process_time() - began
        return took / done, (await self._postgres() - before) / done

    async def _postgres(self) -> float:
        """CPU seconds of the backends so far."""
        async with self._analytics.database.connect() as conn:
            found = await conn.exec_driver_sql(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            )
            return sum(_seconds(row.pid) for row in found)


def _seconds(pid: int) -> float:
    try:
        members = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(members[11]) + int(members[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, rounds: int, batch: int, samples: Path | None) -> None:
    """Fill, measure, print."""
    config = Config(
        secret_key="benchmark" * 5, worker=False, spool_path="off", auto_migrate=True
    )  # signs nothing
    async with Analytics(url, config) as analytics:
        bench = Bench(analytics)
        variants: dict[str, Any] = {
            "as it is": lambda: bench.slice(batch),
            "the collector goes on": lambda: bench.slice(batch, resting=False),
            f"batches of {batch // 4}": lambda: bench.slice(batch // 4),
            f"batches of {batch // 10}": lambda: bench.slice(batch // 10),
        }
        await bench.slice(batch)  # visitors and plans are made
        costs: dict[str, list[Cost]] = {name: [] for name in variants}
        for number in range(rounds):
            order = list(variants.items())
            for name, take in order if number % 2 else reversed(order):
                costs[name].append(await take())
        for name, found in list(costs.items())[1:]:
            told = [
                _told([one[part] / base[part] for one, base in zip(found, costs["as it is"], strict=True)])
                for part in (0, 1)
            ]
            print(f"{name:24} Python {told[0]}, PostgreSQL {told[1]} of batches of {batch}")
        if samples is not None:
            sampler = Sampler()
            sampler.start()
            for _ in range(5):
                await bench.slice(batch)
            sampler.write(samples)


def _told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} × ({min(ratios):.2f}–{max(ratios):.2f})"


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--samples", type=Path, help="where the Python time goes; written after the rounds")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goodanalytics-bench-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o711)
        with (
            EmbeddedPostgres(Path(parent) / "data") as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(measure(server.url(), asked.rounds, asked.batch, asked.samples))


if __name__ == "__main__":
    sys.exit(main())
