"""
Writing what nearly every hit changes: most rows of a batch only count on, and the rest of them need not travel.

A row counts on when it was there before and nothing differs but the columns below. Its lock is the batch's, so they can be
written as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Table

from goodanalytics.core.sessions import Session
from goodanalytics.core.visitors import Visitor
from goodanalytics.store.columns import kind

Row = TypeVar("Row", Visitor, Session)

OF_VISITOR = (
    "last_seen_at", "total_sessions", "total_pageviews", "total_events", "last_source", "last_source_at", "last_click_id",
    "platform_signals", "consent",
)  # fmt: skip
OF_SESSION = (
    "last_event_at", "exit_path", "pageviews", "events", "duration_ms", "engaged_ms", "is_bounce", "is_engaged",
)  # fmt: skip


def visitors_apart(
    rows: Iterable[tuple[Visitor | None, Visitor]],
) -> tuple[list[Visitor], list[dict[str, Any]]]:
    """Out of *rows*, each as it was and as it is: those to be written whole, and what to write of those that count on."""
    return _apart(rows, _rest_of_visitor, ("workspace_id", "id", *OF_VISITOR))


def sessions_apart(
    rows: Iterable[tuple[Session | None, Session]],
) -> tuple[list[Session], list[dict[str, Any]]]:
    """As `visitors_apart`, for visits."""
    return _apart(rows, _rest_of_session, ("workspace_id", "id", *OF_SESSION))


@lru_cache(maxsize=256)
def update_of(table: Table, names: tuple[str, ...]) -> str:
    """`UPDATE …` of the columns *names* of rows of a visitor or visit, from a JSON array of rows as `$1`."""
    sets = ", ".join(f'"{name}" = r."{name}"' for name in names)
    kinds = ", ".join(f'"{name}" {kind(table.c[name])}' for name in ("workspace_id", "id", *names))
    return (
        f"UPDATE {table} t SET {sets} FROM json_to_recordset($1::text::json) AS r ({kinds}) "
        "WHERE t.workspace_id = r.workspace_id AND t.id = r.id"
    )


def _apart(
    rows: Iterable[tuple[Row | None, Row]], rest: Callable[[Any], Any], names: tuple[str, ...]
) -> tuple[list[Row], list[dict[str, Any]]]:
    whole: list[Row] = []
    counted: list[dict[str, Any]] = []
    values = attrgetter(*names)
    for before, now in rows:
        if before is None or rest(before) != rest(now):
            whole.append(now)
        else:
            counted.append(dict(zip(names, values(now), strict=True)))
    return whole, counted


def _all_but(kind: type[msgspec.Struct], names: tuple[str, ...]) -> Callable[[Any], Any]:
    return attrgetter(*(name for name in kind.__struct_fields__ if name not in names))


_rest_of_visitor = _all_but(Visitor, OF_VISITOR)
_rest_of_session = _all_but(Session, OF_SESSION)
