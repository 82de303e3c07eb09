"""
Reading and locking the people that a batch points to: who is who, and nothing of what they did.

A batch is resolved by one statement, whatever its size. It finds the rows that values point to and all rows of their persons, and
locks these in the order of their ids, so that no two batches wait for each other in a circle.

A statement that waits for a lock goes on with what it saw before it waited. So each locked row is compared with what the
statement saw of it: whoever lets a person grow writes a row of that person too (`People.join`), so where no row is another
version now, nobody has come or gone. Where one is, a second statement, which sees what is committed and holds the locks, tells who
is there; if these are others than we locked, the batch begins again (`Stale`).
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.identity import Kind
from goodanalytics.core.identity_rows import IdentityRow, Member, RowKey, State
from goodanalytics.core.tombstones import Graveyard
from goodanalytics.core.visitors import Visitor
from goodanalytics.store import told
from goodanalytics.store.database import fetch
from goodanalytics.store.history import as_visitor, visitor_columns
from goodanalytics.store.tables import Tables
from goodanalytics.store.told import Evidence


class Stale(Exception):
    """Not an error: somebody else was faster. The state that a plan was made from is no longer what the database holds."""


_patient: ContextVar[bool] = ContextVar(
    "whether we are in line and need not give up our locks", default=False
)

EXTENSIONS = 8
"""How often somebody in line locks those who came meanwhile; after the first time nobody can come to whom it holds."""


@asynccontextmanager
async def line(conn: AsyncConnection, t: Tables, attempt: int) -> AsyncIterator[None]:
    """
    From the second *attempt* on, wait until nobody else who lost is deciding again, and let nobody else until *conn* commits.

    Many who come to one person at once overtake each other for as long as they all run. Those who lost go one after the other,
    and keep the locks that they have while they lock who came meanwhile: that is safe for one at a time only, since two could
    wait for each other.

    Not to be used inside the savepoint that is undone for another attempt, which would give the place away.
    """
    if not attempt:
        yield
        return
    space = zlib.crc32(f"goodanalytics people {t.schema}".encode()) - 2**31
    await fetch(conn, "SELECT pg_advisory_xact_lock($1, 0)", space)
    token = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(token)


async def load(
    conn: AsyncConnection, t: Tables, evidence: Sequence[Evidence], graveyard: Graveyard | None = None
) -> State:
    """
    Read, and lock, everybody whom a batch points to.

    Args:
        evidence: Of all hits.
        graveyard: Recognises the values of erased people; without it nobody is recognised.

    Raises:
        Stale: People were merged or taken apart while we waited for their locks.
    """
    asked: dict[tuple[UUID, str, str], None] = {}
    named: dict[RowKey, None] = {}
    for one in evidence:
        for identifier in one.identifiers:
            asked[one.workspace_id, identifier.kind, identifier.value] = None
            if identifier.kind is Kind.CLICK:  # is asked for together with who landed with it
                asked[one.workspace_id, Kind.LANDING, identifier.value] = None
        if one.visitor_id is not None:
            named[one.workspace_id, one.visitor_id] = None
    state = await _locked(conn, t, asked, named.keys()) if asked or named else State()
    if anew := told.told_anew(state, evidence):
        await told.add_ledger(conn, t, state, anew)
        if graveyard is not None:
            await told.add_tombstones(conn, t, state, anew, graveyard)
    return state


async def _locked(
    conn: AsyncConnection,
    t: Tables,
    asked: Iterable[tuple[UUID, str, str]],
    named: Collection[RowKey],
) -> State:
    values = (*_columns(asked, 3), *_columns(named, 2))
    for _ in range(EXTENSIONS if _patient.get() else 1):
        state, is_unchanged = _state(await fetch(conn, _resolving(t), *values))
        if is_unchanged:
            return state
        locked = state.members.keys()
        pointed = {(row.workspace_id, row.visitor_id) for row in state.identities.values()}
        state.members = {
            (row[0], row[1]): Member(
                workspace_id=row[0], id=row[1], canonical_id=row[2], external_id=row[3], first_seen_at=row[4]
            )
            for row in await fetch(conn, _present(t), *_columns(pointed | set(named), 2))
        }
        if state.members.keys() == locked and pointed <= locked:
            return state
    raise Stale


def _state(found: Iterable[Any]) -> tuple[State, bool]:
    """What `_resolving` found, and whether all of it is what the statement saw before it waited for locks."""
    state = State()
    is_unchanged = True
    for (
        workspace_id, visitor_id, canonical_id, external_id, first_seen_at, is_same,
        kind, value, points_to, hit_id, since, shared_at,
    ) in found:  # fmt: skip
        if visitor_id is not None:
            state.members[workspace_id, visitor_id] = Member(
                workspace_id=workspace_id,
                id=visitor_id,
                canonical_id=canonical_id,
                external_id=external_id,
                first_seen_at=first_seen_at,
            )
        if is_same is not True:
            is_unchanged = False
        if kind is not None:
            state.identities[workspace_id, kind, value] = IdentityRow(
                workspace_id=workspace_id,
                kind=kind,
                value=value,
                visitor_id=points_to,
                hit_id=hit_id,
                first_seen_at=since,
                shared_at=shared_at,
            )
    return state, is_unchanged


def _columns(rows: Iterable[tuple[Any, ...]], number: int) -> list[list[Any]]:
    """*rows* as one array for each of their *number* columns."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(number)]


