"""Recovery phrases: what is one, where it is looked for, and how far it goes."""

from __future__ import annotations

import hashlib
import random

import pytest

from _dockeraudit.wallets import (
    PHRASE_SIZES,
    WORD_NUMBERS,
    checksum_fits,
    recovery_phrase,
)
from patterns import scan

WORDS = [word.decode() for word in WORD_NUMBERS]


def phrase(size, seed=1):
    """A made-up phrase of `size` words whose checksum fits."""
    rng = random.Random(f"{size} {seed}")
    words = rng.sample(WORDS, size)
    while not checksum_fits([word.encode() for word in words]):
        words[-1] = rng.choice(WORDS)
    return words


def found(text, below=3):
    """The phrase that is found from the text's beginning, and whether its checksum fits."""
    match = recovery_phrase(text.encode(), 0, below)
    return match and (text.encode()[match.start : match.end].decode(), match.fits)


def test_the_words_are_those_of_the_public_list():
    listed = "".join(word + "\n" for word in WORDS)
    digest = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    assert hashlib.sha256(listed.encode()).hexdigest() == digest


@pytest.mark.parametrize("size", PHRASE_SIZES)
def test_the_checksum_fits_the_vectors_of_the_standard(size):
    zeros = {12: "about", 15: "address", 18: "agent", 21: "admit", 24: "art"}
    vector = ["abandon"] * (size - 1) + [zeros[size]]
    assert checksum_fits([word.encode() for word in vector])
    assert not checksum_fits([word.encode() for word in [*vector[:-1], "zoo"]])


@pytest.mark.parametrize("size", PHRASE_SIZES)
@pytest.mark.parametrize(
    "text",
    [
        ": {}\n",
        "   {}",
        " phrase is:\n\n{}\n\nkeep it",
        '="{}"',
        " was {}. Keep it.",
        ' "{}",',
        " (keep it): {}\r\n",
    ],
)
def test_a_phrase_is_found_whole(size, text):
    words = " ".join(phrase(size))
    assert found(text.format(words)) == (words, True)


@pytest.mark.parametrize(
    "join", ['", "', '","', "', '", ", ", "\\n", "  ", "|", '\\", \\"', "\t", "-"]
)
def test_a_phrase_is_found_as_a_list(join):
    words = join.join(phrase(12))
    assert found(f': ["{words}"]') == (words, True)


@pytest.mark.parametrize("form", ["{}. {}", "{}) {}", "{:2}. {:<9}", "{}: {}", '{}. "{}"'])
@pytest.mark.parametrize("row", [24, 4])
def test_a_phrase_is_found_with_its_numbers(form, row):
    words = phrase(12)
    cells = [form.format(number, word) for number, word in enumerate(words, 1)]
    rows = [" ".join(cells[at : at + row]) for at in range(0, 12, row)]
    secret, fits = found(":\n" + "\n".join(rows) + "\n")
    assert fits and secret.startswith(words[0]) and secret.rstrip('" ').endswith(words[-1])


def test_a_phrase_is_found_among_other_listed_words():
    words = " ".join(phrase(12))
    assert found(f" seed phrase {words}") == (words, True)
    assert found(f" {words} because it fits") == (words, True)


def test_capitals_are_read_like_small_letters():
    words = " ".join(phrase(12)).upper()
    assert found(f"={words}") == (words, True)


def test_words_with_another_checksum_are_found_as_such():
    words = phrase(24)
    words[0], words[1] = words[1], words[0]
    assert not checksum_fits([word.encode() for word in words])
    assert found(": " + " ".join(words)) == (" ".join(words), False)


@pytest.mark.parametrize(
    "text",
    [
        ": " + " ".join(phrase(12)[:11]),
        ": " + " ".join(phrase(12)[:6]) + " of " + " ".join(phrase(12)[6:]),
        ": " + " ".join(phrase(12)[:6]) + " = " + " ".join(phrase(12)[6:]),
        ": " + " ".join(WORDS[:200]),
        ": " + " ".join(WORDS[100:112]),
        ": " + " ".join(["abandon"] * 11 + ["about"]),
        ": " + " ".join(["test"] * 11 + ["junk"]),
        " the words are kept in a safe place and never shown again to anybody who asks for them",
        "",
    ],
)
def test_what_is_no_phrase_is_left_alone(text):
    assert found(text) is None


def test_a_phrase_is_looked_for_a_few_lines_on():
    words = " ".join(phrase(12))
    assert found(f":\n\n\n{words}\n") == (words, True)
    assert found(f":\n\n\n\n{words}\n") is None
    assert found(f":\n{words}\n", below=0) is None
    assert found(": " + "x " * 100 + words) == (words, True)
    assert found(": " + "x " * 300 + words) is None


def test_prose_of_which_a_third_is_listed_is_no_phrase():
    rng = random.Random(7)
    prose = ["the", "of", "and", "to", "is"]
    for _ in range(500):
        text = " ".join(rng.choice(WORDS if rng.random() < 0.33 else prose) for _ in range(150))
        assert found(text) is None


@pytest.mark.parametrize(
    "text, rule",
    [
        ("Mnemonic: {}", "recovery-phrase"),
        ("write this mnemonic phrase in a safe place.\n\n{}\n", "recovery-phrase"),
        ('{{:passphrase "{}"}}', "recovery-phrase"),
        ("MNEMONIC={}", "recovery-phrase"),
        ("mnemonic: zoo {}", "recovery-phrase"),
    ],
)
def test_a_phrase_is_reported_whole_behind_its_announcement(text, rule):
    words = " ".join(phrase(24, 3))
    block = text.format(words).encode()
    found = [(match.rule.id, block[match.secret_start : match.secret_end]) for match in scan(block)]
    assert found == [(rule, words.encode())]


def test_a_phrase_with_another_checksum_is_medium():
    words = phrase(12)
    text = "mnemonic=" + " ".join(reversed(words))
    assert [match.rule.severity for match in scan(text.encode())] == ["MEDIUM"]
