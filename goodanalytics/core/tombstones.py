"""
What is left of a person who was erased: digests that recognise their values, and tell nobody what they were.

A digest is HMAC-SHA256 under a key derived from the secret key, so that nobody who reads the table can try out addresses, and
bound to the workspace. A device's values (its cookie, its clicks, the ids of its rows) are refused for ever, since nothing but
the erased person's browser sends them. A name that the host says (external id, e-mail, phone) may come again after the
erasure, as a new person: only hits from before it are refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from goodanalytics.core.identity import Kind

FOR_EVER = frozenset({Kind.VISITOR, Kind.ANONYMOUS_ID, Kind.CLICK})
"""Kinds of which a value is refused however late it comes."""


@dataclass(frozen=True, slots=True, repr=False)
class Graveyard:
    """
    Makes digests.

    Attributes:
        keys: The secret key, then the former ones that still recognise.
    """

    keys: tuple[bytes, ...]

    @classmethod
    def of(cls, secret_key: str, previous: Sequence[str] = ()) -> Graveyard:
        """The digests of a site with these secret keys."""
        return cls(
            tuple(
                hmac.digest(k.encode(), b"goodanalytics tombstone", sha256) for k in (secret_key, *previous)
            )
        )

    def digests(self, workspace_id: UUID, kind: str, value: str) -> list[str]:
        """The digest that is written, then those that earlier keys wrote."""
        said = f"{workspace_id} {kind} {value}".encode()
        return [hmac.digest(key, said, sha256).hex() for key in self.keys]
