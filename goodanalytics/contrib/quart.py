"""
Quart: the visitor of the request at hand.

    current_visitor = visitor_of(analytics)

    @app.post("/buy")
    async def buy() -> str:
        visitor = await current_visitor()
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from goodanalytics.analytics import Analytics
from goodanalytics.core.visitors import Visitor

try:
    from quart import request
except ImportError as error:
    raise ImportError(
        "goodanalytics.contrib.quart needs Quart, which is not installed. "
        "Try: pip install 'goodanalytics[frameworks]', or quart alone"
    ) from error


def visitor_of(analytics: Analytics) -> Callable[[], Awaitable[Visitor | None]]:
    """
    A function without arguments that finds the visitor of the request that Quart is answering.

    It answers `None` where tracking is refused; see `Analytics.visitor`. Outside a request it raises Quart's own
    `RuntimeError`.
    """

    async def current_visitor() -> Visitor | None:
        return await analytics.visitor(request)

    return current_visitor


__all__ = ["visitor_of"]
