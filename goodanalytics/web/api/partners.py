"""
`/partners…`: who sends visitors for a commission, and what they earned.

To delete a partner is to close them: nobody comes by them any more, and the ledger keeps what was earned.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY, MAX_ID, MAX_TEXT
from goodanalytics.core.commissions import Entry, EntryStatus
from goodanalytics.core.partners import Commission, Partner, PartnerStatus
from goodanalytics.errors import NotFound
from goodanalytics.facade.partners import Partners
from goodanalytics.store.partner_figures import PartnerStats
from goodanalytics.store.partners import MAX_SEARCH
from goodanalytics.web.api.link_bodies import Moment, given
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

UNKNOWN = "No partner of this workspace has this id."
UNKNOWN_ENTRY = "No commission of this partner has this id."

Name = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Code = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z0-9_-]{1,64}$",
        description="What stands in addresses (`?via=`); its case does not matter.",
    ),
]


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    email: Annotated[str, Meta(max_length=254)] | UnsetType | None = UNSET
    external_id: (
        Annotated[
            str,
            Meta(min_length=1, max_length=MAX_ID, description="What you call this person, as in `identify`."),
        ]
        | UnsetType
        | None
    ) = UNSET
    visitor_id: UUID | UnsetType | None = UNSET
    status: PartnerStatus | UnsetType = UNSET
    commission: Commission | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET


class PartnerBody(_Said, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new partner. By `email`, `external_id` and `visitor_id` it is known what they buy themselves."""

    code: Code
    name: Name


