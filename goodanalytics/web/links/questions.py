"""
What decides where a request for a link is led, and whom it takes to know: the request, the places, the database.

Rules of this file
1. Only what the link's own rules read is found out (`Route.needs`).
2. Whoever may not be followed is not looked up either: for the rules they are here for the first time.
3. When the database does not say in time what is known of a visitor, nothing is; the other rules decide. When it does not say
   whether a use is left, nobody is let through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID

import msgspec
from starlette.types import Receive, Scope

from goodanalytics.config import Config
from goodanalytics.core import bots
from goodanalytics.core.devices import parse
from goodanalytics.core.hits import Client
from goodanalytics.core.link_matching import Asked, VisitorFacts
from goodanalytics.core.links import Link
from goodanalytics.core.places import Place
from goodanalytics.core.routing import Route
from goodanalytics.errors import DatabaseUnavailable
from goodanalytics.geo import GeoReader
from goodanalytics.store import link_lookups, link_uses
from goodanalytics.store.database import Database, is_lost
from goodanalytics.store.link_uses import Claim
from goodanalytics.web import path_below
from goodanalytics.web.links.catalogue import Known
from goodanalytics.web.reading import Visit

USE_SECONDS: Final = 2.0
"""How long the database may take to hand out a use."""

MAX_CLAIMS: Final = 500  # in one transaction

FACTS_SECONDS: Final = 0.2
"""How long it may take to say what is known of a visitor."""

AT_ONCE: Final = 3
"""Connections of the pool that facts take at a time, so that the log keeps some."""


class CannotSay(DatabaseUnavailable):
    """This link can be used a limited number of times, and how often it was cannot be asked just now. Try again."""


@dataclass(slots=True)
class Request:
    """
    One request for a short link.

    Attributes:
        query: Without its question mark.
        rest: What stands behind the key, with its slash.
        asks_where: Whether a `+` stands behind the key.
        is_open: Whether the link's password was given.
    """

    scope: Scope
    receive: Receive
    visit: Visit
    method: str
    now: datetime
    click_id: UUID
    query: str
    rest: str = ""
    asks_where: bool = False
    is_open: bool = False

    @property
    def short_url(self) -> str:
        """The link's address as it was asked for, without `+`, path and query."""
        key = path_below(self.scope)[1:].partition("/")[0].removesuffix("+")
        scheme = "https" if self.visit.is_secure else "http"
        return f"{scheme}://{self.visit.host}{self.scope.get('root_path', '')}/{key}"


class Questions:
    """Asks for what is not in the request."""

    def __init__(
        self, config: Config, database: Database, geo: GeoReader | None, is_down: Callable[[], bool]
    ) -> None:
        self._config = config
        self._database = database
        self._geo = geo
        self._is_down = is_down
        self._room = asyncio.Semaphore(AT_ONCE)
        self._claims: dict[Claim, asyncio.Future[bool]] = {}
        self._clerk: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Break off what is being handed out."""
        if self._clerk is not None:
            self._clerk.cancel()
            with suppress(asyncio.CancelledError):
                await self._clerk

    async def take_use(self, asked: Request, known: Known, link: Link) -> bool:
        """
        Take one of the uses that a link has.

        Raises:
            CannotSay: Nobody answers who knows whether one is left.
        """
        if known.is_used_up:
            return False
        if self._is_down():
            raise CannotSay
        claim = Claim(link.workspace_id, link.id, asked.click_id)
        future = self._claims[claim] = asyncio.get_running_loop().create_future()
        if self._clerk is None or self._clerk.done():
            self._clerk = asyncio.get_running_loop().create_task(self._hand_out(), name="goodanalytics uses")
        await asyncio.wait([future], timeout=USE_SECONDS)
        self._claims.pop(claim, None)
        if not future.done():
            raise CannotSay
        is_taken: bool = future.result()
        known.is_used_up = not is_taken
        return is_taken

    async def _hand_out(self) -> None:
        """Take uses, all that are asked for meanwhile in one transaction, until nobody asks."""
        while self._claims:
            batch = dict(islice(self._claims.items(), MAX_CLAIMS))
            for claim in batch:
                del self._claims[claim]
            try:
                async with asyncio.timeout(USE_SECONDS), self._database.begin() as conn:
                    taken = await link_uses.take(
                        conn, self._database.tables, list(batch), self._config.clock()
                    )
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody knows whether they may pass
                if not is_lost(error):
                    self._config.report(error, "handing out uses of links")
                for future in batch.values():
                    future.set_exception(CannotSay())
                    future.exception()  # marks it as seen
            else:
                for claim, future in batch.items():
                    future.set_result(claim.click_id in taken)

    async def facts(self, asked: Request, route: Route) -> Asked:
        """What decides where this request is led, as far as this link's rules read it."""
        visit, needs = asked.visit, route.needs
        client = visit.client
        place = self._place(client) if "place" in needs else None
        return msgspec.structs.replace(
            facts_of(asked),
            device=parse(client.user_agent, client.hints) if "device" in needs else None,
            accept_language=visit.headers.get("accept-language"),
            country=None if place is None else place.country,
            region=None if place is None else place.region,
            region_code=None if place is None else place.region_code,
            ip=client.ip,
            visitor=await self._known_of(visit) if "visitor" in needs else None,
        )

    def _place(self, client: Client) -> Place | None:
        """Where an address is; the country that a trusted header names is believed first."""
        found = None if self._geo is None or client.ip is None else self._geo.lookup(client.ip)
        if client.country is None or (found is not None and found.country == client.country):
            return found
        return Place(country=client.country)

    async def _known_of(self, visit: Visit) -> VisitorFacts | None:
        """What is known of a visitor; `None` when nobody says so in time."""
        if visit.is_new or visit.refusal is not None:
            return VisitorFacts(known=False)
        if self._is_down():
            return None
        try:
            async with asyncio.timeout(FACTS_SECONDS), self._room, self._database.connect() as conn:
                return await link_lookups.visitor_facts(
                    conn, self._database.tables, visit.workspace_id, visit.anonymous_id
                )
        except Exception as error:  # noqa: BLE001  # the visitor goes on by the other rules
            if not is_lost(error):
                self._config.report(error, "asking what is known of a visitor")
            return None


def facts_of(asked: Request) -> Asked:
    """What decides where this request is led, as far as the request itself says it."""
    client = asked.visit.client
    return Asked(
        click_id=asked.click_id,
        query=asked.query,
        path_rest=asked.rest,
        inspect=asked.asks_where,
        unlocked=asked.is_open,
        bot_kind=None if client.bot is None else bots.judge(client.user_agent).category,
        stable_id=asked.visit.anonymous_id,
    )
