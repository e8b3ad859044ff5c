"""Finds all words that rules are anchored at, in any case, in three passes over the block."""

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
LONG_SPACE = b" " * 64  # white space behind which a match may begin that is not seen
SPACES = bytes(32 if bytes((char,)).isspace() else char for char in range(256))
FAR_WORDS = frozenset((b"-----begin",))  # whose matches are longer than what is seen
#: in a look ahead, references to its first and second group: what they took is not given back
OWN_GROUPS = (rb"\N", rb"\M")


class Alphabet(NamedTuple):
    """A table for `translate` that lowers letters and lets some stand for others.

    Each word that is looked for in the copy holds one of the pairs; `re` finds it by its first
    letter.
    """

    table: bytes
    pairs: Sequence[bytes]

    def pair_of(self, word: bytes) -> bytes | None:
        """The pair that the copy shows in this word."""
        shown = word.translate(self.table)
        return next((pair for pair in self.pairs if pair in shown), None)


def alphabet_of(letters: Mapping[bytes, bytes], *pairs: bytes) -> Alphabet:
    """The copy shows each key of `letters` for all that its value names, in either case."""
    table = {char: shown for shown, chars in letters.items() for char in chars + chars.upper()}
    return Alphabet(bytes(ord(table.get(c, LOWER_CASE[c : c + 1])) for c in range(256)), pairs)


LOWER_CASE = bytes(range(256)).translate(bytes.maketrans(CAPITALS, CAPITALS.lower()))
#: A word belongs to the first that shows a pair of it: key → key, auth → wketh, pass → pwss,
#: pw → pw; then secret → keeret, code → ekee. Few pairs and few first letters make a pass fast.
WORD_ALPHABETS = (
    alphabet_of({b"k": b"bku", b"e": b"egnrt", b"w": b"aw"}, b"ke", b"pw"),
    alphabet_of({b"k": b"ios", b"e": b"acdegk"}, b"ke"),
)
LETTER_RUN = re.compile(rb"(?<!\\)[a-z]{2,}")


def translated(pattern: bytes, alphabet: Alphabet) -> bytes:
    """A regex whose words are as the alphabet's copy shows them; single letters stay."""
    return LETTER_RUN.sub(lambda word: word.group().translate(alphabet.table), pattern)


class Tail(NamedTuple):
    """A word in a regex: its text so far, what is still to come, and what is tested behind it."""

    number: int
    text: bytes
    rest: bytes
    test: bytes


