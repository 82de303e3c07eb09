"""Who it is: the rules of `core.identity` by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core.hits import EventType, Hit, Signals
from goodanalytics.core.identity import (
    SAME_FINGERPRINT,
    STRENGTH,
    Apart,
    Candidate,
    Decision,
    Kind,
    Known,
    Merge,
    New,
    Strength,
    decide,
    identifiers,
    normal_email,
    normal_phone,
    stands_for_nobody,
)
from goodanalytics.core.identity_rules import IdentityRules

START = datetime(2026, 11, 1, tzinfo=UTC)


def person(number: int, *kinds: Kind, external_id: str | None = None, day: int | None = None) -> Candidate:
    """A person first seen on day *day* (its number when left out), matched by *kinds*, each through a row of its own."""
    return Candidate(
        person=UUID(int=number),
        matched={kind: UUID(int=100 * number + place) for place, kind in enumerate(kinds)},
        external_ids=frozenset() if external_id is None else frozenset({external_id}),
        first_seen_at=START + timedelta(days=number if day is None else day),
    )


def decided(*candidates: Candidate, said: str | None = None) -> Decision:
    return decide(said, candidates)[0]


def merged(decision: Decision) -> tuple[int, ...]:
    """The numbers of the persons that *decision* makes one, the winner first; empty when it merges nobody."""
    return (
        (decision.winner.int, *(loser.int for loser in decision.losers))
        if isinstance(decision, Merge)
        else ()
    )


# Rule 1 --------------------------------------------------------------------------------------------------------------


def test_nobody_matched_is_somebody_new() -> None:
    """Without a candidate the visitor is new, whatever was sent."""
    assert decided(said="ann") == New()


@pytest.mark.parametrize(
    "kind", [kind for kind, strength in STRENGTH.items() if strength is not Strength.NONE]
)
def test_one_match_of_any_kind_is_enough_to_know_somebody(kind: Kind) -> None:
    """One person who matched is that person, by the row that matched."""
    assert decided(person(1, kind)) == Known(UUID(int=1), UUID(int=100))


def test_having_landed_points_to_nobody() -> None:
    """The mark of who landed first is no evidence."""
    assert decided(person(1, Kind.LANDING)) == New()


def test_a_fingerprint_points_to_nobody_and_is_told() -> None:
    """Somebody new with a known fingerprint stays new; whose it is stands beside it, as a hint."""
    assert decide(None, [person(1, Kind.FINGERPRINT)]) == (
        New(),
        (Apart(UUID(int=1), "the same fingerprint; that alone is no evidence"),),
    )
    assert decide(None, [person(1, Kind.FINGERPRINT), person(2, Kind.ANONYMOUS_ID)]) == (
        Known(UUID(int=2), UUID(int=200)),
        (),
    )


# Rule 2 --------------------------------------------------------------------------------------------------------------

STRONG = [kind for kind in Kind if STRENGTH[kind] is Strength.STRONG]
WEAK = [kind for kind in Kind if STRENGTH[kind] is Strength.WEAK]


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize("strong", STRONG)
def test_one_strong_kind_ties_two_persons(strong: Kind, weak: Kind) -> None:
    """A strong match and a weak one are one person, the one that was seen first."""
    assert merged(decided(person(2, strong), person(1, weak))) == (1, 2)


def test_two_weak_kinds_tie_two_persons() -> None:
    """The browser's id leads to one person and its click to another: both are one."""
    assert merged(decided(person(1, Kind.CLICK), person(2, Kind.ANONYMOUS_ID))) == (1, 2)


@pytest.mark.parametrize("weak", WEAK)
def test_one_weak_kind_ties_nobody(weak: Kind) -> None:
    """Two persons behind one weak kind stay two, and that is said."""
    decision, aparts = decide(None, [person(1, weak), person(2, weak)])

    assert decision == Known(UUID(int=1), UUID(int=100))
    assert aparts == (Apart(UUID(int=2), "one weak kind is not enough"),)


