"""How many rules are applied to one block of bytes at little more than the cost of one.

    block ─▶ anchors (literals and token runs, a few passes at C speed) ─▶ the rule's own pattern, matched there
          ─▶ candidates ─▶ overlap resolved on the secrets' spans (earlier rules of the table win) ─▶ Match

No pattern is ever searched for: a regex that begins with a class or ignores case walks at 0.1 GB/s, and the e-mail
pattern is quadratic. Words, literals and runs are found, and patterns are matched there.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

from _dockeraudit.plausibility import (
    CAPITALS,
    LETTERS,
    NO_SECRET_NAME,
    NO_WORD,
    PUBLISHED,
    SERVICES,
    Key,
    decoded,
    decodes_to_pair,
    is_filled_in,
    is_jwt,
    is_placeholder,
    is_random,
    is_strong,
    is_typed,
    name_kind,
    password_rule,
    secret_rule,
)
from _dockeraudit.rules import Match, Rule

RUN_CHARACTERS = bytes(
    120 if chr(c).isalnum() and c < 128 or c in b"_-" else 32 for c in range(256)
)
AWS_HEAD = b"AKIA"
RUN_LEAST = b"x" * 20  # no prefixed token is shorter; runs of 12 are five times as many
#: what may stand before a run and yet belong to its token, or to an escape that is glued to it
GLUE = frozenset(b".!\\%[")
TOKEN_START = 32  # bytes before a run in which its token may begin: pat.XXXXXXXXXXXXXXXXXXXXXX.
LONG_RUN = (
    3  # times that length: tokens that only an inner literal gives away have a run of 60 or more
)
TOKEN_SIGNS = LETTERS + b"0123456789._-!"
LOCAL_PART = LETTERS + b"0123456789._%+-"
#: rules matched where a word stands, in any case, by their finder; words are visited in this order, then SECRET_WORDS'
WORD_ANCHORS = {
    "pem": b"-----begin",
    "password": b"pass",
    "bearer": b"bearer",
    "basic": b"basic ",
    "curl": b"curl ",
    "api": b"key",
}
#: All words are looked for in one pass over a copy in which b, c, p, u are k and a, r, t, w are e: each of them then holds
#: a `ke`, which `re` finds by its first letter. That costs as much as to find three words one after the other.
WORD_LETTERS = bytes.maketrans(
    CAPITALS + b"bcpuBCPUartwARTW", CAPITALS.lower() + b"kkkkkkkkeeeeeeee"
)
WORD_PAIR = b"ke"
DOMAIN = re.compile(rb"@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
MARK_WINDOW = 4096  # bytes in which, after a mark that was none, the next real one is searched at C speed: texts full of them
MARK_LONGEST = 512  # bytes of the longest token that a mark gives away
MARK_OFFSET = 5  # bytes before the ~ in a Microsoft Entra secret
URL_AUTHORITY = 400  # bytes behind a :// in which its host ends
HOST_TAIL = 8  # bytes of a host's end by which rules for it are looked up
NAME_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_.-"
#: the words that make a name a secret's, and what may follow them at once: `author` and `keyboard` are sorted out here
NAME_GOES_ON = b"_-.\"'`]:=,>| \t\\%\x1b0123456789"
SECRET_WORDS = {
    b"key": b"to te va pl pro pas ph da de li", b"token": b"key va pl pro pas da de", b"secret": b"key va pl pro pas da de to te",
    b"pass": b"word wd phrase code", b"pwd": b"", b"auth": b"or",
}  # fmt: skip
SPACED_WORDS = (b"key", b"token", b"secret")
BEFORE_SIZE = 96  # bytes before the secret word in which the name begins, and in which a service's word counts
#: from behind the secret word: the name's rest, what closes it, the operator, what opens the value
ASSIGNMENT = re.compile(
    rb"(?=([\w.\-]{0,48}))\1(?=[=:\"'`\]\\,>| \t!%\x1b])(?:"  # the name's rest, taken whole: a lookahead gives nothing back
    rb"(?:\\{0,2}[\"'`]|\x1b\[[\d;]{0,8}m)?\]?[ \t]{0,16}(?P<assigned>=>|:=|===?|!=|==?|:(?![:/])|\|\||%3[ad])[ \t]{0,16}(?:\x1b\[[\d;]{0,8}m)?"  # name = value
    rb"|\\{0,2}[\"'][ \t]{0,4},?[ \t]{0,4}(?:\\{0,2}[\"'])?value(?:\\{0,2}[\"'])?[ \t]{0,4}(?P<member>[:=])[ \t]{0,4}(?=\\{0,2}[\"'])"  # "name", "value": "value"
    rb"|\\{0,2}[\"'][ \t]{0,4}(?P<listed>,)[ \t]{0,16}(?=\\{0,2}[\"'`])"  # ("name", "value")
    rb"|(?P<element>>)(?=[^<>\s])"  # <name>value</name>
    rb"|[ \t]{1,3}-?[ \t]{0,3}(?=[\"'])"  # name 'value', name - 'value'
    rb")(?P<quote>\\{0,2}(?:\"{3}|'{3}|[\"'`])|)"
)
#: what assignments have behind their secret word, as far as it can be seen where letters stand for others
OPERATOR_AHEAD = rb"(?=([\w.\-]{0,48}))\%d(?:[=:\"'`\\|!%%\x1b]|>[^<>\s]|\][ \t]{0,16}[=:|!%%]|[ \t]{1,16}[=:|!%%\-\"'])"
#: `SERVICE KEY value`, `service-secret-value`: what stands between the secret word and a value, where a service is named
SPACED_REST = rb"(?:[ _\-]?(?:access|secret|private|api|token|key|pat)(?![a-z]))?(?:[ \t_\-.:]{1,3}|[ ](?:is|was|=)[ ])[\"']?"
SPACED = re.compile(SPACED_REST + rb"([a-z0-9_\-+/=.]{12,512})")
#: what follows secret words that more follows, as far as it can be seen where letters stand for others
SPACED_AHEAD = (
    re.sub(rb"(?<!\\)[a-z]{2,}", lambda word: word.group().translate(WORD_LETTERS), SPACED_REST)
    + rb"(?=[a-z_\-+/=.]{0,24}[0-9]|[a-z0-9_\-+/=.]{24})[a-z0-9_\-+/=.]{12}"
)
BARE_VALUE = re.compile(rb"[^\s\"'`,;<>&)}\]\\\x1b]{4,512}")
NEXT_NAME = re.compile(
    rb"\\{0,2}[\"'][ \t]{0,4}:"
)  # behind `"password", "name` it was a list, or the next member
QUOTED_VALUE = {
    quote: re.compile(rb"[^\r\n\\" + quote + rb"]{4,512}(?=[\\" + quote + rb"])")
    for quote in (b'"', b"'", b"`")
}
ENCODED_VALUE = re.compile(
    rb"[A-Za-z0-9_.~\-]{4,512}"
)  # as far as percent-encoding leaves it as it is
ELEMENT_VALUE = re.compile(rb"[^\r\n<>]{4,512}(?=</)")
VALUES = {b">": ELEMENT_VALUE, b"%3d": ENCODED_VALUE, b"%3a": ENCODED_VALUE}
WORD = re.compile(rb"[a-z0-9]+")
#: what stands beside a service's name in one word: hubspotapi, awssecretaccess
NAME_AFFIX = re.compile(
    rb"^(?:x|my)(?=[a-z]{4})|(?:api|app|client|access|secret|private|auth|oauth|prod|live|test|dev|admin|user|server|account|service|refresh|personal|bot|sms|io|sdk|crm|write|read)+$"
)
CURL_WINDOW = 128  # bytes behind curl in which a URL begins
#: finders of rules whose matches may be placeholders; the six originals report whatever they match
ADDED_FINDS = frozenset(("token", "inside", "mark", "url", "curl", "basic", "hook"))
LINE_SPACE = rb"[^\S\n]"  # white space that keeps a match on its line
USER_WINDOW = (
    4096  # bytes around a keyword in which a user's pattern is searched, where lines are endless
)
Candidate = tuple[int, Match]


class Anchored(NamedTuple):
    """A rule ready to be matched: its place in the table and its compiled pattern, whole and kept on one line."""

    rank: int
    rule: Rule
    whole: Any
    on_line: Any


class Found(list):  # type: ignore[type-arg]
    """The candidates found so far in one block, how far each visitor of a shared literal has come, which values were judged."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[Any, int] = {}
        self.lower = b""  # the block's lower-case copy, once a secret word is in it
        self.values: set[int] = (
            set()
        )  # where keyed values that were reported begin: names may hold several words
        self.judged: dict[Any, Anchored | None] = {}  # logs repeat themselves; judging costs 10 µs


