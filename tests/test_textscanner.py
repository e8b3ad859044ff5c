"""One text to findings: the same ones at any cut, and although silence falls anywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from recorded import AWS, KEY, KEY_LINES, SECRET, STAMP, PlainScanner, RecordedStream
from scripted import stdcopy_frame

import patterns
from _dockeraudit.rules import Match, shape_sample
from _dockeraudit.streams import StreamDemuxer
from _dockeraudit.textscanner import (
    CARRY_KEPT,
    CARRY_LIMIT,
    FRAMES,
    KNOWN_READINGS,
    RAW,
    Reading,
    TextScanner,
    TwoReadings,
    count_lines,
)
from conftest import splits


def scanned(
    parts: Sequence[bytes], settle: bool = False, scanner: Any = patterns.DEFAULT_SCANNER
) -> tuple[RecordedStream, TextScanner]:
    """A text fed to a scanner in parts, with a silence after each if `settle`."""
    records = RecordedStream()
    text = TextScanner(scanner, records, "stdout")
    for part in parts:
        text.feed(part)
        if settle:
            text.settle()
    text.end()
    return records, text


def seen(records: RecordedStream) -> list[tuple[Any, ...]]:
    return [(found["rule"], found["match"], found["line"]) for found in records.findings]


def known(records: RecordedStream) -> list[tuple[Any, ...]]:
    """What the records say in the end: rule, severity, secret, line."""
    return [(f["id"], f["severity"], f["secret"], f["line"]) for f in records.settled]


def scan_says(text: bytes) -> list[tuple[Any, ...]]:
    """The same of `patterns.scan`."""
    return [
        (
            match.rule.id,
            match.rule.severity,
            text[match.secret_start : match.secret_end],
            text.count(b"\n", 0, match.start) + 1,
        )
        for match in patterns.scan(text)
    ]


# -- cuts

TEXT = (
    b"first line\n"
    + SECRET
    + b"user@example.org wrote\r\n\x1b[31mpassword: hunter2hunter2\x1b[0m\n"
    b"api_key = 'abcdefghij0123456789XYZ'\nbearer abcdefghijklmnopqrstuvwxyz\n"
    + SECRET
    + b"tail "
    + AWS.encode()
)


def test_a_secret_is_found_once_at_any_cut() -> None:
    whole = seen(scanned([TEXT])[0])
    assert len(whole) >= 6
    for parts in splits(TEXT):
        records, text = scanned(parts)
        assert seen(records) == whole and not records.updates
        assert text.lines == TEXT.count(b"\n") + 1


def framed(parts: Sequence[bytes], prefix: bytes) -> RecordedStream:
    """What is reported of frames, each of which begins with the prefix of timestamps=1."""
    records = RecordedStream()
    text = TextScanner(patterns.DEFAULT_SCANNER, records, "stdout")
    demuxer = StreamDemuxer("multiplexed", timestamps=bool(prefix))
    for part in parts:
        for _, data in demuxer.feed(stdcopy_frame(1, prefix + part)):
            text.feed(data)
    text.end()
    return records


ONE_OF_EACH_KIND = {rule.find: rule for rule in patterns.RULES}.values()
CUT_RULES = [
    pytest.param(rule, id=rule.id, marks=() if rule in ONE_OF_EACH_KIND else pytest.mark.full)
    for rule in patterns.RULES
    if rule.examples
]


@pytest.mark.parametrize("rule", CUT_RULES)
def test_a_rules_secret_is_found_once_wherever_a_frame_cuts_it(rule: Any) -> None:
    text = b"before\n" + rule.examples[0].encode() + b"\nafter\n"
    whole = seen(framed([text], b""))
    assert whole
    for cut in range(1, len(text)):
        parts = [text[:cut], text[cut:]]
        assert seen(framed(parts, b"")) == whole, cut
        assert seen(framed(parts, STAMP)) == whole, cut


def test_a_secret_below_its_name_is_found_at_any_cut_though_a_prefix_fills_the_blank_line() -> None:
    head, value = b"jenkins  | ", shape_sample("{h32}").encode()
    lines = [b"Use the following password to proceed:", b"", value, b"", b"begun"]
    text = b"".join(head + line + b"\n" for line in lines)
    whole = seen(scanned([text])[0])
    assert len(whole) == 1
    for cut in range(len(text)):
        assert seen(scanned([text[:cut], text[cut:]])[0]) == whole, cut


def test_lines_are_counted_whatever_their_lengths() -> None:
    rng = random.Random(11)
    for _ in range(300):
        lines = [b"x" * rng.choice([0, 1, 100, 511, 512, 5000]) for _ in range(rng.randrange(200))]
        block = b"\n".join(lines)
        assert count_lines(block) == block.count(b"\n")


def test_a_line_that_is_cut_by_a_gap_is_counted_once() -> None:
    text = TextScanner(patterns.DEFAULT_SCANNER, RecordedStream(), "stdout")
    text.feed(b"one\ntwo, which goes on")
    text.cut(newlines=1)
    text.feed(b"three\n")
    text.end()
    assert text.lines == 3


# -- silence


@pytest.mark.parametrize("rule", CUT_RULES)
def test_a_silence_inside_a_secret_changes_nothing_of_what_is_known_in_the_end(rule: Any) -> None:
    for example in rule.examples:
        text = b"before\n" + example.encode() + b"\nafter\n"
        whole = sorted(known(scanned([text])[0]), key=repr)
        for cut in range(1, len(text)):
            records, _ = scanned([text[:cut], text[cut:]], settle=True)
            assert sorted(known(records), key=repr) == whole, cut


def test_silences_anywhere_in_any_line_change_nothing_of_what_is_known_in_the_end() -> None:
    rng = random.Random(18)
    for _ in range(400):
        text = secret_mix(rng) + b"\n"
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.choice((1, 2, 5, 30))))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
        records, _ = scanned(parts, settle=True)
        assert Counter(known(records)) == Counter(known(scanned([text])[0])), (text, cuts)


GROWING = [
    (b"from user@mail.example.", b"org.uk today\n", b"user@mail.example.org.uk"),
    (b"password=hunter2hun", b"ter2more\n", b"hunter2hunter2more"),
    (
        b"gocardless_api_key = live_0123456789",
        b"abcdefghijklmnopqrstuvwxyzabcd\n",
        b"abcdefghijklmnopqrstuvwxyzabcd",
    ),
]


@pytest.mark.parametrize("begins, goes_on, secret", GROWING)
def test_a_match_that_goes_on_behind_a_silence_is_updated_to_what_the_whole_line_says(
    begins: bytes, goes_on: bytes, secret: bytes
) -> None:
    records, _ = scanned([begins, goes_on], settle=True)
    assert known(records) == known(scanned([begins + goes_on])[0])
    (found,) = records.findings
    assert found.get("complete", True) and found["secret"].endswith(secret)


def test_what_is_found_in_an_unfinished_line_is_partial_until_the_line_ends() -> None:
    records = RecordedStream()
    text = TextScanner(patterns.DEFAULT_SCANNER, records, "stdout")
    text.feed(SECRET[:-1])
    text.settle()
    assert records.findings[0]["partial"] and not records.updates
    text.feed(b", more")
    text.settle()
    assert len(records.findings) == 1 and not records.updates
    text.feed(b"\nnext")
    assert records.updates == 1 and records.findings[0]["complete"]
    text.settle()
    text.end()
    assert len(records.findings) == 1 and records.updates == 1


def test_a_partial_finding_that_is_none_in_the_whole_line_is_said_to_have_no_end() -> None:
    token = next(rule for rule in patterns.RULES if rule.id == "google-oauth-secret").examples[0]
    records, _ = scanned([b"x " + token.encode(), b"morecharacters\n"], settle=True)
    (found,) = records.findings
    assert found["partial"] and found["complete"] is False and found["secret"] is None


def test_a_match_that_another_rule_completes_after_a_silence_is_one_finding() -> None:
    value = shape_sample("live_{g40}")
    text = b"gocardless_api_key = " + value.encode() + b" end\n"
    for cut in range(1, len(text)):
        records, _ = scanned([text[:cut], text[cut:]], settle=True)
        assert [f["secret"] for f in records.findings] == [value.encode()], cut


class Counting:
    """A scanner that counts the bytes that it is given."""

    def __init__(self) -> None:
        self.scanned = 0

    def undecided(self, block: bytes) -> int:
        return patterns.DEFAULT_SCANNER.undecided(block)

    def scan_lines(self, block: bytes) -> list[Match]:
        self.scanned += len(block)
        return patterns.DEFAULT_SCANNER.scan_lines(block)


def test_a_silence_scans_only_what_is_new_with_its_context() -> None:
    scanner = Counting()
    text = TextScanner(scanner, RecordedStream(), "stdout")  # type: ignore[arg-type]
    text.feed(b"x y" * 20_000)
    text.settle()
    assert scanner.scanned == 60_000
    for _ in range(100):
        text.feed(b".")
        text.settle()
        text.settle()
    assert scanner.scanned <= 60_000 + 100 * (CARRY_KEPT + 1)


# -- what patterns.scan says


def secret_mix(rng: random.Random) -> bytes:
    """A line of secrets, names and what stands between them, put together at random."""
    parts = [
        *("s3://", "https://", "bot:", "abc1", "@", AWS, "password=", "Passw0rd-77", "api_key: "),
        *("user@mail.example.", "org.uk", " ", "/", '"', ":", "token=", shape_sample("ghp_{a36}")),
        *("Bearer ", shape_sample("{a24}"), "secret", "=", ",", "postgres://app:", "host.io", "&"),
        shape_sample("sk_live_{a24}"),
    ]
    return "".join(rng.choice(parts) for _ in range(rng.randrange(2, 14))).encode()


def test_a_match_that_begins_inside_another_one_is_found_as_scan_finds_it() -> None:
    text = f"s3://bot:abc1@{AWS}.example.org\n".encode()
    records, _ = scanned([text])
    assert len(scan_says(text)) == 2 and known(records) == scan_says(text)


def test_a_text_gives_what_scan_gives() -> None:
    rng = random.Random(4)
    for _ in range(3000):
        text = secret_mix(rng)
        assert known(scanned([text])[0]) == scan_says(text), text


# -- endless lines


@pytest.mark.parametrize("offset", range(CARRY_LIMIT - 30, CARRY_LIMIT + 30, 7))
@pytest.mark.parametrize("settle", [False, True])
def test_a_secret_in_an_endless_line_is_found_once_at_any_offset(offset: int, settle: bool) -> None:
    data = b"." * offset + b" " + AWS.encode() + b" " + b"." * 200_000
    for size in (len(data), 16384, 5000):
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        records, _ = scanned(parts, settle)
        (found,) = records.findings
        assert found["match"] == AWS.encode() and found.get("complete", True)


def test_a_token_that_a_window_cuts_is_not_found_a_second_time_in_its_middle() -> None:
    head = "LS0tLS1" + "CRUdJTiBSU0EgUFJJVkFURSBLRVkt"  # a PEM header in base64
    token = f"{head}{shape_sample('{a300}')}/{head}{shape_sample('{a90}')}".encode()
    before = CARRY_LIMIT - CARRY_KEPT - 50
    line = b"x " * (before // 2) + token + b" " + b". " * 40_000 + b"\n"
    assert [found[2] for found in scan_says(line)] == [token]
    for settle in (False, True):
        parts = [line[at : at + 9000] for at in range(0, len(line), 9000)]
        assert known(scanned(parts, settle)[0]) == scan_says(line)


def test_a_token_that_reaches_a_windows_end_is_said_to_have_no_end() -> None:
    head = "LS0tLS1" + "CRUdJTiBSU0EgUFJJVkFURSBLRVkt"
    records, _ = scanned([head.encode() + b"A" * 2 * CARRY_LIMIT])
    assert [(f["partial"], f["complete"]) for f in records.findings] == [(True, False)]


def test_memory_stays_flat_without_a_newline() -> None:
    records = RecordedStream()
    text = TextScanner(patterns.DEFAULT_SCANNER, records, "tty")
    for _ in range(200):
        text.feed(b"x y" * 10_000)
        assert text.held <= CARRY_LIMIT
        text.shrink()
        assert text.held <= CARRY_KEPT
    text.end()
    assert records.findings == []


# -- private keys


@pytest.mark.parametrize("settle", [False, True])
def test_a_private_key_is_one_finding_completed_at_its_end(settle: bool) -> None:
    data = b"before\n" + KEY + SECRET
    body = b"".join(KEY_LINES[1:-1])
    for parts in splits(data):
        records, _ = scanned(parts, settle)
        key, other = records.findings
        assert (key["rule"], key["line"], key["lines"]) == ("Private Key", 2, 13)
        assert (key["secret"], key["complete"]) == (body, True)
        assert other["secret"] == AWS.encode()


@pytest.mark.parametrize("settle", [False, True])
def test_a_private_key_is_the_same_with_compose_and_a_stamp_before_its_lines(settle: bool) -> None:
    data = b"".join(
        b"web-1  | 2026-01-02T03:04:%02d.5Z %s\n" % (second, line)
        for second, line in enumerate(KEY_LINES, 10)
    )
    for parts in splits(data + SECRET):
        records, _ = scanned(parts, settle)
        key, other = records.findings
        assert (key["rule"], key["lines"], key["complete"]) == ("Private Key", 13, True)
        assert key["secret"] == b"".join(KEY_LINES[1:-1])
        assert other["secret"] == AWS.encode()


def test_a_key_header_without_a_body_hides_nothing() -> None:
    records, _ = scanned([KEY_LINES[0] + b"\n" + AWS.encode() + b"\nordinary words\n" + SECRET])
    assert [f["rule"] for f in records.findings] == [
        "Private Key",
        "AWS Access Key",
        "AWS Access Key",
    ]
    assert records.findings[0]["complete"] is False and records.findings[0]["secret"] is None


def test_a_key_without_an_end_is_bounded() -> None:
    records, _ = scanned([KEY_LINES[0] + b"\n"] + [b"A" * 76 + b"\n"] * 2000)
    assert records.findings[0]["complete"] is False and records.findings[0]["secret"] is None


def test_an_endless_line_ends_a_keys_body() -> None:
    records, _ = scanned([KEY_LINES[0] + b"\n", b"A" * (CARRY_LIMIT + 1)])
    assert [(f["rule"], f["complete"]) for f in records.findings] == [("Private Key", False)]


# -- a name on one line, its value on the next


class NextLine(PlainScanner):
    """A scanner with one rule: the line `NAME:` names the secret on the line behind it."""

    NAME = b"NAME:\n"

    def undecided(self, block: bytes) -> int:
        return len(block) - len(self.NAME) if block.endswith(self.NAME) else len(block)

    def scan_lines(self, block: bytes) -> list[Match]:
        matches, at = [], block.find(self.NAME)
        while at >= 0:
            value = at + len(self.NAME)
            end = block.find(b"\n", value)
            end = len(block) if end < 0 else end
            if end > value:
                matches.append(Match(patterns.RULES[0], at, end, value, end))
            at = block.find(self.NAME, value)
        return matches


class EachLine(PlainScanner):
    """A scanner that finds each line, and keeps the last one for the next block."""

    def undecided(self, block: bytes) -> int:
        return block.rfind(b"\n", 0, len(block) - 1) + 1

    def scan_lines(self, block: bytes) -> list[Match]:
        starts = [0, *(at + 1 for at, byte in enumerate(block[:-1]) if byte == 10)]
        return [Match(patterns.RULES[0], at, at + 2, at, at + 2) for at in starts]


@pytest.mark.parametrize("settle", [False, True])
def test_a_value_on_the_line_behind_its_name_is_found_at_any_cut(settle: bool) -> None:
    text = b"one\nNAME:\nvalue\ntwo\nNAME:\n\nNAME:\nother value\nthree\nNAME:\n"
    for parts in splits(text):
        records, scanner = scanned(parts, settle, NextLine())
        assert [(f["secret"], f["line"]) for f in records.settled] == [
            (b"value", 2),
            (b"other value", 7),
        ]
        assert scanner.lines == text.count(b"\n") and scanner.held == 0


def test_a_line_that_may_name_a_secret_on_the_next_line_is_reported_at_once() -> None:
    records = RecordedStream()
    text = TextScanner(EachLine(), records, "stdout")  # type: ignore[arg-type]
    for number in range(1, 4):
        text.feed(b"a line\n")
        text.settle()
        assert [(f["line"], f["partial"]) for f in records.findings] == [
            (line, False) for line in range(1, number + 1)
        ]
    text.end()
    assert len(records.findings) == text.lines == 3


def test_a_key_that_begins_in_a_kept_line_goes_on_behind_it() -> None:
    class KeepsLast(Counting):
        def undecided(self, block: bytes) -> int:
            return block.rfind(b"\n", 0, len(block) - 1) + 1

    for parts in splits(KEY + SECRET):
        for settle in (False, True):
            records, text = scanned(parts, settle, KeepsLast())
            assert [(f["rule"], f.get("complete", True)) for f in records.findings] == [
                ("Private Key", True),
                ("AWS Access Key", True),
            ]
            assert text.lines == len(KEY_LINES) + 1


# -- two readings of the same bytes


def told(readings: TwoReadings, reading: str, secret: bytes, partial: bool = False) -> Any:
    rule = patterns.RULES[0]
    return Reading(readings, reading).finding("tty", rule, secret, secret, 1, partial)


def test_what_two_readings_find_is_recorded_as_often_as_the_one_that_has_it_more_often() -> None:
    for order in ([FRAMES, RAW, FRAMES], [RAW, FRAMES, FRAMES], [FRAMES, FRAMES, RAW]):
        records = RecordedStream()
        readings = TwoReadings(records)
        for reading in order:
            told(readings, reading, b"the same")
        told(readings, RAW, b"another")
        assert [f["secret"] for f in records.findings] == [b"the same", b"the same", b"another"]


def test_two_readings_of_one_finding_update_it_once() -> None:
    records = RecordedStream()
    readings = TwoReadings(records)
    handles = {name: told(readings, name, b"part", partial=True) for name in (FRAMES, RAW)}
    rule = patterns.RULES[1]
    for name, handle in handles.items():
        Reading(readings, name).update(handle, rule, b"whole", b"whole", 1, True)
        Reading(readings, name).update(handle, None, b"", None, 1, False)
    assert records.updates == 1
    assert [(f["secret"], f["id"]) for f in records.findings] == [(b"whole", rule.id)]


def test_what_is_kept_of_findings_that_one_reading_has_alone_is_bounded() -> None:
    readings = TwoReadings(RecordedStream())
    for number in range(2 * KNOWN_READINGS):
        told(readings, FRAMES, b"%d" % number)
    assert len(readings.ahead[FRAMES]) == KNOWN_READINGS
