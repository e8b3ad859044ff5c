"""Finds credentials in URLs, URLs that are credentials, and e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from _dockeraudit.candidates import Anchored, Found, Visitor, accept, by_keyword
from _dockeraudit.plausibility import LETTERS
from _dockeraudit.rules import Match

LOCAL_PART = LETTERS + b"0123456789._%+-"
LOCAL_SIZE = 1024  # bytes of a local part taken at a time
DOMAIN = re.compile(rb"@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
URL_AUTHORITY = 400  # bytes behind a :// in which its host ends
HOST_TAIL = 8  # bytes of a host's end by which rules for it are looked up


class UrlFinder:
    """Visits each :// before which a URL's credentials, or a known host, may stand."""

    def __init__(self, urls: Sequence[Anchored], hooks: Sequence[Anchored]) -> None:
        self._urls = urls
        self._hosts = by_keyword(hooks, HOST_TAIL)
        self._places = url_pattern(self._hosts)

    def find(self, block: bytes, found: Found) -> None:
        """Append the credentials in the block's URLs."""
        for place in self._places.finditer(block):
            at = place.start()
            host_end = block.find(b"/", at + 3, at + URL_AUTHORITY)
            hooks = self._hosts.get(block[host_end - HOST_TAIL : host_end], ())
            for anchored in (*self._urls, *hooks):
                match = anchored.whole.match(block, at)
                if match:
                    accept(anchored, block, match, found)


def url_pattern(host_tails: Iterable[bytes]) -> Any:
    """A regex for URLs that may hold credentials, or whose host has one of these ends."""
    tails = b"|".join(map(re.escape, host_tails))
    host = rb"[a-z0-9.\-]{0,%d}(?<=%s)/|" % (URL_AUTHORITY, tails) if tails else b""
    return re.compile(rb"://(?=" + host + rb"[^\s/?#\"'<>`\\]{0,%d}@)" % URL_AUTHORITY)


def at_sign(anchored: Anchored) -> Visitor:
    """A visitor for e-mail addresses, from each @ outwards: the pattern itself is quadratic."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        low = 0  # the end of the last address: the next local part does not reach into it
        domain = DOMAIN.search(block, at)
        while domain:
            at, end = domain.start(), domain.end()
            start = at - local_size(block, low, at)
            if start < at:
                found.append((anchored.rank, Match(anchored.rule, start, end, start, end)))
                low = end
            domain = DOMAIN.search(block, end if start < at else at + 1)
        return len(block)

    return visit


def local_size(block: bytes, low: int, at: int) -> int:
    """How many bytes before `at`, but not before `low`, are an address's local part."""
    before = block[max(low, at - LOCAL_SIZE) : at]
    size = len(before) - len(before.rstrip(LOCAL_PART))
    if size == LOCAL_SIZE:
        size = at - low - len(block[low:at].rstrip(LOCAL_PART))
    return size
