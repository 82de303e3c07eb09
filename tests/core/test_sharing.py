"""Share addresses: each network's own, percent-encoded, with the link whole and marked."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from goodanalytics.core.campaigns import PLATFORM_MEDIUMS
from goodanalytics.core.sharing import NETWORKS, marked_as, share_urls, shared_at
from goodanalytics.errors import InvalidInput

LINK = "https://go.example/spring"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("x", "https://x.com/intent/tweet?text=A%20%26%20B%2B&url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dx"),
        (
            "facebook",
            "https://www.facebook.com/sharer/sharer.php?u=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dfacebook",
        ),
        (
            "linkedin",
            "https://www.linkedin.com/sharing/share-offsite/?url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dlinkedin",
        ),
        ("whatsapp", "https://wa.me/?text=A%20%26%20B%2B%20https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dwhatsapp"),
        (
            "telegram",
            "https://t.me/share/url?url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dtelegram&text=A%20%26%20B%2B",
        ),
        (
            "reddit",
            "https://www.reddit.com/submit?url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dreddit&title=A%20%26%20B%2B",
        ),
        (
            "bluesky",
            "https://bsky.app/intent/compose?text=A%20%26%20B%2B%20https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dbluesky",
        ),
        (
            "threads",
            "https://www.threads.com/intent/post?text=A%20%26%20B%2B&url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dthreads",
        ),
        (
            "mastodon",
            "https://share.joinmastodon.org/#text=A%20%26%20B%2B%20https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dmastodon",
        ),
        (
            "pinterest",
            "https://www.pinterest.com/pin/create/button/?url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dpinterest&description=A%20%26%20B%2B",
        ),
        (
            "email",
            "mailto:?subject=A%20%26%20B%2B&body=A%20%26%20B%2B%20https%3A%2F%2Fgo.example%2Fspring%3Fs%3Demail",
        ),
        (
            "twitter",
            "https://x.com/intent/tweet?text=A%20%26%20B%2B&url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dx",
        ),
        ("copy", "https://go.example/spring"),
    ],
)
def test_the_address_of_a_network(name, address):
    """Each has the form that the network documents, with blanks as %20 and the link inside encoded whole."""
    assert share_urls(LINK, "A & B+")[name] == address


def test_every_network_is_in_the_table_above():
    """The original's eight names are there, and nothing is untested."""
    told = set(share_urls(LINK, "A"))

    assert told == set(NETWORKS) | {"twitter", "copy"}
    assert {"twitter", "facebook", "linkedin", "whatsapp", "telegram", "reddit", "email", "copy"} <= told


def test_a_link_alone_is_shared_without_words():
    """No empty parameters and no blank before the link."""
    told = share_urls(LINK)

    assert told["whatsapp"] == "https://wa.me/?text=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dwhatsapp"
    assert told["x"] == "https://x.com/intent/tweet?url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dx"
    assert told["email"] == "mailto:?body=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Demail"


def test_everything_that_can_be_said_is_said():
    """Words of the host's own, a picture, a name, hashtags and the reader's server."""
    told = share_urls(
        LINK, "Title", text="Words", image="https://cdn.example/a.png", via="@Shop", hashtags=["spring", "#sale"],
        mastodon="Chaos.Social",
    )  # fmt: skip

    assert parse_qs(urlsplit(told["x"]).query) == {
        "text": ["Words"],
        "url": [f"{LINK}?s=x"],
        "via": ["Shop"],
        "hashtags": ["spring,sale"],
    }
    assert parse_qs(urlsplit(told["pinterest"]).query)["media"] == ["https://cdn.example/a.png"]
    assert parse_qs(urlsplit(told["reddit"]).query)["title"] == ["Title"]
    assert told["mastodon"] == (
        "https://chaos.social/share?text=Words%20https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dmastodon"
    )


