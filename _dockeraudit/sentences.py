"""Finds secrets that no operator assigns: in sentences, behind options, one line below their name.

    The password is X · A temporary password is provided for this session: X · --token X ·
    New value:⏎  X · - name: DB_PASSWORD⏎  value: X

Only a value with a secret's shape counts (`is_generated`), for any word may stand there.
"""

from __future__ import annotations

import re
from typing import Callable

from _dockeraudit.assignments import ESCAPED, trimmed
from _dockeraudit.candidates import Found
from _dockeraudit.judging import Judge
from _dockeraudit.names import Kind, Name, name_kind
from _dockeraudit.plausibility import (
    NO_SECRET_VALUE,
    is_generated,
    is_mixed,
    is_placeholder,
    is_random,
    is_words,
)
from _dockeraudit.rules import Match

REST = rb"[\w\-]{0,24}"
#: what says that a value follows, in the languages that images print most
STATES = (
    rb"(?:is|was|are|has been|have been|to|as|ist|lautet|wurde|est|es|sera|\xc3\xa8|\xc3\xa9|=|->|"
    rb"=>|"
    rb"\xe2\x86\x92|\xe2\x80\xba)"
)
DOES = (
    rb"(?:now|successfully|set|reset|changed|updated|initiali[sz]ed|generated|created|auf|gesetzt|"
    rb"d\xc3\xa9fini|establecida|temporarily)"
)
OPEN = rb"[\"'`(\[<*]{0,3}"
#: from behind the secret word, the ways in which a sentence gives a value
STATED = (
    # password is X, password has been set to X
    re.compile(
        REST
        + rb"[ \t]{1,3}(?:"
        + DOES
        + rb"[ ])?"
        + STATES
        + rb"(?:[ ](?:"
        + DOES
        + rb"|to|as|auf))"
        rb"{0,3}[ \t]?:?[ \t]{1,3}" + OPEN
    ),
    # password for user admin: X, PASSWORD elastic = X
    re.compile(REST + rb"(?:[^\n:=.\-]|\.(?! )|-(?!>)){0,100}(?:[:=]|->)[ \t]{1,3}" + OPEN),
    # password for admin is X
    re.compile(REST + rb"[ \t](?:for|of)[ ][^\n:=]{1,60}?[ ](?:is|was)[ :]{1,3}" + OPEN),
    # Password -> X
    re.compile(REST + rb"[ \t]{0,3}(?:->|=>|\xe2\x86\x92)[ \t]{0,3}" + OPEN),
    # with password X
    re.compile(REST + rb"[ \t]{1,2}" + OPEN),
)
STATED_VALUE = re.compile(rb"[^\s\"'`<>\x1b]{8,256}")
#: --token X, -storepass X
OPTION_AHEAD = re.compile(rb"(" + REST + rb")[ \t]{1,4}(?P<quote>\\?[\"']|)")
OPTION_VALUE = {
    b"": re.compile(rb"[^\s\"'`<>;|&\x1b]{4,256}"),
    b'"': re.compile(rb"[^\r\n\"\\]{4,256}(?=\\?\")"),
    b"'": re.compile(rb"[^\r\n'\\]{4,256}(?=\\?')"),
}
#: words behind which a service's value may stand without an operator, and what is between them
SPACED_WORDS = (b"key", b"token", b"secret")
SPACED_REST = (
    rb"(?:[ _\-]?(?:access|secret|private|api|token|key|pat)(?![a-z]))?"
    rb"(?:[ \t_\-.:]{1,3}|[ ](?:is|was|=)[ ])[\"']?"
)
SPACED = re.compile(SPACED_REST + rb"([a-z0-9_\-+/=.]{12,512})")
SPACED_VALUE = re.compile(rb"[ \t]{1,32}([A-Za-z0-9+/_\-]{20,512}={0,2})(?=\s|$)")
LINE_SIZE = 160  # bytes of a name's line behind the name, where the value is on a line below
VALUE_NAME_SIZE = 60  # bytes of the line below in which `New value:` stands
BLANK_LINE = re.compile(rb"[^\S\n]*\n")
#: what stands before the value on its line, if the name's line does not begin so too
VALUE_HEAD = re.compile(
    rb"(?:[\w.\-]{1,64}[ \t]{0,32}\|)?[ \t>*#|\-]{0,32}(?P<named>[\"']?(?:new )?value[\"']?[ "
    rb"\t]{0,4}[:=]"
    rb"[ \t]{0,4})?(?P<dumped>string\(\d{1,4}\)[ ])?[\"'`]{0,1}"
)
VALUE_ALONE = re.compile(rb"([^\s\"'`\x1b]{6,1024})[\"'`]?,?[*|\s]*$")
#: lines that come below a name, and how far they are looked at
LINES_BELOW, BELOW_SIZE = 3, 1024
#: a line that names a secret and ends so that its value may stand below
NAMES_BELOW = re.compile(
    rb"(?i)(?:pass|pwd|token|secret|key|cred|phrase|nemonic|seed|"
    rb"ugfzc3dvcmq6)[^\n]{0,160}\n(?:[^\S\n]*\n)?\Z"
)
#: a value in brackets before its name: - [X] (password)
BOUND_BEFORE = re.compile(rb"\[([^\]\s]{4,128})\] \($")
#: {"Data":"X","Name":"my_secret"}
DATA_BEFORE = re.compile(
    rb"\"data"
    + ESCAPED
    + rb"\":"
    + ESCAPED
    + rb"\"([A-Za-z0-9+/=]{8,512})"
    + ESCAPED
    + rb"\","
    + ESCAPED
    + rb"\"name"
    + ESCAPED
    + rb"\":"
    + ESCAPED
    + rb"\"$",
    re.I,
)


