"""
`/links…`: short links, made, changed, taken out of use, listed and counted.

Rules of this file
1. Who does it is the key's name (`Principal.name`), as the link's history then tells.
2. To delete a link is to archive it: it can still be read by its id, and its address is free at once.
3. In a bulk call each item stands for itself: what is wrong with one is told beside what became of its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_ID, text
from goodanalytics.core.links import Link, link_json
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.link_registry import MAX_MANY
from goodanalytics.store.catalog import Done
from goodanalytics.store.link_figures import LinkStats
from goodanalytics.web.api import moving, problems
from goodanalytics.web.api.events import ItemProblem
from goodanalytics.web.api.idempotency import header_key
from goodanalytics.web.api.link_bodies import (
    ArchiveItem,
    BulkAnswer,
    ClickList,
    ClickQuery,
    History,
    LinkAnswer,
    LinkBody,
    LinkBulk,
    LinkList,
    LinkPatch,
    LinkQuery,
    PartQuery,
    StatsQuery,
    UpdateItem,
    UpsertItem,
    given,
)
from goodanalytics.web.api.operations import (
    Answer,
    Call,
    Operation,
    answer,
    decode,
    id_of,
    page,
    read_json,
    read_query,
)
from goodanalytics.web.links.qr import short_url

UNKNOWN = "No link of this workspace has this id."
MAX_LINK_BODY = 256 * 1024  # bytes; fifty rules with a hundred words each
MAX_BULK_BODY = 8 * 1024 * 1024  # bytes


class _Items(msgspec.Struct, forbid_unknown_fields=True):
    # `LinkBulk` as it is read: an item of a wrong shape must not sink its neighbours.
    links: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_MANY)]
    action: Literal["create", "update", "upsert", "archive"] = "create"


async def list_links(call: Call) -> Response:
    """Links, the newest first."""
    query = read_query(call.request, LinkQuery)
    found = await call.room.links.list(
        search=query.search, sort=query.sort, domain=query.domain, tag=query.tag, folder=query.folder,
        partner_id=query.partner_id, archived={"false": False, "true": True, "all": None}[query.archived],
        period=period_of(query.since, query.until, call.now), limit=query.limit, cursor=query.cursor,
        workspace_id=call.workspace_id,
    )  # fmt: skip
    return answer(page([_json(call, link) for link in found.items], found.next_cursor))


async def create(call: Call) -> Response:
    """Make a link."""
    body = await read_json(call.request, LinkBody, MAX_LINK_BODY)
    (done,) = await call.room.links.create_many([given(body)], request_key=header_key(call), **_who(call))
    link = _json(call, done.given())
    if done.status == "repeated":
        return answer(link, 200, {"Idempotent-Replayed": "true"})
    return answer(link, 201)


async def get(call: Call) -> Response:
    """One link, archived or not."""
    return answer(_json(call, await _link(call)))


async def update(call: Call) -> Response:
    """Change a link."""
    link_id = link_id_of(call)
    body = await read_json(call.request, LinkPatch, MAX_LINK_BODY)
    (done,) = await call.room.links.update_many([{**given(body), "id": link_id}], **_who(call))
    return answer(_json(call, done.given()))


async def archive(call: Call) -> Response:
    """Take a link out of use."""
    (done,) = await call.room.links.archive_many([link_id_of(call)], **_who(call))
    done.given()
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def upsert(call: Call) -> Response:
    """Change the link that the host calls so, or make it."""
    external_id = call.request.path_params["external_id"]
    if text(external_id, MAX_ID) != external_id:
        raise InvalidInput(f"must have 1 to {MAX_ID} printable characters", where="external_id")
    said = given(await read_json(call.request, LinkPatch, MAX_LINK_BODY))
    if said.get("external_id", external_id) != external_id:
        raise InvalidInput("differs from the path; leave it out", where="external_id")
    (done,) = await call.room.links.upsert_many([{**said, "external_id": external_id}], **_who(call))
    return answer(_json(call, done.given()), 201 if done.status == "created" else 200)


async def bulk(call: Call) -> Response:
    """Make, change or take out of use up to a thousand links."""
    body = await read_json(call.request, _Items, MAX_BULK_BODY)
    key = header_key(call)
    if key is not None and body.action != "create":
        raise InvalidInput(
            "is for new links; to change or archive twice is to do it once", where="Idempotency-Key"
        )
    read = [_read_item(raw, body.action) for raw in body.links]
    # A wrong item keeps its place, on which the ids hang that an Idempotency-Key gives.
    items = [{} if isinstance(item, InvalidInput) else item for item in read]
    links = call.room.links
    match body.action:
        case "create":
            done = await links.create_many(items, request_key=key, **_who(call))
        case "update":
            done = await links.update_many(items, **_who(call))
        case "upsert":
            done = await links.upsert_many(items, **_who(call))
        case "archive":
            done = await links.archive_many([item.get("id", "") for item in items], **_who(call))
        case _:
            assert_never(body.action)
    told = [
        Done(error=item) if isinstance(item, InvalidInput) else one
        for item, one in zip(read, done, strict=True)
    ]
    results = [_result(call, index, one) for index, one in enumerate(told)]
    status = 201 if body.action == "create" else 200
    return answer({"results": results}, 207 if any(one.link is None for one in told) else status)


def _read_item(raw: msgspec.Raw, action: str) -> dict[str, Any] | InvalidInput:
    kinds: Mapping[str, type[msgspec.Struct]] = {
        "create": LinkBody,
        "update": UpdateItem,
        "upsert": UpsertItem,
        "archive": ArchiveItem,
    }
    try:
        return given(decode(raw, kinds[action]))
    except InvalidInput as error:
        return error


def _result(call: Call, index: int, done: Done) -> dict[str, Any]:
    if done.link is not None:
        return {"index": index, "status": done.status, "link": _json(call, done.link)}
    told = problems.trouble(done.error or NotFound(UNKNOWN))
    return {
        "index": index,
        "status": "error",
        "error": ItemProblem(told.status, told.code, told.detail, told.errors),
    }


async def history(call: Call) -> Response:
    """What was changed of a link."""
    query = read_query(call.request, PartQuery)
    link = await _link(call)
    found = await call.room.links.history(
        link, limit=query.limit, cursor=query.cursor, workspace_id=call.workspace_id
    )
    return answer(page(found.items, found.next_cursor))


async def clicks(call: Call) -> Response:
    """The clicks on a link."""
    query = read_query(call.request, ClickQuery)
    link = await _link(call)
    found = await call.room.links.clicks(
        link, limit=query.limit, cursor=query.cursor, include_bots=query.include_bots, workspace_id=call.workspace_id
    )  # fmt: skip
    return answer(page(found.items, found.next_cursor))


async def stats(call: Call) -> Response:
    """What became of a link."""
    link_id = link_id_of(call)
    query = read_query(call.request, StatsQuery)
    period = period_of(query.since, query.until, call.now)
    return answer(
        await call.room.links.stats(
            link_id, period=period, interval=query.interval, timezone=query.timezone,
            unique_window=timedelta(seconds=query.unique_window), workspace_id=call.workspace_id,
        )
    )  # fmt: skip


def period_of(
    since: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime] | None:
    """
    The period that a query names by its ends, the second of which may be left out; `None` when it names none.

    Raises:
        InvalidInput: Only its end is given.
    """
    if since is None and until is not None:
        raise InvalidInput("is missing; give both ends of the period, or none", where="from")
    return None if since is None else (since, until or now)


def link_id_of(call: Call) -> UUID:
    """The id in the path; raises what `id_of` raises."""
    return id_of(call, "link_id", UNKNOWN)


async def _link(call: Call) -> Link:
    link = await call.room.links.get(link_id_of(call), workspace_id=call.workspace_id)
    if link is None:
        raise NotFound(UNKNOWN)
    return link


def _json(call: Call, link: Link) -> dict[str, Any]:
    return link_json(link, short_url(call.room.config, link, is_secure=call.request.url.scheme == "https"))


def _who(call: Call) -> dict[str, Any]:
    return {"actor": call.principal.name or None, "workspace_id": call.workspace_id}


_BY_ID: dict[str, Any] = {"link_id": UUID}
_UNKNOWN = {404: UNKNOWN}
_IN_USE = {409: "The address or the external id is in use by another link."}
_EXAMPLE = {"url": "https://shop.example/lamps", "domain": "go.example", "key": "lamps", "tags": ["spring"]}

OPERATIONS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/links",
        name="listLinks",
        summary="List links",
        description=(
            "The newest first, unless `sort` says otherwise. Archived links are left out. Sorted by clicks of people, the links "
            "may change their places between two pages while people click."
        ),
        respond=list_links,
        query=LinkQuery,
        answers={200: Answer("A page of links.", LinkList)},
    ),
    Operation(
        method="POST",
        path="/links",
        name="createLink",
        summary="Make a link",
        description=(
            "Refused are keys that something else answers on the domain: what browsers and crawlers ask every host for, "
            "and the first parts of the app's own paths."
        ),
        respond=create,
        body=LinkBody,
        example=_EXAMPLE,
        answers={
            201: Answer("It is made.", LinkAnswer),
            200: Answer(
                "The key was used with the same body before; the link that was made then.", LinkAnswer
            ),
        },
        problems={409: "The address or the external id is in use, or the key was used for another link."},
        keyed=True,
    ),
    Operation(
        method="POST",
        path="/links/bulk",
        name="changeLinks",
        summary="Make, change or archive up to 1,000 links",
        description=(
            "Each link stands for itself: a wrong one is told in its place and does not sink its neighbours. With an "
            "`Idempotency-Key` new links are made once; those that were refused are tried again."
        ),
        respond=bulk,
        body=LinkBulk,
        example={"action": "create", "links": [{**_EXAMPLE, "key": "sofas"}]},
        answers={
            200: Answer("All are changed, or archived.", BulkAnswer),
            201: Answer("All are made.", BulkAnswer),
            207: Answer("Some are refused; each result says what became of its link.", BulkAnswer),
        },
        keyed=True,
    ),
    Operation(
        method="PUT",
        path="/links/by-external-id/{external_id:path}",
        name="upsertLink",
        summary="Change or make a link by your own id",
        description="What is left out stays as it is. `url` is needed where there is no such link yet.",
        respond=upsert,
        path_types={"external_id": str},
        body=LinkPatch,
        example={"url": "https://shop.example/beds", "domain": "go.example", "key": "beds"},
        answers={
            200: Answer("The link as it now is.", LinkAnswer),
            201: Answer("It is made.", LinkAnswer),
        },
        problems=_IN_USE,
    ),
    *moving.OPERATIONS,  # before the paths with an id, which would take theirs
    Operation(
        method="GET",
        path="/links/{link_id}",
        name="getLink",
        summary="Get a link",
        description="Also an archived one.",
        respond=get,
        path_types=_BY_ID,
        answers={200: Answer("The link.", LinkAnswer)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="PATCH",
        path="/links/{link_id}",
        name="updateLink",
        summary="Change a link",
        description="Domain and key too. What is left out stays as it is, null clears.",
        respond=update,
        path_types=_BY_ID,
        body=LinkPatch,
        example={"url": "https://shop.example/sofas", "expires_at": None},
        answers={200: Answer("The link as it now is.", LinkAnswer)},
        problems={**_UNKNOWN, **_IN_USE},
    ),
    Operation(
        method="DELETE",
        path="/links/{link_id}",
        name="archiveLink",
        summary="Archive a link",
        description="It leads nowhere from now on; its address and external id are free at once. Its figures stay.",
        respond=archive,
        path_types=_BY_ID,
        answers={204: Answer("It is archived.", None)},
        problems={404: "No link in use of this workspace has this id."},
    ),
    Operation(
        method="GET",
        path="/links/{link_id}/history",
        name="getLinkHistory",
        summary="Get what was changed of a link",
        respond=history,
        path_types=_BY_ID,
        query=PartQuery,
        answers={200: Answer("A page of changes, the newest first.", History)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/links/{link_id}/stats",
        name="getLinkStats",
        summary="Get the figures of a link",
        description=(
            "Bots and previews stand beside the clicks and never count among them. Leads, sales and revenue are those of "
            "visits that a click of the link began."
        ),
        respond=stats,
        path_types=_BY_ID,
        query=StatsQuery,
        answers={200: Answer("The figures.", LinkStats)},
        problems=_UNKNOWN,
    ),
    Operation(
        method="GET",
        path="/links/{link_id}/clicks",
        name="listClicks",
        summary="List the clicks on a link",
        respond=clicks,
        path_types=_BY_ID,
        query=ClickQuery,
        answers={200: Answer("A page of clicks, the newest first.", ClickList)},
        problems=_UNKNOWN,
    ),
)
