"""What is counted of a log's records: secrets, containers, readers, refusals, losses."""

from __future__ import annotations

import pytest
from auditrecords import (
    DB,
    DOCKER,
    NOW,
    RECORDS,
    REMOTE,
    WEB,
    denied,
    finding,
    gap,
    json_report,
    report,
    stream,
    summary_of,
    update,
    write,
)

import _dockeraudit.summary as summary_room
from _dockeraudit.choice import nearest, nearest_fingerprints, since_timestamp
from _dockeraudit.page import render_html
from _dockeraudit.summary import HOUR_LIMIT, LOSSES, OTHERS, AuditSummary, hours_between
from _dockeraudit.tallies import Sighted
from _dockeraudit.terminal import render_text

# ==================================================================================================
# choosing
# ==================================================================================================


def test_options_choose():
    def counts(**choice):
        return summary_of(*RECORDS, **choice).findings

    assert counts() == {"HIGH": 4, "LOW": 1}
    assert counts(least=3) == {"HIGH": 4}
    assert counts(container="db") == counts(container="ddd") == {"HIGH": 2}
    assert counts(since="2026-01-02T12:00") == {"HIGH": 2}
    assert counts(pattern="email address") == counts(pattern="EMAIL-address") == {"LOW": 1}
    assert counts(secret="cdcd") == {"LOW": 1}
    assert counts(pattern="email address", least=3) == {}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("24h", "2026-01-02T00:26:40"),
        ("90s", "2026-01-03T00:25:10"),
        ("2026-01-01", "2026-01-01T00:00:00"),
        ("2026-01-01T02:00+02:00", "2026-01-01T00:00:00"),
    ],
)
def test_since_is_a_span_or_a_timestamp(text, expected):
    assert since_timestamp(text, NOW) == expected


def test_a_shortened_name_is_taken_for_what_it_may_have_been():
    records = [
        finding(seq=1, container_name="n" * 900, truncated=True),
        finding(seq=2, container_name="n" * 700, truncated=True),
        finding(seq=3, container_name="n" * 10),
    ]
    summary = summary_of(*records, container="n" * 1000)
    assert summary.findings == {"HIGH": 4}
    assert [container.name for container in summary.worst_containers()] == ["n" * 900]


def test_refused_requests_of_a_container_are_those_with_its_name_as_a_segment():
    paths = ["/containers/web/stop", "/containers/website/stop", "/exec/web"]
    summary = summary_of(*(denied(path=path) for path in paths), container="web")
    assert [refusal.path for refusal, _ in summary.refusals()] == [paths[0], paths[2]]


@pytest.mark.parametrize(
    "option, text, sentence",
    [
        ("pattern", "github", "there is no such rule in these records; near it: GitHub"),
        ("pattern", "passwrod", "near it: Password"),
        ("pattern", "qqqqqqqq", "there are: Password, Email Address"),
        ("container", "we", "there is no such container in these records; near it: web"),
        ("container", "qqqq", "there are: web, db"),
        ("secret", "abac", "there is no such fingerprint in these records; near it: abab"),
        ("secret", "0000", "there is no such fingerprint in these records\n"),
    ],
)
def test_what_the_log_does_not_name_is_said_and_is_no_all_clear(tmp_path, option, text, sentence):
    for fail_on in (None, "HIGH"):
        status, out, err = report([write(tmp_path, RECORDS)], **{option: text}, fail_on=fail_on)
        assert (status, out) == (78, "") and sentence in err and repr(text) in err


def test_a_rule_that_exists_and_found_nothing_is_named_in_the_all_clear(tmp_path):
    status, out, err = report([write(tmp_path, [finding()])], pattern="aws-access-key")
    assert (status, err) == (0, "") and "no findings of aws-access-key" in out


