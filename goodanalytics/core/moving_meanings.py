"""
What the columns of an export mean, read: one function for each meaning of `core.moving_rivals`.

A reader puts what it finds where it belongs, tells of what it had to change, and raises `Unusable` where a link without it would
do what the old one did not: lead on for ever, or let in whom it kept out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from goodanalytics.core.bounds import MAX_TEXT, text
from goodanalytics.core.link_fields import MAX_NOTES, MAX_TAGS
from goodanalytics.core.moving_rivals import KEEP, plain_name
from goodanalytics.core.moving_rules import by_conditions, by_country

_TRUE: Final = frozenset({"true", "yes", "1", "y", "on", "archived", "hidden", "inactive"})
_ENDED: Final = frozenset({"deleted", "blocked", "banned", "disabled", "expired"})
_FALSE: Final = frozenset({"", "false", "no", "0", "n", "off", "active"})
_JAVASCRIPT_DATE: Final = re.compile(r"\w{3} (\w{3} \d{2} \d{4} \d{2}:\d{2}:\d{2}) GMT([+-]\d{4})")
_MOST: Final[Mapping[str, int]] = {
    "title": MAX_TEXT,
    "notes": MAX_NOTES,
    "folder": MAX_TEXT,
    "og_title": MAX_TEXT,
    "og_description": 1_000,
}
MILLISECONDS: Final = 100_000_000_000
"""From here on a bare number is milliseconds since 1970; as seconds it would be the year 5138."""


class Unusable(ValueError):
    """A row cannot become a link; the message says why, and goes on where the row's number and address stand."""


@dataclass(slots=True)
class Reading:
    """One row while it is read."""

    number: int
    fields: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def moment(value: object) -> datetime:
    """
    *value* as a time: ISO 8601, what JavaScript writes, or seconds or milliseconds since 1970. Without a zone it is UTC.

    Raises:
        ValueError: It is none.

    >>> moment("2026-06-01 08:30:00"), moment(1780302600000)
    (datetime.datetime(2026, 6, 1, 8, 30, tzinfo=datetime.timezone.utc), datetime.datetime(2026, 6, 1, 8, 30, tzinfo=datetime.timezone.utc))
    """
    written = str(value).strip()
    if re.fullmatch(r"\d{9,14}(\.\d+)?", written):
        number = float(written)
        return datetime.fromtimestamp(number / 1_000 if number >= MILLISECONDS else number, UTC)
    if found := _JAVASCRIPT_DATE.match(written):
        return datetime.strptime(f"{found[1]} {found[2]}", "%b %d %Y %H:%M:%S %z").astimezone(UTC)
    try:
        read = datetime.fromisoformat(written.removesuffix(" UTC"))
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(written) from error


def read_text(reading: Reading, meaning: str, _column: str, value: Any) -> None:
    """A field that is a text, or an address, which the catalogue checks."""
    found = text(str(value)) if meaning not in _MOST else text(str(value), _MOST[meaning] + 1)
    most = _MOST.get(meaning)
    if found is not None and most is not None and len(found) > most:
        found = found[:most].rstrip()
        reading.changes.append(f"{meaning} was cut to {most} characters")
    reading.fields[meaning] = found if most is not None else str(value).strip()


def _read_address(reading: Reading, meaning: str, _column: str, value: Any) -> None:
    found = value[0] if isinstance(value, list) else value
    reading.told[meaning] = str(found).strip()


def _read_id(reading: Reading, _meaning: str, _column: str, value: Any) -> None:
    reading.told["id"] = reading.metadata["imported_id"] = str(value).strip()


def _read_clicks(reading: Reading, _meaning: str, column: str, value: Any) -> None:
    try:
        reading.metadata["imported_clicks"] = _whole(value)
    except ValueError:
        reading.changes.append(f"{column} {str(value)[:40]!r} is no number and was left out")


def _read_created(reading: Reading, _meaning: str, column: str, value: Any) -> None:
    try:
        reading.fields["created_at"] = moment(value)
    except ValueError:
        reading.changes.append(
            f"{column} {str(value)[:40]!r} cannot be read; the time of the import stands for it"
        )


def _read_time(reading: Reading, meaning: str, column: str, value: Any) -> None:
    try:
        reading.fields[meaning] = moment(value)
    except ValueError:
        raise Unusable(
            f"has {column} {str(value)[:40]!r}, which is no time; the link would never end"
        ) from None


def _read_max_clicks(reading: Reading, meaning: str, column: str, value: Any) -> None:
    try:
        most = _whole(value)
    except ValueError:
        raise Unusable(
            f"has {column} {str(value)[:40]!r}, which is no number; the link would never end"
        ) from None
    if most < 1:
        raise Unusable(f"has {column} {most}: it is used up")
    reading.fields[meaning] = most


