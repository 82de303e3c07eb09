"""Rules, changes and results of splits in plain English, and nothing that is not shown."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from goodanalytics.core.experiments import Arm, result
from goodanalytics.core.links import Hours, Rule, When
from goodanalytics.store.link_experiments import Experiment
from goodanalytics.store.link_history import Change, Revision
from goodanalytics.web.dashboard import link_words as words

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def split(*arms: tuple[int, int, int], currency: str | None = None) -> Experiment:
    """Visitors, conversions and revenue of variants A, B, …; whoever converted paid the same."""
    made = [
        Arm(
            name="ABCDEF"[n], visitors=visitors, conversions=conversions, buyers=conversions if revenue else 0, revenue=revenue,
            revenue_squares=revenue**2 // max(conversions, 1) + (revenue > 0),
        )
        for n, (visitors, conversions, revenue) in enumerate(arms)
    ]  # fmt: skip
    found = result(made)
    return Experiment(
        link_id=UUID(int=1), since=NOW, until=NOW, currency=currency, currencies=[currency] if currency else [],
        outcomes=found.outcomes, split_p=found.split_p, is_misplit=found.is_misplit, changed_at=None, former={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "headline", "second"),
    [
        pytest.param(split((0, 0, 0), (0, 0, 0)), "Too early to say.", "not enough yet", id="nobody"),
        pytest.param(split((99, 50, 0), (99, 5, 0)), "Too early to say.", "not enough yet", id="one too few"),
        pytest.param(split((1_000, 100, 0), (1_000, 104, 0)), "No difference has shown so far.", "no difference shown", id="alike"),
        pytest.param(split((1_000, 100, 0), (1_000, 200, 0)), "B converts more people than A.",
                     "100% more conversions than A", id="better"),
        pytest.param(split((1_000, 200, 0), (1_000, 100, 0)), "B converts fewer people than A.",
                     "50% fewer conversions than A", id="worse"),
        pytest.param(split((1_500, 100, 0), (1_000, 200, 0)), "The visitors did not come in the shares that you set",
                     "cannot be compared", id="misplit"),
        pytest.param(split((1_000, 200, 200_000), (1_000, 200, 800_000), currency="EUR"),
                     "B brings more revenue per visitor than A.", "no difference shown", id="revenue alone"),
    ],
)  # fmt: skip
def test_a_result_says_what_it_shows(found, headline, second):
    """Never more: too few visitors, or shares that chance does not explain, are said first."""
    first, other = words.sides(found)

    assert words.headline(found).startswith(headline)
    assert (first.by_rate, other.by_rate) == ("the others are compared with it", second)
    assert other.moods[0] == {"more": "good", "fewer": "bad"}.get(second.split()[1], "even")


def test_money_is_told_per_visitor_in_its_currency():
    """Without any sale there is no amount."""
    paid = words.sides(split((200, 50, 50_000), (200, 50, 60_000), currency="JPY"))

    assert [one.revenue for one in paid] == ["250 JPY", "300 JPY"]
    assert [one.revenue for one in words.sides(split((200, 5, 0), (200, 5, 0)))] == ["–", "–"]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (When(devices=["mobile", "tv"], os=["ios"]), "People on a phone or tablet or television, with iOS"),
        (When(countries=["DE", "AT"], returning=False), "People in Germany or Austria, who are here for the first time"),
        (When(query={"plan": "pro", "any": None}), "People with ?plan=pro, with ?any"),
        (When(hours=Hours(start="22:00", end="06:00", weekdays=[6, 7])), "People from 22:00 to 06:00 (UTC) on Sat, Sun"),
        (When(after=NOW, traits={"plan": "pro", "age": None}), "People from 1 Nov 2026, 12:00 on, whose plan is pro, whose age is known"),
        (When(statuses=["lead"], ip_ranges=["192.0.2.0/24"], languages=["de"]),
         "People whose language is de, from the network 192.0.2.0/24, who are lead"),
    ],
)  # fmt: skip
def test_a_rule_reads_as_a_sentence(when, expected):
    """Each condition that is given, and no other."""
    assert words.rule(Rule(url="https://shop.example/", when=when), lambda at: at) == expected


def test_every_condition_has_words():
    """A condition that is added to rules must be told on the page."""
    given = {
        "devices": ["tv"], "os": ["ios"], "browsers": ["safari"], "languages": ["de"], "countries": ["DE"], "regions": ["US-CA"],
        "query": {"a": "b"}, "ip_ranges": ["192.0.2.1/32"], "after": NOW, "before": NOW, "hours": Hours(start="09:00", end="10:00"),
        "returning": True, "statuses": ["lead"], "traits": {"a": 1},
    }  # fmt: skip

    assert set(given) == set(When.__struct_fields__)
    for name, value in given.items():
        assert (
            words.rule(Rule(url="https://a.example/", when=When(**{name: value})), lambda at: at) != "People "
        )


def test_changes_read_in_the_order_of_the_form():
    """Old and new, times in the page's zone, a password never."""
    revision = Revision(UUID(int=1), NOW, "ann", {
        "password": Change(False, True), "tags": Change(["a"], []), "url": Change("https://a.example", "https://b.example"),
        "expires_at": Change(None, "2026-12-01T10:00:00Z"), "cloaked": Change(True, False), "rules": Change(None, [{"url": "u", "when": {}}]),
    })  # fmt: skip

    assert [(one.label, one.old, one.new) for one in words.changes(revision, lambda at: at)] == [
        ("Leads to", "https://a.example", "https://b.example"),
        ("Tags", "a", "nothing"),
        ("Rules", None, "u"),
        ("Works until", None, "1 Dec 2026, 10:00"),
        ("Password", None, "set"),
        ("Keep the short address in the address bar", "yes", "no"),
    ]
