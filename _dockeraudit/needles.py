"""A container's own secrets: the values of its secret variables, and where a text holds them.

    Env of inspect ─▶ needles_of ─▶ Haystack(needles).find(block) ─▶ [Sight(start, end, needle)]

A program prints its password in many forms. Each needle is searched as it is, in base64 at any
offset, percent-encoded and JSON-escaped. Performs no I/O, and never puts a value into an exception.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple
from urllib.parse import quote, quote_plus

MOST_NEEDLES = 64  # of a container, in the order of its Env
SHORTEST, LONGEST = 8, 4096  # bytes of a value
SHORTEST_LINE = 16  # bytes of a line of a value with several
SHORTEST_FORM = 10  # characters of base64 that are searched; fewer would be met by chance
RARE_BYTES = 3  # of a form, that a block must hold before the form is searched

#: bytes by how many 64 KiB blocks of logs hold them, most first; others are rarer than all
FREQUENT = (
    b" e01o2tras.in:cl53-d4p768muh9f_bCvDFSwgRMNOk)(AyEIPxTLG=WB/[],UKHzVJ;qXj"
    b"\"Y{}+>'*?QZ$<%&@!\\|#~`^"
)
RANK = {byte: rank for rank, byte in enumerate(FREQUENT)}

#: whole values, in lower case, that are nobody's secret
PLACEHOLDERS = frozenset(
    b"changeme change-me change_me changeit placeholder secret secrets password passw0rd passwd "
    b"password1 password123 example undefined disabled optional required default mysecret "
    b"my-secret my_secret mypassword my-password yourpassword your-password none-none "
    b"notset not-set not_set redacted postgres".split()
)
FILLED = re.compile(rb"(.)\1*|[*x.\-_#?0]+|<[^>]*>|\$\{[^}]*\}|\$\([^)]*\)|\{\{.*\}\}", re.S | re.I)
NUMERIC = re.compile(rb"[\d.,:+\-_/ eE]+")
PATH = re.compile(rb"(?:~|\.{1,2}|[A-Za-z]:)?[/\\][\w.\-/\\ @+]*")
VERSION = re.compile(rb"v?\d+(?:\.\d+)+(?:[.\-+]?[a-z0-9]{1,12})*", re.I)
DIGEST = re.compile(rb"(?:sha\d+|md5):[0-9a-f]+", re.I)
DIGEST_NAME = re.compile(r"(?:^|_)(?:SHA\d*|MD5|DIGEST|CHECKSUM|HASH)(?:_|$)|GPG_KEY", re.I)
ONE_WORD = re.compile(rb"[A-Za-z]{1,11}")


class Needle(NamedTuple):
    """A secret value of a container, and the variable that holds it."""

    env: str
    value: bytes


class Sight(NamedTuple):
    """Where a block holds a needle, in any of its forms; offsets in bytes."""

    start: int
    end: int
    needle: Needle


class Form(NamedTuple):
    """One way to write a needle: its bytes, and the rarest of them."""

    text: bytes
    rare: tuple[int, ...]
    needle: Needle


Spans = Callable[[bytes], Iterable[tuple[int, int]]]  # the secret spans that rules find in a text


def needles_of(
    env: Iterable[object], says_secret: Callable[[str], bool], spans: Spans
) -> tuple[list[Needle], int]:
    """The needles among `NAME=VALUE` entries, and how many more there were than are kept.

    `says_secret(name)` judges a variable's name; `spans` finds secrets in a value of any name, such
    as the password in a DATABASE_URL.
    """
    found: dict[bytes, Needle] = {}
    for entry in env:
        name, equals, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if not equals:
            continue
        value = unquoted(text.encode("utf-8", "surrogateescape"))
        values = pieces(value) if says_secret(name) else []
        for each in [*values, *(value[start:end] for start, end in spans(value))]:
            if each not in found and is_needle(name, each):
                found[each] = Needle(name, each)
    needles = list(found.values())
    return needles[:MOST_NEEDLES], len(needles[MOST_NEEDLES:])


def unquoted(value: bytes) -> bytes:
    """A value without the quotes that env files leave around it."""
    if len(value) > 1 and value[:1] == value[-1:] and value[:1] in (b'"', b"'"):
        return value[1:-1]
    return value


def pieces(value: bytes) -> list[bytes]:
    """The value; of one with several lines each line that is long enough."""
    if b"\n" not in value:
        return [value]
    return [line for line in map(bytes.strip, value.split(b"\n")) if len(line) >= SHORTEST_LINE]


def is_needle(name: str, value: bytes) -> bool:
    """Whether a value is distinct enough to search for: no placeholder, number, path or word."""
    if not SHORTEST <= len(value) <= LONGEST or value.lower() == name.lower().encode():
        return False
    if value.lower() in PLACEHOLDERS or DIGEST_NAME.search(name):
        return False
    shapes = (FILLED, NUMERIC, PATH, VERSION, DIGEST, ONE_WORD)
    return not any(shape.fullmatch(value) for shape in shapes)


# -- forms


def forms_of(needle: Needle) -> list[Form]:
    """The ways in which programs write a value, without repetition."""
    value = needle.value
    texts = dict.fromkeys([value, *percent_forms(value), *json_forms(value), *base64_forms(value)])
    return [Form(text, rarest(text), needle) for text in texts]


def rarest(text: bytes) -> tuple[int, ...]:
    """The bytes of a text that logs hold least often, the rarest first."""
    by_rank = sorted(set(text), key=lambda byte: RANK.get(byte, len(RANK)), reverse=True)
    return tuple(by_rank[:RARE_BYTES])


def percent_forms(value: bytes) -> list[bytes]:
    """Percent-encoded (RFC 3986 §2.1), with and without signs that URLs admit; either case."""
    encoded = [quote(value, safe=""), quote(value, safe="/"), quote_plus(value)]
    encoded += [quote(value, safe="!*'()"), quote(value, safe="!$&'()*+,;=:@/")]
    upper = [text.encode("ascii") for text in encoded]
    lower = [re.sub(rb"%..", lambda match: match.group().lower(), text) for text in upper]
    return upper + lower


def json_forms(value: bytes) -> list[bytes]:
    """As a JSON string's inside (RFC 8259 §7), escaped once and twice, as languages do it."""
    text = value.decode("utf-8", "surrogateescape")
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    once = [plain, plain.replace("/", "\\/"), go_escaped(plain), json.dumps(text)[1:-1]]
    twice = [json.dumps(each, ensure_ascii=False)[1:-1] for each in once]
    return [each.encode("utf-8", "surrogateescape") for each in once + twice]


