"""
`/visitors…`: who is who, by the host's own word. Finding a visitor, merging two, taking a merge back, erasing one.

Rules of this file
1. Who does it is the key's name (`Principal.name`): a caller cannot name another.
2. Each of them is noted in the audit, with the reason that the caller gives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY, MAX_ID, MAX_TEXT
from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.dispatch.plan import DispatchPlan
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.store import erasure, ledger, persons, visitors
from goodanalytics.web.api.operations import (
    Answer,
    Call,
    Operation,
    answer,
    browser_id,
    printable,
    read_json,
    read_query,
    refused,
)
from goodanalytics.web.api.visitors import NOBODY, VisitorAnswer, visitor_id_of

T = TypeVar("T")

Reason = Annotated[
    str,
    Meta(
        min_length=1, max_length=MAX_TEXT, description="Why, for whoever reads the audit. Name nobody in it."
    ),
]


class ResolveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What points to the visitor. At least one member."""

    anonymous_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)] | None = None
    external_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID)] | None = None
    email: Annotated[str, Meta(min_length=1, max_length=254)] | None = None
    phone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    ga_id: UUID | None = None


class MergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to join with the visitor in the path."""

    other_id: UUID
    reason: Reason
    force: Annotated[bool, Meta(description="Also when you call them by two different external ids.")] = False


class UnmergeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which merge to take back; `GET /visitors/{visitor_id}/why` lists them."""

    merge_id: UUID
    reason: Reason


class ForgetQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why the visitor is erased."""

    reason: Reason = "asked through the API"


class UnmergeAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The two persons, the former winner first."""

    visitors: list[VisitorAnswer]


class ForgottenAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many rows were erased. `hits` are those that lay in the log or were set aside."""

    visitor_id: UUID
    visitors: int
    events: int
    sessions: int
    identities: int
    hits: int
    tombstones: int


async def resolve(call: Call) -> Response:
    """The visitor that the signals point to, found or made."""
    body = await read_json(call.request, ResolveBody, MAX_BODY)
    signals = Signals(
        external_id=printable("external_id", body.external_id),
        email=printable("email", body.email),
        phone=printable("phone", body.phone),
        anonymous_id=browser_id("anonymous_id", body.anonymous_id),
        click_id=body.ga_id,
    )
    if not signals.point_somewhere:
        raise InvalidInput("Nothing points anywhere; send anonymous_id, external_id, email, phone or ga_id")
    hit = Hit(
        id=call.room.config.new_id(),
        workspace_id=call.workspace_id,
        received_at=call.now,
        occurred_at=call.now,
        event_type=EventType.CUSTOM,
        origin="server",
        trusted=True,
        signals=signals,
        quiet=True,
    )
    (outcome,) = await call.room.ingest.now([hit])
    problem = refused(outcome)
    if problem is not None:
        raise problem
    database = call.room.database
    async with database.connect() as conn:
        found = None
        if outcome.visitor_id is not None:
            found = await visitors.get(conn, database.tables, call.workspace_id, outcome.visitor_id)
    if found is None:
        raise NotFound(NOBODY)
    return answer(found.to_json())


async def merge(call: Call) -> Response:
    """Join two visitors; the person that they are."""
    one = visitor_id_of(call)
    body = await read_json(call.request, MergeBody, MAX_BODY)
    reason = _reason(body.reason)

    async def act(conn: Any) -> Any:
        return await persons.merge(
            conn, call.room.database.tables, config=call.room.config, workspace_id=call.workspace_id,
            merge_id=call.room.config.new_id(), one=one, other=body.other_id, reason=reason,
            actor=call.principal.name or None, force=body.force, now=call.now,
            tell=DispatchPlan(call.room.config, call.room.database.tables).add_now,
        )  # fmt: skip

    return answer((await _done(call, act)).to_json())


async def unmerge(call: Call) -> Response:
    """Take a merge back; the two persons."""
    visitor_id = visitor_id_of(call)
    body = await read_json(call.request, UnmergeBody, MAX_BODY)
    reason = _reason(body.reason)

    async def act(conn: Any) -> Any:
        return await persons.unmerge(
            conn, call.room.database.tables, config=call.room.config, workspace_id=call.workspace_id, of=visitor_id,
            merge_id=body.merge_id, note_id=call.room.config.new_id(), reason=reason, actor=call.principal.name or None,
            now=call.now,
        )  # fmt: skip

    return answer({"visitors": [person.to_json() for person in await _done(call, act)]})


async def forget(call: Call) -> Response:
    """Erase a visitor."""
    visitor_id = visitor_id_of(call)
    reason = _reason(read_query(call.request, ForgetQuery).reason)

    async def act(conn: Any) -> Any:
        return await erasure.forget(
            conn, call.room.database.tables, call.room.config.graveyard, workspace_id=call.workspace_id,
            visitor_id=visitor_id, note_id=call.room.config.new_id(), reason=reason,
            actor=call.principal.name or None, now=call.now,
        )  # fmt: skip

    return answer((await _done(call, act)).to_json())


async def _done(call: Call, act: Callable[[Any], Awaitable[T]]) -> T:
    return await ledger.again(call.room.database, act)


def _reason(value: str) -> str:
    found = printable("reason", value)
    if found is None or not found.strip():
        raise InvalidInput("is empty; say why", where="reason")
    return found


_BY_ID: dict[str, Any] = {"visitor_id": UUID}
_UNKNOWN = {404: NOBODY}

RESOLVE = Operation(
    method="POST",
    path="/visitors/resolve",
    name="resolveVisitor",
    summary="Find or make a visitor",
    description="By whatever points to one. No event is recorded.",
    respond=resolve,
    body=ResolveBody,
    example={"anonymous_id": "value of the cookie _ga_anon"},
    answers={200: Answer("The visitor.", VisitorAnswer)},
    problems={404: "What points there belongs to somebody who was erased."},
)
FORGET = Operation(
    method="DELETE",
    path="/visitors/{visitor_id}",
    name="forgetVisitor",
    summary="Erase a visitor",
    description=(
        "All browsers and devices of the person, everything that was done on them and everything that tells who they "
        "were. Their cookies do not bring them back: such hits are dropped."
    ),
    respond=forget,
    path_types=_BY_ID,
    query=ForgetQuery,
    answers={200: Answer("What was erased.", ForgottenAnswer)},
    problems=_UNKNOWN,
)
OPERATIONS = (
    Operation(
        method="POST",
        path="/visitors/{visitor_id}/merge",
        name="mergeVisitors",
        summary="Make two visitors one person",
        description="Because you know that they are. `why` then lists the merge, and `unmerge` takes it back.",
        respond=merge,
        path_types=_BY_ID,
        body=MergeBody,
        example={
            "other_id": "01890a5d-ac96-774b-bcce-b302099a8057",
            "reason": "two accounts of one customer",
        },
        answers={200: Answer("The person that they now are.", VisitorAnswer)},
        problems={**_UNKNOWN, 409: "They have different external ids, and `force` is not set."},
    ),
    Operation(
        method="POST",
        path="/visitors/{visitor_id}/unmerge",
        name="unmergeVisitors",
        summary="Take a merge back",
        description=(
            "Everything then reads as if it had never been, also what came since, and what tied them does not tie them "
            "again."
        ),
        respond=unmerge,
        path_types=_BY_ID,
        body=UnmergeBody,
        example={"merge_id": "01890a5d-ac96-774b-bcce-b302099a8057", "reason": "a shared mailbox"},
        answers={200: Answer("The two persons.", UnmergeAnswer)},
        problems={404: "The visitor has no such merge.", 409: "It was undone before."},
    ),
)
