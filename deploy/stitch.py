"""Stitch the modules into one self-contained file: `python3 deploy/stitch.py > dist/dockeraudit.py`.

Each top-level `from SIBLING import …` is replaced by that module's text between two banners (later imports of the same
one are dropped), `__main__` blocks of siblings and the lone-file check are left out, `from __future__` lines are hoisted.
Deterministic; fails if a top-level name is defined twice, since all modules then share one namespace.
"""
from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

SIBLINGS = ("auditlog", "patterns", "policy", "report")
FUTURE = "from __future__ import annotations\n"
LONE_FILE = re.compile(r"# --- lone file check: begin.*?# --- lone file check: end[^\n]*\n", re.S)


def defined_names(tree: ast.Module) -> list[str]:
    """Names that a module defines at its top level, imports aside; a name's second assignment counts once."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
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


def expand(name: str, root: Path, done: set[str], owners: dict[str, str]) -> str:
    """A module's text with its siblings in place."""
    text = LONE_FILE.sub("", (root / f"{name}.py").read_text()).replace(FUTURE, "", 1)
    tree = ast.parse(text)
    for defined in defined_names(tree):
        if owners.setdefault(defined, name) != name:
            sys.exit(f"stitch: {defined} is defined in {owners[defined]}.py and in {name}.py; rename one")
    if name != "dockeraudit":
        text = without(text, [node for node in tree.body if is_main_block(node)])
        tree = ast.parse(text)
    for node in reversed(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module in SIBLINGS:
            lines = text.split("\n")
            lines[node.lineno - 1 : node.end_lineno] = [f"\0{node.module}"]
            text = "\n".join(lines)
    return re.sub(r"\0(\w+)", lambda match: included(match[1], root, done, owners), text)


def included(name: str, root: Path, done: set[str], owners: dict[str, str]) -> str:
    """A sibling between its banners, the first time it is asked for."""
    if name in done:
        return ""
    done.add(name)
    body = expand(name, root, done, owners).strip("\n")
    return f"# <<<<<<<<<<<< {name}.py\n{body}\n# >>>>>>>>>>>> {name}.py"


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parent.parent
    whole = expand("dockeraudit", ROOT, set(), {})
    docstring_end = ast.parse(whole).body[0].end_lineno or 1
    LINES = whole.split("\n")
    sys.stdout.write("\n".join([*LINES[:docstring_end], FUTURE.strip(), *LINES[docstring_end:]]))
