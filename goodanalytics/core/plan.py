"""
What a batch of hits changes: the whole of processing without the database.

`ingest` loads what the batch may touch into a `State`, adds the hits one after the other, and the ledger writes what came
out. Each hit sees what the hits before it did, so a batch of 500 gives what 500 batches of one would.

1. Rows are read, changed as values, and written once. Nothing here knows SQL or the time of day.
2. Every id that is made comes from the hit's own id (`derived_id`), so processing a log again gives the same rows.
3. A hit's row is its browser's own, also after a merge: see `core.visitors`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.core import identity, sessions
from goodanalytics.core.consent import remembered
from goodanalytics.core.conversions import Converted, Sale, Sales, is_conversion
from goodanalytics.core.devices import Device
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity import Identifier, Kind
from goodanalytics.core.identity_rules import DEFAULT_RULES, IdentityRules
from goodanalytics.core.outcomes import Outcome
from goodanalytics.core.people import (
    UNUSED,
    ClickFacts,
    ConflictRow,
    FormerIdentityRow,
    IdentityRow,
    MergeRow,
    People,
    State,
    derived_id,
)
from goodanalytics.core.places import Place
from goodanalytics.core.remembered import remember
from goodanalytics.core.sessions import Moment, Session
from goodanalytics.core.sources import Source
from goodanalytics.core.touches import told_by_host, touched
from goodanalytics.core.visitors import Visitor, fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """
    A hit with what was read out of it.

    Attributes:
        source: `None` when the hit cannot know where its visitor came from.
        ip: As it may be stored.
        rules: What the host set about identity.
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
    rules: IdentityRules = DEFAULT_RULES

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """The evidence of this hit."""
        return identity.identifiers(self.hit, self.rules)


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """When a visit ends, as configured."""

    timeout: timedelta
    split_on_source: bool


