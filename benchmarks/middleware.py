"""
The middleware around a Starlette page of 2 kB: the same page in the same app, with and without us.

The browsers have been here before, on this day; what the first page of a day costs, which sets the cookie again, is told beside it.
"""

from __future__ import annotations

from benchmarks import cost
from benchmarks.measures import Rounds, Row, Steady, Subject, ratios
from benchmarks.rig import Load, Rig

PAGE, FIRST = Load("page", "/page", 64), Load("first", "/page", 64)


def start(rig: Rig) -> None:
    rig.start("page", "benchmarks.apps:page")
    rig.start("wrapped_page", "benchmarks.apps:wrapped", ours=True)


def rows(rounds: Rounds, unit: str) -> list[Row]:
    taken = ratios(rounds, "page, wrapped@64", "page@64", "server")
    rate = ratios(rounds, "page, wrapped@64", "page@64", "rate")
    first = ratios(rounds, "first page of a day, wrapped@64", "page@64", "server")
    return [
        Row(f"middleware on, server {unit} per page", "the same page without", taken, cost.bound(unit, 1.18)),
        Row(
            f"middleware on, server {unit} per first page of a browser's day", "the same page without", first
        ),
        Row("middleware on, pages/s", "the same page without", rate),
    ]


SUBJECT = Subject(
    "middleware",
    start,
    (
        Steady("page@64", "page", PAGE, "page@64"),
        Steady("page, wrapped@64", "wrapped_page", PAGE, "page@64"),
        Steady("first page of a day, wrapped@64", "wrapped_page", FIRST, "page@64"),
    ),
    rows,
)
