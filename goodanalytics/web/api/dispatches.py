"""
`/dispatches…`: what ad platforms and webhooks were told, or were not and why, and what became of it.

Rules of this file
1. Nothing is unsealed here: `shown` is what the outbox keeps beside the sealed contents, for anybody to see.
2. An id that is none of this workspace's is an unknown one, whatever it looks like.
3. What is sent again keeps its ids, so that whoever has it already counts it once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY
from goodanalytics.core.delivery import State
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.web.api.operations import (
    Answer,
    Call,
    Operation,
    answer,
    id_of,
    page,
    read_json,
    read_query,
)
from goodanalytics.web.api.visitors import Cursor, Limit, PageOf

UNKNOWN: Final = "There is no such dispatch in this workspace."
LONGEST_BY_HOUR: Final = timedelta(days=31)
LONGEST_COVERAGE: Final = timedelta(days=92)

Instant = Annotated[datetime, Meta(tz=True)]
Target = Annotated[
    str, Meta(min_length=1, max_length=80, description="A platform's name, or `webhook:` and its id.")
]
Finished = Literal["dead", "skipped", "delivered"]


class DispatchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dispatches; the newest come first."""

    limit: Limit = 50
    cursor: Cursor | None = None
    target: Target | None = None
    state: State | None = None
    event_id: Annotated[UUID, Meta(description="Of one conversion only.")] | None = None


class SpanQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From *since* until before *until*, which is now when left out."""

    since: Instant | None = None
    until: Instant | None = None


class ReplayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which finished dispatches are sent again."""

    target: Target | None = None
    states: Annotated[list[Finished], Meta(min_length=1, max_length=3)] = msgspec.field(
        default_factory=lambda: ["dead"]
    )
    since: Annotated[Instant, Meta(description="Of conversions since then only.")] | None = None


class DispatchAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One conversion on its way to one platform or webhook."""

    workspace_id: UUID
    id: UUID
    target: str
    event_id: UUID
    kind: str
    occurred_at: datetime
    sale_event_id: UUID | None
    state: State
    reason: Annotated[str | None, Meta(description="Why it is skipped, was given up, or waits.")]
    attempts: Annotated[int, Meta(description="Failures of its own.")]
    next_at: Annotated[datetime | None, Meta(description="The next try.")]
    leased_until: datetime | None
    sent_at: datetime | None
    settled_at: datetime | None
    created_at: datetime
    code: Annotated[str | None, Meta(description="What the platform said last.")]
    message: str | None
    external_ref: Annotated[str | None, Meta(description="Under what the platform remembers the request.")]
    shown: Annotated[
        dict[str, Any],
        Meta(
            description="What was told, without anything that names a person: `match_keys` says which went along."
        ),
    ]
    is_kept: Annotated[bool, Meta(description="Whether enough is kept to send it again.")]


class DispatchList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dispatches, the newest first."""

    data: list[DispatchAnswer]
    page: PageOf


class ReplayedAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many are sent again."""

    replayed: int


class MatchKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many carry it. *share* is of all of that target, from 0 to 1."""

    number: int
    share: float


class CoverageAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What platforms could recognise people by. *dispatches* are those that were not skipped."""

    target: str
    dispatches: int
    keys: dict[str, MatchKey]


class CoverageList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The coverage of each platform."""

    data: list[CoverageAnswer]
    page: PageOf


class HourAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of a target's dispatches came to that state within the hour that begins then."""

    hour: datetime
    target: str
    state: State
    number: int