class Plan:
    """
    The changes of one batch.

    Attributes:
        events: New rows.
        conversions: Leads, sales and refunds among them that count.
    """

    def __init__(
        self,
        state: State,
        policy: SessionPolicy,
        rules: IdentityRules = DEFAULT_RULES,
        sales: Mapping[tuple[UUID, UUID], Sale] = MappingProxyType({}),
    ) -> None:
        self._policy = policy
        self._sales = Sales(sales)
        self._people = People(state, rules)
        self._rows = self._people.rows
        self._clicks = state.clicks
        self._visits: dict[tuple[UUID, UUID], dict[UUID, Session]] = defaultdict(dict)
        for session in state.sessions:
            self._visits[session.workspace_id, session.visitor_id][session.id] = session
        self.events: list[dict[str, Any]] = []
        self.conversions: list[Converted] = []
        self._touched_sessions: dict[tuple[UUID, UUID], UUID] = {}

    @property
    def identities(self) -> list[IdentityRow]:
        """Values that point to a visitor from this batch on."""
        return self._people.identities

    @property
    def moved(self) -> list[tuple[IdentityRow, UUID]]:
        """Browsers that changed hands, each with the visitor that it pointed to before the batch."""
        return [self._people.moved[key] for key in sorted(self._people.moved)]

    @property
    def former(self) -> list[FormerIdentityRow]:
        """Where those browsers pointed to, and until when."""
        return self._people.former

    @property
    def merges(self) -> list[MergeRow]:
        """New rows of the ledger."""
        return self._people.merges

    @property
    def conflicts(self) -> dict[tuple[UUID, UUID], ConflictRow]:
        """Who was kept apart, by hit and person."""
        return self._people.conflicts

    @property
    def made(self) -> set[tuple[UUID, UUID]]:
        """The visitors that were not there before the batch: workspace and id."""
        return self._people.made

    @property
    def visitors(self) -> list[Visitor]:
        """The rows of visitors that the batch made or changed, by id."""
        return [self._rows[key] for key in sorted(self._people.touched)]

    @property
    def sessions(self) -> list[Session]:
        """The rows of sessions that the batch made or changed, by id."""
        return [
            self._visits[workspace_id, visitor_id][session_id]
            for (workspace_id, session_id), visitor_id in sorted(self._touched_sessions.items())
        ]

    def person(self, workspace_id: UUID, visitor_id: UUID) -> Visitor | None:
        """The whole person behind a row, with the batch so far counted in."""
        return fold(self.rows_of(workspace_id, visitor_id))

    def rows_of(self, workspace_id: UUID, visitor_id: UUID) -> list[Visitor]:
        """All rows of the person behind a row, by their ids."""
        row = self._rows.get((workspace_id, visitor_id))
        return [] if row is None else self._people.rows_of(workspace_id, row.canonical_id)

    def add(self, understood: Understood) -> Outcome:
        """Take one hit in: who, which visit, what changes."""
        hit, offered = understood.hit, understood.identifiers
        if self._people.forgotten(hit, offered):
            return Outcome(hit.id, "dropped", reason="forgotten")
        if hit.event_type is EventType.REFUND:
            taken = self._sales.take(hit)
            if isinstance(taken, str):
                return Outcome(hit.id, "refused", reason=taken)
            hit, understood = taken, replace(understood, hit=taken)
        visitor = self._people.identify(hit, offered)
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
        if is_conversion(understood.hit):
            found = self._sales.converted(understood.hit, visitor.id, url=understood.url, ip=understood.ip)
            self.conversions.append(found)

    def tie(self, workspace_id: UUID, one: UUID, other: UUID) -> None:
        """Let the persons of two rows be one from now on."""
        rows = self._rows[workspace_id, one], self._rows[workspace_id, other]
        older, younger = sorted(rows, key=lambda row: (row.first_seen_at, row.id))
        if older.canonical_id != younger.canonical_id:
            self._people.join(workspace_id, younger.canonical_id, older.canonical_id)

    # Which visit -----------------------------------------------------------------------------------------------------

    def _with_click(self, understood: Understood, visitor: Visitor) -> Understood:
        """Let a landing take its click's source where its own address and referrer say less."""
        hit, click_id = understood.hit, understood.hit.signals.click_id
        if click_id is None:
            return understood
        if hit.origin == "link":
            known = self._people.known(hit.workspace_id, Kind.CLICK, str(click_id))
            if known is not None and known.hit_id == hit.id:
                facts = ClickFacts(understood.source or Source(), hit.link_id)
                self._clicks[hit.workspace_id, click_id] = facts
            return understood
        click = self._clicks.get((hit.workspace_id, click_id))
        if click is None or understood.source is None or understood.source.confidence != "low":
            return understood
        if click.source.is_direct or not self._is_landing(understood, visitor):
            return understood
        return replace(understood, source=click.source)

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
            self._people.put(touched(row, visit.started_at, known.acquisition, hit.id))

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
        if hit.event_type in (EventType.LINK_CLICK, EventType.REFUND):
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
        return self._going_on(hit, self._people.members(hit.workspace_id, person))

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
                **(self._sales.placed(hit, self.events) if hit.event_type is EventType.REFUND else {}),
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
        elif row.bot == UNUSED:
            row = msgspec.structs.replace(row, bot=hit.client.bot)
        consent = remembered(row.consent, hit.consent, hit.occurred_at)
        row = msgspec.structs.replace(
            row,
            first_seen_at=min(row.first_seen_at, hit.occurred_at),
            last_seen_at=max(row.last_seen_at, hit.occurred_at),
            geo=row.geo or ({} if understood.place is None else _as_json(understood.place)),
            device=row.device or ({} if hit.origin == "server" else _as_json(understood.device)),
            platform_signals=remember(
                row.platform_signals,
                hit,
                consent,
                source=understood.source,
                url=understood.url,
                ip=understood.ip,
            ),
            consent=consent,
        )
        if hit.trusted:
            row = told_by_host(row, hit)
        if hit.event_type is EventType.LINK_CLICK and understood.source is not None:
            row = touched(
                row, hit.occurred_at, understood.source.to_json(), signals.click_id, is_first_only=True
            )
        elif session is not None and session.visitor_id == row.id:
            row = touched(row, session.started_at, session.acquisition, session.click_id)
        self._people.put(row)

    def _count(self, visitor: Visitor, *, total_sessions: int) -> None:
        row = self._rows[visitor.workspace_id, visitor.id]
        self._people.put(msgspec.structs.replace(row, total_sessions=row.total_sessions + total_sessions))


def _as_json(found: Device | Place) -> dict[str, Any]:
    return {name: value for name in found.__slots__ if (value := getattr(found, name)) is not None}


__all__ = ["Outcome", "Plan", "SessionPolicy", "Understood"]
