"""
Which visit a hit belongs to.

1. A visit ends after `timeout` of silence (a gap of exactly the timeout continues it), or when the visitor arrives from
   another source that is not direct. Going on without a source continues whatever was going on.
2. A visit that began without a source takes the first one that comes while it lives, with the click that brought it.
3. A link click opens no visit: its landing does, a moment later, with the same source.
4. An engagement ping and a hit from the host's servers belong to the visit that is going on, and open none; a page that
   a server reports does.
5. A visit is a bounce until a second page or a deliberate act; it is engaged from ten seconds of attention, a second page, a
   lead or a sale on. Neither is ever taken back.

Late hits find the visit that was going on when they happened, and never move its end backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.core.hits import EventType
from goodanalytics.core.sources import DIRECT, Source

ENGAGED_MS = 10_000
"""Attention after which a visit counts as engaged; Google Analytics 4 uses the same ten seconds."""

ACTS = frozenset({EventType.CUSTOM, EventType.LEAD, EventType.SALE, EventType.SHARE, EventType.IDENTIFY})
"""What a visitor does on purpose; one of them makes a visit of one page more than a bounce."""

OPENS = frozenset(EventType) - {EventType.LINK_CLICK, EventType.ENGAGEMENT, EventType.REFUND}
"""What a browser can begin a visit with."""


class Session(msgspec.Struct, frozen=True, gc=False):
    """A visit, as its row. *acquisition* is `Source.to_json()` of what brought it, *link_id* the short link if one did."""

    workspace_id: UUID
    id: UUID
    visitor_id: UUID
    started_at: datetime
    last_event_at: datetime
    entry_url: str | None = None
    entry_path: str | None = None
    exit_path: str | None = None
    pageviews: int = 0
    events: int = 0
    duration_ms: int = 0
    engaged_ms: int = 0
    is_bounce: bool = True
    is_engaged: bool = False
    source: str = "direct"
    medium: str = "direct"
    channel: str = "direct"
    campaign: str | None = None
    acquisition: dict[str, Any] = {}
    click_id: UUID | None = None
    link_id: UUID | None = None
    device_type: str | None = None
    browser: str | None = None
    os: str | None = None
    country: str | None = None
    bot: str | None = None


class Moment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What of a hit matters to its visit.

    Attributes:
        source: What brought it; `None` when the hit cannot know, as on a server.
        opens: Whether it may begin a visit.
    """

    occurred_at: datetime
    event_type: EventType
    source: Source | None
    opens: bool
    url: str | None = None
    path: str | None = None
    engaged_ms: int = 0


class Opened(msgspec.Struct, frozen=True, gc=False):
    """No visit was going on: a new one."""

    session: Session


class Split(msgspec.Struct, frozen=True, gc=False):
    """Another source brought the visitor back: a new visit, although *former* was still going on."""

    session: Session
    former: UUID


class Continued(msgspec.Struct, frozen=True, gc=False):
    """
    The visit goes on.

    Attributes:
        adopted: Whether the visit took its source from this moment.
    """

    session: Session
    adopted: bool = False


class Outside(msgspec.Struct, frozen=True, gc=False):
    """No visit is going on and this moment begins none."""


Step = Opened | Split | Continued | Outside


def going_on(sessions: Iterable[Session], at: datetime, timeout: timedelta) -> Session | None:
    """The visit among *sessions* that *at* falls into, or that is near enough to go on; the latest of several."""
    near = [s for s in sessions if s.started_at - timeout <= at <= s.last_event_at + timeout]
    return max(near, key=lambda s: (s.started_at <= at, s.last_event_at, s.id), default=None)


def step(
    live: Session | None, moment: Moment, fresh: Callable[[], Session], *, split_on_source: bool = True
) -> Step:
    """
    Say what *moment* does to the visit.

    Args:
        live: The visit that is going on, as `going_on` finds it.
        fresh: Makes a new visit at this moment with id, visitor and device filled in, and no counts yet.
        split_on_source: Whether another source splits.
    """
    if live is None:
        return Opened(_take(with_source(fresh(), moment.source), moment)) if moment.opens else Outside()
    source = moment.source
    arrives = source is not None and not source.is_direct
    if not arrives or source is None:
        return Continued(_take(live, moment))
    if live.source == "direct" and live.medium == "direct":
        new = fresh()
        adopting = msgspec.structs.replace(
            live, click_id=new.click_id or live.click_id, link_id=new.link_id or live.link_id
        )
        return Continued(_take(with_source(adopting, source), moment), adopted=True)
    if not split_on_source or not moment.opens or source.acquisition == _acquisition(live):
        return Continued(_take(live, moment))
    return Split(_take(with_source(fresh(), source), moment), live.id)


def _acquisition(session: Session) -> tuple[str | None, str | None, str | None]:
    return Source.from_json(session.acquisition).acquisition


def with_source(session: Session, source: Source | None) -> Session:
    """*session* as brought by *source*; by nothing when that is `None`."""
    source = source or DIRECT
    return msgspec.structs.replace(
        session,
        source=source.platform,
        medium=source.medium,
        channel=source.channel,
        campaign=source.campaign,
        acquisition=source.to_json(),
    )


def _take(session: Session, moment: Moment) -> Session:
    """Count *moment* in."""
    is_page = moment.event_type is EventType.PAGEVIEW
    is_ping = moment.event_type is EventType.ENGAGEMENT
    pageviews = session.pageviews + is_page
    engaged_ms = session.engaged_ms + (moment.engaged_ms if is_ping else 0)
    started_at = min(session.started_at, moment.occurred_at)
    last_event_at = max(session.last_event_at, moment.occurred_at)
    is_first_page = is_page and session.entry_path is None
    is_earlier = moment.occurred_at < session.started_at
    is_latest = moment.occurred_at >= session.last_event_at
    earns = moment.event_type in (EventType.LEAD, EventType.SALE)
    return msgspec.structs.replace(
        session,
        started_at=started_at,
        last_event_at=last_event_at,
        duration_ms=(last_event_at - started_at) // timedelta(milliseconds=1),
        entry_url=moment.url if is_page and (is_first_page or is_earlier) else session.entry_url,
        entry_path=moment.path if is_page and (is_first_page or is_earlier) else session.entry_path,
        exit_path=moment.path if is_page and (is_latest or session.exit_path is None) else session.exit_path,
        pageviews=pageviews,
        events=session.events + (not is_ping),
        engaged_ms=engaged_ms,
        is_bounce=session.is_bounce and pageviews < 2 and moment.event_type not in ACTS,
        is_engaged=session.is_engaged or engaged_ms >= ENGAGED_MS or pageviews >= 2 or earns,
    )
