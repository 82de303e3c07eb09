"""
What history would be if today's rules of what is a bot had always held.

A verdict decides more than its own event: people and bots never share a visit, only people count, a bot's device is its name,
and whether a landing takes its click's source depends on the visits before it. So a person whose verdicts changed is
processed again, by the same `core.plan`.

1. It is done twice, with the verdicts as stored and with today's, and only what differs between the two is laid over what is
   stored. What the verdicts do not touch stays as it is, also where the past can no longer be told exactly: events
   that were deleted since, settings that changed since.
2. Events come in the order in which they were received. Of several that were received at one moment, the one that opened its
   visit is first and refunds are last, else the id decides.
3. A hit without a version was never judged (a host's own word), and is not judged now.
4. A row of a visitor is a bot's when everything that it recorded is, and carries the reason of the first.
5. The device of an event whose verdict changed is read again from the user agent alone; client hints are not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from goodanalytics.core import devices, sources
from goodanalytics.core.devices import Device
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.identity_rows import Member, MergeRow, State, derived_id
from goodanalytics.core.people import People
from goodanalytics.core.places import Place
from goodanalytics.core.plan import ClickFacts, History, Plan, SessionPolicy, Understood
from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor

EVENT_COLUMNS: Final = (
    "session_id", "link_id", "source", "medium", "channel", "campaign", "acquisition",
    "device_type", "browser", "browser_version", "os", "os_version", "bot",
)  # fmt: skip
"""The columns of an event that can depend on a verdict. `bot_version` is written where `bot` changes."""

_VISITOR_FIELDS: Final = (
    "first_source", "first_source_at", "first_click_id", "last_source", "last_source_at", "last_click_id", "device", "bot",
)  # fmt: skip
_COUNTERS: Final = ("total_sessions", "total_pageviews", "total_events")

Row = Mapping[str, Any]
"""An event, as its row."""

Key = tuple[UUID, datetime, UUID]

Judge = Callable[[Row], str | None]
"""Why an event is a bot's, or `None`."""


@dataclass(frozen=True, slots=True)
class Click:
    """A click, as a landing that follows it sees it."""

    workspace_id: UUID
    id: UUID
    received_at: datetime
    facts: ClickFacts


@dataclass(frozen=True, slots=True)
class Past:
    """
    All that is stored of one person.

    Attributes:
        events: Of all *visitors*, in any order.
        merges: Those that made the person what it is; none that was undone.
        clicks: Those that the events name, in the order in which they were received.
    """

    visitors: list[Visitor]
    sessions: list[Session]
    events: list[Row]
    merges: list[MergeRow]
    clicks: Sequence[Click]


@dataclass(slots=True)
class Changes:
    """
    What has to be written.

    Attributes:
        events: Whole rows, as far as they were given.
        sessions: Visits that are new or changed.
        gone: Ids of visits that never were.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    gone: list[UUID] = field(default_factory=list)
    visitors: list[Visitor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What processing gave, by key and by id."""

    events: Mapping[Key, Row]
    sessions: Mapping[UUID, Session]
    visitors: Mapping[UUID, Visitor]


def changes(
    past: Past, judge: Judge, version: int, *, policy: SessionPolicy, own_hosts: Collection[str]
) -> Changes:
    """What the verdicts of *judge*, which follows rules of *version*, change of *past*."""
    ordered = sorted(past.events, key=_received)
    before = _process(past, ordered, _stored_verdict, policy, own_hosts)
    after = _process(past, ordered, judge, policy, own_hosts)
    return _changes(past, ordered, before, after, {"bot_version": version})


def without(past: Past, merge_id: UUID, *, policy: SessionPolicy, own_hosts: Collection[str]) -> Changes:
    """
    What would be stored if the merge *merge_id* of *past* had never been.

    A hit from the host's servers joins the visit that any browser of the person is on (DESIGN 0011): the only thing that a merge
    changes about rows.
    """
    ordered = sorted(past.events, key=_received)
    merges = [merge for merge in past.merges if merge.id != merge_id]
    before = _process(past, ordered, _stored_verdict, policy, own_hosts)
    after = _process(replace(past, merges=merges), ordered, _stored_verdict, policy, own_hosts)
    return _changes(past, ordered, before, after, {})


