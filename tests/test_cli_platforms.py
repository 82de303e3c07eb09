"""`goodanalytics platforms …`: what an operator types and reads, and what is never printed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import pty
import subprocess
import sys
from datetime import timedelta
from uuid import UUID

import pytest
from click.testing import CliRunner

from goodanalytics import Analytics
from goodanalytics.cli.commands import main
from goodanalytics.platforms import Meta
from tests.dispatch.conftest import Bell, Exchange, House, told

TOKEN = "EAAB-4-token-that-nobody-may-see"
EMAIL, PHONE = "ada@shop.example", "+442079460018"
PRIVATE = (TOKEN, "a-secret-of-bell", EMAIL, "ada@", PHONE, "2079460018")
KEY = "for-tests-only-" + "0" * 32


@pytest.fixture
def cli(database_url, monkeypatch):
    """Run `goodanalytics …` on this test's database, in a thread: the command brings its own event loop."""
    monkeypatch.setenv("GOODANALYTICS_DATABASE_URL", database_url)
    monkeypatch.setenv("GOODANALYTICS_SECRET_KEY", KEY)

    async def run(*arguments: str, stdin: str | None = None):
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert [word for word in PRIVATE if word in result.output] == []
        return result

    return run


@pytest.fixture
async def house(database_url, config, clock, tmp_path, monkeypatch):
    """A shop that told bell of two sales, of which it refused one; `--app shop:analytics` is its own Analytics."""
    exchange = Exchange()
    settings = dataclasses.replace(
        config, worker=False, consent_silence="granted", transport=exchange, jitter=lambda: 0.0,
        platforms=[Bell(), Meta()],
    )  # fmt: skip
    (tmp_path / "shop.py").write_text(
        "import builtins\nanalytics = builtins.made_for_the_test()\nother = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    import builtins

    made = lambda: Analytics(database_url, settings)
    monkeypatch.setattr(builtins, "made_for_the_test", made, raising=False)
    async with Analytics(database_url, settings) as analytics:
        house = House(analytics, exchange, clock)
        house.visitor = await analytics.resolve({"anonymous_id": "a-cookie"})
        await analytics.identify(house.visitor, email=EMAIL, phone=PHONE)
        await analytics.platforms.store_credential("bell", "token", "a-secret-of-bell")
        await analytics.platforms.enable("bell")
        exchange.then(told(A2={"status": "permanent", "code": "bad", "message": f"no {EMAIL}"}))
        await house.sell("A1", "A2")
        await house.deliver()
        clock.advance(timedelta(minutes=1))
        yield house
    sys.modules.pop("shop", None)


APP = ("--app", "shop:analytics")


async def ask(database, question: str):
    from sqlalchemy import text

    async with database.connect() as conn:
        await conn.execute(text("SET search_path TO good_analytics"))
        return [tuple(row) for row in await conn.execute(text(question))]


class TestCredentials:
    async def test_a_value_comes_from_the_standard_input(self, cli, database):
        """It is stored sealed; the answer and the audit have its name."""
        result = await cli("platforms", "credential", "meta", "access_token", stdin=f"{TOKEN}\n")

        assert result.output == "Stored access_token of meta. Missing: pixel_id.\n"
        assert await ask(database, "SELECT actor, subject, details FROM audit") == [
            ("command line", "meta", {"names": ["access_token"]})
        ]
        ((sealed,),) = await ask(database, "SELECT sealed FROM credentials")
        assert TOKEN.encode() not in sealed

    async def test_somebody_at_a_terminal_is_asked_and_nothing_is_echoed(self, database_url, database):
        """As for a password."""
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "goodanalytics", "platforms", "credential", "meta", "access_token"]
        environ = {**os.environ, "GOODANALYTICS_DATABASE_URL": database_url, "GOODANALYTICS_SECRET_KEY": KEY}
        asked = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)

        def talk() -> bytes:
            seen = b""
            try:
                while True:
                    seen += os.read(ours, 1_000)
                    if seen.endswith(b"Value: "):
                        os.write(ours, f"{TOKEN}\n".encode())
            except OSError:  # the other end is closed: it is done
                return seen

        seen = await asyncio.to_thread(talk)
        os.close(ours)

        assert (asked.wait(), TOKEN.encode() in seen) == (0, False)
        assert b"Stored access_token of meta" in seen
        assert await ask(database, "SELECT count(*) FROM credentials") == [(1,)]

    async def test_a_value_on_the_command_line_is_refused_and_not_repeated(self, cli, database):
        """Other users of the machine could have seen it."""
        result = await cli("platforms", "credential", "meta", "access_token", TOKEN)

        assert (result.exit_code, "not taken from the command line" in result.output) == (2, True)
        assert await ask(database, "SELECT count(*) FROM credentials") == [(0,)]

    async def test_without_the_apps_own_key_nothing_is_sealed(self, cli, database, monkeypatch):
        """What a throw-away key sealed could be read by nobody."""
        monkeypatch.delenv("GOODANALYTICS_SECRET_KEY")
        result = await cli("platforms", "credential", "meta", "access_token", stdin=TOKEN)

        assert (result.exit_code, "GOODANALYTICS_SECRET_KEY is not set" in result.output) == (1, True)
        assert await ask(database, "SELECT count(*) FROM credentials") == [(0,)]

    @pytest.mark.parametrize(
        ("arguments", "cure"),
        [
            pytest.param(
                ("metta", "access_token"), "There is no platform 'metta'; the settings have", id="platform"
            ),
            pytest.param(("meta", "access token"), "write one such as access_token", id="name"),
            pytest.param(
                ("meta", "pixel_id", "--delete"), "goodanalytics platforms list", id="nothing to delete"
            ),
        ],
    )
    async def test_what_cannot_be_stored_is_told(self, cli, arguments, cure):
        """With the cure, and without the value."""
        result = await cli("platforms", "credential", *arguments, stdin=TOKEN)

        assert (result.exit_code, cure in result.output) == (1, True)

    async def test_one_can_be_deleted(self, cli, database):
        """By its name."""
        await cli("platforms", "credential", "meta", "access_token", stdin=TOKEN)
        result = await cli("platforms", "credential", "meta", "access_token", "--delete")

        assert result.output == "Deleted access_token of meta. Missing: access_token, pixel_id.\n"
        assert await ask(database, "SELECT count(*) FROM credentials") == [(0,)]

    async def test_rotation_needs_the_former_key(self, cli, monkeypatch):
        """With it everything is sealed anew; without it that is said, and the exit code is 1."""
        await cli("platforms", "credential", "meta", "access_token", stdin=TOKEN)
        monkeypatch.setenv("GOODANALYTICS_SECRET_KEY", "another-key-" + "1" * 32)
        without = await cli("platforms", "rotate")
        monkeypatch.setenv("GOODANALYTICS_PREVIOUS_SECRET_KEYS", KEY)
        with_it = await cli("platforms", "rotate", "--json")

        assert (without.exit_code, "1 could not be opened" in without.output) == (1, True)
        assert (with_it.exit_code, json.loads(with_it.output)) == (
            0, {"credentials": 1, "webhooks": 0, "dispatches": 0, "unreadable": 0},
        )  # fmt: skip


