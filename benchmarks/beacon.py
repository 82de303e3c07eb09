"""The beacon: durable, and end to end, beside bare apps and beside what one would write without thinking about it."""

from __future__ import annotations

from benchmarks import cost
from benchmarks.floor import TABLE as RAW
from benchmarks.measures import EndToEnd, Measure, Paced, Rounds, Row, Steady, Subject, ratios
from benchmarks.rig import SCHEMA, Load, Rig
from benchmarks.rivals import TABLES

PATH = "/ga/t/event"
SLOW = 2.0
"""Variants that answer a few hundred a second get slices of twice the length: the edges of a slice weigh on them."""


def beacons(connections: int) -> Load:
    return Load("beacon", PATH, connections)


def _steady(variant: str, connections: int, against: str, stretch: float = 1.0) -> Steady:
    return Steady(
        f"{variant}@{connections}", variant, beacons(connections), f"{against}@{connections}", stretch
    )


def _end_to_end(connections: int, against: str) -> EndToEnd:
    return EndToEnd(
        f"end to end@{connections}",
        "working",
        beacons(connections),
        f"{against}@{connections}",
        f"SELECT EXISTS (SELECT FROM {SCHEMA}.hits)",
        f"SELECT count(*) FROM {SCHEMA}.events",
    )


MEASURES: tuple[Measure, ...] = (
    _steady("bare", 64, "bare"),
    _steady("starlette", 64, "bare"),
    _steady("floor", 64, "bare"),
    _steady("durable", 64, "bare"),
    _steady("proxied", 64, "bare"),
    _steady("insert", 64, "bare"),
    _steady("transaction", 64, "bare", SLOW),
    _steady("orm", 64, "bare", SLOW),
    _steady("orm_pipeline", 64, "bare", SLOW),
    _end_to_end(64, "bare"),
    _steady("starlette", 256, "starlette"),
    _steady("durable", 256, "starlette"),
    _steady("orm", 8, "orm", SLOW),
    _steady("orm_pipeline", 8, "orm", SLOW),
    _end_to_end(8, "orm"),
    _steady("insert", 1, "insert"),
    _steady("durable", 1, "insert"),
    Paced("bare@half", "bare", beacons(64), "bare@half", "bare@64", 0.5),
    Paced("durable@half", "durable", beacons(64), "bare@half", "bare@64", 0.5),
)


def start(rig: Rig) -> None:
    rig.start("bare", "benchmarks.apps:bare")
    rig.start("starlette", "benchmarks.apps:starlette")
    rig.start("floor", "benchmarks.floor:app", prepare=(RAW,))
    rig.start("durable", "benchmarks.apps:wrapped", ours=True)
    rig.start("proxied", "benchmarks.apps:proxied", ours=True)
    rig.start("working", "benchmarks.apps:working", ours=True)
    for name in ("insert", "transaction", "orm", "orm_pipeline"):
        rig.start(name, f"benchmarks.rivals:{name}", prepare=TABLES)


def between(rig: Rig) -> None:
    """Empty the log that nobody reads."""
    for name in ("durable", "proxied"):
        rig.execute(name, f"TRUNCATE {SCHEMA}.hits")


def rows(rounds: Rounds, unit: str) -> list[Row]:
    def row(
        what: str, against: str, one: str, other: str, aspect: str, bound: float | None, **more: bool
    ) -> Row:
        return Row(what, against, ratios(rounds, one, other, aspect), bound, **more)  # type: ignore[arg-type]

    orm = "FastAPI + ORM, a transaction per request"
    return [
        row(f"durable beacon, server {unit} per request", "bare ASGI POST 204",
            "durable@64", "bare@64", "server", cost.bound(unit, 1.45)),
        row("durable beacon, requests/s at 64 connections", "Starlette POST 204 that stores nothing",
            "durable@64", "starlette@64", "rate", 1.0, at_least=True),
        row("durable beacon, requests/s at 256 connections", "Starlette POST 204 that stores nothing",
            "durable@256", "starlette@256", "rate", 1.0, at_least=True),
        row("durable beacon, requests/s", "bare ASGI POST 204", "durable@64", "bare@64", "rate", 0.65, at_least=True),
        row(f"the least that durable costs (raw bytes, nothing understood), server {unit}", "bare ASGI POST 204",
            "floor@64", "bare@64", "server", None),
        row(f"the same behind a trusted proxy, with rate limits, server {unit}", "bare ASGI POST 204",
            "proxied@64", "bare@64", "server", None),
        # The same work on both sides: visitor, session and event, which is what the prototypes were held against.
        row("end to end, lag flat, 64 connections", f"{orm} (the same work)",
            "end to end@64", "orm_pipeline@64", "rate", 20, at_least=True),
        row("end to end, lag flat, 8 connections", f"{orm} (the same work)",
            "end to end@8", "orm_pipeline@8", "rate", 8, at_least=True),
        row("end to end, lag flat, 64 connections", f"{orm} (one row of an event, nothing else)",
            "end to end@64", "orm@64", "rate", None),
        row("end to end, lag flat, 8 connections", f"{orm} (one row of an event, nothing else)",
            "end to end@8", "orm@8", "rate", None),
        row(f"end to end, {unit} of all processes per event", "asyncpg, a transaction of six statements per request",
            "end to end@64", "transaction@64", "both", 0.2),
        row("p50 at one connection", "a plain INSERT per request", "durable@1", "insert@1", "p50", 1.15),
        row("p99 at half the bare app's rate", "bare ASGI at the same rate",
            "durable@half", "bare@half", "p99", 3),
        row("requests/s at that pace", "bare ASGI at the same pace", "durable@half", "bare@half", "rate", None),
    ]  # fmt: skip


SUBJECT = Subject("beacon", start, MEASURES, rows, between)
