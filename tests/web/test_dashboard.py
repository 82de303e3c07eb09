"""The dashboard, as a browser sees it: over ASGI, on real PostgreSQL, with rows put straight into the tables."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Table, insert
from starlette.requests import HTTPConnection

from goodanalytics.config import Config
from goodanalytics.store.database import Database
from goodanalytics.web.dashboard import room as dashboard

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)  # a Sunday
ROOT = "/ga/dashboard"
SHOP, HOSTILE, CROWD, EMPTY = (UUID(int=n) for n in (1, 2, 3, 4))
HOSTS = {"shop.example": SHOP, "hostile.example": HOSTILE, "crowd.example": CROWD, "empty.example": EMPTY}
ADA, HER_PHONE, SOMEBODY, BOT, EARLIER = (UUID(int=n) for n in (0xA11, 0xA12, 0xB, 0xC, 0xD))

GOOGLE = {"platform": "google", "medium": "organic"}
LETTER = {"platform": "newsletter", "medium": "email", "campaign": "autumn"}


def at(day: str, clock: str = "10:00") -> datetime:
    return datetime.fromisoformat(f"2026-{day}T{clock}:00+00:00")


class Rows:
    """Writes rows of one workspace, with unremarkable values where a test has nothing to say."""

    def __init__(self, conn: Any, tables: Any, workspace_id: UUID) -> None:
        self._conn, self._tables, self._workspace_id = conn, tables, workspace_id
        self._numbers = itertools.count(1)

    async def visitor(self, one: UUID, seen: datetime, *, of: UUID | None = None, **columns: Any) -> None:
        row = {
            "id": one,
            "canonical_id": of or one,
            "status": "anonymous",
            "first_seen_at": seen,
            "last_seen_at": seen,
            **{name: {} for name in ("traits", "geo", "device", "platform_signals", "ltv")},
            **dict.fromkeys(("total_sessions", "total_pageviews", "total_events"), 1),
        }
        await self.put(self._tables.visitors, row | columns)

    async def session(self, visitor: UUID, started: datetime, source: dict[str, Any], **columns: Any) -> UUID:
        row = {
            "id": UUID(int=0x5E000 + next(self._numbers)),
            "visitor_id": visitor,
            "started_at": started,
            "last_event_at": started,
            "entry_path": "/",
            "pageviews": 1,
            "events": 1,
            "duration_ms": 90_000,
            "engaged_ms": 0,
            "is_bounce": False,
            "is_engaged": True,
            "acquisition": source,
            **self._said_of(source),
        }
        await self.put(self._tables.sessions, row | columns)
        return (row | columns)["id"]

    async def event(self, visitor: UUID, when: datetime, kind: str = "pageview", **columns: Any) -> UUID:
        source = columns.pop("source_json", {})
        row = {
            "id": UUID(int=0xE0000 + next(self._numbers)),
            "visitor_id": visitor,
            "occurred_at": when,
            "received_at": when,
            "event_type": kind,
            "origin": "browser",
            "trusted": False,
            "properties": {},
            **self._said_of(source),
        }
        await self.put(self._tables.events, row | columns)
        return (row | columns)["id"]

    async def put(self, table: Table | str, row: dict[str, Any]) -> None:
        table = getattr(self._tables, table) if isinstance(table, str) else table
        await self._conn.execute(insert(table).values(workspace_id=self._workspace_id, **row))

    @staticmethod
    def _said_of(source: dict[str, Any]) -> dict[str, Any]:
        return {
            "source": source.get("platform", "direct"),
            "medium": source.get("medium", "direct"),
            "channel": {"google": "organic search", "newsletter": "email"}.get(
                source.get("platform"), "direct"
            ),
            "campaign": source.get("campaign"),
        }


async def seed_shop(rows: Rows) -> None:
    """Ada, with a laptop and a telephone; somebody who bounced; a bot; and somebody of the four weeks before."""
    phone = {"type": "smartphone", "browser": "Mobile Safari", "os": "iOS"}
    laptop = {"type": "desktop", "browser": "Firefox", "os": "Linux"}
    on_laptop = {
        "device_type": "desktop",
        "browser": "Firefox",
        "os": "Linux",
        "country": "DE",
        "city": "Berlin",
    }
    on_phone = {"device_type": "smartphone", "browser": "Mobile Safari", "os": "iOS", "country": "DE"}
    await rows.visitor(
        ADA,
        at("10-30"),
        name="Ada Lovelace",
        email="ada@example.org",
        external_id="user-1",
        status="customer",
        first_source=GOOGLE,
        first_source_at=at("10-30"),
        last_source=LETTER,
        last_source_at=at("10-31"),
        geo={"country": "DE", "city": "Berlin"},
        device=laptop,
        ltv={"EUR": 4_900, "JPY": 1_200},
        total_sessions=2,
    )
    await rows.visitor(HER_PHONE, at("11-01"), of=ADA, device=phone)
    await rows.put(
        "links",
        {
            "id": UUID(int=0x11),
            "domain": "go.example",
            "key": "autumn",
            "url": "https://shop.example/",
            "link_type": "short",
            "rules": [],
            "variants": [],
            "redirect_status": 302,
            "forward_path": False,
            "forward_query": True,
            "cloaked": False,
            "indexed": False,
            "tags": [],
            "metadata": {},
            "created_at": at("10-01"),
            "updated_at": at("10-01"),
        },
    )
    first = await rows.session(
        ADA,
        at("10-30"),
        GOOGLE,
        is_bounce=True,
        device_type="desktop",
        browser="Firefox",
        os="Linux",
        country="DE",
    )
    click = await rows.event(
        ADA, at("10-31", "08:59"), "link_click", link_id=UUID(int=0x11), url="https://shop.example/"
    )
    second = await rows.session(ADA, at("10-31", "09:00"), LETTER, click_id=click, country="DE")
    third = await rows.session(HER_PHONE, at("11-01"), {}, country="DE")
    page = {"url": "https://shop.example/tea?x=1", "path": "/tea", "title": "Tea & cups"}
    await rows.event(ADA, at("10-30"), session_id=first, **page, **on_laptop, source_json=GOOGLE)
    await rows.event(ADA, at("10-31", "09:00"), session_id=second, **page, **on_laptop, source_json=LETTER)
    await rows.event(
        ADA,
        at("10-31", "09:01"),
        "custom",
        session_id=second,
        event_name="Add to cart",
        properties={"size": 3, "gift": None},
    )
    await rows.event(
        ADA,
        at("10-31", "09:02"),
        "engagement",
        session_id=second,
        path="/tea",
        engaged_ms=65_000,
        scroll_depth=80,
    )
    await rows.event(ADA, at("10-31", "09:03"), "lead", session_id=second, event_name="Sign-up", trusted=True)
    await rows.event(
        ADA,
        at("10-31", "09:04"),
        "sale",
        session_id=second,
        trusted=True,
        origin="server",
        key="order-1",
        amount_cents=4_900,
        currency="EUR",
    )
    await rows.event(
        HER_PHONE, at("11-01"), session_id=third, path="/", url="https://shop.example/", **on_phone
    )
    await rows.event(
        HER_PHONE,
        at("11-01", "10:01"),
        "sale",
        session_id=third,
        key="claim-1",
        amount_cents=99_900,
        currency="EUR",
    )
    await rows.put(
        "merges",
        {
            "id": UUID(int=0x3E),
            "loser_id": HER_PHONE,
            "winner_id": ADA,
            "loser_member_id": HER_PHONE,
            "winner_member_id": ADA,
            "evidence": {"matched": ["external_id"]},
            "merged_at": at("11-01", "10:02"),
        },
    )
    for kind, value, one in (
        ("anonymous_id", "browser-1", ADA),
        ("external_id", "user-1", ADA),
        ("anonymous_id", "phone-1", HER_PHONE),
    ):
        await rows.put(
            "identities", {"kind": kind, "value": value, "visitor_id": one, "first_seen_at": at("10-30")}
        )
    await rows.put(
        "conflicts",
        {
            "hit_id": UUID(int=0x41),
            "visitor_id": ADA,
            "other_id": SOMEBODY,
            "reason": "two external ids",
            "seen_at": at("11-01"),
        },
    )
    await rows.visitor(SOMEBODY, at("10-29"), geo={"country": "JP"})
    visit = await rows.session(SOMEBODY, at("10-29"), GOOGLE, is_bounce=True, country="JP")
    await rows.event(SOMEBODY, at("10-29"), session_id=visit, path="/about", country="JP", source_json=GOOGLE)
    await rows.visitor(BOT, at("10-29"), bot="crawler")
    await rows.event(BOT, at("10-29"), path="/robots", bot="crawler")
    await rows.visitor(EARLIER, at("09-10"))
    visit = await rows.session(EARLIER, at("09-10"), {})
    await rows.event(EARLIER, at("09-10"), session_id=visit, path="/tea")


PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></textarea></style><svg onload=alert(1)>",
    "javascript:alert(1)//https://shop.example/",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "\u202egnp.exe <b>",
)


async def seed_hostile(rows: Rows) -> None:
    """A visitor for each payload, who puts it wherever a visitor can put a text."""
    for number, bad in enumerate(PAYLOADS, 1):
        one, start = UUID(int=number), at("10-31", f"0{number}:00")
        source = {"platform": bad, "medium": bad, "campaign": bad, "referrer_host": bad}
        device = {"device_type": bad, "browser": bad, "os": bad, "country": bad, "region": bad, "city": bad}
        await rows.visitor(
            one,
            start,
            **dict.fromkeys(("name", "email", "external_id", "phone", "bot" if number == 1 else "name"), bad),
            traits={bad: bad},
            first_source=source,
            first_source_at=start,
            last_source=source,
            last_source_at=start,
            geo={"city": bad, "country": bad},
            device={"type": bad, "browser": bad, "os": bad},
            ltv={"EUR": 1},
        )
        visit = await rows.session(
            one,
            start,
            source,
            entry_path=bad,
            exit_path=bad,
            **{name: device[name] for name in ("device_type", "browser", "os", "country")},
        )
        texts = {
            "url": bad,
            "host": bad,
            "path": bad,
            "title": bad,
            "referrer": bad,
            "user_agent": bad,
        } | device
        for minute, kind in enumerate(
            ("pageview", "custom", "lead", "sale", "share", "identify", "engagement", "link_click")
        ):
            await rows.event(
                one,
                start + timedelta(minutes=minute),
                kind,
                session_id=visit,
                event_name=bad,
                key=bad,
                properties={bad: bad, "items": bad},
                amount_cents=100,
                currency="EUR",
                source_json=source,
                trusted=kind == "lead",
                **texts,
            )
        await rows.put(
            "identities", {"kind": "anonymous_id", "value": bad, "visitor_id": one, "first_seen_at": start}
        )
        await rows.put(
            "conflicts",
            {
                "hit_id": UUID(int=number),
                "visitor_id": one,
                "other_id": UUID(int=99),
                "reason": bad,
                "seen_at": start,
            },
        )


async def seed_crowd(rows: Rows) -> None:
    """120 people, of whom the last did 130 things."""
    for number in range(120):
        await rows.visitor(
            UUID(int=0xC0000 + number), at("10-01") + timedelta(hours=number), name=f"Person {number:03}"
        )
    last = UUID(int=0xC0000 + 119)
    visit = await rows.session(last, at("10-20"), GOOGLE)
    for number in range(130):
        await rows.event(
            last,
            at("10-20") + timedelta(seconds=number),
            "custom",
            session_id=visit,
            event_name=f"thing {number:03}",
        )


INLINE = {"a", "b", "bdi", "code", "small", "span", "time"}


class Page(HTMLParser):
    """A page as a browser would read it: elements, attributes, texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in INLINE:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.elements if tag == "a" and "href" in attrs]


