"""Rules from a user's file: loading, checking, choosing; and the table as a document."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from _dockeraudit.rules import Rule
from _dockeraudit.scanner import rule_problems
from _dockeraudit.services import SERVICES
from patterns import RULES

SEVERITIES = ("HIGH", "MEDIUM", "LOW")
PROBE_SIZES = (*range(8, 48), 56, 64, 80, 96, 200, 800, 3000, 8192, 16384, 24576, 32768, 65536)
PROBE_LIMIT = (
    0.25  # CPU seconds for one probe of at most 64 KiB; an honest pattern takes a few milliseconds
)
SHORT_PROBE = 100  # bytes: a text so short takes microseconds, so the pattern is told before a longer one would take minutes
SHORT_PROBE_LIMIT = 0.02


class RuleError(ValueError):
    """A rule, or a choice of rules, that cannot be used; the message says which and why."""


def load_rules(path: str) -> list[Rule]:
    """The rules of a JSON file: a list of objects with id, name, severity, keywords, regex, examples, and maybe group.

    Raises RuleError for a file that cannot be read and for a rule that is wrong, misses its examples or is slow.
    """
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
    except (OSError, ValueError) as error:
        raise RuleError(f"rules file {path} cannot be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RuleError(f"rules file {path} must hold a JSON list of objects")
    return [
        user_rule(row, f"{path}: rule {row.get('id', number)!r}")
        for number, row in enumerate(rows, 1)
    ]


def user_rule(row: dict[str, Any], where: str) -> Rule:
    """One user's rule, checked; raises RuleError."""
    texts = [row.get(key) for key in ("id", "name", "severity", "regex")]
    if not all(isinstance(text, str) and text for text in texts):
        raise RuleError(f"{where} needs the texts id, name, severity and regex")
    rule_id, name, severity, regex = (str(text) for text in texts)
    keywords, examples, group = row.get("keywords"), row.get("examples", []), row.get("group", 0)
    if not (
        isinstance(keywords, list)
        and keywords
        and all(isinstance(word, str) and len(word) > 1 for word in keywords)
    ):
        raise RuleError(
            f"{where} needs keywords: literals of two or more characters of which one is in every match"
        )
    if not (
        isinstance(examples, list)
        and examples
        and all(isinstance(example, str) for example in examples)
    ):
        raise RuleError(
            f"{where} needs examples: a list of one or more texts that it finds, each with one of the keywords"
        )
    if severity not in SEVERITIES or rule_id in {rule.id for rule in RULES}:
        raise RuleError(
            f"{where}: severity must be HIGH, MEDIUM or LOW, and the id must not be one of ours"
        )
    try:
        compiled = re.compile(regex.encode())
    except re.error as error:
        raise RuleError(f"{where}: the regex is wrong: {error}") from None
    if not isinstance(group, int) or not 0 <= group <= compiled.groups:
        raise RuleError(f"{where}: group {group!r} is none of the regex's {compiled.groups} groups")
    rule = Rule(
        rule_id,
        name,
        severity,
        tuple(w.encode() for w in keywords),
        regex.encode(),
        group,
        tuple(examples),
        (),
        path_of(where),
        find="line",
        custom=True,
    )
    missed = list(rule_problems(rule))
    if missed or slow_on(compiled, rule):
        raise RuleError(
            f"{where}: "
            + (
                missed[0]
                if missed
                else "the regex is too slow on some inputs; write it without nested repetition"
            )
        )
    return rule


def path_of(where: str) -> str:
    """The file's part of a place, as the reference of a user's rule."""
    return where.partition(":")[0]


def slow_on(compiled: Any, rule: Rule) -> bool:
    """Whether the pattern takes too long on growing texts made to be nearly matched."""
    seeds = {example.encode() for example in rule.examples} | {
        b"a",
        b"0",
        b" ",
        b"a1",
        *rule.keywords,
    }
    for seed in sorted(seeds):
        for size in PROBE_SIZES:
            text = (seed * (size // len(seed) + 1))[:size] + b"\x00"
            began = time.thread_time()
            for _ in compiled.finditer(text):
                pass
            if time.thread_time() - began > (
                SHORT_PROBE_LIMIT if size < SHORT_PROBE else PROBE_LIMIT
            ):
                return True
    return False


def select_rules(
    rules: Sequence[Rule], *, only: Iterable[str] = (), disable: Iterable[str] = ()
) -> list[Rule]:
    """The rules by id: all or those of `only`, without those of `disable`; raises RuleError for an unknown id."""
    known = {rule.id for rule in rules}
    wanted, unwanted = set(only), set(disable)
    for rule_id in sorted((wanted | unwanted) - known):
        raise RuleError(f"there is no rule {rule_id!r}; `dockeraudit rules` lists them")
    return [rule for rule in rules if (not wanted or rule.id in wanted) and rule.id not in unwanted]


RULES_PAGE = """# What dockeraudit finds

{count} rules, in the order in which they win where the secrets of two overlap; the one that wins reports, once. Generated from
the table in `patterns.py` (`dockeraudit rules --markdown`); `dockeraudit rules` lists the rules of a configuration.

- **HIGH**: a provider's token by its documented shape, a private key, a credential in a URL, and what the six original
  patterns match, whatever it is. **MEDIUM**: a value of a service's shape behind that service's name, a password behind
  a password's name, a random value beyond doubt behind a secret's name, a token that decodes. **LOW**: what may well be a
  secret but has no shape of its own, and e-mail addresses.
- A secret's name is one with *key*, *token*, *secret*, *pass*, *pwd* or *auth* right before the operator: `client_secret=`,
  `"password": `, `--token `, `<secret>`, `{{"name": "DB_PASSWORD", "value": `. Names of identifiers are none (`token_id`,
  `cache_key`, `public_key`, `password_hash`), nor are placeholders (`REDACTED`, `****`, `<...>`, `${{...}}`, `changeme`), paths, code,
  and words. A bare `key` counts behind what owns keys (`api_key`) or one of {services} known services (`weatherstack_key`).
- Escapes are seen through where they are glued to a secret: JSON's, percent-encoding, colours, and base64 of private keys,
  JSON Web Tokens and `user:password`.
- `--rules FILE` adds your own: a JSON list of objects with `id`, `name`, `severity`, `keywords` (literals of which one is in every
  match), `regex` (Python's, over bytes), `examples` (texts that it finds) and maybe `group` (which of the regex's groups is
  the secret). A rule that misses its examples, or is slow on some input, is refused at start with a sentence.
  `--disable-rule ID`, `--only-rules ID,...` choose; `--allow-secret FINGERPRINT` silences one known secret.

| id | name | severity | reference |
|---|---|---|---|
"""


def rules_markdown(rules: Sequence[Rule]) -> str:
    """The table as a document."""
    rows = "".join(
        f"| `{rule.id}` | {rule.name} | {rule.severity} | {rule.reference} |\n" for rule in rules
    )
    return RULES_PAGE.format(count=len(rules), services=len(SERVICES)) + rows
