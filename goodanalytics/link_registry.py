"""
ACT: links are made, changed and taken out of use, one or a thousand in a call; domains are set.

1. What the host gives is checked before anything is locked (`core.link_fields`); what depends on other links is decided in the
   transaction (`store.catalog`). One bad item does not sink the others: it gets its error, in its place.
2. Passwords are digested in a thread, one after the other: each takes memory and time on purpose.
3. Keys that the host's own routes answer are refused on link domains, where keys and paths are one. Elsewhere links live below
   `link_path`, and nothing can clash.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, Unpack
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.config import Config
from goodanalytics.core.bounds import text
from goodanalytics.core.domain_fields import DomainFields, checked_domain_fields
from goodanalytics.core.hits import id_for_key
from goodanalytics.core.link_fields import LinkFields, checked_domain, checked_fields
from goodanalytics.core.links import Domain, Link, password_hash
from goodanalytics.core.own_address import check_domain_leads_on, prefix_of
from goodanalytics.core.visitors import Visitor
from goodanalytics.errors import GoodAnalyticsError, InvalidInput
from goodanalytics.store import catalog, ledger, link_domains, link_reading
from goodanalytics.store.catalog import Change, Done, Draft
from goodanalytics.store.database import Database
from goodanalytics.store.people import Stale

MAX_MANY: Final = 1_000
MAX_PASSWORDS: Final = 50
"""Passwords that one call may set; each takes some 50 ms."""

T = TypeVar("T")
Item = Mapping[str, Any]


class LinkAndPlace(LinkFields, total=False):
    """What may be said of a link, and where it leads."""

    url: str


class LinkChanges(LinkAndPlace, total=False):
    """What may be changed of a link. `None` clears."""

    external_id: str | None


@dataclass(frozen=True, slots=True)
class LinkRegistry:
    """
    What changes links. `facade.links.Links` is how hosts see it.

    Attributes:
        host_paths: The first parts of the paths that the host's own routes answer, in lower case.
    """

    config: Config
    database: Database
    host_paths: Callable[[], Collection[str]] = field(default=frozenset)

    async def create_many(
        self,
        items: Iterable[Item],
        *,
        actor: str | None = None,
        request_key: str | None = None,
        workspace_id: UUID | None = None,
    ) -> list[Done]:
        """
        Make up to 1,000 links, each given as a mapping with the arguments of `create`.

        Args:
            request_key: Makes the call safe to repeat: what was made under it is handed out again, what was refused is tried.

        Raises:
            InvalidInput: There are too many. Anything else that is wrong is the `error` of its own item.
        """
        by = self._change(workspace_id, actor)
        drafts = [
            _attempt(self._draft, values, by, None if request_key is None else f"{n} {request_key}")
            for n, values in enumerate(await self._checked(map(_placed, items)))
        ]
        return await self._each(
            drafts, lambda conn, some: catalog.create_many(conn, self.database.tables, some, by)
        )

    async def upsert_many(
        self, items: Iterable[Item], *, actor: str | None = None, workspace_id: UUID | None = None
    ) -> list[Done]:
        """
        Change up to 1,000 links by their `external_id`, which each item has to have, and make those that are missing.

        Raises:
            InvalidInput: There are too many. Anything else that is wrong is the `error` of its own item.
        """
        by, t = self._change(workspace_id, actor), self.database.tables
        checked = [_attempt(_with_external_id, values) for values in await self._checked(map(_placed, items))]

        async def act(conn: AsyncConnection, some: Sequence[dict[str, Any]]) -> list[Done]:
            names = [values["external_id"] for values in some]
            known = await link_reading.ids_by_external_id(conn, t, by.workspace_id, names)
            there = [(known[name], values) for name, values in zip(names, some, strict=True) if name in known]
            changed = iter(await catalog.update_many(conn, t, there, by) if there else [])
            drafts = [
                _attempt(self._draft, values, by, None)
                for name, values in zip(names, some, strict=True)
                if name not in known
            ]
            usable = [draft for draft in drafts if isinstance(draft, Draft)]
            made = iter(await catalog.create_many(conn, t, usable, by) if usable else [])
            fresh = iter([next(made) if isinstance(d, Draft) else Done(error=d) for d in drafts])
            done = [next(changed) if name in known else next(fresh) for name in names]
            if any(isinstance(one.error, catalog.NameTaken) for one in done) and len(set(names)) == len(
                names
            ):
                raise Stale  # somebody else made it meanwhile: then it is there to be changed
            return done

        return await self._each(checked, act)

    async def update_many(
        self, items: Iterable[Item], *, actor: str | None = None, workspace_id: UUID | None = None
    ) -> list[Done]:
        """
        Change up to 1,000 links, each given as a mapping with its `id` and what shall change.

        Raises:
            InvalidInput: There are too many. Anything else that is wrong is the `error` of its own item.
        """
        given = list(items)
        checked = await self._checked([{k: v for k, v in one.items() if k != "id"} for one in given])
        by = self._change(workspace_id, actor)
        changes = [
            _attempt(_with_id, values, one.get("id")) for values, one in zip(checked, given, strict=True)
        ]
        return await self._each(
            changes, lambda conn, some: catalog.update_many(conn, self.database.tables, some, by)
        )

    async def archive_many(
        self,
        links: Iterable[Link | UUID | str],
        *,
        actor: str | None = None,
        workspace_id: UUID | None = None,
    ) -> list[Done]:
        """
        Take up to 1,000 links out of use.

        Raises:
            InvalidInput: There are too many. What is no link in use gets its own `error`.
        """
        ids = [_attempt(as_uuid, link, "id") for link in links]
        _check_count(ids)
        by = self._change(workspace_id, actor)
        return await self._each(
            ids, lambda conn, some: catalog.archive_many(conn, self.database.tables, some, by)
        )

    async def set_domain(
        self, host: str, *, workspace_id: UUID | None = None, **fields: Unpack[DomainFields]
    ) -> Domain:
        """
        Say what holds for all links of *host*. What is not given stays as it is.

        When case ceases to matter, the keys of its links become small letters.

        Raises:
            InvalidInput: A value is not usable, or leads back to the domain.
            Conflict: Two links would have the same key if case did not matter.
        """
        name, changes = checked_domain(host), checked_domain_fields(fields)

        def changed(domain: Domain) -> Domain:
            new = msgspec.structs.replace(domain, **changes)
            if not changes.keys().isdisjoint(("root_url", "not_found_url")):
                check_domain_leads_on(new, self._prefix(name))
            return new

        async def act(conn: AsyncConnection) -> Domain:
            return await link_domains.put(
                conn, self.database.tables, self._in(workspace_id), name, changed, self.config.clock()
            )

        return await ledger.again(self.database, act)

    # How it is done --------------------------------------------------------------------------------------------------

    def _in(self, workspace_id: UUID | None) -> UUID:
        return workspace_id or self.config.workspace

    def _prefix(self, domain: str) -> str:
        return prefix_of(domain, self.config.link_domains, self.config.link_path)

    def _change(self, workspace_id: UUID | None, actor: str | None) -> Change:
        paths = frozenset(self.host_paths())
        return Change(
            workspace_id=self._in(workspace_id), now=self.config.clock(), actor=text(actor), new_id=self.config.new_id,
            taken=lambda domain: () if self._prefix(domain) else paths, prefix=self._prefix,
        )  # fmt: skip

    async def _checked(self, items: Iterable[Item]) -> list[dict[str, Any] | GoodAnalyticsError]:
        """Each item's fields, its password digested."""
        given = list(items)
        _check_count(given)
        schemes = self.config.link_app_schemes
        found = [_attempt(checked_fields, item, schemes) for item in given]
        secret = {
            n: item["password"]
            for n, item in enumerate(given)
            if isinstance(found[n], dict) and "password" in item
        }
        if sum(password is not None for password in secret.values()) > MAX_PASSWORDS:
            raise InvalidInput(
                f"More than {MAX_PASSWORDS} passwords are set in one call; they take time on purpose. Send fewer",
                where="password",
            )
        for n, password in secret.items():
            digest = await self._digest(password)
            found[n] = (
                digest
                if isinstance(digest, GoodAnalyticsError)
                else {**_fields(found[n]), "password_hash": digest}
            )
        return found

    async def _digest(self, password: str | None) -> str | GoodAnalyticsError | None:
        if password is None:
            return None
        # A token holds 128 random bits, whatever its letters are.
        salt = hashlib.sha256(self.config.new_token().encode()).digest()[:16]
        return await asyncio.to_thread(_attempt, password_hash, password, salt)

    def _draft(
        self, values: dict[str, Any] | GoodAnalyticsError, by: Change, request_key: str | None
    ) -> Draft:
        """
        The link that *values* describe.

        Raises:
            InvalidInput: It leads nowhere, or its domain is missing and none is configured.
        """
        fields = _fields(values)
        if "url" not in fields:
            raise InvalidInput("url is missing; say where the link leads", where="url")
        if fields.get("domain") is None:
            if not self.config.link_domains:
                raise InvalidInput(
                    "domain is missing and no link_domains are configured; name the host", where="domain"
                )
            fields["domain"] = self.config.link_domains[0]
        key = fields.pop("key", None)
        link_id = by.new_id() if request_key is None else id_for_key(by.workspace_id, "link", request_key)
        link = Link(
            workspace_id=by.workspace_id,
            id=link_id,
            key=key or "",
            created_at=by.now,
            updated_at=by.now,
            **fields,
        )
        return Draft(link, has_own_key=key is not None)

    async def _each(
        self,
        items: Sequence[T | GoodAnalyticsError],
        act: Callable[[AsyncConnection, Sequence[T]], Awaitable[list[Done]]],
    ) -> list[Done]:
        """What *act* makes of the usable *items*, in one transaction; each of the others has its own error."""
        usable = [item for item in items if not isinstance(item, GoodAnalyticsError)]
        done = iter(await ledger.again(self.database, lambda conn: act(conn, usable)) if usable else [])
        return [Done(error=item) if isinstance(item, GoodAnalyticsError) else next(done) for item in items]


