"""What the host says in Python, checked and bounded before it becomes a hit. Wrong values are the caller's to hear of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from goodanalytics.core import bounds
from goodanalytics.core.bounds import Invalid, Property
from goodanalytics.core.browsers import id_in
from goodanalytics.core.consent import PURPOSES, Consent
from goodanalytics.core.hits import Signals
from goodanalytics.core.identity import stands_for_nobody
from goodanalytics.core.orders import MAX_ITEMS, MAX_QUANTITY, Item, Place
from goodanalytics.errors import InvalidInput


def signals(found: Signals) -> Signals:
    """*found* without what PostgreSQL refuses and within their bounds."""
    return msgspec.structs.replace(
        found,
        external_id=external_id(found.external_id),
        email=bounds.text(found.email, 254),
        phone=bounds.text(found.phone, 32),
        name=bounds.text(found.name),
        traits=properties(found.traits, "traits"),
        anonymous_id=bounds.text(id_in(found.anonymous_id), bounds.MAX_ID),
        fingerprint=bounds.text(found.fingerprint, bounds.MAX_ID),
    )


def external_id(value: str | None) -> str | None:
    """
    The host's own id of a person, bounded.

    Raises:
        InvalidInput: It is empty, or a word that stands for nobody, such as `undefined`.
    """
    found = bounds.text(value, bounds.MAX_ID)
    if value is not None and (found is None or stands_for_nobody(found)):
        raise InvalidInput(
            f"external_id is {value!r}, which names nobody; give your own id of the person, or leave it out",
            where="external_id",
        )
    return found


def properties(value: Mapping[str, Property] | None, where: str) -> dict[str, Property]:
    """
    A map of properties, bounded; *where* names it in an error.

    Raises:
        InvalidInput: It has too many, or a value that is not flat.
    """
    try:
        return bounds.flat_properties(value, where)
    except Invalid as error:
        raise InvalidInput(f"{error.where}: {error.reason}", where=error.where) from None


def key(value: str | None) -> str | None:
    """
    An idempotency key, as it is.

    Raises:
        InvalidInput: It is longer than is kept, or holds what PostgreSQL refuses: cut, it would be another one's.
    """
    if value is not None and bounds.text(value) != value:
        raise InvalidInput(
            f"key is {value[:80]!r}; give 1 to {bounds.MAX_TEXT} printable characters without outer blanks",
            where="key",
        )
    return value


def items(value: Sequence[Item | Mapping[str, Any]]) -> tuple[Item, ...]:
    """
    The lines of an order, bounded.

    Raises:
        InvalidInput: They are more than 100, or one cannot be read.
    """
    if len(value) > MAX_ITEMS:
        raise InvalidInput(f"contents has {len(value)} lines; at most {MAX_ITEMS} are kept", where="contents")
    return tuple(_item(item, f"contents[{index}]") for index, item in enumerate(value))


def _item(value: Item | Mapping[str, Any], where: str) -> Item:
    try:
        item = value if isinstance(value, Item) else msgspec.convert(dict(value), Item)
        unknown = set() if isinstance(value, Item) else set(value) - set(Item.__struct_fields__)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise InvalidInput(f"{where} cannot be read: {error}", where=where) from None
    item_id = bounds.text(item.id, bounds.MAX_ID)
    price = item.price_cents
    if unknown or item_id is None:
        wrong = f"has {sorted(unknown)}" if unknown else "has no id"
        raise InvalidInput(f"{where} {wrong}; known are {', '.join(Item.__struct_fields__)}", where=where)
    if not 1 <= item.quantity <= MAX_QUANTITY or (
        price is not None and not 0 <= price <= bounds.MAX_AMOUNT_CENTS
    ):
        raise InvalidInput(
            f"{where} has quantity {item.quantity} and price_cents {price}; give 1 to {MAX_QUANTITY} pieces, and minor units",
            where=where,
        )
    return msgspec.structs.replace(
        item,
        id=item_id,
        name=bounds.text(item.name),
        category=bounds.text(item.category),
        brand=bounds.text(item.brand),
    )


def place(value: str) -> Place:
    """
    Where an order was placed.

    Raises:
        InvalidInput: It is none of these.
    """
    match value:
        case "website" | "phone" | "store" | "system":
            return value
        case _:
            raise InvalidInput(f"place is {value!r}; write website, phone, store or system", where="place")


def consent(value: Consent | Mapping[str, str]) -> Consent:
    """
    What a person allowed.

    Raises:
        InvalidInput: A purpose or an answer is none of those that there are.
    """
    if isinstance(value, Consent):
        return value
    try:
        found = msgspec.convert(dict(value), Consent)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"consent cannot be read: {error}", where="consent") from None
    if unknown := set(value) - set(PURPOSES):
        raise InvalidInput(f"consent has {sorted(unknown)}; known are {', '.join(PURPOSES)}", where="consent")
    return found
