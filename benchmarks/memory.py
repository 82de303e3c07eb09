"""Resident memory of the server after a million beacons, against what it was after the first ten thousand."""

from __future__ import annotations

import time

from benchmarks.beacon import beacons
from benchmarks.measures import Row, Subject
from benchmarks.rig import SCHEMA, Rig

FIRST = 10_000
ALL = 1_000_000


def start(rig: Rig) -> None:
    rig.start("memory", "benchmarks.apps:wrapped", ours=True)


def alone(rig: Rig, seconds: float) -> list[Row]:
    """Send beacons until all are sent or the time is over; the line says how many it were."""
    deadline = time.monotonic() + seconds
    sent = _send(rig, FIRST, deadline)
    first = rig.servers["memory"].resident
    while sent < ALL and time.monotonic() < deadline:
        sent += _send(rig, min(ALL - sent, 50_000), deadline)
    ratios = [rig.servers["memory"].resident / first] if sent > FIRST else []
    told = f"{sent:,} beacons" + ("" if sent >= ALL else " (no time for 1,000,000: `--only memory` takes it)")
    return [Row(f"resident memory after {told}", f"after {FIRST:,}", ratios, 1.1)]


def _send(rig: Rig, count: int, deadline: float) -> int:
    sent = 0
    while sent < count and (not sent or time.monotonic() < deadline):
        seconds = max(1.0, min(5.0, deadline - time.monotonic()))
        sample = rig.drive("memory", beacons(64), seconds)
        sent += round(sample.rate * seconds)
        rig.execute("memory", f"TRUNCATE {SCHEMA}.hits")
    return sent


SUBJECT = Subject("memory", start, alone=alone)