@dataclass
class Browser:
    """Somebody who looks at the dashboard of a host."""

    client: httpx.AsyncClient

    async def get(self, path: str = "/", host: str = "shop.example", **options: Any) -> httpx.Response:
        return await self.client.get(f"http://{host}{ROOT}{path}", **options)

    async def page(self, path: str = "/", host: str = "shop.example") -> Page:
        response = await self.get(path, host)
        assert response.status_code == 200, response.text
        return Page(response.text)


def browser_of(config: Config, database: Database, root: str = ROOT) -> Browser:
    return Browser(
        httpx.AsyncClient(transport=httpx.ASGITransport(dashboard.app(config, database), root_path=root))
    )


@pytest.fixture(scope="module")
async def stocked(shared_database_url: str, tables: Any) -> AsyncIterator[Database]:
    """A database with four workspaces, which no test changes."""
    database = Database.open(shared_database_url, tables)
    async with database.begin() as conn:
        await seed_shop(Rows(conn, tables, SHOP))
        await seed_hostile(Rows(conn, tables, HOSTILE))
        await seed_crowd(Rows(conn, tables, CROWD))
    yield database
    await database.close()


@pytest.fixture
async def browser(config: Config, stocked: Database) -> AsyncIterator[Browser]:
    """A browser that is let in."""
    browser = browser_of(replace(config, workspaces=HOSTS, dashboard_auth=lambda _: True), stocked)
    async with browser.client:
        yield browser


