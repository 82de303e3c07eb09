"""The dashboard's pages about links and domains, as a browser sees them: over ASGI, on real PostgreSQL."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest
from sqlalchemy import insert

from goodanalytics import Analytics, Config
from goodanalytics.config import Principal
from goodanalytics.core.links import Link
from tests.web.link_site import BROWSER, browser, events, make, site, told
from tests.web.test_dashboard import ELEMENTS, PAYLOADS, Page

HOST = "https://shop.example"
ROOT = "/ga/dashboard"
OURS = {"sec-fetch-site": "same-origin"}
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
# ruff: noqa: SIM905 — as in `test_dashboard`
MORE_ELEMENTS = ELEMENTS | frozenset("code del fieldset img ins legend ol output textarea".split())


@dataclass
class Staff:
    """Somebody who looks at the dashboard."""

    client: httpx.AsyncClient

    async def get(self, path: str, status: int = 200, **options: Any) -> httpx.Response:
        response = await self.client.get(f"{HOST}{ROOT}{path}", **options)
        assert response.status_code == status, response.text
        return response

    async def page(self, path: str, status: int = 200) -> Page:
        return Page((await self.get(path, status)).text)

    async def send(
        self, path: str, values: dict[str, str], status: int = 303, **headers: str
    ) -> httpx.Response:
        response = await self.client.post(f"{HOST}{ROOT}{path}", data=values, headers={**OURS, **headers})
        assert response.status_code == status, response.text
        return response

    async def form(self, path: str) -> dict[str, str]:
        """What a browser would send of the form at *path*, were nothing changed."""
        return filled((await self.get(path)).text)


def filled(html: str) -> dict[str, str]:
    values: dict[str, str] = {}
    form = html[html.index('<form class="form"') : html.index("</form>", html.index('<form class="form"'))]
    for tag, attrs in Page(form).elements:
        if tag == "input" and attrs.get("name"):
            if attrs.get("type") != "checkbox":
                values[attrs["name"]] = attrs.get("value") or ""
            elif "checked" in attrs:
                values[attrs["name"]] = "on"
    for name, inner in re.findall(r'<select id="[^"]*" name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected', inner) or re.search(
            r'<option value="([^"]*)"', inner
        )
        values[name] = chosen[1]
    for name, inner in re.findall(
        r'<textarea id="[^"]*" name="([^"]+)"[^>]*>\n(.*?)</textarea>', form, re.DOTALL
    ):
        values[name] = "".join(Page(inner).texts).replace("\n", "\r\n")
    return values


@pytest.fixture
async def running(config: Config, shared_database_url: str) -> AsyncIterator[Analytics]:
    async with site(shared_database_url, config, dashboard_auth=lambda _: True) as analytics:
        yield analytics


@pytest.fixture
async def staff(running: Analytics) -> AsyncIterator[Staff]:
    transport = httpx.ASGITransport(running.dashboard, root_path=ROOT)
    async with httpx.AsyncClient(transport=transport, headers={"user-agent": BROWSER}) as client:
        yield Staff(client)


async def only(analytics: Analytics) -> Link:
    (link,) = (await analytics.links.list(archived=None)).items
    return link


# The list ------------------------------------------------------------------------------------------------------------


def rows(html: str) -> list[str]:
    return [Page(row).text for row in re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</tr>", html, re.DOTALL)]


def keys(html: str) -> list[str]:
    return re.findall(r"<bdi>go\.example/<b>([^<]+)</b>", html)


async def test_no_links_shows_how_to_begin(staff):
    """An empty list leads to the form; a search without a find does not claim that there are no links."""
    assert f"{ROOT}/links/new" in (await staff.page("/links")).links()
    found = await staff.page("/links?search=nothing")

    assert "No link fits" in found.text
    assert "No links yet" not in found.text


async def test_the_list_tells_what_became_of_each_link(running, staff):
    """Clicks, leads, sales and money of the period, and what is special about a link."""
    await make(running, key="lamp", title="Lamps", tags=["x"], folder="F", password="p", max_clicks=9)
    await make(running, key="sofa", expires_at=NOW - timedelta(days=1))
    async with browser(running) as client:
        await client.get("/lamp")  # is asked for the password, which is no click
        await client.get("/lamp", headers={"user-agent": "Googlebot/2.1"})
    await running.links.update((await running.links.find("go.example", "lamp")).id, password=None)
    await told(running)
    async with browser(running) as client:
        await client.get("/lamp")
    (click,) = [e for e in await events(running) if e["bot"] is None and e["link_id"]]
    sale = {
        **click,
        "id": uuid.uuid4(),
        "event_type": "sale",
        "trusted": True,
        "amount_cents": 4_990,
        "currency": "EUR",
    }
    async with running.database.begin() as conn:
        await conn.execute(insert(running.database.tables.events).values(sale))
    html = (await staff.get("/links")).text

    assert keys(html) == ["lamp", "sofa"]
    assert "Lamps 9 uses F/ x" in rows(html)[0]
    assert "https://shop.example/lamps 1 0 1 49.90 EUR" in rows(html)[0]
    assert "ended" in rows(html)[1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("", ["c", "b", "a"], id="clicks, newer first"),
        pytest.param("?sort=-clicks", ["c", "b", "a"], id="clicks, said"),
        pytest.param("?sort=key", ["a", "b", "c"], id="key"),
        pytest.param("?sort=-created_at", ["c", "b", "a"], id="newest"),
        pytest.param("?sort=created_at", ["a", "b", "c"], id="oldest"),
        pytest.param("?search=LAMP&sort=key", ["a", "b", "c"], id="search for all"),
        pytest.param("?search=example/b", ["b"], id="search for one"),
        pytest.param("?tag=even&sort=key", ["a", "c"], id="tag"),
        pytest.param("?folder=two&sort=key", ["b"], id="folder"),
        pytest.param("?archived=yes", ["old"], id="archived"),
        pytest.param("?archived=all&sort=key", ["a", "b", "c", "old"], id="all"),
        pytest.param("?filter=source:is:x&sort=key", ["a", "b", "c"], id="filters do not matter"),
    ],
)
async def test_the_list_is_searched_and_sorted(running, staff, clock, query, expected):
    """By what the form offers; the choice stands in the form again."""
    for key in "abc":
        await make(
            running, key=key, tags=["odd" if key == "b" else "even"], folder="two" if key == "b" else "one"
        )
        clock.advance(timedelta(minutes=1))
    old = await make(running, key="old")
    await running.links.archive(old)
    html = (await staff.get(f"/links{query}")).text

    assert keys(html) == expected
    for value in re.findall(r"(?:sort|tag|folder|archived)=([^&]+)", query.replace("-clicks", "")):
        assert re.search(rf'<option(?: value="{value}")? selected>(?:{value})?', html)
    (typed,) = re.findall(r'name="search" value="([^"]*)"', html)
    assert typed == (re.findall(r"search=([^&]*)", query) or [""])[0]


async def test_the_order_by_clicks_is_the_same_everywhere(shared_database_url, config, clock):
    """On the page, in REST and in Python, downwards and upwards; a period counts its own clicks."""
    config = dataclasses.replace(
        config,
        dashboard_auth=lambda _: True,
        authenticate=lambda *_: Principal(workspace_id=running.config.workspace),
    )
    async with site(shared_database_url, config) as running, browser(running) as client:
        for key in "abc":
            await make(running, key=key)
        begun = clock.advance(timedelta(days=1))
        for path in ("/b", "/b", "/a"):
            await client.get(path)
        await running.drain()
        ended = clock.advance(timedelta(days=1))
        for path in ("/a", "/a"):
            await client.get(path)
        await running.drain()
        clock.advance(timedelta(hours=1))

        async def asked(path: str, **query: str) -> httpx.Response:
            return await client.get(
                f"https://shop.example/ga{path}", params=query, headers={"Authorization": "Bearer x"}
            )

        page = (await asked("/dashboard/links")).text
        rest = [
            [link["key"] for link in (await asked("/api/links", **query)).json()["data"]]
            for query in (
                {"sort": "-clicks"},
                {"sort": "clicks"},
                {"sort": "-clicks", "from": begun.isoformat(), "to": ended.isoformat()},
            )
        ]
        python = [
            [link.key for link in (await running.links.list(sort=sort, period=period)).items]
            for sort, period in (("-clicks", None), ("clicks", None), ("-clicks", (begun, ended)))
        ]

    assert keys(page) == ["a", "b", "c"]
    assert rest == python == [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"]]


@pytest.mark.parametrize("sort", ["", "key"])
async def test_pages_of_the_list_follow_each_other(running, staff, sort):
    """Every link is on one page, whatever it is sorted by."""
    await running.links.create_many(
        [{"domain": "go.example", "key": f"k{n}", "url": HOST} for n in range(120)]
    )
    seen, path = [], f"/links?sort={sort}"
    while path:
        html = (await staff.get(path)).text
        seen.append(keys(html))
        found = re.search(rf'rel="next" href="{ROOT}([^"]+)"', html)
        path = found[1].replace("&amp;", "&") if found else None

    assert [len(page) for page in seen] == [50, 50, 20]
    assert len({key for page in seen for key in page}) == 120


@pytest.mark.parametrize(
    ("path", "says"),
    [
        pytest.param("/links?sort=luck", "no order", id="order"),
        pytest.param("/links?archived=maybe", "yes or all", id="archived"),
        pytest.param("/links?after=zzz", "cursor", id="cursor"),
        pytest.param("/links?sort=key&after=zzz", "cursor", id="cursor of another order"),
        pytest.param("/links?tz=Mars", "Mars", id="zone"),
    ],
)
async def test_a_wrong_question_is_explained(staff, errors, path, says):
    """400 with the reason; nothing of it is our failure."""
    assert says in (await staff.page(path, 400)).text
    assert errors == []


async def test_a_wrong_domain_can_be_mended(running, staff, errors):
    """What was typed stands in its field again, with the reason beside it; the domains are still shown."""
    await make(running)
    html = (await staff.get("/domains?host=a%2Fb", 400)).text

    assert "This is &#39;a/b&#39;; give a host name" in html
    assert re.search(
        r'<input name="host" value="a/b"[^>]* aria-describedby="wrong" aria-invalid="true"', html
    )
    assert "go.example" in html
    assert errors == []


async def test_a_link_below_a_path_shows_the_address_that_works(running, staff):
    """On the app's own host a link lives below `link_path`: the list and the link's page say so."""
    link = await running.links.create(
        url="https://shop.example/x", domain="shop.example", key="tea", title="T"
    )
    listed, page = (await staff.page("/links")).text, (await staff.page(f"/links/{link.id}")).text

    assert "shop.example/l/tea" in listed
    assert "Short address shop.example/l/tea" in page


@pytest.mark.parametrize(
    "said",
    [
        "shop.example/l/tea",
        "https://shop.example/l/tea",
        "https://shop.example/l/tea?qr=1",
        "/l/tea",
        "shop.example/tea",
    ],
)
async def test_a_link_is_found_by_its_address_as_it_was_copied(running, staff, said):
    """With and without scheme, below the path at which it works, or as domain and key."""
    for key in ("tea", "coffee"):
        await running.links.create(url="https://a.example/x", domain="shop.example", key=key)
    html = (await staff.get(f"/links?search={quote(said)}")).text

    assert re.findall(r"<bdi>shop\.example/l/<b>([^<]+)</b>", html) == ["tea"]


# Making and changing -------------------------------------------------------------------------------------------------


async def test_a_link_is_made_by_its_form(running, staff):
    """What the empty form suggests is enough but for the address; then the page of the link is shown."""
    values = await staff.form("/links/new?tz=Europe/Berlin")
    assert values["domain"] == "go.example"
    response = await staff.send("/links/new?tz=Europe/Berlin", {
        **values, "url": " https://shop.example/a ", "tags": "x, y", "starts_at": "2026-12-01T10:00", "do": "save",
        "rules-0-url": "https://shop.example/de", "rules-0-countries": "de, at", "rules-0-name": "German",
        "variants-0-url": "https://shop.example/1", "variants-1-url": "https://shop.example/2", "variants-1-weight": "3",
    })  # fmt: skip
    link = await only(running)

    assert response.headers["location"] == f"{ROOT}/links/{link.id}?tz=Europe%2FBerlin&saved=yes"
    assert (link.url, link.key, link.tags, link.forward_query) == (
        "https://shop.example/a",
        values["key"],
        ["x", "y"],
        True,
    )
    assert link.starts_at == datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert (link.rules[0].when.countries, [v.weight for v in link.variants]) == (["DE", "AT"], [1, 3])
    (made,) = (await running.links.history(link)).items
    assert made.actor == "dashboard"
    assert "Saved" in (await staff.page(response.headers["location"].removeprefix(ROOT))).text


async def test_nothing_that_was_typed_is_lost(running, staff):
    """A refused form holds every field as it was sent, the password too, and says what is wrong beside the field."""
    sent = await staff.form("/links/new") | {
        "url": "ftp://x", "key": "a b", "title": "<Title>", "notes": "one\r\ntwo", "password": "secret", "cloaked": "on",
        "redirect_status": "308", "rules-0-url": "nowhere", "rules-0-query": "a=1\r\nb", "rules-0-day3": "on", "rules-0-returning": "no",
        "metadata": "{", "expires_at": "2026-12-01T10:00",
    }  # fmt: skip
    del sent["forward_query"]
    html = (await staff.send("/links/new", {**sent, "do": "save"}, 400)).text
    found = Page(html)

    assert filled(html) == sent
    wrong = {attrs["id"] for _, attrs in found.elements if attrs.get("aria-invalid")}
    assert wrong == {"f-url", "f-key", "f-rules-0-url", "f-metadata"}
    described = {i for _, attrs in found.elements for i in (attrs.get("aria-describedby") or "").split()}
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert described <= set(ids)
    assert len(ids) == len(set(ids))
    assert (await running.links.list(archived=None)).items == ()


async def test_every_field_has_a_label(staff):
    """Whoever does not see the form hears what each field is for."""
    found = await staff.page("/links/new")
    named = {attrs["for"] for tag, attrs in found.elements if tag == "label" and "for" in attrs}
    unnamed = [
        attrs["name"]
        for tag, attrs in found.elements
        if tag in ("input", "select", "textarea")
        and attrs.get("type") != "hidden"
        and attrs.get("id") not in named
    ]

    assert [name for name in unnamed if "-day" not in name and name not in ("from", "to", "tz")] == []


@pytest.mark.parametrize(
    ("typed", "field", "says"),
    [
        pytest.param({"key": "taken"}, "key", "is in use", id="address"),
        pytest.param({"key": "robots"}, "key", "every host", id="reserved"),
        pytest.param({"external_id": "crm-1"}, "external_id", "is in use", id="external id"),
        pytest.param({"partner_id": str(uuid.UUID(int=5))}, "partner_id", "partner", id="partner"),
        pytest.param(
            {"starts_at": "2026-12-02T10:00", "expires_at": "2026-12-01T10:00"},
            "expires_at",
            "not after",
            id="ends first",
        ),
        pytest.param({"password": "x" * 129}, "password", "128", id="long password"),
    ],
)
async def test_what_the_catalogue_refuses_is_told_beside_the_field(running, staff, typed, field, says):
    """Also what only the other links can tell."""
    await make(running, key="taken", external_id="crm-1")
    values = {**await staff.form("/links/new"), "url": HOST, **typed}
    html = (await staff.send("/links/new", values, 400)).text

    assert says in re.search(rf'id="e-{field}">([^<]+)', html)[1]
    assert filled(html)[field] == values[field]


async def test_a_changed_link_keeps_what_was_not_changed(running, staff):
    """The history names one field; microseconds, password and metadata stay."""
    ends = NOW + timedelta(days=30, microseconds=123_456)
    link = await make(running, expires_at=ends, password="p", metadata={"a": [1]}, utm_source="s", rules=[
        {"url": HOST, "when": {"after": (NOW + timedelta(microseconds=7)).isoformat()}}])  # fmt: skip
    values = await staff.form(f"/links/{link.id}/edit")
    await staff.send(f"/links/{link.id}/edit", {**values, "title": "New"})
    found = await running.links.get(link)

    assert dataclasses_of(found) == {**dataclasses_of(link), "title": "New", "updated_at": found.updated_at}
    (last, _) = (await running.links.history(link)).items
    assert set(last.changes) == {"title"}


def dataclasses_of(link: Link) -> dict[str, Any]:
    return {name: getattr(link, name) for name in Link.__struct_fields__}


async def test_saving_nothing_changes_nothing(running, staff):
    """No empty entry stands in the history."""
    link = await make(running)
    await staff.send(f"/links/{link.id}/edit", await staff.form(f"/links/{link.id}/edit"))

    assert len((await running.links.history(link)).items) == 1


async def test_what_somebody_else_changed_is_not_written_over_unseen(running, staff, clock):
    """The form comes back with a word about it; sent again, it is taken."""
    link = await make(running)
    values = await staff.form(f"/links/{link.id}/edit") | {"title": "Mine"}
    clock.advance(timedelta(seconds=1))
    await running.links.update(link, title="Theirs")
    html = (await staff.send(f"/links/{link.id}/edit", values, 409)).text

    assert "Somebody changed this link" in html
    assert (await running.links.get(link)).title == "Theirs"
    assert filled(html)["title"] == "Mine"
    await staff.send(f"/links/{link.id}/edit", filled(html))
    assert (await running.links.get(link)).title == "Mine"


@pytest.mark.parametrize(
    ("typed", "has"), [({"password": "new"}, True), ({"remove_password": "on"}, False), ({}, True)]
)
async def test_a_password_is_set_removed_or_left(running, staff, typed, has):
    """It is never in a page, and an empty field leaves it."""
    link = await make(running, password="old-secret")
    values = await staff.form(f"/links/{link.id}/edit")
    assert values["password"] == ""
    await staff.send(f"/links/{link.id}/edit", {**values, **typed})
    found = await running.links.get(link)

    assert found.has_password is has
    assert (found.password_hash == link.password_hash) is (typed == {})


@pytest.mark.parametrize(
    ("do", "field"), [("rules", "rules-1-url"), ("variants", "variants-2-url"), ("preview", "url")]
)
async def test_buttons_without_saving(running, staff, do, field):
    """More rows, or the preview, without JavaScript; nothing is made and nothing is called wrong."""
    values = {**await staff.form("/links/new"), "url": "https://a.example/?x=1", "utm_source": "s", "key": "tea",
              "rules-0-url": "https://b.example/", "variants-0-url": "c", "variants-1-url": "d"}  # fmt: skip
    html = (await staff.send("/links/new", {**values, "do": do}, 200)).text

    assert field in filled(html)
    assert 'role="alert"' not in html
    assert "https://a.example/?x=1&amp;utm_source=s" in html
    assert "https://go.example/tea" in html
    assert (await running.links.list()).items == ()


async def test_a_link_is_archived_by_a_button(running, staff):
    """It stays to be looked at, cannot be changed any more, and its form is gone."""
    link = await make(running)
    await staff.send(f"/links/{link.id}/archive", {})
    found = await staff.page(f"/links/{link.id}?saved=yes")

    assert (await running.links.get(link)).archived_at == NOW
    assert "archived" in found.text
    assert not [href for href in found.links() if href.endswith("/edit")]
    await staff.get(f"/links/{link.id}/edit", 404)
    await staff.send(f"/links/{link.id}/archive", {}, 404)
    (archived, _) = (await running.links.history(link)).items
    assert archived.actor == "dashboard"


@pytest.mark.parametrize(
    "path", ["/links/new", "/links/{id}/edit", "/links/{id}/archive", "/domains/go.example"]
)
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"sec-fetch-site": "cross-site"}, id="another site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="a neighbour"),
        pytest.param({"origin": "https://evil.example"}, id="another origin"),
        pytest.param({}, id="nobody says"),
    ],
)
async def test_only_our_own_page_changes_anything(running, staff, path, headers):
    """Another site can make a browser send a form, with the host's cookies; it is refused."""
    link = await make(running)
    before = (await running.links.list(archived=None)).items
    response = await staff.client.post(
        f"{HOST}{ROOT}{path.format(id=link.id)}",
        headers=headers,
        data={"url": "https://evil.example/", "key": "z", "title": "evil"},
    )

    assert response.status_code == 403
    assert (await running.links.list(archived=None)).items == before
    assert await running.links.domains() == []


