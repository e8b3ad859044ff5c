"""How many records a container, a client, and all containers together may cause. Performs no I/O.

Each budget is a token bucket: a burst at once, then a rate. What finds no room in a budget is
counted in a `suppressed` record.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Findings of one container, by severity: a flood of e-mail addresses costs no key its record.
CONTAINER_BURST = {"LOW": 2_000, "MEDIUM": 4_000, "HIGH": 10_000}
CONTAINER_RATE = {"LOW": 20.0, "MEDIUM": 40.0, "HIGH": 100.0}  # each second
#: Findings of all containers together; fewer than the writer takes, so that none is lost.
TOTAL_BURST = 10_000
TOTAL_RATE = 2_000.0
#: The share of TOTAL_BURST that a severity leaves to those above it; one container alone can still
#: have its whole burst.
LEFT_ABOVE = {"LOW": 0.7, "MEDIUM": 0.3, "HIGH": 0.0}
#: The share that a container with more than QUIET findings in a row leaves to the others; 32
#: containers have as many together.
LEFT_TO_QUIET = 0.1
QUIET = 30
#: `request`, `denied` and `would_deny` records of one client.
CLIENT_BURST = 1_000
CLIENT_RATE = 20.0
BUDGETS_KEPT = (
    10_000  # containers and clients whose budgets are kept; the longest unused goes first
)


class TokenBucket:
    """`burst` tokens at once, then `rate` a second."""

    __slots__ = ("burst", "rate", "tokens", "since")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self.burst = burst
        self.rate = rate
        self.tokens = float(burst)
        self.since = now

    def refill(self, now: float) -> float:
        """Add what the time since the last call brings; returns the tokens that are there."""
        self.tokens = min(self.burst, self.tokens + (now - self.since) * self.rate)
        self.since = now
        return self.tokens


class FindingBudgets:
    """The budgets of findings: one for each container and severity, and one for all together.

    In the budget of all, HIGH comes first: LOW and MEDIUM leave a part of it to those above them.
    A container with many findings leaves a part of it to those with few.
    """

    def __init__(self, now: float) -> None:
        self._total = TokenBucket(TOTAL_BURST, TOTAL_RATE, now)
        self._containers: OrderedDict[str | None, dict[str, TokenBucket]] = OrderedDict()

    def take(self, container: str | None, severity: str, records: int, now: float) -> bool:
        """Take room for so many records of a container, or none and False."""
        own = self._of(container, now)[severity]
        quiet = own.refill(now) > own.burst - QUIET
        left = LEFT_ABOVE[severity] + (0 if quiet else LEFT_TO_QUIET)
        if own.tokens < records or self._total.refill(now) - records < left * self._total.burst:
            return False
        own.tokens -= records
        self._total.tokens -= records
        return True

    def charge(self, container: str | None, severity: str, records: int, now: float) -> None:
        """Charge a container with records that are written whatever is left."""
        self._of(container, now)[severity].tokens -= records

    def charge_total(self, records: int) -> None:
        """Charge the budget of all containers with such records."""
        self._total.tokens -= records

    def _of(self, container: str | None, now: float) -> dict[str, TokenBucket]:
        buckets = self._containers.get(container)
        if buckets is None:
            buckets = self._containers[container] = {
                severity: TokenBucket(burst, CONTAINER_RATE[severity], now)
                for severity, burst in CONTAINER_BURST.items()
            }
            if len(self._containers) > BUDGETS_KEPT:
                self._containers.popitem(last=False)
        else:
            self._containers.move_to_end(container)
        return buckets


class Suppressed(NamedTuple):
    """Records of one client that found no room: who it is, and how many, by event."""

    client: Mapping[str, Any]
    counts: Mapping[str, int]


class ClientBudget:
    """One client's bucket, and what found no room in it since `since`."""

    __slots__ = ("client", "bucket", "counts", "since")

    def __init__(self, client: Mapping[str, Any], now: float) -> None:
        self.client = client
        self.bucket = TokenBucket(CLIENT_BURST, CLIENT_RATE, now)
        self.counts: Counter[str] = Counter()
        self.since = now

    def drain(self) -> Suppressed:
        """What has been counted; the count begins at nothing again."""
        counts, self.counts = self.counts, Counter()
        return Suppressed(self.client, counts)


class ClientBudgets:
    """The budgets of `request`, `denied` and `would_deny` records, one for each client."""

    def __init__(self) -> None:
        self._clients: OrderedDict[Any, ClientBudget] = OrderedDict()
        self._counting: dict[Any, ClientBudget] = {}  # those with counts, the oldest first
        self._forgotten: list[Suppressed] = []

    def take(self, client: Mapping[str, Any], now: float) -> bool:
        """Whether the client may cause one more record."""
        bucket = self._of(client, now).bucket
        if bucket.refill(now) < 1:
            return False
        bucket.tokens -= 1
        return True

    def suppress(self, client: Mapping[str, Any], event: str, count: int, now: float) -> None:
        """Count what is not written."""
        budget = self._of(client, now)
        if not budget.counts:
            budget.since = now
            self._counting[budget_key(client)] = budget
        budget.counts[event] += count

    def drain(self, since: float) -> list[Suppressed]:
        """The counts that began at this moment or before, and those of forgotten clients."""
        found, self._forgotten = self._forgotten, []
        due = [key for key, budget in self._counting.items() if budget.since <= since]
        return found + [self._counting.pop(key).drain() for key in due]

    def _of(self, client: Mapping[str, Any], now: float) -> ClientBudget:
        key = budget_key(client)
        budget = self._clients.get(key)
        if budget is not None:
            self._clients.move_to_end(key)
            return budget
        budget = self._clients[key] = ClientBudget(client_identity(client), now)
        if len(self._clients) > BUDGETS_KEPT:
            oldest = self._clients.popitem(last=False)[0]
            if oldest in self._counting:
                self._forgotten.append(self._counting.pop(oldest).drain())
        return budget


def client_identity(client: Mapping[str, Any]) -> dict[str, Any]:
    """What names a client for good: its address, or its uid; never its pid."""
    name = "address" if "address" in client else "uid"
    return {name: client.get(name)}


def budget_key(client: Mapping[str, Any]) -> Any:
    """What a client's budget is kept under: its uid, its IPv4 address, or its IPv6 network.

    A host has a whole /64 (RFC 4291 §2.5.4), so a budget for each address would be none.
    """
    address = client.get("address")
    if address is None:
        return client.get("uid")
    if ":" not in address:
        return address
    try:
        return ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False)
    except ValueError:
        return address
