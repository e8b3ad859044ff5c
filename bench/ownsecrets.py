#!/usr/bin/env python3
"""Figures of containers' own secrets: `python3 bench/ownsecrets.py [--logs DIR] [--no-stream]`.

found       opaque secrets, printed in eight forms; beside it what the rules find without them
noise       lines that hold harmless variables' values; real logs (--logs), with ten needles
scan        time of a scan with ten needles against none
stream      a busy stream end to end, with ten needles against none: a C compiler is needed
memory      of 2,000 containers, with usual variables and with as many as count
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import statistics
import string
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from peers import Dockeraudit
from run import Bench, stream
from shapes import plain_line

from _dockeraudit.ownsecrets import own_secrets, with_own_secrets
from _dockeraudit.secretsmemory import SecretsMemory
from patterns import DEFAULT_SCANNER

SECRETS = 1000
NEEDLES = 10
HARMLESS_LINES = 50_000
CONTAINERS = 2000
BLOCK = 64 << 10
ROUNDS = 3
SIGNS = "!@#$%^&*-_=+/<>?"
#: what containers have besides secrets, whose values their logs are full of
HARMLESS = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/home/application",
    "HOSTNAME=worker-7f9c4d-x2x4l", "LANG=en_US.UTF-8", "NODE_ENV=production",
    "APP_ENV=staging-eu-west-1", "LOG_LEVEL=information", "TZ=Europe/Amsterdam", "PORT=8080808080",
    "DATABASE_HOST=postgres.internal.example", "DATABASE_NAME=application_production",
    "DATABASE_USER=application_writer", "DATABASE_URL=postgres://postgres.internal.example:5432/app",
    "REDIS_URL=redis://cache.internal.example:6379/0", "PUBLIC_URL=https://shop.example.com/start",
    "GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568", "PYTHON_VERSION=3.12.4-slim-bookworm",
    "PYTHON_SHA256=f6d419a6d8743ab26700801b4908d26d97e8b986e14f95de31b32de2b0e79554",
    "POSTGRES_PASSWORD_FILE=/run/secrets/postgres-password", "TOKEN_EXPIRY_SECONDS=1209600000",
    "CACHE_KEY_PREFIX=application:cache:v2", "SECRET_NAME=application/production/main",
    "AUTH_PROVIDER=keycloak-production", "JWT_ALGORITHM=RS256-RSASSA-PKCS1",
    "KEY_ID=2024-06-main-key",
    "PASSWORD_MIN_LENGTH=12345678", "DB_PASSWORD=changeme", "ADMIN_PASSWORD=password",
    "APP_SECRET=${APP_SECRET}", "API_TOKEN=<your-api-token>", "REDIS_PASSWORD=",
    "SESSION_SECRET=************", "GIT_COMMIT=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "KUBERNETES_SERVICE_HOST=kubernetes.default.svc", "JAVA_OPTS=-Xmx512m -XX:+UseG1GC",
)  # fmt: skip


def opaque(rng: random.Random, least: int = 12, most: int = 32) -> str:
    """A value without a known shape."""
    alphabet = string.ascii_letters + string.digits + (SIGNS if rng.random() < 0.5 else "")
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(least, most + 1)))


def forms(value: str) -> dict[str, bytes]:
    """A value as programs print it."""
    raw = value.encode()
    return {
        "in a sentence": b"login with " + raw + b" failed",
        "in a URL": b"GET http://db:5432/?user=app&code=" + quote(value, safe="").encode(),
        "base64": base64.b64encode(raw),
        "base64 of a pair": base64.b64encode(b"application:" + raw),
        "base64, URL-safe": base64.urlsafe_b64encode(b"x" + raw).rstrip(b"="),
        "JSON": json.dumps({"config": {"value": value}}).encode(),
        "JSON in JSON": json.dumps({"body": json.dumps({"v": value})}).encode(),
        "in a stack trace": b"    at connect('db', '" + raw + b"', 5432)",
    }


def figures_of_found() -> None:
    """How many secrets are found, by form, with and without the container's own."""
    rng = random.Random(1)
    found: dict[str, list[int]] = {}
    for number in range(SECRETS):
        value = opaque(rng)
        own = own_secrets([f"DB_PASSWORD={value}"], DEFAULT_SCANNER)
        scanner = with_own_secrets(DEFAULT_SCANNER, own)
        for form, text in forms(value).items():
            line = b"2026-01-01T00:00:00Z %d " % number + text + b"\n"
            counts = found.setdefault(form, [0, 0])
            counts[0] += len([m for m in scanner.scan_lines(line) if m.needle]) == 1
            counts[1] += any(m.rule.severity != "LOW" for m in DEFAULT_SCANNER.scan_lines(line))
    for form, (ours, rules) in found.items():
        print(f"found  {form:<18} {ours:>5} of {SECRETS}, by rules alone {rules}")
    total = SECRETS * len(found)
    ours, rules = (sum(counts[which] for counts in found.values()) for which in (0, 1))
    print(f"found  all {100 * ours / total:.1f} %, by rules alone {100 * rules / total:.1f} %")


