"""Whether a value is a secret: placeholders, code, words, and what generators and people make."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from functools import lru_cache

ANSWERS_KEPT = 256  # answers: logs repeat themselves
CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS = CAPITALS + CAPITALS.lower()


def any_of(*groups: Iterable[bytes]) -> re.Pattern[bytes]:
    """A regex for any of the texts: a quarter of what it costs to look for one after the other."""
    return re.compile(b"|".join(re.escape(text) for group in groups for text in group))


#: values, in lower case, that stand for a secret: whole
PLACEHOLDER = re.compile(
    rb"[*x.\-_#?0]{3,}|null|nil|none|true|false|yes|no|on|off|empty|unset|unknown|undefined|"
    rb"default|n/a|void|"
    rb"string|str|text|bytes|bool|int|varchar|tests?|user|admin|pass|passw(?:or)?d?s?\d?|secrets?|"
    rb"tokens?|keys?|"
    rb"credentials?|cookies?|auth|basic|bearer|digest|sensitive|known|hunter2|"
    rb"%\(?[a-z_]*\)?[sdv]?|%[\w.\-]+%|%2[27]%.*|0123456789(?:abcdef)?|1234567890(?:abcdef)?|"
    rb"abcdef0123456789|\$[a-z_]\w*|[\[<({].*|[@#%][a-z_ ]*|![a-z:]+|:[a-z_]+|"
    rb"(?:some|any|my|your|the|our|new|old|enter|super|top|other|confirm|current|repeat|user|db|"
    rb"hashed|plain|raw|given)[-_ ]?(?:secret)?[-_ ]?"
    rb"(?:secret|password|passwd|pass|token|api[-_ ]?key|key)s?\W*"
)
#: signs that stand for characters that are not shown: bullets, blocks, dots, full-width stars
MASK = re.compile(
    rb"(?:\xe2\x80[\xa2\xa6]|\xe2\x97[\x8f\x8b\xa6]|\xe2\x88[\x97\x99]|\xe2\x96[\x80-\xaf]|"
    rb"\xc2\xb7|\xef\xbc\x8a|[*.\-_]|[xX])+"
)
#: what inside a value, in lower case, tells that it stands for one
FILLERS = any_of(
    b"redacted filtered *** xxxxx &lt; &gt; ${ $( {{ #{ placeholder changeme change-me change_me "
    b"example your- your_ dummy sample masked hidden removed secret_here secrethere insert- "
    b"insert_ replace undefined required incorrect invalid expired missing fake not-set not_set "
    b"not-found not_found already-set unchanged hmac-sha256: op:// file:// projects/ arn:aws "
    b"vault:".split(),
    (
        b"your ",
        b"not set",
        b"not a ",
        b"not found",
        b"not valid",
        b"not shown",
        b"can't ",
        b"must ",
    ),
)
#: words, in lower case, that say how a password fared
STATUS = re.compile(
    rb"(?:[a-z]*(?:ed|ing|ly|able|ible|ory|less|ful)|ok|okay|correct|incorrect|wrong|valid|"
    rb"invalid|bad|good|weak|"
    rb"strong|none|empty|null|nil|unset|unknown|missing|mismatch|match|matches|success|failure|"
    rb"error|"
    rb"hidden|set|reset|sent|not|no|yes|too|already|is|was|still|never|now|please|must|should|"
    rb"cannot|"
    rb"short|long|same|different|old|new|change|changeme|obligatoire|erforderlich|falsch|requerido|"
    rb"incorrecto|obligatorio|inconnu|unbekannt|prompt|protected|plaintext|default|string|secret|"
    rb"password|passwort|contrasena|ldap|kerberos|pam|md5|scram|ident|trust|interactive|login|"
    rb"authentication|publickey|keyboard)(?:[-_ ](?=[a-z])[a-z]+)*[.!]?"
)
#: runs that people type to show a shape
FILLED_IN = any_of(
    b"xxxxxx *** .... #### my-token example abcdefghijklmnopqrst placeholder your- your_ redacted "
    b"dummy fake_ fake- 000000000000".split()
)
#: generators hardly ever repeat a character so often; A is zero in base64
SAME = re.compile(rb"([^A])\1{5}")
#: keys that their owners publish in widely used software (the Firebase samples, YouTube's own
#: clients): the first 12 hex digits of their SHA-256
PUBLISHED = frozenset(
    b"01b6940ca381 0b476bdf9acf 2037abcaffb2 27a9a42931df 31043aae8be2 37f8f09bdf12 3a8b61d0f636 "
    b"3f370c9dd822 49f777db995e 4c98242dcadc 8731261cb72d 961991da3ab8 a19f89ab3555 a6c814bc555a "
    b"dc0fcf046c61 e4a5542bb7fd ea9bb1082cf9 eb540d2b6ee2 f56e323494a6".split()
)
#: code and references: a call, a member, a variable, an object's print, an encrypted value, a path
CODE = re.compile(
    rb"[A-Za-z_]+\d{0,3}(?:[.:]+\w+)*[({\[]|(?:var|env|os|config|process|settings|secrets|self|"
    rb"this|data|local|"
    rb"module)\.|ENC\[|vault:|arn:|[./~]*/[\w.\-/]*$|[a-z][A-Za-z_$]*(?:\.[A-Za-z_$]+)+$|"
    rb"[\w.$]+@[0-9a-f]{5,8}$|\$\w|[a-z]+://[^:@]*$|--?[a-z]|#[a-z][a-z\-]*$|\w+->|"
    rb"[A-Z][A-Z]+(?:_[A-Z]+)+$"
)


@lru_cache(ANSWERS_KEPT)
def is_placeholder(value: bytes) -> bool:
    """Whether a value stands for a secret rather than being one."""
    value = value[:128].strip(b"\"'")
    if len(set(value)) <= max(2, len(value) // 12) or CODE.match(value) or MASK.fullmatch(value):
        return True
    value = value.lower()
    return FILLERS.search(value) is not None or PLACEHOLDER.fullmatch(value) is not None


def is_status(value: bytes) -> bool:
    """Whether what stands behind `password:` says how it fared, or what is wanted."""
    return STATUS.fullmatch(value.lower()) is not None


def is_mixed_case(value: bytes) -> bool:
    """Whether letters alone are of both cases as in no word: kXqvQmLz."""
    return len(value) >= 8 and len(CASE_CHANGE.findall(value)) >= 2 and not is_words(value)


def mixes_alphabets(value: bytes) -> bool:
    """Whether a value has signs of both Base64 alphabets, which no generator mixes."""
    return STANDARD_SIGN.search(value) is not None and URL_SAFE_SIGN.search(value) is not None


def is_label(value: bytes) -> bool:
    """Whether words stand for a field's label or a sentence: they begin with a capital, no
    digits."""
    return value[:1].isupper() and not DIGIT.search(value)


def is_filled_in(value: bytes) -> bool:
    """Whether a token of the right shape was written by hand to show the shape."""
    if len(set(value)) < 11 or SAME.search(value):
        return True
    value = value.lower()
    return FILLED_IN.search(value) is not None or value.endswith(b"here")


@lru_cache(ANSWERS_KEPT)
def is_random(value: bytes) -> bool:
    """Whether a value looks made by a generator: of a key's alphabet, long, mixed, and no word,
    path or number."""
    if len(value) < 12 or len(set(value[:64])) < LEAST_VARIETY or not KEY_ALPHABET.fullmatch(value):
        return False
    return (
        MIXED_PIECE.search(value, 0, RANDOM_SIZE) is not None
        or HEX_OR_UUID.fullmatch(value) is not None
        or len(value) >= 24
        and is_many_cased(value + b"0")
    )


def is_mixed(value: bytes) -> bool:
    """Whether a short value has digits or signs among letters, as passwords have, words do not."""
    return (
        NO_WORD.search(value) is not None
        and b" " not in value
        and not value.isalpha()
        and not value.isdigit()
    )


def is_cased(value: bytes) -> bool:
    """Whether a value has capitals and small letters."""
    return value.lower() != value != value.upper()


def is_many_cased(value: bytes) -> bool:
    """Whether a value mixes capitals, small letters and digits as generators do, and people's
    names for things do not."""
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
    letters = value.translate(None, b"0123456789")
    if SEQUENCES.search(value) or SEQUENCES.search(letters):
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
    """What base64 text holds, of either alphabet and without its padding too; nothing if it is
    none."""
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
    """Whether the first part of a JSON Web Token decodes to a header with an algorithm (RFC 7515
    §4.1)."""
    raw = decoded(text.partition(b".")[0])
    return raw.startswith(b"{") and (b'"alg"' in raw or b'"typ"' in raw or b'"enc"' in raw)


KEY_ALPHABET = re.compile(rb"[A-Za-z0-9_\-+/=.:~]+")
LEAST_VARIETY = (
    9  # different characters in a random value: 12 random ones nearly always have as many
)
RANDOM_SIZE = 256  # bytes of a value in which a mixed piece is looked for
#: eight letters and digits in a row, of both kinds: keys have them, names and dates do not
MIXED_PIECE = re.compile(
    rb"(?=[A-Za-z]*\d[A-Za-z]*\d|\d+[A-Za-z]+\d)(?=\d*[A-Za-z])[A-Za-z0-9]{8,}"
)
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+=*")
#: what hands type, in lower case: the alphabet, numbers in order
SEQUENCES = any_of(
    b"abcdef bcdefg ghijkl klmnop mnopqr uvwxyz 123456 987654 000000 111111 aaaaaa".split()
)
JOINED_WORDS = re.compile(
    rb"(?:[A-Z]?[a-z]+|[A-Z]+|\d{1,4})(?:[-_. ](?:[A-Z]?[a-z]+|[A-Z]+|\d{1,4}))*"
)
HEX_OR_UUID = re.compile(rb"[0-9a-fA-F]{24,}|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
NO_WORD = re.compile(rb"[0-9!@#$%^&*]")
CASE_CHANGE = re.compile(rb"[a-z][A-Z]")
STANDARD_SIGN, URL_SAFE_SIGN = re.compile(rb"[+/]"), re.compile(rb"[_-]")


#: what stands in sentences and is no secret: dates, addresses, paths, versions, files, digests
NO_SECRET_VALUE = re.compile(
    rb"\d{4}-\d\d-\d\d|(?:[0-9a-fA-F]{0,4}:){3}[0-9a-fA-F:]*|[0-9.:]+$|[A-Za-z][\w+.\-]{1,20}://|"
    rb"[./~]+[\w.\-]*/|v?\d+(?:\.\d+)+|0x[0-9a-f]{1,16}$|"
    rb"[\w.\-]+\.(?:c|cc|cpp|cs|conf|css|go|h|html?|java|jsx?|json|kt|log|md|mjs|php|pl|pem|pdf|"
    rb"png|pyc?|"
    rb"rb|rs|sh|sql|svg|toml|tsx?|txt|xml|ya?ml|zip|gz)\b|sha\d|md5|[\w\-]+\.[\w\-]+\.[a-z]{2,}$|"
    rb"\w+\(|"
    rb"[\w.+\-]+@[\w\-]+\.|[A-Z]\w+:[\d.]+$|[A-Za-z_][\w.\-]*=[^=]|[\w\-]*[/\\][\w\-/\\.]*$|"
    rb"--?[a-z]"
)
#: a letter and a digit change places at least twice, or capitals, small letters and digits mix
CHANGES = re.compile(rb"[0-9][A-Za-z].*[A-Za-z][0-9]|[A-Za-z][0-9].*[0-9][A-Za-z]")
CAPITAL_INSIDE = re.compile(rb"[^A-Z\W_][A-Z]|[A-Z]{2}")
SMALL = re.compile(rb"[a-z]")
DIGIT = re.compile(rb"[0-9]")
SIGN = re.compile(rb"[!@#$%^&*+=?~;|{}()<>\[\]]")
UUID_VALUE = re.compile(rb"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


@lru_cache(ANSWERS_KEPT)
def is_generated(value: bytes) -> bool:
    """Whether a value looks like a password or token wherever it stands, in a sentence too."""
    if not 8 <= len(value) <= 512 or not DIGIT.search(value):
        return False
    if NO_SECRET_VALUE.match(value) or is_placeholder(value) or is_words(value):
        return False
    if UUID_VALUE.search(value):
        return False
    kinds = bool(CAPITAL_INSIDE.search(value)) + bool(SMALL.search(value))
    if kinds + bool(SIGN.search(value)) >= 2:
        return True
    return kinds >= 1 and CHANGES.search(value[:64]) is not None


# ---- what a place asks of its values ----

#: both cases and a digit, and nothing of a path, a mapping or an assignment
MIXED_CASES = re.compile(rb"(?=.*[a-z].*[A-Z]|.+[A-Z].*[a-z])(?=.*\d)[^/:=]+$")


@lru_cache(ANSWERS_KEPT)
def is_session(value: bytes) -> bool:
    """Whether a session's value is one that a server made."""
    if len(value) < 16 or is_placeholder(value) or is_words(value) or is_typed(value):
        return False
    return is_random(value) or len(value) >= 20 and is_mixed(value)


