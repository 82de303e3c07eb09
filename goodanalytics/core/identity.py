"""
Who it is, decided on matched evidence.

The worst thing that an identity system can do is to merge two people, so:

1. What counts is what *matched*, never what was merely sent. A candidate is a visitor together with the kinds that led
   to it.
2. Two visitors become one only if the hit ties them by one matched strong kind, or by two matched weak ones.
3. Two different external ids are never joined. The one that the host said last wins the hit; the other stays apart and
   a conflict is kept.
4. A click may bridge to the browser that lands with it first, soon, and to no other: a forwarded address carries its
   source, not its person.
5. Only the host can say a strong kind. What a page claims about a person is not evidence (`identifiers`).

Deciding is pure and does not depend on the order of the candidates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from uuid import UUID

from goodanalytics.core.hits import Hit


class Kind(StrEnum):
    """What can point to a visitor. The words of `identities.kind`."""

    VISITOR = "visitor"
    EXTERNAL_ID = "external_id"
    EMAIL = "email"
    PHONE = "phone"
    ANONYMOUS_ID = "anonymous_id"
    CLICK = "click"
    LANDING = "landing"


class Strength(IntEnum):
    """How much one matched kind proves."""

    NONE = 0
    WEAK = 1
    STRONG = 2


STRENGTH: dict[Kind, Strength] = {
    Kind.VISITOR: Strength.STRONG,
    Kind.EXTERNAL_ID: Strength.STRONG,
    Kind.EMAIL: Strength.STRONG,
    Kind.PHONE: Strength.STRONG,
    Kind.ANONYMOUS_ID: Strength.WEAK,
    Kind.CLICK: Strength.WEAK,
    Kind.LANDING: Strength.NONE,
}
"""`LANDING` marks who landed with a click first; it points to nobody."""

PREFERENCE = (Kind.ANONYMOUS_ID, Kind.VISITOR, Kind.EXTERNAL_ID, Kind.CLICK, Kind.EMAIL, Kind.PHONE)
"""Whose row takes the hit, among the rows of one person: the browser's own first."""

CLICK_WINDOW = timedelta(hours=1)
"""How long after a click its landing may still take it over. A tab that was opened in the background is seen later."""

NOBODY = frozenset({
    "", "-1", "0", "anonymous", "distinct_id", "distinctid", "email", "false", "guest", "id", "nan", "nil", "none",
    "not_authenticated", "null", "true", "undefined", "unknown", "user", "void", "[object object]", "(not set)",
})  # fmt: skip
"""Values that programs send for "nobody", lower-cased: a match on one of them would merge strangers. Sources: the lists
of blocked identifiers in the documentation of Segment Unify and PostHog."""


