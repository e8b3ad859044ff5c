"""The report as text: narrow, harmless, in plurals, as wide as the terminal."""

from __future__ import annotations

import re

import pytest
from auditrecords import (
    DB,
    HOSTILE,
    RECORDS,
    REMOTE,
    Terminal,
    denied,
    finding,
    report,
    summary_of,
    write,
)

from _dockeraudit.terminal import Look, refusal_line, render_text, table_by
from _dockeraudit.text import columns, counted, fit, fit_middle, pad, printable, size_text

READER = "10.0.0.9 (CN=portainer)"  # what REMOTE is called
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u2028\u202e]")


def many_alike(count):
    return [
        finding(seq=n, fingerprint=f"{n:016x}", container_id=f"{n % 8:064x}", rule="private-key")
        for n in range(count)
    ]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_text_is_narrow_and_harmless(width):
    wide = "容器" * 60
    hostile = [
        finding(container_name=HOSTILE * 50, pattern=HOSTILE, client={"address": HOSTILE}),
        finding(seq=6, container_name=wide, container_id="e", pattern=wide, rule="w"),
        denied(path="/" + HOSTILE * 50, method=HOSTILE, rule=HOSTILE * 9),
        *many_alike(9),
        *RECORDS,
    ]
    look = Look(width=width)
    for choice in ({}, {"secret": "abab"}):
        text = render_text(summary_of(*hostile, **choice), look)
        command = "More of one secret"
        lines = [line for line in text.splitlines() if not line.startswith(command)]
        assert max(map(columns, lines)) <= width, max(lines, key=columns)
        assert not CONTROLS.search(text)
    assert "What leaked" in text
    for kind in ("rule", "container", "reader"):
        text = table_by(kind, summary_of(*hostile), look)
        assert not CONTROLS.search(text)


def test_text_names_containers_and_readers_of_each_secret(tmp_path):
    many = [
        finding(
            container_id=f"{number:064x}",
            container_name=f"web-{number}",
            client={"address": f"10.0.0.{number}"},
        )
        for number in range(12)
    ]
    path = write(tmp_path, [*many, *RECORDS[1:]])
    out = report([path])[1]
    assert " and 11 more" in out and "report --secret abababababababab" in out
    everything = report([path], secret="abab")[1]
    for number in range(12):
        assert re.search(rf"2 x  2026-01-02 03:04  web-{number} +10.0.0.{number}\n", everything)
    assert "Email" not in everything


@pytest.mark.parametrize("width", [60, 80, 160])
def test_who_read_a_secret_is_never_cut_where_it_fits_on_a_line_of_its_own(width):
    """Beside the other columns where there is room, else below them."""
    records = [
        finding(container_name="a-rather-long-name-in-production-eu-west-1", client=REMOTE),
        finding(endpoint="inspect", masked=True, client=REMOTE, seq=6),
    ]
    text = render_text(summary_of(*records, secret="abab"), Look(width=width))
    assert text.count(f"{READER}\n") == 2 and max(map(columns, text.splitlines())) <= max(width, 66)
    assert ("read by " + READER in text) == (width < 160)


def test_where_a_secret_was_seen_is_wrapped_and_not_cut():
    answers = [finding(endpoint=name, seq=n) for n, name in enumerate(("create", "list", "events"))]
    text = render_text(summary_of(finding(), *answers), Look(width=60))
    assert "in its log 2 x, in create 2 x to 1 reader,\n         in events 2 x" in text


def test_what_is_in_no_container_is_not_counted_as_one():
    of_a_list = finding(container_id=None, container_name=None, endpoint="list", seq=6)
    text = render_text(summary_of(finding(), of_a_list))
    assert "1 secret (1 HIGH) in 1 container, seen 4 times" in text
    assert "in web, (no container)\n" in text
    table = table_by("container", summary_of(of_a_list)).splitlines()
    (row,) = [line for line in table if "(no" in line]
    assert row.split() == ["(no", "container)", "1", "0", "1", "2"]


def test_a_time_that_begins_and_ends_in_one_minute_is_said_once():
    text = render_text(summary_of(finding(), finding(seq=6, count=1)))
    assert text.startswith("2026-01-02 03:04 UTC, 2 records\n")
    assert "\n         2026-01-02 03:04\n" in text


def test_many_secrets_of_one_rule_share_an_entry_until_all_are_asked_for(tmp_path):
    path = write(tmp_path, [*many_alike(54), finding(fingerprint="ee" * 8)])
    out = report([path])[1]
    assert re.search(r"HIGH +Password +54 secrets +108 x\n", out)
    assert (
        "in web, web, web and 5 more" in out and "each of them: --pattern private-key --all" in out
    )
    assert "ee" * 8 in out and f"{7:016x}" not in out
    everything = report([path], everything=True)[1]
    assert all(f"{number:016x}" in everything for number in range(54))


def test_top_bounds_the_rows_of_every_table(tmp_path):
    records = [
        finding(rule=f"r{n}", pattern=f"Rule {n}", fingerprint=f"{n:016x}") for n in range(9)
    ]
    path = write(tmp_path, [*records, *(denied(path=f"/{n}") for n in range(9))])
    out = report([path], top="2")[1]
    assert "and 7 more secrets; --all shows them" in out
    assert out.count("POST /") == 2 and "and 7 more; --all shows them" in out
    assert report([path], everything=True)[1].count("POST /") == 9
    for text in ("0", "x", "-1"):
        assert report([path], top=text)[0] == 78


