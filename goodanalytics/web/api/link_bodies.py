"""What `/links…` and `/domains…` read and answer with. Values are checked where every link is (`core.link_fields`)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from goodanalytics.core.bounds import MAX_ID, MAX_TEXT, MAX_URL
from goodanalytics.core.link_fields import MAX_NOTES, MAX_TAGS
from goodanalytics.core.links import AndroidApp, Link, LinkType, RedirectStatus, Rule, Variant
from goodanalytics.link_registry import MAX_MANY
from goodanalytics.store.link_figures import Click
from goodanalytics.store.link_history import Revision
from goodanalytics.store.link_lists import Sort
from goodanalytics.store.link_reading import MAX_SEARCH
from goodanalytics.store.reports.periods import Interval
from goodanalytics.web.api.events import ItemProblem
from goodanalytics.web.api.visitors import Cursor, Limit, PageOf

Url = Annotated[str, Meta(min_length=1, max_length=MAX_URL)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Moment = Annotated[datetime, Meta(tz=True)]
ExternalId = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID, description="Your own id, unique among the links in use.")
]


class LinkSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be said of a link. Null clears."""

    domain: (
        Annotated[str, Meta(max_length=MAX_TEXT, description="The first of `link_domains` when left out.")]
        | UnsetType
    ) = UNSET
    key: (
        Annotated[
            str,
            Meta(
                pattern="^[A-Za-z0-9_-]{1,255}$",
                description="What stands behind the host; random when left out.",
            ),
        ]
        | UnsetType
    ) = UNSET
    external_id: ExternalId | UnsetType | None = UNSET
    link_type: LinkType | UnsetType = UNSET
    title: Text | UnsetType | None = UNSET
    notes: Annotated[str, Meta(max_length=MAX_NOTES)] | UnsetType | None = UNSET
    folder: Text | UnsetType | None = UNSET
    tags: Annotated[list[Text], Meta(max_length=MAX_TAGS)] | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    utm_source: Text | UnsetType | None = UNSET
    utm_medium: Text | UnsetType | None = UNSET
    utm_campaign: Text | UnsetType | None = UNSET
    utm_content: Text | UnsetType | None = UNSET
    utm_term: Text | UnsetType | None = UNSET
    ios_url: Url | UnsetType | None = UNSET
    android_url: Url | UnsetType | None = UNSET
    rules: (
        Annotated[
            list[Rule], Meta(description="Tried in order; the first whose conditions all hold decides.")
        ]
        | UnsetType
        | None
    ) = UNSET
    variants: (
        Annotated[
            list[Variant], Meta(description="A split of those whom no rule takes: none, or two and more.")
        ]
        | UnsetType
        | None
    ) = UNSET
    starts_at: Moment | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    expired_url: Url | UnsetType | None = UNSET
    max_clicks: (
        Annotated[
            int, Meta(ge=1, description="Uses after which the link is over; 1 makes it a one-time link.")
        ]
        | UnsetType
        | None
    ) = UNSET
    password: (
        Annotated[
            str, Meta(min_length=1, max_length=128, description="Write only: answers have `has_password`.")
        ]
        | UnsetType
        | None
    ) = UNSET
    redirect_status: RedirectStatus | UnsetType = UNSET
    forward_path: bool | UnsetType = UNSET
    forward_query: bool | UnsetType = UNSET
    cloaked: bool | UnsetType = UNSET
    indexed: bool | UnsetType = UNSET
    og_title: Text | UnsetType | None = UNSET
    og_description: Annotated[str, Meta(max_length=1000)] | UnsetType | None = UNSET
    og_image: Url | UnsetType | None = UNSET
    partner_id: UUID | UnsetType | None = UNSET


