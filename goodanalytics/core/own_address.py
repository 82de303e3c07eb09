"""
The address of a link itself, and whether the link leads back to it: round and round, until the browser gives up.

Rules of this file
1. Known when a link is written is its own address alone. Not found out is a circle over other links, over another server that
   leads back, or over another name of this one; nor a domain's `expired_url` that is a link which ends itself, nor what a
   setting that changes later (`link_domains`, a domain's case rule) makes of an address.
2. Whatever stands behind the key, path or query, it is the same link. So is the key written in another way: percent-encoded, after
   `.` and `..`, in other case where that does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from urllib.parse import unquote

from goodanalytics.core import urls
from goodanalytics.core.links import Domain, Link
from goodanalytics.errors import InvalidInput

Prefix = Callable[[str], str]
"""Below which path the links of a domain are served; empty where every path is a link's."""

LEADING = frozenset({"domain", "key", "url", "ios_url", "android_url", "rules", "variants", "expired_url"})
"""Fields of a link that say where it is or where it leads."""


def prefix_of(domain: str, link_domains: Collection[str], link_path: str) -> str:
    """The prefix of *domain* by the settings of these names; a link domain may be named with its port or without."""
    return link_path if {domain, domain.partition(":")[0]}.isdisjoint(link_domains) else ""


def searched_address(said: str, link_path: str) -> str:
    """
    The part of a domain and key that somebody looks for who gives a short address as it was copied or printed.

    >>> searched_address("https://shop.example/l/tea?qr=1", "/l"), searched_address("go.example/tea", "/l")
    ('shop.example/tea', 'go.example/tea')
    """
    bare = said.partition("://")[2] or said
    host, below, key = bare.partition("?")[0].partition(f"{link_path}/")
    return f"{host}/{key}" if below else host


def check_link_leads_on(link: Link, domain: Domain, prefix: str) -> None:
    """
    Let a *link* pass that leads away from itself.

    Args:
        domain: The link's; its case rule counts.
        prefix: See `Prefix`.

    Raises:
        InvalidInput: One of its addresses is its own; `where` says which one.
    """
    for where, url in _led_to(link):
        below = _below(url, link.domain, prefix)
        if below and domain.stored_key(below[0]) == link.key:
            raise InvalidInput(
                f"{where} is {url[:80]!r}, which is this short link itself: browsers would go round in circles. Name the page "
                "that it shall lead to",
                where=where,
            )


def check_domain_leads_on(domain: Domain, prefix: str) -> None:
    """
    Let a *domain* pass whose root and unknown keys lead away from it.

    Args:
        prefix: See `Prefix`.

    Raises:
        InvalidInput: `root_url` is the root itself, or `not_found_url` an address that is only found if a link has it.
    """
    if domain.root_url is not None and not prefix and _below(domain.root_url, domain.host, prefix) == []:
        raise InvalidInput(
            f"root_url is {domain.root_url[:80]!r}, which is the domain itself: browsers would go round in circles. Name a page "
            "elsewhere, or a link",
            where="root_url",
        )
    if domain.not_found_url is not None and _below(domain.not_found_url, domain.host, prefix) is not None:
        raise InvalidInput(
            f"not_found_url is {domain.not_found_url[:80]!r}, which is a short address of this domain: if no link has it, browsers "
            "would go round in circles. Name a page that is none of its links",
            where="not_found_url",
        )


def _led_to(link: Link) -> Iterator[tuple[str, str]]:
    """Every address that *link* may lead to, and its name in an error."""
    for name in ("url", "ios_url", "android_url", "expired_url"):
        if url := getattr(link, name):
            yield name, url
    for number, rule in enumerate(link.rules):
        yield f"rules[{number}].url", rule.url
    for number, variant in enumerate(link.variants):
        yield f"variants[{number}].url", variant.url


def _below(url: str, host: str, prefix: str) -> list[str] | None:
    """The steps of *url*'s path from where *host*'s links are; `None` where no link of it can be."""
    there = urls.parts(url)
    # A request with a port is answered by the links of the host without it too.
    if there.host is None or urls.parts(f"https://{host}").host not in (
        there.host,
        there.host.partition(":")[0],
    ):
        return None
    steps, start = _steps(there.path), _steps(prefix)
    return steps[len(start) :] if steps[: len(start)] == start else None


def _steps(path: str) -> list[str]:
    """The steps of *path* as browsers ask for them and servers read them."""
    steps: list[str] = []
    for step in unquote(path).split("/"):
        if step == "..":
            steps[-1:] = []
        elif step not in ("", "."):
            steps.append(step)
    return steps


__all__ = ["LEADING", "Prefix", "check_domain_leads_on", "check_link_leads_on", "prefix_of"]
