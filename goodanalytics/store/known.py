"""
One person as they stood when they were read, with the versions of their rows.

What is decided of a person can be written in one statement, without a lock before it, if the statement also sees to it that they
still stand as they were read (`store.alone`). The version of a row is its `xmin`, the transaction that wrote it:
https://www.postgresql.org/docs/current/ddl-system-columns.html.

1. Whoever lets a person grow or shrink, or begins, goes on with or corrects one of their visits, writes a row of that person too.
   So where each row is the version that was read, the person is, with all that they did.
2. A transaction may write a row twice, and both versions have its number. Only the last one is ever seen by others, so that what is
   read outside it can be kept (`Recent`); what is read inside the host's transaction is used at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, TypeAlias
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.identity import Identifier
from goodanalytics.core.identity_rows import Member, RowKey, State
from goodanalytics.core.plan import History
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor, fold
from goodanalytics.store import conversions
from goodanalytics.store.database import fetch
from goodanalytics.store.tables import Tables

MOST_VISITS: Final = 50
"""Of one row that may go on and are read, the newest; a browser may come from somewhere else a hundred times a second."""

MOST_PAST: Final = 100
"""Visits of one row, over or not, of which touches are made; asking who somebody is must not cost more the longer they have been there."""

LIFE: Final = timedelta(minutes=1)
MOST_RECENT: Final = 1_000
"""People in the memory of a process, each for so long."""

Whom: TypeAlias = tuple[UUID, UUID | Identifier]

_visitor = msgspec.json.Decoder(Visitor)
_session = msgspec.json.Decoder(Session)


@dataclass(frozen=True, slots=True)
class Known:
    """
    A person as they were read.

    Attributes:
        at: The time for which they were read.
        visitors: All rows of the person.
        visits: Those of these rows that may go on then.
        versions: Of the rows, by their ids.
        touches: What earns a conversion then, as JSON (`store.conversions.touches`); `None` when nobody asked, or they were there too often.
    """

    at: datetime
    visitors: dict[RowKey, Visitor]
    visits: list[Session]
    versions: dict[UUID, int]
    touches: str | None

    @property
    def is_whole(self) -> bool:
        """Whether all visits that may go on were read."""
        rows = [visit.visitor_id for visit in self.visits]
        return all(rows.count(one) < MOST_VISITS for one in set(rows))

    @property
    def touched(self) -> int:
        """How many touches there are."""
        return 0 if self.touches is None else len(msgspec.json.decode(self.touches))

    @property
    def lasts(self) -> bool:
        """Whether it is as good for a later time: no visit begins after the one that it was read for."""
        return all(visit.started_at <= self.at for visit in self.visits)

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
    conn: AsyncConnection,
    t: Tables,
    whom: Whom,
    at: datetime,
    silence: timedelta,
    *,
    with_touches: bool,
) -> Known | None:
    """
    The person of *whom*, with their visits that may go on at that time, after so much *silence*; `None` when there is nobody.

    Args:
        whom: The workspace, and the id of any of their rows, or a value that points to one.
        with_touches: Whether to ask what earns a conversion, too.
    """
    workspace_id, name = whom
    asked = (str(name.kind), name.value) if isinstance(name, Identifier) else (name,)
    until = (at,) if with_touches else ()
    sql = _look(t, is_value=len(asked) > 1, with_touches=with_touches)
    rows = await fetch(conn, sql, workspace_id, at - silence, *asked, *until)
    if not rows:
        return None
    visitors: dict[RowKey, Visitor] = {}
    visits: list[Session] = []
    versions: dict[UUID, int] = {}
    for version, row, visit, _ in rows:
        visitor = _visitor.decode(row)
        visitors[visitor.workspace_id, visitor.id] = visitor
        versions[visitor.id] = version
        if visit is not None:
            visits.append(_session.decode(visit))
    return Known(at, visitors, visits, versions, rows[0][3])


class Recent:
    """People who were read a moment ago, and are likely to do something next: who asks for a visitor often says what they did."""

    def __init__(self) -> None:
        self._people: OrderedDict[RowKey, tuple[datetime, Known]] = OrderedDict()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._people)

    def keep(self, key: RowKey, known: Known, now: datetime) -> None:
        """Keep who is behind *key*, as read outside of any transaction of the host's, and let go of everybody who is past their time."""
        self._people[key] = now, known
        self._people.move_to_end(key)
        while len(self._people) > MOST_RECENT or now - next(iter(self._people.values()))[0] > LIFE:
            self._people.popitem(last=False)

    def forget(self, key: RowKey) -> None:
        """Keep nothing of who is behind *key*."""
        self._people.pop(key, None)

    def take(self, key: RowKey, at: datetime, now: datetime) -> Known | None:
        """Who is behind *key*, as they stand at that time, and forget them: they change now."""
        kept, known = self._people.pop(key, (now, None))
        return known if known is not None and now - kept <= LIFE and known.at <= at else None


@lru_cache(maxsize=64)
def _look(t: Tables, *, is_value: bool, with_touches: bool) -> str:
    whom, until = "$3", "$4"
    if is_value:
        whom = f"(SELECT i.visitor_id FROM {t.identities} i WHERE i.workspace_id = $1 AND i.kind = $3 AND i.value = $4)"
        until = "$5"
    person = f"(SELECT m.canonical_id FROM {t.visitors} m WHERE m.workspace_id = $1 AND m.id = {whom})"
    of_person = f"v.workspace_id = $1 AND v.canonical_id = {person}"
    members = f"(SELECT v.id FROM {t.visitors} v WHERE {of_person}) AS m (id)"
    # The one beyond the most that are counted says that there are too many, before any is read.
    too_many = (
        f"EXISTS (SELECT FROM {members}, LATERAL (SELECT FROM {t.sessions} s "
        f"WHERE s.workspace_id = $1 AND s.visitor_id = m.id OFFSET {MOST_PAST} LIMIT 1) AS s)"
    )
    touches = f"CASE WHEN NOT {too_many} THEN {conversions.touches(t, members, '$1', until)}::text END"
    touches = touches if with_touches else "NULL"
    return (
        f"SELECT v.xmin, row_to_json(v)::text, s.visit, {touches} FROM {t.visitors} v LEFT JOIN LATERAL "
        f"(SELECT row_to_json(s)::text AS visit FROM {t.sessions} s "
        "WHERE s.workspace_id = v.workspace_id AND s.visitor_id = v.id AND s.last_event_at >= $2 "
        f"ORDER BY s.last_event_at DESC LIMIT {MOST_VISITS}) AS s ON true WHERE {of_person}"
    )


__all__ = ["Known", "Recent", "Whom", "look"]
