"""Tests of budgets.py: who may cause how many records, and who leaves room to whom."""

from __future__ import annotations

from typing import Any

import pytest

from _dockeraudit import budgets
from _dockeraudit.budgets import ClientBudgets, FindingBudgets, TokenBucket, budget_key

TCP = {"listener": "tcp://127.0.0.1:2375", "address": "10.0.0.1"}
UNIX = {"listener": "unix:///x", "uid": 7, "gid": 7, "pid": 1, "command": "docker"}


def taken(findings: FindingBudgets, container: str, severity: str, most: int, now: float) -> int:
    """How many of `most` findings find room."""
    return sum(findings.take(container, severity, 1, now) for _ in range(most))


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = TokenBucket(10, 2.0, 100.0)
    bucket.tokens -= 10
    assert bucket.refill(100.0) == 0 and bucket.refill(101.5) == 3
    assert bucket.refill(1e6) == 10


@pytest.mark.parametrize(
    "severity, burst, rate", [("LOW", 2_000, 20), ("MEDIUM", 4_000, 40), ("HIGH", 10_000, 100)]
)
def test_a_container_has_a_burst_and_a_rate_for_each_severity(
    severity: str, burst: int, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "TOTAL_BURST", 1_000_000)
    findings = FindingBudgets(0.0)
    assert taken(findings, "a", severity, burst * 2, 0.0) == burst
    assert taken(findings, "a", severity, burst, 10.0) == rate * 10
    for other in {"LOW", "MEDIUM", "HIGH"} - {severity}:  # each has a budget of its own
        assert findings.take("a", other, 1, 10.0)
    assert findings.take("b", severity, 1, 10.0)  # and each container


def test_all_containers_together_get_ten_thousand_and_then_two_thousand_a_second() -> None:
    findings = FindingBudgets(0.0)
    at_once = sum(taken(findings, f"c{n}", "HIGH", 900, 0.0) for n in range(32))
    assert 9_000 < at_once <= 10_000
    later = sum(taken(findings, f"d{n}", "HIGH", 900, 3.0) for n in range(32))
    assert at_once + 5_000 < at_once + later <= 10_000 + 3 * 2_000


def test_high_findings_come_first() -> None:
    findings = FindingBudgets(0.0)
    low = sum(taken(findings, f"c{n}", "LOW", 2_000, 0.0) for n in range(32))
    medium = sum(taken(findings, f"c{n}", "MEDIUM", 4_000, 0.0) for n in range(32))
    high = sum(taken(findings, f"c{n}", "HIGH", 900, 0.0) for n in range(32))
    assert 2_000 <= low <= 3_000 and low + medium <= 7_000 and high > 2_000


@pytest.mark.parametrize("severity", ["LOW", "MEDIUM", "HIGH"])
def test_containers_that_flood_leave_room_to_one_with_few_findings(severity: str) -> None:
    findings = FindingBudgets(0.0)
    for number in range(32):
        taken(findings, f"flood {number}", severity, 10_000, 0.0)
    assert taken(findings, "quiet", severity, 30, 0.0) == 30


def test_records_that_are_written_in_any_case_are_charged() -> None:
    findings = FindingBudgets(0.0)
    findings.charge("a", "LOW", 1_990, 0.0)
    findings.charge_total(1_000)
    assert taken(findings, "a", "LOW", 100, 0.0) == 10
    findings.charge("a", "LOW", 40, 0.0)  # a debt
    assert taken(findings, "a", "LOW", 100, 1.0) == 0
    assert taken(findings, "a", "LOW", 100, 3.0) == 20
    assert sum(taken(findings, f"c{n}", "HIGH", 900, 0.0) for n in range(32)) <= 9_000


def test_a_finding_and_its_update_find_room_together_or_not_at_all() -> None:
    findings = FindingBudgets(0.0)
    assert taken(findings, "a", "LOW", 1_999, 0.0) == 1_999
    assert not findings.take("a", "LOW", 2, 0.0) and findings.take("a", "LOW", 1, 0.0)


def test_the_longest_unused_budget_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "BUDGETS_KEPT", 3)
    findings = FindingBudgets(0.0)
    taken(findings, "a", "LOW", 2_000, 0.0)
    for name in "bcadaeaf":
        findings.take(name, "HIGH", 1, 0.0)
    assert not findings.take("a", "LOW", 1, 0.0)


# =================================================================================================
# clients
# =================================================================================================


@pytest.mark.parametrize(
    "one, other, same",
    [
        (UNIX, {**UNIX, "pid": 2, "command": "sh", "listener": "unix:///y"}, True),
        (UNIX, {**UNIX, "uid": 8}, False),
        (TCP, {**TCP, "listener": "tcp://0.0.0.0:1"}, True),
        (TCP, {**TCP, "address": "10.0.0.2"}, False),
        ({"address": "2001:db8::1"}, {"address": "2001:db8::ffff:1"}, True),
        ({"address": "2001:db8::1"}, {"address": "2001:db8:0:1::1"}, False),
        ({"address": "fe80::1%eth0"}, {"address": "fe80::2%eth0"}, True),
        ({"address": "no:address"}, {"address": "no:other"}, False),
    ],
)
def test_a_client_is_its_uid_or_its_address_or_network(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert (budget_key(one) == budget_key(other)) is same


def test_a_client_has_a_thousand_records_and_then_twenty_a_second() -> None:
    clients = ClientBudgets()
    assert sum(clients.take(UNIX, 0.0) for _ in range(5_000)) == 1_000
    assert sum(clients.take(UNIX, 2.0) for _ in range(5_000)) == 40
    assert clients.take(TCP, 2.0)


def test_what_a_client_may_not_cause_is_counted_until_it_is_due() -> None:
    clients = ClientBudgets()
    clients.suppress(UNIX, "request", 1, 10.0)
    clients.suppress({**UNIX, "pid": 9}, "denied", 4, 40.0)
    clients.suppress(TCP, "denied", 2, 30.0)
    assert clients.drain(9.0) == []
    assert clients.drain(10.0) == [({"uid": 7}, {"request": 1, "denied": 4})]
    clients.suppress(UNIX, "request", 1, 50.0)
    assert clients.drain(40.0) == [({"address": "10.0.0.1"}, {"denied": 2})]
    assert clients.drain(50.0) == [({"uid": 7}, {"request": 1})] and not clients.drain(1e9)


def test_counts_of_a_forgotten_client_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "BUDGETS_KEPT", 2)
    clients = ClientBudgets()
    for number in range(5):
        clients.suppress({"address": f"10.0.0.{number}"}, "request", 1, 100.0)
    assert [client["address"] for client, _ in clients.drain(0.0)] == [
        "10.0.0.0",
        "10.0.0.1",
        "10.0.0.2",
    ]
    assert len(clients.drain(100.0)) == 2
