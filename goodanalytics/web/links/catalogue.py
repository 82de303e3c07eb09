"""
The links by address, in memory.

Rules of this file
1. While every change is heard (`store.listening`), a copy is fresh until a word says that its link or domain changed, and for
   `MAX_AGE` at the most. While nobody listens it is fresh for `FRESH`. So a change takes effect everywhere within a second.
2. A copy of which a word says that it is wrong is gone. One that is merely no longer fresh is served when the database does
   not answer within `PATIENCE`; once it failed to, nobody waits for it again until it answers: an old copy is better than no
   redirect. Only an address that is not in memory waits up to `LOOK_UP_SECONDS`.
3. Look-ups that come together share a statement, and no more than `FLIGHTS` of them run at a time. They have a connection of
   their own while they keep coming (`log.lines`): to check one out of the pool takes longer than the statement.
4. That there is no link is remembered too, apart, so that invented keys drive out no link. What was asked for longest ago is
   forgotten first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from goodanalytics.config import Config
from goodanalytics.core.links import Domain, Link
from goodanalytics.core.routing import Route, prepare
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.log.lines import Lines
from goodanalytics.store import link_lookups
from goodanalytics.store.database import Database, is_lost
from goodanalytics.store.link_lookups import Address, Found
from goodanalytics.web.links.plain_links import PlainLink, plain_link

FRESH: Final = timedelta(seconds=1)
MAX_AGE: Final = timedelta(minutes=10)
PATIENCE: Final = 0.05  # seconds
LOOK_UP_SECONDS: Final = 2.0
FLIGHTS: Final = 1
FLIGHT_ADDRESSES: Final = 64
MAX_CACHED: Final = 20_000  # links, and as many addresses without one


@dataclass(slots=True)
class Known:
    """
    What stands at an address, as it was asked for.

    Attributes:
        domain: Of the host that was found first; with the defaults when it has no row.
        route: How *link* leads on; `None` where there is no link.
        plain: What plain clicks need of *link*; `None` where there is more to ask.
        until: From then on the copy is no longer fresh.
        era: It is no longer fresh either when another one began.
        is_used_up: Whether the database said that no use is left.
    """

    link: Link | None
    domain: Domain
    route: Route | None
    plain: PlainLink | None
    since: datetime
    until: datetime
    era: int
    is_used_up: bool = field(default=False)


@dataclass(slots=True)
class _Flight:
    """A statement under way. *changed* are words that came meanwhile: it may have read what stood there before."""

    changed: set[str | None] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Catalogue:
    """
    Finds links by host and key.

    Args:
        is_down: Whether the database is known not to answer: then nobody is asked about what is in memory.
        is_listening: Whether every change is heard; see `heard`.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        is_down: Callable[[], bool] = lambda: False,
        is_listening: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._tables = database.tables
        self._lines = Lines(database)
        self._is_down = is_down
        self._is_listening = is_listening
        self._is_silent = False
        self._era = 0
        self._links: OrderedDict[str, Known] = OrderedDict()
        self._empty: OrderedDict[str, Known] = OrderedDict()
        self._spellings: dict[str, set[str]] = {}
        self._waiting: dict[str, Address] = {}
        self._asked: dict[str, asyncio.Future[Known]] = {}
        self._flights: list[_Flight] = []

    def at_hand(self, host: str, key: str, now: datetime) -> Known | None:
        """What is in memory and fresh. The way of nearly every click: no I/O, no waiting."""
        address = f"{host}/{key}"
        known = self._links.get(address)
        if known is None or known.era != self._era or not known.since <= now < known.until:
            return None
        self._links.move_to_end(address)
        return known

    async def find(self, workspace_id: UUID, host: str, key: str) -> Known:
        """
        What stands at *host*/*key*; a host with a port also answers for links without one.

        Raises:
            DatabaseUnavailable: Nobody answers, and it is not in memory.
        """
        now = self._config.clock()
        if (known := self.at_hand(host, key, now)) is not None:
            return known
        address = f"{host}/{key}"
        old = self._links.get(address) or self._empty.get(address)
        if old is not None:
            is_fresh = old.era == self._era and old.since <= now < old.until
            if is_fresh or self._is_down():
                return old
        asked = self._ask(address, (workspace_id, host, key))
        if old is not None and self._is_silent:
            return old
        await asyncio.wait([asked], timeout=LOOK_UP_SECONDS if old is None else PATIENCE)
        if not asked.done():
            self._is_silent = True
            if old is None:
                raise DatabaseUnavailable(f"No answer within {LOOK_UP_SECONDS} s about the link {address}")
            return old
        error = asked.exception()
        if error is None:
            return asked.result()
        if old is not None:
            if not is_lost(error):
                self._config.report(error, f"looking up the link {address} again")
            return old
        if is_lost(error):
            raise DatabaseUnavailable(f"No answer about the link {address}") from error
        raise error

    def heard(self, word: str | None) -> None:
        """
        Take in that something changed.

        Args:
            word: `workspace/domain/key` for a link, `workspace/domain/` for a domain with all its links; `None` (or what
                cannot be read) for anything.
        """
        for flight in self._flights:
            flight.changed.add(_named(word))
        changed = _named(word)
        if changed is None:
            self._era += 1
        elif changed.endswith("/"):
            for spelled in [s for s in self._spellings if s.startswith(changed)]:
                self._drop(spelled)
        else:
            self._drop(changed)

    async def stop(self) -> None:
        """Break off the look-ups that are under way."""
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lines.close()

    # Look-ups --------------------------------------------------------------------------------------------------------

    def _ask(self, address: str, asked: Address) -> asyncio.Future[Known]:
        """Done when the database has said what stands at *address*."""
        future = self._asked.get(address)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._asked[address] = loop.create_future()
            self._waiting[address] = asked
            if len(self._flights) < FLIGHTS:
                flight = _Flight()
                flight.task = loop.create_task(self._fly(flight), name="goodanalytics links")
                self._flights.append(flight)
        return future

    async def _fly(self, flight: _Flight) -> None:
        """Look up what is waited for until nobody waits."""
        try:
            while self._waiting:
                batch = dict(islice(self._waiting.items(), FLIGHT_ADDRESSES))
                for address in batch:
                    del self._waiting[address]
                try:
                    await self._answer_all(flight, batch)
                except Exception as error:  # noqa: BLE001  # whatever it is, those who wait are told
                    self._is_silent = is_lost(error)
                    if self._is_silent:
                        # Whoever waits behind would hear the same, only later: one time-out for each batch.
                        batch |= self._waiting
                        self._waiting.clear()
                    for address in batch:
                        self._answer(address, error)
        finally:
            # Not left to a callback: until that ran, a look-up would count this flight as one that still flies.
            self._flights.remove(flight)
            for address in () if self._flights else list(self._asked):
                self._answer(address, DatabaseUnavailable("The app is stopping"))

    async def _answer_all(self, flight: _Flight, batch: dict[str, Address]) -> None:
        flight.changed.clear()
        era, now = self._era, self._config.clock()
        found = await self._look_up(list(batch.values()))
        self._is_silent = False
        for (address, asked), answer in zip(batch.items(), found, strict=True):
            if flight.changed.isdisjoint(_names_of(address)):
                known = self._known(answer, now, era)
                self._keep(address, known)
                self._answer(address, known)
            else:
                self._waiting[address] = asked

    def _answer(self, address: str, answer: Known | Exception) -> None:
        """Tell those who wait for *address*."""
        future = self._asked.pop(address)
        if isinstance(answer, Exception):
            future.set_exception(answer)
            future.exception()  # marks it as seen
        else:
            future.set_result(answer)

    async def _look_up(self, asked: list[Address]) -> list[tuple[Address, Found]]:
        """For each address the first host, with its port or without, that has the link; else the first that has a row."""
        tries = [
            [(workspace_id, name, key) for name in dict.fromkeys((host, _without_port(host)))]
            for workspace_id, host, key in asked
        ]
        async with asyncio.timeout(LOOK_UP_SECONDS):
            found = iter(await self._find([one for each in tries for one in each]))
        answers = []
        for each in tries:
            pairs = [(one, next(found)) for one in each]
            with_link = next((pair for pair in pairs if pair[1].link is not None), None)
            with_row = next((pair for pair in pairs if pair[1].domain is not None), pairs[0])
            answers.append(with_link or with_row)
        return answers

    async def _find(self, addresses: list[Address]) -> list[Found]:
        """What stands at *addresses*; a connection that was kept and is lost on the way is replaced once."""
        try:
            return await self._find_once(addresses)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if not is_lost(error):
                raise
            return await self._find_once(addresses)

    async def _find_once(self, addresses: list[Address]) -> list[Found]:
        line = await self._lines.take()
        try:
            found = await link_lookups.find_by_driver(line.driver, self._tables, addresses)
        except BaseException:
            await self._lines.drop(line)
            raise
        await self._lines.give(line)
        return found

    def _known(self, answer: tuple[Address, Found], now: datetime, era: int) -> Known:
        (workspace_id, host, _), found = answer
        domain = found.domain or Domain(workspace_id=workspace_id, host=host)
        route = None if found.link is None else prepare(found.link, found.domain)
        return Known(
            link=found.link,
            domain=domain,
            route=route,
            plain=None if route is None else plain_link(route, self._config.own_hosts, now),
            since=now,
            until=now + (MAX_AGE if self._is_listening() else FRESH),
            era=era,
        )

    # Memory ----------------------------------------------------------------------------------------------------------

    def _keep(self, address: str, known: Known) -> None:
        self._forget(address)
        kept = self._empty if known.link is None else self._links
        kept[address] = known
        self._spellings.setdefault(_folded(address), set()).add(address)
        if len(kept) > MAX_CACHED:
            self._forget(next(iter(kept)))

    def _forget(self, address: str) -> None:
        if self._links.pop(address, None) is None and self._empty.pop(address, None) is None:
            return
        spelled = self._spellings[_folded(address)]
        spelled.discard(address)
        if not spelled:
            del self._spellings[_folded(address)]

    def _drop(self, folded: str) -> None:
        for address in tuple(self._spellings.get(folded, ())):
            self._forget(address)


def _without_port(host: str) -> str:
    return host.partition(":")[0]


def _folded(address: str) -> str:
    """The one name of all spellings of an address: hosts with and without a port, keys in any case."""
    host, _, key = address.partition("/")
    return f"{_without_port(host)}/{key.casefold()}"


def _names_of(address: str) -> tuple[str | None, ...]:
    """The words that are about *address*, as `_named` reads them."""
    folded = _folded(address)
    return folded, folded.partition("/")[0] + "/", None


def _named(word: str | None) -> str | None:
    """What *word* is about: a folded address, a host with a slash behind it, or `None` for everything."""
    parts = (word or "").split("/", 2)
    return _folded(f"{parts[1].lower()}/{parts[2]}") if len(parts) == 3 and parts[1] else None
