"""Whether a regular expression may take far longer than its text is long.

Python's matcher tries, one after the other, all ways in which a pattern can match. Where two
repetitions can take the same characters, a text that nearly matches is divided between them in
every way: n ways in `a*a*b`, 2 to the n ways in `(a+)+b`.

    pattern ─▶ re's own parser ─▶ automaton: a state for each character of the pattern
            ─▶ search for two ways through it on the same text ─▶ Ambiguity, or None

An automaton tries exponentially many ways if on one text two ways lead from a state back to it. It
tries quadratically many (or more) if on one text a state leads back to itself and also to a second
state, which leads back to itself (A. Weber and H. Seidl, "On the degree of ambiguity of finite
automata", 1991). The search is exact for repetitions without an end. One that ends late is taken
for endless; one that ends early is written out.
"""

from __future__ import annotations

import collections
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

PARSER: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
NO_LIMIT = int(PARSER.MAXREPEAT)
FEW = 4  # a repetition of at most so many rounds is written out: four of four are 256 ways
LONG = 256  # a repetition of more rounds costs as much as an endless one
OVERLAP = 32  # rounds of two repetitions that may overlap: 32 times 32 ways
MOST_STATES = 2_000  # a pattern of five characters with {256} has 1,280
MOST_STEPS = 200_000  # of a search, about half a second; honest patterns take a few hundred
ANY_BYTE = (1 << 256) - 1
NEWLINE = 1 << 10
VISIBLE_BYTES = sum(1 << byte for byte in range(33, 127))
States = tuple[int, ...]
Edges = dict[States, dict[States, int]]  # what follows, and the bytes that lead there
Ways = list[tuple[int, int]]  # states, and the bytes that lead there


class Ambiguity(NamedTuple):
    """What is wrong with a pattern, and in which parts of its text.

    `kind`: "nested" (exponential), "overlapping" (quadratic or worse from one start), "unanchored"
    (quadratic over all starts) or "large" (not to be checked). `word`: where unanchored, a text
    that is slow if it is repeated.
    """

    kind: str
    places: tuple[str, ...] = ()
    word: bytes = b""


class TooLarge(Exception):
    """The pattern has too many states, or its search takes too many steps."""


class Part(NamedTuple):
    """A part of a pattern: where it begins and ends, and the ways in which it is empty (0 to 2)."""

    first: list[int]
    last: list[int]
    empty: int


EMPTY_PART = Part([], [], 1)


