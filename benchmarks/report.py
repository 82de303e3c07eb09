"""The report: what is reached, and every figure as a multiple of its baseline; on the screen and in `results.md`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from statistics import median

from benchmarks.cost import HAS_VALGRIND
from benchmarks.measures import Aspect, Measure, Rounds, Row, ratios

ASPECTS: tuple[tuple[Aspect, str], ...] = (
    ("rate", "answers/s"),
    ("server", "server"),
    ("both", "server + PostgreSQL"),
    ("p50", "p50"),
    ("p99", "p99"),
)
PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi", "sqlalchemy", "asyncpg")


def report(
    rows: Sequence[Row], measures: Sequence[Measure], rounds: Rounds, notes: Iterable[str], about: str
) -> str:
    """The whole of `results.md`."""
    parts = ["# Benchmarks", about]
    parts.append(
        "## Reach\n\nThe median of the rounds' ratios, the lowest and the highest behind it.\n\n"
        + reach(rows)
    )
    if measures and rounds:
        parts.append(
            "## Every measure\n\nMultiples of the baseline in the same round, by median. `variant@connections`; `@half` is at "
            "half the bare app's rate, `end to end` at the highest rate found at which the log stays flat.\n\n"
            + figures(measures, rounds)
        )
    noted = list(notes)
    if noted:
        parts.append("## Notes\n\n" + "\n".join(f"* {note}" for note in noted))
    return "\n\n".join(parts) + "\n"


def reach(rows: Sequence[Row]) -> str:
    words = {True: "yes", False: "**no**", None: ""}
    return _table(
        ("what", "against", "reach", "measured", "reached"),
        [(row.what, row.against, row.reach, _spread(row.ratios), words[row.is_reached]) for row in rows],
    )


def figures(measures: Sequence[Measure], rounds: Rounds) -> str:
    lines = []
    for measure in measures:
        told = [_middle(ratios(rounds, measure.name, measure.against, aspect)) for aspect, _ in ASPECTS]
        lines.append((measure.name, measure.against, *told))
    return _table(("measure", "baseline", *(name for _, name in ASPECTS)), lines)


def about(unit: str, rounds: int, seconds: float, cores: Sequence[int], when: datetime) -> str:
    """How it was measured, and on what."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    pinned = (
        "each server on one core, wrk and PostgreSQL on another"
        if len(set(cores)) > 1
        else "**everything on the only core there is**: rates are those of a machine that is always full"
    )
    counted = (
        "instructions, user and kernel, by `perf stat -p`"
        if unit == "instructions"
        else "CPU time of the process tree, because this machine lets nobody count instructions from outside"
        + (
            "; lines marked valgrind count those of the server's own process, without the kernel, and are what bounds on "
            "instructions are held to"
            if HAS_VALGRIND
            else ""
        )
    )
    return (
        f"Written by `make bench` on {when:%Y-%m-%d}. {rounds} {'round' if rounds == 1 else 'rounds'} of {seconds:g} s for each measure, all servers up at "
        f"once and asked in turn, every other round backwards; {pinned}. Costs are {counted}. Only ratios are told: rates of "
        "this machine say nothing about another. p50 and p99 are those of a closed loop, but for `@half`.\n\n"
        f"Python {platform.python_version()}, {packages}; PostgreSQL from the wheel, fsync on; {platform.machine()}."
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "not measured"
    if len(values) == 1:
        return f"{_number(values[0])} ×"
    return f"{_number(median(values))} × ({_number(min(values))}–{_number(max(values))})"


def _middle(values: Sequence[float]) -> str:
    return _number(median(values)) if values else "–"


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]

    def text(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join((text(head), text(["-" * width for width in widths]), *map(text, lines)))
