"""The outbox's hot statements on a table of finished dispatches: they read what is due and nothing else."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from goodanalytics.config import DEFAULT_WORKSPACE
from goodanalytics.core.delivery import Settlement
from goodanalytics.store import outbox, outbox_leases
from goodanalytics.store.outbox_leases import DueTarget

FINISHED, DUE = 20_000, 30
DONE = Settlement(state="delivered", attempts=0)
META = DueTarget(DEFAULT_WORKSPACE, "meta", {}, 0)


@pytest.fixture
async def fresh(database, clock):
    """Thirty dispatches that are due among twenty thousand that are over; PostgreSQL has not counted anything yet."""
    async with database.begin() as conn:
        await conn.execute(
            text(
                "INSERT INTO good_analytics.dispatches (workspace_id, id, target, lane, event_id, kind, occurred_at, state, "
                "attempts, next_at, shown, created_at, settled_at, external_ref) SELECT :w, md5(n::text)::uuid, 'meta', "
                "'main', md5(n::text)::uuid, 'sale', :now, CASE WHEN n <= :due THEN 'pending' ELSE 'delivered' END, 0, "
                "CASE WHEN n <= :due THEN CAST(:now AS timestamptz) END, '{}', :now, "
                "CASE WHEN n > :due THEN CAST(:now AS timestamptz) END, 'r' FROM generate_series(1, :all) AS n"
            ),
            {"w": DEFAULT_WORKSPACE, "now": clock(), "due": DUE, "all": DUE + FINISHED},
        )
        await conn.execute(
            text(
                "INSERT INTO good_analytics.platform_settings (workspace_id, platform, enabled, settings, failures, updated_at) "
                "VALUES (:w, 'meta', true, '{}', 0, :now)"
            ),
            {"w": DEFAULT_WORKSPACE, "now": clock()},
        )
    return database


@pytest.fixture
async def filled(fresh):
    """The same after a while."""
    await count(fresh)
    return fresh


async def count(database) -> None:
    """Let PostgreSQL see what is in the outbox."""
    async with database.engine.connect() as opened:
        conn = await opened.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(text("VACUUM ANALYZE good_analytics.dispatches"))


async def plans(database, act) -> list[str]:
    """How PostgreSQL goes about each statement of *act*, which is undone."""
    seen: list[tuple[str, Any]] = []

    def note(_conn, _cursor, statement, parameters, _context, _many):
        seen.append((statement, parameters))

    async with database.connect() as conn:
        transaction = await conn.begin()
        event.listen(conn.sync_connection, "before_cursor_execute", note)
        await act(conn)
        event.remove(conn.sync_connection, "before_cursor_execute", note)
        await transaction.rollback()
        found = []
        for statement, parameters in seen:
            rows = await conn.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            found.append("\n".join(row[0] for row in rows))
        return found


@pytest.mark.parametrize("what", ["due", "claim", "claim_polls", "begin", "settle", "replay", "tidy"])
async def test_a_statement_never_walks_over_the_whole_table(filled, clock, what):
    """Each finds its rows by an index, however many are finished."""
    t, now = filled.tables, clock()
    lease = {"lease_id": UUID(int=5), "now": now}
    acts = {
        "due": lambda conn: outbox_leases.due(conn, t, now, ["meta"]),
        "claim": lambda conn: outbox_leases.claim(conn, t, META, until=now, most=100, **lease),
        "claim_polls": lambda conn: outbox_leases.claim_polls(conn, t, META, until=now, **lease),
        "begin": lambda conn: outbox_leases.begin(conn, t, META, [UUID(int=1)], until=now, **lease),
        "settle": lambda conn: outbox_leases.settle(conn, t, META, {UUID(int=1): DONE}, **lease),
        "replay": lambda conn: outbox.replay(conn, t, DEFAULT_WORKSPACE, now, ids=[UUID(int=1)]),
        "tidy": lambda conn: outbox.tidy(conn, t, now),
    }
    found = await plans(filled, acts[what])

    assert found
    assert [plan for plan in found if re.search(r"Seq Scan on dispatches", plan)] == []


async def test_what_is_claimed_is_what_waits_longest_and_nobody_elses(filled, clock):
    """Two claims share the thirty; a third gets what the first one let run out."""
    t, now = filled.tables, clock()

    async def claimed(number: int, at, most: int) -> set[UUID]:
        async with filled.begin() as conn:
            rows = await outbox_leases.claim(
                conn, t, META, lease_id=UUID(int=number), now=at, until=at + timedelta(minutes=5), most=most
            )
            return {row.id for row in rows}

    first, second = await claimed(1, now, 20), await claimed(2, now + timedelta(minutes=1), 20)
    third = await claimed(3, now + timedelta(minutes=5), 100)

    assert (len(first), len(second), first & second) == (20, 10, set())
    assert third == first


@pytest.mark.parametrize("is_counted", [False, True], ids=["fresh", "after a while"])
@pytest.mark.parametrize("what", ["begin", "detach", "release", "settle"])
async def test_a_request_takes_each_row_by_its_key(fresh, clock, what, is_counted):
    """A thousand rows are a thousand look-ups, not a thousand times a thousand comparisons, nor a walk over what is over."""
    if is_counted:
        await count(fresh)
    t, now, lease = fresh.tables, clock(), {"lease_id": UUID(int=5), "now": clock()}
    lend = text(
        "UPDATE good_analytics.dispatches SET lease_id = :lease, leased_until = :until WHERE id IN "
        "(SELECT id FROM good_analytics.dispatches ORDER BY id LIMIT 1000) RETURNING id"
    )
    lent = {"lease": lease["lease_id"], "until": now + timedelta(minutes=5)}
    seen: list[tuple[str, Any]] = []
    async with fresh.begin() as conn:
        ids = list((await conn.execute(lend, lent)).scalars())
        event.listen(
            conn.sync_connection,
            "before_cursor_execute",
            lambda _c, _k, sql, values, *_: seen.append((sql, values)),
        )
        match what:
            case "begin":
                await outbox_leases.begin(conn, t, META, ids, until=lent["until"], **lease)
            case "settle":
                await outbox_leases.settle(conn, t, META, dict.fromkeys(ids, DONE), **lease)
            case _:
                await getattr(outbox_leases, what)(conn, t, META, ids, **lease)
        await conn.execute(lend, lent)
        explained = await conn.exec_driver_sql(f"EXPLAIN ANALYZE {seen[0][0]}", seen[0][1])
        plan = "\n".join(row[0] for row in explained)

    removed = [int(number) for number in re.findall(r"Rows Removed by \w+(?: \w+)*: (\d+)", plan)]
    assert "Index Scan using dispatches_pkey" in plan, plan
    assert "rows=1000.00" in plan, plan
    assert sum(removed) < 1_000, plan
