"""
What a batch of hits changes: the whole of processing without the database.

First `core.people` says whose each hit is, then this file what it changes about them: `ingest` loads what was known of those
who take hits into a `History`, adds the hits one after the other, and the ledger writes what came out. Each hit sees what
the hits before it did, so a batch of 500 gives what 500 batches of one would.

1. Rows are read, changed as values, and written once. Nothing here knows SQL or the time of day.
2. Every id that is made comes from the hit's own id (`derived_id`), so processing a log again gives the same rows.
3. A hit's row is its browser's own, also after a merge: see `core.visitors`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.core import late_clicks, sessions
from goodanalytics.core.consent import remembered
from goodanalytics.core.conversions import Converted, Sales, is_conversion
from goodanalytics.core.devices import Device
from goodanalytics.core.hits import EventType, Hit
from goodanalytics.core.identity import Identifier, Kind
from goodanalytics.core.identity_rows import Member, RowKey, derived_id
from goodanalytics.core.outcomes import Outcome
from goodanalytics.core.people import UNUSED, People, Taken
from goodanalytics.core.places import Place
from goodanalytics.core.remembered import remember
from goodanalytics.core.sessions import Moment, Session
from goodanalytics.core.sources import DIRECT, Source
from goodanalytics.core.touches import told_by_host, touched
from goodanalytics.core.visitors import Visitor, fold

_OUTSIDE_VISITS = frozenset({EventType.LINK_CLICK, EventType.REFUND})


def outcome(hit: Hit, taken: Taken | None) -> Outcome:
    """What became of *hit*, of which `People.take` said whose it is."""
    if taken is None:
        return Outcome(hit.id, "dropped", reason="forgotten")
    return Outcome(hit.id, "resolved" if hit.quiet else "recorded", taken.person_id)


def decide(
    people: People, sales: Sales, hit: Hit, offered: Sequence[Identifier]
) -> tuple[Hit, Taken | None, Outcome]:
    """
    Say whose *hit* is and what becomes of it; the hit too, for a refund learns how much it gives back.

    A refund that is refused changes nothing about anybody.
    """
    if hit.event_type is EventType.REFUND and not people.forgotten(hit, offered):
        given = sales.take(hit)
        if isinstance(given, str):
            return hit, None, Outcome(hit.id, "refused", reason=given)
        hit = given if offered else sales.pointed(given)
    taken = people.take(hit, offered)
    if taken is not None and not hit.quiet:
        sales.note(hit, taken.visitor_id)
    return hit, taken, outcome(hit, taken)


class Understood(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


@dataclass(frozen=True, slots=True)
class ClickFacts:
    """Where a click came from, for the landing that follows it."""

    source: Source
    link_id: UUID | None


@dataclass(slots=True)
class History:
    """
    What is known before the batch of those who take its hits, as far as these can touch it.

    Attributes:
        visitors: The rows that take hits.
        sessions: Their visits that may be going on, and those of everybody's company (`Taken`).
        clicks: Where the clicks that the batch names came from.
    """

    visitors: dict[RowKey, Visitor] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    clicks: dict[RowKey, ClickFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """When a visit ends, as configured."""

    timeout: timedelta
    split_on_source: bool


class Plan:
    """
    What a batch changes about those who take its hits.

    Attributes:
        events: New rows.
        conversions: Leads, sales and refunds among them that count.
        caught_up: Visits whose click came after their landing, as they were and as they are.
    """

    def __init__(
        self, people: People, history: History, policy: SessionPolicy, sales: Sales | None = None
    ) -> None:
        self._policy = policy
        self._people = people
        self._sales = Sales({}) if sales is None else sales
        self._before = history.visitors
        self._rows = dict(history.visitors)
        for (workspace_id, new_id), (at, bot) in people.made.items():
            self._rows[workspace_id, new_id] = Visitor(
                workspace_id=workspace_id, id=new_id, canonical_id=new_id, first_seen_at=at, last_seen_at=at, bot=bot
            )  # fmt: skip
        self._clicks = history.clicks
        self._visits: dict[RowKey, dict[UUID, Session]] = defaultdict(dict)
        self._visits_before: dict[RowKey, Session] = {}
        for session in history.sessions:
            self._visits[session.workspace_id, session.visitor_id][session.id] = session
            self._visits_before[session.workspace_id, session.id] = session
        self.events: list[dict[str, Any]] = []
        self.conversions: list[Converted] = []
        self.caught_up: list[tuple[Session, Session]] = []
        self._touched: dict[RowKey, None] = dict.fromkeys(people.made)
        self._touched_sessions: dict[RowKey, UUID] = {}

    @property
    def visitors(self) -> list[Visitor]:
        """The rows of visitors that the batch made or changed."""
        return [self._whole(key) for key in self._touched]

    @property
    def joined(self) -> set[RowKey]:
        """The rows, new or changed, that belong to the person of an older row."""
        return {(row.workspace_id, row.id) for row in self.visitors if row.id != row.canonical_id} | {
            (row.workspace_id, row.id) for row in self.members if row.id != row.canonical_id
        }

    @property
    def members(self) -> list[Member]:
        """Rows that only came to another person or name, by id; nothing else of them is loaded."""
        keys = self._people.changed - self._touched.keys()
        return [self._people.rows[key] for key in sorted(keys)]

    @property
    def sessions(self) -> list[Session]:
        """The rows of sessions that the batch made or changed."""
        return [
            self._visits[workspace_id, visitor_id][session_id]
            for (workspace_id, session_id), visitor_id in self._touched_sessions.items()
        ]

    def visitor_before(self, row: Visitor) -> Visitor | None:
        """*row* as it was before the batch; `None` when the batch made it."""
        return self._before.get((row.workspace_id, row.id))

    def session_before(self, row: Session) -> Session | None:
        """*row* as it was before the batch; `None` when the batch made it."""
        return self._visits_before.get((row.workspace_id, row.id))

    def person(self, workspace_id: UUID, visitor_id: UUID) -> Visitor | None:
        """The whole person behind a row, with the batch counted in; `History` must hold all rows of it."""
        row = self._people.rows.get((workspace_id, visitor_id))
        if row is None:
            return None
        return fold(
            self._whole((workspace_id, one)) for one in self._people.members(workspace_id, row.canonical_id)
        )

    def _whole(self, key: RowKey) -> Visitor:
        """A row with the person and the name that it has after the batch."""
        row, member = self._rows[key], self._people.rows[key]
        if row.canonical_id == member.canonical_id and row.external_id == member.external_id:
            return row
        return msgspec.structs.replace(row, canonical_id=member.canonical_id, external_id=member.external_id)

    def record(self, understood: Understood, visitor_id: UUID, company: Collection[UUID] = ()) -> None:
        """Take in a hit that is known to be *visitor_id*'s: which visit, what changes. *company* is as in `Taken`."""
        key = understood.hit.workspace_id, visitor_id
        row, link_id = self._rows[key], None
        if understood.hit.signals.click_id is not None:
            link_id = self._landed_by(understood, row)
            understood = self._with_click(understood, row, company)
        session, is_new = self._sessionize(understood, visitor_id, link_id, company)
        self._record_event(understood, visitor_id, session)
        row = _with_hit(row, understood, session, is_new_session=is_new)
        if understood.hit.origin == "link":
            row = self._catch_up(understood, row)
        self._rows[key] = row
        self._touched[key] = None
        if is_conversion(understood.hit):
            found = self._sales.converted(understood.hit, visitor_id, url=understood.url, ip=understood.ip)
            self.conversions.append(found)

    # Which visit -----------------------------------------------------------------------------------------------------

    def _with_click(self, understood: Understood, row: Visitor, company: Collection[UUID]) -> Understood:
        """Let a landing take its click's source where its own address and referrer say less."""
        hit, click_id = understood.hit, understood.hit.signals.click_id
        assert click_id is not None, "asked for clicks only"  # noqa: S101  # for the type checker
        if hit.origin == "link":
            known = self._people.known(hit.workspace_id, Kind.CLICK, str(click_id))
            if known is not None and known.hit_id == hit.id:
                self._clicks[hit.workspace_id, click_id] = ClickFacts(
                    understood.source or DIRECT, hit.link_id
                )
            return understood
        click = self._clicks.get((hit.workspace_id, click_id))
        if click is None or understood.source is None or understood.source.confidence != "low":
            return understood
        if click.source.is_direct or not self._is_landing(understood, row, company):
            return understood
        return msgspec.structs.replace(understood, source=click.source)

    def _catch_up(self, understood: Understood, row: Visitor) -> Visitor:
        """
        Give a visit that landed with this click what it could not know: where the click came from. *row*, with that touch.

        Click and landing come from different hosts and so lie in different shards; two workers may take the landing first.
        """
        hit, source = understood.hit, understood.source or DIRECT
        visits = self._visits[hit.workspace_id, row.id]
        # No visit further away than that is ever loaded for this click.
        since, until = hit.occurred_at - self._policy.timeout, hit.occurred_at + self._policy.timeout
        near = [v for v in visits.values() if v.last_event_at >= since and v.started_at <= until]
        for visit in [v for v in near if v.click_id == hit.id and v.link_id is None]:
            known = msgspec.structs.replace(visit, link_id=hit.link_id)
            if Source.from_json(visit.acquisition).confidence == "low" and not source.is_direct:
                known = sessions.with_source(known, source)
            visits[visit.id] = known
            self.caught_up.append((visit, known))
            late_clicks.correct(self.events, visit, known)
            self._touched_sessions[visit.workspace_id, visit.id] = row.id
            row = touched(row, visit.started_at, known.acquisition, hit.id)
        return row

    def _landed_by(self, understood: Understood, row: Visitor) -> UUID | None:
        """The short link whose click this hit lands with, if it does."""
        hit, click_id = understood.hit, understood.hit.signals.click_id
        if click_id is None or hit.origin != "browser":
            return None
        click = self._clicks.get((hit.workspace_id, click_id))
        return None if click is None or not self._is_landing(understood, row) else click.link_id

    def _is_landing(self, understood: Understood, row: Visitor, company: Collection[UUID] = ()) -> bool:
        """
        Whether the browser arrives by its click now.

        It goes on sending the click for as long as the cookie lives, also when it comes back by another way: so not in the
        visit that the click began, nor ever after it. A stranger who was handed the address lands as well.
        """
        click_id = understood.hit.signals.click_id
        live = self._live(understood.hit, row.id, company)
        if live is not None and live.click_id == click_id:
            return False
        # Before the first visit it is the click itself that noted its id.
        return row.total_sessions == 0 or click_id not in (row.first_click_id, row.last_click_id)

    def _sessionize(
        self, understood: Understood, visitor_id: UUID, link_id: UUID | None, company: Collection[UUID]
    ) -> tuple[Session | None, bool]:
        """The visit that the hit belongs to, if any, and whether the hit began it."""
        hit = understood.hit
        if hit.event_type in _OUTSIDE_VISITS:
            return None, False
        live = self._live(hit, visitor_id, company)
        if hit.client.bot is not None and live is not None and live.bot is None:
            return None, False
        moment = Moment(
            occurred_at=hit.occurred_at,
            event_type=hit.event_type,
            source=understood.source,
            opens=hit.event_type in sessions.OPENS
            and (hit.origin == "browser" or hit.event_type is EventType.PAGEVIEW),
            url=understood.url,
            path=understood.path,
            engaged_ms=hit.engaged_ms or 0,
        )
        taken = sessions.step(
            live,
            moment,
            lambda: _fresh_session(understood, visitor_id, link_id),
            split_on_source=self._policy.split_on_source,
        )
        if isinstance(taken, sessions.Outside):
            return None, False
        session = taken.session
        self._visits[session.workspace_id, session.visitor_id][session.id] = session
        self._touched_sessions[session.workspace_id, session.id] = session.visitor_id
        return session, not isinstance(taken, sessions.Continued)

    def _live(self, hit: Hit, visitor_id: UUID, company: Collection[UUID]) -> Session | None:
        """The browser's own visit; for a server's hit, that of any browser of the person. Nobody goes on with a bot's visit."""
        found = self._going_on(hit, (visitor_id,))
        return self._going_on(hit, company) if found is None and company else found

    def _going_on(self, hit: Hit, members: Iterable[UUID]) -> Session | None:
        visits = [
            visit
            for member in members
            for visit in self._visits[hit.workspace_id, member].values()
            if visit.bot is None or hit.client.bot is not None
        ]
        return sessions.going_on(visits, hit.occurred_at, self._policy.timeout) if visits else None

    # What changes ----------------------------------------------------------------------------------------------------

    def _record_event(self, understood: Understood, visitor_id: UUID, session: Session | None) -> None:
        hit, device, place = understood.hit, understood.device, understood.place
        source = understood.source or DIRECT
        if session is not None and source.is_direct:
            source = Source.from_json(session.acquisition)
        self.events.append(
            {
                "workspace_id": hit.workspace_id,
                "visitor_id": visitor_id,
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


def _fresh_session(understood: Understood, visitor_id: UUID, link_id: UUID | None) -> Session:
    hit = understood.hit
    return Session(
        workspace_id=hit.workspace_id,
        id=derived_id(hit.id, hit.occurred_at, "session"),
        visitor_id=visitor_id,
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


def _with_hit(
    row: Visitor, understood: Understood, session: Session | None, *, is_new_session: bool
) -> Visitor:
    """*row* after one more hit."""
    hit, bot = understood.hit, understood.hit.client.bot
    is_counted = bot is None
    consent = remembered(row.consent, hit.consent, hit.occurred_at)
    row = msgspec.structs.replace(
        row,
        bot=None if is_counted else bot if row.bot == UNUSED else row.bot,
        total_sessions=row.total_sessions + (is_new_session and is_counted),
        total_pageviews=row.total_pageviews + (is_counted and hit.event_type is EventType.PAGEVIEW),
        total_events=row.total_events + (is_counted and hit.event_type is not EventType.ENGAGEMENT),
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
        return touched(
            row, hit.occurred_at, understood.source.to_json(), hit.signals.click_id, is_first_only=True
        )
    if session is not None and session.visitor_id == row.id:
        return touched(row, session.started_at, session.acquisition, session.click_id)
    return row


def _as_json(found: Device | Place) -> dict[str, Any]:
    return {name: value for name in found.__slots__ if (value := getattr(found, name)) is not None}


__all__ = ["ClickFacts", "History", "Outcome", "Plan", "SessionPolicy", "Understood", "decide", "outcome"]
