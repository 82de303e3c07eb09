"""
A click that is processed after its landing: the events of the visit learn what the visit learned.

They carry the click's link, and where they had the visit's source, its new one. Here those that a plan holds are corrected;
`store.late_clicks` does the same to those that were written before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from goodanalytics.core.sessions import Session

OF_SOURCE: Final = ("source", "medium", "channel", "campaign", "acquisition")
"""The members of a visit and of an event that say where it came from."""


def correct(events: Iterable[dict[str, Any]], was: Session, known: Session) -> None:
    """Change those of *events* that belong to a visit, which *was* without its click's link and is now *known*."""
    for event in events:
        if event["session_id"] != was.id or event["link_id"] is not None:
            continue
        event["link_id"] = known.link_id
        if event["acquisition"] == was.acquisition:
            event.update({name: getattr(known, name) for name in OF_SOURCE})
