"""Tests of verify.py: what it calls whole, and how it names what is missing, changed or lost."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import threading
import time

import pytest
from auditlogs import CLIENT, Clock, problems, records, written
from program import run_program

from _dockeraudit import verify
from _dockeraudit.errors import AuditLogError
from _dockeraudit.records import Record, encode_record, line_hash
from _dockeraudit.verify import Verification, run_verify, verify_files
from conftest import wait_for


def history(runs=3, size=6):
    """The lines of runs that each stopped, chained, made by the encoder alone."""
    lines, prev = [], "0" * 16
    for run in range(runs):
        for number in range(size):
            event = {0: "start", size - 1: "stop"}.get(number, "finding")
            fields = {"count": 2} if event == "finding" else {}
            line = encode_record(
                Record(1e9 + run * 1000 + number, event, fields), f"{run:08x}", number + 1, prev
            )
            prev = line_hash(line[:-1])
            lines.append(line)
    return lines


def chain(*specs):
    """Lines from (run, seq, event, fields), each with the right prev."""
    lines, prev = [], "0" * 16
    for run, seq, event, fields in specs:
        line = encode_record(Record(1e9 + len(lines), event, fields), run, seq, prev)
        prev = line_hash(line[:-1])
        lines.append(line)
    return lines


def save(folder, *files):
    paths = []
    for number, lines in enumerate(files):
        path = folder / f"log.{number}"
        path.write_bytes(b"".join(lines))
        paths.append(path)
    return paths


def told(*paths, **options):
    out = io.StringIO()
    status = run_verify(
        [str(path) for path in paths], **{"json_output": True, "anchors": [], **options}, out=out
    )
    return status, json.loads(out.getvalue())


@pytest.mark.parametrize(
    "cuts", [(), (1,), (6, 12), (3, 9, 15), (5, 7), (17,), tuple(range(1, 18))], ids=str
)
def test_a_whole_history_is_sound_however_it_was_cut_into_files_and_whatever_their_order(
    folder, cuts
):
    lines = history()
    edges = [0, *cuts, len(lines)]
    paths = save(folder, *(lines[a:b] for a, b in zip(edges, edges[1:])))
    rng = random.Random(1)
    orders = (
        list(itertools.permutations(paths))
        if len(paths) < 5
        else [rng.sample(paths, len(paths)) for _ in range(20)]
    )
    for order in orders:
        status, found = told(*order)
        assert (
            status,
            found["problems"],
            found["totals"]["records"],
            found["totals"]["findings"],
        ) == (0, [], 18, 24), order


def edited(line):
    return line.replace(b'"count": 2', b'"count": 1')


L = history()


GAP = {"records": 3, "matches": 1, "first_seq": 2, "last_seq": 4, "errno": None, "since": "x"}


MUTATIONS = {
    "dropped": ([L[:3] + L[4:]], 4, 5, "its prev is not the hash"),
    "dropped, seq": ([L[:3] + L[4:]], 4, 5, "seq 4 is missing, without a gap that names it"),
    "doubled": ([L[:4] + L[3:]], 5, 4, "doubled or out of order"),
    "swapped": ([L[:2] + [L[3], L[2]] + L[4:]], 4, 3, "out of order"),
    "edited": ([L[:2] + [edited(L[2])] + L[3:]], 4, 4, "its prev is not the hash"),
    "edited first": (
        [[L[0].replace(b"start", b"stert")] + L[1:]],
        2,
        2,
        "its prev is not the hash",
    ),
    "edited last of a run": (
        [L[:5] + [L[5].replace(b"stop", b"stpp")] + L[6:]],
        7,
        1,
        "its prev is not the hash",
    ),
    "stop removed": ([L[:5] + L[6:]], 6, 1, "has no stop"),
    "torn end": ([L[:-1] + [L[-1][:50]]], 18, None, "the line has no end"),
    "torn inside": ([L[:3] + [L[3][:50] + b"\n"] + L[4:]], 4, None, "the line is not a record"),
    "empty line": ([L[:3] + [b"\n"] + L[3:]], 4, None, "the line is not a record"),
    "NULs": ([L[:3] + [b"\0" * 100 + L[3]] + L[4:]], 4, None, "the line is not a record"),
    "not an object": ([L[:3] + [b"[1]\n"] + L[3:]], 4, None, "the line is not a record"),
    "a strange seq": (
        [L[:3] + [b'{"seq": "4", "run": "x", "prev": "", "event": "e"}\n'] + L[3:]],
        4,
        None,
        "the line is not a record",
    ),
    "over-long": (
        [L[:3] + [b'{"x": "' + b"x" * 4200 + b'"}\n'] + L[3:]],
        4,
        None,
        "longer than 4096",
    ),
    "endless": ([L[:3] + [b"x" * (3 << 20)] + L[3:]], 4, None, "the line has no end"),
    "a file missing": ([L[:5], L[10:]], 1, 5, "lines are missing between the files"),
    "a file missing, seq": ([L[:8], L[10:]], 1, 5, "seq 3 to 4 are missing"),
    "a run's beginning missing": ([L[:6], L[8:]], 1, 3, "begins with seq 3, not 1"),
    "a file twice": ([L[:6], L[:6], L[6:]], 1, 1, "doubled or out of order"),
    "killed": (
        [chain(("a", 1, "start", {}), ("b", 1, "start", {}), ("b", 2, "stop", {}))],
        2,
        1,
        "run a has no stop",
    ),
    "gap": (
        [chain(("a", 1, "start", {}), ("a", 5, "gap", GAP), ("a", 6, "stop", {}))],
        2,
        5,
        "3 records were lost (the queue was full)",
    ),
    "gap of another hole": (
        [chain(("a", 1, "start", {}), ("a", 6, "gap", GAP))],
        2,
        6,
        "names other records than the 4",
    ),
    "gap with other figures": (
        [chain(("a", 1, "start", {}), ("a", 5, "gap", {**GAP, "records": 2}))],
        2,
        5,
        "names other records than the 3",
    ),
    "gap not right behind": (
        [chain(("a", 1, "start", {}), ("a", 5, "request", {}), ("a", 6, "gap", GAP))],
        2,
        5,
        "without a gap",
    ),
    "gap without a hole": (
        [chain(("a", 1, "start", {}), ("a", 2, "gap", GAP))],
        2,
        2,
        "names other records than the 0",
    ),
    "truncated": (
        [chain(("a", 1, "start", {}), ("a", 2, "truncated", {"size_before": 9}))],
        2,
        2,
        "truncated at 9 bytes",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_named_with_file_line_and_seq(folder, name):
    files, line, seq, text = MUTATIONS[name]
    paths = save(folder, *files)
    for order in itertools.permutations(paths):
        status, found = told(*order)
        assert status == 1 and found["sound"] is False
        assert any(
            item["line"] == line and item["seq"] == seq and text in item["problem"]
            for item in found["problems"]
        ), found["problems"]
        assert all(item["file"] in [str(path) for path in paths] for item in found["problems"])


@pytest.mark.parametrize("seed", range(3))
def test_no_changed_byte_goes_unseen_before_the_last_line(folder, seed):
    rng = random.Random(seed)
    text = b"".join(L)
    last = len(text) - len(L[-1])
    for _ in range(60):
        position = rng.randrange(last)
        changed = bytes([text[position] ^ (1 << rng.randrange(8))])
        status, _ = told(*save(folder, [text[:position] + changed + text[position + 1 :]]))
        assert status == 1, (position, changed)


@pytest.mark.parametrize(
    "files, note",
    [
        ([L[:4]], "has not stopped: it lives, or was killed"),
        ([L[3:]], "the history begins with seq 4 of run 00000000"),
        ([L, chain(("f", 1, "start", {}), ("f", 2, "stop", {}))], "begins a fresh file"),
        ([L, []], ""),
        ([[]], ""),
    ],
)
def test_what_is_no_problem_is_named_at_most(folder, files, note):
    status, found = told(*save(folder, *files))
    assert status == 0 and not found["problems"]
    assert any(note in text for text in found["notes"]) or not note and not found["notes"]


def test_verify_reads_gz_and_standard_input_and_prints_for_people(folder):
    lines = history()
    (folder / "log.1.gz").write_bytes(gzip.compress(b"".join(lines[:9])))
    for text, status, last in (
        (lines[9:], 0, b"whole: nothing is missing, changed or lost\n"),
        (lines[10:], 1, b"NOT WHOLE: 2 problems\n"),
    ):
        run = run_program("verify", "-", folder / "log.1.gz", input=b"".join(text))
        assert (run.returncode, run.stderr) == (status, b"") and run.stdout.endswith(last), run
    assert b"-, line 1, seq 5: seq 4 is missing, without a gap that names it" in run.stdout


def test_control_characters_of_a_forged_log_do_not_reach_the_terminal(folder):
    paths = save(folder, chain(("a\x1b[2J", 1, "start", {}), ("b", 1, "start", {})))
    out = io.StringIO()
    assert run_verify([str(paths[0])], json_output=False, anchors=[], out=out) == 1
    assert "\x1b" not in out.getvalue() and "\\u001b[2J" in out.getvalue()


def test_a_file_that_cannot_be_read_is_an_error_of_its_own(folder):
    (folder / "x.gz").write_bytes(gzip.compress(b"".join(L))[:-20])
    for name in ("nothing", "x.gz", "."):
        with pytest.raises(AuditLogError) as caught:
            verify_files([str(folder / name)])
        assert caught.value.status == 78 and "cannot be read" in str(caught.value)


def test_gaps_and_suppressions_are_totalled(folder):
    lines = chain(
        ("a", 1, "start", {}),
        ("a", 2, "finding", {"count": 5}),
        ("a", 3, "suppressed", {"counts": {"x": 2, "y": 3}}),
        ("a", 6, "gap", {**GAP, "records": 2, "matches": 7, "first_seq": 4, "last_seq": 5}),
        ("a", 7, "scan_gap", {"bytes": 100}),
        ("a", 8, "stop", {}),
    )
    status, found = told(*save(folder, lines))
    expected = {
        "records": 6,
        "findings": 5,
        "suppressed": 5,
        "lost_records": 2,
        "lost_matches": 7,
        "unscanned_bytes": 100,
    }
    assert status == 1 and found["totals"] == expected and found["runs"] == 1


def test_a_log_that_lives_and_is_rotated_is_sound_at_any_moment(new_log, folder):
    path = folder / "audit.log"
    log = new_log(queue_limit=1_000_000)
    written(log, 1)
    over = threading.Event()

    def feed():
        while not over.is_set():
            log.accept("request", {"path": "x" * 3000})
            time.sleep(0.0005)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for number in range(25):
            wait_for(path.exists, "the new file")
            path.rename(folder / f"audit.log.{number}")
            if number % 2:
                path.touch()
            for _ in range(3):
                paths = [file for file in folder.iterdir() if file.name.startswith("audit.log")]
                found = verify_files([str(file) for file in paths])
                assert found.sound, found.problems
            log.reopen()
    finally:
        over.set()
        feeder.join()


def test_verify_holds_no_more_for_more_lines(folder):
    line = encode_record(Record(0.0, "request", {"path": "x" * 100}), "a", 1, "0" * 16)
    found = Verification()
    segment = found.read("x", itertools.repeat(line, 5000))
    assert (
        segment.lines == 5000 and len(found.problems) == 1000 and found.omitted == 2 * 4999 - 1000
    )


def test_requests_that_clients_had_suppressed_are_named_and_are_no_matches(folder):
    """A log with 1,500 requests of one client, of which 500 find no room in its budget."""
    lines = chain(
        ("a", 1, "start", {}),
        ("a", 2, "suppressed", {"stream": 1, "counts": {"x": 2}, "severities": {"LOW": 2}}),
        ("a", 3, "suppressed", {"client": {"uid": 0}, "counts": {"request": 500, "denied": 1}}),
        ("a", 4, "suppressed", {"client": {"uid": 0}, "counts": "no counts"}),
        ("a", 5, "stop", {}),
    )
    status, found = told(*save(folder, lines))
    assert status == 0 and found["totals"]["suppressed"] == 2
    assert found["notes"] == ["501 requests found no room in their clients' budgets"]


def test_a_log_that_was_written_in_batches_is_whole(new_log, folder, disk):
    log = new_log(monotonic=Clock())
    written(log, 1)
    disk.free.clear()
    for number in range(3000):
        log.accept_for({**CLIENT, "uid": number % 5}, "request", {"number": number})
    disk.room = 300_000
    disk.free.set()
    wait_for(log.failed, "the disk to be full")
    (folder / "audit.log").rename(folder / "1")
    disk.room = None
    log.close("end", 10)
    assert problems(folder / "audit.log", folder / "1") == []
    assert len(records(folder / "audit.log") + records(folder / "1")) == 3003


def test_a_closed_standard_input_or_output_is_no_traceback(folder, monkeypatch):
    monkeypatch.setattr(verify.sys, "stdin", None)
    with pytest.raises(AuditLogError) as caught:
        verify_files(["-"])
    assert "standard input is closed" in str(caught.value)
    paths = save(folder, L, L[:3] + L[4:])
    statuses = [run_verify([str(path)], json_output=False, anchors=[], out=None) for path in paths]
    assert statuses == [0, 1]
