"""`/partners` over HTTP, and the cookie of those who come by a partner's link."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from goodanalytics import Analytics, Config
from goodanalytics.config import Principal
from goodanalytics.core import tokens

KEYS = {
    "server": Principal(name="shop server"),
    "page": Principal(key_type="publishable"),
    "elsewhere": Principal(workspace_id=uuid.UUID(int=9)),
}
ADA = {"code": "Ada", "name": "Ada", "commission": {"kind": "percent", "value": 1000}}
PEOPLE = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    settings = dataclasses.replace(
        config, worker=False, link_domains=["go.test"], authenticate=lambda token, _: KEYS.get(token)
    )
    async with Analytics(database_url, settings) as running:
        yield running


@pytest.fixture
async def api(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer server"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(analytics.api), base_url="http://shop.test", headers=headers
    ) as client:
        yield client


@pytest.fixture
async def browser(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(analytics.redirect),
        base_url="https://go.test",
        headers={"user-agent": PEOPLE},
    ) as client:
        yield client


async def test_a_partner_is_made_read_changed_and_closed(api):
    """201, 200, 200, 204; closed is read by the id; the answer has no workspace and no password of anybody."""
    made = await api.post("/partners", json={**ADA, "email": "Ada@X.test", "metadata": {"tier": 1}})
    path = f"/partners/{made.json()['id']}"
    changed = await api.patch(path, json={"status": "paused", "email": None, "commission": {"value": 500}})
    closed = await api.delete(path)
    found = await api.get(path)
    listed = await api.get("/partners", params={"status": "closed"})

    assert [r.status_code for r in (made, changed, closed, found)] == [201, 200, 204, 200]
    assert made.json() | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "", "code": "Ada", "name": "Ada", "email": "ada@x.test", "external_id": None, "visitor_id": None,
        "status": "active", "metadata": {"tier": 1}, "created_at": "", "updated_at": "",
        "commission": {"kind": "percent", "value": 1000, "currency": None, "on": "sale", "window_days": None},
    }  # fmt: skip
    assert (changed.json()["status"], changed.json()["email"]) == ("paused", None)
    assert listed.json() == {"data": [found.json()], "page": {"next_cursor": None, "has_more": False}}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "", {"name": "no code"}, (422, "code")),
        ("POST", "", {**ADA, "code": "a b"}, (422, "code")),
        ("POST", "", {**ADA, "commission": {"value": 10_001}}, (422, "commission.value")),
        ("POST", "", {**ADA, "commission": {"kind": "fixed", "value": 5}}, (422, "commission")),
        ("POST", "", {**ADA, "rate": 5}, (422, "rate")),
        ("POST", "", {**ADA, "code": "ADA"}, (409, "")),
        ("PATCH", "/{id}", {"status": "gone"}, (422, "status")),
        ("PATCH", "/{id}", {"code": None}, (422, "code")),
        ("PATCH", "/nobody", {}, (404, "")),
        ("PATCH", f"/{uuid.UUID(int=5)}", {"name": "x"}, (404, "")),
        ("DELETE", f"/{uuid.UUID(int=5)}", None, (404, "")),
        ("GET", "/{id}/commissions?kind=both", None, (422, "kind")),
        ("GET", "/{id}/stats?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", None, (422, "to")),
        ("GET", f"/{uuid.UUID(int=5)}/stats", None, (404, "")),
        ("GET", f"/{uuid.UUID(int=5)}/commissions", None, (404, "")),
        ("PATCH", "/{id}/commissions/x", {"status": "void"}, (404, "")),
        ("PATCH", f"/{{id}}/commissions/{uuid.UUID(int=5)}", {"status": "void"}, (404, "")),
    ],
)
async def test_what_is_wrong_is_told_with_its_place(api, method, path, body, expected):
    """One status and one place each."""
    known = (await api.post("/partners", json=ADA)).json()["id"]
    answer = await api.request(method, "/partners" + path.replace("{id}", known), json=body)
    problem = answer.json()

    assert (answer.status_code, next((e["loc"] for e in problem.get("errors", [])), "")) == expected


async def test_a_workspace_sees_its_own_and_pages_see_nothing(api):
    """404 for another workspace's key, 403 for a publishable one."""
    path = f"/partners/{(await api.post('/partners', json=ADA)).json()['id']}"
    elsewhere = await api.get(path, headers={"Authorization": "Bearer elsewhere"})
    page = await api.get(path, headers={"Authorization": "Bearer page"})

    assert (elsewhere.status_code, page.status_code) == (404, 403)