@pytest.fixture
def nowhere(tables: Any) -> Database:
    """A database at an address where nobody answers."""
    return Database.open("postgresql://teller:hunter2@127.0.0.1:1/vault", tables)


# The door ------------------------------------------------------------------------------------------------------------


async def test_a_dashboard_without_a_rule_is_closed(config, nowhere):
    """Without `dashboard_auth` nobody gets in, and the page names the setting."""
    response = await browser_of(config, nowhere).get()

    assert response.status_code == 403
    assert "Config(dashboard_auth=" in response.text


async def _yes(_: HTTPConnection) -> bool:
    return True


async def _no(_: HTTPConnection) -> bool:
    return False


def _broken(_: HTTPConnection) -> bool:
    raise RuntimeError("the session store is down: hunter2")


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        pytest.param(lambda _: True, 200, id="yes"),
        pytest.param(_yes, 200, id="async yes"),
        pytest.param(lambda _: False, 403, id="no"),
        pytest.param(_no, 403, id="async no"),
        pytest.param(_broken, 500, id="raises"),
        pytest.param(lambda _: None, 500, id="forgot to answer"),
        pytest.param(lambda _: "admin", 500, id="answers something else"),
        pytest.param(lambda _: 1, 500, id="answers a number"),
    ],
)
async def test_only_true_opens_the_door(config, stocked, errors, rule, status):
    """Whatever else the host's rule does, nothing is shown; a rule that fails is reported, and its message stays inside."""
    response = await browser_of(replace(config, workspaces=HOSTS, dashboard_auth=rule), stocked).get()

    assert response.status_code == status
    assert ("Ada Lovelace" in response.text) is (status == 200)
    assert "hunter2" not in response.text
    assert len(errors) == (status == 500)


