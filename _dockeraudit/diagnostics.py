"""Lines for people on standard error."""

from __future__ import annotations

import sys
from typing import TextIO

LEVELS = {
    "debug": 0,
    "info": 1,
    "notice": 1,
    "warning": 2,
    "warn": 2,
    "error": 3,
    "err": 3,
    "crit": 3,
    "alert": 3,
    "emerg": 3,
}


class Diagnostics:
    """Lines for people, on standard error, from `level` up."""

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        self.level = LEVELS[level]
        self.stream = stream or sys.stderr

    def say(self, level: str, text: str) -> None:
        """One line; a closed standard error is nobody's concern."""
        if LEVELS[level] < self.level:
            return
        try:
            self.stream.write(f"dockeraudit: {level}: {text}\n")
            self.stream.flush()
        except (OSError, ValueError):
            pass