def test_evidence_names_the_kinds_that_tie() -> None:
    """A merge says on what it stands, in the order of the kinds."""
    decision = decided(person(1, Kind.ANONYMOUS_ID, Kind.PHONE), person(2, Kind.EMAIL))

    assert isinstance(decision, Merge)
    assert decision.evidence == (Kind.EMAIL, Kind.PHONE, Kind.ANONYMOUS_ID)


def test_three_persons_become_one_at_once() -> None:
    """All that the evidence ties merge into whoever was seen first."""
    candidates = (person(3, Kind.EXTERNAL_ID), person(2, Kind.EMAIL), person(1, Kind.ANONYMOUS_ID))

    assert merged(decided(*candidates)) == (1, 2, 3)


def test_persons_of_one_age_merge_into_the_smaller_id() -> None:
    """A tie of times has a winner that no order of the rows can change."""
    assert merged(decided(person(2, Kind.EMAIL, day=0), person(1, Kind.PHONE, day=0))) == (1, 2)


# Rule 3 --------------------------------------------------------------------------------------------------------------


def test_another_external_id_stays_apart() -> None:
    """The host says bob on a browser that is ann's: bob is new, ann stays apart."""
    decision, aparts = decide("bob", [person(1, Kind.ANONYMOUS_ID, external_id="ann")])

    assert (decision, aparts) == (New(), (Apart(UUID(int=1), "two external ids"),))


def test_whom_the_host_names_wins_the_hit() -> None:
    """Of two named persons the one whose external id matched takes the hit, although the other is older."""
    ann = person(1, Kind.ANONYMOUS_ID, Kind.EMAIL, external_id="ann")
    bob = person(2, Kind.EXTERNAL_ID, external_id="bob")

    assert decide("bob", [ann, bob]) == (
        Known(bob.person, UUID(int=200)),
        (Apart(ann.person, "two external ids"),),
    )


def test_a_shared_address_leaves_two_named_persons_apart() -> None:
    """Even without a name said now, two persons with different external ids never merge."""
    decision, aparts = decide(
        None, [person(1, Kind.EMAIL, external_id="ann"), person(2, Kind.PHONE, external_id="bob")]
    )

    assert not isinstance(decision, Merge)
    assert [apart.reason for apart in aparts] == ["two external ids"]


def test_a_nameless_person_joins_the_named_one() -> None:
    """One external id among several persons is no obstacle."""
    assert merged(
        decided(person(1, Kind.ANONYMOUS_ID), person(2, Kind.EXTERNAL_ID, external_id="ann"), said="ann")
    )


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([Kind.EXTERNAL_ID, Kind.ANONYMOUS_ID], Kind.ANONYMOUS_ID),
        ([Kind.EXTERNAL_ID, Kind.VISITOR], Kind.VISITOR),
        ([Kind.CLICK, Kind.EMAIL], Kind.CLICK),
        ([Kind.PHONE, Kind.EMAIL], Kind.EMAIL),
    ],
)
def test_the_browsers_own_row_takes_the_hit(kinds: list[Kind], expected: Kind) -> None:
    """Among the rows of one person the browser's own goes first, then the one that the host named."""
    candidate = person(1, *kinds)

    assert decided(candidate) == Known(candidate.person, candidate.matched[expected])


# Laws ----------------------------------------------------------------------------------------------------------------

candidates = st.lists(
    st.builds(
        lambda number, kinds, external_id, day: person(number, *kinds, external_id=external_id, day=day),
        st.integers(1, 9),
        st.sets(st.sampled_from(list(Kind))).map(sorted),
        st.sampled_from([None, None, "ann", "bob"]),
        st.integers(0, 3),
    ),
    unique_by=lambda c: c.person,
    max_size=5,
)
said_ids = st.sampled_from([None, None, "ann", "bob", "eve"])


