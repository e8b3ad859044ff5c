"""Finds NAME = VALUE in all its forms, where the name is a secret's.

name ─▶ ASSIGNMENT (what closes it, the operator, what opens the value) ─▶ value ─▶ judging
"""

from __future__ import annotations

import re
from typing import Any

from _dockeraudit.candidates import Anchored, Found
from _dockeraudit.judging import Judge, key_of
from _dockeraudit.names import Kind, Name
from _dockeraudit.plausibility import is_placeholder
from _dockeraudit.rules import Match

ESCAPED = rb"\\{0,15}"  # JSON in JSON in JSON: each level doubles the backslashes and adds one
COLOUR = rb"\x1b\[[\d;]{0,12}m"
#: what stands between a name and its operator
CLOSING = rb"(?:" + ESCAPED + rb"[\"'`]|\\{1,3}u002[27]|&(?:quot|#34|#39);|%22|" + COLOUR + rb"|>>)"
#: what stands between an operator and its value: some("x"), <<"x">>, b'x', ["x"], string(12) "x"
OPENING = (
    rb"(?:"
    + COLOUR
    + rb"|some\(|just |optional\[|<<|[bun](?="
    + ESCAPED
    + rb"[\"'])|@(?=\")|string\(\d{1,4}\) "
    rb"|[ \t]{1,4}|secretstr\((?=[\"'])|[\[({](?="
    + ESCAPED
    + rb"[\"'])|\[(?=[\w])|\.{3,80}|&(?=\")|\*\*(?=[^*\s]))"
)
#: from behind the name: what closes it, the operator, what opens the value
ASSIGNMENT = re.compile(
    rb"(?:"
    # name = value
    + CLOSING
    + rb"{0,3}(?::protected|:"
    + ESCAPED
    + rb"\"?\w{1,40}"
    + ESCAPED
    + rb"\"?:private)?"
    rb"\]?[ \t]{0,16}" + CLOSING + rb"{0,2}"
    rb"(?P<assigned>=>|->|:=|===?|!=|==?|:(?![:/])|\|\||%3[ad]|\.{3,80}[=:]?)[ \t]{0,64}"
    + OPENING
    + rb"{0,6}"
    # "name", "value": "value"
    rb"|" + ESCAPED + rb"[\"'][ \t]{0,4},?[ \t]{0,4}(?:" + ESCAPED + rb"[\"'])?value"
    rb"(?:" + ESCAPED + rb"[\"'])?[ \t]{0,4}(?P<member>[:=])[ \t]{0,4}(?=" + ESCAPED + rb"[\"'])"
    # ("name", "value")
    rb"|(?:" + ESCAPED + rb"[\"'])?[ \t]{0,4}(?P<listed>,)[ \t]{0,16}(?=" + ESCAPED + rb"[\"'`])"
    # <name type="text">value</name>
    rb"|(?P<element>[\"']?(?:[ \t][^<>\r\n]{0,200})?>)(?=[^<>\s])"
    # | name | value |
    rb"|[\"'`]?[ \t]{0,40}(?P<cell>\|)[ \t]{0,40}[`]?(?=[^\s|])"
    # name 'value', name - 'value', "name" "value", name('value')
    rb"|"
    + ESCAPED
    + rb"[\"']?[ \t]{1,3}-?[ \t]{0,3}(?="
    + ESCAPED
    + rb"[\"'])|\((?="
    + ESCAPED
    + rb"[\"'])"
    rb")(?P<quote>" + ESCAPED + rb"(?:\"{3}|'{3}|[\"'`])|\\{1,3}u002[27]|&(?:quot|#34|#39);|%22|)"
)
BARE_SECRET = re.compile(rb"[^\s\"'`,;<>&)}\]\\\x1b|]{4,512}")
BARE_PASSWORD = re.compile(rb"[^\s\"'`<>\\\x1b]{4,256}")
#: where a bare password ends: before a separator that more follows, or that ends the line
PASSWORD_END = re.compile(rb"[,;&](?=$|[\w.\-]{1,40}[\"']?[ ]?[=:]|[\[({,;])|[.,;:!]+$|\|$|\|\|")
CLOSING_BRACKET = re.compile(rb"[)\]}]")
OPENS = {41: b"(", 93: b"[", 125: b"{"}
#: behind `"password", "name"`: the text was a list, or `name` is the next member's name
NEXT_NAME = re.compile(ESCAPED + rb"[\"'][ \t]{0,4}:")
#: a quoted value with the escapes of its string, and one in a string that is itself escaped
QUOTED = {
    quote: (
        re.compile(rb"(?:[^\r\n\\" + quote + rb"]|\\[\"'/\\$&@!])" rb"{3,512}(?=" + quote + rb")"),
        re.compile(rb"[^\r\n\\" + quote + rb"]{3,512}(?=[\\" + quote + rb"])"),
    )
    for quote in (b'"', b"'", b"`")
}
#: as far as percent-encoding leaves the value as it is
ENCODED_VALUE = re.compile(rb"[A-Za-z0-9_.~\-]{4,512}")
ELEMENT_VALUE = re.compile(rb"[^\r\n<>]{4,512}(?=</)")
CELL_VALUE = re.compile(rb"[^\s|`]{6,512}(?=`?[ \t]{0,80}(?:\||$))", re.M)
ENTITY_VALUE = re.compile(rb"[^\r\n&\"'\\]{4,512}(?=[&\\])")
#: an element's name, or an attribute of it that holds the name
ELEMENT_NAME = re.compile(
    rb"<(?:[\w.\-]{1,40}:)?$|<[\w:.\-]{1,40}[ ](?:[^<>]{0,80}[ ])?\w{1,16}=[\"']$"
)
COMMA = 44