def _stored_verdict(row: Row) -> str | None:
    bot: str | None = row["bot"]
    return bot


def _changes(
    past: Past, ordered: Sequence[Row], before: _Outcome, after: _Outcome, judged: Mapping[str, Any]
) -> Changes:
    """What differs between *before* and *after*, laid over what is stored; *judged* goes with a changed verdict."""
    named = _stored_names(ordered, before)
    before, after = _renamed(before, named), _renamed(after, named)
    found = Changes()
    for row in ordered:
        if differing := _differing(before.events[_key(row)], after.events[_key(row)], EVENT_COLUMNS):
            found.events.append({**row, **differing, **(judged if "bot" in differing else {})})
    stored = {session.id: session for session in past.sessions}
    for session_id, session in after.sessions.items():
        if (old := before.sessions.get(session_id)) is None or session_id not in stored:
            if old != session:
                found.sessions.append(session)
        elif differing := _differing_fields(old, session):
            found.sessions.append(msgspec.structs.replace(stored[session_id], **differing))
    found.gone = sorted((before.sessions.keys() - after.sessions.keys()) & stored.keys())
    for stored_row in past.visitors:
        key = stored_row.id
        if (visitor := _corrected(stored_row, before.visitors[key], after.visitors[key])) != stored_row:
            found.visitors.append(visitor)
    return found


def _key(row: Row) -> Key:
    """An event's own, within a workspace: a receipt is forgotten one day, and then an id may come again."""
    return row["visitor_id"], row["occurred_at"], row["id"]


def _received(row: Row) -> tuple[Any, ...]:
    opened = derived_id(row["id"], row["occurred_at"], "session") == row["session_id"]
    return row["received_at"], not opened, row["event_type"] == EventType.REFUND, row["id"]


def _process(
    past: Past, ordered: Sequence[Row], judge: Judge, policy: SessionPolicy, own_hosts: Collection[str]
) -> _Outcome:
    """Process the events once more, under the verdicts of *judge*, on visitors of whom nothing is known yet."""
    verdicts = {_key(row): judge(row) for row in ordered}
    recorded = {row["id"] for row in ordered}
    first: dict[UUID, Row] = {}
    for row in ordered:
        first.setdefault(row["visitor_id"], row)
    blank = {
        (v.workspace_id, v.id): Visitor(
            workspace_id=v.workspace_id,
            id=v.id,
            canonical_id=v.id,
            first_seen_at=v.first_seen_at,
            last_seen_at=v.last_seen_at,
            bot=verdicts[_key(first[v.id])] if v.id in first else None,
        )
        for v in past.visitors
    }
    clicks: dict[tuple[UUID, UUID], ClickFacts] = {}
    waiting = deque(past.clicks)
    members = {
        key: Member(workspace_id=v.workspace_id, id=v.id, canonical_id=v.id, first_seen_at=v.first_seen_at)
        for key, v in blank.items()
    }
    people = People(State(members=members))
    plan = Plan(people, History(visitors=blank, clicks=clicks), policy)
    merges: Sequence[MergeRow] = sorted(past.merges, key=lambda merge: (merge.merged_at, merge.id))
    for row in ordered:
        while waiting and waiting[0].received_at <= row["received_at"]:
            click = waiting.popleft()
            clicks[click.workspace_id, click.id] = click.facts
        merges = _still_to_come(people, merges, row, recorded)
        company = people.company(row["workspace_id"], row["visitor_id"]) if row["origin"] == "server" else ()
        plan.record(_understood(row, verdicts[_key(row)], own_hosts), row["visitor_id"], company)
    written = {visitor.id: visitor for visitor in plan.visitors}
    return _Outcome(
        {_key(event): event for event in plan.events},
        {session.id: session for session in plan.sessions},
        {v.id: written.get(v.id, v) for v in blank.values()},
    )


