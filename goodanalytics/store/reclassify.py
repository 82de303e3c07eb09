"""
Today's rules of what is a bot, laid over history: `goodanalytics replay --reclassify`.

Visitors are gone through by their primary key, `BATCH` at a time. The user agents of a batch are judged again; where a verdict
differs from the one that is stored, the whole person is locked as the worker locks it, processed again by `core.reclassify`,
and written in the same transaction. So it can be stopped at any time and started again: what is done is no different any
more, and a second run writes nothing. Users may go on meanwhile; the worker waits for a person for as long as one batch takes.

A batch costs one read when nothing differs, and else a fixed number of statements. It holds all events of its differing people
in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, Uuid, any_, case, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core import bots
from goodanalytics.core.identity_rows import MergeRow
from goodanalytics.core.plan import ClickFacts, SessionPolicy
from goodanalytics.core.reclassify import EVENT_COLUMNS, Changes, Click, Past, Row, changes
from goodanalytics.core.sources import Source
from goodanalytics.errors import Busy
from goodanalytics.store import commissions, ledger, link_days
from goodanalytics.store.columns import kind
from goodanalytics.store.database import Database, as_json, run
from goodanalytics.store.history import sessions_of
from goodanalytics.store.people import Stale, lock_persons
from goodanalytics.store.tables import Tables
from goodanalytics.store.workspaces import next_workspace

BATCH: Final = 200  # visitors
ATTEMPTS: Final = 8
"""How often a batch is begun again when the worker merges its people meanwhile."""

_EVER: Final = (datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))

_READ: Final = (
    "workspace_id", "visitor_id", "occurred_at", "id", "received_at", "event_type", "origin", "url", "host", "path", "referrer",
    "click_id", "country", "user_agent", "engaged_ms", "bot_version", *EVENT_COLUMNS,
)  # fmt: skip
_KEY: Final = ("workspace_id", "visitor_id", "occurred_at", "id")
_WRITTEN: Final = ("bot_version", *EVENT_COLUMNS)


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far it has come, counted from the start of this run.

    Attributes:
        visitors: Rows that were looked at.
        total: Rows to look at, as counted at the start.
        events, visits, people: Rows that were changed; *people* are rows of visitors, and visits that vanished count too.
    """

    visitors: int = 0
    total: int = 0
    events: int = 0
    visits: int = 0
    people: int = 0


async def reclassify(
    database: Database, config: Config, *, since: datetime | None = None, batch: int = BATCH
) -> AsyncIterator[Progress]:
    """
    Judge the recorded user agents by today's rules and correct what follows from it; tells of each batch when it is committed.

    Args:
        since: Only verdicts on events that occurred from then on; aware.
        config: *own_hosts* and *session* have to be those of the app, for visits are counted anew by them.

    Raises:
        Busy: The worker kept merging the same people.
        DatabaseUnavailable: Nobody answers. What was told of is committed.
    """
    t = database.tables
    async with database.connect() as conn:
        total = await _scalar(conn, f"SELECT count(*) FROM {t.visitors} {_seen(since, 'WHERE')}", since=since)
    at = Progress(total=total)
    yield at
    workspace_id: UUID | None = None
    while (workspace_id := await next_workspace(database, t.visitors, workspace_id)) is not None:
        after: UUID | None = UUID(int=0)
        while after is not None:
            async with database.connect() as conn:
                ids = await _next_visitors(conn, t, workspace_id, after, since, batch)
                differing = await _differing(conn, t, workspace_id, ids, since) if ids else []
            found = (
                await _correct(database, config, workspace_id, differing, since) if differing else Changes()
            )
            after = ids[-1] if ids else None
            at = Progress(
                visitors=at.visitors + len(ids),
                total=total,
                events=at.events + len(found.events),
                visits=at.visits + len(found.sessions) + len(found.gone),
                people=at.people + len(found.visitors),
            )
            yield at