@pytest.mark.parametrize("path", ["/", "/sources", "/pages", "/visitors", f"/visitors/{ADA}"])
async def test_every_page_is_behind_the_door(config, nowhere, path):
    """No page reads anything for somebody who may not see it."""
    assert (
        await browser_of(replace(config, dashboard_auth=lambda _: False), nowhere).get(path)
    ).status_code == 403


async def test_the_rule_sees_the_request(config, stocked):
    """The rule decides by the connection: here by a cookie."""
    settings = replace(config, dashboard_auth=lambda connection: connection.cookies.get("staff") == "yes")
    browser = browser_of(settings, stocked)

    assert (await browser.get()).status_code == 403
    assert (await browser.get(headers={"cookie": "staff=yes"})).status_code == 200


# Headers and files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/", 200, id="page"),
        pytest.param("/?from=x", 400, id="wrong"),
        pytest.param("/nowhere", 404, id="unknown"),
        pytest.param("/static/dashboard.css", 200, id="file"),
        pytest.param("/static/missing.css", 404, id="no file"),
    ],
)
async def test_every_answer_is_locked_down(browser, path, status):
    """Nothing but our own files can run, frame, or learn where a link came from, whatever the answer is."""
    response = await browser.get(path)

    assert response.status_code == status
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "same-origin"


async def test_pages_are_not_kept(browser):
    """A page holds personal data, so no cache keeps it."""
    assert (await browser.get()).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["dashboard.css", "dashboard.js"])
async def test_files_are_kept_until_they_change(browser, name):
    """A file has an ETag; asking again with it is answered without a body."""
    response = await browser.get(f"/static/{name}")
    again = await browser.get(
        f"/static/{name}", headers={"if-none-match": f'"other", W/{response.headers["etag"]}'}
    )

    assert "max-age=" in response.headers["cache-control"]
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize(
    "name", ["good-analytics.js", "..%2fdashboard.py", "%2e%2e/dashboard.py", "dashboard.css%00"]
)
async def test_only_the_dashboards_files_are_served(browser, name):
    """No other file of the package, let alone of the machine, can be read here."""
    assert (await browser.get(f"/static/{name}")).status_code == 404


async def test_pages_are_only_read(browser):
    """Other methods are refused, and the answer says which one is right."""
    response = await browser.client.post(f"http://shop.example{ROOT}/visitors")

    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


# Addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["", "/ga/dashboard", "/deep/er/stats"])
async def test_links_begin_where_we_are_mounted(config, stocked, root):
    """Wherever the dashboard is mounted, every link and file on its pages lies below that."""
    browser = browser_of(replace(config, workspaces=HOSTS, dashboard_auth=lambda _: True), stocked, root)
    found = Page((await browser.client.get(f"http://shop.example{root}/")).text)

    addresses = [
        value
        for _, attrs in found.elements
        for name in ("href", "src", "action")
        if (value := attrs.get(name))
    ]
    assert [a for a in addresses if not a.startswith((f"{root}/", "#", "data:,"))] == []
    assert len(addresses) > 40


async def test_the_slash_at_the_end_does_not_matter(browser):
    """`/ga/dashboard` and `/ga/dashboard/` are one page; a redirect would have to guess our address."""
    assert (await browser.get("")).text == (await browser.get("/")).text


