"""
Conversions: written with the touches that had led to them, and adopted.

A batch without conversions costs no statement here, one with any number of them costs one, and one more where it gives back
what it sells: a refund has the touches of its sale, which has to be there before.

A conversion without touches is unattributed: nobody knows yet whose visit earned it, as with an order by telephone. When its
person turns out to be somebody whose visits are known (their rows become one person), it is adopted: it takes the touches
that came before it, and is told to the platforms then. Where that is undone, it loses them again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.consent import Consent
from goodanalytics.core.conversions import (
    MOST_TOUCHES,
    Converted,
    Sale,
    exchanged,
)
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity_rows import RowKey
from goodanalytics.core.orders import Item
from goodanalytics.core.people import People
from goodanalytics.core.plan import Plan
from goodanalytics.core.visitors import Visitor, fold
from goodanalytics.platforms.assembled import conversion
from goodanalytics.platforms.conversion import Conversion
from goodanalytics.store.database import as_json, run
from goodanalytics.store.history import visitors_of
from goodanalytics.store.people import Stale
from goodanalytics.store.tables import Tables

Told = tuple[UUID, Conversion]
"""A workspace, and what is to be told of it."""


@dataclass(frozen=True, slots=True)
class News:
    """
    What is new, and to whom it may be told.

    Attributes:
        told: What platforms and webhooks may be told.
        unattributed: What platforms are told when it is adopted; until then it is news for webhooks alone.
    """

    told: list[Told]
    unattributed: list[Told]


_ROW: Final = (
    "workspace_id uuid, event_id uuid, kind text, visitor_id uuid, occurred_at timestamptz, name text, key text, digest text, "
    "amount_cents bigint, currency text, reporting_cents bigint, reporting_currency text, sale_event_id uuid, "
    "before_cents bigint, reason text, place text, contents jsonb, consent jsonb"
)
COLUMNS: Final = tuple(part.split()[0] for part in _ROW.split(", "))
"""What `row_of` fills."""

_COLUMNS: Final = ", ".join(f'"{name}"' for name in COLUMNS)


async def record(conn: AsyncConnection, t: Tables, people: People, plan: Plan, config: Config) -> News:
    """
    Write the conversions of *plan*, whose people are locked and whose visits are written; what may be told of them.

    What this batch lets be adopted is told now.

    Raises:
        Stale: One of them was told of by somebody else meanwhile. Undo what the transaction wrote, and ask again (`store.conversion_keys`).
    """
    news = News([], [])
    if plan.conversions:
        news = news_of(plan, await _write(conn, t, people, plan.conversions, config))
    if people.merges:
        joined = {
            frozenset(
                (m.workspace_id, one) for one in people.company(m.workspace_id, m.winner_member_id)
            )
            for m in people.merges
        }  # fmt: skip
        news.told.extend(await adopt(conn, t, joined, config.clock()))
    return news


async def _write(
    conn: AsyncConnection, t: Tables, people: People, found: Sequence[Converted], config: Config
) -> dict[RowKey, int]:
    """
    How many touches each has, now that all are written.

    Raises:
        Stale: One of them was told of by somebody else meanwhile.
    """
    reporting: dict[RowKey, tuple[int | None, str | None]] = {}
    touches_of: dict[RowKey, int] = {}
    for is_late in (False, True):
        rows = []
        for c in found:
            if (c.sale is not None and c.sale.is_new) is not is_late:
                continue
            if c.sale is not None and is_late:
                c.sale.reporting_cents, c.sale.reporting_currency = reporting[c.sale.workspace_id, c.sale.id]
            row = row_of(c, config)
            row["members"] = sorted(people.company(c.hit.workspace_id, c.visitor_id))
            reporting[c.hit.workspace_id, c.hit.id] = row["reporting_cents"], row["reporting_currency"]
            rows.append(row)
        if rows:
            written = await run(conn, insert(t), rows=as_json(rows))
            touches_of |= {(row.workspace_id, row.event_id): row.touches for row in written}
            if len(touches_of) != len(reporting):
                raise Stale
    return touches_of


def news_of(plan: Plan, touches: Mapping[RowKey, int]) -> News:
    """What may be told of the conversions of *plan*, which have so many *touches* each."""
    news = News([], [])
    for c in plan.conversions:
        is_ready = touches.get((c.hit.workspace_id, c.hit.id)) or not waits(c)
        (news.told if is_ready else news.unattributed).append(
            (c.hit.workspace_id, conversion(c, _person(plan, c)))
        )
    return news


def waits(found: Converted) -> bool:
    """Whether a conversion without touches is worth telling only when somebody is known to have made it."""
    signals = found.hit.signals
    named = (signals.visitor_id, signals.anonymous_id, signals.click_id)
    return found.hit.place == "website" and not any(named)


def _person(plan: Plan, found: Converted) -> Visitor:
    person = plan.person(found.hit.workspace_id, found.visitor_id)
    assert person is not None, "a conversion lies on a row of the plan"  # noqa: S101  # who recorded it put the row there
    return person


def row_of(found: Converted, config: Config) -> dict[str, Any]:
    """A conversion as its row, but for its touches."""
    hit, sale = found.hit, found.sale
    if sale is not None:
        reporting = sale.reporting_share(found.before_cents or 0, hit.amount_cents or 0)
        into = sale.reporting_currency
    else:
        reporting, into = in_reporting_currency(hit, config)
    return {
        "workspace_id": hit.workspace_id,
        "event_id": hit.id,
        "kind": str(hit.event_type),
        "visitor_id": found.visitor_id,
        "occurred_at": hit.occurred_at,
        "name": hit.name,
        "key": hit.key,
        "digest": hit.digest,
        "amount_cents": hit.amount_cents,
        "currency": hit.currency,
        "reporting_cents": reporting,
        "reporting_currency": into,
        "sale_event_id": hit.sale_id,
        "before_cents": found.before_cents,
        "reason": hit.reason,
        "place": hit.place,
        "contents": hit.contents,
        "consent": hit.consent,
    }


def in_reporting_currency(hit: Hit, config: Config) -> tuple[int | None, str | None]:
    """What *hit* is worth in the reporting currency, and which that is; nothing where no rate is known."""
    into, cents, currency = config.reporting_currency, hit.amount_cents, hit.currency
    if into is None or cents is None or currency is None:
        return None, None
    if currency == into:
        return cents, into
    if config.exchange_rate is None:
        return None, None
    try:
        rate = config.exchange_rate(currency, hit.occurred_at)
        found = None if rate is None else exchanged(cents, currency, Decimal(rate), into)
    except (InvalidOperation, OverflowError, ValueError) as error:
        config.report(error, f"reading the exchange rate of {currency}")
        return None, None
    except Exception as error:  # noqa: BLE001  # a host's function may raise anything, and must not lose its order
        config.report(error, f"asking for the exchange rate of {currency}")
        return None, None
    return (None, None) if found is None or abs(found) >= 2**63 else (found, into)


def touches(t: Tables, members: str, workspace: str, until: str) -> str:
    """
    The visits that had begun *until* then, oldest first: the first one and the newest of many; as SQL.

    Args:
        members: What gives the ids of all rows of the person, as `m (id)`.
    """
    every = (
        "SELECT jsonb_build_object('at', s.started_at, 'session_id', s.id, 'visitor_id', s.visitor_id, "
        "'click_id', s.click_id, 'link_id', s.link_id, 'source', s.acquisition) "
        # OFFSET keeps the index by time from being chosen while there are few visits: it would read everybody's.
        f"FROM {members}, LATERAL (SELECT s.* FROM {t.sessions} s "
        f"WHERE s.workspace_id = {workspace} AND s.visitor_id = m.id OFFSET 0) AS s "
        f"WHERE s.bot IS NULL AND s.started_at <= {until} ORDER BY s.started_at, s.id"
    )
    return (
        f"(SELECT to_jsonb(CASE WHEN cardinality(x.all) <= {MOST_TOUCHES} THEN x.all "
        f"ELSE x.all[1:1] || x.all[cardinality(x.all) - {MOST_TOUCHES - 2}:] END) "
        # Here OFFSET keeps them from being gathered once for each time that they are named.
        f'FROM (SELECT ARRAY({every}) AS "all" OFFSET 0) AS x)'
    )


@lru_cache(maxsize=64)
def insert(t: Tables, condition: str = "", rows: str = "CAST(:rows AS json)") -> str:
    """`INSERT` of a JSON array, *rows*, with their touches; answers how many each has."""
    own = touches(t, "unnest(r.members) AS m (id)", "r.workspace_id", "r.occurred_at")
    sales = f"(SELECT c.touches FROM {t.conversions} c WHERE c.workspace_id = r.workspace_id AND c.event_id = r.sale_event_id)"
    return (
        f"INSERT INTO {t.conversions} ({_COLUMNS}, touches) "
        f"SELECT {_COLUMNS}, CASE WHEN r.sale_event_id IS NULL THEN {own} ELSE coalesce({sales}, '[]') END "
        f"FROM json_to_recordset({rows}) AS r ({_ROW}, members uuid[]) {condition} "
        "ON CONFLICT (workspace_id, event_id) DO NOTHING "
        "RETURNING workspace_id, event_id, jsonb_array_length(touches) AS touches"
    )


async def adopt(
    conn: AsyncConnection, t: Tables, persons: Iterable[Collection[RowKey]], now: datetime
) -> list[Told]:
    """
    Let unattributed conversions of these people have the touches that came before them; what the platforms may be told of them.

    That is also what was given back of them meanwhile: no platform took a refund of a sale that it did not know.

    Args:
        persons: All rows of each, written and locked.
    """
    company = {key: keys for keys in persons if len(keys) > 1 for key in keys}
    if not company:
        return []
    asked = [
        {"workspace_id": workspace_id, "visitor_id": one, "members": sorted(m for _, m in keys)}
        for (workspace_id, one), keys in company.items()
    ]
    found = await run(
        conn,
        f"WITH found AS MATERIALIZED (SELECT c.workspace_id, c.event_id, "
        f"{touches(t, 'unnest(k.members) AS m (id)', 'c.workspace_id', 'c.occurred_at')} AS touches "
        "FROM json_to_recordset(CAST(:rows AS json)) AS k (workspace_id uuid, visitor_id uuid, members uuid[]) "
        f"JOIN {t.conversions} c USING (workspace_id, visitor_id) "
        "WHERE c.touches = '[]' AND c.kind <> 'refund'), "
        f"changed AS (UPDATE {t.conversions} c SET touches = f.touches, adopted_at = :now FROM found f "
        "WHERE c.workspace_id = f.workspace_id AND c.event_id = f.event_id AND f.touches <> '[]' RETURNING c.*) "
        + _changed_with_events(t),
        rows=as_json(asked),
        now=now,
    )
    adopted = {(row.workspace_id, row.event_id): row._mapping for row in found}
    if not adopted:
        return []
    refunds = await run(
        conn,
        f"WITH changed AS (UPDATE {t.conversions} r SET touches = s.touches, adopted_at = :now FROM {t.conversions} s, "
        "unnest(CAST(:workspaces AS uuid[]), CAST(:ids AS uuid[])) AS k (workspace_id, event_id) "
        "WHERE r.workspace_id = k.workspace_id AND r.sale_event_id = k.event_id "
        "AND s.workspace_id = k.workspace_id AND s.event_id = k.event_id RETURNING r.*) "
        + _changed_with_events(t),
        workspaces=[workspace_id for workspace_id, _ in adopted],
        ids=[event_id for _, event_id in adopted],
        now=now,
    )
    news = [_read(row) for row in adopted.values()]
    news += [_read(row._mapping, _sold(adopted[row.workspace_id, row.sale_event_id])) for row in refunds]
    buyers = [(one.hit.workspace_id, one.visitor_id) for one in news]
    visitors = await visitors_of(conn, t, {one for key in buyers for one in company[key]})
    told = []
    for one, key in zip(news, buyers, strict=True):
        person = fold(visitors[row] for row in company[key])
        assert person is not None, "who bought has a row"  # noqa: S101  # for the type checker
        told.append((key[0], conversion(one, person)))
    return told


def _changed_with_events(t: Tables) -> str:
    """The rows of `changed` in the order of time, each with what only its event knows."""
    return (
        "SELECT c.*, e.url, e.properties FROM changed c "
        f"LEFT JOIN {t.events} e ON e.workspace_id = c.workspace_id AND e.visitor_id = c.visitor_id "
        "AND e.occurred_at = c.occurred_at AND e.id = c.event_id ORDER BY c.occurred_at, c.event_id"
    )


def _sold(row: RowMapping) -> Sale:
    """A row of a sale, as its refunds have to know it."""
    return Sale(
        workspace_id=row["workspace_id"],
        id=row["event_id"],
        visitor_id=row["visitor_id"],
        occurred_at=row["occurred_at"],
        key=row["key"],
        amount_cents=row["amount_cents"] or 0,
        currency=row["currency"],
    )


def _read(row: RowMapping, sale: Sale | None = None) -> Converted:
    hit = Hit(
        id=row["event_id"],
        workspace_id=row["workspace_id"],
        received_at=row["occurred_at"],
        occurred_at=row["occurred_at"],
        event_type=EventType(row["kind"]),
        origin="server",
        trusted=True,
        name=row["name"],
        key=row["key"],
        amount_cents=row["amount_cents"],
        currency=row["currency"],
        properties=row["properties"] or {},
        place=row["place"],
        contents=msgspec.convert(row["contents"], tuple[Item, ...]),
        consent=None if row["consent"] is None else msgspec.convert(row["consent"], Consent),
    )
    return Converted(hit, row["visitor_id"], row["url"], sale=sale, before_cents=row["before_cents"])


async def part(conn: AsyncConnection, t: Tables, workspace_id: UUID, canonical: Mapping[UUID, UUID]) -> None:
    """
    Take from the conversions of people who are parted the touches that are somebody else's now.

    Args:
        canonical: The person of each of their rows, from now on.
    """
    await run(
        conn,
        "WITH side AS MATERIALIZED (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:persons AS uuid[])) AS s (id, person)), "
        "kept AS (SELECT c.event_id, coalesce(jsonb_agg(x.touch ORDER BY x.n) FILTER (WHERE b.person = a.person), '[]') AS touches "
        f"FROM side a JOIN {t.conversions} c ON c.workspace_id = :workspace AND c.visitor_id = a.id, "
        "LATERAL jsonb_array_elements(c.touches) WITH ORDINALITY AS x (touch, n) "
        "LEFT JOIN side b ON b.id = CAST(x.touch ->> 'visitor_id' AS uuid) GROUP BY c.event_id) "
        f"UPDATE {t.conversions} c SET touches = k.touches, "
        "adopted_at = CASE WHEN k.touches = '[]' THEN NULL ELSE c.adopted_at END "
        "FROM kept k WHERE c.workspace_id = :workspace AND c.event_id = k.event_id AND c.touches <> k.touches",
        workspace=workspace_id,
        ids=list(canonical),
        persons=list(canonical.values()),
    )


__all__ = [
    "COLUMNS",
    "News",
    "Told",
    "adopt",
    "in_reporting_currency",
    "insert",
    "news_of",
    "part",
    "record",
    "row_of",
    "touches",
    "waits",
]
