"""A hit is noted once, however many transactions bring it, on whatever day and around whatever midnight."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import Counter
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.errors import Busy, SchemaError
from goodanalytics.migrations import days, partitions
from goodanalytics.store import health, ledger
from goodanalytics.store.database import Database, fetch, run
from goodanalytics.upkeep import Upkeep
from tests.store.conftest import statements

SCHEMA = "good_analytics"
WORKSPACE = UUID(int=7)
MONDAY = datetime(2026, 11, 2, 10, tzinfo=UTC)
WEEK = timedelta(days=7)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def hit(number: int, digest: str | None = None, *, workspace: int = 7, at: datetime = MONDAY) -> Hit:
    return Hit(
        id=UUID(int=number),
        workspace_id=UUID(int=workspace),
        received_at=at,
        occurred_at=at,
        event_type=EventType.PAGEVIEW,
        origin="browser",
        digest=digest,
    )


async def receive(conn: AsyncConnection, tables: Any, *hits: Hit) -> set[int]:
    """The numbers of the hits that were new."""
    repeated = await ledger.receive(conn, tables, hits)
    return {h.id.int for h in hits if (h.workspace_id, h.id) not in repeated}


async def noted(database: Database, *hits: Hit) -> set[int]:
    """As `receive`, in a transaction of its own."""
    async with database.begin() as conn:
        return await receive(conn, database.tables, *hits)


async def turn(database: Database, now: datetime, keep: timedelta = WEEK) -> days.Turned:
    async with database.begin() as conn:
        return await days.turn(conn, SCHEMA, now, keep)


async def homes(database: Database) -> dict[int, str]:
    """Which partition the receipt of each hit is in."""
    async with database.connect() as conn:
        rows = await run(
            conn, f"SELECT r.hit_id, c.relname FROM {SCHEMA}.receipts r JOIN pg_class c ON c.oid = r.tableoid"
        )
        return {row.hit_id.int: row.relname for row in rows}


async def until_waiting(database: Database, backends: int = 1) -> None:
    """Return when as many sessions of this database as *backends* wait for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30), database.connect() as conn:
        while (await run(conn, sql)).scalar_one() < backends:
            await conn.rollback()
            await asyncio.sleep(0.01)


async def finished(tasks: Iterable[Awaitable[Any]]) -> list[Any]:
    async with asyncio.timeout(30):
        return await asyncio.gather(*tasks)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning a day waits as long as the test needs, except where a test says otherwise."""
    monkeypatch.setattr(days, "LOCK_TIMEOUT", "30s")


class TestMemory:
    @pytest.mark.parametrize("later", [0, 1, 2, 6], ids=lambda n: f"{n} days later")
    async def test_repetition_is_known(self, database: Database, later: int) -> None:
        """A hit that comes again is known, on the same day and on each day that is kept."""
        for n in range(later + 1):
            await turn(database, MONDAY + n * DAY)
            if n == 0:
                await noted(database, hit(1))

        assert await noted(database, hit(1, at=MONDAY + later * DAY), hit(2)) == {2}

    async def test_repetition_tells_the_first_body(self, database: Database) -> None:
        """The digest that was noted first comes back, from closed days and from the open one."""
        await noted(database, hit(1, "early"))
        await turn(database, MONDAY)
        await noted(database, hit(2, "monday"))
        await turn(database, MONDAY + DAY)
        await noted(database, hit(3, "tuesday"), hit(4))

        async with database.begin() as conn:
            again = [hit(n, "another") for n in (1, 2, 3, 4, 5)]
            told = await ledger.receive(conn, database.tables, again)

        assert {hit_id.int: digest for (_, hit_id), digest in told.items()} == {
            1: "early",
            2: "monday",
            3: "tuesday",
            4: None,
        }

    async def test_other_workspaces_hit_is_another(self, database: Database) -> None:
        """Two workspaces may use the same id, on one day and on two."""
        await turn(database, MONDAY)
        first = await noted(database, hit(1), hit(1, workspace=8))
        await turn(database, MONDAY + DAY)

        assert (first, await noted(database, hit(1, workspace=9))) == ({1}, {1})

    async def test_batch_of_many_days_is_noted_where_it_is_open(self, database: Database) -> None:
        """A spool's hits were received on many days; what counts is when their receipts are written."""
        for n in range(3):
            await turn(database, MONDAY + n * DAY)

        await noted(database, *(hit(n, at=MONDAY + timedelta(days=n - 5)) for n in range(1, 10)))

        assert set((await homes(database)).values()) == {"receipts_2026_11_04"}

    async def test_repetition_within_a_batch_is_noted_once(self, database: Database) -> None:
        """Two hits of one batch with one id make one receipt; which of them counts is the caller's."""
        await noted(database, hit(1, "a"), hit(1, "b"))

        assert list(await homes(database)) == [1]

    async def test_before_the_first_day_there_is_a_place(self, database: Database) -> None:
        """A schema that was just migrated takes receipts, and knows them when the first day is open."""
        await noted(database, hit(1))
        await turn(database, MONDAY)

        assert await noted(database, hit(1), hit(2)) == {2}
        assert await homes(database) == {1: "receipts_default", 2: "receipts_2026_11_02"}


