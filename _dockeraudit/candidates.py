"""Candidates: what the finders report, and which of them stay where their secrets overlap.

A finder looks for anchors (a word, a run of token characters, `://`, `@`) and matches a rule's
pattern there. It appends each match, with its rule's place in the table, to a `Found`. Then
`without_overlaps` decides.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple

from _dockeraudit.plausibility import (
    PUBLISHED,
    decoded,
    decodes_to_pair,
    is_filled_in,
    is_jwt,
    is_placeholder,
    is_status,
)
from _dockeraudit.rules import Match, Rule

#: the rule's place in the table, and the match
Candidate = tuple[int, Match]
#: finders whose matches may be placeholders; the six original rules report whatever they match
ADDED_FINDS = frozenset(
    ("token", "inside", "mark", "url", "scheme", "curl", "basic", "hook", "bearer-value", "encoded")
)
#: finders whose secrets people chose, so that placeholders are words
CHOSEN_FINDS = frozenset(("url", "curl", "encoded", "bearer-value"))
#: what documents show where a URL's password stands
EXAMPLE_PASSWORDS = frozenset(
    b"foo bar baz pass pwd pw abc xyz hello password secret user token".split()
)
LINE_SPACE = rb"[^\S\n]"  # white space that keeps a match on its line


class Anchored(NamedTuple):
    """A rule ready to be matched: its place in the table, its pattern compiled, and kept on a line.

    `weak`: the rule as a placeholder is reported under it.
    """

    rank: int
    rule: Rule
    whole: Any
    on_line: Any
    weak: Rule


def anchored_rules(rules: Sequence[Rule]) -> dict[str, list[Anchored]]:
    """The rules compiled, by the finder that anchors them."""
    by_find: dict[str, list[Anchored]] = {}
    for rank, rule in enumerate(rules):
        on_line = rule.pattern
        for space, on_one_line in ((rb"\s*", LINE_SPACE + b"*"), (rb"\s+", LINE_SPACE + b"+")):
            on_line = on_line.replace(space, on_one_line)
        weak = rule._replace(severity="LOW")
        anchored = Anchored(rank, rule, re.compile(rule.pattern), re.compile(on_line), weak)
        by_find.setdefault(rule.find, []).append(anchored)
    return by_find


def by_keyword(rules: Iterable[Anchored], size: int | None = None) -> dict[bytes, list[Anchored]]:
    """The rules by each of their keywords, or by the last `size` bytes of it."""
    table: dict[bytes, list[Anchored]] = {}
    for anchored in rules:
        for keyword in anchored.rule.keywords:
            table.setdefault(keyword[-size:] if size else keyword, []).append(anchored)
    return table


class Found(list):  # type: ignore[type-arg]
    """The candidates of one block, and what the finders remember while they scan it."""

    def __init__(self) -> None:
        super().__init__()
        #: by visitor or rule: the offset from which it goes on
        self.ends: dict[Any, int] = {}
        self.lower = b""  # the block in lower case, once a word was found in it
        self.values: set[int] = set()  # starts of reported values: a name may hold several words
        #: logs repeat themselves, and judging a value costs 10 µs
        self.judged: dict[Any, Anchored | None] = {}
        #: texts of an added rule's shape that are no secret, for the command `test`
        self.rejected: list[tuple[Rule, int, int]] = []


#: (block, the anchor's offset, whether lines stand for themselves, candidates) → where to go on
Visitor = Callable[[bytes, int, bool, Found], int]


def together(visits: Sequence[Visitor]) -> Visitor:
    """One visitor for all that share an anchor; each is skipped up to where it wants to go on."""
    if len(visits) == 1:
        return visits[0]

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        ends = found.ends
        for each in visits:
            if ends.get(each, 0) <= at:
                ends[each] = each(block, at, lines, found)
        return at + 1

    return visit


def at_literal(anchored: Anchored) -> Visitor:
    """A visitor for a rule whose pattern begins with the anchor: gives what finditer gives."""
    whole, on_line = anchored.whole.match, anchored.on_line.match

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        match = (on_line if lines else whole)(block, at)
        if match is None:
            return at + 1
        accept(anchored, block, match, found)
        return int(match.end())

    return visit


def accept(anchored: Anchored, block: bytes, match: Any, found: Found) -> None:
    """Append the match, unless it is of an added rule and its secret is a placeholder."""
    rule = anchored.rule
    start, end = match.span(rule.group if rule.group >= 0 else match.lastindex)
    if rule.find in ADDED_FINDS and not rule.custom and not is_credible(rule, block[start:end]):
        found.rejected.append((rule, start, end))
        return
    if rule.find in ORIGINAL_FINDS and ORIGINAL_FINDS[rule.find](block, match, start, end):
        weak = Match(anchored.weak, match.start(), match.end(), start, end, True)
        found.append((anchored.rank, weak))
        return
    found.append((anchored.rank, Match(rule, match.start(), match.end(), start, end)))


def is_credible(rule: Rule, secret: bytes) -> bool:
    """Whether an added rule's secret is more than a placeholder of the right shape."""
    if rule.id == "url-default-password":
        return True
    if rule.find == "url" and secret in EXAMPLE_PASSWORDS:
        return False
    if rule.find in CHOSEN_FINDS:
        return not is_placeholder(secret)
    if rule.find == "basic":
        return decodes_to_pair(secret)
    if rule.id in ("json-web-token", "json-web-encryption"):
        return is_jwt(secret)
    if rule.id == "json-web-token-base64":
        return is_jwt(decoded(secret))
    if rule.id == "google-api-key":
        return not is_filled_in(secret) and not is_published(secret)
    return not is_filled_in(secret)


