"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from _dockeraudit.logrecords import client_text, number_of
from _dockeraudit.pagecharts import heat_table, time_chart
from _dockeraudit.pageparts import (
    PAGE_SECTIONS,
    badge,
    counted_word,
    fingerprint_cell,
    fold,
    html_table,
    linked,
    names_list,
    page_section,
    safe,
    shown,
    sortable,
    time_cell,
)
from _dockeraudit.pagestyle import SCRIPT, STYLE, page_policy
from _dockeraudit.summary import LOSSES, AuditSummary
from _dockeraudit.tallies import Secret
from _dockeraudit.terminal import (
    Look,
    headline,
    is_new,
    loss_text,
    period_text,
    secret_remarks,
    ways_parts,
)
from _dockeraudit.text import SEVERITY_RANK, counted, size_text

PAGE_ROWS = 200  # rows of each table, and of the secrets of each severity
PAGE_NAMES = 8  # containers, readers or secrets named in a cell
PAGE_TAIL = 4 << 20  # bytes of the log's end that the live page reads; more is the report's work
REFRESH = 5  # seconds after which the live page asks for itself again


class Rows(NamedTuple):
    """The ids of the page's rows, to link to: by secret, container and reader."""

    secrets: Mapping[int, str]
    containers: Mapping[str, str]
    readers: Mapping[str, str]


def render_html(
    summary: AuditSummary,
    *,
    title: str,
    live: Mapping[str, Any] | None = None,
    made: str = "",
    new: frozenset[str] | None = None,
) -> str:
    """One page without network: the summary, and what runs now if `live` is given.

    `made`: when and by what, for the foot. `new`: digests of what no earlier report has told.
    """
    rows = page_rows(summary)
    sections = [
        live_section(live) if live else "",
        losses_section(summary),
        recent_section(summary, rows) if live else "",
        page_section("time", time_chart(summary), fold_title="by severity"),
        secrets_section(summary, rows, new),
        containers_section(summary, rows),
        readers_section(summary, rows),
        refusals_section(summary, "refused", only_learned=False),
        refusals_section(summary, "learned", only_learned=True),
    ]
    refresh = f" data-refresh={REFRESH}" if live else ""
    return "".join(
        (
            page_head(title, bool(live)),
            f"<body{refresh}>{page_header(summary, title, sections, bool(live))}\n<main>",
            "\n".join(filter(None, sections)),
            f"</main>\n<footer>{safe(made)}</footer>",
            f"<script>{SCRIPT}</script></body></html>\n",
        )
    )


def page_head(title: str, live: bool) -> str:
    """The document's head: its policy, its style."""
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f'<meta http-equiv=Content-Security-Policy content="{page_policy(live)}">'
        "<meta name=referrer content=no-referrer>"
        f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n"
    )


def page_header(summary: AuditSummary, title: str, sections: list[str], live: bool) -> str:
    """The page's title, its one sentence, links to its sections, the key figures."""
    present = [
        name
        for name in PAGE_SECTIONS
        if any(text.startswith(f"<section id={name} ") for text in sections)
    ]
    links = "".join(f"<a href='#{name}'>{PAGE_SECTIONS[name][0]}</a>" for name in present)
    reload = "<a href=''>Reload</a>" if live else ""
    return (
        f"<header><h1>{safe(title)}</h1><p>{safe(headline(summary))}</p>"
        f"<p class=soft>{safe(period_text(summary) or 'no records')}</p>"
        f"<nav aria-label='Sections'>{links}{reload}</nav>{tiles(summary)}</header>"
    )


def page_rows(summary: AuditSummary) -> Rows:
    """Ids for the rows that the page will have."""
    secrets = [
        secret
        for severity in [*SEVERITY_RANK, ""]
        for secret in of_severity(summary, severity)[:PAGE_ROWS]
    ]
    containers = summary.worst_containers()[:PAGE_ROWS]
    readers = summary.all_readers()[:PAGE_ROWS]
    return Rows(
        {id(secret): f"s{number}" for number, secret in enumerate(secrets, 1)},
        {one.container_id: f"c{number}" for number, one in enumerate(containers, 1)},
        {reader.client: f"r{number}" for number, reader in enumerate(readers, 1)},
    )


def of_severity(summary: AuditSummary, severity: str) -> list[Secret]:
    """The secrets of a severity, the most frequent first; "": of none that is known."""
    return [
        secret
        for secret in summary.worst_secrets()
        if (secret.severity if secret.severity in SEVERITY_RANK else "") == severity
    ]


