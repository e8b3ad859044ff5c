"""Tells others when the audit log begins to fail, and when it works again."""

from __future__ import annotations

from typing import Any, Callable


class FailureListener:
    """Somebody who is told whenever the log begins to fail, and whenever that ends."""

    def __init__(self, call: Callable[[bool], Any]) -> None:
        self._call = call
        self._told = False

    def tell(self, failed: bool) -> None:
        """Call it if this is news; one that raises has not been told."""
        if failed != self._told:
            self._call(failed)
            self._told = failed