class PartnerPatch(_Said, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What shall change of a partner; what is left out stays as it is, null clears."""

    code: Code | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class PartnerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A partner."""

    id: UUID
    code: str
    name: str
    email: str | None
    external_id: str | None
    visitor_id: UUID | None
    status: PartnerStatus
    commission: Commission
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class PartnerList(msgspec.Struct, frozen=True):
    """Partners, the newest first."""

    data: list[PartnerAnswer]
    page: PageOf


class CommissionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """
    An entry of the ledger.

    `amount_cents` is below zero for what a refund took back; `sale_event_id` is the lead or sale in both cases. `reason` says why
    an entry is void: `self_referral`, `partner_paused`, or what somebody wrote.
    """

    id: UUID
    partner_id: UUID
    kind: Literal["earned", "reversed"]
    event_id: UUID
    sale_event_id: UUID
    event_type: Literal["lead", "sale"]
    visitor_id: UUID | None
    amount_cents: int
    currency: str
    base_cents: int
    base_currency: str | None
    status: EntryStatus
    reason: str | None
    occurred_at: datetime
    created_at: datetime
    reviewed_at: datetime | None
    reviewed_by: str | None


class CommissionList(msgspec.Struct, frozen=True):
    """Entries of the ledger, the latest first."""

    data: list[CommissionAnswer]
    page: PageOf


class Review(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody decided. `pending` leaves it to the rules again."""

    status: EntryStatus
    reason: Annotated[str, Meta(max_length=MAX_TEXT)] | None = None


class PartnerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which partners."""

    limit: Limit = 50
    cursor: Cursor | None = None
    search: (
        Annotated[
            str,
            Meta(
                max_length=MAX_SEARCH, description="A part of the code, name, e-mail address or external id."
            ),
        ]
        | None
    ) = None
    status: PartnerStatus | None = None


class CommissionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which entries."""

    limit: Limit = 50
    cursor: Cursor | None = None
    status: EntryStatus | None = None
    kind: Literal["earned", "reversed"] | None = None


class PeriodQuery(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Which time; either end may be open."""

    since: Moment | None = None
    until: Moment | None = None


async def list_partners(call: Call) -> Response:
    """Partners, the newest first."""
    query = read_query(call.request, PartnerQuery)
    found = await _partners(call).list(**msgspec.structs.asdict(query), workspace_id=call.workspace_id)
    return answer(page([_partner_json(partner) for partner in found.items], found.next_cursor))


async def create(call: Call) -> Response:
    """Add a partner."""
    body = given(await read_json(call.request, PartnerBody, MAX_BODY))
    made = await _partners(call).create(**body, workspace_id=call.workspace_id)
    return answer(_partner_json(made), 201)


async def get(call: Call) -> Response:
    """One partner."""
    return answer(_partner_json(await _partner(call)))


async def update(call: Call) -> Response:
    """Change a partner."""
    partner_id = id_of(call, "partner_id", UNKNOWN)
    changes = given(await read_json(call.request, PartnerPatch, MAX_BODY))
    changed = await _partners(call).update(partner_id, **changes, workspace_id=call.workspace_id)
    return answer(_partner_json(changed))


async def close(call: Call) -> Response:
    """Close a partner."""
    await _partners(call).close(id_of(call, "partner_id", UNKNOWN), workspace_id=call.workspace_id)
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def stats(call: Call) -> Response:
    """What became of a partner."""
    query = read_query(call.request, PeriodQuery)
    partner_id = id_of(call, "partner_id", UNKNOWN)
    found = await _partners(call).stats(
        partner_id, period=(query.since, query.until), workspace_id=call.workspace_id
    )
    return answer(found)


async def commissions(call: Call) -> Response:
    """What a partner earned."""
    query = read_query(call.request, CommissionQuery)
    partner = await _partner(call)
    found = await _partners(call).commissions(
        partner, **msgspec.structs.asdict(query), workspace_id=call.workspace_id
    )
    return answer(page([_entry_json(entry) for entry in found.items], found.next_cursor))


async def review(call: Call) -> Response:
    """Approve a commission, or make it void."""
    commission_id = id_of(call, "commission_id", UNKNOWN_ENTRY)
    body = await read_json(call.request, Review, MAX_BODY)
    partner = await _partner(call)
    reviewed = await _partners(call).review(
        commission_id, body.status, of=partner, reason=body.reason, actor=call.principal.name or None,
        workspace_id=call.workspace_id,
    )  # fmt: skip
    return answer(_entry_json(reviewed))


def _partners(call: Call) -> Partners:
    return Partners(call.room.config, call.room.database)


async def _partner(call: Call) -> Partner:
    found = await _partners(call).get(id_of(call, "partner_id", UNKNOWN), workspace_id=call.workspace_id)
    if found is None:
        raise NotFound(UNKNOWN)
    return found


def _partner_json(partner: Partner) -> dict[str, Any]:
    return {name: getattr(partner, name) for name in PartnerAnswer.__struct_fields__}


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in CommissionAnswer.__struct_fields__}


_BY_ID: dict[str, Any] = {"partner_id": UUID}
_UNKNOWN = {404: UNKNOWN}
_IN_USE = {409: "The code or the external id is another partner's."}
_EXAMPLE = {
    "code": "ada",
    "name": "Ada Lovelace",
    "email": "ada@partner.example",
    "commission": {"kind": "percent", "value": 1000, "on": "sale"},
}

OPERATIONS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/partners",
        name="listPartners",
        summary="List partners",
        description="The newest first.",
        respond=list_partners,
        query=PartnerQuery,
        answers={200: Answer("A page of partners.", PartnerList)},
    ),
    Operation(
        method="POST",
        path="/partners",
        name="createPartner",
        summary="Add a partner",
        description=(
            "A percentage is given in basis points: 1000 is 10 percent. Visitors come by a partner through links with their "
            "`partner_id`, and through `?via=code` or `?ref=code` on any page."
        ),
        respond=create,
        body=PartnerBody,
        example=_EXAMPLE,
        answers={201: Answer("The partner.", PartnerAnswer)},
        problems=_IN_USE,
    ),
    Operation(
        method="GET",
        path="/partners/{partner_id}",
        name="getPartner",
        summary="Get a partner",
        respond=get,
        path_types=_BY_ID,
        answers={200: Answer("The partner.", PartnerAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="PATCH",
        path="/partners/{partner_id}",
        name="updatePartner",
        summary="Change a partner",
        description=(
            "What is left out stays as it is, null clears. New terms hold for what comes from now on. What a paused partner would "
            "earn is void until somebody approves it."
        ),
        respond=update,
        path_types=_BY_ID,
        body=PartnerPatch,
        example={"status": "paused"},
        answers={200: Answer("The partner as it now is.", PartnerAnswer)},
        problems={**_UNKNOWN, **_IN_USE},
    ),
    Operation(
        method="DELETE",
        path="/partners/{partner_id}",
        name="closePartner",
        summary="Close a partner",
        description="Nobody comes by them any more. What they earned stays, and the code stays theirs.",
        respond=close,
        path_types=_BY_ID,
        answers={204: Answer("The partner is closed.", None)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/partners/{partner_id}/stats",
        name="getPartnerStats",
        summary="Get the figures of a partner",
        description="Each currency stands for itself. What is void counts nowhere but in `refused_cents`.",
        respond=stats,
        path_types=_BY_ID,
        query=PeriodQuery,
        answers={200: Answer("The figures.", PartnerStats)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/partners/{partner_id}/commissions",
        name="listCommissions",
        summary="List what a partner earned",
        description="And what refunds took back of it, the latest first.",
        respond=commissions,
        path_types=_BY_ID,
        query=CommissionQuery,
        answers={200: Answer("A page of entries.", CommissionList)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="PATCH",
        path="/partners/{partner_id}/commissions/{commission_id}",
        name="reviewCommission",
        summary="Approve a commission, or make it void",
        description="With what refunds took back of it. It then stays as it was decided, whatever becomes known later.",
        respond=review,
        path_types={**_BY_ID, "commission_id": UUID},
        body=Review,
        example={"status": "approved"},
        answers={200: Answer("The entry as it now is.", CommissionAnswer)},
        problems={404: f"{UNKNOWN} Or: {UNKNOWN_ENTRY}"},
    ),
)