def test_what_was_only_found_before_since_exists(tmp_path):
    status, out, _ = report([write(tmp_path, RECORDS)], container="web", since="2026-01-03")
    assert status == 0 and "no findings in web" in out
    assert report([write(tmp_path, RECORDS)], secret="cdcd", since="2026-01-03")[0] == 0


def test_near_names_hold_or_resemble_what_was_asked_for():
    names = ["web-1", "website", "db", "Web"]
    assert nearest("web", names)[:3] == ["Web", "web-1", "website"]
    assert nearest("wbe-1", names) == ["web-1"] and nearest("zzz", names) == []
    assert nearest_fingerprints("abcd", ["abff", "b000", "abce"]) == ["abce", "abff"]


# ==================================================================================================
# secrets
# ==================================================================================================


def test_json_has_every_part(tmp_path):
    found = json_report(*RECORDS, folder=tmp_path)
    assert list(found) == ["totals", "secrets", "containers", "readers", "losses", "denied"]
    assert found["totals"] == {
        "records": 7,
        "first": RECORDS[1]["timestamp"],
        "last": RECORDS[2]["timestamp"],
        "findings": {"HIGH": 4, "LOW": 1},
        "secrets": 2,
        "placeholders": 0,
        "known": 0,
        "suppressed": {},
    }
    secrets = [(secret["severity"], secret["count"]) for secret in found["secrets"]]
    assert secrets == [("HIGH", 4), ("LOW", 1)]
    assert found["losses"] == {"bytes_not_scanned": 5, "records_lost": 9, "findings_lost": 2}
    assert found["denied"] == [
        {
            "event": "denied",
            "method": "POST",
            "path": "/x",
            "rule": "POST",
            "client": "10.0.0.9 (CN=portainer)",
            "count": 4,
            "first_seen": RECORDS[5]["timestamp"],
            "last_seen": RECORDS[5]["timestamp"],
        }
    ]
    reader = found["readers"][0]
    figures = [reader[name] for name in ("client", "bytes", "streams", "findings")]
    assert figures == ["uid 7 (docker)", 2048, 1, 3]


def test_a_secret_says_where_it_leaked_and_who_saw_it(tmp_path):
    secret = json_report(*RECORDS, folder=tmp_path)["secrets"][0]
    assert secret["containers"] == [WEB, DB]
    assert secret["readers"] == ["10.0.0.9 (CN=portainer)", "uid 7 (docker)"]
    sightings = [
        (one["container_name"], one["client"], one["count"]) for one in secret["sightings"]
    ]
    assert sightings == [("web", "uid 7 (docker)", 2), ("db", "10.0.0.9 (CN=portainer)", 2)]


def test_a_secret_in_an_answer_is_told_apart_from_one_in_a_log(tmp_path):
    records = [finding(), finding(endpoint="inspect", client=REMOTE, count=3)]
    secret = json_report(*records, folder=tmp_path)["secrets"][0]
    assert [(one["endpoint"], one["count"]) for one in secret["sightings"]] == [
        ("inspect", 3),
        ("output", 2),
    ]
    out = report([write(tmp_path, records)])[1]
    assert "in its log 2 x, in inspect 3 x to 1 reader" in out
    assert "in its log" not in report([write(tmp_path, records[:1])])[1]


def test_who_got_asterisks_has_not_read_the_secret(tmp_path):
    masked = finding(masked=True, client=REMOTE, count=7)
    out = report([write(tmp_path, [finding(), masked])])[1]
    assert "in its log 2 x, in its log 7 x as asterisks to 1 reader" in out
    assert "read by uid 7 (docker)\n" in out
    out = report([write(tmp_path, [masked])])[1]
    assert "read by nobody: everybody got asterisks" in out
    out = report([write(tmp_path, [masked])], secret="abab")[1]
    assert "its log, masked" in out
    (secret,) = json_report(masked, folder=tmp_path)["secrets"]
    assert secret["readers"] == [] and secret["sightings"][0]["masked"] is True
    told_later = [finding(client=REMOTE), update(finding=1, masked=True, fingerprint="ab" * 8)]
    assert json_report(*told_later, folder=tmp_path)["secrets"][0]["readers"] == []


