"""The build step of `pip install`: setuptools, in a folder that holds the stitched file alone.

So pip installs one module, `dockeraudit`, and none of its rooms. pip calls the functions (PEP 517).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from setuptools import build_meta
from stitch import stitched

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("setup.cfg", "README.md", "LICENSE")
PYPROJECT = (
    '[build-system]\nrequires = ["setuptools>=61"]\nbuild-backend = "setuptools.build_meta"\n'
)


@contextmanager
def stitched_tree() -> Iterator[None]:
    """Change into a temporary folder that holds the stitched file and what describes it."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dockeraudit.py").write_text(stitched(ROOT))
        Path(folder, "pyproject.toml").write_text(PYPROJECT)  # for builds from the sdist
        for name in COPIED:
            shutil.copy(ROOT / name, folder)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """PEP 517: what building needs besides setuptools; its versions before 70 need wheel."""
    with stitched_tree():
        return list(build_meta.get_requires_for_build_wheel(config_settings))


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: the wheel's file name."""
    target = os.path.abspath(wheel_directory)
    with stitched_tree():
        return str(build_meta.build_wheel(target, config_settings))


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """PEP 517: the source distribution's file name; it holds the stitched file, ready to build."""
    target = os.path.abspath(sdist_directory)
    with stitched_tree():
        return str(build_meta.build_sdist(target, config_settings))