async def test_every_link_leads_somewhere(browser):
    """Following the links from page to page, a filter and an order included, no address of ours is broken."""
    waiting, seen = [f"{ROOT}/"], set()
    while waiting and len(seen) < 60:
        address = waiting.pop(0)
        seen.add(address)
        response = await browser.client.get(f"http://shop.example{address}")
        assert response.status_code == 200, address
        if "filter=" not in address:
            waiting += [
                link
                for link in Page(response.text).links()
                if link.startswith(ROOT) and link not in {*seen, *waiting}
            ]
    kinds = {urlsplit(address).path.removeprefix(ROOT) for address in seen}
    assert {"/", "/sources", "/pages", "/visitors", f"/visitors/{ADA}", f"/visitors/{SOMEBODY}"} <= kinds


# Figures -------------------------------------------------------------------------------------------------------------


async def tiles(browser: Browser, path: str = "/") -> dict[str, str]:
    html = (await browser.get(path)).text
    found = re.findall(
        r"<dt>([^<]+)</dt>\s*<dd>(.*?)</dd>\s*<dd class=\"before\"[^>]*>(.*?)</dd>", html, re.DOTALL
    )
    return {name: Page(f"{now} {before}").text for name, now, before in found}


async def test_tiles_tell_the_period_and_the_one_before(browser):
    """Ada's two browsers are one visitor; bots and claimed sales do not count; the four weeks before had one visit."""
    assert await tiles(browser) == {
        "Visitors": "2 +100% was 1",
        "Visits": "4 +300% was 1",
        "Pageviews": "4 +300% was 1",
        "Bounce rate": "50% was 0%",
        "Visit duration": "1m 30s ±0% was 1m 30s",
        "Leads": "1 was 0",
        "Sales": "1 was 0",
        "Revenue": "49.00 EUR was –",
    }


async def test_filters_apply_to_everything(browser):
    """Only what came from the newsletter."""
    found = await tiles(browser, "/?filter=source:is:newsletter")

    assert {name: text.partition(" was ")[0] for name, text in found.items()} == {
        "Visitors": "1",
        "Visits": "1",
        "Pageviews": "1",
        "Bounce rate": "0%",
        "Visit duration": "1m 30s",
        "Leads": "1",
        "Sales": "1",
        "Revenue": "49.00 EUR",
    }


async def panel(browser: Browser, title: str, path: str = "/") -> list[str]:
    html = (await browser.get(path)).text
    table = next(
        t
        for t in re.findall(r"<table>.*?</table>", html, re.DOTALL)
        if title in Page(t.split("<thead")[0]).text
    )
    return [Page(row).text for row in re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1], re.DOTALL)]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        pytest.param("Sources", ["google organic 2", "direct 1", "newsletter email 1"], id="sources"),
        pytest.param("Channels", ["Organic search 2", "Direct 1", "Email 1"], id="channels"),
        pytest.param("Campaigns", ["autumn 1"], id="campaigns"),
        pytest.param("Pages", ["/ 1 1", "/about 1 1", "/tea 1 2"], id="pages"),
        pytest.param("Entry pages", ["/ 4 50%"], id="entry pages"),
        pytest.param("Short links", ["go.example/autumn 1 1"], id="links"),
        pytest.param("Countries", ["Germany 1", "Japan 1"], id="countries"),
        pytest.param("Events", ["Add to cart 1 1"], id="events"),
    ],
)
async def test_panels_show_the_most_frequent_values(browser, title, expected):
    """Each panel's rows with their figures, the largest first."""
    assert await panel(browser, title) == expected


async def test_the_chart_has_words(browser):
    """Each day's figures can be read without seeing the drawing: by pointer, and as a table."""
    found = await browser.page()

    assert "Sat 31 Oct 2026: 1 visitors, 1 pageviews" in found.texts
    assert "Sat 31 Oct 2026" in found.texts
    assert sum(attrs.get("class") == "band" for tag, attrs in found.elements if tag == "rect") == 28


async def test_one_day_is_drawn_by_hours(browser):
    """The chart of a single day has an hour for each band, of the time zone that was asked for."""
    found = await browser.page("/?from=2026-10-31&to=2026-10-31&tz=Asia/Tehran")

    assert "Sat 31 Oct 2026, 12:00: 1 visitors, 1 pageviews" in found.texts  # 09:00 UTC is 12:30 in Tehran