@pytest.mark.parametrize(
    "path", ["/links", "/links/new", "/links/{id}", "/links/{id}/edit", "/links/{id}/qr.svg", "/domains"]
)
async def test_links_of_another_workspace_do_not_exist(running, staff, path):
    """Nor do those that nobody has; and whoever may not look sees nothing."""
    other = await running.links.create(url=HOST, domain="go.example", key="theirs", workspace_id=uuid.uuid4())
    response = await staff.client.get(f"{HOST}{ROOT}{path.format(id=other.id)}")
    closed = dataclasses.replace(running.config, dashboard_auth=lambda _: False)
    shut = Analytics(running.database.engine, closed)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shut.dashboard, root_path=ROOT)) as client:
        refused = await client.get(f"{HOST}{ROOT}{path.format(id=other.id)}")

    assert response.status_code == (404 if "{id}" in path else 200)
    assert "theirs" not in response.text
    assert refused.status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"url=" + b"x" * 300_000, id="too long"),
        pytest.param(b"&".join(b"a%d=1" % n for n in range(6_000)), id="too many fields"),
    ],
)
async def test_a_form_is_bounded(staff, errors, body):
    """400, before anything is made of it."""
    headers = {**OURS, "content-type": "application/x-www-form-urlencoded"}
    response = await staff.client.post(f"{HOST}{ROOT}/links/new", content=body, headers=headers)

    assert response.status_code == 400
    assert errors == []


