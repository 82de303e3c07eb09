"""
Visitors, identities, merges, sessions and events: what a batch reads before and writes after its plan.

A batch costs the same number of statements whatever its size, and fewer when it tells nothing new of anybody. Rows travel as one JSON text per statement and are taken
apart by `json_to_recordset`, so a statement has one parameter and any number of rows.

Locks, in this order, so that no two batches can wait for each other in a circle:
receipts (inserted sorted by hit) → visitors (locked sorted by id) → identities (inserted sorted by kind and value).
Whoever loses a race for an identity rolls back to before the visitors and decides again (`Stale`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import Table, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import TextualSelect

from goodanalytics.core.hits import Hit
from goodanalytics.core.identity import Identifier
from goodanalytics.core.people import ClickFacts, IdentityRow, MergeRow, State
from goodanalytics.core.plan import Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.sources import Source
from goodanalytics.core.tombstones import Graveyard
from goodanalytics.core.visitors import Visitor
from goodanalytics.errors import Busy
from goodanalytics.migrations import days
from goodanalytics.store import told
from goodanalytics.store.database import Database, as_json, is_passing, run
from goodanalytics.store.tables import Tables
from goodanalytics.store.told import Evidence

T = TypeVar("T")


class Stale(Exception):
    """Not an error: somebody else was faster. The state that a plan was made from is no longer what the database holds."""


async def receive(
    conn: AsyncConnection, t: Tables, hits: Sequence[Hit]
) -> dict[tuple[UUID, UUID], str | None]:
    """
    Note the ids of *hits*, and say which were here before.

    Returns:
        For each (workspace, id) that is a repetition: the digest that was noted then. A hit that repeats another of the
        same batch is the caller's to find.
    """
    rows = [{"workspace_id": h.workspace_id, "hit_id": h.id, "digest": h.digest} for h in hits]
    try:
        taken = await run(conn, _receive(t.receipts), rows=as_json(rows))
    except IntegrityError as error:
        raise turned(error) from error
    repeated = {(h.workspace_id, h.id) for h in hits} - {(row.workspace_id, row.hit_id) for row in taken}
    if not repeated:
        return {}
    workspaces, ids = zip(*sorted(repeated), strict=True)
    noted = await run(
        conn,
        "SELECT k.workspace_id, k.hit_id, r.digest "
        "FROM unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, hit_id), "
        f"LATERAL (SELECT r.digest FROM {t.receipts} r "
        "WHERE r.workspace_id = k.workspace_id AND r.hit_id = k.hit_id OFFSET 0) AS r",
        workspaces=list(workspaces),
        ids=list(ids),
    )
    return {(row.workspace_id, row.hit_id): row.digest for row in noted}


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
    """Write into the open day what is in none of the closed ones; `migrations/days.py` says why that is exact."""
    return (
        f"WITH open AS MATERIALIZED ({days.OPEN_DAY.format(schema=receipts.schema)}), "
        "r AS MATERIALIZED (SELECT * FROM json_to_recordset(CAST(:rows AS json)) "
        "AS r (workspace_id uuid, hit_id uuid, digest text)), "
        "known AS MATERIALIZED (SELECT b.workspace_id, k.hit_id "
        "FROM (SELECT workspace_id, array_agg(hit_id) AS ids FROM r GROUP BY workspace_id) AS b, "
        # OFFSET keeps it from becoming a join, which would read days whole while they look small. An array asks each index
        # once for a whole batch, which costs nearly nothing where ids are in the order of time.
        f"LATERAL (SELECT k.hit_id FROM {receipts} k "
        "WHERE k.workspace_id = b.workspace_id AND k.hit_id = ANY(b.ids) AND k.day < (SELECT day FROM open) OFFSET 0) AS k) "
        f"INSERT INTO {receipts} (workspace_id, hit_id, day, digest) "
        "SELECT workspace_id, hit_id, day, digest FROM r, open "
        "WHERE (workspace_id, hit_id) NOT IN (SELECT workspace_id, hit_id FROM known) "
        "ORDER BY workspace_id, hit_id ON CONFLICT DO NOTHING RETURNING workspace_id, hit_id"
    )


async def withdraw(conn: AsyncConnection, t: Tables, hits: Sequence[Hit]) -> None:
    """Take back what `receive` noted of *hits* in this transaction: they were refused, and may come again."""
    await run(
        conn,
        f"DELETE FROM {t.receipts} r USING unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) "
        "AS k (workspace_id, hit_id) WHERE r.workspace_id = k.workspace_id AND r.hit_id = k.hit_id",
        workspaces=[h.workspace_id for h in hits],
        ids=[h.id for h in hits],
    )


ATTEMPTS = 8
"""How often a change of people is begun again when others are faster; each time at least one of them got through."""


async def again(database: Database, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """
    What *act* gives, in a transaction that is begun again when it lost to another one.

    Raises:
        Busy: It lost `ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS):
        try:
            async with database.begin() as conn:
                return await act(conn)
        except Stale:
            continue
        except DBAPIError as error:
            if not is_passing(error):
                raise
    raise Busy(f"Others changed the same visitors {ATTEMPTS} times meanwhile. Try again")


async def load(
    conn: AsyncConnection,
    t: Tables,
    evidence: Sequence[Evidence],
    span: tuple[datetime, datetime],
    silence: timedelta,
    graveyard: Graveyard | None = None,
) -> State:
    """
    Read, and lock, all that a batch can touch.

    Args:
        evidence: Of all hits.
        span: First and last time of the batch; visits that end before or begin after it, by *silence*, stay away.
        graveyard: Recognises the values of erased people; without it nobody is recognised.

    Raises:
        Stale: A visitor was merged while we waited for its lock.
    """
    identities = await _identities(
        conn, t, list(dict.fromkeys((e.workspace_id, i) for e in evidence for i in e.identifiers))
    )
    named = {(row.workspace_id, row.visitor_id) for row in identities.values()}
    named |= {(e.workspace_id, e.visitor_id) for e in evidence if e.visitor_id is not None}
    visitors = await lock_persons(conn, t, list(named))
    if any((row.workspace_id, row.visitor_id) not in visitors for row in identities.values()):
        raise Stale
    state = State(
        identities=identities,
        visitors=visitors,
        sessions=await _sessions(conn, t, list(visitors), span, silence),
        clicks=await _clicks(conn, t, [row for row in identities.values() if row.kind == "click"]),
    )
    await told.add_ledger(conn, t, state, evidence)
    if graveyard is not None:
        await told.add_tombstones(conn, t, state, evidence, graveyard)
    return state


async def _identities(
    conn: AsyncConnection, t: Tables, identifiers: Sequence[tuple[UUID, Identifier]]
) -> dict[tuple[UUID, str, str], IdentityRow]:
    if not identifiers:
        return {}
    rows = [{"workspace_id": w, "kind": str(i.kind), "value": i.value} for w, i in identifiers]
    # A click is asked for together with who landed with it.
    rows += [{**row, "kind": "landing"} for row in rows if row["kind"] == "click"]
    found = await conn.execute(
        _typed(
            f"SELECT i.* FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, kind text, value text) "
            f"JOIN {t.identities} i USING (workspace_id, kind, value)",
            t.identities,
        ),
        {"rows": as_json(rows)},
    )
    names = tuple(found.keys())
    rows_found = [IdentityRow(**dict(zip(names, row, strict=True))) for row in found]
    return {(row.workspace_id, row.kind, row.value): row for row in rows_found}


async def lock_persons(
    conn: AsyncConnection, t: Tables, named: Sequence[tuple[UUID, UUID]]
) -> dict[tuple[UUID, UUID], Visitor]:
    """
    Every row of every person that one of the *named* rows belongs to, locked in the order of their ids.

    Raises:
        Stale: A merge was committed while we waited: rows that we did not lock belong to these persons now.
    """
    if not named:
        return {}
    workspaces, ids = zip(*named, strict=True)
    values = {"workspaces": list(workspaces), "ids": list(ids)}
    persons = (
        f"FROM {t.visitors} v WHERE (v.workspace_id, v.canonical_id) IN ("
        f"SELECT m.workspace_id, m.canonical_id FROM {t.visitors} m "
        "JOIN unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, id) USING (workspace_id, id)"
        ") "
    )
    locked = await run(
        conn, f"SELECT v.workspace_id, v.id {persons} ORDER BY v.workspace_id, v.id FOR UPDATE", **values
    )
    # A statement that waits for a lock goes on with what it saw before it waited: it drops a row that was given to another
    # person meanwhile, and does not see those that came to ours. The next statement sees both, and holds the locks.
    found = await conn.execute(_typed(f"SELECT v.* {persons}", t.visitors), values)
    names = tuple(found.keys())
    rows = [Visitor(**dict(zip(names, row, strict=True))) for row in found]
    visitors = {(row.workspace_id, row.id): row for row in rows}
    if visitors.keys() != {(r.workspace_id, r.id) for r in locked}:
        raise Stale
    return visitors


async def _sessions(
    conn: AsyncConnection,
    t: Tables,
    visitors: Sequence[tuple[UUID, UUID]],
    span: tuple[datetime, datetime],
    silence: timedelta,
) -> list[Session]:
    if not visitors:
        return []
    workspaces, ids = zip(*visitors, strict=True)
    found = await conn.execute(
        _typed(
            f"SELECT s.* FROM unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, visitor_id) "
            f"JOIN {t.sessions} s USING (workspace_id, visitor_id) "
            "WHERE s.last_event_at >= :since AND s.started_at <= :until",
            t.sessions,
        ),
        {
            "workspaces": list(workspaces),
            "ids": list(ids),
            "since": span[0] - silence,
            "until": span[1] + silence,
        },
    )
    return [Session(**r._mapping) for r in found]


async def _clicks(
    conn: AsyncConnection, t: Tables, clicks: Sequence[IdentityRow]
) -> dict[tuple[UUID, UUID], ClickFacts]:
    """Where the clicks came from. An identity knows its click's visitor and time, so this is a look-up by primary key."""
    if not clicks:
        return {}
    rows = [
        {
            "workspace_id": c.workspace_id,
            "visitor_id": c.visitor_id,
            "occurred_at": c.first_seen_at,
            "id": c.hit_id,
        }
        for c in clicks
    ]
    found = await conn.execute(
        _typed(
            "SELECT e.workspace_id, e.id, e.acquisition, e.link_id FROM json_to_recordset(CAST(:rows AS json)) "
            "AS k (workspace_id uuid, visitor_id uuid, occurred_at timestamptz, id uuid) "
            f"JOIN {t.events} e USING (workspace_id, visitor_id, occurred_at, id) WHERE e.event_type = 'link_click'",
            t.events,
            only=("workspace_id", "id", "acquisition", "link_id"),
        ),
        {"rows": as_json(rows)},
    )
    return {(r.workspace_id, r.id): ClickFacts(Source.from_json(r.acquisition), r.link_id) for r in found}


async def apply(conn: AsyncConnection, t: Tables, plan: Plan) -> None:
    """
    Write everything that *plan* changes.

    Raises:
        Stale: Another batch bound one of the identities first.
    """
    if plan.identities:
        bound = await conn.execute(
            text(f"{insert(t.identities)} ORDER BY workspace_id, kind, value ON CONFLICT DO NOTHING"),
            {"rows": as_json(plan.identities)},
        )
        if bound.rowcount != len(plan.identities):
            raise Stale
    if plan.moved:
        await _hand_over(conn, t, plan)
    await record_visitors(conn, t, plan.visitors)
    await record_merges(conn, t, plan.merges)
    if plan.conflicts:
        await conn.execute(
            text(f"{insert(t.conflicts)} ON CONFLICT DO NOTHING"),
            {"rows": as_json(list(plan.conflicts.values()))},
        )
    await record_sessions(conn, t, plan.sessions)
    await record_events(conn, t, plan)


async def _hand_over(conn: AsyncConnection, t: Tables, plan: Plan) -> None:
    """
    Let browsers point to those who signed in on them, and note whom they pointed to.

    Raises:
        Stale: Another batch was faster.
    """
    rows = [{**msgspec.structs.asdict(row), "before": before} for row, before in plan.moved]
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    kinds = ", ".join(f"{c.name} {c.type.compile(dialect)}" for c in t.identities.c)
    changed = await run(
        conn,
        f"UPDATE {t.identities} i SET visitor_id = r.visitor_id, hit_id = r.hit_id, first_seen_at = r.first_seen_at, "
        f"shared_at = r.shared_at FROM json_to_recordset(CAST(:rows AS json)) AS r ({kinds}, before uuid) "
        "WHERE (i.workspace_id, i.kind, i.value, i.visitor_id) = (r.workspace_id, r.kind, r.value, r.before)",
        rows=as_json(rows),
    )
    if changed.rowcount != len(rows):
        raise Stale
    await conn.execute(
        text(f"{insert(t.former_identities)} ON CONFLICT DO NOTHING"), {"rows": as_json(plan.former)}
    )


async def record_visitors(conn: AsyncConnection, t: Tables, rows: Sequence[Visitor]) -> None:
    """Write *rows* of visitors, new and changed. Their locks are ours since `load`."""
    if rows:
        await conn.execute(text(upsert(t.visitors)), {"rows": as_json(rows)})


async def record_merges(conn: AsyncConnection, t: Tables, rows: Sequence[MergeRow]) -> None:
    """Add *rows* to the ledger of merges."""
    if rows:
        await conn.execute(text(insert(t.merges)), {"rows": as_json(rows)})


async def record_sessions(conn: AsyncConnection, t: Tables, rows: Sequence[Session]) -> None:
    """Write *rows* of visits, new and changed; their visitor's lock guards them."""
    if rows:
        await conn.execute(text(upsert(t.sessions)), {"rows": as_json(rows)})


async def record_events(conn: AsyncConnection, t: Tables, plan: Plan) -> None:
    """Add the events of *plan*. Receipts have seen to it that each is new."""
    if plan.events:
        await conn.execute(text(insert(t.events)), {"rows": as_json(plan.events)})


def columns(table: Table) -> list[str]:
    """The columns of *table*, each with its type, as `json_to_recordset` wants them."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    return [f'"{column.name}" {column.type.compile(dialect)}' for column in table.c]


@lru_cache(maxsize=256)
def insert(table: Table, condition: str = "") -> str:
    """`INSERT … SELECT …` from a JSON array of rows in the parameter `rows`; clauses may follow."""
    names, kinds = ", ".join(f'"{column.name}"' for column in table.c), ", ".join(columns(table))
    rows = f"json_to_recordset(CAST(:rows AS json)) AS r ({kinds}) {condition}"
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {rows}"


@lru_cache(maxsize=256)
def upsert(table: Table, condition: str = "WHERE true") -> str:
    """The same, and what is there already is written over. Without a condition `ON CONFLICT` would be read as a join's."""
    keys = ", ".join(column.name for column in table.primary_key)
    sets = ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.c if not c.primary_key)
    return f"{insert(table, condition)} ON CONFLICT ({keys}) DO UPDATE SET {sets}"


@lru_cache(maxsize=256)
def _typed(sql: str, table: Table, *, only: tuple[str, ...] | None = None) -> TextualSelect:
    """*sql* whose result columns have the types of *table*'s."""
    return text(sql).columns(*(c for c in table.c if only is None or c.name in only))


async def find_session(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, session_id: UUID
) -> Session | None:
    """One visit by its id."""
    found = await conn.execute(
        select(t.sessions).where(t.sessions.c.workspace_id == workspace_id, t.sessions.c.id == session_id)
    )
    row: Any = found.one_or_none()
    return None if row is None else Session(**row._mapping)
