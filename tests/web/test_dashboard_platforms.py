"""The pages of what goes out, as a browser gets them, and what their buttons do; no page has a secret or a person in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest

from goodanalytics.core.delivery import STATES
from goodanalytics.facade.webhooks import EVENTS, EVERYTHING
from goodanalytics.web.dashboard import deliveries
from goodanalytics.web.dashboard.platforms import EVENT_NAMES
from tests.dispatch.conftest import House, told
from tests.standins import Honest, serving
from tests.standins.receiver import GONE, Receiver
from tests.web.telling import ADDRESS, TOKEN, a_shop, leaks

HERE = {"sec-fetch-site": "same-origin"}
BAD = "<script>alert(1)</script>"
PAGES = ["/platforms", "/dispatches", "/webhooks"]
BUTTONS = [
    "/platforms/bell/switch", "/platforms/bell/credentials", "/platforms/bell/drop", "/platforms/bell/test",
    "/dispatches/replay", "/dispatches/{id}/replay", "/webhooks", "/webhooks/{id}/change",
    "/webhooks/{id}/secret", "/webhooks/{id}/test", "/webhooks/{id}/replay", "/webhooks/{id}/delete",
]  # fmt: skip


class Dashboard:
    """Somebody in front of the dashboard, who presses buttons of our own pages."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(path, params=query or None)

    async def press(self, path: str, headers: dict[str, str] = HERE, **typed: str) -> httpx.Response:
        return await self.client.post(path, data=typed, headers=headers)


@pytest.fixture
async def house(database_url, config, clock) -> AsyncIterator[House]:
    settings = {"dashboard_auth": lambda connection: "stranger" not in connection.headers}
    async with a_shop(database_url, config, clock, **settings) as house:
        yield house


@pytest.fixture
async def dashboard(house) -> AsyncIterator[Dashboard]:
    async with seen(house) as client:
        yield Dashboard(client)


def seen(house: House) -> httpx.AsyncClient:
    """A browser before the house's pages."""
    transport = httpx.ASGITransport(house.analytics.dashboard, root_path="/ga/dashboard")
    return httpx.AsyncClient(transport=transport, base_url="https://shop.example/ga/dashboard")


def text_of(answer: httpx.Response) -> str:
    """What a person reads of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


async def changes(house: House) -> int:
    ((number,),) = await house.ask("SELECT count(*) FROM audit")
    return number


# Who may -------------------------------------------------------------------------------------------------------------


async def test_every_page_is_behind_the_door(dashboard):
    """Whoever is not let in sees nothing."""
    pages = [*PAGES, "/dispatches/00000000-0000-0000-0000-000000000001"]
    answers = [await dashboard.client.get(path, headers={"stranger": "1"}) for path in pages]

    assert [answer.status_code for answer in answers] == [403] * 4


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="a browser that says nothing"),
        pytest.param({"sec-fetch-site": "cross-site"}, id="another site"),
        pytest.param({**HERE, "stranger": "1"}, id="somebody who may not see it"),
    ],
)
async def test_nobody_else_presses_a_button(house, dashboard, headers):
    """A request that is not our own page's, or not let in, changes nothing."""
    made = await house.analytics.webhooks.create(ADDRESS)
    before = await changes(house)
    typed = {"to": "off", "name": "token", "value": TOKEN, "url": ADDRESS}
    told = {
        path: (
            await dashboard.press(path.replace("{id}", str(made.webhook.id)), headers, **typed)
        ).status_code
        for path in BUTTONS
    }

    assert told == dict.fromkeys(BUTTONS, 403)
    assert await changes(house) == before


# Platforms -----------------------------------------------------------------------------------------------------------


async def test_the_page_says_how_each_platform_stands(house, dashboard):
    """Numbers, names of credentials, and how well people are recognised."""
    await house.sell("A1")
    await house.deliver()
    house.clock.advance(timedelta(minutes=1))
    page = await dashboard.get("/platforms")

    shown = text_of(page)
    assert "Bell On API version v1 Deliveries Delivered 1" in shown
    assert "in 1 delivery of the last four weeks" in shown
    assert "E-mail address 100%" in shown
    assert "Meta Off API version v26.0" in shown
    assert "pixel_id missing" in shown
    assert leaks(page) == []


