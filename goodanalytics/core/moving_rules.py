"""
Conditions of other shorteners as rules of ours.

A condition that has no twin here refuses its link: a rule without it would take people whom it was not made for.

Source: Shlink's redirect rules, https://api-spec.shlink.io/ (`SetShortUrlRedirectRule`), and Dub's `geo`, a map of countries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DEVICES: Final[Mapping[str, tuple[str, str]]] = {
    "android": ("os", "android"),
    "ios": ("os", "ios"),
    "windows": ("os", "windows"),
    "linux": ("os", "linux"),
    "macos": ("os", "macos"),
    "chromeos": ("os", "chromeos"),
    "mobile": ("devices", "mobile"),
    "desktop": ("devices", "desktop"),
}
_LISTS: Final[Mapping[str, str]] = {
    "language": "languages",
    "ip-address": "ip_ranges",
    "geolocation-country-code": "countries",
    "browser": "browsers",
}


def by_country(country: str, url: str) -> dict[str, Any]:
    """The rule that leads visitors of *country* to *url*, as JSON."""
    return {"url": url, "when": {"countries": [country.upper()]}}


def by_conditions(rule: object) -> dict[str, Any]:
    """
    Shlink's *rule*, as JSON of a rule of ours. Its conditions all have to hold, as ours do.

    Raises:
        ValueError: It has a condition that ours cannot say.
    """
    told: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {}
    conditions = told.get("conditions") or ()
    is_readable = isinstance(conditions, list) and isinstance(told.get("longUrl"), str)
    if not is_readable:
        raise ValueError("has a redirect rule that cannot be read")
    when: dict[str, Any] = {}
    for condition in conditions:
        name, value = _condition(condition if isinstance(condition, Mapping) else {})
        if name in when and name != "query":
            raise ValueError(f"has a redirect rule that asks for two {name} at once")
        when[name] = {**when.get("query", {}), **value} if name == "query" else value
    return {"url": told["longUrl"], "when": when}


def _condition(condition: Mapping[str, Any]) -> tuple[str, Any]:
    kind, key, value = (str(condition.get(name) or "") for name in ("type", "matchKey", "matchValue"))
    if kind == "device" and value in _DEVICES:
        name, word = _DEVICES[value]
        return name, [word]
    if kind in _LISTS and value and "*" not in value:
        return _LISTS[kind], [value]
    if kind == "query-param" and key:
        return "query", {key: value}
    if kind in ("any-value-query-param", "valueless-query-param") and key:
        return "query", {key: None if kind.startswith("any") else ""}
    if kind in ("before-date", "after-date") and value:
        return kind.partition("-")[0], value
    raise ValueError(
        f"has a redirect rule with the condition {kind or condition!r} {value!r}, which ours cannot say"
    )
