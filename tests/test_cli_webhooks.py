"""`goodanalytics webhooks …`: what an operator types and reads, what a real receiver hears, and what is never printed."""

from __future__ import annotations

import asyncio
import builtins
import dataclasses
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from goodanalytics import Analytics
from goodanalytics.cli.commands import main
from goodanalytics.platforms.webhook import verified

PATH = "/hooks/T0p-secret"
APP = ("--app", "shop:analytics")


class Receiver(ThreadingHTTPServer):
    """Listens on loopback; `heard` has headers and body of each request, `status` is what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Ears)
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.status = 204

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{PATH}"


class _Ears(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status if self.path == PATH else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def receiver():
    server = Receiver()
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
async def shop(database_url, config, tmp_path, monkeypatch):
    """An app that may tell receivers on loopback; `--app shop:analytics` is its own Analytics."""
    settings = dataclasses.replace(config, worker=False, webhook_networks=["127.0.0.0/8"], jitter=lambda: 0.0)
    (tmp_path / "shop.py").write_text("import builtins\nanalytics = builtins.made_for_the_test()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    monkeypatch.setattr(
        builtins, "made_for_the_test", lambda: Analytics(database_url, settings), raising=False
    )
    async with Analytics(database_url, settings) as analytics:
        yield analytics
    sys.modules.pop("shop", None)


@pytest.fixture
def cli(shop):
    """Run `goodanalytics webhooks …` on the shop, in a thread: the command brings its own event loop."""

    async def run(*arguments: str, stdin: str | None = None):
        sys.modules.pop("shop", None)
        typed = ("webhooks", *arguments, *APP)
        result = await asyncio.to_thread(CliRunner().invoke, main, typed, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "T0p-secret" not in result.output
        return result

    return run


async def audit(analytics: Analytics) -> list[tuple[str, str | None, dict]]:
    a = analytics.database.tables.audit
    async with analytics.database.connect() as conn:
        return [
            (row.action, row.actor, row.details) for row in await conn.execute(select(a).order_by(a.c.id))
        ]


async def added(cli, receiver, *options: str) -> dict:
    return json.loads((await cli("add", "--json", *options, stdin=f"{receiver.url}\n")).output)


async def test_one_is_added_with_a_secret_that_is_shown_once(cli, receiver, shop):
    """The address comes from the standard input, and what is printed has its host; no list has the secret."""
    told = (await cli("add", "--event", "sale.created", stdin=f"{receiver.url}\n")).output.splitlines()
    listed = await cli("list")
    as_json = json.loads((await cli("list", "--json")).output)
    (made,) = await shop.webhooks.list()

    assert told[:2] == [f"Added 127.0.0.1, {made.id}.", "Its secret, which is shown this once:"]
    assert told[2].startswith("whsec_")
    assert listed.output.split() == [str(made.id), "127.0.0.1", "on", "sale.created"]
    assert [(one["id"], one["host"], "secret" in one, "url" in one) for one in as_json] == [
        (str(made.id), "127.0.0.1", False, False)
    ]
    assert (made.url, (await audit(shop))[0][:2]) == (receiver.url, ("webhooks.create", "command line"))


@pytest.mark.parametrize("asked", [(), APP], ids=["from the environment", "the app's own"])
async def test_worker_once_also_delivers_what_is_due(cli, receiver, shop, database_url, asked):
    """`goodanalytics worker --once` from cron is all that a small site needs."""
    await cli("add", "--event", "sale.created", stdin=f"{receiver.url}\n")
    await shop.sale(amount_cents=4900, currency="EUR")
    sys.modules.pop("shop", None)
    env = {
        "GOODANALYTICS_DATABASE_URL": database_url,
        "GOODANALYTICS_SECRET_KEY": shop.config.secret_key,
        "GOODANALYTICS_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "GOODANALYTICS_WORKER": "true",
    }

    once = await asyncio.to_thread(CliRunner().invoke, main, ("worker", "--once", *asked), env=env)

    assert (once.exit_code, once.output) == (0, "Processed 0 hits.\nSettled 1 dispatches.\n")
    assert len(receiver.heard) == 1


def test_a_worker_does_not_make_up_a_key(database_url, monkeypatch):
    """With one of its own it would let the forgotten come back, and seal what nobody can open."""
    monkeypatch.delenv("GOODANALYTICS_SECRET_KEY", raising=False)

    result = CliRunner().invoke(main, ("worker", "--once", "--database", database_url))

    assert (result.exit_code, "GOODANALYTICS_SECRET_KEY is not set" in result.output) == (1, True)


async def test_an_address_on_the_command_line_is_refused_and_not_repeated(cli, receiver, shop):
    """Other users of the machine could have seen it."""
    result = await cli("add", receiver.url)

    assert (result.exit_code, "not taken from the command line" in result.output) == (2, True)
    assert await shop.webhooks.list() == []


@pytest.mark.parametrize(("status", "exit_code", "said"), [(204, 0, "delivered"), (500, 1, "retry")])
async def test_a_receiver_can_be_tried_out(cli, receiver, shop, clock, status, exit_code, said):
    """It hears one signed notice, also while it is off; nothing is kept, and it counts as no failure."""
    made = await added(cli, receiver)
    await cli("disable", made["id"])
    receiver.status = status
    result = await cli("test", made["id"])
    ((headers, body),) = receiver.heard

    assert (result.exit_code, result.output.partition(":")[0]) == (exit_code, said)
    assert json.loads(body)["type"] == "webhook.test"
    assert verified(headers, body, made["secret"], clock())
    assert (await shop.webhooks.get(made["id"])).failing_since is None
    assert (await shop.platforms.dispatches()).items == ()


async def test_what_was_given_up_is_sent_again(cli, receiver, shop, clock):
    """Under the id that it has, and the audit says who asked for it."""
    made = await added(cli, receiver)
    visitor = await shop.resolve({"anonymous_id": "a-cookie"})
    await shop.sale(visitor, amount_cents=4_900, currency="EUR", key="A1")
    receiver.status = 410
    await shop.dispatcher.deliver_due()
    off = await cli("list")
    receiver.status = 204
    await cli("enable", made["id"])
    nothing = await cli("replay", made["id"], "--since", f"{clock():%Y}-12-31")
    again = await cli("replay", made["id"])
    await shop.dispatcher.deliver_due()

    assert "off since" in off.output
    assert (nothing.output, again.output) == ("0 are sent again.\n", "1 are sent again.\n")
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    assert [json.loads(body)["data"]["key"] for _, body in receiver.heard] == ["A1", "A1"]
    replays = [one for one in await audit(shop) if one[0] == "webhooks.replay"]
    assert replays == [
        ("webhooks.replay", "command line", {"host": "127.0.0.1", "number": 1, "states": ["dead"]})
    ]


async def test_one_is_rotated_and_removed(cli, receiver, shop):
    """A new secret is another one; a removed webhook is gone, with what waited for it."""
    made = await added(cli, receiver)
    rotated = json.loads((await cli("rotate", made["id"], "--json")).output)
    visitor = await shop.resolve({"anonymous_id": "a-cookie"})
    await shop.sale(visitor, amount_cents=4_900, currency="EUR", key="A1")
    removed = await cli("remove", made["id"])

    assert (rotated["id"], rotated["secret"] == made["secret"]) == (made["id"], False)
    assert removed.output == "Removed; 1 that waited for it are not sent.\n"
    assert (await cli("list")).output == "There are no webhooks.\n"


@pytest.mark.parametrize("command", ["enable", "disable", "remove", "rotate", "test", "replay"])
async def test_what_is_not_there_is_told(cli, command):
    """Not a trace."""
    result = await cli(command, str(UUID(int=5)))

    assert (result.exit_code, "There is no webhook" in result.output) == (1, True)
