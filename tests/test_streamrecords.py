"""Tests of streamrecords.py: findings, repeats, updates and suppressed counts, and their sum."""

from __future__ import annotations

import errno
import random
import threading
import time
import types
from typing import Any

import pytest
from auditlogs import (
    AWS,
    CLIENT,
    EMAIL,
    ENDED,
    FULL_ID,
    KEY,
    Clock,
    find,
    matches_told,
    problems,
    records,
    written,
)

from _dockeraudit import auditlog, budgets, streamrecords
from _dockeraudit.records import Fingerprinter

PASSWORD = types.SimpleNamespace(id="password", name="Password", severity="MEDIUM")
FINGERPRINT = Fingerprinter(KEY).of


@pytest.fixture
def small_budgets(monkeypatch):
    """Ten findings of each severity for a container."""
    monkeypatch.setattr(budgets, "CONTAINER_BURST", dict.fromkeys(("LOW", "MEDIUM", "HIGH"), 10))


@pytest.fixture
def stream(new_log):
    """A stream of a container with a name; its log has a clock that stands still."""
    log = new_log(monotonic=Clock())
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    stream.log = log
    return stream


@pytest.fixture
def finish(stream, folder):
    """A function that closes stream and log, and returns the log's records."""

    def end():
        stream.close(**ENDED)
        stream.log.close("end", 10)
        found = records(folder / "audit.log")
        assert not problems(folder / "audit.log")
        assert matches_told(found) == sum(stream.log.counters()["findings"].values())
        assert of(found, "stream_close")[0]["findings"] == matches_told(found)
        return found

    return end


def of(found, event):
    return [record for record in found if record["event"] == event]


def told(record):
    """What a finding or an update says that it is."""
    return record["rule"], record["severity"], record["fingerprint"], record["redacted_match"]


# =================================================================================================
# findings and repeats
# =================================================================================================


def test_repeats_are_counted_and_written_at_most_once_a_minute(new_log, folder):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    for _ in range(5):
        find(stream)
    written(log, 3)
    log.tick()
    monotonic.now += 59
    find(stream)
    log.tick()
    assert len(records(folder / "audit.log", "finding")) == 1
    monotonic.now += 1
    log.tick()
    written(log, 4)
    find(stream)
    find(stream, b"other")
    stream.close(**ENDED)
    log.close("end", 10)
    assert [record["count"] for record in records(folder / "audit.log", "finding")] == [1, 5, 1, 1]
    assert records(folder / "audit.log", "stream_close")[0]["findings"] == 8


def test_a_match_whose_end_is_unknown_is_never_merged(stream, finish):
    find(stream, b"value")
    for _ in range(2):
        find(stream, None, partial=True)
        find(stream, b"value", partial=True)
    assert [record["fingerprint"] for record in of(finish(), "finding")] == [
        FINGERPRINT(b"value"),
        None,
        FINGERPRINT(b"value"),
        None,
        FINGERPRINT(b"value"),
    ]


def test_a_partial_finding_shows_its_beginning_only(stream, finish):
    find(stream, b"value", partial=True)
    find(stream, b"placeholder", placeholder=True)
    find(stream, b"both", partial=True, placeholder=True)
    found = of(finish(), "finding")
    assert [record["redacted_match"] for record in found] == ["ke***", "ke***r;", "ke***"]
    assert [list(record)[-3:] for record in found] == [
        ["stream", "line", "partial"],
        ["stream", "line", "placeholder"],
        ["line", "partial", "placeholder"],
    ]
    assert found[2]["partial"] is True and found[2]["placeholder"] is True


def test_the_variable_that_holds_a_secret_stands_behind_its_line(stream, finish):
    find(stream, b"one", env="DB_PASSWORD")
    find(stream, b"one", env="DB_PASSWORD")
    partial = find(stream, b"two", partial=True)
    stream.update(partial, PASSWORD, b"", b"two and more", 1, True, "APP_TOKEN")
    find(stream, b"three")
    found = finish()
    said = [(record["count"], record.get("env")) for record in of(found, "finding")]
    assert sorted(said, key=str) == [(1, "DB_PASSWORD"), (1, "DB_PASSWORD"), (1, None), (1, None)]
    first = of(found, "finding")[0]
    assert list(first)[-2:] == ["line", "env"]
    (update,) = of(found, "finding_update")
    assert (update["env"], update["rule"]) == ("APP_TOKEN", "password")
    assert update["fingerprint"] == FINGERPRINT(b"two and more")
    assert update["redacted_match"] == "***"


