"""The log as a PostgreSQL table: what was acknowledged is there, once, in order, and nothing in it can stop the worker."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from goodanalytics import Analytics, Config
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.raw import decoded
from goodanalytics.errors import Busy, DatabaseUnavailable
from goodanalytics.log import group_commit
from goodanalytics.log.group_commit import FLUSH_ROWS
from goodanalytics.log.postgres import SHARDS, EntryIds, PostgresLog, shard_of
from goodanalytics.store.database import Database
from goodanalytics.store.tables import Tables
from tests.conftest import FrozenClock

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SCHEMA = "good_analytics"


def a_hit(number: int = 1, **facts: Any) -> Hit:
    defaults: dict[str, Any] = {
        "id": uuid.uuid4(),
        "workspace_id": UUID(int=0),
        "received_at": NOW,
        "occurred_at": NOW,
        "event_type": EventType.PAGEVIEW,
        "origin": "browser",
        "title": str(number),
        "signals": Signals(anonymous_id="a"),
    }
    return Hit(**(defaults | facts))


@pytest.fixture
async def log(database: Database, clock: FrozenClock) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(database, clock, uuid.uuid4)
    yield log
    await log.stop()


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as running:
        yield running


async def value(database: Database, sql: str) -> Any:
    async with database.connect() as conn:
        return (await conn.execute(text(sql))).scalar_one()


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Return when *is_so*; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not await is_so():
            await asyncio.sleep(0.01)


async def titles(analytics: Analytics) -> list[str]:
    async with analytics.database.connect() as conn:
        return [
            row.title for row in await conn.execute(text(f"SELECT title FROM {SCHEMA}.events ORDER BY id"))
        ]


# Append --------------------------------------------------------------------------------------------------------------


async def test_an_append_that_returned_is_committed(log: PostgresLog, database: Database) -> None:
    """Another connection sees the hit at the moment in which append returns, with its shard and its bytes."""
    hit = a_hit()
    await log.append([hit])
    async with database.connect() as conn:
        (row,) = await conn.execute(text(f"SELECT shard, body FROM {SCHEMA}.hits"))

    assert (row.shard, decoded(row.body)) == (shard_of(hit), hit)


async def test_nothing_to_append_asks_nobody(log: PostgresLog, database: Database) -> None:
    """No hits are durable at once."""
    await log.append([])

    assert await value(database, f"SELECT count(*) FROM {SCHEMA}.hits") == 0


async def test_appends_that_come_together_are_committed_together(
    log: PostgresLog, database: Database
) -> None:
    """Three hundred requests at once cost a handful of transactions, and all of them are there."""
    await asyncio.gather(*(log.append([a_hit(n)]) for n in range(300)))

    assert await value(database, f"SELECT count(*) FROM {SCHEMA}.hits") == 300
    # Each COPY is a transaction of its own, and every row knows the one that wrote it.
    assert (
        await value(database, f"SELECT count(DISTINCT xmin::text) FROM {SCHEMA}.hits")
        <= 300 // FLUSH_ROWS + 3
    )


async def test_one_callers_hits_are_committed_as_one(log: PostgresLog, database: Database) -> None:
    """A list longer than a flush is still written whole or not at all."""
    await log.append([a_hit(n) for n in range(3 * FLUSH_ROWS)])

    assert await value(database, f"SELECT count(DISTINCT xmin::text) FROM {SCHEMA}.hits") == 1


@pytest.mark.parametrize(("bound", "most"), [("WAITING_ROWS", 2), ("WAITING_BYTES", 10)])
async def test_what_waits_in_memory_is_bounded(
    log: PostgresLog, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """Beyond the bound an append is refused at once, and nothing of it is written."""
    monkeypatch.setattr(group_commit, bound, most)

    with pytest.raises(Busy) as caught:
        await log.append([a_hit(n) for n in range(3)])
    assert caught.value.retry_after == 1


async def test_refused_and_failed_appends_give_their_room_back(
    log: PostgresLog, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After everything was answered, the bound is as far away as at the start."""
    monkeypatch.setattr(group_commit, "WAITING_ROWS", 50)
    for _ in range(3):
        answers = await asyncio.gather(*(log.append([a_hit(n)]) for n in range(80)), return_exceptions=True)

        assert [type(a) for a in answers] == [type(None)] * 50 + [Busy] * 30
    async with database.begin() as conn:
        await conn.execute(text(f"ALTER TABLE {SCHEMA}.hits RENAME TO away"))
    failed = await asyncio.gather(*(log.append([a_hit(n)]) for n in range(50)), return_exceptions=True)
    async with database.begin() as conn:
        await conn.execute(text(f"ALTER TABLE {SCHEMA}.away RENAME TO hits"))
    await asyncio.gather(*(log.append([a_hit(n)]) for n in range(50)))

    assert all(isinstance(a, Exception) and not isinstance(a, Busy) for a in failed)
    assert await value(database, f"SELECT count(*) FROM {SCHEMA}.hits") == 200


