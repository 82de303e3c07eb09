"""
Who referred a person, and what that earns: the rules, without the database. What becomes of it is `core.commissions`.

1. A *referral* is somebody's arrival by a partner: a click on a link of theirs, a visit that such a click began (also of a
   stranger who was handed the address), a page whose address says `?via=CODE` or else `?ref=CODE`. It lies on the row of the
   browser that arrived; a person's referrals are those of all their rows.
2. A trusted lead or sale earns its partner a commission: the last one (or the first, `Config(referral=…)`) of those whose
   referral of the person came before it and within their window. Nobody else earns with it, whatever that partner's terms are.
3. What partners buy themselves is void, as far as anything ties them to the buyer: so is what somebody paused would earn.
4. A percentage is the partner's part where the amount is divided between partner and host by largest remainder, half a unit
   going to the partner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal
from uuid import UUID

from goodanalytics.core import urls
from goodanalytics.core.attribution import divide
from goodanalytics.core.hits import EventType
from goodanalytics.core.identity import Kind
from goodanalytics.core.partners import LONGEST_WINDOW, WHOLE, Partner, folded_code
from goodanalytics.core.people import People
from goodanalytics.core.plan import Plan
from goodanalytics.errors import ConfigError

Way = Literal["click", "landing", "code"]

NAMES: Final = (Kind.EMAIL, Kind.EXTERNAL_ID)
"""By what a partner is known among the visitors."""

SELF_REFERRAL: Final = "self_referral"
PAUSED: Final = "partner_paused"
"""Why a commission is void: the buyer is the partner; the partner was paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferralRules:
    """
    Whose a sale is.

    Attributes:
        window: How long after a referral a lead or sale is owed to it, where the partner's terms do not say.
        credit: Whether the first or the last partner within their windows has it.

    Raises:
        ConfigError: A value is not usable.
    """

    window: timedelta = timedelta(days=90)
    credit: Literal["first", "last"] = "last"

    def __post_init__(self) -> None:
        """Check every value."""
        longest = timedelta(days=LONGEST_WINDOW)
        if not isinstance(self.window, timedelta) or not timedelta(0) < self.window <= longest:
            raise ConfigError(
                f"referral.window is {self.window!r}; write something such as timedelta(days=90), at most {LONGEST_WINDOW} days"
            )
        if self.credit not in ("first", "last"):
            raise ConfigError(f"referral.credit is {self.credit!r}; write 'first' or 'last'")


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    An event that may be a referral.

    Attributes:
        link_id: The link that it came by.
        via, ref: Folded codes of its address.
        way: What it is if its link is a partner's.
    """

    workspace_id: UUID
    visitor_id: UUID
    occurred_at: datetime
    event_id: UUID
    link_id: UUID | None = None
    via: str | None = None
    ref: str | None = None
    way: Way = "click"


@dataclass(frozen=True, slots=True)
class Referral:
    """
    An arrival by a partner.

    Attributes:
        way: `click` on a link of theirs, `landing` of a visit by such a click, `code` in the page's address.
    """

    at: datetime
    event_id: UUID
    partner_id: UUID
    way: Way = "click"
    link_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """
    A trusted lead, sale or refund of a person.

    Attributes:
        visitor_id: The row that it lies on.
        amount_cents: Of a refund: what it gives back, as a positive number.
        sale_event_id: Of a refund: the sale that it takes back.
    """

    workspace_id: UUID
    event_id: UUID
    kind: Literal["lead", "sale", "refund"]
    visitor_id: UUID
    occurred_at: datetime
    amount_cents: int | None = None
    currency: str | None = None
    sale_event_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class News:
    """
    What a batch tells that commissions depend on, as plain values.

    Attributes:
        named: The e-mail addresses and external ids that came to name a row: workspace, row, kind, value.
        joined: Rows of people who became one: workspace and row, one for each person.
    """

    arrivals: Sequence[Arrival] = ()
    conversions: Sequence[Conversion] = ()
    named: Sequence[tuple[UUID, UUID, str, str]] = ()
    joined: Sequence[tuple[UUID, UUID]] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.arrivals or self.conversions or self.named or self.joined)


@dataclass(frozen=True, slots=True)
class Due:
    """Whose commission a conversion is. *reason* says why it is void; `None` for one that is not."""

    partner: Partner
    amount_cents: int
    currency: str
    reason: str | None = None


# Referrals -----------------------------------------------------------------------------------------------------------


def arrivals(events: Iterable[Mapping[str, Any]], begun: Mapping[UUID, datetime]) -> list[Arrival]:
    """
    Those of *events*, rows of the table, that would be referrals if their link or code is a partner's.

    Args:
        begun: When the visits of these events began. Only the page that a visit begins with landed with the visit's link.
    """
    found = []
    for event in events:
        kind, link_id = event["event_type"], event["link_id"]
        if kind not in (EventType.PAGEVIEW, EventType.LINK_CLICK):
            continue
        is_click = kind == EventType.LINK_CLICK
        # The address of a click is where the link leads. What its codes say, the page says when it is reached.
        via, ref = (None, None) if is_click and link_id is not None else codes(event["url"])
        if not is_click and begun.get(event["session_id"]) != event["occurred_at"]:
            link_id = None
        if link_id is not None or via or ref:
            found.append(
                Arrival(
                    event["workspace_id"], event["visitor_id"], event["occurred_at"], event["id"],
                    link_id, via, ref, "click" if is_click else "landing",
                )
            )  # fmt: skip
    return found


def codes(url: str | None) -> tuple[str | None, str | None]:
    """
    What *url* says with `via` and with `ref`, as codes are compared.

    >>> codes("https://shop.example/?ref=Bob&via=ADA&via=eve")
    ('ada', 'bob')
    """
    if url is None or not ("via" in (folded := url.casefold()) or "ref" in folded):
        return None, None
    found: dict[str, str] = {}
    for name, value in urls.parameters(url):
        if name in ("via", "ref") and value:
            found.setdefault(name, value)
    return tuple(folded_code(found.get(name, "")) for name in ("via", "ref"))  # type: ignore[return-value]  # two of them


def first_and_last(referrals: Sequence[Referral]) -> tuple[Referral | None, Referral | None]:
    """The earliest and the latest of *referrals*; of one instant, the ids decide."""
    ordered = sorted(referrals, key=_order)
    return (ordered[0], ordered[-1]) if ordered else (None, None)


def _order(referral: Referral) -> tuple[datetime, UUID]:
    return referral.at, referral.event_id


def conversions(events: Iterable[Mapping[str, Any]]) -> list[Conversion]:
    """The leads and sales among *events*, rows of the table, that earn: those that the host vouches for and no bot did."""
    return [
        Conversion(
            event["workspace_id"], event["id"], event["event_type"], event["visitor_id"], event["occurred_at"],
            event["amount_cents"], event["currency"],
        )
        for event in events
        if event["event_type"] in (EventType.LEAD, EventType.SALE) and event["trusted"] and event["bot"] is None
    ]  # fmt: skip


def news_of(people: People, plan: Plan, refunds: Sequence[Conversion] = ()) -> News:
    """
    What a batch tells, when *people* and *plan* are what it changes.

    Args:
        refunds: Of the batch, each with its sale.
    """
    begun = {visit.id: visit.started_at for visit in plan.sessions}
    return News(
        arrivals(plan.events, begun),
        [*conversions(plan.events), *refunds],
        [(i.workspace_id, i.visitor_id, i.kind, i.value) for i in people.identities if i.kind in NAMES],
        [(merge.workspace_id, merge.winner_member_id) for merge in people.merges],
    )


# Money ---------------------------------------------------------------------------------------------------------------


def due(
    conversion: Conversion,
    referrals: Iterable[Referral],
    partners: Mapping[UUID, Partner],
    own: Collection[UUID],
    rules: ReferralRules,
    booked: Mapping[UUID, tuple[int, str]] = MappingProxyType({}),
) -> Due | None:
    """
    Whose commission *conversion*, a lead or a sale, is.

    Args:
        referrals: The person's; later ones do not count.
        partners: Those of *referrals*.
        own: The partners who are this person.
        booked: What stands in the ledger for a partner with this conversion. Terms that changed since are not asked again.
    """
    counting = [
        one
        for one in referrals
        if one.at <= conversion.occurred_at
        and (one.partner_id in booked or _counts(one, conversion, partners.get(one.partner_id), rules))
    ]
    chosen = first_and_last(counting)[0 if rules.credit == "first" else 1]
    if chosen is None:
        return None
    partner = partners[chosen.partner_id]
    found = booked.get(partner.id) or earned(partner, conversion)
    if found is None:
        return None
    reason = SELF_REFERRAL if partner.id in own else PAUSED if partner.status == "paused" else None
    return Due(partner, *found, reason)


def _counts(
    referral: Referral, conversion: Conversion, partner: Partner | None, rules: ReferralRules
) -> bool:
    if partner is None or partner.status == "closed":
        return False
    days = partner.commission.window_days
    window = rules.window if days is None else timedelta(days=days)
    return conversion.occurred_at - referral.at <= window


def earned(partner: Partner, conversion: Conversion) -> tuple[int, str] | None:
    """What *partner* earns with *conversion*, and in which currency; `None` when that is nothing."""
    terms = partner.commission
    if terms.on != conversion.kind:
        return None
    if terms.kind == "fixed":
        return (terms.value, terms.currency) if terms.value and terms.currency is not None else None
    cents, currency = conversion.amount_cents or 0, conversion.currency
    if currency is None or terms.currency not in (None, currency):
        return None
    part = divide(cents, [terms.value, WHOLE - terms.value])[0]
    return (part, currency) if part else None


__all__ = [
    "NAMES",
    "PAUSED",
    "SELF_REFERRAL",
    "Arrival",
    "Conversion",
    "Due",
    "News",
    "Referral",
    "ReferralRules",
    "Way",
    "arrivals",
    "codes",
    "conversions",
    "due",
    "earned",
    "first_and_last",
    "news_of",
]
