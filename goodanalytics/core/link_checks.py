"""
The checks that a link's rules and variants pass before they are stored.

A condition that could never hold (an unknown browser, an unreadable network, a moment without its time zone) is refused
when it is written, because a rule that silently does nothing is found only by the people whom it sends astray. What can be
written in several ways is stored in one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_network
from string import ascii_uppercase
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from goodanalytics.core import said
from goodanalytics.core.bounds import MAX_KEY, MAX_TEXT, Property, text
from goodanalytics.core.destinations import checked_destination
from goodanalytics.core.link_conditions import APPS, BROWSERS, DEVICES, SYSTEMS, Hours, Rule, Variant, When
from goodanalytics.core.visitors import STATUS_RANK
from goodanalytics.errors import InvalidInput

MAX_RULES = 50
MAX_VARIANTS = 10
MAX_WORDS = 100  # of one condition
MAX_WEIGHT = 1_000
MAX_NAME = 64  # characters


def checked_rules(rules: Iterable[Rule | Mapping[str, Any]], app_schemes: Collection[str] = ()) -> list[Rule]:
    """
    *rules* as they may be stored, tidied: canonical words, networks without host bits.

    Args:
        rules: As values, or as JSON gives them.
        app_schemes: See `checked_destination`.

    Raises:
        InvalidInput: A rule is not usable; `where` says which one and what in it.
    """
    found = [
        _checked_rule(rule, f"rules[{n}]", app_schemes)
        for n, rule in enumerate(_listed(rules, "rules", MAX_RULES))
    ]
    _check_names([rule.name for rule in found], "rules")
    return found


def checked_variants(
    variants: Iterable[Variant | Mapping[str, Any]], app_schemes: Collection[str] = ()
) -> list[Variant]:
    """
    *variants* as they may be stored: none, or at least two; those without a name are called A, B, ….

    Raises:
        InvalidInput: A variant is not usable; `where` says which one and what in it.
    """
    given = _listed(variants, "variants", MAX_VARIANTS)
    if len(given) == 1:
        raise InvalidInput(
            "variants has one entry; a split needs two or more. Name the link's own address as one of them, or change url",
            where="variants",
        )
    read = [converted(one, Variant, f"variants[{n}]") for n, one in enumerate(given)]
    named = [text(one.name, MAX_NAME) for one in read]
    free = (letter for letter in ascii_uppercase if letter not in named)
    found = []
    for number, (one, name) in enumerate(zip(read, named, strict=True)):
        where = f"variants[{number}]"
        if isinstance(one.weight, bool) or not 1 <= one.weight <= MAX_WEIGHT:
            raise InvalidInput(
                f"{where}.weight is {one.weight!r}; it must be a whole number from 1 to {MAX_WEIGHT}",
                where=f"{where}.weight",
            )
        url = checked_destination(one.url, f"{where}.url", app_schemes)
        found.append(Variant(url=url, weight=one.weight, name=name or next(free)))
    _check_names([one.name for one in found], "variants")
    return found


_Read = TypeVar("_Read")


def converted(value: object, kind: type[_Read], where: str) -> _Read:
    """
    *value*, which may be one of *kind* or the JSON of one, as one of *kind*.

    Raises:
        InvalidInput: It has an unknown member, lacks one, or has one of a wrong type.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(value), kind)
    except RecursionError:
        raise InvalidInput(f"{where} is nested too deep; rules and variants are flat", where=where) from None
    except (msgspec.ValidationError, TypeError) as error:
        reason, _, at = str(error).partition(" - at `$")
        path = f"{where}{at.removesuffix('`')}"
        raise InvalidInput(f"{path}: {reason}", where=path) from None


def _listed(given: Iterable[Any], where: str, most: int) -> list[Any]:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise InvalidInput(f"{where} is {given!r:.80}; it must be a list", where=where)
    found = list(given)
    if len(found) > most:
        raise InvalidInput(f"{where} has {len(found)} entries; at most {most} are kept", where=where)
    return found


def _check_names(names: Sequence[str | None], where: str) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name is not None and name in seen:
            raise InvalidInput(
                f"{where}[{number}].name is {name!r}, as another one's; choose another name",
                where=f"{where}[{number}].name",
            )
        seen.add(name)


def _checked_rule(rule: Rule | Mapping[str, Any], where: str, app_schemes: Collection[str]) -> Rule:
    read = converted(rule, Rule, where)
    when = _checked_when(read.when, f"{where}.when")
    if when == When():
        raise InvalidInput(
            f"{where}.when has no condition, so the rule would take everybody; give one, or change the link's url",
            where=f"{where}.when",
        )
    return Rule(
        url=checked_destination(read.url, f"{where}.url", app_schemes),
        when=when,
        name=text(read.name, MAX_NAME),
    )


def _checked_when(when: When, where: str) -> When:
    for name in ("after", "before"):
        moment: datetime | None = getattr(when, name)
        if moment is not None and moment.utcoffset() is None:
            raise InvalidInput(
                f"{where}.{name} is {moment.isoformat()}, without a time zone; write 2026-11-01T09:00:00Z or +01:00",
                where=f"{where}.{name}",
            )
    if when.after is not None and when.before is not None and when.after >= when.before:
        raise InvalidInput(f"{where}.before must be later than {where}.after", where=f"{where}.before")
    words = {
        name: _checked_words(getattr(when, name), f"{where}.{name}", check) for name, check in _WORDS.items()
    }
    return When(
        **words,
        query=_checked_query(when.query, f"{where}.query"),
        after=when.after,
        before=when.before,
        hours=None if when.hours is None else _checked_hours(when.hours, f"{where}.hours"),
        returning=when.returning,
        traits=_checked_traits(when.traits, f"{where}.traits"),
    )


