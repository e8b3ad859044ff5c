"""A container's own secrets: the values of its secret variables, and where a text holds them.

    Env of inspect ─▶ needles_of ─▶ Haystack(needles).find(block) ─▶ [Sight(start, end, needle)]

A program prints its password in many forms. Each needle is searched as it is, in base64 at any
offset, percent-encoded and JSON-escaped. Performs no I/O, and never puts a value into an exception.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple

from _dockeraudit.rules import Needle

MOST_NEEDLES = 64  # of a container, in the order of its Env
SHORTEST, LONGEST = 8, 4096  # bytes of a value
SHORTEST_LINE = 16  # bytes of a line of a value with several
SHORTEST_FORM = 10  # characters of base64 that are searched; fewer would be met by chance

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
#: a piece of a path as generated keys have them: base64 may begin with a slash, too
MIXED = re.compile(rb"(?=[A-Z+]*[a-z0-9])(?=[a-z0-9+]*[A-Z])(?=[A-Za-z+]*\d)[A-Za-z0-9+]{12,}")
VERSION = re.compile(rb"v?\d{1,9}(?:\.\d{1,9})+[a-z]?(?:[.\-+][a-z0-9]{1,12})*", re.I)
LONGEST_VERSION = 64
DIGEST = re.compile(rb"(?:sha\d+|md5):[0-9a-f]+", re.I)
HEX = re.compile(rb"[0-9a-f]{32,128}", re.I)
#: names of digests and of keys' fingerprints, which are hexadecimal too
DIGEST_NAME = re.compile(
    r"(?:^|_)(?:SHA\d*(?:SUM)?|MD5(?:SUM)?|DIGEST|CHECKSUM|HASH|GPG_KEYS?)$", re.I
)
ONE_WORD = re.compile(rb"[A-Za-z]{1,11}")
#: what stands in everybody's keys and credentials: a key's first and last line, a JSON member
COMMON_LINE = re.compile(rb"-----(?:BEGIN|END) .*|\"[\w.\-]+\"\s*:.*", re.S)
KEY_HEAD = b"-----BEGIN "


class Sight(NamedTuple):
    """Where a block holds a needle, in any of its forms; offsets in bytes."""

    start: int
    end: int
    needle: Needle


Spans = Callable[[bytes], Iterable[tuple[int, int]]]  # the secret spans that rules find in a text


def needles_of(
    env: Iterable[object], says_secret: Callable[[str], bool], spans: Spans
) -> tuple[list[Needle], int]:
    """The needles among `NAME=VALUE` entries, and how many more there were than are kept.

    `says_secret(name)` judges a variable's name. `spans` finds secrets in an entry of any name, as
    the password in a DATABASE_URL, and values that say more than their names.
    """
    found: dict[bytes, Needle] = {}
    for entry in env:
        name, equals, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if not (name and equals):
            continue
        value = unquoted(text.encode("utf-8", "surrogatepass"))
        needles = pieces(name, value) if says_secret(name) else []
        before = name.encode("utf-8", "surrogatepass") + b"="
        named = before + value
        within = [span for span in spans(named) if span[0] >= len(before)]
        inside = [Needle(name, named[start:end]) for start, end in within]
        for needle in [*needles, *inside]:
            if needle.value not in found and is_needle(name, needle.value):
                found[needle.value] = needle
    kept = list(found.values())
    return kept[:MOST_NEEDLES], len(kept[MOST_NEEDLES:])


def unquoted(value: bytes) -> bytes:
    """A value without the quotes that env files leave around it."""
    if len(value) > 1 and value[:1] == value[-1:] and value[:1] in (b'"', b"'"):
        return value[1:-1]
    return value


def pieces(name: str, value: bytes) -> list[Needle]:
    """The value; of one with several lines each line that is long enough.

    Env files write a private key on one line with backslash and n between its own lines. The
    program prints it either way.
    """
    key = value.startswith(KEY_HEAD)
    whole = [] if b"\n" in value else [Needle(name, value, part=key)]
    lines = value.replace(b"\\n", b"\n") if key else value
    if b"\n" not in lines:
        return whole
    stripped = map(bytes.strip, lines.split(b"\n"))
    return whole + [
        Needle(name, line, part=True)
        for line in stripped
        if len(line) >= SHORTEST_LINE and not COMMON_LINE.fullmatch(line)
    ]


def is_needle(name: str, value: bytes) -> bool:
    """Whether a value is distinct enough to search for: no placeholder, number, path or word."""
    lower = value.lower()
    if not SHORTEST <= len(value) <= LONGEST or lower == name.lower().encode("utf-8", "replace"):
        return False
    if lower in PLACEHOLDERS or is_path(value) or is_version(value):
        return False
    if DIGEST_NAME.search(name) and HEX.fullmatch(value):
        return False
    return not any(shape.fullmatch(value) for shape in (FILLED, NUMERIC, DIGEST, ONE_WORD))


def is_path(value: bytes) -> bool:
    """Whether a value is a path, and no base64 that begins with a slash."""
    return PATH.fullmatch(value) is not None and MIXED.search(value) is None


def is_version(value: bytes) -> bool:
    """Whether a value is a version number, maybe with the name of a build."""
    return len(value) <= LONGEST_VERSION and VERSION.fullmatch(value) is not None


# -- forms


class Form:
    """One way to write a needle; `anchor`: the place in it by which it is recognized."""

    __slots__ = ("text", "needle", "anchor")

    def __init__(self, text: bytes, needle: Needle) -> None:
        self.text = text
        self.needle = needle
        self.anchor = 0


def forms_of(needle: Needle) -> list[Form]:
    """The ways in which programs write a value, without repetition."""
    value = needle.value
    texts = dict.fromkeys([value, *percent_forms(value), *json_forms(value), *base64_forms(value)])
    return [Form(text, needle) for text in texts]


def percent_forms(value: bytes) -> list[bytes]:
    """Percent-encoded (RFC 3986 §2.1), with and without signs that URLs admit; either case."""
    from urllib.parse import quote, quote_plus  # here, since it costs workers memory

    encoded = [quote(value, safe=""), quote(value, safe="/"), quote_plus(value)]
    encoded += [quote(value, safe="!*'()"), quote(value, safe="!$&'()*+,;=:@/")]
    upper = [text.encode("ascii") for text in encoded]
    lower = [re.sub(rb"%..", lambda match: match.group().lower(), text) for text in upper]
    return upper + lower


def json_forms(value: bytes) -> list[bytes]:
    """As a JSON string's inside (RFC 8259 §7), escaped once and twice, as languages do it."""
    import json  # here, since it costs workers memory

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

