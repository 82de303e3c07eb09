"""Habits that no linter knows: sizes, names that say purpose, and silence."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "goodanalytics"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE = 450  # lines
MAX_FUNCTION = 80  # lines

NO_PURPOSE = {
    "base",
    "common",
    "helper",
    "helpers",
    "manager",
    "misc",
    "service",
    "services",
    "util",
    "utils",
}
NO_VERB = ("do_", "handle_", "maybe_", "process_")
MAY_PRINT = ("cli.py", "demo/", "embedded_supervisor.py")
"""Programs of their own: the command line, the demo, and the process whose stderr is the server's log."""
OWE_REASONS = {"demo/stage.py"}
"""Modules in which a silenced rule has no reason yet. The table only gets shorter."""
_SILENCED = re.compile(
    r"# (noqa|type: ignore)(?P<codes>(: [A-Z]+\d+(, [A-Z]+\d+)*|\[[a-z, -]+\])?)(?P<reason>.*)"
)


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(), name_of(module))


def too_long(tree: ast.AST) -> list[str]:
    return [f.name for f in functions(tree) if f.end_lineno - f.lineno + 1 > MAX_FUNCTION]


def names_of_a_kind(tree: ast.AST) -> list[str]:
    """Functions and classes whose names say what kind of thing they are, or that something is done."""
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [f.name for f in functions(tree) if f.name.lstrip("_").startswith(NO_VERB)] + [
        c.name for c in defined if c.name.endswith(("Manager", "Helper", "Service", "Util", "Utils", "Base"))
    ]


def prints(tree: ast.AST) -> list[int]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def unexplained(code: str) -> list[str]:
    """Lines that silence a rule without naming it, or without a reason that this module has given before."""
    explained: set[str] = set()
    owed = []
    for line in code.splitlines():
        if found := _SILENCED.search(line):
            if re.search(r"\w", found["reason"]) and found["codes"]:
                explained.add(found["codes"])
            elif found["codes"] not in explained:
                owed.append(line.strip())
    return owed


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(module):
    """A room of more than 450 lines wants a wall."""
    assert len(module.read_text().splitlines()) <= MAX_MODULE


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_is_written_in_our_habits(module):
    """Short functions, names that say purpose and not kind, verbs that say what they do, and no word to the terminal."""
    tree = tree_of(module)

    assert too_long(tree) == []
    assert names_of_a_kind(tree) == []
    assert NO_PURPOSE.isdisjoint({*module.relative_to(PACKAGE).parent.parts, *module.stem.split("_")})
    assert prints(tree) == [] or name_of(module).startswith(MAY_PRINT)


@pytest.mark.parametrize("module", [m for m in MODULES if m.read_text().strip()], ids=name_of)
def test_a_modules_docstring_states_its_rules(module):
    """Each module says what it is, in at most 25 lines."""
    told = ast.get_docstring(tree_of(module)) or ""

    assert 1 <= len(told.splitlines()) <= 25


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_silenced_rule_says_which_and_why(module):
    """`noqa` and `type: ignore` carry a code, and the first of each code in a module carries the reason."""
    owed = unexplained(module.read_text())

    assert (owed != []) == (name_of(module) in OWE_REASONS), owed


@pytest.mark.parametrize(
    ("check", "code"),
    [
        pytest.param(too_long, "def f():\n" + "    x = 1\n" * 80, id="a long function"),
        pytest.param(names_of_a_kind, "async def _handle_event(): ...", id="a name without a verb"),
        pytest.param(names_of_a_kind, "class LinkManager: ...", id="a name of a kind"),
        pytest.param(lambda _: unexplained("x = 1  # noqa"), "", id="a rule that is not named"),
        pytest.param(lambda _: unexplained("x = 1  # noqa: S101"), "", id="a rule without a reason"),
        pytest.param(prints, "def f():\n    print(1)", id="a print"),
    ],
)
def test_the_check_finds(check, code):
    """The checks above see what they look for."""
    assert check(ast.parse(code)) != []
