"""Waiting for a condition, in place of sleeping and hoping."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

import pytest

T = TypeVar("T")
DEADLINE = 20.0  # seconds a test waits for what happens in milliseconds on an idle machine


def wait_for(condition: Callable[[], T], what: str, deadline: float = DEADLINE) -> T:
    """Wait until the condition's value is true, and return it."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline:.0f} s in vain for {what}")
        time.sleep(0.01)
