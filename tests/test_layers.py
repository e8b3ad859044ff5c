"""The order of the rooms, held against the imports in their source."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "_dockeraudit"
#: the rooms, low to high, as the package's docstring lists them
ORDER = re.findall(r"^    \(?(\w+)\)? {2,}", (PACKAGE / "__init__.py").read_text(), re.M)
#: rooms that perform no I/O, and what such a room may not import
SANS_IO = (
    "http1",
    "routes",
    "admission",
    "streams",
    "rules",
    "services",
    "plausibility",
    "candidates",
    "tokenfinder",
    "urlfinder",
    "wordfinder",
    "assignments",
    "scanner",
    "records",
)
IO = {"socket", "os", "threading", "select", "time", "subprocess", "ssl"}
LONGEST_ROOM = 650
LONGEST_PROGRAM = 900
LONGEST_FUNCTION = 45


def path_of(room: str) -> Path:
    return ROOT / "patterns.py" if room == "patterns" else PACKAGE / f"{room}.py"


def imports(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports anywhere; rooms as `_dockeraudit.ROOM`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports are not stitched"
            found.add(node.module or "")
    return found


def test_every_room_stands_in_the_order() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"patterns"}
    assert files == set(ORDER) and len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    below = ORDER[: ORDER.index(room)]
    for module in imports(path_of(room)):
        if module == "patterns" or module.startswith("_dockeraudit."):
            assert module.rpartition(".")[2] in below, f"{room} imports {module}"


@pytest.mark.parametrize("room", SANS_IO)
def test_a_room_without_io_imports_no_io(room: str) -> None:
    assert not imports(path_of(room)) & IO


@pytest.mark.parametrize("room", [*ORDER, "dockeraudit"])
def test_only_the_standard_library_is_imported(room: str) -> None:
    known = set(getattr(sys, "stdlib_module_names", ())) or pytest.skip(
        "Python 3.9 does not list its modules"
    )
    path = ROOT / "dockeraudit.py" if room == "dockeraudit" else path_of(room)
    ours = {"patterns", "_dockeraudit"}
    assert {module.partition(".")[0] for module in imports(path)} <= known | ours
