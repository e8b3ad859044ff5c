"""report: reading the audit log: for a terminal, for programs, for a browser.

    lines of audit logs ─▶ AuditSummary (bounded: distinct secrets, containers, readers, losses) ─▶ text, JSON or one HTML page

Sections:

    gathering        AuditSummary
    choosing         --since, --container, --pattern, --severity
    text             80 columns, coloured on a terminal only
    page             one self-contained HTML page
    command          run_report

What a record holds is hostile text: names, paths and commands are escaped in every output. What belongs together is
grouped by container id, since a long name may be shortened differently from record to record.
"""
from __future__ import annotations

import html as markup
import json
import re
import time
from collections import Counter
from datetime import datetime, timezone
from typing import Any, Callable, Mapping, Optional, Sequence, TextIO

from auditlog import open_audit_log, printable

# =====================================================================================================================
# gathering
# =====================================================================================================================

SEVERITY_RANK = {"HIGH": 3, "MEDIUM": 2, "LOW": 1}
DISTINCT_LIMIT = 100_000  # distinct secrets, containers or readers kept; the rest is counted together
OTHERS = "(others)"


class AuditSummary:
    """What a log says, in bounded memory. `accepts`: which findings count."""

    def __init__(self, accepts: Optional[Callable[[Mapping[str, Any]], bool]] = None) -> None:
        self._accepts = accepts or (lambda record: True)
        self.records = self.bad_lines = 0
        self.first = self.last = ""
        self.findings: Counter[str] = Counter()  # by severity
        self.secrets: dict[str, dict[str, Any]] = {}
        self.containers: dict[str, dict[str, Any]] = {}
        self.readers: dict[str, dict[str, Any]] = {}
        self.denied: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self.by_hour: dict[str, Counter[str]] = {}

    def add_line(self, line: bytes) -> None:
        """Count one line of a log; a line that is no record is counted as bad."""
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("event"), str):
            self.bad_lines += 1
            return
        self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record."""
        if not self._accepts(record):
            return
        self.records += 1
        timestamp = text_of(record.get("timestamp"))
        self.first = min(self.first or timestamp, timestamp)
        self.last = max(self.last, timestamp)
        event = record["event"]
        if event == "finding":
            self._finding(record, timestamp)
        elif event == "stream_close":
            self._stream(record)
        elif event in ("denied", "would_deny"):
            self.denied[f"{text_of(record.get('method'))} {text_of(record.get('path'))} ({text_of(record.get('rule'))})"] += number(record.get("count"), 1)
        else:
            self._loss(event, record)

    def _finding(self, record: Mapping[str, Any], timestamp: str) -> None:
        count, severity = number(record.get("count"), 1), text_of(record.get("severity"))
        self.findings[severity] += count
        container = text_of(record.get("container_id")) or OTHERS
        fingerprint = text_of(record.get("fingerprint"))
        key = f"{fingerprint} {text_of(record.get('rule'))}"
        fresh = {"fingerprint": fingerprint, "pattern": text_of(record.get("pattern")), "severity": severity, "redacted": text_of(record.get("redacted_match"))}
        secret = kept(self.secrets, key, {**fresh, "count": 0, "first_seen": timestamp, "last_seen": timestamp, "containers": {}})
        secret["count"] += count
        secret["first_seen"] = min(secret["first_seen"], timestamp)
        secret["last_seen"] = max(secret["last_seen"], timestamp)
        if len(secret["containers"]) < 1000:
            secret["containers"].setdefault(container, text_of(record.get("container_name")))
        place = kept(self.containers, container, {"container_id": container, "name": text_of(record.get("container_name")), "count": 0, "patterns": Counter()})
        place["count"] += count
        place["patterns"][text_of(record.get("pattern"))] += count
        self.by_hour.setdefault(timestamp[:13], Counter())[severity] += count

    def _stream(self, record: Mapping[str, Any]) -> None:
        name = client_text(record.get("client"))
        fresh = {"client": name, "streams": 0, "bytes": 0, "findings": 0, "containers": {}}
        reader = kept(self.readers, name, fresh)
        reader["streams"] += 1
        reader["bytes"] += number(record.get("bytes"))
        reader["findings"] += number(record.get("findings"))
        if len(reader["containers"]) < 1000:
            reader["containers"].setdefault(text_of(record.get("container_id")), text_of(record.get("container_name")))
        self._lose("bytes not scanned", number(record.get("unscanned")))

    def _loss(self, event: str, record: Mapping[str, Any]) -> None:
        if event == "gap":
            self._lose("records lost", number(record.get("records")))
            self._lose("findings lost", number(record.get("matches")))
        elif event == "scan_gap":
            self._lose("scan gaps", 1)
        elif event == "suppressed":
            counts = record.get("counts")
            self._lose("findings suppressed", sum(number(count) for count in counts.values()) if isinstance(counts, dict) else 0)
        elif event in ("scan_error", "truncated"):
            self._lose({"scan_error": "scan errors", "truncated": "log truncations"}[event], 1)

    def _lose(self, what: str, count: int) -> None:
        if count:
            self.losses[what] += count

    def as_dict(self) -> dict[str, Any]:
        """`totals`, `secrets`, `containers`, `readers`, `losses`, `denied`: for programs."""
        totals = {"records": self.records, "bad_lines": self.bad_lines, "first": self.first, "last": self.last, "findings": dict(self.findings)}
        return {
            "totals": totals,
            "secrets": self.worst_secrets(),
            "containers": sorted(self.containers.values(), key=lambda place: -place["count"]),
            "readers": sorted(self.readers.values(), key=lambda reader: -reader["bytes"]),
            "losses": dict(self.losses),
            "denied": [{"request": request, "count": count} for request, count in self.denied.most_common()],
        }

    def worst_secrets(self) -> list[dict[str, Any]]:
        """The distinct secrets, the gravest and the most frequent first."""
        return sorted(self.secrets.values(), key=lambda secret: (-SEVERITY_RANK.get(secret["severity"], 0), -secret["count"], secret["fingerprint"]))


def kept(table: dict[str, dict[str, Any]], key: str, fresh: dict[str, Any]) -> dict[str, Any]:
    """The entry of a key; beyond the limit, that of all others."""
    if key not in table and len(table) >= DISTINCT_LIMIT:
        key = OTHERS
    return table.setdefault(key, fresh)


def text_of(value: Any) -> str:
    """A field that should be text."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def number(value: Any, default: int = 0) -> int:
    """A field that should be a count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def client_text(client: Any) -> str:
    """Who: certificate, address, or uid and command."""
    if not isinstance(client, dict):
        return "unknown"
    if "address" in client:
        certificate = text_of(client.get("certificate"))
        return text_of(client["address"]) + (f" ({certificate})" if certificate else "")
    return f"uid {text_of(client.get('uid'))} ({text_of(client.get('command')) or 'unknown command'})"


# =====================================================================================================================
# choosing
# =====================================================================================================================

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class ReportError(ValueError):
    """An option that cannot be used; the message says which and what is legal."""


def since_timestamp(text: str, now: float) -> str:
    """24h, 7d or a timestamp as RFC 3339 in UTC; raises ReportError."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match:
        moment = datetime.fromtimestamp(max(0.0, now - int(match[1]) * UNITS[match[2]]), timezone.utc)
    else:
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise ReportError(f"--since {text!r} is neither a span such as 24h or 7d nor a timestamp such as 2025-01-31T08:00") from None
        moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def severity_rank(option: str, text: Optional[str]) -> int:
    """A severity's rank, 0 for none; raises ReportError."""
    if text is None:
        return 0
    if text.upper() not in SEVERITY_RANK:
        raise ReportError(f"{option} {text!r} is none of HIGH, MEDIUM, LOW")
    return SEVERITY_RANK[text.upper()]


