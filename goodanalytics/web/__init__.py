"""
LISTEN: everything that speaks ASGI. The only room that imports Starlette.

`rooted` is the one place that knows how frameworks mount sub-apps; below it every room sees `root_path` + its own path.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Scope


def path_below(scope: Scope) -> str:
    """The path of the request below `root_path`. Servers and frameworks disagree on whether `path` includes it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path


def rooted(scope: Scope, prefix: str) -> Scope | None:
    """
    The scope of an app that lives at *prefix*, or `None` when the request is not for it.

    `root_path` grows by *prefix* and `path` stays whole, as Starlette does since 0.33. Litestar's mounts add a slash to the
    end of every path; `raw_path` still has what was asked for.
    """
    path: str = scope["path"]
    if not scope.get("root_path") and path[-1:] != "/" and path.startswith(prefix + "/"):
        return {**scope, "root_path": prefix}  # nearly every request; the rest says the same of it
    below = path_below(scope)
    if below != prefix and not below.startswith(prefix + "/"):
        return None
    root = scope.get("root_path", "")
    rest = below[len(prefix) :]
    raw: Any = scope.get("raw_path")
    if rest.endswith("/") and raw and not raw.partition(b"?")[0].endswith(b"/"):
        rest = rest.rstrip("/")
    return {**scope, "root_path": root + prefix, "path": root + prefix + rest}
