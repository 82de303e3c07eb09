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
6. Who was taken apart by the host stays apart, whatever matches; only the host joins them again.
7. Who would have more addresses, numbers, browsers or merges than `IdentityRules` allow stays apart too.

Deciding is pure and does not depend on the order of the candidates.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from uuid import UUID

import msgspec

from goodanalytics.core.hits import Hit
from goodanalytics.core.identity_rules import DEFAULT_RULES, IdentityRules


class Kind(StrEnum):
    """What can point to a visitor. The words of `identities.kind`."""

    VISITOR = "visitor"
    EXTERNAL_ID = "external_id"
    EMAIL = "email"
    PHONE = "phone"
    ANONYMOUS_ID = "anonymous_id"
    CLICK = "click"
    LANDING = "landing"
    FINGERPRINT = "fingerprint"


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
    Kind.FINGERPRINT: Strength.NONE,
}
"""`LANDING` marks who landed with a click first, and points to nobody. `FINGERPRINT` may be a thousand people's: it finds and
joins nobody, and is only told to whoever looks for the same person by hand."""

PREFERENCE = (Kind.ANONYMOUS_ID, Kind.VISITOR, Kind.EXTERNAL_ID, Kind.CLICK, Kind.EMAIL, Kind.PHONE)
"""Whose row takes the hit, among the rows of one person: the browser's own first."""

CLICK_WINDOW = timedelta(hours=1)
"""How long after a click its landing may still take it over. A tab that was opened in the background is seen later."""

NOBODY = frozenset({
    "", "-1", "0", "abc123", "anonymous", "distinct_id", "distinctid", "email", "false", "guest", "id", "nan", "nil", "none",
    "not_authenticated", "null", "true", "undefined", "unknown", "user", "void", "[object object]", "(not set)",
})  # fmt: skip
"""Values that programs send for "nobody", lower-cased: a match on one of them would merge strangers. Sources: the lists
of blocked identifiers in the documentation of Segment Unify and PostHog."""

NO_MAILBOX = frozenset(
    {"do-not-reply", "donotreply", "example", "no-reply", "noreply", "nobody", "none", "test"}
)
"""What stands before the @ of addresses that belong to no person: they are shown, and are no evidence. The same sources."""

SAME_FINGERPRINT = "the same fingerprint; that alone is no evidence"
"""Why somebody new is not the person whose fingerprint the hit has: a hint for whoever may join them by hand."""

TWO_NAMES = "two external ids"
"""Why persons stay apart whom the host calls by different ids."""

_ADDRESS = re.compile(r"[^\s@]+@[^\s@.]+(\.[^\s@.]+)+")
_PHONE = re.compile(r"(\+|00)(?P<digits>[0-9 ().\-/\u00a0\u2010\u2011]*)")


class Identifier(msgspec.Struct, frozen=True, order=True, gc=False):
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
        external_ids: Of all rows of the person; one, unless the host forced a merge.
        first_seen_at: Of the person.
        held: How many values of each kind point to the person.
        merges: Persons that were joined to it within a day.
    """

    person: UUID
    matched: dict[Kind, UUID]
    external_ids: frozenset[str]
    first_seen_at: datetime
    held: Mapping[Kind, int] = field(default_factory=dict)
    merges: int = 0

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
        tied: For each of these persons, the row that the evidence led to.
    """

    winner: UUID
    losers: tuple[UUID, ...]
    visitor: UUID
    evidence: tuple[Kind, ...]
    tied: Mapping[UUID, UUID]


@dataclass(frozen=True, slots=True)
class Apart:
    """*other* matched too, but is somebody else, for *reason*."""

    other: UUID
    reason: str


Decision = New | Known | Merge


