"""The dashboard's pages about partners, as a browser sees them: over ASGI, on real PostgreSQL."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select

from goodanalytics import Analytics, Config
from goodanalytics.core.partners import Partner
from goodanalytics.web.dashboard.words import amounts, count, money
from tests.web.link_site import BROWSER, browser, make, site
from tests.web.test_dashboard import PAYLOADS, Page
from tests.web.test_dashboard_links import HOST, MORE_ELEMENTS, ROOT, Staff, filled

TEN = {"kind": "percent", "value": 1_000}
ADA = {"name": "Ada", "code": "ada", "value": "10"}


@pytest.fixture
async def running(config: Config, shared_database_url: str) -> AsyncIterator[Analytics]:
    settings = {"dashboard_auth": lambda _: True, "workspaces": {"other.example": uuid.uuid4()}}
    async with site(shared_database_url, config, **settings) as analytics:
        yield analytics


@pytest.fixture
async def staff(running: Analytics) -> AsyncIterator[Staff]:
    async with at_the_desk(running) as found:
        yield found


@asynccontextmanager
async def at_the_desk(analytics: Analytics, **headers: str) -> AsyncIterator[Staff]:
    transport = httpx.ASGITransport(analytics.dashboard, root_path=ROOT)
    async with httpx.AsyncClient(transport=transport, headers={"user-agent": BROWSER, **headers}) as client:
        yield Staff(client)


async def partner(analytics: Analytics, code: str = "ada", **fields: Any) -> Partner:
    return await analytics.partners.create(
        **{"code": code, "name": code.title(), "commission": TEN, **fields}
    )


async def sold(analytics: Analytics, who: Partner, *orders: tuple[int, str]) -> None:
    """Somebody comes by a link of *who* and buys, a minute between the orders: each an amount and its currency."""
    link = await make(analytics, key=f"to-{who.code}", partner_id=who.id)
    async with browser(analytics) as client:
        answer = await client.get(f"/{link.key}")
    await analytics.drain()
    person = await analytics.resolve({"anonymous_id": answer.cookies["_ga_anon"]})
    for number, (cents, currency) in enumerate(orders):
        analytics.config.clock.advance(timedelta(minutes=1))
        await analytics.sale(person, amount_cents=cents, currency=currency, key=f"{who.code}-{number}")


async def only(analytics: Analytics) -> Partner:
    (found,) = (await analytics.partners.list()).items
    return found


def rows(html: str) -> list[str]:
    """The rows of the page's tables, as text."""
    return [
        Page(row).text for row in re.findall(r"<tr[^>]*>\s*(<th scope=\"row\">.*?)</tr>", html, re.DOTALL)
    ]


# The list ------------------------------------------------------------------------------------------------------------


async def test_no_partners_shows_what_one_is_for(staff):
    """An empty list leads to the form; a search without a find does not claim that there are no partners."""
    empty, found = await staff.page("/partners"), await staff.page("/partners?search=nothing")

    assert "earns a share of what these buy" in empty.text
    assert f"{ROOT}/partners/new" in empty.links()
    assert "No partner fits" in found.text
    assert "No partners yet" not in found.text


async def test_partners_are_reached_from_the_links(staff):
    """And say that they belong there."""
    links, partners = await staff.page("/links"), await staff.page("/partners")
    current = [attrs["href"] for tag, attrs in partners.elements if attrs.get("aria-current") == "true"]

    assert f"{ROOT}/partners" in links.links()
    assert f"{ROOT}/links" in current


