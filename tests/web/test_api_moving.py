"""`/links/export` and `/links/import` over HTTP: the file, the report, and whose they are."""

from __future__ import annotations

import dataclasses
import json

import httpx
import pytest

from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.store.tables import build
from goodanalytics.web.api import moving
from goodanalytics.web.api import room as api
from goodanalytics.web.api.openapi import document
from tests.web.test_api_links import KEYS, SHOP, Caller, call

__all__ = ["call"]

BITLY = (
    "Title,Long URL,Bitlink,Custom Bitlinks\n"
    "Spring,https://shop.example/,bit.ly/3xY,go.example/spring\n"
    "Bad,ftp://shop.example/,bit.ly/3xZ,go.example/bad\n"
)


async def send(call: Caller, file: str | bytes, kind: str = "text/csv", key: str = "server", **query: object):
    return await call.client.post(
        "/links/import",
        content=file,
        params=query,
        headers={"Authorization": f"Bearer {key}", "Content-Type": kind},
    )


async def keys(call: Caller, key: str = "server") -> list[str]:
    return [link["key"] for link in (await call("GET", "/links", key=key)).json()["data"]]


async def test_a_dry_run_tells_what_a_run_does(call):
    """The same report, and only the second one leaves a link; a third changes nothing. The key's name is in the history."""
    dry = await send(call, BITLY, **{"from": "bitly", "dry_run": "true"})
    before = await keys(call)
    wet = await send(call, BITLY, **{"from": "bitly"})
    again = await send(call, BITLY, **{"from": "bitly"})

    assert (dry.status_code, wet.status_code, before, await keys(call)) == (200, 200, [], ["spring"])
    assert dry.json() | {"is_dry_run": False} == wet.json()
    assert (wet.json()["created"], again.json()["created"], again.json()["already"]) == (1, 0, 1)
    (refused,) = wet.json()["refused"]
    assert (refused["row"], refused["address"]) == (3, "go.example/bad")
    (link,) = (await call("GET", "/links")).json()["data"]
    (made,) = (await call("GET", f"/links/{link['id']}/history")).json()["data"]
    assert made["actor"] == "shop server"


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
async def test_what_leaves_here_comes_in_elsewhere(call, kind):
    """Links with their domains and partners, under a name with the day; CSV has the links only. Passwords stay here."""
    partner = (await call("POST", "/partners", {"code": "ada", "name": "Ada"})).json()
    named = {"partner_id": partner["id"]} if kind != "csv" else {}
    await call("POST", "/links", {"url": SHOP, "key": "a", **named})
    await call("POST", "/links", {"url": SHOP, "key": "closed", "password": "open sesame"})
    await call("PATCH", "/domains/go.example", {"root_url": SHOP})

    file = await call("GET", "/links/export", format=kind)
    report = (await send(call, file.content, "text/plain", "elsewhere", **{"from": "goodanalytics"})).json()

    assert file.status_code == 200
    assert file.headers["content-type"].partition(";")[0] == moving.MEDIA_TYPES[kind]
    assert file.headers["content-disposition"].endswith(f'.{kind}"')
    assert file.headers["cache-control"] == "no-store"
    assert "x-request-id" in file.headers
    assert "scrypt" not in file.text
    beside = 0 if kind == "csv" else 1
    assert (report["created"], report["domains"], report["partners"]) == (1, beside, beside)
    assert ["password" in note["text"] for note in report["refused"]] == [True]
    assert await keys(call, "elsewhere") == ["a"]


async def test_an_export_of_many_links_is_whole(call):
    """All pages of it, each link once, and the default is one JSON object on a line."""
    links = [{"url": SHOP, "key": f"k{n:03}"} for n in range(450)]
    await call("POST", "/links/bulk", {"links": links})

    rows = [json.loads(line) for line in (await call("GET", "/links/export")).text.splitlines()]

    assert rows[0] == {"kind": "goodanalytics", "version": 1}
    assert sorted(row["key"] for row in rows[1:]) == [link["key"] for link in links]


@pytest.mark.parametrize(
    ("file", "query", "kind", "status", "reason"),
    [
        pytest.param("", {}, "text/csv", 400, "empty", id="empty"),
        pytest.param("a,b\n1,2\n", {}, "text/csv", 400, "no export of Bitly", id="another file"),
        pytest.param("\x00", {}, "text/csv", 400, "NUL", id="no text"),
        pytest.param('{"kind":"goodanalytics","version":9}', {"from": "goodanalytics"}, "application/json", 400, "version 9", id="later"),
        pytest.param(BITLY, {"from": "tinyurl"}, "text/csv", 422, "from", id="unknown source"),
        pytest.param(BITLY, {"from": ""}, "text/csv", 422, "from", id="no source"),
        pytest.param(BITLY, {"dry_run": "perhaps"}, "text/csv", 422, "dry_run", id="dry run"),
        pytest.param(BITLY, {"dryrun": "true"}, "text/csv", 422, "dryrun", id="typing error"),
        pytest.param(BITLY, {"domain": "a b"}, "text/csv", 422, "domain", id="domain"),
        pytest.param(BITLY, {}, "multipart/form-data; boundary=x", 415, "send text/csv", id="form"),
        pytest.param(BITLY, {}, "application/x-www-form-urlencoded", 415, "text/csv", id="curl's default"),
        pytest.param("a" * (moving.MAX_FILE + 1), {}, "text/csv", 413, "larger than", id="too large"),
    ],
)  # fmt: skip
async def test_a_bad_file_or_question_is_refused_with_the_reason_and_nothing_is_written(
    call, file, query, kind, status, reason
):
    """In the shape of every refusal."""
    response = await send(call, file, kind, **{"from": "bitly", **query})

    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert reason in response.json()["detail"].replace("application/x-ndjson or application/json or ", "")
    assert await keys(call) == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/links/export"), ("POST", "/links/import?from=bitly")])
async def test_only_a_secret_key_moves_links(call, method, path):
    """A publishable key stands in every page."""
    assert (await call(method, path, key="page")).status_code == 403
    assert (await call(method, path, key="nobody")).status_code == 401


async def test_a_database_that_is_away_is_a_refusal_and_no_empty_file(config):
    """Whoever keeps the file as a backup must not keep nothing for everything."""
    away = Database.open("postgresql://nobody@127.0.0.1:1/none", build("good_analytics"))
    own = dataclasses.replace(config, authenticate=lambda token, _: KEYS.get(token))
    room = api.app(own, away, Ingest(own, away, Hooks(own.report), None))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(room), base_url="http://shop.example"
    ) as client:
        response = await Caller(client)("GET", "/links/export")

    assert (response.status_code, "content-disposition" in response.headers) == (503, False)


def test_the_reference_says_that_bodies_are_files():
    """A client made from the document sends and gets the file itself, not JSON of it."""
    paths = document(moving.OPERATIONS, "")["paths"]

    assert paths["/links/import"]["post"]["requestBody"]["content"].keys() == set(moving.READ)
    answered = paths["/links/export"]["get"]["responses"]["200"]["content"]
    assert answered.keys() == set(moving.MEDIA_TYPES.values())
    assert {one["name"]: one["required"] for one in paths["/links/import"]["post"]["parameters"]} == {
        "from": True, "dry_run": False, "domain": False, "encoding": False,
    }  # fmt: skip


async def test_workspaces_do_not_meet(call):
    """A key takes out what is its own workspace's."""
    await call("POST", "/links", {"url": SHOP, "key": "a"})

    file = (await call("GET", "/links/export", key="elsewhere")).text

    assert [json.loads(line)["kind"] for line in file.splitlines()] == ["goodanalytics"]
