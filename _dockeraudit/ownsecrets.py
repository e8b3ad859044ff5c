"""A container's own secrets beside the rules: one scanner for both.

    Env of inspect ─▶ own_secrets ─▶ OwnSecrets (needles)
    block ─▶ EnvScanner: Scanner (rules) and Haystack (needles) ─▶ Match

Where a rule finds a needle, that rule reports it, once. Everywhere else `container-env` does.
No object here shows a value in its text. Performs no I/O.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, Protocol

from _dockeraudit.names import Kind, name_kind
from _dockeraudit.needles import Haystack, Sight, needles_of
from _dockeraudit.rules import Match, Needle, Rule
from _dockeraudit.scanner import Scanner
from _dockeraudit.secretwords import SECRET_WORDS

SAME_SECRET = 4  # a rule's secret is the container's if the needle is a fourth of it, or more


def says_secret(name: str) -> bool:
    """Whether a variable's name alone says that its value is a secret."""
    raw = name.encode("utf-8", "replace")
    lower = raw.lower()
    return any(
        name_kind(raw, at) in (Kind.PASSWORD, Kind.SECRET)
        for word in SECRET_WORDS
        for at in occurrences(lower, word)
    )


def occurrences(text: bytes, word: bytes) -> Iterator[int]:
    """Where a text holds a word."""
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


class OwnSecrets:
    """One container's needles, ready to be searched; `skipped`: how many more it has."""

    def __init__(self, needles: Sequence[Needle] = (), skipped: int = 0) -> None:
        self.needles = tuple(needles)
        self.skipped = skipped
        self.haystack = Haystack(self.needles)

    def __bool__(self) -> bool:
        return bool(self.needles)

    def __repr__(self) -> str:
        return f"<OwnSecrets: {len(self.needles)} needles, {self.skipped} skipped>"

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self.haystack.size


def own_secrets(env: Iterable[object], scanner: Scanner) -> OwnSecrets:
    """The secrets in a container's Env."""

    def spans(entry: bytes) -> Iterator[tuple[int, int]]:
        for match in scanner.scan_lines(entry):
            if match.rule.severity != "LOW" and not (match.placeholder or match.rule.multiline):
                yield match.secret_start, match.secret_end

    return OwnSecrets(*needles_of(env, says_secret, spans))


def counts_of_needles(own: OwnSecrets | None) -> tuple[int, int] | None:
    """How many of a container's secrets are searched for, and how many are not; None: unknown."""
    return None if own is None else (len(own.needles), own.skipped)


class EnvScanner:
    """All rules, and one container's own secrets, applied to a block: the doors of a Scanner."""

    def __init__(self, scanner: Scanner, own: OwnSecrets, rule: Rule) -> None:
        self.rules = scanner.rules
        self.undecided = scanner.undecided
        self._scanner = scanner
        self.own = own
        self._find = own.haystack.find
        self._rule = rule

    def scan(self, block: bytes) -> list[Match]:
        """All matches in the block, sorted by start."""
        return self._merged(block, self._scanner.scan(block))

    def scan_lines(self, block: bytes) -> list[Match]:
        """What scanning each line of the block on its own would give, with offsets in the block."""
        return self._merged(block, self._scanner.scan_lines(block))

    def _merged(self, block: bytes, matches: list[Match]) -> list[Match]:
        sights = self._find(block)
        if not sights:
            return matches
        named = Merger(block, matches, self._rule)
        for sight in sights:
            named.add(sight)
        return named.matches()


