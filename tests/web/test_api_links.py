"""`/links` and `/domains` over HTTP: statuses, shapes, and whose they are."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from goodanalytics.config import Config, Principal
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.link_registry import MAX_MANY
from goodanalytics.store.database import Database
from goodanalytics.web.api import room as api

SHOP = "https://shop.example/"
KEYS = {
    "server": Principal(name="shop server"),
    "page": Principal(key_type="publishable"),
    "elsewhere": Principal(workspace_id=uuid.UUID(int=9)),
}


class Caller:
    """Calls the room with one of the keys."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "server",
        headers: Any = None,
        **query: Any,
    ) -> httpx.Response:
        return await self.client.request(
            method,
            path,
            json=body,
            params=query,
            headers={"Authorization": f"Bearer {key}", **(headers or {})},
        )


@pytest.fixture
async def call(config: Config, database: Database) -> AsyncIterator[Caller]:
    """The room of a host whose link domain is go.example."""
    settings = dataclasses.replace(
        config, link_domains=["go.example"], authenticate=lambda token, _: KEYS.get(token)
    )
    room = api.app(settings, database, Ingest(settings, database, Hooks(settings.report), None))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(room), base_url="http://shop.example"
    ) as client:
        yield Caller(client)


async def test_a_link_is_made_read_changed_and_archived(call):
    """201, 200, 200, 204; an archived link is read by its id and is in no list; its address is free."""
    made = await call("POST", "/links", {"url": SHOP, "key": "a", "tags": ["x"], "password": "secret"})
    path = f"/links/{made.json()['id']}"
    changed = await call("PATCH", path, {"title": "T", "tags": None})
    archived = await call("DELETE", path)
    found = await call("GET", path)
    again = await call("POST", "/links", {"url": SHOP, "key": "a"})

    assert (made.status_code, changed.status_code, found.status_code, again.status_code) == (
        201,
        200,
        200,
        201,
    )
    assert (archived.status_code, archived.content) == (204, b"")
    assert made.json()["short_url"] == "https://go.example/a"
    assert (changed.json()["title"], changed.json()["tags"], changed.json()["has_password"]) == (
        "T",
        [],
        True,
    )
    assert found.json()["archived_at"] is not None
    assert "secret" not in made.text + changed.text
    assert "scrypt" not in made.text + found.text
    assert [link["id"] for link in (await call("GET", "/links")).json()["data"]] == [again.json()["id"]]
    assert (await call("DELETE", path)).status_code == 404


@pytest.mark.parametrize(
    ("body", "where"),
    [
        pytest.param({}, "url", id="no destination"),
        pytest.param({"url": "ftp://x"}, "url", id="a destination that is not on the web"),
        pytest.param({"url": SHOP, "uri": SHOP}, "uri", id="an unknown name"),
        pytest.param({"url": SHOP, "key": "a b"}, "key", id="a key with a blank"),
        pytest.param({"url": SHOP, "key": "robots"}, "key", id="a reserved key"),
        pytest.param({"url": SHOP, "expires_at": "2026-11-01"}, "expires_at", id="a day for a time"),
        pytest.param({"url": SHOP, "expires_at": "2026-11-01T00:00:00"}, "expires_at", id="a time without a zone"),
        pytest.param({"url": SHOP, "redirect_status": 200}, "redirect_status", id="no redirect"),
        pytest.param({"url": SHOP, "password_hash": "x"}, "password_hash", id="a digest of one's own"),
        pytest.param({"url": SHOP, "rules": [{"url": SHOP, "when": {"colour": "red"}}]}, "rules[0].when.colour", id="a rule"),
        pytest.param({"url": SHOP, "rules": [{"url": "x", "when": {"os": ["ios"]}}]}, "rules[0].url", id="a rule's destination"),
        pytest.param({"url": SHOP, "metadata": {"a": "\0"}}, "metadata", id="a NUL"),
    ],
)  # fmt: skip
async def test_a_wrong_link_is_refused_at_its_place(call, body, where):
    """422, a problem, and the path to the value."""
    response = await call("POST", "/links", body)

    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert response.json()["errors"][0]["loc"] == where


