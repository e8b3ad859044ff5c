"""Finds secrets behind words that name none themselves: sessions, signatures, SQL, logins.

Each visitor stands at one word of a table, looks at its line, and reports under its own rule. The
regexes are verbose and ignore case; `[ ]` is a blank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from _dockeraudit.candidates import Anchored, Found, Visitor
from _dockeraudit.plausibility import (
    is_any,
    is_code,
    is_filled,
    is_generated_inside,
    is_header_value,
    is_inline_auth,
    is_login_password,
    is_option_password,
    is_password,
    is_random,
    is_sasl_plain,
    is_session,
    is_signature,
)
from _dockeraudit.rules import Match
from _dockeraudit.wordfinder import OWN_GROUPS

BEFORE_WORD = 64  # bytes before a word in which a phrase may ask for something


class Phrase(NamedTuple):
    """Where a word's secret stands: a regex from the word on; tests of the text before, of it."""

    rule_id: str
    pattern: Any
    follows: Callable[[bytes], bool]
    is_secret: Callable[[bytes], bool]


def phrase(
    rule_id: str,
    pattern: bytes,
    test: Callable[[bytes], bool],
    follows: Callable[[bytes], bool] = is_any,
) -> Phrase:
    """A phrase from its verbose regex."""
    return Phrase(rule_id, re.compile(pattern, re.I | re.X), follows, test)


def ends(pattern: bytes) -> Callable[[bytes], bool]:
    """A test whether the line before the word ends so."""
    search = re.compile(rb"(?:" + pattern + rb")$", re.I | re.X).search

    def test(before: bytes) -> bool:
        return search(before) is not None

    return test


QUOTE = rb"(?:\\{0,15}[\"'`])"
#: a value in a URL or a cookie
URL_VALUE = rb"([A-Za-z0-9%_.~+/\-]{12,2048}={0,2})"
BEFORE_PARAMETER = ends(rb"[?&;]|&amp;|\\u0026|%26")
BEFORE_SIGNATURE = ends(rb"(?:[?&;]|&amp;|\\u0026|%26)[\w\-]{0,24}")
#: the header's name, or another cookie, stands before
IN_COOKIE = ends(rb"(?:^|[^a-z])cookies?\b[^\n]* | =[^\s;]{1,60};[ ]?[\w.\-]*")
#: what makes digits behind `code` a one-time code
ONE_TIME = ends(
    rb"""(?:verification|security|confirmation|confirm|login|log-in|sign-?in|auth\w*|one[- ]?time
    |2fa|mfa|pass|access|sms|activation|reset|recovery|validation|otp|two-factor)[ _\-]"""
)
#: a command's argument
ARGUMENT_VALUE = rb"""(?:\\{0,15}[\"'`]([^\r\n\"'`\\]{3,256})\\{0,15}[\"'`]
    |([^\s\"'`|;<>\\,\]]{3,256}))"""

