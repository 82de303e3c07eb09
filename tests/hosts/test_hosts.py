"""
The same requests on five frameworks, through the examples; and what a host may rely on, through five small probes.

Everything is ASGI in this process. `tests/test_examples.py` starts the examples as their users do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import logging
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import pytest

from goodanalytics import Analytics, Config, Principal, Visitor

FRAMEWORKS = ("starlette", "fastapi", "litestar", "quart", "django")
EXAMPLES = Path(__file__).parents[2] / "examples"
SECRET = "for-tests-only-" + "0" * 32
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


@dataclasses.dataclass(frozen=True)
class Shop:
    """An example that was imported and started, as a server would start it."""

    framework: str
    app: Any
    analytics: Analytics


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[None]:
    """Run *app*'s lifespan as a server does: startup, wait for the answer, …, shutdown, wait for the answer."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    life = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    assert await asyncio.wait_for(from_app.get(), 30) == {"type": "lifespan.startup.complete"}
    yield
    await to_app.put({"type": "lifespan.shutdown"})
    assert await asyncio.wait_for(from_app.get(), 30) == {"type": "lifespan.shutdown.complete"}
    await asyncio.wait_for(life, 30)


@pytest.fixture(scope="module", params=FRAMEWORKS)
async def shop(request, shared_database_url) -> AsyncIterator[Shop]:
    """One example for all tests of this module, because Django's settings can be made only once in a process."""
    name = f"{request.param}_app"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)
        for set_outside in [name for name in os.environ if name.startswith("GOODANALYTICS_")]:
            patch.delenv(set_outside)
        patch.setenv("GOODANALYTICS_DATABASE_URL", shared_database_url)
        patch.setenv("GOODANALYTICS_SECRET_KEY", SECRET)
        patch.setenv(
            "GOODANALYTICS_WORKER", "false"
        )  # drain() is the only worker, so nothing has to be waited for
        # Functions cannot come from the environment, and the examples need none.
        patch.setattr(Analytics, "from_env", partial(Analytics.from_env, authenticate=who))
        patch.setattr(logging.root, "handlers", logging.root.handlers[:])  # Litestar puts its own in at start
        patch.setattr(logging.root, "level", logging.root.level)
        spec.loader.exec_module(module)
        async with living(module.app):
            yield Shop(request.param, module.app, module.analytics)


def who(token: str, kind: str) -> Principal | None:
    return Principal() if (token, kind) == ("secret", "bearer") else None


@asynccontextmanager
async def a_browser(app: Any, root_path: str = "", **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without cookies. Its exceptions are the app's."""
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 1234), root_path=root_path)
    headers = {"user-agent": CHROME, "accept": "text/html", **headers}
    async with httpx.AsyncClient(
        transport=transport, base_url=f"https://shop.example{root_path}", headers=headers
    ) as client:
        yield client


@pytest.fixture
async def browser(shop) -> AsyncIterator[httpx.AsyncClient]:
    async with a_browser(shop.app) as client:
        yield client


def beacon(url: str = "https://shop.example/") -> bytes:
    return msgspec.json.encode({"event_id": str(uuid.uuid4()), "url": url})


async def visitor_of(analytics: Analytics, browser: httpx.AsyncClient) -> Visitor:
    return await analytics.resolve({"anonymous_id": browser.cookies["_ga_anon"]})


# The shop ------------------------------------------------------------------------------------------------------------


async def test_a_document_carries_the_browsers_cookie(browser):
    """The host's page arrives whole, and the browser is known from then on."""
    answer = await browser.get("/")

    assert (answer.status_code, "good-analytics.js" in answer.text) == (200, True)
    (cookie,) = answer.headers.get_list("set-cookie")
    assert cookie.startswith("_ga_anon=")
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/"))


async def test_the_page_names_the_script_that_is_served(browser):
    """The address in the page's script tag leads to the tracker."""
    page = await browser.get("/")
    source = page.text.partition('src="')[2].partition('"')[0]
    answer = await browser.get(str(page.url.join(source)))

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")