async def test_the_list_has_the_facades_figures(running, staff):
    """Of the period that is asked for, each currency by itself; of this workspace's partners only."""
    ada, bob = await partner(running), await partner(running, "bob", status="paused")
    await partner(running, "eve", workspace_id=uuid.uuid4())
    await sold(running, ada, (4_990, "EUR"), (1_000, "USD"))
    totals = await running.partners.totals([ada, bob])
    shown = rows((await staff.get("/partners")).text)
    long_ago = rows((await staff.get("/partners?from=2020-01-01&to=2020-01-31")).text)

    one = totals[ada.id]
    assert (one.visitors, one.sales, one.revenue) == (1, 2, {"EUR": 4_990, "USD": 1_000})
    money_of = [
        " · ".join(amounts(one.revenue)),
        " · ".join(amounts({e.currency: e.net_cents for e in one.earnings})),
    ]
    assert shown == [
        "Bob Paused bob 10% of each sale within 90 days 0 0 0 – – Sun 1 Nov 2026",
        f"Ada ada 10% of each sale within 90 days 1 0 2 {' '.join(money_of)} Sun 1 Nov 2026",
    ]
    assert "4.99 EUR · 1.00 USD" in shown[1]
    assert "0 0 0 – –" in long_ago[1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("?search=ADA", ["Ada"], id="code"),
        pytest.param("?search=x.test", ["Bob"], id="e-mail"),
        pytest.param("?search=%25", [], id="no pattern"),
        pytest.param("?status=paused", ["Bob"], id="status"),
        pytest.param("?status=active&search=b", [], id="both"),
        pytest.param("?search=", ["Bob", "Ada"], id="all"),
    ],
)
async def test_the_list_is_searched_and_chosen_by_status(running, staff, query, expected):
    """By a part of the name, the code or the address; what was typed stays."""
    await partner(running)
    await partner(running, "bob", email="bob@x.test", status="paused")

    assert [row.split()[0] for row in rows((await staff.get(f"/partners{query}")).text)] == expected


async def test_the_list_is_walked_page_by_page(running, staff):
    """Each partner once, the newest first; a filter stays on the way."""
    for number in range(51):
        await partner(running, f"p{number:02}")
    first = Page((await staff.get("/partners?search=p")).text)
    (following,) = [attrs["href"] for _, attrs in first.elements if attrs.get("rel") == "next"]
    second = (await staff.get(following.removeprefix(ROOT))).text

    assert "search=p" in following
    assert [row.split()[0] for row in rows(second)] == ["P00"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/partners?status=gone", 400),
        ("/partners?after=x", 400),
        ("/partners/{id}?status=gone", 400),
        ("/partners/{id}?kind=gone", 400),
        ("/partners/{id}?after=x", 400),
        ("/partners/nobody", 404),
        (f"/partners/{uuid.UUID(int=5)}", 404),
        ("/links?partner=nobody", 404),
    ],
)
async def test_whatever_is_asked_the_answer_is_a_page(running, staff, path, status):
    """It says what is wrong."""
    one = await partner(running)

    assert "<h1" in (await staff.get(path.replace("{id}", str(one.id)), status)).text


# The form ------------------------------------------------------------------------------------------------------------


async def test_a_partner_is_made_by_the_form(running, staff):
    """What was typed is kept; the browser is led to the partner's page."""
    values = {
        **await staff.form("/partners/new"), "name": "Ada Lovelace", "code": "Ada", "kind": "fixed", "value": "4.90",
        "currency": "eur", "on": "lead", "window_days": "30", "email": "Ada@X.test", "external_id": "crm-1",
        "visitor_id": str(uuid.UUID(int=3)), "metadata": '{"tier": 1}',
    }  # fmt: skip
    made = await staff.send("/partners/new", values)
    one = await only(running)
    told = {
        name: getattr(one, name)
        for name in ("name", "code", "email", "external_id", "visitor_id", "metadata")
    }

    assert made.headers["location"] == f"{ROOT}/partners/{one.id}?saved=yes"
    assert told == {
        "name": "Ada Lovelace", "code": "Ada", "email": "ada@x.test", "external_id": "crm-1",
        "visitor_id": uuid.UUID(int=3), "metadata": {"tier": 1},
    }  # fmt: skip
    assert (one.commission.kind, one.commission.value, one.commission.currency) == ("fixed", 490, "EUR")
    assert (one.commission.on, one.commission.window_days) == ("lead", 30)
    page = await staff.page(f"/partners/{one.id}")
    assert "4.90 EUR for each lead within 30 days" in page.text
    assert f"{ROOT}/visitors/{uuid.UUID(int=3)}" in page.links()


