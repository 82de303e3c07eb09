"""
`POST /events` and `POST /events/batch`: what a host's own server, or its page with a publishable key, says was done.

Rules of this file
1. A look-up finds a visitor or answers 404; it never makes one. `visitor_id` comes before `person_external_id`, then
   `ga_id`, then `anonymous_id`; an external id that nobody has is not made good by a weaker pointer.
2. A key names its event for ever: the same body again is answered with the first event (200), another body is a
   conflict (409).
3. A refund names its sale, and lies on the sale's visitor.
4. In a batch each item stands for itself: what is wrong with one is told beside what became of its neighbours. The
   visitors of a whole batch are looked up in two statements.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY, MAX_ITEMS, Invalid
from goodanalytics.core.hits import Hit
from goodanalytics.core.plan import Outcome
from goodanalytics.errors import GoodAnalyticsError, InvalidInput, NotFound
from goodanalytics.store import lookups
from goodanalytics.store.refunds import of_sales
from goodanalytics.store.sales import SaleName
from goodanalytics.web.api import problems
from goodanalytics.web.api.event_bodies import Draft, EventBody, Pointer, draft
from goodanalytics.web.api.idempotency import header_key
from goodanalytics.web.api.operations import Answer, Call, Operation, answer, decode, read_json, refused

MAX_BATCH_BODY = 1024 * 1024  # bytes


class EventBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events that stand each for itself."""

    events: Annotated[list[EventBody], Meta(min_length=1, max_length=MAX_ITEMS)]


class _Items(msgspec.Struct, forbid_unknown_fields=True):
    # `EventBatch` as it is read: an item of a wrong shape must not sink its neighbours.
    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_ITEMS)]


class EventAnswer(msgspec.Struct, frozen=True):
    """The event's id."""

    event_id: UUID


class ItemProblem(msgspec.Struct, frozen=True):
    """Why an item was refused: the members of a problem that differ between items."""

    status: int
    code: str
    detail: str
    errors: tuple[problems.Fault, ...] = ()


class ItemAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of the item at *index*: *event_id*, or *error*."""

    index: int
    status: Literal["ok", "repeated", "error"]
    event_id: UUID | None = None
    error: ItemProblem | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """One result for each item, in their order."""

    results: list[ItemAnswer]


_FIELD = {"external_id": "external_id", "click": "click_id", "anonymous_id": "anonymous_id"}
"""The member of `Signals` that holds what an identity's kind points with."""


async def record(call: Call) -> Response:
    """Write one event."""
    body = await read_json(call.request, EventBody, MAX_BODY)
    key = header_key(call)
    if key is not None:
        if body.idempotency_key not in (None, key):
            raise InvalidInput(
                "differs from the header Idempotency-Key; send one of the two", where="idempotency_key"
            )
        body = msgspec.structs.replace(body, idempotency_key=key)
    (result,) = await _write(call, [_draft_or_error(call, body)])
    if isinstance(result, Exception):
        raise result
    if result.status == "repeated":
        return answer(EventAnswer(result.event_id), 200, {"Idempotent-Replayed": "true"})
    return answer(EventAnswer(result.event_id), 201)


async def record_batch(call: Call) -> Response:
    """Write up to a hundred events."""
    if header_key(call) is not None:
        raise InvalidInput(
            "means one event; give each event of a batch its own idempotency_key", where="Idempotency-Key"
        )
    items = await read_json(call.request, _Items, MAX_BATCH_BODY)
    results = await _write(call, [_read_item(call, raw) for raw in items.events])
    answers = [_item_answer(index, result) for index, result in enumerate(results)]
    sound = all(item.status != "error" for item in answers)
    return answer(BatchAnswer(answers), 201 if sound else 207)


def _read_item(call: Call, raw: msgspec.Raw) -> Draft | Exception:
    if len(memoryview(raw)) > MAX_BODY:
        return InvalidInput(f"The event is larger than {MAX_BODY} bytes; send less in it")
    try:
        body = decode(raw, EventBody)
    except InvalidInput as error:
        return error
    return _draft_or_error(call, body)


def _draft_or_error(call: Call, body: EventBody) -> Draft | Exception:
    try:
        return draft(call, body)
    except (Invalid, GoodAnalyticsError, problems.Refusal) as error:
        return error


async def _write(call: Call, drafts: Sequence[Draft | Exception]) -> list[Outcome | Exception]:
    """Find whose each draft is, write those that are somebody's, and tell about each in its place."""
    known = await _known(call, {p for d in drafts if isinstance(d, Draft) for p in d.pointers})
    results: list[Outcome | Exception] = []
    hits: dict[int, Hit] = {}
    refunds: dict[int, tuple[Hit, SaleName]] = {}
    for index, wanting in enumerate(drafts):
        if isinstance(wanting, Exception):
            results.append(wanting)
            continue
        results.append(NotFound("No visitor of this workspace is known by that."))
        pointer = next((pointer for pointer in wanting.pointers if pointer in known), None)
        if wanting.sale is not None:
            refunds[index] = wanting.hit, wanting.sale
        elif pointer is not None:
            hits[index] = _pointed(wanting.hit, pointer, known[pointer])
        elif not wanting.pointers:
            hits[index] = wanting.hit
    for index, outcome in (await _record_all(call, hits)).items():
        results[index] = outcome
    # Sales come before what is given back of them, also when both are in one batch.
    for index, outcome in (await _give_back(call, refunds)).items():
        results[index] = outcome
    return results


