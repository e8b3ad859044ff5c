"""Finds tokens that their own shape gives away: by their first bytes, an inner literal, or a
rare mark."""

from __future__ import annotations

from collections.abc import Sequence

from _dockeraudit.candidates import Anchored, Found, Visitor, accept, by_keyword
from _dockeraudit.plausibility import LETTERS

#: a copy of the block in which `x` stands for each character of a token, and a blank for the rest
RUN_CHARACTERS = bytes(
    120 if chr(c).isalnum() and c < 128 or c in b"_-" else 32 for c in range(256)
)
AWS_HEAD = b"AKIA"
RUN_LEAST = b"x" * 20  # no prefixed token is shorter; runs of 12 are five times as many
#: what may stand before a run and yet belong to its token, or to an escape glued to the token
GLUE = frozenset(b".!\\%[:")
TOKEN_START = 32  # bytes before a run in which its token may begin: pat.XXXXXXXXXXXXXXXXXXXXXX.
#: length, in RUN_LEAST, of the shortest run in which rules with an inner literal are looked for
LONG_RUN = 3
TOKEN_SIGNS = LETTERS + b"0123456789._-!"
MARK_WINDOW = 4096  # bytes searched at C speed for the next real mark behind a false one
MARK_LONGEST = 512  # bytes of the longest token that a mark gives away
MARK_OFFSET = 5  # bytes before the ~ in a Microsoft Entra secret


class TokenFinder:
    """Jumps from run to run of token characters and looks up the first three bytes of each."""

    def __init__(
        self, tokens: Sequence[Anchored], inside: Sequence[Anchored], aws: Sequence[Anchored]
    ) -> None:
        self._heads = by_keyword(tokens)
        self._inside = inside
        self._aws = aws

    def find(self, block: bytes, found: Found) -> None:
        """Append the tokens of the block."""
        if not self._heads and not self._inside:
            self._find_aws(block, 0, len(block), found)
            return
        heads, runs = self._heads, block.translate(RUN_CHARACTERS)
        at, seen, pieces = runs.find(RUN_LEAST), -1, 0
        while at >= 0:
            pieces = pieces + 1 if at == seen else 1  # of RUN_LEAST, in this run
            seen = at + len(RUN_LEAST)
            if pieces == 1:
                before = block[at - 1] if at else 32
                if before in GLUE or block[at : at + 3] in heads:
                    self._find_head(block, at, before, found)
            elif pieces == LONG_RUN and self._inside:
                end = runs.find(b" ", seen)
                seen = end if end >= 0 else len(block)
                start = max(0, at - LONG_RUN * len(RUN_LEAST) - TOKEN_START)
                self._find_inside(block, start, seen + TOKEN_START, found)
            if block.find(AWS_HEAD, at, seen + len(AWS_HEAD) - 1) >= 0:
                self._find_aws(block, at, seen + len(RUN_LEAST) - 1, found)
            at = runs.find(RUN_LEAST, seen)

    def _find_head(self, block: bytes, at: int, before: int, found: Found) -> None:
        """Match the token of a run that begins at `at`, or a little before it; `before`: the byte
        before the run."""
        if before in GLUE:
            start = glued_start(block, at, before)
            if block[start : start + 3] in self._heads:
                self._match(block, start, found)
        if block[at : at + 3] in self._heads and before not in b".!":
            self._match(block, at, found)

    def _match(self, block: bytes, at: int, found: Found) -> None:
        """Match the rules whose tokens have this head. None is tried inside its own last match."""
        for anchored in self._heads[block[at : at + 3]]:
            if at < found.ends.get(anchored.rank, 0):
                continue  # trying again there would be quadratic
            match = anchored.whole.match(block, at)
            if match:
                found.ends[anchored.rank] = match.end()
                accept(anchored, block, match, found)

    def _find_inside(self, block: bytes, at: int, end: int, found: Found) -> None:
        """Match the rules whose literal stands inside a long token."""
        for anchored in self._inside:
            for keyword in anchored.rule.keywords:
                if block.find(keyword, at, end) >= 0:
                    for match in anchored.whole.finditer(block, at, end):
                        accept(anchored, block, match, found)

    def _find_aws(self, block: bytes, at: int, end: int, found: Found) -> None:
        """Search the original rule's keys. Each has the length of RUN_LEAST, so no run is
        missed."""
        for anchored in self._aws:
            start = max(at, found.ends.get(anchored.rank, 0))
            for match in anchored.whole.finditer(block, start, end):
                found.ends[anchored.rank] = match.end()
                accept(anchored, block, match, found)


def glued_start(block: bytes, at: int, before: int) -> int:
    """Where the token of the run at `at` begins.

    A token with a dot (`pat.XXX`) begins before the dot. Where an escape stands in front of a token
    (JSON's \\n, %3A, a colour), the token begins behind the escape.
    """
    if before in b".!":
        lead = block[max(0, at - TOKEN_START) : at]
        return at - len(lead) + len(lead.rstrip(TOKEN_SIGNS))
    if before == 58:  # the number of a Telegram bot
        lead = block[max(0, at - TOKEN_START) : at - 1]
        return at - 1 - len(lead) + len(lead.rstrip(b"0123456789"))
    if before == 92:
        return at + (5 if block[at] == 117 else 1)
    return at + 2 if before == 37 else block.find(b"m", at, at + 12) + 1


class MarkFinder:
    """Finds tokens by a byte that is rare in logs, `~` or `$`, and its neighbours."""

    def __init__(self, rules: Sequence[Anchored]) -> None:
        self._rules = rules
        self._marks = by_keyword(rules)

    def at_mark(self, before: int, after: int) -> Visitor:
        """A visitor at the byte; the mark takes `before` bytes before it, `after` from it on."""
        marks = self._marks

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            rules = marks.get(block[at - before : at + after])
            if not rules:
                return at + 1
            for anchored in rules:
                match = anchored.whole.match(block, max(0, at - MARK_OFFSET * before))
                if match:
                    accept(anchored, block, match, found)
                    return int(match.end())
            return self._next(block, at, found)

        return visit

    def _next(self, block: bytes, at: int, found: Found) -> int:
        """Where to go on behind a false mark, in a text that may be full of them.

        Where each rule matches next is remembered: nothing is searched twice.
        """
        go_on = at + MARK_WINDOW - MARK_LONGEST
        for anchored in self._rules:
            known = found.ends.get((anchored.rank, "next"), 0)
            if known <= at:
                match = anchored.whole.search(block, at + 1, at + MARK_WINDOW)
                known = match.start() if match else at + MARK_WINDOW - MARK_LONGEST
                found.ends[anchored.rank, "next"] = known
            go_on = min(go_on, known)
        return go_on
