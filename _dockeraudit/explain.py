"""The command `test`: which rules match a line, and what was considered and why it does not count.

line ─▶ Scanner.candidates ─▶ matches, candidates that lost, values that were judged, shapes that
are filled in; what looks random and was not considered at all
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from _dockeraudit.candidates import Found, without_overlaps
from _dockeraudit.commandline import OneLineParser, help_width
from _dockeraudit.judging import COMPARES, LEAST_SECRET, Key, is_in_path
from _dockeraudit.names import Kind
from _dockeraudit.options import load_settings, option_parser
from _dockeraudit.plausibility import is_generated, is_placeholder, is_random, is_words
from _dockeraudit.records import redact_bytes
from _dockeraudit.rules import Match, Rule
from _dockeraudit.scanner import Scanner
from _dockeraudit.secretwords import SECRET_WORDS
from _dockeraudit.startup import load_scanner
from _dockeraudit.text import printable
from _dockeraudit.textfiles import with_output

FEW_BEGINNINGS = 16  # of a rule's tokens; one with more has no prefix that people know it by
#: what may be a token or a value, and the name before it
RUN = re.compile(rb"[A-Za-z0-9_+/.~-]{12,}=*")
NAMED_VALUE = re.compile(rb"([A-Za-z_][\w.-]{0,63})[\"']?[ \t]*[:=][ \t]*[\"']?([\w.+/-]{4,})")
NAME_BEFORE = re.compile(rb"([A-Za-z_][\w.-]{0,63})[\"']?[ \t]*[:=][ \t]*[\"']?$")


def command_test(arguments: Sequence[str]) -> int:
    """`test LINE`: which rules match a line, and why the rest of it is no finding.

    A secret on the command line stays in the shell's history: - reads it from standard input. No
    more of a secret is shown than the audit log would hold.
    """
    settings = load_settings(arguments, os.environ, explain_parser())
    line = " ".join(settings.line).encode("utf-8", "surrogateescape")
    if settings.line == ["-"] and sys.stdin is not None:
        line = sys.stdin.buffer.read()
    scanner = load_scanner(settings)

    def write(out: TextIO) -> int:
        out.write("".join(f"{text}\n" for text in explained(line, scanner)))
        return 0

    return with_output("test", write)


def explain_parser() -> OneLineParser:
    """The parser of `test`'s options."""
    parser = option_parser(
        ("rules", "only-rules", "disable-rule", "config"),
        prog="dockeraudit test",
        description=command_test.__doc__,
    )
    parser.add_argument(
        "line", nargs="+", metavar="LINE", help="as a program would print it; - is standard input"
    )
    return parser


def explained(line: bytes, scanner: Scanner) -> list[str]:
    """Lines for people about a text: what is found in it, what was considered, what else is."""
    block = line if line.endswith(b"\n") else line + b"\n"
    found = scanner.candidates(block, lines=True)
    matches = without_overlaps(list(found))
    lines = [match_line(block, match) for match in matches] or ["no rule matches"]
    more = [
        *lost(found, matches),
        *filled_in(block, found),
        *judged(found, matches, block),
        *worded(block, found, matches, scanner),
        *unnamed(block, found, matches, scanner),
    ]
    if more:
        lines += ["", "considered, and no finding:", *dict.fromkeys(more)]
    elif not matches:
        lines.append("nothing in it has a token's shape or looks random, or is a secret's value")
    return [wrapped(line) for line in lines]


def wrapped(line: str) -> str:
    """A line within the terminal; what goes on is indented."""
    return textwrap.fill(line, help_width(), subsequent_indent="    ", break_on_hyphens=False)


def match_line(block: bytes, match: Match) -> str:
    """A match as the log would tell of it."""
    shown = printable(redact_bytes(block[match.start : match.end]))
    why = "; its value is a placeholder, so the severity is LOW" if match.placeholder else ""
    rule, where = match.rule, byte_range(match.start, match.end)
    return f"{rule.severity:6}  {rule.id} ({rule.name}): {shown}, {where}{why}"


def byte_range(start: int, end: int) -> str:
    """Where something stands in the text."""
    return f"bytes {start + 1} to {end}"


def lost(found: Found, matches: Sequence[Match]) -> Iterator[str]:
    """Candidates whose secret overlaps that of a rule which stands earlier in the table."""
    reported = {match.rule.id for match in matches}
    for rule_id in dict.fromkeys(match.rule.id for _, match in found):
        if rule_id not in reported:
            yield f"  {rule_id} matches too; of rules that overlap the more specific one reports"


