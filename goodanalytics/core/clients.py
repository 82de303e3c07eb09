"""What a request's headers show of the visitor's machine, as a `Client`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from goodanalytics.core import bots
from goodanalytics.core.bounds import text
from goodanalytics.core.hits import Client
from goodanalytics.core.places import from_headers

MAX_USER_AGENT = 512  # characters
MAX_LANGUAGE = 35  # characters; RFC 5646, section 4.4.1
MAX_HINT = 256  # characters

HINTS = tuple(
    f"sec-ch-ua{rest}"
    for rest in (
        "",
        "-mobile",
        "-platform",
        "-platform-version",
        "-model",
        "-full-version-list",
        "-form-factors",
    )
)
"""
The client hints that tell us something; the first comes with every other, else none is believed.

What lies in the log knows them by their places here: new ones go to the end.
"""


def client_of(address: str | None, headers: Mapping[str, str], geo_headers: Iterable[str] = ()) -> Client:
    """
    The machine behind *headers*, whose names are lower case, at *address*.

    Args:
        address: After trusted proxies.
        geo_headers: Those that a trusted CDN writes a country into.
    """
    place = from_headers(headers, geo_headers)
    names = HINTS if HINTS[0] in headers else ()
    hints = tuple((name, headers[name][:MAX_HINT]) for name in names if name in headers)
    machine = machine_of(headers.get("user-agent"), headers.get("accept-language", ""), hints)
    country = None if place is None else place.country
    return msgspec.structs.replace(machine, ip=address, country=country)


@lru_cache(maxsize=4096)
def machine_of(user_agent: str | None, languages: str, hints: tuple[tuple[str, str], ...]) -> Client:
    """
    A client without an address.

    Args:
        languages: The whole header `Accept-Language`.
        hints: Client hint headers, names in lower case, values of at most `MAX_HINT` characters.
    """
    agent = text(user_agent, MAX_USER_AGENT)
    verdict = bots.judge(agent)
    return Client(
        user_agent=agent,
        hints=dict(hints),
        language=text(languages.split(",", maxsplit=1)[0].split(";", maxsplit=1)[0], MAX_LANGUAGE),
        bot=verdict.reasons[0] if verdict.bot else None,
        bot_version=bots.VERSION,
    )
