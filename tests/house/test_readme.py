"""
The README tells no lies: its Python runs, its commands are understood, and the names and files that it mentions exist.

Python blocks run from top to bottom in one namespace, as a reader would paste them, with the addresses and secrets of this test in
the environment. Top-level `await` is allowed. A block below `<!-- not a test: reason -->` is compiled and not run.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from goodanalytics import Config
from goodanalytics.cli.commands import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECRET = "for-tests-only-" + "0" * 32
SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"

_BLOCK = re.compile(
    r"^(?:<!-- not a test: (?P<reason>[^\n]+?) -->\n+)?```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclasses.dataclass(frozen=True)
class Block:
    """
    One fenced block of a Markdown text.

    Attributes:
        line: Of its first line of code, counted from 1.
        reason: Why it is not run, or `None`.
    """

    language: str
    code: str
    line: int
    reason: str | None

    def compiled(self, name: str) -> Any:
        """Its code, which tracebacks show at its own line of the text."""
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile("\n" * (self.line - 1) + self.code, name, "exec", flags=flags, dont_inherit=True)


def blocks(text: str, language: str) -> list[Block]:
    return [
        Block(found["language"], found["code"], text.count("\n", 0, found.start("code")) + 1, found["reason"])
        for found in _BLOCK.finditer(text)
        if found["language"] == language
    ]


async def run(text: str, name: str) -> dict[str, Any]:
    """Run the Python blocks of *text*; what they leave behind."""
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks(text, "python"):
        if block.reason is None:
            left = eval(block.compiled(name), names)
            if inspect.iscoroutine(left):
                await left
    return names


@pytest.fixture
def environment(empty_database_url, monkeypatch) -> str:
    """What a reader has set before running the blocks; the database is empty."""
    for set_outside in [name for name in os.environ if name.startswith("GOODANALYTICS_")]:
        monkeypatch.delenv(set_outside)
    for prefix in ("", "GOODANALYTICS_"):
        monkeypatch.setenv(f"{prefix}DATABASE_URL", empty_database_url)
        monkeypatch.setenv(f"{prefix}SECRET_KEY", SECRET)
    return empty_database_url


# Python --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks(README, "python"), ids=lambda block: f"line {block.line}")
def test_a_python_block_compiles(block):
    """Also a block that is not run is Python."""
    assert block.compiled("README.md") is not None


async def test_the_python_blocks_run_and_leave_an_app_that_serves(environment):
    """Pasting the README's Python gives an app with the host's page, the script, and a sale on the visitor's record."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    readme = await run(README, "README.md")
    analytics = readme["analytics"]
    buying = analytics.wrap(Starlette(routes=[Route("/buy", readme["buy"])]))
    answers = []
    for app, paths in ((readme["app"], ["/", "/ga/js/good-analytics.js"]), (buying, ["/buy"])):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="https://shop.example",
            headers={"user-agent": SAFARI, "accept": "text/html"},
        ) as browser:
            answers += [(await browser.get(path)).status_code for path in paths]
    people = await analytics.visitors.list()
    await analytics.stop()

    assert answers == [200, 200, 200]
    assert [person.ltv for person in people.items] == [{"EUR": 4900}]


def test_ten_lines_are_about_ten_lines():
    """The first block is what the heading above it says, give or take imports."""
    first = blocks(README, "python")[0]

    assert len([line for line in first.code.splitlines() if line and "import " not in line]) <= 10


async def test_the_runner_shows_the_line_that_failed():
    """A failing block is reported at its place in the text, after the blocks above it have run."""
    text = "# Title\n\n```python\nx = 1\n```\n\nand\n\n```python\nawait nothing(x)\n```\n"
    with pytest.raises(NameError, match="nothing") as failure:
        await run(text, "README.md")

    assert [(Path(f.path).name, f.lineno + 1) for f in failure.traceback][-1] == ("README.md", 10)


