"""Addresses that links lead to."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote_plus, unquote, urlsplit
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from goodanalytics.core import urls
from goodanalytics.core.campaigns import CLICK_IDS
from goodanalytics.core.destinations import (
    MAX_DESTINATION,
    MAX_PASSED_PATH,
    NEVER_SCHEMES,
    UTM,
    ascii_form,
    checked_destination,
    checked_url,
    forwarded_path,
    target,
)
from goodanalytics.errors import InvalidInput

CLICK = UUID("0190a000-0000-7000-8000-000000000001")
STRANGER = "0190ffff-0000-7000-8000-00000000ffff"


def leads_to(url: str = "https://shop.test/p", query: str = "", **facts: Any) -> str:
    """The destination without the click's id, which must be the last parameter."""
    address, hash_mark, fragment = target(url, [*facts.items()]).address(CLICK, query).partition("#")
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
    assert target("https://shop.test/p").address(CLICK) == f"https://shop.test/p?ga_id={CLICK}"


@pytest.mark.parametrize(
    "query",
    [
        *(f"{name}=x" for name in ("via", "ref", "qr", "s")),
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
    """Our own parameters, what is too long and what nobody can print stay behind."""
    assert leads_to(query=query) == "https://shop.test/p"


def test_ten_parameters_are_passed_on() -> None:
    """The first ten that may pass do; 64 characters of name and 512 of value are allowed."""
    query = "&".join(["via=x", *(f"p{n}=1" for n in range(15))])

    assert leads_to(query=query) == "https://shop.test/p?" + "&".join(f"p{n}=1" for n in range(10))
    assert leads_to(query="a" * 64 + "=" + "x" * 512).endswith("x" * 512)


@pytest.mark.parametrize("name", [*CLICK_IDS, "GCLID"])
def test_click_ids_are_passed_on(name: str) -> None:
    """The ad platform's own tag at the destination finds its click id, however many parameters stand before it."""
    many = "&".join(f"p{n}=1" for n in range(15))

    assert leads_to(query=f"{many}&{name}=Cj0-x_1").endswith(f"&p9=1&{name}=Cj0-x_1")


@pytest.mark.parametrize("query", ["flag", "a=", "a=1;b=2"])
def test_parameters_keep_their_form(query: str) -> None:
    """A flag stays a flag, an empty value empty, and a semicolon is no border."""
    assert leads_to(query=query) == f"https://shop.test/p?{query.replace(';', '%3B').replace('=2', '%3D2')}"


def test_all_the_room_is_used() -> None:
    """An address of three times its bytes, with what fits beside it, ends just below 8 kB."""
    query = "&".join(
        f"{name}={'x' * size}"
        for name, size in zip("abcdefghij", (512,) * 5 + (300, 60, 16, 4, 1), strict=True)
    )
    found = target("https://shop.test/#" + "ü" * 1_000).address(CLICK, query)

    assert MAX_DESTINATION - 8 < len(found) <= MAX_DESTINATION


def test_what_is_too_long_is_left_out_by_rank() -> None:
    """Where room is short the link's UTM parameters stay, then click ids; other parameters go first, short ones fit in."""
    wide = "é" * 255  # six letters each
    url = "https://shop.test/" + "ü" * 800
    found = leads_to(url, f"a={wide}&b=1&gclid={'g' * 400}", utm_source=wide, utm_medium="m")

    assert [name for name, _ in parse_qsl(urlsplit(found).query)] == [
        "utm_source",
        "utm_medium",
        "b",
        "gclid",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "mailto:sales@shop.test?subject=Hi",
            "mailto:sales@shop.test?subject=Hi",
            id="no hierarchy, nothing added",
        ),
        pytest.param("tel:+15550100", "tel:+15550100", id="telephone"),
        pytest.param(
            "shop://item/7?a=1", f"shop://item/7?a=1&b=2&ga_id={CLICK}", id="an app learns the click"
        ),
        pytest.param(
            "HTTPS://Shop.test/p", f"HTTPS://Shop.test/p/x?b=2&ga_id={CLICK}", id="the web in capitals"
        ),
        pytest.param(
            "intent://item/7#Intent;scheme=shop;end",
            f"intent://item/7?b=2&ga_id={CLICK}#Intent;scheme=shop;end",
            id="Android intent",
        ),
    ],
)
def test_apps(url: str, expected: str) -> None:
    """An app's address gets parameters where it can hold them, and no path."""
    assert target(url).address(CLICK, "b=2", "/x") == expected


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://münchen.test/straße", "xn--mnchen-3ya.test"),
        ("https://bücher.test:8443", "xn--bcher-kva.test:8443"),
        ("https://me@bücher.test/", "me@xn--bcher-kva.test"),
    ],
)
def test_hosts_are_in_punycode(url: str, host: str) -> None:
    """A host of other letters is written as every client, not only a browser, finds it."""
    assert urlsplit(target(url).address(CLICK)).netloc == host


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", ""),
        ("/", ""),
        ("/a", "/a"),
        ("a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a b/ü", "/a%20b/%C3%BC"),
        ("/a?b#c", "/a%3Fb%23c"),
        ("/100%/a;v=1/x.tar.gz", "/100%25/a;v=1/x.tar.gz"),
        ("/.well-known", "/.well-known"),
        ("/a%20b/%2541", "/a%2520b/%252541"),
        ("/@me/a:b", "/@me/a:b"),
        ("/" + "a" * (MAX_PASSED_PATH - 1), "/" + "a" * (MAX_PASSED_PATH - 1)),
    ],
)
def test_paths_that_are_forwarded(rest: str, expected: str) -> None:
    """A path follows the destination's own, encoded once."""
    assert forwarded_path(rest) == expected