@settings(deadline=None)
@given(candidates.flatmap(lambda c: st.tuples(st.just(c), st.permutations(c))), said_ids)
def test_the_order_of_candidates_does_not_matter(
    found: tuple[list[Candidate], list[Candidate]], said: str
) -> None:
    """The decision is the same from every order."""
    one, other = found

    assert decide(said, one) == decide(said, other)


@settings(deadline=None)
@given(candidates, said_ids)
def test_two_external_ids_never_join(found: list[Candidate], said: str | None) -> None:
    """Those who become one, with what the host says, have one external id at the most."""
    joined = merged(decide(said, found)[0])
    external_ids = {e for c in found if c.person.int in joined for e in c.external_ids}

    assert len(external_ids | ({said} if said and joined else set())) <= 1


@settings(deadline=None)
@given(candidates, said_ids)
def test_a_merge_stands_on_one_strong_or_two_weak_kinds(found: list[Candidate], said: str | None) -> None:
    """Nothing less ever merges, whatever else is around."""
    decision = decide(said, found)[0]
    if isinstance(decision, Merge):
        strengths = [STRENGTH[kind] for kind in decision.evidence]

        assert strengths.count(Strength.STRONG) >= 1 or strengths.count(Strength.WEAK) >= 2


@settings(deadline=None)
@given(candidates, said_ids)
def test_everybody_who_matched_is_joined_or_apart(found: list[Candidate], said: str | None) -> None:
    """Nobody with evidence is passed over in silence."""
    decision, aparts = decide(said, found)
    joined = {decision.person.int} if isinstance(decision, Known) else set(merged(decision))
    matched = {c.person.int for c in found if c.strength[0] is not Strength.NONE}
    apart = {one.other.int for one in aparts if one.reason != SAME_FINGERPRINT}

    assert joined | apart == matched
    assert joined.isdisjoint(one.other.int for one in aparts)


@settings(deadline=None)
@given(candidates, said_ids)
def test_deciding_again_after_a_merge_finds_the_winner(found: list[Candidate], said: str | None) -> None:
    """When the joined are one candidate, the same evidence leads to them and merges nobody more."""
    decision = decide(said, found)[0]
    if not isinstance(decision, Merge):
        return
    joined = {decision.winner, *decision.losers}
    one = Candidate(
        decision.winner,
        {
            k: v
            for c in sorted(found, key=lambda c: c.person, reverse=True)
            if c.person in joined
            for k, v in c.matched.items()
        },
        frozenset(e for c in found if c.person in joined for e in c.external_ids),
        min(c.first_seen_at for c in found if c.person in joined),
    )
    again = decide(said, [one, *(c for c in found if c.person not in joined)])[0]

    assert isinstance(again, Known | Merge)
    assert (again.person if isinstance(again, Known) else again.winner) == decision.winner


# Rule 5: what is evidence --------------------------------------------------------------------------------------------

EVERYTHING = Signals(
    external_id="ann",
    email=" Ann@Example.com ",
    phone="+49 30 123456",
    anonymous_id="browser",
    click_id=UUID(int=5),
    fingerprint="f",
    name="Ann",
)


def offered(signals: Signals, *, trusted: bool = True, **rules: Any) -> list[tuple[str, str]]:
    hit = Hit(
        id=UUID(int=1),
        workspace_id=UUID(int=0),
        received_at=START,
        occurred_at=START,
        event_type=EventType.PAGEVIEW,
        origin="browser",
        trusted=trusted,
        signals=signals,
    )
    return [
        (str(identifier.kind), identifier.value) for identifier in identifiers(hit, IdentityRules(**rules))
    ]


def test_the_host_offers_strong_evidence_first() -> None:
    """Everything that the host says is evidence, normalised and strongest first; a fingerprint and a name never are."""
    assert offered(EVERYTHING) == [
        ("external_id", "ann"),
        ("email", "ann@example.com"),
        ("phone", "+4930123456"),
        ("anonymous_id", "browser"),
        ("click", str(UUID(int=5))),
    ]


