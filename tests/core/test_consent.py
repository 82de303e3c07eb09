"""What a person allowed, and what their visits leave behind under it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from goodanalytics.core.consent import DENIED, GRANTED, Consent, newest, of_request, recalled, remembered
from goodanalytics.core.hits import Client, EventType, Hit
from goodanalytics.core.remembered import pixel_cookies, remember, together
from goodanalytics.core.sources import Source

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HALF = Consent(ad_user_data="granted")


def hours(number: float) -> datetime:
    return NOON + timedelta(hours=number)


@pytest.mark.parametrize(
    ("headers", "said", "found"),
    [
        pytest.param({}, None, None, id="nothing"),
        pytest.param({}, GRANTED, GRANTED, id="the host's word"),
        pytest.param({"sec-gpc": "1"}, GRANTED, DENIED, id="the browser's word first"),
        pytest.param({"sec-gpc": "0"}, HALF, HALF, id="no signal"),
    ],
)
def test_consent_of_a_request(headers, said, found):
    """Global Privacy Control says no whatever else is said."""
    assert of_request(headers, said) == found


@pytest.mark.parametrize(
    ("answers", "counts"),
    [
        pytest.param([], Consent(), id="nobody asked"),
        pytest.param([(GRANTED, 1), (DENIED, 2)], DENIED, id="the newer"),
        pytest.param([(DENIED, 2), (GRANTED, 1)], DENIED, id="the newer, which came first"),
        pytest.param(
            [(DENIED, 1), (HALF, 2)], Consent(ad_user_data="granted", ad_personalization="denied"), id="each"
        ),
        pytest.param([(GRANTED, 1), (Consent(), 2)], GRANTED, id="no answer"),
    ],
)
def test_the_newest_answer_counts_for_each_purpose(answers, counts):
    """An answer changes what it answers, unless a newer one is known."""
    known = None
    for said, at in answers:
        known = remembered(known, said, hours(at))

    assert recalled(known) == counts


def test_what_is_said_now_goes_first():
    """The conversion's own answer counts for it, and silence leaves what is known."""
    known = remembered(None, GRANTED, NOON)

    assert recalled(known, Consent(ad_personalization="denied")) == Consent(
        ad_user_data="granted", ad_personalization="denied"
    )


def test_times_sort_across_zones():
    """An answer from another time zone is compared by the moment, not by the clock on the wall."""
    later = hours(1).astimezone(tz=datetime.fromisoformat("2026-05-01T00:00-08:00").tzinfo)

    assert recalled(newest([remembered(None, DENIED, later), remembered(None, GRANTED, NOON)])) == DENIED


def hit(at: float = 0, **facts) -> Hit:
    defaults = {
        "id": UUID(int=1),
        "workspace_id": UUID(int=0),
        "received_at": hours(at),
        "occurred_at": hours(at),
        "event_type": EventType.PAGEVIEW,
        "origin": "browser",
    }
    return Hit(**(defaults | facts))


def left(*visits: tuple[float, dict, str | None], consent=None) -> dict:
    """What visits leave, each a time, its click ids and its user agent."""
    known: dict = {}
    for at, clicks, agent in visits:
        source = Source(click_ids=tuple(clicks.items()))
        known = remember(
            known,
            hit(at, client=Client(user_agent=agent)),
            consent,
            source=source,
            url=f"https://a.test/{at}?x#y",
            ip="::1",
        )
    return known


@pytest.mark.parametrize(
    ("visits", "agent", "clicked"),
    [
        pytest.param([(0, {}, "one"), (1, {}, "two")], "two", False, id="the last that was seen"),
        pytest.param([(0, {"gclid": "G"}, "one"), (1, {}, "two")], "one", True, id="the one that clicked"),
        pytest.param(
            [(0, {"gclid": "G"}, "one"), (1, {"gclid": "H"}, "two")], "two", True, id="the last click"
        ),
        pytest.param(
            [(0, {"gclid": "G"}, "one"), (1, {"gclid": "G"}, "two")], "one", True, id="a page loaded again"
        ),
        pytest.param(
            [(0, {}, "one"), (1, {"gclid": "G"}, None)], "one", False, id="a machine that says nothing"
        ),
    ],
)
def test_the_machine_of_the_click_is_kept(visits, agent, clicked):
    """User agent, page and address are those of the last ad's click, else of the last visit."""
    machine = left(*visits)["browser"]

    assert (machine["value"]["user_agent"], machine["clicked"]) == (agent, clicked)
    assert "?" not in machine["value"]["url"]


def test_a_value_keeps_its_first_time():
    """The same click id on a later page is the same click."""
    known = left((0, {"gclid": "G"}, "one"), (5, {"gclid": "G"}, "one"))

    assert datetime.fromisoformat(known["gclid"]["at"]) == NOON


def test_a_network_is_no_address():
    """Where addresses are kept by their network only, none is remembered."""
    seen = hit(client=Client(user_agent="one"))

    found = remember({}, seen, None, source=None, url=None, ip="203.0.113.0/24")
    assert found["browser"]["value"] == {"user_agent": "one"}


def test_who_denies_has_nothing_kept():
    """What was kept before goes as well; who only denies personalisation keeps it."""
    known = left((0, {"gclid": "G"}, "one"))
    picky = remembered(None, Consent(ad_personalization="denied"), NOON)

    assert remember(known, hit(1), remembered(None, DENIED, NOON), source=None, url=None, ip=None) == {}
    assert remember(known, hit(1), picky, source=None, url=None, ip=None) == known


def test_rows_of_a_person_come_together():
    """Each name's newest value, and the machine that clicked before one that did not."""
    clicked, later = left((0, {"gclid": "G"}, "one")), left((9, {}, "two"))

    assert together([clicked, later]) == together([later, clicked]) == clicked


def test_pixel_cookies():
    """Only what looks like a pixel's own cookie is taken."""
    assert pixel_cookies({"_fbp": "fb.1.2.3", "_fbc": "<script>", "_ttp": "x" * 513, "other": "1"}) == {
        "fbp": "fb.1.2.3"
    }