@pytest.mark.parametrize(
    "kind, first", [("rule", "Password"), ("container", "web"), ("reader", "uid 7 (docker)")]
)
def test_one_table_by_rule_container_or_reader(tmp_path, kind, first):
    records = [*RECORDS, finding(fingerprint="ee" * 8)]
    lines = report([write(tmp_path, records)], by=kind)[1].splitlines()
    assert lines[3].split() == [kind, *"secrets containers readers HIGH MEDIUM LOW".split()]
    assert lines[4].startswith(first)
    numbers = lines[4][len(first) :].split()
    expected = {"rule": "2 2 2 6", "container": "3 1 1 4 1", "reader": "3 1 1 4 1"}[kind]
    assert numbers == expected.split()


def test_what_is_new_comes_first(tmp_path):
    state = str(tmp_path / "state")
    old = finding(timestamp="2026-01-02T03:04:05.000000Z")
    report([write(tmp_path, [old])], state=state)
    again = {**old, "timestamp": "2026-01-02T03:06:05.000000Z", "count": 900}
    fresh = finding(timestamp="2026-01-02T03:07:05.000000Z", fingerprint="ee" * 8, severity="LOW")
    out = report([write(tmp_path, [old, again, fresh])], state=state)[1]
    assert out.index("New since the last report") < out.index("ee" * 8)
    assert out.index("ee" * 8) < out.index("Seen before, and again") < out.index("ab" * 8)
    later = {**fresh, "timestamp": "2026-01-05T03:07:05.000000Z", "container_id": DB}
    out = report([write(tmp_path, [old, again, fresh, later])], state=state)[1]
    assert "What leaked, all of it new" in out and "Seen before" not in out


def test_requests_in_learn_mode_are_not_called_refused(tmp_path):
    learned = denied(event="would_deny", path="/learned")
    out = report([write(tmp_path, [learned])])[1]
    assert "Requests that learn mode let through" in out and "Refused requests" not in out
    assert "Refused requests" in report([write(tmp_path, [learned, denied()])])[1]


def test_a_long_path_is_cut_in_the_middle_and_ids_are_short():
    path = f"/containers/{'a' * 64}/archive/{'x' * 200}/end"
    (item,) = summary_of(denied(path=path, rule="no-archive")).refusals()
    for width in (80, 160):
        line = refusal_line(*item, width)
        assert columns(line) <= width
        assert ": POST /conta" in line and line.endswith("/end, rule no-archive")
    assert f"/{'a' * 12}/archive/" in line and "a" * 13 not in line


def test_a_connection_that_was_refused_has_neither_method_nor_path():
    (item,) = summary_of(denied(method=None, path=None, rule="allow-from")).refusals()
    assert refusal_line(*item).endswith(": a connection, rule allow-from")


def test_counts_have_plurals(tmp_path):
    records = [finding(count=1)]
    out = report([write(tmp_path, records)])[1]
    assert "1 record\n" in out and "1 secret (1 HIGH) in 1 container, seen 1 time\n" in out
    assert [counted(count, "stream") for count in (0, 1, 2000)] == [
        "0 streams",
        "1 stream",
        "2,000 streams",
    ]


def test_colour_only_on_a_terminal_and_never_with_no_color(tmp_path, monkeypatch):
    path = write(tmp_path, RECORDS)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31;1m" in report([path], out=Terminal())[1]
    assert "\x1b" not in report([path])[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in report([path], out=Terminal())[1]


def test_a_terminal_is_used_as_wide_as_it_is(tmp_path, monkeypatch):
    path = write(tmp_path, [denied(path="/" + "x" * 300)])
    monkeypatch.setenv("NO_COLOR", "1")
    for width in (60, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = report([path], out=Terminal())[1]
        assert max(map(columns, shown.splitlines()[:5])) == width


@pytest.mark.parametrize(
    "text, width, expected",
    [
        ("abcdef", 6, "abcdef"), ("abcdefg", 6, "abcde…"), ("漢字漢字", 8, "漢字漢字"),
        ("漢字漢字", 7, "漢字漢…"), ("e\u0301" * 4, 4, "e\u0301" * 4),
    ],
)  # fmt: skip
def test_fit_counts_columns(text, width, expected):
    assert fit(text, width) == expected and columns(pad(text, width)) == width


@pytest.mark.parametrize("text", ["/containers/web/logs", "/漢字/" * 9, "/" + "e\u0301" * 40])
def test_fit_middle_keeps_beginning_and_end(text):
    for width in range(3, 60):
        cut = fit_middle(text, width)
        assert columns(cut) <= width
        assert cut == text or ("…" in cut and cut[0] == text[0])


@pytest.mark.parametrize(
    "char",
    [
        "\0", "\x1b", "\x7f", "\x9b", "\u061c", "\u200b", "\u200f", "\u2028", "\u202e", "\u2066",
        "\ud800", "\ufeff", "\U000e0041",
    ],
)  # fmt: skip
def test_what_a_terminal_would_obey_is_shown(char):
    assert printable(f"a{char}b") == f"a\\u{ord(char):04x}b"
    assert printable("é漢😀 ~") == "é漢😀 ~"


def test_sizes_are_for_people():
    sizes = (0, 999, 1000, 1_234_567, 5 * 10**9, 7 * 10**15)
    expected = ["0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB", "7,000.0 TB"]
    assert list(map(size_text, sizes)) == expected