async def test_without_platforms_the_page_says_what_to_write(database_url, config, clock):
    """The setting and its value."""
    settings = {"platforms": [], "dashboard_auth": lambda _: True}
    async with a_shop(database_url, config, clock, **settings) as house:
        transport = httpx.ASGITransport(house.analytics.dashboard, root_path="/ga/dashboard")
        async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
            page = await client.get("/ga/dashboard/platforms")

    assert "platforms=[Meta(), Google()]" in text_of(page)


async def test_a_credential_is_typed_in_and_never_shown(house, dashboard):
    """The page shows its name; the audit says that it was the dashboard."""
    done = await dashboard.press("/platforms/meta/credentials", name="access_token", value=TOKEN)
    page = await dashboard.get("/platforms")

    assert (done.status_code, done.headers["location"]) == (303, "/ga/dashboard/platforms#meta")
    assert "access_token stored 1 Nov 2026, 12:00" in text_of(page)
    assert leaks(done, page) == []
    assert await house.ask("SELECT subject, details FROM audit WHERE actor = 'dashboard'") == [
        ("meta", {"names": ["access_token"]})
    ]
    assert (await dashboard.press("/platforms/meta/drop", name="access_token")).status_code == 303
    assert "access_token missing" in text_of(await dashboard.get("/platforms"))


WRONG = {
    "no value": ("meta/credentials", {"name": "pixel_id", "value": " "}, 400),
    "no name": ("meta/credentials", {"name": TOKEN, "value": "x"}, 400),
    "too long": ("meta/credentials", {"name": "x", "value": TOKEN * 600}, 400),
    "far too long": ("meta/credentials", {"name": "x", "value": TOKEN * 6_000}, 400),
    "no platform": ("metta/credentials", {"name": "x", "value": TOKEN}, 404),
    "no switch": ("meta/switch", {"to": "sideways"}, 400),
    "no code": ("meta/switch", {"to": "test", "code": ""}, 400),
}


async def test_what_cannot_be_done_is_a_page(dashboard):
    """It says why, and repeats no value."""
    answers = {
        case: await dashboard.press(f"/platforms/{path}", **typed) for case, (path, typed, _) in WRONG.items()
    }

    assert {case: (answer.status_code, "<h1" in answer.text) for case, answer in answers.items()} == {
        case: (status, True) for case, (_, _, status) in WRONG.items()
    }
    assert leaks(*answers.values()) == []


async def test_a_platform_is_switched_by_its_buttons(house, dashboard):
    """Off, on, and to its test mode; each shows on the page."""
    seen = []
    for typed in ({"to": "off"}, {"to": "on"}, {"to": "test", "code": "T1"}):
        await dashboard.press("/platforms/bell/switch", **typed)
        shown = text_of(await dashboard.get("/platforms"))
        seen.append(re.search(r"Bell (.+?) API", shown)[1])

    assert seen == ["Off", "On", "Test mode"]


async def test_a_paused_platform_says_why(house, dashboard):
    """And what makes it go on."""
    house.exchange.then(told(401, everybody={"status": "credential", "code": "190", "message": BAD}))
    await house.sell("A1")
    await house.deliver()
    page = await dashboard.get("/platforms")

    assert "Bell Nothing goes out" in text_of(page)
    assert "Paused: credentials: 190" in text_of(page)
    assert BAD not in page.text


async def test_a_platform_is_tried_out(house, dashboard):
    """What it said stands on the page; what is missing too."""
    took = await dashboard.press("/platforms/bell/test", code="T1")
    house.exchange.then(told(400, everybody={"status": "permanent", "code": "100", "message": BAD}))
    refused = await dashboard.press("/platforms/bell/test", code="T1")
    missing = await dashboard.press("/platforms/meta/test", code="T1")

    assert "It works: the test sale was taken." in text_of(took)
    assert f"The platform refused the test sale: 100 · {BAD}." in unescape(refused.text)
    assert BAD not in refused.text
    assert "missing access_token, pixel_id" in text_of(missing)
    assert [answer.status_code for answer in (took, refused, missing)] == [200, 200, 200]


