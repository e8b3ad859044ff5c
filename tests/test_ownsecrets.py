"""A container's own secrets beside the rules: who reports, at any cut; what is kept of them."""

from __future__ import annotations

import base64
import gc
import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from recorded import RecordedStream
from scripted import stdcopy_frame

import patterns
from _dockeraudit import secretsmemory
from _dockeraudit.ownsecrets import (
    own_secrets,
    says_secret,
    with_own_secrets,
)
from _dockeraudit.rules import Needle
from _dockeraudit.scaninspect import inspect_findings, inspect_text
from _dockeraudit.scanner import Scanner
from _dockeraudit.secretsmemory import SecretsMemory
from _dockeraudit.streams import StreamDemuxer
from _dockeraudit.textscanner import TextScanner
from _dockeraudit.userrules import select_rules
from conftest import splits

SECRET = "Qz7/kH+m=2:wP" + "!x<9Lr&v"
VALUE = SECRET.encode()
WORDS = "correct horse " + "battery staple"
ENV = ["PATH=/usr/bin", "DB_PASSWORD=" + SECRET, "APP_TOKEN=" + WORDS, "LANG=C.UTF-8"]
KEY_BODY = base64.b64encode(random.Random(5).randbytes(500))
KEY_LINES = [
    b"-----BEGIN RSA " + b"PRIVATE KEY-----",
    *(KEY_BODY[at : at + 64] for at in range(0, len(KEY_BODY), 64)),
    b"-----END RSA " + b"PRIVATE KEY-----",
]
KEY_TEXT = b"\n".join(KEY_LINES).decode()


def scanner_of(*env: str) -> Any:
    return with_own_secrets(
        patterns.DEFAULT_SCANNER, own_secrets(env or ENV, patterns.DEFAULT_SCANNER)
    )


def scanned(
    parts: Sequence[bytes], settle: bool = False, scanner: Any = None, stream_type: str = "stdout"
) -> RecordedStream:
    """What is recorded of a text that comes in parts, with a silence after each if `settle`."""
    records = RecordedStream()
    text = TextScanner(scanner or scanner_of(), records, stream_type)
    for part in parts:
        text.feed(part)
        if settle:
            text.settle()
    text.end()
    return records


def known(records: RecordedStream) -> list[tuple[Any, ...]]:
    """What the records say in the end: rule, severity, secret, line and variable."""
    return [(f["id"], f["severity"], f["secret"], f["line"], f["env"]) for f in records.settled]


def found(text: bytes, *env: str) -> list[tuple[Any, ...]]:
    return known(scanned([text], scanner=scanner_of(*env)))


# ================================================================================================
# names
# ================================================================================================


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASSWORD", "PGPASSWORD", "MYSQL_ROOT_PASSWORD", "MYSQL_PWD", "REDIS_PASS", "API_KEY",
        "SECRET_KEY_BASE", "JWT_SECRET", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "dbPassword",
        "AUTH_TOKEN", "client_secret",
    ],
)  # fmt: skip
def test_a_secrets_name_is_known(name: str) -> None:
    assert says_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "LANG", "GPG_KEY", "PUBLIC_KEY", "PASSWORD_FILE", "POSTGRES_PASSWORD_FILE",
        "TOKEN_EXPIRY", "KEY_ID", "KEYBOARD", "AUTHOR", "CACHE_KEY", "SECRET_NAME", "MONKEY",
        "PYTHON_SHA256", "COMPASS_DIR", "PASSWORD_MIN_LENGTH", "TOKENIZERS_PARALLELISM",
    ],
)  # fmt: skip
def test_the_name_of_something_else_is_no_secrets(name: str) -> None:
    assert not says_secret(name)


def test_a_password_in_a_url_is_searched_for_alone() -> None:
    own = own_secrets(
        ["DATABASE_URL=postgres://app:kW3-nR8-vT5@db:5432/app"], patterns.DEFAULT_SCANNER
    )
    assert own.needles == (Needle("DATABASE_URL", b"kW3-nR8-vT5"),)


# ================================================================================================
# who reports
# ================================================================================================


def test_a_secret_of_no_known_shape_is_found_in_a_sentence() -> None:
    assert found(b"one\ncould not log in with " + VALUE + b", giving up\n") == [
        ("container-env", "HIGH", VALUE, 2, "DB_PASSWORD")
    ]


@pytest.mark.parametrize(
    "text, rule",
    [
        (b"password=" + b"kW3nR8vT5xZ1", "password"),
        (b"postgres://app:" + b"kW3nR8vT5xZ1" + b"@db/app", "url-credentials"),
        (b"Authorization: Basic " + base64.b64encode(b"app:" + b"kW3nR8vT5xZ1"), "basic-auth"),
    ],
)
def test_a_rule_that_finds_it_reports_once_with_the_variable_and_the_plain_fingerprint(
    text: bytes, rule: str
) -> None:
    value = b"kW3nR8vT5xZ1"
    assert found(text + b"\n", "DB_PASSWORD=" + value.decode()) == [
        (rule, "HIGH", value, 1, "DB_PASSWORD")
    ]