def test_a_page_offers_weak_evidence_only() -> None:
    """What a page claims about a person is not evidence."""
    assert offered(EVERYTHING, trusted=False) == [("anonymous_id", "browser"), ("click", str(UUID(int=5)))]


def test_a_fingerprint_is_kept_only_where_the_host_wants_it() -> None:
    """Off by default; switched on it is offered by anybody, last, and is worth nothing alone."""
    assert ("fingerprint", "f") not in offered(EVERYTHING)
    assert offered(EVERYTHING, trusted=False, fingerprints=True)[-1] == ("fingerprint", "f")


JUNK = [
    "null", "NULL", " null ", "undefined", "None", "nil", "NaN", "0", "000", "-1", "0-0", "true", "false", "anonymous",
    "guest", "abc123", "[object Object]", "(not set)", "unknown", "00000000-0000-0000-0000-000000000000", "{{user_id}}",
    "{{ user.id }}", "x-{{user_id}}", "${userId}", "user-${userId}", "", "   ",
]  # fmt: skip


@pytest.mark.parametrize("value", JUNK)
def test_a_placeholder_is_no_evidence(value: str) -> None:
    """What programs send for nobody points to nobody, in every kind."""
    assert stands_for_nobody(value)
    assert offered(Signals(external_id=value, email=value, phone=value, anonymous_id=value)) == []


@pytest.mark.parametrize(
    "value", ["1", "10", "user1", "nullable", "noneother", "a{b}", "{x}", "Nan Goldin", "0x1"]
)
def test_a_real_id_is_evidence(value: str) -> None:
    """An id that only looks a little like a placeholder is an id."""
    assert offered(Signals(external_id=value)) == [("external_id", value)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("ann@example.com", "ann@example.com"),
        ("  Ann@Example.COM\n", "ann@example.com"),
        ("a.nn+shop@example.com", "a.nn+shop@example.com"),
        ("änn@exämple.de", "änn@exämple.de"),
        ("ann@sub.example.co.uk", "ann@sub.example.co.uk"),
        (None, None),
        ("", None),
        ("ann", None),
        ("ann@", None),
        ("@example.com", None),
        ("ann@localhost", None),
        ("ann@.com", None),
        ("ann@example.", None),
        ("ann@example..com", None),
        ("ann@bob@example.com", None),
        ("ann bob@example.com", None),
        ("ann\t@example.com", None),
        ("ann@example.com, bob@example.com", None),
    ],
)
def test_email_addresses_have_one_form(written: str | None, expected: str | None) -> None:
    """Case and blanks make no difference, dots and plus signs do; what is no address is none."""
    assert normal_email(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("+4930123456", "+4930123456"),
        (" +49 (30) 123-456 ", "+4930123456"),
        ("0049 30 123456", "+4930123456"),
        ("+1.212.555.0100", "+12125550100"),
        ("+1 (212) 555‑0100", "+12125550100"),
        ("+123456", None),
        ("+1234567890123456", None),
        ("030 123456", None),
        ("12125550100", None),
        ("+49 (0)30 123456", None),
        ("+49 30 123456 ext. 5", None),
        ("+1 800 FLOWERS", None),
        ("+0000000000", None),
        ("+0 30 123456", None),
        ("000 30 123456", None),
        ("+٤٩٣٠١٢٣٤٥٦", None),
        ("+49+30123456", None),
        ("+", None),
        ("00", None),
        ("", None),
        (None, None),
    ],
)
def test_phone_numbers_have_one_form(written: str | None, expected: str | None) -> None:
    """A number with its country code has one form; whatever would be a guess is none."""
    assert normal_phone(written) == expected


@settings(deadline=None)
@given(st.text())
def test_normal_forms_are_final(written: str) -> None:
    """Normalising what is normal changes nothing, and never raises."""
    for normal in (normal_email, normal_phone):
        once: Any = normal(written)

        assert once is None or normal(once) == once
