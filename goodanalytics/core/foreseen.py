"""What a hit would change about who is who: the answer of `identify(…, dry_run=True)`. Nothing of it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from goodanalytics.core.hits import Hit
from goodanalytics.core.people import People, Taken
from goodanalytics.core.plan import Plan
from goodanalytics.core.visitors import Visitor


@dataclass(frozen=True, slots=True)
class Foreseen:
    """
    What would happen.

    Attributes:
        decision: new (a visitor would be made), known (it is somebody already), merge (several become one) or dropped
            (it is somebody who was erased).
        visitor: The person as it would be afterwards; `None` when dropped.
        joined: What the persons are known as that would become part of *visitor*.
        evidence: The kinds that tie them.
        kept_apart: Persons that the evidence leads to as well and that stay apart, each with the reason.
        bound: Values that would point to the person from then on: kind and value.
    """

    decision: Literal["new", "known", "merge", "dropped"]
    visitor: Visitor | None
    joined: tuple[UUID, ...] = ()
    evidence: tuple[str, ...] = ()
    kept_apart: tuple[tuple[UUID, str], ...] = ()
    bound: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As REST shows it."""
        return {
            "decision": self.decision,
            "visitor": None if self.visitor is None else self.visitor.to_json(),
            "joined": [str(person) for person in self.joined],
            "evidence": list(self.evidence),
            "kept_apart": [{"visitor_id": str(person), "reason": why} for person, why in self.kept_apart],
            "bound": [{"kind": kind, "value": value} for kind, value in self.bound],
        }


def foreseen(people: People, plan: Plan, hit: Hit, taken: Taken) -> Foreseen:
    """What *people* and *plan*, which took *hit* alone, would change."""
    person = plan.person(hit.workspace_id, taken.visitor_id)
    merged = [merge.loser_id for merge in people.merges]
    decision: Literal["new", "known", "merge"] = (
        "merge" if merged else "new" if (hit.workspace_id, taken.visitor_id) in people.made else "known"
    )
    evidence = dict.fromkeys(str(kind) for merge in people.merges for kind in merge.evidence["matched"])
    return Foreseen(
        decision,
        person,
        tuple(merged),
        tuple(evidence),
        tuple((row.other_id, row.reason) for row in people.conflicts.values()),
        tuple((row.kind, row.value) for row in people.identities),
    )
