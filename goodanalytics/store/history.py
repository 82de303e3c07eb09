"""
Reading what those who take a batch's hits did before, as far as the batch can touch it: their rows, visits and clicks.

Rows come straight from the driver. JSON columns are read as text and decoded here; of those that many rows have in common, such
as where visits came from, rows share one value. Nothing may be changed in them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.conversions import is_conversion
from goodanalytics.core.identity import Kind
from goodanalytics.core.identity_rows import IdentityRow, RowKey
from goodanalytics.core.people import People, Taken
from goodanalytics.core.plan import ClickFacts, History, Understood
from goodanalytics.core.sessions import Session
from goodanalytics.core.sources import Source
from goodanalytics.core.visitors import Visitor
from goodanalytics.store.database import fetch
from goodanalytics.store.tables import Tables

R = TypeVar("R", bound=msgspec.Struct)

SHARED = frozenset({"first_source", "last_source", "acquisition", "device", "geo"})
"""JSON columns of which many rows hold the same."""


async def recall(
    conn: AsyncConnection,
    t: Tables,
    people: People,
    batch: Sequence[tuple[Understood, Taken]],
    silence: timedelta,
    *,
    everybody: bool = False,
) -> History:
    """
    Read what the hits of *batch* may change, and the whole person behind each conversion. Locks are `store.people.load`'s.

    Args:
        silence: Visits that end before the batch or begin after it by more than this stay away.
        everybody: Read all rows of all persons, so that `Plan.person` can fold them.
    """
    history = History()
    if not batch:
        return history
    hits = [(understood.hit, taken) for understood, taken in batch]
    rows = {(hit.workspace_id, taken.visitor_id) for hit, taken in hits} - people.made.keys()
    company = {(hit.workspace_id, one) for hit, taken in hits for one in taken.company} - people.made.keys()
    buyers = {
        (hit.workspace_id, one)
        for hit, taken in hits
        if is_conversion(hit)
        for one in people.company(hit.workspace_id, taken.visitor_id)
    }
    whole = people.rows.keys() if everybody else rows | buyers
    history.visitors = await visitors_of(conn, t, whole - people.made.keys())
    times = [hit.occurred_at for hit, _ in hits]
    clicked = [hit.id for hit, _ in hits if hit.origin == "link"]
    history.sessions = await sessions_of(conn, t, rows | company, (min(times), max(times)), silence, clicked)
    clicks = {
        click
        for hit, _ in hits
        if hit.signals.click_id is not None
        and (click := people.known(hit.workspace_id, Kind.CLICK, str(hit.signals.click_id))) is not None
    }
    history.clicks = await _clicks(conn, t, clicks)
    return history


async def visitors_of(
    conn: AsyncConnection, t: Tables, visitors: Collection[RowKey]
) -> dict[RowKey, Visitor]:
    """The rows of *visitors*."""
    if not visitors:
        return {}
    found = await fetch(conn, _by_id(t.visitors, visitor_columns(t)), *_keys(visitors))
    return {(row.workspace_id, row.id): row for row in map(as_visitor, found)}


async def sessions_of(
    conn: AsyncConnection,
    t: Tables,
    visitors: Collection[RowKey],
    span: tuple[datetime, datetime],
    silence: timedelta,
    clicked: Sequence[UUID] = (),
) -> list[Session]:
    """
    The visits of *visitors* that hits in the time between the two of *span* can belong to.

    Not all that there were in it and for as long as *silence* around it: of those that were over before it, hits go on with none but
    the one that was over last (`core.sessions.going_on`), a person's with the last one that is not a bot's. So two of these are
    enough of however many: a browser may come from somewhere else a hundred times a second.

    Args:
        clicked: Clicks whose visits are wanted, too.
    """
    if not visitors:
        return []
    around = span[0] - silence, span[1] + silence, span[0]
    clicks = (list(clicked),) if clicked else ()
    found = await fetch(conn, _visits(t, by_clicks=bool(clicked)), *_keys(visitors), *around, *clicks)
    return list(map(as_session, found))


async def _clicks(
    conn: AsyncConnection, t: Tables, clicks: Collection[IdentityRow]
) -> dict[RowKey, ClickFacts]:
    """Where the clicks came from. An identity knows its click's visitor and time, so this is a look-up by primary key."""
    if not clicks:
        return {}
    keys = [(c.workspace_id, c.visitor_id, c.first_seen_at, c.hit_id) for c in clicks]
    found = await fetch(
        conn,
        "SELECT e.workspace_id, e.id, e.acquisition::text, e.link_id "
        "FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[]) "
        f"AS k (workspace_id, visitor_id, occurred_at, id) "
        f"JOIN {t.events} e USING (workspace_id, visitor_id, occurred_at, id) WHERE e.event_type = 'link_click'",
        *(list(column) for column in zip(*keys, strict=True)),
    )
    return {
        (workspace_id, click_id): ClickFacts(Source.from_json(_shared(acquisition)), link_id)
        for workspace_id, click_id, acquisition, link_id in found
    }


