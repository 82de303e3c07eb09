"""The demo shop: a host like any other, whose customers never wait for analytics."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from goodanalytics.analytics import Analytics
from goodanalytics.config import Config
from goodanalytics.core.partners import Commission
from goodanalytics.core.visitors import Visitor
from goodanalytics.demo.crowd import LINKS
from goodanalytics.demo.shop import (
    CART_COOKIE,
    MAX_FORM,
    MOST_OF_ONE,
    build,
    changed_cart,
    order_number,
    read_cart,
    written_cart,
)
from goodanalytics.demo.trade import CATEGORIES, PARTNER, PRODUCTS, account_id

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"  # a library's own name would be a bot's
AGENT = {"user-agent": BROWSER, "accept": "text/html"}
ADA = {"name": "Ada", "email": "ada@example.com"}


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with Analytics(database_url, dataclasses.replace(config, worker=False)) as analytics:
        yield analytics


def a_browser(analytics: Analytics, **options: Any) -> httpx.AsyncClient:
    """A new browser at the shop, inside the whole product."""
    transport = httpx.ASGITransport(analytics.wrap(build(analytics)))
    return httpx.AsyncClient(
        transport=transport, base_url="http://shop.example", follow_redirects=True, headers=AGENT | options
    )


@pytest.fixture
async def browser(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with a_browser(analytics) as client:
        yield client


@pytest.fixture
async def quiet_shop(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    """For tests after which nothing has been told: they share one database, which stays empty."""
    async with Analytics(shared_database_url, dataclasses.replace(config, worker=False)) as analytics:
        yield analytics


@pytest.fixture
async def reader(quiet_shop: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async with a_browser(quiet_shop) as client:
        yield client


async def buy(browser: httpx.AsyncClient, *slugs: str, **fields: str) -> httpx.Response:
    """Fill the cart and pay."""
    for slug in slugs:
        await browser.post("/cart", data={"product": slug})
    form = await browser.get("/checkout")
    return await browser.post("/checkout", data={"nonce": nonce_of(form.text)} | ADA | fields)


def nonce_of(page: str) -> str:
    (nonce,) = re.findall(r'name="nonce" value="([^"]+)"', page)
    return str(nonce)


async def timeline_of(analytics: Analytics, visitor: Visitor) -> list[Any]:
    return list((await analytics.visitors.timeline(visitor.id)).items)


async def customer(analytics: Analytics) -> Visitor:
    """The one person that the database knows."""
    (person,) = (await analytics.visitors.list()).items
    return person


# Pages ---------------------------------------------------------------------------------------------------------------

PAGES = [
    "/", "/cart", "/sign-up", "/welcome", "/thank-you", "/given-back",
    *(f"/category/{slug}" for slug in CATEGORIES), *(product.path for product in PRODUCTS.values()),
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_carries_the_tracker(reader: httpx.AsyncClient, path: str) -> None:
    """Every page of the shop is there and has analytics' one line in it."""
    page = await reader.get(path)

    assert page.status_code == 200
    assert '<script defer src="/ga/js/good-analytics.js"></script>' in page.text


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_needs_nothing_from_elsewhere(reader: httpx.AsyncClient, path: str) -> None:
    """Scripts, styles and pictures are the shop's own, and there is none inside the page."""
    page = (await reader.get(path)).text
    used = re.findall(r'(?:src|srcset|data)="([^"]*)"|<link[^>]* href="([^"]*)"', page)

    assert {a or b for a, b in used} == {
        "/ga/js/good-analytics.js",
        "/static/shop.css",
        "/static/leaf.svg",
    }
    assert "<style" not in page
    assert " style=" not in page


async def test_a_page_lets_nothing_else_in(reader: httpx.AsyncClient) -> None:
    """Every page says so to the browser too, also the one that refuses something."""
    policies = {
        (await reader.get(path)).headers["content-security-policy"] for path in ("/", "/nothing", "/cart")
    }

    assert {policy.partition(";")[0] for policy in policies} == {"default-src 'none'"}
    assert "unsafe" not in "".join(policies)


