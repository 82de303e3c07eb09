"""
Visitors, identities, merges, sessions and events: what a batch writes after its plan.

A batch costs the same number of statements whatever its size, and fewer when it tells nothing new of anybody. Rows travel as one JSON
text per statement and are taken apart by `json_to_recordset`, so a statement has one parameter and any number of rows. Of most
visitors and visits only what counts and what was last changes: these are written without the rest of their row.

Locks, in this order, so that no two batches can wait for each other in a circle:
receipts (inserted sorted by hit) → visitors (locked sorted by id, `store.people`) → identities (inserted sorted by kind and value)
→ conversions, which are their own receipts. Whoever loses a race for an identity or a conversion rolls back to before the visitors
and decides again (`Stale`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import Table, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.conversions import KINDS
from goodanalytics.core.hits import Hit
from goodanalytics.core.identity_rows import MergeRow
from goodanalytics.core.people import People
from goodanalytics.core.plan import Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.errors import Busy
from goodanalytics.migrations import days
from goodanalytics.store import counting, late_clicks, link_days
from goodanalytics.store.columns import kind
from goodanalytics.store.database import Database, as_json, execute, fetch, is_passing
from goodanalytics.store.people import Stale, line
from goodanalytics.store.tables import Tables

T = TypeVar("T")


async def receive(
    conn: AsyncConnection, t: Tables, hits: Sequence[Hit]
) -> dict[tuple[UUID, UUID], str | None]:
    """
    Note the ids of *hits*, and say which were here before.

    Returns:
        For each (workspace, id) that is a repetition: the digest that was noted then. A hit that repeats another of the
        same batch is the caller's to find.
    """
    try:
        repeated = await fetch(
            conn,
            _receive(t.receipts),
            [h.workspace_id for h in hits],
            [h.id for h in hits],
            [h.digest for h in hits],
        )
    except IntegrityError as error:
        raise turned(error) from error
    if not repeated:
        return {}
    workspaces, ids = zip(*sorted({(row[0], row[1]) for row in repeated}), strict=True)
    noted = await fetch(
        conn,
        "SELECT k.workspace_id, k.hit_id, r.digest FROM unnest($1::uuid[], $2::uuid[]) AS k (workspace_id, hit_id), "
        f"LATERAL (SELECT r.digest FROM {t.receipts} r "
        "WHERE r.workspace_id = k.workspace_id AND r.hit_id = k.hit_id OFFSET 0) AS r",
        list(workspaces),
        list(ids),
    )
    return {(workspace_id, hit_id): digest for workspace_id, hit_id, digest in noted}


def turned(error: IntegrityError) -> Exception:
    """What a receipt that could not be written says; *error* itself when it is about something else."""
    if days.CLOSED not in str(error.orig):
        return error
    return Busy(
        "The day of receipts was turned while this transaction was open. In READ COMMITTED that goes unnoticed; in the "
        "host's isolation level, run the transaction again"
    )


@lru_cache(maxsize=256)
def _receive(receipts: Table) -> str:
    """
    Write into the open day what is in none of the closed ones; `migrations/days.py` says why that is exact.

    Gives the ids that were not written.
    """
    return (
        f"WITH open AS MATERIALIZED ({days.OPEN_DAY.format(schema=receipts.schema)}), "
        "r AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS r (workspace_id, hit_id, digest)), "
        "known AS MATERIALIZED (SELECT b.workspace_id, k.hit_id "
        "FROM (SELECT workspace_id, array_agg(hit_id) AS ids FROM r GROUP BY workspace_id) AS b, "
        # OFFSET keeps it from becoming a join, which would read days whole while they look small. An array asks each index
        # once for a whole batch, which costs nearly nothing where ids are in the order of time.
        f"LATERAL (SELECT k.hit_id FROM {receipts} k "
        "WHERE k.workspace_id = b.workspace_id AND k.hit_id = ANY(b.ids) AND k.day < (SELECT day FROM open) OFFSET 0) AS k), "
        f"written AS (INSERT INTO {receipts} (workspace_id, hit_id, day, digest) "
        "SELECT workspace_id, hit_id, day, digest FROM r, open "
        "WHERE (workspace_id, hit_id) NOT IN (SELECT workspace_id, hit_id FROM known) "
        "ORDER BY workspace_id, hit_id ON CONFLICT DO NOTHING RETURNING workspace_id, hit_id) "
        "SELECT workspace_id, hit_id FROM r WHERE (workspace_id, hit_id) NOT IN (SELECT workspace_id, hit_id FROM written)"
    )


ATTEMPTS = 8
"""How often a change of people is begun again when others are faster; each time at least one of them got through."""


async def again(database: Database, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """
    What *act* gives, in a transaction that is begun again when it lost to another one.

    Raises:
        Busy: It lost `ATTEMPTS` times.
    """
    for attempt in range(ATTEMPTS):
        try:
            async with database.begin() as conn, line(conn, database.tables, attempt):
                return await act(conn)
        except Stale:
            continue
        except DBAPIError as error:
            if not is_passing(error):
                raise
    raise Busy(f"Others changed the same visitors {ATTEMPTS} times meanwhile. Try again")


async def apply(conn: AsyncConnection, t: Tables, people: People, plan: Plan, now: datetime) -> None:
    """
    Write everything that a batch changes; *now* tells which days of links are over.

    Raises:
        Stale: Another batch bound one of the identities first.
    """
    bound = await _write(
        conn,
        f"{insert(t.identities)} ORDER BY workspace_id, kind, value ON CONFLICT DO NOTHING",
        people.identities,
    )
    if bound != len(people.identities):
        raise Stale
    if people.moved:
        await _hand_over(conn, t, people)
    visitors, counted = counting.visitors_apart((plan.visitor_before(row), row) for row in plan.visitors)
    await record_visitors(conn, t, visitors)
    await _write(conn, counting.update_of(t.visitors, counting.OF_VISITOR), counted)
    await _write(conn, counting.update_of(t.visitors, ("canonical_id", "external_id")), plan.members)
    await record_merges(conn, t, people.merges)
    await _write(conn, f"{insert(t.conflicts)} ON CONFLICT DO NOTHING", list(people.conflicts.values()))
    sessions, going_on = counting.sessions_apart((plan.session_before(row), row) for row in plan.sessions)
    await record_sessions(conn, t, sessions)
    await _write(conn, counting.update_of(t.sessions, counting.OF_SESSION), going_on)
    await record_events(conn, t, plan)
    await late_clicks.catch_up(conn, t, people, plan.caught_up, now)
    await link_days.touch(conn, t, plan.events, now)
    if people.merges:
        await link_days.touch_people(conn, t, plan.joined)


async def _hand_over(conn: AsyncConnection, t: Tables, people: People) -> None:
    """
    Let browsers point to those who signed in on them, and note whom they pointed to.

    Raises:
        Stale: Another batch was faster.
    """
    rows = [
        {**msgspec.structs.asdict(row), "before": before} for _, (row, before) in sorted(people.moved.items())
    ]
    kinds = ", ".join(f"{c.name} {kind(c)}" for c in t.identities.c)
    changed = await _write(
        conn,
        f"UPDATE {t.identities} i SET visitor_id = r.visitor_id, hit_id = r.hit_id, first_seen_at = r.first_seen_at, "
        f"shared_at = r.shared_at FROM json_to_recordset($1::text::json) AS r ({kinds}, before uuid) "
        "WHERE (i.workspace_id, i.kind, i.value, i.visitor_id) = (r.workspace_id, r.kind, r.value, r.before)",
        rows,
    )
    if changed != len(rows):
        raise Stale
    await _write(conn, f"{insert(t.former_identities)} ON CONFLICT DO NOTHING", people.former)


async def record_visitors(conn: AsyncConnection, t: Tables, rows: Sequence[Visitor]) -> None:
    """Write *rows* of visitors, new and changed. Their locks are ours since they were read."""
    await _write(conn, upsert(t.visitors), rows)


async def record_merges(conn: AsyncConnection, t: Tables, rows: Sequence[MergeRow]) -> None:
    """Add *rows* to the ledger of merges."""
    await _write(conn, insert(t.merges), rows)


async def record_sessions(conn: AsyncConnection, t: Tables, rows: Sequence[Session]) -> None:
    """Write *rows* of visits, new and changed; their visitor's lock guards them."""
    await _write(conn, upsert(t.sessions), rows)