async def test_a_click_filters_and_a_chip_takes_it_back(browser):
    """A row's name links to the page with only that; the chip that then appears links back."""
    html = (await browser.get("/?period=90d")).text
    (link,) = re.findall(r'<a href="([^"]+)" title="newsletter"', html)
    assert link == f"{ROOT}/?period=90d&amp;filter=source%3Ais%3Anewsletter"

    filtered = (await browser.get("/?period=90d&filter=source:is:newsletter")).text
    (chip,) = re.findall(r'<ul class="chips".*?<a href="([^"]+)"', filtered, re.DOTALL)
    assert chip == f"{ROOT}/?period=90d"


async def test_the_sources_page_has_everything_side_by_side(browser):
    """A source with its medium and channel, and what it brought."""
    html = (await browser.get("/sources")).text
    cells = [
        [Page(cell).text for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", html, re.DOTALL)
    ]
    assert ["newsletter", "email", "Email", "1", "1", "1", "0%", "1m 30s", "1", "1", "49.00 EUR"] in cells


async def test_a_workspace_is_chosen_by_the_host(browser):
    """Another host's dashboard shows another workspace; nothing of the first."""
    assert "Ada Lovelace" in (await browser.get("/visitors")).text
    assert "Ada Lovelace" not in (await browser.get("/visitors", host="crowd.example")).text


async def test_no_data_shows_what_to_paste(browser):
    """Where nobody was yet, the page says what to do, with this mount's own address."""
    found = await browser.page(host="empty.example")

    assert '<script defer src="/ga/js/good-analytics.js"></script>' in found.text
    assert not any(attrs.get("src", "").endswith("good-analytics.js") for _, attrs in found.elements)


async def test_a_period_without_data_is_not_an_error(browser):
    """Nothing happened then: zeros, and no snippet."""
    found = await browser.page("/?from=2020-01-01&to=2020-12-31")

    assert "Nothing in this period" in found.text
    assert "No data yet" not in found.text


# What cannot be read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "says"),
    [
        pytest.param("/?from=yesterday&to=2026-11-01", "yesterday", id="date"),
        pytest.param("/?tz=Mars/Olympus", "Mars/Olympus", id="time zone"),
        pytest.param("/?filter=source:was:it", "source:was:it", id="filter"),
        pytest.param("/visitors?after=zzz", "cursor", id="cursor"),
        pytest.param("/visitors?status=king", "king", id="status"),
        pytest.param("/visitors?search=" + "x" * 300, "x" * 300, id="search"),
        pytest.param("/visitors?search=a%00b", "NUL", id="NUL"),
        pytest.param(f"/visitors/{ADA}?order=sideways", "sideways", id="order"),
        pytest.param(f"/visitors/{ADA}?after=%F0%9F%98%80", "cursor", id="timeline's cursor"),
        pytest.param("/?period=%FF%FE", "period", id="not UTF-8"),
    ],
)
async def test_a_wrong_query_is_explained(browser, errors, path, says):
    """What was typed is shown again with what is wrong about it; our log has nothing to say."""
    response = await browser.get(path)

    assert response.status_code == 400
    assert says in Page(response.text).text or says in response.text
    assert errors == []


async def test_a_wrong_date_is_kept_in_its_field(browser):
    """The form still holds what was typed, right and wrong, and the rest of the question."""
    found = Page(
        (await browser.get("/?from=2026-02-30&to=2026-11-01&filter=source:is:google&tz=Asia/Tehran")).text
    )
    fields = [(attrs.get("name"), attrs.get("value")) for tag, attrs in found.elements if tag == "input"]

    assert fields[:4] == [
        ("tz", "Asia/Tehran"),
        ("filter", "source:is:google"),
        ("from", "2026-02-30"),
        ("to", "2026-11-01"),
    ]


async def test_a_dead_database_is_told_without_its_address(config, nowhere, errors):
    """The page says that the database does not answer; where it is stays between us and the log."""
    response = await browser_of(replace(config, dashboard_auth=lambda _: True), nowhere).get()

    assert response.status_code == 503
    assert "The database does not answer" in response.text
    assert "hunter2" not in response.text
    assert "127.0.0.1" not in response.text
    assert len(errors) == 1


@pytest.mark.parametrize(
    "one",
    [
        pytest.param("nobody", id="no id"),
        pytest.param(str(UUID(int=0xFFFF)), id="nobody's"),
        pytest.param(str(UUID(int=0xC0000)), id="of another workspace"),
    ],
)
async def test_an_unknown_visitor_is_not_found(browser, one):
    """An id that nobody has here is 404, whoever may have it elsewhere."""
    assert (await browser.get(f"/visitors/{one}")).status_code == 404


