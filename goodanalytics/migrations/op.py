"""What the migrations need of Alembic's `op`. Its module and its class both have it, and nothing imports Alembic for it."""

from __future__ import annotations

from typing import Any, Protocol


class Op(Protocol):
    """`from alembic import op`, or `Operations(MigrationContext.configure(connection))`."""

    def execute(self, sqltext: str, /) -> None:
        """Run one statement, or print it in offline mode."""
        ...

    def get_context(self) -> Any:
        """Alembic's `MigrationContext`."""
        ...