class Automaton:
    """A pattern's states. State 0 stands for the text before a match, which may begin anywhere."""

    def __init__(self, pattern: bytes) -> None:
        tree = PARSER.parse(pattern)
        self.taken = [ANY_BYTE]  # by state, the bytes that lead into it, as the bits of a number
        self.next: list[list[int]] = [[0]]  # by state, what may follow, once for each way to it
        self.repeats: list[list[int]] = [[]]  # by state, the numbers of the repetitions around it
        self.rounds = [NO_LIMIT]  # by state, how often it may be passed
        self._unsure: set[int] = set()  # states behind which a condition may fail
        self._groups: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}  # of repetitions, in the order of their signs
        self._fold = self._dotall = False  # the flags (?i) and (?s), where the builder is
        self._parts = 0
        self._number(tree)
        whole = self._flagged(tree, int(tree.state.flags), 0)
        self.next[0] += whole.first
        self.repetitions = len(self._numbers)
        self.ends = set(whole.last) - self._unsure

    def _number(self, tree: Any) -> None:
        """Number the repetitions in the order of their signs in the text; note the groups."""
        for op, value in tree:
            for inner in subtrees(value):
                self._number(inner)
            if op.name.endswith("_REPEAT"):
                self._numbers.setdefault(id(value[2]), len(self._numbers))
            elif op.name == "SUBPATTERN" and value[0]:
                self._groups[value[0]] = value[3]

    def _state(self, taken: int) -> Part:
        """A new state, into which these bytes lead."""
        state = len(self.taken)
        if state >= MOST_STATES:
            raise TooLarge
        self.taken.append(taken)
        self.next.append([])
        self.repeats.append([])
        self.rounds.append(1)
        return Part([state], [state], 0)

    def _join(self, before: list[int], after: list[int]) -> None:
        for state in before:
            self.next[state] += after

    def _sequence(self, tree: Any) -> Part:
        """Parts that follow one another."""
        whole = EMPTY_PART
        for op, value in tree:
            part = self._part(op.name, value)
            if op.name in ("ASSERT", "AT"):
                self._unsure.update(self._may_fail(op.name, value, whole.last))
            self._join(whole.last, part.first)
            whole = Part(
                whole.first + part.first * whole.empty,
                part.last + whole.last * part.empty,
                min(whole.empty * part.empty, 2),
            )
        return whole

    def _may_fail(self, op: str, value: Any, before: list[int]) -> list[int]:
        """The states behind which a condition may fail: a look ahead, or `$` if more may follow."""
        if op == "ASSERT":
            return before
        if not value.name.startswith("AT_END"):
            return []
        return [state for state in before if self.taken[state] | NEWLINE != ANY_BYTE]

    def _part(self, op: str, value: Any) -> Part:
        """One node of the parser's tree."""
        self._parts += 1
        if self._parts > 2 * MOST_STATES:
            raise TooLarge
        if op.endswith("_REPEAT"):
            return self._repeat(int(value[0]), int(value[1]), value[2])
        if op == "SUBPATTERN":
            return self._flagged(value[3], value[1], value[2])
        if op == "BRANCH":
            return self._choice(value[1])
        if op == "GROUPREF_EXISTS":
            return self._choice([tree for tree in value[1:] if tree is not None])
        if op == "ATOMIC_GROUP":
            return self._sequence(value)
        if op == "GROUPREF":
            return self._sequence(self._groups[value])
        if op in ("ASSERT", "ASSERT_NOT"):
            return self._look(*value)
        if op == "AT":
            return EMPTY_PART
        return self._state(bytes_of(op, value, self._fold, self._dotall))

    def _flagged(self, tree: Any, added: int, removed: int) -> Part:
        """A sequence under flags of its own, as in (?i:x)."""
        before = self._fold, self._dotall
        self._fold = bool((self._fold or added & re.I) and not removed & re.I)
        self._dotall = bool((self._dotall or added & re.S) and not removed & re.S)
        part = self._sequence(tree)
        self._fold, self._dotall = before
        return part

    def _choice(self, trees: Iterable[Any]) -> Part:
        parts = [self._sequence(tree) for tree in trees]
        first = [state for part in parts for state in part.first]
        last = [state for part in parts for state in part.last]
        return Part(first, last, min(sum(part.empty for part in parts), 2))

    def _look(self, direction: int, tree: Any) -> Part:
        """A look ahead is a way that leads nowhere. A look behind is cheap: its width is fixed."""
        return Part(self._sequence(tree).first, [], 1) if direction > 0 else EMPTY_PART

    def _repeat(self, least: int, most: int, tree: Any) -> Part:
        """All rounds written out; or as many as it needs at least, with the last one repeated."""
        endless = most > FEW and not least == most <= LONG
        copies = min(max(least, 1), LONG) if endless else most
        first: list[int] = []
        last: list[int] = []
        open_ends: list[int] = []  # the ends of the round before
        empty = 1  # so far
        for number in range(copies):
            start = len(self.taken)
            part = self._sequence(tree)
            first += part.first if empty else []
            self._join(open_ends, part.first)
            open_ends = part.last + (open_ends if part.empty else [])
            empty = min(empty, part.empty)
            if endless and number == copies - 1:
                self._join(part.last, part.first)
                self._surround(range(start, len(self.taken)), tree, most)
            if number >= min(least, copies) - 1:
                last += open_ends
        return Part(first, last, 1 if least == 0 else empty)

    def _surround(self, states: range, tree: Any, most: int) -> None:
        """Note at these states that a repetition goes around them."""
        for state in states:
            self.repeats[state].append(self._numbers[id(tree)])
            self.rounds[state] = min(self.rounds[state] * most, NO_LIMIT)


