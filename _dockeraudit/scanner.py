"""How many rules are applied to one block of bytes at little more than the cost of one.

    block ─▶ finders: anchors (words, literals, runs of token characters, ://) in a few passes
             at C speed, and the rules' patterns matched there ─▶ candidates
          ─▶ where secrets overlap, the earlier rule of the table wins ─▶ Match

No pattern is ever searched for: a regex that begins with a class, or that ignores case, walks at
0.1 GB/s, and the e-mail pattern is quadratic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from _dockeraudit.candidates import (
    Anchored,
    Found,
    Visitor,
    accept,
    anchored_rules,
    at_literal,
    together,
    without_overlaps,
)
from _dockeraudit.phrasefinder import ANNOUNCEMENT_AHEAD, ANNOUNCEMENTS, at_announcement
from _dockeraudit.phrases import NAME_PHRASES, PHRASE_AHEAD, PHRASES, PhraseFinder
from _dockeraudit.rules import Match, Rule
from _dockeraudit.secretwords import SECRET_WORDS, secret_word_visits, word_ahead
from _dockeraudit.sentences import undecided_from
from _dockeraudit.shortoptions import CommandLineFinder
from _dockeraudit.tokenfinder import MarkFinder, TokenFinder
from _dockeraudit.traces import ASKS_PASSWORD, at_call, at_challenge, at_frame
from _dockeraudit.urlfinder import UrlFinder, at_host, at_percent, at_sign
from _dockeraudit.wordfinder import WordFinder, at_curl, at_key

#: the word at which a rule is matched, by its finder; words are visited in this order
WORD_ANCHORS = {
    "pem": b"-----begin",
    "password": b"pass",
    "bearer-value": b"bearer",
    "bearer": b"bearer",
    "basic": b"basic ",
    "curl": b"curl ",
    "api": b"key",
}
BELOW = frozenset(
    ("next-line-secret", "protocol-login", "recovery-phrase")
)  # rules that look a line on
AT_WORD = {"api": at_key, "curl": at_curl}
USER_WINDOW = 4096  # bytes around a keyword in which a user's pattern is searched, in endless lines


class Scanner:
    """Finds every secret that its rules describe, in one block of bytes.

    Example: `Scanner(rules=select_rules(RULES, disable=["email-address"])).scan(block)`
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        by_find = anchored_rules(self.rules)
        keyed = {anchored.rule.id: anchored for anchored in by_find.get("keyed", ())}
        phrases = PhraseFinder(keyed)
        self._words = word_finder(by_find, phrases)
        options = keyed.get("command-line-secret")
        self._options = CommandLineFinder(options) if options else None
        self._foreign = phrases.foreign()
        self._looks_below = any(rule.id in BELOW for rule in self.rules)
        self._tokens = TokenFinder(*(by_find.get(find, ()) for find in ("token", "inside", "aws")))
        urls = [by_find.get(find, ()) for find in ("url", "hook", "scheme")]
        self._urls = UrlFinder(*urls) if any(urls) else None
        self._literals = literal_visitors(by_find)
        self._keywords = keyword_visitors(by_find.get("line", ()))

    def scan(self, block: bytes) -> list[Match]:
        """All matches in the block, sorted by start, no two secrets overlapping."""
        return self._scan(block, False)

    def scan_lines(self, block: bytes) -> list[Match]:
        """What scanning each line on its own would give, with offsets in the block.

        Added to that: secrets that stand one to three lines below their names.
        """
        return self._scan(block, True)

    def undecided(self, block: bytes) -> int:
        """Where the last lines begin whose secrets may stand on the next lines; else the end.

        `block` is whole lines. Keep those lines, and scan them again in front of what comes.
        """
        return undecided_from(block) if self._looks_below else len(block)

    def _scan(self, block: bytes, lines: bool) -> list[Match]:
        found = self.candidates(block, lines)
        return without_overlaps(found) if found else []

    def candidates(self, block: bytes, lines: bool) -> Found:
        """What the finders report, secrets that overlap too, and what they have considered."""
        found = Found()
        visit_literals(self._literals, block, block, lines, found)
        if self._foreign and not block.isascii():
            visit_literals(self._foreign, block, block, lines, found)
        if self._options:
            self._options.find(block, found)
        if self._words:
            self._words.find(block, lines, found)
        if self._keywords:
            visit_literals(self._keywords, found.lower or block.lower(), block, lines, found)
        if self._urls:
            self._urls.find(block, found)
        self._tokens.find(block, found)
        return found


