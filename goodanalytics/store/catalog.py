"""
The catalogue of links: made, changed and archived, many at once as well as one.

Rules of this file
1. A call costs the same number of statements for one link and for a thousand, and one bad item does not sink the others: each
   gets a `Done` of its own, in the order in which they were given. The caller decides whether to raise its `error`.
2. Uniqueness is PostgreSQL's to judge. A lost race is found out by the insert itself, or begins the transaction again (`Stale`).
3. Every change is written down and told to every process, in the same transaction (`link_history`).
4. A link's id may be derived from the caller's own key: whoever asks for the same again gets the link that was made then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from sqlalchemy import Uuid, any_, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.link_fields import check_link, random_key, unreserved
from goodanalytics.core.links import Domain, Link
from goodanalytics.core.own_address import LEADING, Prefix, check_link_leads_on
from goodanalytics.errors import Conflict, GoodAnalyticsError, InvalidInput, NotFound
from goodanalytics.store import link_domains, link_history, link_lookups, link_reading
from goodanalytics.store.database import as_json, savepoint
from goodanalytics.store.people import Stale
from goodanalytics.store.rows import insertion, recordset
from goodanalytics.store.tables import Tables

RANDOM_KEYS: Final = 5
"""How many random keys are tried before giving up; two million million of them make a second try rare."""

FIXED: Final = frozenset({"workspace_id", "id", "created_at", "archived_at"})
"""Columns that `update_many` never touches."""

Taken = Callable[[str], Collection[str]]
"""The keys that something else answers for on a domain, in lower case."""


class NameTaken(Conflict):
    """The external id is in use by another link of this workspace."""


class IdempotencyKeyReused(Conflict):
    """This key was used before for another link; send a new key, or the first link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    Who changes the catalogue, and with what.

    Attributes:
        new_id: Makes ids, and the chance in random keys.
        taken: The keys that the host's own routes answer on a domain.
        prefix: Below which path a domain's links are served.
        moves: Whether links come with all that they had, also a partner who is closed meanwhile.
    """

    workspace_id: UUID
    now: datetime
    actor: str | None
    new_id: Callable[[], UUID]
    taken: Taken = lambda _: ()
    prefix: Prefix = lambda _: ""
    moves: bool = False

    def key(self, domain: Domain) -> str:
        """A random key."""
        # The low bits of a version 7 id are random.
        number = self.new_id().int & ((1 << 62) - 1)
        return random_key(number, case_sensitive=domain.case_sensitive)


@dataclass(frozen=True, slots=True)
class Draft:
    """
    A link to be made.

    Attributes:
        has_own_key: Otherwise a random one is found for it.
    """

    link: Link
    has_own_key: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """
    What became of one item: a link, or the error that refused it.

    Attributes:
        status: `repeated` is a link that was made by the same request before, `unchanged` one that was so already.
    """

    link: Link | None = None
    status: Literal["created", "updated", "archived", "repeated", "unchanged", "refused"] = "refused"
    error: GoodAnalyticsError | None = None

    def given(self) -> Link:
        """
        The link.

        Raises:
            GoodAnalyticsError: It was refused.
        """
        if self.link is None:
            raise self.error or NotFound()
        return self.link


async def create_many(conn: AsyncConnection, t: Tables, drafts: Sequence[Draft], by: Change) -> list[Done]:
    """Add links. Refused are those whose address or external id is in use by a link, or by another of the call (`Conflict`)."""
    domains = await link_domains.hold(conn, t, by.workspace_id, {draft.link.domain for draft in drafts})
    partners = await _partners(conn, t, by.workspace_id, [draft.link.partner_id for draft in drafts])
    done: dict[int, Done] = {}
    waiting: dict[int, Link] = {}
    for index, draft in enumerate(drafts):
        domain = domains[draft.link.domain]
        key = domain.stored_key(draft.link.key) if draft.has_own_key else by.key(domain)
        try:
            waiting[index] = _admitted(
                msgspec.structs.replace(draft.link, key=key), None, domain, by, partners
            )
        except InvalidInput as error:
            done[index] = Done(error=error)
    for _ in range(RANDOM_KEYS):
        created = await _insert(conn, t, list(waiting.values()))
        done |= {n: Done(link, "created") for n, link in waiting.items() if link.id in created}
        lost = {n: (link, drafts[n]) for n, link in waiting.items() if n not in done}
        done |= await _causes(conn, t, by.workspace_id, lost)
        waiting = {
            n: msgspec.structs.replace(link, key=by.key(domains[link.domain]))
            for n, (link, _) in lost.items()
            if n not in done
        }
        if not waiting:
            break
    done |= {n: Done(error=_taken(link)) for n, link in waiting.items()}
    made = [(link, link_history.differences(None, link)) for link in _links(done.values(), "created")]
    await _settle(conn, t, made, by)
    return [done[index] for index in range(len(drafts))]


async def update_many(
    conn: AsyncConnection, t: Tables, items: Sequence[tuple[UUID, Mapping[str, Any]]], by: Change
) -> list[Done]:
    """
    Change links in use: each item is an id and fields of `Link`, which `checked_fields` has checked.

    Refused are links that are not in use (`NotFound`), and those that would take an address or external id that is in use
    (`Conflict`); of two that want the same, the first gets it.

    Raises:
        Stale: Another transaction took one of them meanwhile.
    """
    found = await _locked(conn, t, by.workspace_id, [link_id for link_id, _ in items])
    hosts = {
        changes.get("domain", found[link_id].domain)
        for link_id, changes in items
        if link_id in found and not changes.keys().isdisjoint(LEADING)
    }
    domains = await link_domains.hold(conn, t, by.workspace_id, hosts)
    partners = await _partners(conn, t, by.workspace_id, [changes.get("partner_id") for _, changes in items])
    done: dict[int, Done] = {}
    wanted: dict[int, tuple[Link, Link]] = {}
    seen: set[UUID] = set()
    for index, (link_id, changes) in enumerate(items):
        old = found.get(link_id)
        if old is None or link_id in seen:
            done[index] = Done(error=_absent(link_id) if old is None else _twice(link_id))
            continue
        seen.add(link_id)
        try:
            new = _changed(old, changes, domains, by, partners)
        except InvalidInput as error:
            done[index] = Done(error=error)
        else:
            if new == old:
                done[index] = Done(old, "unchanged")
            else:
                wanted[index] = (old, new)
    refused = await _clashes(conn, t, by.workspace_id, wanted)
    done |= {n: Done(error=error) for n, error in refused.items()}
    written = {
        n: (old, msgspec.structs.replace(new, updated_at=by.now))
        for n, (old, new) in wanted.items()
        if n not in refused
    }
    await _write(conn, t, [new for _, new in written.values()])
    done |= {n: Done(new, "updated") for n, (_, new) in written.items()}
    changed = [(new, link_history.differences(old, new)) for old, new in written.values()]
    await _settle(conn, t, changed, by, [old for old, _ in written.values()])
    return [done[index] for index in range(len(items))]


async def archive_many(conn: AsyncConnection, t: Tables, ids: Sequence[UUID], by: Change) -> list[Done]:
    """Take links out of use; their addresses and external ids are free at once. Refused is what is not in use (`NotFound`)."""
    c = t.links.c
    locked = await _locked(conn, t, by.workspace_id, ids)
    rows = await conn.execute(
        update(t.links)
        .where(c.workspace_id == by.workspace_id, c.id.in_(list(locked)), c.archived_at.is_(None))
        .values(archived_at=by.now, updated_at=by.now)
        .returning(*c)
    )
    archived = {row.id: link_reading.link_of(row) for row in rows}
    changed = [(link, link_history.differences(locked[link.id], link)) for link in archived.values()]
    await _settle(conn, t, changed, by)
    given = [archived.pop(link_id, None) for link_id in ids]
    return [
        Done(error=_absent(link_id)) if link is None else Done(link, "archived")
        for link_id, link in zip(ids, given, strict=True)
    ]


# How it is done ------------------------------------------------------------------------------------------------------


def _admitted(
    link: Link, old: Link | None, domain: Domain | None, by: Change, partners: Mapping[UUID, str]
) -> Link:
    """
    *link*, if it may stand as a whole.

    *domain* is the link's; `None` when neither its address nor where it leads changes.

    Raises:
        InvalidInput: Something else answers at its address, it leads to itself, ends before it starts, or has a strange partner.
    """
    if old is None or (old.domain, old.key) != (link.domain, link.key):
        unreserved(link.key, by.taken(link.domain))
    if domain is not None:
        check_link_leads_on(link, domain, by.prefix(link.domain))
    if link.partner_id is not None and (old is None or old.partner_id != link.partner_id):
        status = partners.get(link.partner_id)
        if status is None or (status == "closed" and not by.moves):
            known = "is not known" if status is None else "is closed"
            raise InvalidInput(f"partner_id is {link.partner_id}, a partner who {known}", where="partner_id")
    return check_link(link)


def _changed(
    old: Link,
    changes: Mapping[str, Any],
    domains: Mapping[str, Domain],
    by: Change,
    partners: Mapping[UUID, str],
) -> Link:
    fixed = sorted(FIXED & changes.keys())
    if fixed:
        raise InvalidInput(f"{fixed[0]} cannot be changed", where=fixed[0])
    new = msgspec.structs.replace(old, **changes)
    if changes.keys().isdisjoint(LEADING):
        return _admitted(new, old, None, by, partners)
    domain = domains[new.domain]
    if "key" in changes or "domain" in changes:
        new = msgspec.structs.replace(new, key=domain.stored_key(new.key))
    return _admitted(new, old, domain, by, partners)


async def _locked(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, ids: Iterable[UUID]
) -> dict[UUID, Link]:
    """Those of *ids* that are in use, locked in the order of their ids."""
    c = t.links.c
    rows = await conn.execute(
        select(t.links)
        .where(
            c.workspace_id == workspace_id,
            c.archived_at.is_(None),
            c.id == any_(literal(list(ids), ARRAY(Uuid))),
        )
        .order_by(c.id)
        .with_for_update(key_share=True)
    )
    return {row.id: link_reading.link_of(row) for row in rows}


async def _insert(conn: AsyncConnection, t: Tables, links: Sequence[Link]) -> set[UUID]:
    """Add those of *links* that nothing stands in the way of; their ids."""
    if not links:
        return set()
    rows = await conn.execute(
        # In the order of the call, so that of two that want the same the first gets it. Calls that wait for each other in a
        # circle are PostgreSQL's to break, and begun again.
        text(f"{insertion(t.links)} ON CONFLICT DO NOTHING RETURNING id"),
        {"rows": as_json([link.to_row() for link in links])},
    )
    return {UUID(str(row.id)) for row in rows}


async def _causes(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, lost: Mapping[int, tuple[Link, Draft]]
) -> dict[int, Done]:
    """Why links were not added. One whose random key is taken is left out: another key may do."""
    if not lost:
        return {}
    there = await link_reading.get_many(conn, t, workspace_id, [link.id for link, _ in lost.values()])
    first = await link_history.first(conn, t, workspace_id, there) if there else {}
    names = [link.external_id for link, _ in lost.values() if link.external_id is not None]
    used = await link_reading.ids_by_external_id(conn, t, workspace_id, names) if names else {}
    done: dict[int, Done] = {}
    for n, (link, draft) in lost.items():
        if link.id in there:
            done[n] = _repetition(there[link.id], link, first.get(link.id, {}), draft)
        elif link.external_id in used:
            done[n] = Done(error=_named(link))
        elif draft.has_own_key:
            done[n] = Done(error=_taken(link))
    return done


def _repetition(there: Link, link: Link, first: Mapping[str, Any], draft: Draft) -> Done:
    """What a request gets that was answered before."""
    ignored = set() if draft.has_own_key else {"key"}
    same = {
        name: one for name, one in link_history.differences(None, link).items() if name not in ignored
    } == {name: one for name, one in first.items() if name not in ignored}
    return Done(there, "repeated") if same else Done(error=IdempotencyKeyReused())


async def _clashes(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, wanted: Mapping[int, tuple[Link, Link]]
) -> dict[int, Conflict]:
    """Which changes want an address or an external id that another link has, or that an earlier one of the call wants."""
    moved = {n: new for n, (old, new) in wanted.items() if _address(old) != _address(new)}
    renamed = {
        n: new
        for n, (old, new) in wanted.items()
        if new.external_id is not None and old.external_id != new.external_id
    }
    used: set[tuple[UUID, str, str]] = set()
    if moved:
        found = await link_lookups.find(conn, t, [_address(link) for link in moved.values()])
        used = {
            _address(new)
            for new, one in zip(moved.values(), found, strict=True)
            if one.link is not None and one.link.id != new.id
        }
    names = {link.external_id for link in renamed.values() if link.external_id is not None}
    named = set(await link_reading.ids_by_external_id(conn, t, workspace_id, names)) if names else set()
    refused: dict[int, Conflict] = {}
    for n, link in sorted({**moved, **renamed}.items()):
        if n in moved and _address(link) in used:
            refused[n] = _taken(link)
        elif n in renamed and link.external_id in named:
            refused[n] = _named(link)
        else:
            used.add(_address(link))
            named.add(link.external_id or "")
    return refused


async def _write(conn: AsyncConnection, t: Tables, links: Sequence[Link]) -> None:
    """
    Write *links*, which are locked, over what is stored.

    Raises:
        Stale: Another transaction took an address or external id of theirs after we looked.
    """
    if not links:
        return
    try:
        async with savepoint(conn) as inner:
            await inner.execute(text(_rewriting(t)), {"rows": as_json([link.to_row() for link in links])})
    except IntegrityError as error:
        raise Stale from error


@lru_cache(maxsize=8)
def _rewriting(t: Tables) -> str:
    names = [column.name for column in t.links.c if column.name not in FIXED]
    sets = ", ".join(f'"{name}" = r."{name}"' for name in names)
    return (
        f"UPDATE {t.links} l SET {sets} FROM {recordset(t.links)} "
        "WHERE l.workspace_id = r.workspace_id AND l.id = r.id"
    )


async def _partners(
    conn: AsyncConnection, t: Tables, workspace_id: UUID, ids: Iterable[UUID | None]
) -> dict[UUID, str]:
    """The status of those of *ids* that are partners."""
    asked = {one for one in ids if one is not None}
    if not asked:
        return {}
    p = t.partners.c
    rows = await conn.execute(
        select(p.id, p.status).where(p.workspace_id == workspace_id, p.id.in_(sorted(asked)))
    )
    return {row.id: row.status for row in rows}


async def _settle(
    conn: AsyncConnection,
    t: Tables,
    changed: Sequence[tuple[Link, Mapping[str, Any]]],
    by: Change,
    before: Iterable[Link] = (),
) -> None:
    """Write down what changed, and tell of the addresses that were and are theirs."""
    await link_history.note(conn, t, changed, at=by.now, actor=by.actor, new_id=by.new_id)
    await link_history.tell(conn, t, {_address(link) for link in (*before, *(one for one, _ in changed))})


def _links(done: Iterable[Done], status: str) -> list[Link]:
    return [one.link for one in done if one.status == status and one.link is not None]


def _address(link: Link) -> tuple[UUID, str, str]:
    return link.workspace_id, link.domain, link.key


def _taken(link: Link) -> Conflict:
    return Conflict(
        f"{link.domain}/{link.key} is in use. Choose another key, or archive the link that has it"
    )


def _named(link: Link) -> Conflict:
    return NameTaken(f"external_id {link.external_id!r} is in use by another link of this workspace")


def _absent(link_id: UUID) -> NotFound:
    return NotFound(f"There is no link {link_id} in use in this workspace")


def _twice(link_id: UUID) -> InvalidInput:
    return InvalidInput(f"link {link_id} is named twice in one call; once is enough", where="id")


__all__ = [
    "Change",
    "Done",
    "Draft",
    "IdempotencyKeyReused",
    "NameTaken",
    "archive_many",
    "create_many",
    "update_many",
]
