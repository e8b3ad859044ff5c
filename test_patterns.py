"""The rules: their own examples, the six originals against plain finditer, cuts, placeholders, users' rules."""
from __future__ import annotations

import json
import random
import re

import pytest

import patterns
from patterns import ORIGINAL_RULES, RULES, RuleError, Scanner, check, load_rules, redact, scan, select_rules

AWS_KEY = "AK" + "IA" + "IOSFODNN7EXAMPLE"
PIECES = [b"AKIA", b"api", b"_key", b"=", b":", b" ", b'"', b"'", b"-----BEGIN", b" PRIVATE", b" KEY-----", b" RSA", b"@", b".", b"a", b"com", b"bearer"]
PIECES += [b"Password", b"x" * 20, b"ABCDEFGHIJKLMNOP", b"\n", b"-", b"\t", b"token: ", b"\\n", b"%3D", b"\x1b[31m"]


def strings(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        yield b"".join(rng.choice(PIECES) for _ in range(rng.randint(2, 14)))


def test_every_rule_finds_its_examples_and_leaves_its_negatives():
    assert check() == []
    assert len(RULES) >= 200


@pytest.mark.parametrize("rule", ORIGINAL_RULES, ids=lambda rule: rule.id)
def test_originals_are_identical_to_plain_finditer(rule):
    scanner, plain = Scanner([rule]), re.compile(rule.pattern)
    for text in strings(4000, rule.id):
        expected = [match.span() + match.span(rule.group) for match in plain.finditer(text)]
        assert [tuple(match[1:]) for match in scanner.scan(text)] == expected, text


def test_scanning_lines_at_once_is_scanning_each_line():
    scanner = Scanner()
    for text in strings(4000, 7):
        expected, offset = [], 0
        for line in text.split(b"\n"):
            expected += [(match.rule.id, match.start + offset, match.end + offset) for match in scanner.scan(line)]
            offset += len(line) + 1
        assert sorted((match.rule.id, match.start, match.end) for match in scanner.scan_lines(text)) == sorted(expected), text


@pytest.mark.parametrize(
    "text, expected",
    [
        (AWS_KEY, "AK***LE"),
        ("no secrets", "no secrets"),
        ("mail user@example.com now", "mail us***om now"),
        ("x password=hunter2hunter2 y", "x pa***r2 y"),
        ("é " + AWS_KEY + " ü", "é AK***LE ü"),
    ],
)
def test_redaction_table(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize("value", ["REDACTED", "****", "xxxxxxxx", "<token>", "${TOKEN}", "{{ token }}", "%s", "[FILTERED]", "changeme", "null"])
def test_placeholders_are_nobodys_findings(value):
    added = Scanner([rule for rule in RULES if rule not in ORIGINAL_RULES])
    assert added.scan(f'{{"client_secret": "{value}", "db_pwd": "{value}"}}'.encode()) == []


@pytest.mark.parametrize("prefix", ["\\n", "%3D", "\x1b[31m", '\\"'])
def test_a_token_glued_to_an_escape_is_found(prefix):
    token = "gh" + "p_" + "a1B2c3D4e5F6" * 3
    assert [match.rule.id for match in scan(f"x{prefix}{token} y".encode())] == ["github-token"]


def test_a_urls_credential_is_no_email_address():
    found = scan(b"postgres://app:" + b"s3cr3t-Pass9" + b"@db.example.org:5432/app")
    assert [match.rule.id for match in found] == ["url-credentials"]


def test_no_two_secrets_overlap():
    for text in strings(2000, 11):
        found = sorted(scan(text), key=lambda match: match.secret_start)
        assert all(a.secret_end <= b.secret_start for a, b in zip(found, found[1:])), text


def test_select_rules():
    assert [rule.id for rule in select_rules(RULES, only=["password"])] == ["password"]
    assert len(select_rules(RULES, disable=["password"])) == len(RULES) - 1
    with pytest.raises(RuleError, match="no rule 'nonsense'"):
        select_rules(RULES, only=["nonsense"])


def user_rules(tmp_path, **changes):
    rule = {"id": "ours", "name": "Ours", "severity": "HIGH", "keywords": ["ours-"], "regex": "ours-[0-9]{6}", "examples": ["ours-123456"], **changes}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([rule]))
    return str(path)


def test_users_rules_are_found(tmp_path):
    scanner = Scanner([*RULES, *load_rules(user_rules(tmp_path))])
    assert [match.rule.name for match in scanner.scan(b"x ours-654321 y\nours-1")] == ["Ours"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"regex": "("}, "regex is wrong"),
        ({"examples": ["other"]}, "is not found"),
        ({"keywords": []}, "needs keywords"),
        ({"severity": "LOUD"}, "severity"),
        ({"id": "password"}, "one of ours"),
        ({"group": 3}, "group 3"),
        ({"regex": "(o+u*r*s*-*[0-9]*a*)+$", "keywords": ["ours-"], "examples": ["ours-1aaaaaaaaaaaaaaaaaaa"]}, "too slow"),
    ],
)
def test_a_wrong_users_rule_is_one_sentence(tmp_path, changes, message):
    with pytest.raises(RuleError, match=message):
        load_rules(user_rules(tmp_path, **changes))


def test_document_lists_every_rule():
    assert patterns.rules_markdown(RULES).count("\n| `") == len(RULES)