async def test_what_is_in_use_is_a_conflict(call):
    """409 for an address and for an external id, on making and on changing."""
    first = await call("POST", "/links", {"url": SHOP, "key": "a", "external_id": "e"})
    other = await call("POST", "/links", {"url": SHOP})
    answers = [
        await call("POST", "/links", {"url": SHOP, "key": "a"}),
        await call("POST", "/links", {"url": SHOP, "external_id": "e"}),
        await call("PATCH", f"/links/{other.json()['id']}", {"key": "a"}),
        await call("PUT", "/links/by-external-id/f", {"url": SHOP, "key": "a"}),
    ]

    assert first.status_code == 201
    assert [(one.status_code, one.json()["code"]) for one in answers] == [
        (409, "conflict"), (409, "name_taken"), (409, "conflict"), (409, "conflict"),
    ]  # fmt: skip


async def test_a_key_makes_one_link(call):
    """201, then 200 with the same link, and 409 for another body."""
    headers = {"Idempotency-Key": "k"}
    first = await call("POST", "/links", {"url": SHOP}, headers=headers)
    again = await call("POST", "/links", {"url": SHOP}, headers=headers)
    other = await call("POST", "/links", {"url": SHOP, "title": "T"}, headers=headers)
    theirs = await call(
        "POST", "/links", {"url": SHOP, "domain": "go.example"}, headers=headers, key="elsewhere"
    )

    assert [one.status_code for one in (first, again, other, theirs)] == [201, 200, 409, 201]
    assert again.json() == first.json()
    assert other.json()["code"] == "idempotency_key_reused"
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_upsert_by_external_id(call):
    """201 when it makes, 200 when it changes; an id may hold slashes, and the body may not name another."""
    made = await call("PUT", "/links/by-external-id/shop/42", {"url": SHOP, "title": "T"})
    changed = await call("PUT", "/links/by-external-id/shop/42", {"url": f"{SHOP}new"})
    other = await call("PUT", "/links/by-external-id/shop/42", {"external_id": "43"})
    bare = await call("PUT", "/links/by-external-id/44", {"title": "T"})

    assert [one.status_code for one in (made, changed, other, bare)] == [201, 200, 422, 422]
    assert changed.json() == {**made.json(), "url": f"{SHOP}new", "updated_at": changed.json()["updated_at"]}


async def test_bulk_tells_of_each_item(call):
    """201 or 200 when all went well, 207 with a problem in its place when not."""
    made = await call("POST", "/links/bulk", {"links": [{"url": SHOP, "external_id": n} for n in "abc"]})
    ids = [one["link"]["id"] for one in made.json()["results"]]
    mixed = await call("POST", "/links/bulk", {"links": [{"url": "x"}, {"url": SHOP}, {"uri": SHOP}, 7]})
    changed = await call(
        "POST", "/links/bulk",
        {"action": "update", "links": [{"id": ids[0], "title": "T"}, {"title": "no id"}, {"id": str(uuid.UUID(int=1)), "title": "T"}]},
    )  # fmt: skip
    upserted = await call(
        "POST",
        "/links/bulk",
        {"action": "upsert", "links": [{"external_id": "a"}, {"external_id": "d", "url": SHOP}]},
    )
    archived = await call("POST", "/links/bulk", {"action": "archive", "links": [{"id": one} for one in ids]})

    def told(response: httpx.Response) -> list[Any]:
        return [
            (one["index"], one["status"], one.get("error", {}).get("status"))
            for one in response.json()["results"]
        ]

    assert [one.status_code for one in (made, mixed, changed, upserted, archived)] == [
        201,
        207,
        207,
        200,
        200,
    ]
    assert told(mixed) == [(0, "error", 422), (1, "created", None), (2, "error", 422), (3, "error", 422)]
    assert mixed.json()["results"][2]["error"]["errors"][0]["loc"] == "uri"
    assert told(changed) == [(0, "updated", None), (1, "error", 422), (2, "error", 404)]
    assert told(upserted) == [(0, "unchanged", None), (1, "created", None)]
    assert told(archived) == [(n, "archived", None) for n in range(3)]


