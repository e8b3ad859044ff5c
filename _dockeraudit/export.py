"""The report for programs: one JSON object, or CSV."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from _dockeraudit.summary import AuditSummary
from _dockeraudit.tallies import Reader, Refusal, Secret, Tally

CSV_COLUMNS = (
    "severity", "pattern", "rule", "fingerprint", "redacted_match", "container_id",
    "container_name", "endpoint", "client", "masked", "count", "first_seen", "last_seen",
    "env",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def summary_dict(summary: AuditSummary) -> dict[str, Any]:
    """`totals`, `secrets`, `containers`, `readers`, `losses`, `denied`."""
    refusals = summary.refusals() + summary.refusals(only_learned=True)
    return {
        "totals": {
            "records": summary.records,
            "first": summary.first,
            "last": summary.last,
            "findings": dict(summary.findings),
            "secrets": len(summary.secrets),
            "placeholders": summary.placeholders,
            "known": summary.known,
            "suppressed": dict(summary.suppressed),
        },
        "secrets": [secret_dict(summary, secret) for secret in summary.worst_secrets()],
        "containers": [
            {
                "container_id": container.container_id,
                "container_name": container.name,
                "patterns": dict(container.patterns.most_common()),
                **container.times(),
            }
            for container in summary.worst_containers()
        ],
        "readers": [reader_dict(reader) for reader in summary.all_readers()],
        "losses": dict(summary.losses),
        "denied": [refusal_dict(refusal, tally) for refusal, tally in refusals],
    }


def secret_dict(summary: AuditSummary, secret: Secret) -> dict[str, Any]:
    """A secret, with each way in which it was seen."""
    document: dict[str, Any] = {
        "fingerprint": secret.fingerprint,
        "rule": secret.rule,
        "pattern": secret.pattern,
        "severity": secret.severity,
        "redacted_match": secret.redacted,
    }
    if secret.placeholder:
        document["placeholder"] = True
    if secret.env:
        document["env"] = secret.env
    return {
        **document,
        **secret.times(),
        "containers": sorted(secret.by_container()),
        "readers": sorted(secret.by_client()),
        "sightings": [
            {
                "container_id": seen.container,
                "container_name": container_name(summary, seen.container),
                "client": seen.client,
                "endpoint": seen.where,
                **({"masked": True} if seen.masked else {}),
                **tally.times(),
            }
            for seen, tally in sorted(secret.sightings.items())
        ],
    }


def container_name(summary: AuditSummary, container_id: str) -> str:
    """The name of a container with findings."""
    container = summary.containers.get(container_id)
    return container.name if container else ""


def reader_dict(reader: Reader) -> dict[str, Any]:
    """A reader; its `findings` are those that count."""
    return {
        "client": reader.client,
        "streams": reader.streams,
        "unfinished": reader.unfinished,
        "bytes": reader.bytes,
        "containers": sorted(reader.containers),
        "findings": reader.count,
        "first_seen": reader.first,
        "last_seen": reader.last,
    }


def refusal_dict(refusal: Refusal, tally: Tally) -> dict[str, Any]:
    """A refused request."""
    return {**refusal._asdict(), **tally.times()}


def write_csv(summary: AuditSummary, out: TextIO) -> None:
    """A row for each way in which each secret was seen."""
    import csv  # here, since only --csv needs it

    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    for secret in summary.worst_secrets():
        what = (
            secret.severity, secret.pattern, secret.rule, secret.fingerprint, secret.redacted,
        )  # fmt: skip
        for seen, tally in sorted(secret.sightings.items()):
            where = (seen.container, container_name(summary, seen.container), seen.where)
            times = (str(tally.count), tally.first, tally.last)
            masked = "yes" if seen.masked else ""
            rows.writerow(csv_cells((*what, *where, seen.client, masked, *times, secret.env)))


def csv_cells(cells: Iterable[str]) -> list[str]:
    """Cells that a spreadsheet takes for text: a formula gets an apostrophe before it."""
    return ["'" + cell if cell.startswith(FORMULA_STARTS) else cell for cell in cells]
