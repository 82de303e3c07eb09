"""How a column of ours is written down: with its writer, and without a default (rules 3 and 4 of `tables.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, DateTime, Dialect, MetaData, Text, TypeDecorator, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.types import TypeEngine


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


class OneOf(TypeDecorator[str]):
    """
    Text that is one of some words: a domain of the schema.

    A check does the same, but PostgreSQL reads it anew for each statement that writes the table, which is an eighth of what a small one
    takes; a domain's rule it keeps.
    """

    impl = Text
    cache_ok = True

    def __init__(self, name: str, allowed: Sequence[str], metadata: MetaData) -> None:
        super().__init__()
        self.name, self.allowed = name, tuple(allowed)
        self._domain = DOMAIN(
            name,
            Text,
            check=words("VALUE", allowed),
            constraint_name=name,
            metadata=metadata,
            schema=metadata.schema,
        )

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The domain."""
        return dialect.type_descriptor(self._domain)


def kind(column: Column[Any]) -> str:
    """The type of *column*, as the driver and `json_to_recordset` take it."""
    found = Text() if isinstance(column.type, OneOf) else column.type
    return found.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def words(name: str, allowed: Sequence[str]) -> str:
    """The condition of a check that *name* holds one of these."""
    return f"{name} IN ({', '.join(repr(str(word)) for word in allowed)})"


__all__ = ["OneOf", "column", "kind", "time", "words"]
