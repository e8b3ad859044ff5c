"""Which records a report is about, and whether what was asked for exists in the log at all.

A container, rule or fingerprint that no record names is a mistake in typing more often than good
news, so it is said, with what is near, and never reported as "no findings". Performs no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from _dockeraudit.baseline import covers
from _dockeraudit.logrecords import text_of
from _dockeraudit.text import SEVERITY_RANK, ReportError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
NAMES_LIMIT = 20_000  # containers, rules and fingerprints remembered, to say what is near
SUGGESTIONS = 5


def since_timestamp(text: str, now: float) -> str:
    """24h, 7d or a timestamp as RFC 3339 in UTC; raises ReportError."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match:
        seconds = max(0.0, now - int(match[1]) * UNITS[match[2]])
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    else:
        moment = in_utc(text)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def in_utc(text: str) -> datetime:
    """A timestamp in UTC, which it is if it does not say otherwise; raises ReportError."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ReportError(
            f"--since {text!r} is neither a span such as 24h or 7d "
            "nor a timestamp such as 2025-01-31T08:00"
        ) from None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)


def fingerprint_prefix(text: str | None) -> str:
    """The beginning of a fingerprint that --secret gives, empty for none; raises ReportError."""
    if text is not None and not re.fullmatch(r"[0-9a-f]{4,16}", text.lower()):
        raise ReportError(
            f"--secret {text!r} is not a fingerprint: "
            "16 hexadecimal digits, or at least the first four of them"
        )
    return (text or "").lower()


class Choice(NamedTuple):
    """Which records count.

    `container`: a name or the beginning of an id; `secret`: the beginning of a fingerprint;
    `least`: the rank of the least severity; `placeholders`: findings that are no secrets, too;
    `known`: secrets that are left out, as `covers` takes them.
    """

    since: str = ""
    container: str = ""
    pattern: str = ""
    least: int = 0
    secret: str = ""
    placeholders: bool = False
    known: frozenset[str] = frozenset()

    @property
    def of_findings(self) -> bool:
        """Whether only some findings count; then only their readers are of interest."""
        return bool(self.pattern or self.least or self.secret)

    @property
    def of_everything(self) -> bool:
        """Whether all findings count, whatever they are of."""
        return not self.of_findings and not self.container

    def takes_container(self, record: Mapping[str, Any]) -> bool:
        """Whether the record is of the container; a shortened name may have been its name."""
        if not self.container:
            return True
        name = text_of(record.get("container_name"))
        if name == self.container or text_of(record.get("container_id")).startswith(self.container):
            return True
        return bool(name and record.get("truncated") and self.container.startswith(name))

    def takes_pattern(self, record: Mapping[str, Any]) -> bool:
        """Whether the finding's rule has this name or id."""
        names = (text_of(record.get("pattern")).lower(), text_of(record.get("rule")).lower())
        return not self.pattern or self.pattern.lower() in names

    def takes_secret(self, record: Mapping[str, Any]) -> bool:
        """Whether the finding's fingerprint begins so."""
        return text_of(record.get("fingerprint")).startswith(self.secret)

    def leaves_out(self, record: Mapping[str, Any]) -> bool:
        """Whether the finding is of a known secret, and nobody asked for that secret."""
        return not self.secret and covers(self.known, record)

    def takes_finding(self, record: Mapping[str, Any]) -> bool:
        """Whether the finding counts, all but its time and whether it is a placeholder."""
        rank = SEVERITY_RANK.get(text_of(record.get("severity")), 0)
        return (
            rank >= self.least
            and self.takes_pattern(record)
            and self.takes_secret(record)
            and self.takes_container(record)
        )


EVERYTHING = Choice()


class LogNames:
    """The containers, rules and fingerprints that records name, whether they count or not."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.containers: dict[str, None] = {}
        self.rules: dict[str, None] = {}
        self.fingerprints: dict[str, None] = {}
        self._found = {"container": False, "pattern": False, "secret": False}

    def note(self, record: Mapping[str, Any]) -> None:
        """Note what a record names, where that was asked for."""
        choice, found = self.choice, self._found
        if choice.container and not found["container"] and record.get("container_id"):
            found["container"] = choice.takes_container(record)
            label = text_of(record.get("container_name")) or text_of(record["container_id"])[:12]
            note_name(self.containers, label)
        if record.get("event") not in ("finding", "finding_update"):
            return
        if choice.pattern and not found["pattern"]:
            found["pattern"] = choice.takes_pattern(record)
            note_name(self.rules, text_of(record.get("pattern")))
        if choice.secret and not found["secret"]:
            found["secret"] = choice.takes_secret(record)
            note_name(self.fingerprints, text_of(record.get("fingerprint")))

    def missing(self, rules: Iterable[str]) -> list[str]:
        """Sentences about what was asked for and is nowhere. `rules`: names of all known rules."""
        choice, found, sentences = self.choice, self._found, []
        known = list(rules)
        asked = choice.pattern.lower()
        if asked and not found["pattern"] and asked not in map(str.lower, known):
            names = [*filter(None, self.rules), *known]
            sentences.append(missing_sentence("rule", "--pattern", choice.pattern, names))
        if choice.container and not found["container"]:
            names = list(filter(None, self.containers))
            sentences.append(missing_sentence("container", "--container", choice.container, names))
        if choice.secret and not found["secret"]:
            names = nearest_fingerprints(choice.secret, filter(None, self.fingerprints))
            sentences.append(missing_sentence("fingerprint", "--secret", choice.secret, names))
        return sentences


def note_name(names: dict[str, None], name: str) -> None:
    """Add a name, as long as there is room."""
    if len(names) < NAMES_LIMIT:
        names.setdefault(name)


def missing_sentence(kind: str, option: str, asked: str, names: Sequence[str]) -> str:
    """That there is no such thing in the log, and what is near."""
    near = names[:SUGGESTIONS] if kind == "fingerprint" else nearest(asked, names)
    hint = f"; near it: {', '.join(near)}" if near else ""
    if not near and names:
        hint = f"; there are: {', '.join(names[:SUGGESTIONS])}"
        hint += " and others" if len(names) > SUGGESTIONS else ""
    return f"{option} {asked!r}: there is no such {kind} in these records{hint}"


def nearest(asked: str, names: Sequence[str]) -> list[str]:
    """The names that hold what was asked for, and those spelt alike."""
    import difflib  # here, since only a mistake needs it

    lower = {name.lower(): name for name in reversed(names)}
    holding = sorted((name for name in lower if asked.lower() in name), key=len)
    alike = difflib.get_close_matches(asked.lower(), lower, SUGGESTIONS)
    return [lower[name] for name in dict.fromkeys([*holding, *alike])][:SUGGESTIONS]


def nearest_fingerprints(asked: str, fingerprints: Iterable[str]) -> list[str]:
    """The fingerprints that begin like what was asked for, the longest beginning first."""
    shared = {name: common_length(asked, name) for name in fingerprints}
    return sorted((name for name in shared if shared[name]), key=lambda name: -shared[name])


def common_length(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    for at, (left, right) in enumerate(zip(one, other)):
        if left != right:
            return at
    return min(len(one), len(other))
