"""Passwords behind the short options of known programs: mysql -pX, redis-cli -a X, and others."""

from __future__ import annotations

import re
from typing import Callable, NamedTuple

from _dockeraudit.candidates import Anchored, Found
from _dockeraudit.plausibility import (
    is_login_password,
    is_mixed_password,
    is_option_password,
    is_password,
)
from _dockeraudit.rules import Match

COMMAND_SIZE = 240  # bytes before an option in which its program stands
#: `re` finds a sign and a class behind it faster than ` -`, since blanks are everywhere
OPTION_SIGN = re.compile(
    rb"-[pPaAwWuU\-](?<= -.)(?:(?<=[pP])(?=[ ]?[\"']?[^\s\"'|;<>&/-][^\s]{3})"
    rb"|(?<=[aAwW])(?=[ ][^\s-])|(?<=[pP])w[ ]|(?<=-)user[ =]"
    rb"|(?<=[uU])(?=[ ]?[\"']?[\w.@\\-]{1,64}[:,%][^\s\"'$<{]{6}))"
)
#: what ends a command, before which another program stands
COMMAND_END = re.compile(rb"[\n|;&(]")
#: programs that take a password right behind -p
ATTACHED_P = frozenset(
    b"mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlslap mysqlpump mysqlbinlog "
    b"mysqlsh mariadb mariadb-dump mariadb-admin mariadb-import mariadb-check mydumper myloader "
    b"xtrabackup mariabackup 7z 7za 7zz rar unrar".split()
)
#: programs that take a password behind -p, behind -a, behind -w
WITH_P = frozenset(
    b"sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop "
    b"mycli cypher-shell sqlcmd bcp isql mosquitto_pub mosquitto_sub ipmitool zip unzip influx "
    b"kadmin pgcli useradd rdesktop bmcdiscover smbmap crackmapexec evil-winrm mydumper myloader "
    b"vncdo".split()
)
WITH_A = frozenset(
    b"redis-cli valkey-cli keydb-cli redis-benchmark redis-dump iredis http https xh".split()
)
WITH_W = frozenset(
    b"ldapsearch ldapadd ldapmodify ldapdelete ldapwhoami ldappasswd ldapmodrdn ldapcompare".split()
)
#: programs whose `login` takes a password behind -p
WITH_LOGIN = frozenset(
    b"docker podman nerdctl buildah skopeo crane oras helm oc cf az faas-cli ibmcloud "
    b"heroku".split()
)
WITH_PW = frozenset(b"plink pscp psftp putty kitty".split())
NAMES_FOLDER = re.compile(rb"[/\\\"'`]|\.exe$")
ARGUMENT = re.compile(
    rb"[ ]?(?:\\{0,15}[\"'`]([^\r\n\"'`\\]{3,256})\\{0,15}[\"'`]|([^\s\"'`|;<>\\,\]]{3,256}))"
)
#: name:password, name,password, name%password
USER_PAIR = re.compile(rb"[ ]?[\"']?[^\s:\"',%]{1,64}[:,%]([^\s\"'$<{]{3,128})")


USER_SIGNS = (b"u", b"-user ", b"-user=")


class CommandLine(NamedTuple):
    """What has been read of a command: up to where; its words, programs without their folder."""

    upto: int
    words: frozenset[bytes]


class CommandLineFinder:
    """Looks at each option that takes a password in some program."""

    def __init__(self, anchored: Anchored) -> None:
        self._anchored = anchored

    def find(self, block: bytes, found: Found) -> None:
        """Append the passwords of the block's command lines."""
        command, go_on = CommandLine(0, frozenset()), 0
        for option in OPTION_SIGN.finditer(block):
            at, end = option.start() - 1, option.end()
            if at < go_on:
                continue
            sign = option.group()[1:].lower()
            value = argument_of(sign, block, end)  # first: to read the command costs more
            if value is None or value[0] in found.values:
                continue
            command = self._read(block, command, at)
            is_secret = password_test(sign, block[end : end + 1] == b" ", command.words)
            if is_secret is None or not is_secret(block[value[0] : value[1]]):
                continue
            found.values.add(value[0])
            match = Match(self._anchored.rule, at, value[1], *value)
            found.append((self._anchored.rank, match))
            go_on = value[1]

    def _read(self, block: bytes, command: CommandLine, at: int) -> CommandLine:
        """The command up to `at`: what was read before is not read again."""
        start, words = command
        if at - start > COMMAND_SIZE:
            start, words = at - COMMAND_SIZE, frozenset()
        *before, text = COMMAND_END.split(block[start:at])
        if before:
            words = frozenset()
        new = text.lower().split()
        if not new:
            return CommandLine(at, words)
        named = (program(word) for word in new if NAMES_FOLDER.search(word))
        return CommandLine(at, words.union(new, named))


def program(word: bytes) -> bytes:
    """A command's word without quotes, folder and `.exe`."""
    word = word.strip(b"\"'`").rpartition(b"/")[2].rpartition(b"\\")[2]
    return word[:-4] if word.endswith(b".exe") else word


def argument_of(sign: bytes, block: bytes, end: int) -> tuple[int, int] | None:
    """Where the value behind an option is, if it could be a password in any program."""
    pattern = USER_PAIR if sign in USER_SIGNS else ARGUMENT
    argument = pattern.match(block, end)
    if argument is None or argument.lastindex is None:
        return None
    return argument.span(argument.lastindex) if is_password(argument[argument.lastindex]) else None


def password_test(
    sign: bytes, spaced: bool, words: frozenset[bytes]
) -> Callable[[bytes], bool] | None:
    """What a value behind this option of this command must pass to be a password; None: is none.

    `spaced`: a blank stands between the option and its value.
    """
    if sign in USER_SIGNS:
        return is_login_password
    if sign == b"p" and not words.isdisjoint(ATTACHED_P):
        return None if spaced else is_password  # behind a blank stands a database's name
    if sign == b"pw ":
        return is_password if words & WITH_PW else None
    if sign == b"w":
        return is_password if words & WITH_W else None
    if sign == b"a":
        return is_option_password if words & WITH_A else None
    if not spaced:
        return None
    known = not words.isdisjoint(WITH_P) or b"login" in words and words & WITH_LOGIN
    return is_option_password if known else is_mixed_password