#: by word of the second pass
PHRASES: dict[bytes, tuple[Phrase, ...]] = {
    b"sess": (
        # JSESSIONID=X, PHPSESSID, ASP.NET_SessionId, laravel_session
        phrase(
            "session-cookie",
            rb"""sess(?:ion)?[_\-]?(?:id)?\w{0,12} (?:%5b|[\w.\-]){0,24} """
            + QUOTE
            + rb"?[ ]?(?:=|:|%3d|=>)[ ]?"
            + QUOTE
            + rb"?"
            + URL_VALUE,
            is_session,
            ends(rb"j|php|asp|asp\.net_|laravel_|ci_|cake_|_[a-z\d]{2,24}_"),
        ),
        # Cookie: a=b; sessionid=X
        phrase(
            "session-cookie",
            rb"sess(?:ion)?[_\-]?(?:id|token)?=" + URL_VALUE,
            is_session,
            IN_COOKIE,
        ),
        # Session = X of Tomcat, Session created: X
        phrase(
            "session-cookie",
            rb"session(?:[ _]?id)?"
            + QUOTE
            + rb"""?[ ]?(?:created|started|destroyed|opened)?
            [ ]?[=:][ ]?"""
            + QUOTE
            + rb"?([0-9A-F]{32})(?![0-9A-Za-z])",
            is_filled,
            ends(rb"^|[^\w]"),
        ),
    ),
    b"sid=": (
        phrase("session-cookie", rb"sid=" + URL_VALUE, is_session, ends(rb"connect\.")),
        phrase("session-cookie", rb"sid=" + URL_VALUE, is_session, IN_COOKIE),
    ),
    b"sig=": (phrase("signed-url", rb"sig=" + URL_VALUE, is_signature, BEFORE_SIGNATURE),),
    b"signature=": (
        phrase("signed-url", rb"signature=" + URL_VALUE, is_signature, BEFORE_SIGNATURE),
    ),
    b"code": (
        phrase("oauth-code", rb"code=" + URL_VALUE, is_code, BEFORE_PARAMETER),
        phrase(
            "oauth-code",
            rb"code" + QUOTE + rb"?[=:][ ]?" + QUOTE + rb"?" + URL_VALUE,
            is_code,
            ends(rb"(?:authorization|auth|oauth|grant)[ _\-]"),
        ),
        # your verification code is 123456
        phrase(
            "one-time-code",
            rb"""codes?(?:[ ](?:is|was|for[ ][^\n:]{1,60}))?[ ]?[:=]?[ ]{0,2}[\"'`*]{0,2}
            (\d{3}[ \-]?\d{3}|\d{4,8})(?![\w.\-]|,\d)""",
            is_any,
            ONE_TIME,
        ),
        phrase(
            "one-time-code",
            rb"code[ ]([A-Z0-9]{4}-[A-Z0-9]{4})(?![\w\-])",
            is_any,
            ends(rb"enter[ ](?:the[ ])?"),
        ),
    ),
    b"hook": (
        # host='hooks.slack.com', port=443): … with url: /services/T/B/X
        phrase(
            "webhook-path",
            rb"""hooks\.slack\.com[^\n/]{0,200}/(?:services|workflows|triggers)/
            (T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/[A-Za-z0-9]{20,32})""",
            is_filled,
        ),
        phrase("webhook-path", rb"hooks/\d{15,20}/([\w\-]{60,80})", is_filled),
        # Mattermost, Rocket.Chat
        phrase(
            "webhook-path",
            rb"hooks/([a-z0-9]{26}|[A-Za-z0-9]{17,24}/[A-Za-z0-9]{40,64})(?![\w\-])",
            is_filled,
            ends(rb"(?<!example\.com)(?<!example\.org)/"),
        ),
        # n8n, Home Assistant, WeCom
        phrase(
            "webhook-path",
            rb"hooks?(?:-test|b2)?/(?:send\?key=)?([\w\-]{20,128})(?![\w\-./@])",
            is_random,
            ends(rb"/(?:api/)?web"),
        ),
        phrase("webhook-path", rb"hook/([\w\-]{20,128})(?![\w\-./])", is_random, ends(rb"bot/v2/")),
    ),
    b"setuser": (
        phrase("protocol-login", rb"setuser[ ][^\n>]{0,80}>([^\s\"']{4,128})", is_password),
    ),
    b"securestring": (
        phrase(
            "command-line-secret",
            rb"securestring[ ]+(?:-string[ ]+)?[\"']([^\"'$\r\n]{3,128})[\"']",
            is_password,
        ),
    ),
    b"add_user": (
        phrase(
            "command-line-secret",
            rb"add_user[ ][\w.\-]{1,64}[ ]" + ARGUMENT_VALUE,
            is_login_password,
        ),
    ),
    b"contrase": (
        phrase(
            "keyed-password",
            rb"""contrase(?:\xc3\xb1|n)as?(?:[ ](?:es|(?:de|del|para|of)[ ][^\n:=]{1,60}))?
            [ ]?[:=]?[ ]{0,3}[\"'`]?([^\s\"'`<>]{6,128})""",
            is_login_password,
        ),
    ),
    b"appid=": (
        phrase("keyed-secret", rb"appid=([0-9a-f]{32})(?![0-9a-z])", is_random, ends(rb"[?&]")),
    ),
    b"identified": (
        phrase(
            "sql-password",
            rb"""identified[ ]+(?:(?:with|via)[ ]+[`'\"]?[\w\-]{1,64}[`'\"]?[ ]+)?
            (?:by|as|using)[ ]+
            (?:password[ ]*\(?[ ]*)?\\{0,7}['\"]([^'\"\\\r\n]{3,256})\\{0,7}['\"]""",
            is_password,
        ),
        phrase("sql-password", rb"identified[ ]+by[ ]+([\w#$]{6,30})", is_login_password),
    ),
    b"login": (
        # login attempt for bob / X, login attempt [root/X]
        phrase(
            "protocol-login",
            rb"""login[ ]attempts?[ ](?:for[ ]|with[ ]|\[)?(?:b')?[^\s/\]']{1,64}'?[ ]?/[ ]?(?:b')?
            ([^\s\]'\"]{4,128})""",
            is_login_password,
        ),
        # IMAP: A001 LOGIN user password
        phrase(
            "protocol-login",
            rb"""login[ ](?:\"[^\"\r\n]{1,64}\"|[^\s\"'\\]{1,64})[ ]\\?\"?([^\s\"'\\]{4,128})\\?\"?
            (?=$|['\"\\\r\n])""",
            is_login_password,
            ends(rb"(?:^|[\s'\">:])[A-Za-z]{0,8}\d{1,8}[ ]"),
        ),
    ),
    b"communit": (
        phrase(
            "snmp-community",
            rb"""community(?:[ ]?[=:][ ]?|[ ]+)\\?[\"']?([\w!@#$%^&*.\-]{6,32})\\?[\"']?
            (?=$|[\s,;)\]}\"'])""",
            is_login_password,
            ends(rb"(?:^|[\s\"',(\[{:])(?:snmp[\w\-]*[ ]?|r[ow])?[_\-]?"),
        ),
    ),
}
#: by word of the first pass
NAME_PHRASES: dict[bytes, tuple[Phrase, ...]] = {
    b"debugger pin": (phrase("one-time-code", rb"debugger[ ]pin:[ ](\d{3}-\d{3}-\d{3})", is_any),),
}
AUTHORIZATION = rb"authorization(?:" + QUOTE + rb"|\])?[ ]?(?:[:=,]|=>)[ ]?\[?" + QUOTE + rb"?\[?"
#: at words that name secrets too, looked at where no secret is assigned to them
LOGIN_PHRASES: dict[bytes, tuple[Phrase, ...]] = {
    b"auth": (
        # Redis: "AUTH" "default" "X"
        phrase(
            "protocol-login",
            rb"""auth\\{0,7}\"[ ]\\{0,7}\"(?:[^\"\\\r\n]{1,64}\\{0,7}\"[ ]\\{0,7}\")?
            ([^\"\\\r\n]{4,256})\\{0,7}\"""",
            is_password,
            ends(rb"\""),
        ),
        phrase(
            "protocol-login",
            rb"auth(?:enticate)?[ ]plain[ ]\W{0,4}([A-Za-z0-9+/]{8,512}={0,2})",
            is_sasl_plain,
        ),
        phrase(
            "protocol-login",
            rb"auth[ ]([^\s\"'\\<>]{6,128})(?=\s|$|[\"'\\])",
            is_inline_auth,
            ends(rb"(?:^|[\s>\"']|master)"),
        ),
        phrase(
            "authorization-header",
            AUTHORIZATION + rb"digest[ ][^\r\n]{0,600}?response=\\{0,7}\"?([0-9a-f]{32,64})",
            is_any,
        ),
        phrase(
            "authorization-header",
            AUTHORIZATION
            + rb"""(?!basic|bearer|digest|aws4)[A-Za-z][\w\-]{1,24}[ ]+
            (?:(?:token|key|api_?key)[=:][ ]?)?\\{0,7}\"?([\w+/=.~:\-]{12,2048})""",
            is_header_value,
        ),
    ),
    b"pass": (
        # htpasswd -bnBC 10 admin X
        phrase(
            "command-line-secret",
            rb"""passwd[ ]+-[a-z]*b[a-z]*[ ]+(?:-C[ ]?)?(?:\d{1,2}[ ]+)?
            (?:[^\s'\";|]{1,128}[ ]+){1,2}"""
            + ARGUMENT_VALUE,
            is_option_password,
            ends(rb"ht"),
        ),
        # rabbitmqctl change_password user X
        phrase(
            "command-line-secret",
            rb"password[ ][\w.\-]{1,64}[ ]" + ARGUMENT_VALUE,
            is_login_password,
            ends(rb"change_|authenticate_"),
        ),
        phrase(
            "one-time-code",
            rb"passw(?:ord|d)s?[ ](?:otp|code|pin)(?:[ ]is)?[:=\s]{1,3}(\d{4,8})(?!\d)",
            is_any,
        ),
        # FTP and POP3
        phrase(
            "protocol-login",
            rb"pass[ ]([^\s'\"\\<>]{4,128})",
            is_login_password,
            ends(rb"[>:-][ ]?|['\"]"),
        ),
        phrase(
            "protocol-login",
            rb"pass[ ]([^\s'\"\\<>]{4,128})[\r]?$",
            is_generated_inside,
            ends(rb"^"),
        ),
    ),
}
#: names of passwords in scripts that have no capitals, found only in blocks that are not ASCII
FOREIGN_NAMES = tuple(
    name.encode()
    for name in (
        "密码", "密碼", "口令", "パスワード", "пароль", "Пароль", "비밀번호", "hasło", "şifre",
        "mật khẩu",
    )
)  # fmt: skip
#: the name's rest, then a colon of any width, `is` in Chinese or Japanese, or nothing
FOREIGN = phrase(
    "keyed-password",
    rb"""(?:\xe6\x98\xaf|\xe4\xb8\xba|\xe3\x81\xaf|[ ]-[ ]|[^\n:=\xef]{0,40}(?:[:=]|\xef\xbc\x9a))
    [ ]{0,3}[\"'`]?([!-~]{6,128})""",
    is_login_password,
)
#: by word, what must follow it in the translated copy; single letters are written as shown there
PHRASE_AHEAD = {
    b"sess": (
        rb"(?=(?=([\w.\-]{0,40}))"
        + OWN_GROUPS[0]
        + rb"(?:%5b[\w.\-]{0,24})?(?:[ ]id)?[\"'`\\]{0,16}[ ]?"
        + rb"(?:created|started|destroyed|opened)?[ ]?[=:%]"
        + rb"[\w=>\\\"'` ]{0,24}[\w%.~+/\-]{20})"
    ),
    b"sid=": rb"(?=[\w%.~+/\-]{16})",
    b"sig=": rb"(?=[\w%.~+/\-]{16})",
    b"signature=": rb"(?=[\w%.~+/\-]{16})",
    b"code": rb"(?=[sk]?[=:\"'` ][^\n]{0,60}?[\w\-]{4})",
    b"appid=": rb"(?=[\w]{32})",
    b"identified": rb"(?=[ ]+[^\n]{6})",
    b"login": rb"(?=[ ]\"?[^\s]{1,64}\"?[ ][^\s]{4,128}(?:$|[\s\\])|[ ]attempts?[ ][^\n/]{1,40}/)",
    b"communit": rb"(?=[^\n]{0,8}[ =:][^\s]{6})",
    b"securestring": rb"(?=[ ])",
    b"setuser": rb"(?=[ ][^\n]{0,80}>)",
    b"add_user": rb"(?=[ ])",
    b"contrase": rb"(?=[^\n]{0,80}[ :=])",
    b"hook": rb"(?=[sk]?[\-./])",
}


