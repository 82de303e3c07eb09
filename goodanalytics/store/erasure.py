"""
Forgetting a person: everything that they did, and everything that could tell who they were.

What goes, of all rows that are this person: events, visits, visitors, the values that point or pointed to them, the ledger's
rows, conflicts, what conversions say and what is queued or kept of them for platforms, by whom they were referred, their hits in the
log and among the rejected. What stays: tombstones (`core.tombstones`), so that their cookie does not bring them back; receipts and
emptied conversions, which are ids of hits; what partners earned with them, as amounts that lead to nobody; and a row in the audit that counts what went.

Copies that the host made (an export, a backup, an ad platform) are the host's to erase.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Table, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core import raw
from goodanalytics.core.identity import Kind, normal_email, normal_phone
from goodanalytics.core.tombstones import Graveyard
from goodanalytics.errors import NotFound
from goodanalytics.store import audit, commissions, conversion_keys, link_days, outbox
from goodanalytics.store.database import as_json, run
from goodanalytics.store.people import lock_persons
from goodanalytics.store.tables import Tables

BATCH: Final = 1_000  # hits of the log that are looked into at a time
SHORTEST_SOUGHT: Final = 6
"""Characters from which on a value is looked for in bytes that nobody can read; shorter ones are found by chance."""

Value = tuple[str, str]
"""A kind and a value of it."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """
    What was erased, as numbers of rows.

    Attributes:
        visitor_id: What the person was known as.
        hits: Of the log and of the rejected ones.
        tombstones: Values that are recognised from now on.
    """

    visitor_id: UUID
    visitors: int
    events: int
    sessions: int
    identities: int
    hits: int
    tombstones: int

    def to_json(self) -> dict[str, Any]:
        """As REST shows it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"visitor_id": str(self.visitor_id)}


async def forget(
    conn: AsyncConnection,
    t: Tables,
    graveyard: Graveyard,
    *,
    workspace_id: UUID,
    visitor_id: UUID,
    note_id: UUID,
    reason: str,
    actor: str | None,
    now: datetime,
) -> Forgotten:
    """
    Erase the person that *visitor_id*, any member's, belongs to.

    Raises:
        NotFound: Nobody has the id.
        Stale: Somebody else changed the person meanwhile.
    """
    rows = await lock_persons(conn, t, [(workspace_id, visitor_id)])
    if not rows:
        raise NotFound(f"There is no visitor {visitor_id} in workspace {workspace_id}")
    members = sorted(row.id for row in rows.values())
    person = rows[workspace_id, visitor_id].canonical_id
    values = await _values_of(conn, t, workspace_id, members)
    for row in rows.values():
        values |= {(str(kind), value) for kind, value in _names(row) if value}
    hits = [await _clear_log(conn, table, workspace_id, values) for table in (t.hits, t.rejected_hits)]
    await outbox.erase(conn, t, workspace_id, members)
    await conversion_keys.forget(conn, t, workspace_id, members, now)
    await link_days.touch_people(conn, t, {(workspace_id, member) for member in members})
    await commissions.forget(conn, t, workspace_id, members)
    gone = await _drop_rows(conn, t, workspace_id, members)
    digests = {graveyard.digests(workspace_id, kind, value)[0] for kind, value in values}
    await _bury(conn, t, workspace_id, digests, now)
    erased = Forgotten(
        visitor_id=person,
        visitors=gone["visitors"],
        events=gone["events"],
        sessions=gone["sessions"],
        identities=gone["identities"],
        hits=sum(hits),
        tombstones=len(digests),
    )
    await audit.note(
        conn, t, workspace_id=workspace_id, note_id=note_id, at=now, actor=actor, action="visitors.forget",
        subject=str(person), reason=reason, details=erased.to_json(),
    )  # fmt: skip
    return erased


def _names(row: Any) -> list[tuple[Kind, str | None]]:
    """What a row says about its person; not all of it needs to be bound as evidence."""
    return [
        (Kind.EXTERNAL_ID, row.external_id),
        (Kind.EMAIL, normal_email(row.email)),
        (Kind.PHONE, normal_phone(row.phone)),
    ]


