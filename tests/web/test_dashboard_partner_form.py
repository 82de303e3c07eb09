"""A partner as a form and back: nothing that is not touched changes, and what is wrong is told beside its field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.bounds import MAX_AMOUNT_CENTS
from goodanalytics.core.partners import Commission, Partner, checked_commission
from goodanalytics.web.dashboard import partner_form, partner_words

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TYPED = {"name": "Ada", "code": "ada", "kind": "percent", "value": "10", "on": "sale"}


def partner(**fields: Any) -> Partner:
    given = {"code": "ada", "name": "Ada", "created_at": NOW, "updated_at": NOW}
    return Partner(workspace_id=UUID(int=1), id=UUID(int=2), **{**given, **fields})


TERMS = st.builds(
    Commission,
    kind=st.just("percent"),
    value=st.integers(0, 10_000),
    currency=st.sampled_from([None, "EUR", "JPY"]),
    on=st.sampled_from(["sale", "lead"]),
    window_days=st.one_of(st.none(), st.integers(1, 3_660)),
) | st.builds(
    Commission,
    kind=st.just("fixed"),
    value=st.integers(0, MAX_AMOUNT_CENTS),
    currency=st.sampled_from(["EUR", "JPY", "KWD", "CLF"]),
    on=st.sampled_from(["sale", "lead"]),
    window_days=st.one_of(st.none(), st.integers(1, 3_660)),
)


@given(TERMS)
def test_terms_come_back_as_they_were(terms):
    """Percentages to the basis point, amounts to the minor unit of every currency."""
    values = partner_form.written(partner(commission=terms))
    read = partner_form.read(values)

    assert (read.fields["commission"], read.errors) == (terms, {})
    assert checked_commission(terms) == terms


def test_what_is_sent_back_unchanged_says_nothing():
    """Not even in the ways in which browsers write the same."""
    one = partner(
        email="ada@x.test", external_id="crm-1", visitor_id=UUID(int=3), metadata={"a": {"b": [1]}, "c": "ü"},
        commission=Commission(value=1_250, window_days=30),
    )  # fmt: skip
    before = partner_form.written(one)
    sent = {name: f" {value} " for name, value in before.items()}

    assert partner_form.read(sent, before) == partner_form.read({}, {}) == partner_form.Read({}, {})


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        pytest.param({"value": "12.5"}, Commission(value=1_250), id="percent"),
        pytest.param({"value": "12.5 %"}, Commission(value=1_250), id="percent sign"),
        pytest.param({"value": "0"}, Commission(), id="nothing"),
        pytest.param(
            {"kind": "fixed", "value": "4.9", "currency": "eur"},
            Commission(kind="fixed", value=490, currency="EUR"),
            id="amount",
        ),
        pytest.param(
            {"kind": "fixed", "value": "500", "currency": "JPY", "on": "lead", "window_days": "7"},
            Commission(kind="fixed", value=500, currency="JPY", on="lead", window_days=7),
            id="a currency without decimals",
        ),
    ],
)
def test_terms_are_read_as_people_write_them(typed, expected):
    """In basis points and minor units."""
    assert partner_form.read({**TYPED, **typed}).fields["commission"] == expected


@pytest.mark.parametrize(
    ("typed", "field", "says"),
    [
        pytest.param({"name": " "}, "name", "called", id="no name"),
        pytest.param({"code": ""}, "code", "addresses", id="no code"),
        pytest.param({"code": "a b"}, "code", "letters, digits", id="code"),
        pytest.param({"email": "nobody"}, "email", "give an address, or nothing", id="email"),
        pytest.param({"external_id": "x" * 300}, "external_id", "at most", id="external id"),
        pytest.param({"visitor_id": "me"}, "visitor_id", "UUID", id="visitor"),
        pytest.param({"metadata": "{"}, "metadata", "no JSON", id="no JSON"),
        pytest.param({"metadata": "[]"}, "metadata", "no JSON object", id="no object"),
        pytest.param({"value": ""}, "value", "12.5", id="no number"),
        pytest.param({"value": "1,5"}, "value", "12.5", id="comma"),
        pytest.param({"value": "-1"}, "value", "12.5", id="below zero"),
        pytest.param({"value": "10.125"}, "value", "12.5", id="too exact"),
        pytest.param({"value": "100.01"}, "value", "at most 100", id="more than all"),
        pytest.param({"value": "٣"}, "value", "12.5", id="other digits"),
        pytest.param({"kind": "fixed"}, "currency", "needs its currency", id="no currency"),
        pytest.param({"currency": "EURO"}, "currency", "three letters", id="currency"),
        pytest.param({"kind": "fixed", "currency": "JPY", "value": "4.9"}, "value", "490", id="no such coin"),
        pytest.param(
            {"kind": "fixed", "currency": "EUR", "value": "9999999999999999"},
            "value",
            "At most",
            id="too much",
        ),
        pytest.param({"kind": "gift"}, "kind", "Choose", id="kind"),
        pytest.param({"on": "visit"}, "on", "Choose", id="with each"),
        pytest.param({"window_days": "0"}, "window_days", "1 to 3660", id="no days"),
        pytest.param({"window_days": "9999"}, "window_days", "1 to 3660", id="too many days"),
        pytest.param({"window_days": "a week"}, "window_days", "whole number", id="no number of days"),
    ],
)
def test_what_is_wrong_is_told_beside_its_field(typed, field, says):
    """In plain English, and nowhere else."""
    read = partner_form.read({**TYPED, **typed})

    assert list(read.errors) == [field]
    assert says in read.errors[field]
    assert not any(
        word in read.errors[field] for word in ("null", "basis points", "minor units", "commission")
    )


def test_everything_that_is_wrong_is_told_at_once():
    """One word for each field of an empty form."""
    assert set(partner_form.read({}).errors) == {"name", "code", "kind", "on", "value"}


@pytest.mark.parametrize(
    ("field", "expected"),
    [("email", None), ("external_id", None), ("visitor_id", None), ("metadata", {})],
)
def test_what_is_emptied_is_cleared(field, expected):
    """What may be empty."""
    before = {
        **TYPED,
        "email": "a@x.test",
        "external_id": "1",
        "visitor_id": str(UUID(int=3)),
        "metadata": "{}",
    }

    assert partner_form.read({**before, field: ""}, before).fields == {field: expected}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (Commission(value=5, currency="EUR"), "0.05% of each sale in EUR within 90 days"),
        (
            Commission(kind="fixed", value=490, currency="EUR", on="lead", window_days=1),
            "4.90 EUR for each lead within 1 day",
        ),
    ],
    ids=["percent", "fixed"],
)
def test_terms_in_words(terms, expected):
    """What the list and the partner's page say."""
    assert partner_words.terms(terms, timedelta(days=90)) == expected