class LinkBody(LinkSaid, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new link."""

    url: Annotated[Url, Meta(description="Where it leads: an absolute http or https address.")]


class LinkPatch(LinkSaid, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What shall change of a link; what is left out stays as it is."""

    url: Url | UnsetType = UNSET


class UpdateItem(LinkPatch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A link that shall change."""

    id: UUID


class UpsertItem(LinkPatch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A link that shall change, or be made if there is none of this `external_id` in use."""

    external_id: ExternalId


class ArchiveItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link that shall be taken out of use."""

    id: UUID


class BulkItem(LinkPatch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One link of a bulk call, as its *action* needs it."""

    id: Annotated[UUID, Meta(description="To change and to archive.")] | UnsetType = UNSET


class LinkBulk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Up to 1,000 links that stand each for itself.

    *action* says what is done with all of them, and so what each has: a new link's members, an `id` and what shall change, an
    `external_id` and what shall be so, or an `id` alone.
    """

    links: Annotated[list[BulkItem], Meta(min_length=1, max_length=MAX_MANY)]
    action: Literal["create", "update", "upsert", "archive"] = "create"


LinkAnswer = msgspec.defstruct(
    "LinkAnswer",
    [
        *(
            (field.name, field.type)
            for field in msgspec.structs.fields(Link)
            if field.name not in ("workspace_id", "password_hash")
        ),
        ("has_password", bool),
        ("short_url", str),
    ],
    namespace={"__doc__": "A link, as `core.links.link_json` writes it."},
    frozen=True,
    forbid_unknown_fields=True,
)


class LinkList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Links."""

    data: list[LinkAnswer]  # type: ignore[valid-type]  # made by msgspec from `Link`
    page: PageOf


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was changed of a link, the newest first."""

    data: list[Revision]
    page: PageOf


class ClickList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Clicks, the newest first."""

    data: list[Click]
    page: PageOf


class LinkResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of the link at *index*: *link*, or *error*."""

    index: int
    status: Literal["created", "updated", "unchanged", "archived", "repeated", "error"]
    link: LinkAnswer | None = None  # type: ignore[valid-type]
    error: ItemProblem | None = None


class BulkAnswer(msgspec.Struct, frozen=True):
    """One result for each link, in their order."""

    results: list[LinkResult]


class LinkQuery(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Which links. A period is for `sort` by clicks."""

    limit: Limit = 50
    cursor: Cursor | None = None
    search: (
        Annotated[
            str,
            Meta(
                max_length=MAX_SEARCH,
                description="A part of the short address, the destination, title, notes or external id.",
            ),
        ]
        | None
    ) = None
    sort: Sort = "-created_at"
    domain: Text | None = None
    tag: Text | None = None
    folder: Text | None = None
    partner_id: UUID | None = None
    archived: Annotated[
        Literal["false", "true", "all"], Meta(description="Only links in use, only archived ones, or both.")
    ] = "false"
    since: (
        Annotated[Moment, Meta(description="From when on clicks count; from the first one when left out.")]
        | None
    ) = None
    until: Annotated[Moment, Meta(description="Until when; until now when left out.")] | None = None


class PartQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list; the newest comes first."""

    limit: Limit = 50
    cursor: Cursor | None = None


class ClickQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a link's clicks; the newest comes first."""

    limit: Limit = 50
    cursor: Cursor | None = None
    include_bots: Annotated[bool, Meta(description="Also what bots, previews and prefetches asked for.")] = (
        False
    )


class StatsQuery(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Which time, and how it is cut. Without a period: everything until now, ten years at most."""

    since: Moment | None = None
    until: Moment | None = None
    interval: Interval = "day"
    timezone: Annotated[str, Meta(max_length=64, description="IANA name.")] = "UTC"
    unique_window: Annotated[
        int,
        Meta(
            ge=60,
            le=366 * 86_400,
            description="Seconds within which a person's clicks are one deduplicated click.",
        ),
    ] = 86_400


class DomainPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for all links of a host; what is left out stays as it is, null clears."""

    root_url: Url | UnsetType | None = UNSET
    not_found_url: Url | UnsetType | None = UNSET
    expired_url: Url | UnsetType | None = UNSET
    case_sensitive: bool | UnsetType = UNSET
    ios_app_ids: list[str] | UnsetType | None = UNSET
    android_apps: list[AndroidApp] | UnsetType | None = UNSET


class DomainAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A domain. One of which nothing was said has no times."""

    host: str
    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    case_sensitive: bool
    ios_app_ids: list[str]
    android_apps: list[AndroidApp]
    created_at: datetime | None
    updated_at: datetime | None


class DomainList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every domain of which something was said, by name."""

    data: list[DomainAnswer]


def given(body: msgspec.Struct) -> dict[str, Any]:
    """The members of *body* that were sent."""
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
