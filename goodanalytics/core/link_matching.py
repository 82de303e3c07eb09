"""
Whether the conditions of a rule hold for somebody who asks for a link.

1. A rule's conditions are compiled once into tests that are tried in a fixed order, cheap ones first; how they were
   written makes no difference.
2. What is unknown fulfils nothing: without a country no country matches, without an answer about the visitor neither
   `returning: true` nor `returning: false` does.
3. Each test names the facts that it reads (`Need`), so that only what a link's rules ask about is looked up.
4. Languages: the visitor's best one is chosen among all that the link's rules name together, as a server chooses among the
   versions that it has (RFC 9110, section 12.5.4; matched by RFC 4647, sections 3.3.1 and 3.4). A link whose own address
   is in English says so in a last rule for `en`, or whoever reads some German as well is led to the German page.
5. Hours are read off the wall clock of their zone. Those that run over midnight belong to the day on which they began.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Literal
from urllib.parse import unquote_plus
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from goodanalytics.core.bounds import Property
from goodanalytics.core.devices import Device
from goodanalytics.core.link_conditions import APPS, BROWSERS, DEVICES, SYSTEMS, Hours, Rule, When
from goodanalytics.core.urls import MAX_PARAMETERS

Need = Literal["device", "language", "place", "ip", "visitor"]
"""A fact about whoever asks that costs something to find out."""


class VisitorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the database knows of the visitor.

    Attributes:
        known: Whether they were here before.
        status: As `Visitor.status`; `None` when not known.
    """

    known: bool
    status: str | None = None
    traits: Mapping[str, Any] = {}


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One request for a link, as far as it decides where it leads. What is not known is left out.

    Attributes:
        click_id: Of this click; becomes `ga_id`.
        query: As it came, without the question mark.
        path_rest: What stands behind the key, percent-decoded once, such as `/a/b`.
        inspect: Whether a `+` behind the key asks where the link leads.
        unlocked: Whether the link's password was given.
        bot_kind: `bots.Verdict.category` of the user agent.
        device: Asked for when `Route.needs` has `device`; likewise the following.
        accept_language: The header.
        country, region, region_code: Of the address: two letters, and the largest subdivision's English name and code.
        ip: The address.
        visitor: What is known of the visitor; `None` when nobody could be asked.
        stable_id: Names the browser (its cookie) from one click to the next, for a split; `None` draws anew.
    """

    click_id: UUID
    query: str = ""
    path_rest: str = ""
    inspect: bool = False
    unlocked: bool = False
    bot_kind: str | None = None
    device: Device | None = None
    accept_language: str | None = None
    country: str | None = None
    region: str | None = None
    region_code: str | None = None
    ip: str | None = None
    visitor: VisitorFacts | None = None
    stable_id: str | None = None


Test = Callable[[Asked, datetime], bool]

MAX_HEADER = 512  # characters of Accept-Language that are read


def needs_of(rules: Iterable[Rule]) -> frozenset[Need]:
    """The facts that the conditions of *rules* read."""
    return frozenset(
        need for rule in rules for need, names in _READ.items() if any(getattr(rule.when, n) for n in names)
    ) | ({"visitor"} if any(rule.when.returning is not None for rule in rules) else frozenset())


_READ: Mapping[Need, Sequence[str]] = {
    "device": ("devices", "os", "browsers"),
    "language": ("languages",),
    "place": ("countries", "regions"),
    "ip": ("ip_ranges",),
    "visitor": ("statuses", "traits"),
}


def tests_of(rules: Sequence[Rule]) -> list[tuple[Test, ...]]:
    """For each of *rules* the tests that must all hold."""
    named = tuple(dict.fromkeys(language for rule in rules for language in rule.when.languages))
    return [tuple(_tests(rule.when, named)) for rule in rules]


def _tests(when: When, named: tuple[str, ...]) -> Iterable[Test]:
    if when.after is not None or when.before is not None:
        yield _within(when.after, when.before)
    if when.hours is not None:
        yield _at_hours(when.hours)
    if when.countries:
        yield _in_countries(frozenset(when.countries))
    if when.regions:
        yield _in_regions(frozenset(region.casefold() for region in when.regions))
    if when.devices:
        yield _on_device("type", _all_of(DEVICES, when.devices))
    if when.os:
        yield _on_device("os", _all_of(SYSTEMS, when.os))
    if when.browsers:
        yield _in_browsers(_all_of(BROWSERS, when.browsers), APPS.intersection(when.browsers))
    if when.languages:
        yield _in_languages(frozenset(when.languages), named)
    if when.ip_ranges:
        yield _from_networks(when.ip_ranges)
    if when.query:
        yield _with_query(when.query)
    if when.returning is not None:
        yield _who_returns(when.returning)
    if when.statuses:
        yield _of_status(frozenset(when.statuses))
    if when.traits:
        yield _with_traits(when.traits)


def _all_of(table: Mapping[str, frozenset[str]], words: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(table.get(word, ()) for word in words))


def _within(after: datetime | None, before: datetime | None) -> Test:
    return lambda _, now: (after is None or now >= after) and (before is None or now < before)


def _at_hours(hours: Hours) -> Test:
    zone, start, end = ZoneInfo(hours.timezone), _minutes(hours.start), _minutes(hours.end)
    days = frozenset(hours.weekdays or range(1, 8))

    def test(_: Asked, now: datetime) -> bool:
        there = now.astimezone(zone)
        minute, day = there.hour * 60 + there.minute, there.isoweekday()
        if start < end:
            return day in days and start <= minute < end
        return (minute >= start and day in days) or (minute < end and (day - 2) % 7 + 1 in days)

    return test


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _in_countries(countries: frozenset[str]) -> Test:
    return lambda asked, _: asked.country in countries


def _in_regions(regions: frozenset[str]) -> Test:
    def test(asked: Asked, _: datetime) -> bool:
        return asked.country is not None and any(
            region is not None and f"{asked.country}-{region}".casefold() in regions
            for region in (asked.region_code, asked.region)
        )

    return test


def _on_device(attribute: str, wanted: frozenset[str]) -> Test:
    def test(asked: Asked, _: datetime) -> bool:
        found: str | None = None if asked.device is None else getattr(asked.device, attribute)
        return found is not None and found.casefold() in wanted

    return test


def _in_browsers(browsers: frozenset[str], apps: frozenset[str]) -> Test:
    def test(asked: Asked, _: datetime) -> bool:
        device = asked.device
        if device is None or device.type == "bot":
            return False
        if device.in_app is not None:
            return device.in_app.casefold() in apps
        return device.browser is not None and device.browser.casefold() in browsers

    return test


def _in_languages(languages: frozenset[str], named: tuple[str, ...]) -> Test:
    return lambda asked, _: (
        bool(asked.accept_language)
        and best_language((asked.accept_language or "")[:MAX_HEADER], named) in languages
    )


@lru_cache(maxsize=2_048)
def best_language(accepted: str, named: tuple[str, ...]) -> str | None:
    """
    The one of the languages *named* that an Accept-Language header likes best; `None` when it accepts none of them.

    `de-AT` accepts `de`, and `de` accepts `de-AT`; the closest form wins. `*` names no language, so it accepts none.

    >>> best_language("fr;q=0.5, de-AT;q=0.8", ("fr", "de"))
    'de'
    """
    wanted: list[tuple[float, str]] = []
    for item in accepted.split(","):
        tag, _, parameter = item.partition(";")
        wanted.append((_quality(parameter), tag.strip().lower()))
    refused = {tag for quality, tag in wanted if quality <= 0}
    by_tag = {tag.lower(): tag for tag in named if tag.lower() not in refused}
    for quality, tag in sorted(wanted, key=lambda one: -one[0]):
        if quality <= 0 or not tag:
            continue
        shorter = tag
        while shorter:
            if shorter in by_tag:
                return by_tag[shorter]
            shorter = shorter.rpartition("-")[0]
        longer = [own for own in by_tag if own.startswith(f"{tag}-")]
        if longer:
            return by_tag[longer[0]]
    return None


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    return float(value) if _QUALITY.fullmatch(value := value.strip()) else 0.0


_QUALITY = re.compile(r"[01](?:\.[0-9]{0,3})?")


def _from_networks(ranges: Iterable[str]) -> Test:
    networks = [ip_network(one, strict=False) for one in ranges]

    def test(asked: Asked, _: datetime) -> bool:
        try:
            address = ip_address(asked.ip or "")
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in networks)

    return test


def _with_query(query: Mapping[str, str | None]) -> Test:
    wanted = tuple(query.items())

    def test(asked: Asked, _: datetime) -> bool:
        if not asked.query:
            return False
        found = _parameters(asked.query)
        return all(name in found and (value is None or value in found[name]) for name, value in wanted)

    return test


@lru_cache(maxsize=64)
def _parameters(query: str) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for part in query.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]:
        name, _, value = part.partition("=")
        found.setdefault(unquote_plus(name), set()).add(unquote_plus(value))
    return {name: frozenset(values) for name, values in found.items()}


def _who_returns(returning: bool) -> Test:
    return lambda asked, _: asked.visitor is not None and asked.visitor.known is returning


def _of_status(statuses: frozenset[str]) -> Test:
    return lambda asked, _: asked.visitor is not None and asked.visitor.status in statuses


def _with_traits(traits: Mapping[str, Property]) -> Test:
    wanted = tuple(traits.items())

    def test(asked: Asked, _: datetime) -> bool:
        if asked.visitor is None:
            return False
        found = asked.visitor.traits
        return all(
            found.get(name) is not None if value is None else _is_same(found.get(name), value)
            for name, value in wanted
        )

    return test


def _is_same(found: object, wanted: Property) -> bool:
    # In Python True equals 1; a trait that is the number 1 is not the word true.
    return isinstance(found, bool) is isinstance(wanted, bool) and found == wanted
