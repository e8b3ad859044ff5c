"""What a test needs beside Python, and what happens where it is missing."""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def skip_outside_ci(reason: str) -> NoReturn:
    """Skip a test that cannot run here; in CI everything can run, so there it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_program(*names: str) -> None:
    """Skip a test where one of these programs is missing."""
    for name in names:
        if shutil.which(name) is None:
            skip_outside_ci(f"there is no {name} here: `make e2e` installs it (as root)")


def need_module(name: str) -> ModuleType:
    """Import a module of the e2e extra, or skip the test."""
    try:
        return importlib.import_module(name)
    except ImportError:
        skip_outside_ci(f"{name} is not installed here: `make e2e` installs it")