async def test_the_runner_passes_over_what_is_marked_and_only_that():
    """The mark stands right above its block, with its reason."""
    text = (
        "<!-- not a test: it never ends -->\n```python\nraise SystemExit\n```\n\n```python\nran = True\n```\n"
    )

    assert (await run(text, "README.md"))["ran"] is True
    assert [block.reason for block in blocks(text, "python")] == ["it never ends", None]


# Commands ------------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    """Every command of ours in *text*, in blocks and within sentences, without variables in front."""
    found = [
        line.strip().removeprefix("$ ") for block in blocks(text, "sh") for line in block.code.splitlines()
    ]
    found += _SPAN.findall(_BLOCK.sub("", text))
    bare = [re.sub(r"^(\w+=\S* +)+", "", line).partition(" #")[0].strip() for line in found]
    return sorted({line for line in bare if re.match(r"(make|goodanalytics) +\w", line)})


def test_the_readme_has_the_two_commands_that_everybody_needs():
    """`make demo` and `make test` are named, so that the tests below have something to look at."""
    assert {"make demo", "make test"} <= set(commands(README))


@pytest.mark.parametrize("command", [c for c in commands(README) if c.startswith("make")])
def test_make_knows_the_target(command):
    """Make finds a recipe for it, and every tool's name in it; `-n` shows the recipe and runs nothing."""
    shown = subprocess.run(
        [*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout


@pytest.mark.parametrize("command", [c for c in commands(README) if c.startswith("goodanalytics")])
def test_the_command_line_understands(command):
    """The command exists and takes these options with these values."""
    found, name, rest, parent = main, "goodanalytics", shlex.split(command)[1:], None
    while isinstance(found, click.Group):
        parent = found.make_context(name, list(rest), parent=parent)
        name, found, rest = found.resolve_command(parent, rest)

    assert found.make_context(name, rest, parent=parent).command is found


def test_an_unknown_command_or_option_is_noticed():
    """The test above would fail for a command that was renamed."""
    with pytest.raises(Exception, match="No such command 'migrat'"):
        test_the_command_line_understands("goodanalytics migrat")
    with pytest.raises(Exception, match="--sequel"):
        test_the_command_line_understands("goodanalytics migrate --sequel")
    with pytest.raises(Exception, match="Missing parameter: credential"):
        test_the_command_line_understands("goodanalytics platforms credential meta")


def test_migrate_and_doctor_do_what_the_readme_says(environment):
    """On an empty database `migrate` brings the tables, and then `doctor` finds nothing wrong."""
    tool = Path(sys.executable).with_name("goodanalytics")
    answers = [
        subprocess.run([tool, *words], capture_output=True, text=True, check=False)
        for words in (["migrate", "--database", environment], ["doctor"])
    ]

    assert [(answer.returncode, answer.stderr) for answer in answers] == [(0, ""), (0, "")]


# Names ---------------------------------------------------------------------------------------------------------------


def test_the_extras_exist():
    """`pip install "goodanalytics[…]"` names extras that the package has."""
    named = {
        extra for found in re.findall(r"goodanalytics\[([\w,]+)\]", README) for extra in found.split(",")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert named <= set(project["optional-dependencies"])


def test_the_settings_exist():
    """Each row of the table of settings is a setting, and the defaults that it quotes are the defaults."""
    table = README.partition("| setting | default |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    told = {
        name: default
        for names, defaults in rows
        for name, default in zip(_SPAN.findall(names), _SPAN.findall(defaults) or [None] * 9, strict=False)
    }
    real = {setting.name: setting.default for setting in dataclasses.fields(Config)}

    assert told
    assert {name for name in told if name not in real} == set()
    assert {n: d for n, d in told.items() if d and str(real[n]) != d} == {}


@pytest.mark.parametrize(
    "path",
    sorted({p for p in _SPAN.findall(_BLOCK.sub("", README)) if re.fullmatch(r"[\w/]+(\.\w+)*\.(py|md)", p)}),
)
def test_a_file_that_is_mentioned_exists(path):
    """Whoever follows the README finds what it points to."""
    assert (ROOT / path).is_file()
