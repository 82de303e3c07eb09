"""The outermost object: whose request it is, and whose life."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics import Analytics, Config
from goodanalytics.web import house as house_module
from goodanalytics.web import path_below, rooted
from goodanalytics.web.house import House

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


async def no_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """A host as Django is: it raises on everything but HTTP."""
    if scope["type"] != "http":
        raise ValueError(f"Django can only handle ASGI/HTTP connections, not {scope['type']}.")
    await PlainTextResponse(f"the host at {scope['path']}")(scope, receive, send)


class Diary:
    """What happened, in order; its methods are the house's start and stop, and a host's lifespan."""

    def __init__(self, fail: str = "") -> None:
        self.lines: list[str] = []
        self.fail = fail

    async def start(self) -> None:
        self.lines.append("our start")
        if self.fail == "our start":
            raise OSError("our start failed")

    async def stop(self) -> None:
        self.lines.append("our stop")

    async def host(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await no_lifespan(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        self.lines.append("host start")
        scope["state"]["shared"] = True
        if self.fail == "host start":
            await send({"type": "lifespan.startup.failed", "message": "the host's database is gone"})
            return
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        self.lines.append("host stop")
        if self.fail == "host stop":
            raise RuntimeError("the host failed to stop")
        await send({"type": "lifespan.shutdown.complete"})


class Server:
    """A server's side of the lifespan."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self.scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self.task: asyncio.Task[None] | None = None

    async def says(self, word: str) -> Message:
        if self.task is None:
            self.task = asyncio.ensure_future(self._run())
        await self._to_app.put({"type": f"lifespan.{word}"})
        async with asyncio.timeout(30):
            return await self._from_app.get()

    async def _run(self) -> None:
        await self._app(self.scope, self._to_app.get, self._from_app.put)


def house(config: Config, diary: Diary, host: ASGIApp | None = None, **rooms: ASGIApp) -> House:
    named = {f"/{name.replace('_', '/')}": room for name, room in rooms.items()}
    return House(host or diary.host, config, named, diary.start, diary.stop)


def a_room(name: str) -> ASGIApp:
    async def room(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"{name}: {path_below(scope)}")(scope, receive, send)

    return room


def browser(app: ASGIApp, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, **options),
        base_url="https://shop.example",
        headers={"user-agent": BROWSER},
    )


# Life ----------------------------------------------------------------------------------------------------------------


async def test_we_start_before_the_host_and_stop_after_it(config: Config) -> None:
    """The host may use analytics in its own start and stop; its state is the server's."""
    diary = Diary()
    server = Server(house(config, diary))
    started = await server.says("startup")
    stopped = await server.says("shutdown")

    assert (started["type"], stopped["type"]) == ("lifespan.startup.complete", "lifespan.shutdown.complete")
    assert diary.lines == ["our start", "host start", "host stop", "our stop"]
    assert server.scope["state"] == {"shared": True}


async def ends_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """A host that returns from its lifespan without a word."""


@pytest.mark.parametrize("host", [no_lifespan, ends_at_once])
async def test_a_host_without_a_life_of_its_own_is_answered_for(config: Config, host: ASGIApp) -> None:
    """Django raises, others return: we start and stop all the same."""
    diary = Diary()
    server = Server(house(config, diary, host))
    words = [(await server.says(word))["type"] for word in ("startup", "shutdown")]

    assert words == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert diary.lines == ["our start", "our stop"]


async def test_a_host_that_fails_to_start_stops_us_as_well(config: Config) -> None:
    """The server hears why; what we had started is stopped again."""
    diary = Diary(fail="host start")
    server = Server(house(config, diary))
    answer = await server.says("startup")

    assert answer == {"type": "lifespan.startup.failed", "message": "the host's database is gone"}
    assert diary.lines == ["our start", "host start", "our stop"]
    assert server.task is not None
    with pytest.raises(RuntimeError, match="the host's database is gone"):
        await server.task


async def test_our_failure_to_start_is_the_servers_to_hear(config: Config) -> None:
    """With a lifespan a wrong schema stops the start, before the host does anything."""
    diary = Diary(fail="our start")
    server = Server(house(config, diary))
    answer = await server.says("startup")

    assert answer == {"type": "lifespan.startup.failed", "message": "our start failed"}
    assert diary.lines == ["our start"]
    assert server.task is not None
    with pytest.raises(OSError, match="our start failed"):
        await server.task


