"""
What a person allowed an ad platform to receive, and what is remembered of it.

1. An answer is `granted`, `denied` or `unknown`; what silence means is the host's to say (`Config.consent_silence`).
2. The newest answer counts, for each purpose by itself; "unknown" is no answer and changes none.
3. `Sec-GPC: 1` says no to both purposes, whatever else the request says. Source: Global Privacy Control, section 3.2
   (https://www.w3.org/TR/gpc/).
4. On a visitor's row, the answers stand with the time at which each was given, as JSON:
   `{"ad_user_data": {"value": "denied", "at": "2026-11-01T12:00:00+00:00"}}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

Answer: TypeAlias = Literal["granted", "denied", "unknown"]

PURPOSES: Final = ("ad_user_data", "ad_personalization")

Remembered: TypeAlias = dict[str, dict[str, Any]]
"""Values by name, each with the time from which it is known."""


class Consent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What the person allowed, at the time of the conversion.

    Attributes:
        ad_user_data: Whether the platform may receive this at all.
        ad_personalization: Whether it may use it to choose ads for this person.
    """

    ad_user_data: Answer = "unknown"
    ad_personalization: Answer = "unknown"

    def __bool__(self) -> bool:
        """Whether anything was answered."""
        return self != Consent()


DENIED: Final = Consent(ad_user_data="denied", ad_personalization="denied")
GRANTED: Final = Consent(ad_user_data="granted", ad_personalization="granted")


def of_request(headers: Mapping[str, str], said: Consent | None) -> Consent | None:
    """
    The consent that a request carries.

    Args:
        headers: By lower-cased name.
        said: What the host reads out of its own cookie, or `None`.

    >>> of_request({"sec-gpc": "1"}, GRANTED) == DENIED
    True
    """
    return DENIED if headers.get("sec-gpc") == "1" else said


def remembered(known: Remembered | None, said: Consent | None, at: datetime) -> Remembered | None:
    """*known* with what was *said* at that time; an answer that is older than a known one changes nothing."""
    if not said:
        return known
    answers = ((purpose, getattr(said, purpose)) for purpose in PURPOSES)
    fresh = {purpose: stamped(answer, at) for purpose, answer in answers if answer != "unknown"}
    return newest([known or {}, fresh])


def recalled(known: Mapping[str, Mapping[str, Any]] | None, said: Consent | None = None) -> Consent:
    """What counts: what is *said* now, and for the rest what is *known*."""
    answers: dict[str, Answer] = {name: answer["value"] for name, answer in (known or {}).items()}
    for purpose in PURPOSES:
        now: Answer = "unknown" if said is None else getattr(said, purpose)
        if now != "unknown":
            answers[purpose] = now
    return Consent(**answers)


def stamped(value: Any, at: datetime) -> dict[str, Any]:
    """*value* with its time."""
    return {"value": value, "at": stamp(at)}


def stamp(at: datetime) -> str:
    """*at* as text that sorts as times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def newest(known: Iterable[Remembered]) -> Remembered:
    """Each name's newest value; of equally new ones the one that comes last."""
    found: Remembered = {}
    for one in known:
        for name, value in one.items():
            if name not in found or value["at"] >= found[name]["at"]:
                found[name] = value
    return found


__all__ = [
    "DENIED",
    "GRANTED",
    "PURPOSES",
    "Answer",
    "Consent",
    "Remembered",
    "newest",
    "of_request",
    "recalled",
    "remembered",
    "stamp",
    "stamped",
]