async def test_from_the_click_to_the_approved_commission(api, browser, analytics):
    """What a browser does, what the host sells, and what the partner is told, in the order in which it happens."""
    made = (await api.post("/partners", json=ADA)).json()
    path = f"/partners/{made['id']}"
    link = await analytics.links.create(url="https://shop.test/", key="a", partner_id=uuid.UUID(made["id"]))
    clicked = await browser.get(f"/{link.key}")
    await analytics.drain()
    person = await analytics.resolve({"anonymous_id": clicked.cookies["_ga_anon"]})
    analytics.config.clock.advance(timedelta(minutes=5))
    await analytics.sale(person, amount_cents=4995, currency="EUR", key="order-1")
    entries = (await api.get(f"{path}/commissions")).json()["data"]
    reviewed = await api.patch(f"{path}/commissions/{entries[0]['id']}", json={"status": "approved"})
    stats = (await api.get(f"{path}/stats")).json()
    other = (await api.post("/partners", json={**ADA, "code": "bob"})).json()["id"]
    not_theirs = await api.patch(f"/partners/{other}/commissions/{entries[0]['id']}", json={"status": "void"})

    assert [(e["amount_cents"], e["currency"], e["base_cents"], e["status"]) for e in entries] == [
        (500, "EUR", 4995, "pending")
    ]
    assert (reviewed.json()["status"], reviewed.json()["reviewed_by"]) == ("approved", "shop server")
    assert (stats["clicks"], stats["visitors"], stats["sales"], stats["revenue"]) == (1, 1, 1, {"EUR": 4995})
    assert stats["earnings"][0]["approved_cents"] == 500
    assert not_theirs.status_code == 404


async def test_the_tracker_reports_a_code_like_a_link(api, analytics):
    """`/t/click` answers with a click's id that the landing then has; an unknown and a closed partner's code are 404."""
    made = (await api.post("/partners", json=ADA)).json()
    gone = await analytics.partners.create(code="gone", name="Gone")
    await analytics.partners.close(gone)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(analytics.tracker),
        base_url="https://shop.test",
        headers={"user-agent": PEOPLE},
    ) as page:
        told = await page.post("/t/click", json={"key": "ADA", "url": "https://shop.test/p?via=ADA"})
        bare = await page.post("/t/click", json={"key": "ada"})
        wrong = [
            (await page.post("/t/click", json={"key": key})).status_code for key in ("gone", "eve", "a'b")
        ]
    await analytics.drain()
    person = await analytics.resolve({"anonymous_id": told.cookies["_ga_anon"]})
    found = await analytics.partners.referred(person)

    assert [r.status_code for r in (told, bare)] == [200, 200]
    assert wrong == [404, 404, 404]
    assert (str(found.first.partner_id), str(found.first.event_id)) == (made["id"], told.json()["ga_id"])
    assert str(found.last.event_id) == bare.json()["ga_id"]


class TestCookie:
    @pytest.fixture
    async def partner(self, analytics):
        return await analytics.partners.create(code="ada", name="Ada")

    async def test_a_partners_link_sets_it(self, analytics, browser, partner):
        """Signed, HttpOnly, for as long as cookies last; it names the partner to pages that ask."""
        await analytics.links.create(url="https://shop.test/", key="a", partner_id=partner.id)
        answer = await browser.get("/a")
        (written,) = [v for v in answer.headers.get_list("set-cookie") if v.startswith("_ga_ref=")]
        token = answer.cookies["_ga_ref"]

        assert written.endswith("; HttpOnly; Max-Age=7776000; Path=/; SameSite=Lax; Secure")
        assert await analytics.partners.by_token(token) == partner

    async def test_it_is_worth_nothing_elsewhere_later_or_changed(self, analytics, browser, partner):
        """Another workspace, a token for another use, a changed one, a partner who is paused, a day too late."""
        await analytics.links.create(url="https://shop.test/", key="a", partner_id=partner.id)
        token = (await browser.get("/a")).cookies["_ga_ref"]
        claims = {"workspace_id": str(analytics.config.workspace), "partner_id": str(partner.id)}
        forged = tokens.sign(
            analytics.config.secret_key, "unlock", claims, analytics.config.clock.now, timedelta(days=1)
        )
        read = analytics.partners.by_token
        found = [
            await read(token, workspace_id=uuid.UUID(int=9)), await read(forged), await read(token[:-2] + "AA"),
            await read("x"), await read(""), await read(None),
        ]  # fmt: skip
        await analytics.partners.pause(partner)
        found.append(await read(token))
        await analytics.partners.update(partner, status="active")
        analytics.config.clock.advance(timedelta(days=91))
        found.append(await read(token))

        assert found == [None] * 8

    @pytest.mark.parametrize(
        ("method", "headers"),
        [("HEAD", {}), ("GET", {"sec-gpc": "1"}), ("GET", {"user-agent": "Googlebot/2.1"}), ("GET", {"sec-purpose": "prefetch"})],
        ids=["HEAD", "privacy", "bot", "prefetch"],
    )  # fmt: skip
    async def test_who_did_not_come_gets_none(self, analytics, browser, partner, method, headers):
        """Only a person's click does."""
        await analytics.links.create(url="https://shop.test/", key="a", partner_id=partner.id)

        assert "_ga_ref" not in (await browser.request(method, "/a", headers=headers)).cookies

    async def test_other_links_set_none(self, analytics, browser):
        """A link without a partner."""
        await analytics.links.create(url="https://shop.test/", key="a")

        assert "_ga_ref" not in (await browser.get("/a")).cookies