@lru_cache(maxsize=64)
def _resolving(t: Tables) -> str:
    """
    Find by values and ids, lock, and say of each row whether it is what this statement saw of it.

    OFFSET keeps each look-up one of a whole key, whatever the planner believes of tables that are young or small. Nearly every
    value points to the row that names its person, so persons are looked for by the ids that values point to (`own`), and by the
    persons of these only where that finds nobody (`others`).
    """
    v = t.visitors
    return (
        "WITH i AS MATERIALIZED (SELECT i.* FROM unnest($1::uuid[], $2::text[], $3::text[]) AS k (workspace_id, kind, value), "
        f"LATERAL (SELECT i.* FROM {t.identities} i "
        "WHERE i.workspace_id = k.workspace_id AND i.kind = k.kind AND i.value = k.value OFFSET 0) AS i), "
        "n AS MATERIALIZED (SELECT workspace_id, visitor_id AS id FROM i UNION SELECT * FROM unnest($4::uuid[], $5::uuid[])), "
        "own AS MATERIALIZED (SELECT v.* FROM n, LATERAL (SELECT v.workspace_id, v.id, v.ctid AS place "
        f"FROM {v} v WHERE v.workspace_id = n.workspace_id AND v.canonical_id = n.id OFFSET 0) AS v), "
        "others AS MATERIALIZED (SELECT DISTINCT v.* FROM (SELECT * FROM n EXCEPT SELECT workspace_id, id FROM own) AS n, "
        f"LATERAL (SELECT m.canonical_id FROM {v} m WHERE m.workspace_id = n.workspace_id AND m.id = n.id OFFSET 0) AS m, "
        f"LATERAL (SELECT v.workspace_id, v.id, v.ctid AS place FROM {v} v WHERE v.workspace_id = n.workspace_id "
        "AND v.canonical_id = m.canonical_id OFFSET 0) AS v), "
        "r AS MATERIALIZED (SELECT * FROM own UNION ALL SELECT * FROM others ORDER BY 1, 2) "
        "SELECT coalesce(r.workspace_id, i.workspace_id), r.id, v.canonical_id, v.external_id, v.first_seen_at, v.same, "
        "i.kind, i.value, i.visitor_id, i.hit_id, i.first_seen_at, i.shared_at "
        "FROM r LEFT JOIN LATERAL (SELECT v.canonical_id, v.external_id, v.first_seen_at, v.ctid = r.place AS same "
        f"FROM {v} v WHERE v.ctid = r.place FOR UPDATE) AS v ON true "
        "FULL JOIN i ON i.workspace_id = r.workspace_id AND i.visitor_id = r.id"
    )


@lru_cache(maxsize=64)
def _present(
    t: Tables, columns: str = "v.workspace_id, v.id, v.canonical_id, v.external_id, v.first_seen_at"
) -> str:
    """All rows of the persons of $2 in the workspaces $1."""
    return (
        f"SELECT {columns} FROM {t.visitors} v WHERE (v.workspace_id, v.canonical_id) IN ("
        f"SELECT m.workspace_id, m.canonical_id FROM unnest($1::uuid[], $2::uuid[]) AS k (workspace_id, id) "
        f"JOIN {t.visitors} m USING (workspace_id, id))"
    )


async def lock_persons(conn: AsyncConnection, t: Tables, named: Sequence[RowKey]) -> dict[RowKey, Visitor]:
    """
    Every row of every person that one of the *named* rows belongs to, locked in the order of their ids.

    Raises:
        Stale: A merge was committed while we waited: rows that we did not lock belong to these persons now.
    """
    if not named:
        return {}
    values = _columns(named, 2)
    for _ in range(EXTENSIONS if _patient.get() else 1):
        locked = await fetch(
            conn, f"{_present(t, 'v.workspace_id, v.id')} ORDER BY v.workspace_id, v.id FOR UPDATE", *values
        )
        rows = await fetch(conn, _present(t, visitor_columns(t)), *values)
        visitors = {(row.workspace_id, row.id): row for row in map(as_visitor, rows)}
        if visitors.keys() == {tuple(row) for row in locked}:
            return visitors
    raise Stale
