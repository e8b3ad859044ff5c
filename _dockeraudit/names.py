"""Names: whether a name that holds a secret word (key, token, pass, …) names a secret."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

BEFORE_SIZE = 96  # bytes before the secret word in which the name begins and a service may be named
SMALL_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
NAME_CHARACTERS = SMALL_LETTERS + b"0123456789_.-"
#: the rest of a name behind its secret word; three dots are no part of it
NAME_REST = re.compile(rb"(?:[\w\-]|\.(?!\.\.)){0,48}")
#: a name's words: NEXTAUTH_SECRET, primaryKey, hmac-secret2, X-API-Key
WORDS = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: words around which `pass` means something else
NO_PASSWORD = frozenset(
    b"bypass compass encompass trespass surpass overpass underpass passive passed passes "
    b"passing passenger passport passthrough passwordless bypassed passable passage".split()
)
PASSWORD_WORD = re.compile(
    rb"[a-z]*?(?:pass(?:e|w|wd|word|wort|phrase|code)?s?|pwd|pswd|passwrd|pw|psw|psk|senha|"
    rb"wachtwoord|kennwort|parola|requirepass)"
)
#: words that end in `key` and are no keys
NO_KEY = frozenset(
    b"monkey donkey turkey jockey hockey whiskey lackey flunkey mickey smokey hotkey hotkeys "
    b"disney keyboard keyword keyframe keynote passkey passkeys".split()
)
#: what owns keys that are no secrets: the word before `key`
NO_KEY_OWNER = frozenset(
    b"public pub publishable foreign sort partition cache idempotency idempotent idempot "
    b"correlation trace span row group hash object bucket unique routing composite lookup "
    b"registry map index shard dedup deduplication page site message kafka item record file "
    b"image s3 gpg pgp gnupg keyboard i18n translation issue cursor etag nonce host kms "
    b"surrogate candidate natural config metric label attribute column resource redis lock "
    b"mutex queue topic event state job task up down left right arrow enter escape tab shift "
    b"any other by for on with the of no apt rpm minisign vapid verification verify "
    b"fingerprint pressed released first last derived".split()
)
#: what owns keys that are secrets
KEY_OWNER_WORD = re.compile(
    rb"(?:\w*(?:api|secret|private|encryption|auth|signing|hmac|webhook|access|account|shared|"
    rb"master)|"
    rb"priv|encrypt\w{0,4}|decrypt\w{0,4}|sign|storage|service|client|session|ssh|licen[cs]e|app|"
    rb"application|consumer|pre|subscription|write|admin|server|deploy|rsa|aes|jwt|"
    rb"jwk|cookie|developer|dev|user|team|project|integration|bot|security|activation|hub|"
    rb"function|read|"
    rb"publish|instrumentation|push|send|rest|root|device|provision\w{0,7}|merchant|payment|"
    rb"sandbox|"
    rb"prod|production|live|unseal|recovery|wallet|wg|wireguard|transport|ingest|ingestion|agent|"
    rb"join|enrollment|bootstrap|cluster|gossip|fernet|rails|laravel|base)"
)
#: what owns tokens that are no secrets: the word before `token`
NO_TOKEN_OWNER = frozenset(
    b"csrf xsrf page next continuation pagination cursor bos eos pad unk sep max min num "
    b"prompt completion total input output mask stop sync delta change resume lock fencing "
    b"cancellation parse lexer bpe special unexpected invalid context cached reasoning audio "
    b"idempotency etag authenticity antiforgery requestverification nextpage public wrong bad "
    b"activity".split()
)
#: words behind the secret word that make the name something else's
NO_SECRET_AFTER = frozenset(
    b"id ids name names type types hash hashed hashes digest file files path paths dir url "
    b"uri link version expires expiry expiration expire expired expirationdate ttl count "
    b"counts counter policy length len size limit age max min ref arn alg algorithm status "
    b"state enabled disabled required reset changed updated created at date time timestamp "
    b"provider manager store storage source location endpoint host port format encoding "
    b"encryption mechanism method mode class label hint prompt regex pattern index idx list "
    b"map mapping table usage scope scopes issuer audience claims owner username email group "
    b"role prefix suffix header headers param parameter request response error message "
    b"attempts retries rotation strength history minimum maximum last next num number level "
    b"validator validation check template public fingerprint thumbprint kid uuid exists set "
    b"is not present valid invalid bucket space spec schema column row sha md5 sha256 "
    b"checksum placeholder question answer attempt failure success login service server "
    b"client environment env var variable config settings option options allowed lifetime "
    b"duration period interval refresh repository dispatch controller form page view visible "
    b"show hide protected protection generator generation bits operation ops wrap wrapping "
    b"unwrap press pressed released event events challenge nonce rounds cost auth "
    b"authentication".split()
)
#: words behind the secret word that change nothing
NEUTRAL_AFTER = re.compile(
    rb"key|keys|token|secret|secrets|value|values|val|base64|base|b64|text|string|str|plain|"
    rb"plaintext|data|"
    rb"prod|live|dev|test|staging|main|primary|secondary|old|new|default|current|input|field|pass|"
    rb"phrase|"
    rb"word|code|raw|hex|encoded|env|[a-z]|\d{1,4}"
)


class Kind:
    """What a name names. NONE is no secret; LOOSE may be one, so that the value alone must tell."""

    NONE, PASSWORD, SECRET, BARE, LOOSE = "none", "password", "secret", "bare", "loose"


class Name(NamedTuple):
    """A name that holds a secret word, in a block.

    `start`, `end`: where it is. `at`, `behind`: where its secret word is. `text`: in lower case.
    `context`: the line before it, in lower case.
    """

    start: int
    at: int
    behind: int
    end: int
    text: bytes
    context: bytes
    kind: str

    @property
    def prefix(self) -> bytes:
        """The name up to its secret word."""
        return self.text[: self.at - self.start]


def name_at(block: bytes, lower: bytes, at: int, size: int) -> Name:
    """The name around the secret word of `size` bytes at `at`; `lower` is the block in lower
    case."""
    behind = at + size
    end = NAME_REST.match(lower, behind).end()  # type: ignore[union-attr]
    word = lower[at:behind]
    inner = lower.rfind(word, behind, end)
    if inner > 0:  # the word stands twice in the name: the last one counts
        at, behind = inner, inner + size
    before = lower[max(0, at - BEFORE_SIZE) : at].rpartition(b"\n")[2]
    context = before.rstrip(NAME_CHARACTERS)
    start = at - len(before) + len(context)
    spaced = word_before(context) if start == at else b""
    kind = name_kind(block[start:end], at - start, spaced)
    return Name(start, at, behind, end, lower[start:end], context, kind)


def word_before(context: bytes) -> bytes:
    """The word that a text ends with, if a blank stands behind it: `public` of `public key: …`."""
    if not context.endswith((b" ", b"\t")):
        return b""
    text = context[:-1]
    return text[len(text.rstrip(SMALL_LETTERS)) :]


@functools.lru_cache(maxsize=8192)
def name_kind(name: bytes, at: int, before: bytes = b"") -> str:
    """The kind of a name whose secret word begins at `at`; `before`: the word before the name.

    `name` keeps its case, for its words may be told apart by capitals alone.
    """
    words, number = [], -1
    for match in WORDS.finditer(name):
        words.append(match.group().lower())
        if match.end() > at and number < 0:
            number = len(words) - 1
    if number < 0:
        return Kind.NONE
    word, owner = joined_word(words, number)
    kind = word_kind(word, owner or before, has_owner=bool(owner))
    if kind == Kind.NONE:
        return kind
    rest = words[number + 1 :]
    if any(each in NO_SECRET_AFTER for each in rest):
        return Kind.NONE
    if all(NEUTRAL_AFTER.fullmatch(each) for each in rest):
        return kind
    return Kind.LOOSE if len(rest) == 1 else Kind.NONE


def joined_word(words: list[bytes], number: int) -> tuple[bytes, bytes]:
    """The secret word, mended where capitals cut it (passWord), and the word before it."""
    word = words[number]
    following = words[number + 1] if number + 1 < len(words) else b""
    if word in (b"pass", b"pw") and following in (b"word", b"wd", b"phrase", b"code"):
        word += following
    return word, words[number - 1] if number else b""


def word_kind(word: bytes, owner: bytes, *, has_owner: bool) -> str:
    """The kind of a secret word behind its owner, the word before it."""
    if word in NO_PASSWORD or word in NO_KEY:
        return Kind.NONE
    if PASSWORD_WORD.fullmatch(word):
        return Kind.PASSWORD
    if word.endswith((b"key", b"keys")):
        return key_kind(word, owner, has_owner=has_owner)
    if word.endswith((b"token", b"tokens")):
        return Kind.NONE if owner in NO_TOKEN_OWNER else Kind.SECRET
    if word.endswith((b"secret", b"secrets", b"credential", b"credentials", b"creds", b"cred")):
        return Kind.NONE if owner in (b"public", b"csrf") else Kind.SECRET
    if word in (b"salt", b"cookie", b"pat"):
        return Kind.SECRET if has_owner or word == b"salt" else Kind.BARE
    return Kind.BARE if word in (b"auth", b"auths", b"authorization", b"appid") else Kind.NONE


def key_kind(word: bytes, owner: bytes, *, has_owner: bool) -> str:
    """The kind of a word that ends in `key`: a key is a cache's or a map's unless its owner
    tells."""
    glued = word.rstrip(b"s")[:-3]
    owner = glued or owner
    if owner in NO_KEY_OWNER:
        return Kind.NONE
    if KEY_OWNER_WORD.fullmatch(owner):
        return Kind.SECRET
    return Kind.BARE