async def test_a_bulk_call_under_a_key_is_finished_later(call):
    """What was made is handed out, what was wrong is tried; a key is for new links only."""
    headers = {"Idempotency-Key": "k"}
    body: dict[str, Any] = {"links": [{"url": SHOP, "key": "a"}, {"url": "x"}]}
    first = await call("POST", "/links/bulk", body, headers=headers)
    body["links"][1]["url"] = SHOP
    second = await call("POST", "/links/bulk", body, headers=headers)
    wrong = await call("POST", "/links/bulk", {**body, "action": "archive"}, headers=headers)

    assert [one["status"] for one in first.json()["results"]] == ["created", "error"]
    assert [one["status"] for one in second.json()["results"]] == ["repeated", "created"]
    assert (first.status_code, second.status_code, wrong.status_code) == (207, 201, 422)


@pytest.mark.parametrize(
    "links", [[], [{"url": SHOP}] * (MAX_MANY + 1), "nonsense"], ids=["none", "too many", "no list"]
)
async def test_a_bulk_call_that_is_none_is_refused_whole(call, links):
    """422, and nothing is made."""
    response = await call("POST", "/links/bulk", {"links": links})

    assert response.status_code == 422
    assert (await call("GET", "/links")).json()["data"] == []


async def test_a_list_is_filtered_sorted_and_paged(call):
    """By what the query says; an unknown parameter is refused."""
    for key, said in {"a": {"tags": ["x"]}, "b": {}, "c": {"tags": ["x"], "folder": "f"}}.items():
        await call("POST", "/links", {"url": SHOP, "key": key, **said})
    first = (await call("GET", "/links", sort="key", limit=2)).json()
    rest = (await call("GET", "/links", sort="key", limit=2, cursor=first["page"]["next_cursor"])).json()

    def keys(page: Any) -> list[str]:
        return [link["key"] for link in page["data"]]

    assert (keys(first), keys(rest), rest["page"]) == (
        ["a", "b"],
        ["c"],
        {"next_cursor": None, "has_more": False},
    )
    assert keys((await call("GET", "/links", tag="x", sort="-key")).json()) == ["c", "a"]
    assert keys((await call("GET", "/links", folder="f", search="GO.EXAMPLE/")).json()) == ["c"]
    assert keys((await call("GET", "/links", archived="true")).json()) == []
    assert len(keys((await call("GET", "/links", archived="all")).json())) == 3
    for wrong in (
        {"limit": 0},
        {"sort": "luck"},
        {"from": "2026-11-01T00:00:00Z"},
        {"sort": "-clicks", "to": "2026-11-01T00:00:00Z"},
        {"sort": "-clicks", "from": "2026-11-01"},
        {"cursor": "x"},
        {"colour": "red"},
        {"archived": "maybe"},
    ):
        assert (await call("GET", "/links", **wrong)).status_code == 422


