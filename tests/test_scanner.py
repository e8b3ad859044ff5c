"""All rules on blocks of bytes: what containers print, values below their names, identity, cost."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from _dockeraudit import wordfinder
from _dockeraudit.rules import Match, shape_sample
from _dockeraudit.scanner import Scanner
from patterns import ORIGINAL_RULES, RULES, scan
from tests.container_lines import LOOK_ALIKES, TABLE, lines_with_secrets

SCANNER = Scanner(RULES)
PASSWORD = shape_sample("{U1}{l5}{U1}{d2}{a4}", 7)
HEX = shape_sample("{h32}", 7)


def secrets(matches: list[Match], block: bytes) -> list[bytes]:
    return [block[match.secret_start : match.secret_end] for match in matches]


# -- what containers print


@pytest.mark.parametrize("kind", TABLE)
def test_secrets_that_containers_print_are_found_whole_and_at_medium_or_above(kind: str) -> None:
    for line in lines_with_secrets():
        if line.kind == kind:
            block = line.text.encode()
            found = [match for match in scan(block) if match.rule.severity != "LOW"]
            assert line.secret.encode() in secrets(found, block), line


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_so_is_at_most_a_placeholder(text: str) -> None:
    assert [match.rule.id for match in scan(f"{text}\n".encode()) if not match.placeholder] == []


@pytest.mark.parametrize(
    "name",
    "NEXTAUTH_SECRET BROWSERLESS_TOKEN S3_BUCKET_SECRET_KEY HASHICORP_VAULT_TOKEN ROW_API_TOKEN "
    "CACHE_API_KEY_SECRET GROUP_ACCESS_TOKEN PAGE_ACCESS_TOKEN objectStoreSecret "
    "hashSecret".split(),
)
def test_a_word_in_a_name_that_means_something_else_does_not_silence_it(name: str) -> None:
    value = shape_sample("{a40}", 3)
    for form in (f"{name}={value}", f'"{name}": "{value}"', f"{name}: '{value}'"):
        assert value.encode() in secrets(scan(form.encode()), form.encode()), form


# -- identity


def secret_of(text: str) -> set[bytes]:
    block = text.encode()
    return set(secrets(scan(block), block))


def test_two_passwords_that_begin_alike_are_two_secrets() -> None:
    first, second = "Ab12cdEF" + "/gh34ij", "Ab12cdEF" + "/OTHER99"
    assert secret_of(f"DB_PASSWORD={first}") == {first.encode()}
    assert secret_of(f"DB_PASSWORD={second}") == {second.encode()}


@pytest.mark.parametrize(
    "form",
    [
        "password={}",
        "password='{}'",
        '{{"password": "{}"}}',
        "?user=a&password={}&x=1",
        "password: {}\n",
    ],
)
@pytest.mark.parametrize("value", [PASSWORD, "Ab12cdEF" + "/gh34ij"])
def test_a_value_is_the_same_secret_in_every_form(form: str, value: str) -> None:
    assert secret_of(form.format(value)) == {value.encode()}


def test_a_bearer_token_is_the_same_secret_with_and_without_its_scheme() -> None:
    token = shape_sample("{a40}", 5)
    assert secret_of(f"Authorization: Bearer {token}") == {token.encode()}
    assert secret_of(f"access_token={token}") == {token.encode()}


# -- placeholders among the originals' matches


@pytest.mark.parametrize(
    "text",
    [
        "Password: ********",
        "password: incorrect",
        "password: accepted",
        "root password: already-set, skipping",
        "PASSWORD=changeme",
        "PASSWORD=%DB_PASSWORD%",
        "password=SecretStr('**********')",
        "password: xxxxxxxxxxxx",
        "api_key=" + "1" * 24,
        "api_key=your-api-key-goes-here",
        "Authorization: Bearer " + "x" * 24,
        "-----BEGIN " + "PRIVATE KEY-----\n...",
        "git@github.com",
        "user@example.com",
        "getty@tty1.service",
        "icon@3x.png",
    ],
)
def test_what_the_originals_match_and_is_plainly_no_secret_is_a_placeholder(text: str) -> None:
    found = Scanner(ORIGINAL_RULES).scan(text.encode())
    assert found and {(match.placeholder, match.rule.severity) for match in found} == {
        (True, "LOW")
    }
    assert all(match.placeholder for match in scan(text.encode()))


def test_a_default_password_in_a_url_is_in_use() -> None:
    for text in ("mysql://root:" + "example@db:3306/app", "amqp://admin:" + "admin@queue:5672"):
        assert [match.rule.severity for match in scan(text.encode())] == ["MEDIUM"]


def test_a_user_and_a_password_before_a_host_are_no_email_address() -> None:
    block = b"connecting to app:" + PASSWORD.encode() + b"@db.corp.net:3306"
    assert [match.rule.id for match in scan(block)] == ["host-credentials"]


# -- lines


PIECES = (b"AKIA", b"api", b"_key", b"=", b":", b" ", b'"', b"'", b"-----BEGIN", b" PRIVATE",
          b" KEY-----", b" RSA", b"@", b".", b"a", b"com", b"bearer", b"Password", b"x" * 20,
          b"ABCDEFGHIJKLMNOP", b"\n", b"-", b"\t", b"token: ", b"\\n", b"%3D",
          b"\x1b[31m")  # fmt: skip


def mixtures(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [b"".join(rng.choice(PIECES) for _ in range(rng.randint(2, 14))) for _ in range(count)]


def is_on_one_line(match: Match, text: bytes) -> bool:
    return b"\n" not in text[match.start : match.end]


def test_scanning_lines_at_once_is_scanning_each_line_but_for_values_below_their_names() -> None:
    on_a_line = Scanner([rule for rule in RULES if rule.id != "next-line-secret"])
    for text in mixtures(4000, 7):
        expected, offset = [], 0
        for line in text.split(b"\n"):
            for match in on_a_line.scan(line):
                expected.append((match.rule.id, match.start + offset, match.end + offset))
            offset += len(line) + 1
        found = on_a_line.scan_lines(text)
        assert sorted((match.rule.id, match.start, match.end) for match in found) == sorted(
            expected
        ), text


BELOW = [
    b"Password for the [elastic] user successfully reset.\nNew value: %s\n",
    b"use the following password to proceed to installation:\n\n%s\n\n",
    b"        - name: DB_PASSWORD\n          value: %s\n",
    b'  ["password"]=>\n  string(12) "%s"\n',
    b'Content-Disposition: form-data; name="password"\r\n\r\n%s\r\n',
    b"es-1  | Password for the [elastic] user successfully reset.\nes-1  | New value: %s\n",
]


@pytest.mark.parametrize("template", BELOW)
def test_a_value_below_its_name_is_found_wherever_a_block_ends(template: bytes) -> None:
    text = b"before\n" + template % PASSWORD.encode() + b"after\n"
    lines = text.splitlines(keepends=True)
    for cut in range(len(lines) + 1):
        first = b"".join(lines[:cut])
        kept = first[SCANNER.undecided(first) :] if first else b""
        block = kept + b"".join(lines[cut:])
        found = secrets(SCANNER.scan_lines(first), first) + secrets(
            SCANNER.scan_lines(block), block
        )
        assert PASSWORD.encode() in found, cut


def test_undecided_lines_are_few_and_whole() -> None:
    text = b"x" * 5000 + b"\nplain line\nEnter the password:\n"
    at = SCANNER.undecided(text)
    assert text[at:] == b"Enter the password:\n"
    assert SCANNER.undecided(b"plain line\n") == len(b"plain line\n")
    assert SCANNER.undecided(b"y" * 5000 + b" password:\n") == 5011  # longer than what is kept
    assert Scanner(ORIGINAL_RULES).undecided(text) == len(text)


# -- cost


def test_what_was_seen_in_a_crowded_block_is_found_again(monkeypatch: Any) -> None:
    rng = random.Random(5)
    parts = [line.text.encode() for line in lines_with_secrets()] + [
        t.encode() for t in LOOK_ALIKES
    ]
    for _ in range(12):
        some = rng.sample(parts, 6)
        block = b"\n".join(rng.choice(some) for _ in range(400))
        with monkeypatch.context() as patch:
            patch.setattr(wordfinder, "CROWD", 0)  # no block is crowded
            expected = SCANNER.scan_lines(block)
        assert SCANNER.scan_lines(block) == expected


SPEED_LIMIT = 1.0  # seconds a MiB; on a quiet machine at most 0.56 (docs/performance.md)
UNIT = 160  # bytes of a text that is repeated
SIZE = 32 << 10
SEEDS = [
    *(rule.keywords[0] for rule in RULES[::7] if rule.keywords),
    b"key", b"token", b"secret", b"password", b"pwd", b"auth", b"pw", b"credential", b"salt",
    b"session", b"sid=", b"sig=", b"code", b"login", b"identified by ", b"hook", b"phrase",
    b"mnemonic", b" -p", b" -u ", b"curl ", b"basic ", b"bearer ", b"-----BEGIN", b"->f('",
    b"'", b'"', b"=", b": ", b"\\", b"\n", b" ", b">", b"<", b"|", b"@", b"a", b"1", b"aB3",
    b"x" * 20,
    b"://", b"a:b@", b".", b"-", b"_", b"/", b"%3A%2F%2F", b"#0 ", b"$1$", b"Q~", b"~", b"value",
    b"is ", b"for ", b"[", b"(", b")", b"{", b";", b",", b"&", b"?", b"mysql ", b"A1b2C3d4",
]  # fmt: skip


def cost(unit: bytes) -> float:
    """Seconds a MiB of a text that repeats the unit."""
    text = (unit * (SIZE // len(unit) + 1))[:SIZE]
    taken = []
    for _ in range(3):
        began = time.process_time()
        SCANNER.scan_lines(text)
        taken.append(time.process_time() - began)
        if taken[-1] < SPEED_LIMIT * SIZE / (1 << 20) / 4:
            break
    return min(taken) * (1 << 20) / SIZE


def mutated(unit: bytes, rng: random.Random) -> bytes:
    kind, at, other = rng.random(), rng.randrange(len(unit)), rng.randrange(len(unit))
    low, high = min(at, other), max(at, other)
    if kind < 0.4:
        return unit[:at] + rng.choice(SEEDS) + unit[at:]
    if kind < 0.6:
        return unit[:low] + unit[high:] or unit
    if kind < 0.8:
        return unit[:at] + bytes([rng.choice(b"abXYZ019 =:\"'\\\n.-_/@>")]) + unit[at + 1 :]
    return unit[:high] + unit[low:high] + unit[high:]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_no_text_that_evolves_to_be_slow_costs_much(seed: int) -> None:
    rng = random.Random(seed)
    units = {rng.choice(SEEDS) + rng.choice(SEEDS) for _ in range(40)}
    ranked = sorted(((cost(unit), unit) for unit in units), reverse=True)[:20]
    for _ in range(40):
        parents = [unit for _, unit in ranked[:10]]
        children = {mutated(rng.choice(parents), rng)[:UNIT] for _ in range(20)}
        ranked = sorted({*ranked, *((cost(unit), unit) for unit in children)}, reverse=True)[:20]
    assert ranked[0][0] < SPEED_LIMIT, ranked[0]


@pytest.mark.full
@pytest.mark.parametrize("unit", SEEDS, ids=repr)
def test_a_text_of_one_piece_again_and_again_costs_in_proportion_to_its_length(unit: bytes) -> None:
    assert cost(unit) < SPEED_LIMIT


def test_a_line_full_of_false_marks_is_searched_once() -> None:
    assert cost(b"Q~$1$~$1$a$abcdefghij1234567890a") < SPEED_LIMIT
