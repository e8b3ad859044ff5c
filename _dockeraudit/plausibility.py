"""Whether a candidate is a secret: placeholders, code, identifiers, entropy, and names."""

from __future__ import annotations

import base64
import binascii
import functools
import re
from typing import NamedTuple

#: values, in lower case, that stand for a secret: whole
PLACEHOLDER = re.compile(
    rb"[*x.\-_#?0]{3,}|null|nil|none|true|false|empty|unset|unknown|undefined|default|n/a|void|string|str|text|bytes|bool|int|tests?|user|admin|"
    rb"passw(?:or)?d?s?\d?|secrets?|tokens?|keys?|required|failed|failure|success|accepted|optional|auth|basic|bearer|digest|enabled|disabled|"
    rb"%\(?[a-z_]*\)?[sdv]?|\$[a-z_]\w*|[\[<({@%#].*|(?:some|any|my|your|the|our|new|old|enter|super|top)[-_ ]?(?:secret)?[-_ ]?(?:secret|password|passwd|pass|token|api[-_ ]?key|key)s?\W*"
)
#: what inside a value, in lower case, tells that it stands for one
FILLERS = tuple(
    b"redacted filtered *** xxxxx &lt; &gt; ${ $( {{ #{ placeholder changeme change-me change_me example your- your_ dummy sample masked hidden removed "
    b"secret_here secrethere insert- insert_ replace undefined required incorrect invalid expired missing fake not-set not_set not-found not_found".split()
) + (b"your ", b"not set", b"not a ", b"not found", b"not valid", b"not shown")
#: runs that people type to show a shape
FILLED_IN = tuple(
    b"xxxxxx *** .... #### my-token example abcdefghijklmnopqrst placeholder your- your_ redacted dummy fake_ fake- 000000000000".split()
)
SAME = re.compile(
    rb"([^A])\1{5}"
)  # generators hardly ever repeat one character so often (A is zero in base64)
#: keys that their owners publish in widely used software (the Firebase samples, YouTube's own clients): first 12 hex of the SHA-256
PUBLISHED = frozenset(
    [
        "01b6940ca381",
        "0b476bdf9acf",
        "2037abcaffb2",
        "27a9a42931df",
        "31043aae8be2",
        "37f8f09bdf12",
        "3a8b61d0f636",
        "3f370c9dd822",
        "49f777db995e",
        "4c98242dcadc",
        "8731261cb72d",
        "961991da3ab8",
        "a19f89ab3555",
        "a6c814bc555a",
        "dc0fcf046c61",
        "e4a5542bb7fd",
        "ea9bb1082cf9",
        "eb540d2b6ee2",
        "f56e323494a6",
    ]
)
#: code and references instead of values: a call, a member, a variable, an object's print, an encrypted value, a path
CODE = re.compile(
    rb"[A-Za-z_][\w.:]*[({\[]|(?:var|env|os|config|process|settings|secrets|self|this|data|local|module)\.|ENC\[|vault:|arn:|[./~]*/[\w.\-/]*$|"
    rb"[a-z][A-Za-z_$]*(?:\.[A-Za-z_$]+)+$|[\w.$]+@[0-9a-f]{5,8}$|\$\w|[A-Za-z_]\w*\(|[a-z]+://[^:@]*$|--?[a-z]|#[\w\-]+$|\w+->|[A-Z][A-Z]+(?:_[A-Z]+)+$"
)
#: names of what is no secret, whatever word stands in them
NO_SECRET_NAME = re.compile(
    rb"public|pubkey|primary|foreign|sort|partition|cache|idempot|correlation|trace|span|etag|nonce|csrf|xsrf|keyboard|keyword|monkey|author(?!iz)|"
    rb"cursor|next|page[_\-]|index|i18n|object|bucket|row|group|hash|unique|tokeniz|routing|composite|lookup|registry_key|ssh_host|[_.\-]map|mapp|sha\d|md5|"
    rb"translation|issuekey|keyframe|hotkey|turkey|donkey|jockey|hockey|keynote|keyspace|keystore|key_?id|keyid|dedup|shard|pagination|continuation|"
    rb"kms|thumb|finger|digest|algorithm|issuer|passive|passed|passing|passenger|compass|bypass|passthrough|passport"
)


