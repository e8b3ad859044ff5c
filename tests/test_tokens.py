"""Tokens of providers: formats that their documentation shows, and what only looks like one."""

from __future__ import annotations

import base64
import re

import pytest

from _dockeraudit.rules import UUID, shape_sample
from patterns import PUBLISHABLE, RULES, scan

JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + shape_sample("{w60}.{w43}")
FOUND = [
    ("BSA" + shape_sample("{w28}"), "brave-key"),
    ("sk-lf-" + shape_sample(UUID), "langfuse-key"),
    ("napi_" + shape_sample("{a64}"), "neon-key"),
    ("ak_" + shape_sample("{U1}{d1}{a18}"), "composio-key"),
    ("tk_" + shape_sample("{l29}"), "ntfy-token"),
    ("ghs_" + shape_sample("{d7}") + "_" + JWT, "github-token"),
    ("syt_" + shape_sample("{w8}_{a20}_{a6}"), "matrix-token"),
    ("K10" + shape_sample("{h64}::server:{h32}"), "k3s-token"),
    ("AAEAAWVsYXN0aWMv" + shape_sample("{w60}"), "elastic-service-token"),
    ("eyJ2ZXIiOi" + shape_sample("{b120}"), "elastic-enrollment-token"),
    ("eyJhIjoi" + shape_sample("{b150}"), "cloudflare-tunnel-token"),
    ("AAAA" + shape_sample("{w7}:APA91b{w134}"), "fcm-server-key"),
    ("AstraCS:" + shape_sample("{a24}:{h64}"), "astra-token"),
    ("$aact_prod_" + shape_sample("{a160}"), "asaas-key"),
    ("sk_live_a2V5Xz" + shape_sample("{b69}") + "=", "workos-key"),
    ("0." + shape_sample(UUID + ".{a30}:{b22}") + "==", "bitwarden-token"),
    ("IQoJb3JpZ2lu" + shape_sample("{b300}") + "==", "aws-session-token"),
    ("glpat-" + shape_sample("{w27}.{l2}.{l9}"), "gitlab-token"),
]


@pytest.mark.parametrize("token, rule", FOUND, ids=[rule for _, rule in FOUND])
@pytest.mark.parametrize("text", ["key {} was refused", "X_TOKEN='{}'", "{}", '{{"a":"{}"}}'])
def test_a_token_is_found_whole_wherever_it_stands(text, token, rule):
    block = text.format(token).encode()
    found = [(match.rule.id, block[match.secret_start : match.secret_end]) for match in scan(block)]
    assert found == [(rule, token.encode())]


LOOK_ALIKES = [
    "BSA_members_directory_export_2024",
    "ak_session_store_cookie_name ak_something_like_this1",
    "md-icon-button-container md-select-menu-container1",
    "polar_area_chart_options_and_more_of_them",
    "secret_admin_settings_page_with_long_name",
    "tss_create_wrapper_function_name_for_tests",
    "node-11" + shape_sample("{h30}"),
    "sha256:" + shape_sample("{h64}") + " tk_" + shape_sample("{l28}"),
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_names_of_a_tokens_beginning_are_left_alone(text):
    assert scan(text.encode()) == []


@pytest.mark.parametrize("rule", PUBLISHABLE, ids=lambda rule: rule.id)
def test_a_publishable_key_is_low_and_says_so(rule):
    assert rule.severity == "LOW" and "publishable" in rule.name
    for example in rule.examples:
        assert [match.rule.id for match in scan(example.encode())] == [rule.id]


def test_every_rule_that_says_publishable_is_low():
    named = [rule for rule in RULES if "publishable" in rule.name]
    assert len(named) > len(PUBLISHABLE) and {rule.severity for rule in named} == {"LOW"}


def test_the_secret_beside_a_publishable_key_keeps_its_severity():
    secret = "RECAPTCHA_SECRET_KEY=" + shape_sample("6L{w38}")
    assert all(match.rule.id != "recaptcha-site-key" for match in scan(secret.encode()))
    key = f"https://{shape_sample('{h32}')}:{shape_sample('{h32}', 2)}@sentry.example.org/7"
    assert [match.rule.id for match in scan(key.encode())] == ["url-credentials"]


KINDS = ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP "]


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_key_in_base64_is_found_whole(kind):
    text = base64.b64encode(f"-----BEGIN {kind}PRIVATE KEY-----\n{'MIIEvQ' * 30}\n".encode())
    block = b"client-key-data: " + text + b"\n"
    found = [(match.rule.id, block[match.secret_start : match.secret_end]) for match in scan(block)]
    assert found == [("private-key-base64", text)]


@pytest.mark.parametrize(
    "kind",
    [
        "CERTIFICATE",
        "PUBLIC KEY",
        "RSA PUBLIC KEY",
        "CERTIFICATE REQUEST",
        "X509 CRL",
        "DH PARAMETERS",
    ],
)
def test_other_pem_in_base64_is_nothing(kind):
    text = base64.b64encode(f"-----BEGIN {kind}-----\n{'MIIEvQ' * 30}\n".encode()).decode()
    assert scan(f"certificate-authority-data: {text}\nca.crt: {text}\n".encode()) == []


def test_each_rule_names_where_its_format_is_described():
    for rule in RULES:
        assert re.search(r"\w", rule.reference), rule.id
