"""Which visit a hit belongs to: original-core.md sections 13 and 27 (42 to 46), with the defects mended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goodanalytics.core.hits import EventType
from goodanalytics.core.sessions import (
    Continued,
    Moment,
    Opened,
    Outside,
    Session,
    Split,
    Step,
    going_on,
    step,
)
from goodanalytics.core.sources import Source

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIMEOUT = timedelta(minutes=30)
DIRECT = Source()
GOOGLE = Source("google", "organic", "medium")
FACEBOOK = Source("facebook", "social", "medium")
SPRING = Source("google", "paid", "high", campaign="Spring")

PAGE, CUSTOM, PING = EventType.PAGEVIEW, EventType.CUSTOM, EventType.ENGAGEMENT


def moment(
    minute: float = 0,
    source: Source | None = DIRECT,
    event_type: EventType = PAGE,
    path: str = "/",
    **facts: Any,
) -> Moment:
    opens = event_type not in (PING, EventType.LINK_CLICK, EventType.REFUND)
    defaults: dict[str, Any] = {
        "occurred_at": START + timedelta(minutes=minute),
        "event_type": event_type,
        "source": source,
        "opens": opens,
        "url": f"https://shop.test{path}",
        "path": path,
    }
    return Moment(**(defaults | facts))


def visits_after(
    moments: Sequence[Moment], *, split_on_source: bool = True
) -> tuple[list[Session], list[Step]]:
    """What the moments of one browser make, one after the other."""
    known: dict[UUID, Session] = {}
    steps: list[Step] = []
    for number, at in enumerate(moments, 1):
        fresh = Session(
            workspace_id=UUID(int=0),
            id=UUID(int=number),
            visitor_id=UUID(int=99),
            started_at=at.occurred_at,
            last_event_at=at.occurred_at,
            click_id=UUID(int=1000 + number),
        )
        taken = step(
            going_on(known.values(), at.occurred_at, TIMEOUT),
            at,
            lambda fresh=fresh: fresh,
            split_on_source=split_on_source,
        )
        steps.append(taken)
        if not isinstance(taken, Outside):
            known[taken.session.id] = taken.session
    return sorted(known.values(), key=lambda s: (s.started_at, s.id)), steps


def visits(*moments: Moment, split_on_source: bool = True) -> list[Session]:
    return visits_after(moments, split_on_source=split_on_source)[0]


def only(*moments: Moment) -> Session:
    (visit,) = visits(*moments)
    return visit


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        pytest.param(timedelta(minutes=20), 1, id="20 minutes"),
        pytest.param(timedelta(minutes=30), 1, id="30:00 goes on"),
        pytest.param(timedelta(minutes=30, milliseconds=1), 2, id="30:00.001 does not"),
        pytest.param(timedelta(minutes=31), 2, id="31 minutes"),
    ],
)
def test_silence_ends_a_visit(gap: timedelta, expected: int) -> None:
    """Exactly the timeout still goes on; a millisecond more is a new visit."""
    later = moment(occurred_at=START + gap)

    assert len(visits(moment(), later)) == expected


def test_silence_is_counted_from_the_last_hit() -> None:
    """Hits every 29 minutes are one visit, however long it lasts."""
    assert only(*(moment(29 * n) for n in range(20))).pageviews == 20


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(DIRECT, DIRECT, ["direct"], id="direct, direct"),
        pytest.param(GOOGLE, GOOGLE, ["google"], id="the same source"),
        pytest.param(GOOGLE, DIRECT, ["google"], id="direct goes on"),
        pytest.param(GOOGLE, None, ["google"], id="a server that cannot know goes on"),
        pytest.param(DIRECT, GOOGLE, ["google"], id="a source is adopted in place"),
        pytest.param(None, GOOGLE, ["google"], id="also by a visit that a server began"),
        pytest.param(GOOGLE, FACEBOOK, ["google", "facebook"], id="another source splits"),
        pytest.param(GOOGLE, SPRING, ["google", "google"], id="another campaign splits"),
        pytest.param(
            Source("Google", "organic", campaign="A"), Source("google", "organic", campaign="a "), ["Google"],
            id="case and blanks do not",
        ),
    ],
)  # fmt: skip
def test_another_source_is_another_visit(first: Source, second: Source, expected: list[str]) -> None:
    """Only arriving from another source that is not direct ends a visit that goes on."""
    assert [visit.source for visit in visits(moment(source=first), moment(1, second))] == expected


def test_a_split_names_the_visit_it_leaves() -> None:
    """The step says which visit was still going on."""
    _, (opened, split) = visits_after([moment(source=GOOGLE), moment(1, FACEBOOK)])

    assert isinstance(opened, Opened)
    assert isinstance(split, Split)
    assert (split.former, split.session.pageviews) == (opened.session.id, 1)


def test_an_adopted_source_comes_with_its_click() -> None:
    """What brought the visit is the source and the click together."""
    visit, (_, adopted) = visits_after([moment(), moment(1, GOOGLE)])

    assert isinstance(adopted, Continued)
    assert adopted.adopted
    assert [(v.source, v.channel, v.click_id) for v in visit] == [
        ("google", "organic search", UUID(int=1002))
    ]


def test_a_visit_adopts_one_source_only() -> None:
    """After it has one, the next is another visit."""
    assert [v.source for v in visits(moment(), moment(1, GOOGLE), moment(2, FACEBOOK))] == [
        "google",
        "facebook",
    ]


def test_after_a_split_the_former_visit_is_over() -> None:
    """Going on directly goes on with the newer visit."""
    former, newer = visits(moment(source=GOOGLE), moment(1, FACEBOOK), moment(2), moment(3))

    assert (former.pageviews, newer.pageviews) == (1, 3)


def test_splitting_by_source_can_be_switched_off() -> None:
    """With `split_on_source` off only silence ends a visit."""
    (visit,) = visits(moment(source=GOOGLE), moment(1, FACEBOOK), split_on_source=False)

    assert (visit.source, visit.pageviews) == ("google", 2)


@pytest.mark.parametrize("event_type", [PING, EventType.LINK_CLICK, EventType.REFUND])
def test_what_opens_no_visit(event_type: EventType) -> None:
    """A ping, a click and a refund belong to a visit that goes on, or to none."""
    _, (taken,) = visits_after([moment(source=GOOGLE, event_type=event_type)])

    assert taken == Outside()


@pytest.mark.parametrize(
    "event_type", [PAGE, CUSTOM, EventType.LEAD, EventType.SALE, EventType.SHARE, EventType.SESSION_START]
)
def test_what_opens_a_visit(event_type: EventType) -> None:
    """Whatever a visitor does begins a visit."""
    assert only(moment(event_type=event_type)).events == 1


def test_a_ping_does_not_split() -> None:
    """A ping with another referrer goes on with the visit."""
    assert only(moment(source=GOOGLE), moment(1, FACEBOOK, PING)).source == "google"


@pytest.mark.parametrize(
    ("moments", "is_bounce", "is_engaged"),
    [
        pytest.param([moment()], True, False, id="one page"),
        pytest.param([moment(), moment(1)], False, True, id="two pages"),
        pytest.param([moment(event_type=EventType.SESSION_START)], True, False, id="a start alone"),
        pytest.param([moment(), moment(1, event_type=CUSTOM)], False, False, id="an act"),
        pytest.param([moment(), moment(1, event_type=EventType.SHARE)], False, False, id="sharing"),
        pytest.param([moment(), moment(1, event_type=EventType.IDENTIFY)], False, False, id="signing in"),
        pytest.param([moment(event_type=EventType.LEAD)], False, True, id="a lead first"),
        pytest.param([moment(), moment(1, event_type=EventType.SALE)], False, True, id="a sale"),
        pytest.param([moment(), moment(1, event_type=PING, engaged_ms=9_999)], True, False, id="9.999 s"),
        pytest.param([moment(), moment(1, event_type=PING, engaged_ms=10_000)], True, True, id="10 s"),
        pytest.param(
            [moment(), *(moment(n, event_type=PING, engaged_ms=500) for n in range(20))], True, True,
            id="20 half seconds",
        ),
    ],
)  # fmt: skip
def test_bounce_and_engagement(moments: list[Moment], is_bounce: bool, is_engaged: bool) -> None:
    """A visit is a bounce until a second page or an act; engaged from ten seconds, a second page or earnings on."""
    visit = only(*moments)

    assert (visit.is_bounce, visit.is_engaged) == (is_bounce, is_engaged)


def test_pings_prolong_and_are_no_events() -> None:
    """A ping moves the end and adds attention, and is not counted among the events."""
    visit = only(
        moment(), moment(25, event_type=PING, engaged_ms=7_000), moment(50, event_type=PING, engaged_ms=1)
    )

    assert (visit.events, visit.pageviews, visit.engaged_ms) == (1, 1, 7_001)
    assert visit.duration_ms == 50 * 60 * 1_000


def test_only_pings_carry_attention() -> None:
    """A pageview that claims engaged time adds none, so that nothing is counted twice."""
    assert only(moment(engaged_ms=5_000)).engaged_ms == 0


def test_entry_and_exit_come_from_pages() -> None:
    """Other events neither begin nor end the way through the site."""
    visit = only(
        moment(path="/act", event_type=CUSTOM),
        moment(1, path="/a"),
        moment(2, path="/b"),
        moment(3, path="/c", event_type=CUSTOM),
    )

    assert (visit.entry_path, visit.entry_url, visit.exit_path) == ("/a", "https://shop.test/a", "/b")


# Late hits -----------------------------------------------------------------------------------------------------------


def test_a_late_hit_never_moves_the_end_backwards() -> None:
    """A hit from the middle changes counts, not the ends."""
    visit = only(moment(0, path="/a"), moment(20, path="/c"), moment(10, path="/b"))

    assert (visit.started_at, visit.last_event_at) == (START, START + timedelta(minutes=20))
    assert (visit.entry_path, visit.exit_path, visit.pageviews) == ("/a", "/c", 3)


def test_a_late_hit_from_before_moves_the_start() -> None:
    """A first page that arrives second is the entry all the same."""
    visit = only(moment(10, path="/b"), moment(0, path="/a"))

    assert (visit.started_at, visit.entry_path, visit.exit_path) == (START, "/a", "/b")
    assert visit.duration_ms == 600_000


def test_a_late_hit_finds_the_visit_it_fell_into() -> None:
    """Hours later, the visit of then takes the hit, and the visit of now does not."""
    then, now = visits(moment(0), moment(300), moment(10))

    assert (then.pageviews, now.pageviews) == (2, 1)


def test_a_late_hit_from_before_a_split_belongs_to_the_former_visit() -> None:
    """Between two visits that follow each other, the time of the hit decides."""
    former, newer = visits(moment(0, GOOGLE), moment(10, FACEBOOK), moment(5))

    assert (former.pageviews, newer.pageviews) == (2, 1)


# Laws ----------------------------------------------------------------------------------------------------------------

moments = st.lists(
    st.builds(
        moment,
        st.floats(0, 200).map(lambda m: round(m, 2)),
        st.sampled_from([None, DIRECT, DIRECT, GOOGLE, FACEBOOK]),
        st.sampled_from([PAGE, PAGE, CUSTOM, PING, EventType.SALE, EventType.LINK_CLICK]),
        st.sampled_from(["/", "/a", "/b"]),
        engaged_ms=st.integers(0, 6_000),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(moments)
def test_in_order_no_visit_is_silent_for_longer_than_the_timeout(found: list[Moment]) -> None:
    """Hits in their order: visits do not overlap, and each hit lies within the timeout of its neighbours."""
    found.sort(key=lambda m: m.occurred_at)
    _, steps = visits_after(found)
    last: dict[UUID, datetime] = {}
    for at, taken in zip(found, steps, strict=True):
        if isinstance(taken, Outside):
            continue
        former = last.get(taken.session.id, at.occurred_at)
        last[taken.session.id] = at.occurred_at

        assert at.occurred_at - former <= TIMEOUT
        assert taken.session.started_at <= at.occurred_at == taken.session.last_event_at


@settings(deadline=None)
@given(moments)
def test_every_hit_is_counted_once(found: list[Moment]) -> None:
    """Counts of the visits are the counts of the hits that they took, in any order of arrival."""
    known, steps = visits_after(found)
    taken = [at for at, it in zip(found, steps, strict=True) if not isinstance(it, Outside)]

    assert sum(v.pageviews for v in known) == sum(m.event_type is PAGE for m in taken)
    assert sum(v.events for v in known) == sum(m.event_type is not PING for m in taken)
    assert sum(v.engaged_ms for v in known) == sum(m.engaged_ms for m in taken if m.event_type is PING)


@settings(deadline=None)
@given(moments)
def test_no_verdict_is_ever_taken_back(found: list[Moment]) -> None:
    """Once engaged or no bounce, always so; start only moves back and end only forward."""
    former: dict[UUID, Session] = {}
    for taken in visits_after(found)[1]:
        if isinstance(taken, Outside):
            continue
        now = taken.session
        was = former.get(now.id, now)
        former[now.id] = now

        assert now.is_engaged >= was.is_engaged
        assert now.is_bounce <= was.is_bounce
        assert now.started_at <= was.started_at <= was.last_event_at <= now.last_event_at
        assert now.duration_ms == (now.last_event_at - now.started_at) // timedelta(milliseconds=1)
