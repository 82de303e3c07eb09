"""
What a redirect asks the database: links and their domains by address, many at once; and a visitor's facts.

A link whose key is stored case-folded is found by the same statement, which reads the domain's rule beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    JSON,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg as AsyncpgDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.link_matching import VisitorFacts
from goodanalytics.core.links import Domain, Link
from goodanalytics.core.visitors import STATUS_RANK
from goodanalytics.store.tables import Tables

MAX_ROWS = 100
"""Rows of one person that are read for what is known of them, those seen last first."""

Address = tuple[UUID, str, str]
"""Workspace, host, and a key as it was asked for; an empty key asks for the domain alone."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at an address: a link in use, the domain's row, both or neither."""

    link: Link | None
    domain: Domain | None


async def find(conn: AsyncConnection, t: Tables, addresses: Sequence[Address]) -> list[Found]:
    """What stands at each of *addresses*, in their order. An archived link is none."""
    return _in_order(await conn.execute(_statement(t), _asked_for(addresses)), t, len(addresses))


async def find_by_driver(driver: Any, t: Tables, addresses: Sequence[Address]) -> list[Found]:
    """
    `find` for who has nothing else to ask: SQLAlchemy's layers take longer than the statement of a single address.

    Args:
        driver: An `asyncpg.Connection` out of the engine's pool, without a transaction.

    Raises:
        asyncpg.PostgresError, OSError: As the driver has them.
    """
    sql, names, fixed, texts = _driven(t)
    asked = {**fixed, **_asked_for(addresses)}
    async with driver.transaction(readonly=True):  # a pooler may put another server behind each transaction
        rows = await driver.fetch(sql, *[asked[name] for name in names])
    # Whether the driver reads JSON itself depends on SQLAlchemy's version; none of these columns holds a mere string.
    read = [
        [
            msgspec.json.decode(value) if at in texts and isinstance(value, str) else value
            for at, value in enumerate(row)
        ]
        for row in rows
    ]
    return _in_order(read, t, len(addresses))


def _asked_for(addresses: Sequence[Address]) -> dict[str, list[Any]]:
    return {
        "workspaces": [workspace_id for workspace_id, _, _ in addresses],
        "hosts": [host for _, host, _ in addresses],
        "keys": [key for _, _, key in addresses],
        "folded": [key.casefold() for _, _, key in addresses],
    }


def _in_order(rows: Iterable[Sequence[Any]], t: Tables, count: int) -> list[Found]:
    found = [Found(None, None)] * count
    names = [c.name for c in t.links.c], [c.name for c in t.domains.c]
    middle = 1 + len(names[0])
    for row in rows:
        link = dict(zip(names[0], row[1:middle], strict=True))
        domain = dict(zip(names[1], row[middle:], strict=True))
        found[row[0] - 1] = Found(
            None if link["id"] is None else Link.from_row(link),
            None if domain["host"] is None else Domain.from_row(domain),
        )
    return found


@lru_cache(maxsize=8)
def _driven(t: Tables) -> tuple[str, Sequence[str], Mapping[str, Any], frozenset[int]]:
    """The statement as the driver takes it, its values' names in order, those that are fixed, and the columns of JSON text."""
    dialect = AsyncpgDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    compiled = _statement(t).compile(dialect=dialect)
    columns = [None, *t.links.c, *t.domains.c]
    texts = {at for at, c in enumerate(columns) if c is not None and isinstance(c.type, JSON)}
    return str(compiled), compiled.positiontup or (), compiled.params, frozenset(texts)


@lru_cache(maxsize=8)
def _statement(t: Tables) -> Select[Any]:
    asked = (
        func.unnest(
            bindparam("workspaces", type_=ARRAY(Uuid)),
            bindparam("hosts", type_=ARRAY(Text)),
            bindparam("keys", type_=ARRAY(Text)),
            bindparam("folded", type_=ARRAY(Text)),
        )
        .table_valued(
            column("workspace_id", Uuid),
            column("host", Text),
            column("key", Text),
            column("folded", Text),
            with_ordinality="number",
        )
        .render_derived(name="asked")
    )
    d, link = t.domains.c, t.links.c
    is_exact = func.coalesce(d.case_sensitive, True)
    # OFFSET keeps it a look-up in the index: while a table was never analyzed, a join reads it whole.
    found = (
        select(t.links)
        .where(
            link.workspace_id == asked.c.workspace_id,
            link.domain == asked.c.host,
            link.key == case((is_exact, asked.c.key), else_=asked.c.folded),
            link.archived_at.is_(None),
        )
        .offset(literal_column("0"))
        .correlate(asked, t.domains)
        .lateral("found")
    )
    return select(asked.c.number, *found.c, *d).select_from(
        asked.outerjoin(
            t.domains, and_(d.workspace_id == asked.c.workspace_id, d.host == asked.c.host)
        ).outerjoin(found, true())
    )


async def visitor_facts(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, anonymous_id: str
) -> VisitorFacts:
    """What is known of the person whose browser has this cookie; nobody is the browser of a shared device."""
    own, row, i = t.visitors.alias("own"), t.visitors.alias("person"), t.identities.c
    rows = await conn.execute(
        select(row.c.status, row.c.traits)
        .select_from(
            t.identities.join(own, and_(own.c.workspace_id == i.workspace_id, own.c.id == i.visitor_id)).join(
                row,
                and_(row.c.workspace_id == own.c.workspace_id, row.c.canonical_id == own.c.canonical_id),
            )
        )
        .where(
            i.workspace_id == workspace_id,
            i.kind == "anonymous_id",
            i.value == anonymous_id,
            i.shared_at.is_(None),
        )
        .order_by(row.c.last_seen_at.desc(), row.c.id.desc())
        .limit(MAX_ROWS)
    )
    persons = list(rows)
    if not persons:
        return VisitorFacts(known=False)
    traits: dict[str, Any] = {}
    for person in reversed(persons):
        traits |= person.traits
    status = max((person.status for person in persons), key=STATUS_RANK.__getitem__)
    return VisitorFacts(known=True, status=status, traits=traits)