# People --------------------------------------------------------------------------------------------------------------


async def test_people_are_listed_last_seen_first(browser):
    """Each person once, merged browsers together, bots left out."""
    html = (await browser.get("/visitors")).text

    assert re.findall(rf'href="{ROOT}/visitors/([0-9a-f-]+)"><bdi>([^<]+)', html) == [
        (str(ADA), "Ada Lovelace"),
        (str(SOMEBODY), "Anonymous visitor 00000b"),
        (str(EARLIER), "Anonymous visitor 00000d"),
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("?search=LOVELACE", True, id="name"),
        pytest.param("?search=ada@example", True, id="address"),
        pytest.param("?status=customer", True, id="status"),
        pytest.param("?search=%25", False, id="a wildcard is a character"),
        pytest.param("?status=lead", False, id="another status"),
    ],
)
async def test_people_are_searched(browser, query, found):
    """Search looks into names and addresses; the status is the person's."""
    assert ("Ada Lovelace" in (await browser.page(f"/visitors{query}")).text) is found


async def walk(browser: Browser, path: str, pattern: str) -> list[list[str]]:
    """What *pattern* finds on each page, from *path* through every `next` link."""
    address: str | None = f"http://crowd.example{ROOT}{path}"
    pages = []
    while address:
        response = await browser.client.get(address)
        assert response.status_code == 200
        pages.append(re.findall(pattern, response.text))
        following = [a for tag, a in Page(response.text).elements if tag == "a" and a.get("rel") == "next"]
        address = urljoin(address, following[0]["href"]) if following else None
    return pages


async def test_pages_of_people_go_on_where_the_last_ended(browser):
    """Through all pages everybody comes once, in order, and the search stays."""
    pages = await walk(browser, "/visitors?search=person", r"<bdi>Person (\d+)</bdi>")

    assert [len(page) for page in pages] == [50, 50, 20]
    assert [int(number) for page in pages for number in page] == list(range(119, -1, -1))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param("", list(range(130)), id="oldest first"),
        pytest.param("?order=newest", list(range(129, -1, -1)), id="newest first"),
    ],
)
async def test_pages_of_a_timeline_go_on_where_the_last_ended(browser, order, expected):
    """A long timeline comes in pages, in the order that was asked for."""
    pages = await walk(browser, f"/visitors/{UUID(int=0xC0000 + 119)}{order}", r"<bdi>thing (\d+)</bdi>")

    assert [len(page) for page in pages] == [100, 30]
    assert [int(number) for page in pages for number in page] == expected


async def test_a_person_has_a_head(browser):
    """Who it is, what they are worth in each currency, with what and from where."""
    found = await browser.page(f"/visitors/{ADA}")

    for said in (
        "Ada Lovelace",
        "customer",
        "ada@example.org",
        "user-1",
        "49.00 EUR",
        "1,200 JPY",
        "Desktop · Firefox on Linux",
        "Phone · Mobile Safari on iOS",
        "Berlin, Germany",
    ):
        assert said in found.text


async def test_first_and_last_source_stand_out(browser):
    """What brought a person first, what brought them last, and the way between."""
    text = (await browser.page(f"/visitors/{ADA}")).text

    assert "First source google / organic Organic search · 30 Oct 2026, 10:00" in text
    assert (
        "Last source that was not direct newsletter / email Email · campaign autumn · 31 Oct 2026, 10:00"
        in text
    )
    assert re.search(r"Every visit’s source google / organic .* newsletter / email autumn .* Direct", text)


async def test_a_timeline_tells_the_story_in_order(browser):
    """Grouped by visit, oldest first, across both devices; the click stands in the visit that it led to."""
    html = (await browser.get(f"/visitors/{ADA}")).text
    told = [
        (Page(visit.split("</h3>")[0]).text, re.findall(r'<span class="done">([^<]+)', visit))
        for visit in html.split('<article class="visit">')[1:]
    ]

    assert [
        (title.partition(" Fri")[0].partition(" Sat")[0].partition(" Sun")[0], done) for title, done in told
    ] == [
        ("Visit 1", ["Viewed"]),
        ("Visit 2", ["Clicked", "Viewed", "Event", "Read", "Lead", "Sale"]),
        ("Visit 3", ["Viewed", "Sale"]),
    ]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("Clicked short link go.example/autumn", id="link"),
        pytest.param("Viewed Tea & cups /tea", id="page"),
        pytest.param("Event Add to cart gift null size 3", id="properties"),
        pytest.param("Read /tea 1m 05s of attention · scrolled 80%", id="engagement"),
        pytest.param(
            "Lead Sign-up First credit: google / organic · Last credit: newsletter / email (autumn)",
            id="lead",
        ),
        pytest.param(
            "Sale order-1 49.00 EUR First credit: google / organic · Last credit: newsletter / email (autumn)",
            id="sale",
        ),
        pytest.param("Sale claim-1 999.00 EUR unverified", id="claim"),
    ],
)
async def test_a_row_says_what_was_done(browser, said):
    """Each kind of event with what belongs to it; a sale that only a browser claims is marked and earns nobody credit."""
    assert said in (await browser.page(f"/visitors/{ADA}")).text


