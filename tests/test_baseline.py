"""Known findings: the baseline's file, the command `allow`, and who leaves them out."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import pytest
from program import run_program

from _dockeraudit import baseline
from _dockeraudit.baseline import (
    BaselineEntry,
    KnownSecrets,
    add_known,
    covers,
    last_day,
    read_baseline,
    with_entries,
)
from _dockeraudit.errors import ConfigurationError

ONE, OTHER = "0123456789abcdef", "fedcba9876543210"
AWS = "AK" + "IA" + "Z7QXV3MD2LKPW5TR"
TEXT = f"""# known since the audit of the spring

{ONE}  2027-03-31  the demo's key, rotated each spring
web:{OTHER}  -  a test account # without rights
"""


def entry(
    container: str = "", fingerprint: str = ONE, until: date | None = None, reason: str = "known"
) -> BaselineEntry:
    return BaselineEntry(container, fingerprint, until, reason)


def written(folder: Path, text: str) -> str:
    path = folder / "baseline"
    path.write_text(text)
    return str(path)


def command(*arguments: object, env: dict[str, str] | None = None, stdin: str = "") -> tuple:
    """Exit status, output and diagnostics of one command."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER")}
    done = run_program(*arguments, input=stdin, text=True, env={**plain, **(env or {})})
    return done.returncode, done.stdout, done.stderr


# ================================================================================================
# the file
# ================================================================================================


def test_a_line_is_a_fingerprint_a_last_day_and_a_reason(folder: Path) -> None:
    assert read_baseline(written(folder, TEXT)) == [
        entry(until=date(2027, 3, 31), reason="the demo's key, rotated each spring"),
        entry("web", OTHER, reason="a test account # without rights"),
    ]


@pytest.mark.parametrize(
    "line, problem",
    [
        (ONE, "a line is FINGERPRINT, the last day or -, and a reason"),
        (f"{ONE} -", "a line is FINGERPRINT, the last day or -, and a reason"),
        ("0123 - why", "'0123' is not a fingerprint, 16 hexadecimal digits"),
        (f"{ONE} soon why", "'soon' is neither a day such as 2027-03-31 nor -"),
        (f"{ONE} 2027-02-30 why", "'2027-02-30' is neither a day"),
        (f"web:{ONE[:15]}g - why", "is not a fingerprint"),
        (f"{ONE} \x1b[2J why", "'\\x1b[2J' is neither"),
    ],
)
def test_a_malformed_line_is_named_with_its_file_and_number(
    folder: Path, line: str, problem: str
) -> None:
    path = written(folder, TEXT + line + "\n")
    with pytest.raises(ConfigurationError) as caught:
        read_baseline(path)
    assert f"{path}, line 5: " in str(caught.value) and problem in str(caught.value)


def test_a_file_that_is_missing_or_no_text_or_too_large_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="cannot read .*none: No such file"):
        read_baseline(str(folder / "none"))
    (folder / "latin").write_bytes(f"# fine\n{ONE} - caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="latin, line 2: it is not UTF-8"):
        read_baseline(str(folder / "latin"))
    monkeypatch.setattr(baseline, "LARGEST_BASELINE", 10)
    with pytest.raises(ConfigurationError, match="is larger"):
        read_baseline(written(folder, TEXT))


def test_a_new_entry_goes_to_the_end_and_all_other_lines_stay() -> None:
    odd = TEXT + "# form\x0cfeed\r\nmalformed"
    assert with_entries(odd, [entry("db")]) == odd + "\n" + entry("db").line()
    assert with_entries("", [entry()]) == entry().line()


def test_an_entry_of_the_same_finding_is_replaced_in_its_place() -> None:
    changed = entry("web", OTHER, date(2028, 1, 1), "still there")
    lines = with_entries(TEXT, [changed]).splitlines()
    assert lines[:3] == TEXT.splitlines()[:3] and lines[3] + "\n" == changed.line()
    assert len(lines) == 4


def test_what_is_written_reads_back_and_the_mode_stays(folder: Path) -> None:
    path = written(folder, TEXT)
    os.chmod(path, 0o640)
    fresh = [entry("a/very/long/name.of-a-container"), entry(until=date(2027, 1, 1))]
    add_known(path, fresh)
    assert set(fresh) < set(read_baseline(path)) and len(read_baseline(path)) == 3
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert os.listdir(folder) == ["baseline"]


def test_a_failed_write_leaves_the_file_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder, TEXT)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baseline.os, "fsync", full)
    with pytest.raises(OSError):
        add_known(path, [entry("db")])
    assert Path(path).read_text() == TEXT and os.listdir(folder) == ["baseline"]


