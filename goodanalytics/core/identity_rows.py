"""
The rows that say who is who: visitors as far as they decide it, values that point to them, and the ledger of merges.

`core.people` decides with them, `store` reads and writes them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

Key = tuple[UUID, str, str]
"""A value: workspace, kind, value."""

RowKey = tuple[UUID, UUID]
"""A row of `visitors`: workspace, id."""


class IdentityRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


class FormerIdentityRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of `former_identities`: a value pointed to this visitor from *first_seen_at* until *until*."""

    workspace_id: UUID
    kind: str
    value: str
    visitor_id: UUID
    hit_id: UUID | None
    first_seen_at: datetime
    until: datetime


class MergeRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


class ConflictRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of `conflicts`: two persons that a hit pointed to and that stay apart, or what was too much for one."""

    workspace_id: UUID
    hit_id: UUID
    visitor_id: UUID
    other_id: UUID
    reason: str
    seen_at: datetime


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What of a visitor's row decides who is who: the row itself holds what its browser did (`core.visitors`)."""

    workspace_id: UUID
    id: UUID
    canonical_id: UUID
    external_id: str | None = None
    first_seen_at: datetime


@dataclass(slots=True)
class State:
    """
    What is known of who is who before the batch: all that its hits can touch.

    Attributes:
        members: Every row of every person that a hit points to.
        merges: Of the people whom a hit tells something new of, live and undone.
        held: How many values of a kind point to each of their rows.
        former: The rows that a browser's value pointed to before, each with the time until which it did.
        forgotten: Values of erased people, with the time of the erasure.
    """

    identities: dict[Key, IdentityRow] = field(default_factory=dict)
    members: dict[RowKey, Member] = field(default_factory=dict)
    merges: list[MergeRow] = field(default_factory=list)
    held: dict[RowKey, dict[str, int]] = field(default_factory=dict)
    former: dict[Key, list[tuple[UUID, datetime]]] = field(default_factory=dict)
    forgotten: dict[Key, datetime] = field(default_factory=dict)


def derived_id(hit_id: UUID, at: datetime, purpose: str) -> UUID:
    """An id of version 7 (RFC 9562) that stands for *purpose* of this hit, for ever the same."""
    digest = int.from_bytes(hashlib.sha256(hit_id.bytes + purpose.encode()).digest()[:10])
    milliseconds = int(at.timestamp() * 1_000) & ((1 << 48) - 1)
    value = (milliseconds << 80) | digest
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62))