@pytest.mark.parametrize("needles", [None, (0, 0), (3, 2)])
def test_the_number_of_a_containers_secrets_stands_in_its_streams_first_record(
    new_log, folder, needles
):
    log = new_log(monotonic=Clock())
    stream = log.open_stream("logs", "web", CLIENT, False, True)
    stream.named(FULL_ID, "web", needles)
    stream.close(**ENDED)
    log.close("end", 10)
    (opened,) = records(folder / "audit.log", "stream_open")
    said = (opened["needles"], opened["needles_skipped"]) if "needles" in opened else None
    assert said == needles
    assert "needles" not in records(folder / "audit.log", "stream_close")[0]


def test_an_allowed_secret_is_no_match(new_log, folder):
    container = FULL_ID + ":" + FINGERPRINT(b"fine here")
    log = new_log(allow=[FINGERPRINT(b"fine"), container, "web:" + FINGERPRINT(b"by name")])
    for container_id, name in ((FULL_ID, "web"), ("c" * 64, "other")):
        stream = log.open_stream("logs", container_id, CLIENT, False, True)
        stream.named(container_id, name)
        for secret in (b"fine", b"fine here", b"by name", b"other"):
            find(stream, secret)
    log.close("end", 10)
    assert [record["container_name"] for record in records(folder / "audit.log", "finding")] == [
        "web",
        "other",
        "other",
        "other",
    ]
    assert log.counters()["findings"] == {("AWS Access Key", "HIGH"): 4}


def test_records_wait_for_the_name_but_not_for_long(new_log, folder):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    named, silent, failed = (
        log.open_stream("logs", name, CLIENT, False, True) for name in ("a", "b", "c")
    )
    for stream in (named, silent, failed):
        find(stream)
    named.named(FULL_ID, "web")
    failed.named(None, None)
    written(log, 5)
    assert len(records(folder / "audit.log", "finding")) == 2
    monotonic.now += 1.0
    log.tick()
    written(log, 7)
    silent.named("cd" * 32, "late")
    silent.close(**ENDED)
    log.close("end", 10)
    assert [
        (record["container_id"], record["container_name"])
        for record in records(folder / "audit.log", "finding")
    ] == [(FULL_ID, "web"), ("c", None), ("b", None)]
    assert records(folder / "audit.log", "stream_close")[0]["container_name"] == "late"


def test_records_that_wait_for_names_leave_half_of_the_queue_to_others(new_log, folder):
    """An engine whose inspect hangs must not cost a record."""
    log = new_log(monotonic=Clock(), queue_limit=100)
    streams = [log.open_stream("logs", f"c{number}", CLIENT, False, True) for number in range(4)]
    for number in range(200):
        find(streams[number % 4], b"%d" % number)
        written(log, number - 60)
    assert log.close("end", 10) == 0
    assert matches_told(records(folder / "audit.log")) == 200
    assert not records(folder / "audit.log", "gap")


def test_a_stream_is_closed_once(stream, folder):
    for reason in ("end", "client"):
        stream.close(**{**ENDED, "reason": reason})
    stream.log.close("end", 10)
    assert [record["reason"] for record in records(folder / "audit.log", "stream_close")] == ["end"]


