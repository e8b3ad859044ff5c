"""Text for people: control characters escaped, plurals, sizes, columns of a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: Characters that a terminal or a browser would obey or hide: C0 and C1 controls, zero-width and
#: bidirectional ones, line and paragraph separators, tags; and lone surrogates, which cannot be
#: written at all.
UNPRINTABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    "\\ud800-\\udfff\\ufeff\\ufff9-\\ufffb\\U000e0000-\\U000e007f]"
)
WIDTH = 80  # columns where the terminal's own width is not known
LONG_ID = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
SIZE_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SHORT_ID = 12  # digits of an id that docker's own tables show


def printable(text: str) -> str:
    """Text from a record for a terminal or a page: control characters escaped."""
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


SEVERITY_RANK = {"HIGH": 3, "MEDIUM": 2, "LOW": 1}


class ReportError(ValueError):
    """An option that cannot be used; the message says which and what is legal."""


def severity_rank(option: str, text: str | None) -> int:
    """A severity's rank, 0 for none; raises ReportError."""
    if text is None:
        return 0
    if text.upper() not in SEVERITY_RANK:
        raise ReportError(f"{option} {text!r} is none of HIGH, MEDIUM, LOW")
    return SEVERITY_RANK[text.upper()]


def counted(count: int, noun: str) -> str:
    """`1 secret`, `2 secrets`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def fit(text: str, width: int) -> str:
    """The text with control characters escaped, cut to `width` columns."""
    text = printable(text)
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[: min(len(text) - 1, width - 1)]
    return text + "…"


def fit_middle(text: str, width: int) -> str:
    """The same, but cut in the middle: a path keeps its beginning and its last segments."""
    text = printable(text)
    if columns(text) <= width:
        return text
    tail = text[-((width - 1) // 2) :]
    while tail and columns(tail) > (width - 1) // 2:
        tail = tail[1:]
    return fit(text[: len(text) - len(tail)], width - columns(tail)) + tail


def shorten_ids(text: str) -> str:
    """Ids of 64 hexadecimal digits as docker shows them: the first 12."""
    return LONG_ID.sub(lambda match: match.group()[:SHORT_ID], text)


def pad(text: str, width: int) -> str:
    """The text with control characters escaped, exactly this wide."""
    text = fit(text, width)
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """Columns of a terminal that a text takes: East Asian letters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'serve'?)` for a word that is nearly a known one; else nothing."""
    import difflib  # here, since only a mistake needs it

    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def size_text(size: int) -> str:
    """Bytes for people."""
    if size < 1000:
        return f"{size} B"
    unit = next((unit for unit in SIZE_UNITS if size < 1000 * SIZE_UNITS[unit]), "TB")
    return f"{size / SIZE_UNITS[unit]:,.1f} {unit}"
