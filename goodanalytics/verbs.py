"""
The verbs of Python: what a host says of its visitors, and asks.

Each one checks what it is given, makes a hit of it, and has it processed at once, in the host's own transaction when the host
gives its connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, overload
from uuid import UUID

import msgspec

from goodanalytics.config import Config
from goodanalytics.core import bounds, repetition, said, tokens
from goodanalytics.core.bounds import Invalid, Property
from goodanalytics.core.foreseen import Foreseen
from goodanalytics.core.hits import Client, EventType, Hit, Signals, id_for_key
from goodanalytics.core.identity import identifiers
from goodanalytics.core.people import settling
from goodanalytics.core.plan import Outcome
from goodanalytics.core.visitors import Visitor
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.facade import visitors as facade
from goodanalytics.ingest import Ingest
from goodanalytics.log import Durability, SafeLog
from goodanalytics.store.database import Database
from goodanalytics.web.reading import visit_of

Person = Visitor | UUID | str
"""A visitor, given as the value that we handed out, or as its id."""


class Verbs:
    """What `Analytics` says and asks; it brings the settings, the database and the engine."""

    config: Config
    database: Database
    ingest: Ingest
    log: SafeLog

    async def visitor(self, request: Any) -> Visitor | None:
        """
        The visitor behind *request* (anything with an ASGI `.scope`, or the scope itself), found or made now.

        `None` when tracking is refused: a privacy signal, an excluded path, a prefetch, a bot, somebody who was erased.
        """
        scope = request if isinstance(request, dict) else request.scope
        visit = visit_of(scope, self.config)
        if visit.refusal is not None or visit.client.bot is not None:
            return None
        visit.was_resolved = True
        try:
            return await self.resolve(visit.signals, workspace_id=visit.workspace_id, client=visit.client)
        except NotFound:  # their cookie is an erased person's
            return None

    async def resolve(
        self,
        signals: Signals | Mapping[str, Any],
        *,
        workspace_id: UUID | None = None,
        client: Client | None = None,
        connection: Any = None,
    ) -> Visitor:
        """
        The visitor that *signals* point to, found or made.

        Args:
            signals: A `Signals`, or a mapping with its names: `{"anonymous_id": …}`, which may be the value of the cookie
                `_ga_anon`. An `email` or `external_id` in it counts as said by the host.

        Raises:
            InvalidInput: A name is unknown, or nothing points anywhere.
        """
        try:
            found = (
                signals
                if isinstance(signals, Signals)
                else msgspec.convert(dict(signals), Signals, strict=False)
            )
            unknown = set() if isinstance(signals, Signals) else set(signals) - set(Signals.__struct_fields__)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"signals cannot be read: {error}", where="signals") from None
        if unknown:
            raise InvalidInput(
                f"signals has {sorted(unknown)}; known are {', '.join(Signals.__struct_fields__)}",
                where="signals",
            )
        found = said.signals(found)
        if not found.point_somewhere:
            raise InvalidInput(
                "signals point to nobody; give at least one of anonymous_id, external_id, email, phone, "
                "click_id, visitor_id",
                where="signals",
            )
        hit = self._hit(EventType.CUSTOM, workspace_id, found, quiet=True, client=client or Client())
        value = settling(hit, identifiers(hit, self.config.identity))
        if value is not None:
            person = await self.ingest.person((hit.workspace_id, value), connection)
            if person is not None:
                return person
        return await self._visitor_after(await self._now(hit, connection), hit, connection)

    @overload
    async def identify(
        self,
        visitor: Person | None = None,
        *,
        external_id: str | None = None,
        email: str | None = None,
        name: str | None = None,
        phone: str | None = None,
        traits: Mapping[str, Property] | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
        request: Any = None,
        dry_run: Literal[False] = False,
    ) -> Visitor: ...

    @overload
    async def identify(
        self,
        visitor: Person | None = None,
        *,
        dry_run: Literal[True],
        external_id: str | None = None,
        email: str | None = None,
        name: str | None = None,
        phone: str | None = None,
        traits: Mapping[str, Property] | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
        request: Any = None,
    ) -> Foreseen: ...

    async def identify(
        self,
        visitor: Person | None = None,
        *,
        external_id: str | None = None,
        email: str | None = None,
        name: str | None = None,
        phone: str | None = None,
        traits: Mapping[str, Property] | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
        request: Any = None,
        dry_run: bool = False,
    ) -> Visitor | Foreseen:
        """
        Say who *visitor* is, and get the visitor that it now is.

        When the external id, e-mail or phone is known already, both become one person; two different external ids never do:
        then the answer is the person with *external_id*.

        Args:
            request: The request in which they signed in. If its browser was somebody else's until now, it is theirs from now
                on; what was done on it before stays with whom it was. Without it no browser changes hands.
            dry_run: Write nothing, and say what would happen.

        Raises:
            InvalidInput: Nothing is said, or a value is not usable.
            NotFound: There is no such visitor in this workspace, or it was erased.
        """
        workspace_id, visitor_id = self._person(visitor, workspace_id)
        if not any((external_id, email, name, phone, traits)):
            raise InvalidInput("identify() needs at least one of external_id, email, phone, name, traits")
        signals = Signals(
            visitor_id=visitor_id,
            external_id=said.external_id(external_id),
            email=bounds.text(email, 254),
            name=bounds.text(name),
            phone=bounds.text(phone, 32),
            traits=said.properties(traits, "traits"),
            anonymous_id=None if request is None else self._browser_of(request),
        )
        if visitor_id is not None:
            await self._must_exist(workspace_id, visitor_id, connection)
        elif not signals.point_somewhere:
            raise InvalidInput("identify() without a visitor needs external_id, email or phone")
        hit = self._hit(EventType.IDENTIFY, workspace_id, signals)
        if dry_run:
            return await self.ingest.foresee(hit, connection)
        return await self._visitor_after(await self._now(hit, connection), hit, connection)

    def reset(self, request: Any) -> None:
        """
        Let the browser behind *request* be a new one from its answer on: call it when a user signs out.

        The middleware then sets a new cookie, and what is done on the browser next is nobody's until somebody signs in.
        """
        scope = request if isinstance(request, dict) else request.scope
        visit_of(scope, self.config).renew()

    def _browser_of(self, request: Any) -> str | None:
        """The cookie of *request*'s browser, which its answer then sets; `None` when it may not be followed."""
        scope = request if isinstance(request, dict) else request.scope
        visit = visit_of(scope, self.config)
        if visit.refusal is not None or visit.client.bot is not None:
            return None
        visit.was_resolved = True
        return visit.anonymous_id

    async def track(
        self,
        visitor: Person,
        event: str,
        *,
        properties: Mapping[str, Property] | None = None,
        url: str | None = None,
        referrer: str | None = None,
        key: str | None = None,
        occurred_at: datetime | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
        durability: Durability = "now",
    ) -> Outcome:
        """
        Record that *visitor* did *event*: `pageview`, `share`, or any name of your own.

        Args:
            key: Makes the call safe to repeat: one key is one event.
            occurred_at: Aware; now when left out.
            durability: `now` returns when it is recorded; `log` when it is safe, also while the database is away, and a worker
                records it within moments; `fire` at once: a crash just then loses it. After these two the outcome is `accepted`.

        Raises:
            InvalidInput: A value is out of its bounds, or *durability* does not go with *connection*.
            Busy: Too much waits already.
            DatabaseUnavailable: The database does not answer; with `log`, only if there is no spool either.
            NotFound: There is no such visitor in this workspace; only `now` can tell.
            Conflict: *key* was used for something else; only `now` can tell.
        """
        known = {str(t) for t in (EventType.PAGEVIEW, EventType.SHARE, EventType.SESSION_START)}
        event_type, name = (
            (EventType(event), None) if event in known else (EventType.CUSTOM, bounds.text(event, 100))
        )
        if event_type is EventType.CUSTOM and name is None:
            raise InvalidInput("event is empty; give it a name such as 'Newsletter opened'", where="event")
        facts: dict[str, Any] = {"name": name, "url": url, "referrer": referrer, "occurred_at": occurred_at}
        if durability == "now":
            return await self._record(
                event_type, visitor, workspace_id, connection, key, properties=properties, **facts
            )
        if durability not in ("log", "fire") or connection is not None:
            raise InvalidInput(
                f"durability is {durability!r}; write now, log or fire, and leave the connection out for the last two",
                where="durability",
            )
        workspace_id, visitor_id = self._person(visitor, workspace_id)
        hit = self._hit(
            event_type, workspace_id, Signals(visitor_id=visitor_id),
            properties=said.properties(properties, "properties"), key=key, **facts,
        )  # fmt: skip
        if durability == "fire":
            self.log.fire([hit])
        else:
            await self.log.append([hit])
        return Outcome(hit.id, "accepted", visitor_id=visitor_id)

    def identity_token(
        self,
        *,
        external_id: str,
        email: str | None = None,
        name: str | None = None,
        workspace_id: UUID | None = None,
        life: timedelta = timedelta(hours=1),
    ) -> str:
        """
        A token with which a page may say who its visitor is: `GoodAnalytics.identify({token})`.

        Args:
            life: How long the page may use it.

        Raises:
            InvalidInput: *external_id* names nobody.
        """
        claims = {"external_id": said.external_id(external_id), "email": email, "name": name}
        return self._token("identity", {k: v for k, v in claims.items() if v is not None}, workspace_id, life)

    def conversion_token(
        self,
        *,
        amount_cents: int | None = None,
        currency: str | None = None,
        key: str | None = None,
        workspace_id: UUID | None = None,
        life: timedelta = timedelta(hours=1),
    ) -> str:
        """
        A token that makes a page's `lead` or `sale` with exactly these values true.

        Args:
            life: How long the page may use it.

        Raises:
            InvalidInput: A value is out of the bounds of `sale`, so that no page could use the token.
        """
        claims = {**self._money(amount_cents, currency), "key": said.key(key)}
        return self._token(
            "conversion", {k: v for k, v in claims.items() if v is not None}, workspace_id, life
        )

    # How the verbs do it ---------------------------------------------------------------------------------------------

    def _token(
        self, use: tokens.Use, claims: dict[str, Any], workspace_id: UUID | None, life: timedelta
    ) -> str:
        claims = {**claims, "workspace_id": str(workspace_id or self.config.workspace)}
        return tokens.sign(self.config.secret_key, use, claims, self.config.clock(), life)

    async def _record(
        self,
        event_type: EventType,
        visitor: Person,
        workspace_id: UUID | None,
        connection: Any,
        key: str | None,
        *,
        name: str | None = None,
        properties: Mapping[str, Property] | None = None,
        **facts: Any,
    ) -> Outcome:
        workspace_id, visitor_id = self._person(visitor, workspace_id)
        hit = self._hit(
            event_type, workspace_id, Signals(visitor_id=visitor_id),
            name=bounds.text(name, 100), properties=said.properties(properties, "properties"), key=key, **facts,
        )  # fmt: skip
        return await self._of_visitor(hit, connection)

    async def _of_visitor(self, hit: Hit, connection: Any) -> Outcome:
        """Process a hit that may name its visitor, who then must be there."""
        outcome = await self.ingest.alone(hit, connection)
        # One is dropped when its visitor was erased since they were asked for: then nobody is there, as below.
        if outcome is not None and outcome.status != "dropped":
            return outcome
        if hit.signals.visitor_id is not None:
            await self._must_exist(hit.workspace_id, hit.signals.visitor_id, connection)
        return await self._now(hit, connection)

    @staticmethod
    def _money(amount_cents: int | None, currency: str | None) -> dict[str, Any]:
        try:
            amount_cents, currency = bounds.money(amount_cents, currency)
        except Invalid as error:
            raise InvalidInput(f"{error.where}: {error.reason}", where=error.where) from None
        return {"amount_cents": amount_cents, "currency": currency}

    def _hit(
        self,
        event_type: EventType,
        workspace_id: UUID | None,
        signals: Signals,
        *,
        key: str | None = None,
        occurred_at: datetime | None = None,
        url: str | None = None,
        referrer: str | None = None,
        **facts: Any,
    ) -> Hit:
        workspace_id, now = workspace_id or self.config.workspace, self.config.clock()
        if occurred_at is not None and occurred_at.tzinfo is None:
            raise InvalidInput(
                f"occurred_at is {occurred_at!r}, without a time zone; give an aware datetime",
                where="occurred_at",
            )
        hit = Hit(
            id=self.config.new_id() if key is None else id_for_key(workspace_id, str(event_type), key),
            workspace_id=workspace_id,
            received_at=now,
            occurred_at=occurred_at or now,
            event_type=event_type,
            origin="server",
            trusted=True,
            url=bounds.text(url, bounds.MAX_URL),
            referrer=bounds.text(referrer, bounds.MAX_URL),
            signals=signals,
            key=key,
            **facts,
        )
        if key is None:
            return hit
        return msgspec.structs.replace(
            hit, digest=repetition.digest(hit, "python", repetition.digest_of(hit))
        )

    async def _now(self, hit: Hit, connection: Any) -> Outcome:
        (outcome,) = await self.ingest.now([hit], connection)
        if outcome.status == "conflict":
            raise Conflict(
                f"The key {hit.key!r} was used before for a {hit.event_type} with other values. Use a key once"
            )
        return outcome

    async def _visitor_after(self, outcome: Outcome, hit: Hit, connection: Any) -> Visitor:
        if outcome.visitor_id is None:
            raise NotFound(
                "What points there belongs to somebody who was erased; nothing more is kept of them"
            )
        return await self._must_exist(hit.workspace_id, outcome.visitor_id, connection)

    async def _must_exist(self, workspace_id: UUID, visitor_id: UUID | None, connection: Any) -> Visitor:
        found = (
            None if visitor_id is None else await self.ingest.person((workspace_id, visitor_id), connection)
        )
        if found is None:
            raise NotFound(f"There is no visitor {visitor_id} in workspace {workspace_id}")
        return found

    def _person(self, visitor: Person | None, workspace_id: UUID | None) -> tuple[UUID, UUID | None]:
        """The workspace and the id of *visitor*; a value that we handed out knows its own workspace."""
        if isinstance(visitor, Visitor):
            if workspace_id not in (None, visitor.workspace_id):
                raise InvalidInput(
                    f"visitor {visitor.id} belongs to workspace {visitor.workspace_id}, not {workspace_id}"
                )
            return visitor.workspace_id, visitor.id
        return workspace_id or self.config.workspace, None if visitor is None else facade.as_uuid(
            visitor, "visitor"
        )
