"""
The demo shop: a plain host application that uses goodanalytics the way any other would.

Pages are drawn on the server and carry the tracker's one line. Four places talk to analytics: signing up says who
somebody is and that it is a lead, paying says that it is a sale, giving an order back says that it is none any more, and
`/me` finds the visitor's own timeline.

1. Analytics never stands between a customer and an order: a visitor who refuses tracking is nobody (`None`), and a
   failure of ours is reported while the shop goes on.
2. The cart lies in a cookie that anybody may write, so it is read like a stranger's letter (`read_cart`).
3. Paying twice with one form is one order: its number comes from the form and the cart, and is the sale's key. Whoever
   knows the number may give the order back: no page tells it but the buyer's own, and the form is random.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from goodanalytics.core.bounds import text
from goodanalytics.core.identity import normal_email
from goodanalytics.demo.crowd import LINKS, RULED, SPLIT
from goodanalytics.demo.trade import (
    CATEGORIES,
    PARTNER,
    PRODUCTS,
    SHOP_NAME,
    Product,
    account_id,
    price,
    title_of,
)
from goodanalytics.errors import GoodAnalyticsError, NotFound

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from goodanalytics.analytics import Analytics
    from goodanalytics.demo.neighbours import Neighbours

CART_COOKIE: Final = "kf_cart"
MOST_OF_ONE: Final = 9
MAX_FORM: Final = 16 * 1024  # bytes
MAX_FIELDS: Final = 20
MAX_NAME: Final = 100  # characters
MAX_ADDRESS: Final = 254  # characters; RFC 5321, section 4.5.3.1.3

POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
"""Of every page. The tracker is the only script and needs no more than its own host."""

_ROUTER_SAYS = {
    "Not Found": "There is no such page in this shop.",
    "Method Not Allowed": "This page cannot be asked for in that way.",
}

_HERE = Path(__file__).parent
_NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
_ORDER = re.compile(r"KF-[0-9A-F]{10}")


def build(analytics: Analytics, neighbours: Neighbours | None = None) -> ASGIApp:
    """
    The shop as an ASGI application; wrap it: `app = analytics.wrap(build(analytics))`.

    Args:
        neighbours: Who is told of its sales, for a shop that plays them too.
    """
    shop = _Shop(analytics, neighbours)
    return Starlette(
        routes=[
            Route("/", shop.home),
            Route("/category/{slug}", shop.category),
            Route("/products/{slug}", shop.product),
            Route("/cart", shop.cart, methods=["GET", "POST"]),
            Route("/sign-up", shop.sign_up, methods=["GET", "POST"]),
            Route("/welcome", shop.welcome),
            Route("/checkout", shop.checkout, methods=["GET", "POST"]),
            Route("/thank-you", shop.thank_you),
            Route("/give-back", shop.give_back, methods=["POST"]),
            Route("/given-back", shop.given_back),
            Route("/me", shop.me),
            *([] if neighbours is None else [Route("/neighbours", shop.neighbours), *neighbours.routes]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        exception_handlers={HTTPException: shop.refused},
    )


@dataclass(frozen=True, slots=True)
class Line:
    """So many of one product."""

    product: Product
    quantity: int

    @property
    def cents(self) -> int:
        """What the line costs."""
        return self.product.cents * self.quantity


Cart = tuple[Line, ...]


def read_cart(cookie: str | None) -> Cart:
    """
    The cart that a cookie holds, in the order of the shelf; whatever makes no sense in it is left out.

    >>> [(line.product.name, line.quantity) for line in read_cart("assam-gold.2~moon.1~gift-card.x")]
    [('Assam Gold', 2)]
    """
    found: dict[str, int] = {}
    for part in (cookie or "")[:1_000].split("~"):
        slug, _, written = part.partition(".")
        if slug in PRODUCTS and len(written) == 1 and written in "123456789":
            found[slug] = int(written)
    return tuple(Line(product, found[slug]) for slug, product in PRODUCTS.items() if slug in found)


def written_cart(cart: Cart) -> str:
    """What `read_cart` reads."""
    return "~".join(f"{line.product.slug}.{line.quantity}" for line in cart)


def changed_cart(cart: Cart, slug: str, by: int) -> Cart:
    """*cart* with *by* more or fewer of one product: none at the least, `MOST_OF_ONE` at the most."""
    quantities = {line.product.slug: line.quantity for line in cart}
    quantities[slug] = min(MOST_OF_ONE, quantities.get(slug, 0) + by)
    return tuple(Line(PRODUCTS[s], quantities[s]) for s in PRODUCTS if quantities.get(s, 0) > 0)


def total_of(cart: Cart) -> int:
    """What the cart costs, in euro cents."""
    return sum(line.cents for line in cart)


async def read_form(request: Request) -> dict[str, str]:
    """
    The fields of a form in the body; of repeated ones the last.

    Raises:
        HTTPException: 413 beyond `MAX_FORM` bytes, 415 unless it is urlencoded, 400 if it has more than `MAX_FIELDS`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, f"This form was sent as {kind[:100] or 'nothing'}; send it from the page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise HTTPException(413, f"This form is longer than {MAX_FORM} bytes; write less.")
    try:
        pairs = parse_qsl(
            bytes(body).decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise HTTPException(
            400, f"This form has more than {MAX_FIELDS} fields; send it from the page."
        ) from None
    return dict(pairs)


@dataclass(frozen=True, slots=True)
class Contact:
    """
    What somebody typed about themselves, and what is wrong with it.

    Attributes:
        name, email: As typed, to be shown again; cut to what we would keep.
        errors: By field; empty when all is well.
    """

    name: str = ""
    email: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, form: Mapping[str, str]) -> Contact:
        """Check the two fields."""
        name = text(form.get("name"), MAX_NAME + 1) or ""
        email = text(form.get("email"), MAX_ADDRESS + 1) or ""
        errors: dict[str, str] = {}
        if not name:
            errors["name"] = "Please tell us your name."
        elif len(name) > MAX_NAME:
            errors["name"] = f"This name is longer than {MAX_NAME} characters; a shorter form will do."
        if not email:
            errors["email"] = "Please give an e-mail address."
        elif len(email) > MAX_ADDRESS or normal_email(email) is None:
            errors["email"] = "This is no e-mail address. It looks like name@example.com."
        return cls(name, email, errors)


