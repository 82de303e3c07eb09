"""The life of a dispatch as a table: what becomes of a row after each answer, and who is left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.delivery import (
    ALONE,
    LONGEST_LOOK,
    MOST_ATTEMPTS,
    PATIENCE,
    Answer,
    Pause,
    again_in,
    held_back,
    is_failure,
    most_in_request,
    pause_after,
    settlement,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(minutes=1)
WEEK = timedelta(days=7)


def answer(status: str, code: str = "x", *, retry_at: datetime = SOON, of_batch: bool = False) -> Answer:
    return Answer(status=status, code=code, message="m", retry_at=retry_at, of_batch=of_batch)


@pytest.mark.parametrize(
    ("status", "attempts", "failures", "becomes"),
    [
        ("delivered", 3, 0, ("delivered", None, None, 3)),
        ("accepted", 3, 0, ("accepted", None, SOON, 0)),
        ("credential", 3, 0, ("paused_credentials", "x", None, 3)),
        ("permanent", 3, 0, ("dead", "x", None, 4)),
        ("rate_limited", 3, 0, ("retry_wait", None, SOON, 3)),
        ("rate_limited", 7, 1, ("retry_wait", "target_failing", SOON, 7)),
        ("retry", 3, 0, ("retry_wait", None, SOON, 4)),
        ("retry", 3, 1, ("retry_wait", "target_failing", SOON, 4)),
        ("retry", 3, 2, ("retry_wait", "target_failing", SOON, 3)),
        ("retry", MOST_ATTEMPTS - 1, 0, ("dead", "too_many_attempts", None, MOST_ATTEMPTS)),
        ("retry", MOST_ATTEMPTS - 1, 2, ("retry_wait", "target_failing", SOON, MOST_ATTEMPTS - 1)),
    ],
    ids=[
        "delivered", "accepted", "credential", "permanent", "throttled", "throttled again", "its own failure",
        "the first request that fails", "an outage", "the eighth of its own", "the eighth within an outage",
    ],
)  # fmt: skip
def test_what_becomes_of_a_row(status, attempts, failures, becomes):
    """State, reason, next try, failures of its own."""
    said = settlement(answer(status), attempts=attempts, failures=failures, occurred_at=NOON, max_age=WEEK)

    assert (said.state, said.reason, said.next_at, said.attempts) == becomes


@pytest.mark.parametrize(("late", "state"), [(0, "retry_wait"), (1, "dead")])
def test_a_row_is_not_kept_waiting_for_a_day_on_which_nobody_takes_it(late, state):
    """What will be too old at its next try is given up now."""
    later = NOON + WEEK + timedelta(seconds=late)
    said = settlement(answer("retry", retry_at=later), attempts=0, failures=0, occurred_at=NOON, max_age=WEEK)

    assert said.state == state


@given(st.integers(1, 5_000), st.integers(0, 100))
def test_a_request_holds_at_least_one_and_ends_up_with_one(most, attempts):
    """Whatever the platform's cap: a row that fails before it is given up has been alone."""
    assert 1 <= most_in_request(most, attempts) <= most
    assert most_in_request(most, MOST_ATTEMPTS - 1) == 1


@given(st.sets(st.integers(0, 63)), st.integers(1, 64))
def test_halving_finds_exactly_those_to_blame(bad, size):
    """A platform that refuses whatever holds a bad one as a whole: all others get through, in a bounded number of requests."""
    rows = [UUID(int=number + 1) for number in range(size)]
    blamed = {UUID(int=number + 1) for number in bad}
    waiting, dead, through, requests = [rows], set(), set(), 0
    while waiting:
        batch = waiting.pop()
        requests += 1
        refused = any(row in blamed for row in batch)
        verdict = answer("permanent", of_batch=True) if refused else answer("delivered")
        parts = again_in(batch, dict.fromkeys(batch, verdict))
        waiting += parts
        if not parts:
            (dead if refused else through).update(batch)

    assert dead == blamed & set(rows)
    assert through == set(rows) - blamed
    assert requests <= 1 + 2 * 7 * len(dead)


def test_spared_neighbours_go_out_without_the_blamed():
    """They failed for no other reason than their company."""
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    answers = {one: answer("permanent"), two: answer("retry", ALONE), three: answer("retry", ALONE)}

    assert again_in([one, two, three], answers) == [[two, three]]
    assert again_in([two, three], dict.fromkeys([two, three], answer("retry", ALONE))) == []


@pytest.mark.parametrize(
    ("statuses", "failed"),
    [
        (["retry", "retry"], True),
        (["retry", "rate_limited"], True),
        (["retry", "delivered"], False),
        (["permanent"], False),
        (["credential"], False),
        ([], False),
    ],
    ids=["all again", "throttled", "one got through", "judged", "refused", "nothing was sent"],
)
def test_a_request_fails_as_a_whole_when_nobody_was_judged(statuses, failed):
    """Only that is counted against the platform."""
    assert is_failure(statuses) is failed


@pytest.mark.parametrize(
    ("answers", "failures", "pause"),
    [
        ([answer("delivered")], 0, None),
        ([answer("credential", "190")], 0, Pause("credentials: 190 m", None)),
        ([answer("delivered"), answer("credential", "190")], 0, Pause("credentials: 190 m", None)),
        ([answer("rate_limited"), answer("rate_limited", retry_at=NOON)], 1, Pause("rate_limited", SOON)),
        ([answer("retry")], PATIENCE - 1, None),
        ([answer("retry")], PATIENCE, Pause("failing: x", SOON)),
        (
            [answer("retry", retry_at=NOON + timedelta(hours=1))],
            99,
            Pause("failing: x", NOON + LONGEST_LOOK),
        ),
    ],
    ids=["delivered", "refused", "one refused", "throttled", "twice", "three times", "for hours"],
)
def test_who_is_left_alone(answers, failures, pause):
    """And until when."""
    assert pause_after(answers, failures, NOON) == pause


@pytest.mark.parametrize(
    ("sale", "others", "verdict"),
    [
        ("none", False, "drop"),
        ("lost", False, "drop"),
        ("under_way", False, "hold"),
        ("delivered", True, "hold"),
        ("delivered", False, "send"),
    ],
)
def test_a_refund_follows_its_sale(sale, others, verdict):
    """It goes out when the platform knows what it takes back."""
    assert held_back(sale, others_under_way=others) == verdict
