"""JSON that two readers cannot understand in two ways. Performs no I/O.

The engine reads bodies with Go's encoding/json. It takes the last of two equal keys, puts U+FFFD
for what is no character, and stops reading behind the first value. Python's reader differs in each
of these. So that a judge sees what the engine will see, what they differ in is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

MAX_VALUES = 50_000  # in one text; each is an object in memory, and takes time to judge
MAX_DEPTH = 32  # of arrays and objects in each other; the API's own bodies have at most 7
MAX_DIGITS = 20  # of an integer; Go's 64 bits have 19. Python's reader is slow with long ones
SHOWN_KEY = 64  # characters of a key that an error shows

STRING = re.compile(r'"[^"]*"?')  # in a text without escaped quotes
BRACKET = re.compile(r"[\[\]{}]")
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class NotStrict(ValueError):
    """A text that is no JSON, or JSON that readers differ in; the message says where or why."""


def read_strict(raw: bytes) -> Any:
    """The one value of a JSON text (RFC 8259) in UTF-8; raises NotStrict."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotStrict(f"byte {error.start} is not UTF-8") from None
    check_shape(text)
    try:
        value = STRICT_DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotStrict(f"{error.msg} (character {error.pos})") from None
    if SURROGATE_ESCAPE.search(text):
        refuse_lone_surrogates(value)
    return value


def check_shape(text: str) -> None:
    """Raise NotStrict for more values, or a deeper nesting, than any body of the API has."""
    structure = STRING.sub("", text.replace("\\\\", "").replace('\\"', ""))
    if structure.count(",") + structure.count("[") + structure.count("{") > MAX_VALUES:
        raise NotStrict(f"it holds more than {MAX_VALUES} values")
    depth = 0
    for bracket in BRACKET.finditer(structure):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise NotStrict(f"its values are nested deeper than {MAX_DEPTH}")


def single_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; raises NotStrict where two have the same key."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise NotStrict(f"the key {key[:SHOWN_KEY]!r} stands twice in one object")
        seen.add(key)
    raise AssertionError("unreachable")


def short_integer(digits: str) -> int:
    """An integer of no more digits than Go's have; raises NotStrict."""
    if len(digits) > MAX_DIGITS:
        raise NotStrict(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def no_constant(name: str) -> NoReturn:
    """NaN and Infinity, which Python's reader takes and Go's does not."""
    raise NotStrict(f"{name} is no JSON")


def refuse_lone_surrogates(value: Any) -> None:
    """Raise NotStrict where an escape stands for half of a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise NotStrict("an escape \\u stands for half of a character") from None


STRICT_DECODER = json.JSONDecoder(
    object_pairs_hook=single_keys, parse_int=short_integer, parse_constant=no_constant
)
