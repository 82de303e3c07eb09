"""The floors of the house: who may import whom. The contracts themselves are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(LINT_IMPORTS, cwd=root, capture_output=True, text=True, check=False)


def test_every_room_keeps_to_its_floor():
    """`lint-imports` finds nothing: run it by hand to see the offending line."""
    found = lint_imports(ROOT)

    assert found.returncode == 0, found.stdout


def test_the_floors_name_every_room():
    """The contracts are exhaustive, so that a new room cannot stand outside the house."""
    floors = [contract for contract in CONTRACTS if contract["type"] == "layers"]

    assert "goodanalytics" in [room for contract in floors for room in contract["containers"]]
    assert all(contract["exhaustive"] for contract in floors)


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        pytest.param("core/hits.py", "import time", "do no I/O", id="the core reads a clock"),
        pytest.param("platforms/__init__.py", "import httpx", "do no I/O", id="a platform does I/O"),
        pytest.param("core/hits.py", "import goodanalytics.config", "Floors", id="the core looks up"),
        pytest.param("web/tracker.py", "import sqlalchemy", "speak SQL", id="the web speaks SQL"),
        pytest.param("hooks.py", "import starlette", "speaks Starlette", id="the hooks speak Starlette"),
        pytest.param("analytics.py", "import fastapi", "a host's framework", id="the root needs FastAPI"),
        pytest.param("a_new_room.py", "", "Floors:", id="a room without a floor"),
        pytest.param(
            "dispatch/a_new_wall.py", "", "Floors of dispatch", id="a part of a room without a floor"
        ),
    ],
)
def test_a_contract_breaks_when_it_should(module, line, contract, tmp_path):
    """A copy of the house with one wrong line is refused, by the contract that is about it."""
    for path in (ROOT / "goodanalytics").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    with (tmp_path / "goodanalytics" / module).open("a") as wrong:
        wrong.write(f"\n{line}\n")
    found = lint_imports(tmp_path)

    assert found.returncode == 1
    assert [row for row in found.stdout.splitlines() if row.endswith("BROKEN") and contract in row]