async def test_a_refused_form_keeps_what_was_typed(running, staff):
    """Every reason stands beside its field and is told at once; nothing is made."""
    typed = {**await staff.form("/partners/new"), "name": "Ada", "code": "a b", "value": "120", "email": "nobody",
             "metadata": "{", "window_days": "30"}  # fmt: skip
    html = (await staff.send("/partners/new", typed, 400)).text
    found = Page(html)

    wrong = {attrs["id"] for _, attrs in found.elements if attrs.get("aria-invalid") == "true"}
    assert wrong == {"f-code", "f-value", "f-email", "f-metadata"}
    assert filled(html) == typed
    described = {i for _, attrs in found.elements for i in (attrs.get("aria-describedby") or "").split()}
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert described <= set(ids)
    assert len(ids) == len(set(ids))
    assert (await running.partners.list()).items == ()


@pytest.mark.parametrize(
    ("field", "says"), [("code", "Choose another one"), ("external_id", "an id of their own")]
)
async def test_what_is_another_partners_is_told_beside_the_field(running, staff, field, says):
    """On both forms, with what was typed."""
    await partner(running, "taken", external_id="crm-1")
    bob = await partner(running, "bob")
    typed = {"code": "TAKEN", "external_id": "crm-1"}
    for path in ("/partners/new", f"/partners/{bob.id}/edit"):
        values = {**await staff.form(path), **({"code": "free", **ADA} if path.endswith("new") else {})}
        values |= {field: typed[field]}
        html = (await staff.send(path, values, 400)).text

        assert says in re.search(rf'id="e-{field}">([^<]+)', html)[1]
        assert filled(html)[field] == typed[field]
    assert await running.partners.get(bob) == bob


async def test_a_changed_partner_keeps_what_was_not_changed(running, staff, clock):
    """A form that is sent back as it came writes nothing at all."""
    one = await partner(
        running, email="ada@x.test", external_id="crm-1", metadata={"a": [1]}, status="paused",
        commission={**TEN, "value": 1_250, "currency": "EUR"},
    )  # fmt: skip
    path = f"/partners/{one.id}/edit"
    clock.advance(timedelta(minutes=1))
    await staff.send(path, await staff.form(path))
    same = await running.partners.get(one)
    await staff.send(path, {**await staff.form(path), "name": "Countess", "value": "20", "external_id": ""})
    changed = await running.partners.get(one)

    assert same == one
    assert (changed.name, changed.commission.value, changed.commission.currency) == ("Countess", 2_000, "EUR")
    assert (changed.email, changed.metadata, changed.status) == (one.email, one.metadata, one.status)
    assert (one.external_id, changed.external_id) == ("crm-1", None)


async def test_what_somebody_else_changed_is_not_written_over_unseen(running, staff, clock):
    """The form comes back with a word about it; sent again, it is taken."""
    one = await partner(running)
    path = f"/partners/{one.id}/edit"
    values = {**await staff.form(path), "name": "Mine"}
    clock.advance(timedelta(seconds=1))
    await running.partners.update(one, commission={**TEN, "value": 500})
    html = (await staff.send(path, values, 409)).text
    between = await running.partners.get(one)
    await staff.send(path, filled(html))
    found = await running.partners.get(one)

    assert "Somebody changed this partner" in html
    assert (between.name, between.commission.value) == ("Ada", 500)
    assert (found.name, found.commission.value) == ("Mine", 1_000)


async def test_every_field_has_a_label(staff):
    """Whoever does not see the form hears what each field is for."""
    html = (await staff.get("/partners/new")).text
    named = set(re.findall(r'<label for="([^"]+)"', html))

    assert named == {f"f-{name}" for name in filled(html)}


# The partner's page --------------------------------------------------------------------------------------------------


