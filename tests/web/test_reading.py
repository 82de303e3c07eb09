"""What a request shows of its visitor, and what it only pretends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.config import Config
from goodanalytics.web.reading import (
    SCOPE_KEY,
    Visit,
    cookies_of,
    headers_of,
    visit_of,
)

SECRET = "for-tests-only-" + "0" * 32
CLICK = "0190a000-0000-7000-8000-000000000001"
CHROME = (
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


def config(**settings_: Any) -> Config:
    defaults: dict[str, Any] = {"secret_key": SECRET, "new_token": lambda: "made-now"}
    return Config(**(defaults | settings_))


def scope_of(
    *headers: tuple[bytes, bytes],
    peer: str | None = "203.0.113.7",
    query: bytes = b"",
    path: str = "/",
    scheme: str = "http",
) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "scheme": scheme,
        "query_string": query,
        "headers": list(headers),
        "client": None if peer is None else (peer, 1234),
    }


def read(*headers: tuple[bytes, bytes], settings_: Config | None = None, **request: Any) -> Visit:
    return Visit(scope_of(*headers, **request), settings_ or config())


# The address ---------------------------------------------------------------------------------------------------------

PROXIES = ["10.0.0.0/8", "192.0.2.1", "2001:db8:ffff::/48"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        pytest.param("203.0.113.7", [b"198.51.100.1"], "203.0.113.7", id="no proxy is not believed"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy that says nothing"),
        pytest.param("10.0.0.1", [b"198.51.100.1"], "198.51.100.1", id="one proxy"),
        pytest.param("10.0.0.1", [b"1.2.3.4, 198.51.100.1"], "198.51.100.1", id="forged on the left"),
        pytest.param("10.0.0.1", [b"10.9.9.9, 198.51.100.1"], "198.51.100.1", id="forged as a proxy"),
        pytest.param("10.0.0.1", [b"1.2.3.4, 198.51.100.1, 192.0.2.1, 10.0.0.2"], "198.51.100.1", id="a chain of proxies"),
        pytest.param("10.0.0.1", [b"1.2.3.4", b"198.51.100.1"], "198.51.100.1", id="two headers are one list"),
        pytest.param("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3", id="only proxies"),
        pytest.param("10.0.0.1", [b"1.2.3.4, unknown, 192.0.2.1"], "192.0.2.1", id="stops at what is no address"),
        pytest.param("10.0.0.1", [b"garbage"], "10.0.0.1", id="garbage"),
        pytest.param("10.0.0.1", [b","], "10.0.0.1", id="nothing between commas"),
        pytest.param("10.0.0.1", [b"198.51.100.1:5678"], "198.51.100.1", id="IPv4 with port"),
        pytest.param("10.0.0.1", [b"[2001:db8::1]:443"], "2001:db8::1", id="IPv6 with port"),
        pytest.param("10.0.0.1", [b'"[2001:DB8::1]"'], "2001:db8::1", id="IPv6 quoted"),
        pytest.param("10.0.0.1", [b"2001:db8::1"], "2001:db8::1", id="IPv6 bare"),
        pytest.param("10.0.0.1", [b"fe80::1%eth0"], "fe80::1", id="IPv6 with zone"),
        pytest.param("10.0.0.1", [b"::ffff:198.51.100.1"], "198.51.100.1", id="IPv4 inside IPv6"),
        pytest.param("::ffff:10.0.0.1", [b"198.51.100.1"], "198.51.100.1", id="a proxy on a dual-stack socket"),
        pytest.param("::ffff:203.0.113.7", [], "203.0.113.7", id="a visitor on a dual-stack socket"),
        pytest.param("2001:db8:ffff::9", [b"198.51.100.1"], "198.51.100.1", id="an IPv6 proxy"),
        pytest.param("10.0.0.1", [b"1.2.3.4\x00, \xff"], "10.0.0.1", id="odd bytes"),
        pytest.param("10.0.0.1", [b"999.1.1.1"], "10.0.0.1", id="no such address"),
        pytest.param("10.0.0.1", [b"1.2.3.4, " * 5_000 + b"198.51.100.1"], "198.51.100.1", id="a very long list"),
        pytest.param(None, [b"198.51.100.1"], None, id="no peer"),
        pytest.param("testclient", [b"198.51.100.1"], None, id="a peer without address"),
    ],
)  # fmt: skip
def test_the_address_is_read_past_our_proxies(
    peer: str | None, forwarded: Sequence[bytes], expected: str | None
) -> None:
    """From the right, past every proxy of ours, to the first address that none of them vouches for."""
    scope = scope_of(*((b"x-forwarded-for", value) for value in forwarded), peer=peer)

    assert Visit(scope, config(trusted_proxies=PROXIES)).address == expected


@pytest.mark.parametrize(
    ("peer", "scheme", "forwarded", "expected"),
    [
        ("203.0.113.7", "http", None, False),
        ("203.0.113.7", "https", None, True),
        ("203.0.113.7", "wss", None, True),
        ("203.0.113.7", "http", b"https", False),
        ("10.0.0.1", "http", b"https", True),
        ("10.0.0.1", "https", b"http", False),
        ("10.0.0.1", "http", b"https, http", True),
        ("10.0.0.1", "https", None, True),
    ],
)
def test_only_a_proxy_says_that_the_outside_is_https(
    peer: str, scheme: str, forwarded: bytes | None, expected: bool
) -> None:
    """`X-Forwarded-Proto` counts from a trusted proxy only, so that nobody else switches Secure on or off."""
    headers = [] if forwarded is None else [(b"x-forwarded-proto", forwarded)]
    visit = read(*headers, peer=peer, scheme=scheme, settings_=config(trusted_proxies=PROXIES))

    assert visit.is_secure == expected


# Cookies and ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"a=1; b=2", {"a": "1", "b": "2"}),
        (b"a=1;b=2;", {"a": "1", "b": "2"}),
        (b"a=1; a=2", {"a": "1"}),
        (b"a=x=y", {"a": "x=y"}),
        (b'a="x y"; b=2', {"a": "x y", "b": "2"}),
        (b'a="x\\"y"', {"a": 'x"y'}),
        (b'a="; b=2', {"a": '"', "b": "2"}),
        (b"novalue; b=2", {"b": "2"}),
        (b"=x; b=2", {"": "x", "b": "2"}),
        (b'b{}d="x"; b=2', {"b{}d": '"x"', "b": "2"}),
        (b"a=\xff\x00; b=2", {"a": "ÿ\x00", "b": "2"}),
        (b"", {}),
        (b";;;", {}),
    ],
)
def test_cookies_are_read_one_by_one(written: bytes, expected: dict[str, str]) -> None:
    """One that cannot be read costs no other; the first of a name counts."""
    assert cookies_of(headers_of([(b"cookie", written)])) == expected


def test_repeated_headers_are_one() -> None:
    """Lists are joined by commas, cookies by semicolons; names are compared in lower case."""
    found = headers_of([(b"Accept", b"a"), (b"accept", b"b"), (b"cookie", b"a=1"), (b"Cookie", b"b=2")])

    assert found == {"accept": "a, b", "cookie": "a=1; b=2"}


@pytest.mark.parametrize("value", [b"abc", b"A-b_9.~", b"x" * 128])
def test_a_known_browser_keeps_its_id(value: bytes) -> None:
    """Its cookie names it, and nothing new is made."""
    visit = read((b"cookie", b"_ga_anon=" + value))

    assert (visit.anonymous_id, visit.is_new) == (value.decode(), False)


@pytest.mark.parametrize(
    "value", [b"", b'""', b"x" * 129, b"\xc3\xa9", b"a\x00b", b"a\x1bb", b"undefined", b"null", b"0"]
)
def test_an_unusable_id_is_replaced(value: bytes) -> None:
    """What cannot be stored, is too long or names nobody makes room for a new id."""
    visit = read((b"cookie", b"_ga_anon=" + value))

    assert (visit.anonymous_id, visit.is_new) == ("made-now", True)


@pytest.mark.parametrize(
    ("query", "cookie", "expected", "landed"),
    [
        (b"", b"", None, False),
        (b"ga_id=" + CLICK.encode(), b"", CLICK, True),
        (b"a=1&ga_id=" + CLICK.encode() + b"&ga_id=x", b"", CLICK, True),
        (b"ga_id=" + CLICK.encode(), b"0190a000-0000-7000-8000-0000000000ff", CLICK, True),
        (b"", CLICK.encode(), CLICK, False),
        (b"ga_id=not-a-uuid", CLICK.encode(), CLICK, False),
        (b"ga_id=00000000-0000-0000-0000-000000000000", b"", None, False),
        (b"xga_id=" + CLICK.encode(), b"", None, False),
        (b"ga_id=%ff%00", b"\xff", None, False),
        (b"\xff\xfe&ga_id=" + CLICK.encode(), b"", CLICK, True),
    ],
)
def test_the_click_comes_from_the_address_then_from_the_cookie(
    query: bytes, cookie: bytes, expected: str | None, landed: bool
) -> None:
    """Only a UUID is a click; the one in the address is the landing's."""
    visit = read((b"cookie", b"_ga_good=" + cookie), query=query)

    assert visit.click_id == (None if expected is None else UUID(expected))
    assert (visit.landed_with is not None) == landed


