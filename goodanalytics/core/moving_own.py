"""
Our own export of links: every field, and read back exactly.

Rules of this file
1. A row has all fields of a `Link` but its workspace, which is the one that it is brought into. Id, times and archive are kept,
   so what refers to a link by its id goes on doing so.
2. Of a password the file says only that there is one, unless its digest is asked for. A row that says so and has no digest is
   refused: the link would be open. A digest is as secret as a password that somebody can try out at home.
3. In CSV rules, variants, tags and metadata are JSON; an empty cell is nothing. What comes in is checked as anything else is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from goodanalytics.core.link_fields import checked_fields
from goodanalytics.core.links import Link
from goodanalytics.errors import InvalidInput

OWN: Final = "goodanalytics"
"""The name of our own export among those of the rivals."""

COLUMNS: Final = (
    *(one.name for one in msgspec.structs.fields(Link) if one.name not in ("workspace_id", "password_hash")),
    "has_password",
)
PASSWORD: Final = "password_hash"  # noqa: S105  # the name of a column

_JSON: Final = ("rules", "variants", "tags", "metadata")
_DIGEST: Final = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$[0-9a-f]{32}\$[0-9a-f]{64}")
_MOST_MEMORY: Final = 32 * 1024 * 1024  # bytes that checking a password may take


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What `checked_fields` does not read; numbers and marks may be texts, as in CSV."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None
    has_password: bool = False
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    max_clicks: int | None = None
    redirect_status: int | None = None
    forward_path: bool | None = None
    forward_query: bool | None = None
    cloaked: bool | None = None
    indexed: bool | None = None


_READ_AS_KEPT: Final = frozenset(_Kept.__struct_fields__)


def row_of(link: Link, *, passwords: bool = False) -> dict[str, Any]:
    """*link* as a row of the export, in JSON's types."""
    row: dict[str, Any] = msgspec.to_builtins(link) | {"has_password": link.has_password}
    del row["workspace_id"]
    if not passwords:
        del row[PASSWORD]
    return row


def link_of(values: Mapping[str, Any], workspace_id: UUID, app_schemes: Collection[str] = ()) -> Link:
    """
    The link of a row that `row_of` made.

    Raises:
        InvalidInput: A value is missing or not usable, or the link's password is not in the file.
    """
    told = {name: value for name, value in values.items() if value is not None and value != ""}
    told |= {name: _decoded(name, told[name]) for name in _JSON if isinstance(told.get(name), str)}
    try:
        kept = msgspec.convert({n: told[n] for n in _READ_AS_KEPT & told.keys()}, _Kept, strict=False)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$.")
        raise InvalidInput(
            f"{at.removesuffix('`') or 'The row'}: {reason}", where=at.removesuffix("`")
        ) from None
    digest = told.pop(PASSWORD, None)
    if kept.has_password != (digest is not None) or (digest is not None and not _is_digest(digest)):
        raise InvalidInput(
            "asks for a password, whose digest the file does not hold; export it with its passwords, or make it anew",
            where=PASSWORD,
        )
    fixed = {"id", "created_at", "updated_at", "archived_at", "has_password"}
    given = {name: value for name, value in told.items() if name not in _READ_AS_KEPT and name in COLUMNS}
    given |= {name: getattr(kept, name) for name in (_READ_AS_KEPT - fixed) & told.keys()}
    if missing := sorted({"url", "domain", "key"} - given.keys()):
        raise InvalidInput(f"has no {missing[0]}", where=missing[0])
    for name in ("created_at", "updated_at", "archived_at"):
        moment = getattr(kept, name)
        if moment is not None and moment.tzinfo is None:
            raise InvalidInput(f"{name} is {moment.isoformat()}, without a time zone", where=name)
    return Link(
        workspace_id=workspace_id,
        id=kept.id,
        created_at=kept.created_at,
        updated_at=kept.updated_at,
        archived_at=kept.archived_at,
        password_hash=digest,
        **checked_fields(given, app_schemes),
    )


def _decoded(name: str, cell: str) -> Any:
    try:
        return msgspec.json.decode(cell)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"{name} is no JSON: {error}", where=name) from None


def _is_digest(value: object) -> bool:
    """Whether *value* is a digest that can be checked, and at a cost that we set (RFC 7914, section 2)."""
    found = _DIGEST.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return False
    n, r, p = (int(number) for number in found.groups())
    return n > 1 and n & (n - 1) == 0 and 1 <= p <= 16 and 0 < 128 * n * r <= _MOST_MEMORY
