"""The checks that a link's rules and variants pass."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from goodanalytics.core import devices
from goodanalytics.core.link_checks import checked_rules, checked_variants
from goodanalytics.core.link_conditions import APPS, Hours, Rule, Variant, When
from goodanalytics.errors import InvalidInput

URL = "https://a.test/"


def rule(**when: Any) -> dict[str, Any]:
    return {"url": URL, "when": when}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"devices": ["Phone", "mobile", "smartphone"]}, When(devices=["smartphone", "mobile"])),
        ({"os": ["macOS", "OSX", "Chrome OS"]}, When(os=["macos", "chromeos"])),
        ({"browsers": ["Samsung Internet", "Instagram"]}, When(browsers=["samsung", "instagram"])),
        ({"languages": ["DE", "pt_br", "zh-hant-TW"]}, When(languages=["de", "pt-BR", "zh-Hant-TW"])),
        ({"countries": [" de", "DE"]}, When(countries=["DE"])),
        ({"regions": ["us-ca", "US-California"]}, When(regions=["US-CA", "US-California"])),
        ({"ip_ranges": ["192.0.2.7/24", "2001:db8::1"]}, When(ip_ranges=["192.0.2.0/24", "2001:db8::1/128"])),
        ({"statuses": ["Customer"]}, When(statuses=["customer"])),
        ({"query": {"src": "tv", "x": None, "e": ""}}, When(query={"src": "tv", "x": None, "e": ""})),
        ({"traits": {"plan": "pro", "seats": 3, "beta": True, "team": None}}, When(traits={"plan": "pro", "seats": 3, "beta": True, "team": None})),
        ({"returning": False}, When(returning=False)),
        ({"after": "2026-11-01T00:00:00Z"}, When(after=datetime(2026, 11, 1, tzinfo=UTC))),
        ({"before": datetime(2026, 11, 1, tzinfo=UTC)}, When(before=datetime(2026, 11, 1, tzinfo=UTC))),
        (
            {"hours": {"start": "22:00", "end": "06:00", "timezone": "Europe/Berlin", "weekdays": [5, 1, 5]}},
            When(hours=Hours("22:00", "06:00", "Europe/Berlin", [1, 5])),
        ),
        ({"hours": {"start": "00:00", "end": "24:00"}}, When(hours=Hours("00:00", "24:00"))),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_usable_conditions(given: dict[str, Any], expected: When) -> None:
    """A condition is stored in one form, whichever of several it came in, and checking it again changes nothing."""
    found = checked_rules([rule(**given)])

    assert found == [Rule(url=URL, when=expected)]
    assert checked_rules(found) == found
    assert checked_rules(msgspec.json.decode(msgspec.json.encode(found))) == found


@pytest.mark.parametrize(
    ("given", "where", "says"),
    [
        ({"devices": ["fridge"]}, "devices[0]", "desktop"),
        ({"os": ["windos"]}, "os[0]", "windows"),
        ({"browsers": ["chrome", "chrom"]}, "browsers[1]", "chrome"),
        ({"languages": ["german"]}, "languages[0]", "pt-BR"),
        ({"languages": ["*"]}, "languages[0]", "pt-BR"),
        ({"countries": ["Germany"]}, "countries[0]", "ISO 3166"),
        ({"countries": ["UK"]}, "countries[0]", "write GB"),
        ({"countries": ["EU"]}, "countries[0]", "one by one"),
        ({"regions": ["California"]}, "regions[0]", "US-CA"),
        ({"regions": ["US-"]}, "regions[0]", "US-CA"),
        ({"ip_ranges": ["192.0.2.0/33"]}, "ip_ranges[0]", "192.0.2.0/24"),
        ({"ip_ranges": ["192.0.2.*"]}, "ip_ranges[0]", "192.0.2.0/24"),
        ({"statuses": ["vip"]}, "statuses[0]", "customer"),
        ({"query": {"": "x"}}, "query", "1 to 64"),
        ({"query": {"a": "x" * 256}}, "query", "255"),
        ({"query": {"a": 1}}, "query[...]", "str"),
        ({"traits": {"tags": ["a"]}}, "traits[...]", "array"),
        ({"after": "2026-11-01T00:00:00"}, "after", "without a time zone"),
        ({"after": "soon"}, "after", "RFC3339"),
        ({"after": "2026-11-02T00:00:00Z", "before": "2026-11-02T00:00:00Z"}, "before", "later"),
        ({"hours": {"start": "9", "end": "17:00"}}, "hours.start", "09:00"),
        ({"hours": {"start": "24:00", "end": "17:00"}}, "hours.start", "09:00"),
        ({"hours": {"start": "09:00", "end": "24:01"}}, "hours.end", "09:00"),
        ({"hours": {"start": "09:00", "end": "09:00"}}, "hours.end", "whole day"),
        ({"hours": {"start": "09:00", "end": "17:00", "timezone": "Europe/Berlon"}}, "hours.timezone", "Europe/Berlin"),
        ({"hours": {"start": "09:00", "end": "17:00", "timezone": "Europe"}}, "hours.timezone", "Europe/Berlin"),
        ({"hours": {"start": "09:00", "end": "17:00", "timezone": "../../etc/passwd"}}, "hours.timezone", "Europe/Berlin"),
        ({"hours": {"start": "09:00", "end": "17:00", "timezone": ""}}, "hours.timezone", "Europe/Berlin"),
        ({"hours": {"start": "09:00", "end": "17:00", "weekdays": [0]}}, "hours.weekdays[0]", "Monday"),
        ({"hours": {"start": "09:00"}}, "hours", "end"),
        ({"returning": "yes"}, "returning", "bool"),
        ({"countries": "DE"}, "countries", "array"),
        ({"country": ["DE"]}, "", "unknown field `country`"),
        ({"countries": ["DE"] * 101}, "countries", "at most 100"),
        ({}, "", "no condition"),
        ({"countries": []}, "", "no condition"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)  # fmt: skip
def test_unusable_conditions(given: dict[str, Any], where: str, says: str) -> None:
    """A condition that could never hold is refused; the error says where it stands and what would be right."""
    with pytest.raises(InvalidInput) as caught:
        checked_rules([rule(countries=["DE"]), rule(**given)])

    assert caught.value.where == ("rules[1].when" + (f".{where}" if where else ""))
    assert says in str(caught.value)
    assert str(caught.value).startswith("rules[1].when")


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"when": {"countries": ["DE"]}}, "rules[0]"),
        ({"url": URL}, "rules[0]"),
        ({"url": "javascript:alert(1)", "when": {"countries": ["DE"]}}, "rules[0].url"),
        ({"url": "shop://x", "when": {"countries": ["DE"]}}, "rules[0].url"),
        ({"url": URL, "when": {"countries": ["DE"]}, "then": 1}, "rules[0]"),
        ({"url": URL, "when": [], "name": "x"}, "rules[0].when"),
        (7, "rules[0]"),
        (None, "rules[0]"),
    ],
)
def test_unusable_rules(given: Any, where: str) -> None:
    """A rule needs a destination and conditions, and nothing else."""
    with pytest.raises(InvalidInput) as caught:
        checked_rules([given])

    assert caught.value.where == where


@pytest.mark.parametrize("given", ["rules", {"url": URL}, 7, [rule(countries=["DE"])] * 51])
def test_rules_are_a_list(given: Any) -> None:
    """Anything else, or more than fifty, is refused."""
    with pytest.raises(InvalidInput) as caught:
        checked_rules(given)

    assert caught.value.where == "rules"


def test_nothing_nests_for_ever() -> None:
    """A value that is nested deeper than Python can follow is refused like any other wrong one."""
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(InvalidInput):
        checked_rules([{"url": URL, "when": deep}])


def test_an_allowed_scheme_is_a_destination_of_rules_and_variants() -> None:
    """Rules and variants may lead to an app whose scheme the host allows."""
    assert checked_rules([{"url": "shop://x", "when": {"os": ["ios"]}}], ["shop"])[0].url == "shop://x"
    assert [v.url for v in checked_variants([{"url": "shop://x"}, {"url": URL}], ["shop"])] == [
        "shop://x",
        URL,
    ]


def test_names_of_rules_are_their_own() -> None:
    """Two rules of one name could not be told apart in reports; rules without one may be many."""
    named = {**rule(countries=["DE"]), "name": " Germany "}

    assert [r.name for r in checked_rules([named, rule(os=["ios"]), rule(os=["android"])])] == [
        "Germany",
        None,
        None,
    ]
    with pytest.raises(InvalidInput, match="another name") as caught:
        checked_rules([named, named])
    assert caught.value.where == "rules[1].name"


def test_variants_get_letters() -> None:
    """A variant without a name gets the next free letter, and weighs one."""
    given = [{"url": URL}, {"url": URL, "name": "A", "weight": 3}, Variant(url=URL)]

    assert checked_variants(given) == [
        Variant(url=URL, weight=1, name="B"),
        Variant(url=URL, weight=3, name="A"),
        Variant(url=URL, weight=1, name="C"),
    ]
    assert checked_variants([]) == []


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ([{"url": URL}], "variants"),
        ([{"url": URL}] * 11, "variants"),
        ([{"url": URL}, {"url": "ftp://x.test/"}], "variants[1].url"),
        ([{"url": URL}, {"url": URL, "weight": 0}], "variants[1].weight"),
        ([{"url": URL}, {"url": URL, "weight": 1_001}], "variants[1].weight"),
        ([{"url": URL}, {"url": URL, "weight": 1.5}], "variants[1].weight"),
        ([{"url": URL}, {"url": URL, "weight": True}], "variants[1].weight"),
        ([{"url": URL, "name": "x"}, {"url": URL, "name": "x"}], "variants[1].name"),
        ([{"url": URL}, {}], "variants[1]"),
        ("AB", "variants"),
    ],
)
def test_unusable_variants(given: Any, where: str) -> None:
    """A split of one, a weight out of bounds or a name twice is refused; the error says where."""
    with pytest.raises(InvalidInput) as caught:
        checked_variants(given)

    assert caught.value.where == where


def test_every_app_with_a_browser_can_be_named() -> None:
    """The words for apps are those that devices are told apart by."""
    assert {name.casefold() for name, _ in devices._IN_APP} == APPS
