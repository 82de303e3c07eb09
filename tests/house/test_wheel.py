"""The wheel that users install: everything that runs, nothing that only we need."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from goodanalytics.version import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """What hatchling makes of this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    build = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert build.returncode == 0, build.stderr
    (found,) = directory.glob("*.whl")
    with zipfile.ZipFile(found) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel) -> dict[str, list[str]]:
    text = wheel.read(f"goodanalytics-{__version__}.dist-info/METADATA").decode()
    headers = Parser().parsestr(text, headersonly=True)
    return {name: headers.get_all(name) for name in headers}


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    """Code, templates, scripts, styles and the type marker: what the checkout has, users have."""
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "goodanalytics").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == ours


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("goodanalytics/py.typed", id="type checkers' marker"),
        pytest.param("goodanalytics/web/static/good-analytics.js", id="the tracker"),
        pytest.param("goodanalytics/web/static/dashboard.css", id="the dashboard's style"),
        pytest.param("goodanalytics/web/templates/layout.html", id="the dashboard's templates"),
        pytest.param("goodanalytics/demo/templates/home.html", id="the demo's templates"),
        pytest.param("goodanalytics/migrations/v01.py", id="the migrations"),
        pytest.param(f"goodanalytics-{__version__}.dist-info/licenses/LICENSE", id="the license"),
    ],
)
def test_the_wheel_holds(wheel, name):
    """A file without which an installed package would fail."""
    assert wheel.getinfo(name).filename == name
    assert name.endswith("py.typed") or wheel.getinfo(name).file_size > 0


def test_the_wheel_holds_no_tests_and_nothing_at_the_top(wheel):
    """Installing us puts one package into site-packages, and no test of ours."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert tops == {"goodanalytics", f"goodanalytics-{__version__}.dist-info"}
    assert [name for name in wheel.namelist() if re.search(r"(^|/)(tests?/|test_|conftest)", name)] == []


def test_the_command_line_is_installed(wheel):
    """`goodanalytics` is a command."""
    entry_points = wheel.read(f"goodanalytics-{__version__}.dist-info/entry_points.txt").decode()

    assert "goodanalytics = goodanalytics.cli.commands:main" in entry_points


def test_the_wheel_can_be_imported_as_it_is(wheel):
    """The package works from the wheel alone, with its static files, and not only from the checkout."""
    ask = (
        f"import sys; sys.path.insert(0, {wheel.filename!r})\n"
        "import goodanalytics; from goodanalytics.web import tracker\n"
        "print(goodanalytics.__version__, goodanalytics.__file__.startswith(sys.path[0]), len(tracker._script_file()[0]) > 0)"
    )
    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)

    assert (answer.stdout.split(), answer.stderr) == ([__version__, "True", "True"], "")


def test_the_versions_agree(metadata):
    """The wheel, the package and the newest heading of the changelog tell of the same release."""
    newest = re.search(r"^## \[?v?(\d+\.\d+\.\d+)\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert metadata["Version"] == [__version__]
    assert newest is not None, "CHANGELOG.md has no heading such as '## 0.1.0'"
    assert newest[1] == re.sub(r"(\.dev|a|b|rc)\d+$", "", __version__)


def test_the_frameworks_are_extras_only(metadata):
    """Whoever installs us for one framework does not get the four others."""
    needed = [found for found in metadata["Requires-Dist"] if "extra ==" not in found]

    assert [n for n in needed if re.match(r"(fastapi|litestar|quart|django|uvicorn)\b", n)] == []
    assert {"embedded", "frameworks", "nats", "uvicorn"} <= set(metadata["Provides-Extra"])
