"""
The REST room: `app(config, database, ingest)`, an ASGI app that is mounted below `{config.mount}/api`.

Rules of this file
1. One route for each path, so that 405 names every method in `Allow`. A path with a slash too many is unknown, not
   redirected: a redirect would have to name our address, which only `root_path` knows.
2. An exception becomes a problem here and nowhere else. Ours never reach the host; what the caller must not see goes to
   `Config.report` under the request's id.
3. `/openapi.json` and `/docs` need no credential and tell nothing that is not in the package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.core.limits import Exceeded
from goodanalytics.facade.links import Links
from goodanalytics.facade.platforms import Platforms
from goodanalytics.facade.webhooks import Webhooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.web import limits
from goodanalytics.web.api import dispatches as api_dispatches
from goodanalytics.web.api import domains as api_domains
from goodanalytics.web.api import events as api_events
from goodanalytics.web.api import experiments as api_experiments
from goodanalytics.web.api import links as api_links
from goodanalytics.web.api import openapi, problems, reference
from goodanalytics.web.api import partners as api_partners
from goodanalytics.web.api import persons as api_persons
from goodanalytics.web.api import platforms as api_platforms
from goodanalytics.web.api import visitors as api_visitors
from goodanalytics.web.api import webhooks as api_webhooks
from goodanalytics.web.api.operations import Call, Operation, Room, authenticate, credential, permit
from goodanalytics.web.limits import Gate

_VISITORS = api_visitors.OPERATIONS
_AFTER_ONE = next(n for n, one in enumerate(_VISITORS, 1) if one.path == api_persons.FORGET.path)

OPERATIONS: tuple[Operation, ...] = (
    *api_events.OPERATIONS,
    api_persons.RESOLVE,
    *_VISITORS[:_AFTER_ONE],
    api_persons.FORGET,
    *_VISITORS[_AFTER_ONE:],
    *api_persons.OPERATIONS,
    *api_links.OPERATIONS,
    *api_domains.OPERATIONS,
    *api_partners.OPERATIONS,
    *api_experiments.OPERATIONS,
    *api_platforms.OPERATIONS,
    *api_dispatches.OPERATIONS,
    *api_webhooks.OPERATIONS,
)
"""Everything that the room does, in the order of the reference. Operations of one path stand together."""

_PUBLIC = {"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"}

Endpoint = Callable[[Request], Awaitable[Response]]


def app(
    config: Config,
    database: Database,
    ingest: Ingest,
    *,
    links: Links | None = None,
    platforms: Platforms | None = None,
    webhooks: Webhooks | None = None,
) -> ASGIApp:
    """
    The room, for callers whom *config* authenticates. Holds nothing open: it has no lifespan.

    Args:
        links: Which know the host's routes; others know of none.
        platforms: Whose dispatcher is woken by what is changed here.
    """
    told = platforms or Platforms.alone(config, database), webhooks or Webhooks(config, database)
    room = Room(config, database, ingest, links or Links(config, database), *told)
    gate = Gate(config, "api")
    routes = [
        Route(path, _endpoint(room, gate, tuple(of_path)), methods=methods)
        for path, of_path, methods in _by_path(OPERATIONS)
    ]
    inner = Starlette(
        routes=[*routes, Route("/openapi.json", _openapi_json), Route("/docs", _docs)],
        exception_handlers={HTTPException: _refused, Exception: _refused},
    )
    inner.router.redirect_slashes = False

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        request_id = str(config.new_id())
        scope = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        try:
            await inner(scope, receive, send)
        except Exception as error:  # noqa: BLE001  # rule 2; Starlette has answered and raises it once more
            if problems.is_ours(error):
                config.report(error, f"answering {scope['method']} {scope['path']} (request {request_id})")

    return guarded


def _by_path(
    operations: Sequence[Operation],
) -> list[tuple[str, list[Operation], list[str]]]:
    grouped = [(path, list(found)) for path, found in groupby(operations, key=lambda o: o.path)]
    return [(path, found, [operation.method for operation in found]) for path, found in grouped]


def _endpoint(room: Room, gate: Gate, operations: Sequence[Operation]) -> Endpoint:
    by_method = {operation.method: operation for operation in operations}

    async def endpoint(request: Request) -> Response:
        operation = by_method["GET" if request.method == "HEAD" else request.method]  # type: ignore[index]  # the route lets only these methods in
        principal = await authenticate(room.config, request)
        told = await _count(gate, request)
        permit(principal, operation)
        response = await operation.respond(Call(request, room, principal, room.config.clock()))
        response.headers.update(told)
        response.headers["X-Request-Id"] = request.state.request_id
        return response

    return endpoint


async def _count(gate: Gate, request: Request) -> Mapping[str, str]:
    """
    Count this call of its key, and say what the answer tells of it.

    Raises:
        Refusal: 429, the key was used too often.
    """
    decision = await gate.take_key(credential(request)[0])
    if decision is None or gate.limit is None:
        return {}
    told = limits.fields(gate.limit, decision)
    if isinstance(decision, Exceeded):
        raise problems.Refusal(429, "rate_limited", limits.advice(gate.limit, decision) + ".", headers=told)
    return told


async def _openapi_json(request: Request) -> Response:
    document = openapi.document(OPERATIONS, request.scope.get("root_path", ""))
    return Response(msgspec.json.encode(document), 200, _PUBLIC, "application/json")


async def _docs(request: Request) -> Response:
    root = request.scope.get("root_path", "")
    html = reference.page(openapi.document(OPERATIONS, root), f"{root}/openapi.json")
    headers = {**_PUBLIC, "Content-Security-Policy": reference.POLICY, "Referrer-Policy": "no-referrer"}
    return Response(html, 200, headers, "text/html")


async def _refused(request: Request, error: Exception) -> Response:
    return problems.response(error, request.state.request_id)
