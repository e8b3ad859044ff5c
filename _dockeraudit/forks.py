"""What a forked child of this process must let go of."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkSensitive(Protocol):
    """Something that belongs to one process."""

    def forked(self) -> None:
        """This is a child process: let go."""


OWN_OF_THIS_PROCESS: weakref.WeakSet[ForkSensitive] = weakref.WeakSet()


def let_go_after_fork() -> None:
    """A child of this process owns none of its logs."""
    for owned in list(OWN_OF_THIS_PROCESS):
        owned.forked()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=let_go_after_fork)