class SentenceFinder:
    """Judges what stands behind, below or before a secret's name without an operator."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def find(self, block: bytes, name: Name, word: bytes, found: Found) -> int:
        """Report the value that the name's sentence gives; where to go on, or -1 for none."""
        if word in SPACED_WORDS:
            go_on = self._of_service(block, name, found)
            if go_on > 0:
                return go_on
        if name.kind == Kind.NONE or name.context[-1:] == b"/":
            return -1
        following = found.lower[name.end : name.end + 1]
        looks: tuple[Callable[..., int], ...] = (self._below,)
        if following in b" \t-":
            looks = (self._option, self._stated, self._random, self._below)
        elif following in b')"\\':
            looks = (self._before, self._below)
        for look in looks:
            go_on = look(block, name, found)
            if go_on > 0:
                return go_on
        return -1

    def _report(self, rule_id: str, name: Name, start: int, end: int, found: Found) -> int:
        """Append a match under the rule, if it is there; its end, or -1."""
        anchored = self._judge.rules.get(rule_id)
        if anchored is None or start in found.values:
            return -1
        found.values.add(start)
        begin = min(name.start, start)
        found.append((anchored.rank, Match(anchored.rule, begin, end, start, end)))
        return end

    def _of_service(self, block: bytes, name: Name, found: Found) -> int:
        """SERVICE KEY value, service-secret-value: only where a known service is named before
        it."""
        spaced = SPACED.match(found.lower, name.behind)
        if spaced is None:
            return -1
        start, end = spaced.span(1)
        value = block[start:end]
        if start in found.values or not is_random(value) or is_placeholder(value):
            return -1
        anchored = self._judge.service(name.context + name.prefix, value, random=True)
        kind = name_kind(block[name.start : name.behind], name.at - name.start)
        if anchored is None or kind == Kind.NONE:
            return -1
        found.append((anchored.rank, Match(anchored.rule, name.start, end, start, end)))
        return int(end)

    def _option(self, block: bytes, name: Name, found: Found) -> int:
        """--token X; help texts show a word there."""
        option = OPTION_AHEAD.match(found.lower, name.behind)
        if option is None or block[name.start : name.start + 1] != b"-":
            return -1
        if name.context[-1:] not in (b"", b" ", b"\t", b'"', b"'", b"["):
            return -1
        quote = option.group("quote")
        value = OPTION_VALUE[quote[-1:]].match(block, option.end())
        if value is None or name.kind == Kind.BARE and not is_random(value.group()):
            return -1
        text = value.group()
        if is_placeholder(text) or not is_mixed(text) or NO_SECRET_VALUE.match(text):
            return -1
        return self._report("command-line-secret", name, *value.span(), found)

    def _stated(self, block: bytes, name: Name, found: Found) -> int:
        """A sentence that gives the value."""
        if name.kind not in (Kind.PASSWORD, Kind.SECRET):
            return -1
        bare = name.kind != Kind.PASSWORD or name.text in (b"pass", b"passes")
        for way in STATED[:-1] if bare else STATED:
            lead = way.match(found.lower, name.behind)
            value = STATED_VALUE.match(block, lead.end()) if lead else None
            if value is None:
                continue
            text = sentence_value(value.group())
            random = len(text) >= 16 and is_random(text)
            if is_generated(text) and (name.kind == Kind.PASSWORD or random):
                start = value.start()
                return self._report("stated-secret", name, start, start + len(text), found)
        return -1

    def _random(self, block: bytes, name: Name, found: Found) -> int:
        """jwt_secret aa784c74…: a compound name, a blank, a random value."""
        if name.kind != Kind.SECRET or not re.search(rb"[_\-]", name.text):
            return -1
        value = SPACED_VALUE.match(block, name.end)
        if value is None or not is_random(value.group(1)) or NO_SECRET_VALUE.match(value.group(1)):
            return -1
        return self._report("stated-secret", name, *value.span(1), found)

    def _below(self, block: bytes, name: Name, found: Found) -> int:
        """A value that stands alone on one of the next lines."""
        at = block.find(b"\n", name.end, name.end + LINE_SIZE) + 1
        if not at:
            return -1
        rest = block[name.end : at].strip()
        if b"-----" in rest:
            return -1
        blank = blank_line(block, name.start, at)
        quoted = blank > at and rest in (b'"', b"'", b'";')  # name="password" of a form
        rest = rest.rstrip(b"*\"'`])")
        block_text = rest in (b": |", b": >", b": |-", b": >-")  # of YAML
        if not quoted and not block_text and rest[-1:] not in (b":", b"=", b">"):
            if found.lower.find(b"value", at, at + VALUE_NAME_SIZE) < 0:
                return -1
        else:
            at = blank
        at += shared_head(block, name.start, at)
        head = VALUE_HEAD.match(found.lower, at)
        line_end = block.find(b"\n", at, at + BELOW_SIZE)
        line_end = min(len(block), at + BELOW_SIZE) if line_end < 0 else line_end
        value = VALUE_ALONE.match(block, head.end(), line_end) if head else None
        if head is None or value is None:
            return -1
        text = value.group(1)
        sure = is_generated(text) or is_random(text) and (len(text) >= 16)
        if head.group("named") or head.group("dumped"):
            sure = is_mixed(text) and not is_placeholder(text) and not is_words(text)
        if not sure:
            return -1
        return self._report("next-line-secret", name, *value.span(1), found)

    def _before(self, block: bytes, name: Name, found: Found) -> int:
        """A value that stands before its name: - [X] (password)."""
        before = block[max(0, name.start - 700) : name.start]
        if block[name.end : name.end + 1] == b")" and (bound := BOUND_BEFORE.search(before)):
            value = bound
            sure = is_mixed(value.group(1)) or is_generated(value.group(1))
        elif data := DATA_BEFORE.search(before):
            value = data
            sure = True
        else:
            return -1
        text = value.group(1)
        if not sure or is_placeholder(text):
            return -1
        start = name.start - len(before) + value.start(1)
        return self._report("stated-secret", name, start, start + len(text), found)


