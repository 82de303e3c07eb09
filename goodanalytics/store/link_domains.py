"""
What holds for all links of a domain: where its root leads, which apps may open it, whether the case of a key matters.

Whoever makes or moves links on a domain holds its name shared, whoever changes its case rule holds it alone (`hold`): so no key
is stored by a rule that no longer holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.links import Domain
from goodanalytics.errors import Conflict
from goodanalytics.store import link_history
from goodanalytics.store.database import run
from goodanalytics.store.tables import Tables


async def hold(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, hosts: Collection[str], *, alone: bool = False
) -> dict[str, Domain]:
    """The domains of *hosts*, whose case rule stays as it is until the transaction ends."""
    if not hosts:
        return {}
    kind = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
    names = [f"{t.schema} domain {workspace_id} {host}" for host in sorted(hosts)]
    await run(
        conn,
        f"SELECT {kind}(hashtextextended(name, 0)) FROM unnest(CAST(:names AS text[])) AS name",
        names=names,
    )
    return await get_many(conn, t, workspace_id, hosts)


async def get_many(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, hosts: Collection[str]
) -> dict[str, Domain]:
    """The domains of *hosts*; one without a row has the defaults."""
    d = t.domains.c
    found = await conn.execute(
        select(t.domains).where(d.workspace_id == workspace_id, d.host.in_(sorted(hosts)))
    )
    rows = [Domain.from_row(dict(row._mapping)) for row in found]
    return {host: Domain(workspace_id=workspace_id, host=host) for host in hosts} | {
        row.host: row for row in rows
    }


async def list_domains(conn: AsyncConnection, t: Tables, workspace_id: UUID) -> Sequence[Domain]:
    """Every domain that has a row, by name."""
    found = await conn.execute(
        select(t.domains).where(t.domains.c.workspace_id == workspace_id).order_by(t.domains.c.host)
    )
    return [Domain.from_row(dict(row._mapping)) for row in found]


async def put(
    conn: AsyncConnection,
    t: Tables,
    workspace_id: UUID,
    host: str,
    change: Callable[[Domain], Domain],
    now: datetime,
) -> Domain:
    """
    Write what *change* makes of the domain as it is. Where case ceases to matter, its keys are folded.

    Raises:
        Conflict: Two of its links would then have one key.
    """
    (old,) = (await hold(conn, t, workspace_id, [host], alone=True)).values()
    new = msgspec.structs.replace(change(old), created_at=old.created_at or now, updated_at=now)
    if old.case_sensitive and not new.case_sensitive:
        await _fold(conn, t, workspace_id, host, now)
    row = new.to_row()
    statement = postgresql.insert(t.domains).values(row)
    kept = {name: value for name, value in row.items() if name not in ("workspace_id", "host", "created_at")}
    await conn.execute(statement.on_conflict_do_update(index_elements=["workspace_id", "host"], set_=kept))
    await link_history.tell(conn, t, [(workspace_id, host, "")])
    return new


async def add_many(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, domains: Mapping[str, Domain], now: datetime
) -> dict[str, Literal["created", "unchanged"] | Conflict]:
    """Write what holds for *domains*, with its times, where nothing is said yet; and what became of each, by its host."""
    known = await hold(conn, t, workspace_id, domains.keys(), alone=True)
    done: dict[str, Literal["created", "unchanged"] | Conflict] = {}
    for host, domain in domains.items():
        if known[host].created_at is not None:
            done[host] = "unchanged"
            continue
        try:
            if not domain.case_sensitive:
                await _fold(conn, t, workspace_id, host, now)
        except Conflict as error:
            done[host] = error
            continue
        await conn.execute(insert(t.domains), domain.to_row())
        done[host] = "created"
    made = [(workspace_id, host, "") for host, status in done.items() if status == "created"]
    await link_history.tell(conn, t, made)
    return done


async def _fold(conn: AsyncConnection, t: Tables, workspace_id: UUID, host: str, now: datetime) -> None:
    values = {"workspace_id": workspace_id, "host": host}
    in_use = "workspace_id = :workspace_id AND domain = :host AND archived_at IS NULL"
    clash = await run(
        conn,
        f"SELECT min(key) AS one, max(key) AS other FROM {t.links} WHERE {in_use} "
        "GROUP BY lower(key) HAVING count(*) > 1 ORDER BY lower(key) LIMIT 1",
        **values,
    )
    if (found := clash.one_or_none()) is not None:
        raise Conflict(
            f"{host} has the links {found.one} and {found.other}, which would be one if case did not matter. Give one of "
            "them another key, or archive it"
        )
    await run(
        conn,
        f"UPDATE {t.links} SET key = lower(key), updated_at = :now WHERE {in_use} AND key <> lower(key)",
        **values,
        now=now,
    )


__all__ = ["add_many", "get_many", "hold", "list_domains", "put"]
