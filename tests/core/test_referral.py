"""Who referred a person and what that earns, as tables of cases and laws; the database has its own tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.commissions import Entry, settled, taken_back
from goodanalytics.core.partners import WHOLE, Commission, Partner
from goodanalytics.core.referral import (
    Arrival,
    Conversion,
    Due,
    Referral,
    ReferralRules,
    arrivals,
    codes,
    due,
    earned,
)
from goodanalytics.errors import ConfigError

WORKSPACE, BUYER, LINK, VISIT = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ADA, BOB = UUID(int=10), UUID(int=11)


def partner(number: UUID = ADA, **facts) -> Partner:
    terms = {name: facts.pop(name) for name in list(facts) if name in Commission.__struct_fields__}
    return Partner(
        workspace_id=WORKSPACE, id=number, code=f"p{number.int}", name="P", created_at=NOW, updated_at=NOW,
        commission=Commission(**{"value": 1000} | terms), **facts,
    )  # fmt: skip


def sale(cents: int | None = 1000, currency: str | None = "EUR", **facts) -> Conversion:
    given = {"kind": "sale", "occurred_at": NOW, "event_id": UUID(int=20)} | facts
    return Conversion(
        WORKSPACE, given["event_id"], given["kind"], BUYER, given["occurred_at"], cents, currency
    )


def refund(number: int, cents: int) -> Conversion:
    at = NOW + timedelta(days=number)
    return Conversion(WORKSPACE, UUID(int=100 + number), "refund", BUYER, at, cents, "EUR", UUID(int=20))


# Arrivals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, (None, None)),
        ("https://shop.example/", (None, None)),
        ("https://shop.example/?via=Ada", ("ada", None)),
        ("https://shop.example/?REF=b-1_x", (None, "b-1_x")),
        ("https://shop.example/?via=&via=ada", ("ada", None)),
        ("https://shop.example/?via=ada&via=eve&ref=bob", ("ada", "bob")),
        ("https://shop.example/#/page?via=ada", ("ada", None)),
        ("https://shop.example/?preferred=ada&previa=x", (None, None)),
        ("https://shop.example/?via=" + "a" * 65, (None, None)),
        ("https://shop.example/?via=a%00b%20c", (None, None)),
        ("javascript:via=ada", (None, None)),
    ],
)
def test_codes_are_read_from_addresses(url, expected):
    """Lower-cased, the first that says something, and only what can be a code."""
    assert codes(url) == expected


def row(kind: str, **facts) -> dict:
    plain = {
        "workspace_id": WORKSPACE,
        "visitor_id": BUYER,
        "occurred_at": NOW,
        "id": UUID(int=5),
        "session_id": VISIT,
    }
    return plain | {"event_type": kind, "link_id": None, "url": "https://shop.example/"} | facts


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (row("link_click", link_id=LINK, session_id=None), (LINK, None, "click")),
        (row("link_click", link_id=LINK, url="https://shop.example/?via=ada"), (LINK, None, "click")),
        (row("link_click", url="https://shop.example/?via=ada"), (None, "ada", "click")),
        (row("pageview", link_id=LINK), (LINK, None, "landing")),
        (row("pageview", link_id=LINK, occurred_at=NOW + timedelta(seconds=1)), None),
        (row("pageview", link_id=LINK, url="https://shop.example/?via=ada"), (LINK, "ada", "landing")),
        (row("pageview"), None),
        (row("custom", url="https://shop.example/?via=ada"), None),
        (row("sale", link_id=LINK), None),
    ],
    ids=["click", "where it leads", "a page's click", "landing", "later page", "both", "nothing", "event", "sale"],
)  # fmt: skip
def test_arrivals_are_clicks_landings_and_codes(event, expected):
    """A visit carries its link on every page; only the one that it begins with has landed."""
    found = [(one.link_id, one.via, one.way) for one in arrivals([event], {VISIT: NOW})]

    assert found == ([] if expected is None else [expected])


def test_an_arrival_is_its_events():
    """It lies where the event lies."""
    assert arrivals([row("link_click", link_id=LINK)], {}) == [
        Arrival(WORKSPACE, BUYER, NOW, UUID(int=5), LINK)
    ]


# Money ---------------------------------------------------------------------------------------------------------------


def came(partner_id: UUID, days: float, number: int = 0) -> Referral:
    return Referral(NOW - timedelta(days=days), UUID(int=number), partner_id)


@pytest.mark.parametrize(
    ("referrals", "credit", "expected"),
    [
        ([], "last", None),
        ([came(ADA, 2), came(BOB, 1)], "last", BOB),
        ([came(BOB, 1), came(ADA, 2)], "first", ADA),
        ([came(ADA, 90)], "last", ADA),
        ([came(ADA, 90.00001)], "last", None),
        ([came(ADA, 91), came(BOB, 89)], "first", BOB),
        ([came(ADA, 0)], "last", ADA),
        ([came(ADA, -0.1), came(BOB, 5)], "last", BOB),
        ([came(ADA, 1, 7), came(BOB, 1, 8)], "last", BOB),
        ([came(ADA, 1, 7), came(BOB, 1, 8)], "first", ADA),
        ([came(UUID(int=99), 1), came(ADA, 2)], "last", ADA),
    ],
    ids=["nobody", "last", "first", "just in time", "too late", "first in time", "at once", "afterwards", "same instant",
         "same instant, first", "unknown partner"],
)  # fmt: skip
def test_one_partner_has_it(referrals, credit, expected):
    """Of those before it and within 90 days; of one instant, the event's id decides."""
    found = due(sale(), referrals, {ADA: partner(), BOB: partner(BOB)}, (), ReferralRules(credit=credit))

    assert (None if found is None else found.partner.id) == expected


