"""How a column of ours is written down: with its writer, and without a default (rules 3 and 4 of `tables.py`)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, text


def column(
    name: str, kind: Any, writer: str, *, null: bool = False, default: str | None = None
) -> Column[Any]:
    """A column that *writer*, `module.function` of the store, fills."""
    return Column(
        name,
        kind,
        nullable=null,
        # SQLAlchemy makes a sequence for a lone integer key unless told not to (rule 3).
        autoincrement=False,
        server_default=None if default is None else text(default),
        info={"writer": writer},
    )


def time(name: str, writer: str, *, null: bool = False) -> Column[Any]:
    """An instant."""
    return column(name, DateTime(timezone=True), writer, null=null)


def words(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    """The condition of a check that *name* holds one of these."""
    return f"{name} IN ({', '.join(repr(str(word)) for word in allowed)})"


__all__ = ["column", "time", "words"]
