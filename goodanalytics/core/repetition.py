"""
What a receipt keeps of what was said under a host's key: enough to tell a repetition from something else.

1. A key names one lead, one sale or one refund of a workspace, whoever tells of it: Python, REST, or a page with the host's token.
   So the hit's id comes from workspace, kind and key (`core.hits.id_for_key`), and the second one to tell is a repetition.
2. Tellers know different things of one order: the page its address, a payment hook its metadata. Between two of them only kind,
   money and, of a refund, the sale are compared; what one teller says twice has to be the same in everything.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal, TypeAlias

import msgspec

from goodanalytics.core.hits import Hit

Teller: TypeAlias = Literal["python", "api", "page"]

_MONEY: Final = 16  # hexadecimal digits


def digest(hit: Hit, teller: Teller, whole: str = "") -> str:
    """
    What *teller* says with *hit*, as a short text.

    Args:
        whole: All that it says, as a short text; empty when only kind and money are to be the same.
    """
    # A refund is in the currency of its sale, whether it is said or not.
    currency = None if hit.sale_id is not None else hit.currency
    said = msgspec.json.encode([str(hit.event_type), hit.amount_cents, currency, hit.sale_id])
    return f"{hashlib.sha256(said).hexdigest()[:_MONEY]}.{teller}:{whole}"


def digest_of(hit: Hit) -> str:
    """What *hit* says, without who and when, as a short text: the same call made again has the same digest."""
    said = [
        str(hit.event_type),
        hit.name,
        hit.url,
        hit.amount_cents,
        hit.currency,
        sorted(hit.properties.items()),
        hit.reason,
    ]
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:32]


def of_sale(hit: Hit) -> str | None:
    """The digest of *hit*, a refund, now that its sale is known."""
    if hit.digest is None:
        return None
    teller, _, whole = hit.digest.partition(".")[2].partition(":")
    match teller:
        case "python" | "api" | "page":
            return digest(hit, teller, whole)
        case _:
            return hit.digest


def is_same(said: str | None, noted: str | None) -> bool:
    """Whether two digests are of one thing said twice; `None` says nothing."""
    if said is None or noted is None or said == noted:
        return True
    one, _, first = said.partition(".")
    other, _, second = noted.partition(".")
    return one == other and first.partition(":")[0] != second.partition(":")[0]


__all__ = ["Teller", "digest", "digest_of", "is_same", "of_sale"]
