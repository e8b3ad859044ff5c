"""The words that make a name a secret's, and what must follow them to be worth a look.

The look ahead is a regex over the translated copy of the block (`wordfinder`): most occurrences of
`key` or `pass` in logs end there, at C speed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from _dockeraudit.assignments import AssignmentFinder
from _dockeraudit.candidates import Anchored, Found, Visitor
from _dockeraudit.judging import Judge
from _dockeraudit.names import Kind, name_at
from _dockeraudit.phrases import LOGIN_PHRASES, PhraseFinder
from _dockeraudit.sentences import SPACED_REST, SPACED_WORDS, SentenceFinder
from _dockeraudit.wordfinder import OWN_GROUPS

#: what may follow the word at once: `author` and `keyboard` do not
GOES_ON = b"_-.\"'`]:=,>|()& \t\r\n\\%\x1b0123456789"
ENDINGS = b"se"  # tokens, passe
#: by word, what may follow it in one word with it
SECRET_WORDS = {
    b"key": b"to te va pl pro pas ph da de li",
    b"token": b"key va pl pro pas da de",
    b"pass": b"word wd wort phrase code key e: e= e\\  es:",
    b"pwd": b"",
    b"kennwort": b"",
    b"auth": b"or",
    b"pw": b"",
    b"secret": b"key va pl pro pas da de to te",
    b"credential": b"",
    b"salt": b"",
    b"cookie": b"",
    b"senha": b"",
}
#: words so short or frequent that only an operator behind them counts
BRIEF = frozenset((b"salt", b"cookie"))
ORIGINAL_GOES_ON = b"w:=_-"  # what the original patterns may have behind `pass` and `key`
NAME_REST_AHEAD = rb"(?=([\w.\-]{0,48}))" + OWN_GROUPS[0]
#: what follows a name that has a value; most names in prose end here
NAME_ENDS = rb"(?=[^\w.\-])"
#: what the original patterns take is looked at in any case
ORIGINAL_AHEAD = (
    rb"[:=](?:(?<=password[:=])|(?<=password_[:=])|(?<=password-[:=])|(?<=key[_\-][:=])"
    rb"|(?<=key[:=]))|"
)
#: an operator, or what closes a quoted name; behind a colon, no word alone: that is prose
OPERATORS_AHEAD = (
    rb"[=\"'`\\|!%\x1b&]|:[ \t=>]{0,64}(?:[\"'`\\\x1b&<\[({%]|[a-z._\-]{0,64}[^a-z._\-\s)\],;:>])"
    rb"|[,(][ ]?[\"'\\]|>[^\s]|\)(?!\w)|\][ \t]{0,16}[=:|!%]|[ \t]{1,40}(?:[=|!%\-\"'>\xe2\xc3]|"
    rb":[ \t=][^\s]{4}|:=[ \t])"
)
DIGIT_AHEAD = rb"[^\s\d]{0,28}[0-9]"
#: a sentence: it states, or a colon or = stands further on, before a word with a digit
STATES_AHEAD = (
    rb"[ \t]{1,3}(?:is|was|are|has|to|as|ist|lautet|wurde|est|es|sera|now|set|reset|changed|"
    rb"updated)[ ]"
    rb"|[ \t(](?=([^\n:=>]{1,100}))"
    + OWN_GROUPS[1]
    + rb"(?:[:=]>?|(?<=-)>)[ \t]{1,3}"
    + DIGIT_AHEAD
    + rb"|[ \t]{1,4}(?!for[ ])(?:[^\s]{1,24}[ ])?"
    + DIGIT_AHEAD
    + rb"|[ ]for[ ][^\n]{1,60}[ ]is[ ]"
)
#: the value may stand one line below
BELOW_AHEAD = (
    rb"[^\n]{0,160}\n(?:(?<=[:=>|\"']\n)|(?<=[:=>|;\"'][ \t\r]\n)|[^\n]{0,40}value[^\n]{0,4}[:=])"
)
#: a service's value without an operator: a digit early, or long
SPACED_AHEAD = SPACED_REST + (
    rb"(?=[a-z_\-+/=.]{0,24}[0-9]|[a-z0-9_\-+/=.]{24})[a-z0-9_\-+/=.]{12}"
)
#: a brief word's operator and value
BRIEF_AHEAD = (
    rb"[\"'`\\]{0,16}\]?[ \t]{0,16}[=:|>]{1,2}[ \t]{0,16}[^\s]{6}|[\"'],?[ ][\"'][^\s]{4}"
    rb"|[ \t]{1,4}[\"'][^\s]{6}"
)
#: by word, what follows it where that differs; single letters are written as the copy shows them
OWN_AHEAD = {
    # no more than a pair: a sign comes first, which `re` tries fast
    b"pw": (
        rb"[=:\"'`\\ \d_](?=(?:(?<=[=:])|[\w\"'`\\]{0,16}\]?[ \t]{0,16}[=:|>]{1,2}|[ ]?[\"'])"
        rb"[ \t]{0,16}[^\s]{6})"
    ),
    # auth= of Docker, Authorization, AUTH PLAIN of SMTP, AUTHENTICATE PLAIN of IMAP, AUTH of Redis
    b"auth": (
        rb"(?=s?(?:orization)?s?(?:"
        + BRIEF_AHEAD.replace(b"{6}", b"{3}")
        + rb")|(?:enticate)?[ ](?:plain|login)[ ]|[ ][^\s\d]{0,24}[0-9][^\s]{5})"
    ),
}


def word_ahead(word: bytes) -> bytes:
    """What must follow a secret word in the translated copy: the name's rest, then an operator."""
    if word in OWN_AHEAD:
        return OWN_AHEAD[word]
    ending = b"[" + ENDINGS + b"]?"
    more = SECRET_WORDS[word].split()
    goes_on = b"|".join((ending + b"[" + re.escape(GOES_ON) + b"]", *more))
    ahead = BRIEF_AHEAD
    if word not in BRIEF:
        ahead = ORIGINAL_AHEAD + OPERATORS_AHEAD + b"|" + STATES_AHEAD + b"|" + BELOW_AHEAD
    here = NAME_REST_AHEAD + NAME_ENDS + b"(?:" + ahead + b")"
    if word in SPACED_WORDS:
        here += b"|" + SPACED_AHEAD
    folder = rb"(?![ ]?=[ ]?[/~])" if word == b"pwd" else b""  # PWD=/home/user
    return folder + b"(?=" + goes_on + b")(?=" + here + b")"