async def test_a_pool_of_one_is_enough(config, shared_database_url):
    """No page about links holds a connection while it asks for another one."""
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(shared_database_url, pool_size=1, max_overflow=0, pool_timeout=5)
    own = dataclasses.replace(
        config, workspace=uuid.uuid4(), dashboard_auth=lambda _: True, link_domains=["go.example"]
    )
    analytics = Analytics(engine, own)
    link = await make(
        analytics, max_clicks=5, variants=[{"url": HOST, "name": "A"}, {"url": HOST, "name": "B"}]
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(analytics.dashboard, root_path=ROOT)
    ) as client:
        for path in (
            "/links",
            "/links?sort=key",
            f"/links/{link.id}",
            f"/links/{link.id}/edit",
            "/links/new",
            "/domains",
        ):
            assert (await client.get(f"{HOST}{ROOT}{path}")).status_code == 200, path
    await engine.dispose()


# A link's page -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def clicked(running: Analytics, clock: Any) -> Link:
    """A split link that three people clicked, one of them twice and one by a code; the first one bought."""
    link = await make(
        running, key="spring", title="Spring", utm_source="news", utm_medium="email", max_clicks=10,
        variants=[{"url": f"{HOST}/1", "name": "A"}, {"url": f"{HOST}/2", "name": "B"}],
        rules=[{"url": f"{HOST}/de", "name": "Germans", "when": {"languages": ["de"]}}],
    )  # fmt: skip
    for number in range(3):
        async with browser(running, address=f"203.0.113.{number}") as client:
            await client.get("/spring" + ("?qr=1" if number == 2 else ""))
            if number == 0:
                clock.advance(timedelta(minutes=1))
                await client.get("/spring")
    async with browser(running, user_agent="Googlebot/2.1 (+http://www.google.com/bot.html)") as client:
        await client.get("/spring")
    return link