def identifiers(hit: Hit, rules: IdentityRules = DEFAULT_RULES) -> tuple[Identifier, ...]:
    """What *hit* offers as evidence: normalised, without the values that stand for nobody, strongest first."""
    signals = hit.signals
    said: list[tuple[Kind, str | None]] = [(Kind.ANONYMOUS_ID, signals.anonymous_id)]
    if hit.trusted:
        said = [
            (Kind.EXTERNAL_ID, signals.external_id),
            (Kind.EMAIL, _mailbox(signals.email)),
            (Kind.PHONE, normal_phone(signals.phone)),
            *said,
        ]
    if signals.click_id is not None:
        said.append((Kind.CLICK, str(signals.click_id)))
    if rules.fingerprints:
        said.append((Kind.FINGERPRINT, signals.fingerprint))
    return tuple(
        Identifier(kind, name)
        for kind, value in said
        if value is not None and not stands_for_nobody(name := value.strip()) and not rules.blocks(name)
    )


def _mailbox(value: str | None) -> str | None:
    email = normal_email(value)
    return None if email is None or email.partition("@")[0].partition("+")[0] in NO_MAILBOX else email


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
    said_external_id: str | None,
    candidates: Iterable[Candidate],
    parted: Collection[frozenset[UUID]] = (),
    rules: IdentityRules = DEFAULT_RULES,
) -> tuple[Decision, tuple[Apart, ...]]:
    """
    Say whose hit it is, and who matched but is somebody else.

    Args:
        said_external_id: What the host says with this hit, if it does.
        candidates: One for each person that anything led to.
        parted: Pairs of persons whom the host took apart.
    """
    aparts: list[Apart] = []
    alike: list[Apart] = []
    joined: list[Candidate] = []
    names: set[str] = {said_external_id} if said_external_id is not None else set()
    for candidate in sorted(candidates, key=_rank):
        if candidate.strength[0] is Strength.NONE:
            if Kind.FINGERPRINT in candidate.matched:
                alike.append(Apart(candidate.person, SAME_FINGERPRINT))
            continue
        if (reason := _why_apart(candidate, joined, names, parted, rules)) is not None:
            aparts.append(Apart(candidate.person, reason))
            continue
        joined.append(candidate)
        names |= candidate.external_ids
    if not joined:
        return New(), (*aparts, *alike)
    visitor = next(c.matched[kind] for kind in PREFERENCE for c in joined if kind in c.matched)
    if len(joined) == 1:
        return Known(joined[0].person, visitor), tuple(aparts)
    by_age = sorted(joined, key=lambda c: (c.first_seen_at, c.person))
    evidence = sorted({kind for c in joined for kind in c.matched}, key=list(Kind).index)
    tied = {c.person: next(c.matched[kind] for kind in PREFERENCE if kind in c.matched) for c in joined}
    losers = tuple(c.person for c in by_age[1:])
    return Merge(by_age[0].person, losers, visitor, tuple(evidence), tied), tuple(aparts)


def _why_apart(
    candidate: Candidate,
    joined: list[Candidate],
    names: set[str],
    parted: Collection[frozenset[UUID]],
    rules: IdentityRules,
) -> str | None:
    """Why *candidate* is not the person that the hit belongs to so far; `None` when it is."""
    if names and candidate.external_ids and not names <= candidate.external_ids:
        return TWO_NAMES
    if not joined:
        return None
    if any(frozenset((candidate.person, other.person)) in parted for other in joined):
        return "the host took them apart"
    together = [*joined, candidate]
    if not _tied(together):
        return "one weak kind is not enough"
    for kind, most in most_of(rules).items():
        if (number := sum(one.held.get(kind, 0) for one in together)) > most:
            return f"{number} values of the kind {kind} would be too many"
    if (merges := sum(one.merges for one in together) + len(joined)) > rules.merges_per_day:
        return f"{merges} merges in a day would be too many"
    return None


def most_of(rules: IdentityRules) -> Mapping[Kind, int]:
    """How many values of a kind may point to one person."""
    return {Kind.EMAIL: rules.emails, Kind.PHONE: rules.phones, Kind.ANONYMOUS_ID: rules.devices}


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
