"""
One hit that the host's own code says of a visitor whom it names, in one statement: `sale(visitor, …)` inside the host's transaction.

The worker's way takes ten statements and two for a savepoint, whether for one hit or for five hundred. Here is one visitor, no evidence
that could join people, and at the most one visit. What the hit changes is planned of the person as they were read, by
`visitor(request)` a moment ago or else now (`store.known`), and `put` then does everything at once:

1. It writes the visitor, if all rows of the person are still the versions that were read. Where they have several rows, these are
   locked first, in the order of their ids.
2. Then come the conversion, which is its own receipt, the visit, which the person's lock guards, and the event. What is no conversion
   notes its receipt before anything else. Both is as everywhere (`store.ledger`).
3. A statement that waited for a lock compares with what it then finds. A visitor whose conversion was here before is written back.

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
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.conversions import is_conversion, is_told_as_one
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.people import People
from goodanalytics.core.plan import Plan
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.migrations import days
from goodanalytics.store import conversions, counting, ledger
from goodanalytics.store.columns import kind
from goodanalytics.store.database import as_json, fetch
from goodanalytics.store.known import Known
from goodanalytics.store.tables import Tables

TYPES: Final = frozenset({EventType.CUSTOM, EventType.SHARE, EventType.LEAD, EventType.SALE})

KEYS: Final = ("workspace_id", "id")
OF_BROWSER: Final = frozenset((
    "title", "referrer", "browser", "browser_version", "os", "os_version", "country", "region", "city", "language", "screen", "ip",
    "user_agent", "bot", "bot_version", "engaged_ms", "scroll_depth",
))  # fmt: skip
"""What only a browser tells: a hit of the host's own code leaves these columns of its event empty, and the statement leaves them out."""

SHARED: Final = {"workspace_id": "$1", "visitor_id": "$2", "id": "$3", "event_id": "$3"}
"""Values of event and conversion that the statement has already."""

OF_CONVERSION: Final = tuple(name for name in conversions.COLUMNS if name not in SHARED)
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
        and (is_conversion(hit) or not is_told_as_one(hit))
        and s.visitor_id is not None
        and not any(evidence)
    )


class Written(NamedTuple):
    """
    What became of a hit.

    Attributes:
        is_noted: Whether its receipt was written, if it has one.
        is_done: Whether everything was written; else nothing but the receipt: it was here before, or somebody changed the person.
        has_listeners: Whether any platform or webhook is switched on in the workspace.
        has_partners: Whether anybody may earn with it.
    """

    is_noted: bool
    is_done: bool
    has_listeners: bool
    has_partners: bool


