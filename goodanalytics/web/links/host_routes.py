"""
Which paths the host's own app answers, whatever framework it is written in: so that no short link takes one of them.

1. Routes are read where the frameworks keep them, by their shape: `routes` (Starlette, FastAPI, Litestar), `url_map` (Quart,
   Flask), and Django's resolver. No framework is imported. An app that shows no routes has none that we know.
2. They are read when a link is made, for routes may be added after `wrap`.
3. Only the first part of a path counts, where it is written out: `/users/{id}` keeps the key `users`. A route that takes any
   word there would keep every key, and keeps none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

MAX_DEPTH: Final = 12
"""How deep apps may lie in each other."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]+")
_REGEX: Final = re.compile(r"^\^?([A-Za-z0-9_-]+)(?=/|\$|\\Z|$)")


class HostRoutes:
    """The routes of the apps that were wrapped."""

    def __init__(self) -> None:
        self._apps: list[Any] = []

    def add(self, app: Any) -> None:
        """Look into *app* as well from now on."""
        self._apps.append(app)

    def paths(self) -> frozenset[str]:
        """The first parts of the paths that the host answers, in lower case."""
        return frozenset(part.lower() for app in self._apps for part in _parts(app, MAX_DEPTH))


def _parts(app: Any, depth: int) -> Iterator[str]:
    """The first parts of the paths of *app*, or of the app in it."""
    if depth == 0:
        return
    url_map = getattr(app, "url_map", None)
    routes = getattr(app, "routes", None)
    if url_map is not None and hasattr(url_map, "iter_rules"):
        for rule in url_map.iter_rules():
            yield from _first(str(rule.rule))
    elif isinstance(routes, Iterable):
        for route in routes:
            yield from _of_route(route, depth)
    elif type(app).__module__.startswith("django."):
        yield from _of_django(depth)
    else:
        # Middleware by most frameworks' habit.
        for name in ("app", "asgi_app"):
            inner = getattr(app, name, None)
            if inner is not None:
                yield from _parts(inner, depth - 1)
                return


def _of_route(route: Any, depth: int) -> Iterator[str]:
    included = getattr(route, "effective_route_contexts", None)
    if callable(included) and depth > 0:  # FastAPI puts the prefix before a router's paths as late as this
        for one in included():
            yield from _of_route(getattr(one, "starlette_route", None) or one, depth - 1)
        return
    path = getattr(route, "path", None)
    if isinstance(path, str) and path.strip("/"):
        yield from _first(path)
        return
    # Mounted at the root, or for a host: what it answers is below its own routes.
    inner = route if isinstance(getattr(route, "routes", None), Iterable) else getattr(route, "app", None)
    if inner is not None and path != "/":
        yield from _parts(inner, depth - 1)


def _first(path: str) -> Iterator[str]:
    part = path.lstrip("/").partition("/")[0]
    if _PLAIN.fullmatch(part):
        yield part


def _of_django(depth: int) -> Iterator[str]:
    urls = sys.modules.get("django.urls")
    if urls is not None:
        yield from _of_patterns(urls.get_resolver().url_patterns, depth)


def _of_patterns(patterns: Iterable[Any], depth: int) -> Iterator[str]:
    for one in patterns:
        route = str(one.pattern)
        below = getattr(one, "url_patterns", None)
        if not route.strip("/^$") and below is not None and depth > 0:
            yield from _of_patterns(below, depth - 1)
        elif hasattr(one.pattern, "regex") and route.startswith("^"):
            yield from _REGEX.findall(route)
        else:
            yield from _first(route)


__all__ = ["HostRoutes"]
