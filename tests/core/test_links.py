"""Where a short link leads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goodanalytics.core import urls
from goodanalytics.core.campaigns import CLICK_IDS
from goodanalytics.core.links import (
    ALPHABET,
    MAX_DESTINATION,
    Link,
    ascii_form,
    checked_key,
    checked_url,
    destination,
)
from goodanalytics.errors import InvalidInput

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CLICK = UUID("0190a000-0000-7000-8000-000000000001")
STRANGER = "0190ffff-0000-7000-8000-00000000ffff"


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


def leads_to(url: str = "https://shop.test/p", query: str = "", **facts: Any) -> str:
    """The destination without the click's id, which must be the last parameter."""
    address, hash_mark, fragment = destination(link(url, **facts), query, CLICK).partition("#")
    bridge = f"ga_id={CLICK}"
    assert address.endswith(bridge)
    return address[: -len(bridge)].rstrip("?&") + hash_mark + fragment


@pytest.mark.parametrize(
    ("url", "query", "utm", "expected"),
    [
        pytest.param("https://shop.test", "", {}, "https://shop.test", id="nothing else"),
        pytest.param("https://shop.test/?b=2&a=1", "", {}, "https://shop.test/?b=2&a=1", id="order kept"),
        pytest.param("https://shop.test/?flag&e=", "", {}, "https://shop.test/?flag&e=", id="a flag stays a flag"),
        pytest.param("https://shop.test/?a=1&a=2", "", {}, "https://shop.test/?a=1&a=2", id="repeated names stay"),
        pytest.param("https://shop.test/?s=a%2Bb+c%20d&x=%zz", "", {}, "https://shop.test/?s=a%2Bb+c%20d&x=%zz", id="bytes kept"),
        pytest.param("https://shop.test/?a=1&&b=2", "", {}, "https://shop.test/?a=1&&b=2", id="also odd ones"),
        pytest.param("https://shop.test/p?a=1#top", "", {}, "https://shop.test/p?a=1#top", id="fragment kept"),
        pytest.param("https://shop.test/#/r?x=1", "", {}, "https://shop.test/#/r?x=1", id="hash route kept"),
        pytest.param("https://shop.test/?ga_id=old&a=1", "", {}, "https://shop.test/?a=1", id="an old ga_id goes"),
        pytest.param("https://shop.test/?GA_ID=old&ga_id[]=x", "", {}, "https://shop.test/", id="in any spelling"),
        pytest.param("https://shop.test/", "", {"utm_source": "n l"}, "https://shop.test/?utm_source=n+l", id="link's UTM"),
        pytest.param("https://shop.test/?utm_source=a&b=1", "", {"utm_source": "l"}, "https://shop.test/?b=1&utm_source=l", id="link beats address"),
        pytest.param("https://shop.test/", "utm_source=r", {"utm_source": "l"}, "https://shop.test/?utm_source=r", id="request beats link"),
        pytest.param("https://shop.test/?utm_source=a", "utm_source=r", {"utm_source": "l"}, "https://shop.test/?utm_source=r", id="request beats both"),
        pytest.param("https://shop.test/?utm_source=a", "utm_source=r", {}, "https://shop.test/?utm_source=a", id="address alone stays"),
        pytest.param("https://shop.test/?a=1", "a=2&b=3", {}, "https://shop.test/?a=1&b=3", id="address beats request"),
        pytest.param("https://shop.test/", "b=2&a=1", {"utm_medium": "m"}, "https://shop.test/?utm_medium=m&b=2&a=1", id="in their order"),
        pytest.param("https://shop.test/", "a=1&a=2", {}, "https://shop.test/?a=1", id="first of a name"),
        pytest.param("https://shop.test/", "n=%C3%A9&p=a%20b%26c", {}, "https://shop.test/?n=%C3%A9&p=a+b%26c", id="encoded again"),
    ],
)  # fmt: skip
def test_parameters_are_appended(url: str, query: str, utm: dict[str, str], expected: str) -> None:
    """The address stays as it is; UTM, then what was asked with, then the click."""
    assert leads_to(url, query, **utm) == expected


def test_with_nothing_else_only_the_click_is_added() -> None:
    """The plainest link has exactly one parameter."""
    assert destination(link("https://shop.test/p"), "", CLICK) == f"https://shop.test/p?ga_id={CLICK}"


@pytest.mark.parametrize(
    "query",
    [
        *(f"{name}=x" for name in ("via", "ref", "qr", "s")),
        *(f"{name}=x" for name in CLICK_IDS),
        "GCLID=x",
        f"ga_id={STRANGER}",
        f"GA_ID={STRANGER}",
        f"ga_id[]={STRANGER}",
        f"g%61_id={STRANGER}",
        "=x",
        "",
        "&&&",
        "a" * 65 + "=x",
        "a=" + "x" * 513,
        "a=%0d%0aSet-Cookie:x=1",
        "a%00=1",
        "a=%e2%80%ae",
    ],
)
def test_what_is_not_passed_on(query: str) -> None:
    """Our own parameters, click ids of platforms, what is too long and what nobody can print stay behind."""
    assert leads_to(query=query) == "https://shop.test/p"


