"""The report as text, as wide as the terminal, coloured on a terminal only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from _dockeraudit.summary import LOSSES, AuditSummary, secret_news
from _dockeraudit.tallies import (
    NO_CONTAINER,
    LeakingContainer,
    Reader,
    Refusal,
    Secret,
    Sighted,
    Tally,
)
from _dockeraudit.text import (
    SEVERITY_RANK,
    WIDTH,
    columns,
    counted,
    fit,
    fit_middle,
    pad,
    printable,
    shorten_ids,
    size_text,
)

COLOURS = {
    "HIGH": "31;1", "MEDIUM": "33", "LOW": "36", "loss": "31;1", "title": "1", "new": "32;1",
}  # fmt: skip
NAMES = 3  # containers or readers named in a line; --secret has them all
ROWS = 20  # rows of each table for people; --all and --json have them all
ALL_ROWS = 1_000  # rows where one secret was asked for
NAME_WIDTH = 27  # columns of a rule's or container's name where none needs more
ALIKE = 5  # secrets of one rule from which on they share an entry
LEAST_WIDTH = 60  # columns that a report takes however narrow the terminal is
SIGHTING_COLUMNS = 34  # of a sighting's row but for container, way and reader
LABEL_WIDTH = 20  # columns of a container's name in such a row, where the reader needs the room
INDENT = " " * 9


class Look(NamedTuple):
    """How the report is shown.

    `rows`: of each table; `grouped`: secrets of one rule share an entry where they are many;
    `new`: digests of what no earlier report has told, None where nothing is known of earlier ones.
    `name_width`: columns of the names in the table that is being written.
    """

    colour: bool = False
    width: int = WIDTH
    rows: int = ROWS
    grouped: bool = True
    new: frozenset[str] | None = None
    name_width: int = NAME_WIDTH

    def with_names(self, names: Iterable[str], others: int) -> Look:
        """A column of names as wide as the longest, if the other columns leave so much."""
        longest = max((columns(printable(name)) for name in names), default=0)
        room = max(12, self.width - others)
        return self._replace(name_width=min(room, max(NAME_WIDTH, longest)))

    def paint(self, text: str, kind: str) -> str:
        """The text in its colour."""
        if not self.colour or kind not in COLOURS:
            return text
        return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m"


PLAIN = Look()


def render_text(summary: AuditSummary, look: Look = PLAIN) -> str:
    """The report for a terminal; with --secret every container and reader of that one."""
    look = look._replace(width=max(look.width, LEAST_WIDTH))
    lines = [fit(period_text(summary) or "no records", look.width)]
    lines.append(fit(headline(summary), look.width))
    secrets = summary.worst_secrets()
    new = [secret for secret in secrets if is_new(secret, look)]
    if new and len(new) < len(secrets):
        lines += leaks("New since the last report", new, summary, look)
        lines += leaks(
            "Seen before, and again", [one for one in secrets if one not in new], summary, look
        )
    else:
        title = "What leaked" + (", all of it new" if new else "")
        lines += leaks(title, secrets, summary, look)
    if not summary.choice.secret:
        lines += other_tables(summary, look)
    lines += loss_lines(summary, look)
    if secrets and not summary.choice.secret:
        one = secrets[0].fingerprint or "FINGERPRINT"
        lines.append(f"More of one secret: dockeraudit report --secret {one}")
    return "\n".join(lines) + "\n"


def is_new(secret: Secret, look: Look) -> bool:
    """Whether no earlier report has told of the secret, or of one of its containers or readers."""
    if look.new is None:
        return False
    return any(secret_news(secret, seen) in look.new for seen in secret.sightings)


def period_text(summary: AuditSummary) -> str:
    """From when to when, and how many records; nothing where there are none."""
    if not summary.records:
        return ""
    records = counted(summary.records, "record")
    period = span_text(summary.first, summary.last)
    return f"{period} UTC, {records}" if period else records


def headline(summary: AuditSummary) -> str:
    """The report in one sentence."""
    total = sum(summary.findings.values())
    if not total:
        return "no findings" + chosen_text(summary)
    distinct = Counter(secret.severity for secret in summary.secrets.values())
    graded = ", ".join(f"{distinct[name]:,} {name}" for name in SEVERITY_RANK if distinct[name])
    where = counted(summary.leaking(), "container")
    secrets = counted(len(summary.secrets), "secret")
    return f"{secrets} ({graded}) in {where}, seen {counted(total, 'time')}{chosen_text(summary)}"


def chosen_text(summary: AuditSummary) -> str:
    """What the report was narrowed to."""
    choice = summary.choice
    severity = next((name for name, rank in SEVERITY_RANK.items() if rank == choice.least), "")
    parts = [
        f"of {choice.pattern}" if choice.pattern else "",
        f"in {choice.container}" if choice.container else "",
        f"of {severity} and above" if severity in ("MEDIUM", "LOW") else "",
        f"of {severity}" if severity == "HIGH" else "",
    ]
    text = " ".join(filter(None, parts))
    return f" {text}" if text else ""


def minute(timestamp: str) -> str:
    """A timestamp for people: to the minute."""
    return timestamp[:16].replace("T", " ")


def span_text(first: str, last: str) -> str:
    """From when to when, to the minute; one time where both are the same."""
    begin, end = minute(first), minute(last)
    return begin if begin == end else f"{begin} to {end}"


# -- secrets


def leaks(title: str, secrets: Sequence[Secret], summary: AuditSummary, look: Look) -> list[str]:
    """A titled list of secrets; many of one rule share an entry."""
    entries = grouped(secrets) if look.grouped and not summary.choice.secret else each(secrets)
    if not entries:
        return []
    look = look.with_names((entry[0].pattern for entry in entries[: look.rows]), 53)
    kind = "new" if title.startswith("New") else "title"
    lines = ["", look.paint(title, kind)]
    for entry in entries[: look.rows]:
        if len(entry) == 1:
            lines += secret_lines(entry[0], summary, look)
        else:
            lines += group_lines(entry, summary, look)
    left = sum(map(len, entries[look.rows :]))
    if left:
        lines.append(f"  and {counted(left, 'more secret')}; --all shows them")
    return lines


def each(secrets: Sequence[Secret]) -> list[list[Secret]]:
    """Every secret on its own."""
    return [[secret] for secret in secrets]


def grouped(secrets: Sequence[Secret]) -> list[list[Secret]]:
    """Secrets of one rule and severity together where they are many, else each on its own."""
    alike: dict[tuple[str, str], list[Secret]] = {}
    for secret in secrets:
        alike.setdefault((secret.severity, secret.rule), []).append(secret)
    entries: list[list[Secret]] = []
    for group in alike.values():
        entries += [group] if len(group) >= ALIKE else each(group)
    return sorted(
        entries,
        key=lambda entry: (
            -SEVERITY_RANK.get(entry[0].severity, 0),
            -sum(secret.count for secret in entry),
        ),
    )


def secret_lines(secret: Secret, summary: AuditSummary, look: Look) -> list[str]:
    """A distinct secret: what, how often, when, where, and who saw it."""
    head = secret_head(secret, look)
    times = span_text(secret.first, secret.last)
    lines = [head, *wrapped_parts([times, *secret_remarks(secret)], look.width, ";")]
    if summary.choice.secret:
        return lines + sighting_lines(secret, summary, look)
    return lines + where_lines([secret], summary, look.width)


def secret_remarks(secret: Secret) -> list[str]:
    """What is particular about a secret."""
    remarks = ["a placeholder, no secret"] if secret.placeholder else []
    return remarks + ([f"its variable {secret.env}"] if secret.env else [])


def secret_head(secret: Secret, look: Look) -> str:
    """The line that begins a secret's entry."""
    pattern = pad(secret.pattern, look.name_width)
    head = f"  {fit(secret.severity, 6):6} {pattern} {pad(secret.redacted, 9)}"
    head += f" {secret.count:>8,} x  "
    return look.paint(head, secret.severity) + fit(secret.fingerprint or "end not seen", 17)


