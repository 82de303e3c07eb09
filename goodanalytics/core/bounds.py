"""
How much of anything is taken, and the checks that keep it within: the same for a browser's beacon and a host's call.

Rules of this file
1. A text that is merely too long is cut; what no text needs is removed: control characters (PostgreSQL refuses NUL), halves
   of surrogate pairs, and the characters that turn the direction of what is shown beside them.
2. A value of the wrong type or an unreadable number is refused by `Invalid`, which says where it stands and what is right.

Bounds, per item: a body of 64 KiB, 100 items a body, 50 properties, keys of 64 and values of 1,024 characters, URLs of
2,083 characters (the longest that Internet Explorer accepted, and what the original keeps), other texts of 255.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

MAX_BODY = 64 * 1024  # bytes
MAX_ITEMS = 100
MAX_PROPERTIES = 50
MAX_KEY = 64  # characters
MAX_VALUE = 1_024  # characters
MAX_TEXT = 255  # characters
MAX_ID = 128  # characters
MAX_URL = 2_083  # characters
MAX_ENGAGED_MS = 30 * 60 * 1_000  # a ping that claims more than half an hour is cut to it
MAX_AMOUNT_CENTS = 10**15  # ten trillion of the major unit; a bigint holds 9,000 times as much

Property = str | int | float | bool | None

# The last two ranges open and close a change of direction (Unicode Standard Annex 9, sections 2.1 to 2.5).
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)
_SPACE = re.compile(r"[\t\r\n]+")
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_AT_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)


class Invalid(Exception):
    """
    A value that is out of its bounds; raised by the checks here and caught where an item is read.

    Attributes:
        where: Path to the value inside the item, such as `properties.plan`.
        reason: What is wrong with it, and what would be right.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(reason)
        self.where = where
        self.reason = reason


def text(value: str | None, limit: int = MAX_TEXT) -> str | None:
    """*value* without control characters and outer blanks, at most *limit* characters; `None` when nothing is left."""
    if value is None:
        return None
    if not value.isprintable():
        value = _CONTROL.sub("", _SPACE.sub(" ", value))
    return value.strip()[:limit].rstrip() or None


def uuid_or_none(value: str | None) -> UUID | None:
    """*value* as a UUID; `None` when it is not one, or the nil UUID, which many clients send for "none"."""
    if value is None or len(value) != 36:
        return None
    try:
        found = UUID(value)
    except ValueError:
        return None
    return found if found.int else None


def flat_properties(value: Mapping[str, Any] | None, where: str = "properties") -> dict[str, Property]:
    """
    Check and bound a property map: flat strings, whole and broken numbers, booleans and nulls.

    Strings are cleaned and cut; a number that PostgreSQL or JavaScript cannot hold is refused.
    """
    if not value:
        return {}
    if len(value) > MAX_PROPERTIES:
        raise Invalid(where, f"{len(value)} properties; at most {MAX_PROPERTIES} are kept. Send fewer")
    kept: dict[str, Property] = {}
    for raw_key, item in value.items():
        key = text(raw_key, MAX_KEY)
        if key is None:
            raise Invalid(where, "a property has an empty name")
        kept[key] = _property(item, f"{where}.{key}")
    return kept


def _property(item: object, where: str) -> Property:
    match item:
        case None | bool():
            return item
        case int():
            if abs(item) >= 2**63:
                raise Invalid(where, "a whole number beyond 64 bits; send it as a string")
            return item
        case float():
            if not math.isfinite(item):
                raise Invalid(where, "a number that is not finite")
            return item
        case str():
            return text(item, MAX_VALUE)
        case _:
            raise Invalid(
                where, f"{type(item).__name__} values are not kept; send strings, numbers, booleans or null"
            )


def money(amount_cents: int | None, currency: str | None) -> tuple[int | None, str | None]:
    """Check an amount in minor units and its ISO 4217 currency code, which comes back in upper case."""
    if amount_cents is not None and not 0 <= amount_cents <= MAX_AMOUNT_CENTS:
        raise Invalid(
            "amount_cents",
            f"{str(amount_cents)[:20]} is outside 0 to {MAX_AMOUNT_CENTS}; send minor units, such as 4900 for 49.00",
        )
    if currency is not None:
        if not _CURRENCY.fullmatch(currency):
            raise Invalid(
                "currency", f"{currency[:20]!r} is not a currency code; send three letters such as EUR"
            )
        currency = currency.upper()
    if amount_cents and currency is None:
        raise Invalid("currency", "an amount needs its currency; send three letters such as EUR")
    return amount_cents, currency


def unreadable(error: Exception) -> tuple[str, str]:
    """Where and why, from a decoder's exception; never quotes the body, which may hold anything."""
    if isinstance(error, RecursionError):
        return "", "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "", "not UTF-8"
    found = _AT_PATH.match(str(error))
    path, reason = (found["path"] or "", found["reason"]) if found else ("", str(error))
    return path.removeprefix("$").removeprefix("."), text(reason, MAX_TEXT) or "not readable"
