"""
ACT: bring links in from another shortener or from our own export, and write all of them out, with their domains and partners.

    async for report in moving.bring(config, database, data, "dub"): ...   # after each batch, the same report grown
    async for piece in moving.take_out(database, workspace_id, "jsonl"): file.write(piece)

Rules of this file
1. A second run changes nothing. A link is known again by its id, which is derived from what it was called there (so also when
   it was archived meanwhile), by its external id, or by its address when the same shortener's file brought it. Whatever
   was done to it here since stays.
2. Each batch is a transaction: a run that is broken off can be started again. A dry run is one transaction with all batches,
   rolled back; so it meets what a run would meet, and its report is that run's.
3. One row that cannot be taken sinks no other. Its number, address and reason stand in the report.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics import moving_terms
from goodanalytics.config import Config
from goodanalytics.core import moving_files, moving_own
from goodanalytics.core.hits import id_for_key
from goodanalytics.core.link_fields import checked_domain, checked_fields
from goodanalytics.core.links import Domain, Link
from goodanalytics.core.moving import Moving, Refused, understand
from goodanalytics.core.moving_files import FileFormat, Row, Table
from goodanalytics.core.moving_rivals import RIVALS, Rival
from goodanalytics.core.own_address import prefix_of
from goodanalytics.core.partners import Partner
from goodanalytics.errors import InvalidInput
from goodanalytics.moving_terms import Outcome, Terms
from goodanalytics.store import catalog, ledger, link_domains, link_lookups, link_reading, partners
from goodanalytics.store.database import Database
from goodanalytics.store.pages import Page

T = TypeVar("T")

BATCH: Final = 500
SOURCES: Final = (moving_own.OWN, *RIVALS)
"""Where links can be brought from."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something about one row of the file."""

    row: int
    address: str
    text: str


@dataclass(slots=True)
class Report:
    """
    What became of a file, row by row.

    Attributes:
        total: Rows of the file.
        done: Rows looked at so far.
        created: Links that were made, also those of *changed*.
        domains: Domains of which the settings were taken over; out of our own export only.
        partners: Partners who were added, likewise.
        already: Links, domains and partners that were here before; nothing was done to them.
        changed: What is not as it was in the file; a link may have several.
        refused: Rows that became no link.
        unknown_columns: Columns that mean nothing to us.
        left_out: Columns that are left out on purpose.
    """

    source: str
    is_dry_run: bool
    total: int = 0
    done: int = 0
    created: int = 0
    domains: int = 0
    partners: int = 0
    already: int = 0
    changed: list[Note] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)
    unknown_columns: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told


@dataclass(frozen=True, slots=True)
class _Item:
    """A link that a row became, if the catalogue takes it. *rival* is empty for our own."""

    row: int
    address: str
    link: Link
    rival: str = ""
    changes: tuple[str, ...] = ()


_Read = _Item | Terms | Refused