def make_filter(since: str, container: Optional[str], pattern: Optional[str], least: int) -> Callable[[Mapping[str, Any]], bool]:
    """Which records a report takes."""

    def accepts(record: Mapping[str, Any]) -> bool:
        if since and text_of(record.get("timestamp")) < since:
            return False
        if container and not (text_of(record.get("container_id")).startswith(container) or record.get("container_name") == container):
            return False
        if record["event"] != "finding":
            return True
        if pattern and pattern.lower() not in (text_of(record.get("pattern")).lower(), record.get("rule")):
            return False
        return SEVERITY_RANK.get(text_of(record.get("severity")), 0) >= least

    return accepts


# =====================================================================================================================
# text
# =====================================================================================================================

COLOURS = {"HIGH": "31;1", "MEDIUM": "33", "LOW": "2", "loss": "31;1", "title": "1"}
ROWS = 20  # rows of each table on a terminal; --json has them all


def render_text(summary: AuditSummary, colour: bool) -> str:
    """The report for a terminal, at most 80 columns."""

    def paint(text: str, kind: str) -> str:
        return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if colour and kind in COLOURS else text

    counts = ", ".join(f"{count} {severity}" for severity, count in sorted(summary.findings.items(), key=lambda kv: -SEVERITY_RANK.get(kv[0], 0)))
    lines = [fit(f"{summary.first[:19]} to {summary.last[:19]}: {counts or 'no findings'}, {len(summary.secrets)} distinct secrets", 80)]
    lines += ["", paint("What leaked", "title")]
    for secret in summary.worst_secrets()[:ROWS]:
        names = ", ".join(name or key[:12] for key, name in secret["containers"].items())
        head = f"{secret['severity']:6} {fit(secret['pattern'], 26):26} {fit(secret['redacted'], 9):9} {secret['count']:>7} x"
        lines.append(paint(head, secret["severity"]) + f"  {secret['fingerprint'] or '-':16}")
        lines.append(fit(f"       {secret['first_seen'][:19]} to {secret['last_seen'][:19]} in {names}", 80))
    lines += table(paint("Which containers leak most", "title"), ((f"{p['count']:>9}  {p['name'] or p['container_id'][:12]}") for p in summary.as_dict()["containers"]))
    readers = (f"{size_text(r['bytes']):>9}  {r['streams']} streams, {r['findings']} findings  {r['client']}" for r in summary.as_dict()["readers"])
    lines += table(paint("Who read these streams", "title"), readers)
    lines += table(paint("Refused", "title"), (f"{count:>9}  {request}" for request, count in summary.denied.most_common()))
    losses = [f"{count:>9}  {what}" for what, count in sorted(summary.losses.items())]
    losses += [f"{summary.bad_lines:>9}  lines are no records; `dockeraudit verify` says which"] if summary.bad_lines else []
    lines += table(paint("Not recorded or not scanned", "loss"), losses)
    return "\n".join(lines) + "\n"


