"""Finds secrets behind words that name none themselves: sessions, signatures, SQL, options.

Each visitor stands at one word (`PHRASES`), looks at its line, and reports under its own rule.
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
    is_header_value,
    is_inline_auth,
    is_login_password,
    is_mixed_password,
    is_option_password,
    is_password,
    is_random,
    is_sasl_plain,
    is_session,
    is_signature,
)
from _dockeraudit.rules import Match

LINE_BACK = 240  # bytes before a word in which its line is looked at
ENDS_SIZE = 64  # bytes of those in which a regex is searched
COMMAND_END = re.compile(rb"[|;&(]")
PROGRAM_PATH = re.compile(rb"^[\"'`]?(?:.*[/\\])?|(?:\.exe)?[\"'`]?$")
VALUE_QUOTE = rb"\\{0,15}[\"'`]"


class Phrase(NamedTuple):
    """Where a word's secret stands: a regex from the word on, a test of the line before, of the "
    "value."""

    rule_id: str
    pattern: Any
    follows: Callable[[bytes], bool]
    is_secret: Callable[[bytes], bool]


def phrase(
    rule_id: str,
    pattern: bytes,
    test: Callable[[bytes], bool],
    follows: Callable[[bytes], bool] | None = None,
) -> Phrase:
    """A phrase whose regex ignores case."""
    return Phrase(rule_id, re.compile(pattern, re.I), follows or is_any, test)


def ends(pattern: bytes) -> Callable[[bytes], bool]:
    """A test whether the line before the word ends so; the regex ignores case."""
    search = re.compile(pattern + rb"$", re.I).search

    def test(before: bytes) -> bool:
        return search(before[-ENDS_SIZE:]) is not None

    return test


def runs(programs: bytes, *, word: bytes = b"") -> Callable[[bytes], bool]:
    """A test whether the command before an option runs one of the programs, with this word "
    "behind it."""
    names = frozenset(programs.split())

    def test(before: bytes) -> bool:
        words = COMMAND_END.split(before)[-1].lower().split()
        tools = {PROGRAM_PATH.sub(b"", each) for each in words}
        return not names.isdisjoint(tools) and (not word or word in words)

    return test


#: another cookie, or the header's name, stands before
BEFORE_COOKIE = re.compile(rb"(?:^|[^a-z])cookies?\b[^\n]*$|=[^\s;]{1,256};[ ]?[\w.\-]*$", re.I)


def is_cookie(before: bytes) -> bool:
    """Whether the line before is a Cookie header's."""
    return BEFORE_COOKIE.search(before) is not None


