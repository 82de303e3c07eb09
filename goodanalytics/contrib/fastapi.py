"""
FastAPI: the visitor as a dependency.

    CurrentVisitor = Annotated[Visitor | None, current_visitor(analytics)]

    @app.post("/buy")
    async def buy(visitor: CurrentVisitor) -> None: ...
"""

from __future__ import annotations

from typing import Any

from goodanalytics.analytics import Analytics
from goodanalytics.core.visitors import Visitor

try:
    from fastapi import Depends, Request
except ImportError as error:
    raise ImportError(
        "goodanalytics.contrib.fastapi needs FastAPI, which is not installed. "
        "Try: pip install 'goodanalytics[frameworks]', or fastapi alone"
    ) from error


def current_visitor(analytics: Analytics) -> Any:
    """
    The dependency that is the request's visitor; FastAPI asks once for each request.

    It is `None` where tracking is refused; see `Analytics.visitor`.
    """

    async def visitor(request: Request) -> Visitor | None:
        return await analytics.visitor(request)

    return Depends(visitor)


__all__ = ["current_visitor"]
