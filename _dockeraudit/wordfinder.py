"""Finds all words that rules are anchored at, in any case, in one pass over the block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from _dockeraudit.candidates import Anchored, Found, Visitor, at_literal, together
from _dockeraudit.plausibility import CAPITALS

#: The copy in which words are looked for has k for b, c, p, u and e for a, r, t, w. Each word then
#: holds `ke` (pass → kess, token → eoken, secret → sekeee), which `re` finds by its first letter.
#: That costs as much as finding three words one after the other.
WORD_LETTERS = bytes.maketrans(
    CAPITALS + b"bcpuBCPUartwARTW", CAPITALS.lower() + b"kkkkkkkkeeeeeeee"
)
WORD_PAIR = b"ke"
CURL_WINDOW = 128  # bytes behind curl in which a URL begins


class WordFinder:
    """Visits each word where it stands, word by word: of several in a name, the first word decides."""

    def __init__(self, visits: Mapping[bytes, Sequence[Visitor]], ahead: Mapping[bytes, bytes]):
        """`ahead`: by word, what must follow it in the translated copy; %d is its group's number."""
        words = list(visits)
        self._words = [
            (word, word.translate(WORD_LETTERS).index(WORD_PAIR), together(visits[word]))
            for word in words
        ]
        self._places = word_pattern((word, ahead.get(word, b"")) for word in words)

    def __bool__(self) -> bool:
        return bool(self._words)

    def find(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit the words of the block."""
        places: dict[int, list[int]] = {}
        for match in self._places.finditer(block.translate(WORD_LETTERS)):
            places.setdefault(match.lastindex, []).append(match.start())
        for group in sorted(places):
            word, before, visit = self._words[group // 2 - 1]
            go_on = 0
            for start in places[group]:
                at = start - before
                if at >= go_on and block[at : at + len(word)].lower() == word:
                    found.lower = found.lower or block.lower()
                    go_on = visit(block, at, lines, found)


def word_pattern(words: Iterable[tuple[bytes, bytes]]) -> Any:
    """A regex that matches at each word's `ke` in the copy; the last group is twice its number."""
    parts = []
    for number, (word, ahead) in enumerate(words):
        text = word.translate(WORD_LETTERS)
        at = text.index(WORD_PAIR) + len(WORD_PAIR)
        # a literal comes first: `re` tries it without a call
        here = re.escape(text[at:]) + b"(?<=" + re.escape(text) + b")"
        parts.append(here + (ahead % (2 * number + 1) if ahead else b"()") + b"()")
    return re.compile(WORD_PAIR + b"(?:" + b"|".join(parts) + b")")


def at_key(anchored: Anchored) -> Visitor:
    """A visitor at `key` for the pattern that begins with `api`: `key` is rarer."""
    match_here = at_literal(anchored)

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        start = found.lower.rfind(b"api", max(0, at - 4), at)
        if start < 0 or at - start == 4 and block[at - 1] not in b"_-":
            return at + 1
        return max(at + 1, match_here(block, start, lines, found))

    return visit


def at_curl(anchored: Anchored) -> Visitor:
    """A visitor at `curl ` for the credentials among its options, if it has a URL."""
    match_here = at_literal(anchored)

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        url = block.find(b"://", at, at + CURL_WINDOW)
        if url < 0 or found.lower.find(b"curl ", at + 1, url) >= 0:
            return at + 1
        return match_here(block, at, lines, found)

    return visit