async def test_figures_and_ledger_are_the_facades(running, staff):
    """Tiles and earnings of the period, the ledger of all time; amounts with their currency, refunds below zero."""
    ada = await partner(running, email="ada@x.test")
    await sold(running, ada, (4_990, "EUR"), (1_000, "USD"))
    running.config.clock.advance(timedelta(minutes=1))
    await running.refund("ada-0", amount_cents=2_000)
    stats = await running.partners.stats(ada)
    entries = (await running.partners.commissions(ada)).items
    html = (await staff.get(f"/partners/{ada.id}")).text
    before = Page((await staff.get(f"/partners/{ada.id}?from=2020-01-01&to=2020-01-31")).text).text

    tiles = Page(html[html.index('class="tiles"') : html.index('id="earned"')]).text
    for name, number in (("Clicks", stats.clicks), ("Visitors", stats.visitors), ("Sales", stats.sales)):
        assert f"{name} {count(number)} " in tiles
    assert f"Revenue {''.join(amounts(stats.revenue))}" in tiles
    assert "Earned 2.99 EUR1.00 USD" in tiles
    assert [e.amount_cents for e in entries] == [-200, 100, 499]
    shown = rows(html)
    assert shown[:2] == [
        "EUR 4.99 EUR 2.00 EUR 2.99 EUR 2.99 EUR – –",
        "USD 1.00 USD – 1.00 USD 1.00 USD – –",
    ]
    assert [money(e.amount_cents, e.currency) in row for e, row in zip(entries, shown[2:], strict=True)] == [
        True
    ] * 3
    assert [re.search(r"Refund|Sale", row)[0] for row in shown[2:]] == ["Refund", "Sale", "Sale"]
    assert "Sales 0" in before
    assert "−2.00 EUR" in before


async def test_the_ledger_is_narrowed_and_walked(running, staff):
    """By status and kind; both stay on the way to earlier entries."""
    ada = await partner(running)
    await sold(running, ada, *([(1_000, "EUR")] * 26))
    await running.refund("ada-0")
    path = f"/partners/{ada.id}"

    def earned(html: str) -> int:
        return len(re.findall(r'<tr id="c-', html))

    (following,) = re.findall(r'rel="next" href="([^"]+)"', (await staff.get(f"{path}?kind=earned")).text)
    told = {
        query: earned((await staff.get(path + query)).text)
        for query in ("", "?kind=reversed", "?status=approved", "?status=pending&kind=earned")
    }

    assert told == {"": 25, "?kind=reversed": 1, "?status=approved": 0, "?status=pending&kind=earned": 25}
    assert "kind=earned" in following
    assert earned((await staff.get(following.replace("&amp;", "&").removeprefix(ROOT))).text) == 1


async def test_commissions_are_reviewed(running, staff):
    """Approved, void with a reason, left to the rules again; the ledger stays as it was narrowed, the audit knows."""
    ada = await partner(running)
    await sold(running, ada, (1_000, "EUR"))
    (entry,) = (await running.partners.commissions(ada)).items
    path = f"/partners/{ada.id}/commissions/{entry.id}"
    done = await staff.send(f"{path}?period=7d&kind=earned", {"to": "void", "reason": "bought it back"})
    (void,) = (await running.partners.commissions(ada)).items
    shown = rows((await staff.get(f"/partners/{ada.id}?status=void")).text)[-1]
    await staff.send(path, {"to": "approved"})
    (approved,) = (await running.partners.commissions(ada)).items
    await staff.send(path, {"to": "pending"})
    (again,) = (await running.partners.commissions(ada)).items

    assert done.headers["location"] == f"{ROOT}/partners/{ada.id}?period=7d&kind=earned#ledger"
    assert (void.status, void.reason, void.reviewed_by) == ("void", "bought it back", "dashboard")
    assert "Void bought it back 1 Nov 2026, 12:01 by dashboard" in shown
    assert (approved.status, approved.reason) == ("approved", None)
    assert (again.status, again.reviewed_at) == ("pending", None)
    audit = running.database.tables.audit
    async with running.database.connect() as conn:
        noted = await conn.execute(select(audit.c.actor).where(audit.c.subject == str(entry.id)))
        assert noted.scalars().all() == ["dashboard"] * 3