def visit_literals(
    visits: Mapping[bytes, Visitor], text: bytes, block: bytes, lines: bool, found: Found
) -> None:
    """Visit each literal of `text`, which is the block or its lower-case copy."""
    for literal, visit in visits.items():
        at = text.find(literal)
        while at >= 0:
            at = text.find(literal, visit(block, at, lines, found))


def literal_visitors(by_find: Mapping[str, Sequence[Anchored]]) -> dict[bytes, Visitor]:
    """The bytes that are rare in logs and at which rules are matched, with their visitors."""
    visits: dict[bytes, Visitor] = {}
    if "mark" in by_find:
        marks = MarkFinder(by_find["mark"])
        visits.update({b"~": marks.at_mark(1, 1), b"$": marks.at_mark(0, 3)})
    for anchored in by_find.get("keyed", ()):
        if anchored.rule.id == "stack-trace-argument":
            visits.update({b">": at_call(anchored), b"#": at_frame(anchored)})
    for anchored in by_find.get("encoded", ()):
        visits[b"%"] = at_percent(anchored)
    at_signs = [at_sign(anchored) for anchored in by_find.get("email", ())]
    at_signs += [at_host(anchored) for anchored in by_find.get("at", ())]
    if at_signs:
        visits[b"@"] = in_turn(at_signs)
    return visits


def in_turn(visits: Sequence[Visitor]) -> Visitor:
    """One visitor for those that each look at all of the block from their first anchor on."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        for each in visits:
            each(block, at, lines, found)
        return len(block)

    return visit


def word_finder(
    by_find: Mapping[str, Sequence[Anchored]], phrases: PhraseFinder
) -> WordFinder | None:
    """The finder of the words that name secrets, or behind which rules are matched."""
    visits = phrases.visits(NAME_PHRASES)
    for find, word in WORD_ANCHORS.items():
        for anchored in by_find.get(find, ()):
            visits[word] = [*visits.get(word, ()), AT_WORD.get(find, at_literal)(anchored)]
    if "keyed" in by_find or "service" in by_find:
        visits.update(secret_word_visits(by_find, visits))
    visits.update(phrases.visits(PHRASES))
    for anchored in by_find.get("keyed", ()):
        if anchored.rule.id == "protocol-login":
            visits[ASKS_PASSWORD.lower()] = [at_challenge(anchored)]
    if "phrase" in by_find:
        visits.update({word: [at_announcement(word, by_find["phrase"])] for word in ANNOUNCEMENTS})
    ahead = {word: word_ahead(word) for word in visits if word in SECRET_WORDS}
    return WordFinder(visits, {**ahead, **PHRASE_AHEAD, **ANNOUNCEMENT_AHEAD}) if visits else None


def keyword_visitors(rules: Sequence[Anchored]) -> dict[bytes, Visitor]:
    """The keywords of users' rules, in lower case, with their visitors."""
    visits: dict[bytes, list[Visitor]] = {}
    for anchored in rules:
        for keyword in anchored.rule.keywords:
            visits.setdefault(keyword.lower(), []).append(in_line(anchored))
    return {keyword: together(each) for keyword, each in visits.items()}


def in_line(anchored: Anchored) -> Visitor:
    """A visitor that searches a user's pattern in the line that holds the keyword."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        start = max(block.rfind(b"\n", 0, at) + 1, at - USER_WINDOW)
        end = block.find(b"\n", at)
        end = min(at + USER_WINDOW, len(block) if end < 0 else end)
        for match in anchored.whole.finditer(block, start, end):
            accept(anchored, block, match, found)
        return max(end, at + 1)

    return visit


def rule_problems(rule: Rule) -> Iterator[str]:
    """What is wrong with a rule by its own examples and negatives."""
    scanner = Scanner([rule])
    for example in rule.examples:
        if not any(keyword.lower() in example.lower().encode() for keyword in rule.keywords):
            yield f"{rule.id}: example {example!r} holds none of the keywords"
        elif not scanner.scan(example.encode()):
            yield f"{rule.id}: example {example!r} is not found"
    for negative in rule.negatives:
        if scanner.scan(negative.encode()):
            yield f"{rule.id}: negative {negative!r} is found"
