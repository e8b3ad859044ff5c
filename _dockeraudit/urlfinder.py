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
#: an address that is none: git@host, units, images, packages, examples, hosts of one network
NO_LOCAL_PART = re.compile(
    rb"(?i)(?:git|hg|svn|ssh|noreply|no-reply|example|user|username|you|your.?e?mail|me|foo|test|"
    rb"[\w.\-]*%40|x-access-token|x-oauth-basic|x-token-auth|oauth2|gitlab-ci-token|"
    rb"[\w\-]*[0-9a-f]{24,}[\w\-.]*|\d+(?:\.\d+)+)"
)
NO_DOMAIN = re.compile(
    rb"(?i)@(?:.*\.)?(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|localdomain|"
    rb"local|lan|internal|k8s|"
    rb"service|socket|timer|target|mount|device|path|scope|slice|svc|cluster|png|jpe?g|gif|svg|"
    rb"webp|ico|css|js|ts|rb|py|"
    rb"go|rs|so|jar|tgz|gz|zip|deb|rpm|md|json|ya?ml|lock|whl|war)|@\d+(?:\.\d+)*[\w.\-]*|@(?:v|"
    rb"rc)\d[\w.\-]*"
)


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
    """Whether what looks like an e-mail address is a package, a unit, a message's id or an
    example."""
    return (
        NO_DOMAIN.fullmatch(block, at, end) is not None
        or NO_LOCAL_PART.fullmatch(block, start, at) is not None
        or block[end : end + 1] in (b"-", b"_")
        or block[end : end + 1] == b":"
        and block[end + 1 : end + 2].isalpha()
        or block[start - 1 : start] == b"<"
        and block[end : end + 1] == b">"
        and at - start >= 20
    )


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