async def _values_of(conn: AsyncConnection, t: Tables, workspace_id: UUID, members: list[UUID]) -> set[Value]:
    """What points or pointed to *members* and to nobody else today: by these they would be recognised."""
    values = {(str(Kind.VISITOR), str(member)) for member in members}
    for table in (t.identities, t.former_identities):
        found = await conn.execute(
            select(table.c.kind, table.c.value).where(
                table.c.workspace_id == workspace_id, table.c.visitor_id.in_(members)
            )
        )
        # A fingerprint may be many people's: it goes with the row, and nobody is recognised by it.
        values |= {(row.kind, row.value) for row in found if row.kind not in (Kind.LANDING, Kind.FINGERPRINT)}
    return values - await _held_by_others(conn, t, workspace_id, values, members)


async def _held_by_others(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, values: Collection[Value], members: list[UUID]
) -> set[Value]:
    """The values that point to somebody else today, such as a browser that changed hands: they go on living."""
    i = t.identities.c
    found = await conn.execute(
        select(i.kind, i.value).where(
            i.workspace_id == workspace_id,
            i.value.in_([value for _, value in values]),
            i.visitor_id.not_in(members),
        )
    )
    return {(row.kind, row.value) for row in found} & set(values)


async def _drop_rows(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, members: list[UUID]
) -> dict[str, int]:
    """Delete what *members* did and what says who they are; how many rows, by table."""
    gone: dict[str, int] = {}
    for table in (t.events, t.sessions, t.identities, t.former_identities, t.referrals):
        gone[table.name] = await _drop(conn, table, workspace_id, table.c.visitor_id.in_(members))
    for table, one, other in (
        (t.merges, "loser_member_id", "winner_member_id"),
        (t.conflicts, "visitor_id", "other_id"),
    ):
        await _drop(conn, table, workspace_id, or_(table.c[one].in_(members), table.c[other].in_(members)))
    gone["visitors"] = await _drop(conn, t.visitors, workspace_id, t.visitors.c.id.in_(members))
    return gone


async def _drop(conn: AsyncConnection, table: Table, workspace_id: UUID, condition: Any) -> int:
    result = await conn.execute(delete(table).where(table.c.workspace_id == workspace_id, condition))
    return result.rowcount


async def _bury(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, digests: Collection[str], now: datetime
) -> None:
    """Write the tombstones by which the erased are recognised from *now* on."""
    await run(
        conn,
        f"INSERT INTO {t.tombstones} (workspace_id, digest, forgotten_at) SELECT workspace_id, digest, forgotten_at "
        "FROM json_to_recordset(CAST(:rows AS json)) AS r (workspace_id uuid, digest text, forgotten_at timestamptz) "
        "ON CONFLICT (workspace_id, digest) DO UPDATE SET forgotten_at = excluded.forgotten_at",
        rows=as_json(
            [{"workspace_id": workspace_id, "digest": d, "forgotten_at": now} for d in sorted(digests)]
        ),
    )


async def _clear_log(conn: AsyncConnection, table: Table, workspace_id: UUID, values: set[Value]) -> int:
    """
    Delete the hits of *table* that point with one of *values*; how many those were.

    A hit that a worker has in hand is left to it: either it is processed before us and goes with the events, or it waits for us
    and is then dropped by its tombstone.
    """
    sought = [value.encode() for _, value in values if len(value) >= SHORTEST_SOUGHT]
    deleted, after = 0, UUID(int=0)
    while True:
        found = (
            await run(
                conn,
                f"SELECT id, body FROM {table} WHERE id > :after ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED",
                after=after,
                most=BATCH,
            )
        ).all()
        if not found:
            return deleted
        ids = [row.id for row in found if _points_to(row.body, workspace_id, values, sought)]
        if ids:
            await run(conn, f"DELETE FROM {table} WHERE id = ANY(CAST(:ids AS uuid[]))", ids=ids)
        deleted += len(ids)
        after = found[-1].id


def _points_to(body: bytes, workspace_id: UUID, values: set[Value], sought: list[bytes]) -> bool:
    hit = raw.decoded(body)
    if hit is None:
        # Nobody can read it, so whatever looks like the person goes.
        return any(value in body for value in sought)
    if hit.workspace_id != workspace_id:
        return False
    s = hit.signals
    said = {
        (Kind.VISITOR, s.visitor_id),
        (Kind.ANONYMOUS_ID, s.anonymous_id),
        (Kind.CLICK, s.click_id),
        (Kind.EXTERNAL_ID, s.external_id),
        (Kind.EMAIL, normal_email(s.email)),
        (Kind.PHONE, normal_phone(s.phone)),
    }
    return any((str(kind), str(value)) in values for kind, value in said if value is not None)


__all__ = ["Forgotten", "forget"]