def test_a_container_s_own_secret_names_its_variable(tmp_path):
    own = finding(rule="container-env", pattern="Container's Own Secret", env="DB_PASSWORD")
    assert "; its variable DB_PASSWORD" in report([write(tmp_path, [own])])[1]
    assert "variable DB_PASSWORD" in report([write(tmp_path, [own])], format="html")[1]
    assert json_report(own, folder=tmp_path)["secrets"][0]["env"] == "DB_PASSWORD"


def test_the_same_credential_is_one_secret_wherever_it_leaks():
    numbers = range(30)
    (secret,) = summary_of(
        *(
            finding(seq=n, container_id=f"{n:064x}", client={"address": f"10.0.0.{n}"})
            for n in numbers
        )
    ).worst_secrets()
    assert (secret.count, len(secret.by_container()), len(secret.by_client())) == (60, 30, 30)


def test_a_finding_is_what_its_update_says(tmp_path):
    def of(*records):
        return [
            (secret.fingerprint, secret.rule, secret.severity, secret.redacted)
            for secret in summary_of(*records).worst_secrets()
        ]

    better = update(
        pattern="Database Password",
        rule="db-password",
        severity="HIGH",
        fingerprint="ee" * 8,
        redacted_match="xx***yy",
    )
    for cut in (
        finding(partial=True, fingerprint=None, severity="LOW"),
        finding(partial=True, severity="LOW"),
        finding(severity="LOW"),  # its match was thought complete
    ):
        assert of(cut, better) == [("ee" * 8, "db-password", "HIGH", "xx***yy")]
        status, *_ = report([write(tmp_path, [{**cut}])], fail_on="HIGH")
        assert status == 0
        lines = [cut, {**better, "finding": 1}]
        assert report([write(tmp_path, lines)], fail_on="HIGH")[0] == 1
        assert report([write(tmp_path, lines)], severity="HIGH", fail_on="LOW")[0] == 1


def test_an_old_update_without_rule_and_severity_still_completes_its_finding():
    key = finding(partial=True, fingerprint=None)
    (secret,) = summary_of(key, update(fingerprint="ee" * 8, redacted_match="x")).worst_secrets()
    assert (secret.fingerprint, secret.rule, secret.redacted) == ("ee" * 8, "password", "x")


def test_a_finding_whose_end_nobody_saw_has_no_fingerprint():
    gone = update(fingerprint=None, redacted_match="***", complete=False)
    (secret,) = summary_of(finding(partial=True), gone).worst_secrets()
    assert (secret.fingerprint, secret.redacted) == ("", "pa***23")
    assert [one.fingerprint for one in summary_of(finding(fingerprint=None)).worst_secrets()] == [
        ""
    ]


def test_an_update_of_another_run_changes_nothing():
    (secret,) = summary_of(
        finding(partial=True), update(run="another0", fingerprint="ee" * 8)
    ).worst_secrets()
    assert secret.fingerprint == "ab" * 8


def test_placeholders_are_left_out_unless_asked_for_and_never_fail(tmp_path):
    records = [finding(placeholder=True, severity="LOW"), finding(fingerprint="ee" * 8)]
    path = write(tmp_path, records)
    out = report([path])[1]
    assert "1 secret (1 HIGH)" in out and "Left out: 2 findings of placeholders" in out
    out = report([path], placeholders=True)[1]
    assert "2 secrets (1 HIGH, 1 LOW)" in out and "a placeholder, no secret" in out
    only = write(tmp_path, records[:1], "only.log")
    for placeholders in (False, True):
        assert report([only], placeholders=placeholders, fail_on="LOW")[0] == 0
    turned = write(tmp_path, [records[0], update(finding=1, placeholder=False)], "turned.log")
    assert report([turned], fail_on="LOW")[0] == 1