# Deliveries ----------------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_with_their_outcome(house, dashboard):
    """One that is tried again says when, one that was given up why; both in words."""
    house.exchange.then(
        told(
            A1={"status": "retry", "code": "busy", "message": BAD},
            A2={"status": "permanent", "code": "bad"},
        )
    )
    await house.sell("A1", "A2")
    await house.deliver()
    page = await dashboard.get("/dispatches")

    shown = text_of(page)
    assert "Bell Given up – bad" in shown
    assert re.search(r"Bell Will be tried again (1 Nov 2026, 12:00|As soon as possible) busy", shown)
    assert "1 given up" in shown
    assert BAD not in page.text
    assert leaks(page) == []


async def test_one_is_shown_with_what_was_told_and_sent_again(house, dashboard):
    """Names of match keys, never their values."""
    await house.sell("A1")
    await house.deliver()
    (one,) = (await house.analytics.platforms.dispatches()).items
    page = await dashboard.get(f"/dispatches/{one.id}")
    again = await dashboard.press(f"/dispatches/{one.id}/replay")
    waiting = await dashboard.get(f"/dispatches/{one.id}")
    twice = await dashboard.press(f"/dispatches/{one.id}/replay")

    shown = text_of(page)
    assert "Sale 49.00 EUR to Bell Delivered" in shown
    assert "E-mail address ✓ Phone number ✓ Your own id ✓" in shown
    assert (again.status_code, again.headers["location"]) == (303, f"/ga/dashboard/dispatches/{one.id}")
    assert "goes on by itself" in text_of(waiting)
    assert twice.status_code == 409
    assert leaks(page, waiting, twice) == []


async def test_the_list_is_walked_and_narrowed_down(house, dashboard):
    """Fifty to a page; a filter stays on the way."""
    await house.sell(*(f"A{number}" for number in range(51)))
    first = await dashboard.get("/dispatches", target="bell")
    (following,) = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = await dashboard.client.get(f"https://shop.example{unescape(following)}")
    none = await dashboard.get("/dispatches", state="dead")

    assert (first.text.count("Sale 49.00"), second.text.count("Sale 49.00")) == (50, 1)
    assert "target=bell" in following
    assert "Nothing fits" in none.text


async def test_all_that_were_given_up_are_sent_again(house, dashboard):
    """By the button above the list of them."""
    house.exchange.then(told(A1={"status": "permanent"}, A2={"status": "permanent"}))
    await house.sell("A1", "A2")
    await house.deliver()
    offered = await dashboard.get("/dispatches", state="dead")
    await dashboard.press("/dispatches/replay", target="bell")
    await house.deliver()

    assert "Send all that were given up again" in offered.text
    assert await house.states() == {"A1": "delivered", "A2": "delivered"}


async def test_whatever_is_asked_the_answer_is_a_page(dashboard):
    """Nothing that was typed runs."""
    asked = {
        "/dispatches?state=broken": 400,
        "/dispatches?after=x": 400,
        "/dispatches?target=<script>": 200,
        "/dispatches/A1": 404,
        "/dispatches/00000000-0000-0000-0000-000000000001": 404,
    }
    answers = {path: await dashboard.get(path) for path in asked}

    assert {path: answer.status_code for path, answer in answers.items()} == asked
    assert [path for path, a in answers.items() if "<h1" not in a.text or "<script>" in a.text] == []


# Webhooks ------------------------------------------------------------------------------------------------------------


async def test_a_secret_is_on_the_page_that_made_it_and_on_no_other(dashboard):
    """No cache keeps that page; of the address only the host is shown."""
    made = await dashboard.press("/webhooks", url=ADDRESS, **{"event:sale.created": "yes"})
    (secret,) = re.findall(r"whsec_[\w+/=-]+", made.text)
    later = await dashboard.get("/webhooks")

    assert (made.status_code, made.headers["cache-control"]) == (200, "no-store")
    assert secret not in later.text
    assert "receiver.example On Sales" in text_of(later)
    assert leaks(made, later) == []


async def test_a_webhook_is_changed_renewed_and_deleted(house, dashboard):
    """By the buttons of its card; what is not typed stays."""
    made = await house.analytics.webhooks.create(ADDRESS, events=["sale.created"])
    url = f"/webhooks/{made.webhook.id}"
    await dashboard.press(f"{url}/change", enabled="no")
    await dashboard.press(f"{url}/change", url="", events="yes", **{"event:lead.created": "yes"})
    (changed,) = await house.analytics.webhooks.list()
    renewed = await dashboard.press(f"{url}/secret")
    gone = await dashboard.press(f"{url}/delete")

    assert (changed.url, changed.events, changed.enabled) == (ADDRESS, ("lead.created",), False)
    assert re.findall(r"whsec_[\w+/=-]+", renewed.text) not in ([], [made.secret])
    assert gone.status_code == 303
    assert await house.analytics.webhooks.list() == []
    assert (await dashboard.press(f"{url}/delete")).status_code == 404


