"""
What a visit leaves behind that an ad platform asks for days later, when the visitor buys.

1. It is kept on the row of the browser that had it, as JSON by name, each value with the time from which it is known: click
   ids (`gclid`, `fbclid`, …) and the pixels' cookies (`fbp`, `fbc`, `ttp`). A value that is seen again keeps its time: a page
   that is loaded again is no new click.
2. `browser` is the machine: user agent, page (without its query), and address where whole addresses are kept. A machine that came
   by an ad's click stays until the next such click; without one it is the last that was seen.
3. Who denies `ad_user_data` has nothing kept, and what was kept of that browser before goes.
4. Whether a bot did it does not matter: a verdict may change (`core.reclassify`), and nothing of a bot's is ever told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from goodanalytics.core.consent import Remembered, newest, recalled, stamp
from goodanalytics.core.hits import Hit
from goodanalytics.core.sources import Source

BROWSER: Final = "browser"
COOKIES: Final = ("fbp", "fbc", "ttp")
MAX_PAGE: Final = 500  # characters
_COOKIE: Final = re.compile(r"[A-Za-z0-9._-]{1,512}")


def pixel_cookies(cookies: Mapping[str, str]) -> dict[str, str]:
    """The ad platforms' own cookies among *cookies*, by our names; what does not look like one is left out."""
    found = {name: cookies.get(f"_{name}") for name in COOKIES}
    return {name: value for name, value in found.items() if value and _COOKIE.fullmatch(value)}


def remember(
    known: Remembered,
    hit: Hit,
    consent: Mapping[str, Mapping[str, Any]] | None,
    *,
    source: Source | None,
    url: str | None,
    ip: str | None,
) -> Remembered:
    """
    *known* with what *hit* leaves behind.

    Args:
        consent: As it stands on the row, with this hit's answer.
        source: Where the hit came from, with its click ids.
        url: Of the page, cleaned.
        ip: As it may be stored; a network is no address and is not kept.
    """
    if consent and recalled(consent).ad_user_data == "denied":
        return {}
    clicks = {} if source is None else dict(source.click_ids)
    has_machine = hit.client.user_agent is not None and hit.origin != "link"
    if not (has_machine or clicks or hit.platform_signals):
        return known
    at = stamp(hit.occurred_at)
    found, clicked = known, False
    for name, value in {**hit.platform_signals, **clicks}.items():
        before = known.get(name)
        if before is None or before["value"] != value:
            clicked = clicked or name in clicks
            if before is None or at >= before["at"]:
                found = {**found, name: {"value": value, "at": at}}
    if has_machine:
        seen = known.get(BROWSER)
        if seen is None or (clicked, at) > (seen["clicked"], seen["at"]):
            found = {**found, BROWSER: {"value": _machine(hit, url, ip), "at": at, "clicked": clicked}}
    return found


def together(known: Iterable[Remembered]) -> Remembered:
    """What the rows of one person remember, as one; of equally new values the last row's."""
    known = list(known)
    found = newest(known)
    machines = [one[BROWSER] for one in known if BROWSER in one]
    if machines:
        found[BROWSER] = max(machines, key=lambda m: (m["clicked"], m["at"]))
    return found


def _machine(hit: Hit, url: str | None, ip: str | None) -> dict[str, Any]:
    page = None if url is None else url.partition("#")[0].partition("?")[0]
    value = {
        "user_agent": hit.client.user_agent,
        # A page that would have to be cut is not one that anybody can open.
        "url": page if page is not None and len(page) <= MAX_PAGE else None,
        "ip": None if ip is None or "/" in ip else ip,
    }
    return {name: one for name, one in value.items() if one is not None}


__all__ = ["BROWSER", "COOKIES", "pixel_cookies", "remember", "together"]
