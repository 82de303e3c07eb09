"""
What a round cost a server and PostgreSQL: instructions where the machine counts them, else CPU time.

Instructions (user and kernel, `perf stat -p` on every process of the tree) hardly depend on what else the machine does;
CPU time does, by caches and clock rates. `Meter.unit` says which one was used. Processes that PostgreSQL forks or ends in
the meantime are counted: perf follows forks, and the time of the ended ones stands in the postmaster's own account.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep

EVENT = "instructions:uk"
HAS_VALGRIND = bool(shutil.which("valgrind") and shutil.which("callgrind_control"))
TICKS = os.sysconf("SC_CLK_TCK")


def bound(unit: str, instructions: float) -> float | None:
    """What a row in *unit* is held to where a bound is in *instructions*: nothing when those are counted elsewhere."""
    return None if HAS_VALGRIND and unit != "instructions" else instructions


@dataclass(slots=True)
class Cost:
    """What the measured block took; set when it ends."""

    server: float = 0.0
    postgres: float = 0.0


@dataclass(slots=True)
class Meter:
    """
    Measures a server's process tree and PostgreSQL's.

    Attributes:
        postmaster: Process id of PostgreSQL's first process.
        event: What perf counts; `None` for CPU time.
    """

    postmaster: int
    event: str | None = field(default_factory=lambda: EVENT if counts(EVENT) else None)

    @property
    def unit(self) -> str:
        return "instructions" if self.event else "CPU time"

    @contextmanager
    def measuring(self, pid: int) -> Iterator[Cost]:
        """Measure the block: *pid*'s tree and PostgreSQL's."""
        cost = Cost()
        if self.event is None:
            before = cpu_seconds(pid), cpu_seconds(self.postmaster)
            yield cost
            cost.server = cpu_seconds(pid) - before[0]
            cost.postgres = cpu_seconds(self.postmaster) - before[1]
            return
        watchers = [_watch(tree(root), self.event) for root in (pid, self.postmaster)]
        try:
            yield cost
        finally:
            found = [_read(watcher, self.event) for watcher in watchers]
        cost.server, cost.postgres = found


def counts(event: str) -> bool:
    """Whether perf is here and counts *event*: most virtual machines have no counters."""
    if shutil.which("perf") is None:
        return False
    tried = subprocess.run(
        ["perf", "stat", "-x,", "-e", event, "true"], capture_output=True, text=True, check=False
    )
    return tried.returncode == 0 and event in tried.stderr and "not supported" not in tried.stderr


def _watch(pids: Sequence[int], event: str) -> subprocess.Popen[str]:
    watcher = subprocess.Popen(
        ["perf", "stat", "-x,", "-e", event, "-p", ",".join(map(str, pids))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    sleep(0.1)  # perf says nothing when it has attached
    return watcher


def _read(watcher: subprocess.Popen[str], event: str) -> float:
    watcher.send_signal(signal.SIGINT)
    _, said = watcher.communicate(timeout=10)
    return sum(
        float(line.split(",")[0]) for line in said.splitlines() if f",{event}" in line and line[:1].isdigit()
    )


def tree(root: int) -> list[int]:
    """*root* and all that descend from it."""
    found = [root]
    for pid in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    found += [int(child) for child in children.read_text().split()]
    return found


def cpu_seconds(root: int) -> float:
    """CPU time of the tree so far: the living to the nanosecond, the children that *root* has buried to the tick."""
    total = 0.0
    for pid in tree(root):
        for account in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int(account.read_text().split()[0]) / 1e9
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{root}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[13]) + int(fields[14])) / TICKS
    return total