def secret_word_visits(
    by_find: Mapping[str, Sequence[Anchored]], originals: Mapping[bytes, Sequence[Visitor]]
) -> dict[bytes, Sequence[Visitor]]:
    """By secret word, its visitor; `originals`: those of original rules at the same word."""
    judge = Judge(*(by_find.get(find, ()) for find in ("keyed", "service", "token")))
    finders = AssignmentFinder(judge), SentenceFinder(judge)
    logins = PhraseFinder(judge.rules).visits(LOGIN_PHRASES)
    return {
        word: [at_secret_word(word, finders, originals.get(word, ()), logins.get(word, ()))]
        for word in SECRET_WORDS
    }


def at_secret_word(
    word: bytes,
    finders: tuple[AssignmentFinder, SentenceFinder],
    originals: Sequence[Visitor],
    logins: Sequence[Visitor],
) -> Visitor:
    """A visitor at a secret word: the originals, then assignments, logins, sentences, till one
    finds."""
    assignments, sentences = finders
    size = len(word)

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        behind, taken = at + size, None
        for original in originals if found.lower[behind : behind + 1] in ORIGINAL_GOES_ON else ():
            known = len(found)
            if found.ends.get(original, 0) <= at:
                found.ends[original] = original(block, at, lines, found)
            if len(found) > known:
                taken = found[-1][1]
        name = name_at(block, found.lower, at, size)
        if name.kind != Kind.NONE:
            end = assignments.find(block, name, word, taken, found)
            if end > 0:
                return end
        known = len(found)
        for login in logins:
            end = login(block, at, lines, found)
            if len(found) > known:
                return end
        return max(behind, sentences.find(block, name, word, found))

    return visit
