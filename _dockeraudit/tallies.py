"""What is counted: secrets, the containers they leak in, the clients that read them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, NamedTuple

#: Endpoints at which a container's own output flows; others are answers of the engine.
OUTPUT_ENDPOINTS = frozenset(("logs", "attach", "attach_ws", "exec", "scan", ""))

#: Stands for the container of what is no container's: lists, events, builds, an image's history.
NO_CONTAINER = "unknown"


class Tally:
    """How often, and when first and last."""

    __slots__ = ("count", "first", "last")

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = ""

    def add(self, count: int, timestamp: str) -> None:
        """Count so many more at this time."""
        self.count += count
        if timestamp > self.last:
            self.last = timestamp
        if timestamp < self.first or not self.first:
            self.first = timestamp

    def times(self) -> dict[str, Any]:
        """For programs."""
        return {"count": self.count, "first_seen": self.first, "last_seen": self.last}


class Sighted(NamedTuple):
    """One way in which a secret was seen: in which container, by whom, and where.

    `where`: "output" for the container's own output, else the endpoint of the engine's answer.
    `masked`: the client got asterisks in its place.
    """

    container: str
    client: str
    where: str
    masked: bool = False


class Secret(Tally):
    """A distinct credential: one fingerprint under one rule, and how often it was seen where."""

    __slots__ = (
        "fingerprint", "rule", "pattern", "severity", "redacted", "placeholder", "env",
        "sightings",
    )  # fmt: skip

    def __init__(
        self, fingerprint: str, rule: str, pattern: str, severity: str, redacted: str
    ) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.rule = rule
        self.pattern = pattern
        self.severity = severity
        self.redacted = redacted
        self.placeholder = False  # a default or an example rather than a secret
        self.env = ""  # the container's variable whose value it is
        self.sightings: dict[Sighted, Tally] = {}

    def by_container(self) -> Counter[str]:
        """How often in each container, by id."""
        return self._counts("container")

    def by_client(self) -> Counter[str]:
        """How often read by each client that got it unmasked."""
        counts: Counter[str] = Counter()
        for seen, tally in self.sightings.items():
            if not seen.masked:
                counts[seen.client] += tally.count
        return counts

    def _counts(self, side: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for seen, tally in self.sightings.items():
            counts[getattr(seen, side)] += tally.count
        return counts


class LeakingContainer(Tally):
    """A container with findings."""

    __slots__ = ("container_id", "name", "patterns", "severities")

    def __init__(self, container_id: str) -> None:
        super().__init__()
        self.container_id = container_id
        self.name = ""
        self.patterns: Counter[str] = Counter()
        self.severities: Counter[str] = Counter()

    @property
    def label(self) -> str:
        """Its name; without one its id, shortened as docker shows it."""
        if self.container_id == NO_CONTAINER:
            return "(no container)"
        if self.name or not re.fullmatch("[0-9a-f]{64}", self.container_id):
            return self.name or self.container_id
        return self.container_id[:12]


class Reader(Tally):
    """A client that read streams; its count is that of its findings."""

    __slots__ = ("client", "streams", "unfinished", "bytes", "containers")

    def __init__(self, client: str) -> None:
        super().__init__()
        self.client = client
        self.streams = self.unfinished = self.bytes = 0
        self.containers: set[str] = set()


class Refusal(NamedTuple):
    """A request that was refused (`denied`), or would have been outside learn mode."""

    event: str
    method: str
    path: str
    rule: str
    client: str

    @property
    def request(self) -> str:
        """Method and path; of a connection that was refused before a request neither is known."""
        return f"{self.method} {self.path}".strip() or "a connection"

    @property
    def only_learned(self) -> bool:
        """Whether the request was let through in learn mode."""
        return self.event == "would_deny"


class Finding(NamedTuple):
    """One finding as it was counted, for the latest ones on the page."""

    timestamp: str
    secret: Secret
    container: LeakingContainer
    client: str
    place: str  # the stream and its line, or the answer
