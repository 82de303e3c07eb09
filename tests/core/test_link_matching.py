"""Whether the conditions of a rule hold."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core import devices
from goodanalytics.core.devices import Device
from goodanalytics.core.link_checks import checked_rules
from goodanalytics.core.link_conditions import BROWSERS, When
from goodanalytics.core.link_matching import (
    Asked,
    VisitorFacts,
    best_language,
    needs_of,
)
from goodanalytics.core.link_matching import (
    tests_of as conditions_of,
)

NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)

IPHONE = Device(type="smartphone", brand="Apple", os="iOS", browser="Mobile Safari")
IPAD = Device(type="tablet", brand="Apple", os="iPadOS", browser="Mobile Safari")
PIXEL = Device(type="smartphone", os="Android", browser="Chrome Mobile")
INSTAGRAM = Device(type="smartphone", os="Android", browser="Chrome Mobile WebView", in_app="Instagram")
UBUNTU = Device(type="desktop", os="Ubuntu", browser="Firefox")
MAC = Device(type="desktop", os="Mac", browser="Safari")
BOT = Device(type="bot", browser="Chrome")


def asked(**facts: Any) -> Asked:
    return Asked(click_id=UUID(int=1), **facts)


def holds(when: dict[str, Any], now: datetime = NOW, **facts: Any) -> bool:
    """Whether *when*, as it would be stored, holds for somebody with *facts*."""
    (tests,) = conditions_of(checked_rules([{"url": "https://a.test/", "when": when}]))
    return all(test(asked(**facts), now) for test in tests)


def known(**facts: Any) -> dict[str, VisitorFacts]:
    return {"visitor": VisitorFacts(known=True, **facts)}


CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = {
    "devices: mobile": (
        {"devices": ["mobile"]},
        [{"device": IPHONE}, {"device": IPAD}],
        [{"device": MAC}, {"device": Device()}, {"device": BOT}],
    ),
    "devices: any of": ({"devices": ["tv", "desktop"]}, [{"device": UBUNTU}], [{"device": IPHONE}]),
    "devices: tablet": ({"devices": ["tablet"]}, [{"device": IPAD}], [{"device": IPHONE}]),
    "os: ios": ({"os": ["ios"]}, [{"device": IPHONE}, {"device": IPAD}], [{"device": MAC}, {"device": PIXEL}]),
    "os: ipados": ({"os": ["ipados"]}, [{"device": IPAD}], [{"device": IPHONE}]),
    "os: linux": ({"os": ["linux"]}, [{"device": UBUNTU}, {"device": Device(os="Linux")}], [{"device": PIXEL}]),
    "os: macos": ({"os": ["macos"]}, [{"device": MAC}], [{"device": IPAD}, {"device": Device()}]),
    "browsers: chrome": (
        {"browsers": ["chrome"]},
        [{"device": PIXEL}],
        [{"device": INSTAGRAM}, {"device": UBUNTU}, {"device": BOT}, {"device": Device()}],
    ),
    "browsers: an app": ({"browsers": ["instagram"]}, [{"device": INSTAGRAM}], [{"device": PIXEL}]),
    "languages": (
        {"languages": ["de"]},
        [{"accept_language": "de-AT,en;q=0.9"}, {"accept_language": "en, DE;q=0.1"}],
        [{"accept_language": "en"}, {"accept_language": "de;q=0"}, {"accept_language": ""}, {"accept_language": "*"}],
    ),
    "countries": ({"countries": ["DE", "AT"]}, [{"country": "AT"}], [{"country": "CH"}]),
    "regions: code": (
        {"regions": ["US-CA"]},
        [{"country": "US", "region_code": "CA", "region": "California"}],
        [{"country": "US", "region": "California"}, {"country": "CA"}, {"region_code": "CA"}, {"country": "US", "region_code": "NY"}],
    ),
    "regions: name": (
        {"regions": ["us-california"]},
        [{"country": "US", "region": "California"}],
        [{"country": "US", "region_code": "CA"}, {"country": "MX", "region": "California"}],
    ),
    "query: a value": (
        {"query": {"src": "t v"}},
        [{"query": "src=t+v"}, {"query": "a=1&s%72c=t%20v&src=x"}],
        [{"query": "src=tv"}, {"query": "SRC=t+v"}, {"query": ""}, {"query": "src"}],
    ),
    "query: present": ({"query": {"src": None}}, [{"query": "src"}, {"query": "src=x"}], [{"query": "source=x"}]),
    "query: all of": ({"query": {"a": "1", "b": None}}, [{"query": "b=2&a=1"}], [{"query": "a=1"}]),
    "ip_ranges": (
        {"ip_ranges": ["192.0.2.0/24", "2001:db8::/32"]},
        [{"ip": "192.0.2.7"}, {"ip": "::ffff:192.0.2.7"}, {"ip": "2001:db8:1::1"}],
        [{"ip": "192.0.3.1"}, {"ip": "2001:db9::1"}, {"ip": "unknown"}],
    ),
    "returning": ({"returning": True}, [known()], [{"visitor": VisitorFacts(known=False)}]),
    "not returning": ({"returning": False}, [{"visitor": VisitorFacts(known=False)}], [known()]),
    "statuses": ({"statuses": ["lead", "customer"]}, [known(status="lead")], [known(status="churned"), known()]),
    "traits: a word": ({"traits": {"plan": "pro"}}, [known(traits={"plan": "pro", "x": 1})], [known(traits={"plan": "free"}), known()]),
    "traits: a number": ({"traits": {"seats": 1}}, [known(traits={"seats": 1}), known(traits={"seats": 1.0})], [known(traits={"seats": True}), known(traits={"seats": "1"})]),
    "traits: yes": ({"traits": {"beta": True}}, [known(traits={"beta": True})], [known(traits={"beta": 1})]),
    "traits: present": ({"traits": {"team": None}}, [known(traits={"team": False})], [known(traits={"team": None}), known()]),
    "all conditions": (
        {"countries": ["DE"], "os": ["ios"]},
        [{"country": "DE", "device": IPHONE}],
        [{"country": "DE", "device": PIXEL}, {"country": "AT", "device": IPHONE}, {"country": "DE"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("when", "matching", "_"), CASES.values(), ids=CASES)
def test_conditions_that_hold(when: dict[str, Any], matching: list[dict[str, Any]], _: object) -> None:
    """Whoever has the facts that a condition asks for fulfils it."""
    assert [holds(when, **facts) for facts in matching] == [True] * len(matching)


@pytest.mark.parametrize(("when", "_", "others"), CASES.values(), ids=CASES)
def test_conditions_that_do_not_hold(when: dict[str, Any], _: object, others: list[dict[str, Any]]) -> None:
    """Whoever has other facts does not, and whoever is unknown never does."""
    assert [holds(when, **facts) for facts in [*others, {}]] == [False] * (len(others) + 1)


def test_every_condition_has_its_cases() -> None:
    """No field of `When` is without a case; those of time stand below."""
    tried = {name for when, _, _ in CASES.values() for name in when}

    assert tried | {"after", "before", "hours"} == set(When.__struct_fields__)


def test_a_window_of_time() -> None:
    """It begins at its first moment and is over at its last."""
    when = {"after": NOW, "before": NOW + HOUR}

    assert [holds(when, NOW + d) for d in (-HOUR / 60, 0 * HOUR, HOUR - HOUR / 3600, HOUR)] == [
        False,
        True,
        True,
        False,
    ]
    assert [holds({"after": NOW}, NOW + d) for d in (-HOUR, HOUR)] == [False, True]
    assert [holds({"before": NOW}, NOW + d) for d in (-HOUR, HOUR)] == [True, False]


@pytest.mark.parametrize(
    ("hours", "moment", "expected"),
    [
        (("09:00", "17:00", "UTC"), "2026-11-04T09:00Z", True),
        (("09:00", "17:00", "UTC"), "2026-11-04T08:59:59Z", False),
        (("09:00", "17:00", "UTC"), "2026-11-04T16:59:59Z", True),
        (("09:00", "17:00", "UTC"), "2026-11-04T17:00Z", False),
        (("09:00", "17:00", "America/New_York"), "2026-11-04T13:59Z", False),  # 8:59 in winter
        (("09:00", "17:00", "America/New_York"), "2026-07-01T13:00Z", True),  # 9:00 in summer
        (("09:00", "17:00", "Asia/Kathmandu"), "2026-11-04T03:15Z", True),  # 5:45 ahead
        (("22:00", "06:00", "UTC"), "2026-11-04T23:00Z", True),
        (("22:00", "06:00", "UTC"), "2026-11-04T05:59Z", True),
        (("22:00", "06:00", "UTC"), "2026-11-04T06:00Z", False),
        (("22:00", "06:00", "UTC"), "2026-11-04T12:00Z", False),
        (("00:00", "24:00", "UTC"), "2026-11-04T23:59Z", True),
        (("09:00", "17:00", "UTC", [3]), "2026-11-04T12:00Z", True),
        (("09:00", "17:00", "UTC", [4]), "2026-11-04T12:00Z", False),
        (("09:00", "17:00", "Asia/Tokyo", [4]), "2026-11-04T23:30Z", False),  # 8:30 on Thursday there
        (("00:00", "24:00", "Asia/Tokyo", [4]), "2026-11-04T23:30Z", True),
        (("22:00", "06:00", "UTC", [3]), "2026-11-05T05:00Z", True),  # Wednesday's night
        (("22:00", "06:00", "UTC", [4]), "2026-11-05T05:00Z", False),
        (("22:00", "06:00", "UTC", [7]), "2026-11-09T01:00Z", True),  # Sunday's night, on Monday
        (("22:00", "06:00", "UTC", [1]), "2026-11-08T23:00Z", False),
        (("02:30", "04:00", "Europe/Berlin"), "2026-03-29T01:00Z", True),  # the clocks skip from 2:00 to 3:00
    ],
)
def test_hours(hours: tuple[Any, ...], moment: str, expected: bool) -> None:
    """Hours are read off the wall there, and a night belongs to the day on which it began."""
    when = {"hours": dict(zip(("start", "end", "timezone", "weekdays"), hours, strict=False))}

    assert holds(when, datetime.fromisoformat(moment)) is expected


@pytest.mark.parametrize(
    ("accepted", "named", "expected"),
    [
        ("de", ["de", "en"], "de"),
        ("fr, en;q=0.8, de;q=0.9", ["en", "de"], "de"),
        ("en;q=0.8, de;q=0.8", ["de", "en"], "en"),
        ("de-CH", ["de"], "de"),
        ("de", ["de-CH"], "de-CH"),
        ("de-CH", ["de", "de-CH"], "de-CH"),
        ("pt-BR, pt;q=0.9", ["pt-PT", "pt-BR"], "pt-BR"),
        ("zh-Hant-TW", ["zh", "zh-Hant"], "zh-Hant"),
        ("DE-at", ["de-AT"], "de-AT"),
        ("de;q=0, en;q=0.1", ["de", "en"], "en"),
        ("de-AT, de;q=0", ["de"], None),
        ("de-AT;q=0", ["de"], None),
        ("*", ["de"], None),
        ("nl", ["de"], None),
        ("den", ["de"], None),
        ("de;q=2", ["de"], None),
        ("de;q=high, en;q=0.2", ["de", "en"], "en"),
        ("de ; q=0.5 , en;q=0.4", ["de", "en"], "de"),
        (",,;q=1,", ["de"], None),
        ("", ["de"], None),
    ],
)
def test_the_best_language(accepted: str, named: list[str], expected: str | None) -> None:
    """Quality decides, then the order of the header, then how close the form is."""
    assert best_language(accepted, tuple(named)) == expected


def test_rules_share_out_the_languages() -> None:
    """Of the languages that all rules name together only the best one counts."""
    german, english = conditions_of(
        checked_rules([{"url": "https://a.test/", "when": {"languages": [tag]}} for tag in ("de", "en")])
    )
    visitor = asked(accept_language="en-US,en;q=0.9,de;q=0.8")

    assert [all(test(visitor, NOW) for test in tests) for tests in (german, english)] == [False, True]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"after": NOW}, set()),
        ({"query": {"a": None}}, set()),
        ({"devices": ["tv"]}, {"device"}),
        ({"os": ["ios"], "browsers": ["edge"]}, {"device"}),
        ({"languages": ["de"]}, {"language"}),
        ({"countries": ["DE"], "ip_ranges": ["192.0.2.0/24"]}, {"place", "ip"}),
        ({"regions": ["US-CA"]}, {"place"}),
        ({"returning": False}, {"visitor"}),
        ({"statuses": ["lead"]}, {"visitor"}),
        ({"traits": {"a": 1}}, {"visitor"}),
    ],
)
def test_what_has_to_be_found_out(when: dict[str, Any], expected: set[str]) -> None:
    """Rules name the facts that they read; nobody looks up others."""
    assert needs_of(checked_rules([{"url": "https://a.test/", "when": when}])) == expected


USER_AGENTS = {
    "chrome": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Safari/537.36",
    "duckduckgo": "Mozilla/5.0 (Linux; Android 13; SM-A) AppleWebKit/537.36 Chrome/119 Mobile DuckDuckGo/5 Safari/537.36",
    "edge": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) EdgiOS/119.0 Mobile/15E148 Safari/605.1.15",
    "firefox": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/119.0 Mobile/15E148 Safari/605.1.15",
    "ie": "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
    "opera": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Safari/537.36 OPR/105.0.0.0",
    "safari": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/605.1.15",
    "samsung": "Mozilla/5.0 (Linux; Android 13; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/22.0 Chrome/111.0.5563.116 Mobile Safari/537.36",
    "uc": "Mozilla/5.0 (Linux; U; Android 13; en-US) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100 UCBrowser/13.4.0.1306 Mobile Safari/537.36",
    "vivaldi": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 Safari/537.36 Vivaldi/6.4.3160.47",
    "yandex": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 YaBrowser/23.11.0 Safari/537.36",
}


@pytest.mark.parametrize(("browser", "user_agent"), USER_AGENTS.items(), ids=USER_AGENTS)
def test_browsers_as_they_come(browser: str, user_agent: str) -> None:
    """The words of conditions are those of real browsers, each of exactly one."""
    device = devices.parse(user_agent)

    assert [word for word in BROWSERS if holds({"browsers": [word]}, device=device)] == [browser]


def test_every_browser_is_tried() -> None:
    """All words stand in the table above but Brave's, which only client hints tell from Chrome."""
    assert BROWSERS.keys() - USER_AGENTS.keys() == {"brave"}
    hinted = devices.parse(USER_AGENTS["chrome"], {"sec-ch-ua": '"Brave";v="119", "Chromium";v="119"'})
    assert holds({"browsers": ["brave"]}, device=hinted)