def test_until_takes_a_day_or_a_span() -> None:
    today = date(2026, 11, 26)
    assert last_day("2027-01-31", today) == date(2027, 1, 31)
    assert last_day("7d", today) == date(2026, 12, 3)
    assert last_day("2w", today) == date(2026, 12, 10)
    assert last_day("2026-11-26", today) == today
    for text in ("2026-11-25", "-", "soon", "", "9d9"):
        with pytest.raises(ConfigurationError, match="--until"):
            last_day(text, today)


# ================================================================================================
# what is known now
# ================================================================================================

DAY = 86400.0


def test_an_entry_counts_through_its_last_day_and_its_end_is_said_once() -> None:
    said: list[str] = []
    moment = [0.0]  # 1970-01-01
    known = KnownSecrets(
        [OTHER],
        [entry(until=date(1970, 1, 2), reason="old"), entry("web")],
        lambda level, text: said.append(f"{level}: {text}"),
        lambda: moment[0],
    )
    assert known.now() == {OTHER, ONE, f"web:{ONE}"}
    moment[0] = 2 * DAY - 1
    assert ONE in known.now() and not said
    moment[0] = 2 * DAY
    assert known.now() == known.now() == {OTHER, f"web:{ONE}"}
    assert said == [
        f"warning: the last day of {ONE}, 1970-01-02, is over (old); it counts as a finding again"
    ]


def test_an_expiry_is_not_said_again_when_the_file_is_read_again() -> None:
    said: list[str] = []
    old = entry(until=date(1970, 1, 2))
    known = KnownSecrets([], [old], lambda level, text: said.append(text), lambda: 9 * DAY)
    known.now()
    known.replace([OTHER], [old, entry("db")])
    assert known.now() == {OTHER, f"db:{ONE}"} and len(said) == 1


def test_a_secret_is_known_everywhere_or_in_one_container() -> None:
    record = {"fingerprint": ONE, "container_id": "ab" * 32, "container_name": "web"}
    assert covers(frozenset([ONE]), record)
    assert covers(frozenset([f"web:{ONE}"]), record)
    assert covers(frozenset(["ab" * 32 + f":{ONE}"]), record)
    assert not covers(frozenset([f"db:{ONE}", OTHER]), record)
    assert not covers(frozenset([ONE]), {**record, "fingerprint": None})
    assert not covers(frozenset(), record)


# ================================================================================================
# the commands
# ================================================================================================

CI = {"DOCKERAUDIT_FINGERPRINT_KEY": "env:AUDIT_KEY", "AUDIT_KEY": "0f" * 32}


def scan_json(*options: object, text: str = f"key {AWS}\n") -> tuple[int, list[dict], str]:
    status, out, err = command("scan", "--json", *options, env=CI, stdin=text)
    found = [json.loads(line) for line in out.splitlines()]
    return status, [record for record in found if record["event"] == "finding"], err


def test_allow_writes_what_scan_then_leaves_out(folder: Path) -> None:
    path = folder / "known.txt"
    status, found, _ = scan_json()
    assert status == 1 and len(found) == 1
    fingerprint = found[0]["fingerprint"]
    status, out, err = command(
        "allow", fingerprint.upper(), "--reason", "a  made-up\nkey", "--until", "30d",
        "--baseline", path,
    )  # fmt: skip
    assert status == 0 and not err and fingerprint in out
    assert path.read_text().split(None, 2)[2] == "a made-up key\n"
    assert scan_json("--baseline", path)[:2] == (0, [])
    other = "AK" + "IA" + "Q3EGRZXWLT6UYB2M"
    status, found, _ = scan_json("--baseline", path, text=f"{AWS}\n{other}\n")
    assert status == 1 and [record["line"] for record in found] == [2]


