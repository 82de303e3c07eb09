"""
The dashboard: `app(config, database, links)`, an ASGI app of server-rendered pages, mounted below `{config.mount}/dashboard`.

Rules of this file
1. Closed until the host opens it: without `dashboard_auth`, and whenever that answers anything but `True`, nothing is shown.
2. A page is HTML, one stylesheet and one script, all from here. The Content-Security-Policy refuses everything else, and
   inline code of any kind, so that a text from a visitor stays a text even if a template forgot to escape it.
3. Whatever stands in a query string, the answer is a page: 400 says what is wrong and keeps what was typed.
4. Links begin with `root_path`; nothing else is believed about our own address.
5. Pages work without JavaScript.
6. What changes anything is a POST from our own page, and nothing else (`forms`).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.errors import (
    Conflict,
    DatabaseUnavailable,
    GoodAnalyticsError,
    InvalidInput,
    NotFound,
    SchemaError,
)
from goodanalytics.facade.links import Links
from goodanalytics.facade.partners import Partners
from goodanalytics.facade.platforms import Platforms
from goodanalytics.facade.webhooks import Webhooks
from goodanalytics.store import visitors
from goodanalytics.store.database import Database
from goodanalytics.web.dashboard import asked as asking
from goodanalytics.web.dashboard import figures, forms, rendering
from goodanalytics.web.dashboard import person as person_page
from goodanalytics.web.dashboard.asked import Asked
from goodanalytics.web.dashboard.domains import DomainPages
from goodanalytics.web.dashboard.figures import Figures
from goodanalytics.web.dashboard.forms import Act, Press, Shown
from goodanalytics.web.dashboard.links import LinkPages, Respond
from goodanalytics.web.dashboard.moving import MovePages
from goodanalytics.web.dashboard.partners import PartnerPages
from goodanalytics.web.dashboard.platforms import ToldPages

PEOPLE_ON_OVERVIEW: Final = 8
PEOPLE_ON_PAGE: Final = 50
ENTRIES_ON_PAGE: Final = 100
_NOBODY: Final = "There is no such visitor in this workspace."


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    A page that says why there is no other.

    Attributes:
        cure: What to do about it.
    """

    status: int
    title: str
    reason: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """
    One request for a page, let in and read.

    Attributes:
        conn: An open connection to the database, for pages that read by one.
    """

    request: Request
    config: Config
    database: Database
    conn: Any
    workspace_id: UUID
    asked: Asked

    @property
    def typed(self) -> dict[str, str]:
        """The query string's values as they came."""
        return asking.first_of(self.request.query_params.multi_items())

    @property
    def figures(self) -> Figures:
        """This workspace's reports."""
        return Figures(self.conn, self.database, self.workspace_id, self.asked)


Page = Callable[[Call], Awaitable[tuple[str, dict[str, Any]]]]
"""Reads what a page shows: the template's name and its values."""


