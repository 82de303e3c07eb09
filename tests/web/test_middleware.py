"""The middleware: cookies on documents, nothing else, and never in the host's way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goodanalytics.config import Config, Cookies
from goodanalytics.web.middleware import Middleware
from goodanalytics.web.reading import SCOPE_KEY, Visit

CLICK = "0190a000-0000-7000-8000-000000000001"
HTML = "text/html; charset=utf-8"
DOCUMENT = {"sec-fetch-dest": "document", "accept": "text/html"}


def config(**settings: Any) -> Config:
    defaults: dict[str, Any] = {
        "secret_key": "for-tests-only-" + "0" * 32,
        "new_token": lambda: "made-now",
        "clock": lambda: datetime(2026, 11, 1, 12, tzinfo=UTC),
    }
    return Config(**(defaults | settings))


def answering(content_type: str | None = HTML, resolves: bool = False, **headers: str) -> ASGIApp:
    """A host that answers with these headers (`_` stands for `-`)."""
    told = ([] if content_type is None else [("content-type", content_type)]) + [
        (name.replace("_", "-"), value) for name, value in headers.items()
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if resolves:
            scope[SCOPE_KEY].was_resolved = True
        raw = [(name.encode(), value.encode()) for name, value in told]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"page"})

    return app


def request(
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    query: str = "",
    scheme: str = "https",
    path: str = "/",
) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": scheme,
        "query_string": query.encode(),
        "headers": [
            (name.encode(), value.encode()) for name, value in {"host": "shop.example", **headers}.items()
        ],
        "client": ("203.0.113.7", 1),
    }


async def nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def cookies_from(app: ASGIApp, scope: Scope, settings: Config | None = None) -> list[str]:
    """The `Set-Cookie` values of the answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Middleware(app, settings or config())(scope, nothing, send)
    return [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]


def names(cookies: Sequence[str]) -> list[str]:
    return [cookie.partition("=")[0] for cookie in cookies]


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        pytest.param("GET", DOCUMENT, True, id="a document"),
        pytest.param("GET", {"accept": "text/html,*/*;q=0.8"}, True, id="an older browser"),
        pytest.param("POST", DOCUMENT, False, id="a form"),
        pytest.param("HEAD", DOCUMENT, False, id="HEAD"),
        pytest.param("GET", {"accept": "*/*"}, False, id="a program"),
        pytest.param("GET", {"accept": "application/json"}, False, id="an API call"),
        *(
            pytest.param("GET", {"sec-fetch-dest": dest, "accept": "text/html"}, False, id=dest)
            for dest in ("iframe", "frame", "embed", "object", "empty", "image", "script", "style", "worker", "fencedframe")
        ),
        pytest.param("GET", DOCUMENT | {"sec-gpc": "1"}, False, id="a privacy signal"),
        pytest.param("GET", DOCUMENT | {"dnt": "1"}, False, id="do not track"),
        pytest.param("GET", DOCUMENT | {"sec-purpose": "prefetch"}, False, id="a prefetch"),
    ],
)  # fmt: skip
async def test_cookies_are_for_documents(method: str, headers: Mapping[str, str], expected: bool) -> None:
    """Only HTML that a browser navigates to carries them."""
    assert bool(await cookies_from(answering(), request(headers, method=method))) == expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [(HTML, True), ("text/html", True), ("Text/HTML", True), ("application/json", False), ("text/plain", False), ("application/xhtml+xml", False), (None, False)],
)  # fmt: skip
async def test_cookies_are_for_html(content_type: str | None, expected: bool) -> None:
    """What the host answers decides as well."""
    assert bool(await cookies_from(answering(content_type), request(DOCUMENT))) == expected


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("", True),
        ("private", True),
        ("no-store", True),
        ("no-cache", True),
        ("private, max-age=600", True),
        ("max-age=0, must-revalidate", True),
        ("max-age=000", True),
        ("public", False),
        ("Public, Max-Age=600", False),
        ("max-age=600", False),
        ('max-age="600"', False),
        ("s-maxage=60, max-age=0", False),
        ("s-maxage=0", True),
        ("max-age=31536000, immutable", False),
        ("private, immutable", False),
        ("no-cache, public", False),
    ],
)
async def test_what_others_may_be_handed_carries_no_cookie(cache_control: str, expected: bool) -> None:
    """An answer that a shared cache may keep never names one visitor, even if the host asked who it is."""
    app = answering(cache_control=cache_control) if cache_control else answering()
    resolving = answering(resolves=True, **({"cache_control": cache_control} if cache_control else {}))

    assert bool(await cookies_from(app, request(DOCUMENT))) == expected
    assert bool(await cookies_from(resolving, request({"accept": "*/*"}))) == expected