def test_what_the_middleware_read_is_not_read_again() -> None:
    """A visit in the scope is taken as it is."""
    scope = scope_of()
    visit = scope[SCOPE_KEY] = Visit(scope, config())

    assert visit_of(scope, config()) is visit


# Who is not followed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ((b"sec-gpc", b"1"), "privacy signal"),
        ((b"dnt", b"1"), "privacy signal"),
        ((b"Sec-GPC", b"1"), "privacy signal"),
        ((b"sec-gpc", b"0"), None),
        ((b"dnt", b"0"), None),
        ((b"dnt", b"null"), None),
        ((b"sec-purpose", b"prefetch"), "prefetch"),
        ((b"sec-purpose", b"prefetch;prerender"), "prefetch"),
        ((b"purpose", b"prefetch"), "prefetch"),
        ((b"x-moz", b"prefetch"), "prefetch"),
        ((b"accept", b"text/html"), None),
    ],
)
def test_signals_are_respected(header: tuple[bytes, bytes], expected: str | None) -> None:
    """Global Privacy Control, Do Not Track and prefetching refuse the visit."""
    assert read(header).refusal == expected


def test_privacy_signals_can_be_left_to_the_host() -> None:
    """With `respect_privacy_signals` off the host answers for consent itself."""
    assert read((b"sec-gpc", b"1"), settings_=config(respect_privacy_signals=False)).refusal is None


