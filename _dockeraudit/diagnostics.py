"""Lines for people on standard error."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

#: our own levels and syslog's, by gravity
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
SELDOM = 60.0  # seconds between two lines of one kind that `seldom` says


class Diagnostics:
    """Lines for people, on standard error, from `level` up. Any thread may say one."""

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        self.level = LEVELS[level]
        self.stream = stream or sys.stderr
        self._said: dict[str, tuple[float, int]] = {}  # kind: when it was said, and unsaid since
        self._lock = threading.Lock()  # guards `_said`

    def set_level(self, level: str) -> None:
        """Say lines from this level up."""
        self.level = LEVELS[level]

    def say(self, level: str, text: str) -> None:
        """Write one line; if standard error is closed or full, the line is lost."""
        if LEVELS[level] < self.level:
            return
        try:
            self.stream.write(f"dockeraudit: {level}: {text}\n")
            self.stream.flush()
        except (OSError, ValueError):
            pass

    def seldom(self, level: str, kind: str, text: str) -> None:
        """Write a line that may come in floods: one a minute of its kind, with their number."""
        now = time.monotonic()
        with self._lock:
            since, unsaid = self._said.get(kind, (float("-inf"), 0))
            due = now - since >= SELDOM
            self._said[kind] = (now, 0) if due else (since, unsaid + 1)
        if due:
            self.say(level, text + (f" (and {unsaid} like it before)" if unsaid else ""))
