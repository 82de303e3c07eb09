"""
Keys that a caller gives to what it asks, so that asking twice does it once.

A key becomes the hit's id (`core.hits.id_for_key`) and the body's digest travels with it, so the ledger itself tells a
repetition from another body under a used key. Secret and publishable keys have separate rooms: no page can occupy a
server's key. A lead, a sale and a refund have the id that the same key has in Python (`core.repetition`).
"""

from __future__ import annotations

import hashlib
from uuid import UUID

import msgspec

from goodanalytics.core.bounds import MAX_TEXT
from goodanalytics.core.conversions import KINDS
from goodanalytics.core.hits import id_for_key
from goodanalytics.errors import InvalidInput
from goodanalytics.web.api.operations import Call


def header_key(call: Call) -> str | None:
    """
    The `Idempotency-Key` header, with or without the quotes that its draft standard gives it.

    Raises:
        InvalidInput: It is empty or too long.

    Source: draft-ietf-httpapi-idempotency-key-header-07, section 2.1.
    """
    given = call.request.headers.get("idempotency-key")
    if given is None:
        return None
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= MAX_TEXT:
        raise InvalidInput(f"has {len(key)} characters; send 1 to {MAX_TEXT}", where="Idempotency-Key")
    return key


def keyed_id(call: Call, key: str | None, kind: str | None = None) -> UUID:
    """The hit id that stands for *key*, which is of an event of that *kind*; a new one when there is none."""
    if key is None:
        return call.room.config.new_id()
    if not call.trusted:
        return id_for_key(call.workspace_id, "api-publishable", key)
    return id_for_key(call.workspace_id, kind if kind in KINDS and kind is not None else "api", key)


def digest_of(body: msgspec.Struct, about: str = "") -> str:
    """
    SHA-256 of what *body* says, whatever the order of its members or the blanks between them.

    Args:
        about: What else the request says, outside of its body.
    """
    said = about.encode() + msgspec.json.encode(body, order="deterministic")
    return hashlib.sha256(said).hexdigest()
