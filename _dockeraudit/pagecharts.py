"""Charts of the report's page: findings over time, and containers by patterns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from _dockeraudit.pageparts import badge, shown
from _dockeraudit.summary import AuditSummary
from _dockeraudit.text import SEVERITY_RANK, counted

BARS = 72  # bars of a chart: narrower ones cannot be told apart on a telephone
LEAST_BARS = 24  # hours drawn at least, so that a single bar does not fill the page
STEPS = (1, 3, 6, 12, 24, 168, 720)  # hours a bar may stand for
HEAT_ROWS, HEAT_COLUMNS = 15, 8


class TimeAxis(NamedTuple):
    """The bars of the charts: the hour of the first, the hours of each, how many there are."""

    first: int
    step: int
    width: int

    def bar_of(self, hour: int) -> int:
        """The bar in which an hour lies."""
        return (hour - self.first) // self.step

    def text(self, bar: int) -> str:
        """When a bar begins."""
        return hour_text(self.first + self.step * bar)


def time_axis(hours: Sequence[int]) -> TimeAxis:
    """An axis on which these hours have room, at most some BARS bars."""
    last = max(hours)
    first = min(min(hours), last - LEAST_BARS + 1)
    step = bar_hours(last - first + 1)
    return TimeAxis(first, step, (last - first) // step + 1)


def bar_hours(span: int) -> int:
    """How many hours a bar stands for."""
    return next((step for step in STEPS if span <= step * BARS), -(-span // BARS))


def hour_number(hour: str) -> int | None:
    """Hours since 1970; None for the 31st of February."""
    try:
        moment = datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return int(moment.timestamp()) // 3600


def numbered(hours: Mapping[str, Counter[str]]) -> Iterator[tuple[int, Counter[str]]]:
    """Counts by the number of their hour; hours that do not exist are left out."""
    for hour, counts in hours.items():
        number = hour_number(hour)
        if number is not None:
            yield number, counts


def hour_text(number: int) -> str:
    """The hour of a number."""
    return (datetime(1970, 1, 1) + timedelta(hours=number)).strftime("%Y-%m-%d %H:00")


def time_chart(summary: AuditSummary) -> str:
    """Findings over time: a chart for each severity, each on its own scale."""
    findings = list(numbered(summary.hours))
    numbers = (hour_number(hour) for hour in summary.loss_hours)
    gaps = {number for number in numbers if number is not None}
    if not findings:
        return ""
    axis = time_axis([number for number, _ in findings] + list(gaps))
    bars: dict[int, Counter[str]] = {}
    for number, counts in findings:
        bars.setdefault(axis.bar_of(number), Counter()).update(counts)
    missing = sorted({axis.bar_of(number) for number in gaps})
    charts = "".join(severity_chart(name, bars, missing, axis) for name in SEVERITY_RANK)
    marks = (0, axis.width // 2, axis.width - 1) if axis.width > 4 else (0,)
    times = "".join(f"<span>{axis.text(bar)}</span>" for bar in marks)
    legend = f"One bar for {counted(axis.step, 'hour')}, UTC; each severity has its own scale."
    if missing:
        legend += " <span class=swatch></span> Something was not recorded or not scanned."
    return (
        f"<figure>{charts}<div class=times>{times}</div><figcaption>{legend}</figcaption></figure>"
    )


def severity_chart(
    severity: str, bars: Mapping[int, Mapping[str, int]], gaps: Sequence[int], axis: TimeAxis
) -> str:
    """One severity's bars; where something is missing the ground is red."""
    counts = {bar: values.get(severity, 0) for bar, values in bars.items() if values.get(severity)}
    top = max(counts.values(), default=0)
    shapes = [
        f"<rect class=gap x={bar} y=0 width=1 height=100>"
        f"<title>{axis.text(bar)}: not all recorded or scanned</title></rect>"
        for bar in gaps
    ]
    for bar, count in sorted(counts.items()):
        height = max(2.0, 100.0 * count / top)
        shapes.append(
            f"<rect class=bar-{severity} x={bar + 0.1:.1f} y={100 - height:.1f} width=.8"
            f" height={height:.1f}><title>{axis.text(bar)}: {count:,} {severity}</title></rect>"
        )
    label = f"{severity}: {counted(sum(counts.values()), 'finding')}"
    label += f", at most {top:,} in {counted(axis.step, 'hour')}" if top else ""
    scale = (
        f"<div class=axis><span>{f'{top:,}' if top else ''}</span>"
        f"<span>{badge(severity)}</span><span>0</span></div>"
    )
    picture = (
        f"<svg viewBox='0 0 {axis.width} 100' preserveAspectRatio=none role=img"
        f" aria-label='{label}'>{''.join(shapes)}</svg>"
    )
    return f"<div class=chart>{scale}{picture}</div>\n"


def heat_table(summary: AuditSummary) -> str:
    """Findings by container and pattern, the more the redder."""
    containers = summary.worst_containers()
    totals: Counter[str] = Counter()
    for container in containers:
        totals.update(container.patterns)
    patterns = [pattern for pattern, _ in totals.most_common(HEAT_COLUMNS)]
    counts = [container.patterns[pattern] for container in containers for pattern in patterns]
    most = max(counts, default=0)
    rows = []
    for container in containers[:HEAT_ROWS]:
        cells = "".join(heat_cell(container.patterns[pattern], most) for pattern in patterns)
        name = f"<th scope=row>{shown(container.label)}</th>"
        rows.append(f"<tr>{name}{cells}<td class=n>{container.count:,}</td></tr>\n")
    if not rows:
        return ""
    heads = "".join(f"<th scope=col>{shown(pattern)}</th>" for pattern in patterns)
    head = f"<tr><th scope=col>container</th>{heads}<th scope=col class=n>all</th></tr>"
    left = len(containers) - HEAT_ROWS
    more = f"<p class=soft>and {counted(left, 'more container')}</p>" if left > 0 else ""
    return (
        "<p class='hint soft'>Wider than the screen: move it sideways, with the arrow keys too.</p>"
        "<div class=scroll tabindex=0 role=region aria-label='Findings by container and pattern'>"
        "<table class=heat><caption>Findings by container and pattern</caption>"
        f"<thead>{head}</thead><tbody>\n{''.join(rows)}</tbody></table></div>{more}"
    )


def heat_cell(count: int, most: int) -> str:
    """A count on its ground."""
    return f"<td style='--w:{shade(count, most):.2f}'>{count:,}</td>" if count else "<td></td>"


def shade(count: int, most: int) -> float:
    """How strong a cell's colour is: by the logarithm, so that a flood leaves others visible."""
    return 0.1 + 0.5 * (count.bit_length() / max(1, most.bit_length()))