def tiles(html: str) -> dict[str, str]:
    found = re.findall(r"<dt>([^<]+)</dt>\s*<dd>(.*?)</dd>", html[html.index('class="tiles"') :], re.DOTALL)
    return {name: Page(value).text for name, value in found[:6]}


async def test_a_links_page_tells_what_became_of_it(running, staff, clicked):
    """Figures, chart, where the clicks came from, rules, variants, clicks one by one, and what was changed."""
    history = await events(running)
    people = [e for e in history if e["bot"] is None and e["link_id"] == clicked.id]
    html = (await staff.get(f"/links/{clicked.id}")).text
    found = Page(html)

    assert tiles(html) == {
        "Clicks": "4",
        "People": "3",
        "QR scans": "1",
        "Leads": "0",
        "Sales": "0",
        "Revenue": "–",
    }
    assert "Sun 1 Nov 2026: 4 clicks, 3 people" in found.texts
    for words in (
        "https://go.example/spring", "4 of 10 uses", "Not counted: ", "People whose language is de are led to https://shop.example/de",
        "Too early to say.", "Short name: spring", "Made", "leads to one of 2 variants", "Visitors Leads Sales Converted",
    ):  # fmt: skip
        assert words in found.text, words
    assert len(people) == 4
    assert len(re.findall(r"<td data-label=\"Who\">", html)) == 4
    assert {f"{ROOT}/visitors/{e['visitor_id']}" for e in people} <= set(found.links())
    with_bots = (await staff.get(f"/links/{clicked.id}?bots=yes")).text
    assert len(re.findall(r"<td data-label=\"Who\">", with_bots)) == 4 + sum(
        e["bot"] is not None and e["link_id"] == clicked.id for e in history
    )