async def bring(
    config: Config,
    database: Database,
    data: bytes,
    source: str,
    *,
    domain: str | None = None,
    dry_run: bool = False,
    encoding: str = "utf-8",
    workspace_id: UUID | None = None,
    actor: str | None = None,
    taken: catalog.Taken = lambda _: (),
) -> AsyncIterator[Report]:
    """
    Bring in the links of a file, and out of our own also domains and partners; the report after nothing, and after each batch.

    Args:
        source: One of `SOURCES`: whose export *data* is.
        domain: The host that all links get, and settings of domains stay behind; each keeps its own when left out, and one
            without any gets the first of `link_domains`.
        dry_run: Report what would be, and leave everything as it is.
        encoding: Of a file that is not UTF-8; one of `moving_files.ENCODINGS`.
        actor: Who does it, for the links' history.
        taken: See `catalog.Change`.

    Raises:
        InvalidInput: The file is not what it is said to be, or larger than we take.
    """
    report = Report(source, dry_run)
    # In a thread: a large file takes seconds of computing, and the app's other requests go on meanwhile.
    read = await asyncio.to_thread(
        _reader, config, source, data, encoding, domain, workspace_id or config.workspace, report
    )
    report.total = len(read)
    yield report
    by = partial(
        catalog.Change,
        workspace_id=workspace_id or config.workspace,
        actor=actor,
        new_id=config.new_id,
        taken=taken,
        prefix=lambda host: prefix_of(host, config.link_domains, config.link_path),
        moves=source == moving_own.OWN,
    )
    terms = [one for one in read if isinstance(one, Terms)]
    links = [one for one in read if not isinstance(one, Terms)]
    batches = [part[start : start + BATCH] for part in (terms, links) for start in range(0, len(part), BATCH)]
    if dry_run:
        async with database.connect() as conn:
            for batch in batches:
                _count(report, batch, await _placed(conn, database, batch, by(now=config.clock())))
                yield report
            await conn.rollback()
        return
    for batch in batches:
        change = by(now=config.clock())
        placed = await ledger.again(database, partial(_placed, database=database, batch=batch, by=change))
        _count(report, batch, placed)
        yield report


async def take_out(
    database: Database,
    workspace_id: UUID,
    kind: FileFormat = "jsonl",
    *,
    passwords: bool = False,
) -> AsyncIterator[bytes]:
    """
    The pieces of a file of everything about links; `bring(…, "goodanalytics")` reads it back.

    All links, archived ones too, oldest first; behind them partners with their terms, and domains with their settings. CSV holds
    the links only (`moving_own`). Clicks, leads and sales are events of visitors and not part of it.

    Args:
        passwords: Whether the digests of passwords are in it.
    """
    columns = (*moving_own.COLUMNS, moving_own.PASSWORD) if passwords else moving_own.COLUMNS
    writer, t = moving_files.Writer(columns, kind), database.tables
    yield writer.start() + (b"" if kind == "csv" else writer.row(moving_own.HEADER))
    links = partial(
        link_reading.list_links, t=t, workspace_id=workspace_id, wanted=link_reading.Wanted(archived=None), sort="created_at"
    )  # fmt: skip
    async for some in _pages(database, links):
        yield b"".join(writer.row(moving_own.row_of(link, passwords=passwords)) for link in some)
    if kind != "csv":
        # Behind the links, so that the partner of one that is made meanwhile is there too.
        people = partial(partners.list_partners, t=t, workspace_id=workspace_id)
        async for found in _pages(database, people):
            yield b"".join(writer.row(moving_own.partner_row(partner)) for partner in found)
        async with database.connect() as conn:
            domains = await link_domains.list_domains(conn, t, workspace_id)
        yield b"".join(writer.row(moving_own.domain_row(domain)) for domain in domains)
    yield writer.end()


async def _pages(database: Database, page: Callable[..., Awaitable[Page[T]]]) -> AsyncIterator[Sequence[T]]:
    """What a list has, a *page* after the other, each read by a connection of its own: whoever takes it may be slow."""
    cursor: str | None = None
    while True:
        async with database.connect() as conn:
            found = await page(conn, limit=200, after=cursor)
        if found.items:
            yield found.items
        cursor = found.next_cursor
        if cursor is None:
            return


# Reading -------------------------------------------------------------------------------------------------------------


def _reader(
    config: Config,
    source: str,
    data: bytes,
    encoding: str,
    domain: str | None,
    workspace_id: UUID,
    report: Report,
) -> Sequence[_Read]:
    """The rows of *data*; columns and notes go into *report*."""
    host = None if domain is None else checked_domain(domain)
    if source == moving_own.OWN:
        table = moving_files.read(data, encoding, is_ours=True)
        return _once(_own(config, table, host, workspace_id, report))
    if source not in RIVALS:
        raise InvalidInput(
            f"source is {source!r}; links can be brought from {', '.join(SOURCES)}", where="source"
        )
    found = understand(
        RIVALS[source],
        moving_files.read(data, encoding),
        domain=host,
        default_domain=next(iter(config.link_domains), None),
    )
    report.unknown_columns, report.left_out = list(found.unknown), list(found.left_out)
    report.notes = list(found.notes)
    return _once([_item(config, RIVALS[source], one, workspace_id) for one in found.links])


