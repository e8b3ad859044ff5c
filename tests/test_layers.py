"""The order of the rooms and the size of what is in them, read from the source.

CONTRIBUTING.md gives the reasons. A file whose text is the text under test (the table of rules,
the generated page of rules) has limits of its own.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "_dockeraudit"
#: the rooms, low to high, as the package's docstring lists them
ORDER = re.findall(r"^    \(?(\w+)\)? {2,}", (PACKAGE / "__init__.py").read_text(), re.M)
PRODUCT = [*ORDER, "dockeraudit"]
#: rooms that perform no I/O, and what such a room may not import
SANS_IO = (
    "http1",
    "routes",
    "admission",
    "streams",
    "answertext",
    "rules",
    "services",
    "plausibility",
    "names",
    "candidates",
    "tokenfinder",
    "urlfinder",
    "wordfinder",
    "phrasefinder",
    "phrases",
    "traces",
    "judging",
    "assignments",
    "sentences",
    "secretwords",
    "shortoptions",
    "scanner",
    "textscanner",
    "places",
    "masking",
    "records",
    "needles",
    "ownsecrets",
    "scaninspect",
    "relay",
    "wallets",
)
IO = {"socket", "os", "threading", "select", "time", "subprocess", "ssl"}

LONGEST_ROOM = 650
LONGEST_PROGRAM = 900  # lines of dockeraudit.py, which is opened first
LONGEST_FUNCTION = 45
WIDEST_CODE = 100
WIDEST_TABLE = 120  # in patterns.py: a rule's pattern, keywords and examples stand side by side
WIDEST_PROSE = 100

#: folders with nothing of ours in them, and one with text for a browser's page
NOT_OURS = {".git", ".venv", "dist", "build"}
CODE = {".py", ".c", ".go", ".js", ".sh", ".conf", ".service", ".socket", ".yml", ".ini", ".toml"}
SCRIPTS = {"run", "engine", "fetch-go", "fetch-scanners", "cron.daily", "Dockerfile", "Makefile"}
GENERATED = {"rules.md"}  # `make docs` writes it from the table of rules


def path_of(room: str) -> Path:
    return ROOT / f"{room}.py" if room in ("patterns", "dockeraudit") else PACKAGE / f"{room}.py"


def our_files() -> Iterator[Path]:
    """Every file of the project, in a fixed order."""
    for path in sorted(ROOT.rglob("*")):
        hidden = {part for part in path.relative_to(ROOT).parts if part.startswith(".")}
        hidden -= {".ci", ".github"}
        if path.is_file() and not hidden and not NOT_OURS & set(path.relative_to(ROOT).parts):
            yield path


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


CODE_FILES = [path for path in our_files() if path.suffix in CODE or path.name in SCRIPTS]
PROSE_FILES = [path for path in our_files() if path.suffix == ".md" and path.name not in GENERATED]


def imports(path: Path) -> set[str]:
    """Names of the modules that a file imports anywhere; rooms as `_dockeraudit.ROOM`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports are not stitched"
            found.add(node.module or "")
    return found


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Every function and method of a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def public_definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Top-level classes and functions of a file whose names begin without an underscore."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            yield node


def wide_lines(path: Path, widest: int) -> list[str]:
    """The numbers and widths of lines that are too wide; a line with a URL in it may be."""
    return [
        f"{path.name}:{number} has {len(line)} columns"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > widest and "://" not in line
    ]


def prose_lines(path: Path) -> Iterator[tuple[int, str]]:
    """A page's lines without tables, code blocks and headings."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and not line.startswith(("|", "    ", "#", "```")):
            yield number, line


# ================================================================================================
# which room may use which
# ================================================================================================


def test_every_room_stands_in_the_order() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"patterns"}
    assert files == set(ORDER) and len(ORDER) == len(set(ORDER))


def test_the_rooms_can_be_stitched() -> None:
    """The stitched file has one namespace for all rooms: two may not define the same name."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "stitch.py")], capture_output=True, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    below = ORDER[: ORDER.index(room)]
    for module in imports(path_of(room)):
        if module == "patterns" or module.startswith("_dockeraudit."):
            assert module.rpartition(".")[2] in below, f"{room} imports {module}"


@pytest.mark.parametrize("room", SANS_IO)
def test_a_room_without_io_imports_no_io(room: str) -> None:
    assert not imports(path_of(room)) & IO


@pytest.mark.parametrize("room", PRODUCT)
def test_only_the_standard_library_is_imported(room: str) -> None:
    known = set(getattr(sys, "stdlib_module_names", ())) or pytest.skip(
        "Python 3.9 cannot say which modules are its own; newer ones can"
    )
    ours = {"patterns", "_dockeraudit"}
    assert {module.partition(".")[0] for module in imports(path_of(room))} <= known | ours


# ================================================================================================
# how large a thing may be
# ================================================================================================


@pytest.mark.parametrize("room", [room for room in PRODUCT if room != "patterns"])  # a table
def test_a_room_is_short_enough_to_be_read(room: str) -> None:
    longest = LONGEST_PROGRAM if room == "dockeraudit" else LONGEST_ROOM
    assert len(path_of(room).read_text().splitlines()) <= longest


@pytest.mark.parametrize("room", PRODUCT)
def test_a_function_is_short(room: str) -> None:
    sizes = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path_of(room))}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("room", PRODUCT)
def test_each_public_class_and_function_has_a_docstring(room: str) -> None:
    bare = [node.name for node in public_definitions(path_of(room)) if not ast.get_docstring(node)]
    assert bare == []


@pytest.mark.parametrize("path", CODE_FILES, ids=names(CODE_FILES))
def test_lines_of_code_fit_a_window(path: Path) -> None:
    assert wide_lines(path, WIDEST_TABLE if path.name == "patterns.py" else WIDEST_CODE) == []


@pytest.mark.parametrize("path", PROSE_FILES, ids=names(PROSE_FILES))
def test_prose_is_wrapped(path: Path) -> None:
    wide = [number for number, line in prose_lines(path) if len(line) > WIDEST_PROSE]
    assert wide == []


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports a test file by its name alone."""
    names = [path.name for path in ROOT.glob("**/test_*.py") if not NOT_OURS & set(path.parts)]
    assert sorted(names) == sorted(set(names))