SESSION = (
    rb"(?:%5b|[\w.\-])*(?:" + VALUE_QUOTE + rb")?[ ]?(?:=|:|%3d|=>)[ ]?(?:" + VALUE_QUOTE + rb")?"
)
URL_VALUE = rb"([A-Za-z0-9%_.~+/\-]{12,2048}={0,2})"
QUERY = rb"(?:[?&;]|&amp;|\\u0026|%26)"
#: MySQL's clients take a password right behind -p
MYSQL = runs(
    b"mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlslap mysqlpump mysqlbinlog "
    b"mysqlsh "
    b"mariadb mariadb-dump mariadb-admin mariadb-import mariadb-check mydumper myloader "
    b"xtrabackup mariabackup "
    b"7z 7za 7zz rar unrar"
)
LOGIN = runs(
    b"docker podman nerdctl buildah skopeo crane oras helm oc cf az faas-cli ibmcloud heroku",
    word=b"login",
)
#: programs that take a password behind -p
WITH_P = runs(
    b"sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop "
    b"cypher-shell sqlcmd bcp "
    b"isql mosquitto_pub mosquitto_sub ipmitool zip unzip rar unrar influx kadmin useradd "
    b"rdesktop bmcdiscover mycli "
    b"pgcli smbmap crackmapexec evil-winrm mydumper myloader htpasswd vncdo"
)
WITH_A = runs(b"redis-cli valkey-cli keydb-cli redis-benchmark redis-dump iredis http https xh")
WITH_W = runs(
    b"ldapsearch ldapadd ldapmodify ldapdelete ldapwhoami ldappasswd ldapmodrdn ldapcompare"
)
ARGUMENT = (
    rb"(?:"
    + VALUE_QUOTE
    + rb"([^\r\n\"'`\\]{3,256})"
    + VALUE_QUOTE
    + rb"|([^\s\"'`|;<>\\,\]]{3,256}))"
)
#: name:password, name,password, name%password
USER_PAIR = rb"[\"']?[^\s:\"',%]{1,64}[:,%]([^\s\"'$<{]{3,128})"
ONE_TIME = (
    rb"(?:verification|security|confirmation|confirm|login|log-in|sign-?in|auth\w*|one[- ]?time|"
    rb"2fa|mfa|"
    rb"pass|access|sms|activation|reset|recovery|validation|otp|two-factor)[ _\-]"
)
PHRASES: dict[bytes, tuple[Phrase, ...]] = {
    b"sess": (
        # JSESSIONID=X, PHPSESSID, ASP.NET_SessionId, laravel_session
        phrase(
            "session-cookie",
            rb"sess(?:ion)?[_\-]?(?:id)?\w{0,12}" + SESSION + URL_VALUE,
            is_session,
            ends(rb"(?:j|php|asp|asp\.net_|laravel_|ci_|cake_|_[a-z\d]{2,24}_)"),
        ),
        # Cookie: a=b; sessionid=X
        phrase(
            "session-cookie",
            rb"sess(?:ion)?[_\-]?(?:id|token)?=" + URL_VALUE,
            is_session,
            is_cookie,
        ),
        # Session = X of Tomcat, Session created: X
        phrase(
            "session-cookie",
            rb"session(?:[ _]?id)?(?:" + VALUE_QUOTE + rb")?[ ]?(?:created|"
            rb"started|destroyed|opened)?[ ]?"
            rb"[=:][ ]?(?:" + VALUE_QUOTE + rb")?([0-9A-F]{32})(?![0-9A-Za-z])",
            is_filled,
            ends(rb"(?:^|[^\w])"),
        ),
    ),
    b"sid=": (
        phrase("session-cookie", rb"sid=" + URL_VALUE, is_session, ends(rb"connect\.")),
        phrase("session-cookie", rb"sid=" + URL_VALUE, is_session, is_cookie),
    ),
    b"sig=": (
        phrase("signed-url", rb"sig=" + URL_VALUE, is_signature, ends(QUERY + rb"[\w\-]{0,24}")),
    ),
    b"signature=": (
        phrase(
            "signed-url", rb"signature=" + URL_VALUE, is_signature, ends(QUERY + rb"[\w\-]{0,24}")
        ),
    ),
    b"code": (
        phrase("oauth-code", rb"code=" + URL_VALUE, is_code, ends(QUERY)),
        phrase(
            "oauth-code",
            rb"code(?:" + VALUE_QUOTE + rb")?[=:][ ]?(?:" + VALUE_QUOTE + rb")?" + URL_VALUE,
            is_code,
            ends(rb"(?:authorization|auth|oauth|grant)[ _\-]"),
        ),
        phrase(
            "one-time-code",
            rb"codes?(?: (?:is|was|for [^\n:]{1,60}))?[ ]?[:=]?[ "
            rb"]{0,2}[\"'`*]{0,2}"
            rb"(\d{3}[ \-]?\d{3}|\d{4,8})(?![\w.\-]|,\d)",
            is_any,
            ends(ONE_TIME),
        ),
        phrase(
            "one-time-code",
            rb"code[ ]([A-Z0-9]{4}-[A-Z0-"
            rb"9]{4})(?![\w\-])",
            is_any,
            ends(rb"enter (?:the )?"),
        ),
    ),
    b"hook": (
        phrase(
            "webhook-path",
            rb"hooks\.slack\.com[^\n]{0,200}?/(?:services|workflows|"
            rb"triggers)/(T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/[A-Za-z0"
            rb"-9]{20,32})",
            is_filled,
        ),
        phrase("webhook-path", rb"hooks/\d{15,20}/([\w\-]{60,80})", is_filled),
        phrase(
            "webhook-path",
            rb"hooks/([a-z0-9]{26}|[A-Za-z0-9]{17,24}/[A-Za-z0-9]{40,64})"
            rb"(?![\w\-])",
            is_filled,
            ends(rb"(?<!example\.com)(?<!example\.org)/"),
        ),
        phrase(
            "webhook-path",
            rb"hooks?(?:-test|"
            rb"b2)?/(?:send\?key=)"
            rb"?([\w\-]{20,128})(?![\w\-./@])",
            is_random,
            ends(rb"/(?:api/)?web"),
        ),
        phrase("webhook-path", rb"hook/([\w\-]{20,128})(?![\w\-./])", is_random, ends(rb"bot/v2/")),
    ),
    b"setuser": (
        phrase(
            "protocol-login",
            rb"setuser[ ][^\n]{0,80}?[ "
            rb"]>([^\s\"']{4,128})",
            is_password,
        ),
    ),
    b"securestring": (
        phrase(
            "command-line-secret",
            rb"securestring[ ]+(?:-string[ "
            rb"]+)?[\"']([^\"'$\r\n]{3,128})[\"']",
            is_password,
        ),
    ),
    b"add_user": (
        phrase(
            "command-line-secret", rb"add_user[ ][\w.\-]{1,64}[ ]" + ARGUMENT, is_login_password
        ),
    ),
    b"contrase": (
        phrase(
            "keyed-password",
            rb"contrase(?:\xc3\xb1|n)as?(?:[ ](?:es|(?:de|del|para|of)[ "
            rb"][^\n:=]{1,60}))?[ ]?[:=]?[ ]{0,3}[\"'`]?([^\s\"'`<>]{6,128})",
            is_login_password,
        ),
    ),
    b"appid=": (
        phrase("keyed-secret", rb"appid=([0-9a-f]{32})(?![0-9a-z])", is_random, ends(rb"[?&]")),
    ),
    b"identified": (
        phrase(
            "sql-password",
            rb"identified[ ]+(?:(?:with|via)[ ]+" + rb"[`'\"]?[\w\-]+[`'\"]?[ "
            rb"]+)?(?:by|as|using)[ ]+"
            rb"(?:password[ ]*\(?[ ]*)?\\{0,7}['\"]([^'\"\\\r\n]{3,256})"
            rb"\\{0,7}['\"]",
            is_password,
        ),
        phrase("sql-password", rb"identified[ ]+by[ ]+([\w#$]{6,30})", is_login_password),
    ),
    b"login": (
        # login attempt for bob / X, login attempt [root/X]
        phrase(
            "protocol-login",
            rb"login attempts?[ ](?:for |with |\[)?(?:b')?[^\s/\]']{1,64}'?[ "
            rb"]?/[ ]?(?:b')?([^\s\]'\"]{4,128})",
            is_login_password,
        ),
        # IMAP: A001 LOGIN user password
        phrase(
            "protocol-login",
            rb"LOGIN[ ](?:\"[^\"\r\n]{1,64}\"|[^\s\"'\\]{1,64})[ "
            rb"]\\?\"?([^\s\"'\\]{4,128})\\?\"?"
            rb"(?=$|['\"\\\r\n])",
            is_login_password,
            ends(
                rb"(?:^|[\s'\">:])"
                rb"[A-Za-z]{0,8}\d{1,8}[ ]"
            ),
        ),
    ),
    b"communit": (
        phrase(
            "snmp-community",
            rb"community(?:[ ]?[=:][ ]?|[ "
            rb"]+)\\?[\"']?([\w!@#$%^&*.\-]{6,32})\\?[\"']?(?=$|[\s,;)\]}\"'])",
            is_login_password,
            ends(rb"(?:^|[\s\"',(\[{:])(?:snmp[\w\-]*[ ]?|r[ow])?[_\-]?"),
        ),
    ),
}