class _Shop:
    """The pages, and the analytics that they tell."""

    def __init__(self, analytics: Analytics, neighbours: Neighbours | None) -> None:
        self._analytics = analytics
        self._neighbours = neighbours
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.filters["price"] = price

    async def home(self, request: Request) -> Response:
        """The whole shelf, and other ways to arrive."""
        plain = [link for link in LINKS.values() if not link.sides and not link.forks]
        return self._page(request, "home.html", links=plain)

    async def category(self, request: Request) -> Response:
        """One shelf board."""
        slug = request.path_params["slug"]
        if slug not in CATEGORIES:
            raise HTTPException(404, "There is no such shelf in this shop.")
        chosen = [product for product in PRODUCTS.values() if product.category == slug]
        return self._page(request, "category.html", name=CATEGORIES[slug], chosen=chosen)

    async def product(self, request: Request) -> Response:
        """One product, and what stands beside it."""
        product = PRODUCTS.get(request.path_params["slug"])
        if product is None:
            raise HTTPException(404, "We do not sell that. Perhaps something else on the shelf?")
        beside = [p for p in PRODUCTS.values() if p.category == product.category and p is not product]
        return self._page(request, "product.html", product=product, beside=beside)

    async def cart(self, request: Request) -> Response:
        """Show the cart, or change it and show it again."""
        if request.method != "POST":
            return self._page(request, "cart.html")
        form = await read_form(request)
        slug = form.get("product", "")
        if slug not in PRODUCTS:
            raise HTTPException(404, "We do not sell that. Perhaps something else on the shelf?")
        cart = changed_cart(_cart_of(request), slug, -1 if form.get("change") == "fewer" else 1)
        answer = _see_other(request, "/cart")
        _keep(request, answer, cart)
        return answer

    async def sign_up(self, request: Request) -> Response:
        """Make an account, or come back to one: the address is the account. The first time is a lead."""
        if request.method != "POST":
            return self._page(request, "sign_up.html", contact=Contact())
        contact = Contact.read(await read_form(request))
        if contact.errors:
            return self._page(request, "sign_up.html", status=422, contact=contact)
        try:
            await self._introduce(request, contact)
        except GoodAnalyticsError as error:
            self._analytics.config.report(error, "telling of a sign-up")
        return _see_other(request, "/welcome")

    async def _introduce(self, request: Request, contact: Contact) -> None:
        """Tell analytics who it is."""
        visitor = await self._analytics.visitor(request)
        if visitor is None:
            return
        account = account_id(contact.email)
        visitor = await self._analytics.identify(
            visitor, external_id=account, email=contact.email, name=contact.name
        )
        await self._analytics.lead(visitor, name="Sign-up", key=f"sign-up-{account}")

    async def welcome(self, request: Request) -> Response:
        """Where signing up leads."""
        return self._page(request, "welcome.html")

    async def checkout(self, request: Request) -> Response:
        """Ask for a name and an address; pay, by pretending to."""
        cart = _cart_of(request)
        if not cart:
            return _see_other(request, "/cart")
        if request.method != "POST":
            nonce = self._analytics.config.new_token()
            return self._page(request, "checkout.html", contact=Contact(), nonce=nonce)
        form = await read_form(request)
        contact = Contact.read(form)
        nonce = form.get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            nonce = self._analytics.config.new_token()
        if contact.errors:
            return self._page(request, "checkout.html", status=422, contact=contact, nonce=nonce)
        order = order_number(nonce, cart)
        try:
            await self._sell(request, cart, order)
        except GoodAnalyticsError as error:
            self._analytics.config.report(error, f"telling of order {order}")
        answer = _see_other(request, f"/thank-you?order={order}")
        _keep(request, answer, ())
        return answer

    async def _sell(self, request: Request, cart: Cart, order: str) -> None:
        """Tell analytics what was paid."""
        visitor = await self._analytics.visitor(request)
        if visitor is None:
            return
        await self._analytics.sale(
            visitor,
            amount_cents=total_of(cart),
            currency="EUR",
            key=order,
            properties={
                "order": order,
                "items": sum(line.quantity for line in cart),
                "products": ", ".join(line.product.slug for line in cart),
            },
        )

    async def thank_you(self, request: Request) -> Response:
        """Where paying leads."""
        return self._page(request, "thank_you.html", order=_order_in(request.query_params))

    async def give_back(self, request: Request) -> Response:
        """Take an order back, by pretending to: all of it, once."""
        order = _order_in(await read_form(request))
        if order is None:
            raise HTTPException(404, "We know of no such order.")
        try:
            await self._analytics.refund(order)
        except NotFound:
            pass  # whoever was not followed when they bought brought no revenue that could be taken back
        except GoodAnalyticsError as error:
            self._analytics.config.report(error, f"telling that order {order} was given back")
        return _see_other(request, f"/given-back?order={order}")

    async def given_back(self, request: Request) -> Response:
        """Where giving an order back leads."""
        return self._page(request, "given_back.html", order=_order_in(request.query_params))

    async def neighbours(self, request: Request) -> Response:
        """What the shop's neighbours were told."""
        told = {} if self._neighbours is None else self._neighbours.told
        return self._page(request, "neighbours.html", told=told)

    async def me(self, request: Request) -> Response:
        """Lead to what the shop's owner sees of this visitor."""
        visitor = await self._analytics.visitor(request)
        if visitor is None:
            raise HTTPException(
                404, "You are not being tracked, so there is nothing to show. As it should be."
            )
        return _see_other(request, f"{self._analytics.config.mount}/dashboard/visitors/{visitor.id}")

    async def refused(self, request: Request, error: Exception) -> Response:
        """The shop's own page for what it cannot answer."""
        if not isinstance(error, HTTPException):
            raise error
        detail = _ROUTER_SAYS.get(error.detail, error.detail)
        answer = self._page(request, "refused.html", status=error.status_code, detail=detail)
        answer.headers.update(error.headers or {})
        return answer

    def _page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        config = self._analytics.config
        root = request.scope.get("root_path", "")
        cart = _cart_of(request)
        try:
            title = title_of(_path_of(request))
        except KeyError:
            title = SHOP_NAME
        html = self._templates.get_template(template).render(
            root=root,
            analytics_at=root + config.mount,
            links_at=root + config.link_path,
            dashboard_at=f"{root}{config.mount}/dashboard",
            partner=PARTNER,
            split_link=SPLIT,
            ruled_link=RULED,
            has_neighbours=self._neighbours is not None,
            shop=SHOP_NAME,
            title=title,
            categories=CATEGORIES,
            products=PRODUCTS.values(),
            cart=cart,
            cart_size=sum(line.quantity for line in cart),
            cart_cents=total_of(cart),
            **values,
        )
        # The cart is in every page's head, so no page is anybody else's.
        headers = {"Cache-Control": "private, no-cache", "Content-Security-Policy": POLICY}
        return HTMLResponse(html, status, headers=headers)


def order_number(nonce: str, cart: Cart) -> str:
    """The number of the order that this form and this cart make: the same ones make the same order."""
    return f"KF-{hashlib.sha256(f'{nonce} {written_cart(cart)}'.encode()).hexdigest()[:10].upper()}"


def _order_in(given: Mapping[str, str]) -> str | None:
    """The number of an order in a form or an address; `None` for what cannot be one."""
    order = given.get("order", "")
    return order if _ORDER.fullmatch(order) else None


def _path_of(request: Request) -> str:
    """The path below where the shop is mounted."""
    return str(request.scope["path"]).removeprefix(request.scope.get("root_path", ""))


def _cart_of(request: Request) -> Cart:
    return read_cart(request.cookies.get(CART_COOKIE))


def _keep(request: Request, answer: Response, cart: Cart) -> None:
    """Write the cart into the browser."""
    answer.set_cookie(
        CART_COOKIE,
        written_cart(cart),
        max_age=30 * 86_400 if cart else 0,
        path=request.scope.get("root_path", "") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def _see_other(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303)