FEW_SEARCHES, SOME, MANY, MOST = 15, 35, 100, 200  # in 64 KiB of logs of 18 kinds, on the average
#: how often a byte occurs there; a byte that stands neither here nor among the usual ones: never
OCCURRENCES = {
    **dict.fromkeys(b"YQ#@*$X~!`", FEW_SEARCHES),
    **dict.fromkeys(b"Jj&|?<'", SOME),
    **dict.fromkeys(b"qUVB%z\\+;F>", MANY),
    **dict.fromkeys(b"KvGNDyHxIOPwLARbM", MOST),
}
#: more often than that; Z ends the time stamps of many programs, and JSON is full of its brackets
USUAL = frozenset(b' e01ort.2asin:l/c36p"d-54mh,f79u8][gT)(\n_kCSWE=Z{}\t')
UNHEARD_OF = 1
LOOK_COST = 3  # what it costs to see that a block does not hold a byte, in occurrences
FIND_COST = 50  # what it costs to search a block for a form, in occurrences
FORM_SIZE = 240  # bytes of memory that a form takes beside its text
CONTEXT = 1  # bytes around an anchor by which forms are told apart


class Anchor:
    """A byte that logs hold seldom, and the forms that are recognized where it occurs.

    `forms`: by the bytes around the anchor.
    """

    __slots__ = ("byte", "forms", "most")

    def __init__(self, byte: int, forms: Sequence[Form]) -> None:
        self.byte = bytes([byte])
        self.forms: dict[bytes, tuple[Form, ...]] = {}
        self.most = FIND_COST * len(forms)  # occurrences from which on it is cheaper to search
        for form in forms:
            at = form.anchor = form.text.index(self.byte, CONTEXT)
            around = form.text[at - CONTEXT : at + CONTEXT + 1]
            self.forms[around] = (*self.forms.get(around, ()), form)

    def find(self, block: bytes, sights: list[Sight]) -> None:
        """Add where the block holds forms of this anchor."""
        byte, forms, left = self.byte, self.forms, self.most
        at = block.find(byte)
        while at >= 0:
            around = block[at - CONTEXT : at + CONTEXT + 1]
            if around in forms:
                for form in forms[around]:
                    if block.startswith(form.text, at - form.anchor):
                        sights.append(sight_of(form, at - form.anchor))
            left -= 1
            if not left:
                self._search(block, at + 1, sights)
                return
            at = block.find(byte, at + 1)

    def _search(self, block: bytes, begin: int, sights: list[Sight]) -> None:
        """The same for a block that is full of the anchor, from the next anchor on."""
        for forms in self.forms.values():
            for form in forms:
                search(block, form, max(0, begin - form.anchor), sights)