def group_lines(secrets: Sequence[Secret], summary: AuditSummary, look: Look) -> list[str]:
    """Many secrets of one rule in one entry."""
    first = secrets[0]
    total = sum(secret.count for secret in secrets)
    head = f"  {fit(first.severity, 6):6} {pad(first.pattern, look.name_width)}"
    head += f" {counted(len(secrets), 'secret'):>15} {total:>11,} x"
    begin, end = min(secret.first for secret in secrets), max(secret.last for secret in secrets)
    lines = [look.paint(fit(head, look.width), first.severity)]
    lines.append(fit(INDENT + span_text(begin, end), look.width))
    lines += where_lines(secrets, summary, look.width)
    lines.append(fit(f"{INDENT}each of them: --pattern {first.rule} --all", look.width))
    return lines


def where_lines(secrets: Sequence[Secret], summary: AuditSummary, width: int) -> list[str]:
    """In which containers some secrets are, in which answers, and who read them."""
    inside: Counter[str] = Counter()
    clients: Counter[str] = Counter()
    for secret in secrets:
        inside.update(secret.by_container())
        clients.update(secret.by_client())
    names = [summary.label_of(container) for container, _ in inside.most_common(NAMES)]
    lines = [named_line("in", names, len(inside), width)]
    lines += wrapped_parts(ways_parts(secrets), width)
    if not clients:
        return [*lines, f"{INDENT}read by nobody: everybody got asterisks"]
    readers = [client for client, _ in clients.most_common(NAMES)]
    return [*lines, named_line("read by", readers, len(clients), width)]