def app(
    config: Config,
    database: Database,
    *,
    links: Links | None = None,
    platforms: Platforms | None = None,
    webhooks: Webhooks | None = None,
) -> ASGIApp:
    """
    The dashboard of *database*, for those whom `config.dashboard_auth` lets in.

    Args:
        links: Which know the host's routes; others know of none.
        platforms: Whose dispatcher is woken by what is changed here.
    """
    told = ToldPages(
        config, platforms or Platforms.alone(config, database), webhooks or Webhooks(config, database)
    )
    pages: Mapping[str, Page] = {
        "/": _overview,
        "/sources": _sources,
        "/pages": _pages,
        "/visitors": _visitors,
        "/visitors/{visitor_id}": _visitor,
    }
    known = links or Links(config, database)
    responders: Sequence[tuple[str, Mapping[str, Respond]]] = (
        *((path, {"GET": _reading(config, database, page)}) for path, page in pages.items()),
        *(
            (path, {"GET": _reading(config, database, page, connects=False)})
            for path, page in told.pages.items()
        ),
        ("/visitors/{visitor_id}/split", {"POST": _acting(config, _splitting(config, database))}),
        *((path, {"POST": _acting(config, act)}) for path, act in told.acts.items()),
        *MovePages(known).routes,
        *LinkPages(known).routes,
        *DomainPages(known).routes,
        *PartnerPages(Partners(config, database)).routes,
    )
    inner = Starlette(
        routes=[
            Route("/static/{name}", rendering.static),
            *(Route(path, _endpoint(config, found), methods=list(found)) for path, found in responders),
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    inner.router.redirect_slashes = False

    async def rooted(scope: Scope, receive: Receive, send: Send) -> None:
        """Serve `…/dashboard` and `…/dashboard/` alike: a redirect would have to name our address."""
        root = scope.get("root_path", "")
        if scope["type"] == "http" and scope["path"] in ("", root):
            scope = {**scope, "path": f"{root}/"}
        await inner(scope, receive, send)

    return rooted


def _endpoint(config: Config, by_method: Mapping[str, Respond]) -> Respond:
    """What of *by_method* the request asks for, for those who may; whatever goes wrong ends on a page."""

    async def endpoint(request: Request) -> Response:
        doing = f"answering {request.method} {request.url.path}"
        is_read = request.method in ("GET", "HEAD")
        try:
            refusal = await _refusal(config, request)
            if refusal is None and not is_read and (reason := forms.refusal(request)) is not None:
                refusal = Refusal(403, "Not from here", reason)
        except Exception as error:  # noqa: BLE001  # rule 1: whatever the host's callback raises, the door stays shut
            config.report(error, doing)
            refusal = _BROKEN_DOOR
        if refusal is not None:
            return _refused(request, refusal)
        try:
            return await by_method["GET" if is_read else request.method](request)
        except InvalidInput as error:
            if is_read:
                return _wrong(request, config, error)
            return _refused(request, Refusal(400, "Not understood", str(error)))
        except (NotFound, Conflict) as error:
            title = "Not found" if isinstance(error, NotFound) else "Not possible"
            return _refused(request, Refusal(error.status_hint, title, str(error)))
        except Exception as error:  # noqa: BLE001  # rule 3: our own failures end here, on a page
            config.report(error, doing)
            return _refused(request, _failure(error))

    return endpoint


def _reading(config: Config, database: Database, page: Page, *, connects: bool = True) -> Respond:
    """
    Show *page*.

    Args:
        connects: Whether the page reads by `Call.conn`; one that goes by a facade takes no second connection.
    """

    async def respond(request: Request) -> Response:
        asked = asking.read(request.query_params.multi_items(), config.clock())
        async with database.connect() if connects else nullcontext() as conn:
            workspace_id = config.workspace_of(request.headers.get("host", ""))
            name, shown = await page(Call(request, config, database, conn, workspace_id, asked))
        return rendering.page(request, name, {"asked": asked, **shown})

    return respond


def _acting(config: Config, act: Act) -> Respond:
    """Do what a button asks for, for somebody who pressed it on one of our pages."""

    async def respond(request: Request) -> Response:
        try:
            asked = asking.read(request.query_params.multi_items(), config.clock())
            workspace_id = config.workspace_of(request.headers.get("host", ""))
            done = await act(Press(request, workspace_id, asked, await forms.read(request)))
        except (NotFound, Conflict) as error:
            return _refused(request, Refusal(error.status_hint, "This cannot be done", str(error)))
        except InvalidInput as error:
            return _refused(request, Refusal(400, "This cannot be used", str(error)))
        if isinstance(done, Shown):
            return rendering.page(request, done.template, {"asked": asked, **done.values}, done.status)
        root = request.scope.get("root_path", "")
        return Response(status_code=303, headers={"Location": f"{root}{done}"})

    return respond


def _splitting(config: Config, database: Database) -> Act:
    """Takes a merge back."""

    async def split(press: Press) -> str:
        visitor_id, merge_id = forms.ids(
            press.request.path_params["visitor_id"], press.typed.get("merge_id", "")
        )
        reason = press.typed.get("reason", "")
        await forms.split(config, database, press.workspace_id, visitor_id, merge_id, reason)
        return f"/visitors/{visitor_id}#why"

    return split


_BROKEN_DOOR = Refusal(
    500,
    "The dashboard cannot tell who you are",
    "The function that decides about access to the dashboard failed.",
    "The server’s log has the error. The function is Config(dashboard_auth=…).",
)


async def _refusal(config: Config, request: Request) -> Refusal | None:
    """Why this request may not see the dashboard; `None` when `dashboard_auth` says `True`."""
    if config.dashboard_auth is None:
        return Refusal(
            403,
            "The dashboard is closed",
            "Nobody has said yet who may see it, so nobody may.",
            "Set Config(dashboard_auth=…): a function of the request, plain or async, that answers True for those who may.",
        )
    answer = config.dashboard_auth(HTTPConnection(request.scope))
    if inspect.isawaitable(answer):
        answer = await answer
    match answer:
        case True:
            return None
        case False:
            return Refusal(
                403, "Not for you", "You may not see this dashboard.", "Sign in as somebody who may."
            )
        case _:
            raise TypeError(f"dashboard_auth answered {type(answer).__name__}; it must answer True or False")


async def _overview(call: Call) -> tuple[str, dict[str, Any]]:
    recent = await _people(call, limit=PEOPLE_ON_OVERVIEW)
    if not recent.items and not (await _people(call, limit=1, include_bots=True)).items:
        return "empty.html", {"tracker": f"{_mount(call.request)}/js/good-analytics.js"}
    f = call.figures
    return "overview.html", {
        "here_now": await f.here_now(),
        "tiles": await f.tiles(),
        "graph": await f.graph(),
        "panels": [await f.top(panel) for panel in figures.PANELS],
        "recent": recent.items,
    }


async def _sources(call: Call) -> tuple[str, dict[str, Any]]:
    return "list.html", {
        "title": "Sources",
        "most": figures.MOST,
        "tops": [await call.figures.top(figures.SOURCES, figures.MOST)],
    }


async def _pages(call: Call) -> tuple[str, dict[str, Any]]:
    asked_for = (figures.PAGES, figures.ENTRIES, figures.EXITS)
    return "list.html", {
        "title": "Pages",
        "most": figures.MOST,
        "tops": [await call.figures.top(p, figures.MOST) for p in asked_for],
    }


async def _visitors(call: Call) -> tuple[str, dict[str, Any]]:
    typed = call.typed
    search, status = typed.get("search", "").strip(), typed.get("status", "")
    found = await _people(
        call,
        limit=PEOPLE_ON_PAGE,
        after=typed.get("after") or None,
        search=search or None,
        status=status or None,
    )
    return "visitors.html", {
        "people": found.items,
        "next_cursor": found.next_cursor,
        "after": typed.get("after", ""),
        "search": search,
        "status": status,
    }


async def _visitor(call: Call) -> tuple[str, dict[str, Any]]:
    try:
        visitor_id = UUID(call.request.path_params["visitor_id"])
    except ValueError:
        raise NotFound(_NOBODY) from None
    order = call.typed.get("order") or "oldest"
    if order not in ("oldest", "newest"):
        raise InvalidInput(f"{order!r:.80} is no order. Use oldest or newest", where="order")
    of = (call.conn, call.database.tables, call.workspace_id, visitor_id)
    person = await visitors.get(*of)
    if person is None:
        raise NotFound(_NOBODY)
    after = call.typed.get("after") or None
    timeline = await visitors.timeline(
        *of, limit=ENTRIES_ON_PAGE, after=after, newest_first=order == "newest"
    )
    told, why = await visitors.attribution(*of), await visitors.why(*of)
    members = person_page.members(why)
    return "visitor.html", {
        "person": person,
        "order": order,
        "after": after,
        "visits": person_page.visits(timeline.items, told),
        "next_cursor": timeline.next_cursor,
        "touches": person_page.shortened(told.attribution_path),
        "first": person_page.credited(told.first_source),
        "last": person_page.credited(told.last_source),
        "members": members,
        "names": {member.id: member.name for member in members},
        "devices": person_page.devices(person, members),
        "why": why,
    }


async def _people(call: Call, **chosen: Any) -> visitors.Page[Any]:
    return await visitors.list_visitors(call.conn, call.database.tables, call.workspace_id, **chosen)


def _mount(request: Request) -> str:
    """Where all our rooms live, going by where this one does."""
    root: str = request.scope.get("root_path", "")
    return root.removesuffix("/dashboard")


def _refused(request: Request, refusal: Refusal) -> Response:
    return rendering.page(request, "refused.html", {"refusal": refusal}, refusal.status)


def _wrong(request: Request, config: Config, error: InvalidInput) -> Response:
    """A 400 that keeps what was typed, so that it can be mended; what can be read still goes for the links."""
    now, parameters = config.clock(), request.query_params.multi_items()

    def readable(part: list[tuple[str, str]]) -> bool:
        try:
            asking.read(part, now)
        except InvalidInput:
            return False
        return True

    parts = [[pair for pair in parameters if pair[0] in names] for names in _READ_TOGETHER]
    asked = asking.read([pair for part in parts if readable(part) for pair in part], now)
    return rendering.page(
        request, "wrong.html", {"asked": asked, "where": error.where, "reason": str(error)}, 400
    )


_READ_TOGETHER: Final = (("period", "from", "to"), ("tz",), ("filter",))


def _failure(error: Exception) -> Refusal:
    match error:
        case DatabaseUnavailable():
            return Refusal(
                503,
                "The database does not answer",
                "Nothing can be shown without it.",
                "Look at: goodanalytics doctor",
            )
        case SchemaError():
            return Refusal(
                503,
                "The tables are not there yet",
                "The database has another version.",
                "Run: goodanalytics migrate",
            )
        case GoodAnalyticsError():
            return Refusal(error.status_hint, "This did not work", "The server’s log has the error.")
        case _:
            return Refusal(500, "This did not work", "The fault is ours, and the server’s log has the error.")


async def _not_routed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    title, reason = {
        404: ("Not found", "There is no such page."),
        405: ("Not that way", "The pages of the dashboard are read with GET; its buttons send POST."),
    }.get(status, ("This did not work", "The request was refused."))
    answer = _refused(request, Refusal(status, title, reason))
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})
    return answer


__all__ = ["app"]