async def _record_all(call: Call, hits: Mapping[int, Hit]) -> dict[int, Outcome | Exception]:
    outcomes = await call.room.ingest.now(list(hits.values())) if hits else []
    return {index: refused(outcome) or outcome for index, outcome in zip(hits, outcomes, strict=True)}


async def _give_back(
    call: Call, refunds: Mapping[int, tuple[Hit, SaleName]]
) -> dict[int, Outcome | Exception]:
    """Write refunds, each on the visitor of its sale."""
    if not refunds:
        return {}
    database = call.room.database
    async with database.connect() as conn:
        found = await of_sales(conn, database.tables, list(refunds.values()))
    pointed = dict(zip(refunds, found, strict=True))
    results: dict[int, Outcome | Exception] = {
        i: one for i, one in pointed.items() if not isinstance(one, Hit)
    }
    return results | await _record_all(call, {i: one for i, one in pointed.items() if isinstance(one, Hit)})


def _pointed(hit: Hit, pointer: Pointer, visitor_id: UUID) -> Hit:
    """
    *hit* with its visitor, and with what pointed there when the host vouches for it.

    A page's own pointer stays out: the ingest would take it for a landing, which only the browser itself can make.
    """
    kind, value = pointer
    said = {_FIELD[kind]: value} if hit.trusted and kind in _FIELD else {}
    return msgspec.structs.replace(
        hit, signals=msgspec.structs.replace(hit.signals, visitor_id=visitor_id, **said)
    )


async def _known(call: Call, pointers: Collection[Pointer]) -> dict[Pointer, UUID]:
    """The row that each known one of *pointers* points to."""
    ids = {value for kind, value in pointers if kind == "visitor" and isinstance(value, UUID)}
    signals = {(kind, str(value)): (kind, value) for kind, value in pointers if kind != "visitor"}
    if not pointers:
        return {}
    database = call.room.database
    async with database.connect() as conn:
        by_id = await lookups.find_by_ids(conn, database.tables, call.workspace_id, ids)
        by_signal = await lookups.find_by_signals(conn, database.tables, call.workspace_id, signals)
    found: dict[Pointer, UUID] = {("visitor", visitor_id): visitor_id for visitor_id in by_id}
    return found | {signals[signal]: visitor_id for signal, visitor_id in by_signal.items()}


def _item_answer(index: int, result: Outcome | Exception) -> ItemAnswer:
    if isinstance(result, Exception):
        told = problems.trouble(result)
        return ItemAnswer(index, "error", error=ItemProblem(told.status, told.code, told.detail, told.errors))
    return ItemAnswer(index, "repeated" if result.status == "repeated" else "ok", event_id=result.event_id)


_UNKNOWN = {
    404: "No visitor of this workspace is known by that, or no sale.",
    409: "The key was used with another body, or a refund is more than its sale has left.",
}

OPERATIONS = (
    Operation(
        method="POST",
        path="/events",
        name="recordEvent",
        summary="Record an event",
        description=(
            "Says that a visitor did something. The visitor must be known already; whose event it is, is said by "
            "`visitor_id`, `person_external_id`, `ga_id` or `anonymous_id`, the first that is given. Person fields say "
            "more about that visitor. A lead or sale with a person's address alone is theirs once they are known. A refund names "
            "its sale instead. With a publishable key the event is kept as a claim: it never counts as revenue."
        ),
        access="any",
        respond=record,
        body=EventBody,
        example={
            "event_type": "sale",
            "person_external_id": "user-42",
            "amount_cents": 4900,
            "currency": "EUR",
            "idempotency_key": "order-1001",
            "properties": {"plan": "yearly"},
        },
        answers={
            201: Answer("It is recorded.", EventAnswer),
            200: Answer("The key was used with the same body before; the first event's id.", EventAnswer),
        },
        problems=_UNKNOWN,
        keyed=True,
    ),
    Operation(
        method="POST",
        path="/events/batch",
        name="recordEvents",
        summary="Record up to 100 events",
        description="Each event stands for itself: a wrong one is told in its place and does not sink its neighbours.",
        access="any",
        respond=record_batch,
        body=EventBatch,
        example={
            "events": [{"event_type": "custom", "person_external_id": "user-42", "event_name": "Export"}]
        },
        answers={
            201: Answer("All are recorded.", BatchAnswer),
            207: Answer("Some are refused; each result says what became of its item.", BatchAnswer),
        },
    ),
)