def tiles(summary: AuditSummary) -> str:
    """The key figures."""
    distinct = Counter(secret.severity for secret in summary.secrets.values())
    items = []
    for name in SEVERITY_RANK:
        seen = f"<br><span class=soft>seen {counted(summary.findings[name], 'time')}</span>"
        text = f"{name} {counted_word(distinct[name], 'secret')}{seen}"
        items.append(f"<li class='{name}'><b>{distinct[name]:,}</b>{text}</li>")
    leaking, readers = summary.leaking(), len(summary.all_readers())
    verb = "leaks" if leaking == 1 else "leak"
    containers = f"{counted_word(leaking, 'container')} that {verb}"
    items.append(f"<li><b>{leaking:,}</b>{containers}</li>")
    items.append(f"<li><b>{readers:,}</b>{counted_word(readers, 'reader')}</li>")
    return f"<ul class=tiles>{''.join(items)}</ul>"


def losses_section(summary: AuditSummary) -> str:
    """What was not recorded or not scanned; or that nothing is known to be missing."""
    losses = [
        f"<li><b>{summary.losses[what]:,}</b> {loss_text(summary, what)}</li>"
        for what in LOSSES
        if summary.losses[what]
    ]
    if losses:
        return page_section("losses", f"<ul>{''.join(losses)}</ul>", kind="alert")
    if not summary.records:
        return ""
    return "<p class=calm>Everything was scanned and recorded, as far as these records tell.</p>"


def secrets_section(summary: AuditSummary, rows: Rows, new: frozenset[str] | None) -> str:
    """The distinct secrets, a part for each severity; the gravest is open."""
    parts, look = [], Look(new=new)
    opened = True
    for severity in [*SEVERITY_RANK, ""]:
        secrets = of_severity(summary, severity)
        if not secrets:
            continue
        chosen = secrets[:PAGE_ROWS]
        table = html_table(
            ("secret", "n:times", "containers", "read by", "first seen", "last seen"),
            [secret_row(secret, summary, rows, is_new(secret, look)) for secret in chosen],
            f"{severity or 'Other'} secrets",
            len(secrets),
            {place: rows.secrets[id(secret)] for place, secret in enumerate(chosen)},
        )
        title = f"{badge(severity)} {counted(len(secrets), 'secret')}"
        parts.append(fold(f"secrets-{severity or 'other'}", title, table, opened))
        opened = False
    note = (
        "One row for each credential, with its fingerprint: "
        "the same fingerprint is the same credential everywhere."
    )
    if summary.known:
        note += f" Left out: {counted(summary.known, 'finding')} of known secrets."
    if summary.placeholders and not summary.choice.placeholders:
        left_out = counted(summary.placeholders, "finding")
        note += f" Left out: {left_out} of placeholders (<code>--placeholders</code>)."
    return page_section("secrets", "".join(parts), note)


def secret_row(secret: Secret, summary: AuditSummary, rows: Rows, new: bool) -> tuple[str, ...]:
    """A secret: what, how often, where, who read it, when."""
    containers, readers = secret.by_container(), secret.by_client()
    what = f"{shown(secret.pattern)}{' <span class=new>new</span>' if new else ''}<br>"
    what += f"<code>{shown(secret.redacted)}</code> {fingerprint_cell(secret.fingerprint)}"
    for remark in filter(None, [*secret_remarks(secret), ", ".join(ways_parts([secret]))]):
        what += f"<br><span class=soft>{safe(remark)}</span>"
    inside = [
        (summary.label_of(container), rows.containers.get(container, ""))
        for container, _ in containers.most_common(PAGE_NAMES)
    ]
    clients = [
        (client, rows.readers.get(client, "")) for client, _ in readers.most_common(PAGE_NAMES)
    ]
    return (
        what,
        sortable(secret.count, f"{secret.count:,}"),
        names_list(inside, len(containers)),
        names_list(clients, len(readers)),
        time_cell(secret.first),
        time_cell(secret.last),
    )


def secrets_by(summary: AuditSummary, side: str) -> dict[str, dict[int, Secret]]:
    """The secrets of each container or client, the gravest first."""
    found: dict[str, dict[int, Secret]] = {}
    for secret in summary.worst_secrets():
        for seen in secret.sightings:
            found.setdefault(getattr(seen, side), {})[id(secret)] = secret
    return found


def secret_links(secrets: Mapping[int, Secret], rows: Rows) -> str:
    """The gravest of some secrets, each with a link to its row."""
    names = [
        (f"{secret.severity} {secret.pattern} {secret.fingerprint[:8]}", rows.secrets.get(key, ""))
        for key, secret in list(secrets.items())[:PAGE_NAMES]
    ]
    return names_list(names, len(secrets))


