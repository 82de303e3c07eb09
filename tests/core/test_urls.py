"""Addresses are read and tidied the same way everywhere, and nothing that a browser or a liar sends raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core import urls

PARTS = {
    "query and fragment fall away": ("https://App.Acme.COM/pricing?utm=x#hero", "app.acme.com", "/pricing"),
    "slashes are collapsed": ("https://acme.com//docs///guide", "acme.com", "/docs/guide"),
    "an unusual port stays": ("https://acme.com:8443/x", "acme.com:8443", "/x"),
    "https on 443 is default": ("https://acme.com:443/", "acme.com", "/"),
    "http on 80 is default": ("http://acme.com:80", "acme.com", "/"),
    "http on 443 is not": ("http://acme.com:443", "acme.com:443", "/"),
    "a port with zeros": ("http://acme.com:0080/", "acme.com", "/"),
    "an empty port": ("http://acme.com:/", "acme.com", "/"),
    "a relative path": ("not-a-url", None, "/not-a-url"),
    "a fragment alone": ("#/dashboard", None, "/"),
    "nothing": (None, None, "/"),
    "an empty text": ("", None, "/"),
    "a raw path with two slashes is no host": ("//docs//guide", None, "/docs/guide"),
    "case and encoding of a path stay": (
        "https://example.com/Pricing/%7Ealice?utm=x",
        "example.com",
        "/Pricing/%7Ealice",
    ),
    "a trailing slash goes": ("https://acme.com/a/", "acme.com", "/a"),
    "a path of slashes is the root": ("https://acme.com///", "acme.com", "/"),
    "user name and password are no host": ("https://bob:secret@acme.com/x", "acme.com", "/x"),
    "two at signs": ("https://a@b@acme.com/x", "acme.com", "/x"),
    "a backslash ends the host": ("https://evil.example\\@good.example/", "evil.example", "/@good.example"),
    "backslashes as slashes": ("https:\\\\acme.com\\a\\b", "acme.com", "/a/b"),
    "an international name": ("https://BÜCHER.example/ä", "xn--bcher-kva.example", "/ä"),
    "its punycode": ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
    "a sharp s as browsers write it": ("https://straße.example/", "xn--strae-oqa.example", "/"),
    "a dot at the end": ("https://acme.com./", "acme.com", "/"),
    "IPv6": ("http://[2001:DB8:0::1]:8080/x", "[2001:db8::1]:8080", "/x"),
    "IPv6 without its end": ("http://[::1/x", None, "/x"),
    "IPv6 of nonsense": ("http://[zz]/x", None, "/x"),
    "text after IPv6": ("http://[::1]evil/x", None, "/x"),
    "a port of letters": ("http://acme.com:abc/x", None, "/x"),
    "a port too high": ("http://acme.com:65536/x", None, "/x"),
    "a port of huge length": ("http://acme.com:" + "9" * 9999, None, "/"),
    "a host of spaces": ("http://a b/x", None, "/x"),
    "a host of percent signs": ("http://%61.com/x", None, "/x"),
    "no host": ("https:///x", None, "/x"),
    "a script": ("javascript:alert(1)//x", None, "/"),
    "data": ("data:text/html,<b>x", None, "/"),
    "about blank": ("about:blank", None, "/"),
    "an app's address has a path but no host": ("myapp://home/settings?x=1", None, "/settings"),
    "control characters vanish": ("https://ac\x00me.com/a\nb\x00", "acme.com", "/ab"),
    "spaces around": ("  https://acme.com/a  ", "acme.com", "/a"),
    "a lone surrogate": ("https://acme.com/\ud800a", "acme.com", "/a"),
}


@pytest.mark.parametrize(("url", "host", "path"), PARTS.values(), ids=PARTS)
def test_parts(url, host, path):
    """Host and path of an address are normalised by the rules of section 21."""
    found = urls.parts(url)

    assert (found.host, found.path) == (host, path)


def test_the_query_is_kept_as_written():
    """The query is neither decoded nor reordered."""
    assert urls.parts("https://a.com/?b=%20&a=1?#x").query == "b=%20&a=1?"


def test_a_long_path_is_cut_at_a_character():
    """A path fits an index row, and no character is cut in two."""
    path = urls.parts("https://a.com/" + "ä" * 5000).path

    assert path == "/" + "ä" * 1041


CLEAN = {
    "nothing to do": ("https://a.com/x?b=1&a=2", "https://a.com/x?b=1&a=2"),
    "user and password": ("https://bob:pw@a.com/x", "https://a.com/x"),
    "user in an address without scheme": ("//bob:pw@a.com/x", "//a.com/x"),
    "user in another scheme": ("ftp://bob:pw@a.com/x", "ftp://a.com/x"),
    "a token": ("https://a.com/?token=s3&plan=pro", "https://a.com/?plan=pro"),
    "the last parameter": ("https://a.com/?plan=pro&password=x", "https://a.com/?plan=pro"),
    "the only parameter": ("https://a.com/?code=123", "https://a.com/"),
    "an e-mail address": ("https://a.com/?email=bob%40x.com&x", "https://a.com/?x"),
    "upper case": ("https://a.com/?API_KEY=1&a=1", "https://a.com/?a=1"),
    "camel case": ("https://a.com/?resetToken=1&a=1", "https://a.com/?a=1"),
    "hyphens": ("https://a.com/?X-Amz-Signature=1&a=1", "https://a.com/?a=1"),
    "encoded name": ("https://a.com/?%74oken=1&a=1", "https://a.com/?a=1"),
    "in brackets": ("https://a.com/?user[password]=1&token[]=2&a=1", "https://a.com/?a=1"),
    "bytes of the others stay": ("https://a.com/?a=%zz+&&b=é;c", "https://a.com/?a=%zz+&&b=é;c"),
    "after a semicolon": ("https://a.com/?a=1;token=2&b=3", "https://a.com/?a=1&b=3"),
    "a secret in the fragment": ("https://a.com/x#access_token=1", "https://a.com/x"),
    "an anchor": ("https://a.com/x#top", "https://a.com/x"),
    "a hash route": ("https://a.com/x#/settings", "https://a.com/x#/settings"),
    "a hash-bang route": ("https://a.com/#!/settings", "https://a.com/#!/settings"),
    "a secret inside a hash route": ("https://a.com/#/reset?token=1&a=2", "https://a.com/#/reset?a=2"),
    "ours are kept": ("https://a.com/?ga_id=1&via=bob&ref=x", "https://a.com/?ga_id=1&via=bob&ref=x"),
    "click ids are kept": ("https://a.com/?gclid=1&fbclid=2", "https://a.com/?gclid=1&fbclid=2"),
    "a relative address": ("/x?secret=1", "/x"),
    "an app": ("android-app://com.slack/", "android-app://com.slack/"),
    "a script": ("javascript:alert(1)", None),
    "a mail address": ("mailto:bob@example.com", None),
    "nothing": (None, None),
    "blank": ("  \x00 ", None),
    "a blank that a dropped parameter leaves at the end": ("https://a.com/a ?token=1", "https://a.com/a"),
    "a query of blanks before a fragment": ("/x? #top", "/x"),
}


@pytest.mark.parametrize(("url", "expected"), CLEAN.values(), ids=CLEAN)
def test_clean(url, expected):
    """What is stored of an address holds no secret, and otherwise its own bytes."""
    assert urls.clean(url) == expected


@pytest.mark.parametrize("name", sorted(urls.SECRET_PARAMETERS))
def test_every_listed_secret_is_dropped(name):
    """No name of the table is stored, in whatever case."""
    assert urls.clean(f"https://a.com/?{name.upper()}=hunter2&a=1") == "https://a.com/?a=1"


def test_clean_cuts_at_2083_bytes():
    """A long address is cut at a character's boundary."""
    cleaned = urls.clean("https://a.com/" + "€" * 5000)

    assert len(cleaned.encode()) == 2081
    assert cleaned.endswith("€")


