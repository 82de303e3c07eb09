"""
Our own export: links, the settings of their domains, partners with their terms. Every field, and read back exactly.

Rules of this file
1. In JSON each row has a `kind`: `link`, `domain` or `partner`; one without is a link. The first is `HEADER`, with the version of the
   form; a file of a later version is refused. CSV is a table of one kind of row, so it holds the links alone.
2. A row has all fields of a `Link` but its workspace, which is the one that it is brought into. Id, times and archive are kept,
   so what refers to a link by its id goes on doing so.
3. Of a password the file says only that there is one, unless its digest is asked for. A row that says so and has no digest is
   refused: the link would be open. A digest is as secret as a password that somebody can try out at home.
4. In CSV rules, variants, tags and metadata are JSON; an empty cell is nothing. What comes in is checked as anything else is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from goodanalytics.core.domain_fields import DomainFields, checked_domain_fields
from goodanalytics.core.link_fields import checked_domain, checked_fields
from goodanalytics.core.links import AndroidApp, Domain, Link
from goodanalytics.core.partners import Commission, Partner, PartnerStatus, checked_partner
from goodanalytics.errors import InvalidInput

OWN: Final = "goodanalytics"
"""The name of our own export among those of the rivals."""

KIND: Final = "kind"
VERSION: Final = 1
HEADER: Final[Mapping[str, Any]] = {KIND: OWN, "version": VERSION}

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

_Moment = Annotated[datetime, Meta(tz=True)]


class _DomainRow(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    root_url: str | None = None
    not_found_url: str | None = None
    expired_url: str | None = None
    case_sensitive: bool = True
    ios_app_ids: list[str] = []
    android_apps: list[AndroidApp] = []
    created_at: _Moment
    updated_at: _Moment


class _PartnerRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    code: str
    name: str
    email: str | None = None
    external_id: str | None = None
    visitor_id: UUID | None = None
    status: PartnerStatus = "active"
    commission: Commission = Commission()
    metadata: dict[str, Any] = {}
    created_at: _Moment
    updated_at: _Moment


KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "link": frozenset({KIND, *COLUMNS, PASSWORD}),
    "domain": frozenset({KIND, *_DomainRow.__struct_fields__}),
    "partner": frozenset({KIND, *_PartnerRow.__struct_fields__}),
}
"""What the rows of each kind have."""

_T = TypeVar("_T")


def row_of(link: Link, *, passwords: bool = False) -> dict[str, Any]:
    """*link* as a row of the export, in JSON's types."""
    row: dict[str, Any] = {
        KIND: "link",
        **msgspec.to_builtins(link),
        "has_password": link.has_password,
    }
    del row["workspace_id"]
    if not passwords:
        del row[PASSWORD]
    return row


def domain_row(domain: Domain) -> dict[str, Any]:
    """*domain* as a row of the export."""
    row: dict[str, Any] = {KIND: "domain", **msgspec.to_builtins(domain)}
    del row["workspace_id"]
    return row


def partner_row(partner: Partner) -> dict[str, Any]:
    """*partner* as a row of the export, the terms among it."""
    row: dict[str, Any] = {KIND: "partner", **msgspec.to_builtins(partner)}
    del row["workspace_id"]
    return row


def check_version(header: Mapping[str, Any]) -> None:
    """
    Let a file pass whose `HEADER` is of a form that is read here.

    Raises:
        InvalidInput: It is of a later version.
    """
    version = header.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InvalidInput(
            f"The file is of version {version!r:.80}; up to {VERSION} is read here. Upgrade goodanalytics",
            where="file",
        )


def domain_of(values: Mapping[str, Any], workspace_id: UUID) -> Domain:
    """
    The domain of a row that `domain_row` made.

    Raises:
        InvalidInput: A value is missing or not usable.
    """
    row = _typed(values, _DomainRow)
    said: DomainFields = {
        "root_url": row.root_url, "not_found_url": row.not_found_url, "expired_url": row.expired_url,
        "case_sensitive": row.case_sensitive, "ios_app_ids": row.ios_app_ids, "android_apps": row.android_apps,
    }  # fmt: skip
    return Domain(
        workspace_id=workspace_id, host=checked_domain(row.host), created_at=_utc(row.created_at),
        updated_at=_utc(row.updated_at), **checked_domain_fields(said),
    )  # fmt: skip


def partner_of(values: Mapping[str, Any], workspace_id: UUID) -> Partner:
    """
    The partner of a row that `partner_row` made. `visitor_id` is kept, though visitors do not move with the file.

    Raises:
        InvalidInput: A value is missing or not usable.
    """
    row = _typed(values, _PartnerRow)
    said = {name: value for name, value in msgspec.structs.asdict(row).items() if name not in _OF_THE_ROW}
    return Partner(
        workspace_id=workspace_id, id=row.id, created_at=_utc(row.created_at), updated_at=_utc(row.updated_at),
        **checked_partner(said),
    )  # fmt: skip


_OF_THE_ROW: Final = ("id", "created_at", "updated_at")


def _typed(values: Mapping[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert({name: value for name, value in values.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: msgspec.ValidationError) -> InvalidInput:
    reason, _, at = str(error).partition(" - at `$.")
    where = at.removesuffix("`")
    return InvalidInput(f"{where or 'The row'}: {reason}", where=where)


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{moment.isoformat()} is no time that can be kept", where="created_at") from None


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
        raise _refusal(error) from None
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