class TestSwitching:
    async def test_on_says_what_is_still_missing(self, cli):
        """And the command that stores it."""
        result = await cli("platforms", "enable", "meta")

        assert result.output.splitlines() == [
            "meta is on.",
            "Nothing goes out yet. Missing: access_token, pixel_id. Try: goodanalytics platforms credential meta access_token",
        ]

    async def test_off_may_drop_what_is_queued(self, cli, house):
        """Or keep it."""
        await house.sell("A3")
        kept = await cli("platforms", "disable", "bell", *APP)
        before = (await house.states())["A3"]
        await cli("platforms", "disable", "bell", "--recall", *APP)

        assert (kept.output, before) == ("bell is off.\n", "pending")
        assert (await house.states())["A3"] == "skipped: recalled"

    async def test_the_environment_names_platforms_and_versions(self, cli, monkeypatch):
        """Only those are there."""
        monkeypatch.setenv("GOODANALYTICS_PLATFORMS", "tiktok, meta:v25.0")
        found = json.loads((await cli("platforms", "list", "--json")).output)

        assert [(one["name"], one["version"]) for one in found] == [("tiktok", "v1.3"), ("meta", "v25.0")]

    @pytest.mark.parametrize(
        ("arguments", "cure"),
        [
            pytest.param(("--app", "shop"), "write a module and a name", id="no name"),
            pytest.param(("--app", "shop:nothing"), "no attribute 'nothing'", id="not in it"),
            pytest.param(("--app", "shopp:analytics"), "No module named 'shopp'", id="no module"),
            pytest.param(("--app", "shop:other"), "is a int; name the Analytics", id="something else"),
        ],
    )
    @pytest.mark.usefixtures("house")
    async def test_an_app_that_is_none_is_told(self, cli, arguments, cure):
        """With what to write instead."""
        result = await cli("platforms", "list", *arguments)

        assert (result.exit_code, cure in result.output) == (1, True)

    async def test_a_wrong_name_in_the_environment_is_told(self, cli, monkeypatch):
        """With those that there are."""
        monkeypatch.setenv("GOODANALYTICS_PLATFORMS", "facebook")
        result = await cli("platforms", "list")

        assert (result.exit_code, "write some of google, linkedin, meta" in result.output) == (1, True)