def _read_tags(reading: Reading, meaning: str, _column: str, value: Any) -> None:
    if isinstance(value, str):
        found = value.split("|") if "|" in value else value.split(",")
    else:
        found = [
            one.get("name") or one.get("tag") or "" if isinstance(one, Mapping) else str(one) for one in value
        ]
    tags = [tag for one in found if (tag := text(one, MAX_TEXT))]
    if len(tags) > MAX_TAGS:
        reading.changes.append(
            f"{len(tags) - MAX_TAGS} of {len(tags)} tags were left out; a link has at most {MAX_TAGS}"
        )
    reading.fields[meaning] = tags[:MAX_TAGS]


def _read_flag(reading: Reading, meaning: str, _column: str, value: Any) -> None:
    reading.fields[meaning] = _truth(value)


def _read_status(reading: Reading, meaning: str, column: str, value: Any) -> None:
    if str(value) in ("301", "302", "307", "308"):
        reading.fields[meaning] = int(value)
    else:
        reading.changes.append(f"{column} {str(value)[:40]!r} is none of ours; it redirects with 302")


def _read_hidden(reading: Reading, _meaning: str, column: str, value: Any) -> None:
    if str(value).strip().lower() in _ENDED:
        raise Unusable(f"is {str(value).strip().lower()} there")
    if _truth(value):
        reading.metadata["imported_status"] = str(value)[:40]
        reading.changes.append(
            f"{column} is {str(value)[:40]!r} there; the link leads on here, archive it if it shall not"
        )


def _read_password(_reading: Reading, _meaning: str, _column: str, value: Any) -> None:
    if _truth(value):
        raise Unusable("asks for a password, which the file cannot be trusted to hold; make it anew with one")


def _read_banned(_reading: Reading, _meaning: str, _column: str, value: Any) -> None:
    if _truth(value):
        raise Unusable("is banned there")


def _read_kept(reading: Reading, _meaning: str, column: str, value: Any) -> None:
    reading.metadata[f"imported_{plain_name(column).replace('.', '_')}"] = value


def _read_lost(reading: Reading, meaning: str, column: str, value: Any) -> None:
    """Something that the link did there, and that ours is not taught by the file."""
    if value is not False and str(value).strip() not in ("0", "false", "No"):
        _read_kept(reading, meaning, column, value)
        reading.changes.append(f"{column} is kept in the metadata and does nothing here")


def _read_elsewhere(reading: Reading, _meaning: str, _column: str, value: Any) -> None:
    if _truth(value):
        reading.told["rules_elsewhere"] = "yes"


def _read_desktop(reading: Reading, _meaning: str, _column: str, value: Any) -> None:
    reading.rules.append({"url": str(value), "when": {"devices": ["desktop"]}})


def _read_country(reading: Reading, _meaning: str, column: str, value: Any) -> None:
    reading.rules.append(by_country(column.rpartition(".")[2], str(value)))


def _read_rules(reading: Reading, _meaning: str, _column: str, value: Any) -> None:
    for rule in value if isinstance(value, list) else [value]:
        try:
            reading.rules.append(by_conditions(rule))
        except ValueError as error:
            raise Unusable(str(error)) from None


def _whole(value: object) -> int:
    """A number of a spreadsheet: `1,234` and `1.234` of any language are 1234."""
    written = "no number" if isinstance(value, bool) else str(value).strip()
    if re.fullmatch(r"\d{1,3}([,.   '’]\d{3})+", written):
        written = re.sub(r"\D", "", written)
    number = float(written)
    if number != int(number) or not 0 <= number <= 2**53:
        raise ValueError(written)
    return int(number)


def _truth(value: object) -> bool:
    """Whether *value* says yes. What is no word for either is taken for yes: doubt keeps a door closed."""
    word = str(value).strip().lower()
    return word in _TRUE or word not in _FALSE


READERS: Final[Mapping[str, Callable[[Reading, str, str, Any], None]]] = {
    **dict.fromkeys(("short_url", "custom_url", "domain", "key"), _read_address),
    "id": _read_id,
    "clicks": _read_clicks,
    "created_at": _read_created,
    **dict.fromkeys(("starts_at", "expires_at"), _read_time),
    "max_clicks": _read_max_clicks,
    "tags": _read_tags,
    **dict.fromkeys(("indexed", "forward_query", "cloaked"), _read_flag),
    "redirect_status": _read_status,
    "hidden": _read_hidden,
    "password": _read_password,
    "banned": _read_banned,
    KEEP: _read_kept,
    "lost": _read_lost,
    "country_url": _read_country,
    "desktop_url": _read_desktop,
    "rules_elsewhere": _read_elsewhere,
    "rules": _read_rules,
}
"""How a meaning is read; what is not here is a text."""
