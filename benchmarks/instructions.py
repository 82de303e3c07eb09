"""
Instructions that a server executes for each request, counted by valgrind: `python -m benchmarks --only instructions`.

Where the kernel counts no instructions for us (`perf stat`, see `cost`), CPU time stands in for them, and is a poor witness: a
server that answers more slowly lets wrk fall asleep, and pays for waking it with each answer. valgrind counts what the processor is told to do,
and says the same whatever else the machine does. It sees the server's own process alone, not the kernel, whose share is
about the same for all; ratios without it are larger, not smaller. It makes a server some fifty times as slow, so its rates mean nothing.

Each server counts its own requests, so that what was under way when a slice ended is no guess. What it does without requests
is measured before, and taken off.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import apps
from benchmarks.beacon import beacons
from benchmarks.cost import HAS_VALGRIND
from benchmarks.measures import Row, Subject
from benchmarks.middleware import FIRST, PAGE
from benchmarks.rig import SCHEMA, Load, Rig, Server

WARM, IDLE, SLICE, ROUNDS = 3, 3, 4, 5
QUICK = 60
"""Seconds below which one short round has to do."""

SERVERS = {"bare": "bare", "starlette": "starlette", "page": "page", "wrapped": "wrapped"}
MEASURES: dict[str, tuple[str, Load]] = {
    "bare": ("bare", beacons(64)),
    "starlette": ("starlette", beacons(64)),
    "durable": ("wrapped", beacons(64)),
    "page": ("page", PAGE),
    "page, wrapped": ("wrapped", PAGE),
    "first page, wrapped": ("wrapped", FIRST),
}


@dataclass(slots=True)
class Counted:
    """A server under valgrind."""

    rig: Rig
    server: Server
    told: Path
    idle: float = 0.0  # instructions a second

    def warm(self, load: Load) -> None:
        """Let everything be made that is made once."""
        self.rig.finish(self.rig.begin(self.server, load, WARM), self.server.name, WARM)

    def rest(self) -> None:
        """Count what it does by itself."""
        self._control("-i", "on")
        began = time.monotonic()
        self.idle = self._count(lambda: time.sleep(IDLE)) / (time.monotonic() - began)

    def each(self, load: Load, seconds: float) -> float:
        """Instructions a request."""
        before, began = self.answered(), time.monotonic()
        counted = self._count(
            lambda: self.rig.finish(self.rig.begin(self.server, load, seconds), self.server.name, seconds)
        )
        return (counted - self.idle * (time.monotonic() - began)) / (self.answered() - before)

    def answered(self) -> int:
        """How many requests it has begun to answer."""
        assert self.server.child.stdout is not None
        self.server.child.send_signal(signal.SIGUSR2)
        return int(self.server.child.stdout.readline().removeprefix("answered "))

    def _count(self, act: Callable[[], object]) -> int:
        self._control("-z")
        act()
        earlier = set(self._dumps())
        self._control("-d")
        (dump,) = set(self._dumps()) - earlier
        lines = dump.read_text(errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith(("summary:", "totals:"))).split()[1])

    def _dumps(self) -> Sequence[Path]:
        return list(self.told.parent.glob(f"{self.told.name}.*"))

    def _control(self, *what: str) -> None:
        subprocess.run(["callgrind_control", *what, str(self.server.pid)], check=True, capture_output=True)


def alone(rig: Rig, seconds: float) -> list[Row]:
    """Count in interleaved slices, each server by itself on its core."""
    if not HAS_VALGRIND:
        return []
    servers = {name: _start(rig, name, app) for name, app in SERVERS.items()}
    for name, load in MEASURES.values():
        servers[name].warm(load)
    for counted in servers.values():
        counted.rest()
    rounds, length = (1, 1) if seconds < QUICK else (ROUNDS, SLICE)
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for number in range(rounds):
        for measure in list(MEASURES) if number % 2 == 0 else reversed(MEASURES):
            name, load = MEASURES[measure]
            found[measure].append(servers[name].each(load, length))
        rig.execute(_named("wrapped"), f"TRUNCATE {SCHEMA}.hits")
    for name in servers:
        rig.stop(_named(name))

    def row(what: str, against: str, one: str, other: str, bound: float | None) -> Row:
        ratios = [a / b for a, b in zip(found[one], found[other], strict=True)]
        return Row(f"{what} (valgrind)", against, ratios, bound)

    each = "server instructions per"
    return [
        row(f"durable beacon, {each} request", "bare ASGI POST 204", "durable", "bare", 1.45),
        row(f"a Starlette POST 204 that stores nothing, {each} request", "bare ASGI POST 204", "starlette", "bare", None),
        row(f"middleware on, {each} page", "the same page without", "page, wrapped", "page", 1.18),
        row(f"middleware on, {each} first page of a browser's day", "the same page without", "first page, wrapped", "page", None),
    ]  # fmt: skip


def _named(name: str) -> str:
    return f"counted_{name}"


def _start(rig: Rig, name: str, app: str) -> Counted:
    told = rig.logs / f"{name}.callgrind"
    under = ("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={told}")
    server = rig.start(_named(name), f"{apps.__name__}:{app}", ours=app == "wrapped", under=under)
    server.await_ready()
    return Counted(rig, server, told)


SUBJECT = Subject("instructions", lambda _rig: None, alone=alone)