def is_published(key: bytes) -> bool:
    """Whether the key's owner publishes it in software."""
    import hashlib  # here, since it costs each worker 2 MiB (workers.py) and few keys come this far

    return hashlib.sha256(key).hexdigest()[:12].encode() in PUBLISHED


def without_overlaps(candidates: list[Candidate]) -> list[Match]:
    """The candidates whose secrets overlap none of an earlier rule's, sorted by start."""
    kept: list[Candidate] = []
    crowd: list[Candidate] = []  # candidates of which each overlaps another
    reach = -1
    for candidate in sorted(candidates, key=SECRET_START):
        if crowd and candidate[1].secret_start >= reach:
            kept += crowd if len(crowd) == 1 else with_union(crowd)
            crowd = []
        crowd.append(candidate)
        reach = max(reach, candidate[1].secret_end)
    kept += crowd if len(crowd) == 1 else with_union(crowd)
    return sorted((match for _, match in kept), key=MATCH_START)


def with_union(crowd: list[Candidate]) -> list[Candidate]:
    """Of candidates that overlap, those that stay; each knows what all of them cover."""
    kept = first_ranked(crowd)
    grave = [
        match
        for _, match in crowd
        if match.rule.severity != "LOW" and not (match.placeholder or match.rule.multiline)
    ]
    if len(kept) == len(crowd) or not grave:
        return kept
    union = (min(map(SECRET_FROM, grave)), max(match.secret_end for match in grave))
    return [(rank, Match(*match[:-1], union)) for rank, match in kept]


def first_ranked(crowd: list[Candidate]) -> list[Candidate]:
    """Of candidates that overlap, those of earlier rules; of the same rule, those that begin
    first."""
    if len(crowd) == 2:
        return [min(crowd, key=RANK_AND_START)]
    taken: list[Candidate] = []
    starts: list[int] = []
    for candidate in sorted(crowd, key=RANK_AND_START):
        match = candidate[1]
        at = bisect.bisect_left(starts, match.secret_start)
        if at < len(taken) and starts[at] < match.secret_end:
            continue
        if at and taken[at - 1][1].secret_end > match.secret_start:
            continue
        starts.insert(at, match.secret_start)
        taken.insert(at, candidate)
    return taken


# ---- placeholders among the matches of the original rules ----

WHOLE_VALUE = re.compile(rb"[^\s\"'`<>]*")
#: what stands in a header's place of a key that is not shown
NO_KEY_BODY = re.compile(
    rb"(?:\\+[nr]|\s|[\"'])*(?:\.\.\.|\*\*\*|<|\[|redacted|x{4}|-----END)", re.I
)
VALUE_LIMIT = 128  # bytes of a value that are looked at


def is_no_value(block: bytes, match: Any, start: int, end: int) -> bool:
    """Whether what stands behind `password=` or `api_key=` is plainly no secret."""
    whole = WHOLE_VALUE.match(block, start, start + VALUE_LIMIT).group()  # type: ignore[union-attr]
    value = block[start:end]
    if is_placeholder(value) or is_placeholder(whole):
        return True
    return is_status(value) and block[start - 1 : start] not in b"=\"'"


def is_no_bearer(block: bytes, match: Any, start: int, end: int) -> bool:
    """Whether what stands behind `bearer` is no token."""
    value = block[start:end].split(None, 1)[-1]
    return (
        is_placeholder(value)
        or value.replace(b"-", b"").replace(b"_", b"").isalpha()
        and (value.islower() or value.isupper())
    )


def is_no_access_key(block: bytes, match: Any, start: int, end: int) -> bool:
    """Whether an access key id is only its shape."""
    return len(set(block[start + 4 : end])) < 4


def is_no_key(block: bytes, match: Any, start: int, end: int) -> bool:
    """Whether a private key's header has no key behind it."""
    return NO_KEY_BODY.match(block, end, end + VALUE_LIMIT) is not None


ORIGINAL_FINDS: dict[str, Callable[[bytes, Any, int, int], bool]] = {
    "password": is_no_value,
    "api": is_no_value,
    "bearer": is_no_bearer,
    "aws": is_no_access_key,
    "pem": is_no_key,
}
SECRET_START: Callable[[Candidate], int] = lambda candidate: candidate[1].secret_start
RANK_AND_START: Callable[[Candidate], tuple[int, int]] = lambda candidate: (
    candidate[0],
    candidate[1].start,
)
SECRET_FROM: Callable[[Match], int] = lambda match: match.secret_start
MATCH_START: Callable[[Match], int] = lambda match: match.start
