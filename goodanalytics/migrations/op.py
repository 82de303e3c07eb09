"""What the migrations need of Alembic's `op`. Its module and its class both have it, and nothing imports Alembic for it."""

from __future__ import annotations

from textwrap import dedent
from typing import Any, Protocol


class Op(Protocol):
    """`from alembic import op`, or `Operations(MigrationContext.configure(connection))`."""

    def execute(self, sqltext: str, /) -> None:
        """Run one statement, or print it in offline mode."""
        ...

    def get_context(self) -> Any:
        """Alembic's `MigrationContext`."""
        ...


def run(op: Op, statement: str) -> None:
    """Run one *statement*, written with the indentation of the code around it."""
    op.execute(dedent(statement).strip())
