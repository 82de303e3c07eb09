"""Where somebody who asks for a link is led."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core import urls
from goodanalytics.core.devices import Device
from goodanalytics.core.links import Domain, Link, Rule, Variant, When
from goodanalytics.core.routing import (
    Asked,
    AskPassword,
    Cloak,
    Decision,
    Ended,
    Go,
    Inspect,
    NoSuchPath,
    NotYet,
    Preview,
    VisitorFacts,
    prepare,
    route,
)

NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CLICK = UUID("0190a000-0000-7000-8000-000000000001")
BRIDGE = f"ga_id={CLICK}"
IPHONE = Device(type="smartphone", os="iOS")
PIXEL = Device(type="smartphone", os="Android")
MAC = Device(type="desktop", os="Mac")

GERMANS = Rule(url="https://de.test/x?a=1", when=When(countries=["DE"]), name="Germany")
PHONES = Rule(url="https://m.test/", when=When(devices=["mobile"]))
AB = [Variant(url="https://a.test/", name="A"), Variant(url="https://b.test/", name="B")]


def link(**facts: Any) -> Link:
    return Link(
        **{
            "workspace_id": UUID(int=7), "id": UUID(int=1), "domain": "go.test", "key": "a", "url": "https://shop.test/p",
            "created_at": NOW, "updated_at": NOW,
        }
        | facts
    )  # fmt: skip


def decided(
    facts: dict[str, Any], asked: dict[str, Any] | None = None, domain: dict[str, Any] | None = None
) -> Decision:
    at = None if domain is None else Domain(workspace_id=UUID(int=7), host="go.test", **domain)
    return route(link(**facts), at, Asked(click_id=CLICK, **asked or {}), NOW)


def go(base: str, rule: str | None = None, variant: str | None = None) -> Go:
    return Go(f"{base}{'&' if '?' in base else '?'}{BRIDGE}", 302, rule, variant)


@pytest.mark.parametrize(
    ("facts", "asked", "expected"),
    [
        pytest.param({}, {}, go("https://shop.test/p"), id="its own address"),
        pytest.param({"redirect_status": 308}, {}, Go(f"https://shop.test/p?{BRIDGE}", 308), id="its own status"),
        pytest.param({}, {"query": "a=1"}, go("https://shop.test/p?a=1"), id="the query goes on"),
        pytest.param({"forward_query": False}, {"query": "a=1"}, go("https://shop.test/p"), id="unless it shall not"),
        pytest.param({"utm_source": "n"}, {}, go("https://shop.test/p?utm_source=n"), id="UTM"),
        pytest.param({}, {"path_rest": "/x"}, NoSuchPath(), id="a path is no part of the key"),
        pytest.param({}, {"path_rest": "/"}, go("https://shop.test/p"), id="a slash at the end does no harm"),
        pytest.param({"forward_path": True}, {"path_rest": "/x/y"}, go("https://shop.test/p/x/y"), id="a path that is forwarded"),
        pytest.param({"forward_path": True}, {"path_rest": "/../y"}, NoSuchPath(), id="a path that climbs"),
        pytest.param({"forward_path": True, "rules": [GERMANS]}, {"path_rest": "/y", "country": "DE"}, go("https://de.test/x/y?a=1", "Germany"), id="below a rule's address too"),
        pytest.param({"starts_at": NOW + SECOND}, {}, NotYet(NOW + SECOND), id="before it starts"),
        pytest.param({"starts_at": NOW}, {}, go("https://shop.test/p"), id="from its first moment on"),
        pytest.param({"expires_at": NOW + SECOND}, {}, go("https://shop.test/p"), id="until its last"),
        pytest.param({"expires_at": NOW}, {}, Ended(None), id="when it is over"),
        pytest.param({"expires_at": NOW, "expired_url": "https://shop.test/ü"}, {}, Ended("https://shop.test/%C3%BC"), id="then its own address for that"),
        pytest.param({}, {"inspect": True}, Inspect("https://shop.test/p"), id="inspected"),
        pytest.param({"password_hash": "x"}, {}, AskPassword(), id="a password"),
        pytest.param({"password_hash": "x"}, {"unlocked": True}, go("https://shop.test/p"), id="that was given"),
        pytest.param({"password_hash": "x"}, {"inspect": True}, AskPassword(), id="also before it is inspected"),
        pytest.param({"password_hash": "x", "og_title": "T"}, {"bot_kind": "social-preview"}, AskPassword(), id="and before its card is shown"),
        pytest.param({"password_hash": "x", "expires_at": NOW}, {}, Ended(None), id="but not when it is over"),
        pytest.param({"og_title": "T"}, {"bot_kind": "social-preview"}, Preview("https://shop.test/p"), id="a card for previews"),
        pytest.param({"og_image": "https://i.test/"}, {"bot_kind": "social-preview"}, Preview("https://shop.test/p"), id="of an image alone"),
        pytest.param({}, {"bot_kind": "social-preview"}, go("https://shop.test/p"), id="the destination's card"),
        pytest.param({"og_title": "T"}, {"bot_kind": "search-engine"}, go("https://shop.test/p"), id="no card for others"),
        pytest.param({"rules": [GERMANS, PHONES]}, {"country": "DE", "device": IPHONE}, go("https://de.test/x?a=1", "Germany"), id="the first rule"),
        pytest.param({"rules": [PHONES, GERMANS]}, {"country": "DE", "device": IPHONE}, go("https://m.test/", "#1"), id="in their order"),
        pytest.param({"rules": [GERMANS, PHONES]}, {"device": IPHONE}, go("https://m.test/", "#2"), id="the second one"),
        pytest.param({"rules": [GERMANS, PHONES]}, {}, go("https://shop.test/p"), id="no rule"),
        pytest.param({"rules": [PHONES], "ios_url": "https://i.test/"}, {"device": IPHONE}, go("https://m.test/", "#1"), id="a rule before iOS"),
        pytest.param({"ios_url": "https://i.test/", "variants": AB}, {"device": IPHONE}, go("https://i.test/"), id="iOS before a split"),
        pytest.param({"ios_url": "https://i.test/"}, {"device": Device(os="iPadOS")}, go("https://i.test/"), id="iPads"),
        pytest.param({"ios_url": "https://i.test/", "android_url": "shop://x"}, {"device": PIXEL}, go("shop://x"), id="Android"),
        pytest.param({"ios_url": "https://i.test/", "android_url": "shop://x"}, {"device": MAC}, go("https://shop.test/p"), id="neither"),
        pytest.param({"ios_url": "https://i.test/"}, {}, go("https://shop.test/p"), id="no device is known"),
        pytest.param({"cloaked": True}, {}, Cloak(f"https://shop.test/p?{BRIDGE}"), id="in a frame"),
        pytest.param({"cloaked": True, "rules": [GERMANS]}, {"country": "DE"}, Cloak(f"https://de.test/x?a=1&{BRIDGE}", "Germany"), id="by a rule"),
        pytest.param({"cloaked": True, "url": "shop://x"}, {}, go("shop://x"), id="no frame around an app"),
    ],
)  # fmt: skip
def test_decisions(facts: dict[str, Any], asked: dict[str, Any], expected: Decision) -> None:
    """The first of the steps that applies decides."""
    assert decided(facts, asked) == expected


@pytest.mark.parametrize(
    ("own", "of_domain", "expected"),
    [(None, "https://d.test/", "https://d.test/"), ("https://l.test/", "https://d.test/", "https://l.test/"), (None, None, None)],
)  # fmt: skip
def test_where_a_link_leads_that_is_over(
    own: str | None, of_domain: str | None, expected: str | None
) -> None:
    """To its own address for that, or its domain's; the same one when its uses are taken."""
    prepared = prepare(
        link(expired_url=own), Domain(workspace_id=UUID(int=7), host="go.test", expired_url=of_domain)
    )

    assert decided({"expires_at": NOW, "expired_url": own}, {}, {"expired_url": of_domain}) == Ended(expected)
    assert prepared.ended == Ended(expected)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, set()),
        ({"variants": AB}, set()),
        ({"ios_url": "https://i.test/"}, {"device"}),
        ({"rules": [GERMANS], "android_url": "https://i.test/"}, {"device", "place"}),
        ({"rules": [Rule(url="https://a.test/", when=When(returning=True))]}, {"visitor"}),
    ],
)
def test_what_a_link_needs(facts: dict[str, Any], expected: set[str]) -> None:
    """Only what a link asks about is worth finding out."""
    assert prepare(link(**facts)).needs == expected


