"""The report as one self-contained HTML page."""

from __future__ import annotations

import html as markup
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from _dockeraudit.summary import LOSSES, AuditSummary, client_text, number_of, text_of
from _dockeraudit.terminal import headline, period_text
from _dockeraudit.text import SEVERITY_RANK, counted, printable, size_text

PAGE_ROWS = 200  # rows of each table of the page
PAGE_NAMES = 8  # containers or readers named in a cell
PAGE_TEXT = 96  # characters of a name that are shown
PAGE_TITLE = 1000  # and that its title has
BARS = 72  # bars of a chart: narrower ones cannot be told apart on a telephone
LEAST_BARS = 24  # hours before the last one that are drawn at least, so that a single bar does not fill the page
STEPS = (1, 3, 6, 12, 24, 168, 720)  # hours a bar may stand for
HEAT_ROWS, HEAT_COLUMNS = 15, 8
PAGE_TAIL = (
    4 << 20
)  # bytes of the audit log's end that the live page reads; more is the report's work
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d5dae0;
--high:#b3122b;--medium:#8f5200;--low:#0b62a8;--high-bar:#d1344b;--medium-bar:#dd9a2b;--low-bar:#5aa1dd;--heat:179,18,43}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#9aa5b1;--paper:#0f1318;--card:#181e25;--line:#303842;
--high:#ff8b98;--medium:#f2b55c;--low:#84c3ff;--high-bar:#e0566a;--medium-bar:#c98a2a;--low-bar:#3f86c4;--heat:240,90,110}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:76rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.5rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.125rem;margin:2.25rem 0 .6rem}
p{margin:.25rem 0}
.soft,footer,caption,figcaption{color:var(--soft);font-size:.875rem}
a{color:var(--low)}
nav{margin:.75rem 0 0;display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.9375rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0 0;padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--line);border-radius:.375rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.6rem;line-height:1.2;font-variant-numeric:tabular-nums;font-weight:650}
.tiles .HIGH{border-top-color:var(--high-bar)}.tiles .MEDIUM{border-top-color:var(--medium-bar)}.tiles .LOW{border-top-color:var(--low-bar)}
.alert{border:1px solid var(--high);border-left-width:.4rem;border-radius:.375rem;padding:.7rem 1rem;margin-top:1.5rem}
.alert h2{margin:0 0 .3rem;color:var(--high)}
.alert ul{margin:0;padding-left:1.2rem}
.calm{border:1px solid var(--line);border-radius:.375rem;padding:.6rem 1rem;margin-top:1.5rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
thead th{font-size:.8125rem;color:var(--soft);font-weight:600;white-space:nowrap;overflow-wrap:normal}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n,td.n{padding-right:1.25rem}
caption{text-align:left}
.t{display:inline-block;max-width:100%;font-variant-numeric:tabular-nums}
.whole{white-space:nowrap}
code{font:.875rem ui-monospace,"SFMono-Regular","DejaVu Sans Mono",Consolas,monospace}
.names{margin:0;padding:0;list-style:none}
.names bdi,td bdi{unicode-bidi:isolate}
.badge{display:inline-block;white-space:nowrap;font-size:.75rem;font-weight:700;letter-spacing:.03em;border:1px solid;border-radius:.25rem;padding:0 .35rem}
.HIGH .badge,.badge.HIGH{color:var(--high)}.badge.MEDIUM{color:var(--medium)}.badge.LOW{color:var(--low)}
figure{margin:0}
.chart{display:grid;grid-template-columns:4.5rem 1fr;gap:0 .6rem;align-items:stretch;margin-bottom:.5rem}
.chart .axis{display:flex;flex-direction:column;justify-content:space-between;text-align:right;font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.chart svg{display:block;width:100%;height:3.75rem;border-bottom:1px solid var(--soft);background:var(--card)}
.times{display:flex;justify-content:space-between;margin-left:5.1rem;font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.bar-HIGH{fill:var(--high-bar)}.bar-MEDIUM{fill:var(--medium-bar)}.bar-LOW{fill:var(--low-bar)}
.gap{fill:var(--high);opacity:.28}
.swatch{display:inline-block;width:.9em;height:.9em;background:var(--high);opacity:.4;vertical-align:-.1em}
.heat{width:auto}
.heat thead th{vertical-align:bottom;white-space:normal;max-width:8rem;min-width:4.5rem;padding-right:.5rem}
.heat td{background:rgba(var(--heat),var(--w,0));text-align:right;padding:.4rem .6rem;font-variant-numeric:tabular-nums;border:1px solid var(--paper)}
.heat tbody th{font-weight:400;min-width:8rem;max-width:20rem}
footer{margin-top:2.5rem;padding-top:.75rem;padding-bottom:2rem}
a:focus-visible,.scroll:focus-visible{outline:2px solid var(--low);outline-offset:2px}
@media(max-width:45rem){
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards,.cards tbody,.cards tr{display:block}
.cards tr{border:1px solid var(--line);border-radius:.375rem;padding:.4rem .8rem;margin-bottom:.75rem;background:var(--card)}
.cards td,.cards td.n{display:grid;grid-template-columns:5.5rem minmax(0,1fr);gap:.5rem;border:0;padding:.15rem 0;text-align:left;white-space:normal}
.chart{grid-template-columns:4.2rem 1fr}.times{margin-left:4.8rem}.times span:nth-child(2):not(:last-child){display:none}
.cards td::before{content:attr(data-label);color:var(--soft);font-size:.8125rem}
}
@media print{
:root{--ink:#000;--soft:#444;--paper:#fff;--card:#fff;--line:#bbb;--high:#a00d22;--medium:#7a4600;--low:#0a4f88;--heat:179,18,43}
body{font-size:10pt}main,header,footer{max-width:none;padding:0}nav{display:none}.scroll{overflow:visible}
h2{break-after:avoid}tr,figure,.tiles,.alert{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""


def render_html(
    summary: AuditSummary, *, title: str, live: Mapping[str, Any] | None = None, made: str = ""
) -> str:
    """One page without script or network: the summary, and what runs now if `live` is given. `made`: when, for the foot."""
    sections = [
        live_section(live) if live else "",
        losses_section(summary),
        recent_section(summary) if live else "",
        hours_section(summary),
        secrets_section(summary),
        heat_section(summary),
        readers_section(summary),
        refusals_section(summary),
    ]
    present = [
        name
        for name in PAGE_SECTIONS
        if any(text.startswith(f"<section id={name} ") for text in sections)
    ]
    links = "".join(f"<a href='#{name}'>{PAGE_SECTIONS[name][0]}</a>" for name in present)
    reload = "<a href=''>Reload</a>" if live else ""
    return "".join(
        (
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>",
            f'<meta http-equiv=Content-Security-Policy content="{PAGE_POLICY}"><meta name=referrer content=no-referrer>',
            f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n<body><header><h1>{safe(title)}</h1>",
            f"<p>{safe(headline(summary))}</p><p class=soft>{safe(period_text(summary) or 'no records')}</p>",
            f"<nav aria-label='Sections'>{links}{reload}</nav>{tiles(summary)}</header>\n<main>",
            "\n".join(filter(None, sections)),
            f"</main>\n<footer>{safe(made)}</footer></body></html>\n",
        )
    )


#: Nothing is loaded and nothing runs, even if a text were not escaped.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Sections: the link's text, and the heading.
PAGE_SECTIONS = {
    "now": ("What runs now", "What runs now"),
    "losses": ("Losses", "Not recorded or not scanned"),
    "latest": ("Latest", "Latest findings"),
    "time": ("Over time", "Findings over time"),
    "secrets": ("Secrets", "What leaked"),
    "containers": ("Containers", "Containers and patterns"),
    "readers": ("Readers", "Who read these streams"),
    "refused": ("Refused", "Refused requests"),
}


def safe(value: Any) -> str:
    """Text for HTML: escaped, control characters shown."""
    return markup.escape(printable(text_of(value)), quote=True)


def shown(value: Any) -> str:
    """A text from a record: isolated from its neighbours' direction, a long one shortened with more of it in the title."""
    text = text_of(value)
    if len(text) <= PAGE_TEXT:
        return f"<bdi>{safe(text)}</bdi>"
    return f"<bdi title='{safe(text[:PAGE_TITLE])}'>{safe(text[:PAGE_TEXT])}…</bdi>"


def names_list(names: Sequence[str], total: int) -> str:
    """Names one below the other, and how many more there are."""
    items = "".join(f"<li>{shown(name)}</li>" for name in names)
    more = f"<li class=soft>and {total - len(names):,} more</li>" if total > len(names) else ""
    return f"<ul class=names>{items}{more}</ul>"


def time_cell(timestamp: str, size: int = 16) -> str:
    """A time in UTC, to the minute; date and time may stand one below the other, but neither is broken."""
    if not re.fullmatch(r"[\dT:.Z-]{1,32}", timestamp):
        return shown(timestamp[:size])
    day, _, clock = timestamp[:size].partition("T")
    return f"<span class=t>{day}</span> <span class=t>{clock}</span>"


def fingerprint_cell(fingerprint: str) -> str:
    """A fingerprint, unbroken, so that it can be copied."""
    if re.fullmatch("[0-9a-f]{16}", fingerprint):
        return f"<code class='soft whole'>{fingerprint}</code>"
    return f"<code class=soft>{shown(fingerprint or 'end not seen')}</code>"


def badge(severity: str) -> str:
    """A severity, in words and colour."""
    return (
        f"<span class='badge {severity}'>{severity}</span>"
        if severity in SEVERITY_RANK
        else shown(severity)
    )


def tiles(summary: AuditSummary) -> str:
    """The key figures."""
    distinct = Counter(secret.severity for secret in summary.secrets.values())
    counts = [
        (
            name,
            distinct[name],
            f"{name} secrets<br><span class=soft>seen {summary.findings[name]:,} times</span>",
        )
        for name in SEVERITY_RANK
    ]
    readers = len(summary.all_readers())
    counts += [
        ("", len(summary.places), "containers that leak"),
        ("", readers, "reader" if readers == 1 else "readers"),
    ]
    return (
        "<ul class=tiles>"
        + "".join(f"<li class='{kind}'><b>{count:,}</b>{text}</li>" for kind, count, text in counts)
        + "</ul>"
    )


def page_section(name: str, content: str, note: str = "", kind: str = "") -> str:
    """A section with its heading, or nothing."""
    if not content:
        return ""
    note = f"<p class=soft>{note}</p>" if note else ""
    kind = f" class={kind}" if kind else ""
    return f"<section id={name}{kind} aria-labelledby={name}-title><h2 id={name}-title>{PAGE_SECTIONS[name][1]}</h2>{note}{content}</section>"


def html_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], label: str, total: int = 0
) -> str:
    """A table that becomes cards on a narrow screen. A head may begin with its column's class: `n:times`.

    Roles are spelt out, since a browser drops them from a table that is shown as cards.
    """
    if not rows:
        return ""
    split = [head.rpartition(":")[::2] for head in heads]
    head = "".join(
        f"<th scope=col role=columnheader{f' class={kind}' if kind else ''}>{name}</th>"
        for kind, name in split
    )
    cells = [
        f"<td role=cell{f' class={kind}' if kind else ''} data-label='{name}'><div>"
        for kind, name in split
    ]
    body = "".join(
        "<tr role=row>"
        + "".join(f"{begin}{cell}</div></td>" for begin, cell in zip(cells, row))
        + "</tr>\n"
        for row in rows
    )
    more = (
        f"<p class=soft>and {total - len(rows):,} more; <code>report --json</code> has them all</p>"
        if total > len(rows)
        else ""
    )
    return (
        f"<table class=cards role=table aria-label='{label}'><thead role=rowgroup><tr role=row>{head}</tr></thead>"
        f"<tbody role=rowgroup>\n{body}</tbody></table>{more}"
    )


def losses_section(summary: AuditSummary) -> str:
    """What was not recorded or not scanned, in red; or that nothing is known to be missing."""
    losses = [
        f"<li><b>{summary.losses[what]:,}</b> {text}</li>"
        for what, text in LOSSES.items()
        if summary.losses[what]
    ]
    if not losses:
        return (
            "<p class=calm>Everything was scanned and recorded, as far as these records tell.</p>"
        )
    return page_section("losses", f"<ul>{''.join(losses)}</ul>", kind="alert")


def secrets_section(summary: AuditSummary) -> str:
    """The table of distinct secrets."""
    secrets = summary.worst_secrets()
    rows = []
    for secret in secrets[:PAGE_ROWS]:
        places, readers = secret.by(0), secret.by(1)
        rows.append(
            (
                badge(secret.severity),
                f"{shown(secret.pattern)}<br><code>{shown(secret.redacted)}</code> {fingerprint_cell(secret.fingerprint)}",
                f"{secret.count:,}",
                names_list(
                    [
                        summary.label_of(container)
                        for container, _ in places.most_common(PAGE_NAMES)
                    ],
                    len(places),
                ),
                names_list([client for client, _ in readers.most_common(PAGE_NAMES)], len(readers)),
                time_cell(secret.first),
                time_cell(secret.last),
            )
        )
    heads = ("severity", "secret", "n:times", "containers", "read by", "first seen", "last seen")
    note = "One row for each credential, with its fingerprint: the same fingerprint is the same credential everywhere."
    return page_section("secrets", html_table(heads, rows, "Distinct secrets", len(secrets)), note)


def readers_section(summary: AuditSummary) -> str:
    """Who read, and how much."""
    readers = summary.all_readers()
    rows = []
    for reader in readers[:PAGE_ROWS]:
        streams = f"{reader.streams:,}" + (
            f" ({reader.unfinished} open)" if reader.unfinished else ""
        )
        rows.append(
            (
                shown(reader.client),
                streams,
                size_text(reader.bytes),
                f"{len(reader.containers):,}",
                f"{reader.count:,}",
                time_cell(reader.last),
            )
        )
    return page_section(
        "readers",
        html_table(
            ("client", "n:streams", "n:read", "n:containers", "n:findings", "last"),
            rows,
            "Readers",
            len(readers),
        ),
    )


def refusals_section(summary: AuditSummary) -> str:
    """Refused requests."""
    refusals = summary.refusals()
    rows = [
        (
            f"{tally.count:,}",
            f"{shown(method)} {shown(path)}",
            shown(rule) + ("" if event == "denied" else " (only learned)"),
            shown(client),
            time_cell(tally.last),
        )
        for (event, method, path, rule, client), tally in refusals[:PAGE_ROWS]
    ]
    return page_section(
        "refused",
        html_table(
            ("n:times", "request", "rule", "client", "last"),
            rows,
            "Refused requests",
            len(refusals),
        ),
    )


def recent_section(summary: AuditSummary) -> str:
    """The latest findings."""
    latest = sorted(summary.recent, key=lambda item: item[0], reverse=True)
    rows = [
        (
            time_cell(timestamp, 19),
            badge(secret.severity),
            f"{shown(secret.pattern)} <code>{shown(secret.redacted)}</code>",
            shown(place.label),
            shown(client),
        )
        for timestamp, secret, place, client in latest
    ]
    return page_section(
        "latest",
        html_table(("time", "severity", "secret", "container", "read by"), rows, "Latest findings"),
    )


def heat_section(summary: AuditSummary) -> str:
    """Containers × patterns, the more the redder."""
    places = summary.worst_places()
    totals: Counter[str] = Counter()
    for place in places:
        totals.update(place.patterns)
    patterns = [pattern for pattern, _ in totals.most_common(HEAT_COLUMNS)]
    most = max((place.patterns[pattern] for place in places for pattern in patterns), default=0)
    rows = []
    for place in places[:HEAT_ROWS]:
        cells = (place.patterns[pattern] for pattern in patterns)
        shades = "".join(
            f"<td style='--w:{shade(count, most):.2f}'>{count:,}</td>" if count else "<td></td>"
            for count in cells
        )
        rows.append(
            f"<tr><th scope=row>{shown(place.label)}</th>{shades}<td class=n>{place.count:,}</td></tr>\n"
        )
    if not rows:
        return ""
    head = "".join(f"<th scope=col>{shown(pattern)}</th>" for pattern in patterns)
    more = (
        f"<p class=soft>and {len(places) - HEAT_ROWS:,} more containers</p>"
        if len(places) > HEAT_ROWS
        else ""
    )
    head = (
        f"<thead><tr><th scope=col>container</th>{head}<th scope=col class=n>all</th></tr></thead>"
    )
    body = f"<table class=heat><caption>Findings by container and pattern</caption>{head}<tbody>\n{''.join(rows)}</tbody></table>"
    return page_section(
        "containers",
        f"<div class=scroll tabindex=0 role=region aria-labelledby=containers-title>{body}</div>{more}",
    )


def shade(count: int, most: int) -> float:
    """How strong a cell's colour is: by the logarithm, so that one flood does not make all others pale."""
    return 0.1 + 0.5 * (count.bit_length() / max(1, most.bit_length()))


def hours_section(summary: AuditSummary) -> str:
    """Findings over time, a chart for each severity on its own scale, and the same as a table for who cannot see it."""
    hours = {hour_number(hour): counts for hour, counts in summary.hours.items()}
    gaps = {hour_number(hour) for hour in summary.loss_hours}
    hours.pop(None, None)
    gaps.discard(None)
    if not hours:
        return ""
    known = sorted(number for number in {*hours, *gaps} if number is not None)
    first = min(known[0], known[-1] - LEAST_BARS + 1)
    step = bar_hours(known[-1] - first + 1)
    bars: dict[int, Counter[str]] = {}
    for number, counts in hours.items():
        bars.setdefault((number - first) // step, Counter()).update(counts)
    missing = sorted({(number - first) // step for number in gaps})
    width = (known[-1] - first) // step + 1
    charts = "".join(
        severity_chart(severity, bars, missing, width, first, step) for severity in SEVERITY_RANK
    )
    times = "".join(
        f"<span>{hour_text(first + step * place)}</span>"
        for place in ((0, width // 2, width - 1) if width > 4 else (0,))
    )
    legend = f"One bar for {counted(step, 'hour')}, UTC; each severity has its own scale."
    legend += (
        " <span class=swatch></span> Something was not recorded or not scanned." if missing else ""
    )
    return page_section(
        "time",
        f"<figure>{charts}<div class=times>{times}</div><figcaption>{legend}</figcaption></figure>",
    )


def bar_hours(span: int) -> int:
    """How many hours a bar stands for."""
    return next((step for step in STEPS if span <= step * BARS), -(-span // BARS))


def hour_number(hour: str) -> int | None:
    """Hours since 1970; None for the 31st of February."""
    try:
        return (
            int(datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=timezone.utc).timestamp())
            // 3600
        )
    except ValueError:
        return None


def hour_text(number: int) -> str:
    """The hour of a number."""
    return (datetime(1970, 1, 1) + timedelta(hours=number)).strftime("%Y-%m-%d %H:00")


def severity_chart(
    severity: str,
    bars: Mapping[int, Mapping[str, int]],
    gaps: Sequence[int],
    width: int,
    first: int,
    step: int,
) -> str:
    """One severity's bars; where something is missing the ground is red."""
    counts = {place: bar.get(severity, 0) for place, bar in bars.items() if bar.get(severity)}
    top = max(counts.values(), default=0)
    shapes = []
    for place in gaps:
        when = hour_text(first + step * place)
        shapes.append(
            f"<rect class=gap x={place} y=0 width=1 height=100><title>{when}: not all recorded or scanned</title></rect>"
        )
    for place, count in sorted(counts.items()):
        height = max(2.0, 100.0 * count / top)
        shapes.append(
            f"<rect class=bar-{severity} x={place + 0.1:.1f} y={100 - height:.1f} width=.8 height={height:.1f}>"
            f"<title>{hour_text(first + step * place)}: {count:,} {severity}</title></rect>"
        )
    label = f"{severity}: {sum(counts.values()):,} findings" + (
        f", at most {top:,} in {counted(step, 'hour')}" if top else ""
    )
    axis = f"<div class=axis><span>{f'{top:,}' if top else ''}</span><span>{badge(severity)}</span><span>0</span></div>"
    return f"<div class=chart>{axis}<svg viewBox='0 0 {width} 100' preserveAspectRatio=none role=img aria-label='{label}'>{''.join(shapes)}</svg></div>\n"


def live_section(live: Mapping[str, Any]) -> str:
    """What runs now: engine, log, open streams."""
    counters = live.get("counters")
    counters = counters if isinstance(counters, dict) else {}
    engine = (
        "The engine answers."
        if live.get("engine_up")
        else "<b class='badge HIGH'>The engine does not answer.</b>"
    )
    log = (
        "<b class='badge HIGH'>The audit log cannot be written.</b>"
        if counters.get("degraded")
        else "The audit log is written."
    )
    rows = []
    for stream in live.get("streams", ()):
        read, age = (
            size_text(number_of(stream.get("bytes"))),
            f"{number_of(stream.get('seconds')):,} s",
        )
        rows.append(
            (
                shown(stream.get("container")),
                shown(stream.get("endpoint")),
                shown(client_text(stream.get("client"))),
                read,
                age,
            )
        )
    streams = (
        html_table(
            ("container", "endpoint", "client", "n:read", "n:open for"),
            rows[:PAGE_ROWS],
            "Open streams",
            len(rows),
        )
        or "<p>No stream is open.</p>"
    )
    plain = [
        f"{safe(name).replace('_', ' ')} {value:,}"
        for name, value in counters.items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    return page_section(
        "now", f"<p>{engine} {log}</p><p class=soft>{' · '.join(plain)}</p>{streams}"
    )
