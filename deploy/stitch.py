"""Stitch the rooms into one self-contained file: `python3 deploy/stitch.py > dist/dockeraudit.py`.

Each top-level `from SIBLING import …` (a room of `_dockeraudit`, or `patterns`) is replaced by that
module's text between two banners; later imports of the same module are dropped. The `__main__`
blocks of siblings and the lone-file check are left out, and `from __future__` lines move to the
top. The same sources always give the same file. All modules then share one namespace, so a
top-level name that is defined twice is an error.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

PACKAGE = "_dockeraudit"
FUTURE = "from __future__ import annotations\n"
LONE_FILE = re.compile(r"# --- lone file check: begin.*?# --- lone file check: end[^\n]*\n", re.S)
METADATA = """\
# /// script
# requires-python = ">=3.9"
# dependencies = []
# ///
"""  # PEP 723: `uv run dockeraudit.py` picks a Python by it


def is_sibling(module: str) -> bool:
    """Whether an import's module is one of ours."""
    return module in ("patterns", PACKAGE) or module.startswith(PACKAGE + ".")


def path_of(module: str, root: Path) -> Path:
    """Where a module's text lies."""
    return (
        root / PACKAGE / "__init__.py"
        if module == PACKAGE
        else root / (module.replace(".", "/") + ".py")
    )


def defined_names(tree: ast.Module) -> list[str]:
    """Names that a module defines at its top level, each once, without the imported ones."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        targets = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        names += [
            name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
        ]
    return sorted(set(names))


def is_main_block(node: ast.stmt) -> bool:
    """Whether this is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def without(text: str, nodes: list[ast.stmt]) -> str:
    """The text without the lines of these statements."""
    lines = text.split("\n")
    for node in nodes:
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = "\0"
    return "\n".join(line for line in lines if line != "\0")


def expand(module: str, root: Path, done: set[str], owners: dict[str, str]) -> str:
    """A module's text with its siblings in place."""
    text = LONE_FILE.sub("", path_of(module, root).read_text()).replace(FUTURE, "", 1)
    tree = ast.parse(text)
    for defined in defined_names(tree):
        if owners.setdefault(defined, module) != module:
            sys.exit(
                f"stitch: {defined} is defined in {owners[defined]} and in {module}; rename one"
            )
    if module != "dockeraudit":
        text = without(text, [node for node in tree.body if is_main_block(node)])
        tree = ast.parse(text)
    for node in reversed(tree.body):
        if isinstance(node, ast.ImportFrom) and is_sibling(node.module or ""):
            lines = text.split("\n")
            lines[node.lineno - 1 : node.end_lineno] = [f"\0{node.module}"]
            text = "\n".join(lines)
    return re.sub(r"\0([\w.]+)\n?", lambda match: included(match[1], root, done, owners), text)


def included(module: str, root: Path, done: set[str], owners: dict[str, str]) -> str:
    """A sibling between its banners, the first time it is asked for."""
    if module in done:
        return ""
    done.add(module)
    body = expand(module, root, done, owners).strip("\n")
    name = path_of(module, root).relative_to(root)
    return f"# <<<<<<<<<<<< {name}\n{body}\n# >>>>>>>>>>>> {name}\n"


def stitched(root: Path) -> str:
    """The whole program as one text."""
    whole = expand("dockeraudit", root, set(), {})
    docstring = ast.parse(whole).body[0]
    lines = whole.split("\n")
    head, rest = lines[: docstring.end_lineno], lines[docstring.end_lineno :]
    return "\n".join([head[0], METADATA.rstrip("\n"), *head[1:], FUTURE.strip(), *rest])


if __name__ == "__main__":
    sys.stdout.write(stitched(Path(__file__).resolve().parent.parent))