# The split ---------------------------------------------------------------------------------------------------------


def drawn(variants: list[Variant], visitors: range, **facts: Any) -> dict[int, str | None]:
    """The variant of each visitor."""
    prepared = prepare(link(variants=variants, **facts))
    found = {}
    for n in visitors:
        decision = prepared.decide(Asked(click_id=UUID(int=n), stable_id=f"visitor-{n}"), NOW)
        assert isinstance(decision, Go)
        found[n] = decision.variant
    return found


def weighted(**weights: int) -> list[Variant]:
    return [
        Variant(url=f"https://{name}.test/", name=name, weight=weight) for name, weight in weights.items()
    ]


@pytest.mark.parametrize(
    "weights",
    [{"a": 1, "b": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 7}, {"a": 1_000, "b": 1_000, "c": 1}],
)
def test_weights_are_honoured(weights: dict[str, int]) -> None:
    """Of 20,000 visitors each variant has its share, within four standard deviations."""
    visitors, total = 20_000, sum(weights.values())
    found = Counter(drawn(weighted(**weights), range(visitors)).values())

    for name, weight in weights.items():
        share = weight / total
        assert abs(found[name] - visitors * share) <= 4 * (visitors * share * (1 - share)) ** 0.5


def test_a_visitor_stays_on_a_variant() -> None:
    """The same visitor comes to the same variant, whatever the click and the order of the variants."""
    once = drawn(weighted(a=1, b=2, c=3), range(500))

    assert drawn(weighted(c=3, a=1, b=2), range(500)) == once
    assert {
        prepare(link(variants=AB)).decide(Asked(click_id=UUID(int=n), stable_id="x"), NOW).variant  # type: ignore[union-attr]
        for n in range(1, 100)
    } <= {once_of("x")}