class WordPass:
    """Finds the words that hold a pair of an alphabet, in any case, in one pass over the copy."""

    def __init__(
        self,
        alphabet: Alphabet,
        pair: bytes,
        words: Mapping[int, bytes],
        ahead: Mapping[bytes, bytes],
    ) -> None:
        """`words` by their numbers. `ahead`: by word, what must follow it, where OWN_GROUPS refer
        to groups of its own."""
        self._alphabet = alphabet
        self._pair = pair
        self._words = {
            number: (word, word.translate(alphabet.table).index(pair))
            for number, word in words.items()
        }
        self._groups = 0  # of the regex
        self._word_of: dict[int, int] = {}  # by group; in the order in which the regex tries them
        self._places = self._pattern(ahead)
        order = list(self._word_of.values())
        self._alikes = {
            number: self._alike_among(number, order[at + 1 :]) for at, number in enumerate(order)
        }

    def find(self, copy: bytes, block: bytes, places: dict[int, list[int]], found: Found) -> None:
        """Add where the words begin, by number, to the places; `copy` is the block translated."""
        words, word_of = self._words, self._word_of
        for match in self._places.finditer(copy):
            lower = found.lower = found.lower or block.lower()
            pair, number = match.start(), word_of[match.lastindex]
            word, before = words[number]
            if not lower.startswith(word, pair - before):
                number = self._alike(lower, pair, number)
                if number < 0:
                    continue
                before = words[number][1]
            places.setdefault(number, []).append(pair - before)

    def _pattern(self, ahead: Mapping[bytes, bytes]) -> Any:
        """A regex that matches at each word's pair; its last group tells the word (`_word_of`)."""
        pair, tails = self._pair, []
        for number, (word, before) in self._words.items():
            text = word.translate(self._alphabet.table)
            test = b"(?<=" + re.escape(text) + b")" if text != pair else b""
            test += translated(ahead.get(word, b""), self._alphabet)
            behind = before + len(pair)
            tails.append(Tail(number, text[:behind], text[behind:], test))
        return re.compile(pair + self._branch(tails))

    def _branch(self, tails: Sequence[Tail]) -> bytes:
        """A regex for what may follow where all these tails have gone on alike.

        Tails that go on come first, by their next letter: `re` passes over a letter that does not
        stand there without a call. Those that end here share a look behind.
        """
        by_letter: dict[bytes, list[Tail]] = {}
        for tail in tails:
            by_letter.setdefault(tail.rest[:1], []).append(tail)
        ended = by_letter.pop(b"", [])
        branches = []
        for letter, group in by_letter.items():
            longer = [tail._replace(text=tail.text + letter, rest=tail.rest[1:]) for tail in group]
            branches.append(re.escape(letter) + self._branch(longer))
        if len(ended) > 1:
            shared = min(len(tail.text) for tail in ended)
            texts = sorted({re.escape(tail.text[-shared:]) for tail in ended})
            branches.append(b"(?<=" + b"|".join(texts) + b")(?:" + self._tests(ended) + b")")
        elif ended:
            branches.append(self._tests(ended))
        return b"(?:" + b"|".join(branches) + b")"

    def _tests(self, tails: Sequence[Tail]) -> bytes:
        """The tests of the tails, each with an empty group behind it that tells the word."""
        tests = []
        for tail in tails:
            test = tail.test
            for group in OWN_GROUPS:
                if group in test:
                    self._groups += 1
                    test = test.replace(group, b"\\%d" % self._groups)
            self._groups += 1
            self._word_of[self._groups] = tail.number
            tests.append(test + b"()")
        return b"|".join(tests)

    def _alike(self, lower: bytes, pair: int, shown: int) -> int:
        """The number of the word whose pair is there, where the copy shows another; or -1."""
        for number in self._alikes[shown]:
            word, before = self._words[number]
            if lower.startswith(word, pair - before):
                return number
        return -1

    def _alike_among(self, shown: int, others: Sequence[int]) -> list[int]:
        """Which of the other words may stand where the copy shows this one."""
        word, before = self._words[shown]
        text = word.translate(self._alphabet.table)
        alikes = []
        for number in others:
            other, other_before = self._words[number]
            alike = other.translate(self._alphabet.table)
            shift = before - other_before
            pairs = [
                (text[i], alike[i - shift]) for i in range(len(text)) if 0 <= i - shift < len(alike)
            ]
            if all(a == b for a, b in pairs):
                alikes.append(number)
        return alikes


class WordFinder:
    """Finds words in any case, and visits them in the order of its table."""

    def __init__(
        self, visits: Mapping[bytes, Sequence[Visitor]], ahead: Mapping[bytes, bytes]
    ) -> None:
        """`ahead`: by word, a regex for what must follow it."""
        self._visits = [(word in FAR_WORDS, together(visits[word])) for word in visits]
        left = dict(enumerate(visits))
        self._passes: dict[bytes, list[WordPass]] = {}  # by the table of the copy
        for alphabet in WORD_ALPHABETS:
            for pair in alphabet.pairs:
                words = {
                    number: word for number, word in left.items() if alphabet.pair_of(word) == pair
                }
                left = {number: word for number, word in left.items() if number not in words}
                if words:
                    each = WordPass(alphabet, pair, words, ahead)
                    self._passes.setdefault(alphabet.table, []).append(each)
        assert not left, f"no alphabet shows the pair of {list(left.values())}"

    def find(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit the words, word by word: of several in a name, the first in order decides."""
        places: dict[int, list[int]] = {}
        for table, passes in self._passes.items():
            copy = block.translate(table)
            for each in passes:
                each.find(copy, block, places, found)
        crowded = sum(map(len, places.values())) * CROWD > len(block)
        for number in sorted(places):
            far, visit = self._visits[number]
            if crowded and not far:
                visit = once(visit)
            go_on = 0
            for at in places[number]:
                if at >= go_on:
                    go_on = visit(block, at, lines, found)


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
                again = match.moved(at)
                if again.secret_start not in found.values:
                    found.values.add(again.secret_start)
                    found.append((rank, again))
            return at + before.step
        known = len(found)
        end = visit(block, at, lines, found)
        new = tuple((rank, match.moved(-at)) for rank, match in found[known:])
        decided = all(match.end <= SEEN_BEHIND for _, match in new)
        if decided and len(seen) < MOST_SEEN and LONG_SPACE not in around.translate(SPACES):
            seen[around] = SeenText(end - at, new)
        return end

    return visit_new


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