CONDITIONS = {
    "countries": ["DE"],
    "os": ["ios"],
    "languages": ["de", "en"],
    "query": {"a": "1"},
    "ip_ranges": ["192.0.2.0/24"],
    "returning": True,
    "statuses": ["lead"],
    "traits": {"plan": "pro"},
}
FACTS: dict[str, tuple[Any, Any]] = {
    "country": ("DE", "AT"),
    "device": (IPHONE, PIXEL),
    "accept_language": ("en", "fr"),
    "query": ("a=1", "a=2"),
    "ip": ("192.0.2.1", "192.0.3.1"),
    "visitor": (VisitorFacts(known=True, status="lead", traits={"plan": "pro"}), VisitorFacts(known=False)),
}


@given(st.permutations(list(CONDITIONS)), st.fixed_dictionaries({name: st.booleans() for name in FACTS}))
def test_the_order_of_conditions_makes_no_difference(order: list[str], right: dict[str, bool]) -> None:
    """However they are written, conditions hold together if and only if each of them does."""
    when = {name: CONDITIONS[name] for name in order}
    facts = {name: values[0 if right[name] else 1] for name, values in FACTS.items()}

    assert holds(when, **facts) is all(right.values())
    assert holds(when, **facts) is all(holds({name: value}, **facts) for name, value in when.items())


@given(st.lists(st.sampled_from(["DE", "AT", "US", "FR"]), min_size=1, max_size=4))
def test_the_order_of_words_makes_no_difference(words: list[str]) -> None:
    """A list holds for any of its words, wherever it stands."""
    expected = {country: country in words for country in ("DE", "AT", "US", "FR")}

    for order in itertools.permutations(words):
        assert {c: holds({"countries": list(order)}, country=c) for c in expected} == expected


@given(st.text(max_size=80), st.text(max_size=80))
def test_hostile_requests_raise_nothing(header: str, query: str) -> None:
    """Whatever a request says, a condition holds or does not."""
    when = {"languages": ["de"], "query": {"a": "1"}, "ip_ranges": ["192.0.2.0/24"]}

    assert holds(when, accept_language=header, query=query, ip=header) is False