async def test_the_period_and_its_predecessor(running, staff, clicked, clock):
    """Clicks of the period beside those of the time before; the split is told since it began."""
    await events(running)
    clock.advance(timedelta(days=1, hours=1))
    async with browser(running, address="203.0.113.77") as client:
        await client.get("/spring")
    await events(running)
    html = (await staff.get(f"/links/{clicked.id}?period=today")).text

    assert tiles(html)["Clicks"] == "1"
    assert "was 4" in Page(html).text
    assert re.search(r"Since\s+1 Nov 2026, 12:00", Page(html).text)


async def test_clicks_and_changes_have_pages(running, staff, clock):
    """The next page follows the last one; both lists for themselves."""
    link = await make(running)
    for number in range(45):
        clock.advance(timedelta(seconds=1))
        await running.links.update(link, title=f"Title {number}")
    html = (await staff.get(f"/links/{link.id}")).text
    seen = re.findall(r"<ins><bdi>(Title \d+)</bdi></ins>", html)
    following = re.search(rf'rel="next" href="{ROOT}([^"]+changes=[^"]+)"', html)[1].replace("&amp;", "&")
    seen += re.findall(
        r"<ins><bdi>(Title \d+)</bdi></ins>", (await staff.get(following.partition("#")[0])).text
    )

    assert seen == [f"Title {n}" for n in range(44, 4, -1)]


