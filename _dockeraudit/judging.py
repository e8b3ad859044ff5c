"""Judges values that are assigned to a secret's name: by the name, by the service, by their looks.

The answer is the rule under which a value counts. Rules that a scanner leaves out have no findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from _dockeraudit.candidates import Anchored, Found, by_keyword
from _dockeraudit.names import Kind, Name
from _dockeraudit.plausibility import (
    UUID_VALUE,
    decoded,
    decodes_to_pair,
    is_cased,
    is_generated,
    is_generated_inside,
    is_label,
    is_many_cased,
    is_mixed,
    is_mixed_case,
    is_placeholder,
    is_random,
    is_strong,
    is_typed,
    is_words,
    mixes_alphabets,
)
from _dockeraudit.services import SERVICES, services_backwards

LEAST_SECRET = 8  # bytes; shorter values of keys and tokens are counters and names
LEAST_PASSWORD = 6
LEAST_RANDOM = 20  # bytes of a random value that is a secret beyond doubt
LEAST_CASED = 16  # the same, where capitals and small letters mix
BARE_IN_QUERY = 24  # the same of a bare name in a URL: ?key=, ?auth=
FEW_HEADS = 16  # of a token that begins with a prefix of its own
#: an SQL statement that gives a password
SQL_BEFORE = re.compile(
    rb"(?:create|alter)[ ]+(?:role|user|login|database)\b|\bset[ ]+$|\bencrypted[ ]+$|"
    rb"\bidentified[ ]"
)
#: a private key of Ethereum and its kin
WALLET_KEY = re.compile(rb"(?:0x)?[0-9a-fA-F]{64}")
ERLANG_COOKIE = re.compile(rb"[A-Z]{20}")
#: what people type where any password will do
TYPED_PASSWORD = re.compile(
    rb"(?:pass|password|secret|admin|test|testing|user|root|qwerty|abc)\d{1,4}[!@#]?"
)
#: what stands before the name where a firewall says which argument it matched: ARGS:password
ARGUMENT_NAME = re.compile(rb"[a-z]:$")
USER_AND_PASSWORD = re.compile(rb"[\w.\-]{2,64}:([^\s:]{4,128})")
COMPARES = (b"==", b"!=", b"===")


class Key(NamedTuple):
    """What stands before a value: the name, the operator, whether a quote opens the value.

    `taken`: an original rule has the same value, so that only a service's rule may have it instead.
    """

    context: bytes
    name: bytes
    prefix: bytes
    word: bytes
    kind: str
    operator: bytes
    quoted: bool
    taken: bool


def key_of(name: Name, word: bytes, operator: bytes, *, quoted: bool, taken: bool) -> Key:
    """The key of a name in a block."""
    return Key(name.context, name.text, name.prefix, word, name.kind, operator, quoted, taken)


class Judge:
    """Knows the rules of a scanner for assigned values, and the services that values may be of."""

    def __init__(
        self, keyed: Sequence[Anchored], services: Sequence[Anchored], tokens: Sequence[Anchored]
    ) -> None:
        self.rules = {anchored.rule.id: anchored for anchored in keyed}
        self._services = by_keyword(services)
        self._names = SERVICES.union(self._services)
        self._heads = frozenset(
            by_keyword(each for each in tokens if len(each.rule.keywords) <= FEW_HEADS)
        )

    def judge(self, key: Key, value: bytes, found: Found) -> Anchored | None:
        """The rule under which the value is a secret; remembered, as logs repeat themselves."""
        case = (key, value)
        if case not in found.judged:
            found.judged[case] = self._judge(key, value)
        return found.judged[case]

    def _judge(self, key: Key, value: bytes) -> Anchored | None:
        if is_in_path(key) or key.operator in COMPARES and not key.quoted:
            return None
        if is_placeholder(value) and not (key.word == b"auth" and decodes_to_pair(value)):
            return None
        if key.operator == b"|" and not (b"|" in key.context and is_generated(value)):
            return None
        if key.kind == Kind.LOOSE:
            sure = is_generated(value) and (key.quoted or key.operator != b":")
            return self.rules.get("keyed-secret" if sure else "")
        if key.kind == Kind.PASSWORD:
            return self._password(key, value)
        return self._secret(key, value) if len(value) >= LEAST_SECRET else None

    def _password(self, key: Key, value: bytes) -> Anchored | None:
        if key.taken:
            return self.service(key.context + key.prefix, value)
        rule_id = password_rule(key, value)
        if rule_id and SQL_BEFORE.search(key.context):
            return self.rules.get("sql-password") or self.rules.get(rule_id)
        return self.rules.get(rule_id)

    def _secret(self, key: Key, value: bytes) -> Anchored | None:
        if key.name in (b"cookie", b"set-cookie"):
            return None  # a header that holds cookies of every kind
        if key.word == b"auth":
            pair = pair_rule(value)
            if pair is not None:
                return self.rules.get(pair)
        if WALLET_KEY.fullmatch(value) and b"priv" in key.context[-8:] + key.name:
            return self.rules.get("wallet-private-key")
        before = key.context + key.prefix
        if key.taken:
            return self.service(before, value)
        random = is_random(value) or is_erlang_cookie(key, value)
        sure = random and key.kind == Kind.SECRET and self._is_sure(key, value)
        shaped = self.service(before, value, random=random, sure=sure)
        if shaped:
            return shaped
        if random and key.kind == Kind.SECRET:
            return self.rules.get("keyed-secret" if sure else "keyed-secret-weak")
        return self.rules.get(
            bare_rule(key, value) if key.kind == Kind.BARE else weak_rule(key, value)
        )

    def _is_sure(self, key: Key, value: bytes) -> bool:
        """Whether a random value behind a secret's name is one beyond doubt.

        A value that begins as a known token does, and is none, was altered or made up.
        """
        if is_erlang_cookie(key, value):
            return True
        return (
            (len(value) >= LEAST_RANDOM or len(value) >= LEAST_CASED and is_cased(value))
            and key.operator != b" "
            and (b":" not in value or value.startswith(b"base64:"))
            and value[:3] not in self._heads
            and not is_typed(value)
            and not mixes_alphabets(value)
            and not UUID_VALUE.fullmatch(value)
        )

    def service(
        self, before: bytes, value: bytes, *, random: bool = False, sure: bool = False
    ) -> Anchored | None:
        """The rule of a service named before a value of its shape, or any random value behind one.

        Each word before the value is tried, the last one first: as it stands, joined with the word
        before it, and without what is written together with services' names. Where the service has
        shapes and the value has none of them, it is a weak finding.
        """
        known = shapes = False
        for name in services_backwards(before, self._names):
            known = known or name in SERVICES
            for anchored in self._services.get(name, ()):
                known = shapes = True
                if anchored.whole.fullmatch(value):
                    return self.rules.get("keyed-secret-weak") if is_typed(value) else anchored
        if not known or not random:
            return None
        strong = is_strong(value)
        sure = (sure and (strong or not shapes)) or (strong and not shapes)
        return self.rules.get("keyed-secret" if sure else "keyed-secret-weak")


def is_in_path(key: Key) -> bool:
    """Whether the name is a part of a path; `/pass:X` of a Windows program is an option."""
    return key.context.endswith(b"/") and not (
        key.context.endswith(b" /") and key.operator == b":" and key.kind == Kind.PASSWORD
    )


def is_erlang_cookie(key: Key, value: bytes) -> bool:
    """Whether the value is what Erlang makes as its nodes' cookie."""
    return key.word == b"cookie" and ERLANG_COOKIE.fullmatch(value) is not None


