"""
A link as a form, and a form as a link.

Rules of this file
1. Pure: texts in, fields out. What a field may hold is decided where every link is checked (`core.link_fields`).
2. Each field is checked by itself, so that everything that is wrong is told at once, beside its field, and nothing typed is lost.
3. Only what differs from the link as it is counts as changed: what a text cannot say exactly, such as seconds, is not touched by
   somebody who changes something else.
4. Rules and variants are rows of fields, `rules-0-url`; a row in which nothing is said is none. Lists are divided by commas;
   parameters and traits are lines of `name=value`, a name alone is any value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from uuid import UUID

import msgspec

from goodanalytics.core.bounds import text
from goodanalytics.core.destinations import UTM, target
from goodanalytics.core.link_fields import FIELDS, checked_fields
from goodanalytics.core.links import Hours, Link, Rule, Variant, When, checked_destination
from goodanalytics.errors import InvalidInput

MOST_ROWS: Final = 60
FLAGS: Final = ("forward_path", "forward_query", "cloaked", "indexed")
TIMES: Final = ("starts_at", "expires_at")
NUMBERS: Final = ("max_clicks", "redirect_status")
LISTS: Final = ("devices", "os", "browsers", "languages", "countries", "regions", "ip_ranges", "statuses")
DAYS: Final = tuple(f"day{n}" for n in range(1, 8))
RULE: Final = (
    "name",
    "url",
    *LISTS,
    "query",
    "traits",
    "after",
    "before",
    "start",
    "end",
    "timezone",
    *DAYS,
    "returning",
)
VARIANT: Final = ("name", "url", "weight")

_ROW = re.compile(r"(rules|variants)-([0-9]{1,2})-([a-z0-9_]+)")
_WHERE = re.compile(r"(rules|variants)\[([0-9]+)\](?:\.(?:when\.?)?(?:hours\.)?([a-z_]*))?")
_INDEX = re.compile(r"\[[0-9]+\]")
_NUMBER = re.compile(r"-?[0-9]{1,12}")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Form:
    """
    A form as it is shown.

    Attributes:
        values: What stands in each field; what is missing is empty.
        errors: What is wrong, by the field's name; `rules`, `variants` and a row's `rules-0` are names too.
        more: Empty rows that are asked for, by the list's name.
    """

    values: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, int] = field(default_factory=dict)

    def value(self, name: str) -> str:
        """What stands in the field *name*."""
        return self.values.get(name, "")

    def is_on(self, name: str) -> bool:
        """Whether the box *name* is ticked."""
        return bool(self.values.get(name))

    def is_told(self, *names: str) -> bool:
        """Whether something is said, or wrong, in one of the fields *names* or in a row of theirs."""
        return any(
            (found and key not in _NOT_TELLING) and (key in names or key.partition("-")[0] in names)
            for told in (self.values, self.errors)
            for key, found in told.items()
        )

    def rows(self, name: str, least: int = 1) -> range:
        """The numbers of the rows of *name*: those that were there, also empty ones, and as many more as are asked for."""
        there = [int(found[2]) for key in self.values if (found := _ROW.fullmatch(key)) and found[1] == name]
        return range(min(MOST_ROWS, max(least, max(there, default=-1) + 1) + self.more.get(name, 0)))


_NOT_TELLING = frozenset({"forward_query", "redirect_status", "link_type"})
"""Fields with a value in every link."""


@dataclass(frozen=True, slots=True)
class Read:
    """
    What a form says.

    Attributes:
        fields: By their names, checked, as `links.create` takes them.
        errors: What is wrong, as in `Form`.
    """

    fields: Mapping[str, Any]
    errors: Mapping[str, str]


_NEVER_EMPTY: Final[Mapping[str, str]] = {
    "url": "Say where the link leads.",
    "domain": "Say on which domain the link lives.",
    "key": "Say what stands behind the slash.",
}


# A link as a form ----------------------------------------------------------------------------------------------------


def blank(**values: str) -> dict[str, str]:
    """The form of a link of which nothing was said but *values*."""
    return {"forward_query": "on", "redirect_status": "302", "link_type": "short", **values}


def written(link: Link, local: tzinfo) -> dict[str, str]:
    """
    The form of *link*. Its password is not in it.

    Args:
        local: Time zone of all times.
    """
    values: dict[str, str] = {}
    for name in FIELDS:
        value = None if name in ("password", "rules", "variants") else getattr(link, name)
        match value:
            case None | False:
                pass
            case True:
                values[name] = "on"
            case datetime():
                values[name] = _moment(value, local)
            case list():
                values[name] = ", ".join(value)
            case dict() if value:
                values[name] = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
            case str() | int() | UUID():
                values[name] = str(value)
    for number, rule in enumerate(link.rules):
        values |= {f"rules-{number}-{name}": value for name, value in _rule_row(rule, local).items() if value}
    for number, variant in enumerate(link.variants):
        row = {"name": variant.name, "url": variant.url, "weight": str(variant.weight)}
        values |= {f"variants-{number}-{name}": value for name, value in row.items()}
    return values


def _rule_row(rule: Rule, local: tzinfo) -> Row:
    when = rule.when
    row = {name: ", ".join(getattr(when, name)) for name in LISTS}
    row["query"] = "\n".join(
        name if value is None else f"{name}={value}" for name, value in when.query.items()
    )
    row["traits"] = "\n".join(_trait(name, value) for name, value in when.traits.items())
    row |= {
        name: "" if (at := getattr(when, name)) is None else _moment(at, local)
        for name in ("after", "before")
    }
    if when.hours is not None:
        row |= {name: getattr(when.hours, name) for name in ("start", "end", "timezone")}
        row |= {f"day{day}": "on" for day in when.hours.weekdays}
    row["returning"] = "" if when.returning is None else "yes" if when.returning else "no"
    return {"name": rule.name or "", "url": rule.url, **row}


def _moment(at: datetime, local: tzinfo) -> str:
    # As browsers read and write it (HTML, "valid normalized local date and time string"): no more than milliseconds.
    return _shortest(at.astimezone(local).replace(tzinfo=None))


def _shortest(plain: datetime) -> str:
    if plain.microsecond // 1_000:
        return plain.isoformat(timespec="milliseconds").rstrip("0")
    return plain.isoformat(timespec="seconds" if plain.second else "minutes")


def _trait(name: str, value: Any) -> str:
    if value is None:
        return name
    # What reads as a number or a word of JSON is one; a text that looks like it stands in quotes.
    is_plain = isinstance(value, str) and _scalar(value) == value
    return f"{name}={value if is_plain else msgspec.json.encode(value).decode()}"


# A form as a link ----------------------------------------------------------------------------------------------------


def read(
    values: Mapping[str, str],
    local: tzinfo,
    app_schemes: Collection[str] = (),
    before: Mapping[str, str] | None = None,
) -> Read:
    """
    What *values* say.

    Args:
        local: Time zone of all times without one of their own.
        app_schemes: See `core.link_fields.checked_fields`.
        before: The form of the link that is changed: only what differs is read.
    """
    fields: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name in FIELDS:
        if before is not None and _said(values, name) == _said(before, name):
            continue
        rows = _filled(values, name)
        try:
            value = _value(values, name, local)
            if name == "password":
                if value is not None or values.get("remove_password"):
                    fields[name] = value
            elif before is not None or value is not None:
                if value is None and name in _NEVER_EMPTY:
                    raise InvalidInput(_NEVER_EMPTY[name], where=name)  # noqa: TRY301  # told beside the field, as the others
                checked_fields({name: value}, app_schemes)
                fields[name] = value
        except InvalidInput as error:
            errors[place(error.where, rows)] = in_plain(error)
    if before is None and "url" not in fields and "url" not in errors:
        errors["url"] = _NEVER_EMPTY["url"]
    return Read(fields, errors)


def place(where: str, rows: Collection[int] = ()) -> str:
    """
    The field of the form that an error's *where* means.

    Args:
        rows: The numbers of the form's rows that are not empty, in their order.
    """
    head, bracket, rest = where.partition("]")
    found = _WHERE.fullmatch(head + bracket + _INDEX.sub("", rest))
    if found is None:
        return where
    numbers = list(rows)
    index = int(found[2])
    row = numbers[index] if index < len(numbers) else index
    name = {"weekdays": "day1"}.get(found[3] or "", found[3] or "")
    return f"{found[1]}-{row}-{name}" if name in (*RULE, *VARIANT) else f"{found[1]}-{row}"


def in_plain(error: InvalidInput) -> str:
    """What *error* says, without the name that programs have for the field."""
    said = str(error)
    for name in filter(None, (error.where, error.where.partition("[")[0])):
        if said.startswith(f"{name} "):
            said = f"This {said.removeprefix(name).lstrip()}"
            break
        if said.startswith(f"{name}: "):
            said = said.removeprefix(f"{name}: ")
            break
    return said if said.endswith((".", "!", "…")) else f"{said}."


def destination(values: Mapping[str, str], app_schemes: Collection[str] = ()) -> str | None:
    """Where the link of the form leads when neither a rule nor a variant decides; `None` as long as it is no address."""
    try:
        url = checked_destination(values.get("url", "").strip(), "url", app_schemes)
    except InvalidInput:
        return None
    told = target(url, [(name, said) for name in UTM if (said := text(values.get(name, "")))])
    if told.plain is None:
        return told.bare
    return told.plain.removesuffix("ga_id=").rstrip("?&") + told.fragment


def _said(values: Mapping[str, str], name: str) -> Any:
    """What *values* say of the field *name*, to be compared."""
    if name in ("rules", "variants"):
        return [row for _, row in _rows(values, name)]
    if name == "password":
        return values.get("password", ""), values.get("remove_password", "")
    said = values.get(name, "").strip()
    return _normal(said) if name in TIMES else said


def _normal(said: str) -> str:
    """A time as `written` writes it, whichever way it was written."""
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return said
    return said if found.tzinfo else _shortest(found)


def _filled(values: Mapping[str, str], name: str) -> list[int]:
    return [number for number, _ in _rows(values, name)]


def _rows(values: Mapping[str, str], name: str) -> list[tuple[int, Row]]:
    """The rows of *name* in which something is said, with their numbers."""
    known = {"rules": RULE, "variants": VARIANT}.get(name, ())
    rows: dict[int, Row] = {}
    for key, value in values.items():
        found = _ROW.fullmatch(key)
        if found and found[1] == name and found[3] in known and value.strip() and int(found[2]) < MOST_ROWS:
            said = value.strip()
            rows.setdefault(int(found[2]), {})[found[3]] = (
                _normal(said) if found[3] in ("after", "before") else said
            )
    return sorted(rows.items())


def _value(values: Mapping[str, str], name: str, local: tzinfo) -> Any:
    said = values.get(name, "").strip()
    if name == "rules":
        return [_read_rule(row, f"rules[{n}]", local) for n, (_, row) in enumerate(_rows(values, name))]
    if name == "variants":
        return [_read_variant(row, f"variants[{n}]") for n, (_, row) in enumerate(_rows(values, name))]
    if name in FLAGS:
        return bool(said)
    if not said:
        return None
    if name in TIMES:
        return _read_moment(said, name, local)
    if name in NUMBERS:
        return read_number(said, name)
    match name:
        case "password":
            return values[name]  # blanks may belong to it
        case "tags":
            return _read_list(said)
        case "metadata":
            return read_json(said, name)
        case _:
            return said


def _read_rule(row: Row, where: str, local: tzinfo) -> Rule:
    hours = None
    if any(row.get(name) for name in ("start", "end", *DAYS)):
        hours = Hours(
            start=row.get("start", "00:00"),
            end=row.get("end", "24:00"),
            timezone=row.get("timezone", "UTC"),
            weekdays=[number for number, day in enumerate(DAYS, 1) if row.get(day)],
        )
    when = When(
        **{name: _read_list(row.get(name, "")) for name in LISTS},
        query={name: None if value is None else str(value) for name, value in _pairs(row.get("query", ""))},
        traits={
            name: None if value is None else _scalar(value) for name, value in _pairs(row.get("traits", ""))
        },
        after=_read_when(row, "after", where, local),
        before=_read_when(row, "before", where, local),
        hours=hours,
        returning={"yes": True, "no": False}.get(row.get("returning", "")),
    )
    if "url" not in row:
        raise InvalidInput("Say where the rule leads", where=f"{where}.url")
    return Rule(url=row["url"], when=when, name=row.get("name"))


def _read_variant(row: Row, where: str) -> Variant:
    if "url" not in row:
        raise InvalidInput("Say where the variant leads", where=f"{where}.url")
    weight = read_number(row["weight"], f"{where}.weight") if "weight" in row else 1
    return Variant(url=row["url"], weight=weight, name=row.get("name", ""))


def _read_when(row: Row, name: str, where: str, local: tzinfo) -> datetime | None:
    return _read_moment(row[name], f"{where}.when.{name}", local) if name in row else None


def _read_moment(said: str, where: str, local: tzinfo) -> datetime:
    try:
        found = datetime.fromisoformat(said)
        return (found if found.tzinfo else found.replace(tzinfo=local)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{where} is {said!r:.80}; write a date and a time such as 2026-11-30 18:00", where=where
        ) from None


def read_json(said: str, where: str) -> Any:
    """
    What is typed into a field for JSON.

    Raises:
        InvalidInput: It is none.
    """
    try:
        return msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(
            f'{where} is no JSON ({error}); write an object such as {{"campaign": 7}}', where=where
        ) from None


def read_number(said: str, where: str) -> int:
    """
    What is typed into a field for a whole number.

    Raises:
        InvalidInput: It is none.
    """
    plain = said.replace(",", "").replace(" ", "")
    if not _NUMBER.fullmatch(plain):
        raise InvalidInput(f"{where} is {said!r:.80}; write a whole number", where=where)
    return int(plain)


def _read_list(said: str) -> list[str]:
    return [word for part in said.split(",") if (word := part.strip())]


def _pairs(said: str) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for line in said.splitlines():
        name, equals, value = line.partition("=")
        if name.strip():
            found.append((name.strip(), value.strip() if equals else None))
    return found


def _scalar(value: str) -> Any:
    """*value* as a number, a truth or a quoted text of JSON, if it is one; else the text itself."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    return found if isinstance(found, str | int | float | bool) else value


__all__ = [
    "DAYS", "LISTS", "MOST_ROWS", "RULE", "VARIANT", "Form", "Read", "blank", "destination", "in_plain", "place", "read",
    "read_json", "read_number", "written",
]  # fmt: skip