def containers_section(summary: AuditSummary, rows: Rows) -> str:
    """The containers with their secrets, and the table of containers by patterns."""
    containers, secrets = summary.worst_containers(), secrets_by(summary, "container")
    chosen = containers[:PAGE_ROWS]
    table = html_table(
        ("container", "secrets", "n:findings", "last"),
        [
            (
                shown(container.label),
                secret_links(secrets.get(container.container_id, {}), rows),
                sortable(container.count, f"{container.count:,}"),
                time_cell(container.last),
            )
            for container in chosen
        ],
        "Containers",
        len(containers),
        {place: rows.containers[one.container_id] for place, one in enumerate(chosen)},
    )
    heat = fold("containers-heat", "By patterns", heat_table(summary), opened=True)
    title = counted(summary.leaking(), "container")
    return page_section("containers", table + heat, fold_title=title)


def readers_section(summary: AuditSummary, rows: Rows) -> str:
    """The clients that read, how much, and the secrets they saw."""
    readers, secrets = summary.all_readers(), secrets_by(summary, "client")
    chosen = readers[:PAGE_ROWS]
    cells = []
    for reader in chosen:
        unfinished = f" ({reader.unfinished:,} open)" if reader.unfinished else ""
        cells.append(
            (
                shown(reader.client),
                sortable(reader.streams, f"{reader.streams:,}{unfinished}"),
                sortable(reader.bytes, size_text(reader.bytes)),
                sortable(len(reader.containers), f"{len(reader.containers):,}"),
                sortable(reader.count, f"{reader.count:,}"),
                secret_links(secrets.get(reader.client, {}), rows),
                time_cell(reader.last),
            )
        )
    heads = ("client", "n:streams", "n:read", "n:containers", "n:findings", "secrets", "last")
    ids = {place: rows.readers[reader.client] for place, reader in enumerate(chosen)}
    table = html_table(heads, cells, "Readers", len(readers), ids)
    return page_section("readers", table, fold_title=counted(len(readers), "reader"))


def refusals_section(summary: AuditSummary, name: str, only_learned: bool) -> str:
    """The requests that were refused, or that a rule would refuse outside learn mode."""
    refusals = summary.refusals(only_learned)
    cells = [
        (
            sortable(tally.count, f"{tally.count:,}"),
            shown(refusal.request),
            shown(refusal.rule),
            shown(refusal.client),
            time_cell(tally.last),
        )
        for refusal, tally in refusals[:PAGE_ROWS]
    ]
    heads = ("n:times", "request", "rule", "client", "last")
    table = html_table(heads, cells, PAGE_SECTIONS[name][1], len(refusals))
    title = counted(len(refusals), "request")
    return page_section(name, table, fold_title=title, closed=only_learned)


def recent_section(summary: AuditSummary, rows: Rows) -> str:
    """The latest findings."""
    latest = sorted(summary.recent, key=lambda finding: finding.timestamp, reverse=True)
    cells = []
    for finding in latest:
        secret, place = finding.secret, finding.container.container_id
        cells.append(
            (
                time_cell(finding.timestamp, 19),
                badge(secret.severity),
                f"{linked(secret.pattern, rows.secrets.get(id(secret), ''))}"
                f" <code>{shown(secret.redacted)}</code> {fingerprint_cell(secret.fingerprint)}",
                linked(finding.container.label, rows.containers.get(place, "")),
                shown(finding.place),
                linked(finding.client, rows.readers.get(finding.client, "")),
            )
        )
    heads = ("time", "severity", "secret", "container", "where", "read by")
    return page_section("latest", html_table(heads, cells, "Latest findings"))


def live_section(live: Mapping[str, Any]) -> str:
    """What runs now: engine, log, open streams."""
    counters = live.get("counters")
    counters = counters if isinstance(counters, dict) else {}
    engine = "The engine answers."
    if not live.get("engine_up"):
        engine = "<b class='badge HIGH'>The engine does not answer.</b>"
    log = "The audit log is written."
    if counters.get("degraded"):
        log = "<b class='badge HIGH'>The audit log cannot be written.</b>"
    plain = [
        f"{safe(name).replace('_', ' ')} {value:,}"
        for name, value in counters.items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    streams = open_streams(live) or "<p>No stream is open.</p>"
    return page_section(
        "now", f"<p>{engine} {log}</p><p class=soft>{' · '.join(plain)}</p>{streams}"
    )


def open_streams(live: Mapping[str, Any]) -> str:
    """The table of the streams that are open now."""
    cells = []
    for stream in live.get("streams", ()):
        size, age = number_of(stream.get("bytes")), number_of(stream.get("seconds"))
        cells.append(
            (
                shown(stream.get("container")),
                shown(stream.get("endpoint")),
                shown(client_text(stream.get("client"))),
                sortable(size, size_text(size)),
                sortable(age, f"{age:,} s"),
            )
        )
    heads = ("container", "endpoint", "client", "n:read", "n:open for")
    return html_table(heads, cells[:PAGE_ROWS], "Open streams", len(cells))