async def test_a_webhook_is_tried_out(database_url, config, clock):
    """Its card says what the receiver answered, in words; what counts for nothing is in no list."""
    receiver = Receiver(clock)
    with serving(receiver):
        settings = {"dashboard_auth": lambda _: True, "webhook_networks": ["127.0.0.0/8"]}
        async with a_shop(database_url, config, clock, **settings) as house, seen(house) as client:
            made = await house.analytics.webhooks.create(f"{receiver.address}{receiver.path}")
            receiver.secrets = [made.secret]
            receiver.next(Honest(), GONE)
            pages = [await Dashboard(client).press(f"/webhooks/{made.webhook.id}/test") for _ in range(2)]
            (webhook,) = await house.analytics.webhooks.list()
            unknown = await Dashboard(client).press(f"/webhooks/{UUID(int=5)}/test")

    said = [
        "It works: the test notice was taken. HTTP 200",
        "The receiver refused the test notice: gone · HTTP 410.",
    ]
    assert [text in text_of(page) for text, page in zip(said, pages, strict=True)] == [True, True]
    assert [notice.type for notice in receiver.told] == ["webhook.test"]
    assert (webhook.enabled, unknown.status_code) == (True, 404)
    assert leaks(*pages) == []


async def test_what_a_webhook_was_told_is_sent_again(house, dashboard):
    """What was given up; the list of its deliveries follows."""
    made = await house.analytics.webhooks.create(ADDRESS)
    await house.sell("A1")
    t = house.analytics.database.tables.dispatches
    async with house.analytics.database.begin() as conn:
        await conn.execute(t.update().where(t.c.target == made.webhook.target).values(state="dead"))
    done = await dashboard.press(f"/webhooks/{made.webhook.id}/replay")
    page = await dashboard.client.get(f"https://shop.example{done.headers['location']}")

    assert done.status_code == 303
    assert "Sale 49.00 EUR 1 Nov 2026, 12:00 Webhook receiver.example Waiting" in text_of(page)
    assert leaks(page) == []


async def test_a_wrong_address_is_told_beside_its_field(dashboard):
    """What was typed stands there still."""
    for url in ("http://receiver.example/x", "nowhere", f'http://"{BAD}/', ""):
        answer = await dashboard.press("/webhooks", url=url)

        assert (answer.status_code, 'role="alert"' in answer.text) == (400, True)
        assert f'value="{url}"' in unescape(answer.text)
        assert BAD not in answer.text


# Words ---------------------------------------------------------------------------------------------------------------


def test_everything_has_a_name():
    """Each state of the outbox and each event of a webhook is said in words."""
    assert set(deliveries.STATES) == set(STATES)
    assert set(EVENT_NAMES) == {EVERYTHING, *EVENTS}


def test_the_chart_covers_the_last_day_hour_by_hour():
    """The last bar is the present hour; what is older, or neither delivered nor given up, is left out."""
    now = datetime(2026, 11, 1, 12, 20, tzinfo=UTC)
    begin = deliveries.first_hour(now)
    hour = now.replace(minute=0)
    chart = deliveries.hours(
        [
            (hour, "bell", "delivered", 3), (hour, "meta", "delivered", 1), (hour, "bell", "dead", 1),
            (hour, "bell", "skipped", 9), (begin, "bell", "delivered", 2),
            (begin - timedelta(hours=1), "bell", "delivered", 7),
        ],
        begin, ZoneInfo("Asia/Kolkata"),
    )  # fmt: skip

    assert (len(chart.bars), chart.delivered, chart.given_up) == (24, 6, 1)
    assert [(bar.label, bar.delivered, bar.given_up) for bar in (chart.bars[0], chart.bars[-1])] == [
        ("18:30", 2, 0),
        ("17:30", 4, 1),
    ]
    assert max(bar.good + bar.bad for bar in chart.bars) <= 100