async def test_nobody_there_is_said_so(tables: Tables, clock: FrozenClock) -> None:
    """A closed port is `DatabaseUnavailable` with the address, for everybody who waits."""
    database = Database.open("postgresql+asyncpg://nobody:hush@127.0.0.1:9/none", tables)
    log = PostgresLog(database, clock, uuid.uuid4)
    answers = await asyncio.gather(*(log.append([a_hit()]) for _ in range(5)), return_exceptions=True)
    await database.close()

    assert {type(a) for a in answers} == {DatabaseUnavailable}
    assert "127.0.0.1:9" in str(answers[0])
    assert "hush" not in str(answers[0])


# Ids and shards ------------------------------------------------------------------------------------------------------


def test_entry_ids_rise_also_when_the_clock_does_not() -> None:
    """Within a millisecond, with a clock that stands, and with one that goes back, the next id is greater."""
    clock = FrozenClock()
    ids = EntryIds(clock, uuid.uuid4)
    made = [UUID(bytes=found) for found in [*ids.take(4_000), *(ids.take(1)[0] for _ in range(1_000))]]
    clock.advance(timedelta(seconds=-10))
    made += [UUID(bytes=found) for found in ids.take(10)]
    clock.advance(timedelta(seconds=60))
    made += [UUID(bytes=found) for found in ids.take(1)]

    assert made == sorted(set(made))
    assert {(i.version, i.variant) for i in made} == {(7, "specified in RFC 4122")}


def test_all_hits_of_one_browser_lie_in_one_shard() -> None:
    """Whatever it does, also when it lands with a click or signs in; another workspace's browser is another one."""
    mine = [
        a_hit(),
        a_hit(signals=Signals(anonymous_id="a", click_id=uuid.uuid4())),
        a_hit(signals=Signals(anonymous_id="a", external_id="ann"), event_type=EventType.IDENTIFY),
    ]

    assert len({shard_of(hit) for hit in mine}) == 1
    assert {shard_of(a_hit(signals=Signals(anonymous_id=str(n)))) for n in range(500)} == set(range(SHARDS))


async def test_a_browsers_hits_are_claimed_in_their_order(analytics: Analytics, clock: FrozenClock) -> None:
    """Hits that were appended one after the other are processed one after the other, over batches and flushes."""
    hits = [a_hit(n, occurred_at=NOW + timedelta(seconds=n)) for n in range(60)]
    for start in range(0, 60, 4):
        await analytics.log.append(hits[start : start + 4])
    seen: list[str | None] = []
    while True:
        async with analytics.database.begin() as conn:
            entries = await analytics.log.primary.claim(conn, 7)
        if not entries:
            break
        seen += [entry.hit.title for entry in entries if entry.hit is not None]

    assert seen == [str(n) for n in range(60)]


# Claim ---------------------------------------------------------------------------------------------------------------


async def test_a_worker_that_dies_leaves_its_hits(log: PostgresLog, database: Database) -> None:
    """What was claimed in a transaction that never commits is there again."""
    await log.append([a_hit()])
    async with database.connect() as conn:
        await conn.begin()
        assert len(await log.claim(conn, 10)) == 1
        await conn.rollback()
    async with database.begin() as conn:
        again = await log.claim(conn, 10)

    assert len(again) == 1
    assert await value(database, f"SELECT count(*) FROM {SCHEMA}.hits") == 0


async def test_a_shard_in_hand_is_nobody_elses(log: PostgresLog, database: Database) -> None:
    """While one worker has a browser's first hit in a slow transaction, no other gets its second one."""
    await log.append([a_hit(1)])
    async with database.connect() as slow:
        await slow.begin()
        first = await log.claim(slow, 10)
        await log.append([a_hit(2), a_hit(3, signals=Signals(anonymous_id="b"))])
        async with database.begin() as quick:
            meanwhile = await log.claim(quick, 10)
        await slow.commit()
    async with database.begin() as conn:
        afterwards = await log.claim(conn, 10)

    assert shard_of(a_hit(signals=Signals(anonymous_id="b"))) != shard_of(a_hit())
    assert [[e.hit.title for e in found if e.hit] for found in (first, meanwhile, afterwards)] == [
        ["1"],
        ["3"],
        ["2"],
    ]


async def test_an_append_that_commits_late_is_not_passed_over(log: PostgresLog, database: Database) -> None:
    """An older id that becomes visible after a newer one was processed is processed all the same."""
    hit, older = a_hit(1), UUID("01900000-0000-7000-8000-000000000001")
    async with database.connect() as late:
        await late.begin()
        await late.execute(
            text(f"INSERT INTO {SCHEMA}.hits (shard, id, body) VALUES (:shard, :id, :body)"),
            {"shard": shard_of(hit), "id": older, "body": msgspec.msgpack.encode(hit)},
        )
        await log.append([a_hit(2)])
        async with database.begin() as conn:
            before = await log.claim(conn, 10)
        await late.commit()
    async with database.begin() as conn:
        after = await log.claim(conn, 10)

    assert [[e.hit.title for e in found if e.hit] for found in (before, after)] == [["2"], ["1"]]


