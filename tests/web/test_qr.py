"""`GET …/{key}/qr`: what is asked for is drawn, read by somebody else's reader, and kept by caches no longer than the link."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import resvg_py
import zxingcpp
from PIL import Image
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.routing import Mount

from goodanalytics import Analytics, Config, qr
from goodanalytics.core.links import Link
from goodanalytics.errors import InvalidInput, NotFound
from goodanalytics.web.links.qr import MAX_PARAMETERS, asked, short_url
from tests.conftest import FrozenClock
from tests.web.link_site import told

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


@pytest.fixture(scope="module")
async def shared(shared_database_url: str) -> AsyncIterator[Analytics]:
    """One running site for all tests of the module; see `analytics`."""
    clock = FrozenClock()
    config = Config(
        secret_key="for-tests-only-" + "0" * 32, clock=clock, spool_path="off", worker=False, rate_limits=None,
        link_domains=["go.example"],
    )  # fmt: skip
    async with Analytics(shared_database_url, config) as running:
        yield running


@pytest.fixture
async def analytics(shared: Analytics) -> AsyncIterator[Analytics]:
    """The site, without a link in use."""
    yield shared
    links = await shared.links.list(limit=200)
    await shared.links.archive_many([link.id for link in links.items])
    shared.config.clock.advance(timedelta(minutes=5))  # nothing is fresh any more


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(analytics.wrap(Starlette()), client=("203.0.113.7", 1))
    async with httpx.AsyncClient(
        transport=transport, base_url="https://go.example", headers={"user-agent": BROWSER}
    ) as client:
        yield client


async def make(analytics: Analytics, **fields: Any) -> Link:
    link = await analytics.links.create(
        **{"domain": "go.example", "key": "a", "url": "https://shop.example/lamps"} | fields
    )
    if analytics._links._listener.is_listening:  # which begins with the first link that is asked for
        await told(analytics)
    return link


def read(answer: httpx.Response) -> str:
    drawn = answer.content
    if answer.headers["content-type"] == "image/svg+xml":
        drawn = resvg_py.svg_to_bytes(svg_string=drawn.decode())
    (found,) = zxingcpp.read_barcodes(Image.open(io.BytesIO(drawn)).convert("L"))
    return found.text


@pytest.mark.parametrize(
    ("query", "media_type", "width"),
    [
        ("", "image/svg+xml", 330),
        ("?format=png", "image/png", 330),
        ("?format=png&size=3&margin=2", "image/png", 87),
        ("?format=svg&width=500", "image/svg+xml", 500),
        ("?format=png&width=501&dark=1A2B3C&light=F0F0F0&ec=high", "image/png", 501),
        ("?format=png&fg=1a2b3c&bg=f0f0f0&ec=l&utm_source=x", "image/png", 330),
    ],
)
async def test_a_code_is_drawn_as_asked_and_leads_to_the_link(analytics, client, query, media_type, width):
    """Whoever scans it comes to the short address, with the marker that makes the scan's medium."""
    await make(analytics)

    answer = await client.get(f"/a/qr{query}")

    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert read(answer) == "https://go.example/a?qr=1"
    drawn = answer.content if media_type == "image/png" else resvg_py.svg_to_bytes(svg_string=answer.text)
    assert Image.open(io.BytesIO(drawn)).size == (width, width)


async def test_a_scan_is_a_click_with_the_medium_qr_and_a_look_at_the_code_is_none(analytics, client):
    """The code's own address is what a phone opens."""
    await make(analytics)
    code = await client.get("/a/qr")
    assert await analytics.drain() == 0

    await client.get(read(code))

    assert await analytics.drain() == 1
    e = analytics.database.tables.events.c
    async with analytics.database.connect() as conn:
        (event,) = await conn.execute(select(e.event_type, e.medium, e.properties))
    assert tuple(event) == ("link_click", "qr", {"qr": True})