def filled_in(block: bytes, found: Found) -> Iterator[str]:
    """Texts of a rule's shape that show the shape and are no secret."""
    for rule, start, end in found.rejected:
        yield (
            f"  {byte_range(start, end)} have the shape of {rule.id}, but they stand for a secret: "
            "a placeholder, a word, or a sequence typed to show the shape"
        )


def judged(found: Found, matches: Sequence[Match], block: bytes) -> Iterator[str]:
    """Values behind a secret's name that did not count."""
    secrets = [block[match.secret_start : match.secret_end] for match in matches]
    for (key, value), anchored in found.judged.items():
        if anchored is None and not key.taken and value not in secrets:
            name = printable(key.name.decode("utf-8", "replace"))
            yield f"  {name}: its value of {len(value)} bytes {why_not(key, value)}"


def why_not(key: Key, value: bytes) -> str:
    """Why a value behind a secret's name is no secret, as `judging` decides it."""
    if is_in_path(key):
        return "stands behind a part of a path, not behind a name"
    if key.operator in COMPARES and not key.quoted:
        return "is compared, not assigned"
    if is_placeholder(value):
        return "is a placeholder, a variable or code"
    if key.kind != Kind.PASSWORD and len(value) < LEAST_SECRET:
        return f"is too short for a secret ({LEAST_SECRET} bytes)"
    if value.isalpha() or is_words(value):
        return "is made of words, without the mix of signs that generators make"
    if value.isdigit():
        return "is a number"
    if key.kind in (Kind.BARE, Kind.LOOSE) and not is_generated(value):
        return "does not look random enough for a name that may mean something else"
    return "does not look random, and stands in no assignment beyond doubt"


def worded(block: bytes, found: Found, matches: Sequence[Match], scanner: Scanner) -> Iterator[str]:
    """Values behind a secret's name that are so plainly words that no rule was asked."""
    spoken_of = [value for _, value in found.judged]
    for pair in NAMED_VALUE.finditer(block):
        name, value = pair.groups()
        inside = any(match.start < pair.end() and pair.start() < match.end for match in matches)
        if inside or any(value in other or other in value for other in spoken_of):
            continue
        if is_random(value) or near_rules(value, scanner.rules):
            continue
        if any(word in name.lower() for word in SECRET_WORDS):
            yield (
                f"  {printable(name.decode())}: its value of {len(value)} bytes is made of words, "
                "without the mix of signs that generators make"
            )


def unnamed(
    block: bytes, found: Found, matches: Sequence[Match], scanner: Scanner
) -> Iterator[str]:
    """Texts that look random or begin as a token does, and that nothing else here speaks of."""
    spoken_of = [value for _, value in found.judged]
    taken = [(match.start, match.end) for match in matches]
    taken += [(start, end) for _, start, end in found.rejected]
    for run in RUN.finditer(block):
        text = run.group()
        if any(start < run.end() and run.start() < end for start, end in taken):
            continue
        where = byte_range(*run.span())
        near = near_rules(text, scanner.rules)
        for rule in near[:2]:
            yield f"  {where} begin like {rule.id}, but {difference(text, rule)}"
        if not near and is_random(text) and not any(text in value for value in spoken_of):
            yield (
                f"  {where} look random, but no rule knows a token that begins so, and "
                f"{no_name(block, run.start())}"
            )


def near_rules(text: bytes, rules: Sequence[Rule]) -> list[Rule]:
    """The rules for tokens of their own prefix that a text begins like."""
    return [
        rule
        for rule in rules
        if rule.find == "token"
        and len(rule.keywords) <= FEW_BEGINNINGS
        and text.startswith(tuple(rule.keywords))
        and any(example[:4].encode() == text[:4] for example in rule.examples)
    ]


def difference(text: bytes, rule: Rule) -> str:
    """How a text differs from a rule's token that it begins like."""
    sizes = sorted({len(example) for example in rule.examples})
    if len(text) in sizes:
        return "its characters are not those of such a token"
    known = " or ".join(map(str, sizes))
    return f"the rule's examples have {known} characters, and this has {len(text)}"


def no_name(block: bytes, start: int) -> str:
    """Why what stands before a random text does not make it a secret."""
    name = NAME_BEFORE.search(block, max(0, start - 80), start)
    if name is None:
        return "no name of a secret stands before it"
    return f"{printable(name[1].decode())} is not a name that secrets have"