def test_a_match_reported_behind_the_close_is_counted(small_budgets, stream, folder):
    find(stream)
    stream.close(**ENDED)
    for number in range(20):
        find(stream, b"%d" % (number // 2))
    stream.log.close("end", 10)
    assert matches_told(records(folder / "audit.log")) == 21
    assert not len(stream.log.known)


# =================================================================================================
# updates
# =================================================================================================


def test_an_update_says_what_a_partial_finding_is(stream, finish):
    handle = find(stream, b"va", partial=True)
    stream.update(handle, None, b"key=value", b"value", 1, True)
    key = stream.finding("stdout", AWS, b"-----BEGIN-----", None, 2, True)
    stream.update(key, None, b"-----BEGIN-----", None, 700, False)
    found = finish()
    finding, begun = of(found, "finding")
    whole, never = of(found, "finding_update")
    names = "finding pattern rule severity fingerprint redacted_match lines complete"
    assert " ".join(list(whole)[5:]) == names
    assert whole["finding"] == finding["seq"] and whole["complete"] is True
    assert told(whole) == ("aws-access-key", "HIGH", FINGERPRINT(b"value"), "ke***ue")
    assert never["finding"] == begun["seq"] and never["complete"] is False
    assert told(never) == ("aws-access-key", "HIGH", None, "--***") and never["lines"] == 700


def test_an_update_of_another_rule_moves_the_count_of_the_metrics(stream, finish):
    handle = find(stream, b"user@mail.example.", EMAIL)
    stream.update(handle, PASSWORD, b"password=value", b"value", 1, True)
    assert stream.log.counters()["findings"] == {
        ("Email Address", "LOW"): 0,
        ("Password", "MEDIUM"): 1,
    }
    found = finish()
    assert [record["rule"] for record in of(found, "finding")] == ["email-address"]
    assert told(of(found, "finding_update")[0]) == (
        "password",
        "MEDIUM",
        FINGERPRINT(b"value"),
        "pa***ue",
    )


def test_repeats_are_merged_with_what_the_update_says(stream, finish):
    """The address is seen cut short by a silence, then whole, then cut short for good."""
    handle = find(stream, b"short", EMAIL)
    stream.update(handle, None, b"longer address", b"longer", 1, True)
    find(stream, b"longer", EMAIL)
    find(stream, b"short", EMAIL)
    find(stream, b"short", EMAIL)
    found = finish()
    counts = [(record["fingerprint"], record["count"]) for record in of(found, "finding")]
    assert counts == [
        (FINGERPRINT(b"short"), 1),  # which the update names `longer`
        (FINGERPRINT(b"short"), 1),
        (FINGERPRINT(b"longer"), 1),
        (FINGERPRINT(b"short"), 1),
    ]


def test_repeats_seen_before_an_update_keep_their_own_secret(stream, finish):
    handle = find(stream, b"short")
    find(stream, b"short")
    stream.update(handle, None, b"longer secret", b"longer", 1, True)
    found = finish()
    assert [(record["fingerprint"], record["count"]) for record in of(found, "finding")] == [
        (FINGERPRINT(b"short"), 1),
        (FINGERPRINT(b"short"), 1),
    ]
    assert of(found, "finding_update")[0]["fingerprint"] == FINGERPRINT(b"longer")


def test_a_repeat_that_turns_out_to_be_another_secret_becomes_a_finding(stream, finish):
    find(stream, b"short", EMAIL)
    handle = find(stream, b"short", EMAIL)
    stream.update(handle, AWS, b"key=longer", b"longer", 1, True)
    stream.update(handle, None, b"key=longest", b"longest", 1, True)
    found = finish()
    assert [(told(record)[:3], record["count"]) for record in of(found, "finding")] == [
        (("email-address", "LOW", FINGERPRINT(b"short")), 1),
        (("aws-access-key", "HIGH", FINGERPRINT(b"longer")), 1),
    ]
    assert told(of(found, "finding_update")[0])[2] == FINGERPRINT(b"longest")


def test_a_repeat_that_was_written_before_it_changed_is_left_as_it_is(stream, finish):
    find(stream, b"short", EMAIL)
    handle = find(stream, b"short", EMAIL)
    stream.log.monotonic.now += 60
    stream.log.tick()
    stream.update(handle, AWS, b"key=longer", b"longer", 1, True)
    assert [record["rule"] for record in of(finish(), "finding")] == [
        "email-address",
        "email-address",
        "aws-access-key",
    ]


def test_a_suppressed_match_that_turns_out_to_be_a_key_becomes_a_finding(
    small_budgets, stream, finish
):
    for number in range(12):
        find(stream, b"%d" % number, EMAIL)
    handle = find(stream, b"cut short", EMAIL)
    private_key = [find(stream, None, EMAIL, partial=True) for _ in range(2)]
    stream.update(handle, AWS, b"key=whole", b"whole", 1, True)
    stream.update(private_key[0], None, b"-----BEGIN-----", b"body", 5, True)
    found = finish()
    assert [record["rule"] for record in of(found, "finding")] == ["email-address"] * 10 + [
        "aws-access-key"
    ]
    (suppressed,) = of(found, "suppressed")
    assert suppressed["counts"] == {"Email Address": 4} == {"Email Address": 2 + 2}
    assert suppressed["severities"] == {"LOW": 4} and not of(found, "finding_update")


def test_a_secret_that_the_containers_name_allows_is_no_match_though_the_name_comes_later(
    new_log, folder
):
    log = new_log(allow=["web:" + FINGERPRINT(b"fine")])
    for name, known in (("web", 0), ("other", 1)):
        stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
        for line in (1, 2, 3):
            handle = stream.finding("stdout", AWS, b"fine", b"fine", line)
        stream.finding("stdout", AWS, b"not fine", b"not fine", 4)
        stream.close(**ENDED)
        stream.named(FULL_ID, name)
        stream.update(handle, AWS, b"fine", b"fine", 1, True)
        assert log.counters()["findings"] == {(AWS.name, AWS.severity): 1 + known * 4}
    log.close("end", 10)
    found = records(folder / "audit.log")
    by_stream = {n: [r for r in found if r.get("stream") == n] for n in (1, 2)}
    told = [(r["fingerprint"], r["count"]) for r in by_stream[1] if r["event"] == "finding"]
    assert told == [(FINGERPRINT(b"not fine"), 1)]
    told = [(r["fingerprint"], r["count"]) for r in by_stream[2] if r["event"] == "finding"]
    fine, other = FINGERPRINT(b"fine"), FINGERPRINT(b"not fine")
    assert sorted(told) == sorted([(fine, 1), (fine, 2), (other, 1)])
    assert [stream[-1]["findings"] for stream in by_stream.values()] == [1, 4]
    assert not problems(folder / "audit.log") and log.held == 0
    assert not any(record["event"] == "finding_update" for record in found)


def test_a_waiting_match_that_turns_out_not_to_be_the_allowed_secret_is_a_finding(new_log, folder):
    log = new_log(allow=["web:" + FINGERPRINT(b"fine")])
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    handle = stream.finding("stdout", AWS, b"fine", b"fine", 1)
    stream.named(FULL_ID, "web")
    stream.update(handle, AWS, b"fine, not", b"fine, not", 1, True)
    stream.close(**ENDED)
    log.close("end", 10)
    (found,) = [r for r in records(folder / "audit.log") if r["event"] == "finding"]
    assert found["fingerprint"] == FINGERPRINT(b"fine, not")


def test_an_allowed_secret_that_turns_out_to_be_another_becomes_a_finding(new_log, folder):
    log = new_log(allow=[FINGERPRINT(b"fine"), FINGERPRINT(b"also fine")])
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    first, second = find(stream, b"fine"), find(stream, b"fine")
    stream.update(first, None, b"key=not fine", b"not fine", 1, True)
    stream.update(second, None, b"key=also fine", b"also fine", 1, True)
    log.close("end", 10)
    assert [record["fingerprint"] for record in records(folder / "audit.log", "finding")] == [
        FINGERPRINT(b"not fine")
    ]
    assert log.counters()["findings"] == {("AWS Access Key", "HIGH"): 1}


def test_an_update_of_nothing_is_nothing(stream, finish):
    find(stream)
    stream.update(None, None, b"key=value", b"value", 1, True)
    stream.update(find(stream), None, b"key=value", b"value", 1, True)  # the same after all
    assert not of(finish(), "finding_update")


def test_updates_count_in_the_budget_of_their_findings(small_budgets, stream, finish):
    """Private keys: each has a finding and an update, or is suppressed."""
    for number in range(20):
        handle = find(stream, None, partial=True)
        stream.update(handle, None, b"-----BEGIN-----", b"%d" % number, 5, True)
    found = finish()
    assert len(of(found, "finding")) == len(of(found, "finding_update")) == 5
    assert matches_told(found) == 20


def test_an_update_that_was_not_foreseen_is_written_and_charged(small_budgets, stream, finish):
    handles = [find(stream, b"%d" % number, EMAIL) for number in range(10)]
    for handle in handles[:5]:
        stream.update(handle, AWS, b"key=whole", b"whole", 1, True)
    stream.log.monotonic.now += 0.5  # 10 more LOW findings, of which 5 are spent
    for number in range(10):
        find(stream, b"later %d" % number, EMAIL)
    found = finish()
    assert len(of(found, "finding_update")) == 5 and len(of(found, "finding")) == 15


# =================================================================================================
# budgets
# =================================================================================================


def test_a_container_cannot_buy_volume_and_nothing_is_uncounted(small_budgets, stream, finish):
    for number in range(3000):
        rule = types.SimpleNamespace(
            id=f"r{number % 300}",
            name=f"A pattern with quite a long name, number {number % 300}",
            severity=("LOW", "MEDIUM")[number % 2],
        )
        find(stream, b"%d" % number, rule)
        find(stream, b"%d" % (number % 5), AWS)
    found = finish()
    assert len(of(found, "finding")) == 10 + 10 + 5 + 5  # the last 5 are repeats
    suppressed = of(found, "suppressed")
    assert len(suppressed) > 1 and not any("truncated" in record for record in found)
    for record in suppressed:
        assert sum(record["counts"].values()) == sum(record["severities"].values())
        assert set(record["severities"]) <= {"LOW", "MEDIUM"}
    assert matches_told(found) == 6000


def test_a_flood_of_addresses_costs_a_key_nothing(stream, finish):
    for number in range(30_000):
        find(stream, b"%d" % number, EMAIL)
    find(stream, b"the key", AWS)
    found = finish()
    assert len(of(found, "finding")) == 2_001
    assert of(found, "finding")[-1]["fingerprint"] == FINGERPRINT(b"the key")
    assert [record["severities"] for record in of(found, "suppressed")] == [{"LOW": 28_000}]


def test_suppressed_counts_are_written_once_a_minute(small_budgets, stream, finish):
    for second in range(150):
        for number in range(40):
            find(stream, b"%d.%d" % (second, number), EMAIL)
        stream.log.monotonic.now += 1
        stream.log.tick()
    assert len(of(finish(), "suppressed")) == 3


def test_the_budget_belongs_to_the_container_under_whatever_name_it_was_asked_for(
    new_log, folder, small_budgets
):
    log = new_log(monotonic=Clock())
    for name in ("web", FULL_ID[:12], FULL_ID[:13], FULL_ID):
        stream = log.open_stream("logs", name, CLIENT, False, True)
        for number in range(8):
            find(stream, b"%d" % number)
        stream.named(FULL_ID, "web")
        for number in range(8):
            find(stream, b"later %d" % number)
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert matches_told(found) == 64
    first = [record for record in of(found, "finding") if record["stream"] == 1]
    assert len(first) == 10  # 8 under its name and 2 more
    # Then each new spelling of the name buys its own 8, and the full id none.
    assert len(of(found, "finding")) == 10 + 8 + 8 + 0


def test_a_budget_refills_with_time(new_log, folder, small_budgets):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    stream = log.open_stream("logs", "web", CLIENT, False, True)
    for second in range(3):
        for number in range(200):
            find(stream, b"%d.%d" % (second, number))
        monotonic.now += 0.0625  # 6.25 more
    log.close("end", 10)
    assert len(records(folder / "audit.log", "finding")) == 10 + 6 + 6


def test_a_log_without_budgets_writes_every_finding(new_log, folder, small_budgets):
    log = new_log(budgeted=False, monotonic=Clock(), queue_limit=1000)
    stream = log.open_stream("scan", "file", CLIENT, False, True)
    for number in range(500):
        find(stream, b"%d" % number, EMAIL)
    log.close("end", 10)
    assert len(records(folder / "audit.log", "finding")) == 500


def test_a_finding_is_suppressed_before_a_full_queue_loses_it(new_log, folder, disk):
    """On a slow disk: LOW findings leave room to HIGH ones, and all findings to other records."""
    log = new_log(queue_limit=100, monotonic=Clock())
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    written(log, 2)
    disk.free.clear()
    for number in range(200):
        find(stream, b"%d" % number, EMAIL)
    for number in range(200):
        find(stream, b"%d" % number, AWS)
    for number in range(15):
        log.accept("request", {"number": number})
    disk.free.set()
    stream.close(**ENDED)
    assert log.close("end", 10) == 0
    found = records(folder / "audit.log")
    severities = [record["severity"] for record in of(found, "finding")]
    assert (severities.count("LOW"), severities.count("HIGH")) == (50, 30)
    assert matches_told(found) == 400 and len(of(found, "request")) == 15
    assert not of(found, "gap")


def test_an_evicted_finding_leaves_its_repeats_in_suppressed(new_log, folder, monkeypatch):
    monkeypatch.setattr(streamrecords, "KNOWN_FINDINGS", 3)
    log = new_log()
    stream = log.open_stream("logs", "web", CLIENT, False, True)
    for number in (0, 0, 0, 1, 2, 3, 0, 3):
        find(stream, b"%d" % number)
    stream.close(**ENDED)
    log.close("end", 10)
    found = records(folder / "audit.log")
    (suppressed,) = of(found, "suppressed")
    assert suppressed["counts"] == {"AWS Access Key": 2}
    assert suppressed["severities"] == {"HIGH": 2}
    assert matches_told(found) == 8 and not len(log.known)


@pytest.mark.parametrize("seed", range(4))
def test_the_sum_of_counts_is_exact_whatever_happens(new_log, folder, disk, monkeypatch, seed):
    monkeypatch.setattr(budgets, "CONTAINER_BURST", dict.fromkeys(("LOW", "MEDIUM", "HIGH"), 60))
    monkeypatch.setattr(streamrecords, "REPEAT_PERIOD", 0.02)
    monkeypatch.setattr(auditlog, "REPEAT_PERIOD", 0.02)
    monkeypatch.setattr(streamrecords, "KNOWN_FINDINGS", 20)
    monkeypatch.setattr(auditlog, "NAME_WAIT", 0.05)
    log = new_log(queue_limit=50)

    def report(stream, rng):
        rule = rng.choice((AWS, EMAIL, PASSWORD))
        secret = b"%d" % int(rng.expovariate(0.2))
        handle = find(stream, secret, rule, partial=rng.random() < 0.2)
        if rng.random() < 0.3:
            other: Any = rng.choice((None, AWS, EMAIL))
            stream.update(handle, other, b"key=" + secret, secret + b"!", 1, rng.random() < 0.8)

    def feed(number):
        rng = random.Random(seed * 10 + number)
        for _round in range(4):
            stream = log.open_stream("logs", f"c{number % 2}", CLIENT, False, True)
            for _ in range(rng.randrange(200)):
                report(stream, rng)
                if rng.random() < 0.01:
                    stream.named(f"{number % 2}" * 64, "x")
                    time.sleep(0.001)
            if rng.random() < 0.8:
                stream.close(**ENDED)

    def shake():
        rng = random.Random(seed)
        for _ in range(8):
            disk.error = rng.choice([None, errno.ENOSPC, errno.EIO])
            disk.room = rng.choice([None, None, rng.randrange(2000)])
            time.sleep(0.01)
        disk.error = disk.room = None

    threads = [threading.Thread(target=feed, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=shake))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close("end", 10)
    found = records(folder / "audit.log")
    counted = log.counters()
    assert matches_told(found) == log.totals["findings"] == sum(counted["findings"].values())
    lost = sum(record["records"] for record in of(found, "gap"))
    assert found[-1]["event"] == "stop" and found[-1]["lost"] == lost
    assert found[-1]["written"] == len(found)
    assert found[-1]["seq"] == len(found) + lost
    assert all("were lost" in problem for problem in problems(folder / "audit.log"))