def test_a_cut_does_not_make_a_secret():
    """A name that the cut turned into a secret one is dropped as well."""
    url = "https://a.com/?" + "a" * (2083 - 15 - 6) + "&token_of_love=1"

    assert "token" not in urls.clean(url)


text = st.one_of(
    st.text(),
    st.text(alphabet="htps:/?#&;=@[]%.\\ aé€\x00\ud800tokenviaTLDcom0129-_+*"),
    st.builds(
        "{}://{}/{}?{}#{}".format,
        st.sampled_from(["http", "HTTPS", "ftp", "x"]),
        st.text(max_size=20),
        st.text(max_size=20),
        st.text(alphabet="token=&;%[]a1 ", max_size=40),
        st.text(alphabet="/!?token=&;a ", max_size=20),
    ),
    st.integers(2040, 2100).map(lambda n: "https://a.com/?" + "ab&token_x=1;" * (n // 13) + "é" * (n % 13)),
)


@given(text)
def test_clean_is_idempotent(url):
    """Cleaning a clean address changes nothing, and it is never longer than 2,083 bytes of valid UTF-8."""
    once = urls.clean(url)

    assert urls.clean(once) == once
    assert once is None or len(once.encode()) <= urls.MAX_BYTES


@given(text)
def test_nothing_raises(url):
    """Any text can be read, and a path always begins with one slash."""
    found = urls.parts(url)

    assert found.path.startswith("/")
    assert "//" not in found.path
    assert found.host is None or "@" not in found.host
    assert len(urls.parameters(url)) <= urls.MAX_PARAMETERS


@given(text)
def test_parts_of_the_path_are_stable(url):
    """A normalised path normalises to itself."""
    path = urls.parts(url).path

    assert urls.path_of(path) == path


PARAMETERS = {
    "decoded in order": ("https://a.com/?b=1&a=x+y%20z", [("b", "1"), ("a", "x y z")]),
    "lists lose their brackets": ("?utm_source[]=x&a[0]=1", [("utm_source", "x"), ("a", "1")]),
    "ampersands escaped for HTML": ("?a=1&amp;b=2", [("a", "1"), ("amp", ""), ("b", "2")]),
    "a semicolon inside a value": ("?a=x;y", [("a", "x;y")]),
    "invalid percent encoding": ("?a=%zz%ff", [("a", "%zz\ufffd")]),
    "NUL": ("?a=%00b", [("a", "b")]),
    "those of a hash route come last": ("https://a.com/?a=1#/x?b=2", [("a", "1"), ("b", "2")]),
}


@pytest.mark.parametrize(("url", "expected"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters(url, expected):
    """Parameters are decoded with tolerance."""
    assert urls.parameters(url) == expected


def test_only_two_hundred_parameters_are_read():
    """The work for one address is bounded."""
    found = urls.parameters("?" + "&".join(f"a{n}={n}" for n in range(1000)))

    assert found == [(f"a{n}", str(n)) for n in range(200)]


LISTED = {
    "itself": ("acme.com", ["acme.com"], True),
    "its www twin": ("www.acme.com", ["acme.com"], True),
    "the other way round": ("acme.com", ["www.acme.com"], True),
    "another port": ("acme.com:8443", ["acme.com"], True),
    "in capitals": ("acme.com", ["ACME.com"], True),
    "given as an address": ("acme.com", ["https://acme.com/x"], True),
    "a subdomain is another host": ("shop.acme.com", ["acme.com"], False),
    "a star holds subdomains": ("a.shop.acme.com", ["*.acme.com"], True),
    "a star holds the domain": ("acme.com", ["*.acme.com"], True),
    "a star does not hold a longer word": ("evilacme.com", ["*.acme.com"], False),
    "nothing matches nothing": ("acme.com", ["", "*.", " "], False),
    "IPv6 with a port": ("[::1]:8000", ["[::1]"], True),
}


@pytest.mark.parametrize(("host", "patterns", "expected"), LISTED.values(), ids=LISTED)
def test_is_listed(host, patterns, expected):
    """Own hosts are told by name, twin or star."""
    assert urls.is_listed(host, patterns) is expected