def go_escaped(text: str) -> str:
    """What Go's encoding/json makes of <, > and & besides."""
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def base64_forms(value: bytes) -> list[bytes]:
    """The characters of base64 that depend on the value alone, at its three offsets (RFC 4648).

    Of a value inside a longer text the first and last character may depend on its neighbours too.
    """
    forms = []
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + value)
        first = (offset * 8 + 5) // 6
        inner = text[first : (offset + len(value)) * 8 // 6]
        if len(inner) >= SHORTEST_FORM:
            forms += [inner, inner.translate(URL_SAFE_ALPHABET)]
    return forms


URL_SAFE_ALPHABET = bytes.maketrans(b"+/", b"-_")  # RFC 4648 §5


# -- searching


class Haystack:
    """Finds a container's needles in blocks of text.

    A search costs 10 µs for each form and 64 KiB, so only those forms are searched whose rarest
    bytes a block holds: to ask for a byte costs 3 µs at most, and is done once for all forms.
    """

    def __init__(self, needles: Sequence[Needle]) -> None:
        self.needles = tuple(needles)
        forms = {form.text: form for needle in reversed(needles) for form in forms_of(needle)}
        self._forms = sorted(forms.values(), key=lambda form: -len(form.text))

    def find(self, block: bytes) -> list[Sight]:
        """Where the block holds needles: sorted, none overlapping, the longest form first."""
        held: dict[int, bool] = {}
        sights: list[Sight] = []
        for form in self._forms:
            for byte in form.rare:
                known = held.get(byte)
                if known is None:
                    known = held[byte] = byte in block
                if not known:
                    break
            else:
                self._search(block, form, sights)
        return sorted(sights)

    @staticmethod
    def _search(block: bytes, form: Form, sights: list[Sight]) -> None:
        """Add each place of a form that no longer one has taken."""
        at = block.find(form.text)
        while at >= 0:
            end = at + len(form.text)
            if not any(sight.start < end and at < sight.end for sight in sights):
                sights.append(Sight(at, end, form.needle))
            at = block.find(form.text, end)
