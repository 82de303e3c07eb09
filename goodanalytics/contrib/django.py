"""
Django: the visitor as a view's second argument.

    @with_visitor(analytics)
    async def buy(request: HttpRequest, visitor: Visitor | None) -> HttpResponse: ...

Views may be async or not. The app is served through ASGI: `application = analytics.wrap(get_asgi_application())`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from goodanalytics.analytics import Analytics

try:
    from asgiref.sync import async_to_sync
    from django.http import HttpRequest
except ImportError as error:
    raise ImportError(
        "goodanalytics.contrib.django needs Django, which is not installed. "
        "Try: pip install 'goodanalytics[frameworks]', or django alone"
    ) from error

View = Callable[..., Any]


def with_visitor(analytics: Analytics) -> Callable[[View], View]:
    """
    A decorator that finds the request's visitor before the view is called.

    The view gets `None` where tracking is refused; see `Analytics.visitor`.
    """

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return await view(request, await analytics.visitor(request), *args, **kwargs)
        else:
            # Django runs such a view in a thread; async_to_sync goes back to the loop that our connections belong to.
            find = async_to_sync(analytics.visitor)

            @wraps(view)
            def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                return view(request, find(request), *args, **kwargs)

        return wrapped

    return decorate


__all__ = ["with_visitor"]