async def record_events(conn: AsyncConnection, t: Tables, plan: Plan) -> None:
    """Add the events of *plan*. Receipts have seen to it that each is new; of a conversion, its row will (`conversions.record`)."""
    has_conversions = any(event["event_type"] in KINDS for event in plan.events)
    known = "ON CONFLICT DO NOTHING" if has_conversions else ""
    await _write(conn, f"{insert(t.events)} {known}", plan.events)


async def _write(conn: AsyncConnection, sql: str, rows: Sequence[Any]) -> int:
    """Run *sql* with *rows* as one JSON text, if there are any; how many rows it touched."""
    return await execute(conn, sql, as_json(rows)) if rows else 0


def columns(table: Table) -> list[str]:
    """The columns of *table*, each with its type, as `json_to_recordset` wants them."""
    return [f'"{column.name}" {kind(column)}' for column in table.c]


@lru_cache(maxsize=256)
def insert(table: Table, condition: str = "", rows: str = "$1::text::json") -> str:
    """`INSERT … SELECT …` from a JSON array, *rows*; clauses may follow."""
    names, kinds = ", ".join(f'"{column.name}"' for column in table.c), ", ".join(columns(table))
    source = f"json_to_recordset({rows}) AS r ({kinds}) {condition}"
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {source}"


@lru_cache(maxsize=256)
def upsert(table: Table, condition: str = "", rows: str = "$1::text::json") -> str:
    """The same, and what is there already is written over."""
    keys = ", ".join(column.name for column in table.primary_key)
    sets = ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.c if not c.primary_key)
    return f"{insert(table, condition, rows)} ON CONFLICT ({keys}) DO UPDATE SET {sets}"


async def find_session(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, session_id: UUID
) -> Session | None:
    """One visit by its id."""
    found = await conn.execute(
        select(t.sessions).where(t.sessions.c.workspace_id == workspace_id, t.sessions.c.id == session_id)
    )
    row: Any = found.one_or_none()
    return None if row is None else Session(**row._mapping)
