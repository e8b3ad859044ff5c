"""A container's own secrets: which values are searched for, and in which forms they are found."""

from __future__ import annotations

import base64
import json
import random
import re
import string
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

import pytest

from _dockeraudit.needles import MOST_NEEDLES, Haystack, Needle, is_needle, needles_of


def says_secret(name: str) -> bool:
    return name.endswith(("PASSWORD", "TOKEN", "SECRET"))


def no_spans(value: bytes) -> Iterable[tuple[int, int]]:
    return ()


def values(*env: object) -> list[bytes]:
    return [needle.value for needle in needles_of(env, says_secret, no_spans)[0]]


def test_the_name_decides_and_a_value_of_any_shape_counts() -> None:
    env = (
        "DB_PASSWORD=tr0ub4dor-and-3",
        "GREETING=tr0ub4dor-and-4",
        "API_TOKEN=all lower case words",
    )
    assert values(*env) == [b"tr0ub4dor-and-3", b"all lower case words"]


def test_secrets_that_rules_find_in_a_value_count_whatever_its_name() -> None:
    url = "postgres://app:" + "s3cr3t-of-app" + "@db/app"

    def password(value: bytes) -> Iterable[tuple[int, int]]:
        start = value.find(b"s3cr3t")
        return [(start, start + 13)] if start >= 0 else []

    found, _ = needles_of(["DATABASE_URL=" + url], says_secret, password)
    assert found == [Needle("DATABASE_URL", b"s3cr3t-of-app")]


def test_quotes_around_a_value_are_not_the_secrets() -> None:
    assert values("DB_PASSWORD='quoted-s3cret'", 'API_TOKEN="other-s3cret"') == [
        b"quoted-s3cret",
        b"other-s3cret",
    ]


def test_of_several_lines_each_long_one_counts() -> None:
    lines = ["MIIEvQIBADANBgkqhkiG", "short", "9w0BAQEFAASCBKcwggSj"]
    assert values("TLS_SECRET=" + "\n".join(lines)) == [lines[0].encode(), lines[2].encode()]


@pytest.mark.parametrize(
    "value",
    [
        "short", "changeme", "********", "xxxxxxxxxxxx", "password", "12345678", "10.0.0.1:5432",
        "/run/secrets/db", "./config/app.yaml", "v1.22.333-rc1", "production", "<your-password>",
        "${DB_PASSWORD}", "sha256:" + "ab" * 32, "x" * 4097, "db_password",
    ],
)  # fmt: skip
def test_what_is_plainly_no_secret_is_not_searched_for(value: str) -> None:
    assert not is_needle("DB_PASSWORD", value.encode())


@pytest.mark.parametrize(
    "value", ["correct horse battery", "productionxyz", "a1b2c3d4", "12345678a", "päßwörter"]
)
def test_what_may_be_a_secret_is(value: str) -> None:
    assert is_needle("DB_PASSWORD", value.encode())


def test_a_bounded_number_is_kept_and_the_rest_counted() -> None:
    env = [f"X{number}_PASSWORD=value-number-{number:04}" for number in range(MOST_NEEDLES + 5)]
    needles, skipped = needles_of(env, says_secret, no_spans)
    assert len(needles) == MOST_NEEDLES and skipped == 5
    assert needles[0].env == "X0_PASSWORD"


def test_entries_that_are_no_variables_are_passed_over() -> None:
    assert values("DB_PASSWORD", None, 7, "=nothing-at-all", "DB_PASSWORD=tr0ub4dor-and-3") == [
        b"tr0ub4dor-and-3"
    ]


def lower_escapes(text: str) -> str:
    return re.sub("%..", lambda escape: escape.group().lower(), text)


def written(secret: str, rng: random.Random) -> dict[str, bytes]:
    """A line for each form in which programs print a secret."""
    raw = secret.encode()
    pair = base64.b64encode(b"u" * rng.randrange(3) + b":" + raw)
    go = (
        json.dumps(secret, ensure_ascii=False)[1:-1]
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )
    return {
        "plain": raw,
        "base64": base64.b64encode(raw),
        "base64 of a pair": pair,
        "url-safe base64": base64.urlsafe_b64encode(raw).rstrip(b"="),
        "percent": quote(secret, safe="").encode(),
        "percent, lower": lower_escapes(quote(secret, safe="")).encode(),
        "form": quote_plus(secret).encode(),
        "json": json.dumps(secret).encode(),
        "json in json": json.dumps({"body": json.dumps({"k": secret})}).encode(),
        "go": go.encode(),
        "php": json.dumps(secret, ensure_ascii=False)[1:-1].replace("/", "\\/").encode(),
    }


def test_each_form_of_a_thousand_secrets_is_found_once() -> None:
    rng = random.Random(7)
    alphabet = string.ascii_letters + string.digits + "!@#$%^&*/+=<>\"' ü"
    for _ in range(1000):
        secret = "".join(rng.choice(alphabet) for _ in range(rng.randrange(8, 40))).strip() + "Q7"
        needle = Needle("DB_PASSWORD", secret.encode())
        haystack = Haystack([needle])
        for form, text in written(secret, rng).items():
            line = b"2026-01-01 INFO value=" + text + b" done\n"
            sights = haystack.find(line)
            assert len(sights) == 1, (form, len(sights))
            start, end = len(b"2026-01-01 INFO value="), len(line) - len(b" done\n")
            assert start <= sights[0].start and sights[0].end <= end, form


def test_sights_are_sorted_and_do_not_overlap() -> None:
    long, short = Needle("A_SECRET", b"abcdef-ghijkl-7"), Needle("B_SECRET", b"ghijkl-7")
    sights = Haystack([short, long]).find(b"ghijkl-7 abcdef-ghijkl-7 abcdef-ghijkl-7")
    assert [sight.needle.env for sight in sights] == ["B_SECRET", "A_SECRET", "A_SECRET"]
    assert [sight.start for sight in sights] == [0, 9, 25]


def test_nothing_is_found_in_other_text() -> None:
    haystack = Haystack([Needle("DB_PASSWORD", b"tr0ub4dor-and-3")])
    assert haystack.find(b"tr0ub4dor-and-4 " * 5000) == [] and Haystack([]).find(b"any") == []