def test_nobody_earns_in_the_place_of_a_partner_whose_terms_give_nothing():
    """The sale is owed to the last partner, who is paid for leads."""
    partners = {ADA: partner(), BOB: partner(BOB, on="lead")}

    assert due(sale(), [came(ADA, 2), came(BOB, 1)], partners, (), ReferralRules()) is None


def test_what_is_booked_is_not_worked_out_from_new_terms():
    """Closed since, with another rate and a window that is over: the amount stands, as long as the referral does."""
    partners = {ADA: partner(status="closed", value=1, window_days=1)}
    booked = {ADA: (100, "EUR")}
    found = due(sale(), [came(ADA, 50)], partners, (), ReferralRules(), booked)

    assert found == Due(partners[ADA], 100, "EUR")
    assert due(sale(), [], partners, (), ReferralRules(), booked) is None


@pytest.mark.parametrize(
    ("terms", "conversion", "expected"),
    [
        ({"value": 1000}, sale(1000), (100, "EUR")),
        ({"value": 1000}, sale(5), (1, "EUR")),
        ({"value": 1000}, sale(4), None),
        ({"value": 1250}, sale(4), (1, "EUR")),
        ({"value": 10_000}, sale(7), (7, "EUR")),
        ({"value": 1000, "currency": "USD"}, sale(1000), None),
        ({"value": 1000}, sale(None, None), None),
        ({"kind": "fixed", "value": 500, "currency": "GBP"}, sale(None, None), (500, "GBP")),
        ({"kind": "fixed", "value": 500, "currency": "GBP", "on": "lead"}, sale(), None),
        ({"kind": "fixed", "value": 500, "currency": "GBP", "on": "lead"}, sale(None, None, kind="lead"), (500, "GBP")),
    ],
)  # fmt: skip
def test_what_terms_give(terms, conversion, expected):
    """Half a unit goes to the partner; nothing is nothing, and not an entry of 0."""
    assert earned(partner(**terms), conversion) == expected


CENTS = st.integers(0, 10**15)