def test_allow_for_one_container_counts_in_it_alone(folder: Path) -> None:
    path, log = folder / "known.txt", folder / "app.log"
    log.write_text(f"key {AWS}\n")
    found = scan_json()[1]
    status, _, err = command(
        "allow", found[0]["fingerprint"], "--reason", "why", "--container", log, "--baseline", path
    )
    assert status == 0, err
    assert scan_json("--baseline", path, log)[0] == 0
    assert scan_json("--baseline", path)[0] == 1  # standard input is not that file


def test_allow_takes_all_findings_of_a_log_that_are_not_known_yet(folder: Path) -> None:
    other = "AK" + "IA" + "Q3EGRZXWLT6UYB2M"
    lines = command("scan", "--json", env=CI, stdin=f"key {AWS}\nkey {other}\nkey {AWS}\n")[1]
    found = [json.loads(line) for line in lines.splitlines() if '"finding"' in line]
    first, second = dict.fromkeys(record["fingerprint"] for record in found)
    path = written(folder, f"{first} - known before\n")
    status, out, err = command(
        "allow", "--from", "-", "--reason", "since the start", "--baseline", path, stdin=lines
    )
    assert (status, err) == (0, "") and second in out and first not in out
    assert [(entry.fingerprint, entry.reason) for entry in read_baseline(path)] == [
        (first, "known before"),
        (second, "since the start (AWS Access Key in -)"),
    ]
    again = command("allow", "--from", "-", "--reason", "x", "--baseline", path, stdin=lines)
    assert again == (0, "", "")


def test_an_expired_entry_is_said_and_counts_no_more(folder: Path) -> None:
    fingerprint = scan_json()[1][0]["fingerprint"]
    path = written(folder, f"{fingerprint}  2020-01-01  long over\n")
    status, found, err = scan_json("--baseline", path)
    assert status == 1 and len(found) == 1
    assert err.count(f"the last day of {fingerprint}, 2020-01-01, is over (long over)") == 1


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["allow", ONE, "--reason", "why"], "--baseline FILE is missing"),
        (["allow", "xyz", "--reason", "why", "--baseline", "b"], "'xyz' is not a fingerprint"),
        (["allow", ONE, "--baseline", "b"], "--reason"),
        (["allow", "--reason", "why", "--baseline", "b"], "name a FINGERPRINT, or a log"),
        (["allow", "--from", "/none", "--reason", "w", "--baseline", "b"], "/none"),
        (["allow", ONE, "--reason", " ", "--baseline", "b"], "--reason is empty"),
        (["allow", ONE, "--reason", "w", "--until", "soon", "--baseline", "b"], "--until"),
        (["allow", ONE, "--reason", "w", "--container", "a b", "--baseline", "b"], "blanks"),
        (["allow", ONE, "--reason", "w", "--baseline", "/none/b"], "cannot write /none/b"),
        (["scan", "--baseline", "b"], "--fingerprint-key FILE, or env:NAME"),
        (["report", "--baseline", "/none/b"], "cannot read /none/b"),
        (["serve", "--baseline", "/none/b"], "cannot read /none/b"),
        (["scan", "--fingerprint-key", "env:NONE"], "env:NONE: the variable holds 0 characters"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_78(
    arguments: list[str], problem: str
) -> None:
    status, out, err = command(*arguments)
    assert (status, out, err.count("\n")) == (78, "", 1) and problem in err


def test_report_leaves_known_findings_out_and_says_how_many(folder: Path) -> None:
    log = folder / "audit.log"
    mail = "someone@fastmail" + ".fm"
    out = command("scan", "--json", env=CI, stdin=f"key {AWS}\nmail {mail}\n")[1]
    log.write_text(out)
    found = [json.loads(line) for line in out.splitlines() if '"finding"' in line]
    aws = next(record for record in found if record["rule"] == "aws-access-key")
    path = written(folder, f"{aws['fingerprint']} - why\n")
    assert command("report", "--fail-on", "HIGH", log)[0] == 1
    status, text, _ = command("report", "--fail-on", "HIGH", "--baseline", path, log)
    assert status == 0 and "AWS" not in text
    assert "Left out: 1 finding of known secrets (--baseline)." in text
    status, text, _ = command("report", "--json", "--baseline", path, log)
    assert json.loads(text)["totals"]["known"] == 1
    assert "known secrets" in command("report", "--html", "--baseline", path, log)[1]
    asked = command("report", "--secret", aws["fingerprint"], "--baseline", path, log)[1]
    assert "AWS" in asked  # whoever asks for one secret is told of it