@lru_cache(ANSWERS_KEPT)
def is_signature(value: bytes) -> bool:
    """Whether a query's signature is one, not a version or a name."""
    return len(value) >= 20 and not is_placeholder(value) and is_random(value.replace(b"%", b""))


def is_code(value: bytes) -> bool:
    """Whether a `code` in a URL is an authorization code (RFC 6749 §4.1.2)."""
    value = value.replace(b"%2F", b"").replace(b"%2f", b"")
    return len(value) >= 12 and is_random(value) and not UUID_VALUE.fullmatch(value)


@lru_cache(ANSWERS_KEPT)
def is_password(value: bytes) -> bool:
    """Whether a value that stands where a password must is one."""
    return not is_placeholder(value) and not is_status(value)


@lru_cache(ANSWERS_KEPT)
def is_option_password(value: bytes) -> bool:
    """The same behind an option that other programs use for something else."""
    return is_mixed(value) and not NO_SECRET_VALUE.match(value) and is_password(value)


def is_mixed_password(value: bytes) -> bool:
    """The same behind an option of an unknown program: of both cases, with digits."""
    return is_login_password(value) and MIXED_CASES.match(value) is not None


@lru_cache(ANSWERS_KEPT)
def is_login_password(value: bytes) -> bool:
    """The same among words, where any word may stand."""
    return len(value) >= 6 and is_mixed(value) and not is_words(value) and is_option_password(value)


def is_sasl_plain(value: bytes) -> bool:
    """Whether base64 text is SASL PLAIN's: identity, user and password, each behind a NUL (RFC
    4616)."""
    parts = decoded(value).split(b"\0")
    return len(parts) == 3 and bool(parts[2]) and not is_placeholder(parts[2])


@lru_cache(ANSWERS_KEPT)
def is_header_value(value: bytes) -> bool:
    """Whether what stands behind a scheme in an Authorization header is a credential."""
    return is_random(value) and not is_placeholder(value) and not is_typed(value)


def is_inline_auth(value: bytes) -> bool:
    """Whether what stands behind `AUTH` alone is a password."""
    return is_generated(value) and is_cased(value)


def is_generated_inside(value: bytes) -> bool:
    """Whether a value looks generated without the digits at its end, which test names have."""
    return is_generated(value.rstrip(b"0123456789"))


def is_any(value: bytes) -> bool:
    """Whatever the pattern took."""
    return True


def is_filled(value: bytes) -> bool:
    """Whether a token of the right shape is more than its shape."""
    return not is_filled_in(value)
