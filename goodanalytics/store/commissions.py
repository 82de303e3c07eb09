"""
The ledger of commissions, written with what changes it, in the same transaction.

The people are locked by whoever changes them (`ledger.lock_persons`), so nobody else works out the same commissions at a time.
What is written follows from what is stored (`core.referral`, `core.commissions`), so working it out twice adds nothing.

A batch that brings neither arrivals, conversions, names nor merges costs no statement here; one in workspaces without
partners costs one; any other costs the same number whatever its size, seven at the most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import Uuid, any_, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.commissions import NOT_REFERRED, Entry, EntryStatus, settled
from goodanalytics.core.referral import Conversion, News, ReferralRules, due
from goodanalytics.errors import NotFound
from goodanalytics.store import audit, referrals
from goodanalytics.store.database import as_json, run
from goodanalytics.store.pages import Page, check_limit, cursor, read_cursor
from goodanalytics.store.referrals import Key
from goodanalytics.store.rows import insertion
from goodanalytics.store.tables import Tables

LISTING: Final = "commissions"

Beginning = tuple[Key, datetime]
"""A row of somebody, and since when what they did matters to partners."""


async def record(conn: AsyncConnection, t: Tables, news: News, rules: ReferralRules, now: datetime) -> None:
    """
    Write what *news* of a batch means for partners. The batch's people are locked, its events and merges written.

    Args:
        now: When new entries are made.
    """
    if not news:
        return
    noted = await referrals.note(conn, t, news)
    here = noted.workspaces
    fresh = [one for one in news.conversions if one.workspace_id in here]
    people = [((one.workspace_id, one.visitor_id), one.occurred_at) for one in fresh if one.kind != "refund"]
    people += noted.arrived
    people += await _beginnings(conn, t, {*noted.named, *(key for key in news.joined if key[0] in here)})
    await settle(conn, t, people, rules, now, [one for one in fresh if one.kind == "refund"])


async def settle(
    conn: AsyncConnection,
    t: Tables,
    people: Collection[Beginning],
    rules: ReferralRules,
    now: datetime,
    refunds: Sequence[Conversion] = (),
) -> None:
    """
    Work out the commissions of *people*, who are locked, anew.

    Args:
        people: A row of each, and since when what they did matters.
        refunds: That are new.
    """
    sales = await _sales(conn, t, people) if people else {}
    given_back: dict[Key, list[Conversion]] = defaultdict(list)
    for refund in refunds:
        if refund.sale_event_id is not None:
            given_back[refund.workspace_id, refund.sale_event_id].append(refund)
    new = {refund.event_id for refund in refunds}
    for refund in await _refunds(conn, t, sales):
        if refund.sale_event_id is not None and refund.event_id not in new:
            given_back[refund.workspace_id, refund.sale_event_id].append(refund)
    asked = sales.keys() | given_back.keys()
    if not asked:
        return
    entries = await _entries(conn, t, asked)
    referred = await referrals.of_people(conn, t, {person for _, person in sales.values()}) if sales else {}
    pairs = {(person, one.partner_id) for person, found in referred.items() for one in found}
    partners, own = await referrals.partners_of(conn, t, pairs) if pairs else ({}, {})
    changed: list[Entry] = []
    for key in sorted(asked):
        there = entries.get(key, [])
        conversion, person = sales.get(key, (None, None))
        owed = None
        if conversion is not None and person is not None:
            owed = due(
                conversion,
                referred.get(person, ()),
                {partner_id: partner for (w, partner_id), partner in partners.items() if w == key[0]},
                own.get(person, ()),
                rules,
                {one.partner_id: (one.amount_cents, one.currency) for one in there if one.kind == "earned"},
            )
        changed += settled(conversion, given_back[key], owed, there, now)
    await _write(conn, t, changed)


async def _sales(
    conn: AsyncConnection, t: Tables, people: Iterable[Beginning]
) -> dict[Key, tuple[Conversion, Key]]:
    """The leads and sales of *people* that count, by workspace and event, each with its person."""
    found = await run(
        conn,
        "WITH people AS MATERIALIZED (SELECT v.workspace_id, v.canonical_id AS person, "
        "min(k.since) AS since "
        "FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, visitor_id uuid, since timestamptz) "
        f"JOIN {t.visitors} v ON v.workspace_id = k.workspace_id AND v.id = k.visitor_id GROUP BY 1, 2) "
        "SELECT e.workspace_id, p.person, e.id, e.visitor_id, e.event_type, e.occurred_at, e.amount_cents, e.currency "
        f"FROM people p JOIN {t.visitors} m ON m.workspace_id = p.workspace_id AND m.canonical_id = p.person "
        f"JOIN {t.events} e ON e.workspace_id = m.workspace_id AND e.visitor_id = m.id AND e.occurred_at >= p.since "
        "WHERE e.event_type IN ('lead', 'sale') AND e.trusted AND e.bot IS NULL",
        rows=as_json([{"workspace_id": w, "visitor_id": v, "since": since} for (w, v), since in people]),
    )
    return {
        (row.workspace_id, row.id): (
            Conversion(
                row.workspace_id, row.id, row.event_type, row.visitor_id, row.occurred_at, row.amount_cents,
                row.currency,
            ),
            (row.workspace_id, row.person),
        )
        for row in found
    }  # fmt: skip


async def _refunds(conn: AsyncConnection, t: Tables, sales: Collection[Key]) -> list[Conversion]:
    """What was given back of *sales* so far, also while nobody earned with them."""
    if not sales:
        return []
    workspaces, ids = zip(*sorted(sales), strict=True)
    found = await run(
        conn,
        "SELECT c.workspace_id, c.event_id, c.visitor_id, c.occurred_at, c.amount_cents, c.currency, c.sale_event_id "
        "FROM unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, id) "
        f"JOIN {t.conversions} c ON c.workspace_id = k.workspace_id AND c.sale_event_id = k.id WHERE c.kind = 'refund'",
        workspaces=list(workspaces),
        ids=list(ids),
    )
    return [
        Conversion(
            row.workspace_id, row.event_id, "refund", row.visitor_id, row.occurred_at, row.amount_cents, row.currency,
            row.sale_event_id,
        )
        for row in found
    ]  # fmt: skip


async def _entries(conn: AsyncConnection, t: Tables, sales: Collection[Key]) -> dict[Key, list[Entry]]:
    """What the ledger holds of these leads and sales, locked."""
    workspaces, ids = zip(*sorted(sales), strict=True)
    found = await run(
        conn,
        f"SELECT c.* FROM {t.commissions} c WHERE (c.workspace_id, c.sale_event_id) IN (SELECT w, i FROM "
        "unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (w, i)) ORDER BY c.workspace_id, c.id FOR UPDATE",
        workspaces=list(workspaces),
        ids=list(ids),
    )
    entries: dict[Key, list[Entry]] = defaultdict(list)
    for row in found:
        entries[row.workspace_id, row.sale_event_id].append(Entry(**row._mapping))
    return dict(entries)


async def _write(conn: AsyncConnection, t: Tables, entries: Sequence[Entry]) -> None:
    if entries:
        await conn.execute(text(_writing(t)), {"rows": as_json([asdict(entry) for entry in entries])})


@lru_cache(maxsize=8)
def _writing(t: Tables) -> str:
    return (
        f"{insertion(t.commissions)} ORDER BY workspace_id, id ON CONFLICT (workspace_id, id) "
        "DO UPDATE SET status = excluded.status, reason = excluded.reason"
    )


# By hand -------------------------------------------------------------------------------------------------------------


async def review(
    conn: AsyncConnection,
    t: Tables,
    *,
    workspace_id: UUID,
    commission_id: UUID,
    partner_id: UUID | None,
    status: EntryStatus,
    note_id: UUID,
    reason: str | None,
    actor: str | None,
    now: datetime,
) -> Entry:
    """
    Say for good what a commission is, with what refunds took back from it; the entry that was named.

    Args:
        partner_id: Whose it must be, if that matters.
        status: `pending` leaves it to the rules again.

    Raises:
        NotFound: There is no such entry.
    """
    c = t.commissions.c
    named = await conn.execute(
        select(c.sale_event_id, c.partner_id).where(c.workspace_id == workspace_id, c.id == commission_id)
    )
    sale = named.one_or_none()
    if sale is None or partner_id not in (None, sale.partner_id):
        raise NotFound(f"There is no commission {commission_id} in workspace {workspace_id}")
    # All entries of the sale, as `settle` locks them; the next statement sees what was added while we waited.
    await _entries(conn, t, [(workspace_id, sale.sale_event_id)])
    is_open = status == "pending"
    changed = await conn.execute(
        update(t.commissions)
        .where(
            c.workspace_id == workspace_id,
            c.sale_event_id == sale.sale_event_id,
            c.partner_id == sale.partner_id,
        )
        .values(
            status=status,
            reason=reason,
            reviewed_at=None if is_open else now,
            reviewed_by=None if is_open else actor,
        )
        .returning(*c)
    )
    await audit.note(
        conn, t, workspace_id=workspace_id, note_id=note_id, at=now, actor=actor, action="commissions.review",
        subject=str(commission_id), reason=reason, details={"status": status},
    )  # fmt: skip
    (entry,) = [Entry(**row._mapping) for row in changed if row.id == commission_id]
    return entry


async def list_entries(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    partner_id: UUID,
    *,
    status: EntryStatus | None = None,
    kind: Literal["earned", "reversed"] | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page[Entry]:
    """
    A page of a partner's entries, the latest first. What was never theirs for good (`NOT_REFERRED`) is left out.

    Raises:
        InvalidInput: *limit* is not 1 to 200, or *after* is no cursor of this list.
    """
    check_limit(limit)
    c = t.commissions.c
    conditions = [
        c.workspace_id == workspace_id,
        c.partner_id == partner_id,
        c.reason.is_distinct_from(NOT_REFERRED),
    ]
    conditions += [] if status is None else [c.status == status]
    conditions += [] if kind is None else [c.kind == kind]
    if after is not None:
        at, last_id = read_cursor(after, LISTING)
        conditions.append((c.occurred_at < at) | ((c.occurred_at == at) & (c.id < last_id)))
    found = await conn.execute(
        select(t.commissions).where(*conditions).order_by(c.occurred_at.desc(), c.id.desc()).limit(limit + 1)
    )
    rows = [Entry(**row._mapping) for row in found]
    items = tuple(rows[:limit])
    goes_on = len(rows) > limit
    return Page(items, cursor(LISTING, items[-1].occurred_at, items[-1].id) if goes_on else None)


# When people change --------------------------------------------------------------------------------------------------


async def resettle(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    rows: Iterable[UUID],
    rules: ReferralRules,
    now: datetime,
) -> None:
    """Work out everything anew of the people that *rows* belong to, who are locked: they were merged, parted, or judged anew."""
    people = await _beginnings(conn, t, {(workspace_id, row) for row in rows})
    await settle(conn, t, people, rules, now)


async def _beginnings(conn: AsyncConnection, t: Tables, rows: Collection[Key]) -> list[Beginning]:
    """
    When the people of these *rows* first came by a partner, or a partner earned with them.

    What they did before matters to nobody, and those who never did are left out: they may have events without number.
    """
    if not rows:
        return []
    found = await run(
        conn,
        "SELECT m.workspace_id, m.id, least("
        f"(SELECT min(r.occurred_at) FROM {t.referrals} r WHERE r.workspace_id = m.workspace_id AND r.visitor_id = m.id), "
        f"(SELECT min(c.occurred_at) FROM {t.commissions} c WHERE c.workspace_id = m.workspace_id AND c.visitor_id = m.id)"
        ") AS since FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, visitor_id uuid) "
        f"JOIN {t.visitors} v ON v.workspace_id = k.workspace_id AND v.id = k.visitor_id "
        f"JOIN {t.visitors} m ON m.workspace_id = v.workspace_id AND m.canonical_id = v.canonical_id",
        rows=as_json([{"workspace_id": w, "visitor_id": v} for w, v in sorted(rows)]),
    )
    return [((row.workspace_id, row.id), row.since) for row in found if row.since is not None]


async def forget(conn: AsyncConnection, t: Tables, workspace_id: UUID, members: Sequence[UUID]) -> None:
    """Leave nothing that leads to the rows *members* of a person; what partners earned with them stays, as amounts."""
    among = any_(literal(list(members), ARRAY(Uuid)))
    for table in (t.commissions, t.partners):
        await conn.execute(
            update(table)
            .where(table.c.workspace_id == workspace_id, table.c.visitor_id == among)
            .values(visitor_id=None)
        )


__all__ = ["forget", "list_entries", "record", "resettle", "review", "settle"]
