"""
`/visitors…`: reading people, and saying who one of them is.

Rules of this file
1. Any id of a person answers with the whole person under its canonical id; an id that is no UUID is an unknown one.
2. Every list is `{data, page: {next_cursor, has_more}}`, walked by `?cursor=`.
3. To identify is to write a hit, as every other fact; the answer is the person that the hit left behind.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY, MAX_ID, MAX_TEXT, Property, flat_properties, text
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.visitors import Visitor
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.store import visitors
from goodanalytics.store.pages import MAX_PAGE
from goodanalytics.store.timeline_entries import TimelineEntry
from goodanalytics.store.visitors import Attribution, Why
from goodanalytics.web.api.idempotency import digest_of, header_key, keyed_id
from goodanalytics.web.api.operations import (
    Answer,
    Call,
    Operation,
    answer,
    id_of,
    page,
    printable,
    read_json,
    read_query,
    refused,
)

NOBODY = "No visitor of this workspace is known by that."

Cursor = Annotated[
    str, Meta(min_length=1, max_length=512, description="`page.next_cursor` of the page before.")
]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="How many, at the most.")]
Status = Literal["anonymous", "identified", "lead", "customer", "churned"]


class VisitorQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which visitors."""

    limit: Limit = 20
    cursor: Cursor | None = None
    search: (
        Annotated[
            str,
            Meta(
                max_length=visitors.MAX_SEARCH,
                description="A part of the name, e-mail address, phone or an id.",
            ),
        ]
        | None
    ) = None
    status: Status | None = None


class TimelineQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a timeline; the newest comes first."""

    limit: Limit = 50
    cursor: Cursor | None = None


class IdentifyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who the visitor is. At least one member."""

    external_id: (
        Annotated[str, Meta(min_length=1, max_length=MAX_ID, description="Your own name for the person.")]
        | None
    ) = None
    email: Annotated[str, Meta(min_length=1, max_length=254)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)] | None = None
    phone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    traits: (
        Annotated[
            dict[str, Property],
            Meta(description="At most 50 strings, numbers, booleans and nulls; not nested."),
        ]
        | None
    ) = None


class VisitorAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person, as `core.visitors.Visitor.to_json` writes it."""

    id: UUID
    workspace_id: UUID
    status: Status
    person_external_id: str | None
    person_email: str | None
    person_phone: str | None
    person_name: str | None
    traits: dict[str, Property]
    first_source: dict[str, Any] | None
    last_source: dict[str, Any] | None
    first_click_id: UUID | None
    last_click_id: UUID | None
    first_seen_at: datetime
    last_seen_at: datetime
    identified_at: datetime | None
    converted_at: datetime | None
    geo: dict[str, Any]
    device: dict[str, Any]
    total_sessions: int
    total_pageviews: int
    total_events: int
    ltv: Annotated[dict[str, int], Meta(description="Trusted revenue in minor units, per currency.")]


class PageOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a list goes on."""

    next_cursor: str | None
    has_more: bool


class VisitorList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """People, the one seen last first."""

    data: list[VisitorAnswer]
    page: PageOf


class Timeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person did, the newest first."""

    data: list[TimelineEntry]
    page: PageOf


async def list_visitors(call: Call) -> Response:
    """People, the one seen last first."""
    query = read_query(call.request, VisitorQuery)
    database = call.room.database
    async with database.connect() as conn:
        found = await visitors.list_visitors(
            conn,
            database.tables,
            call.workspace_id,
            limit=query.limit,
            after=query.cursor,
            search=text(query.search, visitors.MAX_SEARCH),
            status=query.status,
        )
    return answer(page([person.to_json() for person in found.items], found.next_cursor))


async def get_visitor(call: Call) -> Response:
    """The person that has the id."""
    return answer((await _person(call, visitor_id_of(call))).to_json())


async def get_by_external_id(call: Call) -> Response:
    """The person whom the host calls so."""
    external_id = call.request.path_params["external_id"]
    if text(external_id, MAX_ID) != external_id:
        raise NotFound(NOBODY)
    database = call.room.database
    async with database.connect() as conn:
        person = await visitors.by_external_id(conn, database.tables, call.workspace_id, external_id)
    if person is None:
        raise NotFound(NOBODY)
    return answer(person.to_json())


async def get_timeline(call: Call) -> Response:
    """What the person did."""
    visitor_id = visitor_id_of(call)
    query = read_query(call.request, TimelineQuery)
    database = call.room.database
    async with database.connect() as conn:
        found = await visitors.timeline(
            conn, database.tables, call.workspace_id, visitor_id, limit=query.limit, after=query.cursor
        )
    return answer(page(found.items, found.next_cursor))


async def get_attribution(call: Call) -> Response:
    """What brought the person."""
    visitor_id = visitor_id_of(call)
    database = call.room.database
    async with database.connect() as conn:
        return answer(await visitors.attribution(conn, database.tables, call.workspace_id, visitor_id))


async def get_why(call: Call) -> Response:
    """Why several browsers are this one person."""
    visitor_id = visitor_id_of(call)
    database = call.room.database
    async with database.connect() as conn:
        return answer(await visitors.why(conn, database.tables, call.workspace_id, visitor_id))


async def identify(call: Call) -> Response:
    """Write who the visitor is, and answer with the person that it now is."""
    visitor_id = visitor_id_of(call)
    body = await read_json(call.request, IdentifyBody, MAX_BODY)
    key = header_key(call)
    signals = Signals(
        external_id=printable("external_id", body.external_id),
        email=printable("email", body.email),
        phone=printable("phone", body.phone),
        name=printable("name", body.name),
        traits=flat_properties(body.traits, "traits"),
    )
    if signals == Signals():
        raise InvalidInput("Nothing is said; send external_id, email, name, phone or traits")
    before = await _person(call, visitor_id)
    if None not in (before.external_id, signals.external_id) and before.external_id != signals.external_id:
        raise Conflict(
            f"This visitor is known as {before.external_id!r} already; two external ids are never joined. Identify the "
            "visitor whom that other person's browser is"
        )
    hit = Hit(
        id=keyed_id(call, key),
        workspace_id=call.workspace_id,
        received_at=call.now,
        occurred_at=call.now,
        event_type=EventType.IDENTIFY,
        origin="server",
        trusted=True,
        signals=msgspec.structs.replace(signals, visitor_id=visitor_id),
        key=key,
        # The path is part of what was asked: the same key for another visitor is another request.
        digest=None if key is None else digest_of(body, str(visitor_id)),
    )
    (outcome,) = await call.room.ingest.now([hit])
    problem = refused(outcome)
    if problem is not None:
        raise problem
    after = await _person(call, visitor_id)
    replayed = {"Idempotent-Replayed": "true"} if outcome.status == "repeated" else None
    return answer(after.to_json(), headers=replayed)


async def _person(call: Call, visitor_id: UUID) -> Visitor:
    database = call.room.database
    async with database.connect() as conn:
        person = await visitors.get(conn, database.tables, call.workspace_id, visitor_id)
    if person is None:
        raise NotFound(NOBODY)
    return person


def visitor_id_of(call: Call) -> UUID:
    """The id in the path; raises what `id_of` raises."""
    return id_of(call, "visitor_id", NOBODY)


_BY_ID: dict[str, Any] = {"visitor_id": UUID}
_UNKNOWN = {404: NOBODY}

OPERATIONS = (
    Operation(
        method="GET",
        path="/visitors",
        name="listVisitors",
        summary="List visitors",
        description="Each person once, however many browsers it has; the one seen last comes first. Bots are left out.",
        respond=list_visitors,
        query=VisitorQuery,
        answers={200: Answer("A page of visitors.", VisitorList)},
    ),
    Operation(
        method="GET",
        path="/visitors/by-external-id/{external_id:path}",
        name="getVisitorByExternalId",
        summary="Get a visitor by your own id",
        respond=get_by_external_id,
        path_types={"external_id": str},
        answers={200: Answer("The visitor.", VisitorAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/visitors/{visitor_id}",
        name="getVisitor",
        summary="Get a visitor",
        description="An id that was merged into another answers with the whole person, under its canonical id.",
        respond=get_visitor,
        path_types=_BY_ID,
        answers={200: Answer("The visitor.", VisitorAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/visitors/{visitor_id}/timeline",
        name="getTimeline",
        summary="Get what a visitor did",
        respond=get_timeline,
        path_types=_BY_ID,
        query=TimelineQuery,
        answers={200: Answer("A page of events, the newest first.", Timeline)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/visitors/{visitor_id}/attribution",
        name="getAttribution",
        summary="Get what brought a visitor",
        respond=get_attribution,
        path_types=_BY_ID,
        answers={200: Answer("The touches, oldest first, and what they earned.", Attribution)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/visitors/{visitor_id}/why",
        name="getWhy",
        summary="Get why several browsers are one visitor",
        respond=get_why,
        path_types=_BY_ID,
        answers={200: Answer("The members, their identities, and the ledger of merges.", Why)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="POST",
        path="/visitors/{visitor_id}/identify",
        name="identifyVisitor",
        summary="Say who a visitor is",
        description="Two visitors that are said to have the same `external_id` become one person.",
        respond=identify,
        path_types=_BY_ID,
        body=IdentifyBody,
        example={"external_id": "user-42", "email": "ada@example.com", "traits": {"plan": "yearly"}},
        answers={200: Answer("The person that it now is.", VisitorAnswer)},
        problems={
            **_UNKNOWN,
            409: "The visitor has another `external_id`, or the key was used with another body.",
        },
        keyed=True,
    ),
)
