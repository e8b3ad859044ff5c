"""A block's matches as bytes: what a worker in another interpreter sends back.

    main interpreter                        worker
    block, needles ────────────────────▶ BlockScanner ─▶ Scanner ─▶ matches
    matches ◀─ matches_of ◀─── bytes ◀──── spans_of ◀──────────────────────┘

Interpreters share no objects. Both sides have the same rules in the same order, so a match needs
the number of its rule and offsets. Performs no I/O.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from _dockeraudit.ownsecrets import AnyScanner, EnvScanner, OwnSecrets, with_own_secrets
from _dockeraudit.rules import Match, Needle, Rule
from _dockeraudit.scanner import Scanner

#: rule, start, end, start and end of the secret, severity, placeholder, needle, union (-1: none)
SPAN = struct.Struct("=10i")
SPAN_SEVERITIES = ("LOW", "MEDIUM", "HIGH")  # a match's may be another than its rule's
KEPT_NEEDLES = 8  # containers whose needles a worker keeps ready; each costs it some KiB

Plain = tuple[Any, ...]  # a Rule or a Needle as interpreters exchange it


def spans_of(
    matches: Sequence[Match], ranks: Mapping[str, int], needles: Mapping[Needle, int]
) -> bytes:
    """Matches as bytes. `ranks`: the rules' numbers by id; `needles`: those of needles."""
    spans = []
    for match in matches:
        rule, start, end, secret_start, secret_end, placeholder, needle, union = match
        number = -1 if needle is None else needles[needle]
        spans.append(
            SPAN.pack(
                *(ranks[rule.id], start, end, secret_start, secret_end),
                *(SPAN_SEVERITIES.index(rule.severity), placeholder, number, *(union or (-1, -1))),
            )
        )
    return b"".join(spans)


def matches_of(spans: bytes, rules: Sequence[Rule], needles: Sequence[Needle]) -> list[Match]:
    """The matches that `spans_of` has spans_of."""
    matches = []
    for rank, start, end, secret_start, secret_end, severity, *more in SPAN.iter_unpack(spans):
        placeholder, needle, union_start, union_end = more
        rule = rules[rank]
        if rule.severity != SPAN_SEVERITIES[severity]:
            rule = rule._replace(severity=SPAN_SEVERITIES[severity])
        own = None if needle < 0 else needles[needle]
        union = None if union_start < 0 else (union_start, union_end)
        places = start, end, secret_start, secret_end
        matches.append(Match(rule, *places, bool(placeholder), own, union))
    return matches


def plain_rules(rules: Iterable[Rule]) -> tuple[Plain, ...]:
    """Rules as interpreters exchange them."""
    return tuple(map(tuple, rules))


def plain_needles(scanner: AnyScanner) -> tuple[Plain, ...]:
    """The needles of a scanner as interpreters exchange them."""
    return tuple(map(tuple, needles_in(scanner)))


def needles_in(scanner: AnyScanner) -> Sequence[Needle]:
    """The needles that a scanner looks for beside its rules."""
    return scanner.own.needles if isinstance(scanner, EnvScanner) else ()


class BlockScanner:
    """What a worker is: whole lines in, spans out. `rules`: as `plain_rules` gives them."""

    def __init__(self, rules: Iterable[Plain]) -> None:
        self._scanner = Scanner([Rule(*fields) for fields in rules])
        self._ranks = {rule.id: rank for rank, rule in enumerate(self._scanner.rules)}
        self._with_needles: OrderedDict[tuple[Plain, ...], AnyScanner] = OrderedDict()

    def scan(self, block: bytes, needles: tuple[Plain, ...]) -> Union[bytes, str]:
        """The block's matches, spans_of; if the scan raises, the exception's kind.

        An exception's text may hold what the scan choked on.
        """
        try:
            scanner = self._scanner_for(needles) if needles else self._scanner
            numbers = {needle: number for number, needle in enumerate(needles_in(scanner))}
            return spans_of(scanner.scan_lines(block), self._ranks, numbers)
        except Exception as error:
            return type(error).__name__

    def _scanner_for(self, needles: tuple[Plain, ...]) -> AnyScanner:
        scanner = self._with_needles.pop(needles, None)
        if scanner is None:
            own = OwnSecrets([Needle(*fields) for fields in needles])
            scanner = with_own_secrets(self._scanner, own)
        self._with_needles[needles] = scanner
        if len(self._with_needles) > KEPT_NEEDLES:
            self._with_needles.popitem(last=False)
        return scanner
