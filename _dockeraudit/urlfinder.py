"""Finds credentials in URLs, URLs that are credentials, and e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from _dockeraudit.candidates import Anchored, Found, Visitor, accept, by_keyword
from _dockeraudit.plausibility import LETTERS, is_login_password
from _dockeraudit.rules import Match

LOCAL_PART = LETTERS + b"0123456789._%+-"
LOCAL_SIZE = 1024  # bytes of a local part taken at a time
DOMAIN = re.compile(rb"@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}")
URL_AUTHORITY = 400  # bytes behind a :// in which its host ends
HOST_TAIL = 8  # bytes of a host's end by which rules for it are looked up


#: schemes of notification URLs, whose path is a token (Apprise, Shoutrrr)
SCHEMES = (b"discord", b"slack", b"tgram", b"telegram")
#: local parts of no person: git@host, users in examples, what forges put before an @
NO_LOCAL_PART = frozenset(
    b"git hg svn ssh noreply no-reply example user username you your.email youremail your-email me "
    b"foo test x-access-token x-oauth-basic x-token-auth oauth2 gitlab-ci-token".split()
)
#: last labels of units, images, files and hosts of one network
NO_TOP_LEVEL = frozenset(
    b"example test invalid localhost localdomain local lan internal k8s service socket "
    b"timer target mount device path scope slice svc cluster png jpg jpeg gif svg webp ico "
    b"css js ts rb py go rs so jar tgz gz zip deb rpm md json yaml yml lock whl war".split()
)
EXAMPLE_DOMAINS = (b"example.com", b"example.org", b"example.net", b"example.edu")
#: a package's version behind its @: inflight@1.0.6, checkout@v4
VERSION_BEHIND = re.compile(rb"@(?:\d|v\d|rc\d)")
MACHINE_MADE = re.compile(rb"[0-9a-f]{24}|\d\.\d+$|%40$")
LONG_LOCAL_PART = 20  # bytes of one that a Message-ID may be


class UrlFinder:
    """Visits each :// behind which a URL's credentials, or a known host or scheme, stand."""

    def __init__(
        self,
        urls: Sequence[Anchored],
        hooks: Sequence[Anchored],
        schemes: Sequence[Anchored],
    ) -> None:
        self._urls = (*urls, *schemes)
        self._hosts = by_keyword(hooks, HOST_TAIL)
        self._places = url_pattern(self._hosts, SCHEMES if schemes else ())

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


def url_pattern(host_tails: Iterable[bytes], schemes: Iterable[bytes]) -> Any:
    """A regex for URLs that may hold credentials, or whose host or scheme is known."""
    tails = b"|".join(map(re.escape, host_tails))
    host = rb"[a-z0-9.\-]{0,%d}(?<=%s)/|" % (URL_AUTHORITY, tails) if tails else b""
    known = b"".join(b"|(?<=" + scheme + b"://)" for scheme in schemes)
    return re.compile(rb"://(?=" + host + rb"[^\s/?#\"'<>`\\]{0,%d}@%s)" % (URL_AUTHORITY, known))


def at_sign(anchored: Anchored) -> Visitor:
    """A visitor for e-mail addresses, from each @ outwards: the pattern itself is quadratic."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        low = 0  # the end of the last address: the next local part does not reach into it
        domain = DOMAIN.search(block, at)
        while domain:
            at, end = domain.start(), domain.end()
            start = at - local_size(block, low, at)
            if start < at:
                none = is_no_address(block, start, at, end)
                rule = anchored.weak if none else anchored.rule
                found.append((anchored.rank, Match(rule, start, end, start, end, none)))
                low = end
            domain = DOMAIN.search(block, end if start < at else at + 1)
        return len(block)

    return visit


def is_no_address(block: bytes, start: int, at: int, end: int) -> bool:
    """Whether what looks like an address is a package, a unit, a message's id or an example."""
    local, domain = block[start:at].lower(), block[at + 1 : end].lower()
    if local in NO_LOCAL_PART or domain.rpartition(b".")[2] in NO_TOP_LEVEL:
        return True
    if domain.endswith(EXAMPLE_DOMAINS) or VERSION_BEHIND.match(block, at):
        return True
    following = block[end : end + 2]
    if following[:1] in (b"-", b"_") or following[:1] == b":" and following[1:].isalpha():
        return True
    if len(local) < LONG_LOCAL_PART:
        return local[-1:].isdigit() and b"." in local and MACHINE_MADE.search(local) is not None
    in_brackets = block[start - 1 : start] == b"<" and following[:1] == b">"
    return in_brackets or MACHINE_MADE.search(local) is not None


SHORTEST_PASSWORD = 6  # bytes
PAIR_SIZE = 200  # bytes before an @ in which a user and a password stand


def at_percent(anchored: Anchored) -> Visitor:
    """A visitor at the % of a percent-encoded ://"""
    match_here = anchored.whole.match

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        if block[at + 1 : at + 3].lower() != b"3a":
            return at + 1
        match = match_here(block, at)
        if match is None:
            return at + 1
        accept(anchored, block, match, found)
        return int(match.end())

    return visit


#: a user and a password, before the @ of a host
PAIR_BEFORE = re.compile(rb"(?:^|[\"'=(\[{<>,;])[\w.\-]{1,64}:([^\s\"'@/<>`]{4,128})$")


def at_host(anchored: Anchored) -> Visitor:
    """A visitor for user:password@host:port without a scheme, and the same of Go's drivers."""
    hosts = anchored.whole

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        host = hosts.search(block, at)
        while host:
            at, end = host.span()
            colon = block.rfind(b":", max(0, at - PAIR_SIZE), at)
            pair = None
            if 0 <= colon < at - SHORTEST_PASSWORD and not block[colon:at].isalpha():
                word = block[max(0, at - PAIR_SIZE) : at].rsplit(None, 1)[-1]
                pair = PAIR_BEFORE.search(word)
            if pair and is_login_password(pair.group(1)):
                start = at - len(pair.group(1))
                found.append((anchored.rank, Match(anchored.rule, start, end, start, at)))
            host = hosts.search(block, end)
        return len(block)

    return visit


def local_size(block: bytes, low: int, at: int) -> int:
    """How many bytes before `at`, but not before `low`, are an address's local part."""
    before = block[max(low, at - LOCAL_SIZE) : at]
    size = len(before) - len(before.rstrip(LOCAL_PART))
    if size == LOCAL_SIZE:
        size = at - low - len(block[low:at].rstrip(LOCAL_PART))
    return size