def test_what_was_suppressed_is_shown_by_severity_and_fails(tmp_path):
    full = {
        "timestamp": "2026-01-02T03:05:01.000000Z",
        "event": "suppressed",
        "stream": 1,
        "counts": {"Password": 3, "Email Address": 20},
        "severities": {"HIGH": 3, "LOW": 20},
    }
    path = write(tmp_path, [stream("stream_open"), full])
    status, out, _ = report([path], fail_on="HIGH")
    assert status == 1 and "23  findings beyond their container's budget: 3 HIGH, 20 LOW" in out
    assert "budget: 3 HIGH, 20 LOW" in report([path], format="html")[1]
    assert json_report(full, folder=tmp_path)["totals"]["suppressed"] == {"HIGH": 3, "LOW": 20}
    old = {name: value for name, value in full.items() if name != "severities"}
    assert report([write(tmp_path, [old])], fail_on="LOW")[0] == 0


def test_requests_beyond_a_budget_are_no_findings():
    full = {
        "timestamp": "2026-01-02T03:05:01Z",
        "event": "suppressed",
        "client": DOCKER,
        "counts": {"request": 7},
    }
    assert summary_of(full).losses == {"requests_suppressed": 7}


# ==================================================================================================
# streams and losses
# ==================================================================================================


def test_open_streams_count_and_a_stopped_run_has_none():
    opened = [
        stream("stream_open"),
        stream("stream_open", stream=2),
        stream("stream_close", stream=2, bytes=10),
    ]
    (reader,) = summary_of(*opened).all_readers()
    assert (reader.streams, reader.unfinished, reader.bytes) == (2, 1, 10)
    stop = {"timestamp": "2026-01-02T04:00:00Z", "event": "stop", "run": "0badcafe"}
    assert summary_of(*opened, stop).all_readers()[0].unfinished == 0
    assert summary_of(*opened, {**stop, "run": "another0"}).all_readers()[0].unfinished == 1


SCAN_GAP = {
    "timestamp": "2026-01-02T03:05:01Z",
    "event": "scan_gap",
    "run": "0badcafe",
    "stream": 1,
    "bytes": 100,
    "since": "2026-01-02T03:05:00Z",
}


def test_unscanned_bytes_are_counted_once_whether_the_stream_has_ended_or_not():
    opened, closed = stream("stream_open"), stream("stream_close", bytes=500, unscanned=130)
    assert summary_of(opened, SCAN_GAP).losses == {"bytes_not_scanned": 100}
    assert summary_of(opened, SCAN_GAP, closed).losses == {"bytes_not_scanned": 130}


def test_losses_of_other_containers_do_not_count():
    opened = stream("stream_open")
    assert summary_of(opened, SCAN_GAP, container="db").losses == {}
    assert summary_of(opened, SCAN_GAP, container="web").losses == {"bytes_not_scanned": 100}
    assert summary_of(gap(matches=0), container="db").losses == {"records_lost": 9}


def test_every_loss_is_named():
    at = {"timestamp": "2026-01-02T03:05:01.000000Z", "run": "0badcafe", "stream": 1}
    summary = summary_of(
        {**at, "event": "gap", "records": 3, "matches": 1},
        {**at, "event": "scan_gap", "bytes": 7},
        {**at, "event": "scan_error", "error": "ValueError"},
        {**at, "event": "suppressed", "counts": {"Password": 4, "x": 1}},
        {"timestamp": "", "event": "suppressed", "client": DOCKER, "counts": {"denied": 1}},
        {**at, "event": "truncated"},
        {**at, "event": "recovered"},
        {**at, "event": "alert_gap", "reason": "queue", "counts": {"x": 2}},
        stream("stream_open", stream=9, audited=False),
        stream("stream_close", stream=9, audited=False, bytes=11),
    )
    summary.losses.update(bad_lines=1, files_unreadable=1)
    assert set(summary.losses) == set(LOSSES)
    text, page = render_text(summary), render_html(summary, title="t")
    for what, words in LOSSES.items():
        assert f"{summary.losses[what]:>11,}  {words}"[:70] in text and words in page