async def test_many_workers_process_each_hit_once(analytics: Analytics) -> None:
    """Six workers over hits of forty browsers, while more come in: every event is there exactly once."""
    worker = dataclasses.replace(analytics.config, batch_size=11)
    object.__setattr__(analytics.ingest, "config", worker)
    hits = [a_hit(n, signals=Signals(anonymous_id=f"b{n % 40}")) for n in range(400)]

    async def feed() -> None:
        for start in range(0, 400, 20):
            await analytics.log.append(hits[start : start + 20])

    async def work() -> None:
        while not feeding.done():
            await analytics.worker.work()

    feeding = asyncio.create_task(feed())
    await asyncio.gather(feeding, *(work() for _ in range(6)))
    await analytics.drain()

    assert sorted(await titles(analytics), key=int) == [str(n) for n in range(400)]
    assert await value(analytics.database, f"SELECT count(*) FROM {SCHEMA}.visitors") == 40
    assert await value(analytics.database, f"SELECT sum(total_pageviews) FROM {SCHEMA}.visitors") == 400


# Poison --------------------------------------------------------------------------------------------------------------

UNREADABLE = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\xc1", id="no msgpack"),
    pytest.param(b"\x80", id="no hit"),
    pytest.param(msgspec.msgpack.encode(a_hit())[:-3], id="cut off"),
    pytest.param(
        msgspec.msgpack.encode(a_hit(title="title")).replace(b"title\xa5title", b"title\xa5tit\xff\xff"),
        id="no UTF-8",
    ),
    pytest.param(b"\x91" * 5_000 + b"\xc0", id="deep"),
]


@pytest.mark.parametrize("body", UNREADABLE)
async def test_bytes_that_are_no_hit_are_set_aside(
    analytics: Analytics, errors: list[BaseException], body: bytes
) -> None:
    """They stop nobody: the hits around them are processed, they are kept with the reason."""
    bad = uuid.uuid4()
    await analytics.log.append([a_hit(1)])
    async with analytics.database.begin() as conn:
        await conn.execute(
            text(f"INSERT INTO {SCHEMA}.hits (shard, id, body) VALUES (3, :id, :body)"),
            {"id": bad, "body": body},
        )
    await analytics.log.append([a_hit(2)])
    await analytics.drain()
    async with analytics.database.connect() as conn:
        (aside,) = await conn.execute(text(f"SELECT id, body, error FROM {SCHEMA}.rejected_hits"))

    assert (aside.id, aside.body, aside.error) == (bad, body, "cannot be read")
    assert sorted(await titles(analytics)) == ["1", "2"]


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_bytes_break_the_reader(data: st.DataObject) -> None:
    """A hit whose bytes were damaged anywhere is a hit or none, never an error."""
    body = bytearray(msgspec.msgpack.encode(a_hit(title="héllo", properties={"ü": 1.5})))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    assert isinstance(decoded(bytes(body)), Hit | None)


async def test_a_poisoned_hit_costs_only_itself(analytics: Analytics, errors: list[BaseException]) -> None:
    """A batch with what PostgreSQL refuses is halved until the hit that is to blame stands alone."""
    hits = [a_hit(n, signals=Signals(anonymous_id=f"b{n}")) for n in range(40)]
    hits[11] = a_hit(11, title="bad\x00", signals=Signals(anonymous_id="b11"))
    hits[30] = a_hit(30, amount_cents=2**63, signals=Signals(anonymous_id="b30"))
    await analytics.log.append(hits)
    await analytics.drain()
    async with analytics.database.connect() as conn:
        aside = [row.body for row in await conn.execute(text(f"SELECT body FROM {SCHEMA}.rejected_hits"))]

    assert len(aside) == len(errors) == 2
    assert len(await titles(analytics)) == 38
    assert await value(analytics.database, f"SELECT count(*) FROM {SCHEMA}.hits") == 0
    # A receipt of a hit that was set aside would make its replay a repetition.
    assert await value(analytics.database, f"SELECT count(*) FROM {SCHEMA}.receipts") == 38


# Waiting -------------------------------------------------------------------------------------------------------------


async def test_an_append_wakes_who_waits(log: PostgresLog) -> None:
    """The worker does not sleep through its interval when something comes in."""
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(log.wait(timedelta(hours=1)))
        await asyncio.sleep(0)
        await log.append([a_hit()])
        await waiting
        await log.append([a_hit()])
        await log.wait(timedelta(hours=1))


async def test_waiting_ends_by_itself(log: PostgresLog) -> None:
    """Hits of other processes wake nobody here, so a worker looks by itself."""
    async with asyncio.timeout(10):
        await log.wait(timedelta(milliseconds=1))


async def test_the_worker_takes_what_comes_in(database_url: str, config: Config) -> None:
    """With the worker running nobody has to drain."""
    own = dataclasses.replace(config, worker_interval=timedelta(hours=1))
    async with Analytics(database_url, own) as analytics:
        await analytics.log.append([a_hit()])

        async def is_there() -> bool:
            return await titles(analytics) == ["1"]

        await until(is_there)