def _once(read: Sequence[_Read]) -> list[_Read]:
    """*read* with one row for each link, domain and partner: of several that are the same one, the first."""
    first: dict[UUID | str, int] = {}
    kept: list[_Read] = []
    for one in read:
        match one:
            case _Item():
                kind, row = "link", first.setdefault(one.link.id, one.row)
            case Terms(made=Domain(host=host)):
                kind, row = "domain", first.setdefault(host, one.row)
            case Terms(made=Partner(id=partner_id)):
                kind, row = "partner", first.setdefault(f"partner {partner_id}", one.row)
            case _:
                kept.append(one)
                continue
        is_new = row == one.row
        kept.append(one if is_new else Refused(one.row, one.address, f"is the same {kind} as row {row}"))
    return kept


def _item(config: Config, rival: Rival, one: Moving | Refused, workspace_id: UUID) -> _Item | Refused:
    if isinstance(one, Refused):
        return one
    now, changes = config.clock(), list(one.changes)
    created_at = one.created_at or now
    if created_at > now:
        created_at = now
        changes.append("was made in the future; the time of the import stands for it")
    try:
        link = Link(
            workspace_id=workspace_id,
            id=id_for_key(workspace_id, "moved link", one.source_id),
            created_at=created_at,
            updated_at=now,
            **checked_fields(one.fields, config.link_app_schemes),
        )
    except InvalidInput as error:
        return Refused(one.number, one.address, str(error))
    return _Item(one.number, one.address, link, rival.name, tuple(changes))


def _own(config: Config, table: Table, domain: str | None, workspace_id: UUID, report: Report) -> list[_Read]:
    headers = [row for row in table.rows if row.values.get(moving_own.KIND) == moving_own.OWN]
    for header in headers:
        moving_own.check_version(header.values)
    if not headers and (missing := sorted({"id", "domain", "key", "url"} - set(table.columns))):
        raise InvalidInput(
            f"The file has no column {missing[0]}, so it is no export of ours. Whose is it? {', '.join(RIVALS)}",
            where="file",
        )
    report.notes = list(table.notes)
    read: list[_Read] = []
    unknown: set[str] = set()
    left = 0
    for row in table.rows:
        kind = row.values.get(moving_own.KIND) or "link"
        if kind == moving_own.OWN:
            continue
        if kind == "domain" and domain is not None:
            left += 1
            continue
        if isinstance(kind, str) and kind in moving_own.KNOWN:
            unknown |= row.values.keys() - moving_own.KNOWN[kind]
        read.append(_own_row(config, row, domain, workspace_id))
    if left:
        report.notes.append(f"The settings of {left:,} domains stay behind, for all links go to {domain}")
    report.unknown_columns = [name for name in table.columns if name in unknown]
    return read


def _own_row(config: Config, row: Row, domain: str | None, workspace_id: UUID) -> _Read:
    values = row.values if domain is None else {**row.values, "domain": domain}
    address = f"{row.values.get('domain') or ''}/{row.values.get('key') or ''}"[:200]
    try:
        match row.values.get(moving_own.KIND) or "link":
            case _ if row.complaint:
                return Refused(row.number, address, row.complaint)
            case "link":
                return _Item(
                    row.number, address, moving_own.link_of(values, workspace_id, config.link_app_schemes)
                )
            case "domain":
                address = str(row.values.get("host"))[:200]
                return Terms(row.number, address, moving_own.domain_of(row.values, workspace_id))
            case "partner":
                address = str(row.values.get("code"))[:200]
                return Terms(row.number, address, moving_own.partner_of(row.values, workspace_id))
            case kind:
                return Refused(row.number, address, f"is a {kind!r:.80}; link, domain and partner are known")
    except InvalidInput as error:
        return Refused(row.number, address, str(error))


