"""Merging, taking apart, erasing and signing out, as REST, the dashboard, the tracker and the command line do it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from goodanalytics import Analytics, Config, Principal
from goodanalytics.cli.commands import main

BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
SECRET = {"Authorization": "Bearer secret"}
HERE = {"sec-fetch-site": "same-origin"}


async def page(scope, receive, send):
    analytics = scope["analytics"]
    if scope["path"] == "/logout":
        analytics.reset(scope)
    if scope["path"].startswith("/login/"):
        await analytics.identify(external_id=scope["path"].rpartition("/")[2], request=scope)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>Shop</title>"})


@pytest.fixture
async def analytics(database_url: str, config: Config) -> AsyncIterator[Analytics]:
    principals = {"secret": Principal(config.workspace, "secret", "server one"),
                  "public": Principal(config.workspace, "publishable", "page")}  # fmt: skip
    settings = dataclasses.replace(
        config,
        worker=False,
        authenticate=lambda token, _kind: principals.get(token),
        dashboard_auth=lambda connection: "stranger" not in connection.headers,
    )
    async with Analytics(database_url, settings) as running:
        yield running


@pytest.fixture
async def client(analytics: Analytics) -> AsyncIterator[httpx.AsyncClient]:
    async def host(scope, receive, send):
        await page({**scope, "analytics": analytics}, receive, send)

    transport = httpx.ASGITransport(analytics.wrap(host), client=("203.0.113.7", 1234))
    async with httpx.AsyncClient(
        transport=transport,
        base_url="https://shop.example",
        headers={"user-agent": BROWSER, "accept": "text/html"},
    ) as browser:
        yield browser


@pytest.fixture
async def pair(analytics: Analytics) -> tuple[UUID, UUID]:
    """Two visitors, the older first."""
    found = []
    for name in ("one", "two"):
        found.append((await analytics.resolve({"anonymous_id": name})).id)
        analytics.config.clock.advance(timedelta(seconds=1))
    return tuple(found)


async def merged(analytics: Analytics, pair) -> str:
    """The id of the merge that makes *pair* one person."""
    await analytics.visitors.merge(*pair, reason="same")
    return str((await analytics.visitors.why(pair[0])).merges[0]["id"])


class TestRest:
    async def test_merge_and_unmerge(self, client, pair):
        """The person, then the two; the ledger names the key that asked, and both reasons."""
        one, other = pair
        url = f"/ga/api/visitors/{other}"
        told = await client.post(
            f"{url}/merge", headers=SECRET, json={"other_id": str(one), "reason": "same customer"}
        )
        (merge,) = (await client.get(f"{url}/why", headers=SECRET)).json()["merges"]
        split = await client.post(
            f"{url}/unmerge", headers=SECRET, json={"merge_id": merge["id"], "reason": "not so"}
        )
        (merge,) = (await client.get(f"{url}/why", headers=SECRET)).json()["merges"]

        assert (told.status_code, told.json()["id"]) == (200, str(one))
        assert [v["id"] for v in split.json()["visitors"]] == [str(one), str(other)]
        assert [merge[n] for n in ("actor", "reason", "undone_by", "undone_reason")] == [
            "server one", "same customer", "server one", "not so",
        ]  # fmt: skip

    async def test_two_names_are_a_conflict_without_force(self, analytics, client):
        """409, and 200 with force."""
        ids = [str((await analytics.identify(external_id=name)).id) for name in ("ann", "bob")]
        body = {"other_id": ids[1], "reason": "same"}
        answers = [
            await client.post(f"/ga/api/visitors/{ids[0]}/merge", headers=SECRET, json=body | extra)
            for extra in ({}, {"force": True})
        ]

        assert [answer.status_code for answer in answers] == [409, 200]

    async def test_somebody_elses_merge_is_not_found(self, analytics, client, pair):
        """A merge is undone through one of its own people only."""
        merge_id = await merged(analytics, pair)
        stranger = (await analytics.resolve({"anonymous_id": "three"})).id
        body = {"merge_id": merge_id, "reason": "no"}
        answer = await client.post(f"/ga/api/visitors/{stranger}/unmerge", headers=SECRET, json=body)

        assert answer.status_code == 404

    async def test_erase(self, client, analytics, pair):
        """The answer counts what went; afterwards the visitor is unknown, and its cookie too."""
        url = f"/ga/api/visitors/{pair[0]}"
        gone = await client.delete(url, headers=SECRET, params={"reason": "asked by mail"})
        after = [
            await client.get(url, headers=SECRET),
            await client.delete(url, headers=SECRET),
            await client.post("/ga/api/visitors/resolve", headers=SECRET, json={"anonymous_id": "one"}),
        ]

        assert (gone.status_code, gone.json()["visitors"]) == (200, 1)
        assert [answer.status_code for answer in after] == [404, 404, 404]
        async with analytics.database.connect() as conn:
            (noted,) = (await conn.execute(select(analytics.database.tables.audit))).all()
        assert (noted.action, noted.actor, noted.reason) == ("visitors.forget", "server one", "asked by mail")

    async def test_resolve(self, client, pair):
        """Finds whoever a cookie points to."""
        answer = await client.post("/ga/api/visitors/resolve", headers=SECRET, json={"anonymous_id": "one"})

        assert answer.json()["id"] == str(pair[0])

    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/merge"), ("POST", "/unmerge"), ("DELETE", "")],
    )
    async def test_a_pages_key_may_not(self, client, pair, method, path):
        """A publishable key, which everybody can read in the page, changes nobody."""
        answer = await client.request(
            method,
            f"/ga/api/visitors/{pair[0]}{path}",
            headers={"Authorization": "Bearer public"},
            json={"other_id": str(pair[1]), "merge_id": str(pair[1]), "reason": "x"},
        )

        assert answer.status_code == 403


class TestDashboard:
    async def split(self, client, pair, merge_id: str, headers, reason: str = "shared mailbox"):
        return await client.post(
            f"/ga/dashboard/visitors/{pair[0]}/split",
            data={"merge_id": merge_id, "reason": reason},
            headers=headers,
        )

    async def test_the_button_splits(self, analytics, client, pair):
        """From our own page, the two are two again, and the page tells of it."""
        merge_id = await merged(analytics, pair)
        before = await client.get(f"/ga/dashboard/visitors/{pair[1]}")
        answer = await self.split(client, pair, merge_id, HERE)
        shown = await client.get(answer.headers["location"].partition("#")[0])

        assert "Split these again" in before.text
        assert answer.status_code == 303
        assert "shared mailbox" in shown.text
        assert (await analytics.visitors.get(pair[1])).id == pair[1]

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param({}, id="a browser that says nothing"),
            pytest.param({"sec-fetch-site": "cross-site"}, id="another site"),
            pytest.param({"sec-fetch-site": "same-site"}, id="a neighbour"),
            pytest.param({"origin": "https://evil.example"}, id="another origin"),
            pytest.param({"origin": "null"}, id="no origin"),
            pytest.param({**HERE, "stranger": "1"}, id="somebody who may not see it"),
        ],
    )
    async def test_nobody_else_presses_it(self, analytics, client, pair, headers):
        """A request that is not our own page's, or not let in, is refused and changes nothing."""
        answer = await self.split(client, pair, await merged(analytics, pair), headers)

        assert answer.status_code == 403
        assert (await analytics.visitors.get(pair[1])).id == pair[0]

    @pytest.mark.parametrize(
        ("merge_id", "reason", "status"),
        [
            ("x", "why", 404),
            (str(UUID(int=5)), "why", 404),
            (str(UUID(int=5)), " ", 400),
            ("y", "z" * 70_000, 400),
        ],
    )
    async def test_what_cannot_be_split_is_told(self, client, pair, merge_id, reason, status):
        """An answer is a page, whatever is sent."""
        answer = await self.split(client, pair, merge_id, HERE, reason)

        assert (answer.status_code, "<h1" in answer.text) == (status, True)


