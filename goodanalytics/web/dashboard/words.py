"""
Figures, times and money as the dashboard says them. Pure; every function takes a value and returns a text.

Rules of this file
1. Money is divided by its currency's own minor unit with whole numbers, never with floating point.
2. A time is shown in the zone that was asked for; months are named here, for `strftime` follows the host's locale.
3. Only addresses with http and https are ever offered as links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from goodanalytics.core.places import Place
from goodanalytics.core.sources import Source
from goodanalytics.core.visitors import Visitor
from goodanalytics.web.dashboard.countries import COUNTRIES

NOT_SET: Final = "(not set)"

_NO_DECIMALS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS: Final = "CLF UYW"
DECIMALS: Final[Mapping[str, int]] = {
    **dict.fromkeys(_NO_DECIMALS.split(), 0),
    **dict.fromkeys(_THREE_DECIMALS.split(), 3),
    **dict.fromkeys(_FOUR_DECIMALS.split(), 4),
}
"""Digits of the minor unit where they are not 2. Source: ISO 4217, list one."""

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

DEVICES: Final[Mapping[str, str]] = {
    "desktop": "Desktop",
    "smartphone": "Phone",
    "tablet": "Tablet",
    "console": "Games console",
    "tv": "Television",
    "wearable": "Watch",
    "other": "Other device",
    "bot": "Bot",
}

KINDS: Final[Mapping[str, str]] = {
    "visitor": "Visitor id",
    "external_id": "Your own id",
    "email": "E-mail address",
    "phone": "Phone number",
    "anonymous_id": "Browser’s cookie",
    "click": "Click on a short link",
    "fingerprint": "Fingerprint of a browser",
    "landing": "Landing after a click",
}
"""What points to a visitor, in words; `core.identity.Kind` has the kinds."""


@dataclass(frozen=True, slots=True)
class Change:
    """
    How a figure differs from the one before.

    Attributes:
        text: Such as `+12%`.
        mood: Whether the change is welcome.
    """

    text: str
    mood: Literal["good", "bad", "even"]


def count(number: int) -> str:
    """
    A whole number with its thousands told apart.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,}"


def percent(number: float) -> str:
    """
    A percentage with one decimal, if it has any.

    >>> percent(41.66), percent(50.0)
    ('41.7%', '50%')
    """
    return f"{number:.1f}".removesuffix(".0") + "%"


def duration(seconds: float) -> str:
    """
    A length of time with its two largest units.

    >>> duration(45), duration(185.4), duration(3720)
    ('45s', '3m 05s', '1h 02m')
    """
    whole = round(seconds)
    minutes, left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours:,}h {minutes_left:02}m"
    return f"{minutes}m {left:02}s" if minutes else f"{left}s"


def money(cents: int, currency: str) -> str:
    """
    An amount of minor units with its currency's code.

    >>> money(123456, "EUR"), money(-500, "JPY"), money(1500, "KWD")
    ('1,234.56 EUR', '−500 JPY', '1.500 KWD')
    """
    digits = DECIMALS.get(currency, 2)
    whole, left = divmod(abs(cents), 10**digits)
    fraction = f".{left:0{digits}}" if digits else ""
    return f"{'−' if cents < 0 else ''}{whole:,}{fraction} {currency}"


def as_written(value: Any) -> str:
    """
    A value of a host's own JSON: a text as it is, anything else as JSON writes it.

    >>> as_written("spring"), as_written({"n": [1, True, None]})
    ('spring', '{"n":[1,true,null]}')
    """
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def amounts(per_currency: Mapping[str, int]) -> list[str]:
    """Each currency's amount, by code; amounts of different currencies are never added."""
    return [money(cents, currency) for currency, cents in sorted(per_currency.items())]


