"""
What the rules and variants of a link may say.

A rule leads to its own address when *all* conditions of its `When` hold; a condition that is a list holds when any of its
words does. `core.link_checks` checks the values, `core.link_matching` matches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from goodanalytics.core.bounds import Property

_LINUX = (
    "linux", "arch linux", "centos", "debian", "fedora", "gentoo", "kubuntu", "linux mint", "mageia", "mandriva", "mint",
    "opensuse", "red hat", "slackware", "suse", "ubuntu",
)  # fmt: skip

DEVICES: Final[Mapping[str, frozenset[str]]] = {
    "desktop": frozenset({"desktop"}),
    "mobile": frozenset({"smartphone", "tablet"}),
    "smartphone": frozenset({"smartphone"}),
    "tablet": frozenset({"tablet"}),
    "console": frozenset({"console"}),
    "tv": frozenset({"tv"}),
    "wearable": frozenset({"wearable"}),
}
"""Word of a condition → `Device.type`."""

SYSTEMS: Final[Mapping[str, frozenset[str]]] = {
    "android": frozenset({"android"}),
    "chromeos": frozenset({"chrome os"}),
    "ios": frozenset({"ios", "ipados"}),
    "ipados": frozenset({"ipados"}),
    "kaios": frozenset({"kaios"}),
    "linux": frozenset(_LINUX),
    "macos": frozenset({"mac", "mac os x"}),
    "tizen": frozenset({"tizen"}),
    "windows": frozenset({"windows", "windows phone"}),
}
"""Word of a condition → `Device.os`, case-folded. An iPad that asks for desktop pages is a Mac to every server."""

BROWSERS: Final[Mapping[str, frozenset[str]]] = {
    "brave": frozenset({"brave"}),
    "chrome": frozenset({"chrome", "chrome mobile", "chrome mobile ios", "chromium"}),
    "duckduckgo": frozenset({"duckduckgo", "duckduckgo mobile"}),
    "edge": frozenset({"edge", "edge mobile"}),
    "firefox": frozenset({"firefox", "firefox mobile", "firefox ios"}),
    "ie": frozenset({"ie", "ie mobile"}),
    "opera": frozenset({"opera", "opera mobile", "opera mini", "opera touch", "opera gx"}),
    "safari": frozenset({"safari", "mobile safari"}),
    "samsung": frozenset({"samsung internet"}),
    "uc": frozenset({"uc browser"}),
    "vivaldi": frozenset({"vivaldi"}),
    "yandex": frozenset({"yandex browser"}),
}
"""Word of a condition → `Device.browser`, case-folded."""

APPS: Final = frozenset(
    {
        "baidu", "facebook", "google", "instagram", "kakaotalk", "line", "linkedin", "messenger", "naver", "pinterest", "reddit",
        "snapchat", "threads", "tiktok", "twitter", "viber", "webview", "wechat", "weibo", "whatsapp",
    }
)  # fmt: skip
"""Apps with a browser of their own, as `Device.in_app` names them, case-folded; words of `browsers` too."""


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    Hours of the day, from *start* to just before *end*.

    Attributes:
        start, end: `HH:MM` of 24 hours. An *end* before *start* lies on the next day; `24:00` is midnight at the end.
        timezone: IANA name, such as `Europe/Berlin`; the clock that hangs on the wall there.
        weekdays: On which the hours begin: 1 is Monday, 7 Sunday; empty is every day.
    """

    start: str
    end: str
    timezone: str = "UTC"
    weekdays: list[int] = []


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    The conditions of a rule; those that are not given do not matter.

    What is not known about a visitor (no country found, the database away) never fulfils a condition.

    Attributes:
        devices: Of `DEVICES`; `mobile` is a smartphone or a tablet.
        os: Of `SYSTEMS`.
        browsers: Of `BROWSERS`, or an app with a browser of its own, such as `instagram`.
        languages: `de`, `pt-BR`: the visitor's best language among all that any rule of the link names.
        countries: Two letters of ISO 3166-1.
        regions: `US-CA` or `US-California`: a country and the code or the English name of its largest subdivision.
        query: Parameters of the short link's request and their values; `None` is any value.
        ip_ranges: Networks such as `192.0.2.0/24`, or single addresses.
        after, before: From *after* on, until just before *before*.
        hours: Time of day.
        returning: Whether the visitor was here before.
        statuses: Of a visitor: `anonymous`, `identified`, `lead`, `customer`, `churned`.
        traits: Of a visitor, as the host said them; `None` is any value.
    """

    devices: list[str] = []
    os: list[str] = []
    browsers: list[str] = []
    languages: list[str] = []
    countries: list[str] = []
    regions: list[str] = []
    query: dict[str, str | None] = {}
    ip_ranges: list[str] = []
    after: datetime | None = None
    before: datetime | None = None
    hours: Hours | None = None
    returning: bool | None = None
    statuses: list[str] = []
    traits: dict[str, Property] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    Where some visitors are led.

    Attributes:
        url: The destination of those for whom *when* holds.
        name: Shown in reports; unique among the link's rules.
    """

    url: str
    when: When
    name: str | None = None


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One side of a split.

    Attributes:
        weight: Its share is its weight of the sum of all weights; 1 to 1,000.
        name: Shown in reports; a visitor is assigned by it, so a variant that is renamed gets other visitors.
    """

    url: str
    weight: int = 1
    name: str = ""