#: (block, where the anchor is, whether lines stand for themselves, what is found) → where to go on
Visitor = Callable[[bytes, int, bool, Found], int]


class Scanner:
    """Finds every secret that its rules describe, in one block of bytes.

    Example: `Scanner(rules=select_rules(RULES, disable=["email-address"])).scan(block)`
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_find: dict[str, list[Anchored]] = {}
        self._heads: dict[bytes, list[Anchored]] = {}
        self._services: dict[bytes, list[Anchored]] = {}
        self._hosts: dict[bytes, list[Anchored]] = {}
        self._marks: dict[bytes, list[Anchored]] = {}
        for rank, rule in enumerate(self.rules):
            on_line = rule.pattern.replace(rb"\s*", LINE_SPACE + b"*").replace(
                rb"\s+", LINE_SPACE + b"+"
            )
            anchored = Anchored(rank, rule, re.compile(rule.pattern), re.compile(on_line))
            self._by_find.setdefault(rule.find, []).append(anchored)
            table = {
                "token": self._heads,
                "service": self._services,
                "hook": self._hosts,
                "mark": self._marks,
            }.get(rule.find, {})
            for keyword in rule.keywords:
                table.setdefault(
                    keyword[-HOST_TAIL:] if rule.find == "hook" else keyword, []
                ).append(anchored)
        self._names = SERVICES.union(self._services)
        self._generic = {anchored.rule.id: anchored for anchored in self._by_find.get("keyed", ())}
        self._in_block, self._in_lower = self._literals()
        self._at_words = self._words()
        self._word = word_finder([word for word, _, _ in self._at_words])
        self._url = url_finder(self._hosts)

    def _literals(self) -> tuple[list[tuple[bytes, Visitor]], list[tuple[bytes, Visitor]]]:
        """The literals to look for, in the block and in its lower-case copy, each with what to do there."""
        in_block: dict[bytes, list[Visitor]] = {}
        in_lower: dict[bytes, list[Visitor]] = {}
        if "mark" in self._by_find:
            in_block.update({b"~": [self._mark(1, 1)], b"$": [self._mark(0, 3)]})
        for anchored in self._by_find.get("email", ()):
            in_block.setdefault(b"@", []).append(self._email(anchored))
        for anchored in self._by_find.get("line", ()):
            for keyword in anchored.rule.keywords:
                in_lower.setdefault(keyword.lower(), []).append(self._in_line(anchored))
        return [(literal, together(visits)) for literal, visits in in_block.items()], [
            (literal, together(visits)) for literal, visits in in_lower.items()
        ]

    def _words(self) -> list[tuple[bytes, int, Visitor]]:
        """The words to look for, each with where its pair of letters stands and what to do there."""
        words: dict[bytes, list[Visitor]] = {}
        visitors = {"api": self._api, "curl": self._curl}
        for find, word in WORD_ANCHORS.items():
            for anchored in self._by_find.get(find, ()):
                words.setdefault(word, []).append(visitors.get(find, self._literal)(anchored))
        if "keyed" in self._by_find or "service" in self._by_find:
            for word in SECRET_WORDS:
                words[word] = [self._keyed(word, words.get(word, ()))]
        return [
            (word, word.translate(WORD_LETTERS).index(WORD_PAIR), together(visits))
            for word, visits in words.items()
        ]

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
        for literal, visit in self._in_block:
            at = block.find(literal)
            while at >= 0:
                at = block.find(literal, visit(block, at, lines, found))
        if self._at_words:
            self._find_words(block, lines, found)
        if self._in_lower:
            self._find_keywords(block, lines, found)
        if "url" in self._by_find or self._hosts:
            for match in self._url.finditer(block):
                self._visit_url(block, match.start(), found)
        if self._heads or "inside" in self._by_find:
            self._find_tokens(block, found)
        else:
            self._find_aws(block, 0, len(block), found)
        return without_overlaps(found) if found else []

    # ---- words ----

    def _find_words(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit each word where it stands, word by word: a name may hold several, and their order decides."""
        places: dict[int, list[int]] = {}
        for match in self._word.finditer(block.translate(WORD_LETTERS)):
            places.setdefault(match.lastindex, []).append(match.start())
        for group in sorted(places):
            word, before, visit = self._at_words[group // 2 - 1]
            go_on = 0
            for start in places[group]:
                at = start - before
                if at >= go_on and block[at : at + len(word)].lower() == word:
                    found.lower = found.lower or block.lower()
                    go_on = visit(block, at, lines, found)

    def _find_keywords(self, block: bytes, lines: bool, found: Found) -> None:
        """Visit the keywords of users' rules."""
        lower = found.lower or block.lower()
        for literal, visit in self._in_lower:
            at = lower.find(literal)
            while at >= 0:
                at = lower.find(literal, visit(block, at, lines, found))

    # ---- prefixed tokens ----

    def _find_tokens(self, block: bytes, found: Found) -> None:
        """Prefixed tokens: jump from run to run of token characters, look the first three bytes up."""
        heads, infixes = self._heads, "inside" in self._by_find
        runs = block.translate(RUN_CHARACTERS)
        at, seen, pieces = runs.find(RUN_LEAST), -1, 0
        while at >= 0:
            pieces = (
                pieces + 1 if at == seen else 1
            )  # of the length that is looked for, in this run
            seen = at + len(RUN_LEAST)
            if pieces == 1:
                before = block[at - 1] if at else 32
                if before in GLUE:
                    start = glued_start(block, at, before)
                    if block[start : start + 3] in heads:
                        self._token(block, start, found)
                if block[at : at + 3] in heads and before not in b".!":
                    self._token(block, at, found)
            elif pieces == LONG_RUN and infixes:
                end = runs.find(b" ", seen)
                seen = end if end >= 0 else len(block)
                self._infixed(
                    block,
                    max(0, at - LONG_RUN * len(RUN_LEAST) - TOKEN_START),
                    seen + TOKEN_START,
                    found,
                )
            if block.find(AWS_HEAD, at, seen + len(AWS_HEAD) - 1) >= 0:
                self._find_aws(block, at, seen + len(RUN_LEAST) - 1, found)
            at = runs.find(RUN_LEAST, seen)

    def _find_aws(self, block: bytes, at: int, end: int, found: Found) -> None:
        """The original's keys. Each is a run of the least length: where runs are looked for anyway, only these are searched."""
        for anchored in self._by_find.get("aws", ()):
            for match in anchored.whole.finditer(
                block, max(at, found.ends.get(anchored.rank, 0)), end
            ):
                found.ends[anchored.rank] = match.end()
                accept(anchored, block, match, found)

    def _infixed(self, block: bytes, at: int, end: int, found: Found) -> None:
        """Match the rules whose literal stands inside a long token."""
        for anchored in self._by_find["inside"]:
            for keyword in anchored.rule.keywords:
                if block.find(keyword, at, end) >= 0:
                    for match in anchored.whole.finditer(block, at, end):
                        accept(anchored, block, match, found)

    def _token(self, block: bytes, at: int, found: Found) -> None:
        """Match the rules whose tokens begin so."""
        for anchored in self._heads.get(block[at : at + 3], ()):
            if at < found.ends.get(anchored.rank, 0):
                continue  # inside the rule's own last match: never retried there, which would be quadratic
            match = anchored.whole.match(block, at)
            if match:
                found.ends[anchored.rank] = match.end()
                accept(anchored, block, match, found)

    # ---- literals ----

    def _literal(self, anchored: Anchored) -> Visitor:
        """A visitor for a rule whose pattern begins with the literal: what a plain finditer gives."""
        whole, on_line = anchored.whole.match, anchored.on_line.match

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            match = (on_line if lines else whole)(block, at)
            if match is None:
                return at + 1
            accept(anchored, block, match, found)
            return match.end()

        return visit

    def _mark(self, before: int, after: int) -> Visitor:
        """A visitor for a byte that is rare in logs and stands in some tokens: looked up with its neighbours."""
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
            nearby = (
                anchored.whole.search(block, at + 1, at + MARK_WINDOW)
                for anchored in self._by_find["mark"]
            )
            return min(
                (match.start() for match in nearby if match),
                default=at + MARK_WINDOW - MARK_LONGEST,
            )

        return visit

    def _api(self, anchored: Anchored) -> Visitor:
        """A visitor at `key` for the pattern that begins with `api`: the rarer half is looked for."""
        match_here = self._literal(anchored)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            start = found.lower.rfind(b"api", max(0, at - 4), at)
            if start < 0 or at - start == 4 and block[at - 1] not in b"_-":
                return at + 1
            return max(at + 1, match_here(block, start, lines, found))

        return visit

    def _email(self, anchored: Anchored) -> Visitor:
        """A visitor for e-mail addresses, from each @ outwards: the pattern itself is quadratic under `re`."""

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            low = 0  # set by the last match of this block, which the next local part may not reach into
            domain = DOMAIN.search(block, at)
            while domain:
                at = domain.start()
                before = block[max(low, at - 1024) : at]
                size = len(before) - len(before.rstrip(LOCAL_PART))
                if size == 1024:
                    size = at - low - len(block[low:at].rstrip(LOCAL_PART))
                if size:
                    found.append(
                        (
                            anchored.rank,
                            Match(anchored.rule, at - size, domain.end(), at - size, domain.end()),
                        )
                    )
                    low = domain.end()
                domain = DOMAIN.search(block, domain.end() if size else at + 1)
            return len(block)

        return visit

    def _in_line(self, anchored: Anchored) -> Visitor:
        """A visitor for users' rules: the pattern is searched for in the line that holds the keyword."""

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            start = max(block.rfind(b"\n", 0, at) + 1, at - USER_WINDOW)
            end = block.find(b"\n", at)
            end = min(at + USER_WINDOW, len(block) if end < 0 else end)
            for match in anchored.whole.finditer(block, start, end):
                accept(anchored, block, match, found)
            return max(end, at + 1)

        return visit

    # ---- URLs ----

    def _visit_url(self, block: bytes, at: int, found: Found) -> None:
        """At a :// that the finder took: credentials in the URL, URLs that are credentials."""
        host_end = block.find(b"/", at + 3, at + URL_AUTHORITY)
        for anchored in (
            *self._by_find.get("url", ()),
            *self._hosts.get(block[host_end - HOST_TAIL : host_end], ()),
        ):
            match = anchored.whole.match(block, at)
            if match:
                accept(anchored, block, match, found)

    def _curl(self, anchored: Anchored) -> Visitor:
        """A visitor at `curl ` for the credentials among its options, if it has a URL."""
        match_here = self._literal(anchored)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            url = block.find(b"://", at, at + CURL_WINDOW)
            if url < 0 or found.lower.find(b"curl ", at + 1, url) >= 0:
                return at + 1
            return match_here(block, at, lines, found)

        return visit

    # ---- keyed secrets ----

    def _keyed(self, word: bytes, others: Sequence[Visitor]) -> Visitor:
        """A visitor for NAME = VALUE, where the name holds this word; `others` share the literal and the first look behind it."""

        goes_on, spaced, size = name_goes_on(word), word in SPACED_WORDS, len(word)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            lower, behind = found.lower, at + size
            if lower[behind : behind + 1] not in goes_on:
                return behind
            assignment = ASSIGNMENT.match(lower, behind)
            if assignment is None:
                return self._spaced(block, at, behind, found) if spaced else behind
            taken = False  # by one of the originals, which come before the rules for names of every kind
            rest, operator, member, listed, element, quote = assignment.groups()
            if (
                operator and others and lower[behind + len(rest)] in b":="
            ):  # the originals take no quote before it
                for other in others:
                    if found.ends.get(other, 0) <= at:
                        end = found.ends[other] = other(block, at, lines, found)
                        taken = taken or end > behind
                        if taken and word == b"pass":
                            return end
            if rest and word in rest:  # the word stands twice in the name: the last one counts
                inner = rest.rfind(word)
                at, rest = behind + inner, rest[inner + size :]
            start = assignment.end()
            if start in found.values:
                return behind
            if operator is None:  # <add key="Password" value="x"/> is configuration, seldom in use
                operator = b"value=" if member == b"=" else member or listed or element or b" "
            value = (
                VALUES.get(operator) or (QUOTED_VALUE[quote[-1:]] if quote else BARE_VALUE)
            ).match(block, start)
            if value is None or operator == b"," and NEXT_NAME.match(block, value.end()):
                return behind
            end = int(value.end())
            if operator == b":" and not quote and block[start:end].isalpha():
                return end  # prose: the commonest case, and never a secret
            self._assigned(block, at, (word, rest, operator, bool(quote), taken), start, end, found)
            return end

        return visit

    def _assigned(
        self,
        block: bytes,
        at: int,
        key: tuple[bytes, bytes, bytes, bool, bool],
        start: int,
        end: int,
        found: Found,
    ) -> None:
        """Report an assignment whose value, from `start` to `end`, is a secret; `key`: the last five of a Key."""
        value_start = start
        if (
            key[2] == b">" and block[start : start + 1] == b"{"
        ):  # <secret>{AQAAABAAA value}</secret>
            start, end = block.rfind(b" ", start, end) + 1 or start + 1, end - 1
        before = line_before(found.lower, at)
        case = (before, key, block[start:end])
        try:
            anchored = found.judged[case]
        except KeyError:
            anchored = found.judged[case] = self._judge(Key(*split_name(before), *key), case[2])
        if anchored:
            found.values.add(value_start)
            found.append(
                (
                    anchored.rank,
                    Match(anchored.rule, at - len(split_name(before)[1]), end, start, end),
                )
            )

    def _spaced(self, block: bytes, at: int, behind: int, found: Found) -> int:
        """`SERVICE KEY value` without an operator: only where a known service is named before it."""
        spaced = SPACED.match(found.lower, behind)
        if spaced is None:
            return behind
        start, end = spaced.span(1)
        value = block[start:end]
        context, prefix = split_name(line_before(found.lower, at))
        anchored = self._service(context + prefix, value, random=True) if is_random(value) else None
        if anchored and not is_placeholder(value) and not NO_SECRET_NAME.search(prefix):
            found.append((anchored.rank, Match(anchored.rule, at - len(prefix), end, start, end)))
        return int(end)

    def _judge(self, key: Key, value: bytes) -> Anchored | None:
        """The rule under which this value is a secret, or None."""
        kind = name_kind(key.prefix, key.word, key.rest)
        if (
            kind == "none"
            or key.context.endswith(b"/")
            or key.operator == b">"
            and not key.context.endswith(b"<")
        ):
            return None
        if kind == "password":
            return None if is_placeholder(value) else self._generic.get(password_rule(key, value))
        if key.operator == b" " or len(value) < 8 or len(value) < 24 and not NO_WORD.search(value):
            return None
        if key.taken:
            shaped = self._service(key.context + key.prefix, value, random=False)
            return shaped if shaped and not is_placeholder(value) else None
        if is_placeholder(value):
            return None
        if key.word == b"auth" and decodes_to_pair(value):  # Docker's config.json, .npmrc
            return self._generic.get("keyed-secret")
        random = is_random(value)
        return self._service(key.context + key.prefix, value, random) or self._generic.get(
            secret_rule(kind, key, value, random)
        )

    def _service(self, before: bytes, value: bytes, random: bool) -> Anchored | None:
        """The rule of a service that is named before a value of its shape, or of any random value behind a known name.

        Names are looked for backwards: each word, joined with the one before it, and bare of what stands beside names.
        """
        known, services = False, self._services
        words = WORD.findall(before)
        if self._names.isdisjoint(
            [*words, *map(bytes.__add__, words, words[1:]), *map(bare_name, words)]
        ):
            return None  # as nearly always, at a third of the time
        for number in range(len(words) - 1, -1, -1):
            word = words[number]
            for name in (
                (word, words[number - 1] + word, bare_name(word))
                if number
                else (word, bare_name(word))
            ):
                known = known or name in SERVICES
                if name in services:
                    known = True
                    for anchored in services[name]:
                        if anchored.whole.fullmatch(value):
                            return (
                                self._generic.get("keyed-secret-weak")
                                if is_typed(value)
                                else anchored
                            )
        if known and random:
            return self._generic.get("keyed-secret" if is_strong(value) else "keyed-secret-weak")
        return None


@functools.lru_cache(maxsize=4096)
def bare_name(word: bytes) -> bytes:
    """A word without the api, key and the like that are written together with a service's name."""
    return NAME_AFFIX.sub(b"", word)


def line_before(lower: bytes, at: int) -> bytes:
    """What stands before a secret word on its line, as far as it is looked at."""
    return lower[at - BEFORE_SIZE if at > BEFORE_SIZE else 0 : at].rpartition(b"\n")[2]


def split_name(before: bytes) -> tuple[bytes, bytes]:
    """What stands before the name that holds a secret word, and the name's beginning."""
    context = before.rstrip(NAME_CHARACTERS)
    return context, before[len(context) :]


def together(visits: Sequence[Visitor]) -> Visitor:
    """One visitor for all that share a literal, each going on where it said."""
    if len(visits) == 1:
        return visits[0]

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        ends = found.ends
        for one in visits:
            if ends.get(one, 0) <= at:
                ends[one] = one(block, at, lines, found)
        return at + 1

    return visit


def name_goes_on(word: bytes) -> bytes:
    """The characters that may follow a secret word in a name."""
    return NAME_GOES_ON + b"s" + bytes({more[0] for more in SECRET_WORDS[word].split()})


def word_finder(words: Iterable[bytes]) -> Any:
    """A regex for the copy in WORD_LETTERS: matches at each word's pair of letters; the last group is twice the word's number, from 1."""
    parts = []
    for number, word in enumerate(words):
        text = word.translate(WORD_LETTERS)
        at = text.index(WORD_PAIR) + len(WORD_PAIR)
        part = (
            re.escape(text[at:]) + b"(?<=" + re.escape(text) + b")"
        )  # a literal first: `re` then tries it without a call
        if word in SECRET_WORDS:
            goes_on = b"|".join(
                (
                    b"s?[" + re.escape(NAME_GOES_ON) + b"]",
                    *SECRET_WORDS[word].translate(WORD_LETTERS).split(),
                )
            )
            ahead = OPERATOR_AHEAD % (2 * number + 1)
            part += (
                b"(?="
                + goes_on
                + b")(?="
                + (ahead + b"|" + SPACED_AHEAD if word in SPACED_WORDS else ahead)
                + b")()"
            )
        else:
            part += b"()()"
        parts.append(part)
    return re.compile(WORD_PAIR + b"(?:" + b"|".join(parts) + b")")


def url_finder(host_tails: Iterable[bytes]) -> Any:
    """A regex for URLs that may hold credentials, or whose host ends so."""
    tails = b"|".join(map(re.escape, host_tails))
    host = rb"[a-z0-9.\-]{0,%d}(?<=%s)/|" % (URL_AUTHORITY, tails) if tails else b""
    return re.compile(rb"://(?=" + host + rb"[^\s/?#\"'<>`\\]{0,%d}@)" % URL_AUTHORITY)


def glued_start(block: bytes, at: int, before: int) -> int:
    """Where the token of a run begins: before a dot, or behind the escape that is glued to it: JSON's \\n, %3A, an ANSI colour."""
    if before in b".!":
        lead = block[max(0, at - TOKEN_START) : at]
        return at - len(lead) + len(lead.rstrip(TOKEN_SIGNS))
    if before == 92:
        return at + (5 if block[at] == 117 else 1)
    return at + 2 if before == 37 else block.find(b"m", at, at + 12) + 1


def accept(anchored: Anchored, block: bytes, match: Any, found: Found) -> None:
    """Take the match as a candidate, if it is no placeholder; the six originals report whatever they match."""
    rule = anchored.rule
    start, end = match.span(rule.group)
    if rule.find in ADDED_FINDS and not rule.custom and not stands_up(rule, block[start:end]):
        return
    found.append((anchored.rank, Match(rule, match.start(), match.end(), start, end)))


def stands_up(rule: Rule, secret: bytes) -> bool:
    """Whether an added rule's secret is more than a placeholder of the right shape."""
    if rule.find in ("url", "curl"):
        return not is_placeholder(secret)
    if rule.find == "basic":
        return decodes_to_pair(secret)
    if rule.id in ("json-web-token", "json-web-encryption"):
        return is_jwt(secret)
    if rule.id == "jwt-base64":
        return is_jwt(decoded(secret))
    return not is_filled_in(secret) and (
        rule.id != "google-api-key" or hashlib.sha256(secret).hexdigest()[:12] not in PUBLISHED
    )


def without_overlaps(candidates: list[Candidate]) -> list[Match]:
    """The candidates whose secrets do not overlap one of an earlier rule, sorted by start."""
    kept: list[Candidate] = []
    crowd: list[Candidate] = []  # candidates of which each overlaps another
    reach = -1
    for candidate in sorted(candidates, key=SECRET_START):
        if crowd and candidate[1].secret_start >= reach:
            kept += crowd if len(crowd) == 1 else first_ranked(crowd)
            crowd = []
        crowd.append(candidate)
        reach = max(reach, candidate[1].secret_end)
    kept += first_ranked(crowd)
    return sorted((match for _, match in kept), key=MATCH_START)


def first_ranked(crowd: list[Candidate]) -> list[Candidate]:
    """Of candidates that overlap, those of the earlier rules of the table, and of one rule the first."""
    taken: list[Candidate] = []
    starts: list[int] = []
    for candidate in sorted(crowd, key=lambda candidate: (candidate[0], candidate[1].start)):
        match = candidate[1]
        at = bisect.bisect_left(starts, match.secret_start)
        if (
            at < len(taken)
            and starts[at] < match.secret_end
            or at
            and taken[at - 1][1].secret_end > match.secret_start
        ):
            continue
        starts.insert(at, match.secret_start)
        taken.insert(at, candidate)
    return taken


SECRET_START: Callable[[Candidate], int] = lambda candidate: candidate[1].secret_start
MATCH_START: Callable[[Match], int] = lambda match: match.start


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