@pytest.mark.parametrize(
    "since, until, count",
    [
        ("2026-01-01T22:59:00Z", "2026-01-02T01:00:00Z", 4), ("2026-01-01T00", "2026-01-01T00", 1),
        ("2026-01-02", "2026-01-01", 0), ("x", "2026", 0), ("2026-02-31T00", "2026-03-31T00", 0),
        ("9999-12-31T22:00", "9999-12-31T23:59", 2), ("0001-01-01T00", "9999-12-31T23", HOUR_LIMIT),
    ],
)  # fmt: skip
def test_a_gap_covers_its_hours(since, until, count):
    assert len(list(hours_between(since, until))) == count


# ==================================================================================================
# memory
# ==================================================================================================

LIMITS = {
    "DISTINCT_LIMIT": 5,
    "SIGHTING_LIMIT": 3,
    "SIGHTINGS_IN_ALL": 12,
    "WAITING_LIMIT": 4,
    "STREAM_LIMIT": 5,
    "HOUR_LIMIT": 6,
}


def test_memory_is_bounded_and_the_sums_stay_right(monkeypatch):
    for name, limit in LIMITS.items():
        monkeypatch.setattr(summary_room, name, limit)
    summary = AuditSummary()
    for number in range(100):
        client = {"address": f"10.0.0.{number}"}
        at = f"2026-01-{number % 28 + 1:02}T{number % 24:02}:00:00.000000Z"
        common = {"timestamp": at, "client": client}
        severity = ("HIGH", "LOW", "odd")[number % 3]
        what = {"fingerprint": f"{number:016x}", "container_id": f"c{number}"}
        summary.add(finding(**common, **what, seq=2 * number, severity=severity))
        summary.add(finding(**common, fingerprint=None, partial=True, seq=2 * number + 1))
        summary.add(stream("stream_open", **common, stream=number))
        summary.add(denied(**common, path=f"/{number}", count=1))
        tables = (summary._waiting, summary._unfinished, summary._streams, summary.hours)
        assert max(map(len, tables)) <= 6
    summary.settle()
    secrets, containers = summary.worst_secrets(), summary.worst_containers()
    sightings = [tally.count for secret in secrets for tally in secret.sightings.values()]
    readers = [reader.count for reader in summary.all_readers()]
    for counts in ([s.count for s in secrets], [c.count for c in containers], sightings, readers):
        assert sum(counts) == 400
    assert sum(tally.count for _, tally in summary.refusals()) == 100
    assert len(secrets) <= 20 and max(len(containers), len(readers), len(summary.refused)) <= 6
    assert OTHERS in summary.containers and OTHERS in summary.readers
    assert any(Sighted(OTHERS, OTHERS, OTHERS) in secret.sightings for secret in secrets)


def test_a_flood_of_low_findings_does_not_hide_a_grave_one(monkeypatch):
    monkeypatch.setattr(summary_room, "DISTINCT_LIMIT", 10)
    flood = [finding(seq=n, severity="LOW", fingerprint=f"{n:016x}") for n in range(50)]
    summary = summary_of(*flood, finding(seq=99, fingerprint="ee" * 8))
    assert summary.worst_secrets()[0].fingerprint == "ee" * 8


def test_a_flood_does_not_push_out_a_key_that_waits_for_its_end(monkeypatch):
    monkeypatch.setattr(summary_room, "WAITING_LIMIT", 3)
    flood = [finding(seq=n, severity="LOW", fingerprint=f"{n:016x}") for n in range(10, 50)]
    summary = summary_of(finding(fingerprint=None), *flood, update(fingerprint="ee" * 8))
    assert summary.worst_secrets()[0].fingerprint == "ee" * 8
