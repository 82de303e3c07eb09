"""`/healthz` and `/readyz`: whether this process lives, and whether it can do its work."""

from __future__ import annotations

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from goodanalytics.config import Config
from goodanalytics.store import health
from goodanalytics.store.database import Database
from goodanalytics.web import path_below


class Health:
    """An ASGI app for `{mount}/healthz` and `{mount}/readyz`. Tells nothing that a stranger should not know."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_ready = path_below({**scope, "root_path": ""}).endswith("/readyz")
        response = await self._ready() if is_ready else _json(200, {"status": "ok"})
        await response(scope, receive, send)

    async def _ready(self) -> Response:
        now = self._config.clock()
        findings = await health.examine(self._database, now)
        if any(finding.level == "wrong" for finding in findings):
            for finding in findings:
                if finding.level == "wrong":
                    self._config.report(RuntimeError(finding.text), "answering /readyz")
            return _json(503, {"status": "unavailable"})
        found = await health.backlog(self._database, now)
        lag = 0 if found.oldest is None else round(found.oldest.total_seconds(), 3)
        return _json(200, {"status": "ok", "log": {"waiting": found.waiting, "lag_seconds": lag}})


def _json(status: int, content: object) -> Response:
    return Response(msgspec.json.encode(content), status, {"Cache-Control": "no-store"}, "application/json")