class HourList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hours in which anything was settled, the earliest first."""

    data: list[HourAnswer]
    page: PageOf


async def list_dispatches(call: Call) -> Response:
    """What was told, the newest first."""
    query = read_query(call.request, DispatchQuery)
    found = await call.room.platforms.dispatches(
        limit=query.limit, cursor=query.cursor, target=query.target, state=query.state, event=query.event_id,
        workspace_id=call.workspace_id,
    )  # fmt: skip
    return answer(page([dispatch.to_json() for dispatch in found.items], found.next_cursor))


async def get(call: Call) -> Response:
    """One of them."""
    found = await call.room.platforms.dispatch(
        id_of(call, "dispatch_id", UNKNOWN), workspace_id=call.workspace_id
    )
    if found is None:
        raise NotFound(UNKNOWN)
    return answer(found.to_json())


async def replay(call: Call) -> Response:
    """Send one again."""
    found = await call.room.platforms.replay(
        id_of(call, "dispatch_id", UNKNOWN), actor=actor_of(call), workspace_id=call.workspace_id
    )
    return answer(found.to_json())


async def replay_all(call: Call) -> Response:
    """Send all of a kind again."""
    body = await read_json(call.request, ReplayBody, MAX_BODY)
    replayed = await call.room.platforms.replay_all(
        target=body.target, states=body.states, since=body.since, actor=actor_of(call), workspace_id=call.workspace_id
    )  # fmt: skip
    return answer({"replayed": replayed})


async def coverage(call: Call) -> Response:
    """Which match keys went along."""
    since, until = _span(call, timedelta(days=28), LONGEST_COVERAGE)
    found = await call.room.platforms.coverage(since=since, until=until, workspace_id=call.workspace_id)
    told = [
        CoverageAnswer(
            each.target,
            each.dispatches,
            {key: MatchKey(number, round(each.share(key), 4)) for key, number in each.keys.items()},
        )
        for each in found
    ]
    return answer(page(told, None))


async def by_hour(call: Call) -> Response:
    """How many were settled in each hour."""
    since, until = _span(call, timedelta(days=1), LONGEST_BY_HOUR)
    found = await call.room.platforms.by_hour(since=since, until=until, workspace_id=call.workspace_id)
    told = [
        {"hour": hour, "target": target, "state": state, "number": number}
        for hour, target, state, number in found
    ]
    return answer(page(told, None))


def actor_of(call: Call) -> str | None:
    """Who asks, for the audit: the key's name."""
    return call.principal.name or None


def _span(call: Call, usual: timedelta, longest: timedelta) -> tuple[datetime, datetime]:
    query = read_query(call.request, SpanQuery)
    until = query.until or call.now
    try:
        since = query.since or until - usual
    except OverflowError:
        raise InvalidInput("is too early; give a later time", where="until") from None
    if not timedelta(0) < until - since <= longest:
        raise InvalidInput(
            f"is {since.isoformat()}; it must be before until ({until.isoformat()}), by {longest.days} days at the most",
            where="since",
        )
    return since, until


_BY_ID: dict[str, Any] = {"dispatch_id": UUID}

OPERATIONS = (
    Operation(
        method="GET",
        path="/dispatches",
        name="listDispatches",
        summary="List what was told",
        description=(
            "Each conversion that an ad platform or a webhook was told of, is to be told of, or was not told of and why."
        ),
        respond=list_dispatches,
        query=DispatchQuery,
        answers={200: Answer("A page of dispatches.", DispatchList)},
    ),
    Operation(
        method="POST",
        path="/dispatches/replay",
        name="replayDispatches",
        summary="Send many again",
        description=(
            "Under the ids that they have, so whoever has one already counts it once. Left alone is what nothing is kept "
            "of, what was recalled, and a sale that was refunded since."
        ),
        respond=replay_all,
        body=ReplayBody,
        example={"target": "meta", "states": ["dead"], "since": "2026-11-01T00:00:00Z"},
        answers={200: Answer("How many those are.", ReplayedAnswer)},
    ),
    Operation(
        method="GET",
        path="/dispatches/coverage",
        name="getMatchKeyCoverage",
        summary="Get which match keys went along",
        description=(
            f"Of the last 28 days when no time is given, and of {LONGEST_COVERAGE.days} days at the most."
        ),
        respond=coverage,
        query=SpanQuery,
        answers={200: Answer("Each platform's coverage.", CoverageList)},
    ),
    Operation(
        method="GET",
        path="/dispatches/by-hour",
        name="getDispatchesByHour",
        summary="Get deliveries per hour",
        description=f"Of the last day when no time is given, and of {LONGEST_BY_HOUR.days} days at the most. In UTC.",
        respond=by_hour,
        query=SpanQuery,
        answers={200: Answer("How many came to which state.", HourList)},
    ),
    Operation(
        method="GET",
        path="/dispatches/{dispatch_id}",
        name="getDispatch",
        summary="Get what became of one",
        respond=get,
        path_types=_BY_ID,
        answers={200: Answer("The dispatch.", DispatchAnswer)},
        problems={404: UNKNOWN},
    ),
    Operation(
        method="POST",
        path="/dispatches/{dispatch_id}/replay",
        name="replayDispatch",
        summary="Send one again",
        description="Under the ids that it has, so whoever has it already counts it once.",
        respond=replay,
        path_types=_BY_ID,
        answers={200: Answer("The dispatch as it now waits.", DispatchAnswer)},
        problems={
            404: UNKNOWN,
            409: "It is under way, nothing is kept of it, its person took consent back, or its sale was refunded.",
        },
    ),
)
