"""What a link is, and what a domain of links is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from goodanalytics.core.links import (
    ALPHABET,
    AndroidApp,
    Domain,
    Hours,
    Link,
    Rule,
    Variant,
    When,
    checked_android_apps,
    checked_ios_app_ids,
    checked_key,
    checked_max_clicks,
    checked_status,
    destination,
    link_json,
    opens,
    password_hash,
)
from goodanalytics.errors import InvalidInput

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CLICK = UUID("0190a000-0000-7000-8000-000000000001")
FINGERPRINT = ":".join(["0a"] * 32)


def link(url: str = "https://shop.test/p", **facts: Any) -> Link:
    return Link(
        workspace_id=UUID(int=7),
        id=UUID(int=1),
        domain="go.test",
        key="a",
        url=url,
        created_at=NOW,
        updated_at=NOW,
        **facts,
    )


def test_a_link_expires_at_its_moment() -> None:
    """From its time on a link is over; without a time it never is."""
    second = timedelta(seconds=1)

    assert [link(expires_at=NOW).is_expired(NOW + d) for d in (-second, 0 * second, second)] == [
        False,
        True,
        True,
    ]
    assert not link().is_expired(NOW + timedelta(days=10_000))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, f"https://shop.test/p?b=2&ga_id={CLICK}"),
        ({"utm_medium": "m"}, f"https://shop.test/p?utm_medium=m&b=2&ga_id={CLICK}"),
        ({"forward_query": False}, f"https://shop.test/p?ga_id={CLICK}"),
        ({"utm_source": None, "utm_term": ""}, f"https://shop.test/p?b=2&ga_id={CLICK}"),
    ],
)
def test_destination(facts: dict[str, Any], expected: str) -> None:
    """A link's own address gets its UTM parameters and, if it forwards any, the request's."""
    assert destination(link(**facts), "b=2", CLICK) == expected


def test_a_link_is_read_back_from_its_row() -> None:
    """Rules and variants are plain JSON in a row; what was written is read."""
    rule = Rule(
        url="https://a.test/",
        when=When(after=NOW, hours=Hours("09:00", "17:00", weekdays=[1]), traits={"plan": "pro"}),
    )
    full = link(
        rules=[rule],
        variants=[
            Variant(url="https://b.test/", name="B"),
            Variant(url="https://c.test/", weight=3, name="C"),
        ],
    )
    row = full.to_row()

    assert msgspec.json.decode(msgspec.json.encode(row["rules"])) == row["rules"]
    assert Link.from_row(row) == full
    assert Link.from_row({**row, "rules": None, "variants": None}) == link()


def test_a_domain_is_read_back_from_its_row() -> None:
    """Its apps are plain JSON in a row; what was written is read."""
    app = AndroidApp(package_name="com.example.app", sha256_fingerprints=[FINGERPRINT.upper()])
    domain = Domain(
        workspace_id=UUID(int=7), host="go.test", android_apps=[app], ios_app_ids=["ABCDE12345.com.example"]
    )

    assert Domain.from_row(domain.to_row()) == domain
    assert isinstance(domain.to_row()["android_apps"][0], dict)


@pytest.mark.parametrize(("case_sensitive", "expected"), [(True, "SALE-x"), (False, "sale-x")])
def test_the_case_rule_of_a_domain(case_sensitive: bool, expected: str) -> None:
    """Where case makes no difference, a key is folded before it is stored or looked up."""
    assert (
        Domain(workspace_id=UUID(int=7), host="go.test", case_sensitive=case_sensitive).stored_key("SALE-x")
        == expected
    )


def test_json_of_a_link() -> None:
    """The password's digest is not in it, only that there is one; times and rules are plain JSON."""
    shown = link_json(link(password_hash="scrypt$secret", starts_at=NOW, tags=["a"]), "https://go.test/a")

    assert "secret" not in str(shown)
    assert not {"password_hash", "password", "workspace_id"} & shown.keys()
    assert (shown["has_password"], shown["short_url"], shown["starts_at"]) == (
        True,
        "https://go.test/a",
        "2026-11-01T00:00:00Z",
    )
    assert link_json(link(), "https://go.test/a")["has_password"] is False
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