async def test_two_cache_headers_are_one() -> None:
    """The second header counts like the first."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/html"),
            (b"cache-control", b"must-revalidate"),
            (b"Cache-Control", b"public"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    assert await cookies_from(app, request(DOCUMENT)) == []


async def test_who_was_asked_for_gets_the_cookie_on_any_answer() -> None:
    """A host that asks who it is on an API call wants to know it again."""
    assert names(
        await cookies_from(answering("application/json", resolves=True), request({}, method="POST"))
    ) == ["_ga_anon"]


def morsel(cookie: str, name: str) -> Any:
    return SimpleCookie(cookie)[name]


async def test_the_browsers_id_is_for_the_server_only() -> None:
    """HttpOnly, for 90 days, on the whole site, sent along from links, bound to this host."""
    (cookie,) = await cookies_from(answering(), request(DOCUMENT))
    found = morsel(cookie, "_ga_anon")

    assert found.value == "made-now.20758"
    assert (found["httponly"], found["samesite"], found["path"], found["domain"]) == (True, "Lax", "/", "")
    assert int(found["max-age"]) == 90 * 86_400


@pytest.mark.parametrize(("scheme", "expected"), [("https", True), ("http", False)])
async def test_cookies_are_secure_on_https(scheme: str, expected: bool) -> None:
    """Secure would be thrown away by a browser on plain http."""
    (cookie,) = await cookies_from(answering(), request(DOCUMENT, scheme=scheme))

    assert ("Secure" in cookie) == expected


async def test_names_life_and_reach_are_configurable() -> None:
    """Everything about the cookies can be set."""
    own = Cookies(
        anonymous="who", click="how", max_age=timedelta(hours=1), domain=".example", same_site="strict"
    )
    cookies = await cookies_from(answering(), request(DOCUMENT, query=f"ga_id={CLICK}"), config(cookies=own))
    found = morsel(cookies[0], "who")

    assert names(cookies) == ["who", "how"]
    assert (found["max-age"], found["domain"], found["samesite"]) == ("3600", ".example", "Strict")


async def test_a_known_browser_keeps_its_id_for_another_ninety_days() -> None:
    """The id stays, its life begins anew."""
    (cookie,) = await cookies_from(answering(), request(DOCUMENT | {"cookie": "_ga_anon=known.20757"}))

    assert (morsel(cookie, "_ga_anon").value, "Max-Age=7776000" in cookie) == ("known.20758", True)


@pytest.mark.parametrize("more", ["", "; _fbp=fb.1.1.1", '; theme="dark mode"'])
async def test_a_cookie_of_today_is_not_set_again(more: str) -> None:
    """A page with Set-Cookie is one that caches do not keep; a click is remembered all the same."""
    headers = DOCUMENT | {"cookie": f"_ga_anon=known.20758{more}"}
    again = await cookies_from(answering(resolves=True), request(headers, query=f"ga_id={CLICK}"))

    assert await cookies_from(answering(), request(headers)) == []
    assert await cookies_from(answering(resolves=True), request(headers)) == []
    assert names(again) == ["_ga_good"]


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        pytest.param("_ga_anon=kVJz0Y3pQmC2hX7n9bLwEg.20758", [], id="of today"),
        pytest.param(
            "_ga_anon=kVJz0Y3pQmC2hX7n9bLwEg.20757", ["kVJz0Y3pQmC2hX7n9bLwEg.20758"], id="of yesterday"
        ),
        pytest.param(
            "_ga_anon=one.20757; _ga_anon=kVJz0Y3pQmC2hX7n9bLwEg.20758", ["one.20758"], id="two of them"
        ),
        pytest.param(f"_ga_anon={'0' * 22}.20758", ["made-now.20758"], id="nobody's"),
        pytest.param("x_ga_anon=kVJz0Y3pQmC2hX7n9bLwEg.20758", ["made-now.20758"], id="another's"),
    ],
)
async def test_behind_a_proxy_cookies_are_as_the_browser_came(cookie: str, expected: list[str]) -> None:
    """The proxy's word says whether it came by https; who has a cookie of today needs none either way."""
    behind = config(trusted_proxies=["203.0.113.7"])
    headers = DOCUMENT | {"cookie": cookie, "x-forwarded-proto": "https"}

    found = [morsel(one, "_ga_anon") for one in await cookies_from(answering(), request(headers), behind)]

    assert [(one.value, one["secure"]) for one in found] == [(value, True) for value in expected]


async def test_a_short_life_begins_anew_with_each_document() -> None:
    """Where cookies live for an hour, one of today may be over before tomorrow."""
    hour = config(cookies=Cookies(max_age=timedelta(hours=1)))

    (cookie,) = await cookies_from(answering(), request(DOCUMENT | {"cookie": "_ga_anon=known.20758"}), hour)

    assert morsel(cookie, "_ga_anon")["max-age"] == "3600"


async def test_an_id_with_odd_letters_does_not_grow() -> None:
    """An id that has to be quoted comes back as the same one, day after day."""
    value = 'a b"c\\d,e'
    cookie = SimpleCookie({"_ga_anon": value})["_ga_anon"].OutputString()
    for day in range(1, 4):
        then = config(clock=lambda day=day: datetime(1970, 1, 1 + day, tzinfo=UTC))
        headers = DOCUMENT | {"cookie": cookie.partition(";")[0]}
        (cookie,) = await cookies_from(answering(), request(headers), then)

        assert morsel(cookie, "_ga_anon").value == f"{value}.0000{day}"