async def test_a_code_has_the_headers_of_a_picture_that_others_may_keep(analytics, client):
    """A day in caches, no scripts, no guessing, no indexing."""
    await make(analytics)

    answer = await client.get("/a/qr?format=png")

    told = {name: answer.headers[name] for name in (
        "cache-control", "x-content-type-options", "x-frame-options", "x-robots-tag", "content-disposition",
    )}  # fmt: skip
    assert told == {
        "cache-control": "public, max-age=86400",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "x-robots-tag": "noindex",
        "content-disposition": 'inline; filename="a.png"',
    }
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "set-cookie" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_what_a_cache_has_is_not_drawn_again(analytics, client, monkeypatch):
    """The same picture has the same tag, another one has another; `*` and lists are understood."""
    await make(analytics)
    tag = (await client.get("/a/qr?format=png")).headers["etag"]
    drawn = []
    monkeypatch.setattr(qr, "draw", lambda *asked: drawn.append(asked) or b"")

    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await client.get("/a/qr?format=png", headers={"if-none-match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert drawn == []
    assert (await client.get("/a/qr?format=png&size=9", headers={"if-none-match": tag})).status_code == 200
    assert len(drawn) == 1


async def test_a_head_request_gets_the_headers_alone(analytics, client):
    """As long as the picture is."""
    await make(analytics)

    head, get = await client.head("/a/qr"), await client.get("/a/qr")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("format=gif", "format"),
        ("size=0", "size"),
        ("size=51", "size"),
        ("size=999", "size"),
        ("size=abc", "size"),
        ("size=1e1", "size"),
        ("size=%D9%A1", "size"),
        ("width=9999", "width"),
        ("format=png&width=32", "width"),
        ("margin=-1", "margin"),
        ("margin=21", "margin"),
        ("dark=%23ff0000", "dark"),
        ("fg=1234567", "dark"),
        ("light=xyz", "light"),
        ("dark=ffffff", "contrast"),
        ("dark=ffffff&light=000000", "contrast"),
        ("ec=best", "ec"),
        ("&".join(f"a{n}=1" for n in range(60)), "parameters"),
    ],
)
async def test_a_wrong_value_is_refused_with_its_name(analytics, client, query, word):
    """400 and a sentence; nothing of it in a cache."""
    await make(analytics)

    answer = await client.get(f"/a/qr?{query}")

    assert (answer.status_code, word in answer.text) == (400, True), answer.text
    assert answer.headers["cache-control"] == "private, no-store"


async def test_the_most_that_may_be_asked_for_is_drawn(analytics, client):
    """The largest modules of the original's contract."""
    await make(analytics)

    assert read(await client.get("/a/qr?format=png&size=50")) == "https://go.example/a?qr=1"
    assert read(await client.get("/a/qr?format=png&size=1")) == "https://go.example/a?qr=1"


async def test_without_a_link_there_is_no_code(analytics, client):
    """Unknown and archived keys, and what is no key."""
    link = await make(analytics, key="gone")
    await analytics.links.archive(link.id)

    for path in ("/unknown/qr", "/gone/qr", "/qr"):
        assert (await client.get(path)).status_code == 404, path
    assert (await client.post("/gone/qr")).status_code == 405


async def test_a_code_lives_no_longer_than_its_link(analytics, client):
    """A cache drops it at the moment at which the link is over; then there is none."""
    await make(analytics, expires_at=analytics.config.clock() + timedelta(minutes=2, microseconds=1))

    assert (await client.get("/a/qr")).headers["cache-control"] == "public, max-age=120"
    analytics.config.clock.advance(timedelta(minutes=3))
    assert (await client.get("/a/qr")).status_code == 410


async def test_a_link_that_is_protected_or_not_yet_in_use_has_a_code(analytics, client):
    """It is printed before; the code holds the short address alone."""
    await make(analytics, key="early", starts_at=analytics.config.clock() + timedelta(days=1))
    await make(analytics, key="closed", password="open sesame")

    assert read(await client.get("/early/qr")) == "https://go.example/early?qr=1"
    assert read(await client.get("/closed/qr")) == "https://go.example/closed?qr=1"
    assert b"lamps" not in (await client.get("/closed/qr")).content


async def test_a_link_that_passes_paths_on_keeps_its_own_qr_path(analytics, client):
    """`/key/qr` is always the code; what lies deeper goes to the destination."""
    await make(analytics, forward_path=True)

    assert (await client.get("/a/qr")).headers["content-type"] == "image/svg+xml"
    assert (await client.get("/a/b/qr")).headers["location"].startswith("https://shop.example/lamps/b/qr?")


async def test_on_the_apps_own_host_the_code_leads_below_the_link_path(analytics):
    """Where the host app itself is mounted does not matter; the request's own host name is never taken."""
    await make(analytics, domain="shop.example")
    app = Starlette(routes=[Mount("/below", app=analytics.wrap(Starlette()))])
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 1))

    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example:8443") as client:
        answer = await client.get("/below/l/a/qr")

    assert read(answer) == "https://shop.example/below/l/a?qr=1"