def _checked_words(words: Sequence[str], where: str, check: Callable[[str], str]) -> list[str]:
    if len(words) > MAX_WORDS:
        raise InvalidInput(f"{where} has {len(words)} entries; at most {MAX_WORDS} are kept", where=where)
    found = []
    for number, word in enumerate(words):
        try:
            found.append(check(word.strip()))
        except ValueError as error:
            at = f"{where}[{number}]"
            raise InvalidInput(f"{at} is {word[:80]!r}; {error}", where=at) from None
    return list(dict.fromkeys(found))


def _one_of(known: Collection[str], aliases: Mapping[str, str]) -> Callable[[str], str]:
    def check(word: str) -> str:
        plain = word.casefold()
        plain = aliases.get(plain, plain)
        if plain not in known:
            message = f"use one of {', '.join(sorted(known))}"
            raise ValueError(message)
        return plain

    return check


def _language(word: str) -> str:
    tag = word.replace("_", "-")
    if not _LANGUAGE.fullmatch(tag):
        message = "write a language such as de or pt-BR"
        raise ValueError(message)
    first, *rest = tag.split("-")
    # RFC 5646, section 2.1.1: regions in capitals, scripts with one, all else small.
    return "-".join(
        [
            first.lower(),
            *(s.upper() if len(s) == 2 else s.title() if len(s) == 4 else s.lower() for s in rest),
        ]
    )


def _country(word: str) -> str:
    code = word.upper()
    if code in _NO_COUNTRIES:
        message = f"write {_NO_COUNTRIES[code]}"
        raise ValueError(message)
    if not _COUNTRY.fullmatch(code):
        message = "write the two letters of ISO 3166-1, such as DE"
        raise ValueError(message)
    return code


def _region(word: str) -> str:
    country, _, region = word.partition("-")
    region = (text(region, MAX_TEXT) or "").strip()
    if not region:
        message = "write the country and its region's code or English name, such as US-CA or US-California"
        raise ValueError(message)
    return f"{_country(country.strip())}-{region.upper() if len(region) <= _REGION_CODE else region}"


def _network(word: str) -> str:
    try:
        return str(ip_network(word, strict=False))
    except ValueError:
        message = "write a network such as 192.0.2.0/24 or 2001:db8::/32, or one address"
        raise ValueError(message) from None


_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_REGION_CODE: Final = 3  # letters or digits at most (ISO 3166-2)
_NO_COUNTRIES: Final[Mapping[str, str]] = {
    "UK": "GB, which is the United Kingdom's code",
    "EU": "the countries one by one; the European Union is none",
    "XX": "a country; XX is the word for an unknown one",
}

_WORDS: Final[Mapping[str, Callable[[str], str]]] = {
    "devices": _one_of(DEVICES, {"phone": "smartphone"}),
    "os": _one_of(SYSTEMS, {"mac": "macos", "osx": "macos", "mac os x": "macos", "chrome os": "chromeos"}),
    "browsers": _one_of(
        BROWSERS.keys() | APPS, {"samsung internet": "samsung", "msie": "ie", "internet explorer": "ie"}
    ),
    "languages": _language,
    "countries": _country,
    "regions": _region,
    "ip_ranges": _network,
    "statuses": _one_of(STATUS_RANK, {}),
}


def _checked_hours(hours: Hours, where: str) -> Hours:
    for name, form in (("start", _START), ("end", _END)):
        if not form.fullmatch(getattr(hours, name)):
            raise InvalidInput(
                f"{where}.{name} is {getattr(hours, name)!r:.80}; write hours and minutes such as 09:00",
                where=f"{where}.{name}",
            )
    if hours.start == hours.end:
        raise InvalidInput(
            f"{where}.end is the start; write 00:00 to 24:00 for the whole day", where=f"{where}.end"
        )
    try:
        ZoneInfo(hours.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            f"{where}.timezone is {hours.timezone!r:.80}; write an IANA name such as Europe/Berlin",
            where=f"{where}.timezone",
        ) from None
    for number, day in enumerate(hours.weekdays):
        if not 1 <= day <= 7:
            at = f"{where}.weekdays[{number}]"
            raise InvalidInput(f"{at} is {day}; 1 is Monday and 7 is Sunday", where=at)
    return msgspec.structs.replace(hours, weekdays=sorted(set(hours.weekdays)))


_START: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_END: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")


def _checked_query(query: Mapping[str, str | None], where: str) -> dict[str, str | None]:
    if len(query) > MAX_WORDS:
        raise InvalidInput(f"{where} has {len(query)} entries; at most {MAX_WORDS} are kept", where=where)
    for name, value in query.items():
        if (
            not name
            or text(name, MAX_KEY) != name
            or (value is not None and (text(value, MAX_TEXT) or "") != value)
        ):
            raise InvalidInput(
                f"{where} asks for {name!r:.80}={value!r:.80}; a name has 1 to {MAX_KEY} characters, a value at most {MAX_TEXT}",
                where=where,
            )
    return dict(query)


def _checked_traits(traits: Mapping[str, Property], where: str) -> dict[str, Property]:
    return said.properties(traits, where)
