"""
What a batch of hits changes: the whole of processing without the database.

`ingest` loads what the batch may touch into a `State`, adds the hits one after the other, and the ledger writes what came
out. Each hit sees what the hits before it did, so a batch of 500 gives what 500 batches of one would.

1. Rows are read, changed as values, and written once. Nothing here knows SQL or the time of day.
2. Every id that is made comes from the hit's own id (`derived_id`), so processing a log again gives the same rows.
3. A hit's row is its browser's own, also after a merge: see `core.visitors`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from goodanalytics.core import identity, sessions
from goodanalytics.core.devices import Device
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity import CLICK_WINDOW, Apart, Candidate, Identifier, Kind, Merge, New
from goodanalytics.core.places import Place
from goodanalytics.core.sessions import Moment, Session
from goodanalytics.core.sources import Source
from goodanalytics.core.touches import told_by_host, touched
from goodanalytics.core.visitors import Visitor, fold

Status = Literal["recorded", "repeated", "conflict", "resolved"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of a hit.

    Attributes:
        status: recorded; repeated (this id was here before); conflict (it was here with another body); resolved (its
            visitor was found or made, and nothing else was asked).
        visitor_id: Canonical id; `None` for a repetition.
        reason: Why it is a conflict.
    """

    hit_id: UUID
    status: Status
    visitor_id: UUID | None = None
    reason: str | None = None

    @property
    def event_id(self) -> UUID:
        """An event carries its hit's id."""
        return self.hit_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """
    A hit with what was read out of it.

    Attributes:
        source: `None` when the hit cannot know where its visitor came from.
        ip: As it may be stored.
    """

    hit: Hit
    source: Source | None
    device: Device
    place: Place | None
    url: str | None
    host: str | None
    path: str | None
    referrer: str | None
    ip: str | None

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """The evidence of this hit."""
        return identity.identifiers(self.hit)


class IdentityRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `identities`: this value points to this visitor since that hit."""

    workspace_id: UUID
    kind: str
    value: str
    visitor_id: UUID
    hit_id: UUID | None
    first_seen_at: datetime


class MergeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `merges`: the loser's person is the winner's since that hit, on this evidence."""

    workspace_id: UUID
    id: UUID
    loser_id: UUID
    winner_id: UUID
    evidence: dict[str, Any]
    hit_id: UUID | None
    merged_at: datetime


class ConflictRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `conflicts`: two persons that a hit pointed to and that stay apart."""

    workspace_id: UUID
    hit_id: UUID
    visitor_id: UUID
    other_id: UUID
    reason: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class ClickFacts:
    """Where a click came from, for the landing that follows it."""

    source: Source
    link_id: UUID | None


@dataclass(slots=True)
class State:
    """What is known before the batch: all that its hits can touch."""

    identities: dict[tuple[UUID, str, str], IdentityRow] = field(default_factory=dict)
    visitors: dict[tuple[UUID, UUID], Visitor] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    clicks: dict[tuple[UUID, UUID], ClickFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """When a visit ends, as configured."""

    timeout: timedelta
    split_on_source: bool


def derived_id(hit_id: UUID, at: datetime, purpose: str) -> UUID:
    """An id of version 7 (RFC 9562) that stands for *purpose* of this hit, for ever the same."""
    digest = int.from_bytes(hashlib.sha256(hit_id.bytes + purpose.encode()).digest()[:10])
    milliseconds = int(at.timestamp() * 1_000) & ((1 << 48) - 1)
    value = (milliseconds << 80) | digest
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62))


class Plan:
    """
    The changes of one batch.

    Attributes:
        identities, merges, conflicts, events: New rows.
        visitors, sessions: Rows to write, new and changed.
    """

    def __init__(self, state: State, policy: SessionPolicy) -> None:
        self._policy = policy
        self._known = state.identities
        self._rows = state.visitors
        self._clicks = state.clicks
        self._members: dict[tuple[UUID, UUID], set[UUID]] = defaultdict(set)
        for row in state.visitors.values():
            self._members[row.workspace_id, row.canonical_id].add(row.id)
        self._visits: dict[tuple[UUID, UUID], dict[UUID, Session]] = defaultdict(dict)
        for session in state.sessions:
            self._visits[session.workspace_id, session.visitor_id][session.id] = session
        self.identities: list[IdentityRow] = []
        self.merges: list[MergeRow] = []
        self.conflicts: dict[tuple[UUID, UUID], ConflictRow] = {}
        self.events: list[dict[str, Any]] = []
        self._touched_visitors: set[tuple[UUID, UUID]] = set()
        self._touched_sessions: dict[tuple[UUID, UUID], UUID] = {}

    @property
    def visitors(self) -> list[Visitor]:
        """The rows of visitors that the batch made or changed, by id."""
        return [self._rows[key] for key in sorted(self._touched_visitors)]

    @property
    def sessions(self) -> list[Session]:
        """The rows of sessions that the batch made or changed, by id."""
        return [
            self._visits[workspace_id, visitor_id][session_id]
            for (workspace_id, session_id), visitor_id in sorted(self._touched_sessions.items())
        ]

    def person(self, workspace_id: UUID, visitor_id: UUID) -> Visitor | None:
        """The whole person behind a row, with the batch so far counted in."""
        row = self._rows.get((workspace_id, visitor_id))
        return None if row is None else fold(self._rows_of(workspace_id, row.canonical_id))

    def add(self, understood: Understood) -> Outcome:
        """Take one hit in: who, which visit, what changes."""
        hit = understood.hit
        visitor = self._identify(understood)
        if hit.quiet:
            return Outcome(hit.id, "resolved", visitor.canonical_id)
        self.record(understood, visitor)
        return Outcome(hit.id, "recorded", visitor.canonical_id)

    def record(self, understood: Understood, visitor: Visitor) -> None:
        """Take in a hit that is known to be *visitor*'s: which visit, what changes."""
        link_id = self._landed_by(understood, visitor)
        understood = self._with_click(understood, visitor)
        session = self._sessionize(understood, visitor, link_id)
        self._record_event(understood, visitor, session)
        self._record_visitor(understood, visitor, session)
        if understood.hit.origin == "link":
            self._catch_up(understood, visitor)

    def join(self, workspace_id: UUID, loser: UUID, winner: UUID) -> None:
        """Let the rows of *loser* belong to *winner* from now on; both are canonical ids."""
        for row in self._rows_of(workspace_id, loser):
            self._put(msgspec.structs.replace(row, canonical_id=winner))
        self._members[workspace_id, winner] |= self._members.pop((workspace_id, loser), set())

    # Who -------------------------------------------------------------------------------------------------------------

    def _identify(self, understood: Understood) -> Visitor:
        hit, offered = understood.hit, understood.identifiers
        said = next((i.value for i in offered if i.kind is Kind.EXTERNAL_ID), None)
        decision, aparts = identity.decide(said, self._candidates(hit, offered))
        match decision:
            case New():
                row = self._new_visitor(hit)
            case Merge():
                self._merge(hit, decision)
                row = self._rows[hit.workspace_id, decision.visitor]
            case _:
                row = self._rows[hit.workspace_id, decision.visitor]
        self._note_conflicts(hit, row, aparts)
        self._bind(hit, row, offered)
        return row

    def _candidates(self, hit: Hit, offered: Iterable[Identifier]) -> list[Candidate]:
        matched: dict[UUID, dict[Kind, UUID]] = defaultdict(dict)
        for kind, row in self._matches(hit, offered):
            matched[row.canonical_id].setdefault(kind, row.id)
        found = []
        for person, kinds in matched.items():
            rows = self._rows_of(hit.workspace_id, person)
            external_ids = frozenset(row.external_id for row in rows if row.external_id is not None)
            found.append(Candidate(person, kinds, external_ids, min(row.first_seen_at for row in rows)))
        return found

    def _matches(self, hit: Hit, offered: Iterable[Identifier]) -> Iterable[tuple[Kind, Visitor]]:
        if hit.signals.visitor_id is not None:
            row = self._rows.get((hit.workspace_id, hit.signals.visitor_id))
            if row is not None:
                yield Kind.VISITOR, row
        anonymous = self._owner(hit, next((i for i in offered if i.kind is Kind.ANONYMOUS_ID), None))
        for identifier in offered:
            row = self._owner(hit, identifier)
            if row is None or (
                identifier.kind is Kind.CLICK and not self._may_land(hit, identifier, anonymous)
            ):
                continue
            yield identifier.kind, row

    def _owner(self, hit: Hit, identifier: Identifier | None) -> Visitor | None:
        if identifier is None:
            return None
        known = self._known.get((hit.workspace_id, identifier.kind, identifier.value))
        return None if known is None else self._rows[hit.workspace_id, known.visitor_id]

    def _may_land(self, hit: Hit, click: Identifier, anonymous: Visitor | None) -> bool:
        """
        Whether a click is evidence for this hit.

        It is for the click itself, and for the first browser that lands with it within `CLICK_WINDOW`; afterwards only for
        that browser, which proves itself by its own id.
        """
        if hit.origin == "link":
            return True
        landed = self._known.get((hit.workspace_id, Kind.LANDING, click.value))
        if landed is not None:
            return anonymous is not None and anonymous.id == landed.visitor_id
        clicked = self._known[hit.workspace_id, Kind.CLICK, click.value]
        return abs(hit.occurred_at - clicked.first_seen_at) <= CLICK_WINDOW

    def _new_visitor(self, hit: Hit) -> Visitor:
        new_id = derived_id(hit.id, hit.occurred_at, "visitor")
        row = Visitor(
            workspace_id=hit.workspace_id,
            id=new_id,
            canonical_id=new_id,
            first_seen_at=hit.occurred_at,
            last_seen_at=hit.occurred_at,
            bot=hit.client.bot,
        )
        self._put(row)
        self._members[row.workspace_id, row.id].add(row.id)
        return row

    def _merge(self, hit: Hit, merge: Merge) -> None:
        for loser in merge.losers:
            self.join(hit.workspace_id, loser, merge.winner)
            self.merges.append(
                MergeRow(
                    workspace_id=hit.workspace_id,
                    id=derived_id(hit.id, hit.occurred_at, f"merge {loser}"),
                    loser_id=loser,
                    winner_id=merge.winner,
                    evidence={"matched": [str(kind) for kind in merge.evidence]},
                    hit_id=hit.id,
                    merged_at=hit.received_at,
                )
            )

    def _note_conflicts(self, hit: Hit, row: Visitor, aparts: Iterable[Apart]) -> None:
        for apart in aparts:
            self.conflicts[hit.id, apart.other] = ConflictRow(
                workspace_id=hit.workspace_id,
                hit_id=hit.id,
                visitor_id=row.id,
                other_id=apart.other,
                reason=apart.reason,
                seen_at=hit.received_at,
            )

    def _bind(self, hit: Hit, row: Visitor, offered: Iterable[Identifier]) -> None:
        """Remember that the values of this hit point to *row*; a value that points somewhere already stays there."""
        for identifier in offered:
            is_click = identifier.kind is Kind.CLICK
            if identifier.kind is Kind.EXTERNAL_ID:
                self._name(hit, row, identifier)
            self._remember(hit, row, identifier)
            if is_click and hit.origin != "link" and hit.signals.anonymous_id is not None:
                self._remember(hit, row, Identifier(Kind.LANDING, identifier.value))

    def _remember(self, hit: Hit, row: Visitor, identifier: Identifier) -> None:
        key = (hit.workspace_id, str(identifier.kind), identifier.value)
        if key in self._known:
            return
        known = IdentityRow(
            workspace_id=hit.workspace_id,
            kind=str(identifier.kind),
            value=identifier.value,
            visitor_id=row.id,
            hit_id=hit.id,
            first_seen_at=hit.occurred_at,
        )
        self._known[key] = known
        self.identities.append(known)

    def _name(self, hit: Hit, row: Visitor, identifier: Identifier) -> None:
        """Only the row that an external id points to carries it, so that an unmerge leaves it with one of both."""
        if (hit.workspace_id, Kind.EXTERNAL_ID, identifier.value) not in self._known:
            self._put(
                msgspec.structs.replace(self._rows[row.workspace_id, row.id], external_id=identifier.value)
            )

    # Which visit -----------------------------------------------------------------------------------------------------

    def _with_click(self, understood: Understood, visitor: Visitor) -> Understood:
        """Let a landing take its click's source where its own address and referrer say less."""
        hit, click_id = understood.hit, understood.hit.signals.click_id
        if click_id is None:
            return understood
        if hit.origin == "link":
            known = self._known.get((hit.workspace_id, Kind.CLICK, str(click_id)))
            if known is not None and known.hit_id == hit.id:
                facts = ClickFacts(understood.source or Source(), hit.link_id)
                self._clicks[hit.workspace_id, click_id] = facts
            return understood
        click = self._clicks.get((hit.workspace_id, click_id))
        if click is None or understood.source is None or understood.source.confidence != "low":
            return understood
        if click.source.is_direct or not self._is_landing(understood, visitor):
            return understood
        return msgspec_replace(understood, source=click.source)

    def _catch_up(self, understood: Understood, visitor: Visitor) -> None:
        """
        Give a visit that landed with this click what it could not know: where the click came from.

        Click and landing come from different hosts and so lie in different shards; two workers may take the landing first.
        """
        hit, source = understood.hit, understood.source or Source()
        visits = self._visits[hit.workspace_id, visitor.id]
        # No visit further away than that is ever loaded for this click.
        since, until = hit.occurred_at - self._policy.timeout, hit.occurred_at + self._policy.timeout
        near = [v for v in visits.values() if v.last_event_at >= since and v.started_at <= until]
        for visit in [v for v in near if v.click_id == hit.id and v.link_id is None]:
            known = msgspec.structs.replace(visit, link_id=hit.link_id)
            if Source.from_json(visit.acquisition).confidence == "low" and not source.is_direct:
                known = sessions.with_source(known, source)
            visits[visit.id] = known
            self._touched_sessions[visit.workspace_id, visit.id] = visitor.id
            row = self._rows[hit.workspace_id, visitor.id]
            self._put(touched(row, visit.started_at, known.acquisition, hit.id))

    def _landed_by(self, understood: Understood, visitor: Visitor) -> UUID | None:
        """The short link whose click this hit lands with, if it does."""
        hit, click_id = understood.hit, understood.hit.signals.click_id
        if click_id is None or hit.origin != "browser":
            return None
        click = self._clicks.get((hit.workspace_id, click_id))
        return None if click is None or not self._is_landing(understood, visitor) else click.link_id

    def _is_landing(self, understood: Understood, visitor: Visitor) -> bool:
        """
        Whether the browser arrives by its click now.

        It goes on sending the click for as long as the cookie lives, also when it comes back by another way: so not in the
        visit that the click began, nor ever after it. A stranger who was handed the address lands as well.
        """
        click_id = understood.hit.signals.click_id
        live = self._live(understood, visitor)
        if live is not None and live.click_id == click_id:
            return False
        row = self._rows[visitor.workspace_id, visitor.id]
        # Before the first visit it is the click itself that noted its id.
        return row.total_sessions == 0 or click_id not in (row.first_click_id, row.last_click_id)

    def _sessionize(self, understood: Understood, visitor: Visitor, link_id: UUID | None) -> Session | None:
        hit = understood.hit
        live = self._live(understood, visitor)
        if hit.client.bot is not None and live is not None and live.bot is None:
            return None
        if hit.event_type is EventType.LINK_CLICK:
            return None
        is_page = hit.event_type is EventType.PAGEVIEW
        moment = Moment(
            occurred_at=hit.occurred_at,
            event_type=hit.event_type,
            source=understood.source,
            opens=hit.event_type in sessions.OPENS and (hit.origin == "browser" or is_page),
            url=understood.url,
            path=understood.path,
            engaged_ms=hit.engaged_ms or 0,
        )
        match sessions.step(
            live,
            moment,
            self._fresh_session(understood, visitor, link_id),
            split_on_source=self._policy.split_on_source,
        ):
            case sessions.Outside():
                return None
            case sessions.Opened(session=session) | sessions.Split(session=session):
                self._count(visitor, total_sessions=session.bot is None)
            case sessions.Continued(session=session):
                pass
        self._visits[session.workspace_id, session.visitor_id][session.id] = session
        self._touched_sessions[session.workspace_id, session.id] = session.visitor_id
        return session

    def _live(self, understood: Understood, visitor: Visitor) -> Session | None:
        """The browser's own visit; for a server's hit, that of any browser of the person. Nobody goes on with a bot's visit."""
        hit = understood.hit
        found = self._going_on(hit, [visitor.id])
        if found is not None or hit.origin == "browser":
            return found
        person = self._rows[hit.workspace_id, visitor.id].canonical_id
        return self._going_on(hit, self._members[hit.workspace_id, person])

    def _going_on(self, hit: Hit, members: Iterable[UUID]) -> Session | None:
        visits = [
            visit
            for member in members
            for visit in self._visits[hit.workspace_id, member].values()
            if visit.bot is None or hit.client.bot is not None
        ]
        return sessions.going_on(visits, hit.occurred_at, self._policy.timeout)

    def _fresh_session(self, understood: Understood, visitor: Visitor, link_id: UUID | None) -> Session:
        hit = understood.hit
        return Session(
            workspace_id=hit.workspace_id,
            id=derived_id(hit.id, hit.occurred_at, "session"),
            visitor_id=visitor.id,
            started_at=hit.occurred_at,
            last_event_at=hit.occurred_at,
            click_id=hit.signals.click_id,
            link_id=link_id,
            device_type=understood.device.type,
            browser=understood.device.browser,
            os=understood.device.os,
            country=None if understood.place is None else understood.place.country,
            bot=hit.client.bot,
        )

    # What changes ----------------------------------------------------------------------------------------------------

    def _record_event(self, understood: Understood, visitor: Visitor, session: Session | None) -> None:
        hit, device, place = understood.hit, understood.device, understood.place
        source = understood.source
        if session is not None and (source is None or source.is_direct):
            source = Source.from_json(session.acquisition)
        source = source or Source()
        self.events.append(
            {
                "workspace_id": hit.workspace_id,
                "visitor_id": visitor.id,
                "occurred_at": hit.occurred_at,
                "id": hit.id,
                "received_at": hit.received_at,
                "session_id": None if session is None else session.id,
                "event_type": str(hit.event_type),
                "event_name": hit.name,
                "origin": hit.origin,
                "trusted": hit.trusted,
                "url": understood.url,
                "host": understood.host,
                "path": understood.path,
                "title": hit.title,
                "referrer": understood.referrer,
                "source": source.platform,
                "medium": source.medium,
                "channel": source.channel,
                "campaign": source.campaign,
                "acquisition": source.to_json(),
                "link_id": hit.link_id or (None if session is None else session.link_id),
                "click_id": hit.signals.click_id,
                "device_type": device.type,
                "browser": device.browser,
                "browser_version": device.browser_version,
                "os": device.os,
                "os_version": device.os_version,
                "country": None if place is None else place.country,
                "region": None if place is None else place.region,
                "city": None if place is None else place.city,
                "language": hit.client.language,
                "screen": hit.client.screen,
                "ip": understood.ip,
                "user_agent": hit.client.user_agent,
                "bot": hit.client.bot,
                "bot_version": hit.client.bot_version,
                "amount_cents": hit.amount_cents,
                "currency": hit.currency,
                "engaged_ms": hit.engaged_ms,
                "scroll_depth": hit.scroll_depth,
                "key": hit.key,
                "properties": hit.properties,
            }
        )

    def _record_visitor(self, understood: Understood, visitor: Visitor, session: Session | None) -> None:
        hit, signals = understood.hit, understood.hit.signals
        row = self._rows[visitor.workspace_id, visitor.id]
        if hit.client.bot is None:
            is_ping = hit.event_type is EventType.ENGAGEMENT
            row = msgspec.structs.replace(
                row,
                bot=None,
                total_pageviews=row.total_pageviews + (hit.event_type is EventType.PAGEVIEW),
                total_events=row.total_events + (not is_ping),
            )
        row = msgspec.structs.replace(
            row,
            first_seen_at=min(row.first_seen_at, hit.occurred_at),
            last_seen_at=max(row.last_seen_at, hit.occurred_at),
            geo=row.geo or ({} if understood.place is None else _place_json(understood.place)),
            device=row.device or ({} if hit.origin == "server" else _device_json(understood.device)),
            platform_signals={
                **row.platform_signals,
                **hit.platform_signals,
                **dict(_click_ids(understood.source)),
            },
        )
        if hit.trusted:
            row = told_by_host(row, hit)
        if hit.event_type is EventType.LINK_CLICK and understood.source is not None:
            row = touched(
                row, hit.occurred_at, understood.source.to_json(), signals.click_id, is_first_only=True
            )
        elif session is not None and session.visitor_id == row.id:
            row = touched(row, session.started_at, session.acquisition, session.click_id)
        self._put(row)

    def _count(self, visitor: Visitor, *, total_sessions: int) -> None:
        row = self._rows[visitor.workspace_id, visitor.id]
        self._put(msgspec.structs.replace(row, total_sessions=row.total_sessions + total_sessions))

    def _put(self, row: Visitor) -> None:
        self._rows[row.workspace_id, row.id] = row
        self._touched_visitors.add((row.workspace_id, row.id))

    def _rows_of(self, workspace_id: UUID, person: UUID) -> list[Visitor]:
        return [self._rows[workspace_id, member] for member in sorted(self._members[workspace_id, person])]


def msgspec_replace(understood: Understood, *, source: Source) -> Understood:
    """*understood* with another source."""
    values = {name: getattr(understood, name) for name in Understood.__slots__}
    return Understood(**{**values, "source": source})


def _click_ids(source: Source | None) -> Iterable[tuple[str, str]]:
    return () if source is None else source.click_ids


def _device_json(device: Device) -> dict[str, Any]:
    return {name: value for name in Device.__slots__ if (value := getattr(device, name)) is not None}


def _place_json(place: Place) -> dict[str, Any]:
    return {name: value for name in Place.__slots__ if (value := getattr(place, name)) is not None}