async def test_a_beacon_is_accepted_and_counted(shop, browser):
    """A pageview's beacon belongs to the browser that the document's cookie named."""
    await browser.get("/")
    answer = await browser.post("/ga/t/event", content=beacon())
    await shop.analytics.drain()

    assert (answer.status_code, answer.headers["x-goodanalytics"]) == (202, "accepted")
    assert (await visitor_of(shop.analytics, browser)).total_pageviews == 1


async def test_a_short_link_leads_on_with_its_click(shop, browser):
    """A link on the host's own domain answers 302 with the click's id in the destination."""
    key = f"go-{shop.framework}"
    await shop.analytics.links.create(domain="shop.example", key=key, url="https://shop.example/?a=1")
    answer = await browser.get(f"/l/{key}")

    assert answer.status_code == 302
    destination = httpx.URL(answer.headers["location"])
    assert (destination.host, destination.params["a"]) == ("shop.example", "1")
    assert uuid.UUID(destination.params["ga_id"])


async def test_a_sale_lands_on_the_visitor_who_looked_at_the_page(shop, browser):
    """`await analytics.visitor(request)` in the host's own view finds the browser that the beacons speak of."""
    await browser.get("/")
    await browser.post("/ga/t/event", content=beacon())
    await shop.analytics.drain()
    looked = await visitor_of(shop.analytics, browser)
    answer = await browser.post("/buy")
    bought = await visitor_of(shop.analytics, browser)

    assert (answer.status_code, answer.json()) == (200, {"bought": "lamp"})
    assert (bought.id, bought.ltv, bought.total_pageviews) == (looked.id, {"EUR": 4900}, 1)


async def test_a_browser_that_asks_not_to_be_followed_buys_all_the_same(shop):
    """With Sec-GPC there is no visitor and no cookie, and the host's view still does its work."""
    async with a_browser(shop.app, **{"sec-gpc": "1"}) as browser:
        page, bought = await browser.get("/"), await browser.post("/buy")

    assert (page.status_code, bought.status_code, bought.json()) == (200, 200, {"bought": "lamp"})
    assert not browser.cookies


async def test_the_api_answers_whoever_has_the_key(shop, browser):
    """`/ga/api/visitors` refuses a stranger and lists the buyer to the owner."""
    await browser.get("/")
    await browser.post("/buy")
    buyer = await visitor_of(shop.analytics, browser)
    refused = await browser.get("/ga/api/visitors")
    answer = await browser.get("/ga/api/visitors", headers={"authorization": "Bearer secret"})

    assert (refused.status_code, answer.status_code) == (401, 200)
    assert str(buyer.id) in [person["id"] for person in answer.json()["data"]]


async def test_below_a_root_path_everything_moves_with_the_app(shop):
    """A server that serves the app below `/shop` (root_path) finds the page, our paths and the sale below `/shop`."""
    await shop.analytics.links.create(
        domain="shop.example", key=f"root-{shop.framework}", url="https://shop.example/"
    )
    async with a_browser(shop.app, root_path="/shop") as browser:
        answers = [
            await browser.get("/"),
            await browser.get("/ga/js/good-analytics.js"),
            await browser.post("/ga/t/event", content=beacon("https://shop.example/shop/")),
            await browser.get(f"/l/root-{shop.framework}"),
            await browser.post("/buy"),
        ]
        await shop.analytics.drain()
        visitor = await visitor_of(shop.analytics, browser)

    assert [answer.status_code for answer in answers] == [200, 200, 202, 302, 200]
    assert (visitor.total_pageviews, visitor.ltv) == (1, {"EUR": 4900})