async def test_a_host_that_fails_to_stop_does_not_keep_us(config: Config) -> None:
    """We stop all the same."""
    diary = Diary(fail="host stop")
    server = Server(house(config, diary))
    await server.says("startup")
    await server.says("shutdown")

    assert diary.lines == ["our start", "host start", "host stop", "our stop"]


async def test_without_a_lifespan_the_first_request_starts_us_once(config: Config) -> None:
    """Fifty first requests at once are one start."""
    diary = Diary()
    async with browser(house(config, diary)) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(50)))

    assert {a.status_code for a in answers} == {200}
    assert diary.lines == ["our start"]


async def test_a_late_start_that_fails_is_reported_and_tried_again_after_a_while(
    config: Config, errors: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's pages go on; not every request waits for the failure again, and a later one starts."""
    diary = Diary(fail="our start")
    async with browser(house(config, diary)) as client:
        answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
        assert ({a.status_code for a in answers}, diary.lines, len(errors)) == ({200}, ["our start"], 1)
        diary.fail = ""
        monkeypatch.setattr(house_module, "RETRY_START", 0.0)
        await client.get("/")
        await client.get("/")

    assert diary.lines == ["our start", "our start"]
    assert len(errors) == 1


async def test_a_wrong_database_never_costs_the_host_a_page(
    config: Config, errors: list[BaseException]
) -> None:
    """The whole of analytics on a closed port: the host answers, and the report names the address."""
    analytics = Analytics("postgresql+asyncpg://nobody@127.0.0.1:9/none", config)
    async with browser(analytics.wrap(no_lifespan)) as client:
        answer = await client.get("/page")
    await analytics.stop()

    assert answer.text == "the host at /page"
    assert "127.0.0.1:9" in str(errors[0])


async def test_a_database_without_our_tables_never_costs_the_host_a_page(
    empty_database_url: str, config: Config, errors: list[BaseException]
) -> None:
    """The report says how to make them."""
    analytics = Analytics(empty_database_url, config)
    async with browser(analytics.wrap(no_lifespan)) as client:
        answer = await client.get("/page")
    await analytics.stop()

    assert answer.status_code == 200
    assert "migrate" in str(errors[0])


# Whose request it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ga/t/event", "tracker: /t/event"),
        ("/ga", "tracker: "),
        ("/ga/", "tracker: /"),
        ("/ga/api/events", "api: /events"),
        ("/ga/apis", "tracker: /apis"),
        ("/l/key", "links: /key"),
        ("/gallery", "the host at /gallery"),
        ("/lamp", "the host at /lamp"),
        ("/x/ga/t/event", "the host at /x/ga/t/event"),
        ("/GA/t", "the host at /GA/t"),
        ("/", "the host at /"),
    ],
)
async def test_requests_go_to_the_room_that_they_are_for(config: Config, path: str, expected: str) -> None:
    """The longest prefix that ends at a slash decides; all else is the host's."""
    rooms = {"ga": a_room("tracker"), "ga_api": a_room("api"), "l": a_room("links")}
    async with browser(house(config, Diary(), **rooms)) as client:
        assert (await client.get(path)).text == expected


ROOTED = [
    pytest.param({"path": "/ga/t"}, "/ga", ("/ga", "/ga/t"), id="at the root"),
    pytest.param({"path": "/ga"}, "/ga", ("/ga", "/ga"), id="the prefix alone"),
    pytest.param({"path": "/ga/"}, "/ga", ("/ga", "/ga/"), id="with its slash"),
    pytest.param({"path": "/gab"}, "/ga", None, id="another word"),
    pytest.param(
        {"path": "/sub/ga/t", "root_path": "/sub"}, "/ga", ("/sub/ga", "/sub/ga/t"), id="below a mount"
    ),
    pytest.param(
        {"path": "/ga/t", "root_path": "/sub"}, "/ga", ("/sub/ga", "/sub/ga/t"), id="behind a stripping proxy"
    ),
    pytest.param({"path": "/subga/t", "root_path": "/sub"}, "/ga", None, id="a mount's name in a word"),
    pytest.param(
        {"path": "/ga/t/", "raw_path": b"/ga/t"}, "/ga", ("/ga", "/ga/t"), id="Litestar adds a slash"
    ),
    pytest.param(
        {"path": "/ga/t/", "raw_path": b"/ga/t?x=/"}, "/ga", ("/ga", "/ga/t"), id="with a query in raw_path"
    ),
    pytest.param(
        {"path": "/ga/t/", "raw_path": b"/ga/t/"}, "/ga", ("/ga", "/ga/t/"), id="a slash that was asked for"
    ),
    pytest.param({"path": "/ga/t/", "raw_path": None}, "/ga", ("/ga", "/ga/t/"), id="without raw_path"),
    pytest.param({"path": "/", "root_path": ""}, "/ga", None, id="the root"),
]