async def put(
    conn: AsyncConnection, t: Tables, hit: Hit, known: Known, people: People, plan: Plan, config: Config
) -> Written | None:
    """
    Write *plan*, which was made of *hit* and what was *known*; where that is no more, nothing but the receipt.

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
    of_event = _of_event(t.events, is_told_by_browser=any(event[name] is not None for name in OF_BROWSER))
    form = _Form(
        of_visitor, of_session, of_event, bool(plan.conversions), len(company) > 1, bool(config.platforms)
    )
    values: list[Any] = [row.workspace_id, row.id, hit.id]
    if not form.converts:
        values.append(hit.digest)
    values += _values(t.visitors, attrgetter(*of_visitor)(row), of_visitor)
    if form.has_company:
        values += (company, f"{{{','.join(str(versions[one]) for one in company)}}}")
    else:
        values.append(versions[row.id])
    for one in plan.conversions:
        found = conversions.row_of(one, config)
        values += _values(t.conversions, itemgetter(*OF_CONVERSION)(found), OF_CONVERSION)
        values.append(known.touches)
    for (_, after), names in zip(visit, of_session, strict=True):
        values.append(after.id)
        values += _values(t.sessions, attrgetter(*names)(after), names)
    values += _values(t.events, itemgetter(*of_event)(event), of_event)
    try:
        ((is_noted, is_begun, is_done, *asked),) = await fetch(conn, _put(t, form), *values)
    except IntegrityError as error:
        raise ledger.turned(error) from error
    if is_begun and not is_done:  # the same key was here before
        await ledger.record_visitors(conn, t, [known.visitors[row.workspace_id, row.id]])
    return Written(is_noted, is_done, *asked)


class _Form(NamedTuple):
    """
    What `_put` writes and asks.

    Attributes:
        of_visitor: Its columns.
        of_session: Its columns, if there is a visit.
        of_event: Its columns, without those that are shared.
        converts: Whether there is a conversion.
        has_company: Whether the person has more than one row.
        has_platforms: Whether we know any platform that could be switched on.
    """

    of_visitor: tuple[str, ...]
    of_session: tuple[tuple[str, ...], ...]
    of_event: tuple[str, ...]
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


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.c]


@lru_cache(maxsize=64)
def _of_event(events: Table, *, is_told_by_browser: bool) -> tuple[str, ...]:
    left_out = SHARED.keys() if is_told_by_browser else SHARED.keys() | OF_BROWSER
    return tuple(name for name in _columns(events) if name not in left_out)


@lru_cache(maxsize=64)
def _jsons(table: Table, names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(place for place, name in enumerate(names) if isinstance(table.c[name].type, JSONB))


@lru_cache(maxsize=256)
def _put(t: Tables, form: _Form) -> str:
    # Each part goes by the one before it: the receipt (r) of what is no conversion, all rows of the person (k), the one that changes
    # (v), the conversion (c), and then visit and event. Of the values, the workspace, the visitor and the hit come first.
    number, parts = count(4), list[str]()
    is_new = "true"
    if not form.converts:
        is_new = "EXISTS (SELECT FROM r)"
        parts.append(f"open AS MATERIALIZED ({days.OPEN_DAY.format(schema=t.schema)})")
        parts.append(f"r AS ({_receipt(t, number)})")
    sets = ", ".join(_set(t.visitors, name, number) for name in form.of_visitor)
    if form.has_company:
        parts += _still(t, number, is_new)
        still = "FROM k WHERE"
    else:
        still = f"WHERE xmin = ${next(number)} AND {is_new} AND"
    parts.append(f"v AS (UPDATE {t.visitors} SET {sets} {still} workspace_id = $1 AND id = $2 RETURNING 1)")
    written = "v"
    if form.converts:
        shared = [name for name in conversions.COLUMNS if name in SHARED]
        insert = _insert(t.conversions, shared, (*OF_CONVERSION, "touches"), number, "v")
        parts.append(f"c AS ({insert} ON CONFLICT (workspace_id, event_id) DO NOTHING RETURNING 1)")
        written = "c"
    for names in form.of_session:
        going_on = f"FROM {written} WHERE workspace_id = $1 AND id = ${next(number)}"
        changed = ", ".join(_set(t.sessions, name, number) for name in names)
        parts.append(f"s AS (UPDATE {t.sessions} SET {changed} {going_on})")
    shared = [name for name in _columns(t.events) if name in SHARED]
    parts.append(f"e AS ({_insert(t.events, shared, form.of_event, number, written)})")
    listeners = [f"EXISTS (SELECT FROM {t.webhooks} h WHERE h.workspace_id = $1 AND h.enabled)"]
    if form.has_platforms:
        listeners.append(
            f"EXISTS (SELECT FROM {t.platform_settings} p WHERE p.workspace_id = $1 AND p.enabled)"
        )
    noted = "false" if form.converts else "EXISTS (SELECT FROM r)"
    return (
        f"WITH {', '.join(parts)} SELECT {noted}, EXISTS (SELECT FROM v), EXISTS (SELECT FROM {written}), "
        f"{' OR '.join(listeners)}, EXISTS (SELECT FROM {t.partners} q WHERE q.workspace_id = $1)"
    )


def _receipt(t: Tables, number: Iterator[int]) -> str:
    return (
        f"INSERT INTO {t.receipts} (workspace_id, hit_id, day, digest) SELECT $1::uuid, $3::uuid, open.day, ${next(number)}::text "
        f"FROM open WHERE NOT EXISTS (SELECT FROM {t.receipts} k WHERE k.workspace_id = $1 AND k.hit_id = $3 AND k.day < open.day) "
        "ON CONFLICT DO NOTHING RETURNING 1"
    )


def _still(t: Tables, number: Iterator[int], is_new: str) -> list[str]:
    """The person's rows, locked, and whether all are what they were."""
    # What an array holds is seen when it is planned, and then it is planned anew each time, which takes longer than all the
    # rest: a sub-select hides it.
    ids, versions = f"(SELECT ${next(number)}::uuid[])", f"(SELECT ${next(number)}::text::xid[])"
    locked = (
        f"SELECT FROM unnest({ids}, {versions}) AS k (id, version) "
        f"JOIN {t.visitors} v ON v.workspace_id = $1 AND v.id = k.id AND v.xmin = k.version "
        f"WHERE {is_new} ORDER BY v.id FOR UPDATE OF v"
    )
    return [f"w AS ({locked})", f"k AS (SELECT FROM w HAVING count(*) = cardinality({ids}))"]


def _insert(
    table: Table, shared: Sequence[str], names: Sequence[str], number: Iterator[int], still: str
) -> str:
    columns = ", ".join(f'"{name}"' for name in (*shared, *names))
    values = ", ".join([*(SHARED[name] for name in shared), *(_param(table, name, number) for name in names)])
    return f"INSERT INTO {table} ({columns}) SELECT {values} FROM {still}"


def _set(table: Table, name: str, number: Iterator[int]) -> str:
    return f'"{name}" = {_param(table, name, number)}'


def _param(table: Table, name: str, number: Iterator[int]) -> str:
    """The next parameter, as a value of this column. What is no plain value for the driver goes as text."""
    written = "::text" if isinstance(table.c[name].type, JSONB | INET) else ""
    return f"${next(number)}{written}::{kind(table.c[name])}"


__all__ = ["TYPES", "Written", "goes", "put"]
