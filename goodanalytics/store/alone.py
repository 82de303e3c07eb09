"""
One hit that the host's own code says of a visitor whom it names, in two statements: `sale(visitor, …)` inside the host's transaction.

The worker's way takes ten statements and two for a savepoint, whether for one hit or for five hundred. Here is one visitor, no evidence
that could join people, and at the most one visit, so it takes two:

1. `take` notes the receipt, locks the person's rows in the order of their ids, and reads them with the visits that are going on.
   Receipts come before visitors, as everywhere (`store.ledger`).
2. `put` writes the visitor, the visit, the event and the conversion, all of them or none.

A statement that waited for a lock has read the rest with an older snapshot. Whoever was before us changed a row of the person, or only
the visit: the first shows in `take`, where the locked row differs from the one of its own snapshot, the second in `put`, which writes
only if the visit is still what was read. In both cases, and whenever the plan wants more than this, the hit goes the worker's way.
A merge that we waited for and that only added rows to the person is as if it came after us: nothing of what we write depends on them.

Half of the time that a sale takes is PostgreSQL's, so both statements are put plainly: straight to the driver, prepared once, each value
a parameter of its own (for one row that costs the server a third of a JSON text), and of visitor and visit only what changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import count
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity_rows import Member, State
from goodanalytics.core.people import People
from goodanalytics.core.plan import History, Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.migrations import days
from goodanalytics.store import conversions, counting, ledger
from goodanalytics.store.database import as_json, fetch
from goodanalytics.store.tables import Tables

TYPES: Final = frozenset({EventType.CUSTOM, EventType.SHARE, EventType.LEAD, EventType.SALE})

KEYS: Final = ("workspace_id", "id")
OF_VISITOR: Final = ("status", "last_seen_at", "identified_at", "converted_at", "total_events", "ltv")
"""What an event or a sale usually changes of its visitor."""

Row = TypeVar("Row", Visitor, Session)

_visitor = msgspec.json.Decoder(Visitor)
_session = msgspec.json.Decoder(Session)
_rest_of_visitor = attrgetter(*(name for name in Visitor.__struct_fields__ if name not in OF_VISITOR))
_rest_of_session = attrgetter(
    *(name for name in Session.__struct_fields__ if name not in counting.OF_SESSION)
)


def goes(hit: Hit) -> bool:
    """Whether *hit* can go this way: it names its visitor, and brings no evidence beside it."""
    s = hit.signals
    evidence = (s.external_id, s.email, s.phone, s.anonymous_id, s.click_id)
    return (
        hit.origin == "server"
        and hit.trusted
        and not hit.quiet
        and hit.event_type in TYPES
        and s.visitor_id is not None
        and not any(evidence)
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """
    What was read and locked.

    Attributes:
        is_current: Whether nobody overtook it; else it must be read again.
        state, history: Of the person alone.
        has_listeners: Whether any platform or webhook is switched on in the workspace.
        has_partners: Whether anybody may earn with it.
    """

    is_current: bool
    state: State
    history: History
    has_listeners: bool
    has_partners: bool


async def take(conn: AsyncConnection, t: Tables, hit: Hit, since: datetime, until: datetime) -> Taken | None:
    """
    Note *hit*'s receipt, and lock and read its person, with the visits between *since* and *until*.

    `None`, and nothing written, when the hit was here before or its visitor is not known.

    Raises:
        Busy: The host's transaction is older than the day of receipts.
    """
    try:
        answer = await fetch(
            conn, _take(t), hit.workspace_id, hit.signals.visitor_id, hit.id, hit.digest, since, until
        )
    except IntegrityError as error:
        raise ledger.turned(error) from error
    if not answer:
        return None
    rows = [row for row in answer if row["id"] is not None]
    sessions = [_session.decode(visit) for row in rows for visit in row["sessions"] or ()]
    visitors = {(v.workspace_id, v.id): v for v in (_visitor.decode(row["visitor"]) for row in rows)}
    members = {
        key: Member(
            workspace_id=v.workspace_id,
            id=v.id,
            canonical_id=v.canonical_id,
            external_id=v.external_id,
            first_seen_at=v.first_seen_at,
        )
        for key, v in visitors.items()
    }
    return Taken(
        (hit.workspace_id, hit.signals.visitor_id) in visitors and all(row["is_current"] for row in rows),
        State(members=members),
        History(visitors=visitors, sessions=sessions),
        answer[0]["has_listeners"],
        answer[0]["has_partners"],
    )


async def put(conn: AsyncConnection, t: Tables, people: People, plan: Plan, config: Config) -> int | None:
    """
    Write *plan*, which was made of what was taken; how many touches its conversion has, 0 without one.

    `None`, and nothing written, when the plan wants more than this, or somebody changed the visit meanwhile.
    """
    visit = _visit(plan)
    if visit is None or len(plan.visitors) != 1 or len(plan.events) != 1:
        return None
    if people.identities or people.merges or people.moved or people.conflicts or plan.members:
        return None
    (row,), (event,) = plan.visitors, plan.events
    has_company = len(people.company(row.workspace_id, row.id)) > 1
    of_visitor = _changed(plan.visitor_before(row), row, _rest_of_visitor, OF_VISITOR)
    of_session = tuple(_changed(*pair, _rest_of_session, counting.OF_SESSION) for pair in visit)
    values = [row.workspace_id, row.id, *_values(t.visitors, attrgetter(*of_visitor)(row), of_visitor)]
    for (before, after), names in zip(visit, of_session, strict=True):
        values += (before.id, before.events, before.engaged_ms, before.last_event_at)
        values += _values(t.sessions, attrgetter(*names)(after), names)
    names = _names(t.events)
    values += _values(t.events, [event.get(name) for name in names], names)
    for one in plan.conversions:
        found = conversions.row_of(one, people, config)
        values += _values(t.conversions, itemgetter(*conversions.COLUMNS)(found), conversions.COLUMNS)
        values.append(found["members"] if has_company else row.id)
    form = _Form(of_visitor, of_session, converts=bool(plan.conversions), has_company=has_company)
    written = await fetch(conn, _put(t, form), *values)
    return written[0][0] if written else None


class _Form(NamedTuple):
    """What `_put` writes: which columns of the visitor, which of the visit if there is one, whether a conversion, of one row or of more."""

    of_visitor: tuple[str, ...]
    of_session: tuple[tuple[str, ...], ...]
    converts: bool
    has_company: bool


def _visit(plan: Plan) -> list[tuple[Session, Session]] | None:
    """The visit before and after, if there is one; `None` when it is a new one, or began earlier than was known."""
    visits = [(plan.session_before(after), after) for after in plan.sessions]
    known = [(before, after) for before, after in visits if before is not None]
    if len(known) != len(visits) or len(known) > 1:
        return None
    return known if all(before.started_at == after.started_at for before, after in known) else None


def _changed(
    before: Row | None, after: Row, rest: Callable[[Row], Any], usual: tuple[str, ...]
) -> tuple[str, ...]:
    """The columns to write: the *usual* ones if *rest*, all others, stay as they are; else all that may change."""
    if before is not None and rest(before) == rest(after):
        return usual
    return tuple(name for name in after.__struct_fields__ if name not in KEYS)


def _values(table: Table, values: Sequence[Any], names: tuple[str, ...]) -> list[Any]:
    """*values* of these columns, as `_param` takes them."""
    found = list(values)
    for place in _jsons(table, names):
        if found[place] is not None:
            found[place] = as_json(found[place])
    return found


@lru_cache(maxsize=64)
def _names(table: Table) -> tuple[str, ...]:
    return tuple(table.c.keys())


@lru_cache(maxsize=64)
def _jsons(table: Table, names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(place for place, name in enumerate(names) if isinstance(table.c[name].type, JSONB))


@lru_cache(maxsize=64)
def _take(t: Tables) -> str:
    return (
        f"WITH open AS MATERIALIZED ({days.OPEN_DAY.format(schema=t.schema)}), "
        f"taken AS (INSERT INTO {t.receipts} (workspace_id, hit_id, day, digest) "
        "SELECT $1::uuid, $3::uuid, open.day, $4::text FROM open "
        f"WHERE EXISTS (SELECT FROM {t.visitors} WHERE workspace_id = $1 AND id = $2) "
        f"AND NOT EXISTS (SELECT FROM {t.receipts} k WHERE k.workspace_id = $1 AND k.hit_id = $3 AND k.day < open.day) "
        "ON CONFLICT DO NOTHING RETURNING 1) "
        "SELECT p.*, "
        f"EXISTS (SELECT FROM {t.platform_settings} p WHERE p.workspace_id = $1 AND p.enabled) "
        f"OR EXISTS (SELECT FROM {t.webhooks} h WHERE h.workspace_id = $1 AND h.enabled) AS has_listeners, "
        f"EXISTS (SELECT FROM {t.partners} q WHERE q.workspace_id = $1) AS has_partners "
        # A row that came to another person while we waited for it is none of this one's any more, and is left out.
        "FROM taken LEFT JOIN LATERAL (SELECT v.id, row_to_json(v)::text AS visitor, "
        f"(SELECT u.ctid FROM {t.visitors} u WHERE u.workspace_id = v.workspace_id AND u.id = v.id) = v.ctid AS is_current, "
        # OFFSET keeps the index by time from being chosen while there are few visits: it would read everybody's.
        "(SELECT array_agg(row_to_json(s)::text) FROM (SELECT s.* "
        f"FROM {t.sessions} s WHERE s.workspace_id = v.workspace_id AND s.visitor_id = v.id OFFSET 0) AS s "
        "WHERE s.last_event_at >= $5 AND s.started_at <= $6) AS sessions "
        f"FROM {t.visitors} v WHERE v.workspace_id = $1 AND v.canonical_id = "
        f"(SELECT m.canonical_id FROM {t.visitors} m WHERE m.workspace_id = $1 AND m.id = $2) "
        "ORDER BY v.id FOR UPDATE) AS p ON true"
    )


@lru_cache(maxsize=256)
def _put(t: Tables, form: _Form) -> str:
    number = count(3)
    sets = ", ".join(_set(t.visitors, name, number) for name in form.of_visitor)
    parts, still = [], ""
    for names in form.of_session:
        before = " AND ".join(
            f"{name} = ${next(number)}" for name in ("id", "events", "engaged_ms", "last_event_at")
        )
        changed = ", ".join(_set(t.sessions, name, number) for name in names)
        parts.append(
            f"s AS (UPDATE {t.sessions} SET {changed} WHERE workspace_id = $1 AND {before} RETURNING 1)"
        )
        still = "WHERE EXISTS (SELECT FROM s)"
    person = f"WHERE workspace_id = $1 AND id = $2{still.replace('WHERE', ' AND')}"
    parts.append(f"v AS (UPDATE {t.visitors} SET {sets} {person} RETURNING 1)")
    parts.append(f"e AS ({_insert(t.events, _names(t.events), number, still)})")
    if form.converts:
        first = next(number)
        number = count(first)
        place = {name: first + index for index, name in enumerate(conversions.COLUMNS)}
        given = f"${first + len(place)}"
        # What an array holds is seen when it is planned, and then it is planned anew each time, which takes longer than all the
        # rest: a sub-select hides it.
        members = (
            f"unnest((SELECT {given}::uuid[])) AS m (id)"
            if form.has_company
            else f"(SELECT {given}::uuid AS id) AS m"
        )
        touches = conversions.touches(t, members, "$1", f"${place['occurred_at']}")
        parts.append(
            f"c AS ({_insert(t.conversions, conversions.COLUMNS, number, still, touches=touches)} "
            "ON CONFLICT (workspace_id, event_id) DO NOTHING RETURNING jsonb_array_length(touches) AS touches)"
        )
    touched = "coalesce((SELECT touches FROM c), 0)" if form.converts else "0"
    return f"WITH {', '.join(parts)} SELECT {touched} FROM v"


def _insert(table: Table, names: tuple[str, ...], number: Iterator[int], condition: str, **more: str) -> str:
    columns = ", ".join(f'"{name}"' for name in (*names, *more))
    values = ", ".join((*(_param(table, name, number) for name in names), *more.values()))
    return f"INSERT INTO {table} ({columns}) SELECT {values} {condition}"


def _set(table: Table, name: str, number: Iterator[int]) -> str:
    return f'"{name}" = {_param(table, name, number)}'


def _param(table: Table, name: str, number: Iterator[int]) -> str:
    """The next parameter, as a value of this column. What is no plain value for the driver goes as text."""
    kind = table.c[name].type
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    written = "::text" if isinstance(kind, JSONB | INET) else ""
    return f"${next(number)}{written}::{kind.compile(dialect)}"


__all__ = ["TYPES", "Taken", "goes", "put", "take"]
