"""How many rules are applied to one block of bytes at little more than the cost of one.

    block ─▶ finders: anchors (words, literals, runs of token characters, ://) in a few passes at C speed,
             the rules' patterns matched there ─▶ candidates
          ─▶ where secrets overlap, the earlier rule of the table wins ─▶ Match

No pattern is ever searched for: a regex that begins with a class, or that ignores case, walks at
0.1 GB/s, and the e-mail pattern is quadratic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from _dockeraudit.assignments import SECRET_WORDS, AssignmentFinder, word_ahead
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
from _dockeraudit.rules import Match, Rule
from _dockeraudit.tokenfinder import MarkFinder, TokenFinder
from _dockeraudit.urlfinder import UrlFinder, at_sign
from _dockeraudit.wordfinder import WordFinder, at_curl, at_key

#: the word at which a rule is matched, by its finder; words are visited in this order
WORD_ANCHORS = {
    "pem": b"-----begin",
    "password": b"pass",
    "bearer": b"bearer",
    "basic": b"basic ",
    "curl": b"curl ",
    "api": b"key",
}
AT_WORD = {"api": at_key, "curl": at_curl}
USER_WINDOW = 4096  # bytes around a keyword in which a user's pattern is searched, in endless lines


class Scanner:
    """Finds every secret that its rules describe, in one block of bytes.

    Example: `Scanner(rules=select_rules(RULES, disable=["email-address"])).scan(block)`
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        by_find = anchored_rules(self.rules)
        self._words = word_finder(by_find)
        self._tokens = TokenFinder(*(by_find.get(find, ()) for find in ("token", "inside", "aws")))
        self._has_urls = "url" in by_find or "hook" in by_find
        self._urls = UrlFinder(by_find.get("url", ()), by_find.get("hook", ()))
        self._literals = literal_visitors(by_find)
        self._keywords = keyword_visitors(by_find.get("line", ()))

    def scan(self, block: bytes) -> list[Match]:
        """All matches in the block, sorted by start, no two secrets overlapping."""
        return self._scan(block, False)

    def scan_lines(self, block: bytes) -> list[Match]:
        """What scanning each line of the block on its own would give, with offsets in the block."""
        return self._scan(block, True)

    def undecided(self, block: bytes) -> int:
        """Where in whole lines the last ones begin whose secret may stand on the next line."""
        return len(block)

    def _scan(self, block: bytes, lines: bool) -> list[Match]:
        found = Found()
        visit_literals(self._literals, block, block, lines, found)
        if self._words:
            self._words.find(block, lines, found)
        if self._keywords:
            visit_literals(self._keywords, found.lower or block.lower(), block, lines, found)
        if self._has_urls:
            self._urls.find(block, found)
        self._tokens.find(block, found)
        return without_overlaps(found) if found else []


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
    if "email" in by_find:
        visits[b"@"] = together([at_sign(anchored) for anchored in by_find["email"]])
    return visits


def word_finder(by_find: Mapping[str, Sequence[Anchored]]) -> WordFinder:
    """The finder of all words at which rules are matched."""
    visits: dict[bytes, list[Visitor]] = {}
    ahead: dict[bytes, bytes] = {}
    for find, word in WORD_ANCHORS.items():
        for anchored in by_find.get(find, ()):
            visits.setdefault(word, []).append(AT_WORD.get(find, at_literal)(anchored))
    if "keyed" in by_find or "service" in by_find:
        assignments = AssignmentFinder(by_find.get("keyed", ()), by_find.get("service", ()))
        for word in SECRET_WORDS:
            visits[word] = [assignments.at_word(word, visits.get(word, ()))]
            ahead[word] = word_ahead(word)
    return WordFinder(visits, ahead)


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