@pytest.mark.parametrize(
    "mounted_by",
    [pytest.param("starlette", id="in Starlette"), pytest.param("litestar", id="in Litestar")],
)
async def test_a_wrapped_app_can_be_mounted_in_another(shop, mounted_by):
    """A mount's root_path reaches our rooms and the wrapped host alike, also where the mount adds a slash to each path."""
    async with a_browser(MOUNTS[mounted_by]("/shop", shop.app)) as browser:
        answers = [
            await browser.get("/shop/"),
            await browser.get("/shop/ga/js/good-analytics.js"),
            await browser.post("/shop/ga/t/event", content=beacon()),
            await browser.get("/shop/ga/api/visitors", headers={"authorization": "Bearer secret"}),
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 202, 200]


def mounted_in_starlette(path: str, app: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(path, app)])


def mounted_in_litestar(path: str, app: Any) -> Any:
    from litestar import Litestar, asgi

    return Litestar([asgi(path, is_mount=True, copy_scope=True)(app)])


MOUNTS = {"starlette": mounted_in_starlette, "litestar": mounted_in_litestar}


# The probes ----------------------------------------------------------------------------------------------------------


class Boom(Exception):
    """The host's own failure."""


@dataclasses.dataclass
class Probe:
    """
    A host with a start and a stop of its own, a view that fails, and views that ask contrib for the visitor.

    Attributes:
        seen: What the host's start and stop found: their name, and whether analytics was running.
    """

    analytics: Analytics
    seen: list[tuple[str, bool]] = dataclasses.field(default_factory=list)
    app: Any = None

    def hook(self, name: str) -> Callable[[], Any]:
        async def hook() -> None:
            self.seen.append((name, self.analytics.is_running))

        return hook

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        await self.hook("start")()
        yield
        await self.hook("stop")()


def shown(visitor: Visitor | None) -> str:
    return "nobody" if visitor is None else str(visitor.id)


@contextmanager
def starlette_probe(probe: Probe) -> Iterator[Any]:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def boom(_request: Request):
        raise Boom

    async def visitor(request: Request):
        return PlainTextResponse(shown(await probe.analytics.visitor(request)))

    yield Starlette(routes=[Route("/boom", boom), Route("/who", visitor)], lifespan=probe.lifespan)


@contextmanager
def fastapi_probe(probe: Probe) -> Iterator[Any]:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    from goodanalytics.contrib.fastapi import current_visitor

    app = FastAPI(lifespan=probe.lifespan)

    @app.get("/boom")
    async def boom():
        raise Boom

    async def visitor(found):
        return shown(found)

    visitor.__annotations__["found"] = Annotated[Visitor | None, current_visitor(probe.analytics)]
    app.get("/who", response_class=PlainTextResponse)(visitor)
    yield app


@contextmanager
def litestar_probe(probe: Probe) -> Iterator[Any]:
    from litestar import Litestar, MediaType, get

    from goodanalytics.contrib.litestar import CurrentVisitor, provide_visitor

    async def boom():
        raise Boom

    async def visitor(found):
        return shown(found)

    boom.__annotations__ = {"return": str}
    visitor.__annotations__ = {"found": CurrentVisitor, "return": str}
    yield Litestar(
        [get("/boom")(boom), get("/who", media_type=MediaType.TEXT)(visitor)],
        dependencies={"found": provide_visitor(probe.analytics)},
        on_startup=[probe.hook("start")],
        on_shutdown=[probe.hook("stop")],
    )


@contextmanager
def quart_probe(probe: Probe) -> Iterator[Any]:
    from quart import Quart

    from goodanalytics.contrib.quart import visitor_of as current

    app = Quart("probe")
    app.before_serving(probe.hook("start"))
    app.after_serving(probe.hook("stop"))
    current_visitor = current(probe.analytics)

    @app.get("/boom")
    async def boom():
        raise Boom

    @app.get("/who")
    async def visitor():
        return shown(await current_visitor())

    yield app


