"""The secrets that an alert was given of, in a small file beside the log.

    dockeraudit alerts 1 KEY          (the first 8 digits of the fingerprint key's SHA-256)
    CONTAINER FINGERPRINT             a line each, the oldest first

So a restart gives no alert again. Under another key the same secrets have other fingerprints, and
the file counts as empty.
"""

from __future__ import annotations

import os
import re
import stat as stat_bits
from collections import OrderedDict
from collections.abc import Iterable

from _dockeraudit.keyfile import NOT_FOLLOWED, NOT_INHERITED, foreign_owner

SEEN_LIMIT = 20_000  # secrets in containers; the one seen first goes first
SEEN_SIZE = 100 * SEEN_LIMIT  # bytes of a file of ours at most
SEEN_MARK = "dockeraudit alerts 1"
#: What goes into the file: ids, and never a name that a client typed, which may hold anything.
SEEN_LINE = re.compile(r"([0-9a-z]{12,64}|-) ([0-9a-f]{16})")

SecretPlace = tuple[str, str]  # container's id, - for none; fingerprint


class SeenSecrets:
    """Secrets in containers, bounded: the one longest known is forgotten first."""

    def __init__(self, places: Iterable[SecretPlace] = (), limit: int = SEEN_LIMIT) -> None:
        self._limit = limit
        self._places: OrderedDict[SecretPlace, None] = OrderedDict()
        for place in places:
            self.add(place)

    def __contains__(self, place: SecretPlace) -> bool:
        return place in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: SecretPlace) -> None:
        """This secret is known in this container."""
        self._places[place] = None
        if len(self._places) > self._limit:
            self._places.popitem(last=False)

    def places(self) -> list[SecretPlace]:
        """All of them, the oldest first."""
        return list(self._places)


def read_seen(path: str, key_id: str) -> list[SecretPlace]:
    """The file's content, nothing where there is none or it is of another key.

    Raises OSError, or ValueError that says what is wrong with the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | NOT_FOLLOWED | NOT_INHERITED)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        reason = foreign_owner(found)
        if reason or not stat_bits.S_ISREG(found.st_mode):
            raise ValueError(reason or "it is not a regular file")
        text = file.read(SEEN_SIZE + 1).decode("ascii", "replace")
    if len(text) > SEEN_SIZE:
        raise ValueError("it is larger than any that dockeraudit writes")
    mark, *lines = text.split("\n")
    if not mark.startswith(SEEN_MARK + " ") or lines[-1:] != [""]:
        raise ValueError("dockeraudit has not written it, or not all of it")
    if mark != f"{SEEN_MARK} {key_id}":
        return []
    return [place_of(line, number) for number, line in enumerate(lines[:-1], 2)]


def place_of(line: str, number: int) -> SecretPlace:
    """A line's content; raises ValueError."""
    match = SEEN_LINE.fullmatch(line)
    if not match:
        raise ValueError(f"its line {number} is not CONTAINER FINGERPRINT")
    return match[1], match[2]


def write_seen(path: str, key_id: str, places: Iterable[SecretPlace]) -> None:
    """Write the file, whole or not at all, for its owner alone; raises OSError."""
    lines = [line for line in map(" ".join, places) if SEEN_LINE.fullmatch(line)]
    part = f"{path}.{os.urandom(4).hex()}"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOT_INHERITED, 0o600)
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write("\n".join([f"{SEEN_MARK} {key_id}", *lines, ""]))
            file.flush()
            os.fsync(fd)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
