"""Rules from a user's file: how they are read, checked and chosen; and the table as a document."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from _dockeraudit.backtracking import ambiguity
from _dockeraudit.rules import Rule
from _dockeraudit.scanner import USER_WINDOW, rule_problems
from _dockeraudit.services import SERVICES
from patterns import RULES

SEVERITIES = ("HIGH", "MEDIUM", "LOW")
WINDOW = 2 * USER_WINDOW  # bytes: the longest text in which a user's pattern is searched at once
#: bytes of the texts that are tried; in the short ones exponential time shows, and still ends
SIZES = (*range(8, 48), 56, 64, 80, 96, 200, 800, 3000, WINDOW)
SLOW = 0.05  # CPU seconds, in which no other thread runs; honest patterns take a few milliseconds
PLACE_SIZE = 60  # characters of a pattern that a message quotes
#: what is wrong with an ambiguous pattern, and how to write it instead
AMBIGUITIES = {
    "nested": "{0} repeats a part that can take the same text in several ways, so that one line "
    "can hold the scanner for minutes; begin or end each round with a character that the rest of "
    "the round cannot take",
    "overlapping": "{0} and {1} can take the same characters, so that a long line takes very long; "
    "put between them what neither can take, or let one end early, as {{0,32}} does",
    "unanchored": "{0} can run on over the next place where a match may begin, so that a long line "
    "takes very long; let it end early, as {{1,100}} does, or leave out a character with which the "
    "regex begins",
    "large": "the regex has too many parts to be checked for slow repetitions; make its counts "
    "smaller",
}


class RuleError(ValueError):
    """A rule, or a choice of rules, that cannot be used; the message says which and why."""


def load_rules(path: str) -> list[Rule]:
    """The rules of a JSON file, which holds a list of objects as `docs/rules.md` describes them.

    Raises RuleError for a file that cannot be read, and for a rule that is wrong, misses an example
    of its own, or may be slow.
    """
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
    except (OSError, ValueError) as error:
        raise RuleError(f"rules file {path} cannot be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RuleError(f"rules file {path} must hold a JSON list of objects")
    return [
        user_rule(row, path, f"{path}: rule {row.get('id', number)!r}")
        for number, row in enumerate(rows, 1)
    ]


def user_rule(row: dict[str, Any], path: str, where: str) -> Rule:
    """One rule of the file at `path`; raises RuleError, whose message begins with `where`."""
    problem = row_problem(row)
    if problem:
        raise RuleError(f"{where} {problem}")
    rule = Rule(
        row["id"],
        row["name"],
        row["severity"],
        tuple(word.encode() for word in row["keywords"]),
        row["regex"].encode(),
        row.get("group", 0),
        tuple(row["examples"]),
        (),
        path,
        find="line",
        custom=True,
    )
    problem = pattern_problem(rule)
    if problem:
        raise RuleError(f"{where}: {problem}")
    return rule


def row_problem(row: dict[str, Any]) -> str:
    """What is wrong with a rule's object, its regex aside; nothing if all is well."""
    texts = [row.get(member) for member in ("id", "name", "severity", "regex")]
    if not all(isinstance(text, str) and text for text in texts):
        return "needs the texts id, name, severity and regex"
    if not is_texts(row.get("keywords"), 2):
        return "needs keywords: literals of two or more characters of which one is in every match"
    if not is_texts(row.get("examples"), 0):
        return "needs examples: one or more texts that it finds, each with one of the keywords"
    if row["severity"] not in SEVERITIES or row["id"] in {rule.id for rule in RULES}:
        return "needs a severity of HIGH, MEDIUM or LOW, and an id that is not one of ours"
    return ""


