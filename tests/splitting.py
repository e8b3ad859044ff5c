"""Cutting bytes into pieces, since a socket may deliver them in any."""

from __future__ import annotations

import random
from collections.abc import Iterator


def splits(data: bytes, seed: int = 1, rounds: int = 20) -> Iterator[list[bytes]]:
    """The data whole, byte by byte, and cut at seeded random places."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    rng = random.Random(seed)
    for _ in range(rounds):
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 12)))
        yield [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