@contextmanager
def django_probe(probe: Probe) -> Iterator[Any]:
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    from goodanalytics.contrib.django import with_visitor

    async def boom(_request):
        raise Boom

    @with_visitor(probe.analytics)
    async def visitor(_request, found):
        return HttpResponse(shown(found))

    @with_visitor(probe.analytics)
    def visitor_in_a_thread(_request, found):
        return HttpResponse(shown(found))

    urls = (path("boom", boom), path("who", visitor), path("who-in-a-thread", visitor_in_a_thread))
    with override_settings(ROOT_URLCONF=urls):
        yield get_asgi_application()


PROBES = {
    "starlette": starlette_probe,
    "fastapi": fastapi_probe,
    "litestar": litestar_probe,
    "quart": quart_probe,
    "django": django_probe,
}


@pytest.fixture
async def probe(shop, shared_database_url) -> AsyncIterator[Probe]:
    """A host of the shop's framework around an Analytics of its own that nobody has started."""
    probe = Probe(Analytics(shared_database_url, Config(secret_key=SECRET, worker=False)))
    with PROBES[shop.framework](probe) as app:
        probe.app = app
        yield probe
    await probe.analytics.stop()


async def outcome(app: Any, path: str) -> tuple[int, str] | type[BaseException]:
    """What a browser gets, or what the server is left with."""
    try:
        async with a_browser(app) as browser:
            answer = await browser.get(path)
    except Exception as error:
        return type(error)
    return answer.status_code, answer.text


async def test_the_hosts_life_lies_within_ours(shop, probe):
    """The host starts after us and stops before us, so that its own hooks can use analytics."""
    async with living(probe.analytics.wrap(probe.app)):
        assert probe.analytics.is_running
    assert not probe.analytics.is_running

    # Django knows no lifespan and raises on it.
    assert probe.seen == ([] if shop.framework == "django" else [("start", True), ("stop", True)])


async def test_without_a_lifespan_the_first_request_starts_us(probe):
    """Servers with lifespan off, and mounts, still get a running analytics, also when the first requests come at once."""
    assert not probe.analytics.is_running
    async with a_browser(probe.analytics.wrap(probe.app)) as browser:
        answers = await asyncio.gather(*(browser.get("/who") for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}
    assert probe.analytics.is_running


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/no-such-page", id="a path that the host does not know"),
        pytest.param("/gallery", id="a path that begins like our mount"),
        pytest.param("/boom", id="a view that fails"),
    ],
)
async def test_what_the_host_does_wrong_stays_the_hosts(probe, path):
    """The host's own 404 page and its exceptions are the same with us as without us."""
    alone = await outcome(probe.app, path)
    wrapped = await outcome(probe.analytics.wrap(probe.app), path)

    assert wrapped == alone
    assert wrapped == Boom or wrapped[0] in (404, 500)


async def test_contrib_hands_the_visitor_to_the_view(shop, probe):
    """The framework's own way of asking gives the same visitor as `analytics.visitor(request)`, or nobody."""
    paths = ["/who", "/who-in-a-thread"] if shop.framework == "django" else ["/who"]
    app = probe.analytics.wrap(probe.app)
    async with a_browser(app) as browser, a_browser(app, **{"sec-gpc": "1"}) as private:
        answers = [(await browser.get(path)).text for path in paths]
        refused = [(await private.get(path)).text for path in paths]
        visitor = await visitor_of(probe.analytics, browser)

    assert (set(answers), set(refused)) == ({str(visitor.id)}, {"nobody"})


@pytest.mark.parametrize("framework", FRAMEWORKS[1:])
def test_contrib_without_its_framework_says_what_to_install(framework, monkeypatch):
    """A missing framework is named together with the extra that brings it."""
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.setitem(sys.modules, "django.http", None)
    monkeypatch.delitem(sys.modules, f"goodanalytics.contrib.{framework}", raising=False)

    with pytest.raises(ImportError, match=rf"{framework} needs .* pip install 'goodanalytics\[frameworks\]'"):
        importlib.import_module(f"goodanalytics.contrib.{framework}")
