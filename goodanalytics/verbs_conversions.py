"""
The verbs of money: a lead, a sale, a refund.

Each is one hit, processed at once. With the host's own connection or session, the event, what earned it and what is queued for
the ad platforms commit or vanish with the host's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from goodanalytics.core import bounds, said
from goodanalytics.core import consent as consents
from goodanalytics.core.bounds import Property
from goodanalytics.core.consent import Consent
from goodanalytics.core.hits import EventType, Hit, Signals, id_for_key
from goodanalytics.core.orders import Item, Place, Reason
from goodanalytics.core.plan import Outcome
from goodanalytics.core.remembered import pixel_cookies
from goodanalytics.errors import Conflict, GoodAnalyticsError, InvalidInput
from goodanalytics.store import refunds
from goodanalytics.verbs import Person, Verbs
from goodanalytics.web.reading import visit_of

NO_CURRENCY = "XXX"
"""What ISO 4217 has for an amount whose currency nobody named; a refund's is its sale's."""


class ConversionVerbs(Verbs):
    """What `Analytics` says of leads and money."""

    async def lead(
        self,
        visitor: Person | None = None,
        *,
        name: str | None = None,
        properties: Mapping[str, Property] | None = None,
        amount_cents: int | None = None,
        currency: str | None = None,
        key: str | None = None,
        external_id: str | None = None,
        email: str | None = None,
        phone: str | None = None,
        contents: Sequence[Item | Mapping[str, Any]] = (),
        place: Place = "website",
        url: str | None = None,
        consent: Consent | Mapping[str, str] | None = None,
        request: Any = None,
        occurred_at: datetime | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
    ) -> Outcome:
        """
        Record that *visitor* became a lead: signed up, asked for an offer, booked a demo.

        Everything is as in `sale`; a lead may have an amount, and needs none.

        Raises:
            InvalidInput: A value is out of its bounds.
            NotFound: There is no such visitor in this workspace.
            Conflict: *key* was used for something else.
        """
        return await self._convert(
            EventType.LEAD, visitor, workspace_id, connection, request,
            said_of=(external_id, email, phone), contents=contents, consent=consent, properties=properties,
            name=name, amount_cents=amount_cents, currency=currency, key=key, place=place, url=url, occurred_at=occurred_at,
        )  # fmt: skip

    async def sale(
        self,
        visitor: Person | None = None,
        *,
        amount_cents: int,
        currency: str,
        key: str | None = None,
        name: str | None = None,
        properties: Mapping[str, Property] | None = None,
        external_id: str | None = None,
        email: str | None = None,
        phone: str | None = None,
        contents: Sequence[Item | Mapping[str, Any]] = (),
        place: Place = "website",
        url: str | None = None,
        consent: Consent | Mapping[str, str] | None = None,
        request: Any = None,
        occurred_at: datetime | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
    ) -> Outcome:
        """
        Record that somebody paid.

        Args:
            visitor: Who; `None` when you do not know. Such a sale counts as revenue and is unattributed, until *external_id*,
                *email* or *phone* turn out to be a visitor's: then it is theirs.
            amount_cents: In the currency's minor unit, as charged: 4900 for 49.00 EUR, 4900 for 4900 JPY.
            currency: ISO 4217.
            key: Your order number: one key is one sale, however often it is told, here or over REST; `refund` takes it.
            external_id, email, phone: Who it is, as in `identify`.
            contents: The lines of the order, at most 100.
            place: Where it happened: website, phone, store or system (a renewal).
            url: The page on which it happened.
            consent: What they allowed ad platforms; what was known before when left out.
            request: The request in which they paid: it tells their browser, the ad platforms' cookies and their consent.
            occurred_at: Aware; now when left out.
            connection: Your own connection or session: the sale commits or vanishes with your order.

        Raises:
            InvalidInput: A value is out of its bounds.
            NotFound: There is no such visitor in this workspace.
            Conflict: *key* was used for another sale.
        """
        return await self._convert(
            EventType.SALE, visitor, workspace_id, connection, request,
            said_of=(external_id, email, phone), contents=contents, consent=consent, properties=properties,
            name=name, amount_cents=amount_cents, currency=currency, key=key, place=place, url=url, occurred_at=occurred_at,
        )  # fmt: skip

    async def refund(
        self,
        sale: str | UUID | Outcome,
        amount_cents: int | None = None,
        *,
        currency: str | None = None,
        key: str | None = None,
        reason: Reason = "refund",
        name: str | None = None,
        properties: Mapping[str, Property] | None = None,
        occurred_at: datetime | None = None,
        workspace_id: UUID | None = None,
        connection: Any = None,
    ) -> Outcome:
        """
        Take a sale back, or a part of it: its revenue, lifetime value and credit, each from where the sale brought it.

        Args:
            sale: The sale's key; or its event id, as a UUID or as what `sale` answered.
            amount_cents: In the minor unit of the sale's currency; all that is left when left out.
            currency: Of the sale; only checked.
            key: Your own name for this refund: one key is one refund, however often the call is repeated. Without a key, a refund
                of all that is left is one for its sale; a part is another one each time.
            reason: Whether you gave it back, or the customer's bank did.

        Raises:
            InvalidInput: A value is out of its bounds, or *currency* is not the sale's.
            NotFound: There is no such sale in this workspace.
            Conflict: It is more than the sale has left, or *key* was used for another refund.
        """
        if reason not in ("refund", "chargeback"):
            raise InvalidInput(f"reason is {reason!r}; write 'refund' or 'chargeback'", where="reason")
        if amount_cents is not None and amount_cents <= 0:
            raise InvalidInput(
                f"amount_cents is {amount_cents}; give what is given back as a positive number of minor units",
                where="amount_cents",
            )
        checked = self._money(amount_cents, currency or NO_CURRENCY)
        hit = self._hit(
            EventType.REFUND, workspace_id, Signals(),
            name=bounds.text(name, 100), properties=said.properties(properties, "properties"),
            reason=reason, key=said.key(key), occurred_at=occurred_at, amount_cents=amount_cents,
            currency=None if currency is None else checked["currency"],
        )  # fmt: skip
        named = sale.event_id if isinstance(sale, Outcome) else sale
        async with self.database.reading(connection) as conn:
            (found,) = await refunds.of_sales(conn, self.database.tables, [(hit, named)])
        if isinstance(found, GoodAnalyticsError):
            raise found
        outcome = await self._now(found, connection)
        if outcome.status == "refused":
            raise Conflict(f"The refund of {named} cannot be: {outcome.reason}")
        return outcome

    def event_id(self, kind: Literal["lead", "sale"], key: str, *, workspace_id: UUID | None = None) -> UUID:
        """
        The id under which ad platforms hear of the lead or sale of *key*, also before it is told, whoever tells it.

        Give it to the platform's own pixel on your page (Meta's `eventID`, TikTok's `event_id`), and both count as one.

        Raises:
            InvalidInput: *key* cannot be one, or *kind* is another.
        """
        if kind not in ("lead", "sale"):
            raise InvalidInput(f"kind is {kind!r}; write 'lead' or 'sale'", where="kind")
        said.key(key)
        return id_for_key(workspace_id or self.config.workspace, kind, key)

    async def _convert(
        self,
        event_type: EventType,
        visitor: Person | None,
        workspace_id: UUID | None,
        connection: Any,
        request: Any,
        *,
        said_of: tuple[str | None, str | None, str | None],
        contents: Sequence[Item | Mapping[str, Any]],
        consent: Consent | Mapping[str, str] | None,
        properties: Mapping[str, Property] | None,
        name: str | None,
        amount_cents: int | None,
        currency: str | None,
        key: str | None,
        place: Place,
        **facts: Any,
    ) -> Outcome:
        workspace_id, visitor_id = self._person(visitor, workspace_id)
        external_id, email, phone = said_of
        signals = Signals(
            visitor_id=visitor_id,
            external_id=said.external_id(external_id),
            email=bounds.text(email, 254),
            phone=bounds.text(phone, 32),
        )
        hit = self._hit(
            event_type, workspace_id, signals,
            name=bounds.text(name, 100), properties=said.properties(properties, "properties"),
            contents=said.items(contents), place=said.place(place), key=said.key(key),
            **self._money(amount_cents, currency), **facts,
        )  # fmt: skip
        if request is not None:
            hit = self._seen_in(request, hit)
        if consent is not None:
            hit = msgspec.structs.replace(hit, consent=said.consent(consent))
        return await self._of_visitor(hit, connection)

    def _seen_in(self, request: Any, hit: Hit) -> Hit:
        """*hit* with the browser behind *request*, unless it may not be followed. Whoever pays is no bot."""
        scope = request if isinstance(request, dict) else request.scope
        visit = visit_of(scope, self.config)
        if visit.refusal is not None:
            return hit
        return msgspec.structs.replace(
            hit,
            client=msgspec.structs.replace(visit.client, bot=None, bot_version=None),
            platform_signals=pixel_cookies(visit.cookies),
            consent=consents.of_request(visit.headers, self.config.consent_of(scope)),
        )


__all__ = ["ConversionVerbs"]