def sentence_value(value: bytes) -> bytes:
    """A value without what the sentence puts behind it."""
    return trimmed(value.rstrip(b".,;:!)]'\"*"))


def blank_line(block: bytes, name: int, at: int) -> int:
    """Where the line behind the blank one at `at` begins; `at` if there is none.

    A blank line may begin as the name's line does, with a stamp or a container's name.
    """
    end = block.find(b"\n", at, at + LINE_SIZE) + 1
    line = block[at:end].rstrip()
    head = block[block.rfind(b"\n", max(0, name - LINE_SIZE), name) + 1 : name]
    return end if end and (not line or len(line) >= 8 and head.startswith(line)) else at


def shared_head(block: bytes, name: int, below: int) -> int:
    """How many bytes the line below begins with as the name's line does: a stamp, a host, a
    program."""
    start = block.rfind(b"\n", max(0, name - LINE_SIZE), name) + 1
    if not start:
        start = max(0, name - LINE_SIZE)
    above, line = block[start:name], block[below : below + name - start]
    size = 0
    while size < min(len(above), len(line)) and above[size] == line[size]:
        size += 1
    head = line[:size]
    cut = max(head.rfind(b" "), head.rfind(b"|"), head.rfind(b"\t")) + 1
    return cut if cut >= 8 else 0


def undecided_from(block: bytes) -> int:
    """Where the last lines begin that may name a secret whose value comes next; the end if none."""
    tail = block[-BELOW_SIZE:]
    lines = tail.splitlines(keepends=True)[-LINES_BELOW:]
    if len(lines) < 2 and len(tail) == BELOW_SIZE:
        return len(block)
    last = b"".join(lines[-1:])
    above = b"".join(lines[-2:-1])
    if above and is_blank_below(above, last) and NAMES_BELOW.search(above):
        last = above + last
    elif not NAMES_BELOW.search(last):
        return len(block)
    return len(block) - len(last)


def is_blank_below(above: bytes, line: bytes) -> bool:
    """Whether a line holds nothing, or only what the line above begins with, too."""
    line = line.rstrip()
    return not line or (len(line) >= 8 and above.startswith(line))
