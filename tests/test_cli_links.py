"""`goodanalytics links`: a file in, a file out, and a report that says what became of each row."""

from __future__ import annotations

import asyncio
import json
import stat

import click
import pytest
from click.testing import CliRunner

from goodanalytics import Analytics
from goodanalytics.cli import links as cli_links
from goodanalytics.cli.commands import import_links, main
from goodanalytics.core.moving_files import ENCODINGS
from goodanalytics.moving import SOURCES, Note, Report

DUB = (
    "Short link,Destination URL,Clicks,Created at,Applause\n"
    "https://go.example/Spring,https://shop.example/,7,2026-06-01T08:30:00Z,1\n"
    "https://go.example/a/b,https://shop.example/b,0,2026-06-01T08:30:00Z,\n"
    "https://go.example/bad,ftp://shop.example/,0,2026-06-01T08:30:00Z,\n"
)


@pytest.fixture
async def analytics(database_url, config):
    analytics = Analytics(database_url, config)
    yield analytics
    await analytics.stop()


@pytest.fixture
def cli(database_url, monkeypatch):
    """Run `goodanalytics links …` on this test's database, in a thread: the command brings its own event loop."""
    monkeypatch.setenv("GOODANALYTICS_DATABASE_URL", database_url)

    async def run(*arguments: str, code: int = 0, given: bytes | None = None):
        result = await asyncio.to_thread(CliRunner().invoke, main, ["links", *arguments], input=given)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "links.csv"
    path.write_text(DUB)
    return str(path)


async def test_a_file_is_brought_in_and_the_report_says_everything(analytics, cli, file):
    """Notes first, and the sum at the end, where a terminal shows it."""
    result = await cli("import", file, "--from", "dub")

    reason = (
        "it must be an absolute http or https address of at most 2083 bytes, such as https://example.com/page"
    )
    assert result.stdout.splitlines() == [
        "Columns that mean nothing here and were left out: Applause.",
        "Changed: row 3  go.example/a/b  key 'a/b' became 'a-b'; its old address does not lead here",
        f"Refused: row 4  go.example/bad  url is 'ftp://shop.example/'; {reason}",
        "Brought in 2 of 3 links, 1 of them changed; 0 were here already; 1 were refused.",
    ]
    assert {link.key for link in (await analytics.links.list()).items} == {"Spring", "a-b"}


async def test_a_dry_run_says_so_and_does_nothing(analytics, cli, file):
    """The words are those of something that would be."""
    result = await cli("import", file, "--from", "dub", "--dry-run")

    assert "Would bring in 2 of 3 links" in result.stdout
    assert "1 would be refused" in result.stdout
    assert (await analytics.links.list()).items == ()


async def test_programs_get_one_object_and_no_bar(cli, file):
    """With every row that was not taken as it was."""
    result = await cli("import", file, "--from", "dub", "--domain", "new.example", "--json")

    told = json.loads(result.stdout)
    assert (told["total"], told["created"], told["unknown_columns"]) == (3, 2, ["Applause"])
    assert told["refused"][0] | {"text": ""} == {"row": 4, "address": "go.example/bad", "text": ""}
    assert {"row": 2, "address": "go.example/Spring", "text": "moved from go.example to new.example"} in told[
        "changed"
    ]
    assert result.stderr == ""


async def test_what_is_written_out_is_read_back(analytics, cli, file, tmp_path):
    """Through the standard output and input, and through a file that only its owner reads where passwords are in it."""
    await cli("import", file, "--from", "dub")
    await analytics.links.create(
        url="https://a.example", domain="go.example", key="closed", password="open sesame"
    )
    other = "11111111-1111-7111-8111-111111111111"

    plain = (await cli("export")).stdout_bytes
    secret = tmp_path / "all.csv"
    await cli("export", "--format", "csv", "--output", str(secret), "--with-passwords")
    first = await cli("import", "-", "--from", "goodanalytics", "--workspace", other, "--json", given=plain)
    second = await cli("import", str(secret), "--from", "goodanalytics", "--workspace", other, "--json")

    assert [json.loads(line)["kind"] for line in plain.splitlines()] == [
        "goodanalytics",
        "link",
        "link",
        "link",
    ]
    assert b"scrypt" not in plain
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert [json.loads(r.stdout)["created"] for r in (first, second)] == [2, 1]
    assert [len(json.loads(r.stdout)["refused"]) for r in (first, second)] == [1, 0]


async def test_a_file_of_another_encoding_says_what_to_do(cli, tmp_path):
    """And is read when it is said."""
    path = tmp_path / "links.csv"
    path.write_bytes(
        "Short link,Destination URL,Tags\nhttps://go.example/a,https://a.example,Zoë\n".encode("cp1252")
    )

    refused = await cli("import", str(path), "--from", "dub", code=1)
    taken = await cli("import", str(path), "--from", "dub", "--encoding", "windows-1252")

    assert "byte 0xeb in line 2" in refused.stderr
    assert "windows-1252" in refused.stderr
    assert "Brought in 1 of 1 links" in taken.stdout


def test_the_choices_are_those_that_there_are():
    """The command line names them itself, so that --help need not load everything."""
    choices = {p.name: p.type.choices for p in import_links.params if isinstance(p.type, click.Choice)}

    assert tuple(choices["source"]) == SOURCES
    assert tuple(choices["encoding"]) == ENCODINGS


def test_a_long_report_is_cut_for_people():
    """With where the rest is."""
    notes = [Note(n, "go.example/a", "why") for n in range(60)]

    told = cli_links.told(Report("dub", is_dry_run=False, total=60, done=60, refused=notes))

    assert len(told) == 52
    assert told[-2] == "Refused: 10 more; --json shows them all"
