"""`scan`: what it reads, what it cannot, and what it shows people and programs."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from types import SimpleNamespace

import pytest
from auditrecords import Terminal, finding, stream, update
from program import run_program

import _dockeraudit.found as found_room
import _dockeraudit.scan as scan_room
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.found import FoundSecrets, found_text, lines_text, write_found_csv, write_sarif
from _dockeraudit.scan import Scan
from _dockeraudit.terminal import Look
from _dockeraudit.text import columns

AWS = "AK" + "IA" + "IOSFODNN7EXAMPLE"
MAIL = "someone@gro" + "cers.de"
SAMPLE = "someone@exa" + "mple.org"
TEXT = f"first {AWS}\nmail {MAIL}\nnothing\nagain {AWS}\n{AWS} and {AWS}\n"


def scan(*arguments, stdin=b""):
    """Status, output and diagnostics of one scan."""
    done = run_program("scan", *arguments, input=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def found_in(out):
    """(rule, line or lines) of the findings among records."""
    records = [json.loads(line) for line in out.splitlines()]
    return [
        (record["rule"], record.get("lines", record["line"]), record["count"])
        for record in records
        if record["event"] == "finding"
    ]


PACKED = {
    "utf-16.log": TEXT.encode("utf-16"),
    "utf-16-be.log": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "a.gz": gzip.compress(TEXT.encode()),
    "a.xz": lzma.compress(TEXT.encode()),
    "a.bz2": bz2.compress(TEXT.encode()),
    "gzip": gzip.compress(TEXT.encode()),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_text_has_the_findings_and_lines_of_the_plain_one(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    status, out, _ = scan(tmp_path / name)
    assert status == 1
    assert found_in(out) == [
        ("aws-access-key", 1, 1),
        ("email-address", 2, 1),
        ("aws-access-key", [4, 5, 5], 3),
    ]


@pytest.mark.parametrize(
    "name, data, why",
    [
        ("a.zst", b"\x28\xb5\x2f\xfdxxxxxxxx", "a.zst"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c0000", ".7z files cannot be read"),
        ("damaged.gz", b"plain after all\n", "Not a gzipped file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_is_2(tmp_path, name, data, why):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "clean.log").write_bytes(b"nothing\n")
    status, _, err = scan(tmp_path)
    assert status == 2 and f"cannot read {tmp_path / name}: " in err and why in err
    (tmp_path / "clean.log").write_text(TEXT)
    assert scan(tmp_path)[0] == 1
    assert scan(tmp_path / "none")[0] == 2


def test_no_finding_of_a_flooding_file_is_only_counted(tmp_path):
    addresses = "".join(f"u{number}@gro" + "cers.de\n" for number in range(5_000))
    (tmp_path / "flood").write_text(addresses + AWS)
    out = scan(tmp_path / "flood")[1]
    assert len(found_in(out)) == 5_001 and '"event": "suppressed"' not in out


def test_text_for_people_is_by_file_with_lines_and_a_summary(tmp_path):
    (tmp_path / "a.log").write_text(TEXT)
    (tmp_path / "b.log").write_text("nothing\n")
    status, out, err = scan("--text", tmp_path)
    lines = out.splitlines()
    assert status == 1 and lines[0] == str(tmp_path / "a.log") and len(lines) == 6
    assert lines[1].startswith("  HIGH   AWS Access Key") and lines[1].endswith("lines 1, 4, 5")
    assert lines[2].startswith("  LOW    Email Address") and lines[2].endswith("line 2")
    assert lines[4] == "2 secrets (1 HIGH, 1 LOW) in 1 source"
    assert lines[5].startswith("Each run gives other fingerprints; --fingerprint-key")
    assert "fingerprints' key" not in err and AWS not in out
    kept = scan("--text", "--fingerprint-key", tmp_path / "key", tmp_path / "a.log")[1]
    assert "Each run" not in kept
    assert scan("--text", tmp_path / "b.log")[:2] == (0, "no secrets found\n")


def test_sarif_has_a_result_for_each_line(tmp_path):
    (tmp_path / "a.log").write_text(TEXT)
    status, out, _ = scan("--sarif", tmp_path / "a.log")
    (run,) = json.loads(out)["runs"]
    places = [
        (
            result["ruleId"],
            result["level"],
            result["locations"][0]["physicalLocation"]["region"]["startLine"],
        )
        for result in run["results"]
    ]
    assert status == 1 and places == [
        ("aws-access-key", "error", 1),
        ("aws-access-key", "error", 4),
        ("aws-access-key", "error", 5),
        ("email-address", "note", 2),
    ]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [
        "aws-access-key",
        "email-address",
    ]


def test_csv_has_a_row_for_each_line(tmp_path):
    (tmp_path / "a.log").write_text(TEXT)
    rows = list(csv.DictReader(io.StringIO(scan("--csv", tmp_path / "a.log")[1])))
    assert [(row["line"], row["rule"]) for row in rows] == [
        ("1", "aws-access-key"),
        ("4", "aws-access-key"),
        ("5", "aws-access-key"),
        ("2", "email-address"),
    ]


def test_records_go_to_a_log_beside_any_format(tmp_path):
    (tmp_path / "a.log").write_text(TEXT)
    log = tmp_path / "found.log"
    status, out, _ = scan("--text", tmp_path / "a.log", "--audit-log", log)
    assert status == 1 and "2 secrets" in out and len(found_in(log.read_text())) == 3
    assert scan(tmp_path / "a.log", "--audit-log", log)[:2] == (1, "")


def test_placeholders_in_files_are_left_out_of_what_people_see(tmp_path):
    (tmp_path / "a.log").write_text(f"mail {SAMPLE}\n")
    assert scan(tmp_path / "a.log")[0] == 0
    status, out, _ = scan("--text", tmp_path / "a.log")
    assert (status, out) == (
        0,
        "no secrets found\nLeft out: 1 placeholder; --placeholders shows it.\n",
    )
    status, out, _ = scan("--text", "--placeholders", tmp_path / "a.log")
    assert status == 0 and "1 secret (1 LOW)" in out and "Left out" not in out


def test_two_formats_at_once_are_refused():
    status, out, err = scan("--json", "--sarif")
    assert (status, out) == (78, "") and "--json and --sarif" in err


# ==================================================================================================
# what was found, from its records
# ==================================================================================================


def found_of(*records):
    secrets = FoundSecrets()
    for record in records:
        secrets.feed(json.dumps({**record, "run": "0badcafe"}).encode() + b"\n")
    return secrets


OPENED = {**stream("stream_open"), "seq": 1}


def test_records_may_come_in_pieces():
    data = b"".join(
        json.dumps(record).encode() + b"\n" for record in (OPENED, finding(), finding(seq=6))
    )
    for size in (1, 7, 100):
        secrets = FoundSecrets()
        for at in range(0, len(data), size):
            secrets.feed(data[at : at + size])
        (found,) = secrets.found.values()
        assert (found.count, found.lines) == (4, {9: None}) and secrets.grave(3)


def test_an_update_says_what_was_found():
    cut = finding(partial=True, fingerprint=None, severity="LOW")
    better = {**update(fingerprint="ee" * 8, severity="HIGH", rule="better"), "seq": 7}
    secrets = found_of(OPENED, cut, better)
    (found,) = secrets.found.values()
    assert (found.rule, found.severity, found.fingerprint) == ("better", "HIGH", "ee" * 8)
    assert secrets.grave(3) and not found_of(OPENED, cut).grave(3)


def test_what_turns_out_to_be_less_grave_does_not_fail():
    milder = {**update(severity="LOW"), "seq": 7}
    assert not found_of(OPENED, finding(partial=True), milder).grave(2)


def test_more_findings_than_are_kept_still_fail(monkeypatch):
    monkeypatch.setattr(found_room, "FOUND_LIMIT", 1)
    low = finding(severity="LOW")
    secrets = found_of(OPENED, low, finding(seq=6, fingerprint="ee" * 8))
    assert secrets.grave(3) and "and 1 more finding, counted only" in found_text(secrets)


def test_placeholders_are_left_out_and_never_fail():
    secrets = found_of(OPENED, finding(placeholder=True, severity="LOW"))
    assert not secrets.grave(1) and found_text(secrets).startswith("no secrets found\nLeft out")
    assert "1 secret (1 LOW)" in found_text(secrets, placeholders=True)
    out = io.StringIO()
    write_sarif(secrets, out)
    assert json.loads(out.getvalue())["runs"][0]["results"] == []


@pytest.mark.parametrize("width", [80, 160])
def test_text_fits_the_terminal_and_is_harmless(width):
    hostile = "\x1b[2J\u202e" + "x" * 300
    secrets = found_of(
        {**OPENED, "container_name": hostile},
        finding(pattern=hostile, redacted_match=hostile, lines=list(range(90)), count=90),
    )
    text = found_text(secrets, Look(width=width))
    assert "\x1b" not in text and "\u202e" not in text
    assert max(map(columns, text.splitlines())) <= width


def test_a_secret_in_two_sources_is_one_secret():
    other = {**OPENED, "stream": 2, "container_name": "db"}
    text = found_text(found_of(OPENED, finding(), other, finding(stream=2, seq=9)))
    assert "1 secret (1 HIGH) in 2 sources" in text


def test_a_containers_own_secret_names_its_variable_in_every_format():
    secrets = found_of(OPENED, finding(env="DB_PASSWORD", line=3))
    table, sarif = io.StringIO(), io.StringIO()
    write_found_csv(secrets, table)
    write_sarif(secrets, sarif)
    (result,) = json.loads(sarif.getvalue())["runs"][0]["results"]
    assert [row["env"] for row in csv.DictReader(table.getvalue().splitlines())] == ["DB_PASSWORD"]
    assert result["properties"] == {"env": "DB_PASSWORD"}
    assert "(the container's variable DB_PASSWORD)" in result["message"]["text"]
    assert "         the container's variable DB_PASSWORD\n" in found_text(secrets)


def test_where_nothing_could_be_read_no_secrets_found_is_not_said(tmp_path):
    status, out, err = scan("--text", tmp_path / "missing")
    assert (status, out) == (2, "nothing was scanned\n")
    assert "No such file or directory\n" in err and "what came before" not in err


def test_formulas_are_text_in_a_spreadsheet():
    out = io.StringIO()
    write_found_csv(found_of({**OPENED, "container_name": "=cmd()"}, finding()), out)
    assert out.getvalue().splitlines()[1].startswith("'=cmd(),")


def test_lines_are_named_up_to_a_few():
    assert lines_text([7]) == "line 7"
    assert lines_text([9, 3]) == "lines 3, 9"
    assert lines_text(range(1, 11)) == "lines 1, 2, 3, 4, 5, 6 and 4 more"


def test_progress_says_percent_and_time_left_once_it_can_be_estimated(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(scan_room.time, "monotonic", lambda: now[0])
    log = SimpleNamespace(counters=lambda: {"findings": {}})
    scan = Scan(None, log, Diagnostics("error", Terminal()))
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * 500)
    scan._announce([str(tmp_path)])
    assert scan._progress() == "0%, "
    scan._position, now[0] = 250, 101.0
    assert scan._progress() == "25%, "
    now[0] = 110.0
    assert scan._progress() == "25%, 30 s left, "
    scan._position = 2000  # a file that has grown
    assert scan._progress() == "100%, 0 s left, "