async def test_every_address_of_a_link_page_answers(running, staff, clicked):
    """Pictures and links alike."""
    found = await staff.page(f"/links/{clicked.id}")
    addresses = {
        a
        for _, attrs in found.elements
        for name in ("href", "src")
        if (a := attrs.get(name) or "").startswith(ROOT)
    }
    for address in addresses:
        response = await staff.client.get(urljoin(HOST, address))
        assert response.status_code == 200, address
    assert {urlsplit(address).path.rpartition(".")[2] for address in addresses} >= {"svg", "png", "css", "js"}


async def test_codes_are_pictures_of_the_short_address(running, staff, clicked):
    """The code of a link, and that of one that is not made yet, are the same picture; wrong wishes are explained."""
    svg = await staff.get(f"/links/{clicked.id}/qr.svg")
    preview = await staff.get("/links/preview.svg?domain=go.example&key=spring")
    png = await staff.get(f"/links/{clicked.id}/qr.png?width=400")

    assert svg.content == preview.content
    assert svg.content == await running.links.qr(clicked)
    assert (svg.headers["content-type"], png.headers["content-type"]) == ("image/svg+xml", "image/png")
    assert "default-src 'none'" in svg.headers["content-security-policy"]
    assert png.content.startswith(b"\x89PNG")
    for path in (f"/links/{clicked.id}/qr.gif", f"/links/{clicked.id}/qr.png?width=9999", "/links/preview.svg?domain=a/b&key=x",
                 "/links/preview.svg?domain=go.example&key=%00"):  # fmt: skip
        await staff.get(path, 400)
    await staff.get(f"/links/{uuid.uuid4()}/qr.svg", 404)