def change(now: float, before: float, *, less_is_better: bool = False) -> Change | None:
    """
    How *now* differs from *before*, in percent of *before*; `None` when there was nothing to compare with.

    >>> change(112, 100)
    Change(text='+12%', mood='good')
    """
    if before == 0:
        return None
    percents = round(100 * (now - before) / abs(before))
    if percents == 0:
        return Change("±0%", "even")
    welcome = (percents > 0) is not less_is_better
    return Change(f"{'+' if percents > 0 else '−'}{abs(percents):,}%", "good" if welcome else "bad")


def day(at: datetime) -> str:
    """
    A date.

    >>> day(datetime(2026, 11, 1))
    'Sun 1 Nov 2026'
    """
    return f"{DAYS[at.weekday()]} {at.day} {MONTHS[at.month - 1]} {at.year}"


def day_in_short(at: datetime) -> str:
    """A date without its year, for axes."""
    return f"{at.day} {MONTHS[at.month - 1]}"


def month(at: datetime) -> str:
    """A month of a year."""
    return f"{MONTHS[at.month - 1]} {at.year}"


def moment(at: datetime) -> str:
    """
    A date and a time to the minute.

    >>> moment(datetime(2026, 11, 1, 9, 5))
    '1 Nov 2026, 09:05'
    """
    return f"{at.day} {MONTHS[at.month - 1]} {at.year}, {at:%H:%M}"


def clock(at: datetime) -> str:
    """A time of day to the second."""
    return f"{at:%H:%M:%S}"


def web_address(url: str | None) -> str | None:
    """
    *url* if a browser may be sent there: http or https with a host; `None` otherwise.

    >>> web_address("javascript:alert(1)") is None
    True
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # brackets that are no IPv6 address
        return None
    return url if fits and url.isprintable() else None


def who(person: Visitor) -> str:
    """What a person is called: by name, else by address or the host's id, else by the end of our id."""
    return person.name or person.email or person.external_id or f"Anonymous visitor {short_id(person.id)}"


def short_id(given: UUID) -> str:
    """The last six digits of an id: the first ones of a UUIDv7 are the time and alike for neighbours."""
    return given.hex[-6:]


def country(code: str | None) -> str:
    """A country's English name; an unknown code stays as it is."""
    return NOT_SET if code is None else COUNTRIES.get(code, code)


def channel(name: str) -> str:
    """A channel as the beginning of a sentence."""
    return "AI" if name == "ai" else name.capitalize()


def place(written: Mapping[str, Any]) -> str:
    """City, region and country as far as they are known, or an empty text."""
    known = Place.from_json(written)
    parts = (known.city, known.region, country(known.country) if known.country else known.country_name)
    return ", ".join(dict.fromkeys(part for part in parts if part))


def device(written: Mapping[str, Any]) -> str:
    """
    A device in words, or an empty text.

    >>> device({"type": "smartphone", "browser": "Mobile Safari", "os": "iOS"})
    'Phone · Mobile Safari on iOS'
    """
    kind, browser, os = (str(written.get(name) or "") for name in ("type", "browser", "os"))
    words = f"{browser} on {os}" if browser and os else browser or os
    return " · ".join(part for part in (DEVICES.get(kind, kind), words) if part)


def source(written: Mapping[str, Any] | None) -> str:
    """
    A source in one line.

    >>> source({"platform": "google", "medium": "organic"}), source({})
    ('google / organic', 'Direct')
    """
    read = Source.from_json(written)
    if read.is_direct:
        return "Direct"
    platform = read.referrer_host if read.platform == "referral" and read.referrer_host else read.platform
    return f"{platform} / {read.medium}"


__all__ = [
    "COUNTRIES",
    "DECIMALS",
    "DEVICES",
    "KINDS",
    "NOT_SET",
    "Change",
    "amounts",
    "as_written",
    "change",
    "channel",
    "clock",
    "count",
    "country",
    "day",
    "day_in_short",
    "device",
    "duration",
    "moment",
    "money",
    "month",
    "percent",
    "place",
    "short_id",
    "source",
    "web_address",
    "who",
]
