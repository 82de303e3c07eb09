"""
What is measured, and what it is held against.

A `Measure` takes one `Sample` a round. A `Row` of the report is a ratio of two measures, computed in each round for itself,
because the machine drifts between rounds by more than the variants differ; the median of the rounds is what counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import ClassVar, Literal, Protocol

from benchmarks.rig import Load, Rig, Sample

Rounds = dict[str, list[Sample]]
"""The samples of each measure by its name; the same index is the same round."""

Aspect = Literal["rate", "server", "postgres", "both", "p50", "p99"]


class Measure(Protocol):
    """
    Something that is measured once a round.

    Attributes:
        name: `variant@connections`.
        against: The name of the measure that stands for 1 in the table of all figures.
    """

    name: str
    against: str

    def take(self, rig: Rig, earlier: Rounds) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Steady:
    """As many requests as are answered, by a fixed number of connections. *stretch* makes the slices of slow ones longer."""

    name: str
    variant: str
    load: Load
    against: str
    stretch: float = 1.0

    def take(self, rig: Rig, _earlier: Rounds) -> Sample:
        return rig.drive(self.variant, self.load, rig.slice_seconds * self.stretch)


@dataclass(frozen=True, slots=True)
class Paced:
    """Requests by timetable, at *share* of the rate that *of* had (the median of its rounds so far)."""

    name: str
    variant: str
    load: Load
    against: str
    of: str
    share: float

    def take(self, rig: Rig, earlier: Rounds) -> Sample:
        rate = self.share * median(sample.rate for sample in earlier[self.of])
        load = Load(self.load.kind, self.load.path, self.load.connections, rate)
        return rig.drive(self.variant, load)


@dataclass(slots=True)
class EndToEnd:
    """
    Events a second until they can be queried, with the worker in the server's own process.

    Requests come by timetable for one slice; the round ends when the log is empty again. Its rate is all events by all that
    time, and it counts when the emptying took no longer than `LAG_SECONDS`: then the worker kept pace. A try that does not
    count is followed by a slower one, and one that does by a faster one, until the two are near; the best of a round is its sample.

    A round whose events are not all in the tables afterwards is an error: fast is only what arrives.

    Attributes:
        backlog: SQL that asks whether anything is in the log.
        arrived: SQL for the number of events in the tables.
        pace: Requests a second that the next round tries; found by a run at full load when it is `None`.
    """

    name: str
    variant: str
    load: Load
    against: str
    backlog: str
    arrived: str
    pace: float | None = None
    notes: list[str] = field(default_factory=list)

    ATTEMPTS: ClassVar[int] = 5
    LAG_SECONDS: ClassVar[float] = 0.5
    DRAIN_SECONDS: ClassVar[float] = 60
    STEP: ClassVar[float] = 1.25
    NEAR: ClassVar[float] = 1.08
    """A pace that was kept and one that was not, so near to each other that the search is over."""

    def take(self, rig: Rig, _earlier: Rounds) -> Sample:
        if self.pace is None:
            self._try(rig, 0)  # tables and patterns are built with the first events
            self.pace = self._try(rig, 0)[0].rate
        best: Sample | None = None
        pace, kept, lost = self.pace, 0.0, math.inf
        for _ in range(self.ATTEMPTS):
            sample, lag = self._try(rig, pace)
            if lag > self.LAG_SECONDS:
                lost = min(lost, pace)
            elif best is None or sample.rate > best.rate:
                best, kept = sample, pace
            if best is None:
                pace = max(sample.rate, pace / self.STEP**2) / self.NEAR
            elif lost < kept * self.NEAR or best.rate * self.STEP < kept:
                break  # few connections may not be able to send as much as is asked for
            else:
                pace = kept * self.STEP if lost == math.inf else math.sqrt(kept * lost)
        self.pace = kept or pace
        if best is None:
            self.notes.append(
                f"{self.name}: a round found no pace that the worker kept; its last try is counted"
            )
        return best or sample

    def _try(self, rig: Rig, pace: float) -> tuple[Sample, float]:
        """A round at *pace*, and for how many seconds after it the log was not empty."""
        server, seconds = rig.servers[self.variant], rig.slice_seconds
        load = Load(self.load.kind, self.load.path, self.load.connections, pace)
        server.await_ready()
        before = rig.ask(self.variant, self.arrived)
        with rig.meter.measuring(server.pid) as cost:
            wrk = rig.begin(server, load, seconds)
            requests, took, p50, p99 = rig.finish(wrk, self.name, seconds)
            lag = self._drain(rig)
        arrived = rig.ask(self.variant, self.arrived) - before
        if arrived < requests:
            raise RuntimeError(
                f"{self.name}: {requests} beacons were answered and {arrived} events arrived. The server said:\n"
                + server.said()
            )
        sample = Sample(requests / (took + lag), cost.server / requests, cost.postgres / requests, p50, p99)
        return sample, lag

    def _drain(self, rig: Rig) -> float:
        began = time.monotonic()
        while rig.ask(self.variant, self.backlog):
            if time.monotonic() - began > self.DRAIN_SECONDS:
                raise RuntimeError(f"{self.name}: the log is not empty after a minute; does the worker run?")
            time.sleep(0.01)
        return time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the report.

    Attributes:
        ratios: One for each round.
        bound: What is to be reached: at most, or at least where *at_least*. `None` for what is only told.
    """

    what: str
    against: str
    ratios: Sequence[float]
    bound: float | None = None
    at_least: bool = False
    upper: float | None = None

    @property
    def middle(self) -> float:
        return median(self.ratios)

    @property
    def is_reached(self) -> bool | None:
        if self.bound is None or not self.ratios:
            return None
        if self.upper is not None:
            return self.bound <= self.middle <= self.upper
        return self.middle >= self.bound if self.at_least else self.middle <= self.bound

    @property
    def reach(self) -> str:
        if self.bound is None:
            return ""
        if self.upper is not None:
            return f"{self.bound:.2f} to {self.upper:.2f} ×"
        return f"{'≥' if self.at_least else '≤'} {self.bound:.3g} ×"


def ratios(rounds: Rounds, what: str, against: str, aspect: Aspect) -> list[float]:
    """*what* as a multiple of *against*, in each round."""
    return [
        getattr(a, aspect) / getattr(b, aspect)
        for a, b in zip(rounds[what], rounds[against], strict=True)
        if getattr(b, aspect)
    ]


@dataclass(frozen=True, slots=True)
class Subject:
    """
    One file of benchmarks.

    Attributes:
        start: Starts its servers.
        measures: In the order of a round; every other round goes backwards.
        rows: What the rounds say.
        between: Called after each round.
        alone: What takes its own time and no part in the rounds; is given the seconds that it may take.
    """

    name: str
    start: Callable[[Rig], None]
    measures: Sequence[Measure] = ()
    rows: Callable[[Rounds, str], list[Row]] = lambda _rounds, _unit: []
    between: Callable[[Rig], None] = lambda _rig: None
    alone: Callable[[Rig, float], list[Row]] | None = None