class Search:
    """Looks in an automaton for two ways on the same text."""

    def __init__(self, automaton: Automaton) -> None:
        self._rounds = automaton.rounds
        self._steps = 0
        reach = reachable(automaton.next)
        self._loops = loops(reach)
        self._reach = reach
        #: by state, the states that may follow and the bytes that lead there
        self._ways: list[Ways] = [
            [(after, automaton.taken[after]) for after in each] for each in automaton.next
        ]
        #: the same without the bytes that end the match: the matcher then tries nothing else
        self._unfinished = [
            [] if state in automaton.ends else unfinished(ways, automaton.ends)
            for state, ways in enumerate(self._ways)
        ]

    def exponential(self) -> int | None:
        """A state to which two ways lead back on one text, or None."""
        return next((group[0] for group in self._loops if self._goes_two_ways(group)), None)

    def quadratic(self) -> tuple[int, int, bytes] | None:
        """Two states and a text that leads each to itself, and the first to the second; or None.

        Two inside the pattern come before a pair whose first is state 0.
        """
        for ahead in sorted(self._loops, key=lambda group: group == [0]):
            for behind in self._loops:
                if ahead is behind or not self._leads(ahead[0], behind[0]):
                    continue
                for one in ahead:
                    for other in behind:
                        word = self._overlap(one, other) if self._is_long(one, other) else b""
                        if word:
                            return one, other, word
        return None

    def _is_long(self, one: int, other: int) -> bool:
        """Whether the two take so many rounds that it matters if they overlap."""
        if one == 0:
            return self._rounds[other] > LONG
        return min(self._rounds[one], self._rounds[other]) > OVERLAP

    def _goes_two_ways(self, group: list[int]) -> bool:
        """Whether from one of the states that lead to one another two ways lead back to it."""
        inside = set(group)
        ways = {state: [way for way in self._ways[state] if way[0] in inside] for state in group}
        if any(len(each) > len(set(each)) for each in ways.values()):
            return True
        start = [(state, state) for state in group]
        edges = self._explore(start, lambda pair: self._together([ways[state] for state in pair]))
        back: dict[States, dict[States, int]] = {}
        for pair, following in edges.items():
            for after, taken in following.items():
                back.setdefault(after, {})[pair] = taken
        met = self._explore(start, lambda pair: back.get(pair, {}))
        return any(one != other for one, other in met)

    def _overlap(self, one: int, other: int) -> bytes:
        """A text that leads both states to themselves, and the first to the second; or nothing."""
        start, goal = (one, one, other), (one, other, other)

        def follow(states: States) -> dict[States, int]:
            ways = [self._unfinished[state] for state in states]
            if one == 0:
                ways[0] = self._ways[0]
            return self._together(
                [[way for way in each if self._leads(way[0], to)] for each, to in zip(ways, goal)]
            )

        edges = self._explore([start], follow)
        return spelled(edges, start, goal) if goal in edges else b""

    def _leads(self, state: int, to: int) -> bool:
        return state == to or bool(self._reach[state] >> to & 1)

    def _explore(
        self, start: Iterable[States], follow: Callable[[States], dict[States, int]]
    ) -> Edges:
        """All that can be reached from `start`, each with what follows it."""
        edges: Edges = {}
        waiting = list(start)
        while waiting:
            states = waiting.pop()
            if states not in edges:
                edges[states] = follow(states)
                waiting += edges[states]
        return edges

    def _together(self, ways: list[Ways]) -> dict[States, int]:
        """The states to which one byte leads from several states at once, and those bytes."""
        heads: list[tuple[States, int]] = [((), ANY_BYTE)]
        for each in ways:
            heads = [
                (states + (after,), common & taken)
                for states, common in heads
                for after, taken in each
                if common & taken
            ]
            self._steps += len(heads)
            if self._steps > MOST_STEPS:
                raise TooLarge
        return dict(heads)


def spelled(edges: Edges, start: States, goal: States) -> bytes:
    """A shortest text that leads from the start to the goal, which it reaches."""
    words = {start: b""}
    waiting = collections.deque([start])
    while waiting:
        states = waiting.popleft()
        for after, taken in edges[states].items():
            word = words[states] + bytes([byte_of(taken)])
            if after == goal:
                return word
            if after not in words:
                words[after] = word
                waiting.append(after)
    raise AssertionError("the goal is not reached")


def byte_of(taken: int) -> int:
    """One of the bytes, a printable one if there is one."""
    printable = taken & VISIBLE_BYTES or taken
    return (printable & -printable).bit_length() - 1


def unfinished(ways: Ways, ends: set[int]) -> Ways:
    """The ways without those bytes that lead to an end of the match."""
    finishing = 0
    for after, taken in ways:
        finishing |= taken if after in ends else 0
    return [(after, taken & ~finishing) for after, taken in ways if taken & ~finishing]


def reachable(following: Sequence[Sequence[int]]) -> list[int]:
    """By state, the states to which it leads, as the bits of a number."""
    reach = [0] * len(following)
    changed = True
    while changed:
        changed = False
        for state in reversed(range(len(following))):
            known = reach[state]
            for after in following[state]:
                known |= reach[after] | 1 << after
            changed = changed or known != reach[state]
            reach[state] = known
    return reach


