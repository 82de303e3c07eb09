"""
One person's page: what the store knows of them, put into the order in which it is read.

Rules of this file
1. Pure: store values in, page values out.
2. A visit is a group of rows with one session. Visits of two devices may overlap in time; each stands where its first row
   stands. A click on a short link belongs to the visit that landed from it, if there is one.
3. What a browser claims without a token (untrusted leads and sales) is marked, never hidden and never counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from goodanalytics.core.attribution import Touch
from goodanalytics.core.hits import EventType
from goodanalytics.core.sources import Source
from goodanalytics.core.visitors import Visitor
from goodanalytics.store.timeline_entries import TimelineEntry
from goodanalytics.store.visitors import Attribution, Conversion, Why
from goodanalytics.web.dashboard import words

MOST_TOUCHES = 12
"""A longer path is shown with its middle folded away."""

CLAIMS = frozenset({EventType.LEAD, EventType.SALE})

DONE: Mapping[str, str] = {
    EventType.PAGEVIEW: "Viewed",
    EventType.CUSTOM: "Event",
    EventType.ENGAGEMENT: "Read",
    EventType.LEAD: "Lead",
    EventType.SALE: "Sale",
    EventType.REFUND: "Refund",
    EventType.SHARE: "Shared",
    EventType.SESSION_START: "Started",
    EventType.IDENTIFY: "Identified",
    EventType.LINK_CLICK: "Clicked",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """
    A row of the timeline.

    Attributes:
        done: What was done, in one word.
        title: What it was done to.
        link: An address that a browser may be sent to, or `None`.
        credit: For a conversion: which touches earned it.
        claimed: Whether only a browser says so.
    """

    event: TimelineEntry
    done: str
    title: str
    link: str | None
    facts: tuple[str, ...]
    credit: Conversion | None
    claimed: bool


@dataclass(frozen=True, slots=True)
class Visit:
    """
    The rows of one visit, or some that belong to none.

    Attributes:
        source: What brought it; `None` outside of any visit.
        number: 1 for a person's first visit; `None` for what is no visit, or a bot's.
    """

    session_id: UUID | None
    number: int | None
    source: Mapping[str, Any] | None
    device: str
    place: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Credited:
    """A source that is credited with a person: in a line, with its campaign and channel."""

    name: str
    channel: str
    campaign: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """One of the visitors that are this person."""

    id: UUID
    name: str
    row: Mapping[str, Any]


def visits(entries: Sequence[TimelineEntry], told: Attribution) -> list[Visit]:
    """*entries* by visit, in their own order; *told* knows what brought each."""
    landed = {
        touch.click_id: touch.session_id for touch in told.attribution_path if touch.click_id is not None
    }
    touches = {touch.session_id: (n, touch) for n, touch in enumerate(told.attribution_path, 1)}
    credits_of = {conversion.event.id: conversion for conversion in told.conversions}
    groups: dict[tuple[UUID | None, int], list[TimelineEntry]] = {}
    apart = 0
    for entry in entries:
        session_id = entry.session_id or landed.get(entry.id)
        if session_id is None:
            if (last := next(reversed(groups), None)) is None or last[0] is not None:
                apart += 1
            groups.setdefault((None, apart), []).append(entry)
        else:
            groups.setdefault((session_id, 0), []).append(entry)
    return [
        _visit(session_id, touches.get(session_id), found, credits_of)
        for (session_id, _), found in groups.items()
    ]


def credited(source: Mapping[str, Any] | None) -> Credited | None:
    """*source*, as `Source.to_json()`, in words."""
    if source is None:
        return None
    read = Source.from_json(source)
    return Credited(words.source(source), words.channel(read.channel), read.campaign)


def shortened(path: Sequence[Touch]) -> tuple[Sequence[Touch], Sequence[Touch], Sequence[Touch]]:
    """The beginning, the folded middle and the end of *path*; all in the beginning when it is short."""
    if len(path) <= MOST_TOUCHES:
        return path, (), ()
    half = MOST_TOUCHES // 2
    return path[:half], path[half:-half], path[-half:]


def members(why: Why) -> list[Member]:
    """The visitors that are this person, with the words that the page calls them by."""
    return [
        Member(row["id"], words.device(row["device"] or {}) or f"Visitor {words.short_id(row['id'])}", row)
        for row in why.members
    ]


def devices(person: Visitor, found: Sequence[Member]) -> list[str]:
    """Every device once, in the order in which they were first seen."""
    known = [words.device(member.row["device"] or {}) for member in found] or [words.device(person.device)]
    return list(dict.fromkeys(name for name in known if name))


def evidence(written: Any) -> str:
    """What two visitors had in common, in words."""
    matched = written.get("matched") if isinstance(written, Mapping) else None
    if isinstance(matched, list) and matched:
        return ", ".join(words.KINDS.get(str(kind), str(kind)).lower() for kind in matched)
    if isinstance(written, Mapping) and written.get("said_by") == "host":
        return "nothing; your app or your team said so"
    return "unknown evidence"


def _visit(
    session_id: UUID | None,
    touched: tuple[int, Touch] | None,
    entries: Sequence[TimelineEntry],
    credits_of: Mapping[UUID, Conversion],
) -> Visit:
    # The click was answered by our redirect, which sees less of a device than the page that it led to.
    own = [entry for entry in entries if entry.session_id == session_id] or list(entries)
    seen = next((e for e in own if e.origin != "server"), own[0])
    number, source = (touched[0], touched[1].source) if touched else (None, None)
    if source is None and session_id is not None:
        source = {"platform": seen.source, "medium": seen.medium, "campaign": seen.campaign}
    return Visit(
        session_id=session_id,
        number=number,
        source=source,
        device=words.device({"type": seen.device_type, "browser": seen.browser, "os": seen.os}),
        place=words.place({"country": seen.country, "region": seen.region, "city": seen.city}),
        entries=tuple(_entry(entry, credits_of.get(entry.id)) for entry in entries),
    )


def _entry(event: TimelineEntry, credit: Conversion | None) -> Entry:
    return Entry(
        event=event,
        done=DONE.get(event.event_type, event.event_type),
        title=_title(event),
        link=words.web_address(event.url),
        facts=_facts(event),
        credit=credit,
        claimed=not event.trusted and event.event_type in CLAIMS,
    )


def _title(event: TimelineEntry) -> str:
    match event.event_type:
        case EventType.PAGEVIEW:
            return event.title or event.path or event.url or ""
        case EventType.LINK_CLICK:
            return event.link or event.url or ""
        case EventType.ENGAGEMENT:
            return event.path or ""
        case EventType.IDENTIFY:
            return "Your app said who it is" if event.trusted else "The browser said who it is"
        case EventType.SALE | EventType.REFUND:
            return event.event_name or event.key or ""
        case _:
            return event.event_name or ""


def _facts(event: TimelineEntry) -> tuple[str, ...]:
    facts = []
    if event.event_type == EventType.PAGEVIEW and event.title and event.path:
        facts.append(event.path)
    if event.engaged_ms is not None:
        facts.append(f"{words.duration(event.engaged_ms / 1000)} of attention")
    if event.scroll_depth is not None:
        facts.append(f"scrolled {event.scroll_depth}%")
    if event.key and event.event_name and event.key != event.event_name:
        facts.append(event.key)
    if event.bot:
        facts.append(f"bot: {event.bot}")
    return tuple(facts)


__all__ = [
    "Credited",
    "Entry",
    "Member",
    "Visit",
    "credited",
    "devices",
    "evidence",
    "members",
    "shortened",
    "visits",
]