@pytest.mark.parametrize(
    ("name", "most"), [("bluesky", 300), ("mastodon", 500), ("x", 280), ("threads", 500), ("reddit", 300)]
)
def test_words_are_cut_and_the_link_is_not(name, most):
    """A network cuts what is too long at its end, where the link is; ours is short enough before."""
    address = share_urls(LINK, "é" * 5_000, via="shop", hashtags=["a"])[name]

    parts = urlsplit(address)
    told = parse_qs(parts.query or parts.fragment)
    words = (told.get("text") or told["title"])[0]
    joined = words if name in ("bluesky", "mastodon") else f"{words} {'x' * 23} via @shop #a"[:most]
    assert f"{LINK}?s={name}" in unquote(address)
    assert len(words) <= most
    assert len(joined) <= most
    assert len(address) < 8_000


def test_an_x_post_has_room_for_all_of_it():
    """Words, the address as 23 characters, the name and the hashtags are 280 together."""
    words = parse_qs(urlsplit(share_urls(LINK, "w" * 400, via="shop", hashtags=["ab"])["x"]).query)["text"][0]

    assert len(words) + 1 + 23 + len(" via @shop") + len(" #ab") == 280


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"short_url": "javascript:alert(1)"}, id="a link that is none"),
        pytest.param(
            {"short_url": LINK, "image": "data:image/png;base64,AA"}, id="a picture that is not on the web"
        ),
        pytest.param({"short_url": LINK, "via": "a&b"}, id="a name that is two parameters"),
        pytest.param({"short_url": LINK, "hashtags": ["a,b"]}, id="a hashtag that is two"),
        pytest.param({"short_url": LINK, "hashtags": ["a"] * 11}, id="too many hashtags"),
        pytest.param({"short_url": LINK, "mastodon": "evil.example/x?"}, id="a server with a path"),
        pytest.param({"short_url": LINK, "mastodon": "user@evil.example"}, id="a server with a user"),
    ],
)
def test_what_could_lead_elsewhere_is_refused(wrong):
    """Nothing that a host passes on from somebody else chooses another address."""
    with pytest.raises(InvalidInput) as refused:
        share_urls(**wrong)

    assert refused.value.where in wrong


def test_line_breaks_cannot_add_headers_to_a_mail():
    """A title with line breaks becomes one line (RFC 6068, section 7)."""
    assert "%0A" not in share_urls(LINK, "a\r\nBcc: b@example.com")["email"]


@pytest.mark.parametrize(
    ("url", "marked"),
    [
        ("https://go.example/a", "https://go.example/a?s=x"),
        ("https://go.example/a?b=1", "https://go.example/a?b=1&s=x"),
        ("https://go.example/a?s=reddit&b=1", "https://go.example/a?b=1&s=x"),
        ("https://go.example/a#top", "https://go.example/a?s=x#top"),
    ],
)
def test_a_link_carries_one_marker(url, marked):
    """A link that is shared again says where it was shared last."""
    assert marked_as(url, "x") == marked


@pytest.mark.parametrize("name", NETWORKS)
def test_a_marker_is_read_back(name):
    """A click on a shared link has the network's platform and medium, the ones that its referrer would have."""
    query = urlsplit(marked_as(LINK, name)).query

    platform, medium = shared_at(query) or ("", "")
    assert medium == PLATFORM_MEDIUMS.get(platform, "email")
    assert platform in PLATFORM_MEDIUMS or name == "email"


@pytest.mark.parametrize("query", ["", "a=1", "s=", "s=nonsense", "s", "x&" * 300 + "s=x"])
def test_what_is_no_marker_of_ours_says_nothing(query):
    """Other people's `s` parameters name no source, and the number of parameters that are looked at is bounded."""
    assert shared_at(query) is None


def test_a_host_can_leave_the_marker_out():
    """The link is then shared as it is."""
    assert unquote(share_urls(LINK, marked=False)["whatsapp"]) == f"https://wa.me/?text={LINK}"
