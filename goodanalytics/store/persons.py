"""
Two people made one by the host, and one made two again.

Neither touches what anybody did. A merge is a row in the ledger and new canonical ids on the loser's rows: it costs the same for
ten events as for a hundred thousand. To undo one is to leave it out of the ledger and to work out the canonical ids anew
(`core.partition`).

The undone row stays, and keeps the two rows that it tied apart: the same evidence does not bring them together again at the next
hit. Only the host does, by merging them itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.identity_rows import MergeRow, RowKey
from goodanalytics.core.partition import partition
from goodanalytics.core.plan import SessionPolicy
from goodanalytics.core.reclassify import without
from goodanalytics.core.visitors import Visitor, fold
from goodanalytics.errors import Conflict, NotFound
from goodanalytics.store import audit, commissions, conversions, ledger, link_days, reclassify
from goodanalytics.store.database import run
from goodanalytics.store.people import lock_persons
from goodanalytics.store.tables import Tables

Tell = Callable[[AsyncConnection, list[conversions.Told]], Awaitable[None]]
"""Queues conversions for the ad platforms, in the transaction of the connection."""


async def merge(
    conn: AsyncConnection,
    t: Tables,
    *,
    config: Config,
    workspace_id: UUID,
    merge_id: UUID,
    one: UUID,
    other: UUID,
    reason: str,
    actor: str | None,
    force: bool,
    now: datetime,
    tell: Tell | None = None,
) -> Visitor:
    """
    Make the persons of two rows one, because the host says so; the person that they are.

    Args:
        tell: Queues the conversions that are adopted by it.

    Raises:
        NotFound: Nobody has one of the ids.
        Conflict: They are two people to the host, and *force* is not given.
        Stale: Somebody else changed them meanwhile.
    """
    rows = await lock_persons(conn, t, sorted({(workspace_id, one), (workspace_id, other)}))
    persons = {asked: _rows_of(rows, workspace_id, asked) for asked in (one, other)}
    if persons[one] == persons[other]:
        return _person(persons[one])
    if not force:
        _refuse_two_names(rows.values())
    winner, loser = sorted(persons, key=lambda v: min((row.first_seen_at, row.id) for row in persons[v]))
    row = MergeRow(
        workspace_id=workspace_id,
        id=merge_id,
        loser_id=rows[workspace_id, loser].canonical_id,
        winner_id=rows[workspace_id, winner].canonical_id,
        loser_member_id=loser,
        winner_member_id=winner,
        evidence={"matched": [], "said_by": "host", "force": force},
        hit_id=None,
        merged_at=now,
        actor=actor,
        reason=reason,
    )
    await ledger.record_merges(conn, t, [row])
    # The winner's own row too: who waits for it sees by that that the person has grown (`store.people`).
    await _move(
        conn, t, workspace_id, {r.id: row.winner_id for r in persons[loser]} | {row.winner_id: row.winner_id}
    )
    await commissions.resettle(conn, t, workspace_id, [winner], config.referral, now)
    await audit.note(
        conn, t, workspace_id=workspace_id, note_id=merge_id, at=now, actor=actor, action="visitors.merge",
        subject=str(row.winner_id), reason=reason, details={"loser_id": str(row.loser_id), "force": force},
    )  # fmt: skip
    merged = await lock_persons(conn, t, [(workspace_id, one)])
    told = await conversions.adopt(conn, t, [merged.keys()], now)
    if tell is not None:
        await tell(conn, told)
    return _person(list(merged.values()))


async def unmerge(
    conn: AsyncConnection,
    t: Tables,
    *,
    config: Config,
    workspace_id: UUID,
    merge_id: UUID,
    note_id: UUID,
    reason: str,
    actor: str | None,
    now: datetime,
    of: UUID | None = None,
) -> tuple[Visitor, Visitor]:
    """
    Take a merge back: the two persons that it was made of, the one that was the winner first.

    Everything reads as if it had never been. Where a hit from the host's servers joined a visit that the other person was
    on, those visits are counted anew; else no row but the visitors' own is touched.

    Args:
        of: Whose merge it must be, if that matters.

    Raises:
        NotFound: The ledger has no such merge, or it is not *of* that person.
        Conflict: It was undone before.
        Stale: Somebody else changed the people meanwhile.
    """
    undone = await _lock_merge(conn, t, workspace_id, merge_id)
    tied = (undone.winner_member_id, undone.loser_member_id)
    rows = await lock_persons(conn, t, [(workspace_id, undone.loser_member_id)])
    if of is not None and (workspace_id, of) not in rows:
        raise NotFound(f"Merge {merge_id} is not one of visitor {of}. visitors.why() lists them")
    canonical = await _parted(conn, t, workspace_id, merge_id, rows.values())
    if await _shares_visits(conn, t, workspace_id, canonical):
        await _recount(conn, t, config, workspace_id, merge_id, list(canonical))
    moved = {row.id: canonical[row.id] for row in rows.values() if row.canonical_id != canonical[row.id]}
    await _move(conn, t, workspace_id, moved)
    await conversions.part(conn, t, workspace_id, canonical)
    await commissions.resettle(conn, t, workspace_id, canonical, config.referral, now)
    m = t.merges.c
    await conn.execute(
        update(t.merges)
        .where(m.workspace_id == workspace_id, m.id == merge_id)
        .values(undone_at=now, undone_by=actor, undone_reason=reason)
    )
    await audit.note(
        conn, t, workspace_id=workspace_id, note_id=note_id, at=now, actor=actor, action="visitors.unmerge",
        subject=str(merge_id), reason=reason,
        details={"persons": sorted({str(canonical[member]) for member in tied})},
    )  # fmt: skip
    both = await lock_persons(conn, t, sorted({(workspace_id, member) for member in tied}))
    winner, loser = (_person(_rows_of(both, workspace_id, member)) for member in tied)
    return winner, loser


def _rows_of(rows: Mapping[RowKey, Visitor], workspace_id: UUID, visitor_id: UUID) -> list[Visitor]:
    """Those of *rows* that are the person of *visitor_id*."""
    named = rows.get((workspace_id, visitor_id))
    if named is None:
        raise NotFound(f"There is no visitor {visitor_id} in workspace {workspace_id}")
    return [row for row in rows.values() if row.canonical_id == named.canonical_id]


def _refuse_two_names(rows: Iterable[Visitor]) -> None:
    names = sorted({row.external_id for row in rows if row.external_id is not None})
    if len(names) > 1:
        raise Conflict(
            f"They are {names[0]!r} and {names[1]!r} to you; two external ids are joined only with force=True"
        )


async def _lock_merge(conn: AsyncConnection, t: Tables, workspace_id: UUID, merge_id: UUID) -> MergeRow:
    """The merge that is to be undone, locked."""
    m = t.merges.c
    found = await conn.execute(
        select(t.merges).where(m.workspace_id == workspace_id, m.id == merge_id).with_for_update()
    )
    stored = found.one_or_none()
    if stored is None:
        raise NotFound(f"There is no merge {merge_id} in workspace {workspace_id}. visitors.why() lists them")
    merged = MergeRow(**stored._mapping)
    if merged.undone_at is not None:
        raise Conflict(f"Merge {merge_id} was undone at {merged.undone_at.isoformat()} already")
    return merged


async def _parted(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, merge_id: UUID, rows: Collection[Visitor]
) -> dict[UUID, UUID]:
    """The canonical id of each of a person's *rows*, as if the merge had never been."""
    m = t.merges.c
    live = await conn.execute(
        select(m.id, m.loser_member_id, m.winner_member_id).where(
            m.workspace_id == workspace_id,
            m.undone_at.is_(None),
            m.loser_member_id.in_([row.id for row in rows]),
        )
    )
    ties = [(row.loser_member_id, row.winner_member_id) for row in live if row.id != merge_id]
    return partition([(row.id, row.first_seen_at) for row in rows], ties)