async def test_sharing_goes_to_the_networks_own_pages(running, staff):
    """With the short address in each, marked with where it was shared; they learn nothing of the dashboard."""
    link = await make(running, title="A & B")
    found = await staff.page(f"/links/{link.id}")
    outward = [
        attrs for tag, attrs in found.elements if tag == "a" and not attrs["href"].startswith((ROOT, "#"))
    ]

    assert {attrs["rel"] for attrs in outward} == {"noreferrer nofollow noopener"}
    shared = [attrs["href"] for attrs in outward if "go.example" in attrs["href"]]
    assert len(shared) == 11
    assert "https://wa.me/?text=A%20%26%20B%20https%3A%2F%2Fgo.example%2Fa%3Fs%3Dwhatsapp" in shared


async def test_what_anybody_wrote_stays_a_text(running, staff):
    """Payloads in every text of a link, and in every text of a click, make no element, attribute or address of their own."""
    paths = ["/links", "/links?archived=all"]
    for number, bad in enumerate(PAYLOADS):
        texts = dict.fromkeys(
            ("title", "notes", "folder", "utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term", "og_title",
             "og_description"), bad)  # fmt: skip
        plain = "".join(filter(str.isprintable, bad))[:60]
        link = await make(
            running, key=f"k{number}", url=f"{HOST}/?{httpx.QueryParams({'x': bad})}", tags=[bad], metadata={bad: bad},
            external_id=f"{number}{bad}", **texts, variants=[{"url": HOST, "name": bad[:64]}, {"url": HOST, "name": "B"}],
            rules=[{"url": HOST, "name": bad[:64], "when": {"query": {plain: plain}, "traits": {plain: plain}}}],
        )  # fmt: skip
        await running.links.update(link, title=f"{bad} again", actor=bad)
        async with browser(
            running, referer=f"https://{number}.example/{httpx.QueryParams({'x': bad})}"
        ) as client:
            await client.get(
                f"/k{number}", params={"utm_source": bad, "utm_medium": bad, "utm_campaign": bad, bad: bad}
            )
        paths += [f"/links/{link.id}", f"/links/{link.id}/edit"]
    await events(running)
    for path in paths:
        found = await staff.page(path)
        assert {tag for tag, _ in found.elements} <= MORE_ELEMENTS, path
        names = {name for _, attrs in found.elements for name in attrs}
        assert {name for name in names if name.startswith("on") or name == "style"} == set()
        assert [
            attrs for tag, attrs in found.elements if tag == "script" and set(attrs) != {"defer", "src"}
        ] == []
        assert [
            href for href in found.links() if not href.startswith((ROOT, "#", "https://", "mailto:"))
        ] == []
        assert "49{%" not in found.text


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_what_is_typed_stays_a_text(running, staff, payload):
    """In the search, in every field of a form, and in the fields' own names."""
    for path in ("/links?search=", "/links?tag=", "/links?folder=", "/links?sort=", "/domains?host="):
        response = await staff.client.get(f"{HOST}{ROOT}{path}{quote(payload)}")
        assert {tag for tag, _ in Page(response.text).elements} <= MORE_ELEMENTS
    sent = dict.fromkeys(await staff.form("/links/new"), payload)
    html = (
        await staff.send(
            "/links/new", {**sent, payload: payload, f"rules-1-{payload}": "x", "do": payload}, 200
        )
    ).text
    refused = (await staff.send("/links/new", {**sent, "do": "save"}, 400)).text
    for text in (html, refused):
        found = Page(text)
        assert {tag for tag, _ in found.elements} <= MORE_ELEMENTS
        assert not [
            name for _, attrs in found.elements for name in attrs if name.startswith("on") or name == "style"
        ]
        assert filled(text)["url"] == payload.strip() or filled(text)["url"] == payload


