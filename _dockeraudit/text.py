"""Text for people: control characters escaped, plurals, sizes, columns."""

from __future__ import annotations

import re
import unicodedata

#: What a terminal or a browser would obey, or not show: C0 and C1 controls, zero-width and bidirectional ones, line and
#: paragraph separators, tags, and lone surrogates, which cannot be written at all.
UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


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


WIDTH = 80  # columns of a terminal nobody has widened
NAMES = 3  # containers or readers named in a line; --secret has them all


def counted(count: int, what: str) -> str:
    """`1 secret`, `2 secrets`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def fit(text: str, width: int) -> str:
    """The text, harmless and no wider than this."""
    text = printable(text)
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[: min(len(text) - 1, width - 1)]
    return text + "…"


def pad(text: str, width: int) -> str:
    """The text, harmless and exactly this wide."""
    text = fit(text, width)
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def size_text(size: int) -> str:
    """Bytes for people."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            break
        amount /= 1000
    else:
        return f"{amount:,.1f} TB"
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