async def test_a_partner_is_paused_closed_and_opened_again(running, staff):
    """By the buttons that their page offers."""
    ada = await partner(running)
    path = f"/partners/{ada.id}"
    seen = []
    for to in ("paused", "closed", "active"):
        offered = re.findall(r'name="to" value="(\w+)"', (await staff.get(path)).text)
        await staff.send(f"{path}/status", {"to": to})
        seen.append((offered, (await running.partners.get(ada)).status))

    assert seen == [
        (["paused", "closed"], "paused"),
        (["active", "closed"], "closed"),
        (["active"], "active"),
    ]
    await staff.send(f"{path}/status", {"to": "gone"}, 400)


# Who may -------------------------------------------------------------------------------------------------------------


PATHS = ["/partners/{id}", "/partners/{id}/edit", "/links?partner={id}"]
POSTS = ["/partners/{id}/edit", "/partners/{id}/status", "/partners/{id}/commissions/{entry}"]
TYPED = {**ADA, "kind": "percent", "on": "sale", "to": "void"}


async def test_another_workspaces_partner_is_not_there(running, staff):
    """404 to look at and to change; nor is another partner's commission theirs."""
    elsewhere = await partner(running, workspace_id=uuid.uuid4())
    ada, bob = await partner(running), await partner(running, "bob")
    await sold(running, ada, (1_000, "EUR"))
    (entry,) = (await running.partners.commissions(ada)).items
    for path in PATHS:
        assert (
            "There is no such partner" in (await staff.get(path.replace("{id}", str(elsewhere.id)), 404)).text
        )
    for path in POSTS:
        await staff.send(path.format(id=elsewhere.id, entry=entry.id), TYPED, 404)
    await staff.send(f"/partners/{bob.id}/commissions/{entry.id}", {"to": "void"}, 404)
    await staff.send(f"/partners/{ada.id}/commissions/x", {"to": "void"}, 404)

    assert (await running.partners.commissions(ada)).items == (entry,)
    assert await running.partners.get(elsewhere, workspace_id=elsewhere.workspace_id) == elsewhere


async def test_each_host_has_its_own_partners(running, staff):
    """What is made, changed, listed and chosen on a host is of its workspace, whichever is the one by default."""
    (other,) = running.config.workspaces.values()
    theirs = await partner(running, "theirs", workspace_id=other)
    async with at_the_desk(running, host="other.example") as elsewhere:
        await elsewhere.send("/partners/new", {**await elsewhere.form("/partners/new"), **ADA})
        path = f"/partners/{theirs.id}"
        await elsewhere.send(f"{path}/edit", {**await elsewhere.form(f"{path}/edit"), "name": "New"})
        await elsewhere.send(f"{path}/status", {"to": "paused"})
        listed = rows((await elsewhere.get("/partners")).text)
        begun = (await elsewhere.get("/links/new")).text
        narrowed = await elsewhere.page(f"/links?partner={theirs.id}")
    found = await running.partners.get(theirs, workspace_id=other)

    assert (found.name, found.status) == ("New", "paused")
    assert [row.split()[0] for row in listed] == ["Ada", "New"]
    assert ">New</option>" in begun
    assert "Partner is New" in narrowed.text
    assert "No partners yet" in (await staff.page("/partners")).text
    assert ">New</option>" not in (await staff.get("/links/new")).text


@pytest.mark.parametrize(
    "headers", [{}, {"sec-fetch-site": "cross-site"}], ids=["says nothing", "another site"]
)
async def test_only_our_own_page_changes_a_partner(running, staff, headers):
    """Another site that makes a browser press a button is refused, and nothing is done."""
    ada = await partner(running)
    await sold(running, ada, (1_000, "EUR"))
    (entry,) = (await running.partners.commissions(ada)).items
    for path in ("/partners/new", *POSTS):
        sent = await staff.client.post(
            f"{HOST}{ROOT}{path.format(id=ada.id, entry=entry.id)}",
            data={**TYPED, "code": "new"},
            headers=headers,
        )
        assert sent.status_code == 403

    assert await only(running) == ada
    assert (await running.partners.commissions(ada)).items == (entry,)


async def test_your_own_data_is_shown_as_it_was_written(running, staff):
    """What is no text stands on a partner's page as JSON has it, and not as Python would write it."""
    one = await partner(running, "p", metadata={"vip": True, "since": None, "tiers": ["a", 1]})
    html = (await staff.get(f"/partners/{one.id}")).text

    assert [f"<bdi>{value}</bdi>" in html for value in ("true", "null", "[&#34;a&#34;,1]")] == [True] * 3