def test_a_rule_that_sees_a_part_of_the_secret_says_how_far_all_of_it_reaches() -> None:
    line = b"password=" + b"abcDEF12" + b",3-4;5 ok\n"
    (match,) = scanner_of("DB_PASSWORD=" + "abcDEF12" + ",3-4;5").scan_lines(line)
    assert match.rule.id.startswith("password") and match.needle
    start, end = match.union or (match.secret_start, match.secret_end)
    assert line[start:end] == b"abcDEF12" + b",3-4;5"


def test_a_weak_finding_becomes_high_and_its_placeholder_none() -> None:
    ((rule, severity, secret, _, env),) = found(b"password=Tr0ub4dor\n", "DB_PASSWORD=Tr0ub4dor")
    assert (rule, severity, secret, env) == ("password", "HIGH", b"Tr0ub4dor", "DB_PASSWORD")


def test_a_longer_secret_that_holds_it_is_reported_as_itself() -> None:
    claims = b'{"sub":"app","password":"' + VALUE + b'","more":"' + b"x" * 200 + b'"}'
    parts = (b'{"alg":"HS256","typ":"JWT"}', claims, bytes(range(1, 33)))
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    records = known(scanned([b"token " + token + b"\n"]))
    assert sorted(rule for rule, *_ in records) == ["container-env", "json-web-token"]
    assert {secret for rule, _, secret, *_ in records} == {VALUE, token}


def test_two_variables_on_a_line_are_two_findings() -> None:
    line = VALUE + b" and " + WORDS.encode() + b"\n"
    assert [(env, secret) for *_, secret, _, env in found(line)] == [
        ("DB_PASSWORD", VALUE),
        ("APP_TOKEN", WORDS.encode()),
    ]


def test_nothing_of_the_match_is_shown() -> None:
    (finding,) = scanned([b"see " + VALUE + b"\n"]).findings
    assert finding["match"] == b""


def test_another_containers_text_is_not_searched() -> None:
    assert found(b"see " + VALUE + b"\n", "DB_PASSWORD=another-7-value") == []


@pytest.mark.parametrize("ids", [["container-env"], ["email-address", "container-env"]])
def test_without_the_rule_nothing_is_added(ids: list[str]) -> None:
    plain = Scanner(select_rules(patterns.RULES, disable=ids))
    assert with_own_secrets(plain, own_secrets(ENV, plain)) is plain


def test_a_container_without_secrets_costs_nothing() -> None:
    plain = patterns.DEFAULT_SCANNER
    assert with_own_secrets(plain, own_secrets(["PATH=/usr/bin"], plain)) is plain
    assert with_own_secrets(plain, None) is plain


def test_no_text_of_an_object_shows_a_value() -> None:
    own = own_secrets(ENV, patterns.DEFAULT_SCANNER)
    (match,) = scanner_of().scan(b"see " + VALUE)
    said = "".join(map(repr, [own, own.needles, own.haystack, scanner_of(), match]))
    assert SECRET not in said and WORDS not in said and "DB_PASSWORD" in said


# ================================================================================================
# cuts
# ================================================================================================


def forms(value: str) -> list[bytes]:
    """A value as programs write it."""
    raw = value.encode()
    return [
        raw,
        base64.b64encode(raw),
        base64.b64encode(b"ab" + raw + b"c"),
        quote(value, safe="").encode(),
        json.dumps({"k": value}).encode(),
        json.dumps({"k": json.dumps({"k": value})}).encode(),
        b"password=" + raw,
        b"DATABASE_URL=postgres://app:" + quote(value, safe="").encode() + b"@db/app",
        b"Authorization: Basic " + base64.b64encode(b"app:" + raw),
        b"AK" + b"IA" + b"IOSFODNN7EXAMPLE " + raw,
    ]


TEXT = b"".join(
    b"%d INFO before %b after\n" % (number, form)
    for number, form in enumerate(forms(SECRET) + forms(WORDS))
)


def test_each_form_is_found_once_on_its_line() -> None:
    records = found(TEXT)
    own = [(line, secret) for _, _, secret, line, env in records if env]
    assert own == [(n + 1, (VALUE if n < 10 else WORDS.encode())) for n in range(20)]


