"""Whether a name names a secret, and whether a value is one."""

from __future__ import annotations

import pytest

from _dockeraudit.names import Kind, name_kind
from _dockeraudit.plausibility import (
    is_generated,
    is_placeholder,
    is_random,
    is_status,
    is_typed,
)
from _dockeraudit.rules import shape_sample

#: a name, its secret word, what it names
NAMES = [
    ("DB_PASSWORD", "PASSWORD", Kind.PASSWORD),
    ("CACHE_REDIS_PASS", "PASS", Kind.PASSWORD),
    ("VNC_PW", "PW", Kind.PASSWORD),
    ("userPassword", "Pass", Kind.PASSWORD),
    ("PGPASSWORD", "PASSWORD", Kind.PASSWORD),
    ("requirepass", "pass", Kind.PASSWORD),
    ("NEXTAUTH_SECRET", "SECRET", Kind.SECRET),
    ("S3_BUCKET_SECRET_KEY", "SECRET", Kind.SECRET),
    ("X-API-Key", "Key", Kind.SECRET),
    ("clientSecret", "Secret", Kind.SECRET),
    ("RABBITMQ_ERLANG_COOKIE", "COOKIE", Kind.SECRET),
    ("AUTH_SALT", "SALT", Kind.SECRET),
    ("primaryKey", "Key", Kind.BARE),
    ("key", "key", Kind.BARE),
    ("secret_dct", "secret", Kind.LOOSE),
    ("password_hash", "pass", Kind.NONE),
    ("PASSWORD_FILE", "PASS", Kind.NONE),
    ("token_type", "token", Kind.NONE),
    ("secretName", "secret", Kind.NONE),
    ("cache_key", "key", Kind.NONE),
    ("public_key", "key", Kind.NONE),
    ("monkey", "key", Kind.NONE),
    ("bypass", "pass", Kind.NONE),
    ("csrf_token", "token", Kind.NONE),
    ("next_page_token", "token", Kind.NONE),
    ("api_key_id", "key", Kind.NONE),
]


@pytest.mark.parametrize("name, word, kind", NAMES)
def test_a_name_is_judged_by_its_words(name: str, word: str, kind: str) -> None:
    assert name_kind(name.encode(), name.index(word)) == kind


def test_the_word_before_a_name_may_say_whose_key_it_is() -> None:
    assert name_kind(b"key", 0, b"public") == Kind.NONE
    assert name_kind(b"Key", 0, b"private") == Kind.SECRET


@pytest.mark.parametrize(
    "value",
    [
        "REDACTED", "****", "xxxxxxxx", "<token>", "${TOKEN}", "{{ token }}", "%s", "[FILTERED]",
        "null", "changeme", "%DB_PASSWORD%", "\u2022" * 8, "!vault", ":password", "your-api-key",
        "process.env.X",         "getPassword()", "/run/secrets/x", "0123456789abcdef",
    ],
)  # fmt: skip
def test_placeholders_and_references_are_no_secrets(value: str) -> None:
    assert is_placeholder(value.encode())


@pytest.mark.parametrize(
    "value", ["tr0ub4dor&3", "K8Ux(grs", "@Home2024", "#1Secure", "S3cr3tOrbit"]
)
def test_passwords_are_no_placeholders(value: str) -> None:
    assert not is_placeholder(value.encode())


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-02T03:04:05Z", "10.0.0.7:8080", "https://example.org/a1", "/var/lib/app1",
        "app.min.js", "v1.25.4", "sha256:0a1b2c3d4e", "0x14ed93111f20005", "ssh2",
        "unix_socket", "worker-12",
        "2001:db8::b6d3:95d7", "0f8fad5b-d9cb-469f-a165-70867728950e", "name=value1",
    ],
)  # fmt: skip
def test_what_stands_in_sentences_is_not_taken_for_a_password(value: str) -> None:
    assert not is_generated(value.encode())


@pytest.mark.parametrize("shape", ["{U1}{l5}{U1}{d2}{a4}", "{a16}", "{h32}", "{l4}{d2}{U2}!{l3}"])
def test_what_generators_make_looks_generated(shape: str) -> None:
    for seed in range(50):
        value = shape_sample(shape, seed).encode()
        if any(48 <= byte <= 57 for byte in value):
            assert is_generated(value) or is_typed(value), value


def test_what_follows_a_password_prompt_may_say_how_it_fared() -> None:
    assert all(map(is_status, (b"incorrect", b"accepted", b"already-set", b"Required")))
    assert not is_status(b"hunter2")


def test_random_values_are_told_from_names() -> None:
    assert is_random(shape_sample("{a32}").encode()) and is_random(shape_sample("{h32}").encode())
    assert not is_random(b"my-database-secret-name")
