"""Values that tell nothing to logs, assertions and tracebacks, because they may hold persons or secrets."""

from __future__ import annotations

import msgspec


class Quiet(msgspec.Struct, frozen=True):
    """A value that shows none of its members. Whoever has more to say has a `__repr__` of their own."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __str__(self) -> str:
        return repr(self)

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Without this, msgspec hands every member to rich, whatever `__repr__` says.
        return []


__all__ = ["Quiet"]
