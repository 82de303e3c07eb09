"""
Litestar: the visitor as a dependency.

    @post("/buy", dependencies={"visitor": provide_visitor(analytics)})
    async def buy(visitor: CurrentVisitor) -> None: ...

A dependency may be given to a handler, a controller, a router or the whole app.
"""

from __future__ import annotations

from typing import Any

from goodanalytics.analytics import Analytics
from goodanalytics.core.visitors import Visitor

try:
    from litestar import Request
    from litestar.di import NamedDependency, Provide
except ImportError as error:
    raise ImportError(
        "goodanalytics.contrib.litestar needs Litestar, which is not installed or older than 2.23. "
        "Try: pip install 'goodanalytics[frameworks]', or litestar alone"
    ) from error

CurrentVisitor = NamedDependency[Visitor | None]
"""The type of the handler's parameter."""


def provide_visitor(analytics: Analytics) -> Provide:
    """
    The dependency that is the request's visitor, asked for once for each request.

    It is `None` where tracking is refused; see `Analytics.visitor`.
    """

    async def visitor(request: Request[Any, Any, Any]) -> Visitor | None:
        return await analytics.visitor(request)

    return Provide(visitor)


__all__ = ["CurrentVisitor", "provide_visitor"]