def _still_to_come(
    people: People, merges: Sequence[MergeRow], row: Row, recorded: Collection[UUID]
) -> Sequence[MergeRow]:
    """Join those who were one person by the time of *row*; the other merges."""
    waiting = []
    for merge in merges:
        is_due = merge.hit_id not in recorded and merge.merged_at <= row["received_at"]
        if is_due or merge.hit_id == row["id"]:
            people.tie(merge.workspace_id, merge.loser_member_id, merge.winner_member_id)
        else:
            waiting.append(merge)
    return waiting


def _understood(row: Row, bot: str | None, own_hosts: Collection[str]) -> Understood:
    hit = Hit(
        id=row["id"],
        workspace_id=row["workspace_id"],
        received_at=row["received_at"],
        occurred_at=row["occurred_at"],
        event_type=EventType(row["event_type"]),
        origin=row["origin"],
        url=row["url"],
        referrer=row["referrer"],
        signals=Signals(visitor_id=row["visitor_id"], click_id=row["click_id"]),
        client=Client(user_agent=row["user_agent"], bot=bot),
        engaged_ms=row["engaged_ms"],
        link_id=row["link_id"] if row["origin"] == "link" else None,  # others have it from their visit
        # A click's source is its link's, and no visit ever lent it another.
        source=row["acquisition"] if row["origin"] == "link" else None,
        sale_id=row.get("sale_event_id"),  # a refund stands where its sale stands
    )
    device = (
        devices.parse(row["user_agent"])
        if bot != row["bot"]
        else Device(
            type=row["device_type"] or "other",
            browser=row["browser"],
            browser_version=row["browser_version"],
            os=row["os"],
            os_version=row["os_version"],
        )
    )
    return Understood(
        hit=hit,
        source=sources.of_hit(hit, own_hosts),
        device=device,
        place=None if row["country"] is None else Place(country=row["country"]),
        url=row["url"],
        host=row["host"],
        path=row["path"],
        referrer=row["referrer"],
        ip=None,
    )


def _stored_names(ordered: Sequence[Row], before: _Outcome) -> Mapping[UUID, UUID]:
    """The stored id of each visit that processing gave an id; they differ where the hit that opened it was deleted since."""
    named: dict[UUID, UUID] = {}
    taken: set[UUID] = set()
    for row in ordered:
        made, stored = before.events[_key(row)]["session_id"], row["session_id"]
        if made is not None and stored is not None and made not in named and stored not in taken:
            named[made] = stored
            taken.add(stored)
    return named


def _renamed(outcome: _Outcome, named: Mapping[UUID, UUID]) -> _Outcome:
    if all(made == stored for made, stored in named.items()):
        return outcome
    sessions = [msgspec.structs.replace(s, id=named.get(s.id, s.id)) for s in outcome.sessions.values()]
    events = {
        key: {**event, "session_id": named.get(event["session_id"], event["session_id"])}
        for key, event in outcome.events.items()
    }
    return _Outcome(events, {s.id: s for s in sessions}, outcome.visitors)


def _differing(before: Row, after: Row, names: Sequence[str]) -> dict[str, Any]:
    return {name: after[name] for name in names if after[name] != before[name]}


def _differing_fields(before: msgspec.Struct, after: msgspec.Struct) -> dict[str, Any]:
    return _differing(msgspec.structs.asdict(before), msgspec.structs.asdict(after), before.__struct_fields__)


def _corrected(stored: Visitor, before: Visitor, after: Visitor) -> Visitor:
    differing = _differing_fields(before, after)
    kept: dict[str, Any] = {name: differing[name] for name in _VISITOR_FIELDS if name in differing}
    for name in _COUNTERS:
        kept[name] = getattr(stored, name) + getattr(after, name) - getattr(before, name)
    if kept["total_pageviews"] or kept["total_events"]:
        kept["bot"] = None  # a person did that, even if the event itself is gone
    return msgspec.structs.replace(stored, **kept)