async def test_why_it_is_one_person(browser):
    """The signs, the merge with what matched, and whom the person was kept apart from."""
    text = (await browser.page(f"/visitors/{ADA}")).text

    assert "2 browsers or devices turned out to belong to the same person" in text
    assert (
        "1 Nov 2026, 10:02: Phone · Mobile Safari on iOS 000a12 became Desktop · Firefox on Linux 000a11; "
        "what matched: your own id."
    ) in text
    assert "two external ids" in text
    assert "3 signs that point here" in text
    assert "Browser’s cookie phone-1" in text


async def test_any_members_id_shows_the_person(browser):
    """The telephone's id leads to Ada."""
    assert "Ada Lovelace" in (await browser.page(f"/visitors/{HER_PHONE}")).text


async def test_times_are_in_the_zone_that_was_asked_for(browser):
    """Times are shown in one zone, and machines read the instant."""
    html = (await browser.get(f"/visitors/{ADA}?tz=Asia/Tehran")).text

    assert (
        '<time datetime="2026-10-31T09:04:00+00:00" title="31 Oct 2026, 12:34 Asia/Tehran">12:34:00</time>'
        in html
    )


# What visitors write -------------------------------------------------------------------------------------------------

# ruff: noqa: SIM905 — sixty words read better without their quotes
ELEMENTS = frozenset(
    "a article b body br bdi button code datalist dd details div dl dt footer form h1 h2 h3 head header html input label li "
    "line link main meta nav ol option output p path pre rect script section select small span summary svg table caption "
    "tbody td text th thead time title tr ul".split()
)


def hostile_paths() -> list[str]:
    return ["/", "/?period=today&tz=Asia/Tehran", "/sources", "/pages", "/visitors"] + [
        f"/visitors/{UUID(int=n)}" for n in range(1, len(PAYLOADS) + 1)
    ]


@pytest.mark.parametrize("path", hostile_paths())
async def test_what_a_visitor_writes_stays_a_text(browser, path):
    """Payloads in every field that a visitor can fill make no element, no attribute and no address of their own."""
    found = await browser.page(path, host="hostile.example")

    assert {tag for tag, _ in found.elements} <= ELEMENTS
    names = {name for _, attrs in found.elements for name in attrs}
    assert {name for name in names if name.startswith("on") or name == "style"} == set()
    scripts = [attrs for tag, attrs in found.elements if tag == "script"]
    assert [set(attrs) for attrs in scripts] == [{"defer", "src"}]
    assert [link for link in found.links() if not link.startswith((f"{ROOT}/", "#content"))] == []
    assert "49{%" not in found.text
    assert any(payload in "".join(found.texts) for payload in PAYLOADS)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(
    ("path", "parameter", "before"),
    [
        *[
            ("/visitors", name, "")
            for name in ("period", "from", "to", "tz", "filter", "search", "status", "after")
        ],
        (f"/visitors/{ADA}", "order", ""),
        ("/pages", "filter", "source:is:"),
        ("/pages", "filter", "path:contains_not:"),
    ],
)
async def test_what_is_typed_stays_a_text(browser, path, parameter, before, payload):
    """Payloads in the query string come back as texts."""
    response = await browser.get(path, params={parameter: before + payload})
    found = Page(response.text)

    assert response.status_code in (200, 400)
    assert {tag for tag, _ in found.elements} <= ELEMENTS
    assert not [
        name for _, attrs in found.elements for name in attrs if name.startswith("on") or name == "style"
    ]


async def test_addresses_of_visitors_open_without_a_trace(browser):
    """A page that was viewed is a link that tells nobody where it was clicked."""
    found = await browser.page(f"/visitors/{ADA}")
    outward = [
        attrs for tag, attrs in found.elements if tag == "a" and not attrs["href"].startswith((ROOT, "#"))
    ]

    assert {attrs["href"] for attrs in outward} == {"https://shop.example/tea?x=1", "https://shop.example/"}
    assert {attrs["rel"] for attrs in outward} == {"noreferrer nofollow noopener"}