# Domains -------------------------------------------------------------------------------------------------------------


async def test_domains_are_those_with_links_settings_or_a_name_in_the_config(running, staff):
    """Each with what holds for it."""
    await make(running, domain="other.example", key="x")
    await running.links.set_domain("third.example", case_sensitive=False, root_url=HOST)
    html = (await staff.get("/domains")).text

    assert re.findall(rf'href="{ROOT}/domains/([^"]+)"', html) == [
        "go.example",
        "other.example",
        "third.example",
    ]
    assert "third.example no links yet https://shop.example – – A and a are the same –" in Page(html).text


async def test_a_domain_is_set_by_its_form(running, staff):
    """Addresses, the case rule and apps; sent back unchanged, nothing is written."""
    values = await staff.form("/domains/go.example")
    finger = ":".join(["AB"] * 32)
    await staff.send("/domains/go.example", {
        **values, "root_url": HOST, "folded": "on", "ios_app_ids": "ABCDE12345.com.example.app\r\n",
        "android_apps": f"com.example.app {finger}, {finger.lower()}\r\n\r\n",
    })  # fmt: skip
    domain = await running.links.get_domain("go.example")
    again = await staff.form("/domains/go.example")
    await staff.send("/domains/go.example", again)

    assert (domain.root_url, domain.case_sensitive) == (HOST, False)
    assert domain.ios_app_ids == ["ABCDE12345.com.example.app"]
    assert domain.android_apps[0].sha256_fingerprints == [finger, finger]
    found = await running.links.get_domain("go.example")
    assert (found.root_url, found.case_sensitive, found.android_apps) == (HOST, False, domain.android_apps)


async def test_a_refused_domain_keeps_what_was_typed(running, staff):
    """Every reason stands beside its field; two links that would become one are named."""
    await make(running, key="Tea")
    await make(running, key="tea")
    typed = {
        "root_url": "nowhere",
        "not_found_url": HOST,
        "expired_url": "",
        "ios_app_ids": "app",
        "android_apps": "x y",
    }
    html = (await staff.send("/domains/go.example", typed, 400)).text
    wrong = {attrs["id"] for _, attrs in Page(html).elements if attrs.get("aria-invalid")}

    assert wrong == {"f-root_url", "f-ios_app_ids", "f-android_apps"}
    assert filled(html) == typed
    clash = (await staff.send("/domains/go.example", {"folded": "on"}, 400)).text
    assert "Tea and tea" in re.search(r'id="e-folded">([^<]+)', clash)[1]
    assert (await running.links.get_domain("go.example")).created_at is None


@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        pytest.param("go.example", False, id="a link domain"),
        pytest.param("shop.example", True, id="the app's own host"),
    ],
)
async def test_a_domains_page_tells_what_takes_no_effect(staff, host, is_told):
    """The root of the app's own host and the files for apps are the app's: to set them there does nothing."""
    assert ("takes effect on a link domain only" in (await staff.page(f"/domains/{host}")).text) is is_told


async def test_a_domain_that_leads_to_itself_is_refused_at_its_field(staff):
    """With what was typed."""
    html = (await staff.send("/domains/go.example", {"not_found_url": "https://go.example/404"}, 400)).text

    assert "This is &#39;https://go.example/404&#39;, which is a short address of this domain" in html
    assert 'value="https://go.example/404"' in html


async def test_a_new_domain_begins_with_its_name(staff):
    """The name leads to its form; case and the dot at the end do not matter."""
    response = await staff.get("/domains?host=New.Example.", 303)

    assert response.headers["location"] == f"{ROOT}/domains/new.example"