def is_texts(value: Any, least: int) -> bool:
    """Whether a value is a list of one or more texts of at least so many characters."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(text, str) and len(text) >= least for text in value)


def pattern_problem(rule: Rule) -> str:
    """What is wrong with a rule's regex; nothing if all is well."""
    try:
        compiled = re.compile(rule.pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"the regex is wrong: {error}"
    if type(rule.group) is not int or not 0 <= rule.group <= compiled.groups:
        return f"group {rule.group!r} is none of the regex's {compiled.groups} groups"
    found = ambiguity(rule.pattern)
    if found and (found.kind != "unanchored" or is_slow(compiled, found.word, WINDOW)):
        return AMBIGUITIES[found.kind].format(*map(quoted, found.places))
    missed = next(iter(rule_problems(rule)), "")
    if missed:
        return missed
    seeds = {*(text.encode() for text in rule.examples), *rule.keywords, b"a", b"0", b" ", b"a1"}
    if any(is_slow(compiled, seed, size) for seed in sorted(seeds) for size in SIZES):
        return "the regex is too slow on some texts; write it without repetitions that overlap"
    return ""


def quoted(place: str) -> str:
    """A part of a regex as a message shows it."""
    return f"`{place if len(place) <= PLACE_SIZE else place[: PLACE_SIZE - 3] + '...'}`"


def is_slow(compiled: Any, seed: bytes, size: int) -> bool:
    """Whether a search takes too long in a text that repeats the seed and is nearly matched."""
    text = (seed * (size // len(seed) + 1))[:size] + b"\x00"
    began = time.thread_time()
    for _ in compiled.finditer(text):
        pass
    return time.thread_time() - began > SLOW


def select_rules(
    rules: Sequence[Rule], *, only: Iterable[str] = (), disable: Iterable[str] = ()
) -> list[Rule]:
    """The rules by id: all or those of `only`, without those of `disable`.

    Raises RuleError for an id that none of the rules has.
    """
    known = {rule.id for rule in rules}
    wanted, unwanted = set(only), set(disable)
    for rule_id in sorted((wanted | unwanted) - known):
        raise RuleError(f"there is no rule {rule_id!r}; `dockeraudit rules` lists them")
    return [rule for rule in rules if (not wanted or rule.id in wanted) and rule.id not in unwanted]


RULES_PAGE = """# What dockeraudit finds

{count} rules, in the order in which they win where the secrets of two overlap; the one that wins
reports, once. Generated from the table in `patterns.py` (`dockeraudit rules --markdown`);
`dockeraudit rules` lists the rules of a configuration.

## Severities

- **HIGH**: a provider's token by its documented shape, a private key, a credential in a URL, and
  what the six original patterns match.
- **MEDIUM**: a password behind a password's name, a random value of 20 bytes or more behind a
  secret's name (16 with capitals and small letters), a value of a service's shape behind that
  service's name, a session, a signature, a login, and what a sentence says is a password.
- **LOW**: what may well be a secret and has no shape of its own; keys that are made to be
  published, whose rules say so by name; one-time codes; e-mail addresses.
- **Placeholders.** What one of the six original patterns matches and is plainly no secret
  (`password: incorrect`, `Password: ********`, `%DB_PASSWORD%`, `api_key=1111…`, `git@github.com`,
  `icon@3x.png`, example domains) is LOW with `"placeholder": true`. Our other rules report no
  placeholders at all.

## Kinds

Each row says what is found, and what is not.

| kind | found | not found |
|---|---|---|
| tokens of providers | by prefix and shape, anywhere, also glued to an escape or a colour | \
tokens without a prefix of their own where no name stands before them |
| assignments | `NAME=value`, `name: value`, `"name": "value"`, `=>`, `:=`, `->`, \
`<name>value</name>`, `name="value"`, `("name", "value")`, table cells; \
JSON in JSON in JSON, `\\u0022`, `&quot;`, `%22`, \
colours; `Some("x")`, `b'x'`, `<<"x">>`, `[x]` | values that are words, paths, code, references \
(`${{...}}`, `!vault`, `:password`) |
| names | judged by their words, the last secret one first: `NEXTAUTH_SECRET`, `CACHE_REDIS_PASS`, \
`primaryKey` | names of something else: `token_type`, `password_file`, `cache_key`, `public_key`, \
`csrf_token`; names without a secret word |
| first starts of images | on one line, and below the name: qBittorrent, MySQL, Airflow, Gitea, \
Elasticsearch, Jenkins, Vault's keys, Werkzeug's PIN | a password that no word announces |
| command lines | `--password X`, `--token X`; `mysql -pX`, `sshpass -p X`, `redis-cli -a X`, \
`ldapsearch -w X`, `curl -u name:X`, `docker login -p X`, `htpasswd -b`, `pass:X`, `/pass:X`, \
`ConvertTo-SecureString "X"` | options of programs not on the list, but for `-p` with a value of \
both cases and digits; what a pipe hands over (`--password-stdin`) |
| traces and dumps | PHP's frames and `var_dump`, Go's `%+v` and maps, Python, Ruby, Rust, Erlang, \
Elixir, Java | values without names (Go's `%v`); names that stand far from their values |
| prose | `password is X`, `set to X`, `for user bob: X`, `-> X`, in English, German, French, \
Spanish, Portuguese, Chinese, Japanese, Korean, Russian | values without a generated look: \
words, dates, paths, versions, UUIDs |
| HTTP | `Authorization` of every scheme, `X-Api-Key` in lists, cookies of sessions, OAuth \
`code=`, signed URLs, webhooks on any host, Apprise's URLs | cookies under names that say nothing |
| URLs | `scheme://user:password@host`, also percent-encoded; default passwords; \
`user:password@host:port`, `user:password@tcp(host)` | examples: `user:pass@`, `foo:bar@` |
| SQL and protocols | `IDENTIFIED BY`, `SET PASSWORD`, `ROLE … PASSWORD`; SMTP AUTH, IMAP LOGIN, \
FTP PASS, Redis AUTH and MONITOR, SNMP communities | values of columns (`INSERT … VALUES`) |
| wallets | recovery phrases of BIP-39's English list, behind a word that announces them; private \
keys in hex behind their name | phrases in other languages |
| one-time codes | 4 to 8 digits behind the words of a code, LOW | bare digits |
| private keys | PEM and PGP, on one line or many, Base64 of PEM | certificates, public keys |

## More

- `container-env` has no shape: it finds the values of a container's own secret variables
  (`DB_PASSWORD`, the password in `DATABASE_URL`) wherever that container prints them: as they are,
  in base64, percent-encoded, JSON-escaped. Always **HIGH**; the finding's `env` names the variable.
  Where another rule finds the same secret at the same place, that rule reports it, with `env` and
  as HIGH. `--own-secrets off` or `--disable-rule container-env` turns it off.
- The secret is the whole value: quoted, in JSON or in a URL it has the same fingerprint, unless
  its form escapes some of its characters.
- A bare `key` counts behind what owns keys (`api_key`) or one of {services} known services
  (`weatherstack_key`).
- `--rules FILE` adds your own: a JSON list of objects with `id`, `name`, `severity`, `keywords`
  (literals of which one is in every match), `regex` (Python's, over bytes), `examples` (texts that
  it finds) and maybe `group` (which of the regex's groups is the secret). A rule that misses its
  examples, or is slow on some input, is refused at start with a sentence. `--disable-rule ID`,
  `--only-rules ID,...` choose; `--allow-secret FINGERPRINT` silences one known secret.

| id | name | severity | reference |
|---|---|---|---|
"""


def rules_markdown(rules: Sequence[Rule]) -> str:
    """The table as a document."""
    rows = "".join(
        f"| `{rule.id}` | {rule.name} | {rule.severity} | {rule.reference} |\n" for rule in rules
    )
    return RULES_PAGE.format(count=len(rules), services=len(SERVICES)) + rows
