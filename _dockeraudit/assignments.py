"""Finds NAME = VALUE in all its forms, where the name is a secret's.

word ─▶ ASSIGNMENT (the name's rest, the operator, the quote) ─▶ value ─▶ judged by name and value
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from _dockeraudit.candidates import Anchored, Found, Visitor, by_keyword
from _dockeraudit.plausibility import (
    NO_SECRET_NAME,
    NO_WORD,
    Key,
    decodes_to_pair,
    is_placeholder,
    is_random,
    is_strong,
    is_typed,
    name_kind,
    password_rule,
    secret_rule,
)
from _dockeraudit.rules import Match
from _dockeraudit.services import SERVICES
from _dockeraudit.wordfinder import WORD_LETTERS

NAME_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_.-"
#: the words that make a name a secret's, and what may follow them: `author` and `keyboard` do not
NAME_GOES_ON = b"_-.\"'`]:=,>| \t\\%\x1b0123456789"
SECRET_WORDS = {
    b"key": b"to te va pl pro pas ph da de li",
    b"token": b"key va pl pro pas da de",
    b"secret": b"key va pl pro pas da de to te",
    b"pass": b"word wd phrase code",
    b"pwd": b"",
    b"auth": b"or",
}
SPACED_WORDS = (b"key", b"token", b"secret")
BEFORE_SIZE = 96  # bytes before the secret word in which the name begins and a service may be named
#: from behind the secret word: the name's rest, what closes it, the operator, what opens the value
ASSIGNMENT = re.compile(
    # the name's rest, taken whole: a lookahead gives nothing back
    rb"(?=([\w.\-]{0,48}))\1(?=[=:\"'`\]\\,>| \t!%\x1b])(?:"
    # name = value
    rb"(?:\\{0,2}[\"'`]|\x1b\[[\d;]{0,8}m)?\]?[ \t]{0,16}"
    rb"(?P<assigned>=>|:=|===?|!=|==?|:(?![:/])|\|\||%3[ad])[ \t]{0,16}(?:\x1b\[[\d;]{0,8}m)?"
    # "name", "value": "value"
    rb"|\\{0,2}[\"'][ \t]{0,4},?[ \t]{0,4}(?:\\{0,2}[\"'])?value(?:\\{0,2}[\"'])?[ \t]{0,4}"
    rb"(?P<member>[:=])[ \t]{0,4}(?=\\{0,2}[\"'])"
    # ("name", "value")
    rb"|\\{0,2}[\"'][ \t]{0,4}(?P<listed>,)[ \t]{0,16}(?=\\{0,2}[\"'`])"
    # <name>value</name>
    rb"|(?P<element>>)(?=[^<>\s])"
    # name 'value', name - 'value'
    rb"|[ \t]{1,3}-?[ \t]{0,3}(?=[\"'])"
    rb")(?P<quote>\\{0,2}(?:\"{3}|'{3}|[\"'`])|)"
)
#: what follows the secret word of an assignment, as far as the translated copy shows it
OPERATOR_AHEAD = (
    rb"(?=([\w.\-]{0,48}))\%d(?:[=:\"'`\\|!%%\x1b]|>[^<>\s]|\][ \t]{0,16}[=:|!%%]"
    rb"|[ \t]{1,16}[=:|!%%\-\"'])"
)
#: `SERVICE KEY value`, `service-secret-value`: what stands between the secret word and the value
SPACED_REST = (
    rb"(?:[ _\-]?(?:access|secret|private|api|token|key|pat)(?![a-z]))?"
    rb"(?:[ \t_\-.:]{1,3}|[ ](?:is|was|=)[ ])[\"']?"
)
SPACED = re.compile(SPACED_REST + rb"([a-z0-9_\-+/=.]{12,512})")
#: the same, as far as the translated copy shows it
SPACED_AHEAD = (
    re.sub(rb"(?<!\\)[a-z]{2,}", lambda word: word.group().translate(WORD_LETTERS), SPACED_REST)
    + rb"(?=[a-z_\-+/=.]{0,24}[0-9]|[a-z0-9_\-+/=.]{24})[a-z0-9_\-+/=.]{12}"
)
BARE_VALUE = re.compile(rb"[^\s\"'`,;<>&)}\]\\\x1b]{4,512}")
#: behind `"password", "name"`: the text was a list, or `name` is the next member's name
NEXT_NAME = re.compile(rb"\\{0,2}[\"'][ \t]{0,4}:")
QUOTED_VALUE = {
    quote: re.compile(rb"[^\r\n\\" + quote + rb"]{4,512}(?=[\\" + quote + rb"])")
    for quote in (b'"', b"'", b"`")
}
#: as far as percent-encoding leaves the value as it is
ENCODED_VALUE = re.compile(rb"[A-Za-z0-9_.~\-]{4,512}")
ELEMENT_VALUE = re.compile(rb"[^\r\n<>]{4,512}(?=</)")
VALUES = {b">": ELEMENT_VALUE, b"%3d": ENCODED_VALUE, b"%3a": ENCODED_VALUE}
WORD = re.compile(rb"[a-z0-9]+")
#: what stands beside a service's name in one word: hubspotapi, awssecretaccess
NAME_AFFIX = re.compile(
    rb"^(?:x|my)(?=[a-z]{4})|(?:api|app|client|access|secret|private|auth|oauth|prod|live|test|dev|"
    rb"admin|user|server|account|service|refresh|personal|bot|sms|io|sdk|crm|write|read)+$"
)


class AssignmentFinder:
    """Judges the values that are assigned to names with a secret word in them."""

    def __init__(self, keyed: Sequence[Anchored], services: Sequence[Anchored]) -> None:
        self._generic = {anchored.rule.id: anchored for anchored in keyed}
        self._services = by_keyword(services)
        self._names = SERVICES.union(self._services)

    def at_word(self, word: bytes, others: Sequence[Visitor]) -> Visitor:
        """A visitor at a secret word; `others` are at the same word, and their values come first."""
        goes_on, spaced, size = name_goes_on(word), word in SPACED_WORDS, len(word)

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            lower, behind = found.lower, at + size
            if lower[behind : behind + 1] not in goes_on:
                return behind
            assignment = ASSIGNMENT.match(lower, behind)
            if assignment is None:
                return self._spaced(block, at, behind, found) if spaced else behind
            taken = False  # by one of the original rules
            rest, operator, member, listed, element, quote = assignment.groups()
            # the originals take no quote before the operator
            if operator and others and lower[behind + len(rest)] in b":=":
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
            pattern = VALUES.get(operator) or (QUOTED_VALUE[quote[-1:]] if quote else BARE_VALUE)
            value = pattern.match(block, start)
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
        """Report the value from `start` to `end` if it is a secret; `key`: the last five of a Key."""
        value_start = start
        if key[2] == b">" and block[start : start + 1] == b"{":
            # <secret>{AQAAABAAA value}</secret>
            start, end = block.rfind(b" ", start, end) + 1 or start + 1, end - 1
        before = line_before(found.lower, at)
        case = (before, key, block[start:end])
        try:
            anchored = found.judged[case]
        except KeyError:
            word, rest, operator, quoted, taken = key
            judged = Key(*split_name(before), word, rest, operator, quoted, taken)
            anchored = found.judged[case] = self._judge(judged, case[2])
        if anchored:
            found.values.add(value_start)
            name = at - len(split_name(before)[1])
            found.append((anchored.rank, Match(anchored.rule, name, end, start, end)))

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
        if kind == "none" or key.context.endswith(b"/"):
            return None
        if key.operator == b">" and not key.context.endswith(b"<"):
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
        """The rule of a service named before a value of its shape, or any random value behind one.

        Each word before the value is tried, the last one first: as it stands, joined with the word
        before it, and without what is written together with services' names.
        """
        known, services = False, self._services
        words = WORD.findall(before)
        joined = map(bytes.__add__, words, words[1:])
        if self._names.isdisjoint([*words, *joined, *map(bare_name, words)]):
            return None  # as nearly always, at a third of the time
        for name in names_backwards(words):
            known = known or name in SERVICES
            if name in services:
                known = True
                for anchored in services[name]:
                    if anchored.whole.fullmatch(value):
                        return (
                            self._generic.get("keyed-secret-weak") if is_typed(value) else anchored
                        )
        if known and random:
            return self._generic.get("keyed-secret" if is_strong(value) else "keyed-secret-weak")
        return None


def names_backwards(words: Sequence[bytes]) -> Iterator[bytes]:
    """What may be a service's name, from the last word on."""
    for number in range(len(words) - 1, -1, -1):
        yield words[number]
        if number:
            yield words[number - 1] + words[number]
        yield bare_name(words[number])


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


def name_goes_on(word: bytes) -> bytes:
    """The characters that may follow a secret word in a name."""
    return NAME_GOES_ON + b"s" + bytes({more[0] for more in SECRET_WORDS[word].split()})


def word_ahead(word: bytes) -> bytes:
    """What must follow a secret word in the translated copy: the name's rest, and an operator."""
    more = SECRET_WORDS[word].translate(WORD_LETTERS).split()
    goes_on = b"|".join((b"s?[" + re.escape(NAME_GOES_ON) + b"]", *more))
    ahead = OPERATOR_AHEAD + b"|" + SPACED_AHEAD if word in SPACED_WORDS else OPERATOR_AHEAD
    return b"(?=" + goes_on.replace(b"%", b"%%") + b")(?=" + ahead + b")"
