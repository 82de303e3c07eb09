"""
What a plain click needs of its link, worked out once: the bytes around the click's id, and what the log is told of the link.

A link is plain when it leads everybody to one address: no rule, variant, password, partner, frame or number of uses, and no
address for one kind of machine. When it ends it is no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from goodanalytics.core.clicks import clicked
from goodanalytics.core.links import Link
from goodanalytics.core.raw import packed_part
from goodanalytics.core.routing import Route
from goodanalytics.web.links.answers import ACCEPTED, EMPTY, NO_STORE, NOINDEX, Header


class PlainLink(msgspec.Struct, frozen=True):
    """
    A plain link.

    Attributes:
        name: Its address, for reports.
        before, behind: What of the destination stands before the click's id and behind it.
        headers: Those of the answer that are the same for every click that is safe.
        said: A `Clicked`, packed.
        until: From then on the link is over.
    """

    name: str
    workspace_id: UUID
    before: str
    behind: str
    status: int
    headers: tuple[Header, ...]
    said: msgspec.Raw
    until: datetime | None


_INDEXED: Final = (NO_STORE, EMPTY, ACCEPTED)
_NOT_INDEXED: Final = (NO_STORE, EMPTY, NOINDEX, ACCEPTED)


def plain_link(route: Route, own_hosts: Sequence[str], now: datetime) -> PlainLink | None:
    """The link of *route* as plain clicks need it; `None` when more has to be known than that somebody clicked."""
    link, target = route.link, route.everybodys
    if target is None or target.plain is None or not _is_open(link, now):
        return None
    return PlainLink(
        f"{link.domain}/{link.key}",
        link.workspace_id,
        target.plain,
        target.fragment,
        link.redirect_status,
        _INDEXED if link.indexed else _NOT_INDEXED,
        packed_part(clicked(link, own_hosts)),
        link.expires_at,
    )


def _is_open(link: Link, now: datetime) -> bool:
    """Whether nobody has to be asked before a click on *link* goes on."""
    return (
        (link.starts_at is None or link.starts_at <= now)
        and link.password_hash is None
        and link.max_clicks is None
        and link.partner_id is None
    )
