"""Lines of a log with secrets planted in them, and what a masked reader may see of them."""

from __future__ import annotations

import random
from collections.abc import Iterable

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
WORDS = "the server GET /index.html 200 started 10.0.0.1 warn keyed done authority".split()


def word(rng: random.Random, size: int, letters: str = LETTERS + DIGITS) -> str:
    """Random characters, with a digit in every five, as no word has."""
    text = [rng.choice(letters) for _ in range(size)]
    text[::5] = [rng.choice(DIGITS) for _ in text[::5]]
    return "".join(text)


def private_key(rng: random.Random, newline: str) -> tuple[str, list[str]]:
    """A private key's text, and the lines of its body."""
    body = [word(rng, 64) for _ in range(5)] + [word(rng, 22) + "=="]
    head, tail = (f"-----{edge} RSA PRIVATE " + "KEY-----" for edge in ("BEGIN", "END"))
    return newline.join([head, *body, tail]), body


def planted(rng: random.Random) -> tuple[str, list[str]]:
    """A line, or lines, with a secret in it, and the secret."""
    kind = rng.randrange(8)
    if kind < 3:
        newline = ("\n", "\r\n", "\\n")[kind]
        text, body = private_key(rng, newline)
        return (f'{{"k": "{text}"}}' if kind == 2 else text), body
    size = (36, 18, 24, 16, 20)[kind - 3]
    secret = word(rng, size)
    form = (
        "got gh" + "p_{} here",
        "login password={} done",
        "Authorization: Bearer {}",
        "postgres://app:{}@db.internal/x",
        "api_key={} x",
    )[kind - 3]
    return form.format(secret), [secret]


def text_of(rng: random.Random, lines: int) -> tuple[bytes, list[bytes]]:
    """Lines of a log, some with secrets, and the secrets."""
    text, secrets = "", []
    for _ in range(lines):
        line, more = " ".join(rng.choices(WORDS, k=rng.randrange(12))), list[str]()
        if rng.random() < 0.4:
            line, more = planted(rng)
        text += line + "\n"
        secrets += more
    return text.encode(), [secret.encode() for secret in secrets]


def shown_windows(secrets: Iterable[bytes], text: bytes) -> list[bytes]:
    """Six bytes of a secret that the client reads; six digits may stand in a time stamp, too."""
    shown = {text[at : at + 6] for at in range(len(text) - 5)}
    windows = (secret[at : at + 6] for secret in secrets for at in range(len(secret) - 5))
    return [window for window in windows if window in shown and not window.isdigit()]


def same_but_for_asterisks(masked: bytes, wire: bytes) -> bool:
    """Whether nothing else has changed."""
    return len(masked) == len(wire) and all(a == b or a == 42 for a, b in zip(masked, wire))
