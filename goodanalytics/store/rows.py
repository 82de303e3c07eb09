"""Many rows in one statement: they travel as one JSON text and are taken apart by `json_to_recordset`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from sqlalchemy import Table

from goodanalytics.store.columns import kind


@lru_cache(maxsize=256)
def insertion(table: Table) -> str:
    """`INSERT … SELECT …` from a JSON array of rows in the parameter `rows`; clauses may follow."""
    names = ", ".join(f'"{column.name}"' for column in table.c)
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {recordset(table)}"


def recordset(table: Table, only: Iterable[str] | None = None) -> str:
    """The rows in the parameter `rows`, as `r`, with all columns of *table* or *only* some."""
    names = [column.name for column in table.c] if only is None else list(only)
    kinds = ", ".join(f'"{name}" {kind(table.c[name])}' for name in names)
    return f"json_to_recordset(CAST(:rows AS json)) AS r ({kinds})"
