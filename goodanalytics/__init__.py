"""First-party analytics, short links and attribution inside your own ASGI app and PostgreSQL."""

from goodanalytics.analytics import Analytics
from goodanalytics.config import Config, Principal
from goodanalytics.core.hits import Signals
from goodanalytics.core.limits import RateLimits
from goodanalytics.core.links import Link
from goodanalytics.core.plan import Outcome
from goodanalytics.core.rules import Cookies, SessionRules
from goodanalytics.core.visitors import Visitor
from goodanalytics.store.reports.query import Filter, Query
from goodanalytics.version import __version__

__all__ = [
    "Analytics",
    "Config",
    "Cookies",
    "Filter",
    "Link",
    "Outcome",
    "Principal",
    "Query",
    "RateLimits",
    "SessionRules",
    "Signals",
    "Visitor",
    "__version__",
]
