"""Finds all words that rules are anchored at, in any case, in one pass over the block."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from _dockeraudit.candidates import Anchored, Found, Visitor, at_literal, together
from _dockeraudit.plausibility import CAPITALS
from _dockeraudit.rules import Match

CURL_WINDOW = 128  # bytes behind curl in which a URL begins
#: blocks with more than a word in so many bytes repeat themselves, or are made to cost time
CROWD = 256
SEEN_BEFORE, SEEN_BEHIND = 96, 320  # bytes around a word that decide on it
MOST_SEEN = 2000
LONG_SPACE = re.compile(rb"\s{64}")  # behind which a match may begin that is not seen
FAR_WORDS = frozenset((b"-----begin",))  # whose matches are longer than what is seen
#: in a look ahead, references to its first and second group: what they took is not given back
OWN_GROUPS = (rb"\N", rb"\M")


class Alphabet(NamedTuple):
    """A table for `translate` that lowers letters and lets some stand for others.

    Each word that is looked for in the copy holds `pair`; `re` finds it by its first letter.
    """

    table: bytes
    pair: bytes

    def shows(self, word: bytes) -> bool:
        """Whether the copy shows the pair in this word."""
        return self.pair in word.translate(self.table)


LOWER_CASE = bytes(range(256)).translate(bytes.maketrans(CAPITALS, CAPITALS.lower()))


def pair_alphabet(first: bytes, second: bytes) -> Alphabet:
    """The copy shows each letter of `first` as k, each of `second` as e."""
    both = first + first.upper() + second + second.upper()
    size = len(first) * 2
    table = bytes(
        107 if char in both[:size] else 101 if char in both[size:] else LOWER_CASE[char]
        for char in range(256)
    )
    return Alphabet(table, b"ke")


#: A word belongs to the first that shows its pair: key → key, pass → kess, auth → ekeh; then
#: pw and pwd, for which letters would have to stand that are frequent; then sess → keke,
#: code → ekee, secret → kecret. Few pairs and few first letters make a pass fast.
PAIR_ALPHABETS = (
    pair_alphabet(b"bkpu", b"aegnrt"),
    Alphabet(LOWER_CASE, b"pw"),
    pair_alphabet(b"ios", b"acdegk"),
)
LETTER_RUN = re.compile(rb"(?<!\\)[a-z]{2,}")


def translated(pattern: bytes, alphabet: Alphabet) -> bytes:
    """A regex whose words are as the alphabet's copy shows them; single letters stay."""
    return LETTER_RUN.sub(lambda word: word.group().translate(alphabet.table), pattern)


class WordFinder:
    """Finds words, in any case, in one pass over a copy of the block in which each holds a pair.

    That costs as much as to find three words one after the other.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        visits: Mapping[bytes, Sequence[Visitor]],
        ahead: Mapping[bytes, bytes],
    ) -> None:
        """`ahead`: by word, what must follow it in the copy; OWN_GROUPS refer to its groups."""
        self._alphabet = alphabet
        self._words = [
            (word, word.translate(alphabet.table).index(alphabet.pair), together(visits[word]))
            for word in visits
        ]
        self._alikes = [self._later_alikes(number) for number in range(len(self._words))]
        self._far = {number for number, (word, _, _) in enumerate(self._words) if word in FAR_WORDS}
        self._word_of: dict[int, int] = {}
        self._places = self._pattern(ahead)

    def __bool__(self) -> bool:
        return bool(self._words)

    def _pattern(self, ahead: Mapping[bytes, bytes]) -> Any:
        """A regex that matches at each word's pair; its last group tells the word (`_word_of`)."""
        pair, parts, groups = self._alphabet.pair, [], 0
        for number, (word, before, _) in enumerate(self._words):
            text = word.translate(self._alphabet.table)
            # a literal comes first: `re` tries it without a call
            here = re.escape(text[before + len(pair) :])
            here += b"(?<=" + re.escape(text) + b")" if before or here else b""
            more = ahead.get(word, b"")
            for group in OWN_GROUPS:
                if group in more:
                    groups += 1
                    more = more.replace(group, b"\\%d" % groups)
            groups += 1
            self._word_of[groups] = number
            parts.append(here + more + b"()")
        return re.compile(pair + b"(?:" + b"|".join(parts) + b")")

    def find(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit the words, word by word: of several in a name, the first in order decides."""
        places: dict[int, list[int]] = {}
        words, word_of = self._words, self._word_of
        copy = block.translate(self._alphabet.table)
        lower = copy if self._alphabet.table == LOWER_CASE else found.lower
        for match in self._places.finditer(copy):
            lower = lower or block.lower()
            start, number = match.start(), word_of[match.lastindex]
            word, before, _ = words[number]
            if not lower.startswith(word, start - before):
                number = self._alike(lower, start, number)
                if number < 0:
                    continue
            places.setdefault(number, []).append(start)
        found.lower = lower
        crowded = sum(map(len, places.values())) * CROWD > len(block)
        for number in sorted(places):
            _, before, visit = words[number]
            if crowded and number not in self._far:
                visit = once(visit)
            go_on = 0
            for start in places[number]:
                if start - before >= go_on:
                    go_on = visit(block, start - before, lines, found)

    def _alike(self, lower: bytes, start: int, shown: int) -> int:
        """The number of the word whose pair is at `start`, where the copy shows another; or -1."""
        for number in self._alikes[shown]:
            word, before, _ = self._words[number]
            if lower.startswith(word, start - before):
                return number
        return -1

    def _later_alikes(self, shown: int) -> list[int]:
        """The words behind this one in the regex that may stand where the copy shows it."""
        word, before, _ = self._words[shown]
        text = word.translate(self._alphabet.table)
        later = []
        for number, (other, other_before, _) in enumerate(self._words[shown + 1 :], shown + 1):
            alike = other.translate(self._alphabet.table)
            shift = before - other_before
            pairs = [
                (text[i], alike[i - shift]) for i in range(len(text)) if 0 <= i - shift < len(alike)
            ]
            if all(a == b for a, b in pairs):
                later.append(number)
        return later


class SeenText(NamedTuple):
    """What a visitor found in a text, and where it went on; all offsets from the word on."""

    step: int
    found: tuple[tuple[int, Match], ...]


def once(visit: Visitor) -> Visitor:
    """A visitor for blocks full of words: it finds again what was found in a text it has seen."""
    seen: dict[bytes, SeenText] = {}

    def visit_new(block: bytes, at: int, lines: bool, found: Found) -> int:
        if at < SEEN_BEFORE:
            return visit(block, at, lines, found)
        around = block[at - SEEN_BEFORE : at + SEEN_BEHIND]
        before = seen.get(around)
        if before is not None:
            for rank, match in before.found:
                again = shifted(match, at)
                if again.secret_start not in found.values:
                    found.values.add(again.secret_start)
                    found.append((rank, again))
            return at + before.step
        known = len(found)
        end = visit(block, at, lines, found)
        new = tuple((rank, shifted(match, -at)) for rank, match in found[known:])
        decided = all(match.end <= SEEN_BEHIND for _, match in new)
        if decided and len(seen) < MOST_SEEN and not LONG_SPACE.search(around):
            seen[around] = SeenText(end - at, new)
        return end

    return visit_new


def shifted(match: Match, by: int) -> Match:
    """The match so many bytes further on."""
    return match._replace(
        start=match.start + by,
        end=match.end + by,
        secret_start=match.secret_start + by,
        secret_end=match.secret_end + by,
    )


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
