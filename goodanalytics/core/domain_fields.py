"""What may be said of a domain of links, and how it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from goodanalytics.core.links import AndroidApp, checked_android_apps, checked_ios_app_ids, checked_url
from goodanalytics.errors import InvalidInput


class DomainFields(TypedDict, total=False):
    """What may be said of a domain; `Domain` tells what each means. `None` clears."""

    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    case_sensitive: bool | None
    ios_app_ids: Sequence[str] | None
    android_apps: Sequence[AndroidApp | Mapping[str, Any]] | None


def checked_domain_fields(given: DomainFields) -> dict[str, Any]:
    """
    *given* as fields of a `Domain`.

    Raises:
        InvalidInput: A name is unknown, or a value is not usable.

    >>> checked_domain_fields({"root_url": "https://shop.example", "case_sensitive": None})
    {'root_url': 'https://shop.example', 'case_sensitive': True}
    """
    unknown = sorted(set(given) - set(DomainFields.__annotations__))
    if unknown:
        raise InvalidInput(
            f"{unknown[0]} is no field of a domain; {', '.join(DomainFields.__annotations__)} are",
            where=unknown[0],
        )
    found: dict[str, Any] = {}
    for name, value in given.items():
        match name, value:
            case "case_sensitive", bool() | None:
                found[name] = value is not False
            case "case_sensitive", _:
                raise InvalidInput(f"case_sensitive is {value!r:.80}; it is true or false", where=name)
            case "ios_app_ids", _:
                found[name] = checked_ios_app_ids(given.get("ios_app_ids") or [])
            case "android_apps", _:
                found[name] = checked_android_apps(given.get("android_apps") or [])
            case _, None:
                found[name] = None
            case _, _:
                found[name] = checked_url(str(value), name)
    return found


__all__ = ["DomainFields", "checked_domain_fields"]