async def test_what_a_page_uses_is_there(reader: httpx.AsyncClient) -> None:
    """The tracker, the style and the icon answer."""
    kinds = [
        (await reader.get(path)).headers["content-type"].partition(";")[0]
        for path in ("/ga/js/good-analytics.js", "/static/shop.css", "/static/leaf.svg")
    ]

    assert kinds == ["text/javascript", "text/css", "image/svg+xml"]


async def test_every_way_leads_somewhere(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """No link on any page of the shop is dead, short links and dashboard included."""
    for link in LINKS.values():
        await analytics.links.create(
            domain="shop.example",
            key=link.key,
            url=f"http://shop.example{link.path}",
            utm_source=link.utm_source,
        )
    found: set[str] = set()
    for path in PAGES:
        found |= set(re.findall(r'<a [^>]*href="([^"#]+)"', (await browser.get(path)).text))
    answers = {path: (await browser.get(path.replace("&amp;", "&"))).status_code for path in sorted(found)}

    # Nobody has said yet who may see the dashboard, so it is closed; `/me` leads there.
    closed = {path for path in found if path.startswith("/ga/dashboard/")} | {"/me"}
    assert answers == {path: 403 if path in closed else 200 for path in found}
    assert {f"/l/{key}" for key in LINKS} | {"/ga/dashboard/", "/me", f"/?via={PARTNER.code}"} < found


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/products/moon", 404),
        ("GET", "/category/moon", 404),
        ("GET", "/nothing", 404),
        ("GET", "/static/../shop.py", 404),
        ("DELETE", "/cart", 405),
        ("POST", "/", 405),
    ],
)
async def test_what_is_not_there_says_so_in_the_shops_own_words(
    reader: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    """A wrong address gets a page of the shop with the right status and a way back."""
    page = await reader.request(method, path)

    assert (page.status_code, "Back to the shelf" in page.text) == (status, True)


async def test_a_shop_below_a_path_links_below_it(analytics: Analytics) -> None:
    """Mounted under another app, pages, redirects and the cart stay under its path."""
    transport = httpx.ASGITransport(build(analytics), root_path="/demo")
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        page = await client.get("/demo/products/gift-card")
        moved = await client.post("/demo/cart", data={"product": "gift-card"})

    assert set(re.findall(r'(?:href|src|action)="(/[^"/]*)', page.text)) == {"/demo"}
    assert "<title>Gift card" in page.text
    assert (moved.headers["location"], "Path=/demo;" in moved.headers["set-cookie"]) == ("/demo/cart", True)


# The cart ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (None, ""),
        ("", ""),
        ("gift-card.2", "gift-card.2"),
        ("gift-card.2~assam-gold.1", "assam-gold.1~gift-card.2"),
        ("gift-card.2~gift-card.3", "gift-card.3"),
        ("gift-card.0", ""),
        ("gift-card.-1", ""),
        ("gift-card.10", ""),
        ("gift-card.²", ""),
        ("gift-card.٣", ""),
        ("gift-card", ""),
        ("moon.1", ""),
        ("__class__.1", ""),
        ("<script>.1~gift-card.1", "gift-card.1"),
        ("~.~..", ""),
        ("gift-card.1" + "~gift-card.1" * 10_000, "gift-card.1"),
    ],
)
def test_a_cart_is_read_like_a_strangers_letter(cookie: str | None, expected: str) -> None:
    """Whatever a cookie holds, what comes out are products of the shop, one to nine of each."""
    assert written_cart(read_cart(cookie)) == expected


@pytest.mark.parametrize(
    ("before", "by", "after"),
    [("", 1, "gift-card.1"), ("gift-card.1", 1, "gift-card.2"), ("gift-card.1", -1, ""), ("", -1, ""), ("gift-card.9", 1, "gift-card.9")],
)  # fmt: skip
def test_a_cart_holds_none_to_nine_of_each(before: str, by: int, after: str) -> None:
    """More stops at nine, fewer at none."""
    assert MOST_OF_ONE == 9
    assert written_cart(changed_cart(read_cart(before), "gift-card", by)) == after


