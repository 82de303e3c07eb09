"""
What a batch tells anew, and what has to be read because of it: the ledger of merges, caps, former owners and the erased.

Nearly every hit says nothing new: its browser is known and points to one person. For those this costs no statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.identity import Identifier, Kind
from goodanalytics.core.identity_rows import MergeRow, State
from goodanalytics.core.tombstones import Graveyard
from goodanalytics.store.database import as_json, run
from goodanalytics.store.tables import Tables


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """
    What one hit points with.

    Attributes:
        visitor_id: The visitor that the hit names itself.
    """

    workspace_id: UUID
    identifiers: tuple[Identifier, ...]
    visitor_id: UUID | None


def told_anew(state: State, evidence: Sequence[Evidence]) -> list[Evidence]:
    """What is left of *evidence* without the hits of which all is known: one value, and whom it points to."""
    known = state.identities
    return [
        one
        for one in evidence
        if len(one.identifiers) != 1
        or one.visitor_id is not None
        or (one.workspace_id, one.identifiers[0].kind, one.identifiers[0].value) not in known
    ]


async def add_ledger(conn: AsyncConnection, t: Tables, state: State, evidence: Sequence[Evidence]) -> None:
    """
    Read what decides about merges and caps, of the people whom a hit tells something new of.

    That is whoever a value comes to, or who turns out to be several. Of all others, nearly everybody, nothing is asked.
    """
    persons, browsers = _told_anew(state, evidence)
    rows = sorted((w, v.id) for (w, _), v in state.members.items() if (w, v.canonical_id) in persons)
    if not rows:
        return
    workspaces, ids = zip(*rows, strict=True)
    values = {"workspaces": list(workspaces), "ids": list(ids)}
    keys = "unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, member_id)"
    merges = await conn.execute(
        text(
            " UNION ".join(
                f"SELECT m.* FROM {keys} JOIN {t.merges} m ON m.workspace_id = k.workspace_id AND m.{side} = k.member_id"
                for side in ("loser_member_id", "winner_member_id")
            )
        ).columns(*t.merges.c),
        values,
    )
    state.merges = sorted((MergeRow(**m._mapping) for m in merges), key=lambda m: (m.merged_at, m.id))
    held = await run(
        conn,
        f"SELECT i.workspace_id, i.visitor_id, i.kind, count(*) AS number FROM {keys} "
        f"JOIN {t.identities} i ON i.workspace_id = k.workspace_id AND i.visitor_id = k.member_id "
        "WHERE i.kind IN ('email', 'phone', 'anonymous_id') GROUP BY 1, 2, 3",
        **values,
    )
    for row in held:
        state.held.setdefault((row.workspace_id, row.visitor_id), {})[row.kind] = row.number
    if browsers:
        former = await run(
            conn,
            "SELECT f.workspace_id, f.kind, f.value, f.visitor_id, f.until FROM json_to_recordset(CAST(:rows AS json)) "
            f"AS k (workspace_id uuid, kind text, value text) JOIN {t.former_identities} f USING (workspace_id, kind, value)",
            rows=as_json([{"workspace_id": w, "kind": k, "value": v} for w, k, v in sorted(browsers)]),
        )
        for row in former:
            state.former.setdefault((row.workspace_id, row.kind, row.value), []).append(
                (row.visitor_id, row.until)
            )


def _told_anew(
    state: State, evidence: Sequence[Evidence]
) -> tuple[set[tuple[UUID, UUID]], set[tuple[UUID, str, str]]]:
    """The people whom *evidence* tells something new of, and the browsers that may change hands."""
    persons: set[tuple[UUID, UUID]] = set()
    browsers: set[tuple[UUID, str, str]] = set()
    for one in evidence:
        workspace_id = one.workspace_id
        known = [state.identities.get((workspace_id, i.kind, i.value)) for i in one.identifiers]
        ids = {row.visitor_id for row in known if row is not None}
        if one.visitor_id is not None:
            ids.add(one.visitor_id)
        found = [state.members[workspace_id, v] for v in ids if (workspace_id, v) in state.members]
        reached = {(workspace_id, row.canonical_id) for row in found}
        if len(reached) > 1 or None in known:
            persons |= reached
            if any(i.kind is Kind.EXTERNAL_ID for i in one.identifiers):
                browsers |= {
                    (workspace_id, str(i.kind), i.value)
                    for i in one.identifiers
                    if i.kind is Kind.ANONYMOUS_ID
                }
    return persons, browsers


async def add_tombstones(
    conn: AsyncConnection, t: Tables, state: State, evidence: Sequence[Evidence], graveyard: Graveyard
) -> None:
    """Look among the erased for the values that point to nobody. One that points to somebody was bound after the erasure."""
    asked: dict[tuple[UUID, str], tuple[UUID, str, str]] = {}
    for one in evidence:
        values = [(str(i.kind), i.value) for i in one.identifiers if i.kind is not Kind.FINGERPRINT]
        if one.visitor_id is not None and (one.workspace_id, one.visitor_id) not in state.members:
            values.append((str(Kind.VISITOR), str(one.visitor_id)))
        for kind, value in values:
            key = (one.workspace_id, kind, value)
            if key not in state.identities:
                for digest in graveyard.digests(*key):
                    asked[one.workspace_id, digest] = key
    if not asked:
        return
    workspaces, digests = zip(*asked, strict=True)
    found = await run(
        conn,
        "SELECT t.workspace_id, t.digest, t.forgotten_at "
        "FROM unnest(CAST(:workspaces AS uuid[]), CAST(:digests AS text[])) AS k (workspace_id, digest) "
        f"JOIN {t.tombstones} t USING (workspace_id, digest)",
        workspaces=list(workspaces),
        digests=list(digests),
    )
    for row in found:
        state.forgotten[asked[row.workspace_id, row.digest]] = row.forgotten_at
