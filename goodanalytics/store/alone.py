"""
One hit that the host's own code says of a visitor whom it names, in one statement: `sale(visitor, …)` inside the host's transaction.

The worker's way takes ten statements and two for a savepoint, whether for one hit or for five hundred. Here is one visitor, no evidence
that could join people, and at the most one visit. What the hit changes is planned of the person as they were read, by
`visitor(request)` a moment ago or else now (`store.known`), and `put` then does everything at once:

1. It notes the receipt, and locks the person's rows, in the order of their ids. Receipts come before visitors, as everywhere
   (`store.ledger`).
2. It writes the visitor, the visit, the event and the conversion, all of them or none: only if all these rows are still the
   versions that were read. A statement that waited for a lock compares with what it then finds.

Where somebody was faster, and whenever the plan wants more than this, the hit goes the worker's way.

Most of the time that a sale takes is PostgreSQL's, so the statement is put plainly: straight to the driver, prepared once, each value
a parameter of its own (for one row that costs the server a third of a JSON text), and of visitor and visit only what changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.people import People
from goodanalytics.core.plan import Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.migrations import days
from goodanalytics.store import conversions, counting, ledger
from goodanalytics.store.database import as_json, fetch
from goodanalytics.store.known import Known
from goodanalytics.store.tables import Tables

TYPES: Final = frozenset({EventType.CUSTOM, EventType.SHARE, EventType.LEAD, EventType.SALE})

COLUMNS_OF_CONVERSION: Final = (*conversions.COLUMNS, "touches")
KEYS: Final = ("workspace_id", "id")
OF_VISITOR: Final = ("status", "last_seen_at", "identified_at", "converted_at", "total_events", "ltv")
"""What an event or a sale usually changes of its visitor."""

Row = TypeVar("Row", Visitor, Session)

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


class Written(NamedTuple):
    """
    What became of a hit.

    Attributes:
        is_new: Whether its receipt was written; else it was here before, and nothing is written.
        is_done: Whether the rest was written, too; else somebody changed the person since they were read.
        touches: How many its conversion has; 0 without one.
        has_listeners: Whether any platform or webhook is switched on in the workspace.
        has_partners: Whether anybody may earn with it.
    """

    is_new: bool
    is_done: bool
    touches: int
    has_listeners: bool
    has_partners: bool


async def put(
    conn: AsyncConnection, t: Tables, hit: Hit, known: Known, people: People, plan: Plan, config: Config
) -> Written | None:
    """
    Note *hit*'s receipt and write *plan*, which was made of what was *known*; the receipt alone where that is no more.

    `None`, and nothing written, when the plan wants more than this.

    Raises:
        Busy: The host's transaction is older than the day of receipts.
    """
    visitors, visit = plan.visitors, _visit(plan)
    if visit is None or len(visitors) != 1 or len(plan.events) != 1:
        return None
    if people.identities or people.merges or people.moved or people.conflicts or plan.members:
        return None
    (row,), (event,), versions = visitors, plan.events, known.versions
    company = sorted(visitor_id for _, visitor_id in known.visitors)
    of_visitor = _changed(plan.visitor_before(row), row, _rest_of_visitor, OF_VISITOR)
    of_session = tuple(_changed(*pair, _rest_of_session, counting.OF_SESSION) for pair in visit)
    form = _Form(of_visitor, of_session, bool(plan.conversions), len(company) > 1, bool(config.platforms))
    values: list[Any] = [row.workspace_id, row.id, hit.id, hit.digest]
    if form.has_company:
        values += (company, f"{{{','.join(str(versions[one]) for one in company)}}}")
    else:
        values.append(versions[row.id])
    values += _values(t.visitors, attrgetter(*of_visitor)(row), of_visitor)
    for (before, after), names in zip(visit, of_session, strict=True):
        values += (before.id, versions[before.id])
        values += _values(t.sessions, attrgetter(*names)(after), names)
    names = _names(t.events)
    values += _values(t.events, itemgetter(*names)(event), names)
    for one in plan.conversions:
        found = conversions.row_of(one, config)
        values += _values(t.conversions, itemgetter(*conversions.COLUMNS)(found), conversions.COLUMNS)
        values.append(known.touches)
    try:
        (written,) = await fetch(conn, _put(t, form), *values)
    except IntegrityError as error:
        raise ledger.turned(error) from error
    return Written(*written)


class _Form(NamedTuple):
    """
    What `_put` writes and asks.

    Attributes:
        of_visitor: Its columns.
        of_session: Its columns, if there is a visit.
        converts: Whether there is a conversion.
        has_company: Whether the person has more than one row.
        has_platforms: Whether we know any platform that could be switched on.
    """

    of_visitor: tuple[str, ...]
    of_session: tuple[tuple[str, ...], ...]
    converts: bool
    has_company: bool
    has_platforms: bool


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


@lru_cache(maxsize=256)
def _put(t: Tables, form: _Form) -> str:
    # Each part goes by the one before it: receipt, who (locked), all of them (k), session, visitor, and then event and conversion.
    # Of the values, the workspace, the visitor, the receipt's hit and digest come first.
    number = count(5)
    parts = [f"open AS MATERIALIZED ({days.OPEN_DAY.format(schema=t.schema)})", f"r AS ({_receipt(t)})"]
    locked = _still(t, number, has_company=form.has_company)
    parts.append(f"w AS ({locked})")
    still = "w"
    if form.has_company:
        parts.append("k AS (SELECT FROM w HAVING count(*) = cardinality((SELECT $5::uuid[])))")
        still = "k"
    sets = ", ".join(_set(t.visitors, name, number) for name in form.of_visitor)
    for names in form.of_session:
        before = " AND ".join(f"{name} = ${next(number)}" for name in ("id", "xmin"))
        changed = ", ".join(_set(t.sessions, name, number) for name in names)
        parts.append(
            f"s AS (UPDATE {t.sessions} SET {changed} FROM {still} WHERE workspace_id = $1 AND {before} RETURNING 1)"
        )
        still = "s"
    parts.append(
        f"v AS (UPDATE {t.visitors} SET {sets} FROM {still} WHERE workspace_id = $1 AND id = $2 RETURNING 1)"
    )
    parts.append(f"e AS ({_insert(t.events, _names(t.events), number, still)})")
    if form.converts:
        parts.append(
            f"c AS ({_insert(t.conversions, COLUMNS_OF_CONVERSION, number, still)} "
            "ON CONFLICT (workspace_id, event_id) DO NOTHING RETURNING jsonb_array_length(touches) AS touches)"
        )
    touched = "coalesce((SELECT touches FROM c), 0)" if form.converts else "0"
    listeners = [f"EXISTS (SELECT FROM {t.webhooks} h WHERE h.workspace_id = $1 AND h.enabled)"]
    if form.has_platforms:
        listeners.append(
            f"EXISTS (SELECT FROM {t.platform_settings} p WHERE p.workspace_id = $1 AND p.enabled)"
        )
    return (
        f"WITH {', '.join(parts)} SELECT EXISTS (SELECT FROM r), EXISTS (SELECT FROM v), {touched}, {' OR '.join(listeners)}, "
        f"EXISTS (SELECT FROM {t.partners} q WHERE q.workspace_id = $1)"
    )


def _receipt(t: Tables) -> str:
    return (
        f"INSERT INTO {t.receipts} (workspace_id, hit_id, day, digest) SELECT $1::uuid, $3::uuid, open.day, $4::text FROM open "
        f"WHERE NOT EXISTS (SELECT FROM {t.receipts} k WHERE k.workspace_id = $1 AND k.hit_id = $3 AND k.day < open.day) "
        "ON CONFLICT DO NOTHING RETURNING 1"
    )


def _still(t: Tables, number: Iterator[int], *, has_company: bool) -> str:
    """The person's rows that are what they were, locked, if the receipt is new."""
    if not has_company:
        return (
            f"SELECT FROM {t.visitors} WHERE workspace_id = $1 AND id = $2 AND xmin = ${next(number)} "
            "AND EXISTS (SELECT FROM r) FOR UPDATE"
        )
    # What an array holds is seen when it is planned, and then it is planned anew each time, which takes longer than all the
    # rest: a sub-select hides it.
    ids, versions = f"(SELECT ${next(number)}::uuid[])", f"(SELECT ${next(number)}::text::xid[])"
    return (
        f"SELECT FROM unnest({ids}, {versions}) AS k (id, version) "
        f"JOIN {t.visitors} v ON v.workspace_id = $1 AND v.id = k.id AND v.xmin = k.version "
        "WHERE EXISTS (SELECT FROM r) ORDER BY v.id FOR UPDATE OF v"
    )


def _insert(table: Table, names: tuple[str, ...], number: Iterator[int], still: str) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(_param(table, name, number) for name in names)
    return f"INSERT INTO {table} ({columns}) SELECT {values} FROM {still}"


def _set(table: Table, name: str, number: Iterator[int]) -> str:
    return f'"{name}" = {_param(table, name, number)}'


def _param(table: Table, name: str, number: Iterator[int]) -> str:
    """The next parameter, as a value of this column. What is no plain value for the driver goes as text."""
    kind = table.c[name].type
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    written = "::text" if isinstance(kind, JSONB | INET) else ""
    return f"${next(number)}{written}::{kind.compile(dialect)}"


__all__ = ["TYPES", "Written", "goes", "put"]