async def test_the_cart_adds_up(reader: httpx.AsyncClient) -> None:
    """Two kettles and a tea cost what they cost."""
    for slug in ("glass-kettle", "glass-kettle", "rooibos-orange"):
        page = await reader.post("/cart", data={"product": slug})

    assert "€137.90" in page.text
    assert "Cart <b>3</b>" in page.text


async def test_taking_the_last_one_out_empties_the_cart(reader: httpx.AsyncClient) -> None:
    """The cookie goes with the last thing in it."""
    await reader.post("/cart", data={"product": "gift-card"})
    page = await reader.post("/cart", data={"product": "gift-card", "change": "fewer"})

    assert ("It is empty" in page.text, CART_COOKIE in reader.cookies) == (True, False)


async def test_the_cart_cookie_is_the_browsers_own(reader: httpx.AsyncClient) -> None:
    """No script reads it, and no other site's form sends it."""
    answer = await reader.post("/cart", data={"product": "gift-card"}, follow_redirects=False)
    cookies = [c for c in answer.headers.get_list("set-cookie") if c.startswith(CART_COOKIE)]

    assert [("HttpOnly" in c, "samesite=lax" in c.lower()) for c in cookies] == [(True, True)]


# Forms ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sign-up", "/checkout"])
@pytest.mark.parametrize(
    ("field", "typed", "says"),
    [
        ("name", "", "Please tell us your name."),
        ("name", " \x00 ", "Please tell us your name."),
        ("name", "n" * 101, "longer than 100 characters"),
        ("email", "", "Please give an e-mail address."),
        ("email", "ada", "This is no e-mail address."),
        ("email", "ada@example", "This is no e-mail address."),
        ("email", "a" * 250 + "@example.com", "This is no e-mail address."),
    ],
)
async def test_a_wrong_field_says_what_is_wrong_beside_it(
    reader: httpx.AsyncClient, quiet_shop: Analytics, path: str, field: str, typed: str, says: str
) -> None:
    """The page comes back with 422, the reason at the field, and nobody is told of anything."""
    await reader.post("/cart", data={"product": "gift-card"})
    page = await reader.post(path, data=ADA | {field: typed})
    reason = re.findall(rf'<p class="error" id="{field}-error">([^<]*)</p>', page.text)

    assert (page.status_code, [says in text for text in reason]) == (422, [True])
    assert list((await quiet_shop.visitors.list()).items) == []


async def test_what_was_typed_is_kept(reader: httpx.AsyncClient) -> None:
    """Nobody types twice, and what is shown again is text and not markup."""
    page = await reader.post("/sign-up", data={"name": '"><script>alert(1)</script>', "email": "ada@"})

    assert 'value="&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"' in page.text
    assert 'value="ada@"' in page.text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        pytest.param(b"name=" + b"a" * MAX_FORM, "application/x-www-form-urlencoded", 413, id="too long"),
        pytest.param(
            b"&".join([b"a=b"] * 21), "application/x-www-form-urlencoded", 400, id="too many fields"
        ),
        pytest.param(b"{}", "application/json", 415, id="json"),
        pytest.param(b"", "", 415, id="nothing"),
        pytest.param(b"name=%ff%fe&email=%00", "application/x-www-form-urlencoded", 422, id="not UTF-8"),
        pytest.param(
            b"\xff\xfe=%zz&&==&;", "application/x-www-form-urlencoded; charset=x", 422, id="garbage"
        ),
    ],
)
async def test_a_senseless_form_is_refused(
    reader: httpx.AsyncClient, body: bytes, kind: str, status: int
) -> None:
    """Whatever is posted, the answer is the poster's fault and never the shop's."""
    page = await reader.post("/sign-up", content=body, headers={"content-type": kind})

    assert page.status_code == status


# What analytics is told ----------------------------------------------------------------------------------------------