def _keys(rows: Iterable[RowKey]) -> list[list[UUID]]:
    return [list(column) for column in zip(*rows, strict=True)]


@lru_cache(maxsize=256)
def _by_id(table: Table, columns: str) -> str:
    """Rows with one of the ids $2 in the workspaces $1. An array asks an index once for a whole batch."""
    return (
        "SELECT s.* FROM (SELECT workspace_id, array_agg(id) AS ids FROM unnest($1::uuid[], $2::uuid[]) "
        "AS k (workspace_id, id) GROUP BY 1) AS k, "
        f"LATERAL (SELECT {columns} FROM {table} s WHERE s.workspace_id = k.workspace_id AND s.id = ANY(k.ids) OFFSET 0) AS s"
    )


@lru_cache(maxsize=64)
def _visits(t: Tables, *, by_clicks: bool) -> str:
    """
    For each visitor, of the visits between $3 and $4, those that went on after $5, and the last one before it, of all and without bots.

    Few index entries are read of each visitor, however often they were there and however many visits they began in this hour.
    """
    of_visitor = (
        f"SELECT s.id FROM {t.sessions} s WHERE s.workspace_id = k.workspace_id AND s.visitor_id = k.id"
    )
    before, last = "s.last_event_at BETWEEN $3 AND $5", "ORDER BY s.last_event_at DESC, s.id DESC LIMIT 1"
    wanted = [
        f"({of_visitor} AND s.last_event_at > $5 AND s.started_at <= $4)",
        f"({of_visitor} AND {before} {last})",
        f"({of_visitor} AND {before} AND s.bot IS NULL {last})",
    ]
    if by_clicks:
        # A sub-select hides from the planner how many clicks there are: it would plan anew for each number.
        wanted.append(f"({of_visitor} AND {before} AND s.click_id = ANY((SELECT $6::uuid[])::uuid[]))")
    return (
        "SELECT s.* FROM (SELECT DISTINCT k.workspace_id, i.id FROM unnest($1::uuid[], $2::uuid[]) AS k (workspace_id, id), "
        f"LATERAL ({' UNION ALL '.join(wanted)}) AS i) AS p, "
        f"LATERAL (SELECT {session_columns(t)} FROM {t.sessions} s "
        "WHERE s.workspace_id = p.workspace_id AND s.id = p.id OFFSET 0) AS s"
    )


# Rows as values ----------------------------------------------------------------------------------------------------------


def visitor_columns(t: Tables) -> str:
    """What `as_visitor` reads, to be selected."""
    return _columns(t.visitors, Visitor.__struct_fields__)


def session_columns(t: Tables) -> str:
    """What `as_session` reads, to be selected."""
    return _columns(t.sessions, Session.__struct_fields__)


@lru_cache(maxsize=64)
def _columns(table: Table, names: tuple[str, ...]) -> str:
    return ", ".join(
        f'"{name}"::text' if isinstance(table.c[name].type, JSONB) else f'"{name}"' for name in names
    )


def _reader(kind: type[R], jsons: Collection[str]) -> Callable[[Sequence[Any]], R]:
    names = kind.__struct_fields__
    decoders = [
        (place, _shared if name in SHARED else _own) for place, name in enumerate(names) if name in jsons
    ]

    def read(row: Sequence[Any]) -> R:
        values = list(row)
        for place, decode in decoders:
            if (text := values[place]) is not None:
                values[place] = decode(text)
        return kind(*values)  # a tenth of what names cost, for two rows of each hit

    return read


_own = msgspec.json.Decoder().decode
_shared = lru_cache(maxsize=4096)(_own)

as_visitor = _reader(
    Visitor, ("traits", "first_source", "last_source", "geo", "device", "platform_signals", "consent", "ltv")
)
"""A row of `visitors`, as `visitor_columns` selects it."""

as_session = _reader(Session, ("acquisition",))
"""A row of `sessions`, as `session_columns` selects it."""