# Placing -------------------------------------------------------------------------------------------------------------


async def _placed(
    conn: AsyncConnection, database: Database, batch: Sequence[_Read], by: catalog.Change
) -> Mapping[int, catalog.Done | Outcome]:
    """What became of a *batch*, by its rows: of links, or of domains and partners."""
    if terms := [one for one in batch if isinstance(one, Terms)]:
        return await moving_terms.place(conn, database.tables, terms, by)
    return await _place(conn, database, [one for one in batch if isinstance(one, _Item)], by)


async def _place(
    conn: AsyncConnection, database: Database, items: Sequence[_Item], by: catalog.Change
) -> dict[int, catalog.Done]:
    """What became of *items*, by their rows: a constant number of statements."""
    if not items:
        return {}
    here = await _known(conn, database, items, by.workspace_id)
    new = [item for item in items if item.row not in here]
    made = await catalog.create_many(conn, database.tables, [catalog.Draft(item.link) for item in new], by)
    return {row: catalog.Done(link, "unchanged") for row, link in here.items()} | {
        item.row: done for item, done in zip(new, made, strict=True)
    }


async def _known(
    conn: AsyncConnection, database: Database, items: Sequence[_Item], workspace_id: UUID
) -> dict[int, Link]:
    """Those of *items* that are here already, by their rows (rule 1)."""
    t = database.tables
    by_id = await link_reading.get_many(conn, t, workspace_id, {item.link.id for item in items})
    rivals = [item for item in items if item.rival]
    if not rivals:
        return {item.row: by_id[item.link.id] for item in items if item.link.id in by_id}
    names = {item.link.external_id for item in rivals if item.link.external_id is not None}
    named = await link_reading.ids_by_external_id(conn, t, workspace_id, names)
    by_id |= await link_reading.get_many(conn, t, workspace_id, set(named.values()) - by_id.keys())
    addresses = [(workspace_id, item.link.domain, item.link.key) for item in rivals]
    found = await link_lookups.find(conn, t, addresses)
    known: dict[int, Link] = {}
    for item, at_address in zip(rivals, found, strict=True):
        link = by_id.get(item.link.id) or by_id.get(named.get(item.link.external_id or "", item.link.id))
        if link is None and at_address.link is not None:
            # A file with ids after one without, or the other way round: one link, by two names.
            is_same = at_address.link.metadata.get("imported_from") == item.rival
            link = at_address.link if is_same and at_address.link.url == item.link.url else None
        if link is not None:
            known[item.row] = link
    return known


def _count(report: Report, batch: Sequence[_Read], placed: Mapping[int, catalog.Done | Outcome]) -> None:
    report.done += len(batch)
    for one in batch:
        if isinstance(one, Refused):
            report.refused.append(Note(one.number, one.address, one.reason))
            continue
        match placed[one.row], one:
            case catalog.Done(link=Link() as link, status="created"), _Item():
                report.created += 1
                report.changed += [Note(one.row, one.address, text) for text in one.changes]
                if link.key != one.link.key:
                    text = (
                        f"key {one.link.key!r} is kept as {link.key!r}: case does not matter on {link.domain}"
                    )
                    report.changed.append(Note(one.row, one.address, text))
            case catalog.Done(link=Link()) | "unchanged", _:
                report.already += 1
            case catalog.Done(error=error), _:
                report.refused.append(Note(one.row, one.address, str(error)))
            case "created", Terms(made=Domain()):
                report.domains += 1
            case "created", _:
                report.partners += 1
            case refusal, _:
                report.refused.append(Note(one.row, one.address, str(refusal)))


__all__ = ["SOURCES", "Note", "Report", "bring", "take_out"]