@pytest.mark.parametrize("settle", [False, True], ids=["flowing", "with silences"])
def test_the_same_is_known_in_the_end_wherever_the_text_is_cut(settle: bool) -> None:
    whole = known(scanned([TEXT]))
    for parts in splits(TEXT, rounds=60):
        assert sorted(known(scanned(parts, settle))) == sorted(whole)


def test_a_silence_at_any_byte_of_a_line_changes_nothing_of_what_is_known_in_the_end() -> None:
    for form in forms(SECRET):
        line = b"x " + form + b" y\n"
        whole = known(scanned([line]))
        for cut in range(1, len(line)):
            assert known(scanned([line[:cut], line[cut:]], settle=True)) == whole, (form, cut)


def test_frames_that_cut_it_anywhere_change_nothing() -> None:
    line = b"see " + VALUE + b" here\n"
    for cut in range(1, len(line)):
        demuxer, records = StreamDemuxer("multiplexed"), RecordedStream()
        text = TextScanner(scanner_of(), records, "stderr")
        for part in (line[:cut], line[cut:]):
            for _, data in demuxer.feed(stdcopy_frame(2, part)):
                text.feed(data)
        text.end()
        assert known(records) == [("container-env", "HIGH", VALUE, 1, "DB_PASSWORD")]


def test_in_a_line_of_any_length_each_is_found_once() -> None:
    rng = random.Random(3)
    for _ in range(20):
        line = b"".join(b"." * rng.randrange(30_000) + VALUE for _ in range(12)) + b"\n"
        parts = [line[at : at + 5000] for at in range(0, len(line), 5000)]
        assert [f["secret"] for f in scanned(parts).settled] == [VALUE] * 12


# ================================================================================================
# values of several lines
# ================================================================================================


def test_a_private_key_is_reported_once_by_its_rule_and_names_the_variable() -> None:
    env = "TLS_KEY_SECRET=" + KEY_TEXT
    text = b"before\n" + KEY_TEXT.encode() + b"\nafter\n"
    ((rule, _, secret, line, variable),) = found(text, env)
    assert (rule, line, variable) == ("private-key", 2, "TLS_KEY_SECRET")
    assert secret == b"".join(KEY_LINES[1:-1])
    for parts in splits(text):
        records = scanned(parts, settle=True, scanner=scanner_of(env))
        assert known(records) == found(text, env)


def test_a_key_on_one_line_is_reported_once() -> None:
    env = "TLS_KEY_SECRET=" + KEY_TEXT
    line = json.dumps({"level": "debug", "key": KEY_TEXT}).encode() + b"\n"
    assert [(f["id"], f["env"]) for f in scanned([line], scanner=scanner_of(env)).findings] == [
        ("private-key-inline", "TLS_KEY_SECRET")
    ]


def test_a_key_behind_a_logs_prefix_is_reported_once() -> None:
    env = "TLS_KEY_SECRET=" + KEY_TEXT
    lines = b"".join(b"2026-01-01 app | " + line + b"\n" for line in KEY_LINES)
    assert [f["id"] for f in scanned([lines], scanner=scanner_of(env)).findings] == ["private-key"]


def test_a_line_of_a_key_is_found_without_its_header() -> None:
    env = "TLS_KEY_SECRET=" + KEY_TEXT
    assert found(b"key is " + KEY_LINES[3] + b"\n", env) == [
        ("container-env", "HIGH", KEY_LINES[3], 1, "TLS_KEY_SECRET")
    ]


def test_another_key_is_none_of_the_containers_own() -> None:
    env = "TLS_KEY_SECRET=" + KEY_TEXT
    other = b"\n".join([KEY_LINES[0], b"z" * 64, KEY_LINES[-1]]) + b"\n"
    assert [(rule, variable) for rule, _, _, _, variable in found(other, env)] == [
        ("private-key", None)
    ]


def test_a_key_that_an_env_file_holds_on_one_line_is_found_line_by_line() -> None:
    env = "TLS_KEY_SECRET=" + KEY_TEXT.replace("\n", "\\n")
    assert [secret for _, _, secret, _, _ in found(b"x " + KEY_LINES[3] + b"\n", env)] == [
        KEY_LINES[3]
    ]


# ================================================================================================
# hostile
# ================================================================================================


def test_a_block_full_of_it_costs_time_linear_in_its_size() -> None:
    scanner = scanner_of("A_PASSWORD=abababab1", "B_PASSWORD=QQQQQQQQ7")
    for text, holds in (
        (b"abababab1" * 30_000, True),
        (b"Q" * 270_000, False),
        (b"QQQQQQQQ7 " * 27_000, True),
    ):
        own = [match for match in scanner.scan_lines(text) if match.needle]
        assert bool(own) is holds


# ================================================================================================
# memory
# ================================================================================================


def memory() -> SecretsMemory:
    return SecretsMemory(lambda: patterns.DEFAULT_SCANNER)