def table(title: str, rows: Any) -> list[str]:
    """A titled table, or nothing."""
    rows = list(rows)
    if not rows:
        return []
    more = [f"           and {len(rows) - ROWS} more"] if len(rows) > ROWS else []
    return ["", title, *(fit(row, 80) for row in rows[:ROWS]), *more]


def fit(text: str, width: int) -> str:
    """The text, harmless and no wider than this."""
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def size_text(size: int) -> str:
    """Bytes for people."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            break
        amount /= 1000
    else:
        return f"{amount:.1f} TB"
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


# =====================================================================================================================
# page
# =====================================================================================================================

STYLE = """
:root{color-scheme:light dark;--high:#b00020;--medium:#8a5a00;--low:#5f6368;--line:#8884}
@media(prefers-color-scheme:dark){:root{--high:#ff7a85;--medium:#ffc04d;--low:#aab}}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:75rem;padding:1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.HIGH{color:var(--high);font-weight:600}.MEDIUM{color:var(--medium)}.LOW{color:var(--low)}.loss{color:var(--high)}
svg{width:100%;height:8rem;border-bottom:1px solid var(--line)}
td bdi{display:block;max-height:6em;overflow:auto}
@media print{.scroll{overflow:visible}}
"""


def render_html(summary: AuditSummary, *, title: str, live: Optional[Mapping[str, Any]] = None) -> str:
    """One page without script or network: the summary, and what runs now if `live` is given."""
    found = summary.as_dict()
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body><main><h1>{safe(title)}</h1>",
        f"<p>{safe(summary.first[:19])} to {safe(summary.last[:19])}: {sum(summary.findings.values())} findings, {len(summary.secrets)} distinct secrets</p>",
        live_section(live) if live else "",
        hours_chart(summary.by_hour),
        html_table("What leaked", ("severity", "pattern", "match", "count", "containers", "first", "last", "fingerprint"), [secret_row(s) for s in found["secrets"][:500]]),
        html_table("Containers", ("container", "id", "findings", "patterns"), [container_row(c) for c in found["containers"][:500]]),
        html_table("Who read these streams", ("client", "streams", "bytes", "findings"), [(r["client"], r["streams"], size_text(r["bytes"]), r["findings"]) for r in found["readers"][:500]]),
        html_table("Refused", ("request", "count"), [(d["request"], d["count"]) for d in found["denied"][:500]]),
        html_table("Not recorded or not scanned", ("what", "count"), sorted(summary.losses.items()), "loss"),
        "</main></body></html>\n",
    ]
    return "".join(parts)


def safe(value: Any) -> str:
    """Text for HTML: escaped, control characters shown, isolated by its own element where it stands."""
    return markup.escape(printable(text_of(value)), quote=True)


def secret_row(secret: Mapping[str, Any]) -> tuple[Any, ...]:
    """A distinct secret as a row of the page."""
    names = ", ".join(name or key[:12] for key, name in secret["containers"].items())
    return (secret["severity"], secret["pattern"], secret["redacted"], secret["count"], names, secret["first_seen"][:19], secret["last_seen"][:19], secret["fingerprint"])


def container_row(place: Mapping[str, Any]) -> tuple[Any, ...]:
    """A container as a row of the page."""
    return (place["name"], place["container_id"][:12], place["count"], ", ".join(f"{name}: {count}" for name, count in place["patterns"].most_common()))


def html_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "") -> str:
    """A table with a caption for screen readers, or nothing."""
    if not rows:
        return ""
    head = "".join(f"<th scope=col>{safe(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(html_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<h2 class='{kind}'>{safe(title)}</h2><div class=scroll tabindex=0 role=region aria-label='{safe(title)}'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def html_cell(value: Any) -> str:
    """One cell: numbers to the right, severities by their colour, text isolated from its neighbours' direction."""
    if isinstance(value, int):
        return f"<td class=n>{value}</td>"
    kind = f" class={value}" if value in SEVERITY_RANK else ""
    return f"<td{kind}><bdi>{safe(value)}</bdi></td>"


def hours_chart(by_hour: Mapping[str, Mapping[str, int]]) -> str:
    """Findings over time as inline SVG, one bar an hour, the last week."""
    hours = sorted(by_hour)[-168:]
    if not hours:
        return ""
    top = max(sum(by_hour[hour].values()) for hour in hours)
    bars = []
    for place, hour in enumerate(hours):
        low = 100.0
        for severity in ("LOW", "MEDIUM", "HIGH"):
            height = 100.0 * by_hour[hour].get(severity, 0) / top
            low -= height
            bars.append(f"<rect x={place} y={low:.2f} width=.8 height={height:.2f} fill='var(--{severity.lower()})'><title>{safe(hour)}: {by_hour[hour].get(severity, 0)} {severity}</title></rect>")
    return f"<h2>Findings by hour</h2><svg viewBox='0 0 {len(hours)} 100' preserveAspectRatio=none role=img aria-label='findings by hour'>{''.join(bars)}</svg>"


def live_section(live: Mapping[str, Any]) -> str:
    """What runs now: engine, log, open streams."""
    engine = "answers" if live.get("engine_up") else "does not answer"
    counters = live.get("counters")
    rows = sorted(counters.items()) if isinstance(counters, dict) else []
    streams = [(s.get("container") or "", s.get("endpoint"), client_text(s.get("client")), size_text(number(s.get("bytes"))), number(s.get("seconds"))) for s in live.get("streams", ())]
    plain = [(name, value) for name, value in rows if isinstance(value, (int, str))]
    return f"<p>The engine {engine}.</p>" + html_table("Open streams", ("container", "endpoint", "client", "bytes", "seconds"), streams) + html_table("Audit log", ("what", "count"), plain)


# =====================================================================================================================
# command
# =====================================================================================================================

PROGRESS_BYTES = 64 << 20  # of a log between two progress lines


def run_report(
    files: Sequence[str], *, since: Optional[str], container: Optional[str], pattern: Optional[str], severity: Optional[str],
    json_output: bool, html: bool, fail_on: Optional[str], out: TextIO, err: TextIO, now: Optional[float] = None,
) -> int:  # fmt: skip
    """Write the report: 0, 1 where --fail-on found something, 78 for a wrong option, 66 for a file that cannot be read."""
    try:
        moment = since_timestamp(since, time.time() if now is None else now) if since else ""
        summary = AuditSummary(make_filter(moment, container, pattern, severity_rank("--severity", severity)))
        least = severity_rank("--fail-on", fail_on)
    except ReportError as error:
        err.write(f"dockeraudit report: {error}\n")
        return 78
    for name in files:
        try:
            read_log(summary, name, err)
        except (OSError, EOFError) as error:
            err.write(f"dockeraudit report: {printable(name)} cannot be read: {error}\n")
            return 66
    if json_output:
        json.dump(summary.as_dict(), out, ensure_ascii=True, indent=1)
        out.write("\n")
    else:
        out.write(render_html(summary, title="dockeraudit report") if html else render_text(summary, out.isatty()))
    grave = any(SEVERITY_RANK.get(name, 0) >= least for name in summary.findings)
    return 1 if least and grave else 0


def read_log(summary: AuditSummary, name: str, err: TextIO) -> None:
    """Add one file's lines; raises OSError."""
    done, shown = 0, 0
    with open_audit_log(name) as file:
        for line in file:
            summary.add_line(line)
            done += len(line)
            if done - shown >= PROGRESS_BYTES and err.isatty():
                shown = done
                err.write(f"\r{size_text(done)} read")
    if shown:
        err.write("\n")