@pytest.mark.usefixtures("house")
class TestSeeing:
    async def test_the_list_says_how_each_stands(self, cli):
        """Names of credentials, numbers, and nothing private."""
        result = await cli("platforms", "list", *APP)

        assert result.output.splitlines() == [
            "bell       on                API v1       1 dead, 1 delivered",
            "  stored: token",
            "meta       off               API v26.0",
        ]

    async def test_dispatches_say_what_became_of_them(self, cli):
        """The newest first, narrowed down, one by one, and as JSON."""
        everything = await cli("platforms", "dispatches", *APP)
        dead = json.loads((await cli("platforms", "dispatches", "--state", "dead", "--json", *APP)).output)
        (one,) = dead["data"]
        alone = await cli("platforms", "dispatches", one["id"], *APP)

        assert sorted(line.split()[5] for line in everything.output.splitlines()) == ["dead", "delivered"]
        assert (one["state"], one["reason"], one["message"]) == ("dead", "bad", "no …")
        assert "match keys     email ✓, phone ✓" in alone.output.splitlines()
        assert "message        no …" in alone.output.splitlines()

    async def test_pages_are_walked(self, cli):
        """By what stands at the end of one."""
        first = json.loads((await cli("platforms", "dispatches", "--limit", "1", "--json", *APP)).output)
        cursor = first["page"]["next_cursor"]
        second = await cli("platforms", "dispatches", "--limit", "1", "--cursor", cursor, *APP)

        assert second.output.count("\n") == 1
        assert first["data"][0]["id"] not in second.output

    async def test_what_was_given_up_is_sent_again(self, cli, house):
        """One or all; under the id that it has."""
        (one,) = (await house.analytics.platforms.dispatches(state="dead")).items
        by_id = await cli("platforms", "replay", str(one.id), *APP)
        twice = await cli("platforms", "replay", str(one.id), *APP)
        rest = await cli("platforms", "replay", "--since", "2026-11-01", *APP)
        await house.deliver()

        assert ("pending" in by_id.output, twice.exit_code, rest.output) == (True, 1, "0 are sent again.\n")
        assert "goes on by itself" in twice.output
        assert house.exchange.heard == [["A1", "A2"], ["A2"]]
        assert len(house.exchange.ids["A2"]) == 1

    async def test_coverage_and_hours(self, cli):
        """As figures."""
        coverage = await cli("platforms", "coverage", *APP)
        hours = await cli("platforms", "hours", *APP)

        assert coverage.output.splitlines() == [
            "bell: 2 deliveries", "  email        100.0%  2", "  phone        100.0%  2",
        ]  # fmt: skip
        assert hours.output.splitlines() == [
            "2026-11-01 12:00        1  dead         bell",
            "2026-11-01 12:00        1  delivered    bell",
        ]

    @pytest.mark.parametrize("command", [("dispatches",), ("replay",)])
    async def test_what_is_not_there_is_told(self, cli, command):
        """Not a trace."""
        result = await cli("platforms", *command, str(UUID(int=5)), *APP)

        assert (result.exit_code, "There is no dispatch" in result.output) == (1, True)

    async def test_doctor_knows_the_apps_platforms(self, cli):
        """What was given up is worth a warning; bell, which only the app knows, is none of itself."""
        result = await cli("doctor", *APP)

        assert "warning  1 deliveries to bell were given up in the last day" in result.output
        assert "is not in the settings" not in result.output


class TestTryingOut:
    async def test_what_the_platform_said_is_told(self, cli, house):
        """0 when it took the sale, 1 when it did not."""
        took = await cli("platforms", "test", "bell", "--code", "T1", *APP)
        house.exchange.then(
            told(401, everybody={"status": "credential", "code": "190", "message": f"no {TOKEN}"})
        )
        refused = await cli("platforms", "test", "bell", "--json", *APP)

        assert (took.exit_code, took.output) == (0, "delivered:\n")
        assert (refused.exit_code, json.loads(refused.output)["code"]) == (1, "190")
        assert house.exchange.bodies[-1]["test"] == ""

    @pytest.mark.parametrize(
        ("name", "cure"),
        [
            pytest.param("meta", "Events Manager shows one", id="needs a code"),
            pytest.param("linkedin", "has no test mode, and what is sent would count", id="has no test mode"),
            pytest.param("google", "missing customer_id", id="credentials are missing"),
        ],
    )
    async def test_an_invented_sale_is_never_sent_for_real(self, cli, name, cure):
        """Rather nothing is sent."""
        result = await cli("platforms", "test", name)

        assert (result.exit_code, cure in result.output) == (1, True)
