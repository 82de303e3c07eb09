"""
Addresses that open a network's own "share this" page, with a short link and words already in it.

Rules of this file
1. Each address is the one that the network documents (the page stands beside it in `NETWORKS`), and everything in it is
   percent-encoded: a blank is `%20`, never `+`, which mail programs and messengers show as it is.
2. The shared link says where it was shared: `?s=whatsapp`. Messengers and apps send no referrer, so this is all that a later
   click tells. The marker is never passed on to the destination, and it is weaker than any UTM parameter and any ad's click id.
   `copy` is the link itself, unmarked, as the original has it.
3. The link is always whole. Where a network cuts a text, ours is cut before: first the words, and never the link.
4. Mastodon has no one address. `share.joinmastodon.org` is the project's own page that asks for the reader's server;
   a host that knows the server names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypedDict
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

from goodanalytics.core.bounds import text as cleaned
from goodanalytics.core.links import checked_url
from goodanalytics.errors import InvalidInput

MARKER: Final = "s"
"""The parameter of a short link that says where it was shared."""

MAX_WORDS: Final = 1_000  # characters of a title or a text; more is cut
MAX_HASHTAGS: Final = 10

_SERVER = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:\d{1,5})?")
_X_NAME = re.compile(r"[A-Za-z0-9_]{1,15}")
_HASHTAG = re.compile(r"\w{1,100}")


@dataclass(frozen=True, slots=True)
class Shared:
    """
    What is shared.

    Attributes:
        title: Of the page; empty when there is none.
        words: What the post shall say; the title unless the host says something else.
        image: Address of a picture, for Pinterest.
        via: A name on X, without `@`.
        hashtags: Without `#`.
        server: Of Mastodon, such as `mastodon.social`; empty asks the reader.
    """

    title: str = ""
    words: str = ""
    image: str = ""
    via: str = ""
    hashtags: tuple[str, ...] = ()
    server: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """
    One way to share.

    Attributes:
        platform, medium: The source of a click on a link that was shared there.
        build: The address for a marked link and what is shared with it.
        page: Where the network documents the address.
    """

    platform: str
    medium: str
    build: Callable[[str, Shared], str]
    page: str


def _address(base: str, **parameters: str) -> str:
    told = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items() if value)
    return f"{base}?{told}" if told else base


def _post(url: str, words: str, most: int = MAX_WORDS * 2) -> str:
    """*words* and then *url*, at most *most* characters as long as *url* alone is."""
    room = most - len(url) - 1
    if len(words) > room:
        words = f"{words[: room - 1].rstrip()}…" if room > 1 else ""
    return f"{words} {url}" if words else url


def _mastodon(url: str, shared: Shared) -> str:
    post = _post(url, shared.words, 500)
    if shared.server:
        return _address(f"https://{shared.server}/share", text=post)
    return f"https://share.joinmastodon.org/#text={quote(post, safe='')}"


def _x(url: str, shared: Shared) -> str:
    # X counts any address as 23 characters, adds the rest by itself, and the whole post may have 280.
    behind = "x" * 23 + (f" via @{shared.via}" if shared.via else "")
    behind += "".join(f" #{tag}" for tag in shared.hashtags)
    words = _post(behind, shared.words, 280).removesuffix(behind).rstrip()
    return _address(
        "https://x.com/intent/tweet", text=words, url=url, via=shared.via, hashtags=",".join(shared.hashtags)
    )


NETWORKS: Final[Mapping[str, Network]] = MappingProxyType(
    {
        "x": Network(
            "twitter", "social", _x, "https://docs.x.com/x-for-websites/post-button/guides/web-intent"
        ),
        "facebook": Network(
            "facebook",
            "social",
            lambda url, _: _address("https://www.facebook.com/sharer/sharer.php", u=url),
            "https://developers.facebook.com/docs/plugins/share-button",
        ),
        "linkedin": Network(
            "linkedin",
            "social",
            lambda url, _: _address("https://www.linkedin.com/sharing/share-offsite/", url=url),
            "https://learn.microsoft.com/linkedin/consumer/integrations/self-serve/plugins/share-plugin",
        ),
        "whatsapp": Network(
            "whatsapp",
            "messaging",
            lambda url, shared: _address("https://wa.me/", text=_post(url, shared.words)),
            "https://faq.whatsapp.com/5913398998672934",
        ),
        "telegram": Network(
            "telegram",
            "messaging",
            lambda url, shared: _address("https://t.me/share/url", url=url, text=shared.words),
            "https://core.telegram.org/widgets/share",
        ),
        "reddit": Network(
            "reddit",
            "social",
            lambda url, shared: _address(
                "https://www.reddit.com/submit", url=url, title=shared.title[:300] or shared.words[:300]
            ),
            "https://www.reddit.com/wiki/submitting",
        ),
        "bluesky": Network(
            "bluesky",
            "social",
            lambda url, shared: _address(
                "https://bsky.app/intent/compose", text=_post(url, shared.words, 300)
            ),
            "https://docs.bsky.app/docs/advanced-guides/intent-links",
        ),
        "threads": Network(
            "threads",
            "social",
            lambda url, shared: _address(
                "https://www.threads.com/intent/post", text=shared.words[:450], url=url
            ),
            "https://developers.facebook.com/documentation/threads/threads-web-intents",
        ),
        "mastodon": Network("mastodon", "social", _mastodon, "https://share.joinmastodon.org/"),
        "pinterest": Network(
            "pinterest",
            "social",
            lambda url, shared: _address(
                "https://www.pinterest.com/pin/create/button/",
                url=url,
                media=shared.image,
                description=shared.words[:500],
            ),
            "https://developers.pinterest.com/docs/web-features/add-ons-overview/",
        ),
        "email": Network(
            "email",
            "email",
            lambda url, shared: _address(
                "mailto:", subject=shared.title or shared.words, body=_post(url, shared.words)
            ),
            "https://www.rfc-editor.org/rfc/rfc6068",
        ),
    }
)
"""The ways to share by the name that the marker carries."""


class ShareFields(TypedDict, total=False):
    """What may be said besides a link and its title; see `share_urls`."""

    text: str | None
    image: str | None
    via: str | None
    hashtags: Sequence[str]
    mastodon: str | None
    marked: bool


def share_urls(
    short_url: str,
    title: str | None = None,
    *,
    text: str | None = None,
    image: str | None = None,
    via: str | None = None,
    hashtags: Sequence[str] = (),
    mastodon: str | None = None,
    marked: bool = True,
) -> dict[str, str]:
    """
    The addresses that share *short_url*, by the name of the network.

    `twitter` is the original's name for `x`, and `copy` is *short_url* itself.

    Args:
        title: Of the page; the subject of an e-mail and the title of a Reddit post.
        text: What the post says; the title when left out.
        image: Address of a picture; Pinterest shows it.
        via: A name on X to mention.
        hashtags: For X; at most ten.
        mastodon: The reader's server, such as `mastodon.social`; they are asked for it when left out.
        marked: Whether the link says where it was shared (`?s=bluesky`).

    Raises:
        InvalidInput: An address, a name on X, a hashtag or a server is not one.

    >>> share_urls("https://go.example/spring", "Spring is here")["telegram"]
    'https://t.me/share/url?url=https%3A%2F%2Fgo.example%2Fspring%3Fs%3Dtelegram&text=Spring%20is%20here'
    """
    link = checked_url(short_url, "short_url")
    heading = cleaned(title, MAX_WORDS) or ""
    shared = Shared(
        title=heading,
        words=cleaned(text, MAX_WORDS) or heading,
        image="" if image is None else checked_url(image, "image"),
        via=_matching("via", (via or "").removeprefix("@"), _X_NAME, "a name on X such as 'example'"),
        hashtags=_hashtags(hashtags),
        server=_matching("mastodon", (mastodon or "").lower(), _SERVER, "a server such as 'mastodon.social'"),
    )
    told = {
        name: network.build(marked_as(link, name) if marked else link, shared)
        for name, network in NETWORKS.items()
    }
    return told | {"twitter": told["x"], "copy": link}


def marked_as(url: str, name: str) -> str:
    """
    *url* with the marker that it was shared at *name*; a marker that it has already is replaced.

    >>> marked_as("https://go.example/spring?a=1#top", "reddit")
    'https://go.example/spring?a=1&s=reddit#top'
    """
    parts = urlsplit(url)
    kept = [part for part in parts.query.split("&") if part and part.partition("=")[0] != MARKER]
    return urlunsplit(parts._replace(query="&".join([*kept, f"{MARKER}={name}"])))


def shared_at(query: str) -> tuple[str, str] | None:
    """
    Platform and medium of the network that the marker in *query* names; `None` without a marker that we make.

    >>> shared_at("a=1&s=whatsapp")
    ('whatsapp', 'messaging')
    """
    for part in query.split("&", 200)[:200]:
        name, _, value = part.partition("=")
        if name == MARKER:
            found = NETWORKS.get(unquote_plus(value))
            return None if found is None else (found.platform, found.medium)
    return None


def _hashtags(tags: Sequence[str]) -> tuple[str, ...]:
    if len(tags) > MAX_HASHTAGS:
        raise InvalidInput(f"hashtags has {len(tags)} words; give at most {MAX_HASHTAGS}", where="hashtags")
    return tuple(
        _matching("hashtags", tag.removeprefix("#"), _HASHTAG, "letters and digits such as 'spring'")
        for tag in tags
    )


def _matching(where: str, value: str, pattern: re.Pattern[str], example: str) -> str:
    if value and not pattern.fullmatch(value):
        raise InvalidInput(f"{where} is {value[:80]!r}; give {example}", where=where)
    return value
