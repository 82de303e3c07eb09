"""
A start that needs the database, and may be completed later when nobody answers.

Only silence is waited for: a wrong schema, password or database name is somebody's mistake and stops the app at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.store.database import is_lost

PATIENCE = 10.0  # seconds that an app which can do without waits for a database that does not answer
LONGEST = 60.0  # seconds after which such a try in the background is broken off
PAUSES = (1, 30)  # seconds: the first between two tries, and the longest

logger = logging.getLogger("goodanalytics")


class Start:
    """
    Runs *begin* until it succeeds once.

    Args:
        begin: Needs the database; safe to be broken off and called again.
        report: Told why a start is not complete.
    """

    def __init__(
        self, begin: Callable[[], Awaitable[None]], report: Callable[[BaseException, str], None]
    ) -> None:
        self._begin = begin
        self._report = report
        self._later: asyncio.Task[None] | None = None

    async def now_or_later(self, patience: float | None) -> None:
        """
        Begin now; when nobody answers, report that and go on trying in the background.

        Args:
            patience: Seconds after which this try is broken off and counts as unanswered; `None` waits.

        Raises:
            GoodAnalyticsError: The database answers, and trying again will not help.
        """
        try:
            async with asyncio.timeout(patience):
                await self._begin()
        except Exception as error:
            if not is_outage(error):
                raise
            if isinstance(error, TimeoutError) and not str(error):
                error = DatabaseUnavailable(f"No answer within {patience} s")
            self._report(error, "starting; the rest of the start follows when the database answers")
            self._later = asyncio.get_running_loop().create_task(
                self._keep_trying(None if patience is None else LONGEST), name="goodanalytics start"
            )

    async def stop(self) -> None:
        """Try no longer."""
        if self._later is not None:
            self._later.cancel()
            await asyncio.wait({self._later})
            self._later = None

    async def _keep_trying(self, patience: float | None) -> None:
        pause, longest = PAUSES
        while True:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(patience):
                    await self._begin()
            except Exception as error:  # noqa: BLE001  # the app runs already; whoever mends the database is told why
                pause = min(pause * 2, longest)
                if not is_outage(error):
                    self._report(error, f"starting, which is tried again in {pause} s")
            else:
                logger.info("The database answers, and the start is complete")
                return


def is_outage(error: BaseException) -> bool:
    """Whether the same may succeed later by itself, as opposed to a wrong password or a database that does not exist."""
    if not isinstance(error, DatabaseUnavailable):
        return is_lost(error)
    cause = getattr(error.__cause__, "orig", error.__cause__)
    # Classes 28, invalid authorization, and 3D, invalid catalog name (PostgreSQL documentation, appendix A).
    return (getattr(cause, "sqlstate", None) or "")[:2] not in {"28", "3D"}