def _seen(since: datetime | None, word: str) -> str:
    # A visitor was last seen when its latest event occurred.
    return "" if since is None else f"{word} last_seen_at >= CAST(:since AS timestamptz)"


async def _scalar(conn: AsyncConnection, sql: str, *, since: datetime | None, **values: Any) -> Any:
    return (await run(conn, sql, **values, **({} if since is None else {"since": since}))).scalar_one()


async def _next_visitors(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, after: UUID, since: datetime | None, most: int
) -> list[UUID]:
    found = await run(
        conn,
        f"SELECT id FROM {t.visitors} WHERE workspace_id = :workspace_id AND id > :after {_seen(since, 'AND')} "
        "ORDER BY id LIMIT :most",
        workspace_id=workspace_id,
        after=after,
        most=most,
        **({} if since is None else {"since": since}),
    )
    return [row.id for row in found]


async def _differing(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, ids: Sequence[UUID], since: datetime | None
) -> list[UUID]:
    """Those of *ids* of whom a stored verdict is not today's."""
    found = await run(
        conn,
        f"SELECT DISTINCT visitor_id, user_agent, bot FROM {t.events} WHERE workspace_id = :workspace_id "
        "AND visitor_id = ANY(CAST(:ids AS uuid[])) AND bot_version IS NOT NULL"
        + ("" if since is None else " AND occurred_at >= :since"),
        workspace_id=workspace_id,
        ids=list(ids),
        **({} if since is None else {"since": since}),
    )
    return sorted({row.visitor_id for row in found if _verdict(row.user_agent) != row.bot})


def _verdict(user_agent: str | None) -> str | None:
    """As the edge would note it today."""
    return next(iter(bots.judge(user_agent).reasons), None)


async def _correct(
    database: Database, config: Config, workspace_id: UUID, ids: Sequence[UUID], since: datetime | None
) -> Changes:
    """Process the people that *ids* belong to again, in one transaction; what was written."""
    policy = SessionPolicy(config.session.timeout, config.session.split_on_source)

    def judge(row: Row) -> str | None:
        is_judged = row["bot_version"] is not None and (since is None or row["occurred_at"] >= since)
        return _verdict(row["user_agent"]) if is_judged else row["bot"]

    for _ in range(ATTEMPTS):
        try:
            async with database.begin() as conn:
                found = Changes()
                for past in await load_past(conn, database.tables, config, workspace_id, ids):
                    one = changes(past, judge, bots.VERSION, policy=policy, own_hosts=config.own_hosts)
                    found.events += one.events
                    found.sessions += one.sessions
                    found.gone += one.gone
                    found.visitors += one.visitors
                await write(conn, database.tables, workspace_id, found)
                if found.events:
                    judged = {row["visitor_id"] for row in found.events}
                    await commissions.resettle(
                        conn, database.tables, workspace_id, judged, config.referral, config.clock()
                    )
                return found
        except Stale:
            continue
    raise Busy(
        f"{len(ids)} visitors were merged {ATTEMPTS} times while they were to be corrected. Start again"
    )


