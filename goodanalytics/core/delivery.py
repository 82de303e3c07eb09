"""
What becomes of a dispatch: the states of an outbox row, and when to try again, to give up, and to leave a platform alone.

    pending → (sent) → delivered | accepted → delivered | retry_wait | paused_credentials | dead      skipped(reason)

1. A lease is no state: whoever sends a row holds it until `leased_until`, and a worker that dies leaves it as it was.
2. A row is given up after `MOST_ATTEMPTS` failures of its own, or when it has grown older than its platform takes. A
   request that failed as a whole while the platform was failing already says nothing about its rows, so an outage costs
   nobody an attempt; only age ends those that wait for it, and all of them go out when it is over.
3. Rows that failed before go out in smaller requests (`most_in_request`), so that one that makes the platform stumble
   ends up alone.
4. A permanent verdict on a request of several is no verdict on any of them: `again_in` says which parts to send again.
5. A credential that is refused stops the whole target until somebody stores another one. A target that throttles is left
   alone as long as it asks; one that fails is looked at again after `LONGEST_LOOK` at most, because what looks like an
   outage may be one row that nobody else has come after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, assert_never
from uuid import UUID

STATES: Final = (
    "pending",
    "retry_wait",
    "accepted",
    "paused_credentials",
    "delivered",
    "skipped",
    "dead",
)
UNFINISHED: Final = ("pending", "retry_wait", "accepted", "paused_credentials")
"""States in which something is still to come."""

State: TypeAlias = Literal[
    "pending", "retry_wait", "accepted", "paused_credentials", "delivered", "skipped", "dead"
]
Status: TypeAlias = Literal["delivered", "accepted", "retry", "credential", "rate_limited", "permanent"]

MOST_ATTEMPTS: Final = 8
LEASE: Final = timedelta(minutes=5)
"""How long a row stays with whoever took it; far above what one request may take."""

HOLD: Final = timedelta(minutes=5)
"""When a refund whose sale is still under way is looked at again, at the latest."""

UNCONFIRMED: Final = timedelta(days=3)
"""How long an answer is waited for that a platform promised; Google's come within a day."""

PATIENCE: Final = 3
"""Requests in a row that may fail before their platform is left alone."""

RECALLED: Final = "recalled"
"""The reason of a row whose person took their consent back. What is under way with it then goes out no second time."""

SALE_NOT_DELIVERED: Final = "sale_not_delivered"
"""The reason of a refund that was not told because the platform did not know its sale."""

OUTAGE: Final = "target_failing"
"""The reason of a row that waits because everything fails there."""

LONGEST_LOOK: Final = timedelta(minutes=5)