class TestSignOut:
    async def test_reset_gives_the_browser_a_new_cookie(self, analytics, client):
        """What is done after the sign-out is nobody's."""
        await client.get("/login/ann")
        cookie = client.cookies["_ga_anon"]
        await client.get("/logout")
        fresh = await analytics.resolve({"anonymous_id": client.cookies["_ga_anon"]})

        assert client.cookies["_ga_anon"] != cookie
        assert (await analytics.resolve({"anonymous_id": cookie})).external_id == "ann"
        assert fresh.external_id is None

    async def test_the_trackers_reset(self, client):
        """`POST …/t/reset` does the same for a script, and drops the click's cookie."""
        await client.get(f"/?ga_id={UUID(int=9)}")
        cookie = client.cookies["_ga_anon"]
        answer = await client.post("/ga/t/reset")

        assert answer.status_code == 204
        assert client.cookies["_ga_anon"] != cookie
        assert "_ga_good" not in client.cookies

    async def test_a_privacy_signal_gets_no_cookie(self, client):
        """Nor does a sign-out set one."""
        answer = await client.post("/ga/t/reset", headers={"sec-gpc": "1"})

        assert "set-cookie" not in answer.headers

    async def test_the_browser_follows_who_signs_in(self, analytics, client):
        """`identify(request=…)` without a sign-out in between: the browser is the second user's."""
        await client.get("/login/ann")
        await client.get("/login/bob")

        assert (await analytics.resolve({"anonymous_id": client.cookies["_ga_anon"]})).external_id == "bob"

    async def test_an_erased_persons_browser_is_nobody(self, analytics, client):
        """`analytics.visitor(request)` answers None and the page goes on."""
        await client.get("/login/ann")
        await analytics.visitors.forget(await analytics.visitors.by_external_id("ann"), reason="asked")
        headers = [
            (b"cookie", f"_ga_anon={client.cookies['_ga_anon']}".encode()),
            (b"user-agent", BROWSER.encode()),
        ]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}

        assert await analytics.visitor(scope) is None


async def test_the_command_line_erases(analytics, pair, database_url, monkeypatch):
    """`goodanalytics forget` needs the app's key, and then does what the API does."""
    monkeypatch.setenv("GOODANALYTICS_DATABASE_URL", database_url)
    command = ["forget", str(pair[0]), "--reason", "asked", "--yes", "--json"]
    refused = await asyncio.to_thread(CliRunner().invoke, main, command)
    monkeypatch.setenv("GOODANALYTICS_SECRET_KEY", analytics.config.secret_key)
    done = await asyncio.to_thread(CliRunner().invoke, main, command)

    assert (refused.exit_code, "GOODANALYTICS_SECRET_KEY" in refused.output) == (1, True)
    assert json.loads(done.output)["visitor_id"] == str(pair[0])
    assert await analytics.visitors.get(pair[0]) is None