def figures_of_noise(logs: Path | None) -> None:
    """Findings where there are none."""
    rng = random.Random(2)
    values = [entry.partition("=")[2] for entry in HARMLESS]
    harmless = with_own_secrets(DEFAULT_SCANNER, own_secrets(HARMLESS, DEFAULT_SCANNER))
    ten = with_needles()
    wrong = {"harmless": 0, "logs": 0}
    for _ in range(HARMLESS_LINES):
        shown = " ".join(rng.choice(values) for _ in range(rng.randrange(1, 4)))
        line = plain_line(60, rng)[:-1] + b" " + shown.encode() + b"\n"
        for scanner in (harmless, ten):
            wrong["harmless"] += sum(m.rule.find == "env" for m in scanner.scan_lines(line))
    lines = 0
    for block in blocks_of(logs):
        lines += block.count(b"\n")
        for scanner in (harmless, ten):
            wrong["logs"] += sum(match.needle is not None for match in scanner.scan_lines(block))
    print(f"noise  {wrong['harmless']} findings on {HARMLESS_LINES} harmless lines")
    print(f"noise  {wrong['logs']} findings on {lines} lines of real logs")


def blocks_of(logs: Path | None) -> Iterator[bytes]:
    """Real logs in blocks."""
    for path in sorted(logs.glob("*.log")) if logs else ():
        data = path.read_bytes()
        yield from (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))


def ten_variables() -> list[str]:
    """Ten secrets, in a container's usual variables."""
    rng = random.Random(3)
    secrets = [f"SERVICE_{number}_PASSWORD={opaque(rng, 16)}" for number in range(NEEDLES)]
    return [*HARMLESS, *secrets]


def with_needles() -> Any:
    """A scanner with ten needles."""
    return with_own_secrets(DEFAULT_SCANNER, own_secrets(ten_variables(), DEFAULT_SCANNER))


def figures_of_scan(logs: Path | None) -> None:
    """Time of a scan with ten needles against none."""
    dice = random.Random(4)
    lines = [b"".join(plain_line(100, dice) for _ in range(655)) for _ in range(20)]
    for name, blocks in (("plain lines", lines), ("real logs", list(blocks_of(logs))[::5])):
        if blocks:
            ratios = [seconds(with_needles(), blocks) / seconds(DEFAULT_SCANNER, blocks)]
            ratios += [
                seconds(with_needles(), blocks) / seconds(DEFAULT_SCANNER, blocks)
                for _ in range(ROUNDS - 1)
            ]
            print(f"scan   {name}: {statistics.median(ratios):.2f} times as long")


def seconds(scanner: Any, blocks: Sequence[bytes]) -> float:
    """Processor time that the blocks take."""
    begun = time.process_time()
    for block in blocks:
        scanner.scan_lines(block)
    return time.process_time() - begun


class WithoutOwn(Dockeraudit):
    """The same with --own-secrets off."""

    name = "dockeraudit-without"
    options = ("--own-secrets", "off")


KINDS = (WithoutOwn, Dockeraudit)


def figures_of_stream() -> None:
    """A busy stream through the program, with ten needles against none."""
    os.environ["BENCH_ENV"] = json.dumps(ten_variables())
    options = argparse.Namespace(peers="", smoke=False, program=None, more=0)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm"))
    try:
        with Bench(folder, options) as bench:
            for shape in ("each100", "packed100", "each1k"):
                bench.compare(shape, KINDS, stream(bench, shape))
                peers = bench.results[shape]
                rate, work = (
                    [statistics.median(peers[kind.name][metric].values) for kind in KINDS]
                    for metric in ("frames_per_second", "cpu_per_million")
                )
                print(
                    f"stream {shape}: {rate[1] / rate[0]:.2f} of the rate without needles; "
                    f"by processor time {work[0] / work[1]:.2f}"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def figures_of_memory() -> None:
    """What the secrets of many containers take, all of them read at once."""
    rng = random.Random(5)
    usual = [[*HARMLESS, *(f"S{n}_PASSWORD={opaque(rng)}" for n in range(5))] for _ in range(200)]
    many = [[f"S{n}_PASSWORD={opaque(rng, 60, 400)}" for n in range(70)] for _ in range(20)]
    for name, envs in (("usual", usual), ("many", many)):
        memory, before = SecretsMemory(lambda: DEFAULT_SCANNER), resident()
        readers = [
            memory.learn(f"{number:064x}", [*envs[number % len(envs)], f"X_TOKEN=t-{number:09}-x"])
            for number in range(CONTAINERS)
        ]
        read = sum(bool(own) for own in readers)
        grown = (resident() - before) / (1 << 20)
        print(
            f"memory {name}: {grown:.0f} MiB for {CONTAINERS} containers, {read} of them searched"
        )
        del readers


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="a folder with real *.log files")
    parser.add_argument("--no-stream", action="store_true", help="leave out the busy stream")
    options = parser.parse_args()
    figures_of_memory()
    figures_of_found()
    figures_of_noise(options.logs)
    figures_of_scan(options.logs)
    if not options.no_stream:
        figures_of_stream()


if __name__ == "__main__":
    main()