@pytest.mark.parametrize(
    "rest",
    [
        "/..", "/../a", "/a/../b", "/a/..", "/.", "/a/./b", "/...", "/ ..", "/.. /a", "//", "//evil.test", "/a//b", "/a//",
        "\\evil.test", "/\\evil.test", "/a\\..\\b", "/%2e%2e/a", "/%2E./a", "/%252e%252e", "/%25252e%25252e/", "/a%2f..%2fb",
        "/%2f%2fevil.test", "/%5cevil.test", "/%255c", "/..;/a", "/..;v=1", "/%2e%2e%3b/a", "/;/a", "/\t..", "/a\r\nX: 1", "/\x00",
        "/a%00", "/a%0d%0aX", "/．．/a", "/‥/a", "/a\ufffd", "/a\u202eb", "/%c0%ae%c0%ae/", "/" + "a" * MAX_PASSED_PATH,
        "/%" + "25" * 9 + "2e2e", "/" + "ü" * 200,
    ],
)  # fmt: skip
def test_paths_that_are_not(rest: str) -> None:
    """Whatever any server on the way could read as a step up, an empty step or another host is refused."""
    assert forwarded_path(rest) is None


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


@pytest.mark.parametrize("url", ["shop://item/7", "SHOP://item", "mailto:a@b.test", "shop:item"])
def test_app_schemes_that_are_allowed(url: str) -> None:
    """An app's address is a destination where the host allows its scheme."""
    assert checked_destination(url, app_schemes=("shop", "mailto")) == url


@pytest.mark.parametrize(
    "url", ["other://item", "shop:", "shop://", "shop:///", "shop", "shop://a b", "sho\tp:x y", "//shop"]
)
def test_app_schemes_that_are_not(url: str) -> None:
    """Another scheme, or an address without a place, is refused, and the message names what would do."""
    with pytest.raises(InvalidInput, match="or one that starts with shop:") as caught:
        checked_destination(url, "rules[0].url", ("shop",))

    assert caught.value.where == "rules[0].url"


@pytest.mark.parametrize("scheme", sorted(NEVER_SCHEMES - {"http", "https"}))
def test_no_setting_allows_a_dangerous_scheme(scheme: str) -> None:
    """What runs or shows the address itself is refused, whatever the host's settings say, in capitals too."""
    for url in (f"{scheme}:alert(1)", f"{scheme.title()}://x.test/"):
        with pytest.raises(InvalidInput):
            checked_destination(url, app_schemes=(scheme,))


# Laws ----------------------------------------------------------------------------------------------------------------

words = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
long_words = st.text(st.sampled_from("aé日🙂"), min_size=200, max_size=255)
hosts = st.sampled_from(
    ["shop.test", "shop.test:8443", "me:pw@shop.test", "bücher.test", "[2001:db8::1]", "evil.test@shop.test"]
)
destinations = st.builds(
    lambda host, path, query, fragment: f"https://{host}/{path}" + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else ""),
    hosts,
    words,
    words | st.sampled_from(["a=1&b=2", "ga_id=x&a", "x=1;ga_id=2", "a&&b", "q=" + "ü" * 900, "utm_source=own"]),
    words,
).filter(lambda url: _is_usable(url))  # fmt: skip
names = words | st.sampled_from(
    ["ga_id", "GA_ID", "ga_id[]", "utm_source", "https://evil.test", "gclid", "fbclid"]
)
queries = st.lists(st.tuples(names, words | long_words), max_size=14).map(
    lambda pairs: "&".join(f"{quote_plus(n)}={quote_plus(v)}" for n, v in pairs)
) | st.text(max_size=60)
steps = st.sampled_from(
    ["a", "..", ".", "", "\\", "%2e", "%2f", "%5c", "@evil.test", "evil.test", ":", "?", "#", "é"]
)
paths = st.lists(steps | words, max_size=6).map("/".join) | st.text(max_size=40)


def _is_usable(url: str) -> bool:
    try:
        return checked_url(url) == url
    except InvalidInput:
        return False


@settings(deadline=None, max_examples=300)
@given(destinations, queries, paths, st.none() | words.map(str.strip) | long_words, st.none() | long_words)
@example(
    "https://shop.test/?q=" + "ü" * 900,
    "&".join(f"p{n}=" + "%F0%9F%99%82" * 255 for n in range(10)),
    "/" + "a" * (MAX_PASSED_PATH - 1),
    "🙂" * 255,
    "🙂" * 255,
)
@example("https://shop.test/", f"x=1;ga_id={STRANGER}", "", None, None)
def test_laws_of_the_destination(
    url: str, query: str, rest: str, source: str | None, term: str | None
) -> None:
    """Own host, below the own path, own query and fragment; one ga_id, as the landing reads it; ASCII; at most 8 kB."""
    utm = [(name, value) for name, value in (("utm_source", source), ("utm_term", term)) if value]
    path = forwarded_path(rest) or ""
    found = target(url, utm).address(CLICK, query, path)
    before, after = urlsplit(ascii_form(url)), urlsplit(found)

    assert (after.scheme, urls.parts(found).host) == (before.scheme, urls.parts(url).host)
    assert after.path == (before.path.rstrip("/") + path if path else before.path)
    assert not {"..", "."} & set(after.path.removeprefix(before.path.rstrip("/")).split("/"))
    assert after.fragment == before.fragment
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    assert len(found) <= MAX_DESTINATION
    in_query = urls.parameters(found.partition("#")[0])
    assert [value for name, value in in_query if name == "ga_id"] == [str(CLICK)]
    replaced = {name for name, _ in utm}
    own = [
        p
        for p in before.query.split("&")
        if before.query and not {n for n, _ in urls.parameters(f"?{p}")} & {"ga_id", *replaced}
    ]
    assert after.query.startswith("&".join(own))
    passed = parse_qsl(after.query.removeprefix("&".join(own)), keep_blank_values=True)
    assert len(passed) <= 10 + len(CLICK_IDS) + len(UTM) + 1


@settings(deadline=None)
@given(paths)
def test_laws_of_a_forwarded_path(rest: str) -> None:
    """However often a forwarded path is decoded, it stays below where it begins."""
    found = forwarded_path(rest)
    assert found is None or re.fullmatch(r"(?:/[!-.0-~]+)*/?", found)

    while found:
        assert re.fullmatch(r"(?:/[ -.0-~]+)+/?", found)
        plain = found.replace("\\", "/")
        assert not {"..", "."} & {step.partition(";")[0].strip() for step in plain.split("/")}
        assert "//" not in plain
        if (found := unquote(plain)) == plain or not found.isascii():
            break