def fails(_scope: Any) -> bool:
    raise LookupError("the host's rule is broken")


@pytest.mark.parametrize(
    ("rule", "path", "is_excluded"),
    [
        ("/admin", "/admin", True),
        ("/admin", "/admin/users", True),
        ("/admin", "/administrator", False),
        ("/admin", "/x/admin", False),
        ("/admin/", "/admin/users", True),
        ("/app/*/edit", "/app/7/edit", True),
        ("/app/*/edit", "/app/7/view", False),
        ("/*.pdf", "/files/a.pdf", True),
        ("/A", "/a", False),
        (lambda scope: scope["path"].endswith("7"), "/7", True),
        (lambda scope: scope["path"].endswith("7"), "/8", False),
        (fails, "/", True),
    ],
)
def test_excluded_paths(rule: Any, path: str, is_excluded: bool) -> None:
    """Prefixes, patterns and functions; a function that fails excludes, and the host hears of it."""
    errors: list[BaseException] = []
    visit = read(path=path, settings_=config(exclude=[rule], on_error=errors.append))

    assert visit.refusal == ("excluded" if is_excluded else None)
    assert [type(error) for error in errors] == ([LookupError] if rule is fails else [])


# What it came with ---------------------------------------------------------------------------------------------------


def test_the_machine_is_what_its_headers_say() -> None:
    """User agent, hints and language, each bounded."""
    client = read(
        (b"user-agent", CHROME),
        (b"sec-ch-ua", b"Chromium"),
        (b"sec-ch-ua-platform", b'"Linux"' + b"x" * 1_000),
        (b"accept-language", b"de-AT;q=0.9, en"),
    ).client

    assert client.user_agent == CHROME.decode()
    assert len(client.hints["sec-ch-ua-platform"]) == 256
    assert (client.language, client.bot, client.ip) == ("de-AT", None, "203.0.113.7")


def test_a_bot_is_known_by_its_name() -> None:
    """It is marked and not refused: what it did is kept apart."""
    visit = read((b"user-agent", b"Googlebot/2.1"))

    assert visit.client.bot is not None
    assert visit.refusal is None


def test_a_country_counts_only_from_a_configured_header() -> None:
    """Anybody can send the header; only where a CDN strips it from outside is it configured."""
    header = (b"cf-ipcountry", b"DE")

    assert read(header).client.country is None
    assert read(header, settings_=config(geo_headers=["CF-IPCountry"])).client.country == "DE"


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"cookie", b"x-forwarded-for", b"host", b"user-agent", b"accept-language", b"sec-ch-ua", b"cf-ipcountry", b"dnt"]),
            st.binary(max_size=30) | st.sampled_from([b"_ga_anon=", b'_ga_good="', b"[::1", b"\xed\xa0\x80"]),
        ),
        max_size=6,
    ),
    st.binary(max_size=30) | st.binary(max_size=10).map(lambda q: b"ga_id=" + q),
    st.sampled_from([None, "10.0.0.1", "::1", "unix:"]),
)  # fmt: skip
def test_nothing_that_is_sent_breaks_the_reader(
    headers: list[tuple[bytes, bytes]], query: bytes, peer: str | None
) -> None:
    """Any bytes in any header, cookie or query make a visit whose texts can be stored."""
    visit = read(
        *headers,
        query=query,
        peer=peer,
        settings_=config(trusted_proxies=["0.0.0.0/0", "::/0"], geo_headers=["cf-ipcountry"]),
    )
    texts = [
        visit.anonymous_id,
        visit.client.user_agent,
        visit.client.language,
        visit.client.ip,
        visit.client.country,
    ]

    assert not any("\x00" in t for t in texts if t)
    assert visit.workspace_id == UUID(int=0)