def test_the_same_containers_secrets_are_read_once() -> None:
    kept = memory()
    own = kept.learn("a" * 64, ENV)
    assert own is not None and own.needles
    assert kept.learn("a" * 64, list(ENV)) is own is kept.get("a" * 64)
    assert kept.get("b" * 64) is None


def test_another_env_of_a_service_is_read_anew() -> None:
    kept = memory()
    assert kept.learn("s1", ENV) is not kept.learn("s1", ["DB_PASSWORD=another-7-value"])


def test_a_bounded_number_of_containers_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secretsmemory, "MOST_CONTAINERS", 3)
    kept = memory()
    for number in range(5):
        kept.learn(f"{number}" * 64, ENV)
    assert len(kept) == 3 and kept.get("0" * 64) is None and kept.get("4" * 64)


def test_a_bounded_number_of_bytes_is_kept_and_what_nobody_reads_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secretsmemory, "MOST_BYTES", 100_000)
    kept, readers = memory(), []
    for number in range(60):
        own = kept.learn(f"{number:064}", [f"DB_PASSWORD=value-of-{number}-" + "x7" * 1000])
        readers.append(own if number < 2 else None)
        assert kept.size <= 100_000
    assert readers[0] and readers[1], "those that are read stay"
    assert kept.get(f"{59:064}") and kept.get(f"{0:064}") is None


def test_where_those_that_are_read_fill_the_memory_the_others_count_as_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secretsmemory, "MOST_BYTES", 30_000)
    kept = memory()
    readers = [kept.learn(str(n), [f"DB_PASSWORD=value-{n}-" + "x7" * 1000]) for n in range(9)]
    assert kept.size <= 30_000
    last = readers[-1]
    assert last is not None and (last.needles, last.skipped) == ((), 1)


def test_secrets_that_nobody_reads_or_keeps_are_gone() -> None:
    kept = memory()
    own = kept.learn(None, ENV)
    assert kept.size and len(kept) == 0
    del own
    gc.collect()
    assert kept.size == 0


def test_other_rules_read_all_anew() -> None:
    rules = [patterns.DEFAULT_SCANNER]
    kept = SecretsMemory(lambda: rules[0])
    own = kept.learn("a" * 64, ENV)
    rules[0] = Scanner(select_rules(patterns.RULES, disable=["email-address"]))
    assert kept.get("a" * 64) is None and kept.learn("a" * 64, ENV) is not own


def test_nothing_is_read_where_that_is_turned_off() -> None:
    kept = SecretsMemory(lambda: None)
    assert kept.learn("a" * 64, ENV) is None and kept.get("a" * 64) is None


@pytest.mark.parametrize("env", [None, "DB_PASSWORD=x", {"a": 1}, [None, 7, ["x"], {}]])
def test_an_env_of_another_type_holds_no_secrets(env: Any) -> None:
    own = memory().learn("a" * 64, env)
    assert own is not None and not own


# ================================================================================================
# what inspect shows
# ================================================================================================


def inspected(**config: Any) -> list[tuple[Any, ...]]:
    """What is found in the inspect of a container with the secrets of ENV."""
    answer = {"Id": "a" * 64, "Config": {"Env": ENV, **config}}
    return [
        (found.match.rule.id, found.secret, found.match.needle and found.match.needle.env)
        for found in inspect_findings(answer, scanner_of())
    ]


def test_what_env_lists_is_found_by_the_other_rules_alone() -> None:
    assert [rule for rule, *_ in inspected()] == [rule for rule, *_ in inspected(Labels={})]
    assert "container-env" not in [rule for rule, *_ in inspected()]


def test_a_secret_elsewhere_in_an_inspect_is_found() -> None:
    (found,) = [each for each in inspected(Cmd=["run", WORDS]) if each[0] == "container-env"]
    assert found == ("container-env", WORDS.encode(), "APP_TOKEN")


def test_the_line_is_the_one_that_docker_inspect_prints() -> None:
    answer = {"Config": {"Env": ENV, "Cmd": ["run", WORDS], "Labels": {"a": "b"}}}
    printed = json.dumps([answer], indent=4).splitlines()
    text, first, last = inspect_text(answer)
    assert text.decode().splitlines() == printed
    assert json.loads("[" + text[first:last].decode() + "]") == ENV
    for found in inspect_findings(answer, scanner_of()):
        if found.match.rule.find == "env":
            assert WORDS in printed[found.line - 1]


@pytest.mark.parametrize("answer", [None, [], {}, {"Config": None}, {"Config": {"Env": "x"}}])
def test_an_inspect_of_another_shape_shows_nothing(answer: Any) -> None:
    assert list(inspect_findings(answer, scanner_of())) == []
