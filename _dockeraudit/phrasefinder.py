"""Finds the recovery phrases of wallets behind the words that announce them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from _dockeraudit.candidates import Anchored, Found, Visitor
from _dockeraudit.rules import Match
from _dockeraudit.wallets import GAP, recovery_phrase

#: what a phrase has, and the text behind `phrase=` or `pass phrase` seldom
WORDS_IN_A_ROW = re.compile(rb"(?:\b[A-Za-z]{3,8}[^A-Za-z]{1,8}){5}")
#: words that announce a phrase, and what must follow one of them
ANNOUNCEMENTS = (b"mnemonic", b"phrase", b"seed")
ANNOUNCEMENT_AHEAD = {b"seed": rb"(?=s?[\"'`\\]{0,8}[ \t]{0,4}[:=\n])"}


def at_announcement(word: bytes, rules: Sequence[Anchored]) -> Visitor:
    """A visitor at a word that announces a phrase; which rule finds it depends on the checksum."""
    by_id = {anchored.rule.id: anchored for anchored in rules}
    checked, unchecked = by_id.get("recovery-phrase"), by_id.get("recovery-phrase-unchecked")

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        phrase = None
        if WORDS_IN_A_ROW.search(block, at + len(word), at + 2 * GAP):
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