async def test_signing_up_is_an_identity_and_a_lead(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """The browser becomes the customer of that address, and the customer a lead."""
    page = await browser.post("/sign-up", data=ADA)
    person = await customer(analytics)

    assert page.url.path == "/welcome"
    assert (person.status, person.external_id, person.email, person.name) == (
        "lead",
        account_id("ada@example.com"),
        "ada@example.com",
        "Ada",
    )


async def test_signing_up_on_a_second_device_is_the_same_person(
    browser: httpx.AsyncClient, analytics: Analytics
) -> None:
    """Another browser with the same address, however written, is the same customer, and no second lead."""
    await browser.post("/sign-up", data=ADA)
    async with a_browser(analytics) as phone:
        await phone.get("/")
        await phone.post("/sign-up", data=ADA | {"email": " ADA@example.com "})
    person = await customer(analytics)
    leads = [entry for entry in await timeline_of(analytics, person) if entry.event_type == "lead"]

    assert len(leads) == 1


async def test_paying_is_a_sale(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """The amount is the cart's, the key the order's number, and the shop vouches for it."""
    page = await buy(browser, "clay-teapot", "assam-gold", "assam-gold")
    (sale,) = [e for e in await timeline_of(analytics, await customer(analytics)) if e.event_type == "sale"]

    assert page.url.path == "/thank-you"
    assert (sale.amount_cents, sale.currency, sale.trusted, sale.properties) == (
        7_480,
        "EUR",
        True,
        {"order": page.url.params["order"], "items": 3, "products": "assam-gold, clay-teapot"},
    )
    assert page.url.params["order"] in page.text


async def test_paying_empties_the_cart(browser: httpx.AsyncClient) -> None:
    """There is nothing left to pay for."""
    await buy(browser, "gift-card")
    page = await browser.get("/checkout")

    assert page.url.path == "/cart"


async def test_sending_a_form_twice_is_one_order(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """A double click, with the cart still in the browser, does not sell twice."""
    await browser.post("/cart", data={"product": "gift-card"})
    form = {"nonce": nonce_of((await browser.get("/checkout")).text)} | ADA
    cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    first = await browser.post("/checkout", data=form, headers=cookie)
    again = await browser.post("/checkout", data=form, headers=cookie)
    person = await customer(analytics)

    assert first.url.params["order"] == again.url.params["order"]
    assert person.ltv == {"EUR": 5_000}


async def test_another_cart_under_one_form_is_another_order() -> None:
    """A form that was kept open while the cart changed does not hide the second sale behind the first."""
    numbers = {order_number("nonce-nonce", read_cart(cart)) for cart in ("gift-card.1", "gift-card.2")}

    assert len(numbers) == 2


async def test_an_invented_order_number_is_not_taken(
    browser: httpx.AsyncClient, analytics: Analytics
) -> None:
    """A nonce that the shop cannot have made is replaced, and the sale has a number of the shop's."""
    page = await buy(browser, "gift-card", nonce="<script>")

    assert re.fullmatch(r"KF-[0-9A-F]{10}", page.url.params["order"])
    assert (await customer(analytics)).ltv == {"EUR": 5_000}


async def test_the_thank_you_page_does_not_repeat_strangers(reader: httpx.AsyncClient) -> None:
    """Only an order number is shown from the address."""
    page = await reader.get("/thank-you", params={"order": "KF-you-owe-us-money"})

    assert "owe" not in page.text


@pytest.mark.parametrize("signal", ["sec-gpc", "dnt"])
async def test_who_refuses_tracking_can_shop(
    analytics: Analytics, errors: list[BaseException], signal: str
) -> None:
    """Signing up and paying work, nothing is kept, no cookie of analytics is set, and there is no timeline to see."""
    async with a_browser(analytics, **{signal: "1"}) as browser:
        signed_up = await browser.post("/sign-up", data=ADA)
        paid = await buy(browser, "gift-card")
        mine = await browser.get("/me")
        cookies = set(browser.cookies)

    assert (signed_up.url.path, paid.url.path, mine.status_code) == ("/welcome", "/thank-you", 404)
    assert (list((await analytics.visitors.list()).items), cookies, errors) == ([], set(), [])


async def test_the_shop_goes_on_without_its_database(
    config: Config, errors: list[BaseException], tmp_path: Any
) -> None:
    """Orders are taken while nobody answers for analytics; each failure is reported."""
    analytics = Analytics(
        f"postgresql+asyncpg://nobody@/none?host={tmp_path}", dataclasses.replace(config, worker=False)
    )
    async with a_browser(analytics) as browser:
        signed_up = await browser.post("/sign-up", data=ADA)
        paid = await buy(browser, "gift-card")
    await analytics.stop()

    assert (signed_up.url.path, paid.url.path) == ("/welcome", "/thank-you")
    assert len(errors) >= 2


async def test_my_own_timeline_is_mine(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """`/me` leads to the dashboard's page of this very visitor."""
    await browser.post("/sign-up", data=ADA)
    answer = await browser.get("/me", follow_redirects=False)
    person = await customer(analytics)

    assert (answer.status_code, answer.headers["location"]) == (303, f"/ga/dashboard/visitors/{person.id}")


# Giving back ---------------------------------------------------------------------------------------------------------


async def give_back(browser: httpx.AsyncClient, bought: httpx.Response) -> httpx.Response:
    """Press the button on the page after the checkout."""
    (order,) = re.findall(r'name="order" value="([^"]+)"', bought.text)
    return await browser.post("/give-back", data={"order": order})


async def test_giving_back_is_a_refund(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """All of the order is taken back, once, however often the button is pressed."""
    bought = await buy(browser, "clay-teapot")
    page = await give_back(browser, bought)
    await give_back(browser, bought)
    person = await customer(analytics)
    money = [
        (entry.event_type, entry.amount_cents)
        for entry in await timeline_of(analytics, person)
        if entry.event_type in ("sale", "refund")
    ]

    assert (page.url.path, bought.url.params["order"] in page.text) == ("/given-back", True)
    assert (sorted(money), sum(person.ltv.values())) == ([("refund", 4_900), ("sale", 4_900)], 0)


@pytest.mark.parametrize("order", ["", "KF-1", "<script>", "KF-0123456789\n", "KF-" + "A" * 5_000])
async def test_what_is_no_order_is_not_given_back(reader: httpx.AsyncClient, order: str) -> None:
    """A number that the shop cannot have made gets the shop's own page of refusal."""
    page = await reader.post("/give-back", data={"order": order})

    assert (page.status_code, "We know of no such order" in page.text) == (404, True)


async def test_who_was_not_followed_can_give_back(analytics: Analytics, errors: list[BaseException]) -> None:
    """A customer who refuses tracking gives an order back that analytics never heard of, and nothing is reported."""
    async with a_browser(analytics, **{"sec-gpc": "1"}) as browser:
        page = await give_back(browser, await buy(browser, "gift-card"))

    assert (page.url.path, errors) == ("/given-back", [])


async def test_a_sale_by_a_partners_address_earns(browser: httpx.AsyncClient, analytics: Analytics) -> None:
    """Whoever comes as the first page suggests, and buys, earns the partner their part; giving it back takes it again."""
    terms = Commission(value=PARTNER.percent * 100)
    partner = await analytics.partners.create(code=PARTNER.code, name=PARTNER.name, commission=terms)
    (address,) = re.findall(r'href="(/\?via=[^"]+)"', (await browser.get("/")).text)
    visit = {"event_type": "pageview", "url": f"http://shop.example{address}"}
    await browser.post("/ga/t/event", json=visit)
    await analytics.drain()
    bought = await buy(browser, "clay-teapot")
    before = await analytics.partners.stats(partner)
    await give_back(browser, bought)
    after = await analytics.partners.stats(partner)

    assert [(e.earned_cents, e.reversed_cents) for stats in (before, after) for e in stats.earnings] == [
        (490, 0),
        (490, 490),
    ]


async def test_a_shop_without_neighbours_promises_none(reader: httpx.AsyncClient) -> None:
    """Nothing says that somebody else is told, and there is no page of it."""
    home, page = await reader.get("/"), await reader.get("/neighbours")

    assert ("/neighbours" in home.text, page.status_code) == (False, 404)
