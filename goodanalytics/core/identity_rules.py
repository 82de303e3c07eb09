"""
What the host may set about identity: caps, values that name nobody, and when a device counts as shared.

Caps are there against accidents, such as a form that sends the shop's own address for everybody, and not against people: the
defaults are those of systems with years of such accidents (links-and-attribution.md, section 4), rounded up. What is
beyond a cap is not evidence, and a conflict tells of it; nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from goodanalytics.errors import ConfigError

LONGEST_PATTERN: Final = 200  # characters
MOST_PATTERNS: Final = 50
LONGEST_MATCHED: Final = 254
"""Characters of a value that a pattern sees: what a host's pattern costs is bounded by both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    """
    Who counts as the same person, as far as the host decides.

    Attributes:
        emails, phones, devices: How many addresses, numbers and browsers one person may have.
        merges_per_day: How many persons may be joined to one within 24 hours without the host's own word.
        people_per_device: From how many people on, signed in on one browser within *device_window*, it is a shared one: a kiosk
            or a tablet at a counter, whose cookie then proves nothing.
        fingerprints: Whether to keep the fingerprint that a host's own page or code sends. It finds and joins nobody; `why` tells
            of people with the same one. A fingerprint needs the visitor's consent wherever a cookie does.
        blocked: Values that name nobody, in upper or lower case, beside those that are known (`core.identity.NOBODY`).
        blocked_patterns: Regular expressions of such values; they match the whole value, in upper or lower case.

    Raises:
        ConfigError: A number is below 1, or a pattern is too long or cannot be read.
    """

    emails: int = 5
    phones: int = 5
    devices: int = 100
    merges_per_day: int = 20
    people_per_device: int = 4
    device_window: timedelta = timedelta(hours=24)
    fingerprints: bool = False
    blocked: Sequence[str] = ()
    blocked_patterns: Sequence[str] = ()
    _values: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    _patterns: tuple[re.Pattern[str], ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("emails", "phones", "devices", "merges_per_day", "people_per_device"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigError(f"identity.{name} is {number!r}; write a whole number from 1 on")
        if not isinstance(self.device_window, timedelta) or self.device_window <= timedelta(0):
            raise ConfigError(
                f"identity.device_window is {self.device_window!r}; write something such as timedelta(hours=24)"
            )
        if not isinstance(self.fingerprints, bool):
            raise ConfigError(f"identity.fingerprints is {self.fingerprints!r}; write True or False")
        for name in ("blocked", "blocked_patterns"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(value, str) for value in given):
                raise ConfigError(f"identity.{name} is {given!r}; it must be a list of texts")
            object.__setattr__(self, name, tuple(given))
        if len(self.blocked_patterns) > MOST_PATTERNS:
            raise ConfigError(
                f"identity.blocked_patterns has {len(self.blocked_patterns)} patterns; {MOST_PATTERNS} are the most"
            )
        object.__setattr__(self, "_values", frozenset(value.strip().casefold() for value in self.blocked))
        object.__setattr__(self, "_patterns", tuple(_compiled(pattern) for pattern in self.blocked_patterns))

    def blocks(self, value: str) -> bool:
        """Whether the host says that *value* names nobody."""
        if self._values and value.strip().casefold() in self._values:
            return True
        return (
            bool(self._patterns)
            and len(value) <= LONGEST_MATCHED
            and any(p.fullmatch(value) for p in self._patterns)
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > LONGEST_PATTERN:
        raise ConfigError(
            f"identity.blocked_patterns has one of {len(pattern)} characters; {LONGEST_PATTERN} are the most"
        )
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"identity.blocked_patterns has {pattern!r}, which cannot be read: {error}"
        ) from None


DEFAULT_RULES: Final = IdentityRules()
