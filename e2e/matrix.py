"""A pytest plugin that prints the table of client comparisons.

It also writes the table to the file that DOCKERAUDIT_MATRIX names.
"""

from __future__ import annotations

import os
from typing import Any

from clients import MATRIX


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print client, case, and for each engine whether the proxy's result equals the direct one."""
    table = MATRIX.table()
    if not table:
        return
    terminalreporter.section("through the proxy as directly?")
    terminalreporter.write_line(table)
    path = os.environ.get("DOCKERAUDIT_MATRIX")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(table + "\n")