def test_ten_parameters_are_passed_on() -> None:
    """The first ten that may pass do; 64 characters of name and 512 of value are allowed."""
    query = "&".join(["gclid=x", *(f"p{n}=1" for n in range(15))])

    assert leads_to(query=query) == "https://shop.test/p?" + "&".join(f"p{n}=1" for n in range(10))
    assert leads_to(query="a" * 64 + "=" + "x" * 512).endswith("x" * 512)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.test/straße?q=日本", "https://shop.test/stra%C3%9Fe?q=%E6%97%A5%E6%9C%AC"),
        ("https://shop.test/a#día", "https://shop.test/a#d%C3%ADa"),
        ("https://shop.test/a%20b", "https://shop.test/a%20b"),
        ("https://shop.test/\r\nSet-Cookie: x=1", "https://shop.test/%0D%0ASet-Cookie:%20x=1"),
        ("https://shop.test/\x00\ud800", "https://shop.test/%00%3F"),
    ],
)
def test_the_address_fits_a_header(url: str, expected: str) -> None:
    """Other letters are percent-encoded, and so are line breaks, should one ever get this far."""
    assert leads_to(url) == expected


def test_a_link_expires_at_its_moment() -> None:
    """From its time on a link is over; without a time it never is."""
    second = timedelta(seconds=1)

    assert [link(expires_at=NOW).is_expired(NOW + d) for d in (-second, 0 * second, second)] == [
        False,
        True,
        True,
    ]
    assert not link().is_expired(NOW + timedelta(days=10_000))


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


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.test",
        "http://shop.test:8080/p?a=1#x",
        "https://shop.test/ü",
        "https://münchen.test/",
        "https://[2001:db8::1]/",
    ],
)
def test_usable_destinations(url: str) -> None:
    """Any absolute http or https address will do."""
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "not-a-url", "ftp://shop.test/", "javascript:alert(1)", "data:text/html,x", "https://", "http:/no-host", "//shop.test/",
        "/path", "https://shop.test/a b", "https://shop.test/\r\nX: 1", "https://a\\@shop.test/", "https://[::1", "https://shop.test:99999/",
        "https://" + "a" * 300 + ".test/", "https://shop.test/" + "x" * 2_083, "https://shop.test/" + "ü" * 1_500,
    ],
)  # fmt: skip
def test_unusable_destinations(url: str) -> None:
    """What no browser could open, or no header carry, is refused."""
    with pytest.raises(InvalidInput, match="absolute http or https"):
        checked_url(url)


# Laws ----------------------------------------------------------------------------------------------------------------

words = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
long_words = st.text(st.sampled_from("aé日🙂"), min_size=200, max_size=255)
destinations = st.builds(
    lambda path, query, fragment: f"https://shop.test/{path}" + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else ""),
    words,
    words | st.sampled_from(["a=1&b=2", "ga_id=x&a", "x=1;ga_id=2", "a&&b", "q=" + "ü" * 900]),
    words,
).filter(lambda url: _is_usable(url))  # fmt: skip
queries = st.lists(
    st.tuples(words | st.sampled_from(["ga_id", "GA_ID", "ga_id[]", "utm_source", "https://evil.test"]), words | long_words), max_size=14
).map(lambda pairs: "&".join(f"{quote_plus(n)}={quote_plus(v)}" for n, v in pairs)) | st.text(max_size=60)  # fmt: skip


def _is_usable(url: str) -> bool:
    try:
        return checked_url(url) == url
    except InvalidInput:
        return False


@settings(deadline=None, max_examples=300)
@given(destinations, queries, st.none() | words.map(str.strip) | long_words, st.none() | long_words)
@example(
    "https://shop.test/?q=" + "ü" * 900,
    "&".join(f"p{n}=" + "%F0%9F%99%82" * 255 for n in range(10)),
    "🙂" * 255,
    "🙂" * 255,
)
@example("https://shop.test/", f"x=1;ga_id={STRANGER}", None, None)
def test_laws_of_the_destination(url: str, query: str, source: str | None, term: str | None) -> None:
    """Own host, own path, own query and fragment; one ga_id, read back by the landing; ASCII; at most 8 kB."""
    found = destination(link(url, utm_source=source, utm_term=term), query, CLICK)
    before, after = urlsplit(ascii_form(url)), urlsplit(found)

    assert (after.scheme, after.netloc, after.path) == (before.scheme, before.netloc, before.path)
    assert after.fragment == before.fragment
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    assert len(found) <= MAX_DESTINATION
    in_query = urls.parameters(found.partition("#")[0])
    assert [value for name, value in in_query if name == "ga_id"] == [str(CLICK)]
    replaced = {name for name, value in (("utm_source", source), ("utm_term", term)) if value}
    own = [
        p
        for p in before.query.split("&")
        if before.query and not {n for n, _ in urls.parameters(f"?{p}")} & {"ga_id", *replaced}
    ]
    assert after.query.startswith("&".join(own))
    passed = parse_qsl(after.query.removeprefix("&".join(own)), keep_blank_values=True)
    assert len(passed) <= 10 + 5 + 1
