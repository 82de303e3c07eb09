"""What became of a hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Status = Literal["recorded", "repeated", "conflict", "resolved", "dropped", "refused", "accepted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of a hit.

    Attributes:
        status: recorded; repeated (this id was here before); conflict (it was here with another body); resolved (its
            visitor was found or made, and nothing else was asked); dropped (nothing was kept of it); refused (a refund of more
            than its sale has left); accepted (it is in the log, or on its way there, and not processed yet).
        visitor_id: Canonical id; `None` for a repetition and for what was dropped or refused.
        reason: Why it is a conflict, or was dropped or refused.
    """

    hit_id: UUID
    status: Status
    visitor_id: UUID | None = None
    reason: str | None = None

    @property
    def event_id(self) -> UUID:
        """An event carries its hit's id."""
        return self.hit_id


__all__ = ["Outcome", "Status"]