@pytest.mark.parametrize(
    ("ga_id", "expected"),
    [
        (CLICK, True),
        (CLICK.upper(), True),
        ("not-a-uuid", False),
        ("00000000-0000-0000-0000-000000000000", False),
        ("%0d%0aSet-Cookie:x=1", False),
        ("", False),
    ],
)
async def test_only_a_uuid_in_the_address_becomes_the_clicks_cookie(ga_id: str, expected: bool) -> None:
    """The click's cookie is readable by the page, and nothing but a click's id gets into it."""
    cookies = await cookies_from(answering(), request(DOCUMENT, query=f"ga_id={ga_id}"))

    assert names(cookies) == ["_ga_anon", "_ga_good"][: 1 + expected]
    assert not expected or cookies[1].startswith(f"_ga_good={CLICK}")
    assert not expected or "HttpOnly" not in cookies[1]


async def test_without_a_landing_the_clicks_cookie_is_left_alone() -> None:
    """A click that is in the cookie already is not written again."""
    assert names(await cookies_from(answering(), request(DOCUMENT | {"cookie": f"_ga_good={CLICK}"}))) == [
        "_ga_anon"
    ]


async def test_the_hosts_own_headers_stay() -> None:
    """Ours are added behind the host's."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Middleware(answering(set_cookie="session=1", x_own="y"), config())(request(DOCUMENT), nothing, send)

    assert [name for name, _ in sent[0]["headers"]] == [
        b"content-type",
        b"set-cookie",
        b"x-own",
        b"set-cookie",
    ]
    assert sent[0]["headers"][1] == (b"set-cookie", b"session=1")
    assert sent[1] == {"type": "http.response.body", "body": b"page"}


# Never in the way ----------------------------------------------------------------------------------------------------


async def test_the_host_finds_the_visit_in_the_scope() -> None:
    """`analytics.visitor(request)` reads it there; a refused one is there as well."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope[SCOPE_KEY])

    for headers in (DOCUMENT, DOCUMENT | {"dnt": "1"}):
        await Middleware(app, config())(request(headers), nothing, nowhere)

    assert [visit.refusal for visit in seen if isinstance(visit, Visit)] == [None, "privacy signal"]


async def nowhere(message: Message) -> None:
    pass


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_other_connections_pass_untouched(kind: str) -> None:
    """Scope, receive and send of what is not HTTP are the server's own."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    scope = {"type": kind}
    await Middleware(app, config())(scope, nothing, nowhere)

    assert seen == [{"type": kind}, nothing, nowhere]
    assert seen[0] is scope


async def test_the_hosts_exceptions_pass_through() -> None:
    """What the host raises reaches the server as it is."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("the host's own")

    with pytest.raises(KeyError, match="the host's own"):
        await Middleware(app, config())(request(DOCUMENT), nothing, nowhere)


async def test_a_streamed_answer_is_not_held_back() -> None:
    """Each part is on its way before the host makes the next one."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
        )
        for number in range(3):
            assert len(sent) == number + 1
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})

    await Middleware(app, config())(request(DOCUMENT), nothing, send)

    assert [m["type"] for m in sent] == ["http.response.start"] + ["http.response.body"] * 3


def broken_token() -> str:
    raise OSError("no random numbers left")


def broken_rule(_scope: Any) -> bool:
    raise LookupError("the host's rule is broken")


class Unwritable:
    """A token that nobody can write down."""

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    "settings",
    [{"new_token": broken_token}, {"exclude": [broken_rule]}, {"new_token": Unwritable}],
    ids=["reading", "excluding", "setting cookies"],
)
async def test_our_own_failure_never_reaches_the_host(settings: dict[str, Any]) -> None:
    """The page goes out without cookies, and the host's `on_error` hears of it."""
    errors: list[BaseException] = []
    cookies = await cookies_from(answering(), request(DOCUMENT), config(on_error=errors.append, **settings))

    assert (cookies, len(errors)) == ([], 1)


async def test_a_failing_on_error_never_reaches_the_host() -> None:
    """Not even the report of a failure is in the way."""

    def fail(error: BaseException) -> None:
        raise RuntimeError("on_error is broken")

    assert (
        await cookies_from(answering(), request(DOCUMENT), config(on_error=fail, new_token=broken_token))
        == []
    )


async def test_middleware_inside_middleware_sets_cookies_once() -> None:
    """A host that wraps twice gets one cookie."""
    assert len(await cookies_from(Middleware(answering(), config()), request(DOCUMENT))) == 1


async def test_requests_at_once_do_not_share_a_visit() -> None:
    """Each request has its own visit, however they interleave."""
    turn = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            scope[SCOPE_KEY].was_resolved = True
            await turn.wait()
        await answering("application/json")(scope, receive, send)
        turn.set()

    slow, quick = await asyncio.gather(
        cookies_from(app, request({}, path="/slow")), cookies_from(app, request({}))
    )

    assert (len(slow), len(quick)) == (1, 0)
