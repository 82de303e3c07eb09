"""How a column is written down: its kind, whether it may be empty, and the one function that fills it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, DateTime, text


def column(
    name: str, kind: Any, writer: str, *, null: bool = False, default: str | None = None
) -> Column[Any]:
    """A column that *writer* (`module.function`) fills."""
    return Column(
        name,
        kind,
        nullable=null,
        # SQLAlchemy makes a sequence for a lone integer key unless told not to: no sequence on the write path.
        autoincrement=False,
        server_default=None if default is None else text(default),
        info={"writer": writer},
    )


def time(name: str, writer: str, *, null: bool = False) -> Column[Any]:
    """A moment, with its time zone."""
    return column(name, DateTime(timezone=True), writer, null=null)


def words(name: str, known: Sequence[str]) -> str:
    """The check that column *name* holds one of the *known* words."""
    return f"{name} IN ({', '.join(repr(str(word)) for word in known)})"


__all__ = ["column", "time", "words"]