async def _shares_visits(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, canonical: dict[UUID, UUID]
) -> bool:
    """Whether an event of one of the persons lies in a visit of the other."""
    found = await run(
        conn,
        "WITH side AS MATERIALIZED (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:persons AS uuid[])) AS s (id, person)) "
        f"SELECT EXISTS (SELECT FROM side a JOIN {t.events} e ON e.workspace_id = :workspace AND e.visitor_id = a.id "
        f"JOIN {t.sessions} s ON s.workspace_id = e.workspace_id AND s.id = e.session_id "
        "JOIN side b ON b.id = s.visitor_id WHERE e.origin = 'server' AND a.person <> b.person)",
        workspace=workspace_id,
        ids=list(canonical),
        persons=list(canonical.values()),
    )
    return bool(found.scalar_one())


async def _recount(
    conn: AsyncConnection, t: Tables, config: Config, workspace_id: UUID, merge_id: UUID, members: list[UUID]
) -> None:
    policy = SessionPolicy(config.session.timeout, config.session.split_on_source)
    for past in await reclassify.load_past(conn, t, config, workspace_id, members):
        found = without(past, merge_id, policy=policy, own_hosts=config.own_hosts)
        await reclassify.write(conn, t, workspace_id, found)


async def _move(conn: AsyncConnection, t: Tables, workspace_id: UUID, canonical: dict[UUID, UUID]) -> None:
    await run(
        conn,
        f"UPDATE {t.visitors} v SET canonical_id = k.person "
        "FROM unnest(CAST(:ids AS uuid[]), CAST(:persons AS uuid[])) AS k (id, person) "
        "WHERE v.workspace_id = :workspace AND v.id = k.id",
        workspace=workspace_id,
        ids=list(canonical),
        persons=list(canonical.values()),
    )
    await link_days.touch_people(conn, t, {(workspace_id, visitor_id) for visitor_id in canonical})


def _person(rows: list[Visitor]) -> Visitor:
    person = fold(rows)
    assert person is not None, "a person has at least one row"  # noqa: S101  # who locked rows has some
    return person
