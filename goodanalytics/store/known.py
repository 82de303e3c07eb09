"""
One person as they stood when they were read, with the versions of their rows.

What is decided of a person can be written in one statement, without a lock before it, if the statement also sees to it that they
still stand as they were read (`store.alone`). The version of a row is its `xmin`, the transaction that wrote it:
https://www.postgresql.org/docs/current/ddl-system-columns.html.

1. Whoever lets a person grow or shrink, or begins or goes on with one of their visits, writes a row of that person too.
   So where each row is the version that was read, the person is.
2. A transaction may write a row twice, and both versions have its number. Only the last one is ever seen by others, so that what is
   read outside it can be kept (`Remembered`); what is read inside the host's transaction is used at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.identity_rows import Member, RowKey, State
from goodanalytics.core.plan import History
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor, fold
from goodanalytics.store.database import fetch
from goodanalytics.store.tables import Tables

MOST_VISITS: Final = 50
"""Of one row that are read, the newest; a browser may come from somewhere else a hundred times a second."""

LIFE: Final = timedelta(minutes=1)
MOST_REMEMBERED: Final = 1_000

_visitor = msgspec.json.Decoder(Visitor)
_session = msgspec.json.Decoder(Session)


@dataclass(frozen=True, slots=True)
class Known:
    """
    A person as they were read.

    Attributes:
        since: Visits that went on from then on were read.
        visitors: All rows of the person.
        visits: Of these rows.
        versions: Of rows and visits, by their ids.
        is_whole: Whether all visits since then were read.
    """

    since: datetime
    visitors: dict[RowKey, Visitor]
    visits: list[Session]
    versions: dict[UUID, int]
    is_whole: bool

    @property
    def person(self) -> Visitor:
        """The person as one."""
        found = fold(self.visitors.values())
        assert found is not None, "who was read has a row"  # noqa: S101  # for the type checker
        return found

    def state(self) -> State:
        """The person's rows, for a plan to change."""
        return State(
            members={
                key: Member(
                    workspace_id=v.workspace_id,
                    id=v.id,
                    canonical_id=v.canonical_id,
                    external_id=v.external_id,
                    first_seen_at=v.first_seen_at,
                )
                for key, v in self.visitors.items()
            }
        )

    def history(self) -> History:
        """What they did, for a plan to go on with."""
        return History(visitors=self.visitors, sessions=self.visits)


async def look(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, visitor_id: UUID, since: datetime
) -> Known | None:
    """The person of *visitor_id*, any member's id, with their visits that went on after *since*; `None` when nobody has it."""
    rows = await fetch(conn, _look(t), workspace_id, visitor_id, since)
    if not rows:
        return None
    visitors: dict[RowKey, Visitor] = {}
    visits: list[Session] = []
    versions: dict[UUID, int] = {}
    of_row: dict[UUID, int] = {}
    for version, row, visit_version, visit in rows:
        visitor = _visitor.decode(row)
        visitors[visitor.workspace_id, visitor.id] = visitor
        versions[visitor.id] = version
        if visit is not None:
            session = _session.decode(visit)
            visits.append(session)
            versions[session.id] = visit_version
            of_row[visitor.id] = of_row.get(visitor.id, 0) + 1
    return Known(since, visitors, visits, versions, max(of_row.values(), default=0) < MOST_VISITS)


class Remembered:
    """People who were read a moment ago, and are likely to do something next: who asks for a visitor often says what they did."""

    def __init__(self) -> None:
        self._people: OrderedDict[RowKey, tuple[datetime, Known]] = OrderedDict()

    def keep(self, key: RowKey, known: Known, now: datetime) -> None:
        """Remember who is behind *key*, as read outside of any transaction of the host's."""
        self._people[key] = now, known
        self._people.move_to_end(key)
        if len(self._people) > MOST_REMEMBERED:
            self._people.popitem(last=False)

    def take(self, key: RowKey, since: datetime, now: datetime) -> Known | None:
        """Who is behind *key*, with visits from *since* on, and forget them: they change now."""
        at, known = self._people.pop(key, (now, None))
        if known is None or now - at > LIFE or known.since > since:
            return None
        return known


@lru_cache(maxsize=64)
def _look(t: Tables) -> str:
    return (
        "SELECT v.xmin, row_to_json(v)::text, s.version, s.visit "
        f"FROM {t.visitors} m JOIN {t.visitors} v ON v.workspace_id = m.workspace_id AND v.canonical_id = m.canonical_id "
        "LEFT JOIN LATERAL (SELECT s.xmin AS version, row_to_json(s)::text AS visit "
        f"FROM {t.sessions} s WHERE s.workspace_id = v.workspace_id AND s.visitor_id = v.id AND s.last_event_at >= $3 "
        f"ORDER BY s.last_event_at DESC LIMIT {MOST_VISITS}) AS s ON true "
        "WHERE m.workspace_id = $1 AND m.id = $2"
    )


__all__ = ["Known", "Remembered", "look"]
