"""
Who the hits of a batch belong to: rows, the values that point to them, and the ledger of merges.

`Plan` asks `identify` for each hit in turn, and each sees what the hits before it changed.

1. A value points to one row. It moves only when somebody else signs in on the browser; where it pointed before is kept, with
   the time until which it did, and what was done until then stays with whom it was.
2. A merge ties the two rows that the evidence led to, not the persons that they were at the time. So undoing another merge
   leaves each tie where it belongs (`core.partition`).
3. Values of erased people bring nobody back: their hits are dropped.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from goodanalytics.core import identity
from goodanalytics.core.hits import Hit
from goodanalytics.core.identity import (
    CLICK_WINDOW,
    TWO_NAMES,
    Apart,
    Candidate,
    Identifier,
    Kind,
    Merge,
    New,
)
from goodanalytics.core.identity_rules import DEFAULT_RULES, IdentityRules
from goodanalytics.core.sessions import Session
from goodanalytics.core.sources import Source
from goodanalytics.core.tombstones import FOR_EVER
from goodanalytics.core.visitors import Visitor

DAY = timedelta(days=1)
UNUSED = "nobody was seen on it yet"
"""What stands in `Visitor.bot` of a shared device until its first hit: so long it is no visitor to count."""

Key = tuple[UUID, str, str]
"""A value: workspace, kind, value."""


class IdentityRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A row of `identities`: this value points to this visitor since that hit.

    Attributes:
        shared_at: Since when a browser's value proves nothing because too many people signed in on it, or `None`.
    """

    workspace_id: UUID
    kind: str
    value: str
    visitor_id: UUID
    hit_id: UUID | None
    first_seen_at: datetime
    shared_at: datetime | None = None


class FormerIdentityRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `former_identities`: a value pointed to this visitor from *first_seen_at* until *until*."""

    workspace_id: UUID
    kind: str
    value: str
    visitor_id: UUID
    hit_id: UUID | None
    first_seen_at: datetime
    until: datetime


class MergeRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A row of `merges`: the loser's person is the winner's since then, on this evidence.

    Attributes:
        loser_id, winner_id: What the two persons were known as.
        loser_member_id, winner_member_id: The two rows that the evidence tied.
        hit_id: The hit that brought the evidence; `None` when the host merged them itself.
        actor, reason: Who merged them and why, when the host did.
        undone_at, undone_by, undone_reason: When it was taken back, by whom and why. From then on the two are apart for good.
    """

    workspace_id: UUID
    id: UUID
    loser_id: UUID
    winner_id: UUID
    loser_member_id: UUID
    winner_member_id: UUID
    evidence: dict[str, Any]
    hit_id: UUID | None
    merged_at: datetime
    actor: str | None = None
    reason: str | None = None
    undone_at: datetime | None = None
    undone_by: str | None = None
    undone_reason: str | None = None


class ConflictRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `conflicts`: two persons that a hit pointed to and that stay apart, or what was too much for one."""

    workspace_id: UUID
    hit_id: UUID
    visitor_id: UUID
    other_id: UUID
    reason: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class ClickFacts:
    """Where a click came from, for the landing that follows it."""

    source: Source
    link_id: UUID | None


@dataclass(slots=True)
class State:
    """
    What is known before the batch: all that its hits can touch.

    Attributes:
        merges: Of the people whom a hit tells something new of, live and undone.
        held: How many values of a kind point to each of their rows.
        former: The rows that a browser's value pointed to before, each with the time until which it did.
        forgotten: Values of erased people, with the time of the erasure.
    """

    identities: dict[Key, IdentityRow] = field(default_factory=dict)
    visitors: dict[tuple[UUID, UUID], Visitor] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    clicks: dict[tuple[UUID, UUID], ClickFacts] = field(default_factory=dict)
    merges: list[MergeRow] = field(default_factory=list)
    held: dict[tuple[UUID, UUID], dict[str, int]] = field(default_factory=dict)
    former: dict[Key, list[tuple[UUID, datetime]]] = field(default_factory=dict)
    forgotten: dict[Key, datetime] = field(default_factory=dict)


def derived_id(hit_id: UUID, at: datetime, purpose: str) -> UUID:
    """An id of version 7 (RFC 9562) that stands for *purpose* of this hit, for ever the same."""
    digest = int.from_bytes(hashlib.sha256(hit_id.bytes + purpose.encode()).digest()[:10])
    milliseconds = int(at.timestamp() * 1_000) & ((1 << 48) - 1)
    value = (milliseconds << 80) | digest
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62))


class People:
    """
    The people of one batch.

    Attributes:
        rows: Every row of every person, as the batch left it so far.
        identities, former, merges, conflicts: New rows.
        moved: Values that point elsewhere now, each with the row that they pointed to.
        touched, made: The rows that the batch changed, and those that it added.
    """

    def __init__(self, state: State, rules: IdentityRules = DEFAULT_RULES) -> None:
        self._rules = rules
        self._known = state.identities
        self._forgotten = state.forgotten
        self._ledger = list(state.merges)
        self._held = {key: Counter(kinds) for key, kinds in state.held.items()}
        self._former = {key: list(rows) for key, rows in state.former.items()}
        self.rows = state.visitors
        self._members: dict[tuple[UUID, UUID], set[UUID]] = defaultdict(set)
        for row in state.visitors.values():
            self._members[row.workspace_id, row.canonical_id].add(row.id)
        self.identities: list[IdentityRow] = []
        self.moved: dict[Key, tuple[IdentityRow, UUID]] = {}
        self.former: list[FormerIdentityRow] = []
        self.merges: list[MergeRow] = []
        self.conflicts: dict[tuple[UUID, UUID], ConflictRow] = {}
        self.touched: set[tuple[UUID, UUID]] = set()
        self.made: set[tuple[UUID, UUID]] = set()

    def put(self, row: Visitor) -> None:
        """Change *row*, or add it."""
        self.rows[row.workspace_id, row.id] = row
        self.touched.add((row.workspace_id, row.id))

    def members(self, workspace_id: UUID, person: UUID) -> set[UUID]:
        """The ids of the rows of *person*, a canonical id."""
        return self._members[workspace_id, person]

    def rows_of(self, workspace_id: UUID, person: UUID) -> list[Visitor]:
        """The rows of *person*, a canonical id, by their ids."""
        return [self.rows[workspace_id, member] for member in sorted(self._members[workspace_id, person])]

    def join(self, workspace_id: UUID, loser: UUID, winner: UUID) -> None:
        """Let the rows of *loser* belong to *winner* from now on; both are canonical ids."""
        for row in self.rows_of(workspace_id, loser):
            self.put(msgspec.structs.replace(row, canonical_id=winner))
        self._members[workspace_id, winner] |= self._members.pop((workspace_id, loser), set())

    def known(self, workspace_id: UUID, kind: Kind, value: str) -> IdentityRow | None:
        """Where a value points to."""
        return self._known.get((workspace_id, str(kind), value))

    def forgotten(self, hit: Hit, offered: Iterable[Identifier]) -> bool:
        """Whether *hit* carries a value of somebody who was erased, so that it must bring nobody back."""
        if not self._forgotten:
            return False
        values = [(i.kind, i.value) for i in offered]
        if hit.signals.visitor_id is not None:
            values.append((Kind.VISITOR, str(hit.signals.visitor_id)))
        for kind, value in values:
            erased_at = self._forgotten.get((hit.workspace_id, str(kind), value))
            if erased_at is not None and (kind in FOR_EVER or hit.occurred_at <= erased_at):
                return True
        return False

    def identify(self, hit: Hit, offered: Sequence[Identifier]) -> Visitor:
        """The row that takes *hit*; joins people and binds values as the evidence says."""
        said = next((i.value for i in offered if i.kind is Kind.EXTERNAL_ID), None)
        candidates = self._candidates(hit, offered)
        parted = self._parted(hit.workspace_id) if len(candidates) > 1 else ()
        decision, aparts = identity.decide(said, candidates, parted, self._rules)
        match decision:
            case New():
                row = self._new_visitor(hit, "visitor", hit.client.bot)
            case Merge():
                self._merge(hit, decision)
                row = self.rows[hit.workspace_id, decision.visitor]
            case _:
                row = self.rows[hit.workspace_id, decision.visitor]
        for apart in aparts:
            self._note(hit, row, apart)
        self._bind(hit, row, offered, strangers={a.other for a in aparts if a.reason == TWO_NAMES})
        return row

    # Evidence --------------------------------------------------------------------------------------------------------

    def _candidates(self, hit: Hit, offered: Sequence[Identifier]) -> list[Candidate]:
        matched: dict[UUID, dict[Kind, UUID]] = defaultdict(dict)
        for kind, row in self._matches(hit, offered):
            matched[row.canonical_id].setdefault(kind, row.id)
        return [self._candidate(hit, person, kinds) for person, kinds in matched.items()]

    def _candidate(self, hit: Hit, person: UUID, matched: dict[Kind, UUID]) -> Candidate:
        rows = self.rows_of(hit.workspace_id, person)
        members = self._members[hit.workspace_id, person]
        lately = [
            m
            for m in self._ledger
            if m.undone_at is None
            and m.hit_id is not None
            and m.merged_at > hit.received_at - DAY
            and m.workspace_id == hit.workspace_id
            and not members.isdisjoint((m.loser_member_id, m.winner_member_id))
        ]
        return Candidate(
            person,
            matched,
            frozenset(row.external_id for row in rows if row.external_id is not None),
            min(row.first_seen_at for row in rows),
            self._holds(hit.workspace_id, person),
            len(lately),
        )

    def _holds(self, workspace_id: UUID, person: UUID) -> dict[Kind, int]:
        held = Counter[str]()
        for member in self._members[workspace_id, person]:
            held.update(self._held.get((workspace_id, member), {}))
        return {Kind(kind): number for kind, number in held.items()}

    def _parted(self, workspace_id: UUID) -> set[frozenset[UUID]]:
        """The pairs of persons whom the host took apart."""
        pairs = set()
        for merge in self._ledger:
            one = self.rows.get((workspace_id, merge.loser_member_id))
            other = self.rows.get((workspace_id, merge.winner_member_id))
            if merge.undone_at is not None and one is not None and other is not None:
                pairs.add(frozenset((one.canonical_id, other.canonical_id)))
        return pairs

    def _matches(self, hit: Hit, offered: Iterable[Identifier]) -> Iterable[tuple[Kind, Visitor]]:
        found: list[tuple[Kind, Visitor]] = []
        if hit.signals.visitor_id is not None:
            row = self.rows.get((hit.workspace_id, hit.signals.visitor_id))
            if row is not None:
                found.append((Kind.VISITOR, row))
        anonymous = next((i for i in offered if i.kind is Kind.ANONYMOUS_ID), None)
        browser = None if anonymous is None else self.known(hit.workspace_id, anonymous.kind, anonymous.value)
        names_somebody = hit.signals.visitor_id is not None
        for identifier in offered:
            known = self.known(hit.workspace_id, identifier.kind, identifier.value)
            names_somebody |= identifier.kind not in (Kind.ANONYMOUS_ID, Kind.CLICK)
            if known is None or known.shared_at is not None:
                continue
            if identifier.kind is Kind.CLICK and not self._may_land(hit, known, browser):
                continue
            found.append((identifier.kind, self.rows[hit.workspace_id, known.visitor_id]))
        if not found and not names_somebody and browser is not None:
            # Nobody signed in on a shared device: what is done on it is the device's own.
            found.append((Kind.ANONYMOUS_ID, self.rows[hit.workspace_id, browser.visitor_id]))
        return found

    def _may_land(self, hit: Hit, click: IdentityRow, browser: IdentityRow | None) -> bool:
        """
        Whether a click is evidence for this hit.

        It is for the click itself, and for the first browser that lands with it within `CLICK_WINDOW`; afterwards only for
        that browser, which proves itself by its own id.
        """
        if hit.origin == "link":
            return True
        landed = self.known(hit.workspace_id, Kind.LANDING, click.value)
        if landed is not None:
            return browser is not None and browser.visitor_id == landed.visitor_id
        return abs(hit.occurred_at - click.first_seen_at) <= CLICK_WINDOW

    # What changes ----------------------------------------------------------------------------------------------------

    def _new_visitor(self, hit: Hit, purpose: str, bot: str | None) -> Visitor:
        new_id = derived_id(hit.id, hit.occurred_at, purpose)
        row = Visitor(
            workspace_id=hit.workspace_id,
            id=new_id,
            canonical_id=new_id,
            first_seen_at=hit.occurred_at,
            last_seen_at=hit.occurred_at,
            bot=bot,
        )
        self.put(row)
        self.made.add((row.workspace_id, row.id))
        self._members[row.workspace_id, row.id].add(row.id)
        return row

    def _merge(self, hit: Hit, merge: Merge) -> None:
        for loser in merge.losers:
            self.join(hit.workspace_id, loser, merge.winner)
            row = MergeRow(
                workspace_id=hit.workspace_id,
                id=derived_id(hit.id, hit.occurred_at, f"merge {loser}"),
                loser_id=loser,
                winner_id=merge.winner,
                loser_member_id=merge.tied[loser],
                winner_member_id=merge.tied[merge.winner],
                evidence={"matched": [str(kind) for kind in merge.evidence]},
                hit_id=hit.id,
                merged_at=hit.received_at,
            )
            self.merges.append(row)
            self._ledger.append(row)

    def _note(self, hit: Hit, row: Visitor, apart: Apart) -> None:
        self.conflicts.setdefault(
            (hit.id, apart.other),
            ConflictRow(
                workspace_id=hit.workspace_id,
                hit_id=hit.id,
                visitor_id=row.id,
                other_id=apart.other,
                reason=apart.reason,
                seen_at=hit.received_at,
            ),
        )

    def _bind(self, hit: Hit, row: Visitor, offered: Iterable[Identifier], *, strangers: set[UUID]) -> None:
        """Remember that the values of this hit point to *row*; a value that points somewhere already stays there."""
        for identifier in offered:
            if identifier.kind is Kind.EXTERNAL_ID:
                self._name(hit, row, identifier)
            known = self.known(hit.workspace_id, identifier.kind, identifier.value)
            if known is None:
                self._remember(hit, row, identifier)
            elif identifier.kind is Kind.ANONYMOUS_ID and known.shared_at is None:
                owner = self.rows[hit.workspace_id, known.visitor_id]
                if owner.canonical_id in strangers:
                    self._hand_over(hit, row, known)
            if (
                identifier.kind is Kind.CLICK
                and hit.origin != "link"
                and hit.signals.anonymous_id is not None
                and self.known(hit.workspace_id, Kind.LANDING, identifier.value) is None
            ):
                self._remember(hit, row, Identifier(Kind.LANDING, identifier.value))

    def _remember(self, hit: Hit, row: Visitor, identifier: Identifier) -> None:
        person = self.rows[row.workspace_id, row.id].canonical_id
        most = identity.most_of(self._rules).get(identifier.kind)
        if most is not None and self._holds(row.workspace_id, person).get(identifier.kind, 0) >= most:
            reason = f"has {most} values of the kind {identifier.kind} already; one more is no evidence"
            self._note(hit, row, Apart(person, reason))
            return
        known = IdentityRow(
            workspace_id=hit.workspace_id,
            kind=str(identifier.kind),
            value=identifier.value,
            visitor_id=row.id,
            hit_id=hit.id,
            first_seen_at=hit.occurred_at,
        )
        self._known[known.workspace_id, known.kind, known.value] = known
        self._held.setdefault((row.workspace_id, row.id), Counter())[known.kind] += 1
        self.identities.append(known)

    def _hand_over(self, hit: Hit, row: Visitor, known: IdentityRow) -> None:
        """Let a browser on which somebody else signed in belong to them from now on; to nobody when it is many people's."""
        key = (known.workspace_id, known.kind, known.value)
        former = self._former.setdefault(key, [])
        former.append((known.visitor_id, hit.occurred_at))
        since = hit.occurred_at - self._rules.device_window
        owners = {visitor_id for visitor_id, until in former if until > since} | {row.id}
        is_shared = len(owners) >= self._rules.people_per_device
        if is_shared:
            row = self._new_visitor(hit, "shared device", UNUSED)
        now = msgspec.structs.replace(
            known,
            visitor_id=row.id,
            hit_id=hit.id,
            first_seen_at=hit.occurred_at,
            shared_at=hit.occurred_at if is_shared else None,
        )
        before = self.moved[key][1] if key in self.moved else known.visitor_id
        self._known[key] = now
        if known in self.identities:
            self.identities[self.identities.index(known)] = now
        else:
            self.moved[key] = (now, before)
        self.former.append(
            FormerIdentityRow(
                workspace_id=known.workspace_id,
                kind=known.kind,
                value=known.value,
                visitor_id=known.visitor_id,
                hit_id=known.hit_id,
                first_seen_at=known.first_seen_at,
                until=hit.occurred_at,
            )
        )

    def _name(self, hit: Hit, row: Visitor, identifier: Identifier) -> None:
        """Only the row that an external id points to carries it, so that an unmerge leaves it with one of both."""
        if self.known(hit.workspace_id, Kind.EXTERNAL_ID, identifier.value) is None:
            self.put(
                msgspec.structs.replace(self.rows[row.workspace_id, row.id], external_id=identifier.value)
            )
