"""Finds the recovery phrases of wallets behind the words that announce them."""

from __future__ import annotations

from collections.abc import Sequence

from _dockeraudit.candidates import Anchored, Found, Visitor
from _dockeraudit.rules import Match
from _dockeraudit.wallets import GAP, recovery_phrase

#: words of the second pass, and one that `find` looks for, its first letter left out for its case
PHRASE_WORDS = (b"phrase", b"seed")
PHRASE_LITERALS = (b"nemonic", b"NEMONIC")


def at_announcement(word: bytes, rules: Sequence[Anchored]) -> Visitor:
    """A visitor at a word that announces a phrase; which rule finds it depends on the checksum."""
    by_id = {anchored.rule.id: anchored for anchored in rules}
    checked, unchecked = by_id.get("recovery-phrase"), by_id.get("recovery-phrase-unchecked")

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        phrase = recovery_phrase(block, at + len(word))
        if phrase is None:
            return at + GAP
        anchored = checked if phrase.fits else unchecked
        if anchored and phrase.start not in found.values:
            found.values.add(phrase.start)
            match = Match(anchored.rule, at, phrase.end, phrase.start, phrase.end)
            found.append((anchored.rank, match))
        return phrase.end

    return visit