def sight_of(form: Form, at: int) -> Sight:
    """A form seen at an offset."""
    return Sight(at, at + len(form.text), form.needle)


def search(block: bytes, form: Form, begin: int, sights: list[Sight]) -> None:
    """Add each place of a form from `begin` on."""
    at = block.find(form.text, begin)
    while at >= 0:
        sights.append(sight_of(form, at))
        at = block.find(form.text, at + len(form.text))


class Haystack:
    """Finds a container's needles in blocks of text.

    To search 64 KiB for each form would cost 10 µs and more a form. To see that the block does not
    hold a byte costs 0.5 µs, and to look at each of its occurrences 0.2 µs. So a few anchors are
    chosen, bytes that logs hold seldom and many forms hold, and forms are compared only there.
    """

    def __init__(self, needles: Sequence[Needle]) -> None:
        forms = {form.text: form for needle in reversed(needles) for form in forms_of(needle)}
        self.size = sum(map(len, forms)) + FORM_SIZE * len(forms)  # bytes in memory, about
        self._anchors, self._others = anchors_of(list(forms.values()))

    def find(self, block: bytes) -> list[Sight]:
        """Where the block holds needles: sorted, none overlapping; the first and longest count."""
        sights: list[Sight] = []
        for anchor in self._anchors:
            if anchor.byte in block:
                anchor.find(block, sights)
        for form in self._others:
            search(block, form, 0, sights)
        return apart(sights) if sights else sights


def anchors_of(forms: Sequence[Form]) -> tuple[list[Anchor], list[Form]]:
    """The cheapest anchors of all forms, and the forms that are cheaper to search for.

    In each round that byte is taken which costs least for each of the forms that it covers.
    """
    by_byte: dict[int, list[Form]] = {}
    for form in forms:
        for byte in set(form.text[CONTEXT:-CONTEXT]) - USUAL:
            by_byte.setdefault(byte, []).append(form)
    anchors: list[Anchor] = []
    left = set(forms)
    while by_byte:
        byte = min(by_byte, key=lambda byte: (cost_of(byte) / len(by_byte[byte]), byte))
        taken = set(by_byte[byte])
        if cost_of(byte) > FIND_COST * len(taken):
            break
        anchors.append(Anchor(byte, by_byte[byte]))
        left -= taken
        remaining = {byte: [f for f in each if f not in taken] for byte, each in by_byte.items()}
        by_byte = {byte: each for byte, each in remaining.items() if each}
    return anchors, [form for form in forms if form in left]


def cost_of(byte: int) -> int:
    """What it costs to look at all occurrences of a byte, on the average."""
    return LOOK_COST + OCCURRENCES.get(byte, UNHEARD_OF)


def apart(sights: list[Sight]) -> list[Sight]:
    """The sights that overlap no earlier one; of those that begin together, the longest."""
    kept: list[Sight] = []
    for sight in sorted(sights, key=lambda sight: (sight.start, -sight.end)):
        if not kept or sight.start >= kept[-1].end:
            kept.append(sight)
    return kept