class Merger:
    """Gives needles to the rules' matches at the same places; `container-env` has the others."""

    def __init__(self, block: bytes, matches: Sequence[Match], rule: Rule) -> None:
        self._block = block
        self._rule = rule
        self._matches = sorted(matches, key=lambda match: match.secret_start)
        self._starts = [match.secret_start for match in self._matches]
        self._keys = [number for number, match in enumerate(self._matches) if match.rule.multiline]
        self._key_ends = [self._matches[number].end for number in self._keys]
        self._own: list[Match] = []
        #: by the match's number and the variable: bytes in common, the needle with most of them
        self._common: dict[tuple[int, str], tuple[int, int, Needle]] = {}
        self._sights: dict[tuple[int, str], list[Sight]] = {}

    def add(self, sight: Sight) -> None:
        """A needle's place: the match that it overlaps most, or the header of the key around it."""
        number = self._overlapped(sight)
        if number < 0 and sight.needle.part:
            number = self._key_before(sight)
        if number < 0:
            self._own.append(self._own_match(sight))
            return
        case = number, sight.needle.env
        common = max(1, self._overlap(number, sight))
        total, most, needle = self._common.get(case, (0, 0, sight.needle))
        if common > most:
            most, needle = common, sight.needle
        self._common[case] = total + common, most, needle
        self._sights.setdefault(case, []).append(sight)

    def matches(self) -> list[Match]:
        """All matches, sorted by start."""
        taken: dict[int, Match] = {}
        for case, (total, _, needle) in sorted(
            self._common.items(), key=lambda item: item[1][:2], reverse=True
        ):
            number = case[0]
            match = self._matches[number]
            if number not in taken and self._is_same(match, total, self._sights[case]):
                taken[number] = with_needle(match, needle, self._sights[case])
            else:
                self._own += map(self._own_match, self._sights[case])
        given = [taken.get(number, match) for number, match in enumerate(self._matches)]
        return sorted([*given, *self._own], key=lambda match: (match.start, match.end))

    @staticmethod
    def _is_same(match: Match, total: int, sights: Sequence[Sight]) -> bool:
        """Whether the rule's secret is the container's, rather than one that holds it too."""
        if match.rule.multiline or total * SAME_SECRET >= match.secret_end - match.secret_start:
            return True
        return any(
            sight.start <= match.secret_start and match.secret_end <= sight.end for sight in sights
        )

    def _own_match(self, sight: Sight) -> Match:
        start, end, needle = sight
        return Match(self._rule, start, end, start, end, needle=needle)

    def _overlapped(self, sight: Sight) -> int:
        """The number of the match whose secret overlaps most with a needle; -1: none does."""
        best, most = -1, 0
        number = bisect.bisect_left(self._starts, sight.end) - 1
        while number >= 0 and self._matches[number].secret_end > sight.start:
            common = self._overlap(number, sight)
            if common >= most:
                best, most = number, common
            number -= 1
        return best

    def _overlap(self, number: int, sight: Sight) -> int:
        match = self._matches[number]
        return min(match.secret_end, sight.end) - max(match.secret_start, sight.start)

    def _key_before(self, sight: Sight) -> int:
        """The number of the match of a private key's header before it, on the same line; or -1."""
        before = bisect.bisect_right(self._key_ends, sight.start) - 1
        if before < 0 or self._block.find(b"\n", self._key_ends[before], sight.start) >= 0:
            return -1
        return self._keys[before]


def with_needle(match: Match, needle: Needle, sights: Sequence[Sight]) -> Match:
    """A rule's match of one of the container's own secrets, which is HIGH and no placeholder."""
    if not match.rule.multiline:
        union = match.union or (match.secret_start, match.secret_end)
        start = min(union[0], *(sight.start for sight in sights))
        match = match._replace(union=(start, max(union[1], *(sight.end for sight in sights))))
    rule = match.rule
    if rule.severity != "HIGH":
        rule = rule._replace(severity="HIGH")
    return match._replace(rule=rule, needle=needle, placeholder=False)


class AnyScanner(Protocol):
    """A Scanner, or what has its doors."""

    rules: tuple[Rule, ...]

    @property
    def undecided(self) -> Callable[[bytes], int]:
        """Where the last lines begin whose secrets may stand on the next lines; else the end."""

    def scan(self, block: bytes) -> list[Match]:
        """All matches in the block, sorted by start."""

    def scan_lines(self, block: bytes) -> list[Match]:
        """What scanning each line of the block on its own would give, with offsets in the block."""


def with_own_secrets(scanner: Scanner, own: OwnSecrets | None) -> AnyScanner:
    """The scanner for a container's text: the rules alone where nothing is to be added to them."""
    rule = next((rule for rule in reversed(scanner.rules) if rule.find == "env"), None)
    return EnvScanner(scanner, own, rule) if own and rule else scanner


def secret_of(block: bytes, match: Match) -> bytes:
    """What a finding's fingerprint is of: the container's own value, in whatever form it came."""
    needle = match.needle
    if needle is None or (needle.part and match.rule.find != "env"):
        return block[match.secret_start : match.secret_end]
    return needle.value


def shown_of(block: bytes, match: Match) -> bytes:
    """What of a match may be shown, redacted: nothing of a match that is the secret alone."""
    return b"" if match.rule.find == "env" else block[match.start : match.end]