@pytest.mark.parametrize(("scope", "prefix", "expected"), ROOTED)
def test_rooted(scope: Scope, prefix: str, expected: tuple[str, str] | None) -> None:
    """`root_path` grows by the prefix and `path` stays whole, whatever the framework made of them."""
    found = rooted({"type": "http", **scope}, prefix)

    assert (None if found is None else (found["root_path"], found["path"])) == expected


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    async with Analytics(
        shared_database_url, dataclasses.replace(config, worker=False, workspace=uuid.uuid4())
    ) as running:
        yield running


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def everything_answers(client: httpx.AsyncClient, base: str, link: str) -> None:
    """The host, the tracker, the script, the pixel and a short link below *base*."""
    assert (await client.get(f"{base}/hello")).text == "hello"
    assert (await client.post(f"{base}/ga/t/event", content=b"{}")).status_code == 202
    assert (await client.get(f"{base}/ga/js/good-analytics.js")).status_code == 200
    assert (await client.get(f"{base}/ga/t/pixel.gif")).status_code == 200
    assert (await client.get(f"{base}/l/{link}")).status_code == 302


async def test_an_app_that_is_mounted_whole(analytics: Analytics) -> None:
    """A wrapped app below another app's `/sub` finds its own paths."""
    await analytics.links.create(domain="shop.example", key="a", url="https://shop.example/")
    inner = analytics.wrap(Starlette(routes=[Route("/hello", hello)]))
    async with browser(Starlette(routes=[Mount("/sub", inner)])) as client:
        await everything_answers(client, "/sub", "a")


@pytest.mark.parametrize("path_is_whole", [True, False])
async def test_an_app_behind_a_prefix(analytics: Analytics, path_is_whole: bool) -> None:
    """A server with a root path, one that leaves it in the path and one that takes it out."""
    await analytics.links.create(domain="shop.example", key="a", url="https://shop.example/")
    wrapped = analytics.wrap(Starlette(routes=[Route("/hello", hello)]))
    async with browser(wrapped, root_path="/sub") as client:
        await everything_answers(client, "/sub" if path_is_whole else "", "a")


async def test_rooms_that_the_host_mounts_itself(analytics: Analytics) -> None:
    """Without `wrap`: the middleware around the app and each room as a mount."""
    await analytics.links.create(domain="shop.example", key="a", url="https://shop.example/")
    routes = [Route("/hello", hello), Mount("/ga", analytics.tracker), Mount("/l", analytics.redirect)]
    async with browser(analytics.middleware(Starlette(routes=routes))) as client:
        await everything_answers(client, "", "a")


async def test_a_framework_that_adds_slashes(analytics: Analytics) -> None:
    """As below Litestar: the path ends with a slash that nobody asked for."""
    await analytics.links.create(domain="shop.example", key="a", url="https://shop.example/")
    wrapped = analytics.wrap(Starlette(routes=[Route("/hello/", hello)]))

    async def litestar(scope: Scope, receive: Receive, send: Send) -> None:
        await wrapped({**scope, "path": scope["path"].rstrip("/") + "/", "root_path": ""}, receive, send)

    async with browser(litestar) as client:
        await everything_answers(client, "", "a")


async def test_websockets_are_the_hosts(config: Config) -> None:
    """Also on our own paths: the scope that the host gets is the server's own."""
    seen: list[Scope] = []

    async def host(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope: dict[str, Any] = {"type": "websocket", "path": "/ga/t/event", "headers": []}
    await house(config, Diary(), host, ga=a_room("tracker"))(scope, _nothing, _nowhere)

    assert seen == [scope]
    assert seen[0] is scope


async def _nothing() -> Message:
    return {"type": "websocket.connect"}


async def _nowhere(message: Message) -> None:
    pass


async def test_the_hosts_exceptions_pass_through(config: Config, errors: list[BaseException]) -> None:
    """What the host raises is the server's to handle, and nothing of ours."""

    async def host(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("the host's own")

    async with browser(house(config, Diary(), host)) as client:
        with pytest.raises(KeyError, match="the host's own"):
            await client.get("/")
    assert errors == []
