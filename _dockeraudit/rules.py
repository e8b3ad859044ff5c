"""What a rule is, and the shorthand in which the tables of `patterns` are written."""

from __future__ import annotations

import base64
import functools
import re
from typing import NamedTuple


class Rule(NamedTuple):
    """What one kind of secret looks like.

    `keywords`: literals of which one must occur, lower-case where the pattern ignores case.
    `pattern`: a regex over bytes, matched where an anchor was found. `group`: the group that is the
    secret, -1 for the last one that took part. `examples` must match, `negatives` must not.
    `multiline`: the match is a header, the secret follows on later lines. `find`: which finder
    anchors the rule. `custom`: a user's rule.
    """

    id: str
    name: str
    severity: str
    keywords: tuple[bytes, ...]
    pattern: bytes
    group: int
    examples: tuple[str, ...]
    negatives: tuple[str, ...]
    reference: str
    multiline: bool = False
    find: str = "token"
    custom: bool = False


class Needle(NamedTuple):
    """A secret value of a container, and the variable that holds it.

    `part`: the value is a line of a longer one, or a private key, whose rule knows what all of it
    is. Its text shows no byte of the value.
    """

    env: str
    value: bytes
    part: bool = False

    def __repr__(self) -> str:
        return f"Needle(env={self.env!r})"


class Match(NamedTuple):
    """Where a rule matched, in byte offsets of the block; the secret is a part of the match.

    `placeholder`: the match is plainly no secret; its rule then has the severity LOW. `needle`: the
    secret is this one of the container's own. `union`: from where to where the secrets reach that
    lie across one another here.
    """

    rule: Rule
    start: int
    end: int
    secret_start: int
    secret_end: int
    placeholder: bool = False
    needle: Needle | None = None
    union: tuple[int, int] | None = None

    def moved(self, by: int) -> Match:
        """The match so many bytes further on."""
        rule, start, end, secret_start, secret_end, placeholder, needle, union = self
        if union:
            union = union[0] + by, union[1] + by
        places = start + by, end + by, secret_start + by, secret_end + by
        return Match(rule, *places, placeholder, needle, union)


#: the rule of a container's own secrets: its values are in no table, so nothing anchors it
CONTAINER_ENV = Rule(
    "container-env", "Container's Own Secret", "HIGH", (), b"", 0, (), (),
    "the variables of the container itself", find="env",
)  # fmt: skip

#: alphabets of token bodies, by the letter that names them in a shape
ALPHABETS = {
    "a": "A-Za-z0-9",
    "w": "A-Za-z0-9_-",
    "v": "A-Za-z0-9_",
    "h": "0-9a-f",
    "x": "0-9a-fA-F",
    "u": "A-Z0-9",
    "l": "a-z0-9",
    "d": "0-9",
    "b": "A-Za-z0-9+/",
    "e": "A-Za-z0-9+/=_.-",
    "g": "A-Za-z0-9_=-",
    "L": "a-z",
    "U": "A-Z",
    "p": "A-Z2-7",
    "f": "A-Za-z0-9._",
    "q": "A-Za-z0-9+/=_%-",
}
SHAPE_PART = re.compile(r"\{([a-zA-Z])(\d+)(?:(,)(\d*))?\}|\[([^\]]+)\]|(.)", re.S)
UUID = "{h8}-{h4}-{h4}-{h4}-{h12}"


def shape_regex(shape: str) -> str:
    """A shape as a regex.

    `{a36}` is 36 of alphabet a, `{a20,}` 20 or more, `[x|y]` a choice; all else is literal.
    """
    parts = []
    for letter, least, comma, most, choice, literal in SHAPE_PART.findall(shape):
        if letter:
            parts.append(f"[{ALPHABETS[letter]}]{{{least}{comma}{most}}}")
        elif choice:
            parts.append("(?:" + "|".join(re.escape(option) for option in choice.split("|")) + ")")
        else:
            parts.append(re.escape(literal))
    return "".join(parts)


def shape_end(shape: str) -> str:
    """What must not follow a shape of a fixed length: more of a token's characters."""
    last = re.search(r"\{([a-zA-Z])\d+(,\d*)?\}$", shape)
    return (
        ""
        if last is None or last.group(2) == ","
        else "(?![A-Za-z0-9_-])"
        if last.group(1) not in "be"
        else f"(?![{ALPHABETS[last.group(1)]}])"
    )