async def test_what_anybody_wrote_stays_a_text(running, staff):
    """Payloads in every text of a partner and of a review make no element, attribute or address of their own."""
    paths = ["/partners", "/links/new"]
    for number, bad in enumerate(PAYLOADS):
        theirs = None if "{{" in bad else f"{number}{bad}"  # braces are a template that nobody filled in
        one = await partner(running, f"p{number}", name=bad, external_id=theirs, metadata={bad: bad})
        await sold(running, one, (1_000, "EUR"))
        (entry,) = (await running.partners.commissions(one)).items
        await running.partners.review(entry, "void", reason=bad, actor=bad)
        (link,) = (await running.links.list(partner_id=one.id)).items
        paths += [
            f"/partners/{one.id}",
            f"/partners/{one.id}/edit",
            f"/links?partner={one.id}",
            f"/links/{link.id}",
        ]
    pages = {path: await staff.page(path) for path in paths}
    for bad in PAYLOADS:
        pages[bad] = Page((await staff.get(f"/partners?search={quote(bad)}")).text)
        typed = dict.fromkeys(await staff.form("/partners/new"), bad)
        refused = (await staff.send("/partners/new", typed, 400)).text
        pages[f"{bad} in the form"] = Page(refused)
        assert filled(refused)["name"] == bad
    for path, found in pages.items():
        assert {tag for tag, _ in found.elements} <= MORE_ELEMENTS, path
        names = {name for _, attrs in found.elements for name in attrs}
        assert {name for name in names if name.startswith("on") or name == "style"} == set()
        assert {frozenset(attrs) for tag, attrs in found.elements if tag == "script"} == {
            frozenset(("defer", "src"))
        }
        assert "49{%" not in found.text


# Their links ---------------------------------------------------------------------------------------------------------


async def test_a_link_is_given_to_a_partner_by_name(running, staff):
    """Not to one who is closed; from the partner's page the form begins with them, and the link's page names them."""
    ada, bob = await partner(running), await partner(running, "bob")
    await partner(running, "gone", status="closed")
    await partner(running, "zoe", workspace_id=uuid.uuid4())
    html = (await staff.get("/links/new")).text
    offered = re.search(r'<select id="f-partner_id".*?</select>', html)[0]
    begun = await staff.form(f"/links/new?partner={bob.id}")
    await staff.send("/links/new", {**begun, "url": HOST, "partner_id": str(ada.id)})
    (link,) = (await running.links.list()).items
    page = await staff.page(f"/links/{link.id}")

    assert re.findall(r">([^<]+)</option>", offered) == ["nobody", "Ada", "Bob"]
    assert begun["partner_id"] == str(bob.id)
    assert link.partner_id == ada.id
    assert f"{ROOT}/partners/{ada.id}" in page.links()
    assert "Partner Ada" in page.text


async def test_a_link_keeps_a_partner_who_is_closed_by_now(running, staff):
    """Whoever changes its title does not take it from them."""
    ada = await partner(running)
    link = await make(running, partner_id=ada.id)
    await running.partners.close(ada)
    await staff.send(f"/links/{link.id}/edit", {**await staff.form(f"/links/{link.id}/edit"), "title": "New"})
    found = await running.links.get(link)

    assert (found.title, found.partner_id) == ("New", ada.id)


@pytest.mark.parametrize("sort", ["", "&sort=key"])
async def test_a_partners_links_are_listed(running, staff, sort):
    """Theirs alone, in every order; the partner is named, and the search goes on among them."""
    ada = await partner(running)
    await make(running, key="hers", partner_id=ada.id)
    await make(running, key="nobodys")
    html = (await staff.get(f"/links?partner={ada.id}{sort}")).text

    assert re.findall(r"<bdi>go\.example/<b>([^<]+)</b>", html) == ["hers"]
    assert "Partner is Ada" in Page(html).text
    assert f'<input type="hidden" name="partner" value="{ada.id}">' in html
