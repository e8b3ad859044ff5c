"""The report as a page: every text escaped, nothing loaded, only its own script allowed."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from auditrecords import (
    HOSTILE,
    RECORDS,
    denied,
    finding,
    hostile_summary,
    report,
    summary_of,
    write,
)

from _dockeraudit.page import PAGE_ROWS, render_html
from _dockeraudit.pagecharts import bar_hours
from _dockeraudit.pagestyle import SCRIPT, page_policy
from _dockeraudit.summary import AuditSummary

LIVE = {"streams": [], "counters": {}, "engine_up": True}


def outside_script(page):
    """The page without its own script and style."""
    assert page.count("<script>") == 1 and page.count("</script>") == 1
    return re.sub(r"<script>.*?</script>|<style>.*?</style>", "", page, flags=re.S)


def test_page_escapes_everything():
    live = {
        "streams": [{"container": HOSTILE, "endpoint": HOSTILE, "client": {"address": HOSTILE}}],
        "counters": {HOSTILE: 5, "degraded": True},
        "engine_up": False,
    }
    page = render_html(hostile_summary(HOSTILE), title=HOSTILE, live=live, made=HOSTILE)
    text = outside_script(page)
    assert "<script" not in text and "'\"\\u001b" not in text and "alert(1)" in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u2028\u202e]", page)
    assert "does not answer" in page and "cannot be written" in page


def test_page_loads_nothing_and_runs_only_its_own_script():
    page = render_html(summary_of(*RECORDS), title="t", live=LIVE)
    text = outside_script(page)
    assert not re.search(r"<(link|img|iframe|object|form)|https?:|url\(|@import|\son\w+=", text)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"<script>{SCRIPT}</script>" in page and "</" not in SCRIPT
    assert "default-src 'none'" in page and f"script-src 'sha256-{digest}'" in page
    assert "connect-src" in page_policy(live=True) and "connect-src" not in page_policy(live=False)
    assert "<svg" in page and "class=gap" in page and "Reload" in page


def test_only_the_live_page_refreshes_itself():
    summary = summary_of(*RECORDS)
    assert "data-refresh" in outside_script(render_html(summary, title="t", live=LIVE))
    assert "data-refresh" not in outside_script(render_html(summary, title="t"))


def test_page_says_when_nothing_was_lost_or_found():
    calm = "Everything was scanned and recorded"
    assert calm in render_html(summary_of(finding()), title="t")
    empty = render_html(AuditSummary(), title="t")
    assert "no findings" in empty and calm not in empty


def test_every_severity_can_be_reached_behind_a_flood_of_grave_ones():
    many = PAGE_ROWS + 50
    records = [finding(seq=n, fingerprint=f"{n:016x}") for n in range(many)]
    records.append(finding(seq=many, severity="MEDIUM", fingerprint="ee" * 8))
    records.append(finding(seq=many + 1, severity="LOW", fingerprint="ff" * 8))
    page = render_html(summary_of(*records), title="t")
    assert "ee" * 8 in page and "ff" * 8 in page and "and 50 more" in page
    folds = re.findall(r"<details class=fold id=secrets-(\w+)( open)?>", page)
    assert folds == [("HIGH", " open"), ("MEDIUM", ""), ("LOW", "")]


def test_links_lead_to_rows_that_are_there():
    records = [*RECORDS, finding(seq=9, fingerprint="ee" * 8, container_id="e" * 64)]
    page = render_html(summary_of(*records), title="t", live=LIVE)
    targets = set(re.findall(r"href='#([^']+)'", page))
    ids = re.findall(r" id=([\w-]+)", outside_script(page))
    assert targets <= set(ids) and len(ids) == len(set(ids))
    assert {"s1", "c1", "r1"} <= targets


def test_numbers_carry_what_they_are_sorted_by():
    page = render_html(summary_of(finding(count=1234)), title="t")
    assert "data-v=1234><div><data value=1234>1,234</data>" in page


def test_learn_mode_has_a_section_of_its_own():
    page = render_html(summary_of(denied(event="would_deny")), title="t")
    assert "<section id=learned " in page and "<section id=refused " not in page


def test_what_is_new_is_marked(tmp_path):
    state = str(tmp_path / "state")
    report([write(tmp_path, [finding()])], state=state)
    fresh = finding(timestamp="2026-01-03T00:00:00.000000Z", fingerprint="ee" * 8)
    page = report([write(tmp_path, [finding(), fresh])], state=state, format="html")[1]
    assert page.count("<span class=new>new</span>") == 1


@pytest.mark.parametrize(
    "span, step",
    [
        (1, 1), (72, 1), (73, 3), (24 * 7, 3), (24 * 60, 24), (24 * 365, 168),
        (24 * 365 * 9, 24 * 365 * 9 // 72),
    ],
)  # fmt: skip
def test_a_chart_has_a_bounded_number_of_bars(span, step):
    assert bar_hours(span) == step and -(-span // bar_hours(span)) <= 72