@functools.cache
def letters(letter: str) -> str:
    """The alphabet that a letter of a shape stands for, ranges spelled out."""
    return re.sub(
        r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), ALPHABETS[letter]
    )


@functools.cache
def plain_letters(letter: str) -> str:
    """The same without punctuation, where anything is left then."""
    return letters(letter).translate(str.maketrans("", "", "-_=.+/%")) or letters(letter)


def shape_sample(shape: str, seed: int = 1) -> str:
    """A made-up text of this shape, always the same one.

    So nothing token-shaped needs to stand in a file.
    """
    import random  # here, since workers make no samples

    rng = random.Random(f"{shape} {seed}")
    text = ""
    for letter, least, _, _, choice, literal in SHAPE_PART.findall(shape):
        if letter:
            alphabet = plain_letters(letter)
            text += "".join(rng.choice(alphabet) for _ in range(int(least)))
        else:
            text += choice.split("|")[0] if choice else literal
    return text


def token(rule_id: str, name: str, shapes: str, reference: str, severity: str = "HIGH") -> Rule:
    """A rule for tokens that begin with a public prefix; `shapes` are separated by spaces."""
    parts = [shape_regex(shape) + shape_end(shape) for shape in shapes.split()]
    pattern = parts[0] if len(parts) == 1 else "|".join(parts)
    examples = tuple(shape_sample(shape) for shape in shapes.split())
    heads = tuple(head for shape in shapes.split() for head in shape_heads(shape))
    negatives = tuple(example[: len(example) // 2] for example in examples)
    return Rule(rule_id, name, severity, heads, pattern.encode(), 0, examples, negatives, reference)


def shape_heads(shape: str) -> tuple[bytes, ...]:
    """The three-byte beginnings of a shape, for the scanner's table."""
    heads = [""]
    for letter, least, _, _, choice, literal in SHAPE_PART.findall(shape):
        if min(map(len, heads)) >= 3:
            break
        if letter:
            alphabet = letters(letter)
            options = (
                list(alphabet)
                if int(least) == 1 or min(map(len, heads)) == 2
                else [a + b for a in alphabet for b in alphabet]
            )
        else:
            options = choice.split("|") if choice else [literal]
        heads = [head + option for head in heads for option in options]
    return tuple(sorted({head[:3].encode() for head in heads}))


def mixed(rule: Rule) -> Rule:
    """The rule, for tokens with a digit and a capital behind their head: names hardly have both."""
    ahead = b"".join(rb"(?=[\w-]{3,64}?[%s])" % signs for signs in (b"0-9", b"A-Z"))
    return rule._replace(
        pattern=ahead + rule.pattern,
        examples=tuple(f"{example[:-2]}7Q" for example in rule.examples),
        negatives=tuple(example.lower() for example in rule.examples),
    )


def base64_head(text: str) -> str:
    """The base64 that each text with this beginning has, as far as it is the same for all."""
    return base64.b64encode(text.encode()).decode()[: len(text) * 8 // 6]


def behind(before: str, rule: Rule) -> Rule:
    """The rule, where something stands before its token that is no part of it."""
    return rule._replace(
        pattern=f"(?<={re.escape(before)})".encode() + rule.pattern,
        examples=tuple(before + e for e in rule.examples),
        negatives=rule.examples,
    )


def keyed(
    rule_id: str, name: str, service: str, shapes: str, reference: str, severity: str = "MEDIUM"
) -> Rule:
    """A rule for values that only their key gives away.

    One of the `service` words stands in the key's name, and the value has one of the shapes.
    """
    pattern = "|".join(f"(?:{shape_regex(shape)})" for shape in shapes.split())
    word, first = service.split()[0], shapes.split()[0]
    examples = (
        f"{word}_api_key = {shape_sample(first)}",
        f'"{word}-token": "{shape_sample(first, 2)}"',
    )
    negatives = (
        f"{word}_api_key = {shape_sample(first)[:5]}",
        f"other_api_page = {shape_sample(first)}",
    )
    return Rule(
        rule_id,
        name,
        severity,
        tuple(service.encode().split()),
        pattern.encode(),
        0,
        examples,
        negatives,
        reference,
        find="service",
    )
