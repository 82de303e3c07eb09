"""
What the dashboard's buttons send: read, and believed only from our own page.

The host's session cookie lets the browser in, so another site could make the browser press a button. Browsers say where a
request comes from (Fetch Metadata, or `Origin`); one that says nothing, or names another origin, is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from starlette.requests import Request

from goodanalytics.config import Config
from goodanalytics.core import urls
from goodanalytics.core.bounds import text
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.store import ledger, persons
from goodanalytics.store.database import Database
from goodanalytics.web.dashboard.asked import Asked

MAX_FORM: Final = 65_536  # bytes; the longest credential, written as forms write it
MAX_FIELDS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Press:
    """
    A button of one of our pages was pressed.

    Attributes:
        typed: What stood in its form; it may be a secret.
    """

    request: Request
    workspace_id: UUID
    asked: Asked
    typed: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """A page that answers a button at once, for what must not stand in an address."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


Act = Callable[[Press], Awaitable[str | Shown]]
"""Does what a button asks for; where to go then, below the dashboard's root, or a page."""


def refusal(request: Request) -> str | None:
    """Why a button's request is not believed; `None` when our own page sent it."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else "Only this dashboard's own page may ask for that."
    host = urls.parts(f"http://{request.headers.get('host', '')}").host
    if host is not None and urls.parts(request.headers.get("origin", "")).host == host:
        return None
    return "Only this dashboard's own page may ask for that, and your browser does not say which page did."


async def read(request: Request, most: int = MAX_FORM) -> dict[str, str]:
    """
    The form's values; of several with one name the first.

    Args:
        most: Bytes that a form may take.

    Raises:
        InvalidInput: It is longer, or has more fields than any form of ours.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise InvalidInput(f"The form is longer than {most} bytes; write less")
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidInput(f"The form has more than {MAX_FIELDS} fields; send fewer") from None
    return dict(reversed(pairs))


def ids(visitor_id: str, merge_id: str) -> tuple[UUID, UUID]:
    """
    Both as ids.

    Raises:
        NotFound: One of them is none, which is the same as an unknown one.
    """
    try:
        return UUID(visitor_id), UUID(merge_id)
    except ValueError:
        raise NotFound("There is no such merge.") from None


async def split(
    config: Config, database: Database, workspace_id: UUID, visitor_id: UUID, merge_id: UUID, typed: str
) -> None:
    """
    Take the merge *merge_id* of *visitor_id* back.

    Raises:
        InvalidInput: No reason is given.
        NotFound: The visitor has no such merge.
        Conflict: It was undone before.
    """
    reason = text(typed)
    if reason is None:
        raise InvalidInput("A reason is missing. It is kept with the merge, for whoever wonders later.")

    async def act(conn: Any) -> None:
        await persons.unmerge(
            conn, database.tables, config=config, workspace_id=workspace_id, merge_id=merge_id, of=visitor_id,
            note_id=config.new_id(), reason=reason, actor="dashboard", now=config.clock(),
        )  # fmt: skip

    await ledger.again(database, act)