ALONE: Final = "neighbour_refused"
"""The code of a row that failed for no other reason than its company."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What a platform said about one row.

    Attributes:
        status: As `platforms.Status`.
        retry_at: When to ask or to send again, as chance and the platform would have it.
        of_batch: The request was judged, not this row.
    """

    status: Status
    code: str
    message: str
    retry_at: datetime
    of_batch: bool = False
    external_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is written about a row; `None` in *next_at* where nothing more is to be done."""

    state: State
    reason: str | None = None
    next_at: datetime | None = None
    attempts: int
    code: str | None = None
    message: str | None = None
    external_ref: str | None = None


def settlement(
    answer: Answer, *, attempts: int, failures: int, occurred_at: datetime, max_age: timedelta
) -> Settlement:
    """
    What becomes of a row after *answer*.

    Args:
        attempts: Failures of its own until now.
        failures: Requests of the target in a row that failed as a whole, this one included; 0 when this one did not.
        max_age: How old its conversion may be for this platform.
    """
    told = Settlement(
        state="pending",
        attempts=attempts,
        code=answer.code,
        message=answer.message,
        external_ref=answer.external_ref,
    )
    match answer.status:
        case "delivered":
            return replace(told, state="delivered")
        case "accepted":
            # Something got through, so what failed before says nothing any more.
            return replace(told, state="accepted", next_at=answer.retry_at, attempts=0)
        case "credential":
            return replace(told, state="paused_credentials", reason=answer.code)
        case "permanent":
            return replace(told, state="dead", reason=answer.code, attempts=attempts + 1)
        case "rate_limited" | "retry":
            failed = attempts + (failures < 2 and answer.status == "retry")
            if failed >= MOST_ATTEMPTS:
                return replace(told, state="dead", reason="too_many_attempts", attempts=failed)
            if answer.retry_at - occurred_at > max_age:
                return replace(told, state="dead", reason="too_old", attempts=failed)
            reason = OUTAGE if failures else None
            return replace(told, state="retry_wait", reason=reason, next_at=answer.retry_at, attempts=failed)
        case never:
            assert_never(never)


def most_in_request(max_batch: int, attempts: int) -> int:
    """
    How many rows may share a request with one that failed *attempts* times.

    >>> [most_in_request(1000, attempts) for attempts in range(7)]
    [1000, 250, 62, 15, 3, 1, 1]
    """
    return max(1, max_batch >> (2 * attempts))


def again_in(batch: Sequence[UUID], answers: Mapping[UUID, Answer]) -> list[list[UUID]]:
    """
    Which parts of a request to send again at once, each in a request of its own; none when every row has its verdict.

    What comes out is always smaller than what went in, so this ends.

    >>> one, two, three = map(UUID, map(str, [f"{n:032x}" for n in (1, 2, 3)]))
    >>> said = Answer(status="permanent", code="x", message="", retry_at=datetime(2026, 5, 1), of_batch=True)
    >>> [len(part) for part in again_in([one, two, three], dict.fromkeys([one, two, three], said))]
    [1, 2]
    """
    if len(batch) < 2:
        return []
    judged = [row for row in batch if answers[row].of_batch and answers[row].status == "permanent"]
    if judged:
        # A verdict on part of a request is followed up in that part; one on all of it in its halves.
        if len(judged) < len(batch):
            return [judged]
        middle = len(judged) // 2
        return [judged[:middle], judged[middle:]]
    spared = [row for row in batch if answers[row].status == "retry" and answers[row].code == ALONE]
    return [spared] if spared and len(spared) < len(batch) else []


def is_failure(statuses: Sequence[Status]) -> bool:
    """Whether a request failed as a whole: nobody in it was judged, and all shall come again."""
    return bool(statuses) and all(status in ("retry", "rate_limited") for status in statuses)


@dataclass(frozen=True, slots=True)
class Pause:
    """
    Leave a target alone.

    Attributes:
        until: `None` until somebody stores a credential or enables it again.
    """

    reason: str
    until: datetime | None


def pause_after(answers: Sequence[Answer], failures: int, now: datetime) -> Pause | None:
    """
    Whether a target has to be left alone after a request of its.

    Args:
        answers: To all rows of the request.
        failures: Requests in a row that failed as a whole, this one included; 0 when this one did not.
    """
    for answer in answers:
        if answer.status == "credential":
            return Pause(f"credentials: {answer.code} {answer.message}".strip(), None)
    throttled = [answer.retry_at for answer in answers if answer.status == "rate_limited"]
    if throttled:
        return Pause("rate_limited", max(throttled))
    if failures >= PATIENCE:
        look = max(answer.retry_at for answer in answers)
        return Pause(f"failing: {answers[0].code}", min(look, now + LONGEST_LOOK))
    return None


Company: TypeAlias = Literal["none", "under_way", "delivered", "lost"]
"""What became of the sale that a refund takes back, on the same platform; `none` when nobody ever sent it there."""


def held_back(sale: Company, *, others_under_way: bool) -> Literal["send", "hold", "drop"]:
    """
    Whether a refund may go out.

    A platform takes a refund of a sale that it does not know for a new sale (Google: `platforms/google.py`, rule 4), so it
    waits until its sale is delivered, and for earlier refunds of the same sale, whose order is what says how much is left.
    """
    match sale:
        case "none" | "lost":
            return "drop"
        case "under_way":
            return "hold"
        case "delivered":
            return "hold" if others_under_way else "send"
        case never:
            assert_never(never)


__all__ = [
    "ALONE",
    "HOLD",
    "LEASE",
    "LONGEST_LOOK",
    "MOST_ATTEMPTS",
    "OUTAGE",
    "PATIENCE",
    "RECALLED",
    "SALE_NOT_DELIVERED",
    "STATES",
    "UNCONFIRMED",
    "UNFINISHED",
    "Answer",
    "Company",
    "Pause",
    "Settlement",
    "State",
    "again_in",
    "held_back",
    "is_failure",
    "most_in_request",
    "pause_after",
    "settlement",
]
