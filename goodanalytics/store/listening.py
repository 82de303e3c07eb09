"""
Words from other processes: LISTEN on a connection of our own, one per process.

Rules of this file
1. Whoever listens hears every word that was committed while `is_listening` is true. When that ends and when it begins again,
   `heard` is called with `None`: from then on, or until then, anything may have been said.
2. That words arrive is proved, not believed: an echo is sent through the pool, at the start and every `ECHO_EVERY` seconds. A
   connection that died without a sound, or a pooler that hands LISTEN to somebody else's session, is found out that way.
3. While nobody listens, `is_listening` is false, and those who rely on it look for themselves. It is tried again for ever.

PostgreSQL delivers a word after the commit of the transaction that said it, so whoever reads then sees what it was about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.errors import GoodAnalyticsError
from goodanalytics.store.database import Database, is_lost, run, unavailable_named

ECHO_EVERY: Final = 5.0  # seconds
ECHO_SECONDS: Final = 2.0
"""How long an echo, and a connection, may take."""

PAUSES: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before each next try to listen; the last one is used again and again."""

_ECHO: Final = "echo "


def links_channel(schema: str) -> str:
    """The channel of changes to the links of *schema*. PostgreSQL's names have 63 bytes at most."""
    return f"{schema[:57]}_links"


async def say(conn: AsyncConnection, channel: str, word: str) -> None:
    """Say *word* (at most 7,999 bytes) to everybody who listens, when the transaction of *conn* commits."""
    await run(conn, "SELECT pg_notify(:channel, :word)", channel=channel, word=word)


class Deaf(GoodAnalyticsError):
    """What is said on a channel is not heard there."""

    def __init__(self, channel: str) -> None:
        super().__init__(
            f"A word on the channel {channel} was not heard within {ECHO_SECONDS} s. If a pooler stands before PostgreSQL, "
            "LISTEN needs its session mode"
        )


class Listener:
    """
    One connection that listens on *channel*.

    Args:
        heard: Called in the event loop with each word, and with `None` when words may have been missed.
        new_word: Makes a text that nobody else says.

    Attributes:
        is_listening: Whether every word is heard now.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        heard: Callable[[str | None], None],
        new_word: Callable[[], str],
        report: Callable[[BaseException, str], None],
    ) -> None:
        self.is_listening = False
        self._database = database
        self._channel = channel
        self._heard = heard
        self._new_word = new_word
        self._report = report
        self._echo = asyncio.Event()
        self._expected = ""
        self._has_listened = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen in the running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="goodanalytics listener")

    async def stop(self) -> None:
        """Hang up."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            # More than once: a driver may lose a cancellation that comes together with its answer.
            await asyncio.wait([task], timeout=ECHO_SECONDS)

    async def _run(self) -> None:
        failures, has_told = 0, False
        while self._task is not None:
            self._has_listened = False
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it was, the next try may find it better
                has_told &= not self._has_listened
                if not is_lost(error) and not has_told:  # that the database is away others tell of
                    has_told = True
                    self._report(
                        error, f"listening on {self._channel}; what it tells of is asked for meanwhile"
                    )
            failures = 0 if self._has_listened else failures + 1
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        async with asyncio.timeout(ECHO_SECONDS):
            with unavailable_named(self._database.engine):
                conn = await self._database.engine.connect()
        lost = asyncio.Event()

        def end(*_: object) -> None:
            lost.set()
            if self.is_listening:
                self.is_listening = False
                self._heard(None)

        raw: Any = None
        try:
            raw = (await conn.get_raw_connection()).driver_connection
            await conn.run_sync(lambda sync: sync.detach())  # the pool may make another one in its place
            raw.add_termination_listener(end)
            async with asyncio.timeout(ECHO_SECONDS):
                await raw.add_listener(self._channel, self._take)
            await self._prove()
            self.is_listening = self._has_listened = not lost.is_set()
            self._heard(None)
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(ECHO_EVERY):
                        await lost.wait()
                    return
                await self._prove()
        finally:
            end()
            if raw is not None:
                raw.remove_termination_listener(end)
                raw.terminate()
            with suppress(Exception):
                await conn.close()

    async def _prove(self) -> None:
        """
        Hear a word of our own that goes another way.

        Raises:
            Deaf: It was said, and not heard.
        """
        self._expected = _ECHO + self._new_word()
        self._echo.clear()
        async with asyncio.timeout(ECHO_SECONDS), self._database.begin() as conn:
            await say(conn, self._channel, self._expected)
        try:
            # Not wait_for: on Python 3.11 it forgets that it was cancelled when the echo comes at the same time.
            async with asyncio.timeout(ECHO_SECONDS):
                await self._echo.wait()
        except TimeoutError:
            raise Deaf(self._channel) from None

    def _take(self, _connection: object, _pid: int, _channel: str, word: str) -> None:
        if word == self._expected:
            self._echo.set()
        elif not word.startswith(_ECHO):
            self._heard(word)
