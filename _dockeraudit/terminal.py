"""The report as text: 80 columns, coloured on a terminal only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from _dockeraudit.summary import LOSSES, AuditSummary, Place, Reader, Secret, Tally
from _dockeraudit.text import (
    NAMES,
    SEVERITY_RANK,
    WIDTH,
    columns,
    counted,
    fit,
    pad,
    printable,
    size_text,
)

COLOURS = {"HIGH": "31;1", "MEDIUM": "33", "LOW": "36", "loss": "31;1", "title": "1"}
ROWS = 20  # rows of each table for people; --json has them all
ALL_ROWS = 1_000  # rows where one secret was asked for


def render_text(summary: AuditSummary, colour: bool) -> str:
    """The report for a terminal, at most 80 columns; with --secret every container and reader of it."""

    def paint(text: str, kind: str) -> str:
        return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if colour and kind in COLOURS else text

    choice, secrets = summary.choice, summary.worst_secrets()
    lines = [fit(period_text(summary) or "no records", WIDTH), fit(headline(summary), WIDTH)]
    if secrets:
        lines += ["", paint("What leaked", "title")]
    for secret in secrets[:ROWS]:
        lines += secret_lines(summary, secret, paint)
    if len(secrets) > ROWS:
        lines.append(f"  and {len(secrets) - ROWS} more secrets; --json has them all")
    if not choice.secret:
        lines += table(
            paint("Which containers leak most", "title"), map(place_line, summary.worst_places())
        )
        title = "Who read these streams" if not choice.of_findings else "Who saw these findings"
        lines += table(paint(title, "title"), map(reader_line, summary.all_readers()))
        lines += table(
            paint("Refused requests", "title"), (refusal_line(*item) for item in summary.refusals())
        )
    losses = [
        f"{summary.losses[what]:>11,}  {text}"
        for what, text in LOSSES.items()
        if summary.losses[what]
    ]
    lines += table(paint("Not recorded or not scanned", "loss"), losses)
    if not losses:
        lines += ["", "Everything was scanned and recorded, as far as these records tell."]
    if secrets and not choice.secret:
        lines.append(
            f"More of one secret: dockeraudit report --secret {secrets[0].fingerprint or 'FINGERPRINT'}"
        )
    return "\n".join(lines) + "\n"


def period_text(summary: AuditSummary) -> str:
    """From when to when."""
    return (
        f"{minute(summary.first)} to {minute(summary.last)} UTC, {counted(summary.records, 'record')}"
        if summary.records
        else ""
    )


def headline(summary: AuditSummary) -> str:
    """The report in one sentence."""
    total = sum(summary.findings.values())
    if not total:
        return "no findings"
    distinct = Counter(secret.severity for secret in summary.secrets.values())
    graded = ", ".join(f"{distinct[name]} {name}" for name in SEVERITY_RANK if distinct[name])
    return f"{counted(len(summary.secrets), 'secret')} ({graded}) in {counted(len(summary.places), 'container')}, seen {total:,} times"


def minute(timestamp: str) -> str:
    """A timestamp for people: to the minute."""
    return timestamp[:16].replace("T", " ")


def secret_lines(summary: AuditSummary, secret: Secret, paint: Any) -> list[str]:
    """A distinct secret: what, how often, when, where, and who saw it."""
    head = f"  {fit(secret.severity, 6):6} {pad(secret.pattern, 27)} {pad(secret.redacted, 9)} {secret.count:>8,} x  "
    lines = [paint(head, secret.severity) + fit(secret.fingerprint or "end not seen", 17)]
    lines.append(fit(f"         {minute(secret.first)} to {minute(secret.last)}", WIDTH))
    if summary.choice.secret:
        pairs = sorted(secret.sightings.items(), key=lambda item: (-item[1].count, item[0]))
        rows = (
            f"{tally.count:>10,} x  {minute(tally.last)}  {pad(summary.label_of(container), 24)}  {client}"
            for (container, client), tally in pairs
        )
        return (
            lines
            + table(
                "           times  last seen         container                 read by",
                rows,
                ALL_ROWS,
            )[1:]
        )
    lines.append(
        named_line(
            "in",
            [summary.label_of(container) for container, _ in secret.by(0).most_common(NAMES)],
            len(secret.by(0)),
        )
    )
    lines.append(
        named_line(
            "read by", [client for client, _ in secret.by(1).most_common(NAMES)], len(secret.by(1))
        )
    )
    return lines


def named_line(what: str, names: Sequence[str], total: int) -> str:
    """As many of the names as find room in a line, at least one, and how many more there are."""
    line, named = f"         {what} ", 0
    for name in names:
        room = WIDTH - columns(line) - len(f",  and {total} more")
        text = fit(name, max(room, 12))
        if named and (room < 12 or text != printable(name)):
            break
        line += (", " if named else "") + text
        named += 1
    return fit(line + (f" and {total - named} more" if total > named else ""), WIDTH)


def place_line(place: Place) -> str:
    """A container with its findings."""
    graded = ", ".join(
        f"{place.severities[name]:,} {name}" for name in SEVERITY_RANK if place.severities[name]
    )
    return f"{place.count:>11,}  {pad(place.label, 30)}  {graded}"


def reader_line(reader: Reader) -> str:
    """A reader with how much."""
    unfinished = f", {reader.unfinished} open" if reader.unfinished else ""
    return f"{size_text(reader.bytes):>11}  {counted(reader.streams, 'stream'):>13}  {counted(reader.count, 'finding'):>16}  {reader.client}{unfinished}"


def refusal_line(key: Sequence[str], tally: Tally) -> str:
    """A refused request."""
    event, method, path, rule, client = key
    told = "" if event == "denied" else " (only learned)"
    return f"{tally.count:>11,}  {client}: {method} {path}, rule {rule}{told}"


def table(title: str, rows: Iterable[str], limit: int = ROWS) -> list[str]:
    """A titled table, or nothing."""
    rows = list(rows)
    if not rows:
        return []
    more = [f"             and {len(rows) - limit:,} more"] if len(rows) > limit else []
    return ["", title, *(fit(row, WIDTH) for row in rows[:limit]), *more]