def is_placeholder(value: bytes) -> bool:
    """Whether a value stands for a secret rather than being one."""
    value = value[:128].strip(b"\"'")
    if len(set(value)) <= max(2, len(value) // 12) or CODE.match(value):
        return True
    value = value.lower()
    for filler in FILLERS:
        if filler in value:
            return True
    return PLACEHOLDER.fullmatch(value) is not None


def is_filled_in(value: bytes) -> bool:
    """Whether a token of the right shape was written by hand to show the shape."""
    if len(set(value)) < 11 or SAME.search(value):
        return True
    value = value.lower()
    for filler in FILLED_IN:  # a fifth of what one regex with all of them costs
        if filler in value:
            return True
    return value.endswith(b"here")


def is_random(value: bytes) -> bool:
    """Whether a value looks made by a generator: of a key's alphabet, long, mixed, and no word, path or number."""
    if len(value) < 12 or len(set(value[:64])) < LEAST_VARIETY or not KEY_ALPHABET.fullmatch(value):
        return False
    return (
        MIXED_PIECE.search(value, 0, RANDOM_SIZE) is not None
        or HEX_OR_UUID.fullmatch(value) is not None
        or len(value) >= 24
        and is_many_cased(value + b"0")
    )


def is_mixed(value: bytes) -> bool:
    """Whether a short value has digits or signs among letters, as passwords have and words do not."""
    return (
        not value.isalpha()
        and not value.isdigit()
        and b" " not in value
        and any(48 <= byte <= 57 or byte in b"!@#$%^&*" for byte in value)
    )


def is_many_cased(value: bytes) -> bool:
    """Whether a value mixes capitals, small letters and digits as generators do, and people's names for things do not."""
    capitals = len(value) - len(value.translate(None, CAPITALS))
    small = len(value) - len(value.translate(None, CAPITALS.lower()))
    return (
        len(value) >= 20
        and 3 * capitals >= small
        and 3 * small >= capitals
        and len(value) > capitals + small
    )


def is_typed(value: bytes) -> bool:
    """Whether hands typed a value to fill a shape: sequences, or a group again and again."""
    value = value[:64].lower()
    for sequence in SEQUENCES:
        if sequence in value:
            return True
    return value.count(value[4:8]) >= 3 or value.count(value[12:16]) >= 3


def is_strong(value: bytes) -> bool:
    """Whether a generic value is random beyond doubt: long, of many cases, without a sequence."""
    return (
        len(value) >= 32
        and is_many_cased(value)
        and BASE64.fullmatch(value) is not None
        and len(set(value[:64])) >= 2 * LEAST_VARIETY
        and not is_typed(value)
    )


def is_words(value: bytes) -> bool:
    """Whether a value is a name: small words and numbers, joined."""
    return JOINED_WORDS.fullmatch(value) is not None


URL_SAFE = bytes.maketrans(b"-_", b"+/")  # RFC 4648 §5


def decoded(text: bytes) -> bytes:
    """What base64 text holds, of either alphabet and without its padding too; nothing if it is none."""
    text = text.rstrip(b"=").translate(URL_SAFE)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def decodes_to_pair(text: bytes) -> bool:
    """Whether base64 text holds a printable `user:password` (RFC 7617) that is no placeholder."""
    raw = decoded(text)
    password = raw.partition(b":")[2]
    return (
        bool(password)
        and raw.isascii()
        and raw.decode("ascii").isprintable()
        and not is_placeholder(password)
    )


def is_jwt(text: bytes) -> bool:
    """Whether the first part of a JSON Web Token decodes to a header with an algorithm (RFC 7515 §4.1)."""
    raw = decoded(text.partition(b".")[0])
    return raw.startswith(b"{") and (b'"alg"' in raw or b'"typ"' in raw or b'"enc"' in raw)


CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS = CAPITALS + CAPITALS.lower()
KEY_ALPHABET = re.compile(rb"[A-Za-z0-9_\-+/=.:~]+")
LEAST_VARIETY = (
    9  # different characters in a random value: 12 random ones nearly always have as many
)
PASSWORD_NAME = re.compile(rb"pass(?:w|phrase|code|$|\d|[_.\-])|pwd|pswd")
#: what may follow a secret word in a name that still names a secret
NAME_REST = re.compile(
    rb"(?:ord|d|wd|word|code|phrase|ential|entials|orization)?s?(?:[_.\-]?(?:key|token|secret|value|val|base64|base|b64|text|string|plain|data|prod|live|dev|test|"
    rb"main|old|new|default|current|input|field|pass|phrase|[0-9]{1,4}))*(?:[_.\-][a-z])?[_.\-]?"
)
#: a bare "key" is a cache's, a map's, a row's; these make it a secret
KEY_OWNER = re.compile(
    rb"(?:api|access|secret|private|priv|auth|encrypt\w{0,4}|encryption|signing|sign|master|account|storage|service|client|session|ssh|licen[cs]e|app|application|"
    rb"consumer|shared|subscription|write|admin|server|deploy|rsa|aes|hmac|jwt|cookie|webhook|developer|dev|user|team|project|integration|bot|security|activation|"
    rb"hub|function|host|read|publish|instrumentation|push|send|rest|root|device|provision\w{0,7}|merchant|payment|sandbox|prod|production|live)[_.\- ]?$"
)
RANDOM_SIZE = 256  # bytes of a value in which a mixed piece is looked for
#: eight letters and digits in a row that are both: what generated keys have and names, dates and paths do not
MIXED_PIECE = re.compile(
    rb"(?=[A-Za-z]*\d[A-Za-z]*\d|\d+[A-Za-z]+\d)(?=\d*[A-Za-z])[A-Za-z0-9]{8,}"
)
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+=*")
#: what hands type, in lower case: the alphabet, numbers in order
SEQUENCES = tuple(
    b"abcdef bcdefg ghijkl klmnop mnopqr uvwxyz 123456 987654 000000 111111 aaaaaa".split()
)
JOINED_WORDS = re.compile(
    rb"(?:[A-Z]?[a-z]+|[A-Z]+|\d{1,4})(?:[-_. ](?:[A-Z]?[a-z]+|[A-Z]+|\d{1,4}))*"
)
HEX_OR_UUID = re.compile(rb"[0-9a-fA-F]{24,}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
NO_WORD = re.compile(rb"[0-9!@#$%^&*]")
NAMES_SECRET = re.compile(rb"secret|token")


class Key(NamedTuple):
    """What stands before a value: the line before, the name (before, in and behind the secret word), the operator.

    `taken`: one of the originals has the value already, so that only a service's rule can have it instead.
    """

    context: bytes
    prefix: bytes
    word: bytes
    rest: bytes
    operator: bytes
    quoted: bool
    taken: bool

    @property
    def name(self) -> bytes:
        """The whole name, in lower case."""
        return self.prefix + self.word + self.rest


def password_rule(key: Key, value: bytes) -> str:
    """The id of the rule under which a password's value counts, or nothing."""
    assigned = key.quoted or key.operator != b":" or not key.context.strip(b" \t-")
    if (
        key.word + key.rest == b"pass"
        and key.operator == b":"
        and not key.quoted
        and not key.prefix
    ):
        return ""  # a test that passed
    if value.isalpha() or value.isdigit():
        return "keyed-secret-weak" if assigned and len(value) >= 6 and key.operator != b" " else ""
    if b" " in value and not key.quoted:
        return ""
    return (
        "keyed-password"
        if assigned
        and key.operator not in (b" ", b"value=")
        and is_mixed(value)
        and len(value) >= 6
        else "keyed-secret-weak"
    )


def secret_rule(kind: str, key: Key, value: bytes, random: bool) -> str:
    """The id of the rule under which a generic secret's value counts, or nothing."""
    if kind == "bare":
        return (
            "keyed-secret-weak"
            if random and is_many_cased(value) and not HEX_OR_UUID.fullmatch(value)
            else ""
        )
    if random:
        return "keyed-secret" if is_strong(value) else "keyed-secret-weak"
    return (
        "keyed-secret-weak"
        if (key.quoted or key.operator != b":") and is_mixed(value) and not is_words(value)
        else ""
    )


@functools.lru_cache(maxsize=4096)
def name_kind(prefix: bytes, word: bytes, rest: bytes) -> str:
    """What a name that holds a secret word is the name of: a password, a secret, a bare key, or none of these."""
    if NAME_REST.fullmatch(rest) is None or NO_SECRET_NAME.search(prefix + word + rest):
        return "none"
    if PASSWORD_NAME.match(word + rest):
        return "password"
    if word == b"pass":
        return "none"
    if word == b"auth" and not rest or rest == b"s":
        return "bare"
    return (
        "bare"
        if word == b"key"
        and not NAMES_SECRET.search(prefix + rest)
        and not KEY_OWNER.search(prefix)
        else "secret"
    )
