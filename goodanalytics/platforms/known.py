"""
The platforms that come with the package, by name: for settings that are text, and for pages that offer what each can do.

Google stands for its Data Manager; the older upload has the same name and is chosen in Python only, as is everything else
about a platform but the version of its API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms.dialect import Platform, Rehearsing
from goodanalytics.platforms.google import Google
from goodanalytics.platforms.linkedin import LinkedIn
from goodanalytics.platforms.meta import Meta
from goodanalytics.platforms.openai import OpenAI
from goodanalytics.platforms.tiktok import TikTok

KNOWN: Final[Mapping[str, Callable[[], Any]]] = {
    "google": Google,
    "linkedin": LinkedIn,
    "meta": Meta,
    "openai": OpenAI,
    "tiktok": TikTok,
}

Trial: TypeAlias = Literal["none", "plain", "code"]
"""Whether a platform can be tried out, and whether that takes what its own test page shows."""


def named(text: str) -> Sequence[Platform]:
    """
    The platforms of a list such as `meta, google` or `meta:v26.0`, with the version of its API after the colon.

    Raises:
        ValueError: One is not known.

    >>> [(platform.name, platform.version.name) for platform in named("tiktok, meta:v26.0")]
    [('tiktok', 'v1.3'), ('meta', 'v26.0')]
    """
    return tuple(_named(part.strip()) for part in text.split(",") if part.strip())


def everything() -> Sequence[Platform]:
    """One of each, as it comes."""
    return tuple(make() for make in KNOWN.values())


def trial_of(platform: Platform) -> Trial:
    """How *platform* can be tried out."""
    if not isinstance(platform, Rehearsing):
        return "none"
    try:
        platform.in_test("")
    except InvalidInput:
        return "code"
    return "plain"


def _named(text: str) -> Platform:
    name, api = (part.strip() for part in text.partition(":")[::2])
    if name not in KNOWN:
        raise ValueError(f"it has {name!r}; write some of {', '.join(KNOWN)}, separated by commas")
    made: Platform = KNOWN[name]()
    return replace(made, api=api) if api else made  # type: ignore[type-var]  # all of KNOWN are dataclasses


__all__ = ["KNOWN", "Trial", "everything", "named", "trial_of"]
