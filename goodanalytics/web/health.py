"""
`/healthz`, `/readyz` and `/metrics`: whether this process lives, whether it can do its work, and how far behind it is.

They tell nothing that a stranger should not know: how much waits, not how much came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.errors import GoodAnalyticsError
from goodanalytics.log import SafeLog
from goodanalytics.store import health
from goodanalytics.store.database import Database
from goodanalytics.web import path_below

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""

Gauge = tuple[str, str, float]
"""A metric's name without our prefix, what it says, and its value now."""


class Health:
    """An ASGI app for `{mount}/healthz`, `{mount}/readyz` and `{mount}/metrics`."""

    def __init__(self, config: Config, database: Database, log: SafeLog) -> None:
        self._config = config
        self._database = database
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asked = path_below({**scope, "root_path": ""}).rpartition("/")[2]
        if asked == "metrics":
            response = await self._metrics()
        else:
            response = await self._ready() if asked == "readyz" else _json(200, {"status": "ok"})
        await response(scope, receive, send)

    async def _ready(self) -> Response:
        now = self._config.clock()
        findings = await health.examine(self._database, now)
        if any(finding.level == "wrong" for finding in findings):
            for finding in findings:
                if finding.level == "wrong":
                    self._config.report(RuntimeError(finding.text), "answering /readyz")
            return _json(503, {"status": "unavailable"})
        found = await health.answered(health.backlog(self._database, now))
        return _json(200, {"status": "ok", "log": {"waiting": found.waiting, "lag_seconds": _lag(found)}})

    async def _metrics(self) -> Response:
        """Also while the database is away: what this process knows by itself."""
        spool = self._log.spool
        gauges: list[Gauge] = [
            ("memory_hits", "Hits in this process that are not safe yet", self._log.waiting),
            ("spool_hits", "Hits in this process's spool on disk", 0 if spool is None else spool.pending),
        ]
        try:
            found = await health.answered(health.backlog(self._database, self._config.clock()))
        except GoodAnalyticsError as error:
            self._config.report(error, "answering /metrics")
            return _text([("database_up", "Whether the database answers", 0), *gauges])
        return _text(
            [
                ("database_up", "Whether the database answers", 1),
                ("log_hits", "Hits that are safe and not processed yet", found.waiting),
                ("log_lag_seconds", "Age of the oldest of them", _lag(found)),
                ("rejected_hits", "Hits that could not be processed and were set aside", found.rejected),
                *gauges,
            ]
        )


def _lag(found: health.Backlog) -> float:
    return 0 if found.oldest is None else round(found.oldest.total_seconds(), 3)


def _text(gauges: Iterable[Gauge]) -> Response:
    lines = [
        f"# HELP goodanalytics_{name} {says}\n# TYPE goodanalytics_{name} gauge\ngoodanalytics_{name} {value:g}\n"
        for name, says, value in gauges
    ]
    return Response("".join(lines), 200, {"Cache-Control": "no-store", "Content-Type": PROMETHEUS})


def _json(status: int, content: object) -> Response:
    return Response(msgspec.json.encode(content), status, {"Cache-Control": "no-store"}, "application/json")
