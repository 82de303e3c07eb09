"""What a refund takes back, and what money is in another currency: cases and laws, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.attribution import Model, Touch, credit
from goodanalytics.core.conversions import Sale, Sales, exchanged, given_back, is_conversion
from goodanalytics.core.hits import Client, EventType, Hit, Signals
from goodanalytics.core.identity_rows import State
from goodanalytics.core.people import People
from goodanalytics.core.plan import decide

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SALE_ID = UUID(int=1)
WORKSPACE = UUID(int=7)


def refund(number: int = 2, **facts) -> Hit:
    defaults = {
        "id": UUID(int=number),
        "workspace_id": WORKSPACE,
        "received_at": NOON,
        "occurred_at": NOON,
        "event_type": EventType.REFUND,
        "origin": "server",
        "trusted": True,
        "sale_id": SALE_ID,
    }
    return Hit(**(defaults | facts))


def sale(cents: int = 1_000, **facts) -> Sale:
    defaults = {
        "workspace_id": WORKSPACE,
        "id": SALE_ID,
        "visitor_id": UUID(int=3),
        "occurred_at": NOON,
        "key": "o-1",
        "amount_cents": cents,
        "currency": "EUR",
    }
    return Sale(**(defaults | facts))


def test_a_refund_that_is_refused_makes_nobody():
    """Its visitor may be gone with the sale; who is asked about it then does not come back."""
    people, asked = People(State()), refund(signals=Signals(visitor_id=UUID(int=3)))

    hit, taken, outcome = decide(people, Sales({}), asked, ())

    assert (hit, taken, outcome.status) == (asked, None, "refused")
    assert (people.made, people.rows) == ({}, {})


@pytest.mark.parametrize(
    ("facts", "order", "becomes"),
    [
        pytest.param({}, (0, 1), "recorded", id="after it"),
        pytest.param({}, (1, 0), "refused", id="before it"),
        pytest.param({"trusted": False}, (0, 1), "refused", id="of a claim"),
        pytest.param({"client": Client(bot="a bot")}, (0, 1), "refused", id="of a bot's"),
        pytest.param({"event_type": EventType.LEAD}, (0, 1), "refused", id="of a lead"),
        pytest.param({"workspace_id": UUID(int=8)}, (0, 1), "refused", id="of another workspace's"),
        pytest.param({"quiet": True}, (0, 1), "refused", id="of what is not recorded"),
    ],
)
def test_a_sale_of_the_batch_can_be_given_back_by_what_follows(facts, order, becomes):
    """Only what counts as a sale, and only from then on; the refund lies on the row that the batch made for the sale."""
    sold = refund(1, event_type=EventType.SALE, sale_id=None, amount_cents=500, currency="EUR", place="store")
    batch = [msgspec.structs.replace(sold, **facts), refund(2)]
    people, known = People(State()), Sales({})
    decided = [decide(people, known, batch[index], ()) for index in order]
    (hit, taken, outcome), (_, of_sale, _) = decided[order.index(1)], decided[order.index(0)]

    assert outcome.status == becomes
    if becomes == "recorded":
        assert (hit.amount_cents, hit.currency, hit.place) == (500, "EUR", "store")
        assert taken.visitor_id == of_sale.visitor_id


def sales(*known: Sale) -> Sales:
    return Sales({(one.workspace_id, one.id): one for one in known})


def touch(day: int, platform: str) -> Touch:
    return Touch(NOON + timedelta(days=day), {"platform": platform, "medium": "cpc"})


PATHS = st.lists(st.sampled_from(["ads", "news", "direct"]), max_size=7).map(
    lambda names: [touch(day, name) for day, name in enumerate(names)]
)


@given(PATHS, st.lists(st.integers(1, 5_000), min_size=1, max_size=6), st.sampled_from(Model))
def test_all_refunds_together_take_what_the_sale_gave(path, parts, model):
    """However a sale is given back in parts, each touch loses exactly what it had, and each part is whole."""
    given_parts, before = [], 0
    for cents in parts:
        given_parts.append(given_back(path, before, cents, model))
        before += cents

    taken = [sum(part.cents for part in column) for column in zip(*given_parts, strict=True)]
    assert taken == [-part.cents for part in credit(path, before, model)]
    assert [-sum(part.cents for part in one) for one in given_parts] == parts


@given(st.lists(st.integers(1, 900), min_size=1, max_size=6), st.integers(0, 10_000))
def test_the_reporting_currency_ends_at_nothing(parts, reporting):
    """Parts of a sale take, in the reporting currency, together what the sale was worth there."""
    one = sale(sum(parts), reporting_cents=reporting, reporting_currency="CHF")
    before = [sum(parts[:n]) for n in range(len(parts))]

    assert sum(one.reporting_share(b, cents) for b, cents in zip(before, parts, strict=True)) == reporting


def test_refunds_of_one_batch_see_each_other():
    """What the first takes is not there for the next, and all that is left is nothing in the end."""
    batch = sales(sale(1_000))
    found = [
        batch.take(refund(n, amount_cents=cents)) for n, cents in ((2, 700), (3, 400), (4, None), (5, None))
    ]

    assert [one if isinstance(one, str) else one.amount_cents for one in found] == [
        700,
        (
            "400 EUR are more than the 300 that are left of the sale's 1000; give back at most that, or leave "
            "amount_cents out for all that is left"
        ),
        300,
        "all 1000 EUR of the sale are given back already",
    ]


@pytest.mark.parametrize(
    ("known", "asked", "said"),
    [
        pytest.param([], {}, "is not known", id="no sale"),
        pytest.param([sale()], {"workspace_id": UUID(int=8)}, "is not known", id="of another workspace"),
        pytest.param([sale()], {"sale_id": None}, "is not known", id="names none"),
        pytest.param([sale()], {"currency": "USD"}, "in the currency of the sale", id="another currency"),
        pytest.param([sale(0)], {}, "all 0 EUR", id="of a sale of nothing"),
    ],
)
def test_a_refund_that_cannot_be_says_why(known, asked, said):
    """What is refused has a reason."""
    assert said in sales(*known).take(refund(**asked))


def test_a_refund_stands_where_its_sale_of_the_batch_stands():
    """A sale of the same batch goes before what was read of it."""
    batch = sales(sale(event={"source": "read"}))

    assert batch.placed(refund(), []) == {"source": "read"}
    assert batch.placed(refund(), [{"id": SALE_ID, "source": "made", "key": "o-1"}]) == {"source": "made"}


@pytest.mark.parametrize(
    ("cents", "currency", "rate", "into", "worth"),
    [
        pytest.param(4_900, "EUR", "1.1", "USD", 5_390, id="two decimals each"),
        pytest.param(4_900, "JPY", "0.0061", "EUR", 2_989, id="from none"),
        pytest.param(4_900, "EUR", "163.9", "JPY", 8_031, id="into none"),
        pytest.param(1_000, "KWD", "3", "EUR", 300, id="from three"),
        pytest.param(25, "EUR", "0.1", "USD", 2, id="a half goes to the even one"),
        pytest.param(35, "EUR", "0.1", "USD", 4, id="or up"),
    ],
)
def test_exchange(cents, currency, rate, into, worth):
    """A rate is for major units, whatever the decimals of either currency."""
    assert exchanged(cents, currency, Decimal(rate), into) == worth


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        pytest.param({}, True, id="the host's word"),
        pytest.param({"trusted": False}, False, id="a claim"),
        pytest.param({"client": Client(bot="a bot")}, False, id="a bot"),
        pytest.param({"event_type": EventType.SHARE}, False, id="another kind"),
    ],
)
def test_what_counts(facts, counts):
    """Only what the host vouches for and no bot did is a conversion."""
    assert is_conversion(refund(**facts)) is counts