def ways_parts(secrets: Iterable[Secret]) -> list[str]:
    """How often some secrets were in a log, and in which answers of the engine to how many readers.

    Nothing where all of it was in a log, as it mostly is, and reached its readers unmasked.
    """
    counts: Counter[tuple[bool, str, bool]] = Counter()
    clients: dict[tuple[bool, str, bool], set[str]] = {}
    for secret in secrets:
        for seen, tally in secret.sightings.items():
            way = (seen.where != "output", seen.where, seen.masked)
            counts[way] += tally.count
            clients.setdefault(way, set()).add(seen.client)
    parts = []
    for answer, where, masked in sorted(counts):
        part = f"in {where if answer else 'its log'} {counts[answer, where, masked]:,} x"
        readers = counted(len(clients[answer, where, masked]), "reader")
        part += " as asterisks" if masked else ""
        parts.append(part + (f" to {readers}" if answer or masked else ""))
    return parts if set(counts) - {(False, "output", False)} else []


def wrapped_parts(parts: Sequence[str], width: int, mark: str = ",") -> list[str]:
    """The parts of an enumeration in as many lines as they take; no part is cut that fits in one.

    Columns: the indent stands before each line.
    """
    lines: list[str] = []
    for number, part in enumerate(parts, 1):
        text = printable(part) + (mark if number < len(parts) else "")
        if lines and columns(f"{lines[-1]} {text}") <= width:
            lines[-1] += f" {text}"
        else:
            lines.append(fit(INDENT + text, width))
    return lines