def as_uuid(value: Visitor | Link | UUID | str, what: str) -> UUID:
    """
    The id of *value*, or *value* itself as an id.

    Raises:
        InvalidInput: It is none.
    """
    if isinstance(value, Visitor | Link):
        return value.id
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise InvalidInput(f"{what} is {value!r}; give a UUID, or what we handed out", where=what) from None


def _attempt(make: Callable[..., T], *given: Any) -> T | GoodAnalyticsError:
    """What *make* makes, or why not."""
    try:
        return make(*given)
    except InvalidInput as error:
        return error


def _fields(values: dict[str, Any] | GoodAnalyticsError) -> dict[str, Any]:
    """
    A copy of *values*.

    Raises:
        InvalidInput: They were refused before.
    """
    if isinstance(values, GoodAnalyticsError):
        raise values
    return dict(values)


def _placed(item: Item) -> Item:
    """*item*, in which no domain and no key are left out: a new link gets them."""
    return {name: value for name, value in item.items() if value is not None or name not in ("domain", "key")}


def _with_external_id(values: dict[str, Any] | GoodAnalyticsError) -> dict[str, Any]:
    fields = _fields(values)
    if fields.get("external_id") is None:
        raise InvalidInput("external_id is missing; name the link by your own id", where="external_id")
    return fields


def _with_id(values: dict[str, Any] | GoodAnalyticsError, link: Any) -> tuple[UUID, dict[str, Any]]:
    return as_uuid(link, "id"), _fields(values)


def _check_count(items: Sequence[object]) -> None:
    if len(items) > MAX_MANY:
        raise InvalidInput(f"There are {len(items)} links in one call; at most {MAX_MANY} are taken")


__all__ = [
    "MAX_MANY",
    "MAX_PASSWORDS",
    "LinkAndPlace",
    "LinkChanges",
    "LinkRegistry",
    "as_uuid",
]