_ADDRESS = re.compile(r"[^\s@]+@[^\s@.]+(\.[^\s@.]+)+")
_PHONE = re.compile(r"(\+|00)(?P<digits>[0-9 ().\-/\u00a0\u2010\u2011]*)")


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """One value of one kind."""

    kind: Kind
    value: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A person that the hit may belong to.

    Attributes:
        person: Canonical id.
        matched: The kinds that led here, each with the row it belongs to.
        external_ids: Of all rows of the person; one at the most.
        first_seen_at: Of the person.
    """

    person: UUID
    matched: dict[Kind, UUID]
    external_ids: frozenset[str]
    first_seen_at: datetime

    @property
    def strength(self) -> tuple[int, int]:
        """Strongest matched kind, then how many kinds matched."""
        return max((STRENGTH[kind] for kind in self.matched), default=Strength.NONE), len(self.matched)


@dataclass(frozen=True, slots=True)
class New:
    """Nobody whom we know: a new visitor."""


@dataclass(frozen=True, slots=True)
class Known:
    """The row *visitor* of *person*."""

    person: UUID
    visitor: UUID


@dataclass(frozen=True, slots=True)
class Merge:
    """
    Several persons are one.

    Attributes:
        winner: The one that was seen first.
        losers: The others, as seen.
        visitor: The row that takes the hit.
        evidence: The kinds that tie them.
    """

    winner: UUID
    losers: tuple[UUID, ...]
    visitor: UUID
    evidence: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class Apart:
    """*other* matched too, but is somebody else, for *reason*."""

    other: UUID
    reason: str


Decision = New | Known | Merge


def identifiers(hit: Hit) -> tuple[Identifier, ...]:
    """What *hit* offers as evidence: normalised, without the values that stand for nobody, strongest first."""
    signals = hit.signals
    found: list[Identifier] = []
    if hit.trusted:
        found += _named(Kind.EXTERNAL_ID, signals.external_id)
        found += _named(Kind.EMAIL, normal_email(signals.email))
        found += _named(Kind.PHONE, normal_phone(signals.phone))
    found += _named(Kind.ANONYMOUS_ID, signals.anonymous_id)
    if signals.click_id is not None:
        found.append(Identifier(Kind.CLICK, str(signals.click_id)))
    return tuple(found)


def _named(kind: Kind, value: str | None) -> list[Identifier]:
    if value is None or not (value := value.strip()) or stands_for_nobody(value):
        return []
    return [Identifier(kind, value)]


def stands_for_nobody(value: str) -> bool:
    """Whether *value* is a placeholder, an unrendered template or only zeros, and so names no one."""
    folded = value.strip().casefold()
    return folded in NOBODY or not folded.strip("0-") or ("{{" in folded and "}}" in folded) or "${" in folded


def normal_email(value: str | None) -> str | None:
    """
    *value* as mail systems compare it in practice: without blanks, lower-cased; `None` when it is not an address.

    Dots and plus signs are kept: only some providers ignore them.
    """
    if value is None:
        return None
    folded = value.strip().lower()
    return folded if _ADDRESS.fullmatch(folded) else None


def normal_phone(value: str | None) -> str | None:
    """
    *value* in the form of E.164 (`+` and 7 to 15 digits); `None` for whatever would be a guess.

    That is a number without a country code, with letters (an extension), or with the trunk zero of `+49 (0)30`. No country
    code begins with 0 (ITU-T E.164, list of assigned codes).
    """
    found = None if value is None else _PHONE.fullmatch(value.strip())
    if found is None or "(0)" in found["digits"]:
        return None
    digits = "".join(c for c in found["digits"] if c.isdecimal())
    return f"+{digits}" if 7 <= len(digits) <= 15 and digits[0] != "0" else None


def decide(
    said_external_id: str | None, candidates: Iterable[Candidate]
) -> tuple[Decision, tuple[Apart, ...]]:
    """
    Say whose hit it is, and who matched but is somebody else.

    Args:
        said_external_id: What the host says with this hit, if it does.
        candidates: One for each person that anything led to.
    """
    aparts: list[Apart] = []
    joined: list[Candidate] = []
    external_ids: set[str] = {said_external_id} if said_external_id is not None else set()
    for candidate in sorted(candidates, key=_rank):
        if candidate.strength[0] is Strength.NONE:
            continue
        if len(external_ids | candidate.external_ids) > 1:
            aparts.append(Apart(candidate.person, "two external ids"))
            continue
        if joined and not _tied([*joined, candidate]):
            aparts.append(Apart(candidate.person, "one weak kind is not enough"))
            continue
        joined.append(candidate)
        external_ids |= candidate.external_ids
    if not joined:
        return New(), tuple(aparts)
    visitor = next(c.matched[kind] for kind in PREFERENCE for c in joined if kind in c.matched)
    if len(joined) == 1:
        return Known(joined[0].person, visitor), tuple(aparts)
    by_age = sorted(joined, key=lambda c: (c.first_seen_at, c.person))
    evidence = sorted({kind for c in joined for kind in c.matched}, key=list(Kind).index)
    return Merge(by_age[0].person, tuple(c.person for c in by_age[1:]), visitor, tuple(evidence)), tuple(
        aparts
    )


_NAMES = (Kind.EXTERNAL_ID, Kind.VISITOR)


def _rank(candidate: Candidate) -> tuple[int, int, int, datetime, UUID]:
    """
    Whom to believe first.

    The person that the host names by its own id beats everything, then the visitor that it hands back to us; then the
    strongest match; then more kinds; then who was seen first.
    """
    named = next((place for place, kind in enumerate(_NAMES) if kind in candidate.matched), len(_NAMES))
    strongest, kinds = candidate.strength
    return named, -strongest, -kinds, candidate.first_seen_at, candidate.person


def _tied(candidates: list[Candidate]) -> bool:
    """Whether one matched strong kind or two matched weak kinds hold these together."""
    kinds = {kind for candidate in candidates for kind in candidate.matched}
    strengths = [STRENGTH[kind] for kind in kinds]
    return strengths.count(Strength.STRONG) >= 1 or strengths.count(Strength.WEAK) >= 2
