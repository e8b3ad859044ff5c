"""Known findings: a file of fingerprints, each with a reason and perhaps a last day.

    # comments and empty lines stay where they are
    4f1c2d3e4a5b6c7d      2027-03-31  the demo's key, rotated each spring
    web:9e107d9d372bb682  -           a test account without rights

A line is FINGERPRINT or CONTAINER:FINGERPRINT, the last day (UTC) on which it counts or -, and why.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.keyfile import locked_folder
from _dockeraudit.text import printable

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
NO_END = "-"  # in place of the last day
LARGEST_BASELINE = 16 << 20  # bytes; some 200,000 lines
WIDTH_OF_NAMES = 33  # columns for CONTAINER:FINGERPRINT, so that most lines align


class BaselineEntry(NamedTuple):
    """One line. `container`: a name or id, empty for all; `until`: None is for ever."""

    container: str
    fingerprint: str
    until: date | None
    reason: str

    @property
    def name(self) -> str:
        """FINGERPRINT or CONTAINER:FINGERPRINT, as --allow-secret takes it."""
        return f"{self.container}:{self.fingerprint}" if self.container else self.fingerprint

    def line(self) -> str:
        """Its line in the file."""
        last = self.until.isoformat() if self.until else f"{NO_END:10}"
        return f"{self.name:{WIDTH_OF_NAMES}}  {last}  {self.reason}\n"

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return self.until is not None and self.until < today


def parse_known(line: str) -> BaselineEntry | None:
    """A line's entry, None for a comment or an empty line; raises ValueError that says why."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    name, *rest = text.split(None, 2)
    if len(rest) < 2:
        raise ValueError("a line is FINGERPRINT, the last day or -, and a reason")
    last, reason = rest
    container, fingerprint = split_name(name)
    return BaselineEntry(container, fingerprint, read_last_day(last), reason)


def split_name(name: str) -> tuple[str, str]:
    """Container and fingerprint of CONTAINER:FINGERPRINT; raises ValueError."""
    container, _, fingerprint = name.rpartition(":")
    if not FINGERPRINT.fullmatch(fingerprint.lower()):
        raise ValueError(f"{fingerprint!r} is not a fingerprint, 16 hexadecimal digits")
    return container, fingerprint.lower()


def read_last_day(text: str) -> date | None:
    """2027-03-31, or - for none; raises ValueError."""
    if text == NO_END:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"{text!r} is neither a day such as 2027-03-31 nor -") from None


def last_day(text: str, today: date) -> date:
    """The day that --until names: 2027-03-31, or 90d, 12w from today; raises ConfigurationError."""
    span = re.fullmatch(r"(\d{1,4})([dw])", text)
    try:
        if span:
            return today + timedelta(int(span[1]) * (7 if span[2] == "w" else 1))
        day = read_last_day(text)
        if day is None:
            raise ValueError("leave --until out for an entry without an end")
    except ValueError as error:
        raise ConfigurationError(f"--until: {error}, or a span such as 90d") from None
    if day < today:
        raise ConfigurationError(f"--until {text}: that day is over")
    return day


def utc_day(moment: float) -> date:
    """The day of a moment, in UTC."""
    return datetime.fromtimestamp(moment, timezone.utc).date()


def read_baseline(path: str) -> list[BaselineEntry]:
    """The entries of a file; raises ConfigurationError, with the line that is malformed."""
    try:
        text = baseline_text(path)
    except OSError as error:
        raise ConfigurationError(f"--baseline: cannot read {path}: {error.strerror}") from None
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            entry = parse_known(line)
        except ValueError as error:
            raise ConfigurationError(printable(f"{path}, line {number}: {error}")) from None
        if entry:
            found.append(entry)
    return found


def baseline_text(path: str) -> str:
    """A file's text; raises OSError, or ConfigurationError for what is no text."""
    with open(path, "rb") as file:
        data = file.read(LARGEST_BASELINE + 1)
    if len(data) > LARGEST_BASELINE:
        raise ConfigurationError(f"--baseline: {path} is larger than 16 MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}, line {line}: it is not UTF-8") from None


def with_entries(text: str, entries: Sequence[BaselineEntry]) -> str:
    """The text with these entries, each in place of its earlier line or at the end.

    All other lines, comments and malformed ones too, stay as they are.
    """
    fresh = {entry.name: entry.line() for entry in entries}
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    kept = [fresh.pop(named_by(line), line + "\n") for line in lines]
    return "".join([*kept, *fresh.values()])


def named_by(line: str) -> str:
    """The FINGERPRINT or CONTAINER:FINGERPRINT that a line is about, empty for none."""
    try:
        entry = parse_known(line)
    except ValueError:
        return ""
    return entry.name if entry else ""


def add_known(path: str, entries: Sequence[BaselineEntry]) -> None:
    """Write entries into a file, whole or not at all; raises OSError."""
    path = os.path.realpath(path)
    with locked_folder(os.path.dirname(path)):
        mode, text = 0o644, ""
        if os.path.exists(path):
            mode, text = os.stat(path).st_mode & 0o777, baseline_text(path)
        part = f"{path}.{os.urandom(4).hex()}"
        try:
            with open(part, "x", encoding="utf-8", newline="") as file:
                file.write(with_entries(text, entries))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(part, mode)
            os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.unlink(part)


class KnownSecrets:
    """The secrets that are known as harmless now: those of --allow-secret, and of the baseline.

    An entry whose last day is over counts no more, which is said once.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        entries: Iterable[BaselineEntry] = (),
        say: Callable[[str, str], None] = lambda level, text: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._say = say
        self._clock = clock
        self._said: set[BaselineEntry] = set()
        self.replace(secrets, entries)

    def replace(self, secrets: Iterable[str], entries: Iterable[BaselineEntry]) -> None:
        """The options and the file have been read again."""
        self._secrets = frozenset(secrets)
        self._entries = tuple(entries)

    def now(self) -> frozenset[str]:
        """The names that count, FINGERPRINT or CONTAINER:FINGERPRINT; says what has expired."""
        today = utc_day(self._clock())
        for entry in self._entries:
            if entry.expired(today) and entry not in self._said:
                self._said.add(entry)
                text = f"the last day of {entry.name}, {entry.until}, is over ({entry.reason})"
                self._say("warning", printable(f"{text}; it counts as a finding again"))
        current = {entry.name for entry in self._entries if not entry.expired(today)}
        return self._secrets | current


def covers(names: frozenset[str], record: Mapping[str, Any]) -> bool:
    """Whether a finding's record is of one of these secrets, everywhere or in its container."""
    fingerprint = record.get("fingerprint")
    if not names or not fingerprint:
        return False
    ids = (record.get("container_id"), record.get("container_name"))
    return fingerprint in names or any(f"{name}:{fingerprint}" in names for name in ids)