async def test_mounted_by_itself_the_app_answers_for_bare_keys(analytics):
    """`analytics.qr` at a path of the host's choice draws the link's own address."""
    await make(analytics, domain="shop.example")
    app = Starlette(routes=[Mount("/codes", app=analytics.qr)])
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 1))

    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        found = [read(await client.get(f"/codes/{path}")) for path in ("a", "a/qr")]

    assert found == ["https://shop.example/l/a?qr=1"] * 2


@pytest.mark.parametrize(
    ("domain", "is_secure", "start"),
    [
        ("go.example", True, "https://go.example/"),
        ("go.example", False, "https://go.example/"),
        ("localhost:8000", False, "http://localhost:8000/l/"),
        ("127.0.0.1:8000", False, "http://127.0.0.1:8000/l/"),
        ("shop.localhost", False, "http://shop.localhost/l/"),
        ("localhost.evil.example", False, "https://localhost.evil.example/l/"),
        ("localhost", True, "https://localhost/l/"),
    ],
)
async def test_a_printed_code_says_https(analytics, domain, is_secure, start):
    """Only this computer's own names, which get no certificate, stay as they were asked for."""
    link = await make(analytics, domain=domain)

    assert short_url(analytics.config, link, is_secure=is_secure).startswith(start)


async def test_a_changed_link_has_its_new_code(analytics, client):
    """The code of a key that was moved is the new key's."""
    link = await make(analytics)
    await client.get("/a/qr")

    await analytics.links.update(link, key="b")
    await told(analytics)

    assert (await client.get("/a/qr")).status_code == 404
    assert read(await client.get("/b/qr")) == "https://go.example/b?qr=1"


def test_what_is_not_asked_for_is_as_the_host_set_it():
    """Size and width are one choice: whoever names one, drops the other."""
    own = qr.Style(width=700, dark="1a2b3c", correction="quartile")

    assert asked(b"", own) == ("svg", own)
    assert asked(b"format=png&size=4&size=5", own) == ("png", dataclasses.replace(own, width=None, size=4))
    assert asked(b"ec=h", own)[1].correction == "high"
    with pytest.raises(InvalidInput):
        asked(b"&".join(b"a=1" for _ in range(MAX_PARAMETERS + 1)), own)


@pytest.mark.parametrize("kind", qr.FORMATS)
async def test_python_draws_what_http_answers(analytics, client, kind):
    """`links.qr` takes a link or its id; the file is the same, byte for byte."""
    link = await make(analytics)
    style: qr.StyleFields = {"size": 7, "dark": "1a2b3c", "correction": "high"}

    answer = await client.get(f"/a/qr?format={kind}&size=7&dark=1a2b3c&ec=high")

    assert await analytics.links.qr(link, kind, **style) == answer.content
    assert await analytics.links.qr(str(link.id), kind, **style) == answer.content


async def test_python_draws_a_logo(analytics):
    """From the bytes of a picture; the code is still read."""
    link = await make(analytics)
    written = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(written, "PNG")

    drawn = await analytics.links.qr(link, "png", logo=written.getvalue())

    picture = Image.open(io.BytesIO(drawn))
    assert picture.getpixel((picture.width // 2, picture.height // 2)) == (200, 30, 30)
    (found,) = zxingcpp.read_barcodes(picture)
    assert found.text == "https://go.example/a?qr=1"


async def test_a_code_of_no_link_is_not_drawn(analytics):
    """The id is another workspace's, or nobody's."""
    with pytest.raises(NotFound):
        await analytics.links.qr("11111111-1111-7111-8111-111111111111")


async def test_a_link_is_shared_under_its_short_address(analytics):
    """With its own title, unless the host says another."""
    link = await make(analytics, title="Lamps")

    told = analytics.links.share_urls(link)

    assert told["copy"] == "https://go.example/a"
    assert told["telegram"].endswith("url=https%3A%2F%2Fgo.example%2Fa%3Fs%3Dtelegram&text=Lamps")
    assert analytics.links.share_urls(link, "Sofas", marked=False)["whatsapp"].endswith(
        "text=Sofas%20https%3A%2F%2Fgo.example%2Fa"
    )
