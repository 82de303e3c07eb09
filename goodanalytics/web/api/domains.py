"""`/domains…`: what holds for all links of a host. A host of which nothing was said has the defaults, so none is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from goodanalytics.core.bounds import MAX_BODY
from goodanalytics.core.links import Domain
from goodanalytics.web.api.link_bodies import DomainAnswer, DomainList, DomainPatch, given
from goodanalytics.web.api.operations import Answer, Call, Operation, answer, read_json


async def list_domains(call: Call) -> Response:
    """Every domain of which something was said."""
    found = await call.room.links.domains(workspace_id=call.workspace_id)
    return answer({"data": [_json(domain) for domain in found]})


async def get(call: Call) -> Response:
    """One domain."""
    host = call.request.path_params["host"]
    return answer(_json(await call.room.links.get_domain(host, workspace_id=call.workspace_id)))


async def update(call: Call) -> Response:
    """Say what holds for a domain."""
    host = call.request.path_params["host"]
    said: Any = given(await read_json(call.request, DomainPatch, MAX_BODY))
    return answer(_json(await call.room.links.set_domain(host, workspace_id=call.workspace_id, **said)))


def _json(domain: Domain) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(domain)
    del shown["workspace_id"]
    return shown


OPERATIONS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/domains",
        name="listDomains",
        summary="List domains",
        description="Those of which something was said.",
        respond=list_domains,
        answers={200: Answer("The domains, by name.", DomainList)},
    ),
    Operation(
        method="GET",
        path="/domains/{host}",
        name="getDomain",
        summary="Get a domain",
        respond=get,
        path_types={"host": str},
        answers={200: Answer("The domain, or the defaults.", DomainAnswer)},
        problems={422: "The path holds no host name."},
    ),
    Operation(
        method="PATCH",
        path="/domains/{host}",
        name="updateDomain",
        summary="Say what holds for a domain",
        description="Where `case_sensitive` becomes false, the keys of its links become small letters.",
        respond=update,
        path_types={"host": str},
        body=DomainPatch,
        example={"root_url": "https://shop.example/", "not_found_url": "https://shop.example/missing"},
        answers={200: Answer("The domain as it now is.", DomainAnswer)},
        problems={409: "Two of its links would have the same key if case did not matter."},
    ),
)