class AssignmentFinder:
    """Reports the values that are assigned to secrets' names."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._wholes = {
            word: judge.rules[rule_id]
            for word, rule_id in ((b"pass", "password-whole"), (b"key", "api-key-whole"))
            if rule_id in judge.rules
        }

    def find(self, block: bytes, name: Name, word: bytes, taken: Match | None, found: Found) -> int:
        """Report what is assigned to the name; its end, or -1 for no secret.

        `taken`: what an original rule matched at the name.
        """
        lower = found.lower
        assignment = ASSIGNMENT.match(lower, name.end)
        if assignment is None:
            return -1
        operator = operator_of(assignment, name, lower)
        start = assignment.end()
        quote = assignment.group("quote")
        end = value_end(block, start, operator, quote, name.kind) if operator else -1
        if end < 0 or operator == b"," and NEXT_NAME.match(block, end):
            return -1
        if operator == b">" and block[start : start + 1] == b"{":
            # <secret>{AQAAABAAA value}</secret>
            start, end = block.rfind(b" ", start, end) + 1 or start + 1, end - 1
        if start in found.values:
            return end
        same = taken is not None and (taken.secret_start, taken.secret_end) == (start, end)
        anchored = self._whole(block, name, word, operator, start, end)
        if anchored is None:
            key = key_of(name, word, operator, quoted=bool(quote), taken=same)
            anchored = self._judge.judge(key, block[start:end], found)
        if anchored is None:
            return end if same or operator == b"=" and not quote else -1
        found.values.add(start)
        found.append((anchored.rank, Match(anchored.rule, name.start, end, start, end)))
        return end

    def _whole(
        self, block: bytes, name: Name, word: bytes, operator: bytes, start: int, end: int
    ) -> Anchored | None:
        """The rule for a value of which an original pattern takes a part, or more than it."""
        whole = self._wholes.get(word)
        if whole is None or operator not in (b":", b"="):
            return None
        at = name.at if word == b"pass" else start_of_api(name)
        part = whole.whole.match(block, at) if at >= 0 else None
        if part is None or part.span(1) == (start, end) or part.start(1) != start:
            return None
        return None if is_placeholder(block[start:end]) else whole


def operator_of(assignment: Any, name: Name, lower: bytes) -> bytes:
    """The operator between a name and its value, or nothing where the name is no such name."""
    operator, member, listed, element, cell, _ = assignment.groups()
    if element:
        return b">" if ELEMENT_NAME.search(name.context) else b""
    if listed and lower[name.end] == COMMA and name.context[-1:] != b"{":
        return b""  # a list's words; Erlang's {password,"X"} is none
    if member == b"=":  # <add key="Password" value="x"/> is configuration, seldom in use
        return b"value="
    return bytes(operator or member or listed or cell or b" ")


def start_of_api(name: Name) -> int:
    """Where `api` begins before `key` in the name, or -1."""
    for api in (b"api_key", b"api-key", b"apikey"):
        if name.text.endswith((api, api + b"_", api + b"-")):
            return name.behind - len(api)
    return -1


def value_end(block: bytes, start: int, operator: bytes, quote: bytes, kind: str) -> int:
    """Where the value that begins at `start` ends, or -1 if none does."""
    if operator == b">":
        value = ELEMENT_VALUE.match(block, start)
    elif operator == b"|":
        value = CELL_VALUE.match(block, start)
    elif operator in (b"%3d", b"%3a") or quote == b"%22":
        value = ENCODED_VALUE.match(block, start)
    elif quote and quote[-1:] not in QUOTED:
        value = ENTITY_VALUE.match(block, start)
    elif quote:
        whole, escaped = QUOTED[quote[-1:]]
        value = (None if quote[:1] == b"\\" else whole.match(block, start)) or escaped.match(
            block, start
        )
    elif kind == Kind.PASSWORD:
        value = BARE_PASSWORD.match(block, start)
        return start + len(trimmed(value.group())) if value else -1
    else:
        value = BARE_SECRET.match(block, start)
    return int(value.end()) if value else -1


def trimmed(value: bytes) -> bytes:
    """A bare password without the separator, bracket or full stop that ends it."""
    end = PASSWORD_END.search(value)
    if end:
        value = value[: end.start()]
    if not CLOSING_BRACKET.search(value):
        return value
    opened = {b"(": 0, b"[": 0, b"{": 0}
    for offset, byte in enumerate(value):
        sign = value[offset : offset + 1]
        if sign in opened:
            opened[sign] += 1
        elif byte in OPENS:
            opened[OPENS[byte]] -= 1
            if opened[OPENS[byte]] < 0:
                return value[:offset]
    return value
