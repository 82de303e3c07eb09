"""
Pages of a list that go by key: a cursor says where the last page ended, not how many entries came before.

A cursor is base64url of MessagePack: the list's name, and what the last entry is sorted by, and its id. It is opaque to its bearer
and grants nothing, so it is not signed; the list's name keeps it from being used on another list by mistake.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar
from uuid import UUID

import msgspec

from goodanalytics.errors import InvalidInput

MAX_PAGE = 200

Item = TypeVar("Item")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """
    Some of a longer list.

    Attributes:
        next_cursor: What `after` takes for the next page; `None` on the last one.
    """

    items: tuple[Item, ...]
    next_cursor: str | None


def check_limit(limit: int) -> None:
    """
    Let a page's length pass that is 1 to 200.

    Raises:
        InvalidInput: It is not.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit is {limit}; a page holds 1 to {MAX_PAGE}", where="limit")


def cursor(listing: str, at: datetime | str, last_id: UUID) -> str:
    """The cursor of a page of *listing* whose last entry has *at*, what the list is sorted by, and *last_id*."""
    packed = msgspec.msgpack.encode((listing, at, last_id))
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_cursor(written: str, listing: str) -> tuple[datetime, UUID]:
    """
    Time and id of the entry at which *written* left off. Cursors come back from browsers: expect anything.

    Raises:
        InvalidInput: It is no cursor of *listing*.
    """
    at, last_id = _read(written, listing, _OF_TIMES)
    try:
        return at.astimezone(UTC), last_id
    except OverflowError:
        raise _refusal(written) from None


def read_text_cursor(written: str, listing: str) -> tuple[str, UUID]:
    """
    Text and id of the entry at which *written* left off, in a list that is sorted by a text.

    Raises:
        InvalidInput: It is no cursor of *listing*.
    """
    at, last_id = _read(written, listing, _OF_TEXTS)
    if "\0" in at:
        raise _refusal(written)
    return at, last_id


def _read(
    written: str, listing: str, decoder: msgspec.msgpack.Decoder[tuple[str, Key, UUID]]
) -> tuple[Key, UUID]:
    try:
        padded = written.encode("ascii") + b"=" * (-len(written) % 4)
        name, at, last_id = decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError):
        raise _refusal(written) from None
    if name != listing:
        raise _refusal(written)
    return at, last_id


def _refusal(written: str) -> InvalidInput:
    return InvalidInput(
        f"{written[:80]!r} is no cursor of this list. Pass `next_cursor` of its last page as it is, or none",
        where="cursor",
    )


_OF_TIMES = msgspec.msgpack.Decoder(tuple[str, Annotated[datetime, msgspec.Meta(tz=True)], UUID])
_OF_TEXTS = msgspec.msgpack.Decoder(tuple[str, str, UUID])

__all__ = ["MAX_PAGE", "Page", "check_limit", "cursor", "read_cursor", "read_text_cursor"]
