"""Who is told that the audit log fails, and of each finding that it takes."""

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

    def tell_finding(self, record: Record) -> None:
        """Tell of a finding or its update, whose `about` is the finding.

        The log's lock is held, so whoever is told returns at once.
        """
        if record.event in FINDING_EVENTS:
            for call in self.of_findings:
                call(record)
