"""
Who is who, from the ledger alone: rows of visitors, and the merges that hold them together.

A merge ties two rows. Persons are what the live merges leave connected, so to undo one is to leave it out: no other row has to
be touched, and nothing has to be remembered of the time before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID


def partition(rows: Iterable[tuple[UUID, datetime]], ties: Iterable[tuple[UUID, UUID]]) -> dict[UUID, UUID]:
    """
    The canonical id of each row: of those that *ties* connect, the one that was seen first.

    Args:
        rows: Each with the time at which it was first seen; of equals the lower id is the first.
        ties: Pairs of rows. One that names a row which is not among *rows* ties nothing.
    """
    age = {row: (seen, row) for row, seen in rows}
    leader = {row: row for row in age}

    def lead(row: UUID) -> UUID:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for one, other in ties:
        if one in leader and other in leader:
            younger, older = sorted((lead(one), lead(other)), key=age.__getitem__, reverse=True)
            leader[younger] = older
    return {row: lead(row) for row in leader}