def sighting_lines(secret: Secret, summary: AuditSummary, look: Look) -> list[str]:
    """Every way in which one secret was seen; the reader on a line of its own where need be."""
    known = sorted(secret.sightings.items(), key=lambda item: (-item[1].count, item[0]))
    known = known[: max(look.rows, ALL_ROWS)]
    ways = ["in", *(way_text(seen) for seen, _ in known)]
    with_ways = any(way not in ("in", "its log") for way in ways)
    way_width = max(map(columns, ways)) + 2 if with_ways else 0
    labels = ["container", *(summary.label_of(seen.container) for seen, _ in known)]
    widest = max(columns(printable(label)) for label in labels)
    readers = max(columns(printable(seen.client)) for seen, _ in known)
    room = look.width - SIGHTING_COLUMNS - way_width - readers
    beside = room >= min(widest, LABEL_WIDTH)
    label_width = min(widest, room if beside else room + readers + 2)

    def row(begin: str, label: str, way: str, reader: str) -> list[str]:
        head = f"{begin}  {pad(label, label_width)}  " + (pad(way, way_width) if with_ways else "")
        if beside:
            return [fit(head + reader, look.width)]
        return [fit(head.rstrip(), look.width), fit(f"{INDENT}     read by {reader}", look.width)]

    lines = row(f"{'times':>12}  last seen       ", "container", "in", "read by")[:1]
    for seen, tally in known:
        begin = f"{tally.count:>10,} x  {minute(tally.last)}"
        label = summary.label_of(seen.container)
        lines += row(begin, label, way_text(seen), seen.client)
    left = len(secret.sightings) - len(known)
    return lines + ([f"             and {left:,} more; --all shows them"] if left else [])


def way_text(seen: Sighted) -> str:
    """Where a secret was seen: in the container's log, or in which answer of the engine."""
    where = "its log" if seen.where == "output" else seen.where
    return where + (", masked" if seen.masked else "")


def named_line(what: str, names: Sequence[str], total: int, width: int = WIDTH) -> str:
    """As many names as find room in a line, at least one, and how many more there are."""
    line, named = f"{INDENT}{what} ", 0
    for name in names:
        room = width - columns(line) - len(f",  and {total} more")
        text = fit(name, max(room, 12))
        if named and (room < 12 or text != printable(name)):
            break
        line += (", " if named else "") + text
        named += 1
    return fit(line + (f" and {total - named:,} more" if total > named else ""), width)


# -- tables


def other_tables(summary: AuditSummary, look: Look) -> list[str]:
    """Containers, readers and refused requests."""
    who = "Who saw these findings" if summary.choice.of_findings else "Who read these streams"
    containers = summary.worst_containers()
    named = look.with_names((one.label for one in containers[: look.rows]), 50)
    lines = table(
        look.paint("Which containers leak most", "title"),
        [container_line(container, named) for container in containers],
        look,
    )
    lines += table(
        look.paint(who, "title"), [reader_line(reader) for reader in summary.all_readers()], look
    )
    for only_learned, title in (
        (False, "Refused requests"),
        (True, "Requests that learn mode let through, and a rule would refuse"),
    ):
        rows = [
            refusal_line(refusal, tally, look.width)
            for refusal, tally in summary.refusals(only_learned)
        ]
        lines += table(look.paint(title, "title"), rows, look)
    return lines


def table(title: str, rows: Iterable[str], look: Look = PLAIN) -> list[str]:
    """A titled table, or nothing."""
    rows = list(rows)
    if not rows:
        return []
    lines = ["", title, *(fit(row, look.width) for row in rows[: look.rows])]
    if len(rows) > look.rows:
        lines.append(f"             and {len(rows) - look.rows:,} more; --all shows them")
    return lines


def container_line(container: LeakingContainer, look: Look) -> str:
    """A container with its findings."""
    graded = ", ".join(
        f"{container.severities[name]:,} {name}"
        for name in SEVERITY_RANK
        if container.severities[name]
    )
    return f"{container.count:>11,}  {pad(container.label, look.name_width)}  {graded}"


def reader_line(reader: Reader) -> str:
    """A reader with how much it read."""
    unfinished = f", {reader.unfinished:,} open" if reader.unfinished else ""
    streams, findings = counted(reader.streams, "stream"), counted(reader.count, "finding")
    who = f"{reader.client}{unfinished}"
    return f"{size_text(reader.bytes):>11}  {streams:>13}  {findings:>16}  {who}"


