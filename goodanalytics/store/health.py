"""How the store is: what `/readyz` and `goodanalytics doctor` say about the database, the schema and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy.exc import DBAPIError

from goodanalytics.errors import DatabaseUnavailable, GoodAnalyticsError
from goodanalytics.migrations import days
from goodanalytics.store import schema
from goodanalytics.store.database import Database, run

LAG_WORTH_A_WORD = timedelta(minutes=1)
LATE_DAY = timedelta(days=2)
"""Since when a day of receipts is open that somebody should look at: upkeep turns it within hours."""


PATIENCE = timedelta(seconds=3)
"""How long who looks waits for PostgreSQL: one that hangs neither answers nor refuses."""

T = TypeVar("T")

_broken_off: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was looked at.

    Attributes:
        level: ok; a warning that somebody should know of; wrong, so that hits are lost or nothing works.
        text: What it is, and how to mend it.
    """

    level: Literal["ok", "warning", "wrong"]
    text: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """
    What lies in the log.

    Attributes:
        waiting: Hits that are safe and not yet processed.
        oldest: Age of the oldest of them; `None` when nothing waits.
        rejected: Hits that could not be processed and were set aside.
    """

    waiting: int
    oldest: timedelta | None
    rejected: int


async def answered(asked: Coroutine[Any, Any, T], patience: timedelta = PATIENCE) -> T:
    """
    What *asked* comes to.

    Raises:
        DatabaseUnavailable: It took too long. It is broken off, and nobody waits until it is.
    """
    task = asyncio.get_running_loop().create_task(asked)
    try:
        await asyncio.wait({task}, timeout=patience.total_seconds())
    finally:
        if not task.done():
            task.cancel()
            _broken_off.add(task)
            task.add_done_callback(_broken_off.discard)
    if task.done():
        return task.result()
    raise DatabaseUnavailable(
        f"PostgreSQL takes connections and gives no answer within {patience.total_seconds():g} s. Is it overloaded, does its disk "
        "hang, or does a firewall swallow what it says? `pg_stat_activity` shows who waits for what"
    )


async def backlog(database: Database, now: datetime) -> Backlog:
    """Count the log. An entry's id carries the millisecond in which it came."""
    t = database.tables
    async with database.connect() as conn:
        row = (
            await run(
                conn,
                f"SELECT (SELECT count(*) FROM {t.hits}) AS waiting, "
                f"(SELECT id FROM {t.hits} ORDER BY id LIMIT 1) AS oldest, "
                f"(SELECT count(*) FROM {t.rejected_hits}) AS rejected",
            )
        ).one()
    oldest = None
    if row.oldest is not None:
        oldest = max(timedelta(0), timedelta(milliseconds=now.timestamp() * 1_000 - (row.oldest.int >> 80)))
    return Backlog(row.waiting, oldest, row.rejected)


async def examine(database: Database, now: datetime, patience: timedelta = PATIENCE) -> list[Finding]:
    """Look at everything that the database can tell; stops at the first thing that makes the rest meaningless."""
    try:
        return await answered(_examine(database, now), patience)
    except DatabaseUnavailable as error:
        return [Finding("wrong", str(error))]


async def _examine(database: Database, now: datetime) -> list[Finding]:
    try:
        async with database.connect() as conn:
            version = (await run(conn, "SHOW server_version")).scalar_one()
    except GoodAnalyticsError as error:
        return [Finding("wrong", str(error))]
    findings = [Finding("ok", f"PostgreSQL {version} answers")]
    try:
        await schema.check(database)
    except GoodAnalyticsError as error:
        return [*findings, Finding("wrong", str(error))]
    findings.append(Finding("ok", f"the schema {database.tables.schema} is of this version"))
    findings += await _about_log(database, now)
    findings += await _about_partitions(database, now)
    return findings + await _about_receipts(database, now)


def in_seconds(age: timedelta) -> timedelta:
    """*age* as people want to read it."""
    return timedelta(seconds=int(age.total_seconds()))


async def _about_log(database: Database, now: datetime) -> list[Finding]:
    found = await backlog(database, now)
    findings = [Finding("ok", f"{found.waiting} hits wait in the log")]
    if found.oldest is not None and found.oldest > LAG_WORTH_A_WORD:
        findings = [
            Finding(
                "warning",
                f"{found.waiting} hits wait in the log, the oldest for {in_seconds(found.oldest)}. Is a worker running? "
                "Config.worker=True runs one in the app; `goodanalytics worker` is one of its own",
            )
        ]
    if found.rejected:
        table = database.tables.rejected_hits
        findings.append(
            Finding(
                "warning",
                f"{found.rejected} hits could not be processed and lie in {table}. `goodanalytics replay --list` says why; "
                "once that is mended, `goodanalytics replay` puts them back",
            )
        )
    return findings


async def _about_partitions(database: Database, now: datetime) -> list[Finding]:
    t = database.tables
    try:
        async with database.connect() as conn:
            strays = (await run(conn, f"SELECT count(*) FROM ONLY {t.schema}.events_default")).scalar_one()
            name = f"events_{now:%Y_%m}"
            found = (await run(conn, "SELECT to_regclass(:name)", name=f"{t.schema}.{name}")).scalar_one()
    except DBAPIError as error:
        return [Finding("wrong", f"the partitions of {t.events} cannot be read: {error.orig}")]
    if found is None:
        return [
            Finding("warning", f"this month has no partition {name} yet; the running app makes it at start")
        ]
    return [
        Finding("ok", f"partitions are there; {strays} events lie outside of them (older or newer months)")
    ]


async def _about_receipts(database: Database, now: datetime) -> list[Finding]:
    t = database.tables
    async with database.connect() as conn:
        there = await days.listed(conn, t.schema)
        early = await days.has_early_receipts(conn, t.schema)
    if not there:
        if early:
            return [
                Finding("warning", f"no day of {t.receipts} is open yet; the running app opens it at start")
            ]
        return [Finding("ok", f"{t.receipts} waits for its first day; the running app opens it at start")]
    today = now.astimezone(UTC).date()
    if there[-1] > today + timedelta(days=1):
        return [
            Finding(
                "warning",
                f"the open day of {t.receipts} is {there[-1]}, in the future, so none is opened or dropped until then. A "
                "process has a wrong clock, or had one: set it right",
            )
        ]
    if today - there[-1] >= LATE_DAY:
        return [
            Finding(
                "warning",
                f"the open day of {t.receipts} is still {there[-1]}. Nothing is counted twice, but no old day is dropped. Is "
                "an app running, and is there a transaction that has been open for long (pg_stat_activity)?",
            )
        ]
    return [Finding("ok", f"keys are remembered since {there[0]}, in {len(there)} days of {t.receipts}")]
