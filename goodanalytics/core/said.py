"""What the host says in Python, checked and bounded before it becomes a hit. Wrong values are the caller's to hear of."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from goodanalytics.core import hits
from goodanalytics.core.hits import Invalid, Property, Signals
from goodanalytics.core.identity import stands_for_nobody
from goodanalytics.errors import InvalidInput


def signals(found: Signals) -> Signals:
    """*found* without what PostgreSQL refuses and within their bounds."""
    return msgspec.structs.replace(
        found,
        external_id=external_id(found.external_id),
        email=hits.text(found.email, 254),
        phone=hits.text(found.phone, 32),
        name=hits.text(found.name),
        traits=properties(found.traits, "traits"),
        anonymous_id=hits.text(found.anonymous_id, hits.MAX_ID),
        fingerprint=hits.text(found.fingerprint, hits.MAX_ID),
    )


def external_id(value: str | None) -> str | None:
    """
    The host's own id of a person, bounded.

    Raises:
        InvalidInput: It is empty, or a word that stands for nobody, such as `undefined`.
    """
    found = hits.text(value, hits.MAX_ID)
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
        return hits.flat_properties(value, where)
    except Invalid as error:
        raise InvalidInput(f"{error.where}: {error.reason}", where=error.where) from None
