"""
Moving house: links of another shortener, understood as links of ours.

Rules of this file
1. Nothing is lost silently. Each row of a file becomes a `Moving` or a `Refused` with its reason; what a `Moving` could not keep
   as it was stands in its `changes`; columns that mean nothing to us are told.
2. Nothing becomes open that was closed: a link with a password, and one whose end cannot be read, is refused.
3. A key keeps its letters, so that printed addresses go on working. Slashes at its ends go, escapes are read, and what a key of
   ours cannot hold becomes a hyphen, which is told: the old address is then another one.
4. `source_id` names a link for ever: the rival's name and its id there, or its old address where the file has no id. It becomes
   the external id, so that a file can be brought in again and finds its links.
5. Clicks that were counted elsewhere are not clicks of ours: they are kept as `imported_clicks` and added to nothing.

Whether a link can be made is for the catalogue to say; here its fields are only read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from goodanalytics.core import urls
from goodanalytics.core.bounds import MAX_ID
from goodanalytics.core.links import KEY
from goodanalytics.core.moving_files import Row, Table
from goodanalytics.core.moving_meanings import READERS, Reading, Unusable, read_text
from goodanalytics.core.moving_rivals import DROP, Rival
from goodanalytics.errors import InvalidInput

_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})
_NOT_IN_A_KEY: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Moving:
    """
    A link on its way.

    Attributes:
        number: The row of the file.
        source_id: See rule 4.
        address: The old one, for reports.
        fields: As `core.link_fields.checked_fields` takes them, with domain and key.
        created_at: There; `None` when the file does not say.
        changes: What is not as it was, a sentence each.
    """

    number: int
    source_id: str
    address: str
    fields: Mapping[str, Any]
    created_at: datetime | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that becomes no link, and why."""

    number: int
    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Understood:
    """
    A file, understood.

    Attributes:
        unknown: Columns that mean nothing to us and whose values are left out.
        left_out: Columns that are left out on purpose.
    """

    links: Sequence[Moving | Refused]
    unknown: Sequence[str]
    left_out: Sequence[str]
    notes: Sequence[str]


def understand(
    rival: Rival, table: Table, *, domain: str | None = None, default_domain: str | None = None
) -> Understood:
    """
    The links of *table*, an export of *rival*.

    Args:
        domain: Where all links go; they keep their own hosts when left out.
        default_domain: Of links whose row names no host.

    Raises:
        InvalidInput: The file has no column for what makes a link: it is another one's.
    """
    meanings = {column: rival.meaning(column) for column in table.columns}
    _check_columns(rival, meanings)
    links = [_understood(rival, row, meanings, domain, default_domain) for row in table.rows]
    return Understood(
        links=links,
        unknown=[column for column, meaning in meanings.items() if meaning is None and column],
        left_out=[column for column, meaning in meanings.items() if meaning == DROP],
        notes=[*table.notes, *_staying(rival, links)],
    )


def _check_columns(rival: Rival, meanings: Mapping[str, str | None]) -> None:
    known = set(meanings.values())
    if "url" not in known or not known & {"short_url", "custom_url", "key"}:
        missing = "a destination" if "url" not in known else "a short address or key"
        names = sorted(
            {name for name, meaning in rival.columns.items() if meaning in ("url", "short_url", "key")}
        )
        raise InvalidInput(
            f"The file has no column for {missing}, so it is no export of {rival.title}. It has "
            f"{', '.join(map(repr, list(meanings)[:20]))}; known are {', '.join(names)}",
            where="file",
        )


def _understood(
    rival: Rival, row: Row, meanings: Mapping[str, str | None], domain: str | None, default_domain: str | None
) -> Moving | Refused:
    reading = Reading(row.number)
    try:
        return _moving(rival, row, meanings, reading, domain, default_domain)
    except Unusable as error:
        return Refused(row.number, _shown(reading.told), str(error))