@given(st.integers(0, 10**15), st.integers(0, WHOLE))
def test_a_percentage_is_off_by_half_a_unit_at_the_most(cents, basis_points):
    """And never more than the whole."""
    found = earned(partner(value=basis_points), sale(cents))
    part = 0 if found is None else found[0]

    assert abs(part * WHOLE - cents * basis_points) * 2 <= WHOLE
    assert 0 <= part <= cents


@given(CENTS, st.integers(1, 10**15), st.lists(CENTS, max_size=6))
def test_what_is_taken_back_adds_up(commission, base, parts):
    """Never less than nothing, all together what one refund of the sum takes, and no more than was earned."""
    before = [sum(parts[:n]) for n in range(len(parts) + 1)]
    taken = [taken_back(commission, base, start, end - start) for start, end in pairwise(before)]

    assert all(part >= 0 for part in taken)
    assert sum(taken) == taken_back(commission, base, 0, sum(parts)) <= commission
    assert taken_back(commission, base, 0, base) == commission


# The ledger ----------------------------------------------------------------------------------------------------------


def settle(entries: list[Entry], owed: Due | None, *refunds: Conversion, is_sale: bool = True) -> list[Entry]:
    """The ledger after looking at the sale again."""
    changed = settled(sale() if is_sale else None, refunds, owed, entries, NOW)
    return list(({one.id: one for one in entries} | {one.id: one for one in changed}).values())


def shown(entries: list[Entry]) -> list[tuple]:
    return sorted((e.partner_id.int, e.amount_cents, e.status, e.reason) for e in entries)


def test_entries_go_and_come_back_with_their_refunds():
    """To another partner, to nobody and back: what counts is one partner's at any time, and nothing is counted twice."""
    ada, bob = Due(partner(), 100, "EUR"), Due(partner(BOB), 200, "EUR")
    first = settle([], ada, refund(1, 300))
    moved = settle(first, bob)
    gone = settle(moved, None, refund(2, 300))
    back = settle(gone, ada)

    assert shown(first) == [(10, -30, "pending", None), (10, 100, "pending", None)]
    assert shown(moved) == [
        (10, -30, "void", "not_referred"), (10, 100, "void", "not_referred"),
        (11, -60, "pending", None), (11, 200, "pending", None),
    ]  # fmt: skip
    assert {e.status for e in gone} == {"void"}
    assert [e for e in shown(back) if e[2] != "void"] == [
        (10, -30, "pending", None), (10, -30, "pending", None), (10, 100, "pending", None)
    ]  # fmt: skip
    assert settled(sale(), [refund(2, 300)], ada, back, NOW) == []


def test_a_reviewed_sale_is_not_asked_about_again():
    """Neither for another partner nor for nobody; refunds go on."""
    (entry,) = settle([], Due(partner(), 100, "EUR"))
    reviewed = Entry(
        **{n: getattr(entry, n) for n in Entry.__slots__}
        | {"status": "approved", "reviewed_at": NOW, "reviewed_by": "eve"}
    )
    later = settle([reviewed], Due(partner(BOB), 200, "EUR"), refund(1, 500))

    assert shown(later) == [(10, -50, "approved", None), (10, 100, "approved", None)]
    assert [e.reviewed_by for e in later] == ["eve", None]


def test_a_refund_alone_asks_nothing_about_whose_it_is():
    """Its sale may be kept no longer."""
    before = settle([], Due(partner(), 100, "EUR", "self_referral"))

    assert shown(settle(before, None, refund(1, 1000), is_sale=False)) == [
        (10, -100, "void", "self_referral"), (10, 100, "void", "self_referral")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("window", timedelta(0)), ("window", 90), ("window", timedelta(days=9999)), ("credit", "all")],
)
def test_a_wrong_rule_is_named(name, value):
    """With what to write instead."""
    with pytest.raises(ConfigError, match=f"referral.{name}"):
        ReferralRules(**{name: value})