async def load_past(
    conn: AsyncConnection, t: Tables, config: Config, workspace_id: UUID, ids: Iterable[UUID]
) -> list[Past]:
    """
    The people that *ids* belong to, locked.

    Raises:
        Stale: One of them was merged while we waited for its lock.
    """
    visitors = await lock_persons(conn, t, [(workspace_id, v) for v in ids])
    sessions = await sessions_of(conn, t, visitors.keys(), _EVER, config.session.timeout)
    person_of = {row.id: row.canonical_id for row in visitors.values()}
    e, c, m, among = t.events.c, t.conversions.c, t.merges.c, literal(list(person_of), ARRAY(Uuid))
    sale = (
        select(c.sale_event_id).where(c.workspace_id == e.workspace_id, c.event_id == e.id).scalar_subquery()
    )
    sale_event_id = case((e.event_type == "refund", sale)).label("sale_event_id")
    found = await conn.execute(
        select(*(e[name] for name in _READ), sale_event_id).where(
            e.workspace_id == workspace_id, e.visitor_id == any_(among)
        )
    )
    events = [dict(row) for row in found.mappings()]
    merges = await conn.execute(
        select(t.merges).where(
            m.workspace_id == workspace_id, m.loser_member_id == any_(among), m.undone_at.is_(None)
        )
    )
    clicks = await _clicks(conn, t, workspace_id, {row["click_id"] for row in events if row["click_id"]})
    people: dict[UUID, Past] = defaultdict(lambda: Past([], [], [], [], clicks))
    for visitor in visitors.values():
        people[visitor.canonical_id].visitors.append(visitor)
    for session in sessions:
        people[person_of[session.visitor_id]].sessions.append(session)
    for event in events:
        people[person_of[event["visitor_id"]]].events.append(event)
    for merge in merges:
        people[person_of[merge.loser_member_id]].merges.append(MergeRow(**merge._mapping))
    return list(people.values())


async def _clicks(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, click_ids: Iterable[UUID]
) -> list[Click]:
    """Where the clicks came from: an identity knows its click's visitor and time, which is the event's key."""
    i, e = t.identities.c, t.events.c
    values = literal([str(click_id) for click_id in click_ids], ARRAY(Text))
    found = await conn.execute(
        select(e.id, e.received_at, e.acquisition, e.link_id)
        .join_from(
            t.identities,
            t.events,
            (e.workspace_id == i.workspace_id)
            & (e.visitor_id == i.visitor_id)
            & (e.occurred_at == i.first_seen_at)
            & (e.id == i.hit_id),
        )
        .where(
            i.workspace_id == workspace_id,
            i.kind == "click",
            i.value == any_(values),
            e.event_type == "link_click",
        )
        .order_by(e.received_at, e.id)
    )
    return [
        Click(
            workspace_id,
            row.id,
            row.received_at,
            ClickFacts(Source.from_json(row.acquisition), row.link_id),
        )
        for row in found
    ]


async def write(conn: AsyncConnection, t: Tables, workspace_id: UUID, found: Changes) -> None:
    """Write *found* over what is stored. The people are locked since `load_past`."""
    if found.events:
        changed = {(workspace_id, row["visitor_id"]) for row in found.events}
        await link_days.touch_people(conn, t, changed)
        kinds = ", ".join(f'"{name}" {kind(t.events.c[name])}' for name in (*_KEY, *_WRITTEN))
        sets = ", ".join(f'"{name}" = r."{name}"' for name in _WRITTEN)
        same = " AND ".join(f"e.{name} = r.{name}" for name in _KEY)
        await run(
            conn,
            f"UPDATE {t.events} e SET {sets} FROM json_to_recordset(CAST(:rows AS json)) AS r ({kinds}) WHERE {same}",
            rows=as_json([{name: row[name] for name in (*_KEY, *_WRITTEN)} for row in found.events]),
        )
        await link_days.touch_people(conn, t, changed)  # their events may carry other links now
    await ledger.record_sessions(conn, t, found.sessions)
    if found.gone:
        await run(
            conn,
            f"DELETE FROM {t.sessions} WHERE workspace_id = :workspace_id AND id = ANY(CAST(:ids AS uuid[]))",
            workspace_id=workspace_id,
            ids=found.gone,
        )
    await ledger.record_visitors(conn, t, found.visitors)
    # Whoever corrects a visit writes a row of its person, so that nobody goes on with what it was (`store.known`).
    if unwritten := {row["visitor_id"] for row in found.events} - {row.id for row in found.visitors}:
        await run(
            conn,
            f"UPDATE {t.visitors} SET last_seen_at = last_seen_at "
            "WHERE workspace_id = :workspace_id AND id = ANY(CAST(:ids AS uuid[]))",
            workspace_id=workspace_id,
            ids=sorted(unwritten),
        )
