"""What may be said of a link: read, bounded, and refused with its name."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from goodanalytics.core.link_fields import (
    FIELDS,
    RESERVED,
    check_link,
    checked_domain,
    checked_fields,
    random_key,
    unreserved,
)
from goodanalytics.core.links import KEY, Link
from goodanalytics.errors import InvalidInput

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LINK = Link(
    workspace_id=uuid.UUID(int=0), id=uuid.UUID(int=1), domain="go.example", key="a", url="https://shop.example/",
    created_at=NOW, updated_at=NOW,
)  # fmt: skip
LONG = "x" * 2_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("uri", "https://shop.example/", id="an unknown name"),
        pytest.param("url", "ftp://shop.example/", id="a destination that is not on the web"),
        pytest.param("url", None, id="no destination"),
        pytest.param("url", 7, id="a destination that is no text"),
        pytest.param("ios_url", "myapp://open", id="a scheme that is not allowed"),
        pytest.param("og_image", "data:image/png;base64,AA", id="a picture that is not on the web"),
        pytest.param("expired_url", "javascript:alert(1)", id="an expired URL that is a script"),
        pytest.param("domain", "https://go.example", id="a domain that is an address"),
        pytest.param("domain", "", id="an empty domain"),
        pytest.param("key", "a/b", id="a key with a slash"),
        pytest.param("key", "Favicon", id="a reserved key"),
        pytest.param("link_type", "long", id="an unknown type"),
        pytest.param("title", LONG, id="a title that is too long"),
        pytest.param("title", 7, id="a title that is a number"),
        pytest.param("notes", "x" * 10_001, id="notes that are too long"),
        pytest.param("utm_source", LONG, id="a source that is too long"),
        pytest.param("external_id", "x" * 129, id="an external id that is too long"),
        pytest.param("starts_at", datetime(2026, 1, 1), id="a time without a zone"),  # noqa: DTZ001  # that is the case
        pytest.param("expires_at", "2026-01-01", id="a time that is a text"),
        pytest.param(
            "expires_at",
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
            id="a time off the calendar",
        ),
        pytest.param("max_clicks", 0, id="no uses at all"),
        pytest.param("redirect_status", 200, id="a status that is no redirect"),
        pytest.param("cloaked", "yes", id="a flag that is a text"),
        pytest.param("tags", "spring", id="tags that are one text"),
        pytest.param("tags", [str(n) for n in range(51)], id="too many tags"),
        pytest.param("metadata", [1], id="metadata that is a list"),
        pytest.param("metadata", {"a": "\0"}, id="metadata with a NUL"),
        pytest.param("metadata", {"a": LONG * 10}, id="metadata that is too large"),
        pytest.param("metadata", {"a": object()}, id="metadata that is no JSON"),
        pytest.param("partner_id", "bob", id="a partner that is no id"),
        pytest.param("rules", [{"url": "https://shop.example/"}], id="a rule without conditions"),
        pytest.param("variants", [{"url": "https://shop.example/"}], id="a split of one"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value):
    """The error carries the field's name, so that a form or a caller can show it there."""
    with pytest.raises(InvalidInput) as refused:
        checked_fields({name: value})

    assert refused.value.where.partition("[")[0] == name


def test_none_clears_to_what_a_link_has_of_which_nothing_was_said():
    """Each field that has a default goes back to it; the password's digest is another's business."""
    names = [name for name in FIELDS if name not in ("url", "domain", "key", "password")]
    bare = msgspec.structs.replace(LINK, **checked_fields(dict.fromkeys(names)))

    assert bare == LINK


def test_values_come_in_their_one_form():
    """Blanks at the ends go, tags come once, times are UTC, hosts are small letters."""
    given = {
        "domain": "GO.Example.",
        "title": "  Spring\n ",
        "tags": ["b", "a", "b", " "],
        "expires_at": datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        "external_id": " ",
        "ios_url": "myapp://open",
    }

    assert checked_fields(given, ("myapp",)) == {
        "domain": "go.example",
        "title": "Spring",
        "tags": ["b", "a"],
        "expires_at": datetime(2026, 1, 1, 10, tzinfo=UTC),
        "external_id": None,
        "ios_url": "myapp://open",
    }


def test_a_password_is_never_among_the_fields():
    """Only its digest becomes one, elsewhere."""
    assert checked_fields({"password": "secret", "title": "a"}) == {"title": "a"}


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_reserved_keys_are_refused_in_any_case(key):
    """What browsers ask every host for is nobody's link."""
    with pytest.raises(InvalidInput):
        unreserved(key.upper())


def test_a_hosts_path_is_no_key():
    """Also in other case; another word passes."""
    assert unreserved("spring", {"login"}) == "spring"
    with pytest.raises(InvalidInput, match="route at /login"):
        unreserved("LogIn", {"login"})


def test_a_link_ends_after_it_starts():
    """At the same moment it would never be open."""
    with pytest.raises(InvalidInput) as refused:
        check_link(msgspec.structs.replace(LINK, starts_at=NOW, expires_at=NOW))

    assert refused.value.where == "expires_at"


def test_random_keys_have_no_letters_that_look_alike():
    """Large and small ones are mixed where case matters, and only small ones are used where it does not."""
    keys = [random_key(n * 0x9E3779B97F4A7C15 % 2**62) for n in range(1, 500)]
    folded = [random_key(n * 0x9E3779B97F4A7C15 % 2**62, case_sensitive=False) for n in range(1, 500)]

    assert all(KEY.fullmatch(key) and len(key) == 7 for key in keys + folded)
    assert set("".join(keys)) & set("l1IO0") == set()
    assert set("".join(folded)) <= set("abcdefghjkmnpqrstuvwxyz23456789")
    assert len(set(keys)) == len(set(folded)) == 499


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        pytest.param("Bücher.example", "xn--bcher-kva.example", id="letters"),
        pytest.param("bücher.example:8000.", "xn--bcher-kva.example:8000", id="with a port"),
    ],
)
def test_a_domain_is_kept_as_browsers_ask_for_it(domain, expected):
    """In punycode: no request names the letters that it stands for."""
    assert checked_domain(domain) == expected


@pytest.mark.parametrize("domain", ["bücher.example/x", "a@bücher.example", "bü cher.example", "ü" * 300])
def test_letters_hide_nothing_that_is_no_host_name(domain):
    """An address, a name before the host, a blank and too long a label are refused as without them."""
    with pytest.raises(InvalidInput, match="give a host name"):
        checked_domain(domain)


@pytest.mark.parametrize("domain", ["go.example:8000", "xn--bcher-kva.example", "127.0.0.1"])
def test_a_domain_may_have_a_port(domain):
    """Development servers have one."""
    assert checked_domain(domain) == domain