def loops(reach: Sequence[int]) -> list[list[int]]:
    """The states that lead back to themselves, in groups of those that lead to one another."""
    groups: dict[int, list[int]] = {}
    for state, states in enumerate(reach):
        if states >> state & 1:
            groups.setdefault(states, []).append(state)
    return list(groups.values())


CLASSES = {"DIGIT": rb"\d", "SPACE": rb"\s", "WORD": rb"\w"}
CLASS_BYTES = {
    name: sum(1 << byte for byte in range(256) if re.match(pattern, bytes([byte])))
    for name, pattern in CLASSES.items()
}


def bytes_of(op: str, value: Any, fold: bool, dotall: bool) -> int:
    """The bytes that one character of a pattern takes, as the bits of a number."""
    if op == "ANY":
        return ANY_BYTE if dotall else ANY_BYTE & ~NEWLINE
    if op == "IN":
        members = [(member.name, inner) for member, inner in value if member.name != "NEGATE"]
        taken = 0
        for name, inner in members:
            taken |= bytes_of(name, inner, fold, dotall)
        return taken if len(members) == len(value) else ANY_BYTE & ~taken
    if op == "CATEGORY":
        name = value.name[len("CATEGORY_") :]
        taken = CLASS_BYTES[name.replace("NOT_", "")]
        return ANY_BYTE & ~taken if name.startswith("NOT_") else taken
    if op == "NOT_LITERAL":
        return ANY_BYTE & ~bytes_of("LITERAL", value, fold, dotall)
    least, most = value if op == "RANGE" else (value, value)
    text = bytes(range(least, most + 1))
    return sum(1 << byte for byte in set(text + (text.upper() + text.lower() if fold else b"")))


def subtrees(value: Any) -> Iterator[Any]:
    """The patterns inside a node of the parser's tree, in the order of the text."""
    if isinstance(value, PARSER.SubPattern):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from subtrees(each)


#: what a pattern consists of, as far as repetitions need to be told from their operands
PATTERN_TOKEN = re.compile(
    r"(?P<atom>\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:#[^)]*|P=\w+|[aiLmsux]+)\))"
    r"|(?P<open>\((?:\?(?:P<\w+>|[a-zA-Z-]*:|<?[=!]|>|\(\w+\)))?)|(?P<close>\))"
    r"|(?P<repeat>[*+?]|\{(?=[\d,])\d*(?:,\d*)?\})|.",
    re.S,
)


def repetitions(pattern: str) -> list[str]:
    """The repeated parts of a pattern's text with their signs, in the order of the signs."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    start = end = -1  # of the operand before; `end` is where a sign behind a sign would stand
    for token in PATTERN_TOKEN.finditer(pattern):
        if token.lastgroup == "repeat":
            if token.start() == end:  # the ? of a lazy repetition, the + of a possessive one
                found[-1] = (found[-1][0], token.end())
                continue
            end = token.end()
            found.append((start, end))
        elif token.lastgroup == "open":
            opened.append(token.start())
        elif token.lastgroup == "close":
            start = opened.pop() if opened else token.start()
        else:
            start = token.start()
    return [pattern[first:last] for first, last in found]


def ambiguity(pattern: bytes) -> Ambiguity | None:
    """What may make a pattern slow, or None. The pattern must be one that `re` takes."""
    try:
        automaton = Automaton(pattern)
        search = Search(automaton)
        state = search.exponential()
        if state is not None:
            return Ambiguity("nested", places(pattern, automaton, [state]))
        found = search.quadratic()
    except TooLarge:
        return Ambiguity("large")
    if found is None:
        return None
    one, other, word = found
    if one == 0:
        return Ambiguity("unanchored", places(pattern, automaton, [other]), word)
    return Ambiguity("overlapping", places(pattern, automaton, [one, other]))


def places(pattern: bytes, automaton: Automaton, states: list[int]) -> tuple[str, ...]:
    """The text of the outermost repetition around each state; the whole pattern where unknown."""
    text = pattern.decode("utf-8", "backslashreplace")
    parts = repetitions(text)
    if len(parts) != automaton.repetitions:  # a comment holds a sign, say
        return (text,) * len(states)
    return tuple(parts[max(automaton.repeats[state])] for state in states)