async def test_history_figures_and_clicks_have_their_own_pages(call):
    """Who made it is the key's name; a new link has zeros and no clicks."""
    link = (await call("POST", "/links", {"url": SHOP})).json()
    await call("PATCH", f"/links/{link['id']}", {"title": "T"})
    told = (await call("GET", f"/links/{link['id']}/history")).json()["data"]
    stats = await call(
        "GET", f"/links/{link['id']}/stats", **{"from": "2026-11-01T00:00:00Z", "to": "2026-11-03T00:00:00Z"}
    )
    clicks = await call("GET", f"/links/{link['id']}/clicks", include_bots="true")

    assert [(one["actor"], one["changes"].get("title")) for one in told] == [
        ("shop server", {"old": None, "new": "T"}), ("shop server", None),
    ]  # fmt: skip
    assert (
        stats.json()["total_clicks"],
        stats.json()["unique_clicks"],
        stats.json()["total_revenue_cents"],
    ) == (0, 0, 0)
    assert len(stats.json()["clicks_over_time"]) == 2
    assert clicks.json() == {"data": [], "page": {"next_cursor": None, "has_more": False}}
    for wrong in (
        {"to": "2026-11-03T00:00:00Z"},
        {"interval": "year"},
        {"timezone": "Mars"},
        {"unique_window": 5},
    ):
        assert (await call("GET", f"/links/{link['id']}/stats", **wrong)).status_code == 422


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        pytest.param("127.0.0.1:8000", "http://127.0.0.1:8000/l/a", id="this computer"),
        pytest.param("shop.example", "https://shop.example/l/a", id="a host"),
        pytest.param("go.example", "https://go.example/a", id="a link domain"),
    ],
)
async def test_a_short_address_can_be_opened(call, domain, expected):
    """Https, but on this computer itself, when it was asked by http."""
    made = await call("POST", "/links", {"url": SHOP, "key": "a", "domain": domain})

    assert made.json()["short_url"] == expected


@pytest.mark.parametrize("tail", ["", "/history", "/stats", "/clicks"])
@pytest.mark.parametrize("link_id", [str(uuid.UUID(int=1)), "nonsense"])
async def test_an_unknown_link_is_not_found(call, tail, link_id):
    """404, also for what is no id."""
    assert (await call("GET", f"/links/{link_id}{tail}")).status_code == 404


async def test_a_page_may_not_touch_links_and_others_do_not_see_them(call):
    """403 for a publishable key, 404 for another workspace's."""
    link = (await call("POST", "/links", {"url": SHOP})).json()

    assert (await call("GET", "/links", key="page")).status_code == 403
    assert (await call("POST", "/links", {"url": SHOP}, key="page")).status_code == 403
    for method, body in (("GET", None), ("PATCH", {"title": "T"}), ("DELETE", None)):
        assert (await call(method, f"/links/{link['id']}", body, key="elsewhere")).status_code == 404
    assert (await call("GET", "/links", key="elsewhere")).json()["data"] == []


async def test_domains_are_set_and_read(call):
    """A domain of which nothing was said has the defaults; what is left out stays, null clears."""
    bare = (await call("GET", "/domains/GO.example")).json()
    await call("PATCH", "/domains/go.example", {"root_url": SHOP, "case_sensitive": False})
    changed = await call("PATCH", "/domains/go.example", {"not_found_url": f"{SHOP}404", "root_url": None})
    folded = await call("POST", "/links", {"url": SHOP, "key": "Spring"})

    assert (bare["host"], bare["case_sensitive"], bare["created_at"]) == ("go.example", True, None)
    assert (changed.json()["root_url"], changed.json()["not_found_url"], changed.json()["case_sensitive"]) == (
        None, f"{SHOP}404", False,
    )  # fmt: skip
    assert folded.json()["key"] == "spring"
    assert [one["host"] for one in (await call("GET", "/domains")).json()["data"]] == ["go.example"]
    assert (await call("GET", "/domains", key="elsewhere")).json()["data"] == []
    assert (await call("PATCH", "/domains/go.example", {"root_url": "x"})).status_code == 422
    assert (await call("GET", "/domains/a b")).status_code == 422


async def test_every_method_of_a_path_is_named(call):
    """405 tells what would do."""
    answers = [
        await call("POST", "/links/x", {}),
        await call("PUT", "/links", {}),
        await call("POST", "/domains", {}),
    ]

    assert [(one.status_code, one.headers["Allow"]) for one in answers] == [
        (405, "DELETE, GET, HEAD, PATCH"), (405, "GET, HEAD, POST"), (405, "GET, HEAD"),
    ]  # fmt: skip