def pair_rule(value: bytes) -> str | None:
    """The id of the rule for a value of `auth` that is user:password, plain or Base64; None:
    neither."""
    if b":" in decoded(value)[:64]:  # Docker's config.json, .npmrc
        return "keyed-secret" if decodes_to_pair(value) else ""
    pair = USER_AND_PASSWORD.fullmatch(value)
    return "keyed-password" if pair and is_mixed(pair.group(1)) else None


def password_rule(key: Key, value: bytes) -> str:
    """The id of the rule under which a password's value counts, or nothing."""
    if key.name in (b"pass", b"passed") and key.operator == b":" and not key.quoted:
        # or a test that passed
        return "keyed-password" if is_generated_inside(value) else ""
    if key.operator == b"value=" or TYPED_PASSWORD.fullmatch(value.lower()):
        return "keyed-secret-weak"
    assigned = is_assigned(key)
    if value.isalpha() or value.isdigit():
        if is_mixed_case(value):
            return "keyed-password"
        return "keyed-secret-weak" if assigned and len(value) >= LEAST_PASSWORD else ""
    if b" " in value:
        labelled = not key.quoted or is_label(value) or key.operator == b" "
        return "" if labelled else "keyed-secret-weak"
    if not is_mixed(value) or len(value) < LEAST_PASSWORD:
        return "keyed-secret-weak"
    if assigned or is_generated(value) and not ARGUMENT_NAME.search(key.context):
        return "keyed-password"
    return "keyed-secret-weak"


def is_assigned(key: Key) -> bool:
    """Whether a value is assigned beyond doubt, not told in a sentence."""
    if key.operator == b" ":
        return key.name.startswith(b"-") or SQL_BEFORE.search(key.context) is not None
    return key.quoted or key.operator != b":" or not key.context.strip(b" \t-|>*")


def bare_rule(key: Key, value: bytes) -> str:
    """The id of the rule under which the value of a bare `key` or `auth` counts, or nothing."""
    if not is_random(value) or not is_many_cased(value) or key.operator == b" ":
        return ""
    if key.name == b"authorization" and len(value) >= BARE_IN_QUERY:
        return "authorization-header"
    if is_strong(value) and value.endswith(b"="):
        return "keyed-secret"  # primaryKey of Azure
    in_query = key.context[-1:] in (b"?", b"&") and len(value) >= BARE_IN_QUERY
    return "keyed-secret" if in_query else "keyed-secret-weak"


def weak_rule(key: Key, value: bytes) -> str:
    """The id of the rule under which a secret's value counts that is not random, or nothing."""
    if is_words(value) or not is_mixed(value):
        return ""
    return "keyed-secret-weak" if key.quoted or key.operator != b":" else ""
