"""The paths that a host answers are found in every framework, so that no link takes one of them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from goodanalytics import Analytics
from goodanalytics.errors import InvalidInput
from goodanalytics.web.links.host_routes import HostRoutes

OURS = {"login", "users", "static", "about"}


async def answer(*_args, **_named):
    """A page."""


def starlette():
    from starlette.applications import Starlette
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.routing import Host, Mount, Route, Router

    below = Router(routes=[Route("/about", answer)])
    return GZipMiddleware(
        Starlette(
            routes=[
                Route("/", answer),
                Route("/login", answer),
                Route("/users/{id}", answer),
                Mount("/static", app=answer),
                Mount("/", routes=below.routes),
                Host("api.shop.example", app=Router(routes=[Route("/about", answer)])),
                Route("/{page:path}", answer),
            ]
        )
    )


def fastapi():
    from fastapi import APIRouter, FastAPI

    app, users = FastAPI(openapi_url=None), APIRouter(prefix="/users")
    app.get("/login")(answer)
    app.get("/static/{name}")(answer)
    app.get("/about/us")(answer)
    app.get("/{page}")(answer)
    users.get("/{number}")(answer)
    app.include_router(users)
    return app


def litestar():
    from litestar import Litestar, Router, get

    async def page():
        """A page."""

    page.__annotations__ = {"return": None}
    handlers = [get(path)(page) for path in ("/login", "/static/a", "/about", "/{any:str}")]
    return Litestar(
        [*handlers, Router("/users", route_handlers=[get("/{number:int}")(page)])], openapi_config=None
    )


def quart():
    from quart import Quart

    app = Quart("shop")
    for rule in ("/login", "/users/<int:number>", "/about/", "/<page>"):
        app.add_url_rule(rule, rule, answer)
    return app


DJANGO = """
from django.conf import settings
settings.configure(ROOT_URLCONF="urls")
import sys, types
from django.urls import include, path, re_path
below = ([path("about/", print)], "below")
urls = types.ModuleType("urls")
urls.urlpatterns = [
    path("", print), path("login/", print), path("users/<int:n>", print), path("static/", include(([path("x", print)], "y"))),
    path("", include(below)), path("<slug:page>", print), re_path(r"^(?P<any>.*)$", print), re_path(r"^old-(\\d+)$", print),
    re_path(r"^users/(\\d+)$", print),
]
sys.modules["urls"] = urls
import django
django.setup()
from django.core.asgi import get_asgi_application
from goodanalytics.web.links.host_routes import HostRoutes
routes = HostRoutes()
routes.add(get_asgi_application())
print(*sorted(routes.paths()))
"""

FRAMEWORKS = [starlette, fastapi, litestar, quart]


@pytest.mark.parametrize("make", FRAMEWORKS, ids=lambda make: make.__name__)
def test_the_first_parts_of_written_out_paths_are_found(make):
    """Also below mounts and middleware; a route that takes any word keeps none."""
    routes = HostRoutes()
    routes.add(make())

    assert routes.paths() == OURS


def test_djangos_paths_are_found():
    """In a process of its own, for Django can be set up once; patterns that are not written out keep nothing."""
    said = subprocess.run([sys.executable, "-c", DJANGO], capture_output=True, text=True, check=False)

    assert (set(said.stdout.split()), said.stderr) == (OURS, "")


def test_an_app_without_routes_has_none():
    """A plain ASGI function shows nothing."""
    routes = HostRoutes()
    routes.add(answer)

    assert routes.paths() == frozenset()


def test_routes_that_come_later_are_seen():
    """FastAPI's decorators may run after the app was wrapped."""
    from fastapi import FastAPI

    app, routes = FastAPI(openapi_url=None), HostRoutes()
    routes.add(app)
    before = routes.paths()
    app.get("/Late")(answer)

    assert (before, routes.paths()) == (frozenset(), {"late"})


def test_apps_that_lie_in_each_other_without_end_are_left():
    """A middleware that names itself is looked into a few times, not for ever."""

    class Turning:
        def __init__(self) -> None:
            self.app = Inner(self)

    class Inner:
        def __init__(self, app: Turning) -> None:
            self.app = app

    routes = HostRoutes()
    routes.add(Turning())

    assert routes.paths() == frozenset()


async def test_a_wrapped_apps_paths_are_no_keys_on_its_link_domain(config, database_url):
    """`/login` on the link domain would take what visitors look for; below /l nothing clashes."""
    analytics = Analytics(database_url, dataclasses.replace(config, link_domains=["go.example"]))
    analytics.wrap(fastapi())
    try:
        with pytest.raises(InvalidInput, match="route at /login"):
            await analytics.links.create(url="https://shop.example/", key="Login")
        link = await analytics.links.create(url="https://shop.example/", key="login", domain="shop.example")
        spring = await analytics.links.create(url="https://shop.example/", key="spring")
    finally:
        await analytics.database.close()

    assert analytics.links.short_url(link) == "https://shop.example/l/login"
    assert analytics.links.short_url(spring) == "https://go.example/spring"