def test_passwords() -> None:
    """The right password opens, in whatever form its letters were composed; the digest does not hold it."""
    kept = password_hash("Zoë’s geheim", bytes(16))

    assert kept.startswith(f"scrypt$16384$8$5${'00' * 16}$")
    assert [opens(p, kept) for p in ("Zoë’s geheim", "Zoe\u0308’s geheim", "zoë’s geheim", "", "x" * 10_000)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert password_hash("Zoë’s geheim", bytes([1] * 16)) != kept


@pytest.mark.parametrize("password", ["", "x" * 129])
def test_unusable_passwords(password: str) -> None:
    """An empty password protects nothing, and an endless one costs time."""
    with pytest.raises(InvalidInput, match="1 to 128"):
        password_hash(password, bytes(16))


@pytest.mark.parametrize("key", ["a", "A-b_9", "x" * 255, ALPHABET])
def test_usable_keys(key: str) -> None:
    """Letters, digits, hyphen and underscore make a key."""
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "a/b", "a?b", "a.b", "é", "a\n", "x" * 256, "a%20"])
def test_unusable_keys(key: str) -> None:
    """Anything else is refused with the value in the message."""
    with pytest.raises(InvalidInput, match="letters, digits") as caught:
        checked_key(key)

    assert caught.value.where == "key"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_usable_statuses(status: int) -> None:
    """These four redirect."""
    assert checked_status(status) == status


@pytest.mark.parametrize("status", [200, 300, 303, 304, 404, True, 302.5])
def test_unusable_statuses(status: int) -> None:
    """No other one does."""
    with pytest.raises(InvalidInput, match="301, 302, 307 or 308"):
        checked_status(status)


@pytest.mark.parametrize("most", [None, 1, 2**31 - 1])
def test_usable_limits(most: int | None) -> None:
    """One use or more, or no limit."""
    assert checked_max_clicks(most) == most


@pytest.mark.parametrize("most", [0, -1, 2**31, True, 1.5, "3"])
def test_unusable_limits(most: Any) -> None:
    """A link that nobody may use, or a limit that the database cannot hold, is refused."""
    with pytest.raises(InvalidInput, match="max_clicks"):
        checked_max_clicks(most)


def test_usable_apps() -> None:
    """Ids of apps are kept once each, fingerprints in capitals as Android writes them."""
    app = {"package_name": "com.example.app_2", "sha256_fingerprints": [FINGERPRINT]}

    assert checked_ios_app_ids(["ABCDE12345.com.example.App-1"] * 2) == ["ABCDE12345.com.example.App-1"]
    assert checked_android_apps([app]) == [
        AndroidApp(package_name="com.example.app_2", sha256_fingerprints=[FINGERPRINT.upper()])
    ]


@pytest.mark.parametrize(
    "found", ["", "com.example", "abcde12345.com.example", "ABCDE12345.", "ABCDE12345.a/b", 7]
)
def test_unusable_ios_apps(found: Any) -> None:
    """An id without team and bundle is refused, and the message shows one."""
    with pytest.raises(InvalidInput, match="ABCDE12345") as caught:
        checked_ios_app_ids(["ABCDE12345.com.example", found])

    assert caught.value.where == "ios_app_ids[1]"


@pytest.mark.parametrize(
    ("app", "where"),
    [
        ({"package_name": "app", "sha256_fingerprints": [FINGERPRINT]}, "android_apps[0].package_name"),
        ({"package_name": "com.1x", "sha256_fingerprints": [FINGERPRINT]}, "android_apps[0].package_name"),
        ({"package_name": "com.example", "sha256_fingerprints": []}, "android_apps[0].sha256_fingerprints"),
        (
            {"package_name": "com.example", "sha256_fingerprints": [FINGERPRINT[:-1]]},
            "android_apps[0].sha256_fingerprints",
        ),
        ({"package_name": "com.example"}, "android_apps[0]"),
        (
            {"package_name": "com.example", "sha256_fingerprints": [1]},
            "android_apps[0].sha256_fingerprints[0]",
        ),
    ],
)
def test_unusable_android_apps(app: dict[str, Any], where: str) -> None:
    """An app that Android could not check is refused; the error says where."""
    with pytest.raises(InvalidInput) as caught:
        checked_android_apps([app])

    assert caught.value.where == where


def test_a_domain_has_at_most_fifty_apps() -> None:
    """The files that phones fetch stay small."""
    with pytest.raises(InvalidInput, match="at most 50"):
        checked_ios_app_ids([f"ABCDE12345.app{n}" for n in range(51)])