def _moving(
    rival: Rival,
    row: Row,
    meanings: Mapping[str, str | None],
    reading: Reading,
    domain: str | None,
    default_domain: str | None,
) -> Moving:
    if row.complaint:
        raise Unusable(row.complaint)
    for column, value in row.values.items():
        meaning = meanings.get(column)
        if meaning is not None and meaning != DROP and value not in _NOTHING:
            READERS.get(meaning, read_text)(reading, meaning, column, value)
    if "rules_elsewhere" in reading.told and not reading.rules:
        reading.changes.append("has redirect rules, which the file does not hold; it leads to its url alone")
    old_host, old_key = _address(reading.told)
    host = domain or old_host or default_domain
    if not host:
        raise Unusable("names no host; say which one it goes to (--domain)")
    if old_host and host != old_host:
        reading.changes.append(f"moved from {old_host} to {host}")
    address = f"{old_host or host}/{old_key}"
    source_id = f"{rival.name}:{reading.told.get('id') or address}"[:MAX_ID]
    metadata = {"imported_from": rival.name, **reading.metadata}
    if "custom_url" in reading.told and "short_url" in reading.told:
        metadata["imported_address"] = reading.told["short_url"]
    created_at = reading.fields.pop("created_at", None)
    _use_up(reading)
    fields = reading.fields | {
        "domain": host,
        "key": _key(reading, old_key),
        "external_id": source_id,
        "metadata": metadata,
    }
    if reading.rules:
        fields["rules"] = reading.rules
    return Moving(row.number, source_id, address, fields, created_at, tuple(reading.changes))


def _staying(rival: Rival, links: Sequence[Moving | Refused]) -> list[str]:
    """What to know of links at hosts that the rival keeps."""
    hosts = [link.fields["domain"] for link in links if isinstance(link, Moving)]
    return [
        f"{hosts.count(host):,} links are at {host}, which stays with {rival.title}: nobody who opens them comes here. "
        "Name a host of yours (--domain)"
        for host in sorted(set(hosts) & rival.shared_domains)
    ]


def _shown(told: Mapping[str, str]) -> str:
    return (told.get("custom_url") or told.get("short_url") or told.get("key") or "")[:200]


def _address(told: Mapping[str, str]) -> tuple[str, str]:
    """Host and key of the old address; the host may be empty."""
    whole = told.get("custom_url") or told.get("short_url") or ""
    try:
        parts = urlsplit(whole if "//" in whole else f"//{whole}")
    except ValueError as error:
        raise Unusable(f"has the short address {whole[:80]!r}, which is none: {error}") from None
    if parts.scheme not in ("", "http", "https") or "@" in parts.netloc:
        raise Unusable(f"has the short address {whole[:80]!r}, which is none on the web")
    named = (told.get("domain") or parts.netloc).strip()
    named = named.partition("//")[2] if "//" in named else named
    host = urls.parts(f"https://{named.partition('/')[0]}/").host if named else ""
    if host is None:
        raise Unusable(f"has the host {named[:80]!r}, which is none")
    key = unquote(told.get("key") or parts.path).strip().strip("/")
    if not key or key == "_root":
        raise Unusable("is the root of its domain; set the domain's root_url instead")
    return host, key


def _use_up(reading: Reading) -> None:
    """Leave a link with a most number of clicks those that are left."""
    most, used = reading.fields.get("max_clicks"), reading.metadata.get("imported_clicks", 0)
    if most is not None and used:
        if used >= most:
            raise Unusable(f"has led on {used} times, and may {most} times: it is used up")
        reading.fields["max_clicks"] = most - used
        reading.changes.append(f"of {most} clicks {used} were made there; {most - used} are left")


def _key(reading: Reading, old: str) -> str:
    if KEY.fullmatch(old):
        return old
    cleaned = _NOT_IN_A_KEY.sub("-", old).strip("-")
    if not cleaned or len(cleaned) > 255:
        raise Unusable(f"has the key {old[:80]!r}, of which nothing is left in letters, digits, '-' and '_'")
    reading.changes.append(f"key {old[:80]!r} became {cleaned!r}; its old address does not lead here")
    return cleaned
