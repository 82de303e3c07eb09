"""
The platforms that a host chose: each with a name of its own, and every one of them really a platform.

Google's two dialects have one name, because they tell the same account of the same conversions: whoever has one of them
cannot have the other beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from goodanalytics.errors import ConfigError
from goodanalytics.platforms.dialect import Platform

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def checked(platforms: Iterable[object]) -> tuple[Platform, ...]:
    """
    *platforms*, each of which is one.

    Raises:
        ConfigError: One is not, its limits make no sense, or two have one name.
    """
    found: dict[str, Platform] = {}
    for platform in platforms:
        if isinstance(platform, type) or not isinstance(platform, Platform):
            raise ConfigError(
                f"platforms has {_shown(platform)}, which is no platform. Write platforms=[Meta(), Google()]; "
                "one of your own needs the members that goodanalytics.platforms.Platform lists"
            )
        if not _NAME.fullmatch(platform.name) or platform.name == "webhook":
            raise ConfigError(
                f"platforms has one called {platform.name!r}; a name is lower case, such as 'my_platform', "
                "and stays the same for ever"
            )
        if platform.max_batch < 1:
            raise ConfigError(
                f"{platform.name}.max_batch is {platform.max_batch}; a request holds at least 1 conversion"
            )
        if platform.name in found:
            raise ConfigError(
                f"platforms has two called {platform.name!r} ({_kind(found[platform.name])} and {_kind(platform)}), "
                "and each conversion would count twice. Keep one of them"
            )
        found[platform.name] = platform
    return tuple(found.values())


def _kind(platform: object) -> str:
    return type(platform).__name__


def _shown(found: object) -> str:
    return f"the class {found.__name__} (call it)" if isinstance(found, type) else f"a {_kind(found)}"


__all__ = ["checked"]