def refusal_line(refusal: Refusal, tally: Tally, width: int = WIDTH) -> str:
    """A refused request; a long path is cut so that method and rule stay."""
    begin = f"{tally.count:>11,}  {fit(refusal.client, 30)}: "
    end = f", rule {fit(refusal.rule, 24)}"
    room = max(12, width - columns(begin) - columns(end))
    return begin + fit_middle(shorten_ids(refusal.request), room) + end


def loss_lines(summary: AuditSummary, look: Look) -> list[str]:
    """What was not recorded or not scanned; or that nothing is known to be missing."""
    rows = [
        f"{summary.losses[what]:>11,}  {loss_text(summary, what)}"
        for what in LOSSES
        if summary.losses[what]
    ]
    lines = table(look.paint("Not recorded or not scanned", "loss"), rows, look)
    if not rows and summary.records:
        lines += ["", "Everything was scanned and recorded, as far as these records tell."]
    if summary.known:
        lines.append(
            f"Left out: {counted(summary.known, 'finding')} of known secrets (--baseline)."
        )
    if summary.placeholders and not summary.choice.placeholders:
        left_out = counted(summary.placeholders, "finding")
        lines.append(f"Left out: {left_out} of placeholders; --placeholders shows them.")
    return lines


def loss_text(summary: AuditSummary, what: str) -> str:
    """A loss in words; of findings that were only counted, how many of each severity."""
    counts = summary.suppressed
    graded = ", ".join(f"{counts[name]:,} {name}" for name in SEVERITY_RANK if counts[name])
    if what == "findings_suppressed" and graded:
        return f"findings beyond their container's budget: {graded}"
    return LOSSES[what]


# -- one table by rule, container or reader


class Row(NamedTuple):
    """What a table by rule, container or reader counts for one of them."""

    secrets: set[int]
    containers: set[str]
    clients: set[str]
    severities: Counter[str]


def table_by(kind: str, summary: AuditSummary, look: Look = PLAIN) -> str:
    """The report as one table by `rule`, `container` or `reader`, the worst first."""
    rows: dict[str, Row] = {}
    for secret in summary.secrets.values():
        for seen, tally in secret.sightings.items():
            name = row_key(kind, secret, summary.label_of(seen.container), seen.client)
            row = rows.setdefault(name, Row(set(), set(), set(), Counter()))
            row.secrets.add(id(secret))
            row.containers.update({seen.container} - {NO_CONTAINER})
            row.clients.add(seen.client)
            row.severities[secret.severity] += tally.count
    worst = sorted(
        rows.items(),
        key=lambda item: ([-item[1].severities[name] for name in SEVERITY_RANK], item[0]),
    )
    shown = worst[: look.rows]
    titles = ["secrets", "containers", "readers", *SEVERITY_RANK]
    numbers = [titles, *(row_numbers(row) for _, row in shown)]
    widths = [max(map(len, column)) + 2 for column in zip(*numbers)]
    longest = max((columns(printable(name)) for name, _ in shown), default=0)
    room = min(max(12, look.width - sum(widths)), max(NAME_WIDTH, longest))
    lines = [fit(period_text(summary) or "no records", look.width), headline(summary), ""]
    for name, cells in zip((kind, *(name for name, _ in shown)), numbers):
        text = pad(name, room) + "".join(map(str.rjust, cells, widths))
        lines.append(text.rstrip() if cells is not titles else look.paint(text, "title"))
    if len(worst) > look.rows:
        lines.append(f"and {len(worst) - look.rows:,} more; --all shows them")
    return "\n".join([*lines, *loss_lines(summary, look)]) + "\n"


def row_key(kind: str, secret: Secret, container: str, client: str) -> str:
    """What a secret is counted under in a table of this kind."""
    return {"rule": secret.pattern, "container": container, "reader": client}[kind]


def row_numbers(row: Row) -> list[str]:
    """The numbers of a row; a severity without findings is empty."""
    distinct = [f"{len(some):,}" for some in (row.secrets, row.containers, row.clients)]
    graded = (row.severities[name] for name in SEVERITY_RANK)
    return distinct + [f"{count:,}" if count else "" for count in graded]
