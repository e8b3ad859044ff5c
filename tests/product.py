"""The product under test: the rooms as they stand in the tree, or the stitched file."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STITCHED = os.environ.get("DOCKERAUDIT_FORM") == "stitched"
PROGRAM = str(ROOT / "dist" / "dockeraudit.py") if STITCHED else str(ROOT / "dockeraudit.py")


def import_stitched_file() -> None:
    """Import the stitched file, and have it stand for every module that it was made from."""
    spec = importlib.util.spec_from_file_location("dockeraudit", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    package = types.ModuleType("_dockeraudit")
    sys.modules.update({"dockeraudit": module, "patterns": module, "_dockeraudit": package})
    spec.loader.exec_module(module)
    package.__version__ = module.__version__  # type: ignore[attr-defined]
    for room in (ROOT / "_dockeraudit").glob("*.py"):
        sys.modules[f"_dockeraudit.{room.stem}"] = module
        setattr(package, room.stem, module)