class TestTurn:
    async def test_a_day_is_opened_once(self, database: Database) -> None:
        """The second call of a day finds nothing to do."""
        assert [await turn(database, MONDAY), await turn(database, MONDAY + timedelta(hours=13))] == [
            days.Turned("receipts_2026_11_02"),
            days.Turned(),
        ]

    async def test_the_day_is_that_of_utc(self, database: Database) -> None:
        """An hour before midnight in New York it is tomorrow in UTC."""
        turned = await turn(database, datetime.fromisoformat("2026-11-02T23:00-05:00"))

        assert turned.opened == "receipts_2026_11_03"

    async def test_a_clock_that_steps_back_changes_nothing(self, database: Database) -> None:
        """A day that was closed is not opened again."""
        await turn(database, MONDAY + DAY)

        assert await turn(database, MONDAY) == days.Turned()
        assert await noted(database, hit(1)) == {1}
        assert await homes(database) == {1: "receipts_2026_11_03"}

    async def test_racing_processes_open_it_once(self, database: Database) -> None:
        """Of several that see the day missing one opens it and none fails."""
        await turn(database, MONDAY)

        turned = await finished(turn(database, MONDAY + DAY) for _ in range(4))

        assert Counter(one.opened for one in turned) == {None: 3, "receipts_2026_11_03": 1}

    @pytest.mark.parametrize(
        ("opened", "now", "keep", "dropped"),
        [
            ([0, 1], 8 * DAY - SECOND, WEEK, []),
            ([0, 1], 9 * DAY - SECOND, WEEK, []),
            ([0, 1], 9 * DAY, WEEK, ["receipts_2026_11_02"]),
            ([0, 1], 9 * DAY, 8 * DAY, []),
            ([0, 1, 2], 10 * DAY, WEEK, ["receipts_2026_11_02", "receipts_2026_11_03"]),
            ([0], 400 * DAY, WEEK, []),
            ([0, 400], 400 * DAY, WEEK, []),
            ([0, 400], 408 * DAY, WEEK, ["receipts_2026_11_02"]),
        ],
        ids=[
            "the eighth day",
            "a second too early",
            "seven days after the day of turning ended",
            "kept for longer",
            "two at once",
            "open for a year",
            "closed a moment ago after a year",
            "a week after a year",
        ],
    )
    async def test_a_day_is_dropped_when_its_last_receipt_is_old(
        self, database: Database, opened: list[int], now: timedelta, keep: timedelta, dropped: list[str]
    ) -> None:
        """A day took receipts until some time of the day on which it was turned; they are kept from the end of that day."""
        midnight = MONDAY.replace(hour=0)
        for n in opened:
            await turn(database, midnight + n * DAY)

        turned = await turn(database, midnight + now, keep)

        assert list(turned.dropped) == dropped

    async def test_what_is_dropped_is_forgotten(self, database: Database) -> None:
        """Receipts go with their day, and only those."""
        await noted(database, hit(1))
        for n in range(2):
            await turn(database, MONDAY + n * DAY)
            await noted(database, hit(n + 2))

        first = await turn(database, MONDAY + 8 * DAY)
        second = await turn(database, MONDAY + 9 * DAY)

        assert (first.dropped, second.dropped) == (("receipts_default",), ("receipts_2026_11_02",))
        assert await homes(database) == {3: "receipts_2026_11_03"}

    async def test_gives_way_to_a_long_transaction(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Behind a host's long transaction it gives up without an error; all go on in the old day."""
        monkeypatch.setattr(days, "LOCK_TIMEOUT", "50ms")
        await turn(database, MONDAY)
        async with database.begin() as host:
            await receive(host, database.tables, hit(1))
            turned = await turn(database, MONDAY + DAY)
            meanwhile = await noted(database, hit(2))
        later = await turn(database, MONDAY + DAY)

        assert (turned, meanwhile, later) == (days.Turned(), {2}, days.Turned("receipts_2026_11_03"))
        assert set((await homes(database)).values()) == {"receipts_2026_11_02"}

    async def test_lock_timeout_is_given_back(self, database: Database) -> None:
        """The caller's transaction goes on with its own lock timeout."""
        async with database.begin() as conn:
            await run(conn, "SET LOCAL lock_timeout = '77s'")
            await days.turn(conn, SCHEMA, MONDAY, WEEK)
            after = (await run(conn, "SELECT current_setting('lock_timeout')")).scalar_one()

        assert after == "77s"

    async def test_table_with_a_days_name_is_refused(self, database: Database) -> None:
        """A table that is in the way is neither used nor overwritten: its name and the cure are told."""
        async with database.begin() as conn:
            await run(conn, f"CREATE TABLE {SCHEMA}.receipts_2026_11_02 (id integer)")

        with pytest.raises(SchemaError, match=r"receipts_2026_11_02 exists but is no partition.*Rename"):
            await turn(database, MONDAY)
        assert await noted(database, hit(1)) == {1}

    async def test_upkeep_turns_the_day(self, database: Database, config: Config, clock: Any) -> None:
        """The loop that every process runs opens the day of the clock and keeps days as long as the settings say."""
        first = await Upkeep(config, database).once()
        for _ in range(11):
            clock.advance(DAY)
            await Upkeep(dataclasses.replace(config, idempotency=8 * DAY), database).once()
        async with database.connect() as conn:
            there = await days.listed(conn, SCHEMA)

        assert first == ["receipts_2026_11_01"]
        assert [day.day for day in there] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


class TestMidnight:
    async def test_open_transaction_holds_the_day(self, database: Database) -> None:
        """The new day waits for who wrote in the old one, whoever comes then waits for the new day, and knows the hit."""
        await turn(database, MONDAY)
        async with database.begin() as before:
            first = await receive(before, database.tables, hit(1, "a"))
            turning = asyncio.create_task(turn(database, MONDAY + DAY))
            await until_waiting(database, 1)
            after = asyncio.create_task(noted(database, hit(1, "b"), hit(2)))
            await until_waiting(database, 2)
        turned, second = await finished([turning, after])

        assert (first, turned.opened, second) == ({1}, "receipts_2026_11_03", {2})
        assert await homes(database) == {1: "receipts_2026_11_02", 2: "receipts_2026_11_03"}

    async def test_who_rolls_back_leaves_nothing(self, database: Database) -> None:
        """When the one that came first across midnight is undone, the other one counts."""
        await turn(database, MONDAY)
        async with database.connect() as before:
            await receive(before, database.tables, hit(1))
            turning = asyncio.create_task(turn(database, MONDAY + DAY))
            await until_waiting(database, 1)
            after = asyncio.create_task(noted(database, hit(1)))
            await until_waiting(database, 2)
            await before.rollback()
        _, second = await finished([turning, after])

        assert second == {1}
        assert await homes(database) == {1: "receipts_2026_11_03"}

    async def test_who_waits_for_the_same_hit_is_waited_for(self, database: Database) -> None:
        """Two with one hit, the second waiting for the first, then midnight: the day turns behind both, recorded once."""
        await turn(database, MONDAY)
        async with database.begin() as one:
            first = await receive(one, database.tables, hit(1))
            other = asyncio.create_task(noted(database, hit(1), hit(2)))
            await until_waiting(database, 1)
            turning = asyncio.create_task(turn(database, MONDAY + DAY))
            await until_waiting(database, 2)
        second, turned = await finished([other, turning])

        assert (first, second, turned.opened) == ({1}, {2}, "receipts_2026_11_03")
        assert set((await homes(database)).values()) == {"receipts_2026_11_02"}

    async def test_first_day_waits_for_who_came_before_it(self, database: Database) -> None:
        """Turning away from the place before the first day is as exact as any other turn."""
        async with database.begin() as before:
            first = await receive(before, database.tables, hit(1))
            turning = asyncio.create_task(turn(database, MONDAY))
            await until_waiting(database, 1)
            after = asyncio.create_task(noted(database, hit(1)))
            await until_waiting(database, 2)
        _, second = await finished([turning, after])

        assert (first, second) == ({1}, set())

    async def test_day_is_not_dropped_under_a_reader(self, database: Database) -> None:
        """Who was told by a day that a hit is known can still read the digest, though the day is due to be dropped."""
        await turn(database, MONDAY)
        await noted(database, hit(1, "a"))
        await turn(database, MONDAY + DAY)
        async with database.begin() as conn:
            await receive(conn, database.tables, hit(2))
            dropping = asyncio.create_task(turn(database, MONDAY + 9 * DAY))
            await until_waiting(database, 1)
            told = await ledger.receive(conn, database.tables, [hit(1, "b")])
        (turned,) = await finished([dropping])

        assert (list(told.values()), turned.dropped) == (["a"], ("receipts_2026_11_02",))

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    async def test_hosts_old_snapshot_is_refused(self, database: Database, level: str) -> None:
        """A host's transaction that still sees yesterday open may not write there; run again, it knows the hit."""
        await turn(database, MONDAY)
        async with database.engine.execution_options(isolation_level=level).connect() as host:
            await run(host, f"SELECT count(*) FROM {SCHEMA}.events")  # takes the snapshot
            await noted(database, hit(1))
            await turn(database, MONDAY + DAY)
            await noted(database, hit(2))
            with pytest.raises(Busy, match="run the transaction again"):
                await receive(host, database.tables, hit(1), hit(2), hit(3))
            await host.rollback()
            again = await receive(host, database.tables, hit(1), hit(2), hit(3))
            await host.commit()

        assert again == {3}

    async def test_storm_of_midnights(self, database: Database) -> None:
        """Six workers bring the same hits in batches while day after day is turned: each is new exactly once."""
        fresh: Counter[int] = Counter()
        brought: Counter[int] = Counter()
        ended = asyncio.Event()

        async def work(offset: int) -> None:
            batches = itertools.count()
            while not ended.is_set():
                # Rounds of six batches, which each worker begins with another, so that they meet all the time.
                round_, step = divmod(next(batches), 6)
                first = round_ * 120 + (step + offset) % 6 * 20
                numbers = range(first, first + 20)
                async with database.begin() as conn:
                    new = await receive(conn, database.tables, *(hit(n) for n in numbers))
                fresh.update(new)
                brought.update(numbers)

        async def midnights() -> None:
            for n in range(8):
                await turn(database, MONDAY + n * DAY, keep=90 * DAY)
                before = brought.total()
                while brought.total() < before + 240:  # each day is written into before the next one comes
                    await asyncio.sleep(0.001)
            ended.set()

        await finished([midnights(), *(work(offset) for offset in range(6))])

        found = await homes(database)
        assert fresh == dict.fromkeys(brought, 1)
        assert (set(found), max(brought.values())) == (set(brought), 6)
        assert len(set(found.values())) > 4


class TestCost:
    @pytest.mark.parametrize(("known", "number"), [(0, 1), (1, 2)], ids=["all new", "some known"])
    @pytest.mark.parametrize("size", [2, 500])
    async def test_statements_do_not_grow(
        self, database: Database, size: int, known: int, number: int
    ) -> None:
        """One statement notes a batch of any size over any number of days; a second one reads what was noted before."""
        for n in range(8):
            await turn(database, MONDAY + n * DAY)
            if n == 0:
                await noted(database, *(hit(one) for one in range(known)))

        async with statements(database) as said, database.begin() as conn:
            await receive(conn, database.tables, *(hit(one) for one in range(size)))
            await asyncio.sleep(0)  # the driver tells of a statement at the end of the loop's turn

        assert len(said) == number

    async def test_closed_days_are_looked_up_by_key(self, database: Database) -> None:
        """However much lies in the closed days, each hit is looked up by their keys, and the open day is not read."""
        for n in range(3):
            await turn(database, MONDAY + n * DAY)
            async with database.begin() as conn:
                await run(
                    conn,
                    f"INSERT INTO {SCHEMA}.receipts SELECT CAST(:workspace AS uuid), gen_random_uuid(), CAST(:day AS date) "
                    "FROM generate_series(1, 20000)",
                    workspace=WORKSPACE,
                    day=(MONDAY + n * DAY).date(),
                )

        async with statements(database) as said, database.begin() as conn:
            await receive(conn, database.tables, hit(1))
            await asyncio.sleep(0)  # the driver tells of a statement at the end of the loop's turn
            sql, values = said[0]
            plan = [row[0] for row in await fetch(conn, f"EXPLAIN ANALYZE {sql}", *values)]

        of_days = [line for line in plan if "receipts_2026" in line]
        assert [line for line in of_days if "Index" not in line] == []
        assert ["never executed" in line for line in of_days if "receipts_2026_11_04" in line] == [True]
        assert sum("actual" in line for line in of_days) == 2


class TestDoctor:
    async def told(self, database: Database, now: datetime) -> tuple[str, str]:
        (finding,) = [f for f in await health.examine(database, now) if "receipts" in f.text]
        return finding.level, finding.text

    async def test_says_how_far_back_it_remembers(self, database: Database) -> None:
        """With days turned in time all is well, and it tells since when."""
        await turn(database, MONDAY)
        await turn(database, MONDAY + DAY)

        level, words = await self.told(database, MONDAY + DAY)

        assert (level, "since 2026-11-02, in 2 days" in words) == ("ok", True)

    async def test_new_schema_is_well(self, database: Database) -> None:
        """A database that no app has run on is not a worry."""
        assert (await self.told(database, MONDAY))[0] == "ok"

    @pytest.mark.parametrize(
        ("opened", "now", "cure"),
        [
            ([], MONDAY, "the running app opens it at start"),
            ([MONDAY], MONDAY + 2 * DAY, "pg_stat_activity"),
            ([MONDAY + 30 * DAY], MONDAY, "a wrong clock"),
        ],
        ids=["never opened", "not turned for days", "in the future"],
    )
    async def test_warns(self, database: Database, opened: list[datetime], now: datetime, cure: str) -> None:
        """Whatever keeps days from being turned is told with its cure; it loses nothing, so it is never "wrong"."""
        for day in opened:
            await turn(database, day)
        await noted(database, hit(1))

        level, words = await self.told(database, now)

        assert (level, cure in words) == ("warning", True)


async def test_partition_of_a_day_is_ours_to_a_hosts_autogenerate() -> None:
    """Names of days are told apart from tables of the host's that merely begin alike."""
    names = ["receipts_2026_11_02", "receipts_default", "receipts_2026_11", "receipts_archive"]

    assert [partitions.PARTITION.fullmatch(name) is not None for name in names] == [
        True,
        True,
        False,
        False,
    ]
