"""The rules: their own examples, the six originals against plain finditer, cuts, placeholders."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import patterns
from _dockeraudit import rules, userrules
from _dockeraudit.scanner import Scanner
from patterns import ORIGINAL_RULES, RULES, check, redact, scan

AWS_KEY = "AK" + "IA" + "IOSFODNN7EXAMPLE"
PIECES = [
    b"AKIA",
    b"api",
    b"_key",
    b"=",
    b":",
    b" ",
    b'"',
    b"'",
    b"-----BEGIN",
    b" PRIVATE",
    b" KEY-----",
    b" RSA",
    b"@",
    b".",
    b"a",
    b"com",
    b"bearer",
]
PIECES += [
    b"Password",
    b"x" * 20,
    b"ABCDEFGHIJKLMNOP",
    b"\n",
    b"-",
    b"\t",
    b"token: ",
    b"\\n",
    b"%3D",
    b"\x1b[31m",
]


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
        assert [tuple(match[1:5]) for match in scanner.scan(text)] == expected, text


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


@pytest.mark.parametrize(
    "value",
    [
        "REDACTED",
        "****",
        "xxxxxxxx",
        "<token>",
        "${TOKEN}",
        "{{ token }}",
        "%s",
        "[FILTERED]",
        "changeme",
        "null",
    ],
)
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


def made(shape, seed=3):
    """A made-up value, so that nothing token-shaped stands in this file."""
    return rules.shape_sample(shape, seed)


VALUE = made("{a40}")
HEX = made("{h32}")
FOUND = [
    ("password in JSON", '{"user":"app","password":"Zq8x-W2mK"}', "keyed-password"),
    ("password in JSON in JSON", '{"msg":"{\\"password\\": \\"Zq8x-W2mK\\"}"}', "keyed-password"),
    ("password in YAML", "  db_passwd: Zq8x-W2mK", "keyed-password"),
    ("password in an option", "mysqldump --password='Zq8x W2mK'", "keyed-secret-weak"),
    ("password in an element", "<dbPassword>Zq8x-W2mK</dbPassword>", "keyed-password"),
    (
        "environment as names and values",
        '[{"name":"DB_PASSWORD","value":"Zq8x-W2mK"}]',
        "keyed-password",
    ),
    ("arguments", f'setenv("APP_CLIENT_SECRET", "{VALUE}")', "keyed-secret"),
    ("logfmt", f"level=info client_secret={VALUE} took=3ms", "keyed-secret"),
    ("colours", f"\x1b[36mclient_secret\x1b[0m=\x1b[33m{VALUE}\x1b[0m", "keyed-secret"),
    ("percent-encoding", f"GET /?q=client_secret%3D{VALUE}%26a", "keyed-secret"),
    ("a service's shape", f"DATADOG_API_KEY={made('{a40}')}", "datadog-key"),
    ("a known service", f"weatherstack_key={made('{l32}')}", "keyed-secret-weak"),
    (
        "a known service without an operator",
        f"using todoist token {made('{h40}')} now",
        "keyed-secret-weak",
    ),
    (
        "Docker's config.json",
        '{"auths":{"r.example":{"auth":"' + "cm9ib3Q6" + "WnE4eC1XMm1L" + '"}}}',
        "keyed-secret",
    ),
    ("a URL's credential", "amqp://app:Zq8x-W2mK@queue.internal:5672/", "url-credentials"),
    (
        "a hook",
        "POST https://hooks.slack.com/services/" + made("T{u9}/B{u9}/{a24}"),
        "slack-webhook",
    ),
    ("curl", "+ curl -s -u deploy:Zq8xW2mK https://r.example/v2/", "curl-user"),
    ("a token before a dot", "key SG." + made("{a22}.{a43}") + " used", "sendgrid-key"),
    ("a mark inside", "value " + made("{a3}8Q~{a34}"), "azure-entra-secret"),
    ("a password's hash", "root:" + made("$6${a16}${a86}") + ":19000:", "password-hash"),
    ("a key on one line", patterns.INLINE_KEY.examples[0], "private-key-inline"),
]
NOTHING = [
    "component=cache-key id=0f8fad5b-d9cb-469f-a165-70867728950e took=3ms",
    f'"cache_key":"user:7:{HEX}" trace_id={HEX} etag="{HEX}" digest=sha256:{HEX}{HEX}',
    f"partition_key={HEX} idempotency-key: 0f8fad5b-d9cb-469f-a165-70867728950e",
    "key=exports/0f8fad5b-d9cb-469f-a165-70867728950e",
    "token_type=bearer expires_in=3600 token_id=0f8fad5b-d9cb-469f-a165-70867728950e",
    'secret "db-credentials-2" not found in namespace "prod"',
    "PASSWORD_FILE=/run/secrets/db_password API_KEY=${API_KEY} PWD=/home/app TOKEN=$TOKEN",
    '"password":"__REDACTED__","token":"***","secret":"[FILTERED]","api_token":"<your token>"',
    "Bad activity token: android.os.BinderProxy@2bd79ce",
    "no auth provider for key AuthorizationKey@2bd79ce",
    "raise InvalidTokenError('token expired') at auth/tokens.py:17",
    '{"metric_name":"login.failed_invalid_password","auth_method":"password","auth_args":{}}',
    "--- PASS: test_login_2 (0.01s)",
    f"public_key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{made('{a43}')}",
    "authentication failure; logname= uid=0 user=root; check pass; user unknown",
    f"GET /img/box.ico-{HEX}.png HTTP/1.1",
    "sshd: Failed password for invalid user admin from 10.0.0.7 port 22 ssh2",
]


@pytest.mark.parametrize("text, rule", [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_secrets_as_logs_show_them_are_found_once(text, rule):
    assert [match.rule.id for match in scan(text.encode())] == [rule]


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_a_secret_is_left_alone(text):
    assert [(match.rule.id, text[match.start : match.end]) for match in scan(text.encode())] == []


def test_severities_follow_what_is_known():
    severity = {rule.id: rule.severity for rule in RULES}
    assert {severity[rule.id] for rule in ORIGINAL_RULES} == {"HIGH", "LOW"}
    assert severity["email-address"] == severity["keyed-secret-weak"] == "LOW"
    assert (
        severity["keyed-secret"]
        == severity["keyed-password"]
        == severity["json-web-token"]
        == "MEDIUM"
    )
    assert (
        severity["github-token"]
        == severity["url-credentials"]
        == severity["private-key-other"]
        == "HIGH"
    )


def test_published_keys_are_no_secrets():
    key = "AI" + "za" + "SyAO_FJ2SlqU8Q4STEHLGCilw_Y9_11qcW8"
    assert scan(key.encode()) == []
    assert [match.rule.id for match in scan((key[:-1] + "9").encode())] == ["google-api-key"]


@pytest.mark.full
@pytest.mark.parametrize("rule", ORIGINAL_RULES, ids=lambda rule: rule.id)
def test_originals_are_identical_to_plain_finditer_at_length(rule):
    scanner, plain = Scanner([rule]), re.compile(rule.pattern)
    for text in strings(500_000, rule.id):
        assert [tuple(match[1:5]) for match in scanner.scan(text)] == [
            match.span() + match.span(rule.group) for match in plain.finditer(text)
        ], text


def test_document_is_current():
    document = Path(__file__).parent.parent / "docs" / "rules.md"
    assert document.read_text() == userrules.rules_markdown(RULES), "run `make docs`"


def test_document_lists_every_rule():
    assert userrules.rules_markdown(RULES).count("\n| `") == len(RULES)