AUTHORIZATION = (
    rb"authorization(?:"
    + VALUE_QUOTE
    + rb"|\])?[ ]?(?:[:=,]|=>)[ ]?\[?(?:"
    + VALUE_QUOTE
    + rb")?\[?"
)
#: logins at words that name secrets too: looked at where no assignment was found
LOGIN_PHRASES: dict[bytes, tuple[Phrase, ...]] = {
    b"auth": (
        phrase(
            "protocol-login",
            rb"auth\\{0,7}\"[ ]\\{0,7}\"(?:[^\"\\\r\n]{1,64}\\{0,7}\"[ "
            rb"]\\{0,7}\")?([^\"\\\r\n]{4,256})\\{0,7}\"",
            is_password,
            ends(rb"\""),
        ),
        phrase(
            "protocol-login",
            rb"auth(?:enticate)?[ ]plain[ "
            rb"]\W{0,4}([A-Za-z0-9+/]{8,512}={0,2})",
            is_sasl_plain,
        ),
        phrase(
            "protocol-login",
            rb"auth[ "
            rb"]([^\s\"'\\<>]{6,128})(?=\s|$|"
            rb"[\"'\\])",
            is_inline_auth,
            ends(rb"(?:^|[\s>\"']|master)"),
        ),
        phrase(
            "authorization-header",
            AUTHORIZATION + rb"digest[ ][^\r\n]{0,600}?response=\\{0,7}"
            rb"\"?([0-9a-f]{32,64})",
            is_any,
        ),
        phrase(
            "authorization-header",
            AUTHORIZATION + rb"(?!basic|bearer|digest|"
            rb"aws4)[A-Za-z][\w\-]{1,24}[ ]+"
            rb"(?:(?:token|key|api_?key)[=:][ "
            rb"]?)?\\{0,7}\"?([\w+/=.~:\-]{12,2048})",
            is_header_value,
        ),
    ),
    b"pass": (
        phrase(
            "command-line-secret",
            rb"passwd[ ]+-[a-z]*b[a-z]*[ ]+(?:-C[ ]?)?(?:\d{1,2}[ "
            rb"]+)?(?:[^\s'\";|]+[ ]+){1,2}" + ARGUMENT,
            is_option_password,
            ends(rb"ht"),
        ),
        phrase(
            "command-line-secret",
            rb"password[ ][\w.\-]{1,64}[ ]" + ARGUMENT,
            is_login_password,
            ends(rb"(?:change_|authenticate_)"),
        ),
        phrase(
            "one-time-code",
            rb"passw(?:ord|d)s?[ ](?:otp|code|pin)(?: is)?[:= "
            rb"]{1,3}(\d{4,8})(?!\d)",
            is_any,
        ),
        phrase(
            "protocol-login",
            rb"PASS[ ]([^\s'\"\\<>]{4,128})",
            is_login_password,
            ends(rb"(?:[>:-][ ]?|['\"])"),
        ),
    ),
}
#: names of passwords in scripts that have no capitals, found only in blocks that are not ASCII
FOREIGN_NAMES = tuple(
    name.encode()
    for name in (
        "密码",
        "密碼",
        "口令",
        "パスワード",
        "пароль",
        "Пароль",
        "비밀번호",
        "hasło",
        "şifre",
        "mật khẩu",
    )
)
FOREIGN = Phrase(
    "keyed-password",
    re.compile(
        rb"(?:[^\x00-\x7f]{2,4}){1,4}[^\n:=\xef]{0,40}?[ ]?(?:[:=]|\xef\xbc\x9a|\xe6\x98\xaf|"
        rb"\xe4\xb8\xba|\xe3\x81\xaf|-)[ ]{0,3}[\"'`]?([!-~]{6,128})"
    ),
    is_any,
    is_login_password,
)
#: phrases at words that hold the pair of the first pass
NAME_PHRASES: dict[bytes, tuple[Phrase, ...]] = {
    b"debugger pin": (phrase("one-time-code", rb"debugger pin:[ ](\d{3}-\d{3}-\d{3})", is_any),),
}
#: options of programs, found by ` -p`, ` -a`, ` -w`
PHRASE_OPTIONS: dict[bytes, tuple[Phrase, ...]] = {
    b" -p": (
        phrase("command-line-secret", rb" -p" + ARGUMENT, is_password, MYSQL),
        phrase("command-line-secret", rb" -p[ ]" + ARGUMENT, is_option_password, WITH_P),
        phrase("command-line-secret", rb" -p[ ]" + ARGUMENT, is_option_password, LOGIN),
        phrase(
            "command-line-secret",
            rb" -pw[ ]" + ARGUMENT,
            is_password,
            runs(b"plink pscp psftp putty kitty"),
        ),
        phrase("command-line-secret", rb" -p[ ]" + ARGUMENT, is_mixed_password),
    ),
    b" -u": (phrase("command-line-secret", rb" -u[ ]?" + USER_PAIR, is_login_password),),
    b" --user": (phrase("command-line-secret", rb" --user[ =]" + USER_PAIR, is_login_password),),
    b" -a": (phrase("command-line-secret", rb" -a[ ]" + ARGUMENT, is_option_password, WITH_A),),
    b" -w": (phrase("command-line-secret", rb" -w[ ]" + ARGUMENT, is_password, WITH_W),),
}
#: by word, what must follow it in the translated copy
PHRASE_AHEAD = {
    b"sess": rb"(?=[^\n:=%]{0,40}[=:%][\w\\\"'` ]{0,24}[\w%.~+/\-]{20})",
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
    """The visitors at the words of PHRASES."""

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
        return {name: self._at(len(name), [FOREIGN]) for name in FOREIGN_NAMES}

    def options(self) -> dict[bytes, Visitor]:
        """By option, its visitor, where the rule is there."""
        if "command-line-secret" not in self._rules:
            return {}
        return {
            option: self._at(len(option), phrases) for option, phrases in PHRASE_OPTIONS.items()
        }

    def _at(self, size: int, phrases: Sequence[Phrase]) -> Visitor:
        """A visitor that reports the first of the phrases whose secret is one."""

        def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
            before = None
            for each in phrases:
                match = each.pattern.match(block, at)
                if match is None:
                    continue
                if before is None:
                    before = block[max(0, at - LINE_BACK) : at].rpartition(b"\n")[2]
                if not each.follows(before):
                    continue
                group = match.lastindex or 0
                start, end = match.span(group)
                if start in found.values or not each.is_secret(block[start:end]):
                    continue
                found.values.add(start)
                anchored = self._rules[each.rule_id]
                found.append((anchored.rank, Match(anchored.rule, at, end, start, end)))
                return end
            return at + size

        return visit
