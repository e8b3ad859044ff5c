"""Who is told when the audit log fails, and of each finding that it takes."""

from __future__ import annotations

from typing import Any, Callable

from _dockeraudit.failures import FailureListener
from _dockeraudit.records import Record

FINDING_EVENTS = ("finding", "finding_update")


class Subscribers:
    """The log's failure listeners, and those that are told of findings."""

    def __init__(self) -> None:
        self.of_failures: list[FailureListener] = []
        self.of_findings: list[Callable[[Record], Any]] = []
        self._defect: Exception | None = None

    def tell_finding(self, record: Record) -> None:
        """Tell of a finding or its update, whose `about` is the finding.

        The log's lock is held, so whoever is told returns at once. A defect there costs the log no
        record: `raise_defect` raises it for whoever can say it.
        """
        if record.event in FINDING_EVENTS:
            for call in self.of_findings:
                try:
                    call(record)
                except Exception as error:
                    self._defect = error

    def raise_defect(self) -> None:
        """Raise what one of those has raised since the last call."""
        defect, self._defect = self._defect, None
        if defect:
            raise defect
