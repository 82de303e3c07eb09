"""
ACT: one request to a platform or a receiver, from the contents to a verdict on each of them.

1. Whatever goes wrong is a verdict; nothing raises but cancellation. A dialect that fails to build is a permanent verdict on
   the request, so that halving finds the content that it fails on; one that fails to read is tried again.
2. Access tokens are kept in memory until they expire or the credentials change. A refusal under a token that was kept is
   asked once more with a new one, before it counts.
3. Nothing here logs what it sends or gets.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from goodanalytics.config import Config
from goodanalytics.errors import InvalidInput
from goodanalytics.platforms import Conversion, Notice, Outcome, Renewing, Request, Response, Token, Verdict

Content: TypeAlias = Conversion | Notice
Way: TypeAlias = Callable[[Request], Awaitable[Response | Verdict]]
"""Sends a request; never raises."""


@dataclass(frozen=True, slots=True)
class Correspondent:
    """
    Somebody to tell: how they are spoken to, with which secrets, and on which way.

    Attributes:
        credentials_at: When the newest of the credentials was stored.
        failures: Requests in a row that failed as a whole.
        obstacle: What has to be mended before anything can be sent.
        webhook_id: Of a receiver.
        is_failing: Whether it is a receiver that only failed lately.
    """

    workspace_id: UUID
    target: str
    dialect: Any
    secrets: Mapping[str, str] = field(repr=False)
    way: Way
    credentials_at: datetime | None
    failures: int = 0
    obstacle: str | None = None
    webhook_id: UUID | None = None
    is_failing: bool = False


@dataclass(slots=True)
class Requests:
    """Makes them, and remembers tokens."""

    config: Config
    _tokens: dict[tuple[Any, ...], Token] = field(default_factory=dict, repr=False)
    _renewing: dict[tuple[Any, ...], asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock), repr=False
    )

    async def tell(self, to: Correspondent, batch: Sequence[Content]) -> dict[UUID, Verdict]:
        """Send *batch*, and what was said of each."""

        def build(secrets: Mapping[str, str], now: datetime) -> Request:
            request: Request = to.dialect.build(batch, secrets, now)
            return request

        return await self._exchange(to, batch, build, to.dialect.read)

    async def ask(self, to: Correspondent, batch: Sequence[Content], reference: str) -> dict[UUID, Verdict]:
        """Ask what became of the request that *batch* went out in; a question that fails says nothing about it."""

        def build(secrets: Mapping[str, str], now: datetime) -> Request:
            request: Request = to.dialect.build_poll(reference, secrets, now)
            return request

        def read(asked: Sequence[Content], response: Response) -> list[Outcome]:
            outcomes: list[Outcome] = to.dialect.read_poll(asked, response)
            return outcomes

        return await self._exchange(to, batch, build, read, unanswered="accepted")

    async def _exchange(
        self,
        to: Correspondent,
        batch: Sequence[Content],
        build: Callable[[Mapping[str, str], datetime], Request],
        read: Callable[[Sequence[Content], Response], list[Outcome]],
        unanswered: Any = "retry",
    ) -> dict[UUID, Verdict]:
        is_kept = True
        while True:
            secrets: Mapping[str, str] | Verdict = to.secrets
            if isinstance(to.dialect, Renewing):
                secrets, is_kept = await self._with_token(to)
            if isinstance(secrets, Verdict):
                return _alike(batch, secrets)
            request = self._built(to, build, secrets)
            if isinstance(request, Verdict):
                return _alike(batch, request)
            response = await self._sent(to, request)
            if isinstance(response, Verdict):
                return _alike(batch, response, unanswered)
            verdicts = self._read(to, batch, response, read, unanswered)
            refused = any(verdict.status == "credential" for verdict in verdicts.values())
            if not refused or not is_kept or not isinstance(to.dialect, Renewing):
                return verdicts
            self._tokens.pop(_key(to), None)

    def _built(
        self,
        to: Correspondent,
        build: Callable[[Mapping[str, str], datetime], Request],
        secrets: Mapping[str, str],
    ) -> Request | Verdict:
        try:
            return build(secrets, self.config.clock())
        except InvalidInput as error:
            return Verdict(status="credential", code="unusable_credential", message=str(error))
        except Exception as error:  # noqa: BLE001  # a dialect may be the host's own
            self._report(error, f"building a request to {to.target}")
            return Verdict(
                status="permanent", code="build_failed", message=type(error).__name__, of_batch=True
            )

    async def _sent(self, to: Correspondent, request: Request) -> Response | Verdict:
        try:
            return await to.way(request)
        except Exception as error:  # noqa: BLE001  # a transport may be the host's own
            self._report(error, f"sending to {to.target}")
            return Verdict(status="retry", code="transport_failed", message=type(error).__name__)

    def _read(
        self,
        to: Correspondent,
        batch: Sequence[Content],
        response: Response,
        read: Callable[[Sequence[Content], Response], list[Outcome]],
        unanswered: Any,
    ) -> dict[UUID, Verdict]:
        try:
            outcomes = {outcome.dispatch_id: outcome for outcome in read(batch, response)}
        except Exception as error:  # noqa: BLE001  # as above
            self._report(error, f"reading the answer of {to.target}")
            verdict = Verdict(status=unanswered, code="unreadable_answer", message=type(error).__name__)
            return _alike(batch, verdict)
        silent = Verdict(status=unanswered, code="no_outcome", message="The answer was not about this one")
        return {content.dispatch_id: outcomes.get(content.dispatch_id, silent) for content in batch}

    async def _with_token(self, to: Correspondent) -> tuple[Mapping[str, str] | Verdict, bool]:
        """The secrets with an access token, and whether that was kept from before."""
        key, now = _key(to), self.config.clock()
        async with self._renewing[key]:
            kept = self._tokens.get(key)
            if kept is not None and kept.expires_at > now:
                return {**to.secrets, "access_token": kept.value}, True
            request = self._built(to, to.dialect.build_token_request, to.secrets)
            if isinstance(request, Verdict):
                # Nothing was built from the contents, so none of them is to blame.
                return Verdict(status="credential", code=request.code, message=request.message), False
            response = await self._sent(to, request)
            if isinstance(response, Verdict):
                return response, False
            try:
                token = to.dialect.read_token(response, now)
            except Exception as error:  # noqa: BLE001  # as above
                self._report(error, f"reading a token of {to.target}")
                return Verdict(status="retry", code="unreadable_token", message=type(error).__name__), False
            if isinstance(token, Verdict):
                return token, False
            self._tokens[key] = token
            return {**to.secrets, "access_token": token.value}, False

    def _report(self, error: Exception, doing: str) -> None:
        # The error's own words and its frames may hold what was sent.
        self.config.report(RuntimeError(f"{type(error).__name__}, whose words are not repeated here"), doing)


def _key(to: Correspondent) -> tuple[Any, ...]:
    return to.workspace_id, to.target, to.credentials_at, to.dialect.name


def _alike(batch: Sequence[Content], verdict: Verdict, status: Any = None) -> dict[UUID, Verdict]:
    """The same verdict on all; with *status* in place of a plain failure's."""
    if status is not None and verdict.status == "retry":
        verdict = Verdict(
            status=status, code=verdict.code, message=verdict.message, retry_after=verdict.retry_after
        )
    return {content.dispatch_id: verdict for content in batch}


__all__ = ["Content", "Correspondent", "Requests", "Way"]