class PhraseFinder:
    """The visitors at the words of a table."""

    def __init__(self, rules: Mapping[str, Anchored]) -> None:
        self._rules = rules

    def visits(self, table: Mapping[bytes, Sequence[Phrase]]) -> dict[bytes, Sequence[Visitor]]:
        """By word, its visitor; words of which no rule is there are left out."""
        return {
            word: [self._at(len(word), [each for each in phrases if each.rule_id in self._rules])]
            for word, phrases in table.items()
            if any(each.rule_id in self._rules for each in phrases)
        }

    def foreign(self) -> dict[bytes, Visitor]:
        """By foreign name of a password, its visitor, where the rule is there."""
        if FOREIGN.rule_id not in self._rules:
            return {}
        return {name: self._at(len(name), [FOREIGN], behind=len(name)) for name in FOREIGN_NAMES}

    def _at(self, size: int, phrases: Sequence[Phrase], *, behind: int = 0) -> Visitor:
        """A visitor that reports the first of the phrases whose secret is one.

        The word has `size` bytes; the regexes begin `behind` bytes from its start.
        """

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            before = None
            for each in phrases:
                match = each.pattern.match(block, at + behind)
                if match is None:
                    continue
                if before is None:
                    before = block[max(0, at - BEFORE_WORD) : at].rpartition(b"\n")[2]
                start, end = match.span(match.lastindex)
                if not each.follows(before) or start in found.values:
                    continue
                if not each.is_secret(block[start:end]):
                    continue
                found.values.add(start)
                anchored = self._rules[each.rule_id]
                found.append((anchored.rank, Match(anchored.rule, at, end, start, end)))
                return int(end)
            return at + size

        return visit
