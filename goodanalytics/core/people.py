"""
Who the hits of a batch belong to: rows, the values that point to them, and the ledger of merges.

`take` is asked for each hit in turn, and each sees what the hits before it changed. What was done is `core.plan`'s.

1. A value points to one row. It moves only when somebody else signs in on the browser; where it pointed before is kept, with
   the time until which it did, and what was done until then stays with whom it was.
2. A merge ties the two rows that the evidence led to, not the persons that they were at the time. So undoing another merge
   leaves each tie where it belongs (`core.partition`).
3. Values of erased people bring nobody back: their hits are dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from goodanalytics.core import identity
from goodanalytics.core.hits import Hit
from goodanalytics.core.identity import (
    CLICK_WINDOW,
    STRENGTH,
    TWO_NAMES,
    Apart,
    Candidate,
    Identifier,
    Kind,
    Merge,
    New,
)
from goodanalytics.core.identity_rows import (
    ConflictRow,
    FormerIdentityRow,
    IdentityRow,
    Key,
    Member,
    MergeRow,
    RowKey,
    State,
    derived_id,
)
from goodanalytics.core.identity_rules import DEFAULT_RULES, IdentityRules
from goodanalytics.core.tombstones import FOR_EVER

DAY = timedelta(days=1)
UNUSED = "nobody was seen on it yet"
"""What stands in `Visitor.bot` of a shared device until its first hit: so long it is no visitor to count."""


_SETTLES = frozenset(kind for kind, strength in STRENGTH.items() if strength) - {Kind.CLICK}
"""Kinds of which one value alone leaves nothing to decide once it is known; a click has to be landed with as well."""


def settling(hit: Hit, offered: Sequence[Identifier]) -> Identifier | None:
    """The value that alone says whose *hit* is once it is known, and then leaves nothing to decide and nothing to bind."""
    if len(offered) == 1 and hit.signals.visitor_id is None and offered[0].kind in _SETTLES:
        return offered[0]
    return None


class Taken(msgspec.Struct, frozen=True, gc=False):
    """
    Whose hit it is.

    Attributes:
        visitor_id: The row that takes it.
        person_id: What its person was known as then.
        company: The rows of the person then; only told for a hit from the host's servers, which may join the visit of any of them.
    """

    visitor_id: UUID
    person_id: UUID
    company: frozenset[UUID] = frozenset()


class People:
    """
    The people of one batch.

    Attributes:
        rows: Every row of every person, as the batch left it so far.
        identities, former, merges, conflicts: New rows.
        moved: Values that point elsewhere now, each with the row that they pointed to.
        changed: Rows whose person or name is another one now, and the first of every person that grew.
        made: The rows that the batch added, each with the time of its hit and why that is a bot's.
    """

    def __init__(self, state: State, rules: IdentityRules = DEFAULT_RULES) -> None:
        self._rules = rules
        self._known = state.identities
        self._forgotten = state.forgotten
        self._ledger = list(state.merges)
        self._held = {key: Counter(kinds) for key, kinds in state.held.items()}
        self._former = {key: list(rows) for key, rows in state.former.items()}
        self.rows = state.members
        self._members: dict[RowKey, set[UUID]] | None = None
        self.identities: list[IdentityRow] = []
        self.moved: dict[Key, tuple[IdentityRow, UUID]] = {}
        self.former: list[FormerIdentityRow] = []
        self.merges: list[MergeRow] = []
        self.conflicts: dict[tuple[UUID, UUID], ConflictRow] = {}
        self.changed: set[RowKey] = set()
        self.made: dict[RowKey, tuple[datetime, str | None]] = {}

    def members(self, workspace_id: UUID, person: UUID) -> set[UUID]:
        """The ids of the rows of *person*, a canonical id."""
        return self._by_person[workspace_id, person]

    def company(self, workspace_id: UUID, visitor_id: UUID) -> frozenset[UUID]:
        """The ids of the rows of the person that the row *visitor_id* belongs to."""
        return frozenset(self.members(workspace_id, self.rows[workspace_id, visitor_id].canonical_id))

    def rows_of(self, workspace_id: UUID, person: UUID) -> list[Member]:
        """The rows of *person*, a canonical id, by their ids."""
        return [self.rows[workspace_id, member] for member in sorted(self.members(workspace_id, person))]

    def join(self, workspace_id: UUID, loser: UUID, winner: UUID) -> None:
        """Let the rows of *loser* belong to *winner* from now on; both are canonical ids."""
        for row in self.rows_of(workspace_id, loser):
            self._put(msgspec.structs.replace(row, canonical_id=winner))
        by_person = self._by_person
        by_person[workspace_id, winner] |= by_person.pop((workspace_id, loser), set())
        # Who waits for the winner sees by this that the person has grown: `store.people.load`.
        self.changed.add((workspace_id, winner))

    def tie(self, workspace_id: UUID, one: UUID, other: UUID) -> None:
        """Let the persons of two rows be one from now on."""
        rows = self.rows[workspace_id, one], self.rows[workspace_id, other]
        older, younger = sorted(rows, key=lambda row: (row.first_seen_at, row.id))
        if older.canonical_id != younger.canonical_id:
            self.join(workspace_id, younger.canonical_id, older.canonical_id)

    @property
    def _by_person(self) -> dict[RowKey, set[UUID]]:
        if self._members is None:  # most batches tell nothing new of anybody, and never ask
            self._members = defaultdict(set)
            for row in self.rows.values():
                self._members[row.workspace_id, row.canonical_id].add(row.id)
        return self._members

    def _put(self, row: Member) -> None:
        self.rows[row.workspace_id, row.id] = row
        self.changed.add((row.workspace_id, row.id))

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
            key = (hit.workspace_id, str(kind), value)
            erased_at = self._forgotten.get(key)
            # A name that was said again since then is somebody else's.
            if erased_at is not None and (
                kind in FOR_EVER or (hit.occurred_at <= erased_at and key not in self._known)
            ):
                return True
        return False

    def take(self, hit: Hit, offered: Sequence[Identifier]) -> Taken | None:
        """Say whose *hit* is, join people and bind values as the evidence says; `None` when it is an erased person's."""
        if self._forgotten and self.forgotten(hit, offered):
            return None
        row = self._identify(hit, offered)
        if hit.quiet:
            return Taken(row.id, row.canonical_id)
        if hit.occurred_at < row.first_seen_at:
            key = row.workspace_id, row.id
            self.rows[key] = msgspec.structs.replace(self.rows[key], first_seen_at=hit.occurred_at)
        if hit.origin == "server":
            return Taken(row.id, row.canonical_id, self.company(row.workspace_id, row.id))
        return Taken(row.id, row.canonical_id)

    def _identify(self, hit: Hit, offered: Sequence[Identifier]) -> Member:
        if (value := settling(hit, offered)) is not None:
            known = self._known.get((hit.workspace_id, value.kind, value.value))
            if known is not None:
                return self.rows[hit.workspace_id, known.visitor_id]
        if not offered and hit.signals.visitor_id is not None:
            # Whom the host hands back to us, and nothing beside.
            handed = self.rows.get((hit.workspace_id, hit.signals.visitor_id))
            if handed is not None:
                return handed
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
        members = self.members(hit.workspace_id, person)
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
        for member in self.members(workspace_id, person):
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

    def _matches(self, hit: Hit, offered: Iterable[Identifier]) -> Iterable[tuple[Kind, Member]]:
        found: list[tuple[Kind, Member]] = []
        if hit.signals.visitor_id is not None:
            row = self.rows.get((hit.workspace_id, hit.signals.visitor_id))
            if row is not None:
                found.append((Kind.VISITOR, row))
        anonymous = next((i for i in offered if i.kind is Kind.ANONYMOUS_ID), None)
        browser = None if anonymous is None else self.known(hit.workspace_id, anonymous.kind, anonymous.value)
        names_somebody = hit.signals.visitor_id is not None
        for identifier in offered:
            known = self.known(hit.workspace_id, identifier.kind, identifier.value)
            names_somebody |= identifier.kind not in (Kind.ANONYMOUS_ID, Kind.CLICK, Kind.FINGERPRINT)
            if known is None or known.shared_at is not None:
                continue
            if identifier.kind is Kind.CLICK and not self._may_land(hit, known, browser):
                continue
            found.append((identifier.kind, self.rows[hit.workspace_id, known.visitor_id]))
        is_found = any(kind is not Kind.FINGERPRINT for kind, _ in found)
        if not is_found and not names_somebody and browser is not None:
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

    def _new_visitor(self, hit: Hit, purpose: str, bot: str | None) -> Member:
        new_id = derived_id(hit.id, hit.occurred_at, purpose)
        row = Member(
            workspace_id=hit.workspace_id, id=new_id, canonical_id=new_id, first_seen_at=hit.occurred_at
        )
        self.rows[row.workspace_id, new_id] = row
        self.made[row.workspace_id, new_id] = hit.occurred_at, bot
        if self._members is not None:
            self._members[row.workspace_id, new_id].add(new_id)
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

    def _note(self, hit: Hit, row: Member, apart: Apart) -> None:
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

    def _bind(self, hit: Hit, row: Member, offered: Iterable[Identifier], *, strangers: set[UUID]) -> None:
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

    def _remember(self, hit: Hit, row: Member, identifier: Identifier) -> None:
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

    def _hand_over(self, hit: Hit, row: Member, known: IdentityRow) -> None:
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

    def _name(self, hit: Hit, row: Member, identifier: Identifier) -> None:
        """Only the row that an external id points to carries it, so that an unmerge leaves it with one of both."""
        if self.known(hit.workspace_id, Kind.EXTERNAL_ID, identifier.value) is None:
            self._put(
                msgspec.structs.replace(self.rows[row.workspace_id, row.id], external_id=identifier.value)
            )
