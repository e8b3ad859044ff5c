"""Parts of the report's page: escaped text, cells, tables, sections."""

from __future__ import annotations

import html as markup
import re
from collections.abc import Mapping, Sequence
from typing import Any

from _dockeraudit.logrecords import text_of
from _dockeraudit.text import SEVERITY_RANK, counted, printable

PAGE_TEXT = 96  # characters of a name that are shown
NAMES_SHOWN = 3  # names of a list that are not folded
PAGE_TITLE = 1000  # and that its title has

#: Sections of the page: the link's text, and the heading.
PAGE_SECTIONS = {
    "now": ("What runs now", "What runs now"),
    "losses": ("Losses", "Not recorded or not scanned"),
    "latest": ("Latest", "Latest findings"),
    "time": ("Over time", "Findings over time"),
    "secrets": ("Secrets", "What leaked"),
    "containers": ("Containers", "Which containers leak"),
    "readers": ("Readers", "Who read these streams"),
    "refused": ("Refused", "Refused requests"),
    "learned": ("Learn mode", "Requests that learn mode let through"),
}


def safe(value: Any) -> str:
    """Text for HTML: escaped, control characters shown."""
    return markup.escape(printable(text_of(value)), quote=True)


def shown(value: Any) -> str:
    """A text from a record, isolated from its neighbours' direction; a long one is shortened."""
    text = text_of(value)
    if len(text) <= PAGE_TEXT:
        return f"<bdi>{safe(text)}</bdi>"
    return f"<bdi title='{safe(text[:PAGE_TITLE])}'>{safe(text[:PAGE_TEXT])}…</bdi>"


def linked(value: Any, target: str) -> str:
    """The same as a link to a row of this page, where there is one."""
    return f"<a href='#{target}'>{shown(value)}</a>" if target else shown(value)


def names_list(names: Sequence[tuple[str, str]], total: int) -> str:
    """Names with the rows they link to, one below the other; all but the first ones are folded."""
    items = [f"<li>{linked(name, target)}</li>" for name, target in names]
    if total > len(names):
        items.append(f"<li class=soft>and {total - len(names):,} more</li>")
    first, rest = items[:NAMES_SHOWN], items[NAMES_SHOWN:]
    text = f"<ul class=names>{''.join(first)}</ul>"
    if rest:
        title = f"<summary>{total - NAMES_SHOWN:,} more</summary>"
        text += f"<details class=rest>{title}<ul class=names>{''.join(rest)}</ul></details>"
    return text


def time_cell(timestamp: str, size: int = 16) -> str:
    """A time in UTC, to the minute; a line may end between date and time, but not inside them."""
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
    if severity not in SEVERITY_RANK:
        return shown(severity)
    return f"<span class='badge {severity}'>{severity}</span>"


def sortable(number: int, text: str) -> str:
    """A number's text with the number itself, which the script sorts by."""
    return f"<data value={number}>{text}</data>"


def page_section(
    name: str,
    content: str,
    note: str = "",
    kind: str = "",
    fold_title: str = "",
    closed: bool = False,
) -> str:
    """A section with its heading, or nothing. `fold_title`: what stands on its fold, if it has one.

    The heading stands outside the fold: inside, a screen reader does not take it for a heading.
    """
    if not content:
        return ""
    body = (f"<p class=soft>{note}</p>" if note else "") + content
    if fold_title:
        begin = f"<details id={name}-fold{'' if closed else ' open'}>"
        body = f"{begin}<summary>{fold_title}</summary>{body}</details>"
    kind = f" class={kind}" if kind else ""
    heading = f"<h2 id={name}-title>{PAGE_SECTIONS[name][1]}</h2>"
    return f"<section id={name}{kind} aria-labelledby={name}-title>{heading}{body}</section>"


def html_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    label: str,
    total: int = 0,
    row_ids: Mapping[int, str] | None = None,
) -> str:
    """A table that becomes cards on a narrow screen; the script sorts and searches it.

    A head may begin with its column's class: `n:times`. Roles are spelt out, since a browser drops
    them from a table that is shown as cards.
    """
    if not rows:
        return ""
    split = [head.rpartition(":")[::2] for head in heads]
    classes = [f" class={kind}" if kind else "" for kind, _ in split]
    head = "".join(
        f"<th scope=col role=columnheader{kind}>{name}</th>"
        for kind, (_, name) in zip(classes, split)
    )
    cells = [f"<td role=cell{kind} data-label='{name}'" for kind, (_, name) in zip(classes, split)]
    body = "".join(
        f"<tr role=row{id_attribute((row_ids or {}).get(place))}>"
        + "".join(begin + cell_text(cell) for begin, cell in zip(cells, row))
        + "</tr>\n"
        for place, row in enumerate(rows)
    )
    left = total - len(rows)
    more = f"<p class=soft>and {left:,} more; <code>report --json</code> has them all</p>"
    return (
        f"<table class=cards role=table aria-label='{label}' data-key='{label}'>"
        f"<thead role=rowgroup><tr role=row>{head}</tr></thead>"
        f"<tbody role=rowgroup>\n{body}</tbody></table>{more if left > 0 else ''}"
    )


def id_attribute(name: str | None) -> str:
    """A row's id, if it has one."""
    return f" id={name}" if name else ""


NUMBER_CELL = re.compile(r"<data value=(\d+)>")


def cell_text(cell: str) -> str:
    """The rest of a cell; the number it is sorted by becomes its attribute."""
    match = NUMBER_CELL.match(cell)
    value = f" data-v={match[1]}" if match else ""
    return f"{value}><div>{cell}</div></td>"


def fold(name: str, title: str, content: str, opened: bool) -> str:
    """A part that can be folded."""
    if not content:
        return ""
    state = " open" if opened else ""
    return f"<details class=fold id={name}{state}><summary>{title}</summary>{content}</details>"


def counted_word(count: int, noun: str) -> str:
    """The noun of a count: `secret`, `secrets`."""
    return counted(count, noun).rpartition(" ")[2]