def once_of(visitor: str) -> str | None:
    decision = prepare(link(variants=AB)).decide(Asked(click_id=CLICK, stable_id=visitor), NOW)
    assert isinstance(decision, Go)
    return decision.variant


def test_a_changed_weight_moves_nobody_between_others() -> None:
    """More weight only draws visitors to that variant, and no more than its share grows."""
    before, after = drawn(weighted(a=1, b=1, c=1), range(6_000)), drawn(weighted(a=1, b=2, c=1), range(6_000))
    moved = [n for n in before if before[n] != after[n]]

    assert {after[n] for n in moved} == {"b"}
    assert 0.14 < len(moved) / 6_000 < 0.19  # its share grows from 1/3 to 1/2


def test_a_variant_that_goes_leaves_the_others_alone() -> None:
    """Only its own visitors move."""
    before, after = drawn(weighted(a=1, b=1, c=1), range(3_000)), drawn(weighted(a=1, b=1), range(3_000))

    assert {before[n] for n in before if before[n] != after[n]} == {"c"}


def test_links_split_independently() -> None:
    """Whoever is on the first variant of one link is on either one of another."""
    one, other = drawn(AB, range(2_000)), drawn(AB, range(2_000), id=UUID(int=2))
    both = Counter(zip(one.values(), other.values(), strict=True))

    assert all(430 < count < 570 for count in both.values())
    assert len(both) == 4


def test_without_a_cookie_every_click_draws() -> None:
    """Somebody who is not known by any name comes here and there, by the weights."""
    prepared = prepare(link(variants=AB))
    found = Counter(
        prepared.decide(Asked(click_id=UUID(int=n)), NOW).variant  # type: ignore[union-attr]
        for n in range(1_000)
    )

    assert found.keys() == {"A", "B"}
    assert min(found.values()) > 430


# Laws ----------------------------------------------------------------------------------------------------------------

words = st.text(max_size=12)
hosts_of = {
    "url": "own.test",
    "rule": "rule.test",
    "ios": "ios.test",
    "android": "android.test",
    "A": "a.test",
    "B": "b.test",
}
links = st.builds(
    link,
    url=st.just("https://own.test/p?keep=1&x=%zz#top"),
    ios_url=st.none() | st.just("https://ios.test/"),
    android_url=st.none() | st.just("https://android.test/"),
    rules=st.just([]) | st.just([Rule(url="https://rule.test/r", when=When(countries=["DE"]))]),
    variants=st.just([]) | st.just([Variant(url="https://a.test/", name="A"), Variant(url="https://b.test/?keep=1", name="B")]),
    utm_source=st.none() | words,
    forward_path=st.booleans(),
    forward_query=st.booleans(),
    cloaked=st.booleans(),
)  # fmt: skip
asks = st.builds(
    Asked,
    click_id=st.just(CLICK),
    query=words
    | st.sampled_from(
        [
            "url=https://evil.test",
            "redir_url=//evil.test",
            "ga_id=x&keep=2",
            "a=" + "é" * 400,
            "host=evil.test",
        ]
    ),
    path_rest=st.sampled_from(["", "/", "/a", "//evil.test", "/@evil.test", "/\\evil.test", "/.evil.test"])
    | words,
    country=st.sampled_from([None, "DE", "AT"]),
    device=st.sampled_from([None, IPHONE, PIXEL, MAC]),
    visitor=st.none() | st.just(VisitorFacts(known=True)),
    stable_id=st.none() | words,
)


@settings(deadline=None, max_examples=300)
@given(links, asks)
def test_laws_of_a_decision(found: Link, asked: Asked) -> None:
    """The host is the link's own or a rule's, an app's or a variant's; its query is kept; one ga_id; ASCII; at most 8 kB."""
    decision = route(found, None, asked, NOW)

    if isinstance(decision, NoSuchPath):
        assert asked.path_rest.strip("/")
        return
    assert isinstance(decision, Go | Cloak)
    where = urlsplit(decision.url)
    if decision.rule:
        assert where.netloc == "rule.test"
    elif asked.device is not None and asked.device.os == "iOS" and found.ios_url:
        assert where.netloc == "ios.test"
    elif asked.device is not None and asked.device.os == "Android" and found.android_url:
        assert where.netloc == "android.test"
    else:
        assert where.netloc == hosts_of[decision.variant or "url"]
    if where.netloc == "own.test":
        assert where.query.startswith("keep=1&x=%zz&")
        assert where.path.startswith("/p")
        assert where.fragment == "top"
    assert [v for n, v in urls.parameters(decision.url) if n == "ga_id"] == [str(CLICK)]
    assert decision.url.isascii()
    assert decision.url.isprintable()
    assert " " not in decision.url
    assert len(decision.url) <= 8_000
    # The same visitor once more, and by way of the database.
    assert (
        route(
            Link.from_row(msgspec.to_builtins(found.to_row(), builtin_types=(datetime, UUID))),
            None,
            asked,
            NOW,
        )
        == decision
    )
